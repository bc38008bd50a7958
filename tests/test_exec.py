"""A process that executes another program closes its files in the middle of execve, with the kernel's lock on its own
credentials held. A daemon that asks /proc about that process in its flush would wait for ever, and `ps` with it.
"""

import signal
import subprocess
import sys

import pytest

SAVE_AND_EXEC = """
import os, sys
path, text = sys.argv[1:]
fd = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
os.write(fd, text.encode())
os.execv('/bin/true', ['true'])
"""
READ_AND_EXEC = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY | os.O_CLOEXEC)
os.read(fd, 10)
os.execv('/bin/true', ['true'])
"""


@pytest.mark.parametrize('program', [SAVE_AND_EXEC, READ_AND_EXEC], ids=['saved', 'read'])
def test_a_file_that_exec_closes(new_mount, new_user, program):
    mount = new_mount()
    row = new_user()
    path = mount.directory / row.path.relative_to(row.path.parents[3])
    text = path.read_text().replace('"Ada"', '"Exec"')
    child = subprocess.Popen([sys.executable, '-c', program, path, text])
    try:
        assert child.wait(20) == 0
    except subprocess.TimeoutExpired:
        mount.process.send_signal(signal.SIGKILL)  # lets the child go; whoever looks it up in /proc meanwhile hangs, too
        child.wait()
        raise
    assert ('"Exec"' in path.read_text()) == (program is SAVE_AND_EXEC)
