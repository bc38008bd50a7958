""".meta of media: what is known of each file as a document, saved as rows are, and the revisions that were replaced."""

import datetime
import hashlib
import json
import os
import shutil
import stat
import subprocess
import threading

import bson
import process
import pytest
from media_proxy import MediaProxy
from media_tools import Bucket, appears, bucket, course  # noqa: F401
from mount_tools import errno_of, errors_of, made_writable

KEYS = ['name', 'title', 'language', 'content_type', 'duration_ms', 'size', 'sha256', 'modified_at', 'revisions',
        'updated_at']
PNG = bytes.fromhex('89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489') + bytes(100)
PDF = b'%PDF-1.7\n%\xe2\xe3\xcf\xd3\n' + b'1 0 obj\n<<>>\nendobj\n' * 10


@pytest.fixture
def file(course):
    path = course.folder / 'week-1' / 'film.png'
    path.parent.mkdir()
    path.write_bytes(PNG)
    return path


def document(path, suffix='.json'):
    return path.parent / '.meta' / (path.name + suffix)


def meta(path):
    return json.loads(document(path).read_bytes())


def stored(course, path):
    """The files document of the newest revision."""
    found = course.bucket.files.find({'filename': str(path.relative_to(course.folder.parent))})
    return max(found, key=lambda one: (one['uploadDate'], one['_id']))


def save(path, **fields):
    document(path).write_text(json.dumps({**meta(path), **fields}))


def last_words(mnt, path):
    return errors_of(mnt, str(document(path).relative_to(mnt)))[-1]


# ---- the document

def test_the_document(course, file):
    text = document(file).read_text()
    found = json.loads(text)
    assert list(found) == KEYS
    assert subprocess.run(['jq', '.'], input=text, capture_output=True, text=True).stdout == text
    sha256 = hashlib.sha256(PNG).hexdigest()
    revision, = found['revisions']
    assert revision == {'n': 1, 'uploaded_at': found['updated_at'], 'size': len(PNG), 'sha256': sha256, 'current': True}
    assert list(revision) == ['n', 'uploaded_at', 'size', 'sha256', 'current']
    del found['revisions'], found['updated_at'], found['modified_at']
    assert found == {'name': 'film.png', 'title': None, 'language': None, 'content_type': 'image/png', 'duration_ms': None,
                     'size': len(PNG), 'sha256': sha256}
    status = document(file).stat()
    assert status.st_size == len(text) and status.st_uid == file.stat().st_uid
    assert document(file).stat().st_ino == status.st_ino
    listed = subprocess.run(['ls', '-l', document(file).parent], capture_output=True, text=True, check=True).stdout
    size, = (line.split()[4] for line in listed.splitlines() if line.endswith(' film.png.json'))
    assert size == str(len(text))


def test_found_by_its_name_and_never_listed(course, file):
    assert sorted(os.listdir(course.folder)) == ['week-1'] and os.listdir(file.parent) == ['film.png']
    assert os.listdir(course.folder / '.meta') == []
    assert sorted(os.listdir(file.parent / '.meta')) == ['film.png.json', 'film.png.revisions']
    found = subprocess.run(['find', course.folder], capture_output=True, text=True, check=True).stdout
    assert '.meta' not in found
    assert errno_of(os.stat, course.folder.parent / '.meta') == 'ENOENT'
    assert errno_of(os.stat, file.parent / '.meta' / 'nothing.json') == 'ENOENT'
    assert errno_of(os.stat, file.parent / '.meta' / 'week-1.json') == 'ENOENT'
    longest = course.folder / ('n' * 251)
    longest.write_bytes(b'x')
    assert os.listdir(course.folder / '.meta') == [], 'no name is left for its document'
    status = (file.parent / '.meta').stat()
    assert stat.S_ISDIR(status.st_mode) and status.st_mode == file.parent.stat().st_mode


def test_rsync_and_tar_carry_nothing_of_it_and_rsync_twice_sends_nothing(course, file, tmp_path):
    copy = ['rsync', '-a', '--out-format=%n', f'{course.folder}/', f'{tmp_path}/copy']
    assert 'week-1/film.png' in subprocess.run(copy, capture_output=True, text=True, check=True).stdout
    save(file, title='Week 1')
    assert subprocess.run(copy, capture_output=True, text=True, check=True).stdout == ''
    assert [str(path.relative_to(tmp_path / 'copy')) for path in (tmp_path / 'copy').rglob('*')] == \
        ['week-1', 'week-1/film.png']


# ---- listings

@pytest.fixture
def listed(cluster, course, new_mount):
    """The .meta of 300 files, in a mount whose MongoDB is behind a proxy, and that; and the same in the shared mount."""
    names = [f'{course.id}/many/{n:03}' for n in range(300)]
    fields = {'length': 0, 'chunkSize': 1024, 'uploadDate': datetime.datetime(2026, 1, 1)}
    course.bucket.files.insert_many([{'filename': name, 'metadata': {'contentType': 'x/y', 'title': name[-3:] * (n + 1)}, **fields}
                                     for n, name in enumerate(names)])
    proxy = MediaProxy(cluster.mongodb.uri)
    mount = new_mount(mongodb_uri=proxy.uri)
    path = f'regions/europe/media/{course.id}/many/.meta'
    assert process.wait_until(lambda: len(os.listdir(mount.directory / path)) == 600, 60, 0.05)
    appears(course.folder / 'many/299')
    yield proxy, mount.directory / path, course.folder / 'many/.meta'
    assert mount.stop() == 0
    proxy.close()


def test_a_listing_asks_by_the_page(listed):
    proxy, folder, _ = listed
    before = proxy.count('find', 'files')
    lines = subprocess.run(['ls', '-l', folder], capture_output=True, text=True, check=True).stdout.splitlines()
    assert proxy.count('find', 'files') - before < 30
    sizes = {line.split()[-1]: int(line.split()[4]) for line in lines if line.endswith('.json')}
    assert len(sizes) == 300
    assert all(sizes[f'{n:03}.json'] == len((folder / f'{n:03}.json').read_bytes()) for n in (0, 1, 150, 299))


def test_what_is_opened_from_a_listing_is_never_outdated(listed):
    _, folder, elsewhere = listed
    with os.scandir(folder) as entries:  # while it is open, this thread's lookups are answered from pages
        next(entries)
        sizes = [(folder / f'{n:03}.json').stat().st_size for n in range(10)]
        (elsewhere / '005.json').write_text('{"title": "elsewhere", "content_type": "x/y"}')
        assert json.loads((folder / '005.json').read_text())['title'] == 'elsewhere'
    with os.scandir(folder) as entries:
        next(entries)
        (folder / '000.json').stat()
        (elsewhere / '006.json').write_text('{"title": "elsewhere", "content_type": "x/y"}')
        os.utime(folder / '006.json')
        assert json.loads((folder / '006.json').read_text())['title'] == 'elsewhere'
    with os.scandir(folder) as entries:
        next(entries)
        assert [(folder / f'{n:03}.json').stat().st_size for n in range(5)] == sizes[:5]
        subprocess.run(['/usr/bin/python3', '-c', 'import sys; open(sys.argv[1], "w").write("{}")', folder / '004.json'], check=True)
        assert (folder / '004.json').stat().st_size < sizes[4], 'what this mount saved is seen at once'
        (folder / '007.json').stat()
        (elsewhere / '008.json').write_text('{}')
        assert process.wait_until(lambda: (folder / '008.json').stat().st_size < sizes[8], 60, 0.05)


# ---- content types

@pytest.mark.parametrize('data, wanted', [(PNG, 'image/png'), (PDF, 'application/pdf'), (b'Week one.\n', 'text/plain'),
                                          (b'', None)])
def test_the_type_of_what_is_uploaded_is_stored(course, data, wanted):
    path = course.folder / 'a'
    path.write_bytes(data)
    assert stored(course, path)['metadata'].get('contentType') == wanted == meta(path)['content_type']


def test_the_type_follows_the_bytes_also_of_large_and_changed_files(course, file):
    large = PDF + os.urandom(9 << 20)
    file.write_bytes(large)
    assert stored(course, file)['metadata']['contentType'] == 'application/pdf'
    with open(file, 'r+b') as opened:
        opened.write(PNG)
    assert stored(course, file)['metadata']['contentType'] == 'image/png', 'changed in place'
    with open(file, 'ab') as opened:
        opened.write(b'more')
    assert stored(course, file)['metadata']['contentType'] == 'image/png'


def test_a_type_that_was_chosen_stays_until_it_is_null(course, file):
    save(file, content_type='application/x-campus')
    file.write_bytes(PDF)
    assert meta(file)['content_type'] == 'application/x-campus'
    assert stored(course, file)['metadata']['contentType'] == 'application/x-campus'
    save(file, content_type=None)
    assert meta(file)['content_type'] == 'application/pdf'
    file.write_bytes(PNG)
    assert meta(file)['content_type'] == 'image/png'


def test_a_foreign_type_is_found_out_and_not_stored(course):
    path = course.put('foreign', PDF, color='red')
    assert meta(path)['content_type'] == 'application/pdf'
    assert 'contentType' not in stored(course, path)['metadata']
    save(path, title='A')
    assert stored(course, path)['metadata'] == {'color': 'red', 'title': 'A', 'contentType': 'application/pdf',
                                                'updatedAt': stored(course, path)['metadata']['updatedAt']}
    said = course.put('said', PDF, contentType='x/y')
    assert meta(said)['content_type'] == 'x/y'


def test_without_a_magic_database_uploads_go_on(course, new_mount, monkeypatch):
    monkeypatch.setenv('MAGIC', '/nonexistent/magic.mgc')
    mount = new_mount()
    path = mount.directory / course.folder.relative_to(course.folder.parents[3]) / 'a.pdf'
    path.write_bytes(PDF)
    path.write_bytes(PDF + b' ')
    assert meta(path)['content_type'] is None and path.read_bytes() == PDF + b' '
    assert 'content types' in mount.log_file.read_text()


# ---- saving

def test_what_is_saved_changes_the_document_and_neither_bytes_nor_time_nor_revision(course, file):
    before, was = stored(course, file), file.stat()
    save(file, title='Woche 1: Überblick', language='de', duration_ms=61500, content_type='image/x-png')
    found = meta(file)
    assert [found[key] for key in ('title', 'language', 'duration_ms', 'content_type')] == \
        ['Woche 1: Überblick', 'de', 61500, 'image/x-png']
    after = stored(course, file)
    new = {key: after['metadata'].pop(key) for key in ('title', 'language', 'durationMs', 'contentTypeGiven', 'updatedAt')}
    assert new == {'title': 'Woche 1: Überblick', 'language': 'de', 'durationMs': bson.Int64(61500),
                   'contentTypeGiven': True, 'updatedAt': new['updatedAt']}
    before['metadata']['contentType'] = 'image/x-png'
    assert after == before
    now = file.stat()
    assert (now.st_mtime_ns, now.st_size, now.st_ino) == (was.st_mtime_ns, was.st_size, was.st_ino)
    assert len(found['revisions']) == 1 and file.read_bytes() == PNG
    save(file, title=None, language=None, duration_ms=None, content_type=None)
    assert stored(course, file)['metadata'] == {**before['metadata'], 'contentType': 'image/png',
                                                'updatedAt': stored(course, file)['metadata']['updatedAt']}


def test_a_field_that_is_missing_is_null_and_what_follows_from_the_file_is_not_taken(course, file):
    save(file, title='A', language='en')
    document(file).write_text(json.dumps({'title': 'B', 'size': 7, 'sha256': 'x', 'name': 'y', 'revisions': [1]}))
    found = meta(file)
    assert found['title'] == 'B' and found['language'] is None
    assert found['size'] == len(PNG) and found['name'] == 'film.png' and len(found['revisions']) == 1


def test_tools_that_save(course, file):
    path = document(file)
    run = lambda command: subprocess.run(command, shell=True, check=True, cwd=path.parent)  # noqa: E731
    run('jq \'.title = "by jq"\' film.png.json > tmp.json && mv tmp.json film.png.json')
    assert meta(file)['title'] == 'by jq' and 'tmp.json' not in os.listdir(path.parent)
    run('sed -i "s/by jq/by sed/" film.png.json')
    assert meta(file)['title'] == 'by sed'
    run('vim -u NONE -es -c "%s/by sed/by vim/" -c "wq" film.png.json')
    assert meta(file)['title'] == 'by vim'
    run('vim -u NONE -es -c "set backup" -c "%s/by vim/by vim again/" -c "wq" film.png.json')
    assert meta(file)['title'] == 'by vim again'
    with open(path, 'r+') as opened:
        text = opened.read().replace('by vim again', 'in place')
        opened.seek(0)
        opened.truncate()
        opened.write(text)
    assert meta(file)['title'] == 'in place'
    fd = os.open(path, os.O_WRONLY | os.O_TRUNC)
    try:
        os.write(fd, b'{"title": "by fsync"}')
        os.fsync(fd)
        assert meta(file)['title'] == 'by fsync'
    finally:
        os.close(fd)


@pytest.mark.parametrize('fields, field', [
    ({'title': 7}, 'title'), ({'title': ''}, 'title'), ({'title': 'x' * 1001}, 'title'), ({'language': 'english!'}, 'language'),
    ({'duration_ms': -1}, 'duration_ms'), ({'duration_ms': 1.5}, 'duration_ms'), ({'content_type': 'png'}, 'content_type'),
    ({'titel': 'x'}, 'titel'), ({'title': {}}, 'title'), ({'updated_at': 'soon'}, 'updated_at')])
def test_what_is_refused(course, file, mnt, fields, field):
    was = document(file).read_bytes()
    assert errno_of(document(file).write_text, json.dumps(fields)) == 'EINVAL'
    words = last_words(mnt, file)
    assert words['errno'] == 'EINVAL' and words['column'] == field and words['message'].startswith(field)
    assert document(file).read_bytes() == was
    assert json.loads(document(file, '.json.refused').read_text()) == fields
    assert 'EINVAL' in document(file, '.json.refused.error').read_text()


def test_a_refused_text_is_mended_and_tried_again(course, file, mnt):
    assert errno_of(document(file).write_text, '{"title": 5}') == 'EINVAL'
    refused = document(file, '.json.refused')
    assert errno_of(os.rename, refused, document(file)) == 'EINVAL', 'as it is'
    refused.write_text('{"title": "five"}')
    os.rename(refused, document(file))
    assert meta(file)['title'] == 'five'
    assert sorted(os.listdir(refused.parent)) == ['film.png.json', 'film.png.revisions']
    assert errno_of(document(file).write_text, 'no JSON') == 'EINVAL'


def test_a_text_that_is_outdated_is_a_conflict(course, file, mnt, new_mount):
    outdated = json.dumps({**meta(file), 'title': 'mine'})
    script = 'import json,sys; p=sys.argv[1]; d=json.load(open(p)); d["language"]="fr"; open(p,"w").write(json.dumps(d))'
    subprocess.run(['/usr/bin/python3', '-c', script, document(file)], check=True)
    assert errno_of(document(file).write_text, outdated) == 'ECANCELED'
    assert last_words(mnt, file)['column'] == 'updated_at'
    assert meta(file)['language'] == 'fr' and meta(file)['title'] is None
    free = {key: value for key, value in json.loads(outdated).items() if key != 'updated_at'}
    document(file).write_text(json.dumps(free))
    assert meta(file)['title'] == 'mine' and meta(file)['language'] is None
    other = new_mount().directory / file.relative_to(mnt)
    save(other, title='theirs')
    assert meta(file)['title'] == 'theirs', 'another mount is seen at once'


def test_a_process_saves_one_buffer_twice(course, file):
    text = document(file).read_text()
    for title in ('one', 'two'):
        document(file).write_text(text.replace('"title": null', f'"title": "{title}"'))
    assert meta(file)['title'] == 'two'


def test_what_is_saved_while_the_file_is_written_is_not_lost(course, file, mnt, new_mount):
    """Uploads of one mount and saves of another, each retried until it goes through: the last word of both counts."""
    other = new_mount().directory / file.relative_to(mnt)
    appears(other)
    failures = []

    def upload():
        try:
            for n in range(25):
                file.write_bytes(PNG + bytes([n]))
        except OSError as error:
            failures.append(error)
    thread = threading.Thread(target=upload)
    thread.start()
    saved = 0
    while thread.is_alive() or saved == 0:
        document(other).write_text(json.dumps({'title': f'take {saved + 1}'}))
        saved += 1
    thread.join()
    assert not failures
    assert stored(course, file)['metadata']['title'] == f'take {saved}'
    assert meta(file)['title'] == f'take {saved}' and file.read_bytes() == PNG + bytes([24])


def test_a_revision_that_is_published_just_before_the_save_gets_it_too(cluster, course, file, mnt, new_mount):
    """The save has looked for the newest revision, and is on its way to that one."""
    proxy = MediaProxy(cluster.mongodb.uri)
    path = new_mount(mongodb_uri=proxy.uri, media_sweep='0').directory / file.relative_to(mnt)
    assert meta(path)['title'] is None
    proxy.rule('update', 'files', action='pass', times=1, call=lambda: file.write_bytes(PNG + b'newer'))
    document(path).write_text('{"title": "said of the one before"}')
    proxy.close()
    newest = stored(course, file)
    assert (newest['length'], newest['metadata']['title']) == (len(PNG) + 5, 'said of the one before')


def test_what_cannot_be_made_removed_or_moved(course, file, mnt):
    folder = file.parent / '.meta'
    for call, arguments in ((os.mkdir, (folder / 'x',)), (os.remove, (document(file),)),
                            (os.rmdir, (document(file, '.revisions'),)), (os.rmdir, (folder,)),
                            (os.rename, (document(file, '.revisions'), folder / 'x')),
                            (os.mkdir, (document(file, '.revisions') / 'x',)),
                            ((document(file, '.revisions') / 'x').write_text, ('x',))):
        assert errno_of(call, *arguments) == 'EPERM', (call, arguments)
    assert errors_of(mnt, str(document(file).relative_to(mnt)))[-1]['message'].startswith('it goes with its file')
    (file.parent / 'b').write_bytes(b'b')
    assert errno_of(os.rename, document(file), folder / 'b.json') == 'EPERM'
    assert errno_of(os.rename, folder, file.parent / 'meta') == 'EPERM'
    (folder / 'note').write_text('scratch')
    assert (folder / 'note').read_text() == 'scratch'
    os.rename(folder / 'note', folder / 'other')
    os.remove(folder / 'other')
    assert course.bucket.files.count_documents({'filename': {'$regex': 'note|other'}}) == 0
    shutil.rmtree(file.parent)
    assert os.listdir(course.folder) == []


def test_a_rename_keeps_it_and_a_copy_is_a_file_of_its_own(course, file):
    save(file, title='Week 1', content_type='x/y')
    file.write_bytes(PNG + b'!')
    kept = {key: meta(file)[key] for key in ('title', 'content_type', 'updated_at')}
    moved = file.with_name('b.png')
    os.rename(file, moved)
    assert {**meta(moved), **kept} == meta(moved) and meta(moved)['name'] == 'b.png'
    assert errno_of(os.stat, document(file)) == 'ENOENT'
    os.rename(file.parent, course.folder / 'week-2')
    moved = course.folder / 'week-2/b.png'
    assert {**meta(moved), **kept} == meta(moved)
    subprocess.run(['cp', '-a', moved, moved.with_name('c.png')], check=True)
    assert meta(moved.with_name('c.png'))['title'] is None
    assert meta(moved.with_name('c.png'))['content_type'] == 'image/png'


def test_an_open_document_follows_its_file_and_ends_with_it(course, file):
    fd = os.open(document(file), os.O_WRONLY | os.O_TRUNC)
    os.rename(file, file.with_name('b.png'))
    os.write(fd, b'{"title": "B"}')
    os.close(fd)
    assert meta(file.with_name('b.png'))['title'] == 'B'
    fd = os.open(document(file.with_name('b.png')), os.O_WRONLY | os.O_TRUNC)
    os.write(fd, b'{"title": "C"}')
    os.remove(file.with_name('b.png'))
    assert errno_of(os.close, fd) == 'ECANCELED'


def test_a_document_that_is_renamed_for_a_backup_leaves_a_copy(course, file):
    text, backup = document(file).read_bytes(), document(file, '.json~')
    os.rename(document(file), backup)
    assert backup.read_bytes() == text == document(file).read_bytes()
    backup.write_text('{"title": "back"}')
    os.rename(backup, document(file))
    assert meta(file)['title'] == 'back' and not backup.exists()


def test_a_mount_that_reads_only(course, file, new_mount, mnt):
    mount = new_mount(read_only='on')
    path = document(mount.directory / file.relative_to(mnt))
    assert json.loads(path.read_text())['name'] == 'film.png'
    assert errno_of(os.open, path, os.O_WRONLY) == 'EROFS'
    if not made_writable(mount):
        return
    (path.parent / 'scratch').write_text('{"title": "T"}')  # in memory
    for call, arguments in ((os.open, (path, os.O_WRONLY)), (os.truncate, (path, path.stat().st_size - 1)),
                            (os.rename, (path.parent / 'scratch', path))):
        assert errno_of(call, *arguments) == 'EROFS', call
    assert meta(file)['title'] is None


# ---- what other programs have stored

@pytest.mark.parametrize('metadata', [
    {'title': 5, 'language': ['de'], 'contentType': 7, 'durationMs': 'long'}, {'title': 'x' * 5000, 'language': 'd\x00e'},
    {'contentType': 'no type', 'updatedAt': 'never', 'contentTypeGiven': 1}, {'durationMs': 2.5, 'revision': 'first'},
    {'durationMs': -5, 'updatedAt': None, 'revision': -3}, {'title': {'$eq': 'x'}, 'language': {'$gt': ''}}])
def test_odd_metadata_are_as_if_they_were_not_there_and_left_alone(course, metadata):
    path = course.insert('odd', len(PNG), 1024, [(0, PNG)], metadata=metadata)
    found = meta(path)
    assert [found[key] for key in KEYS[1:5]] == [None, None, 'image/png', None] and found['revisions'][0]['n'] == 1
    new = {'title': 'T', 'duration_ms': 10, 'content_type': 'a/b'} if 'revision' not in metadata else {'duration_ms': 10}
    save(path, **new)
    kept = stored(course, path)['metadata']
    assert {key: meta(path)[key] for key in new} == new
    assert kept.get('language') == metadata.get('language') and kept.get('revision') == metadata.get('revision')


def test_metadata_that_are_missing_null_or_no_document(course, mnt):
    for n, fields in enumerate(({}, {'metadata': None})):
        path = course.insert(f'none-{n}', 3, 3, [(0, b'abc')], **fields)
        save(path, title='T')
        assert meta(path)['title'] == 'T' and path.read_bytes() == b'abc'
    for n, value in enumerate((5, 'text', [1])):
        path = course.insert(f'other-{n}', 3, 3, [(0, b'abc')], metadata=value)
        assert meta(path)['title'] is None and meta(path)['content_type'] == 'text/plain'
        assert errno_of(document(path).write_text, '{"title": "T"}') == 'EINVAL'
        assert 'no document' in last_words(mnt, path)['message']
        assert stored(course, path)['metadata'] == value
    path = course.insert('damaged', 3, 3)
    assert meta(path)['content_type'] is None
    path = course.insert('old', 3, 3, [(0, b'abc')], contentType='text/x-old')
    assert meta(path)['content_type'] == 'text/x-old'


# ---- revisions

def test_older_revisions_are_read_and_restored(course, file):
    contents = [PNG, PDF, b'three']
    for content in contents[1:]:
        file.write_bytes(content)
    found = meta(file)['revisions']
    assert [(one['n'], one['size'], one['current']) for one in found] == \
        [(3, 5, True), (2, len(PDF), False), (1, len(PNG), False)]
    assert [one['sha256'] for one in found] == [hashlib.sha256(one).hexdigest() for one in reversed(contents)]
    folder = document(file, '.revisions')
    assert os.listdir(folder) == ['1', '2']
    assert [(folder / n).read_bytes() for n in ('1', '2')] == contents[:2]
    assert [(folder / n).stat().st_size for n in ('1', '2')] == [len(one) for one in contents[:2]]
    assert not (folder / '1').stat().st_mode & 0o222 and not folder.stat().st_mode & 0o222
    for n in ('0', '3', '4', '01', 'x'):
        assert errno_of(os.stat, folder / n) == 'ENOENT'
    assert errno_of(os.open, folder / '1', os.O_WRONLY) == 'EACCES'
    assert errno_of(os.truncate, folder / '1', 0) in ('EPERM', 'EACCES')
    assert errno_of(os.remove, folder / '1') == 'EPERM'
    save(file, title='kept')
    subprocess.run(['cp', '.meta/film.png.revisions/1', 'film.png'], cwd=file.parent, check=True)
    assert file.read_bytes() == PNG and meta(file)['title'] == 'kept' and meta(file)['content_type'] == 'image/png'
    assert [one['n'] for one in meta(file)['revisions']] == [4, 3, 2, 1]


def test_a_revision_that_is_open_stays_what_it_is(course, file):
    file.write_bytes(PDF)
    with open(document(file, '.revisions') / '1', 'rb') as opened:
        file.write_bytes(b'three')
        assert opened.read() == PNG and os.fstat(opened.fileno()).st_size == len(PNG)


def test_numbers_stay_when_older_revisions_are_swept(course, file, bucket, new_mount, mnt):  # noqa: F811
    file.write_bytes(PDF)
    file.write_bytes(b'three')
    first = bucket.files.find_one({'filename': f'{course.id}/week-1/film.png', 'metadata.revision': 1})
    bucket.uploads.update_one({'_id': first['_id']}, {'$set': {'retired': bson.datetime.datetime(2020, 1, 1)}})
    bucket.uploads.delete_one({'_id': 'sweep'})
    new_mount(media_sweep='100ms')
    folder = document(file, '.revisions')
    assert process.wait_until(lambda: os.listdir(folder) == ['2'], 60, 0.05)
    assert errno_of(os.stat, folder / '1') == 'ENOENT' and (folder / '2').read_bytes() == PDF
    assert [one['n'] for one in meta(file)['revisions']] == [3, 2]
    file.write_bytes(b'four')
    assert [one['n'] for one in meta(file)['revisions']] == [4, 3, 2]


def test_revisions_of_other_drivers_have_numbers_too(course):
    path = course.put('foreign', b'one')
    course.bucket.put(f'{course.id}/foreign', b'two!')
    assert process.wait_until(lambda: path.stat().st_size == 4, 60, 0.01)
    assert [one['n'] for one in meta(path)['revisions']] == [2, 1]
    path.write_bytes(b'three')
    assert stored(course, path)['metadata']['revision'] == 3
    assert (document(path, '.revisions') / '1').read_bytes() == b'one'
