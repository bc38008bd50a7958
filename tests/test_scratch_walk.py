"""Scratch files keep the bytes that a disk would: a random walk of reads, writes, sizes, holes, shared mappings and
names, with several handles at a time, against an array of bytes.

A failure prints the seed and the last operations; CAMPUSFS_SEED=N repeats it.
"""

import mmap
import os
import random
import time
from collections import deque

from saving import eventually

LARGEST = 300_000


class File:
    """One scratch file through its handles and mappings, and what it must contain."""

    def __init__(self, folder, walk):
        self.folder, self.random = folder, walk
        self.path, self.data = folder / 'walk', bytearray()
        self.fds, self.maps = [os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL)], []
        self.appends = set()

    @property
    def fd(self):
        return self.random.choice(self.fds)

    def place(self):
        """An offset and a length, often at the edges of pages."""
        at = self.random.randrange(LARGEST)
        if self.random.random() < 0.3:
            at = at // 4096 * 4096 + self.random.choice([-1, 0, 1])
        return max(at, 0), self.random.choice([1, 100, 4096, self.random.randrange(1, 70_000)])

    def write(self):
        at, size = self.place()
        data = self.random.randbytes(min(size, LARGEST - at) or 1)
        fd = self.fd
        if fd in self.appends:
            at = len(self.data)
            if at > LARGEST:
                return 'nothing'
        assert os.pwrite(fd, data, at) == len(data)
        if at > len(self.data):
            self.data.extend(bytes(at - len(self.data)))
        self.data[at:at + len(data)] = data
        return f'write({at}, {len(data)})'

    def read(self):
        at, size = self.place()
        assert os.pread(self.fd, size, at) == self.data[at:at + size], f'read of {size} at {at}'
        return f'read({at}, {size})'

    def resize(self):
        size = self.random.choice([0, self.place()[0], self.place()[0], self.place()[0]])
        if self.random.random() < 0.3:
            os.truncate(self.path, size)
        else:
            os.ftruncate(self.fd, size)
        self.data[:] = self.data[:size].ljust(size, b'\0')
        return f'resize({size})'

    def map(self):
        """A shared mapping that stays while other things happen."""
        if not self.data or len(self.maps) > 2:
            return self.unmap()
        self.maps.append(mmap.mmap(self.random.choice([fd for fd in self.fds if fd not in self.appends]), len(self.data)))
        return f'map({len(self.data)})'

    def unmap(self):
        if self.maps:
            self.maps.pop(self.random.randrange(len(self.maps))).close()
        return 'unmap'

    def store(self):
        """Through a mapping, below the end of the file."""
        if not self.maps or not self.data:
            return 'nothing'
        mapped = self.random.choice(self.maps)
        end = min(len(mapped), len(self.data))
        at = self.random.randrange(end)
        data = self.random.randbytes(min(end - at, self.place()[1]))
        mapped[at:at + len(data)] = data
        self.data[at:at + len(data)] = data
        if self.random.random() < 0.5:
            mapped.flush()
        return f'store({at}, {len(data)})'

    def load(self):
        for mapped in self.maps:
            end = min(len(mapped), len(self.data))
            assert mapped[:end] == self.data[:end], 'through a mapping'
        return 'load'

    def open(self):
        if len(self.fds) > 3:
            os.close(self.fds.pop(self.random.randrange(1, len(self.fds))))
            return 'close'
        flags = self.random.choice([os.O_RDWR, os.O_RDWR | os.O_APPEND])
        self.fds.append(os.open(self.path, flags))
        self.appends = {fd for fd in self.appends if fd in self.fds} | ({self.fds[-1]} if flags & os.O_APPEND else set())
        return f'open({flags:o})'

    def sync(self):
        os.fsync(self.fd)
        return 'fsync'

    def reopen(self):
        """No page of it is kept by a handle, and the name is another one."""
        for mapped in self.maps:
            mapped.close()
        for fd in self.fds:
            os.close(fd)
        self.path = self.path.rename(self.folder / self.random.choice(['walk', 'walk 2', 'walk.json~']))
        self.fds, self.maps, self.appends = [os.open(self.path, os.O_RDWR)], [], set()
        return f'reopen({self.path.name})'

    def replace(self):
        """Unlinked while open: the old handles go on with the old file, until here."""
        fd, old = self.fds[0], bytes(self.data)
        self.path.unlink()
        assert os.pread(fd, LARGEST * 2, 0) == old and os.fstat(fd).st_size == len(old)
        os.pwrite(fd, b'after', 0)
        assert os.pread(fd, 5, 0) == b'after' and not self.path.exists()
        for mapped in self.maps:
            mapped.close()
        for fd in self.fds:
            os.close(fd)
        self.__init__(self.folder, self.random)
        return 'replace'

    def check(self):
        size = os.fstat(self.fd).st_size
        assert size == len(self.data), f'{size} bytes instead of {len(self.data)}'
        assert self.path.stat().st_size == size
        assert os.pread(self.fd, size + 10, 0) == self.data, 'content'


STEPS = {'write': 12, 'read': 8, 'resize': 6, 'map': 4, 'unmap': 2, 'store': 10, 'load': 4, 'open': 4, 'sync': 2,
         'reopen': 2, 'replace': 1}


def test_a_scratch_file_is_its_bytes(mnt):
    seed = int(os.environ.get('CAMPUSFS_SEED') or random.randrange(10 ** 6))
    walk, log, steps = random.Random(seed), deque(maxlen=30), 0
    folder = mnt / 'regions/oceania/users/walk.folder'
    folder.mkdir()
    file, end = File(folder, walk), time.monotonic() + 9
    try:
        while time.monotonic() < end and steps < 40_000:
            step = walk.choices(list(STEPS), list(STEPS.values()))[0]
            log.append(step)
            log[-1] = getattr(file, step)()
            file.check()
            steps += 1
    except BaseException as error:
        raise AssertionError(f'CAMPUSFS_SEED={seed}, operation {steps}: {error}\n  ' + '\n  '.join(log)) from error
    finally:
        for mapped in file.maps:
            mapped.close()
        for fd in file.fds:
            os.close(fd)
        file.path.unlink()
        eventually(lambda: not os.listdir(folder))
        folder.rmdir()
    assert steps > 500
