"""What an answer that comes late must not do: show what is no longer so."""

import threading
import time

import pytest

from mount_tools import errno_of, folder_of, wait_for
from tcp_proxy import TcpProxy, copy, end


class HoldingProxy(TcpProxy):
    """Leads to 127.0.0.1:port. What the server says on a connection is held from the first bytes that have `marker` in
    them (None: nothing is) until release(); `held` is set by then."""

    def __init__(self, port):
        self.marker = None
        self.held, self._go_on = threading.Event(), threading.Event()
        super().__init__(('127.0.0.1', port))

    def release(self):
        self.marker = None
        self._go_on.set()

    def close(self):
        self.release()
        super().close()

    def pass_back(self, server, client):
        copy(server, client, self._hold)
        end(server, client)

    def _hold(self, data):
        if self.marker and self.marker in data:
            self.held.set()
            self._go_on.wait(60)
        return data


@pytest.fixture
def behind_proxy(cluster, new_mount, tmp_path):
    """A mount that reaches the replica of europe by a proxy."""
    replica = cluster.replica('europe')
    proxy = HoldingProxy(replica.port)
    mount = new_mount()
    text = mount.config.read_text()
    line, = (line for line in text.splitlines() if line.startswith(f'{replica.name} ='))
    mount.stop()
    mount.config.write_text(text.replace(line, line.replace(f'port={replica.port}', f'port={proxy.port}')))
    mount.start(foreground=True)
    yield mount.directory, proxy
    proxy.close()


def test_a_slow_answer_does_not_bury_a_newer_one(behind_proxy, new_user, unique, sql):
    """A row is being read from a replica when it changes: what the answer brings is old, and is not kept."""
    root, proxy = behind_proxy
    mark, news = f'held{unique()}', f'news{unique()}'
    row = new_user(last_name=mark)
    path = folder_of(root, 'users', 'europe') / f'{row.id}.json'
    proxy.marker = mark.encode()
    reader = threading.Thread(target=lambda: errno_of(path.read_bytes))
    reader.start()
    try:
        assert proxy.held.wait(60), 'the row was not read from the replica'
        sql('europe', 'UPDATE users SET last_name = %s WHERE id = %s', (news, row.id))
        time.sleep(1)  # it has been told by now
    finally:
        proxy.release()
        reader.join()
    assert wait_for(lambda: news.encode() in path.read_bytes(), 30)
