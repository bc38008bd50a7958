"""Two at once on the names of media: what another mount or driver does in the midst of a change of ours, and what an
earlier one has left."""

import datetime
import os
import threading

import bson
import pytest
from media_tools import LONG_AGO, bucket, course, mount_behind, write  # noqa: F401
from mount_tools import errno_of, metrics, wait_for

pytestmark = pytest.mark.usefixtures('mnt')


@pytest.fixture(scope='module')
def proxied(cluster):
    with mount_behind(cluster, 'mnt-races', '&w=1&readPreference=secondaryPreferred') as both:
        yield both


@pytest.fixture
def proxy(proxied):
    yield proxied[0]
    proxied[0].clear()


@pytest.fixture
def folder(proxied, proxy, course):
    folder = proxied[1].directory / f'regions/europe/media/{course.id}'
    os.listdir(folder)
    return folder


def tree_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob('*')}


def filenames(bucket, course):
    return sorted(document['filename'].partition('/')[2]
                  for document in bucket.files.find({'filename': {'$regex': f'^{course.id}/'}}))


def test_mkdir_is_exclusive(folder, proxy, bucket, course):
    """Also where nobody has told of the other's folder yet: locks are made of it."""
    (folder / 'seen').mkdir()
    for n in range(5):
        proxy.rule('update', 'folders', action='pass', times=1,
                   call=lambda n=n: bucket.folders.insert_one({'_id': f'{course.id}/lock {n}', 'mtime': bson.Int64(1), 'at': LONG_AGO}))
        assert errno_of(os.mkdir, folder / f'lock {n}') == 'EEXIST'
        assert wait_for(lambda n=n: (folder / f'lock {n}').is_dir(), 60)
        proxy.clear()
    proxy.rule('update', 'folders', action='lose', times=1)
    (folder / 'answer lost').mkdir()  # its own, though it is there already when it is made again


def test_what_is_written_to_a_folder_while_it_is_renamed_goes_along(folder, proxy, bucket, course):
    (folder / 'week-1').mkdir()
    write(folder / 'week-1/a', b'a')
    begun, closed = threading.Event(), threading.Event()
    proxy.rule('update', 'files', action='pass', times=1, call=lambda: (begun.set(), closed.wait(60)))
    fd = os.open(folder / 'week-1/new', os.O_WRONLY | os.O_CREAT)
    os.write(fd, b'new')
    renaming = threading.Thread(target=os.rename, args=(folder / 'week-1', folder / 'week-01'))
    renaming.start()
    assert begun.wait(60)
    os.close(fd)
    closed.set()
    renaming.join()
    assert tree_of(folder) == {'week-01': None, 'week-01/a': b'a', 'week-01/new': b'new'}
    assert filenames(bucket, course) == ['week-01/a', 'week-01/new']


def test_a_folder_is_renamed_while_a_file_in_it_is_published(folder, proxy, bucket, course):
    (folder / 'week-1').mkdir()
    write(folder / 'week-1/a', b'a')
    proxy.rule('insert', 'files', action='pass', times=1, call=lambda: os.rename(folder / 'week-1', folder / 'week-01'))
    write(folder / 'week-1/new', b'new')
    assert tree_of(folder) == {'week-01': None, 'week-01/a': b'a', 'week-01/new': b'new'}
    assert filenames(bucket, course) == ['week-01/a', 'week-01/new']


def test_a_folder_is_renamed_to_what_has_just_come(folder, proxy, proxied, bucket, course):
    (folder / 'from/sub').mkdir(parents=True)
    write(folder / 'from/a', b'a')

    def files():
        return metrics(proxied[1].directory)['campusfs_media_files{region="europe"}']

    def come():  # the kernel holds the folder until the rename is answered: its names cannot be looked up
        before = files()
        bucket.put(f'{course.id}/to/b', b'b')
        assert wait_for(lambda: files() > before, 60)
    proxy.rule('find', 'renames', action='pass', times=1, call=come)
    os.rename(folder / 'from', folder / 'to')
    assert tree_of(folder) == {'to': None, 'to/a': b'a', 'to/b': b'b', 'to/sub': None}
    assert filenames(bucket, course) == ['to/a', 'to/b']


def left_by(bucket, course, source, target, began):
    bucket.db[f'{bucket.name}.renames'].insert_one({'from': f'{course.id}/{source}', 'to': f'{course.id}/{target}', 'began': began,
                                                    'heartbeat': LONG_AGO, 'owner': 'elsewhere:1'})


def test_a_rename_that_was_left_moves_nothing_that_came_later(folder, bucket, course, new_mount):
    """All of it was done but the end of its journal; then another folder takes the old name."""
    for name in ('a/file', 'old/other'):
        (folder / name).parent.mkdir()
        write(folder / name, name.encode())
    began = datetime.datetime.now(datetime.timezone.utc)
    os.rename(folder / 'a', folder / 'b')
    left_by(bucket, course, 'a', 'b', began)
    os.rename(folder / 'old', folder / 'a')
    expected = {'a': None, 'a/other': b'old/other', 'b': None, 'b/file': b'a/file'}
    assert tree_of(folder) == expected
    again = new_mount().directory / f'regions/europe/media/{course.id}'
    assert tree_of(again) == expected


def test_the_end_of_a_rename_that_fails_is_made_up_for(folder, proxy, bucket, course):
    (folder / 'from').mkdir()
    write(folder / 'from/a', b'a')
    proxy.rule('delete', 'renames', action='error', code=8, times=1)
    os.rename(folder / 'from', folder / 'to')
    entries = bucket.db[f'{bucket.name}.renames']
    assert wait_for(lambda: entries.count_documents({'from': f'{course.id}/from'}) == 0, 60)
    assert tree_of(folder) == {'to': None, 'to/a': b'a'}


def test_one_connection_is_enough_to_finish_a_rename(bucket, course, new_mount):
    bucket.put(f'{course.id}/from/file', b'1')
    bucket.insert(f'{course.id}/from/x\0y', 1, 1, [(0, b'l')])  # no path: shown nowhere, and moved nowhere
    left_by(bucket, course, 'from', 'to', datetime.datetime.now(datetime.timezone.utc))
    folder = new_mount(mongodb_pool_size='1', timeout='3s').directory / f'regions/europe/media/{course.id}'
    assert tree_of(folder) == {'to': None, 'to/file': b'1'}


def test_a_file_of_many_revisions_goes_by_few_messages(folder, proxy, bucket, course):
    """Removed, replaced by a rename and renamed: else its time is over before the first is gone, each time anew."""
    now, number = datetime.datetime.now(datetime.timezone.utc), 300
    for name in ('one', 'two', 'three'):
        bucket.files.insert_many([{'_id': bson.ObjectId(), 'filename': f'{course.id}/{name}', 'length': bson.Int64(0), 'chunkSize': 261120,
                                   'uploadDate': now - datetime.timedelta(seconds=number - n)} for n in range(number)])
    assert wait_for(lambda: all((folder / name).exists() for name in ('one', 'two', 'three')), 60)
    proxy.log.clear()
    (folder / 'one').unlink()
    os.rename(folder / 'two', folder / 'three')
    assert filenames(bucket, course) == ['three'] and tree_of(folder) == {'three': b''}
    assert proxy.count('delete', 'files') <= 12 and 0 < proxy.count('update', 'uploads') <= 12
    journal = bucket.uploads.count_documents({'path': {'$regex': f'^{course.id}/'}, 'retired': {'$exists': True}})
    assert journal == 3 * number - 1
    bucket.uploads.delete_many({'path': {'$regex': f'^{course.id}/'}})


def test_what_is_acknowledged_is_on_disk_at_a_majority_whatever_the_uri_says(folder, proxy, proxied, course):
    proxy.log.clear()
    (folder / 'from').mkdir()
    write(folder / 'from/a', b'a')
    os.rename(folder / 'from', folder / 'to')
    preferences = min((proxied[1].directory / 'regions/europe/preferences').glob('*.json'))
    text = preferences.read_text()
    preferences.write_text(text.replace('"autoplay": true', '"autoplay": 0').replace('"autoplay": false', '"autoplay": true')
                           .replace('"autoplay": 0', '"autoplay": false'))
    writes = [entry for entry in proxy.log if entry[0] in ('insert', 'update', 'delete', 'findAndModify')]
    assert {('insert', 'files'), ('update', 'files'), ('update', 'folders')} <= {entry[:2] for entry in writes}
    assert any('preferences' in entry[1] for entry in writes)
    for entry in writes:
        assert entry[3] and (entry[3]['w'], entry[3]['j']) == ('majority', True), entry
    preferences.write_text(text)
