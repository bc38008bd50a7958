"""Media under what takes long: files of gibibytes, kills at any moment, sweeps beside uploads, fio; and a server that has
neither transactions nor change streams.

The long ones: tests/run -m long tests/test_media_proofs.py
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import process
import pytest
from media_proxy import MediaProxy
from media_tools import LONG_AGO, Bucket, bucket, chunk_ids, content, course, expire, sweeping, uploads, write  # noqa: F401
from mongodb import MongoServer
from mount_tools import errno_of

KIB, MIB = 1024, 1024 * 1024
CHUNK = 255 * KIB
BATCH = 16 * CHUNK
KILLS = 50


def folder_of(mount, course):
    return mount.directory / f'regions/europe/media/{course.id}'


# ---- a server alone

class Standalone(MongoServer):
    """The launcher's server as no member of a replica set, which a mongod is anyway."""

    def _command(self, program):
        return [*super()._command(program), *(['--standalone'] if self.kind == 'secantusdb' else [])]


@pytest.fixture
def alone(run_directory, cluster):
    directory = run_directory / 'alone'
    directory.mkdir()
    server = Standalone(directory / 'mongodb', directory / 'mongodb.log')
    try:
        server.start()
        cluster.run('init', env={'CAMPUSFS_MONGODB_URI': server.uri})
        yield server
    finally:
        server.kill()


def test_a_server_without_transactions_and_change_streams(cluster, alone, new_mount, new_course):
    """All works; what others do appears within media_poll."""
    done = cluster.run('health', '--json', env={'CAMPUSFS_MONGODB_URI': alone.uri}, check=False)
    can = json.loads(done.stdout)['mongodb']['capabilities']
    assert not can['transactions'] and not can['change_streams']
    mount, made = new_mount(mongodb_uri=alone.uri, media_poll='300ms'), new_course()
    folder, data = folder_of(mount, made), random.Random(1).randbytes(BATCH + 77)
    other = Bucket(alone.uri, 'europe')
    (folder / 'week').mkdir()
    (folder / 'week/film').write_bytes(b'old')
    (folder / 'week/film').write_bytes(data)
    os.rename(folder / 'week', folder / 'unit')
    assert other.get(f'{made.id}/unit/film') == data == (folder / 'unit/film').read_bytes()
    theirs = other.put(f'{made.id}/theirs', b'theirs')
    assert process.wait_until((folder / 'theirs').exists, 60, 0.02)
    assert (folder / 'theirs').read_bytes() == b'theirs'
    assert sorted(os.listdir(folder)) == ['theirs', 'unit']
    other.put(f'{made.id}/theirs', b'new')
    assert process.wait_until(lambda: (folder / 'theirs').read_bytes() == b'new', 60, 0.02)
    other.files.delete_many({'filename': f'{made.id}/theirs'})
    other.chunks.delete_many({'files_id': theirs})
    assert process.wait_until(lambda: not (folder / 'theirs').exists(), 60, 0.02)
    metrics = (mount.directory / '.campusfs/metrics').read_text()
    assert 'campusfs_media_index_streaming{region="europe"} 0' in metrics
    other.close()


# ---- kills

KILLED_AT = [('insert', 'uploads'), ('insert', 'chunks'), ('aggregate', 'chunks'), ('update', 'uploads'), ('insert', 'files'),
             ('delete', 'uploads')]


def kill_once(rng, proxy, mount, path, data):
    """Writes the file while the daemon is killed: at some command, before it or after its answer, or just at some time.
    Whether close() said that it went well."""
    pid = mount.pid()
    kill = lambda: (os.kill(pid, signal.SIGKILL), process.wait_until(lambda: mount.pid() is None, 60, 0.001))  # noqa: E731
    timer = None
    if rng.random() < 0.3:
        timer = threading.Timer(rng.random() * 0.3, kill)
        timer.start()
    else:
        command, when = rng.choice(KILLED_AT), rng.choice(('call', 'then'))
        proxy.rule(*command, action='cut' if when == 'call' else 'pass', after=rng.choice((0, 0, 1, 2)), times=1,
                   **{when: kill})
    error = errno_of(write, path, data)
    if timer:
        timer.join()
    proxy.clear()
    return error is None


@pytest.mark.long
def test_fifty_kills(cluster, bucket, course, new_mount):
    """The file is the old one or the new one, whole, and the new one where close() said so; the sweep takes the rest."""
    rng = random.Random(20)
    proxy = MediaProxy(cluster.mongodb.uri)
    mount = new_mount(mongodb_uri=proxy.uri, timeout='5s', media_sweep='0')
    sweeper = sweeping(new_mount, bucket)
    before, current, outcomes = chunk_ids(bucket), None, {'old': 0, 'new': 0, 'alive': 0}
    for n in range(KILLS):
        data = rng.randbytes(rng.choice((10, CHUNK, BATCH + 100, 3 * BATCH)))
        done = kill_once(rng, proxy, mount, folder_of(mount, course) / 'film', data)
        found = content(bucket, course, 'film')
        assert found in (current, data), f'after kill {n}: neither the old file nor the new one'
        assert not done or found == data, f'after kill {n}: close() was told of a file that is not there'
        outcomes['new' if found == data else 'old'] += 1
        current = found
        if mount.pid() is None:
            mount.start(foreground=True)
        else:
            outcomes['alive'] += 1
        path = folder_of(mount, course) / 'film'
        assert (path.read_bytes() if path.exists() else None) == current, f'the mount after kill {n}'
        expire(bucket, course)
        owned = {repr(document['_id']) for document in bucket.files.find({}, {'_id': 1})}
        assert process.wait_until(lambda: not (chunk_ids(bucket) - before - owned), 60, 0.05), f'leftovers of kill {n}'
        assert process.wait_until(lambda: not uploads(bucket, course), 60, 0.05)
    proxy.close()
    assert sweeper.pid() and content(bucket, course, 'film') == current
    print(f'\n{KILLS} kills: {outcomes}')
    assert outcomes['old'] > 5 and outcomes['new'] > 5


# ---- the sweep beside uploads

@pytest.mark.long
def test_sweeps_beside_uploads(bucket, course, new_mount):
    """Files are written all the time while another mount sweeps without a pause and a third one's uploads crash."""
    mount, doomed = new_mount(media_sweep='0'), new_mount(media_sweep='0')
    sweeping(new_mount, bucket, media_keep='0')
    written, failed, end = {}, [], time.monotonic() + 30

    def upload(n):
        rng = random.Random(n)
        try:
            while time.monotonic() < end:
                data, name = rng.randbytes(rng.randrange(2 * BATCH)), f'{n}-{rng.randrange(4)}'
                with open(folder_of(mount, course) / name, 'wb', buffering=0) as file:
                    for at in range(0, len(data), 500000):
                        file.write(data[at:at + 500000])
                written[name] = data
        except OSError as error:
            failed.append(error)
    threads = [threading.Thread(target=upload, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    crashed = 0
    while time.monotonic() < end:
        writer = subprocess.Popen([sys.executable, '-c', 'import sys; f = open(sys.argv[1], "wb", 0)\n'
                                   'while True: f.write(bytes(1 << 20))', folder_of(doomed, course) / 'doomed'])
        doomed_uploads = lambda: bucket.uploads.count_documents({'path': f'{course.id}/doomed',  # noqa: E731
                                                                 'heartbeat': {'$exists': True}})
        assert process.wait_until(doomed_uploads, 60, 0.02)
        doomed.kill()
        writer.kill()
        writer.wait()
        bucket.uploads.update_many({'path': f'{course.id}/doomed', 'heartbeat': {'$exists': True}},
                                   {'$set': {'heartbeat': LONG_AGO}})
        assert process.wait_until(lambda: not doomed_uploads(), 60, 0.05), 'a crashed upload is not swept'
        crashed += 1
        doomed.start(foreground=True)
    for thread in threads:
        thread.join()
    assert not failed
    for name, data in written.items():
        assert content(bucket, course, name) == data == (folder_of(mount, course) / name).read_bytes()
    print(f'\n{crashed} crashed uploads swept beside {len(written)} files')


# ---- fio

def fio(folder, *options):
    done = subprocess.run(['fio', '--name=job', f'--directory={folder}', '--numjobs=4', '--verify=crc32c', '--verify_fatal=1',
                           '--group_reporting', '--fallocate=none', '--verify_state_save=0', '--output-format=json', *options],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    job, = json.loads(done.stdout[done.stdout.index('{'):])['jobs']
    assert job['error'] == 0
    return job


@pytest.mark.long
@pytest.mark.parametrize('options', [('--rw=write', '--bs=128k', '--size=64m'), ('--rw=randwrite', '--bs=64k', '--size=12m'),
                                     ('--rw=randrw', '--bs=4k-300k', '--bs_unaligned', '--size=8m', '--fsync=20'),
                                     ('--rw=randwrite', '--bs=16k', '--size=8m', '--ioengine=mmap')], ids=' '.join)
def test_fio_verifies_what_four_writers_wrote(course, new_mount, options):
    """While the files are open, and once more after they were published."""
    mount = new_mount(timeout='30s')
    wrote = fio(folder_of(mount, course), *options, '--do_verify=1')
    assert wrote['write']['io_bytes'] > 4 * MIB
    if '--rw=randrw' not in options:  # it knows not any more what it wrote where
        assert fio(folder_of(new_mount(), course), *options, '--verify_only')['read']['io_bytes'] > 4 * MIB
