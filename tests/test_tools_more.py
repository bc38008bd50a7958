"""Tools that do more than to change a word in a row: git with the mount as its work tree, exchanges, appends, two
editors on one row, editors that die half-way."""

import ctypes
import errno
import json
import os
import re
import subprocess

import pytest

from saving import Actor, edited, errors, eventually, fails, last_error, refused, sh, trace

VIM = ['vim', '--clean', '-i', 'NONE', '-es', '--cmd', 'set directory=. backupskip=']
NOREPLACE, EXCHANGE = 1, 2
AT_FDCWD = -100
_libc = ctypes.CDLL(None, use_errno=True)


def renameat2(source, target, flags):
    if _libc.renameat2(AT_FDCWD, os.fsencode(source), AT_FDCWD, os.fsencode(target), flags) < 0:
        raise OSError(ctypes.get_errno(), 'renameat2')


def name_in(sql, row):
    return trace(sql, row).document['first_name']


@pytest.fixture
def scratch(new_user):
    """scratch(row, suffix): a scratch name beside a row, gone at the end."""
    made = []

    def make(row, suffix):
        made.append(row.path.with_name(row.path.name + suffix))
        return made[-1]
    yield make
    for path in made:
        path.unlink(missing_ok=True)


# ---- mv

def test_mv_n_replaces_nothing(mnt, new_user, sql, scratch):
    row = new_user()
    before, new = trace(sql, row), scratch(row, '.new')
    new.write_text(edited(row, first_name='Not so'))
    sh('mv -n "$1" "$2"', new, row.path, check=False)
    assert trace(sql, row) == before and new.exists()
    with fails(errno.EEXIST):
        renameat2(new, row.path, NOREPLACE)
    assert trace(sql, row) == before and new.read_text() == edited(row, first_name='Not so')
    other = scratch(row, '.other')
    other.write_text('there')
    for source in (new, row.path):
        with fails(errno.EEXIST):
            renameat2(source, other, NOREPLACE)
    assert other.read_text() == 'there' and trace(sql, row) == before and row.path.exists()


def test_mv_n_makes_what_is_not_there(mnt, new_user, sql, scratch):
    row = new_user()
    text, new = edited(row, first_name='Anew', updated_at=...), scratch(row, '.new')
    row.path.unlink()
    new.write_text(text)
    renameat2(new, row.path, NOREPLACE)
    assert name_in(sql, row) == 'Anew' == row.json()['first_name'] and not new.exists()


@pytest.mark.parametrize('row_first', [True, False])
def test_an_exchange_saves_the_one_and_keeps_the_other(mnt, new_user, sql, scratch, row_first):
    """What mv --exchange does. A second one takes the row back, but that its text is based on is what it replaced."""
    row = new_user()
    was, new, ino = row.read(), scratch(row, '.new'), row.path.stat().st_ino
    new.write_text(edited(row, first_name='Exchanged'))
    renameat2(*((row.path, new) if row_first else (new, row.path)), EXCHANGE)
    assert name_in(sql, row) == 'Exchanged' == row.json()['first_name']
    assert new.read_bytes() == was and new.stat().st_size == len(was)
    assert row.path.stat().st_ino == ino != new.stat().st_ino and row.path.stat().st_size == len(row.read())
    new.write_text(was.decode() + ' ')  # a file as every other
    assert name_in(sql, row) == 'Exchanged' == row.json()['first_name']
    with fails(errno.ECANCELED):  # the row is not what that text is based on
        renameat2(new, row.path, EXCHANGE)
    new.write_text(edited(row, first_name='Back'))
    renameat2(new, row.path, EXCHANGE)
    assert name_in(sql, row) == 'Back' and json.loads(new.read_bytes())['first_name'] == 'Exchanged'


def test_an_exchange_that_is_refused_loses_nothing(mnt, new_user, sql, scratch):
    row, second = new_user(), new_user()
    before, new, link = trace(sql, row), scratch(row, '.new'), scratch(row, '.link')
    text = edited(row, role='king')
    new.write_text(text)
    link.symlink_to('nowhere')
    with fails(errno.EINVAL):
        renameat2(new, row.path, EXCHANGE)
    assert last_error(mnt, row)['column'] == 'role' and refused(row).read_text() == text
    with fails(errno.EINVAL):
        renameat2(row.path, second.path, EXCHANGE)
    assert 'an id stays with its row' in last_error(mnt, row)['message']
    with fails(errno.EPERM):
        renameat2(link, row.path, EXCHANGE)
    with fails(errno.ENOENT):
        renameat2(row.path, row.path.with_name('none.tmp'), EXCHANGE)
    assert trace(sql, row) == before and new.read_text() == text and os.readlink(link) == 'nowhere'
    assert row.json()['first_name'] == 'Ada' and second.json()['first_name'] == 'Ada'


# ---- appends

def test_append_of_blanks_and_of_more(mnt, new_user, sql):
    """>> adds to the document: blanks are no change, a second document is none."""
    row = new_user()
    before, text = trace(sql, row), row.read()
    sh('echo >> "$1"; printf "  \\n" >> "$1"', row.path)
    assert trace(sql, row) == before and row.read() == text
    sh('echo "{}" >> "$1"', row.path, check=False)
    assert trace(sql, row) == before and row.read() == text
    assert refused(row).read_bytes() == text + b'{}\n' and last_error(mnt, row)['errno'] == 'EINVAL'


def test_truncate_to_more_and_to_less(mnt, new_user, sql):
    row = new_user()
    before, text = trace(sql, row), row.read()
    sh('truncate -s 0 "$1"; : > "$1"', row.path)  # nothing is no document, and not wanted: rm removes
    assert trace(sql, row) == before and row.read() == text
    for size in (1, len(text) - 2, len(text) + 1, 10_000):
        done = sh('truncate -s "$2" "$1"', row.path, size, check=False)
        assert done.returncode != 0 and 'Invalid argument' in done.stderr
    sh('truncate -s "$2" "$1"; truncate -s +0 "$1"', row.path, len(text))
    assert trace(sql, row) == before and row.read() == text


def test_rsync_append_verify(mnt, new_user, sql, tmp_path):
    """It appends what is longer and looks afterwards: that is no document, and it is told so; or it sends the rest."""
    row = new_user()
    before, new = trace(sql, row), tmp_path / row.path.name
    new.write_text(edited(row, first_name='Ada, the first of all'))
    done = sh('rsync -a --append-verify "$1" "$2"', new, row.path, check=False)
    if done.returncode == 0:
        assert row.json()['first_name'] == 'Ada, the first of all'
    else:
        assert 'Invalid argument' in done.stderr and trace(sql, row) == before
        assert refused(row).exists() and last_error(mnt, row)['errno'] == 'EINVAL'
    sh('rsync -a --inplace --ignore-times "$1" "$2"', new, row.path)
    assert name_in(sql, row) == 'Ada, the first of all'


def test_an_interrupted_rsync_leaves_its_part_beside(mnt, new_user, sql, tmp_path):
    """--partial-dir: the next run goes on with it, and takes it away."""
    row = new_user()
    before, new = trace(sql, row), tmp_path / row.path.name
    new.write_text(edited(row, first_name='Whole'))
    part = row.path.parent / '.part'
    part.mkdir()
    (part / row.path.name).write_text(new.read_text()[:200])
    assert trace(sql, row) == before
    sh('rsync -a --ignore-times --partial-dir=.part "$1" "$2"', new, row.path)
    assert name_in(sql, row) == 'Whole' and not part.exists()


# ---- git, its folder on a disk and the collection its work tree

@pytest.fixture
def git(tmp_path, new_user):
    folder = new_user('south_america').path.parent
    environment = {'PATH': os.environ['PATH'], 'HOME': str(tmp_path), 'GIT_DIR': str(tmp_path / 'git'),
                   'GIT_WORK_TREE': str(folder), 'GIT_CONFIG_NOSYSTEM': '1', 'LC_ALL': 'C'}
    for role in ('AUTHOR', 'COMMITTER'):
        environment |= {f'GIT_{role}_NAME': 'Test', f'GIT_{role}_EMAIL': 'test@example.org'}

    def run(*arguments, check=True):
        done = subprocess.run(['git', *map(str, arguments)], cwd=folder, env=environment, capture_output=True, text=True,
                              timeout=60, check=False)
        assert not check or done.returncode == 0, f'git {arguments}: {done.stdout}{done.stderr}'
        return done.stdout + done.stderr
    run('init', '-q')
    return run


def test_git(mnt, new_user, sql, git):
    """add, commit, diff, checkout, stash. What git restores is saved: updated_at is then the restoration's, and git
    shows this one line as changed."""
    row = new_user('south_america')
    name, told = row.path.name, len(errors(mnt))
    git('add', name)
    git('commit', '-qm', 'one')
    assert git('status', '--porcelain', '-uno') == ''
    sh('sed -i s/Ada/Grace/ "$1"', row.path)
    assert '+  "first_name": "Grace"' in git('diff', '--', name)
    git('commit', '-qam', 'two')
    assert git('status', '--porcelain', '-uno') == ''

    git('checkout', '-q', 'HEAD~', '--', name)
    assert name_in(sql, row) == 'Ada' == row.json()['first_name']
    changed = [line for line in git('diff', 'HEAD~', '--', name).splitlines() if line[:1] in '+-' and line[:3] not in ('+++', '---')]
    assert len(changed) == 2 and all('updated_at' in line for line in changed), changed
    git('checkout', '-qf', 'HEAD', '--', name)
    assert name_in(sql, row) == 'Grace'

    git('commit', '-qam', 'three')
    sh('sed -i s/Grace/Stashed/ "$1"', row.path)
    git('stash')
    assert name_in(sql, row) == 'Grace'
    said = git('stash', 'pop', check=False)
    if 'overwritten' in said:  # updated_at is a local change
        git('checkout', '-q', 'stash@{0}', '--', name)
    assert name_in(sql, row) == 'Stashed'
    assert len(errors(mnt)) == told and not refused(row).exists()
    assert trace(sql, row).document['created_at'] == row.document['created_at']


def test_git_branches(mnt, new_user, sql, git):
    """A switch of branches changes rows, removes them and makes them again."""
    stays, comes = new_user('south_america'), new_user('south_america')
    git('add', stays.path.name)
    git('commit', '-qm', 'base')
    git('checkout', '-qb', 'other')
    git('add', comes.path.name)
    sh('sed -i s/Ada/Branch/ "$1"', stays.path)
    git('commit', '-qam', 'other')
    git('checkout', '-qf', '-')
    assert name_in(sql, stays) == 'Ada' and trace(sql, comes) is None and not comes.path.exists()
    git('checkout', '-qf', 'other')
    assert name_in(sql, stays) == 'Branch' and name_in(sql, comes) == 'Ada'
    assert trace(sql, comes).document['created_at'] == comes.document['created_at']


# ---- two editors, and editors that die

def test_two_editors_on_one_row(mnt, new_user, sql, tmp_path):
    """Who saves second is told, and has the text."""
    row = new_user()
    go, ready = tmp_path / 'go', tmp_path / 'ready'
    wait = f'call system("touch {ready}; until [ -e {go} ]; do sleep 0.05; done")'
    first = subprocess.Popen([*VIM, '-c', '%s/Ada/First/', '-c', wait, '-c', 'w!', '-c', 'cq', row.path],
                             stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    eventually(ready.exists)
    done = subprocess.run([*VIM, '-n', '-c', '%s/Ada/Second/', '-c', 'w!', '-c', 'q', row.path], check=False, timeout=30)
    assert name_in(sql, row) == 'Second'
    go.touch()
    first.communicate(b'y\n', timeout=60)  # vim has seen that the file is a newer one; yes, really
    assert done.returncode == 0 and first.returncode != 0
    assert name_in(sql, row) == 'Second' == row.json()['first_name']
    assert '"First"' in refused(row).read_text() and last_error(mnt, row)['errno'] == 'ECANCELED'
    assert [name for name in os.listdir(row.path.parent) if str(row.id) in re.findall(r'\d+', name)] == [row.path.name]


def test_two_emacs_see_each_others_locks(mnt, new_user, sql):
    """The lock link of one is what the other finds."""
    row = new_user()
    link = row.path.with_name(f'.#{row.path.name}')
    holder = subprocess.Popen(['emacs', '-Q', '--batch', '--eval', '(setq create-lockfiles t)', row.path, '--eval',
                               '(progn (insert " ") (princ (format "locked %s\\n" (file-locked-p buffer-file-name))) '
                               '(read-string "go") (set-buffer-modified-p nil))'],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert eventually(link.is_symlink)
    told = sh('emacs -Q --batch --eval "(princ (file-locked-p \\"$1\\"))"', row.path).stdout
    assert told not in ('', 'nil'), 'somebody has it'
    holder.communicate('go\n', timeout=60)
    link.unlink(missing_ok=True)
    assert name_in(sql, row) == 'Ada'


@pytest.mark.parametrize('step', ['moved away', 'made anew', 'half written', 'written', 'temporary written'])
def test_an_editor_killed_between_its_steps(mnt, new_user, sql, scratch, step):
    """The row is the old one or the new one, whole, for everybody; what lies beside it can be put back."""
    row = new_user()
    before, shown, backup = trace(sql, row), row.read(), scratch(row, '~')
    text = edited(row, first_name='Killed')
    with Actor() as editor:
        if step == 'temporary written':
            editor.save(backup, text)
        else:
            editor.rename(row.path, backup)
        if step in ('made anew', 'half written', 'written'):
            fd = editor.open(row.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            if step != 'made anew':
                editor.write(fd, text if step == 'written' else text[:100])
        editor.kill()
    if step == 'written':
        assert eventually(lambda: name_in(sql, row) == 'Killed') and row.json()['first_name'] == 'Killed'
        assert backup.read_bytes() == shown
        with fails(errno.ECANCELED):
            backup.rename(row.path)
        assert name_in(sql, row) == 'Killed' and backup.read_bytes() == shown
    else:
        assert trace(sql, row) == before and row.read() == shown and row.path.name in os.listdir(row.path.parent)
        sh('mv "$1" "$2"', backup, row.path)
        assert name_in(sql, row) == ('Killed' if step == 'temporary written' else 'Ada')
    if step == 'half written':
        assert refused(row).read_text() == text[:100]


def test_a_killed_emacs_leaves_what_it_saved_by_itself(mnt, new_user, sql, tmp_path):
    """#5.json# and the lock link: the next emacs recovers the text."""
    row = new_user()
    before = trace(sql, row)
    auto, link = row.path.with_name(f'#{row.path.name}#'), row.path.with_name(f'.#{row.path.name}')
    edit = '''(progn (auto-save-mode 1) (search-forward "Ada") (replace-match "Eve" t t) (do-auto-save t)
                     (signal-process (emacs-pid) 9))'''
    sh('emacs -Q --batch --eval "(setq auto-save-default t create-lockfiles t)" "$1" --eval "$2"', row.path, edit,
       check=False)
    assert trace(sql, row) == before and '"Eve"' in auto.read_text()
    recover = '(progn (fset (quote yes-or-no-p) (lambda (&rest _) t)) (recover-file "%s") (save-buffer))' % row.path
    sh('emacs -Q --batch --eval "(setq create-lockfiles nil)" --eval "$1"', recover)
    assert name_in(sql, row) == 'Eve'
    for path in (auto, link):
        if os.path.lexists(path):
            path.unlink()


def test_a_shell_and_what_it_starts_write_one_file(mnt, new_user, sql):
    """A group in the background, a pipeline and a subshell write one after the other through one descriptor."""
    row = new_user()
    before, told = trace(sql, row), len(errors(mnt))
    text = edited(row, first_name='Piecewise')
    lines = text.splitlines()
    head, middle, tail = '\n'.join(lines[:4]), '\n'.join(lines[4:9]), '\n'.join(lines[9:])
    sh('{ printf "%s\\n" "$2" & wait; printf "%s\\n" "$3" | cat; (printf "%s\\n" "$4"); } > "$1"', row.path, head, middle,
       tail)
    after = eventually(lambda: (now := trace(sql, row)) != before and now)
    assert after.document['first_name'] == 'Piecewise' and after.changes == before.changes + 1
    assert json.loads(row.read())['first_name'] == 'Piecewise' and len(errors(mnt)) == told
