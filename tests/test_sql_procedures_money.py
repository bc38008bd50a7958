"""The stored procedures of docs/procedures.md for payments, erasure and reports; test_sql_procedures.py: the rest."""

import datetime
import json
import re
import threading

import process
import psycopg2
import pytest

from procedure_calls import (NOBODY, PASSWORD, REGION, call, clients, clocks, connect, document, lessons_of, refused,
                             registered, report, run, today)

# fixtures, used by name
__all__ = ['call', 'clients', 'clocks', 'connect', 'document', 'refused', 'registered', 'report']

CARD = '4111 1111 1111 1111'  # passes Luhn, belongs to nobody


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
    given = {'kind': 'card', 'token': 'tok_1', 'brand': 'visa', 'last_four': '4242', 'expires_on': '2039-12-31',
             **changes}
    error = refused('22023', words, 'add_payment_method', new_user(REGION).id, *given.values())
    assert '11111111' not in re.sub(r'\D', '', str(error)), 'a card number is in no message'


def test_add_payment_method_refuses_users(call, refused, new_user):
    user = new_user(REGION)
    call('suspend_user', user.id)
    refused('CF005', 'suspended and cannot store', 'add_payment_method', user.id, 'paypal', 'tok_1')
    refused('CF001', 'no user', 'add_payment_method', NOBODY, 'paypal', 'tok_1')


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
    refused('CF001', 'no payment method', 'set_default_payment_method', NOBODY)


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
    assert (invoice['region'], invoice['status']) == ('africa', 'paid')
    assert invoice['transaction_id'] == paid['transaction_id']
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
            row, = run(connection, 'process_payment', [], {**given, 'p_gateway_reference': reference})
            outcomes.append(row['status'])
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


def test_process_payment_without_a_method(call, document, new_user, new_course, new_payment_method, unique):
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
    wrong('CF001', 'no user', p_user_id=NOBODY)
    wrong('CF001', 'no course', p_course_id=NOBODY)
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
    refused('CF001', 'no transaction', 'refund_payment', NOBODY)


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
    refused('CF001', 'no transaction', 'issue_invoice', NOBODY)


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
    refused('CF001', 'no invoice', 'void_invoice', NOBODY)


def test_erase_user_who_paid(call, refused, document, sale, sql, unique):
    given, method = sale()
    user = given['p_user_id']
    was = document('users', user)
    sql(REGION, 'SELECT put_password(region, id, %s) FROM users WHERE id = %s', (PASSWORD, user))
    assert call('authenticate_user', was['email'], PASSWORD)
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


def test_erase_user_who_did_not(call, refused, document, registered, new_enrollment, new_invoice, new_transaction):
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


def test_erase_user_locks_courses_in_one_order(connect, call, new_user, new_course, sql):
    """While another holds the first course, an erasure waits for it with empty hands, not holding the second."""
    first, second = sorted(new_course(REGION, price=0).id for _ in range(2))
    user = new_user(REGION).id
    for course in (first, second):
        call('enroll_student', user, course)
    call('submit_review', user, second, 3)
    holder, eraser = connect(), connect()
    lock = 'SELECT FROM courses WHERE id = %s FOR NO KEY UPDATE NOWAIT'
    with holder.cursor() as cursor:
        cursor.execute('BEGIN')
        cursor.execute(lock, (first,))
        erasure = threading.Thread(target=run, args=(eraser, 'erase_user', [user], {}))
        erasure.start()
        pids = (eraser.info.backend_pid, holder.info.backend_pid)
        assert process.wait_until(lambda: sql(REGION, 'SELECT %s = ANY (pg_blocking_pids(%s))', pids[::-1])[0][0], 30)
        cursor.execute(lock, (second,))
        cursor.execute('COMMIT')
    erasure.join()
    holder.close()
    eraser.close()
    assert sql(REGION, 'SELECT enrollment_count, rating_count FROM courses WHERE id = ANY (%s)',
               ([first, second],)) == [(0, 0), (0, 0)]


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

def test_revenue_by_month(report, refused, new_transaction):
    one, other = 'XQA', 'XQB'  # nobody's currencies

    def paid(day, **fields):
        new_transaction('africa', **{'currency': one, 'created_at': f'{day}T12:00:00.000000Z', **fields})
    paid('1999-01-31', amount=10)
    paid('1999-01-01', amount=5.50, status='refunded')
    paid('1999-02-01', amount=7)
    paid('1999-02-01', amount=100, status='failed')
    paid('1999-02-01', amount=100, status='pending')
    paid('1999-02-28', amount=1, currency=other)

    def revenue(*arguments):
        return [(row['month'].isoformat(), row['currency'], row['payments'], float(row['gross']), row['refunds'],
                 float(row['refunded']), float(row['net']))
                for row in report('revenue_by_month', *arguments) if row['currency'] in (one, other)]
    assert revenue('1999-01-01', '1999-02-28') == [
        ('1999-01-01', one, 2, 15.5, 1, 5.5, 10), ('1999-02-01', one, 1, 7, 0, 0, 7),
        ('1999-02-01', other, 1, 1, 0, 0, 1)]
    assert revenue('1999-01-02', '1999-01-31') == [('1999-01-01', one, 1, 10, 0, 0, 10)]
    assert revenue('1999-01-01', '1999-02-28', 'europe') == []
    refused('22023', 'no period from 1999-02-01 to', 'revenue_by_month', '1999-02-01', '1999-01-01', role='ro')
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
    assert row['title'] == course.document['title']
    assert (row['status'], row['modules'], row['lessons']) == ('published', 2, 4)
    assert (row['enrollments'], row['active'], row['completed'], row['cancelled']) == (5, 3, 1, 1)
    assert (float(row['completion_rate']), float(row['average_progress'])) == (25, 62.5)
    assert float(row['median_days_to_complete']) == 0
    assert (float(row['average_rating']), row['rating_count']) == (4.5, 2)
    assert row['stars'] == {'1': 0, '2': 0, '3': 0, '4': 1, '5': 1}
    assert row['revenue'] == [{'currency': 'EUR', 'payments': 5, 'gross': 50, 'refunded': 10, 'net': 40}]
    refused('CF001', 'no course', 'course_statistics', NOBODY, role='ro')


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
    refused('CF001', 'no category', 'top_courses', 10, 'rating', NOBODY, role='ro')
    refused('CF005', 'another shard', 'top_courses', 10, 'rating', None, 'asia', role='ro')


def test_instructor_dashboard(report, refused, new_course, new_instructor, busy_course):
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
    refused('CF001', 'no user', 'instructor_dashboard', NOBODY, role='ro')


def test_student_transcript(report, refused, busy_course, new_user):
    course, students = busy_course
    row, = report('student_transcript', students[3])
    assert (row['course_id'], row['title'], row['instructor']) == (course.id, course.document['title'], 'Ada Lovelace')
    assert (row['status'], float(row['progress_percent'])) == ('active', 75)
    assert (row['lessons_completed'], row['lessons']) == (3, 4)
    assert row['rating'] == 4 and row['completed_at'] is None and row['enrolled_at'] is not None
    assert report('student_transcript', new_user(REGION).id) == []
    refused('CF001', 'no user', 'student_transcript', NOBODY, role='ro')


def test_completion_funnel(report, refused, busy_course, new_course):
    course, _ = busy_course
    rows = report('completion_funnel', course.id)
    assert [(row['step'], row['reached'], row['students'], float(row['percent'])) for row in rows] == [
        (1, 'enrolled', 5, 100), (2, 'started', 4, 80), (3, '25 %', 4, 80), (4, '50 %', 3, 60), (5, '75 %', 2, 40),
        (6, 'completed', 1, 20)]
    assert [row['percent'] for row in report('completion_funnel', new_course(REGION).id)] == [None] * 6
    refused('CF001', 'no course', 'completion_funnel', NOBODY, role='ro')


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
