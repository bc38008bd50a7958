"""Where reads and writes go, seen through a mount: replicas that are behind, killed or frozen, primaries that are gone,
return or are replaced. A cluster and a mount of the module's own, mended before each test."""

import errno
import json
import re
import subprocess
import time
import uuid

import process
import pytest
from cluster import Cluster
from mount_tools import health_of

TIMEOUT = 3  # seconds, the mount's deadline of an operation
SLACK = 12   # what a loaded machine may add


@pytest.fixture(scope='module')
def broken(run_directory, campusfs):
    cluster = Cluster(run_directory / 'routing', durable=False, mongodb=False, program=campusfs)
    cluster.settings.update(connect_timeout='500ms', timeout=f'{TIMEOUT}s', cache_ttl='0', cache_size='0')
    try:
        cluster.create()
        cluster.run('init')
        cluster.set_passwords()
        cluster.mount(cluster.directory / 'mnt')
        yield cluster
    finally:
        cluster.kill()


@pytest.fixture
def shard(broken):
    """emea with both nodes up, one a standby that streams, and the mount aware of it."""
    broken.start()
    wait_for_health(broken, 'ok')
    yield broken
    broken.thaw()


def mount_health(cluster):
    return health_of(cluster.directory / 'mnt')


def wait_for_health(cluster, status, timeout=60):
    assert process.wait_until(lambda: mount_health(cluster)['status'] == status, timeout, 0.1), mount_health(cluster)


def new_user(cluster, region='europe'):
    """A user's document and file, made by SQL."""
    name = uuid.uuid4().hex[:12]
    document = {'email': f'{name}@example.org', 'username': name, 'first_name': 'Ada', 'last_name': 'Lovelace',
                'role': 'student', 'status': 'active', 'profile': {}}
    connection = cluster.connect(region, options='-c search_path=campusfs,pg_catalog')
    with connection.cursor() as cursor:
        cursor.execute('SELECT id FROM put_users(3::smallint, NULL, %s::jsonb, NULL, NULL, false, %s::uuid, %s)',
                       (json.dumps(document), str(uuid.uuid4()), 'test'))
        (row_id,), = cursor.fetchall()
    connection.close()
    path = cluster.directory / 'mnt/regions' / region / f'users/{row_id}.json'
    assert process.wait_until(path.exists, 30), 'a replica has it soon'
    return path


def admin(cluster, node, text, database='campusfs'):
    connection = cluster.connect(node, database=database)
    with connection.cursor() as cursor:
        cursor.execute(text)
        rows = cursor.fetchall() if cursor.description else []
    connection.close()
    return rows


def save(path, **fields):
    """As an editor does; errors of close() are raised."""
    document = json.loads(path.read_text())
    document.update(fields)
    path.write_text(json.dumps(document))


def first_name(path):
    return json.loads(path.read_text())['first_name']


class Log:
    """The statements of the mount's role that a server has logged since the last look."""

    def __init__(self, cluster, node):
        self.cluster, self.node = cluster, node
        self.set('0')
        self.end = node.log_file.stat().st_size

    def set(self, value):
        admin(self.cluster, self.node, f'ALTER SYSTEM SET log_min_duration_statement = {value}', 'postgres')
        admin(self.cluster, self.node, 'SELECT pg_reload_conf()', 'postgres')
        time.sleep(0.3)

    def statements(self):
        with open(self.node.log_file, 'rb') as file:
            file.seek(self.end)
            text = file.read().decode()
        self.end += len(text.encode())
        return [name for name in re.findall(r'campusfs_rw@campusfs.* execute (\w+):', text) if not name.startswith('node_')]


@pytest.fixture
def logs(shard):
    made = [Log(shard, shard.primary('emea')), Log(shard, shard.replica('emea'))]
    yield made
    for log in made:
        log.set('-1')


def test_reads_go_to_the_replica_and_writes_to_the_primary(shard, logs):
    path = new_user(shard)
    primary, replica = logs
    primary.statements(), replica.statements()
    for _ in range(3):
        path.read_text()
        list(path.parent.iterdir())
    documents = re.compile('get_|list_')
    assert [name for name in replica.statements() if documents.match(name)]
    assert not [name for name in primary.statements() if documents.match(name)]
    save(path, first_name='Grace')
    assert any('put' in name for name in primary.statements())
    assert not any('put' in name for name in replica.statements())


def test_a_mount_reads_what_it_has_written_though_the_replica_has_not_replayed_it(shard):
    path = new_user(shard)
    replica = shard.replica('emea')
    admin(shard, replica, 'SELECT pg_wal_replay_pause()', 'postgres')
    try:
        for number in range(20):
            save(path, first_name=f'Grace {number}')
            assert first_name(path) == f'Grace {number}'
            assert f'"first_name":"Grace {number}"' in (path.parent / '.export.jsonl').read_text()
            assert admin(shard, replica, 'SELECT first_name FROM campusfs.users WHERE id = ' + path.stem) == [('Ada',)]
    finally:
        admin(shard, replica, 'SELECT pg_wal_replay_resume()', 'postgres')


def test_reads_and_saves_go_on_without_the_replica(shard):
    path = new_user(shard)
    shard.replica('emea').kill()
    start = time.monotonic()
    for number in range(10):
        save(path, first_name=f'Grace {number}')
        assert first_name(path) == f'Grace {number}'
    assert time.monotonic() - start < 10 * TIMEOUT, 'a dead node costs no operation: there are forty'


def test_a_frozen_replica_delays_reads_once(shard):
    path = new_user(shard)
    shard.replica('emea').freeze()
    start = time.monotonic()
    assert first_name(path) == 'Ada'
    assert time.monotonic() - start < TIMEOUT + SLACK
    start = time.monotonic()
    for _ in range(40):
        path.read_text()
    assert time.monotonic() - start < TIMEOUT + SLACK
    shard.thaw()
    wait_for_health(shard, 'ok')


def test_without_a_primary_reads_go_on_and_saves_give_erofs(shard):
    path = new_user(shard)
    new_user(shard)
    save(path, first_name='Grace')
    shard.primary('emea').kill()
    assert first_name(path) == 'Grace'
    assert len(list(path.parent.iterdir())) >= 2
    start = time.monotonic()
    with pytest.raises(OSError) as caught:
        save(path, first_name='Lost')
    assert caught.value.errno == errno.EROFS and time.monotonic() - start < TIMEOUT + SLACK
    assert first_name(path) == 'Grace'
    elsewhere = shard.directory / 'mnt/regions/asia/users'
    start = time.monotonic()
    assert isinstance(list(elsewhere.iterdir()), list) and time.monotonic() - start < TIMEOUT + SLACK
    error = json.loads((shard.directory / 'mnt/.campusfs/errors.jsonl').read_text().splitlines()[-1])
    assert error['errno'] == 'EROFS' and 'no primary can be reached: ' in error['message']


def test_a_promoted_replica_gets_the_saves_and_the_old_primary_never_again(shard):
    path = new_user(shard)
    old, new = shard.primary('emea'), shard.replica('emea')
    save(path, first_name='Before')
    assert process.wait_until(lambda: admin(shard, new, 'SELECT first_name FROM campusfs.users WHERE id = ' + path.stem)
                              == [('Before',)], 60)
    old.kill()
    new.promote()
    save(path, first_name='After')
    assert first_name(path) == 'After'
    # It comes back as it was, a primary, with an older history.
    old.start()
    assert process.wait_until(lambda: any(node['name'] == old.name and node['reachable'] for part in
                                          mount_health(shard)['shards'] for node in part['nodes']), 60)
    time.sleep(1)
    for number in range(20):
        save(path, first_name=f'After {number}')
        assert first_name(path) == f'After {number}'
    assert admin(shard, old, 'SELECT first_name FROM campusfs.users WHERE id = ' + path.stem) == [('Before',)]
    assert admin(shard, new, 'SELECT first_name FROM campusfs.users WHERE id = ' + path.stem) == [('After 19',)]


def test_a_frozen_shard_gives_eio_within_the_deadline_and_others_go_on(shard):
    path = new_user(shard)
    for node in shard.nodes_of('emea'):
        node.freeze()
    start = time.monotonic()
    with pytest.raises(OSError) as caught:
        path.read_text()
    # The folder and the row are asked for one after the other.
    assert caught.value.errno == errno.EIO and time.monotonic() - start < 2 * TIMEOUT + SLACK
    reader = subprocess.Popen(['cat', path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    start = time.monotonic()
    assert isinstance(list((shard.directory / 'mnt/regions/oceania/users').iterdir()), list)
    assert time.monotonic() - start < TIMEOUT + SLACK, 'one shard does not stop another'
    assert reader.wait(60) == 1
    shard.thaw()
    wait_for_health(shard, 'ok')
    assert first_name(path) == 'Ada'


def test_a_server_that_restarts_is_used_again(shard):
    path = new_user(shard)
    for round_number in range(2):
        for node in (shard.primary('emea'), shard.replica('emea')):
            node.stop()
            node.start()
            save(path, first_name=f'Round {round_number} {node.name}')
            assert first_name(path) == f'Round {round_number} {node.name}'


def test_a_connection_that_is_terminated_costs_nothing(shard):
    path = new_user(shard)
    for number in range(5):
        for node in (shard.primary('emea'), shard.replica('emea')):
            admin(shard, node, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'campusfs_rw'",
                  'postgres')
        save(path, first_name=f'Grace {number}')
        assert first_name(path) == f'Grace {number}'


def test_a_slow_statement_times_out_and_its_server_stays_in_use(shard):
    path = new_user(shard)
    log_file = shard.mounts[0].log_file
    before = log_file.stat().st_size
    holder = shard.connect('europe')
    holder.autocommit = False
    with holder.cursor() as cursor:
        cursor.execute('SELECT FROM campusfs.users WHERE id = ' + path.stem + ' FOR UPDATE')
        start = time.monotonic()
        with pytest.raises(OSError) as caught:
            save(path, first_name='Late')
        assert caught.value.errno == errno.ETIMEDOUT and time.monotonic() - start < TIMEOUT + SLACK
        other = new_user(shard)
        start = time.monotonic()
        save(other, first_name='Quick')
        assert time.monotonic() - start < TIMEOUT + SLACK
    holder.rollback()
    holder.close()
    save(path, first_name='Late')
    assert 'out of use' not in log_file.read_text()[before:]


def test_under_a_newer_schema_saves_are_refused_and_reads_go_on(shard):
    """Somebody upgrades the database while it is mounted by a program that does not know its functions."""
    path = new_user(shard)
    primary = shard.primary('emea')
    newest = 'FROM campusfs.schema_version ORDER BY entry DESC LIMIT 1'

    def refused():
        try:
            save(path, first_name=uuid.uuid4().hex)
        except OSError as error:
            return error.errno == errno.EROFS
        return False

    admin(shard, primary, f'INSERT INTO campusfs.schema_version (version, code_hash) SELECT version + 1, code_hash {newest}')
    try:
        assert process.wait_until(refused, 60, 0.1)
        assert isinstance(first_name(path), str)
        error = json.loads((shard.directory / 'mnt/.campusfs/errors.jsonl').read_text().splitlines()[-1])
        assert error['errno'] == 'EROFS' and 'its schema is newer, version ' in error['message']
        told = [node['error'] for part in mount_health(shard)['shards'] for node in part['nodes'] if node['name'] == primary.name]
        assert 'its schema is newer' in told[0]
        assert mount_health(shard)['status'] == 'degraded', 'reads go on'
    finally:
        admin(shard, primary, f'DELETE FROM campusfs.schema_version WHERE entry = (SELECT entry {newest})')
    assert process.wait_until(lambda: not refused(), 60, 0.1)
    wait_for_health(shard, 'ok')
