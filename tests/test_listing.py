"""Listings: read by key, without a cap, right while rows come and go, cheap in memory, and worth a query for each page
only: what follows a listing needs none."""

import ctypes
import json
import os
import subprocess
import threading
import time

import pytest

from mount_tools import address, entries, folder_of, ids_in, metrics, opened, requests_of, run, wait_for

REGION, NUMBER, SHARD = 'oceania', 6, 3
MANY = 6000
FIRST = 50_000_003  # of ids that no sequence reaches during a run
ROWS_SQL = """INSERT INTO users (region, id, email, username, first_name, last_name, role, status)
              SELECT %(region)s, id, 'u' || id || '@listing.example.org', 'listing-' || id, 'Row ' || id, 'Of many',
                     'student', 'active'
              FROM unnest(%(ids)s::bigint[]) id"""


def insert(sql, ids):
    sql(REGION, ROWS_SQL, {'region': NUMBER, 'ids': list(ids)})


def delete(sql, ids):
    sql(REGION, 'DELETE FROM users WHERE region = %s AND id = ANY(%s)', (NUMBER, list(ids)))


def id_at(n):
    """The n-th of the ids of this module, all of them of the shard's own numbers; two of them leave room between."""
    return FIRST + 2000 * n


def name_of(row_id):
    return f'{row_id}.json'


@pytest.fixture(scope='module')
def many(sql):
    """The ids of thousands of users; the rows that a test takes away it puts back."""
    ids = [id_at(n) for n in range(MANY)]
    insert(sql, ids)
    yield ids
    sql(REGION, 'DELETE FROM users WHERE region = %s AND id >= %s', (NUMBER, FIRST))


@pytest.fixture
def folder(many, new_mount):
    """The folder with the many rows, in a mount that has seen nothing yet."""
    return folder_of(new_mount().directory, 'users', REGION)


@pytest.fixture
def small_pages(many, new_mount):
    """The same with ten rows a page, so that every few entries are a border."""
    return folder_of(new_mount(page_rows=10).directory, 'users', REGION)


def all_ids(sql):
    return [row_id for row_id, in sql(REGION, 'SELECT id FROM users WHERE region = %s ORDER BY id', (NUMBER,))]


# ---- complete, in order, each once

def test_a_listing_has_no_cap(folder, sql):
    assert ids_in(folder) == all_ids(sql)


def test_page_borders_lose_and_repeat_nothing(new_mount, many, sql):
    delete(sql, many[300:])
    try:
        for page_rows in (1, 2, 127, 128, 129, 10000):
            path = folder_of(new_mount(page_rows=page_rows).directory, 'users', REGION)
            assert ids_in(path) == all_ids(sql), page_rows
    finally:
        insert(sql, many[300:])


def test_a_listing_that_ends_with_a_page_ends(new_mount, sql, many):
    count = len(all_ids(sql))
    for page_rows in (count, count - 1, count + 1):
        path = folder_of(new_mount(page_rows=page_rows).directory, 'users', REGION)
        assert len(ids_in(path)) == count


@pytest.mark.parametrize('size', [48, 64, 100, 1000, 4096, 1 << 20])
def test_buffers_of_any_size(folder, size, many):
    with opened(folder) as listing:
        names = [entry.name for entry in (listing.read_all(size) if size >= 1000 else [
            entry for _ in range(50) for entry in listing.read(size)])]
    assert names[:2] == ['.', '..']
    assert len(names) == len(set(names))
    known = set(map(name_of, many))
    listed = [name for name in names if name in known]
    assert listed == [name_of(row_id) for row_id in many][:len(listed)]
    assert size < 1000 or len(listed) == MANY


def test_a_listing_tells_number_type_and_offset(folder):
    listed = entries(folder)
    for entry in listed[::37]:
        row_id = int(entry.name.removesuffix('.json'))
        assert (entry.ino, entry.type) == (address('users', REGION, row_id), 'file')
        assert os.stat(folder / entry.name).st_ino == entry.ino
    offsets = [entry.offset for entry in listed]
    assert offsets == sorted(set(offsets))


# ---- rows that come and go meanwhile

def test_rows_inserted_and_removed_during_a_slow_listing(small_pages, many, sql):
    """Between two reads rows go and come behind, just at, and ahead of the place that the listing has reached."""
    gone, fresh, seen = set(), set(), []
    with opened(small_pages) as listing:
        while found := listing.read(1500):
            seen += [entry.name for entry in found]
            if len(seen) < 3000:
                reached = int(found[-1].name.removesuffix('.json')) if found[-1].name.endswith('.json') else many[0]
                at = max(0, (reached - FIRST) // 2000)
                going = {many[i] for i in (at - 3, at, at + 1, at + 2, at + 25, at + 200) if 0 <= i < MANY} - gone
                coming = {id_at(i) + 1000 for i in (at - 2, at, at + 1, at + 30, at + 400) if 0 <= i < MANY} - fresh
                delete(sql, going)
                insert(sql, coming)
                gone |= going
                fresh |= coming
    try:
        assert len(gone) > 100 and len(fresh) > 100
        assert len(seen) == len(set(seen)), 'an entry is there twice'
        stayed = [name_of(row_id) for row_id in many if row_id not in gone]
        assert [name for name in seen if name in set(stayed)] == stayed
        assert ids_in(small_pages) == all_ids(sql)
    finally:
        delete(sql, fresh)
        insert(sql, gone)


def test_listings_beside_a_busy_writer(folder, many, sql, cluster):
    """Every tenth row is removed and inserted again all the time: the others are in every listing, once."""
    moving = many[::10]
    stop = threading.Event()

    def churn():
        with cluster.connect(REGION, options='-c search_path=campusfs,pg_catalog') as connection:
            with connection.cursor() as cursor:
                while not stop.is_set():
                    cursor.execute('DELETE FROM users WHERE region = %s AND id = ANY(%s)', (NUMBER, moving))
                    cursor.execute(ROWS_SQL, {'region': NUMBER, 'ids': moving})
        connection.close()
    writer = threading.Thread(target=churn)
    writer.start()
    try:
        stayed = [row_id for row_id in many if row_id not in set(moving)]
        for _ in range(4):
            listed = ids_in(folder)
            assert len(listed) == len(set(listed)) and listed == sorted(listed)
            assert [row_id for row_id in listed if row_id in set(stayed)] == stayed
    finally:
        stop.set()
        writer.join()


def test_rows_that_all_go_during_a_listing(new_mount, sql):
    root = new_mount().directory
    ids = [FIRST + 10_000_000 * 1000 + 1000 * n for n in range(400)]
    before = all_ids(sql)
    insert(sql, ids)
    path = folder_of(root, 'users', REGION)
    with opened(path) as listing:
        listing.read(200)
        delete(sql, ids)
        listing.read_all()
    assert wait_for(lambda: ids_in(path) == before, 30)


# ---- places in a listing

def test_every_offset_leads_to_what_follows_it(small_pages):
    with opened(small_pages) as listing:
        listed = listing.read_all()[:200]
        for i in (*range(0, 40), 41, 57, 99, 150, 3, 198, 0):
            listing.seek(listed[i].offset)
            assert listing.read(200)[0].name == listed[i + 1].name
        listing.seek(0)
        assert [entry.name for entry in listing.read(200)][:2] == ['.', '..']


def test_telldir_and_seekdir(small_pages):
    """As C programs see it: the place after each name leads there again, in any order."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.opendir.restype = libc.readdir.restype = ctypes.c_void_p
    libc.telldir.restype = ctypes.c_long
    folder = ctypes.c_void_p(libc.opendir(os.fsencode(small_pages)))

    def read():
        entry = libc.readdir(folder)
        return ctypes.string_at(entry + 19) if entry else None
    places = []
    for _ in range(500):
        places.append((libc.telldir(folder), read()))
    for place, name in places[::-7] + places[::13]:
        libc.seekdir(folder, ctypes.c_long(place))
        assert read() == name
    libc.rewinddir(folder)
    assert read() == b'.'
    libc.closedir(folder)


def test_the_place_of_a_removed_row_leads_to_the_next(small_pages, many, sql):
    gone = many[50:55]
    with opened(small_pages) as listing:
        places = {entry.name: entry.offset for entry in listing.read_all()}
        delete(sql, gone)
        try:
            for row_id in [many[49], *gone]:
                listing.seek(places[name_of(row_id)])
                assert listing.read(100)[0].name in (name_of(many[many.index(row_id) + 1]), name_of(many[55]))
            listing.seek(0)
            assert wait_for(lambda: name_of(gone[0]) not in {entry.name for entry in rewound(listing)}, 30)
        finally:
            insert(sql, gone)


def rewound(listing):
    listing.seek(0)
    return listing.read_all()


def test_a_listing_that_is_rewound_is_a_new_one(folder, many, sql):
    fresh = [FIRST + 1000]
    with opened(folder) as listing:
        assert name_of(fresh[0]) not in {entry.name for entry in listing.read_all()}
        insert(sql, fresh)
        try:
            assert wait_for(lambda: name_of(fresh[0]) in {entry.name for entry in rewound(listing)}, 30)
        finally:
            delete(sql, fresh)


def test_listings_of_one_folder_do_not_disturb_each_other(small_pages, many):
    with opened(small_pages) as first, opened(small_pages) as second:
        ahead = first.read(4000)
        start = second.read(500)
        assert [entry.name for entry in start] == [entry.name for entry in ahead][:len(start)]
        rest = [entry.name for entry in first.read_all()]
        rest_of_second = [entry.name for entry in second.read_all(700)]
    whole = [entry.name for entry in ahead] + rest
    assert [entry.name for entry in start] + rest_of_second == whole and len(whole) == len(set(whole)) > MANY


def test_scratch_names_follow_the_rows(folder, many):
    scratch = [f'.swap-{n}' for n in range(50)]
    for name in scratch:
        (folder / name).write_text('mine')
    names = [entry.name for entry in entries(folder)]
    assert names[-50:] == scratch and len(names) == len(set(names))
    with opened(folder) as listing:
        listed = listing.read_all(300)
        for i in range(len(listed) - 52, len(listed) - 1):
            listing.seek(listed[i].offset)
            assert listing.read(100)[0].name == listed[i + 1].name
    for name in scratch:
        (folder / name).unlink()
    assert len(entries(folder)) == len(names) - 50


# ---- what a listing costs

class Queries:
    """The statements that mounts have sent to a shard's nodes. A back end that ran none has not moved."""

    def __init__(self, cluster, region):
        self.connections = {node.name: cluster.connect(node) for node in cluster.nodes_of(region)}

    def close(self):
        for connection in self.connections.values():
            connection.close()

    def moved(self):
        """{(node, back end): (when it last did something, its last statement)} of the mounts' role."""
        found = {}
        for name, connection in self.connections.items():
            with connection.cursor() as cursor:
                cursor.execute("SELECT pid, state_change, query FROM pg_stat_activity WHERE usename = 'campusfs_rw'")
                found.update({(name, pid): (moment, query) for pid, moment, query in cursor})
        return found

    def between(self, before, after):
        """The statements for documents that ran between two looks. Others are asked a few times a second at most,
        whatever is read: has anything changed, when did the folder, what is a node's role."""
        return [query for key, (moment, query) in after.items()
                if before.get(key, (None,))[0] != moment and 'doc_' in query]


@pytest.fixture
def queries(cluster):
    look = Queries(cluster, REGION)
    yield look
    look.close()


def test_the_reads_after_a_listing_need_no_query(folder, queries, many):
    """ls -l, then the content of every row: the documents came with the pages."""
    root = folder.parents[2]
    assert len(run('ls', '-l', folder).stdout.splitlines()) > MANY
    misses, before = metrics(root)['campusfs_cache_misses_total'], queries.moved()
    contents = [(folder / name_of(row_id)).read_bytes() for row_id in many]
    statements = queries.between(before, queries.moved())
    assert [json.loads(text)['id'] for text in contents] == many
    assert metrics(root)['campusfs_cache_misses_total'] == misses
    assert statements == []


def test_the_counter_of_queries_counts(folder, queries, many):
    """The test above can fail: without a listing before, the same read is a query."""
    before = queries.moved()
    (folder / name_of(many[4321])).read_bytes()
    assert [query for query in queries.between(before, queries.moved()) if 'doc_users' in query]


def test_ls_l_asks_for_pages_not_for_files(folder):
    root = folder.parents[2]
    before = requests_of(root, 'lookup', 'getattr', 'readdir', 'open')
    assert len(run('ls', '-l', folder).stdout.splitlines()) > MANY
    after = requests_of(root, 'lookup', 'getattr', 'readdir', 'open')
    cost = {kind: after[kind] - before[kind] for kind in before}
    assert cost['lookup'] + cost['getattr'] < 25
    assert cost['readdir'] < MANY / 4


def test_each_page_goes_on_by_key(cluster, many, new_mount):
    """The nodes fetch each row about once. By OFFSET, pages of ten would make them fetch each some three hundred times.
    Back ends tell what they have fetched when they end, so the mount ends first."""
    connections = [cluster.connect(node) for node in cluster.nodes_of(REGION)]

    def fetched():
        total = 0
        for connection in connections:
            with connection.cursor() as cursor:
                cursor.execute("SELECT coalesce(sum(idx_tup_fetch) + sum(seq_tup_read), 0) FROM pg_stat_user_tables "
                               "WHERE relname = 'users'")
                total += int(cursor.fetchone()[0])
        return total
    before = fetched()
    mount = new_mount(page_rows=10)
    assert len(ids_in(folder_of(mount.directory, 'users', REGION))) >= MANY
    mount.stop()
    assert wait_for(lambda: fetched() - before >= MANY, 60, 0.05)
    assert fetched() - before < 40 * MANY
    for connection in connections:
        connection.close()


def test_rows_looked_up_by_name_are_remembered(many, new_mount):
    """Those that come one by one are kept as they are, ready to be opened, but only so many; the others are packed, so
    that a small cache holds them all."""
    mount = new_mount(cache_size='256kB')
    large = folder_of(mount.directory, 'users', REGION)
    some = many[::-15]
    sizes = [os.stat(large / name_of(row_id)).st_size for row_id in some]
    assert sum(sizes) > 0.8 * 256 * 1024
    before = metrics(mount.directory)
    assert before['campusfs_cache_documents'] >= len(some) and before['campusfs_cache_evictions_total'] == 0
    assert [len((large / name_of(row_id)).read_bytes()) for row_id in some] == sizes
    assert metrics(mount.directory)['campusfs_cache_misses_total'] == before['campusfs_cache_misses_total']


def test_the_beginning_of_a_listing_is_fast(folder):
    """`ls -U | head` reads the first page, not the folder."""
    root = folder.parents[2]
    with os.scandir(folder) as listing:
        assert len([next(listing) for _ in range(10)]) == 10
    assert metrics(root)['campusfs_cache_documents'] <= 700
    begun = time.monotonic()
    done = subprocess.run(f'ls -U {folder} | head -3', shell=True, capture_output=True, check=True, timeout=60)
    assert time.monotonic() - begun < 30 and done.stdout.count(b'\n') == 3


def resident_kb(mount):
    for line in open(f'/proc/{mount.pid()}/status'):
        if line.startswith('VmRSS:'):
            return int(line.split()[1])
    raise AssertionError('no VmRSS')


def test_memory_stays_flat(many, new_mount, sanitized):
    """The listing keeps a page, the cache its limit: sixty thousand entries more cost no memory that grows with them."""
    if sanitized:
        pytest.skip('AddressSanitizer keeps freed memory')
    mount = new_mount(cache_size='256kB', page_rows=100)
    large = folder_of(mount.directory, 'users', REGION)
    os.listdir(large)
    before = resident_kb(mount)
    for _ in range(10):
        assert len(os.listdir(large)) >= MANY
    assert resident_kb(mount) - before < 1536
    assert metrics(mount.directory)['campusfs_cache_bytes'] <= 256 * 1024


@pytest.mark.long
def test_memory_stays_flat_for_hundreds_of_thousands(new_mount, sql):
    ids = range(FIRST + 700_000_000, FIRST + 900_000_000, 1000)
    mount = new_mount()
    path = folder_of(mount.directory, 'users', REGION)
    os.listdir(folder_of(mount.directory, 'users', 'europe'))
    before = resident_kb(mount)
    try:
        insert(sql, ids)
        assert len(ids_in(path)) >= 200_000
        assert resident_kb(mount) - before < 32 * 1024 + 24 * 1024
    finally:
        delete(sql, ids)
