"""Users and what they own, made by SQL on a test's own cluster."""

import contextlib
import json
import os
import uuid

from cluster import SHARDS
from conftest import region_number


def ask(own, where, text, params=None):
    with contextlib.closing(own.connect(where, options='-c search_path=campusfs,pg_catalog')) as connection:
        with connection.cursor() as cursor:
            cursor.execute(text, params)
            return cursor.fetchall() if cursor.description else []


class Person:
    """A user with a password, a profile and payment methods, made by SQL; `number`: an id of one's choice."""

    def __init__(self, own, region, number=None, methods=1):
        self.own = own
        name = uuid.uuid4().hex[:12]
        document = {'email': f'{name}@example.org', 'username': name, 'first_name': 'Ada', 'role': 'student',
                    'password': 'a good password', 'profile': {'city': 'London', 'bio': 'Mathematics'}}
        self.name = name
        self.id = self.put(region, 'users', document, number)
        self.methods = [self.put(region, 'payment_methods', {'user_id': self.id, 'kind': 'card', 'token': f'tok_{name}_{n}',
                                                             'is_default': n == 0}) for n in range(methods)]

    def put(self, region, suffix, document, number=None):
        (row_id,), = ask(self.own, region, f'SELECT id FROM put_{suffix}(%s::smallint, %s, %s, NULL, NULL, true, NULL, NULL)',
                         (region_number(region), number, json.dumps(document)))
        return row_id

    def path(self, root, region):
        return root / 'regions' / region / f'users/{self.id}.json'

    def move(self, root, source, target):
        os.rename(self.path(root, source), self.path(root, target))

    def regions(self):
        """Where SQL finds the user, on any shard."""
        return [name for shard in SHARDS for name, in ask(
            self.own, shard, 'SELECT r.name FROM users u JOIN regions r ON r.number = u.region WHERE id = %s', (self.id,))]

    def login(self, where):
        """A password's hash, without the row's rev."""
        return ask(self.own, where, 'SELECT password_hash, changed_at::text FROM user_credentials WHERE user_id = %s',
                   (self.id,))

    def claims(self):
        """{shard: where its claim says that the user is}."""
        return {shard: number for shard in SHARDS for number, in ask(
            self.own, shard, 'SELECT shard FROM id_claims WHERE collection = 1 AND id = %s', (self.id,))}


def new_course(teacher, region):
    return teacher.put(region, 'courses', {'instructor_id': teacher.id, 'title': 'T', 'slug': uuid.uuid4().hex,
                                           'status': 'published', 'modules': []})
