"""Packs (pack.h): the files of one directory in one file, from which every subject of the bench gets its bytes."""

import json
import os
import random
import re
from pathlib import Path

MAGIC = b'campusfs-pack 1\n'


class PackWriter:
    """with PackWriter(path) as pack: pack.add('1.json', b'{}', mtime_ns)"""

    def __init__(self, path):
        self.path = Path(path)
        self.count = 0
        self.bytes = 0

    def __enter__(self):
        self._file = open(self.path, 'wb', buffering=1 << 20)
        self._file.write(MAGIC)
        return self

    def add(self, name, data, mtime_ns=0):
        self._file.write(b'%d %d %s\n' % (len(data), mtime_ns, os.fsencode(name)))
        self._file.write(data)
        self._file.write(b'\n')
        self.count += 1
        self.bytes += len(data)

    def __exit__(self, *_):
        self._file.close()


def pack_generated(path, count, size, seed=1):
    """`count` files of `size` bytes of text each; the same for the same seed."""
    random_bytes = random.Random(seed)
    with PackWriter(path) as pack:
        for number in range(1, count + 1):
            data = random_bytes.randbytes(size // 2).hex().encode()
            pack.add(f'{number}.json', data.ljust(size, b'\n'), 1767225600_000000000 + number * 1000)
    return pack


def pack_directory(path, directory):
    """The regular files of a directory, in the order in which it lists them, with their times."""
    with PackWriter(path) as pack, os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_file(follow_symlinks=False):
                with open(entry.path, 'rb', buffering=0) as file:
                    data = file.read()
                pack.add(entry.name, data, entry.stat(follow_symlinks=False).st_mtime_ns)
    return pack


def pack_documents(path, rows):
    """Rows of (id, content time in µs, document as compact JSON), laid out as a mount shows them."""
    with PackWriter(path) as pack:
        for row_id, time_us, body in rows:
            pack.add(f'{row_id}.json', layout(body).encode(), time_us * 1000)
    return pack


def layout(body):
    """jq's layout. A fraction would pass through Python's float; the documents of the bench have none."""
    return json.dumps(json.loads(body), indent=2, ensure_ascii=False) + '\n'


def edit_first_name(body, mark):
    """The document with another first name: the least that a correction changes."""
    edited, found = re.subn(r'("first_name": ?)"[^"]*"', rf'\1"{mark}"', body, count=1)
    if not found:
        raise ValueError(f'no first_name in {body[:200]}')
    return edited


def unpack(path, directory):
    """Writes the files of a pack into a directory, with their times, in the pack's order."""
    data = Path(path).read_bytes()
    at = len(MAGIC)
    os.makedirs(directory)
    while at < len(data):
        line_end = data.index(b'\n', at)
        size, mtime_ns, name = data[at:line_end].split(b' ', 2)
        start, at = line_end + 1, line_end + 1 + int(size) + 1
        target = os.path.join(directory, os.fsdecode(name))
        with open(target, 'xb', buffering=0) as file:
            file.write(memoryview(data)[start:at - 1])
        os.utime(target, ns=(int(mtime_ns), int(mtime_ns)))
