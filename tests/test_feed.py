"""What the kernel may keep for minutes, and how it hears that it has changed: by nobody's request, within a second.

In both forms: changes are streamed, or asked for. What a stream and its servers may do: test_feed_stream.py.
"""

import contextlib
import os
import threading
import time

import pytest

import shards
from conftest import region_number
from mount_tools import errno_of, feed_states, folder_of, metrics, requests_of, wait_for

LATE = 1.0   # seconds: a change by somebody else is seen by then
SLACK = 9.0  # what a busy machine may add: the kernel keeps for minutes what it is not told of


@pytest.fixture(params=['auto', 'poll'])
def own_root(new_mount, request):
    """A mount of the test's own, so that nobody else's requests are counted; how it hears of changes is settled."""
    root = new_mount(feed=request.param).directory
    assert wait_for(lambda: feed_states(root) == {'streaming' if request.param == 'auto' else 'polling'}, 30)
    return root


def path_in(root, row):
    return folder_of(root, row.collection, row.region) / f'{row.id}.json'


def known_for(path, seconds):
    """Whether the kernel answers for so long without asking; its attributes have been fetched before."""
    root = path.parents[3]
    os.stat(path)
    before = requests_of(root, 'lookup', 'getattr')
    cost = {kind: n - before[kind] for kind, n in requests_of(root, 'lookup', 'getattr').items()}  # of looking itself
    until = time.monotonic() + seconds
    before = requests_of(root, 'lookup', 'getattr')
    while time.monotonic() < until:
        for _ in range(20):
            os.stat(path)
        time.sleep(0.1)
    after = requests_of(root, 'lookup', 'getattr')
    return sum(after.values()) - sum(before.values()) <= sum(cost.values())


def test_what_does_not_change_is_asked_for_once(own_root, new_user):
    path = path_in(own_root, new_user())
    path.read_bytes()
    time.sleep(1)  # the making of the row has been told
    assert known_for(path, 3)


def test_a_change_by_sql_is_told(own_root, new_user, sql):
    """Size and time of a row that the kernel keeps are those of the new revision, every time."""
    row = new_user()
    path = path_in(own_root, row)
    for n in range(8):
        before = os.stat(path)
        assert path.read_bytes()
        sql(row.region, "UPDATE users SET first_name = %s WHERE id = %s", ('x' * (n + 20), row.id))
        changed = time.monotonic()
        assert wait_for(lambda: os.stat(path).st_mtime_ns != before.st_mtime_ns, 30)
        assert time.monotonic() - changed < LATE + SLACK
        assert os.stat(path).st_size == len(path.read_bytes()) and b'x' * (n + 20) in path.read_bytes()


def test_a_part_in_another_table_is_told(own_root, new_user, sql):
    row = new_user()
    path = path_in(own_root, row)
    os.stat(path)
    time.sleep(1)  # from now on it is kept for long
    before = os.stat(path)
    sql(row.region, "UPDATE user_profiles SET bio = 'told' WHERE user_id = %s", (row.id,))
    assert wait_for(lambda: os.stat(path).st_mtime_ns != before.st_mtime_ns, LATE + SLACK)


def test_a_deletion_by_sql_is_told(own_root, new_user, sql):
    row = new_user()
    path = path_in(own_root, row)
    os.stat(path)
    time.sleep(1)
    os.stat(path)
    sql(row.region, "SELECT delete_users(%s::smallint, %s, gen_random_uuid(), 'test')",
        (region_number(row.region), row.id))
    assert wait_for(lambda: errno_of(os.stat, path) == 'ENOENT', LATE + SLACK)


def test_a_statement_that_changes_thousands_is_told(own_root, mnt, sql):
    """The change log then names the folder only: every row that the kernel knows of it is looked at anew."""
    number, first = region_number('oceania'), 91_000_003
    ids = [first + 1000 * n for n in range(1500)]
    sql('oceania', "INSERT INTO users (region, id, email, username, first_name, last_name) SELECT %s, id, "
        "'feed' || id || '@example.org', 'feed' || id, 'A', 'B' FROM unnest(%s::bigint[]) id", (number, ids))
    try:
        folder = folder_of(own_root, 'users', 'oceania')
        assert wait_for(lambda: len(os.listdir(folder)) >= len(ids), LATE + SLACK)
        before = {entry.name: entry.stat().st_mtime_ns for entry in os.scandir(folder)}
        time.sleep(1)
        sql('oceania', "UPDATE users SET last_name = 'C' WHERE region = %s AND id = ANY (%s)", (number, ids))
        paths = [folder / f'{row_id}.json' for row_id in ids]
        assert wait_for(lambda: all(os.stat(path).st_mtime_ns != before[path.name] for path in paths), 2 * LATE + SLACK)
    finally:
        sql('oceania', 'DELETE FROM users WHERE region = %s AND id = ANY (%s)', (number, ids))


def test_the_time_of_a_folder_is_told(own_root, new_user, sql):
    row = new_user()
    folder = path_in(own_root, row).parent
    time.sleep(1)
    for _ in range(3):
        before = os.stat(folder).st_mtime_ns
        sql(row.region, "UPDATE users SET last_name = last_name || 'x' WHERE id = %s", (row.id,))
        assert wait_for(lambda: os.stat(folder).st_mtime_ns > before, LATE + SLACK)


def test_changes_while_many_look(own_root, new_user, sql):
    """Readers that look all the time see every change in time, whatever was on its way when it was told."""
    rows = [new_user() for _ in range(4)]
    paths = [path_in(own_root, row) for row in rows]
    stop = threading.Event()

    def look():
        while not stop.is_set():
            for path in paths:
                os.stat(path)
                path.read_bytes()
    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for n in range(6):
            for row in rows:
                sql(row.region, "UPDATE users SET first_name = %s WHERE id = %s", (f'Look{n}', row.id))
            mark = f'Look{n}'.encode()
            assert wait_for(lambda: all(mark in path.read_bytes() for path in paths), LATE + SLACK)
            for _ in range(20):  # and from then on
                for path in paths:
                    data = path.read_bytes()
                    assert mark in data and os.stat(path).st_size == len(data)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def questions_of(root, shard='emea'):
    return metrics(root)[f'campusfs_freshness_questions_total{{shard="{shard}"}}']


@pytest.mark.parametrize('own_root', ['poll'], indirect=True)
def test_an_idle_mount_asks_nothing_for_ever(own_root, new_user, sql):
    """It does while the kernel may believe what it was told, twice a second at most a shard."""
    path_in(own_root, new_user()).read_bytes()
    before, begun = questions_of(own_root), time.monotonic()
    assert wait_for(lambda: questions_of(own_root) - before >= 6, 60, 0.1)
    assert questions_of(own_root) - before <= 2 * (time.monotonic() - begun) + 4


# ---- servers that go

@pytest.fixture
def own(breakable):
    """Servers that are broken, every one up; a mount of them is the test's."""
    breakable.start()
    yield breakable
    breakable.thaw()


@contextlib.contextmanager
def mounted(own, region, **settings):
    """The path of a user in a mount of them."""
    row_id = shards.new_user(own, region)
    config = own.write_config(own.directory / f'feed-{region}.conf', **{'cache_ttl': '1s', 'cache_size': '64MB', **settings})
    mount = own.mount(own.directory / f'mnt-feed-{region}', config=config)
    try:
        yield shards.path_of(mount.directory, row_id, region)
    finally:
        own.thaw()
        own.mounts.remove(mount)
        assert mount.stop() == 0


@pytest.mark.parametrize('feed', ['auto', 'poll'])
def test_after_a_failover_changes_are_told_by_the_new_primary(own, feed):
    """What its predecessor alone had is gone again, and the new one's transactions may have the numbers of those."""
    with mounted(own, 'europe', feed=feed) as path:
        old, new = own.primary('europe'), own.replica('europe')

        def change(node, name):
            shards.admin(own, node, 'UPDATE users SET first_name = %s WHERE id = %s', (name, path.stem))

        def shows(name):
            return errno_of(path.read_bytes) is None and shards.first_name(path) == name
        new.kill()
        change(old, 'Lost')
        lost = f'{shards.new_user(own, "europe")}.json'
        assert wait_for(lambda: shows('Lost') and lost in os.listdir(path.parent), 60)
        old.kill()
        new.start()
        new.promote()
        assert wait_for(lambda: shows('Ada') and lost not in os.listdir(path.parent), 60)
        change(new, 'Promoted')
        assert wait_for(lambda: shows('Promoted'), 60)
        for n in range(3):
            before = os.stat(path)
            time.sleep(0.6)
            change(new, f'Promoted {n}')
            assert wait_for(lambda: os.stat(path).st_mtime_ns != before.st_mtime_ns, LATE + SLACK)


@pytest.mark.parametrize('feed', ['auto', pytest.param('poll', marks=pytest.mark.long)])
def test_while_nobody_can_be_asked_the_kernel_keeps_nothing(own, feed):
    """A primary that is silent may have changed anything: what the kernel keeps it asks for again."""
    with mounted(own, 'asia', feed=feed) as path:
        os.stat(path)
        time.sleep(1)
        for node in own.nodes_of('asia'):
            node.freeze()
        assert wait_for(lambda: errno_of(os.stat, path) == 'EIO', 60)
        own.thaw()
        assert wait_for(lambda: errno_of(os.stat, path) is None, 60)
