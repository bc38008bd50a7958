"""A whole campusfs on this machine: shards of PostgreSQL servers, MongoDB, configuration, mounts.

mount/demo and the tests share it. Everything lies under one directory, and everything but the passwords is also in its
cluster.json, so that a cluster can be taken over by another process (Cluster.load) and broken by any script:

    cluster = Cluster('/tmp/c')               # or Cluster.load('/tmp/c')
    cluster.create(); cluster.start()         # servers up, standbys streaming, configuration written
    cluster.run('init'); cluster.set_passwords(); cluster.run('seed')
    mount = cluster.mount('/tmp/c/mnt')
    with cluster.connect('europe') as connection: ...      # a psycopg2 connection to the primary of that region's shard
    cluster.primary('emea').kill(); cluster.replica('emea').promote()
    cluster.stop(); cluster.destroy()
"""

import contextlib
import functools
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from pathlib import Path

import fuse_mount
import process
from fuse_mount import Mount
from mongodb import MongoServer
from postgres import Node, connection_string, free_port
from process import LaunchError

# Names and numbers as they are stored in the databases: shard, its number, its regions and theirs.
SHARDS = {
    'americas': (1, {'north_america': 1, 'south_america': 2}),
    'emea': (2, {'europe': 3, 'africa': 4}),
    'apac': (3, {'asia': 5, 'oceania': 6}),
}
DATABASE = 'campusfs'
ROLES = {'admin': 'postgres', 'rw': 'campusfs_rw', 'ro': 'campusfs_ro', 'repl': 'campusfs_repl'}
MARKER = '.campusfs-cluster'
SOCKET_PATH_MAX = 90  # of 107 bytes, the rest for the socket's own name


class Cluster:
    """All servers of one directory."""

    def __init__(self, directory, *, durable=True, replicas=True, mongodb=True, mongodb_uri=None, program=None):
        self.directory = Path(os.path.abspath(directory))
        self.program = program
        self.durable = durable
        self.config = self.directory / 'campusfs.conf'
        self.passfile = self.directory / 'pgpass'
        self.state_file = self.directory / 'cluster.json'
        self.log_directory = self.directory / 'log'
        self.socket_directory = self._socket_directory()
        self.settings = {}  # further keys of [campusfs]
        self.mongodb_optional = False
        self.mongodb_error = None
        self.say = print  # what a person should know of the cluster's repair
        self.mounts = []
        self.nodes = {}
        for shard in SHARDS:
            for letter in ('a', 'b') if replicas else ('a',):
                self._add_node(f'{shard}-{letter}', shard, free_port())
        self.mongodb = MongoServer(self.directory / 'mongodb', self.log_directory / 'mongodb.log',
                                   uri=mongodb_uri) if mongodb else None

    @classmethod
    def load(cls, directory, program=None):
        """The cluster that was made in this directory, running or not."""
        state = json.loads((Path(directory) / 'cluster.json').read_text())
        cluster = cls(directory, durable=state['durable'], mongodb=False, program=program)
        cluster.nodes = {}
        for node in state['nodes']:
            cluster._add_node(node['name'], node['shard'], node['port'])
        known = state['mongodb']
        if known:
            cluster.mongodb = MongoServer(cluster.directory / 'mongodb', cluster.log_directory / 'mongodb.log',
                                          known['kind'], known['port'], known.get('uri'))
        elif state['mongodb_optional']:  # it could not be had the last time
            cluster.mongodb = MongoServer(cluster.directory / 'mongodb', cluster.log_directory / 'mongodb.log')
        return cluster

    def _add_node(self, name, shard, port):
        self.nodes[name] = Node(name, shard, port, data_directory=self.directory / 'nodes' / name,
                                socket_directory=self.socket_directory, log_file=self.log_directory / f'{name}.log',
                                durable=self.durable)

    def _socket_directory(self):
        inside = self.directory / 'run'
        if len(os.fsencode(inside)) <= SOCKET_PATH_MAX:
            return inside
        digest = hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f'campusfs-{digest}'

    # ---- who is who

    def shard(self, name):
        """The shard of that name, or of the region of that name."""
        for shard, (_, regions) in SHARDS.items():
            if name == shard or name in regions:
                return shard
        raise KeyError(f'{name} is no shard and no region')

    def nodes_of(self, name):
        return [node for node in self.nodes.values() if node.shard == self.shard(name)]

    def primary(self, name):
        """The running node of the shard (or region) that is no standby."""
        return self._of_role(name, False)

    def replica(self, name):
        return self._of_role(name, True)

    def _of_role(self, name, standby):
        for node in self.nodes_of(name):
            if node.is_standby == standby and node.is_running():
                return node
        raise LaunchError(f'{self.shard(name)} has no running {"replica" if standby else "primary"}')

    # ---- passwords and connections

    def password(self, role):
        """The password of a role ('admin', 'rw', 'ro', 'repl'), from the pgpass file."""
        for line in self.passfile.read_text().splitlines():
            if line.startswith(f'*:*:*:{ROLES[role]}:'):
                return line.rpartition(':')[2]
        raise LookupError(f'{self.passfile} has no password of {ROLES[role]}')

    def connect(self, where, role='admin', database=DATABASE, **keywords):
        """A psycopg2 connection to a node (by name or itself), or to the primary of a shard or region; autocommit."""
        import psycopg2  # after the packages are there
        node = where if isinstance(where, Node) else self.nodes.get(where) or self.primary(where)
        connection = psycopg2.connect(host=str(node.socket_directory), port=node.port, user=ROLES[role],
                                      password=self.password(role), dbname=database, connect_timeout=10,
                                      **keywords)
        connection.autocommit = True
        return connection

    def set_passwords(self):
        """Gives the roles that `campusfs init` made their passwords. Servers get a verifier, not the password."""
        from psycopg2.extensions import encrypt_password, quote_ident
        for shard in SHARDS:
            connection = self.connect(shard, database='postgres')
            with connection.cursor() as cursor:
                cursor.execute('SELECT rolname FROM pg_roles')
                known = {name for name, in cursor}
                for role in ('rw', 'ro', 'repl'):
                    name = ROLES[role]
                    if name not in known:
                        continue
                    verifier = encrypt_password(self.password(role), name, connection, 'scram-sha-256')
                    cursor.execute(f'ALTER ROLE {quote_ident(name, connection)} PASSWORD %s', (verifier,))
            connection.close()

    def _write_passfiles(self):
        lines = ''.join(f'*:*:*:{name}:{secrets.token_urlsafe(24)}\n' for name in ROLES.values())
        write_private(self.passfile, lines)

    @property
    def _replication_passfile(self):
        return self.directory / 'nodes' / 'pgpass'

    def _write_server_files(self):
        """What servers themselves read: the replication password."""
        process.write_as_server(self._replication_passfile, f'*:*:*:{ROLES["repl"]}:{self.password("repl")}\n')

    @contextlib.contextmanager
    def _server_file(self, name, text):
        """One that the servers' account reads for as long as the block lasts."""
        path = self.directory / 'nodes' / name
        process.write_as_server(path, text)
        try:
            yield path
        finally:
            process.remove_as_server(path)

    # ---- making, starting, stopping

    def create(self):
        """Makes the directories, passwords and databases of a new cluster, and starts it."""
        os.umask(0o022)
        self._make_directories()
        self._write_passfiles()
        self._write_server_files()
        mongodb = [self._start_mongodb] if self.mongodb else []
        process.parallel([functools.partial(self._create_shard, shard) for shard in SHARDS] + mongodb)
        self._started()

    def _make_directories(self):
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / MARKER).touch()
        self.log_directory.mkdir(exist_ok=True)
        for path in (self.directory / 'nodes', self.socket_directory):
            self._make_server_directory(path)
        reach = process.run(['test', '-x', self.socket_directory], check=False, **process.as_server())
        if reach.returncode != 0:
            raise LaunchError(f'{process.server_account()}, whom the servers run as, cannot enter {self.directory}: '
                              'choose another directory')

    @staticmethod
    def _make_server_directory(path):
        """Makes it the servers' own; one that somebody else made under that name (in /tmp) is refused."""
        try:
            path.mkdir()
            process.give_to_server(path)
        except FileExistsError:
            if path.is_symlink() or path.stat().st_uid != process.server_uid():
                raise LaunchError(f'{path} is not the folder that the launcher made: remove it') from None

    def _create_shard(self, shard):
        primary, *standbys = self.nodes_of(shard)
        with self._server_file(f'password-{shard}', self.password('admin') + '\n') as path:
            primary.initialize(path)
        primary.start()
        self._create_replication_role(primary)
        for node in standbys:
            node.clone(primary, self._replication_passfile)
            node.start()

    def _create_replication_role(self, primary):
        from psycopg2.extensions import encrypt_password
        connection = self.connect(primary, database='postgres')
        with connection.cursor() as cursor:
            verifier = encrypt_password(self.password('repl'), ROLES['repl'], connection, 'scram-sha-256')
            cursor.execute(f'CREATE ROLE {ROLES["repl"]} LOGIN REPLICATION PASSWORD %s', (verifier,))
        connection.close()

    def start(self):
        """Starts every server that does not run, whatever became of it, and returns when standbys stream."""
        os.umask(0o022)
        self._make_directories()
        self._write_server_files()
        self.thaw()
        for shard in SHARDS:
            self._settle_roles(shard)
        waiting = [node for node in self.nodes.values() if not node.is_running()]
        primaries = [node for node in waiting if not node.is_standby]
        for node in primaries:
            node.lead()
        mongodb = [self._start_mongodb] if self.mongodb else []
        process.parallel([node.start for node in primaries] + mongodb)
        process.parallel(functools.partial(self._start_standby, node)
                         for node in self.nodes.values() if node.is_standby)
        self._started()

    def _settle_roles(self, shard):
        """One primary a shard: of two the one of the newer timeline stays; what is gone is cloned again."""
        nodes = [node for node in self.nodes_of(shard) if node.exists]
        primaries = [node for node in nodes if not node.is_standby]
        if not primaries:
            raise LaunchError(f'{shard} has no primary to start: `reset` makes the data anew')
        keep = max(primaries, key=lambda node: (node.timeline(), node.is_running()))
        for node in self.nodes_of(shard):
            if node is not keep and node not in nodes:
                self.say(f'{node.name} has lost its data: it becomes a new replica of {keep.name}')
                self.rejoin(node, keep)
            elif node is not keep and node in primaries:
                self.say(f'{keep.name} has been promoted: {node.name} becomes its replica, with its data')
                self.rejoin(node, keep)

    def add_replica(self, shard, letter, directory=None):
        """One more standby of a shard, streaming; it is in the configuration that write_config() writes from now on.
        With `directory`, which becomes the servers' own, its data lie there, in a folder of its name."""
        self._add_node(f'{shard}-{letter}', shard, free_port())
        node = self.nodes[f'{shard}-{letter}']
        if directory is not None:
            process.give_to_server(directory)
            node.data_directory = Path(directory) / node.name
        node.clone(self.primary(shard), self._replication_passfile)
        node.start()
        self._wait_streaming(shard)
        return node

    def remove_replica(self, node):
        """Takes away a standby that add_replica() has made."""
        node.kill()
        primary = self.primary(node.shard)
        if not process.wait_until(lambda: self._drop_slot(primary, node.slot), 10, 0.05):
            raise LaunchError(f'{primary.name} keeps sending to {node.name}, which is gone')
        shutil.rmtree(node.data_directory)
        del self.nodes[node.name]

    def rewind(self, node, primary):
        """Makes a former primary a standby of its successor by pg_rewind, and starts it. The successor must have
        full_page_writes, which a cluster that is not durable has not."""
        node.start()
        node.stop()  # what it had under way is recovered first, and a shutdown is clean
        connection = self.connect(primary, database='postgres')
        connection.cursor().execute('CHECKPOINT')  # else pg_rewind may not see that the histories have parted
        connection.close()
        if not process.wait_until(lambda: self._drop_slot(primary, node.slot), 10, 0.05):
            raise LaunchError(f'{primary.name} keeps sending to {node.name}, which is gone')
        self._create_slot(primary, node.slot)  # by now: what is written from here on is still there when it starts
        password = f'*:*:*:{ROLES["admin"]}:{self.password("admin")}\n'
        with self._server_file(f'pgpass-{node.name}', password) as passfile:
            node.rewind(primary, ROLES['admin'], passfile)
        node.follow(primary, self._replication_passfile)
        node.start()

    def repoint(self, node, primary):
        """Has a standby, running or not, follow another primary: one that was promoted with no less than it has."""
        self._create_slot(primary, node.slot)
        node.follow(primary, self._replication_passfile)
        node.reload()

    def _create_slot(self, primary, slot):
        """One that keeps WAL from now on, not only when a standby has come."""
        connection = self.connect(primary, database='postgres')
        with connection.cursor() as cursor:
            cursor.execute('SELECT pg_create_physical_replication_slot(%s, true) WHERE NOT EXISTS '
                           '(SELECT FROM pg_replication_slots WHERE slot_name = %s)', (slot, slot))
        connection.close()

    def rejoin(self, node, primary=None):
        """Makes a node a standby of its shard's primary again by a new base backup, and starts it."""
        primary = primary or self.primary(node.shard)
        node.stop('immediate')
        primary.start()
        if not process.wait_until(lambda: self._drop_slot(primary, node.slot), 10, 0.05):
            raise LaunchError(f'{primary.name} keeps sending to {node.name}, which is gone')
        node.clone(primary, self._replication_passfile)
        node.start()

    def _drop_slot(self, primary, slot):
        """False while the slot is still in use."""
        connection = self.connect(primary, database='postgres')
        with connection.cursor() as cursor:
            cursor.execute('SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots '
                           'WHERE slot_name = %s AND NOT active', (slot,))
            cursor.execute('SELECT count(*) FROM pg_replication_slots WHERE slot_name = %s', (slot,))
            (left,), = cursor.fetchall()
        connection.close()
        return left == 0

    def _start_standby(self, node):
        """Also one that runs: its primary may have another port since."""
        node.follow(self.primary(node.shard), self._replication_passfile)
        node.reload()
        node.start()

    def _start_mongodb(self):
        """Where MongoDB may be missing (`mongodb_optional`), the reason is kept in `mongodb_error`, not raised."""
        self.mongodb_error = None
        try:
            self.mongodb.start()
        except LaunchError as error:
            if not self.mongodb_optional:
                raise
            self.mongodb_error = error

    def _started(self):
        """What follows the servers' start: standbys stream, and the files say where everything is."""
        for shard in SHARDS:
            self._wait_streaming(shard)
        self.write_config()
        self.write_state()

    def _wait_streaming(self, shard, timeout=15):
        """Waits for the shard's standbys; one whose way back is gone (its slot, its WAL) is cloned again."""
        primary = self.primary(shard)
        standbys = [node for node in self.nodes_of(shard) if node.is_standby]
        if process.wait_until(lambda: self._streaming(primary, standbys), timeout, 0.02):
            return
        for node in standbys:
            self.say(f'{node.name} cannot follow {primary.name} any more: it is cloned again')
            self.rejoin(node, primary)
        if not process.wait_until(lambda: self._streaming(primary, standbys), timeout, 0.02):
            logs = ''.join(f'\n{node.log_file} ends{process.tail(node.log_file)}' for node in standbys)
            raise LaunchError(f'{shard}: the replica does not stream{logs}')

    def _streaming(self, primary, standbys):
        connection = self.connect(primary, database='postgres')
        with connection.cursor() as cursor:
            cursor.execute("SELECT application_name FROM pg_stat_replication WHERE state = 'streaming'")
            names = {name for name, in cursor}
        connection.close()
        return names >= {node.name for node in standbys}

    def is_running(self):
        """Whether every server runs and is ready."""
        servers = [*self.nodes.values(), *([self.mongodb] if self.mongodb else [])]
        return all(server.is_ready() and not server.is_frozen() for server in servers)

    def thaw(self):
        """Lets frozen servers go on."""
        for server in [*self.nodes.values(), *([self.mongodb] if self.mongodb else [])]:
            server.thaw()

    def stop(self):
        """Unmounts, then stops the servers: primaries while their standbys still listen; none is left behind."""
        process.parallel([mount.stop for mount in self.mounts])
        self.mounts.clear()
        self.thaw()
        mongodb = [self.mongodb.stop] if self.mongodb else []
        nodes = [node for node in self.nodes.values() if node.exists]
        process.parallel([*mongodb, functools.partial(self._stop_nodes, nodes)])

    @staticmethod
    def _stop_nodes(nodes):
        process.parallel(node.stop for node in nodes if not node.is_standby)
        process.parallel(node.stop for node in nodes if node.is_standby)

    def kill(self):
        """Ends everything at once, for data that nobody needs any more."""
        for mount in self.mounts:
            mount.stop(5)
        self.mounts.clear()
        servers = [*self.nodes.values(), *([self.mongodb] if self.mongodb else [])]
        process.parallel(server.kill for server in servers)
        self._remove_sockets()

    def destroy(self):
        """Stops everything and removes the directory. Refuses one that is no cluster's."""
        if not (self.directory / MARKER).exists():
            raise LaunchError(f'{self.directory} is no cluster of campusfs: nothing is removed')
        self.stop()
        remove_tree(self.directory)
        self._remove_sockets()

    def _remove_sockets(self):
        if self.socket_directory.parent != self.directory:
            shutil.rmtree(self.socket_directory, ignore_errors=True)

    # ---- the files that say where everything is

    def write_config(self, path=None, **settings):
        """Writes campusfs.conf, or to another path a variant with other keys of [campusfs]; None leaves one out."""
        keys = {'database': DATABASE, 'user': ROLES['rw'], 'admin_user': ROLES['admin'], 'passfile': self.passfile,
                'mongodb_uri': self.mongodb.uri if self._has_mongodb else None, 'state_dir': self.directory / 'state',
                **self.settings, **settings}
        lines = ['# Written by the launcher at every start of the cluster.', '[campusfs]']
        lines += [f'{key} = {value}' for key, value in keys.items() if value is not None]
        lines += ['', '[shards]', *(f'{shard} = number={number}' for shard, (number, _) in SHARDS.items())]
        lines += ['', '[nodes]', *(f'{node.name} = shard={node.shard} '
                                   + connection_string(host=node.host, port=node.port).replace("'", '')
                                   for node in self.nodes.values())]
        lines += ['', '[regions]', *(f'{region} = number={number} shard={shard}'
                                     for shard, (_, regions) in SHARDS.items() for region, number in regions.items())]
        path = Path(path or self.config)
        write_private(path, '\n'.join(lines) + '\n')
        return path

    @property
    def _has_mongodb(self):
        return self.mongodb is not None and self.mongodb_error is None

    def write_state(self):
        nodes = [{'name': node.name, 'shard': node.shard, 'role': 'replica' if node.is_standby else 'primary',
                  'host': node.host, 'port': node.port, 'socket_directory': str(node.socket_directory),
                  'data_directory': str(node.data_directory), 'pid_file': str(node.pid_file),
                  'log_file': str(node.log_file)} for node in self.nodes.values()]
        state = {'directory': str(self.directory), 'config': str(self.config), 'mount': str(self.directory / 'mnt'),
                 'passfile': str(self.passfile), 'database': DATABASE, 'roles': ROLES, 'durable': self.durable,
                 'shards': [{'name': shard, 'number': number, 'regions': regions}
                            for shard, (number, regions) in SHARDS.items()],
                 'nodes': nodes, 'mongodb': self._mongodb_state(), 'mongodb_optional': self.mongodb_optional}
        write_private(self.state_file, json.dumps(state, indent=2) + '\n')

    def _mongodb_state(self):
        server = self.mongodb
        if not self._has_mongodb:
            return None
        if server.kind == 'external':
            return {'name': server.name, 'kind': server.kind, 'port': None, 'uri': server.uri}
        return {'name': server.name, 'kind': server.kind, 'host': server.host, 'port': server.port, 'uri': server.uri,
                'data_directory': str(server.data_directory), 'pid_file': str(server.pid_file),
                'log_file': str(server.log_file)}

    # ---- the program

    def run(self, *arguments, config=None, check=True, env=None, timeout=120, text_input=None):
        """Runs `campusfs --config FILE ARGUMENTS`; a CompletedProcess with text output."""
        return process.run([self.program, '--config', config or self.config, *arguments], check=check, timeout=timeout,
                           env=process.clean_environment(**(env or {})), text_input=text_input)

    def mount(self, directory, *, log_file=None, config=None, options=(), env=None, foreground=True, timeout=30):
        """A new mount, up and answering; stop() of the cluster ends it too."""
        directory = Path(directory)
        mount = Mount(self.program, config or self.config, directory, options=options,
                      log_file=log_file or self.log_directory / f'mount-{directory.name}.log',
                      env=process.clean_environment(**(env or {})))
        mount.start(foreground=foreground, timeout=timeout)
        self.mounts.append(mount)
        return mount


def remove_tree(directory):
    """Removes a folder that has no mount below it: through one, the rows themselves would go."""
    for mountpoint in fuse_mount.mountpoints():
        if Path(mountpoint).is_relative_to(directory):
            raise LaunchError(f'{mountpoint} is still mounted: nothing is removed')
    shutil.rmtree(directory)


def write_private(path, text):
    """Replaces a file that only its owner may read, at once."""
    path = Path(path)
    new = path.with_name(path.name + '.new')
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), 'w') as file:
        file.write(text)
    new.replace(path)
