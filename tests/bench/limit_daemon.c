/*
 * The limit daemon: what FUSE itself allows. It serves the files of one pack (pack.h) from memory, in one
 * flat directory, with all that the kernel offers to a file system whose files are opened: names and
 * attributes that are valid for an hour, every listing by READDIRPLUS, contents that stay in the page cache,
 * no FLUSH after reading, no extended attributes (ENOSYS, asked once), a lookup that is one step in a hash,
 * several threads. What a mount of the same files takes longer than this, it does itself.
 *
 *   limit_daemon [--ro] [--threads N] PACK MOUNTPOINT          threads: one a CPU
 *
 * Stays in the foreground and prints "ready" when the kernel has asked for the first time. SIGTERM, SIGINT
 * and SIGHUP unmount and end it. Mounted read-write by default, as the mount that it is compared with: the
 * kernel then asks for the access time once more after a file was read, which --ro spares. Nothing can be
 * written either way.
 */
#include <errno.h>
#include <fuse_lowlevel.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "pack.h"

static const double TIMEOUT_S = 3600.0;

/* A file's inode number is its index in the pack after the root's, so that no request searches anything. */
enum { FIRST_INO = FUSE_ROOT_ID + 1 };

struct limit {
    struct pack *pack;
    struct timespec started; /* the root's times */
};

static struct limit *limit_of(fuse_req_t req)
{
    return fuse_req_userdata(req);
}

/* NULL when the number is nobody's. */
static const struct pack_file *file_of(const struct limit *limit, fuse_ino_t ino)
{
    return ino >= FIRST_INO && ino - FIRST_INO < limit->pack->nfiles ? &limit->pack->files[ino - FIRST_INO]
                                                                     : NULL;
}

static void fill_stat(const struct pack_file *file, fuse_ino_t ino, struct stat *st)
{
    *st = (struct stat){
        .st_ino = ino,
        .st_mode = S_IFREG | 0644,
        .st_nlink = 1,
        .st_size = (off_t)file->size,
        .st_blksize = 4096,
        .st_blocks = (blkcnt_t)((file->size + 511) / 512),
        .st_mtim = {.tv_sec = file->mtime_ns / 1000000000, .tv_nsec = file->mtime_ns % 1000000000},
    };
    st->st_atim = st->st_ctim = st->st_mtim;
}

static void fill_entry(const struct pack_file *file, fuse_ino_t ino, struct fuse_entry_param *entry)
{
    *entry = (struct fuse_entry_param){.ino = ino, .attr_timeout = TIMEOUT_S, .entry_timeout = TIMEOUT_S};
    fill_stat(file, ino, &entry->attr);
}

static void limit_init(void *userdata, struct fuse_conn_info *conn)
{
    conn->want |= conn->capable & FUSE_CAP_READDIRPLUS;
    conn->want &= ~(FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_AUTO_INVAL_DATA);
    conn->max_background = 64;
    puts("ready");
    fflush(stdout);
}

static void limit_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct limit *limit = limit_of(req);
    const struct pack_file *file = parent == FUSE_ROOT_ID ? pack_find(limit->pack, name, strlen(name)) : NULL;
    struct fuse_entry_param entry = {.entry_timeout =
                                         TIMEOUT_S}; /* inode 0: the kernel keeps that it is missing */
    if (file)
        fill_entry(file, FIRST_INO + (fuse_ino_t)(file - limit->pack->files), &entry);
    fuse_reply_entry(req, &entry);
}

static void limit_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct limit *limit = limit_of(req);
    const struct pack_file *file = file_of(limit, ino);
    struct stat st = {.st_ino = FUSE_ROOT_ID, .st_mode = S_IFDIR | 0755, .st_nlink = 2};
    st.st_atim = st.st_mtim = st.st_ctim = limit->started;
    if (file)
        fill_stat(file, ino, &st);
    else if (ino != FUSE_ROOT_ID) {
        fuse_reply_err(req, ENOENT);
        return;
    }
    fuse_reply_attr(req, &st, TIMEOUT_S);
}

static void limit_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    fi->keep_cache = 1;
    fi->cache_readdir = 1;
    fuse_reply_open(req, fi);
}

/* An entry's offset is the number of entries up to it: "." has 1, the first file 3. */
static void limit_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                              struct fuse_file_info *fi)
{
    struct limit *limit = limit_of(req);
    CLEANUP(freep) char *reply = malloc(size);
    if (!reply) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    size_t used = 0;
    for (uint64_t i = (uint64_t)offset; i < limit->pack->nfiles + 2; i++) {
        /* Inode 0 would mean "look it up": dots are never looked up, and never counted. */
        struct fuse_entry_param entry = {.ino = FUSE_ROOT_ID,
                                         .attr = {.st_ino = FUSE_ROOT_ID, .st_mode = S_IFDIR}};
        char name[256] = ".";
        if (i == 1)
            strcpy(name, "..");
        if (i >= 2) {
            const struct pack_file *file = &limit->pack->files[i - 2];
            fill_entry(file, FIRST_INO + i - 2, &entry);
            memcpy(name, file->name, file->name_len);
            name[file->name_len] = '\0';
        }
        size_t need = fuse_add_direntry_plus(req, reply + used, size - used, name, &entry, (off_t)(i + 1));
        if (need > size - used)
            break;
        used += need;
    }
    fuse_reply_buf(req, reply, used);
}

static void limit_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    if ((fi->flags & O_ACCMODE) != O_RDONLY || fi->flags & O_TRUNC) {
        fuse_reply_err(req, EROFS);
        return;
    }
    fi->keep_cache = 1;
    fi->noflush = 1;
    fuse_reply_open(req, fi);
}

static void limit_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
    const struct pack_file *file = file_of(limit_of(req), ino);
    if (!file || (size_t)offset >= file->size) {
        fuse_reply_buf(req, NULL, 0);
        return;
    }
    size_t left = file->size - (size_t)offset;
    fuse_reply_buf(req, file->data + offset, left < size ? left : size);
}

static const struct fuse_lowlevel_ops limit_ops = {
    .init = limit_init,
    .lookup = limit_lookup,
    .getattr = limit_getattr,
    .opendir = limit_opendir,
    .readdirplus = limit_readdirplus,
    .open = limit_open,
    .read = limit_read,
};

static int serve(struct limit *limit, const char *mountpoint, bool read_only, unsigned threads)
{
    char options[128];
    snprintf(options, sizeof options, "-oallow_other,default_permissions,fsname=limit_daemon,subtype=limit%s",
             read_only ? ",ro" : "");
    char name[] = "limit_daemon", *argv[] = {name, options, NULL};
    struct fuse_args args = FUSE_ARGS_INIT(2, argv);
    struct fuse_session *session = fuse_session_new(&args, &limit_ops, sizeof limit_ops, limit);
    struct fuse_loop_config *loop = fuse_loop_cfg_create();
    int status = 1;
    if (session && loop && fuse_set_signal_handlers(session) == 0) {
        if (fuse_session_mount(session, mountpoint) == 0) {
            fuse_loop_cfg_set_max_threads(loop, threads);
            fuse_loop_cfg_set_idle_threads(loop, threads);
            status = fuse_session_loop_mt(session, loop) < 0;
            fuse_session_unmount(session);
        }
        fuse_remove_signal_handlers(session);
    }
    if (loop)
        fuse_loop_cfg_destroy(loop);
    if (session)
        fuse_session_destroy(session);
    fuse_opt_free_args(&args);
    return status;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"ro", no_argument, NULL, 'r'}, {"threads", required_argument, NULL, 't'}, {0}};
    bool read_only = false;
    unsigned threads = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 'r')
            read_only = true;
        else if (c == 't')
            threads = (unsigned)strtoul(optarg, NULL, 10);
        else
            return 64;
    }
    if (argc - optind != 2 || threads < 1 || threads > 64) {
        fputs("usage: limit_daemon [--ro] [--threads N] PACK MOUNTPOINT\n", stderr);
        return 64;
    }
    CLEANUP(pack_freep) struct pack *pack = NULL;
    int r = pack_load(argv[optind], &pack);
    if (r < 0) {
        fprintf(stderr, "limit_daemon: %s: %s\n", argv[optind], strerror(-r));
        return 1;
    }
    struct limit limit = {.pack = pack};
    clock_gettime(CLOCK_REALTIME, &limit.started);
    return serve(&limit, argv[optind + 1], read_only, threads);
}
