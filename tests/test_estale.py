"""That nobody sees ESTALE is looked after during the whole run (conftest.py, no_stale_call); here, that it would be."""

import os
import subprocess
import sys
import uuid

import estale
import pytest
from conftest import RUN_PREFIX, TRACING, sweep

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


def test_what_a_killed_run_has_left_goes_without_what_others_have(stale_calls, tmp_path):
    if stale_calls is None:
        pytest.skip('the kernel can only be asked by root, with tracefs')
    left = tmp_path / f'{RUN_PREFIX}{uuid.uuid4().hex}'
    left.mkdir()
    instance = estale.StaleCalls(left / TRACING).instance.name
    assert (stale_calls.instance.parent / instance).exists(), 'every mount shows it'
    (left / 'owner').write_text(f'{2 ** 22 + 1} 1\n')
    sweep(tmp_path)
    assert not left.exists() and not (stale_calls.instance.parent / instance).exists()
    assert stale_calls.instance.exists()
