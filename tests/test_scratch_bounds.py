"""What the scratch space counts, and whose it is: nobody escapes its bounds, and reading needs none of it."""

import errno
import json
import os
import stat

import pytest

from saving import edited, errors, eventually, fails, set_by_sql, sh, trace
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


def test_a_refused_text_counts_once_it_is_moved_or_written_to(mnt, new_mount, new_course):
    """It has bounds of its own, under its own name; what fails for want of room leaves it where it is."""
    row = new_course()
    root = new_mount(scratch_size='300kB', refused_size='10MB').directory
    path = root / row.path.relative_to(mnt)
    kept = path.parent / '.refused' / path.name
    bad = edited(row, level='hard', description='x' * 100_000)

    def reject():
        with fails(errno.EINVAL):
            path.write_text(bad)
    for n in range(2):
        reject()
        kept.rename(path.with_name(f'junk{n}'))
        assert metric(root, 'campusfs_scratch_bytes') > 100_000 * (n + 1)
        assert os.listdir(kept.parent) == []
    reject()
    kept.rename(kept.with_name('beside'))
    path.with_name('junk0').unlink()
    reject()
    files = metric(root, 'campusfs_scratch_files')
    kept.with_name(f'{kept.name}.error').rename(path.with_name('words'))
    assert metric(root, 'campusfs_scratch_files') == files + 1
    kept.with_name('full').write_bytes(bytes(60_000))
    for change in (lambda: kept.rename(path.with_name('junk')), lambda: kept.rename(kept.with_name('junk')),
                   lambda: os.truncate(kept, 1 << 20), lambda: os.truncate(kept, 5), lambda: kept.write_text('{}'),
                   lambda: os.open(kept, os.O_WRONLY)):
        with fails(errno.ENOSPC):
            change()
    assert kept.read_text() == bad
    kept.with_name('full').unlink()
    before = metric(root, 'campusfs_scratch_bytes')
    kept.write_text(edited(row, title='Mended'))
    assert before < metric(root, 'campusfs_scratch_bytes') < before + 100_000
    kept.rename(path)
    assert json.loads(path.read_text())['title'] == 'Mended'


# ---- whose the names in .refused are

def run(account, script, *arguments):
    """A script as another user; its CompletedProcess."""
    return sh('exec "$@"', *account, 'sh', '-c', script, 'sh', *arguments, check=False)


def rejected(path, row, role):
    with fails(errno.EINVAL):
        path.write_text(edited(row, role=role))


# $1: a folder, where "own" is a file and "folder" a folder of the caller's; then names. Says what it could make.
PLANT = """
try() { "$@" 2> /dev/null && echo "$@"; }
cd "$1"; shift
for name; do
    try touch "$name"; try mkdir "$name"; try ln -s /nowhere "$name"; try ln own "$name"; try mv own "$name"
    try mv folder "$name"
done
"""


def test_who_writes_no_rows_makes_nothing_in_refused(mnt, new_mount, new_user):
    row = new_user()
    path = new_mount(dir_mode='0755', file_mode='0644').directory / row.path.relative_to(mnt)
    kept = path.parent / '.refused' / path.name
    assert run(AS_STRANGER, PLANT, kept.parent, kept.name, f'{kept.name}.error', f'{kept.name}.1', 'any').stdout == ''
    assert os.listdir(kept.parent) == []
    rejected(path, row, 'emperor')
    assert '"emperor"' in kept.read_text() and kept.stat().st_uid == 0
    assert sorted(os.listdir(kept.parent)) == [path.name, f'{path.name}.error']


def test_nobody_puts_a_text_where_anothers_refused_one_will_lie(mnt, new_mount, new_user):
    """Not even who has refused texts there: else root would save it, as his own."""
    row, other = new_user(), new_user()
    root = new_mount(dir_mode='0777', file_mode='0666').directory
    path, mine = root / row.path.relative_to(mnt), root / other.path.relative_to(mnt)
    folder, name = path.parent / '.refused', path.name
    assert run(AS_STRANGER, 'sed -i s/student/queen/ "$1"', mine).returncode != 0
    assert run(AS_STRANGER, 'cd "$1" && echo a > own && mkdir folder && ln -s a link', folder).returncode == 0
    assert run(AS_STRANGER, PLANT, folder, name, f'{name}.error', f'{name}.7', f'{name}.7.error', 'new.json',
               f'{mine.name}.1').stdout == ''
    assert any(line['errno'] == 'EPERM' and line['path'].endswith(f'.refused/{name}') and 'this name is the mount' in
               line['message'] for line in errors(root))
    # also not under the name of a text of his own, moved away, that was refused there before
    assert run(AS_STRANGER, 'sed -i s/student/king/ "$1"', path).returncode != 0
    assert run(AS_STRANGER, 'cd "$1" && mv "$2" a && mv a "$2" && mv "$2" a', folder, name).returncode == 0
    rejected(path, row, 'emperor')
    assert '"emperor"' in (folder / name).read_text() and (folder / name).stat().st_uid == 0
    assert run(AS_STRANGER, 'cd "$1" && mv -f a "$2"', folder, name).returncode != 0
    assert '"emperor"' in (folder / name).read_text() and '"king"' in (folder / 'a').read_text()


VIM = 'vim --clean -i NONE -es -c "set backupcopy=no" -c "%s/queen/king/" -c w -c "%s/king/admin/" -c wq "$1"'


MENDS = [VIM, 'sed -i s/queen/king/ "$1" && sed -i s/king/admin/ "$1"',
         'mv "$1" "$1~" && sed s/queen/admin/ "$1~" > "$1" && rm "$1~"']


def test_whose_text_it_is_mends_it_in_place(mnt, new_mount, new_user, sql):
    """With any tool, again and again, in a folder that is the mount's; and so does root."""
    row = new_user()
    path = new_mount(dir_mode='0777', file_mode='0666').directory / row.path.relative_to(mnt)
    kept = path.parent / '.refused' / path.name
    assert run(AS_STRANGER, 'sed s/student/queen/ "$1" > "$2" && cat "$2" > "$1"', path, path.with_name('bad')).returncode != 0
    for mend in MENDS:
        for account in (AS_STRANGER, ['env']):
            assert '"queen"' in kept.read_text()
            done = run(account, f'export HOME=/nonexistent TERM=dumb; {mend}', kept)
            assert done.returncode == 0, done
            assert '"admin"' in kept.read_text() and sorted(os.listdir(kept.parent))[:1] == [path.name]
            assert run(['env'], 'sed s/admin/queen/ "$1" > "$1~" && cat "$1~" > "$1" && rm "$1~"; chown 4243 "$1"',
                       kept).returncode == 0
    sh('sed -i s/queen/admin/ "$1" && mv "$1" "$2"', kept, path)
    assert trace(sql, row).document['role'] == 'admin' and os.listdir(kept.parent) == []


def test_what_is_being_mended_stays(mnt, new_user):
    """Whatever its process has refused, or saves, meanwhile."""
    row = new_user()
    kept = row.path.parent / '.refused' / row.path.name
    rejected(row.path, row, 'emperor')
    kept.write_text(edited(row, role='admin'))
    rejected(row.path, row, 'queen')
    assert '"queen"' in kept.read_text() and '"admin"' in kept.with_name(f'{kept.name}.1').read_text()
    kept.with_name(f'{kept.name}.1').unlink()
    kept.write_text(edited(row, role='king'))
    row.path.write_text(edited(row, first_name='Eve'))
    assert '"king"' in kept.read_text()
    kept.unlink()
