"""Who is measured: plain tmpfs, the limit daemon, campusfs. fresh() gives a directory of which nothing is cached."""

import contextlib
import select
import subprocess
import time
from pathlib import Path

from works import WorkError

READY_TIMEOUT = 20


class Native:
    """The files on tmpfs, which is always in memory: its cold is its warm."""

    name = 'native'

    def __init__(self, directory):
        self.directory = directory

    @contextlib.contextmanager
    def fresh(self):
        yield self.directory


class Limit:
    """A limit daemon of its own for each fresh()."""

    name = 'limit'

    def __init__(self, programs, pack_path, mountpoint, options=()):
        self.command = [programs.limit_daemon, *options, pack_path, mountpoint]
        self.mountpoint = Path(mountpoint)

    @contextlib.contextmanager
    def fresh(self):
        self.mountpoint.mkdir(exist_ok=True)
        daemon = subprocess.Popen([str(arg) for arg in self.command], stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
        try:
            ready, _, _ = select.select([daemon.stdout], [], [], READY_TIMEOUT)
            if not ready or daemon.stdout.readline() != b'ready\n':
                raise WorkError(f'the limit daemon does not mount: {self._reason(daemon)}')
            yield self.mountpoint
        finally:
            self._end(daemon)

    @staticmethod
    def _reason(daemon):
        daemon.kill()
        return daemon.communicate()[1].decode(errors='replace').strip()

    def _end(self, daemon):
        """By SIGTERM it unmounts; after a crash or a kill the dead mount is taken away here."""
        daemon.terminate()
        try:
            daemon.communicate(timeout=READY_TIMEOUT)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.communicate()
        if daemon.returncode != 0:
            subprocess.run(['fusermount3', '-u', '-z', self.mountpoint], stderr=subprocess.DEVNULL, check=False)


class Campusfs:
    """A mount of its own for each fresh(), of a cluster that stays up; the directory is one region's users."""

    name = 'campusfs'

    def __init__(self, cluster, region, mountpoint):
        self.cluster = cluster
        self.region = region
        self.mountpoint = Path(mountpoint)
        self.mount = None

    @contextlib.contextmanager
    def fresh(self):
        self.mount = self.cluster.mount(self.mountpoint)
        try:
            yield self.mountpoint / 'regions' / self.region / 'users'
        finally:
            self.cluster.mounts.remove(self.mount)
            self.mount.stop()
            self.mount = None

    def requests(self):
        """How many requests of each kind the daemon has had; reading them counts itself from the next time on."""
        text = (self.mountpoint / '.campusfs/metrics').read_text()
        lines = [line.split('"') for line in text.splitlines() if line.startswith('campusfs_requests_total{')]
        return {kind: int(value[1:]) for _, kind, value in lines}

    def memory_kib(self):
        """(resident now, most ever) of the daemon."""
        time.sleep(0.2)  # what the last reply's thread frees
        status = Path(f'/proc/{self.mount.pid()}/status').read_text()
        values = dict(line.split(':', 1) for line in status.splitlines())
        return tuple(int(values[key].split()[0]) for key in ('VmRSS', 'VmHWM'))
