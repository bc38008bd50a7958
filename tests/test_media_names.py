"""Names of media: folders to any depth, renames and removals as on a disk, other drivers' changes, and what cannot be a
path."""

import ctypes
import datetime
import json
import os
import random
import shutil
import stat
import struct
import subprocess

import process
import pytest
from media_proxy import MediaProxy
from media_tools import Bucket, appears, bucket, course, disappears  # noqa: F401
from mount_tools import errno_of, errors_of, made_writable
from saving import renameat2


def names(folder):
    return sorted(os.listdir(folder))


def tree_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
            for path in folder.rglob('*')}


def node_of(path):
    """The number and generation under which the kernel knows the file, and keeps its pages (name_to_handle_at)."""
    handle = ctypes.create_string_buffer(struct.pack('Ii', 128, 0) + bytes(128))
    library = ctypes.CDLL(None, use_errno=True)
    if library.name_to_handle_at(-100, os.fsencode(path), handle, ctypes.byref(ctypes.c_int()), 0) < 0:
        raise OSError(ctypes.get_errno(), 'name_to_handle_at', path)
    return handle.raw[8:8 + struct.unpack_from('I', handle)[0]]


def last_error(mnt):
    return json.loads((mnt / '.campusfs/errors.jsonl').read_text().splitlines()[-1])


# ---- files of other programs

@pytest.mark.parametrize('metadata', [5, 'text', [1], None, {'title': 5, 'mode': 'all'}])
def test_metadata_that_break_every_rule_are_in_no_names_way(course, bucket, mnt, metadata):
    """The file is renamed as any other, over another, too; what cannot hold them gets no attributes."""
    path, target = course.insert('week/odd', 3, 3, [(0, b'abc')], metadata=metadata), course.put('target', b'target')
    os.rename(path.parent, course.folder / 'unit')
    os.rename(course.folder / 'unit/odd', course.folder / 'moved')
    assert (course.folder / 'moved').read_bytes() == b'abc' and names(course.folder / 'unit') == []
    os.rmdir(course.folder / 'unit')
    os.rename(course.folder / 'moved', target)
    assert target.read_bytes() == b'abc' and names(course.folder) == ['target']
    stored, = bucket.files.find({'filename': f'{course.id}/target'})
    if isinstance(metadata, dict):
        assert stored['metadata']['title'] == 5
        os.chmod(target, 0o600)
        assert stat.S_IMODE(target.stat().st_mode) == 0o600
        return
    assert stored['metadata'] == metadata
    assert errno_of(os.chmod, target, 0o600) == 'EINVAL'
    assert 'no document' in last_error(mnt)['message'] and target.read_bytes() == b'abc'


# ---- folders

def test_folders_to_any_depth_live_while_they_are_empty(course, bucket, new_mount):
    deep = course.folder / '/'.join(f'level {n}' for n in range(30))
    deep.mkdir(parents=True, mode=0o705)
    assert stat.S_IMODE(deep.stat().st_mode) == 0o705
    assert names(deep) == [] and names(deep.parent) == ['level 29']
    other = new_mount().directory / deep.relative_to(course.folder.parents[3])
    assert other.is_dir() and names(other) == []
    assert list(bucket.files.find({'filename': {'$regex': f'^{course.id}/'}})) == []
    shutil.rmtree(course.folder / 'level 0')
    disappears(other)
    assert names(course.folder) == []


def test_a_folder_stays_when_its_last_file_goes(course):
    course.put('week/one.txt', b'1')
    (course.folder / 'week/one.txt').unlink()
    assert names(course.folder / 'week') == []
    (course.folder / 'week').rmdir()
    assert names(course.folder) == []


def test_what_mkdir_and_rmdir_refuse(course, mnt, shared_mount):
    course.put('file', b'x')
    course.put('full/file', b'x')
    media = course.folder.parent
    assert errno_of(os.mkdir, course.folder / 'full') == 'EEXIST'
    assert errno_of(os.mkdir, course.folder / 'file') == 'EEXIST'
    assert errno_of(os.mkdir, course.folder / 'file/x') == 'ENOTDIR'
    assert errno_of(os.mkdir, course.folder / '.meta') == 'EEXIST'
    assert errno_of(os.mkdir, course.folder / ('n' * 256)) == 'ENAMETOOLONG'
    assert errno_of(os.mkdir, os.fsencode(course.folder) + b'/\xff\xfe') == 'EILSEQ'
    assert errors_of(mnt)[-1]['path'] == f'regions/europe/media/{course.id}/\ufffd\ufffd'
    assert rf'media/{course.id}/\xff\xfe: ' in shared_mount.log_file.read_text()
    assert errno_of(os.rmdir, course.folder / 'full') == 'ENOTEMPTY'
    assert errno_of(os.rmdir, course.folder / 'file') == 'ENOTDIR'
    assert errno_of(os.rmdir, course.folder / 'none') == 'ENOENT'
    assert errno_of(os.unlink, course.folder / 'full') in ('EISDIR', 'EPERM')
    assert errno_of(os.mkdir, media / '999999999') == 'ENOENT'
    assert errno_of(os.mkdir, media / 'notes') == 'ENOENT'
    assert errno_of(os.mkdir, media / f'0{course.id}') == 'ENOENT'
    assert not course.bucket.folders.count_documents({'_id': {'$in': ['999999999', 'notes', f'0{course.id}']}})


def test_what_can_be_made_nowhere_is_told_in_words(course, mnt):
    path = course.put('file', b'x')
    for name in (path.with_name('made'), course.folder.parent / 'made'):
        assert errno_of(os.link, path, name) == 'EPERM'
        assert errors_of(mnt, str(name.relative_to(mnt))) == [], 'tools that make a backup try it, and do without'
        assert errno_of(os.symlink, 'file', name) == 'EPERM'
        words = errors_of(mnt, str(name.relative_to(mnt)))[-1]
        assert words['errno'] == 'EPERM' and 'links' in words['message']
    for name in (path.with_name('pipe'), mnt / 'regions/europe/users/pipe'):
        assert errno_of(os.mkfifo, name) == 'EPERM'
        assert 'pipes' in errors_of(mnt, str(name.relative_to(mnt)))[-1]['message']
    assert errno_of(os.mkdir, mnt / 'regions/europe/users/274877906000.json') == 'EPERM'
    assert 'no folder' in errors_of(mnt, 'regions/europe/users/274877906000.json')[-1]['message']


def test_a_course_without_media_has_a_folder_by_name(course):
    assert str(course.id) not in names(course.folder.parent)
    assert course.folder.is_dir() and names(course.folder) == []
    (course.folder / 'week').mkdir()
    assert str(course.id) in names(course.folder.parent)


def test_attributes_of_folders_are_kept(course, new_mount):
    folder = course.folder / 'week'
    folder.mkdir()
    os.chmod(folder, 0o2775)
    os.utime(folder, ns=(1500000000123456789, 1500000000123456789))
    os.chown(folder, 12, 34)
    for seen in (folder, new_mount().directory / folder.relative_to(course.folder.parents[3])):
        status = seen.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o2775, 12, 34)
        assert status.st_mtime_ns == 1500000000123456789
    (folder / 'new').mkdir()
    assert folder.stat().st_mtime > 1600000000


# ---- files

def test_unlink_takes_all_revisions(course, bucket):
    bucket.put(f'{course.id}/talk', b'old')
    path = course.put('talk', b'newer')
    assert process.wait_until(lambda: path.read_bytes() == b'newer', 60, 0.01)
    fd = os.open(path, os.O_RDONLY)
    path.unlink()
    assert errno_of(path.stat) == 'ENOENT' and names(course.folder) == []
    assert bucket.files.count_documents({'filename': f'{course.id}/talk'}) == 0
    assert bucket.uploads.count_documents({'path': f'{course.id}/talk', 'retired': {'$exists': True}}) == 2, 'for the sweep'
    assert os.pread(fd, 10, 0) == b'newer'  # its chunks go later
    os.close(fd)


def test_rename(course, bucket):
    data = random.Random(1).randbytes(600000)
    path = course.put('a film.mp4', data, title='A film')
    os.mkdir(course.folder / 'week')
    before = path.stat()
    os.rename(path, course.folder / 'week/b.mp4')
    after = (course.folder / 'week/b.mp4').stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    assert not path.exists() and names(course.folder) == ['week']
    assert bucket.get(f'{course.id}/week/b.mp4') == data
    assert bucket.files.find_one({'filename': f'{course.id}/week/b.mp4'})['metadata']['title'] == 'A film'
    assert bucket.files.count_documents({'filename': {'$regex': f'^{course.id}/'}}) == 1


def test_rename_over_a_target(course, bucket):
    bucket.put(f'{course.id}/new', b'an old revision of the source')
    new = course.put('new', b'source')
    target = course.put('target', b'the target')
    assert process.wait_until(lambda: new.read_bytes() == b'source', 60, 0.01)
    mtime = new.stat().st_mtime_ns
    with open(target, 'rb') as reader:
        os.rename(new, target)
        assert reader.read() == b'the target'
    assert target.read_bytes() == b'source'
    assert target.stat().st_mtime_ns == mtime
    assert names(course.folder) == ['target']
    assert [d['length'] for d in bucket.files.find({'filename': {'$regex': f'^{course.id}/'}})] == [6]
    assert bucket.get(f'{course.id}/target') == b'source'
    retired = bucket.uploads.find({'path': {'$regex': f'^{course.id}/'}, 'retired': {'$exists': True}})
    assert sorted(entry['path'] for entry in retired) == [f'{course.id}/new', f'{course.id}/target'], 'for the sweep'


def test_rename_over_a_target_of_a_file_without_metadata(course):
    path = course.insert('odd', 4, 4, [(0, b'abcd')])
    mtime = path.stat().st_mtime_ns
    course.put('over', b'x')
    os.rename(path, course.folder / 'over')
    assert (course.folder / 'over').read_bytes() == b'abcd'
    assert (course.folder / 'over').stat().st_mtime_ns == mtime


def test_rename_across_courses(course, bucket, new_course, mnt):
    other = mnt / f'regions/europe/media/{new_course().id}'
    course.put('week/film', b'film')
    os.rename(course.folder / 'week/film', other / 'film')
    document = bucket.files.find_one({'filename': f'{other.name}/film'})
    assert document['metadata']['courseId'] == int(other.name)
    os.mkdir(other / 'more')
    os.rename(other / 'film', other / 'more/film')
    os.rename(other / 'more', course.folder / 'less')
    os.rmdir(other)
    assert tree_of(course.folder) == {'week': None, 'less': None, 'less/film': b'film'}
    document = bucket.files.find_one({'filename': f'{course.id}/less/film'})
    assert document['metadata']['courseId'] == course.id


def test_rename_of_a_whole_folder(course, bucket, mnt):
    expected = {}
    for name in ('one.txt', 'sub/two.txt', 'sub/three.txt', 'sub/deep/er/four.txt', 'sub/two.txt'):
        bucket.put(f'{course.id}/old/{name}', name.encode())
        expected[name] = name.encode()
    for name in expected:
        appears(course.folder / 'old' / name)
    (course.folder / 'old/empty').mkdir()
    os.chmod(course.folder / 'old/empty', 0o711)
    inside = os.open(course.folder / 'old/sub', os.O_RDONLY | os.O_DIRECTORY)
    ino, whole = os.fstat(inside).st_ino, (course.folder / 'old').stat().st_ino
    os.rename(course.folder / 'old', course.folder / 'new one')
    assert (course.folder / 'new one').stat().st_ino == whole
    assert names(course.folder) == ['new one']
    found = {name: data for name, data in tree_of(course.folder / 'new one').items() if data is not None}
    assert found == expected
    assert stat.S_IMODE((course.folder / 'new one/empty').stat().st_mode) == 0o711
    assert os.stat('two.txt', dir_fd=inside).st_size == 11
    assert (course.folder / 'new one/sub').stat().st_ino == ino
    os.close(inside)
    filenames = {d['filename'] for d in bucket.files.find({'filename': {'$regex': f'^{course.id}/'}})}
    assert filenames == {f'{course.id}/new one/{name}' for name in expected}
    assert bucket.db[f'{bucket.name}.renames'].count_documents({}) == 0


def test_a_file_is_the_same_to_the_kernel_after_renames(course):
    """Also once more is known of it than that it was renamed: readers' pages stay good."""
    (course.folder / 'old').mkdir()
    path = course.folder / 'old/one'
    path.write_bytes(b'1')
    node, ino = node_of(path), path.stat().st_ino
    os.rename(path, course.folder / 'old/two')
    os.chmod(course.folder / 'old/two', 0o600)
    assert node_of(course.folder / 'old/two') == node
    os.rename(course.folder / 'old', course.folder / 'new')
    os.chmod(course.folder / 'new/two', 0o640)
    moved = course.folder / 'new/two'
    assert (node_of(moved), moved.stat().st_ino, moved.read_bytes()) == (node, ino, b'1')


def test_what_rename_refuses(course, mnt):
    course.put('file', b'x')
    course.put('full/file', b'x')
    (course.folder / 'empty').mkdir()
    folder = course.folder
    assert errno_of(os.rename, folder / 'file', folder / 'full') == 'EISDIR'
    assert errno_of(os.rename, folder / 'empty', folder / 'full') == 'ENOTEMPTY'
    assert errno_of(os.rename, folder / 'empty', folder / 'file') == 'ENOTDIR'
    assert errno_of(os.rename, folder / 'full', folder / 'full/inner') == 'EINVAL'
    assert errno_of(os.rename, folder / 'none', folder / 'other') == 'ENOENT'
    assert errno_of(os.rename, folder / 'file', folder / '.meta') == 'EISDIR'
    assert errno_of(os.rename, folder, folder.parent / '1') == 'EPERM'
    assert 'cannot be renamed' in last_error(mnt)['message']
    assert errno_of(renameat2, folder / 'file', folder / 'full/file', 1) == 'EEXIST'  # RENAME_NOREPLACE
    assert errno_of(renameat2, folder / 'file', folder / 'full/file', 2) == 'EINVAL'  # RENAME_EXCHANGE
    assert errno_of(os.rename, folder / 'file', mnt / 'regions/europe/users/file') == 'EXDEV'
    assert errno_of(os.rename, folder / 'file', mnt / f'regions/africa/media/{course.id}') in ('EXDEV', 'ENOENT')
    os.rename(folder / 'full', folder / 'empty')
    assert tree_of(folder) == {'file': b'x', 'empty': None, 'empty/file': b'x'}


def test_a_rename_that_a_crash_ended_is_finished(course, bucket, new_mount):
    """The journal and half of the documents are what a daemon that died in the middle leaves."""
    for name in ('a', 'b', 'sub/c'):
        bucket.put(f'{course.id}/from/{name}', name.encode())
    bucket.folders.insert_one({'_id': f'{course.id}/from/empty'})
    now = bucket.files.find_one({'filename': f'{course.id}/from/sub/c'})['uploadDate']
    bucket.files.update_one({'filename': f'{course.id}/from/a'}, {'$set': {'filename': f'{course.id}/to/a'}})
    bucket.insert(f'{course.id}/from/later', 1, 1, [(0, b'l')], uploadDate=now.replace(year=2999))  # no part of it
    bucket.db[f'{bucket.name}.renames'].insert_one(
        {'from': f'{course.id}/from', 'to': f'{course.id}/to', 'began': now, 'heartbeat': now, 'owner': 'elsewhere:1'})
    relative = course.folder.relative_to(course.folder.parents[3])
    bucket.db[f'{bucket.name}.renames'].update_many({}, {'$set': {'heartbeat': datetime.datetime.now(datetime.timezone.utc)}})
    assert names(new_mount().directory / relative / 'from') == ['b', 'empty', 'later', 'sub'], 'somebody is at it'
    bucket.db[f'{bucket.name}.renames'].update_many({}, {'$set': {'heartbeat': now.replace(year=2020)}})
    folder = new_mount().directory / relative
    assert tree_of(folder) == {'to': None, 'to/a': b'a', 'to/b': b'b', 'to/sub': None, 'to/sub/c': b'sub/c',
                               'to/empty': None, 'from': None, 'from/later': b'l'}
    assert bucket.db[f'{bucket.name}.renames'].count_documents({}) == 0


# ---- other drivers

def test_changes_come_by_the_change_stream_as_soon_as_there_is_one(cluster, course, bucket, new_mount):
    """Nothing is asked for within the test's time. A server that was restarted as a member of a replica set is asked again
    what it can do."""
    health = json.loads(cluster.run('health', '--json', check=False).stdout)
    if not health['mongodb']['capabilities']['change_streams']:
        pytest.skip('the server has none')
    proxy = MediaProxy(cluster.mongodb.uri)
    proxy.rule('aggregate', '1', action='error', code=40573, write=False)
    mount = new_mount(mongodb_uri=proxy.uri, media_poll='10min')
    folder = mount.directory / course.folder.relative_to(course.folder.parents[3])
    streams = lambda n: (f'campusfs_media_index_streaming{{region="europe"}} {n}\n'  # noqa: E731
                         in (mount.directory / '.campusfs/metrics').read_text())
    os.listdir(folder.parent)
    assert streams(0)
    proxy.clear()
    proxy.rule('ping', '1', action='cut', times=1)
    assert process.wait_until(lambda: streams(1), 60, 0.05)
    bucket.put(f'{course.id}/theirs', b'theirs')
    assert appears(folder / 'theirs').read_bytes() == b'theirs'
    bucket.remove(f'{course.id}/theirs')
    disappears(folder / 'theirs')
    assert mount.stop() == 0
    proxy.close()


def test_renames_and_removals_by_another_driver(course, bucket):
    path = course.put('one', b'1')
    ino = path.stat().st_ino
    bucket.files.update_one({'filename': f'{course.id}/one'}, {'$set': {'filename': f'{course.id}/far/away/two'}})
    moved = appears(course.folder / 'far/away/two')
    assert moved.read_bytes() == b'1' and moved.stat().st_ino == ino
    assert names(course.folder) == ['far']
    bucket.remove(f'{course.id}/far')
    disappears(course.folder / 'far')


def test_own_changes_are_never_undone_by_late_reports(course, bucket):
    """Each step is seen at once and stays, while the reports of the earlier ones arrive."""
    for n in range(15):
        bucket.put(f'{course.id}/f{n}', b'x')
    for n in range(15):
        path = appears(course.folder / f'f{n}')
        for step in range(4):
            new = course.folder / f'f{n}-{step}'
            os.rename(path, new)
            assert new.exists() and not path.exists()
            path = new
        os.unlink(path)
        assert not path.exists()
    assert names(course.folder) == []


@pytest.mark.parametrize('filename', ['', '/', '{id}', '/{id}/x', '{id}//x', '{id}/', '{id}/../x', '{id}/./x', '../x',
                                      '{id}/a\0b', '{id}/.meta/x', '0{id}/x', '-1/x', 'film.mp4', '{id}/' + 'n' * 256,
                                      '{id}/' + 'n/' * 2100, '274877906944/x', None, 5])
def test_filenames_that_are_no_path_are_left_out(course, bucket, mnt, filename):
    if isinstance(filename, str):
        filename = filename.replace('{id}', str(course.id))
    before = set(names(course.folder.parent))
    file_id = bucket.insert(filename, 4, 4, [(0, b'evil')])
    try:
        course.put('good', b'good')  # reported behind it
        assert tree_of(course.folder) == {'good': b'good'}
        assert set(names(course.folder.parent)) - before <= {str(course.id)}
        assert 'campusfs_media_left_out{region="europe"} 1\n' in (mnt / '.campusfs/metrics').read_text()
    finally:
        bucket.files.delete_one({'_id': file_id})
        bucket.chunks.delete_many({'files_id': file_id})
    gone = 'campusfs_media_left_out{region="europe"} 0\n'
    assert process.wait_until(lambda: gone in (mnt / '.campusfs/metrics').read_text(), 60, 0.01)


def test_a_file_under_the_name_of_a_folder(course, bucket):
    course.put('name', b'file')
    bucket.put(f'{course.id}/name/inner', b'inner')
    appears(course.folder / 'name/inner')
    assert tree_of(course.folder) == {'name': None, 'name/inner': b'inner'}
    bucket.remove(f'{course.id}/name/')
    assert process.wait_until(lambda: (course.folder / 'name').is_file(), 60, 0.01)
    assert (course.folder / 'name').read_bytes() == b'file'


def test_any_name_that_is_utf8(course):
    for name in ('a\nb', ' ', '…' * 85, '-rf', '.hidden', 'ü', '\x7f\x01', 'a"b\\c', 'n' * 255):
        path = course.put(name, name.encode())
        assert name in names(course.folder)
        os.rename(path, course.folder / f'{name[:80]}2')
        os.unlink(course.folder / f'{name[:80]}2')
    assert names(course.folder) == []


# ---- polling, big listings, inode numbers

def test_inode_numbers_after_a_remount(course, new_mount):
    for name in ('a', 'b/c', 'b/d/e'):
        course.put(name, b'x')
    relative = course.folder.relative_to(course.folder.parents[3])
    numbers = lambda root: {str(p.relative_to(root)): p.lstat().st_ino for p in root.rglob('*')}  # noqa: E731
    one, two = numbers(new_mount().directory / relative), numbers(new_mount().directory / relative)
    assert one == two and len(set(one.values())) == 5
    listed = {entry.name: entry.inode() for entry in os.scandir(course.folder)}
    assert listed == {name: one[name] for name in ('a', 'b')}


def fill(bucket, course_id, n):
    for first in range(0, n, 1000):
        bucket.files.insert_many([
            {'filename': f'{course_id}/many/{i:05}.bin', 'length': i, 'chunkSize': 261120,
             'uploadDate': bucket_date(i)} for i in range(first, min(n, first + 1000))])


def bucket_date(i):
    return datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc) + datetime.timedelta(seconds=i)


@pytest.mark.parametrize('n', [2000, pytest.param(50000, marks=pytest.mark.long)])
def test_a_big_listing(course, bucket, new_mount, n):
    fill(bucket, course.id, n)
    folder = new_mount(timeout='60s').directory / course.folder.relative_to(course.folder.parents[3]) / 'many'
    seen = {entry.name: entry.stat(follow_symlinks=False) for entry in os.scandir(folder)}
    assert len(seen) == n and len({s.st_ino for s in seen.values()}) == n
    for i in random.Random(3).sample(range(n), 200):
        status = seen[f'{i:05}.bin']
        assert (status.st_size, status.st_mtime) == (i, bucket_date(i).timestamp())
    bucket.files.delete_many({'filename': {'$gte': f'{course.id}/many/', '$lt': f'{course.id}/many0'}})


# ---- whole trees, courses

def test_a_second_rsync_sends_nothing(course, tmp_path):
    rng = random.Random(7)
    for i in range(12):
        course.put(f'week {i % 3}/file {i}.bin', rng.randbytes(rng.randrange(400000)))
    (course.folder / 'empty').mkdir()
    backup = tmp_path / 'backup'
    command = ['rsync', '-a', '--itemize-changes', '--stats', f'{course.folder}/', backup]
    subprocess.run(command, check=True, capture_output=True)
    second = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert 'Number of regular files transferred: 0' in second
    assert not [line for line in second.splitlines() if line.startswith(('>f', 'cd', '.d'))], second
    assert tree_of(backup) == tree_of(course.folder)


def test_a_course_that_has_media_is_not_deleted(course, mnt):
    row = mnt / f'regions/europe/courses/{course.id}.json'
    course.put('week/film', b'film')
    assert errno_of(os.unlink, row) == 'EBUSY'
    assert f'media/{course.id}' in last_error(mnt)['message']
    shutil.rmtree(course.folder / 'week')
    os.unlink(row)
    assert not row.exists()


def test_a_read_only_mount_changes_nothing(course, new_mount):
    course.put('file', b'x')
    (course.folder / 'empty').mkdir()
    mount = new_mount(['--read-only'])
    folder = mount.directory / course.folder.relative_to(course.folder.parents[3])
    assert (folder / 'file').read_bytes() == b'x'
    for _ in range(1 + made_writable(mount)):  # the kernel's word, and the daemon's
        for call, *arguments in ((os.mkdir, folder / 'n'), (os.unlink, folder / 'file'), (os.rmdir, folder / 'empty'),
                                 (os.rename, folder / 'file', folder / 'x'), (os.chmod, folder, 0o700)):
            assert errno_of(call, *arguments) == 'EROFS', call
