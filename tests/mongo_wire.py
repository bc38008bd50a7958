"""MongoDB's messages as they come over a socket, and the base of the proxies that know them."""

import re
import struct

import bson

from tcp_proxy import TcpProxy

OP_MSG = 2013


def receive(sock, size):
    data = b''
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise ConnectionError
        data += more
    return data


def message(sock):
    """One whole message, its header included; ConnectionError when the other side has ended."""
    header = receive(sock, 16)
    return header + receive(sock, struct.unpack('<i', header[:4])[0] - 16)


def is_command(request):
    """Whether it is an OP_MSG, as all are but the old hello of a first contact."""
    return struct.unpack('<i', request[12:16])[0] == OP_MSG


def reply(request, document):
    """The answer to it, from whoever says so."""
    body, number = bson.encode(document), struct.unpack('<i', request[4:8])[0]
    return struct.pack('<iiiiIb', 21 + len(body), 1, number, OP_MSG, 0, 0) + body


class MongoWire(TcpProxy):
    """.uri goes to the database of `uri` by way of it; a subclass may treat each request in its own way."""

    def __init__(self, uri):
        host, port, path = re.match(r'mongodb://(?:[^@/]*@)?([^:/]+):(\d+)(/\w+)?', uri).groups()
        super().__init__((host, int(port)))
        self.uri = f'mongodb://127.0.0.1:{self.port}{path or "/campusfs"}?directConnection=true'

    def serve(self, client):
        with self.connect() as server:
            while self.handle(message(client), client, server):
                pass

    def handle(self, request, client, server):
        """False ends the connection."""
        server.sendall(request)
        client.sendall(message(server))
        return True
