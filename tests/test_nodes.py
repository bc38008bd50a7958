"""What each node is to its shard: the states and how they are shown, who is read, how far behind, by which clock, and
servers that do not belong there. On a cluster that is mended before each test."""

import contextlib
import json
import os
import random
import re
import signal
import struct
import subprocess
import time
import uuid

import process
import pytest

from library_notice import without_notice
from mount_tools import errno_of, errors_of, metrics, run, wait_for
from people import Person
from relay import Relay, Withholding
from shards import (PATIENCE, Saving, admin, first_name, first_name_at, health_of, new_user, node_of, path_of, paused,
                    reset_options, save, set_options, shard_of, wait_for_state, wait_until_ok)
from tcp_proxy import TcpProxy


@pytest.fixture(scope='module')
def mount(breakable):
    breakable.start()
    mount = breakable.mount(breakable.directory / 'mnt-nodes')
    yield mount
    breakable.thaw()
    breakable.mounts.remove(mount)
    assert mount.stop() == 0


@pytest.fixture
def shard(breakable, mount):
    """The cluster, every server up, and the mount aware of it."""
    breakable.start()
    wait_until_ok(mount)
    yield breakable
    breakable.thaw()


@pytest.fixture
def extra_mount(breakable):
    """Mounts of a test's own; keys of [campusfs], and `edit` to change the rest of the file's text."""
    made = []

    def make(edit=None, **settings):
        name = f'mnt-{uuid.uuid4().hex[:8]}'
        config = breakable.write_config(breakable.directory / f'{name}.conf', **settings)
        if edit:
            config.write_text(edit(config.read_text()))
        mount = breakable.mount(breakable.directory / name, config=config)
        made.append(mount)
        return mount
    yield make
    breakable.thaw()
    for one in made:
        breakable.mounts.remove(one)
        assert one.stop() == 0


def status(cluster, *arguments, config=None):
    done = cluster.run('status', *arguments, config=config, check=False)
    assert without_notice(done.stderr) == ''
    return done.returncode, done.stdout


def log_since(mount, size):
    return mount.log_file.read_text()[size:]


def size_of_log(mount):
    return mount.log_file.stat().st_size


# ---- how the states are shown

def test_states_of_a_healthy_cluster(shard, mount):
    """health.json, metrics and status, of the mount and without one, say the same."""
    expected = {name: 'replica' if node.is_standby else 'primary' for name, node in shard.nodes.items()}
    report = wait_until_ok(mount)
    assert {node['name']: node['state'] for part in report['shards'] for node in part['nodes']} == expected
    assert [(part['primary'], part['timeline'] >= 1) for part in report['shards']] == [
        (shard.primary(part['name']).name, True) for part in report['shards']]
    samples = metrics(mount.directory)
    for name, node in shard.nodes.items():
        for state in ('primary', 'replica', 'fenced', 'frozen', 'foreign', 'rival', 'lagging'):
            sample = f'campusfs_node_state{{shard="{node.shard}",node="{name}",state="{state}"}}'
            assert samples[sample] == (state == expected[name]), sample
    for where in (['--timeout', '10'], [mount.directory]):
        assert wait_for(lambda where=where: status(shard, *where)[0] == 0, PATIENCE)
        shown = json.loads(status(shard, '--json', *where)[1])
        assert {node['name']: node['state'] for part in shown['shards'] for node in part['nodes']} == expected
        assert all((part['traffic'] is not None) == (where == [mount.directory]) for part in shown['shards'])
        text = status(shard, *where)[1]
        assert re.match(r'(ok|degraded) at \d{4}-', text)
        for name in expected:
            assert re.search(rf'^  {name} +{expected[name]} ', text, re.MULTILINE), text


def test_status_watches_until_it_is_interrupted(shard, mount):
    """Line by line as JSON; the last exit code is the answer."""
    command = [shard.program, '--config', shard.config, 'status', '--watch', '--json', '--interval', '0.1', mount.directory]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=process.clean_environment()) as watching:
        def says(status):
            return wait_for(lambda: json.loads(watching.stdout.readline())['status'] == status, PATIENCE)
        assert says('ok')
        shard.replica('emea').kill()
        assert says('degraded')
        watching.send_signal(signal.SIGINT)
        watching.stdout.read()
        assert watching.wait(PATIENCE) == 1


def test_status_of_what_is_no_mount(shard, tmp_path):
    done = shard.run('status', tmp_path, check=False)
    assert done.returncode == 2 and 'no campusfs answers there' in done.stderr and done.stdout == ''


def test_each_change_is_logged_once(shard, mount):
    replica = shard.replica('emea')
    for broken, breaks in (('unreachable', replica.kill), ('frozen', replica.freeze)):
        size = size_of_log(mount)
        breaks()
        wait_for_state(mount, replica, broken)
        shard.start()

        def lines(words, size=size):
            return re.findall(rf' node {replica.name}: was \w+, {words}', log_since(mount, size))
        assert wait_for(lambda lines=lines: lines('is replica on timeline \\d+, in use again'), PATIENCE)
        wait_until_ok(mount)
        assert len(lines(f'is {broken}, out of use: ')) == len(lines('is replica on')) == 1, log_since(mount, size)


# ---- who is read

def tuples_read(cluster, node, row_ids):
    """How many of these rows' index entries a server has fetched, so far as its statistics say."""
    (count,), = admin(cluster, node, "SELECT coalesce(sum(idx_tup_fetch), 0) FROM pg_stat_user_tables WHERE relname = 'users'")
    return int(count)


def test_reads_are_answered_by_the_replica(shard, extra_mount):
    """The mount counts it, and so do the servers."""
    ids = [new_user(shard) for _ in range(5)]
    primary, replica = shard.primary('emea'), shard.replica('emea')
    reader = extra_mount()

    def read(times):
        """How many reads the replica and the primary answered of so many of each row."""
        def counts():
            samples = metrics(reader.directory)
            return [samples[f'campusfs_reads_total{{shard="emea",role="{role}"}}'] for role in ('replica', 'primary')]
        start = counts()
        for row_id in ids * times:
            assert first_name(path_of(reader.directory, row_id)) == 'Ada'
        return [now - then for now, then in zip(counts(), start)]
    # It has replayed what was written before, and the mount knows that.
    assert wait_for(lambda: read(1)[0] >= len(ids), PATIENCE)
    before = {}

    def replica_answers():
        before.update({node.name: tuples_read(shard, node, ids) for node in (primary, replica)})
        by_replica, by_primary = read(8)
        return by_replica >= 40 and by_primary <= by_replica / 10
    assert wait_for(replica_answers, PATIENCE), 'a loaded machine may make a replica late, not all the time'
    samples = metrics(reader.directory)
    by_replica = samples['campusfs_reads_total{shard="emea",role="replica"}']
    assert samples[f'campusfs_node_reads_total{{shard="emea",node="{replica.name}"}}'] == by_replica
    traffic = shard_of(health_of(reader))['traffic']['reads']
    assert traffic['replica'] >= by_replica and traffic['stale'] == 0
    # A server's statistics are there when its sessions have ended.
    for node in (primary, replica):
        admin(shard, node, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'campusfs_rw'")
    assert wait_for(lambda: tuples_read(shard, replica, ids) - before[replica.name] >= 40, PATIENCE)
    # Nor has the primary answered what the mount does not count; what it has, of the attempts before, may be told late.
    asked = samples['campusfs_reads_total{shard="emea",role="primary"}']
    assert tuples_read(shard, primary, ids) - before[primary.name] <= 2 * asked + 8


@pytest.mark.long
def test_a_read_of_a_frozen_replica_goes_on_elsewhere(shard, extra_mount):
    """Its watcher finds that out, long before the time is over that a read has. Nothing but rows is asked for."""
    replica, ids = shard.replica('emea'), [new_user(shard) for _ in range(20)]
    random.shuffle(ids)
    reader = extra_mount(cache_ttl='1min', feed='poll', timeout='10min')
    paths = [path_of(reader.directory, row_id) for row_id in ids]
    os.stat(paths[0].parent)
    while node_of(health_of(reader), replica.name)['reads'] == 0:
        paths.pop().read_bytes()
    replica.freeze()
    try:
        assert subprocess.Popen(['cat', paths[0]], stdout=subprocess.DEVNULL).wait(PATIENCE) == 0
    finally:
        shard.thaw()


@pytest.mark.long
def test_a_replica_is_waited_for_before_another_node_is_asked(shard, extra_mount):
    """Who has just saved and reads another row asks a replica some times over whether it has come so far; and has it read no row
    before it can have."""
    replica, asked = shard.replica('emea'), []
    relay = Relay(replica.port, edit=lambda data: asked.append(data) or data)
    reader = extra_mount(lambda text: re.sub(rf'^({replica.name} = .*)host=\S+ port=\d+', rf'\1host={relay.host} port={relay.port}',
                                             text, flags=re.MULTILINE), cache_ttl='0', cache_size='0')
    saved, other = (path_of(reader.directory, new_user(shard)) for _ in range(2))

    def waited():
        """That it was asked where it is, first, and for nothing else with that."""
        save(saved, uuid.uuid4().hex)
        asked.clear()
        assert first_name(other) == 'Ada'
        first = next((data for data in asked if b'node_position\0' in data), b'')
        return set(re.findall(rb'\w+_\w+', first)) == {b'node_position'}
    try:
        assert first_name(other) == 'Ada'
        with paused(shard, replica):
            assert wait_for(waited, PATIENCE), 'a loaded machine may read too late for that, not all the time'
    finally:
        relay.close()


@pytest.mark.long
def test_what_others_have_not_committed_is_not_waited_for(shard, extra_mount):
    """The records of an open transaction may stay in the primary's memory: no replica has them, and none needs to."""
    primary, reader = shard.primary('emea'), extra_mount(feed='poll', cache_ttl='0', cache_size='0')
    path = path_of(reader.directory, new_user(shard))

    def reads():
        samples = metrics(reader.directory)
        return [samples[f'campusfs_reads_total{{shard="emea",role="{role}"}}'] for role in ('replica', 'primary')]

    def answered_by_the_replica():
        start = reads()
        for _ in range(5):
            holder.cursor().execute("SELECT pg_logical_emit_message(true, 'test', 'of nobody else')")
            path.read_bytes()
        by_replica, by_primary = (now - then for now, then in zip(reads(), start))
        return by_replica > 2 * by_primary
    set_options(shard, primary, wal_writer_delay='10s')
    try:
        with contextlib.closing(shard.connect('emea')) as holder:
            holder.autocommit = False
            assert wait_for(answered_by_the_replica, PATIENCE)
    finally:
        reset_options(shard, primary, 'wal_writer_delay')


@pytest.mark.long
def test_who_has_moved_is_read_where_the_move_is_known(shard, extra_mount):
    """What came along is not in the mount's memory, nor is it asked what has changed: a replica that stands still is not read."""
    person, root = Person(shard, 'europe'), extra_mount(cache_ttl='1min', feed='poll').directory
    assert isinstance(os.listdir(root / 'regions/asia/payment-methods'), list)
    with paused(shard, shard.replica('apac')):
        person.move(root, 'europe', 'asia')
        assert json.loads((root / f'regions/asia/payment-methods/{person.methods[0]}.json').read_text())['user_id'] == person.id


class TestThreeNodes:
    """A shard with a second replica."""

    @pytest.fixture(scope='class')
    def third(self, breakable):
        breakable.start()
        node = breakable.add_replica('emea', 'c')
        yield node
        breakable.remove_replica(node)

    @staticmethod
    def other_than(third, shard):
        other, = (node for node in shard.nodes_of('emea') if node.is_standby and node is not third)
        return other

    def test_the_preferred_replica_is_read_as_long_as_it_is_there(self, shard, third, extra_mount):
        row_id = new_user(shard)
        reader = extra_mount(lambda text: text.replace('emea-c = shard=emea ', 'emea-c = shard=emea priority=7 '))
        path, other = path_of(reader.directory, row_id), self.other_than(third, shard)

        def reads():
            report = health_of(reader)
            return node_of(report, other.name)['reads'], node_of(report, third.name)['reads']
        for _ in range(10):
            path.read_bytes()
        assert reads()[0] == 0 and reads()[1] >= 10
        third.kill()
        for _ in range(10):
            path.read_bytes()
        assert reads()[0] >= 10
        third.start()
        wait_until_ok(reader)
        before = reads()
        for _ in range(10):
            path.read_bytes()
        assert reads()[0] == before[0] and reads()[1] >= before[1] + 10
        assert 'priority=7' in (reader.directory / '.campusfs/config').read_text()
        # By a reload another is preferred, and then none: they take turns.
        for edit, favoured in ((lambda text: text.replace(' priority=7', '').replace(
                f'{other.name} = shard=emea ', f'{other.name} = shard=emea priority=3 '), [True, False]),
                               (lambda text: text.replace(' priority=3', ''), [True, True])):
            reader.config.write_text(edit(reader.config.read_text()))
            shard.run('reload', reader.directory)
            before = reads()
            for _ in range(12):
                path.read_bytes()
            assert [now > then for now, then in zip(reads(), before)] == favoured

    def test_the_least_loaded_is_read_and_one_with_room_before_one_that_is_preferred(self, shard, third, extra_mount):
        """Reads of some rows do not get to one of the two: they are its load for as long as the test wants."""
        row_id = new_user(shard)
        slow = {region: new_user(shard, region) for region in ('europe', 'africa')}  # names of one folder are looked up in turn
        other, cats = self.other_than(third, shard), []
        # As a parameter of a statement that reads the row, or a page that begins with it
        words = [struct.pack('!I', len(str(n))) + str(n).encode() for number in slow.values() for n in (number, number - 1)]
        relay = Withholding(third.port, *words)
        reader = extra_mount(lambda text: re.sub(rf'^({third.name} = .*)host=\S+ port=\d+', rf'\1host={relay.host} port={relay.port}',
                                                 text, flags=re.MULTILINE), pool_size='2', timeout='10min')
        path = path_of(reader.directory, row_id)

        def burden(region):
            """One more read that stays there; the other may get it first."""
            def stays():
                before = len(relay.withheld)
                cats.append(subprocess.Popen(['cat', path_of(reader.directory, slow[region], region)], stdout=subprocess.DEVNULL))
                return wait_for(lambda: len(relay.withheld) > before or cats[-1].poll() is not None, PATIENCE) and len(relay.withheld) > before
            assert wait_for(stays, PATIENCE)

        def readers():
            """Who answers some reads: (the other, third)."""
            def reads():
                samples = metrics(reader.directory)
                return [samples[f'campusfs_node_reads_total{{shard="emea",node="{node.name}"}}'] for node in (other, third)]
            start = reads()
            for _ in range(10):
                assert run('cat', path).returncode == 0
            return [now > then for now, then in zip(reads(), start)]
        try:
            assert wait_for(lambda: readers() == [True, True], PATIENCE), 'they take turns'
            burden('europe')
            assert wait_for(lambda: readers() == [True, False], PATIENCE), 'a loaded machine may make a replica late, not all the time'
            reader.config.write_text(reader.config.read_text().replace(f'{third.name} = shard=emea ', f'{third.name} = shard=emea priority=7 '))
            shard.run('reload', reader.directory)
            assert wait_for(lambda: readers() == [False, True], PATIENCE), 'the preferred one, whatever its load'
            burden('africa')
            assert wait_for(lambda: readers() == [True, False], PATIENCE), 'but for when it has no room'
        finally:
            relay.through.set()
            codes = [cat.wait(PATIENCE) for cat in cats]
            relay.close()
        assert set(codes) == {0}

    def test_no_read_shows_less_than_the_one_before(self, shard, third, extra_mount):
        """Two replicas, one of which stands still. What is deleted elsewhere is listed, and must not go again; nothing of
        these folders is cached, and no question about changes is asked meanwhile."""
        ids = [new_user(shard) for _ in range(4)]
        reader = extra_mount(cache_ttl='1min', feed='poll')  # a stream would say how far it is
        folder = reader.directory / 'regions/europe/users/.deleted'
        assert {f'{row_id}.json' for row_id in ids}.isdisjoint(os.listdir(folder))
        other = self.other_than(third, shard)
        with paused(shard, other):
            for row_id in ids:
                admin(shard, 'emea', "SELECT delete_users(3::smallint, %s, %s::uuid, 'test')", (row_id, str(uuid.uuid4())))
                name = f'{row_id}.json'
                assert wait_for(lambda name=name: name in os.listdir(folder), PATIENCE)
                for _ in range(6):
                    assert name in os.listdir(folder)
            assert node_of(health_of(reader), third.name)['reads'] > 0


# ---- how far behind, and by which clock

def test_a_replica_that_lags_is_not_read(shard, mount, extra_mount):
    """By bytes and by time, each with its reason in words."""
    primary, replica = shard.primary('emea'), shard.replica('emea')
    by_bytes, by_time = extra_mount(max_lag_bytes='64kB'), extra_mount(max_lag='500ms')
    row_id = new_user(shard)
    with paused(shard, replica):
        admin(shard, primary, "UPDATE users SET first_name = 'Grace' WHERE id = %s", (row_id,))
        wait_for_state(by_time, replica, 'lagging')
        assert wait_for(lambda: 0 < (node_of(health_of(by_bytes), replica.name)['lag_bytes'] or 0) < 65536, PATIENCE)
        assert node_of(health_of(by_bytes), replica.name)['state'] == 'replica', 'little is missing, for long'
        admin(shard, primary, "SELECT pg_logical_emit_message(false, 'test', repeat('x', 200000))")
        report = wait_for_state(by_bytes, replica, 'lagging')
        assert re.search(r'lags \d+ bytes, allowed are 65536', report['error'])
        assert re.search(r'lags \d+ ms, allowed are 500', node_of(health_of(by_time), replica.name)['error'])
        for lagged in (by_bytes, by_time):
            before = node_of(health_of(lagged), replica.name)['reads']
            assert first_name(path_of(lagged.directory, row_id)) == 'Grace'
            assert node_of(health_of(lagged), replica.name)['reads'] == before
        assert node_of(health_of(mount), replica.name)['state'] == 'replica', 'ten seconds are allowed by default'
        for part, state in ((0.9, 'lagging'), (0.5, 'replica')):  # it is read again well within the bound only
            allowed = int(node_of(health_of(by_bytes), replica.name)['lag_bytes'] / part)
            by_bytes.config.write_text(re.sub('max_lag_bytes = .*', f'max_lag_bytes = {allowed}', by_bytes.config.read_text()))
            shard.run('reload', by_bytes.directory)
            assert node_of(health_of(by_bytes), replica.name)['state'] == state
        for lagged, bound in ((by_bytes, f'max_lag_bytes = {allowed}'), (by_time, 'max_lag = 500ms')):
            lagged.config.write_text(lagged.config.read_text().replace(bound, bound.split(' = ')[0] + ' = 0'
                                                                       if 'bytes' in bound else 'max_lag = 1h'))
            shard.run('reload', lagged.directory)
            wait_for_state(lagged, replica, 'replica')
    wait_for_state(by_bytes, replica, 'replica')
    wait_for_state(by_time, replica, 'replica')


LIBFAKETIME = '/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1'


@pytest.mark.skipif(not os.path.exists(LIBFAKETIME), reason='the package faketime is not there')
@pytest.mark.parametrize('hours', [1, pytest.param(-1, marks=pytest.mark.long)])
def test_clocks_an_hour_apart_are_no_lag(shard, mount, hours):
    """The replica's clock is an hour ahead or behind: its lag is told by one clock, and health corrects for it."""
    primary, replica = shard.primary('emea'), shard.replica('emea')
    row_id = new_user(shard)
    replica.stop()
    replica.environment = process.clean_environment(LD_PRELOAD=LIBFAKETIME, FAKETIME=f'{hours:+d}h',
                                                    FAKETIME_DONT_FAKE_MONOTONIC='1')
    try:
        replica.start()
        wait_for_state(mount, replica, 'replica')
        clock = wait_for(lambda: node_of(health_of(mount), replica.name)['clock_ms'], PATIENCE)
        assert abs(clock - hours * 3600_000) < 60_000
        with paused(shard, replica):
            admin(shard, primary, "UPDATE users SET first_name = 'Grace' WHERE id = %s", (row_id,))
            assert wait_for(lambda: 300 < (node_of(health_of(mount), replica.name)['lag_ms'] or 0) < 60_000, PATIENCE)
            said = json.loads(shard.run('health', '--json', '--timeout', '10', check=False).stdout)
            assert 300 < node_of(said, replica.name)['lag_ms'] < 60_000
            assert first_name(path_of(mount.directory, row_id)) in ('Ada', 'Grace')
        before = node_of(health_of(mount), replica.name)['reads']
        save(path_of(mount.directory, row_id), 'Barbara')
        assert first_name(path_of(mount.directory, row_id)) == 'Barbara'
        assert wait_for(lambda: first_name_at(shard, replica, row_id) == 'Barbara', PATIENCE)
        for _ in range(5):
            assert first_name(path_of(mount.directory, row_id)) == 'Barbara'
        assert node_of(health_of(mount), replica.name)['reads'] > before
    finally:
        replica.environment = None
        replica.stop()


# ---- when nothing is up to date

def test_own_writes_that_no_node_has_are_served_old_and_told_or_refused(shard, mount, extra_mount):
    """The primary is frozen and the replica has not replayed what was saved last."""
    refusing = extra_mount(stale_reads='refuse', timeout='1s')
    row_ids = [new_user(shard), new_user(shard)]
    primary, replica = shard.primary('emea'), shard.replica('emea')
    size = size_of_log(mount)
    with paused(shard, replica):
        for one, row_id in zip((mount, refusing), row_ids):
            save(path_of(one.directory, row_id), 'Grace')
            assert first_name(path_of(one.directory, row_id)) == 'Grace'
        primary.freeze()
        wait_for_state(mount, primary, 'frozen')
        wait_for_state(refusing, primary, 'frozen')
        assert first_name(path_of(mount.directory, row_ids[0])) == 'Ada'
        report = health_of(mount)
        traffic = shard_of(report)['traffic']
        assert traffic['reads']['stale'] >= 1 and traffic['stale_ms'] >= 0 and traffic['stale_age_ms'] > 0
        assert metrics(mount.directory)['campusfs_stale_reads_total{shard="emea"}'] >= 1
        path = path_of(refusing.directory, row_ids[1])
        assert errno_of(path.read_bytes) == 'EIO'
        assert 'stale_reads = refuse' in errors_of(refusing.directory)[-1]['message']
        assert shard_of(health_of(refusing))['traffic']['reads']['stale'] == 0
        shard.thaw()
    for one, row_id in zip((mount, refusing), row_ids):
        wait_until_ok(one)
        assert wait_for(lambda one=one, row_id=row_id: first_name(path_of(one.directory, row_id)) == 'Grace', PATIENCE)
    said = log_since(mount, size)
    assert said.count(f'shard emea: reads are answered by node {replica.name}, ') == 1
    assert said.count('shard emea: reads are up to date again') == 1


def test_reads_without_a_replica_leave_room_for_saves(shard, extra_mount):
    """Reads of a locked table hold on to as many connections of the primary as they may; a save still gets one."""
    replica = shard.replica('emea')
    crowded = extra_mount(pool_size='2', primary_reads='50', timeout='20s')
    row_id = new_user(shard)
    path = path_of(crowded.directory, row_id)
    text = path.read_bytes().replace(b'"Ada"', b'"Eve"')
    draft = os.open(path, os.O_RDWR | os.O_TRUNC)
    os.write(draft, text)
    replica.kill()
    wait_for_state(crowded, replica, 'unreachable')
    folders = [crowded.directory / 'regions' / region / 'reviews' for region in ('europe', 'africa')]
    with contextlib.closing(shard.connect('emea', options='-c search_path=campusfs,pg_catalog')) as holder:
        holder.autocommit = False
        holder.cursor().execute('LOCK TABLE course_reviews IN ACCESS EXCLUSIVE MODE')
        readers = [subprocess.Popen(['ls', folder], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for folder in folders]
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'campusfs_rw' AND wait_event_type = 'Lock'"

        def count():
            return admin(shard, 'emea', waiting)[0][0]
        assert wait_for(count, PATIENCE)
        assert not wait_for(lambda: count() > 1, 1), 'the other waits in the mount'
        os.fsync(draft)
        assert count() == 1, 'no read has ended'
        holder.rollback()
    os.close(draft)
    assert [reader.wait(PATIENCE) for reader in readers] == [0, 0]
    assert first_name(path) == 'Eve'
    assert metrics(crowded.directory)['campusfs_fallback_reads_total{shard="emea"}'] >= 2


def test_an_interrupted_read_ends_on_its_server_too(shard, extra_mount):
    """Long before any deadline; the lock that it waits for is still held."""
    reviews = extra_mount(timeout='30s').directory / 'regions/europe/reviews'
    os.listdir(reviews.parent)
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'campusfs_rw' AND wait_event_type = 'Lock'"

    def count():
        return sum(admin(shard, node, waiting, database='postgres')[0][0] for node in shard.nodes_of('emea'))
    locked = "SELECT pid FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation = 'course_reviews'::regclass"
    with contextlib.closing(shard.connect('emea', options='-c search_path=campusfs,pg_catalog')) as holder:
        holder.autocommit = False
        holder.cursor().execute('LOCK TABLE course_reviews IN ACCESS EXCLUSIVE MODE')
        admin(shard, 'emea', 'SELECT pg_current_xact_id()')  # has the lock flushed, so that the replica hears of it
        assert wait_for(lambda: admin(shard, shard.replica('emea'), locked), PATIENCE)
        reader = subprocess.Popen(['ls', reviews], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert wait_for(count, PATIENCE)
        reader.send_signal(signal.SIGINT)
        assert reader.wait(PATIENCE) == -signal.SIGINT
        assert wait_for(lambda: count() == 0, 30)
        holder.rollback()


@pytest.mark.long
def test_what_a_replica_does_not_know_is_not_taken_for_unchanged(shard, extra_mount):
    """The primary is in use, and does not come to answer what has changed: then nothing may be believed, whatever its replica
    says of that."""
    primary, row_id = shard.primary('emea'), new_user(shard)
    relay = Withholding(primary.port, b'changes\0')
    relay.through.set()
    try:
        reader = extra_mount(lambda text: re.sub(rf'^({primary.name} = .*)host=\S+ port=\d+', rf'\1host={relay.host} port={relay.port}',
                                                 text, flags=re.MULTILINE), feed='poll', timeout='3s', cache_ttl='1s')
        path = path_of(reader.directory, row_id)
        assert wait_for(lambda: errno_of(path.read_bytes) is None, PATIENCE)
        with paused(shard, shard.replica('emea')):
            relay.through.clear()
            admin(shard, 'emea', "UPDATE users SET first_name = 'Grace' WHERE id = %s", (row_id,))
            believed = time.monotonic() + 1  # cache_ttl: what was answered before may be believed until then
            assert wait_for(lambda: time.monotonic() > believed, PATIENCE)
            assert errno_of(path.read_bytes) == 'EIO'
            assert node_of(health_of(reader), primary.name)['state'] == 'primary'
            relay.through.set()
            assert wait_for(lambda: errno_of(path.read_bytes) is None, PATIENCE) and first_name(path) == 'Grace'
    finally:
        relay.close()


def test_who_is_interrupted_while_an_id_is_drawn_gets_none(shard, extra_mount):
    """Long before any deadline, be it that the server is at it or that there is no primary; it is no error that is told."""
    mount, primary = extra_mount(timeout='10min', failover_wait='10min'), shard.primary('emea')
    path = mount.directory / 'regions/europe/users/.next-id'
    assert int(path.read_text()) > 0

    def interrupt(when):
        reader = subprocess.Popen(['cat', path], stdout=subprocess.DEVNULL)
        assert wait_for(when, PATIENCE)
        reader.send_signal(signal.SIGINT)
        assert reader.wait(PATIENCE) == -signal.SIGINT
    frozen = f'campusfs_node_state{{shard="emea",node="{primary.name}",state="frozen"}}'
    held = 'campusfs_held_writes{shard="emea"}'
    waiting = "SELECT 1 FROM pg_stat_activity WHERE usename = 'campusfs_rw' AND wait_event_type = 'Lock'"
    with contextlib.closing(shard.connect('emea', options='-c search_path=campusfs,pg_catalog')) as holder:
        holder.autocommit = False
        holder.cursor().execute('LOCK TABLE users IN ACCESS EXCLUSIVE MODE')
        interrupt(lambda: admin(shard, primary, waiting, database='postgres'))
    primary.freeze()
    try:
        assert wait_for(lambda: metrics(mount.directory)[frozen] == 1, PATIENCE)
        interrupt(lambda: metrics(mount.directory)[held] == 1)
        assert metrics(mount.directory)[held] == 0
    finally:
        shard.thaw()
    wait_until_ok(mount)
    assert int(path.read_text()) > 0 and errors_of(mount.directory) == []


# ---- who does not belong there

@contextlib.contextmanager
def numbered(cluster, name, number):
    """Another shard's servers call themselves that number."""
    (before,), = admin(cluster, name, 'SELECT number FROM shard')

    def set_to(value):
        admin(cluster, name, 'UPDATE shard SET number = %s', (value,))
        for node in cluster.nodes_of(name):
            assert wait_for(lambda node=node: admin(cluster, node, 'SELECT number FROM shard') == [(value,)], PATIENCE)
    set_to(number)
    try:
        yield
    finally:
        set_to(before)


def only_emea(text, *foreign):
    """The configuration of one shard; nodes of others are said to be its own."""
    lines = []
    for line in text.splitlines():
        name = line.split(' ')[0]
        if name in foreign:
            line = re.sub(r'shard=\w+', 'shard=emea', line)
        elif re.match(r'(americas|apac)', name) or re.search(r'shard=(americas|apac)', line):
            continue
        lines.append(line)
    return '\n'.join(lines) + '\n'


def test_a_replica_of_another_cluster_is_never_read(shard, extra_mount):
    """It says that it is shard 2, and is not: its system identifier is another."""
    row_id = new_user(shard)
    replica = shard.replica('americas').name
    with numbered(shard, 'americas', 2):
        said = json.loads(shard.run('health', '--json', '--timeout', '10', check=False).stdout)
        assert node_of(said, replica)['state'] == 'schema' and 'it belongs to shard number 2' in node_of(said, replica)['error']
        mixed = extra_mount(lambda text: only_emea(text, replica))
        report = health_of(mixed)
        foreign = node_of(report, replica)
        assert foreign['state'] == 'foreign' and report['status'] == 'degraded'
        assert re.search(r'of another cluster, system identifier \d+, not \d+', foreign['error'])
        assert shard_of(report)['primary'] == shard.primary('emea').name
        path = path_of(mixed.directory, row_id)
        for number in range(5):
            save(path, f'Grace {number}')
            assert first_name(path) == f'Grace {number}'
        foreign = node_of(health_of(mixed), replica)
        assert foreign['reads'] == foreign['writes'] == 0
        code, text = status(shard, '--json', config=mixed.config)
        assert code == 1 and node_of(json.loads(text), replica)['state'] == 'foreign'


def test_primaries_of_two_clusters_are_not_mounted(shard, tmp_path):
    """Which one is meant cannot be known; what was kept of a former mount decides."""
    config = shard.directory / 'two.conf'
    ours, foreign = shard.primary('emea').name, shard.primary('americas').name
    with numbered(shard, 'americas', 2):
        def write(*names, state=None):
            text = only_emea(shard.write_config(config, state_dir=state).read_text(), foreign)
            kept = [line for line in text.splitlines() if not re.match(r'\w+-\w = ', line) or line.split(' ')[0] in names]
            config.write_text('\n'.join(kept) + '\n')
        write(ours, foreign)
        done = shard.run('mount', tmp_path, config=config, check=False)
        assert done.returncode == 2 and 'is not that of the others' in done.stderr, done.stderr
        write(ours, state=tmp_path / 'state')
        known = shard.mount(shard.directory / 'mnt-known', config=config)
        shard.mounts.remove(known)
        assert known.stop() == 0
        write(foreign, ours, state=tmp_path / 'state')
        known = shard.mount(shard.directory / 'mnt-known', config=config)
        try:
            report = health_of(known)
            assert (node_of(report, ours)['state'], node_of(report, foreign)['state']) == ('primary', 'foreign')
        finally:
            shard.mounts.remove(known)
            assert known.stop() == 0


def test_a_way_that_leads_to_another_cluster_is_not_gone(shard, extra_mount):
    """A proxy before the primary turns to a stranger, of a timeline that is no older, and the connections that there are
    still lead to the right one: new ones are not written to, and once it has turned back all is as before."""
    right, stranger = shard.primary('americas'), shard.primary('emea')
    assert stranger.timeline() >= right.timeline(), 'tests fail over emea, if any'
    row_id = new_user(shard, 'north_america')
    proxy = TcpProxy((right.host, right.port))
    line = f'{right.name} = shard=americas host={proxy.host} port={proxy.port}'
    mount = extra_mount(lambda text: re.sub(rf'^{right.name} = .*', line, text, flags=re.MULTILINE),
                        pool_lifetime='300ms', timeout='20s', failover_wait='100ms')
    path, codes = path_of(mount.directory, row_id, 'north_america'), set()

    def saved():
        codes.add(errno_of(save, path, uuid.uuid4().hex))
        return codes
    try:
        assert saved() == {None}
        proxy.target = (stranger.host, stranger.port)
        assert wait_for(lambda: saved() != {None}, PATIENCE) and codes == {None, 'EROFS'}
        # The watcher, which looks at the way anew, may have seen by then that it says another number.
        said = errors_of(mount.directory)[-1]['message']
        assert re.search(rf'node {right.name}: .*(of another cluster|belongs to shard number 2)', said), said
        assert wait_for(lambda: node_of(health_of(mount), right.name)['state'] in ('foreign', 'schema'), PATIENCE)
        proxy.target = (right.host, right.port)
        assert wait_for(lambda: errno_of(save, path, 'Grace') is None, PATIENCE)
        wait_for_state(mount, right, 'primary')
        assert first_name_at(shard, right, row_id) == 'Grace'
    finally:
        proxy.close()


def test_two_primaries_on_one_timeline_are_not_written_to(shard, mount):
    """A standby that was started as a primary without being promoted. Only the one that the mount has followed is read,
    and that is told."""
    row_id = new_user(shard)
    path = path_of(mount.directory, row_id)
    save(path, 'Grace')
    primary, rival = shard.primary('emea'), shard.replica('emea')
    assert wait_for(lambda: first_name_at(shard, rival, row_id) == 'Grace', PATIENCE)
    rival.stop()
    (rival.data_directory / 'standby.signal').unlink()
    rival.start()
    report = wait_for_state(mount, rival, 'rival')
    assert re.search(r'one of 2 primaries on timeline \d+: all but one must go', report['error'])
    assert wait_for_state(mount, primary, 'rival')
    done = shard.run('init', check=False)
    assert done.returncode == 1 and 'are both primaries, on the same timeline' in done.stderr
    admin(shard, rival, "UPDATE users SET first_name = 'Rival' WHERE id = %s", (row_id,))
    assert first_name(path) == 'Grace'
    saving = Saving(path, 'Lost')
    assert saving.result() == 'EROFS'
    assert 'primaries on timeline' in errors_of(mount.directory)[-1]['message']
    report = shard_of(health_of(mount))
    assert report['status'] != 'ok' and report['primary'] is None and report['traffic']['reads']['stale'] >= 1
    assert first_name_at(shard, primary, row_id) == 'Grace' and first_name_at(shard, rival, row_id) == 'Rival'
    rival.stop()
    wait_for_state(mount, primary, 'primary')
    save(path, 'Barbara')
    assert first_name(path) == 'Barbara'
