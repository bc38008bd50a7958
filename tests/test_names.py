"""Names: what looks like a row's and is none, what no name may be, scratch names of every kind, and what cannot be made
or moved. Whatever is tried, the database has no row more and the daemon lives."""

import contextlib
import ctypes
import json
import os
import shutil
import stat
import uuid

import pytest

from mount_tools import (REGIONAL, entries, errno_of, errors_of, folder_of, folders, ids_in, run, wait_for,
                         write_in_place)

# Look like a row's name, and are none: they never exist and cannot be made.
MISTAKEN = ['01.json', '+1.json', '-1.json', '0.json', '00.json', '1.JSON', '1.Json', '001002.json',
            '274877906944.json', '9223372036854775807.json', '9223372036854775808.json', '18446744073709551617.json',
            '1' * 200 + '.json']
# Mean nothing to the database: scratch names, free to use.
SCRATCH = ['1.json.json', "'; DROP TABLE users;--.json", '%s%n', '%s%n.json', '1.json~', '.1.json.swp', '4913',
           '#1.json#', '.#1.json', 'sedAbC', '.1.json.Xy12Zw', 'tmp.json', '1.jso', '1.jsonx', '1', 'x1.json',
           '1x.json', '1e3.json', '0x10.json', '1 .json', ' 1.json', '1.json ', '1.json\n', '\n', '\t', '"', '\\',
           '\\1.json', '*', '?', '-rf', '--', '$(reboot)', '`id`', '${HOME}', '１.json', '١.json', '1.json\u200b',
           'ünïcödé', '😀.json', '.json', 'json', '...', 'NEW.json', 'a' * 255, 'ü' * 127, '1' * 250+'.jso',
           'con.json', 'null', '1;2.json', "1' OR '1'='1.json", '\u202e1.json', 'e\u0301.json', '\x01\x02\x7f',
           '1.json\\', 'nul\\0.json']
BYTES = [b'\xff', b'\xff\xfe.json', b'1\xc3.json', b'\xc0\xaf', b'\xed\xa0\x80.json', b'\xf8\x88\x80\x80\x80',
         b'a' * 254 + b'\xff']
RESERVED = ['.next-id', '.refused', '.deleted', '.by', '.export.jsonl']


def shown(name):
    """A short id for a parameter."""
    return repr(name)[:30] + ('…' if len(repr(name)) > 30 else '')


@pytest.fixture
def folder(mnt):
    return folder_of(mnt, 'users')


@pytest.fixture
def untouched(sql):
    """Nothing has been written to any shard during the test."""
    def state():
        return [sql(shard, 'SELECT (SELECT count(*) FROM change_log), (SELECT max(rev) FROM change_log), '
                           '(SELECT count(*) FROM request_log), (SELECT count(*) FROM users), '
                           '(SELECT count(*) FROM id_claims)') for shard in ('americas', 'emea', 'apac')]
    before = state()
    yield
    assert state() == before


@pytest.fixture
def untouched_after(sql):
    """untouched_after(): a block in which nothing is written to the shard of europe."""
    @contextlib.contextmanager
    def block():
        state = ('SELECT (SELECT max(rev) FROM change_log), (SELECT count(*) FROM request_log), '
                 '(SELECT count(*) FROM users)')
        before = sql('europe', state)
        yield
        assert sql('europe', state) == before
    return block


@pytest.fixture
def scratch(folder):
    """A path under which a scratch file may be made; what is left of it goes at the end."""
    path = folder / f'scratch-{uuid.uuid4().hex[:8]}'
    yield path
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def listed(folder):
    return {entry.name for entry in entries(folder)}


# ---- names that look like a row's

@pytest.mark.parametrize('name', MISTAKEN, ids=shown)
def test_a_mistaken_name_is_not_there(folder, untouched, name):
    for call in (os.stat, os.lstat, os.unlink, os.listdir, os.readlink):
        assert errno_of(call, folder / name) == 'ENOENT', call
    assert errno_of(os.open, folder / name, os.O_RDONLY) == 'ENOENT'
    assert errno_of(os.truncate, folder / name, 0) == 'ENOENT'


@pytest.mark.parametrize('name', MISTAKEN, ids=shown)
def test_a_mistaken_name_cannot_be_made(mnt, folder, scratch, untouched, name):
    before = listed(folder)
    path = folder / name
    assert errno_of(os.open, path, os.O_CREAT | os.O_WRONLY, 0o644) == 'EINVAL'
    assert errno_of(os.open, path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644) == 'EINVAL'
    line = errors_of(mnt)[-1]
    assert line['errno'] == 'EINVAL' and 'json' in line['message']
    assert line['path'] == f'regions/europe/users/{name}'
    assert errno_of(os.mkdir, path) == 'EPERM'
    assert errno_of(os.symlink, 'target', path) == 'EPERM'
    assert errno_of(os.mknod, path) == 'EPERM'
    scratch.write_text('{}')
    assert errno_of(os.rename, scratch, path) == 'EINVAL'
    assert scratch.read_text() == '{}'
    scratch.unlink()
    assert listed(folder) == before


@pytest.mark.parametrize('name', ['01.json', '1.JSON', '9223372036854775808.json'])
def test_a_mistaken_name_is_explained_to_people(folder, name):
    """What they see: cp and the shell say what errno says, and the last error says how a row is named."""
    done = run('sh', '-c', f'echo "{{}}" > {folder}/{name}')
    assert done.returncode != 0 and b'Invalid argument' in done.stderr
    done = run('cp', folder.parents[2] / 'README', folder / name)
    assert done.returncode != 0 and b'Invalid argument' in done.stderr


def test_mistaken_names_in_every_collection(mnt, untouched):
    for _, _, path in folders(mnt):
        assert errno_of(os.open, path / '007.json', os.O_CREAT | os.O_WRONLY, 0o644) == 'EINVAL'


# ---- names that nothing can have

def test_too_long_names(folder, scratch, untouched):
    for name in ('x' * 256, 'ü' * 128, '1' * 256, '1' * 251 + '.json', 'x' * 4000):
        path = folder / name
        assert errno_of(os.stat, path) == 'ENAMETOOLONG'
        assert errno_of(os.open, path, os.O_CREAT | os.O_WRONLY, 0o644) == 'ENAMETOOLONG'
        for call in (os.mkdir, os.mkfifo, os.unlink, os.rmdir):
            assert errno_of(call, path) == 'ENAMETOOLONG', call
        assert errno_of(os.symlink, 'x', path) == 'ENAMETOOLONG'
        scratch.write_text('mine')
        assert errno_of(os.rename, scratch, path) == 'ENAMETOOLONG'
        assert scratch.read_text() == 'mine'


def test_the_empty_name_and_the_folder_itself(folder, untouched):
    assert errno_of(os.open, '', os.O_CREAT | os.O_WRONLY) == 'ENOENT'
    assert errno_of(os.open, f'{folder}/', os.O_CREAT | os.O_WRONLY) == 'EISDIR'
    assert errno_of(os.mkdir, folder) == 'EEXIST'
    assert errno_of(os.rmdir, f'{folder}/.') == 'EINVAL'
    assert errno_of(os.unlink, folder) in ('EISDIR', 'EPERM')
    assert errno_of(os.stat, folder / '1.json' / '1.json') in ('ENOENT', 'ENOTDIR')


def test_a_row_is_no_folder(mnt, new_user):
    path = new_user().path
    assert errno_of(os.stat, path / 'x') == 'ENOTDIR'
    assert errno_of(os.stat, f'{path}/') == 'ENOTDIR'
    assert errno_of(os.rmdir, path) == 'ENOTDIR'
    assert errno_of(os.mkdir, path) == 'EEXIST'
    assert errno_of(os.listdir, path) == 'ENOTDIR'
    assert errno_of(os.readlink, path) == 'EINVAL'


def test_a_nul_byte_ends_in_the_caller(folder):
    with pytest.raises(ValueError):
        os.stat(f'{folder}/1\0.json')


@pytest.mark.parametrize('name', RESERVED)
def test_reserved_names_cannot_be_made(folder, scratch, untouched, name):
    path = folder / name
    assert errno_of(os.open, path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644) in ('EPERM', 'EEXIST')
    assert errno_of(os.mkdir, path) in ('EPERM', 'EEXIST')
    assert errno_of(os.symlink, 'x', path) in ('EPERM', 'EEXIST')
    assert errno_of(os.mkfifo, path) in ('EPERM', 'EEXIST')
    scratch.write_text('mine')
    assert errno_of(os.rename, scratch, path) in ('EPERM', 'EEXIST', 'EISDIR')
    assert scratch.read_text() == 'mine'
    assert name not in listed(folder)


# ---- scratch names

@pytest.mark.parametrize('name', [*SCRATCH, *BYTES], ids=shown)
def test_a_scratch_name_is_a_file(folder, untouched, name):
    path = os.fsencode(folder) + b'/' + (name if isinstance(name, bytes) else os.fsencode(name))
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o640)
    try:
        os.write(fd, b'no document')
        os.close(fd)
        with open(path, 'rb') as file:
            assert file.read() == b'no document'
        status = os.lstat(path)
        assert stat.S_IMODE(status.st_mode) == 0o640 and status.st_size == 11
        assert os.path.basename(path) in os.listdir(os.fsencode(folder))
        assert errno_of(os.open, path, os.O_CREAT | os.O_EXCL | os.O_WRONLY) == 'EEXIST'
    finally:
        os.unlink(path)
    assert not os.path.lexists(path) and os.path.basename(path) not in os.listdir(os.fsencode(folder))


@pytest.mark.parametrize('name', [*SCRATCH[:12], 'ü' * 127, *BYTES[:3]], ids=shown)
def test_a_scratch_name_is_a_folder_or_a_link(folder, untouched, name):
    path = os.fsencode(folder) + b'/' + (name if isinstance(name, bytes) else os.fsencode(name))
    os.mkdir(path)
    with open(path + b'/01.json', 'wb') as file:
        file.write(b'inside, any name is free')
    assert os.listdir(path) == [b'01.json'] and errno_of(os.rmdir, path) == 'ENOTEMPTY'
    os.unlink(path + b'/01.json')
    os.rmdir(path)
    os.symlink(b'somewhere/else', path)
    assert os.readlink(path) == b'somewhere/else' and os.lstat(path).st_size == 14
    os.unlink(path)
    assert not os.path.lexists(path)


def test_scratch_names_in_every_collection(mnt, untouched):
    for _, _, path in folders(mnt):
        (path / '.swp').write_text('x')
        assert '.swp' in listed(path) and (path / '.swp').read_text() == 'x'
        (path / '.swp').unlink()


def test_scratch_belongs_to_its_mount(folder, scratch, new_mount, untouched):
    scratch.write_text('private')
    other = folder_of(new_mount().directory, 'users') / scratch.name
    assert not os.path.lexists(other) and scratch.name not in os.listdir(other.parent)
    other.write_text('another one')
    assert scratch.read_text() == 'private'


def test_scratch_is_a_file_like_any_other(scratch, untouched):
    scratch.write_bytes(b'0123456789')
    with open(scratch, 'r+b') as file:
        file.seek(5)
        file.write(b'abc')
        file.seek(20)
        file.write(b'end')
    assert scratch.read_bytes() == b'01234abc89' + b'\0' * 10 + b'end'
    with open(scratch, 'ab') as file:
        file.write(b'+')
    os.truncate(scratch, 3)
    assert scratch.read_bytes() == b'012'
    os.chmod(scratch, 0o4711)
    os.utime(scratch, ns=(10 ** 18, 10 ** 18 + 123456000))
    status = os.stat(scratch)
    assert stat.S_IMODE(status.st_mode) == 0o4711 and status.st_mtime_ns == 10 ** 18 + 123456000
    if os.geteuid() == 0:
        os.chown(scratch, 1234, 2345)
        status = os.stat(scratch)
        assert (status.st_uid, status.st_gid) == (1234, 2345)


def test_scratch_is_renamed_within_and_between_folders(mnt, scratch, untouched):
    scratch.write_text('one')
    other = folder_of(mnt, 'courses', 'asia') / scratch.name
    os.rename(scratch, other)
    assert not os.path.lexists(scratch) and other.read_text() == 'one'
    scratch.write_text('two')
    os.rename(other, scratch)
    assert scratch.read_text() == 'one' and not os.path.lexists(other)
    os.mkdir(other)
    (other / 'inside').write_text('three')
    assert errno_of(os.rename, scratch, other) == 'EISDIR'
    assert errno_of(os.rename, other, scratch) == 'ENOTDIR'
    moved = other.with_name(other.name + '-moved')
    os.rename(other, moved)
    assert (moved / 'inside').read_text() == 'three'
    os.rename(scratch, moved / 'inside')
    assert (moved / 'inside').read_text() == 'one'
    shutil.rmtree(moved)


def test_a_folder_is_not_moved_into_itself(scratch, untouched):
    scratch.mkdir()
    (scratch / 'deeper').mkdir()
    assert errno_of(os.rename, scratch, scratch / 'deeper' / 'x') == 'EINVAL'
    assert (scratch / 'deeper').is_dir()


def test_scratch_that_was_removed_lives_while_it_is_open(scratch, untouched):
    with open(scratch, 'w+b') as file:
        file.write(b'still here')
        file.flush()
        scratch.unlink()
        file.seek(0)
        assert file.read() == b'still here' and not os.path.lexists(scratch)


# ---- what cannot be made or moved

def test_hard_links_are_not_possible(new_user, scratch, untouched_after):
    user = new_user()
    scratch.write_text('x')
    with untouched_after():
        assert errno_of(os.link, user.path, scratch.with_name('hard')) == 'EPERM'
        assert errno_of(os.link, scratch, scratch.with_name('hard')) == 'EPERM'
        assert errno_of(os.link, scratch, user.path.with_name('77777002.json')) == 'EPERM'


@pytest.mark.parametrize('name', ['77777002.json', 'new.json'])
def test_a_row_is_a_regular_file_and_nothing_else(folder, scratch, untouched, name):
    path = folder / name
    for call in (os.mkdir, os.mkfifo, os.mknod):
        assert errno_of(call, path) == 'EPERM', call
    assert errno_of(os.symlink, 'x', path) == 'EPERM'
    scratch.mkdir()
    assert errno_of(os.rename, scratch, path) == 'EPERM'
    scratch.rmdir()
    os.symlink('x', scratch)
    assert errno_of(os.rename, scratch, path) == 'EPERM'
    assert os.readlink(scratch) == 'x' and not os.path.lexists(path)


def test_devices_and_sockets_are_not_possible(scratch, untouched):
    for kind in (stat.S_IFIFO, stat.S_IFSOCK):
        assert errno_of(os.mknod, scratch, kind | 0o600) == 'EPERM'
    if os.geteuid() == 0:
        assert errno_of(os.mknod, scratch, stat.S_IFCHR | 0o600, os.makedev(1, 3)) == 'EPERM'
    assert not os.path.lexists(scratch)


def test_a_row_is_renamed_to_no_other_row(mnt, new_user, new_review, untouched_after):
    """Not to a free id, not over another row, not into another collection or to a name that is none."""
    user, other, review = new_user(), new_user(), new_review()
    texts = user.read(), other.read(), review.read()
    with untouched_after():
        for target, code in ((user.path.with_name('77777002.json'), 'EPERM'), (other.path, 'EPERM'),
                             (review.path, 'EPERM'), (user.path.with_name('01.json'), 'EINVAL'),
                             (user.path.with_name('new.json'), 'EPERM'), (mnt / 'x', 'EPERM'),
                             (review.path.with_name('scratch'), 'EPERM'), (user.path.with_name('.by'), 'EISDIR')):
            assert errno_of(os.rename, user.path, target) == code, target
    assert (user.read(), other.read(), review.read()) == texts


def test_a_row_is_not_renamed_onto_itself_with_a_loss(new_user, untouched_after):
    user = new_user()
    with untouched_after():
        assert errno_of(os.rename, user.path, user.path) is None
    assert user.json() == user.document


def renameat2(source, target, flags):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, os.fsencode(source), -100, os.fsencode(target), flags) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4


def test_rename_without_replacing(new_user, scratch, untouched_after):
    user = new_user()
    scratch.write_text(json.dumps({**user.document, 'first_name': 'Other'}))
    with untouched_after():
        assert errno_of(renameat2, scratch, user.path, NOREPLACE) == 'EEXIST'
        assert errno_of(renameat2, scratch, user.path, WHITEOUT) == 'EINVAL'
        assert errno_of(renameat2, scratch, user.path, NOREPLACE | EXCHANGE) == 'EINVAL'
    assert user.json() == user.document and b'Other' in scratch.read_bytes()
    second = scratch.with_name(scratch.name + '2')
    second.write_text('x')
    assert errno_of(renameat2, scratch, second, NOREPLACE) == 'EEXIST'
    second.unlink()
    renameat2(scratch, second, NOREPLACE)
    os.rename(second, scratch)


def test_a_row_that_is_moved_to_a_scratch_name_stays(new_user, scratch, untouched_after):
    user = new_user()
    with untouched_after():
        assert run('mv', user.path, scratch).returncode == 0
        assert json.loads(scratch.read_bytes()) == user.document
    assert wait_for(lambda: run('cat', user.path).stdout == scratch.read_bytes(), 30)
    assert user.id in ids_in(user.path.parent)


def test_a_users_row_is_not_moved_to_a_region_that_is_none(mnt, new_user):
    user = new_user()
    assert errno_of(os.rename, user.path, mnt / 'regions' / user.path.name) == 'EPERM'
    assert errno_of(os.rename, user.path, mnt / 'regions' / 'atlantis' / user.path.name) == 'ENOENT'
    assert user.path.exists()
    assert errno_of(os.rename, folder_of(mnt, 'courses') / '77777002.json', user.path) == 'ENOENT'


@pytest.fixture
def owned(new_course, new_enrollment, new_review, new_payment_method, new_transaction, new_invoice):
    return {'courses': new_course, 'enrollments': new_enrollment, 'reviews': new_review,
            'payment-methods': new_payment_method, 'transactions': new_transaction, 'invoices': new_invoice}


@pytest.mark.parametrize('collection', REGIONAL[1:])
def test_what_a_user_owns_does_not_move_alone(collection, mnt, owned, untouched_after):
    row = owned[collection]()
    with untouched_after():
        assert errno_of(os.rename, row.path, folder_of(mnt, collection, 'africa') / row.path.name) == 'EPERM'
    assert row.path.exists() and not (folder_of(mnt, collection, 'africa') / row.path.name).exists()


def test_odd_names_in_the_words_of_errors(mnt, folder):
    """What is told of them is still one JSON object a line."""
    for name in (b'0\xff.json', b'00"\n.json', b'+1\\.json', b'01.json'):
        errno_of(lambda path: os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644)),
                 os.fsencode(folder) + b'/' + name)
        if os.path.lexists(os.fsencode(folder) + b'/' + name):
            os.unlink(os.fsencode(folder) + b'/' + name)
    assert errors_of(mnt)[-1]['errno'] == 'EINVAL'


def test_names_are_told_apart_to_the_byte(folder, untouched):
    """No folding of case, no normalisation."""
    pairs = [('Scratch', 'scratch'), ('e\u0301', '\u00e9'), ('ſ', 's'), ('a', 'a ')]
    for one, two in pairs:
        (folder / one).write_text('one')
        assert not os.path.lexists(folder / two)
        (folder / two).write_text('two')
        assert (folder / one).read_text() == 'one'
        (folder / one).unlink()
        (folder / two).unlink()


def test_saving_under_a_name_with_an_injection(folder, mnt, untouched):
    """The row's document under a name that is none: a scratch file, and no SQL."""
    path = folder / "1002.json'; DROP TABLE users;--.json"
    write_in_place(path, b'{"email": "x@example.org"}')
    assert path.read_bytes() == b'{"email": "x@example.org"}'
    path.unlink()
    assert errno_of(os.stat, mnt / 'regions' / "europe'; DROP TABLE users;--") == 'ENOENT'
    assert errno_of(os.stat, mnt / 'regions' / '%s%n%s%n') == 'ENOENT'
