"""A proxy between a mount and its MongoDB server that a test makes misbehave: at chosen commands it answers by an error,
swallows the request or the answer, cuts the connection, waits, or calls the test.

    proxy = MediaProxy(cluster.mongodb.uri)
    proxy.rule('insert', 'chunks', action='error', code=8, after=2)      the third and later ones
    mount = new_mount(mongodb_uri=proxy.uri)
"""

import struct
import threading
import time

import bson
from mongo_wire import MongoWire, is_command, message, reply

def parse(request):
    """(command, collection's last part, body, documents) of an OP_MSG; None for anything else."""
    if not is_command(request):
        return None
    body, documents, at = None, [], 20
    flags, = struct.unpack('<I', request[16:20])
    end = len(request) - (4 if flags & 1 else 0)
    while at < end:
        kind = request[at]
        size, = struct.unpack('<i', request[at + 1:at + 5])
        section = request[at + 1:at + 1 + size]
        if kind == 0:
            body = bson.decode(section)
        else:
            inner = section.index(b'\0', 4) + 1
            while inner < size:
                length, = struct.unpack('<i', section[inner:inner + 4])
                documents.append(section[inner:inner + length])
                inner += length
        at += 1 + size
    command = next(iter(body))
    documents = documents or [bson.encode(document) for document in body.get('documents', [])]
    return command, str(body[command]).rpartition('.')[2], body, documents


class Rule:
    """What happens at some commands: those of a name on a part of a bucket from the `after`th on, `times` of them."""

    def __init__(self, command, part, action, after=0, times=None, when=None, **more):
        self.command, self.part, self.action, self.when = command, part, action, when
        self.after, self.times, self.more = after, times, more
        self.seen = self.done = 0

    def applies(self, parsed):
        command, part, _, documents = parsed
        if command != self.command or part != self.part or (self.when and not self.when(documents)):
            return False
        self.seen += 1
        if self.seen <= self.after or (self.times is not None and self.done >= self.times):
            return False
        self.done += 1
        return True


class MediaProxy(MongoWire):
    def __init__(self, uri):
        self.lock = threading.Lock()
        self.rules = []
        self.log = []  # (command, part, number of documents, write concern or None)
        super().__init__(uri)

    def rule(self, *arguments, **keywords):
        rule = Rule(*arguments, **keywords)
        with self.lock:
            self.rules.append(rule)
        return rule

    def clear(self):
        with self.lock:
            self.rules.clear()

    def count(self, command, part):
        return sum(entry[:2] == (command, part) for entry in self.log)

    def close(self):
        self.clear()
        super().close()

    def _rule_of(self, parsed):
        with self.lock:
            self.log.append((parsed[0], parsed[1], len(parsed[3]), parsed[2].get('writeConcern')))
            return next((rule for rule in self.rules if rule.applies(parsed)), None)

    def handle(self, request, client, server):
        parsed = parse(request)
        rule = self._rule_of(parsed) if parsed else None
        return self._act(rule, request, client, server) if rule else super().handle(request, client, server)

    def _act(self, rule, request, client, server):
        """False ends the connection."""
        more = rule.more
        if 'call' in more:
            more['call']()
        if rule.action == 'delay':
            time.sleep(more['seconds'])
        if rule.action == 'cut':
            return False
        if rule.action in ('error', 'pretend'):
            body = {'ok': 1.0, 'n': more.get('n', 0)}
            if rule.action == 'error' and more.get('write', True):
                body['writeErrors'] = [{'index': 0, 'code': more['code'], 'errmsg': 'the test says so'}]
            elif rule.action == 'error':
                body = {'ok': 0.0, 'code': more['code'], 'errmsg': 'the test says so'}
            client.sendall(reply(request, body))
            return True
        server.sendall(request)
        answer = message(server)
        if rule.action == 'lose':  # done, but nobody learns of it
            return False
        if rule.action == 'unconfirmed':  # done by the primary, and the majority has not said so in time
            answer = reply(request, {'ok': 1.0, 'n': 1, 'writeConcernError': {'code': 64, 'errmsg': 'the test says so'}})
        if rule.action == 'ahead':  # by the server's clock
            document = bson.decode(answer[21:])
            document['localTime'] += more['by']
            answer = reply(request, document)
        if 'then' in more:
            more['then']()
        client.sendall(answer)
        return True
