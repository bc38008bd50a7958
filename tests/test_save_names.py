"""Rows come, go and move by names: new files, new.json, .next-id, rm, mv; categories on every shard."""

import errno
import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import Row, region_number
from mount_tools import errno_of
from saving import (MAKE_USER, NUMBERS, RENAME_NOREPLACE, SHARD_NUMBERS, Actor, edited, eventually, fails, last_error,
                    parse, refused, renameat2, sh, trace)

EUROPE = region_number('europe')
REGIONS = {'americas': 'north_america', 'emea': 'europe', 'apac': 'asia'}


@pytest.fixture
def person(unique):
    """The document of somebody who is nobody yet."""
    def make(**fields):
        name = unique()
        return {'email': f'{name}@example.org', 'username': name, 'first_name': 'Emmy', 'last_name': 'Noether',
                **fields}
    return make


def folder(mnt, collection, region='europe'):
    return mnt / 'categories' if collection == 'categories' else mnt / 'regions' / region / collection


def next_id(mnt, collection='users', region='europe'):
    return int((folder(mnt, collection, region) / '.next-id').read_text())


@pytest.fixture
def row_at(cluster):
    """row_at(path): the Row behind a path of the shared mount."""
    def make(path):
        collection, region = path.parent.name, path.parent.parent.name
        region = None if collection == 'categories' else region
        return Row(collection, region, int(path.stem), None, cluster.directory / 'mnt')
    return make


# ---- ids

def test_next_id_is_fresh_every_time(mnt):
    ids = [next_id(mnt) for _ in range(5)]
    assert len(set(ids)) == 5 and {i % 1000 for i in ids} == {2}
    assert sh('cat "$1"; cat "$1" | tail -c 1 | od -An -c', folder(mnt, 'users') / '.next-id').stdout.endswith('\\n\n')


@pytest.mark.parametrize('collection', NUMBERS)
@pytest.mark.parametrize('region', REGIONS.values())
def test_ids_are_of_their_shards_numbers(mnt, collection, region):
    number = 1 if collection == 'categories' else SHARD_NUMBERS[region]
    assert next_id(mnt, collection, region) % 1000 == number


def test_ids_are_unique_over_processes_regions_and_mounts(mnt, new_mount):
    other = new_mount().directory
    files = [folder(root, 'users', region) / '.next-id' for root in (mnt, other) for region in ('europe', 'africa')]
    ten = 'for i in 1 2 3 4 5 6 7 8 9 10; do cat "$1"; done'
    with ThreadPoolExecutor(8) as pool:
        lists = pool.map(lambda file: sh(ten, file).stdout.split(), 2 * files)
    ids = [i for several in lists for i in several]
    assert len(ids) == 80 and len(set(ids)) == 80


def test_next_id_cannot_be_changed(mnt):
    path = folder(mnt, 'users') / '.next-id'
    changes = [(errno.EACCES, lambda: path.write_text('7')), (errno.EACCES, lambda: os.truncate(path, 0)), (errno.EPERM, path.unlink),
               (errno.EPERM, lambda: path.rename(path.with_name('x')))]
    for code, change in changes:
        with fails(code):
            change()
    assert next_id(mnt)


def test_an_id_taken_by_hand_is_not_given_away(mnt, person):
    taken = next_id(mnt) + 1000
    (folder(mnt, 'users') / f'{taken}.json').write_text(json.dumps(person()))
    assert next_id(mnt) > taken


# ---- creating

def test_a_new_row_under_an_id_of_its_own(mnt, person, sql, row_at):
    path = folder(mnt, 'users') / f'{next_id(mnt)}.json'
    with fails(errno.ENOENT):
        path.stat()
    sh('printf %s "$2" > "$1"', path, json.dumps(person(created_at='2011-02-03T04:05:06.000007Z')))
    now = trace(sql, row_at(path))
    document = parse(path.read_text())
    assert document == now.document and now.changes == 1
    assert document['created_at'] == '2011-02-03T04:05:06.000007Z' and document['updated_at'] > '2026'
    assert (document['id'], document['region'], document['role']) == (int(path.stem), 'europe', 'student')
    assert path.name in os.listdir(path.parent)


@pytest.mark.parametrize('way', ['printf %s "$2" > "$1"', 'printf %s "$2" > "$1.tmp" && mv "$1.tmp" "$1"',
                                 'printf %s "$2" | tee "$1"', 'printf %s "$2" | dd of="$1" bs=7',
                                 'printf %s "$2" | cp /dev/stdin "$1"', 'jq -n "$2" > "$1"'])
def test_new_json_takes_the_next_id(mnt, person, sql, row_at, way):
    document = person()
    new = folder(mnt, 'users') / 'new.json'
    sh(way, new, json.dumps(document))
    (row_id,), = sql('europe', 'SELECT id FROM users WHERE email = %s', [document['email']])
    path = new.with_name(f'{row_id}.json')
    assert {key: value for key, value in json.loads(path.read_text()).items() if key in document} == document
    assert trace(sql, row_at(path)).changes == 1
    assert not new.exists() and new.name not in os.listdir(new.parent)


def test_new_json_with_an_id_is_refused(mnt, person):
    new = folder(mnt, 'users') / 'new.json'
    with fails(errno.EINVAL):
        new.write_text(json.dumps(person(id=next_id(mnt))))
    assert 'id must be left out' in (new.parent / '.refused/new.json.error').read_text()
    (new.parent / '.refused/new.json').unlink()


def test_new_json_that_is_removed_before_it_is_closed_is_nothing(mnt, person, sql):
    """As a tool does whose own work failed."""
    fields = person()
    new = folder(mnt, 'users') / 'new.json'
    with open(new, 'x') as file:
        json.dump(fields, file)
        file.flush()
        new.unlink()
        assert not new.exists()
    assert errno_of(new.unlink) == 'ENOENT'
    assert sql('europe', 'SELECT count(*) FROM users WHERE email = %s', (fields['email'],)) == [(0,)]


def test_many_write_new_json_at_once(mnt, unique, sql):
    """Each has a file of its own under that name, and gets a row of its own."""
    mark = unique()
    script = '''for i in 1 2 3 4 5; do printf '{"email": "%s@example.org", "username": "%s", "first_name": "%s"}' \
                "$2-$i" "$2-$i" "$2" > "$1" || exit 1; done'''
    new = folder(mnt, 'users') / 'new.json'
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda n: sh(script, new, f'{mark}-{n}'), range(6)))
    rows = sql('europe', "SELECT id, username FROM users WHERE username LIKE %s || '-%%'", [mark])
    assert len(rows) == 30
    assert all(json.loads(new.with_name(f'{i}.json').read_text())['username'] == name for i, name in rows)


def test_an_enrollment_made_by_writing_a_file(mnt, new_user, new_course, sql):
    """The lessons come from the course."""
    user, course = new_user(), new_course()
    sh('jq -n --argjson u "$2" --argjson c "$3" "{user_id: \\$u, course_id: \\$c}" > "$1"',
       folder(mnt, 'enrollments') / 'new.json', user.id, course.id)
    (row_id,), = sql('europe', 'SELECT id FROM enrollments WHERE user_id = %s', [user.id])
    document = json.loads((folder(mnt, 'enrollments') / f'{row_id}.json').read_text())
    lessons = [lesson['id'] for module in course.json()['modules'] for lesson in module['lessons']]
    assert [entry['lesson_id'] for entry in document['lessons']] == sorted(lessons)
    assert eventually(lambda: course.json()['enrollment_count'] == 1)


def test_creating_what_is_there_already(mnt, new_user):
    row = new_user()
    with fails(errno.EEXIST):
        os.open(row.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    assert sh('set -C; echo x > "$1"', row.path, check=False).returncode != 0
    assert row.json()['first_name'] == 'Ada'


def test_two_create_one_row(mnt, person, sql, row_at):
    """Both have an empty file before either is closed: the second one changes the row, or is told of the first."""
    path = folder(mnt, 'users') / f'{next_id(mnt)}.json'
    with Actor() as one, Actor() as two:
        first = one.open(path, os.O_WRONLY | os.O_CREAT)
        with fails(errno.EEXIST):
            two.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        second = two.open(path, os.O_WRONLY | os.O_CREAT)
        document = person()
        one.write(first, json.dumps(document))
        two.write(second, json.dumps({**document, 'first_name': 'Second'}))
        one.close(first)
        two.close(second)
    assert trace(sql, row_at(path)).document['first_name'] == 'Second'


def refused_as_taken(mnt, sql, row, text, made):
    """The row is what somebody else made of it, and the text that came later is kept and explained."""
    told = last_error(mnt, row)
    assert (told['errno'], told['sqlstate']) == ('EEXIST', '23505') and 'already' in told['message']
    assert refused(row).read_text() == text and trace(sql, row).document['first_name'] == made


def test_a_row_that_somebody_made_since_it_was_opened_with_o_excl(mnt, person, sql, row_at):
    """It did not exist when the file was opened, and the writer was promised to be the one who makes it."""
    for equal in (False, True):
        path = folder(mnt, 'users') / f'{next_id(mnt)}.json'
        document, row = person(), row_at(path)
        text = json.dumps(document)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.write(fd, text.encode())
        sql('europe', MAKE_USER, (EUROPE, row.id, text if equal else json.dumps(person(first_name='First'))))
        with fails(errno.EEXIST):
            os.close(fd)
        if not equal:
            refused_as_taken(mnt, sql, row, text, 'First')


def test_a_row_that_somebody_made_since_it_was_opened_is_replaced_without_o_excl(mnt, person, sql, row_at):
    path = folder(mnt, 'users') / f'{next_id(mnt)}.json'
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.write(fd, json.dumps(person()).encode())
    sql('europe', MAKE_USER, (EUROPE, int(path.stem), json.dumps(person(first_name='First'))))
    os.close(fd)
    assert trace(sql, row_at(path)).document['first_name'] == 'Emmy'


def test_a_row_that_somebody_makes_while_it_is_renamed_to(mnt, cluster, person, sql, row_at):
    """RENAME_NOREPLACE looks first, and there is no such row: the other transaction is still open. It is committed before
    the save can write."""
    path = folder(mnt, 'users') / f'{next_id(mnt)}.json'
    scratch, row, text = path.with_name('becomes.tmp'), row_at(path), json.dumps(person())
    scratch.write_text(text)
    other = cluster.connect('europe', options='-c search_path=campusfs,pg_catalog')
    other.autocommit = False
    other.cursor().execute(MAKE_USER, (EUROPE, row.id, json.dumps(person(first_name='First'))))
    with ThreadPoolExecutor(1) as pool:
        saving = pool.submit(renameat2, scratch, path, RENAME_NOREPLACE)
        eventually(lambda: sql('europe', "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
                                         "AND usename = 'campusfs_rw'"), 60)
        other.commit()
        other.close()
        with fails(errno.EEXIST):
            saving.result(timeout=60)
    refused_as_taken(mnt, sql, row, text, 'First')
    assert scratch.read_text() == text
    scratch.unlink()


@pytest.mark.parametrize('collection', [name for name in NUMBERS if name != 'users'])
def test_o_excl_in_any_collection(mnt, new_of, sql, collection):
    """Two make one row anew: who was promised to be the one is told of the other."""
    row = new_of(collection)
    text = edited(row, updated_at=...)
    row.path.unlink()
    with Actor() as other:
        mine = os.open(row.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.write(mine, text.encode())
        theirs = other.open(row.path, os.O_WRONLY | os.O_CREAT)
        other.write(theirs, text)
        other.close(theirs)
        before = trace(sql, row)
        with fails(errno.EEXIST):
            os.close(mine)
    assert before and trace(sql, row) == before and 'already' in last_error(mnt, row)['message']
    refused(row).unlink()


def test_a_new_file_is_its_makers_alone_until_it_is_a_row(mnt, person):
    path = folder(mnt, 'users') / f'{next_id(mnt)}.json'
    with Actor() as maker, Actor() as other:
        fd = maker.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        maker.write(fd, json.dumps(person()))
        assert maker.stat(path)
        with fails(errno.ENOENT):
            other.stat(path)
        assert path.name not in os.listdir(path.parent)
        maker.close(fd)
        assert other.stat(path) and path.name in os.listdir(path.parent)


def test_a_new_file_given_up_leaves_nothing(mnt, sql, row_at):
    path = folder(mnt, 'users') / f'{next_id(mnt)}.json'
    path.touch()
    with open(path, 'w') as file:
        file.write('{"email": ')
        file.flush()
        path.unlink()
    assert not path.exists() and trace(sql, row_at(path)) is None
    assert not refused(row_at(path)).exists()


# ---- ids of other shards

def test_an_id_of_another_shard_is_claimed_there(mnt, person, sql, row_at):
    row_id = next_id(mnt, region='asia') + 1000
    path = folder(mnt, 'users', 'europe') / f'{row_id}.json'
    path.write_text(json.dumps(person()))
    assert trace(sql, row_at(path)).document['region'] == 'europe'
    assert sql('apac', 'SELECT shard FROM id_claims WHERE collection = 1 AND id = %s', [row_id]) == [(2,)]
    assert next_id(mnt, region='asia') > row_id
    taken = folder(mnt, 'users', 'oceania') / path.name
    with fails(errno.EEXIST):
        taken.write_text(json.dumps(person()))
    assert 'taken' in last_error(mnt, row_at(taken))['message']
    path.unlink()
    path.write_text(json.dumps(person()))
    assert path.exists(), 'the claim outlives the row'


@pytest.mark.parametrize('region', ['africa', 'asia'])
def test_one_id_is_one_row(mnt, new_user, person, sql, row_at, region):
    """Neither the shard's other region nor another shard makes a second row of it."""
    row = new_user()
    path = folder(mnt, 'users', region) / row.path.name
    with fails(errno.EEXIST):
        path.write_text(json.dumps(person()))
    assert trace(sql, row_at(path)) is None and row.json()['first_name'] == 'Ada'


def test_an_id_of_no_shard_is_free_once(mnt, person, row_at):
    name = f'{next_id(mnt) // 1000 + 5_000_000}777.json'
    (folder(mnt, 'users', 'asia') / name).write_text(json.dumps(person()))
    with fails(errno.EEXIST):
        (folder(mnt, 'users', 'europe') / name).write_text(json.dumps(person()))


# ---- deleting

def test_rm_deletes_the_document_with_its_parts(mnt, new_course, sql):
    row = new_course()
    modules = [module['id'] for module in row.json()['modules']]
    sh('rm "$1"', row.path)
    assert trace(sql, row) is None and not row.path.exists() and row.path.name not in os.listdir(row.path.parent)
    assert sql('europe', 'SELECT count(*) FROM course_modules WHERE id = ANY (%s)', [modules]) == [(0,)]
    log = sql('europe', 'SELECT operation FROM change_log WHERE collection = 2 AND row_id = %s ORDER BY xid', [row.id])
    assert log == [('insert',), ('delete',)]
    with fails(errno.ENOENT):
        row.path.unlink()


def test_rm_of_what_others_need_is_refused_with_their_names(mnt, new_invoice, new_review, sql):
    invoice = new_invoice()
    (user, payment), = sql('europe', 'SELECT user_id, id FROM transactions WHERE id = %s',
                           [invoice.document['transaction_id']])
    new_review(user_id=user)
    path = folder(mnt, 'users') / f'{user}.json'
    before = path.read_bytes()
    done = sh('rm "$1"', path, check=False)
    assert done.returncode == 1 and os.strerror(errno.EBUSY) in done.stderr
    assert path.read_bytes() == before
    line = last_error(mnt, Row('users', 'europe', user, None, mnt))
    assert (line['errno'], line['sqlstate']) == ('EBUSY', 'CF002')
    for words in (f'user {user}', '1 enrollment', '1 review', '1 payment method', '1 transaction', '1 invoice'):
        assert words in line['message']
    with fails(errno.EBUSY):
        (folder(mnt, 'transactions') / f'{payment}.json').unlink()
    invoice.path.unlink()
    (folder(mnt, 'transactions') / f'{payment}.json').unlink()


def test_a_lesson_with_progress_stays_in_its_course(mnt, new_enrollment, sql):
    """A deletion inside a document, too."""
    enrollment = new_enrollment()
    course = Row('courses', 'europe', enrollment.document['course_id'], None, mnt)
    document = course.json()
    document['modules'][0]['lessons'].pop()
    before = trace(sql, course)
    with fails(errno.EBUSY):
        course.save(document)
    assert trace(sql, course) == before
    assert 'has progress in 1 enrollment' in last_error(mnt, course)['message']


def test_rm_r_leaves_what_is_needed(mnt, new_enrollment):
    """`rm -r` of a folder is as harmless as a folder that cannot go lets it be: here of two rows by name."""
    enrollment = new_enrollment()
    user = folder(mnt, 'users') / f"{enrollment.document['user_id']}.json"
    done = sh('rm -rf "$1" "$2"', user, enrollment.path, check=False)
    assert done.returncode == 1 and user.exists() and not enrollment.path.exists()
    with fails(errno.EPERM):
        os.rmdir(folder(mnt, 'users'))


def test_who_moves_a_row_away_sees_what_it_makes_anew(mnt, new_user, sql):
    """As on a disk: under the name is its new file, which it can remove again; all others see the row meanwhile."""
    row = new_user()
    before, text, backup = trace(sql, row), row.read(), row.path.with_name(f'{row.path.name}~')
    with Actor() as editor:
        editor.rename(row.path, backup)
        for flags in (os.O_WRONLY | os.O_CREAT | os.O_EXCL, os.O_WRONLY | os.O_CREAT | os.O_TRUNC):
            fd = editor.open(row.path, flags)
            assert editor.stat(row.path)[6] == 0 and row.read() == text
            editor.write(fd, edited(row, first_name='Removed'))
            again = editor.open(row.path, os.O_RDONLY)
            assert '"Removed"' in editor.read(again, 4096) and editor.stat(row.path)[6] == editor.fstat(fd)[6]
            editor.close(again)
            with fails(errno.EEXIST):
                editor.open(row.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            editor.unlink(row.path)
            with fails(errno.ENOENT):
                editor.stat(row.path)
            editor.close(fd)
            assert trace(sql, row) == before and row.read() == text, 'what is written to a removed file goes with it'
        fd = editor.open(row.path, os.O_WRONLY | os.O_CREAT)
        editor.write(fd, edited(row, first_name='Anew'))
        editor.chmod(row.path, 0o600)
        editor.close(fd)
        editor.unlink(backup)
        assert editor.stat(row.path)[6] == len(row.read()) and trace(sql, row).document['first_name'] == 'Anew'


def test_a_name_that_was_moved_away_is_free_for_a_rename_that_replaces_nothing(mnt, new_user, sql):
    """For who moved it, as O_EXCL has it; for nobody else."""
    row = new_user()
    scratch, backup = row.path.with_name('anew.tmp'), row.path.with_name(f'{row.path.name}~')
    scratch.write_text(edited(row, first_name='Anew'))
    os.rename(row.path, backup)
    assert sh('mv -n "$1" "$2"; test -e "$1"', scratch, row.path).returncode == 0 and row.path.exists() is False
    renameat2(scratch, row.path, RENAME_NOREPLACE)
    assert trace(sql, row).document['first_name'] == 'Anew' == row.json()['first_name']
    backup.unlink()


def test_a_refused_save_over_a_backup_is_taken_back(mnt, new_user, sql):
    """As vim does it with backupcopy=no: the row's file becomes the backup, and comes back when the save is refused."""
    row = new_user()
    backup = row.path.with_name(row.path.name + '~')
    before = trace(sql, row)
    with Actor() as editor, Actor() as other:
        editor.rename(row.path, backup)
        fd = editor.open(row.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        editor.write(fd, json.dumps({**row.document, 'role': 'king'}))
        with fails(errno.EINVAL):
            editor.close(fd)
        with fails(errno.ENOENT):  # what it made is gone with the refusal, and the row is not its to remove
            editor.unlink(row.path)
        assert trace(sql, row) == before and other.stat(row.path)
        editor.rename(backup, row.path)
    assert trace(sql, row) == before and not backup.exists()


def test_a_deleted_row_can_be_made_again(mnt, new_user, sql):
    row = new_user()
    text, before = row.read(), trace(sql, row)
    row.path.unlink()
    row.path.write_bytes(text)
    after = trace(sql, row)
    assert after.document['created_at'] == before.document['created_at'] and after.rev > before.rev
    assert row.json()['username'] == before.document['username']


# ---- moving

def test_mv_of_a_user_takes_everything_along(mnt, new_invoice, new_review, sql):
    invoice = new_invoice()
    (user, payment, method, course), = sql('europe', 'SELECT user_id, id, payment_method_id, course_id '
                                           'FROM transactions WHERE id = %s', [invoice.document['transaction_id']])
    review = new_review(user_id=user)
    names = {'users': user, 'transactions': payment, 'payment-methods': method, 'invoices': invoice.id,
             'reviews': review.id}
    before = {c: (folder(mnt, c) / f'{i}.json').read_text() for c, i in names.items()}
    sh('mv "$1" "$2"', folder(mnt, 'users') / f'{user}.json', folder(mnt, 'users', 'africa'))
    for collection, row_id in names.items():
        old, new = (folder(mnt, collection, region) / f'{row_id}.json' for region in ('europe', 'africa'))
        assert not old.exists(), old
        moved, was = json.loads(new.read_text()), json.loads(before[collection])
        assert {**was, 'region': 'africa', 'updated_at': moved['updated_at']} == moved
        assert new.stat().st_size == len(new.read_bytes())
    assert (folder(mnt, 'courses') / f'{course}.json').exists()


def test_who_teaches_does_not_move(mnt, new_course, sql):
    course = new_course()
    teacher = Row('users', 'europe', course.document['instructor_id'], None, mnt)
    before = trace(sql, teacher)
    with fails(errno.EBUSY):
        teacher.path.rename(folder(mnt, 'users', 'africa') / teacher.path.name)
    assert trace(sql, teacher) == before and teacher.path.exists()
    assert 'teaches 1 course' in last_error(mnt, teacher)['message']


def test_who_learns_does_not_leave_the_shard_and_nothing_is_lost(mnt, new_enrollment, sql):
    """Told another error, mv would copy and then remove; test_moves.py has those who may leave."""
    enrollment = new_enrollment()
    row = Row('users', 'europe', enrollment.document['user_id'], None, mnt)
    before = trace(sql, row)
    target = folder(mnt, 'users', 'asia')
    with fails(errno.EBUSY):
        row.path.rename(target / row.path.name)
    assert f'1 enrollment ({enrollment.id})' in last_error(mnt, row)['message']
    assert sh('mv "$1" "$2"', row.path, target, check=False).returncode == 1
    assert trace(sql, row) == before and row.read() and not (target / row.path.name).exists()


@pytest.mark.parametrize('target', ['regions/africa/enrollments/{id}.json', 'regions/europe/enrollments/{other}.json',
                                    'regions/europe/reviews/{id}.json', 'categories/{id}.json',
                                    'regions/africa/enrollments/scratch.json', '{id}.json'])
def test_what_cannot_move_stays(mnt, new_enrollment, sql, target):
    row = new_enrollment()
    before = trace(sql, row)
    name = target.format(id=row.id, other=row.id + 1000)
    with fails(errno.EPERM):
        row.path.rename(mnt / name)
    assert trace(sql, row) == before and row.path.exists()
    assert not (mnt / name).exists()
    if '/' in name:
        assert last_error(mnt, row)['errno'] == 'EPERM'


def test_mv_of_a_user_onto_another_is_refused(mnt, new_user, sql):
    one, two = new_user(), new_user()
    before = trace(sql, one), trace(sql, two)
    with fails(errno.EPERM):
        one.path.rename(two.path)
    assert (trace(sql, one), trace(sql, two)) == before


def test_a_row_has_no_second_name(mnt, new_user):
    row = new_user()
    free = row.path.with_name(f'{next_id(mnt)}.json')
    for make in (lambda: os.link(row.path, row.path.with_name('link')), lambda: os.link(row.path, free),
                 lambda: os.mkdir(free), lambda: os.symlink(row.path.name, free), lambda: os.mkfifo(free)):
        with fails(errno.EPERM):
            make()
    assert not free.exists()


# ---- categories

def copies(sql, row):
    """The category as each shard has it: rev is each shard's own."""
    found = [trace(sql, row, shard) for shard in REGIONS]
    return [copy and (copy.body, copy.updated_us, copy.content_us) for copy in found]


def test_a_category_is_the_same_on_every_shard(mnt, unique, sql, row_at):
    name = unique()
    new = mnt / 'categories/new.json'
    new.write_text(json.dumps({'name': name, 'slug': name}))
    (row_id,), = sql('americas', 'SELECT id FROM course_categories WHERE slug = %s', [name])
    row = row_at(mnt / f'categories/{row_id}.json')
    made = copies(sql, row)
    assert made[0] and made == [made[0]] * 3 and row_id % 1000 == 1

    row.path.write_text(edited(row, description='Now with words', parent_id=None))
    changed = copies(sql, row)
    assert changed == [changed[0]] * 3 and changed[0][1] > made[0][1]
    assert json.loads(changed[0][0])['description'] == 'Now with words' == row.json()['description']

    sh('touch -d "2024-02-29 12:00:00.000001Z" "$1"', row.path)
    touched = copies(sql, row)
    assert touched == [touched[0]] * 3 and row.json()['updated_at'] == '2024-02-29T12:00:00.000001Z'

    before = [trace(sql, row, shard) for shard in REGIONS]
    sh('cat "$1" > "$2"; cat "$2" > "$1"', row.path, f'/tmp/{name}')
    os.unlink(f'/tmp/{name}')
    assert [trace(sql, row, shard) for shard in REGIONS] == before, 'an equal save writes nowhere'

    row.path.unlink()
    assert copies(sql, row) == [None] * 3 and not row.path.exists()


@pytest.mark.parametrize('region', REGIONS.values())
def test_a_category_in_use_on_one_shard_stays_on_all(mnt, new_category, new_course, sql, region):
    row = new_category()
    course = new_course(region, category_id=row.id)
    before = copies(sql, row)
    with fails(errno.EBUSY):
        row.path.unlink()
    assert copies(sql, row) == before and '1 course' in last_error(mnt, row)['message']
    course.path.unlink()
    row.path.unlink()
    assert copies(sql, row) == [None] * 3


def test_a_refused_category_is_refused_on_every_shard(mnt, new_category, sql):
    one, two = new_category(), new_category()
    before = copies(sql, one)
    for fields, code in (({'slug': two.json()['slug']}, errno.EEXIST), ({'parent_id': one.id}, errno.EINVAL),
                         ({'parent_id': 4_000_000_001}, errno.ENOLINK), ({'name': ''}, errno.EINVAL)):
        with fails(code):
            one.path.write_text(edited(one, **fields))
    assert copies(sql, one) == before
