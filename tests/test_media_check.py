"""campusfs check media and checksums: what they find in a bucket, what they leave alone, and what --repair removes."""

import datetime
import hashlib
import json
import re
import uuid

import bson
import pytest
from library_notice import without_notice
from media_proxy import MediaProxy, parse
from media_tools import Bucket
from mongo_wire import reply
from postgres import free_port

MINUTE, HOUR = datetime.timedelta(minutes=1), datetime.timedelta(hours=1)
COURSE = 5001


def ago(age):
    return datetime.datetime.now(datetime.timezone.utc) - age


def oid(age):
    """An ObjectId that was made so long ago, with another's rest."""
    return bson.ObjectId(bson.ObjectId.from_datetime(ago(age)).binary[:4] + bson.ObjectId().binary[4:])


class Own:
    """A database that no mount looks at, in the suite's server."""

    def __init__(self, cluster, directory):
        self.cluster = cluster
        self.uri = re.sub(r'^(\w+://[^/?]+)(/[^?]*)?', rf'\1/campusfs_check_{uuid.uuid4().hex[:8]}', cluster.mongodb.uri)
        self.config = cluster.write_config(directory / 'check.conf', mongodb_uri=self.uri, media_keep='1h')
        self.europe, self.africa = Bucket(self.uri, 'europe'), Bucket(self.uri, 'africa')

    def check(self, *arguments):
        """The exit code and the findings: [(kind, 'region/filename', the revision, what is said, repaired)]."""
        done = self.cluster.run('check', '--json', *arguments, config=self.config, check=False)
        assert without_notice(done.stderr) == ''
        document = json.loads(done.stdout)
        part, = document['parts']
        assert part['error'] is None and part['found'] == len(part['findings'])
        assert part['repaired'] == sum(finding['repaired'] for finding in part['findings'])
        form = re.compile(r'(\w+): regions/(\w+)/media/(.*) \(revision (.*?)\): (.*)', re.DOTALL)
        found = []
        for finding in part['findings']:
            kind, region, name, revision, detail = form.fullmatch(finding['message']).groups()
            found.append((kind, f'{region}/{name}', revision, detail, finding['repaired']))
        return done.returncode, found

    def kinds(self, *arguments):
        return sorted((kind, name) for kind, name, *_ in self.check(*arguments)[1])

    def state(self):
        """All there is, to see that nothing was touched."""
        return {name: sorted(map(repr, self.europe.db[name].find())) for name in sorted(self.europe.db.list_collection_names())}

    def close(self):
        self.europe.client.drop_database(self.europe.db.name)
        self.europe.close()
        self.africa.close()


@pytest.fixture
def own(cluster, tmp_path):
    made = Own(cluster, tmp_path)
    yield made
    made.close()


def put(bucket, name, data, chunk=4, checksum=None, **metadata):
    """A file as a mount writes it: with its SHA-256."""
    sha256 = checksum or hashlib.sha256(data).hexdigest()
    return bucket.put(f'{COURSE}/{name}', data, chunk=chunk, sha256=sha256, **metadata)


def journal(bucket, revision_id, name, **fields):
    bucket.uploads.insert_one({'_id': revision_id, 'path': f'{COURSE}/{name}', 'owner': 'somebody', **fields})


def chunks_of(bucket, revision_id):
    return bucket.chunks.count_documents({'files_id': revision_id})


def add_chunks(bucket, revision_id, *ids, data=b'abcd'):
    bucket.chunks.insert_many([{'_id': chunk, 'files_id': revision_id, 'n': n, 'data': data} for n, chunk in enumerate(ids)])


# ---- the command

def test_whole_files_are_clean(own):
    for bucket in (own.europe, own.africa):
        put(bucket, 'film.mp4', b'0123456789')
        put(bucket, 'empty', b'')
        bucket.put(f'{COURSE}/of another driver', b'x' * 9, chunk=3)
    own.europe.insert(f'{COURSE}/old driver', 0, 4, [(0, b'')])  # an empty file with an empty chunk
    own.europe.insert(f'{COURSE}/older driver', 4, 4, [(0, b'abcd'), (1, b'')])
    before = own.state()
    for arguments in (['media'], ['--media'], ['checksums'], ['--media', '--repair']):
        assert own.check(*arguments) == (0, []), arguments
    assert own.state() == before


def test_media_alone_goes_with_no_part(own):
    done = own.cluster.run('check', '--media', 'names', config=own.config, check=False)
    assert done.returncode == 64 and '--media is the part media alone' in done.stderr


def test_a_server_that_is_away_is_no_clean_bucket(cluster, tmp_path):
    config = cluster.write_config(tmp_path / 'away.conf', mongodb_uri=f'mongodb://127.0.0.1:{free_port()}/campusfs')
    done = cluster.run('check', '--json', 'media', config=config, check=False)
    document = json.loads(done.stdout)
    assert done.returncode == 2 and document['status'] == 'unknown' and document['parts'][0]['error'], document


class Forgetful(MediaProxy):
    """A server that ends a cursor which is left waiting while other work is done."""

    def __init__(self, uri):
        self.last, self.more = (None, None), set()
        super().__init__(uri)

    def handle(self, request, client, server):
        command, part, body, _ = parse(request) or (None, None, {}, None)
        if command == 'getMore':
            part = body['collection'].rpartition('.')[2]
            self.more.add(part)
            if self.last not in (('find' if part == 'files' else 'aggregate', part), ('getMore', part)):
                client.sendall(reply(request, {'ok': 0.0, 'code': 43, 'codeName': 'CursorNotFound', 'errmsg': 'cursor not found'}))
                return True
        if command in ('find', 'aggregate', 'getMore', 'delete', 'update', 'insert'):
            self.last = (command, part)
        return super().handle(request, client, server)


@pytest.mark.long
def test_no_cursor_waits_while_files_are_read_and_orphans_removed(own, cluster, tmp_path):
    """A server ends it after ten minutes, and its session after thirty, which films take; messages of a listing hold 1000
    files, or 101 ids of chunks."""
    ids = [bson.ObjectId() for _ in range(1001)]
    own.europe.files.insert_many([{'_id': id, 'filename': f'{COURSE}/{n}', 'length': bson.Int64(n < 2), 'chunkSize': 4,
                                   'uploadDate': ago(HOUR)} for n, id in enumerate(ids)])
    own.europe.chunks.insert_many([{'files_id': id, 'n': 0, 'data': b'x'} for id in ids[:2]])
    orphans = [oid(datetime.timedelta(hours=25)) for _ in range(102)]
    own.europe.chunks.insert_many([{'_id': oid(datetime.timedelta(hours=25)), 'files_id': id, 'n': 0, 'data': b'x'} for id in orphans])
    proxy = Forgetful(own.uri)
    config = cluster.write_config(tmp_path / 'forgetful.conf', mongodb_uri=proxy.uri)
    done = cluster.run('check', '--json', '--repair', 'media', config=config, check=False)
    proxy.close()
    part, = json.loads(done.stdout)['parts']
    assert (part['error'], part['repaired'], part['found']) == (None, 102, 102), part
    assert own.europe.chunks.count_documents({}) == 2
    assert {'files', 'chunks'} <= proxy.more


# ---- files

def test_chunks_that_are_missing_or_too_many(own):
    """People decide: nothing of it is removed."""
    expected = []
    surplus = 'it has more than its 1 chunks'
    for said, length, chunks in (('it has 0 chunks and should have 2', 8, []),
                                 ('it has 2 chunks and should have 3', 10, [(0, b'abcd'), (2, b'ij')]),
                                 ('it has 2 chunks and should have 2147483647', 4 * (2 ** 31 - 1), [(0, b'abcd'), (10 ** 9, b'efgh')]),
                                 (surplus, 4, [(0, b'abcd'), (1, b'efgh')]), (surplus, 4, [(0, b'abcd'), (5, b'efgh')]),
                                 (surplus, 4, [(0, b'abcd'), (-1, b'efgh')]), (surplus, 4, [(0, b'abcd'), ('1', b'efgh')]),
                                 (surplus, 4, [(0, b'abcd'), (None, b'efgh')]), (surplus, 4, [(0, b'abcd'), (1, 'text')]),
                                 (surplus, 4, [(0, b'abcd'), (1, b''), (2, b'')])):
        revision = own.europe.insert(f'{COURSE}/film.mp4', length, 4, chunks)
        expected.append(('damaged', f'europe/{COURSE}/film.mp4', str(revision), said, False))
    for chunks in ([5], [-1], ['0'], [None], [-1, 0]):  # behind a gap, or nowhere
        revision = own.europe.insert(f'{COURSE}/gap', 8, 4, [(n, b'efgh') for n in chunks])
        expected += [('damaged', f'europe/{COURSE}/gap', str(revision), said, False)
                     for said in (f'it has {len(chunks) - 1} chunks and should have 2', 'it has more than its 2 chunks')]
    before = own.state()
    for arguments in (['media'], ['media', '--repair']):
        code, found = own.check(*arguments)
        assert code == 1 and sorted(found) == sorted(expected)
    assert own.state() == before


def test_chunks_of_a_wrong_length_are_found_by_reading(own):
    revision = own.europe.insert(f'{COURSE}/film.mp4', 8, 4, [(0, b'abc'), (1, b'efgh')])
    assert own.check('media') == (0, []), 'it counts, and does not read'
    before = own.state()
    (code, ((kind, name, found, said, repaired),)) = own.check('checksums', '--repair')
    assert (code, kind, name, found, repaired) == (1, 'damaged', f'europe/{COURSE}/film.mp4', str(revision), False)
    assert 'too short' in said and own.state() == before


def test_documents_that_contradict_themselves(own):
    for number, fields in enumerate([{'length': -1}, {'length': 'long'}, {'chunk_size': 0}, {'chunk_size': 2 ** 31}]):
        own.europe.insert(f'{COURSE}/{number}', **{'length': 4, 'chunk_size': 4, **fields})
    own.europe.insert(f'{COURSE}/metadata', 4, 4, [(0, b'abcd')], metadata='none')
    own.europe.insert(f'{COURSE}/whole', 4, 4, [(0, b'abcd')])
    for part in ('media', 'checksums'):
        assert own.kinds(part) == [('damaged', f'europe/{COURSE}/{number}') for number in range(4)], part


def test_bytes_that_are_not_those_that_were_written(own):
    revision = put(own.africa, 'film.mp4', b'0123456789', checksum=hashlib.sha256(b'012345678X').hexdigest())
    put(own.africa, 'whole', b'0123456789')
    before = own.state()
    assert own.check('media') == (0, [])
    assert own.check('checksums', '--repair') == (1, [
        ('checksum', f'africa/{COURSE}/film.mp4', str(revision), 'its bytes are not those that were written', False)])
    assert own.state() == before


def test_names_that_no_path_can_be(own):
    names = ['', '/x', f'{COURSE}//x', f'{COURSE}/../x', '../x', f'{COURSE}/./x', 'x', f'{COURSE}/x/', f'{COURSE}/' + 'x' * 256]
    for name in names:
        own.europe.insert(name, 4, 4, [(0, b'abcd')])
    before = own.state()
    code, found = own.check('media', '--repair')
    assert code == 1 and sorted(line[:2] for line in found) == sorted(('name', f'europe/{name}') for name in names)
    assert all(said and not repaired for *_, said, repaired in found)
    assert own.state() == before and own.check('checksums') == (0, [])


def test_a_file_and_a_folder_of_one_name(own):
    """The folder is shown, also an empty one that somebody made."""
    older, hidden, *_ = (put(own.europe, name, b'0123') for name in ('a', 'a', 'a-b', 'a/b', 'a/b/c', 'c', 'empty'))
    own.europe.folders.insert_many([{'_id': f'{COURSE}/{name}', 'mtime': 0} for name in ('c', 'c/d', 'empty')])
    code, found = own.check('media')
    assert code == 1 and {line[3:] for line in found} == {('a folder has its name', False)}
    assert sorted(line[:2] for line in found) == [('name', f'europe/{COURSE}/{name}') for name in ('a', 'a/b', 'c', 'empty')]
    assert str(hidden) in {line[2] for line in found} and str(older) not in {line[2] for line in found}


def test_ids_and_names_of_any_type(own):
    own.europe.files.database.command({'insert': own.europe.files.name, 'bypassDocumentValidation': True, 'documents': [
        {'_id': {'a': 1}, 'filename': f'{COURSE}/document', 'length': 0, 'chunkSize': 4, 'uploadDate': ago(HOUR)},
        {'_id': 'text', 'filename': 7, 'length': 0, 'chunkSize': 4, 'uploadDate': ago(HOUR)}]})
    code, found = own.check('media')
    assert code == 1 and [(kind, name) for kind, name, *_ in found] == [('name', 'europe/')]
    assert 'is no text' in found[0][3] and 'text' in found[0][2]


# ---- the journal

def test_uploads_that_no_mount_has_swept(own):
    """Their chunks go with them, and with nothing else."""
    dead, live = bson.ObjectId(), bson.ObjectId()
    for revision, age in ((dead, 30 * MINUTE), (live, 5 * MINUTE)):
        journal(own.europe, revision, 'film.mp4', heartbeat=ago(age))
        add_chunks(own.europe, revision, bson.ObjectId(), bson.ObjectId())
    published = put(own.europe, 'published', b'0123456789')
    journal(own.europe, published, 'published', heartbeat=ago(30 * MINUTE))
    claimed = bson.ObjectId()
    journal(own.europe, claimed, 'claimed', swept=ago(30 * MINUTE))
    before = own.state()
    said = 'its lease is over, and no mount has swept it'
    expected = sorted(('upload', f'europe/{COURSE}/{name}', str(revision), said)
                      for name, revision in (('film.mp4', dead), ('published', published), ('claimed', claimed)))
    code, found = own.check('media')
    assert code == 1 and sorted(line[:4] for line in found) == expected and not any(line[4] for line in found)
    assert own.state() == before
    code, found = own.check('media', '--repair')
    assert sorted(line[:4] for line in found) == expected and all(line[4] for line in found)
    assert [entry['_id'] for entry in own.europe.uploads.find()] == [live]
    assert (chunks_of(own.europe, dead), chunks_of(own.europe, live)) == (0, 2)
    assert own.europe.get(f'{COURSE}/published') == b'0123456789'
    assert own.check('media') == (0, [])


def test_revisions_whose_time_is_over(own):
    """media_keep is an hour here, and a mount has ten minutes more. What was never replaced after all stays."""
    over, kept, newest = (put(own.europe, 'film.mp4', data) for data in (b'first', b'second', b'third'))
    own.europe.files.update_one({'_id': over}, {'$set': {'uploadDate': ago(3 * HOUR)}})
    own.europe.files.update_one({'_id': kept}, {'$set': {'uploadDate': ago(2 * HOUR)}})
    journal(own.europe, over, 'film.mp4', retired=ago(2 * HOUR))
    journal(own.europe, kept, 'film.mp4', retired=ago(HOUR / 2))
    single = put(own.europe, 'single', b'single')
    journal(own.europe, single, 'single', retired=ago(2 * HOUR))
    expected = sorted((('retired', f'europe/{COURSE}/film.mp4', str(over)), ('retired', f'europe/{COURSE}/single', str(single))))
    before = own.state()
    assert sorted(line[:3] for line in own.check('media')[1]) == expected and own.state() == before
    code, found = own.check('media', '--repair')
    assert sorted(line[:3] for line in found) == expected and all(line[4] for line in found)
    assert {entry['_id'] for entry in own.europe.files.find()} == {kept, newest, single}
    assert chunks_of(own.europe, over) == 0 and chunks_of(own.europe, kept) == 2
    assert own.europe.get(f'{COURSE}/film.mp4') == b'third' and own.europe.get(f'{COURSE}/single') == b'single'
    assert [entry['_id'] for entry in own.europe.uploads.find()] == [kept]
    assert own.check('media') == (0, [])


# ---- chunks that belong to nothing

def test_old_orphans_are_removed_and_nothing_else(own):
    old, other_region = oid(30 * HOUR), oid(30 * HOUR)
    add_chunks(own.europe, old, oid(30 * HOUR), oid(29 * HOUR))
    add_chunks(own.africa, other_region, oid(25 * HOUR))
    whole = put(own.europe, 'film.mp4', b'0123456789')
    before = own.state()
    said = 'chunks that belong to no file'
    expected = sorted([('orphan', 'europe/', str(old), said), ('orphan', 'africa/', str(other_region), said)])
    code, found = own.check('media')
    assert code == 1 and sorted(line[:4] for line in found) == expected and own.state() == before
    code, found = own.check('media', '--repair')
    assert sorted(line[:4] for line in found) == expected and all(line[4] for line in found)
    assert chunks_of(own.europe, old) == chunks_of(own.africa, other_region) == 0
    assert chunks_of(own.europe, whole) == 3 and own.check('media', '--repair') == (0, [])


def test_what_is_old_is_so_by_the_servers_clock(own, cluster, tmp_path):
    """The clock of who checks may be a day ahead: here three hours."""
    id = oid(datetime.timedelta(hours=26))
    add_chunks(own.europe, id, oid(datetime.timedelta(hours=26)))
    proxy = MediaProxy(own.uri)
    proxy.rule('isMaster', '1', action='ahead', by=datetime.timedelta(hours=-3))
    config = cluster.write_config(tmp_path / 'ahead.conf', mongodb_uri=proxy.uri)
    done = cluster.run('check', '--json', '--repair', 'media', config=config, check=False)
    proxy.close()
    part, = json.loads(done.stdout)['parts']
    assert (part['error'], part['found'], part['repaired']) == (None, 1, 0), part
    assert own.europe.chunks.count_documents({'files_id': id}) == 1


def test_what_another_program_may_be_writing_stays(own):
    """Both the file's id and that of its newest chunk have to tell that they are a day old."""
    young, unknown = 'but not 24 hours old: somebody may still be writing them', 'of an age that their ids do not tell'
    expected = []
    for said, file_id, *chunk_ids in ((young, oid(23 * HOUR), oid(30 * HOUR)), (young, oid(30 * HOUR), oid(23 * HOUR)),
                                      (young, oid(30 * HOUR), oid(30 * HOUR), oid(MINUTE)),  # an upload of days
                                      (unknown, 'a text', oid(30 * HOUR)), (unknown, {'a': 1}, oid(30 * HOUR)),
                                      (unknown, oid(30 * HOUR), 'another')):
        add_chunks(own.europe, file_id, *chunk_ids)
        expected.append(('orphan', f'chunks that belong to no file, {said}', False))
    before = own.state()
    code, found = own.check('media', '--repair')
    assert code == 1 and sorted((kind, said, repaired) for kind, _, _, said, repaired in found) == sorted(expected)
    assert own.state() == before
