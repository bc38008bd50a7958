"""That nobody sees ESTALE is looked after during the whole run (conftest.py, no_stale_call); here, that it would be."""

import os
import subprocess
import sys

import pytest

CALL = '''
import ctypes, os, sys
handle = (ctypes.c_char * 136).from_buffer_copy((8).to_bytes(4, 'little') + (1).to_bytes(4, 'little') + b'\\7' * 128)
libc = ctypes.CDLL(None, use_errno=True)
assert libc.open_by_handle_at(os.open(sys.argv[1], os.O_RDONLY), handle, os.O_RDONLY) == -1
sys.exit(ctypes.get_errno())
'''


def test_a_stale_call_would_be_seen(stale_calls, tmp_path):
    """Of any process that a test starts, however far down."""
    if stale_calls is None:
        pytest.skip('the kernel can only be asked by root, with tracefs')
    done = subprocess.run(['sh', '-c', '"$@"; exit $?', 'sh', sys.executable, '-c', CALL, tmp_path], check=False)
    assert os.strerror(done.returncode) == 'Stale file handle'
    assert len(stale_calls.take()) == 1
