"""Changes as a stream from each primary: what it spares, what becomes of it when servers, connections and messages are
not as they should be, and that a mount without it is right nevertheless."""

import contextlib
import json
import os
import re
import signal
import threading
import time
import uuid

import pytest

from conftest import fragile_cluster, region_number
from mount_tools import errno_of, feed_of, feed_states, folder_of, metrics, run, wait_for
from relay import Withholding
from replication_proxy import ReplicationProxy

SEEN = 15.0   # seconds: a change made elsewhere is seen by then, on a busy machine
SETTLED = 60  # until a feed has become what it can be

# What only those connections ask that watch a node, and new ones: what it is, and whose schema it has.
WATCHING = ['%pg_is_in_recovery%', '-- What a node is%', '-- Which session%', '%campusfs.schema_version%']


@pytest.fixture(scope='module')
def own(run_directory, campusfs):
    """Servers of this module's own; the feed's transactions wait for nobody else's."""
    with fragile_cluster(run_directory / 'stream', campusfs, seed=True) as cluster:
        yield cluster


@pytest.fixture
def mount_own(own):
    """mount_own(**settings): a mount of this module's servers, its daemon's end is looked at."""
    made = []

    def make(**settings):
        name = f'mnt-{uuid.uuid4().hex[:6]}'
        mount = own.mount(own.directory / name, config=own.write_config(own.directory / f'{name}.conf', **settings))
        made.append(mount)
        return mount
    yield make
    own.thaw()
    for mount in made:
        own.mounts.remove(mount)
        alive = mount.pid() is not None
        code = mount.stop()
        mount.clean_up()
        assert code == 0 or not alive, f'the daemon ended with exit code {code}'


@pytest.fixture
def execute(own):
    """execute(where, text, params): one statement on a primary, on a connection of its own; its rows."""
    def call(where, text, params=None):
        with contextlib.closing(own.connect(where, options='-c search_path=campusfs,pg_catalog')) as connection:
            with connection.cursor() as cursor:
                cursor.execute(text, params)
                return cursor.fetchall() if cursor.description else []
    return call


@pytest.fixture
def streaming(mount_own):
    """The root of a mount all of whose shards stream."""
    root = mount_own().directory
    assert wait_for(lambda: feed_states(root) == {'streaming'}, SETTLED)
    return root


def is_streaming(root, shard):
    return metrics(root)[f'campusfs_feed_streaming{{shard="{shard}"}}'] == 1


def losses(root, shard='emea'):
    return metrics(root)[f'campusfs_feed_losses_total{{shard="{shard}"}}']


def count_reads(root, shard='emea'):
    return sum(metrics(root)[f'campusfs_reads_total{{shard="{shard}",role="{role}"}}'] for role in ('replica', 'primary'))


def a_user(root, region='europe'):
    folder = folder_of(root, 'users', region)
    return folder / sorted(os.listdir(folder))[0]


def change(execute, path, where='europe'):
    """Gives a row another value by SQL; a condition that it is seen, by content, size and time."""
    before, name = os.stat(path), uuid.uuid4().hex * 2
    path.read_bytes()
    execute(where, 'UPDATE users SET first_name = %s WHERE id = %s', (name, path.stem))
    return lambda: (os.stat(path).st_mtime_ns != before.st_mtime_ns and name.encode() in path.read_bytes()
                    and os.stat(path).st_size == len(path.read_bytes()))


def walsenders(execute, where='europe'):
    return [pid for pid, in execute(where, "SELECT pid FROM pg_stat_replication WHERE application_name = "
                                           "'campusfs_feed'")]


def the_walsender(execute):
    """Of the only mount that streams: those of mounts that have ended end a little later."""
    assert wait_for(lambda: len(walsenders(execute)) == 1, SETTLED), walsenders(execute)
    return walsenders(execute)[0]


def slots(execute, where='europe'):
    return [name for name, in execute(where, "SELECT slot_name FROM pg_replication_slots WHERE slot_type = "
                                             "'logical'")]


# ---- what it spares

def statements(own, execute):
    """The last statement of each connection of a mount, and when it began; those that watch left out."""
    return {(node.name, *row) for node in own.nodes.values() for row in execute(
        node, "SELECT pid, query_start, left(query, 200) FROM pg_stat_activity WHERE application_name = 'campusfs' "
              "AND query NOT LIKE ALL (%s)", (WATCHING,))}


def test_an_unchanged_tree_needs_no_query(own, execute, streaming):
    """ls -l, stat and cat of all, again and again: no connection runs any statement."""
    folder = folder_of(streaming, 'users', 'europe')

    def look():
        assert run('ls', '-l', folder).returncode == 0
        for name in os.listdir(folder):
            os.stat(folder / name)
            (folder / name).read_bytes()

    def looked_unasked():
        before = statements(own, execute)
        for _ in range(3):
            look()
        asked[:] = statements(own, execute) - before
        return not asked
    asked = []
    look()
    assert wait_for(looked_unasked, 30), f'a busy machine may make a stream late, not all the time: {asked}'


def test_what_we_saved_is_not_read_again(own, execute, streaming):
    """The event of a save of our own names what is known already."""
    path = a_user(streaming)
    document = json.loads(path.read_bytes())

    def saved_unasked():
        document['first_name'] = uuid.uuid4().hex
        document['updated_at'] = json.loads(path.read_bytes())['updated_at']
        events = metrics(streaming)['campusfs_feed_transactions_total{shard="emea"}']
        path.write_text(json.dumps(document))
        assert wait_for(lambda: metrics(streaming)['campusfs_feed_transactions_total{shard="emea"}'] > events, 30)
        before = statements(own, execute)
        assert document['first_name'] in path.read_text()
        return not statements(own, execute) - before
    assert wait_for(saved_unasked, 30)


def test_a_shard_that_nobody_uses_is_asked_less_often(own, execute, mount_own):
    """Every two seconds instead of twice a second; who reads has all its nodes asked at once."""
    name = f'calm-{uuid.uuid4().hex[:8]}'
    root = mount_own(service_options=f'application_name={name}').directory
    path = a_user(root)
    assert wait_for(lambda: is_streaming(root, 'emea'), SETTLED)
    primary = own.primary('emea')  # the replica answers what is read

    def question_after(last):
        """When, by the server's clock, the mount has asked next."""
        def asked():
            (at,), = execute(primary, 'SELECT extract(epoch FROM max(state_change))::float8 FROM pg_stat_activity '
                                      'WHERE application_name = %s', (name,))
            return at if at > last else None
        return wait_for(asked, SETTLED, 0.05)

    def calm():
        """When it has asked, a while after the time before."""
        last, gap, end = question_after(0), 0, time.monotonic() + SETTLED
        while gap < 1.2 and time.monotonic() < end:
            now = question_after(last)
            last, gap = now, now - last
        assert gap >= 1.2
        return last

    def is_asked_at_once():
        last = calm()
        assert wait_for(change(execute, path), SEEN)
        return question_after(last) - last < 1.2
    assert wait_for(is_asked_at_once, SETTLED)


def test_a_listing_shows_what_was_committed_before_it(execute, streaming):
    """At once, though nobody is asked: not a second later."""
    folder = folder_of(streaming, 'users', 'europe')
    for n in range(20):
        assert os.listdir(folder)
        name = uuid.uuid4().hex
        (row_id,), = execute('europe', "INSERT INTO users (region, id, email, username, first_name, last_name) VALUES "
                             "(%s, next_id(1::smallint), %s, %s, 'A', 'B') RETURNING id",
                             (region_number('europe'), f'{name}@example.org', name))
        assert f'{row_id}.json' in os.listdir(folder)
        if n % 2:
            execute('europe', 'DELETE FROM users WHERE id = %s', (row_id,))
            assert f'{row_id}.json' not in os.listdir(folder)


def test_a_refill_comes_from_a_node_that_has_the_change(own, execute, streaming):
    """An event is faster than a replica: one that stands still is not read."""
    path = a_user(streaming)
    replica = own.replica('europe')
    execute(replica, 'SELECT pg_wal_replay_pause()')
    try:
        for _ in range(3):
            assert wait_for(change(execute, path), SEEN)
    finally:
        execute(replica, 'SELECT pg_wal_replay_resume()')


def test_a_name_that_is_gone_can_be_created_at_once(execute, streaming):
    """The kernel asks again before it makes a name, whatever it believes: no name has to be told as gone."""
    folder = folder_of(streaming, 'users', 'europe')
    name = uuid.uuid4().hex
    (row_id, body), = execute(
        'europe', "SELECT id, body FROM put_users(%s::smallint, NULL, %s::jsonb, NULL, NULL, false, %s::uuid, 'test')",
        (region_number('europe'), json.dumps({'email': f'{name}@example.org', 'username': name, 'first_name': 'A'}),
         str(uuid.uuid4())))
    path = folder / f'{row_id}.json'
    assert wait_for(lambda: errno_of(os.stat, path) is None, SEEN)
    assert errno_of(os.open, path, os.O_CREAT | os.O_EXCL | os.O_WRONLY) == 'EEXIST'
    execute('europe', "SELECT delete_users(%s::smallint, %s, gen_random_uuid(), 'test')",
            (region_number('europe'), row_id))
    assert wait_for(lambda: errno_of(os.stat, path) == 'ENOENT', SEEN)
    with open(path, 'x') as file:
        file.write(body)
    assert json.loads(path.read_bytes())['username'] == name


# ---- servers and connections that go

def test_a_dead_mount_holds_no_wal(execute, mount_own):
    mount = mount_own()
    assert wait_for(lambda: feed_states(mount.directory) == {'streaming'}, SETTLED)
    before = set(slots(execute))
    assert before
    mount.kill()
    assert wait_for(lambda: not before & set(slots(execute)), 30)


def test_a_stream_that_was_ended_comes_back(execute, streaming):
    """Whatever was changed while there was none is seen, and so is what comes after. Of what was known nothing is kept."""
    path = a_user(streaming)
    other = a_user(streaming, 'africa')
    for _ in range(2):
        other.read_bytes()
        before = losses(streaming)
        execute('europe', 'SELECT pg_terminate_backend(%s)', (the_walsender(execute),))
        assert wait_for(change(execute, path), SEEN)
        assert wait_for(lambda: losses(streaming) > before and is_streaming(streaming, 'emea'), SETTLED)
        known = count_reads(streaming)
        other.read_bytes()
        assert count_reads(streaming) > known, 'though nothing has changed'
        assert wait_for(change(execute, path), SEEN)


@pytest.mark.long
def test_a_stream_that_may_not_come_back_is_followed_by_questions(execute, streaming):
    """The kernel keeps for minutes what it was told while there was one, and nobody asks: it is told that this is over."""
    path = a_user(streaming)
    before = os.stat(path).st_mtime_ns
    execute('europe', 'ALTER ROLE campusfs_repl NOREPLICATION')
    try:
        execute('europe', 'SELECT pg_terminate_backend(%s)', (the_walsender(execute),))
        assert wait_for(lambda: 'replication' in (feed_of(streaming, 'emea')['reason'] or ''), SETTLED)
        execute('europe', 'UPDATE users SET first_name = %s WHERE id = %s', (uuid.uuid4().hex, path.stem))
        assert wait_for(lambda: os.stat(path).st_mtime_ns != before, SEEN)
    finally:
        execute('europe', 'ALTER ROLE campusfs_repl REPLICATION')


def test_a_silent_stream_is_not_believed(own, execute, streaming):
    """The sender alone is frozen: the shard is asked meanwhile, and the stream counts again when it has caught up."""
    path = a_user(streaming)
    before = losses(streaming)
    ours = the_walsender(execute)
    os.kill(ours, signal.SIGSTOP)
    try:
        assert wait_for(lambda: feed_of(streaming, 'emea')['state'] == 'polling', 30)
        assert losses(streaming) == before, 'long before it is given up'
        for _ in range(3):
            assert wait_for(change(execute, path), SEEN)
    finally:
        os.kill(ours, signal.SIGCONT)
    assert wait_for(lambda: is_streaming(streaming, 'emea'), SETTLED)
    assert wait_for(change(execute, path), SEEN)
    assert losses(streaming) - before <= 1


@pytest.mark.long
def test_a_stream_that_stays_silent_is_given_up(execute, streaming):
    """For another one, by another sender."""
    ours, before = the_walsender(execute), losses(streaming)
    os.kill(ours, signal.SIGSTOP)
    try:
        assert wait_for(lambda: losses(streaming) > before and is_streaming(streaming, 'emea'), SETTLED)
        assert wait_for(change(execute, a_user(streaming)), SEEN)
    finally:
        os.kill(ours, signal.SIGCONT)


@contextlib.contextmanager
def synchronous(own, execute):
    """Commits on europe's primary wait for its standby, which is yielded."""
    standby = own.replica('europe')
    execute('europe', f'ALTER SYSTEM SET synchronous_standby_names = \'"{standby.name}"\'')
    execute('europe', 'SELECT pg_reload_conf()')
    try:
        assert wait_for(lambda: execute('europe', "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"), SETTLED)
        yield standby
    finally:
        own.thaw()
        execute('europe', 'ALTER SYSTEM RESET synchronous_standby_names')
        execute('europe', 'SELECT pg_reload_conf()')


@contextlib.contextmanager
def unconfirmed(own, execute, standby, path):
    """A row's new first name, committed by somebody who waits for the standby, which stands still until the end."""
    name = uuid.uuid4().hex
    update = ('europe', 'UPDATE users SET first_name = %s WHERE id = %s', (name, path.stem))
    standby.freeze()
    committing = threading.Thread(target=execute, args=update)
    committing.start()
    try:
        assert wait_for(lambda: execute('europe', "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"), SETTLED)
        yield name.encode()
    finally:
        own.thaw()
        committing.join()


def test_a_commit_is_told_when_it_can_be_seen(own, execute, streaming):
    """One that waits for a synchronous standby is streamed before that; who is told reads the row as it was."""
    path = a_user(streaming)
    with synchronous(own, execute) as standby:
        with unconfirmed(own, execute, standby, path) as name:
            assert not wait_for(lambda: os.stat(path) and name in path.read_bytes(), 1)
        assert wait_for(lambda: name in path.read_bytes(), SEEN)
        assert wait_for(lambda: is_streaming(streaming, 'emea'), SETTLED)


@pytest.mark.long
def test_what_becomes_visible_behind_the_streams_begin_is_asked_for(own, execute, mount_own):
    """A commit that waits for its standby while a slot is made: written before the stream begins, visible after it.

    Making a slot is held up twice, by transactions that it waits for."""
    with contextlib.ExitStack() as stack:
        def begin():
            connection = stack.enter_context(contextlib.closing(own.connect('europe')))
            connection.autocommit = False
            cursor = connection.cursor()
            cursor.execute('SELECT pg_current_xact_id()::text')
            return connection, cursor.fetchone()[0]

        def is_waited_for(xid):
            return execute('europe', "SELECT 1 FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND "
                                     "backend_type = 'walsender' AND transactionid::text = %s", (xid,))
        first, first_xid = begin()
        root = mount_own().directory
        path = a_user(root)
        assert wait_for(lambda: is_waited_for(first_xid), SETTLED)
        second, second_xid = begin()
        first.rollback()
        assert wait_for(lambda: is_waited_for(second_xid), SETTLED)
        standby = stack.enter_context(synchronous(own, execute))
        with unconfirmed(own, execute, standby, path) as name:
            second.rollback()
            assert wait_for(lambda: 'under way' in (feed_of(root, 'emea')['reason'] or 'under way'), SETTLED)
            assert name not in path.read_bytes()
        assert wait_for(lambda: name in path.read_bytes(), SEEN)
        assert wait_for(lambda: is_streaming(root, 'emea'), SETTLED)


def test_other_shards_do_not_notice(own, execute, streaming):
    """One whose servers are frozen: the others' changes are seen as ever."""
    path = a_user(streaming)
    for node in own.nodes_of('asia'):
        node.freeze()
    try:
        assert wait_for(lambda: metrics(streaming)['campusfs_feed_up{shard="apac"}'] == 0, 30)
        for _ in range(3):
            assert wait_for(change(execute, path), SEEN)
            assert is_streaming(streaming, 'emea')
    finally:
        own.thaw()
    assert wait_for(lambda: is_streaming(streaming, 'apac'), SETTLED)


@pytest.mark.long
def test_other_shards_that_are_asked_do_not_notice(own, mount_own):
    """None waits for the answer of one that does not come to it: what is known of it is never older than it may be."""
    mount, primary = mount_own(feed='poll'), own.primary('asia')
    root, relay = mount.directory, Withholding(primary.port, b'changes\0')
    try:
        assert wait_for(lambda: feed_states(root) == {'polling'}, SETTLED)
        mount.config.write_text(re.sub(rf'(?m)^({primary.name} = .*port=){primary.port}$', rf'\g<1>{relay.port}', mount.config.read_text()))
        own.run('reload', root)
        assert wait_for(lambda: metrics(root)['campusfs_feed_up{shard="apac"}'] == 0, SETTLED)
        assert wait_for(lambda: not wait_for(lambda: metrics(root)['campusfs_feed_up{shard="emea"}'] == 0, 10), SETTLED)
    finally:
        relay.close()


def test_servers_that_cannot_stream_are_asked(own, execute, mount_own):
    """wal_level = replica, seen by a mount that runs while its primary is restarted; and back again."""
    root = mount_own().directory
    assert wait_for(lambda: feed_states(root) == {'streaming'}, SETTLED)
    path, primary = a_user(root, 'asia'), own.primary('asia')
    execute('asia', "ALTER SYSTEM SET wal_level = 'replica'")
    try:
        primary.stop()
        primary.start()
        assert wait_for(lambda: 'wal_level' in (feed_of(root, 'apac')['reason'] or ''), SETTLED)
        assert wait_for(lambda: feed_of(root, 'apac')['state'] == 'polling', SETTLED)
        for _ in range(3):
            assert wait_for(change(execute, path, 'asia'), SEEN)
        assert is_streaming(root, 'emea')
    finally:
        execute('asia', 'ALTER SYSTEM RESET wal_level')
        primary.stop()
        primary.start()


def fill_slots(execute):
    assert wait_for(lambda: not slots(execute), SETTLED), 'those of mounts that have ended go a little later'
    (limit,), = execute('europe', "SELECT current_setting('max_replication_slots')::int - count(*) "
                                  "FROM pg_replication_slots")
    for n in range(limit):
        execute('europe', 'SELECT pg_create_physical_replication_slot(%s)', (f'filler_{n}',))


@pytest.fixture
def obstacle(request, execute):
    """What keeps a new mount from streaming europe: settings of the mount, and what it says of it."""
    if request.param == 'role':
        yield {'replication_user': 'campusfs_rw'}, 'replication role'
    elif request.param == 'password':
        yield {'replication_user': 'campusfs_ro', 'passfile': None, 'replication_password': 'wrong'}, 'password'
    elif request.param == 'slots':
        fill_slots(execute)
        yield {}, 'replication slots'
        execute('europe', "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
                          "WHERE slot_name LIKE 'filler%'")
    else:
        execute('europe', "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)'")
        execute('europe', 'SELECT pg_reload_conf()')
        yield {}, 'synchronous_standby_names'
        execute('europe', 'ALTER SYSTEM RESET synchronous_standby_names')
        execute('europe', 'SELECT pg_reload_conf()')


@pytest.mark.parametrize('obstacle', ['role', 'password', 'slots', 'standby names'], indirect=True)
def test_a_mount_that_may_not_stream_asks(own, execute, mount_own, obstacle):
    settings, reason = obstacle
    if 'passfile' in settings:
        settings = {**settings, 'passfile': None, 'password': own.password('rw')}
    root = mount_own(**settings).directory
    assert wait_for(lambda: reason in (feed_of(root, 'emea')['reason'] or ''), SETTLED), feed_of(root, 'emea')
    assert wait_for(lambda: feed_of(root, 'emea')['state'] == 'polling', SETTLED)
    path = a_user(root)
    for _ in range(2):
        assert wait_for(change(execute, path), SEEN)


def test_an_upgrade_shows_all_documents_as_they_look_now(own, execute, mount_own):
    """No row changes when `campusfs init` brings another view: what has been read under the old one is forgotten."""
    (now,), = execute('europe', "SELECT pg_get_viewdef('doc_users'::regclass)")
    former = now.replace('u.first_name,', "'Former ' || u.first_name AS first_name,", 1)
    assert former != now
    execute('europe', f"CREATE OR REPLACE VIEW doc_users AS {former} UPDATE schema_version SET code_hash = 'a former one'")
    roots = [mount_own(feed=feed).directory for feed in ('auto', 'poll')]
    for root, state in zip(roots, ('streaming', 'polling')):
        assert wait_for(lambda root=root, state=state: feed_states(root) == {state}, SETTLED)
    before = {path: (os.stat(path).st_size, path.read_bytes()) for path in map(a_user, roots)}
    assert all(b'Former ' in text for _, text in before.values())
    assert 'functions and views brought up to date' in own.run('init').stdout

    def shown(path):
        text = path.read_bytes()
        return b'Former ' not in text and os.stat(path).st_size == len(text) == before[path][0] - len('Former ')
    for path in before:
        assert wait_for(lambda path=path: shown(path), SEEN), path.read_bytes()


def test_a_forgotten_transaction_keeps_no_mount_waiting(own, execute, mount_own):
    """A slot is made when all that is open has ended; until then the shard is asked."""
    with contextlib.closing(own.connect('europe')) as connection:
        connection.cursor().execute("BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'forgotten'")
    try:
        root = mount_own().directory
        assert wait_for(lambda: 'prepared' in (feed_of(root, 'emea')['reason'] or ''), SETTLED)
        assert wait_for(lambda: feed_of(root, 'emea')['state'] == 'polling', SETTLED)
        path = a_user(root)
        assert wait_for(change(execute, path), SEEN)
    finally:
        execute('europe', "ROLLBACK PREPARED 'forgotten'")
    assert wait_for(lambda: feed_of(root, 'emea')['state'] == 'streaming', SETTLED)
    assert wait_for(change(execute, path), SEEN)


def test_an_idle_stream_is_kept(execute, mount_own):
    """The server's time limit for senders is met by answering it, however seldom the mount asks for signs of life."""
    streaming = mount_own(cache_ttl='1min').directory
    assert wait_for(lambda: feed_states(streaming) == {'streaming'}, SETTLED)
    execute('europe', "ALTER SYSTEM SET wal_sender_timeout = '1s'")
    try:
        execute('europe', 'SELECT pg_reload_conf()')
        before = losses(streaming)
        assert not wait_for(lambda: losses(streaming) > before, 3)
        assert is_streaming(streaming, 'emea')
    finally:
        execute('europe', 'ALTER SYSTEM RESET wal_sender_timeout')
        execute('europe', 'SELECT pg_reload_conf()')


# ---- much at once

@pytest.mark.parametrize('feed', ['auto', pytest.param('poll', marks=pytest.mark.long)])
def test_a_transaction_of_very_many_changes(execute, mount_own, feed):
    """More than anybody would list one by one: all is looked at anew, the last of them too, and the stream goes on."""
    root = mount_own(feed=feed).directory
    state = 'streaming' if feed == 'auto' else 'polling'
    assert wait_for(lambda: feed_states(root) == {state}, SETTLED)
    path = a_user(root)
    before, name = os.stat(path), uuid.uuid4().hex
    assert name.encode() not in path.read_bytes()
    execute('europe', "INSERT INTO change_log (collection, region, row_id, operation, rev, actor) SELECT 1, %s, n, "
            "'update', nextval('rev_seq'), 'test' FROM generate_series(1, 200000) n; "
            'UPDATE users SET first_name = %s WHERE id = %s', (region_number('europe'), name, path.stem))
    assert wait_for(lambda: os.stat(path).st_mtime_ns != before.st_mtime_ns and name.encode() in path.read_bytes(), 60)
    assert wait_for(lambda: feed_of(root, 'emea')['state'] == state, SETTLED)
    assert wait_for(change(execute, path), SEEN)


def test_a_truncated_table_is_told(execute, streaming):
    folder = folder_of(streaming, 'reviews', 'europe')
    names = os.listdir(folder)
    assert names and os.stat(folder / names[0])
    execute('europe', 'TRUNCATE course_reviews')
    assert wait_for(lambda: os.listdir(folder) == [], SEEN)
    assert wait_for(lambda: all(errno_of(os.stat, folder / name) == 'ENOENT' for name in names), SEEN)


# ---- messages that are not as they should be

@pytest.fixture
def proxied(own, mount_own):
    """A mount whose way to europe's primary is a proxy: (proxy, root)."""
    primary = own.primary('europe')
    proxy = ReplicationProxy(primary.port)
    mount = None
    try:
        name = f'proxied-{uuid.uuid4().hex[:6]}'
        config = own.write_config(own.directory / f'{name}.conf')
        config.write_text(re.sub(rf"(?m)^({primary.name} = .*port=){primary.port}$", rf'\g<1>{proxy.port}',
                                 config.read_text()))
        assert str(proxy.port) in config.read_text()
        mount = own.mount(own.directory / f'mnt-{name}', config=config)
        assert wait_for(lambda: feed_states(mount.directory) == {'streaming'}, SETTLED)
        yield proxy, mount.directory
    finally:
        if mount:
            own.mounts.remove(mount)
            code = mount.stop()
            mount.clean_up()
        proxy.close()
    assert code == 0


def is_insert(message):
    return message[:1] == b'w' and message[25:26] == b'I'


MANGLED = {
    'cut': lambda message: b'' if is_insert(message) else message,
    'unknown kind': lambda message: message[:25] + b'?' + message[26:] if is_insert(message) else message,
    'unknown envelope': lambda message: b'x' + message[1:] if is_insert(message) else message,
    'shorter than it says': lambda message: message[:-3] if is_insert(message) else message,
    'a number that is none': lambda message: message.replace(b't\0\0\0\x01' b'1', b't\0\0\0\x01' b'x'),
    'begun twice': lambda message: [message, message] if message[:1] == b'w' and message[25:26] == b'B' else message,
}


@pytest.mark.parametrize('how', MANGLED)
def test_a_stream_that_makes_no_sense_is_given_up(execute, proxied, how):
    """Nothing stale is shown, and there is another stream where that may help."""
    proxy, root = proxied
    path = a_user(root)
    before = losses(root)
    proxy.mangle = MANGLED[how]
    assert wait_for(change(execute, path), SEEN)
    assert proxy.mangled.is_set()
    assert wait_for(lambda: losses(root) > before, 30)
    assert wait_for(change(execute, path), SEEN)
    if how == 'cut':
        assert wait_for(lambda: is_streaming(root, 'emea'), SETTLED)
        assert wait_for(change(execute, path), SEEN)


@pytest.mark.long
def test_a_stream_that_falls_behind_is_not_believed(execute, proxied):
    """It shows signs of life, all from the same place, while the primary goes on."""
    proxy, root = proxied
    path = a_user(root)
    assert wait_for(change(execute, path), SEEN)
    withheld, place = [], []

    def behind(message):
        if message[:1] == b'w':
            withheld.append(message)
            return []
        place[:] = place or [message[1:9]]
        return message[:1] + place[0] + message[9:]
    proxy.mangle, proxy.lasting = behind, True
    assert wait_for(lambda: place, SETTLED)
    before = losses(root)
    for _ in range(2):
        assert wait_for(change(execute, path), SEEN)
    assert withheld and losses(root) == before and feed_of(root, 'emea')['state'] == 'polling'
    proxy.mangle = lambda message: [*withheld, message] if withheld else message
    proxy.lasting = False
    assert wait_for(lambda: is_streaming(root, 'emea'), SETTLED)
    assert wait_for(change(execute, path), SEEN) and losses(root) == before


def test_a_slot_name_that_is_taken_is_not_taken(execute, proxied):
    """Names are drawn; one that somebody else has is drawn once more, at once, and his slot stays his."""
    proxy, root = proxied
    taken = 'campusfs_' + 16 * 'f'
    execute('europe', 'SELECT pg_create_physical_replication_slot(%s)', (taken,))
    asked = []

    def take(data):
        if not asked and data.startswith(b'Q') and b'CREATE_REPLICATION_SLOT' in data:
            asked.append(data)
            data = re.sub(rb'"campusfs_\w{16}"', f'"{taken}"'.encode(), data)
        return data
    try:
        proxy.ask = take
        for pid in walsenders(execute):
            execute('europe', 'SELECT pg_terminate_backend(%s)', (pid,))
        assert wait_for(lambda: asked and is_streaming(root, 'emea'), SETTLED), feed_of(root, 'emea')
        assert execute('europe', 'SELECT active FROM pg_replication_slots WHERE slot_name = %s', (taken,)) == [(False,)]
        assert wait_for(change(execute, a_user(root)), SEEN)
    finally:
        execute('europe', 'SELECT pg_drop_replication_slot(%s)', (taken,))


def test_a_change_that_is_told_twice_is_the_same_change(execute, proxied):
    proxy, root = proxied
    path = a_user(root)
    before = losses(root)
    proxy.mangle = lambda message: [message, message] if is_insert(message) else message
    assert wait_for(change(execute, path), SEEN)
    assert proxy.mangled.is_set()
    assert losses(root) == before and is_streaming(root, 'emea')


# ---- the shard's next primary; last, since it changes who that is

def test_the_new_primary_streams(own, execute, mount_own):
    """Also while the old one goes on as if nothing had happened, and streams."""
    root = mount_own().directory
    assert wait_for(lambda: feed_states(root) == {'streaming'}, SETTLED)
    path = a_user(root)
    old, new = own.primary('europe'), own.replica('europe')
    new.promote()
    assert wait_for(lambda: execute(new, 'SELECT pg_is_in_recovery()') == [(False,)], SETTLED)
    assert wait_for(change(execute, path, new), 30)
    assert wait_for(lambda: is_streaming(root, 'emea') and walsenders(execute, new), SETTLED)
    old.kill()
    for _ in range(3):
        assert wait_for(change(execute, path, new), SEEN)
