"""One shard whose servers Debian's Patroni keeps, with its own Raft for a store: three members on this machine."""

import contextlib
import json
import secrets
import shutil
import signal
import urllib.error
import urllib.request

import process
from cluster import DATABASE, ROLES, write_private
from postgres import BINARIES, SETTINGS, Node, free_port

PROGRAM = shutil.which('patroni')
VERSION = '3.0.2'  # what docs/running.md says has been tested
START_TIMEOUT = 60
# Patroni's smallest; what a lost machine costs is the first of them.
TIMES = {'ttl': 20, 'loop_wait': 2, 'retry_timeout': 3}
ACCESS_RULES = [f'{kind} {database} all{address} scram-sha-256' for kind, address in (('local', ''), ('host', ' 127.0.0.1/32'))
                for database in ('all', 'replication')]


class Member:
    """A Patroni and the server that it keeps."""

    def __init__(self, directory, name):
        self.name = name
        self.rest, self.raft = free_port(), free_port()
        self.node = Node(name, 'emea', free_port(), data_directory=directory / 'nodes' / name,
                         socket_directory=directory / 'run', log_file=directory / 'log' / f'{name}.log')
        self.config = directory / 'nodes' / f'{name}.json'
        self.log_file = directory / 'log' / f'patroni-{name}.log'
        self.patroni = None

    def start(self):
        self.patroni = process.spawn([PROGRAM, self.config], self.log_file, **process.as_server())

    def ask(self, path, **body):
        """An answer of the REST interface, None when there is none: (status, document)."""
        request = urllib.request.Request(f'http://127.0.0.1:{self.rest}/{path}', json.dumps(body).encode() if body else None)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return None

    def role(self):
        answer = self.ask('patroni')
        state = json.loads(answer[1]) if answer and answer[1].startswith('{') else {}
        return state.get('role') if state.get('state') == 'running' else None

    def kill_patroni(self):
        """At once, without a word to its server."""
        if self.patroni and self.patroni.poll() is None:
            self.patroni.send_signal(signal.SIGKILL)
            self.patroni.wait()


class PatroniShard:
    """`emea` with the regions europe and africa, its roles and a configuration for mounts."""

    def __init__(self, directory, program):
        self.directory, self.program = directory, program
        self.config = directory / 'campusfs.conf'
        self.passwords = {role: secrets.token_urlsafe(16) for role in ROLES}
        self.replication_password = secrets.token_urlsafe(16)
        self.members = [Member(directory, f'emea-{letter}') for letter in 'abc']

    def create(self):
        for path in (self.directory, self.directory / 'log'):
            path.mkdir()
        for path in (self.directory / 'nodes', self.directory / 'run', self.directory / 'nodes' / 'raft'):
            path.mkdir()
            process.give_to_server(path)
        for member in self.members:
            write_private(member.config, json.dumps(self._settings(member), indent=1))
            process.give_to_server(member.config)
            member.start()
        assert process.wait_until(self.is_whole, START_TIMEOUT, 0.2), self.logs()
        self._write_config()
        self.run('init')
        for role in ('rw', 'ro', 'repl'):
            self.sql(self.leader(), f"ALTER ROLE {ROLES[role]} PASSWORD '{self.passwords[role]}'")

    def _settings(self, member):
        others = [f'127.0.0.1:{other.raft}' for other in self.members if other is not member]
        parameters = {**SETTINGS, 'unix_socket_directories': str(self.directory / 'run'), 'fsync': 'off'}
        return {
            'scope': 'emea', 'name': member.name,
            'restapi': {'listen': f'127.0.0.1:{member.rest}', 'connect_address': f'127.0.0.1:{member.rest}'},
            'raft': {'data_dir': str(self.directory / 'nodes' / 'raft'), 'self_addr': f'127.0.0.1:{member.raft}',
                     'partner_addrs': others},
            'bootstrap': {
                'dcs': {**TIMES, 'synchronous_mode': True, 'primary_start_timeout': 0,
                        'postgresql': {'use_pg_rewind': True, 'use_slots': True, 'parameters': parameters}},
                'initdb': [{'encoding': 'UTF8'}, {'locale': 'C.UTF-8'}, 'data-checksums', {'wal-segsize': '1'}],
            },
            'postgresql': {
                'listen': f'127.0.0.1:{member.node.port}', 'connect_address': f'127.0.0.1:{member.node.port}',
                'data_dir': str(member.node.data_directory), 'bin_dir': str(BINARIES),
                'pgpass': str(self.directory / 'nodes' / f'{member.name}.pgpass'), 'pg_hba': ACCESS_RULES,
                'authentication': {'superuser': {'username': ROLES['admin'], 'password': self.passwords['admin']},
                                   'replication': {'username': 'replicator', 'password': self.replication_password}},
            },
        }

    def _write_config(self):
        passfile = self.directory / 'pgpass'
        write_private(passfile, ''.join(f'*:*:*:{ROLES[role]}:{word}\n' for role, word in self.passwords.items()))
        nodes = ''.join(f'{member.name} = shard=emea host=127.0.0.1 port={member.node.port}\n' for member in self.members)
        write_private(self.config, f'[campusfs]\ndatabase = {DATABASE}\nuser = {ROLES["rw"]}\nadmin_user = {ROLES["admin"]}\n'
                      f'passfile = {passfile}\nstate_dir = {self.directory}/state\ntimeout = 90s\nfailover_wait = 90s\n'
                      f'[shards]\nemea = number=2\n[nodes]\n{nodes}'
                      '[regions]\neurope = number=3 shard=emea\nafrica = number=4 shard=emea\n')

    def run(self, *arguments):
        return process.run([self.program, '--config', self.config, *arguments])

    # ---- who is who

    def leader(self):
        """The member that leads, None while nobody does."""
        return next((member for member in self.members if member.role() in ('master', 'primary')), None)

    def roles(self):
        """What the store says each member is that runs: leader, sync_standby (it confirms, and may be promoted), replica."""
        leader = self.leader()
        answer = leader.ask('cluster') if leader else None
        members = json.loads(answer[1])['members'] if answer and answer[0] == 200 else []
        return {member['name']: member['role'] for member in members if member['state'] in ('running', 'streaming')}

    def synchronous(self):
        return next(member for member in self.members if self.roles().get(member.name) == 'sync_standby')

    def is_whole(self):
        """One leads, the others stream from it, and one of them confirms its commits: in the store, and on the server."""
        if sorted(self.roles().values()) != ['leader', 'replica', 'sync_standby']:
            return False
        rows = self.sql(self.leader(), "SELECT sync_state FROM pg_stat_replication WHERE state = 'streaming' AND application_name LIKE 'emea%'")
        return sorted(rows) == [('async',), ('sync',)]

    def sql(self, member, text, parameters=None):
        import psycopg2
        where = 'postgres' if not self.config.exists() or 'ROLE' in text else DATABASE
        with contextlib.closing(psycopg2.connect(host='127.0.0.1', port=member.node.port, user=ROLES['admin'], dbname=where,
                                                 password=self.passwords['admin'], connect_timeout=5)) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            cursor.execute(text, parameters)
            return cursor.fetchall() if cursor.description else []

    def logs(self):
        return ''.join(f'\n{member.log_file} ends{process.tail(member.log_file)}' for member in self.members)

    def kill(self):
        for member in self.members:
            member.kill_patroni()
        for member in self.members:
            member.node.kill()
