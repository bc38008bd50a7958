"""The faults of the ledger: each breaks something of a World, yields for how many seconds at most the writers are to go on
(None: TIMEOUT), and mends it. One with `node` takes a node away; the others may come on top of such a one."""

import contextlib
import os
import random

import psycopg2

from fault_proxy import APPEND, RESOLVE, SAVE, Loss
from ledger import Broken
from ledger_world import TIMEOUT
from mount_tools import wait_for
from shards import admin, set_options

FAULTS = {}
# A mount that sees nothing but an old primary which has returned cannot know better; to fence that one is for who promotes.
LAST_FIRST = ('kill-as-is+cut',)
UNNOTICED = ('kill-mongodb', 'freeze-mongodb')  # by rows


class LeftOut(Exception):
    """Why a fault cannot be made here."""


def fault(name, node=False):
    def register(function):
        FAULTS[name] = (contextlib.contextmanager(function), node)
        return function
    return register


# ---- a node goes

@fault('kill-as-is', node=True)
def _kill_and_return(world, choice):
    """kill -9 of the primary, a standby promoted; the old one returns as it was, a second primary, and is rewound."""
    yield _kill_primary(world, choice)
    old = world.fail_over()
    world.hold()
    old.start()
    before = world.writes_at(old)
    set_options(world.cluster, old, synchronous_standby_names='')  # it would say yes
    world.wait_state(old, 'fenced')
    world.hold()
    if world.writes_at(old) != before:
        raise Broken(f'{old.name}, an old primary that has returned, was written to')
    world.rewind(old)


@fault('kill-rewind', node=True)
def _kill_and_rewind(world, choice):
    yield _kill_primary(world, choice)
    old = world.fail_over()
    world.hold()
    world.rewind(old)


@fault('kill-rebuild', node=True)
def _kill_and_rebuild(world, choice):
    yield _kill_primary(world, choice)
    old = world.fail_over()
    world.hold()
    world.rebuild(old)


def _kill_primary(world, choice):
    """For how long the shard is without."""
    world.leader.kill()
    seconds = choice.choice([0, 0.2, 0.5, TIMEOUT + 1])
    world.detail(f'no primary for {seconds} s')
    return seconds


@fault('kill-standby', node=True)
def _kill_standby(world, choice):
    node = choice.choice(world.standbys())
    world.detail(node.name)
    node.kill()
    yield None
    node.start()


@fault('freeze-primary', node=True)
def _freeze_primary(world, choice):
    world.leader.freeze()
    yield None
    world.leader.thaw()


@fault('freeze-standby', node=True)
def _freeze_standby(world, choice):
    node = choice.choice(world.standbys())
    world.detail(node.name)
    node.freeze()
    yield None
    node.thaw()


@fault('freeze-promote', node=True)
def _freeze_and_promote(world, choice):
    """The primary stands still, another takes over, and it wakes up with all its connections."""
    world.leader.freeze()
    yield None
    old = world.fail_over()
    world.hold()
    old.thaw()
    world.hold()
    world.rebuild(old)


@fault('restart', node=True)
def _restart(world, choice):
    node, mode = choice.choice([world.leader, *world.nodes]), choice.choice(['fast', 'immediate'])
    seconds = choice.choice([0.2, 1])
    world.detail(f'{node.name}, {mode}, away for {seconds} s')
    node.stop(mode)
    yield seconds
    node.start()


@fault('disk-full', node=True)
def _disk_full(world, choice):
    """That of the third node, as a standby; where that ends it, it is started when there is room again."""
    node, ballast = world.third, _ballast(world)
    if world.leader is node:
        node.stop()
        world.rebuild(world.fail_over())
    _fill(ballast)
    _write_much(world, node)
    yield None
    ballast.unlink()
    node.start()


@fault('disk-full-primary', node=True)
def _disk_full_primary(world, choice):
    """That of the third node, as the primary: it ends itself, for it cannot write WAL, and another takes over."""
    node, ballast = world.third, _ballast(world)
    if world.leader is not node:
        world.switch_over(node)
    _fill(ballast)
    _write_much(world, node)
    yield None
    node.kill()  # were it up still, what follows would make a second primary
    old = world.fail_over()
    world.hold()
    # It ended in the midst of a record that goes on in the next segment, and the standbys have the first half. The one
    # that is promoted drops it; the other wants the second half, which nobody has: it does not follow, and is fenced.
    for other in world.standbys():
        if other is not old:
            world.rebuild(other)
    ballast.unlink()
    world.rebuild(old)


def _ballast(world):
    """The file that takes the room of the third node's disk."""
    folder = world.third.data_directory.parent
    if not os.path.ismount(folder):
        raise LeftOut('the third node has no disk of its own, which takes root')
    return folder / 'ballast'


def _fill(path):
    """Takes all the room that there is."""
    size, at = os.statvfs(path.parent).f_bavail * 4096, 0
    with open(path, 'wb') as file:
        while size >= 4096:
            try:
                os.posix_fallocate(file.fileno(), at, size)
                at += size
            except OSError:
                size //= 2


def _write_much(world, node):
    """WAL, until the node has found out that there is no room: it is gone or fails."""
    for _ in range(200):
        try:
            admin(world.cluster, world.leader, "SELECT pg_logical_emit_message(false, 'ledger', repeat('x', 1000000))")
        except psycopg2.Error:
            return
        if not node.is_running():
            return


# ---- what comes on top

@fault('pause')
def _pause(world, choice):
    """WAL is received and not replayed, by one standby or by both."""
    nodes = [node for node in world.standbys() if node.is_running() and not node.is_frozen()]
    nodes = choice.sample(nodes, choice.randint(1, len(nodes)))
    world.detail(', '.join(node.name for node in nodes))
    for node in nodes:
        admin(world.cluster, node, 'SELECT pg_wal_replay_pause() WHERE pg_is_in_recovery()', database='postgres')
    yield None
    for node in nodes:
        if node.is_running() and not node.is_frozen():
            admin(world.cluster, node, 'SELECT pg_wal_replay_resume() WHERE pg_is_in_recovery()', database='postgres')


@fault('cut')
def _cut(world, choice):
    """The network between one mount, or both, and one node, or all: silent, or refusing."""
    stations = choice.choice([['one'], ['two'], ['one', 'two']])
    nodes = choice.choice([[world.leader.name], [choice.choice(world.standbys()).name], [node.name for node in world.nodes]])
    how = choice.choice(['mute', 'refuse'])
    world.detail(f'{how}: {stations} from {nodes}')
    for proxy in _proxies(world, stations, nodes):
        getattr(proxy, how)()
    yield None
    for proxy in _proxies(world, stations, nodes):
        proxy.heal()


def _proxies(world, stations, nodes):
    return [proxy for (station, node), proxy in world.proxies.items() if station in stations and node in nodes]


@fault('commit')
def _cut_at_commit(world, choice):
    """A save's request, or the answer to its commit, gets lost; half the time also the answer to what became of it."""
    how, times = choice.choice(['answer', 'answer', 'request', 'race', 'silence']), choice.randint(1, 2)
    yield from _lose_many(world, how, times, choice.random() < 0.5)


@fault('commit-answer')
def _cut_at_answer(world, choice):
    yield from _lose_many(world, 'answer', 2, True)


@fault('commit-silence')
def _silence_at_commit(world, choice):
    """A save's answer never comes, and all else does: nothing but its deadline ends it."""
    yield from _lose(world, [Loss('silence', SAVE)])


def _lose_many(world, how, times, resolves_too):
    """Saves first, then a new row whose id was known and one whose was not, at last what became of one more save."""
    world.detail(f'{how} {times} times{", and what became of it" if resolves_too else ""}')
    yield from _lose(world, [Loss(how, SAVE, times), Loss(how, APPEND), Loss(how, APPEND, word=b'-new-')],
                     [Loss(how, SAVE), Loss('answer', RESOLVE)] if resolves_too else [])


def _lose(world, losses, chances=()):
    """One after the other; the last of `chances` comes or not: an answer may have been in time."""
    for loss in [*losses, *chances]:
        for proxy in world.proxies.values():
            proxy.loss = loss
        if chances and loss is chances[-1]:
            break
        wait_for(lambda loss=loss: loss.happened.is_set() or world.books.broken, 4 * TIMEOUT)
    yield None
    for proxy in world.proxies.values():
        proxy.loss = None


@fault('terminate')
def _terminate(world, choice):
    """All connections of the mounts, one by one, on every node that can be asked."""
    for node in world.nodes:
        if not node.is_running() or node.is_frozen():
            continue
        ours = "SELECT pid FROM pg_stat_activity WHERE usename IN ('campusfs_rw', 'campusfs_repl') AND application_name !~ '^emea-'"
        with contextlib.suppress(psycopg2.Error):
            for pid, in admin(world.cluster, node, ours, database='postgres'):
                admin(world.cluster, node, 'SELECT pg_terminate_backend(%s)', (pid,), 'postgres')
    yield None


@fault('crowd')
def _crowd(world, choice):
    """Others take every connection that a node has, the mounts' as well."""
    node = choice.choice([node for node in world.nodes if node.is_running() and not node.is_frozen()])
    world.detail(node.name)
    with contextlib.ExitStack() as crowd:
        _take_all(world, node, crowd)
        with contextlib.suppress(psycopg2.Error):
            admin(world.cluster, node, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'campusfs_rw'",
                  database='postgres')
        _take_all(world, node, crowd)
        yield None


def _take_all(world, node, crowd):
    with contextlib.suppress(psycopg2.Error):
        while True:
            crowd.enter_context(contextlib.closing(world.cluster.connect(node, 'ro')))


@fault('lock')
def _lock(world, choice):
    yield from _locked(world, choice, choice.choice([1, 1, TIMEOUT + 2]))


@fault('lock-minute')
def _lock_minute(world, choice):
    yield from _locked(world, choice, 60)


def _locked(world, choice, seconds):
    """Rows of the writers, or their table."""
    table = choice.random() < 0.5
    world.detail(f'{"the table" if table else "rows"} for {seconds} s')
    with contextlib.ExitStack() as held:
        with contextlib.suppress(psycopg2.OperationalError):  # there is no primary
            held.enter_context(_holder(world, table))
        world.hold(10 ** 9, seconds)
        yield 0


@contextlib.contextmanager
def _holder(world, table):
    with contextlib.closing(world.cluster.connect(world.leader, options='-c search_path=campusfs,pg_catalog')) as holder:
        holder.autocommit = False
        if table:
            holder.cursor().execute('LOCK TABLE users IN ACCESS EXCLUSIVE MODE')
        else:
            holder.cursor().execute('SELECT FROM users WHERE id = ANY(%s) FOR UPDATE', ([w.row_id for w in world.writers],))
        yield None


@fault('daemon')
def _daemon(world, choice):
    station = choice.choice(world.stations)
    world.detail(f'station {station.name}')
    station.restart()
    yield None


@fault('kill-mongodb')
def _kill_mongodb(world, choice):
    yield from _without_mongodb(world, 'kill', 'start')


@fault('freeze-mongodb')
def _freeze_mongodb(world, choice):
    yield from _without_mongodb(world, 'freeze', 'thaw')


def _without_mongodb(world, broken, mended):
    """Until each settler has found it out; rows are saved and read meanwhile as if nothing had happened."""
    if not world.mongodb:
        raise LeftOut('this world has no MongoDB server')
    before = [settler.row.last for settler in world.settlers]
    getattr(world.mongodb, broken)()
    try:
        wait_for(lambda: world.books.broken or all(settler.row.last > last + 1 for settler, last in zip(world.settlers, before)),
                 4 * TIMEOUT)
        yield None
    finally:
        getattr(world.mongodb, mended)()


# ---- the schedule

def schedule(seed, count):
    """`count` entries, each a fault or two at once ('kill-rewind+pause'); every kind is there when there is room for it."""
    choice = random.Random(f'{seed}/schedule')
    names = list(FAULTS)
    choice.shuffle(names)
    names = (names + [choice.choice([name for name in FAULTS if name != 'lock-minute']) for _ in range(count)])[:count]
    mild = [name for name, (_, node) in FAULTS.items() if not node and name not in ('lock-minute', 'crowd', 'lock')]
    return [f'{name}+{choice.choice(mild)}' if FAULTS[name][1] and choice.random() < 0.3 else name for name in names]


def run_fault(world, entry, index):
    """Breaks, lets the writers go on, mends. What comes on top begins first and ends last."""
    world.details = []
    world.books.set_faulty(True, rows=not set(entry.split('+')) <= set(UNNOTICED))
    names = sorted(entry.split('+'), key=lambda name: FAULTS[name][1])
    if entry in LAST_FIRST:
        names.reverse()
    with contextlib.ExitStack() as broken:
        seconds = [broken.enter_context(FAULTS[name][0](world, random.Random(f'{world.seed}/{index}/{name}'))) for name in names]
        world.hold(timeout=min(TIMEOUT if one is None else one for one in seconds))
