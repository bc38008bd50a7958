"""The feed of changes: how fast a commit is seen through a mount, what the stream costs the primary, what an idle mount
takes."""

import contextlib
import json
import math
import os
import random
import statistics
import time
from pathlib import Path

from works import WorkError

SEEN_GOAL_MS = {'p50': 5, 'p99': 50}
COST_GOAL = 0.98   # of the rate without a stream
IDLE_GOAL = 0.001  # of one processor
WRITERS = 16
BLOCKS_MIN = 5    # of four turns
SETTLED = 1       # seconds until a mount has all that it begins with behind it
GIVE_UP = 5  # seconds
SETTLE = 20


def states(root):
    health = json.loads((root / '.campusfs' / 'health.json').read_text())
    return {shard['feed']['state'] for shard in health['shards']}


@contextlib.contextmanager
def mounted(cluster, mountpoint, state='streaming', **settings):
    """The root of a mount whose feeds all are in that state."""
    config = cluster.write_config(cluster.directory / 'feed.conf', **settings)
    mount = cluster.mount(mountpoint, config=config)
    try:
        deadline = time.monotonic() + SETTLE
        while states(mount.directory) != {state}:
            if time.monotonic() > deadline:
                raise WorkError(f'the feeds are {states(mount.directory)}, not {state}')
            time.sleep(0.05)
        yield mount
    finally:
        cluster.mounts.remove(mount)
        mount.stop()


def seen_after(database, directory, times):
    """Milliseconds from the commit of an UPDATE, as its client sees it, to a cat that has it and to a stat that has it."""
    found = {'cat': [], 'stat': []}
    paths = sorted(directory.glob('*.json'))[:50]
    with contextlib.closing(database.connect()) as connection, connection.cursor() as cursor:
        for n in range(times):
            path, how = paths[n % len(paths)], ('cat', 'stat')[n // len(paths) % 2]
            mark, before = f'Seen{n}x{time.monotonic_ns()}', os.stat(path)
            path.read_bytes()
            cursor.execute('UPDATE campusfs.users SET first_name = %s WHERE id = %s', (mark, path.stem))
            committed = time.perf_counter()
            while not (mark.encode() in path.read_bytes() if how == 'cat'
                       else os.stat(path).st_mtime_ns != before.st_mtime_ns):
                if time.perf_counter() - committed > GIVE_UP:
                    raise WorkError(f'{path}: the change is not seen after {GIVE_UP} s')
            found[how].append((time.perf_counter() - committed) * 1e3)
            time.sleep(0.002)
    return found


def percentiles(values):
    ordered = sorted(values)
    return {'p50': statistics.median(ordered), 'p99': ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)],
            'max': ordered[-1], 'samples': len(ordered)}


def processor_seconds(pid):
    """What all threads of a process have run, by the scheduler's clock."""
    return sum(int(path.read_text().split()[0]) for path in Path(f'/proc/{pid}/task').glob('*/schedstat')) / 1e9


def idle_share(mount, seconds):
    """The part of a processor that a mount takes that nobody uses, its watchers included."""
    time.sleep(2)
    before, begun = processor_seconds(mount.pid()), time.monotonic()
    time.sleep(seconds)
    return (processor_seconds(mount.pid()) - before) / (time.monotonic() - begun)


def server_seconds(database, node):
    """What a server's processes have run that have ended, those of its writers among them; in ticks of 10 ms."""
    with contextlib.closing(database.connect()) as connection, connection.cursor() as cursor:
        writers = 1
        while writers:
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'bench'")
            (writers,), = cursor.fetchall()
    fields = Path(f'/proc/{node.pid()}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf('SC_CLK_TCK')


def sender_of(database):
    """The process that sends the stream."""
    with contextlib.closing(database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pid FROM pg_stat_replication WHERE application_name = 'campusfs_feed'")
        (pid,), = cursor.fetchall()
    return pid


def cost_of_stream(cluster, database, mountpoint, edited_pack, seconds):
    """Short turns of the writers, alone, streamed, streamed, alone, and so on for so long: what drifts, drifts for both. Each such
    four give one ratio. Of the streamed turns also what the processes took that the stream is to blame for."""
    node = cluster.primary(database.region)
    ratios, rates = [], {'alone': [], 'streamed': []}
    saves, taken = {'alone': 0, 'streamed': 0}, {'alone': 0, 'streamed': 0, 'sender': 0, 'mount': 0}

    def turn(what):
        pack, before = edited_pack(), server_seconds(database, node)
        done = database.put(pack, WRITERS)
        taken[what] += server_seconds(database, node) - before
        saves[what] += done['rows']
        rates[what].append(done['rate'])
        return done['rate']
    with contextlib.closing(database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute('CHECKPOINT')
    turn('alone')
    rates['alone'], saves['alone'], taken['alone'] = [], 0, 0
    begun = time.monotonic()
    while len(ratios) < BLOCKS_MIN or time.monotonic() - begun < seconds:
        alone = [turn('alone')]
        with mounted(cluster, mountpoint) as mount:
            time.sleep(SETTLED)
            sender = sender_of(database)
            before = processor_seconds(sender), processor_seconds(mount.pid())
            streamed = [turn('streamed') for _ in range(2)]
            taken['sender'] += processor_seconds(sender) - before[0]
            taken['mount'] += processor_seconds(mount.pid()) - before[1]
        alone.append(turn('alone'))
        ratios.append(math.sqrt(streamed[0] * streamed[1] / (alone[0] * alone[1])))
    chance = random.Random(1)
    medians = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(2000))
    return {'rates': rates, 'ratios': ratios, 'cost': statistics.median(ratios), 'between': [medians[50], medians[1950]],
            'us_a_save': {name: seconds / saves.get(name, saves['streamed']) * 1e6 for name, seconds in taken.items()}}


def measure(cluster, database, mountpoint, edited_pack, *, times, seconds, idle_seconds):
    """All figures. `edited_pack()` makes the documents that the writers save."""
    region = database.region
    result = {'seen': {}}
    for feed, state in (('auto', 'streaming'), ('poll', 'polling')):
        with mounted(cluster, mountpoint, state, feed=feed) as mount:
            directory = mount.directory / 'regions' / region / 'users'
            found = seen_after(database, directory, times if feed == 'auto' else times // 10)
            for how, values in found.items():
                if values:
                    result['seen'][f'{state}, {how}'] = percentiles(values)
            if feed == 'auto':
                result['idle'] = idle_share(mount, idle_seconds)
    result.update(cost_of_stream(cluster, database, mountpoint, edited_pack, seconds))
    return result


def print_result(result):
    print('\nFeed: from the commit of an UPDATE by SQL until a mount shows it')
    for what, figures in result['seen'].items():
        goals = ', '.join(f'{key} <= {goal} ms' for key, goal in SEEN_GOAL_MS.items())
        print(f'  {what:18} p50 {figures["p50"]:8.2f} ms   p99 {figures["p99"]:8.2f} ms   max {figures["max"]:8.2f} ms'
              f'   of {figures["samples"]}' + (f'   (goals {goals})' if what.startswith('streaming') else ''))
    rates = {key: statistics.median(values) for key, values in result['rates'].items()}
    low, high = result['between']
    print(f'  {WRITERS} writers: {rates["alone"]:,.0f} saves a second alone, {rates["streamed"]:,.0f} with a stream; their ratio, of '
          f'{len(result["ratios"])} times four turns: {result["cost"]:.3f}, 95 % sure between {low:.3f} and {high:.3f} (goal >= {COST_GOAL})')
    used = result['us_a_save']
    print(f'  a save takes {used["alone"]:.0f} us of a processor by its writer\'s session alone, {used["streamed"]:.0f} us with a stream, whose '
          f'sender takes {used["sender"]:.1f} us and the mount {used["mount"]:.1f} us')
    print(f'  an idle mount takes {result["idle"]:.3%} of a processor (goal <= {IDLE_GOAL:.1%})')
