"""The stored procedures of docs/procedures.md: each does what it says, shows it in the documents, and refuses the rest.

They are called as campusfs_rw, as SQL clients do, on the shard of europe and africa; reports as campusfs_ro. After a
refused call the change log must be what it was before: nothing was written.
"""

import datetime
import json
import re
import threading

import psycopg2
import pytest

REGION = 'europe'
CARD = '4111 1111 1111 1111'  # passes Luhn, belongs to nobody
PASSWORD = 'correct horse battery'
UTC = datetime.timezone.utc

VIEWS = {'users': 'doc_users', 'courses': 'doc_courses', 'enrollments': 'doc_enrollments', 'reviews': 'doc_reviews',
         'payment-methods': 'doc_payment_methods', 'transactions': 'doc_transactions', 'invoices': 'doc_invoices'}


# ---- calling and looking

@pytest.fixture(scope='module')
def connect(cluster):
    """A connection of a test's own; hashes of little work, so that no test waits for bcrypt."""
    def make(role='rw'):
        return cluster.connect(REGION, role, options='-c search_path=campusfs,pg_catalog -c campusfs.bcrypt_cost=4')
    return make


@pytest.fixture(scope='module')
def clients(connect):
    opened = {role: connect(role) for role in ('rw', 'ro')}
    yield opened
    for connection in opened.values():
        connection.close()


def run(connection, function, arguments, named):
    marks = ', '.join(['%s'] * len(arguments) + [f'{name} => %s' for name in named])
    with connection.cursor() as cursor:
        cursor.execute(f'SELECT * FROM {function}({marks})', [*arguments, *named.values()])
        names = [column.name for column in cursor.description]
        return [dict(zip(names, row)) for row in cursor.fetchall()]


@pytest.fixture(scope='module')
def call(clients):
    """call(function, …): the result: a value, or a dict for a function with several columns."""
    def execute(function, *arguments, **named):
        row, = run(clients['rw'], function, arguments, named)
        return next(iter(row.values())) if len(row) == 1 else row
    return execute


@pytest.fixture(scope='module')
def report(clients):
    """report(function, …): the rows of a report, as dicts, asked for by who may only read."""
    def execute(function, *arguments, **named):
        return run(clients['ro'], function, arguments, named)
    return execute


@pytest.fixture(scope='module')
def refused(clients, sql):
    """refused(state, words, function, …): the error, after a check of its state and of its words, and that nothing moved."""
    def execute(state, words, function, *arguments, role='rw', **named):
        before = sql(REGION, 'SELECT count(*), max(rev) FROM change_log')
        with pytest.raises(psycopg2.Error) as raised:
            run(clients[role], function, arguments, named)
        error = raised.value
        assert error.pgcode == state, error
        assert re.search(words, error.diag.message_primary), error.diag.message_primary
        assert error.diag.message_detail is None, 'details of constraints show whole rows'
        assert sql(REGION, 'SELECT count(*), max(rev) FROM change_log') == before
        return error
    return execute


@pytest.fixture(scope='module')
def document(sql):
    """document(collection, id): the row's document, None when there is none."""
    def read(collection, row_id):
        rows = sql(REGION, f'SELECT body FROM {VIEWS[collection]} WHERE id = %s', (row_id,))
        return json.loads(rows[0][0]) if rows else None
    return read


@pytest.fixture(scope='module')
def clocks(sql):
    """clocks(collection, id): (rev, updated_us, content_us) of the row's document."""
    def read(collection, row_id):
        row, = sql(REGION, f'SELECT rev, updated_us, content_us FROM {VIEWS[collection]} WHERE id = %s', (row_id,))
        return row
    return read


def lessons_of(course):
    return [lesson['id'] for module in course['modules'] for lesson in module['lessons']]


def today():
    return datetime.datetime.now(UTC).date()


# ---- accounts

@pytest.fixture
def registered(call, unique):
    """A user with a password: (id, username, e-mail)."""
    def make(region=REGION, **named):
        name = unique()
        user = call('register_user', region, f'{name}@Example.org', name, PASSWORD, 'Grace', 'Hopper', **named)
        return user, name, f'{name}@Example.org'
    return make


def test_register_user(call, document, sql, unique):
    name = unique()
    user = call('register_user', 'africa', f' {name}@example.org ', name, PASSWORD, 'Chinua', 'Achebe',
                p_role='instructor', p_profile='{"city": "Lagos", "country": "NG"}')
    shown = document('users', user)
    assert (shown['id'], shown['region'], shown['email'], shown['username']) == (user, 'africa', f'{name}@example.org',
                                                                                name)
    assert (shown['role'], shown['status'], shown['email_verified']) == ('instructor', 'active', False)
    assert shown['profile']['city'] == 'Lagos' and shown['profile']['country'] == 'NG'
    assert user % 1000 == sql(REGION, 'SELECT shard_number()')[0][0]
    (kept,), = sql(REGION, 'SELECT password_hash FROM user_credentials WHERE user_id = %s', (user,))
    assert re.fullmatch(r'\$2a\$04\$.{53}', kept), 'bcrypt, with the work that the setting asks for'


@pytest.mark.parametrize('changes, state, words', [
    ({'region': 'atlantis'}, '22023', 'no region atlantis'),
    ({'region': 'asia'}, 'CF005', 'another shard'),
    ({'region': None}, '22023', 'region'),
    ({'email': 'nobody'}, '22023', 'email .*must be an address'),
    ({'email': None}, '22023', 'email must not be null'),
    ({'username': 'two words'}, '22023', 'username'),
    ({'first_name': ''}, '22023', 'first_name must not be empty'),
    ({'password': 'qwerty'}, '22023', 'too short'),
    ({'password': None}, '22023', 'too short'),
    ({'password': 'x' * 73}, '22023', 'too long'),
    ({'role': 'admin'}, 'CF005', 'nobody registers as an admin'),
    ({'role': 'dean'}, '22023', 'role .*must be one of'),
    ({'profile': '{"shoe_size": 44}'}, '22023', 'profile.shoe_size is not a field'),
])
def test_register_user_refuses(refused, unique, changes, state, words):
    name = unique()
    given = {'region': REGION, 'email': f'{name}@example.org', 'username': name, 'password': PASSWORD,
             'first_name': 'Grace', 'last_name': 'Hopper', 'role': 'student', 'profile': '{}', **changes}
    error = refused(state, words, 'register_user', *given.values())
    assert given['password'] is None or given['password'] not in str(error)


def test_register_user_refuses_what_is_taken(refused, registered, unique):
    user, name, email = registered()
    refused('23505', f'email .* is taken by user {user} of {REGION}', 'register_user', 'africa', email.upper(), unique(),
            PASSWORD, 'Grace')
    refused('23505', f'username .* is taken by user {user}', 'register_user', REGION, f'{unique()}@example.org',
            name.upper(), PASSWORD, 'Grace')
    refused('22023', 'is the e-mail address or the username', 'register_user', REGION, f'{unique()}@example.org',
            'grace.hopper.' + name, 'Grace.Hopper.' + name, 'Grace')


def test_authenticate_user(call, registered, document, clocks):
    user, name, email = registered()
    before = clocks('users', user)
    first = call('authenticate_user', email.lower(), PASSWORD)
    assert first == {'user_id': user, 'region': REGION, 'username': name, 'role': 'student', 'previous_login_at': None}
    second = call('authenticate_user', name.upper(), PASSWORD)
    assert second['previous_login_at'] is not None
    assert document('users', user)['last_login_at'] > second['previous_login_at'].isoformat()[:26]
    rev, updated, content = clocks('users', user)
    assert rev > before[0] and updated > before[1], 'the document shows the login'
    assert content == before[2], 'a login is no edit that another edit could collide with'


def test_authenticate_user_refuses(refused, registered, call):
    user, name, email = registered()
    unknown = refused('28P01', 'unknown user or wrong password', 'authenticate_user', 'nobody@nowhere.example', PASSWORD)
    wrong = refused('28P01', 'unknown user or wrong password', 'authenticate_user', email, PASSWORD + '!')
    assert str(unknown) == str(wrong), 'the answer does not tell which accounts exist'
    for nothing in (None, ''):
        refused('28P01', 'unknown user', 'authenticate_user', email, nothing)
    refused('28P01', 'unknown user', 'authenticate_user', None, PASSWORD)
    call('suspend_user', user)
    refused('28000', 'this account is suspended', 'authenticate_user', email, PASSWORD)
    refused('28P01', 'unknown user', 'authenticate_user', email, 'a guess')


def test_authenticate_user_without_a_password_at_all(refused, new_user):
    user = new_user(REGION)
    refused('28P01', 'unknown user', 'authenticate_user', user.document['email'], PASSWORD)


def test_authentication_works_as_long_for_unknown_users(cluster, registered):
    """At a cost where the hash outweighs all else: an unknown user takes at least half of what a known one takes."""
    connection = cluster.connect(REGION, 'rw', options='-c search_path=campusfs,pg_catalog -c campusfs.bcrypt_cost=8')
    _, name, _ = registered()
    run(connection, 'authenticate_user', [name, PASSWORD], {})  # the hash is now of cost 8

    def best(login):
        times = []
        for _ in range(5):
            start = datetime.datetime.now()
            with pytest.raises(psycopg2.Error):
                run(connection, 'authenticate_user', [login, 'a guess'], {})
            times.append((datetime.datetime.now() - start).total_seconds())
        return min(times)
    known, unknown = best(name), best('nobody')
    connection.close()
    assert unknown > known / 2, f'{unknown:.4f} s against {known:.4f} s'


def test_authenticate_user_strengthens_an_old_hash(cluster, registered, sql):
    user, name, _ = registered()
    before, = sql(REGION, 'SELECT password_hash, changed_at FROM user_credentials WHERE user_id = %s', (user,))
    connection = cluster.connect(REGION, 'rw', options='-c search_path=campusfs,pg_catalog -c campusfs.bcrypt_cost=5')
    for _ in range(2):
        assert run(connection, 'authenticate_user', [name, PASSWORD], {})[0]['user_id'] == user
    connection.close()
    after, = sql(REGION, 'SELECT password_hash, changed_at FROM user_credentials WHERE user_id = %s', (user,))
    assert before[0].startswith('$2a$04$') and after[0].startswith('$2a$05$')
    assert before[1] == after[1], 'the password is the same'


def test_change_password(call, refused, registered, clocks):
    user, name, _ = registered()
    before = clocks('users', user)
    call('change_password', user, PASSWORD, 'another good one')
    assert clocks('users', user) == before, 'no document shows passwords'
    assert call('authenticate_user', name, 'another good one')['user_id'] == user
    refused('28P01', 'wrong password', 'authenticate_user', name, PASSWORD)


def test_change_password_refuses(call, refused, registered):
    user, name, _ = registered()
    refused('28P01', 'unknown user or wrong password', 'change_password', user, 'a guess', 'another good one')
    refused('28P01', 'unknown user or wrong password', 'change_password', 274877906000, PASSWORD, 'another good one')
    refused('22023', 'too short', 'change_password', user, PASSWORD, 'short')
    refused('22023', 'too long', 'change_password', user, PASSWORD, 'ü' * 37)
    refused('22023', 'is the old one', 'change_password', user, PASSWORD, PASSWORD)
    call('suspend_user', user)
    refused('28000', 'suspended', 'change_password', user, PASSWORD, 'another good one')


def test_update_profile(call, document, clocks, new_user):
    user = new_user(REGION, profile={'city': 'London', 'bio': 'Counts.'})
    before = clocks('users', user.id)
    profile = call('update_profile', user.id, '{"bio": null, "timezone": "Europe/Lisbon", "date_of_birth": "1815-12-10"}')
    shown = document('users', user.id)
    assert profile == shown['profile']
    assert profile['city'] == 'London', 'what is not named stays'
    assert (profile['bio'], profile['timezone'], profile['date_of_birth']) == (None, 'Europe/Lisbon', '1815-12-10')
    assert {**user.document, 'profile': profile, 'updated_at': shown['updated_at']} == shown
    after = clocks('users', user.id)
    assert all(new > old for new, old in zip(after, before)), 'an edit: every clock moves'
    call('update_profile', user.id, '{"city": "London"}')
    assert clocks('users', user.id) == after, 'what changes nothing writes nothing'


def test_update_profile_refuses(refused, new_user):
    user = new_user(REGION)
    assert refused('22023', 'profile.country .*two-letter', 'update_profile', user.id,
                   '{"country": "pt"}').diag.column_name == 'profile.country'
    refused('22023', 'profile.town is not a field', 'update_profile', user.id, '{"town": "Porto"}')
    refused('22023', 'must be an object', 'update_profile', user.id, '[]')
    refused('22023', 'must be an object', 'update_profile', user.id, None)
    refused('CF001', 'no user 274877906000', 'update_profile', 274877906000, '{}')
    refused('22023', 'the id is NULL', 'update_profile', None, '{}')
    gone = new_user(REGION, status='deleted')
    refused('CF005', 'deleted', 'update_profile', gone.id, '{}')


def test_suspend_and_reactivate_user(call, refused, document, clocks, new_user):
    user = new_user(REGION)
    call('suspend_user', user.id)
    assert document('users', user.id)['status'] == 'suspended'
    refused('CF005', 'suspended already', 'suspend_user', user.id)
    before = clocks('users', user.id)
    call('reactivate_user', user.id)
    assert document('users', user.id)['status'] == 'active'
    assert all(new > old for new, old in zip(clocks('users', user.id), before))
    refused('CF005', 'active, not suspended', 'reactivate_user', user.id)


def test_suspend_and_reactivate_user_refuse(refused, new_user):
    gone = new_user(REGION, status='deleted')
    for function in ('suspend_user', 'reactivate_user'):
        refused('CF005', 'is deleted', function, gone.id)
        refused('CF001', 'no user 274877906000', function, 274877906000)


# ---- courses

def test_create_course(call, document, new_instructor, new_category, unique):
    teacher, category = new_instructor('africa'), new_category()
    title = f'Éléments d’Analyse {unique()}'
    course = call('create_course', teacher.id, title, 4900, 'JPY', category.id, p_level='advanced', p_language='fr',
                  p_modules=json.dumps([{'title': 'Un', 'lessons': [{'title': 'Premier', 'duration_minutes': 7}]}]))
    shown = document('courses', course)
    assert (shown['status'], shown['region'], shown['instructor_id']) == ('draft', 'africa', teacher.id)
    assert (shown['category_id'], shown['price'], shown['currency']) == (category.id, 4900, 'JPY')
    assert (shown['level'], shown['language'], shown['published_at']) == ('advanced', 'fr', None)
    assert shown['slug'] == 'elements-d-analyse-' + title[-12:]
    assert shown['duration_minutes'] == 7, 'a derived value is the triggers\' work'
    twin = document('courses', call('create_course', teacher.id, title))
    assert twin['slug'] == shown['slug'] + '-2' and twin['price'] == 0
    assert re.fullmatch(r'course(-\w+)?', document('courses', call('create_course', teacher.id, 'गणित'))['slug'])


def test_create_course_refuses(call, refused, new_instructor, new_user, unique):
    teacher, student = new_instructor(REGION), new_user(REGION)
    slug = unique()
    call('create_course', teacher.id, 'Algebra', p_slug=slug)
    refused('23505', 'slug .* is taken by course', 'create_course', teacher.id, 'Algebra', p_slug=slug)
    refused('22023', 'slug', 'create_course', teacher.id, 'Algebra', p_slug='Not A Slug')
    refused('CF005', 'is a student and cannot teach', 'create_course', student.id, 'Algebra')
    refused('CF001', 'no user 274877906000', 'create_course', 274877906000, 'Algebra')
    refused('CF001', 'category', 'create_course', teacher.id, 'Algebra', p_category_id=274877906000)
    refused('22023', 'no decimals', 'create_course', teacher.id, 'Algebra', 49.5, 'JPY')
    refused('22023', '2 decimals', 'create_course', teacher.id, 'Algebra', 49.905, 'EUR')
    refused('22023', 'must not be negative', 'create_course', teacher.id, 'Algebra', -1, 'EUR')
    refused('22023', 'price and its currency', 'create_course', teacher.id, 'Algebra', 5, None)
    refused('22023', 'currency', 'create_course', teacher.id, 'Algebra', 5, 'euro')
    refused('22023', 'title', 'create_course', teacher.id, '')
    refused('22023', r'modules\[0\].title', 'create_course', teacher.id, 'Algebra', p_modules='[{}]')
    call('suspend_user', teacher.id)
    refused('CF005', 'is suspended and cannot teach', 'create_course', teacher.id, 'Algebra')


def test_publish_and_archive_course(call, refused, document, new_course):
    course = new_course(REGION, status='draft')
    first = call('publish_course', course.id)
    shown = document('courses', course.id)
    assert shown['status'] == 'published' and shown['published_at'] == first.strftime('%Y-%m-%dT%H:%M:%S.%fZ')
    refused('CF005', 'published already', 'publish_course', course.id)
    call('archive_course', course.id)
    assert document('courses', course.id)['status'] == 'archived'
    refused('CF005', 'archived already', 'archive_course', course.id)
    assert call('publish_course', course.id) == first, 'when it first became public'
    assert document('courses', course.id)['status'] == 'published'


def test_publish_course_refuses(call, refused, new_course, new_instructor):
    bare = new_course(REGION, status='draft', modules=[])
    error = refused('CF005', 'has no lessons', 'publish_course', bare.id)
    assert 'at least one lesson' in error.diag.message_hint
    hollow = new_course(REGION, status='draft', modules=[{'title': 'Full', 'lessons': [{'title': 'A'}]},
                                                         {'title': 'Hollow', 'lessons': []}])
    refused('CF005', 'module "Hollow" .* has no lessons', 'publish_course', hollow.id)
    half_a_yen = new_course(REGION, status='draft', price=100.5, currency='JPY')
    refused('22023', 'no decimals', 'publish_course', half_a_yen.id)
    teacher = new_instructor(REGION)
    course = new_course(REGION, status='draft', instructor_id=teacher.id)
    call('suspend_user', teacher.id)
    refused('CF005', 'suspended and cannot teach', 'publish_course', course.id)
    for function in ('publish_course', 'archive_course'):
        refused('CF001', 'no course 274877906000', function, 274877906000)
        refused('22023', 'the id is NULL', function, None)


def test_reorder_modules(call, refused, document, clocks, new_course):
    course = new_course(REGION, modules=[{'title': title, 'lessons': [{'title': title}]} for title in 'abc'])
    a, b, c = (module['id'] for module in course.document['modules'])
    before = clocks('courses', course.id)
    call('reorder_modules', course.id, [c, a, b])
    assert [module['id'] for module in document('courses', course.id)['modules']] == [c, a, b]
    after = clocks('courses', course.id)
    assert all(new > old for new, old in zip(after, before)), 'the curriculum is part of the document'
    call('reorder_modules', course.id, [c, a, b])
    assert clocks('courses', course.id) == after
    stranger = new_course(REGION).document['modules'][0]['id']
    for wrong in ([a, b], [a, b, b], [a, b, c, c], [a, b, stranger], [], None, [a, b, None]):
        error = refused('22023', 'each module of course .* once', 'reorder_modules', course.id, wrong)
        assert str(b) in error.diag.message_hint
    refused('CF001', 'no course', 'reorder_modules', 274877906000, [a])


def test_duplicate_course(call, refused, document, new_course, new_review, new_instructor, new_user):
    original = new_course(REGION, modules=[
        {'title': 'One', 'description': 'First', 'lessons': [{'title': 'L1', 'media': 'one/l1.mp4', 'is_preview': True},
                                                             {'title': 'L2', 'kind': 'quiz', 'duration_minutes': 3}]},
        {'title': 'Two', 'lessons': []}])
    new_review(REGION, course_id=original.id)
    other = new_instructor('africa')
    copy = document('courses', call('duplicate_course', original.id, p_instructor_id=other.id))
    assert (copy['region'], copy['instructor_id'], copy['status']) == ('africa', other.id, 'draft')
    assert copy['title'] == original.document['title'] + ' (copy)' and copy['slug'] != original.document['slug']
    assert (copy['rating_count'], copy['enrollment_count'], copy['published_at']) == (0, 0, None)

    def without_ids(course):
        return [{**module, 'id': 0, 'lessons': [{**lesson, 'id': 0} for lesson in module['lessons']]}
                for module in course['modules']]
    assert without_ids(copy) == without_ids(original.document)
    assert not set(lessons_of(copy)) & set(lessons_of(original.document))
    assert {key: copy[key] for key in ('price', 'currency', 'level', 'language', 'category_id', 'duration_minutes')} == \
        {key: original.document[key] for key in ('price', 'currency', 'level', 'language', 'category_id',
                                                 'duration_minutes')}
    again = document('courses', call('duplicate_course', original.id, 'Another one'))
    assert again['title'] == 'Another one' and again['instructor_id'] == original.document['instructor_id']
    refused('CF001', 'no course', 'duplicate_course', 274877906000)
    refused('CF005', 'cannot teach', 'duplicate_course', original.id, None, new_user(REGION).id)
    refused('22023', 'title', 'duplicate_course', original.id, 'x' * 201)


# ---- learning

@pytest.fixture
def free_course(new_course):
    def make(region=REGION, **fields):
        return new_course(region, **{'price': 0, **fields})
    return make


def test_enroll_student(call, document, clocks, new_user, free_course):
    student, course = new_user('africa'), free_course(REGION)
    before = clocks('courses', course.id)
    enrollment = call('enroll_student', student.id, course.id)
    shown = document('enrollments', enrollment)
    assert (shown['region'], shown['user_id'], shown['course_id'], shown['status']) == ('africa', student.id, course.id,
                                                                                        'active')
    assert shown['progress_percent'] == 0 and shown['enrolled_at'].startswith('20') and shown['completed_at'] is None
    assert [entry['lesson_id'] for entry in shown['lessons']] == sorted(lessons_of(course.document))
    assert {entry['status'] for entry in shown['lessons']} == {'not_started'}
    assert document('courses', course.id)['enrollment_count'] == 1
    after = clocks('courses', course.id)
    assert after[0] > before[0] and after[2] == before[2], 'a count that moved is no edit'


def test_enroll_student_again_after_cancelling(call, document, new_user, free_course, sql):
    student, course = new_user(REGION), free_course(REGION)
    enrollment = call('enroll_student', student.id, course.id)
    first, *_ = lessons_of(course.document)
    call('record_lesson_progress', enrollment, first)
    call('cancel_enrollment', enrollment)
    sql(REGION, "INSERT INTO course_lessons (id, module_id, position, title) SELECT next_child_id('course_lessons'), "
        "id, 99, 'New' FROM course_modules WHERE course_id = %s LIMIT 1", (course.id,))
    assert call('enroll_student', student.id, course.id) == enrollment
    shown = document('enrollments', enrollment)
    assert shown['status'] == 'active' and len(shown['lessons']) == len(lessons_of(course.document)) + 1
    assert shown['progress_percent'] == 20, 'what was done is kept'
    assert document('courses', course.id)['enrollment_count'] == 1


def test_enroll_student_refuses(call, refused, new_user, new_course, free_course):
    student, course = new_user(REGION), free_course(REGION)
    enrollment = call('enroll_student', student.id, course.id)
    refused('23505', f'enrolled in course .* already \\(enrollment {enrollment}, active\\)', 'enroll_student', student.id,
            course.id)
    refused('CF005', 'is a draft', 'enroll_student', student.id, free_course(REGION, status='draft').id)
    refused('CF005', 'is archived', 'enroll_student', student.id, free_course(REGION, status='archived').id)
    refused('CF005', 'nobody is a student|teaches course', 'enroll_student', course.document['instructor_id'], course.id)
    refused('CF001', 'no course', 'enroll_student', student.id, 274877906000)
    refused('CF001', 'no user', 'enroll_student', 274877906000, course.id)
    paid = new_course(REGION, price=20, currency='EUR')
    error = refused('CF005', r'costs 20.00 EUR, which user \d+ has not paid', 'enroll_student', student.id, paid.id)
    assert 'process_payment' in error.diag.message_hint
    assert call('enroll_student', student.id, paid.id, True) > 0, 'complimentary'
    call('suspend_user', student.id)
    refused('CF005', 'suspended and cannot enroll', 'enroll_student', student.id, free_course(REGION).id)


def test_enroll_student_after_a_payment_of_its_own(call, refused, new_user, new_course, new_transaction):
    student, course = new_user(REGION), new_course(REGION)
    new_transaction(REGION, user_id=student.id, course_id=course.id, status='refunded')
    refused('CF005', 'has not paid', 'enroll_student', student.id, course.id)
    new_transaction(REGION, user_id=student.id, course_id=course.id, status='completed')
    assert call('enroll_student', student.id, course.id) > 0


def test_cancel_enrollment(call, refused, document, new_enrollment):
    enrollment = new_enrollment(REGION)
    course = enrollment.document['course_id']
    assert document('courses', course)['enrollment_count'] == 1
    call('cancel_enrollment', enrollment.id)
    assert document('enrollments', enrollment.id)['status'] == 'cancelled'
    assert document('courses', course)['enrollment_count'] == 0
    refused('CF005', 'cancelled, not active', 'cancel_enrollment', enrollment.id)
    refused('CF005', 'completed, not active', 'cancel_enrollment', new_enrollment(REGION, status='completed').id)
    refused('CF001', 'no enrollment', 'cancel_enrollment', 274877906000)


def test_record_lesson_progress(call, document, clocks, new_enrollment):
    enrollment = new_enrollment(REGION)
    first, second, third, fourth = (entry['lesson_id'] for entry in enrollment.document['lessons'])
    before = clocks('enrollments', enrollment.id)
    assert call('record_lesson_progress', enrollment.id, first, 'in_progress', 90) == 0
    assert call('record_lesson_progress', enrollment.id, second) == 25
    shown = document('enrollments', enrollment.id)
    assert shown['progress_percent'] == 25
    assert shown['lessons'][0] == {'lesson_id': first, 'status': 'in_progress', 'position_seconds': 90,
                                   'completed_at': None}
    done = shown['lessons'][1]
    assert done['status'] == 'completed' and done['completed_at'] is not None
    assert clocks('enrollments', enrollment.id)[0] > before[0]
    assert call('record_lesson_progress', enrollment.id, second, 'in_progress', 5) == 25
    assert document('enrollments', enrollment.id)['lessons'][1] == {**done, 'position_seconds': 5}, \
        'watched again, still completed'
    for lesson in (first, third, fourth):
        percent = call('record_lesson_progress', enrollment.id, lesson)
    assert percent == 100
    shown = document('enrollments', enrollment.id)
    assert shown['status'] == 'completed' and shown['completed_at'] is not None
    assert shown['lessons'][0]['position_seconds'] == 90, 'not named, kept'


def test_record_lesson_progress_of_a_lesson_that_came_later(call, document, new_enrollment, sql):
    enrollment = new_enrollment(REGION)
    (late,), = sql(REGION, "INSERT INTO course_lessons (id, module_id, position, title) "
                   "SELECT next_child_id('course_lessons'), id, 99, 'New' FROM course_modules WHERE course_id = %s "
                   "LIMIT 1 RETURNING id", (enrollment.document['course_id'],))
    assert document('enrollments', enrollment.id)['lessons'] == enrollment.document['lessons']
    assert call('record_lesson_progress', enrollment.id, late) == 20
    assert late in [entry['lesson_id'] for entry in document('enrollments', enrollment.id)['lessons']]


def test_record_lesson_progress_refuses(call, refused, new_enrollment, new_course):
    enrollment = new_enrollment(REGION)
    lesson = enrollment.document['lessons'][0]['lesson_id']
    stranger = lessons_of(new_course(REGION).document)[0]
    refused('CF001', f'has no lesson {stranger}', 'record_lesson_progress', enrollment.id, stranger)
    refused('CF001', 'has no lesson NULL', 'record_lesson_progress', enrollment.id, None)
    refused('CF001', 'no enrollment', 'record_lesson_progress', 274877906000, lesson)
    refused('22023', "cannot be 'half'", 'record_lesson_progress', enrollment.id, lesson, 'half')
    refused('22023', 'cannot be NULL', 'record_lesson_progress', enrollment.id, lesson, None)
    refused('22023', 'must not be negative', 'record_lesson_progress', enrollment.id, lesson, 'in_progress', -1)
    call('cancel_enrollment', enrollment.id)
    refused('CF005', 'is cancelled', 'record_lesson_progress', enrollment.id, lesson)


def test_complete_course(call, refused, document, new_enrollment, new_course, new_user):
    enrollment = new_enrollment(REGION)
    *most, last = (entry['lesson_id'] for entry in enrollment.document['lessons'])
    for lesson in most:
        call('record_lesson_progress', enrollment.id, lesson)
    refused('CF005', '1 of 4 lessons .* not completed', 'complete_course', enrollment.id)
    call('record_lesson_progress', enrollment.id, last)
    completed = call('complete_course', enrollment.id)
    shown = document('enrollments', enrollment.id)
    assert shown['status'] == 'completed' and shown['completed_at'] == completed.strftime('%Y-%m-%dT%H:%M:%S.%fZ')
    assert call('complete_course', enrollment.id) == completed, 'again: nothing new'
    assert document('enrollments', enrollment.id) == shown


def test_complete_course_that_was_left_active(call, document, new_enrollment):
    """A document may say active at 100 percent; the procedure settles it."""
    enrollment = new_enrollment(REGION)
    entries = [{**entry, 'status': 'completed'} for entry in enrollment.document['lessons']]
    enrollment = new_enrollment(REGION, course_id=enrollment.document['course_id'], lessons=entries)
    assert enrollment.document['status'] == 'active' and enrollment.document['progress_percent'] == 100
    call('complete_course', enrollment.id)
    shown = document('enrollments', enrollment.id)
    assert shown['status'] == 'completed' and shown['completed_at'] is not None


def test_complete_course_refuses(call, refused, new_enrollment, new_course):
    empty = new_enrollment(REGION, course_id=new_course(REGION, modules=[]).id)
    refused('CF005', 'has no lessons to complete', 'complete_course', empty.id)
    call('cancel_enrollment', empty.id)
    refused('CF005', 'is cancelled', 'complete_course', empty.id)
    refused('CF001', 'no enrollment', 'complete_course', 274877906000)


def test_submit_review(call, document, new_enrollment):
    enrollment = new_enrollment(REGION).document
    student, course = enrollment['user_id'], enrollment['course_id']
    review = call('submit_review', student, course, 5, 'Loved it', 'All of it.')
    shown = document('reviews', review)
    assert (shown['user_id'], shown['course_id'], shown['rating'], shown['title'], shown['body']) == \
        (student, course, 5, 'Loved it', 'All of it.')
    assert document('courses', course)['average_rating'] == 5
    assert call('submit_review', student, course, 2) == review, 'in place of the earlier one'
    assert document('reviews', review)['title'] is None
    assert document('reviews', review)['created_at'] == shown['created_at']
    shown = document('courses', course)
    assert (shown['average_rating'], shown['rating_count']) == (2, 1)


def test_submit_review_refuses(call, refused, new_enrollment, new_user):
    enrollment = new_enrollment(REGION)
    student, course = enrollment.document['user_id'], enrollment.document['course_id']
    refused('22023', 'rating .* from 1 to 5', 'submit_review', student, course, 6)
    refused('22023', 'rating', 'submit_review', student, course, None)
    refused('22023', 'title has 201 characters', 'submit_review', student, course, 5, 'x' * 201)
    refused('CF005', 'is not enrolled', 'submit_review', new_user(REGION).id, course, 5)
    refused('CF001', 'no course', 'submit_review', student, 274877906000, 5)
    refused('CF001', 'no user', 'submit_review', 274877906000, course, 5)
    call('cancel_enrollment', enrollment.id)
    refused('CF005', 'is not enrolled', 'submit_review', student, course, 5)
    call('suspend_user', student)
    refused('CF005', 'suspended and cannot write reviews', 'submit_review', student, course, 5)


# ---- money

def test_add_payment_method(call, document, new_user):
    user = new_user('africa')
    first = call('add_payment_method', user.id, 'card', 'tok_1', 'visa', '4242', '2039-12-31')
    shown = document('payment-methods', first)
    assert (shown['region'], shown['user_id'], shown['kind'], shown['token'], shown['brand'], shown['last_four'],
            shown['expires_on']) == ('africa', user.id, 'card', 'tok_1', 'visa', '4242', '2039-12-31')
    assert shown['is_default'], 'the first one'
    second = call('add_payment_method', user.id, 'paypal', 'tok_2')
    assert not document('payment-methods', second)['is_default']
    third = call('add_payment_method', user.id, 'bank', 'tok_3', p_make_default=True)
    assert [document('payment-methods', method)['is_default'] for method in (first, second, third)] == \
        [False, False, True]


@pytest.mark.parametrize('changes, words', [
    ({'token': CARD}, 'contains a card number'),
    ({'brand': f'visa {CARD}'}, 'contains a card number'),
    ({'last_four': CARD.replace(' ', '')}, 'contains a card number'),
    ({'last_four': '42'}, 'last_four .*four digits'),
    ({'last_four': None}, 'a card needs'),
    ({'expires_on': None}, 'a card needs'),
    ({'expires_on': '2020-01-31'}, 'expired on 2020-01-31'),
    ({'kind': 'cheque'}, 'kind .*must be one of'),
    ({'token': None}, 'token must not be null'),
])
def test_add_payment_method_refuses(refused, new_user, changes, words):
    given = {'kind': 'card', 'token': 'tok_1', 'brand': 'visa', 'last_four': '4242', 'expires_on': '2039-12-31', **changes}
    error = refused('22023', words, 'add_payment_method', new_user(REGION).id, *given.values())
    assert '4111' not in str(error), 'a card number is in no message'


def test_add_payment_method_refuses_users(call, refused, new_user):
    user = new_user(REGION)
    call('suspend_user', user.id)
    refused('CF005', 'suspended and cannot store', 'add_payment_method', user.id, 'paypal', 'tok_1')
    refused('CF001', 'no user', 'add_payment_method', 274877906000, 'paypal', 'tok_1')


def test_set_default_payment_method(call, refused, document, clocks, new_payment_method):
    first = new_payment_method(REGION, is_default=True)
    second = new_payment_method(REGION, user_id=first.document['user_id'])
    call('set_default_payment_method', second.id)
    assert not document('payment-methods', first.id)['is_default']
    assert document('payment-methods', second.id)['is_default']
    before = clocks('payment-methods', second.id)
    call('set_default_payment_method', second.id)
    assert clocks('payment-methods', second.id) == before, 'it was the default already'
    expired = new_payment_method(REGION, user_id=first.document['user_id'], expires_on='2020-01-31')
    refused('CF005', 'expired on 2020-01-31', 'set_default_payment_method', expired.id)
    refused('CF001', 'no payment_method', 'set_default_payment_method', 274877906000)


@pytest.fixture
def sale(new_user, new_course, new_payment_method, unique):
    """What process_payment needs for a sale: a student with a default method, and a course for 49.90 EUR."""
    def make(region=REGION, **course):
        student = new_user(region)
        method = new_payment_method(region, user_id=student.id, is_default=True)
        course = new_course(REGION, **{'price': 49.90, 'currency': 'EUR', **course})
        return {'p_user_id': student.id, 'p_course_id': course.id, 'p_amount': course.document['price'],
                'p_currency': course.document['currency'], 'p_gateway': 'stripe',
                'p_gateway_reference': f'ch_{unique()}'}, method
    return make


def test_process_payment(call, document, sale, sql):
    given, method = sale('africa')
    paid = call('process_payment', **given, p_tax_percent=19)
    shown = document('transactions', paid['transaction_id'])
    assert (shown['region'], shown['user_id'], shown['course_id'], shown['payment_method_id']) == (
        'africa', given['p_user_id'], given['p_course_id'], method.id)
    assert (shown['amount'], shown['currency'], shown['status']) == (49.90, 'EUR', 'completed')
    assert (shown['gateway'], shown['gateway_reference']) == ('stripe', given['p_gateway_reference'])
    invoice = document('invoices', paid['invoice_id'])
    assert (invoice['region'], invoice['transaction_id'], invoice['status']) == ('africa', paid['transaction_id'], 'paid')
    assert (invoice['subtotal'], invoice['tax'], invoice['total'], invoice['currency']) == (41.93, 7.97, 49.90, 'EUR')
    assert invoice['number'] == paid['invoice_number']
    assert invoice['issued_on'] == invoice['due_on'] == today().isoformat()
    (shard,), = sql(REGION, 'SELECT shard_number()')
    assert re.fullmatch(f'INV-{shard:03}-[0-9]+', invoice['number']), 'the number carries the shard'
    enrollment = document('enrollments', paid['enrollment_id'])
    assert (enrollment['user_id'], enrollment['course_id']) == (given['p_user_id'], given['p_course_id'])


def test_process_payment_twice_is_one_payment(call, sale, sql):
    given, _ = sale()
    first = call('process_payment', **given)
    before = sql(REGION, 'SELECT count(*) FROM change_log')
    assert call('process_payment', **given) == first
    assert call('process_payment', **given, p_outcome='pending') == first, 'a message that came late'
    assert sql(REGION, 'SELECT count(*) FROM change_log') == before


def test_process_payment_by_two_clients_at_once(connect, sale, sql):
    given, _ = sale()
    outcomes = []

    def pay(reference):
        connection = connect()
        try:
            outcomes.append(run(connection, 'process_payment', [], {**given, 'p_gateway_reference': reference})[0]['status'])
        except psycopg2.Error as error:
            outcomes.append(error.pgcode)
        connection.close()
    clients = [threading.Thread(target=pay, args=(f"{given['p_gateway_reference']}-{n}",)) for n in range(4)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert sorted(outcomes) == ['23505', '23505', '23505', 'completed']
    assert sql(REGION, 'SELECT count(*) FROM transactions WHERE user_id = %s', (given['p_user_id'],)) == [(1,)]


def test_process_payment_pending_then_settled(call, document, sale):
    given, _ = sale()
    begun = call('process_payment', **given, p_outcome='pending')
    assert (begun['status'], begun['invoice_id'], begun['enrollment_id']) == ('pending', None, None)
    invoice = call('issue_invoice', begun['transaction_id'])
    call('suspend_user', given['p_user_id'])  # the money moves all the same
    call('archive_course', given['p_course_id'])
    settled = call('process_payment', **given)
    assert (settled['transaction_id'], settled['status']) == (begun['transaction_id'], 'completed')
    assert settled['invoice_id'] == invoice['invoice_id']
    assert document('invoices', invoice['invoice_id'])['status'] == 'paid'
    assert document('enrollments', settled['enrollment_id'])['status'] == 'active'


def test_process_payment_failed(call, refused, document, sale):
    given, _ = sale()
    begun = call('process_payment', **given, p_outcome='pending')
    invoice = call('issue_invoice', begun['transaction_id'])['invoice_id']
    failed = call('process_payment', **given, p_outcome='failed')
    assert (failed['status'], failed['enrollment_id']) == ('failed', None)
    assert document('invoices', invoice)['status'] == 'void'
    refused('CF005', 'is failed already', 'process_payment', **given)
    given['p_gateway_reference'] += '-again'
    assert call('process_payment', **given, p_outcome='failed')['invoice_id'] is None
    given['p_gateway_reference'] += '-again'
    assert call('process_payment', **given)['status'] == 'completed', 'a failure is no reason not to pay'
    refused('CF005', 'is completed already', 'process_payment', **given, p_outcome='failed')


def test_process_payment_without_method_and_enrollment(call, document, new_user, new_course, new_payment_method, unique):
    student, course = new_user(REGION), new_course(REGION)
    new_payment_method(REGION, user_id=student.id, is_default=True, expires_on='2020-01-31')
    paid = call('process_payment', student.id, course.id, 49.90, 'EUR', 'paypal', unique(), p_enroll=False)
    assert paid['enrollment_id'] is None
    assert document('transactions', paid['transaction_id'])['payment_method_id'] is None, 'the default has expired'
    assert call('enroll_student', student.id, course.id) > 0, 'it is paid'


def test_process_payment_refuses(call, refused, sale, new_payment_method, new_course, unique):
    given, method = sale()

    def wrong(state, words, **changes):
        return refused(state, words, 'process_payment', **{**given, **changes})
    error = wrong('22023', '9.9 EUR is not the price', p_amount=9.90)
    assert 'costs 49.90 EUR' in error.diag.message_hint
    wrong('22023', '49.9 USD is not the price', p_currency='USD')
    wrong('22023', 'must not be negative', p_amount=-49.90)
    wrong('22023', 'must not be NULL', p_amount=None)
    wrong('22023', 'must not be NULL', p_gateway_reference=None)
    wrong('22023', "cannot end up 'refunded'", p_outcome='refunded')
    wrong('22023', 'tax of 101 percent', p_tax_percent=101)
    wrong('CF001', 'no user', p_user_id=274877906000)
    wrong('CF001', 'no course', p_course_id=274877906000)
    wrong('CF001', 'has no payment method', p_payment_method_id=new_payment_method(REGION).id)
    expired = new_payment_method(REGION, user_id=given['p_user_id'], expires_on='2020-01-31').id
    wrong('CF005', 'expired on 2020-01-31', p_payment_method_id=expired)
    wrong('CF005', 'is a draft', p_course_id=new_course(REGION, status='draft').id)
    wrong('CF005', 'is free', p_course_id=new_course(REGION, price=0).id, p_amount=0)
    call('process_payment', **given)
    wrong('23505', 'has paid for course', p_gateway_reference=unique())
    other, _ = sale()
    refused('23505', 'another sale', 'process_payment',
            **{**other, 'p_gateway_reference': given['p_gateway_reference']})
    call('suspend_user', other['p_user_id'])
    refused('CF005', 'suspended and cannot pay', 'process_payment', **other)


def test_refund_payment(call, document, sale):
    given, _ = sale()
    paid = call('process_payment', **given)
    assert float(call('refund_payment', paid['transaction_id'], 49.90)) == 49.90
    assert document('transactions', paid['transaction_id'])['status'] == 'refunded'
    assert document('invoices', paid['invoice_id'])['status'] == 'void'
    assert document('enrollments', paid['enrollment_id'])['status'] == 'cancelled'
    assert document('courses', given['p_course_id'])['enrollment_count'] == 0
    given['p_gateway_reference'] += '-again'
    again = call('process_payment', **given)
    assert again['enrollment_id'] == paid['enrollment_id'] and again['invoice_number'] != paid['invoice_number']


def test_refund_payment_leaves_a_completed_course(call, document, sale):
    given, _ = sale()
    paid = call('process_payment', **given)
    for entry in document('enrollments', paid['enrollment_id'])['lessons']:
        call('record_lesson_progress', paid['enrollment_id'], entry['lesson_id'])
    call('refund_payment', paid['transaction_id'])
    assert document('enrollments', paid['enrollment_id'])['status'] == 'completed'


def test_refund_payment_refuses(call, refused, new_transaction):
    paid = new_transaction(REGION, amount=49.90, status='completed').id
    refused('22023', 'cannot refund 50 of a payment of 49.90 EUR', 'refund_payment', paid, 50)
    refused('22023', 'cannot refund 0', 'refund_payment', paid, 0)
    refused('22023', 'cannot refund -1', 'refund_payment', paid, -1)
    refused('CF005', 'can only be refunded whole', 'refund_payment', paid, 10)
    call('refund_payment', paid)
    refused('CF005', 'is refunded', 'refund_payment', paid)
    for status in ('pending', 'failed'):
        refused('CF005', f'is {status}', 'refund_payment', new_transaction(REGION, status=status).id)
    refused('CF001', 'no transaction', 'refund_payment', 274877906000)


def test_issue_invoice(call, document, new_transaction):
    pending = new_transaction(REGION, amount=120, currency='JPY', status='pending')
    first = call('issue_invoice', pending.id, 10, 30)
    shown = document('invoices', first['invoice_id'])
    assert (shown['number'], shown['status'], shown['currency']) == (first['invoice_number'], 'issued', 'JPY')
    assert (shown['subtotal'], shown['tax'], shown['total']) == (109, 11, 120), 'no fractions of a yen'
    assert shown['due_on'] == (today() + datetime.timedelta(days=30)).isoformat()
    second = call('issue_invoice', new_transaction(REGION, status='completed').id)
    assert document('invoices', second['invoice_id'])['status'] == 'paid'
    assert document('invoices', second['invoice_id'])['tax'] == 0


def test_invoice_numbers_have_no_gap_where_a_call_is_refused(call, refused, new_transaction):
    first = call('issue_invoice', new_transaction(REGION).id)['invoice_number']
    refused('CF005', 'is failed', 'issue_invoice', new_transaction(REGION, status='failed').id)
    second = call('issue_invoice', new_transaction(REGION).id)['invoice_number']
    assert int(second.rpartition('-')[2]) == int(first.rpartition('-')[2]) + 1


def test_issue_invoice_takes_up_a_draft(call, refused, document, new_transaction, new_invoice):
    paid = new_transaction(REGION, amount=49.90)
    draft = new_invoice(REGION, transaction_id=paid.id, status='draft', issued_on=None, due_on=None)
    issued = call('issue_invoice', paid.id)
    assert issued == {'invoice_id': draft.id, 'invoice_number': draft.document['number']}
    shown = document('invoices', draft.id)
    assert (shown['status'], shown['issued_on'], shown['tax']) == ('paid', today().isoformat(), 7.97)
    other = new_transaction(REGION, amount=10)
    new_invoice(REGION, transaction_id=other.id, status='draft', issued_on=None, due_on=None)
    refused('CF005', 'draft .* says 49.90 EUR, but .* 10.00 EUR', 'issue_invoice', other.id)


def test_issue_invoice_refuses(call, refused, new_transaction):
    paid = new_transaction(REGION)
    refused('22023', 'tax of -1 percent', 'issue_invoice', paid.id, -1)
    refused('22023', 'due in 400 days', 'issue_invoice', paid.id, 0, 400)
    number = call('issue_invoice', paid.id)['invoice_number']
    refused('23505', f'has invoice {number}, which is paid', 'issue_invoice', paid.id)
    refused('CF005', 'is refunded', 'issue_invoice', new_transaction(REGION, status='refunded').id)
    refused('CF001', 'no transaction', 'issue_invoice', 274877906000)


def test_void_invoice(call, refused, document, new_transaction):
    pending = new_transaction(REGION, status='pending')
    invoice = call('issue_invoice', pending.id)
    call('void_invoice', invoice['invoice_id'])
    shown = document('invoices', invoice['invoice_id'])
    assert (shown['status'], shown['number']) == ('void', invoice['invoice_number'])
    refused('CF005', 'is void', 'void_invoice', invoice['invoice_id'])
    assert call('issue_invoice', pending.id)['invoice_id'] != invoice['invoice_id']
    paid = call('issue_invoice', new_transaction(REGION).id)['invoice_id']
    assert 'refund_payment' in refused('CF005', 'is paid', 'void_invoice', paid).diag.message_hint
    refused('CF001', 'no invoice', 'void_invoice', 274877906000)


def test_erase_user_who_paid(call, refused, document, sale, registered, new_review, sql, unique):
    given, method = sale()
    user = given['p_user_id']
    was = document('users', user)
    paid = call('process_payment', **given)
    failed = call('process_payment', **{**given, 'p_course_id': sale()[0]['p_course_id'], 'p_outcome': 'failed',
                                        'p_gateway_reference': unique()})['transaction_id']
    review = call('submit_review', user, given['p_course_id'], 1)
    assert call('erase_user', user) == 'anonymised'
    shown = document('users', user)
    left = json.dumps(shown)
    for secret in (was['email'], was['username'], was['first_name'], was['last_name'], was['profile']['city']):
        assert secret not in left
    assert shown['status'] == 'deleted' and not any(shown['profile'].values())
    assert shown['created_at'] == was['created_at']
    assert document('invoices', paid['invoice_id'])['status'] == 'paid'
    assert document('transactions', paid['transaction_id'])['payment_method_id'] is None
    gone = [('transactions', failed), ('reviews', review), ('enrollments', paid['enrollment_id']),
            ('payment-methods', method.id)]
    assert [document(*row) for row in gone] == [None] * len(gone)
    course = document('courses', given['p_course_id'])
    assert (course['enrollment_count'], course['rating_count'], course['average_rating']) == (0, 0, None)
    assert sql(REGION, 'SELECT count(*) FROM user_credentials WHERE user_id = %s', (user,)) == [(0,)]
    refused('CF005', 'is deleted', 'reactivate_user', user)
    assert call('erase_user', user) == 'anonymised', 'can be repeated'


def test_erase_user_who_did_not(call, refused, document, registered, new_enrollment, new_payment_method, new_invoice,
                                new_transaction):
    user, name, _ = registered()
    new_enrollment(REGION, user_id=user)
    draft = new_invoice(REGION, transaction_id=new_transaction(REGION, user_id=user).id, status='draft')
    assert call('erase_user', user) == 'removed'
    assert document('users', user) is None and document('invoices', draft.id) is None
    refused('28P01', 'unknown user', 'authenticate_user', name, PASSWORD)
    refused('CF001', 'no user', 'erase_user', user)


def test_erase_user_refuses_who_teaches(refused, document, new_course):
    course = new_course(REGION).document
    refused('CF002', 'teaches 1 course', 'erase_user', course['instructor_id'])
    assert document('users', course['instructor_id'])['status'] == 'active'


def test_erasing_and_enrolling_at_once_is_no_deadlock(connect, call, new_user, new_course, sql):
    """Many users of the same two courses leave while others come: every lock is taken in one order."""
    courses = [new_course(REGION, price=0).id for _ in range(2)]
    leaving = [new_user(REGION).id for _ in range(12)]
    coming = [new_user(REGION).id for _ in range(12)]
    for number, user in enumerate(leaving):
        for course in courses[::1 if number % 2 else -1]:
            call('enroll_student', user, course)
    errors = []

    def work(tasks):
        connection = connect()
        for function, *arguments in tasks:
            try:
                run(connection, function, arguments, {})
            except psycopg2.Error as error:
                errors.append(error)
        connection.close()
    tasks = [[('erase_user', user) for user in leaving[:6]], [('erase_user', user) for user in leaving[6:]],
             [('enroll_student', user, course) for user in coming for course in courses],
             [('submit_review', user, courses[0], 5) for user in leaving[::-1]]]
    clients = [threading.Thread(target=work, args=(task,)) for task in tasks]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert [error for error in errors if error.pgcode not in ('CF001', 'CF005')] == []
    assert sql(REGION, 'SELECT enrollment_count FROM courses WHERE id = ANY (%s)', (courses,)) == [(12,), (12,)]


# ---- reports, as the role that may only read

def test_revenue_by_month(report, refused, new_transaction, new_user):
    def paid(day, **fields):
        new_transaction('africa', **{'currency': 'XTS', 'created_at': f'{day}T12:00:00.000000Z', **fields})
    paid('1999-01-31', amount=10)
    paid('1999-01-01', amount=5.50, status='refunded')
    paid('1999-02-01', amount=7)
    paid('1999-02-01', amount=100, status='failed')
    paid('1999-02-01', amount=100, status='pending')
    paid('1999-02-02', amount=1, currency='XXX')
    rows = report('revenue_by_month', '1999-01-01', '1999-02-28')
    assert [(row['month'].isoformat(), row['currency'], row['payments'], float(row['gross']), row['refunds'],
             float(row['refunded']), float(row['net'])) for row in rows] == [
        ('1999-01-01', 'XTS', 2, 15.5, 1, 5.5, 10), ('1999-02-01', 'XTS', 1, 7, 0, 0, 7),
        ('1999-02-01', 'XXX', 1, 1, 0, 0, 1)]
    assert len(report('revenue_by_month', '1999-01-02', '1999-01-31')) == 1
    assert report('revenue_by_month', '1999-01-01', '1999-02-28', 'europe') == []
    refused('22023', 'no period from 1999-02-01 to 1999-01-01', 'revenue_by_month', '1999-02-01', '1999-01-01', role='ro')
    refused('22023', 'no region atlantis', 'revenue_by_month', '1999-01-01', '1999-02-01', 'atlantis', role='ro')
    refused('CF005', 'another shard', 'revenue_by_month', '1999-01-01', '1999-02-01', 'asia', role='ro')


@pytest.fixture
def busy_course(call, new_course, new_user, unique):
    """A course for 10 EUR with five students who came as far as the funnel counts, two of whom reviewed it."""
    course = new_course(REGION, price=10, currency='EUR')
    lessons = lessons_of(course.document)
    students = [new_user(region).id for region in ('europe', 'africa', 'europe', 'africa', 'europe')]
    for done, student in enumerate(students):
        paid = call('process_payment', student, course.id, 10, 'EUR', 'stripe', unique())
        for lesson in lessons[:done]:
            call('record_lesson_progress', paid['enrollment_id'], lesson)
        if done == 0:
            call('refund_payment', paid['transaction_id'])
    call('submit_review', students[4], course.id, 5)
    call('submit_review', students[3], course.id, 4, 'Fine')
    return course, students


def test_course_statistics(report, refused, busy_course):
    course, _ = busy_course
    row, = report('course_statistics', course.id)
    assert (row['title'], row['status'], row['modules'], row['lessons']) == (course.document['title'], 'published', 2, 4)
    assert (row['enrollments'], row['active'], row['completed'], row['cancelled']) == (5, 3, 1, 1)
    assert (float(row['completion_rate']), float(row['average_progress'])) == (25, 62.5)
    assert float(row['median_days_to_complete']) == 0
    assert (float(row['average_rating']), row['rating_count']) == (4.5, 2)
    assert row['stars'] == {'1': 0, '2': 0, '3': 0, '4': 1, '5': 1}
    assert row['revenue'] == [{'currency': 'EUR', 'payments': 5, 'gross': 50, 'refunded': 10, 'net': 40}]
    refused('CF001', 'no course', 'course_statistics', 274877906000, role='ro')


def test_course_statistics_of_nothing(report, new_course):
    row, = report('course_statistics', new_course(REGION, modules=[]).id)
    assert (row['lessons'], row['enrollments'], row['completion_rate'], row['revenue']) == (0, 0, None, [])


def test_top_courses(call, report, refused, new_category, new_course, new_user):
    above = new_category()
    below = new_category(parent_id=above.id)
    courses = [new_course(region, price=0, category_id=category.id)
               for region, category in ((REGION, above), (REGION, below), ('africa', below))]
    students = [new_user(REGION).id for _ in range(3)]
    for course, count in zip(courses, (1, 3, 2)):
        for student in students[:count]:
            call('enroll_student', student, course.id)
    for student in students[:2]:
        call('submit_review', student, courses[2].id, 5)
    call('submit_review', students[0], courses[0].id, 1)
    ids = [course.id for course in courses]
    new_course(REGION, category_id=below.id, status='draft')

    def ranked(*arguments):
        return [row['course_id'] for row in report('top_courses', *arguments)]
    assert ranked(10, 'enrollments', above.id) == [ids[1], ids[2], ids[0]], 'drafts apart, categories below too'
    assert ranked(2, 'enrollments', above.id) == [ids[1], ids[2]]
    assert ranked(10, 'enrollments', below.id, 'africa') == [ids[2]]
    assert ranked(10, 'rating', above.id)[::2] == [ids[2], ids[0]]
    first = report('top_courses', 1, 'enrollments', above.id)[0]
    assert (first['place'], first['enrollment_count'], first['category']) == (1, 3, below.document['name'])
    assert first['instructor'] == 'Ada Lovelace' and first['title'] == courses[1].document['title']
    assert len(report('top_courses')) <= 10
    refused('22023', 'cannot list 0', 'top_courses', 0, role='ro')
    refused('22023', "ranked by 'luck'", 'top_courses', 10, 'luck', role='ro')
    refused('CF001', 'no category', 'top_courses', 10, 'rating', 274877906000, role='ro')
    refused('CF005', 'another shard', 'top_courses', 10, 'rating', None, 'asia', role='ro')


def test_instructor_dashboard(call, report, refused, new_course, new_user, new_instructor, busy_course):
    course, students = busy_course
    teacher = course.document['instructor_id']
    new_course(REGION, instructor_id=teacher, status='draft')
    (row,) = report('instructor_dashboard', teacher)
    shown = row['instructor_dashboard']
    assert shown['instructor']['id'] == teacher and shown['instructor']['name'] == 'Ada Lovelace'
    assert shown['courses'] == {'draft': 1, 'published': 1, 'archived': 0}
    assert shown['students'] == {'total': 4, 'active': 3, 'completed': 1, 'cancelled': 1, 'joined_last_30_days': 5,
                                 'average_progress': 62.5}
    assert shown['revenue'] == [{'currency': 'EUR', 'payments': 5, 'gross': 50, 'refunded': 10, 'net': 40}]
    assert (shown['average_rating'], shown['rating_count']) == (4.5, 2)
    assert [entry['course_id'] for entry in shown['by_course']][0] == course.id and len(shown['by_course']) == 2
    assert [review['rating'] for review in shown['recent_reviews']] == [4, 5], 'newest first'
    idle, = report('instructor_dashboard', new_instructor(REGION).id)
    assert idle['instructor_dashboard']['revenue'] == [] and idle['instructor_dashboard']['average_rating'] is None
    refused('CF005', 'is a student and teaches nothing', 'instructor_dashboard', students[0], role='ro')
    refused('CF001', 'no user', 'instructor_dashboard', 274877906000, role='ro')


def test_student_transcript(report, refused, busy_course, new_user):
    course, students = busy_course
    row, = report('student_transcript', students[3])
    assert (row['course_id'], row['title'], row['instructor']) == (course.id, course.document['title'], 'Ada Lovelace')
    assert (row['status'], float(row['progress_percent']), row['lessons_completed'], row['lessons']) == ('active', 75, 3, 4)
    assert row['rating'] == 4 and row['completed_at'] is None and row['enrolled_at'] is not None
    assert report('student_transcript', new_user(REGION).id) == []
    refused('CF001', 'no user', 'student_transcript', 274877906000, role='ro')


def test_completion_funnel(report, refused, busy_course, new_course):
    course, _ = busy_course
    rows = report('completion_funnel', course.id)
    assert [(row['step'], row['reached'], row['students'], float(row['percent'])) for row in rows] == [
        (1, 'enrolled', 5, 100), (2, 'started', 4, 80), (3, '25 %', 4, 80), (4, '50 %', 3, 60), (5, '75 %', 2, 40),
        (6, 'completed', 1, 20)]
    assert [row['percent'] for row in report('completion_funnel', new_course(REGION).id)] == [None] * 6
    refused('CF001', 'no course', 'completion_funnel', 274877906000, role='ro')


def test_platform_overview(report, refused, new_user, new_transaction, new_invoice):
    def overview():
        return report('platform_overview')[0]['platform_overview']
    before = overview()
    new_user('africa', role='instructor', status='suspended')
    new_invoice(REGION, transaction_id=new_transaction(REGION, amount=3, currency='XTS').id, status='void')
    after = overview()
    assert after['shard'] == 2 and set(after['users']['by_region']) == {'europe', 'africa'}
    assert after['users']['by_region']['africa'] == before['users']['by_region']['africa'] + 1
    assert after['users']['by_status']['suspended'] == before['users']['by_status']['suspended'] + 1
    assert after['users']['total'] == sum(after['users']['by_role'].values())
    assert after['invoices']['by_status']['void'] == before['invoices']['by_status']['void'] + 1
    assert after['transactions']['total'] == before['transactions']['total'] + 1

    def net(answer):
        return sum(entry['net'] for entry in answer['revenue'] if entry['currency'] == 'XTS')
    assert net(after) == pytest.approx(net(before) + 3)
    error = refused('42883', 'does not exist', 'platform_overview', 1, role='ro')
    assert error.pgcode == '42883'


# ---- all of them

PROCEDURES = '''register_user authenticate_user change_password update_profile suspend_user reactivate_user create_course
    publish_course archive_course reorder_modules duplicate_course enroll_student cancel_enrollment record_lesson_progress
    complete_course submit_review add_payment_method set_default_payment_method process_payment refund_payment
    issue_invoice void_invoice erase_user revenue_by_month course_statistics top_courses instructor_dashboard
    student_transcript completion_funnel platform_overview'''.split()


def test_each_procedure_is_there_described_and_safe(sql):
    rows = sql(REGION, "SELECT proname, obj_description(oid, 'pg_proc'), proconfig, pronargs, "
               "       coalesce(proargnames[1:pronargs], '{}'), prosecdef, provolatile "
               "FROM pg_proc WHERE pronamespace = 'campusfs'::regnamespace AND proname = ANY (%s)", (PROCEDURES,))
    assert sorted(row[0] for row in rows) == sorted(PROCEDURES), 'each once'
    for name, comment, settings, _, arguments, definer, volatility in rows:
        assert 'Errors:' in comment, name
        assert [word for word in arguments if word not in comment] == [], name
        assert [entry for entry in settings if entry.startswith('search_path=campusfs, pg_catalog, pg_temp')], name
        assert definer == (name in ('authenticate_user', 'change_password', 'erase_user')), \
            f'{name}: passwords are the owner\'s, all else is the caller\'s'
        assert (volatility == 's') == (PROCEDURES.index(name) >= PROCEDURES.index('revenue_by_month')), name


@pytest.mark.parametrize('function, arguments', [
    ('suspend_user', [1]), ('enroll_student', [1, 1]), ('authenticate_user', ['a', 'b']), ('erase_user', [1]),
    ('process_payment', [1, 1, 1, 'EUR', 'stripe', 'x'])])
def test_who_may_only_read_calls_none_that_writes(refused, function, arguments):
    refused('42501', 'permission denied', function, *arguments, role='ro')


def test_who_acts_is_in_the_change_log(connect, new_user, sql):
    user = new_user(REGION)
    connection = connect()
    with connection.cursor() as cursor:
        cursor.execute("SET campusfs.actor = 'support: Jo'")
    run(connection, 'suspend_user', [user.id], {})
    connection.close()
    assert sql(REGION, 'SELECT operation, actor FROM change_log WHERE collection = 1 AND row_id = %s '
               'ORDER BY changed_at DESC LIMIT 1', (user.id,)) == [('update', 'support: Jo')]
