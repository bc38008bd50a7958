"""What the tests of saving share: the traces that a save leaves, errors in words, other processes, polling."""

import contextlib
import ctypes
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from decimal import Decimal

from conftest import region_number

TABLES = {'reviews': 'course_reviews', 'payment-methods': 'payment_methods', 'categories': 'course_categories'}
NUMBERS = {'users': 1, 'courses': 2, 'enrollments': 3, 'reviews': 4, 'payment-methods': 5, 'transactions': 6,
           'invoices': 7, 'categories': 8}
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
MAKE_USER = "SELECT put_users(%s::smallint, %s, %s::jsonb, NULL, NULL, false, gen_random_uuid(), 'somebody else')"
SHARD_NUMBERS = {'north_america': 1, 'south_america': 1, 'europe': 2, 'africa': 2, 'asia': 3, 'oceania': 3}


# ---- what the database has

@dataclass
class Trace:
    """A row as SQL sees it, and how often it and its shard have been written to."""
    rev: int
    updated_us: int
    content_us: int
    body: str
    changes: int   # of this row in change_log
    requests: int  # of the whole shard in request_log

    @property
    def document(self):
        return parse(self.body)


def trace(sql, row, shard=None):
    """The row's Trace, None when there is no such row."""
    view = 'doc_' + row.collection.replace('-', '_')
    where = shard or row.region or 'americas'
    found = sql(where, f'''
        SELECT rev, updated_us, content_us, body,
               (SELECT count(*) FROM change_log c
                WHERE c.collection = %(collection)s AND c.region = d.region AND c.row_id = d.id),
               (SELECT count(*) FROM request_log)
        FROM {view} d WHERE region = %(region)s AND id = %(id)s''',
                {'collection': NUMBERS[row.collection], 'region': region_number(row.region), 'id': row.id})
    return Trace(*found[0]) if found else None


def set_by_sql(sql, row, **columns):
    """Another client's UPDATE of the row."""
    table = TABLES.get(row.collection, row.collection)
    sets = ', '.join(f'{column} = %s' for column in columns)
    sql(row.region or 'americas', f'UPDATE {table} SET {sets} WHERE id = %s', [*columns.values(), row.id])


def parse(text):
    """A document with its numbers as they are written: 49.90 is not 49.9."""
    return json.loads(text, parse_float=lambda digits: Decimal(digits).as_tuple())


def edited(row, **fields):
    """The row's document as a person would save it after changing these fields; a field set to ... is left out."""
    document = {key: value for key, value in {**row.json(), **fields}.items() if value is not ...}
    return json.dumps(document, ensure_ascii=False, indent=2) + '\n'


# ---- errors in words

def errors(mnt):
    """.campusfs/errors.jsonl, newest last."""
    return [json.loads(line) for line in (mnt / '.campusfs/errors.jsonl').read_text().splitlines()]


def last_error(mnt, row):
    """The newest line about the row, which must be there."""
    path = str(row.path.relative_to(mnt))
    return [line for line in errors(mnt) if line['path'] == path][-1]


def refused(row):
    """Where the row's refused text lies."""
    return row.path.parent / '.refused' / row.path.name


@contextlib.contextmanager
def fails(code):
    """The block ends with an OSError of this errno."""
    try:
        yield
    except OSError as error:
        assert error.errno == code, f'{os.strerror(error.errno)} instead of {os.strerror(code)}'
    else:
        raise AssertionError(f'succeeded instead of {os.strerror(code)}')


def renameat2(source, target, flags):
    """rename() with flags: RENAME_NOREPLACE, RENAME_EXCHANGE."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, os.fsencode(source), -100, os.fsencode(target), flags) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


# ---- other processes

def sh(script, *arguments, check=True, **options):
    """Runs a script of sh with $1, $2, …; the CompletedProcess, output as text."""
    done = subprocess.run(['sh', '-c', script, 'sh', *map(str, arguments)], capture_output=True, text=True, timeout=60,
                          check=False, **options)
    assert not check or done.returncode == 0, f'{script}\nexit code {done.returncode}\n{done.stdout}{done.stderr}'
    return done


ACTOR = '''
import json, os, sys
for line in sys.stdin:
    name, arguments = json.loads(line)
    try:
        if name == 'save':
            with open(arguments[0], 'w') as file:
                file.write(arguments[1])
            answer = None
        else:
            given = [a.encode() if isinstance(a, str) and i > 0 and name in ('write', 'pwrite') else a
                     for i, a in enumerate(arguments)]
            answer = getattr(os, name)(*given)
        answer = answer.decode() if isinstance(answer, bytes) else list(answer) if isinstance(answer, tuple) else answer
        print(json.dumps([0, answer]), flush=True)
    except OSError as error:
        print(json.dumps([error.errno, None]), flush=True)
'''


class Actor:
    """Another process that does what it is told, one call of os after the other: actor.open(path, flags),
    actor.write(fd, text), actor.save(path, text), … An OSError there is one here."""

    def __init__(self):
        self.process = subprocess.Popen([sys.executable, '-c', ACTOR], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True)

    def __getattr__(self, name):
        def call(*arguments):
            words = [str(a) if isinstance(a, os.PathLike) else a for a in arguments]
            self.process.stdin.write(json.dumps([name, words]) + '\n')
            self.process.stdin.flush()
            code, answer = json.loads(self.process.stdout.readline())
            if code:
                raise OSError(code, os.strerror(code))
            return answer
        return call

    def kill(self):
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()


# ---- waiting

def eventually(condition, timeout=60):
    """Polls until the condition gives something true, which is returned; fails after the timeout."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f'not within {timeout} s'
        time.sleep(0.01)
