"""The pure parsers against mutated input, under AddressSanitizer and UndefinedBehaviorSanitizer.

For longer: pytest -m long tests/test_fuzz.py, or another seed: CAMPUSFS_FUZZ_SEED=7.
"""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = {'fuzz_text': ['src/base/buf.c', 'src/base/fail.c', 'src/base/json.c', 'src/base/scrub.c', 'src/base/utf8.c',
                         'src/tree/name.c'],
           'fuzz_feed': ['src/entity/changes.c', 'src/postgres/copy_row.c', 'src/postgres/pgoutput.c']}
FLAGS = ['-std=gnu17', '-D_GNU_SOURCE', '-O1', '-g', '-Wall', '-Wextra', '-Werror', '-fsanitize=address,undefined',
         '-fno-sanitize-recover=all', '-Isrc']


@pytest.fixture(scope='module', params=SOURCES)
def fuzzer(tmp_path_factory, request):
    program = tmp_path_factory.mktemp('fuzz') / request.param
    subprocess.run(['gcc', *FLAGS, f'tests/fuzz/{request.param}.c', *SOURCES[request.param], '-o', program, '-ljansson'],
                   cwd=ROOT, check=True)
    return program


def fuzz(program, runs):
    seed = os.environ.get('CAMPUSFS_FUZZ_SEED', '20261122')
    done = subprocess.run([program, seed, str(runs)], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout == f'{runs} inputs, no property violated\n'


def test_parsers_keep_their_properties(fuzzer):
    fuzz(fuzzer, 60_000)


@pytest.mark.long
def test_parsers_keep_their_properties_for_long(fuzzer):
    fuzz(fuzzer, 3_000_000)
