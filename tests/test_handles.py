"""Open files: every way to open, write and close a row's file does what it does on a disk, and commits once."""

import contextlib
import ctypes
import errno
import fcntl
import json
import mmap
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from media_tools import bucket, course  # noqa: F401
from saving import Actor, edited, eventually, fails, last_error, refused, set_by_sql, sh, trace


def name_in(sql, row):
    return trace(sql, row).document['first_name']


def python(code, *arguments, check=True):
    """Runs a script in a process of its own, with its arguments in a."""
    command = [sys.executable, '-c', f'import os, sys\na = sys.argv[1:]\n{code}', *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done


# ---- ways to open

def test_read_only(mnt, new_user, sql):
    row = new_user()
    before, text = trace(sql, row), row.read()
    fd = os.open(row.path, os.O_RDONLY)
    assert os.pread(fd, 10, 5) == text[5:15] and os.pread(fd, 10, len(text)) == b'' == os.pread(fd, 1, 1 << 40)
    assert os.lseek(fd, -2, os.SEEK_END) == len(text) - 2 and os.read(fd, 100) == b'}\n'
    with fails(errno.EBADF):
        os.write(fd, b'x')
    with fails(errno.EINVAL):
        os.ftruncate(fd, 0)
    os.fsync(fd)
    os.close(fd)
    assert trace(sql, row) == before


def test_write_only_replaces_bytes_in_place(mnt, new_user, sql):
    row = new_user()
    before, text = trace(sql, row), row.read()
    fd = os.open(row.path, os.O_WRONLY)
    os.pwrite(fd, b'Eve', text.index(b'Ada'))
    with fails(errno.EBADF):
        os.read(fd, 1)
    os.close(fd)
    after = trace(sql, row)
    assert after.document['first_name'] == 'Eve'
    assert (after.changes, after.requests) == (before.changes + 1, before.requests + 1)
    assert row.read().replace(b'Eve', b'Ada')[:300] == text[:300]


def test_read_and_write_through_one_handle(mnt, new_user, sql):
    row = new_user()
    with open(row.path, 'r+') as file:
        document = json.load(file)
        file.seek(0)
        json.dump({**document, 'first_name': 'Rosa'}, file)
        file.truncate()
        file.flush()
        file.seek(0)
        assert json.load(file)['first_name'] == 'Rosa'
        assert os.fstat(file.fileno()).st_size == file.tell()
    assert name_in(sql, row) == 'Rosa'


def test_append(mnt, new_user, sql):
    """Blanks behind the document change nothing; anything else is refused, and the row stays as it was."""
    row = new_user()
    before, text = trace(sql, row), row.read()
    sh('printf " \\n\\n" >> "$1"', row.path)
    assert trace(sql, row) == before and row.read() == text
    done = sh('printf "{}" >> "$1"; cat "$1"', row.path)
    assert done.stdout.encode() == text and trace(sql, row) == before
    assert refused(row).read_bytes() == text + b'{}'


def test_append_goes_to_the_end_wherever_the_handle_is(mnt, new_user, sql):
    row = new_user()
    text = edited(row, first_name='Appended').encode()
    fd = os.open(row.path, os.O_RDWR | os.O_APPEND)
    os.ftruncate(fd, 0)
    for at in range(0, len(text), 64):
        os.lseek(fd, 0, os.SEEK_SET)
        os.write(fd, text[at:at + 64])
    os.close(fd)
    assert name_in(sql, row) == 'Appended'


@pytest.mark.parametrize('kind', ['a row', 'a scratch file', 'a file of media'])
def test_what_does_not_append_stays_where_it_is(new_user, course, kind):
    """Through a descriptor that was opened to append: what a mapping changes, and what is written after F_SETFL."""
    path = new_user().path if kind == 'a row' else course.folder / 'f'
    if kind == 'a scratch file':
        path = new_user().path.with_name(f'mapped {course.id}')
    if kind != 'a row':
        path.write_bytes(b'{"first_name": "Ada"}')
    text = path.read_bytes()
    fd = os.open(path, os.O_RDWR | os.O_APPEND)
    with mmap.mmap(fd, len(text)) as mapped:
        at = text.find(b'Ada')
        mapped[at:at + 3] = b'Map'
        mapped.flush()
    assert os.pread(fd, 2 * len(text), 0) == text.replace(b'Ada', b'Map')
    fcntl.fcntl(fd, fcntl.F_SETFL, 0)
    os.pwrite(fd, b'Eve', at)
    assert os.pread(fd, 2 * len(text), 0) == text.replace(b'Ada', b'Eve')
    os.close(fd)
    eventually(lambda: b'"Eve"' in path.read_bytes())
    if kind == 'a scratch file':
        path.unlink()


def test_append_goes_to_the_end_where_the_kernel_knows_another_size(mnt, new_user, sql):
    """A file that is reopened through a descriptor has the size of what is written, to the kernel that of the revision."""
    row = new_user()
    text = edited(row, first_name='Eve').encode()
    held = os.open(row.path, os.O_RDONLY)
    fd = os.open(f'/proc/self/fd/{held}', os.O_WRONLY | os.O_APPEND | os.O_TRUNC)
    for at in range(0, len(text), 100):
        os.write(fd, text[at:at + 100])
        assert os.fstat(held).st_size == len(row.read())
    os.close(fd)
    os.close(held)
    assert name_in(sql, row) == 'Eve'


def test_truncating_alone_commits_nothing(mnt, new_user, sql):
    row = new_user()
    before, text = trace(sql, row), row.read()
    sh(': > "$1"; true > "$1"; cp /dev/null "$1"; : | tee "$1"; dd if=/dev/null of="$1" 2>&1', row.path)
    os.close(os.open(row.path, os.O_WRONLY | os.O_TRUNC))
    os.close(os.open(row.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC))
    assert trace(sql, row) == before and row.read() == text
    assert not refused(row).exists()


@pytest.mark.parametrize('size', [0, 100, 5000])
def test_truncating_by_path_is_refused(mnt, new_user, sql, size):
    """Nobody can finish the document: there is no handle."""
    row = new_user()
    before, text = trace(sql, row), row.read()
    with fails(errno.EINVAL):
        os.truncate(row.path, size)
    assert trace(sql, row) == before and row.read() == text


def test_truncating_to_the_same_size_is_nothing(mnt, new_user, sql):
    row = new_user()
    before = trace(sql, row)
    os.truncate(row.path, row.path.stat().st_size)
    assert trace(sql, row) == before


def test_past_the_page_cache(mnt, new_user, sql, tmp_path):
    row = new_user()
    text = row.read()
    assert sh('dd if="$1" iflag=direct bs=4096 2>/dev/null', row.path).stdout.encode() == text
    (tmp_path / 'new').write_text(edited(row, first_name='Direct'))
    sh('dd if="$1" of="$2" oflag=direct bs=64k 2>/dev/null', tmp_path / 'new', row.path)
    assert name_in(sql, row) == 'Direct'


# ---- ways to write

@pytest.mark.parametrize('piece', [1, 7, 100])
@pytest.mark.parametrize('order', ['forwards', 'backwards', 'scattered'])
def test_written_in_pieces(mnt, new_user, sql, piece, order):
    row = new_user()
    before, text = trace(sql, row), edited(row, first_name='Piecewise').encode()
    starts = list(range(0, len(text), piece))
    starts = {'forwards': starts, 'backwards': starts[::-1], 'scattered': starts[::2] + starts[1::2]}[order]
    fd = os.open(row.path, os.O_WRONLY | os.O_TRUNC)
    for at in starts:
        os.pwrite(fd, text[at:at + piece], at)
    os.close(fd)
    after = trace(sql, row)
    assert after.document['first_name'] == 'Piecewise' and after.changes == before.changes + 1


def test_a_hole_reads_as_zeros_and_can_be_filled(mnt, new_user, sql):
    row = new_user()
    text = edited(row, first_name='Filled').encode()
    fd = os.open(row.path, os.O_RDWR | os.O_TRUNC)
    os.pwrite(fd, text[400:], 400)
    assert os.pread(fd, 400, 0) == bytes(400) and os.fstat(fd).st_size == len(text)
    with fails(errno.EINVAL):
        os.fsync(fd)
    os.pwrite(fd, text[:400], 0)
    os.close(fd)
    assert name_in(sql, row) == 'Filled'


def test_sizes_both_ways(mnt, new_user, sql):
    row = new_user()
    text = edited(row, first_name='Resized').encode()
    fd = os.open(row.path, os.O_RDWR)
    os.ftruncate(fd, 20)
    assert os.fstat(fd).st_size == 20 and os.pread(fd, 100, 10) == row.read()[10:20]
    os.ftruncate(fd, 9000)
    assert os.pread(fd, 9000, 20) == bytes(8980)
    os.pwrite(fd, text, 0)
    with fails(errno.EINVAL):
        os.fsync(fd)
    os.ftruncate(fd, len(text))
    os.close(fd)
    assert name_in(sql, row) == 'Resized'


def test_nobody_else_sees_the_sizes_of_a_draft(mnt, new_user):
    row = new_user()
    size = row.path.stat().st_size
    with Actor() as other:
        fd = os.open(row.path, os.O_RDWR)
        for length in (0, 5, 100_000):
            os.ftruncate(fd, length)
            assert os.fstat(fd).st_size == length and other.stat(row.path)[6] == size
        os.ftruncate(fd, 0)
        os.close(fd)


def test_shared_mapping(mnt, new_user, sql):
    row = new_user()
    text = row.read()
    fd = os.open(row.path, os.O_RDWR)
    with mmap.mmap(fd, len(text)) as mapped:
        at = mapped.find(b'Ada')
        mapped[at:at + 3] = b'Map'
        mapped.flush()
        os.fsync(fd)
        assert name_in(sql, row) == 'Map' and os.pread(fd, 3, at) == b'Map'
        mapped[at:at + 3] = b'Mop'
    os.close(fd)
    eventually(lambda: name_in(sql, row) == 'Mop')
    eventually(lambda: row.json()['first_name'] == 'Mop')


def test_a_store_after_the_close_is_committed_with_the_last_mapping(mnt, new_user, sql):
    """No descriptor is left that could be flushed (mmap.mmap() keeps one of its own): what ends is the mapping."""
    row = new_user()
    text = row.read()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    fd = os.open(row.path, os.O_RDWR)
    at = libc.mmap(None, ctypes.c_size_t(len(text)), mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, ctypes.c_long(0))
    assert at != ctypes.c_void_p(-1).value
    os.close(fd)
    ctypes.memmove(at + text.find(b'Ada'), b'Eve', 3)
    assert name_in(sql, row) == 'Ada'
    assert libc.munmap(ctypes.c_void_p(at), ctypes.c_size_t(len(text))) == 0
    eventually(lambda: name_in(sql, row) == 'Eve')


def test_a_readers_mapping_keeps_what_it_mapped(mnt, new_user):
    row = new_user()
    text = row.read()
    fd = os.open(row.path, os.O_RDONLY)
    with mmap.mmap(fd, len(text), prot=mmap.PROT_READ) as mapped:
        os.close(fd)
        row.path.write_text(edited(row, first_name='Changed below the mapping'))
        assert mapped[:] == text


# ---- ways to close

def test_every_close_of_the_opener_counts(mnt, new_user, sql):
    """A duplicate's close commits what is there; what is written afterwards is another commit."""
    row = new_user()
    before = trace(sql, row)
    texts = [edited(row, first_name=name).encode() for name in ('One', 'Two')]
    fd = os.open(row.path, os.O_WRONLY | os.O_TRUNC)
    os.write(fd, texts[0])
    os.close(os.dup(fd))
    assert name_in(sql, row) == 'One'
    os.close(os.dup(fd))
    assert trace(sql, row).changes == before.changes + 1
    os.ftruncate(fd, 0)
    os.pwrite(fd, texts[1], 0)
    os.close(fd)
    assert name_in(sql, row) == 'Two' and trace(sql, row).changes == before.changes + 2


def test_an_unfinished_document_is_refused_and_may_be_finished(mnt, new_user, sql):
    row = new_user()
    before = trace(sql, row)
    text = edited(row, first_name='Finished').encode()
    fd = os.open(row.path, os.O_WRONLY | os.O_TRUNC)
    os.write(fd, text[:100])
    for attempt in (lambda: os.close(os.dup(fd)), lambda: os.fsync(fd)):
        with fails(errno.EINVAL):
            attempt()
    assert trace(sql, row) == before
    os.write(fd, text[100:])
    os.close(fd)
    assert name_in(sql, row) == 'Finished'
    assert not refused(row).exists(), 'what was refused has been saved after all'


def test_an_unfinished_document_at_the_end_is_kept(mnt, new_user, sql):
    row = new_user()
    before = trace(sql, row)
    half = row.read()[:100]
    with fails(errno.EINVAL):
        row.path.write_bytes(half)
    assert trace(sql, row) == before and refused(row).read_bytes() == half
    assert last_error(mnt, row)['errno'] == 'EINVAL'


def test_a_child_that_exits_commits_nothing_of_its_parents(mnt, new_user, sql):
    row = new_user()
    before = trace(sql, row)
    text = edited(row, first_name='Whole').encode()
    fd = os.open(row.path, os.O_WRONLY | os.O_TRUNC)
    os.write(fd, text[:100])
    for _ in range(3):
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
    os.write(fd, text[100:])
    child = os.fork()
    if child == 0:
        try:
            os.close(fd)
        except OSError:
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert trace(sql, row) == before, 'a document that is whole is its writer\'s to commit'
    os.close(fd)
    assert name_in(sql, row) == 'Whole' and trace(sql, row).changes == before.changes + 1


def test_a_child_that_writes_commits_at_its_close(mnt, new_user, sql):
    row = new_user()
    before = trace(sql, row)
    done = python('''
fd = os.open(a[0], os.O_WRONLY | os.O_TRUNC)
if os.fork() == 0:
    os.write(fd, a[1].encode())
    os.close(fd)
    os._exit(0)
os.wait()
print(open(a[0]).read())
os.close(fd)
''', row.path, edited(row, first_name='Child'))
    assert json.loads(done.stdout)['first_name'] == 'Child'
    assert trace(sql, row).changes == before.changes + 1


@pytest.mark.parametrize('code', ['os.system("true")', 'os.execvp("true", ["true"])',
                                  'os.fork() or os.execvp("true", ["true"]); os.wait()'])
@pytest.mark.parametrize('whole', [True, False])
def test_a_program_run_while_a_row_is_open(mnt, new_mount, new_user, sql, code, whole):
    """Its start closes the descriptor (O_CLOEXEC) with the kernel's lock on the process held: the daemon must not look
    at more of it than that lock allows."""
    row, mount = new_user(), new_mount()
    text = edited(row, first_name='Before the program')
    script = f'import os, sys\nfile = open(sys.argv[1], "w")\nfile.write(sys.argv[2])\nfile.flush()\n{code}'
    path = mount.directory / row.path.relative_to(mnt)
    command = [sys.executable, '-c', script, path, text if whole else text[:100]]
    writer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        writer.wait(15)
    except subprocess.TimeoutExpired:
        mount.process.kill()  # or nobody could look at that process any more, not even ps
        pytest.fail('the program does not start')
    if whole:
        eventually(lambda: name_in(sql, row) == 'Before the program')
    else:
        assert name_in(sql, row) == 'Ada'


@pytest.mark.parametrize('shell', ['dash', 'bash'])
@pytest.mark.parametrize('script', [
    '(head -n 5 "$2"; echo "  \\"first_name\\": \\"Group\\","; tail -n +7 "$2") > "$1"',
    '{ head -n 5 "$2"; printf "  \\"first_name\\""; printf ": \\"Group\\",\\n"; tail -n +7 "$2"; } > "$1"',
    'exec 3> "$1"; head -n 5 "$2" >&3; echo "  \\"first_name\\": \\"Group\\"," >&3; tail -n +7 "$2" >&3; exec 3>&-',
    'sed "s/Ada/Group/" "$2" > "$1"', 'sed "s/Ada/Group/" "$2" | cat > "$1"', 'sed "s/Ada/Group/" < "$2" | tee "$1"',
    'sed "s/Ada/Group/" "$1" > "$2.new"; cat < "$2.new" 1<> "$1"'])
def test_several_processes_write_one_after_the_other(mnt, new_user, sql, tmp_path, shell, script):
    row = new_user()
    before, old = trace(sql, row), tmp_path / 'old'
    old.write_bytes(row.read())
    command = [shell, '-c', 'set -e; ' + script, shell, row.path, old]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, '')
    after = trace(sql, row)
    assert after.document['first_name'] == 'Group' and after.changes == before.changes + 1
    assert not refused(row).exists()


def test_the_exit_of_a_writer_commits_what_it_left_open(mnt, new_user, sql):
    row = new_user()
    python('fd = os.open(a[0], os.O_WRONLY | os.O_TRUNC); os.write(fd, a[1].encode()); os._exit(0)', row.path,
           edited(row, first_name='Left open'))
    eventually(lambda: name_in(sql, row) == 'Left open')


@pytest.mark.parametrize('whole', [True, False])
def test_a_killed_writer(mnt, new_user, sql, whole):
    """What it has written is committed where it is a document, and kept apart where it is not."""
    row = new_user()
    before = trace(sql, row)
    text = edited(row, first_name='Last words')
    text = text if whole else text[:200]
    with Actor() as writer:
        fd = writer.open(row.path, os.O_WRONLY | os.O_TRUNC)
        writer.write(fd, text)
        writer.kill()
    if whole:
        eventually(lambda: name_in(sql, row) == 'Last words')
    else:
        eventually(lambda: refused(row).exists())
        assert refused(row).read_text() == text and trace(sql, row) == before
        assert row.json()['first_name'] == 'Ada'


def test_an_interrupted_writer(mnt, new_user, sql):
    """Ctrl-C in the middle of a pipeline: cat has written a part, and its close is an error to nobody."""
    row = new_user()
    before = trace(sql, row)
    writer = subprocess.Popen(['sh', '-c', 'exec cat > "$1"', 'sh', row.path], stdin=subprocess.PIPE)
    writer.stdin.write(row.read()[:150])
    writer.stdin.flush()
    eventually(lambda: 'pos:\t150\n' in open(f'/proc/{writer.pid}/fdinfo/1').read())
    writer.send_signal(signal.SIGINT)
    writer.wait()
    writer.stdin.close()
    assert trace(sql, row) == before and row.json()['first_name'] == 'Ada'


# ---- errors that a program sees

@pytest.mark.parametrize('command', ['echo bad > "$1"', 'printf bad > "$1"', 'echo bad | cat > "$1"',
                                     'echo bad | tee "$1"', 'echo bad | dd of="$1"', 'echo "[1,}" > "$1"',
                                     'printf \'{"a": tru}\' > "$1"'])
def test_what_cannot_be_a_document_is_refused_by_write(mnt, new_user, sql, command):
    """Shells and many programs do not look at what close() says."""
    row = new_user()
    before = trace(sql, row)
    done = sh(command, row.path, check=False)
    assert done.returncode != 0 and done.stderr
    assert trace(sql, row) == before and row.json()['first_name'] == 'Ada'


def test_write_says_why_and_goes_on_saying_it(mnt, new_user, sql):
    row = new_user()
    text = edited(row, first_name='Again').encode()
    fd = os.open(row.path, os.O_WRONLY | os.O_TRUNC)
    for attempt in (lambda: os.write(fd, b'{"first_name": oops}'), lambda: os.write(fd, b'more'), lambda: os.fsync(fd)):
        with fails(errno.EINVAL):
            attempt()
    assert 'line 1, column' in last_error(mnt, row)['message'] and 'oops' not in last_error(mnt, row)['message']
    os.ftruncate(fd, 0)
    os.pwrite(fd, text, 0)
    os.close(fd)
    assert name_in(sql, row) == 'Again'


def test_only_what_is_written_in_order_is_judged_by_write(mnt, new_user, sql):
    """Editors that write in place pass through texts that are none."""
    row = new_user()
    text = edited(row, first_name='Alexandrina').encode()
    fd = os.open(row.path, os.O_RDWR)
    os.pwrite(fd, b'!!!', 3)
    os.pwrite(fd, text, 0)
    os.close(fd)
    assert name_in(sql, row) == 'Alexandrina'


def test_close_tells_what_the_database_refused(mnt, new_user):
    row = new_user()
    done = python('''
with open(a[0], 'w') as file:
    file.write(a[1])
''', row.path, edited(row, role='emperor'), check=False)
    assert done.returncode == 1 and os.strerror(errno.EINVAL) in done.stderr


# ---- what happens to the name meanwhile

def test_a_reader_keeps_its_snapshot(mnt, new_user, sql):
    row = new_user()
    text = row.read()
    fds = []
    for n in range(5):
        fds.append((os.open(row.path, os.O_RDONLY), row.read()))
        row.path.write_text(edited(row, first_name='n' * (n + 1) * 7, updated_at=...))
    row.path.unlink()
    for fd, seen in fds:
        assert os.fstat(fd).st_size == len(seen) and os.pread(fd, 10_000, 0) == seen
        os.close(fd)
    assert fds[0][1] == text and len({seen for _, seen in fds}) == 5


def test_a_reader_that_has_read_nothing_yet_keeps_its_snapshot(mnt, new_user):
    """None of its bytes are in the kernel when the row changes."""
    row = new_user()
    with Actor() as reader:
        fd = reader.open(row.path, os.O_RDONLY)
        size = reader.fstat(fd)[6]
        with Actor() as other:
            other.save(row.path, json.dumps({**row.document, 'first_name': 'Long' * 20}))
        text = reader.read(fd, 10_000)
        assert len(text.encode()) == size == reader.fstat(fd)[6] and json.loads(text)['first_name'] == 'Ada'
    assert row.json()['first_name'] == 'Long' * 20


def test_a_handle_outlives_its_name(mnt, new_user, sql):
    row = new_user()
    text = row.read()
    fd = os.open(row.path, os.O_RDONLY)
    row.path.unlink()
    assert os.pread(fd, 10_000, 0) == text and os.fstat(fd).st_size == len(text)
    with fails(errno.ENOENT):
        row.path.stat()
    os.close(fd)


@pytest.mark.parametrize('by', ['itself', 'another'])
def test_a_deleted_row_is_not_made_again_by_an_old_handle(mnt, new_user, sql, by):
    """What was deleted since it was opened stays so: on a disk the bytes go nowhere."""
    row = new_user()
    text = edited(row, first_name='Too late')
    file = open(row.path, 'w')
    file.write(text)
    if by == 'itself':
        row.path.unlink()
        file.close()
    else:
        with Actor() as other:
            other.unlink(row.path)
        with fails(errno.ECANCELED):
            file.close()
        assert refused(row).read_text() == text
    assert trace(sql, row) is None and not row.path.exists()


def test_a_scratch_file_renamed_while_open_goes_on_as_the_row(mnt, new_user, sql):
    row = new_user()
    scratch = row.path.with_name('open.tmp')
    file = open(scratch, 'w')
    file.write(edited(row, first_name='Renamed'))
    file.flush()
    os.rename(scratch, row.path)
    assert name_in(sql, row) == 'Renamed'
    file.seek(0)
    file.truncate()
    file.write(edited(row, first_name='Went on'))
    file.close()
    assert name_in(sql, row) == 'Went on' == row.json()['first_name'] and not scratch.exists()


def test_reopened_through_its_descriptor(mnt, new_user, sql):
    row = new_user()
    text = row.read()
    held = os.open(row.path, os.O_RDONLY)
    for flags in (os.O_RDONLY, os.O_RDWR):
        again = os.open(f'/proc/self/fd/{held}', flags)
        assert os.read(again, 10_000) == text
        os.close(again)
    again = os.open(f'/proc/self/fd/{held}', os.O_WRONLY | os.O_TRUNC)
    os.write(again, edited(row, first_name='Reopened').encode())
    os.close(again)
    assert name_in(sql, row) == 'Reopened' == row.json()['first_name']
    assert os.pread(held, 10_000, 0) == text
    again = os.open(f'/proc/self/fd/{held}', os.O_RDONLY)
    assert os.read(again, 10_000) == text, 'what is reopened is what was open'
    os.close(again)
    os.close(held)


def test_reopened_from_a_path_handle(mnt, new_user, sql):
    """As Samba and virtiofsd do: O_PATH first, then the descriptor's link."""
    row = new_user()
    text = row.read()
    path = os.open(row.path, os.O_PATH)
    fd = os.open(f'/proc/self/fd/{path}', os.O_RDONLY)
    assert os.read(fd, 10_000) == text
    os.close(fd)
    fd = os.open(f'/proc/self/fd/{path}', os.O_RDWR | os.O_TRUNC)
    os.write(fd, edited(row, first_name='By path').encode())
    os.close(fd)
    os.close(path)
    assert name_in(sql, row) == 'By path' == row.json()['first_name']


def test_reopened_from_a_path_handle_after_a_change(mnt, new_user, sql):
    """There is no name to look up again: what is now the row is read, and a save is judged as any other."""
    row = new_user()
    text = edited(row, first_name='By path')
    path = os.open(row.path, os.O_PATH)
    with Actor() as other:
        other.save(row.path, edited(row, first_name='Changed'))
    try:
        fd = os.open(f'/proc/self/fd/{path}', os.O_RDONLY)
        document = json.loads(os.read(fd, 10_000))
        os.close(fd)
        assert document['first_name'] in ('Ada', 'Changed')
        fd = os.open(f'/proc/self/fd/{path}', os.O_RDWR | os.O_TRUNC)
        os.write(fd, text.encode())
        with fails(errno.ECANCELED):
            os.close(fd)
    finally:
        os.close(path)
    assert name_in(sql, row) == 'Changed'


@pytest.fixture(params=['seen', 'unseen'])
def row_of_daemon(request, mnt, cluster, new_mount, new_user, tmp_path, monkeypatch):
    """A row, and its file in a mount whose daemon may see what its callers do in the kernel, or may not trace anybody,
    as with ptrace_scope, a hidden /proc or in a container."""
    row = new_user()
    if request.param == 'seen':
        return row, row.path
    program = tmp_path / cluster.program.name
    program.write_text(f'#!/bin/sh\nexec setpriv --inh-caps=-sys_ptrace --bounding-set=-sys_ptrace -- {cluster.program} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setattr(cluster, 'program', program)
    mount = new_mount()
    capabilities = int(Path(f'/proc/{mount.pid()}/status').read_text().split('CapEff:')[1].split()[0], 16)
    assert not capabilities & 1 << 19, 'CAP_SYS_PTRACE is gone'
    return row, mount.directory / row.path.relative_to(mnt)


def test_a_path_handle_of_a_row_that_changes(row_of_daemon, sql):
    """What has nothing open knows no name to look up again either: it shows the row as it is by now, then that it is gone."""
    row, file = row_of_daemon
    path = os.open(file, os.O_PATH)
    size = os.fstat(path).st_size
    try:
        for name in ('Somebody', 'Somebody else', 'Eve'):
            set_by_sql(sql, row, first_name=name)
            eventually(lambda: os.fstat(path).st_size == size + len(name) - len('Ada'), 60)
            assert os.stat(f'/proc/self/fd/{path}').st_size == os.fstat(path).st_size == file.stat().st_size
            assert os.fstat(path).st_ino == file.stat().st_ino
            assert len(file.read_bytes()) == file.stat().st_size
        os.utime(f'/proc/self/fd/{path}', ns=(0, 1_600_000_000_000_001_000))
        eventually(lambda: os.fstat(path).st_mtime_ns == 1_600_000_000_000_001_000, 60)
        with open(file, 'r+') as writer:  # a draft of its own, saved and closed
            text = writer.read().replace('Eve', 'Written')
            writer.seek(0)
            writer.write(text)
        assert os.fstat(path).st_size == len(text) == file.stat().st_size
        sql(row.region, 'DELETE FROM users WHERE id = %s', [row.id])
        eventually(lambda: not file.exists(), 60)
        for look in (lambda: os.fstat(path), lambda: os.stat(f'/proc/self/fd/{path}'), file.stat):
            with fails(errno.ENOENT):
                look()
    finally:
        os.close(path)


def test_many_drafts_at_once(mnt, new_user, sql):
    rows = [new_user() for _ in range(20)]
    files = [open(row.path, 'r+') for row in rows for _ in range(3)]
    for row, file in zip(rows, files[::3]):
        file.write(edited(row, first_name=f'Row {row.id}'))
        file.truncate()
    for file in files:
        file.close()
    assert all(name_in(sql, row) == f'Row {row.id}' for row in rows)


def test_a_draft_has_the_rows_number_and_time(mnt, new_user):
    """Editors compare them to see whether it is the same file."""
    row = new_user()
    status = row.path.stat()
    fd = os.open(row.path, os.O_RDWR)
    draft = os.fstat(fd)
    assert (draft.st_ino, draft.st_mtime_ns, draft.st_size, draft.st_mode) == \
           (status.st_ino, status.st_mtime_ns, status.st_size, status.st_mode)
    os.pwrite(fd, b'Eve', os.pread(fd, 1000, 0).index(b'Ada'))
    os.close(fd)
    after = row.path.stat()
    assert after.st_ino == status.st_ino and after.st_mtime_ns > status.st_mtime_ns


def test_a_daemon_that_is_stopped_saves_what_is_open(new_mount, new_user, mnt, sql):
    """The end of the daemon closes the files of the mount, as the end of a process closes its own."""
    row, mount = new_user(), new_mount()
    path = mount.directory / row.path.relative_to(mnt)
    fds = [os.open(path, os.O_WRONLY | os.O_TRUNC), os.open(path.with_name('new.tmp'), os.O_WRONLY | os.O_CREAT)]
    os.write(fds[0], edited(row, first_name='Stopped').encode())
    os.kill(mount.pid(), signal.SIGTERM)
    assert eventually(lambda: name_in(sql, row) == 'Stopped')
    for fd in fds:
        with contextlib.suppress(OSError):  # the mount is gone
            os.close(fd)
