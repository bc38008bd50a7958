"""Saves that come by strange ways, from strange writers, or that the server cannot take: each is saved, or ends in the
errno of the table and in words, with the old row whole and the text in .refused."""

import contextlib
import errno
import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

import process
from fuse_mount import is_mounted
from mount_tools import errors_of, metrics
from saving import Actor, edited, errors, eventually, fails, last_error, refused, set_by_sql, sh, trace

AS_STRANGER = ['setpriv', '--reuid=4242', '--regid=4242', '--clear-groups', '--']


def name_in(sql, row):
    return trace(sql, row).document['first_name']


# ---- pid namespaces: the kernel cannot say who a process of another one is

def in_a_namespace(script, *arguments, **options):
    return sh(f'exec unshare --pid --fork --kill-child sh -c \'{script}\' sh "$@"', *arguments, **options)


@pytest.fixture
def far_mount(cluster, new_mount):
    """A mount whose daemon lives in a pid namespace of its own: it sees the thread 0 behind all that we do."""
    mount = new_mount()
    mount.stop()
    command = ['unshare', '--pid', '--fork', '--kill-child', mount.program, '--config', mount.config, 'mount',
               '--foreground', mount.directory]
    daemon = process.spawn(command, mount.log_file, env=mount.env)
    assert process.wait_until(lambda: is_mounted(mount.directory), 30)
    yield mount
    assert daemon.poll() is None, 'the daemon has died'
    subprocess.run(['fusermount3', '-u', mount.directory], check=False)
    assert daemon.wait(timeout=60) == 0


SAVES = {
    'close': 'cat "$2" > "$1"',
    'fsync': 'dd if="$2" of="$1" conv=fsync status=none',
    'notrunc': 'dd if="$2" of="$1" conv=notrunc bs=100 status=none; truncate -s "$(stat -c %s "$2")" "$1"',
    'append': ': > "$1"; head -c 50 "$2" > "$1.tmp"; tail -c +51 "$2" >> "$1.tmp"; cat "$1.tmp" > "$1"; rm "$1.tmp"',
    'rename': 'cp "$2" "$1.tmp" && mv "$1.tmp" "$1"',
    'rsync': 'rsync -a "$2" "$1"',
    'rsync --inplace': 'rsync -a --inplace "$2" "$1"',
    'away and anew': 'mv "$1" "$1~" && cp "$2" "$1" && rm -f "$1~"',
    'sed': 'sed -i "s/\\"first_name\\": .*/\\"first_name\\": \\"Faraway\\",/" "$1"',
    'vim': 'vim --clean -i NONE -es -c "%s/Ada/Faraway/" -c wq "$1"',
    'emacs': 'emacs -Q --batch "$1" --eval "(progn (search-forward \\"Ada\\") (replace-match \\"Faraway\\" t t) '
             '(save-buffer))"',
}


@pytest.mark.parametrize('way', SAVES)
def test_from_another_pid_namespace(mnt, new_user, sql, tmp_path, way):
    row = new_user()
    (tmp_path / 'new').write_text(edited(row, first_name='Faraway'))
    in_a_namespace(SAVES[way].replace("'", "'\\''"), row.path, tmp_path / 'new')
    assert name_in(sql, row) == 'Faraway' == row.json()['first_name'] and row.path.stat().st_size == len(row.read())
    row.path.with_name(f'{row.path.name}~').unlink(missing_ok=True)


@pytest.mark.parametrize('way', SAVES)
def test_a_mount_that_cannot_tell_who_calls(mnt, far_mount, new_user, sql, tmp_path, way):
    row = new_user()
    path = far_mount.directory / row.path.relative_to(mnt)
    assert path.read_bytes() == row.read()
    (tmp_path / 'new').write_text(edited(row, first_name='Faraway'))
    sh(SAVES[way], path, tmp_path / 'new')
    assert name_in(sql, row) == 'Faraway' == json.loads(path.read_bytes())['first_name']
    eventually(lambda: path.stat().st_size == len(path.read_bytes()))


def test_who_is_not_known_is_never_the_same_process(mnt, far_mount, new_user, sql):
    """A second save from one buffer is a conflict there: it may be anybody's."""
    row = new_user()
    path = far_mount.directory / row.path.relative_to(mnt)
    path.write_text(edited(row, first_name='First'))
    with fails(errno.ECANCELED):
        path.write_text(json.dumps({**row.document, 'first_name': 'Second'}))
    assert name_in(sql, row) == 'First'
    assert (path.parent / '.refused' / path.name).exists()
    with fails(errno.EINVAL):
        path.write_text('{"no": "user"}')
    path.with_name('scratch').write_text('as ever')
    path.with_name('scratch').rename(path.with_name('scratch 2'))
    assert path.with_name('scratch 2').read_text() == 'as ever' and name_in(sql, row) == 'First'


# ---- one file mounted somewhere else

def test_a_bind_mount_of_one_row(mnt, new_user, sql, tmp_path):
    """There is no name to look up again: it shows and saves the row all the same."""
    row, place = new_user(), tmp_path / 'one.json'
    place.touch()
    sh('mount --bind "$1" "$2"', row.path, place)
    try:
        assert place.read_bytes() == row.read()
        place.write_text(edited(row, first_name='Bound'))
        assert name_in(sql, row) == 'Bound' == row.json()['first_name']
        assert json.loads(place.read_bytes())['first_name'] == 'Bound'
        set_by_sql(sql, row, first_name='By somebody else')
        eventually(lambda: b'By somebody else' in place.read_bytes())
        with open(place, 'r+') as file:
            text = file.read().replace('By somebody else', 'In place')
            file.seek(0)
            file.write(text)
            file.truncate()
        assert name_in(sql, row) == 'In place'
        with fails(errno.EINVAL):
            place.write_text('{}')
        assert name_in(sql, row) == 'In place'
        row.path.unlink()
        with fails(errno.ENOENT):
            place.read_bytes()
        with fails(errno.ENOENT):
            place.write_text(edited(row, first_name='Gone') if row.path.exists() else json.dumps(row.document))
        assert trace(sql, row) is None
    finally:
        sh('umount "$1"', place)


# ---- another user's process inside an editor

def test_sudo_tee_from_an_editor(mnt, new_mount, new_user, sql, tmp_path):
    """:w !sudo tee % — the file is open in an editor of one user, and root's tee writes it."""
    row = new_user()
    path = new_mount(uid=4242, gid=4242, file_mode='0444', dir_mode='0755').directory / row.path.relative_to(mnt)
    (tmp_path / 'new').write_text(edited(row, first_name='By root'))
    reader = subprocess.Popen([*AS_STRANGER, 'sh', '-c', 'exec 3< "$1"; read go; cat <&3', 'sh', path],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    sh('tee "$1" < "$2" > "$3"', path, tmp_path / 'new', '/dev/null')
    assert name_in(sql, row) == 'By root'
    assert reader.communicate(b'go\n', timeout=60)[0] in (json.dumps(row.document, indent=2).encode() + b'\n',
                                                          path.read_bytes())
    # Refused, it is root's text; the user does not see it, nor is the row another one.
    (tmp_path / 'new').write_text('{"first_name": 5}')
    done = sh('tee "$1" < "$2" > /dev/null', path, tmp_path / 'new', check=False)
    kept = path.parent / '.refused' / path.name
    assert name_in(sql, row) == 'By root' and kept.read_text() == '{"first_name": 5}'
    assert sh('exec "$@"', *AS_STRANGER, 'cat', kept, check=False).returncode != 0
    assert done.returncode != 0 or done.stderr or last_error_of(path)['errno'] == 'EINVAL'


def last_error_of(path):
    root = next(parent for parent in path.parents if (parent / '.campusfs/errors.jsonl').exists())
    return errors(root)[-1]


# ---- writers without an end, or without a beginning

def rss_kib(pid):
    with open(f'/proc/{pid}/status') as status:
        return int(next(line for line in status if line.startswith('VmRSS')).split()[1])


@pytest.mark.parametrize('name, code', [('row', errno.EFBIG), ('scratch', errno.ENOSPC)])
def test_a_writer_that_never_ends(mnt, new_mount, new_user, sql, name, code):
    """It is stopped at a bound, and the daemon has not grown by more."""
    row = new_user()
    before, mount = trace(sql, row), new_mount(scratch_size='8MB')
    path = mount.directory / row.path.relative_to(mnt)
    path = path if name == 'row' else path.with_name('endless.tmp')
    path.parent.joinpath('warm').write_text('up')
    memory = rss_kib(mount.pid())
    with fails(code):
        with open(path, 'wb', buffering=0) as file:
            file.write(b'{"first_name": "')
            while True:
                file.write(b'x' * 65536)
    assert rss_kib(mount.pid()) - memory < 40_000
    assert trace(sql, row) == before
    path.parent.joinpath('warm').unlink()
    if name == 'scratch':
        path.unlink()
    row_there = mount.directory / row.path.relative_to(mnt)
    row_there.write_text(edited(row, first_name='After all'))
    assert name_in(sql, row) == 'After all'


@pytest.mark.parametrize('command', ['yes', 'yes \'{"a": \'', 'cat /dev/zero', 'yes "["'])
def test_a_pipe_that_never_ends(mnt, new_user, sql, command):
    """Told by write(), so that a shell's pipe ends, too."""
    row = new_user()
    before = trace(sql, row)
    sh(f'{command} | cat > "$1"', row.path, check=False)
    assert trace(sql, row) == before and last_error(mnt, row)['errno'] in ('EFBIG', 'EINVAL')


@pytest.mark.parametrize('script', [': > "$1"', 'exec 3>> "$1"; exec 3>&-', 'exec 3<> "$1"; exec 3>&-',
                                    'cp /dev/null "$1"', 'dd if=/dev/null of="$1" status=none', 'true | tee "$1"',
                                    'dd if=/dev/null of="$1" conv=notrunc status=none'])
def test_a_writer_of_nothing(mnt, new_user, sql, script):
    row = new_user()
    before, text = trace(sql, row), row.read()
    sh(script, row.path)
    assert trace(sql, row) == before and row.read() == text and not refused(row).exists()


def test_a_document_of_bytes_one_call_each_to_the_end_and_back(mnt, new_user, sql):
    """Written backwards a byte at a time over holes, then once more forwards: one save, of the last state."""
    row = new_user()
    before, text = trace(sql, row), edited(row, first_name='Byte by byte').encode()
    fd = os.open(row.path, os.O_WRONLY | os.O_TRUNC)
    for at in reversed(range(len(text))):
        os.pwrite(fd, text[at:at + 1], at)
    for at in range(len(text)):
        os.pwrite(fd, text[at:at + 1], at)
    os.close(fd)
    after = trace(sql, row)
    assert after.document['first_name'] == 'Byte by byte' and after.changes == before.changes + 1


# ---- names

def test_a_link_out_of_the_tree(mnt, new_user, sql, tmp_path):
    """It leads where it leads; it never becomes a row."""
    row, outside = new_user(), tmp_path / 'outside'
    before = trace(sql, row)
    outside.write_text(edited(row, first_name='Outside'))
    link = row.path.with_name('out.link')
    link.symlink_to(outside)
    try:
        with fails(errno.EPERM):
            os.rename(link, row.path)
        assert os.readlink(link) == str(outside) and trace(sql, row) == before
        link.write_text('written through')
        assert outside.read_text() == 'written through' and trace(sql, row) == before
        outside.write_text(edited(row, first_name='Followed'))
        sh('cat "$2" > "$1"; cp -L "$2" "$1"', row.path, link)
        assert name_in(sql, row) == 'Followed'
    finally:
        link.unlink()


def test_a_link_to_a_row_saves_the_row(mnt, new_user, sql, tmp_path):
    row, link = new_user(), tmp_path / 'link.json'
    link.symlink_to(row.path)
    sh('sed -i --follow-symlinks s/Ada/Linked/ "$1"; vim --clean -i NONE -es -c "%s/Linked/Again/" -c wq "$1"', link)
    assert name_in(sql, row) == 'Again' and link.is_symlink()


@pytest.mark.parametrize('name', ['5\n.json', '\n5.json', '5.json\n', '5.json\n~', '\x1b[2J.json', '5.json\t'])
def test_names_with_newlines_are_told_on_one_line(mnt, new_user, sql, name):
    """What such a name is refused for, or its refused rename, is one line of the journal."""
    row = new_user()
    before, path, told = trace(sql, row), row.path.with_name(name), len(errors(mnt))
    try:
        path.write_text('{"no": "user"}')
    except OSError as error:
        assert error.errno == errno.EINVAL
    else:
        with fails(errno.EINVAL):
            path.rename(row.path)
        assert name in os.listdir(path.parent)
        path.unlink()
    assert len(errors(mnt)) > told, 'each line parses'
    assert trace(sql, row) == before


# ---- what the server says

@pytest.fixture
def trouble(sql):
    """trouble(row, state, times): the row's next so many updates (all: None) raise that SQLSTATE."""
    made = []

    def make(row, state, times=None):
        name = f'trouble_{row.id}'
        made.append(name)
        sql('europe', f'CREATE SEQUENCE {name}')
        sql('europe', f'GRANT ALL ON {name} TO PUBLIC')
        sql('europe', f'''
            CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
                IF nextval('campusfs.{name}') <= {times or 10 ** 6} THEN
                    RAISE EXCEPTION 'the test''s trouble' USING ERRCODE = '{state}';
                END IF;
                RETURN NEW;
            END $$''')
        sql('europe', f'CREATE TRIGGER {name} BEFORE UPDATE ON users FOR EACH ROW WHEN (NEW.id = {row.id}) '
                      f'EXECUTE FUNCTION {name}()')
        return lambda: sql('europe', f'SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {name}')[0][0]
    yield make
    for name in made:
        sql('europe', f'DROP TRIGGER {name} ON users')
        sql('europe', f'DROP FUNCTION {name}')
        sql('europe', f'DROP SEQUENCE {name}')


def save_by(way, path, text):
    """With every error raised."""
    if way == 'rename':
        path.with_name('new.tmp').write_text(text)
        os.rename(path.with_name('new.tmp'), path)
    elif way == 'fsync':
        fd = os.open(path, os.O_WRONLY | os.O_TRUNC)
        os.write(fd, text.encode())
        try:
            os.fsync(fd)
        finally:
            try:
                os.close(fd)
            except OSError:
                pass
    else:
        path.write_text(text)


@pytest.mark.parametrize('way', ['close', 'rename', 'fsync'])
@pytest.mark.parametrize('state, code, tried_again', [
    ('40P01', errno.EAGAIN, True), ('40001', errno.EAGAIN, True), ('55P03', errno.ETIMEDOUT, False),
    ('57014', errno.ETIMEDOUT, False), ('53100', errno.ENOSPC, False), ('23505', errno.EEXIST, False),
    ('23514', errno.EINVAL, False), ('42501', errno.EACCES, False), ('XX000', errno.EIO, False)])
def test_what_the_server_cannot_do(mnt, new_user, sql, trouble, state, code, tried_again, way):
    row = new_user()
    before, shown, text = trace(sql, row), row.read(), edited(row, first_name='Trouble')
    tries = trouble(row, state)
    with fails(code):
        save_by(way, row.path, text)
    assert trace(sql, row) == before and row.read() == shown, 'the old row is whole'
    assert refused(row).read_text() == text
    told = last_error(mnt, row)
    assert (told['errno'], told['sqlstate']) == (errno.errorcode[code], state) and told['message']
    assert (tries() > 1) == tried_again and tries() < 20
    if way == 'rename':
        assert row.path.with_name('new.tmp').read_text() == text, 'it is still there'
        row.path.with_name('new.tmp').unlink()
    refused(row).unlink()


def test_a_row_that_somebody_keeps_locked(new_mount, new_user, mnt, cluster, sql):
    """The server ends the wait, before the mount's own time is over, and says what it was for."""
    row = new_user()
    root = new_mount(timeout='3s').directory
    path = root / row.path.relative_to(mnt)
    with contextlib.closing(cluster.connect('europe', options='-c search_path=campusfs,pg_catalog')) as holder:
        holder.autocommit = False
        holder.cursor().execute('SELECT FROM users WHERE id = %s FOR UPDATE', (row.id,))
        with fails(errno.ETIMEDOUT):
            path.write_text(edited(row, first_name='Late'))
        holder.rollback()
    error = errors_of(root)[-1]
    assert error['sqlstate'] == '55P03' and 'lock' in error['message'], error
    assert trace(sql, row).document['first_name'] != 'Late'
    path.write_text(edited(row, first_name='Later'))
    assert trace(sql, row).document['first_name'] == 'Later'


@pytest.mark.parametrize('state', ['40P01', '40001'])
def test_a_deadlock_that_goes_by_is_nobodys_business(mnt, new_user, sql, trouble, state):
    row = new_user()
    before, told = trace(sql, row), len(errors(mnt))
    tries = trouble(row, state, times=2)
    row.path.write_text(edited(row, first_name='Third time'))
    after = trace(sql, row)
    assert after.document['first_name'] == 'Third time' and tries() == 3
    assert (after.changes, after.requests) == (before.changes + 1, before.requests + 1), 'one transaction was committed'
    assert len(errors(mnt)) == told and not refused(row).exists()


def test_a_name_that_somebody_takes_in_the_same_moment(mnt, cluster, new_user, sql, unique):
    """The other transaction is open when the save looks, and committed when it writes."""
    row, taker, email = new_user(), new_user(), f'{unique()}@example.org'
    before, text = trace(sql, row), edited(row, email=email)
    other = cluster.connect('europe', options='-c search_path=campusfs,pg_catalog')
    other.autocommit = False
    other.cursor().execute("UPDATE users SET email = %s WHERE id = %s", (email, taker.id))
    with ThreadPoolExecutor(1) as pool, Actor() as writer:
        saving = pool.submit(writer.save, row.path, text)
        eventually(lambda: sql('europe', "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
                                         "AND usename = 'campusfs_rw'"))
        other.commit()
        other.close()
        with fails(errno.EEXIST):
            saving.result(timeout=60)
    assert trace(sql, row) == before and refused(row).read_text() == text
    told = last_error(mnt, row)
    assert told['sqlstate'] == '23505' and 'email' in json.dumps(told)


def test_two_save_the_same_new_name_at_once(mnt, new_user, sql, unique):
    """Of two processes that take one free e-mail address at the same time one is told that it is taken."""
    for _ in range(5):
        rows, email = [new_user(), new_user()], f'{unique()}@example.org'
        texts = [edited(row, email=email) for row in rows]
        with Actor() as one, Actor() as two, ThreadPoolExecutor(2) as pool:
            outcomes = [pool.submit(actor.save, row.path, text)
                        for actor, row, text in zip((one, two), rows, texts)]
            codes = [getattr(outcome.exception(timeout=60), 'errno', None) for outcome in outcomes]
        assert sorted(codes, key=str) == [errno.EEXIST, None]
        assert [row.json()['email'] == email for row in rows] == [code is None for code in codes]


# ---- names that editors move

def test_a_look_by_others_does_not_put_a_name_back(mnt, new_user, sql):
    """Between an editor's rename and its creation anybody may look at the row: the name stays free for the editor."""
    row = new_user()
    text = edited(row, first_name='Anew')
    with Actor() as editor:
        backup = row.path.with_name(f'{row.path.name}~')
        editor.rename(row.path, backup)
        for look in ('stat "$1"', 'cat "$1"', 'ls -l "${1%/*}"'):
            sh(look, row.path)
            with fails(errno.ENOENT):
                editor.stat(row.path)
            assert row.path.exists()
        fd = editor.open(row.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        editor.write(fd, text)
        editor.close(fd)
        editor.unlink(backup)
    assert name_in(sql, row) == 'Anew'


@pytest.mark.long
def test_what_processes_did_is_forgotten_in_the_end(mnt, new_mount, new_user, sql):
    """The last 4,096 things are remembered of them. Then a row that was moved away is back for who did so, and a second save
    from one buffer is a conflict."""
    root = new_mount().directory
    away, saved, other = (root / new_user().path.relative_to(mnt) for _ in range(3))
    text = saved.read_text()
    many = 'n=0; while [ $n -lt $2 ]; do mv "$1" "$1~" || exit 1; n=$((n + 1)); done'
    with Actor() as editor:
        editor.rename(away, away.with_name(f'{away.name}~'))
        for name in ('One', 'Two'):
            editor.save(saved, text.replace('"Ada"', f'"{name}"'))
        subprocess.run(['sh', '-c', many, 'sh', other, '2000'], check=True)
        with fails(errno.ENOENT):
            editor.stat(away)
        editor.save(saved, text.replace('"Ada"', '"Three"'))
        subprocess.run(['sh', '-c', many, 'sh', other, '4096'], check=True)
        assert editor.stat(away)[6] == away.stat().st_size
        with fails(errno.ECANCELED):
            editor.save(saved, text.replace('"Ada"', '"Four"'))
    assert json.loads(saved.read_text())['first_name'] == 'Three'


def test_an_ended_save_leaves_nothing_behind(mnt, new_user, sql):
    """A process that is killed with rows open in every way commits what is whole; its buffers are given back."""
    rows = [new_user() for _ in range(4)]

    def buffered():
        return metrics(mnt)['campusfs_scratch_bytes']
    before = buffered()
    with Actor() as writer:
        for n, row in enumerate(rows):
            fd = writer.open(row.path, os.O_RDWR | os.O_TRUNC)
            writer.write(fd, edited(row, first_name='Killed') if n % 2 else '{"first_name": ')
        during = buffered()
        writer.kill()
    assert during > before
    eventually(lambda: [name_in(sql, row) for row in rows] == ['Ada', 'Killed'] * 2)
    eventually(lambda: refused(rows[0]).exists() and refused(rows[2]).exists())
    eventually(lambda: buffered() <= before)
