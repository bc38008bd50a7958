"""Bad documents in bulk, beyond the single cases of test_save_refused.py: by every tool that saves; every field with
every wrong type; documents cut and damaged at any place; what the database itself refuses, by SQLSTATE; and how much
is kept of it all."""

import concurrent.futures
import contextlib
import json
import os
import random
import re
import subprocess
import sys
import time

import pytest

from conftest import Row
from mount_tools import COLLECTIONS, errno_of, errors_of, folder_of, metrics, run, view_of, wait_for, write_in_place

FROM_TABLE = {'EINVAL', 'EEXIST', 'ENOLINK', 'EBUSY', 'ECANCELED'}  # what a document can be refused with


@pytest.fixture(scope='module')
def make(new_user, new_course, new_enrollment, new_review, new_payment_method, new_transaction, new_invoice,
         new_category):
    return {'users': new_user, 'courses': new_course, 'enrollments': new_enrollment, 'reviews': new_review,
            'payment-methods': new_payment_method, 'transactions': new_transaction, 'invoices': new_invoice,
            'categories': new_category}


@pytest.fixture
def state(sql):
    """state(row): all that the database has of it, and whether anything was written on its shard."""
    def read(row):
        where = row.region or 'americas'
        return sql(where, f'SELECT rev, updated_us, content_us, body, (SELECT max(rev) FROM change_log), '
                          f'(SELECT count(*) FROM request_log) FROM {view_of(row.collection)} WHERE id = %s', (row.id,))
    return read


def path_in(row):
    """The row's path as errors name it."""
    return 'categories/' * (row.region is None) + '/'.join(row.path.parts[-4 if row.region else -1:])


def seen_from(root, row):
    """The same row in another mount."""
    return Row(row.collection, row.region, row.id, row.document, root)


def text_kept(row):
    """The text and the words in .refused, taken away from there."""
    kept = row.path.parent / '.refused' / row.path.name
    words = kept.with_name(f'{row.path.name}.error')
    found = kept.read_bytes(), words.read_text()
    kept.unlink()
    assert not words.exists(), 'the words go with the text'
    return found


def replace(row, data, scratch_name='.bad.tmp'):
    """Saves as editors do: a scratch file renamed over the row. The errno's name, None when it was taken."""
    scratch = row.path.with_name(scratch_name)
    write_in_place(scratch, data)
    code = errno_of(os.rename, scratch, row.path)
    if code:
        assert scratch.read_bytes() == data, 'a refused rename leaves the file where it was'
        scratch.unlink()
    return code


# ---- by every tool

# What is saved: how it is made of the good text, the errno's text that tools show, the column, words of the message.
BAD = {
    'no JSON': (lambda text: b'hello\n', 'Invalid argument', None, 'line 1'),
    'cut': (lambda text: text[:-40], 'Invalid argument', None, 'line 24'),
    'wrong type': (lambda text: text.replace(b'"Ada"', b'42'), 'Invalid argument', 'first_name', 'must be text'),
    'unknown field': (lambda text: text.replace(b'"role"', b'"roel"'), 'Invalid argument', 'roel', 'is not a field'),
    'another id': (lambda text: re.sub(rb'"id": \d+', b'"id": 7', text), 'Invalid argument', 'id', 'but the file is'),
    'too old': (lambda text: re.sub(rb'"updated_at": ".{4}', b'"updated_at": "2001', text).replace(b'"Ada"', b'"Eve"'),
                'Operation canceled', 'updated_at', 'was changed at'),
}
# Scripts of sh: $1 is the row, $2 a file with the text. Those of SHELL save through a redirection, whose close no shell
# looks at: what is wrong beyond the syntax is told in words only.
TOOLS = {
    'cp': 'cp "$2" "$1"',
    'cp -f': 'cp -f "$2" "$1"',
    'mv': 'cp "$2" "$1.tmp" && mv "$1.tmp" "$1"',
    'dd': 'dd if="$2" of="$1" bs=64k conv=fsync status=none',
    'tee': 'tee "$1" < "$2"',
    'rsync': 'rsync --ignore-times "$2" "$1"',
    'rsync in place': 'rsync --ignore-times --inplace "$2" "$1"',
    'python': 'python3 -c "import pathlib, sys; '
              'pathlib.Path(sys.argv[1]).write_bytes(sys.stdin.buffer.read())" "$1" < "$2"',
    'python, with sync': 'python3 -c "import os, sys; f = os.open(sys.argv[1], os.O_WRONLY | os.O_TRUNC); '
                         'os.write(f, sys.stdin.buffer.read()); os.fsync(f)" "$1" < "$2"',
}
SHELL = {
    'cat >': 'cat "$2" > "$1"',
    'printf >': 'printf %s "$(cat "$2")" > "$1"',
}


def judge(row, before, state, good, bad, mnt, bad_name, lines):
    """After a refusal: the row is whole, the reason is told once, the text is kept."""
    _, _, column, words = BAD[bad_name]
    assert state(row) == before and row.read() == good
    told = errors_of(mnt, path_in(row))
    line = told[-1]
    assert len(told) == lines + 1, told
    assert line['column'] == column and words in line['message'] + (line['hint'] or '')
    kept, explained = text_kept(row)
    assert kept == bad and line['message'] in explained and line['errno'] in explained


@pytest.mark.parametrize('bad_name', BAD)
@pytest.mark.parametrize('tool', TOOLS)
def test_a_refusal_reaches_every_tool(tool, bad_name, mnt, new_user, state, tmp_path):
    row = new_user()
    good, before = row.read(), state(row)
    text = BAD[bad_name][0](good)
    (tmp_path / 'bad').write_bytes(text)
    done = subprocess.run(['sh', '-c', TOOLS[tool], 'sh', row.path, tmp_path / 'bad'], capture_output=True, timeout=30,
                          check=False)
    # What mv makes of EINVAL, whatever it is about; tee may not look at close().
    words = BAD[bad_name][1]
    if (tool, words) == ('mv', 'Invalid argument'):
        words = 'to a subdirectory of itself'
    assert tool == 'tee' or (done.returncode != 0 and words.encode() in done.stderr), done.stderr
    row.path.with_name(row.path.name + '.tmp').unlink(missing_ok=True)
    judge(row, before, state, good, text, mnt, bad_name, lines=0)


@pytest.mark.parametrize('bad_name', BAD)
@pytest.mark.parametrize('tool', SHELL)
def test_a_refusal_of_a_shells_redirection(tool, bad_name, mnt, new_user, state, tmp_path):
    row = new_user()
    good, before = row.read(), state(row)
    text = BAD[bad_name][0](good)
    if tool == 'printf >':
        text = text.rstrip(b'\n')
    (tmp_path / 'bad').write_bytes(text)
    done = subprocess.run(['sh', '-c', SHELL[tool], 'sh', row.path, tmp_path / 'bad'], capture_output=True, timeout=30,
                          check=False)
    assert bad_name != 'no JSON' or (done.returncode != 0 and re.search(b'Invalid argument|I/O error', done.stderr))
    assert wait_for(lambda: errors_of(mnt, path_in(row)), 30)
    judge(row, before, state, good, text, mnt, bad_name, lines=0)


def test_a_refused_text_can_be_mended_and_tried_again(new_user, mnt):
    row = new_user()
    bad = row.read().replace(b'"student"', b'"studnet"')
    assert errno_of(write_in_place, row.path, bad) == 'EINVAL'
    kept = row.path.parent / '.refused' / row.path.name
    assert kept.name in os.listdir(kept.parent) and kept.name + '.error' in os.listdir(kept.parent)
    assert errno_of(os.rename, kept, row.path) == 'EINVAL', 'it is refused again as it is'
    assert kept.read_bytes() == bad
    kept.write_bytes(bad.replace(b'"studnet"', b'"admin"'))
    assert run('mv', kept, row.path).returncode == 0
    assert row.json()['role'] == 'admin'
    assert not os.path.lexists(kept) and not os.path.lexists(f'{kept}.error')


def test_nothing_empty_is_saved(new_user, state, mnt):
    """Truncating is no document yet; a rename of nothing is."""
    row = new_user()
    good, before = row.read(), state(row)
    assert errno_of(write_in_place, row.path, b'') is None
    assert (row.read(), state(row)) == (good, before)
    assert run('sh', '-c', f': > {row.path}').returncode == 0
    assert (row.read(), state(row)) == (good, before)
    assert errno_of(os.truncate, row.path, 0) == 'EINVAL'
    assert errno_of(os.truncate, row.path, 10) == 'EINVAL'
    assert replace(row, b'') == 'EINVAL'
    assert replace(row, b'\n \n') == 'EINVAL'
    assert (row.read(), state(row)) == (good, before)


# ---- every field with every wrong type

WRONG = ['some text', 17, True, [], {}, None, 'x' * 100_001]
WRONG_NUMBERS = [1.5, -3, 10 ** 18]  # for fields that are numbers


def fields_of(value, path=()):
    """The places of all values in a document, lists' items by the first of each."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*path, key)
            yield from fields_of(item, (*path, key))
    elif isinstance(value, list) and value:
        yield (*path, 0)
        yield from fields_of(value[0], (*path, 0))


def at(document, place):
    for step in place:
        document = document[step]
    return document


def with_value(document, place, value):
    changed = json.loads(json.dumps(document))
    at(changed, place[:-1])[place[-1]] = value
    return changed


def column_of(place):
    """modules[0].title"""
    return ''.join(f'[{step}]' if isinstance(step, int) else f'.{step}' for step in place).lstrip('.')


@pytest.mark.parametrize('collection', COLLECTIONS)
def test_every_field_with_every_wrong_type(collection, make, new_mount):
    """Either the value is taken and shown again, or it is refused by the name of its field. No save ends otherwise."""
    root = new_mount(errors_size='16kB').directory
    row = seen_from(root, make[collection]())
    document = row.json()
    refused = taken = 0
    for place in list(fields_of(document)):
        good = row.read()
        numeric = type(at(document, place)) in (int, float)
        for value in WRONG + WRONG_NUMBERS * numeric:
            code = replace(row, json.dumps(with_value(document, place, value)).encode())
            if code is None:
                taken += 1
                shown, good = row.json(), row.read()
                document['updated_at'] = shown['updated_at']
                continue
            assert code in FROM_TABLE - {'ECANCELED'} or place == ('updated_at',), (place, value, code)
            assert row.read() == good
            line = errors_of(root, path_in(row))[-1]
            refused += 1
            assert line['errno'] == code and line['message'] and line['sqlstate'], line
            # A list or object that is no such thing is refused by its own name, never by another field's.
            assert line['column'] is None or line['column'].startswith(column_of(place)) \
                or place[-1] in (0, 'lessons', 'modules', 'profile'), (place, value, line)
    assert refused > 5 * len(document) and taken > 0


def test_every_required_field_is_missed_by_its_name(make, new_mount):
    root = new_mount(errors_size='16kB').directory
    for collection in COLLECTIONS:
        row = seen_from(root, make[collection]())
        document = row.json()
        missed = set()
        for field in document:
            less = {key: value for key, value in document.items() if key not in (field, 'updated_at')}
            if code := replace(row, json.dumps(less).encode()):
                line = errors_of(root, path_in(row))[-1]
                assert (code, line['column']) == ('EINVAL', field), (collection, line)
                assert 'is missing' in line['message'], (collection, line)
                missed.add(field)
            else:
                document = row.json()
        assert missed, collection


# ---- damaged documents

def test_documents_cut_at_every_byte(make, state, new_mount):
    """None but the whole one is a document; the last newline may be missing."""
    root = new_mount(errors_size='16kB').directory
    for collection in ('reviews', 'invoices'):
        row = seen_from(root, make[collection]())
        good, before = row.read(), state(row)
        assert {replace(row, good[:n]) for n in range(len(good) - 1)} == {'EINVAL'}
        assert (row.read(), state(row)) == (good, before)
        assert replace(row, good[:-1]) is None and row.read() == good


@pytest.mark.parametrize('collection', ['users', 'courses', 'enrollments', 'payment-methods'])
def test_documents_damaged_anywhere(collection, make, new_mount, sql):
    """Bytes changed, dropped, doubled and swapped at random places (the same in every run): what is refused leaves the
    row as it was, what is taken is a whole document again, and nothing ends in another way."""
    chance = random.Random(4711)
    row = seen_from(new_mount(errors_size='16kB').directory, make[collection]())
    good, outcomes = row.read(), {}
    for _ in range(150):
        text = bytearray(good)
        for _ in range(chance.choice((1, 1, 1, 3, 20))):
            at = chance.randrange(len(text))
            kind = chance.randrange(5)
            if kind == 0:
                text[at] = chance.randrange(256)
            elif kind == 1:
                del text[at:at + chance.randrange(1, 30)]
            elif kind == 2:
                text[at:at] = text[at:at + chance.randrange(1, 30)]
            elif kind == 3:
                text[at:at] = chance.choice((b'"', b'{', b'}', b'[', b',', b'\\', b'\0', b'\xf0\x9f', b'1e5', b'null'))
            else:
                other = chance.randrange(len(text))
                text[at], text[other] = text[other], text[at]
        code = replace(row, bytes(text))
        outcomes[code] = outcomes.get(code, 0) + 1
        assert code is None or code in FROM_TABLE, (code, bytes(text))
        if code:
            assert row.read() == good, bytes(text)
        else:
            good = row.read()
            (body,), = sql(row.region, f'SELECT body FROM {view_of(collection)} WHERE id = %s', (row.id,))
            assert json.loads(good) == json.loads(body)
    assert outcomes['EINVAL'] > 75


def test_a_refusal_keeps_its_connection(new_mount, new_user, sql):
    """No save that follows has to connect anew: the pool of one goes on with the connection that it has."""
    def opened():
        return metrics(root)['campusfs_pool_opened_total{node="emea-a"}']
    root = new_mount(pool_size='1').directory
    row = seen_from(root, new_user())
    assert errno_of(write_in_place, row.path, row.read().replace(b'"Ada"', b'"Eve"')) is None
    before = opened()
    for n in range(20):
        assert errno_of(write_in_place, row.path, b'{"email": %d}' % n) == 'EINVAL'
    assert opened() == before


def test_many_bad_saves_at_once(new_user, mnt):
    """Eight processes, each with a row of its own: every one is refused, told and kept by itself."""
    rows = [new_user() for _ in range(8)]
    script = '''
import os, sys
for n in range(25):
    try:
        with open(sys.argv[1], 'w') as file:
            file.write('{"email": %d}' % n)
    except OSError as error:
        assert error.errno == 22, error
    else:
        raise SystemExit('saved')
'''
    with concurrent.futures.ThreadPoolExecutor(len(rows)) as pool:
        done = list(pool.map(lambda row: run(sys.executable, '-c', script, row.path), rows))
    assert [(one.returncode, one.stderr) for one in done] == [(0, b'')] * len(rows)
    for row in rows:
        assert row.json() == row.document and len(errors_of(mnt, path_in(row))) == 25
        assert text_kept(row)[0] == b'{"email": 24}'


# ---- what the database refuses

# SQLSTATE: errno. Transient ones (retried) are tested apart.
STATES = {
    'CF001': 'ENOLINK', 'CF002': 'EBUSY', 'CF003': 'ECANCELED', 'CF005': 'EPERM',
    '22001': 'EINVAL', '22003': 'EINVAL', '22007': 'EINVAL', '22023': 'EINVAL', '22P02': 'EINVAL', '22P05': 'EINVAL',
    '23000': 'EINVAL', '23502': 'EINVAL', '23514': 'EINVAL', '23505': 'EEXIST', '23P01': 'EEXIST', '23503': 'EBUSY',
    '54000': 'EINVAL', '54001': 'EINVAL', '53100': 'ENOSPC', '42501': 'EACCES', '55P03': 'ETIMEDOUT',
    '57014': 'ETIMEDOUT', '42P01': 'EIO', '42883': 'EIO', '0A000': 'EIO', 'XX000': 'EIO', 'XX001': 'EIO',
    'P0001': 'EIO', '21000': 'EIO',
}
TRANSIENT = {'40001': 'EAGAIN', '40P01': 'EAGAIN', '53200': 'EIO', '53300': 'EIO', '57P03': 'EIO', '08006': 'EIO'}


@pytest.fixture(scope='module')
def raising(sql):
    """A trigger on the shard of europe: a user named `raise STATE` is refused with it; `raise STATE N` only the first N
    times."""
    sql('europe', """
        CREATE SEQUENCE campusfs.test_raised;
        CREATE FUNCTION campusfs.test_raise() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
        DECLARE
            words text[] := string_to_array(NEW.first_name, ' ');
        BEGIN
            IF words[3] IS NULL OR nextval('campusfs.test_raised') <= words[3]::int THEN
                RAISE EXCEPTION USING ERRCODE = words[2], MESSAGE = 'raised by a test', HINT = 'a hint',
                    CONSTRAINT = 'a_constraint', COLUMN = 'first_name', DETAIL = 'a detail that nobody may see';
            END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER test_raise BEFORE UPDATE ON campusfs.users FOR EACH ROW
            WHEN (NEW.first_name LIKE 'raise %') EXECUTE FUNCTION campusfs.test_raise();""")
    yield
    sql('europe', 'DROP TRIGGER test_raise ON campusfs.users; DROP FUNCTION campusfs.test_raise(); '
                  'DROP SEQUENCE campusfs.test_raised')


@pytest.mark.parametrize('code', STATES)
def test_each_sqlstate_has_its_errno(code, raising, new_user, state, mnt):
    row = new_user()
    good, before = row.read(), state(row)
    text = good.replace(b'"Ada"', b'"raise %s"' % code.encode())
    begun = time.monotonic()
    assert errno_of(write_in_place, row.path, text) == STATES[code]
    assert time.monotonic() - begun < 30, 'what cannot pass is not tried again and again'
    assert (row.read(), state(row)) == (good, before)
    line = errors_of(mnt, path_in(row))[-1]
    assert {key: line[key] for key in ('errno', 'sqlstate', 'constraint', 'column', 'hint')} == {
        'errno': STATES[code], 'sqlstate': code, 'constraint': 'a_constraint', 'column': 'first_name', 'hint': 'a hint'}
    assert 'raised by a test' in line['message'] and 'nobody may see' not in json.dumps(line)
    kept, words = text_kept(row)
    assert kept == text and 'raised by a test' in words and STATES[code] in words and 'nobody may see' not in words


@pytest.mark.parametrize('code', TRANSIENT)
def test_what_passes_is_tried_again(code, raising, new_user, sql):
    row = new_user()
    sql('europe', "SELECT setval('campusfs.test_raised', 1, false)")
    assert errno_of(write_in_place, row.path, row.read().replace(b'"Ada"', b'"raise %s 2"' % code.encode())) is None
    assert row.json()['first_name'] == f'raise {code} 2'
    assert sql('europe', 'SELECT last_value FROM campusfs.test_raised') == [(3,)]


@pytest.mark.parametrize('code', TRANSIENT)
def test_what_never_passes_is_given_up(code, raising, new_user, state, mnt):
    row = new_user()
    good, before = row.read(), state(row)
    begun = time.monotonic()
    assert errno_of(write_in_place, row.path, good.replace(b'"Ada"', b'"raise %s"' % code.encode())) == TRANSIENT[code]
    assert time.monotonic() - begun < 30
    assert (row.read(), state(row)) == (good, before)
    assert errors_of(mnt, path_in(row))[-1]['sqlstate'] == code


@contextlib.contextmanager
def locked(cluster, row):
    """Another client holds the row."""
    connection = cluster.connect(row.region, options='-c search_path=campusfs,pg_catalog')
    connection.autocommit = False
    with connection.cursor() as cursor:
        cursor.execute('SELECT 1 FROM users WHERE id = %s FOR UPDATE', (row.id,))
        yield
    connection.rollback()
    connection.close()


def test_a_locked_row_is_not_waited_for_beyond_the_deadline(new_user, new_mount, cluster, mnt, state):
    row = new_user()
    root = new_mount(timeout='1s').directory
    path = root / path_in(row)
    good, before = path.read_bytes(), state(row)
    with locked(cluster, row):
        begun = time.monotonic()
        assert errno_of(write_in_place, path, good.replace(b'"Ada"', b'"Eve"')) == 'ETIMEDOUT'
        assert time.monotonic() - begun < 30
        assert path.read_bytes() == good
    assert state(row) == before
    assert errno_of(write_in_place, path, good.replace(b'"Ada"', b'"Eve"')) is None
    assert path.read_bytes() != good


# ---- how much is kept

def test_the_journal_of_errors_is_bounded(new_mount, new_user):
    row = new_user()
    root = new_mount(errors_size='4kB').directory
    path = root / path_in(row)
    for n in range(60):
        assert errno_of(write_in_place, path, json.dumps({'email': n}).encode()) == 'EINVAL'
    told = errors_of(root)
    assert 5 < len(told) < 60 and os.stat(root / '.campusfs' / 'errors.jsonl').st_size <= 4096
    assert 'email is 59' in told[-1]['message'] and [line['time'] for line in told] == sorted(
        line['time'] for line in told)


def test_refused_texts_are_bounded_by_number_and_size(new_mount, new_user):
    rows = [new_user() for _ in range(6)]
    root = new_mount(refused_files=3, refused_size='8kB').directory
    kept = folder_of(root, 'users') / '.refused'
    for row in rows:
        assert errno_of(write_in_place, root / path_in(row), b'{"email": 1}') == 'EINVAL'
    assert sorted(os.listdir(kept)) == sorted(
        name for row in rows[-3:] for name in (row.path.name, row.path.name + '.error'))
    assert errno_of(write_in_place, root / path_in(rows[0]), b'{"email": "%s"}' % (b'x' * 7000)) == 'EINVAL'
    assert rows[0].path.name in os.listdir(kept)
    assert errno_of(write_in_place, root / path_in(rows[1]), b'{"email": "%s"}' % (b'y' * 7000)) == 'EINVAL'
    names = os.listdir(kept)
    assert rows[1].path.name in names and rows[0].path.name not in names
    assert sum(os.stat(kept / name).st_size for name in names if not name.endswith('.error')) <= 8192


def test_the_daemons_memory_does_not_grow_with_refusals(new_mount, new_user, sanitized):
    if sanitized:
        pytest.skip('AddressSanitizer keeps freed memory')
    row = new_user()
    mount = new_mount(refused_files=10)
    path = mount.directory / path_in(row)
    bad = row.read().replace(b'"student"', b'"%s"' % (b'x' * 100_000))

    def resident():
        return int(re.search(r'VmRSS:\s+(\d+)', open(f'/proc/{mount.pid()}/status').read())[1])
    for n in range(120):
        if n == 40:
            before = resident()
        assert errno_of(write_in_place, path, bad) == 'EINVAL'
    assert resident() - before < 6 * 1024
    assert metrics(mount.directory)['campusfs_scratch_files'] < 40


def test_texts_of_two_writers_are_both_kept(new_user):
    """The second refusal of a row by another process does not throw the first one's work away."""
    row = new_user()
    kept = row.path.parent / '.refused'
    for text in ('{"email": 1}', '{"email": 2}'):
        run('sh', '-c', f"printf '{text}' > {row.path}")
    assert wait_for(lambda: (kept / row.path.name).exists(), 30)
    texts = {(kept / name).read_text() for name in os.listdir(kept)
             if name.startswith(row.path.name) and not name.endswith('.error')}
    assert texts == {'{"email": 1}', '{"email": 2}'}
    for name in [name for name in os.listdir(kept) if name.startswith(row.path.name)]:
        (kept / name).unlink(missing_ok=True)


# ---- secrets

PASSWORDS = {
    'plain': '"password": "%s"',
    'spaced': '"password"  :\n\t"%s"',
    'escaped key': '"p\\u0061ssword": "%s"',
    'capitals': '"Password": "%s"',
    'in the profile': '"profile": {"password": "%s"}',
    'in a list': '"password": ["%s"]',
    'in an object': '"password": {"new": "%s"}',
    'broken off': '"password": "%s',
    'twice': '"password": "%s", "password": "%s"',
    'after garbage': 'x"password": "%s"',
}


@pytest.mark.parametrize('kind', PASSWORDS)
def test_passwords_are_blanked_however_they_are_written(kind, new_user, cluster, mnt, unique):
    """In .refused, in the words, in the journal, in the daemon's log and in the servers' logs."""
    row, secret = new_user(), f'geheim {unique()}'
    text = '{"email": 5, ' + PASSWORDS[kind].replace('%s', secret) + '}'
    assert errno_of(write_in_place, row.path, text.encode()) == 'EINVAL'
    kept, words = text_kept(row)
    journal = (mnt / '.campusfs' / 'errors.jsonl').read_text()
    assert len(kept) == len(text) and b'email' in kept
    logs = [path.read_text(errors='replace') for path in cluster.log_directory.iterdir() if path.is_file()]
    for place in (kept.decode(), words, journal, *logs):
        assert secret not in place and secret[8:] not in place


@pytest.mark.parametrize('number', ['4111111111111111', '4111 1111 1111 1111', '4111-1111-1111-1111', '378282246310005',
                                    '6011000990139424', '30569309025904', '6304000000000000000'])
@pytest.mark.parametrize('collection', ['payment-methods', 'transactions', 'users'])
def test_card_numbers_are_blanked_in_what_is_refused(number, collection, make, cluster, mnt):
    row = make[collection]()
    document = {**row.json(), 'nonsense': f'paid with {number}.'}
    text = json.dumps(document).encode()
    assert replace(row, text) == 'EINVAL'
    kept, words = text_kept(row)
    assert b'paid with' in kept and len(kept) == len(text)
    logs = [path.read_text(errors='replace') for path in cluster.log_directory.iterdir() if path.is_file()]
    for place in (kept.decode(), words, (mnt / '.campusfs' / 'errors.jsonl').read_text(), *logs):
        assert number not in place
