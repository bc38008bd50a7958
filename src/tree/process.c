#include "tree/process.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

#include "base/cleanup.h"

static ssize_t read_small(const char *path, char *out, size_t size)
{
    int fd CLEANUP(closep) = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t n = read(fd, out, size - 1);
    out[n > 0 ? n : 0] = '\0';
    return n;
}

/* The number behind "\nNAME:" in the thread's status; 0 where that cannot be seen. */
static unsigned long long status_of(pid_t tid, const char *name, int base)
{
    char path[64], text[8192];
    snprintf(path, sizeof path, "/proc/%d/status", (int)tid);
    if (tid <= 0 || read_small(path, text, sizeof text) <= 0)
        return 0;
    const char *line = strstr(text, name);
    return line ? strtoull(line + strlen(name), NULL, base) : 0;
}

static pid_t tgid_of(pid_t tid)
{
    return (pid_t)status_of(tid, "\nTgid:", 10);
}

/* Field 22 of stat; the fields are counted behind the command's name, which may hold anything. */
static uint64_t start_of(pid_t tgid)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)tgid);
    if (read_small(path, text, sizeof text) <= 0)
        return 0;
    char *p = strrchr(text, ')');
    for (int field = 2; p && field < 22; field++)
        p = strchr(p + 1, ' ');
    return p ? strtoull(p + 1, NULL, 10) : 0;
}

/* The inode of a pidfd, which a kernel since 6.9 never uses again; 0 = an older kernel. */
static uint64_t pidfd_inode(int fd)
{
    enum { PIDFS_MAGIC = 0x50494446 };
    enum { UNKNOWN, UNIQUE, SHARED };
    static int kind = UNKNOWN; /* atomic; of all pidfds of this kernel */
    struct statfs filesystem;
    struct stat status;
    int known = __atomic_load_n(&kind, __ATOMIC_RELAXED);
    if (known == UNKNOWN) {
        known = fstatfs(fd, &filesystem) == 0 && filesystem.f_type == PIDFS_MAGIC ? UNIQUE : SHARED;
        __atomic_store_n(&kind, known, __ATOMIC_RELAXED);
    }
    return known == UNIQUE && fstat(fd, &status) == 0 ? status.st_ino : 0;
}

/*
 * A pidfd is to be had of a process's first thread only, which tells without the many lines of
 * /proc/TID/status that the thread is its process. What tells processes of one id apart is the pidfd's inode,
 * else when it started. The order matters: a process that executes another program closes its files while it
 * holds the very lock that newer kernels take for /proc/PID/stat, and its flush would wait for us, who wait
 * for it.
 */
struct process process_of_thread(pid_t tid)
{
    struct process process = {0};
    if (tid <= 0)
        return process;
    int fd CLEANUP(closep) = pidfd_open(tid, 0);
    process.tgid = fd >= 0 ? tid : tgid_of(tid);
    if (process.tgid == 0)
        return process;
    int leader CLEANUP(closep) = fd >= 0 ? -1 : pidfd_open(process.tgid, 0);
    if (fd >= 0 || leader >= 0)
        process.identity = pidfd_inode(fd >= 0 ? fd : leader);
    if (process.identity == 0)
        process.identity = start_of(process.tgid);
    return process;
}

bool process_equal(struct process a, struct process b)
{
    return a.tgid == b.tgid && a.identity == b.identity;
}

bool process_is_same(struct process a, struct process b)
{
    return a.tgid != 0 && process_equal(a, b);
}

/* A signal that ends a process is turned into a SIGKILL for each of its threads. */
bool thread_is_dying(pid_t tid)
{
    return status_of(tid, "\nSigPnd:", 16) & 1ull << (SIGKILL - 1);
}

enum asks thread_asks(pid_t tid)
{
    char path[64], text[256];
    long number;
    unsigned long long arg[4];
    snprintf(path, sizeof path, "/proc/%d/syscall", (int)tid);
    if (tid <= 0 || read_small(path, text, sizeof text) <= 0 ||
        sscanf(text, "%ld %llx %llx %llx %llx", &number, &arg[0], &arg[1], &arg[2], &arg[3]) != 5)
        return ASKS_UNKNOWN;
    switch (number) {
    case SYS_fstat:
        return ASKS_BY_DESCRIPTOR;
#ifdef SYS_newfstatat /* 64-bit systems */
    case SYS_newfstatat:
        return arg[3] & AT_EMPTY_PATH ? ASKS_BY_DESCRIPTOR : ASKS_TO_STAT;
#endif
#ifdef SYS_stat /* where it is older than that */
    case SYS_stat:
    case SYS_lstat:
        return ASKS_TO_STAT;
#endif
    case SYS_statx:
        return arg[2] & AT_EMPTY_PATH ? ASKS_BY_DESCRIPTOR : ASKS_TO_STAT;
    default:
        return ASKS_BY_NAME;
    }
}
