"""Scratch files: every other name in a collection is a file, link or folder of this mount alone, in memory, bounded;
and .refused, where the texts lie that a commit refused."""

import ast
import contextlib
import errno
import hashlib
import json
import mmap
import os
import random
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from saving import (RENAME_EXCHANGE, RENAME_NOREPLACE, Actor, edited, eventually, fails, refused, renameat2, sh,
                    trace)

AS_STRANGER = ['setpriv', '--reuid=4243', '--regid=4243', '--clear-groups', '--']
AS_NEIGHBOUR = ['setpriv', '--reuid=4244', '--regid=4244', '--clear-groups', '--']


@pytest.fixture
def folder(mnt, unique):
    """A scratch folder of the test's own, with nothing in it."""
    path = mnt / 'regions/europe/users' / f'scratch-{unique()}'
    path.mkdir()
    yield path
    sh('rm -rf "$1"', path)


def metric(root, name):
    for line in (root / '.campusfs/metrics').read_text().splitlines():
        if line.split()[0] == name:
            return float(line.split()[1])
    raise AssertionError(f'there is no metric {name}')


# ---- files

def test_a_scratch_file_is_a_file(folder):
    path = folder / 'a file'
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(fd, b'0123456789')
    os.pwrite(fd, b'ab', 3)
    os.ftruncate(fd, 8)
    os.pwrite(fd, b'end', 12)
    os.fsync(fd)
    assert os.pread(fd, 100, 0) == b'012ab567\0\0\0\0end' == path.read_bytes()
    status = os.fstat(fd)
    assert (status.st_size, stat.filemode(status.st_mode), status.st_nlink) == (15, '-rw-------', 1)
    os.close(fd)
    with open(path, 'ab') as file:
        file.write(b'+')
    assert path.read_bytes().endswith(b'end+')
    for code, flags in ((errno.EEXIST, os.O_CREAT | os.O_EXCL), (errno.ENOTDIR, os.O_DIRECTORY)):
        with fails(code):
            os.open(path, flags | os.O_RDONLY)
    path.chmod(0o640)
    os.chown(path, 4242, 4242)
    os.utime(path, ns=(0, 1_234_567_890_123_456_000))
    status = path.stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o640, 4242, 4242)
    assert status.st_mtime_ns == 1_234_567_890_123_456_000
    with open(path) as file:
        path.unlink()
        assert len(file.read()) == 16 and not path.exists()


def test_any_bytes_any_size(folder, tmp_path):
    data = random.Random(1).randbytes(20 << 20)
    (tmp_path / 'large').write_bytes(data)
    sh('cp "$1" "$2/large"; dd if="$2/large" of="$2/again" bs=777777 status=none; sync "$2/again"', tmp_path / 'large',
       folder)
    assert hashlib.md5((folder / 'again').read_bytes()).digest() == hashlib.md5(data).digest()
    assert (folder / 'large').stat().st_size == 20 << 20


@pytest.mark.parametrize('seed', [1, 2])
def test_like_a_file_on_a_disk(folder, tmp_path, seed):
    """Random reads, writes, mappings and sizes: the same bytes as on a disk after each."""
    walk = random.Random(seed)
    fds = [os.open(path / 'walk', os.O_RDWR | os.O_CREAT) for path in (folder, tmp_path)]
    for step in range(400):
        at, size = walk.randrange(60_000), walk.randrange(1, 9_000)
        data, action = walk.randbytes(size), walk.choice(['write', 'write', 'size', 'read', 'map', 'reopen', 'append'])
        seen = []
        for fd in fds:
            if action == 'write':
                os.pwrite(fd, data, at)
            elif action == 'append':
                os.lseek(fd, 0, os.SEEK_END)
                os.write(fd, data[:100])
            elif action == 'size':
                os.ftruncate(fd, at)
            elif action == 'map' and os.fstat(fd).st_size > at + size:
                with mmap.mmap(fd, 0) as mapped:
                    mapped[at:at + size] = data
            elif action == 'reopen':
                os.fsync(fd)
            seen.append((os.fstat(fd).st_size, hashlib.md5(os.pread(fd, 1 << 20, 0)).digest()))
        assert seen[0] == seen[1], f'seed {seed}, step {step}: {action} {at} {size}'
    for fd in fds:
        os.close(fd)
    assert (folder / 'walk').read_bytes() == (tmp_path / 'walk').read_bytes()


def test_processes_share_a_scratch_file(folder):
    path = folder / 'shared'
    with Actor() as one, Actor() as two:
        writer, reader = one.open(path, os.O_RDWR | os.O_CREAT), two.open(path, os.O_RDWR | os.O_CREAT)
        for n in range(5):
            one.write(writer, f'line {n}\n')
            assert two.read(reader, 100) == f'line {n}\n'
            assert two.stat(path)[6] == 7 * (n + 1) == two.fstat(reader)[6]
        two.ftruncate(reader, 3)
        assert one.stat(path)[6] == 3 and one.pread(writer, 100, 0) == 'lin'


@pytest.mark.parametrize('name', ['.5.json.swp', '4913', '5.json~', '.#5.json', '#5.json#', 'sedAb3d', '.5.json.Xy1Zw',
                                  'tmp.json', '5.json.tmp', 'a b', 'new\nline', "'; DROP TABLE users;--", '%s%n', '\\',
                                  '*', 'é' * 127, 'x' * 255, '-rf', '.nfs00', '.fuse_hidden', 'NEW.JSON', '5', '.json'])
def test_names(mnt, name, sql):
    path = mnt / 'regions/asia/reviews' / name
    (before,), = sql('asia', 'SELECT count(*) FROM change_log')
    path.write_text('scratch')
    try:
        assert path.read_text() == 'scratch' and name in os.listdir(path.parent)
        assert sql('asia', 'SELECT count(*) FROM change_log') == [(before,)]
    finally:
        path.unlink()
    assert name not in os.listdir(path.parent) and not path.exists()


def test_scratch_files_lie_in_collections_only(mnt):
    for path in (mnt / 'x', mnt / 'regions/x', mnt / 'regions/europe/x', mnt / '.campusfs/x'):
        for make in (path.touch, path.mkdir, lambda path=path: path.symlink_to('y')):
            with pytest.raises(PermissionError):
                make()
    with fails(errno.ENAMETOOLONG):
        (mnt / 'categories' / ('x' * 256)).touch()


# ---- links and folders

def test_symbolic_links(folder, new_user):
    row = new_user()
    link = folder / '.#lock'
    link.symlink_to('ada@host.4711:1795377354')
    assert os.readlink(link) == 'ada@host.4711:1795377354' and link.lstat().st_size == 24
    assert stat.S_ISLNK(link.lstat().st_mode) and not link.exists()
    with fails(errno.EEXIST):
        link.symlink_to('other')
    link.rename(folder / 'renamed')
    os.unlink(folder / 'renamed')
    (folder / 'row').symlink_to(f'../{row.path.name}')
    assert (folder / 'row').read_bytes() == row.read()
    (folder / 'row').write_text(edited(row, first_name='Through a link'))
    assert row.json()['first_name'] == 'Through a link'
    (folder / 'loop').symlink_to('loop')
    with fails(errno.ELOOP):
        (folder / 'loop').read_text()


def test_folders(folder, new_user):
    deep = folder / 'a/b/c'
    deep.mkdir(parents=True)
    (deep / 'file').write_text('deep')
    assert (deep / '5.json').write_text('no row here') and (deep / '5.json').read_text() == 'no row here'
    with fails(errno.ENOTEMPTY):
        (folder / 'a').rmdir()
    with fails(errno.EEXIST):
        deep.mkdir()
    (folder / 'a').rename(folder / 'moved')
    assert (folder / 'moved/b/c/file').read_text() == 'deep' and not (folder / 'a').exists()
    (folder / 'moved/b/c/file').rename(folder / 'up')
    assert sorted(os.listdir(folder)) == ['moved', 'up'] and os.listdir(folder / 'moved/b/c') == ['5.json']
    for code, change in ((errno.EISDIR, (folder / 'moved').unlink), (errno.ENOTDIR, (folder / 'up').rmdir),
                         (errno.EISDIR, lambda: (folder / 'up').rename(folder / 'moved')),
                         (errno.ENOTDIR, lambda: (folder / 'moved').rename(folder / 'up')),
                         (errno.EINVAL, lambda: (folder / 'moved').rename(folder / 'moved/b/into itself'))):
        with fails(code):
            change()
    sh('rm -r "$1"', folder / 'moved')
    assert os.listdir(folder) == ['up']


def test_a_file_from_a_folder_becomes_a_row(folder, new_user, sql):
    """As rsync does with --partial-dir and --delay-updates."""
    row = new_user()
    staged = folder / row.path.name
    staged.write_text(edited(row, first_name='Staged'))
    os.utime(staged, ns=(0, 1_600_000_000_000_001_000))
    staged.rename(row.path)
    after = trace(sql, row)
    assert (after.document['first_name'], after.updated_us) == ('Staged', 1_600_000_000_000_001)
    assert os.listdir(folder) == []
    link, free = folder / 'link', row.path.with_name(row.path.with_name('.next-id').read_text().strip() + '.json')
    link.symlink_to('x')
    for code, what, target in ((errno.ENOTDIR, folder, row.path), (errno.EPERM, folder, free),
                               (errno.EPERM, link, row.path), (errno.EPERM, link, free)):
        with fails(code):
            what.rename(target)
    assert trace(sql, row) == after


def test_renames(folder, new_user):
    row = new_user()
    one, two = folder / 'one', folder / 'two'
    one.write_text('1')
    two.write_text('2')
    with fails(errno.EEXIST):
        renameat2(one, two, RENAME_NOREPLACE)
    with fails(errno.EEXIST):
        renameat2(one, row.path, RENAME_NOREPLACE)
    ino = one.stat().st_ino
    renameat2(one, two, RENAME_EXCHANGE)
    assert one.read_text() == '2' and two.read_text() == '1' and two.stat().st_ino == ino
    with fails(errno.ENOENT):
        renameat2(one, folder / 'none', RENAME_EXCHANGE)
    renameat2(two, one, RENAME_EXCHANGE)
    assert one.read_text() == '1' and two.read_text() == '2' and one.stat().st_ino == ino
    one.rename(two)
    assert two.read_text() == '1' and two.stat().st_ino == ino and not one.exists()
    with fails(errno.ENOENT):
        one.rename(two)
    renameat2(two, folder / 'three', RENAME_NOREPLACE)
    assert (folder / 'three').read_text() == '1'
    assert row.json()['first_name'] == 'Ada'


# ---- this mount's alone, and bounded

def test_unknown_to_the_database_and_to_other_mounts(mnt, new_mount, unique, sql):
    name = f'{unique()}.tmp'
    path = mnt / 'regions/europe/users' / name
    before = sql('europe', 'SELECT (SELECT count(*) FROM change_log), (SELECT count(*) FROM request_log)')
    path.write_text('mine')
    path.with_suffix('.folder').mkdir()
    other = new_mount()
    there = other.directory / path.relative_to(mnt)
    assert not there.exists() and name not in os.listdir(there.parent)
    there.write_text('theirs')
    assert path.read_text() == 'mine' and there.read_text() == 'theirs'
    assert sql('europe', 'SELECT (SELECT count(*) FROM change_log), (SELECT count(*) FROM request_log)') == before
    other.stop()
    other.start(foreground=True)
    assert not there.exists(), 'it went with its mount'
    path.unlink()
    path.with_suffix('.folder').rmdir()


def test_bounded_in_bytes(mnt, new_mount, new_user, sql):
    row = new_user()
    root = new_mount(scratch_size='1MB').directory
    path = root / row.path.relative_to(mnt)
    scratch = path.with_name('scratch')
    assert os.statvfs(root).f_blocks * os.statvfs(root).f_frsize == 1 << 20
    with fails(errno.ENOSPC):
        scratch.write_bytes(bytes(1_100_000))
    scratch.write_bytes(bytes(1_000_000))
    second = path.with_name('second')
    with fails(errno.ENOSPC):
        second.write_bytes(bytes(60_000))
    with fails(errno.ENOSPC):
        os.truncate(scratch, 2_000_000)
    assert os.statvfs(root).f_bavail * os.statvfs(root).f_frsize < 60_000
    assert metric(root, 'campusfs_scratch_bytes') > 900_000
    assert path.read_bytes() == row.read() and path.name in os.listdir(path.parent), 'reading needs no space'
    second.write_bytes(bytes((1 << 20) - int(metric(root, 'campusfs_scratch_bytes')) + second.stat().st_size - 100))
    with fails(errno.ENOSPC):  # what is to be written has to be copied first
        os.open(path, os.O_WRONLY)
    with fails(errno.ENOSPC):
        os.rename(path, second)
    assert second.exists() and path.read_bytes() == row.read(), 'neither has gone'
    scratch.unlink()
    second.unlink(missing_ok=True)
    eventually(lambda: metric(root, 'campusfs_scratch_bytes') < 1000)
    scratch.write_bytes(bytes(500_000))
    path.write_text(edited(row, first_name='Room again'))
    assert trace(sql, row).document['first_name'] == 'Room again'


def test_bounded_in_number(mnt, new_mount, new_user, sql):
    row = new_user()
    root = new_mount(scratch_files=30).directory
    path = root / row.path.relative_to(mnt)
    made = []
    with fails(errno.ENOSPC):
        for n in range(40):
            path.with_name(f'scratch {n}').touch()
            made.append(path.with_name(f'scratch {n}'))
    assert 20 <= len(made) <= 30
    for make in (path.with_name('folder').mkdir, lambda: path.with_name('link').symlink_to('x')):
        with fails(errno.ENOSPC):
            make()
    assert path.read_bytes() == row.read()
    for scratch in made:
        scratch.unlink()
    sh('sed -i s/Ada/Eve/ "$1"', path)
    assert trace(sql, row).document['first_name'] == 'Eve'


MILLION = '''
import collections, os, sys
outcome = collections.Counter()
for n in range(1_000_000):
    try:
        os.close(os.open(f'{sys.argv[1]}/{n}', os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        outcome['made'] += 1
    except OSError as error:
        outcome[error.strerror] += 1
print(dict(outcome))
'''


def resident_mib(mount):
    status = Path(f'/proc/{mount.pid()}/status').read_text()
    return int(status.split('VmRSS:')[1].split()[0]) / 1024


@pytest.mark.long
def test_a_million_scratch_files(mnt, new_mount, new_user, sql, sanitized):
    """With the bounds of a mount that says nothing of them: the first hundred thousand, all others ENOSPC. What there are
    can be listed, rows are read as ever, and saved when one of them is gone; nothing is left of them."""
    row, mount = new_user(), new_mount()
    path = mount.directory / row.path.relative_to(mnt)
    folder = path.with_name('many')
    folder.mkdir()
    assert path.read_bytes() == row.read()
    before = resident_mib(mount)
    made = subprocess.run([sys.executable, '-c', MILLION, folder], check=True, capture_output=True, text=True).stdout
    assert ast.literal_eval(made) == {'made': 99_999, 'No space left on device': 900_001}
    assert sanitized or resident_mib(mount) - before < 128
    assert metric(mount.directory, 'campusfs_scratch_files') == 100_000
    for listed in (['ls', '-U', folder], ['ls', '-lU', '--time-style=+', folder]):
        lines = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.splitlines()
        assert len([line for line in lines if not line.startswith('total')]) == 99_999
    assert path.name in os.listdir(path.parent) and path.read_bytes() == row.read()
    with fails(errno.ENOSPC):  # what is being written lies there as well
        path.write_text(edited(row, first_name='Beside a million'))
    assert trace(sql, row).document['first_name'] == 'Ada'
    (folder / '4711').unlink()
    path.write_text(edited(row, first_name='Beside a million'))
    assert trace(sql, row).document['first_name'] == 'Beside a million'
    (folder / 'room again').touch()
    subprocess.run(['rm', '-r', folder], check=True)
    eventually(lambda: metric(mount.directory, 'campusfs_scratch_files') == 0, 60)
    assert sanitized or resident_mib(mount) - before < 128


def test_nothing_is_left_of_many(mnt, new_mount):
    """Names made, moved over each other and removed take no memory for ever."""
    root = new_mount().directory
    folder = root / 'regions/europe/users'
    files, used = metric(root, 'campusfs_scratch_files'), metric(root, 'campusfs_scratch_bytes')
    for n in range(1000):
        path = folder / f'tmp{n}'
        path.write_bytes(b'x' * 100)
        path.rename(folder / 'tmp')
        if n % 2:
            (folder / 'tmp').unlink()
    (folder / 'tmp').unlink(missing_ok=True)
    eventually(lambda: metric(root, 'campusfs_scratch_files') <= files + 2)
    assert metric(root, 'campusfs_scratch_bytes') <= used + 10_000


def test_modes_keep_others_out(mnt, new_mount):
    root = new_mount(dir_mode='0777').directory
    path = root / 'regions/europe/users/private.tmp'
    sh('exec "$@"', *AS_STRANGER, 'sh', '-c', 'umask 077; echo secret > "$1"', 'sh', path)
    assert path.stat().st_uid == 4243 and path.stat().st_mode & 0o777 == 0o600
    done = sh('exec "$@"', *AS_NEIGHBOUR, 'cat', path, check=False)
    assert done.returncode != 0 and 'Permission denied' in done.stderr
    assert sh('exec "$@"', *AS_STRANGER, 'cat', path).stdout == 'secret\n'
    path.unlink()


# ---- a row's file moved away, as editors do before they write

def test_a_row_moved_away_stays_for_everybody_else(mnt, new_user, sql):
    row = new_user()
    before, text = trace(sql, row), row.read()
    backup = row.path.with_name(f'{row.path.name}~')
    with Actor() as editor:
        editor.rename(row.path, str(backup))
        with fails(errno.ENOENT):
            editor.stat(row.path)
        assert row.read() == text == backup.read_bytes() and row.path.name in os.listdir(row.path.parent)
        assert backup.stat().st_ino != row.path.stat().st_ino
        fd = editor.open(row.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        editor.write(fd, edited(row, first_name='Rewritten'))
        editor.close(fd)
        after = trace(sql, row)
        assert after.document['first_name'] == 'Rewritten' and after.changes == before.changes + 1
        assert backup.read_bytes() == text, 'the backup is what was there'
        editor.unlink(backup)
    assert row.json()['first_name'] == 'Rewritten'


def test_a_row_moved_away_and_back_is_as_it_was(mnt, new_user, sql):
    row = new_user()
    before, text = trace(sql, row), row.read()
    sh('mv "$1" "$1~"; mv "$1~" "$1"', row.path)
    with Actor() as editor:
        editor.rename(row.path, f'{row.path}~')
        with fails(errno.ENOENT):  # what vim tries after a refused save
            editor.unlink(row.path)
        editor.rename(f'{row.path}~', str(row.path))
    assert trace(sql, row) == before and row.read() == text


def test_a_row_moved_away_and_never_put_back_is_not_deleted(mnt, new_user, sql):
    row = new_user()
    before = trace(sql, row)
    sh('mv "$1" "$1.bak"; rm "$1.bak"', row.path)
    assert trace(sql, row) == before and row.json()['first_name'] == 'Ada'


def test_a_row_moved_over_a_scratch_file_replaces_it(mnt, new_user, sql):
    row = new_user()
    before, backup = trace(sql, row), row.path.with_name(f'{row.path.name}~')
    backup.write_text('yesterday')
    sh('mv "$1" "$2"', row.path, backup)
    assert backup.read_bytes() == row.read() and trace(sql, row) == before
    backup.unlink()


# ---- .refused

@pytest.fixture
def rejected(mnt, new_user):
    """A row with a text that was refused, by another process."""
    row = new_user()
    with Actor() as other, fails(errno.EINVAL):
        other.save(row.path, edited(row, role='emperor'))
    return row


def test_refused_texts_are_listed_in_their_folder_only(mnt, rejected):
    names = [name for name in os.listdir(refused(rejected).parent) if name.startswith(str(rejected.id))]
    assert sorted(names) == [f'{rejected.id}.json', f'{rejected.id}.json.error']
    assert '.refused' not in os.listdir(rejected.path.parent)
    assert stat.filemode(refused(rejected).stat().st_mode) == '-rw-------'
    words = refused(rejected).with_name(f'{rejected.id}.json.error').read_text()
    assert 'role is "emperor": must be one of student, instructor, admin' in words and 'EINVAL' in words


@pytest.mark.parametrize('way', ['sed -i s/emperor/admin/ "$2" && mv "$2" "$1"',
                                 'sed s/emperor/admin/ "$2" > "$1" && rm "$2"',
                                 'vim --clean -i NONE -es -c "%s/emperor/admin/" -c wq "$2" && mv "$2" "$1"'])
def test_a_refused_text_is_corrected_and_tried_again(mnt, rejected, sql, way):
    sh(way, rejected.path, refused(rejected), env={'PATH': os.environ['PATH'], 'HOME': '/nonexistent', 'TERM': 'dumb'})
    assert trace(sql, rejected).document['role'] == 'admin' == rejected.json()['role']
    assert [name for name in os.listdir(refused(rejected).parent) if name.startswith(str(rejected.id))] == []


def test_a_refused_text_that_is_no_better_stays(mnt, rejected, sql):
    before = trace(sql, rejected)
    sh('sed -i s/emperor/queen/ "$1"', refused(rejected))
    with fails(errno.EINVAL):
        refused(rejected).rename(rejected.path)
    assert '"queen"' in refused(rejected).read_text() and trace(sql, rejected) == before
    assert '"queen"' in refused(rejected).with_name(f'{rejected.id}.json.error').read_text()


def test_a_refused_new_row(mnt, unique, sql):
    folder = mnt / 'regions/africa/users'
    name = unique()
    with fails(errno.EINVAL):
        (folder / 'new.json').write_text(json.dumps({'email': 'x', 'username': name, 'first_name': 'New'}))
    script = 'cd "$1" && sed -i "s/\\"x\\"/\\"$2@example.org\\"/" .refused/new.json && mv .refused/new.json new.json'
    sh(script, folder, name)
    assert sql('africa', 'SELECT count(*) FROM users WHERE username = %s', [name]) == [(1,)]
    assert 'new.json' not in os.listdir(folder / '.refused')


def test_rm_discards_a_refused_text_with_its_words(mnt, rejected):
    refused(rejected).unlink()
    assert [name for name in os.listdir(refused(rejected).parent) if name.startswith(str(rejected.id))] == []
    with pytest.raises(PermissionError):
        refused(rejected).parent.rmdir()


def test_texts_of_different_processes_are_kept_beside_each_other(mnt, rejected):
    for role in ('queen', 'king'):
        with Actor() as other, fails(errno.EINVAL):
            other.save(rejected.path, edited(rejected, role=role))
    files = [path for path in refused(rejected).parent.glob(f'{rejected.id}.json*') if path.suffix != '.error']
    kept = {path.name: json.loads(path.read_text())['role'] for path in files}
    assert set(kept.values()) == {'emperor', 'queen', 'king'} and kept[f'{rejected.id}.json'] == 'king'
    for name, role in kept.items():
        assert f'"{role}"' in refused(rejected).with_name(f'{name}.error').read_text(), 'each with its own words'


def test_one_process_has_one_text(mnt, new_user):
    row = new_user()
    for role in ('queen', 'king'):
        with fails(errno.EINVAL):
            row.path.write_text(edited(row, role=role))
    assert '"king"' in refused(row).read_text()
    assert len(list(refused(row).parent.glob(f'{row.id}.json*'))) == 2


def test_refused_texts_are_bounded_in_number(mnt, new_mount, new_user):
    rows = [new_user() for _ in range(5)]
    root = new_mount(refused_files=3).directory
    paths = [root / row.path.relative_to(mnt) for row in rows]
    for row, path in zip(rows, paths):
        with fails(errno.EINVAL):
            path.write_text(edited(row, role='emperor'))
    names = sorted(os.listdir(paths[0].parent / '.refused'))
    assert names == sorted(f'{path.name}{end}' for path in paths[2:] for end in ('', '.error')), 'the oldest went first'


def test_refused_texts_are_bounded_in_bytes(mnt, new_mount, new_course):
    rows = [new_course() for _ in range(3)]
    root = new_mount(refused_size='100kB').directory
    paths = [root / row.path.relative_to(mnt) for row in rows]
    for row, path in zip(rows, paths):
        with fails(errno.EINVAL):
            path.write_text(edited(row, level='hard', description='x' * 45_000))
    names = [name for name in os.listdir(paths[0].parent / '.refused') if not name.endswith('.error')]
    assert sorted(names) == sorted(path.name for path in paths[1:])


def test_refused_texts_are_their_writers_alone(mnt, new_mount, new_user):
    row = new_user()
    path = new_mount(dir_mode='0777', file_mode='0666').directory / row.path.relative_to(mnt)
    for account, role in ((AS_STRANGER, 'queen'), (AS_NEIGHBOUR, 'king')):
        done = sh('exec "$@"', *account, 'sed', '-i', f's/student/{role}/', path, check=False)
        assert done.returncode != 0
    texts = {file.stat().st_uid: file for file in (path.parent / '.refused').glob(f'{row.id}.json*')
             if not file.name.endswith('.error')}
    assert set(texts) == {4243, 4244} and '"queen"' in texts[4243].read_text()
    for command in ('cat "$1"', 'cat "$1.error"', 'echo x > "$1"', 'rm -f "$1"', 'mv "$1" "${1%/*}/mine"',
                    'mv "$1" "$2"'):
        done = sh('exec "$@"', *AS_NEIGHBOUR, 'sh', '-c', command, 'sh', texts[4243], path, check=False)
        assert done.returncode != 0, command
    assert '"queen"' in sh('exec "$@"', *AS_STRANGER, 'cat', texts[4243]).stdout
    assert sh('exec "$@"', *AS_STRANGER, 'cat', f'{texts[4243]}.error').stdout


# ---- what is left behind

LEAVE = '''
import os, sys
open(sys.argv[1], 'w').write('left')
os.mkdir(sys.argv[1] + '.d')
open(sys.argv[1] + '.d/inside', 'w').close()
os.symlink('left', sys.argv[1] + '.l')
print('made', flush=True)
sys.stdin.read()
'''


def test_what_a_dead_process_left_is_swept(new_mount):
    """After scratch_keep; what a living one made, what is open and what was touched meanwhile stays."""
    root = new_mount(scratch_keep='1s').directory
    folder = root / 'regions/europe/users'
    left, kept = folder / 'left.swp', folder / 'kept.swp'
    makers = [subprocess.Popen([sys.executable, '-c', LEAVE, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               text=True) for path in (left, kept)]
    for maker in makers:
        assert maker.stdout.readline() == 'made\n'
    opened, mine, touched = folder / 'opened.swp', folder / 'mine.swp', folder / 'touched.swp'
    subprocess.run(['sh', '-c', f'echo > {touched}'], check=True)
    touches = []

    def touch():
        touches.append(time.monotonic())
        with contextlib.suppress(FileNotFoundError):
            os.utime(touched)
    opener = subprocess.Popen(['sh', '-c', f'echo > {opened}; echo; read end'], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert opener.stdout.readline() == b'\n'
    mine.write_text('')
    with open(opened, encoding='utf-8'):
        opener.communicate(b'\n')
        names = {name for name in os.listdir(folder) if 'swp' in name}
        assert names == {f'{path.name}{end}' for path in (left, kept) for end in ('', '.d', '.l')} | {
            opened.name, mine.name, touched.name}
        makers[0].communicate('')
        assert eventually(lambda: touch() or not [name for name in os.listdir(folder) if name.startswith('left')])
        for _ in range(15):
            touch()
            time.sleep(0.1)
        assert {kept.name, opened.name, mine.name} <= set(os.listdir(folder))
        pauses = [after - before for before, after in zip(touches, touches[1:])]
        stayed = touched.exists()
        assert stayed or max(pauses) > 0.8, 'a machine that stands still for a second has let it go'
        touched.unlink(missing_ok=True)
    assert eventually(lambda: opened.name not in os.listdir(folder))
    assert metric(root, 'campusfs_scratch_swept_total') == 5 + (not stayed)
    makers[1].communicate('')
    assert eventually(lambda: not [name for name in os.listdir(folder) if name.startswith('kept')])
    assert mine.exists()


def test_refused_texts_are_not_swept(new_mount, new_user, mnt):
    root = new_mount(scratch_keep='1s').directory
    path = root / new_user().path.relative_to(mnt)
    subprocess.run(['sh', '-c', f'echo "{{}}" > {path}'], check=False, stderr=subprocess.DEVNULL)
    kept = path.parent / '.refused' / path.name
    assert kept.exists()
    time.sleep(2.5)
    os.listdir(path.parent)
    assert kept.exists()
