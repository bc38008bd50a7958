"""A random walk of several processes, two mounts and SQL over rows and scratch files, beside a model of the contract
(model.py): after every operation contents, sizes, times, listings and the table agree.

A failure prints the seed and the last operations; CAMPUSFS_SEED=N repeats it. Ten minutes of it:
tests/run -m long tests/test_model.py
"""

import contextlib
import errno
import json
import os
import random
import re
import shutil
import stat
import time
from collections import Counter, deque
from dataclasses import dataclass

import pytest

from conftest import region_number
from model import Model, Node, Outcome, Row, micros
from saving import Actor

REGION = 'oceania'
NAMES = ['a.tmp', '4913', '{id}.json~', '.{id}.json.swp', 'folder/x', 'folder/y', 'other/x', 'x y\n']
FOLDERS = ['folder', 'other']
LINK = 'nowhere/nothing'  # where symbolic links lead
OPENED = {os.O_WRONLY | os.O_TRUNC: 'O_WRONLY|O_TRUNC', os.O_WRONLY: 'O_WRONLY', os.O_RDWR: 'O_RDWR',
          os.O_RDWR | os.O_APPEND: 'O_RDWR|O_APPEND', os.O_RDWR | os.O_TRUNC: 'O_RDWR|O_TRUNC'}
AWAY_SECONDS = 40       # a process that has moved a row away for longer is replaced: the mount forgets after a minute
STALE_SECONDS = 3       # by then every mount shows what others have changed: one, and what a busy machine takes


@dataclass(eq=False)
class Handle:
    process: tuple
    fd: int
    flags: int
    node: Node = None     # None for a reader
    text: bytes = b''     # a reader's snapshot
    told: str = ''        # what it is, for the log
    seen: bool = True     # its bytes can be read back

    @property
    def reads(self):
        return self.flags & os.O_ACCMODE != os.O_WRONLY


class Walk:
    def __init__(self, seed, mounts, sql, others):
        self.random = random.Random(seed)
        self.roots = mounts
        self.folders = [root / 'regions' / REGION / 'users' for root in mounts]
        self.sql = sql
        self.model = Model(REGION)
        self.others = others          # ids that were there before: none of ours
        self.log = deque(maxlen=40)
        self.counts = Counter()
        self.actors = {(m, n): Actor() for m in range(2) for n in range(3 - m)}
        self.handles = []
        self.scratch = [{}, {}]       # by mount: name: Node
        self.old = {}                 # id: texts it has had, for saves from a stale copy
        self.stale = [{}, {}]         # by mount: id: (texts that may still be shown, until when)
        self.gone = []
        self.before = {}              # id: (rev, updated_us) as seen last

    # ---- names

    def path(self, process, name):
        mount = process if isinstance(process, int) else process[0]
        return self.folders[mount] / (f'{name}.json' if isinstance(name, int) else name)

    def pick(self, items):
        items = list(items)
        return self.random.choice(items) if items else None

    def row_id(self):
        return self.pick(self.model.rows)

    def name(self):
        name = self.pick(NAMES)
        return name.replace('{id}', str(self.row_id() or 1))

    def has_folder(self, mount, name):
        return '/' not in name or name.split('/')[0] in self.scratch[mount]

    def sees_row(self, process, row_id):
        """Whether the process sees a row under the name."""
        return row_id in self.model.rows and (process, row_id) not in self.model.away

    # ---- telling and doing

    def tell(self, what):
        self.log.append(what)
        self.counts[' '.join(re.findall('[A-Za-z_]+', what.split('(', 2 if what[0] == '(' else 1)[what[0] == '('])[:2])] += 1

    def attempt(self, process, call, *arguments):
        """(errno or None, answer) of a call by a process."""
        try:
            return None, getattr(self.actors[process], call)(*arguments)
        except OSError as error:
            return error.errno, None

    def expect(self, code, *allowed):
        names = [errno.errorcode.get(c, 'success') if c else 'success' for c in allowed]
        got = errno.errorcode.get(code) if code else 'success'
        assert code in allowed, f'{got} instead of {" or ".join(names)}'

    # ---- texts

    def text_for(self, row_id, stale_ok=True):
        """A document to save as the row: mostly from its present text, sometimes from an old one, or wrong."""
        row = self.model.rows.get(row_id)
        base = row.document if row else None
        if self.old.get(row_id) and (base is None or stale_ok and self.random.random() < 0.2):
            base = self.pick(self.old[row_id])
        if base is None:
            base = {**self.pick([row.document for row in self.model.rows.values()]), 'id': row_id,
                    'email': f'm{self.random.getrandbits(60):x}@example.org',
                    'username': f'm{self.random.getrandbits(60):x}'}
        document = dict(base)
        if row_id is None:
            document = {key: value for key, value in document.items() if key != 'id'}
            document.update(email=f'm{self.random.getrandbits(60):x}@example.org',
                            username=f'm{self.random.getrandbits(60):x}')
        if self.random.random() < 0.85:
            document['first_name'] = 'x' * self.random.randrange(1, 90)
        if self.random.random() < 0.1:
            document['profile'] = {**document['profile'], 'city': 'y' * self.random.randrange(1, 90)}
        if self.random.random() < 0.15:
            del document['updated_at']
        wrong = self.random.random()
        if wrong < 0.02:
            document['role'] = 'king'
        elif wrong < 0.04:
            document['shoe_size'] = 44
        elif wrong < 0.05:
            document['id'] = 4711
        elif wrong < 0.07:
            document['email'] = self.pick(self.model.rows.values()).document['email']
        text = json.dumps(document, indent=self.random.choice([None, 2, 4])).encode()
        if wrong > 0.97:
            text = text[:self.random.randrange(len(text))]
        elif wrong > 0.95:
            text = b'{"id": nope' + text
        return text

    # ---- what a save leads to

    def remember(self, row):
        self.old.setdefault(row.id, []).append(row.document)
        del self.old[row.id][:-6]

    def database(self):
        rows = self.sql(REGION, 'SELECT id, rev, updated_us, content_us, body FROM doc_users WHERE region = %s',
                        (region_number(REGION),))
        return {row[0]: row[1:] for row in rows if row[0] not in self.others}

    def take(self, outcome, row_id, process, by_mount=None):
        """The database has what the outcome says: the times of the row are taken from it."""
        model = self.model
        if outcome.effect == 'nothing':
            return None
        found = self.database()
        if outcome.effect == 'created' and row_id is None:
            new = set(found) - set(model.rows)
            assert len(new) == 1, f'{len(new)} new rows instead of one'
            row_id = new.pop()
        assert row_id in found, f'row {row_id} is not in the table'
        rev, updated_us, content_us, body = found[row_id]
        row = model.rows.get(row_id) or Row(row_id, {})
        if outcome.effect != 'unchanged':
            shown = json.loads(body)
            want = {**outcome.document, 'id': row_id, 'region': REGION, 'updated_at': shown['updated_at']}
            want.setdefault('created_at', row.document.get('created_at', shown['created_at']))
            assert shown == want, 'the row is not what was saved'
            assert outcome.at_us is None or updated_us == outcome.at_us, 'the time that was set is not the row\'s'
            assert outcome.at_us is not None or updated_us > row.updated_us, 'updated_at is not later than the last'
            assert micros(shown['updated_at']) == updated_us
            if row.document:
                self.remember(row)
                if process is None or by_mount is not None:
                    self.foreign(row, by_mount)
            assert rev != row.rev or not row.document, 'changed, and not a new revision'
            model.rows[row_id] = Row(row_id, shown, rev, updated_us, content_us)
        if process is not None:
            model.took(process, model.rows[row_id])
        if by_mount is not None:
            self.stale[by_mount].pop(row_id, None)
        return row_id

    def foreign(self, row, by_mount):
        """The row was changed by somebody whom the other mounts do not know: they may show the old one for a second."""
        for mount in range(2):
            if mount != by_mount:
                texts, _ = self.stale[mount].get(row.id, ([], 0))
                self.stale[mount][row.id] = ([*texts, row.text], time.monotonic() + STALE_SECONDS)

    def settle(self, mount, row_id):
        """Until the mount shows the row as it is, and no more the old one."""
        until = time.monotonic() + STALE_SECONDS
        row = self.model.rows.get(row_id)
        want = row.text if row else None
        while True:
            try:
                shown = self.path(mount, row_id).read_bytes()
            except FileNotFoundError:
                shown = None
            listed = f'{row_id}.json' in os.listdir(self.folders[mount])
            if shown == want and listed == (row is not None):
                break
            assert time.monotonic() < until, f'mount {mount} does not show what became of {row_id}: {shown}'
            time.sleep(0.01)
        self.stale[mount].pop(row_id, None)

    def settle_all(self, row_id):
        for mount in range(2):
            self.settle(mount, row_id)

    def done(self, outcome, code, process, row_id, text):
        """A save has ended with this errno: judged, and its traces taken. The id of the row."""
        self.expect(code, *outcome.errnos)
        self.log[-1] += f' = {errno.errorcode[code] if code else outcome.effect}'
        if code:
            self.counts[errno.errorcode[code]] += 1
            if text:
                self.kept(process[0], row_id, text)
            return row_id
        created = outcome.effect == 'created'
        row_id = self.take(outcome, row_id, process, process[0]) if outcome.effect != 'nothing' else row_id
        if created:
            self.settle(1 - process[0], row_id)
        return row_id

    def kept(self, mount, row_id, text):
        """The refused text is in .refused; taken away again."""
        folder, name = self.folders[mount] / '.refused', 'new.json' if row_id is None else f'{row_id}.json'
        texts = [path for path in folder.iterdir() if path.name.startswith(name) and path.suffix != '.error']
        assert any(path.read_bytes() == text for path in texts), 'the refused text is not kept'
        for path in folder.iterdir():
            if path.suffix != '.error':
                path.unlink()

    def commit(self, process, node):
        """What a flush or fsync of a buffer must lead to: an Outcome, and what it is the outcome of."""
        if (not node.dirty and node.at_us is None) or not node.data:
            return None
        if node.refused == node.version:
            return (node.refused_errno,)
        if node.broken:
            return (errno.EINVAL,)
        return self.model.save(process, node.id, node.data, born=node.born, based=node.based,
                               saved_us=node.saved_us, at_us=node.at_us)

    def committed(self, process, node, outcome, code):
        if outcome is None or isinstance(outcome, tuple):
            self.expect(code, *(outcome or (None,)))
            self.log[-1] += f' = {errno.errorcode[code] if code else "nothing to save"}'
            if code:
                node.refused, node.refused_errno = node.version, code
            return
        row_id = self.done(outcome, code, process, node.id, bytes(node.data))
        if code:
            node.refused, node.refused_errno = node.version, code
            return
        node.dirty, node.at_us, node.refused = False, None, 0
        if self.model.pending.get((process, node.id)) is node:
            del self.model.pending[process, node.id]
        if outcome.effect != 'nothing':
            node.id, node.based = row_id, True
            node.saved_us = self.model.rows[row_id].content_us

    # ---- operations on rows; each gives False when there is nothing to do it to

    def is_making(self, process, row_id):
        """It has the row away and makes it anew, and so sees what it makes: too rare to be told of further."""
        return (process, row_id) in self.model.away and (process, row_id) in self.model.pending

    def reader(self, process):
        row_id = self.row_id()
        if self.is_making(process, row_id):
            return False
        self.tell(f'{process} reader({row_id})')
        code, fd = self.attempt(process, 'open', self.path(process, row_id), os.O_RDONLY)
        if not self.sees_row(process, row_id):
            self.expect(code, errno.ENOENT)
            return
        self.expect(code, None)
        text = self.actors[process].pread(fd, 1 << 20, 0).encode()
        assert text in self.may_show(process[0], row_id), 'opened something that the row is not'
        self.handles.append(Handle(process, fd, os.O_RDONLY, None, text, f'reader of {row_id}'))

    def may_show(self, mount, row_id):
        row = self.model.rows.get(row_id)
        texts, until = self.stale[mount].get(row_id, ([], 0))
        return ([row.text] if row else []) + (texts if time.monotonic() < until else [])

    def writer(self, process):
        """Opens a row for writing, or makes a new one under an id or as new.json."""
        what = self.random.random()
        row_id = self.row_id() if what < 0.8 else self.pick(self.gone) if what < 0.9 else None
        if what >= 0.8 and len(self.model.rows) > 7:
            return False
        flags = self.pick(OPENED)
        create = self.random.choice([0, os.O_CREAT, os.O_CREAT | os.O_EXCL]) if row_id else os.O_CREAT
        name = 'new.json' if row_id is None else row_id
        self.tell(f'{process} writer({name}, {OPENED[flags]}{"|O_CREAT" * bool(create)}'
                  f'{"|O_EXCL" * bool(create & os.O_EXCL)})')
        if row_id in self.stale[process[0]]:
            self.settle(process[0], row_id)
        sees, pending = self.sees_row(process, row_id), self.model.pending.get((process, row_id))
        if sees:
            pending = None
        code, fd = self.attempt(process, 'open', self.path(process, name), flags | create, 0o600)
        others = row_id is not None and row_id not in self.model.rows and any(
            key[0][0] == process[0] and key[1] == row_id for key in self.model.pending)
        if not sees and not pending and not create:
            return self.expect(code, errno.ENOENT)
        if create & os.O_EXCL and (sees or pending or others):
            return self.expect(code, errno.EEXIST)
        self.expect(code, None)
        node = pending
        if node is None:
            row = self.model.rows.get(row_id)
            node = Node(self.model.tick(), is_draft=True, id=row_id, based=row is not None, in_order=row is None)
            if row:
                node.data[:] = row.text
                if not sees:
                    node.truncate(0)
            else:
                self.model.pending[process, row_id] = node
        if flags & os.O_TRUNC:
            node.truncate(0)
        node.handles += 1
        self.handles.append(Handle(process, fd, flags, node, told=f'writer of {name}'))

    def write(self, process):
        """Writes into a buffer or an open scratch file."""
        handle = self.pick([h for h in self.handles if h.process == process and h.node])
        if not handle:
            return False
        node, fd, actor = handle.node, handle.fd, self.actors[process]
        how = self.random.choice(['whole', 'whole', 'whole', 'piece', 'append', 'size'])
        self.tell(f'{process} write({handle.told} fd {fd}, {how})')
        end = len(node.data)
        if how == 'size':
            size = self.random.choice([0, end, end + 7, end // 2, self.random.randrange(3000)])
            self.log[-1] += f' to {size}'
            actor.ftruncate(fd, size)
            node.truncate(size)
            return
        if how == 'whole':
            text = self.text_for(node.id if node.is_draft else self.row_id())
            actor.ftruncate(fd, 0)
            node.truncate(0)
            at = 0
        elif how == 'append' or handle.flags & os.O_APPEND:
            text, at = self.random.choice([b' ', b'\n', b' \n' * 40]), end
        else:
            at = bytes(node.data).find(b'x')
            text, at = (b'z', at) if at >= 0 else (b' ', end)
        if handle.flags & os.O_APPEND:
            at = len(node.data)
        was_broken = node.broken
        code, n = self.attempt(process, 'pwrite', fd, text.decode(), at)
        may_break = node.write(text, at)
        if was_broken:
            self.expect(code, errno.EINVAL)
        elif code:
            self.expect(code, errno.EINVAL)
            assert may_break and not is_json(node.data), 'refused by write, and it may be a document'
            node.broken, handle.seen = True, False
            self.log[-1] += ' = EINVAL'
            self.kept(process[0], node.id, bytes(node.data))
        else:
            assert n == len(text)

    def fsync(self, process):
        handle = self.pick([h for h in self.handles if h.process == process and h.node])
        if not handle:
            return False
        node = handle.node
        self.tell(f'{process} fsync({handle.told} fd {handle.fd})')
        outcome = self.commit(process, node) if node.is_draft else None
        code, _ = self.attempt(process, 'fsync', handle.fd)
        self.committed(process, node, outcome, code)

    def close(self, process):
        handle = self.pick([h for h in self.handles if h.process == process])
        if not handle:
            return False
        self.tell(f'{process} close({handle.told} fd {handle.fd})')
        node = handle.node
        outcome = self.commit(process, node) if node and node.is_draft and handle.flags & os.O_ACCMODE else None
        code, _ = self.attempt(process, 'close', handle.fd)
        self.handles.remove(handle)
        self.committed(process, node, outcome, code)
        self.closed(process, node)

    def closed(self, process, node):
        if node is None:
            return
        node.handles -= 1
        for key, waiting in list(self.model.pending.items()):
            if waiting is node and node.handles == 0:
                del self.model.pending[key]
                if key[1] not in self.model.rows:
                    self.wait_gone(process, key[1])

    def wait_gone(self, process, row_id):
        """A file that was given up is gone when its release has been answered, which nobody waits for."""
        if process not in self.actors:
            return
        until = time.monotonic() + 5
        while self.attempt(process, 'stat', self.path(process, 'new.json' if row_id is None else row_id))[0] is None:
            assert time.monotonic() < until, 'a new file that was given up is still there'
            time.sleep(0.002)

    def kill(self, process):
        """A process is killed: what it has open is saved as by its closes, and nobody is told."""
        if self.random.random() < 0.8:
            return False
        self.tell(f'{process} kill')
        mine = sorted((h for h in self.handles if h.process == process), key=lambda h: h.fd)
        outcomes = []
        self.actors[process].kill()
        for handle in mine:
            self.handles.remove(handle)
            node = handle.node
            if node and node.is_draft and handle.flags & os.O_ACCMODE:
                outcome = self.commit(process, node)
                outcomes.append(outcome)
                if outcome is not None and not isinstance(outcome, tuple) and None in outcome.errnos:
                    self.committed(process, node, outcome, None)
                elif outcome is not None:
                    node.refused = node.version
            if node:
                node.handles -= 1
        self.actors[process] = Actor()
        self.model.forget(process)
        shutil.rmtree(self.folders[process[0]] / '.refused', ignore_errors=True)

    def unlink(self, process):
        if len(self.model.rows) < 4:
            return False
        row_id = self.row_id()
        if self.is_making(process, row_id):
            return False
        self.tell(f'{process} unlink({row_id})')
        if row_id in self.stale[process[0]]:
            self.settle(process[0], row_id)
        code, _ = self.attempt(process, 'unlink', self.path(process, row_id))
        if not self.sees_row(process, row_id):
            return self.expect(code, errno.ENOENT)
        self.expect(code, None)
        self.removed(row_id)
        self.model.removals[process, row_id] = self.model.tick()
        self.settle(1 - process[0], row_id)

    def removed(self, row_id):
        self.remember(self.model.rows.pop(row_id))
        self.gone = [*self.gone, row_id][-4:]
        for mount in range(2):
            self.stale[mount].pop(row_id, None)

    def touch(self, process):
        """A time set by path, by the test's own process."""
        row_id, us = self.row_id(), time.time_ns() // 1000 + self.random.randrange(-10 ** 9, 10 ** 7)
        self.tell(f'{process[0]} touch({row_id}, {us})')
        me = (process[0], 'me')
        if row_id in self.stale[process[0]]:
            self.settle(process[0], row_id)
        born = self.model.tick()
        outcome = self.model.save(me, row_id, self.model.rows[row_id].text, born=born, based=True, at_us=us)
        try:
            os.utime(self.path(process, row_id), ns=(us * 1000, us * 1000))
            code = None
        except OSError as error:
            code = error.errno
        self.done(outcome, code, me, row_id, b'')

    # ---- SQL

    def by_sql(self, process):
        what = self.random.random()
        row_id = self.row_id()
        if what < 0.7:
            self.tell(f'SQL update({row_id})')
            name = 'w' * self.random.randrange(1, 90)
            self.sql(REGION, 'UPDATE users SET first_name = %s WHERE id = %s', (name, row_id))
            row = self.model.rows[row_id]
            if name != row.document['first_name']:
                document = {k: v for k, v in row.document.items() if k != 'updated_at'}
                self.take(Outcome((None,), 'updated', {**document, 'first_name': name}), row_id, None)
                if self.random.random() < 0.5:
                    self.settle_all(row_id)
        elif what < 0.85 and len(self.model.rows) > 4:
            self.tell(f'SQL delete({row_id})')
            self.sql(REGION, 'DELETE FROM users WHERE id = %s', (row_id,))
            self.removed(row_id)
            self.settle_all(row_id)
        elif len(self.model.rows) < 8:
            self.tell('SQL create')
            self.settle_all(self.create_by_sql())
        else:
            return False

    def create_by_sql(self):
        email = f'm{self.random.getrandbits(60):x}'
        document = {'email': f'{email}@example.org', 'username': email, 'first_name': 'x', 'last_name': 'Walker'}
        (row_id, body), = self.sql(REGION, '''
            SELECT id, body FROM put_users(%s::smallint, NULL, %s::jsonb, NULL, NULL, false, gen_random_uuid(), 'walk')''',
                                   (region_number(REGION), json.dumps(document)))
        shown = json.loads(body)
        return self.take(Outcome((None,), 'created', {k: v for k, v in shown.items() if k != 'updated_at'}), row_id, None)

    # ---- scratch files

    def make(self, process):
        """Opens or makes a scratch file and writes a document into it."""
        name, names = self.name(), self.scratch[process[0]]
        flags = self.random.choice([os.O_WRONLY | os.O_TRUNC, os.O_RDWR]) | os.O_CREAT \
            | self.random.choice([0, os.O_EXCL])
        self.tell(f'{process} make({name!r}{"|O_EXCL" * bool(flags & os.O_EXCL)})')
        there = names.get(name)
        code, fd = self.attempt(process, 'open', self.path(process, name), flags, 0o600)
        if not self.has_folder(process[0], name):
            return self.expect(code, errno.ENOENT)
        if there and flags & os.O_EXCL:
            return self.expect(code, errno.EEXIST)
        if there and there.kind != 'file':
            # A link leads nowhere.
            if code is None:
                self.actors[process].close(fd)
            return self.expect(code, errno.ENOENT, errno.EISDIR, errno.ELOOP)
        self.expect(code, None)
        if there is None:
            there = names[name] = Node(self.model.tick())
        if flags & os.O_TRUNC:
            there.truncate(0)
        text = self.text_for(self.row_id())
        self.actors[process].pwrite(fd, text.decode(), 0)
        there.write(text, 0)
        if self.random.random() < 0.3:
            there.handles += 1
            self.handles.append(Handle(process, fd, flags, there, told=f'scratch {name!r}'))
        else:
            self.actors[process].close(fd)

    def names_other(self, process):
        """mkdir, rmdir, symlink, unlink, a size, a time."""
        names, what = self.scratch[process[0]], self.random.randrange(6)
        name = self.random.choice(FOLDERS) if what < 2 else self.name()
        path, there = self.path(process, name), names.get(name)
        self.tell(f'{process} {("mkdir", "rmdir", "symlink", "remove", "truncate", "time")[what]}({name!r})')
        missing = errno.ENOENT if there is None else None
        if what == 0:
            self.expect(self.attempt(process, 'mkdir', path, 0o755)[0], errno.EEXIST if there else None)
            names.setdefault(name, Node(self.model.tick(), kind='folder'))
        elif what == 1:
            full = any(other.startswith(name + '/') for other in names)
            code = self.attempt(process, 'rmdir', path)[0]
            self.expect(code, missing or (there.kind != 'folder' and errno.ENOTDIR) or (full and errno.ENOTEMPTY) or None)
            if code is None:
                del names[name]
        elif what == 2:
            code = self.attempt(process, 'symlink', LINK, path)[0]
            self.expect(code, errno.ENOENT if not self.has_folder(process[0], name) else errno.EEXIST if there else None)
            if code is None:
                names[name] = Node(self.model.tick(), bytearray(LINK.encode()), kind='link')
        elif what == 3:
            code = self.attempt(process, 'unlink', path)[0]
            self.expect(code, missing)
            if code is None:
                del names[name]
        elif there and there.kind == 'file' and what == 4:
            size = self.random.randrange(3000)
            self.expect(self.attempt(process, 'truncate', path, size)[0], None)
            there.truncate(size)
        elif there and there.kind == 'file':
            us = time.time_ns() // 1000 + self.random.randrange(-10 ** 9, 10 ** 7)
            os.utime(path, ns=(us * 1000, us * 1000))
            there.at_us = us

    def rename(self, process):
        """A scratch name onto another."""
        names = self.scratch[process[0]]
        name, to = self.pick(names), self.name()
        if name is None or not self.has_folder(process[0], to):
            return False
        node, there = names[name], names.get(to)
        if node.kind == 'folder':
            to = self.random.choice(FOLDERS)
            there = names.get(to)
        self.tell(f'{process} rename({name!r}, {to!r})')
        code = self.attempt(process, 'rename', self.path(process, name), self.path(process, to))[0]
        full = any(other.startswith(to + '/') for other in names)
        if there is node:
            return self.expect(code, None)
        if there and there.kind == 'folder' and node.kind != 'folder':
            return self.expect(code, errno.EISDIR)
        if there and there.kind == 'folder' and full:
            return self.expect(code, errno.ENOTEMPTY)
        if there and node.kind == 'folder' and there.kind != 'folder':
            return self.expect(code, errno.ENOTDIR)
        self.expect(code, None)
        names[to] = names.pop(name)
        if node.kind == 'folder':
            for inner in [other for other in names if other.startswith(name + '/')]:
                names[to + inner[len(name):]] = names.pop(inner)

    def rename_over(self, process):
        """A scratch file onto a row, a free id, or new.json: a save."""
        names = self.scratch[process[0]]
        name = self.pick([name for name, node in names.items()])
        if name is None:
            return False
        what = self.random.random()
        row_id = self.row_id() if what < 0.85 else self.pick(self.gone) if what < 0.95 else None
        if what >= 0.85 and len(self.model.rows) > 7:
            return False
        node = names[name]
        if node.kind == 'file' and node.handles == 0 and self.random.random() < 0.7:  # with a text that fits, as tools do
            text = self.text_for(row_id)
            self.actors[process].save(self.path(process, name), text.decode())
            node.truncate(0)
            node.write(text, 0)
        to = 'new.json' if row_id is None else row_id
        self.tell(f'{process} rename_over({name!r}, {to})')
        if row_id in self.stale[process[0]]:
            self.settle(process[0], row_id)
        outcome = None
        if node.kind == 'file':
            outcome = self.model.save(process, row_id, node.data, born=node.born, at_us=node.at_us)
        code = self.attempt(process, 'rename', self.path(process, name), self.path(process, to))[0]
        if outcome is None:
            return self.expect(code, errno.EPERM, errno.ENOTDIR)
        row_id = self.done(outcome, code, process, row_id, bytes(node.data))
        if code is None:
            del names[name]
            node.is_draft, node.id, node.based, node.dirty, node.broken = True, row_id, True, False, False
            node.saved_us, node.at_us, node.born = self.model.rows[row_id].content_us, None, self.model.tick()
            node.in_order, node.refused = False, 0

    def move_away(self, process):
        """A row to a scratch name, as editors do before they write; it stays for all others."""
        row_id, name = self.row_id(), self.name()
        names = self.scratch[process[0]]
        if self.is_making(process, row_id):
            return False
        if row_id in self.stale[process[0]]:
            self.settle(process[0], row_id)
        self.tell(f'{process} move_away({row_id}, {name!r})')
        code = self.attempt(process, 'rename', self.path(process, row_id), self.path(process, name))[0]
        there = names.get(name)
        if not self.sees_row(process, row_id) or not self.has_folder(process[0], name):
            return self.expect(code, errno.ENOENT)
        if '/' in name:
            return self.expect(code, errno.EPERM)
        if there and there.kind == 'folder':
            return self.expect(code, errno.EISDIR)
        self.expect(code, None)
        row = self.model.rows[row_id]
        names[name] = Node(self.model.tick(), bytearray(row.text))
        self.model.away[process, row_id] = time.monotonic()

    # ---- the walk

    STEPS = {'reader': 6, 'writer': 16, 'write': 22, 'fsync': 6, 'close': 18, 'kill': 2, 'unlink': 3, 'touch': 3,
             'by_sql': 5, 'make': 10, 'names_other': 8, 'rename': 5, 'rename_over': 12, 'move_away': 5}

    def run(self, seconds, operations):
        for _ in range(5):
            self.settle_all(self.create_by_sql())
        end, self.operations = time.monotonic() + seconds, 0
        steps, weights = list(self.STEPS), list(self.STEPS.values())
        while time.monotonic() < end and self.operations < operations:
            process = self.random.choice(list(self.actors))
            step = self.random.choices(steps, weights)[0]
            mine = sum(h.process == process for h in self.handles)
            if mine > 6:
                step = 'close'
            if getattr(self, step)(process) is False:
                continue
            self.operations += 1
            self.check()
            self.replace_the_absent()

    def replace_the_absent(self):
        for (process, _), since in list(self.model.away.items()):
            if time.monotonic() - since > AWAY_SECONDS:
                while any(h.process == process for h in self.handles):
                    self.close(process)
                with self.actors[process]:
                    self.actors[process] = Actor()
                self.model.forget(process)

    def check(self):
        found = self.database()
        assert set(found) == set(self.model.rows), 'rows in the table that should not be, or not there'
        for row_id, (rev, updated_us, content_us, body) in found.items():
            row = self.model.rows[row_id]
            assert (rev, updated_us, content_us) == (row.rev, row.updated_us, row.content_us), f'{row_id} was written to'
            assert json.loads(body) == row.document
        for mount in range(2):
            self.check_rows(mount)
            self.check_scratch(mount)
        for handle in self.handles:
            self.check_handle(handle)

    def check_rows(self, mount):
        shown = {int(name[:-5]) for name in os.listdir(self.folders[mount]) if name.removesuffix('.json').isdigit()
                 and name.endswith('.json')} - self.others
        assert shown == set(self.model.rows), f'the listing of mount {mount}'
        for row_id, row in self.model.rows.items():
            path = self.path(mount, row_id)
            before = path.stat()
            text = path.read_bytes()
            may = self.may_show(mount, row_id)
            assert text in may, f'mount {mount} shows of {row_id} {text} and not {row.text}'
            if text == row.text and len(may) > 1:
                del self.stale[mount][row_id]  # never back again
            if len(may) == 1:
                assert before.st_size == len(text), f'size of {row_id} on mount {mount}'
                assert before.st_mtime_ns == row.updated_us * 1000, f'time of {row_id} on mount {mount}'
        for row_id in self.gone:
            if row_id not in self.model.rows:
                assert not self.path(mount, row_id).exists()

    def check_scratch(self, mount):
        names, folder = self.scratch[mount], self.folders[mount]
        found = {name for name in os.listdir(folder) if not (name.endswith('.json') and name[:-5].isdigit())}
        for inner in FOLDERS:
            if inner in names and names[inner].kind == 'folder':
                found |= {f'{inner}/{name}' for name in os.listdir(folder / inner)}
        assert found == set(names), f'scratch names of mount {mount}'
        for name, node in names.items():
            status = os.lstat(folder / name)
            kind = {'file': stat.S_ISREG, 'link': stat.S_ISLNK, 'folder': stat.S_ISDIR}[node.kind]
            assert kind(status.st_mode), name
            if node.kind != 'folder':
                assert status.st_size == len(node.data), f'size of {name!r}'
            if node.kind == 'file':
                assert (folder / name).read_bytes() == node.data, f'content of {name!r}'
                assert node.at_us is None or status.st_mtime_ns == node.at_us * 1000
            elif node.kind == 'link':
                assert os.readlink(folder / name) == LINK

    def check_handle(self, handle):
        actor, data = self.actors[handle.process], handle.text if handle.node is None else handle.node.data
        if handle.node and (handle.node.broken or not handle.seen):
            return
        assert actor.fstat(handle.fd)[6] == len(data), f'size through fd {handle.fd} of {handle.process}: {handle.told}'
        if handle.reads:
            assert actor.pread(handle.fd, 1 << 20, 0).encode() == data, \
                f'content through fd {handle.fd} of {handle.process}: {handle.told}'

    def end(self):
        for actor in self.actors.values():
            actor.kill()
        for mount in range(2):
            for name in sorted(self.scratch[mount], key=lambda name: -name.count('/')):
                path = self.folders[mount] / name
                with contextlib.suppress(OSError):
                    path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def is_json(data):
    with contextlib.suppress(ValueError):
        return isinstance(json.loads(bytes(data)), dict)
    return False


def walk(seconds, operations, mnt, new_mount, sql):
    seed = int(os.environ.get('CAMPUSFS_SEED') or random.randrange(10 ** 6))
    others = {row for row, in sql(REGION, 'SELECT id FROM users WHERE region = %s', (region_number(REGION),))}
    one = Walk(seed, [mnt, new_mount().directory], sql, others)
    try:
        one.run(seconds, operations)
    except BaseException as error:
        last = '\n  '.join(one.log)
        raise AssertionError(f'CAMPUSFS_SEED={seed}, operation {one.operations}: {error!r}\n  {last}') from error
    finally:
        one.end()
    print(f'CAMPUSFS_SEED={seed}: {one.operations} operations: {dict(one.counts.most_common())}')
    return one


def test_a_walk(mnt, new_mount, sql):
    one = walk(45, 6000, mnt, new_mount, sql)
    assert one.operations > 300 and {'ECANCELED', 'EINVAL', 'EEXIST'} & set(one.counts)


@pytest.mark.long
def test_a_long_walk(mnt, new_mount, sql):
    walk(600, 10 ** 6, mnt, new_mount, sql)
