/*
 * flock() and fcntl() locks. A wait holds no thread: the request is answered when the lock is free, or when
 * its caller is interrupted.
 */
#include <errno.h>
#include <stdatomic.h>
#include <sys/file.h>

#include "fuse/session_private.h"

static struct lock lock_of(const struct fuse_file_info *fi, enum lock_kind kind, short type)
{
    return (struct lock){.kind = kind, .type = type, .end = UINT64_MAX, .owner = fi->lock_owner};
}

static struct lock range_of(const struct fuse_file_info *fi, const struct flock *flock)
{
    struct lock lock = lock_of(fi, LOCK_KIND_RANGE, flock->l_type);
    lock.start = (uint64_t)flock->l_start;
    if (flock->l_len > 0)
        lock.end = lock.start + (uint64_t)flock->l_len - 1;
    lock.pid = flock->l_pid;
    return lock;
}

void ops_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *flock)
{
    struct lock wanted = range_of(fi, flock), held;
    struct flock answer = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
    if (tree_lock_find(tree_of(req), handle_of(fi), &wanted, &held)) {
        answer.l_type = held.type;
        answer.l_start = (off_t)held.start;
        answer.l_len = held.end >= INT64_MAX ? 0 : (off_t)(held.end - held.start + 1);
        answer.l_pid = held.pid;
    }
    tree_count(tree_of(req), TREE_OTHER, 0);
    fuse_reply_lock(req, &answer);
}

static void answered(void *arg, int r)
{
    reply_result(arg, TREE_OTHER, r);
}

/* An interrupt comes once: before the request stands in line, its cancel() finds nobody. */
static bool gives_up(void *arg)
{
    return fuse_req_interrupted(arg);
}

/* The ticket is all that is passed: by the time of the interrupt the request may have been answered. */
static void cancel(fuse_req_t req, void *ticket)
{
    tree_lock_cancel(tree_of(req), (uint64_t)(uintptr_t)ticket);
}

static void set_lock(fuse_req_t req, struct fuse_file_info *fi, const struct lock *lock, bool waits)
{
    static atomic_uint_least64_t tickets;
    struct tree *tree = tree_of(req);
    uint64_t ticket = waits ? atomic_fetch_add(&tickets, 1) + 1 : 0;
    struct lock_wait wait = {.ticket = ticket, .answer = answered, .gives_up = gives_up, .arg = req};
    if (waits) /* before it stands in line: behind that the request may be gone */
        fuse_req_interrupt_func(req, cancel, (void *)(uintptr_t)ticket);
    int r = tree_lock_set(tree, handle_of(fi), lock, waits ? &wait : NULL);
    if (r <= 0)
        reply_result(req, TREE_OTHER, r);
}

void ops_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *flock, int sleep)
{
    struct lock lock = range_of(fi, flock);
    set_lock(req, fi, &lock, sleep && lock.type != F_UNLCK);
}

void ops_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op)
{
    int what = op & ~LOCK_NB;
    struct lock lock = lock_of(fi, LOCK_KIND_WHOLE,
                               what == LOCK_EX   ? F_WRLCK
                               : what == LOCK_SH ? F_RDLCK
                                                 : F_UNLCK);
    set_lock(req, fi, &lock, !(op & LOCK_NB) && lock.type != F_UNLCK);
}
