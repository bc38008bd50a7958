"""flock() and fcntl() locks on rows: they hold between programs that have different revisions or drafts of a row open."""

import errno
import fcntl
import os
import select
import signal
import subprocess
import sys
import time

import pytest

from media_tools import bucket, course  # noqa: F401
from mount_tools import errno_of, wait_for

pytestmark = pytest.mark.usefixtures('mnt')

HOLDER = '''
import fcntl, os, sys
path, kind, how = sys.argv[1:4]
fd = os.open(path, os.O_RDWR if how == 'write' else os.O_RDONLY)
if kind == 'flock':
    fcntl.flock(fd, fcntl.LOCK_EX if how == 'write' else fcntl.LOCK_SH)
else:
    fcntl.lockf(fd, fcntl.LOCK_EX if how == 'write' else fcntl.LOCK_SH, *map(int, sys.argv[4:]))
print('held', flush=True)
sys.stdin.read()
'''


class Holder:
    """A process that takes a lock, says so, and keeps it until it is let go."""

    def __init__(self, path, kind, how, *span):
        self.process = subprocess.Popen([sys.executable, '-c', HOLDER, path, kind, how, *map(str, span)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        assert self.process.stdout.readline() == 'held\n'
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


@pytest.fixture
def opened():
    fds = []

    def open_file(path, flags=os.O_RDWR):
        fds.append(os.open(path, flags))
        return fds[-1]
    yield open_file
    for fd in fds:
        os.close(fd)


def locked(fd, kind, how=fcntl.LOCK_EX, *span):
    return errno_of(fcntl.flock if kind == 'flock' else fcntl.lockf, fd, how | fcntl.LOCK_NB, *span)


@pytest.mark.parametrize('kind', ['flock', 'fcntl'])
@pytest.mark.parametrize('held, wanted, both', [('write', 'write', False), ('write', 'read', False),
                                                ('read', 'write', False), ('read', 'read', True)])
def test_between_two_programs(new_user, opened, kind, held, wanted, both):
    """Writers have drafts of their own, readers the revision: all of one row."""
    path = new_user().path
    fd = opened(path, os.O_RDWR if wanted == 'write' else os.O_RDONLY)
    how = fcntl.LOCK_EX if wanted == 'write' else fcntl.LOCK_SH
    with Holder(path, kind, held):
        assert locked(fd, kind, how) == (None if both else 'EAGAIN')
    assert wait_for(lambda: locked(fd, kind, how) is None, 30)


@pytest.mark.parametrize('kind', ['flock', 'fcntl'])
def test_whatever_the_revision(new_user, opened, sql, kind):
    row = new_user()
    fd = opened(row.path, os.O_RDONLY)
    assert locked(fd, kind, fcntl.LOCK_SH) is None
    sql(row.region, "UPDATE users SET first_name = 'Moved' WHERE id = %s", (row.id,))
    assert wait_for(lambda: b'Moved' in row.read(), 30)
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run([sys.executable, '-c', HOLDER, row.path, kind, 'write'], stdin=subprocess.DEVNULL, timeout=1,
                       check=False)


def test_other_rows_and_kinds_are_free(new_user, opened):
    one, two = new_user().path, new_user().path
    with Holder(one, 'flock', 'write'), Holder(one, 'fcntl', 'write'):
        fd = opened(two)
        assert locked(fd, 'flock') is None and locked(fd, 'fcntl') is None


def test_ranges(new_user, opened):
    """fcntl() locks bytes; a lock inside an own one cuts it, and what sticks out stays."""
    path = new_user().path
    fd = opened(path)
    with Holder(path, 'fcntl', 'write', 10, 0):
        assert locked(fd, 'fcntl', fcntl.LOCK_EX, 10, 10) is None
        assert locked(fd, 'fcntl', fcntl.LOCK_EX, 1, 9) == 'EAGAIN'
        assert locked(fd, 'fcntl', fcntl.LOCK_EX, 0, 20) is None
    fcntl.lockf(fd, fcntl.LOCK_UN)
    fcntl.lockf(fd, fcntl.LOCK_EX, 30, 0)
    fcntl.lockf(fd, fcntl.LOCK_UN, 10, 10)
    for start, free in ((0, False), (9, False), (10, True), (19, True), (20, False), (29, False), (30, True)):
        probe = subprocess.run([sys.executable, '-c', 'import fcntl, os, sys\nfd = os.open(sys.argv[1], os.O_RDWR)\n'
                                'fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(sys.argv[2]))', path, str(start)],
                               capture_output=True, check=False)
        assert (probe.returncode == 0) == free, (start, probe.stderr)


def test_who_holds_it(new_user, opened):
    import struct
    path = new_user().path
    fd = opened(path)
    with Holder(path, 'fcntl', 'write', 7, 3) as holder:
        asked = struct.pack('hhqqi4x', fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, start, length, pid = struct.unpack('hhqqi4x', fcntl.fcntl(fd, fcntl.F_GETLK, asked))
        assert (kind, start, length, pid) == (fcntl.F_WRLCK, 3, 7, holder.process.pid)


def test_flock_1(new_user, tmp_path):
    """The command: twenty at once, each adds one under the lock."""
    path, counter = new_user().path, tmp_path / 'counter'
    counter.write_text('0')
    script = f'flock {path} sh -c "n=\\$(cat {counter}); sleep 0.01; echo \\$((n + 1)) > {counter}"'
    running = [subprocess.Popen(['sh', '-c', script]) for _ in range(20)]
    assert [process.wait(60) for process in running] == [0] * 20
    assert counter.read_text() == '20\n'


@pytest.mark.parametrize('kind', ['flock', 'fcntl'])
def test_a_wait_ends_with_the_lock(new_user, kind):
    path = new_user().path
    with Holder(path, kind, 'write'):
        waiting = Holder(path, kind, 'write')
        time.sleep(0.3)
        assert waiting.process.poll() is None
    with waiting:
        pass


@pytest.mark.parametrize('kind', ['flock', 'fcntl'])
def test_a_wait_ends_with_an_unlock(new_user, opened, kind):
    """Also of a holder who keeps the file open."""
    path = new_user().path
    fd = opened(path)
    assert locked(fd, kind) is None
    waiting = Holder(path, kind, 'write')
    time.sleep(0.3)
    assert waiting.process.poll() is None
    (fcntl.flock if kind == 'flock' else fcntl.lockf)(fd, fcntl.LOCK_UN)
    if not select.select([waiting.process.stdout], [], [], 60)[0]:
        waiting.process.kill()
    with waiting:
        pass


@pytest.mark.parametrize('kind', ['flock', 'fcntl'])
@pytest.mark.parametrize('signum', [signal.SIGTERM, signal.SIGKILL])
def test_a_wait_ends_by_a_signal(new_user, opened, kind, signum):
    path = new_user().path
    with Holder(path, kind, 'write'):
        waiting = Holder(path, kind, 'write').process
        time.sleep(0.5)
        waiting.send_signal(signum)
        assert waiting.wait(60) == -signum
        waiting.stdin.close()
        waiting.stdout.close()
    fd = opened(path)
    assert wait_for(lambda: locked(fd, kind) is None, 30)  # nobody was left in line to get it


@pytest.mark.parametrize('kind', ['flock', 'fcntl'])
@pytest.mark.parametrize('how', ['read', 'write'])
def test_a_killed_holder_leaves_nothing(new_user, opened, kind, how):
    path = new_user().path
    holder = Holder(path, kind, how)
    with holder:
        holder.process.kill()
        holder.process.wait(60)
    fd = opened(path)
    assert wait_for(lambda: locked(fd, kind) is None, 30)


def test_fcntl_locks_go_with_any_close(new_user, opened):
    """As POSIX has it: a process that closes one of its descriptors of the file has no locks on it any more."""
    path = new_user().path
    fd, other = opened(path), os.open(path, os.O_RDWR)
    fcntl.lockf(fd, fcntl.LOCK_EX)
    os.close(other)
    with Holder(path, 'fcntl', 'write'):
        pass


def test_a_lock_survives_a_save(new_user, opened, sql):
    """What is locked is the row: the writer's own save does not let others in."""
    row = new_user()
    fd = opened(row.path)
    fcntl.flock(fd, fcntl.LOCK_EX)
    text = row.read().replace(b'"Ada"', b'"Eve"')
    os.pwrite(fd, text, 0)
    os.fsync(fd)
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run([sys.executable, '-c', HOLDER, row.path, 'flock', 'write'], stdin=subprocess.DEVNULL, timeout=1,
                       check=False)
    assert row.json()['first_name'] == 'Eve'


WAITER = '''
import fcntl, os, sys
first, second, start = sys.argv[1:4]
one, two = os.open(first, os.O_RDWR), os.open(second, os.O_RDWR)
fcntl.lockf(one, fcntl.LOCK_EX, 1, int(start))
print('held', flush=True)
sys.stdin.readline()
try:
    fcntl.lockf(two, fcntl.LOCK_EX, 1, int(start))
    print('got', flush=True)
except OSError as error:
    print(error.errno, flush=True)
'''


@pytest.mark.parametrize('processes', [2, 3, 5])
def test_a_circle_of_waits_is_a_deadlock(new_user, processes):
    """fcntl() only: who would close the circle is told EDEADLK, and what is his goes when he does; all others get theirs."""
    paths = [new_user().path for _ in range(processes)]
    running = [subprocess.Popen([sys.executable, '-c', WAITER, paths[i], paths[(i + 1) % processes], '7'],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for i in range(processes)]
    try:
        for process in running:
            assert process.stdout.readline() == 'held\n'
        for process in running:
            process.stdin.write('\n')
            process.stdin.flush()
        answers = sorted(process.communicate(timeout=30)[0] for process in running)
        assert answers == sorted([f'{errno.EDEADLK}\n'] + ['got\n'] * (processes - 1))
    finally:
        for process in running:
            process.kill()
            process.wait()
            process.stdout.close()
            process.stdin.close()


def test_waits_that_form_no_circle_are_none(new_user):
    """Two wait for the same holder, one of them with a lock that nobody waits for."""
    paths = [new_user().path for _ in range(3)]
    with Holder(paths[0], 'fcntl', 'write'):
        waiting = [subprocess.Popen([sys.executable, '-c', WAITER, paths[i], paths[0], '0'],
                                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for i in (1, 2)]
        for process in waiting:
            process.stdin.write('\n')
            process.stdin.flush()
            assert process.stdout.readline() == 'held\n'
        time.sleep(0.3)
        assert [process.poll() for process in waiting] == [None, None]
    assert [process.communicate(timeout=30)[0] for process in waiting] == ['got\n'] * 2


def test_scratch_files_are_locked_too(mnt, new_user, opened):
    path = new_user().path.with_name('lock.tmp')
    path.write_text('')
    try:
        fd = opened(path)
        with Holder(path, 'flock', 'write'):
            assert locked(fd, 'flock') == 'EAGAIN'
        assert wait_for(lambda: locked(fd, 'flock') is None, 30)
    finally:
        path.unlink()


@pytest.mark.parametrize('kind', ['flock', 'fcntl'])
def test_files_of_media_are_locked_too(course, opened, kind):
    """Between readers and writers, each of whom writes a draft of his own; and a lock ends with who took it."""
    path = course.folder / 'film'
    path.write_bytes(b'x')
    reader, writer = opened(path, os.O_RDONLY), opened(path)
    with Holder(path, kind, 'write'):
        assert locked(writer, kind) == 'EAGAIN' == locked(reader, kind, fcntl.LOCK_SH)
    assert wait_for(lambda: locked(writer, kind) is None, 30)
    (fcntl.flock if kind == 'flock' else fcntl.lockf)(writer, fcntl.LOCK_UN)
    with Holder(path, kind, 'read'):
        assert locked(writer, kind) == 'EAGAIN'
    assert wait_for(lambda: locked(writer, kind) is None, 30)


def test_a_lock_file_that_nobody_else_sees_yet(course):
    """`flock media/5001/.lock`: each of two makes it, and only one may hold it."""
    path = course.folder / 'lock'
    made = os.open(path, os.O_RDWR | os.O_CREAT)
    number = os.fstat(made).st_ino
    fcntl.flock(made, fcntl.LOCK_EX)
    try:
        script = 'import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT), fcntl.LOCK_EX | fcntl.LOCK_NB)'
        other = subprocess.run([sys.executable, '-c', script, path], stderr=subprocess.PIPE, text=True)
        assert 'BlockingIOError' in other.stderr
    finally:
        os.close(made)
    assert path.stat().st_ino == number, 'its number is the file\'s from the beginning'
    with open(path, 'rb') as file:
        assert locked(file.fileno(), 'flock') is None


INTERRUPTED = '''
import fcntl, os, signal, sys
class Alarm(Exception): pass
def alarm(*_): raise Alarm
signal.signal(signal.SIGALRM, alarm)
fd = os.open(sys.argv[1], os.O_RDWR)
for round in range(2000):
    try:
        signal.setitimer(signal.ITIMER_REAL, 5e-6 * (1 + round % 80), 0.02)
        fcntl.flock(fd, fcntl.LOCK_EX)
    except Alarm:
        pass
    try:
        signal.setitimer(signal.ITIMER_REAL, 0)
    except Alarm:
        pass
'''


def test_a_signal_ends_a_wait_that_has_hardly_begun(new_user):
    """It comes once, and before the request stands in line it finds nobody there."""
    path = new_user().path
    with Holder(path, 'flock', 'write'):
        waiting = subprocess.Popen([sys.executable, '-c', INTERRUPTED, path])
        try:
            ended = wait_for(lambda: waiting.poll() is not None, 60)
        finally:
            waiting.kill()
    waiting.wait(60)
    assert ended, 'it waits, and no signal reaches it'
    assert waiting.returncode == 0


@pytest.mark.long
def test_locks_are_bounded(new_mount, new_user, mnt):
    """65,536 of all files of a mount; one more is ENOLCK, and one that goes makes room."""
    folder = (new_mount().directory / new_user().path.relative_to(mnt)).parent
    fds = [os.open(folder / f'locked {n}', os.O_RDWR | os.O_CREAT) for n in range(64)]
    fcntl.lockf(fds[0], fcntl.LOCK_EX | fcntl.LOCK_NB, 3, 5_000)
    for n in range(1024):
        for fd in fds[n == 0:]:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 2 * n)
    assert locked(fds[0], 'fcntl', fcntl.LOCK_EX, 1, 10_000) == 'ENOLCK' == locked(fds[0], 'flock')
    assert errno_of(fcntl.lockf, fds[0], fcntl.LOCK_UN, 1, 5_001) == 'ENOLCK', 'of one lock two would be left'
    fcntl.lockf(fds[1], fcntl.LOCK_UN, 1, 0)
    fcntl.lockf(fds[0], fcntl.LOCK_UN, 1, 5_001)
    fcntl.lockf(fds[1], fcntl.LOCK_UN, 1, 2)
    assert locked(fds[0], 'fcntl', fcntl.LOCK_EX, 1, 10_000) is None
    for fd in fds[1:]:
        os.close(fd)
    for n in range(1024):
        fcntl.lockf(fds[0], fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 20_000 + 2 * n)
    os.close(fds[0])


def test_a_mount_ends_with_somebody_waiting(new_mount, new_user, mnt):
    mount = new_mount()
    path = mount.directory / new_user().path.relative_to(mnt)
    first = Holder(path, 'flock', 'write')
    with first:
        waiting = Holder(path, 'flock', 'write')
        time.sleep(0.3)
        os.kill(mount.pid(), signal.SIGTERM)
        assert wait_for(lambda: mount.pid() is None, 30)
        waiting.process.kill()
        waiting.process.communicate(timeout=60)
