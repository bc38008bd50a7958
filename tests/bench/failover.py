#!/usr/bin/python3
"""What a failover costs those who save, and what a read costs right after an own save.

    tests/bench/failover.py [--rounds N] [--saves N] [PROGRAM]

A cluster of its own, on this machine. Each round: one process saves a row again and again; the primary is killed
(SIGKILL to every process) and its replica promoted at once; the time from when the new primary takes writes to when a
save succeeds is campusfs's part of the gap: what a supervisor needs to notice a death and the server to promote is
not. Then the old primary is made a replica again. After that --saves saves, each followed by a read of the row, with
the caches as by default and without any."""

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / 'mount'), str(ROOT / 'tests')]

from cluster import Cluster  # noqa: E402
from shards import new_user, path_of  # noqa: E402


class Writer(threading.Thread):
    """Saves one row until stopped: when each save that was good had ended."""

    def __init__(self, path):
        super().__init__(daemon=True)
        document = json.loads(path.read_bytes())
        document.pop('updated_at')
        self.path, self.document = path, document
        self.good, self.errors, self.go_on = [], [], True
        self.start()

    def run(self):
        number = 0
        while self.go_on:
            number += 1
            try:
                self.path.write_text(json.dumps({**self.document, 'first_name': f'Save {number}'}))
                self.good.append(time.monotonic())
            except OSError as error:
                self.errors.append(error.strerror)

    def stop(self):
        self.go_on = False
        self.join()


def promoted_at(cluster, node):
    """When the node was first seen to take writes; asked without a pause."""
    connection = cluster.connect(node, database='postgres')
    with connection.cursor() as cursor:
        while True:
            cursor.execute('SELECT pg_is_in_recovery()')
            if not cursor.fetchone()[0]:
                connection.close()
                return time.monotonic()
            time.sleep(0.001)


def fail_over(cluster, path):
    """One round: (seconds until promoted, seconds from there to the first good save, errors seen by the writer)."""
    writer = Writer(path)
    while len(writer.good) < 20:
        time.sleep(0.01)
    old, new = cluster.primary('emea'), cluster.replica('emea')
    promoted = []
    watcher = threading.Thread(target=lambda: promoted.append(promoted_at(cluster, new)))
    watcher.start()
    old.kill()
    killed = time.monotonic()
    new.promote()
    watcher.join()
    while not any(at > promoted[0] for at in writer.good):
        time.sleep(0.005)
    writer.stop()
    after = [at for at in writer.good if at > killed]
    cluster.rejoin(old, new)
    return promoted[0] - killed, max(0, after[0] - promoted[0]), writer.errors


def save_then_read(path, count):
    """Seconds of a read right after a save, each."""
    document = json.loads(path.read_bytes())
    document.pop('updated_at')
    times = []
    for number in range(count):
        name = f'Save {number}'
        path.write_text(json.dumps({**document, 'first_name': name}))
        begun = time.perf_counter()
        seen = path.read_bytes()
        times.append(time.perf_counter() - begun)
        assert json.loads(seen)['first_name'] == name
    return sorted(times)


def percentile(values, percent):
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--rounds', type=int, default=12)
    parser.add_argument('--saves', type=int, default=500)
    parser.add_argument('program', nargs='?', default=ROOT / 'build/src/campusfs')
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix='campusfs-bench-') as directory:
        os.chmod(directory, 0o755)
        cluster = Cluster(Path(directory) / 'cluster', durable=False, mongodb=False, program=Path(options.program).absolute())
        try:
            cluster.create()
            cluster.run('init')
            cluster.set_passwords()
            measure(cluster, options)
        finally:
            cluster.kill()


def measure(cluster, options):
    mount = cluster.mount(cluster.directory / 'mnt')
    path = path_of(mount.directory, new_user(cluster))
    rounds = [fail_over(cluster, path) for _ in range(options.rounds)]
    promotions, gaps = [part[0] for part in rounds], [part[1] for part in rounds]
    print(f'{len(rounds)} failovers: kill to promoted p50 {statistics.median(promotions):.3f} s, max {max(promotions):.3f} s')
    print(f'promoted to the first good save: p50 {statistics.median(gaps):.3f} s, max {max(gaps):.3f} s')
    print(f'saves that failed meanwhile: {sum(len(part[2]) for part in rounds)}')
    bare = cluster.mount(cluster.directory / 'mnt-bare',
                         config=cluster.write_config(cluster.directory / 'bare.conf', cache_ttl='0', cache_size='0'))
    for name, one in (('caches as by default', mount), ('no cache', bare)):
        times = save_then_read(path_of(one.directory, int(path.stem)), options.saves)
        print(f'read after an own save, {name}: p50 {percentile(times, 50) * 1000:.2f} ms, '
              f'p99 {percentile(times, 99) * 1000:.2f} ms, max {max(times) * 1000:.2f} ms')


if __name__ == '__main__':
    main()
