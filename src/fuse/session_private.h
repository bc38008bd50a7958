/* What the files of fuse/ share. */
#pragma once

#include <fuse_lowlevel.h>

#include "fuse/session.h"

struct session {
    struct fuse_session *fuse;
    const struct config *config; /* borrowed */
    struct tree *tree;           /* borrowed */
    void (*ready)(void *arg);
    void *ready_arg;
    const char *mountpoint; /* borrowed */
    bool mounted;
    bool read_ahead_raised; /* atomic */
    int64_t over_at;        /* atomic: clock_now_ms() when the end was noticed; 0 = not yet */
};

/* The kernel may read further ahead than the protocol can ask for, where we may tell it so (root): once,
 * after its greeting. Cheap from then on. */
void session_raise_read_ahead(struct session *session);

/* ops.c: the operations, whose user data is a struct session. */
extern const struct fuse_lowlevel_ops session_ops;
struct caller caller_of(fuse_req_t req);
/* The caller of what changes something: it is not interrupted, for what became of a save would not be known.
 * But what takes longer than its deadline is abandoned, when who waits is killed, and when the session ends. */
struct caller writer_of(fuse_req_t req);
struct tree *tree_of(fuse_req_t req);
/* The open file of a request; NULL when it is about none. */
static inline struct handle *handle_of(const struct fuse_file_info *fi)
{
    return fi ? (struct handle *)(uintptr_t)fi->fh : NULL;
}
struct fuse_entry_param entry_param(const struct entry *entry);
/* Replies with an error (-errno) or 0, and counts the request. */
void reply_result(fuse_req_t req, enum tree_request kind, int r);

void ops_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi);
void ops_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi);
void ops_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset,
               struct fuse_file_info *fi);
void ops_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
                   struct fuse_file_info *fi);
void ops_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void ops_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *flock);
void ops_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *flock, int sleep);
void ops_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op);
void ops_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi);
void ops_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi);
void ops_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
