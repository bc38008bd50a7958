"""TLS, client certificates, channel binding and passwords on the way to PostgreSQL, with certificates that are made here:
what is trusted works, what is not is refused in words, and nothing of it outlasts its deadline. One node speaks TLS, the
emea shard's only one; the others are reached as ever."""

import contextlib
import json
import re
import socket
import subprocess
import threading
import time

import process
import pytest
from cluster import Cluster, write_private
from conftest import prepare
from library_notice import without_notice
from mount_tools import errno_of, wait_for

HEALTHY, DOWN = 0, 2
CONNECT_TIMEOUT = 1  # seconds
SLACK = 20  # what a loaded machine may take beside
CERT_ROLE = 'campusfs_cert'


# ---- certificates

class Authority:
    """A certificate authority of the test's own, and what it signs."""

    def __init__(self, directory, name):
        self.directory, self.name = directory, name
        self.crt = directory / f'{name}.crt'
        self._key(name)
        self._openssl('req', '-x509', '-key', directory / f'{name}.key', '-out', self.crt, '-subj', f'/CN={name}',
                      '-days', '2')

    def _openssl(self, *arguments):
        process.run(['openssl', *arguments])

    def _key(self, name):
        self._openssl('ecparam', '-name', 'prime256v1', '-genkey', '-noout', '-out', self.directory / f'{name}.key')
        (self.directory / f'{name}.key').chmod(0o600)

    def sign(self, name, subject, days=2, host=None):
        """The certificate and the key of a subject, by that name in the directory."""
        request, crt, extensions = (self.directory / f'{name}.{end}' for end in ('csr', 'crt', 'ext'))
        self._key(name)
        self._openssl('req', '-new', '-key', self.directory / f'{name}.key', '-subj', f'/CN={subject}', '-out', request)
        extensions.write_text(f'subjectAltName=DNS:{host}\n' if host else 'basicConstraints=CA:FALSE\n')
        self._openssl('x509', '-req', '-in', request, '-CA', self.crt, '-CAkey', self.directory / f'{self.name}.key',
                      '-CAcreateserial', '-days', str(days), '-extfile', extensions, '-out', crt)
        return crt, self.directory / f'{name}.key'


class Secure:
    """The cluster, and the words of emea's node for this or that configuration."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.node = cluster.nodes['emea-a']
        self.files = cluster.directory / 'tls'
        self.files.mkdir()
        self.authority = Authority(self.files, 'ca')
        self.stranger = Authority(self.files, 'stranger')
        self.server = self.authority.sign('server', 'db.example.org', host='localhost')
        self.expired = self.authority.sign('expired', 'db.example.org', days=-1, host='localhost')
        self.client = self.authority.sign('client', CERT_ROLE)
        self.foreign_client = self.stranger.sign('foreign', CERT_ROLE)
        self._admit()
        self.serve(self.server)

    def _sql(self, text, database='postgres'):
        with contextlib.closing(self.cluster.connect(self.node, database=database)) as connection:
            with connection.cursor() as cursor:
                cursor.execute(text)
                return cursor.fetchall() if cursor.description else []

    def _admit(self):
        self._sql(f"CREATE ROLE {CERT_ROLE} LOGIN IN ROLE campusfs_rw")
        rules = self.node.data_directory / 'pg_hba.conf'
        rules.write_text(f'hostssl all {CERT_ROLE} 127.0.0.1/32 cert\n' + rules.read_text())

    def serve(self, pair):
        """Has the server show that certificate from now on."""
        for number, path in enumerate(pair):
            at = self.node.data_directory / ('shown.crt', 'shown.key')[number]
            write_private(at, path.read_text())
            process.give_to_server(at)
        ca = self.node.data_directory / 'clients.crt'
        write_private(ca, self.authority.crt.read_text())
        process.give_to_server(ca)
        for name, value in (('ssl_cert_file', 'shown.crt'), ('ssl_key_file', 'shown.key'),
                            ('ssl_ca_file', 'clients.crt'), ('ssl', 'on')):
            self._sql(f"ALTER SYSTEM SET {name} = '{value}'")
        loaded, = self._sql('SELECT pg_conf_load_time()')[0]
        self._sql('SELECT pg_reload_conf()')
        assert wait_for(lambda: self._sql('SELECT pg_conf_load_time()')[0][0] > loaded
                        and self._sql('SHOW ssl') == [('on',)], 60)

    def config(self, words, name='tls', **settings):
        """A configuration in which emea's node is reached by these words."""
        path = self.cluster.write_config(self.cluster.directory / f'{name}.conf', state_dir=None,
                                         connect_timeout=f'{CONNECT_TIMEOUT}s', **settings)
        text = path.read_text()
        path.write_text(re.sub(r'^emea-a = .*$', f'emea-a = shard=emea {words}', text, flags=re.MULTILINE))
        return path

    def words(self, host='localhost', ca=None, **more):
        words = {'host': host, 'hostaddr': '127.0.0.1', 'port': self.node.port, 'sslmode': 'verify-full',
                 'sslrootcert': ca or self.authority.crt, **more}
        return ' '.join(f'{key}={value}' for key, value in words.items())

    def sessions(self):
        """Of the mount's connections: the role, whether TLS is in use, and the client's certificate."""
        return self._sql("SELECT usename, ssl, client_dn FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) "
                         "WHERE application_name = 'campusfs'")

    def refused(self, words, said, **settings):
        """health and mount both refuse, in these words, with the exit code for servers that cannot be used, and in time."""
        config = self.config(words, **settings)
        start = time.monotonic()
        done = self.cluster.run('health', '--json', config=config, check=False)
        assert time.monotonic() - start < CONNECT_TIMEOUT + SLACK
        report = json.loads(done.stdout)
        node = next(shard for shard in report['shards'] if shard['name'] == 'emea')['nodes'][0]
        assert done.returncode == DOWN and node['reachable'] is False
        assert re.search(said, node['error']), node['error']
        mountpoint = self.cluster.directory / 'mnt-refused'
        mountpoint.mkdir(exist_ok=True)
        start = time.monotonic()
        mounted = self.cluster.run('mount', mountpoint, config=config, check=False)
        assert time.monotonic() - start < CONNECT_TIMEOUT + SLACK
        assert mounted.returncode == DOWN and re.search(said, mounted.stderr), mounted
        assert 'shard emea: node emea-a: ' in without_notice(mounted.stderr)
        for role in ('rw', 'admin'):
            assert self.cluster.password(role) not in done.stdout + done.stderr + mounted.stdout + mounted.stderr


@pytest.fixture(scope='module')
def secure(run_directory, campusfs):
    cluster = Cluster(run_directory / 'tls', durable=False, replicas=False, mongodb=False, program=campusfs)
    try:
        cluster.create()
        prepare(cluster, seed=False)
        yield Secure(cluster)
    finally:
        cluster.kill()


@contextlib.contextmanager
def mounted(secure, words, name, **settings):
    mount = secure.cluster.mount(secure.cluster.directory / f'mnt-{name}', config=secure.config(words, name, **settings))
    try:
        yield mount
    finally:
        secure.cluster.mounts.remove(mount)
        assert mount.stop() == 0


def new_user_by_file(root):
    path = root / 'regions/europe/users/new.json'
    name = f'u{time.monotonic_ns()}'
    return errno_of(path.write_text, json.dumps({
        'email': f'{name}@example.org', 'username': name, 'first_name': 'Ada', 'last_name': 'Lovelace', 'role': 'student',
        'status': 'active', 'profile': {}}))


# ---- what is trusted

def test_verified_servers_and_bound_channels_work(secure):
    words = secure.words(channel_binding='require', ssl_min_protocol_version='TLSv1.3')
    done = secure.cluster.run('health', config=secure.config(words), check=False)
    assert done.returncode == HEALTHY, done
    with mounted(secure, words, 'scram') as mount:
        assert new_user_by_file(mount.directory) is None
        assert set(secure.sessions()) == {('campusfs_rw', True, None)}
        secret = secure.cluster.password('rw').encode()
        assert secret not in mount.log_file.read_bytes()
        for part in ('cmdline', 'environ'):
            with open(f'/proc/{mount.process.pid}/{part}', 'rb') as file:
                assert secret not in file.read()


def test_client_certificates_stand_for_a_password(secure, tmp_path):
    crt, key = secure.client
    words = secure.words(user=CERT_ROLE, sslcert=crt, sslkey=key)
    with mounted(secure, words, 'cert') as mount:
        assert new_user_by_file(mount.directory) is None
        assert set(secure.sessions()) == {(CERT_ROLE, True, f'/CN={CERT_ROLE}')}


# ---- what is not

def test_a_server_of_another_authority_is_refused(secure):
    secure.refused(secure.words(ca=secure.stranger.crt), r'certificate verify failed \(.*sslrootcert.*expired')


def test_a_server_of_another_name_is_refused(secure):
    secure.refused(secure.words(host='db.example.net'),
                   r'server certificate for "localhost".* does not match host name "db.example.net"')


def test_an_expired_certificate_is_refused(secure):
    secure.serve(secure.expired)
    try:
        secure.refused(secure.words(), r'certificate verify failed \(.*sslrootcert.*expired')
    finally:
        secure.serve(secure.server)


def test_who_lacks_a_client_certificate_is_refused(secure):
    secure.refused(secure.words(user=CERT_ROLE, sslcert='/nonexistent/crt', sslkey='/nonexistent/key'),
                   'connection requires a valid client certificate')


def test_a_client_certificate_of_another_authority_is_refused(secure):
    crt, key = secure.foreign_client
    secure.refused(secure.words(user=CERT_ROLE, sslcert=crt, sslkey=key), 'unknown ca|certificate')


def test_a_wrong_password_is_refused(secure):
    secure.refused(secure.words(channel_binding='require', password='Tr0ub4dor'),
                   'password authentication failed for user "campusfs_rw"')
    config = secure.config(secure.words(password='Tr0ub4dor'))
    done = secure.cluster.run('health', config=config, check=False)
    assert 'Tr0ub4dor' not in done.stdout + done.stderr


def test_a_server_without_tls_is_refused(secure):
    plain = secure.cluster.nodes['apac-a']
    secure.refused(secure.words(port=plain.port), 'server does not support SSL, but SSL was required')
    secure.refused(f'host=127.0.0.1 port={plain.port} sslmode=disable channel_binding=require',
                   'channel binding')


def test_a_certificate_that_is_renewed_under_a_mount_is_taken(secure):
    """Connections that there are go on by the old one; a refused one puts the node out of use until it is mended."""
    with mounted(secure, secure.words(), 'renewed', pool_lifetime='500ms', cache_ttl='0') as mount:
        users = mount.directory / 'regions/europe/users'
        health = mount.directory / '.campusfs/health.json'
        secure.serve(secure.expired)
        try:
            assert wait_for(lambda: 'certificate verify failed' in health.read_text(), 30)
        finally:
            secure.serve(secure.authority.sign('renewed', 'db.example.org', host='localhost'))
        assert wait_for(lambda: json.loads(health.read_text())['status'] == 'ok', 30)
        assert errno_of(lambda: list(users.iterdir())) is None
        assert mount.log_file.read_text().count('in use again') <= 5


# ---- who never answers

@contextlib.contextmanager
def mute(greeting):
    """A server that takes connections, answers the first packet by these bytes and then no more. Its port."""
    taken = []

    def serve(server):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                taken.append(connection)
                connection.recv(8)
                connection.sendall(greeting)
    with socket.create_server(('127.0.0.1', 0)) as server:
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in taken:
                connection.close()


@pytest.mark.parametrize('greeting', [b'', b'S', b'S\x16\x03\x03\x00\x7a\x02\x00\x00'],
                         ids=['says nothing', 'agrees to TLS', 'begins the handshake'])
def test_a_server_that_never_answers_costs_the_deadline(secure, greeting):
    with mute(greeting) as port:
        secure.refused(secure.words(port=port), 'no answer while connecting, within the time there was')


def test_an_operation_keeps_its_deadline_while_a_handshake_hangs(secure):
    """The mount's node becomes one that begins a handshake and never ends it; a reader's wait has its end."""
    words = secure.words()
    with mounted(secure, words, 'hangs', timeout='2s', cache_ttl='0', cache_size='0') as mount, \
            mute(b'S\x16\x03\x03\x00\x7a\x02\x00\x00') as port:
        secure.config(secure.words(port=port), 'hangs', timeout='2s', cache_ttl='0', cache_size='0')
        secure.cluster.run('reload', mount.directory)
        start = time.monotonic()
        done = subprocess.run(['ls', mount.directory / 'regions/europe/users'], capture_output=True, check=False, text=True,
                              timeout=60)
        assert done.returncode != 0 and 'Input/output error' in done.stderr
        assert time.monotonic() - start < 2 * 2 + SLACK
        assert errno_of(lambda: list((mount.directory / 'regions/asia/users').iterdir())) is None
