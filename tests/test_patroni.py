"""A shard that Patroni keeps, as operators run one: three members, synchronous_mode. What it decides, a mount follows."""

import contextlib
import itertools
import json
import threading
import time
import uuid

import patroni
import pytest
from fuse_mount import Mount
from mount_tools import errno_of, wait_for
from shards import PATIENCE, health_of

pytestmark = [pytest.mark.long, pytest.mark.skipif(not patroni.PROGRAM, reason='the package patroni is not there')]
FAILOVER = 90  # seconds


class Ledger(threading.Thread):
    """Saves one user and adds payment methods, one after the other, until stop(): what was acknowledged, and when."""

    def __init__(self, user):
        super().__init__(daemon=True)
        self.user = user
        self.folder = user.parent.parent / 'payment-methods'
        self.user_id = int(user.stem)
        self.document = {key: value for key, value in json.loads(user.read_bytes()).items() if key != 'updated_at'}
        self.acknowledged, self.refused, self.stale, self.times = [], [], [], [time.monotonic()]
        self.go_on = True
        self.start()

    def run(self):
        for number in itertools.count(1):
            if not self.go_on:
                return
            text = json.dumps({'user_id': self.user_id, 'kind': 'bank', 'token': f'ledger {number}'})
            code = errno_of((self.folder / 'new.json').write_text, text)
            name = f'Save {number}'
            code = code or errno_of(self.user.write_text, json.dumps({**self.document, 'first_name': name}))
            if code:
                self.refused.append((number, code))
                continue
            self.acknowledged.append(number)
            self.times.append(time.monotonic())
            if json.loads(self.user.read_bytes())['first_name'] != name:
                self.stale.append(number)

    def gap(self, since):
        """The longest time without an acknowledged pair of saves since then."""
        times = [moment for moment in self.times if moment >= since]
        return max(later - earlier for earlier, later in itertools.pairwise([since, *times]))

    def stop(self):
        self.go_on = False
        self.join(FAILOVER)


class Witness(threading.Thread):
    """When one of these members was first seen to take writes."""

    def __init__(self, shard, members):
        super().__init__(daemon=True)
        self.shard, self.members, self.at, self.go_on = shard, members, None, True
        self.start()

    def run(self):
        while self.at is None and self.go_on:
            for member in self.members:
                with contextlib.suppress(Exception):
                    if self.shard.sql(member, 'SELECT pg_is_in_recovery()') == [(False,)]:
                        self.at = time.monotonic()


@pytest.fixture(scope='module')
def shard(run_directory, campusfs):
    shard = patroni.PatroniShard(run_directory / 'patroni', campusfs)
    try:
        shard.create()
        yield shard
    finally:
        shard.kill()


@pytest.fixture(scope='module')
def mount(shard):
    mount = Mount(shard.program, shard.config, shard.directory / 'mnt', shard.directory / 'log/mount-mnt.log')
    mount.start(foreground=True)
    yield mount
    assert mount.stop() == 0


@pytest.fixture(scope='module')
def ledger(mount):
    name = uuid.uuid4().hex[:12]
    users = mount.directory / 'regions/europe/users'
    (users / 'new.json').write_text(json.dumps({'email': f'{name}@example.org', 'username': name, 'first_name': 'Ada'}))
    ledger = Ledger(next(users.glob('*.json')))
    yield ledger
    ledger.stop()


def switch_over(shard, leader):
    answer = leader.ask('switchover', leader=leader.name, candidate=shard.synchronous().name)
    assert answer[0] == 200, answer


def kill_server(shard, leader):
    leader.node.kill()


def kill_machine(shard, leader):
    leader.kill_patroni()
    leader.node.kill()


@pytest.mark.parametrize('how', [switch_over, kill_server, kill_machine])
def test_a_mount_follows(shard, mount, ledger, how, capsys):
    """Saves wait for the next leader, who is found without a restart; the old one becomes a replica again."""
    before = shard.leader()
    wait_for(lambda: len(ledger.acknowledged) > 5, PATIENCE)
    count, start, pid = len(ledger.acknowledged), time.monotonic(), mount.process.pid
    others = [member for member in shard.members if member is not before]
    witness = Witness(shard, others)
    try:
        how(shard, before)
        assert wait_for(lambda: witness.at, FAILOVER), shard.logs()
        count = len(ledger.acknowledged)
        assert wait_for(lambda: len(ledger.acknowledged) > count + 5, FAILOVER), shard.logs()
    finally:
        witness.go_on = False
    if how is kill_machine:
        before.start()
    assert wait_for(shard.is_whole, FAILOVER, 0.2), shard.logs()
    assert wait_for(lambda: health_of(mount)['status'] == 'ok', PATIENCE, 0.1), health_of(mount)
    assert shard.leader() is not before and mount.process.pid == pid
    first = next(moment for moment in ledger.times if moment > witness.at)
    with capsys.disabled():
        print(f'\n{how.__name__}: no save for {ledger.gap(start):.2f} s; the new leader took writes after '
              f'{witness.at - start:.2f} s, the first save was there {first - witness.at:.3f} s later')


def test_nothing_acknowledged_is_lost_and_nothing_is_there_twice(shard, mount, ledger):
    ledger.stop()
    assert ledger.stale == [] and ledger.refused == []
    (saved,), = shard.sql(shard.leader(), "SELECT count(*) FROM campusfs.change_log WHERE collection = 1 AND operation = 'update' "
                          'AND row_id = %s', (ledger.user_id,))
    tokens = [token for token, in shard.sql(shard.leader(), 'SELECT token FROM campusfs.payment_methods ORDER BY id')]
    assert sorted(tokens) == sorted(f'ledger {number}' for number in ledger.acknowledged)
    assert saved == len(ledger.acknowledged)
    assert json.loads(ledger.user.read_bytes())['first_name'] == f'Save {ledger.acknowledged[-1]}'
    for member in shard.members:
        assert wait_for(lambda member=member: shard.sql(member, 'SELECT count(*) FROM campusfs.payment_methods') == [(len(tokens),)],
                        PATIENCE)
