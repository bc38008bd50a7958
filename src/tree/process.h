/*
 * Who calls. The kernel names the calling thread; what belongs together is its process, named by thread-group
 * id and what tells it from an earlier one of that id.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct process {
    pid_t tgid;        /* 0: not known (another pid namespace, or gone) */
    uint64_t identity; /* the inode of its pidfd, or when it started in clock ticks since boot */
};

/* The process of a thread; unknown when it cannot be told. */
struct process process_of_thread(pid_t tid);

/* Two unknown processes are equal, except to process_is_same(). */
bool process_equal(struct process a, struct process b);
/* True only when both are known and the same. */
bool process_is_same(struct process a, struct process b);

/* Whether a thread that waits for us is about to end, by a signal that ends its process. Not known, as false,
 * where the thread cannot be seen, and of signals that leave a core. */
bool thread_is_dying(pid_t tid);

/*
 * How the thread, which waits for our answer, asks for attributes: by a descriptor (fstat() and its kin), so
 * that the kernel has no name to look up again, or by a name: for nothing but attributes (stat() and its
 * kin), or for whatever else. Unknown where that cannot be seen: another pid namespace, a process that we may
 * not trace (/proc is hidden, ptrace_scope, another user's), a request of io_uring.
 */
enum asks { ASKS_UNKNOWN, ASKS_BY_NAME, ASKS_TO_STAT, ASKS_BY_DESCRIPTOR };
enum asks thread_asks(pid_t tid);
