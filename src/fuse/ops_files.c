/*
 * Requests on open files and folders.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "fuse/session_private.h"

static void hints_apply(const struct open_hints *hints, struct fuse_file_info *fi)
{
    fi->keep_cache = hints->keep_cache;
    fi->noflush = hints->no_flush;
    fi->direct_io = hints->direct_io;
}

/* Nobody got the reply, so nobody will release the handle. */
static void undo_open(struct tree *tree, struct handle *handle)
{
    struct caller nobody = {.op = op_within(0)};
    tree_release(tree, &nobody, handle);
}

void ops_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct tree *tree = tree_of(req);
    struct caller caller = caller_of(req);
    struct handle *handle = NULL;
    struct open_hints hints = {0};
    session_raise_read_ahead(fuse_req_userdata(req));
    int r = tree_open_file(tree, &caller, ino, fi->flags, &handle, &hints);
    if (r < 0) {
        reply_result(req, TREE_OPEN, r);
        return;
    }
    tree_count(tree, TREE_OPEN, 0);
    fi->fh = (uintptr_t)handle;
    hints_apply(&hints, fi);
    if (fuse_reply_open(req, fi) != 0)
        undo_open(tree, handle);
}

void ops_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
    struct tree *tree = tree_of(req);
    struct caller caller = caller_of(req);
    struct handle *handle = NULL;
    struct entry entry;
    int r = tree_create(tree, &caller, parent, name, mode, fi->flags, &entry, &handle);
    if (r < 0) {
        reply_result(req, TREE_CREATE, r);
        return;
    }
    tree_count(tree, TREE_CREATE, 0);
    struct fuse_entry_param param = entry_param(&entry);
    fi->fh = (uintptr_t)handle;
    if (fuse_reply_create(req, &param, fi) != 0) {
        undo_open(tree, handle);
        tree_forget(tree, entry.nodeid, 1);
    }
}

void ops_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
    struct caller caller = caller_of(req);
    struct chunk chunk;
    int r = tree_read(tree_of(req), &caller, handle_of(fi), size, offset, &chunk);
    if (r < 0) {
        reply_result(req, TREE_READ, r);
        return;
    }
    tree_count(tree_of(req), TREE_READ, 0);
    fuse_reply_buf(req, chunk.data, chunk.len);
    tree_read_done(&chunk);
}

void ops_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset,
               struct fuse_file_info *fi)
{
    struct caller caller = caller_of(req);
    /* As of this write: F_SETFL changes it, and what a mapping has changed is written to where it is. */
    bool append = fi->flags & O_APPEND && !fi->writepage;
    int r = tree_write(tree_of(req), &caller, handle_of(fi), data, size, offset, append);
    if (r < 0) {
        reply_result(req, TREE_WRITE, r);
        return;
    }
    tree_count(tree_of(req), TREE_WRITE, 0);
    fuse_reply_write(req, size);
}

void ops_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
                   struct fuse_file_info *fi)
{
    struct caller caller = caller_of(req);
    reply_result(req, TREE_OTHER, tree_allocate(tree_of(req), &caller, handle_of(fi), mode, offset, length));
}

void ops_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct caller caller = writer_of(req);
    int r = tree_flush(tree_of(req), &caller, handle_of(fi));
    tree_lock_drop(tree_of(req), handle_of(fi), fi->lock_owner);
    reply_result(req, TREE_FLUSH, r);
}

void ops_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    struct caller caller = writer_of(req);
    reply_result(req, TREE_FSYNC, tree_fsync(tree_of(req), &caller, handle_of(fi)));
}

void ops_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct caller caller = writer_of(req); /* whose it is the kernel does not say */
    tree_release(tree_of(req), &caller, handle_of(fi));
    reply_result(req, TREE_RELEASE, 0);
}

/* Folders */

static struct listing *listing_of(const struct fuse_file_info *fi)
{
    return (struct listing *)(uintptr_t)fi->fh;
}

void ops_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct tree *tree = tree_of(req);
    struct caller caller = caller_of(req);
    struct listing *listing;
    int r = tree_open_folder(tree, &caller, ino, &listing);
    if (r < 0) {
        reply_result(req, TREE_OPENDIR, r);
        return;
    }
    tree_count(tree, TREE_OPENDIR, 0);
    fi->fh = (uintptr_t)listing;
    if (fuse_reply_open(req, fi) != 0)
        tree_close_folder(tree, listing);
}

/* Adds one entry; its size, which is more than `room` when it does not fit. */
static size_t add_entry(fuse_req_t req, char *buffer, size_t room, const struct listed *listed, bool plus)
{
    if (!plus)
        return fuse_add_direntry(req, buffer, room, listed->name, &listed->entry.attr, listed->next);
    struct fuse_entry_param param = entry_param(&listed->entry);
    return fuse_add_direntry_plus(req, buffer, room, listed->name, &param, listed->next);
}

/*
 * Fills the buffer from an offset on; bytes used, or -errno when not even one entry could be had. Nothing is
 * waited for once there is an entry: what it says of itself is to reach the kernel before it changes.
 */
static ssize_t fill(fuse_req_t req, struct listing *listing, char *buffer, size_t size, off_t offset,
                    bool plus)
{
    struct tree *tree = tree_of(req);
    struct caller caller = caller_of(req);
    struct listed listed;
    size_t used = 0;
    int r = 0;
    while ((used == 0 || !tree_listing_waits(tree, listing, offset)) &&
           (r = tree_listing_at(tree, &caller, listing, offset, plus, &listed)) > 0) {
        size_t n = add_entry(req, buffer + used, size - used, &listed, plus);
        if (n > size - used)
            break;
        if (plus)
            tree_listing_took(tree, &listed);
        used += n;
        offset = listed.next;
    }
    return r < 0 && used == 0 ? r : (ssize_t)used;
}

static void read_folder(fuse_req_t req, size_t size, off_t offset, struct fuse_file_info *fi, bool plus)
{
    char *buffer CLEANUP(freep) = malloc(size);
    ssize_t n = buffer ? fill(req, listing_of(fi), buffer, size, offset, plus) : -ENOMEM;
    if (n < 0) {
        reply_result(req, TREE_READDIR, (int)n);
        return;
    }
    tree_count(tree_of(req), TREE_READDIR, 0);
    fuse_reply_buf(req, buffer, (size_t)n);
}

void ops_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
    read_folder(req, size, offset, fi, false);
}

void ops_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
    read_folder(req, size, offset, fi, true);
}

void ops_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    tree_close_folder(tree_of(req), listing_of(fi));
    reply_result(req, TREE_OTHER, 0);
}
