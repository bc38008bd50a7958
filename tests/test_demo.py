"""mount/demo: a whole cluster by one command, again, after crashes, beside another one, and gone."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import uuid
from pathlib import Path

import psycopg2
import pytest

import fuse_mount
import postgres
import process
from cluster import Cluster
from conftest import ROOT

NODES = {'americas-a', 'americas-b', 'emea-a', 'emea-b', 'apac-a', 'apac-b'}


class Demo:
    """mount/demo of one directory."""

    def __init__(self, directory, campusfs, **env):
        self.directory = directory
        self.is_calm = False  # up, and nobody has touched it since
        self.env = {**os.environ, 'CAMPUSFS_PROGRAM': str(campusfs), **env}

    def __call__(self, *arguments, code=0):
        done = subprocess.run([ROOT / 'mount/demo', '--dir', self.directory, *arguments], env=self.env, text=True,
                              capture_output=True, timeout=180, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    @property
    def state(self):
        return json.loads((self.directory / 'cluster.json').read_text())

    @property
    def cluster(self):
        return Cluster.load(self.directory)

    @property
    def mnt(self):
        return self.directory / 'mnt'

    def user(self, region='europe'):
        """The file of some user of the region."""
        folder = self.mnt / 'regions' / region / 'users'
        return folder / sorted(os.listdir(folder))[0]

    def states(self, code):
        """What `status` says: name -> state."""
        lines = self('status', code=code).splitlines()[1:]
        return {line.split()[0]: line.split()[2] for line in lines}

    def leftovers(self):
        """Processes that run in its directory or were told of it."""
        prefix = str(self.directory)
        return [pid for name in ('postgres', 'campusfs', 'secantusd-py', 'mongod')
                for pid in process.find(name, lambda pid: (process.working_directory(pid) or '').startswith(prefix)
                                        or any(argument.startswith(prefix) for argument in process.arguments(pid)))]


def end(demo):
    if (demo.directory / 'cluster.json').exists():
        fuse_mount.Mount('campusfs', '', demo.mnt, '').clean_up()
        demo.cluster.kill()


@pytest.fixture(scope='module')
def demo(run_directory, campusfs):
    """One demo for this file. Each test leaves it up."""
    demo = Demo(run_directory / 'demo', campusfs)
    yield demo
    end(demo)


@pytest.fixture
def up(demo):
    """The demo, started, to be broken."""
    demo('start')
    demo.is_calm = False
    return demo


@pytest.fixture
def calm(demo):
    """The demo, up, for who only looks at it: it is started again only after a test that may have broken it."""
    if not demo.is_calm:
        demo('start')
        demo.is_calm = True
    return demo


def test_an_interrupted_creation_is_made_anew(demo, campusfs):
    """SIGKILL in the middle of the first start. The second one ends with a mount and commands to try, here without
    MongoDB, which a later start finds."""
    alone = Demo(demo.directory, campusfs, CAMPUSFS_MONGODB_URI='mongodb://127.0.0.1:1/none')
    first = subprocess.Popen([ROOT / 'mount/demo', '--dir', demo.directory], env=alone.env, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)
    try:
        assert process.wait_until(lambda: (demo.directory / 'nodes/emea-a/postmaster.pid').exists(), 60)
    finally:
        first.kill()
        first.wait()
    output = alone()
    assert 'WARNING: no MongoDB server' in output, 'an unreachable one is said, and no reason not to start'
    assert demo.state['mongodb'] is None and 'mongodb_uri' not in (demo.directory / 'campusfs.conf').read_text()
    assert fuse_mount.is_mounted(demo.mnt)
    assert f'ls {demo.mnt}/regions/europe/users | head' in output
    assert json.loads(demo.user().read_text())['region'] == 'europe'


def test_reset_throws_the_data_away(up):
    """What it makes is what a first start makes."""
    connection = up.cluster.connect('europe')
    with connection.cursor() as cursor:
        cursor.execute('CREATE TABLE public.old ()')
    connection.close()
    text = up.user('asia').read_bytes()
    mine = up.directory / 'notes.txt'
    mine.write_text('not the demo\'s')
    output = up('reset')
    connection = up.cluster.connect('europe')
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('public.old')")
        assert cursor.fetchone() == (None,)
    connection.close()
    assert mine.exists() and f'ls {up.mnt}/regions/europe/users | head' in output
    assert up.states(0) == dict.fromkeys(NODES | {'mongodb', 'mount'}, 'up')
    assert up.user('asia').read_bytes() == text, 'the sample data are always the same'


def test_the_commands_to_try_work(up):
    """Those that it prints for the tree itself, as it prints them."""
    commands = [line.strip() for line in up('start').partition('Try:')[2].splitlines() if f'{up.directory}/' in line]
    assert len(commands) >= 7
    for command in commands:
        command = command.replace('/tmp/campusfs-backup', f'{up.directory}/backup')
        done = subprocess.run(['bash', '-o', 'pipefail', '-c', command], capture_output=True, text=True, check=False,
                              timeout=60)
        assert done.returncode in (0, 141), (command, done.stderr)  # 141: head has seen enough
        if 'psql' in command:
            assert 'Grace' in done.stdout
        if '.refused' in command:
            assert 'king' in done.stdout and 'sed' in done.stderr
        else:
            assert not done.stderr
    assert json.loads(up.user().read_text())['first_name'] == 'Grace'


def test_cluster_json_describes_every_node(calm):
    nodes = {node['name']: node for node in calm.state['nodes']}
    assert set(nodes) == NODES
    for name, node in nodes.items():
        assert node['shard'] == name[:-2] and node['role'] == ('primary' if name.endswith('a') else 'replica')
        with open(node['pid_file']) as file:
            pid = int(file.readline())
        assert os.readlink(f'/proc/{pid}/cwd') == node['data_directory']
        for host in (node['host'], node['socket_directory']):
            connection = psycopg2.connect(host=host, port=node['port'], user='campusfs_ro', dbname='campusfs',
                                          passfile=calm.state['passfile'])
            with connection.cursor() as cursor:
                cursor.execute('SELECT pg_is_in_recovery()')
                assert cursor.fetchone() == (node['role'] == 'replica',)
            connection.close()


@pytest.mark.parametrize('setting, value', [
    ('fsync', 'on'), ('full_page_writes', 'on'), ('wal_level', 'logical'), ('max_prepared_transactions', '10'),
    ('password_encryption', 'scram-sha-256')])
def test_servers_are_set_up(calm, setting, value):
    for node in calm.cluster.nodes.values():
        connection = calm.cluster.connect(node)
        with connection.cursor() as cursor:
            cursor.execute(f'SHOW {setting}')
            assert cursor.fetchone() == (value,)
        connection.close()


def test_nobody_enters_without_a_password(calm):
    node = calm.state['nodes'][0]
    for host in (node['host'], node['socket_directory']):
        with pytest.raises(psycopg2.OperationalError, match='password|no pg_hba'):
            psycopg2.connect(host=host, port=node['port'], user='postgres', dbname='campusfs', passfile='/dev/null')
    for name in ('pgpass', 'campusfs.conf', 'cluster.json'):
        assert stat.S_IMODE((calm.directory / name).stat().st_mode) == 0o600


def test_replicas_stream_through_physical_slots(calm):
    for shard in ('americas', 'emea', 'apac'):
        connection = calm.cluster.connect(shard)
        with connection.cursor() as cursor:
            cursor.execute("SELECT slot_name, slot_type, active FROM pg_replication_slots WHERE slot_type = 'physical'")
            assert cursor.fetchall() == [(f'{shard}_b', 'physical', True)]
        connection.close()


def test_second_start_changes_nothing(calm):
    before = calm('status')
    assert 'everything is up already' in calm('start')
    assert calm('status') == before


def test_start_mends_what_was_killed(up):
    """A killed daemon and its dead mount, killed and frozen servers. None leaves memory to the machine."""
    cluster = up.cluster
    daemon = int(re.search(r'^mount .* (\d+)$', up('status'), re.MULTILINE)[1])
    os.kill(daemon, signal.SIGKILL)
    memory = cluster.nodes['americas-a'].pid_file.read_text().split('\n')[6].split()[1]
    cluster.nodes['americas-a'].kill()
    assert memory not in [line.split()[1] for line in Path('/proc/sysvipc/shm').read_text().splitlines()]
    cluster.nodes['emea-b'].kill()
    cluster.nodes['apac-a'].freeze()
    cluster.mongodb.kill()
    with pytest.raises(OSError, match='not connected'):
        os.listdir(up.mnt)
    states = up.states(1)
    assert (states['mount'], states['americas-a'], states['apac-a'], states['mongodb']) == \
        ('dead', 'stopped', 'frozen', 'stopped')
    up('start')
    assert set(up.states(0).values()) == {'up'}
    assert up.user('north_america').read_text()


def test_start_takes_no_strange_process_for_its_own(up):
    """Pid files that name somebody else's process, as after a reboot: the process lives on, the server starts."""
    node = up.cluster.nodes['emea-a']
    bystander = subprocess.Popen(['sleep', '60'])
    try:
        node.kill()
        node.pid_file.write_text(f'{bystander.pid}\n{node.data_directory}\n1700000000\n{node.port}\n'
                                 f'{node.socket_directory}\n127.0.0.1\n 1 1\nready   \n')
        os.chown(node.pid_file, *(getattr(node.data_directory.stat(), field) for field in ('st_uid', 'st_gid')))
        assert up.states(1)['emea-a'] == 'stopped'
        up('start')
        assert set(up.states(0).values()) == {'up'} and bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_port_that_was_taken_meanwhile_is_replaced(up):
    node = up.cluster.nodes['americas-a']
    node.stop('immediate')
    taken = node.port
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(('127.0.0.1', taken))
        other.listen()
        up('start')
        assert up.state['nodes'][0]['port'] != taken
        assert set(up.states(0).values()) == {'up'} and up.user('north_america').read_text()


def test_a_promoted_replica_stays_primary(up):
    """After a failover the old primary, with what it alone has, becomes the replica."""
    cluster = up.cluster
    cluster.primary('apac').kill()
    cluster.replica('apac').promote()
    connection = cluster.connect('apac-b')
    with connection.cursor() as cursor:
        cursor.execute('CREATE TABLE public.after_failover ()')
    connection.close()
    cluster.nodes['apac-a'].start()
    assert 'apac-a becomes its replica' in up('start')
    roles = {node['name']: node['role'] for node in up.state['nodes']}
    assert (roles['apac-a'], roles['apac-b']) == ('replica', 'primary')
    connection = up.cluster.connect('apac-a')
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('public.after_failover') IS NOT NULL, pg_is_in_recovery()")
        assert cursor.fetchone() == (True, True)
    connection.close()


def test_stop_leaves_nothing_running(up):
    row = up.user()
    text = row.read_bytes()
    up('stop')
    assert set(up.states(3).values()) == {'stopped'}
    assert not fuse_mount.is_mounted(up.mnt) and not up.leftovers() and not os.listdir(up.mnt)
    up('stop')
    up('start')
    assert row.read_bytes() == text


def test_a_directory_of_somebody_else_is_refused(run_directory, campusfs):
    directory = run_directory / 'precious'
    directory.mkdir()
    (directory / 'thesis.txt').write_text('...')
    demo = Demo(directory, campusfs)
    for command in ('start', 'stop', 'reset', 'status'):
        assert 'no demo of campusfs' in demo(command, code=2)
    assert os.listdir(directory) == ['thesis.txt']


@pytest.mark.skipif(os.geteuid() != 0, reason='needs a second account')
def test_an_ordinary_user_has_a_demo_beside_it(up, campusfs, run_directory):
    """Its servers, files and mount are all that user's own."""
    if not os.stat('/dev/fuse').st_mode & 0o006:
        pytest.skip('/dev/fuse is open to root only on this machine')
    home = run_directory / 'home'
    home.mkdir()
    account = {'user': 'nobody', 'group': 'nogroup', 'extra_groups': []}
    shutil.chown(home, 'nobody', 'nogroup')
    # What is tested may lie where that user may not look, as in root's home.
    checkout = run_directory / 'checkout'
    shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns('.git', 'build*'))
    checkout.chmod(0o755)
    program = shutil.copy(campusfs, checkout)
    env = {'HOME': str(home), 'PATH': os.environ['PATH'], 'CAMPUSFS_PROGRAM': program}
    command = [checkout / 'mount/demo']
    directory = home / '.local/share/campusfs-demo'
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=180, check=False, **account)
        assert done.returncode == 0, done.stdout + done.stderr
        listed = subprocess.run(['ls', directory / 'mnt/regions/europe/users'], capture_output=True, text=True,
                                check=False, **account)
        assert '.json' in listed.stdout
        assert set(up.states(0).values()) == {'up'}
        ports = {node['port'] for node in json.loads((directory / 'cluster.json').read_text())['nodes']}
        assert not ports & {node['port'] for node in up.state['nodes']}
    finally:
        subprocess.run([*command, 'stop'], env=env, timeout=60, check=False, **account)


def test_no_two_launchers_take_the_same_port(monkeypatch):
    """Of two hundred ports two processes choose thirty each before anybody listens on one."""
    monkeypatch.setattr(postgres, 'PORTS', range(31000, 31200))
    mine = {postgres.free_port() for _ in range(30)}
    script = 'import postgres; postgres.PORTS = range(31000, 31200); print(*(postgres.free_port() for _ in range(30)))'
    done = subprocess.run(['/usr/bin/python3', '-c', script], cwd=ROOT / 'mount', capture_output=True, text=True, check=True)
    assert len(mine) == 30 and len(mine | set(map(int, done.stdout.split()))) == 60


def test_usage():
    done = subprocess.run([ROOT / 'mount/demo', '--help'], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and '--dir' in done.stdout and 'reset' in done.stdout
    done = subprocess.run([ROOT / 'mount/demo', f'no-such-{uuid.uuid4().hex}'], capture_output=True, check=False)
    assert done.returncode == 64


@pytest.fixture
def theirs(run_directory):
    """A folder of the servers' account, beside one of ours with a file in it."""
    theirs, ours = run_directory / 'theirs', run_directory / 'ours'
    for folder in (theirs, ours):
        folder.mkdir()
    process.give_to_server(theirs)
    (ours / 'campusfs.conf').write_text('mine')
    (ours / 'standby.signal').write_text('mine')
    yield theirs, ours
    shutil.rmtree(theirs)
    shutil.rmtree(ours)


@pytest.mark.skipif(os.geteuid() != 0, reason='needs a second account')
def test_no_link_of_the_servers_account_leads_the_launcher_astray(theirs):
    """Root writes nothing where that account could not, whatever it puts in the place of its files and folders."""
    theirs, ours = theirs
    for name, target in (('file', None), ('folder', ours)):
        node = postgres.Node(name, 'emea', 1, data_directory=theirs / name, socket_directory=theirs, log_file=ours / 'log')
        if target:
            node.data_directory.symlink_to(target)
        else:
            node.data_directory.mkdir()
            process.give_to_server(node.data_directory)
            for link in ('campusfs.conf', 'standby.signal'):
                (node.data_directory / link).symlink_to(ours / link)
        with pytest.raises(process.LaunchError) if target else contextlib.nullcontext():
            node.lead()
        with pytest.raises(process.LaunchError) if target else contextlib.nullcontext():
            process.write_as_server(node.data_directory / 'standby.signal', '')
        for path in (ours, *ours.iterdir()):
            assert path.stat().st_uid == 0
        assert [(ours / name).read_text() for name in sorted(os.listdir(ours))] == ['mine', 'mine']
    assert "port = '1'" in (theirs / 'file/campusfs.conf').read_text() and not (theirs / 'file/campusfs.conf').is_symlink()
    (theirs / 'link').symlink_to(ours / 'campusfs.conf')
    process.give_to_server(theirs / 'link')
    assert (ours / 'campusfs.conf').stat().st_uid == 0
