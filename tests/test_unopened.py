"""Who looks at a file that has changed elsewhere gets something of his own, in case he opens it. What it takes is no matter of
how many files are looked at: stat() takes nothing, and of what access() or touch are given only the newest keep texts."""

import json
import os

import pytest

from conftest import region_number
from media_tools import bucket, course  # noqa: F401
from mount_tools import folder_of, metrics, requests_of, wait_for

REGION = 'asia'
FIRST = 60_000_004  # of ids that no sequence reaches during a run
MANY = 150
LONG = '\U0001D11E' * 10_000  # the longest text about oneself: 40 KB
LIMIT_BYTES, LIMIT_DRAFTS = 4 << 20, 1024
SEEN = 60  # seconds: a change made elsewhere is seen by then, on a busy machine


@pytest.fixture(scope='module')
def many(sql, replayed):
    """The ids of users with long documents, more than may be kept."""
    ids = [FIRST + 2000 * n for n in range(MANY)]
    sql(REGION, """INSERT INTO users (region, id, email, username, first_name, last_name, role, status)
                   SELECT %s, id, 'u' || id || '@unopened.example.org', 'unopened-' || id, 'Name', 'Of many', 'student', 'active'
                   FROM unnest(%s::bigint[]) id""", (region_number(REGION), ids))
    sql(REGION, 'INSERT INTO user_profiles (region, user_id, bio) SELECT %s, id, %s FROM unnest(%s::bigint[]) id',
        (region_number(REGION), LONG, ids))
    replayed(REGION)
    yield ids
    sql(REGION, 'DELETE FROM users WHERE region = %s AND id = ANY(%s)', (region_number(REGION), ids))


class Folder:
    """The files of the many in a mount that knows all of them."""

    def __init__(self, root, ids, sql):
        self.root, self.sql, self.ids = root, sql, ids
        self.paths = [folder_of(root, 'users', REGION) / f'{row_id}.json' for row_id in ids]
        self.changes = 0
        for path in self.paths:
            path.stat()

    def change(self):
        """All of them at once, elsewhere; the last one is seen by then."""
        self.changes += 1
        size = self.paths[-1].stat().st_size
        self.sql(REGION, 'UPDATE users SET first_name = first_name || %s WHERE region = %s AND id = ANY(%s)',
                 ('x', region_number(REGION), self.ids))
        assert wait_for(lambda: self.paths[-1].stat().st_size == size + 1, SEEN)

    def ask(self):
        """Whether all may be written, until that was answered with more texts than are kept."""
        def enough():
            assert all(os.access(path, os.W_OK) for path in self.paths)
            return self.kept()[1] > LIMIT_BYTES - 100_000
        assert wait_for(enough, SEEN)

    def kept(self):
        shown = metrics(self.root)
        return shown['campusfs_unopened_drafts'], shown['campusfs_unopened_bytes']


@pytest.fixture
def folder(many, new_mount, sql):
    return Folder(new_mount().directory, many, sql)


def test_stat_keeps_nothing(folder):
    """And is believed as any other: the second look at what has changed asks nothing."""
    folder.change()
    size = folder.paths[-1].stat().st_size
    for path in folder.paths:
        assert wait_for(lambda path=path: path.stat().st_size == size, SEEN)
    assert folder.kept() == (0, 0)
    before = requests_of(folder.root, 'lookup', 'getattr')
    for path in folder.paths:
        assert path.stat().st_size == size
    after = requests_of(folder.root, 'lookup', 'getattr')
    assert sum(after.values()) - sum(before.values()) < MANY // 2, 'but for the way to the metrics'


def test_the_texts_of_what_nobody_opens_are_bounded(folder):
    folder.change()
    folder.ask()
    drafts, size = folder.kept()
    assert drafts < MANY and size <= LIMIT_BYTES


def test_what_has_given_its_text_back_is_the_row(folder, sql):
    """By a descriptor that has nothing open, since under its name everybody finds something new."""
    folder.change()
    path = folder.paths[0]
    assert wait_for(lambda: os.access(path, os.W_OK) and folder.kept()[0] > 0, SEEN)
    held = os.open(path, os.O_PATH)
    link = f'/proc/self/fd/{held}'
    try:
        folder.ask()
        for _ in range(2):
            text = path.read_bytes()
            assert os.fstat(held).st_size == os.stat(link).st_size == len(text)
            fd = os.open(link, os.O_RDONLY)
            assert os.read(fd, 2 * len(text)) == text
            os.close(fd)
            folder.change()
        assert wait_for(lambda: path.stat().st_size == len(text) + 1, SEEN)
        os.utime(link, ns=(0, 1_600_000_000_000_001_000))
        assert wait_for(lambda: path.stat().st_mtime_ns == 1_600_000_000_000_001_000, SEEN)
        text = path.read_text().replace('"Of many"', '"Of one"')
        fd = os.open(link, os.O_RDWR | os.O_TRUNC)
        os.write(fd, text.encode())
        os.close(fd)
        assert sql(REGION, 'SELECT last_name FROM users WHERE region = %s AND id = %s',
                   (region_number(REGION), folder.ids[0])) == [('Of one',)]
        with pytest.raises(OSError, match='Invalid argument'):
            os.truncate(link, 10)
    finally:
        os.close(held)
    assert path.read_text().count('"Of one"') == 1


def test_what_is_known_of_media_is_bounded_too(mnt, course):
    """Each look at such a document makes a text."""
    (course.folder / 'film').write_bytes(b'0123456789')
    path = course.folder / '.meta' / 'film.json'
    held = os.open(path, os.O_PATH)
    try:
        for _ in range(LIMIT_DRAFTS + 100):
            path.stat()
        shown = metrics(mnt)
        assert shown['campusfs_unopened_drafts'] == LIMIT_DRAFTS and shown['campusfs_unopened_bytes'] <= LIMIT_BYTES
        fd = os.open(f'/proc/self/fd/{held}', os.O_RDONLY)
        assert json.loads(os.read(fd, 10_000)) == json.loads(path.read_bytes())
        os.close(fd)
    finally:
        os.close(held)
