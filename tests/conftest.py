"""One cluster a run, and what every test needs of it.

    tests/run [pytest's arguments]            the way to run them: packages, build, the suite, and again sanitized
    /usr/bin/python3 -m pytest tests/test_x.py    with CAMPUSFS_PROGRAM=…/src/campusfs, or the program of build/

Session fixtures (shared: change no row, server or mount of it that your test has not made itself)
    campusfs        pathlib.Path of the program under test
    sanitized       whether it is built with AddressSanitizer: slower, and it keeps freed memory for a while
    cluster         mount/cluster.py's Cluster: three shards of a primary and a streaming replica, MongoDB; initialised,
                    seeded; cluster.run('health', '--json', check=False) runs the program on it
    mnt             pathlib.Path of a mount of it (its log is watched, a dead daemon fails its test and is replaced)

Of the session too, as functions
    db(where, role='admin')     a psycopg2 connection, autocommit, search_path campusfs; where: region, shard or node;
                                role: admin, rw, ro. Shared: never close it; cluster.connect() gives one of your own
    sql(where, text, params)    the rows of one statement on that admin connection, [] when it returns none
    primary(where)              the shard's primary, a postgres.Node: .name .port .kill() .freeze() .thaw() .start()
    replica(where)              its standby: also .promote()

Data of a test's own, each a Row (.collection .region .id .document .path .read() .json() .save(document))
    new_row(collection, region, document)     by the collection's put function, with the next id; on the replica, too
    replayed(where)                           waits until the shard's replica has what other SQL of the test has written
    new_user(region='europe', **fields)       and new_instructor, new_course, new_enrollment, new_review,
    new_payment_method, new_transaction, new_invoice, new_category: all make what they need; every field can be given
    new_of(collection, **fields)              one of these, by the collection's name
    unique()                                  a short string that no other test has, for e-mails, slugs, numbers

Things of a test's own that may be broken; taken away at its end
    new_mount(options=(), **settings)         one more mount of the shared cluster: a fuse_mount.Mount (.directory
                                              .log_file .kill() .stop()); settings are keys of [campusfs]
    new_cluster(replicas=True, mongodb=False, seed=False)     a cluster to kill and freeze, initialised (3-5 s)
    frail           three primaries and nothing else, of the session: who kills or freezes one starts it again

The watched logs: a line at level error, of a sanitizer, or of a failed assertion in any daemon's log fails the test
during which it was written, unless the test said so (a system call that ended in ESTALE fails its test as well):
    expect_log(regex)           a fixture, may be called several times; or @pytest.mark.expect_log(regex)

Tests that take longer than ten seconds carry @pytest.mark.long and run with `tests/run -m long` (or -m '').
Environment: CAMPUSFS_PROGRAM, CAMPUSFS_TEST_DIR (where clusters lie; default: in memory, mounted below /tmp, where we may
mount and there is room, as not for long tests; else /tmp itself), CAMPUSFS_TEST_KEEP=1 (keep them, on the disk),
CAMPUSFS_TEST_SHARE (a folder: only files of tests are run that no other run with that folder has begun; what failed is
noted beside it),
CAMPUSFS_MONGODB_URI (a server to test against, without credentials: each run has a database of its own there, dropped at
its end; without it a mongod on PATH, else the pinned SecantusDB, is started).
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / 'mount'))

import estale  # noqa: E402
import fuse_mount  # noqa: E402
import process  # noqa: E402
import program as program_module  # noqa: E402
from cluster import SHARDS, Cluster  # noqa: E402

SUSPICIOUS = re.compile(r'^\S+ error |Sanitizer|runtime error:|[Aa]ssertion|stack smashing|double free|free\(\): |'
                        r'malloc\(\): |corrupted')
# Failures that tests/run gives no second chance: what no noise explains, and proofs whose every run is another
FINAL = re.compile(r'Sanitizer|runtime error:|the daemon died|ended with exit code|ended in ESTALE')
FINAL_FILES = ('test_concurrency.py', 'test_kill.py', 'test_ledger.py', 'test_model.py')
# Files that take longest, and their time with them
LONGEST = tuple(f'test_{name}.py' for name in (
    'restore', 'demo', 'servers_down', 'media_faults', 'listing', 'nodes', 'preferences_bad', 'feed_stream', 'feed', 'reports',
    'failover', 'commands', 'pools', 'mongodb_security', 'bad_documents', 'ledger', 'seed', 'routing', 'media_write', 'check',
    'media_read', 'media_check', 'moves', 'concurrency', 'bad_saves', 'media_meta', 'tools', 'tls', 'model', 'preferences'))
RUN_PREFIX = 'campusfs-test-'
TRACING = 'tracing'  # of the run's directory: estale.StaleCalls


def pytest_configure(config):
    # Whoever ends us gets everything ended that we have started; and a shell that runs us in the background has us
    # ignore SIGINT and SIGQUIT, which the tests' own processes must not inherit.
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    config.addinivalue_line('markers', 'long: takes more than ten seconds; not run by default')
    config.addinivalue_line('markers', 'expect_log(regex): the test makes the daemon log matching lines at level error')


def pytest_collection_modifyitems(config, items):
    """Runs that share the files begin with those that take longest, so as to end at about the same time. Leaves the long
    tests out unless the command line selects them, by -m or by name."""
    if os.environ.get('CAMPUSFS_TEST_SHARE'):
        items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))
    if '-m' in config.invocation_params.args or config.getoption('-m') or config.getoption('-k') \
            or any('::' in argument for argument in config.args):
        return
    long = [item for item in items if item.get_closest_marker('long')]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session):
    """With CAMPUSFS_TEST_SHARE: pytest's own loop, over the files that this run gets. A file stays in one run, for the
    sake of its fixtures."""
    folder = os.environ.get('CAMPUSFS_TEST_SHARE')
    if not folder or session.testsfailed or session.config.option.collectonly:
        return None
    items = of_this_run(session.items, Path(folder))
    item = next(items, None)
    if not item:
        session.testscollected = 0  # by the exit code none ran
    while item:
        following = next(items, None)  # what is torn down after a test depends on it
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
        item = following
    return True


def of_this_run(items, folder):
    """The tests of each file that nobody has begun when its first one is due; that it is begun stands in the folder."""
    whose = {}
    for item in items:
        if item.path not in whose:
            try:
                (folder / f'{item.path.name}.begun').touch(exist_ok=False)
                whose[item.path] = True
            except FileExistsError:
                whose[item.path] = False
        if whose[item.path]:
            yield item


def pytest_runtest_logreport(report):
    """With CAMPUSFS_TEST_SHARE: notes beside that folder what failed, and whether that is final."""
    folder = os.environ.get('CAMPUSFS_TEST_SHARE')
    if not folder or not report.failed:
        return
    folder = Path(folder)
    path, _, test = report.nodeid.partition('::')
    name = Path(path).name
    with open(folder.parent / 'failed', 'a') as failed:
        failed.write(f'{folder.name} {ROOT}/tests/{name}::{test}\n')
    if name in FINAL_FILES or FINAL.search(report.longreprtext):
        (folder.parent / 'final').touch()


# ---- the run's directory, and what earlier runs that were killed have left

def memory_for(config):
    """Bytes of memory that the run's clusters may take, 0 for none. They need two GiB, and files of long tests more."""
    wanted = {'CAMPUSFS_TEST_DIR', 'CAMPUSFS_TEST_KEEP'} & os.environ.keys()
    if wanted or config.getoption('-m'):
        return 0
    available = re.search(r'^MemAvailable: +(\d+) kB', Path('/proc/meminfo').read_text(), re.MULTILINE)
    share = int(available[1]) * 1024 // 4  # there are three runs
    return share if share >= 3 << 30 else 0


@pytest.fixture(scope='session')
def run_directory(request):
    """A directory that the servers' account can enter, removed at the end of the run. Servers on a disk, even though they
    wait for no write, cost about twice as much."""
    base = Path(os.environ.get('CAMPUSFS_TEST_DIR', tempfile.gettempdir()))
    sweep(base)
    directory = Path(tempfile.mkdtemp(prefix=RUN_PREFIX, dir=base))
    memory = memory_for(request.config)
    if memory:  # who may not mount has it on the disk
        subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={memory}', 'tmpfs', directory], capture_output=True,
                       check=False)
    directory.chmod(0o755)
    (directory / 'owner').write_text(f'{os.getpid()} {process.start_time(os.getpid())}\n')
    yield directory
    if not os.environ.get('CAMPUSFS_TEST_KEEP'):
        remove(directory)


def sweep(base):
    """Ends the servers and mounts of runs whose pytest is dead, and removes their directories."""
    for directory in base.glob(RUN_PREFIX + '*'):
        try:
            pid, started = (int(word) for word in (directory / 'owner').read_text().split())
        except (OSError, ValueError):
            continue
        if process.start_time(pid) == started or directory.stat().st_uid != os.geteuid():
            continue
        for mountpoint in directory.glob('*/mnt*'):
            fuse_mount.Mount('campusfs', '', mountpoint, '').clean_up()
        for state in directory.glob('*/cluster.json'):
            Cluster.load(state.parent).kill()
        remove(directory)


def remove(directory):
    estale.clean_up(directory / TRACING)
    if not os.path.ismount(directory / TRACING):
        shutil.rmtree(directory, ignore_errors=True)
        if os.path.ismount(directory):
            subprocess.run(['umount', '-l', directory], capture_output=True, check=False)
            shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope='session')
def campusfs():
    """The program under test."""
    given = os.environ.get('CAMPUSFS_PROGRAM')
    return Path(given).absolute() if given else program_module.build(ROOT / 'build')


@pytest.fixture(scope='session')
def sanitized(campusfs):
    return b'__asan_init' in campusfs.read_bytes()


@pytest.fixture(scope='session', autouse=True)
def sanitizer_options(run_directory):
    """Sanitizers report into files of the run, which are watched as logs are; any report is an exit code of its own."""
    reports = run_directory / 'sanitizer'
    reports.mkdir(mode=0o777)
    common = f'log_path={reports}/report:exitcode=99'
    os.environ['ASAN_OPTIONS'] = f'{common}:detect_stack_use_after_return=1:strict_string_checks=1'
    os.environ['UBSAN_OPTIONS'] = f'{common}:print_stacktrace=1:halt_on_error=1'
    os.environ['LSAN_OPTIONS'] = f'suppressions={ROOT}/tests/leaks.txt:print_suppressions=0'
    os.environ['TSAN_OPTIONS'] = f'{common}:suppressions={ROOT}/tests/races.txt:second_deadlock_stack=1'
    return reports


# ---- the shared cluster

def prepare(cluster, seed):
    """Brings a started cluster's databases up, as mount/demo does."""
    cluster.run('init')
    cluster.set_passwords()
    if seed:
        cluster.run('seed', timeout=300)


def given_mongodb():
    """The URI of CAMPUSFS_MONGODB_URI with a database of this run's own, None when none is given."""
    given = os.environ.get('CAMPUSFS_MONGODB_URI')
    return re.sub(r'^(\w+://[^/?]+)(/[^?]*)?', rf'\1/campusfs_test_{uuid.uuid4().hex[:8]}', given) if given else None


@pytest.fixture(scope='session')
def cluster(run_directory, campusfs):
    cluster = Cluster(run_directory / 'shared', durable=False, program=campusfs, mongodb_uri=given_mongodb())
    cluster.settings.update(log_level='info', media_sweep='0')  # one mount sweeps a region: the one that a test asks to
    try:
        cluster.create()
        prepare(cluster, seed=True)
        yield cluster
        if cluster.mongodb.kind == 'external':
            with cluster.mongodb.client(60000) as client:  # dropping media takes a while
                client.drop_database(client.get_default_database())
    finally:
        cluster.kill()


def open_file(fd):
    """What a descriptor of ours leads to; '' when it has been closed meanwhile."""
    try:
        return os.readlink(f'/proc/self/fd/{fd}')
    except OSError:
        return ''


@pytest.fixture(scope='session')
def shared_mount(cluster, log_watch):
    mount = cluster.mount(cluster.directory / 'mnt')
    yield mount
    cluster.mounts.remove(mount)
    left_open = [path for path in (open_file(fd) for fd in os.listdir('/proc/self/fd')) if f'{mount.directory}/' in path]
    if left_open:
        mount.kill()  # else it would live on, and so would its cluster's folder
        mount.clean_up()
        pytest.fail(f'tests have left files of the mount open, which keep it busy: {left_open}', pytrace=False)
    code = mount.stop()
    bad = log_watch.suspicious()
    if code != 0 or bad:
        pytest.fail(f'the daemon ended with exit code {code}:\n' + '\n'.join(bad), pytrace=False)


@pytest.fixture
def mnt(shared_mount):
    """The mount's root; one that has died in an earlier test is mounted again."""
    if shared_mount.pid() is None:
        shared_mount.start(foreground=True)
    yield shared_mount.directory
    if shared_mount.pid() is None:
        pytest.fail(f'the daemon died during this test: {shared_mount.log_file} ends'
                    f'{process.tail(shared_mount.log_file, 40)}')


@pytest.fixture(scope='session')
def primary(cluster):
    return cluster.primary


@pytest.fixture(scope='session')
def replica(cluster):
    return cluster.replica


@pytest.fixture(scope='session')
def db(cluster):
    open_connections = {}

    def connect(where, role='admin'):
        node = cluster.nodes.get(where) or cluster.primary(where)
        key = (node.name, role)
        if key not in open_connections or open_connections[key].closed:
            open_connections[key] = cluster.connect(node, role, options='-c search_path=campusfs,pg_catalog')
        return open_connections[key]
    yield connect
    for connection in open_connections.values():
        connection.close()


@pytest.fixture(scope='session')
def sql(db):
    def execute(where, text, params=None):
        with db(where).cursor() as cursor:
            cursor.execute(text, params)
            return cursor.fetchall() if cursor.description else []
    return execute


# ---- data of a test's own

class Row:
    """A row that a test has made, and its file in the shared mount."""

    def __init__(self, collection, region, row_id, document, root):
        self.collection = collection
        self.region = region
        self.id = row_id
        self.document = document
        self._root = root

    def __repr__(self):
        return f'{self.region}/{self.collection}/{self.id}'

    @property
    def path(self):
        folder = 'categories' if self.collection == 'categories' else f'regions/{self.region}/{self.collection}'
        return self._root / folder / f'{self.id}.json'

    def read(self):
        return self.path.read_bytes()

    def json(self):
        return json.loads(self.read())

    def save(self, document):
        """Overwrites the file with the document as json.dumps writes it; errors of close() are raised."""
        self.path.write_text(json.dumps(document))


def region_number(region):
    for _, regions in SHARDS.values():
        if region in regions:
            return regions[region]
    return 0


@pytest.fixture(scope='session')
def unique():
    letters = str.maketrans('0123456789abcdef', 'bcdfghjklmnpqrst')  # no vowel: it holds none of the words that tests edit
    return lambda: uuid.uuid4().hex[:12].translate(letters)


@pytest.fixture(scope='session')
def replayed(cluster, sql):
    """replayed(where): returns when the shard's standby has what its primary has, so that mounts can read it there."""
    def wait(where):
        (lsn,), = sql(where, 'SELECT pg_current_wal_flush_lsn()::text')
        standby = cluster.replica(where).name
        has_it = lambda: sql(standby, 'SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn', (lsn,))[0][0]  # noqa: E731
        assert process.wait_until(has_it, 60, 0.002)
    return wait


@pytest.fixture(scope='session')
def new_row(cluster, sql, replayed):
    def put(collection, region, document):
        function = 'put_' + collection.replace('-', '_')
        where = 'americas' if collection == 'categories' else region
        call = f'SELECT id, body FROM {function}(%s::smallint, NULL, %s::jsonb, NULL, NULL, false, %s::uuid, %s)'
        (row_id, body), = sql(where, call, (region_number(region), json.dumps(document), str(uuid.uuid4()), 'test'))
        replayed(where)
        return Row(collection, region, row_id, json.loads(body), cluster.directory / 'mnt')
    return put


@pytest.fixture(scope='session')
def new_user(new_row, unique):
    def make(region='europe', **fields):
        name = unique()
        return new_row('users', region, {'email': f'{name}@example.org', 'username': name, 'first_name': 'Ada',
                                         'last_name': 'Lovelace', 'role': 'student', 'status': 'active',
                                         'profile': {'city': 'London'}, **fields})
    return make


@pytest.fixture(scope='session')
def new_instructor(new_user):
    return lambda region='europe', **fields: new_user(region, **{'role': 'instructor', **fields})


@pytest.fixture(scope='session')
def new_category(cluster, sql, new_row, unique):
    """On every shard, as the mount writes it: the copies have the authority's id."""
    def make(**fields):
        name = unique()
        row = new_row('categories', None, {'name': name, 'slug': name, **fields})
        for shard in list(SHARDS)[1:]:
            sql(shard, 'SELECT * FROM put_categories(0::smallint, %s, %s::jsonb, NULL, %s, true, %s::uuid, %s)',
                (row.id, json.dumps(row.document), 'infinity', str(uuid.uuid4()), 'test'))
        return row
    return make


LESSON = {'title': 'First steps', 'kind': 'video', 'duration_minutes': 12, 'is_preview': False}


@pytest.fixture(scope='session')
def new_course(new_row, new_instructor, sql, unique):
    """A published course of two modules with two lessons each."""
    def make(region='europe', **fields):
        slug = unique()
        (category,), *_ = sql(region, 'SELECT id FROM doc_categories ORDER BY id LIMIT 1')
        modules = [{'title': title, 'lessons': [LESSON, {**LESSON, 'title': 'Second steps'}]}
                   for title in ('Beginnings', 'Endings')]
        document = {'category_id': category, 'title': f'Course {slug}', 'slug': slug, 'level': 'beginner',
                    'language': 'en', 'price': 49.90, 'currency': 'EUR', 'status': 'published', 'modules': modules,
                    **fields}
        if 'instructor_id' not in document:
            document['instructor_id'] = new_instructor(region).id
        return new_row('courses', region, document)
    return make


@pytest.fixture(scope='session')
def new_enrollment(new_row, new_user, new_course):
    def make(region='europe', **fields):
        document = {'status': 'active', **fields}
        document.setdefault('user_id', None) or document.update(user_id=new_user(region).id)
        document.setdefault('course_id', None) or document.update(course_id=new_course(region).id)
        return new_row('enrollments', region, document)
    return make


@pytest.fixture(scope='session')
def new_review(new_row, new_enrollment):
    def make(region='europe', **fields):
        document = {'rating': 4, 'title': 'Good', 'body': 'I learned a lot.', **fields}
        if 'user_id' not in document or 'course_id' not in document:
            enrolled = new_enrollment(region, **{key: document[key] for key in ('user_id', 'course_id')
                                                 if key in document}).document
            document = {'user_id': enrolled['user_id'], 'course_id': enrolled['course_id'], **document}
        return new_row('reviews', region, document)
    return make


@pytest.fixture(scope='session')
def new_payment_method(new_row, new_user, unique):
    def make(region='europe', **fields):
        document = {'kind': 'card', 'brand': 'visa', 'last_four': '4242', 'token': f'tok_{unique()}',
                    'expires_on': '2031-12-31', 'is_default': False, **fields}
        if 'user_id' not in document:
            document['user_id'] = new_user(region).id
        return new_row('payment-methods', region, document)
    return make


@pytest.fixture(scope='session')
def new_transaction(new_row, new_payment_method, new_course, unique):
    def make(region='europe', **fields):
        document = {'amount': 49.90, 'currency': 'EUR', 'status': 'completed', 'gateway': 'stripe',
                    'gateway_reference': f'ch_{unique()}', **fields}
        if 'payment_method_id' not in document:
            owner = {'user_id': document['user_id']} if 'user_id' in document else {}
            method = new_payment_method(region, **owner)
            document.update(payment_method_id=method.id, user_id=method.document['user_id'])
        if 'course_id' not in document:
            document['course_id'] = new_course(region).id
        return new_row('transactions', region, document)
    return make


@pytest.fixture(scope='session')
def new_invoice(new_row, new_transaction, unique):
    def make(region='europe', **fields):
        document = {'number': f'T-{unique()}', 'status': 'issued', 'issued_on': '2026-01-15', 'due_on': '2026-02-14',
                    'subtotal': 41.93, 'tax': 7.97, 'currency': 'EUR', **fields}
        if 'transaction_id' not in document:
            document['transaction_id'] = new_transaction(region).id
        return new_row('invoices', region, document)
    return make


@pytest.fixture(scope='session')
def new_of(new_user, new_course, new_enrollment, new_review, new_payment_method, new_transaction, new_invoice,
           new_category):
    """new_of(collection, **fields): a new row of it."""
    makers = {'users': new_user, 'courses': new_course, 'enrollments': new_enrollment, 'reviews': new_review,
              'payment-methods': new_payment_method, 'transactions': new_transaction, 'invoices': new_invoice,
              'categories': new_category}
    return lambda collection, **fields: makers[collection](**fields)


# ---- things of a test's own that may be broken

@pytest.fixture
def new_mount(cluster, log_watch):
    made = []

    def make(options=(), **settings):
        name = f'mnt-{uuid.uuid4().hex[:8]}'
        config = cluster.write_config(cluster.directory / f'{name}.conf', **{'state_dir': None, **settings})
        mount = cluster.mount(cluster.directory / name, config=config, options=options)
        made.append(mount)
        return mount
    yield make
    codes = []
    for mount in made:
        cluster.mounts.remove(mount)
        codes.append(mount.stop())
        mount.clean_up()
    if not set(codes) <= {0, -signal.SIGKILL}:
        reports = log_watch.suspicious()  # pytest shows the first failure of a teardown only: this one
        pytest.fail(f'the daemons of this test ended with exit codes {codes}:\n' + '\n'.join(reports), pytrace=False)


@contextlib.contextmanager
def fragile_cluster(directory, program, seed=False, replicas=True, **settings):
    """Servers of PostgreSQL alone, to kill and freeze, initialised; nothing is left of them, whatever state they are in."""
    cluster = Cluster(directory, durable=False, mongodb=False, replicas=replicas, program=program)
    cluster.settings.update(state_dir=None, **settings)
    try:
        cluster.create()
        prepare(cluster, seed)
        yield cluster
    finally:
        cluster.thaw()
        discard(cluster)


def discard(cluster):
    """Ends it, and gives back the room that its data took; its logs are still to be read."""
    cluster.kill()
    if not os.environ.get('CAMPUSFS_TEST_KEEP'):
        shutil.rmtree(cluster.directory / 'nodes', ignore_errors=True)


@pytest.fixture(scope='session')
def frail(run_directory, campusfs):
    with fragile_cluster(run_directory / 'frail', campusfs, replicas=False, connect_timeout='2s') as cluster:
        yield cluster


@pytest.fixture
def new_cluster(run_directory, campusfs):
    made = []

    def make(replicas=True, mongodb=False, seed=False):
        cluster = Cluster(run_directory / f'own-{uuid.uuid4().hex[:8]}', durable=False, replicas=replicas,
                          mongodb=mongodb, program=campusfs)
        made.append(cluster)
        cluster.create()
        prepare(cluster, seed)
        return cluster
    yield make
    for cluster in made:
        discard(cluster)


# Deadlines that are short, and no cache that answers instead of a server.
BREAKABLE = {'connect_timeout': '1s', 'timeout': '3s', 'cache_ttl': '0', 'cache_size': '0'}


@pytest.fixture(scope='session')
def breakable(run_directory, campusfs):
    """A cluster whose servers several modules break in turn; each mends it by breakable.start() before it begins."""
    with fragile_cluster(run_directory / 'breakable', campusfs, **BREAKABLE) as cluster:
        yield cluster


# ---- the watched logs

class LogWatch:
    """The daemons' logs and the sanitizers' reports of the run, read from where the last look ended."""

    def __init__(self, directory):
        self.directory = directory
        self.read = {}

    def grown(self):
        """Those with more than was read, as strings: a run leaves hundreds of them, and each test looks twice."""
        logs = [entry for cluster in os.scandir(self.directory) if os.path.isdir(f'{cluster.path}/log')
                for entry in os.scandir(f'{cluster.path}/log')
                if entry.name == 'campusfs.log' or entry.name.startswith('mount-')]
        reports = [entry for entry in os.scandir(f'{self.directory}/sanitizer') if entry.name.startswith('report')]
        return [entry.path for entry in logs + reports if entry.stat().st_size > self.read.get(entry.path, 0)]

    def suspicious(self):
        """The new lines that no healthy daemon writes, with the lines of a report after them."""
        found = []
        for path in self.grown():
            with open(path, 'rb') as file:
                file.seek(self.read.get(path, 0))
                text = file.read()
            end = text.rfind(b'\n') + 1
            self.read[path] = self.read.get(path, 0) + end
            lines = text[:end].decode('utf-8', 'replace').splitlines()
            if os.path.basename(os.path.dirname(path)) == 'sanitizer':
                found += ['\n'.join(lines)] if lines else []
            else:
                found += [line for line in lines if SUSPICIOUS.search(line)]
        return found


@pytest.fixture(scope='session')
def log_watch(run_directory):
    return LogWatch(run_directory)


@pytest.fixture
def expected_log(request):
    return [mark.args[0] for mark in request.node.iter_markers('expect_log')]


@pytest.fixture
def expect_log(expected_log):
    return expected_log.append


@pytest.fixture(autouse=True)
def no_suspicious_log(log_watch, expected_log):
    """Set up first and so torn down last: what a test's own mounts say when they end counts, too."""
    yield
    bad = [line for line in log_watch.suspicious() if not any(re.search(regex, line) for regex in expected_log)]
    if bad:
        pytest.fail('the daemon logged during this test:\n' + '\n'.join(bad), pytrace=False)


# ---- ESTALE, which nobody sees

@pytest.fixture(scope='session')
def stale_calls(run_directory):
    """estale.StaleCalls, None where the kernel cannot be asked."""
    calls = estale.open_stale_calls(run_directory / TRACING)
    yield calls
    if calls:
        calls.close()


@pytest.fixture(autouse=True)
def no_stale_call(stale_calls):
    yield
    calls = stale_calls.take() if stale_calls else []
    if calls:
        pytest.fail('these calls ended in ESTALE:\n' + '\n'.join(calls), pytrace=False)
