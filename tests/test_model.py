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
import shutil
import time

import pytest

from conftest import region_number
from model import Node, Outcome, Row
from model_mounts import FOLDERS, LINK, REGION, Handle, Mounts
from saving import Actor

OPENED = {os.O_WRONLY | os.O_TRUNC: 'O_WRONLY|O_TRUNC', os.O_WRONLY: 'O_WRONLY', os.O_RDWR: 'O_RDWR',
          os.O_RDWR | os.O_APPEND: 'O_RDWR|O_APPEND', os.O_RDWR | os.O_TRUNC: 'O_RDWR|O_TRUNC'}
AWAY_SECONDS = 40       # a process that has moved a row away for longer is replaced: the mount forgets after a minute


class Walk(Mounts):
    # Operations: each gives False when there is nothing to do it to.

    # ---- on rows

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
            node = Node(self.model.tick(), is_draft=True, id=row_id, based=row is not None, in_order=row is None,
                        exclusive=bool(create & os.O_EXCL) and row is None)
            if row:
                node.data[:] = row.text
                if not sees:
                    node.truncate(0)
            if not sees:
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
                if not self.sees_row(process, key[1]):
                    self.wait_gone(process, key[1])

    def wait_gone(self, process, row_id):
        """A file that was given up is gone when its release has been answered, which nobody waits for."""
        if process not in self.actors:
            return
        until = time.monotonic() + 60
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
        self.kept_rows[row_id] = self.model.rows[row_id]
        self.removed(row_id)
        self.model.removals[process, row_id] = self.model.tick()
        self.settle(1 - process[0], row_id)

    def removed(self, row_id):
        self.remember(self.model.rows.pop(row_id))
        self.gone = [*self.gone, row_id][-4:]
        for mount in range(2):
            self.stale[mount].pop(row_id, None)

    def undelete(self, process):
        """A row from .deleted, whole, under its own name."""
        row_id = self.pick(self.gone)
        if row_id is None or len(self.model.rows) > 7:
            return False
        self.tell(f'{process} undelete({row_id})')
        code, _ = self.attempt(process, 'rename', self.path(process, f'.deleted/{row_id}.json'),
                               self.path(process, row_id))
        if row_id in self.model.rows:
            return self.expect(code, errno.EEXIST, errno.ENOENT)
        kept = self.kept_rows.get(row_id)
        if kept is None:
            return self.expect(code, errno.ENOENT)
        if any(row.document['email'] == kept.document['email'] for row in self.model.rows.values()):
            return self.expect(code, errno.EEXIST)
        self.expect(code, None)
        (rev, updated_us, content_us, body) = self.database()[row_id]
        assert json.loads(body) == kept.document and updated_us == kept.updated_us, 'not what was deleted'
        self.model.rows[row_id] = Row(row_id, kept.document, rev, updated_us, content_us)
        del self.kept_rows[row_id]
        self.settle_all(row_id)

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
            self.kept_rows.pop(row_id, None)
            self.removed(row_id)
            self.settle_all(row_id)
        elif len(self.model.rows) < 8:
            self.tell('SQL create')
            self.settle_all(self.create_by_sql())
        else:
            return False

    def create_by_sql(self):
        email = self.word()
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

    def deliver(self, process):
        """A copy that was fetched once and is edited elsewhere, sent again and again with its time, as by rsync -a."""
        row_id = self.row_id()
        if row_id in self.stale[process[0]]:
            self.settle(process[0], row_id)
        if row_id not in self.copies or self.random.random() < 0.2:
            self.copies[row_id] = self.model.rows[row_id].document, self.model.rows[row_id].updated_us
        document, us = self.copies[row_id]
        document = {**document, 'first_name': 'd' * self.random.randrange(1, 90)}
        us += self.random.choice([1, 1, 1, -1]) * self.random.randrange(1, 10 ** 6)
        self.copies[row_id] = document, us
        self.tell(f'{process} deliver({row_id}, {us})')
        path, text, born = self.path(process, f'.{row_id}.json.Xy1Zw'), json.dumps(document).encode(), self.model.tick()
        self.actors[process].save(path, text.decode())
        os.utime(path, ns=(us * 1000, us * 1000))
        outcome = self.model.save(process, row_id, text, born=born, at_us=us)
        code = self.attempt(process, 'rename', path, self.path(process, row_id))[0]
        self.done(outcome, code, process, row_id, text)
        if code:
            os.unlink(path)

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

    STEPS = {'reader': 6, 'writer': 16, 'write': 22, 'fsync': 6, 'close': 18, 'kill': 2, 'unlink': 3, 'undelete': 2, 'touch': 3,
             'by_sql': 5, 'make': 10, 'names_other': 8, 'rename': 5, 'rename_over': 12, 'deliver': 5, 'move_away': 5}

    def run(self, seconds, least, most):
        """So many seconds, however slow the machine is not fewer than the least operations, nor more than the most."""
        for _ in range(5):
            self.settle_all(self.create_by_sql())
        end, self.operations = time.monotonic() + seconds, 0
        steps, weights = list(self.STEPS), list(self.STEPS.values())
        while self.operations < least or time.monotonic() < end and self.operations < most:
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


def is_json(data):
    with contextlib.suppress(ValueError):
        return isinstance(json.loads(bytes(data)), dict)
    return False


SEED = 20261128  # of the suite's own walk, always the same: what breaks it is what was changed


def walk(seconds, least, most, mnt, new_mount, sql, seed):
    seed = int(os.environ.get('CAMPUSFS_SEED') or seed)
    others = {row for row, in sql(REGION, 'SELECT id FROM users WHERE region = %s', (region_number(REGION),))}
    one = Walk(seed, [mnt, new_mount().directory], sql, others)
    try:
        one.run(seconds, least, most)
    except BaseException as error:
        last = '\n  '.join(one.log)
        raise AssertionError(f'CAMPUSFS_SEED={seed}, operation {one.operations}: {error!r}\n  {last}') from error
    finally:
        one.end()
    print(f'CAMPUSFS_SEED={seed}: {one.operations} operations: {dict(one.counts.most_common())}')
    return one


def test_a_walk(mnt, new_mount, sql, sanitized):
    least = 101 if sanitized else 301
    one = walk(10 if sanitized else 15, least, 6000, mnt, new_mount, sql, SEED)
    assert one.operations >= least and {'ECANCELED', 'EINVAL', 'EEXIST'} & set(one.counts)


@pytest.mark.long
def test_a_long_walk(mnt, new_mount, sql):
    walk(600, 0, 10 ** 6, mnt, new_mount, sql, random.randrange(10 ** 6))
