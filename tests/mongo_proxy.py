"""A proxy in front of the run's MongoDB that does what servers and networks do on bad days, message by message."""

import contextlib
import re
import socket
import struct
import threading
import time

import bson
from mongo_wire import message as read_message

OP_MSG = 2013


def command_of(message):
    """The name of the command of a request, None for the old hello of a first contact."""
    if struct.unpack('<i', message[12:16])[0] != OP_MSG:
        return None
    at = 20
    while message[at] != 0:  # a sequence of documents stands before the command
        at += 1 + struct.unpack('<i', message[at + 1:at + 5])[0]
    size = struct.unpack('<i', message[at + 1:at + 5])[0]
    return next(iter(bson.decode(message[at + 1:at + 1 + size])))


class MongoProxy:
    """.uri goes to the database of `uri` by way of it. What happens to commands, by their name (insert, find, …):

    .frozen = True              no request is answered until it is False again; they all are, then
    .fail[name] = code          answered with that error code by the proxy itself, .fail_times[name] times or always
    .lose[name] = n             the next n requests reach the server, and the connection ends before the answer
    .before[name] = function    called once, before the next request of that name is passed on
    .delay = seconds            every answer comes later
    .seen                       the names of all requests passed on or failed
    stop(), start()             refuse connections and end those that are there; come back on the same port
    """

    def __init__(self, uri):
        host, port, path = re.match(r'mongodb://(?:[^@/]*@)?([^:/]+):(\d+)(/[^?]*)?', uri).groups()
        self.target = (host, int(port))
        self.frozen, self.delay = False, 0
        self.fail, self.fail_times, self.lose, self.before, self.seen = {}, {}, {}, {}, []
        self._open = set()
        self._listener = None
        self.port = 0
        self.start()
        self.uri = f'mongodb://127.0.0.1:{self.port}{path or "/campusfs"}?directConnection=true'

    def start(self):
        self._listener = socket.create_server(('127.0.0.1', self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stop(self):
        for sock in [self._listener, *self._open]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self, listener):
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                self._open.add(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        with client, contextlib.suppress(OSError), socket.create_connection(self.target) as server:
            while True:
                request = read_message(client)
                name = command_of(request)
                self.seen.append(name)
                while self.frozen:
                    time.sleep(0.01)
                if self._fails(name):
                    self._answer(client, request, self.fail[name])
                    continue
                self.before.pop(name, lambda: None)()
                server.sendall(request)
                answer = read_message(server)
                if self.lose.get(name, 0) > 0:
                    self.lose[name] -= 1
                    return
                time.sleep(self.delay)
                client.sendall(answer)

    def _fails(self, name):
        if name not in self.fail or self.fail_times.get(name, 1) == 0:
            return False
        if name in self.fail_times:
            self.fail_times[name] -= 1
        return True

    @staticmethod
    def _answer(client, request, code):
        number, = struct.unpack('<i', request[4:8])
        body = bson.encode({'ok': 0.0, 'code': code, 'errmsg': 'the proxy says no'})
        client.sendall(struct.pack('<iiiiIb', 21 + len(body), 1, number, OP_MSG, 0, 0) + body)
