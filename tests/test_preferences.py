"""preferences/: one document for each user of a region, in MongoDB, saved as rows are."""

import datetime
import errno
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import bson
import pytest

from mount_tools import ids_in, run
from saving import Actor, errors, eventually, fails, sh, refused
from tcp_proxy import TcpProxy

SQL = Path(__file__).resolve().parent.parent / 'sql/mongo'
DEFAULT_TIME = '2026-01-01T00:00:00.000000Z'
DEFAULTS = {**json.loads((SQL / 'preferences.defaults.json').read_text()), 'updated_at': DEFAULT_TIME}
EPOCH = datetime.datetime(1970, 1, 1)


class Preferences:
    """A user's file, and the user's document in MongoDB."""
    collection = 'preferences'

    def __init__(self, root, user, people):
        self.path = root / 'regions' / user.region / 'preferences' / f'{user.id}.json'
        self.id, self.region, self.user = user.id, user.region, user
        self._people = people

    def text(self):
        return self.path.read_text()

    def json(self):
        return json.loads(self.text())

    def stored(self):
        return self._people.find_one({'user_id': self.id})

    def edited(self, **fields):
        """The text with some fields changed, as a person would; a field set to ... is left out."""
        document = {key: value for key, value in {**self.json(), **fields}.items() if value is not ...}
        return json.dumps(document, indent=2) + '\n'

    def save(self, **fields):
        self.path.write_text(self.edited(**fields))

    def insert(self, **fields):
        """What another program has stored, who knows nothing of us."""
        document = {'user_id': bson.Int64(self.id), 'updated_at': datetime.datetime(2026, 2, 3), **fields}
        self._people.insert_one({key: value for key, value in document.items() if value is not ...})


@pytest.fixture(scope='session')
def people(cluster):
    """MongoDB's collection."""
    with cluster.mongodb.client() as client:
        yield client.get_default_database()['preferences']


@pytest.fixture
def new_preferences(mnt, new_user, people):
    return lambda region='europe', root=mnt: Preferences(root, new_user(region), people)


def text_of(us):
    return (EPOCH + datetime.timedelta(microseconds=us)).isoformat(timespec='microseconds') + 'Z'


def agrees(prefs):
    """The text is canonical; size and time are exactly the text's."""
    text, status = prefs.text(), prefs.path.stat()
    document = json.loads(text)
    assert text == json.dumps(document, indent=2, ensure_ascii=False) + '\n'
    assert list(document) == ['user_id', *DEFAULTS]
    assert all(list(document[key]) == list(DEFAULTS[key]) for key in DEFAULTS if isinstance(DEFAULTS[key], dict))
    assert status.st_size == len(text.encode())
    assert document['updated_at'] == text_of(status.st_mtime_ns // 1000) and status.st_mtime_ns % 1000 == 0
    return document


# ---- defaults

def test_a_new_user_has_the_defaults(new_preferences, mnt):
    prefs = new_preferences()
    expected = {'user_id': prefs.id, **DEFAULTS}
    assert agrees(prefs) == expected
    assert prefs.stored() is None, 'reading stores nothing'
    assert eventually(lambda: prefs.id in ids_in(prefs.path.parent))
    assert prefs.path.stat().st_ino == 10 << 60 | 3 << 54 | prefs.id << 16
    with fails(errno.ENOENT):
        (prefs.path.parent / '274877906943.json').read_text()


def test_the_listing_is_that_of_the_users(mnt, new_preferences):
    for _ in range(3):
        new_preferences('oceania')
    folder = mnt / 'regions/oceania/preferences'
    assert eventually(lambda: ids_in(folder) == ids_in(folder.parent / 'users'))
    found = subprocess.run(['find', folder, '-printf', '%f %s %T@\n'], capture_output=True, text=True, check=True).stdout
    for name, size, time in (line.split() for line in found.splitlines()[1:]):
        text = (folder / name).read_text()
        assert len(text.encode()) == int(size)
        assert text_of(int(re.sub(r'[.](\d{6})\d*', r'\1', time))) == json.loads(text)['updated_at']


@pytest.mark.parametrize('rows', [1, 2, 7])
def test_a_listing_goes_on_by_key(new_mount, rows):
    """Whatever the size of a page, each is there once."""
    folder = new_mount(page_rows=rows).directory / 'regions/oceania/preferences'
    assert ids_in(folder) == ids_in(folder.parent / 'users')


def test_reserved_names_are_not_there(new_preferences):
    folder = new_preferences().path.parent
    for name in ('.next-id', '.deleted', 'new.json'):
        assert not (folder / name).exists()
    with fails(errno.EPERM):
        (folder / 'new.json').write_text('{}')
    (folder / 'scratch').write_text('{}')
    with fails(errno.EPERM):
        os.rename(folder / 'scratch', folder / 'new.json')
    (folder / 'scratch').unlink()


# ---- saving

def test_a_save_is_one_document(new_preferences):
    prefs = new_preferences()
    prefs.save(theme='dark', playback={'speed': 1.5, 'volume': 30})
    document = agrees(prefs)
    assert document['theme'] == 'dark'
    assert document['playback'] == {**DEFAULTS['playback'], 'speed': 1.5, 'volume': 30}
    stored = prefs.stored()
    assert {key: value for key, value in stored.items() if not key.startswith('_')} == \
        {**document, 'updated_at': stored['updated_at']}
    assert stored['_id'] == prefs.id and type(stored['user_id']) is bson.Int64
    assert document['updated_at'].startswith(stored['updated_at'].isoformat(timespec='milliseconds'))


def test_each_way_of_saving(new_preferences):
    prefs = new_preferences()
    for language, script in [('de', 'sed -i s/\\"en\\"/\\"de\\"/ $1'),
                             ('fr', 'jq ".language=\\"fr\\"" $1 > $1.tmp && mv $1.tmp $1'),
                             ('it', 'jq ".language=\\"it\\"" $1 | tee $1.new >/dev/null && cat $1.new > $1 && rm $1.new'),
                             ('es', 'jq ".language=\\"es\\"" $1 > $1.tmp && dd if=$1.tmp of=$1 status=none conv=fsync'),
                             ('pt', 'cp $1 $1.b && sed -i s/\\"es\\"/\\"pt\\"/ $1.b && rsync -aI $1.b $1')]:
        sh(f'set -e; {script}', prefs.path)
        assert agrees(prefs)['language'] == language == prefs.stored()['language']
        sh('rm -f $1.*', prefs.path)


def test_numbers_stay_as_they_are_written(new_preferences):
    prefs = new_preferences()
    prefs.path.write_text('{"playback": {"speed": 1.0}}')
    assert '"speed": 1.0,' in prefs.text()
    prefs.path.write_text('{"playback": {"speed": 1}, "theme": "dark"}')
    assert '"speed": 1,' in prefs.text()
    prefs.path.write_text('{"playback": {"speed": 7.5e-1}, "theme": "dark"}')
    assert '"speed": 0.75,' in prefs.text()


def test_an_equal_save_writes_nothing(new_preferences):
    prefs = new_preferences()
    prefs.path.write_text(prefs.edited())
    assert prefs.stored() is None, 'the defaults are nothing to be stored'
    prefs.save(theme='dark')
    before, text = prefs.stored(), prefs.text()
    prefs.path.write_text(json.dumps(dict(reversed(json.loads(text).items()))).replace('"speed": 1.0', '"speed": 1'))
    assert prefs.stored() == before and prefs.text() == text


def test_what_is_missing_is_the_default_again(new_preferences):
    prefs = new_preferences()
    prefs.save(theme='dark', language='de')
    prefs.save(theme=...)
    assert prefs.json()['theme'] == DEFAULTS['theme'] and prefs.json()['language'] == 'de'


def test_a_time_that_is_set(new_preferences):
    prefs = new_preferences()
    prefs.save(theme='dark')
    os.utime(prefs.path, ns=(0, 1700000000123456000))
    assert agrees(prefs)['updated_at'] == '2023-11-14T22:13:20.123456Z'
    assert prefs.stored()['updated_at'] == datetime.datetime(2023, 11, 14, 22, 13, 20, 123000)
    prefs.save(language='de')
    assert agrees(prefs)['updated_at'] > '2026'
    copy = prefs.path.with_name('copy')
    copy.write_text(prefs.edited(theme='light'))
    os.utime(copy, ns=(0, 1710000000000001000))
    os.rename(copy, prefs.path)
    assert agrees(prefs)['updated_at'] == '2024-03-09T16:00:00.000001Z'


def test_times_rise(new_preferences):
    prefs = new_preferences()
    seen = []
    for volume in range(20):
        prefs.save(playback={'volume': volume})
        seen.append(prefs.path.stat().st_mtime_ns)
    assert seen == sorted(set(seen))


def test_a_reader_keeps_what_it_opened(new_preferences):
    prefs = new_preferences()
    before = prefs.text()
    with open(prefs.path) as reader:
        prefs.save(timezone='Europe/Berlin', theme='dark')
        assert reader.read() == before
        assert os.fstat(reader.fileno()).st_size == len(before)
    assert agrees(prefs)['timezone'] == 'Europe/Berlin'


def test_a_draft_is_private(new_preferences):
    prefs = new_preferences()
    before = prefs.text()
    with Actor() as other:
        fd = other.open(prefs.path, os.O_WRONLY | os.O_TRUNC)
        other.write(fd, '{"theme": ')
        assert prefs.text() == before
        other.write(fd, '"dark"}')
        other.fsync(fd)
        assert prefs.json()['theme'] == 'dark'
        other.close(fd)


# ---- two writers

def test_a_conflict_is_told_and_both_texts_are_there(new_preferences, mnt):
    prefs = new_preferences()
    prefs.save(theme='dark')
    mine = prefs.edited(language='de')
    with Actor() as other:
        other.save(prefs.path, prefs.edited(language='fr'))
    with fails(errno.ECANCELED):
        prefs.path.write_text(mine)
    assert prefs.json()['language'] == 'fr'
    assert json.loads(refused(prefs).read_text())['language'] == 'de'
    assert errors(mnt)[-1]['errno'] == 'ECANCELED' and errors(mnt)[-1]['column'] == 'updated_at'
    assert 'after the version' in refused(prefs).with_name(f'{prefs.id}.json.error').read_text()
    document = {**json.loads(refused(prefs).read_text()), 'updated_at': prefs.json()['updated_at']}
    refused(prefs).write_text(json.dumps(document))
    os.rename(refused(prefs), prefs.path)
    assert prefs.json()['language'] == 'de'


def test_no_conflict_with_oneself_or_without_a_version(new_preferences, new_mount):
    prefs = new_preferences()
    prefs.save(theme='dark')
    with open(prefs.path, 'r+') as file:
        text = file.read()
        for theme in ('light', 'system'):
            file.seek(0)
            file.truncate()
            file.write(text.replace('"dark"', f'"{theme}"'))
            file.flush()
            os.fsync(file.fileno())
    assert prefs.json()['theme'] == 'system'
    old = prefs.edited(language='de')
    with Actor() as other:
        other.save(prefs.path, prefs.edited(language='fr'))
    prefs.path.write_text(json.dumps({'theme': 'light'}))
    assert prefs.json()['theme'] == 'light'
    overwriting = Preferences(new_mount(conflicts='overwrite').directory, prefs.user, None)
    overwriting.path.write_text(old)
    assert overwriting.json()['language'] == 'de'


def test_many_writers_lose_nothing(new_preferences):
    """Each adds one to a number, and tries again when somebody was faster."""
    prefs = new_preferences()
    prefs.save(playback={'volume': 0})
    script = '''
import json, os, sys
path, name = sys.argv[1:]
for _ in range(6):
    while True:
        document = json.load(open(path))
        document['playback']['volume'] += 1
        with open(f'{path}.{name}', 'w') as file:
            json.dump(document, file)
        try:
            os.rename(f'{path}.{name}', path)
            break
        except OSError as error:
            assert error.errno in (125, 11), error
'''
    writers = [subprocess.Popen(['/usr/bin/python3', '-c', script, prefs.path, str(n)]) for n in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert prefs.json()['playback']['volume'] == 18


# ---- other programs' documents

def test_documents_of_other_programs(new_preferences):
    prefs = new_preferences()
    prefs.insert(_id=bson.ObjectId(), theme='dark', notifications={'sms': True})
    document = eventually(lambda: prefs.json() if prefs.json()['theme'] == 'dark' else None)
    assert agrees(prefs) == {**DEFAULTS, 'user_id': prefs.id, 'theme': 'dark',
                             'notifications': {**DEFAULTS['notifications'], 'sms': True},
                             'updated_at': '2026-02-03T00:00:00.000000Z'}
    prefs.save(theme='light')
    assert agrees(prefs) == {**document, 'theme': 'light', 'updated_at': prefs.json()['updated_at']}
    assert type(prefs.stored()['_id']) is bson.ObjectId


def test_a_change_elsewhere_is_seen(new_preferences, people):
    prefs = new_preferences()
    prefs.save(theme='dark')
    before = prefs.path.stat()
    people.update_one({'user_id': prefs.id}, {'$set': {'theme': 'light'}})
    eventually(lambda: prefs.json()['theme'] == 'light', 30)
    assert agrees(prefs)['theme'] == 'light'
    assert prefs.path.stat().st_size == before.st_size + 1
    people.update_one({'user_id': prefs.id}, {'$set': {'language': 'fr'}})  # as long, and no word of when it was
    eventually(lambda: prefs.json()['language'] == 'fr', 30)
    people.update_one({'user_id': prefs.id}, {'$set': {'theme': 'system', 'updated_at': datetime.datetime(2099, 1, 1)}})
    eventually(lambda: prefs.json()['theme'] == 'system', 30)
    assert agrees(prefs)['updated_at'] == '2099-01-01T00:00:00.000000Z'
    prefs.save(theme='dark')
    assert agrees(prefs)['updated_at'] == '2099-01-01T00:00:00.000001Z', 'later than the last, whatever the clock says'
    people.delete_one({'user_id': prefs.id})
    eventually(lambda: prefs.json()['updated_at'] == DEFAULT_TIME, 30)


def test_the_saves_of_another_mount(new_preferences, new_mount):
    prefs = new_preferences()
    other = Preferences(new_mount().directory, prefs.user, None)
    prefs.save(theme='dark')
    eventually(lambda: other.json()['theme'] == 'dark', 30)
    other.save(theme='light')
    eventually(lambda: agrees(prefs)['theme'] == 'light', 30)


# ---- deleting

def test_rm_brings_the_defaults_back(new_preferences):
    prefs = new_preferences()
    prefs.save(theme='dark')
    run('rm', prefs.path)
    assert prefs.stored() is None
    assert agrees(prefs)['theme'] == DEFAULTS['theme']
    assert run('rm', prefs.path).returncode == 0, 'and again'
    prefs.path.unlink()
    assert not prefs.path.exists(), 'for who removed it, it is gone'
    with open(prefs.path, 'x') as file:
        file.write('{"theme": "light"}')
    assert agrees(prefs)['theme'] == 'light'


def test_tools_that_remove_before_they_write(new_preferences, tmp_path):
    prefs = new_preferences()
    prefs.save(theme='dark')
    shutil.copy2(prefs.path, tmp_path)
    text = prefs.text()
    run('tar', '-C', tmp_path, '--format=posix', '-cf', tmp_path / 'all.tar', prefs.path.name)
    prefs.save(theme='light')
    for command in (['tar', '-C', prefs.path.parent, '-xf', tmp_path / 'all.tar'],
                    ['install', '-p', tmp_path / prefs.path.name, prefs.path],
                    ['cp', '-p', '--remove-destination', tmp_path / prefs.path.name, prefs.path]):
        done = run(*command)
        assert done.returncode == 0, done.stderr
        assert prefs.text() == text
        prefs.path.write_text(prefs.edited(theme='light', updated_at=...))


def test_they_are_gone_with_the_user_and_come_back_with_him(new_preferences, people):
    prefs = new_preferences()
    prefs.save(theme='dark')
    text = prefs.text()
    prefs.user.path.unlink()
    with fails(errno.ENOENT):
        prefs.text()
    assert prefs.id not in ids_in(prefs.path.parent)
    eventually(lambda: '_deleted_at' in prefs.stored())
    with fails(errno.ENOLINK):
        prefs.path.write_text('{"theme": "light"}')
    os.rename(prefs.user.path.parent / '.deleted' / prefs.user.path.name, prefs.user.path)
    eventually(lambda: prefs.path.exists() and prefs.text() == text)
    eventually(lambda: '_deleted_at' not in prefs.stored())
    index = people.index_information()['_deleted_at_1']
    assert index['expireAfterSeconds'] == 86400


class People:
    """Users with stored preferences, each gone in another way or not at all."""

    def __init__(self, new_preferences, new_invoice, sql, people):
        self.people, self.sql = people, sql
        self.there, self.removed_by_sql, self.erased, self.kept = (new_preferences() for _ in range(4))
        payer = new_invoice().document
        (row,), = sql('europe', 'SELECT user_id FROM transactions WHERE id = %s', [payer['transaction_id']])
        self.erased_payer = row
        for prefs in (self.there, self.removed_by_sql, self.erased, self.kept):
            prefs.save(theme='dark')
        self.insert(row)

    def insert(self, user_id, **fields):
        self.people.insert_one({'user_id': bson.Int64(user_id), 'language': 'en', 'updated_at': datetime.datetime(2026, 2, 3),
                                **fields})

    def remove_by_sql(self, user_id):
        self.sql('europe', 'DELETE FROM users WHERE id = %s', [user_id])

    def go(self):
        """All but one of them."""
        self.remove_by_sql(self.removed_by_sql.id)
        assert self.sql('europe', 'SELECT erase_user(%s)', [self.erased.id]) == [('removed',)]
        assert self.sql('europe', 'SELECT erase_user(%s)', [self.erased_payer]) == [('anonymised',)]
        self.kept.user.path.unlink()

    def left(self, *ids):
        return [user_id for user_id in ids if self.people.count_documents({'user_id': user_id})]


@pytest.fixture
def leaving(new_preferences, new_invoice, sql, people):
    return People(new_preferences, new_invoice, sql, people)


def test_they_go_with_users_whom_sql_deletes_while_no_mount_sweeps(leaving, new_mount, new_preferences, people):
    """What the first look finds; afterwards whom the feed names."""
    gone = [leaving.removed_by_sql.id, leaving.erased.id, leaving.erased_payer]
    stranger, later = 999_999_001, new_preferences()
    leaving.go()
    leaving.insert(stranger)
    later.save(theme='dark')
    people.update_one({'user_id': leaving.there.id}, {'$set': {'_deleted_at': datetime.datetime.utcnow()}})  # its index deletes what is a day old
    assert leaving.left(*gone) == gone, 'nobody but a sweep deletes them'
    people.database['leases'].delete_many({})
    mount = new_mount(media_sweep='100ms')
    eventually(lambda: leaving.left(*gone) == [], 60)
    eventually(lambda: '_deleted_at' in people.find_one({'user_id': stranger}), 60)
    eventually(lambda: '_deleted_at' not in leaving.there.stored(), 60)
    assert leaving.there.json()['theme'] == 'dark'
    assert leaving.kept.stored()['theme'] == 'dark', 'a deleted user can be brought back for a day'
    metric = 'campusfs_preferences_swept_total '
    swept = next(line for line in (mount.directory / '.campusfs/metrics').read_text().splitlines() if line.startswith(metric))
    assert int(swept.split()[1]) >= 3
    leaving.remove_by_sql(later.id)
    eventually(lambda: leaving.left(later.id) == [], 60)
    people.delete_one({'user_id': stranger})


def behind_proxies(cluster, shard, monkeypatch, make_mount):
    """A mount that reaches the shard by proxies, and those."""
    proxies = []
    with monkeypatch.context() as patched:
        for node in (node for node in cluster.nodes.values() if node.shard == shard):
            proxies.append(TcpProxy((node.host, node.port)))
            patched.setattr(node, 'port', proxies[-1].port)
        return make_mount(), proxies


def test_nobody_is_judged_while_a_shard_cannot_be_asked(cluster, new_preferences, new_mount, sql, people, mnt, monkeypatch):
    """It is the only one that knows its own users, and those who have moved to it from another."""
    gone, there, moved = new_preferences(), new_preferences('asia'), new_preferences()
    for prefs in (gone, there, moved):
        prefs.save(theme='dark')
    os.rename(moved.user.path, mnt / 'regions/asia/users' / moved.path.name)
    for region in ('europe', 'asia'):
        sql(region, "UPDATE transfers SET finished_at = now() - interval '1 hour' WHERE user_id = %s", [moved.id])
    sql('europe', 'DELETE FROM users WHERE id = %s', [gone.id])
    leases = people.database['leases']
    leases.replace_one({'_id': 'preferences'}, {'owner': 'a test', 'until': datetime.datetime(2999, 1, 1)}, upsert=True)
    mount, proxies = behind_proxies(cluster, 'apac', monkeypatch,
                                    lambda: new_mount(media_sweep='100ms', timeout='4s', connect_timeout='2s'))
    for proxy in proxies:
        proxy.close()
    leases.delete_many({})
    words = 'cannot look for preferences of users who are gone'
    eventually(lambda: words in mount.log_file.read_text(), 60)
    assert all(prefs.stored() and '_deleted_at' not in prefs.stored() for prefs in (gone, there, moved))
    for proxy in proxies:
        proxy.listen()
    eventually(lambda: gone.stored() is None, 60)
    assert all(prefs.stored() and '_deleted_at' not in prefs.stored() for prefs in (there, moved))
    for proxy in proxies:
        proxy.close()


def test_check_tells_of_preferences_that_users_have_left(leaving, cluster, people):
    stranger, abroad = 999_998_001, 999_998_777
    leaving.go()
    leaving.insert(stranger)
    leaving.insert(abroad)

    def check(*options):
        done = cluster.run('check', 'preferences', '--json', *options, check=False)
        part, = json.loads(done.stdout)['parts']
        return {finding['message']: finding['repaired'] for finding in part['findings']}
    gone = [leaving.removed_by_sql.id, leaving.erased.id, leaving.erased_payer]
    messages = [f'preferences of user {user_id}, who was deleted or erased' for user_id in gone]
    messages.append(f'preferences of user {stranger}, whom no shard knows: removed a day after --repair')
    found = check()
    assert [found.get(message) for message in messages] == [False] * 4
    for user_id in (leaving.there.id, leaving.kept.id, abroad):
        assert not any(f'user {user_id},' in message for message in found), 'an id of a shard that is not configured is left'
    assert leaving.left(*gone) == gone
    found = check('--repair')
    assert [found.get(message) for message in messages] == [True] * 4
    assert leaving.left(*gone, stranger) == [stranger] and not set(messages) & set(check())
    people.delete_many({'user_id': {'$in': [stranger, abroad]}})


def test_a_user_who_is_made_again_keeps_them(new_preferences):
    """As git checkout does it: removed, and made anew."""
    prefs = new_preferences()
    prefs.save(theme='dark')
    document = prefs.user.read()
    prefs.user.path.unlink()
    eventually(lambda: '_deleted_at' in prefs.stored())
    prefs.user.path.write_bytes(document)
    eventually(lambda: prefs.json()['theme'] == 'dark')
    eventually(lambda: '_deleted_at' not in prefs.stored())


def test_what_is_written_for_a_user_who_has_gone(new_preferences, mnt):
    prefs = new_preferences()
    with Actor() as other:
        fd = other.open(prefs.path, os.O_WRONLY | os.O_TRUNC)
        other.write(fd, '{"theme": "dark"}')
        prefs.user.path.unlink()
        with fails(errno.ECANCELED):
            other.close(fd)
    assert 'the user was deleted' in errors(mnt)[-1]['message']
    assert prefs.stored() is None


def test_they_move_with_the_user(new_preferences, mnt):
    prefs = new_preferences()
    prefs.save(theme='dark')
    text = prefs.text()
    target = mnt / 'regions/africa'
    os.rename(prefs.user.path, target / 'users' / prefs.user.path.name)
    assert (target / 'preferences' / prefs.path.name).read_text() == text
    eventually(lambda: not prefs.path.exists())
    with fails(errno.EPERM):
        os.rename(target / 'preferences' / prefs.path.name, prefs.path)


# ---- copies

def test_a_second_rsync_sends_nothing(new_mount, new_preferences, tmp_path):
    prefs = new_preferences()
    prefs.save(theme='dark')
    os.utime(prefs.path, ns=(0, 1710000000000001000))
    root = new_mount(conflicts='overwrite').directory
    folder = root / 'regions/europe/preferences'
    command = ['rsync', '-a', '--modify-window=-1', '--out-format=%i %n']
    assert len(run(*command, f'{folder}/', f'{tmp_path}/').stdout.splitlines()) > 10
    assert run(*command, '--include=*.json', '--exclude=*', f'{folder}/', f'{tmp_path}/').stdout == b''
    prefs.save(theme='light')
    eventually(lambda: b'"light"' in (folder / prefs.path.name).read_bytes(), 30)
    sent = run(*command, '-O', f'{tmp_path}/', f'{folder}/').stdout.decode().splitlines()
    assert [line.split()[1] for line in sent if line[1] == 'f'] == [prefs.path.name]
    assert (folder / prefs.path.name).read_bytes() == (tmp_path / prefs.path.name).read_bytes()
    assert run(*command, '-O', f'{tmp_path}/', f'{folder}/').stdout == b''
