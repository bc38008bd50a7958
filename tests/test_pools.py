"""The connections to each node: how many there are, who waits for one and how long, what becomes of old ones, and that
none is ever lost. The mounts of this module connect as roles of their own, so that the servers can be asked what they
hold, and told to refuse them, while other tests' mounts go on."""

import concurrent.futures
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import threading
import time
import uuid
from pathlib import Path

import pytest
import mount_tools
import tcp_proxy
from cluster import DATABASE, SHARDS, write_private
from mount_tools import errno_of, errors_of, metrics, wait_for

NODES = ('emea-a', 'emea-b')


class Role:
    """A login role with the rights of the mount's, on every shard, and the mounts that connect as it."""

    def __init__(self, cluster, sql, new_mount):
        self.name = f'pools_{uuid.uuid4().hex[:10]}'
        self.password = uuid.uuid4().hex
        self.cluster, self.sql, self.new_mount = cluster, sql, new_mount
        self.passfile = cluster.directory / f'{self.name}.pgpass'
        self.write_passfile(self.password)
        for shard in SHARDS:
            sql(shard, f"CREATE ROLE {self.name} LOGIN PASSWORD '{self.password}' IN ROLE campusfs_rw")
        for shard in SHARDS:
            self.wait_replayed(shard)

    def wait_replayed(self, shard):
        (lsn,), = self.sql(shard, 'SELECT pg_current_wal_flush_lsn()::text')
        node = self.cluster.replica(shard).name
        assert wait_for(lambda: self.sql(node, 'SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn', (lsn,))[0][0], 30)

    def write_passfile(self, password):
        write_private(self.passfile, f'*:*:*:{self.name}:{password}\n')

    def limit(self, number):
        for shard in SHARDS:
            self.sql(shard, f'ALTER ROLE {self.name} CONNECTION LIMIT {number}')
            self.wait_replayed(shard)

    def mount(self, **settings):
        return self.new_mount(**{'user': self.name, 'passfile': self.passfile, 'mongodb_uri': None, 'cache_ttl': '0',
                                 'cache_size': '0', **settings})

    def connections(self, node):
        """The backends of this role on a node."""
        return [pid for pid, in self.sql(node, 'SELECT pid FROM pg_stat_activity WHERE usename = %s', (self.name,))]

    def terminate(self, node, pids=None):
        for pid in pids or self.connections(node):
            self.sql(node, 'SELECT pg_terminate_backend(%s)', (pid,))

    def connect(self, node):
        """A connection of the test's own as this role."""
        import psycopg2
        node = self.cluster.nodes[node]
        return psycopg2.connect(host=str(node.socket_directory), port=node.port, user=self.name,
                                password=self.password, dbname=DATABASE)


@pytest.fixture
def role(cluster, sql, new_mount):
    made = Role(cluster, sql, new_mount)
    yield made
    for mount in cluster.mounts:
        if made.name in Path(mount.config).read_text():
            mount.stop()
    for shard in SHARDS:
        sql(shard, f'DROP ROLE {made.name}')


def pool(root, name, node, **labels):
    more = ''.join(f',{key}="{value}"' for key, value in labels.items())
    return metrics(root)[f'campusfs_pool_{name}{{node="{node}"{more}}}']


def health_of(root, name):
    return next(node for shard in mount_tools.health_of(root)['shards'] for node in shard['nodes'] if node['name'] == name)


def paths_below(root, mnt, rows):
    return [root / row.path.relative_to(mnt) for row in rows]


def read_all(paths, workers=16, rounds=4):
    """Reads every file again and again from many threads; the errnos of what failed."""
    def read(path):
        return errno_of(path.read_bytes)
    with concurrent.futures.ThreadPoolExecutor(workers) as threads:
        return [code for code in threads.map(read, list(paths) * rounds) if code]


@pytest.fixture(scope='module')
def users(new_user, replayed):
    rows = [new_user() for _ in range(16)]
    replayed('europe')
    return rows


# ---- how many

def test_a_minimum_is_kept_open_and_comes_back(role, mnt):
    root = role.mount(pool_min=3, pool_size=4).directory
    watched = 3 + 1

    def at_rest(node):
        """None is being opened: ended in the midst of that, it would be counted as one that was never open."""
        return pool(root, 'open', node) == 3 and pool(root, 'busy', node) == 0 and len(role.connections(node)) == watched
    for node in NODES:
        assert wait_for(lambda node=node: at_rest(node), 60), role.connections(node)
        assert pool(root, 'max', node) == 4
    before = set(role.connections('emea-b'))
    role.terminate('emea-b')
    assert wait_for(lambda: len(set(role.connections('emea-b')) - before) == watched, 60)
    closed = [pool(root, 'closed_total', 'emea-b', reason=reason) for reason in ('broken', 'failed')]
    assert sum(closed) >= 3, 'the watcher may notice first, and then all of them go'


def test_idle_connections_are_closed_but_for_the_minimum(role, mnt, users):
    root = role.mount(pool_min=1, pool_idle='400ms', pool_size=6).directory
    paths = paths_below(root, mnt, users)
    opened = pool(root, 'opened_total', 'emea-b')
    assert read_all(paths) == []
    assert pool(root, 'opened_total', 'emea-b') > opened, 'readers in parallel need more than one'
    assert wait_for(lambda: pool(root, 'open', 'emea-b') == 1, 30)
    assert pool(root, 'closed_total', 'emea-b', reason='idle') > 0
    assert wait_for(lambda: len(role.connections('emea-b')) == 2, 30), 'with the one that watches'
    closed = pool(root, 'closed_total', 'emea-b', reason='idle')
    assert not wait_for(lambda: pool(root, 'closed_total', 'emea-b', reason='idle') > closed, 1.2), 'and the last one stays'


def test_old_connections_are_replaced_without_a_word(role, mnt, users):
    root = role.mount(pool_min=2, pool_lifetime='600ms').directory
    paths = paths_below(root, mnt, users)
    assert wait_for(lambda: len(role.connections('emea-b')) >= 3, 30)
    before = set(role.connections('emea-b'))
    codes = []

    def replaced():
        codes.extend(read_all(paths, 4, 1))
        return len(before & set(role.connections('emea-b'))) == 1  # the watcher's stays
    assert wait_for(replaced, 30)
    assert codes == []
    assert pool(root, 'closed_total', 'emea-b', reason='lifetime') >= 2
    assert wait_for(lambda: pool(root, 'open', 'emea-b') >= 2, 30)


def test_statements_are_prepared_once_a_connection(role, mnt, users):
    root = role.mount(pool_size=1).directory
    paths = paths_below(root, mnt, users)
    assert read_all(paths, 1, 1) == []
    before, opened = (sum(pool(root, name, node) for node in NODES) for name in ('prepared_total', 'opened_total'))
    takes = pool(root, 'takes_total', 'emea-b')
    assert read_all(paths, 8, 4) == []
    assert pool(root, 'takes_total', 'emea-b') - takes >= 4 * len(paths), 'every read was a question'
    assert sum(pool(root, 'prepared_total', node) for node in NODES) == before
    assert sum(pool(root, 'opened_total', node) for node in NODES) == opened


# ---- who waits

@contextlib.contextmanager
def locked(cluster, rows):
    """Another client holds the rows: who saves one keeps its connection busy."""
    with contextlib.closing(cluster.connect('europe', options='-c search_path=campusfs,pg_catalog')) as holder:
        holder.autocommit = False
        with holder.cursor() as cursor:
            cursor.execute('SELECT FROM users WHERE id = ANY (%s) FOR UPDATE', ([row.id for row in rows],))
            yield
        holder.rollback()


def new_text(path):
    document = json.loads(path.read_bytes())
    document.pop('updated_at')
    return json.dumps({**document, 'last_name': uuid.uuid4().hex}).encode()


def begin_save(path):
    """A descriptor whose close() is the save."""
    text = new_text(path)
    fd = os.open(path, os.O_WRONLY | os.O_TRUNC)
    os.write(fd, text)
    return fd


@pytest.fixture
def busy(cluster, sql, role, mnt, users):
    """busy(**settings): a mount with one connection to the primary, held by a save that waits for a lock.

    Its root; the paths, the first two of them of locked rows; save(n), which begins to save the nth and gives the
    errno's future; the first save's; and what frees the locks."""
    with contextlib.ExitStack() as stack:
        def make(**settings):
            root = role.mount(**{'pool_size': 1, **settings}).directory
            # At its start a mount asks every primary for moves that broke off: that would stand in line as well.
            assert wait_for(lambda: 'campusfs_prepared_transactions{shard="emea"}' in metrics(root), 60)
            paths = paths_below(root, mnt, users)
            begun = [begin_save(path) for path in paths]
            threads = stack.enter_context(concurrent.futures.ThreadPoolExecutor(len(paths)))
            lock = stack.enter_context(contextlib.ExitStack())
            lock.enter_context(locked(cluster, users[:2]))
            unsaved = set(range(len(paths)))

            def save(n):
                unsaved.remove(n)
                return threads.submit(errno_of, os.close, begun[n])
            stack.callback(lambda: [errno_of(os.close, begun[n]) for n in unsaved])
            stack.callback(lock.close)
            first = save(0)
            waiting = "SELECT pid FROM pg_stat_activity WHERE usename = %s AND wait_event_type = 'Lock'"
            assert wait_for(lambda: len(sql('emea-a', waiting, (role.name,))) == 1, 30)
            assert pool(root, 'busy', 'emea-a') == 1
            return root, paths, save, first, lock.close
        yield make


def test_the_line_is_served_in_its_order(busy):
    root, paths, save, first, unlock = busy(timeout='60s')
    order = random.sample(range(2, len(paths)), 8)
    waits = pool(root, 'waits_total', 'emea-a')
    saves = []
    for place, n in enumerate(order, 1):
        saves.append(save(n))
        assert wait_for(lambda place=place: pool(root, 'waiting', 'emea-a') == place, 30)
    unlock()
    assert [save.result(30) for save in (first, *saves)] == [None] * 9
    times = {n: json.loads(paths[n].read_bytes())['updated_at'] for n in order}
    assert sorted(order, key=times.get) == order
    assert pool(root, 'waits_total', 'emea-a') - waits >= 8 and pool(root, 'waiting', 'emea-a') == 0
    assert pool(root, 'wait_seconds_total', 'emea-a') > 0


def test_who_waits_too_long_is_told_so(busy, cluster):
    """The holder's time is a minute; those who come after a reload have half a second."""
    root, paths, save, first, unlock = busy(timeout='60s')
    config = next(mount.config for mount in cluster.mounts if mount.directory == root)
    config.write_text(config.read_text().replace('timeout = 60s', 'timeout = 500ms'))
    cluster.run('reload', root)
    assert save(2).result(30) == 'EIO'
    assert pool(root, 'wait_timeouts_total', 'emea-a') == 1
    assert 'node emea-a: none of its 1 connections came free in time' in errors_of(root)[-1]['message']
    assert pool(root, 'busy', 'emea-a') == 1 and pool(root, 'waiting', 'emea-a') == 0
    unlock()
    assert first.result(30) is None
    assert errno_of(os.close, begin_save(paths[2])) is None


def test_who_finds_the_line_full_is_told_at_once(busy):
    root, _, save, first, unlock = busy(timeout='60s', pool_waiters=1)
    second = save(2)
    assert wait_for(lambda: pool(root, 'waiting', 'emea-a') == 1, 30)
    assert save(3).result(30) == 'EIO'
    assert pool(root, 'waits_refused_total', 'emea-a') == 1
    assert 'all 1 connections are busy and 1 operations wait already' in errors_of(root)[-1]['message']
    unlock()
    assert first.result(30) is None and second.result(30) is None


# ---- connections that break, and servers that have none to spare

def test_connections_ended_one_by_one_are_no_readers_business(role, mnt, users):
    root = role.mount().directory
    paths = paths_below(root, mnt, users)
    stop = threading.Event()

    def read_on():
        codes = []
        while not stop.is_set():
            codes += read_all(paths, 4, 1)
        return codes
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        reading = threads.submit(read_on)
        try:
            for _ in range(30):
                node = random.choice(NODES)
                if pids := role.connections(node):
                    role.terminate(node, [random.choice(pids)])
                    assert wait_for(lambda: set(pids) - set(role.connections(node)), 30)
        finally:
            stop.set()
        assert reading.result(30) == []
    assert sum(pool(root, 'closed_total', node, reason='broken') for node in NODES) > 0


def test_a_pool_does_with_the_connections_that_the_server_has(role, mnt, users):
    """Three a node, one of them the watcher's, for pools of eight: the others wait, and nobody hears of it."""
    role.limit(3)
    mount = role.mount(pool_size=8)
    root = mount.directory
    paths = paths_below(root, mnt, users)
    assert read_all(paths, 16, 6) == []
    begun = [begin_save(path) for path in paths]
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        assert set(threads.map(errno_of, [os.close] * len(begun), begun)) == {None}
    assert sum(pool(root, 'open_failed_total', node) for node in NODES) > 0
    assert 'out of use' not in mount.log_file.read_text(), 'a full server is no failure'
    assert health_of(root, 'emea-a')['error'] is None or 'too many connections' in health_of(root, 'emea-a')['error']
    role.limit(-1)
    assert wait_for(lambda: read_all(paths, 16, 30) == [] and
                    sum(pool(root, 'open', node) for node in NODES) > 4, 60), 'it grows again'


@pytest.mark.long
def test_a_watcher_that_finds_no_room_leaves_what_the_pool_has_in_use(role, mnt, users):
    mount = role.mount(pool_min=2, pool_size=2)
    root, node = mount.directory, role.cluster.nodes['emea-b']
    watching = ("SELECT pid FROM pg_stat_activity WHERE usename = %s AND (query LIKE '-- What a node is%%' OR "
                "query LIKE '%%campusfs.schema_version%%')")
    assert wait_for(lambda: len(role.connections(node.name)) == 3, 60)
    role.limit(2)
    size = node.log_file.stat().st_size
    watcher = wait_for(lambda: [pid for pid, in role.sql(node.name, watching, (role.name,))], 60)
    assert len(watcher) == 1
    role.terminate(node.name, watcher)
    refused = f'too many connections for role "{role.name}"'
    assert wait_for(lambda: node.log_file.read_text()[size:].count(refused) >= 2, 60)
    assert read_all(paths_below(root, mnt, users), 2, 1) == []
    assert 'out of use' not in mount.log_file.read_text()
    assert pool(root, 'open', node.name) == 2
    role.limit(-1)
    assert wait_for(lambda: len(role.connections(node.name)) == 3, 60)


def test_who_waits_for_room_on_the_server_tries_again_whoever_is_first(busy, role):
    """The one connection that there is stays busy: the others in line take turns in asking for another until there is one."""
    root, _, save, first, unlock = busy(pool_size=8, pool_idle='200ms', timeout='60s')
    assert wait_for(lambda: pool(root, 'open', 'emea-a') == pool(root, 'busy', 'emea-a') == 1, 30)
    assert wait_for(lambda: len(role.connections('emea-a')) == 2, 30), 'with the one that watches'
    role.limit(2)
    saves = [save(n) for n in (2, 3, 4)]
    assert wait_for(lambda: pool(root, 'waiting', 'emea-a') == 3, 30)
    failed = pool(root, 'open_failed_total', 'emea-a')
    assert wait_for(lambda: pool(root, 'open_failed_total', 'emea-a') >= failed + 4, 30)
    role.limit(-1)
    assert [one.result(30) for one in saves] == [None] * 3 and not first.done()
    unlock()
    assert first.result(30) is None


class Counting(tcp_proxy.TcpProxy):
    connections = 0

    def serve(self, client):
        self.connections += 1
        super().serve(client)


def test_many_who_read_health_at_once_are_served_by_one_probe(cluster, tmp_path):
    """The servers are asked twice a second at most, however many want to know; all are told the same."""
    node = cluster.replica('emea')
    counting = Counting((node.host, node.port))
    config = cluster.write_config(tmp_path / 'counted.conf', state_dir=None, mongodb_uri=None, pool_size=2)
    config.write_text(re.sub(rf'^{node.name} = .*$', f'{node.name} = shard=emea host={counting.host} port={counting.port}',
                             config.read_text(), flags=re.MULTILINE))
    mount = cluster.mount(tmp_path / 'mnt', config=config)
    try:
        begun, before = time.monotonic(), counting.connections
        with concurrent.futures.ThreadPoolExecutor(20) as threads:
            reports = list(threads.map(lambda _: mount_tools.health_as_it_is(mount.directory), range(20)))
        probes = 2 * (time.monotonic() - begun) + 2
        assert {report['status'] for report in reports} == {'ok'}
        assert len({report['probed_at'] for report in reports}) <= probes
        assert counting.connections - before <= probes + 4, 'a few are the mount\'s own'
    finally:
        cluster.mounts.remove(mount)
        assert mount.stop() == 0
        counting.close()


def test_a_server_without_a_connection_to_spare_is_passed_over_until_it_has(role, mnt, users):
    role.limit(12)
    mount = role.mount(pool_size=4)
    root = mount.directory
    path = paths_below(root, mnt, users)[0]
    with contextlib.ExitStack() as stack:
        taken = []

        def take_all():
            role.terminate('emea-b', [pid for pid in role.connections('emea-b') if pid not in taken])
            with contextlib.suppress(Exception):
                while True:
                    connection = stack.enter_context(contextlib.closing(role.connect('emea-b')))
                    taken.append(connection.info.backend_pid)
            return set(role.connections('emea-b')) == set(taken)
        assert wait_for(take_all, 30)
        assert wait_for(lambda: 'too many connections for role' in (health_of(root, 'emea-b')['error'] or ''), 30)
        for _ in range(5):
            assert errno_of(path.read_bytes) is None
        assert health_of(root, 'emea-a')['error'] is None
        wait_for(lambda: mount.log_file.read_text().count('emea-b') > 20, 1)
        told = [line for line in mount.log_file.read_text().splitlines() if 'emea-b' in line and ' out of use' in line]
        assert 1 <= len(told) <= 3, 'it is told once, not at every try'
    assert wait_for(lambda: health_of(root, 'emea-b')['error'] is None, 30)
    assert errno_of(path.read_bytes) is None


def test_a_password_that_changes_under_a_mount_is_read_anew(role, mnt, users):
    mount = role.mount(pool_min=2)
    root = mount.directory
    path = paths_below(root, mnt, users)[0]
    assert wait_for(lambda: len(role.connections('emea-b')) == 3, 30)
    other = uuid.uuid4().hex
    for shard in SHARDS:
        role.sql(shard, f"ALTER ROLE {role.name} PASSWORD '{other}'")
        role.wait_replayed(shard)
    assert errno_of(path.read_bytes) is None, 'the connections that there are go on'
    for node in NODES:
        role.terminate(node)
    for node in NODES:
        assert wait_for(lambda node=node: 'password authentication failed' in (health_of(root, node)['error'] or ''), 30)
        assert wait_for(lambda node=node: health_of(root, node)['state'] == 'refused', 30)
    assert errno_of(path.read_bytes) in ('EIO', 'EACCES')
    role.write_passfile(other)
    for node in NODES:
        assert wait_for(lambda node=node: health_of(root, node)['error'] is None, 30)
    assert errno_of(path.read_bytes) is None
    assert errno_of(os.close, begin_save(path)) is None
    assert role.password not in mount.log_file.read_text() and other not in mount.log_file.read_text()


# ---- nothing is lost

def held(pid):
    """Descriptors and threads of a process."""
    return len(os.listdir(f'/proc/{pid}/fd')), len(os.listdir(f'/proc/{pid}/task'))


def storm(paths, count=64):
    """So many readers at once, every third interrupted in the middle of it."""
    readers = [subprocess.Popen(['cat', *map(str, random.sample(paths, len(paths)) * 3)], stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL) for _ in range(count)]
    for reader in readers[::3]:
        reader.send_signal(random.choice((signal.SIGINT, signal.SIGKILL)))
    return [reader.wait(60) for reader in readers]


def test_a_storm_of_readers_leaves_nothing_behind(role, mnt, users):
    mount = role.mount(pool_idle='500ms', pool_size=4, pool_waiters=200, timeout='30s')
    paths = paths_below(mount.directory, mnt, users)

    def rest():
        """What it holds when nobody has asked for a while: the connections of the minimum, and the watchers'."""
        assert wait_for(lambda: all(pool(mount.directory, 'open', node) == 1 and len(role.connections(node)) == 2
                                    for node in NODES), 60)
        return held(mount.process.pid)
    storm(paths)
    files, threads = rest()
    for _ in range(2):
        codes = storm(paths)
        assert codes.count(0) >= 40, codes
    rest()

    def no_more():
        now[:] = held(mount.process.pid)
        return now[0] <= files and now[1] <= threads + 2
    now = []
    assert wait_for(no_more, 60), f'descriptors and threads: {(files, threads)}, then {now}'
    for node in NODES:
        assert pool(mount.directory, 'busy', node) == pool(mount.directory, 'waiting', node) == 0
