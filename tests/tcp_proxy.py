"""A TCP proxy before a server, which each test's own makes worse than a wire."""

import contextlib
import socket
import threading


class TcpProxy:
    """Listens on .host:.port and leads to `target`, a (host, port). A subclass has its own serve(client), or its own
    pass_there(client, server) and pass_back(server, client), each of which runs in a thread of its own until its source
    ends. A server that refuses costs the connection that wanted it, and no other."""

    def __init__(self, target, listener=None):
        self.target = target
        self._sockets = set()
        self._lock = threading.Lock()
        self.host, self.port = '127.0.0.1', 0
        self.listen(listener)

    def listen(self, listener=None):
        """Takes connections, again on the same port if it had been closed."""
        self._listener = listener or socket.create_server((self.host, self.port))
        self.host, self.port = self._listener.getsockname()
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def close(self):
        """Takes no more connections, and breaks those that are there."""
        end(self._listener)
        self._listener.close()
        with self._lock:
            sockets = list(self._sockets)
        end(*sockets)

    def _accept(self, listener):
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        with self._kept(client), contextlib.suppress(OSError):
            self.serve(client)

    @contextlib.contextmanager
    def _kept(self, sock):
        with self._lock:
            self._sockets.add(sock)
        try:
            with sock:
                yield sock
        finally:
            with self._lock:
                self._sockets.discard(sock)

    def connect(self):
        """A connection to the server, for a `with`, that close() breaks."""
        server = socket.create_connection(self.target)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._kept(server)

    def serve(self, client):
        """Both directions, until both have ended."""
        with self.connect() as server:
            there = threading.Thread(target=self.pass_there, args=(client, server), daemon=True)
            there.start()
            self.pass_back(server, client)
            there.join()

    def pass_there(self, client, server):
        copy(client, server)
        end(client, server)

    def pass_back(self, server, client):
        copy(server, client)
        end(server, client)


def copy(source, sink, edit=lambda data: data):
    """Until the source ends. edit(data) is what the sink gets of it."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(edit(data))


def end(*sockets):
    for sock in sockets:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
