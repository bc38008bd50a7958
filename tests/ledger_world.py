"""One shard of three nodes, one of them a synchronous standby at any time, two mounts of it behind proxies, and writers:
what the faults of ledger_faults.py break, and the checks that follow each."""

import contextlib
import re
import threading
import time

from fault_proxy import FaultProxy
from ledger import CONDITION, SEEN_BOUND, Books, Broken, Settler, Station, Writer
from mount_tools import wait_for
from shards import admin, first_name, health_of, new_user, node_of, path_of, reset_options, set_options, shard_of

TIMEOUT = 3  # seconds, of the mounts
SETTINGS = {'timeout': f'{TIMEOUT}s', 'failover_wait': f'{TIMEOUT}s', 'connect_timeout': '1s', 'cache_ttl': '1s',
            'cache_size': '20MB', 'pool_size': '4', 'pool_idle': '1s', 'max_lag': '1min', 'max_lag_bytes': '1GB', 'mongodb_pool_size': '4', 'media_sweep': '0'}
SYNCHRONOUS = {'synchronous_standby_names': 'ANY 1 ("emea-a", "emea-b", "emea-c")', 'synchronous_commit': 'on',
               'full_page_writes': 'on', 'wal_keep_size': '64MB'}  # the last two for pg_rewind
SPARE_DESCRIPTORS, SPARE_THREADS = 6, 12  # libfuse keeps ten idle threads


class World:
    """Made of a cluster whose shard emea has the nodes a and b, and, where one is given, a MongoDB server with preferences;
    .close() leaves the cluster as it was."""

    def __init__(self, cluster, seed, disk=None, mongodb=None):
        self.cluster, self.seed, self.mongodb = cluster, seed, mongodb
        self.third = cluster.add_replica('emea', 'c', disk)
        self.nodes = cluster.nodes_of('emea')
        self.leader = cluster.primary('emea')
        self.books = Books(TIMEOUT)
        self.gate = threading.Event()
        self.proxies, self.stations, self.writers, self.settlers = {}, [], [], []
        self.details = []  # of the fault under way, for people
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self):
        for node in self.nodes:
            set_options(self.cluster, node, **SYNCHRONOUS)
        for name, stale_reads in (('one', 'refuse'), ('two', 'serve')):
            self.stations.append(self._station(name, stale_reads))
        self.probe = new_user(self.cluster, first_name='probe-0')
        self.probes = 0
        self.wait_ok()
        if self.mongodb:
            self.settlers = [Settler(f's{number}', self, station, self.seed) for number, station in enumerate(self.stations)]
        for station in self.stations:
            station.rest = station.possessions()
        self.writers = [Writer(f'w{number}', self, station, self.seed)
                        for number, station in enumerate(self.stations * 2)]
        for writer in self._all():
            writer.start()
        self.gate.set()

    def _all(self):
        return [*self.writers, *self.settlers]

    def _station(self, name, stale_reads):
        cluster = self.cluster
        config = cluster.write_config(cluster.directory / f'ledger-{name}.conf', **SETTINGS, stale_reads=stale_reads,
                                      state_dir=cluster.directory / 'ledger-state',
                                      mongodb_uri=self.mongodb.uri if self.mongodb else None)
        text = config.read_text()
        for node in self.nodes:
            proxy = self.proxies[name, node.name] = FaultProxy(lambda node=node: node.port)
            text = re.sub(rf'^({node.name} = .*port=)\d+', rf'\g<1>{proxy.port}', text, flags=re.MULTILINE)
        config.write_text(text)
        return Station(name, lambda: cluster.mount(cluster.directory / f'mnt-ledger-{name}', config=config),
                       stale_reads == 'serve')

    # ---- nodes

    def standbys(self):
        return [node for node in self.nodes if node is not self.leader]

    def position(self, node):
        (lsn,), = admin(self.cluster, node, "SELECT greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0'",
                        database='postgres')
        return lsn

    def resume(self, node):
        """Has a standby replay all that it has received."""
        admin(self.cluster, node, 'SELECT pg_wal_replay_resume() WHERE pg_is_in_recovery()', database='postgres')
        seen = []

        def stands_still():  # the last that was received may be part of a record, so that is never reached
            seen.append(admin(self.cluster, node, 'SELECT pg_last_wal_replay_lsn()', database='postgres'))
            return seen[-1:] == seen[-2:-1]
        if not wait_for(stands_still, CONDITION, 0.1):
            raise Broken(f'{node.name} replays without an end')

    def fail_over(self, new=None):
        """The standby that has most, or this one, becomes the leader, the other follows it; returns the old leader."""
        candidates = [node for node in self.standbys() if node.is_running() and not node.is_frozen()]
        for node in candidates:  # one that is paused does not change over, and knows less well what it has
            self.resume(node)
        new = new or max(candidates, key=self.position)
        old, self.leader = self.leader, new
        new.promote()
        for node in candidates:
            if node is not new:
                self.cluster.repoint(node, new)
        self.detail(f'{new.name} promoted instead of {old.name}')
        return old

    def switch_over(self, new):
        """Planned: the leader ends when its standbys have all that it has, and another one is promoted."""
        self.leader.stop()
        old = self.fail_over(new)
        self.rebuild(old)

    def rebuild(self, node):
        self.cluster.rejoin(node, self.leader)

    def rewind(self, node):
        self.cluster.rewind(node, self.leader)

    def writes_at(self, node):
        return admin(self.cluster, node, 'SELECT (SELECT count(*) FROM change_log), (SELECT count(*) FROM request_log)')

    def detail(self, text):
        self.details.append(text)

    # ---- waiting

    def hold(self, operations=12, timeout=TIMEOUT):
        """Writers go on with what is broken: until so many operations have ended, or the time is over."""
        self.books.wait_operations(operations, timeout)

    def wait_ok(self):
        for station in self.stations:
            report = {}

            def is_ok(station=station, report=report):
                with contextlib.suppress(OSError):
                    report.update(health_of(station.mount))
                    return report['status'] == 'ok' and shard_of(report)['feed']['state'] == 'streaming'
            if not wait_for(is_ok, CONDITION, 0.02):
                raise Broken(f'station {station.name} does not recover: {report}')

    def wait_state(self, node, state):
        """The mounts that can reach the node take it for that."""
        for station in self.stations:
            if not self.proxies[station.name, node.name].is_whole():
                continue
            if not wait_for(lambda station=station: node_of(health_of(station.mount), node.name)['state'] == state,
                            CONDITION, 0.02):
                raise Broken(f'{node.name} is not {state} for station {station.name}: {health_of(station.mount)}')

    # ---- what is checked when everything is mended

    def check(self):
        """After a fault: all is well again, nothing fails any more, and books and servers agree."""
        self.wait_ok()
        self.books.set_faulty(False)
        if not self.books.wait_operations(2 * len(self.writers)):
            raise Broken(f'nothing goes on: {[(writer.name, writer.doing) for writer in self._all()]}')
        self.pause()
        self.raise_broken()
        self._check_leader()
        self._check_rows()
        self._check_appended()
        self._check_preferences()
        self._check_seen()
        self._check_probe()
        self._check_possessions(8 * len(self.nodes), 64)
        self.raise_broken()
        self.gate.set()

    def pause(self):
        self.gate.clear()
        for writer in self._all():
            if not writer.idle.wait(CONDITION):
                raise Broken(f'{writer.name} hangs, doing {writer.doing}')

    def raise_broken(self):
        if self.books.broken:
            raise Broken('; '.join(self.books.broken))

    def _check_leader(self):
        writable = [node.name for node in self.nodes
                    if node.is_running() and admin(self.cluster, node, 'SELECT NOT pg_is_in_recovery()') == [(True,)]]
        if writable != [self.leader.name]:
            raise Broken(f'{writable} can be written to, the leader is {self.leader.name}')

    def _check_rows(self, node=None):
        """Each row is what was saved last, or what may have been; each save was made once, or not at all."""
        ids = [writer.row_id for writer in self.writers]
        rows = dict(admin(self.cluster, node or self.leader, 'SELECT id, first_name FROM users WHERE id = ANY(%s)', (ids,)))
        made = dict(admin(self.cluster, node or self.leader,
                          "SELECT row_id, count(*) FROM change_log WHERE row_id = ANY(%s) AND actor LIKE 'uid=%%' "
                          'AND collection = 1 GROUP BY row_id', (ids,)))
        for writer in self.writers:
            row = writer.row
            n = row.number(rows[writer.row_id])
            wrong = row.fault_of(n, row.last_saved)
            if wrong:
                raise Broken(f'the row of {row.name} has {n}, which {wrong}')
            fates = list(row.fate.values())
            saved, unknown = fates.count('saved') - 1, fates.count('unknown')
            if not saved <= made.get(writer.row_id, 0) <= saved + unknown:
                raise Broken(f'{made.get(writer.row_id, 0)} saves of the row of {row.name} were made, {saved} were '
                             f'acknowledged, {unknown} are not known')

    def _check_appended(self, node=None):
        fates = {row_id: (writer, fate) for writer in self.writers for row_id, fate in writer.appended.items()}
        rows = admin(self.cluster, node or self.leader, 'SELECT id, email FROM users WHERE id = ANY(%s)', (list(fates),))
        there = dict(rows)
        lost = [row_id for row_id, (_, fate) in fates.items() if fate == 'saved' and row_id not in there]
        undead = [row_id for row_id, (_, fate) in fates.items() if fate == 'refused' and row_id in there]
        others = [row_id for row_id, email in rows if email != f'{fates[row_id][0].name}-{row_id}@example.org']
        twice = admin(self.cluster, node or self.leader,
                      "SELECT row_id FROM change_log WHERE row_id = ANY(%s) AND collection = 1 AND operation = 'insert' "
                      'GROUP BY row_id HAVING count(*) > 1', (list(fates),))
        if lost or undead or others or twice:
            raise Broken(f'appended rows: lost {lost}, refused and there {undead}, not as written {others}, twice {twice}')
        self._check_added(node)

    def _check_added(self, node):
        """The same of rows whose id is not known."""
        fates = {name: fate for writer in self.writers for name, fate in writer.added.items()}
        there = dict(admin(self.cluster, node or self.leader, "SELECT split_part(email, '@', 1), count(*) FROM users "
                           "WHERE split_part(email, '@', 1) = ANY(%s) GROUP BY 1", (list(fates),)))
        wrong = {name: (fate, there.get(name, 0)) for name, fate in fates.items()
                 if there.get(name, 0) not in {'saved': (1,), 'refused': (0,), 'unknown': (0, 1)}[fate]}
        if wrong:
            raise Broken(f'rows made by new.json, and how often they are there: {wrong}')

    def _check_preferences(self):
        """The same of each settler's document; both mounts show it."""
        if not self.settlers:
            return
        with self.mongodb.client() as client:
            found = client.get_default_database()['preferences'].find({'user_id': {'$in': [one.row_id for one in self.settlers]}})
            there = {document['user_id']: document['timezone'] for document in found}
        for settler in self.settlers:
            row, mark = settler.row, there[settler.row_id]
            wrong = row.fault_of(row.number(mark), row.last_saved)
            if wrong:
                raise Broken(f'the preferences of {row.name} have {mark}, which {wrong}')
            for station in self.stations:
                if not wait_for(lambda station=station, settler=settler, mark=mark: settler.shown_at(station) == mark, SEEN_BOUND):
                    raise Broken(f'station {station.name} shows {settler.shown_at(station)}, MongoDB has {mark}')

    def _check_seen(self):
        """Both mounts show what the leader has."""
        ids = [writer.row_id for writer in self.writers]
        begun = time.monotonic()
        rows = dict(admin(self.cluster, self.leader, 'SELECT id, first_name FROM users WHERE id = ANY(%s)', (ids,)))
        appended = {row_id for writer in self.writers for row_id, fate in writer.appended.items() if fate == 'saved'}
        added = [name for writer in self.writers for name, fate in writer.added.items() if fate == 'saved']
        appended |= {row_id for row_id, in admin(self.cluster, self.leader, "SELECT id FROM users WHERE split_part(email, '@', 1) "
                                                 '= ANY(%s)', (added,))}
        for station in self.stations:
            shown = {}

            def shows_all(station=station, shown=shown):
                shown.update({row_id: first_name(path_of(station.directory, row_id)) for row_id in ids})
                return shown == rows
            if not wait_for(shows_all, SEEN_BOUND):
                raise Broken(f'station {station.name} shows {shown}, the leader has {rows}')
            listed = {path.stem for path in (station.directory / 'regions/europe/users').iterdir()}
            if not {str(row_id) for row_id in appended} <= listed:
                raise Broken(f'station {station.name} does not list {appended - set(map(int, listed))}')
        self.books.healed.append(time.monotonic() - begun)

    def _check_probe(self):
        """A commit by SQL, and when each mount shows it."""
        self.probes += 1
        name = f'probe-{self.probes}'
        paths = [path_of(station.directory, self.probe) for station in self.stations]
        with contextlib.closing(self.cluster.connect(self.leader, options='-c search_path=campusfs,pg_catalog')) as connection:
            for path in paths:
                path.read_bytes()
            connection.cursor().execute('UPDATE users SET first_name = %s WHERE id = %s', (name, self.probe))
            begun = time.monotonic()
        waiting = list(paths)
        while waiting and time.monotonic() < begun + SEEN_BOUND:
            for path in list(waiting):
                if first_name(path) == name:
                    waiting.remove(path)
                    self.books.seen.append(time.monotonic() - begun)
        if waiting:
            raise Broken(f'{waiting} do not show what SQL wrote {SEEN_BOUND} s ago')

    def _check_possessions(self, descriptors, threads):
        """No station has more open than this beyond what it has at rest."""
        for station in self.stations:
            allowed = {'descriptors': station.rest['descriptors'] + descriptors, 'threads': station.rest['threads'] + threads}
            if not wait_for(lambda: all(n <= allowed[kind] for kind, n in station.possessions().items()), CONDITION, 0.05):
                raise Broken(f'station {station.name} has {station.possessions()} open, at rest {station.rest}')

    def check_end(self):
        """After all faults: nothing has leaked, and every standby has what the leader has."""
        self.pause()
        for writer in self._all():
            writer.stopping = True
        connections = int(SETTINGS['mongodb_pool_size']) if self.mongodb else 0  # each has a thread, and they are kept
        self._check_possessions(SPARE_DESCRIPTORS + connections, SPARE_THREADS + connections)
        at_rest = len(self.stations) * 2  # pool_min and the monitor
        for node in self.nodes:
            allowed = at_rest + (len(self.stations) if node is self.leader else 0)  # the feeds
            if not wait_for(lambda: self._connections(node) <= allowed, CONDITION, 0.05):
                raise Broken(f'{node.name} has {self._connections(node)} connections of {len(self.stations)} mounts')
        (lsn,), = admin(self.cluster, self.leader, 'SELECT pg_current_wal_flush_lsn()::text')
        for node in self.standbys():
            replayed = 'SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn'
            if not wait_for(lambda: admin(self.cluster, node, replayed, (lsn,)) == [(True,)], CONDITION, 0.05):
                raise Broken(f'{node.name} does not catch up')
            self._check_rows(node)
            self._check_appended(node)

    def _connections(self, node):
        (count,), = admin(self.cluster, node, "SELECT count(*) FROM pg_stat_activity WHERE usename IN ('campusfs_rw', "
                          "'campusfs_repl') AND application_name !~ '^emea-'")
        return count

    # ---- the end

    def close(self):
        """Whatever is broken is mended; the third node goes."""
        for proxy in self.proxies.values():
            proxy.heal()
        self.cluster.thaw()
        for writer in self._all():
            writer.stopping = True
        self.gate.set()
        codes = []
        for station in self.stations:
            self.cluster.mounts.remove(station.mount)
            codes.append(station.mount.stop())
        for writer in self._all():
            if writer.ident:
                writer.join(CONDITION)
        for proxy in self.proxies.values():
            proxy.close()
        self._give_back()
        if any(codes):
            raise Broken(f'the daemons ended with exit codes {codes}')

    def _give_back(self):
        for node in self.nodes:
            if not node.is_running():
                node.start()
        if self.leader is self.third:
            self.leader.stop()
            self.rebuild(self.fail_over())
        for node in self.nodes:
            admin(self.cluster, node, 'SELECT pg_wal_replay_resume() WHERE pg_is_in_recovery()', database='postgres')
            reset_options(self.cluster, node, *SYNCHRONOUS)
        self.cluster.remove_replica(self.third)
