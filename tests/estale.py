"""ESTALE makes the kernel look a name up again, and is never for people. Here the kernel itself is asked whether any
system call of the run ended by it: where it can be traced (root, tracefs), in an instance of its own.

A test that makes such a call itself says so by the fixture `stale_calls`, which takes what it has made."""

import os
import subprocess
from pathlib import Path

EVENT = 'events/raw_syscalls/sys_exit'


class StaleCalls:
    """What this process and its children did from now on. With `directory` mounted and unmounted again."""

    def __init__(self, directory):
        self.directory = Path(directory)
        self.instance = instance_of(self.directory)
        self.directory.mkdir()
        subprocess.run(['mount', '-t', 'tracefs', 'tracefs', self.directory], check=True, capture_output=True)
        try:
            self.instance.mkdir()
            (self.instance / 'options/event-fork').write_text('1')
            (self.instance / 'set_event_pid').write_text(str(os.getpid()))
            (self.instance / EVENT / 'filter').write_text('ret == -116')
            (self.instance / EVENT / 'enable').write_text('1')
        except OSError:
            self.close()
            raise

    def take(self):
        """A line for each since the last time: the process, when, and the number of the call."""
        trace = self.instance / 'trace'
        lines = [line.strip() for line in trace.read_text().splitlines() if line and not line.startswith('#')]
        if lines:
            trace.write_text('')
        return lines

    def close(self):
        clean_up(self.directory)
        self.directory.rmdir()


def instance_of(directory):
    """All mounts of tracefs show the instances of all runs: this one's has the name of the run's directory."""
    return directory / 'instances' / directory.parent.name


def clean_up(directory):
    """Ends what is mounted there, and its own instance. Who removes the directory while it is mounted removes everybody's."""
    if os.path.ismount(directory):
        if instance_of(directory).exists():
            instance_of(directory).rmdir()
        subprocess.run(['umount', directory], check=False, capture_output=True)


def open_stale_calls(directory):
    """None where the kernel cannot be asked."""
    try:
        return StaleCalls(directory)
    except (OSError, subprocess.CalledProcessError):
        return None
