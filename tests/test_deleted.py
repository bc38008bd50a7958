"""`.deleted/`: rows deleted within the last day, whole; taken back by mv, by cp, and by tools that unlink before they
create; forgotten by rm, by erase_user and after a day."""

import errno
import json
import os
import subprocess
import time
import uuid

import psycopg2
import pytest
from conftest import region_number
from mount_tools import entries, errno_of, folder_of, ids_in, requests_of, wait_for
from saving import NUMBERS, TABLES, eventually, fails, sh, trace

PASSWORD = 'correct horse battery'
DAY_OVER = "deleted_at = clock_timestamp() - interval '1 day'"


def deleted(row):
    return row.path.parent / '.deleted' / row.path.name


def key_of(row):
    return NUMBERS[row.collection], region_number(row.region), row.id


def is_kept(sql, row, where=None):
    return bool(sql(where or row.region or 'americas',
                    'SELECT 1 FROM deleted_rows WHERE (collection, region, id) = (%s, %s, %s)', key_of(row)))


def parts_of(sql, row):
    """Every column of every table behind the document, the rev aside."""
    table = TABLES.get(row.collection, row.collection)
    parts = {'users': ['user_profiles', 'user_id'], 'courses': ['course_modules', 'course_id'],
             'enrollments': ['lesson_progress', 'enrollment_id']}.get(row.collection)
    where = row.region or 'americas'
    found = [sql(where, f"SELECT to_jsonb(t) - 'rev' FROM {table} t WHERE id = %s", [row.id])]
    if parts:
        found.append(sql(where, f'SELECT to_jsonb(t) FROM {parts[0]} t WHERE {parts[1]} = %s ORDER BY 1', [row.id]))
    if row.collection == 'users':
        found.append(sql(where, "SELECT to_jsonb(t) - 'rev' FROM user_credentials t WHERE user_id = %s", [row.id]))
    if row.collection == 'courses':
        found.append(sql(where, '''SELECT to_jsonb(l) FROM course_lessons l JOIN course_modules m ON m.id = l.module_id
                                   WHERE course_id = %s ORDER BY 1''', [row.id]))
    return found


def logs_in(sql, row, password=PASSWORD):
    try:
        return sql(row.region, 'SELECT user_id FROM authenticate_user(%s, %s)',
                   [row.document['email'], password]) == [(row.id,)]
    except psycopg2.Error as error:
        assert error.pgcode == '28P01', error
        return False


@pytest.fixture(params=list(NUMBERS))
def any_row(request, new_user, new_course, new_enrollment, new_review, new_payment_method, new_transaction,
            new_invoice, new_category):
    """A row of each collection that nothing refers to."""
    make = {'users': lambda: new_user(password=PASSWORD), 'courses': new_course, 'enrollments': new_enrollment,
            'reviews': new_review, 'payment-methods': lambda: new_payment_method(is_default=True),
            'transactions': new_transaction, 'invoices': new_invoice, 'categories': new_category}
    return make[request.param]()


@pytest.fixture
def user(new_user):
    return new_user(password=PASSWORD)


# ---- what is there

def test_a_deleted_row_is_there_as_it_was_and_mv_takes_it_back_whole(sql, mnt, any_row):
    row = any_row
    text, status, before, parts = row.read(), row.path.stat(), trace(sql, row), parts_of(sql, row)
    row.path.unlink()
    kept = deleted(row)
    assert kept.read_bytes() == text and not row.path.exists()
    there = kept.stat()
    assert (there.st_size, there.st_mtime_ns) == (len(text), status.st_mtime_ns)
    assert there.st_mode & 0o7777 == status.st_mode & 0o440
    assert (there.st_uid, there.st_gid) == (status.st_uid, status.st_gid)
    assert there.st_ino != status.st_ino
    os.rename(kept, row.path)
    back = row.path.stat()
    assert row.read() == text and not kept.exists()
    assert (back.st_ino, back.st_size, back.st_mtime_ns, back.st_mode) == (status.st_ino, status.st_size,
                                                                         status.st_mtime_ns, status.st_mode)
    after = trace(sql, row)
    assert after.body == before.body and after.rev > before.rev
    assert (after.updated_us, after.content_us) == (before.updated_us, before.content_us)
    assert parts_of(sql, row) == parts and not is_kept(sql, row)


def test_progress_and_gaps_that_no_document_shows_come_back(sql, mnt, new_enrollment, new_course, replayed):
    course = new_course()
    sql('europe', 'UPDATE course_modules SET position = position + 10 WHERE course_id = %s', [course.id])
    enrollment = new_enrollment()
    lessons = [lesson['lesson_id'] for lesson in enrollment.document['lessons']]
    sql('europe', 'SELECT record_lesson_progress(%s, %s)', [enrollment.id, lessons[0]])
    counted = 'SELECT enrollment_count FROM courses WHERE id = %s'
    taken = enrollment.document['course_id']
    replayed('europe')
    for row in (course, enrollment):
        text, parts, count = row.read(), parts_of(sql, row), sql('europe', counted, [taken])
        row.path.unlink()
        os.rename(deleted(row), row.path)
        assert row.read() == text and parts_of(sql, row) == parts and sql('europe', counted, [taken]) == count


def test_the_mounts_changes_are_logged_once_and_a_row_can_go_and_come_again(sql, mnt, user):
    before = trace(sql, user)
    for n in range(1, 4):
        user.path.unlink()
        os.rename(deleted(user), user.path)
        after = trace(sql, user)
        assert (after.changes, after.requests) == (before.changes + 2 * n, before.requests + 2 * n)
    last, *_ = sql('europe', '''SELECT operation, actor FROM change_log WHERE row_id = %s AND collection = 1
                                ORDER BY rev DESC''', [user.id])
    assert last == ('insert', f'uid={os.getuid()} pid={os.getpid()}')


def test_another_mount_sees_it_and_takes_it_back(mnt, user, new_mount):
    text = user.read()
    other = new_mount().directory / user.path.relative_to(mnt)
    user.path.unlink()
    kept = other.parent / '.deleted' / other.name
    assert eventually(lambda: kept.exists() and not other.exists())
    os.rename(kept, other)
    assert eventually(user.path.exists) and user.read() == text and not deleted(user).exists()


def test_it_is_resolved_by_name_and_never_listed(mnt, user, tmp_path):
    folder = user.path.parent
    user.path.unlink()
    assert (folder / '.deleted').is_dir() and '.deleted' not in os.listdir(folder)
    assert user.path.name in os.listdir(folder / '.deleted')
    assert '.deleted' not in sh('find "$1" -name .deleted -print', folder).stdout
    sh('rsync -a "$1"/ "$2"/', folder, tmp_path / 'copy')
    assert not (tmp_path / 'copy/.deleted').exists() and not (tmp_path / 'copy' / user.path.name).exists()
    assert '.deleted' not in sh('tar cf - -C "$1" . | tar tf -', folder).stdout


def test_the_folder_has_the_time_of_the_collections_last_change(mnt, user):
    user.path.unlink()
    folder = user.path.parent
    assert (folder / '.deleted').stat().st_mtime_ns == folder.stat().st_mtime_ns
    assert (folder / '.deleted').stat().st_mode == folder.stat().st_mode
    assert time.time() - (folder / '.deleted').stat().st_mtime < 60


def test_names_that_are_not_there(mnt, user):
    folder = user.path.parent / '.deleted'
    for name in (user.path.name, '274877906943.json', '01.json', 'x', '.deleted', 'new.json', '.next-id'):
        assert errno_of(os.stat, folder / name) == 'ENOENT', name
        assert errno_of(os.unlink, folder / name) == 'ENOENT', name
        assert errno_of(os.rename, folder / name, user.path.parent / name) == 'ENOENT', name
    assert errno_of(os.mkdir, folder / 'x') == 'EPERM' and errno_of(os.symlink, 'x', folder / 'x') == 'EPERM'
    assert errno_of(os.open, folder / 'x', os.O_CREAT | os.O_WRONLY) == 'EPERM'
    assert errno_of(os.rename, user.path, folder / user.path.name) == 'EPERM'
    assert errno_of(os.rmdir, folder) == 'EPERM' and user.path.exists()


def test_it_cannot_be_written(mnt, user):
    text = user.read()
    user.path.unlink()
    kept = deleted(user)
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_RDWR | os.O_APPEND):
        assert errno_of(os.open, kept, flags) == 'EACCES'
    assert errno_of(os.truncate, kept, 0) in ('EPERM', 'EACCES')
    assert errno_of(os.utime, kept, (1, 1)) == 'EPERM' and errno_of(os.chmod, kept, 0o777) == 'EPERM'
    assert kept.read_bytes() == text


def test_who_has_it_open_reads_on(mnt, user):
    text = user.read()
    user.path.unlink()
    with open(deleted(user), 'rb', buffering=0) as file:
        os.rename(deleted(user), user.path)
        assert os.fstat(file.fileno()).st_size == len(text) and file.read() == text
    assert user.read() == text


def test_a_large_listing(sql, mnt, replayed):
    """3,000 rows by pages, in order, no one twice; sizes are those of what is read."""
    folder = folder_of(mnt, 'reviews', 'oceania') / '.deleted'
    assert os.listdir(folder) == []
    sql('oceania', '''INSERT INTO deleted_rows (collection, region, id, rev, created_at, updated_at, content_at, body,
                                                parts, actor)
        SELECT 4, 6, i * 7, i, now(), now(), now(), '{"id":' || i * 7 || ',"region":"?","title":"' ||
               repeat('x', i % 50) || '"}', '{}', 'test' FROM generate_series(1, 3000) i''')
    try:
        replayed('oceania')
        assert ids_in(folder) == [7 * i for i in range(1, 3001)]
        found = entries(folder)
        assert len({entry.ino for entry in found}) == 3000 and {entry.type for entry in found} == {'file'}
        listed = {int(entry.name.removesuffix('.json')): entry.ino for entry in found}
        for i in (1, 49, 129, 1500, 3000):
            path = folder / f'{i * 7}.json'
            status = path.stat()
            assert status.st_size == len(path.read_bytes()) and status.st_ino == listed[i * 7]
            assert json.loads(path.read_bytes())['region'] == 'oceania'
        assert len(sh('ls -l "$1"', folder).stdout.splitlines()) == 3001
        sql('oceania', f'UPDATE deleted_rows SET {DAY_OVER} WHERE collection = 4 AND region = 6 AND id % 2 = 1')
        replayed('oceania')
        assert len(ids_in(folder)) == 1500
    finally:
        sql('oceania', 'DELETE FROM deleted_rows WHERE collection = 4 AND region = 6')


# ---- created anew under the same id

def recreate_by_cp(row, _):
    sh('cp "$1" "$2"', deleted(row), row.path)


def recreate_by_install(row, directory):
    sh('install -m 600 "$1" "$2"', directory / 'copy.json', row.path)


def recreate_by_tar(row, directory):
    sh('tar cf "$1"/t.tar -C "$2" "$3" && tar xf "$1"/t.tar -C "$2" "$3"', directory, row.path.parent, row.path.name)


def recreate_by_cp_remove(row, directory):
    sh('cp --remove-destination "$1" "$2"', directory / 'copy.json', row.path)


def recreate_by_git(row, directory):
    git = ['git', '--git-dir', str(directory / 'git'), '--work-tree', str(row.path.parent), '-c', 'user.name=t',
           '-c', 'user.email=t@example.org', '-c', 'core.trustctime=false']
    for command in (['init', '-q'], ['add', row.path.name], ['commit', '-q', '-m', 'x']):
        subprocess.run([*git, *command], check=True, cwd=row.path.parent, timeout=60)
    row.path.write_bytes(row.read().replace(b'London', b'Paris!'))
    subprocess.run([*git, 'checkout', '-q', '-f', '--', row.path.name], check=True, cwd=row.path.parent, timeout=60)


@pytest.mark.parametrize('tool, unlinks', [(recreate_by_cp, True), (recreate_by_install, False),
                                           (recreate_by_tar, False), (recreate_by_cp_remove, False),
                                           (recreate_by_git, False)])
def test_tools_that_unlink_before_they_create_lose_nothing(sql, mnt, user, tmp_path, tool, unlinks):
    (tmp_path / 'copy.json').write_bytes(user.read())
    document = user.json()
    parts = parts_of(sql, user)
    if unlinks:
        user.path.unlink()
    tool(user, tmp_path)
    after = user.json()
    assert {**after, 'updated_at': None} == {**document, 'updated_at': None}
    assert parts_of(sql, user)[2] == parts[2] and logs_in(sql, user)
    assert not is_kept(sql, user)


def test_what_the_document_does_not_say_is_taken_back(sql, mnt, user):
    document = user.json()
    user.path.unlink()
    user.save({key: value for key, value in document.items() if key not in ('created_at', 'updated_at')})
    assert user.json()['created_at'] == document['created_at'] and logs_in(sql, user)
    assert user.json()['updated_at'] > document['updated_at'] and not deleted(user).exists()


def test_what_it_says_wins(sql, mnt, user):
    user.path.unlink()
    user.save({**{key: user.document[key] for key in ('email', 'username', 'first_name')}, 'password': 'another one',
               'created_at': '2020-01-01T00:00:00.000000Z'})
    assert user.json()['created_at'].startswith('2020') and user.json()['profile']['city'] is None
    assert logs_in(sql, user, 'another one') and not logs_in(sql, user)


def test_a_refused_row_takes_nothing_back(sql, mnt, user, new_user):
    other = new_user()
    user.path.unlink()
    with fails(errno.EEXIST):
        user.save({**user.document, 'email': other.document['email']})
    assert not user.path.exists()
    os.rename(deleted(user), user.path)
    assert logs_in(sql, user)


def test_a_fresh_id_is_never_that_of_a_deleted_row(sql, mnt, unique):
    """It would take over the other's password: .next-id and new.json step over it."""
    folder = folder_of(mnt, 'users', 'asia')
    (drawn,), = sql('asia', 'SELECT next_id(1::smallint)')
    ahead = drawn + 2000
    path = folder / f'{ahead}.json'
    path.write_text(json.dumps({'email': f'{unique()}@example.org', 'username': unique(), 'first_name': 'Ada',
                                'password': PASSWORD}))
    path.unlink()
    assert int((folder / '.next-id').read_text()) == drawn + 1000
    assert int((folder / '.next-id').read_text()) == drawn + 3000


# ---- taking back that is refused

def test_an_id_that_is_taken(sql, mnt, user):
    text = user.read()
    user.path.unlink()
    kept = deleted(user)
    sql('europe', '''INSERT INTO users (region, id, email, username, first_name, last_name)
                     VALUES (3, %s, %s, %s, 'Eve', '')''',
        [user.id, f'{uuid.uuid4().hex}@example.org', uuid.uuid4().hex[:12]])
    eventually(user.path.exists)
    with fails(errno.EEXIST):
        os.rename(kept, user.path)
    told = last_error_of(mnt, kept)
    assert told['errno'] == 'EEXIST' and f'id "{user.id}" is taken by a user of europe' in told['message']
    assert user.json()['first_name'] == 'Eve' and kept.read_bytes() == text and not logs_in(sql, user)


def last_error_of(mnt, path):
    lines = [json.loads(line) for line in (mnt / '.campusfs/errors.jsonl').read_text().splitlines()]
    return [line for line in lines if line['path'] == str(path.relative_to(mnt))][-1]


def test_an_address_that_is_taken(mnt, user, new_user):
    user.path.unlink()
    new_user(email=user.document['email'])
    with fails(errno.EEXIST):
        os.rename(deleted(user), user.path)
    told = last_error_of(mnt, deleted(user))
    assert told['column'] == 'email' and 'is taken by user' in told['message']
    assert deleted(user).exists() and not user.path.exists()


def test_a_reference_that_leads_nowhere(mnt, new_review, new_enrollment, new_course, sql, replayed):
    review = new_review()
    enrollment = next(path for path in review.path.parent.parent.joinpath('enrollments').iterdir()
                      if json.loads(path.read_bytes())['user_id'] == review.document['user_id'])
    author = folder_of(mnt, 'users') / f"{review.document['user_id']}.json"
    for path in (review.path, enrollment, author):
        path.unlink()
    with fails(errno.ENOLINK):
        os.rename(deleted(review), review.path)
    assert 'there is no such user in europe' in last_error_of(mnt, deleted(review))['message']
    os.rename(author.parent / '.deleted' / author.name, author)
    os.rename(deleted(review), review.path)
    assert review.json()['title'] == 'Good'

    other = new_enrollment()
    course = folder_of(mnt, 'courses') / f"{other.document['course_id']}.json"
    other.path.unlink()
    document = json.loads(course.read_bytes())
    document['modules'].pop()
    course.write_text(json.dumps(document))
    with fails(errno.ENOLINK):
        os.rename(deleted(other), other.path)
    assert 'which is no longer there' in last_error_of(mnt, deleted(other))['message']


@pytest.mark.parametrize('name', ['tmp.json', '1{}', 'new.json'])
def test_only_its_own_name_takes_it_back(mnt, user, name):
    user.path.unlink()
    with fails(errno.EPERM):
        os.rename(deleted(user), user.path.parent / name.format(user.path.name))
    assert 'copy it to have its text elsewhere' in last_error_of(mnt, deleted(user))['message']
    assert deleted(user).exists()


def test_another_regions_folder_does_not_take_it(mnt, user):
    user.path.unlink()
    done = sh('mv "$1" "$2"', deleted(user), folder_of(mnt, 'users', 'africa'), check=False)
    assert done.returncode != 0 and deleted(user).exists()


def test_mv_to_another_file_system_takes_it_out(mnt, user, tmp_path):
    text = user.read()
    user.path.unlink()
    sh('mv "$1" "$2"', deleted(user), tmp_path)
    assert (tmp_path / user.path.name).read_bytes() == text and not deleted(user).exists()


# ---- forgotten

def test_rm_forgets_it(sql, mnt, any_row):
    any_row.path.unlink()
    deleted(any_row).unlink()
    assert not deleted(any_row).exists() and errno_of(os.unlink, deleted(any_row)) == 'ENOENT'
    for where in (['americas', 'emea', 'apac'] if any_row.region is None else [any_row.region]):
        assert not is_kept(sql, any_row, where)


def test_a_day_later_it_is_gone(sql, mnt, user, new_user, replayed):
    user.path.unlink()
    sql('europe', f'UPDATE deleted_rows SET {DAY_OVER} WHERE id = %s', [user.id])
    replayed('europe')
    assert not deleted(user).exists() and user.path.name not in os.listdir(deleted(user).parent)
    assert errno_of(os.rename, deleted(user), user.path) == 'ENOENT'
    assert is_kept(sql, user), 'nothing has been deleted since'
    user.save({key: user.document[key] for key in ('email', 'username', 'first_name')})
    assert not logs_in(sql, user) and not is_kept(sql, user), 'what is older than a day is not taken back'

    user.path.unlink()
    sql('europe', f'UPDATE deleted_rows SET {DAY_OVER} WHERE id = %s', [user.id])
    new_user().path.unlink()
    assert not is_kept(sql, user), 'the next write purges'


def test_a_day_later_the_journal_of_a_move_goes_though_nothing_was_deleted(sql, new_user):
    """It has a password's hash."""
    ids = [str(uuid.uuid4()) for _ in range(2)]
    sql('europe', 'SELECT purge_deleted(NULL)')
    sql('europe', '''INSERT INTO transfers (id, outcome, actor, finished_at)
        VALUES (%s, 'void', 'test', now() - interval '25 hours'), (%s, 'void', 'test', now() - interval '23 hours')''', ids)
    new_user().path.unlink()
    assert sql('europe', 'SELECT id::text FROM transfers WHERE id = ANY (%s::uuid[])', [ids]) == [(ids[1],)]


def test_pruning_purges_whatever_their_number(sql, new_user):
    sql('europe', f'''INSERT INTO deleted_rows (collection, region, id, rev, created_at, updated_at, content_at, body,
                                                parts, actor, deleted_at)
        SELECT 4, 3, 270000000000 + i, i, now(), now(), now(), '{{}}', '{{}}', 'test', now() - interval '25 hours'
        FROM generate_series(1, 250) i''')
    count = 'SELECT count(*) FROM deleted_rows WHERE id > 270000000000'
    assert sql('europe', 'SELECT purge_deleted()') == [(100,)] and sql('europe', count) == [(150,)]
    sql('europe', 'SELECT prune_logs()')
    assert sql('europe', count) == [(0,)]


def test_a_mount_has_the_logs_forget(sql, new_mount):
    """At its start, and then every hour; also what was deleted, where nothing is written any more."""
    old, young = str(uuid.uuid4()), str(uuid.uuid4())
    sql('europe', "INSERT INTO request_log (request_id, outcome, created_at) VALUES (%s, 'void', now() - interval '8 days'), "
                  "(%s, 'void', now() - interval '6 days')", (old, young))
    sql('europe', "INSERT INTO change_log (collection, region, row_id, operation, rev, actor, changed_at) "
                  "SELECT 1, 3, 1, 'update', 1, %s, now() - n * interval '1 day' FROM unnest(ARRAY[29, 31]) n", (old,))
    sql('europe', """INSERT INTO deleted_rows (collection, region, id, rev, created_at, updated_at, content_at, body,
                                               parts, actor, deleted_at)
        VALUES (4, 3, 270000000251, 1, now(), now(), now(), '{}', '{}', 'test', now() - interval '25 hours')""")

    def left():
        return (sql('europe', 'SELECT request_id::text FROM request_log WHERE request_id = ANY (%s::uuid[])', ([old, young],)),
                sql('europe', "SELECT date_part('day', now() - changed_at)::int FROM change_log WHERE actor = %s", (old,)),
                sql('europe', 'SELECT id FROM deleted_rows WHERE id = 270000000251'))
    new_mount()
    assert wait_for(lambda: left() == ([(young,)], [(29,)], []), 60), left()


def test_erase_user_forgets_everything_of_theirs_at_once(sql, mnt, new_invoice, new_review, user, replayed):
    invoice = new_invoice()
    transaction = folder_of(mnt, 'transactions') / f"{invoice.document['transaction_id']}.json"
    document = json.loads(transaction.read_bytes())
    payer, method = document['user_id'], document['payment_method_id']
    gone = [invoice.path, transaction, folder_of(mnt, 'payment-methods') / f'{method}.json',
            folder_of(mnt, 'users') / f'{payer}.json']
    for path in gone:
        path.unlink()
    kept = [path.parent / '.deleted' / path.name for path in gone]
    assert all(path.exists() for path in kept)
    user.path.unlink()
    assert sql('europe', 'SELECT erase_user(%s)', [payer]) == [('removed',)]
    replayed('europe')
    assert not any(path.exists() for path in kept) and deleted(user).exists()
    with pytest.raises(psycopg2.Error) as raised:
        sql('europe', 'SELECT erase_user(%s)', [payer])
    assert raised.value.pgcode == 'CF001'


def test_erase_user_forgets_what_one_who_lives_has_deleted(sql, mnt, new_review, replayed):
    review = new_review()
    review.path.unlink()
    assert sql('europe', 'SELECT erase_user(%s)', [review.document['user_id']]) == [('removed',)]
    replayed('europe')
    assert not deleted(review).exists()
    assert sql('europe', 'SELECT 1 FROM deleted_rows WHERE user_id = %s', [review.document['user_id']]) == []


def test_what_a_user_deleted_moves_along(sql, mnt, new_payment_method):
    method = new_payment_method()
    owner = folder_of(mnt, 'users') / f"{method.document['user_id']}.json"
    before = method.json()
    method.path.unlink()
    there = folder_of(mnt, 'users', 'africa') / owner.name
    os.rename(owner, there)
    moved = folder_of(mnt, 'payment-methods', 'africa') / method.path.name
    kept = moved.parent / '.deleted' / moved.name
    assert not deleted(method).exists() and json.loads(kept.read_bytes()) == {**before, 'region': 'africa'}
    text = kept.read_bytes()
    os.rename(kept, moved)
    assert moved.read_bytes() == text


# ---- secrets

@pytest.mark.parametrize('role', ['rw', 'ro'])
def test_no_client_reads_what_documents_do_not_show(db, mnt, user, role, replayed):
    user.path.unlink()
    replayed('europe')
    cursor = db('europe', role).cursor()
    for table in ('deleted_rows', 'user_credentials', 'transfers'):
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cursor.execute(f'SELECT * FROM {table}')
    cursor.execute('SELECT * FROM deleted_documents WHERE collection = 1 AND region = 3 AND id = %s', [user.id])
    shown = repr(cursor.fetchall())
    assert user.document['email'] in shown and '$2a$' not in shown
    assert '$2a$' not in deleted(user).read_text() and PASSWORD not in deleted(user).read_text()


# ---- many

def test_listing_many_deleted_rows_asks_for_pages(new_mount, mnt, new_user, sql, replayed):
    """`ls -l` shows 600 of them, and asks neither the mount nor the database for each one."""
    root = new_mount(cache_ttl='20s').directory  # a busy machine takes its time between the entries
    user = new_user('asia')
    folder = root / 'regions/asia/users/.deleted'
    sql('asia', """INSERT INTO deleted_rows (collection, region, id, rev, created_at, updated_at, content_at, body, parts, actor)
                   SELECT 1, u.region, u.id + 1000000 * (1000 + n), nextval('rev_seq'), now(), now(), now(),
                          d.body, '{}', 'test' FROM users u JOIN doc_users d USING (region, id), generate_series(1, 600) n
                   WHERE u.id = %s""", [user.id])
    replayed('asia')
    names = [f'{user.id + 1000000 * (1000 + n)}.json' for n in range(1, 601)]
    try:
        before = requests_of(root, 'lookup', 'getattr')
        listed = {line.split()[-1]: int(line.split()[4])
                  for line in sh('ls -l "$1"', folder).stdout.splitlines()[1:]}
        after = requests_of(root, 'lookup', 'getattr')
        assert set(names) <= set(listed) and {listed[name] for name in names} == {len(user.read())}
        assert sum(after.values()) - sum(before.values()) < 100
        (folder / names[1]).unlink()
        assert not (folder / names[1]).exists()
    finally:
        sql('asia', "DELETE FROM deleted_rows WHERE actor = 'test'")


@pytest.mark.parametrize('how', ['mv', 'write'])
def test_what_comes_back_is_a_row_at_once_however_lately_it_was_listed(new_mount, mnt, new_user, how):
    root, row = new_mount(cache_ttl='20s', feed='poll').directory, new_user()
    path = root / row.path.relative_to(mnt)
    text, status, kept = path.read_bytes(), path.stat(), path.parent / '.deleted' / path.name
    path.unlink()
    assert path.name in sh('ls -l "$1"', kept.parent).stdout
    assert kept.stat().st_mode & 0o200 == 0
    if how == 'mv':
        os.rename(kept, path)
    else:
        path.write_bytes(text)
    assert path.stat().st_mode == status.st_mode and path.stat().st_ino == status.st_ino
    assert not kept.exists() and json.loads(path.read_bytes())['created_at'] == row.document['created_at']
