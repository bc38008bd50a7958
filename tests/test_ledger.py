"""A ledger of what writers were told, through every fault: on three nodes of which one standby is synchronous, through two
mounts.

After each fault, when it is mended: no acknowledged save is lost, none is made twice, refused ones are nowhere, one node
takes writes, no mount showed less than it had saved or shown, no call outlived its deadline, nothing fails any more,
both mounts show what is there, and have no more descriptors, threads and connections than before. In the long form there is
a MongoDB server too, with writers of preferences: what is acknowledged is there, and while nothing but that server is killed or
frozen, nothing fails that has to do with rows alone.

A failure prints the seed and the schedule so far, and how to do it again:
    LEDGER_SEED=7 LEDGER_FAULTS=kill-rewind+pause,commit tests/run --fast tests/test_ledger.py -k chosen
LEDGER_FAULTS is a list of the names in ledger_faults.py, with + two at once, or a number: so many of the seed's own.
The faults are the same then, the moments at which they meet the writers are not.
A hundred: tests/run --fast -m long tests/test_ledger.py
"""

import os
import subprocess
import time

import pytest

from conftest import BREAKABLE, fragile_cluster
from ledger_faults import FAULTS, LeftOut, run_fault, schedule
from ledger_world import World
from mongodb import MongoServer

TEN = ('commit-answer', 'daemon', 'kill-as-is', 'pause', 'terminate', 'freeze-standby+commit-silence', 'cut', 'kill-standby', 'lock', 'restart')


def percentile(values, percent):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] if ordered else float('nan')


def figures(world, done, seconds):
    books = world.books
    return (f'ledger, seed {world.seed}: {len(done)} faults in {seconds:.0f} s; {books.operations} operations, {books.saved} '
            f'saved, {books.refused} refused, {books.unknown} unknown, {books.not_read} reads failed; longest call '
            f'{books.longest[0]:.2f} s ({books.longest[1]}); SQL commit to both mounts p50 '
            f'{1000 * percentile(books.seen, 50):.1f} ms, p99 {1000 * percentile(books.seen, 99):.1f} ms; healed to all seen '
            f'p50 {1000 * percentile(books.healed, 50):.0f} ms, p99 {1000 * percentile(books.healed, 99):.0f} ms')


def run_ledger(cluster, seed, entries, disk=None, mongodb=None):
    begun, done = time.monotonic(), []
    world = World(cluster, seed, disk, mongodb)
    try:
        world.check()
        for index, entry in enumerate(entries):
            try:
                run_fault(world, entry, index)
            except LeftOut as why:
                print(f'{index}: {entry} left out: {why}')
                continue
            finally:
                done.append(f'{entry} ({"; ".join(world.details)})')
            world.check()
            print(f'{index}: {done[-1]}: {time.monotonic() - begun:.1f} s', flush=True)
        world.check_end()
    except Exception as error:
        again = f'LEDGER_SEED={seed} LEDGER_FAULTS={",".join(entries[:len(done)])}'
        said = '\n  '.join(done)
        raise AssertionError(f'{error}\nby then:\n  {said}\nagain: {again} tests/run --fast tests/test_ledger.py '
                             f'-k chosen\n{figures(world, done, time.monotonic() - begun)}') from error
    finally:
        world.close()
    print(figures(world, done, time.monotonic() - begun))


@pytest.fixture
def own(run_directory, campusfs):
    """Servers for these tests alone: they end with other roles than they began with."""
    with fragile_cluster(run_directory / 'ledger', campusfs, **BREAKABLE) as cluster:
        yield cluster


@pytest.fixture
def disk(run_directory):
    """A small disk of its own, None where none can be mounted."""
    folder = run_directory / 'ledger-disk'
    folder.mkdir()
    mounted = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=400m,mode=755', 'tmpfs', folder], capture_output=True,
                             check=False).returncode == 0
    if mounted:
        subprocess.run(['chown', 'postgres:', folder], check=True)
    yield folder if mounted else None
    if mounted:
        subprocess.run(['umount', '-l', folder], check=True)


@pytest.fixture
def mongodb(own, run_directory):
    """A server for preferences, as init leaves it."""
    server = MongoServer(run_directory / 'ledger-mongodb', run_directory / 'ledger-mongodb.log').start()
    own.run('init', config=own.write_config(own.directory / 'ledger-init.conf', mongodb_uri=server.uri))
    yield server
    server.thaw()
    server.kill()


def test_ten_faults(own):
    run_ledger(own, 130, TEN)


def chosen(default):
    seed, faults = os.environ.get('LEDGER_SEED', '5'), os.environ.get('LEDGER_FAULTS', default)
    entries = schedule(seed, int(faults)) if faults.isdigit() else faults.split(',')
    unknown = {name for entry in entries for name in entry.split('+')} - FAULTS.keys()
    assert not unknown, f'{unknown}: there are {", ".join(FAULTS)}'
    return seed, entries


@pytest.mark.long
def test_a_hundred_faults(own, disk, mongodb):
    run_ledger(own, *chosen('100'), disk, mongodb)


@pytest.mark.long
@pytest.mark.skipif('LEDGER_FAULTS' not in os.environ, reason='LEDGER_FAULTS says which')
def test_chosen_faults(own, disk, mongodb):
    run_ledger(own, *chosen('10'), disk, mongodb)
