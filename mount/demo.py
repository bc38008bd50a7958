"""A whole campusfs on this machine: six PostgreSQL servers, MongoDB, sample data, mounted.

    mount/demo [--dir DIR] [start|stop|status|reset]

start (the default)  installs what is missing, builds the program, makes or mends the cluster, mounts it; can be run
                     again
stop                 unmounts and stops the servers; the data stays
status               what runs; exit code 0: everything, 1: a part, 3: nothing
reset                throws the demo's data away and starts anew
"""

import argparse
import contextlib
import fcntl
import json
import os
import shlex
import shutil
import sys
import time
from pathlib import Path

import program
from cluster import MARKER, Cluster, write_private
from fuse_mount import Mount, is_mounted
from process import LaunchError

REGION = 'europe'  # of the examples

# What a reset removes: what a demo has made, by name. The MongoDB server's program and the build stay.
OWN = ('nodes', 'mongodb', 'run', 'log', 'state', 'campusfs.conf', 'cluster.json', 'pgpass')


def default_directory():
    if os.geteuid() == 0:
        return Path('/var/lib/campusfs-demo')
    return Path(os.environ.get('XDG_DATA_HOME') or Path.home() / '.local/share') / 'campusfs-demo'


class Demo:
    """The demo of one directory, whose marker file says how far it has come."""

    def __init__(self, directory):
        self.directory = Path(os.path.abspath(directory))
        self.marker = self.directory / MARKER
        self.mountpoint = self.directory / 'mnt'
        self.log_file = self.directory / 'log' / 'campusfs.log'
        self.started = time.monotonic()

    def say(self, text):
        tell(f'{time.monotonic() - self.started:6.1f} s  {text}')

    # ---- the directory

    def claim(self):
        """Makes the directory a demo's; refuses one that holds something else, or another account's demo."""
        self.directory.mkdir(parents=True, exist_ok=True)
        if not self.marker.exists() and any(self.directory.iterdir()):
            raise LaunchError(f'{self.directory} is not empty and no demo of campusfs: choose another --dir')
        self.check_owner()
        if not self.marker.exists():
            self.remember(made=False, seeded=False)

    def check_owner(self):
        owner = self.directory.stat().st_uid
        if owner != os.geteuid():
            raise LaunchError(f'{self.directory} belongs to user {owner}: run the demo as that user')

    def check_is_demo(self):
        if not self.marker.exists():
            raise LaunchError(f'{self.directory} is no demo of campusfs')
        self.check_owner()

    @contextlib.contextmanager
    def alone(self):
        """One launcher at a time; the other waits."""
        with open(self.directory / 'lock', 'w') as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.say('waiting for another launcher of this demo')
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def remember(self, **progress):
        write_private(self.marker, json.dumps({**self.progress(), **progress}) + '\n')

    def progress(self):
        try:
            return json.loads(self.marker.read_text())
        except (OSError, ValueError):
            return {}

    def mount(self):
        return Mount('campusfs', self.directory / 'campusfs.conf', self.mountpoint, self.log_file)

    # ---- start

    def start(self):
        os.umask(0o022)
        self.claim()
        with self.alone():
            binary = self.program()
            cluster, changed = self.start_servers(binary)
            self.fill(cluster)
            changed = self.start_mount(binary, changed) or changed
        if not changed:
            self.say('everything is up already')
        self.show_what_to_try(cluster)
        return 0

    def program(self):
        """The program: the one that the environment names, else this checkout's, built when it has to be."""
        given = os.environ.get('CAMPUSFS_PROGRAM')
        program.install_packages('python', 'run', *([] if given else ['build']))
        return Path(given).absolute() if given else program.build(program.build_directory(fallback=self.directory),
                                                                  say=self.say)

    def start_servers(self, binary):
        """The running cluster, and whether anything had to be done for it."""
        if not self.progress().get('made'):
            self.wipe()
            cluster = self.options(Cluster(self.directory, program=binary,
                                           mongodb_uri=os.environ.get('CAMPUSFS_MONGODB_URI')))
            cluster.create()
            self.remember(made=True)
        elif not (self.directory / 'cluster.json').exists():
            raise LaunchError(f'{self.directory}/cluster.json is gone: `reset` makes everything anew')
        else:
            cluster = self.options(Cluster.load(self.directory, program=binary))
            before = cluster.config.read_text() if cluster.config.exists() else None
            running = cluster.is_running()
            cluster.start()
            if running and cluster.config.read_text() == before:
                return cluster, False
        if cluster.mongodb_error:
            self.say(f'WARNING: no MongoDB server, so no media/ and preferences/:\n{cluster.mongodb_error}')
        self.say(f'{len(cluster.nodes)} PostgreSQL servers{"" if cluster.mongodb_error else " and MongoDB"} are up')
        return cluster, True

    def options(self, cluster):
        cluster.mongodb_optional = True
        cluster.say = self.say
        return cluster

    def fill(self, cluster):
        """Brings the databases to the program's schema, and fills new ones with sample data."""
        cluster.run('init')
        cluster.set_passwords()
        if not self.progress().get('seeded'):
            cluster.run('seed', timeout=600)
            self.remember(seeded=True)
            self.say('sample data are in')

    def start_mount(self, binary, servers_changed):
        """Mounts, unless a daemon of this very program and configuration serves the place already."""
        mount = self.mount()
        mount.program = binary
        if not servers_changed and mount.is_up() and mount.runs_current_program():
            return False
        mount.stop()
        mount.start()
        self.say(f'mounted at {self.mountpoint}')
        return True

    def show_what_to_try(self, cluster):
        def quoted(*parts):
            return shlex.quote(str(Path(self.mountpoint, *parts)))
        users = sorted(os.listdir(self.mountpoint / 'regions' / REGION / 'users'))
        number = users[0].removesuffix('.json') if users else 1
        row = quoted('regions', REGION, 'users', f'{number}.json')
        refused = quoted('regions', REGION, 'users', '.refused', f'{number}.json.error')
        primary = cluster.primary(REGION)
        psql = (f'PGPASSFILE={shlex.quote(str(cluster.passfile))} '
                f'psql -h {primary.host} -p {primary.port} -U campusfs_ro')
        here = shlex.quote(os.path.relpath(program.CHECKOUT / 'mount/demo'))
        directory = '' if self.directory == default_directory() else f' --dir {shlex.quote(str(self.directory))}'
        tell(f"""
Try:
    cat {quoted('README')}
    ls {quoted('regions', REGION, 'users')} | head
    jq .email {quoted('regions')}/*/users/*.json | head
    sed -i 's/"first_name": .*/"first_name": "Grace",/' {row}; jq .first_name {row}
    {psql} -c 'SELECT id, first_name, updated_at FROM campusfs.users WHERE id = {number}' campusfs
    sed -i 's/"role": .*/"role": "king",/' {row} || cat {refused}
    rsync -a {quoted()}/ /tmp/campusfs-backup/
    {here}{directory} status
    {here}{directory} stop""")

    # ---- stop, reset, status

    def stop(self):
        self.check_is_demo()
        with self.alone():
            self.end(Cluster.stop)
        self.say('stopped')
        return 0

    def end(self, how):
        """Ends the mount, then the servers: by Cluster.stop or Cluster.kill."""
        mount = self.mount()
        mount.stop(5)
        mount.clean_up()
        made = (self.directory / 'cluster.json').exists()
        how(self.options(Cluster.load(self.directory) if made else Cluster(self.directory)))

    def reset(self):
        if self.marker.exists():
            self.check_is_demo()
            with self.alone():
                self.wipe()
        return self.start()

    def wipe(self):
        """Ends and removes what this demo has made, and nothing else that lies in its directory."""
        self.end(Cluster.kill)
        if is_mounted(self.mountpoint):
            raise LaunchError(f'{self.mountpoint} cannot be unmounted: nothing is removed')
        self.remember(made=False, seeded=False)
        for name in OWN:
            path = self.directory / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        if self.mountpoint.exists():
            self.mountpoint.rmdir()

    def status(self):
        self.check_is_demo()
        if not (self.directory / 'cluster.json').exists():
            tell(f'{self.directory}: not made yet')
            return 3
        cluster = Cluster.load(self.directory)
        mount = self.mount()
        rows = [(node.name, 'replica' if node.is_standby else 'primary', state_of(node), f'{node.host}:{node.port}',
                 str(node.pid() or '')) for node in cluster.nodes.values()]
        if cluster.mongodb:
            server = cluster.mongodb
            address = f'{server.host}:{server.port}' if server.port else ''
            rows.append((server.name, server.kind, state_of(server), address, str(server.pid() or '')))
        rows.append(('mount', 'campusfs', state_of_mount(mount), str(mount.directory), str(mount.pid() or '')))
        rows.insert(0, ('NAME', 'ROLE', 'STATE', 'ADDRESS', 'PID'))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            tell('  '.join(text.ljust(width) for text, width in zip(row, widths)).rstrip())
        states = {row[2] for row in rows[1:]}
        return 0 if states == {'up'} else 3 if states == {'stopped'} else 1


def tell(text):
    """Prints, and goes on when nobody reads any more (`mount/demo | head`): half a start helps nobody."""
    try:
        print(text, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def state_of(server):
    if not server.is_running():
        return 'stopped'
    if server.is_frozen():
        return 'frozen'
    return 'up' if server.is_ready() else 'starting'


def state_of_mount(mount):
    if not is_mounted(mount.directory):
        return 'stopped'
    return 'up' if mount.is_up() else 'dead' if mount.pid() is None else 'hangs'


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.print_usage(sys.stderr)
        self.exit(64, f'{self.prog}: {message}\n')


def main():
    parser = Parser(prog='demo', description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--dir', type=Path, default=default_directory(), help='where everything lies (%(default)s)')
    parser.add_argument('command', nargs='?', default='start', choices=('start', 'stop', 'status', 'reset'))
    arguments = parser.parse_args()
    try:
        return getattr(Demo(arguments.dir), arguments.command)()
    except LaunchError as error:
        print(f'demo: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('demo: interrupted; the next start goes on from here', file=sys.stderr)
        return 130


if __name__ == '__main__':
    sys.exit(main())
