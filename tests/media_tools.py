"""What the tests of media share: another driver's view of a region's bucket, and a course to put files in."""

import datetime
import os
from pathlib import Path

import bson
import gridfs
import process
import pymongo
import pytest


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


def appears(path, seconds=10):
    """Waits until the mount shows a file of another driver's."""
    assert process.wait_until(path.exists, seconds, 0.01), f'{path} does not appear'
    return path


def disappears(path, seconds=10):
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
    assert process.wait_until(lambda: not listed(), 20, 0.01)  # other tests look at the whole tree
