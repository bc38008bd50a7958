""".export.jsonl: a whole collection of a region as JSON lines, streamed."""

import concurrent.futures
import json
import os
import re
import signal
import subprocess

import pytest

from conftest import region_number
from mount_tools import errno_of, errors_of, folder_of, ids_in, metrics, run, wait_for

NAME = '.export.jsonl'
COPYING = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'COPY (SELECT id, body FROM doc\\_reviews%' AND state = 'active'"
ROWS = 1800
REGION = 'oceania'


def compact(text):
    """The document on one line, each token as it stands."""
    return re.sub(r'("(?:[^"\\]|\\.)*")|\s+', lambda token: token[1] or '', text)


def lines_of(folder):
    """Not by splitlines(): a text may hold U+2028."""
    return (folder / NAME).read_text().split('\n')[:-1]


def rows_of(folder):
    return [json.loads(line) for line in lines_of(folder)]


# ---- what is in it

@pytest.mark.parametrize('collection', ['categories', 'users', 'courses', 'enrollments', 'reviews', 'payment-methods',
                                        'transactions', 'invoices'])
def test_a_line_is_the_rows_file(mnt, collection):
    """By id, each token as in the file: numbers, too, which jq would write anew."""
    folder = folder_of(mnt, collection)
    lines = lines_of(folder)
    assert [json.loads(line)['id'] for line in lines] == sorted(ids_in(folder))
    for line in lines[:20] + lines[-20:]:
        assert line == compact((folder / f'{json.loads(line)["id"]}.json').read_text())


def test_numbers_and_texts_stay_as_they_are(mnt, new_transaction, new_user):
    payment = new_transaction(amount=49.9)
    folder = folder_of(mnt, 'transactions', payment.region)
    line, = (line for line in lines_of(folder) if line.startswith(f'{{"id":{payment.id},'))
    assert '"amount":49.90,' in line
    odd = 'tab\there "quoted" \\ back, {"a" : [ 1 ]}\nline \x7f é 😀'
    user = new_user(profile={'bio': odd})
    found, = (row for row in rows_of(folder_of(mnt, 'users')) if row['id'] == user.id)
    assert found == user.json() and found['profile']['bio'] == odd
    assert '\x7f' not in (folder_of(mnt, 'users') / NAME).read_text(), 'as in the file: \\u007f'


def test_what_was_saved_is_in_it(mnt, new_user, unique):
    """At once: it is read from a node that has the save."""
    user = new_user()
    for _ in range(5):
        city = unique()
        user.save(user.json() | {'profile': user.json()['profile'] | {'city': city}})
        assert [row['profile']['city'] for row in rows_of(user.path.parent) if row['id'] == user.id] == [city]
    user.path.unlink()
    assert user.id not in [row['id'] for row in rows_of(user.path.parent)]


def test_credentials_are_their_owners(new_mount):
    root = new_mount(credentials='on').directory
    secret = root / 'regions/europe/credentials' / NAME
    assert os.stat(secret).st_mode & 0o777 == 0o400
    assert {'user_id', 'password_hash'} <= set(json.loads(lines_of(secret.parent)[0]))


# ---- what kind of file it is

def test_it_is_never_listed(mnt):
    folder = folder_of(mnt, 'users')
    status = os.stat(folder / NAME)
    assert NAME not in os.listdir(folder)
    assert (status.st_size, status.st_mode & 0o222, status.st_nlink) == (0, 0, 1)
    assert status.st_mtime == os.stat(folder).st_mtime
    assert errno_of(os.stat, mnt / 'regions/europe/preferences' / NAME) == 'ENOENT', 'those are in no shard'


def test_it_can_only_be_read(mnt, tmp_path):
    folder = folder_of(mnt, 'users')
    path = folder / NAME
    assert errno_of(open, path, 'r+') == 'EACCES'
    assert errno_of(open, path, 'w') == 'EACCES'
    assert errno_of(os.truncate, path, 0) == 'EACCES'
    assert errno_of(os.unlink, path) == 'EPERM'
    assert errno_of(os.rename, path, folder / 'mine') == 'EPERM'
    (folder / 'mine').write_text('{}')
    assert errno_of(os.rename, folder / 'mine', path) == 'EPERM'
    (folder / 'mine').unlink()
    assert errno_of(os.mkdir, path) in ('EPERM', 'EEXIST')


def test_it_is_read_in_order(mnt):
    """A little back, as `head` goes for who reads after it; anew from the start; and ahead."""
    path = folder_of(mnt, 'users') / NAME
    whole = path.read_bytes()
    with open(path, 'rb', buffering=0) as file:
        assert b''.join(iter(lambda: file.read(7000), b'')) == whole
        assert file.read(10) == b'', 'the end stays the end'
        assert os.pread(file.fileno(), 100, len(whole) - 300) == whole[-300:-200]
        assert os.pread(file.fileno(), 100, 0) == whole[:100]
    with open(path, 'rb', buffering=0) as file:
        assert os.pread(file.fileno(), 100, 5000) == whole[5000:5100]
        assert os.pread(file.fileno(), 100, len(whole) + 5000) == b''
    both = run('sh', '-c', '(head -n 2; jq -c .id) < "$0"', path)
    assert (both.stdout.splitlines()[:2], both.stderr) == (whole.splitlines()[:2], b'')
    assert len(both.stdout.splitlines()) == len(whole.splitlines())


def test_tools_read_it(mnt, tmp_path):
    """None is put off by a size of 0."""
    path = folder_of(mnt, 'users') / NAME
    text = path.read_bytes()
    last = text.splitlines()[-1]
    assert run('cp', path, tmp_path / 'copy').returncode == 0 and (tmp_path / 'copy').read_bytes() == text
    assert run('jq', '-c', '.id', path).stdout.split() == [b'%d' % json.loads(line)['id'] for line in text.splitlines()]
    assert run('tail', '-n', '1', path).stdout == last + b'\n'
    assert run('wc', '-c', path).stdout.split()[0] == b'%d' % len(text)
    assert run('grep', '-c', '"id":', path).stdout == b'%d\n' % len(text.splitlines())


# ---- much of it, and who does not read on

@pytest.fixture(scope='module')
def many(sql, new_course, replayed):
    """Reviews of 20 KB each in a region: more than is read ahead, and than sockets hold."""
    course = new_course(region=REGION, status='published')
    number = region_number(REGION)
    made = sql(REGION, '''INSERT INTO users (region, id, email, username, first_name, last_name)
                          SELECT %s, next_id(1::smallint), 'export' || n || '@example.org', 'export' || n, 'E', 'X'
                          FROM generate_series(1, %s) n RETURNING id''', (number, ROWS))
    sql(REGION, '''INSERT INTO course_reviews (region, id, user_id, course_id, rating, body)
                   SELECT %s, next_id(4::smallint), u, %s, 5, repeat('export ', 2800) FROM unnest(%s) u''',
        (number, course.id, [row[0] for row in made]))
    replayed(REGION)
    yield ROWS
    sql(REGION, 'DELETE FROM course_reviews WHERE course_id = %s', (course.id,))
    sql(REGION, 'DELETE FROM users WHERE id = ANY(%s)', ([row[0] for row in made],))


def copying(sql, cluster):
    return [pid for node in (cluster.primary(REGION), cluster.replica(REGION)) for (pid,) in sql(node.name, COPYING)]


def counted(root, name):
    return metrics(root)[f'campusfs_export_{name}_total']


def test_many_rows_are_one_copy(many, mnt):
    before = counted(mnt, 'copies'), counted(mnt, 'rows')
    folder = folder_of(mnt, 'reviews', REGION)
    ids = [row['id'] for row in rows_of(folder)]
    assert len(ids) >= many and ids == sorted(ids_in(folder))
    assert (counted(mnt, 'copies'), counted(mnt, 'rows')) == (before[0] + 1, before[1] + len(ids))


def test_what_is_long_past_is_gone(many, mnt):
    """But for the start, which begins another export."""
    folder = folder_of(mnt, 'reviews', REGION)
    with open(folder / NAME, 'rb', buffering=0) as file:
        first = file.read(1000)
        whole = bytearray(first)
        while more := file.read(1 << 20):
            end = more
            whole += more
            back = min(256 << 10, len(whole))
            assert os.pread(file.fileno(), 100, len(whole) - back) == whole[-back:][:100]
        size = file.tell()
        assert os.pread(file.fileno(), len(end), size - len(end)) == end
        assert errno_of(os.pread, file.fileno(), 10, 1000) == 'ESPIPE'
        assert os.pread(file.fileno(), 1000, 0) == first
        file.seek(1000)
        assert sum(map(len, iter(lambda: file.read(1 << 20), b''))) == size - 1000


def test_who_does_not_read_holds_no_server(many, mnt, sql, cluster):
    """Neither connection nor snapshot; the rest comes when he goes on, no row twice and none left out."""
    folder = folder_of(mnt, 'reviews', REGION)
    before = counted(mnt, 'copies')
    with open(folder / NAME, encoding='utf-8') as file:
        lines = [next(file)]
        assert wait_for(lambda: counted(mnt, 'copies') > before, 60)
        assert wait_for(lambda: not copying(sql, cluster), 60), 'the copy is given up'
        assert len(lines) + counted(mnt, 'rows') > 0
        lines += list(file)
    ids = [json.loads(line)['id'] for line in lines]
    assert ids == sorted(ids_in(folder))
    assert counted(mnt, 'copies') >= before + 2


def test_a_lost_connection_costs_no_row(many, mnt, sql, cluster, expect_log):
    expect_log('terminating connection|server closed|connection lost')
    folder = folder_of(mnt, 'reviews', REGION)
    ended = []
    while not ended:  # a machine that is busy for two seconds has the copy given up before
        before = counted(mnt, 'copies')
        with open(folder / NAME, encoding='utf-8') as file:
            lines = [next(file)]
            for node in (cluster.primary(REGION), cluster.replica(REGION)):
                ended += sql(node.name, 'SELECT pg_terminate_backend(pid) FROM (' + COPYING + ') busy')
            lines += list(file)
    assert [json.loads(line)['id'] for line in lines] == sorted(ids_in(folder))
    assert counted(mnt, 'copies') == before + 2


@pytest.mark.long
def test_a_server_process_that_stands_still_has_a_deadline(many, new_mount, sql, cluster):
    """Its node is well, so that nobody else would give it up: another copy goes on behind its last row."""
    root = new_mount(timeout='1s').directory
    folder = folder_of(root, 'reviews', REGION)

    def is_gone_on_from():
        """Whether it was stopped before all had come; that all comes while it stands still."""
        with open(folder / NAME, 'rb', buffering=0) as file:
            text = bytearray(file.read(1))
            stopped, before = copying(sql, cluster), counted(root, 'copies')

            def rest():
                while more := file.read(1 << 20):
                    text.extend(more)
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)
            try:
                assert wait_for(lambda: errno_of(rest) is None, 60), 'a read may end before the copy does'
                assert text.count(b'\n') >= many
                return stopped and counted(root, 'copies') > before
            finally:
                for pid in stopped:
                    os.kill(pid, signal.SIGCONT)
    assert wait_for(is_gone_on_from, 120)


def test_head_ends_the_copy(many, mnt, sql, cluster):
    folder = folder_of(mnt, 'reviews', REGION)
    assert run('head', '-n', '1', folder / NAME).returncode == 0
    assert wait_for(lambda: not copying(sql, cluster), 60)
    assert wait_for(lambda: metrics(mnt)['campusfs_exports_open{shard="apac"}'] == 0, 60)


def test_as_many_as_half_of_the_pool(many, new_mount):
    root = new_mount(pool_size='2').directory
    folder = folder_of(root, 'reviews', REGION)
    with open(folder / NAME, 'rb') as first:
        first.read(1)
        assert errno_of(open, folder / NAME) == 'ENFILE'
        assert 'pool_size' in errors_of(root)[-1]['message']
        assert (folder_of(root, 'users', 'europe') / NAME).read_bytes(), 'another shard'
        assert len(ids_in(folder)) >= many, 'the others go on'
    assert wait_for(lambda: errno_of(lambda: open(folder / NAME, 'rb').close()) is None, 60)


def test_a_reader_can_be_interrupted(many, mnt):
    """One that does not read is no reason to wait for, and neither is one that is killed."""
    path = folder_of(mnt, 'reviews', REGION) / NAME
    with subprocess.Popen(['cat', path], stdout=subprocess.PIPE) as cat:
        assert cat.stdout.read(10)
        cat.kill()
    assert wait_for(lambda: metrics(mnt)['campusfs_exports_open{shard="apac"}'] == 0, 60)
