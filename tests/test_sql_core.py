"""Saving documents in the database: clocks, conflicts, what is logged, ids, requests, deletions, moves, roles."""

import datetime
import io
import json
import time
import uuid
from pathlib import Path

import psycopg2
import pytest

from sql_core import NOBODY, NUMBERS, REGIONS, Entry, admin_tx, connect, tx  # noqa: F401

LONG_AGO = '2001-02-03T04:05:06.000007Z'
LONG_AGO_US = 981173106000007
COLLECTIONS = list(NUMBERS)
# A field of each that people edit.
EDIT = {'users': {'first_name': 'Grace'}, 'courses': {'title': 'More SQL'}, 'enrollments': {'status': 'cancelled'},
        'reviews': {'body': 'On second thought'}, 'payment_methods': {'brand': 'visa'},
        'transactions': {'status': 'failed'}, 'invoices': {'status': 'void'},
        'categories': {'description': 'All of it'}}


def home(collection):
    return None if collection == 'categories' else 'europe'


def clocks(row):
    return row.rev, row.updated, row.content


# ---- saves

@pytest.mark.parametrize('collection', COLLECTIONS)
def test_create_edit_and_read_back(tx, collection):
    row = tx.one(collection)
    assert row.outcome == 'created' and row.updated == row.content
    assert row == tx.document(collection, row.id)._replace(outcome='created')
    assert row.body['created_at'] == row.body['updated_at'], 'one moment'
    mark = tx.mark()
    edited = tx.put(collection, {**row.body, **EDIT[collection]}, row.id, home(collection))
    assert edited.outcome == 'updated' and edited.rev > row.rev and edited.updated > row.updated
    assert edited.content == edited.updated
    assert edited.body == {**row.body, **EDIT[collection], 'updated_at': edited.body['updated_at']}
    entry = Entry(NUMBERS[collection], REGIONS[home(collection)], row.id, 'update', edited.rev, 'tester')
    assert tx.logged(mark)[-1] == entry


@pytest.mark.parametrize('collection', COLLECTIONS)
def test_equal_document_writes_nothing(connect, collection):
    """Not a byte: its transaction does not even get a number."""
    session = connect()
    row = session.one(collection)
    try:
        session.connection.autocommit = False
        request = str(uuid.uuid4())
        for document in (row.body, {**row.body, 'updated_at': LONG_AGO}, {**row.body, 'created_at': LONG_AGO}):
            again = session.put(collection, document, row.id, home(collection), request=request)
            assert again == row._replace(outcome='unchanged')
        assert session.value('SELECT pg_current_xact_id_if_assigned()') is None
    finally:
        session.connection.rollback()
        session.connection.autocommit = True
        session.delete(collection, row.id, home(collection))


@pytest.mark.parametrize('collection', COLLECTIONS)
def test_equal_document_in_other_words(tx, collection):
    """What is missing has its default, and 49.900 is 49.90: nothing changes but a lock."""
    row = tx.one(collection)
    place = 'SELECT ctid FROM ' + tx.value('SELECT table_name FROM collections WHERE number = %s', NUMBERS[collection])
    where, mark = tx.value(f'{place} WHERE id = %s', row.id), tx.mark()
    document = {key: value for key, value in row.body.items()
                if value is not None and key not in ('profile', 'role', 'status', 'currency', 'level', 'kind', 'tax')}
    if 'tax' in row.body:
        document['tax'] = row.body['tax']
    text = json.dumps(document).replace('49.9,', '49.900,')
    again = tx.put(collection, text, row.id, home(collection))
    assert again == row._replace(outcome='unchanged')
    assert tx.value(f'{place} WHERE id = %s', row.id) == where and tx.logged(mark) == []


def test_computed_fields_are_accepted_and_not_taken(tx):
    enrollment = tx.enrollment()
    course = tx.document('courses', enrollment.body['course_id'])
    lies = {'duration_minutes': 1, 'average_rating': 5, 'rating_count': 9, 'enrollment_count': 'many'}
    assert tx.put('courses', {**course.body, **lies}, course.id).outcome == 'unchanged'
    assert tx.put('enrollments', {**enrollment.body, 'progress_percent': 100}, enrollment.id).outcome == 'unchanged'
    invoice = tx.invoice()
    assert tx.put('invoices', {**invoice.body, 'total': 1}, invoice.id).outcome == 'unchanged'
    assert tx.text('invoices', invoice.id).count('"total":49.90') == 1


def test_documents_have_the_contracts_keys_in_order(tx):
    expected = {
        'users': 'id region email username first_name last_name role status email_verified last_login_at profile '
                 'created_at updated_at',
        'categories': 'id parent_id name slug description created_at updated_at',
        'courses': 'id region instructor_id category_id title slug description level language price currency status '
                   'duration_minutes average_rating rating_count enrollment_count published_at modules created_at '
                   'updated_at',
        'enrollments': 'id region user_id course_id status progress_percent enrolled_at completed_at lessons '
                       'created_at updated_at',
        'reviews': 'id region user_id course_id rating title body created_at updated_at',
        'payment_methods': 'id region user_id kind brand last_four token expires_on is_default created_at updated_at',
        'transactions': 'id region user_id course_id payment_method_id amount currency status gateway '
                        'gateway_reference created_at updated_at',
        'invoices': 'id region transaction_id number status issued_on due_on subtotal tax total currency created_at '
                    'updated_at'}
    for collection, keys in expected.items():
        assert list(tx.one(collection).body) == keys.split()
    assert list(tx.user().body['profile']) == ('bio avatar_url phone date_of_birth country city timezone language '
                                               'website').split()
    module = tx.course().body['modules'][0]
    assert list(module) == ['id', 'title', 'description', 'lessons']
    assert list(module['lessons'][0]) == ['id', 'title', 'kind', 'duration_minutes', 'media', 'is_preview']
    assert list(tx.enrollment().body['lessons'][0]) == ['lesson_id', 'status', 'position_seconds', 'completed_at']


def test_numbers_and_times_are_shown_exactly(tx):
    course = tx.course(price=20, published_at='2026-01-02T03:04:05Z')
    text = tx.text('courses', course.id)
    assert '"price":20.00,' in text and '"published_at":"2026-01-02T03:04:05.000000Z"' in text
    tx.sql("SET LOCAL TimeZone = 'Asia/Tokyo'; SET LOCAL DateStyle = 'German'; SET LOCAL IntervalStyle = iso_8601")
    assert tx.text('courses', course.id) == text, 'whatever the session likes'
    moved = tx.put('courses', {**course.body, 'published_at': '2026-01-02 05:04:05.5+02:00'}, course.id)
    assert moved.body['published_at'] == '2026-01-02T03:04:05.500000Z'


# ---- clocks

@pytest.mark.parametrize('collection', COLLECTIONS)
def test_time_set_by_hand(tx, collection):
    """It sets both times, also without any edit; the revision moves on, even when time goes back."""
    row = tx.one(collection)
    touched = tx.put(collection, row.body, row.id, home(collection), at=LONG_AGO)
    assert touched.outcome == 'updated' and touched.rev > row.rev
    assert touched.updated == touched.content == LONG_AGO_US and touched.body['updated_at'] == LONG_AGO
    assert tx.put(collection, row.body, row.id, home(collection), at=LONG_AGO).outcome == 'unchanged'
    edited = tx.put(collection, {**row.body, **EDIT[collection]}, row.id, home(collection),
                    at=LONG_AGO)
    assert edited.outcome == 'updated' and edited.updated == edited.content == LONG_AGO_US and edited.rev > touched.rev
    made = tx.put('users', {'email': 'x@example.org', 'username': 'x', 'first_name': 'X'}, at=LONG_AGO)
    assert made.updated == made.content == LONG_AGO_US


@pytest.mark.parametrize('change, content_moves', [
    ("UPDATE users SET first_name = 'Grace' WHERE id = %s", True),
    ('UPDATE users SET last_login_at = now() WHERE id = %s', False),
    ("UPDATE user_profiles SET city = 'Oslo' WHERE user_id = %s", True),
    ('DELETE FROM user_profiles WHERE user_id = %s', True)])
def test_sql_moves_the_clocks_of_a_user(tx, change, content_moves):
    row, mark = tx.user(profile={'city': 'Rome'}), tx.mark()
    tx.sql('RESET campusfs.actor')
    tx.sql(change, row.id)
    after = tx.document('users', row.id)
    assert after.rev > row.rev and after.updated > row.updated
    assert after.content == (after.updated if content_moves else row.content)
    assert tx.logged(mark) == [Entry(1, 3, row.id, 'update', after.rev, 'campusfs_rw')]


@pytest.mark.parametrize('change', [
    'UPDATE users SET first_name = first_name WHERE id = %s',
    'UPDATE user_profiles SET city = city WHERE user_id = %s',
    'UPDATE users SET status = status, role = role WHERE id = %s'])
def test_sql_that_changes_nothing_moves_nothing(tx, change):
    row, mark = tx.user(profile={'city': 'Rome'}), tx.mark()
    tx.sql(change, row.id)
    assert clocks(tx.document('users', row.id)) == clocks(row) and tx.logged(mark) == []


def test_hands_on_the_clocks_are_overruled(tx):
    row = tx.user()
    tx.sql("UPDATE users SET updated_at = '2001-01-01', content_at = '2001-01-01', rev = 5 WHERE id = %s", row.id)
    after = tx.document('users', row.id)
    assert after.updated > row.updated and after.content == row.content and after.rev > row.rev


def test_time_never_stands_still_nor_goes_back(tx):
    future = '2999-01-01T00:00:00.000000Z'
    row = tx.user()
    ahead = tx.put('users', row.body, row.id, at=future)
    tx.sql("UPDATE users SET first_name = 'Grace' WHERE id = %s", row.id)
    after = tx.document('users', row.id)
    assert after.updated == ahead.updated + 1 and after.body['updated_at'] == '2999-01-01T00:00:00.000001Z'
    assert tx.put('users', {**after.body, 'first_name': 'Ada'}, row.id).updated == ahead.updated + 2
    course = tx.course()
    tx.put('courses', course.body, course.id, at=future)
    tx.review(course_id=course.id)
    rated = tx.document('courses', course.id)
    assert (rated.updated, rated.content) == (ahead.updated + 1, ahead.updated), 'nor by what is derived'


@pytest.mark.parametrize('change', [
    "UPDATE course_modules SET title = 'Other' WHERE course_id = %s",
    "UPDATE course_lessons SET title = 'Other' WHERE module_id IN (SELECT id FROM course_modules WHERE course_id = %s)",
    "INSERT INTO course_modules (id, course_id, position, title) SELECT next_child_id('course_modules'), %s, 9, 'New'",
    'DELETE FROM course_lessons WHERE module_id IN (SELECT min(id) FROM course_modules WHERE course_id = %s)',
    'DELETE FROM course_modules WHERE course_id = %s AND position = 1'])
def test_sql_on_parts_moves_the_course(tx, change):
    row, mark = tx.course(), tx.mark()
    tx.sql(change, row.id)
    after = tx.document('courses', row.id)
    assert after.rev > row.rev and after.content == after.updated > row.updated
    assert {entry.id for entry in tx.logged(mark)} == {row.id}
    lessons = [lesson for module in after.body['modules'] for lesson in module['lessons']]
    assert after.body['duration_minutes'] == sum(lesson['duration_minutes'] for lesson in lessons)


def test_a_save_of_a_course_is_one_version_and_one_entry(tx):
    row, mark = tx.course(lessons=(5, 5, 5)), tx.mark()
    document = row.body
    document['title'] = 'Other'
    document['modules'][0]['title'] = 'Renamed'
    document['modules'][1]['lessons'][0]['title'] = 'Renamed'
    document['modules'][1]['lessons'].append({'title': 'New', 'duration_minutes': 7})
    del document['modules'][2]
    saved = tx.put('courses', document, row.id)
    assert tx.logged(mark) == [Entry(2, 3, row.id, 'update', saved.rev, 'tester')]
    assert saved.body['duration_minutes'] == 107


def test_ratings_follow_the_reviews(tx):
    course = tx.course()
    first = tx.review(course_id=course.id, rating=4)
    tx.review(course_id=course.id, rating=1)
    rated = tx.document('courses', course.id)
    assert (rated.body['average_rating'], rated.body['rating_count']) == (2.5, 2)
    assert rated.rev > course.rev and rated.updated > course.updated and rated.content == course.content
    tx.put('reviews', {**first.body, 'rating': 5}, first.id)
    assert tx.document('courses', course.id).body['average_rating'] == 3
    before = tx.document('courses', course.id)
    tx.put('reviews', {**first.body, 'rating': 5, 'body': 'More words'}, first.id, base='infinity')
    assert tx.document('courses', course.id) == before, 'words do not move a rating'
    tx.delete('reviews', first.id)
    assert tx.document('courses', course.id).body['rating_count'] == 1
    other = tx.course()
    tx.sql('UPDATE course_reviews SET course_id = %s WHERE course_id = %s', other.id, course.id)
    bodies = [tx.document('courses', id).body for id in (course.id, other.id)]
    assert [(body['average_rating'], body['rating_count']) for body in bodies] == [(None, 0), (1, 1)]


def test_enrollments_are_counted_unless_cancelled(tx):
    course = tx.course()
    first, second = tx.enrollment(course_id=course.id), tx.enrollment(course_id=course.id)

    def count():
        return tx.document('courses', course.id).body['enrollment_count']
    assert count() == 2
    first = tx.put('enrollments', {**first.body, 'status': 'cancelled'}, first.id)
    assert count() == 1
    tx.put('enrollments', {**first.body, 'status': 'completed'}, first.id)
    assert count() == 2
    tx.delete('enrollments', second.id)
    assert count() == 1
    third = tx.enrollment(course_id=course.id)
    tx.put('enrollments', {**third.body, 'status': 'cancelled'}, third.id)
    tx.delete('enrollments', third.id)
    assert count() == 1, 'who had cancelled was counted no more'
    assert tx.document('courses', course.id).content == course.content, 'nobody has edited the course'


def test_progress_follows_the_entries(tx):
    row = tx.enrollment()
    assert row.body['progress_percent'] == 0 and len(row.body['lessons']) == 4
    tx.sql("UPDATE lesson_progress SET status = 'completed', completed_at = now() WHERE enrollment_id = %s "
           'AND lesson_id = %s', row.id, row.body['lessons'][0]['lesson_id'])
    after = tx.document('enrollments', row.id)
    assert after.body['progress_percent'] == 25 and after.body['status'] == 'active'
    assert after.rev > row.rev and after.content == after.updated > row.updated, 'entries are edited by people, too'
    tx.sql("UPDATE lesson_progress SET status = 'completed', completed_at = %s WHERE enrollment_id = %s", LONG_AGO,
           row.id)
    done = tx.document('enrollments', row.id).body
    assert (done['progress_percent'], done['status'], done['completed_at']) == (100, 'completed', LONG_AGO)
    other = tx.enrollment()
    entries = [entry['lesson_id'] for entry in other.body['lessons']]
    tx.sql("UPDATE lesson_progress SET status = 'completed' WHERE enrollment_id = %s AND lesson_id = %s", other.id, entries[0])
    tx.sql("UPDATE lesson_progress SET status = 'in_progress' WHERE enrollment_id = %s AND lesson_id = %s", other.id, entries[1])
    tx.sql('DELETE FROM lesson_progress WHERE enrollment_id = %s AND lesson_id = ANY (%s)', other.id, entries[2:])
    assert tx.document('enrollments', other.id).body['progress_percent'] == 50
    tx.sql('INSERT INTO lesson_progress (enrollment_id, lesson_id) SELECT %s, unnest(%s)', other.id, entries[2:])
    assert tx.document('enrollments', other.id).body['progress_percent'] == 25


def test_a_document_is_not_completed_behind_its_back(tx):
    """Side effects belong to procedures and SQL; a restored tree must not meet its own."""
    row = tx.enrollment()
    lessons = [{**lesson, 'status': 'completed'} for lesson in row.body['lessons']]
    saved = tx.put('enrollments', {**row.body, 'lessons': lessons}, row.id).body
    assert (saved['progress_percent'], saved['status'], saved['completed_at']) == (100, 'active', None)


def test_one_default_payment_method(tx):
    first = tx.method(is_default=True)
    user = first.body['user_id']
    mark = tx.mark()
    second = tx.method(user_id=user, is_default=True)
    assert tx.document('payment_methods', first.id).body['is_default'] is False
    assert {(entry.id, entry.operation) for entry in tx.logged(mark)} == {(first.id, 'update'), (second.id, 'insert')}
    tx.sql('UPDATE payment_methods SET is_default = true WHERE id = %s', first.id)
    assert tx.document('payment_methods', second.id).body['is_default'] is False
    assert tx.document('payment_methods', first.id).body['is_default'] is True
    other = tx.method(is_default=True)
    assert tx.document('payment_methods', first.id).body['is_default'] is True, 'other users have their own'
    assert other.body['user_id'] != user
    tx.sql("SET LOCAL campusfs.caller_keeps = 'all'")  # then nobody clears the earlier one
    tx.sql("SET LOCAL statement_timeout = '60s'")
    tx.refused('23505', 'is_default', 'another default', tx.method, user_id=user, is_default=True)


# ---- conflicts

def test_conflict_when_people_have_edited(tx):
    row = tx.user()
    tx.put('users', {**row.body, 'first_name': 'Grace'}, row.id)
    mine = {**row.body, 'first_name': 'Edsger'}
    error = tx.refused('CF003', 'updated_at', f'user {row.id} was changed at', tx.put, 'users', mine, row.id)
    assert 'Read it again' in error.diag.message_hint
    assert tx.put('users', mine, row.id, base='infinity').body['first_name'] == 'Edsger'
    assert tx.put('users', {**mine, 'updated_at': None, 'first_name': 'Alan'}, row.id).outcome == 'updated'
    del mine['updated_at']
    assert tx.put('users', mine, row.id).outcome == 'updated', 'a document without updated_at replaces the row'


def test_base_of_the_same_process(tx):
    """An editor saves twice from one buffer: the second is based on the first."""
    row = tx.user()
    first = tx.put('users', {**row.body, 'first_name': 'Grace'}, row.id)
    second = {**row.body, 'first_name': 'Edsger'}
    assert tx.put('users', second, row.id, base=first.body['updated_at']).outcome == 'updated'
    tx.sql("UPDATE users SET role = 'admin' WHERE id = %s", row.id)
    tx.refused('CF003', 'updated_at', 'was changed', tx.put, 'users', {**second, 'first_name': 'Alan'}, row.id,
               base=first.body['updated_at'])


def test_derived_changes_are_no_conflict(tx):
    course, user = tx.course(), tx.user()
    tx.review(course_id=course.id)
    tx.enrollment(course_id=course.id)
    saved = tx.put('courses', {**course.body, 'title': 'Other'}, course.id)
    assert saved.outcome == 'updated' and saved.body['rating_count'] == saved.body['enrollment_count'] == 1
    tx.sql("UPDATE users SET last_login_at = '2026-01-01T00:00:00Z' WHERE id = %s", user.id)
    saved = tx.put('users', {**user.body, 'first_name': 'Grace'}, user.id)
    assert saved.body['last_login_at'] == '2026-01-01T00:00:00.000000Z', 'nor is the login undone'
    saved = tx.put('users', {**saved.body, 'last_login_at': LONG_AGO}, user.id)
    assert saved.body['last_login_at'] == LONG_AGO, 'who has seen it may change it'


def test_parts_conflict_like_the_row(tx):
    course = tx.course()
    tx.sql("UPDATE course_lessons SET title = 'Other' WHERE id = %s", course.body['modules'][0]['lessons'][0]['id'])
    tx.refused('CF003', 'updated_at', 'was changed', tx.put, 'courses', {**course.body, 'title': 'Mine'}, course.id)


def test_time_set_back_is_the_version_then(tx):
    row = tx.user()
    tx.put('users', row.body, row.id, at=LONG_AGO)
    stale = {**row.body, 'updated_at': '2000-01-01T00:00:00.000000Z', 'first_name': 'Grace'}
    tx.refused('CF003', 'updated_at', 'was changed', tx.put, 'users', stale, row.id)
    assert tx.put('users', {**stale, 'updated_at': LONG_AGO}, row.id).outcome == 'updated'


# ---- creation and ids

def test_id_and_region_must_fit_the_place(tx):
    row = tx.user()
    tx.refused('22023', 'id', f'id is 5, but the file is {row.id}.json', tx.put, 'users', {**row.body, 'id': 5}, row.id)
    tx.refused('22023', 'region', 'region is "africa", but the file lies in europe', tx.put, 'users',
               {**row.body, 'region': 'africa'}, row.id)
    tx.refused('22023', 'id', 'id must be left out', tx.put, 'users', row.body)
    tx.refused('22023', 'id', 'from 1 to 274877906943', tx.put, 'users', {}, 0)
    tx.refused('22023', 'id', 'from 1 to 274877906943', tx.put, 'users', {}, 2 ** 38, claimed=True)
    tx.refused('CF005', 'region', 'asia lives on another shard', tx.put, 'users', {}, NOBODY, region='asia')
    document = {'email': 'z@example.org', 'username': 'z', 'first_name': 'Z'}
    tx.refused('23505', 'id', f'id "{row.id}" is taken by a user of europe', tx.put, 'users', document, row.id,
               region='africa')
    assert tx.put('users', document, NOBODY).id == NOBODY, 'id and region may be left out'


def test_created_at_is_taken_once(tx):
    row = tx.user(created_at=LONG_AGO)
    assert row.body['created_at'] == LONG_AGO
    assert tx.put('users', {**row.body, 'created_at': '2002-01-01T00:00:00Z', 'first_name': 'B'}, row.id
                  ).body['created_at'] == LONG_AGO


def test_ids_of_other_shards_are_claimed_first(tx):
    document = {'email': 'c@example.org', 'username': 'c', 'first_name': 'C'}
    theirs = NOBODY - 1
    tx.refused('CF006', 'id', "one of shard 1's numbers", tx.put, 'users', document, theirs)
    row = tx.put('users', document, theirs, claimed=True)
    assert tx.put('users', {**row.body, 'first_name': 'D'}, theirs).outcome == 'updated', 'it is here now'


def claim(session, collection, id, shard):
    session.sql('SELECT claim_id(%s::smallint, %s, %s::smallint)', NUMBERS[collection], id, shard)


def test_claims(tx):
    claim(tx, 'users', NOBODY, 1)
    claim(tx, 'users', NOBODY, 1)
    tx.refused('23505', 'id', 'shard 1', claim, tx, 'users', NOBODY, 3)
    tx.refused('22023', 'id', 'no id', claim, tx, 'users', 2 ** 38, 1)
    tx.refused('22023', 'shard', 'cannot claim', claim, tx, 'users', NOBODY, 2)
    row = tx.user()
    tx.refused('23505', 'id', f'"{row.id}" is taken', claim, tx, 'users', row.id, 1)
    document = {'email': 'c@example.org', 'username': 'c', 'first_name': 'C'}
    tx.refused('23505', 'id', 'shard 1', tx.put, 'users', document, NOBODY)
    tx.refused('23505', 'id', 'shard 1', tx.sql,
               'INSERT INTO users (region, id, email, username, first_name, last_name) '
               "VALUES (3, %s, 'c@example.org', 'c', 'C', '')", NOBODY)
    claim(tx, 'courses', row.id, 1)  # each collection has its own


@pytest.mark.parametrize('collection', COLLECTIONS)
def test_next_id_skips_what_is_taken(admin_tx, collection):
    number = NUMBERS[collection]
    next_id = 'SELECT next_id(%s::smallint)'
    first = admin_tx.value(next_id, number)
    assert first % 1000 == 2 and admin_tx.value(next_id, number) == first + 1000
    claim(admin_tx, collection, first + 2000, 1)
    assert admin_tx.value(next_id, number) == first + 3000
    table = admin_tx.value('SELECT table_name FROM collections WHERE number = %s', number)
    admin_tx.sql('SET LOCAL session_replication_role = replica')
    source = admin_tx.one(collection)
    admin_tx.sql(f'UPDATE {table} SET id = %s WHERE id = %s', source.id + 1000, source.id)
    assert admin_tx.value(next_id, number) == source.id + 2000


def test_next_id_of_no_collection(tx):
    tx.refused('22023', 'collection', 'no collection number 99', tx.sql, 'SELECT next_id(99::smallint)')


def test_sql_inserts_take_fresh_ids(tx):
    (id, number), = tx.sql('INSERT INTO invoices (region, transaction_id, subtotal) VALUES (3, %s, 1) '
                           'RETURNING id, number', tx.transaction().id)
    assert id % 1000 == 2 and number.startswith('INV-002-')


# ---- requests

def resolve(session, request):
    return session.value('SELECT resolve_request(%s::uuid)', request)


def test_requests(tx):
    request, never = str(uuid.uuid4()), str(uuid.uuid4())
    row = tx.put('users', {'email': 'r@example.org', 'username': 'r', 'first_name': 'R'}, request=request)
    assert resolve(tx, request) == 'committed'
    assert resolve(tx, never) == 'void' and resolve(tx, never) == 'void'
    tx.refused('CF005', None, 'used or given up', tx.put, 'users', {**row.body, 'first_name': 'S'}, row.id,
               request=never)
    tx.refused('CF005', None, 'used or given up', tx.delete, 'users', row.id, request=request)
    request = str(uuid.uuid4())
    assert tx.delete('users', NOBODY, request=request) == 'missing' and resolve(tx, request) == 'void'
    request = str(uuid.uuid4())
    assert tx.delete('users', row.id, request=request) == 'deleted' and resolve(tx, request) == 'committed'


# ---- deletions and moves

def test_deletions_name_who_refers(tx):
    invoice = tx.invoice()
    transaction = tx.document('transactions', invoice.body['transaction_id'])
    user, course = transaction.body['user_id'], transaction.body['course_id']
    for _ in range(2):
        tx.method(user_id=user)
    tx.review(user_id=user, course_id=course)
    tx.enrollment(user_id=user, course_id=course)
    instructor = tx.document('courses', course).body['instructor_id']
    cases = [('users', user, '1 enrollment, 1 review, 2 payment methods, 1 transaction, 1 invoice'),
             ('users', instructor, '1 course'), ('courses', course, '1 enrollment, 1 review, 1 transaction'),
             ('transactions', transaction.id, '1 invoice')]
    for collection, id, words in cases:
        error = tx.refused('CF002', None, f'{collection[:-1]} {id} has {words}', tx.delete, collection, id)
        assert error.diag.message_hint == 'Remove those first.'


def test_payment_methods_and_categories_in_use(tx):
    method = tx.method()
    tx.transaction(user_id=method.body['user_id'], payment_method_id=method.id)
    tx.refused('CF002', None, f'payment method {method.id} has 1 transaction', tx.delete, 'payment_methods', method.id)
    other = tx.user()
    tx.refused('CF002', None, 'which is to change its user, has 1 transaction', tx.put, 'payment_methods',
               {**method.body, 'user_id': other.id}, method.id)
    category = tx.category()
    tx.category(parent_id=category.id)
    tx.category(parent_id=category.id)
    tx.course(category_id=category.id)
    tx.refused('CF002', None, f'category {category.id} has 1 course, 2 narrower categories', tx.delete, 'categories',
               category.id, None)


@pytest.mark.parametrize('collection', COLLECTIONS)
def test_deletion_takes_its_parts_along(tx, collection):
    row, mark = tx.one(collection), tx.mark()
    assert tx.delete(collection, row.id, home(collection)) == 'deleted'
    assert tx.delete(collection, row.id, home(collection)) == 'missing'
    gone = [entry for entry in tx.logged(mark) if entry.operation == 'delete']
    assert [entry[:4] for entry in gone] == [(NUMBERS[collection], REGIONS[home(collection)], row.id, 'delete')]
    assert gone[0].rev > row.rev
    for table, column in (('user_profiles', 'user_id'), ('course_modules', 'course_id'),
                          ('lesson_progress', 'enrollment_id')):
        if table.startswith(collection[:4]) or collection == 'enrollments':
            assert tx.sql(f'SELECT FROM {table} WHERE {column} = %s', row.id) == []


def test_delete_in_the_wrong_region_is_missing(tx):
    row = tx.user()
    assert tx.delete('users', row.id, region='africa') == 'missing'


def test_move_takes_all_along(tx):
    method = tx.method(is_default=True)
    user = method.body['user_id']
    transaction = tx.transaction(user_id=user, payment_method_id=method.id)
    invoice = tx.invoice(transaction_id=transaction.id)
    review = tx.review(user_id=user)
    enrollment = tx.enrollment(user_id=user)
    before = tx.document('users', user)
    mark = tx.mark()
    moved = tx.move(user, 'africa')
    assert moved.outcome == 'updated' and moved.body == {**before.body, 'region': 'africa',
                                                         'updated_at': moved.body['updated_at']}
    assert moved.rev > before.rev and moved.updated > before.updated
    rows = {('users', user), ('payment_methods', method.id), ('transactions', transaction.id), ('invoices', invoice.id),
            ('reviews', review.id), ('enrollments', enrollment.id)}
    for collection, id in rows:
        assert tx.document(collection, id).body['region'] == 'africa'
    keys = {(NUMBERS[collection], id) for collection, id in rows}
    assert {(4, 'update', *key) for key in keys} | {(3, 'delete', *key) for key in keys} == {
        (entry.region, entry.operation, entry.collection, entry.id) for entry in tx.logged(mark)}
    assert tx.move(user, 'africa', region='africa').outcome == 'unchanged'


def test_moves_that_cannot_be(tx):
    course = tx.course()
    teacher = course.body['instructor_id']
    tx.refused('CF002', 'region', f'user {teacher} teaches 1 course', tx.move, teacher, 'africa')
    tx.refused('CF005', 'region', 'asia lives on another shard', tx.move, tx.user().id, 'asia')
    tx.refused('CF001', 'id', 'there is no user', tx.move, NOBODY, 'africa')


# ---- the change log and the feed

def copy_users(session, count, region=3, start=NOBODY - 10 ** 9):
    lines = ''.join(f'{region}\t{start + 1000 * n}\tbulk{n}@example.org\tbulk{n}\tB\t\n' for n in range(count))
    with session.connection.cursor() as cursor:
        cursor.copy_expert('COPY users (region, id, email, username, first_name, last_name) FROM STDIN',
                           io.StringIO(lines))


def test_bulk_statements_log_one_row_a_region(tx):
    mark = tx.mark()
    copy_users(tx, 1000)
    assert len(tx.logged(mark)) == 1000 and {entry.operation for entry in tx.logged(mark)} == {'insert'}
    tx.sql("UPDATE users SET region = 4 WHERE username IN ('bulk1', 'bulk2')")
    tx.sql("INSERT INTO users (region, id, email, username, first_name, last_name) "
           "VALUES (3, %s, 'bulkx@example.org', 'bulkx', 'B', '')", NOBODY)
    for statement in ("UPDATE users SET first_name = 'C' WHERE username LIKE 'bulk%%'",
                      "DELETE FROM users WHERE username LIKE 'bulk%%'"):
        mark = tx.mark()
        tx.sql(statement)
        assert sorted(entry[:4] for entry in tx.logged(mark)) == [(1, 3, None, 'bulk'), (1, 4, None, 'bulk')]
    mark = tx.mark()
    copy_users(tx, 1001)
    assert [entry[:4] for entry in tx.logged(mark)] == [(1, 3, None, 'bulk')]
    tx.sql("DELETE FROM users WHERE username LIKE 'bulk%%'")


def test_truncate_is_logged(admin_tx):
    course = admin_tx.review().body['course_id']
    mark = admin_tx.mark()
    admin_tx.sql('TRUNCATE course_reviews')
    entries = admin_tx.logged(mark)
    assert {entry[:4] for entry in entries if entry.collection == 4} == {(4, 3, None, 'bulk'), (4, 4, None, 'bulk')}
    assert admin_tx.document('courses', course).body['rating_count'] == 0
    course = admin_tx.enrollment().body['course_id']
    admin_tx.sql('TRUNCATE enrollments CASCADE')
    assert admin_tx.document('courses', course).body['enrollment_count'] == 0


def test_loading_with_what_is_derived(tx):
    """A bulk load that brings every derived value along is not corrected, and is logged as ever."""
    course = tx.course()
    tx.sql("SET LOCAL campusfs.caller_keeps = 'all'")
    before, mark = tx.document('courses', course.id), tx.mark()
    tx.sql('INSERT INTO course_reviews (region, user_id, course_id, rating) VALUES (3, %s, %s, 5)', tx.user().id,
           course.id)
    tx.sql("UPDATE course_lessons SET title = 'x' WHERE id = %s", course.body['modules'][0]['lessons'][0]['id'])
    assert tx.document('courses', course.id).rev == before.rev
    assert [entry.collection for entry in tx.logged(mark)] == [1, 4]
    saved = tx.put('courses', {**course.body, 'title': 'Other', 'modules': []}, course.id, base='infinity')
    assert saved.body['duration_minutes'] == 0
    assert tx.value("SELECT current_setting('campusfs.caller_keeps')") == 'all', 'a save leaves the setting'


def test_collection_time(tx):
    changed = 'SELECT collection_changed_us(%s::smallint, %s::smallint)'
    assert tx.value(changed, 15, 3) == 0
    before = tx.value(changed, 1, 4)
    row = tx.user()
    assert tx.value(changed, 1, 4) == before
    assert tx.value(changed, 1, 3) >= row.updated


CHANGES = (Path(__file__).resolve().parent.parent / 'sql/queries/changes.sql').read_text()


def ask(session, snapshot, limit=100000):
    with session.connection.cursor() as cursor:
        cursor.execute(CHANGES.replace('$1', '%(snapshot)s').replace('$2', '%(limit)s'),
                       {'snapshot': snapshot, 'limit': limit})
        return cursor.fetchall()


def test_changes_are_found_in_whatever_order_they_commit(connect):
    early, late, reader = connect('admin'), connect('admin'), connect('ro')
    late.connection.autocommit = False
    (snapshot, *nothing), = ask(reader, None)
    assert nothing == [None] * 5
    first = late.user()
    second = early.user()
    found = ask(reader, snapshot)
    assert (1, 3, second.id, second.rev) in [row[1:5] for row in found]
    assert all(abs(row[5] / 1e6 - time.time()) < 600 for row in found), 'when it changed, in microseconds'
    assert first.id not in [row[3] for row in found]
    snapshot = found[0][0]
    late.connection.commit()
    found = ask(reader, snapshot)
    assert [row[1:5] for row in found] == [(1, 3, first.id, first.rev)], 'it began before what was seen already'
    (_, *nothing), = ask(reader, found[0][0])
    assert nothing == [None] * 5
    late.connection.autocommit = True
    for row in (first, second):
        early.delete('users', row.id)
    assert len(ask(reader, found[0][0], limit=1)) == 1


def test_standbys_miss_no_change_either(connect, replayed, cluster):
    """A standby's snapshots do not list transactions under way."""
    early, late = connect('admin'), connect('admin')
    standby = connect('ro', cluster.replica('europe').name)
    late.connection.autocommit = False
    first = late.user()
    second = early.user()
    replayed('europe')
    (snapshot, *_), *_ = ask(standby, None)
    late.connection.commit()
    replayed('europe')
    assert first.id in [row[3] for row in ask(standby, snapshot)]
    assert first.id in [row[3] for row in ask(early, snapshot)], 'nor does a primary that goes on from there'
    late.connection.autocommit = True
    for row in (first, second):
        early.delete('users', row.id)


def test_pruning_keeps_the_folders_times(admin_tx):
    row = admin_tx.user()
    admin_tx.sql("UPDATE change_log SET changed_at = changed_at - interval '40 days'")
    admin_tx.sql("UPDATE request_log SET created_at = created_at - interval '8 days'")
    folders = admin_tx.sql('SELECT collection, region, max(changed_at) FROM change_log GROUP BY 1, 2 ORDER BY 1, 2')
    admin_tx.sql('SELECT prune_logs()')
    assert admin_tx.sql('SELECT collection, region, changed_at FROM change_log ORDER BY 1, 2') == folders
    assert admin_tx.value('SELECT count(*) FROM request_log') == 0 and row.id


def test_pruning_takes_the_oldest_first_and_no_more_than_it_is_told(admin_tx):
    admin_tx.sql('SELECT prune_logs()')
    admin_tx.sql("INSERT INTO request_log (request_id, outcome, created_at) SELECT gen_random_uuid(), 'void', "
                 "now() - n * interval '1 day' FROM generate_series(8, 12) n")
    admin_tx.sql("INSERT INTO change_log (collection, region, row_id, operation, rev, actor, changed_at) "
                 "SELECT 1, 3, n, 'update', n, 'prune', now() - n * interval '1 day' FROM generate_series(31, 35) n")

    def left():
        return (admin_tx.value("SELECT array_agg(date_part('day', now() - created_at)::int ORDER BY created_at DESC) "
                               "FROM request_log WHERE created_at < now() - interval '7 days'"),
                admin_tx.value("SELECT array_agg(rev ORDER BY rev) FROM change_log WHERE actor = 'prune'"))
    admin_tx.user()  # what is the folder's time is another entry
    assert left() == ([8, 9, 10, 11, 12], [31, 32, 33, 34, 35])
    assert admin_tx.value('SELECT prune_logs(p_limit => 2)') == 4 and left() == ([8, 9, 10], [31, 32, 33])
    assert admin_tx.value('SELECT prune_logs(p_limit => 100)') == 6 and left() == (None, None)


def test_a_renamed_region_moves_its_documents(admin_tx):
    user, other = admin_tx.user(), admin_tx.user('africa')
    admin_tx.sql("UPDATE regions SET name = 'old_world' WHERE number = 3")
    after = admin_tx.document('users', user.id)
    assert after.body['region'] == 'old_world' and after.rev > user.rev and after.updated > user.updated
    assert after.content == user.content and clocks(admin_tx.document('users', other.id)) == clocks(other)


# ---- passwords and roles

def test_passwords_are_written_and_never_read(tx, admin_tx):
    row = tx.user(password='correct horse')
    assert 'password' not in tx.text('users', row.id)
    assert tx.put('users', {**row.body, 'password': 'correct horse'}, row.id) == row._replace(outcome='unchanged')
    changed = tx.put('users', {**row.body, 'password': 'battery staple'}, row.id)
    assert changed.outcome == 'updated' and clocks(changed) == clocks(row), 'the document has not moved'
    assert tx.put('users', {**row.body, 'password': None}, row.id).outcome == 'unchanged'
    with pytest.raises(psycopg2.Error) as raised:
        tx.sql('SELECT password_hash FROM user_credentials')
    assert raised.value.pgcode == '42501'
    row = admin_tx.user(password='geheim')
    assert admin_tx.value('SELECT crypt(%s, password_hash) = password_hash FROM user_credentials WHERE user_id = %s',
                          'geheim', row.id)
    admin_tx.sql("UPDATE user_credentials SET changed_at = '2001-01-01' WHERE user_id = %s", row.id)
    admin_tx.put('users', {**row.body, 'password': 'neu'}, row.id)
    assert admin_tx.value('SELECT changed_at FROM user_credentials WHERE user_id = %s', row.id).year > 2001


@pytest.mark.parametrize('password, words',
                         [('é' * 37, 'at most 72 bytes'), ('', 'must not be empty'), (5, 'must be text'),
                                             (['secret-word'], 'must be text')])
def test_bad_passwords(tx, password, words):
    error = tx.refused('22023', 'password', words, tx.user, password=password)
    assert 'secret-word' not in str(error) and 'é' not in str(error)


def test_72_bytes_are_enough(tx):
    assert tx.user(password='x' * 72).outcome == 'created'


@pytest.mark.parametrize('statement', [
    'UPDATE courses SET rating_sum = 5', 'UPDATE courses SET enrollment_count = 5',
    'UPDATE enrollments SET progress_percent = 5',
    'DELETE FROM change_log', "INSERT INTO request_log VALUES (gen_random_uuid(), 'void')", 'TRUNCATE users',
    'UPDATE regions SET name = name', 'CREATE TABLE campusfs.mine ()', 'SELECT * FROM user_credentials'])
def test_what_the_mount_may_not_do(tx, statement):
    assert tx.error(tx.sql, statement).pgcode == '42501'


@pytest.mark.parametrize('statement', ["SELECT delete_users(3::smallint, 1, NULL, '')", "SELECT next_id(1::smallint)",
                                       'UPDATE users SET role = role', 'SELECT * FROM user_credentials'])
def test_readers_only_read(connect, statement):
    reader = connect('ro')
    reader.sql('SELECT id, body FROM doc_users LIMIT 1')
    reader.value('SELECT collection_changed_us(1::smallint, 3::smallint)')
    with pytest.raises(psycopg2.Error) as raised:
        reader.sql(statement)
    assert raised.value.pgcode == '42501'


def test_nothing_belongs_to_who_installed_it(admin_tx):
    assert admin_tx.sql("""SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'campusfs'::regnamespace
                           AND relkind IN ('r', 'v', 'S') AND relowner <> 'campusfs_owner'::regrole""") == []
    assert admin_tx.sql("SELECT rolname FROM pg_roles WHERE rolname = 'campusfs_owner' AND rolcanlogin") == []
    settings = admin_tx.sql("SELECT unnest(setconfig) FROM pg_db_role_setting WHERE setrole = 'campusfs_rw'::regrole")
    assert ('log_parameter_max_length_on_error=0',) in settings and ('log_parameter_max_length=0',) in settings


CHECK, FOREIGN, UNIQUE = '23514', '23503', '23505'


@pytest.mark.parametrize('what, statement, code', [
    ('user', "UPDATE users SET email = 'ada' WHERE id = {id}", CHECK),
    ('user', "UPDATE users SET role = 'king' WHERE id = {id}", CHECK),
    ('user', 'UPDATE users SET email = (SELECT upper(email) FROM users WHERE id = {other}) WHERE id = {id}', UNIQUE),
    ('category', 'UPDATE course_categories SET parent_id = id WHERE id = {id}', CHECK),
    ('category', 'UPDATE course_categories SET parent_id = {nobody} WHERE id = {id}', FOREIGN),
    ('course', 'UPDATE courses SET price = -0.01 WHERE id = {id}', CHECK),
    ('course', "UPDATE courses SET currency = 'Euro' WHERE id = {id}", CHECK),
    ('course', 'UPDATE courses SET slug = (SELECT slug FROM courses WHERE id = {other}) WHERE id = {id}', UNIQUE),
    ('course', 'UPDATE courses SET instructor_id = {nobody} WHERE id = {id}', FOREIGN),
    ('course', 'UPDATE courses SET category_id = {nobody} WHERE id = {id}', FOREIGN),
    ('course', 'UPDATE course_modules SET position = 1 WHERE course_id = {id}', UNIQUE),
    ('course', "UPDATE course_lessons SET media = 'a/../b' FROM course_modules m WHERE m.id = module_id AND course_id = {id}", CHECK),
    ('enrollment', 'INSERT INTO enrollments (region, user_id, course_id) SELECT region, user_id, course_id FROM enrollments '
                   'WHERE id = {id}', UNIQUE),
    ('enrollment', 'INSERT INTO lesson_progress (enrollment_id, lesson_id) VALUES ({id}, {nobody})', FOREIGN),
    ('enrollment', 'UPDATE lesson_progress SET position_seconds = -1 WHERE enrollment_id = {id}', CHECK),
    ('review', 'UPDATE course_reviews SET rating = 6 WHERE id = {id}', CHECK),
    ('review', 'INSERT INTO course_reviews (region, user_id, course_id, rating) SELECT region, user_id, course_id, 1 '
               'FROM course_reviews WHERE id = {id}', UNIQUE),
    ('method', "UPDATE payment_methods SET last_four = '42424' WHERE id = {id}", CHECK),
    ('transaction', 'UPDATE transactions SET amount = -0.01 WHERE id = {id}', CHECK),
    ('transaction', 'UPDATE transactions SET payment_method_id = {method} WHERE id = {id}', FOREIGN),  # another user's
    ('invoice', "UPDATE invoices SET issued_on = '2026-01-02', due_on = '2026-01-01' WHERE id = {id}", CHECK),
    ('invoice', 'UPDATE invoices SET number = (SELECT number FROM invoices WHERE id = {other}) WHERE id = {id}', UNIQUE),
    ('invoice', 'UPDATE invoices SET transaction_id = {nobody} WHERE id = {id}', FOREIGN)])
def test_the_tables_themselves_keep_it_true(tx, what, statement, code):
    """Whoever writes: what put functions refuse in words, plain SQL cannot store, either."""
    make = getattr(tx, what)
    with pytest.raises(psycopg2.Error) as raised:
        tx.sql(statement.format(id=make().id, other=make().id, nobody=NOBODY, method=tx.method().id))
    assert raised.value.pgcode == code, raised.value


def test_times_have_their_bounds_in_the_tables(tx):
    row = tx.user()
    for time in ('infinity', '-infinity', '0001-01-01 00:00:00 BC', '10000-01-01 00:00:00+00'):
        assert tx.error(tx.sql, 'UPDATE users SET last_login_at = %s WHERE id = %s', time, row.id).pgcode == '23514'
        assert tx.error(tx.put, 'users', row.body, row.id, at=time).pgcode == '22023'
    assert isinstance(tx.value('SELECT last_login_at IS NULL FROM users WHERE id = %s', row.id), bool)
    assert datetime.MAXYEAR == 9999
