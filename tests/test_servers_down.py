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

from conftest import fragile_cluster, region_number
from fuse_mount import is_mounted
from mount_tools import errno_of, errors_of, folder_of, health_of, metrics, run, wait_for, write_in_place
from postgres import free_port

TIMEOUT = 1.5   # seconds: the deadline of one operation here
QUICK = 0.4     # the same in a mount that believes nothing and gives up early
SLACK = 12.0    # what a busy machine and the kernel's second try may add
AT_ONCE = 1.2   # what an operation takes that waits for nobody: less than a deadline
ROWS = 40


# ---- a cluster of this module's own, and a mount of it

@pytest.fixture(scope='module')
def own(run_directory, campusfs):
    with fragile_cluster(run_directory / 'down', campusfs, timeout=f'{TIMEOUT * 1000:.0f}ms',
                         connect_timeout='500ms') as cluster:
        yield cluster


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
        path = path_of(running.directory, region, users[region][0][0])
        assert wait_for(lambda: errno_of(os.stat, path) is None, 30), region
        assert wait_for(lambda: writes(running.directory, users, region), 30), region


@pytest.fixture
def quick(own, users, root):
    config = own.write_config(own.directory / 'quick.conf', timeout=f'{QUICK * 1000:.0f}ms', cache_ttl='0')
    mount = own.mount(own.directory / f'mnt-{uuid.uuid4().hex[:6]}', config=config)
    yield mount.directory
    own.start()
    own.mounts.remove(mount)
    assert mount.stop() == 0


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
        took = time.monotonic() - self.begun
        assert kind is not None or took < self.limit, f'took {took:.2f} s, allowed are {self.limit}'


def at_once(call, *arguments):
    """What the call returns, which waits for nobody. A loaded machine may keep it now and then; who waits for a server
    does so every time."""
    took = []
    while len(took) < 8:
        begun = time.monotonic()
        result = call(*arguments)
        took.append(time.monotonic() - begun)
        if took[-1] < AT_ONCE:
            return result
    raise AssertionError(f'took {took} s, allowed are {AT_ONCE}')


def freeze(own, region):
    for node in own.nodes_of(region):
        node.freeze()


def kill(own, region):
    for node in own.nodes_of(region):
        node.kill()


def others_answer(root, users, apart):
    """Every other region is read, listed and written at once."""
    for region in set(users) - {apart}:
        assert json.loads(at_once(path_of(root, region, users[region][7][0]).read_bytes))['id'] == users[region][7][0]
        assert len(at_once(os.listdir, folder_of(root, 'users', region))) == ROWS
        assert at_once(writes, root, users, region)


# ---- starting without them

@pytest.mark.parametrize('options', [[], ['--foreground']])
def test_nothing_is_mounted_without_servers(cluster, tmp_path, options):
    """Exit code 2, one line a node that says why, and the folder as it was."""
    config = tmp_path / 'campusfs.conf'
    config.write_text(re.sub(r'port=\d+', lambda _: f'port={free_port()}', cluster.config.read_text()))
    directory = tmp_path / 'mnt'
    directory.mkdir()
    with Timed(20):
        done = cluster.run('mount', *options, directory, config=config, check=False)
    assert (done.returncode, done.stdout) == (2, '')
    for name in cluster.nodes:
        assert len(re.findall(rf'^.*\bnode {name}: .*refused', done.stderr, re.MULTILINE)) == 1, done.stderr
    assert not is_mounted(directory) and os.listdir(directory) == []


def test_servers_that_never_answer_at_start(own, root, users, tmp_path):
    freeze(own, 'europe')
    with Timed(0.5 + SLACK):
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
        done = wait_for(refused, 60)
        assert done.returncode == 2 and done.stderr.count('run "campusfs init"') >= 3
    finally:
        for shard in ('americas', 'emea', 'apac'):
            with contextlib.closing(cluster.connect(shard, database='postgres')) as connection:
                connection.cursor().execute(f'DROP DATABASE {name} WITH (FORCE)')


# ---- one node of a shard away

def test_reads_go_on_without_the_replica(own, root, users):
    own.replica('europe').kill()
    for row_id, document in users['europe'][:10]:
        assert json.loads(at_once(path_of(root, 'europe', row_id).read_bytes))['email'] == document['email']
    assert len(at_once(os.listdir, folder_of(root, 'users', 'europe'))) == ROWS
    assert at_once(writes, root, users, 'europe')


def test_reads_go_on_without_the_primary(own, root, users):
    """From what was read before, and from what was not; the writer is told that it cannot be."""
    known, unknown = (path_of(root, 'europe', users['europe'][n][0]) for n in (1, 20))
    before = known.read_bytes()
    own.primary('europe').kill()
    with Timed(TIMEOUT + SLACK):
        assert known.read_bytes() == before
    with Timed(TIMEOUT + SLACK):
        assert json.loads(unknown.read_bytes())['id'] == users['europe'][20][0]
    with Timed(TIMEOUT + SLACK):
        assert len(os.listdir(known.parent)) == ROWS
    changed = before.replace(b'"Ada"', b'"Eve"')
    calls = [(write_in_place, known, changed), (os.unlink, known), ((known.parent / '.next-id').read_text,)]
    for call, *arguments in calls:
        with Timed(TIMEOUT + SLACK):
            assert errno_of(call, *arguments) == 'EROFS', call
    assert known.read_bytes() == before and (known.parent / '.refused' / known.name).read_bytes() == changed
    assert 'no primary' in errors_of(root, str(known.relative_to(root)))[-1]['message']
    others_answer(root, users, 'europe')


def test_a_refused_touch_keeps_the_text_of_a_refused_save(own, root, users):
    """Only a text that somebody wrote is worth keeping."""
    path = path_of(root, 'europe', users['europe'][25][0])
    changed = path.read_bytes().replace(b'"Ada"', b'"Eve"')
    own.primary('europe').kill()
    assert errno_of(write_in_place, path, changed) == 'EROFS'
    assert errno_of(os.utime, path) == 'EROFS'
    assert (path.parent / '.refused' / path.name).read_bytes() == changed


def test_writes_go_on_when_the_primary_is_back(own, root, users):
    path = path_of(root, 'europe', users['europe'][2][0])
    text = path.read_bytes().replace(b'"Ada"', b'"Eve"')
    primary = own.primary('europe')
    primary.kill()
    assert errno_of(write_in_place, path, text) == 'EROFS'
    primary.start()
    assert wait_for(lambda: errno_of(write_in_place, path, text) is None, 30)
    assert json.loads(path.read_bytes())['first_name'] == 'Eve'


def test_a_frozen_replica_costs_no_read_its_deadline(own, root, users):
    own.replica('europe').freeze()
    for row_id, _ in users['europe'][:5]:
        assert json.loads(at_once(path_of(root, 'europe', row_id).read_bytes))['id'] == row_id
    assert wait_for(lambda: time_of(path_of(root, 'europe', users['europe'][30][0]).read_bytes) < AT_ONCE, 30)
    others_answer(root, users, 'europe')


def time_of(call):
    begun = time.monotonic()
    call()
    return time.monotonic() - begun


# ---- a whole shard away

def test_rows_are_found_by_value_wherever_they_can_be_read(own, root, users):
    """By the standby alone, which runs what finds them; by nobody, and that is told and is no ENOENT."""
    folder = folder_of(root, 'users', 'europe')
    row_id, document = users['europe'][5]
    link = folder / '.by/email' / document['email'] / f'{row_id}.json'
    places = {link.parent.parent.parent: ('role', 'x'), link.parent.parent: (document['email'], 'x'),
              link.parent: (link.name, '77777002.json')}
    inside = {os.open(path, os.O_RDONLY | os.O_DIRECTORY): names for path, names in places.items()}
    own.primary('europe').kill()
    with Timed(3 * TIMEOUT + SLACK):
        assert json.loads(link.read_bytes())['email'] == document['email']
        assert len(os.listdir(folder / '.by/username')) == ROWS
        assert len(os.listdir(folder / '.by/role/student')) == ROWS
    kill(own, 'europe')
    for fd, (name, missing) in inside.items():  # by descriptors: each folder is asked itself, not only the way to it
        codes = []
        assert wait_for(lambda: codes.append(errno_of(os.lstat, name, dir_fd=fd)) or codes[-1] == 'EIO', 60), name  # noqa: B023
        assert set(codes) <= {None, 'EIO'}, (name, codes)
        assert errno_of(os.lstat, missing, dir_fd=fd) == 'EIO' == errno_of(os.listdir, fd), name
        os.close(fd)
    assert errno_of(os.lstat, link) == 'EIO' == errno_of(os.stat, folder / '.by/x')
    assert 'emea' in errors_of(root, 'regions/europe/users/.by/email')[-1]['message']
    others_answer(root, users, 'europe')


def test_a_shard_that_is_away_is_no_missing_file(own, root, users):
    """EIO for what was read before, for what was not, and for what may not be there at all; never ENOENT, on which
    backups delete."""
    known = path_of(root, 'europe', users['europe'][3][0])
    known.read_bytes()
    kill(own, 'europe')
    missing = known.with_name('77777002.json')
    paths = [known, path_of(root, 'europe', users['europe'][10][0]), missing]
    # What the kernel has just been told it may still believe, but no longer than half a second.
    assert wait_for(lambda: errno_of(os.stat, known) == 'EIO', SLACK)
    for path in paths:
        for call in (os.stat, os.unlink):
            with Timed(3 * TIMEOUT + SLACK):  # the path is walked first
                assert errno_of(call, path) in ('EIO', 'EROFS'), (path, call)
    with Timed(2 * TIMEOUT + SLACK):
        assert errno_of(os.listdir, known.parent) == 'EIO'
    with Timed(TIMEOUT + SLACK):
        assert errno_of(os.open, missing, os.O_CREAT | os.O_WRONLY, 0o644) == 'EIO'
    others_answer(root, users, 'europe')
    line = errors_of(root, str(known.relative_to(root)))[-1]
    assert line['errno'] in ('EIO', 'EROFS') and 'emea' in line['message']


def test_many_operations_on_what_is_away_take_one_deadline(own, root, users):
    """Who comes later than the deadline of a shard that is away is told at once: else a walk of a folder would wait for
    every file of it."""
    paths = [path_of(root, 'europe', row_id) for row_id, _ in users['europe']]
    kill(own, 'europe')
    with Timed(TIMEOUT + 2 * SLACK):
        assert wait_for(lambda: {errno_of(os.stat, path) for path in paths} == {'EIO'}, 30)
    with Timed(TIMEOUT + SLACK):
        assert errno_of(os.listdir, paths[0].parent) == 'EIO'
        assert {errno_of(os.unlink, path) for path in paths} <= {'EIO', 'EROFS'}
    primary = own.nodes['emea-a']
    primary.start()
    assert wait_for(lambda: errno_of(os.stat, paths[0]) is None, 30), 'nobody waits for a server that is back'


def test_a_backup_of_what_is_away_deletes_nothing(own, quick, users, tmp_path):
    """rsync is told of an error, not of missing files: neither what it lists nor what it is given by name is deleted."""
    folder = folder_of(quick, 'users', 'europe')
    files = {f'{row_id}.json' for row_id, _ in users['europe']}
    by_name = [folder / name for name in sorted(files)[:3]]

    def backup(*what):
        return run('rsync', '-a', '--delete', '--delete-missing-args', *what, f'{tmp_path}/')
    assert backup(f'{folder}/').returncode == 0 and set(os.listdir(tmp_path)) == files
    kill(own, 'europe')
    for what in ([f'{folder}/'], by_name):
        done = backup(*what)
        assert done.returncode == 23 and b'Input/output error' in done.stderr
        assert set(os.listdir(tmp_path)) == files
    own.start()
    assert wait_for(lambda: backup(f'{folder}/').returncode == 0, 30)
    assert set(os.listdir(tmp_path)) == files


def test_categories_are_those_of_the_first_shard(own, root, users):
    kill(own, 'north_america')
    with Timed(2 * TIMEOUT + SLACK):
        assert errno_of(os.listdir, root / 'categories') == 'EIO'
    others_answer(root, users, 'north_america')
    assert {'README', 'categories', 'regions'} == set(at_once(os.listdir, root))


def test_an_open_file_outlives_its_servers(own, root, users):
    path = path_of(root, 'europe', users['europe'][4][0])
    before = path.read_bytes()
    fd = os.open(path, os.O_RDONLY)
    kill(own, 'europe')
    assert wait_for(lambda: errno_of(os.stat, path.with_name('77777002.json')) == 'EIO', 30)
    assert at_once(os.pread, fd, 100_000, 0) == before
    os.close(fd)


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
    assert wait_for(saved, 30)
    os.close(fd)
    assert json.loads(path.read_bytes())['first_name'] == 'Eve'


# ---- frozen servers

def wchan(pid):
    """In which function of the kernel a process waits."""
    try:
        return open(f'/proc/{pid}/wchan').read()
    except OSError:
        return ''


def test_a_frozen_shard_ends_by_the_deadline_and_stops_nobody_else(own, quick, users):
    """More readers than connections wait for it; the others do not notice, and all are told EIO in the end."""
    freeze(own, 'europe')
    paths = [path_of(quick, 'europe', row_id) for row_id, _ in users['europe'][:16]]
    readers = [subprocess.Popen([command, path], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
               for command, path in [('cat', path) for path in paths] + 4 * [('ls', paths[0].parent)]]
    assert wait_for(lambda: any('request_wait' in wchan(reader.pid) for reader in readers), 30)
    for _ in range(3):
        others_answer(quick, users, 'europe')
    for reader in readers:
        _, said = reader.communicate(timeout=60)
        assert reader.returncode != 0 and b'Input/output error' in said, said
    own.thaw()
    assert wait_for(lambda: errno_of(paths[3].read_bytes) is None, 30)


def test_each_operation_on_a_frozen_shard_has_its_deadline(own, quick, users):
    path = path_of(quick, 'europe', users['europe'][6][0])
    text = path.read_bytes()
    fd = os.open(path, os.O_RDWR)
    freeze(own, 'europe')
    os.pwrite(fd, text.replace(b'"Ada"', b'"Eve"'), 0)
    calls = {'stat': (os.stat, path), 'open': (os.open, path, os.O_RDONLY), 'list': (os.listdir, path.parent),
             'write': (os.open, path, os.O_WRONLY | os.O_TRUNC), 'fsync': (os.fsync, fd), 'rm': (os.unlink, path),
             'next id': ((path.parent / '.next-id').read_text,), 'touch': (os.utime, path),
             'create': (os.open, path.with_name('77777002.json'), os.O_CREAT | os.O_EXCL | os.O_WRONLY)}
    for name, (call, *arguments) in calls.items():
        with Timed(3 * QUICK + SLACK):  # a path is walked before it is worked on
            assert errno_of(call, *arguments) in ('EIO', 'EROFS'), name
    own.thaw()
    with contextlib.suppress(OSError):
        os.close(fd)


def test_an_export_of_a_frozen_shard_has_its_deadline(own, quick, users):
    freeze(own, 'europe')
    with Timed(3 * QUICK + SLACK):
        assert errno_of((folder_of(quick, 'users', 'europe') / '.export.jsonl').read_bytes) == 'EIO'
    assert 'emea' in errors_of(quick)[-1]['message'] and errors_of(quick)[-1]['path'].endswith('users/.export.jsonl')
    assert len((folder_of(quick, 'users', 'asia') / '.export.jsonl').read_text().splitlines()) == len(users['asia'])
    own.thaw()
    assert wait_for(lambda: errno_of((folder_of(quick, 'users', 'europe') / '.export.jsonl').read_bytes) is None, 30)


@pytest.mark.parametrize('signum', [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_who_waits_for_a_frozen_server_can_be_ended(own, new_patient_mount, users, signum):
    """Long before the deadline, which is half a minute here."""
    root = new_patient_mount
    path = path_of(root, 'europe', users['europe'][8][0])
    os.listdir(root / 'regions' / 'europe')
    freeze(own, 'europe')
    try:
        reader = subprocess.Popen(['cat', path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert wait_for(lambda: 'request_wait' in wchan(reader.pid), 30), wchan(reader.pid)
        reader.send_signal(signum)
        with Timed(SLACK):
            assert reader.wait(60) == -signum
    finally:
        own.start()


@pytest.fixture
def new_patient_mount(own):
    config = own.write_config(own.directory / 'patient.conf', timeout='30s', connect_timeout='20s')
    mount = own.mount(own.directory / f'mnt-{uuid.uuid4().hex[:6]}', config=config)
    yield mount.directory
    own.thaw()
    own.mounts.remove(mount)
    assert mount.stop() == 0


def test_who_is_interrupted_at_health_is_told_so(own, new_patient_mount, users):
    """The daemon gives up, and what it has seen by then is shown to nobody."""
    root = new_patient_mount
    counter = 'campusfs_request_errors_total{request="lookup"}'
    before = metrics(root)[counter]
    freeze(own, 'europe')
    try:
        reader = subprocess.Popen(['cat', root / '.campusfs/health.json'], stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)
        assert wait_for(lambda: 'request_wait' in wchan(reader.pid), 30), wchan(reader.pid)
        reader.send_signal(signal.SIGINT)
        assert reader.wait(60) == -signal.SIGINT
        assert wait_for(lambda: metrics(root)[counter] > before, 60)
        assert errors_of(root) == []
    finally:
        own.start()


def test_a_mount_ends_while_its_servers_are_frozen(own, users):
    mount = own.mount(own.directory / 'mnt-ends')
    path = path_of(mount.directory, 'europe', users['europe'][9][0])
    freeze(own, 'europe')
    try:
        reader = subprocess.Popen(['cat', path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        own.mounts.remove(mount)
        with Timed(14):  # after fifteen it would be ended
            assert mount.stop() == 0
        reader.wait(60)
    finally:
        own.start()


def test_health_tells_of_a_frozen_shard_in_time(own, root, users):
    freeze(own, 'europe')
    with Timed(3 + SLACK):
        report = health_of(root)
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
            with contextlib.closing(own.connect(region)) as other:  # has it flushed, so that the replica hears of it
                other.cursor().execute('SELECT pg_current_xact_id()')
            with contextlib.closing(own.connect(own.replica(region))) as replica, replica.cursor() as there:
                def replayed():
                    there.execute("SELECT FROM pg_locks WHERE mode = 'AccessExclusiveLock'"
                                  f" AND relation = 'campusfs.{table}'::regclass")
                    return there.rowcount == 1
                assert wait_for(replayed, 30)
            yield
        connection.rollback()


def test_a_locked_table_stops_neither_other_regions_nor_other_collections(own, quick, users):
    path = path_of(quick, 'europe', users['europe'][11][0])
    with locked_table(own, 'europe', 'users'):
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            waiting = [pool.submit(errno_of, os.listdir, path.parent) for _ in range(6)]
            others_answer(quick, users, 'europe')
            for collection in ('reviews', 'invoices', 'payment-methods'):
                assert at_once(os.listdir, folder_of(quick, collection, 'europe')) == []
            codes = {future.result(timeout=30) for future in waiting}
        assert codes <= {'EIO', 'ETIMEDOUT'}
    assert wait_for(lambda: errno_of(path.read_bytes) is None, 30)


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
    saved, stop = [], time.monotonic() + 60
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
        restart.result(timeout=60)
    assert wait_for(lambda: errno_of(path.read_bytes) is None, 30)
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
        with Timed(20):  # a driver left to itself would look for the server for half a minute
            root = new_mount(mongodb_uri=f'mongodb://127.0.0.1:{port}/campusfs?serverSelectionTimeoutMS=500').directory
        user = new_user()
        path = root / user.path.relative_to(mnt)
        assert at_once(path.read_bytes) == user.read()
        save = lambda: errno_of(write_in_place, path, path.read_bytes().replace(b'"Ada"', b'"Eve"'))  # noqa: E731
        assert at_once(save) is None
        assert user.id in [int(name.split('.')[0]) for name in os.listdir(path.parent) if name[0].isdigit()]
        with Timed(3 + SLACK):
            report = health_of(root)
        assert report['status'] == 'degraded' and report['mongodb']['reachable'] is False
        assert {shard['status'] for shard in report['shards']} == {'ok'}, report
