"""What writers were told, against what the servers have: the books of test_ledger.py.

Each writer has a mount, a row of its own that it saves again and again, numbered, and new rows that it appends, under ids of
its own or of the database's choice. It notes
what became of each: 'saved' (acknowledged), 'refused' (never to be seen), 'unknown' (may be there, once). After each save
it reads its own row, and those of others, through its mount; what it may see follows from the books.
"""

import errno
import json
import os
import random
import threading
import time

from mount_tools import metrics
from shards import first_name, new_user, path_of

SLACK = 10           # seconds beyond the configured timeout that a system call may take on a busy machine
SEEN_BOUND = 10      # until both mounts show what is there after everything is healed; the promise is one second
CONDITION = 60       # for everything else that must come
GONE = {'ENOTCONN', 'ECONNABORTED', 'ENODEV'}  # there is no daemon
NOT_SAVED = {'EROFS', 'EAGAIN', 'ENOSPC'}
NOT_KNOWN = {'EIO', 'ETIMEDOUT', *GONE}
NOT_READ = {'EIO', 'ETIMEDOUT', *GONE}


class Broken(AssertionError):
    """A promise that was not kept."""


class Books:
    """Of all writers together; every writer and every check notes here."""

    def __init__(self, timeout):
        self.longest_allowed = timeout + SLACK
        self.lock = threading.Condition()
        self.broken = []
        self.operations = 0          # ended, however
        self.saved = self.refused = self.unknown = self.not_read = 0
        self.longest = (0, '')
        self.faulty = False          # something is broken on purpose, or not known to be mended yet
        self.clean_since = time.monotonic()
        self.rows_faulty, self.rows_clean_since = self.faulty, self.clean_since  # and rows may notice
        self.seen = []               # seconds from a commit by SQL until a mount showed it
        self.healed = []             # seconds until both mounts showed everything

    def accuse(self, what):
        with self.lock:
            self.broken.append(what)
            self.lock.notify_all()

    def count(self, what):
        with self.lock:
            setattr(self, what, getattr(self, what) + 1)

    def ended(self):
        with self.lock:
            self.operations += 1
            self.lock.notify_all()

    def wait_operations(self, n, timeout=CONDITION):
        """Until so many more have ended, or something is broken."""
        with self.lock:
            end = self.operations + n
            return self.lock.wait_for(lambda: self.operations >= end or self.broken, timeout)

    def set_faulty(self, faulty, rows=True):
        """rows=False: it is nothing that rows may notice."""
        with self.lock:
            self.faulty, self.clean_since = faulty, time.monotonic()
            if self.rows_faulty or (faulty and rows):
                self.rows_faulty, self.rows_clean_since = self.faulty, self.clean_since

    def excuses(self, begun, rows):
        """Whether something may have failed that began then, and has to do with rows alone or with more."""
        with self.lock:
            return self.rows_faulty or begun < self.rows_clean_since if rows else self.faulty or begun < self.clean_since

    def timed(self, what, call, *arguments):
        """A system call on a mount: its result, and its duration is looked at."""
        begun = time.monotonic()
        try:
            return call(*arguments)
        finally:
            took = time.monotonic() - begun
            if took > self.longest[0]:
                self.longest = (took, what)
            if took > self.longest_allowed:
                self.accuse(f'{what} took {took:.1f} s, allowed are {self.longest_allowed}')


class Numbered:
    """What became of the saves of one row: the n-th writes `mark(n)`."""

    def __init__(self, name):
        self.name = name
        self.fate = {0: 'saved'}
        self.last_saved = 0
        self.last = 0

    def mark(self, n):
        return f'{self.name}-{n}'

    def number(self, mark):
        name, _, n = mark.rpartition('-')
        if name != self.name:
            raise Broken(f'the row of {self.name} shows {mark!r}')
        return int(n)

    def note(self, n, fate):
        self.fate[n] = fate
        if fate == 'saved':
            self.last_saved = n

    def unknown_since(self, n):
        return [m for m in range(n + 1, self.last + 1) if self.fate.get(m, 'unknown') == 'unknown']

    def fault_of(self, n, floor):
        """What is wrong with the row having its n-th save, when `floor` was acknowledged before; None when nothing is."""
        if n > self.last:
            return 'was never written'
        if n < floor:
            return f'is older than {floor}, which was saved'
        if self.fate.get(n) == 'refused':
            return 'was refused'
        return None


class Station:
    """A mount under test, which may be killed and made anew."""

    def __init__(self, name, start, serves_stale):
        self.name, self._start, self.serves_stale = name, start, serves_stale
        self.generation = 0  # odd while there is no daemon
        self.up = threading.Event()
        self.up.set()
        self.mount = start()
        self.rest = None  # what it has open when nothing happens

    @property
    def directory(self):
        return self.mount.directory

    def restart(self):
        """SIGKILL, and a new daemon on the same place."""
        self.up.clear()
        self.generation += 1
        self.mount.kill()
        self.mount.start(foreground=True)
        self.generation += 1
        self.up.set()

    def was_away(self, generation):
        """Whether there was no daemon, or another one, at some time since that was its generation."""
        return generation % 2 == 1 or generation != self.generation

    def stale_reads(self):
        try:
            return metrics(self.directory)['campusfs_stale_reads_total{shard="emea"}'] if self.serves_stale else 0
        except (OSError, KeyError):
            return -1

    def possessions(self):
        pid = self.mount.pid()
        return {'descriptors': len(os.listdir(f'/proc/{pid}/fd')), 'threads': len(os.listdir(f'/proc/{pid}/task'))}


class Writer(threading.Thread):
    """Saves, appends and reads through one station until it is told to stop; pauses while the gate is closed."""

    rows_alone = True  # what it does has nothing to do with MongoDB

    def __init__(self, name, world, station, seed):
        super().__init__(daemon=True, name=name)
        self.world, self.books, self.station = world, world.books, station
        self.random = random.Random(f'{seed}/{name}')
        self.row = Numbered(name)
        self.row_id = new_user(world.cluster, first_name=self.row.mark(0))
        self.document = json.loads(self._path(station).read_bytes())
        self.document.pop('updated_at')
        self.saved_in = 0   # the station's generation that was told of row.last_saved
        self.appended = {}  # id: 'saved', 'refused' or 'unknown'
        self.added = {}     # the same of rows whose id the database chose, by the name in their e-mail address
        self.listable = {}  # id: the station's generation that was told that it is saved
        self.seen = {}      # writer: (number, generation) that this station has shown last
        self.stopping = False
        self.idle = threading.Event()
        self.doing = 'nothing'

    def _path(self, station):
        return path_of(station.directory, self.row_id)

    def _text(self, mark):
        return json.dumps({**self.document, 'first_name': mark})

    def shown_at(self, station):
        """The mark that the station shows."""
        return first_name(self._path(station))

    # ---- the loop

    def run(self):
        try:
            while not self.stopping:
                if not self.world.gate.is_set():
                    self.idle.set()
                    self.world.gate.wait()
                    continue
                self.idle.clear()
                self.station.up.wait(CONDITION)
                self._one()
                self.books.ended()
        except Exception as error:  # noqa: BLE001: whatever it is, it belongs into the report
            self.books.accuse(f'{self.name}, doing {self.doing}: {error!r}')
        self.idle.set()

    def _one(self):
        chance = self.random.random()
        if chance < 0.2:
            self._append()
        elif chance < 0.25:
            self._list()
        else:
            self._save()
        self._read(self)
        self._read(self.random.choice(self.world.writers))

    # ---- writing

    def _put(self, path, text, what, target=None):
        """Writes the file, with `target` under another name first: 'saved', 'refused' or 'unknown', and the errno's name
        or None."""
        self.doing = f'{what} at {self.station.name}'
        begun, fd, fate, generation = time.monotonic(), None, 'refused', self.station.generation
        try:
            fd = self.books.timed(f'open for {self.doing}', os.open, path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            self.books.timed(f'write of {self.doing}', os.write, fd, text.encode())
            fate, closing, fd = fate if target else 'unknown', fd, None
            self.books.timed(f'close of {self.doing}', os.close, closing)
            if target:
                fate = 'unknown'
                self.books.timed(f'rename of {self.doing}', os.rename, path, target)
            return 'saved', None
        except OSError as error:
            name = errno.errorcode[error.errno]
        finally:
            if fd is not None:
                _close_quietly(fd)
        if name in NOT_SAVED:
            fate = 'refused'
        elif name not in NOT_KNOWN and not (name == 'ENOENT' and self.station.was_away(generation)):
            raise Broken(f'{what} at {self.station.name}: {name} after {time.monotonic() - begun:.2f} s')
        if not self.books.excuses(begun, self.rows_alone):
            raise Broken(f'{what} at {self.station.name}: {name}, and nothing is broken that it could notice')
        return fate, name

    def _save(self):
        row, n, generation = self.row, self.row.last + 1, self.station.generation
        row.last = n
        fate = self._put_row(self._text(row.mark(n)), row, n)
        row.note(n, fate)
        if fate == 'saved':
            self.saved_in = generation
        self.books.count(fate)

    def _put_row(self, text, row, n):
        try:
            return self._put(self._path(self.station), text, f'save {row.mark(n)}')[0]
        except Broken as broken:
            # Its own former save may have arrived late, or the mount learned of it late.
            if 'ECANCELED' in str(broken) and row.unknown_since(row.last_saved) != [n]:
                return 'refused'
            raise

    def _append(self):
        if self.random.random() < 0.5:
            self._append_numbered()
        else:
            self._append_new()

    def _append_new(self):
        """The database gives it an id. Were such a save made twice there would be a second row, or somebody who has the
        e-mail address already, while one that is repeated with a known id writes what is there."""
        root, name = self.station.directory / 'regions/europe/users', f'{self.name}-new-{len(self.added) + 1}'
        document = {'email': f'{name}@example.org', 'username': name, 'first_name': 'New'}
        scratch = root / f'{name}.tmp'
        self.added[name] = 'unknown'
        fate, problem = self._put(scratch, json.dumps(document), f'append {name}', root / 'new.json')
        if problem:
            _remove_quietly(scratch)
        self.added[name] = fate
        self.books.count(fate)

    def _append_numbered(self):
        root = self.station.directory / 'regions/europe/users'
        begun, generation = time.monotonic(), self.station.generation
        try:
            row_id = int(self.books.timed('read of .next-id', _read_text, root / '.next-id'))
        except OSError as error:
            self._could_not('read of .next-id', error, begun, generation)
            return
        document = {'email': f'{self.name}-{row_id}@example.org', 'username': f'{self.name}-{row_id}', 'first_name': 'New'}
        fate, _ = self._put(root / f'{row_id}.json', json.dumps(document), f'append {row_id}')
        if row_id in self.appended:
            raise Broken(f'.next-id gave {row_id} twice')
        self.appended[row_id] = fate
        if fate == 'saved':
            self.listable[row_id] = generation
        self.books.count(fate)

    # ---- reading

    def _could_not(self, what, error, begun, generation):
        name = errno.errorcode[error.errno]
        between_daemons = name == 'ENOENT' and self.station.was_away(generation)
        if name not in NOT_READ and not between_daemons and not (name in NOT_SAVED and 'next-id' in what):
            raise Broken(f'{what} at {self.station.name}: {name}') from error
        if not self.books.excuses(begun, self.rows_alone):
            raise Broken(f'{what} at {self.station.name}: {name}, and nothing is broken that it could notice') from error
        self.books.count('not_read')

    def _floor(self, other):
        """The least that reading a row here may show: one's own last, of others what was shown here before, once that
        was acknowledged. A new daemon knows nothing of what the one before has shown or saved."""
        if other is self:
            return self.row.last_saved if self.saved_in == self.station.generation else 0
        n, generation = self.seen.get(other, (0, -1))
        return n if generation == self.station.generation and other.row.fate.get(n) == 'saved' else 0

    def _read(self, other):
        what = f'read of the row of {other.name}'
        self.doing = f'{what} at {self.station.name}'
        station, generation = self.station, self.station.generation
        floor, stale = self._floor(other), station.stale_reads()
        begun = time.monotonic()
        try:
            mark = self.books.timed(self.doing, other.shown_at, station)
        except OSError as error:
            self._could_not(what, error, begun, generation)
            return
        n = other.row.number(mark)
        wrong = other.row.fault_of(n, floor)
        told = station.was_away(generation) or stale == -1 or station.stale_reads() != stale
        if wrong and not (told and 'older' in wrong):
            raise Broken(f'{self.doing} shows {n}, which {wrong}; fates {_around(other.row, n, floor)}')
        self.seen[other] = (n, generation)

    def _list(self):
        """Its own rows are in the folder."""
        self.doing = f'listing at {self.station.name}'
        station, generation = self.station, self.station.generation
        mine = [row_id for row_id, told_by in self.listable.items() if told_by == generation]
        begun, stale = time.monotonic(), station.stale_reads()
        try:
            names = set(self.books.timed(self.doing, os.listdir, station.directory / 'regions/europe/users'))
        except OSError as error:
            self._could_not('listing', error, begun, generation)
            return
        missing = [row_id for row_id in mine if f'{row_id}.json' not in names]
        if missing and not station.was_away(generation) and stale != -1 and station.stale_reads() == stale:
            raise Broken(f'{self.doing} lacks {missing}, which were saved there')


class Settler(Writer):
    """Saves and reads preferences, those of a user of its own: they are in MongoDB."""

    rows_alone = False

    def __init__(self, name, world, station, seed):
        super().__init__(name, world, station, seed)
        self._path(station).write_text(self._text(self.row.mark(0)))

    def _path(self, station):
        return station.directory / f'regions/europe/preferences/{self.row_id}.json'

    def _text(self, mark):
        return json.dumps({**self.document, 'timezone': mark})

    def shown_at(self, station):
        return json.loads(self._path(station).read_bytes())['timezone']

    def _one(self):
        self._save()
        self._read(self)


def _around(row, n, floor):
    return {m: row.fate.get(m) for m in range(max(0, min(n, floor) - 1), min(row.last, max(n, floor) + 1) + 1)}


def _read_text(path):
    with open(path, encoding='ascii') as file:
        return file.read()


def _remove_quietly(path):
    try:
        os.remove(path)
    except OSError:
        pass


def _close_quietly(fd):
    try:
        os.close(fd)
    except OSError:
        pass
