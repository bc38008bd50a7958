"""What the scratch space counts, and whose it is: nobody escapes its bounds, and reading needs none of it."""

import errno
import os
import stat

import pytest

from saving import edited, eventually, fails, set_by_sql, sh
from test_scratch import AS_STRANGER, metric

AS_MEMBER = ['setpriv', '--reuid=4243', '--regid=4243', '--groups=4300', '--']


@pytest.fixture
def full(new_mount, new_user, mnt):
    """The path of a row in a mount whose scratch space is full, and the row."""
    row = new_user()
    path = new_mount(scratch_size='64kB').directory / row.path.relative_to(mnt)
    path.with_name('full').write_bytes(bytes(64 << 10))
    return path, row


def test_reading_needs_no_room(full, sql):
    """Also where the kernel comes back for something of its own, since somebody else has changed the row."""
    path, row = full
    for n in range(3):
        os.stat(path)
        path.read_bytes()
        set_by_sql(sql, row, first_name=f'Changed {n}')
        eventually(lambda: os.stat(path).st_size != 0 and f'Changed {n}' in path.read_text())  # noqa: B023
        set_by_sql(sql, row, last_name=f'Again {n}')
        os.stat(path)
        with open(path, encoding='utf-8') as file:
            assert '"id"' in file.read()
        with fails(errno.ENOSPC):
            os.open(path, os.O_WRONLY)
    path.with_name('full').unlink()
    path.write_text(edited(row, first_name='Room again'))


def test_a_setgid_folder_gives_its_group(new_mount):
    folder = new_mount(dir_mode='0755').directory / 'regions/europe/users/shared'
    folder.mkdir()
    os.chown(folder, -1, 4300)
    folder.chmod(0o2775)
    sh('exec "$@"', *AS_MEMBER, 'sh', '-c', 'cd "$1" && echo a > file && mkdir below && ln -s file link', 'sh', folder)
    for name in ('file', 'below', 'link'):
        attr = os.lstat(folder / name)
        assert (attr.st_uid, attr.st_gid) == (4243, 4300), name
    assert stat.filemode((folder / 'below').stat().st_mode)[6] == 's'
    assert stat.filemode((folder / 'file').stat().st_mode)[6] != 's'
