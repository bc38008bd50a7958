"""`.by/<field>/<value>/<id>.json`: links to the rows with a value of an indexed field. The fields, values and rows are those
of SQL, whatever a value is made of; a change is followed; nothing can be made there; the kernel's numbers are given back."""

import ctypes
import errno
import os
import stat
import threading

import pytest
from mount_tools import Folder, entries, errno_of, errors_of, folder_of, metrics, run, wait_for, write_in_place
from saving import TABLES, edited, eventually

FIELDS = {
    'users': 'country email role status username',
    'courses': 'category_id instructor_id slug status',
    'enrollments': 'course_id status user_id',
    'reviews': 'course_id user_id',
    'payment-methods': 'expires_on token user_id',
    'transactions': 'course_id gateway_reference payment_method_id status user_id',
    'invoices': 'number status transaction_id',
    'categories': 'parent_id slug',
}
HOSTILE = ["a/b", '/', '50%', '%', '%2F', '%41', '.hidden', '..', '.', '...', 'a.b', 'line\nbreak', '\t', ' ', 'ünïcödé', '😀',
           "'; DROP TABLE users;--", '$1', '\\', '*', '-rf', 'x' * 200, 'ü' * 127, '/' * 85]
TOO_LONG = ['ü' * 128, '/' * 86]  # 256 and 258 bytes
DROPS_DENTRIES = 32 | 2 | 4  # MS_REMOUNT | MS_NOSUID | MS_NODEV: on its way the kernel forgets what nobody uses


def name_of(value):
    """A value as docs/finding.md says its folder is named."""
    name = value.replace('%', '%25').replace('/', '%2F')
    return '%2E' + name[1:] if name.startswith('.') else name or '%'


def by(mnt, collection, *names, region='europe'):
    return folder_of(mnt, collection, region).joinpath('.by', *names)


def rows_in(path):
    """The ids of the links in a folder, in its order."""
    found = entries(path)
    assert {entry.type for entry in found} <= {'link'}
    return [int(entry.name.removesuffix('.json')) for entry in found]


def values_in(path):
    found = entries(path)
    assert {entry.type for entry in found} <= {'folder'}
    return [entry.name for entry in found]


@pytest.fixture
def tokens(sql, new_user, replayed):
    """tokens(values): payment methods of a new user with these tokens; the user, and ids by token."""
    def make(values):
        user = new_user()
        rows = sql('europe', 'INSERT INTO payment_methods (region, user_id, token) '
                             'SELECT 3, %s, unnest(%s::text[]) RETURNING token, id', (user.id, values))
        made.append(user.id)
        replayed('europe')
        return user, dict(rows)
    made = []
    yield make
    sql('europe', 'DELETE FROM payment_methods WHERE user_id = ANY (%s)', (made,))


# ---- what is there

@pytest.mark.parametrize('collection', FIELDS)
def test_fields_values_and_rows_are_those_of_sql(sql, mnt, replayed, collection):
    where, region = ('americas', 0) if collection == 'categories' else ('europe', 3)
    replayed(where)
    table = TABLES.get(collection, collection)
    assert values_in(by(mnt, collection)) == FIELDS[collection].split()
    for field in FIELDS[collection].split():
        part = ('user_profiles', 'user_id') if field == 'country' else (table, 'id')
        known = dict(sql(where, f'SELECT {field}::text, array_agg({part[1]} ORDER BY {part[1]}) FROM {part[0]} '
                                f'WHERE region = %s AND {field} IS NOT NULL GROUP BY 1', (region,)))
        names = values_in(by(mnt, collection, field))
        assert len(names) == len(set(names))
        known = {value: ids for value, ids in known.items() if len(os.fsencode(name_of(value))) <= 255}
        assert set(names) == {name_of(value) for value in known}, field
        for value in list(known)[:6]:
            folder = by(mnt, collection, field, name_of(value))
            assert rows_in(folder) == known[value], (field, value)
            link = folder / f'{known[value][0]}.json'
            assert os.readlink(link) == f'../../../{known[value][0]}.json'
            assert link.read_bytes() == (folder_of(mnt, collection) / link.name).read_bytes()
        assert errno_of(os.stat, by(mnt, collection, field, '7' * 18)) == 'ENOENT'


def test_it_is_never_listed_and_others_have_none(mnt):
    assert '.by' not in os.listdir(folder_of(mnt, 'users'))
    assert not by(mnt, 'preferences').exists()
    assert errno_of(os.mkdir, by(mnt, 'preferences')) == 'EPERM'
    assert not (mnt / 'regions/europe/.by').exists() and not by(mnt, 'users', 'last_name').exists()


def test_links_are_one_inode_a_row_and_folders_are_for_who_reads_the_files(mnt, new_user):
    user = new_user(profile={'country': 'PT'})
    link, other = by(mnt, 'users', 'country', 'PT', user.path.name), by(mnt, 'users', 'role', 'student', user.path.name)
    status, row = os.lstat(link), user.path.stat()
    assert stat.S_ISLNK(status.st_mode) and status.st_size == len(os.readlink(link))
    assert status.st_ino == os.lstat(other).st_ino not in (row.st_ino, 0)
    assert link.stat().st_ino == row.st_ino and link.samefile(user.path)
    for folder in (link.parent, link.parent.parent, link.parent.parent.parent):
        found = folder.stat()
        readable = row.st_mode & 0o444
        assert stat.S_IMODE(found.st_mode) == readable | readable >> 2
        assert (found.st_uid, found.st_gid) == (row.st_uid, row.st_gid)
        inside = Folder(folder)
        dots = {entry.name: entry.ino for entry in inside.read() if entry.name in ('.', '..')}
        os.close(inside.fd)
        assert dots == {'.': found.st_ino, '..': folder.parent.stat().st_ino}
    assert {entry.ino for entry in entries(link.parent.parent) if entry.name == 'PT'} == {link.parent.stat().st_ino}
    assert {entry.ino for entry in entries(link.parent) if entry.name == link.name} == {status.st_ino}


def test_letters_of_another_case_find_a_user(mnt, new_user, unique):
    name = unique()
    user = new_user(email=f'{name}@Example.org', username=name.upper())
    for field, value in ('email', f'{name}@Example.org'), ('email', f'{name.upper()}@EXAMPLE.ORG'), ('username', name):
        assert rows_in(by(mnt, 'users', field, value)) == [user.id]
    assert f'{name}@Example.org' in values_in(by(mnt, 'users', 'email'))
    assert not by(mnt, 'users', 'role', 'STUDENT').exists()


# ---- names of values

def test_whatever_a_value_is_made_of_it_has_one_name(mnt, tokens):
    before = len(errors_of(mnt))
    user, ids = tokens(HOSTILE + TOO_LONG)
    listed = set(values_in(by(mnt, 'payment-methods', 'token')))
    for value in HOSTILE:
        assert name_of(value) in listed, value
        assert rows_in(by(mnt, 'payment-methods', 'token', name_of(value))) == [ids[value]], value
    assert not {name for name in listed if name.startswith('.') or '/' in name}
    for value in TOO_LONG:
        assert name_of(value) not in listed
        assert errno_of(os.stat, by(mnt, 'payment-methods', 'token', name_of(value))) == 'ENAMETOOLONG'
    assert rows_in(by(mnt, 'payment-methods', 'user_id', str(user.id))) == sorted(ids.values())
    for name in (b'a%2fb', b'%', b'%2', b'%4', b'%41', b'a%2Eb', b'.hidden', b'50%', b'\xff', b'a\xc3', b'%25%', b'\xed\xa0\x80'):
        path = os.fsencode(by(mnt, 'payment-methods', 'token')) + b'/' + name
        assert errno_of(os.stat, path) == 'ENOENT', name
    assert len(errors_of(mnt)) == before


@pytest.mark.parametrize('collection, field, names', [
    ('transactions', 'user_id', ['abc', '0', '-1', '01', '+1', '1e3', '1.0', ' 1', '1 ', '٣', '9' * 18, '9' * 20, '9' * 200]),
    ('payment-methods', 'expires_on', ['2026-02-30', '20260101', 'today', 'infinity', '2026-01-01 BC', '26-1-1']),
    ('users', 'status', ["active' OR 'a'='a", 'Active', '%'])])
def test_what_is_no_value_of_the_field_is_not_there(mnt, collection, field, names):
    before = len(errors_of(mnt))
    for name in names:
        assert errno_of(os.stat, by(mnt, collection, field, name)) == 'ENOENT', name
    assert errno_of(os.stat, by(mnt, collection, 'x')) == 'ENOENT' == errno_of(os.stat, by(mnt, collection, '.'*3))
    assert len(errors_of(mnt)) == before


# ---- pages

def test_values_and_rows_by_pages_from_any_place(mnt, tokens, unique):
    """More than two pages of each, through buffers of any size, and from a place that was told before."""
    prefix = unique()
    user, ids = tokens([f'{prefix}-{n:04}' for n in range(700)])
    rows = by(mnt, 'payment-methods', 'user_id', str(user.id))
    values = by(mnt, 'payment-methods', 'token')
    for path, wanted in ((rows, [f'{n}.json' for n in sorted(ids.values())]), (values, sorted(ids))):
        own = lambda found: [entry for entry in found if entry.name in wanted]  # noqa: B023, E731
        folder = Folder(path)
        whole = folder.read_all(700)
        assert [entry.name for entry in own(whole)] == wanted
        for at in (0, 3, len(whole) // 2, len(whole) - 2, 1):
            os.lseek(folder.fd, whole[at].offset, os.SEEK_SET)
            assert folder.read_all() == whole[at + 1:]
        os.close(folder.fd)
    assert run('find', rows.parent.parent, '-type', 'l', '-path', f'*/{user.id}/*').stdout.count(b'\n') == 700
    done = run('sh', '-c', 'ls -lR "$1" | grep -c -- "-> ../../../"; tar -C "$1" -cf - . | tar -tf - | wc -l', 'sh', rows)
    assert done.stdout.split() == [b'700', b'701'] and done.returncode == 0, done


def test_rsync_takes_the_links_and_a_backup_sees_none(mnt, tokens, tmp_path, unique):
    user, ids = tokens([f'{unique()}-{n}' for n in range(3)])
    folder = by(mnt, 'payment-methods', 'user_id', str(user.id))
    assert run('rsync', '-a', f'{folder}/', tmp_path / 'copy').returncode == 0
    assert {link.name: os.readlink(link) for link in (tmp_path / 'copy').iterdir()} == \
        {f'{n}.json': f'../../../{n}.json' for n in ids.values()}
    assert b'.by' not in run('find', folder_of(mnt, 'categories')).stdout


# ---- changes

def test_a_save_through_a_link_and_what_it_moves_is_seen_at_once(mnt, new_user, sql, unique):
    user = new_user(profile={'country': 'IS'})
    old, new = (by(mnt, 'users', 'country', country, user.path.name) for country in ('IS', 'FO'))
    for n in range(6):
        assert os.lstat(old) and user.path.name in os.listdir(old.parent) and os.readlink(old)
        run('ls', '-l', old.parent)
        country = new.parent.name
        write_in_place(old, edited(user, profile={'country': country}).encode())
        looks = (os.lstat, os.readlink, os.stat, lambda path: os.close(os.open(path, os.O_RDONLY)), os.listxattr, os.lstat)
        assert errno_of(looks[n], old) == 'ENOENT', n
        assert user.path.name not in (os.listdir(old.parent) if old.parent.exists() else [])
        assert new.read_bytes() == user.read() and rows_in(new.parent).count(user.id) == 1
        assert sql('europe', 'SELECT country FROM user_profiles WHERE user_id = %s', (user.id,)) == [(country,)]
        old, new = new, old
    # A link that stays where it is goes on.
    other = by(mnt, 'users', 'role', 'student', user.path.name)
    before = os.lstat(other)
    write_in_place(other, edited(user, last_name=unique()).encode())
    assert os.lstat(other).st_ino == before.st_ino and other.read_bytes() == user.read()


def test_a_descriptor_of_a_link_outlives_a_save(mnt, new_user):
    user = new_user(profile={'country': 'IS'})
    link = by(mnt, 'users', 'country', 'IS', user.path.name)
    fd = os.open(link, os.O_PATH | os.O_NOFOLLOW)
    try:
        run('ls', '-l', link.parent)
        write_in_place(user.path, edited(user, profile={'country': 'FO'}).encode())
        assert stat.S_ISLNK(os.fstat(fd).st_mode)
        assert os.readlink('', dir_fd=fd) == f'../../../{user.path.name}'
    finally:
        os.close(fd)


def test_changes_by_sql_are_seen(mnt, new_user, sql):
    user = new_user(profile={'country': 'GL'})
    link = by(mnt, 'users', 'country', 'GL', user.path.name)
    run('ls', '-l', link.parent)
    sql('europe', "UPDATE user_profiles SET country = 'AX' WHERE user_id = %s", (user.id,))
    eventually(lambda: not os.path.lexists(link) and not link.parent.exists(), 60)
    assert by(mnt, 'users', 'country', 'AX', user.path.name).samefile(user.path)
    user.path.unlink()
    assert errno_of(os.lstat, by(mnt, 'users', 'country', 'AX', user.path.name)) == 'ENOENT'


# ---- nothing is made there

def refusals(mnt, user):
    """Calls that would change .by: each with the path it is told of."""
    country, row = user.document['profile']['country'], user.path.name
    folders = [by(mnt, 'users'), by(mnt, 'users', 'country'), by(mnt, 'users', 'country', country)]
    for folder in folders:
        yield from ((os.mkdir, folder / 'x'), (os.symlink, 'a', folder / 'x'), (os.mkfifo, folder / 'x'),
                    (os.link, user.path, folder / 'x'), (os.rename, user.path, folder / 'x'),
                    (os.open, folder / 'x', os.O_CREAT | os.O_WRONLY, 0o644))
    yield from ((os.unlink, folders[2] / row), (os.rename, folders[2] / row, user.path.with_name('x')),
                (os.rename, folders[2] / row, folders[2] / 'x'), (os.rmdir, folders[2]), (os.rmdir, folders[1]),
                (os.rmdir, folders[0]), (os.rename, folders[2], folders[1] / 'x'), (os.rename, folders[0], user.path.with_name('x')))


def test_nothing_is_made_removed_or_renamed_there(mnt, new_user, new_mount):
    user = new_user(profile={'country': 'IS'})
    wanted = ('EPERM',) if os.geteuid() == 0 else ('EPERM', 'EACCES')
    for call, *arguments in refusals(mnt, user):
        assert errno_of(call, *arguments) in wanted, (call, arguments)
    assert by(mnt, 'users', 'country', 'IS', user.path.name).samefile(user.path)
    if os.geteuid() == 0:
        for path in ('.by/x', '.by/country/x', '.by/country/*/x', f'.by/country/*/{user.path.name}'):
            assert 'follows from the rows' in errors_of(mnt, f'regions/europe/users/{path}')[-1]['message']
    read_only = new_mount(read_only='on').directory
    user = type(user)(user.collection, user.region, user.id, user.document, read_only)
    for call, *arguments in refusals(read_only, user):
        if call not in (os.link, os.mkfifo):
            assert errno_of(call, *arguments) in ('EROFS', *wanted[1:]), (call, arguments)
    assert by(read_only, 'users', 'country', 'IS', user.path.name).samefile(user.path)


# ---- numbers that the kernel holds

@pytest.mark.skipif(os.geteuid() != 0, reason='only root makes the kernel forget')
def test_folders_of_values_are_forgotten(mnt, tokens, unique):
    libc = ctypes.CDLL(None, use_errno=True)

    def drop():
        assert libc.mount(None, os.fsencode(mnt), None, DROPS_DENTRIES, None) == 0, os.strerror(ctypes.get_errno())

    def known():
        drop()
        return metrics(mnt)['campusfs_by_folders']
    user, ids = tokens([f'{unique()}-{n}' for n in range(200)])
    values = by(mnt, 'payment-methods', 'token')
    before = {value: os.stat(values / value).st_ino for value in ids}
    assert len(set(before.values())) == 200
    assert metrics(mnt)['campusfs_by_folders'] >= 200 and metrics(mnt)['campusfs_by_bytes'] > 200 * 16
    assert wait_for(lambda: known() == 0, 60)
    assert metrics(mnt)['campusfs_by_bytes'] == 0
    problems = []

    def look(part):
        for _ in range(3):
            for value in part:
                try:
                    found = os.stat(values / value).st_ino, os.listdir(values / value)
                except OSError as error:
                    problems.append((value, errno.errorcode[error.errno]))
                    continue
                if found != (before[value], [f'{ids[value]}.json']):
                    problems.append((value, found))
    threads = [threading.Thread(target=look, args=(list(ids)[first::3] + list(ids)[:20],)) for first in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        drop()
    for thread in threads:
        thread.join()
    assert not problems, problems[:5]
    assert wait_for(lambda: known() == 0, 60)


def test_folders_of_values_are_bounded_in_number_and_bytes(new_mount, tokens, unique):
    """One more is ENFILE, in words, until the kernel has forgotten others. Rows and what it knows go on."""
    few, prefix = 20, unique()
    short, long = [f'{prefix}{n:02}' for n in range(few + 5)], [f'{prefix}-{n}-{"x" * 150}' for n in range(few)]
    user, ids = tokens(short + long)
    for names, fit in ((short, few), (long, few * 128 // (150 + 128))):
        root = new_mount(by_folders=few).directory
        values = by(root, 'payment-methods', 'token')
        codes = [errno_of(os.stat, values / name) for name in names]
        known = codes.index('ENFILE')
        assert fit <= known <= few and codes == known * [None] + (len(names) - known) * ['ENFILE']
        assert 'too many folders of values' in errors_of(root, 'regions/europe/payment-methods/.by/token/*')[-1]['message']
        told = metrics(root)
        assert told['campusfs_by_folders'] == known and told['campusfs_by_bytes'] <= few * 128
        assert told['campusfs_by_folders_limit'] == few
        assert rows_in(values / names[0]) == [ids[names[0]]] and len(values_in(values)) >= len(ids)
        assert (folder_of(root, 'payment-methods') / f'{ids[names[-1]]}.json').read_bytes()
