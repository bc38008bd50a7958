"""The configuration: what is understood, what is refused and how it is told, and that program, manual and examples say
the same. A configuration that is good ends in exit code 2 here: its only server does not exist."""

import json
import re
import subprocess
from pathlib import Path

import process
import pytest
from library_notice import without_notice

ROOT = Path(__file__).resolve().parent.parent
MAN_PAGE = ROOT / 'docs/campusfs.conf.5'
GOOD, DOWN, USAGE, WRONG = 0, 2, 64, 78

SECTIONS = """
[shards]
one = number=1
[nodes]
one-a = shard=one host=/nonexistent
[regions]
here = number=1 shard=one
"""


@pytest.fixture
def load(campusfs, tmp_path):
    """Runs the program on a configuration of that text (bytes, too), None for no file; its exit code and its words."""
    def run(text, **environment):
        path = tmp_path / 'test.conf'
        arguments = []
        if text is not None:
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
            arguments = ['--config', path]
        done = process.run([campusfs, *arguments, 'health'], check=False, env=process.clean_environment(**environment),
                           cwd=tmp_path)
        return done.returncode, without_notice(done.stderr).replace(str(path), 'FILE')
    return run


@pytest.fixture(scope='module')
def keys(campusfs):
    done = subprocess.run([campusfs, 'help', 'config', '--json'], check=True, capture_output=True, text=True)
    return {key['name']: key for key in json.loads(done.stdout)}


# ---- what is understood

@pytest.mark.parametrize('text', [
    '[campusfs]\n' + SECTIONS,
    SECTIONS,
    SECTIONS.replace('\n', '\r\n'),
    '; a comment\n# another\n\n[campusfs]\n   timeout   =   3s   ; and one more\n' + SECTIONS,
    '[regions]\nhere=number=1 shard=one\n[nodes]\na=host=/nonexistent shard=one\n[shards]\none=number=1',
    SECTIONS.replace('host=/nonexistent', "host = '/nonexistent' application_name='it\\'s ; mine'"),
    SECTIONS.replace('here = number=1 shard=one', ''),
], ids=['whole', 'no keys', 'CRLF', 'comments', 'any order', 'quotes', 'no regions'])
def test_good_configuration_is_taken(load, text):
    code, said = load(text)
    assert code == DOWN, said


@pytest.mark.parametrize('key, value', [
    ('timeout', '200ms'), ('timeout', '5 s'), ('timeout', '10min'), ('cache_ttl', '0'),
    ('cache_size', '1048576'), ('cache_size', '512kB'), ('cache_size', '24MB'), ('cache_size', '1GB'),
    ('cache_size', '64MiB'), ('cache_size', '0'), ('read_only', 'yes'), ('read_only', 'off'), ('read_only', 'True'),
    ('conflicts', 'overwrite'), ('file_mode', '600'), ('file_mode', '0640'), ('uid', 'root'), ('uid', '0'),
    ('gid', 'root'), ('gid', '12345'), ('log_level', 'debug'), ('mongodb_uri', ''), ('passfile', 'pgpass'),
])
def test_good_values(load, key, value):
    code, said = load(f'[campusfs]\n{key} = {value}\n{SECTIONS}')
    assert code == DOWN, said


# ---- what is refused

@pytest.mark.parametrize('key, value, right', [
    ('timeout', '5', 'duration'), ('timeout', '5 fortnights', 'duration'), ('timeout', '-5s', 'duration'),
    ('timeout', '1.5s', 'duration'), ('timeout', '', 'duration'), ('timeout', '99999999999999999999s', 'duration'),
    ('timeout', '9223372036854775807h', 'duration'), ('cache_size', '24 MBytes', 'size'), ('cache_size', '0x10', 'size'),
    ('cache_size', '24mb', 'size'), ('pool_size', 'many', 'number'), ('pool_size', '8.0', 'number'),
    ('read_only', 'maybe', 'yes or no'), ('conflicts', 'ignore', 'refuse | overwrite'),
    ('log_level', 'loud', 'error | warning | info | debug'), ('file_mode', '0888', 'octal'),
    ('file_mode', '7777', 'octal'), ('file_mode', '64', 'octal'), ('uid', 'nobody-of-this-name', 'no such user'),
    ('gid', '-1', 'no such group'),
])
def test_bad_value_is_told_with_what_is_right(load, key, value, right):
    code, said = load(f'[campusfs]\n{key} = {value}\n{SECTIONS}')
    assert code == WRONG
    assert re.fullmatch(rf'FILE:2: {key} = {re.escape(value)}: .*{re.escape(right)}.*\n', said), said


def outside(key):
    """The values just below and just above a key's bounds."""
    for bound, step in zip(key['bounds'].split(' to '), (-1, 1)):
        number, unit = re.fullmatch(r'(\d+)(\D*)', bound).groups()
        if int(number) + step >= 0:
            yield f'{int(number) + step}{unit}'


def test_bounds_are_kept(load, keys):
    for name, key in keys.items():
        for value in outside(key) if key['bounds'] else ():
            code, said = load(f'[campusfs]\n{name} = {value}\n{SECTIONS}')
            assert code == WRONG and key['bounds'] in said, (name, value, said)
        for value in key['bounds'].split(' to ') if key['bounds'] else ():
            code, said = load(f'[campusfs]\n{name} = {value}\n{SECTIONS}')
            assert code == DOWN, (name, value, said)


def test_all_mistakes_are_told_at_once_with_their_lines(load):
    code, said = load("""stray = 1
[campusfs]
timeuot = 5s
timeout = soon
timeout = 5s
just words
= nothing
[stations]
a = b
[shards]
one = number=1
two = number=1
three = number=1000
four =
five = number=5
Six = number=6
[nodes]
one-a = shard=one host=/nonexistent
seven-a = shard=seven
lost = host=/nonexistent priority=101
open = shard=one host='/nonexistent
twice = shard=one host=a host=b
[regions]
here = number=1 shard=one
here = number=2 shard=one
there = number=1 shard=one
nowhere = number=3 shard=seven
unbound = number=4
far = number=64 shard=one
odd = number=5 shard=one color=blue
[collections]
users = owner=nobody-of-this-name mode=9
payment_methods = mode=0600
""")
    assert code == WRONG
    expected = {
        1: 'no section', 3: 'unknown key timeuot', 4: 'timeout = soon', 5: 'timeout is there twice, first in line 4',
        6: 'expected "name = value"', 7: 'nothing before', 8: 'unknown section [stations]',
        12: 'number=1 is that of shard one', 13: 'number=1000', 14: 'number=... is missing',
        15: 'shard five has no node', 16: 'Six: a name', 19: 'no shard seven', 20: 'lost: shard=... is missing',
        21: 'open: not understood', 22: 'host is there twice', 25: 'here is there twice, first in line 24',
        26: 'number=1 is that of region here', 27: 'no shard seven', 28: 'unbound: shard=... is missing',
        29: 'number=64', 30: 'unknown word color', 32: 'no such user',
        33: 'payment_methods: there is no such collection'}
    told = {}
    for line in said.splitlines():
        number, words = re.fullmatch(r'FILE:(\d+): (.*)', line).groups()
        told.setdefault(int(number), []).append(words)
    assert set(told) == set(expected), said
    for number, words in expected.items():
        assert any(words in line for line in told[number]), (number, told[number])
    assert len(told[32]) == len(told[20]) == 2, 'the mode, and the priority, of the same line is wrong, too'


def test_every_collection_and_media_may_have_a_line_of_its_own(load):
    names = ['users', 'courses', 'enrollments', 'reviews', 'payment-methods', 'transactions', 'invoices', 'categories',
             'preferences', 'credentials', 'media']
    code, said = load(SECTIONS + '[collections]\n' + ''.join(f'{name} = mode=0600\n' for name in names))
    assert code == DOWN, said


@pytest.mark.parametrize('name, count, line', [
    ('shards', 17, 's{0} = number={0}'), ('nodes', 65, 'n{0} = shard=s1'), ('regions', 64, 'r{0} = number={0} shard=s1')])
def test_too_many_are_refused(load, name, count, line):
    sections = {'shards': ['s1 = number=1'], 'nodes': ['n1 = shard=s1'], 'regions': []}
    sections[name] = [line.format(number) for number in range(1, count + 1)]
    code, said = load(''.join(f'[{section}]\n' + '\n'.join(lines) + '\n' for section, lines in sections.items()))
    assert code == WRONG and ('at most' in said or 'from 1 to 63' in said)


@pytest.mark.parametrize('text, words', [
    (b'[campusfs]\nuser = a\0b\n', 'NUL'), (b'', '[shards] is empty'), (b'\xff\xfe\n', 'no section'),
    (b'[campusfs\n', 'unknown section'), (b'[]\n', 'unknown section'), (b'x' * 1000000, 'no section')],
    ids=['NUL', 'empty', 'not text', 'open section', 'empty section', 'long line'])
def test_what_is_no_configuration_is_refused(load, text, words):
    code, said = load(text)
    assert code == WRONG and words in said
    assert len(said) < 10000


def test_missing_file_is_told(campusfs, tmp_path):
    for arguments, environment in ((['--config', '/nonexistent/x.conf'], {}),
                                   ([], {'CAMPUSFS_CONFIG': '/nonexistent/x.conf'})):
        done = process.run([campusfs, *arguments, 'health'], check=False, cwd=tmp_path,
                           env=process.clean_environment(**environment))
        assert done.returncode == WRONG
        assert without_notice(done.stderr) == '/nonexistent/x.conf: cannot be read: No such file or directory\n'
    done = process.run([campusfs, '--config', tmp_path, 'health'], check=False, env=process.clean_environment())
    assert done.returncode == WRONG and 'Is a directory' in done.stderr


# ---- the environment

def test_environment_wins_over_the_file(load):
    text = f'[campusfs]\ntimeout = 5s\n{SECTIONS}'
    code, said = load(text, CAMPUSFS_TIMEOUT='soon')
    assert code == WRONG
    assert said.startswith('CAMPUSFS_TIMEOUT: timeout = soon: expected duration')
    code, said = load(text.replace('5s', '6s'), CAMPUSFS_TIMEOUT='7s')
    assert code == DOWN, said


def test_every_key_is_a_variable(load, keys):
    for name, key in keys.items():
        assert key['variable'] == f'CAMPUSFS_{name.upper()}'
        if key['type'] not in ('text', 'path'):
            code, said = load(SECTIONS, **{key['variable']: '?'})
            assert code == WRONG and said.startswith(f'{key["variable"]}: {name} = ?: '), said


def test_sections_from_the_environment_replace_those_of_the_file(load):
    environment = {'CAMPUSFS_SHARDS': 'two = number=2', 'CAMPUSFS_NODES': 'two-a = shard=two host=/nonexistent',
                   'CAMPUSFS_REGIONS': 'there = number=2 shard=two; everywhere = number=3 shard=two\n'}
    for text in (None, SECTIONS):
        code, said = load(text, **environment)
        assert code == DOWN, said
    code, said = load(None, **{**environment, 'CAMPUSFS_REGIONS': 'here = number=1 shard=two;\nthere = number=2 shard=one'})
    assert code == WRONG
    assert said == 'CAMPUSFS_REGIONS:3: there: there is no shard one in [shards]\n'


def test_without_any_configuration_the_places_are_named(load):
    code, said = load(None)
    assert code == WRONG
    assert '--config' in said and 'CAMPUSFS_CONFIG' in said and '/etc/campusfs/campusfs.conf' in said


def test_secrets_are_never_repeated(load):
    secret = 'Tr0ub4dor&3'
    for line in (f'mongodb_uri = mongodb://u:{secret}@/nonexistent:99999', f'password = {secret}',
                 f'admin_password = {secret}'):
        _, said = load(f'[campusfs]\n{line}\n{line}\n{SECTIONS}')
        assert secret not in said
    code, said = load(SECTIONS.replace('host=', f'password={secret} pasword={secret} host='))
    assert code == DOWN and secret not in said


# ---- what the mount shows of it

def test_mount_shows_its_configuration_masked(campusfs, new_mount, cluster, load):
    mount = new_mount(cache_size='7MB', timeout='6000ms', conflicts='overwrite', password=cluster.password('rw'),
                      admin_password='not-to-be-seen', file_mode='600')
    text = (mount.directory / '.campusfs/config').read_text()
    lines = text.splitlines()
    for line in ('cache_size = 7MB', 'timeout = 6s', 'conflicts = overwrite', 'password = ********', 'file_mode = 0600',
                 'admin_password = ********', 'read_only = no', '[shards]', 'emea = number=2', 'europe = number=3 shard=emea'):
        assert line in lines, text
    assert 'not-to-be-seen' not in text and cluster.password('rw') not in text
    assert load(text)[0] in (GOOD, 1, DOWN), 'what it shows can be read back'


# ---- manual and examples

def test_manual_describes_every_key_with_its_default_and_bounds(keys):
    described = {}
    for line in MAN_PAGE.read_text().splitlines():
        if match := re.fullmatch(r'\.It Cm (\w+)(?: No(?: \(default: ([^;)]*)(?:; ([^)]*))?\))?(?: \[reload\])?)?', line):
            described[match[1]] = (match[2], match[3])
    assert set(described) == set(keys)
    for name, key in keys.items():
        assert described[name] == (key['default'] or None, key['bounds'])


def test_example_has_every_key_at_its_default(load, keys):
    text = (ROOT / 'mount/campusfs.conf').read_text()
    shown = dict(re.findall(r'^;(\w+) =[ ]?(.*)$', text, re.MULTILINE))
    assert shown == {name: key['default'] or '' for name, key in keys.items()}
    # Uncommented it is a configuration: but for what has to be said by who uses it.
    unset = {name for name, key in keys.items() if not key['default']}
    whole = '\n'.join(line[1:] if (name := re.match(r';(\w+) =', line)) and name[1] not in unset else line
                      for line in text.splitlines())
    code, said = load(re.sub(r'host=\S+', 'host=/nonexistent', whole))
    assert code == DOWN, said


def test_environment_example_is_a_configuration(load, keys):
    lines = (ROOT / 'mount/.env').read_text().splitlines()
    environment = dict(line.lstrip('#').split('=', 1) for line in lines if re.match(r'#?CAMPUSFS_', line))
    assert set(environment) <= {key['variable'] for key in keys.values()} | {
        f'CAMPUSFS_{name}' for name in ('SHARDS', 'NODES', 'REGIONS', 'COLLECTIONS')}
    environment['CAMPUSFS_NODES'] = re.sub(r'host=[\w.]+', 'host=/nonexistent', environment['CAMPUSFS_NODES'])
    code, said = load(None, **environment)
    assert code == DOWN, said


def test_manual_pages_are_well_formed():
    for page in ('campusfs.8', 'campusfs.conf.5'):
        done = subprocess.run(['man', '--warnings', '-l', '-E', 'UTF-8', ROOT / 'docs' / page], capture_output=True,
                              text=True, check=False, env=process.clean_environment(MANWIDTH='100'))
        assert done.returncode == 0 and without_notice(done.stderr) == '', done.stderr
        assert 'SEE ALSO' in re.sub('.\b', '', done.stdout)
