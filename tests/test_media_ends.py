"""Files that would take for ever: how long one may be, and who ends a publication: who waits for it, or the mount."""

import os
import random
import signal
import sys

import fuse_mount
import process
import pytest
from media_proxy import MediaProxy
from media_tools import bucket, chunk_ids, content, course, mount_behind, uploads, write  # noqa: F401
from mount_tools import errno_of

CHUNK = 255 * 1024
OLD, NEW = random.Random(0).randbytes(CHUNK + 100), random.Random(1).randbytes(17 * CHUNK + 200)


def test_no_file_is_longer_than_it_may_be_or_its_chunks_can_be_counted(course, new_mount):
    def check(folder, most):
        fd = os.open(folder / 'a', os.O_WRONLY | os.O_CREAT)
        try:
            assert errno_of(os.ftruncate, fd, most) is None
            said = {errno_of(os.ftruncate, fd, size) for size in (most + 1, 1 << 60)}
            assert said | {errno_of(os.pwrite, fd, b'x', most), errno_of(os.posix_fallocate, fd, most, 1)} == {'EFBIG'}
            assert os.fstat(fd).st_size == most
        finally:
            os.ftruncate(fd, 0)
            os.close(fd)
    check(course.folder, 1 << 40)
    mount = new_mount(media_file_max='522240GB')
    check(mount.directory / f'regions/europe/media/{course.id}', (2 ** 31 - 1) * CHUNK)


# ---- publications that somebody ends

@pytest.fixture(scope='module')
def patient(cluster):
    """Whatever ends a close here, it was not its deadline."""
    with mount_behind(cluster, 'mnt-patient', timeout='10min') as both:
        yield both
        both[0].clear()


def slowly(proxy):
    """What does not end, where a test fails, fills no disk meanwhile."""
    proxy.rule('insert', 'chunks', action='delay', seconds=0.1)


@pytest.fixture
def waiting(patient, course):
    """(its proxy, the course's folder)"""
    slowly(patient[0])
    yield patient[0], patient[1].directory / f'regions/europe/media/{course.id}'
    patient[0].clear()


def run_python(code, *arguments, **options):
    return process.spawn([sys.executable, '-c', f'import os, signal, sys; {code}', *arguments], os.devnull, **options)


def zeros_are_on_their_way(bucket, course, n=40):
    """Of a file that is being closed."""
    found = lambda: (entry := next(iter(uploads(bucket, course)), None)) and bucket.chunks.find_one({'files_id': entry['_id'], 'n': n})  # noqa: E731
    return process.wait_until(found, 60, 0.02)


@pytest.mark.parametrize('call', ['os.ftruncate(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT), 1 << 40); os.closerange(3, 99)',
                                  'os.truncate(sys.argv[1], 1 << 40)'])
def test_who_is_killed_while_he_publishes_has_given_the_file_up(waiting, bucket, course, call):
    """A tebibyte of zeros takes hours."""
    path, old = waiting[1] / 'film', OLD if 'os.truncate' in call else None
    if old:
        write(path, old)
    before = chunk_ids(bucket)
    closer = run_python(call, path)
    assert zeros_are_on_their_way(bucket, course)
    closer.terminate()
    assert closer.wait(60) == -signal.SIGTERM
    assert process.wait_until(lambda: not uploads(bucket, course) and chunk_ids(bucket) <= before, 60, 0.05)
    assert content(bucket, course, 'film') == old
    assert path.exists() == bool(old)


def test_who_was_killed_was_not_the_last_and_other_signals_end_no_close(waiting, bucket, course):
    proxy, folder = waiting
    fd = os.open(folder / 'film', os.O_WRONLY | os.O_CREAT)
    os.write(fd, NEW)
    tries = lambda: proxy.count('aggregate', 'chunks')  # noqa: E731

    def writes_and_closes(end, data):
        """A process with a copy of the descriptor. The server does not count chunks before it is signalled, and goes on only after it."""
        rule, begun = proxy.rule('aggregate', 'chunks', action='error', code=112, write=False), tries()
        closer = run_python(f'signal.signal(signal.SIGUSR1, lambda *_: None); os.pwrite({fd}, {data}, 0); os.close({fd})', pass_fds=[fd])
        assert process.wait_until(lambda: tries() > begun, 60)
        closer.send_signal(end)
        seen = tries()
        assert process.wait_until(lambda: closer.poll() is not None or tries() > seen + 5, 60)
        if end == signal.SIGUSR1:
            rule.times = 0
        code = closer.wait(60)
        rule.times = 0
        return code
    assert writes_and_closes(signal.SIGKILL, NEW[:5]) == -signal.SIGKILL
    assert content(bucket, course, 'film') is None
    os.close(os.dup(fd))
    assert content(bucket, course, 'film') == NEW
    assert writes_and_closes(signal.SIGUSR1, b'other') == 0
    assert content(bucket, course, 'film') == b'other' + NEW[5:]
    os.close(fd)


@pytest.mark.parametrize('how', ['SIGTERM', pytest.param('a lazy unmount', marks=pytest.mark.long)])
def test_a_mount_ends_though_somebody_publishes(cluster, new_mount, bucket, course, how):
    """Both what is being closed and what is open give it no more than the time of an operation."""
    proxy = MediaProxy(cluster.mongodb.uri)
    slowly(proxy)
    settings = {'mongodb_uri': proxy.uri, 'media_sweep': '0'}
    mount = new_mount(timeout='60s', **settings)
    folder, before = mount.directory / f'regions/europe/media/{course.id}', chunk_ids(bucket)
    closer = run_python('os.ftruncate(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT), 1 << 40); os.closerange(3, 99)', folder / 'film')
    assert zeros_are_on_their_way(bucket, course)
    pid = mount.pid()
    if how == 'SIGTERM':
        fd = os.open(folder / 'other', os.O_WRONLY | os.O_CREAT)
        os.ftruncate(fd, 1 << 40)
        cluster.write_config(mount.config, state_dir=None, timeout='200ms', **settings)
        cluster.run('reload', mount.directory)
        os.kill(pid, signal.SIGTERM)
        closer.wait(60)
    else:
        assert not fuse_mount.detach(mount.directory), 'it is in use'
        assert fuse_mount.detach(mount.directory, lazily=True)
        closer.kill()
        assert closer.wait(60) == -signal.SIGKILL
    assert process.wait_until(lambda: not process.is_alive(pid), 60)
    assert mount.stop() in (None, 0)
    if how == 'SIGTERM':
        errno_of(os.close, fd)
        assert mount.log_file.read_text().count('given up') == 2
    assert content(bucket, course, 'film') is None and content(bucket, course, 'other') is None
    left = {repr(entry['_id']) for entry in uploads(bucket, course)}
    assert chunk_ids(bucket) <= before | left, 'deleted, or left to the sweep'
    proxy.close()


@pytest.mark.long
def test_what_was_given_up_is_deleted_in_turns_and_an_end_waits_for_one(cluster, new_mount, bucket, course):
    """Between two turns leases are renewed. A turn is as long as `timeout`; what is left then is the sweep's."""
    proxy = MediaProxy(cluster.mongodb.uri)
    mount = new_mount(mongodb_uri=proxy.uri, timeout='5s', media_sweep='0')
    deletes = proxy.rule('delete', 'chunks', action='delay', seconds=3)
    closer = run_python('os.ftruncate(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT), 1 << 40); os.closerange(3, 99)',
                        mount.directory / f'regions/europe/media/{course.id}/film')
    assert zeros_are_on_their_way(bucket, course, 1300)
    closer.kill()
    assert process.wait_until(lambda: deletes.seen == 1, 60)
    pid = mount.pid()
    os.kill(pid, signal.SIGTERM)
    assert process.wait_until(lambda: not process.is_alive(pid), 60)
    assert mount.stop() in (None, 0) and deletes.seen < 5
    left, = uploads(bucket, course)
    assert bucket.chunks.find_one({'files_id': left['_id']})
    bucket.chunks.delete_many({'files_id': left['_id'], 'n': {'$lt': 2000}})
    proxy.close()
