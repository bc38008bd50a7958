#!/usr/bin/python3
"""Write a C file that holds every SQL and schema file, for src/base/sql.h: embed.py OUTPUT DEPFILE.

The depfile names the folders, too: a file that comes or goes is a reason to run again, without a new configuration.
"""
import pathlib
import sys

FOLDERS = ("migrations", "code", "queries", "mongo")
KINDS = (".sql", ".json")

output, depfile = sys.argv[1:]
root = pathlib.Path(__file__).resolve().parent
folders = [root / name for name in FOLDERS]
files = [path for folder in folders for path in folder.iterdir() if path.is_file() and path.suffix in KINDS]

lines = ['#include "base/sql.h"', "", "const struct sql_file sql_files[] = {"]
for path in sorted(files, key=lambda path: path.relative_to(root).as_posix()):
    data = path.read_bytes()
    # Lines of octets, not a string literal: C compilers bound the length of a literal.
    octets = ",".join(str(b) for b in data + b"\0")
    lines.append(f'    {{"{path.relative_to(root).as_posix()}", (const char[]){{{octets}}}, {len(data)}}},')
lines += ["    {0}};", ""]
pathlib.Path(output).write_text("\n".join(lines))

needed = " ".join(str(path).replace(" ", "\\ ") for path in [*folders, *files])
pathlib.Path(depfile).write_text(f"{output}: {needed}\n")
