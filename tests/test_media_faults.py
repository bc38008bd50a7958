"""Writing media while MongoDB fails: at each command of an upload, in each way. What close() says is what is there: the old
file or the new one, whole. And the daemon killed at each step of a publication."""

import datetime
import itertools
import json
import os
import random
import signal
import threading
import time

import bson
import process
import pytest
from cluster import SHARDS
from media_proxy import MediaProxy, parse
from media_tools import LONG_AGO, Bucket, bucket, chunk_ids, content, course, expire, mount_behind, sweeping, uploads, write  # noqa: F401
from mongo_proxy import MongoProxy
from mongo_wire import reply
from mount_tools import errno_of, errors_of

KIB, MIB = 1024, 1024 * 1024
CHUNK = 255 * KIB
BATCH = 16 * CHUNK


def noise(size, seed=0):
    return random.Random(seed).randbytes(size)


OLD, NEW = noise(CHUNK + 100), noise(BATCH + CHUNK + 200, 1)
LAST = -(-len(NEW) // CHUNK) - 1


@pytest.fixture(scope='module')
def faulty(cluster):
    with mount_behind(cluster, 'mnt-faulty', timeout='3s') as both:
        yield both


@pytest.fixture
def proxy(faulty):
    yield faulty[0]
    faulty[0].clear()


@pytest.fixture
def mount(faulty, proxy):
    return faulty[1]


@pytest.fixture
def folder(mount, course):
    folder = mount.directory / f'regions/europe/media/{course.id}'
    os.listdir(folder)
    return folder


def last_words(mount, course, name='film'):
    return errors_of(mount.directory, f'regions/europe/media/{course.id}/{name}')[-1]


def is_last(documents):
    return any(bson.decode(document)['n'] == LAST for document in documents)


# ---- an error at each command

FAULTS = {
    'journal': ('insert', 'uploads', {}),
    'first chunks': ('insert', 'chunks', {}),
    'last chunk': ('insert', 'chunks', {'when': is_last}),
    'count': ('aggregate', 'chunks', {}),
    'publish': ('insert', 'files', {}),
}


CODES = [(13, 'EACCES'), (121, 'EINVAL'), (14031, 'ENOSPC'), (11000, 'EEXIST')]


@pytest.mark.parametrize('fault, code, name', [(fault, 8, 'EIO') for fault in FAULTS] +
                         [('publish', *code) for code in CODES] + [('last chunk', 11000, 'EEXIST')])
def test_an_error_reaches_the_writer_and_nothing_is_seen(mount, folder, proxy, bucket, course, fault, code, name):
    command, part, more = FAULTS[fault]
    before = chunk_ids(bucket)
    rule = proxy.rule(command, part, action='error', code=code, write=command == 'insert', **more)
    assert errno_of(write, folder / 'film', NEW) == name
    assert 1 <= rule.done <= 3, 'it is not tried for ever'
    assert content(bucket, course, 'film') is None
    assert not (folder / 'film').exists()
    words = last_words(mount, course)
    assert words['errno'] == name and 'the test says so' in words['message']
    proxy.clear()
    assert process.wait_until(lambda: chunk_ids(bucket) <= before, 60, 0.05), 'what was sent is deleted'
    assert process.wait_until(lambda: not uploads(bucket, course), 60, 0.05)
    write(folder / 'film', NEW)
    assert content(bucket, course, 'film') == NEW == (folder / 'film').read_bytes()


@pytest.mark.parametrize('fault', FAULTS)
@pytest.mark.parametrize('action', ['cut', 'lose', 'error'])
def test_what_passes_is_tried_again(mount, folder, proxy, bucket, course, fault, action):
    """A connection that breaks before or after the server has done what was asked; a conflict that passes."""
    command, part, more = FAULTS[fault]
    rule = proxy.rule(command, part, action=action, code=112, write=False, times=1, **more)
    write(folder / 'film', NEW)
    assert rule.done == 1
    assert content(bucket, course, 'film') == NEW == (folder / 'film').read_bytes()
    document, = bucket.files.find({'filename': f'{course.id}/film'})
    assert bucket.chunks.count_documents({'files_id': document['_id']}) == LAST + 1


@pytest.mark.parametrize('action', ['pass', 'unconfirmed'])
def test_a_publication_that_nobody_knows_of_is_whole_if_it_was_one(mount, folder, proxy, bucket, course, new_mount, action):
    """The switch was made, and its answer comes too late, or says that others have not confirmed it. close() says so, nobody
    deletes the chunks of what everybody sees, and it is not published once more; what the journal keeps, the sweep leaves alone."""
    write(folder / 'film', OLD)
    late = threading.Event()
    proxy.rule('insert', 'files', action=action, times=1, then=lambda: action == 'pass' and late.wait(60))
    fd = os.open(folder / 'film', os.O_WRONLY | os.O_TRUNC)
    os.write(fd, NEW[:MIB])
    os.write(fd, NEW[MIB:])
    assert errno_of(os.close, os.dup(fd)) == 'EIO'
    late.set()
    errno_of(os.pwrite, fd, OLD, 0)
    assert errno_of(os.close, fd) == 'EIO', 'it has failed for good'
    proxy.rule('insert', 'files', action='error', code=8)
    assert errno_of(write, folder / 'other', OLD) == 'EIO'
    left = lambda: [entry['path'] for entry in uploads(bucket, course)]  # noqa: E731
    assert process.wait_until(lambda: f'{course.id}/other' not in left(), 60, 0.05), 'what certainly was not published is deleted'
    assert left() == [f'{course.id}/film']
    assert content(bucket, course, 'film') == NEW
    assert process.wait_until(lambda: (folder / 'film').read_bytes() == NEW, 60, 0.05)
    assert expire(bucket, course) == 1
    sweeping(new_mount, bucket)
    assert process.wait_until(lambda: not bucket.uploads.count_documents({'path': f'{course.id}/film', 'retired': {'$exists': False}}), 60, 0.05)
    assert content(bucket, course, 'film') == NEW


def test_another_file_under_the_id_is_no_success(mount, folder, proxy, bucket, course):
    """As a publication of before could have left it: of other bytes."""
    sent = []
    other = lambda: bucket.files.insert_one({**bson.decode(sent[0][0]), 'filename': f'{course.id}/other', 'length': 5})  # noqa: E731
    proxy.rule('insert', 'files', action='pass', times=1, when=lambda documents: sent.append(documents) or True, call=other)
    assert errno_of(write, folder / 'film', NEW) == 'EEXIST'


def test_an_overwrite_that_fails_leaves_the_old_file(mount, folder, proxy, bucket, course):
    write(folder / 'film', OLD)
    proxy.rule('insert', 'files', action='error', code=8)
    assert errno_of(write, folder / 'film', NEW) == 'EIO'
    assert content(bucket, course, 'film') == OLD == (folder / 'film').read_bytes()


def test_what_is_acknowledged_is_on_the_disks_of_most(mount, folder, proxy, course):
    """Every write, of uploads and of names: else what close() said would not be true after a failover."""
    proxy.log.clear()
    write(folder / 'film', OLD)
    with open(folder / 'film', 'r+b') as file:
        file.write(NEW[:100])
        file.flush()
        os.fsync(file.fileno())
        file.write(NEW[100:200])
    (folder / 'week').mkdir()
    os.rename(folder / 'film', folder / 'week/film')
    os.chmod(folder / 'week/film', 0o600)
    os.rename(folder / 'week', folder / 'unit')
    os.remove(folder / 'unit/film')
    concerns = {(command, part): concern for command, part, _, concern in proxy.log if command in ('insert', 'update', 'delete')}
    assert {('insert', 'uploads'), ('insert', 'chunks'), ('update', 'uploads'), ('insert', 'files'), ('update', 'files'),
            ('delete', 'files'), ('insert', 'folders'), ('delete', 'uploads'), ('insert', 'renames')} <= concerns.keys()
    assert {what for what, concern in concerns.items() if not concern or concern.get('w') != 'majority'} == set()
    assert all(concerns[what].get('j') for what in concerns if what[0] == 'insert')


def test_chunks_that_a_server_forgot_are_not_published(mount, folder, proxy, bucket, course):
    proxy.rule('insert', 'chunks', action='pretend', n=1, when=is_last)
    assert errno_of(write, folder / 'film', NEW) == 'EIO'
    assert f'of {LAST + 1} chunks' in last_words(mount, course)['message']
    assert content(bucket, course, 'film') is None


def claim(bucket, course):
    """What a sweep does before it deletes anything; the id of the upload."""
    entry, = uploads(bucket, course)
    done = bucket.uploads.update_one({'_id': entry['_id']}, {'$unset': {'heartbeat': 1}, '$set': {'swept': LONG_AGO}})
    assert done.modified_count == 1
    return entry['_id']


def test_what_was_counted_while_the_rest_was_sent(cluster, new_mount, bucket, course):
    """A long file's chunks are counted by slices as they come. One that is not there is missed all the same, and none of
    them is trusted when a sweep may have begun since."""
    proxy = MediaProxy(cluster.mongodb.uri)
    mount = new_mount(mongodb_uri=proxy.uri, timeout='60s', media_sweep='0')
    path, data = mount.directory / f'regions/europe/media/{course.id}/film', noise(300 * CHUNK + 1)
    proxy.rule('insert', 'chunks', action='pretend', n=16, times=1)
    assert errno_of(write, path, data) == 'EIO'
    assert 'of 301 chunks that MongoDB acknowledged it has 285' in last_words(mount, course)['message']
    proxy.clear()
    proxy.log.clear()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.write(fd, data)
    os.fsync(fd)
    steps = [entry[:2] for entry in proxy.log]
    assert ('aggregate', 'chunks') in steps[:len(steps) - steps[::-1].index(('insert', 'chunks'))]
    claim(bucket, course)
    assert errno_of(os.close, fd) == 'EIO'
    assert 'swept' in last_words(mount, course)['message']
    assert content(bucket, course, 'film') is None
    assert mount.stop() == 0
    proxy.close()


def test_a_lease_that_a_sweep_has_claimed_is_not_renewed(new_mount, bucket, course):
    mount = new_mount(timeout='60s', media_sweep='0')
    fd = os.open(mount.directory / f'regions/europe/media/{course.id}/film', os.O_WRONLY | os.O_CREAT)
    os.write(fd, NEW)
    os.fsync(fd)
    claim(bucket, course)
    assert errno_of(os.fsync, fd) == 'EIO'
    assert 'swept' in last_words(mount, course)['message']
    assert not uploads(bucket, course)
    assert errno_of(os.close, fd) == 'EIO'
    assert content(bucket, course, 'film') is None


@pytest.mark.parametrize('change', ['unlink', 'rename', 'rename over it'])
def test_a_name_that_changes_while_its_file_is_being_published(new_mount, proxy, bucket, course, change):
    """Nothing comes back under a name that was removed or given away, though its close began before."""
    mount = new_mount(mongodb_uri=proxy.uri, timeout='60s', media_sweep='0')
    folder = mount.directory / f'regions/europe/media/{course.id}'
    path, other = folder / 'film', folder / 'other'
    write(path, OLD)
    write(other, noise(10))
    begun, go_on, said = threading.Event(), threading.Event(), []
    proxy.rule('insert', 'files', action='pass', times=1, call=lambda: (begun.set(), go_on.wait(30)))
    calls = {'unlink': lambda: os.unlink(path), 'rename': lambda: os.rename(path, folder / 'new'),
             'rename over it': lambda: os.rename(other, path)}
    writer = threading.Thread(target=lambda: said.append(errno_of(write, path, NEW)))
    changer = threading.Thread(target=lambda: said.append(errno_of(calls[change])))
    writer.start()
    assert begun.wait(60)
    changer.start()
    changer.join(0.5)  # one that did not wait for the publication would have ended
    go_on.set()
    writer.join()
    changer.join()
    assert said == [None, None]
    names = {'unlink': {'other': noise(10)}, 'rename': {'other': noise(10), 'new': NEW}, 'rename over it': {'film': noise(10)}}
    assert {name: (folder / name).read_bytes() for name in os.listdir(folder)} == names[change]
    for name in ('film', 'new', 'other'):
        assert content(bucket, course, name) == names[change].get(name)


@pytest.mark.long
def test_a_name_is_not_removed_while_its_file_takes_long_to_be_published(mount, folder, proxy, bucket, course):
    begun = threading.Event()
    proxy.rule('aggregate', 'chunks', action='delay', seconds=2, call=begun.set)
    proxy.rule('insert', 'files', action='delay', seconds=2)
    writer = threading.Thread(target=write, args=(folder / 'film', NEW))
    write(folder / 'film', b'')
    writer.start()
    assert begun.wait(60)
    assert errno_of(os.unlink, folder / 'film') == 'EBUSY'
    assert 'being published' in last_words(mount, course)['message']
    writer.join()
    assert (folder / 'film').read_bytes() == NEW
    os.unlink(folder / 'film')
    assert os.listdir(folder) == []


def test_a_rename_over_a_target_that_breaks_off(mount, folder, proxy, bucket, course):
    """Renamed, and what was replaced not removed yet: who looks sees the one that was renamed."""
    write(folder / 'source', NEW)
    future = bucket.put(f'{course.id}/target', OLD)
    bucket.files.update_one({'_id': future}, {'$set': {'uploadDate': LONG_AGO.replace(year=2200)}})
    known = lambda: errno_of(os.stat, folder / 'target') is None and os.stat(folder / 'target').st_mtime > 7e9  # noqa: E731
    assert process.wait_until(known, 60, 0.01)
    proxy.rule('delete', 'files', action='error', code=8)
    assert errno_of(os.rename, folder / 'source', folder / 'target') == 'EIO'
    assert content(bucket, course, 'target') == NEW and content(bucket, course, 'source') is None
    proxy.clear()
    assert (folder / 'target').read_bytes() == NEW
    write(folder / 'target', OLD)
    assert content(bucket, course, 'target') == OLD


class EveryTenthFails(MediaProxy):
    """Of the commands that read and write, by an error that does not pass; until .over."""
    def __init__(self, uri):
        self.numbers, self.over = itertools.count(1), False
        super().__init__(uri)

    def handle(self, request, client, server):
        parsed = parse(request)
        if parsed and not self.over and parsed[0] in ('find', 'insert', 'update', 'delete', 'aggregate') \
                and next(self.numbers) % 10 == 0:
            client.sendall(reply(request, {'ok': 0.0, 'code': 8, 'errmsg': 'the test says so'}))
            return True
        return super().handle(request, client, server)


def test_every_tenth_command_fails(cluster, new_mount, bucket, course):
    """Whatever close() said is what there is: the new file, whole, or the old one, or none. Rows never notice."""
    old = {n: noise(100 + n, n) for n in range(0, 30, 2)}
    for n, data in old.items():
        bucket.put(f'{course.id}/{n}', data, mode=0o644)
    proxy = EveryTenthFails(cluster.mongodb.uri)
    mount = new_mount(mongodb_uri=proxy.uri, timeout='5s', media_sweep='0')
    folder, row = (mount.directory / f'regions/europe/{name}' for name in (f'media/{course.id}', f'courses/{course.id}.json'))
    assert process.wait_until(lambda: errno_of(os.listdir, folder) is None, 60, 0.05)
    new = {n: noise(CHUNK + n if n % 5 == 0 else 1000 + n, n + 50) for n in range(30)}
    said = {}
    for n, data in new.items():
        said[n] = errno_of(write, folder / f'{n}', data)
        assert json.loads(row.read_text())['id'] == course.id
    assert set(said.values()) == {None, 'EIO'}
    wanted = {n: old.get(n) if said[n] else new[n] for n in new}
    assert {n: content(bucket, course, f'{n}') for n in new} == wanted
    read, results = {}, set()
    for n in new:
        results.add(errno_of(lambda n=n: read.update({n: (folder / f'{n}').read_bytes()})))
    assert all(data == wanted[n] for n, data in read.items()) and results <= {None, 'EIO', 'ENOENT'}
    proxy.over = True
    shown = lambda n: (folder / f'{n}').read_bytes() if (folder / f'{n}').exists() else None  # noqa: E731
    agrees = lambda: errno_of(os.listdir, folder) is None and {n: shown(n) for n in new} == wanted  # noqa: E731
    assert process.wait_until(agrees, 60, 0.05)
    assert mount.stop() == 0
    proxy.close()


def test_a_course_is_not_deleted_while_nobody_knows_of_its_media(mount, folder, proxy, course):
    row = mount.directory / f'regions/europe/courses/{course.id}.json'
    proxy.rule('find', 'files', action='error', code=8, write=False)
    assert errno_of(os.unlink, row) == 'EIO'
    assert json.loads(row.read_text())['id'] == course.id


def test_a_slow_server_only_takes_time(mount, folder, proxy, bucket, course):
    proxy.rule('insert', 'chunks', action='delay', seconds=0.5)
    proxy.rule('insert', 'files', action='delay', seconds=0.5)
    write(folder / 'film', NEW)
    assert content(bucket, course, 'film') == NEW


@pytest.mark.long
def test_a_conflict_that_does_not_pass_costs_the_deadline(mount, folder, proxy, bucket, course):
    rule = proxy.rule('aggregate', 'chunks', action='error', code=112, write=False)
    ended = []
    writer = threading.Thread(target=lambda: ended.append(errno_of(write, folder / 'film', NEW)))
    writer.start()
    writer.join(60)
    tries, rule.times = rule.done, 0
    writer.join()
    assert ended == ['EAGAIN'] and tries > 3
    assert content(bucket, course, 'film') is None


def test_a_server_that_says_nothing_costs_the_deadline(mount, folder, proxy, bucket, course):
    write(folder / 'old', OLD)
    hang = threading.Event()
    proxy.rule('insert', 'chunks', action='cut', call=lambda: hang.wait(60))
    started = time.monotonic()
    try:
        assert errno_of(write, folder / 'film', NEW) == 'EIO'
        assert time.monotonic() - started < 45
        row = next((mount.directory / 'regions/europe/courses').glob(f'{course.id}.json'))
        assert json.loads(row.read_text())['id'] == course.id, 'rows never notice'
        assert (folder / 'old').read_bytes() == OLD
    finally:
        proxy.clear()
        hang.set()
    assert process.wait_until(lambda: errno_of(write, folder / 'film', NEW) is None, 30, 0.1)
    assert content(bucket, course, 'film') == NEW


# ---- the daemon killed at each step

STEPS = {
    'journal': ('insert', 'uploads', 'call'),
    'journalled': ('insert', 'uploads', 'then'),
    'chunks': ('insert', 'chunks', 'call'),
    'chunks sent': ('insert', 'chunks', 'then'),
    'last chunk': ('insert', 'chunks', 'then'),
    'count': ('aggregate', 'chunks', 'call'),
    'publish': ('insert', 'files', 'call'),
    'published': ('insert', 'files', 'then'),
    'journal dropped': ('delete', 'uploads', 'call'),
}


SOON = ('chunks', 'publish', 'published')


@pytest.mark.parametrize('step, exists', [pytest.param(step, exists, marks=() if step in SOON and exists else
                                                       pytest.mark.long) for step in STEPS for exists in (True, False)])
def test_a_kill_at_each_step_of_a_publication(cluster, bucket, course, new_mount, step, exists):
    proxy = MediaProxy(cluster.mongodb.uri)
    mount = new_mount(mongodb_uri=proxy.uri, timeout='3s', media_sweep='0')
    folder = mount.directory / f'regions/europe/media/{course.id}'
    before = chunk_ids(bucket)
    if exists:
        write(folder / 'film', OLD)
    command, part, when = STEPS[step]
    pid = mount.pid()
    kill = lambda: (os.kill(pid, signal.SIGKILL), time.sleep(0.05))  # noqa: E731
    proxy.rule(command, part, action='cut' if when == 'call' else 'pass', times=1, **{when: kill},
               when=is_last if step == 'last chunk' else None)
    assert errno_of(write, folder / 'film', NEW) is not None
    proxy.close()
    published = step in ('published', 'journal dropped')
    found = content(bucket, course, 'film')
    assert found == (NEW if published else OLD if exists else None)
    # The next mount shows the same, and its sweep leaves what is published alone and takes the rest.
    expire(bucket, course)
    path = sweeping(new_mount, bucket).directory / f'regions/europe/media/{course.id}/film'
    assert (path.read_bytes() if path.exists() else None) == found
    owned = {repr(document['_id']) for document in bucket.files.find({}, {'_id': 1})}
    assert process.wait_until(lambda: not (chunk_ids(bucket) - before - owned), 30, 0.05)
    assert process.wait_until(lambda: not uploads(bucket, course), 60, 0.05)
    assert content(bucket, course, 'film') == found


def test_a_kill_in_the_middle_of_a_rename_over_a_target(cluster, bucket, course, new_mount):
    """Renamed, and what was replaced is known to the sweep."""
    proxy = MediaProxy(cluster.mongodb.uri)
    mount = new_mount(mongodb_uri=proxy.uri, timeout='3s', media_sweep='0')
    folder, pid = mount.directory / f'regions/europe/media/{course.id}', mount.pid()
    write(folder / 'source', NEW)
    write(folder / 'target', OLD)
    old, = bucket.files.find({'filename': f'{course.id}/target'})
    kill = lambda: (os.kill(pid, signal.SIGKILL), process.wait_until(lambda: mount.pid() is None, 60, 0.01))  # noqa: E731
    proxy.rule('update', 'files', action='pass', times=1, then=kill)
    assert errno_of(os.rename, folder / 'source', folder / 'target') is not None
    proxy.close()
    assert content(bucket, course, 'target') == NEW and content(bucket, course, 'source') is None
    assert bucket.uploads.find_one({'_id': old['_id']})['retired']


# ---- the sweep

def test_live_uploads_stay(new_mount, bucket, course):
    mount = sweeping(new_mount, bucket)
    path = mount.directory / f'regions/europe/media/{course.id}/film'
    with open(path, 'wb', buffering=0) as file:
        file.write(NEW)
        os.fsync(file.fileno())
        entry, = bucket.uploads.find({'path': f'{course.id}/film'})
        assert bucket.chunks.count_documents({'files_id': entry['_id']}) == LAST + 1
        orphan = bucket.put(f'{course.id}/theirs', b'1234', chunk=2)
        bucket.files.delete_one({'_id': orphan})
        time.sleep(0.5)  # several rounds: there is nothing to be waited for
        assert bucket.chunks.count_documents({'files_id': entry['_id']}) == LAST + 1
        assert bucket.chunks.count_documents({'files_id': orphan}) == 2, "what no journal names is nobody's to sweep"
    assert content(bucket, course, 'film') == NEW
    bucket.chunks.delete_many({'files_id': orphan})


def test_a_lease_that_was_lost_ends_the_upload(new_mount, bucket, course):
    mount = sweeping(new_mount, bucket)
    path = mount.directory / f'regions/europe/media/{course.id}/film'
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.write(fd, NEW)
    os.fsync(fd)
    assert expire(bucket, course) == 1
    entry = bucket.uploads.find_one({'path': f'{course.id}/film'})
    assert process.wait_until(lambda: bucket.chunks.count_documents({'files_id': entry['_id']}) == 0, 60, 0.05)
    assert errno_of(os.fsync, fd) == 'EIO'
    assert 'swept' in errors_of(mount.directory, f'regions/europe/media/{course.id}/film')[-1]['message']
    assert errno_of(os.close, fd) == 'EIO'
    assert content(bucket, course, 'film') is None


def test_a_lease_is_renewed_right_before_the_switch(mount, folder, proxy, bucket, course):
    proxy.rule('aggregate', 'chunks', action='pass', times=1, call=lambda: claim(bucket, course))
    before = proxy.count('insert', 'files')
    assert errno_of(write, folder / 'film', NEW) == 'EIO'
    assert proxy.count('insert', 'files') == before


def test_leases_go_by_the_servers_clock(cluster, new_mount, bucket, course, new_user):
    """Those of uploads and renames, what counts as ended, the sweeps' own, and when preferences are to go: the clocks of two
    machines differ, here by an hour."""
    hour = datetime.timedelta(hours=1)
    now = lambda: datetime.datetime.now(datetime.timezone.utc)  # noqa: E731
    ahead = lambda time: time > now() + hour / 2  # noqa: E731
    proxy = MediaProxy(cluster.mongodb.uri)
    proxy.rule('isMaster', '1', action='ahead', by=hour)
    leases, people, renames = bucket.db['leases'], bucket.db['preferences'], bucket.db[f'{bucket.name}.renames']
    leases.delete_many({})
    stranger = people.insert_one({'user_id': bson.Int64(999_999_001), 'updated_at': now()}).inserted_id
    mount = sweeping(new_mount, bucket, mongodb_uri=proxy.uri)
    path, other = mount.directory / f'regions/europe/media/{course.id}/film', bson.ObjectId()
    with open(path, 'wb', buffering=0) as file:
        file.write(NEW[:BATCH])
        file.write(NEW[BATCH:])
        assert process.wait_until(lambda: uploads(bucket, course), 60, 0.01)
        assert ahead(uploads(bucket, course)[0]['heartbeat'])
        bucket.uploads.insert_one({'_id': other, 'path': f'{course.id}/other', 'owner': 'x:1', 'heartbeat': now()})
        assert process.wait_until(lambda: not bucket.uploads.count_documents({'_id': other}), 60, 0.05)
        os.fsync(file.fileno())
        assert ahead(uploads(bucket, course)[0]['heartbeat'])
        assert ahead(bucket.uploads.find_one({'_id': 'sweep'})['until'])
    assert content(bucket, course, 'film') == NEW
    write(path, OLD)
    assert ahead(bucket.uploads.find_one({'path': f'{course.id}/film', 'retired': {'$exists': True}})['retired'])
    assert process.wait_until(lambda: leases.find_one({'_id': 'preferences'}), 60, 0.05)
    assert ahead(leases.find_one({'_id': 'preferences'})['until'])
    assert process.wait_until(lambda: '_deleted_at' in people.find_one({'_id': stranger}), 60, 0.05)
    assert ahead(people.find_one({'_id': stranger})['_deleted_at'])
    people.delete_one({'_id': stranger})
    left, beats = bucket.put(f'{course.id}/from/file', OLD), []
    renames.insert_one({'from': f'{course.id}/from', 'to': f'{course.id}/to', 'began': now(), 'heartbeat': now(), 'owner': 'elsewhere:1'})
    beat = lambda: beats.extend(entry['heartbeat'] for entry in renames.find({'from': f'{course.id}/a'}))  # noqa: E731
    for command in ('update', 'delete'):  # when it is renewed first, and when it ends
        proxy.rule(command, 'renames', action='pass', call=beat)
    bucket.files.insert_many([{'filename': f'{course.id}/a/{n}', 'length': 0, 'chunkSize': 4, 'uploadDate': now()} for n in range(140)])
    assert process.wait_until(lambda: (path.parent / 'a/139').exists(), 60, 0.05)
    os.rename(path.parent / 'a', path.parent / 'b')
    assert len(beats) == 2 and all(map(ahead, beats))
    assert bucket.files.find_one({'_id': left})['filename'] == f'{course.id}/to/file', 'by their clock it is over'
    user = new_user()
    people.insert_one({'user_id': bson.Int64(user.id), 'updated_at': now()})
    os.unlink(mount.directory / f'regions/europe/users/{user.id}.json')
    assert process.wait_until(lambda: '_deleted_at' in people.find_one({'user_id': user.id}), 60, 0.05)
    assert ahead(people.find_one({'user_id': user.id})['_deleted_at'])
    people.delete_one({'user_id': user.id})
    assert mount.stop() == 0
    proxy.close()


def test_the_servers_time_is_not_asked_for_each_file(mount, folder, proxy):
    write(folder / 'film', OLD)
    before = proxy.count('isMaster', '1')
    for _ in range(12):
        write(folder / 'film', b'small')
    assert proxy.count('isMaster', '1') - before < 12


@pytest.mark.parametrize('over', [False, True])
def test_a_file_that_was_swept_before_the_switch_is_taken_back(mount, folder, proxy, bucket, course, over):
    """In spite of the lease, as on a machine that slept: the sweep is still at it, or over."""
    write(folder / 'film', OLD)

    def sweep():
        file_id = claim(bucket, course)
        bucket.chunks.delete_many({'files_id': file_id})
        if over:
            bucket.uploads.delete_one({'_id': file_id})
    proxy.rule('insert', 'files', action='pass', times=1, call=sweep)
    assert errno_of(write, folder / 'film', NEW) == 'EIO'
    assert content(bucket, course, 'film') == OLD

    def is_old():  # what was swept may be seen for a moment
        try:
            return (folder / 'film').read_bytes() == OLD
        except OSError:
            return False
    assert process.wait_until(is_old, 60, 0.05)


def test_of_two_publications_at_a_time_the_older_is_retired(mount, folder, proxy, bucket, course):
    """Others publish the name between the look for what is replaced and the switch."""
    write(folder / 'film', OLD)
    old, sent = bucket.files.find_one({'filename': f'{course.id}/film'}), []
    earlier, later, foreign = bson.ObjectId(), bson.ObjectId(), bson.ObjectId()

    def others():
        document = {**bson.decode(sent[0][0]), 'length': 0}
        step = datetime.timedelta(milliseconds=1)
        bucket.files.insert_many([{**document, '_id': earlier, 'uploadDate': document['uploadDate'] - step},
                                  {**document, '_id': later, 'uploadDate': document['uploadDate'] + step},
                                  {**document, '_id': foreign, 'uploadDate': document['uploadDate'] - step, 'metadata': {}}])
    proxy.rule('insert', 'files', action='pass', times=1, when=lambda documents: sent.append(documents) or True, call=others)
    write(folder / 'film', NEW)
    retired = {entry['_id'] for entry in bucket.uploads.find({'path': f'{course.id}/film', 'retired': {'$exists': True}})}
    assert retired == {old['_id'], bson.decode(sent[0][0])['_id'], earlier}


def test_who_closes_last_wins_though_clocks_differ(mount, folder, proxy, bucket, course):
    """A revision of a machine whose clock is ahead comes while this one is being published."""
    write(folder / 'film', OLD)
    theirs = bson.ObjectId()

    def other():
        ahead = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=30)
        bucket.files.insert_one({'_id': theirs, 'filename': f'{course.id}/film', 'length': 0, 'chunkSize': 4, 'uploadDate': ahead, 'metadata': {}})
    proxy.rule('aggregate', 'chunks', action='pass', times=1, call=other)
    write(folder / 'film', NEW)
    assert content(bucket, course, 'film') == NEW
    assert bucket.uploads.count_documents({'_id': theirs, 'retired': {'$exists': True}}) == 1


def test_a_revision_whose_successor_is_damaged_stays(new_mount, bucket, course):
    """Nothing else of the file is left. Its journal's entry is as well that of its upload, whose writer has crashed."""
    path = new_mount(media_sweep='0').directory / f'regions/europe/media/{course.id}/film'
    write(path, OLD)
    write(path, NEW)
    old, new = bucket.files.find({'filename': f'{course.id}/film'}).sort('uploadDate', 1)
    bucket.chunks.delete_one({'files_id': new['_id'], 'n': LAST})
    bucket.uploads.update_one({'_id': old['_id']}, {'$set': {'retired': LONG_AGO, 'heartbeat': LONG_AGO}})
    sweeping(new_mount, bucket)
    due = [{'retired': LONG_AGO}, {'heartbeat': {'$exists': True}}, {'swept': {'$exists': True}}]
    looked = lambda: bucket.uploads.count_documents({'_id': old['_id'], '$or': due}) == 0  # noqa: E731
    assert process.wait_until(looked, 60, 0.05)
    assert bucket.uploads.count_documents({'_id': old['_id'], 'retired': {'$exists': True}}) == 1, 'another time'
    assert bucket.grid.open_download_stream(old['_id']).read() == OLD


def test_replaced_revisions_go_after_their_time(new_mount, bucket, course):
    keeping = sweeping(new_mount, bucket)
    path = keeping.directory / f'regions/europe/media/{course.id}/film'
    write(path, OLD)
    write(path, NEW)
    old, new = bucket.files.find({'filename': f'{course.id}/film'}).sort('uploadDate', 1)
    time.sleep(0.5)
    assert bucket.chunks.count_documents({'files_id': old['_id']}) == 2, 'within media_keep it stays'
    assert keeping.stop() == 0
    sweeping(new_mount, bucket, media_keep='0')
    assert process.wait_until(lambda: bucket.files.count_documents({'filename': f'{course.id}/film'}) == 1, 60, 0.05)
    assert process.wait_until(lambda: bucket.chunks.count_documents({'files_id': old['_id']}) == 0, 60, 0.05)
    assert process.wait_until(lambda: bucket.uploads.count_documents({'_id': old['_id']}) == 0, 60, 0.05)
    assert content(bucket, course, 'film') == NEW


def test_the_specification_of_deleting(new_mount, bucket, course):
    """Its cases, by rm and the sweep that follows: each chunk goes with its file, and no other."""
    files = {'empty': (0, []), 'empty of an old driver': (0, [(0, b'')]), 'two chunks': (8, [(0, b'1234'), (1, b'5678')]),
             'more than it should have': (4, [(0, b'1234'), (1, b'5678'), (700, b'x')]),
             'numbers that are none': (4, [(0, b'1234'), ('x', b'5'), (-1, b'6'), (2.5, b'7'), (float('nan'), b'8'), (2 ** 63 - 1, b'9')])}
    ids = {name: bucket.insert(f'{course.id}/{name}', length, 4, chunks) for name, (length, chunks) in files.items()}
    kept, orphan = bucket.put(f'{course.id}/kept', b'12345678', chunk=4, mode=0o644), bson.ObjectId()
    bucket.chunks.insert_one({'files_id': orphan, 'n': 0, 'data': b'1234'})
    folder = sweeping(new_mount, bucket, media_keep='0').directory / f'regions/europe/media/{course.id}'
    assert sorted(os.listdir(folder)) == sorted([*files, 'kept'])
    for name in files:
        os.remove(folder / name)
    assert errno_of(os.remove, folder / 'never was') == 'ENOENT'
    gone = {'$in': list(ids.values())}
    assert process.wait_until(lambda: not bucket.uploads.count_documents({'_id': gone}), 60, 0.05)
    assert not bucket.files.count_documents({'_id': gone}) and not bucket.chunks.count_documents({'files_id': gone})
    assert bucket.chunks.count_documents({'files_id': {'$in': [kept, orphan]}}) == 3
    assert os.listdir(folder) == ['kept'] and content(bucket, course, 'kept') == b'12345678'
    bucket.chunks.delete_one({'files_id': orphan})


def test_a_revision_that_was_never_replaced_stays(new_mount, bucket, course):
    """Retired before the switch, and the switch never came."""
    path = new_mount(media_sweep='0').directory / f'regions/europe/media/{course.id}/film'
    write(path, OLD)
    document, = bucket.files.find({'filename': f'{course.id}/film'})
    bucket.uploads.insert_one({'_id': document['_id'], 'path': f'{course.id}/film', 'owner': 'x:1',
                               'retired': LONG_AGO})
    sweeping(new_mount, bucket, media_keep='0')
    assert process.wait_until(lambda: bucket.uploads.count_documents({'_id': document['_id']}) == 0, 60, 0.05)
    assert content(bucket, course, 'film') == OLD


def test_one_mount_sweeps_and_another_takes_over(cluster, new_mount, bucket):
    """Files, and preferences. A mount that ends gives its leases back; those of a dead one run out."""
    leases, people = bucket.db['leases'], bucket.db['preferences']
    held = (bucket.uploads, 'sweep'), (leases, 'preferences')
    owners = lambda: [(part.find_one({'_id': name}) or {}).get('owner', '') for part, name in held]  # noqa: E731
    has_both = lambda pid: all(f':{pid}:' in owner for owner in owners())  # noqa: E731

    def runs_out(until):
        for part, name in held:
            part.update_one({'_id': name}, {'$set': {'until': until}})

    def three_rounds():
        seen = proxy.count('update', 'leases')
        return process.wait_until(lambda: proxy.count('update', 'leases') >= seen + 3, 60, 0.02)
    proxy = MediaProxy(cluster.mongodb.uri)
    leases.delete_many({})
    first = sweeping(new_mount, bucket, mongodb_uri=proxy.uri)
    pid = first.pid()
    assert process.wait_until(lambda: has_both(pid), 70, 0.05)
    second = new_mount(media_sweep='100ms')
    assert three_rounds() and has_both(pid)
    second.stop()
    # Who has lost it looks at nothing, and at all there is when he has it again.
    leases.update_one({'_id': 'preferences'}, {'$set': {'owner': 'a test', 'until': datetime.datetime(2999, 1, 1)}})
    stranger = {'user_id': bson.Int64(999_997_001)}
    assert three_rounds()
    people.insert_one({**stranger, 'language': 'en', 'updated_at': LONG_AGO})
    assert three_rounds() and '_deleted_at' not in people.find_one(stranger)
    leases.delete_many({})
    assert process.wait_until(lambda: '_deleted_at' in people.find_one(stranger), 60, 0.02)
    people.delete_one(stranger)
    assert process.wait_until(lambda: has_both(pid), 60, 0.05)
    assert first.stop() == 0
    assert owners() == ['', ''], 'given back'
    proxy.close()
    second.start(foreground=True)
    pid = second.pid()
    assert process.wait_until(lambda: has_both(pid), 60, 0.05)
    second.kill()
    runs_out(LONG_AGO)
    second.start(foreground=True)
    assert second.pid() != pid and process.wait_until(lambda: has_both(second.pid()), 60, 0.05)


# ---- the end of a daemon

def test_the_end_of_a_mount_asks_a_server_that_does_not_answer_once(cluster, new_mount):
    """However many leases of sweeps it has to give back: each would wait for its own answer."""
    buckets = [Bucket(cluster.mongodb.uri, region) for _, regions in SHARDS.values() for region in regions]

    def owners():
        return [lease['owner'] for lease in (one.uploads.find_one({'_id': 'sweep'}) for one in buckets) if lease]
    for one in buckets:
        one.uploads.delete_one({'_id': 'sweep'})
    proxy = MongoProxy(cluster.mongodb.uri)
    mount = new_mount(mongodb_uri=proxy.uri, timeout='1s', media_sweep='100ms')
    assert process.wait_until(lambda: len(owners()) == len(buckets), 60) and len(set(owners())) == 1
    before = len(proxy.seen)
    proxy.mute.add('delete')
    assert mount.stop() == 0
    assert proxy.seen[before:].count('delete') <= 2, proxy.seen[before:]  # one of them for preferences
    proxy.mute.clear()
    proxy.stop()
    for one in buckets:
        one.uploads.delete_one({'_id': 'sweep'})
        one.close()
