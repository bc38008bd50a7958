"""Many at once: readers of rows under change see whole documents, writers lose no update, nobody waits for
strangers."""

import errno
import json
import os
import subprocess
import sys
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import pytest

from mount_tools import errno_of
from saving import Actor, edited, errors, eventually, fails, last_error, refused, set_by_sql, sh, trace

SECONDS = 6  # of readers beside writers

# The processes of the tests. Each repeats one thing until a time, but ten times at least, and prints how often it did it,
# and what was wrong.
# A whole document is one whose last_name is the number of letters of first_name, and whose bytes are as many as told.
LOOP = '''
import json, os, subprocess, sys, tempfile, time
path, end, number = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
def judge(text):
    document = json.loads(text)
    if not text.endswith(b'}\\n') or len(document['first_name']) != int(document['last_name']):
        raise ValueError(text)
def run(*command):
    done = subprocess.run(command, capture_output=True)
    if done.returncode or done.stderr:
        raise ValueError(done.stderr)
    return done.stdout
def changed():
    document = json.loads(open(path, 'rb').read())
    n = (int(document['last_name']) * 31 + number) % 97 + 1
    del document['updated_at']
    return json.dumps({**document, 'first_name': 'x' * n, 'last_name': str(n)}).encode()
count, wrong = 0, []
folder = tempfile.mkdtemp()
while (time.time() < end or count < 10) and len(wrong) < 5:
    try:
        STEP
        count += 1
    except Exception as error:
        wrong.append(repr(error)[:500])
print(json.dumps([count, wrong]))
'''
READERS = {
    'read': '''fd = os.open(path, os.O_RDONLY)
        size = os.fstat(fd).st_size
        text = os.read(fd, 1 << 20)
        again = os.pread(fd, 1 << 20, 0)
        after = os.fstat(fd).st_size
        os.close(fd)
        if not size == len(text) == after or text != again: raise ValueError([size, len(text), after, text, again])
        judge(text)''',
    'mmap': '''import mmap
        with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped: judge(mapped[:])''',
    'stat': '''status = os.stat(path)
        os.listdir(os.path.dirname(path)) if count % 50 == 0 else None
        if status.st_size < 300: raise ValueError(status)''',
    'cat': '''judge(run('cat', path))''',
    'tar': '''import io, tarfile
        archive = run('tar', '-C', os.path.dirname(path), '-cf', '-', os.path.basename(path))
        judge(tarfile.open(fileobj=io.BytesIO(archive)).extractfile(os.path.basename(path)).read())''',
    'rsync': '''run('rsync', '-a', path, folder + '/copy')
        judge(open(folder + '/copy', 'rb').read())''',
    'cp': '''run('cp', '-p', path, folder + '/copy')
        judge(open(folder + '/copy', 'rb').read())''',
}
WRITERS = {
    'close': '''text = changed()
        with open(path, 'wb') as file: file.write(text)''',
    'rename': '''with open(f'{path}.{number}.tmp', 'wb') as file: file.write(changed())
        os.rename(file.name, path)''',
    'in place': '''text = changed()
        fd = os.open(path, os.O_RDWR)
        os.pwrite(fd, text, 0)
        os.ftruncate(fd, len(text))
        os.fsync(fd)
        os.close(fd)''',
    'sed': '''edit = f's/"bio": .*,/"bio": "{count}",/'
        done = subprocess.run(['sed', '-i', edit, path], capture_output=True, text=True)
        if done.returncode and 'canceled' not in done.stderr: raise ValueError(done.stderr)''',
}


def loop(step, path, seconds, number=0):
    command = [sys.executable, '-c', LOOP.replace('STEP', step), path, str(time.time() + seconds), str(number)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def outcome(process):
    return json.loads(process.communicate(timeout=60)[0])


@pytest.fixture
def churn(sql):
    """churn(row): another client that changes the row by SQL all the time, until the test ends."""
    stop, threads = threading.Event(), []

    def start(row):
        def change():
            n = 0
            while not stop.wait(0.004):
                n = n % 90 + 7
                set_by_sql(sql, row, first_name='y' * n, last_name=str(n))
        threads.append(threading.Thread(target=change))
        threads[-1].start()
    yield start
    stop.set()
    for thread in threads:
        thread.join()


# ---- readers beside writers

def test_no_reader_sees_a_torn_document(mnt, new_mount, new_user, churn):
    """cat, tar, rsync and others read one row that is saved, renamed over and changed by SQL: nothing torn, cut or
    padded, and no error, here and on another mount."""
    row = new_user(first_name='abc', last_name='3')
    other = new_mount().directory / row.path.relative_to(mnt)
    churn(row)
    running = {name: loop(step, row.path, SECONDS) for name, step in READERS.items()}
    running['cat, other mount'] = loop(READERS['cat'], other, SECONDS)
    for number, name in enumerate(('close', 'rename', 'in place')):
        running[name] = loop(WRITERS[name], row.path, SECONDS, number)
    outcomes = {name: outcome(process) for name, process in running.items()}
    assert {name: wrong for name, (_, wrong) in outcomes.items() if wrong} == {}
    assert all(count >= 10 for count, _ in outcomes.values()), outcomes


def test_an_editor_of_a_changing_row_never_sees_estale(mnt, new_user, churn):
    """sed -i reads, writes and renames while the row changes every few ms: it saves, or is told of a conflict."""
    row = new_user(first_name='abc', last_name='3')
    churn(row)
    count, wrong = outcome(loop(WRITERS['sed'], row.path, 3))
    assert not wrong and count >= 10


def test_a_listing_beside_writers_has_everybody_once(mnt, new_user, tmp_path):
    """Rows that come and go make no other entry vanish or appear twice."""
    rows = {new_user('oceania').path.name for _ in range(30)}
    folder = mnt / 'regions/oceania/users'
    script = '''while [ -e "$2" ]; do
        printf '{"email": "%s@example.org", "username": "%s", "first_name": "x"}' $$ $$ > "$1/new.json" || exit 1
        rm "$1/$(grep -l "\\"username\\": \\"$$\\"" "$1"/*.json | head -n 1 | sed 's|.*/||')" || exit 1; done'''
    (tmp_path / 'go on').touch()
    writer = subprocess.Popen(['sh', '-c', script, 'sh', folder, tmp_path / 'go on'], stderr=subprocess.PIPE)
    listings, begun = [], time.monotonic()

    def seen_enough():
        seconds = time.monotonic() - begun
        return seconds > 60 or seconds > 2 and len(listings) > 10 and len({len(names) for names in listings}) > 1
    try:
        while not seen_enough():
            listings.append(os.listdir(folder))
    finally:
        (tmp_path / 'go on').unlink()
        said = writer.communicate(timeout=60)[1]
    assert writer.returncode == 0, said
    assert len({len(names) for names in listings}) > 1, 'something came and went'
    for names in listings:
        assert len(names) == len(set(names)) and rows <= set(names)


# ---- writers

def test_many_writers_on_many_rows(mnt, new_user, sql, tmp_path):
    """Each save is one transaction, whatever the others do."""
    rows = [new_user() for _ in range(12)]
    before = [trace(sql, row) for row in rows]
    script = '''jq "del(.updated_at)" "$1" > "$2"
        for i in 1 2 3; do sed "s/Ada/Number $i/" "$2" > "$1" || exit 1
        sed "s/Ada/Renamed $i/" "$2" > "$1.tmp" && mv "$1.tmp" "$1" || exit 1; done'''
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda row: sh(script, row.path, tmp_path / row.path.name), rows))
    after = [trace(sql, row) for row in rows]
    assert {now.document['first_name'] for now in after} == {'Renamed 3'}
    assert {row.json()['first_name'] for row in rows} == {'Renamed 3'}
    assert [now.changes - was.changes for was, now in zip(before, after)] == [6] * 12
    assert after[-1].requests - before[0].requests == 72


INCREMENT = '''
import json, os, sys, time
path, times, way = sys.argv[1], int(sys.argv[2]), sys.argv[3]
conflicts = 0
while times:
    document = json.load(open(path))
    document['profile']['bio'] = f"{int(document['profile']['bio'].split()[0]) + 1} by {os.getpid()}"
    name = path if way == 'close' else f'{path}.{os.getpid()}'
    try:
        with open(name, 'w') as file:
            json.dump(document, file)
        if way == 'rename':
            os.rename(name, path)
        times -= 1
    except OSError as error:
        if error.errno != 125:  # ECANCELED
            raise
        conflicts += 1
        time.sleep(0.01)
print(conflicts)
'''


def increments(paths, times, ways=('close', 'rename')):
    """Starts a process for each path and way, all counting up in profile.bio; returns their conflicts."""
    processes = [subprocess.Popen([sys.executable, '-c', INCREMENT, path, str(times), way], stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True) for path in paths for way in ways]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), outputs
    return sum(int(output) for output, _ in outputs)


def test_no_update_is_lost(mnt, new_user, sql):
    """Read, add one, save, again when told of a conflict: the sum is exact. (Equal documents would be no conflict.)"""
    row = new_user(profile={'bio': '0'})
    added = conflicts = 0
    while not conflicts and added < 10 * 48:  # until they have met
        conflicts += increments([row.path] * 2, 12)
        added += 48
        assert trace(sql, row).document['profile']['bio'].split()[0] == str(added) == row.json()['profile']['bio'].split()[0]
    assert conflicts > 0, 'they did meet'


def test_no_update_is_lost_between_mounts(mnt, new_mount, new_user, sql):
    """A mount may show the other's save up to a second late, but cannot undo it."""
    row = new_user(profile={'bio': '0'})
    other = new_mount().directory / row.path.relative_to(mnt)
    increments([row.path, other], 3, ways=['close'])
    assert trace(sql, row).document['profile']['bio'].split()[0] == '6'


@pytest.mark.parametrize('way', ['close', 'rename', 'fsync'])
def test_of_two_writers_one_wins_and_the_other_is_told(mnt, new_user, sql, way):
    with Actor() as one, Actor() as two, ThreadPoolExecutor(2) as pool:
        for _ in range(8):
            row = new_user()
            texts = [edited(row, first_name=name) for name in ('One', 'Two')]
            fds = [actor.open(row.path.with_name(f'{n}.tmp') if way == 'rename' else row.path,
                              os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for n, actor in enumerate((one, two))]

            def save(n, actor):
                try:
                    actor.write(fds[n], texts[n])
                    if way == 'fsync':
                        actor.fsync(fds[n])
                    actor.close(fds[n])
                    if way == 'rename':
                        actor.rename(row.path.with_name(f'{n}.tmp'), str(row.path))
                    return 0
                except OSError as error:
                    return error.errno
            codes = list(pool.map(save, (0, 1), (one, two)))
            assert sorted(codes) == [0, errno.ECANCELED]
            assert trace(sql, row).document['first_name'] == ('One', 'Two')[codes.index(0)] == row.json()['first_name']
            if way == 'rename':  # the loser's text is still under its own name, too
                row.path.with_name(f'{codes.index(errno.ECANCELED)}.tmp').unlink()
            kept = [json.loads(path.read_text())['first_name'] for path in refused(row).parent.glob(f'{row.id}.json*')
                    if not path.name.endswith('.error')]
            assert kept == [('Two', 'One')[codes.index(0)]]


def test_without_updated_at_the_last_one_wins(mnt, new_user, sql):
    row = new_user()
    before = trace(sql, row)
    with Actor() as one, Actor() as two, ThreadPoolExecutor(2) as pool:
        texts = [edited(row, first_name=name, updated_at=...) for name in ('One', 'Two')]
        list(pool.map(lambda actor, text: [actor.save(row.path, text) for _ in range(5)], (one, two), texts))
    after = trace(sql, row)
    assert after.document['first_name'] in ('One', 'Two') and after.updated_us > before.updated_us
    assert row.json()['first_name'] == after.document['first_name']


def test_no_deadlock_between_a_course_and_what_refers_to_it(mnt, new_course, new_review, sql):
    """Reviews move the rating of the course that is being saved itself."""
    course = new_course()
    reviews = [new_review(course_id=course.id, user_id=user) for user in
               [row.document['user_id'] for row in (new_review() for _ in range(4))]]
    script = '''for i in 1 2 3 4 5; do for r in 1 5; do sed -i "s/\\"$2\\": [0-9.]*/\\"$2\\": $r/" "$1" || exit 1
        done; done'''
    told = len(errors(mnt))
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(lambda row: sh(script, row.path, 'rating'), reviews))
        pool.submit(sh, script, course.path, 'price').result()
    eventually(lambda: (course.json()['average_rating'], course.json()['rating_count']) == (5, 4))
    assert sql('europe', 'SELECT rating_sum, rating_count FROM courses WHERE id = %s', [course.id]) == [(20, 4)]
    assert len(errors(mnt)) == told


# ---- nobody waits for strangers

class Lock:
    """A transaction of another client that holds a lock until the block ends."""

    def __init__(self, cluster, region, statement):
        self.connection = cluster.connect(region, options='-c search_path=campusfs,pg_catalog')
        self.connection.autocommit = False
        self.statement = statement

    def __enter__(self):
        self.connection.cursor().execute(self.statement)

    def __exit__(self, *_):
        self.connection.rollback()
        self.connection.close()


def test_a_blocked_region_does_not_stop_others(mnt, cluster, new_mount, new_user, sql):
    """More readers than the pool has connections wait in Europe; Asia lists, reads and saves as ever."""
    asian, european = new_user('asia'), new_user()
    mount = new_mount(cache_ttl='0ms', timeout='30s').directory
    there = [mount / row.path.relative_to(mnt) for row in (asian, european)]
    with Lock(cluster, 'europe', 'LOCK TABLE users IN ACCESS EXCLUSIVE MODE'):
        sql('europe', "SELECT pg_logical_emit_message(true, 'test', 'a commit sends the lock to the replica')")
        locks = "SELECT 1 FROM pg_locks WHERE mode = 'AccessExclusiveLock'"
        eventually(lambda: sql(cluster.replica('europe').name, locks))
        blocked = [subprocess.Popen(['cat', there[1]], stdout=subprocess.PIPE) for _ in range(20)]
        blocked.append(subprocess.Popen(['ls', '-l', there[1].parent], stdout=subprocess.PIPE))
        start = time.monotonic()
        for _ in range(3):
            assert asian.path.name in sh('ls -l "$1"', there[0].parent).stdout
            sh('sed -i "s/\\"first_name\\": .*/\\"first_name\\": \\"Mei\\",/" "$1"; cat "$1"; ls "$2"', there[0], mount)
        assert time.monotonic() - start < 25, 'the wait for Europe has no end before 30 s'
        assert all(process.poll() is None for process in blocked), 'they do wait'
    for process in blocked:
        output = process.communicate(timeout=60)[0]
        assert process.returncode == 0 and (b'"Ada"' in output or european.path.name.encode() in output)
    assert asian.json()['first_name'] == 'Mei'


def test_a_locked_row_stops_only_its_writers(mnt, cluster, new_user, sql):
    row, neighbour = new_user(), new_user()
    text = edited(row, first_name='Waited')
    with ThreadPoolExecutor(1) as pool, Actor() as writer:
        with Lock(cluster, 'europe', f'SELECT FROM users WHERE id = {row.id} FOR UPDATE'):
            saving = pool.submit(writer.save, row.path, text)
            eventually(lambda: sql('europe', "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
                                             "AND usename = 'campusfs_rw'")[0][0])
            assert row.json()['first_name'] == 'Ada'
            neighbour.path.write_text(edited(neighbour, first_name='Quick'))
            assert row.path.name in os.listdir(row.path.parent) and not saving.done()
        saving.result(timeout=60)
    assert row.json()['first_name'] == 'Waited' == trace(sql, row).document['first_name']


def test_a_rename_that_waits_stops_only_its_folder(mnt, cluster, new_user, new_course, sql):
    """The kernel keeps the folder's lock for as long as a rename in it takes, commit included; the mount keeps none.
    Meanwhile rows whose names the kernel knows are read, other folders of the shard are listed and written to, and what
    waits for the folder goes on afterwards."""
    row, neighbour, reader, course, african = new_user(), new_user(), new_user(), new_course(), new_user('africa')
    for known in (row, neighbour, reader):
        known.read()
    temporary = row.path.with_name(f'.{row.id}.tmp')
    temporary.write_text(edited(row, first_name='Waited'))
    with ThreadPoolExecutor(3) as pool:
        with Lock(cluster, 'europe', f'SELECT FROM users WHERE id = {row.id} FOR UPDATE'):
            renaming = pool.submit(temporary.rename, row.path)
            eventually(lambda: sql('europe', "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
                                             "AND usename = 'campusfs_rw'")[0][0])
            listing = pool.submit(os.listdir, row.path.parent)
            saving = pool.submit(neighbour.path.write_text, edited(neighbour, first_name='Behind it'))
            # Not the neighbour: who begins to save looks its name up again, and from then on has to wait.
            assert [known.json()['first_name'] for known in (row, reader)] == ['Ada', 'Ada']
            course.path.write_text(edited(course, title='Beside it'))
            sh('sed -i "s/\\"first_name\\": .*/\\"first_name\\": \\"Mei\\",/" "$1"', african.path)
            for other in (course, african):
                assert other.path.name in os.listdir(other.path.parent)
            assert not renaming.done()
        renaming.result(timeout=60)
        saving.result(timeout=60)
        assert row.path.name in listing.result(timeout=60)
    assert trace(sql, course).document['title'] == 'Beside it' and african.json()['first_name'] == 'Mei'
    for saved, name in ((row, 'Waited'), (neighbour, 'Behind it')):
        assert saved.json()['first_name'] == name == trace(sql, saved).document['first_name']


def test_a_save_that_waits_too_long_is_given_up(mnt, cluster, new_mount, new_user, sql):
    row = new_user()
    before, text = trace(sql, row), edited(row, first_name='Too slow')
    path = new_mount(timeout='700ms').directory / row.path.relative_to(mnt)
    with Lock(cluster, 'europe', f'SELECT FROM users WHERE id = {row.id} FOR UPDATE'):
        start = time.monotonic()
        with fails(errno.ETIMEDOUT):
            path.write_text(text)
        assert time.monotonic() - start < 30
    assert trace(sql, row) == before and path.read_bytes() == row.read()
    assert (path.parent / '.refused' / path.name).read_text() == text
    path.write_text(text)
    assert trace(sql, row).document['first_name'] == 'Too slow'


@contextmanager
def saving_behind(cluster, sql, row, statement, **fields):
    """A save that waits for somebody's lock; yields (its future, the connection of the lock's holder)."""
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND usename = 'campusfs_rw' AND query LIKE %s"
    where = row.region or 'asia'
    text = edited(row, **fields)
    with ThreadPoolExecutor(1) as pool, closing(cluster.connect(where, options='-c search_path=campusfs,pg_catalog')) as other:
        other.autocommit = False
        other.cursor().execute(statement)
        future = pool.submit(errno_of, row.path.write_text, text)
        eventually(lambda: sql(where, waiting, (f'%put%_{row.collection}%',)))
        yield future, other


def test_a_save_beside_a_delete_makes_no_row_again(mnt, cluster, new_user, sql):
    """Whose row has been seen, and goes before it can be locked."""
    row = new_user()
    delete = f"SELECT delete_users(3::smallint, {row.id}, gen_random_uuid(), 'somebody else')"
    with saving_behind(cluster, sql, row, delete, first_name='Grace') as (saving, deleter):
        deleter.commit()
        assert saving.result(60) == 'ECANCELED'
    assert trace(sql, row) is None and not row.path.exists()
    assert last_error(mnt, row)['message'] == 'the row was deleted since it was read'
    assert '"Grace"' in refused(row).read_text()


def test_a_category_deleted_while_its_copies_are_saved_stays_so(mnt, cluster, new_category, sql):
    row = new_category()
    delete = f"SELECT delete_categories(0::smallint, {row.id}, gen_random_uuid(), 'somebody else')"
    try:
        with saving_behind(cluster, sql, row, f'SELECT FROM course_categories WHERE id = {row.id} FOR UPDATE',
                           description='Saved too late') as (saving, holder):
            sql('americas', delete)
            holder.rollback()
            assert saving.result(60) == 'ECANCELED'
        assert trace(sql, row) is None and not row.path.exists()
    finally:
        for shard in ('emea', 'apac'):
            sql(shard, delete)


# ---- who sees a save, and when

@pytest.mark.parametrize('way', ['cat "$2" > "$1"', 'cp "$2" "$1"', 'cat "$2" > "$1.tmp" && mv "$1.tmp" "$1"',
                                 'sed -i "s/\\"first_name\\": .*/\\"first_name\\": \\"$3\\",/" "$1"'])
def test_a_save_is_seen_at_once_on_its_mount(mnt, new_user, tmp_path, way):
    """By other processes that had the old one in their caches: names, sizes, times and contents."""
    row = new_user()
    look = 'stat -c %s "$1"; ls -l "$1" | cut -d" " -f5; wc -c < "$1"; cat "$1"; ls "${1%/*}" | grep -c "^${1##*/}$"'
    for n in range(8):
        eventually(lambda: sh(look, row.path, check=False).returncode == 0)
        name = 'n' * (n * 13 % 17 + 1)
        (tmp_path / 'new').write_text(edited(row, first_name=name, updated_at=...))
        sh(way, row.path, tmp_path / 'new', name)
        *sizes, text = sh(look, row.path).stdout.split('\n', 3)
        assert json.loads(text.rsplit('\n', 2)[0])['first_name'] == name and text.endswith('}\n1\n')
        assert sizes == [str(len(text) - 2)] * 3


def test_a_save_is_seen_within_a_second_on_another_mount(mnt, new_mount, new_user, sql, unique):
    row = new_user()
    other = new_mount().directory / row.path.relative_to(mnt)
    look = 'cat "$1"; ls -l "${1%/*}"; stat -c %s "$1"'
    sh(look, other)

    def seen_after(change, seen):
        """Seconds between the end of the change and the moment that the other mount shows it."""
        change()
        start = time.monotonic()
        eventually(seen, 30)
        return time.monotonic() - start

    def shows(name):
        return lambda: json.loads(other.read_bytes())['first_name'] == name and \
            other.stat().st_size == len(other.read_bytes()) == len(row.read())
    born = row.path.with_name('.next-id').read_text().strip() + '.json'
    person = {'email': f'{unique()}@example.org', 'username': unique(), 'first_name': 'New'}
    times = [seen_after(lambda: row.path.write_text(edited(row, first_name='Saved')), shows('Saved')),
             seen_after(lambda: set_by_sql(sql, row, first_name='By SQL'), lambda: b'"By SQL"' in other.read_bytes()),
             seen_after(lambda: row.path.with_name(born).write_text(json.dumps(person)),
                        lambda: born in os.listdir(other.parent) and b'"New"' in other.with_name(born).read_bytes()),
             seen_after(row.path.unlink, lambda: not other.exists() and other.name not in os.listdir(other.parent))]
    assert all(seconds < 10 for seconds in times), times  # one, and what a busy machine takes


def test_tar_of_a_folder_under_change_is_whole(mnt, new_user, churn, tmp_path):
    """A backup beside writers: every member parses, and tar has nothing to complain of."""
    rows = [new_user('africa', first_name='abc', last_name='3') for _ in range(8)]
    for row in rows[:3]:
        churn(row)
    writers = [loop(WRITERS[name], rows[3 + number].path, 3, number) for number, name in enumerate(('close', 'rename'))]
    script = 'tar -C "$1" --exclude="*.tmp" -cf "$2" .; rsync -a --exclude="*.tmp" "$1/" "$3"'
    while any(writer.poll() is None for writer in writers):
        told = sh(script, rows[0].path.parent, tmp_path / 'a.tar', tmp_path / 'copy').stderr
        assert told in ('', 'tar: .: file changed as we read it\n'), 'but for the time of the folder itself'
        with tarfile.open(tmp_path / 'a.tar') as archive:
            documents = [json.load(archive.extractfile(f'./{row.path.name}')) for row in rows]
        documents += [json.loads((tmp_path / 'copy' / row.path.name).read_text()) for row in rows]
        assert all(len(document['first_name']) == int(document['last_name']) for document in documents)
    assert [outcome(writer)[1] for writer in writers] == [[], []]
