"""The MongoDB-protocol server of a cluster: one given by its URI, a mongod on PATH, or a pinned SecantusDB."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import time
from pathlib import Path

import process
from postgres import free_port
from process import LaunchError

REQUIREMENTS = Path(__file__).with_name('mongodb-requirements.txt')
START_TIMEOUT = 60
STOP_TIMEOUT = 30
INSTALL_TIMEOUT = 900


SHARED_CACHE = Path('/var/cache/campusfs')  # root's, which every account may use


def installed_secantus(fallback):
    """The program of the pinned server, installed first when it is not there (pip is configured elsewhere)."""
    digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    name = f'mongodb-{digest}'
    base = SHARED_CACHE if (SHARED_CACHE / name / 'complete').exists() else writable_cache(Path(fallback))
    venv = base / name
    if not (venv / 'complete').exists():
        with _locked(base / 'lock'):
            _install(venv)
    return venv / 'bin/secantusd-py'


def writable_cache(fallback):
    """Where the next demo finds the program again, and the servers' account may enter; else the fallback."""
    own = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'campusfs'
    for path in (SHARED_CACHE if os.geteuid() == 0 else own, fallback):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(path, os.W_OK):
            break
    return path


def _install(venv):
    if (venv / 'complete').exists():  # another demo has been faster
        return
    shutil.rmtree(venv, ignore_errors=True)
    process.run(['/usr/bin/python3', '-m', 'venv', venv], timeout=INSTALL_TIMEOUT)
    process.run([venv / 'bin/pip', 'install', '-q', '--only-binary', ':all:', '-r', REQUIREMENTS],
                timeout=INSTALL_TIMEOUT)
    (venv / 'complete').touch()


@contextlib.contextmanager
def _locked(path):
    """Two demos that start at once install once."""
    with open(path, 'w') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class MongoServer:
    """kind: 'external' (only its URI is known), 'mongod' or 'secantusdb'."""

    name = 'mongodb'
    host = '127.0.0.1'

    def __init__(self, directory, log_file, kind=None, port=None, uri=None):
        self.directory = Path(directory)
        self.data_directory = self.directory / 'data'
        self.pid_file = self.directory / 'server.pid'
        self.log_file = Path(log_file)
        self.kind = kind or self._choose(uri)
        self.port = port
        self._uri = uri
        self._child = None

    @staticmethod
    def _choose(uri):
        if uri:
            return 'external'
        return 'mongod' if shutil.which('mongod') else 'secantusdb'

    @property
    def _program(self):
        return 'mongod' if self.kind == 'mongod' else 'secantusd-py'

    @property
    def uri(self):
        return self._uri if self.kind == 'external' else f'mongodb://{self.host}:{self.port}/campusfs'

    def client(self, timeout_ms=2000):
        """A pymongo client; the caller closes it."""
        import pymongo  # after the packages are there
        return pymongo.MongoClient(self.uri, serverSelectionTimeoutMS=timeout_ms, connectTimeoutMS=timeout_ms,
                                   socketTimeoutMS=max(timeout_ms, 5000))

    def _answers(self):
        import pymongo.errors
        try:
            with self.client(500) as client:
                client.admin.command('ping')
                client['campusfs']['startup'].find_one({'_id': 0})
                return True
        except pymongo.errors.PyMongoError:
            return False

    def start(self):
        """Starts it and waits until it answers; an external one only has to answer."""
        if self.kind == 'external':
            if not process.wait_until(self._answers, 3, 0.5):
                raise LaunchError('the server of CAMPUSFS_MONGODB_URI does not answer')
            return self
        if self.is_running():
            self.port = int(self._flags(self.pid())['--port'])
            return self
        self._make_directories()
        fallback = self.directory.parent / 'cache'
        program = shutil.which('mongod') if self.kind == 'mongod' else installed_secantus(fallback)
        for _ in range(3):
            self.port = self.port or free_port()
            if self._launch(program):
                return self
            self.port = None
        raise LaunchError(f'the MongoDB server does not start: {self.log_file} ends{process.tail(self.log_file)}')

    def _launch(self, program):
        child = self._child = process.spawn(self._command(program), self.log_file, **process.as_server(),
                                            env=process.clean_environment(SECANTUS_CHECKPOINT_SECONDS='15'))
        self.pid_file.write_text(f'{child.pid}\n')
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline and child.poll() is None:
            if self._answers() and child.poll() is None:
                return True
            time.sleep(0.05)
        self.stop(5)
        return False

    def _command(self, program):
        if self.kind == 'mongod':
            return [program, '--dbpath', self.data_directory, '--bind_ip', self.host, '--port', self.port,
                    '--unixSocketPrefix', self.data_directory]
        return [program, '--config', self.directory / 'server.toml', '--host', self.host, '--port', self.port,
                '--storage-path', self.data_directory, '--sync-on-commit', '--oplog-max-entries', '500',
                '--cache-size', '256M']

    def _make_directories(self):
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / 'server.toml').write_text('[server]\n')  # or it reads one of the current directory
        if not self.data_directory.exists():
            self.data_directory.mkdir(mode=0o700)
            process.give_to_server(self.data_directory)

    @staticmethod
    def _flags(pid):
        arguments = process.arguments(pid)
        return dict(zip(arguments, arguments[1:]))

    def _owns(self, pid):
        flags = self._flags(pid)
        return str(self.data_directory) in (flags.get('--storage-path'), flags.get('--dbpath'))

    def pid(self):
        """Its process id, None when it does not run or is not ours."""
        if self.kind == 'external':
            return None
        return next(iter(process.find(self._program, self._owns)), None)

    def is_running(self):
        return self._answers() if self.kind == 'external' else self.pid() is not None

    def is_ready(self):
        return self.is_running() and self._answers()

    def is_frozen(self):
        pid = self.pid()
        return pid is not None and process.is_stopped(pid)

    def stop(self, timeout=STOP_TIMEOUT):
        if self.kind != 'external':
            process.end_all(self._program, self._owns, signal.SIGTERM, timeout)
            self._reap()

    def kill(self):
        if self.kind == 'external':
            return
        process.end_all(self._program, self._owns, signal.SIGKILL)
        self._reap()

    def _reap(self):
        if self._child is not None:
            self._child.poll()
        self.pid_file.unlink(missing_ok=True)

    def freeze(self):
        for pid in process.find(self._program, self._owns):
            process.send(pid, signal.SIGSTOP, self._owns)
            process.wait_until(lambda pid=pid: process.is_stopped_whole(pid), 1, 0.001)

    def thaw(self):
        for pid in process.find(self._program, self._owns):
            process.send(pid, signal.SIGCONT, self._owns)
