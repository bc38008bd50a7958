"""campusfs check: finds what it should, nothing else, and mends what it may."""

import contextlib
import json
import uuid

import pytest

from cluster import SHARDS
from conftest import region_number
from library_notice import without_notice
from mount_tools import wait_for
from people import Person, ask, new_course

PARTS = ['transfers', 'names', 'ids', 'categories', 'regions', 'derived', 'sequences', 'preferences', 'media']
DAY = "clock_timestamp() - interval '1 day'"


@pytest.fixture(scope='module')
def own(frail):
    frail.start()
    frail.write_config(frail.directory / 'check.conf', timeout='3s')
    return frail


@pytest.fixture(autouse=True)
def clean_behind(own):
    """Each test mends what it has broken, and the check says so."""
    yield
    code, results = check(own)
    assert code == 0, results


def check(own, *arguments):
    """The exit code and {part: its result}."""
    done = own.run('check', '--json', *arguments, config=own.directory / 'check.conf', check=False)
    assert without_notice(done.stderr) == ''
    document = json.loads(done.stdout)
    assert document['status'] == {0: 'clean', 1: 'found', 2: 'unknown'}[done.returncode]
    return done.returncode, {part['name']: part for part in document['parts']}


def messages(own, part, *arguments, shard=None):
    """What a part says, and whether all of it was repaired; that of one shard only."""
    code, results = check(own, part, *arguments)
    result = results[part]
    assert code == (1 if result['found'] else 0) and list(results) == [part] and result['error'] is None
    assert result['found'] == len(result['findings'])
    assert result['status'] == ('clean' if not result['found'] else 'repaired'
                                if result['repaired'] == result['found'] else 'found')
    found = [finding for finding in result['findings'] if shard in (None, finding['shard'])]
    return [finding['message'] for finding in found], [finding['repaired'] for finding in found]


# ---- the command

def test_clean(own):
    code, results = check(own)
    assert code == 0 and list(results) == PARTS and {part['status'] for part in results.values()} == {'clean'}
    done = own.run('check')
    assert done.stdout == ''.join(f'{part}: clean\n' for part in PARTS) and without_notice(done.stderr) == ''


def test_help_names_the_parts_and_a_wrong_one_is_told(own):
    for part in PARTS:
        assert f'\n  {part} ' in own.run('check', '--help').stdout
    done = own.run('check', 'everything', check=False)
    assert done.returncode == 64 and 'there is no part everything' in done.stderr


def test_a_shard_that_is_away(own):
    """Exit code 2, and which one."""
    own.primary('emea').stop()
    try:
        done = own.run('check', config=own.directory / 'check.conf', check=False)
        assert done.returncode == 2 and 'shard emea' in done.stderr and 'apac' not in done.stderr
    finally:
        own.start()


@pytest.mark.long
def test_a_seeded_platform_is_clean(new_cluster):
    cluster = new_cluster(replicas=False, seed=True)
    done = cluster.run('check', check=False)
    assert done.returncode == 0, done.stdout


# ---- derived values

def test_derived_values(own):
    teacher, student = Person(own, 'europe'), Person(own, 'europe')
    course = new_course(teacher, 'europe')
    enrollment = student.put('europe', 'enrollments', {'user_id': student.id, 'course_id': course})
    student.put('europe', 'reviews', {'user_id': student.id, 'course_id': course, 'rating': 4})
    ask(own, 'europe', 'UPDATE courses SET enrollment_count = 7, rating_sum = 5, duration_minutes = 3 WHERE id = %s', (course,))
    ask(own, 'europe', 'UPDATE enrollments SET progress_percent = 50 WHERE id = %s', (enrollment,))
    wrong = [f'regions/europe/courses/{course}.json: duration_minutes is 3, should be 0, the sum of ratings is 5, should '
             'be 4, enrollment_count is 7, should be 1',
             f'regions/europe/enrollments/{enrollment}.json: progress_percent is 50.00, should be 0']
    assert messages(own, 'derived') == (wrong, [False] * 2)
    before = ask(own, 'europe', 'SELECT rev FROM courses WHERE id = %s', (course,))
    assert messages(own, 'derived', '--repair') == (wrong, [True] * 2)
    assert ask(own, 'europe', 'SELECT enrollment_count, rating_sum, rating_count, duration_minutes FROM courses '
               'WHERE id = %s', (course,)) == [(1, 4, 1, 0)]
    assert ask(own, 'europe', 'SELECT rev FROM courses WHERE id = %s', (course,)) > before, 'mounts hear of it'
    assert messages(own, 'derived') == ([], [])


# ---- categories

def categories(own, shard):
    return ask(own, shard, 'SELECT id, body FROM doc_categories ORDER BY id')


def put_category(own, shard, number, **fields):
    ask(own, shard, 'SELECT * FROM put_categories(0::smallint, %s, %s, NULL, %s, true, NULL, NULL)', (
        number, json.dumps({'name': 'x', 'slug': uuid.uuid4().hex, **fields}), 'infinity'))


def test_categories(own):
    """Changed, missing with its parent, and left over; names and times become those of the first shard."""
    for shard in SHARDS:
        put_category(own, shard, 3001, slug='music')
    assert len(messages(own, 'categories', '--repair')[0]) == 2, 'each copy was written at a time of its own'
    put_category(own, 'americas', 9001, slug='arts')
    put_category(own, 'americas', 5001, slug='opera', parent_id=9001)
    put_category(own, 'emea', 7777, slug='opera')
    ask(own, 'apac', "UPDATE course_categories SET name = 'Noise' WHERE id = 3001")
    text, repaired = messages(own, 'categories')
    assert sorted(text) == sorted(
        ['categories/3001.json is not as on the first shard', 'categories/7777.json is not on the first shard'] + 2 * [
            'categories/5001.json is not as on the first shard', 'categories/9001.json is not as on the first shard'])
    assert not any(repaired)
    assert all(messages(own, 'categories', '--repair')[1])
    assert categories(own, 'emea') == categories(own, 'apac') == categories(own, 'americas') and len(
        categories(own, 'emea')) >= 3


def test_a_category_that_courses_need_stays(own):
    teacher = Person(own, 'asia')
    put_category(own, 'apac', 8888)
    course = new_course(teacher, 'asia')
    ask(own, 'apac', 'UPDATE courses SET category_id = 8888 WHERE id = %s', (course,))
    (message,), (repaired,) = messages(own, 'categories', '--repair')
    assert message == 'categories/8888.json is not on the first shard: category 8888 has 1 course' and not repaired
    assert ask(own, 'apac', 'SELECT category_id FROM courses WHERE id = %s', (course,)) == [(8888,)]
    ask(own, 'apac', 'UPDATE courses SET category_id = NULL WHERE id = %s', (course,))
    assert messages(own, 'categories', '--repair')[1] == [True]


# ---- names and ids

def test_names_on_two_shards(own):
    one, other = Person(own, 'europe'), Person(own, 'asia')
    ask(own, 'asia', 'UPDATE users SET email = upper(%s), username = upper(%s) WHERE id = %s',
        (f'{one.name}@example.org', one.name, other.id))
    courses = [new_course(one, 'europe'), new_course(other, 'asia')]
    slug = uuid.uuid4().hex
    for region, course in zip(('europe', 'asia'), courses):
        ask(own, region, 'UPDATE courses SET slug = %s WHERE id = %s', (slug, course))
    where = f'that of regions/europe/users/{one.id}.json and of regions/asia/users/{other.id}.json'
    assert messages(own, 'names', '--repair') == ([
        f'the e-mail address {one.name}@example.org is {where}', f'the username {one.name} is {where}',
        f'the slug {slug} is that of regions/europe/courses/{courses[0]}.json and of '
        f'regions/asia/courses/{courses[1]}.json'], [False] * 3)
    ask(own, 'asia', 'UPDATE users SET email = %s, username = %s WHERE id = %s', (f'{other.name}@x.org', other.name, other.id))
    ask(own, 'asia', 'UPDATE courses SET slug = %s WHERE id = %s', (uuid.uuid4().hex, courses[1]))


def test_a_row_that_its_home_does_not_know_of(own):
    person = Person(own, 'asia', number=50000000002, methods=0)  # by SQL, which claims nothing
    wrong = [f'users {person.id} is a row here, and its home, shard emea, has no claim of that']
    assert messages(own, 'ids', shard='apac') == (wrong, [False])
    assert messages(own, 'ids', '--repair', shard='apac') == (wrong, [True])
    assert person.claims() == {'emea': 3} and messages(own, 'ids') == ([], [])


def test_a_claim_without_a_row(own):
    for number, age in ((60000000002, DAY), (61000000002, 'clock_timestamp()')):
        ask(own, 'emea', f'INSERT INTO id_claims (collection, id, shard, claimed_at) VALUES (1, {number}, 3, {age})')
    wrong = ['users 60000000002 is claimed for shard apac, which has no such row']
    assert messages(own, 'ids') == (wrong, [False]), 'one taken just now is about to be used'
    assert messages(own, 'ids', '--repair') == (wrong, [True])
    assert ask(own, 'emea', 'DELETE FROM id_claims WHERE id IN (60000000002, 61000000002) RETURNING id') == [(61000000002,)]


def test_a_claim_for_a_row_that_was_deleted_today_stays(own):
    person = Person(own, 'asia', number=62000000002, methods=0)
    messages(own, 'ids', '--repair')
    ask(own, 'emea', f'UPDATE id_claims SET claimed_at = {DAY} WHERE id = %s', (person.id,))
    ask(own, 'asia', 'SELECT delete_users(5::smallint, %s, NULL, NULL)', (person.id,))
    assert messages(own, 'ids') == ([], [])
    ask(own, 'asia', 'DELETE FROM deleted_rows WHERE id = %s', (person.id,))
    assert messages(own, 'ids', '--repair')[1] == [True]


def test_an_id_that_two_shards_have(own):
    person = Person(own, 'europe', methods=0)
    ask(own, 'asia', "INSERT INTO users (region, id, email, username, first_name, last_name) VALUES (5, %s, %s, %s, 'E', '')",
        (person.id, f'{uuid.uuid4().hex}@example.org', uuid.uuid4().hex))
    text, repaired = messages(own, 'ids', '--repair')
    assert text == [f'users {person.id} is a row here and on its home, shard emea: one of them has to go']
    assert repaired == [False]
    ask(own, 'asia', 'DELETE FROM users WHERE id = %s', (person.id,))


# ---- regions and sequences

def test_a_row_in_a_region_of_another_shard(own):
    ask(own, 'emea', "INSERT INTO users (region, id, email, username, first_name, last_name) VALUES (5, 63000000002, "
        "'lost@example.org', 'lost', 'E', '')")
    assert messages(own, 'regions', '--repair') == (
        ['1 rows of users, region asia, which lives on another shard'], [False])
    ask(own, 'emea', 'DELETE FROM users WHERE id = 63000000002')


def test_a_sequence_that_is_behind(own):
    first = Person(own, 'africa', methods=0).id
    taken = [Person(own, 'africa', number=first + 1000 * step, methods=0).id for step in (1, 2, 4)]
    far = Person(own, 'africa', number=200000000002, methods=0)
    wrong = [f'users_id_seq stands at {first}, but what follows is taken, up to {taken[-1]}']
    assert messages(own, 'sequences') == (wrong, [False])
    assert messages(own, 'sequences', '--repair') == (wrong, [True])
    assert Person(own, 'africa', methods=0).id == taken[-1] + 1000, 'not behind what is far away'
    ask(own, 'africa', 'DELETE FROM users WHERE id = %s', (far.id,))


# ---- moves that broke off

def transfer_out(own, person, transfer):
    ask(own, 'emea', "SELECT * FROM transfer_out(3::smallint, %s, 5::smallint, 3::smallint, '{1,2,3}', %s, 'test')",
        (person.id, transfer))


def prepare_part(own, shard, transfer, source=2):
    """What a mount has prepared, as its role."""
    with contextlib.closing(own.connect(shard, role='rw')) as connection:
        with connection.cursor() as cursor:
            cursor.execute('BEGIN; SELECT pg_current_xact_id()')
            cursor.execute(f"PREPARE TRANSACTION 'campusfs:{source}:{SHARDS[shard][0]}:{transfer}'")


def test_a_part_whose_move_never_was(own):
    transfer = str(uuid.uuid4())
    prepare_part(own, 'apac', transfer)
    assert wait_for(lambda: messages(own, 'transfers')[0], 30)
    (message,), _ = messages(own, 'transfers', '--repair')
    assert message.startswith(f'transfer {transfer}: its part on shard apac has been prepared for ')
    assert message.endswith('rolled back, as decided')
    assert ask(own, 'emea', 'SELECT outcome FROM transfer_journal WHERE id = %s', (transfer,)) == [('void',)]
    with pytest.raises(Exception, match='duplicate key'):  # and it never can be
        transfer_out(own, Person(own, 'europe'), transfer)


def test_a_part_of_a_shard_that_is_not_configured(own):
    transfer = str(uuid.uuid4())
    prepare_part(own, 'apac', transfer, source=77)
    (message,), (repaired,) = messages(own, 'transfers', '--repair')
    assert 'shard number 77, which decided it, is not configured' in message and not repaired
    ask(own, 'apac', f"ROLLBACK PREPARED 'campusfs:77:3:{transfer}'")


def test_a_user_who_has_left_arrives(own):
    person, transfer = Person(own, 'europe'), str(uuid.uuid4())
    login = person.login('europe')
    transfer_out(own, person, transfer)
    assert person.regions() == [] and wait_for(lambda: messages(own, 'transfers')[0], 30)
    assert person.regions() == [], 'without --repair nothing is changed'
    (message,), _ = messages(own, 'transfers', '--repair')
    assert message.startswith(f'transfer {transfer}: user {person.id} left shard emea ')
    assert message.endswith('shard number 3: is there now')
    assert person.regions() == ['asia'] and person.login('asia') == login and person.claims() == {'emea': 3}


def test_a_user_whom_nobody_can_take_in_is_kept_in_the_journal(own):
    """Somebody has the name there by now; once it is free the user arrives."""
    person, transfer = Person(own, 'europe', methods=0), str(uuid.uuid4())
    transfer_out(own, person, transfer)
    other = Person(own, 'asia', methods=0)
    ask(own, 'asia', 'UPDATE users SET username = %s WHERE id = %s', (person.name, other.id))
    (message,), (repaired,) = messages(own, 'transfers', '--repair')
    assert f'cannot be mended: username "{person.name}" is taken by user {other.id}' in message and not repaired
    ask(own, 'asia', 'UPDATE users SET username = %s WHERE id = %s', (other.name, other.id))
    assert messages(own, 'transfers', '--repair')[1] == [True] and person.regions() == ['asia']


def test_a_move_that_a_failover_took_back(own):
    """Over for the journal, but the other shard was set back to before it: found within a day, and done again."""
    person, transfer = Person(own, 'europe'), str(uuid.uuid4())
    transfer_out(own, person, transfer)
    assert messages(own, 'transfers', '--repair')[1] == [True] and person.regions() == ['asia']
    ask(own, 'asia', 'DELETE FROM payment_methods WHERE user_id = %s', (person.id,))
    ask(own, 'asia', 'DELETE FROM users WHERE id = %s', (person.id,))
    ask(own, 'asia', 'DELETE FROM request_log WHERE request_id = %s', (transfer,))
    assert wait_for(lambda: messages(own, 'transfers')[0], 30)
    (message,), (repaired,) = messages(own, 'transfers', '--repair')
    assert 'a failover took the move back on shard number 3' in message and repaired
    assert person.regions() == ['asia'] and region_number('asia') == 5
    ask(own, 'emea', f'UPDATE transfers SET finished_at = {DAY} WHERE id = %s', (transfer,))
    ask(own, 'emea', 'SELECT purge_deleted()')
    assert ask(own, 'emea', 'SELECT 1 FROM transfers WHERE id = %s', (transfer,)) == [], 'kept for a day'
