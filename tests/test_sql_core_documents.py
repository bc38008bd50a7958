"""What a document may say: values, references, and the rules for its parts, as the put functions judge them."""

import json

import pytest

from sql_core import NOBODY, admin_tx, connect, tx  # noqa: F401

# ---- values: collection, what to change in a good document, column of the error, words of its message

WRONG = [
    ('users', {'emial': 'x'}, 'emial', 'is not a field of a user'),
    ('users', {'email': None}, 'email', 'must not be null'),
    ('users', {'email': 'nobody'}, 'email', 'such as ada@example.org'),
    ('users', {'email': 'x' * 250 + '@y.org'}, 'email', '256 characters: at most 254'),
    ('users', {'email': 5}, 'email', 'email is 5: must be text'),
    ('users', {'username': 'a b'}, 'username', 'without spaces'),
    ('users', {'username': ''}, 'username', 'must not be empty'),
    ('users', {'first_name': ['Ada']}, 'first_name', 'first_name is ["Ada"]: must be text'),
    ('users', {'role': 'techer'}, 'role', 'must be one of student, instructor, admin'),
    ('users', {'status': None}, 'status', 'must not be null'),
    ('users', {'email_verified': 'yes'}, 'email_verified', 'must be true or false'),
    ('users', {'last_login_at': '2026-02-29T00:00:00Z'}, 'last_login_at', 'must be a time with its zone'),
    ('users', {'last_login_at': '2026-01-01T00:00:00'}, 'last_login_at', 'must be a time with its zone'),
    ('users', {'last_login_at': '2026-01-01T24:00:00Z'}, 'last_login_at', 'must be a time with its zone'),
    ('users', {'last_login_at': '2026-01-01T00:00:60Z'}, 'last_login_at', 'must be a time with its zone'),
    ('users', {'last_login_at': 'now'}, 'last_login_at', 'must be a time with its zone'),
    ('users', {'last_login_at': 'infinity'}, 'last_login_at', 'must be a time with its zone'),
    ('users', {'last_login_at': '0000-01-01T00:00:00Z'}, 'last_login_at', 'must be a time with its zone'),
    ('users', {'last_login_at': '0001-01-01T00:00:00+01:00'}, 'last_login_at', 'years 1 to 9999'),
    ('users', {'last_login_at': '9999-12-31T23:59:59-01:00'}, 'last_login_at', 'years 1 to 9999'),
    ('users', {'last_login_at': '2026-01-01T00:00:00.1234567Z'}, 'last_login_at', 'at most six decimals'),
    ('users', {'updated_at': 'yesterday'}, 'updated_at', 'must be a time'),
    ('users', {'id': '5'}, 'id', 'must be a whole number'),
    ('users', {'id': 1.5}, 'id', 'must be a whole number'),
    ('users', {'profile': 'x'}, 'profile', 'must be an object'),
    ('users', {'profile': {'town': 'Rome'}}, 'profile.town', 'is not a field of a profile'),
    ('users', {'profile': {'country': 'Germany'}}, 'profile.country', 'at most 2'),
    ('users', {'profile': {'country': 'de'}}, 'profile.country', 'such as DE'),
    ('users', {'profile': {'date_of_birth': '1900-02-29'}}, 'profile.date_of_birth', 'must be a day'),
    ('users', {'profile': {'date_of_birth': '2000-02-29T00:00:00Z'}}, 'profile.date_of_birth', 'must be a day'),
    ('users', {'profile': {'date_of_birth': '2000-2-9'}}, 'profile.date_of_birth', 'must be a day'),
    ('users', {'profile': {'website': 'example.org'}}, 'profile.website', 'http'),
    ('users', {'profile': {'language': 'German'}}, 'profile.language', 'such as en or pt-BR'),
    ('courses', {'price': 49.905}, 'price', 'price is 49.905: must have at most two decimals'),
    ('courses', {'price': -1}, 'price', 'must be from 0 to 99999999.99'),
    ('courses', {'price': 100000000}, 'price', 'must be from 0 to 99999999.99'),
    ('courses', {'price': '49.90'}, 'price', 'must be a number'),
    ('courses', {'currency': 'euro'}, 'currency', 'at most 3'),
    ('courses', {'slug': 'No Slug'}, 'slug', 'small letters'),
    ('courses', {'title': 'x' * 201}, 'title', 'at most 200'),
    ('courses', {'modules': None}, 'modules', 'must be a list'),
    ('courses', {'modules': {}}, 'modules', 'must be a list'),
    ('courses', {'modules': [5]}, 'modules[0]', 'must be an object'),
    ('courses', {'modules': [{'title': 'x', 'lessons': [], 'leson': 1}]}, 'modules[0].leson',
     'not a field of a module'),
    ('courses', {'modules': [{'lessons': []}]}, 'modules[0].title', 'is missing'),
    ('courses', {'modules': [{'title': 'x', 'lessons': [{'title': 'y'}, {'title': 5}]}]}, 'modules[0].lessons[1].title',
     'must be text'),
    ('courses', {'modules': [{'title': 'x', 'lessons': [{'title': 'y', 'kind': 'film'}]}]},
     'modules[0].lessons[0].kind',
     'must be one of video, document, quiz, assignment'),
    ('courses', {'modules': [{'title': 'x', 'lessons': [{'title': 'y', 'media': '../z'}]}]},
     'modules[0].lessons[0].media',
     'a path inside'),
    ('courses', {'modules': [{'title': 'x', 'lessons': [{'title': 'y', 'duration_minutes': 2.5}]}]},
     'modules[0].lessons[0].duration_minutes', 'must be a whole number'),
    ('enrollments', {'status': 'done'}, 'status', 'must be one of active'),
    ('enrollments', {'lessons': [{'status': 'completed'}]}, 'lessons[0].lesson_id', 'is missing'),
    ('enrollments', {'lessons': [{'lesson_id': 1, 'position_seconds': -1}]}, 'lessons[0].position_seconds', 'from 0'),
    ('reviews', {'rating': 6}, 'rating', 'from 1 to 5'),
    ('reviews', {'rating': 4.5}, 'rating', 'whole number'),
    ('reviews', {'rating': None}, 'rating', 'must not be null'),
    ('payment_methods', {'last_four': 4242}, 'last_four', 'must be text'),
    ('payment_methods', {'last_four': '42'}, 'last_four', 'four digits'),
    ('payment_methods', {'expires_on': '12/31'}, 'expires_on', 'must be a day'),
    ('transactions', {'amount': None}, 'amount', 'must not be null'),
    ('transactions', {'amount': -0.01}, 'amount', 'from 0'),
    ('invoices', {'due_on': '2026-01-01', 'issued_on': '2026-01-02'}, 'due_on', 'must not be before issued_on'),
    ('invoices', {'tax': 1.234}, 'tax', 'at most two decimals'),
    ('invoices', {'number': 'a b'}, 'number', 'letters, digits'),
    ('invoices', {'number': None}, 'number', 'must not be null'),
    ('categories', {'region': 'europe'}, 'region', 'is not a field of a category'),
    ('categories', {'name': ''}, 'name', 'must not be empty'),
]


@pytest.mark.parametrize('collection, change, column, words', WRONG,
                         ids=[f'{case[0]}-{case[2]}-{n}' for n, case in enumerate(WRONG)])
def test_wrong_values_are_refused(tx, collection, change, column, words):
    row = tx.one(collection)
    region = None if collection == 'categories' else 'europe'
    tx.refused('22023', column, words, tx.put, collection, {**row.body, **change}, row.id, region)
    assert tx.document(collection, row.id)[1:] == row[1:]


def test_huge_numbers(tx):
    row = tx.course()
    text = tx.text('courses', row.id).replace('"price":49.90', '"price":1e400')
    error = tx.refused('22023', 'price', 'from 0 to 99999999.99', tx.put, 'courses', text, row.id)
    assert len(error.diag.message_primary) < 200
    text = text.replace('1e400', '0.1000000000000000055')
    tx.refused('22023', 'price', 'price is 0.1000000000000000055: must have at most two decimals', tx.put, 'courses',
               text, row.id)


@pytest.mark.parametrize('document', ['[]', '5', '"x"', 'null', 'true'])
def test_documents_are_objects(tx, document):
    tx.refused('22023', None, 'the document is', tx.put, 'users', document)


def test_unknown_fields_have_a_hint(tx):
    assert 'Did you mean email?' in tx.error(tx.user, emial='x').diag.message_hint
    assert 'The fields are id, region, email' in tx.error(tx.user, zzz='x').diag.message_hint


def test_missing_fields_have_their_defaults(tx):
    row = tx.user(role='admin', status='suspended', email_verified=True, last_name='L', profile={'city': 'Rome'})
    bare = {key: row.body[key] for key in ('email', 'username', 'first_name', 'updated_at')}
    body = tx.put('users', bare, row.id).body
    assert (body['role'], body['status'], body['email_verified'], body['last_name']) == ('student', 'active', False, '')
    assert body['profile']['city'] is None
    for field in ('email', 'username', 'first_name'):
        tx.refused('22023', field, f'{field} is missing', tx.put, 'users',
                   {key: value for key, value in bare.items() if key != field}, row.id)


def test_values_are_kept_as_they_are(tx):
    profile = {'bio': 'Zeile\n"Anführung" \\ \t 日本語 🎓', 'avatar_url': 'https://example.org/a?b=c',
               'phone': '+351 21 123 45 67', 'date_of_birth': '2000-02-29', 'country': 'PT', 'city': 'Lisboa',
               'timezone': 'Europe/Lisbon', 'language': 'pt-BR', 'website': 'http://example.org'}
    row = tx.user(first_name='Fátima', last_name='Ñandú', profile=profile, last_login_at='0001-01-01T00:00:00Z')
    assert row.body['profile'] == profile and row.body['first_name'] == 'Fátima'
    assert row.body['last_login_at'] == '0001-01-01T00:00:00.000000Z'
    row = tx.put('users', {**row.body, 'last_login_at': '9999-12-31T23:59:59.999999Z'}, row.id)
    assert row.body['last_login_at'] == '9999-12-31T23:59:59.999999Z'


# ---- uniqueness and references

def test_taken_names(tx):
    first, second = tx.user(), tx.user('africa')
    error = tx.refused('23505', 'email', f'is taken by user {first.id} of europe', tx.put, 'users',
                       {**second.body, 'email': first.body['email'].upper()}, second.id, 'africa')
    assert first.body['email'].upper() in error.diag.message_primary
    tx.refused('23505', 'username', f'is taken by user {first.id}', tx.user, username=first.body['username'].upper())
    assert tx.put('users', {**first.body, 'email': first.body['email'].upper()}, first.id).outcome == 'updated'
    course, category = tx.course(), tx.category()
    tx.refused('23505', 'slug', f'is taken by course {course.id}', tx.course, slug=course.body['slug'])
    tx.refused('23505', 'slug', f'is taken by category {category.id}', tx.category, slug=category.body['slug'])
    invoice = tx.invoice(number='X-1')
    tx.refused('23505', 'number', f'is taken by invoice {invoice.id}', tx.invoice, number='X-1')
    payment = tx.transaction(gateway='stripe', gateway_reference='ch_1')
    tx.refused('23505', 'gateway_reference', f'transaction {payment.id}', tx.transaction, gateway='stripe',
               gateway_reference='ch_1')
    assert tx.transaction(gateway='adyen', gateway_reference='ch_1').outcome == 'created'


def test_once_a_user_and_course(tx):
    enrollment, review = tx.enrollment(), tx.review()
    pair = {key: enrollment.body[key] for key in ('user_id', 'course_id')}
    tx.refused('23505', 'course_id', f'already: enrollment {enrollment.id}', tx.enrollment, **pair)
    pair = {key: review.body[key] for key in ('user_id', 'course_id')}
    tx.refused('23505', 'course_id', f'already: review {review.id}', tx.review, **pair)


@pytest.mark.parametrize('collection, column', [
    ('courses', 'instructor_id'), ('courses', 'category_id'), ('enrollments', 'user_id'), ('enrollments', 'course_id'),
    ('reviews', 'user_id'), ('reviews', 'course_id'), ('payment_methods', 'user_id'), ('transactions', 'user_id'),
    ('transactions', 'course_id'), ('transactions', 'payment_method_id'), ('invoices', 'transaction_id'),
    ('categories', 'parent_id')])
def test_references_lead_somewhere(tx, collection, column):
    row = tx.one(collection)
    region = None if collection == 'categories' else 'europe'
    tx.refused('CF001', column, f'{column} is {NOBODY}: ', tx.put, collection, {**row.body, column: NOBODY}, row.id,
               region)
    new = {key: value for key, value in row.body.items() if key != 'id'}
    tx.refused('CF001', column, f'{column} is {NOBODY}: ', tx.put, collection, {**new, column: NOBODY}, None, region)


def test_what_a_user_owns_lies_in_the_users_region(tx):
    african = tx.user('africa')
    course = tx.course()
    for collection, document in (('enrollments', {'course_id': course.id}),
                                 ('reviews', {'course_id': course.id, 'rating': 1}),
                                 ('payment_methods', {'token': 't'}),
                                 ('transactions', {'course_id': course.id, 'amount': 1})):
        tx.refused('CF001', 'user_id', 'that user belongs to africa, not to europe', tx.put, collection,
                   {'user_id': african.id, **document})
    tx.refused('CF001', 'instructor_id', 'belongs to africa', tx.course, instructor_id=african.id)
    payment = tx.transaction('africa')
    tx.refused('CF001', 'transaction_id', 'lies in africa, not in europe', tx.invoice, transaction_id=payment.id)
    assert tx.enrollment('africa', user_id=african.id, course_id=course.id).body['region'] == 'africa'
    method = tx.method()
    tx.refused('CF001', 'payment_method_id', 'has no such payment method', tx.transaction, payment_method_id=method.id)


def test_categories_stay_a_tree(tx):
    top = tx.category()
    middle = tx.category(parent_id=top.id)
    leaf = tx.category(parent_id=middle.id)
    tx.refused('22023', 'parent_id', 'is the category itself', tx.put, 'categories',
               {**top.body, 'parent_id': top.id}, top.id, None)
    tx.refused('22023', 'parent_id', 'would lie below itself', tx.put, 'categories',
               {**top.body, 'parent_id': leaf.id}, top.id, None)
    tx.refused('22023', 'parent_id', 'would lie below itself', tx.sql,
               'UPDATE course_categories SET parent_id = %s WHERE id = %s',
               leaf.id, top.id)
    tx.refused('22023', 'region', 'belongs to no region', tx.put, 'categories', top.body, top.id, 'europe')


CARDS = ['4242424242424242', '4242 4242 4242 4242', '4242-4242-4242-4242', '378282246310005', '6011.1111.1111.1117',
         '4222222222222', '4000000000000000006']


@pytest.mark.parametrize('number', CARDS)
@pytest.mark.parametrize('field', ['token', 'brand', 'last_four', 'kind', 'user_id', 'something'])
def test_card_numbers_never_get_in(tx, number, field):
    method = tx.method()
    error = tx.refused('22023', None, 'contains a card number', tx.put, 'payment_methods',
                       {**method.body, field: f'x {number} y'}, method.id)
    assert number not in str(error)
    tx.refused('22023', None, 'contains a card number', tx.put, 'payment_methods', {**method.body, number: 1},
               method.id)


def test_card_numbers_as_numbers(tx):
    tx.refused('22023', None, 'contains a card number', tx.put, 'payment_methods',
               '{"user_id": 4242424242424242, "token": "t"}')


@pytest.mark.parametrize('token', ['4242424242424241', '424242424242', '42424242424242424242', 'tok_1234567890abcdef'])
def test_other_digits_may(tx, token):
    assert tx.method(token=token).body['token'] == token


# ---- courses: modules and lessons

def ids(body):
    return [(module['id'], [lesson['id'] for lesson in module['lessons']]) for module in body['modules']]


def test_children_keep_their_ids(tx):
    row = tx.course(lessons=(2, 3))
    (first, (a, b)), (second, (c, d, e)) = ids(row.body)
    body = json.loads(json.dumps(row.body))
    body['modules'][1]['lessons'].insert(1, body['modules'][0]['lessons'].pop(0))   # into another module
    body['modules'].reverse()
    saved = tx.put('courses', body, row.id)
    assert ids(saved.body) == [(second, [c, a, d, e]), (first, [b])]
    assert tx.sql('SELECT position FROM course_modules WHERE course_id = %s ORDER BY 1', row.id) == [(1,), (2,)]
    positions = tx.sql('SELECT position FROM course_lessons WHERE module_id = %s ORDER BY 1', second)
    assert positions == [(1,), (2,), (3,), (4,)]
    body = saved.body
    body['modules'][0]['lessons'] += body['modules'].pop(1)['lessons']              # out of a module that goes
    assert ids(tx.put('courses', body, row.id).body) == [(second, [c, a, d, e, b])]


def test_children_without_ids(tx):
    """An equal one in the same place is that one: saving one buffer twice does not renumber."""
    document = {'modules': [{'title': 'New', 'lessons': [{'title': 'One'}, {'title': 'Two'}]}]}
    row = tx.course()
    saved = tx.put('courses', {**row.body, **document}, row.id)
    (module, (one, two)), = ids(saved.body)
    assert (one, two) == tuple(sorted((one, two))), 'fresh ids in the order of the document'
    assert not {module, one, two} & {id for m, lessons in ids(row.body) for id in (m, *lessons)}
    again = tx.put('courses', {**row.body, **document}, row.id, base='infinity')
    assert again == saved._replace(outcome='unchanged')
    document['modules'][0]['lessons'][1]['title'] = 'Three'
    (same, (first, second)), = ids(tx.put('courses', {**row.body, **document}, row.id, base='infinity').body)
    assert (same, first) == (module, one) and second not in (one, two)


def test_children_with_ids_of_their_own(tx):
    row = tx.course(lessons=(1,))
    modules = [{'id': NOBODY, 'title': 'Restored', 'lessons': [{'id': NOBODY - 1, 'title': 'Of another shard'}]}]
    assert ids(tx.put('courses', {**row.body, 'modules': modules}, row.id).body) == [(NOBODY, [NOBODY - 1])]


def test_children_of_others_are_refused(tx):
    mine, theirs = tx.course(), tx.course()
    (module, (lesson, _)), _ = ids(theirs.body)
    modules = [*mine.body['modules'], {'id': module, 'title': 'x', 'lessons': []}]
    tx.refused('23505', 'modules[2].id', f'belongs to course {theirs.id}', tx.put, 'courses',
               {**mine.body, 'modules': modules}, mine.id)
    modules = [{'title': 'x', 'lessons': [{'title': 'y'}, {'id': lesson, 'title': 'x'}]}]
    tx.refused('23505', 'modules[0].lessons[1].id', f'belongs to course {theirs.id}', tx.put, 'courses',
               {**mine.body, 'modules': modules}, mine.id)
    tx.refused('23505', 'modules[0].id', f'belongs to course {theirs.id}', tx.course, modules=theirs.body['modules'])


def test_children_twice_are_refused(tx):
    row = tx.course()
    modules = [*row.body['modules'], row.body['modules'][0]]
    tx.refused('22023', 'modules[2].id', 'in the document twice', tx.put, 'courses', {**row.body, 'modules': modules},
               row.id)
    lesson = row.body['modules'][0]['lessons'][0]
    modules = json.loads(json.dumps(row.body['modules']))
    modules[1]['lessons'].append(lesson)
    tx.refused('22023', 'modules[1].lessons[2].id', 'in the document twice', tx.put, 'courses',
               {**row.body, 'modules': modules}, row.id)


def test_missing_lists(tx):
    assert tx.put('courses', {'title': 'x', 'slug': 'xyz', 'instructor_id': tx.user().id}).body['modules'] == []
    assert tx.course(modules=[{'title': 'Empty'}]).body['modules'][0]['lessons'] == []
    row = tx.course()
    document = {key: value for key, value in row.body.items() if key != 'modules'}
    tx.refused('22023', 'modules', 'modules is missing', tx.put, 'courses', document, row.id)
    modules = [row.body['modules'][0],
               {key: value for key, value in row.body['modules'][1].items() if key != 'lessons'}]
    tx.refused('22023', 'modules[1].lessons', 'is missing', tx.put, 'courses', {**row.body, 'modules': modules}, row.id)
    assert tx.put('courses', {**row.body, 'modules': []}, row.id).body['modules'] == []


def test_lessons_in_use_stay(tx):
    course = tx.course(lessons=(2, 1))
    tx.enrollment(course_id=course.id)
    course = tx.document('courses', course.id)
    body = json.loads(json.dumps(course.body))
    lesson = body['modules'][0]['lessons'].pop(0)
    error = tx.refused('CF002', 'modules', f'lesson {lesson["id"]} ("Lesson 0.0") has progress in 1 enrollment', tx.put,
                       'courses', body, course.id)
    assert 'may move' in error.diag.message_hint
    body['modules'][1]['lessons'].append(lesson)
    assert tx.put('courses', body, course.id).outcome == 'updated'


# ---- enrollments: entries

def test_new_enrollments_copy_the_lessons(tx):
    course = tx.course(lessons=(2, 1))
    lessons = [lesson['id'] for module in course.body['modules'] for lesson in module['lessons']]
    row = tx.enrollment(course_id=course.id)
    assert row.body['lessons'] == [{'lesson_id': id, 'status': 'not_started', 'position_seconds': 0,
                                    'completed_at': None}
                                   for id in sorted(lessons)]
    assert tx.enrollment(course_id=course.id, lessons=[]).body['lessons'] == []
    chosen = tx.enrollment(course_id=course.id, lessons=[{'lesson_id': lessons[1], 'status': 'completed'}])
    assert [entry['lesson_id'] for entry in chosen.body['lessons']] == [lessons[1]]
    assert chosen.body['progress_percent'] == 100


def test_entries(tx):
    row = tx.enrollment()
    first, *rest = row.body['lessons']
    done = {**first, 'status': 'completed', 'position_seconds': 90, 'completed_at': '2026-01-01T00:00:00Z'}
    saved = tx.put('enrollments', {**row.body, 'lessons': [*reversed(rest), done]}, row.id)
    assert saved.body['lessons'] == [{**done, 'completed_at': '2026-01-01T00:00:00.000000Z'}, *rest], 'sorted by lesson'
    assert saved.body['progress_percent'] == 25
    saved = tx.put('enrollments', {**saved.body, 'lessons': saved.body['lessons'][:3]}, row.id)
    assert saved.body['progress_percent'] == 33.33
    text = tx.text('enrollments', row.id)
    assert '"progress_percent":33.33,' in text
    document = {key: value for key, value in saved.body.items() if key != 'lessons'}
    tx.refused('22023', 'lessons', 'lessons is missing', tx.put, 'enrollments', document, row.id)
    tx.refused('22023', 'lessons[4].lesson_id', 'in the document twice', tx.put, 'enrollments',
               {**saved.body, 'lessons': [*row.body['lessons'], first]}, row.id)


def test_entries_are_of_the_course(tx):
    row, other = tx.enrollment(), tx.course()
    foreign = other.body['modules'][0]['lessons'][0]['id']
    tx.refused('CF001', 'lessons[4].lesson_id', f'belongs to course {other.id}, not to {row.body["course_id"]}', tx.put,
               'enrollments', {**row.body, 'lessons': [*row.body['lessons'], {'lesson_id': foreign}]}, row.id)
    tx.refused('CF001', 'lessons[0].lesson_id', 'there is no such lesson', tx.put, 'enrollments',
               {**row.body, 'lessons': [{'lesson_id': NOBODY}]}, row.id)
    tx.refused('CF001', 'lessons[0].lesson_id', 'belongs to course', tx.put, 'enrollments',
               {**row.body, 'course_id': other.id}, row.id)
    moved = tx.put('enrollments', {**row.body, 'course_id': other.id, 'lessons': [{'lesson_id': foreign}]}, row.id)
    assert [entry['lesson_id'] for entry in moved.body['lessons']] == [foreign]
    counts = [tx.document('courses', id).body['enrollment_count'] for id in (row.body['course_id'], other.id)]
    assert counts == [0, 1]


def test_new_lessons_leave_enrollments_alone(tx):
    """Measured: progress that followed the course rewrote 50,000 enrollments for one new lesson."""
    row = tx.enrollment()
    course = tx.document('courses', row.body['course_id'])
    body = json.loads(json.dumps(course.body))
    body['modules'][0]['lessons'].append({'title': 'New'})
    tx.put('courses', body, course.id)
    assert tx.document('enrollments', row.id)[1:] == row[1:]
