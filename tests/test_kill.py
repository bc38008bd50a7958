"""SIGKILL to the daemon in the middle of saves: each save that a writer was told of is in the database, nothing is that
nobody sent, and the next mount on the same place works at once.

Two hundred kills: tests/run -m long tests/test_kill.py
"""

import errno
import json
import os
import random
import subprocess
import sys
import time

import pytest

from conftest import region_number
from saving import eventually

# Saves again and again from each line of its input on until a call fails; keeps a ledger of what it has sent and of
# what it was told is saved. argv: way, path, ledger, a name of its own.
WRITER = '''
import itertools, json, os, sys
way, path, ledger, name = sys.argv[1:]
ledger = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
folder = os.path.dirname(path)
number = itertools.count(1)

def note(what, n):
    os.write(ledger, f'{what} {n}\\n'.encode())

def write(path, text):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(fd, text.encode())
    except OSError:
        try:
            os.close(fd)
        except OSError:
            pass
        raise
    os.close(fd)

def save(n):
    if way == 'new':
        document = {'email': f'{name}-{n}@example.org', 'username': f'{name}-{n}', 'first_name': 'New'}
    else:
        document = json.load(open(path))
        document['first_name'] = f'Save {n}'
    text = json.dumps(document)
    if way == 'new by rename':
        document = {'email': f'{name}-{n}@example.org', 'username': f'{name}-{n}', 'first_name': 'New'}
        text = json.dumps(document)
    note('sent', n)
    if way in ('close', 'new'):
        write(path, text)
    elif way in ('rename', 'new by rename'):
        write(f'{folder}/{name}.tmp', text)
        os.rename(f'{folder}/{name}.tmp', path if way == 'rename' else f'{folder}/new.json')
    elif way == 'fsync':
        fd = os.open(path, os.O_RDWR)
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, text.encode(), 0)
            os.fsync(fd)
            note('saved', n)
        finally:
            os.close(fd)
        return
    note('saved', n)

for line in sys.stdin:
    try:
        while True:
            save(next(number))
    except OSError as error:
        print(error.errno, flush=True)
    except ValueError as error:  # what was read is no document
        print(repr(error), flush=True)
'''
WAYS = ['close', 'rename', 'fsync', 'new', 'new by rename']
DEAD = {errno.ENOTCONN, errno.ECONNABORTED}


class Writer:
    def __init__(self, way, row, folder, directory, name):
        self.way, self.row, self.name = way, row, name
        self.ledger = directory / f'{name}.ledger'
        path = folder / ('new.json' if way == 'new' else f'{row.id}.json')
        self.process = subprocess.Popen([sys.executable, '-c', WRITER, way, path, self.ledger, name], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def go(self):
        self.process.stdin.write('go\n')
        self.process.stdin.flush()

    def error(self):
        """What stopped it."""
        answer = self.process.stdout.readline().strip()
        assert answer.isdigit(), f'{self.way}: {answer}'
        return int(answer)

    def told(self):
        """What it has sent, and what it was told is saved, in this order."""
        lines = [line.split() for line in self.ledger.read_text().splitlines()] if self.ledger.exists() else []
        return [int(n) for what, n in lines if what == 'sent'], [int(n) for what, n in lines if what == 'saved']

    def judge(self, sql):
        sent, saved = self.told()
        if self.way.startswith('new'):
            found = [int(name.rsplit('-', 1)[1]) for name, in sql(
                'europe', 'SELECT username FROM users WHERE username LIKE %s', (f'{self.name}-%',))]
            assert len(found) == len(set(found)), 'a row was made twice'
            assert set(saved) <= set(found) <= set(sent), f'{self.way}: saved {set(saved) - set(found)} is not there'
        else:
            (first_name,), = sql('europe', 'SELECT first_name FROM users WHERE id = %s', (self.row.id,))
            n = int(first_name.split()[1]) if first_name.startswith('Save ') else 0
            last = saved[-1] if saved else 0
            assert n == last or n in sent and n > last, f'{self.way}: {last} was saved, the row has {n}'
        return len(saved)


def kill_again_and_again(times, new_mount, new_user, sql, unique, tmp_path):
    mount, chance = new_mount(), random.Random()
    folder = mount.directory / 'regions/europe/users'
    writers = [Writer(way, new_user(), folder, tmp_path, f'k{unique()}') for way in WAYS]
    starts = []
    for kill in range(times):
        before = [len(writer.told()[1]) for writer in writers]
        for writer in writers:
            writer.go()
        eventually(lambda: all(len(w.told()[1]) > n for w, n in zip(writers, before)), 30)
        time.sleep(chance.uniform(0, 0.05))
        mount.kill()
        errors = {writer.error() for writer in writers}
        assert errors <= DEAD, {errno.errorcode[code] for code in errors}
        eventually(lambda: sql('europe', "SELECT 1 FROM pg_stat_activity WHERE usename = 'campusfs_rw' "
                                         "AND state <> 'idle'") == [])
        saves = [writer.judge(sql) for writer in writers]
        start = time.monotonic()
        mount.start(foreground=True)
        assert writers[0].row.path.name in os.listdir(folder)
        json.loads((folder / writers[0].row.path.name).read_bytes())
        starts.append(time.monotonic() - start)
    for writer in writers:
        writer.process.stdin.close()
        writer.process.wait()
        writer.judge(sql)
    assert max(starts) < 20, starts
    ids = sql('europe', 'SELECT count(*), count(DISTINCT id) FROM users WHERE region = %s', (region_number('europe'),))
    assert ids[0][0] == ids[0][1]
    print(f'{times} kills, {sum(saves)} saves told, mounted again in {min(starts):.2f} to {max(starts):.2f} s')


def test_killed_while_saving(mnt, new_mount, new_user, sql, unique, tmp_path):
    kill_again_and_again(15, new_mount, new_user, sql, unique, tmp_path)


@pytest.mark.long
def test_killed_two_hundred_times_while_saving(mnt, new_mount, new_user, sql, unique, tmp_path):
    kill_again_and_again(200, new_mount, new_user, sql, unique, tmp_path)
