"""What an answer that comes late must not do: show what is no longer so, or make a row of a name that is taken."""

import errno
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import region_number
from mount_tools import errno_of, folder_of, wait_for
from saving import MAKE_USER, fails
from tcp_proxy import TcpProxy, copy, end


class HoldingProxy(TcpProxy):
    """Leads to 127.0.0.1:port. What the server says on a connection is held from the first bytes that have `marker` in
    them (None: nothing is) until release(); `held` is set by then."""

    def __init__(self, port):
        self.marker = None
        self.held, self._go_on = threading.Event(), threading.Event()
        super().__init__(('127.0.0.1', port))

    def hold(self, marker):
        self.held.clear()
        self._go_on.clear()
        self.marker = marker

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
    proxy.hold(mark.encode())
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


def test_a_row_that_is_made_between_the_kernels_two_questions(behind_proxy, sql, replayed):
    """open() with O_CREAT asks for the name, and is told that there is none; by the time it creates one there is."""
    root, proxy = behind_proxy
    folder = folder_of(root, 'users', 'europe')

    def create(flags):
        """A row that SQL makes in between, and the future of an open() of its name."""
        path = folder / f"{(folder / '.next-id').read_text().strip()}.json"
        proxy.hold(b'SELECT 0\0')
        opening = pool.submit(os.open, path, os.O_WRONLY | os.O_CREAT | flags)
        try:
            assert proxy.held.wait(60), 'the name was not looked up on the replica'
            document = {'email': f'{path.stem}@late.example.org', 'username': f'late{path.stem}', 'first_name': 'Ada'}
            sql('europe', MAKE_USER, (region_number('europe'), int(path.stem), json.dumps(document)))
            replayed('europe')
        finally:
            proxy.release()
        return path, opening

    with ThreadPoolExecutor(1) as pool:
        path, opening = create(os.O_EXCL)
        with fails(errno.EEXIST):
            opening.result(60)
        path, opening = create(os.O_TRUNC)
        fd = opening.result(60)
        os.write(fd, json.dumps({**json.loads(path.read_bytes()), 'first_name': 'A'}).encode())
        os.close(fd)
        assert json.loads(path.read_bytes())['first_name'] == 'A'
