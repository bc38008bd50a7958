"""Preferences that nobody should write, and MongoDB on bad days: rows never notice."""

import datetime
import errno
import json
import os
import random
import re
import signal
import subprocess
import threading
import time

import bson
import pymongo
import pytest

from mongo_proxy import MongoProxy
from mount_tools import REGIONS, errno_of, health_of, ids_in, run, write_in_place
from saving import errors, eventually, fails, refused
from test_preferences import DEFAULTS, SQL, Preferences, agrees, new_preferences, people  # noqa: F401  (fixtures)

SCHEMA = json.loads((SQL / 'preferences.schema.json').read_text())
PUBLIC = {name: rule for name, rule in SCHEMA['properties'].items() if not name.startswith('_')}
DAYS = ['Europe/Berlin', '', 'x' * 64, 'ß' * 64, 'x' * 65, 'ß' * 65]


# ---- the words of a refusal

@pytest.mark.parametrize('text, column, words', [
    ('{"theme": "purple"}', 'theme', 'must be one of light, dark or system'),
    ('{"theme": null}', 'theme', 'must be one of'),
    ('{"shoe_size": 44}', 'shoe_size', 'there is no such field; the fields are user_id, language'),
    ('{"playback": {"speeed": 1}}', 'playback.speeed', 'the fields are speed, quality'),
    ('{"playback": {"speed": 9}}', 'playback.speed', 'must be one of 0.5, 0.75, 1, 1.25, 1.5, 1.75 or 2'),
    ('{"playback": {"volume": 101}}', 'playback.volume', 'must be a number from 0 to 100'),
    ('{"playback": {"volume": 70.0}}', 'playback.volume', 'must be a whole number'),
    ('{"playback": {"volume": 9223372036854775807}}', 'playback.volume', 'must be a whole number'),
    ('{"playback": {"volume": "loud"}}', 'playback.volume', 'must be a whole number'),
    ('{"playback": []}', 'playback', 'must be an object'),
    ('{"notifications": {"email": 1}}', 'notifications.email', 'must be true or false'),
    ('{"language": "Deutsch"}', 'language', 'must match'),
    ('{"language": ["de"]}', 'language', 'must be a text'),
    ('{"timezone": ""}', 'timezone', 'must have from 1 to 64 characters'),
    ('{"user_id": 7}', 'user_id', 'as the file is named'),
    ('{"user_id": "7"}', 'user_id', 'as the file is named'),
    ('{"updated_at": 7}', 'updated_at', 'must be a time such as'),
    ('{"updated_at": "2026-02-30T00:00:00Z"}', 'updated_at', 'must be a time such as'),
    ('{"updated_at": "2026-+1- 2T03:04:05Z"}', 'updated_at', 'must be a time such as'),
    ('{"updated_at": "2026-01-02T03:04:05+-1:99"}', 'updated_at', 'must be a time such as'),
    ('{"updated_at": "2026-02-20T00:00:00"}', 'updated_at', 'must be a time such as'),
    ('{"_id": 7}', '_id', 'there is no such field'),
    ('{"_campusfs": {}}', '_campusfs', 'there is no such field'),
    ('{"_deleted_at": null}', '_deleted_at', 'there is no such field'),
    ('{"$where": "1"}', '$where', 'there is no such field'),
    ('{"playback.speed": 1}', 'playback.speed', 'there is no such field'),
    ('{"": 1}', '', 'there is no such field'),
    ('{"playback": {"$gt": ""}}', 'playback.$gt', 'there is no such field'),
    ('{"theme": {"$ne": 1}}', 'theme', 'must be one of'),
    ('{"playback": {"speed": 1.00000000000000001}}', '', 'the number 1.00000000000000001 would be rounded'),
    ('{"timezone": "a\\u0000b"}', '', 'NUL'),
    ('{"theme": "dark", "theme": "light"}', '', 'duplicate'),
    ('{"theme": ' + '[' * 10000 + ']' * 10000 + '}', '', 'nested too deep'),
    ('{"theme": ' + '[' * 1000 + ']' * 1000 + '}', '', 'nested too deep'),
    ('{"a": ' * 500 + '1' + '}' * 500, '', 'nested too deep'),
    ('[]', '', 'one JSON object'),
    ('{"theme"', '', 'not valid JSON'),
])
def test_words_for_what_is_refused(new_preferences, mnt, text, column, words):
    prefs = new_preferences()
    prefs.save(theme='dark')
    before, stored = prefs.text(), prefs.stored()
    assert errno_of(write_in_place, prefs.path, text.encode()) == 'EINVAL'
    told = errors(mnt)[-1]
    assert words in told['message'] and (told['column'] or '') == column and str(prefs.id) in told['path']
    assert (prefs.text(), prefs.stored()) == (before, stored)
    assert refused(prefs).read_text() == text


def test_a_document_that_is_too_large(new_preferences):
    prefs = new_preferences()
    text = json.dumps({'timezone': 'x' * 2 ** 20})
    assert errno_of(write_in_place, prefs.path, text.encode()) == 'EFBIG'
    assert errno_of(write_in_place, prefs.path, json.dumps({'timezone': 'x' * 2 ** 19}).encode()) == 'EINVAL'
    assert prefs.stored() is None


def test_who_waits_for_mongodb_hears_of_his_deadline_and_of_an_interrupt(cluster, new_mount, new_preferences):
    """Whatever the driver does: its own waits last a minute here."""
    proxy = MongoProxy(cluster.mongodb.uri)
    mount = new_mount(mongodb_uri=proxy.uri, timeout='60s', media_sweep='0')
    path, other = (new_preferences(root=mount.directory).path for _ in range(2))
    os.stat(path.parent)
    proxy.mute.add('find')
    try:
        reader = subprocess.Popen(['cat', path], stdout=subprocess.DEVNULL)
        assert eventually(lambda: 'find' in proxy.seen)
        reader.kill()
        assert reader.wait(40) == -signal.SIGKILL
        cluster.write_config(mount.config, state_dir=None, mongodb_uri=proxy.uri, timeout='1s', media_sweep='0')
        cluster.run('reload', mount.directory)
        reader = subprocess.Popen(['cat', path], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert 'Input/output error' in reader.communicate(timeout=40)[1]
        assert 'MongoDB did not answer in time' in errors(mount.directory)[-1]['message'], errors(mount.directory)
    finally:
        proxy.mute.clear()
        reader.kill()
    assert eventually(lambda: errno_of(path.read_text) is None)
    cluster.write_config(mount.config, state_dir=None, mongodb_uri=proxy.uri, timeout='10min', media_sweep='0')
    cluster.run('reload', mount.directory)
    proxy.fail['find'], seen = 112, len(proxy.seen)  # which passes, so it is tried again
    reader = subprocess.Popen(['cat', other], stdout=subprocess.DEVNULL)
    assert eventually(lambda: 'find' in proxy.seen[seen:])
    reader.kill()
    reader.wait(40)
    os.kill(mount.pid(), signal.SIGTERM)
    eventually(lambda: mount.pid() is None)
    assert mount.stop() == 0, 'nobody tries again at the end of a mount'
    proxy.stop()


def put_large(people, users, size):
    """What another program has made of their preferences."""
    people.with_options(write_concern=pymongo.WriteConcern('majority')).insert_many(
        [{'user_id': bson.Int64(prefs.id), 'updated_at': datetime.datetime(2026, 2, 3), 'note': 'x' * size} for prefs in users],
        bypass_document_validation=True)


def sizes_in(folder, users):
    wanted = {prefs.path.name for prefs in users}
    return {entry.name: entry.stat().st_size for entry in os.scandir(folder) if entry.name in wanted}


@pytest.mark.long
def test_a_listing_of_documents_that_are_large_together(new_preferences, people):
    """The texts of a page need not fit into memory; sizes are exact, and each is read whole."""
    users = [new_preferences('oceania') for _ in range(4)]
    try:
        put_large(people, users, 6 << 20)
        sizes = sizes_in(users[0].path.parent, users)
        for prefs in users:
            text = prefs.text()
            assert len(text) == sizes[prefs.path.name] and json.loads(text)['note'] == 'x' * (6 << 20)
        people.update_one({'user_id': users[0].id}, {'$set': {'note': '\x01' * (3 << 20)}}, bypass_document_validation=True)
        assert eventually(lambda: len(users[0].text()) > 18 << 20), 'more than all of a list may have'
    finally:
        people.delete_many({'user_id': {'$in': [prefs.id for prefs in users]}})


@pytest.mark.long
def test_a_listing_of_large_documents_takes_little_memory(new_preferences, people, new_mount, sanitized):
    users = [new_preferences('oceania') for _ in range(40)]
    mount = new_mount(timeout='60s')
    peak = lambda: int(re.search(r'VmHWM:\s+(\d+)', open(f'/proc/{mount.pid()}/status').read())[1]) // 1024  # noqa: E731
    folder = mount.directory / 'regions/oceania/preferences'
    os.listdir(folder)
    before = peak()
    try:
        put_large(people, users, 8 << 20)
        assert min(sizes_in(folder, users).values()) > 8 << 20
        assert sanitized or peak() - before < 160
    finally:
        people.delete_many({'user_id': {'$in': [prefs.id for prefs in users]}})


@pytest.mark.parametrize('text, shown', [('2026-11-22T15:48:30Z', '15:48:30.000000Z'),
                                         ('2026-11-22 15:48:30.5Z', '15:48:30.500000Z'),
                                         ('2026-11-22T16:48:30.123456+01:00', '15:48:30.123456Z')])
def test_times_as_they_may_be_written(new_preferences, text, shown):
    """Set by another mount at that moment: what is based on it is no conflict, what is based on the moment before is."""
    prefs = new_preferences()
    prefs.save(theme='dark')
    base = datetime.datetime.fromisoformat(f'2026-11-22T{shown[:-1]}+00:00')
    os.utime(prefs.path, ns=(0, round(base.timestamp() * 10 ** 6) * 1000))
    assert prefs.json()['updated_at'].endswith(shown)
    prefs.path.write_text(json.dumps({'theme': 'light', 'updated_at': text}))
    assert prefs.json()['theme'] == 'light'


# ---- the client's check and the server's

def choices(rule):
    """Values of a field, many of them wrong."""
    wrong = [None, True, 0, -1, 1, 2 ** 31, 2 ** 40, 0.5, 1e300, '', 'x', 'en', [], {}, [1], {'a': 1}]
    return wrong + rule.get('enum', []) + [rule.get('minimum', 0), rule.get('maximum', 0), rule.get('maximum', 0) + 1,
                                           rule.get('minimum', 0) - 1] + \
        (['de', 'de-DE', 'zh-Hant-TW', 'DE', 'de-de', 'deu', 'deut', 'de-', ' de'] if 'pattern' in rule else DAYS)


def right(rule, rng):
    if 'enum' in rule:
        return rng.choice(rule['enum'])
    kind = rule['bsonType']
    return (rng.choice([True, False]) if kind == 'bool' else rng.randint(rule['minimum'], rule['maximum'])
            if kind == 'int' else rng.choice(['de', 'en-GB', 'zh-Hant']) if 'pattern' in rule else 'Asia/Tokyo')


def generate(rng):
    """A document of some fields, most of them right."""
    def fill(rules, wrong):
        document = {}
        for name, rule in rules.items():
            if name in ('user_id', 'updated_at') or rng.random() < 0.3:
                continue
            if rng.random() < wrong:
                document[name] = rng.choice(choices(rule))
            elif 'properties' in rule:
                document[name] = fill(rule['properties'], wrong)
            else:
                document[name] = right(rule, rng)
        if rng.random() < wrong / 3:
            document[rng.choice(['x', 'Theme', 'theme ', 'playback.speed', 'äöü'])] = 1
        return document
    return fill(PUBLIC, rng.choice([0, 0, 0.03, 0.08]))


def test_client_and_server_agree(new_preferences, cluster, lawless):
    """Each document is saved into a file, which only the client checks, and inserted into a collection that has the
    schema for its validator."""
    rng = random.Random(6)
    prefs = new_preferences()
    outcomes = set()
    with cluster.mongodb.client() as client:
        database = client.get_default_database()
        schema = {key: value for key, value in SCHEMA.items() if key not in ('title', 'description')}
        database.drop_collection('agreement')
        database.create_collection('agreement', validator={'$jsonSchema': schema})
        for number in range(250):
            document = generate(rng)
            full = {'user_id': bson.Int64(prefs.id), **document, 'updated_at': datetime.datetime(2026, 1, 1)}
            try:
                database.agreement.insert_one(full)
                server = None
            except pymongo.errors.WriteError as error:
                assert error.code == 121
                server = 'EINVAL'
            ours = errno_of(write_in_place, prefs.path, json.dumps(document, ensure_ascii=False).encode())
            assert ours == server, f'document {number}: {document}'
            outcomes.add(server)
            if ours is None:
                shown = prefs.json()
                assert all(shown[key] == value or shown[key] == {**DEFAULTS[key], **value}
                           for key, value in document.items())
        database.drop_collection('agreement')
    assert outcomes == {None, 'EINVAL'}


def test_one_intended_difference(new_preferences, mnt):
    """`$` of the server's regular expressions lets a line end pass; ours does not."""
    prefs = new_preferences()
    assert errno_of(write_in_place, prefs.path, b'{"language": "de\\n"}') == 'EINVAL'


# ---- documents that other programs should not have stored

@pytest.fixture
def lawless(cluster):
    """MongoDB's collection without its validator, as a server has it that knows none."""
    with cluster.mongodb.client() as client:
        database = client.get_default_database()
        (there,) = database.list_collections(filter={'name': 'preferences'})
        database.command('collMod', 'preferences', validationLevel='off')
        yield database['preferences']
        database.command('collMod', 'preferences', validationLevel=there['options']['validationLevel'])


def test_whatever_is_stored_can_be_read(new_preferences, lawless, mnt):
    prefs = new_preferences()
    odd = {'theme': 5, 'timezone': None, 'playback': [1, 2.5, {'x': -0.0}], 'shoe_size': bson.Int64(2 ** 60),
           'when': datetime.datetime(2026, 1, 1), 'id': bson.ObjectId('0123456789abcdef01234567'), 'blob': b'\0\xff',
           'text': 'ä\n"\\\x7f', 'number': 1e300, 'long': 'x' * 100000, 'a.b': {'$c': 1}}
    document = {'user_id': prefs.id + 0.0, 'updated_at': datetime.datetime(2026, 2, 3), **odd}
    lawless.database.command('insert', 'preferences', documents=[document])  # insert_one() refuses such keys
    shown = eventually(lambda: prefs.json() if 'text' in prefs.json() else None)
    assert prefs.path.stat().st_size == len(prefs.path.read_bytes())
    for name in ('theme', 'timezone', 'shoe_size', 'text', 'number', 'long', 'a.b'):
        assert shown[name] == odd[name]
    assert shown['playback'] == [1, 2.5, {'x': -0.0}] and shown['id'] == {'$oid': '0123456789abcdef01234567'}
    assert shown['user_id'] == prefs.id and shown['updated_at'] == '2026-02-03T00:00:00.000000Z'
    with fails(errno.EINVAL):
        prefs.save(language='de')
    prefs.path.write_text('{"theme": "dark"}')
    assert agrees(prefs)['theme'] == 'dark'


def test_what_cannot_be_shown_is_an_error_of_its_own(new_preferences, lawless, mnt):
    prefs, other = new_preferences(), new_preferences()
    deep = {}
    for _ in range(120):
        deep = {'x': deep}
    prefs.insert(deep=deep)
    assert eventually(lambda: errno_of(prefs.text) == 'EIO')
    assert 'cannot be shown' in errors(mnt)[-1]['message']
    names = os.listdir(prefs.path.parent)
    assert prefs.path.name in names and other.path.name in names
    assert agrees(other)
    run('rm', prefs.path)
    eventually(lambda: errno_of(prefs.text) is None)


# ---- bad days

@pytest.fixture
def proxy(cluster):
    """A proxy of the test's own before the run's MongoDB."""
    proxy = MongoProxy(cluster.mongodb.uri)
    yield proxy
    proxy.frozen = False
    proxy.stop()


@pytest.fixture
def behind(proxy, new_mount, new_user, people):  # noqa: F811
    """A user's preferences in a mount that reaches MongoDB by the proxy, and waits two seconds at most."""
    root = new_mount(mongodb_uri=proxy.uri, timeout='2s').directory
    prefs = Preferences(root, new_user(), people)
    eventually(lambda: prefs.path.exists())
    prefs.save(theme='dark')
    prefs.root = root
    return prefs


def rows_never_notice(prefs):
    """A user's file, read, saved and listed; quickly, though nobody measures how."""
    path = prefs.root / 'regions' / prefs.region / 'users' / prefs.path.name
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, 'last_name': f'{random.random()}'}))
    assert path.name in os.listdir(path.parent)


def health(prefs):
    return health_of(prefs.root)


def test_a_stopped_server(behind, proxy):
    text = behind.text()
    proxy.stop()
    eventually(lambda: errno_of(behind.text) == 'EIO')
    rows_never_notice(behind)
    assert errno_of(os.listdir, behind.path.parent) == 'EIO'
    assert errors(behind.root)[-1]['path'] == f'regions/{behind.region}/preferences/'
    report = health(behind)
    assert report['status'] == 'degraded' and not report['mongodb']['reachable'] and report['mongodb']['error']
    proxy.start()
    eventually(lambda: errno_of(behind.text) is None, 30)
    assert behind.text() == text


def test_a_frozen_server(behind, proxy):
    proxy.frozen = True
    started = time.monotonic()
    assert eventually(lambda: errno_of(behind.text) == 'EIO')
    assert time.monotonic() - started < 25  # 2 s, and half a second of what is believed
    rows_never_notice(behind)
    with fails(errno.EIO):
        behind.path.write_text('{"theme": "light"}')
    assert 'in time' in errors(behind.root)[-1]['message'] or 'timeout' in errors(behind.root)[-1]['message']
    proxy.frozen = False
    eventually(lambda: errno_of(behind.text) is None, 30)
    behind.save(theme='system')
    assert behind.stored()['theme'] == 'system'


def test_a_frozen_server_and_many_who_ask(behind, proxy):
    """A thread for each of them is waiting, and there are some for rows."""
    proxy.frozen = True
    files = [behind.root / f'regions/{region}/preferences/{row}.json'
             for region in REGIONS for row in ids_in(behind.root / f'regions/{region}/users')[:3]]
    readers = [subprocess.Popen(['cat', path], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
               for path in files]
    rows_never_notice(behind)
    said = [reader.communicate(timeout=60)[1] for reader in readers]
    assert all('Input/output error' in words for words in said)
    rows_never_notice(behind)


def test_more_than_may_wait_are_told_at_once(proxy, new_mount, new_user, people):  # noqa: F811
    """64, and two that are being asked for; who comes then is told, and all others get what they asked for in the end."""
    root = new_mount(mongodb_uri=proxy.uri, mongodb_pool_size='2', timeout='60s').directory
    prefs = Preferences(root, new_user(), people)
    prefs.root = root
    eventually(prefs.path.exists, 60)
    files = [root / f'regions/{region}/preferences/{row}.json'
             for region in REGIONS for row in ids_in(root / f'regions/{region}/users')[:30] if row != prefs.id][:90]
    for path in files:
        path.stat()  # of names that the kernel knows it asks beside each other, when they are no longer believed
    asking, results = threading.Barrier(len(files)), []

    def ask(path):
        asking.wait()
        results.append(errno_of(path.stat))
    time.sleep(1.5)  # nothing tells when that is
    proxy.frozen = True
    readers = [threading.Thread(target=ask, args=[path]) for path in files]
    for reader in readers:
        reader.start()
    eventually(lambda: len(results) >= 90 - 66, 50)
    assert set(results) == {'EIO'}
    assert '64 operations wait for it' in errors(root)[-1]['message']
    rows_never_notice(prefs)
    proxy.frozen = False
    for reader in readers:
        reader.join()
    assert results.count('EIO') <= 90 - 64 and set(results) == {'EIO', None}
    prefs.save(theme='dark')
    assert prefs.stored()['theme'] == 'dark'


def test_a_slow_server(behind, proxy):
    proxy.delay = 0.3
    behind.save(theme='light')
    assert behind.stored()['theme'] == 'light' and agrees(behind)['theme'] == 'light'


@pytest.mark.parametrize('command, code, result', [('update', 13, 'EACCES'), ('update', 50, 'ETIMEDOUT'),
                                                   ('update', 14031, 'ENOSPC'), ('find', 13, 'EACCES'),
                                                   ('find', 2, 'EIO'), ('update', 112, 'EAGAIN')])  # the last is tried until the deadline
def test_errors_of_the_server(behind, proxy, command, code, result):
    proxy.fail[command] = code
    assert errno_of(behind.path.write_text, '{"theme": "light"}') == result
    assert 'the proxy says no' in errors(behind.root)[-1]['message']
    rows_never_notice(behind)
    proxy.fail.clear()
    eventually(lambda: errno_of(behind.save, theme='system') is None)
    assert behind.stored()['theme'] == 'system'


@pytest.mark.parametrize('command', ['find', 'update'])
def test_what_passes_is_tried_again(behind, proxy, command):
    proxy.fail[command], proxy.fail_times[command] = 112, 2  # WriteConflict
    behind.path.write_text('{"theme": "light"}')
    assert behind.stored()['theme'] == 'light' and proxy.fail_times[command] == 0


@pytest.mark.parametrize('command', ['find', 'update', 'insert'])
def test_a_lost_answer_is_looked_up(behind, proxy, command):
    """The server has done it, and the connection ends before it says so: the save is no error, and is made once."""
    if command == 'insert':
        run('rm', behind.path)
    text = behind.edited(theme='light')
    proxy.lose[command] = 1
    proxy.seen.clear()
    behind.path.write_text(text)  # which says what it is based on: taken for another's save it would be a conflict
    assert proxy.lose[command] == 0
    assert behind.stored()['theme'] == 'light'
    assert sum(name in ('update', 'insert') for name in proxy.seen) == 1


def test_a_change_between_reading_and_writing_is_no_lost_update(behind, proxy, people):  # noqa: F811
    text = behind.edited(language='de')
    others = {'$set': {'theme': 'system', 'updated_at': datetime.datetime.utcnow() + datetime.timedelta(seconds=1)}}
    proxy.before['update'] = lambda: people.update_one({'user_id': behind.id}, others)
    with fails(errno.ECANCELED):
        behind.path.write_text(text)
    assert (behind.stored()['theme'], behind.stored()['language']) == ('system', 'en')
    proxy.before['update'] = lambda: people.update_one({'user_id': behind.id}, {'$set': {'theme': 'light'}})
    behind.path.write_text('{"language": "fr"}')
    assert behind.stored()['language'] == 'fr' and not proxy.before, 'without a version it is tried again'


def test_users_are_deleted_without_mongodb(behind, proxy):
    user = behind.root / 'regions' / behind.region / 'users' / behind.path.name
    proxy.frozen = True
    user.unlink()
    assert not user.exists() and not behind.path.exists()
    assert behind.stored()['theme'] == 'dark', 'kept, and shown to nobody'


def test_without_mongodb_there_are_none(new_mount):
    root = new_mount(mongodb_uri=None).directory
    assert 'preferences' not in os.listdir(root / 'regions/europe')
    with fails(errno.ENOENT):
        os.listdir(root / 'regions/europe/preferences')
    assert json.loads((root / '.campusfs/health.json').read_text())['status'] == 'ok'
