"""Servers that are away, frozen, slow or restarted under a running mount: reads go on where they can, everything ends
by its deadline, the other regions do not notice, and nothing that cannot be asked for looks as if it were not there."""

import concurrent.futures
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
import uuid

import pytest

from cluster import Cluster
from conftest import prepare, region_number
from fuse_mount import is_mounted
from mount_tools import errno_of, errors_of, folder_of, run, wait_for, write_in_place
from postgres import free_port

TIMEOUT = 1.5   # seconds: the deadline of one operation here
SLACK = 1.0     # what a busy machine and the kernel's second try may add
AT_ONCE = 0.7   # what an operation takes that waits for nobody, on a busy machine
ROWS = 40


# ---- a cluster of this module's own, and a mount of it

@pytest.fixture(scope='module')
def own(run_directory, campusfs):
    cluster = Cluster(run_directory / 'down', durable=False, mongodb=False, program=campusfs)
    cluster.settings.update(timeout=f'{TIMEOUT * 1000:.0f}ms', connect_timeout='500ms', state_dir=None)
    try:
        cluster.create()
        prepare(cluster, seed=False)
        yield cluster
    finally:
        cluster.thaw()
        cluster.kill()


@pytest.fixture(scope='module')
def users(own):
    """Forty users in each of three regions, one of each shard: {region: [(id, document)]}."""
    put = 'SELECT id, body FROM put_users(%s::smallint, NULL, %s::jsonb, NULL, NULL, false, %s::uuid, %s)'
    made = {region: [] for region in ('north_america', 'europe', 'asia')}
    for region, rows in made.items():
        with contextlib.closing(own.connect(region, options='-c search_path=campusfs,pg_catalog')) as connection:
            with connection.cursor() as cursor:
                for n in range(ROWS):
                    document = {'email': f'{region}-{n}@example.org', 'username': f'{region}-{n}', 'first_name': 'Ada'}
                    cursor.execute(put, (region_number(region), json.dumps(document), str(uuid.uuid4()), 'test'))
                    row_id, body = cursor.fetchone()
                    rows.append((row_id, json.loads(body)))
    return made


@pytest.fixture(scope='module')
def running(own, users):
    mount = own.mount(own.directory / 'mnt')
    yield mount
    own.thaw()
    own.mounts.remove(mount)
    code = mount.stop()
    assert code == 0, f'the daemon ended with exit code {code}'


@pytest.fixture
def root(own, users, running):
    """The mount, with every server up; what a test has broken is mended after it."""
    yield running.directory
    own.start()
    assert running.pid() is not None, 'the daemon has died'
    for region in users:
        assert wait_for(lambda: path_of(running.directory, region, users[region][0][0]).exists(), 10), region
        assert wait_for(lambda: writes(running.directory, users, region), 10), region


def writes(root, users, region):
    """Whether the region takes writes."""
    path = path_of(root, region, users[region][-1][0])
    document = {**users[region][-1][1], 'last_name': uuid.uuid4().hex}
    document.pop('updated_at')
    return errno_of(write_in_place, path, json.dumps(document).encode()) is None


def path_of(root, region, row_id):
    return folder_of(root, 'users', region) / f'{row_id}.json'


class Timed:
    """with Timed(seconds): … fails when the block takes longer."""

    def __init__(self, seconds):
        self.limit = seconds

    def __enter__(self):
        self.begun = time.monotonic()
        return self

    def __exit__(self, kind, *_):
        self.took = time.monotonic() - self.begun
        assert kind is not None or self.took < self.limit, f'took {self.took:.2f} s, allowed are {self.limit}'


def freeze(own, region):
    for node in own.nodes_of(region):
        node.freeze()


def kill(own, region):
    for node in own.nodes_of(region):
        node.kill()


def others_answer(root, users, apart):
    """Every other region is read, listed and written at once."""
    for region in set(users) - {apart}:
        with Timed(AT_ONCE):
            assert json.loads(path_of(root, region, users[region][7][0]).read_bytes())['id'] == users[region][7][0]
        with Timed(AT_ONCE):
            assert len(os.listdir(folder_of(root, 'users', region))) == ROWS
        with Timed(AT_ONCE):
            assert writes(root, users, region)


# ---- starting without them

def test_servers_that_never_answer_at_start(own, root, users, tmp_path):
    freeze(own, 'europe')
    with Timed(0.5 + 3):
        done = own.run('mount', tmp_path, check=False)
    assert done.returncode == 2 and 'shard emea' in done.stderr and 'americas' not in done.stderr
    assert not is_mounted(tmp_path)


def test_an_empty_database_is_told_from_one_that_is_away(cluster, tmp_path):
    """What to do is in the message: run init."""
    name = f'empty_{uuid.uuid4().hex[:8]}'
    for shard in ('americas', 'emea', 'apac'):
        with contextlib.closing(cluster.connect(shard, database='postgres')) as connection:
            connection.cursor().execute(f'CREATE DATABASE {name}')
    try:
        config = cluster.write_config(cluster.directory / f'{name}.conf', database=name)

        def refused():
            done = cluster.run('mount', tmp_path, config=config, check=False)
            return done if 'campusfs schema' in done.stderr else None
        done = wait_for(refused, 10)
        assert done.returncode == 2 and done.stderr.count('run "campusfs init"') >= 3
    finally:
        for shard in ('americas', 'emea', 'apac'):
            with contextlib.closing(cluster.connect(shard, database='postgres')) as connection:
                connection.cursor().execute(f'DROP DATABASE {name} WITH (FORCE)')


# ---- one node of a shard away

def test_reads_go_on_without_the_replica(own, root, users):
    own.replica('europe').kill()
    for row_id, document in users['europe'][:10]:
        with Timed(AT_ONCE):
            assert json.loads(path_of(root, 'europe', row_id).read_bytes())['email'] == document['email']
    with Timed(AT_ONCE):
        assert len(os.listdir(folder_of(root, 'users', 'europe'))) == ROWS
    with Timed(AT_ONCE):
        assert writes(root, users, 'europe')


def test_writes_go_on_when_the_primary_is_back(own, root, users):
    path = path_of(root, 'europe', users['europe'][2][0])
    text = path.read_bytes().replace(b'"Ada"', b'"Eve"')
    primary = own.primary('europe')
    primary.kill()
    assert errno_of(write_in_place, path, text) == 'EROFS'
    primary.start()
    assert wait_for(lambda: errno_of(write_in_place, path, text) is None, 10)
    assert json.loads(path.read_bytes())['first_name'] == 'Eve'


def test_a_frozen_replica_costs_no_read_its_deadline(own, root, users):
    own.replica('europe').freeze()
    for row_id, _ in users['europe'][:5]:
        with Timed(TIMEOUT):
            assert json.loads(path_of(root, 'europe', row_id).read_bytes())['id'] == row_id
    assert wait_for(lambda: time_of(path_of(root, 'europe', users['europe'][30][0]).read_bytes) < AT_ONCE, 5)
    others_answer(root, users, 'europe')


def time_of(call):
    begun = time.monotonic()
    call()
    return time.monotonic() - begun


# ---- a whole shard away

def test_a_draft_survives_what_it_cannot_be_saved_to(own, root, users):
    """An editor's file stays open: the save fails, the servers come back, the next save passes."""
    path = path_of(root, 'europe', users['europe'][5][0])
    changed = path.read_bytes().replace(b'"Ada"', b'"Eve"')
    fd = os.open(path, os.O_RDWR | os.O_TRUNC)
    os.write(fd, changed)
    kill(own, 'europe')
    with Timed(TIMEOUT + SLACK):
        assert errno_of(os.fsync, fd) == 'EROFS'
    assert os.pread(fd, 100_000, 0) == changed
    own.start()

    def saved():
        os.pwrite(fd, changed, 0)
        return errno_of(os.fsync, fd) is None
    assert wait_for(saved, 10)
    os.close(fd)
    assert json.loads(path.read_bytes())['first_name'] == 'Eve'


# ---- frozen servers

@pytest.mark.parametrize('signum', [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_who_waits_for_a_frozen_server_can_be_ended(own, new_patient_mount, users, signum):
    """Long before the deadline, which is half a minute here."""
    root = new_patient_mount
    path = path_of(root, 'europe', users['europe'][8][0])
    os.listdir(root / 'regions' / 'europe')
    freeze(own, 'europe')
    try:
        reader = subprocess.Popen(['cat', path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert wait_for(lambda: 'request_wait' in wchan(reader.pid), 5), wchan(reader.pid)
        reader.send_signal(signum)
        with Timed(AT_ONCE):
            assert reader.wait(10) == -signum
    finally:
        own.start()


def wchan(pid):
    """In which function of the kernel a process waits."""
    try:
        return open(f'/proc/{pid}/wchan').read()
    except OSError:
        return ''


@pytest.fixture
def new_patient_mount(own):
    config = own.write_config(own.directory / 'patient.conf', timeout='30s', connect_timeout='20s')
    mount = own.mount(own.directory / f'mnt-{uuid.uuid4().hex[:6]}', config=config)
    yield mount.directory
    own.thaw()
    own.mounts.remove(mount)
    assert mount.stop() == 0


def test_a_mount_ends_while_its_servers_are_frozen(own, users):
    mount = own.mount(own.directory / 'mnt-ends')
    path = path_of(mount.directory, 'europe', users['europe'][9][0])
    freeze(own, 'europe')
    try:
        reader = subprocess.Popen(['cat', path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        own.mounts.remove(mount)
        with Timed(3 * TIMEOUT + 3):
            assert mount.stop() == 0
        reader.wait(10)
    finally:
        own.start()


def test_health_tells_of_a_frozen_shard_in_time(own, root, users):
    freeze(own, 'europe')
    with Timed(3 + SLACK):
        report = json.loads((root / '.campusfs' / 'health.json').read_text())
    assert report['status'] == 'down'
    assert [shard['status'] for shard in report['shards']] == ['ok', 'down', 'ok']


# ---- slow ones

@contextlib.contextmanager
def locked_table(own, region, table):
    """Another client holds the whole table: whoever reads it waits, on the replica as well."""
    with contextlib.closing(own.connect(region, options='-c search_path=campusfs,pg_catalog')) as connection:
        connection.autocommit = False
        with connection.cursor() as cursor:
            cursor.execute(f'LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE')
            yield
        connection.rollback()


def test_a_locked_table_stops_neither_other_regions_nor_other_collections(own, root, users):
    path = path_of(root, 'europe', users['europe'][11][0])
    with locked_table(own, 'europe', 'users'):
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            waiting = [pool.submit(errno_of, os.listdir, path.parent) for _ in range(12)]
            others_answer(root, users, 'europe')
            for collection in ('reviews', 'invoices', 'payment-methods'):
                with Timed(TIMEOUT):
                    assert os.listdir(folder_of(root, collection, 'europe')) == []
            codes = {future.result(timeout=3 * TIMEOUT) for future in waiting}
        assert codes <= {'EIO', 'ETIMEDOUT', None}
    assert wait_for(lambda: errno_of(path.read_bytes) is None, 5)


# ---- connections that break

def test_broken_connections_are_no_readers_business(own, root, users):
    """Every back end is ended again and again: reads and saves go on, on new connections, without a word."""
    for n in range(5):
        for node in own.nodes_of('europe'):
            with contextlib.closing(own.connect(node, database='postgres')) as connection:
                connection.cursor().execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                                            "WHERE usename = 'campusfs_rw'")
        path = path_of(root, 'europe', users['europe'][12 + n][0])
        assert json.loads(path.read_bytes())['id'] == users['europe'][12 + n][0]
        assert len(os.listdir(path.parent)) == ROWS
        assert writes(root, users, 'europe')


def test_restarted_servers_are_no_readers_business(own, root, users):
    for node in own.nodes_of('europe'):
        node.stop('fast')
        node.start()
    path = path_of(root, 'europe', users['europe'][18][0])
    with Timed(TIMEOUT + SLACK):
        assert json.loads(path.read_bytes())['id'] == users['europe'][18][0]
    with Timed(TIMEOUT + SLACK):
        assert writes(root, users, 'europe')


def test_a_server_that_shuts_down_loses_no_save(own, root, users):
    """Saves all the time while the primary is restarted: whoever was told that a save passed finds it."""
    primary, path = own.primary('europe'), path_of(root, 'europe', users['europe'][19][0])
    document = json.loads(path.read_bytes())
    document.pop('updated_at')
    saved, stop = [], time.monotonic() + 4
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        restart = pool.submit(lambda: (primary.stop('fast'), primary.start()))
        n = 0
        while time.monotonic() < stop and not (restart.done() and len(saved) > 5):
            n += 1
            code = errno_of(write_in_place, path, json.dumps({**document, 'last_name': f'Save {n}'}).encode())
            assert code in (None, 'EROFS', 'EIO'), code
            if code is None:
                saved = [*saved, n] if restart.done() else []
                last = n
        restart.result(timeout=30)
    assert wait_for(lambda: errno_of(path.read_bytes) is None, 5)
    assert int(json.loads(path.read_bytes())['last_name'].split()[1]) >= last


# ---- MongoDB

@contextlib.contextmanager
def silent_server():
    """Takes connections and never says a word."""
    with socket.create_server(('127.0.0.1', 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize('how', ['refuses', 'is silent'])
def test_rows_work_without_mongodb(how, new_mount, new_user, mnt):
    with silent_server() if how == 'is silent' else contextlib.nullcontext(free_port()) as port:
        with Timed(10):
            root = new_mount(mongodb_uri=f'mongodb://127.0.0.1:{port}/campusfs?serverSelectionTimeoutMS=500').directory
        user = new_user()
        path = root / user.path.relative_to(mnt)
        with Timed(AT_ONCE):
            assert path.read_bytes() == user.read()
        with Timed(AT_ONCE):
            assert errno_of(write_in_place, path, path.read_bytes().replace(b'"Ada"', b'"Eve"')) is None
        assert user.id in [int(name.split('.')[0]) for name in os.listdir(path.parent) if name[0].isdigit()]
        with Timed(3 + SLACK):
            report = json.loads((root / '.campusfs' / 'health.json').read_text())
        assert report['status'] == 'degraded' and report['mongodb']['reachable'] is False
        assert {shard['status'] for shard in report['shards']} == {'ok'}
