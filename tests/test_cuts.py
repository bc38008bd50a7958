"""Ways to the servers that are cut: a network that swallows everything, and statements whose callers have gone, on
servers that do not hear of it."""

import contextlib
import json
import os
import re
import signal
import struct
import subprocess
import threading
import time
import uuid
from pathlib import Path

import psycopg2
import pytest
from mount_tools import errno_of, metrics, wait_for
from relay import FarNetwork, Relay, why_no_network
from shards import PATIENCE, Saving, admin, first_name, health_of, new_user, node_of, path_of, save, wait_until_ok

DEADLINE = 3  # seconds, of an operation of the mounts here
SLACK = 12    # what a loaded machine may add


@pytest.fixture(scope='module')
def shard(breakable):
    breakable.start()
    return breakable


@pytest.fixture
def mount_through(shard):
    """mount_through(relays, **settings): a mount that reaches the nodes of these names by relays."""
    made = []

    def make(relays, **settings):
        name = f'mnt-{uuid.uuid4().hex[:8]}'
        config = shard.write_config(shard.directory / f'{name}.conf', **{'timeout': f'{DEADLINE}s', **settings})
        text = config.read_text()
        for node, relay in relays.items():
            text = re.sub(rf'^({node} = .*)host=\S+ port=\d+', rf'\1host={relay.host} port={relay.port}', text, flags=re.MULTILINE)
        config.write_text(text)
        made.append(shard.mount(shard.directory / name, config=config))
        wait_until_ok(made[-1])
        return made[-1]
    yield make
    for mount in made:
        shard.mounts.remove(mount)
        assert mount.stop() == 0


# ---- statements whose callers have gone

@pytest.fixture
def deaf(shard):
    """Relays to the nodes of a shard whose servers never hear that a client has closed a connection."""
    relays = {node.name: Relay(node.port, keeps=True) for node in shard.nodes_of('emea')}
    yield relays
    for relay in relays.values():
        relay.close()


@contextlib.contextmanager
def locked_reviews(shard):
    """Nobody can read reviews, on either node."""
    locked = "SELECT pid FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation = 'course_reviews'::regclass"
    with contextlib.closing(shard.connect('emea', options='-c search_path=campusfs,pg_catalog')) as holder:
        holder.autocommit = False
        holder.cursor().execute('LOCK TABLE course_reviews IN ACCESS EXCLUSIVE MODE')
        admin(shard, 'emea', 'SELECT pg_current_xact_id()')  # has the lock flushed, so that the replica hears of it
        assert wait_for(lambda: admin(shard, shard.replica('emea'), locked), PATIENCE)
        yield
        holder.rollback()


def count_waiting(shard):
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'campusfs_rw' AND wait_event_type = 'Lock'"
    return sum(admin(shard, node, waiting, database='postgres')[0][0] for node in shard.nodes_of('emea'))


def read_review(mount, region='europe'):
    """A cat of a review, there or not."""
    return subprocess.Popen(['cat', mount.directory / f'regions/{region}/reviews/1.json'], stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)


def count_cancelled(mount):
    return sum(metrics(mount.directory)[f'campusfs_pool_cancelled_total{{node="{node}"}}'] for node in ('emea-a', 'emea-b'))


def test_an_interrupted_read_is_ended_on_a_server_that_does_not_hear_of_it(shard, mount_through, deaf):
    """Its own limit there is seven minutes; the lock that it waits for is still held."""
    mount = mount_through(deaf, timeout='600s')
    with locked_reviews(shard):
        reader = read_review(mount)
        assert wait_for(lambda: count_waiting(shard), PATIENCE)
        reader.send_signal(signal.SIGINT)
        assert reader.wait(PATIENCE) == -signal.SIGINT
        assert wait_for(lambda: count_waiting(shard) == 0, PATIENCE)
    assert wait_for(lambda: count_cancelled(mount) == 1, PATIENCE)


def test_what_has_passed_its_deadline_is_ended_on_a_server_that_does_not_hear_of_it(shard, mount_through, deaf):
    """The second waits for the first's connection, so that its statement begins late: its deadline comes before the
    server's own limit. Who ended it is in the server's log."""
    mount = mount_through(deaf, pool_size='1', timeout='2s')
    logs = [node.log_file for node in shard.nodes_of('emea')]
    sizes = [log.stat().st_size for log in logs]

    def ended_by_us():
        return any('canceling statement due to user request' in log.read_text()[size:] for log, size in zip(logs, sizes))

    def one_is_late():
        readers = [read_review(mount, region) for region in ('europe', 'africa')]
        assert [reader.wait(PATIENCE) for reader in readers] == [1, 1]
        assert wait_for(lambda: count_waiting(shard) == 0, PATIENCE)
        return wait_for(ended_by_us, 1)
    with locked_reviews(shard):
        assert wait_for(one_is_late, 60), 'a loaded machine may have the second begin too late'
        assert wait_for(lambda: count_cancelled(mount) >= 1, PATIENCE)
    reader = read_review(mount)
    assert reader.wait(PATIENCE) in (0, 1) and errno_of((mount.directory / 'regions/europe/reviews').iterdir) is None


def test_who_is_ended_on_a_server(shard):
    """The session that is meant, not another one that has its process id by now; and none whose transaction has written:
    that might be committed already, and wait for a standby."""
    statement = (Path(__file__).resolve().parent.parent / 'sql/queries/cancel_statements.sql').read_text()
    with contextlib.closing(shard.connect('emea')) as victim:
        cursor = victim.cursor()
        cursor.execute('SELECT pid, (extract(epoch FROM backend_start) * 1000000)::bigint FROM pg_stat_activity '
                       'WHERE pid = pg_backend_pid()')
        (pid, started), = cursor.fetchall()

        def ended(began):
            (count,), = admin(shard, 'emea', f"PREPARE ended AS {statement}; EXECUTE ended ('{{{pid}}}', '{{{began}}}')")
            return count

        def sleeping(first):
            cursor.execute(first)
            thread = threading.Thread(target=sleep, args=(cursor,))
            thread.start()
            assert wait_for(lambda: admin(shard, 'emea', "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND "
                                          "wait_event = 'PgSleep'", (pid,)), PATIENCE)
            return thread

        def sleep(cursor):
            with contextlib.suppress(psycopg2.errors.QueryCanceled):
                cursor.execute('SELECT pg_sleep(600)')
        thread = sleeping('BEGIN')
        try:
            assert ended(started + 1) == 0
            assert ended(started) == 1
            thread.join()
            cursor.execute('ROLLBACK')
            thread = sleeping('BEGIN; SELECT pg_current_xact_id()')
            assert ended(started) == 0
        finally:
            admin(shard, 'emea', 'SELECT pg_cancel_backend(%s)', (pid,))
            thread.join()


# ---- a pooler that takes less than it is given

def without_options(data):
    """A startup packet of protocol 3.0 without its `options`; anything else as it is."""
    if len(data) < 8 or struct.unpack('!II', data[:8]) != (len(data), 3 << 16):
        return data
    rest = re.sub(rb'options\0[^\0]*\0', b'', data[8:])
    return struct.pack('!II', len(rest) + 8, 3 << 16) + rest


def test_a_session_that_has_not_taken_our_settings_is_refused(shard):
    """As by PgBouncer with ignore_startup_parameters = options: its time zone and time limits would be any."""
    node = shard.primary('emea')
    relay = Relay(node.port, edit=without_options)
    config = shard.write_config(shard.directory / 'pooled.conf')
    config.write_text(re.sub(rf'^({node.name} = .*)port=\d+', rf'\1port={relay.port}', config.read_text(), flags=re.MULTILINE))
    try:
        said = node_of(json.loads(shard.run('health', '--json', config=config, check=False).stdout), node.name)
        assert said['state'] == 'refused' and 'settings of the session were not taken' in said['error']
    finally:
        relay.close()


# ---- servers that are far away

@pytest.mark.long
def test_where_answers_come_later_than_they_may_be_old_the_kernel_keeps_nothing(shard, mount_through):
    """No question about changes is answered in time, so that nobody could tell the kernel of one; reads are answered."""
    relays = {node.name: Relay(node.port, late=0.15) for node in shard.nodes_of('emea')}
    try:
        mount = mount_through(relays, cache_ttl='100ms', timeout='60s', connect_timeout='20s', feed='poll')
        path = path_of(mount.directory, new_user(shard))
        assert wait_for(lambda: metrics(mount.directory)['campusfs_feed_up{shard="emea"}'] == 0, PATIENCE)
        told = time.monotonic() + 2  # what was told last, that all has changed, is told no more
        assert wait_for(lambda: time.monotonic() > told, PATIENCE)
        before = os.stat(path)
        admin(shard, 'emea', "UPDATE users SET first_name = 'Grace' WHERE id = %s", (path.stem,))
        assert wait_for(lambda: os.stat(path).st_mtime_ns != before.st_mtime_ns, PATIENCE)
        assert first_name(path) == 'Grace'
    finally:
        for relay in relays.values():
            relay.close()


# ---- a network that swallows everything

@pytest.fixture
def far():
    far = FarNetwork()
    yield far
    far.close()


def timed(call, *arguments):
    """(errno or None, seconds)."""
    start = time.monotonic()
    return errno_of(call, *arguments), time.monotonic() - start


@pytest.mark.skipif(why_no_network() is not None, reason=why_no_network() or '')
@pytest.mark.long
@pytest.mark.parametrize('lost', ['primary', 'shard'])
def test_behind_a_network_that_is_cut(shard, mount_through, far, lost):
    """Nobody outlives his deadline, others do not notice, and when it is mended everything is as before."""
    nodes = [shard.primary('emea')] if lost == 'primary' else shard.nodes_of('emea')
    mount = mount_through({node.name: far.relay(node.port) for node in nodes})
    here, other = (path_of(mount.directory, new_user(shard, region), region) for region in ('europe', 'asia'))
    save(here, 'Grace')
    text = here.read_bytes()
    far.cut()
    try:
        saving = Saving(here, 'Lost', text)
        reading = timed(first_name, here)
        assert timed(save, other, 'Edsger') < (None, DEADLINE + SLACK)
        assert reading[1] < DEADLINE + SLACK and reading[0] == (None if lost == 'primary' else 'EIO')
        assert saving.result(DEADLINE + SLACK) in ('EIO', 'EROFS')
        for node in nodes:
            assert wait_for(lambda node=node: node_of(health_of(mount), node.name)['state'] in ('frozen', 'unreachable'), PATIENCE)
        assert errno_of(here.read_bytes) == reading[0] and errno_of(save, other, 'Barbara') is None
    finally:
        far.mend()
    wait_until_ok(mount)
    assert first_name(here) in ('Grace', 'Lost') and first_name(other) == 'Barbara'
    assert errno_of(save, here, 'Found') is None and first_name(here) == 'Found'
