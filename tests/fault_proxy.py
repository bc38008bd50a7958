"""A TCP proxy before one PostgreSQL server that breaks the network between it and a mount: it goes silent, refuses, or
loses a save's answer or request exactly when the save commits."""

import contextlib
import socket
import struct
import threading

from tcp_proxy import TcpProxy

COMMITTED = b'Z\0\0\0\5'  # ReadyForQuery: the transaction before it is over
SAVE, APPEND, RESOLVE = b'put_existing_users\0', b'put_users\0', b'shard_resolve\0'  # statements, as Bind names them


class Loss:
    """What is to be lost next: the `times` next messages that run the statement, with that word in them. How: 'answer'
    (the server has committed, the connection breaks before it can say so), 'request' (it breaks before the server has
    heard of it), 'race' (it breaks as soon as the server has it), 'silence' (as 'answer', and the connection stays).
    `happened` is set when all are."""

    def __init__(self, how, statement, times=1, word=b''):
        self.how, self.statement, self.left, self.word = how, statement, times, word
        self.happened = threading.Event()
        self._lock = threading.Lock()

    def takes(self, data):
        """Whether this message is one of them."""
        if self.statement not in data or self.word not in data:
            return False
        with self._lock:
            if self.left == 0:
                return False
            self.left -= 1
            if self.left == 0:
                self.happened.set()
            return True


class FaultProxy(TcpProxy):
    """Listens on .port and leads to the port that `target()` gives. mute(), refuse(), heal(), cut(); .loss is a Loss or
    None."""

    def __init__(self, target):
        self.loss = None
        self._state = threading.Condition()
        self._mode = 'pass'
        self._links = set()
        super().__init__(target)

    def mute(self):
        """Nothing passes, connections neither break nor come about: packets get lost until heal()."""
        self._set_mode('mute')

    def refuse(self):
        """All connections break, new ones at once."""
        self._set_mode('refuse')
        self.cut()

    def heal(self):
        self.loss = None
        self._set_mode('pass')

    def cut(self):
        """Breaks what is open."""
        with self._state:
            links = list(self._links)
        for link in links:
            link.end()

    def close(self):
        self._set_mode('closed')
        self.cut()
        super().close()

    def is_whole(self):
        with self._state:
            return self._mode == 'pass'

    def _set_mode(self, mode):
        with self._state:
            self._mode = mode
            self._state.notify_all()

    def passes(self):
        """Waits while the network is silent; False when it refuses."""
        with self._state:
            self._state.wait_for(lambda: self._mode != 'mute')
            return self._mode == 'pass'

    def serve(self, client):
        try:
            if not self.passes():
                raise ConnectionRefusedError
            server = socket.create_connection((self.host, self.target()))
        except OSError:
            _reset(client)
            return
        link = _Link(self, client, server)
        with self._state:
            self._links.add(link)
        link.run()
        with self._state:
            self._links.discard(link)


class _Link:
    """One connection through the proxy: a thread for each direction."""

    def __init__(self, proxy, client, server):
        self.proxy, self.client, self.server = proxy, client, server
        self.lost = None  # how its answers get lost

    def run(self):
        there = threading.Thread(target=self._pass, args=(self.client, self._request), daemon=True)
        there.start()
        self._pass(self.server, self._answer)
        there.join()
        self.client.close()
        self.server.close()

    def end(self):
        """Both sides see the connection break."""
        _break(self.client)
        _break(self.server)

    def _pass(self, source, handle):
        with contextlib.suppress(OSError):
            while (data := source.recv(65536)) and self.proxy.passes() and handle(data):
                pass
        self.end()

    def _request(self, data):
        loss = self.proxy.loss
        how = loss.how if loss and loss.takes(data) else None
        if how == 'request':
            return False
        if how in ('answer', 'silence'):
            self.lost = how
        self.server.sendall(data)
        return how != 'race'

    def _answer(self, data):
        if self.lost == 'silence':
            return True
        if self.lost == 'answer':
            return COMMITTED not in data
        self.client.sendall(data)
        return True


def _reset(sock):
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    sock.close()


def _break(sock):
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
