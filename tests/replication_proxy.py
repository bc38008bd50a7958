"""A TCP proxy before one PostgreSQL server that knows the replication stream: it can cut it in the middle of a message,
say messages twice, and change them, or what is asked of the server. Ordinary connections pass as they are."""

import contextlib
import socket
import struct
import threading


class ReplicationProxy:
    """Listens on .port. What `mangle` (None, or a function of a CopyData message's bytes) returns is sent instead of
    it, and b'' cuts the connection behind the first half of the message. `ask` is a function of the bytes that go to the
    server on such a connection, as they come."""

    def __init__(self, port, host='127.0.0.1'):
        self.target = (host, port)
        self.mangle = self.ask = None
        self.mangled = threading.Event()
        self._listener = socket.create_server((host, 0))
        self.port = self._listener.getsockname()[1]
        self._sockets = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        for sock in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self.target)
            except OSError:
                return
            self._sockets += [client, server]
            threading.Thread(target=self._serve, args=(client, server), daemon=True).start()

    def _serve(self, client, server):
        with contextlib.suppress(OSError):
            first = client.recv(65536)
            while _is_ssl_request(first):
                client.sendall(b'N')
                first = client.recv(65536)
            server.sendall(first)
            stream = b'replication\0' in first
            back = self._pass_messages if stream else self._pass_bytes
            threading.Thread(target=self._pass_asked if stream else self._pass_bytes, args=(client, server), daemon=True).start()
            back(server, client)
        _end(client, server)

    @staticmethod
    def _pass_bytes(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        _end(source, sink)

    def _pass_asked(self, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(self.ask(data) if self.ask else data)
        _end(source, sink)

    def _pass_messages(self, source, sink):
        """Message by message, so that those of the stream can be changed."""
        while (head := _exactly(source, 5)):
            length, = struct.unpack('!I', head[1:])
            body = _exactly(source, length - 4)
            mangle = self.mangle
            if head[:1] != b'd' or mangle is None:
                sink.sendall(head + body)
                continue
            changed = mangle(body)
            if changed != body:
                self.mangle = None
                self.mangled.set()
            if changed == b'':
                sink.sendall((head + body)[:5 + len(body) // 2])
                return
            for message in changed if isinstance(changed, list) else [changed]:
                sink.sendall(b'd' + struct.pack('!I', len(message) + 4) + message)


def _is_ssl_request(data):
    return len(data) == 8 and struct.unpack('!II', data)[1] in (80877103, 80877104)


def _exactly(sock, size):
    data = b''
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            return b''
        data += piece
    return data


def _end(*sockets):
    for sock in sockets:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
