"""Another configuration for a running mount: by SIGHUP and by `campusfs reload`, what is taken and what is not, and that a
file with mistakes changes nothing."""

import concurrent.futures
import contextlib
import json
import os
import re
import signal
import stat
import subprocess
import threading
import time
from pathlib import Path

import process
import pytest
from library_notice import without_notice
from mount_tools import errno_of, health_as_it_is, metrics, wait_for

TAKEN, REFUSED, DOWN, USAGE, WRONG = 0, 1, 2, 64, 78


class Reloaded:
    """A mount of its own configuration file, which can be edited."""

    def __init__(self, cluster, mount):
        self.cluster, self.mount = cluster, mount
        self.root, self.config, self.log = mount.directory, mount.config, mount.log_file

    def edit(self, change):
        self.config.write_text(change(self.config.read_text()))

    def set(self, **keys):
        """Sets keys of [campusfs]; None takes one out."""
        text = self.config.read_text()
        for key, value in keys.items():
            text = re.sub(rf'^{key} = .*\n', '', text, flags=re.MULTILINE)
            if value is not None:
                text = text.replace('[campusfs]\n', f'[campusfs]\n{key} = {value}\n', 1)
        self.config.write_text(text)

    def add(self, section, line):
        self.edit(lambda text: text.replace(f'[{section}]\n', f'[{section}]\n{line}\n', 1) if f'[{section}]' in text
                  else f'{text}\n[{section}]\n{line}\n')

    def remove(self, start):
        self.edit(lambda text: re.sub(rf'^{start} =.*\n', '', text, flags=re.MULTILINE))

    def reload(self, *arguments):
        """The exit code of `campusfs reload`, what it says, and what it complains of."""
        done = self.cluster.run('reload', *arguments, self.root, check=False)
        return done.returncode, done.stdout, without_notice(done.stderr).replace(str(self.config), 'FILE')

    def taken(self):
        """Reloads; what has been taken, and what waits for the next mount."""
        code, said, complaints = self.reload('--json')
        assert (code, complaints) == (TAKEN, ''), (code, said, complaints)
        report = json.loads(said)
        return sorted(report['taken']), sorted(report['remount'])

    def shown(self):
        return (self.root / '.campusfs' / 'config').read_text().splitlines()

    def report(self):
        return json.loads((self.root / '.campusfs' / 'reload').read_text())

    def health(self):
        report = health_as_it_is(self.root)  # a reload forgets what was known before
        return {node['name']: node for shard in report['shards'] for node in shard['nodes']}


@pytest.fixture
def mounted(cluster, new_mount):
    def make(**settings):
        return Reloaded(cluster, new_mount(**{'mongodb_uri': None, **settings}))
    return make


@pytest.fixture(scope='module')
def user(new_user, replayed):
    row = new_user()
    replayed('europe')
    return row


def path_of(row, mnt, root):
    return root / row.path.relative_to(mnt)


# ---- how it is asked for

def test_nothing_new_is_nothing_taken(mounted):
    it = mounted()
    assert it.report()['count'] == 0 and it.report()['result'] is None
    code, said, complaints = it.reload()
    assert (code, said, complaints) == (TAKEN, 'nothing to take: all is as before\n', '')
    assert it.report()['count'] == 1 and it.report()['pid'] == it.mount.process.pid


def test_sighup_reloads_and_does_not_end_the_mount(mounted):
    it = mounted(timeout='5s')
    it.set(timeout='7s')
    it.mount.process.send_signal(signal.SIGHUP)
    assert wait_for(lambda: it.report()['count'] == 1, 30)
    assert it.report()['taken'] == ['timeout'] and 'timeout = 7s' in it.shown()
    it.set(timeout='8s')
    assert it.cluster.run('reload', '--pid', it.mount.process.pid).stdout == ''
    assert wait_for(lambda: it.report()['count'] == 2, 30) and 'timeout = 8s' in it.shown()
    assert it.mount.process.poll() is None and it.mount.is_up()


def test_a_daemon_in_the_background_is_found_too(cluster, mounted, tmp_path):
    config = cluster.write_config(tmp_path / 'background.conf', state_dir=None, mongodb_uri=None)
    mount = cluster.mount(tmp_path / 'mnt', config=config, foreground=False)
    try:
        it = Reloaded(cluster, mount)
        it.set(max_lag='3s')
        assert it.taken() == (['max_lag'], [])
        assert 'reload: taken: max_lag' in it.log.read_text()
    finally:
        cluster.mounts.remove(mount)
        mount.stop()


def test_wrong_use_is_told(cluster, tmp_path):
    for arguments, code, words in (([], USAGE, 'one DIR'), ([tmp_path], REFUSED, 'is campusfs mounted there?'),
                                   (['--pid', 'x'], USAGE, 'process id'), (['--pid', os.getpid()], REFUSED, 'no campusfs'),
                                   (['--pid', 1, tmp_path], USAGE, 'either'), (['--soon', tmp_path], USAGE, '--soon')):
        done = cluster.run('reload', *arguments, check=False)
        assert done.returncode == code and words in done.stderr, (arguments, done)


def test_a_folder_that_looks_like_a_mount_is_not_believed(cluster, tmp_path):
    """Whoever may write a folder could name any process in it, and have root send the signal."""
    (tmp_path / '.campusfs').mkdir()
    (tmp_path / '.campusfs/health.json').write_text(json.dumps({'status': 'ok', 'shards': []}))
    with subprocess.Popen(['sleep', '600']) as victim:
        (tmp_path / '.campusfs/reload').write_text(json.dumps({'pid': victim.pid, 'identity': 0, 'count': 0}))
        for command, code, words in (('reload', REFUSED, 'is campusfs mounted there?'), ('status', DOWN, 'nothing is mounted')):
            done = cluster.run(command, tmp_path, check=False)
            assert done.returncode == code and words in done.stderr and done.stdout == '', done
        victim.kill()
        assert victim.wait() == -signal.SIGKILL, 'and not of SIGHUP'



# ---- a file with mistakes

def test_a_file_with_mistakes_changes_nothing_and_says_why(mounted):
    it = mounted(timeout='5s', pool_size=4)
    before = it.shown()
    good = it.config.read_text()
    it.set(timeout='soon', pool_size=5)
    it.add('nodes', 'lost = host=/nonexistent')
    it.add('stations', 'a = b')
    code, said, complaints = it.reload()
    lines = it.config.read_text().splitlines()
    expected = {lines.index('timeout = soon') + 1: 'timeout = soon: expected duration',
                lines.index('lost = host=/nonexistent') + 1: 'lost: shard=... is missing',
                lines.index('[stations]') + 1: 'unknown section [stations]'}
    assert code == WRONG and said == ''
    for number, words in expected.items():
        assert re.search(rf'^FILE:{number}: .*{re.escape(words)}', complaints, re.MULTILINE), complaints
    assert complaints.endswith('campusfs reload: nothing has been changed\n')
    assert len(complaints.splitlines()) == len(expected) + 1
    assert it.shown() == before
    log = it.log.read_text().replace(str(it.config), 'FILE')
    assert all(f'reload: {line}' in log for line in complaints.splitlines()[:-1])
    assert it.report()['result'] == 'refused'
    it.config.unlink()
    assert it.reload()[0] == WRONG and 'cannot be read' in it.reload()[2]
    it.config.write_text(good)
    assert it.taken() == ([], []), 'and then it goes on'


def test_secrets_are_not_told(mounted):
    it = mounted()
    it.set(password='Tr0ub4dor&3', mongodb_uri='mongodb://u:Tr0ub4dor&3@127.0.0.1/x')
    assert it.taken() == (['password'], ['mongodb_uri'])
    assert 'Tr0ub4dor' not in it.log.read_text() + '\n'.join(it.shown()) + (it.root / '.campusfs/reload').read_text()


# ---- keys

def test_every_key_is_taken_or_named_as_the_table_says(campusfs, mounted):
    """Each key is given another value: those that the table marks are in force, the others are named."""
    keys = json.loads(process.run([campusfs, 'help', 'config', '--json']).stdout)
    values = {'user': 'campusfs_ro', 'database': 'other', 'admin_user': 'somebody', 'uid': '12', 'gid': '13'}
    left_alone = {'mongodb_uri'}

    def another(key):
        if key['name'] in values:
            return values[key['name']]
        if key['choices']:
            return next(choice for choice in reversed(key['choices'].split(' | ')) if choice != key['default'])
        if key['type'] == 'yes or no':
            return 'yes'
        if 'octal' in key['type']:
            return '0700'
        if key['bounds']:
            return key['bounds'].split(' to ')[1] if key['type'] != 'number' else '3'
        return '/nonexistent/x' if key['type'] == 'path' else 'connect_timeout=3'
    it = mounted()
    table = {key['name']: key for key in keys if key['name'] not in left_alone}
    it.set(**{name: another(key) for name, key in table.items()})
    taken, remount = it.taken()
    changed = set(taken) | set(remount)
    assert set(taken) == {name for name in changed if table[name]['reload']}
    assert changed == set(table), 'each has got another value'


def test_manual_marks_what_can_be_reloaded(campusfs):
    keys = json.loads(process.run([campusfs, 'help', 'config', '--json']).stdout)
    manual = (Path(__file__).parent.parent / 'docs/campusfs.conf.5').read_text()
    marked = set(re.findall(r'^\.It Cm (\w+) .*\[reload\]$', manual, re.MULTILINE))
    assert marked == {key['name'] for key in keys if key['reload']}


def test_pools_grow_and_shrink(mounted):
    it = mounted(pool_size=2, pool_min=1)
    it.set(pool_size=5, pool_min=4)
    assert it.taken() == (['pool_min', 'pool_size'], [])
    opened = 'campusfs_pool_open{node="emea-b"}'
    assert wait_for(lambda: metrics(it.root)[opened] == 4, 30)
    it.set(pool_size=2, pool_min=1)
    assert it.taken() == (['pool_min', 'pool_size'], [])
    assert wait_for(lambda: metrics(it.root)[opened] <= 2, 30)
    assert metrics(it.root)['campusfs_pool_max{node="emea-b"}'] == 2


def test_timeouts_and_the_log_level_are_those_of_the_file(mounted, cluster, user, mnt):
    it = mounted(timeout='90s', log_level='error')
    path = path_of(user, mnt, it.root)
    with contextlib.closing(cluster.connect('europe', options='-c search_path=campusfs,pg_catalog')) as holder:
        holder.autocommit = False
        holder.cursor().execute('SELECT FROM users WHERE id = %s FOR UPDATE', (user.id,))
        it.set(timeout='2s', log_level='debug')
        assert it.taken() == (['log_level', 'timeout'], [])
        assert 'reload: taken: ' in it.log.read_text(), 'at level info'
        document = {key: value for key, value in json.loads(path.read_bytes()).items() if key != 'updated_at'}
        start = time.monotonic()
        assert errno_of(path.write_text, json.dumps({**document, 'last_name': 'Late'})) in ('ETIMEDOUT', 'EIO')
        assert time.monotonic() - start < 40, 'by the old timeout a lock would have been waited for 54 s'
        holder.rollback()


# ---- owners and modes

def test_owners_and_modes_follow(mounted, user, mnt):
    it = mounted()
    path = path_of(user, mnt, it.root)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    it.set(file_mode='0600', dir_mode='0711')
    it.add('collections', 'reviews = owner=12 group=13 mode=0444')
    assert it.taken() == (['[collections]', 'dir_mode', 'file_mode'], [])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600, 'though the kernel might have believed the old one for minutes'
    for folder in (it.root, it.root / 'regions', it.root / 'regions/europe', path.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o711
    reviews = (it.root / 'regions/europe/reviews').stat()
    assert (reviews.st_uid, reviews.st_gid) == (12, 13)
    listed = next(entry for entry in os.scandir(path.parent) if entry.name == path.name)
    assert stat.S_IMODE(listed.stat().st_mode) == 0o600


def test_what_tells_of_rows_is_read_by_who_may_read_them_all(mounted, cluster):
    """errors.jsonl quotes what was refused, reports add it up; the other files of .campusfs tell of nobody."""
    it = mounted(mongodb_uri=cluster.mongodb.uri, file_mode='0644')
    control = it.root / '.campusfs'

    def modes(*lines, **keys):
        it.remove('(transactions|reviews|media|preferences)')
        for line in lines:
            it.add('collections', line)
        it.set(**keys)
        it.taken()
        assert stat.S_IMODE((control / 'metrics').stat().st_mode) == stat.S_IMODE((control / 'health.json').stat().st_mode) == 0o444
        return tuple(f'{stat.S_IMODE((control / name).stat().st_mode):o}'
                     for name in ('errors.jsonl', 'reports/revenue_by_month.json'))
    assert modes() == ('444', '444')
    assert modes('transactions = mode=0600') == ('400', '400')
    assert modes('transactions = mode=0640') == ('440', '440')
    assert modes('transactions = mode=0640', 'reviews = mode=0604') == ('400', '400')
    assert modes('transactions = group=13 mode=0640') == ('400', '400'), 'the group is another one'
    assert modes('transactions = group=13 mode=0644') == ('444', '444')
    assert modes('media = mode=0600') == modes('preferences = mode=0600') == ('400', '444')


# ---- nodes

def test_nodes_come_and_go_while_people_read(mounted, user, mnt):
    it = mounted(cache_ttl='0', cache_size='0')
    path = path_of(user, mnt, it.root)
    line = next(line for line in it.config.read_text().splitlines() if line.startswith('emea-b = '))
    stop = threading.Event()

    def read_on():
        codes = []
        while not stop.is_set():
            codes.append(errno_of(path.read_bytes))
        return codes
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        readers = [threads.submit(read_on) for _ in range(4)]
        try:
            for _ in range(3):
                it.remove('emea-b')
                assert it.taken() == (['[nodes]'], [])
                assert 'emea-b' not in it.health() and 'campusfs_pool_open{node="emea-b"}' not in metrics(it.root)
                it.add('nodes', line)
                assert it.taken() == (['[nodes]'], [])
                assert wait_for(lambda: it.health()['emea-b']['error'] is None, 30)
        finally:
            stop.set()
        codes = [code for reader in readers for code in reader.result(30)]
    assert set(codes) == {None}, 'and there were many: ' + str(len(codes))
    it.remove('emea-b')
    it.add('nodes', line.replace('emea-b', 'emea-c'))
    assert it.taken() == (['[nodes]'], [])
    assert wait_for(lambda: it.health()['emea-c']['error'] is None, 30)
    takes = 'campusfs_pool_takes_total{node="emea-c"}'
    before = metrics(it.root)[takes]
    assert errno_of(path.read_bytes) is None and metrics(it.root)[takes] > before, 'the new one is read'


def test_a_node_that_moves_is_found_at_its_new_place(mounted, cluster, user, mnt):
    it = mounted(cache_ttl='0', cache_size='0')
    path = path_of(user, mnt, it.root)
    socket = cluster.nodes['emea-a'].socket_directory
    port = cluster.nodes['emea-a'].port
    it.edit(lambda text: re.sub(r'^emea-a = .*$', f'emea-a = shard=emea host={socket} port={port}', text,
                                flags=re.MULTILINE))
    assert it.taken() == (['[nodes]'], [])
    assert wait_for(lambda: it.health()['emea-a']['error'] is None, 30)
    document = {key: value for key, value in json.loads(path.read_bytes()).items() if key != 'updated_at'}
    assert errno_of(path.write_text, json.dumps({**document, 'last_name': 'Moved'})) is None
    it.edit(lambda text: re.sub(r'^emea-a = .*$', 'emea-a = shard=emea host=/nonexistent', text, flags=re.MULTILINE))
    assert it.taken() == (['[nodes]'], [])
    assert wait_for(lambda: it.health()['emea-a']['reachable'] is False, 30)
    assert errno_of(path.read_bytes) is None


# ---- regions and shards

def test_a_new_region_appears(mounted, cluster):
    it = mounted(mongodb_uri=cluster.mongodb.uri)
    before = os.listdir(it.root / 'regions')
    assert errno_of(os.listdir, it.root / 'regions/antarctica') == 'ENOENT'
    it.add('regions', 'antarctica = number=33 shard=apac')
    assert it.taken() == (['[regions]'], [])
    assert sorted(os.listdir(it.root / 'regions')) == sorted([*before, 'antarctica'])
    assert os.listdir(it.root / 'regions/antarctica/users') == os.listdir(it.root / 'regions/antarctica/media') == []
    assert set(os.listdir(it.root / 'regions/antarctica')) == set(os.listdir(it.root / 'regions/europe'))
    assert 'antarctica' in (it.root / 'README').read_text()
    assert 'antarctica = number=33 shard=apac' in it.shown()


def test_a_region_is_not_looked_for_where_its_rows_are_not(mounted):
    it = mounted()
    before = it.shown()
    good = it.config.read_text()
    it.edit(lambda text: text.replace('europe = number=3 shard=emea', 'europe = number=3 shard=apac'))
    line = it.config.read_text().splitlines().index('europe = number=3 shard=apac') + 1
    code, _, complaints = it.reload()
    assert code == WRONG and complaints.startswith(f'FILE:{line}: europe: shard=apac, but its rows are on emea: ')
    it.config.write_text(good.replace('europe = number=3', 'europe = number=23'))
    assert it.reload()[0] == WRONG
    it.config.write_text(good.replace('emea = number=2', 'emea = number=22'))
    assert it.reload()[0] == WRONG
    assert it.shown() == before


def test_what_needs_a_new_mount_is_named(mounted):
    it = mounted()
    before = it.shown()
    it.set(cache_size='1MB', read_only='yes')
    it.edit(lambda text: text.replace('oceania = number=6', 'pacific = number=6'))
    it.add('shards', 'polar = number=9')
    it.add('nodes', 'polar-a = shard=polar host=/nonexistent')
    it.add('regions', 'arctic = number=9 shard=polar')
    code, said, complaints = it.reload()
    assert (code, complaints) == (TAKEN, '')
    assert said == ('nothing to take: all is as before\n'
                    'not before the next mount: read_only, cache_size, [shards], [regions]\n')
    assert it.shown() == before
    assert 'not before the next mount: read_only, cache_size, [shards], [regions]' in it.log.read_text()
    assert 'oceania' in os.listdir(it.root / 'regions') and 'arctic' not in os.listdir(it.root / 'regions')
