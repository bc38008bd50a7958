"""What the tests of media share: another driver's view of a region's bucket, and a course to put files in."""

import contextlib
import datetime
import hashlib
import os
from pathlib import Path

import bson
import gridfs
import process
import pymongo
import pytest
from media_proxy import MediaProxy

LONG_AGO = datetime.datetime(2020, 1, 1)


class Bucket:
    """media_<region> as pymongo sees it. What is put here is another driver's, unless a test says otherwise."""

    def __init__(self, uri, region):
        self.client = pymongo.MongoClient(uri, serverSelectionTimeoutMS=10000, tz_aware=True)
        self.db = self.client.get_default_database('campusfs')
        self.name = f'media_{region}'
        self.files, self.chunks, self.folders, self.uploads = (
            self.db[f'{self.name}.{part}'] for part in ('files', 'chunks', 'folders', 'uploads'))
        self.grid = gridfs.GridFSBucket(self.db, bucket_name=self.name)

    def put(self, filename, data, chunk=None, **metadata):
        return self.grid.upload_from_stream(filename, data, chunk_size_bytes=chunk, metadata=metadata or None)

    def get(self, filename, revision=-1):
        return self.grid.open_download_stream_by_name(filename, revision).read()

    def insert(self, filename, length, chunk_size, chunks=(), **fields):
        """Documents as they are given, past every check; chunks: (n, data) each."""
        document = {'_id': bson.ObjectId(), 'filename': filename, 'length': length, 'chunkSize': chunk_size,
                    'uploadDate': datetime.datetime.now(datetime.timezone.utc), **fields}
        if chunks:
            self.chunks.insert_many([{'files_id': document['_id'], 'n': n, 'data': data} for n, data in chunks])
        self.db.command({'insert': self.files.name, 'documents': [document], 'bypassDocumentValidation': True})
        return document['_id']

    def remove(self, *prefixes):
        """All whose filename begins so, chunks included."""
        for prefix in prefixes:
            for document in self.files.find({'filename': {'$gte': prefix, '$lt': prefix[:-1] + chr(ord(prefix[-1]) + 1)}}):
                self.files.delete_one({'_id': document['_id']})
                self.chunks.delete_many({'files_id': document['_id']})

    def close(self):
        self.client.close()


def appears(path, seconds=60):
    """Waits until the mount shows a file of another driver's."""
    assert process.wait_until(path.exists, seconds, 0.01), f'{path} does not appear'
    return path


def disappears(path, seconds=60):
    assert process.wait_until(lambda: not path.exists(), seconds, 0.01), f'{path} is still there'


def read_at(path, offset, size):
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.pread(fd, size, offset)
    finally:
        os.close(fd)


@pytest.fixture(scope='module')
def bucket(cluster):
    bucket = Bucket(cluster.mongodb.uri, 'europe')
    yield bucket
    bucket.close()


class Course:
    """A course in Europe that has nothing but what a test puts into it."""

    def __init__(self, bucket, course_id, root):
        self.bucket = bucket
        self.id = course_id
        self.folder = Path(root) / f'regions/europe/media/{course_id}'

    def put(self, name, data, **options):
        """By another driver; returns once the mount shows it."""
        self.bucket.put(f'{self.id}/{name}', data, **options)
        return appears(self.folder / name)

    def insert(self, name, *arguments, **fields):
        self.bucket.insert(f'{self.id}/{name}', *arguments, **fields)
        return appears(self.folder / name)


@pytest.fixture
def course(bucket, new_course, mnt):
    made = Course(bucket, new_course().id, mnt)
    yield made
    bucket.remove(f'{made.id}/')
    bucket.folders.delete_many({'$or': [{'_id': str(made.id)}, {'_id': {'$gt': f'{made.id}/', '$lt': f'{made.id}0'}}]})
    listed = lambda: str(made.id) in os.listdir(made.folder.parent)  # noqa: E731
    assert process.wait_until(lambda: not listed(), 60, 0.01)  # other tests look at the whole tree


@contextlib.contextmanager
def mount_behind(cluster, name, query='', **settings):
    """(proxy, mount): one whose MongoDB is behind a proxy; `query` is added to its URI."""
    proxy = MediaProxy(cluster.mongodb.uri)
    settings = {'state_dir': None, 'mongodb_uri': proxy.uri + query, 'media_sweep': '0', **settings}
    config = cluster.write_config(cluster.directory / f'{name}.conf', **settings)
    mount = cluster.mount(cluster.directory / name, config=config)
    yield proxy, mount
    cluster.mounts.remove(mount)
    assert mount.stop() == 0
    mount.clean_up()
    proxy.close()


# ---- uploads

def write(path, data):
    """write() in pieces and close(), every error raised."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        for at in range(0, len(data), 300000):
            os.write(fd, data[at:at + 300000])
    except OSError:
        try:
            os.close(fd)
        except OSError:
            pass
        raise
    os.close(fd)


def content(bucket, course, name):
    """The file as another driver sees it, checked against its checksum; None when there is none."""
    documents = list(bucket.files.find({'filename': f'{course.id}/{name}'}).sort([('uploadDate', 1), ('_id', 1)]))
    if not documents:
        return None
    data = bucket.grid.open_download_stream(documents[-1]['_id']).read()
    assert hashlib.sha256(data).hexdigest() == documents[-1]['metadata'].get('sha256', hashlib.sha256(data).hexdigest())
    return data


def chunk_ids(bucket):
    return {repr(file_id) for file_id in bucket.chunks.distinct('files_id')}  # of any type


def uploads(bucket, course):
    """What the journal has of the course's uploads."""
    return list(bucket.uploads.find({'path': {'$regex': f'^{course.id}/'}, 'heartbeat': {'$exists': True}}))


def expire(bucket, course):
    """Their leases have been over for long."""
    return bucket.uploads.update_many({'_id': {'$in': [upload['_id'] for upload in uploads(bucket, course)]}},
                                      {'$set': {'heartbeat': LONG_AGO}}).modified_count


def sweeping(new_mount, bucket, **settings):
    """A mount that sweeps, all the time; the suite's other mounts do not, for the first that looks has the lease."""
    bucket.uploads.delete_one({'_id': 'sweep'})
    return new_mount(media_sweep='100ms', **settings)
