"""MongoDB by TLS and with passwords: what is right works, what is wrong says so, and no password is shown."""

import json
import re
import subprocess

import pytest

import process
from mongodb import MongoServer
from mount_tools import errno_of

PASSWORD = 'S3cr/t:p@ss%'
ESCAPED = 'S3cr%2Ft%3Ap%40ss%25'


def openssl(directory, *words):
    subprocess.run(['openssl', *map(str, words)], check=True, capture_output=True, cwd=directory)


def make_authority(directory, name):
    openssl(directory, 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', f'{name}.key', '-out', f'{name}.pem',
            '-days', '2', '-subj', f'/CN={name}')


def make_certificates(directory):
    """An authority, a certificate of it for localhost, not its address, and an authority that has nothing to do with it."""
    directory.mkdir()
    make_authority(directory, 'authority')
    make_authority(directory, 'stranger')
    openssl(directory, 'req', '-newkey', 'rsa:2048', '-nodes', '-keyout', 'server.key', '-out', 'server.csr',
            '-subj', '/CN=localhost')
    (directory / 'names').write_text('subjectAltName=DNS:localhost\n')
    openssl(directory, 'x509', '-req', '-in', 'server.csr', '-CA', 'authority.pem', '-CAkey', 'authority.key',
            '-CAcreateserial', '-out', 'server.pem', '-days', '2', '-extfile', 'names')
    (directory / 'both.pem').write_text((directory / 'server.key').read_text() + (directory / 'server.pem').read_text())
    for path in directory.iterdir():
        process.give_to_server(path)
    process.give_to_server(directory)


class SecureServer(MongoServer):
    """The launcher's server, once it has a user: with TLS and passwords."""
    certificates = None
    secure = False

    def _command(self, program):
        command = super()._command(program)
        if self.secure and self.kind == 'mongod':
            command += ['--auth', '--tlsMode', 'requireTLS', '--tlsCertificateKeyFile', self.certificates / 'both.pem']
        elif self.secure:
            command += ['--auth', '--tls-cert-file', self.certificates / 'server.pem', '--tls-key-file',
                        self.certificates / 'server.key']
        return command

    @property
    def uri(self):
        plain = super().uri
        if not self.secure:
            return plain
        return (plain.replace(f'mongodb://{self.host}', f'mongodb://campusfs:{ESCAPED}@localhost') +
                f'?authSource=admin&authMechanism=SCRAM-SHA-256&tls=true&tlsCAFile={self.certificates}/authority.pem')


@pytest.fixture(scope='module')
def secure(run_directory):
    directory = run_directory / 'secure'
    directory.mkdir()
    make_certificates(directory / 'certificates')
    server = SecureServer(directory / 'mongodb', directory / 'mongodb.log')
    server.certificates = directory / 'certificates'
    try:
        server.start()
        with server.client() as client:
            client.admin.command('createUser', 'campusfs', pwd=PASSWORD, mechanisms=['SCRAM-SHA-256'],
                                 roles=['root'])
        server.stop()
        server.secure, server.port = True, None
        server.start()
        yield server
    finally:
        server.kill()


def nothing_shown(text):
    assert 'S3cr' not in text and ESCAPED not in text


def health(cluster, uri):
    done = cluster.run('health', '--json', '--timeout', '5', env={'CAMPUSFS_MONGODB_URI': uri}, check=False)
    nothing_shown(done.stdout + done.stderr)
    return json.loads(done.stdout)['mongodb']


def test_tls_and_passwords_work(cluster, secure, new_mount, new_user):
    done = cluster.run('init', '--json', env={'CAMPUSFS_MONGODB_URI': secure.uri})
    nothing_shown(done.stdout)
    report = health(cluster, secure.uri)
    assert report['reachable'] and report['capabilities']['validators']
    root = new_mount(mongodb_uri=secure.uri).directory
    user = new_user()
    path = root / f'regions/europe/preferences/{user.id}.json'
    path.write_text('{"theme": "dark"}')
    assert json.loads(path.read_text())['theme'] == 'dark'
    with secure.client() as client:
        assert client.get_default_database().preferences.find_one({'user_id': user.id})['theme'] == 'dark'
    for name in ('config', 'health.json', 'metrics', 'errors.jsonl'):
        nothing_shown((root / '.campusfs' / name).read_text())


@pytest.mark.parametrize('change, errno, words', [
    ((ESCAPED, 'wrong'), 'EACCES', r'(?i)authenticat'),
    (('campusfs:', 'nobody:'), 'EACCES', r'(?i)authenticat'),
    (('authority.pem', 'stranger.pem'), 'EIO', r'(?i)certificate|tls'),
    pytest.param(('@localhost:', '@127.0.0.1:'), 'EIO', r'(?i)certificate|hostname|tls', marks=pytest.mark.long),
    (('&tls=true', '&tls=false'), 'EIO', r'.'),
    (('//campusfs:' + ESCAPED + '@', '//'), 'EACCES', r'(?i)auth'),
])
def test_what_is_wrong_is_told(cluster, secure, new_mount, new_user, change, errno, words):
    uri = secure.uri.replace(*change)
    if change[1] == '//':
        uri = uri.replace('authSource=admin&authMechanism=SCRAM-SHA-256&', '')
    if change[1] == '&tls=false':
        uri = re.sub(r'&tlsCAFile=[^&]*', '', uri)
    report = health(cluster, uri)
    assert not report['reachable'] and re.search(words, report['error']), report
    user = new_user()
    root = new_mount(mongodb_uri=uri, timeout='3s').directory
    path = root / f'regions/europe/preferences/{user.id}.json'
    assert errno_of(path.read_text) == errno
    told = json.loads((root / '.campusfs/errors.jsonl').read_text().splitlines()[-1])
    assert told['errno'] == errno and str(user.id) in told['path']
    nothing_shown(json.dumps(told))
    assert json.loads((root / f'regions/europe/users/{user.id}.json').read_text())['id'] == user.id
    nothing_shown((root / '.campusfs/config').read_text())
