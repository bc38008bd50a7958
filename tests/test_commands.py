"""The commands: help and manual, init on every state of a database, health in every state of a cluster, and what a mount
says when it cannot start."""

import json
import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fuse_mount
import process
import pytest
from cluster import DATABASE, SHARDS, Cluster
from library_notice import without_notice
from tcp_proxy import TcpProxy, end

ROOT = Path(__file__).resolve().parent.parent
MIGRATIONS = sorted((ROOT / 'sql/migrations').glob('*.sql'))
SCHEMA = int(MIGRATIONS[-1].name.split('_')[0])
OK, REFUSED, DOWN, USAGE, WRONG = 0, 1, 2, 64, 78
COMMANDS = ('init', 'seed', 'mount', 'reload', 'health', 'status', 'check', 'version', 'help')


@pytest.fixture
def run(campusfs, tmp_path):
    def call(*arguments, **environment):
        done = process.run([campusfs, *arguments], check=False, env=process.clean_environment(**environment),
                           cwd=tmp_path)
        done.stderr = without_notice(done.stderr)
        return done
    return call


# ---- help and manual

def test_overview_names_every_command(run):
    done = run('--help')
    assert done.returncode == OK and done.stderr == ''
    assert set(re.findall(r'^  ([a-z]+) ', done.stdout, re.MULTILINE)) == set(COMMANDS)
    assert {entry['name'] for entry in json.loads(run('help', '--json').stdout)} == set(COMMANDS)
    assert run('help').stdout == done.stdout
    assert run().returncode == USAGE and run().stderr == done.stdout


def options_in_help(text):
    """--option or -o, and the name of its argument or ''."""
    return {match[1]: match[2] or '' for match in re.finditer(r'^  (--?[\w-]+)(?: ([A-Z]+)\S*)?', text, re.MULTILINE)}


def options_in_manual(command):
    text = (ROOT / 'docs/campusfs.8').read_text()
    part = re.search(rf'^\.Ss campusfs {command}\n(.*?)^\.S[sh] ', text, re.MULTILINE | re.DOTALL)[1]
    found = {}
    for name, argument in re.findall(r'^\.It Fl (\S+)(?: Ar (\w+))?', part, re.MULTILINE):
        found[f'-{name}'] = argument
    return found


@pytest.mark.parametrize('command', COMMANDS)
def test_help_and_manual_agree(run, command):
    done = run(command, '--help')
    assert done.returncode == OK and done.stderr == ''
    assert done.stdout.startswith(f'Usage: campusfs {command}')
    assert run('help', command).stdout == done.stdout
    options = options_in_help(done.stdout)
    assert '--help' in options
    assert options_in_manual(command) == options
    usage = done.stdout.split('\n\n')[0]
    named = set(re.findall(r'\[(--[\w-]+)', usage))
    assert named <= set(options)


@pytest.mark.parametrize('arguments', [
    ['bogus'], ['--bogus'], ['--config'], ['init', '--bogus'], ['init', 'word'], ['health', '--timeout'],
    ['health', '--timeout', 'soon'], ['health', '--timeout', '-1'], ['health', '--timeout', 'nan'], ['health', 'word'],
    ['version', 'word'], ['version', '--bogus'], ['help', 'bogus'], ['help', 'init', '--json'], ['help', 'init', 'seed'],
    ['status', '--interval', '0'], ['status', '--timeout', 'soon'], ['status', '--bogus'], ['status', 'a', 'b'],
    ['mount'], ['mount', '--bogus', '/tmp'], ['mount', 'a', 'b'], ['seed', '--bogus'],
], ids=' '.join)
def test_wrong_use_is_told(run, arguments):
    done = run(*arguments)
    assert done.returncode == USAGE, done.stderr
    assert done.stdout == '' and re.search(r'Try "campusfs[ \w]* --help"', done.stderr)


def test_version(run):
    plain, as_json = run('version'), json.loads(run('version', '--json').stdout)
    assert plain.returncode == OK and run('--version').stdout == plain.stdout
    assert as_json['schema'] == SCHEMA
    for name, version in [('campusfs', as_json['campusfs']), ('schema', SCHEMA), *as_json['libraries'].items()]:
        assert f'{name} {version}' in plain.stdout.splitlines()
    project = re.search(r"version: '([^']+)'", (ROOT / 'meson.build').read_text())[1]
    assert as_json['campusfs'] == project
    assert {'libfuse', 'libpq', 'libmongoc', 'jansson', 'libzstd'} == set(as_json['libraries'])


def test_option_config_stands_anywhere(cluster, run):
    for arguments in (['--config', cluster.config, 'health'], ['health', '--config', cluster.config],
                      [f'--config={cluster.config}', 'health', '--json'], ['health', f'--config={cluster.config}']):
        assert run(*arguments).returncode == OK
    assert run('health', CAMPUSFS_CONFIG=str(cluster.config)).returncode == OK


# ---- the shared cluster: all is well

def health(cluster, *arguments, **options):
    done = cluster.run('health', '--json', *arguments, check=False, **options)
    return done.returncode, json.loads(done.stdout)


def nodes_of(report):
    return {node['name']: node for shard in report['shards'] for node in shard['nodes']}


def test_health_of_a_healthy_cluster(cluster):
    code, report = health(cluster)
    assert code == OK and report['status'] == 'ok'
    assert [(shard['name'], shard['number'], shard['status']) for shard in report['shards']] == [
        (name, number, 'ok') for name, (number, _) in SHARDS.items()]
    for name, node in nodes_of(report).items():
        assert node['reachable'] and node['error'] is None
        assert node['role'] == ('standby' if cluster.nodes[name].is_standby else 'primary')
        assert node['timeline'] == 1 and node['schema_version'] == SCHEMA
        assert 0 <= node['lag_ms'] < 10000 and node['lag_bytes'] >= 0 and 0 < node['latency_ms'] < 2000
        assert node['pool'] is None
    assert report['mongodb']['reachable'] and report['mongodb']['error'] is None


def test_health_without_mongodb(cluster):
    config = cluster.write_config(cluster.directory / 'without-mongodb.conf',
                                  mongodb_uri='mongodb://127.0.0.1:1/x?serverSelectionTimeoutMS=300')
    code, report = health(cluster, config=config)
    assert code == REFUSED and report['status'] == 'degraded'
    assert report['mongodb']['reachable'] is False and report['mongodb']['error']
    assert {shard['status'] for shard in report['shards']} == {'ok'}, 'rows work'


class Refusing(TcpProxy):
    """A server that refuses every session with these bytes."""

    def __init__(self, said):
        self.said = said
        super().__init__(None)

    def serve(self, client):
        if client.recv(65536)[4:8] == bytes.fromhex('04d2162f'):  # wants TLS
            client.sendall(b'N')
            client.recv(65536)
        fields = b'SFATAL\0VFATAL\0C28000\0M' + self.said + b'\0\0'
        client.sendall(b'E' + (4 + len(fields)).to_bytes(4, 'big') + fields)
        end(client)


@pytest.mark.parametrize('said, shown', [
    ('kein Eintrag für Host'.encode('latin-1'), 'kein Eintrag f?r Host'),
    ('ü'.encode() * 1500, 'ü' * 300), (b'x' + 'ü'.encode() * 1500, 'x' + 'ü' * 300)], ids=['Latin-1', 'cut', 'cut by one'])
def test_health_of_a_server_that_speaks_another_encoding(cluster, said, shown):
    """Before there is a session a server uses its own; what is long is cut between characters."""
    server = Refusing(said)
    config = cluster.write_config(cluster.directory / 'refusing.conf')
    config.write_text(re.sub(r'^emea-b = .*', f'emea-b = shard=emea host={server.host} port={server.port}',
                             config.read_text(), flags=re.MULTILINE))
    try:
        code, report = health(cluster, config=config)
    finally:
        server.close()
    assert code == REFUSED and report['shards'][1]['status'] == 'degraded'
    assert shown in nodes_of(report)['emea-b']['error']


def test_health_for_people(cluster):
    done = cluster.run('health')
    assert done.stdout.startswith('ok\n')
    for name in cluster.nodes:
        assert re.search(rf'^ +{name} +(primary|standby) +1 ', done.stdout, re.MULTILINE)
    assert re.search(r'^MongoDB: ok, ', done.stdout, re.MULTILINE)


def test_init_again_changes_nothing(cluster):
    done = cluster.run('init')
    assert done.stdout.splitlines() == [*(f'shard {shard}: nothing to do' for shard in SHARDS), 'MongoDB: nothing to do']
    report = json.loads(cluster.run('init', '--json').stdout)
    for shard in report['shards']:
        assert shard['from'] == shard['to'] == SCHEMA
        assert shard['files'] == 0 and shard['changes'] == [] and shard['error'] is None
        assert shard['node'] == cluster.primary(shard['name']).name
    assert report['mongodb'] == {'changes': [], 'error': None}


def test_init_does_not_choose_between_two_primaries(cluster, tmp_path):
    """A line of [nodes] leads to another shard's."""
    nodes, config = cluster.nodes, tmp_path / 'campusfs.conf'
    lines = [line.replace(str(nodes['emea-b'].port), str(nodes['apac-a'].port)) if line.startswith('emea-b = ') else line
             for line in cluster.config.read_text().splitlines()]
    config.write_text('\n'.join(lines) + '\n')
    done = cluster.run('init', config=config, check=False)
    assert done.returncode == REFUSED
    assert 'shard emea: node emea-a: nodes emea-a and emea-b are both primaries, of different clusters' in done.stderr


def test_roles_and_regions_are_as_configured(sql, cluster):
    for shard, (number, local) in SHARDS.items():
        rows = sql(shard, 'SELECT name, number, is_local FROM regions ORDER BY number')
        assert rows == [(name, region, name in local) for _, regions in SHARDS.values()
                        for name, region in regions.items()]
        assert sql(shard, 'SELECT number FROM shard') == [(number,)]
        assert sql(shard, "SELECT rolname, rolcanlogin, rolsuper, rolreplication FROM pg_roles "
                          "WHERE rolname LIKE 'campusfs%' ORDER BY 1") == [
            ('campusfs_owner', False, False, False), ('campusfs_repl', True, False, True),
            ('campusfs_ro', True, False, False), ('campusfs_rw', True, False, False)]
        owners = sql(shard, "SELECT DISTINCT relowner::regrole::text FROM pg_class "
                            "WHERE relnamespace = 'campusfs'::regnamespace AND relkind IN ('r', 'v')")
        assert owners == [('campusfs_owner',)]


def test_session_is_pinned_whatever_the_database_says(cluster, sql, new_mount, new_user):
    """Settings of a role must not change what statements mean or how a document looks."""
    user = new_user('africa')
    rude = {'DateStyle': 'German', 'TimeZone': 'Asia/Kolkata', 'search_path': 'public', 'extra_float_digits': '-5',
            'IntervalStyle': 'sql_standard', 'bytea_output': 'escape', 'default_transaction_isolation': 'serializable',
            'statement_timeout': '1'}
    try:
        for name, value in rude.items():
            sql('africa', f"ALTER ROLE campusfs_rw SET {name} = '{value}'")
        with_them = new_mount().directory / f'regions/africa/users/{user.id}.json'
        assert json.loads(with_them.read_bytes()) == user.document
    finally:
        for name in rude:
            sql('africa', f'ALTER ROLE campusfs_rw RESET {name}')


def test_where_a_mount_can_be(cluster, new_mount, tmp_path):
    """Not where one is that lives, which it would hide, nor on what is no folder; but over one whose daemon was killed."""
    def mount_at(path):
        done = cluster.run('mount', path, check=False)
        return done.returncode, done.stderr
    mount = new_mount()
    for path, words in ((mount.directory, 'has something mounted already'), (cluster.config, 'is not a folder'),
                        (tmp_path / 'missing', 'No such file or directory')):
        code, said = mount_at(path)
        assert code == REFUSED and f'{path}' in said and words in said
    assert mount.is_up()
    mount.kill()
    assert not mount.is_up()
    assert mount_at(mount.directory)[0] == OK
    assert mount.is_up() and fuse_mount.mountpoints().count(str(mount.directory)) == 1


# ---- a cluster of this module's own, whose servers are broken and mended

@pytest.fixture(scope='module')
def own(run_directory, campusfs):
    """Servers without a database: each test begins with whatever init makes of what the last one left."""
    cluster = Cluster(run_directory / 'commands', durable=False, mongodb=False, program=campusfs)
    cluster.settings.update(connect_timeout='2s')
    try:
        cluster.create()
        yield cluster
    finally:
        cluster.kill()


@pytest.fixture
def ready(own):
    """Initialised, with passwords, every server up and standbys streaming."""
    own.start()
    own.run('init')
    own.set_passwords()
    return own


def admin(cluster, where, text, parameters=None, database=DATABASE):
    connection = cluster.connect(where, database=database, options='-c search_path=campusfs,pg_catalog')
    with connection.cursor() as cursor:
        cursor.execute(text, parameters)
        rows = cursor.fetchall() if cursor.description else []
    connection.close()
    return rows


def drop_database(cluster):
    for shard in SHARDS:
        admin(cluster, shard, f'DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)', database='postgres')
        admin(cluster, shard, 'DROP ROLE IF EXISTS campusfs_owner, campusfs_ro, campusfs_rw', database='postgres')


def mount_refused(cluster, **settings):
    """What `campusfs mount` says when it does not mount: exit code 2, at once."""
    config = cluster.write_config(cluster.directory / 'refused.conf', **settings) if settings else None
    directory = cluster.directory / 'refused'
    directory.mkdir(exist_ok=True)
    start = time.monotonic()
    done = cluster.run('mount', directory, config=config, check=False, timeout=30)
    assert done.returncode == DOWN, (done.returncode, done.stderr)
    assert done.stdout == '' and time.monotonic() - start < 20
    return done.stderr


def test_init_of_empty_servers(own):
    drop_database(own)
    assert f'database "{DATABASE}" does not exist: run "campusfs init"' in mount_refused(own, user='postgres')
    done = own.run('init')
    for shard in SHARDS:
        part = [line.partition(': ')[2] for line in done.stdout.splitlines() if line.startswith(f'shard {shard}: ')]
        assert re.fullmatch(rf'schema 0 → {SCHEMA}, \d+ files', part[0])
        assert part[1] == f'database {DATABASE} created'
        assert part[-1] == 'roles created: campusfs_owner, campusfs_ro, campusfs_rw'
        for name, number in SHARDS[shard][1].items():
            assert f'region {name} ({number}) added' in part
    assert own.run('init').stdout.count('nothing to do') == len(SHARDS)
    assert admin(own, 'emea', 'SELECT version FROM schema_version') == [(SCHEMA,)]


def test_two_inits_at_once_do_it_once(own):
    drop_database(own)
    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(lambda _: json.loads(own.run('init', '--json').stdout), range(4)))
    for index, shard in enumerate(SHARDS):
        mine = [report['shards'][index] for report in reports]
        assert [one['error'] for one in mine] == [None] * 4
        assert sorted(one['from'] for one in mine) == [0] + [SCHEMA] * 3
        assert sum(one['files'] > 0 for one in mine) == 1
        assert admin(own, shard, 'SELECT count(*) FROM schema_version') == [(1,)]


def test_init_needs_no_superuser(own):
    """Who may create databases and roles is enough, once the replication role is there."""
    drop_database(own)
    for shard in SHARDS:
        admin(own, shard, "CREATE ROLE builder LOGIN CREATEDB CREATEROLE PASSWORD 'brick by brick'", database='postgres')
    builder = {'CAMPUSFS_ADMIN_USER': 'builder', 'CAMPUSFS_ADMIN_PASSWORD': 'brick by brick'}
    try:
        assert own.run('init', env=builder).stdout.count(f'schema 0 → {SCHEMA}') == len(SHARDS)
        assert own.run('init', env=builder).stdout.count('nothing to do') == len(SHARDS)
        assert admin(own, 'emea', "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'campusfs'") == [
            ('campusfs_owner',)]
    finally:
        drop_database(own)
        for shard in SHARDS:
            admin(own, shard, 'DROP ROLE builder', database='postgres')


def test_init_mends_functions_and_keeps_rows(ready):
    category = admin(ready, 'emea', "SELECT id FROM put_categories(0::smallint, NULL, %s::jsonb, NULL, NULL, false, NULL, 't')",
                     ('{"name": "Kept", "slug": "kept"}',))
    admin(ready, 'emea', "CREATE OR REPLACE FUNCTION resolve_request(p_request uuid) RETURNS text LANGUAGE sql "
                         "AS $$ SELECT 'nonsense' $$")
    admin(ready, 'emea', "UPDATE schema_version SET code_hash = 'of an older program'")
    done = ready.run('init')
    assert re.search(r'^shard emea: functions and views brought up to date, \d+ files$', done.stdout, re.MULTILINE)
    assert done.stdout.count('nothing to do') == 2
    assert admin(ready, 'emea', "SELECT resolve_request('11111111-1111-1111-1111-111111111111')") == [('void',)]
    assert admin(ready, 'emea', 'SELECT id FROM course_categories') == category
    admin(ready, 'emea', 'DELETE FROM course_categories')


def test_init_that_fails_leaves_nothing_behind(ready):
    """Somebody else's table where a view is to be: the shard stays as it was, also what came before that, the others go on."""
    for shard in SHARDS:
        admin(ready, shard, "UPDATE schema_version SET code_hash = 'of an older program'")
    admin(ready, 'apac', "CREATE OR REPLACE FUNCTION counted(p_count bigint, p_noun text) RETURNS text LANGUAGE sql "
                         "AS $$ SELECT 'nonsense' $$")  # of code/10_common.sql, whose turn comes first
    admin(ready, 'apac', 'CREATE ROLE stranger')
    admin(ready, 'apac', 'DROP VIEW doc_users CASCADE; CREATE TABLE doc_users (mine int); ALTER TABLE doc_users OWNER TO stranger')
    try:
        done = ready.run('init', check=False)
        assert done.returncode == DOWN
        assert re.search(r'^campusfs init: shard apac: node apac-a: sql/code/\d+_\w+\.sql: .*doc_users', done.stderr, re.MULTILINE)
        assert done.stdout.count('brought up to date') == 2
        assert admin(ready, 'apac', 'SELECT code_hash FROM schema_version') == [('of an older program',)]
        assert admin(ready, 'apac', "SELECT counted(1, 'row')") == [('nonsense',)]
    finally:
        admin(ready, 'apac', 'DROP TABLE doc_users; DROP ROLE stranger')
    assert 'shard apac: functions' in ready.run('init').stdout
    assert admin(ready, 'apac', "SELECT counted(1, 'row')") == [('1 row',)]


def test_newer_and_older_schema_and_a_stranger(ready):
    with_newer = f'its schema is newer, version {SCHEMA + 1}, than this program\'s, {SCHEMA}'
    admin(ready, 'emea', 'UPDATE schema_version SET version = version + 1')
    done = ready.run('init', check=False)
    assert done.returncode == REFUSED and with_newer in done.stderr
    assert f'shard emea: node emea-a: {with_newer}: install a newer campusfs' in mount_refused(ready)
    code, report = health(ready)
    assert code == REFUSED and report['shards'][1]['status'] == 'degraded', 'mounts that there are go on reading'
    assert with_newer in nodes_of(report)['emea-a']['error'] and nodes_of(report)['emea-a']['state'] == 'primary'
    assert nodes_of(report)['emea-a']['schema_version'] == SCHEMA + 1

    admin(ready, 'emea', f'UPDATE schema_version SET version = {SCHEMA - 1}')
    assert re.search(rf'its schema is older, version {SCHEMA - 1}, .*run "campusfs init"', mount_refused(ready))
    admin(ready, 'emea', f'UPDATE schema_version SET version = {SCHEMA}')

    admin(ready, 'emea', 'UPDATE shard SET number = 5')
    done = ready.run('init', check=False)
    assert done.returncode == REFUSED and 'belongs to shard number 5, but the configuration says 2' in done.stderr
    assert 'belongs to shard number 5, but the configuration says 2' in mount_refused(ready)
    admin(ready, 'emea', 'UPDATE shard SET number = 2')

    admin(ready, 'emea', 'ALTER SCHEMA campusfs RENAME TO elsewhere')
    assert re.search(r'shard emea: node emea-\w: the database has no campusfs schema: run "campusfs init"',
                     mount_refused(ready))
    admin(ready, 'emea', 'ALTER SCHEMA elsewhere RENAME TO campusfs')
    assert health(ready)[0] == OK


def test_regions_can_be_renamed_but_not_moved(ready):
    text = ready.config.read_text()
    other = ready.directory / 'regions.conf'
    other.write_text(text.replace('oceania = number=6', 'pacific = number=6'))
    done = ready.run('init', config=other)
    for shard in SHARDS:
        assert f'shard {shard}: region 6 renamed from oceania to pacific' in done.stdout
    other.write_text(text.replace('oceania = number=6 shard=apac\n', ''))
    done = ready.run('init', config=other)
    assert 'shard apac: regions in the database that the configuration does not name: pacific (6)' in done.stderr
    other.write_text(text.replace('oceania = number=6 shard=apac', 'oceania = number=6 shard=emea'))
    done = ready.run('init', check=False, config=other)
    assert done.returncode == REFUSED
    assert 'region oceania (6) lives on another shard according to the database' in done.stderr
    assert 'region 6 renamed from pacific to oceania' in ready.run('init').stdout


def test_wrong_password(ready):
    wrong = ready.directory / 'wrong-pgpass'
    wrong.write_text('*:*:*:*:Tr0ub4dor&3\n')
    wrong.chmod(0o600)
    said = mount_refused(ready, passfile=wrong)
    assert 'shard americas: node americas-a: ' in said and 'password authentication failed for user "campusfs_rw"' in said
    config = ready.write_config(ready.directory / 'refused.conf', passfile=wrong)
    done = ready.run('init', check=False, config=config)
    assert done.returncode == DOWN and 'password authentication failed for user "postgres"' in done.stderr
    code, report = health(ready, config=config)
    assert code == DOWN and 'password authentication failed' in nodes_of(report)['emea-b']['error']
    assert 'Tr0ub4dor' not in said + done.stderr + json.dumps(report)


def test_password_from_the_environment(ready):
    config = ready.write_config(ready.directory / 'refused.conf', passfile=None)
    right = {'CAMPUSFS_PASSWORD': ready.password('rw'), 'CAMPUSFS_ADMIN_PASSWORD': ready.password('admin')}
    assert ready.run('health', config=config, check=False).returncode == DOWN
    assert ready.run('health', config=config, env=right).returncode == OK
    assert ready.run('init', config=config, env=right).returncode == OK
    assert ready.run('health', config=config, env={'PGPASSFILE': str(ready.passfile)}).returncode == OK


def test_unknown_word_of_a_node(ready):
    config = ready.directory / 'refused.conf'
    config.write_text(ready.config.read_text().replace('apac-b = shard=apac ', 'apac-b = shard=apac hots=x '))
    done = ready.run('health', check=False, config=config)
    assert done.returncode == REFUSED and 'node apac-b: invalid connection option "hots"' in done.stdout


def test_health_without_a_replica_a_primary_a_shard(ready):
    ready.replica('emea').kill()
    code, report = health(ready)
    emea = report['shards'][1]
    assert code == REFUSED and report['status'] == emea['status'] == 'degraded'
    down = nodes_of(report)['emea-b']
    assert not down['reachable'] and 'node emea-b: ' in down['error']
    assert [down[key] for key in ('role', 'timeline', 'lag_ms', 'lag_bytes', 'latency_ms', 'schema_version')] == [None] * 6
    assert [shard['status'] for shard in report['shards']] == ['ok', 'degraded', 'ok']
    table = ready.run('health', check=False).stdout
    assert table.startswith('degraded\n') and re.search(r'^ +emea-b +down ', table, re.MULTILINE)

    ready.start()
    ready.primary('emea').kill()
    code, report = health(ready)
    assert code == REFUSED and report['shards'][1]['status'] == 'degraded'
    assert nodes_of(report)['emea-b']['lag_bytes'] is None, 'behind whom is not known'
    ready.replica('emea').kill()
    code, report = health(ready)
    assert code == DOWN and report['status'] == report['shards'][1]['status'] == 'down'
    assert [shard['status'] for shard in report['shards']] == ['ok', 'down', 'ok']


def test_health_of_frozen_servers_keeps_its_deadline(ready):
    for node in ('emea-b', 'apac-b', 'americas-b'):
        ready.nodes[node].freeze()
    start = time.monotonic()
    code, report = health(ready, '--timeout', '0.4')
    assert code == REFUSED and time.monotonic() - start < 20, 'the deadline is not that of a connection'
    assert all('no answer' in nodes_of(report)[node]['error'] for node in ('emea-b', 'apac-b', 'americas-b'))
    ready.nodes['emea-a'].freeze()
    assert health(ready, '--timeout', '0.4')[0] == DOWN
    ready.thaw()
    assert health(ready)[0] == OK


def test_health_of_a_lagging_replica(ready):
    replica = ready.replica('apac')
    try:
        admin(ready, replica, 'SELECT pg_wal_replay_pause()', database='postgres')
        is_paused = lambda: admin(ready, replica, 'SELECT pg_get_wal_replay_pause_state()')  # noqa: E731
        assert process.wait_until(lambda: is_paused() == [('paused',)], 60)
        admin(ready, 'apac', "UPDATE shard SET number = number")
        time.sleep(1.2)
        config = ready.write_config(ready.directory / 'refused.conf', max_lag='1s')
        code, report = health(ready, config=config)
        node = nodes_of(report)[replica.name]
        assert code == REFUSED and node['reachable'] and node['lag_bytes'] > 0 and node['lag_ms'] > 1000
        assert re.search(r'lags \d+ ms, allowed are 1000', node['error'])
        assert health(ready)[0] == OK, 'ten seconds are allowed by default'
    finally:
        admin(ready, replica, 'SELECT pg_wal_replay_resume()', database='postgres')


def test_primary_is_found_by_its_role(ready):
    ready.primary('americas').kill()
    ready.nodes['americas-b'].promote()
    assert process.wait_until(lambda: nodes_of(health(ready)[1])['americas-b']['role'] == 'primary', 30)
    admin(ready, ready.nodes['americas-b'], "UPDATE schema_version SET code_hash = 'of an older program'")
    report = json.loads(ready.run('init', '--json').stdout)
    assert report['shards'][0]['node'] == 'americas-b' and report['shards'][0]['files'] > 0
    assert any('americas-a' in note for note in report['shards'][0]['notes'])
    # The old primary comes back as what it was: a second one, on the older timeline, which init never touches.
    ready.nodes['americas-a'].start()
    code, report = health(ready)
    assert code == REFUSED
    assert 'a primary on timeline 1, while 2 has been seen' in nodes_of(report)['americas-a']['error']
    assert json.loads(ready.run('init', '--json').stdout)['shards'][0]['node'] == 'americas-b'


def test_servers_down_at_start(ready):
    for node in ready.nodes_of('apac'):
        node.kill()
    said = mount_refused(ready)
    for node in ready.nodes_of('apac'):
        assert re.search(rf'shard apac: node {node.name}: .*(refused|No such file)', said)
    assert 'emea' not in said, 'what works needs no words'
    done = ready.run('init', check=False)
    assert done.returncode == DOWN
    assert re.search(r'shard apac: no primary can be reached: node apac-a: ', done.stderr)
    assert done.stdout.count('nothing to do') == 2


def test_replica_down_at_start_is_a_warning(ready):
    ready.replica('emea').kill()
    mount = ready.mount(ready.directory / 'mnt-without')
    try:
        assert (mount.directory / 'regions/europe/users').is_dir()
        assert re.search(r' warning shard emea: node emea-b: .*going on without it', mount.log_file.read_text())
    finally:
        ready.mounts.remove(mount)
        assert mount.stop() == 0


def test_progress_is_drawn_on_a_terminal_only(ready):
    """init waits for another one, so that it takes more than a second."""
    for shard in SHARDS:
        admin(ready, shard, "UPDATE schema_version SET code_hash = 'of an older program'")
    holder = ready.connect('emea')
    with holder.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(hashtext('campusfs init'))")
    command = f'{ready.program} --config {ready.config} init'
    with subprocess.Popen(['script', '-qec', command, '/dev/null'], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          env=process.clean_environment(TERM='xterm')) as init:
        waiting = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        assert process.wait_until(lambda: len(admin(ready, 'emea', waiting)) == 1, 60)
        time.sleep(1.2)
        holder.close()
        said = init.communicate(timeout=30)[0].decode()
    assert re.search(r'\rSQL files \[#*\.*\] +\d+ %  \d+/\d+', said), said
    assert 'SQL files' not in ready.run('init').stderr
