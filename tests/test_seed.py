"""What `campusfs seed` makes, seen by SQL and by other programs; in databases of its own on the shared servers."""

import datetime
import hashlib
import io
import json
import re
import shutil
import signal
import subprocess
import time
import unicodedata
import uuid
import wave
from pathlib import Path

import gridfs
import pymongo
import pytest

from cluster import SHARDS

ROOT = Path(__file__).resolve().parent.parent
COLLECTIONS = {'users': 'users', 'courses': 'courses', 'enrollments': 'enrollments', 'reviews': 'reviews',
               'payment-methods': 'payment_methods', 'transactions': 'transactions', 'invoices': 'invoices',
               'categories': 'categories'}
REGIONS = [region for _, regions in SHARDS.values() for region in regions]
FIXED_DAY = '2026-09-01T00:00:00.000000Z'
SCALE = 1000


class Platform:
    """Databases of one name on every shard, and a MongoDB database: as empty as `init` leaves them."""

    def __init__(self, cluster, **settings):
        self.cluster = cluster
        self.name = f'seed_{uuid.uuid4().hex[:8]}'
        self.uri = re.sub(r'^(\w+://[^/?]+)(/[^?]*)?', rf'\1/{self.name}', cluster.mongodb.uri)
        self.config = cluster.write_config(cluster.directory / f'{self.name}.conf',
                                           **{'database': self.name, 'mongodb_uri': self.uri, **settings})
        self.connections = {}

    def run(self, *arguments, **keywords):
        return self.cluster.run(*arguments, config=self.config, **{'timeout': 300, **keywords})

    def init(self):
        self.run('init')
        return self

    def sql(self, shard, text, params=None):
        if shard not in self.connections:
            self.connections[shard] = self.cluster.connect(shard, database=self.name,
                                                           options='-c search_path=campusfs,pg_catalog')
        with self.connections[shard].cursor() as cursor:
            cursor.execute(text, params)
            return cursor.fetchall() if cursor.description else []

    def everywhere(self, text):
        """The rows of a query on all shards together."""
        return [row for shard in SHARDS for row in self.sql(shard, text)]

    def documents(self, folder):
        """{(shard, region, id): (body, its two times)} of a collection."""
        query = f'SELECT region, id, body, updated_us, content_us FROM doc_{COLLECTIONS[folder]}'
        return {(shard, region, row_id): rest for shard in SHARDS for region, row_id, *rest in self.sql(shard, query)}

    def everything(self):
        return {folder: self.documents(folder) for folder in COLLECTIONS}

    def bodies(self, folder):
        return [json.loads(body) for body, *_ in self.documents(folder).values()]

    @property
    def mongo(self):
        client = self.connections.setdefault('mongo', pymongo.MongoClient(self.uri, serverSelectionTimeoutMS=5000))
        return client[self.name]

    def close(self):
        """The databases go with the cluster: dropping them one by one would take longer than all tests."""
        for connection in self.connections.values():
            connection.close()


@pytest.fixture(scope='module')
def new_platform(cluster):
    made = []

    def make(**settings):
        made.append(Platform(cluster, **settings))
        return made[-1]
    yield make
    for platform in made:
        platform.close()


@pytest.fixture(scope='module')
def seeded(new_platform):
    """The default. Shared: nobody changes it."""
    platform = new_platform().init()
    platform.run('seed')
    return platform


@pytest.fixture(scope='module')
def large(new_platform):
    platform = new_platform().init()
    platform.report = json.loads(platform.run('seed', '--scale', str(SCALE), '--json').stdout)
    return platform


# ---- the same seed, the same bytes

def gridfs_files(platform, region):
    """What the files of a region are, without what is not theirs: chunks have ids that mean nothing."""
    bucket = gridfs.GridFS(platform.mongo, collection=f'media_{region}')
    return {file.filename: (file._id, file.upload_date, file.metadata, file.read()) for file in bucket.find()}


def test_same_seed_gives_the_same_bytes(seeded, new_platform):
    other = new_platform().init()
    other.run('seed', '--seed', '1')
    assert other.everything() == seeded.everything()
    for region in REGIONS:
        assert gridfs_files(other, region) == gridfs_files(seeded, region)
    assert list(other.mongo.preferences.find(sort=[('user_id', 1)])) == \
        list(seeded.mongo.preferences.find(sort=[('user_id', 1)]))
    assert other.everywhere('SELECT * FROM user_credentials ORDER BY user_id') == \
        seeded.everywhere('SELECT * FROM user_credentials ORDER BY user_id')


def test_another_seed_gives_other_data_of_the_same_size(seeded, new_platform):
    other = new_platform().init()
    report = json.loads(other.run('seed', '--seed', '20260901', '--json').stdout)
    assert report['documents'] | {'reviews': 0} == figures(seeded) | {'reviews': 0}
    assert figures(other) == report['documents']
    for folder in set(COLLECTIONS) - {'categories'}:
        same = set(map(str, other.documents(folder).values())) & set(map(str, seeded.documents(folder).values()))
        assert not same
    assert_consistent(other)


# ---- how much there is

def figures(platform):
    counted = {folder: len(platform.documents(folder)) for folder in COLLECTIONS}
    assert counted['categories'] % len(SHARDS) == 0
    return counted | {'categories': counted['categories'] // len(SHARDS)}


def test_default_figures(seeded):
    users = seeded.bodies('users')
    roles = [user['role'] for user in users]
    assert (roles.count('student'), roles.count('instructor'), roles.count('admin')) == (100, 20, 2)
    found = figures(seeded)
    assert {name: found[name] for name in ('categories', 'courses', 'enrollments', 'transactions', 'invoices')} == \
        {'categories': 8, 'courses': 50, 'enrollments': 200, 'transactions': 150, 'invoices': 150}
    assert found['reviews'] >= 40 and found['payment-methods'] >= 90
    for course in seeded.bodies('courses'):
        assert 3 <= len(course['modules']) <= 8
        assert all(3 <= len(module['lessons']) <= 7 for module in course['modules'])


@pytest.mark.parametrize('folder', set(COLLECTIONS) - {'categories'})
def test_every_region_has_some(seeded, folder):
    assert {body['region'] for body in seeded.bodies(folder)} == set(REGIONS)


def test_categories_are_the_same_on_every_shard(seeded):
    of_shard = [{row_id: rest for (where, _, row_id), rest in seeded.documents('categories').items() if where == shard}
                for shard in SHARDS]
    assert of_shard[0] == of_shard[1] == of_shard[2]
    home = list(SHARDS.values())[0][0]
    assert all(row_id % 1000 == home for row_id in of_shard[0])


def test_scale(large):
    report = large.report
    print(f"{report['rows']} rows at {report['rows_per_second']} a second")
    found = figures(large)
    assert found == report['documents']
    assert found['users'] == SCALE and found['enrollments'] == SCALE * 2 // 5
    assert report['rows'] == sum(
        count for table in ('users', 'user_profiles', 'user_credentials', 'course_categories', 'courses',
                            'course_modules', 'course_lessons', 'enrollments', 'lesson_progress', 'course_reviews',
                            'payment_methods', 'transactions', 'invoices')
        for count, in large.everywhere(f'SELECT count(*) FROM {table}'))
    assert report['preferences'] == large.mongo.preferences.count_documents({}) > 0
    assert_consistent(large)


# ---- whether it fits together

WRONG = {
    'progress that is not that of the entries':
        'SELECT id FROM enrollments e WHERE progress_percent <> progress_of(ARRAY('
        '    SELECT l FROM lesson_progress l WHERE l.enrollment_id = e.id))',
    'entries that are not the lessons of the course':
        'SELECT id FROM enrollments e WHERE'
        '    (SELECT array_agg(lesson_id ORDER BY lesson_id) FROM lesson_progress WHERE enrollment_id = e.id)'
        '    IS DISTINCT FROM (SELECT array_agg(l.id ORDER BY l.id) FROM course_modules m'
        '                      JOIN course_lessons l ON l.module_id = m.id WHERE m.course_id = e.course_id)',
    'a status that is not that of the entries':
        "SELECT id FROM enrollments WHERE (status = 'completed') <> (progress_percent = 100)"
        "    OR (status = 'completed') <> (completed_at IS NOT NULL)",
    'a lesson completed before joining, after the last change, or without a time':
        'SELECT e.id FROM enrollments e JOIN lesson_progress l ON l.enrollment_id = e.id'
        '    WHERE l.completed_at NOT BETWEEN e.enrolled_at AND e.updated_at'
        "    OR (l.status = 'completed') <> (l.completed_at IS NOT NULL)",
    'a duration that is not that of the lessons':
        'SELECT id FROM courses c WHERE duration_minutes <> (SELECT sum(l.duration_minutes) FROM course_modules m'
        '    JOIN course_lessons l ON l.module_id = m.id WHERE m.course_id = c.id)',
    'ratings that are not those of the reviews':
        'SELECT c.id FROM courses c LEFT JOIN course_reviews r ON r.course_id = c.id GROUP BY c.region, c.id'
        '    HAVING (c.rating_sum, c.rating_count) IS DISTINCT FROM (coalesce(sum(r.rating), 0), count(r.id))',
    'a number of enrollments that is not theirs':
        "SELECT c.id FROM courses c LEFT JOIN enrollments e ON e.course_id = c.id AND e.status <> 'cancelled'"
        '    GROUP BY c.region, c.id HAVING c.enrollment_count <> count(e.id)',
    'a course whose time is not that of its last change':
        'SELECT id FROM courses c WHERE updated_at <> greatest(content_at,'
        '    (SELECT max(created_at) FROM course_reviews WHERE course_id = c.id),'
        "    (SELECT max(CASE status WHEN 'cancelled' THEN updated_at ELSE enrolled_at END) FROM enrollments"
        '     WHERE course_id = c.id))',
    'an instructor of another region or role':
        'SELECT c.id FROM courses c LEFT JOIN users u ON u.id = instructor_id AND u.region = c.region'
        "    WHERE role IS DISTINCT FROM 'instructor'",
    'somebody who joined before the account or the course was there, or who teaches':
        'SELECT e.id FROM enrollments e JOIN users u ON u.id = user_id JOIN courses c ON c.id = course_id'
        "    WHERE (enrolled_at > u.created_at AND enrolled_at > published_at AND role = 'student') IS NOT TRUE",
    'a review of who never took the course, or before':
        'SELECT r.id FROM course_reviews r LEFT JOIN enrollments e USING (user_id, course_id)'
        '    WHERE e.id IS NULL OR r.created_at < e.enrolled_at',
    'an enrollment that was not paid, or need not have been':
        'SELECT e.id FROM enrollments e JOIN courses c ON c.id = course_id LEFT JOIN transactions t'
        "        ON (t.user_id, t.course_id) = (e.user_id, e.course_id) AND t.status IN ('completed', 'refunded')"
        "    WHERE (price > 0) <> (t.id IS NOT NULL) OR (t.status = 'refunded') <> (e.status = 'cancelled')"
        '    OR t.created_at > enrolled_at',
    'a payment of another amount than the price, or by a method stored later':
        'SELECT t.id FROM transactions t JOIN courses c ON c.id = course_id'
        '    JOIN payment_methods p ON p.id = payment_method_id WHERE amount <> price'
        '    OR t.currency <> c.currency OR p.created_at > t.created_at OR p.user_id <> t.user_id',
    'an invoice that does not add up, or of another state than its payment':
        'SELECT i.id FROM transactions t LEFT JOIN invoices i ON i.transaction_id = t.id WHERE i.id IS NULL'
        "    OR total <> amount OR i.currency <> t.currency OR i.created_at < t.created_at OR i.status <> CASE t.status"
        "        WHEN 'completed' THEN 'paid' WHEN 'pending' THEN 'issued' ELSE 'void' END",
    'who stored methods but none or two defaults':
        'SELECT user_id FROM payment_methods GROUP BY user_id HAVING count(*) FILTER (WHERE is_default) <> 1',
    'who logged in before the account was there, or did something after the last login':
        'SELECT u.id FROM users u LEFT JOIN enrollments e ON e.user_id = u.id'
        '    WHERE last_login_at < u.created_at OR e.updated_at > last_login_at',
    'a time out of order':
        ' UNION ALL '.join(f'SELECT id FROM {table} WHERE NOT (created_at <= content_at AND content_at <= updated_at)'
                           for table in ('users', 'courses', 'enrollments', 'course_reviews', 'payment_methods',
                                         'transactions', 'invoices', 'course_categories')),
    'an id that no sequence of this shard gives':
        ' UNION ALL '.join(f'SELECT id FROM {table} WHERE id % 1000 <> shard_number()'
                           for table in ('users', 'courses', 'course_modules', 'course_lessons', 'enrollments',
                                         'course_reviews', 'payment_methods', 'transactions', 'invoices')),
    'a sequence that is not behind its ids':
        ' UNION ALL '.join(f'SELECT id FROM {table} WHERE id > (SELECT last_value FROM {table}_id_seq)'
                           for table in ('users', 'courses', 'course_modules', 'course_lessons', 'enrollments',
                                         'course_reviews', 'payment_methods', 'transactions', 'invoices')),
}


def assert_consistent(platform):
    wrong = {what: rows for what, query in WRONG.items() if (rows := platform.everywhere(query))}
    assert not wrong


@pytest.mark.parametrize('what', WRONG)
def test_nothing_is_wrong(seeded, what):
    assert seeded.everywhere(WRONG[what]) == []


@pytest.mark.parametrize('shard', SHARDS)
def test_derived_values_are_those_of_the_triggers(seeded, shard):
    """Has the triggers derive everything anew, and compares; all of it is rolled back."""
    def derived():
        return [seeded.sql(shard, f'SELECT id, {columns} ORDER BY id') for columns in
                ('progress_percent, status, completed_at FROM enrollments',
                 'duration_minutes, rating_sum, rating_count, enrollment_count FROM courses')]
    before = derived()
    seeded.sql(shard, 'BEGIN')
    try:
        seeded.sql(shard, 'UPDATE courses SET rating_sum = 0, rating_count = 0, enrollment_count = 0,'
                          ' duration_minutes = 0')
        seeded.sql(shard, 'UPDATE enrollments SET progress_percent = 0')
        seeded.sql(shard, 'UPDATE lesson_progress SET position_seconds = position_seconds + 1')
        seeded.sql(shard, 'UPDATE course_lessons SET is_preview = NOT is_preview')
        for table in ('course_reviews', 'enrollments'):
            # As if they came only now: the counters are at 0.
            columns, = seeded.sql(shard, "SELECT string_agg(attname, ', ') FROM pg_attribute WHERE attgenerated = ''"
                                         ' AND attnum > 0 AND attrelid = %s::regclass', (table,))
            seeded.sql(shard, f'CREATE TEMP TABLE all_{table} ON COMMIT DROP AS SELECT * FROM {table}')
            if table == 'enrollments':
                seeded.sql(shard, 'CREATE TEMP TABLE entries ON COMMIT DROP AS SELECT * FROM lesson_progress')
            seeded.sql(shard, "SET LOCAL campusfs.caller_keeps = 'all'")
            seeded.sql(shard, f'DELETE FROM {table}')
            seeded.sql(shard, "SET LOCAL campusfs.caller_keeps = ''")
            seeded.sql(shard, f'INSERT INTO {table} ({columns[0]}) SELECT {columns[0]} FROM all_{table}')
        seeded.sql(shard, 'INSERT INTO lesson_progress SELECT * FROM entries')
        assert derived() == before
    finally:
        seeded.sql(shard, 'ROLLBACK')
    assert derived() == before


def test_no_time_is_later_than_the_fixed_day(seeded):
    times = [moment for folder in COLLECTIONS for body, *_ in seeded.documents(folder).values()
             for moment in re.findall(r'"(\d{4}-\d\d-\d\dT[\d:.]+Z)"', body)]
    assert len(times) > 3000
    assert max(times) < FIXED_DAY and min(times) > '2021-01-01'
    newest = seeded.mongo.preferences.find_one(sort=[('updated_at', -1)])['updated_at']
    assert newest.isoformat() < FIXED_DAY


def test_new_rows_get_fresh_ids(seeded):
    for shard in SHARDS:
        for number, table in seeded.sql(shard, 'SELECT number, table_name FROM collections'):
            (fresh, taken), = seeded.sql(shard, f'SELECT next_id({number}::smallint), max(id) FROM {table}')
            assert fresh > taken or table == 'course_categories' and fresh % 1000 != taken % 1000


# ---- whether it looks real

SCRIPTS = ['LATIN', 'GREEK', 'CYRILLIC', 'ARABIC', 'ETHIOPIC', 'CJK', 'HIRAGANA', 'HANGUL', 'DEVANAGARI', 'THAI']


def scripts_of(text):
    return {unicodedata.name(letter, '').split(' ')[0] for letter in text if letter.isalpha()}


def test_people_of_many_scripts(seeded):
    users = seeded.bodies('users')
    names = [user['first_name'] + user['last_name'] for user in users]
    assert set(SCRIPTS) <= scripts_of(''.join(names))
    assert any('WITH MACRON' in unicodedata.name(letter, '') for letter in ''.join(names))
    assert len(set(names)) == len(names)
    assert len({user['first_name'] for user in users}) > 100
    assert len({user['profile']['city'] for user in users}) > 60
    assert len({user['profile']['country'] for user in users}) > 25


def test_courses_of_many_scripts(seeded):
    courses = seeded.bodies('courses')
    assert len(scripts_of(''.join(course['title'] for course in courses)) & set(SCRIPTS)) >= 5
    assert len({(course['region'], course['title']) for course in courses}) == len(courses)
    assert len({course['currency'] for course in courses}) >= 8
    assert len({course['language'] for course in courses}) >= 8
    text = json.dumps([course | {'slug': ''} for course in courses], ensure_ascii=False)
    assert '{t}' not in text and '{c}' not in text and '|' not in text


def test_addresses_are_unique_and_nobodys(seeded, large):
    for platform in seeded, large:
        users = platform.bodies('users')
        emails = [user['email'] for user in users]
        assert all(re.fullmatch(r'[a-z.0-9]+@([a-z-]+\.)?example\.(com|org|net)', email) for email in emails)
        assert len(set(emails)) == len(emails), 'over all shards'
        assert len({user['username'] for user in users}) == len(users)
        assert len({course['slug'] for course in platform.bodies('courses')}) == len(platform.bodies('courses'))


def test_passwords(seeded):
    for shard in SHARDS:
        rows = seeded.sql(shard, 'SELECT user_id, password_hash,'
                                 "    crypt('learning-' || lpad((user_id / 1000 % 100)::text, 2, '0'), password_hash)"
                                 'FROM (SELECT * FROM user_credentials ORDER BY user_id LIMIT 3) few')
        assert len(rows) == 3
        assert all(stored == computed and stored.startswith('$2a$08$') for _, stored, computed in rows)


# ---- MongoDB

def test_media_are_readable_and_whole(seeded):
    for region in REGIONS:
        bucket = gridfs.GridFS(seeded.mongo, collection=f'media_{region}')
        files = list(bucket.find())
        assert {file.metadata['contentType'] for file in files} == \
            {'video/x-msvideo', 'audio/x-wav', 'application/pdf', 'text/vtt'}
        for file in files:
            content = file.read()
            assert hashlib.sha256(content).hexdigest() == file.metadata['sha256']
            assert len(content) == file.length and file.chunk_size == 255 * 1024
            assert file.filename.startswith(f"{file.metadata['courseId']}/")
            assert file.metadata['schema'] == 1 and file.metadata['title'] and file.metadata['mode'] == 0o640
            assert isinstance(file.metadata['mtime'], int)
        assert seeded.mongo[f'media_{region}.uploads'].count_documents({}) == 0


def test_every_file_that_a_lesson_names_is_there(seeded):
    named = {(course['region'], f"{course['id']}/{lesson['media']}") for course in seeded.bodies('courses')
             for module in course['modules'] for lesson in module['lessons'] if lesson['media']}
    assert len(named) >= 2 * len(REGIONS)
    there = {(region, file['filename']) for region in REGIONS for file in seeded.mongo[f'media_{region}.files'].find()}
    assert named <= there


def test_media_open_in_other_programs(seeded, tmp_path):
    bucket = gridfs.GridFS(seeded.mongo, collection=f'media_{REGIONS[0]}')
    samples = {}
    for file in bucket.find():
        samples.setdefault(file.metadata['contentType'], (file.metadata, file.read()))
    meta, sound = samples['audio/x-wav']
    with wave.open(io.BytesIO(sound)) as opened:
        assert opened.getnframes() * 1000 // opened.getframerate() == meta['durationMs']
    assert samples['text/vtt'][1].decode().startswith('WEBVTT\n\n1\n00:00:00.000 --> ')
    page = samples['application/pdf'][1]
    table = int(re.search(rb'startxref\n(\d+)\n%%EOF\n$', page)[1])
    assert page.startswith(b'%PDF-1.4') and page[table:].startswith(b'xref')
    for number, offset in enumerate(re.findall(rb'(\d{10}) 00000 n', page), 1):
        assert page[int(offset):].startswith(f'{number} 0 obj'.encode())
    meta, film = samples['video/x-msvideo']
    assert int.from_bytes(film[4:8], 'little') == len(film) - 8
    if shutil.which('ffprobe'):
        path = tmp_path / 'film.avi'
        path.write_bytes(film)
        said = subprocess.run(['ffprobe', '-v', 'error', '-show_entries', 'format=duration', '-of', 'csv=p=0', path],
                              capture_output=True, text=True, check=True)
        assert not said.stderr and float(said.stdout) * 1000 == meta['durationMs']


def test_preferences_are_valid(seeded):
    schema = json.loads((ROOT / 'sql/mongo/preferences.schema.json').read_text())
    people = seeded.mongo.preferences
    count = people.count_documents({})
    assert 60 <= count <= 122
    known = {user['id']: user for user in seeded.bodies('users')}
    for document in people.find():
        assert set(document) == {name for name in schema['properties'] if name == '_id' or not name.startswith('_')}
        assert document['language'] == known[document['user_id']]['profile']['language']
        assert document['timezone'] == known[document['user_id']]['profile']['timezone']
    with pytest.raises(pymongo.errors.WriteError) as refused:
        people.insert_one({**document, '_id': 5, 'user_id': 5, 'theme': 'purple'})
    assert refused.value.code == 121


# ---- running it again, on something else, or half

def test_second_run_changes_nothing(seeded):
    before = seeded.everything()
    logged = seeded.everywhere('SELECT count(*) FROM change_log')
    again = seeded.run('seed')
    assert again.returncode == 0 and 'nothing was changed' in again.stdout
    assert json.loads(seeded.run('seed', '--json').stdout)['changed'] is False
    assert seeded.everything() == before
    assert seeded.everywhere('SELECT count(*) FROM change_log') == logged


@pytest.mark.parametrize('arguments', [('--seed', '2'), ('--scale', '200')])
def test_other_sample_data_are_refused(seeded, arguments):
    before = seeded.everything()
    refused = seeded.run('seed', *arguments, check=False)
    assert refused.returncode == 1
    assert '--seed 1 --scale 122' in refused.stderr and not refused.stdout
    assert seeded.everything() == before


def test_a_platform_with_rows_is_refused(new_platform):
    platform = new_platform().init()
    platform.sql('emea', "INSERT INTO course_categories (id, name, slug) VALUES (1, 'Own', 'own')")
    refused = platform.run('seed', check=False)
    assert refused.returncode == 1
    assert 'shard emea is not empty: it has categories' in refused.stderr
    assert platform.everywhere('SELECT id FROM users') == []
    assert platform.everywhere('SELECT * FROM seed_log') == []


def test_a_mongodb_with_documents_is_refused(new_platform):
    platform = new_platform().init()
    platform.mongo['media_europe.files'].insert_one(
        {'filename': '5/a', 'length': 0, 'chunkSize': 4, 'uploadDate': datetime.datetime(2026, 1, 1)})
    refused = platform.run('seed', check=False)
    assert refused.returncode == 1 and 'MongoDB is not empty' in refused.stderr
    assert platform.everywhere('SELECT id FROM users') == []


def test_an_interrupted_run_goes_on(large, new_platform):
    platform = new_platform().init()
    command = [platform.cluster.program, '--config', platform.config, 'seed', '--scale', str(SCALE)]
    seed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while sum(steps for steps, in platform.everywhere('SELECT steps FROM seed_log')) < 6:
        assert seed.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    seed.send_signal(signal.SIGKILL)
    seed.wait()
    assert len(platform.everywhere('SELECT seed FROM seed_log WHERE finished_at IS NULL')) == len(SHARDS)
    while (busy := platform.run('seed', '--scale', str(SCALE), check=False)).returncode == 1:
        assert 'another seed is at work' in busy.stderr and time.monotonic() < deadline  # its sessions are ending
        time.sleep(0.05)
    assert busy.returncode == 0 and 'interrupted run completed' in busy.stdout
    assert platform.everything() == large.everything()
    assert platform.mongo.preferences.count_documents({}) == large.mongo.preferences.count_documents({})
    for region in REGIONS:
        assert gridfs_files(platform, region) == gridfs_files(large, region)


# ---- servers and configurations that are not as they should be

def test_without_mongodb_the_rows_are_the_same(seeded, new_platform):
    platform = new_platform(mongodb_uri=None).init()
    platform.run('seed')
    assert platform.everything() == seeded.everything()


def test_unreachable_mongodb(new_platform):
    platform = new_platform(mongodb_uri='mongodb://someone:secret@127.0.0.1:9/x?serverSelectionTimeoutMS=300')
    platform.run('init', check=False)
    refused = platform.run('seed', check=False)
    assert refused.returncode == 2 and 'MongoDB' in refused.stderr and 'secret' not in refused.stderr
    assert platform.everywhere('SELECT id FROM users') == []


def test_missing_schema(new_platform):
    platform = new_platform()
    refused = platform.run('seed', check=False)
    assert refused.returncode == 2
    assert all(f'shard {shard}: ' in refused.stderr for shard in SHARDS) and 'campusfs init' in refused.stderr


@pytest.mark.parametrize('arguments', [('--scale', '99'), ('--scale', '1000001'), ('--scale', '1e3'), ('--seed', '-1'),
                                       ('--seed', '9223372036854775808'), ('--seed', ''), ('--sed',), ('now',)])
def test_wrong_use(cluster, arguments):
    refused = cluster.run('seed', *arguments, check=False)
    assert refused.returncode == 64 and 'campusfs seed' in refused.stderr


def test_help(cluster):
    assert cluster.run('seed', '--help').stdout.startswith('Usage: campusfs seed')
