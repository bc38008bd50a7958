"""One PostgreSQL server of a cluster: made, started, stopped, broken and mended."""

import contextlib
import ctypes
import os
import random
import shutil
import signal
import socket
import time
from pathlib import Path

import process
from process import LaunchError

BINARIES = Path('/usr/lib/postgresql/15/bin')
START_TIMEOUT = 60
IPC_RMID = 0
PORTS = range(20000, 32000)  # below Linux's own range, so that no outgoing connection takes a stopped server's port

ACCESS_RULES = """\
# TYPE  DATABASE     USER            ADDRESS       METHOD
local   all          all                           scram-sha-256
host    all          all             127.0.0.1/32  scram-sha-256
local   replication  campusfs_repl                 scram-sha-256
host    replication  campusfs_repl   127.0.0.1/32  scram-sha-256
"""

# The feed and two-phase commit need the first three (standbys no less than their primary); with a short retry interval
# a promoted standby takes writes at once (else after 5 s); the rest keeps a server small.
SETTINGS = {
    'wal_level': 'logical',
    'max_prepared_transactions': '10',
    'max_connections': '100',
    'hot_standby_feedback': 'on',
    'wal_retrieve_retry_interval': '100ms',
    'wal_sender_timeout': '5s',
    'wal_receiver_timeout': '5s',
    'max_standby_streaming_delay': '1s',
    'max_slot_wal_keep_size': '1GB',
    'wal_log_hints': 'on',
    'shared_buffers': '64MB',
    'min_wal_size': '64MB',
    'jit': 'off',
    'dynamic_shared_memory_type': 'mmap',  # in the data directory: nothing is left in /dev/shm by who is killed
    'log_line_prefix': '%m [%p] %u@%d %a ',
    'timezone': 'UTC',
    'log_timezone': 'UTC',
}
NOT_DURABLE = {'fsync': 'off', 'full_page_writes': 'off', 'shared_buffers': '24MB', 'min_wal_size': '32MB',
               'max_slot_wal_keep_size': '256MB'}


_leases = []  # sockets whose names say which ports are this process's


def free_port():
    """A port of 127.0.0.1 that nothing listens on, and that no other launcher of this machine gets while this process
    lives: a server that is down keeps it. Whoever else binds it wins the race, for which who starts a server must be
    ready."""
    while True:
        port = random.choice(PORTS)
        lease = socket.socket(socket.AF_UNIX)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                lease.bind(f'\0campusfs-port-{port}')  # of no file system; it goes with the process
                probe.bind(('127.0.0.1', port))
            except OSError:
                lease.close()
                continue
        _leases.append(lease)
        return port


def quote_setting(value):
    """A value for postgresql.conf."""
    return "'" + str(value).replace('\\', '\\\\').replace("'", "''") + "'"


def connection_string(**keywords):
    """A libpq connection string; values may have any character."""
    def quote(value):
        return "'" + str(value).replace('\\', '\\\\').replace("'", "\\'") + "'"
    return ' '.join(f'{key}={quote(value)}' for key, value in keywords.items())


class Node:
    """A server, running or not. All state is in its data directory, so that any launcher can take it over."""

    host = '127.0.0.1'

    def __init__(self, name, shard, port, *, data_directory, socket_directory, log_file, durable=True):
        self.name = name
        self.shard = shard
        self.port = port
        self.data_directory = Path(data_directory)
        self.socket_directory = Path(socket_directory)
        self.log_file = Path(log_file)
        self.durable = durable
        self.environment = None  # of its processes; None: process.clean_environment()
        self._child = None  # kept so that a killed postmaster is reaped: as a zombie it would block its own restart

    @property
    def pid_file(self):
        return self.data_directory / 'postmaster.pid'

    @property
    def slot(self):
        """The name of the physical slot that this node, as a standby, holds on its primary."""
        return self.name.replace('-', '_')

    @property
    def is_standby(self):
        """Whether it follows another: now when it runs, or when it is started next."""
        return (self.data_directory / 'standby.signal').exists()

    @property
    def exists(self):
        return (self.data_directory / 'PG_VERSION').exists()

    # ---- making one

    def initialize(self, password_file):
        """A new, empty primary whose superuser's password is the file's first line."""
        new = self._new_directory()
        process.run([BINARIES / 'initdb', '-D', new, '-U', 'postgres', '-A', 'scram-sha-256', '-k', '-N',
                     f'--pwfile={password_file}', '-E', 'UTF8', '--locale=C.UTF-8',
                     f'--wal-segsize={16 if self.durable else 1}'], **process.as_server())
        process.run(['/bin/sh', '-c', 'cat >>"$1"', 'sh', new / 'postgresql.conf'], **process.as_server(),
                    text_input="\ninclude 'campusfs.conf'\n")
        process.write_as_server(new / 'pg_hba.conf', ACCESS_RULES)
        self._write_settings(new)
        self._take(new)

    def clone(self, primary, passfile):
        """Becomes a standby of a running primary, through a physical slot. What was here is lost."""
        new = self._new_directory()
        try:
            process.run([BINARIES / 'pg_basebackup', '-D', new, '-d', self._source(primary, passfile), '-C',
                         '-S', self.slot, '-X', 'stream', '-c', 'fast', '--no-sync'], **process.as_server())
        except LaunchError as error:
            raise LaunchError(f'{error}\n{primary.name}:{process.tail(primary.log_file)}') from error
        process.write_as_server(new / 'standby.signal', '')
        self._write_settings(new, **self._following(primary, passfile))
        self._take(new)

    def follow(self, primary, passfile):
        """Writes a standby's settings anew, since its primary's port may have changed; takes effect at its start."""
        self._write_settings(self.data_directory, **self._following(primary, passfile))

    def lead(self):
        """Writes a primary's settings anew."""
        self._write_settings(self.data_directory)

    def _following(self, primary, passfile):
        return {'primary_conninfo': self._source(primary, passfile), 'primary_slot_name': self.slot}

    def _source(self, primary, passfile):
        return connection_string(host=primary.socket_directory, port=primary.port, user='campusfs_repl',
                                 passfile=passfile, application_name=self.name)

    def _write_settings(self, directory, **more):
        settings = dict(SETTINGS)
        if not self.durable:
            settings.update(NOT_DURABLE)
        settings.update(listen_addresses=self.host, port=self.port, unix_socket_directories=self.socket_directory,
                        cluster_name=self.name, **more)
        process.write_as_server(
            directory / 'campusfs.conf',
            '# Written by the launcher at every start; use postgresql.auto.conf for your own settings.\n'
            + ''.join(f'{key} = {quote_setting(value)}\n' for key, value in settings.items()))

    def _new_directory(self):
        """Where new data grow: half of a server must never be taken for one."""
        new = self.data_directory.with_name(self.name + '.new')
        shutil.rmtree(new, ignore_errors=True)
        process.run(['mkdir', '-m', '700', new], **process.as_server())
        return new

    def _take(self, new):
        if self.processes():
            raise LaunchError(f'{self.name} runs: its data cannot be replaced')
        shutil.rmtree(self.data_directory, ignore_errors=True)
        new.rename(self.data_directory)

    def rewind(self, primary, user, passfile):
        """Goes back to where its history parted from that of a running server; it must be stopped. The user is a
        superuser there, whose password the servers' account finds in the file: arguments are seen by everybody."""
        source = connection_string(host=primary.socket_directory, port=primary.port, user=user, dbname='postgres',
                                   passfile=passfile)
        process.run([BINARIES / 'pg_rewind', '-D', self.data_directory, f'--source-server={source}', '--no-sync'],
                    **process.as_server())
        process.write_as_server(self.data_directory / 'standby.signal', '')

    def timeline(self):
        """The newest timeline of its data; the control file learns of a promotion only at the next checkpoint."""
        output = process.run([BINARIES / 'pg_controldata', self.data_directory], **process.as_server()).stdout
        values = dict(line.split(':', 1) for line in output.splitlines() if ':' in line)
        histories = [int(path.stem, 16) for path in (self.data_directory / 'pg_wal').glob('????????.history')]
        return max([int(values["Latest checkpoint's TimeLineID"]), *histories])

    # ---- its processes

    def _owns(self, pid):
        return (process.working_directory(pid) == os.path.realpath(self.data_directory)
                and process.executable(pid) == 'postgres')

    def processes(self):
        """Every living process of this server: the postmaster, if there is one, and its children."""
        return process.find('postgres', self._owns)

    def pid(self):
        """The postmaster's process id, None when it does not run: a pid file alone proves nothing."""
        try:
            pid = int(self.pid_file.read_text().split('\n', 1)[0])
        except (OSError, ValueError):
            return None
        return pid if process.is_alive(pid) and self._owns(pid) else None

    def is_running(self):
        return self.pid() is not None

    def _status(self):
        """What its pid file says: '' until it listens, then starting, standby (reads only), ready or stopping."""
        try:
            lines = self.pid_file.read_text().split('\n')
        except OSError:
            return ''
        return lines[7].strip() if len(lines) > 7 else ''

    def is_ready(self):
        """Whether it says that it accepts connections (a standby: for reading)."""
        return self._status() in ('ready', 'standby') and self.is_running()

    def is_frozen(self):
        pid = self.pid()
        return pid is not None and process.is_stopped(pid)

    # ---- starting and stopping

    def start(self, wait=True):
        """Starts it, on another port (a new `port`) if its own has been taken meanwhile. See wait_ready()."""
        for _ in range(5):
            if self.is_running():
                break
            self._clear_stale()
            if self._launch():
                break
            self._change_port()
        if wait:
            self.wait_ready()
        return self

    def _launch(self):
        """Starts the postmaster and waits until it listens; False when its port is taken."""
        size = self.log_file.stat().st_size if self.log_file.exists() else 0
        child = self._child = process.spawn([BINARIES / 'postgres', '-D', self.data_directory], self.log_file,
                                            env=self.environment, **process.as_server())
        process.wait_until(lambda: child.poll() is not None or (self._status() and self.is_running()), START_TIMEOUT)
        if child.poll() is None:
            return True
        with open(self.log_file, 'rb') as log:
            log.seek(size)
            if b'Address already in use' in log.read():
                return False
        raise LaunchError(f'{self.name} does not start: {self.log_file} ends{process.tail(self.log_file)}')

    def wait_ready(self, timeout=START_TIMEOUT):
        deadline = time.monotonic() + timeout
        while not self.is_ready():
            if not self.is_running() or time.monotonic() > deadline:
                raise LaunchError(f'{self.name} is not ready: {self.log_file} ends{process.tail(self.log_file)}')
            time.sleep(0.01)

    def _change_port(self):
        old, self.port = self.port, free_port()
        process.run(['sed', '-i', f"s/^port = '{old}'$/port = '{self.port}'/", self.data_directory / 'campusfs.conf'],
                    **process.as_server())

    def _clear_stale(self):
        """Ends what a killed postmaster left: children that outlived it, memory, its pid file and its socket's lock."""
        process.end_all('postgres', self._owns, signal.SIGQUIT, 2)
        self._free_memory()
        process.remove_as_server(self.pid_file, self._socket, self._socket.with_suffix(self._socket.suffix + '.lock'))

    @property
    def _socket(self):
        return self.socket_directory / f'.s.PGSQL.{self.port}'

    def stop(self, mode='fast', timeout=15):
        """Stops it, harder when it does not; a frozen server is thawed first. Nothing happens when it does not run."""
        pid = self.pid()
        if pid is None:
            if self.processes():
                self._clear_stale()
            return
        self.thaw()
        signum = {'smart': signal.SIGTERM, 'fast': signal.SIGINT, 'immediate': signal.SIGQUIT}[mode]
        process.send(pid, signum, self._owns)
        if not process.wait_until(lambda: not self.processes(), timeout, 0.01):
            process.end_all('postgres', self._owns, signal.SIGQUIT, 5)
        process.reap(pid)

    def kill(self):
        """The machine dies: every process by SIGKILL, the postmaster first; returns when nothing is left of it."""
        pid = self.pid()
        if pid is not None:
            process.send(pid, signal.SIGKILL, self._owns)
        process.end_all('postgres', self._owns, signal.SIGKILL)
        if pid is not None:
            process.reap(pid)
        self._free_memory()

    def _free_memory(self):
        """Shared memory outlives who is killed. A server takes its own back at the next start, if there is one."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            key, number = (int(word) for word in self.pid_file.read_text().split('\n')[6].split())
            for line in Path('/proc/sysvipc/shm').read_text().splitlines()[1:]:
                entry = [int(word) for word in line.split()]
                owned = entry[7] == process.server_uid()
                if owned and (entry[0] & 0xffffffff, entry[1], entry[6]) == (key & 0xffffffff, number, 0):
                    ctypes.CDLL(None).shmctl(number, IPC_RMID, None)

    def freeze(self):
        """SIGSTOP to all its processes: the kernel accepts connections, and nobody answers."""
        frozen = set()
        while set(self.processes()) - frozen:
            for pid in set(self.processes()) - frozen:
                process.send(pid, signal.SIGSTOP, self._owns)
                frozen.add(pid)

    def thaw(self):
        for pid in self.processes():
            process.send(pid, signal.SIGCONT, self._owns)

    def promote(self):
        """A standby becomes a primary; returns when it takes writes."""
        process.run([BINARIES / 'pg_ctl', 'promote', '-w', '-s', '-D', self.data_directory], **process.as_server())

    def reload(self):
        pid = self.pid()
        if pid is not None:
            process.send(pid, signal.SIGHUP, self._owns)
