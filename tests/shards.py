"""What the tests of nodes and failovers share: rows made by SQL, settings of servers, a mount's own view of its nodes."""

import contextlib
import json
import threading
import uuid

import mount_tools
from conftest import region_number
from mount_tools import errno_of, wait_for

PATIENCE = 60  # seconds until something must have happened, on a busy machine


def admin(cluster, where, text, parameters=None, database='campusfs'):
    """Runs a statement as superuser; its rows."""
    with contextlib.closing(cluster.connect(where, database=database,
                                            options='-c search_path=campusfs,pg_catalog')) as connection:
        cursor = connection.cursor()
        cursor.execute(text, parameters)
        return cursor.fetchall() if cursor.description else []


def new_user(cluster, region='europe', first_name='Ada'):
    """A user's id, made by SQL on the primary; every standby that runs has it."""
    name = uuid.uuid4().hex[:12]
    document = {'email': f'{name}@example.org', 'username': name, 'first_name': first_name}
    (row_id,), = admin(cluster, region, 'SELECT id FROM put_users(%s::smallint, NULL, %s::jsonb, NULL, NULL, false, %s::uuid, %s)',
                       (region_number(region), json.dumps(document), str(uuid.uuid4()), 'test'))
    for node in cluster.nodes_of(region):
        if node.is_standby and node.is_running() and not node.is_frozen():
            assert wait_for(lambda: first_name_at(cluster, node, row_id) == first_name, PATIENCE)
    return row_id


def first_name_at(cluster, node, row_id):
    """What a server has, or None."""
    rows = admin(cluster, node, 'SELECT first_name FROM users WHERE id = %s', (row_id,))
    return rows[0][0] if rows else None


def path_of(root, row_id, region='europe'):
    return root / 'regions' / region / f'users/{row_id}.json'


def first_name(path):
    return json.loads(path.read_bytes())['first_name']


def save(path, name):
    """Makes it the user's first name, whatever it was; errors of close() are raised."""
    document = json.loads(path.read_bytes())
    document.pop('updated_at')
    path.write_text(json.dumps({**document, 'first_name': name}))


class Saving(threading.Thread):
    """A save on its way: .done, and then .errno, None when it was good. Its document is read beforehand."""

    def __init__(self, path, name, text=None):
        super().__init__(daemon=True)
        document = json.loads(text or path.read_bytes())
        document.pop('updated_at')
        self.text = json.dumps({**document, 'first_name': name})
        self.path, self.errno = path, 'not done'
        self.start()

    def run(self):
        self.errno = errno_of(self.path.write_text, self.text)

    @property
    def done(self):
        return not self.is_alive()

    def result(self, timeout=PATIENCE):
        self.join(timeout)
        return self.errno


# ---- settings of a server, until reset()

def set_options(cluster, where, **options):
    for name, value in options.items():
        admin(cluster, where, f'ALTER SYSTEM SET {name} = %s', (value,), database='postgres')
    reload(cluster, where, options)


def reset_options(cluster, where, *names):
    for name in names:
        admin(cluster, where, f'ALTER SYSTEM RESET {name}', database='postgres')
    admin(cluster, where, 'SELECT pg_reload_conf()', database='postgres')


def reload(cluster, where, options):
    admin(cluster, where, 'SELECT pg_reload_conf()', database='postgres')

    def effective():
        return all(admin(cluster, where, 'SELECT current_setting(%s)', (name,), 'postgres') == [(value,)]
                   for name, value in options.items())
    assert wait_for(effective, PATIENCE)


@contextlib.contextmanager
def paused(cluster, node):
    """Its replay stands still; it still receives."""
    admin(cluster, node, 'SELECT pg_wal_replay_pause()', database='postgres')
    try:
        assert wait_for(lambda: admin(cluster, node, 'SELECT pg_get_wal_replay_pause_state()') == [('paused',)], PATIENCE)
        yield
    finally:
        if node.is_running() and not node.is_frozen():
            admin(cluster, node, 'SELECT pg_wal_replay_resume() WHERE pg_is_in_recovery()', database='postgres')


# ---- the mount's own view

def health_of(mount):
    return mount_tools.health_of(mount.directory)


def shard_of(report, name='emea'):
    return next(shard for shard in report['shards'] if shard['name'] == name)


def node_of(report, name):
    return next(node for shard in report['shards'] for node in shard['nodes'] if node['name'] == name)


def wait_for_state(mount, node, state):
    """Until the mount takes the node for that; its part of health.json then."""
    report = {}

    def has_come():
        report.update(node_of(mount_tools.health_as_it_is(mount.directory), node.name))
        return report['state'] == state
    assert wait_for(has_come, PATIENCE, 0.05), report
    return report


def wait_until_ok(mount):
    """Until every node of the mount is what it should be; its health.json then."""
    report = {}

    def is_ok():
        report.update(mount_tools.health_as_it_is(mount.directory))
        return report['status'] == 'ok'
    assert wait_for(is_ok, PATIENCE, 0.05), report
    return report
