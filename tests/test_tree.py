"""The tree itself: which names there are, which are never listed, what stat() says of them, and that every tool that
walks the tree comes to an end."""

import json
import os
import re
import stat
import tarfile
import time
from pathlib import Path

import pytest

from mount_tools import (ID_END, REGIONAL, REGIONS, address, entries, errno_of, errors_of, folder_of, folders, ids_in,
                         metrics, opened, requests_of, run, view_of, wait_for)

LATER = {'preferences', 'media'}  # theirs is MongoDB; a mount may have them or not
CONTROL = {'config', 'errors.jsonl', 'health.json', 'metrics', 'reload', 'version'}
HIDDEN = ['.next-id', '.refused']


def names(path):
    return sorted(os.listdir(path))


@pytest.fixture(scope='module')
def everything(shared_mount):
    """Every path below the root, with the result of lstat()."""
    found = {shared_mount.directory: os.lstat(shared_mount.directory)}
    for directory, folders_in, files in os.walk(shared_mount.directory):
        for name in folders_in + files:
            path = Path(directory, name)
            found[path] = os.lstat(path)
    return found


# ---- names

def test_the_root_lists_its_three_names(mnt):
    assert names(mnt) == ['README', 'categories', 'regions']


def test_regions_are_those_of_the_configuration(mnt):
    assert names(mnt / 'regions') == sorted(REGIONS)


@pytest.mark.parametrize('region', REGIONS)
def test_a_region_has_every_collection(mnt, region):
    listed = set(names(mnt / 'regions' / region))
    assert listed - LATER == set(REGIONAL)


def test_every_row_is_a_file_of_its_region(mnt, sql):
    for collection, region, path in folders(mnt):
        where = region or 'americas'
        rows = sql(where, f'SELECT id FROM {view_of(collection)} WHERE region = %s ORDER BY id',
                   (REGIONS.get(region, 0),))
        listed = {entry.name for entry in entries(path) if entry.name.endswith('.json')}
        assert {f'{row_id}.json' for row_id, in rows} <= listed, path


@pytest.mark.parametrize('missing', [
    'nothing', 'region', 'regions/atlantis', 'regions/Europe', 'regions/europe/nothing', 'regions/europe/categories',
    'regions/europe/payment_methods', 'users', 'categories/274877906943.json', 'regions/europe/users/274877906943.json',
    'regions/europe/users/x/y', '.campusfs/nothing', '.campusfs/health', '.next-id', '.refused', 'regions/.next-id',
    'regions/europe/.refused', 'regions/europe/users/.refused/1.json'])
def test_what_is_not_there_is_missing(mnt, missing):
    assert errno_of(os.stat, mnt / missing) == 'ENOENT'


def test_hidden_names_resolve_and_are_never_listed(mnt):
    assert '.campusfs' not in os.listdir(mnt)
    assert stat.S_ISDIR(os.stat(mnt / '.campusfs').st_mode)
    for _, _, path in folders(mnt):
        listed = os.listdir(path)
        for name in HIDDEN:
            assert os.path.lexists(path / name), path / name
            assert name not in listed, path / name
    assert stat.S_ISDIR(os.stat(mnt / 'categories' / '.refused').st_mode)
    assert stat.S_ISREG(os.stat(mnt / 'categories' / '.next-id').st_mode)


@pytest.mark.parametrize('folder', ['.', 'regions', 'regions/europe', '.campusfs'])
def test_nothing_can_be_made_in_fixed_folders(mnt, folder):
    path = mnt / folder / 'x'
    assert errno_of(os.open, path, os.O_CREAT | os.O_WRONLY, 0o644) == 'EPERM'
    assert errno_of(os.mkdir, path) == 'EPERM'
    assert errno_of(os.symlink, 'target', path) == 'EPERM'
    assert errno_of(os.mkfifo, path) == 'EPERM'
    assert not os.path.lexists(path)


@pytest.mark.parametrize('place', ['README', 'regions', 'categories', 'regions/europe', 'regions/europe/users',
                                   '.campusfs', '.campusfs/metrics', 'regions/europe/users/.refused',
                                   'regions/europe/users/.next-id'])
def test_fixed_places_stay(mnt, place):
    path = mnt / place
    before = os.stat(path)
    assert errno_of(os.rename, path, path.with_name('elsewhere')) == 'EPERM'
    assert errno_of(os.unlink, path) in ('EPERM', 'EISDIR')
    assert errno_of(os.rmdir, path) in ('EPERM', 'ENOTDIR')
    assert os.stat(path).st_ino == before.st_ino


# ---- numbers

def test_an_inode_number_is_the_address_of_the_row(everything, mnt):
    for collection, region, path in folders(mnt):
        for row_id in ids_in(path):
            assert os.stat(path / f'{row_id}.json').st_ino == address(collection, region, row_id)


def test_numbers_are_unique(everything):
    numbers = {}
    for path, status in everything.items():
        numbers.setdefault(status.st_ino, []).append(str(path))
    assert {ino: paths for ino, paths in numbers.items() if len(paths) > 1} == {}


def test_a_listing_tells_the_numbers_and_types_of_stat(everything, mnt):
    directories = [path for path, status in everything.items() if stat.S_ISDIR(status.st_mode)]
    for directory in [*directories, mnt / '.campusfs']:
        for entry in entries(directory):
            status = os.lstat(directory / entry.name)
            assert entry.ino == status.st_ino, directory / entry.name
            assert entry.type == ('folder' if stat.S_ISDIR(status.st_mode) else 'file'), directory / entry.name


@pytest.mark.parametrize('place', ['.', 'regions', 'categories', 'regions/europe', 'regions/europe/users', '.campusfs'])
def test_dots_come_first(mnt, place):
    with opened(mnt / place) as folder:
        dot, dots = folder.read_all()[:2]
    assert (dot.name, dot.type, dots.name, dots.type) == ('.', 'folder', '..', 'folder')
    assert dot.ino == os.stat(mnt / place).st_ino
    if place != '.':
        assert dots.ino == os.stat((mnt / place).parent).st_ino


def test_numbers_and_times_are_the_same_in_every_mount(everything, mnt, new_mount):
    other = new_mount().directory
    for path, before in everything.items():
        if not path.exists():
            continue
        now = os.lstat(other / path.relative_to(mnt))
        assert (now.st_ino, now.st_mode) == (before.st_ino, before.st_mode), path
        if stat.S_ISREG(now.st_mode):
            assert (now.st_mtime_ns, now.st_size) == (before.st_mtime_ns, before.st_size), path


def test_link_counts_are_those_of_a_tree(everything):
    """find trusts them: a folder has two links and one for each folder in it."""
    for path, status in everything.items():
        if stat.S_ISDIR(status.st_mode):
            inside = sum(stat.S_ISDIR(os.lstat(path / name).st_mode) for name in os.listdir(path))
            assert status.st_nlink == 2 + inside, path
        else:
            assert status.st_nlink == 1, path


def test_blocks_cover_the_size(everything):
    for path, status in everything.items():
        if stat.S_ISREG(status.st_mode):
            assert (status.st_blocks * 512 >= status.st_size) and status.st_blocks * 512 < status.st_size + 4096, path


# ---- owners and modes

def test_modes_and_owners_by_default(everything, mnt):
    root = os.lstat(mnt)
    assert (root.st_uid, root.st_gid) == (os.geteuid(), os.getegid())
    for path, status in everything.items():
        expected = 0o750 if stat.S_ISDIR(status.st_mode) else 0o440 if path.name == 'README' else 0o640
        assert stat.S_IMODE(status.st_mode) == expected, path
        assert (status.st_uid, status.st_gid) == (root.st_uid, root.st_gid), path


def test_modes_and_owners_by_configuration(cluster, new_mount, new_user):
    new_user()
    mount = new_mount(uid=1234, gid=2345, file_mode='0604', dir_mode='0705')
    path = mount.directory / 'regions' / 'europe' / 'users'
    for place, kind, mode in ((mount.directory, stat.S_IFDIR, 0o705), (path, stat.S_IFDIR, 0o705),
                              (path / os.listdir(path)[0], stat.S_IFREG, 0o604),
                              (mount.directory / 'README', stat.S_IFREG, 0o404)):
        status = os.stat(place)
        assert (status.st_uid, status.st_gid, status.st_mode) == (1234, 2345, kind | mode), place


@pytest.fixture
def mount_with(cluster, request):
    """A mount whose configuration has some more lines."""
    made = []

    def make(text):
        name = f'mnt-{request.node.name[:20]}'
        config = cluster.write_config(cluster.directory / f'{name}.conf', state_dir=None)
        with open(config, 'a') as file:
            file.write(text)
        made.append(cluster.mount(cluster.directory / name, config=config))
        return made[-1].directory
    yield make
    for mount in made:
        cluster.mounts.remove(mount)
        mount.stop()
        mount.clean_up()


def test_each_collection_has_its_own_owner_group_and_mode(mount_with, new_payment_method, new_user):
    method, user = new_payment_method(), new_user()
    root = mount_with('\n[collections]\npayment-methods = owner=1111 group=2222 mode=0600\nusers = group=3333\n')
    status = os.stat(folder_of(root, 'payment-methods') / f'{method.id}.json')
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1111, 2222, 0o600)
    status = os.stat(folder_of(root, 'users') / f'{user.id}.json')
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (os.geteuid(), 3333, 0o640)
    assert os.stat(root / 'README').st_gid == os.getegid()


@pytest.mark.skipif(os.geteuid() != 0, reason='needs another user')
def test_modes_are_enforced(mount_with, new_payment_method, new_user):
    method, user = new_payment_method(), new_user()
    root = mount_with('\n[collections]\npayment-methods = mode=0600\n')
    secret = folder_of(root, 'payment-methods') / f'{method.id}.json'
    assert os.stat(root).st_mode & 0o7 == 0
    stranger = {'user': 65534, 'group': 65534, 'extra_groups': []}
    assert run('cat', secret, **stranger).returncode != 0
    colleague = {'user': 65534, 'group': os.getegid(), 'extra_groups': []}
    assert run('cat', secret, **colleague).returncode != 0
    open_to_group = run('cat', folder_of(root, 'users') / f'{user.id}.json', **colleague)
    assert open_to_group.returncode == 0 and json.loads(open_to_group.stdout)['id'] == user.id
    assert run('sh', '-c', f'echo x > {folder_of(root, "users")}/{user.id}.json', **colleague).returncode != 0


# ---- README and .campusfs

def test_readme_is_a_screenful(mnt):
    text = (mnt / 'README').read_text()
    lines = text.split('\n')
    assert text.endswith('\n') and len(lines) <= 45 and max(map(len, lines)) <= 100
    for region in REGIONS:
        assert region in text
    for word in ('.refused', '.next-id', 'errors.jsonl', 'rsync', 'new.json'):
        assert word in text
    assert errno_of(os.open, mnt / 'README', os.O_WRONLY) in ('EACCES', 'EPERM')
    assert errno_of(os.open, mnt / 'README', os.O_RDONLY | os.O_TRUNC) in ('EACCES', 'EPERM')
    assert errno_of(os.truncate, mnt / 'README', 0) in ('EACCES', 'EPERM')
    assert (mnt / 'README').read_text() == text


def test_a_mount_leaves_no_memory_to_the_machine(shared_mount, mnt):
    """libmongoc's counters lie in a file that nobody would remove when the daemon is killed."""
    assert not Path(f'/dev/shm/mongoc-{shared_mount.pid()}').exists()


def test_control_files(mnt):
    folder = mnt / '.campusfs'
    assert set(os.listdir(folder)) - {'reports'} == CONTROL
    for name in CONTROL:
        with open(folder / name, 'rb') as file:
            size, mode = os.fstat(file.fileno()).st_size, os.fstat(file.fileno()).st_mode
            text = file.read()
        assert len(text) == size and stat.S_ISREG(mode) and mode & 0o222 == 0, name
        assert name in ('errors.jsonl', 'reload') or text.endswith(b'\n'), name
        assert errno_of(os.open, folder / name, os.O_WRONLY) in ('EACCES', 'EPERM'), name


def test_health_is_that_of_the_command(mnt, cluster):
    shown = json.loads((mnt / '.campusfs' / 'health.json').read_text())
    assert shown['status'] == 'ok'
    said = json.loads(cluster.run('health', '--json').stdout)
    assert shown.keys() == said.keys()
    nodes_shown, nodes_said = ([(node['name'], node['role'], node['reachable'])
                                for shard in health['shards'] for node in shard['nodes']] for health in (shown, said))
    assert nodes_shown == nodes_said and {name for name, _, _ in nodes_shown} == set(cluster.nodes)


def test_version_is_that_of_the_command(mnt, cluster):
    said = cluster.run('version').stdout.split()
    assert (mnt / '.campusfs' / 'version').read_text().split(',')[0].split() == said[:2]


def test_metrics_are_prometheus_text(mnt):
    """One TYPE line a family, its samples directly behind it, every sample of a family that was declared."""
    family, seen = None, set()
    for line in (mnt / '.campusfs' / 'metrics').read_text().splitlines():
        if declared := re.fullmatch(r'# TYPE ([a-z_]+) (counter|gauge|histogram|summary)', line):
            family = declared[1]
            assert family not in seen, f'{family} twice'
            seen.add(family)
        elif not line.startswith('# HELP '):
            sample = re.fullmatch(r'([a-z_]+)(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? (\d+(\.\d+)?)', line)
            assert sample, line
            assert re.sub('_(sum|count|bucket)$', '', sample[1]) == family or sample[1] == family, line
    assert {'campusfs_uptime_seconds', 'campusfs_requests_total', 'campusfs_cache_hits_total'} <= seen


def test_metrics_count(mnt, new_user):
    user = new_user()
    before = requests_of(mnt, 'lookup', 'open', 'read')
    user.read()
    after = requests_of(mnt, 'lookup', 'open', 'read')
    assert all(after[kind] > before[kind] for kind in before)


def test_config_hides_secrets(cluster, new_mount):
    """The secrets have no digits: a port of a node can hold any."""
    settings = {'admin_password': 'geheim-quokka', 'timeout': '7s'}
    mount = new_mount(mongodb_uri='mongodb://teacher:geheim-wombat@127.0.0.1:9/?connectTimeoutMS=100', **settings)
    text = (mount.directory / '.campusfs' / 'config').read_text()
    assert 'geheim' not in text and 'quokka' not in text and 'wombat' not in text
    assert 'timeout = 7s\n' in text and '[regions]' in text and 'europe = number=3 shard=emea' in text
    assert cluster.password('rw') not in text


def test_errors_file_is_one_object_a_line(mnt, new_user):
    user = new_user()
    assert errno_of(user.path.write_text, '{"email": 5}') == 'EINVAL'
    line = errors_of(mnt, f'regions/europe/users/{user.id}.json')[-1]
    assert list(line) == ['time', 'path', 'errno', 'sqlstate', 'constraint', 'column', 'message', 'hint']
    assert re.fullmatch(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z', line['time'])


def test_next_id_gives_a_fresh_one_each_time(mnt, sql):
    for collection, region, shard in (('users', 'asia', 3), ('courses', 'north_america', 1), ('categories', None, 1)):
        taken = [int((folder_of(mnt, collection, region) / '.next-id').read_text()) for _ in range(3)]
        assert taken == sorted(set(taken)) and all(number % 1000 == shard and 0 < number < ID_END for number in taken)
        where = region or 'americas'
        assert not sql(where, f'SELECT 1 FROM {view_of(collection)} WHERE id = ANY(%s)', (taken,))


# ---- tools that walk the whole tree

def test_find_ends_and_sees_every_row_once(mnt, everything):
    found = run('find', mnt, timeout=30)
    assert found.returncode == 0 and found.stderr == b''
    paths = found.stdout.decode().splitlines()
    assert len(paths) == len(set(paths))
    assert {str(path) for path in everything if path.exists()} <= set(paths)
    assert not [path for path in paths if '/.campusfs' in path or '/.refused' in path or '/.next-id' in path]


def test_grep_ends_and_finds(mnt, new_user, unique):
    city = f'Grepville {unique()}'
    user = new_user('africa', profile={'city': city})
    found = run('grep', '-rl', city, mnt, timeout=30)
    assert found.stdout.decode().splitlines() == [str(user.path)] and found.returncode == 0


def test_tar_through_a_pipe(mnt, new_user, tmp_path):
    user = new_user('africa')
    time.sleep(1)  # a change by SQL may be seen so late, and tar tells of folders that change while it reads them
    archive = tmp_path / 'tree.tar'
    made = run('sh', '-c', f'tar -C {mnt} -c . | cat > {archive}', timeout=60)
    assert made.stderr == b''
    with tarfile.open(archive) as tar:
        members = {member.name: member for member in tar}
        inside = tar.extractfile(members[f'./regions/africa/users/{user.id}.json']).read()
    assert inside == user.read()
    rows = sum(len(ids_in(path)) for path in [path for _, _, path in folders(mnt)] +
               list(mnt.glob('regions/*/preferences')))
    assert sum(name.endswith('.json') for name in members) == rows
    assert not [name for name in members if '.campusfs' in name or '.refused' in name]


def test_rsync_takes_the_tree_and_nothing_volatile(mnt, tmp_path, new_user):
    user = new_user('africa')
    sent = run('rsync', '-a', f'{mnt}/', f'{tmp_path}/copy/', timeout=60)
    assert sent.returncode == 0, sent.stderr
    assert (tmp_path / 'copy' / user.path.relative_to(mnt)).read_bytes() == user.read()
    assert sorted(os.listdir(tmp_path / 'copy')) == ['README', 'categories', 'regions']
    assert not [name for name in os.listdir(tmp_path / 'copy' / 'regions' / 'africa' / 'users') if name.startswith('.')]


def test_du_and_df(mnt):
    assert run('du', '-s', mnt, timeout=30).returncode == 0
    space = os.statvfs(mnt)
    assert space.f_namemax == 255 and 0 < space.f_bavail <= space.f_blocks and 0 < space.f_favail <= space.f_files


def test_ls_l_costs_no_request_a_file(new_mount):
    """READDIRPLUS brings the attributes, and extended ones are refused once for all."""
    root = new_mount().directory
    folder = folder_of(root, 'users')
    rows = len(os.listdir(folder))
    assert rows > 20
    before = requests_of(root, 'lookup', 'getattr', 'other')
    assert run('ls', '-l', folder).stdout.count(b'\n') == rows + 1
    after = requests_of(root, 'lookup', 'getattr', 'other')
    assert sum(after.values()) - sum(before.values()) < 12


def test_no_extended_attributes(mnt, new_user):
    path = new_user().path
    assert errno_of(os.getxattr, path, 'user.x') == 'ENOTSUP'
    assert errno_of(os.setxattr, path, 'user.x', b'1') == 'ENOTSUP'

    def asked():
        before = metrics(mnt)['campusfs_requests_total{request="other"}']
        for _ in range(10):
            assert errno_of(os.listxattr, path) in ('ENOTSUP', None)
        return metrics(mnt)['campusfs_requests_total{request="other"}'] != before
    assert wait_for(lambda: not asked(), 30), 'the mount is shared: now and then it may be asked by others'
