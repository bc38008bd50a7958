"""MongoDB's side of init and health: collections, validators, indexes; servers that lack something."""

import datetime
import json
import re
import socket
import time
import uuid
from pathlib import Path

import bson
import pymongo
import pytest

from cluster import SHARDS
from mongo_wire import MongoWire, is_command, reply

REGIONS = [region for _, regions in SHARDS.values() for region in regions]
PREFERENCES = json.loads((Path(__file__).resolve().parent.parent / 'sql/mongo/preferences.schema.json').read_text())


@pytest.fixture
def database(cluster):
    """A database of the test's own: .name, .uri, and .init(), which gives the lines of what changed there."""
    class Own:
        name = f'init_{uuid.uuid4().hex[:8]}'
        client = pymongo.MongoClient(cluster.mongodb.uri, serverSelectionTimeoutMS=5000)
        db = client[name]
        uri = re.sub(r'^(\w+://[^/?]+)(/[^?]*)?', rf'\1/{name}', cluster.mongodb.uri)

        def run(self, *arguments, uri=None, **keywords):
            return cluster.run(*arguments, env={'CAMPUSFS_MONGODB_URI': uri or self.uri}, **keywords)

        def init(self, uri=None):
            report = json.loads(self.run('init', '--json', uri=uri).stdout)['mongodb']
            assert report['error'] is None
            return report['changes']
    own = Own()
    yield own
    own.client.drop_database(own.name)
    own.client.close()


def validator_of(database, collection):
    listed = database.db.command('listCollections', filter={'name': collection})
    return listed['cursor']['firstBatch'][0]['options'].get('validator')


def test_init_makes_everything_once(database):
    changes = database.init()
    parts = ('files', 'chunks', 'uploads')
    expected = {'preferences'} | {f'media_{region}.{part}' for region in REGIONS for part in parts}
    assert set(database.db.list_collection_names()) == expected
    assert len([line for line in changes if line.startswith('created collection ')]) == len(expected)
    assert database.db.preferences.index_information()['user_id_1']['unique']
    for region in REGIONS:
        assert database.db[f'media_{region}.chunks'].index_information()['files_id_1_n_1']['unique']
        assert dict(database.db[f'media_{region}.files'].index_information()['filename_1_uploadDate_1']['key']) == \
            {'filename': 1, 'uploadDate': 1}
    schema = {key: value for key, value in PREFERENCES.items() if key not in ('title', 'description')}
    assert validator_of(database, 'preferences') == {'$jsonSchema': schema}
    assert database.init() == []


def test_init_mends_what_differs_and_keeps_documents(database):
    database.init()
    database.db.preferences.insert_one({'user_id': bson.Int64(7), 'theme': 'dark',
                                        'updated_at': datetime.datetime(2026, 1, 1)})
    database.db.command('collMod', 'preferences', validator={'$jsonSchema': {'required': ['user_id']}})
    database.db.preferences.drop_index('user_id_1')
    database.db.preferences.create_index('user_id', name='user_id_1')
    database.db['media_europe.files'].drop_index('filename_1_uploadDate_1')
    name = database.name
    assert set(database.init()) == {f'replaced the validator of {name}.preferences',
                                    f'replaced index user_id_1 of {name}.preferences',
                                    f'created index filename_1_uploadDate_1 of {name}.media_europe.files'}
    assert database.db.preferences.index_information()['user_id_1']['unique']
    assert database.db.preferences.count_documents({}) == 1
    assert database.init() == []


@pytest.mark.parametrize('change', [{'user_id': 'seven'}, {'user_id': bson.Int64(0)}, {'theme': 'purple'},
                                    {'shoe_size': 44}, {'playback': {'speed': 9}}, {'notifications': {'email': 'yes'}},
                                    {'updated_at': None}, {'language': 'Deutsch'},
                                    {'accessibility': {'font_scale': 5}}])
def test_preferences_are_checked(database, change):
    database.init()
    good = {'user_id': bson.Int64(7), 'language': 'de-DE', 'theme': 'dark', 'timezone': 'Europe/Berlin',
            'notifications': {'email': True}, 'playback': {'speed': 1.5, 'volume': 70},
            'accessibility': {'font_scale': 125}, 'updated_at': datetime.datetime(2026, 1, 1)}
    with pytest.raises(pymongo.errors.WriteError) as refused:
        database.db.preferences.insert_one(good | change)
    assert refused.value.code == 121
    database.db.preferences.insert_one(good)
    with pytest.raises(pymongo.errors.DuplicateKeyError):
        database.db.preferences.insert_one({'user_id': bson.Int64(7), 'updated_at': good['updated_at']})


# ---- servers that lack something or say nothing

class WithoutValidators(MongoWire):
    """In front of the real server: passes every message on, but answers what has a validator by an error itself."""

    def __init__(self, uri, code):
        self.code, self.refused = code, 0
        super().__init__(uri)

    def handle(self, request, client, server):
        if not is_command(request) or b'validationLevel' not in request:
            return super().handle(request, client, server)
        self.refused += 1
        client.sendall(reply(request, {'ok': 0.0, 'code': self.code, 'errmsg': 'there are no validators here'}))
        return True


@pytest.mark.parametrize('code', [59, 238])
def test_a_server_without_validators_gets_the_collections(database, code):
    proxy = WithoutValidators(database.uri, code)
    changes = database.init(proxy.uri)
    assert proxy.refused == 1 + len(REGIONS)
    assert (f'created collection {database.name}.preferences without a validator, which this server does not have'
            in changes)
    assert validator_of(database, 'preferences') is None
    assert database.db.preferences.index_information()['user_id_1']['unique']
    assert database.init(proxy.uri) == [], 'what cannot be changed is no change'
    proxy.close()
    assert f'replaced the validator of {database.name}.preferences' in database.init()


def test_a_silent_server_costs_its_deadline_and_shows_no_secret(database):
    with socket.create_server(('127.0.0.1', 0)) as silent:
        uri = f'mongodb://someone:s3cret@127.0.0.1:{silent.getsockname()[1]}/x?appName=hidden'
        started = time.monotonic()
        done = database.run('health', '--json', '--timeout', '1', uri=uri, check=False)
        assert time.monotonic() - started < 25, 'the driver would look for a server for thirty seconds'
    report = json.loads(done.stdout)
    assert done.returncode == 1 and report['status'] == 'degraded'
    assert report['mongodb']['reachable'] is False and report['mongodb']['error']
    assert report['mongodb']['uri'] == re.sub('someone:s3cret@|[?].*', '', uri)
    assert 's3cret' not in done.stdout + done.stderr and 'hidden' not in done.stdout


@pytest.mark.parametrize('uri', ['mongodb://someone:s3cr/et@127.0.0.1:9/x', 'mongodb://someone:s3cret@:9',
                                 'http://s3cret@host'])
def test_a_wrong_uri_is_not_quoted(database, uri):
    done = database.run('init', uri=uri, check=False)
    assert done.returncode == 2 and 'is not a MongoDB URI' in done.stderr
    assert 's3cr' not in done.stdout + done.stderr
