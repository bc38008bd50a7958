/*
 * flock() and fcntl() locks, by row: whatever revision or draft of it two programs have open, their locks
 * exclude each other, in this mount. The two kinds do not see each other, as on a disk. Who waits takes no
 * thread: he is told by a call when it is his turn. First come, first served among those that exclude each
 * other.
 *
 * A wait for an fcntl() lock that would close a circle of owners, each waiting for the next, is -EDEADLK at
 * once; flock() has no such check anywhere. The search looks at LOCKS_CIRCLE_MAX owners: a longer circle is
 * not found, and its waits end by a signal.
 * Thread-safe; only gives_up() is called under the lock. Errors: -EAGAIN (held by another), -EDEADLK, -EINTR,
 * -ENOLCK (too many), -ENOMEM.
 */
#pragma once

#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct locks;

enum { LOCKS_CIRCLE_MAX = 64 };

enum lock_kind { LOCK_KIND_RANGE, LOCK_KIND_WHOLE }; /* fcntl(), flock() */

struct lock {
    enum lock_kind kind;
    short type;          /* F_RDLCK, F_WRLCK, F_UNLCK */
    uint64_t start, end; /* bytes, both included */
    uint64_t owner;
    pid_t pid;           /* of the owner, for F_GETLK */
    const void *through; /* the handle it was taken by */
};

/* How somebody waits. */
struct lock_wait {
    uint64_t ticket; /* of the caller's choice, to cancel by */
    /* Called once, from any thread: 0 = held, or -errno. */
    void (*answer)(void *arg, int r);
    /* Whether he has given up before he stood in line, when a cancel could not find him. Called under the
     * lock: must not call back. */
    bool (*gives_up)(void *arg);
    void *arg;
};

/* At most `max` locks and waiters, all together. NULL when memory is out. */
struct locks *locks_new(size_t max);
/* Nobody may wait any more. */
void locks_free(struct locks *locks);

/* A lock of another owner that excludes this one, of file `key`; false when there is none. */
bool locks_find(struct locks *locks, uint64_t key, const struct lock *wanted, struct lock *held);
/*
 * Sets or, by F_UNLCK, takes away. 1: the wait's answer is called later (NULL = does not wait).
 */
int locks_set(struct locks *locks, uint64_t key, const struct lock *wanted, const struct lock_wait *wait);
/* A wait ends with -EINTR; nothing when it has ended already. */
void locks_cancel(struct locks *locks, uint64_t ticket);
void locks_cancel_all(struct locks *locks);
/* At the close of a file: what an owner has (through = NULL), or what was taken by a handle. */
void locks_drop(struct locks *locks, uint64_t key, uint64_t owner, const void *through);
