"""Users who move to a region of another shard: all of theirs or nothing, in one region at a time, whatever breaks off.

Two-phase commit is stopped where it hurts by locks that the tests hold in the databases: on request_log of a shard that
is to prepare its part, which waits there with everything before it done.
"""

import contextlib
import errno
import json
import os
import threading
import time
import uuid

import psycopg2
import pytest

from cluster import SHARDS
from conftest import region_number
from mount_tools import errno_of, errors_of, metrics, run, wait_for
from people import Person, ask, new_course

TIMEOUT = 2  # seconds: the deadline of an operation in mounts of shards that break
SLACK = 12   # what a loaded machine may add: the locks and stops of these tests have no end of their own
FREE = iter(range(10 ** 6, 10 ** 8))  # ids of one's choice, in thousands
SHARD_OF = {region: shard for shard, (_, regions) in SHARDS.items() for region in regions}


# ---- a cluster that may break, and mounts of it

@pytest.fixture(scope='module')
def own(frail):
    return frail


@pytest.fixture
def mounted(own):
    """Makes mounts: mounted() is a root; all servers are up before, and left as they are behind."""
    own.start()
    made = []

    def make(**settings):
        name = f'mnt-{uuid.uuid4().hex[:8]}'
        config = own.write_config(own.directory / f'{name}.conf', **{'timeout': f'{TIMEOUT}s', 'credentials': 'on', **settings})
        made.append(own.mount(own.directory / name, config=config))
        return made[-1]
    yield make
    own.thaw()
    for mount in made:
        own.mounts.remove(mount)
        assert mount.stop() in (0, -9)
        mount.clean_up()


@pytest.fixture(scope='module')
def calm(own):
    config = own.write_config(own.directory / 'moves.conf', credentials='on')
    mount = own.mount(own.directory / 'mnt-moves', config=config)
    yield mount
    own.mounts.remove(mount)
    assert mount.stop() == 0


@pytest.fixture
def root(own, calm):
    """A mount of all tests that break nothing."""
    own.start()
    assert calm.pid() is not None, 'the daemon has died'
    return calm.directory


def prepared(own, *shards):
    return [gid for shard in shards or SHARDS
            for gid, in ask(own, shard, 'SELECT gid FROM pg_prepared_xacts WHERE database = current_database()')]


def unfinished(own):
    return [row for shard in SHARDS
            for row in ask(own, shard, "SELECT id FROM transfer_journal WHERE finished_at IS NULL")]


def nothing_left(own):
    return wait_for(lambda: not prepared(own) and not unfinished(own), 60, 0.05)


class Held:
    """with Held(own, 'apac'): no part of a transfer can be prepared there; .is_waited_for() tells that one tries."""

    def __init__(self, own, where):
        self.own, self.where = own, where

    def __enter__(self):
        self.connection = self.own.connect(self.where)
        self.connection.autocommit = False
        self.connection.cursor().execute('LOCK TABLE campusfs.request_log IN SHARE MODE')
        return self

    def is_waited_for(self):
        return wait_for(lambda: ask(self.own, self.where, "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = "
                                    "'campusfs.request_log'::regclass"), 10)

    def let_go(self):
        if not self.connection.closed:
            self.connection.close()

    def __exit__(self, *_):
        self.let_go()


class Mover(threading.Thread):
    """A move under way: .join() and then .errno, None when it worked."""

    def __init__(self, person, root, source, target):
        super().__init__()
        self.call = lambda: person.move(root, source, target)
        self.errno = self.seconds = None
        self.start()

    def run(self):
        begun = time.monotonic()
        try:
            self.call()
        except OSError as error:
            self.errno = errno.errorcode[error.errno]
        self.seconds = time.monotonic() - begun


# ---- what moves

def test_a_user_moves_with_all_that_is_theirs(own, root):
    person = Person(own, 'europe', methods=2)
    before = json.loads(person.path(root, 'europe').read_text())
    login = person.login('europe')
    methods = root / 'regions/europe/payment-methods'
    shown = {number: json.loads((methods / f'{number}.json').read_text()) for number in person.methods}
    person.move(root, 'europe', 'asia')
    after = json.loads(person.path(root, 'asia').read_text())
    assert after.pop('region') == 'asia' and before.pop('region') == 'europe'
    assert after.pop('updated_at') > before.pop('updated_at')
    assert after == before
    assert not person.path(root, 'europe').exists() and person.regions() == ['asia']
    assert person.login('asia') == login and person.login('europe') == []
    for number, method in shown.items():
        moved = json.loads((root / f'regions/asia/payment-methods/{number}.json').read_text())
        assert moved['updated_at'] > method['updated_at']
        assert {**moved, 'region': None, 'updated_at': None} == {**method, 'region': None, 'updated_at': None}
        assert not (methods / f'{number}.json').exists()
    assert ask(own, 'asia', 'SELECT user_id FROM authenticate_user(%s, %s)', (person.name, 'a good password')) == [(person.id,)]
    assert nothing_left(own)


def test_clocks_move_as_within_a_shard(own, root):
    near, far = Person(own, 'europe'), Person(own, 'europe')
    text = '''SELECT created_at, updated_at, content_at, content_at = updated_at, rev FROM users WHERE id = %(id)s UNION ALL
              SELECT created_at, updated_at, content_at, content_at = updated_at, rev FROM payment_methods
              WHERE user_id = %(id)s'''
    for person, region in ((near, 'africa'), (far, 'asia')):
        old = ask(own, 'europe', text, {'id': person.id})
        person.move(root, 'europe', region)
        new = ask(own, region, text, {'id': person.id})
        for was, now in zip(old, new, strict=True):
            assert now[0] == was[0] and now[1] > was[1] and now[3], region


def test_a_time_in_the_future_moves_on_by_a_microsecond(own, root):
    person = Person(own, 'europe')
    os.utime(person.path(root, 'europe'), (4102444800, 4102444800))
    person.move(root, 'europe', 'asia')
    assert json.loads(person.path(root, 'asia').read_text())['updated_at'] == '2100-01-01T00:00:00.000001Z'


def test_deleted_rows_move_along_and_can_be_taken_back(own, root):
    person = Person(own, 'europe', methods=2)
    number = person.methods[1]
    document = json.loads((root / f'regions/europe/payment-methods/{number}.json').read_text())
    (root / f'regions/europe/payment-methods/{number}.json').unlink()
    person.move(root, 'europe', 'oceania')
    folder = root / 'regions/oceania/payment-methods'
    assert not (root / f'regions/europe/payment-methods/.deleted/{number}.json').exists()
    os.rename(folder / f'.deleted/{number}.json', folder / f'{number}.json')
    assert json.loads((folder / f'{number}.json').read_text()) == {**document, 'region': 'oceania'}


def test_there_and_back_and_round(own, root):
    """Claims follow: at home for who lives elsewhere, nowhere for who is at home; no sequence moves."""
    person = Person(own, 'europe')
    home = SHARD_OF['europe']
    sequences = {shard: ask(own, shard, 'SELECT last_value FROM users_id_seq') for shard in SHARDS}
    way = ['europe', 'asia', 'north_america', 'oceania', 'africa', 'south_america', 'europe']
    for source, target in zip(way, way[1:]):
        person.move(root, source, target)
        assert person.regions() == [target]
        elsewhere = SHARD_OF[target] != home
        assert person.claims() == ({home: SHARDS[SHARD_OF[target]][0]} if elsewhere else {})
        assert len(ask(own, target, 'SELECT 1 FROM payment_methods WHERE user_id = %s', (person.id,))) == 1
    assert sequences == {shard: ask(own, shard, 'SELECT last_value FROM users_id_seq') for shard in SHARDS}
    assert nothing_left(own)


def test_what_was_theirs_is_not_remembered_where_it_was(own, mounted):
    """By a mount that asks nobody what has changed: what was read ahead, and the kernel has not seen, is no longer there."""
    root = mounted(cache_ttl='1min', feed='poll').directory
    other, person = Person(own, 'europe', methods=2), Person(own, 'europe')
    methods = root / 'regions/europe/payment-methods'
    for number in other.methods:
        (methods / f'{number}.json').read_bytes()
    person.move(root, 'europe', 'asia')
    assert errno_of((methods / f'{person.methods[0]}.json').read_bytes) == 'ENOENT'
    assert json.loads((root / f'regions/asia/payment-methods/{person.methods[0]}.json').read_text())['user_id'] == person.id


def test_an_id_that_moved_away_is_not_given_again(own, root):
    person = Person(own, 'europe')
    person.move(root, 'europe', 'asia')
    document = {'email': f'{uuid.uuid4().hex}@example.org', 'username': uuid.uuid4().hex, 'first_name': 'Eve'}
    assert errno_of(person.path(root, 'europe').write_text, json.dumps(document)) == 'EEXIST'
    assert person.regions() == ['asia']


def test_a_number_that_no_shard_gives_away(own, root):
    """Kept by the first shard, from which it leaves and to which it comes back."""
    person = Person(own, 'north_america', number=1000 * next(FREE) + 777)
    person.move(root, 'north_america', 'europe')
    assert person.claims() == {'americas': 2}
    person.move(root, 'europe', 'asia')
    assert person.claims() == {'americas': 3}
    person.move(root, 'asia', 'south_america')
    assert person.claims() == {} and person.regions() == ['south_america']


def test_other_mounts_and_both_feeds_see_it(own, root, mounted):
    other = mounted().directory
    person = Person(own, 'europe')
    assert person.path(other, 'europe').exists() and not person.path(other, 'asia').exists()
    list(person.path(other, 'asia').parent.iterdir())
    person.move(root, 'europe', 'asia')
    assert wait_for(lambda: person.path(other, 'asia').exists() and not person.path(other, 'europe').exists(), 30)
    for where, operation in (('europe', 'delete'), ('asia', 'insert')):
        assert ask(own, where, 'SELECT DISTINCT collection FROM change_log WHERE row_id IN (%s, %s) AND region = %s '
                   'AND operation = %s ORDER BY 1', (person.id, person.methods[0], region_number(where), operation)
                   ) == [(1,), (5,), (9,)], where


# ---- what does not move

def test_a_move_that_one_shard_refuses_leaves_nothing_prepared_on_another(own, root):
    """Not even for a moment: when it is told, it is over."""
    person = gone_abroad(own, next(FREE))
    ask(own, 'americas', 'ALTER FUNCTION transfer_claims(jsonb, smallint, uuid) RENAME TO refuse_claims')
    try:
        assert errno_of(person.move, root, 'europe', 'asia') is not None
        assert prepared(own) == [] and person.regions() == ['europe']
    finally:
        ask(own, 'americas', 'ALTER FUNCTION refuse_claims(jsonb, smallint, uuid) RENAME TO transfer_claims')
    person.move(root, 'europe', 'asia')
    assert nothing_left(own)


def test_who_teaches_and_who_learns_stays(own, root):
    teacher, student = Person(own, 'europe'), Person(own, 'africa')
    taught = new_course(teacher, 'europe')
    path = f'regions/europe/users/{teacher.id}.json'
    assert errno_of(teacher.move, root, 'europe', 'asia') == 'EBUSY'
    assert f'user {teacher.id} teaches 1 course' in errors_of(root, path)[-1]['message']
    rows = {'enrollment': student.put('africa', 'enrollments', {'user_id': student.id, 'course_id': taught}),
            'review': student.put('africa', 'reviews', {'user_id': student.id, 'course_id': taught, 'rating': 5}),
            'transaction': student.put('africa', 'transactions', {
                'user_id': student.id, 'course_id': taught, 'amount': 1, 'payment_method_id': student.methods[0]})}
    assert errno_of(student.move, root, 'africa', 'asia') == 'EBUSY'
    message = errors_of(root, f'regions/africa/users/{student.id}.json')[-1]['message']
    for noun, number in rows.items():
        assert f'1 {noun} ({number})' in message
    student.move(root, 'africa', 'europe')  # within the shard
    assert student.regions() == ['europe'] and teacher.regions() == ['europe'] and nothing_left(own)


@pytest.mark.parametrize('field', ['email', 'username'])
def test_a_name_that_is_taken_there(own, root, field):
    person, other = Person(own, 'europe'), Person(own, 'asia')
    ask(own, 'asia', f'UPDATE users SET {field} = upper(%s) WHERE id = %s',
        (f'{person.name}@example.org' if field == 'email' else person.name, other.id))
    before = person.path(root, 'europe').read_text()
    assert errno_of(person.move, root, 'europe', 'asia') == 'EEXIST'
    error = errors_of(root, f'regions/europe/users/{person.id}.json')[-1]
    assert error['column'] == field and f'user {other.id} of asia' in error['message']
    assert person.path(root, 'europe').read_text() == before and person.claims() == {} and nothing_left(own)


def test_an_id_that_is_taken_there(own, root):
    """Two rows of one id are an accident of SQL; a move does not make it worse."""
    person = Person(own, 'europe')
    ask(own, 'asia', "INSERT INTO users (region, id, email, username, first_name, last_name) "
        "VALUES (5, %s, %s, %s, 'Eve', '')", (person.id, f'{uuid.uuid4().hex}@example.org', uuid.uuid4().hex))
    assert errno_of(person.move, root, 'europe', 'asia') == 'EEXIST'
    error = errors_of(root, f'regions/europe/users/{person.id}.json')[-1]
    assert error['column'] == 'id' and 'a user of asia' in error['message'], error
    assert person.regions() == ['europe', 'asia'] and nothing_left(own)
    ask(own, 'asia', 'DELETE FROM users WHERE id = %s', (person.id,))


def test_a_server_that_keeps_no_prepared_transactions(own, mounted):
    """EXDEV, on which mv copies and then removes: the copy fails, so nothing is lost."""
    person, node = Person(own, 'europe'), own.primary('apac')
    assert not prepared(own, 'apac'), 'with one it would not start any more'
    ask(own, 'apac', 'ALTER SYSTEM SET max_prepared_transactions = 0')
    try:
        node.stop()
        node.start()
        root = mounted().directory
        assert errno_of(person.move, root, 'europe', 'asia') == 'EXDEV'
        error = errors_of(root, f'regions/europe/users/{person.id}.json')[-1]
        assert 'max_prepared_transactions is 0' in error['message'] and 'every node' in error['hint']
        assert run('mv', person.path(root, 'europe'), person.path(root, 'asia').parent).returncode == 1
        assert person.regions() == ['europe'] and not person.path(root, 'asia').exists()
    finally:
        ask(own, 'apac', 'ALTER SYSTEM RESET max_prepared_transactions')
        node.stop()
        node.start()


# ---- writers beside it

def test_writers_wait_and_then_find_nobody(own, root, mounted):
    other = mounted().directory
    person = Person(own, 'europe')
    edited = person.path(other, 'europe').read_text().replace('Mathematics', 'Poetry')
    with Held(own, 'apac') as held:
        mover = Mover(person, root, 'europe', 'asia')
        assert held.is_waited_for()
        assert person.path(other, 'europe').read_text().count('Mathematics') == 1, 'readers do not wait'
        results = {}

        def write(name, call, *arguments):
            results[name] = errno_of(call, *arguments)
        method = root / 'regions/europe/payment-methods/new.json'
        writers = [threading.Thread(target=write, args=('save', person.path(other, 'europe').write_text, edited)),
                   threading.Thread(target=write, args=('method', method.write_text, json.dumps(
                       {'user_id': person.id, 'kind': 'card', 'token': 'tok_late'})))]
        for writer in writers:
            writer.start()
        assert wait_for(lambda: ask(own, 'emea', "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
                                    "AND usename = 'campusfs_rw'") == [(2,)], 5)
        held.let_go()
        mover.join()
        for writer in writers:
            writer.join()
    assert mover.errno is None and person.regions() == ['asia']
    assert results == {'save': 'EEXIST', 'method': 'ENOLINK'}
    assert 'Mathematics' in person.path(root, 'asia').read_text() and nothing_left(own)


def test_a_password_that_changes_meanwhile_moves_along(own, root):
    person, other = Person(own, 'europe'), Person(own, 'europe')
    with contextlib.closing(own.connect('europe', options='-c search_path=campusfs,pg_catalog')) as connection:
        connection.autocommit = False
        connection.cursor().execute('UPDATE user_credentials SET password_hash = (SELECT password_hash FROM user_credentials '
                                    'WHERE user_id = %s) WHERE user_id = %s', (other.id, person.id))
        mover = Mover(person, root, 'europe', 'asia')
        assert wait_for(lambda: ask(own, 'emea', "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
                                    "AND usename = 'campusfs_rw'"), 30)
        connection.commit()
        mover.join()
    assert mover.errno is None and person.login('asia')[0][0] == other.login('europe')[0][0]


def test_a_shard_that_is_too_slow_ends_by_the_deadline(own, mounted):
    root = mounted().directory
    person = Person(own, 'europe')
    with Held(own, 'apac') as held:
        mover = Mover(person, root, 'europe', 'asia')
        assert held.is_waited_for()
        mover.join()
        assert mover.errno == 'ETIMEDOUT' and mover.seconds < TIMEOUT + SLACK
        assert person.regions() == ['europe']
    person.path(root, 'europe').write_text(person.path(root, 'europe').read_text().replace('Mathematics', 'Poetry'))
    assert nothing_left(own)


@pytest.mark.long
def test_what_comes_late_to_its_decision_is_none(own, mounted):
    """The last part of the time is for what follows the decision. One shard is slow until most of it is over, and the next one
    has no end: the move is given up before its deadline."""
    limit = 10
    root, person = mounted(timeout=f'{limit}s').directory, gone_abroad(own, next(FREE))

    def ends_early():
        with Held(own, 'apac') as slow, Held(own, 'americas') as endless:
            mover = Mover(person, root, 'europe', 'asia')
            slow_until = time.monotonic() + limit / 2
            assert slow.is_waited_for() and wait_for(lambda: time.monotonic() > slow_until, limit)
            slow.let_go()
            assert endless.is_waited_for()
            mover.join()
        assert mover.errno in ('EIO', 'ETIMEDOUT') and person.regions() == ['europe']
        return mover.seconds < limit
    assert wait_for(ends_early, 60), 'a loaded machine may have one end late'
    assert nothing_left(own)


# ---- what breaks off

def gone_abroad(own, number):
    """A user of americas' numbers who lives in europe: a move to asia has a part on each of the three shards."""
    return Person(own, 'europe', number=number * 1000 + 1)


def test_the_daemon_dies_before_the_decision(own, mounted):
    """Prepared on one shard, the next one is waited for: the user stays, and what was prepared goes."""
    mount = mounted()
    person = gone_abroad(own, next(FREE))
    with Held(own, 'americas') as held:
        mover = Mover(person, mount.directory, 'europe', 'asia')
        assert held.is_waited_for() and len(prepared(own, 'apac')) == 1
        mount.kill()
        mover.join()
    assert mover.errno is not None and person.regions() == ['europe']
    assert len(prepared(own, 'apac')) == 1
    again = mounted().directory
    assert nothing_left(own) and person.regions() == ['europe']
    assert person.path(again, 'europe').exists()
    person.move(again, 'europe', 'asia')
    assert person.regions() == ['asia'] and person.claims() == {'americas': 3}


def test_whether_a_user_has_left_is_told_when_it_is_certain_and_for_good(own):
    """On the shard left: who asks waits for a transfer under way; one that is said to be void can never be."""
    person, transfer = Person(own, 'europe'), str(uuid.uuid4())
    leave = "SELECT shards FROM transfer_out(3::smallint, %s, 5::smallint, 3::smallint, '{1,2,3}', %s, 'test')"
    outcome = []
    asking = threading.Thread(target=lambda: outcome.extend(ask(own, 'emea', 'SELECT transfer_outcome(%s)', (transfer,))))
    with contextlib.closing(own.connect('emea', options='-c search_path=campusfs,pg_catalog')) as connection:
        connection.autocommit = False
        connection.cursor().execute(leave, (person.id, transfer))
        asking.start()
        waiting = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT transfer_outcome(%' AND wait_event_type = 'Lock'"
        assert wait_for(lambda: ask(own, 'emea', waiting), 60) and not outcome
        connection.rollback()
    asking.join()
    assert outcome == [('void',)]
    with pytest.raises(psycopg2.errors.UniqueViolation):
        ask(own, 'emea', leave, (person.id, transfer))
    assert person.regions() == ['europe']


def decided(own, mount, break_it):
    """A user who has left, with a target that was broken before it learned of that, and the daemon was told so."""
    person = gone_abroad(own, next(FREE))
    login = person.login('europe')
    with Held(own, 'americas') as held:
        mover = Mover(person, mount.directory, 'europe', 'asia')
        assert held.is_waited_for() and len(prepared(own, 'apac')) == 1
        break_it()
        held.let_go()
        assert wait_for(lambda: not ask(own, 'europe', 'SELECT 1 FROM users WHERE id = %s', (person.id,)), 30)
        mover.join()
    assert mover.errno == 'EIO' and mover.seconds < TIMEOUT + SLACK
    error, = errors_of(mount.directory, f'regions/europe/users/{person.id}.json')
    assert 'has left shard emea, but shard apac has not confirmed' in error['message']
    return person, login


def arrived(own, person, login):
    return (wait_for(lambda: person.regions() == ['asia'], 60, 0.1) and person.login('asia') == login
            and person.claims() == {'americas': 3}
            and len(ask(own, 'asia', 'SELECT 1 FROM payment_methods WHERE user_id = %s', (person.id,))) == 1)


def test_the_target_dies_behind_the_decision(own, mounted):
    """The user is in neither region until it is back, and then arrives by itself, though the daemon is dead, too."""
    mount, primary = mounted(), own.primary('apac')
    person, login = decided(own, mount, primary.kill)
    mount.kill()
    primary.start()
    assert person.regions() == [] and len(prepared(own, 'apac')) == 1
    root = mounted().directory
    assert arrived(own, person, login) and nothing_left(own)
    assert wait_for(person.path(root, 'asia').exists, 30)


@pytest.mark.long
def test_a_mount_finishes_what_it_could_not(own, mounted):
    """The same daemon, once the shard that was frozen answers: no command, no new mount."""
    mount = mounted()
    person, login = decided(own, mount, own.primary('apac').freeze)
    own.thaw()
    assert arrived(own, person, login) and nothing_left(own)
    assert wait_for(person.path(mount.directory, 'asia').exists, 30)


@pytest.mark.long
def test_a_search_that_is_asked_for_during_another_is_made_behind_it(own, mounted):
    """What a move leaves over on a shard that has been searched already does not wait for the next minute's search."""
    teacher = Person(own, 'europe')
    new_course(teacher, 'europe')
    gid = f'campusfs:2:1:{uuid.uuid4()}'  # of a transfer that never was
    with contextlib.closing(own.connect('apac')) as holder:
        holder.autocommit = False
        holder.cursor().execute('LOCK TABLE campusfs.transfers IN ACCESS EXCLUSIVE MODE')
        root = mounted(timeout='5s').directory
        assert wait_for(lambda: ask(own, 'apac', "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = "
                                    "'campusfs.transfers'::regclass"), 60), 'the search has come to the last shard'
        with contextlib.closing(own.connect('americas', 'rw')) as left:
            left.cursor().execute(f"BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION '{gid}'")
        assert errno_of(teacher.move, root, 'europe', 'asia') == 'EBUSY'
        holder.rollback()
    try:
        assert wait_for(lambda: gid not in prepared(own, 'americas'), 40)
    finally:
        if gid in prepared(own, 'americas'):
            ask(own, 'americas', f"ROLLBACK PREPARED '{gid}'")


def test_a_server_lost_the_prepared_part(own, mounted):
    """A failover to a standby that was behind; the journal has all that is needed to write it again, once."""
    mount, primary = mounted(), own.primary('apac')
    person, login = decided(own, mount, primary.kill)
    mount.kill()
    primary.start()
    gid, = prepared(own, 'apac')
    ask(own, 'apac', f"ROLLBACK PREPARED '{gid}'")
    assert person.regions() == []
    mounted(), mounted()
    assert arrived(own, person, login) and nothing_left(own)


@pytest.mark.long
def test_a_failover_that_has_the_prepared_part(new_cluster):
    cluster = new_cluster()
    cluster.settings.update(timeout=f'{TIMEOUT}s', connect_timeout='1s')
    cluster.write_config()
    mount = cluster.mount(cluster.directory / 'mnt')
    old, new = cluster.primary('apac'), cluster.replica('apac')

    def fail_over():
        (lsn,), = ask(cluster, 'apac', 'SELECT pg_current_wal_flush_lsn()::text')
        assert wait_for(lambda: ask(cluster, new.name, 'SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn', (lsn,))[0][0], 30)
        old.kill()
    person, login = decided(cluster, mount, fail_over)
    new.promote()
    assert arrived(cluster, person, login) and nothing_left(cluster)


@pytest.mark.long
def test_the_source_dies_at_the_decision(own, mounted):
    """Killed with its transaction open: it never was, and what the other has prepared is rolled back."""
    mount = mounted()
    person = gone_abroad(own, next(FREE))
    primary = own.primary('emea')
    with Held(own, 'americas') as held:
        mover = Mover(person, mount.directory, 'europe', 'asia')
        assert held.is_waited_for()
        primary.kill()
        held.let_go()
        mover.join()
    assert mover.errno is not None and mover.seconds < TIMEOUT + SLACK
    primary.start()
    mounted()
    assert nothing_left(own) and person.regions() == ['europe']


def test_a_forgotten_part_is_in_the_metrics(own, mounted):
    """Also one of somebody else's, which we may not end."""
    with contextlib.closing(own.connect('apac')) as connection:
        with connection.cursor() as cursor:
            cursor.execute('BEGIN; SELECT pg_current_xact_id()')
            cursor.execute("PREPARE TRANSACTION 'of somebody else'")
    try:
        root = mounted().directory
        sample = 'campusfs_prepared_transactions{shard="%s"}'
        assert wait_for(lambda: metrics(root).get(sample % 'apac') == 1, 30)
        assert metrics(root)['campusfs_prepared_transaction_age_seconds{shard="apac"}'] >= 0
        done = own.run('health', '--json', check=False)
        said = {shard['name']: shard['prepared'] for shard in json.loads(done.stdout)['shards']}
        assert (said['apac']['count'], said['emea']) == (1, {'count': 0, 'oldest_s': 0.0}) and said['apac']['oldest_s'] > 0
        assert 'prepared transactions: 1, the oldest for ' in own.run('health', check=False).stdout
        assert metrics(root)[sample % 'emea'] == metrics(root)['campusfs_transfers_unfinished{shard="apac"}'] == 0
    finally:
        ask(own, 'apac', "ROLLBACK PREPARED 'of somebody else'")


def test_what_a_shard_has_noted_of_an_open_move_is_not_forgotten(own, mounted):
    """However old; else its part would be written again. Of a move that cannot be finished: a shard is not configured."""
    person, transfer = Person(own, 'asia'), str(uuid.uuid4())
    ask(own, 'emea', "INSERT INTO transfers (id, outcome, user_id, from_region, to_region, to_shard, shards, content, actor) "
        "VALUES (%s, 'committed', %s, 3, 5, 3, '{3,9}', '{}', 'test')", (transfer, person.id))
    ask(own, 'apac', "INSERT INTO request_log (request_id, outcome, created_at) VALUES (%s, 'committed', now() - interval '8 days')",
        (transfer,))

    def pruned_by_a_mount():
        """An old entry that is not the folder's last goes in any case."""
        ask(own, 'apac', "INSERT INTO change_log (collection, region, row_id, operation, rev, actor, changed_at) "
            "VALUES (1, 5, %s, 'update', 1, 'test', now() - interval '40 days')", (person.id,))
        mounted()
        old = "SELECT 1 FROM change_log WHERE row_id = %s AND changed_at < now() - interval '30 days'"
        return wait_for(lambda: not ask(own, 'apac', old, (person.id,)), 60, 0.05)

    def noted():
        return ask(own, 'apac', 'SELECT outcome FROM request_log WHERE request_id = %s', (transfer,))
    try:
        assert pruned_by_a_mount() and noted() == [('committed',)]
    finally:
        ask(own, 'emea', 'DELETE FROM transfers WHERE id = %s', (transfer,))
    assert pruned_by_a_mount() and wait_for(lambda: not noted(), 60, 0.05)


@pytest.mark.long
def test_many_at_once_there_and_back(own, root, mounted):
    """Users, to and fro by two mounts at the same time: each in one region, never in two."""
    other = mounted().directory
    people = [Person(own, 'europe') for _ in range(4)]
    seen, stop = [], threading.Event()

    def watch():
        while not stop.is_set():
            there = people[0].regions()  # one shard after the other: what moves meanwhile may be found twice, once
            if len(there) > 1 and people[0].regions() == there:
                seen.append(there)

    def go(person, mount):
        for source, target in (('europe', 'asia'), ('asia', 'north_america'), ('north_america', 'europe')):
            assert wait_for(lambda: errno_of(person.move, mount, source, target) is None, 30)
    watcher = threading.Thread(target=watch)
    movers = [threading.Thread(target=go, args=(person, (root, other)[n % 2])) for n, person in enumerate(people)]
    for thread in [watcher, *movers]:
        thread.start()
    for thread in movers:
        thread.join()
    stop.set()
    watcher.join()
    assert [person.regions() for person in people] == [['europe']] * 4 and not seen and nothing_left(own)
