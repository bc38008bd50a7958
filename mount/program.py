"""The program of this checkout: built when it is not, or no longer, what the sources say."""

import os
import subprocess
import sys
from pathlib import Path

import process
from process import LaunchError

CHECKOUT = Path(__file__).resolve().parent.parent
BUILD_TIMEOUT = 900


def install_packages(*groups):
    """Installs the groups' Debian packages that are missing (see mount/packages.txt)."""
    if subprocess.run([CHECKOUT / 'mount/install-packages', *groups], check=False).returncode != 0:
        raise LaunchError(f'the Debian packages of {", ".join(groups)} are not all installed')


def build_directory(name='build', fallback=None):
    """In the checkout, when it is the caller's own; else in the fallback, so that nobody finds root's files in it."""
    if fallback is not None and (CHECKOUT.stat().st_uid != os.geteuid() or not os.access(CHECKOUT, os.W_OK)):
        return Path(fallback) / name
    return CHECKOUT / name


def build(directory, *options, say=None):
    """Configures the folder when it is new, compiles what is stale, and returns the program's path."""
    env = {**os.environ, 'LC_ALL': 'C.UTF-8'}
    program = directory / 'src/campusfs'
    if not (directory / 'build.ninja').exists():
        _step(['meson', 'setup', directory, CHECKOUT, *options], env)
    plan = process.run(['ninja', '-C', directory, '-n', 'src/campusfs'], check=False, env=env).stdout
    if 'no work to do' not in plan:
        (say or (lambda text: print(text, file=sys.stderr)))(f'building {program}')
        _step(['ninja', '-C', directory, 'src/campusfs'], env)
    return program


def _step(argv, env):
    process.run(argv, env=env, timeout=BUILD_TIMEOUT)
