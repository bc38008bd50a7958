"""Media that other drivers have written, read through the mount: every byte, every size of chunk, every kind of number,
and every kind of damage, which is EIO with words and never wrong bytes."""

import datetime
import hashlib
import json
import mmap
import os
import random
import re
import subprocess
import threading

import bson
import process
import pytest
from media_proxy import MediaProxy
from media_tools import Bucket, appears, bucket, course, disappears, read_at  # noqa: F401
from mongodb import MongoServer
from mount_tools import errno_of

KIB = 1024


def noise(size, seed=0):
    return random.Random(seed).randbytes(size)


def last_error(mnt):
    return json.loads((mnt / '.campusfs/errors.jsonl').read_text().splitlines()[-1])


# ---- what the specification calls downloading

@pytest.mark.parametrize('length', [0, 1, 3, 4, 5, 8, 10])
def test_lengths_around_a_chunk(course, length):
    data = noise(length, length)
    path = course.put(f'{length}.bin', data, chunk=4)
    assert path.stat().st_size == length
    assert path.read_bytes() == data


def test_an_empty_chunk_behind_the_end_is_what_old_drivers_leave(course):
    assert course.insert('none', 0, 4, [(0, b'')]).read_bytes() == b''
    assert course.insert('whole', 8, 4, [(0, b'abcd'), (1, b'efgh'), (2, b'')]).read_bytes() == b'abcdefgh'
    assert errno_of((course.folder / 'never was').read_bytes) == 'ENOENT'


@pytest.mark.parametrize('words, length, chunks', [
    ('chunk 1 .* is missing', 10, [(0, b'abcd'), (2, b'ij')]),
    ('chunk 2 .* is missing', 10, [(0, b'abcd'), (1, b'efgh')]),
    ('chunk 0 .* is missing', 4, []),
    ('chunk 1 .* is too short', 10, [(0, b'abcd'), (1, b'efg'), (2, b'ij')]),
    ('chunk 1 .* is too long', 10, [(0, b'abcd'), (1, b'efghi'), (2, b'ij')]),
    ('chunk 2 .* is too long', 10, [(0, b'abcd'), (1, b'efgh'), (2, b'ijk')]),
    ('chunk 2 .* is too short', 10, [(0, b'abcd'), (1, b'efgh'), (2, b'i')]),
    ('chunk 2 .* behind the end', 8, [(0, b'abcd'), (1, b'efgh'), (2, b'ij')]),
    ('chunk 0 .* no binary data', 4, [(0, 'abcd')]),
    ('chunk 0 .* is missing', 4, [('0', b'abcd')]),
])
def test_damaged_chunks(course, mnt, words, length, chunks):
    path = course.insert('damaged', length, 4, chunks)
    assert path.stat().st_size == length
    assert errno_of(path.read_bytes) == 'EIO'
    error = last_error(mnt)
    assert error['path'].endswith(f'media/{course.id}/damaged')
    assert re.search(words, error['message']), error


@pytest.mark.parametrize('n', [1, 2])
def test_a_chunk_that_is_there_twice(course, bucket, mnt, n):
    """As a bucket without its index can have it: nobody knows which of the two is right."""
    bucket.chunks.drop_index('files_id_1_n_1')
    try:
        path = course.insert('twice', 10, 4, [(0, b'abcd'), (1, b'efgh'), (2, b'ij')])
        file_id = bucket.files.find_one({'filename': f'{course.id}/twice'})['_id']
        bucket.chunks.insert_one({'files_id': file_id, 'n': n, 'data': [b'abcd', b'EFGH', b'ij'][n]})
        assert errno_of(path.read_bytes) == 'EIO'
        assert re.search(f'chunk {n} .* is there twice', last_error(mnt)['message'])
    finally:
        bucket.remove(f'{course.id}/twice')
        bucket.chunks.create_index([('files_id', 1), ('n', 1)], unique=True, name='files_id_1_n_1')


@pytest.mark.parametrize('words, fields', [
    ('length', {'length': -1}), ('length', {'length': 1.5}), ('length', {'length': float('nan')}),
    ('length', {'length': 'long'}), ('length', {'length': None}), ('chunkSize', {'chunk_size': 0}),
    ('chunkSize', {'chunk_size': -4}), ('chunkSize', {'chunk_size': 2 ** 31, 'length': 2 ** 32}),
    ('chunkSize', {'chunk_size': []}), ('more than 2147483647 chunks', {'length': 2 ** 62, 'chunk_size': 1}),
])
def test_documents_that_contradict_themselves(course, mnt, words, fields):
    path = course.insert('wrong', **{'length': 4, 'chunk_size': 4, 'chunks': [(0, b'abcd')], **fields})
    assert errno_of(path.read_bytes) == 'EIO'
    assert words in last_error(mnt)['message']


def test_lengths_beyond_all_bounds(course):
    """Of documents that cannot be true: they are shown, and no sum is made of them."""
    before = os.statvfs(course.folder)
    for n, length in enumerate((2 ** 63 - 1, 2 ** 62)):
        assert course.insert(f'{n}', length, 1).stat().st_size == length
    after = os.statvfs(course.folder)
    assert (after.f_blocks, after.f_bfree) == (before.f_blocks, before.f_bfree)


def test_numbers_of_any_type(course):
    forms = [int, float, bson.Int64, lambda n: bson.Decimal128(str(n))]
    for i, form in enumerate(forms):
        path = course.insert(f'{i}', form(6), form(4), [(form(0), b'abcd'), (form(1), b'ef')])
        assert path.stat().st_size == 6
        assert path.read_bytes() == b'abcdef'
    assert course.insert('huge chunks', 4, 2 ** 31, [(0, b'abcd')]).read_bytes() == b'abcd'


@pytest.mark.parametrize('file_id', [{'a': 1}, 7, 7.5, 'name', b'raw', True, bson.ObjectId()])
def test_ids_of_any_type(course, bucket, file_id):
    """All that a server takes as one: no list, no regular expression and no key with a $."""
    data = noise(700 * KIB)
    bucket.grid.upload_from_stream_with_id(file_id, f'{course.id}/any', data)
    assert appears(course.folder / 'any').read_bytes() == data
    disappeared = bucket.files.delete_one({'_id': {'$eq': file_id}}).deleted_count
    assert disappeared == 1
    disappears(course.folder / 'any')


def test_files_of_ids_of_any_type_are_renamed_and_removed(course, bucket):
    ids = [{'a': course.id, 'b': {'c': 2}}, course.id, f'name {course.id}', bson.ObjectId()]
    for n, file_id in enumerate(ids):
        bucket.grid.upload_from_stream_with_id(file_id, f'{course.id}/{n}', b'%d' % n)
    for n, file_id in enumerate(ids):
        os.rename(appears(course.folder / f'{n}'), course.folder / f'new{n}')
        assert (course.folder / f'new{n}').read_bytes() == b'%d' % n
        os.unlink(course.folder / f'new{n}')
        assert bucket.files.find_one({'_id': {'$eq': file_id}}) is None


@pytest.mark.parametrize('metadata', [None, 'text', 5, [], {'mtime': 'x', 'mode': 'y', 'owner': 7, 'sha256': 0},
                                      {'mode': -1, 'owner': {'uid': 'root', 'gid': -5}}, {'mtime': 2 ** 62},
                                      {'owner': {'uid': 2 ** 32 + 5, 'gid': 2 ** 40 + 5}}])
def test_metadata_of_any_type(course, metadata):
    path = course.insert('any', 4, 4, [(0, b'abcd')], metadata=metadata)
    assert path.read_bytes() == b'abcd'
    assert path.stat().st_mode & 0o7777 == 0o640
    assert 5 not in (path.stat().st_uid, path.stat().st_gid), 'what is no id is nobody, and not its lower half'


def test_what_our_metadata_say(course):
    path = course.insert('ours', 4, 4, [(0, b'abcd')],
                         metadata={'mtime': bson.Int64(1234567890123456789), 'mode': 0o604,
                                   'owner': {'uid': 12, 'gid': 34}})
    stat = path.stat()
    assert stat.st_mtime_ns == 1234567890123456789
    assert (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid) == (0o604, 12, 34)


def cat(path):
    """By a program that can be given up where the mount does not answer."""
    return subprocess.run(['cat', str(path)], capture_output=True, timeout=60).stdout


@pytest.mark.parametrize('before, after, chunk', [(1000, 1000, None), (10, 1000, None), (1000, 10, None), (1000, 1000, 100)])
def test_an_id_that_is_used_again_has_the_bytes_of_the_second_file(course, bucket, before, after, chunk):
    """As drivers do that have ids and times of their own: nothing that was in memory of the first file, here or in the kernel, is
    shown."""
    file_id, name, old, new = f'own-{course.id}', f'{course.id}/again', b'A' * before, b'B' * after
    time = {'mtime': bson.Int64(10 ** 18)}
    bucket.grid.upload_from_stream_with_id(file_id, name, old, metadata=time)
    path = appears(course.folder / 'again')
    assert cat(path) == old
    bucket.grid.delete(file_id)
    bucket.grid.upload_from_stream_with_id(file_id, name, new, chunk_size_bytes=chunk, metadata=time)
    assert process.wait_until(lambda: cat(path) == new, 60, 0.05)


def test_bytes_that_change_under_an_id_at_once_are_not_those_that_the_kernel_has(course, bucket):
    """As a file that was deleted and uploaded again looks where only the end of it was seen: same size, same time."""
    path, file_id = course.put('changed', b'A' * 1000, mtime=bson.Int64(10 ** 18)), f'{course.id}/changed'
    assert cat(path) == b'A' * 1000
    document = bucket.files.find_one({'filename': file_id})
    bucket.chunks.update_one({'files_id': document['_id']}, {'$set': {'data': b'B' * 1000}})
    bucket.files.update_one({'_id': document['_id']}, {'$set': {'uploadDate': document['uploadDate'] + datetime.timedelta(seconds=1)}})
    assert process.wait_until(lambda: cat(path) == b'B' * 1000, 60, 0.05)


def test_one_id_in_two_regions_is_two_files(course, cluster, bucket):
    africa = Bucket(cluster.mongodb.uri, 'africa')
    paths = {}
    try:
        for region, there in (('europe', bucket), ('africa', africa)):
            there.grid.upload_from_stream_with_id(f'two-{course.id}', f'{course.id}/two', region.encode())
            paths[region] = course.folder.parents[2] / region / f'media/{course.id}/two'
        africa.files.update_one({'_id': f'two-{course.id}'}, {'$set': {
            'uploadDate': bucket.files.find_one({'_id': f'two-{course.id}'})['uploadDate']}})
        for region, path in paths.items():
            assert process.wait_until(lambda: cat(path) == region.encode(), 60, 0.05)  # noqa: B023
    finally:
        africa.remove(f'{course.id}/')
        africa.close()


# ---- reading

@pytest.mark.parametrize('n', [2000, pytest.param(10000, marks=pytest.mark.long)])
def test_random_reads(course, mnt, n):
    data = noise(3000 * KIB + 17)
    path = course.put('film.bin', data, chunk=100 * KIB)
    rng = random.Random(5)
    fd = os.open(path, os.O_RDONLY)
    try:
        for _ in range(n):
            offset, size = rng.randrange(len(data) + 10), rng.choice((1, 100, 4096, 70000, 300000))
            assert os.pread(fd, size, offset) == data[offset:offset + size]
    finally:
        os.close(fd)


def counters(mnt):
    text = (mnt / '.campusfs/metrics').read_text()
    return {line.split()[0]: float(line.split()[1]) for line in text.splitlines() if line.startswith('campusfs_media_')}


def test_a_random_read_costs_one_chunk(course, mnt):
    path = course.put('big.bin', bytes(16000 * KIB))
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        before = counters(mnt)['campusfs_media_read_bytes_total']
        for n in (50, 10, 30, 0, 60):
            assert os.pread(fd, 4096, n * 255 * KIB + 8192) == bytes(4096)
        assert counters(mnt)['campusfs_media_read_bytes_total'] - before == 5 * 255 * KIB
    finally:
        os.close(fd)


def test_reading_in_order_reads_ahead_within_the_cache(course, new_mount):
    data = noise(12000 * KIB)
    course.put('big.bin', data)
    mount = new_mount(media_cache_size='8MB')
    path = mount.directory / f'regions/europe/media/{course.id}/big.bin'
    assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(data).digest()
    now = counters(mount.directory)
    assert now['campusfs_media_chunks_ahead_total'] > 10
    assert now['campusfs_media_cache_bytes'] <= now['campusfs_media_cache_limit_bytes'] == 8 << 20
    assert now['campusfs_media_read_bytes_total'] < 1.3 * len(data)


@pytest.mark.long
def test_readers_beside_each_other_do_not_drive_out_what_the_others_will_want(course, new_mount):
    data = noise(7000 * KIB)
    for n in range(4):
        course.put(f'{n}.bin', data)
    mount = new_mount(media_cache_size='8MB')
    folder = mount.directory / f'regions/europe/media/{course.id}'
    before = counters(mount.directory)['campusfs_media_read_bytes_total']
    files = [open(folder / f'{n}.bin', 'rb', buffering=0) for n in range(4)]
    for at in range(0, len(data), 100000):
        for file in files:
            assert file.read(100000) == data[at:at + 100000]
    for file in files:
        file.close()
    assert counters(mount.directory)['campusfs_media_read_bytes_total'] - before < 1.3 * 4 * len(data)


@pytest.mark.long
def test_reading_in_order_has_several_messages_on_their_way_each_of_several_chunks(cluster, course, new_mount):
    """O_DIRECT, so that the kernel asks for one thing after the other, and what is beside it is our reading ahead."""
    proxy = MediaProxy(cluster.mongodb.uri)
    mount = new_mount(mongodb_uri=proxy.uri, timeout='60s')
    data = noise(64 * 255 * KIB)
    course.put('big.bin', data)
    path = appears(mount.directory / f'regions/europe/media/{course.id}/big.bin')
    two, lock, under_way = threading.Event(), threading.Lock(), [0]

    def wait():
        with lock:
            under_way[0] += 1
            if under_way[0] == 2:
                two.set()
        two.wait(20)
        with lock:
            under_way[0] -= 1
    proxy.rule('find', 'chunks', action='pass', after=8, call=wait)
    buffer, got = mmap.mmap(-1, 512 * KIB), hashlib.sha256()
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        for at in range(0, len(data), 512 * KIB):
            got.update(buffer[:os.preadv(fd, [buffer], at)])
            if not two.is_set() and at > 10 << 20:
                break
    finally:
        os.close(fd)
    assert mount.stop() == 0
    proxy.close()
    assert two.is_set(), 'one after the other'
    assert got.digest() == hashlib.sha256(data).digest()
    assert proxy.count('find', 'chunks') < 32


def test_the_kernel_keeps_the_pages_of_a_revision(course, bucket, mnt):
    path = course.put('kept.bin', noise(600 * KIB))

    def costs_nothing():
        path.read_bytes()
        before = counters(mnt)
        assert path.read_bytes() == noise(600 * KIB)
        after = counters(mnt)
        return all(before[name] == after[name] for name in ('campusfs_media_chunk_hits_total', 'campusfs_media_chunk_misses_total'))
    assert process.wait_until(costs_nothing, 30, 0.1), 'memory may be short for once'
    bucket.put(f'{course.id}/kept.bin', noise(600 * KIB, 1))
    assert process.wait_until(lambda: path.read_bytes() == noise(600 * KIB, 1), 60, 0.01)


def test_a_cache_smaller_than_a_chunk(course, new_mount):
    data = noise(9000 * KIB)
    course.put('wide.bin', data, chunk=3000 * KIB)
    mount = new_mount(media_cache_size='1MB')
    path = mount.directory / f'regions/europe/media/{course.id}/wide.bin'
    assert path.read_bytes() == data


def test_many_readers_fetch_a_chunk_once(course, mnt):
    path = course.put('shared.bin', noise(255 * KIB * 8))
    before = counters(mnt)['campusfs_media_read_bytes_total']
    script = f"exec 3<{path}; for i in 1 2 3 4 5 6; do cat {path} >{os.devnull} & done; wait"
    subprocess.run(['sh', '-c', script], check=True)
    assert counters(mnt)['campusfs_media_read_bytes_total'] - before == 255 * KIB * 8


def test_a_reader_keeps_its_revision(course, bucket):
    old, new = noise(1500 * KIB, 1), noise(800 * KIB, 2)
    path = course.put('talk.bin', old)
    fd = os.open(path, os.O_RDONLY)
    try:
        assert os.pread(fd, 1000, 0) == old[:1000]
        bucket.put(f'{course.id}/talk.bin', new)
        assert process.wait_until(lambda: path.stat().st_size == len(new), 60, 0.01)
        assert path.read_bytes() == new
        assert os.fstat(fd).st_size == len(old)
        assert os.pread(fd, len(old) + 5, 0) == old
        with open(f'/proc/self/fd/{fd}', 'rb') as again:  # cannot be looked up again
            assert again.read() == old
    finally:
        os.close(fd)


def test_the_newest_revision_is_the_file(course, bucket):
    ids = [bucket.put(f'{course.id}/r.bin', text) for text in (b'first', b'second!', b'third one')]
    path = course.folder / 'r.bin'
    assert process.wait_until(lambda: path.exists() and path.read_bytes() == b'third one', 60, 0.01)
    bucket.grid.delete(ids[2])
    assert process.wait_until(lambda: path.read_bytes() == b'second!', 60, 0.01)
    bucket.grid.delete(ids[0])
    bucket.grid.delete(ids[1])
    disappears(path)


def test_other_drivers_find_revisions_by_their_order(course, bucket):
    for data in (b'first', b'second', b'third'):
        (course.folder / 'a').write_bytes(data)
    by_number = {n: bucket.get(f'{course.id}/a', n) for n in (0, 1, -2, -1)}
    assert by_number == {0: b'first', 1: b'second', -2: b'second', -1: b'third'}


def test_a_writer_reads_anew_what_he_has_changed(course):
    """Both are in the database by then, and in no page of the kernel's."""
    data = bytearray(noise(3 * 255 * KIB))
    fd = os.open(course.folder / 'own', os.O_RDWR | os.O_CREAT)
    os.write(fd, data)
    for at in (5, 300 * KIB):
        for change in (b'first', b'other'):
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            assert os.pread(fd, 100, at) == data[at:at + 100]
            data[at:at + 5] = change
            os.pwrite(fd, change, at)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    assert os.pread(fd, len(data), 0) == data
    os.close(fd)


def test_a_file_deleted_under_its_reader(course, bucket, mnt):
    path = course.put('gone.bin', noise(5000 * KIB))
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        os.pread(fd, 10, 0)
        bucket.remove(f'{course.id}/gone.bin')
        assert errno_of(os.pread, fd, 10, 4000 * KIB) == 'EIO'
        assert 'deleted while' in last_error(mnt)['message']
    finally:
        os.close(fd)


def test_a_path_handle_of_a_file_that_is_replaced(course, bucket):
    """What has nothing open knows no name to look up again: another revision is another file, and this one is gone."""
    path = course.put('held.bin', noise(10 * KIB))
    handle = os.open(path, os.O_PATH)
    try:
        assert os.fstat(handle).st_size == 10 * KIB
        bucket.put(f'{course.id}/held.bin', noise(20 * KIB))
        assert process.wait_until(lambda: path.stat().st_size == 20 * KIB, 60, 0.01)
        assert errno_of(os.fstat, handle) == 'ENOENT'
    finally:
        os.close(handle)


def test_what_reads_media_as_a_disk(course, tmp_path):
    data = noise(600 * KIB)
    path = course.put('a film.bin', data)
    assert subprocess.run(['sha256sum', path], capture_output=True, check=True).stdout.split()[0].decode() == \
        hashlib.sha256(data).hexdigest()
    subprocess.run(['cp', '-a', course.folder, tmp_path / 'copy'], check=True)
    assert (tmp_path / 'copy/a film.bin').read_bytes() == data
    assert subprocess.run(['tail', '-c', '100', path], capture_output=True, check=True).stdout == data[-100:]
    assert subprocess.run(['cmp', path, tmp_path / 'copy/a film.bin'], check=False).returncode == 0
    with open(path, 'rb') as file:
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:
            assert memory[500000:500100] == data[500000:500100]


@pytest.mark.skipif(os.geteuid() != 0, reason='only root may tell the kernel')
def test_the_kernel_reads_further_ahead(course, mnt):
    course.put('x', b'x').read_bytes()
    device = mnt.stat().st_dev
    text = open(f'/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb').read()
    assert int(text) == 4096


@pytest.mark.long
def test_two_gibibytes_in_order_with_flat_memory(course, bucket, mnt, shared_mount, sanitized):
    unit = noise(255 * KIB)
    file_id, n = bson.ObjectId(), (2 << 30) // (255 * KIB)
    for first in range(0, n, 16):
        bucket.chunks.insert_many([{'files_id': file_id, 'n': i, 'data': unit} for i in range(first, min(n, first + 16))])
    bucket.insert(f'{course.id}/long.bin', n * 255 * KIB, 255 * KIB, _id=file_id)
    path = appears(course.folder / 'long.bin')
    rss = lambda: int((process.Path(f'/proc/{shared_mount.pid()}/statm')).read_text().split()[1]) * 4096  # noqa: E731
    before, most = rss(), 0
    expected, digest = hashlib.sha256(), hashlib.sha256()
    for _ in range(n):
        expected.update(unit)
    with open(path, 'rb', buffering=0) as file:
        while part := file.read(1 << 20):
            digest.update(part)
            most = max(most, rss())
    assert digest.digest() == expected.digest()
    assert sanitized or most - before < 160 << 20  # a sanitizer keeps freed memory for a while


# ---- a server of its own that goes away

@pytest.fixture(scope='module')
def own_server(cluster):
    server = MongoServer(cluster.directory / 'own-mongodb', cluster.directory / 'log/own-mongodb.log', kind='secantusdb')
    yield server.start()
    server.thaw()
    server.kill()


def health(mount):
    return json.loads((mount.directory / '.campusfs/health.json').read_text())


@pytest.mark.parametrize('how', ['kill', 'freeze'])
def test_a_server_that_is_away(own_server, new_mount, new_course, how):
    course = new_course()
    bucket = Bucket(own_server.uri, 'europe')
    data = noise(2000 * KIB)
    bucket.put(f'{course.id}/film.bin', data)
    bucket.put(f'{course.id}/unread.bin', data)
    mount = new_mount(mongodb_uri=own_server.uri, timeout='2s')
    regions = mount.directory / 'regions/europe'
    path = regions / f'media/{course.id}/film.bin'
    row = regions / f'courses/{course.id}.json'
    assert read_at(path, 0, 10) == data[:10]
    getattr(own_server, how)()
    try:
        assert errno_of(read_at, path.with_name('unread.bin'), 0, 10) == 'EIO'
        assert process.wait_until(lambda: errno_of(os.listdir, regions / 'media') == 'EIO', 60, 0.05)
        assert json.loads(row.read_text())['id'] == course.id
        assert 'media' in os.listdir(regions)
        if how == 'kill':
            report = health(mount)
            assert (report['mongodb']['reachable'], report['status']) == (False, 'degraded')
    finally:
        own_server.thaw() if how == 'freeze' else own_server.start()
    assert process.wait_until(lambda: errno_of(path.read_bytes) is None and path.read_bytes() == data, 30, 0.1)
    bucket.remove(f'{course.id}/')
    bucket.close()


def test_a_mount_that_ends_while_the_server_is_frozen(own_server, new_mount):
    mount = new_mount(mongodb_uri=own_server.uri, timeout='1s')
    os.listdir(mount.directory / 'regions/europe/media')
    own_server.freeze()
    try:
        assert mount.stop() == 0
    finally:
        own_server.thaw()


def test_no_mongodb_configured(new_mount, mnt):
    root = new_mount(mongodb_uri='').directory
    region = root / 'regions/europe'
    assert 'media' not in os.listdir(region)
    assert errno_of(os.stat, region / 'media') == 'ENOENT'
    assert 'media' in (mnt / 'README').read_text() and 'media' not in (root / 'README').read_text()
