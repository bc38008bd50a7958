"""mount/restore: a platform comes back from its backup byte for byte, in the tree and in the tables."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
import uuid
from pathlib import Path

import process
import pytest
from cluster import SHARDS, Cluster
from conftest import ROOT, prepare
from mount_tools import REGIONS

RESTORE = ROOT / 'mount/restore'
PG_DUMP = Path('/usr/lib/postgresql/15/bin/pg_dump')
BUSINESS = ('users user_profiles user_credentials course_categories courses course_modules course_lessons enrollments '
            'lesson_progress course_reviews payment_methods transactions invoices').split()
TECHNICAL = {'rev', 'content_at'}
MEDIA = 'media'
DONE, LEFT, BROKEN, USAGE, INTERRUPTED = 0, 1, 2, 64, 130
PASSWORD = 'correct horse battery'
EMAIL = 'restored@example.org'


class Platform:
    """A cluster of the module's own, a mount of it for restores, and its backup."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.mount = None
        self.settings = {}  # of the mount, besides those of a restore
        self.backup = cluster.directory / 'backup'

    @property
    def root(self):
        return self.mount.directory

    def mounted(self, **settings):
        """Mounts it, anew if need be."""
        self.unmount()
        config = self.cluster.write_config(self.cluster.directory / 'restore.conf', state_dir=None,
                                           **{'conflicts': 'overwrite', 'credentials': 'on', **settings})
        self.mount = self.cluster.mount(self.cluster.directory / 'mnt-restore', config=config)
        self.settings = settings
        return self.root

    def unmount(self):
        if self.mount:
            self.cluster.mounts.remove(self.mount)
            assert self.mount.stop() == 0
            self.mount = None

    def sql(self, where, text, params=None):
        connection = self.cluster.connect(where, options='-c search_path=campusfs,pg_catalog')
        try:
            with connection.cursor() as cursor:
                cursor.execute(text, params)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def drop(self):
        """The bad day: every database, all preferences and all media are lost, and made anew."""
        self.unmount()
        for shard in SHARDS:
            connection = self.cluster.connect(shard, database='postgres')
            with connection.cursor() as cursor:
                cursor.execute('DROP DATABASE campusfs WITH (FORCE)')
            connection.close()
        with self.cluster.mongodb.client() as client:
            database = client.get_default_database()
            for name in database.list_collection_names():
                database.drop_collection(name)
        self.cluster.run('init')
        self.mounted()

    def restore(self, *options, backup=None, root=None):
        return subprocess.run([RESTORE, *options, backup or self.backup, root or self.root], capture_output=True,
                              text=True, check=False, timeout=120)

    def differences(self):
        # What a mount may believe for a moment, the kernel may as well.
        time.sleep(1.1)
        return subprocess.run(['rsync', '-anicO', '--delete', f'{self.backup}/', f'{self.root}/'], capture_output=True,
                              text=True, check=True).stdout

    def media_differences(self, region='europe'):
        """Of media, in any respect that a backup knows: folders' times are their own, too."""
        place = f'regions/{region}/{MEDIA}/'
        return [line for line in subprocess.run(
            ['rsync', '-anic', '--delete', '--modify-window=-1', f'{self.backup}/{place}', f'{self.root}/{place}'],
            capture_output=True, text=True, check=True).stdout.splitlines() if not line.endswith(' ./')]

    def dump(self):
        """{(shard, table): its rows, sorted}, as pg_dump has them, technical columns aside."""
        found = {}
        for shard in SHARDS:
            node = self.cluster.primary(shard)
            text = subprocess.run(
                [PG_DUMP, '--data-only', '--schema=campusfs', '-h', node.socket_directory, '-p', str(node.port), '-U',
                 'postgres', 'campusfs'], env={**os.environ, 'PGPASSFILE': str(self.cluster.passfile)},
                capture_output=True, text=True, check=True).stdout
            for table, columns, rows in re.findall(
                    r'^COPY campusfs\.(\w+) \(([^)\n]*)\) FROM stdin;\n(.*?)^\\\.$', text, re.M | re.S):
                if table not in BUSINESS:
                    continue
                kept = [i for i, name in enumerate(columns.split(', ')) if name not in TECHNICAL]
                cells = (row.split('\t') for row in rows.splitlines())
                found[shard, table] = sorted(tuple(row[i] for i in kept) for row in cells)
        assert len(found) == len(BUSINESS) * len(SHARDS)
        return found

    def choices(self):
        """What MongoDB has of each user, {user id: document} without campusfs' own fields."""
        with self.cluster.mongodb.client() as client:
            return {document['user_id']: {key: value for key, value in document.items() if not key.startswith('_')}
                    for document in client.get_default_database().preferences.find()}

    def rows(self):
        return {shard: self.sql(shard, 'SELECT count(*) FROM change_log')[0][0] for shard in SHARDS}


def put(platform, region, collection, row_id, document):
    call = (f'SELECT id FROM put_{collection}(%s::smallint, %s, %s::jsonb, NULL, NULL, false, %s::uuid, %s)')
    (made,), = platform.sql(region, call, (REGIONS[region], row_id, json.dumps(document), str(uuid.uuid4()), 'test'))
    return made


def fill(folder):
    """Media of a course: files of several sizes, below each other and empty, with times, modes and owners; an empty folder."""
    os.makedirs(folder / 'week 1/raw')
    os.makedirs(folder / 'week 2')
    for name, size in (('notes.txt', 10), ('week 1/film.bin', 600_000), ('week 1/raw/empty', 0), ('week 1/raw/tail', 261_121)):
        (folder / name).write_bytes(bytes(range(256)) * (size // 256) + b'x' * (size % 256))
        os.chmod(folder / name, 0o640)
        os.utime(folder / name, ns=(0, 1_500_000_000_123_456_789 + size))
    os.chown(folder / 'notes.txt', 1234, 1235)
    os.chmod(folder / 'week 2', 0o2750)
    for name in ('week 1/raw', 'week 1', 'week 2'):
        os.utime(folder / name, ns=(0, 1_400_000_000_000_000_001 + len(name)))


@pytest.fixture(scope='module')
def platform(run_directory, campusfs):
    """A seeded platform, with a user whose password is known and a deep branch of categories whose ids run upwards."""
    cluster = Cluster(run_directory / f'restore-{uuid.uuid4().hex[:6]}', durable=False, replicas=False, program=campusfs)
    try:
        cluster.create()
        prepare(cluster, seed=True)
        platform = Platform(cluster)
        put(platform, 'europe', 'users', None, {'email': EMAIL, 'username': 'restored', 'first_name': 'Ada',
                                                'last_name': 'Lovelace', 'password': PASSWORD})
        root = platform.mounted()
        for row_id, parent in ((900001, None), (800001, 900001), (700001, 800001)):
            (root / f'categories/{row_id}.json').write_text(json.dumps(
                {'name': f'Level {row_id}', 'slug': f'level-{row_id}', 'parent_id': parent}))
        chosen = min((root / 'regions/europe/preferences').iterdir())
        chosen.write_text('{"theme": "dark", "playback": {"speed": 1.5}}')
        fill(root / f'regions/europe/{MEDIA}' / min((root / 'regions/europe/courses').iterdir()).stem)
        time.sleep(1.1)
        subprocess.run(['rsync', '-a', f'{root}/', f'{platform.backup}/'], check=True)
        platform.saved, platform.saved_choices = platform.dump(), platform.choices()
        yield platform
        platform.unmount()
    finally:
        cluster.kill()


@pytest.fixture
def whole(platform):
    """The platform as its backup has it, mounted for a restore."""
    if platform.settings:
        platform.mounted()
    assert platform.restore('--delete').returncode == DONE
    return platform


def backup_rows(platform, collection, region='europe'):
    return sorted((platform.backup / f'regions/{region}/{collection}').iterdir())


# ---- the proof

def check_fresh_ids(platform):
    """Fresh ids and numbers come behind the restored ones, and nobody had to say so."""
    for region in ('north_america', 'europe', 'asia'):
        for collection, table in (('users', 'users'), ('courses', 'courses'), ('enrollments', 'enrollments'),
                                  ('reviews', 'course_reviews'), ('payment-methods', 'payment_methods'),
                                  ('transactions', 'transactions'), ('invoices', 'invoices')):
            (most, number), = platform.sql(region, f'SELECT max(id), (SELECT number FROM shard) FROM {table}')
            fresh = int((platform.root / f'regions/{region}/{collection}/.next-id').read_text())
            assert fresh > most and fresh % 1000 == number, (region, collection)
        for table in ('course_modules', 'course_lessons'):
            (fresh, most), = platform.sql(region, f"SELECT next_child_id('{table}'), (SELECT max(id) FROM {table})")
            assert fresh > most, table
        (fresh, numbers), = platform.sql(region, 'SELECT next_invoice_number(), '
                                                 '(SELECT array_agg(number) FROM invoices)')
        running = [int(number.rpartition('-')[2]) for number in (fresh, *numbers)]
        assert running[0] == max(running[1:]) + 1
    assert int((platform.root / 'categories/.next-id').read_text()) > 900001


def test_round_trip(platform):
    platform.drop()
    assert platform.differences() != ''
    done = platform.restore()
    assert done.returncode == DONE, done.stdout + done.stderr
    assert platform.differences() == ''
    restored = platform.dump()
    for place, rows in platform.saved.items():
        assert restored[place] == rows, place
    assert platform.choices() == platform.saved_choices and len(platform.saved_choices) > 50
    assert len(list((platform.backup / f'regions/europe/{MEDIA}').glob('*/week */*'))) == 2
    assert platform.media_differences() == []
    check_fresh_ids(platform)
    (user,), = platform.sql('europe', 'SELECT user_id FROM authenticate_user(%s, %s)', (EMAIL, PASSWORD))
    moved = platform.root / f'regions/europe/users/{user}.json'
    assert process.wait_until(lambda: '"last_login_at": null' not in moved.read_text(), 30)
    assert platform.restore().returncode == DONE
    assert '"last_login_at": null' in moved.read_text()


def test_ids_of_ones_own_move_no_sequence(whole):
    """The rule that the one above is an exception of: without a time of its own, or near the end of all ids."""
    before = int((whole.root / 'regions/europe/users/.next-id').read_text())
    document = {'email': f'{uuid.uuid4().hex}@example.org', 'username': uuid.uuid4().hex, 'first_name': 'A',
                'last_name': 'B'}
    path = whole.root / 'regions/europe/users/50000002.json'
    path.write_text(json.dumps(document))
    assert int((whole.root / 'regions/europe/users/.next-id').read_text()) == before + 1000
    path.unlink()
    stray = whole.cluster.directory / 'stray.json'
    stray.write_text(json.dumps(document))
    path = whole.root / 'regions/europe/users/274877906002.json'
    subprocess.run(['cp', '-p', stray, path], check=True)
    assert int((whole.root / 'regions/europe/users/.next-id').read_text()) == before + 2000
    path.unlink()


def test_a_second_run_sends_nothing(whole):
    before = whole.rows()
    done = whole.restore('--delete')
    assert (done.returncode, done.stdout) == (DONE, 'MOUNT has all that BACKUP has, and nothing else\n')
    assert whole.rows() == before
    assert list((whole.root / 'regions/europe/users').glob('.refused/*')) == []


# ---- damage

def damage_media(folder):
    """Lost, changed, moved away, and of another mode."""
    (folder / 'week 2').rmdir()
    (folder / 'week 1/raw/tail').unlink()
    (folder / 'week 1/film.bin').write_bytes(b'cut off')
    os.rename(folder / 'week 1/raw/empty', folder / 'extra')
    os.chmod(folder / 'notes.txt', 0o600)


def test_a_damaged_tree(whole):
    region = 'regions/europe'
    users, reviews, enrollments, courses = (backup_rows(whole, name)
                                            for name in ('users', 'reviews', 'enrollments', 'courses'))
    changed = whole.root / region / 'users' / users[1].name
    changed.write_text(re.sub(r'"first_name": ".*"', '"first_name": "Damaged"', changed.read_text()))
    course = whole.root / region / 'courses' / courses[0].name
    document = json.loads(course.read_text())
    document['modules'].append({'title': 'Not in the backup', 'lessons': [{'title': 'Nor this'}]})
    course.write_text(json.dumps(document))
    for path in (*reviews[:2], *enrollments[:1]):
        (whole.root / region / path.parent.name / path.name).unlink()
    whole.sql('europe', 'UPDATE user_credentials SET password_hash = %s WHERE user_id IN '
              '(SELECT id FROM users WHERE email = %s)', ('$2a$04$' + 'x' * 53, EMAIL))
    extra = put(whole, 'europe', 'users', None, {'email': 'extra@example.org', 'username': 'extra', 'first_name': 'E',
                                                 'last_name': '', 'password': 'extra password'})
    put(whole, 'europe', 'reviews', None, {'user_id': extra, 'course_id': int(courses[0].stem), 'rating': 1})
    media = next((whole.backup / region / MEDIA).glob('*/week 2')).parent.relative_to(whole.backup)
    damage_media(whole.root / media)
    time.sleep(1.1)

    done = whole.restore('--dry-run', '--delete')
    assert done.returncode == DONE and 'nothing was changed' in done.stdout
    assert f'delete {region}/users/{extra}.json' in done.stdout
    assert f'send {region}/reviews/{reviews[0].name}' in done.stdout
    for words in ('delete {}/extra', 'send {}/week 2', 'send {}/notes.txt', 'send {}/week 1/film.bin'):
        assert words.format(media) in done.stdout
    assert 'Damaged' in changed.read_text()

    done = whole.restore()
    assert done.returncode == DONE or f'{courses[0].name}' in done.stdout, done.stdout
    assert (whole.root / region / f'users/{extra}.json').exists(), 'only --delete deletes'
    assert '--delete removes them' in done.stdout or 'left:' in done.stdout
    assert whole.media_differences() == [f'*deleting   {media.name}/extra']

    done = whole.restore('--delete')
    assert done.returncode == DONE, done.stdout + done.stderr
    assert whole.differences() == '' and whole.media_differences() == []
    assert whole.dump() == whole.saved


def test_swapped_unique_values_are_listed(whole):
    first, second = (int(path.stem) for path in backup_rows(whole, 'users')[:2])
    (one,), (two,) = (whole.sql('europe', 'SELECT email FROM users WHERE id = %s', (row,))[0]
                      for row in (first, second))
    whole.sql('europe', "UPDATE users SET email = 'swap@example.org' WHERE id = %s", (first,))
    whole.sql('europe', 'UPDATE users SET email = %s WHERE id = %s', (one, second))
    whole.sql('europe', 'UPDATE users SET email = %s WHERE id = %s', (two, first))
    time.sleep(1.1)
    done = whole.restore()
    assert done.returncode == LEFT
    for row, email in ((first, one), (second, two)):
        assert re.search(rf'users/{row}\.json: not restored: EEXIST: email "{re.escape(email)}" is taken', done.stdout)
    whole.sql('europe', "UPDATE users SET email = 'swap@example.org' WHERE id = %s", (first,))
    time.sleep(1.1)
    assert whole.restore().returncode == DONE, 'one of them out of the way, the rest restores itself'
    assert whole.differences() == ''


@pytest.mark.parametrize('whom', ['group', 'restore alone'])
def test_an_interrupted_restore_goes_on(whole, whom):
    for shard in SHARDS:
        whole.sql(shard, 'TRUNCATE invoices, course_reviews')
    reviews = whole.root / 'regions/europe/reviews'
    assert process.wait_until(lambda: os.listdir(reviews) == [], 30)
    runner = subprocess.Popen([RESTORE, whole.backup, whole.root], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                              text=True, start_new_session=True)
    assert process.wait_until(lambda: len(os.listdir(reviews)) > 3, 30)
    if whom == 'group':
        os.killpg(runner.pid, signal.SIGINT)  # as a terminal does
    else:
        runner.terminate()
    words = runner.communicate(timeout=60)[1]
    assert runner.returncode == INTERRUPTED and 'run it again' in words
    assert '>f' in whole.differences() and '.json.' not in whole.differences(), 'no half of a row is left'
    assert whole.restore().returncode == DONE
    assert whole.differences() == ''
    assert whole.dump() == whole.saved


def test_a_document_that_is_broken_is_listed_and_the_rest_restored(whole, tmp_path):
    backup = tmp_path / 'backup'
    subprocess.run(['cp', '-a', whole.backup, backup], check=True)
    broken, other = sorted((backup / 'regions/asia/reviews').iterdir())[:2]
    broken.write_bytes(broken.read_bytes()[:-30])
    (whole.root / 'regions/asia/reviews' / other.name).unlink()
    done = whole.restore(backup=backup)
    assert done.returncode == LEFT
    assert re.search(rf'asia/reviews/{broken.name}: not restored: EINVAL: ', done.stdout)
    assert (whole.root / 'regions/asia/reviews' / other.name).read_bytes() == other.read_bytes()


# ---- an operator's mistakes

def refused(whole, *options, words, code=LEFT, **places):
    before = whole.rows()
    done = whole.restore(*options, **places)
    assert done.returncode == code, done.stdout + done.stderr
    assert re.search(words, done.stderr), done.stderr
    assert whole.rows() == before
    return done


def test_places_that_are_none(whole, tmp_path):
    empty = tmp_path / 'empty'
    empty.mkdir()
    refused(whole, '--delete', backup=empty, words='is no backup of a campusfs mount')
    refused(whole, '--delete', backup=tmp_path / 'missing', words='is no backup of a campusfs mount')
    (empty / 'regions/europe/users').mkdir(parents=True)
    refused(whole, '--delete', backup=empty, words='it has no README')
    (empty / 'README').touch()
    refused(whole, '--delete', backup=empty, words='has no row at all')
    refused(whole, root=tmp_path, words='is not a mount')
    refused(whole, root='/proc', words='is not a campusfs mount')
    refused(whole, backup=whole.root, words='BACKUP lies in MOUNT')


def test_a_partial_backup_deletes_nothing_elsewhere(whole, tmp_path):
    part = tmp_path / 'part'
    (part / 'regions/europe').mkdir(parents=True)
    shutil.copy2(whole.backup / 'README', part)
    subprocess.run(['cp', '-a', whole.backup / 'regions/europe/reviews', part / 'regions/europe/'], check=True)
    done = whole.restore('--delete', backup=part)
    assert done.returncode == DONE and 'BACKUP has no regions/europe/users' in done.stderr
    assert whole.differences() == ''


def test_too_much_to_delete(whole, tmp_path):
    part = tmp_path / 'part'
    subprocess.run(['cp', '-a', whole.backup, part], check=True)
    for path in sorted((part / 'regions/asia/reviews').iterdir())[:4]:
        path.unlink()
    refused(whole, '--delete', '--max-delete', '3', backup=part, words='would remove 4 rows and files')


def test_mounts_that_cannot_take_it(whole):
    whole.mounted(conflicts='refuse')
    refused(whole, words='CAMPUSFS_CONFLICTS=overwrite')
    whole.mounted(read_only='yes')
    refused(whole, words='read-only')
    whole.mounted(credentials='off')
    refused(whole, words='--without-credentials')
    done = whole.restore('--without-credentials')
    assert done.returncode == DONE and 'passwords are not restored' in done.stderr


def test_a_backup_without_credentials(whole, tmp_path):
    part = tmp_path / 'part'
    subprocess.run(['rsync', '-a', '--exclude=credentials', f'{whole.backup}/', part], check=True)
    done = whole.restore('--delete', backup=part)
    assert done.returncode == DONE and 'BACKUP has no credentials/' in done.stderr
    assert whole.differences() == '', 'what BACKUP does not hold is not deleted'


def test_what_the_mount_has_not_is_told(whole, tmp_path):
    part = tmp_path / 'part'
    subprocess.run(['cp', '-a', whole.backup, part], check=True)
    (part / 'regions/europe/wishes').mkdir()
    subprocess.run(['cp', '-a', part / 'regions/asia', part / 'regions/atlantis'], check=True)
    done = whole.restore(backup=part)
    assert done.returncode == LEFT and 'MOUNT has all that BACKUP has' in done.stdout
    assert 'left out: regions/atlantis: MOUNT has no such region' in done.stdout
    assert 'left out: regions/europe/wishes: MOUNT has no such collection' in done.stdout


def test_times_that_were_lost_are_told(whole, tmp_path):
    part = tmp_path / 'part'
    subprocess.run(['cp', '-r', whole.backup, part], check=True)
    assert 'have not the times of their documents' in whole.restore('--dry-run', backup=part).stderr


@pytest.mark.parametrize('arguments, code', [([], USAGE), (['/x'], USAGE), (['--frob', '/x', '/y'], USAGE),
                                             (['--jobs', '0', '/x', '/y'], USAGE), (['--help'], DONE)])
def test_usage(arguments, code):
    assert subprocess.run([RESTORE, *arguments], capture_output=True, check=False).returncode == code
