"""Saving a row: the file's content becomes the row, at the commit point, once; times; changes by others meanwhile.

Creating, deleting and moving rows is in test_save_names.py, what is refused in test_save_refused.py.
"""

import datetime
import errno
import json
import os
import re
import time

import pytest

from saving import Actor, edited, errors, eventually, fails, last_error, parse, refused, set_by_sql, sh, trace

AS_STRANGER = ['setpriv', '--reuid=4243', '--regid=4243', '--clear-groups', '--']
EMPTY_PROFILE = dict.fromkeys(['bio', 'avatar_url', 'phone', 'date_of_birth', 'country', 'city', 'timezone', 'language',
                               'website'])
MOMENT = '2026-05-04T03:02:01.000006Z'

# collection: what an edit changes; fields given first and what they are once they are left out; computed fields.
COLLECTIONS = {
    'users': ({'first_name': 'Grace', 'profile': {**EMPTY_PROFILE, 'city': 'Zürich', 'bio': '你好'}},
              {'last_name': ('Hopper', ''), 'role': ('instructor', 'student'), 'status': ('suspended', 'active'),
               'email_verified': (True, False), 'last_login_at': (MOMENT, None),
               'profile': ({'bio': 'x', 'country': 'DE', 'date_of_birth': '1990-01-31'}, EMPTY_PROFILE)}, {}),
    'courses': ({'title': 'Über', 'price': 1234567.89},
                {'category_id': (..., None), 'description': ('Long.', None), 'level': ('advanced', 'beginner'),
                 'language': ('de', 'en'), 'price': (12.30, 0), 'currency': ('CHF', 'USD'),
                 'status': ('published', 'draft'), 'published_at': (MOMENT, None)},
                {'duration_minutes': 9999, 'average_rating': 5, 'rating_count': 77, 'enrollment_count': 88}),
    'enrollments': ({'status': 'cancelled'},
                    {'status': ('completed', 'active'), 'completed_at': (MOMENT, None)}, {'progress_percent': 99.5}),
    'reviews': ({'rating': 1, 'title': 'Changed'}, {'title': ('T', None), 'body': ('B', None)}, {}),
    'payment-methods': ({'brand': 'mastercard'},
                        {'kind': ('bank', 'card'), 'brand': ('b', None), 'last_four': ('1234', None),
                         'expires_on': ('2030-01-31', None), 'is_default': (True, False)}, {}),
    'transactions': ({'amount': 50.05},
                     {'payment_method_id': (..., None), 'currency': ('GBP', 'USD'), 'status': ('failed', 'pending'),
                      'gateway': ('adyen', None), 'gateway_reference': (..., None)}, {}),
    'invoices': ({'subtotal': 100.05},
                 {'status': ('paid', 'draft'), 'issued_on': ('2026-02-03', None), 'due_on': ('2026-03-03', None),
                  'tax': (1.25, 0), 'currency': ('GBP', 'USD')}, {'total': 1}),
    'categories': ({'name': 'Other'}, {'description': ('D', None), 'parent_id': (..., None)}, {}),
}
collections = pytest.mark.parametrize('collection', COLLECTIONS)


def written(before, after):
    """How many entries one save has added: of this row in the change log, of its shard in the request log."""
    return after.changes - before.changes, after.requests - before.requests


def text_of(us):
    """A time of the database as documents show it."""
    moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(microseconds=us)
    return moment.isoformat(timespec='microseconds') + 'Z'


def agrees(row, now):
    """The file shows what the row is, with its time to the microsecond and its exact size."""
    text = row.read()
    status = row.path.stat()
    assert parse(text) == now.document
    assert now.document['updated_at'] == text_of(now.updated_us)
    assert (status.st_mtime_ns, status.st_size) == (now.updated_us * 1000, len(text))


# ---- PUT

@collections
def test_content_becomes_the_row(mnt, new_of, sql, collection, tmp_path):
    row = new_of(collection)
    before = trace(sql, row)
    fields = COLLECTIONS[collection][0]
    (tmp_path / 'edited').write_text(edited(row, **fields))
    sh('cat "$1" > "$2"', tmp_path / 'edited', row.path)
    after = trace(sql, row)
    expected = {**before.document, **parse(json.dumps(fields)), 'updated_at': after.document['updated_at']}
    if collection == 'invoices':
        expected['total'] = after.document['total']
    assert list(after.document.items()) == list(expected.items()), 'the other fields, and their order, stay'
    assert after.rev > before.rev and after.updated_us > before.updated_us and after.content_us == after.updated_us
    assert written(before, after) == (1, 1)
    agrees(row, after)


@collections
def test_a_field_left_out_is_null_or_its_default(mnt, new_of, sql, collection):
    changes = COLLECTIONS[collection][1]
    row = new_of(collection, **{field: given for field, (given, _) in changes.items() if given is not ...})
    assert all(row.json()[field] not in (then, None) for field, (_, then) in changes.items() if field != 'parent_id')
    row.path.write_text(edited(row, **dict.fromkeys(changes, ...)))
    assert {field: row.json()[field] for field in changes} == {field: then for field, (_, then) in changes.items()}
    agrees(row, trace(sql, row))


@pytest.mark.parametrize('collection', [name for name, case in COLLECTIONS.items() if case[2]])
def test_computed_fields_are_not_taken(mnt, new_of, sql, collection):
    fields, _, computed = COLLECTIONS[collection]
    row = new_of(collection)
    before = trace(sql, row)
    row.path.write_text(edited(row, **computed))
    assert trace(sql, row) == before, 'a save that changes only computed fields is none'
    row.path.write_text(edited(row, **computed, **fields))
    after = trace(sql, row)
    assert written(before, after) == (1, 1)
    document = json.loads(after.body)
    expected = {key: json.loads(before.body)[key] for key in computed}
    if collection == 'invoices':
        expected = {'total': round(document['subtotal'] + document['tax'], 2)}
    assert {key: document[key] for key in computed} == expected


@collections
def test_a_save_that_equals_the_row_writes_nothing(mnt, new_of, sql, collection, tmp_path):
    row = new_of(collection)
    before, status = trace(sql, row), row.path.stat()
    copy = tmp_path / 'copy'
    sh('cat "$1" > "$2"; cat "$2" > "$1"; cp "$2" "$1"; cp "$2" "$1.tmp"; mv "$1.tmp" "$1"', row.path, copy)
    row.save({**row.json(), 'updated_at': '2000-01-01T00:00:00.000000Z', 'created_at': '2000-01-01T00:00:00.000000Z'})
    document = json.loads(copy.read_text())
    del document['updated_at'], document['id']
    row.path.write_text(json.dumps(dict(reversed(document.items())), separators=(',', ':')))
    assert trace(sql, row) == before
    assert row.read() == copy.read_bytes()
    assert row.path.stat() == status


def test_numbers_keep_every_digit(mnt, new_course, new_transaction, sql):
    """What jq or a double would spoil: 9999999999.99, trailing zeros, ids beyond 2^53 are nobody's."""
    course, payment = new_course(), new_transaction()
    course.path.write_text(re.sub(r'"price": [\d.]+', '"price": 99999999.90', course.read().decode()))
    payment.path.write_text(re.sub(r'"amount": [\d.]+', '"amount": 9999999999.99', payment.read().decode()))
    assert b'"price": 99999999.90,' in course.read() and b'"amount": 9999999999.99,' in payment.read()
    assert '"amount":9999999999.99,' in trace(sql, payment).body


def test_children_are_saved_with_their_document(mnt, new_course, sql):
    row = new_course()
    document = row.json()
    first, second = document['modules']
    lesson = {'title': 'New', 'kind': 'quiz', 'duration_minutes': 3, 'media': 'a/b.mp4', 'is_preview': True}
    second['lessons'] = [first['lessons'].pop(0), lesson]
    document['modules'] = [second, first]
    before = trace(sql, row)
    row.save(document)
    assert written(before, trace(sql, row)) == (1, 1)
    saved = row.json()
    assert [module['id'] for module in saved['modules']] == [second['id'], first['id']]
    assert saved['modules'][0]['lessons'][0] == second['lessons'][0]
    assert {**saved['modules'][0]['lessons'][1], 'id': None} == {**lesson, 'id': None}
    assert saved['modules'][0]['lessons'][1]['id'] and saved['duration_minutes'] == 12 + 3 + 12


def test_a_password_is_taken_and_never_shown(mnt, new_user, sql):
    row = new_user()
    before = trace(sql, row)
    row.path.write_text(edited(row, password='correct horse'))
    (hashed,), = sql('europe', 'SELECT password_hash FROM user_credentials WHERE user_id = %s', [row.id])
    assert hashed.startswith('$2') and 'password' not in row.json()
    after = trace(sql, row)
    assert written(before, after)[1] == 1
    row.path.write_text(edited(row, password='correct horse'))
    row.path.write_text(edited(row, first_name='Same'))
    assert sql('europe', 'SELECT password_hash FROM user_credentials WHERE user_id = %s', [row.id]) == [(hashed,)]


# ---- times

@pytest.mark.parametrize('moment', ['2020-01-02 03:04:05.678901Z', '1969-07-20 20:17:40.000001Z',
                                    '2099-12-31 23:59:59.999999Z'])
def test_touch_sets_the_time(mnt, new_user, sql, moment):
    row = new_user()
    row.read()
    before = trace(sql, row)
    sh('touch -d "$2" "$1"', row.path, moment)
    after = trace(sql, row)
    assert text_of(after.updated_us) == moment.replace(' ', 'T') and after.content_us == after.updated_us
    assert written(before, after) == (1, 1)
    agrees(row, after)
    sh('touch -d "$2" "$1"', row.path, moment)
    assert trace(sql, row) == after, 'the same time again writes nothing'


def test_touch_without_a_time_is_now(mnt, new_user, sql):
    row = new_user()
    sh('touch -d 2001-01-01 "$1"; touch "$1"', row.path)
    assert abs(trace(sql, row).updated_us / 1e6 - time.time()) < 30
    agrees(row, trace(sql, row))


@pytest.mark.parametrize('copy', ['cp -p "$1" "$2"', 'cp -a "$1" "$2"', 'install -p -m 640 "$1" "$2"',
                                  'rsync -a "$1" "$2"', 'rsync -a --inplace "$1" "$2"',
                                  'cp -p "$1" "$2.tmp" && mv "$2.tmp" "$2"'])
def test_copies_bring_their_time(mnt, new_user, sql, tmp_path, copy):
    row = new_user()
    file = tmp_path / row.path.name
    file.write_text(edited(row, first_name='Copied'))
    sh('touch -d "2031-05-06 07:08:09.123456Z" "$1"', file)
    before = trace(sql, row)
    sh(copy, file, row.path)
    after = trace(sql, row)
    assert text_of(after.updated_us) == '2031-05-06T07:08:09.123456Z' and after.document['first_name'] == 'Copied'
    assert written(before, after)[1] <= 2 and after.content_us == after.updated_us
    agrees(row, after)


def test_a_time_set_before_the_close_is_the_commits(mnt, new_user, sql):
    row = new_user()
    text = edited(row, first_name='Timed')
    before = trace(sql, row)
    with open(row.path, 'w') as file:
        file.write(text)
        file.flush()
        os.utime(file.fileno(), ns=(0, 1_500_000_000_123_456_789))
        assert os.fstat(file.fileno()).st_mtime_ns == 1_500_000_000_123_456_000
    after = trace(sql, row)
    assert after.updated_us == 1_500_000_000_123_456 and written(before, after) == (1, 1)
    agrees(row, after)


@pytest.mark.parametrize('changed', [False, True])
def test_a_time_set_through_a_readers_descriptor(new_mount, mnt, new_user, sql, changed):
    """The kernel looks no name up for a descriptor: what it is answered is what the user gets."""
    root, row = new_mount().directory, new_user()
    path = root / row.path.relative_to(mnt)
    fd = os.open(path, os.O_RDONLY)
    try:
        text = os.pread(fd, 4096, 0)
        if changed:
            set_by_sql(sql, row, first_name='Meanwhile')
            assert eventually(lambda: b'Meanwhile' in path.read_bytes(), 30)
        before = trace(sql, row)
        os.utime(fd, ns=(0, 1_500_000_000_123_456_000))
        after = trace(sql, row)
        assert after.updated_us == 1_500_000_000_123_456 and written(before, after) == (1, 1)
        assert after.document['first_name'] == before.document['first_name']
        assert os.fstat(fd).st_mtime_ns == path.stat().st_mtime_ns == 1_500_000_000_123_456_000
        assert os.pread(fd, 4096, 0) == text and os.fstat(fd).st_size == len(text)
        os.utime(path, ns=(0, 1_600_000_000_000_000_000))  # by its name, while it is open
        assert trace(sql, row).updated_us == 1_600_000_000_000_000
        assert path.stat().st_mtime_ns == 1_600_000_000_000_000_000
    finally:
        os.close(fd)
    assert b'2020-09-13T12:26:40.000000Z' in path.read_bytes()


def test_a_time_set_before_more_is_written_counts_no_more(mnt, new_user, sql):
    """The commit's time is its own then: later than the last one, wherever that lies."""
    row = new_user()
    sh('touch -d "2090-01-01 00:00:00Z" "$1"', row.path)
    before = trace(sql, row)
    text = edited(row, first_name='Timed').encode()
    fd = os.open(row.path, os.O_WRONLY | os.O_TRUNC)
    os.write(fd, text[:50])
    os.utime(fd, ns=(0, 1_500_000_000_000_000_000))
    os.write(fd, text[50:])
    os.close(fd)
    assert trace(sql, row).updated_us == before.updated_us + 1


def test_a_save_is_always_later_than_the_last(mnt, new_user, sql):
    """Also where the last time lies in the future."""
    row = new_user()
    sh('touch -d "2090-01-01 00:00:00Z" "$1"', row.path)
    before = trace(sql, row)
    row.path.write_text(edited(row, first_name='Later'))
    after = trace(sql, row)
    assert after.updated_us == before.updated_us + 1
    agrees(row, after)


def test_owner_and_mode_of_a_row_stay(mnt, new_user, sql):
    row = new_user()
    before, status = trace(sql, row), row.path.stat()
    sh('chmod 600 "$1" && chown 0:0 "$1" && chmod 755 "$2" && touch -d 2020-01-01 "$2"', row.path, row.path.parent)
    assert (row.path.stat(), trace(sql, row)) == (status, before)


# ---- what others changed meanwhile

def test_a_change_by_others_is_a_conflict(mnt, new_user, sql):
    row = new_user()
    mine = edited(row, first_name='Mine')
    set_by_sql(sql, row, first_name='Theirs')
    theirs = trace(sql, row)
    with fails(errno.ECANCELED):
        row.path.write_text(mine)
    assert trace(sql, row) == theirs
    eventually(lambda: row.json()['first_name'] == 'Theirs')
    assert refused(row).read_text() == mine
    words = refused(row).with_name(row.path.name + '.error').read_text()
    line = last_error(mnt, row)
    assert (line['errno'], line['sqlstate'], line['column']) == ('ECANCELED', 'CF003', 'updated_at')
    assert line['message'] in words and 'was changed at' in words and line['hint'] in words


def test_a_conflict_by_rename_leaves_the_file_where_it_was(mnt, new_user, sql):
    row = new_user()
    scratch = row.path.with_name('mine.json')
    scratch.write_text(edited(row, first_name='Mine'))
    set_by_sql(sql, row, last_name='Theirs')
    done = sh('mv -f "$1" "$2"', scratch, row.path, check=False)
    assert done.returncode == 1 and os.strerror(errno.ECANCELED) in done.stderr
    assert json.loads(scratch.read_text())['first_name'] == 'Mine'
    eventually(lambda: row.json()['last_name'] == 'Theirs')
    scratch.unlink()


def test_a_document_without_updated_at_replaces_the_row(mnt, new_user, sql):
    row = new_user()
    text = edited(row, first_name='Mine', updated_at=...)
    set_by_sql(sql, row, first_name='Theirs')
    row.path.write_text(text)
    assert trace(sql, row).document['first_name'] == 'Mine'


def test_derived_values_that_moved_are_no_conflict(mnt, new_course, new_review, new_user, sql):
    course, user = new_course(), new_user()
    mine, me = edited(course, title='Edited'), edited(user, first_name='Edited')
    new_review(course_id=course.id, user_id=new_user().id, rating=2)
    sql('europe', 'UPDATE users SET last_login_at = %s WHERE id = %s', ['2026-07-01 08:00:00+00', user.id])
    eventually(lambda: course.json()['rating_count'] == 1)
    course.path.write_text(mine)
    user.path.write_text(me)
    assert (course.json()['title'], course.json()['rating_count']) == ('Edited', 1)
    assert user.json()['first_name'] == 'Edited' and user.json()['last_login_at'] == '2026-07-01T08:00:00.000000Z'


@pytest.mark.parametrize('way', ['close', 'rename', 'fsync'])
def test_saving_twice_from_one_buffer_is_no_conflict(mnt, new_user, sql, way):
    """An editor keeps the updated_at that it has read."""
    row = new_user()
    buffers = [edited(row, first_name=name) for name in ('One', 'Two', 'Three')]
    for text in buffers:
        if way == 'rename':
            row.path.with_name('buffer.tmp').write_text(text)
            os.rename(row.path.with_name('buffer.tmp'), row.path)
            continue
        with open(row.path, 'w') as file:
            file.write(text)
            file.flush()
            if way == 'fsync':
                os.fsync(file.fileno())
    assert trace(sql, row).document['first_name'] == 'Three'


def test_saving_twice_through_one_handle_is_no_conflict(mnt, new_user, sql):
    row = new_user()
    before = trace(sql, row)
    texts = [edited(row, first_name=name).encode() for name in ('One', 'Two')]
    fd = os.open(row.path, os.O_RDWR)
    for text in texts:
        os.ftruncate(fd, 0)
        os.pwrite(fd, text, 0)
        os.fsync(fd)
    os.close(fd)
    after = trace(sql, row)
    assert after.document['first_name'] == 'Two' and written(before, after) == (2, 2)


def test_another_process_is_somebody_else(mnt, new_user, sql):
    row = new_user()
    mine, theirs = edited(row, first_name='Mine'), edited(row, first_name='Theirs')
    row.path.write_text(edited(row, first_name='Mine'))
    with Actor() as other:
        with fails(errno.ECANCELED):
            other.save(row.path, theirs)
        other.save(row.path, edited(row, first_name='Theirs, merged'))
        with fails(errno.ECANCELED):
            row.path.write_text(mine)
    assert trace(sql, row).document['first_name'] == 'Theirs, merged'


def test_a_second_handle_opened_before_the_first_was_saved_is_a_conflict(mnt, new_user, sql):
    """Within one process, too: what the second one read did not have the first one's change."""
    row = new_user()
    first, second = open(row.path, 'r+'), open(row.path, 'r+')
    changed = []
    for file, name in ((first, 'First'), (second, 'Second')):
        document = {**json.load(file), 'first_name': name}
        file.seek(0)
        file.truncate()
        json.dump(document, file)
        changed.append(document)
    first.close()
    with fails(errno.ECANCELED):
        second.close()
    assert trace(sql, row).document['first_name'] == 'First'
    assert json.loads(refused(row).read_text()) == changed[1]


SEND = ['rsync -a "$1" "$2"', 'cp -p "$1" "$2"', 'cp -p "$1" "$2.tmp" && mv "$2.tmp" "$2"']


@pytest.mark.parametrize('send', SEND)
def test_a_copy_that_is_edited_elsewhere_can_be_sent_again(mnt, new_user, sql, tmp_path, send):
    """Its updated_at is that of the version that was fetched; each time a newer one of the same user comes over the last."""
    row = new_user()
    before, copy = trace(sql, row), tmp_path / row.path.name
    sh('rsync -a "$1" "$2"', row.path, copy)
    fetched = copy.read_text()

    def sent(name, seconds):
        copy.write_text(fetched.replace('"Ada"', f'"{name}"'))
        os.utime(copy, ns=(0, (before.updated_us + seconds * 10 ** 6) * 1000))
        return sh(send, copy, row.path, check=False)
    for name, seconds in (('One', 10), ('Two', 20), ('Three', 21)):
        done = sent(name, seconds)
        assert done.returncode == 0, done.stderr
        now = trace(sql, row)
        assert (now.document['first_name'], now.updated_us) == (name, before.updated_us + seconds * 10 ** 6)
    for change in (lambda: sent('Older', 15), lambda: sh('cp "$1" "$2"', copy, row.path, check=False)):
        done = change()
        assert done.returncode != 0 and os.strerror(errno.ECANCELED) in done.stderr
    set_by_sql(sql, row, last_name='Theirs')
    done = sent('Four', 30)
    assert done.returncode != 0 and os.strerror(errno.ECANCELED) in done.stderr
    assert (row.json()['first_name'], row.json()['last_name']) == ('Three', 'Theirs')
    row.path.with_name(f'{row.path.name}.tmp').unlink(missing_ok=True)


def test_a_copy_that_another_user_edits_elsewhere_is_a_conflict(mnt, new_mount, new_user, sql):
    """And one that was fetched at another time."""
    row = new_user()
    path = new_mount(dir_mode='0777', file_mode='0666').directory / row.path.relative_to(mnt)
    first = path.read_bytes()
    deliver = 'printf %s "$2" > "$1.tmp" && touch -d "@$3" "$1.tmp" && mv "$1.tmp" "$1"'
    for number, (account, text, name) in enumerate([([], first, 'One'), (AS_STRANGER, first, 'Other'), ([], None, 'Two'),
                                                   ([], first, 'Three')]):
        document = {**json.loads(text or path.read_bytes()), 'first_name': name}
        done = sh('exec "$@"', *account, 'sh', '-c', deliver, 'sh', path, json.dumps(document),
                  int(time.time()) + 100 * number + 100, check=False)
        assert (done.returncode == 0) == (name in ('One', 'Two')), done.stderr
        assert done.returncode == 0 or os.strerror(errno.ECANCELED) in done.stderr
    assert trace(sql, row).document['first_name'] == 'Two'


def test_a_mount_can_overwrite(mnt, new_mount, new_user, sql):
    row = new_user()
    text = edited(row, first_name='Restored')
    set_by_sql(sql, row, first_name='Theirs')
    mount = new_mount(conflicts='overwrite')
    (mount.directory / row.path.relative_to(mnt)).write_text(text)
    assert trace(sql, row).document['first_name'] == 'Restored'


# ---- the commit point

@pytest.fixture
def calls(cluster, new_mount, sql):
    """calls(): how often a mount of this test's own has called a function that writes since the last look."""
    sql('europe', 'ALTER ROLE campusfs_rw SET log_min_duration_statement = 0')
    mount = new_mount()
    (mount.directory / 'regions/europe/users').stat()
    log = cluster.primary('europe').log_file
    read = log.stat().st_size

    def count():
        nonlocal read
        with open(log, 'rb') as file:
            file.seek(read)
            text = file.read()
        read += len(text)
        return len(re.findall(rb' execute (?:put|delete|move)_\w+:| STATEMENT: .* (?:FROM|LATERAL) (?:put|move)_', text))
    count.mount = mount
    yield count
    # Not before: what it connects to later, when it needs one more connection, is logged as well.
    sql('europe', 'ALTER ROLE campusfs_rw RESET log_min_duration_statement')


def through(calls, mnt, row):
    """The row's file in the mount whose calls are counted."""
    return calls.mount.directory / row.path.relative_to(mnt)


def test_each_commit_is_one_call(mnt, calls, new_user):
    row = new_user()
    path = through(calls, mnt, row)
    path.write_text(edited(row, first_name='Closed'))
    assert calls() == 1
    text = edited(row, first_name='Synced').encode()
    fd = os.open(path, os.O_WRONLY | os.O_TRUNC)
    os.write(fd, text)
    assert calls() == 0
    os.fsync(fd)
    assert calls() == 1
    os.fsync(fd)
    os.close(os.dup(fd))
    os.close(fd)
    path.read_bytes()
    assert calls() == 0
    path.with_name('tmp').write_text(edited(row, first_name='Renamed'))
    assert calls() == 0
    os.rename(path.with_name('tmp'), path)
    assert calls() == 1
    os.utime(path, ns=(0, 10**18))
    assert calls() == 1
    path.unlink()
    assert calls() == 1


@pytest.mark.parametrize('seconds', [2 ** 62, -2 ** 62, 10 ** 13])
def test_a_time_that_no_row_can_have(mnt, new_user, sql, seconds):
    row = new_user()
    before = trace(sql, row)
    with fails(errno.EINVAL):
        os.utime(row.path, (0, seconds))
    assert trace(sql, row) == before


def test_a_refused_save_is_tried_once(mnt, calls, new_user):
    row = new_user()
    path = through(calls, mnt, row)
    fd = os.open(path, os.O_WRONLY | os.O_TRUNC)
    os.write(fd, edited(row, role='emperor').encode())
    for attempt in (os.fsync, os.fsync, os.close):
        with fails(errno.EINVAL):
            attempt(fd)
    calls.mount.stop()  # the last word of the handle has been heard
    assert calls() == 1


def test_nothing_is_visible_before_the_commit(mnt, new_mount, new_user, sql):
    row = new_user()
    other = new_mount().directory / row.path.relative_to(mnt)
    old, before = row.read(), trace(sql, row)
    text = edited(row, first_name='Committed').encode()
    with Actor() as writer:
        fd = writer.open(row.path, os.O_WRONLY | os.O_TRUNC)
        for at in range(0, len(text), 100):
            writer.write(fd, text[at:at + 100].decode())
            assert row.read() == old == other.read_bytes() and row.path.stat().st_size == len(old)
            assert sh('ls -l "$1"', row.path).stdout.split()[4] == str(len(old))
        assert trace(sql, row) == before
        writer.close(fd)
    after = trace(sql, row)
    assert after.document['first_name'] == 'Committed' and written(before, after) == (1, 1)
    agrees(row, after)


@pytest.mark.parametrize('finish', ['close', 'fsync', 'rename'])
def test_a_commit_is_visible_at_once_everywhere_on_the_mount(mnt, new_user, finish):
    row = new_user()
    text = edited(row, first_name=f'By {finish}').encode()
    row.read()
    path = row.path.with_name('tmp') if finish == 'rename' else row.path
    with Actor() as reader:
        held = reader.open(row.path, os.O_RDONLY)
        fd = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CREAT)
        os.write(fd, text)
        os.rename(path, row.path) if finish == 'rename' else getattr(os, finish)(fd)
        now = reader.open(row.path, os.O_RDONLY)
        assert json.loads(reader.read(now, 10000))['first_name'] == f'By {finish}'
        assert json.loads(reader.read(held, 10000))['first_name'] == 'Ada'
    assert f'"first_name": "By {finish}"' in sh('cat "$1"', row.path).stdout
    assert row.path.stat().st_size == len(row.read())
    if finish != 'close':
        os.close(fd)


def test_one_transaction_writes_document_and_children(mnt, new_course, sql):
    """A curriculum of 40 lessons: all of one transaction."""
    row = new_course()
    document = row.json()
    document['modules'].append({'title': 'Many', 'lessons': [{'title': f'L{n}'} for n in range(40)]})
    row.save(document)
    xids = sql('europe', '''
        SELECT xmin::text FROM courses WHERE id = %(id)s
        UNION SELECT m.xmin::text FROM course_modules m WHERE course_id = %(id)s AND title = 'Many'
        UNION SELECT l.xmin::text FROM course_lessons l JOIN course_modules m ON m.id = module_id
              WHERE course_id = %(id)s AND m.title = 'Many' ''', {'id': row.id})
    assert len(xids) == 1


def test_the_change_log_names_who_saved(mnt, new_user, sql):
    row = new_user()
    with Actor() as other:
        other.save(row.path, edited(row, first_name='Signed'))
        (actor,), = sql('europe', 'SELECT actor FROM change_log WHERE row_id = %s AND collection = 1 '
                                  'ORDER BY xid DESC LIMIT 1', [row.id])
        assert actor == f'uid={os.getuid()} pid={other.process.pid}'


def test_errors_are_kept_newest_last(mnt, new_user):
    row = new_user()
    for role in ('first', 'second'):
        with fails(errno.EINVAL):
            row.path.write_text(edited(row, role=role))
    first, second = errors(mnt)[-2:]
    assert '"first"' in first['message'] and '"second"' in second['message']
    assert list(first) == ['time', 'path', 'errno', 'sqlstate', 'constraint', 'column', 'message', 'hint']
    assert first['time'] < second['time'] and first['column'] == 'role' and first['sqlstate'] == '22023'
