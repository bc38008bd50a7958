"""MongoDB's messages as they come over a socket, for the proxies of the tests."""

import struct


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
