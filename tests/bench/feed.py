"""The feed of changes: how fast a commit is seen through a mount, what the stream costs the primary, what an idle mount
takes."""

import contextlib
import json
import os
import statistics
import time
from pathlib import Path

from works import WorkError

SEEN_GOAL_MS = {'p50': 5, 'p99': 50}
COST_GOAL = 0.98   # of the rate without a stream
IDLE_GOAL = 0.001  # of one processor
WRITERS = 16
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


def measure(cluster, database, mountpoint, edited_pack, *, times, turns, idle_seconds):
    """All figures. `edited_pack()` makes the documents that the writers save."""
    region = database.region
    result = {'seen': {}, 'rates': {'alone': [], 'streamed': []}}
    for feed, state in (('auto', 'streaming'), ('poll', 'polling')):
        with mounted(cluster, mountpoint, state, feed=feed) as mount:
            directory = mount.directory / 'regions' / region / 'users'
            found = seen_after(database, directory, times if feed == 'auto' else times // 10)
            for how, values in found.items():
                if values:
                    result['seen'][f'{state}, {how}'] = percentiles(values)
            if feed == 'auto':
                result['idle'] = idle_share(mount, idle_seconds)
    for _ in range(turns):
        result['rates']['alone'].append(database.put(edited_pack(), WRITERS)['rate'])
        with mounted(cluster, mountpoint):
            result['rates']['streamed'].append(database.put(edited_pack(), WRITERS)['rate'])
    rates = result['rates']
    result['cost'] = statistics.median(rates['streamed']) / statistics.median(rates['alone'])
    return result


def print_result(result):
    print('\nFeed: from the commit of an UPDATE by SQL until a mount shows it')
    for what, figures in result['seen'].items():
        goals = ', '.join(f'{key} <= {goal} ms' for key, goal in SEEN_GOAL_MS.items())
        print(f'  {what:18} p50 {figures["p50"]:8.2f} ms   p99 {figures["p99"]:8.2f} ms   max {figures["max"]:8.2f} ms'
              f'   of {figures["samples"]}' + (f'   (goals {goals})' if what.startswith('streaming') else ''))
    rates = {key: statistics.median(values) for key, values in result['rates'].items()}
    print(f'  {WRITERS} writers: {rates["alone"]:,.0f} saves a second alone, {rates["streamed"]:,.0f} with a stream: '
          f'{result["cost"]:.3f} (goal >= {COST_GOAL})')
    print(f'  an idle mount takes {result["idle"]:.3%} of a processor (goal <= {IDLE_GOAL:.1%})')
