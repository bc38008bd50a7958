"""The writing contract as a small program, without a mount: rows, the buffers of writers, scratch names, and what
becomes of a save. tests/test_model.py does the same things here and on mounts and compares."""

import errno
import json
from dataclasses import dataclass, field
from datetime import datetime, timezone

TIMES = ('created_at', 'updated_at')  # what a save may carry without being a change
FIELDS = {'id', 'region', 'email', 'username', 'first_name', 'last_name', 'role', 'status', 'email_verified',
          'last_login_at', 'profile', *TIMES}


def render(document):
    return (json.dumps(document, indent=2, ensure_ascii=False) + '\n').encode()


def same(one, other):
    return {k: v for k, v in one.items() if k not in TIMES} == {k: v for k, v in other.items() if k not in TIMES}


@dataclass
class Row:
    """A row as the database has it. `document` is what it is to show; the times are taken from the database after each
    change, when they have been judged."""
    id: int
    document: dict
    rev: int = 0
    updated_us: int = 0
    content_us: int = 0

    @property
    def text(self):
        return render(self.document)


@dataclass(eq=False)
class Node:
    """A scratch file, link or folder, or the buffer of somebody who writes a row."""
    born: int
    data: bytearray = field(default_factory=bytearray)
    kind: str = 'file'
    at_us: int = None        # set by utimens, and nothing written since
    version: int = 1
    handles: int = 0
    # Of a buffer
    is_draft: bool = False
    id: int = None           # None: new.json
    based: bool = False      # it is a copy of a row, or became one
    exclusive: bool = False  # opened with O_EXCL, when there was no row: it may only become a new one
    dirty: bool = False
    saved_us: int = None     # content_at of its own last save
    in_order: bool = False
    broken: bool = False     # a write has been refused
    refused: int = 0         # the version that was refused last, and how
    refused_errno: int = 0

    def changed(self):
        self.version += 1
        self.at_us = None
        self.dirty = True

    def write(self, data, offset):
        """Whether the mount may refuse it at once: written in order, and no beginning of a document."""
        self.in_order = self.in_order and offset == len(self.data)
        if offset > len(self.data):
            self.data.extend(bytes(offset - len(self.data)))
        self.data[offset:offset + len(data)] = data
        self.changed()
        return self.is_draft and self.in_order

    def truncate(self, size):
        if size == len(self.data) and size:
            return
        self.data[:] = self.data[:size].ljust(size, b'\0')
        self.changed()
        self.in_order = size == 0
        if size == 0:
            self.broken = False


@dataclass
class Outcome:
    """What a save must end in. `errnos`: any of these, None is success; `effect`: nothing, unchanged, updated, created."""
    errnos: tuple
    effect: str = 'nothing'
    document: dict = None
    at_us: int = None
    base: str = None  # the version that the document says it is based on


def refusal(*errnos):
    return Outcome(errnos)


class Model:
    """All mounts. A process is (mount, number); it lives on one mount."""

    def __init__(self, region):
        self.region = region
        self.now = 0
        self.rows = {}     # id: Row
        self.saves = {}    # (process, id): (when, content_us)
        self.removals = {}  # (process, id): when
        self.away = {}     # (process, id): when, by the clock
        self.deliveries = {}  # (mount, id): (base, time) of the last save that came with a time of its own
        self.pending = {}  # (process, id or None): Node, while it has it open

    def tick(self):
        self.now += 1
        return self.now

    # ---- saves

    def judge(self, document, row_id):
        """The errnos that a document may be refused with whatever the row is like."""
        if set(document) - FIELDS or (row_id is None and 'id' in document):
            return (errno.EINVAL,)
        if document.get('id', row_id) != row_id or document.get('region', self.region) != self.region:
            return (errno.EINVAL,)
        return ()

    def save(self, process, row_id, text, *, born, based=False, exclusive=False, saved_us=None, at_us=None):
        """What must become of a text that a process saves as a row."""
        try:
            document = json.loads(bytes(text))
            assert isinstance(document, dict)
        except (ValueError, AssertionError):
            return refusal(errno.EINVAL)
        row = self.rows.get(row_id)
        if based and row is None:
            if self.removals.get((process, row_id), 0) > born:
                return Outcome((None,))
            return refusal(errno.ECANCELED)
        if errnos := self.judge(document, row_id):
            return refusal(*errnos)
        if row and exclusive:
            wrong = document.get('role') not in ('student', 'instructor', 'admin')
            return refusal(*((errno.EINVAL,) if wrong else ()), errno.EEXIST)
        if row and same(document, row.document) and at_us in (None, row.updated_us):
            return Outcome((None,), 'unchanged')
        refused = ()
        if document.get('role') not in ('student', 'instructor', 'admin'):
            refused += (errno.EINVAL,)
        if row and 'updated_at' in document:
            when, content_us = self.saves.get((process, row_id), (None, 0))
            own = saved_us or (content_us if when is not None and when < born else 0)
            base, delivered_us = self.deliveries.get((process[0], row_id), (None, 0))
            if not saved_us and base == document['updated_at'] and at_us is not None and delivered_us < at_us:
                own = max(own, delivered_us)
            if row.content_us > max(micros(document['updated_at']), own):
                refused += (errno.ECANCELED,)
        if not refused and any(other.document['email'] == document['email'] and other.id != row_id
                               for other in self.rows.values()):
            refused += (errno.EEXIST,)
        if refused:
            return refusal(*refused)
        whole = {'id': row_id, 'region': self.region, **document}  # a file's name and folder say them as well
        if row and same(whole, row.document) and at_us in (None, row.updated_us):
            return Outcome((None,), 'unchanged')
        base = document.get('updated_at')
        document = {k: v for k, v in document.items() if k not in TIMES or (k == 'created_at' and not row)}
        return Outcome((None,), 'updated' if row else 'created', document, at_us, base)

    def took(self, process, row):
        """The process has saved the row."""
        self.saves[process, row.id] = (self.tick(), row.content_us)
        self.away.pop((process, row.id), None)

    def forget(self, process):
        for memory in (self.saves, self.removals, self.away, self.pending):
            for key in [key for key in memory if key[0] == process]:
                del memory[key]


def micros(moment):
    """2026-11-22T15:48:30.123456Z in microseconds since the epoch, without a float."""
    told = datetime.strptime(moment, '%Y-%m-%dT%H:%M:%S.%fZ').replace(tzinfo=timezone.utc)
    return int(told.replace(microsecond=0).timestamp()) * 1_000_000 + told.microsecond
