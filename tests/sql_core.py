"""The interface between the mount and the database: fixtures of the test_sql_core* modules, which import them.

Most tests work inside a transaction of their own that is rolled back, on the shard of europe and africa (number 2), as
campusfs_rw, which is what the mount is.
"""

import collections
import json
import uuid

import psycopg2
import pytest

REGIONS = {'europe': 3, 'africa': 4, 'asia': 5, None: 0}
NUMBERS = {'users': 1, 'courses': 2, 'enrollments': 3, 'reviews': 4, 'payment_methods': 5, 'transactions': 6,
           'invoices': 7, 'categories': 8}
SETTINGS = '-c search_path=campusfs,pg_catalog -c campusfs.bcrypt_cost=4'
NOBODY = 274877906002  # an id of this shard's numbers that no row has

Saved = collections.namedtuple('Saved', 'outcome id rev updated content body')
Entry = collections.namedtuple('Entry', 'collection region id operation rev actor')


class Session:
    """A connection, and the calls that the mount makes on it."""

    def __init__(self, connection):
        self.connection = connection

    def sql(self, text, *parameters):
        with self.connection.cursor() as cursor:
            cursor.execute(text, parameters)
            return cursor.fetchall() if cursor.description else []

    def value(self, text, *parameters):
        (result,), = self.sql(text, *parameters)
        return result

    def put(self, collection, document, id=None, region='europe', at=None, base=None, claimed=False, request=None,
            actor='tester'):
        text = document if isinstance(document, str) else json.dumps(document)
        row, = self.sql(f'SELECT outcome, id, rev, updated_us, content_us, body FROM put_{collection}'
                        '(%s::smallint, %s, %s::jsonb, %s::timestamptz, %s::timestamptz, %s, %s::uuid, %s)',
                        REGIONS[region], id, text, at, base, claimed, request or str(uuid.uuid4()), actor)
        return Saved(*row[:5], json.loads(row[5]))

    def delete(self, collection, id, region='europe', request=None):
        return self.value(f'SELECT delete_{collection}(%s::smallint, %s, %s::uuid, %s)', REGIONS[region], id,
                          request or str(uuid.uuid4()), 'tester')

    def move(self, id, to, region='europe'):
        row, = self.sql('SELECT outcome, id, rev, updated_us, content_us, body FROM move_users'
                        '(%s::smallint, %s, %s::smallint, %s::uuid, %s)', REGIONS[region], id, REGIONS[to],
                        str(uuid.uuid4()), 'tester')
        return Saved(*row[:5], json.loads(row[5]))

    def document(self, collection, id):
        row, = self.sql(f'SELECT NULL, id, rev, updated_us, content_us, body FROM doc_{collection} WHERE id = %s', id)
        return Saved(*row[:5], json.loads(row[5]))

    def text(self, collection, id):
        return self.value(f'SELECT body FROM doc_{collection} WHERE id = %s', id)

    def error(self, call, *arguments, **named):
        """The error of a call, undone; it never has a detail, which could show whole rows."""
        self.sql('SAVEPOINT before')
        with pytest.raises(psycopg2.Error) as raised:
            call(*arguments, **named)
        self.sql('ROLLBACK TO before')
        assert raised.value.diag.message_detail is None
        return raised.value

    def refused(self, state, column, words, call, *arguments, **named):
        error = self.error(call, *arguments, **named)
        assert (error.pgcode, error.diag.column_name) == (state, column), error
        assert words in error.diag.message_primary, error.diag.message_primary
        return error

    def mark(self):
        return self.value('SELECT coalesce(max(id), 0) FROM change_log WHERE xid = pg_current_xact_id()')

    def logged(self, mark=0):
        """What this transaction has logged since a mark."""
        return [Entry(*row) for row in self.sql(
            'SELECT collection, region, row_id, operation, rev, actor FROM change_log '
            'WHERE xid = pg_current_xact_id_if_assigned() AND id > %s ORDER BY id', mark)]

    # ---- rows of a test's own

    def user(self, region='europe', **fields):
        name = uuid.uuid4().hex[:12]
        return self.put('users', {'email': f'{name}@example.org', 'username': name, 'first_name': 'Ada', **fields},
                        region=region)

    def course(self, region='europe', lessons=(2, 2), **fields):
        modules = [{'title': f'Module {m}', 'lessons': [{'title': f'Lesson {m}.{n}', 'duration_minutes': 10}
                                                        for n in range(count)]} for m, count in enumerate(lessons)]
        document = {'title': 'SQL', 'slug': uuid.uuid4().hex[:12], 'price': 49.9, 'modules': modules, **fields}
        if 'instructor_id' not in document:
            document['instructor_id'] = self.user(region, role='instructor').id
        return self.put('courses', document, region=region)

    def enrollment(self, region='europe', **fields):
        document = dict(fields)
        if 'user_id' not in document:
            document['user_id'] = self.user(region).id
        if 'course_id' not in document:
            document['course_id'] = self.course(region).id
        return self.put('enrollments', document, region=region)

    def review(self, region='europe', **fields):
        user = fields.pop('user_id', None) or self.user(region).id
        course = fields.pop('course_id', None) or self.course(region).id
        return self.put('reviews', {'user_id': user, 'course_id': course, 'rating': 4, **fields}, region=region)

    def method(self, region='europe', **fields):
        user = fields.pop('user_id', None) or self.user(region).id
        return self.put('payment_methods', {'user_id': user, 'token': f'tok_{uuid.uuid4().hex[:8]}', **fields},
                        region=region)

    def transaction(self, region='europe', **fields):
        user = fields.pop('user_id', None) or self.user(region).id
        course = fields.pop('course_id', None) or self.course(region).id
        return self.put('transactions', {'user_id': user, 'course_id': course, 'amount': 49.9, **fields}, region=region)

    def invoice(self, region='europe', **fields):
        transaction = fields.pop('transaction_id', None) or self.transaction(region).id
        return self.put('invoices', {'transaction_id': transaction, 'subtotal': 40, 'tax': 9.9, **fields},
                        region=region)

    def category(self, **fields):
        name = uuid.uuid4().hex[:12]
        return self.put('categories', {'name': name, 'slug': name, **fields}, region=None)

    def one(self, collection):
        """A row of a collection, with what it refers to."""
        return {'users': self.user, 'courses': self.course, 'enrollments': self.enrollment, 'reviews': self.review,
                'payment_methods': self.method, 'transactions': self.transaction, 'invoices': self.invoice,
                'categories': self.category}[collection]()


@pytest.fixture
def connect(cluster):
    """connect(role='rw', where='europe'): a session of its own, autocommit, closed at the end of the test."""
    opened = []

    def make(role='rw', where='europe'):
        opened.append(cluster.connect(where, role, options=SETTINGS))
        return Session(opened[-1])
    yield make
    for connection in opened:
        connection.close()


@pytest.fixture
def tx(connect):
    """A session in a transaction that is rolled back."""
    session = connect()
    session.connection.autocommit = False
    yield session
    session.connection.rollback()


@pytest.fixture
def admin_tx(connect):
    """The same as the admin."""
    session = connect('admin')
    session.connection.autocommit = False
    yield session
    session.connection.rollback()
