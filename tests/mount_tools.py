"""What the tests of the mount share: the tree of the contract, folders entry by entry, errnos by name, what a daemon
says of itself."""

import ctypes
import errno
import json
import os
import re
import struct
import subprocess
import time
from collections import namedtuple
from contextlib import contextmanager
from datetime import datetime, timezone

REGIONS = {'north_america': 1, 'south_america': 2, 'europe': 3, 'africa': 4, 'asia': 5, 'oceania': 6}
# Folder: its number in inode numbers. Categories belong to no region.
COLLECTIONS = {'users': 1, 'courses': 2, 'enrollments': 3, 'reviews': 4, 'payment-methods': 5, 'transactions': 6,
               'invoices': 7, 'categories': 8}
REGIONAL = [name for name in COLLECTIONS if name != 'categories']
ID_END = 2 ** 38


def folder_of(root, collection, region='europe'):
    return root / 'categories' if collection == 'categories' else root / 'regions' / region / collection


def folders(root):
    """Every collection's folder: (collection, region or None, path)."""
    yield 'categories', None, root / 'categories'
    for region in REGIONS:
        for collection in REGIONAL:
            yield collection, region, root / 'regions' / region / collection


def view_of(collection):
    return 'doc_' + collection.replace('-', '_')


def address(collection, region, row_id):
    """The inode number of a row."""
    return COLLECTIONS[collection] << 60 | REGIONS.get(region, 0) << 54 | row_id << 16


# ---- errnos

def errno_of(call, *arguments, **named):
    """The name of the errno that a call fails with, None when it does not."""
    try:
        call(*arguments, **named)
    except OSError as error:
        return errno.errorcode[error.errno]
    return None


def made_writable(mount):
    """Has root take away the kernel's own mark that it is mounted to be read only, so that what is refused is refused by
    the daemon; whether that could be done."""
    command = ['mount', '-i', '-o', 'remount,rw', mount.directory]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def write_in_place(path, data):
    """What a redirection does, with every error raised: open and truncate, write, close. One write() call."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        os.write(fd, data)
    except OSError:
        _close_quietly(fd)
        raise
    os.close(fd)


def _close_quietly(fd):
    try:
        os.close(fd)
    except OSError:
        pass


# ---- waiting

def wait_for(condition, timeout, interval=0.005):
    """Polls until the condition gives something true, which is returned; the last value after the timeout."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value or time.monotonic() > end:
            return value
        time.sleep(interval)


def run(*command, timeout=60, **options):
    """A command's CompletedProcess with its output as bytes."""
    return subprocess.run([os.fspath(part) for part in command], stdin=subprocess.DEVNULL, capture_output=True,
                          timeout=timeout, check=False, **options)


# ---- folders as the kernel gives them

Entry = namedtuple('Entry', 'name ino type offset')
_libc = ctypes.CDLL(None, use_errno=True)
TYPES = {4: 'folder', 8: 'file', 10: 'link'}


class Folder:
    """An open folder, read by getdents64() so that numbers, types and offsets are seen as they are."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def read(self, size=32768):
        """The next entries that fit into a buffer; [] at the end."""
        buffer = ctypes.create_string_buffer(size)
        n = _libc.getdents64(self.fd, buffer, size)
        if n < 0:
            raise OSError(ctypes.get_errno(), 'getdents64')
        found, at = [], 0
        while at < n:
            ino, offset, length, kind = struct.unpack_from('=QqHB', buffer, at)
            name = buffer.raw[at + 19:at + length].split(b'\0', 1)[0]
            found.append(Entry(os.fsdecode(name), ino, TYPES.get(kind, kind), offset))
            at += length
        return found

    def read_all(self, size=32768):
        found = []
        while more := self.read(size):
            found += more
        return found

    def seek(self, offset):
        os.lseek(self.fd, offset, os.SEEK_SET)

    def close(self):
        os.close(self.fd)


@contextmanager
def opened(path):
    folder = Folder(path)
    try:
        yield folder
    finally:
        folder.close()


def entries(path):
    """Every entry of a folder, without the dots."""
    with opened(path) as folder:
        return [entry for entry in folder.read_all() if entry.name not in ('.', '..')]


def ids_in(path):
    """The ids of the rows listed in a collection's folder, in the order of the listing."""
    return [int(entry.name.removesuffix('.json')) for entry in entries(path)
            if re.fullmatch(r'[1-9]\d*\.json', entry.name)]


# ---- what the daemon says of itself

def metrics(root):
    """Every sample of .campusfs/metrics: {'name' or 'name{labels}': number}."""
    text = (root / '.campusfs' / 'metrics').read_text()
    return {name: float(value) for name, value in (line.rsplit(' ', 1) for line in text.splitlines()
                                                   if not line.startswith('#'))}


def health_as_it_is(root):
    """.campusfs/health.json, perhaps as of half a second ago: for who asks again and again."""
    return json.loads((root / '.campusfs' / 'health.json').read_text())


def health_of(root):
    """.campusfs/health.json of a probe that was begun just now; one of half a second ago is given again."""
    begun = datetime.now(timezone.utc)

    def new():
        report = health_as_it_is(root)
        return report if datetime.fromisoformat(report['probed_at'].replace('Z', '+00:00')) >= begun else None
    return wait_for(new, 60, 0.02)


def feed_of(root, shard):
    """How a shard tells the mount of changes: its "feed" in .campusfs/health.json."""
    health = health_of(root)
    feed, = (entry['feed'] for entry in health['shards'] if entry['name'] == shard)
    return feed


def feed_states(root):
    """The states of all shards' feeds."""
    samples = metrics(root)
    shards = [name.partition('{')[2] for name in samples if name.startswith('campusfs_feed_up{')]
    return {'streaming' if samples[f'campusfs_feed_streaming{{{shard}'] else
            'polling' if samples[f'campusfs_feed_up{{{shard}'] else 'down' for shard in shards}


def requests_of(root, *kinds):
    """How many requests of these kinds the daemon has had."""
    samples = metrics(root)
    return {kind: samples[f'campusfs_requests_total{{request="{kind}"}}'] for kind in kinds}


def errors_of(root, path=None):
    """The lines of .campusfs/errors.jsonl, oldest first; those of one path (from the mount's root) only."""
    lines = (root / '.campusfs' / 'errors.jsonl').read_text().splitlines()
    return [json.loads(line) for line in lines if path is None or f'"path": {json.dumps(path)}, ' in line]
