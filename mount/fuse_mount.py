"""One mount of campusfs: started, watched, ended, and what a killed one leaves cleaned up."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import process
from process import LaunchError

PROBE_TIMEOUT = 5


def mountpoints():
    """Where FUSE file systems are mounted, alive or not. Asks the kernel's table, never the file systems."""
    found = []
    for line in Path('/proc/self/mountinfo').read_text().splitlines():
        fields, _, rest = line.partition(' - ')
        if rest.startswith('fuse'):
            found.append(re.sub(r'\\([0-7]{3})', lambda match: chr(int(match[1], 8)), fields.split()[4]))
    return found


def is_mounted(directory):
    return os.path.abspath(directory) in mountpoints()


def answers(directory, timeout=PROBE_TIMEOUT):
    """Whether the mount answers a listing of its root; asked by a process that a hanging mount may keep."""
    try:
        return subprocess.run(['ls', '-A', '--', directory], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, timeout=timeout, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def detach(directory, lazily=False):
    """Takes the mount out of the tree; lazily also when it is in use, or its daemon dead. False when that fails."""
    flags = ['-u', '-z'] if lazily else ['-u']
    return process.run(['fusermount3', *flags, '--', directory], check=False).returncode == 0


class Mount:
    """A daemon and its mountpoint. `process` is the daemon when it runs in the foreground, a child of ours."""

    def __init__(self, program, config, directory, log_file, *, options=(), env=None):
        self.program = Path(program)
        self.config = Path(config)
        self.directory = Path(os.path.abspath(directory))
        self.log_file = Path(log_file)
        self.options = list(options)
        self.env = env or process.clean_environment()
        self.process = None

    def _owns(self, pid):
        arguments = process.arguments(pid)
        return (process.executable(pid) == self.program.name and 'mount' in arguments
                and str(self.directory) in arguments)

    def pid(self):
        """The daemon's process id, None when there is none."""
        return next(iter(self._daemons()), None)

    def _daemons(self):
        """The processes that serve this mount. A living child of ours is the one; else all of /proc is looked through."""
        child = self.process
        if child is not None and child.poll() is None and self._owns(child.pid):
            return [child.pid]
        return process.find(self.program.name, self._owns)

    def is_up(self):
        return is_mounted(self.directory) and answers(self.directory)

    def runs_current_program(self):
        """Whether the daemon is the program as it is now, not one that has been built anew since."""
        pid = self.pid()
        try:
            return pid is not None and os.path.samefile(f'/proc/{pid}/exe', self.program)
        except OSError:
            return False

    def start(self, *, foreground=False, timeout=30):
        """Mounts, and returns when it answers. In the foreground the log file takes the daemon's standard error."""
        self.clean_up()
        self.directory.mkdir(parents=True, exist_ok=True)
        command = [self.program, '--config', self.config, 'mount', *self.options]
        if foreground:
            self.process = process.spawn([*command, '--foreground', self.directory], self.log_file, env=self.env)
            failed = lambda: self.process.poll() is not None  # noqa: E731
        else:
            done = process.run([*command, '--log-file', self.log_file, self.directory], check=False, timeout=timeout,
                               env=self.env)
            if done.returncode != 0:
                raise LaunchError(f'campusfs mount: exit code {done.returncode}: {done.stderr.strip()}')
            failed = lambda: self.pid() is None  # noqa: E731
        if not process.wait_until(lambda: failed() or is_mounted(self.directory), timeout) or failed() \
                or not answers(self.directory, timeout):
            text = process.tail(self.log_file)
            self.clean_up()
            raise LaunchError(f'{self.directory} is not mounted: {self.log_file} ends{text}')
        return self

    def stop(self, timeout=15):
        """Unmounts and waits for the daemon's end; its exit code where it was our child, else None."""
        if is_mounted(self.directory) and not detach(self.directory):
            detach(self.directory, lazily=True)
        if not process.wait_until(lambda: not self._living(), timeout, 0.02):
            process.end_all(self.program.name, self._owns, signal.SIGTERM, 5)
        return self._exit_code()

    def kill(self):
        """SIGKILL to the daemon; the dead mount stays, as after a crash, until clean_up() or the next start()."""
        process.end_all(self.program.name, self._owns, signal.SIGKILL)
        return self._exit_code()

    def clean_up(self):
        """Ends a daemon that still serves this place and takes away what is mounted there, dead or alive."""
        if self._living():
            process.end_all(self.program.name, self._owns, signal.SIGTERM, 5)
        deadline = time.monotonic() + 5
        while is_mounted(self.directory):
            detach(self.directory, lazily=True)
            if time.monotonic() > deadline:
                raise LaunchError(f'{self.directory}: what is mounted there cannot be taken away')
        self._exit_code()

    def _living(self):
        self._exit_code()
        return self._daemons()

    def _exit_code(self):
        """Of a child that has ended. One that is ending has no command line any more, and not yet a code."""
        if self.process is None:
            return None
        if process.executable(self.process.pid) is None:
            self.process.wait()
        return self.process.poll()
