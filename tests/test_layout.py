"""The shape of the source: what lies where, which way includes run, how long things get, where SQL lives."""

import json
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from conftest import of_this_run

ROOT = Path(__file__).resolve().parent.parent
TOP_LEVEL = {'.ci', '.clang-format', '.editorconfig', '.gitignore', 'README.md', 'LICENSE', 'docs', 'meson.build',
             'meson_options.txt', 'mount', 'sql', 'src', 'tests'}

# What each stage of the way of a request may include of the others; itself it may always include.
BELOW = {
    'base': set(),
    'postgres': {'base'},
    'media': {'base'},
    'shard': {'base', 'postgres'},
    'entity': {'base', 'postgres', 'shard', 'media'},
    'tree': {'base', 'postgres', 'shard', 'media', 'entity'},
    'fuse': {'base', 'postgres', 'shard', 'media', 'entity', 'tree'},
    'command': {'base', 'postgres', 'shard', 'media', 'entity', 'tree', 'fuse'},
}
# Each foreign library is seen by one stage, so that replacing it touches one folder.
FOREIGN = {'libpq-fe.h': {'postgres'}, 'mongoc': {'media'}, 'bson': {'media'}, 'fuse': {'fuse'}}
NAMES_THEIR_VERSIONS = 'src/command/version.c'

FUNCTION_LINES = 60
FILE_LINES = 800
CALL_LINES = 3
STATEMENT = re.compile(r'\s*(SELECT|INSERT|UPDATE|DELETE|WITH|CREATE|ALTER|DROP|GRANT|COPY|DECLARE|MERGE)\s')


def tracked(*patterns):
    """Files of the repository: what git tracks, in the work tree."""
    output = subprocess.run(['git', '-c', f'safe.directory={ROOT}', '-C', ROOT, 'ls-files', '-z', '--', *patterns],
                            check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in output.split('\0') if name and (ROOT / name).is_file()]


def relative(path):
    return str(path.relative_to(ROOT))


def stage_of(path):
    parts = path.relative_to(ROOT / 'src').parts
    return parts[0] if len(parts) > 1 else None  # main.c belongs to none


def includes(path):
    return re.findall(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]', path.read_text(), re.MULTILINE)


def test_top_level_has_only_its_entries():
    found = {path.relative_to(ROOT).parts[0] for path in tracked()}
    assert found <= TOP_LEVEL


def test_stages_are_the_known_ones():
    assert {stage_of(path) for path in tracked('src/*.c', 'src/*.h')} - {None} <= set(BELOW)


def test_includes_run_one_way():
    wrong = []
    for path in tracked('src/*.c', 'src/*.h'):
        stage = stage_of(path)
        for mark, name in includes(path):
            target = name.split('/')[0]
            if mark == '"' and stage and target in BELOW and target != stage and target not in BELOW[stage]:
                wrong.append(f'{relative(path)} includes {name}')
            if mark == '"' and '/' not in name:
                wrong.append(f'{relative(path)} includes {name} without its stage')
    assert not wrong


def test_each_library_is_seen_by_one_stage():
    wrong = []
    for path in tracked('src/*.c', 'src/*.h'):
        for mark, name in includes(path):
            stages = FOREIGN.get(name) or FOREIGN.get(re.split(r'[/_.\d]', name)[0])
            if mark == '<' and stages and stage_of(path) not in stages and relative(path) != NAMES_THEIR_VERSIONS:
                wrong.append(f'{relative(path)} includes {name}')
    assert not wrong


@pytest.mark.parametrize('path', tracked('src/*.h'), ids=relative)
def test_header_explains_itself(path):
    text = path.read_text()
    assert text.startswith('/*'), 'a header opens with what the module is for'
    assert '\n#pragma once\n' in text


def test_files_are_short():
    long = {relative(path): lines for path in tracked('src', 'sql', 'mount', 'tests')
            if path.suffix in ('.c', '.h', '.py', '.sql') and (lines := path.read_text().count('\n')) > FILE_LINES}
    assert not long


@pytest.mark.parametrize('language, patterns', [('C', ['*.c', '*.h']), ('Python', ['*.py'])])
def test_functions_are_short(language, patterns):
    files = [str(path) for path in tracked(*patterns)]
    output = subprocess.run(['ctags', '--output-format=json', '--fields=+neK', '--sort=no', f'--languages={language}',
                             '-f', '-', *files], check=True, capture_output=True, text=True).stdout
    tags = [json.loads(line) for line in output.splitlines()]
    sizes = sorted(((tag['end'] - tag['line'] + 1, f"{Path(tag['path']).name}:{tag['name']}") for tag in tags
                    if tag['kind'] in ('function', 'member', 'method') and 'end' in tag), reverse=True)
    assert sizes, 'ctags has found no function'
    long = [entry for entry in sizes if entry[0] > FUNCTION_LINES]
    assert len(long) <= len(sizes) * 5 // 100, f'of {len(sizes)} functions exceed {FUNCTION_LINES} lines: {long}'


def string_literals(text):
    """(line, text, lines spanned) of each run of adjacent string literals; comments are no text."""
    blank = re.sub(r'/\*.*?\*/|//[^\n]*|("(?:\\.|[^"\\\n])*")',
                   lambda match: match[1] or re.sub(r'[^\n]', ' ', match[0]), text, flags=re.DOTALL)
    for match in re.finditer(r'"(?:\\.|[^"\\\n])*"(?:\s*(?:PRI\w+\s*)?"(?:\\.|[^"\\\n])*")*', blank):
        joined = ''.join(re.findall(r'"((?:\\.|[^"\\\n])*)"', match[0]))
        yield blank.count('\n', 0, match.start()) + 1, joined, match[0].count('\n') + 1


def test_sql_lives_in_its_folder():
    """C calls the views and functions of sql/; longer statements are files there, which the EXPLAIN test can read."""
    wrong = [f'{relative(path)}:{line}: {text[:60]}' for path in tracked('src/*.c', 'src/*.h')
             for line, text, span in string_literals(path.read_text())
             if STATEMENT.match(text) and span > CALL_LINES]
    assert not wrong


def test_scripts_are_executable():
    wrong = [relative(path) for path in tracked()
             if path.read_bytes()[:2] == b'#!' and not path.stat().st_mode & 0o111]
    assert not wrong


# ---- runs of the suite that share its files

def test_each_file_of_tests_is_run_by_one_of_the_runs_that_share_them(tmp_path):
    items = [SimpleNamespace(path=Path(f'tests/test_{name}.py'), number=number)
             for name in 'abcad' for number in range(3)]  # pytest may put a file's tests apart
    one, other = of_this_run(items, tmp_path), of_this_run(items, tmp_path)
    first = [next(one) for _ in range(2)]
    second = [next(other) for _ in range(5)]
    first, second = first + list(one), second + list(other)
    assert {item.path.name for item in first} == {'test_a.py', 'test_d.py'} and len(first) == 9
    assert {item.path.name for item in second} == {'test_b.py', 'test_c.py'} and len(second) == 6
