"""Processes of a cluster: run one, wait for one, and signal one that is certainly ours.

A process id alone identifies nothing: it may have been given to somebody else since it was written down. Whoever
signals here says by what a process is recognised (a data directory, an argument), and that is checked on a pidfd, which
cannot come to mean another process in between.
"""

import concurrent.futures
import os
import pwd
import signal
import subprocess
import time
from pathlib import Path

SERVER_ACCOUNT = 'postgres'  # servers refuse to run as root; this account comes with Debian's package


class LaunchError(Exception):
    """Something of the cluster could not be started, stopped or run; the text says what, and shows the log's end."""


def server_account():
    """The account that servers run as: None when it is the caller's own."""
    return SERVER_ACCOUNT if os.geteuid() == 0 else None


def server_uid():
    account = server_account()
    return os.geteuid() if account is None else pwd.getpwnam(account).pw_uid


def as_server():
    """Arguments for subprocess that run a process as the servers' account, from a folder that it can enter."""
    account = server_account()
    if account is None:
        return {'cwd': '/'}
    entry = pwd.getpwnam(account)
    return {'cwd': '/', 'user': entry.pw_uid, 'group': entry.pw_gid, 'extra_groups': []}


def give_to_server(path):
    """Makes a new folder or file the servers' own: one that nobody else can put another thing in the place of, for it
    lies in a folder of ours. In folders of theirs see write_as_server()."""
    account = server_account()
    if account is not None:
        entry = pwd.getpwnam(account)
        os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)


def write_as_server(path, text):
    """Replaces a file, at once, that only the servers' account may read, as that account. Whatever the account has made of
    the folder, a link to somewhere else at any place of the path, nothing is written that it could not write itself."""
    run(['/bin/sh', '-c', 'umask 077 && rm -f -- "$1.new" && cat >"$1.new" && mv -fT -- "$1.new" "$1"', 'sh', path],
        text_input=text, **as_server())


def remove_as_server(*paths):
    """Removes files in the same way; they may be gone."""
    run(['rm', '-f', '--', *paths], **as_server())


def clean_environment(**more):
    """The caller's environment without what would redirect libpq, the servers or the program."""
    env = {key: value for key, value in os.environ.items()
           if not key.startswith(('PG', 'CAMPUSFS_', 'LC_')) and key not in ('LANGUAGE', 'TZ')}
    env.update(LANG='C.UTF-8', TZ='UTC', **more)
    return env


def tail(path, lines=20):
    """The last lines of a log, indented, for an error's text; '' when there are none."""
    try:
        with open(path, 'rb') as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 16384))
            text = file.read().decode('utf-8', 'replace')
    except OSError:
        return ''
    last = text.splitlines()[-lines:]
    return ''.join(f'\n    {line}' for line in last)


def run(argv, *, check=True, timeout=120, env=None, text_input=None, **options):
    """Runs a command to its end with its output captured; with `check`, anything but exit code 0 is a LaunchError."""
    argv = [str(arg) for arg in argv]
    try:
        done = subprocess.run(argv, capture_output=True, timeout=timeout, env=env or clean_environment(), text=True,
                              errors='replace', input=text_input,
                              stdin=None if text_input is not None else subprocess.DEVNULL, **options)
    except subprocess.TimeoutExpired as error:
        raise LaunchError(f'{" ".join(argv)}: not finished after {timeout} s') from error
    except FileNotFoundError as error:
        raise LaunchError(f'{argv[0]}: {error.strerror}') from error
    if check and done.returncode != 0:
        output = ''.join(f'\n    {line}' for line in (done.stdout + done.stderr).splitlines()[-20:])
        raise LaunchError(f'{" ".join(argv)}: exit code {done.returncode}{output}')
    return done


def spawn(argv, log, *, env=None, **options):
    """Starts a process of its own session that outlives the launcher; its output is appended to the log."""
    with open(log, 'ab') as output:
        return subprocess.Popen([str(arg) for arg in argv], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                env=env or clean_environment(), start_new_session=True, **options)


def parallel(calls):
    """Calls all at once, waits for every one, and raises the first error, if any, with the others' texts in it."""
    calls = list(calls)
    if not calls:
        return []
    with concurrent.futures.ThreadPoolExecutor(max_workers=len(calls)) as pool:
        futures = [pool.submit(call) for call in calls]
    errors = [future.exception() for future in futures if future.exception()]
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise LaunchError('\n'.join(str(error) for error in errors)) from errors[0]
    return [future.result() for future in futures]


def wait_until(condition, timeout, interval=0.01):
    """Polls until the condition holds; its value, or a false one after the timeout."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value or time.monotonic() > deadline:
            return value
        time.sleep(interval)


def _stat(pid):
    """The fields of /proc/PID/stat after the name, None when the process is gone or only waits to be reaped."""
    try:
        fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in 'ZX' else fields


def start_time(pid):
    """When a process started, in clock ticks after boot; None when it is gone."""
    fields = _stat(pid)
    return int(fields[19]) if fields else None


def is_stopped(pid):
    """Whether it is frozen by SIGSTOP."""
    fields = _stat(pid)
    return fields is not None and fields[0] == 'T'


def is_stopped_whole(pid):
    """Whether every thread of it is: SIGSTOP reaches them one after the other."""
    try:
        tasks = os.listdir(f'/proc/{pid}/task')
    except OSError:
        return True
    states = [_stat(f'{pid}/task/{task}') for task in tasks]
    return all(fields is None or fields[0] == 'T' for fields in states)


def is_alive(pid):
    return start_time(pid) is not None


def arguments(pid):
    """A process's command line, [] when it cannot be seen."""
    try:
        return Path(f'/proc/{pid}/cmdline').read_bytes().decode('utf-8', 'surrogateescape').split('\0')[:-1]
    except OSError:
        return []


def working_directory(pid):
    try:
        return os.readlink(f'/proc/{pid}/cwd')
    except OSError:
        return None


def executable(pid):
    """The name of the program that a process runs, None when it cannot be seen."""
    try:
        return os.path.basename(os.readlink(f'/proc/{pid}/exe')).removesuffix(' (deleted)')
    except OSError:
        return None


def find(name, belongs):
    """The living processes of that name (/proc/PID/comm) that a predicate of the process id recognises.

    Nothing but the name is read of others: who asks /proc for more of a process that hangs in execve hangs with it.
    """
    found = []
    wanted = f'{name[:15]}\n'.encode()
    for directory in os.listdir('/proc'):
        if not directory.isdigit():
            continue
        try:
            with open(f'/proc/{directory}/comm', 'rb') as comm:
                if comm.read() == wanted:
                    found.append(int(directory))
        except OSError:
            continue  # it has ended meanwhile
    return [pid for pid in found if is_alive(pid) and belongs(pid)]


def send(pid, signum, belongs):
    """Signals a process that the predicate recognises; False when there is none (any more) or it is not ours."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if not is_alive(pid) or not belongs(pid):
            return False
        signal.pidfd_send_signal(handle, signum)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)


def reap(pid):
    """Takes a dead child's entry away; other processes are left to their parent."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass


def end_all(name, belongs, signum=signal.SIGTERM, timeout=10):
    """Ends the processes that find() finds: by the signal, and after the timeout by SIGKILL."""
    for number, patience in ((signum, timeout), (signal.SIGKILL, 5)):
        def remaining(number=number):
            pids = find(name, belongs)
            if number == signal.SIGKILL:
                for pid in pids:
                    send(pid, number, belongs)
            return not pids
        for pid in find(name, belongs):
            send(pid, number, belongs)
            send(pid, signal.SIGCONT, belongs)
        if wait_until(remaining, patience, 0.02):
            return
    raise LaunchError(f'processes {find(name, belongs)} do not end, not even by SIGKILL')
