"""Real tools save rows: each changes one as it changes a file on a disk, leaves beside it what it leaves there, and is
told when the document is refused."""

import contextlib
import fcntl
import json
import os
import pty
import select
import shutil
import struct
import subprocess
import sys
import termios
import time

import pytest

from saving import errors, eventually, refused, trace

# Each script replaces the word $2 by $3 in the file $1; $4 is a folder on a disk.
# Neither vim nor emacs backs up files below /tmp, where the mount may be, unless it is told to.
VIM = 'vim --clean -i NONE -es --cmd "set directory=. backupskip=" '
WORDS = '-c "%s/$2/$3/"'
SOURCE = 'n=$4/${1##*/}; sed "s/$2/$3/" "$1" > "$n"; [ "$2" != "$3" ] || touch -r "$1" "$n"; cd "$4"; '
EMACS = '''emacs -Q --batch --eval "(setq backup-enable-predicate (lambda (name) t) %s)" "$1" --eval "(progn
           (goto-char 1) (search-forward \\"$2\\") (replace-match \\"$3\\" t t)
           (set-buffer-modified-p t) (save-buffer) %s)" '''

EDITORS = {
    'vim': VIM + WORDS + ' -c wq "$1"',
    'vim, as vi': 'vim -u NONE -i NONE -Es ' + WORDS + ' -c "w|q" "$1"',
    'vim, backup': VIM + '-c "set backup" ' + WORDS + ' -c wq "$1"',
    'vim, backupcopy=yes': VIM + '-c "set backup backupcopy=yes" ' + WORDS + ' -c wq "$1"',
    'vim, backupcopy=no': VIM + '-c "set backupcopy=no" ' + WORDS + ' -c wq "$1"',
    'vim, nothing kept': VIM + '-n -c "set nobackup nowritebackup nofsync" ' + WORDS + ' -c wq "$1"',
    'vim, :w twice': VIM + '-c "%s/$2/between/" -c w -c "%s/between/$3/" -c w -c q "$1"',
    'vim, :w twice, backup': 'cd "${1%/*}" && ' + VIM + '-c "set backup" -c "%s/$2/between/" -c w '
                             '-c "%s/between/$3/" -c w -c q "${1##*/}"',
    'ex': 'printf "%%s/$2/$3/\\nwq\\n" | ex --clean -i NONE -s "$1"',
    'emacs': EMACS % ('', ''),
    'emacs, by copying, twice': EMACS % ('backup-by-copying t', '(set-buffer-modified-p t) (save-buffer)'),
    'vim, :w !tee': VIM + WORDS + ' -c "w !tee % > /dev/null" -c "q!" "$1"',
    'emacs, auto-saved before': EMACS % ('', '(set-buffer-modified-p t) (do-auto-save) (save-buffer)'),
    'ed': 'printf "%s\\n" "g/$2/s//$3/" w q | ed -s "$1"',
    'sed -i': 'sed -i "s/$2/$3/" "$1"',
    'sed -i, backup': 'sed -i.bak "s/$2/$3/" "$1"',
    'sed -i, two files': 'sed -i "s/$2/$3/" "$1" "$1"',
    'perl -i': 'perl -pi -e "s/$2/$3/" "$1"',
    'perl -i, backup': 'perl -pi.orig -e "s/$2/$3/" "$1"',
    'jq and mv': 'jq . "$1" | sed "s/$2/$3/" > "$1.tmp" && mv "$1.tmp" "$1"',
    'sponge': 'sed "s/$2/$3/" "$1" | sponge "$1"',
    'a group of commands': 't=$(sed "s/$2/$3/" "$1"); { printf "%s\\n" "$t" | head -n 3; '
                           'printf "%s\\n" "$t" | tail -n +4; } > "$1"',
    'awk and mv in the folder': 'cd "${1%/*}" && awk "{sub(/$2/, \\"$3\\")} 1" "${1##*/}" > tmp && mv tmp "${1##*/}"',
    'mktemp and mv': 't=$(mktemp "${1%/*}/XXXXXX") && sed "s/$2/$3/" "$1" > "$t" && mv "$t" "$1"',
    'python, in place': '''$PYTHON -c "import sys; f = open(sys.argv[1], 'r+'); t = f.read().replace(*sys.argv[2:4])
f.seek(0); f.write(t); f.truncate(); f.close()" "$@"''',
    'python, mmap': '''$PYTHON -c "import mmap, sys; f = open(sys.argv[1], 'r+b')
t = f.read().decode().replace(*sys.argv[2:4]).encode(); f.truncate(len(t))
m = mmap.mmap(f.fileno(), 0); m[:] = t; m.flush(); m.close(); f.close()" "$@"''',
    'python, fileinput': '''$PYTHON -c "import fileinput, sys
for line in fileinput.input(sys.argv[1], inplace=True, backup='.bak'): print(line.replace(*sys.argv[2:4]), end='')
" "$@"''',
    'node, writeFile': '''node -e "const fs = require('fs').promises, [p, a, b] = process.argv.slice(1);
fs.readFile(p, 'utf8').then(t => fs.writeFile(p, t.replace(a, b)))" "$@"''',
    'node, writeFile and rename': '''node -e "const fs = require('fs'), [p, a, b] = process.argv.slice(1);
fs.writeFileSync(p + '.tmp', fs.readFileSync(p, 'utf8').replace(a, b)); fs.renameSync(p + '.tmp', p)" "$@"''',
    'python, os.replace': '''$PYTHON -c "import os, sys; p = sys.argv[1]; t = open(p).read().replace(*sys.argv[2:4])
open(p + '.new', 'w').write(t); os.replace(p + '.new', p)" "$@"''',
    'python, write_text': '''$PYTHON -c "import sys, pathlib; p = pathlib.Path(sys.argv[1])
p.write_text(p.read_text().replace(*sys.argv[2:4]))" "$@"''',
}
COPIERS = {
    'cat': SOURCE + 'cat "$n" > "$1"',
    'tee': SOURCE + 'tee "$1" < "$n" > /dev/null',
    'dd': SOURCE + 'dd if="$n" of="$1" status=none',
    'dd, small blocks': SOURCE + 'dd if="$n" of="$1" bs=17 status=none',
    'dd, fsync': SOURCE + 'dd if="$n" of="$1" conv=fsync status=none',
    'cp': SOURCE + 'cp "$n" "$1"',
    'cp -f': SOURCE + 'cp -f "$n" "$1"',
    'cp -b': SOURCE + 'cp -b "$n" "$1"',
    'install': SOURCE + 'install -m 640 "$n" "$1"',
    'unzip': SOURCE + 'zip -q a.zip "${n##*/}"; unzip -DDoq a.zip -d "${1%/*}"',
    'mv from a disk': SOURCE + 'mv "$n" "$1"',
    'cp and mv': SOURCE + 'cp "$n" "${1%/*}/tmp.json" && mv "${1%/*}/tmp.json" "$1"',
}
KEEP_TIME = {
    'cp -p': SOURCE + 'cp -p "$n" "$1"',
    'cp -a': SOURCE + 'cp -a "$n" "$1"',
    'install -p': SOURCE + 'install -p -m 640 "$n" "$1"',
    'rsync': SOURCE + 'rsync -a "$n" "$1"',
    'rsync, whole folder': SOURCE + 'rsync -a "$4/" "${1%/*}"',
    'rsync --inplace': SOURCE + 'rsync -a --inplace "$n" "$1"',
    'rsync --inplace --no-whole-file': SOURCE + 'rsync -a --inplace --no-whole-file "$n" "$1"',
    'rsync --checksum': SOURCE + 'rsync -a --checksum "$n" "$1"',
    'rsync --partial-dir': SOURCE + 'rsync -a --partial-dir=.part "$n" "$1"',
    'rsync --backup': SOURCE + 'rsync -a --backup "$n" "$1"',
    'rsync --delay-updates': SOURCE + 'rsync -a --delay-updates "$n" "$1"',
    'tar': SOURCE + 'tar --format=posix -cf - "${n##*/}" | tar -C "${1%/*}" -xf -',
    'tar --overwrite': SOURCE + 'tar --format=posix -cf - "${n##*/}" | tar -C "${1%/*}" --overwrite -xf -',
    'cp --remove-destination': SOURCE + 'cp -a --remove-destination "$n" "$1"',
}
TOOLS = {**EDITORS, **COPIERS, **KEEP_TIME}
# Not asked what they say to a refusal: others fail in the same call.
ALIKE = {'vim, :w twice, backup', 'sed -i, two files', 'sed -i, backup', 'perl -i, backup', 'mktemp and mv', 'cp -f',
         'cp -b', 'cp -p', 'cp and mv', 'dd, small blocks', 'rsync --checksum', 'rsync --backup', 'rsync, whole folder',
         'rsync --inplace --no-whole-file', 'rsync --partial-dir', 'python, fileinput'}
# These remove the row before they make it anew, as they do with files: what is refused then is not there any more.
UNLINK = {'tar', 'unzip', 'cp --remove-destination', 'install', 'install -p', 'mv from a disk'}


@pytest.fixture
def tool(tmp_path):
    """tool(name, file, old, new): runs it; the CompletedProcess."""
    def run(name, file, old, new):
        folder = tmp_path / 'folder'
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        env = {'PATH': os.environ['PATH'], 'HOME': str(tmp_path), 'TERM': 'dumb', 'LC_ALL': 'C.UTF-8',
               'PYTHON': sys.executable}
        return subprocess.run(['sh', '-c', TOOLS[name], 'sh', file, old, new, folder], cwd=tmp_path, env=env, text=True,
                              capture_output=True, timeout=60, check=False)
    return run


@pytest.fixture
def stray(mnt, new_user):
    """stray(row): the names besides rows in its folder; what a test leaves there is removed."""
    folder = new_user().path.parent

    def names(row=None):
        return sorted(name for name in os.listdir(folder) if not name.removesuffix('.json').isdigit())
    assert names() == []
    yield names
    for name in names():
        path = folder / name
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def on_a_disk(tool, name, row, tmp_path, old, new):
    """What the tool does to the same file on a disk: its exit code and the names that it leaves, rows aside."""
    disk = tmp_path / 'disk'
    disk.mkdir()
    file = disk / row.path.name
    shutil.copy2(row.path, file)
    done = tool(name, file, old, new)
    assert new in file.read_text(), f'{name} does not work on a disk: {done.stderr}'
    return done, sorted(set(os.listdir(disk)) - {file.name})


@pytest.mark.parametrize('name', TOOLS)
def test_changes_a_row(mnt, new_user, sql, tool, stray, tmp_path, name):
    row = new_user()
    before, told, ino = trace(sql, row), len(errors(mnt)), row.path.stat().st_ino
    disk, left = on_a_disk(tool, name, row, tmp_path, 'Ada', 'Grace')
    done = tool(name, row.path, 'Ada', 'Grace')
    assert (done.returncode, done.stderr) == (disk.returncode, disk.stderr)
    after = trace(sql, row)
    assert after.document == {**before.document, 'first_name': 'Grace', 'updated_at': after.document['updated_at']}
    status, text = row.path.stat(), row.read()
    assert json.loads(text)['first_name'] == 'Grace' and status.st_size == len(text)
    assert status.st_mtime_ns == after.updated_us * 1000 and status.st_ino == ino
    assert before.updated_us < after.updated_us and abs(after.updated_us / 1e6 - time.time()) < 60
    assert stray() == left
    assert len(errors(mnt)) == told, errors(mnt)[told:]


@pytest.mark.parametrize('name', ['vim', 'vim, backupcopy=no', 'emacs', 'ed', 'sed -i', 'perl -i', 'jq and mv',
                                  'python, in place', 'python, os.replace', 'tee', 'dd', 'cp', 'cp -a', 'rsync',
                                  'rsync --inplace', 'tar --overwrite'])
def test_an_unchanged_row_is_not_written(mnt, new_user, sql, tool, stray, tmp_path, name):
    row = new_user()
    before, text, status = trace(sql, row), row.read(), row.path.stat()
    disk, left = on_a_disk(tool, name, row, tmp_path, 'Ada', 'Ada')
    done = tool(name, row.path, 'Ada', 'Ada')
    assert (done.returncode, done.stderr) == (disk.returncode, disk.stderr)
    assert trace(sql, row) == before
    assert row.read() == text and row.path.stat().st_mtime_ns == status.st_mtime_ns
    assert stray() == left


@pytest.mark.parametrize('name', [name for name in TOOLS if name not in UNLINK | ALIKE])
def test_is_told_of_a_refused_document(mnt, new_user, sql, tool, stray, tmp_path, name):
    """The row is as it was, for SQL and for cat; the text is kept; the tool says that it has not saved."""
    row = new_user()
    before, text = trace(sql, row), row.read()
    done = tool(name, row.path, 'student', 'king')
    assert (trace(sql, row), row.read()) == (before, text)
    assert done.returncode != 0 or done.stderr, 'nobody has been told'
    kept = [path.read_text() for path in refused(row).parent.glob(f'{row.id}.json*')]
    assert any('"king"' in words or '"between"' in words for words in kept)
    assert 'Stale' not in done.stderr
    shutil.rmtree(refused(row).parent, ignore_errors=True)
    assert row.path.stat().st_mtime_ns == before.updated_us * 1000


@pytest.mark.parametrize('name', sorted(UNLINK))
def test_what_others_need_is_not_removed_before_it_is_made_anew(mnt, new_enrollment, new_user, sql, tool, name):
    """The removal is refused, and the tool with it."""
    user = new_user()
    new_enrollment(user_id=user.id)
    before = trace(sql, user)
    done = tool(name, user.path, 'Ada', 'Grace')
    assert done.returncode != 0 and done.stderr
    assert trace(sql, user) == before and user.json()['first_name'] == 'Ada'


# ---- editors on a terminal

def on_terminal(command, steps, folder):
    """Runs a program on a terminal of its own; steps: (what to wait for, what to type then). Its exit code."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM='xterm', HOME=str(folder), LC_ALL='C.UTF-8')
        os.execvp(command[0], [str(word) for word in command])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack('HHHH', 40, 150, 0, 0))
    seen, deadline = b'', time.monotonic() + 20
    steps = [(wanted.encode(), keys.encode()) for wanted, keys in steps]
    while time.monotonic() < deadline:
        if steps and steps[0][0] in seen:
            seen = b''
            os.write(terminal, steps.pop(0)[1])
        if select.select([terminal], [], [], 0.05)[0]:
            try:
                seen += os.read(terminal, 65536)
            except OSError:  # the program has gone
                break
    else:
        os.kill(pid, 9)
    os.close(terminal)
    code = os.waitpid(pid, 0)[1]
    assert not steps, f'{command[0]} did not come to {steps[0][0]}: {seen[-2000:]}'
    return code


def nano_steps(old, new, *end):
    return [('Write Out', '\x1c'), ('Search (to replace)', f'{old}\r'), ('Replace with', f'{new}\r'),
            ('this instance?', 'a'), ('Replaced 1 occurrence', '\x0f'), ('File Name to Write', '\r'), *end]


@pytest.mark.parametrize('options', [[], ['--backup']])
def test_nano(mnt, new_user, sql, stray, tmp_path, options):
    row = new_user()
    before = trace(sql, row)
    steps = nano_steps('Ada', 'Grace', ('Wrote', '\x18'))
    assert on_terminal(['nano', '--ignorercfiles', *options, row.path], steps, tmp_path) == 0
    after = trace(sql, row)
    assert after.document['first_name'] == 'Grace' == row.json()['first_name']
    assert after.changes == before.changes + 1
    assert stray() == ([f'{row.path.name}~'] if options else [])


def test_nano_tells_of_a_refused_document(mnt, new_user, sql, stray, tmp_path):
    row = new_user()
    before = trace(sql, row)
    steps = nano_steps('student', 'king', ('Invalid argument', '\x18'), ('Save modified buffer', 'n'))
    on_terminal(['nano', '--ignorercfiles', row.path], steps, tmp_path)
    assert trace(sql, row) == before and '"king"' in refused(row).read_text() and stray() == []


def test_vim_on_a_terminal(mnt, new_user, sql, stray, tmp_path):
    """With its swap file and two saves; then a refused one, after which :q! leaves everything as it was."""
    row = new_user()
    vim = ['vim', '-N', '-u', 'NONE', '-i', 'NONE', '--cmd', 'set directory=. backupskip=', row.path]
    steps = [('"id"', ':%s/Ada/Eve/\r'), ('Eve', ':w\r'), ('written', ':%s/Eve/Grace/\r'), ('Grace', ':wq\r')]
    assert on_terminal(vim, steps, tmp_path) == 0
    after = trace(sql, row)
    assert after.document['first_name'] == 'Grace' == row.json()['first_name'] and stray() == []
    steps = [('"id"', ':%s/student/king/\r'), ('king', ':w\r'), ('Press ENTER', '\r:q!\r')]
    on_terminal(vim, steps, tmp_path)
    assert trace(sql, row) == after and row.json()['role'] == 'student' and stray() == []
    assert '"king"' in refused(row).read_text()


def test_a_killed_vim_leaves_its_swap_file_and_the_row(mnt, new_user, sql, stray, tmp_path):
    row = new_user()
    before = trace(sql, row)
    swap = row.path.with_name(f'.{row.path.name}.swp')
    vim = ['vim', '--clean', '-i', 'NONE', '-es', '--cmd', 'set directory=.']
    editor = subprocess.Popen([*vim, '-c', '%s/Ada/Lost/', '-c', 'preserve', row.path], stdin=subprocess.PIPE)

    def preserved():
        with contextlib.suppress(FileNotFoundError):  # vim makes its first one twice
            return b'Lost' in swap.read_bytes()
    eventually(preserved)
    editor.kill()
    editor.wait()
    assert trace(sql, row) == before and stray() == [swap.name]
    done = subprocess.run([*vim, '-r', row.path, '-c', 'wq'], timeout=30, check=False)
    assert done.returncode == 0 and trace(sql, row).document['first_name'] == 'Lost'
