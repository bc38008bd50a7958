"""Writers at the same time: what one of them may not lose, and that none of them dies of a deadlock."""

import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import psycopg2
import pytest

from sql_core import NOBODY, NUMBERS, connect  # noqa: F401

WRITERS = 8


@pytest.fixture
def together(connect):
    """together(work, count): work(session, number) on sessions of their own, at once; results or the errors."""
    def run(work, count=WRITERS):
        sessions = [connect() for _ in range(count)]
        start = threading.Barrier(count)

        def one(number):
            start.wait()
            try:
                return work(sessions[number], number)
            except psycopg2.Error as error:
                return error
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(one, range(count)))
    return run


def later(call, *arguments):
    """Calls in a thread; returns a function that waits for its result."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(call, *arguments)
    pool.shutdown(wait=False)
    return future.result


def wait_for_lock(session):
    """Until somebody waits for a lock."""
    deadline = time.monotonic() + 60
    while not session.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
                            'AND datname = current_database()'):
        assert time.monotonic() < deadline, 'nobody waits'
        time.sleep(0.005)


def without_time(document, **changes):
    return {**{key: value for key, value in document.items() if key != 'updated_at'}, **changes}


def test_saves_of_one_course(connect, together):
    course = connect().course(lessons=(3, 3))

    def work(session, number):
        revs = []
        for n in range(5):
            body = without_time(course.body, title=f'{number}.{n}')
            body['modules'] = body['modules'][::-1 if (number + n) % 2 else 1]
            saved = session.put('courses', body, course.id)
            assert saved.body['title'] == f'{number}.{n}' and saved.outcome == 'updated'
            revs.append(saved.rev)
        return revs
    revs = together(work)
    assert all(isinstance(result, list) and result == sorted(result) for result in revs), revs
    assert len({rev for result in revs for rev in result}) == WRITERS * 5
    after = connect().document('courses', course.id)
    assert after.rev == max(rev for result in revs for rev in result)
    assert sorted(module['id'] for module in after.body['modules']) == sorted(m['id'] for m in course.body['modules'])


def test_of_saves_from_one_base_one_wins(connect, together):
    user = connect().user()
    results = together(lambda session, number: session.put('users', {**user.body, 'first_name': f'N{number}'}, user.id))
    won = [result for result in results if not isinstance(result, Exception)]
    assert len(won) == 1 and {result.pgcode for result in results if isinstance(result, Exception)} == {'CF003'}
    assert connect().document('users', user.id).body == won[0].body


@pytest.mark.parametrize('attempt', range(5))
def test_creations_of_one_id(together, attempt):
    id = NOBODY - 1000 * (uuid.uuid4().int % 10 ** 6)
    document = {'email': f'{id}@example.org', 'username': str(id), 'first_name': 'A'}
    results = together(lambda session, number: session.put('users', {**document, 'last_name': str(number)}, id))
    assert sorted(result.outcome for result in results) == ['created'] + ['updated'] * (WRITERS - 1)


@pytest.mark.parametrize('attempt', range(5))
def test_creations_with_one_address(together, attempt):
    name = uuid.uuid4().hex
    document = {'email': f'{name}@example.org', 'first_name': 'A'}
    results = together(lambda session, number: session.put('users', {**document, 'username': f'{name}{number}'}))
    assert sum(not isinstance(result, Exception) for result in results) == 1
    errors = [result for result in results if isinstance(result, Exception)]
    assert {(error.pgcode, error.diag.column_name) for error in errors} == {('23505', 'email')}


def test_enrollments_into_one_course(connect, together):
    session = connect()
    course = session.course()
    users = [session.user(region).id for region in ('europe', 'africa') for _ in range(WRITERS * 5)]

    def work(session, number):
        for n, user in enumerate(users[number::WRITERS]):
            region = 'europe' if users.index(user) < WRITERS * 5 else 'africa'
            row = session.enrollment(region, user_id=user, course_id=course.id)
            if n % 2:
                session.put('enrollments', {**row.body, 'status': 'cancelled'}, row.id, region)
            session.review(region, user_id=user, course_id=course.id, rating=1 + n % 5)
    assert together(work) == [None] * WRITERS
    body = session.document('courses', course.id).body
    (count, stars, cancelled), = session.sql(
        "SELECT count(*), sum(rating), count(*) FILTER (WHERE status = 'cancelled') FROM course_reviews "
        'JOIN enrollments USING (user_id, course_id) WHERE course_id = %s', course.id)
    assert count == len(users) and cancelled > 0
    assert (body['enrollment_count'], body['rating_count']) == (count - cancelled, count)
    assert body['average_rating'] == round(stars / count, 2)


def test_durations_that_two_change_at_once_are_both_summed(connect):
    one, two, watch = connect(), connect(), connect('admin')
    course = one.course()
    lessons = [lesson for module in course.body['modules'] for lesson in module['lessons']][:2]
    rest = course.body['duration_minutes'] - sum(lesson['duration_minutes'] for lesson in lessons)
    change = 'UPDATE course_lessons SET duration_minutes = %s WHERE id = %s'
    one.connection.autocommit = False
    try:
        one.sql(change, 100, lessons[0]['id'])
        other = later(two.sql, change, 200, lessons[1]['id'])
        wait_for_lock(watch)
        one.connection.commit()
        other()
    finally:
        one.connection.rollback()
    assert watch.document('courses', course.id).body['duration_minutes'] == rest + 300


@pytest.mark.parametrize('statement', [
    'INSERT INTO course_reviews (region, user_id, course_id, rating) SELECT 3, {user}, unnest(ARRAY{courses}), 5',
    "UPDATE course_lessons SET title = 'Other' FROM course_modules m WHERE m.id = module_id AND m.course_id = ANY (ARRAY{courses})"])
def test_statements_on_many_courses_lock_them_in_one_order(connect, statement):
    """By id, whatever order they lie or come in: who waits for the first holds none of the others."""
    one, two, watch = connect(), connect(), connect('admin')
    courses = [one.course().id for _ in range(8)]
    for course in courses[::-1]:
        one.sql("UPDATE courses SET title = 'Moved' WHERE id = %s", course)
    one.connection.autocommit = False
    try:
        one.sql('SELECT FROM courses WHERE id = %s FOR NO KEY UPDATE', courses[0])
        other = later(two.sql, statement.format(user=watch.user().id, courses=courses[::-1]))
        wait_for_lock(watch)
        one.sql('SELECT FROM courses WHERE id = ANY (%s) FOR NO KEY UPDATE NOWAIT', courses[1:])
        one.connection.rollback()
        other()
    finally:
        one.connection.rollback()


def test_a_popular_course_can_be_edited(connect, together):
    session = connect()
    course = session.course()
    users = [session.user().id for _ in range(WRITERS * 4)]

    def work(session, number):
        if number == 0:
            body = course.body
            for n in range(20):
                body = session.put('courses', {**body, 'title': f'Edition {n}'}, course.id).body
            return body['title']
        for user in users[number::WRITERS]:
            session.review(user_id=user, course_id=course.id)
        return None
    assert together(work) == ['Edition 19'] + [None] * (WRITERS - 1)


def test_default_payment_methods_of_one_user(connect, together):
    session = connect()
    user = session.user().id
    methods = [session.method(user_id=user) for _ in range(WRITERS)]

    def work(session, number):
        for _ in range(5):
            session.put('payment_methods', without_time(methods[number].body, is_default=True), methods[number].id)
    assert together(work) == [None] * WRITERS
    assert session.value('SELECT count(*) FROM payment_methods WHERE user_id = %s AND is_default', user) == 1


@pytest.mark.parametrize('first', ['claim', 'create'])
@pytest.mark.parametrize('how', ['save', 'sql'])
def test_a_claim_and_a_creation_exclude_each_other(connect, first, how):
    one, two, watch = connect(), connect(), connect('admin')
    id = NOBODY - 1000 * (uuid.uuid4().int % 10 ** 6)
    name = str(uuid.uuid4())

    def create(session):
        if how == 'sql':
            session.sql('INSERT INTO users (region, id, email, username, first_name, last_name) '
                        "VALUES (3, %s, %s, %s, 'A', '')", id, f'{name}@example.org', name)
        else:
            session.put('users', {'email': f'{name}@example.org', 'username': name, 'first_name': 'A'}, id)

    def claim(session):
        session.sql('SELECT claim_id(%s::smallint, %s, 1::smallint)', NUMBERS['users'], id)
    steps = [claim, create] if first == 'claim' else [create, claim]
    one.connection.autocommit = False
    steps[0](one)
    second = later(steps[1], two)
    wait_for_lock(watch)
    one.connection.commit()
    with pytest.raises(psycopg2.Error) as raised:
        second()
    assert raised.value.pgcode == '23505'


@pytest.mark.parametrize('end, outcome', [('commit', 'committed'), ('rollback', 'void')])
def test_a_request_under_way_is_waited_for(connect, end, outcome):
    """Somebody who only looked would find nothing, and be wrong a moment later."""
    writer, asker, watch = connect(), connect(), connect('admin')
    request = str(uuid.uuid4())
    user = writer.user()
    writer.connection.autocommit = False
    writer.put('users', {**user.body, 'first_name': 'B'}, user.id, request=request)
    answer = later(asker.value, 'SELECT resolve_request(%s::uuid)', request)
    wait_for_lock(watch)
    getattr(writer.connection, end)()
    assert answer() == outcome


@pytest.mark.parametrize('by_sql', [False, True], ids=['put', 'SQL'])
def test_two_moves_do_not_close_a_circle(connect, by_sql):
    def move(session, row, parent):
        if by_sql:
            session.sql('UPDATE course_categories SET parent_id = %s WHERE id = %s', parent.id, row.id)
        else:
            session.put('categories', {**row.body, 'parent_id': parent.id}, row.id, None)
    one, two, watch = connect(), connect(), connect('admin')
    first, second = (one.put('categories', {'name': name, 'slug': name}, region=None)
                     for name in (uuid.uuid4().hex, uuid.uuid4().hex))
    try:
        one.connection.autocommit = False
        move(one, first, second)
        other = later(move, two, second, first)
        wait_for_lock(watch)
        one.connection.commit()
        with pytest.raises(psycopg2.Error) as raised:
            other()
        assert raised.value.pgcode in ('22023', '40P01')
        one.connection.autocommit = True
        parents = one.sql('SELECT parent_id FROM course_categories WHERE id IN (%s, %s)', first.id, second.id)
        assert (None,) in parents
    finally:
        one.connection.rollback()
        one.connection.autocommit = True
        one.sql('UPDATE course_categories SET parent_id = NULL WHERE id IN (%s, %s)', first.id, second.id)
        one.delete('categories', first.id, None)
        one.delete('categories', second.id, None)
