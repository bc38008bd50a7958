"""Stored procedures, called as SQL clients call them: fixtures of the test_sql_procedures* modules, which import them.

Procedures are called as campusfs_rw, reports as campusfs_ro, on the shard of europe and africa. After a refused call
the change log must be what it was before: nothing was written.
"""

import datetime
import json
import re

import psycopg2
import pytest

REGION = 'europe'
PASSWORD = 'correct horse battery'
NOBODY = 274877906000  # an id that no row has

VIEWS = {'users': 'doc_users', 'courses': 'doc_courses', 'enrollments': 'doc_enrollments', 'reviews': 'doc_reviews',
         'payment-methods': 'doc_payment_methods', 'transactions': 'doc_transactions', 'invoices': 'doc_invoices'}


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
    """refused(state, words, function, …): the error, its state and words checked, and that nothing moved."""
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
    return datetime.datetime.now(datetime.timezone.utc).date()


@pytest.fixture
def registered(call, unique):
    """A user with a password: (id, username, e-mail)."""
    def make(region=REGION, **named):
        name = unique()
        user = call('register_user', region, f'{name}@Example.org', name, PASSWORD, 'Grace', 'Hopper', **named)
        return user, name, f'{name}@Example.org'
    return make
