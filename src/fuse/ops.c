/*
 * The kernel's requests: each handler translates, acts on the tree, and replies exactly once.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>

#include "fuse/session_private.h"

enum { MAX_BACKGROUND = 64 };

struct tree *tree_of(fuse_req_t req)
{
    return ((struct session *)fuse_req_userdata(req))->tree;
}

static bool interrupted(void *req)
{
    return fuse_req_interrupted(req);
}

struct caller caller_of(fuse_req_t req)
{
    const struct session *session = fuse_req_userdata(req);
    const struct fuse_ctx *ctx = fuse_req_ctx(req);
    struct op op = op_within(session->config->timeout_ms);
    op.interrupted = interrupted;
    op.arg = req;
    return (struct caller){.uid = ctx->uid, .gid = ctx->gid, .tid = ctx->pid, .op = op};
}

/* When the session ends, what goes on has as long as an operation may take. */
static bool is_over(struct session *session)
{
    int64_t now = clock_now_ms(), since = 0;
    if (!fuse_session_exited(session->fuse))
        return false;
    if (__atomic_compare_exchange_n(&session->over_at, &since, now, false, __ATOMIC_RELAXED,
                                    __ATOMIC_RELAXED))
        return false; /* noticed first by this one */
    return now - since >= session->config->timeout_ms;
}

/* The kernel tells of any signal, also of those that a program handles. */
static bool abandoned(void *arg)
{
    fuse_req_t req = arg;
    return is_over(fuse_req_userdata(req)) ||
           (fuse_req_interrupted(req) && thread_is_dying(fuse_req_ctx(req)->pid));
}

struct caller writer_of(fuse_req_t req)
{
    struct caller caller = caller_of(req);
    caller.op.interrupted = NULL;
    caller.op.abandoned = abandoned;
    caller.op.waiter = req;
    caller.process = process_of_thread(caller.tid);
    return caller;
}

struct fuse_entry_param entry_param(const struct entry *entry)
{
    return (struct fuse_entry_param){
        .ino = entry->nodeid,
        .generation = entry->generation,
        .attr = entry->attr,
        .attr_timeout = (double)entry->attr_ms / 1000,
        .entry_timeout = (double)entry->name_ms / 1000,
    };
}

/* Replies with an entry, and takes back its lookup when nobody waits for it any more. */
static void reply_entry(fuse_req_t req, const struct entry *entry)
{
    struct tree *tree = tree_of(req);
    struct fuse_entry_param param = entry_param(entry);
    if (fuse_reply_entry(req, &param) != 0)
        tree_forget(tree, entry->nodeid, 1);
}

void reply_result(fuse_req_t req, enum tree_request kind, int r)
{
    tree_count(tree_of(req), kind, r);
    fuse_reply_err(req, -r);
}

static void ops_init(void *userdata, struct fuse_conn_info *conn)
{
    struct session *session = userdata;
    conn->want |= conn->capable & FUSE_CAP_READDIRPLUS;
    conn->want &= ~(unsigned)(FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_WRITEBACK_CACHE);
    conn->max_background = MAX_BACKGROUND;
    conn->time_gran = 1; /* media keep nanoseconds; rows cut to microseconds what they are given */
    if (session->ready)
        session->ready(session->ready_arg);
}

static void ops_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct caller caller = caller_of(req);
    struct entry entry;
    int r = tree_lookup(tree_of(req), &caller, parent, name, &entry);
    if (r < 0) {
        reply_result(req, TREE_LOOKUP, r);
        return;
    }
    tree_count(tree_of(req), TREE_LOOKUP, 0);
    reply_entry(req, &entry);
}

static void ops_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n)
{
    tree_forget(tree_of(req), ino, n);
    fuse_reply_none(req);
}

static void ops_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
    for (size_t i = 0; i < count; i++)
        tree_forget(tree_of(req), forgets[i].ino, forgets[i].nlookup);
    fuse_reply_none(req);
}

static void reply_attr(fuse_req_t req, enum tree_request kind, int r, const struct stat *attr,
                       int64_t attr_ms)
{
    if (r < 0) {
        reply_result(req, kind, r);
        return;
    }
    tree_count(tree_of(req), kind, 0);
    fuse_reply_attr(req, attr, (double)attr_ms / 1000);
}

static void ops_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct caller caller = caller_of(req);
    struct stat attr;
    int64_t attr_ms = 0;
    int r = tree_getattr(tree_of(req), &caller, ino, handle_of(fi), &attr, &attr_ms);
    reply_attr(req, TREE_GETATTR, r, &attr, attr_ms);
}

static void ops_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *to, int set, struct fuse_file_info *fi)
{
    struct caller caller = writer_of(req);
    struct stat attr;
    int64_t attr_ms = 0;
    struct change change = {
        .size = set & FUSE_SET_ATTR_SIZE,
        .mode = set & FUSE_SET_ATTR_MODE,
        .set_uid = set & FUSE_SET_ATTR_UID,
        .set_gid = set & FUSE_SET_ATTR_GID,
        .mtime = set & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW),
        .to = *to,
    };
    if (set & FUSE_SET_ATTR_MTIME_NOW)
        clock_gettime(CLOCK_REALTIME, &change.to.st_mtim);
    int r = tree_setattr(tree_of(req), &caller, ino, handle_of(fi), &change, &attr, &attr_ms);
    reply_attr(req, TREE_SETATTR, r, &attr, attr_ms);
}

static void ops_readlink(fuse_req_t req, fuse_ino_t ino)
{
    struct caller caller = caller_of(req);
    char *target = NULL;
    int r = tree_readlink(tree_of(req), &caller, ino, &target);
    if (r < 0) {
        reply_result(req, TREE_OTHER, r);
        return;
    }
    fuse_reply_readlink(req, target);
    free(target);
}

static void ops_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
    reply_result(req, TREE_OTHER,
                 tree_refuse(tree_of(req), parent, name, "there are no device files, pipes and sockets"));
}

static void ops_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t new_parent, const char *new_name)
{
    reply_result(req, TREE_OTHER, -EPERM); /* without words: tools try for a backup, and do without */
}

static void reply_made(fuse_req_t req, int r, const struct entry *entry)
{
    if (r < 0) {
        reply_result(req, TREE_OTHER, r);
        return;
    }
    tree_count(tree_of(req), TREE_OTHER, 0);
    reply_entry(req, entry);
}

static void ops_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    struct caller caller = writer_of(req);
    struct entry entry;
    reply_made(req, tree_mkdir(tree_of(req), &caller, parent, name, mode, &entry), &entry);
}

static void ops_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
    struct caller caller = writer_of(req);
    struct entry entry;
    reply_made(req, tree_symlink(tree_of(req), &caller, parent, name, target, &entry), &entry);
}

static void ops_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct caller caller = writer_of(req);
    reply_result(req, TREE_UNLINK, tree_unlink(tree_of(req), &caller, parent, name));
}

static void ops_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct caller caller = writer_of(req);
    reply_result(req, TREE_OTHER, tree_rmdir(tree_of(req), &caller, parent, name));
}

static void ops_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
                       const char *new_name, unsigned flags)
{
    struct caller caller = writer_of(req);
    reply_result(req, TREE_RENAME,
                 tree_rename(tree_of(req), &caller, parent, name, new_parent, new_name, flags));
}

static void ops_statfs(fuse_req_t req, fuse_ino_t ino)
{
    struct caller caller = caller_of(req);
    struct space space;
    int r = tree_statfs(tree_of(req), &caller, ino, &space);
    if (r < 0) {
        reply_result(req, TREE_OTHER, r);
        return;
    }
    tree_count(tree_of(req), TREE_OTHER, 0);
    struct statvfs st = {.f_bsize = 4096,
                         .f_frsize = 4096,
                         .f_blocks = space.bytes / 4096,
                         .f_bfree = space.bytes_free / 4096,
                         .f_bavail = space.bytes_free / 4096,
                         .f_files = space.files,
                         .f_ffree = space.files_free,
                         .f_favail = space.files_free,
                         .f_namemax = 255};
    fuse_reply_statfs(req, &st);
}

const struct fuse_lowlevel_ops session_ops = {
    .init = ops_init,
    .lookup = ops_lookup,
    .forget = ops_forget,
    .forget_multi = ops_forget_multi,
    .getattr = ops_getattr,
    .setattr = ops_setattr,
    .readlink = ops_readlink,
    .mknod = ops_mknod,
    .mkdir = ops_mkdir,
    .unlink = ops_unlink,
    .rmdir = ops_rmdir,
    .symlink = ops_symlink,
    .rename = ops_rename,
    .link = ops_link,
    .open = ops_open,
    .create = ops_create,
    .read = ops_read,
    .write = ops_write,
    .fallocate = ops_fallocate,
    .flush = ops_flush,
    .getlk = ops_getlk,
    .setlk = ops_setlk,
    .flock = ops_flock,
    .fsync = ops_fsync,
    .release = ops_release,
    .opendir = ops_opendir,
    .readdir = ops_readdir,
    .readdirplus = ops_readdirplus,
    .releasedir = ops_releasedir,
    .statfs = ops_statfs,
};
