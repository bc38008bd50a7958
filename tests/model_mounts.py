"""Mounts beside the model of their contract (model.py): who has what open, what a save leads to, and whether everything
that can be seen agrees. tests/test_model.py walks on it."""

import contextlib
import errno
import json
import os
import random
import re
import stat
import time
from collections import Counter, deque
from dataclasses import dataclass

from conftest import region_number
from model import Model, Node, Row, micros
from saving import Actor

REGION = 'oceania'
NAMES = ['a.tmp', '4913', '{id}.json~', '.{id}.json.swp', 'folder/x', 'folder/y', 'other/x', 'x y\n']
FOLDERS = ['folder', 'other']
LINK = 'nowhere/nothing'  # where symbolic links lead
STALE_SECONDS = 10        # by then every mount shows what others have changed: one, and what a busy machine takes


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


class Mounts:
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
        self.copies = {}              # id: (document, time) of a copy that is edited elsewhere
        self.gone = []                # ids that were there
        self.kept_rows = {}           # id: Row, what .deleted keeps of them
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

    def word(self):
        """No digits: enough of them are taken for a card's number and blanked."""
        return ''.join(self.random.choices('abcdefghijklmnopqrstuvwxyz', k=14))

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
                    'email': f'{self.word()}@example.org',
                    'username': self.word()}
        document = dict(base)
        if row_id is None:
            document = {key: value for key, value in document.items() if key != 'id'}
            document.update(email=f'{self.word()}@example.org',
                            username=self.word())
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
            if process is not None and outcome.at_us is not None and outcome.base:
                model.deliveries[process[0], row_id] = outcome.base, content_us
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
        assert any(path.read_bytes() == text for path in texts), \
            f'the refused text is not kept: {text} but {[path.read_bytes() for path in texts]}'
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
                               exclusive=node.exclusive and not node.based, saved_us=node.saved_us, at_us=node.at_us)

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

    # ---- what can be seen

    def may_show(self, mount, row_id):
        row = self.model.rows.get(row_id)
        texts, until = self.stale[mount].get(row_id, ([], 0))
        return ([row.text] if row else []) + (texts if time.monotonic() < until else [])

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
