"""Media written through the mount, looked at as another driver sees it: every chunk and checksum, every way a file is
changed, what is seen meanwhile and by whom, times and modes, quotas, memory.

The long ones (4 GiB, 8 uploads of 1 GiB): tests/run -m long tests/test_media_write.py
"""

import ctypes
import datetime
import hashlib
import mmap
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time

import bson
import process
import pytest
from media_proxy import MediaProxy
from media_tools import bucket, content, course  # noqa: F401
from mount_tools import errno_of, errors_of, made_writable

KIB, MIB = 1024, 1024 * 1024
CHUNK = 255 * KIB
BATCH = 16 * CHUNK
LIBC = ctypes.CDLL(None, use_errno=True)
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE, COLLAPSE_RANGE = 1, 2, 16, 8


def noise(size, seed=0):
    return random.Random(seed).randbytes(size)


def revisions(course, name):
    """The files documents of a name, oldest first."""
    found = course.bucket.files.find({'filename': f'{course.id}/{name}'})
    return sorted(found, key=lambda document: (document['uploadDate'], document['_id']))


def verify(course, name, data):
    """The newest revision is `data` in every respect, and nothing of an upload is left."""
    document = revisions(course, name)[-1]
    assert document['length'] == len(data) and document['chunkSize'] == CHUNK
    assert document['metadata']['sha256'] == hashlib.sha256(data).hexdigest()
    assert document['metadata']['courseId'] == course.id
    chunks = list(course.bucket.chunks.find({'files_id': document['_id']}).sort('n'))
    assert [(chunk['n'], bytes(chunk['data'])) for chunk in chunks] == \
        [(n, data[at:at + CHUNK]) for n, at in enumerate(range(0, len(data), CHUNK))]
    assert course.bucket.uploads.count_documents({'_id': document['_id'], 'heartbeat': {'$exists': True}}) == 0
    assert (course.folder / name).read_bytes() == data
    return document


def uploads_of(course):
    return list(course.bucket.uploads.find({'path': {'$regex': f'^{course.id}/'}, 'heartbeat': {'$exists': True}}))


def fallocate(fd, mode, offset, length):
    if LIBC.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


# ---- new files

@pytest.mark.parametrize('length', [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, BATCH, BATCH + 1, 3 * BATCH + 77])
def test_lengths_around_chunks_and_batches(course, length):
    data = noise(length, length)
    (course.folder / 'film.bin').write_bytes(data)
    verify(course, 'film.bin', data)
    assert course.bucket.get(f'{course.id}/film.bin') == data


def test_sizes_of_writes_do_not_matter(course):
    data = noise(2 * CHUNK + 999)
    with open(course.folder / 'a', 'wb', buffering=0) as file:
        sizes = random.Random(5)
        at = 0
        while at < len(data):
            at += file.write(data[at:at + sizes.choice((1, 7, 4096, 70000, 131072))])
    verify(course, 'a', data)


def test_the_specification_of_uploads(course):
    """Length 0 has no chunk; all others have each their own, in order, of exact length, and an id of its own."""
    for length in (0, 1, CHUNK):
        (course.folder / f'{length}').write_bytes(bytes(length))
        document = verify(course, f'{length}', bytes(length))
        assert isinstance(document['_id'], bson.ObjectId) and document['uploadDate'].tzinfo
        assert 'md5' not in document


def test_nothing_is_seen_before_the_close(course):
    path = course.folder / 'film.bin'
    data = noise(BATCH + 5 * KIB)
    with open(path, 'wb') as file:
        file.write(data)
        file.flush()
        seen = subprocess.run(['cat', path], capture_output=True)
        assert seen.returncode != 0 and b'No such file' in seen.stderr
        assert path.read_bytes() == data, 'but the writer sees its own'
        assert subprocess.run(['ls', course.folder], capture_output=True, text=True).stdout == ''
        assert errno_of(os.open, path, os.O_CREAT | os.O_EXCL | os.O_WRONLY) == 'EEXIST'
        assert process.wait_until(lambda: len(uploads_of(course)) == 1, 30), 'it is journalled'
        entry, = uploads_of(course)
        assert entry['path'] == f'{course.id}/film.bin' and re.fullmatch(r'.+:\d+', entry['owner'])
    assert subprocess.run(['cat', path], capture_output=True).stdout == data
    verify(course, 'film.bin', data)


def test_a_file_that_is_made_without_being_written_is_there_after_the_close(course):
    for n in range(10):
        os.close(os.open(course.folder / f'{n}', os.O_RDONLY | os.O_CREAT | os.O_EXCL))
        assert len(revisions(course, f'{n}')) == 1


def test_a_reader_keeps_what_it_opened(course):
    path, old, new = course.folder / 'film.bin', noise(2 * CHUNK), noise(CHUNK, 1)
    path.write_bytes(old)
    with open(path, 'rb') as reader:
        start = reader.read(1000)
        path.write_bytes(new)
        assert start + reader.read() == old
        assert os.fstat(reader.fileno()).st_size == len(old)
    assert path.read_bytes() == new
    first, second = revisions(course, 'film.bin')
    assert first['length'] == len(old) and second['length'] == len(new)
    assert course.bucket.uploads.find_one({'_id': first['_id']})['retired'], 'the old one stays for a time'
    assert course.bucket.uploads.find_one({'_id': second['_id']}) is None


def test_two_writers_each_have_a_whole_file(course):
    path, one, two = course.folder / 'film.bin', noise(BATCH + 10), noise(CHUNK + 3, 1)
    first = open(path, 'wb')
    first.write(one[:CHUNK])
    subprocess.run([sys.executable, '-c', 'import sys; open(sys.argv[1], "wb").write(sys.stdin.buffer.read())', path],
                   input=two, check=True)
    assert subprocess.run(['cat', path], capture_output=True).stdout == two
    first.write(one[CHUNK:])
    first.close()
    verify(course, 'film.bin', one)
    assert course.bucket.get(f'{course.id}/film.bin', 0) == two, 'the loser is kept'


def test_a_revision_of_the_future_is_replaced_too(course):
    """Whatever the clock of who wrote it said: the newest is what was written last."""
    future = datetime.datetime(2200, 1, 1, tzinfo=datetime.timezone.utc)
    path = course.insert('a', 4, 4, [(0, b'abcd')], uploadDate=future)
    path.write_bytes(b'new')
    verify(course, 'a', b'new')
    assert course.bucket.get(f'{course.id}/a') == b'new'


# ---- how a file is changed: the same calls on a local file

CHANGES = {
    'append': lambda f, d: (f.seek(0, os.SEEK_END), f.write(d[:70000])),
    'in place': lambda f, d: (f.seek(CHUNK - 5), f.write(d[:10])),
    'head': lambda f, d: f.write(d[:100]),
    'all of a chunk': lambda f, d: (f.seek(CHUNK), f.write(d[:CHUNK])),
    'cut': lambda f, d: f.truncate(CHUNK + 17),
    'cut at a chunk': lambda f, d: f.truncate(CHUNK),
    'to nothing': lambda f, d: f.truncate(0),
    'grow': lambda f, d: f.truncate(3 * CHUNK + 1),
    'cut and grow': lambda f, d: (f.truncate(100), f.truncate(2 * CHUNK)),
    'hole': lambda f, d: (f.seek(4 * CHUNK + 3), f.write(d[:5])),
    'fallocate': lambda f, d: fallocate(f.fileno(), 0, 2 * CHUNK, CHUNK),
    'fallocate kept': lambda f, d: (fallocate(f.fileno(), KEEP_SIZE, 0, 9 * CHUNK), f.write(b'!')),
    'punch': lambda f, d: fallocate(f.fileno(), PUNCH_HOLE | KEEP_SIZE, 1000, CHUNK + 50000),
    'zeros': lambda f, d: fallocate(f.fileno(), ZERO_RANGE, 10, 5 * CHUNK),
    'write then cut': lambda f, d: (f.write(d[:CHUNK * 2]), f.flush(), f.truncate(5)),
}


@pytest.mark.parametrize('change, chunk', [(change, CHUNK) for change in CHANGES] +
                         [('in place', 1000), ('cut and grow', 1000), ('append', 100 * KIB)])
def test_changes_of_a_file(course, tmp_path, change, chunk):
    data = noise(2 * CHUNK + 50000)
    path, local = course.put('a.bin', data, chunk=chunk), tmp_path / 'a.bin'
    local.write_bytes(data)
    other = noise(3 * CHUNK, 1)
    for place in (path, local):
        with open(place, 'r+b', buffering=0) as file:
            CHANGES[change](file, other)
    verify(course, 'a.bin', local.read_bytes())
    assert course.bucket.get(f'{course.id}/a.bin', 0) == data, 'what was published has not changed'


@pytest.mark.parametrize('change', ['in place', 'all of a chunk', 'cut', 'cut and grow', 'zeros', 'write then cut'])
def test_what_is_in_the_database_already_is_changed_before_the_close(course, tmp_path, change):
    """Its checksum and its chunks are those of the file that is published."""
    path, local, data = course.folder / 'a.bin', tmp_path / 'a.bin', noise(3 * CHUNK + 50000)
    for place in (path, local):
        with open(place, 'w+b', buffering=0) as file:
            file.write(data)
            os.fsync(file.fileno())
            file.seek(0)
            CHANGES[change](file, noise(3 * CHUNK, 1))
    verify(course, 'a.bin', local.read_bytes())


def test_what_moves_its_index_to_the_front(course, tmp_path):
    """As `ffmpeg -movflags +faststart` does before it closes: it opens its own unfinished file to read, and writes what it reads
    further back, a block ahead of what it overwrites."""
    data, front, block = noise(20 * CHUNK + 1234, 17), noise(70000, 18), 3 * CHUNK // 2

    def make(path):
        out = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        for at in range(0, len(data), 32768):
            os.write(out, data[at:at + 32768])
        with open(path, 'rb', buffering=0) as again:
            held, at = again.read(block), len(front)
            os.pwrite(out, front, 0)
            while held:
                following = again.read(block)
                assert os.pwrite(out, held, at) == len(held)
                held, at = following, at + len(held)
        os.close(out)
    front = front[:block]
    for path in (tmp_path / 'local', course.folder / 'a'):
        make(path)
    assert verify(course, 'a', front + data) and (tmp_path / 'local').read_bytes() == front + data


def test_a_hole_behind_what_was_read(course):
    data = noise(2 * CHUNK - 1000)
    path = course.put('a', data)
    with open(path, 'r+b', buffering=0) as file:
        assert os.pread(file.fileno(), 10, CHUNK - 5) == data[CHUNK - 5:CHUNK + 5]
        file.truncate(CHUNK + 10)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # the daemon is to be asked
        assert os.pread(file.fileno(), 100, CHUNK) == data[CHUNK:CHUNK + 10]
        os.pwrite(file.fileno(), b'far', 5 * CHUNK)
        assert os.pread(file.fileno(), CHUNK, CHUNK + 10) == bytes(CHUNK)
    verify(course, 'a', data[:CHUNK + 10] + bytes(4 * CHUNK - 10) + b'far')


def test_a_hole_behind_a_chunk_that_was_read_last(course):
    """As above, and past the kernel's pages, so that the daemon has that chunk at hand."""
    path = course.put('a', noise(CHUNK + 10))
    fd = os.open(path, os.O_RDWR | os.O_DIRECT)
    try:
        assert os.pread(fd, 100, CHUNK) == noise(CHUNK + 10)[CHUNK:]
        os.pwrite(fd, b'far', 5 * CHUNK)
        assert os.pread(fd, CHUNK - 10, CHUNK + 10) == bytes(CHUNK - 10)
    finally:
        os.close(fd)


def test_what_would_move_bytes_is_refused(course):
    with open(course.folder / 'a', 'wb') as file:
        file.write(b'1234')
        file.flush()
        assert errno_of(fallocate, file.fileno(), COLLAPSE_RANGE, 0, 2) == 'ENOTSUP'
    assert (course.folder / 'a').read_bytes() == b'1234'


def test_a_size_by_path(course):
    path = course.folder / 'a'
    path.write_bytes(noise(1000))
    with open(path, 'rb') as reader:
        os.truncate(path, 10)
        assert path.stat().st_size == 10
        assert len(reader.read()) == 1000
    os.truncate(path, CHUNK + 1)
    verify(course, 'a', noise(1000)[:10] + bytes(CHUNK + 1 - 10))


def test_shared_mappings(course):
    data = bytearray(noise(2 * CHUNK))
    path = course.folder / 'a'
    path.write_bytes(data)
    fd = os.open(path, os.O_RDWR)
    with mmap.mmap(fd, len(data)) as memory:
        os.close(fd)  # what is stored now comes after the last close
        for at in (0, CHUNK - 2, len(data) - 4):
            memory[at:at + 4] = data[at:at + 4] = b'mmap'
    assert process.wait_until(lambda: path.read_bytes() == data, 60, 0.02)
    verify(course, 'a', bytes(data))


def test_dup_and_fork_publish_once_a_change(course):
    path = course.folder / 'a'
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.write(fd, b'one')
    copies = [os.dup(fd) for _ in range(5)]
    for copy in copies:
        os.close(copy)
    assert len(revisions(course, 'a')) == 1
    child = os.fork()
    if child == 0:
        os._exit(0)  # closes its copy
    os.waitpid(child, 0)
    os.write(fd, b'two')
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert len(revisions(course, 'a')) == 1, "a child that only exits publishes nothing of its parent's"
    os.close(fd)
    assert len(revisions(course, 'a')) == 2
    verify(course, 'a', b'onetwo')


def test_shells(course):
    path = course.folder / 'a'
    shell = lambda text: subprocess.run(['bash', '-c', text], cwd=course.folder, check=True)  # noqa: E731
    shell('touch a')
    assert path.read_bytes() == b'' and len(revisions(course, 'a')) == 1
    shell('echo first > a')
    shell('echo second >> a')
    assert path.read_bytes() == b'first\nsecond\n'
    lengths = [document['length'] for document in revisions(course, 'a')]
    assert lengths == [0, 6, 13], 'a command never publishes the empty file that it begins with'
    shell('(cat a; echo third; seq 3) > b; cat b > c')
    assert (course.folder / 'c').read_bytes() == b'first\nsecond\nthird\n1\n2\n3\n'
    shell(': > a')
    assert process.wait_until(lambda: path.stat().st_size == 0, 60, 0.01)


@pytest.mark.parametrize('seed', range(2))
def test_a_walk_beside_a_local_file(course, tmp_path, seed):
    rng = random.Random(seed)
    paths = [course.folder / 'walk', tmp_path / 'walk']
    fds = [os.open(path, os.O_RDWR | os.O_CREAT) for path in paths]
    for step in range(120):
        what = rng.choice(('write', 'write', 'append', 'cut', 'read', 'reopen', 'mmap', 'sync', 'zero'))
        offset, size = rng.randrange(5 * CHUNK), rng.choice((1, 5000, CHUNK, 600000))
        data = rng.randbytes(size) if what in ('write', 'append', 'mmap') else b''
        results = []
        for i, path in enumerate(paths):
            fd, length = fds[i], os.fstat(fds[i]).st_size
            if what == 'write':
                results.append(os.pwrite(fd, data, offset))
            elif what == 'append':
                results.append(os.pwrite(fd, data, length))
            elif what == 'cut':
                os.ftruncate(fd, offset)
            elif what == 'zero' and length:
                fallocate(fd, PUNCH_HOLE | KEEP_SIZE, min(offset, length - 1), size)
            elif what == 'sync':
                os.fsync(fd)
            elif what == 'mmap' and length:
                with mmap.mmap(fd, length) as memory:
                    at = min(offset, length - 1)
                    end = min(at + size, length)
                    memory[at:end] = data[:end - at]
            elif what == 'reopen':
                os.close(fd)
                fds[i] = os.open(path, os.O_RDWR)
            results.append(os.pread(fds[i], size, offset))
            results.append(os.fstat(fds[i]).st_size)
        half = len(results) // 2
        assert results[:half] == results[half:], f'seed {seed}, step {step}, {what} at {offset} of {size}'
    for fd in fds:
        os.close(fd)
    verify(course, 'walk', paths[1].read_bytes())


# ---- what is kept beside the bytes

LAST_NS, FIRST_NS = 2 ** 63 - 1, -2 ** 63  # in the years 2262 and 1677


@pytest.mark.parametrize('what', ['open', 'closed', 'a folder'])
@pytest.mark.parametrize('seconds, kept', [(10 ** 10, LAST_NS), (-2 ** 62, FIRST_NS)])
def test_times_that_64_bits_of_nanoseconds_cannot_hold(course, what, seconds, kept):
    """The last and the first that they can, as disks have theirs."""
    path = course.folder / 'a'
    if what == 'a folder':
        path.mkdir()
        os.utime(path, (0, seconds))
    else:
        with open(path, 'wb', buffering=0) as file:
            file.write(b'x')
            if what == 'open':
                os.utime(file.fileno(), (0, seconds))
        if what == 'closed':
            os.utime(path, (0, seconds))
    assert path.stat().st_mtime_ns == kept


def test_times_modes_and_owners(course, tmp_path):
    local, path = tmp_path / 'a', course.folder / 'a'
    local.write_bytes(b'x' * 1000)
    os.utime(local, ns=(0, 1234567890_123456789))
    local.chmod(0o604)
    subprocess.run(['cp', '-a', local, path], check=True)
    assert (path.stat().st_mtime_ns, path.stat().st_mode & 0o7777) == (1234567890_123456789, 0o604)
    document = verify(course, 'a', b'x' * 1000)
    assert len(revisions(course, 'a')) == 1, 'times and modes that are set before the close are published with it'
    assert document['metadata']['mtime'] == 1234567890_123456789 and document['metadata']['mode'] == 0o604
    os.utime(path, ns=(0, 5_000_000_000))
    path.chmod(0o640)
    assert (path.stat().st_mtime_ns, path.stat().st_mode & 0o7777) == (5_000_000_000, 0o640)
    assert [document['_id']] == [found['_id'] for found in revisions(course, 'a')], 'in place: the content is the same'
    if os.geteuid() == 0:
        os.chown(path, 1234, 2345)
        assert (path.stat().st_uid, path.stat().st_gid) == (1234, 2345)
    with open(path, 'ab') as file:
        file.write(b'y')
    assert path.stat().st_mode & 0o7777 == 0o640 and path.stat().st_mtime_ns > 1234567890_123456789


def test_what_people_said_of_a_file_outlives_its_bytes(course):
    path = course.put('a', b'old', title='The title', language='de', durationMs=5, extra={'their': 'own'})
    path.write_bytes(b'new')
    metadata = verify(course, 'a', b'new')['metadata']
    assert (metadata['title'], metadata['language'], metadata['extra']) == ('The title', 'de', {'their': 'own'})
    assert 'durationMs' not in metadata, 'what follows from the content does not'


def test_fsync_is_no_publication(course):
    path, data = course.folder / 'a', noise(CHUNK + 10)
    with open(path, 'wb') as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        entry, = uploads_of(course)
        assert course.bucket.chunks.count_documents({'files_id': entry['_id']}) == 2
        assert revisions(course, 'a') == []
        file.write(b'more')
    verify(course, 'a', data + b'more')


@pytest.mark.long
def test_the_lease_of_a_slow_upload_is_renewed(course):
    """Its writer says nothing for longer than a renewal is due."""
    with open(course.folder / 'a', 'wb') as file:
        file.write(noise(CHUNK))
        file.flush()
        os.fsync(file.fileno())
        first = uploads_of(course)[0]['heartbeat']
        assert process.wait_until(lambda: uploads_of(course)[0]['heartbeat'] > first, 150, 1)
    verify(course, 'a', noise(CHUNK))


def test_given_up_uploads_leave_nothing(course, new_mount):
    mount = new_mount()
    folder = mount.directory / f'regions/europe/media/{course.id}'
    writer = subprocess.Popen([sys.executable, '-c', 'import sys, time; f = open(sys.argv[1], "wb", 0)\n'
                               'f.write(bytes(6 << 20)); print(flush=True); time.sleep(600)', folder / 'a'],
                              stdout=subprocess.PIPE)
    writer.stdout.readline()
    assert process.wait_until(lambda: uploads_of(course), 30)
    entry, = uploads_of(course)
    writer.kill()
    writer.wait()
    # A killed process's file is closed, and so published: as on a disk, where what was written stays.
    assert process.wait_until(lambda: revisions(course, 'a'), 30)
    assert revisions(course, 'a')[0]['length'] == 6 << 20
    assert process.wait_until(lambda: not uploads_of(course), 30)


# ---- names and courses

def test_where_files_cannot_be(course, mnt):
    media = mnt / 'regions/europe/media'
    flags = os.O_CREAT | os.O_WRONLY
    assert errno_of(os.open, media / 'file', flags) == 'EPERM'
    assert 'folders alone' in errors_of(mnt, 'regions/europe/media/file')[-1]['message']
    assert errno_of(os.open, media / '274877906000' / 'file', flags) == 'ENOENT', 'no such course'
    assert errno_of(os.open, course.folder / '.meta', flags) in ('EPERM', 'EISDIR')
    assert errno_of(os.open, os.fsencode(course.folder) + b'/\xff\xfe', flags) == 'EILSEQ'
    words = errors_of(mnt)[-1]
    assert words['path'] == f'regions/europe/media/{course.id}/\ufffd\ufffd' and 'UTF-8' in words['message']
    assert errno_of(os.open, course.folder / ('x' * 256), flags) == 'ENAMETOOLONG'
    name = 'x' * 255
    (course.folder / name).write_bytes(b'1')
    assert (course.folder / name).read_bytes() == b'1'


def test_a_mount_that_only_reads(course, new_mount):
    path = course.folder / 'a'
    path.write_bytes(b'1')
    mount = new_mount(read_only='yes')
    same = mount.directory / path.relative_to(path.parents[4])
    assert same.read_bytes() == b'1'
    assert errno_of(os.open, same, os.O_WRONLY) == 'EROFS'
    assert errno_of(os.open, same.with_name('b'), os.O_WRONLY | os.O_CREAT) == 'EROFS'
    if made_writable(mount):
        for call, *arguments in ((os.open, same, os.O_WRONLY), (os.open, same.with_name('b'), os.O_WRONLY | os.O_CREAT),
                                 (os.truncate, same, 0), (os.utime, same), (os.chmod, same, 0o600)):
            assert errno_of(call, *arguments) == 'EROFS', call


# ---- bounds

def test_quota_of_a_course(course, new_mount, new_course, bucket):
    mount = new_mount(media_course_quota='1MB')
    folder = mount.directory / f'regions/europe/media/{course.id}'
    (folder / 'a').write_bytes(noise(700 * KIB))

    def write(name, size):
        fd = os.open(folder / name, os.O_WRONLY | os.O_CREAT)
        try:
            while size > 0:
                size -= os.write(fd, bytes(min(size, 128 * KIB)))
        finally:
            os.close(fd)
    with open(folder / 'a', 'ab') as file:
        file.write(noise(100 * KIB))  # what it has already is not counted twice
    before = len(uploads_of(course))
    assert errno_of(write, 'b', 500 * KIB) == 'ENOSPC'
    error = errors_of(mount.directory, f'regions/europe/media/{course.id}/b')[-1]
    assert error['errno'] == 'ENOSPC' and 'media_course_quota' in error['message']
    assert (folder / 'b').stat().st_size <= 224 * KIB, 'as on a full disk, what fitted was written'
    assert len(uploads_of(course)) == before
    (folder / 'a').write_bytes(noise(100 * KIB))
    write('c', 500 * KIB)
    fd = os.open(folder / 'c', os.O_WRONLY)
    assert errno_of(os.ftruncate, fd, 5 * MIB) == 'ENOSPC'
    assert errno_of(fallocate, fd, 0, 0, 5 * MIB) == 'ENOSPC'
    os.close(fd)
    assert (folder / 'c').stat().st_size == 500 * KIB
    other = new_course()
    (mount.directory / f'regions/europe/media/{other.id}').joinpath('a').write_bytes(noise(900 * KIB))
    bucket.remove(f'{other.id}/')


def test_quota_of_a_region(course, new_mount, new_course, bucket):
    lengths = {}
    for document in bucket.files.find().sort([('uploadDate', 1), ('_id', 1)]):
        lengths[document['filename']] = document['length']
    mount = new_mount(media_region_quota=str(sum(lengths.values()) + MIB))
    media, other = mount.directory / 'regions/europe/media', new_course()
    (media / f'{course.id}/a').write_bytes(noise(700 * KIB))
    assert errno_of((media / f'{other.id}/b').write_bytes, noise(500 * KIB)) == 'ENOSPC'
    error = errors_of(mount.directory, f'regions/europe/media/{other.id}/b')[-1]
    assert error['errno'] == 'ENOSPC' and 'media_region_quota' in error['message']
    (media / f'{other.id}/c').write_bytes(noise(100 * KIB))
    bucket.remove(f'{other.id}/')


def test_quota_counts_what_is_being_written(course, new_mount):
    mount = new_mount(media_course_quota='1MB')
    folder = mount.directory / f'regions/europe/media/{course.id}'
    files = [open(folder / f'{n}', 'wb', buffering=0) for n in range(3)]
    assert [errno_of(file.write, bytes(400 * KIB)) for file in files] == [None, None, 'ENOSPC']
    for file in files:
        file.close()


def test_a_hole_behind_the_end_is_none(course):
    path, data = course.folder / 'a', noise(3 * CHUNK + 5)
    path.write_bytes(data)
    with open(path, 'r+b', buffering=0) as file:
        for offset in (4 * CHUNK, 1 << 60, (1 << 63) - 1000):
            fallocate(file.fileno(), PUNCH_HOLE | KEEP_SIZE, offset, 500)
        assert file.read() == data
    assert path.read_bytes() == data


def space_of(path):
    space = os.statvfs(path)
    return space.f_blocks * space.f_frsize, space.f_bavail * space.f_frsize


def test_df_tells_what_the_quotas_leave(course, new_mount, new_course, bucket):
    """What file managers ask before they copy a film: of the course, of what is in it, of media/."""
    folder = course.folder
    whole, free = space_of(folder)
    assert free == (2 ** 31 - 1) * CHUNK // 4096 * 4096, 'without a quota, what one file can have'
    assert os.statvfs(folder).f_files == 0, 'no bound of entries'
    assert space_of(folder.parents[2])[0] < 1 << 30, 'elsewhere it is of scratch files'
    (folder / 'sub').mkdir()
    (folder / 'a').write_bytes(noise(700 * KIB))
    assert whole + 600 * KIB < space_of(folder)[0] < whole + (50 << 20)
    mount = new_mount(media_course_quota='1MB', media_region_quota='1024GB')
    folder = mount.directory / f'regions/europe/media/{course.id}'
    for path in (folder, folder / 'sub', folder / 'a'):
        assert space_of(path) == (MIB, 324 * KIB), path
    with open(folder / 'b', 'wb', buffering=0) as file:
        file.write(bytes(200 * KIB))
        assert space_of(folder)[1] <= 124 * KIB, 'what is being written counts'
        assert os.fstatvfs(file.fileno()).f_blocks * 4096 == MIB
    total, left = space_of(folder.parent)
    assert total == 1 << 40 and (1 << 40) - (1 << 30) < left < (1 << 40) - 800 * KIB
    other = new_course()
    assert space_of(folder.parent / str(other.id)) == (MIB, MIB), 'a course that has nothing yet'
    mount = new_mount(media_course_quota='1GB', media_region_quota='900KB')
    assert space_of(mount.directory / f'regions/europe/media/{course.id}') == (900 * KIB, 0), 'the less of the two'


def test_little_memory_and_many_writers(course, new_mount):
    """Thirty files are begun and left, eight are written at once, with memory for one batch alone."""
    mount = new_mount(media_write_size='4MB')
    folder = mount.directory / f'regions/europe/media/{course.id}'
    idle = [open(folder / f'idle{n}', 'wb', buffering=0) for n in range(30)]
    for n, file in enumerate(idle):
        file.write(noise(5000, n))
    failed = []

    def write(n):
        try:
            (folder / f'busy{n}').write_bytes(noise(6 * MIB, n))
        except OSError as error:
            failed.append(error)
    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    for n, file in enumerate(idle):
        file.write(noise(3000, n + 100))
        file.close()
        assert (folder / f'idle{n}').read_bytes() == noise(5000, n) + noise(3000, n + 100)
    for n in range(8):
        assert hashlib.sha256((folder / f'busy{n}').read_bytes()).digest() == \
            hashlib.sha256(noise(6 * MIB, n)).digest()


@pytest.mark.long
def test_bytes_on_their_way_stay_within_their_memory(cluster, course, new_mount):
    proxy = MediaProxy(cluster.mongodb.uri)
    mount = new_mount(mongodb_uri=proxy.uri, media_write_size='4MB', timeout='60s')
    path = mount.directory / f'regions/europe/media/{course.id}/a'
    go_on = threading.Event()
    proxy.rule('insert', 'chunks', action='pass', call=lambda: go_on.wait(30))
    memory = lambda: int(re.search(r'^campusfs_media_write_bytes (\d+)$',  # noqa: E731
                                   (mount.directory / '.campusfs/metrics').read_text(), re.M)[1])
    writer = threading.Thread(target=path.write_bytes, args=(noise(12 * MIB),))
    writer.start()
    assert process.wait_until(lambda: memory() >= 4 * MIB, 60, 0.01)
    most = max((time.sleep(0.01), memory())[1] for _ in range(30))  # a writer who was not held back would go on
    go_on.set()
    while writer.is_alive():
        most = max(most, memory())
    assert mount.stop() == 0
    proxy.close()
    assert most == 4 * MIB
    assert hashlib.sha256(content(course.bucket, course, 'a')).digest() == hashlib.sha256(noise(12 * MIB)).digest()


def peak_rss(pid):
    status = open(f'/proc/{pid}/status').read()
    return int(re.search(r'VmHWM:\s+(\d+)', status)[1]) * KIB


@pytest.mark.long
@pytest.mark.parametrize('mib', [64, 1024])
def test_eight_uploads_at_once(course, new_mount, sanitized, mib):
    mount = new_mount(timeout='60s')
    folder = mount.directory / f'regions/europe/media/{course.id}'
    block = noise(MIB)
    writers = [subprocess.Popen([sys.executable, '-c', 'import sys\nblock = sys.stdin.buffer.read()\n'
                                 'with open(sys.argv[1], "wb", 0) as f:\n  for _ in range(int(sys.argv[2])): f.write(block)',
                                 folder / f'{n}', str(mib)], stdin=subprocess.PIPE) for n in range(8)]
    for writer in writers:
        threading.Thread(target=lambda w=writer: (w.stdin.write(block), w.stdin.close())).start()
    assert [writer.wait() for writer in writers] == [0] * 8
    peak = peak_rss(mount.pid())
    print(f'\npeak RSS of 8 uploads of {mib} MiB: {peak / MIB:.0f} MiB')
    assert sanitized or peak <= 128 * MIB
    digest = hashlib.sha256()
    for _ in range(mib):
        digest.update(block)
    assert {document['metadata']['sha256'] for n in range(8) for document in revisions(course, f'{n}')} == \
        {digest.hexdigest()}


@pytest.mark.long
def test_four_gibibytes_by_cp(course, new_mount, tmp_path, sanitized):
    mount = new_mount(timeout='60s')
    path = mount.directory / f'regions/europe/media/{course.id}/film'
    local = tmp_path / 'film'
    digest = hashlib.sha256()
    with open(local, 'wb') as file:
        for n in range(4096):
            block = (noise(4096, n % 64) * 256)
            file.write(block)
            digest.update(block)
    subprocess.run(['cp', local, path], check=True)
    assert sanitized or peak_rss(mount.pid()) <= 128 * MIB
    document, = revisions(course, 'film')
    assert (document['length'], document['metadata']['sha256']) == (4 << 30, digest.hexdigest())
    assert course.bucket.chunks.count_documents({'files_id': document['_id'], 'n': {'$gte': 16400}}) == 49
    reader = new_mount(timeout='60s')
    subprocess.run(['cp', reader.directory / path.relative_to(mount.directory), local], check=True)
    print(f'\npeak RSS of 4 GiB: {peak_rss(mount.pid()) // MIB} MiB in, {peak_rss(reader.pid()) // MIB} MiB out')
    assert sanitized or peak_rss(reader.pid()) <= 192 * MIB, 'media_cache_size, and what is on its way'
    with open(local, 'rb') as file:
        assert hashlib.file_digest(file, 'sha256').hexdigest() == digest.hexdigest()


# ---- names that change while a file is written, and the tools that do so

def test_a_new_file_that_is_renamed_before_its_close(course):
    with open(course.folder / 'tmp', 'wb') as file:
        file.write(b'first ')
        file.flush()
        os.replace(course.folder / 'tmp', course.folder / 'film')
        assert not (course.folder / 'tmp').exists()
        file.write(b'second')
    verify(course, 'film', b'first second')
    assert os.listdir(course.folder) == ['film']


def test_a_file_that_is_removed_while_it_is_written(course):
    path = course.folder / 'film'
    for content in (None, b'old'):
        if content:
            path.write_bytes(content)
        with open(path, 'ab') as file:
            file.write(noise(CHUNK))
            file.flush()
            path.unlink()
            assert os.fstat(file.fileno()).st_size == CHUNK + len(content or b'')
        assert not path.exists() and revisions(course, 'film') == []
    (course.folder / 'other').write_bytes(b'the last one')
    path.write_bytes(b'old')
    with open(path, 'r+b') as file:
        file.write(b'lost')
        os.replace(course.folder / 'other', path)
    verify(course, 'film', b'the last one')


def test_a_file_and_its_folder_that_move_while_it_is_written(course):
    (course.folder / 'one').mkdir()
    path = course.folder / 'one/film'
    path.write_bytes(b'old')
    with open(path, 'ab') as file:
        file.write(b' and')
        file.flush()
        os.rename(path, course.folder / 'one/clip')
        os.rename(course.folder / 'one', course.folder / 'two')
        file.write(b' new')
    assert (course.folder / 'two/clip').read_bytes() == b'old and new'
    assert os.listdir(course.folder) == ['two'] and os.listdir(course.folder / 'two') == ['clip']


def run(*command, **options):
    return subprocess.run([os.fspath(part) for part in command], check=True, capture_output=True, text=True, **options)


@pytest.fixture
def sample(tmp_path):
    """A small tree of files of many sizes, with times and modes."""
    root = tmp_path / 'sample'
    for name, size in (('a.txt', 5), ('empty', 0), ('one/film.bin', CHUNK + 9), ('one/two/three.bin', 70000)):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(noise(size, size))
        path.chmod(0o640)
        os.utime(path, ns=(0, 1_600_000_000_000_000_000 + size * 1_000_000_000))
    return root


@pytest.mark.parametrize('how', [(), ('--inplace',), ('--delay-updates',)], ids=' '.join)
def test_rsync(course, sample, how):
    there = course.folder / 'there'
    run('rsync', '-a', *how, f'{sample}/', f'{there}/')
    again = ('rsync', '-aic')
    assert run(*again, *how, f'{sample}/', f'{there}/').stdout == '', 'a second one sends nothing'
    with open(sample / 'one/film.bin', 'r+b') as file:
        file.seek(1000)
        file.write(b'changed')
    (sample / 'a.txt').unlink()
    run('rsync', '-a', '--no-whole-file', '--delete', *how, f'{sample}/', f'{there}/')
    assert run('diff', '-r', sample, there).stdout == ''
    assert run(*again, '--delete', f'{there}/', f'{sample}/').stdout == '', 'nor does one back'


def test_archives_and_copies(course, sample, tmp_path):
    archive = tmp_path / 'sample.tar'
    run('tar', 'cf', archive, '-C', sample, '.')
    (course.folder / 'tar').mkdir()
    run('tar', 'xpf', archive, '-C', course.folder / 'tar')
    run('cp', '-a', sample, course.folder / 'cp')
    for name in ('tar', 'cp'):
        assert run('diff', '-r', sample, course.folder / name).stdout == ''
        assert run('rsync', '-aic', f'{sample}/', f'{course.folder / name}/').stdout == ''
    shutil.make_archive(str(tmp_path / 'sample'), 'zip', sample)
    run('unzip', '-q', tmp_path / 'sample.zip', '-d', course.folder / 'zip')
    assert run('diff', '-r', sample, course.folder / 'zip').stdout == ''


def test_git(course, sample, tmp_path):
    origin = tmp_path / 'origin'
    run('cp', '-a', sample, origin)
    git = ('git', '-c', 'user.name=x', '-c', 'user.email=x@example.org', '-c', 'init.defaultBranch=main',
           '-c', 'safe.directory=*')
    run(*git, 'init', '-q', origin)
    run(*git, '-C', origin, 'add', '.')
    run(*git, '-C', origin, 'commit', '-qm', 'one')
    clone = course.folder / 'clone'
    run(*git, 'clone', '-q', '--no-hardlinks', origin, clone)
    assert run('diff', '-r', '-x', '.git', origin, clone).stdout == ''
    run(*git, '-C', clone, 'fsck', '--strict')
    (clone / 'a.txt').write_text('changed\n')
    run(*git, '-C', clone, 'commit', '-qam', 'two')
    assert run(*git, '-C', clone, 'status', '--short').stdout == ''
    assert run(*git, '-C', clone, 'log', '--format=%s').stdout == 'two\none\n'
