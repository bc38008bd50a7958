"""A way to one PostgreSQL server that is not as good as a wire: one that keeps the server's end of a connection open when
ours has gone, as some poolers and firewalls do, and one through another network namespace, which can be cut without a word."""

import ctypes
import os
import random
import socket
import subprocess
import threading
import time
from pathlib import Path

from tcp_proxy import TcpProxy, copy, end

CLONE_NEWNET = 0x40000000


class Relay(TcpProxy):
    """Passes bytes on to 127.0.0.1:port from .host:.port. With `keeps`, the server does not hear that a client has gone;
    `edit` is a function of what a client sends at a time, to what the server gets. What the server says comes `late`
    seconds later."""

    def __init__(self, port, listener=None, keeps=False, edit=lambda data: data, late=0):
        self.keeps, self.edit, self.late = keeps, edit, late
        super().__init__(('127.0.0.1', port), listener)

    def pass_there(self, client, server):
        copy(client, server, self.edit)
        if not self.keeps:
            end(client, server)

    def pass_back(self, server, client):
        copy(server, client, lambda data: time.sleep(self.late) or data)
        end(server, client)


class Withholding(Relay):
    """Keeps back what has one of the words, from when it is made or `through` is cleared until that is set or it is closed;
    `withheld` is all that it kept."""

    def __init__(self, port, *words):
        self.words, self.through, self.withheld = words, threading.Event(), []
        super().__init__(port, edit=self._withhold)

    def _withhold(self, data):
        if not self.through.is_set() and any(word in data for word in self.words):
            self.withheld.append(data)
            self.through.wait()
        return data

    def close(self):
        self.through.set()
        super().close()


class FarNetwork:
    """A network namespace behind a pair of virtual interfaces. Only for root.

    relay(port) is a Relay that listens there; cut() has everything that comes from there vanish, answers and
    acknowledgements, without an error on either side; mend() ends that."""

    def __init__(self):
        number = random.randrange(0, 2 ** 14)
        network = f'10.213.{number >> 6}.{number % 64 * 4}'.rpartition('.')
        self.here, self.there = (f'{network[0]}.{int(network[2]) + n}' for n in (1, 2))
        self.interface = f'cfs{number}'
        self._relays = []
        self._holder = subprocess.Popen(['setpriv', '--pdeathsig', 'KILL', 'unshare', '--net', 'sh', '-c', 'echo; exec sleep infinity'],
                                        stdout=subprocess.PIPE)
        self._holder.stdout.readline()
        ip('link', 'add', self.interface, 'type', 'veth', 'peer', 'name', 'far', 'netns', str(self._holder.pid))
        ip('address', 'add', f'{self.here}/30', 'dev', self.interface)
        ip('link', 'set', self.interface, 'up')
        self._ip_there('address', 'add', f'{self.there}/30', 'dev', 'far')
        self._ip_there('link', 'set', 'far', 'up')

    def _ip_there(self, *words):
        ip(*words, before=['nsenter', '--net', '--target', str(self._holder.pid)])

    def relay(self, port):
        made = []

        def listen():  # a socket stays in the namespace of the thread that made it
            with open(f'/proc/{self._holder.pid}/ns/net') as namespace:
                if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET) == 0:
                    made.append(socket.create_server((self.there, 0)))
        thread = threading.Thread(target=listen)
        thread.start()
        thread.join()
        self._relays.append(Relay(port, made[0]))
        return self._relays[-1]

    def cut(self):
        self._ip_there('route', 'add', 'blackhole', f'{self.here}/32')

    def mend(self):
        self._ip_there('route', 'del', 'blackhole', f'{self.here}/32')

    def close(self):
        for relay in self._relays:
            relay.close()
        self._holder.kill()
        self._holder.wait()
        self._holder.stdout.close()
        subprocess.run(['ip', 'link', 'del', self.interface], stderr=subprocess.DEVNULL, check=False)


def ip(*words, before=()):
    subprocess.run([*before, 'ip', *words], check=True)


def why_no_network():
    """Why a FarNetwork cannot be had here, None when it can."""
    if os.geteuid() != 0 or not all(any((Path(folder) / name).exists() for folder in ('/usr/bin', '/usr/sbin', '/bin', '/sbin'))
                                    for name in ('ip', 'unshare', 'nsenter', 'setpriv')):
        return 'network namespaces take root, and the packages iproute2 and util-linux'
    return None
