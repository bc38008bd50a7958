"""A TCP proxy before one PostgreSQL server that knows the replication stream: it can cut it in the middle of a message,
say messages twice, and change them, or what is asked of the server. Ordinary connections pass as they are."""

import contextlib
import struct
import threading

from tcp_proxy import TcpProxy, copy, end


class ReplicationProxy(TcpProxy):
    """Leads to 127.0.0.1:port. What `mangle` (None, or a function of a CopyData message's bytes) returns is sent instead of
    it, and b'' cuts the connection behind the first half of the message; it is called until it has changed one, with
    `lasting` for every message. `ask` is a function of the bytes that go to the
    server on such a connection, as they come."""

    def __init__(self, port):
        self.mangle = self.ask = None
        self.lasting = False
        self.mangled = threading.Event()
        super().__init__(('127.0.0.1', port))

    def serve(self, client):
        first = client.recv(65536)
        while _is_ssl_request(first):
            client.sendall(b'N')
            first = client.recv(65536)
        with self.connect() as server:
            server.sendall(first)
            stream = b'replication\0' in first
            there = threading.Thread(target=self._pass_asked if stream else self.pass_there, args=(client, server), daemon=True)
            there.start()
            (self._pass_messages if stream else self.pass_back)(server, client)
            there.join()

    def _pass_asked(self, client, server):
        copy(client, server, lambda data: self.ask(data) if self.ask else data)
        end(client, server)

    def _pass_messages(self, server, client):
        """Message by message, so that those of the stream can be changed."""
        with contextlib.suppress(OSError):
            while (head := _exactly(server, 5)) and self._pass_message(head, _exactly(server, struct.unpack('!I', head[1:])[0] - 4),
                                                                       client):
                pass
        end(server, client)

    def _pass_message(self, head, body, client):
        """False cuts the connection."""
        mangle = self.mangle
        if head[:1] != b'd' or mangle is None:
            client.sendall(head + body)
            return True
        changed = mangle(body)
        if changed != body:
            self.mangle = mangle if self.lasting else None
            self.mangled.set()
        if changed == b'':
            client.sendall((head + body)[:5 + len(body) // 2])
            return False
        for message in changed if isinstance(changed, list) else [changed]:
            client.sendall(b'd' + struct.pack('!I', len(message) + 4) + message)
        return True


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
