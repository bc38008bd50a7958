"""A proxy in front of the run's MongoDB that does what servers and networks do on bad days, message by message."""

import struct
import time

import bson
from mongo_wire import MongoWire, is_command, message, reply

def command_of(request):
    """The name of the command of a request, None for the old hello of a first contact."""
    if not is_command(request):
        return None
    at = 20
    while request[at] != 0:  # a sequence of documents stands before the command
        at += 1 + struct.unpack('<i', request[at + 1:at + 5])[0]
    size = struct.unpack('<i', request[at + 1:at + 5])[0]
    return next(iter(bson.decode(request[at + 1:at + 1 + size])))


class MongoProxy(MongoWire):
    """.uri goes to the database of `uri` by way of it. What happens to commands, by their name (insert, find, …):

    .frozen = True              no request is answered until it is False again; they all are, then
    .mute.add(name)             the same of requests of that name
    .fail[name] = code          answered with that error code by the proxy itself, .fail_times[name] times or always
    .lose[name] = n             the next n requests reach the server, and the connection ends before the answer
    .before[name] = function    called once, before the next request of that name is passed on
    .delay = seconds            every answer comes later
    .seen                       the names of all requests passed on or failed
    stop(), start()             refuse connections and end those that are there; come back on the same port
    """

    def __init__(self, uri):
        self.frozen, self.delay, self.mute = False, 0, set()
        self.fail, self.fail_times, self.lose, self.before, self.seen = {}, {}, {}, {}, []
        super().__init__(uri)

    def start(self):
        self.listen()

    def stop(self):
        self.close()

    def handle(self, request, client, server):
        name = command_of(request)
        self.seen.append(name)
        while self.frozen or name in self.mute:
            time.sleep(0.01)
        if self._fails(name):
            client.sendall(reply(request, {'ok': 0.0, 'code': self.fail[name], 'errmsg': 'the proxy says no'}))
            return True
        self.before.pop(name, lambda: None)()
        server.sendall(request)
        answer = message(server)
        if self.lose.get(name, 0) > 0:
            self.lose[name] -= 1
            return False
        time.sleep(self.delay)
        client.sendall(answer)
        return True

    def _fails(self, name):
        if name not in self.fail or self.fail_times.get(name, 1) == 0:
            return False
        if name in self.fail_times:
            self.fail_times[name] -= 1
        return True
