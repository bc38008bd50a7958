"""What is measured: each work is done on a directory of files and returns its seconds.

A work also checks that it was done: the number of files and bytes that came out are those of the pack, or it fails. A
mount that answers fast and wrong has no figure.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

COMMAND_TIMEOUT = 600


class WorkError(Exception):
    """A work failed, was cut off, or came out with other files than there are."""


def run(argv, *, timeout=COMMAND_TIMEOUT, stdout=subprocess.PIPE):
    """Runs a command in a session of its own, which is ended as a whole when it takes too long. (seconds, output)."""
    name = Path(argv[0]).name
    start = time.perf_counter()
    child = subprocess.Popen([str(arg) for arg in argv], stdin=subprocess.DEVNULL, stdout=stdout,
                             stderr=subprocess.PIPE, start_new_session=True, env={**os.environ, 'LC_ALL': 'C'})
    try:
        output, errors = child.communicate(timeout=timeout)
    except BaseException as error:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise WorkError(f'{name}: not finished after {timeout} s') from error
        raise
    seconds = time.perf_counter() - start
    if child.returncode != 0:
        text = errors.decode(errors='replace').strip() or 'no message'
        raise WorkError(f'{name}: exit code {child.returncode}: {text.splitlines()[0][:300]}')
    return seconds, (output or b'').decode()


def shell(script, *args):
    return run(['bash', '-c', f'set -o pipefail; {script}', 'bench', *args])


def expect(what, got, wanted):
    if got != wanted:
        raise WorkError(f'{what}: {got} instead of {wanted}')


class Works:
    """The works on one pack. `place` is a folder in tmpfs where output and copies go."""

    def __init__(self, programs, pack_path, pack, place):
        self.programs = programs
        self.pack_path = pack_path
        self.pack = pack
        self.place = Path(place)

    def ls(self, directory):
        listing = self.place / 'listing'
        with open(listing, 'wb') as file:
            seconds, _ = run(['ls', '-l', directory], stdout=file)
        with open(listing, 'rb') as file:
            expect('ls -l, lines', sum(1 for _ in file), self.pack.count + 1)
        listing.unlink()
        return seconds

    def find_cat(self, directory):
        seconds, output = shell('find "$1" -type f -exec cat {} + | wc -c', directory)
        expect('find -exec cat, bytes', int(output), self.pack.bytes)
        return seconds

    def tar(self, directory):
        """Through a pipe: tar that writes to the null device does not read the files at all."""
        seconds, output = shell('tar -C "$1" -cf - . | wc -c', directory)
        if int(output) < self.pack.bytes:
            raise WorkError(f'tar: {output.strip()} bytes of {self.pack.bytes}')
        return seconds

    def rsync(self, directory):
        self.drop_copy()
        seconds, _ = run(['rsync', '-a', f'{directory}/', self.copy])
        return seconds

    def rsync_again(self, directory):
        seconds, output = run(['rsync', '-a', '-i', f'{directory}/', self.copy])
        expect('second rsync -a, files sent', sum(1 for line in output.splitlines() if line.startswith('>f')), 0)
        expect('rsync -a, files', sum(1 for _ in os.scandir(self.copy)), self.pack.count)
        return seconds

    @property
    def copy(self):
        return self.place / 'copy'

    def drop_copy(self):
        shutil.rmtree(self.copy, ignore_errors=True)

    def export(self, directory):
        """The whole collection as JSON lines, by which no file is opened but one."""
        seconds, output = shell('cat "$1/.export.jsonl" | wc -l', directory)
        expect('.export.jsonl, lines', int(output), self.pack.count)
        return seconds

    def stat_names(self, directory, count=0):
        return self._workload('stat', directory, count)['seconds']

    def cat_rows(self, directory, count):
        """The median of one row's open, read and close; all of them are compared with the pack."""
        return self._workload('cat', directory, count)['p50_us'] / 1e6

    def _workload(self, what, directory, count):
        _, output = run([self.programs.workload, what, self.pack_path, directory, '--count', count])
        return json.loads(output)


def save(programs, pack_path, directory, writers, how):
    """Saves every file of the pack; the workload's own report (rate, latencies)."""
    _, output = run([programs.workload, 'save', pack_path, directory, '--writers', writers, '--how', how])
    return json.loads(output)
