#!/usr/bin/python3
"""Write a C file that holds every SQL and schema file, for src/base/sql.h: embed.py OUTPUT ROOT FILE..."""
import pathlib
import sys

output, root, *names = sys.argv[1:]
lines = ['#include "base/sql.h"', "", "const struct sql_file sql_files[] = {"]
for name in sorted(names):
    data = (pathlib.Path(root) / name).read_bytes()
    # Lines of octets, not a string literal: C compilers bound the length of a literal.
    octets = ",".join(str(b) for b in data + b"\0")
    lines.append(f'    {{"{name}", (const char[]){{{octets}}}, {len(data)}}},')
lines += ["    {0}};", ""]
pathlib.Path(output).write_text("\n".join(lines))
