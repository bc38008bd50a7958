"""What is refused: the errno of the table, the reason in words, the text kept, the row and the daemon as before."""

import errno
import json
import os
import re

import pytest

from saving import edited, fails, last_error, refused, set_by_sql, sh, trace

NOBODY = 270_000_000_002  # an id that no row has
CARD = '4111 1111 1111 1111'  # passes Luhn, belongs to nobody


def put(old, new):
    """The document with one piece of its text replaced."""
    def change(text):
        assert old in text
        return text.replace(old, new, 1).encode()
    return change


def field(**fields):
    """The document with these values, written as JSON."""
    def change(text):
        return json.dumps({**json.loads(text), **fields}).encode()
    return change


# name: how the text is made of the row's, and words that the message has. Each is EINVAL.
NO_JSON = {
    'words': (lambda text: b'hello\n', ''),
    'cut': (lambda text: text.encode()[:-20], ''),
    'two documents': (lambda text: 2 * text.encode(), ''),
    'an array': (lambda text: b'[' + text.encode() + b']', 'object'),
    'a number': (lambda text: b'17', ''),
    'duplicate key': (put('"role"', '"email": "x@example.org", "role"'), 'email'),
    'duplicate key below': (put('"bio": null', '"bio": "a", "bio": "b"'), 'bio'),
    'duplicate key, escaped': (put('"role"', r'"em\u0061il": "x@example.org", "role"'), 'duplicate'),
    'byte order mark': (lambda text: b'\xef\xbb\xbf' + text.encode(), 'byte order mark'),
    'UTF-16': (lambda text: text.encode('utf-16'), ''),
    'NUL in the middle': (put('Ada', 'A\0a'), 'NUL byte'),
    'NUL behind': (lambda text: text.encode() + b'\0', 'NUL byte'),
    'NUL behind a number': (put(',\n  "region"', '\0,\n  "region"'), 'NUL byte'),
    'NUL, escaped': (put('Ada', r'A\u0000a'), ''),
    'half a surrogate': (put('Ada', r'A\ud800a'), ''),
    'invalid UTF-8': (lambda text: text.encode().replace(b'Ada', b'A\xffa'), 'line 6'),
    'overlong UTF-8': (lambda text: text.encode().replace(b'Ada', b'A\xc0\xafa'), 'line 6'),
    'surrogate in UTF-8': (lambda text: text.encode().replace(b'Ada', b'A\xed\xa0\x80a'), 'line 6'),
    'control character': (put('Ada', 'A\ta'), ''),
    'too deep': (lambda text: b'[' * 100_000 + b']' * 100_000, 'depth'),
    'too deep, as an object': (lambda text: b'{"profile":' * 50_000 + b'1' + b'}' * 50_000, 'depth'),
    'NaN': (put('false', 'NaN'), ''),
    'single quotes': (lambda text: text.replace('"', "'").encode(), ''),
    'comma at the end': (put('"\n}', '",\n}'), ''),
    'comment': (put('"role"', '/* */ "role"'), ''),
    'leading zero': (put('"id": ', '"id": 0'), ''),
    'HTML': (lambda text: b'<html></html>', ''),
}


@pytest.mark.parametrize('name, way', [*((name, 'close') for name in NO_JSON),
                                       *((name, 'rename') for name in ('words', 'cut', 'duplicate key', 'too deep'))])
def test_no_json(mnt, new_user, sql, name, way):
    make, words = NO_JSON[name]
    row = new_user()
    before, text = trace(sql, row), row.read()
    bad = make(text.decode())
    if way == 'rename':
        scratch = row.path.with_name('bad.tmp')
        scratch.write_bytes(bad)
        with fails(errno.EINVAL):
            os.rename(scratch, row.path)
        assert scratch.read_bytes() == bad, 'a refused rename leaves the file'
        scratch.unlink()
    else:
        with fails(errno.EINVAL):
            row.path.write_bytes(bad)
    assert (trace(sql, row), row.read()) == (before, text)
    line = last_error(mnt, row)
    assert line['errno'] == 'EINVAL' and words in line['message'] and line['message']
    assert refused(row).read_bytes() == bad
    assert line['message'] in refused(row).with_name(f'{row.id}.json.error').read_text()
    refused(row).unlink()


# collection, how the text is made, errno, column, words of the message
REFUSED = {
    'unknown field': ('users', field(nickname='Ada'), 'EINVAL', 'nickname', 'is not a field of a user'),
    'misspelt field': ('users', put('"first_name"', '"frist_name"'), 'EINVAL', 'frist_name', 'is not a field'),
    'unknown field below': ('users', field(profile={'town': 'Rome'}), 'EINVAL', 'profile.town', 'is not a field'),
    'text for a flag': ('users', field(email_verified='yes'), 'EINVAL', 'email_verified', 'must be true or false'),
    'number for text': ('users', field(first_name=7), 'EINVAL', 'first_name', 'must be text'),
    'null where needed': ('users', field(email=None), 'EINVAL', 'email', 'must not be null'),
    'missing where needed': ('users', put('"email"', '"profile_"'), 'EINVAL', 'profile_', 'is not a field'),
    'object for text': ('users', field(last_name={}), 'EINVAL', 'last_name', 'must be text'),
    'too long': ('users', field(first_name='x' * 101), 'EINVAL', 'first_name', 'at most 100'),
    'no choice': ('users', field(role='emperor'), 'EINVAL', 'role', 'student, instructor, admin'),
    'no address': ('users', field(email='ada'), 'EINVAL', 'email', 'must be an address'),
    'another id': ('users', field(id=999002), 'EINVAL', 'id', 'but the file is'),
    'id as text': ('users', field(id='7'), 'EINVAL', 'id', 'whole number'),
    'id 1e400': ('users', put('"id": ', '"id": 1e400, "x": '), 'EINVAL', None, '1e400'),
    'another region': ('users', field(region='africa'), 'EINVAL', 'region', 'but the file lies in europe'),
    'no region': ('users', field(region='atlantis'), 'EINVAL', 'region', 'but the file lies in europe'),
    'no such day': ('users', field(profile={'date_of_birth': '2026-02-30'}), 'EINVAL', 'profile.date_of_birth', 'day'),
    'time without zone': ('users', field(last_login_at='2026-01-01T00:00:00'), 'EINVAL', 'last_login_at', 'zone'),
    'time too fine': ('users', field(last_login_at='2026-01-01T00:00:00.1234567Z'), 'EINVAL', 'last_login_at', 'six'),
    'time of year 10000': ('users', field(last_login_at='10000-01-01T00:00:00Z'), 'EINVAL', 'last_login_at', ''),
    'infinity': ('users', field(last_login_at='infinity'), 'EINVAL', 'last_login_at', ''),
    'updated_at no time': ('users', field(updated_at='yesterday', first_name='x'), 'EINVAL', 'updated_at', 'time'),
    'long password': ('users', field(password='x' * 73), 'EINVAL', 'password', 'at most 72 bytes'),
    'rounded money': ('courses', put('"price": 49.90', '"price": 49.905'), 'EINVAL', 'price', 'two decimals'),
    'rounded far behind': ('courses', put('49.90', '0.1000000000000000055'), 'EINVAL', 'price', 'two decimals'),
    'price 1e400': ('courses', put('49.90', '1e400'), 'EINVAL', None, '1e400'),
    'price of 100,000 digits': ('courses', put('49.90', '9' * 100_000), 'EINVAL', None, 'large'),
    'price 1e999999999': ('courses', put('49.90', '1e999999999'), 'EINVAL', None, ''),
    'negative money': ('courses', put('49.90', '-0.01'), 'EINVAL', 'price', 'from 0'),
    'no currency': ('courses', field(currency='Euro'), 'EINVAL', 'currency', ''),
    'no array': ('courses', put('"modules"', '"modules_"'), 'EINVAL', 'modules_', ''),
    'array null': ('courses', field(modules=None), 'EINVAL', 'modules', ''),
    'array of text': ('courses', field(modules=['one']), 'EINVAL', 'modules[0]', 'must be an object'),
    'child without title': ('courses', field(modules=[{'lessons': []}]), 'EINVAL', 'modules[0].title', 'is missing'),
    'unknown child': ('courses', field(modules=[{'title': 'a', 'lessons': [{'title': 'b', 'kind': 'song'}]}]), 'EINVAL',
                      'modules[0].lessons[0].kind', 'video, document, quiz, assignment'),
    'path out of the media': ('courses', field(modules=[{'title': 'a', 'lessons': [{'title': 'b', 'media': '../x'}]}]),
                              'EINVAL', 'modules[0].lessons[0].media', 'inside'),
    'no instructor': ('courses', field(instructor_id=NOBODY), 'ENOLINK', 'instructor_id', 'no such user'),
    'no category': ('courses', field(category_id=NOBODY), 'ENOLINK', 'category_id', 'no such category'),
    'no course': ('enrollments', field(course_id=NOBODY, lessons=[]), 'ENOLINK', 'course_id', 'no such course'),
    'no lesson': ('enrollments', field(lessons=[{'lesson_id': NOBODY}]), 'ENOLINK', 'lessons[0].lesson_id',
                  'there is no such lesson'),
    'rating': ('reviews', field(rating=6), 'EINVAL', 'rating', 'from 1 to 5'),
    'half a rating': ('reviews', field(rating=4.5), 'EINVAL', 'rating', 'whole number'),
    'expiry': ('payment-methods', field(expires_on='12/31'), 'EINVAL', 'expires_on', 'must be a day'),
    'whole card number': ('payment-methods', field(last_four='4111111111111111'), 'EINVAL', None, 'card number'),
    'card number elsewhere': ('payment-methods', field(token=f'card {CARD}'), 'EINVAL', None, 'card number'),
    'card number as a key': ('payment-methods', field(**{CARD: 1}), 'EINVAL', None, 'card number'),
    'card number as a number': ('payment-methods', field(last_four=4111111111111111), 'EINVAL', None, 'card number'),
    'no payment method': ('transactions', field(payment_method_id=NOBODY), 'ENOLINK', 'payment_method_id', 'no such'),
    'due before issue': ('invoices', field(due_on='2025-12-31'), 'EINVAL', 'due_on', 'before issued_on'),
    'no transaction': ('invoices', field(transaction_id=NOBODY), 'ENOLINK', 'transaction_id', 'no such transaction'),
    'own parent': ('categories', lambda text: field(parent_id=json.loads(text)['id'])(text), 'EINVAL', 'parent_id', ''),
}


@pytest.mark.parametrize('name', REFUSED)
def test_refused_document(mnt, new_of, sql, name):
    collection, make, code, column, words = REFUSED[name]
    row = new_of(collection)
    before, text = trace(sql, row), row.read()
    with fails(getattr(errno, code)):
        row.path.write_bytes(make(text.decode()))
    assert (trace(sql, row), row.read()) == (before, text)
    line = last_error(mnt, row)
    assert (line['errno'], line['column']) == (code, column) and words in line['message']
    words = refused(row).with_name(f'{row.id}.json.error').read_text()
    assert line['message'] in words and code in words
    refused(row).unlink()


@pytest.mark.parametrize('collection, taken', [('users', 'email'), ('users', 'username'), ('courses', 'slug'),
                                               ('transactions', 'gateway_reference'), ('invoices', 'number'),
                                               ('categories', 'slug')])
def test_what_is_taken(mnt, new_of, sql, collection, taken):
    other, row = new_of(collection), new_of(collection)
    before = trace(sql, row)
    with fails(errno.EEXIST):
        row.path.write_text(edited(row, **{taken: other.json()[taken]}))
    line = last_error(mnt, row)
    assert (line['errno'], line['sqlstate'], line['column']) == ('EEXIST', '23505', taken)
    assert str(other.id) in line['message'] and trace(sql, row) == before


def test_a_child_of_another_document_is_refused(mnt, new_course, sql):
    row, other = new_course(), new_course()
    document = row.json()
    document['modules'][0]['id'] = other.json()['modules'][0]['id']
    before = trace(sql, row), trace(sql, other)
    with fails(errno.EEXIST):
        row.save(document)
    assert (trace(sql, row), trace(sql, other)) == before
    assert f'belongs to course {other.id}' in last_error(mnt, row)['message']


def test_a_child_twice_is_refused(mnt, new_course, sql):
    row = new_course()
    document = row.json()
    document['modules'][1]['lessons'].append(document['modules'][0]['lessons'][0])
    with fails(errno.EINVAL):
        row.save(document)
    assert last_error(mnt, row)['column'] == 'modules[1].lessons[2].id'


def test_a_reference_never_leaves_its_shard(mnt, new_course, new_user, sql):
    course, user = new_course('asia'), new_user('europe')
    new = user.path.parent.parent / 'enrollments/new.json'
    with fails(errno.ENOLINK):
        new.write_text(json.dumps({'user_id': user.id, 'course_id': course.id}))
    assert 'never leaves its shard' in (new.parent / '.refused/new.json.error').read_text()
    (new.parent / '.refused/new.json').unlink()


def test_a_course_of_the_shards_other_region_can_be_taken(mnt, new_course, new_user, sql):
    course, user = new_course('africa'), new_user('europe')
    new = user.path.parent.parent / 'enrollments/new.json'
    new.write_text(json.dumps({'user_id': user.id, 'course_id': course.id}))
    assert sql('europe', 'SELECT course_id FROM enrollments WHERE user_id = %s', [user.id]) == [(course.id,)]


# ---- too large

def test_two_mebibytes_are_too_large(mnt, new_course, sql):
    row = new_course()
    before = trace(sql, row)
    text = edited(row, description='x' * (2 << 20))
    with fails(errno.EFBIG):
        row.path.write_text(text)
    assert trace(sql, row) == before and row.json()['title']
    line = last_error(mnt, row)
    assert line['errno'] == 'EFBIG' and '1048576' in line['message']
    refused(row).unlink()


def test_two_mebibytes_by_rename(mnt, new_course, sql):
    row = new_course()
    before, scratch = trace(sql, row), row.path.with_name('large.tmp')
    scratch.write_text(edited(row, description='x' * (2 << 20)))
    with fails(errno.EFBIG):
        scratch.rename(row.path)
    assert trace(sql, row) == before and scratch.stat().st_size > 2 << 20
    scratch.unlink()
    refused(row).unlink(missing_ok=True)


def test_a_mebibyte_of_blanks_is_not(mnt, new_course, sql):
    """The limit is one of the text; what is within it and right is taken."""
    row = new_course()
    text = edited(row, title='Just fits')
    row.path.write_text(text + ' ' * ((1 << 20) - len(text.encode())))
    assert trace(sql, row).document['title'] == 'Just fits' and row.path.stat().st_size < 10_000


def test_the_limit_is_configuration(mnt, new_mount, new_course, sql):
    row = new_course()
    small = new_mount(document_max='4kB').directory / row.path.relative_to(mnt)
    small.write_text(edited(row, description='x' * 2000))
    with fails(errno.EFBIG):
        small.write_text(edited(row, description='x' * 4000))
    assert len(trace(sql, row).document['description']) == 2000


# ---- who may not

def test_a_read_only_mount(mnt, new_mount, new_user, sql):
    row = new_user()
    before = trace(sql, row)
    root = new_mount(read_only='yes').directory
    path = root / row.path.relative_to(mnt)
    scratch = path.with_name('scratch.tmp')
    for change in (lambda: path.write_text('{}'), lambda: path.open('a'), lambda: path.open('r+'), path.unlink,
                   lambda: os.utime(path), lambda: os.truncate(path, 0),
                   lambda: path.with_name('new.json').write_text('{}'), lambda: path.rename(path.with_name('x')),
                   lambda: (scratch.write_text('{}'), scratch.rename(path)),
                   lambda: path.rename(root / 'regions/africa/users' / path.name),
                   lambda: path.with_name('.next-id').read_text()):
        with fails(errno.EROFS):
            change()
    assert trace(sql, row) == before and path.read_bytes() == row.read()


def test_a_role_that_may_only_read(mnt, new_mount, new_user, sql):
    """What the server denies is EACCES."""
    row = new_user()
    before = trace(sql, row)
    path = new_mount(user='campusfs_ro').directory / row.path.relative_to(mnt)
    for change in (lambda: path.write_text(edited(row, first_name='No')), path.unlink,
                   lambda: os.utime(path)):
        with fails(errno.EACCES):
            change()
    assert trace(sql, row) == before and path.read_bytes() == row.read()


def test_a_stranger_may_not_write(mnt, new_mount, new_user, sql):
    """Owner, group and mode decide, as for any file."""
    row = new_user()
    before = trace(sql, row)
    path = new_mount(uid=4242, gid=4242, file_mode='0644', dir_mode='0755').directory / row.path.relative_to(mnt)
    stranger = ['setpriv', '--reuid=4243', '--regid=4243', '--clear-groups', '--']
    owner = ['setpriv', '--reuid=4242', '--regid=4242', '--clear-groups', '--']
    sh('exec "$@"', *stranger, 'cat', path)
    for command in (['sh', '-c', 'echo x > "$1"', 'sh'], ['rm', '-f'], ['touch'], ['truncate', '-s', '0'],
                    ['chmod', '777']):
        done = sh('exec "$@"', *stranger, *command, path, check=False)
        assert done.returncode != 0 and re.search('Permission denied|not permitted', done.stderr), command
    assert trace(sql, row) == before
    sh('exec "$@"', *owner, 'sed', '-i', 's/Ada/Eve/', path)
    assert trace(sql, row).document['first_name'] == 'Eve'


# ---- secrets

def test_secrets_are_blanked_wherever_a_refusal_is_told(mnt, new_user, new_payment_method, cluster, sql):
    user, method = new_user(), new_payment_method()
    with fails(errno.EINVAL):
        user.path.write_text(edited(user, password='open sesame', role='emperor'))
    with fails(errno.EINVAL):
        method.path.write_text(edited(method, token=CARD))
    texts = [(mnt / '.campusfs/errors.jsonl').read_text()]
    texts += [path.read_text() for row in (user, method) for path in refused(row).parent.glob(f'{row.id}.json*')]
    logs = [path.read_text() for path in cluster.log_directory.glob('mount-*.log')]
    texts += logs
    assert any('emperor' in text or 'refused' in text for text in logs), 'the refusals have been logged'
    assert refused(user).exists() and refused(method).exists()
    for secret in ('open sesame', CARD, CARD.replace(' ', ''), '$2a$0', '$2a$1'):
        assert not any(secret in text for text in texts)
    assert '"emperor"' in refused(user).read_text(), 'the rest of the text is kept'


def test_a_refused_password_changes_nothing(mnt, new_user, sql):
    row = new_user()
    row.path.write_text(edited(row, password='first'))
    known = sql('europe', 'SELECT password_hash FROM user_credentials WHERE user_id = %s', [row.id])
    with fails(errno.EINVAL):
        row.path.write_text(edited(row, password='second', role='emperor'))
    assert sql('europe', 'SELECT password_hash FROM user_credentials WHERE user_id = %s', [row.id]) == known


def test_the_servers_detail_is_never_told(mnt, new_user, sql):
    """A check of the table that no function has foreseen: its DETAIL would print the whole row."""
    row = new_user()
    set_by_sql(sql, row, last_name='Lovelace')
    sql('europe', "ALTER TABLE users ADD CONSTRAINT test_detail CHECK (first_name <> 'Forbidden')")
    try:
        with fails(errno.EINVAL):
            row.path.write_text(edited(row, first_name='Forbidden', updated_at=...))
    finally:
        sql('europe', 'ALTER TABLE users DROP CONSTRAINT test_detail')
    line = last_error(mnt, row)
    assert (line['constraint'], line['sqlstate']) == ('test_detail', '23514')
    assert row.json()['email'] not in json.dumps(line) and 'Failing row' not in json.dumps(line)
