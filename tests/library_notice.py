"""What libmongoc says on standard error before main(), where a killed process of the same number has left its counters
in /dev/shm: no word of ours."""

import re

NOTICE = re.compile(r'^.*mongoc: Falling back to malloc for counters\.\n', re.MULTILINE)


def without_notice(text):
    return NOTICE.sub('', text)
