"""mount/mount.campusfs: what `mount -t campusfs` and fstab call."""

import os
import subprocess
import uuid

import pytest

import fuse_mount
from conftest import ROOT


@pytest.fixture
def helper(cluster, campusfs):
    """Calls the helper as mount(8) does: CONF DIR -o OPTIONS; what it has mounted is taken away at the end."""
    directory = cluster.directory / f'mnt-{uuid.uuid4().hex[:8]}'
    directory.mkdir()
    log = cluster.log_directory / f'mount-{directory.name}.log'

    def call(options='', *flags, config=cluster.config, program=campusfs.parent):
        env = {'PATH': f'{program}:{os.environ["PATH"]}'}
        return subprocess.run([ROOT / 'mount/mount.campusfs', config, directory, '-o', f'{options},log_file={log}', *flags],
                              env=env, capture_output=True, text=True, timeout=30, check=False)
    call.directory = directory
    yield call
    mount = fuse_mount.Mount(campusfs, cluster.config, directory, log)
    mount.stop()
    mount.clean_up()


def test_mounts_and_leaves_out_what_others_mean(helper):
    done = helper('rw,defaults,nofail,_netdev,x-systemd.automount,comment=campus,allow_other')
    assert done.returncode == 0, done.stderr
    assert 'README' in os.listdir(helper.directory)


def test_ro_mounts_read_only(helper):
    assert helper('ro').returncode == 0
    with pytest.raises(OSError, match='Read-only'):
        (helper.directory / 'regions/europe/users/new.json').write_text('{}')


def test_keys_of_the_configuration_are_options(helper):
    assert helper('cache_ttl=250ms,file_mode=0400').returncode == 0
    text = (helper.directory / '.campusfs/config').read_text()
    assert 'cache_ttl = 250ms' in text and 'file_mode = 0400' in text


@pytest.mark.parametrize('options, code', [('cache_ttl=soon', 32), ('no_such_option=1', 32)])
def test_wrong_options_are_refused(helper, options, code):
    done = helper(options)
    assert done.returncode == code and done.stderr
    assert not fuse_mount.is_mounted(helper.directory)


def test_wrong_use(helper, tmp_path):
    assert helper(config='relative.conf').returncode == 1
    assert helper(config=tmp_path / 'missing.conf').returncode == 32
    assert subprocess.run([ROOT / 'mount/mount.campusfs'], capture_output=True, check=False).returncode == 1


def test_pretending_mounts_nothing(helper):
    done = helper('ro', '-f', '-v')
    assert done.returncode == 0 and '-o ro' in done.stdout
    assert not fuse_mount.is_mounted(helper.directory)
