"""credentials/: password hashes as documents, where the configuration says so, for their owner and root alone."""

import json
import os
import subprocess
import time
import uuid

import process
import psycopg2
import pytest
from mount_tools import errno_of

HASHES = ['$2a$06$pXMCEcQWD8gcu3bqBs4RX.iZkOQTNGEV5y5N.HZ0RLT8OJY3e0bNK', '$2b$04$' + 'k' * 53, '$2y$12$' + '/' * 53]
SECRET = 'correct horse battery'


@pytest.fixture
def shown(new_mount):
    """A mount with credentials = on."""
    return new_mount(credentials='on').directory


@pytest.fixture
def user(new_user):
    return new_user(password=SECRET)


def file_of(root, row):
    return root / f'regions/{row.region}/credentials/{row.id}.json'


def errors_of(root):
    return (root / '.campusfs/errors.jsonl').read_text()


def authenticates(sql, row, password):
    try:
        return sql(row.region, 'SELECT user_id FROM authenticate_user(%s, %s)',
                   (row.document['email'], password)) == [(row.id,)]
    except psycopg2.Error as error:
        assert error.pgcode == '28P01'
        return False


# ---- whether they are there at all

def test_they_are_absent_unless_configured(mnt, user):
    assert 'credentials' not in os.listdir(mnt / 'regions/europe')
    assert errno_of(os.stat, mnt / 'regions/europe/credentials') == 'ENOENT'
    assert errno_of(os.stat, file_of(mnt, user)) == 'ENOENT'
    assert errno_of(os.mkdir, mnt / 'regions/europe/credentials') is not None


def test_they_are_listed_where_configured(shown, user, sql):
    assert 'credentials' in os.listdir(shown / 'regions/europe')
    assert 'credentials' not in os.listdir(shown)
    assert 'credentials = on' in (shown / '.campusfs/config').read_text()
    listed = {int(name.removesuffix('.json')) for name in os.listdir(shown / 'regions/europe/credentials')}
    assert listed == {row for row, in sql('europe', 'SELECT user_id FROM user_credentials WHERE region = 3')}


def test_the_document(shown, user, sql):
    path = file_of(shown, user)
    (hashed, us), = sql('europe', 'SELECT password_hash, epoch_us(changed_at) FROM user_credentials '
                                  'WHERE user_id = %s', (user.id,))
    text = path.read_text()
    document = json.loads(text)
    assert list(document) == ['user_id', 'region', 'password_hash', 'updated_at']
    assert (document['user_id'], document['region'], document['password_hash']) == (user.id, 'europe', hashed)
    assert text == json.dumps(document, indent=2) + '\n'
    stat = path.stat()
    assert stat.st_mode & 0o7777 == 0o400 and stat.st_size == len(text)
    assert stat.st_mtime_ns == us * 1000
    assert stat.st_ino == 9 << 60 | 3 << 54 | user.id << 16


def test_others_cannot_read_them(shown, user):
    path = file_of(shown, user)
    done = subprocess.run(['runuser', '-u', 'nobody', '--', 'cat', path], capture_output=True, text=True)
    assert done.returncode != 0 and '$2' not in done.stdout


def test_owner_and_mode_can_be_configured(cluster, new_mount, user):
    config = cluster.write_config(cluster.directory / f'own-{uuid.uuid4().hex[:8]}.conf', state_dir=None,
                                  credentials='on')
    config.write_text(config.read_text() + '\n[collections]\ncredentials = owner=65534 mode=0600\n')
    mount = cluster.mount(cluster.directory / f'mnt-{uuid.uuid4().hex[:8]}', config=config)
    try:
        stat = file_of(mount.directory, user).stat()
        assert (stat.st_uid, stat.st_mode & 0o7777) == (65534, 0o600)
    finally:
        cluster.mounts.remove(mount)
        mount.stop()
        mount.clean_up()


# ---- who may see them in SQL

def test_only_the_mounts_role_sees_them(db):
    with db('europe', 'rw').cursor() as cursor:
        cursor.execute('SELECT body FROM doc_credentials LIMIT 1')
        for statement in ('SELECT * FROM user_credentials', 'UPDATE user_credentials SET rev = 1',
                          'DELETE FROM doc_credentials'):
            with pytest.raises(psycopg2.Error) as raised:
                cursor.execute(statement)
            assert raised.value.pgcode in ('42501', '55000')
    with db('europe', 'ro').cursor() as cursor:
        for statement in ('SELECT body FROM doc_credentials LIMIT 1', 'SELECT * FROM user_credentials',
                          "SELECT * FROM put_credentials(3::smallint, 1, '{}', NULL, NULL, false, NULL, NULL)",
                          'SELECT delete_credentials(3::smallint, 1, NULL, NULL)'):
            with pytest.raises(psycopg2.Error) as raised:
                cursor.execute(statement)
            assert raised.value.pgcode == '42501'


# ---- saving

@pytest.mark.parametrize('way', [['cp', '-a'], ['rsync', '-a', '--modify-window=-1'], ['install', '-p', '-m', '0400']])
def test_a_hash_comes_back_with_its_time(new_mount, user, sql, tmp_path, way):
    path = file_of(new_mount(credentials='on', conflicts='overwrite').directory, user)
    kept = tmp_path / path.name
    subprocess.run(['cp', '-a', path, kept], check=True)
    sql('europe', 'SELECT put_password(3::smallint, %s, %s)', (user.id, 'another one'))
    assert process.wait_until(lambda: path.read_bytes() != kept.read_bytes(), 30)
    assert not authenticates(sql, user, SECRET)
    subprocess.run([*way, kept, path], check=True)
    assert path.read_bytes() == kept.read_bytes()
    assert path.stat().st_mtime_ns == kept.stat().st_mtime_ns
    assert authenticates(sql, user, SECRET)


def test_an_older_hash_is_a_conflict(shown, user, sql, tmp_path):
    path = file_of(shown, user)
    kept = path.read_text()
    sql('europe', 'SELECT put_password(3::smallint, %s, %s)', (user.id, 'another one'))
    assert process.wait_until(lambda: path.read_text() != kept, 30)
    assert errno_of(path.write_text, kept) == 'ECANCELED'
    assert authenticates(sql, user, 'another one')


@pytest.mark.parametrize('hashed', HASHES)
def test_every_form_of_bcrypt_is_taken(shown, new_user, hashed):
    row = new_user()
    path = file_of(shown, row)
    assert errno_of(os.stat, path) == 'ENOENT', 'no password, no document'
    path.write_text(json.dumps({'user_id': row.id, 'password_hash': hashed}))
    assert json.loads(path.read_text())['password_hash'] == hashed
    before = path.stat()
    path.write_text(path.read_text())
    assert path.stat().st_mtime_ns == before.st_mtime_ns, 'an equal document writes nothing'


@pytest.mark.parametrize('kind', ['$2a$', '$2b$', '$2y$'])
def test_hashes_of_other_systems_authenticate(shown, user, sql, kind):
    path = file_of(shown, user)
    document = json.loads(path.read_text())
    document['password_hash'] = kind + document['password_hash'][4:]
    path.write_text(json.dumps(document))
    assert json.loads(path.read_text())['password_hash'].startswith(kind)
    assert authenticates(sql, user, SECRET) and not authenticates(sql, user, SECRET + '.')


BAD = [('md5', '5f4dcc3b5aa765d61d8327deb882cf99'), ('plain', 'plain-secret'), ('short', '$2b$10$abc'),
       ('cost', '$2b$99$' + 'x' * 53), ('letter', '$2b$10$' + 'x' * 52 + '!'), ('kind', '$2z$10$' + 'x' * 53),
       ('list', [HASHES[1]]), ('number', 5), ('null', None), ('blanked', '*' * 60)]


@pytest.mark.parametrize('name, value', BAD, ids=[name for name, _ in BAD])
def test_anything_else_is_refused_and_repeated_nowhere(shown, user, name, value):
    path = file_of(shown, user)
    before = path.read_bytes()
    assert errno_of(path.write_text, json.dumps({'user_id': user.id, 'password_hash': value})) == 'EINVAL'
    assert path.read_bytes() == before
    report = json.loads(errors_of(shown).splitlines()[-1])
    assert report['column'] == 'password_hash'
    refused = (path.parent / '.refused' / path.name).read_text()
    for text in (json.dumps(report), refused, (path.parent / '.refused' / f'{path.name}.error').read_text()):
        assert not isinstance(value, str) or name == 'blanked' or value not in text
        assert 'plain-secret' not in text and 'kkkk' not in text and 'xxxx' not in text
    if isinstance(value, str):
        assert json.loads(refused)['password_hash'].strip('*') == ''


def test_a_hash_in_the_wrong_place_is_blanked_too(shown, user):
    path = file_of(shown, user)
    assert errno_of(path.write_text, json.dumps({'user_id': HASHES[1], 'hash': HASHES[1]})) == 'EINVAL'
    for text in (errors_of(shown), (path.parent / '.refused' / path.name).read_text(),
                 (path.parent / '.refused' / f'{path.name}.error').read_text()):
        assert 'kkkk' not in text


def test_whose_they_are(shown, user, new_user):
    path = file_of(shown, user)
    other = new_user()
    assert errno_of(path.write_text, json.dumps({'user_id': other.id, 'password_hash': HASHES[0]})) == 'EINVAL'
    nobody = path.with_name('274877906002.json')
    assert errno_of(nobody.write_text, json.dumps({'password_hash': HASHES[0]})) == 'ENOLINK'
    assert errno_of(path.with_name('new.json').write_text, json.dumps({'password_hash': HASHES[0]})) == 'EINVAL'
    assert errno_of(path.with_name('.next-id').read_text) == 'EPERM'
    elsewhere = shown / f'regions/africa/credentials/{user.id}.json'
    assert errno_of(elsewhere.write_text, json.dumps({'password_hash': HASHES[0]})) == 'ENOLINK'


def test_rm_takes_the_password_away_and_leaves_the_user(shown, user, sql):
    path = file_of(shown, user)
    kept = path.read_text()
    path.unlink()
    assert errno_of(os.stat, path) == 'ENOENT'
    assert (shown / f'regions/europe/users/{user.id}.json').exists()
    assert not authenticates(sql, user, SECRET)
    path.write_text(kept)
    assert authenticates(sql, user, SECRET)


# ---- what others notice

def test_a_changed_password_shows_and_the_user_does_not_move(shown, user, sql):
    path = file_of(shown, user)
    mine = shown / f'regions/europe/users/{user.id}.json'
    before, was, folder = path.read_text(), mine.stat().st_mtime_ns, path.parent.stat().st_mtime_ns
    sql('europe', 'SELECT change_password(%s, %s, %s)', (user.id, SECRET, 'a new password'))
    assert process.wait_until(lambda: path.read_text() != before, 30)
    assert json.loads(path.read_text())['updated_at'] > json.loads(before)['updated_at']
    assert process.wait_until(lambda: path.parent.stat().st_mtime_ns > folder, 30)
    assert mine.stat().st_mtime_ns == was
    logged = sql('europe', 'SELECT operation FROM change_log WHERE collection = 9 AND row_id = %s ORDER BY xid, id',
                 (user.id,))
    assert logged == [('insert',), ('update',)]


def test_any_update_of_the_hash_moves_its_time(user, sql):
    clocks = 'SELECT changed_at, rev FROM user_credentials WHERE user_id = %s'
    (before, rev), = sql('europe', clocks, (user.id,))
    sql('europe', 'UPDATE user_credentials SET password_hash = %s WHERE user_id = %s', (HASHES[0], user.id))
    (after, later), = sql('europe', clocks, (user.id,))
    assert after > before and later > rev
    sql('europe', 'UPDATE user_credentials SET password_hash = password_hash WHERE user_id = %s', (user.id,))
    assert sql('europe', clocks, (user.id,)) == [(after, later)]


def test_they_move_with_their_user(shown, user):
    text = file_of(shown, user).read_text()
    os.rename(shown / f'regions/europe/users/{user.id}.json', shown / f'regions/africa/users/{user.id}.json')
    moved = shown / f'regions/africa/credentials/{user.id}.json'
    assert process.wait_until(moved.exists, 30)
    assert moved.read_text() == text.replace('"europe"', '"africa"')
    assert process.wait_until(lambda: not file_of(shown, user).exists(), 30)


def test_they_go_with_their_user(shown, user):
    assert file_of(shown, user).exists()
    (shown / f'regions/europe/users/{user.id}.json').unlink()
    assert process.wait_until(lambda: not file_of(shown, user).exists(), 30)


def test_no_log_has_a_hash(shown, user, new_mount, cluster):
    text = file_of(shown, user).read_text()
    hashed = json.loads(text)['password_hash']
    time.sleep(0.1)
    logs = list(cluster.log_directory.glob('mount-*.log'))
    assert logs
    for log in logs:
        assert hashed not in log.read_text(errors='replace')
