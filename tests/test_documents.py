"""Documents: canonical bytes, exact sizes, times and numbers; the same on every read and in every mount; what rsync and
diff make of them; and how soon a change by SQL is seen."""

import datetime
import json
import os
import re
import time
import uuid

import pytest

from conftest import region_number
from mount_tools import COLLECTIONS, entries, folder_of, folders, ids_in, run, view_of, wait_for

# The contract's table: every field, in order; lists and objects with the fields of theirs.
PROFILE = ['bio', 'avatar_url', 'phone', 'date_of_birth', 'country', 'city', 'timezone', 'language', 'website']
LESSON = ['id', 'title', 'kind', 'duration_minutes', 'media', 'is_preview']
FIELDS = {
    'users': ['id', 'region', 'email', 'username', 'first_name', 'last_name', 'role', 'status', 'email_verified',
              'last_login_at', {'profile': PROFILE}, 'created_at', 'updated_at'],
    'categories': ['id', 'parent_id', 'name', 'slug', 'description', 'created_at', 'updated_at'],
    'courses': ['id', 'region', 'instructor_id', 'category_id', 'title', 'slug', 'description', 'level', 'language',
                'price', 'currency', 'status', 'duration_minutes', 'average_rating', 'rating_count', 'enrollment_count',
                'published_at', {'modules': ['id', 'title', 'description', {'lessons': LESSON}]}, 'created_at',
                'updated_at'],
    'enrollments': ['id', 'region', 'user_id', 'course_id', 'status', 'progress_percent', 'enrolled_at', 'completed_at',
                    {'lessons': ['lesson_id', 'status', 'position_seconds', 'completed_at']}, 'created_at',
                    'updated_at'],
    'reviews': ['id', 'region', 'user_id', 'course_id', 'rating', 'title', 'body', 'created_at', 'updated_at'],
    'payment-methods': ['id', 'region', 'user_id', 'kind', 'brand', 'last_four', 'token', 'expires_on', 'is_default',
                        'created_at', 'updated_at'],
    'transactions': ['id', 'region', 'user_id', 'course_id', 'payment_method_id', 'amount', 'currency', 'status',
                     'gateway', 'gateway_reference', 'created_at', 'updated_at'],
    'invoices': ['id', 'region', 'transaction_id', 'number', 'status', 'issued_on', 'due_on', 'subtotal', 'tax',
                 'total', 'currency', 'created_at', 'updated_at'],
}
MOMENTS = re.compile(r'.*_at$')
MOMENT = re.compile(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z')
SEEN_WITHIN = 1.0   # seconds: what a change by SQL is given to be seen
BUSY = 9.0          # what the machine may add: the kernel keeps for minutes what it is not told of


class Number(str):
    """A number as it is written."""


def pairs_of(text):
    """A document as nested lists of (key, value) for objects, with numbers as they are written."""
    return json.loads(text, object_pairs_hook=lambda pairs: ('object', pairs), parse_float=Number, parse_int=Number)


def laid_out(value, indent=''):
    """The layout of `jq .`, numbers untouched: two spaces, [] and {} when empty, DEL escaped, no other character."""
    deeper = indent + '  '
    if isinstance(value, tuple):
        inside = [f'{deeper}{laid_out(key)}: {laid_out(item, deeper)}' for key, item in value[1]]
        return '{\n' + ',\n'.join(inside) + f'\n{indent}}}' if inside else '{}'
    if isinstance(value, list):
        inside = [deeper + laid_out(item, deeper) for item in value]
        return '[\n' + ',\n'.join(inside) + f'\n{indent}]' if inside else '[]'
    if isinstance(value, Number):
        return str(value)
    return json.dumps(value, ensure_ascii=False).replace('\x7f', '\\u007f')


def canonical(data):
    return (laid_out(pairs_of(data.decode())) + '\n').encode()


def keys_of(value, fields):
    """Compares the keys of an object with the table's, inside as well."""
    assert isinstance(value, dict)
    assert list(value) == [next(iter(field)) if isinstance(field, dict) else field for field in fields]
    for field in fields:
        if isinstance(field, dict):
            (name, inner), = field.items()
            for item in value[name] if isinstance(value[name], list) else [value[name]]:
                keys_of(item, inner)


def moments_of(value):
    if isinstance(value, dict):
        for key, item in value.items():
            if MOMENTS.match(key) and item is not None:
                yield item
            yield from moments_of(item)
    elif isinstance(value, list):
        for item in value:
            yield from moments_of(item)


def microseconds(moment):
    parsed = datetime.datetime.strptime(moment, '%Y-%m-%dT%H:%M:%S.%f%z')
    return (parsed - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)) // datetime.timedelta(microseconds=1)


@pytest.fixture(scope='module')
def rows(shared_mount):
    """Every row of the tree: (collection, path, lstat() before it was first opened, bytes)."""
    found = []
    for collection, _, path in folders(shared_mount.directory):
        for row_id in ids_in(path):
            file = path / f'{row_id}.json'
            found.append((collection, file, os.lstat(file), file.read_bytes()))
    assert {collection for collection, *_ in found} == set(COLLECTIONS) and len(found) > 500
    return found


# ---- the whole tree

def test_every_document_is_laid_out_as_jq_does(rows):
    for _, path, _, data in rows:
        assert data == canonical(data), path


def test_every_document_has_the_fields_of_its_collection_in_order(rows):
    for collection, path, _, data in rows:
        keys_of(json.loads(data), FIELDS[collection])
        assert len(re.findall(rb'^  "', data, re.MULTILINE)) == len(FIELDS[collection]), path


def test_every_document_says_what_its_path_says(rows):
    for collection, path, _, data in rows:
        document = json.loads(data)
        assert f'{document["id"]}.json' == path.name
        assert collection == 'categories' or document['region'] == path.parents[1].name, path


def test_every_size_is_exact_before_the_file_is_opened(rows):
    for _, path, status, data in rows:
        assert status.st_size == len(data), path


def test_every_time_of_change_is_that_of_the_document(rows):
    for _, path, status, data in rows:
        assert status.st_mtime_ns == microseconds(json.loads(data)['updated_at']) * 1000, path


def test_every_moment_has_the_same_width(rows):
    moments = [moment for _, _, _, data in rows for moment in moments_of(json.loads(data))]
    assert len(moments) > 1000 and [moment for moment in moments if not MOMENT.fullmatch(moment)] == []


def test_documents_are_what_the_views_say(rows, sql, mnt):
    """The mount adds the layout and nothing else: every token is the database's."""
    bodies = {}
    for collection, region, path in folders(mnt):
        for row_id, body in sql(region or 'americas', f'SELECT id, body FROM {view_of(collection)} WHERE region = %s',
                                (region_number(region),)):
            bodies[path / f'{row_id}.json'] = body
    for _, path, _, data in rows:
        assert pairs_of(data.decode()) == pairs_of(bodies[path]), path


def test_the_same_bytes_on_every_read_and_in_every_mount(rows, mnt, new_mount):
    other = new_mount().directory
    for _, path, _, data in rows:
        assert path.read_bytes() == data
        assert (other / path.relative_to(mnt)).read_bytes() == data


def test_secrets_are_not_in_the_tree(rows, sql):
    hashes = {value for value, in sql('europe', 'SELECT password_hash FROM user_credentials LIMIT 20')}
    text = b''.join(data for *_, data in rows)
    assert hashes and b'"password' not in text and b'$2a$' not in text and b'$2b$' not in text


# ---- one document in detail

@pytest.fixture(scope='module')
def one_of_each(new_of):
    """A row of every collection without numbers that jq would write in another way."""
    return {collection: new_of(collection) for collection in COLLECTIONS}


@pytest.mark.parametrize('collection', COLLECTIONS)
def test_jq_itself_agrees(collection, one_of_each):
    """What jq prints is the file, but that jq 1.6 writes 49.9 for 49.90."""
    path = one_of_each[collection].path
    done = run('jq', '.', path)
    short = re.sub(rb'(: \d+)(\.\d*?)\.?0+(,?\n)', lambda m: m[1] + (m[2] if m[2] != b'.' else b'') + m[3],
                   path.read_bytes())
    assert (done.returncode, done.stdout) == (0, short)


PRICES = ['49.90', '0.00', '0.01', '0.10', '100.00', '19.99', '99999999.99', '1234567.80', '33333333.33']


@pytest.mark.parametrize('price', PRICES)
def test_amounts_are_exact(price, new_course, sql):
    course = new_course(price=json.loads(price))
    sql('europe', 'UPDATE courses SET price = %s::numeric WHERE id = %s', (price, course.id))
    line = f'  "price": {price},\n'.encode()
    assert wait_for(lambda: line in course.read(), 30)


def test_amounts_beyond_a_double_are_exact(new_transaction, sql):
    transaction = new_transaction(amount=9999999999.99, currency='IDR')
    assert b'"amount": 9999999999.99,\n' in transaction.read()


def test_the_largest_ids_are_exact(mnt, new_user):
    """Ids up to 2^38 - 1, in the name, in the document and in the inode number."""
    row_id, user = 2 ** 38 - 1, new_user('oceania')
    document = {key: value for key, value in user.document.items() if key not in ('id', 'created_at', 'updated_at')}
    path = folder_of(mnt, 'users', 'oceania') / f'{row_id}.json'
    name = uuid.uuid4().hex
    path.write_text(json.dumps({**document, 'email': f'{name}@example.org', 'username': name}))
    try:
        assert path.read_text().startswith('{\n  "id": 274877906943,\n')
        assert os.stat(path).st_ino == 1 << 60 | 6 << 54 | row_id << 16
        assert path.name in os.listdir(path.parent)
    finally:
        path.unlink()
    assert not path.exists()


TEXTS = {
    'latin': 'Žluťoučký kůň, ÅÄÖ, ß',
    'rtl': 'مرحبا بالعالم — שלום',
    'cjk': '你好，世界・こんにちは・안녕하세요',
    'astral': '😀👩‍👩‍👧‍👦 𝒳 🏳️‍🌈',
    'combining': 'é ñ Ḍ̇ क्षि',
    'separators': 'line\u2028paragraph\u2029nel\u0085zero\u200bwidth\ufeffbom',
    'noncharacters': '\ufffe\uffff\U0010ffff\ue000',
    'quotes': '"\\" \' ` / \\/ \\u0041 %s %n $HOME ; -- \' OR 1=1',
    'controls': ''.join(chr(code) for code in range(1, 0x20)),
    'escapes': '\b\f\n\r\t\\n\x7f\x80\x9f',
    'blank': '   ',
    'html': '<script>&amp;</script>',
}


@pytest.mark.parametrize('kind', TEXTS)
def test_text_of_every_kind(kind, new_review):
    text = TEXTS[kind]
    review = new_review(title=text[:200], body=text)
    data = review.read()
    assert json.loads(data)['body'] == text
    assert data == canonical(data)
    assert run('jq', '.', review.path).stdout == data
    assert os.stat(review.path).st_size == len(data)


@pytest.mark.parametrize('kind', TEXTS)
def test_text_survives_being_saved_by_jq(kind, new_review):
    """Through the mount and back: what jq wrote is read, and written, without a change."""
    review = new_review(body='before')
    text = json.dumps({**review.json(), 'body': TEXTS[kind]})
    review.path.write_text(text)
    written = run('jq', '.', review.path).stdout
    before = os.stat(review.path).st_mtime_ns
    review.path.write_bytes(written)
    assert (review.read(), os.stat(review.path).st_mtime_ns) == (written, before)
    assert json.loads(written)['body'] == TEXTS[kind]


@pytest.mark.parametrize('letter', ['x', 'ü', '世', '😀', '\x01', '"'])
def test_long_texts(letter, new_course):
    course = new_course(description=letter * 100_000)
    data = course.read()
    assert json.loads(data)['description'] == letter * 100_000 and os.stat(course.path).st_size == len(data)
    assert data == canonical(data)


def test_long_lists(new_course):
    lessons = [{'title': f'Lesson {n}', 'kind': 'quiz', 'duration_minutes': n % 60, 'is_preview': n % 2 == 0}
               for n in range(400)]
    course = new_course(modules=[{'title': 'Long', 'lessons': lessons}, {'title': 'Empty', 'lessons': []}])
    data = course.read()
    document = json.loads(data)
    assert [lesson['title'] for lesson in document['modules'][0]['lessons']] == [lesson['title'] for lesson in lessons]
    assert document['modules'][1]['lessons'] == [] and b'      "lessons": []\n' in data
    assert data == canonical(data) and os.stat(course.path).st_size == len(data)


def test_an_empty_curriculum(new_course):
    assert b'  "modules": [],\n' in new_course(modules=[]).read()


def test_what_is_missing_is_null(new_user):
    document = new_user(profile={}, last_login_at=None).json()
    assert document['last_login_at'] is None and set(document['profile'].values()) == {None}


def test_reads_at_any_offset(new_course):
    course = new_course(description='0123456789' * 900)
    data = course.read()
    fd = os.open(course.path, os.O_RDONLY)
    for offset, size in ((0, 1), (1, 10), (4095, 2), (4096, 4096), (len(data) - 1, 1), (len(data) - 1, 100)):
        assert os.pread(fd, size, offset) == data[offset:offset + size]
    assert os.pread(fd, 10, len(data)) == os.pread(fd, 10, len(data) + 5000) == b''
    assert os.lseek(fd, 0, os.SEEK_END) == len(data)
    os.close(fd)


def test_a_reader_keeps_what_it_opened(new_user, sql):
    """Whatever becomes of the row: an open file has one size and one content, to its end."""
    user = new_user()
    fd = os.open(user.path, os.O_RDONLY)
    first = os.pread(fd, 10, 0)
    before = os.fstat(fd)
    sql('europe', "UPDATE users SET first_name = repeat('x', 90) WHERE id = %s", (user.id,))
    assert wait_for(lambda: b'xxx' in user.read(), 30)
    rest = os.pread(fd, 100_000, 10)
    assert json.loads(first + rest) == user.document and os.fstat(fd).st_size == len(first + rest)
    sql('europe', 'DELETE FROM users WHERE id = %s', (user.id,))
    assert wait_for(lambda: not user.path.exists(), 30)
    assert os.pread(fd, 100_000, 0) == first + rest and os.fstat(fd).st_mtime_ns == before.st_mtime_ns
    os.close(fd)


# ---- what moves a document's time

def test_every_change_of_a_byte_moves_the_time(new_course, new_review, new_enrollment, sql):
    """A lesson's progress moves its enrollment's, a rating its course's."""
    course = new_course()
    enrollment = new_enrollment(course_id=course.id)
    before, lesson = os.stat(enrollment.path), enrollment.json()['lessons'][0]['lesson_id']
    sql('europe', "UPDATE lesson_progress SET status = 'completed', completed_at = now() "
                  'WHERE enrollment_id = %s AND lesson_id = %s', (enrollment.id, lesson))
    assert wait_for(lambda: os.stat(enrollment.path).st_mtime_ns > before.st_mtime_ns, 30)
    assert enrollment.json()['progress_percent'] == 25

    read, before = course.read(), os.stat(course.path)
    new_review(course_id=course.id, user_id=enrollment.document['user_id'], rating=5)
    assert wait_for(lambda: os.stat(course.path).st_mtime_ns > before.st_mtime_ns, 30)
    assert course.read() != read and course.json()['rating_count'] == 1


def test_a_folder_has_the_time_of_its_last_change(new_user, mnt, sql):
    user = new_user('africa')
    folder = user.path.parent
    for change in ("UPDATE users SET first_name = 'Grace' WHERE id = %s", 'DELETE FROM users WHERE id = %s'):
        (before,), = sql('africa', 'SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint')
        sql('africa', change, (user.id,))
        (after,), = sql('africa', 'SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint')
        assert wait_for(lambda: before <= os.stat(folder).st_mtime_ns // 1000 <= after, SEEN_WITHIN + BUSY)
    other = os.stat(folder_of(mnt, 'users', 'asia')).st_mtime_ns
    assert other != os.stat(folder).st_mtime_ns


# ---- changes by SQL

def seen_after(look, want, change):
    """How many seconds after the change `look` gave what is wanted; both caches are kept warm all the time."""
    look()
    change()
    begun = time.monotonic()
    assert wait_for(lambda: look() == want, 60, 0.002), f'{look()!r} instead of {want!r}'
    return time.monotonic() - begun


CHANGES = {'shorter': 'Al', 'longer': 'Alexandrina Victoria', 'equal length': 'Ida'}


@pytest.mark.parametrize('kind', CHANGES)
def test_a_change_by_sql_is_seen_within_a_second_by_cat(kind, new_user, sql):
    user, name = new_user(), CHANGES[kind]
    took = seen_after(lambda: user.json()['first_name'], name,
                      lambda: sql('europe', 'UPDATE users SET first_name = %s WHERE id = %s', (name, user.id)))
    assert took < SEEN_WITHIN + BUSY


@pytest.mark.parametrize('kind', CHANGES)
def test_a_change_by_sql_is_seen_within_a_second_by_stat(kind, new_user, sql):
    user, name = new_user(), CHANGES[kind]
    size, before = os.stat(user.path).st_size, os.stat(user.path).st_mtime_ns

    def look():
        status = os.stat(user.path)
        return (status.st_size, status.st_mtime_ns > before)
    took = seen_after(look, (size + len(name) - 3, True),
                      lambda: sql('europe', 'UPDATE users SET first_name = %s WHERE id = %s', (name, user.id)))
    assert took < SEEN_WITHIN + BUSY


def test_rows_made_and_deleted_by_sql_are_seen_within_a_second_by_ls(new_user, sql):
    user = new_user('africa')
    folder = user.path.parent
    made = {}

    def make():
        made['row'] = new_user('africa')
    look = lambda: f'{made["row"].id}.json' in os.listdir(folder) if made else False  # noqa: E731
    assert seen_after(look, True, make) < SEEN_WITHIN + BUSY
    path = folder / f'{made["row"].id}.json'
    delete = lambda: sql('africa', 'DELETE FROM users WHERE id = %s', (made['row'].id,))  # noqa: E731
    assert seen_after(lambda: path.name in os.listdir(folder), False, delete) < SEEN_WITHIN + BUSY
    assert wait_for(lambda: not os.path.lexists(path), SEEN_WITHIN + BUSY)


def test_a_row_that_was_missing_is_seen_within_a_second(sql, new_user):
    """The kernel has been told that there is no such name."""
    user = new_user('africa')
    path = user.path.with_name(f'{user.id + 50_000_000}.json')
    insert = ('INSERT INTO users (region, id, email, username, first_name, last_name, role, status) '
              "SELECT region, id + 50000000, id || '@late.example.org', 'late-' || id, first_name, last_name, role, "
              'status FROM users WHERE id = %s')
    change = lambda: sql('africa', insert, (user.id,))  # noqa: E731
    assert seen_after(path.exists, True, change) < SEEN_WITHIN + BUSY
    sql('africa', 'DELETE FROM users WHERE id = %s', (user.id + 50_000_000,))


def test_a_change_is_seen_in_a_listing_that_was_read_before(new_user, sql):
    """`ls -l` shows size and time of the new revision, as stat does."""
    user = new_user('africa')
    folder = user.path.parent
    os.listdir(folder)
    sql('africa', "UPDATE users SET first_name = 'Maximiliana' WHERE id = %s", (user.id,))

    def listed():
        with os.scandir(folder) as found:
            return next(entry.stat().st_size for entry in found if entry.name == user.path.name)
    assert wait_for(lambda: b'Maximiliana' in user.read(), SEEN_WITHIN + BUSY)
    assert wait_for(lambda: listed() == len(user.read()) == len(canonical(user.read())), SEEN_WITHIN + BUSY)


# ---- copies of the whole tree

def transferred(source, target, *options):
    done = run('rsync', '-a', '--stats', *options, f'{source}/', f'{target}/', timeout=120)
    assert done.returncode == 0, done.stderr
    return int(re.search(rb'regular files transferred: ([\d,]+)', done.stdout)[1].replace(b',', b''))


@pytest.fixture(scope='module')
def backup(shared_mount, tmp_path_factory):
    """The tree of one region, and how many files went over."""
    target = tmp_path_factory.mktemp('backup')
    return target, transferred(shared_mount.directory, target)


def test_a_second_rsync_sends_nothing(backup, mnt):
    target, first = backup
    assert first > 500
    assert transferred(mnt, target) == 0
    assert transferred(mnt, target, '--modify-window=-1') == 0
    changes = run('rsync', '-ani', '--modify-window=-1', '--delete', f'{mnt}/', f'{target}/', timeout=60).stdout
    assert changes == b''


def test_the_copy_is_the_tree(backup, mnt):
    target, _ = backup
    compared = run('diff', '-r', mnt, target, timeout=60)
    assert (compared.returncode, compared.stdout) == (0, b'')
    for _, _, path in folders(mnt):
        for entry in entries(path):
            here, there = os.lstat(path / entry.name), os.lstat(target / path.relative_to(mnt) / entry.name)
            kept = ('st_size', 'st_mtime_ns', 'st_mode')
            assert [getattr(here, name) for name in kept] == [getattr(there, name) for name in kept], entry.name


def test_rsync_sends_what_has_changed_and_nothing_else(new_user, sql, tmp_path):
    user, other = new_user('africa'), new_user('africa')
    folder = user.path.parent
    transferred(folder, tmp_path)
    sql('africa', "UPDATE users SET first_name = 'Ida' WHERE id = %s", (user.id,))
    assert wait_for(lambda: b'"Ida"' in user.read(), 30)
    assert transferred(folder, tmp_path, '--modify-window=-1') == 1
    assert (tmp_path / user.path.name).read_bytes() == user.read()
    assert (tmp_path / other.path.name).read_bytes() == other.read()
    assert transferred(folder, tmp_path, '--modify-window=-1') == 0
