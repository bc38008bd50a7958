"""What a failover costs those who save: the time from when a promoted replica takes writes to when a save has succeeded.
What a supervisor needs to notice a death and the server to promote is no part of it. The yardstick is a libpq program that
tries every server anew each 10 ms. And what a read costs right after an own save."""

import contextlib
import json
import statistics
import threading
import time

import psycopg2

from works import WorkError

GAP_GOAL = 0.3   # seconds, the longest
SHARD, REGION = 'emea', 'europe'
RETRY = 0.01     # seconds, of the raw loop
ENOUGH = 20      # saves before the primary is killed
GIVE_UP = 30     # seconds
EMAIL = 'failover@example.org'


class Loop(threading.Thread):
    """Writes again and again until stopped: when each that was good had ended."""

    def __init__(self, write):
        super().__init__(daemon=True)
        self.write, self.good, self.failed, self.go_on = write, [], 0, True

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.go_on = False
        self.join()

    def run(self):
        number = 0
        while self.go_on:
            number += 1
            try:
                self.write(f'Save {number}')
                self.good.append(time.monotonic())
            except (OSError, psycopg2.Error):
                self.failed += 1

    def wait_for(self, condition):
        deadline = time.monotonic() + GIVE_UP
        while not condition(self.good):
            if time.monotonic() > deadline:
                raise WorkError(f'nothing was saved for {GIVE_UP} s')
            time.sleep(0.002)


class Raw:
    """A row changed by a client that connects as campusfs does, and knows all servers but not which is the primary."""

    def __init__(self, cluster, row_id):
        self.cluster, self.row_id, self.connection = cluster, row_id, None

    def write(self, name):
        try:
            if self.connection is None:
                self.connection = self.connect()
            self.connection.cursor().execute('UPDATE campusfs.users SET first_name = %s WHERE id = %s', (name, self.row_id))
        except psycopg2.Error:
            self.close()
            time.sleep(RETRY)
            raise

    def connect(self):
        nodes = self.cluster.nodes_of(SHARD)
        connection = psycopg2.connect(host=','.join(node.host for node in nodes), port=','.join(str(node.port) for node in nodes),
                                      dbname='campusfs', user='campusfs_rw', password=self.cluster.password('rw'),
                                      target_session_attrs='read-write')
        connection.autocommit = True
        return connection

    def close(self):
        if self.connection is not None:
            self.connection.close()
        self.connection = None


def file_writer(path):
    document = json.loads(path.read_bytes())
    document.pop('updated_at')
    return lambda name: path.write_text(json.dumps({**document, 'first_name': name}))


def promoted_at(cluster, node):
    """When the node was first seen to take writes; asked without a pause."""
    with contextlib.closing(cluster.connect(node, database='postgres')) as connection, connection.cursor() as cursor:
        while True:
            cursor.execute('SELECT pg_is_in_recovery()')
            if not cursor.fetchone()[0]:
                return time.monotonic()
            time.sleep(0.001)


def wait_ok(mount):
    """Until the mount has every node in use: what returned just before it is killed is another case."""
    deadline = time.monotonic() + GIVE_UP
    while json.loads((mount.directory / '.campusfs/health.json').read_text())['status'] != 'ok':
        if time.monotonic() > deadline:
            raise WorkError(f'the mount is not well after {GIVE_UP} s')
        time.sleep(0.02)


def fail_over(cluster, write):
    """Kills the primary under the writer: (seconds until promoted, seconds from there to the first good save, failures)."""
    old, new = cluster.primary(SHARD), cluster.replica(SHARD)
    promoted = []
    watcher = threading.Thread(target=lambda: promoted.append(promoted_at(cluster, new)))
    with Loop(write) as loop:
        loop.wait_for(lambda good: len(good) >= ENOUGH)
        watcher.start()
        old.kill()
        killed = time.monotonic()
        new.promote()
        watcher.join()
        loop.wait_for(lambda good: good[-1] > promoted[0])
    first = next(at for at in loop.good if at > killed)
    cluster.rejoin(old, new)
    return promoted[0] - killed, max(0, first - promoted[0]), loop.failed


def save_then_read(path, count):
    """Seconds of a read right after a save, each."""
    write, times = file_writer(path), []
    for number in range(count):
        name = f'Save {number}'
        write(name)
        begun = time.perf_counter()
        seen = path.read_bytes()
        times.append(time.perf_counter() - begun)
        if json.loads(seen)['first_name'] != name:
            raise WorkError(f'{path}: an own save was not read')
    return sorted(times)


def measure(cluster, mountpoint, *, rounds, saves):
    """All figures, in seconds."""
    result = {'promotion': [], 'campusfs': [], 'raw': [], 'failed': 0, 'reads': {}}
    mount = cluster.mount(mountpoint)
    users = mount.directory / 'regions' / REGION / 'users'
    (users / 'new.json').write_text(json.dumps({'email': EMAIL, 'username': 'failover', 'first_name': 'Save'}))
    path = next(path for path in users.glob('*.json') if json.loads(path.read_bytes())['email'] == EMAIL)
    raw = Raw(cluster, int(path.stem))
    for _ in range(rounds):
        for who, write in (('raw', raw.write), ('campusfs', file_writer(path))):
            wait_ok(mount)
            promotion, gap, failed = fail_over(cluster, write)
            raw.close()
            result['promotion'].append(promotion)
            result[who].append(gap)
            result['failed'] += failed if who == 'campusfs' else 0
    bare_directory = mountpoint.with_name(mountpoint.name + '-bare')
    bare = cluster.mount(bare_directory, config=cluster.write_config(cluster.directory / 'bare.conf', cache_ttl='0', cache_size='0'))
    for what, one in (('caches as by default', mount), ('no cache', bare)):
        wait_ok(one)
        result['reads'][what] = save_then_read(one.directory / path.relative_to(mount.directory), saves)
    return result


def percentile(values, percent):
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def print_result(result):
    def spread(values):
        return f'p50 {statistics.median(values):.3f} s, max {max(values):.3f} s'
    print(f'\nFailover: {len(result["promotion"])} primaries killed; until the replica took writes {spread(result["promotion"])}')
    print(f'  from there to the first save: {spread(result["campusfs"])}   (goal <= {GAP_GOAL} s)')
    print(f'  a libpq loop that connects anew every {RETRY * 1000:.0f} ms: {spread(result["raw"])}')
    print(f'  saves that failed meanwhile: {result["failed"]}')
    for what, times in result['reads'].items():
        print(f'  read after an own save, {what}: p50 {percentile(times, 50) * 1000:.2f} ms, '
              f'p99 {percentile(times, 99) * 1000:.2f} ms, max {max(times) * 1000:.2f} ms')
