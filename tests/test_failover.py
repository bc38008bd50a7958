"""Saves while a primary is lost and another takes over: held, refused, resolved, and never acknowledged before a
synchronous standby has them; and old primaries that return. On a cluster that is mended before each test."""

import concurrent.futures
import contextlib
import fcntl
import json
import os
import re
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import process
import pytest

from mount_tools import errno_of, errors_of, metrics, wait_for
from people import Person
from shards import (PATIENCE, Saving, admin, first_name, first_name_at, health_of, new_user, node_of, path_of, paused,
                    reset_options, save, set_options, shard_of, wait_for_state, wait_until_ok)

SYNCHRONOUS = ('synchronous_standby_names', 'synchronous_commit')


@pytest.fixture(scope='module')
def mount(breakable):
    """A patient one: an operation may take a minute, so that what it waits for can be made to happen."""
    breakable.start()
    config = breakable.write_config(breakable.directory / 'patient.conf', timeout='60s', failover_wait='60s')
    mount = breakable.mount(breakable.directory / 'mnt-failover', config=config)
    yield mount
    breakable.thaw()
    breakable.mounts.remove(mount)
    assert mount.stop() == 0


@pytest.fixture
def shard(breakable, mount):
    breakable.start()
    for node in breakable.nodes_of('emea'):
        reset_options(breakable, node, *SYNCHRONOUS)
    wait_until_ok(mount)
    yield breakable
    breakable.thaw()


@pytest.fixture
def extra_mount(breakable):
    made = []

    def make(**settings):
        name = f'mnt-{uuid.uuid4().hex[:8]}'
        config = breakable.write_config(breakable.directory / f'{name}.conf', **settings)
        mount = breakable.mount(breakable.directory / name, config=config)
        made.append(mount)
        return mount
    yield make
    breakable.thaw()
    for one in made:
        breakable.mounts.remove(one)
        assert one.stop() == 0


def fail_over(cluster, region='europe'):
    """The primary is gone, its replica takes over: (old, new)."""
    old, new = cluster.primary(region), cluster.replica(region)
    old.kill()
    new.promote()
    return old, new


def held(mount):
    return metrics(mount.directory)['campusfs_held_writes{shard="emea"}']


def saves_of(cluster, node, row_id):
    """How many saves of a row by mounts a server's change log has."""
    (count,), = admin(cluster, node, "SELECT count(*) FROM change_log WHERE row_id = %s AND actor LIKE 'uid=%%'", (row_id,))
    return count



# ---- held, and not for ever

def test_saves_wait_for_the_next_primary(shard, mount, request):
    """Several at once, of several rows; reads go on meanwhile, and who has a file open reads it to its end, though its
    name leads to another revision of an equal rev by then."""
    opened = path_of(mount.directory, new_user(shard))
    text, reader = opened.read_bytes(), open(opened, 'rb')
    request.addfinalizer(reader.close)
    paths = [path_of(mount.directory, new_user(shard)) for _ in range(4)]
    before = metrics(mount.directory)['campusfs_held_writes_total{shard="emea"}']
    primary, replica = shard.primary('emea'), shard.replica('emea')
    primary.kill()
    saving = [Saving(path, 'Grace') for path in paths]
    assert wait_for(lambda: held(mount) == 4, PATIENCE)
    assert shard_of(health_of(mount))['traffic']['held_writes'] == 4
    assert [first_name(path) for path in paths] == ['Ada'] * 4
    assert not any(one.done for one in saving)
    replica.promote()
    assert [one.result() for one in saving] == [None] * 4
    assert [first_name(path) for path in paths] == ['Grace'] * 4
    assert {first_name_at(shard, replica, int(path.stem)) for path in paths} == {'Grace'}
    assert held(mount) == 0
    assert metrics(mount.directory)['campusfs_held_writes_total{shard="emea"}'] >= before + 4
    assert opened.stat().st_size == len(text) and opened.read_bytes() == text
    assert os.fstat(reader.fileno()).st_size == len(text) and os.pread(reader.fileno(), 10_000, 0) == text


def test_waiting_is_bounded_in_time_number_and_size(shard, extra_mount):
    short = extra_mount(failover_wait='300ms', timeout='20s')
    few = extra_mount(failover_writes='2', timeout='60s', failover_wait='60s')
    small = extra_mount(failover_size='1kB', timeout='20s', failover_wait='20s')
    row_ids = [new_user(shard) for _ in range(3)]
    paths = [path_of(few.directory, row_id) for row_id in row_ids]
    big = json.loads(path_of(small.directory, row_ids[0]).read_bytes())
    big.pop('updated_at')
    big['profile']['bio'] = 'x' * 2000
    document = json.loads(path_of(short.directory, row_ids[0]).read_bytes())
    document.pop('updated_at')

    def looked_at_in_haste(node):
        """Whether one mount, for which saves wait, asks a server several times as often as others what it is."""
        asked = {}
        until = time.monotonic() + 0.6
        while time.monotonic() < until:
            for pid, start in admin(shard, node, "SELECT pid, query_start FROM pg_stat_activity WHERE usename = 'campusfs_rw' "
                                                 "AND query LIKE '-- What a node is%'", database='postgres'):
                asked.setdefault(pid, set()).add(start)
        often = sorted(map(len, asked.values()))
        return len(often) > 2 and often[-1] >= 5 * often[0]
    shard.primary('emea').kill()
    begun = time.monotonic()
    assert errno_of(path_of(short.directory, row_ids[0]).write_text, json.dumps(document)) == 'EROFS'
    assert time.monotonic() - begun < 15, 'the timeout would let it wait for sixteen seconds'
    assert errno_of(path_of(small.directory, row_ids[0]).write_text, json.dumps(big)) == 'EROFS'
    assert 'saves wait for the next already' in errors_of(small.directory)[-1]['message']
    waiting = [Saving(path, 'Grace') for path in paths[:2]]
    assert wait_for(lambda: held(few) == 2, PATIENCE)
    assert wait_for(lambda: looked_at_in_haste(shard.replica('emea')), PATIENCE), 'the next primary is found as soon as it is one'
    third = Saving(paths[2], 'Grace')
    assert third.result() == 'EROFS' and not any(one.done for one in waiting)
    assert metrics(few.directory)['campusfs_held_writes_refused_total{shard="emea"}'] >= 1
    shard.replica('emea').promote()
    assert [one.result() for one in waiting] == [None, None]


# ---- outcomes that are not known

@contextlib.contextmanager
def synchronous(cluster, level='on'):
    primary = cluster.primary('emea')
    set_options(cluster, primary, synchronous_standby_names='*', synchronous_commit=level)
    try:
        yield primary
    finally:
        if primary.is_running() and not primary.is_frozen() and not primary.is_standby:
            reset_options(cluster, primary, *SYNCHRONOUS)


def waits_for_standby(cluster, node, name='campusfs_rw'):
    return admin(cluster, node, "SELECT pid FROM pg_stat_activity WHERE usename = %s AND wait_event = 'SyncRep'", (name,),
                 'postgres')


def test_a_save_that_was_committed_before_the_primary_died_is_found_on_the_next(shard, mount):
    """The standby has it, the answer was never given: it is neither lost nor made twice."""
    row_id = new_user(shard)
    path, replica = path_of(mount.directory, row_id), shard.replica('emea')
    with synchronous(shard, 'remote_apply') as primary:
        with paused(shard, replica):
            saving = Saving(path, 'Grace')
            assert wait_for(lambda: waits_for_standby(shard, primary), PATIENCE)
            primary.kill()
        replica.promote()
        assert saving.result() is None
    reset_options(shard, replica, *SYNCHRONOUS)
    assert first_name(path) == 'Grace' and first_name_at(shard, replica, row_id) == 'Grace'
    assert saves_of(shard, replica, row_id) == 1


def waits_for_lock(cluster, where):
    return admin(cluster, where, "SELECT pid FROM pg_stat_activity WHERE usename = 'campusfs_rw' AND wait_event_type = 'Lock'",
                 database='postgres')


def test_a_save_that_died_with_the_primary_is_made_on_the_next(shard, mount, extra_mount):
    """It waited for a lock when the primary was killed; also of a mount where no save may wait for the next primary: what
    became of one that was under way is asked all the same."""
    row_ids = [new_user(shard) for _ in range(2)]
    hasty = extra_mount(timeout='60s', failover_writes='0', failover_wait='0')
    paths = [path_of(one.directory, row_id) for one, row_id in zip((mount, hasty), row_ids)]
    primary, replica = shard.primary('emea'), shard.replica('emea')
    holder = shard.connect('emea', options='-c search_path=campusfs,pg_catalog')
    holder.autocommit = False
    holder.cursor().execute('SELECT FROM users WHERE id = ANY (%s) FOR UPDATE', (row_ids,))
    saving = [Saving(path, 'Grace') for path in paths]
    assert wait_for(lambda: len(waits_for_lock(shard, primary)) == 2, PATIENCE)
    primary.kill()
    holder.close()
    assert wait_for(lambda: node_of(health_of(hasty), primary.name)['state'] == 'unreachable', PATIENCE)
    replica.promote()
    assert [one.result() for one in saving] == [None, None]
    for path, row_id in zip(paths, row_ids):
        assert first_name(path) == 'Grace' and saves_of(shard, replica, row_id) == 1


def begin_save(path, name):
    """A descriptor whose close() is the save."""
    document = json.loads(path.read_bytes())
    document.pop('updated_at')
    fd = os.open(path, os.O_WRONLY | os.O_TRUNC)
    os.write(fd, json.dumps({**document, 'first_name': name}).encode())
    return fd


@pytest.mark.long
def test_saves_in_line_at_a_primary_that_dies_are_made_on_the_next(shard, extra_mount):
    """For its only connection, which waits for a lock: nobody goes on waiting there."""
    narrow = extra_mount(pool_size='1', timeout='60s', failover_wait='60s')
    row_ids = [new_user(shard) for _ in range(4)]
    primary, replica = shard.primary('emea'), shard.replica('emea')
    assert wait_for(lambda: 'campusfs_prepared_transactions{shard="emea"}' in metrics(narrow.directory), PATIENCE)
    drafts = [begin_save(path_of(narrow.directory, row_id), 'Grace') for row_id in row_ids]
    with concurrent.futures.ThreadPoolExecutor(4) as threads, contextlib.closing(
            shard.connect('emea', options='-c search_path=campusfs,pg_catalog')) as holder:
        holder.autocommit = False
        holder.cursor().execute('SELECT FROM users WHERE id = ANY (%s) FOR UPDATE', (row_ids,))
        saving = [threads.submit(errno_of, os.close, draft) for draft in drafts]
        assert wait_for(lambda: metrics(narrow.directory)[f'campusfs_pool_waiting{{node="{primary.name}"}}'] == 3, PATIENCE)
        primary.kill()
        replica.promote()
        assert [one.result(2 * PATIENCE) for one in saving] == [None] * 4
    assert {first_name_at(shard, replica, row_id) for row_id in row_ids} == {'Grace'}


def test_a_commit_that_no_standby_has_confirmed_is_no_success(shard, mount, extra_mount):
    """Somebody cancels the wait for the standby: the server says COMMIT all the same, with a warning."""
    row_ids = [new_user(shard), new_user(shard)]
    hasty = extra_mount(timeout='1s')
    path, hasty_path = path_of(mount.directory, row_ids[0]), path_of(hasty.directory, row_ids[1])
    hasty_path.read_bytes()
    with synchronous(shard) as primary:
        shard.replica('emea').freeze()
        saving = Saving(path, 'Grace')
        assert wait_for(lambda: waits_for_standby(shard, primary), PATIENCE)
        (pid,), *_ = waits_for_standby(shard, primary)
        admin(shard, primary, 'SELECT pg_cancel_backend(%s)', (pid,), 'postgres')
        assert wait_for(lambda: first_name_at(shard, primary, row_ids[0]) == 'Grace', PATIENCE), 'committed there'
        assert wait_for(lambda: waits_for_standby(shard, primary), PATIENCE), 'and asked to be confirmed'
        assert not saving.done
        assert errno_of(save, hasty_path, 'Grace') == 'EIO'
        assert 'whether this was saved is not known' in errors_of(hasty.directory)[-1]['message']
        shard.thaw()
        assert saving.result() is None
        assert first_name(path) == 'Grace'
        for pid, in waits_for_standby(shard, primary):
            admin(shard, primary, 'SELECT pg_terminate_backend(%s)', (pid,), 'postgres')


def test_what_a_fenced_primary_says_of_a_save_is_not_believed(shard, mount):
    """Committed on the old one alone, which says so when the next has taken over: it is made on that."""
    row_id = new_user(shard)
    path, replica = path_of(mount.directory, row_id), shard.replica('emea')
    with synchronous(shard) as primary:
        replica.kill()
        with open(replica.data_directory / 'campusfs.conf', 'a') as file:  # which every start of the cluster writes anew
            file.write("primary_conninfo = ''\n")  # it never hears of the save
        saving = Saving(path, 'Grace')
        assert wait_for(lambda: waits_for_standby(shard, primary), PATIENCE)
        (pid,), *_ = waits_for_standby(shard, primary)
        admin(shard, primary, 'SELECT pg_cancel_backend(%s)', (pid,), 'postgres')
        assert wait_for(lambda: first_name_at(shard, primary, row_id) == 'Grace', PATIENCE)
        assert wait_for(lambda: waits_for_standby(shard, primary), PATIENCE), 'it is asked what became of it'
        replica.start()
        replica.promote()
        wait_for_state(mount, primary, 'fenced')
        assert not saving.done
    assert saving.result() is None
    assert first_name_at(shard, replica, row_id) == 'Grace' and saves_of(shard, replica, row_id) == 1


def test_health_says_how_commits_are_protected(shard, mount):
    def protection():
        return shard_of(health_of(mount))['protection']

    def health_code(**settings):
        config = shard.write_config(shard.directory / 'protected.conf', **settings)
        return shard.run('health', '--timeout', '10', config=config, check=False).returncode
    assert wait_for(lambda: protection() == 'unprotected', PATIENCE) and health_code() == 0 and health_code(unprotected='degrade') == 1
    assert re.search(r'^shard emea \(2\): ok, unprotected$', shard.run('health', '--timeout', '10').stdout, re.MULTILINE)
    with synchronous(shard) as primary:
        assert wait_for(lambda: protection() == 'synchronous', PATIENCE)
        assert shard_of(json.loads(shard.run('health', '--json', '--timeout', '10').stdout))['protection'] == 'synchronous'
        set_options(shard, primary, synchronous_standby_names='nobody')
        assert wait_for(lambda: protection() == 'waiting', PATIENCE)
        assert health_of(mount)['status'] == 'degraded' and health_code() == 1
        set_options(shard, primary, synchronous_commit='off')
        assert protection() == 'waiting', 'a commit that could be lost is none: our sessions raise that'
        set_options(shard, primary, synchronous_standby_names='*', synchronous_commit='local')
        assert wait_for(lambda: protection() == 'unprotected', PATIENCE)


# ---- old primaries that return

def reads_of(mount, node):
    return node_of(health_of(mount), node.name)['reads']


def is_read_again(shard, mount, node, path, name):
    """It is a replica, has what was saved on the new timeline, and answers reads."""
    wait_for_state(mount, node, 'replica')
    assert wait_for(lambda: first_name_at(shard, node, int(path.stem)) == name, PATIENCE)
    wait_until_ok(mount)
    before = reads_of(mount, node)
    assert [first_name(path) for _ in range(5)] == [name] * 5
    assert reads_of(mount, node) >= before + 5


def test_an_old_primary_that_returns_is_fenced_until_it_follows(shard, mount, monkeypatch):
    """As it was, a primary of the older timeline, it is neither written to nor read; rewound it is a replica."""
    row_id = new_user(shard)
    path = path_of(mount.directory, row_id)
    old, new = fail_over(shard)
    save(path, 'Grace')
    old.start()
    report = wait_for_state(mount, old, 'fenced')
    assert re.search(r'a primary on timeline \d+, while \d+ has been seen', report['error'])
    before = reads_of(mount, old)
    for number in range(5):
        save(path, f'Grace {number}')
        assert first_name(path) == f'Grace {number}'
    assert first_name_at(shard, old, row_id) == 'Ada' and first_name_at(shard, new, row_id) == 'Grace 4'
    assert reads_of(mount, old) == before
    assert wait_for(lambda: shard_of(health_of(mount))['primary'] == new.name, PATIENCE)
    assert shard_of(health_of(mount))['status'] == 'degraded'
    table = shard.run('status', '--timeout', '10', check=False).stdout
    assert re.search(rf'^  {old.name} +fenced ', table, re.MULTILINE), table
    set_options(shard, new, full_page_writes='on')  # as pg_rewind will have it
    old.stop()
    with monkeypatch.context() as patch:
        seen, run = [], process.run
        patch.setattr(process, 'run', lambda argv, **options: (seen.append(' '.join(map(str, argv))), run(argv, **options))[1])
        shard.rewind(old, new)
    assert any('pg_rewind' in line for line in seen)
    assert not any(shard.password(role) in line for line in seen for role in ('admin', 'repl')), 'all see the arguments'
    assert not list((shard.directory / 'nodes').glob('pgpass-*'))
    is_read_again(shard, mount, old, path, 'Grace 4')
    reset_options(shard, new, 'full_page_writes')


def test_a_primary_that_was_fenced_decides_no_move(shard, mount):
    """The next one takes over while the move's transaction is open on the old one, which is still up: there it would be
    committed for nobody, and the user would be in two regions."""
    person = Person(shard, 'europe')
    old, new = shard.primary('emea'), shard.replica('emea')
    assert wait_for(lambda: first_name_at(shard, new, person.id) == 'Ada', PATIENCE)
    with contextlib.closing(shard.connect('apac')) as holder, ThreadPoolExecutor(1) as threads:
        holder.autocommit = False
        holder.cursor().execute('LOCK TABLE campusfs.request_log IN SHARE MODE')  # no part can be prepared there
        moving = threads.submit(errno_of, person.move, mount.directory, 'europe', 'asia')
        assert wait_for(lambda: waits_for_lock(shard, 'apac'), PATIENCE)
        new.promote()
        wait_for_state(mount, old, 'fenced')
        holder.rollback()
        assert moving.result(PATIENCE) == 'EROFS'
    assert (first_name_at(shard, new, person.id), first_name_at(shard, 'apac', person.id)) == ('Ada', None)
    assert wait_for(lambda: admin(shard, 'apac', 'SELECT 1 FROM pg_prepared_xacts') == [], PATIENCE)
    person.move(mount.directory, 'europe', 'asia')
    assert (first_name_at(shard, new, person.id), first_name_at(shard, 'apac', person.id)) == (None, 'Ada')


@pytest.mark.long
def test_an_old_primary_that_is_rebuilt_is_a_replica_again(shard, mount):
    path = path_of(mount.directory, new_user(shard))
    old, new = fail_over(shard)
    save(path, 'Grace')
    shard.rejoin(old, new)
    is_read_again(shard, mount, old, path, 'Grace')


def test_the_newest_timeline_is_known_after_a_restart(shard, tmp_path):
    """The new primary is away and the old one is up alone: it is not even mounted, until what was kept is deleted."""
    config = shard.write_config(shard.directory / 'kept.conf', state_dir=tmp_path / 'state')
    row_id = new_user(shard)

    def run_mount():
        one = shard.mount(shard.directory / 'mnt-kept', config=config)
        shard.mounts.remove(one)
        return one
    one, file = run_mount(), tmp_path / 'state/timelines.json'
    marks = json.loads(file.read_text())
    marks['shards']['1']['timeline'] += 7
    file.write_text(json.dumps(marks))  # another mount of this machine has seen it
    old, new = fail_over(shard)
    assert wait_for(lambda: errno_of(save, path_of(one.directory, row_id), 'Grace') is None, PATIENCE)
    marks['shards']['2'] = kept = json.loads(file.read_text())['shards']['2']
    assert json.loads(file.read_text()) == marks
    assert kept['timeline'] == new.timeline() > old.timeline() and kept['name'] == 'emea'
    (system,), = admin(shard, new, 'SELECT system_identifier::text FROM pg_control_system()', database='postgres')
    assert kept['system'] == system
    assert one.kill() == -9
    one.clean_up()
    marks['shards']['1']['timeline'] -= 7
    file.write_text(json.dumps(marks))
    new.stop()
    old.start()
    done = shard.run('mount', tmp_path / 'state', config=config, check=False)
    assert done.returncode == 2 and re.search(
        rf'node {old.name}: a primary on timeline {old.timeline()}, while {new.timeline()} has been seen', done.stderr)
    said = json.loads(shard.run('health', '--json', '--timeout', '10', config=config, check=False).stdout)
    assert node_of(said, old.name)['state'] == 'fenced' and shard_of(said)['status'] == 'down'
    done = shard.run('init', config=config, check=False)
    assert done.returncode == 2 and re.search(rf'no primary can be reached: .*node {old.name} is a primary on timeline', done.stderr)
    new.start()
    one = run_mount()
    assert node_of(health_of(one), old.name)['state'] == 'fenced'
    save(path_of(one.directory, row_id), 'Barbara')
    assert one.stop() == 0
    assert first_name_at(shard, old, row_id) == 'Ada' and first_name_at(shard, new, row_id) == 'Barbara'
    new.stop()
    file.unlink()
    one = run_mount()
    assert node_of(health_of(one), old.name)['state'] == 'primary'
    assert one.stop() == 0


@pytest.mark.parametrize('damage', ['no folder', 'no JSON'])
def test_a_state_dir_that_is_no_good_is_a_warning(shard, tmp_path, damage):
    state = tmp_path / 'state'
    if damage == 'no folder':
        state.write_text('a file')
    else:
        state.mkdir()
        (state / 'timelines.json').write_text('{"shards": {"2": {"timel')
    config = shard.write_config(shard.directory / 'damaged.conf', state_dir=state)
    one = shard.mount(shard.directory / f'mnt-{uuid.uuid4().hex[:8]}', config=config)
    shard.mounts.remove(one)
    try:
        save(path_of(one.directory, new_user(shard)), 'Grace')
        said = one.log_file.read_text()
        assert len(re.findall(r' warning state_dir: \S+/timelines.json cannot be ', said)) in (1, 2), said
    finally:
        assert one.stop() == 0
    if damage == 'no JSON':
        assert json.loads((state / 'timelines.json').read_text())['shards']['2']['timeline'] >= 1


@pytest.mark.long
def test_a_state_dir_that_is_locked_stops_no_save(shard, extra_mount, tmp_path):
    """Whoever may open the file may lock it, for ever."""
    mount = extra_mount(state_dir=tmp_path, timeout='60s', failover_wait='60s')
    path = path_of(mount.directory, new_user(shard))
    with open(tmp_path / 'timelines.lock') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        _, new = fail_over(shard)
        assert Saving(path, 'Grace').result() is None
        said = r' warning state_dir: \S+/timelines.json cannot be written: another process keeps timelines.lock locked'
        assert len(re.findall(said, mount.log_file.read_text())) == 1

    def kept():
        return json.loads((tmp_path / 'timelines.json').read_text())['shards']['2']['timeline'] == new.timeline()
    assert wait_for(kept, PATIENCE), 'it is tried again'
