"""The stored procedures of docs/procedures.md for users, courses and learning: each does what it says, shows it in the
documents, and refuses the rest. Money and reports: test_sql_procedures_money.py.
"""

import json
import re
import time
from pathlib import Path

import psycopg2
import pytest

from procedure_calls import (NOBODY, PASSWORD, REGION, call, clients, clocks, connect, document, lessons_of, refused,
                             registered, run)

__all__ = ['call', 'clients', 'clocks', 'connect', 'document', 'refused', 'registered']  # fixtures, used by name


# ---- accounts

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
    refused('23505', f'email .* is taken by user {user} of {REGION}', 'register_user', 'africa', email.upper(),
            unique(), PASSWORD, 'Grace')
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
    unknown = refused('28P01', 'unknown user or wrong password', 'authenticate_user', 'nobody@nowhere.example',
                      PASSWORD)
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

    best = {name: 1e9, 'nobody': 1e9}
    for tries in range(100):  # until a loaded machine has let each of them be as fast as it can
        for login in best:
            start = time.monotonic()
            with pytest.raises(psycopg2.Error):
                run(connection, 'authenticate_user', [login, 'a guess'], {})
            best[login] = min(best[login], time.monotonic() - start)
        if tries >= 4 and best['nobody'] > best[name] / 2:
            break
    connection.close()
    assert best['nobody'] > best[name] / 2, best


def test_authenticate_user_strengthens_an_old_hash(cluster, registered, sql):
    user, name, _ = registered()
    before, = sql(REGION, 'SELECT password_hash, changed_at FROM user_credentials WHERE user_id = %s', (user,))
    connection = cluster.connect(REGION, 'rw', options='-c search_path=campusfs,pg_catalog -c campusfs.bcrypt_cost=5')
    for _ in range(2):
        assert run(connection, 'authenticate_user', [name, PASSWORD], {})[0]['user_id'] == user
    connection.close()
    after, = sql(REGION, 'SELECT password_hash, changed_at FROM user_credentials WHERE user_id = %s', (user,))
    assert before[0].startswith('$2a$04$') and after[0].startswith('$2a$05$')
    assert after[1] > before[1], 'the same password, but another credentials document'


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
    refused('28P01', 'unknown user or wrong password', 'change_password', NOBODY, PASSWORD, 'another good one')
    refused('22023', 'too short', 'change_password', user, PASSWORD, 'short')
    refused('22023', 'too long', 'change_password', user, PASSWORD, 'ü' * 37)
    refused('22023', 'is the old one', 'change_password', user, PASSWORD, PASSWORD)
    call('suspend_user', user)
    refused('28000', 'suspended', 'change_password', user, PASSWORD, 'another good one')


def test_update_profile(call, document, clocks, new_user):
    user = new_user(REGION, profile={'city': 'London', 'bio': 'Counts.'})
    before = clocks('users', user.id)
    profile = call('update_profile', user.id,
                   '{"bio": null, "timezone": "Europe/Lisbon", "date_of_birth": "1815-12-10"}')
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
    refused('CF001', f'no user {NOBODY}', 'update_profile', NOBODY, '{}')
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
        refused('CF001', f'no user {NOBODY}', function, NOBODY)


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
    refused('CF001', f'no user {NOBODY}', 'create_course', NOBODY, 'Algebra')
    refused('CF001', 'category', 'create_course', teacher.id, 'Algebra', p_category_id=NOBODY)
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
        refused('CF001', f'no course {NOBODY}', function, NOBODY)
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
    refused('CF001', 'no course', 'reorder_modules', NOBODY, [a])


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
    kept = ('price', 'currency', 'level', 'language', 'category_id', 'duration_minutes')
    assert [copy[key] for key in kept] == [original.document[key] for key in kept]
    again = document('courses', call('duplicate_course', original.id, 'Another one'))
    assert again['title'] == 'Another one' and again['instructor_id'] == original.document['instructor_id']
    refused('CF001', 'no course', 'duplicate_course', NOBODY)
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
    refused('23505', f'enrolled in course .* already \\(enrollment {enrollment}, active\\)', 'enroll_student',
            student.id, course.id)
    refused('CF005', 'is a draft', 'enroll_student', student.id, free_course(REGION, status='draft').id)
    refused('CF005', 'is archived', 'enroll_student', student.id, free_course(REGION, status='archived').id)
    refused('CF005', 'teaches course', 'enroll_student', course.document['instructor_id'], course.id)
    refused('CF001', 'no course', 'enroll_student', student.id, NOBODY)
    refused('CF001', 'no user', 'enroll_student', NOBODY, course.id)
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
    refused('CF001', 'no enrollment', 'cancel_enrollment', NOBODY)


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
    refused('CF001', 'no enrollment', 'record_lesson_progress', NOBODY, lesson)
    refused('22023', "cannot be 'half'", 'record_lesson_progress', enrollment.id, lesson, 'half')
    refused('22023', 'cannot be NULL', 'record_lesson_progress', enrollment.id, lesson, None)
    refused('22023', 'must not be negative', 'record_lesson_progress', enrollment.id, lesson, 'in_progress', -1)
    call('cancel_enrollment', enrollment.id)
    refused('CF005', 'is cancelled', 'record_lesson_progress', enrollment.id, lesson)


def test_complete_course(call, refused, document, new_enrollment):
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
    refused('CF001', 'no enrollment', 'complete_course', NOBODY)


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
    refused('CF001', 'no course', 'submit_review', student, NOBODY, 5)
    refused('CF001', 'no user', 'submit_review', NOBODY, course, 5)
    call('cancel_enrollment', enrollment.id)
    refused('CF005', 'is not enrolled', 'submit_review', student, course, 5)
    call('suspend_user', student)
    refused('CF005', 'suspended and cannot write reviews', 'submit_review', student, course, 5)


# ---- all of them

MANUAL = Path(__file__).resolve().parent.parent / 'docs/procedures.md'
PROCEDURES = '''register_user authenticate_user change_password update_profile suspend_user reactivate_user
    create_course publish_course archive_course reorder_modules duplicate_course
    enroll_student cancel_enrollment record_lesson_progress complete_course submit_review
    add_payment_method set_default_payment_method process_payment refund_payment issue_invoice void_invoice erase_user
    revenue_by_month course_statistics top_courses instructor_dashboard student_transcript completion_funnel
    platform_overview'''.split()


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


def test_the_manual_has_each_as_it_is(sql):
    """docs/procedures.md: signature(name type = default, …) → result, of each procedure and of nothing else."""
    lines = re.findall(r'^\| `(\w+)\((.*?)\)(?: → (.*?))?` \|', MANUAL.read_text(), re.M)
    written = {name: (re.findall(r'(p_\w+) (\w+(?:\[\])?)', parameters), result) for name, parameters, result in lines}
    real = {}
    for name, arguments, result in sql(REGION, """
            SELECT proname, pg_get_function_arguments(oid), pg_get_function_result(oid)
            FROM pg_proc WHERE pronamespace = 'campusfs'::regnamespace AND proname = ANY (%s)""", (PROCEDURES,)):
        columns = re.findall(r'(\w+) [^,]+(?:, |$)', result[len('TABLE('):-1]) if result.startswith('TABLE') else None
        short = {'integer': 'int', 'timestamp': 'timestamptz', 'void': ''}
        real[name] = ([(parameter, short.get(kind, kind))
                       for parameter, kind in re.findall(r'(p_\w+) (\w+(?:\[\])?)', arguments)],
                      f'({", ".join(columns)})' if columns else short.get(result.split()[0], result))
    assert written == real


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
