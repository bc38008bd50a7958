#include "fuse/session.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "entity/freshness.h"
#include "fuse/session_private.h"

#define READ_AHEAD_KB "4096"
enum {
    IDLE_THREADS = 10,
    SPARE_THREADS = 32,
    LEAST_MAX_THREADS = 1024, /* a reload may enlarge the pools; threads are made when they are needed */
};

/* A daemon that was killed leaves a mount on which everything is ENOTCONN; nothing can be mounted over it. */
static void detach_dead_mount(const char *mountpoint)
{
    struct statfs fs; /* not stat(), which the kernel may answer from what it remembers */
    if (statfs(mountpoint, &fs) == 0 || errno != ENOTCONN)
        return;
    log_info("%s: detaching the mount of a daemon that is gone", mountpoint);
    if (umount2(mountpoint, MNT_DETACH) == 0)
        return;
    pid_t pid = fork();
    if (pid == 0) {
        execlp("fusermount3", "fusermount3", "-u", "-z", "-q", "--", mountpoint, (char *)NULL);
        _exit(127);
    }
    if (pid > 0)
        waitpid(pid, NULL, 0);
}

/* A second daemon would hide the first one's mount below its own. */
static int check_mountpoint(const char *mountpoint, struct fail *f)
{
    struct statx st;
    struct statfs fs;
    if (statx(AT_FDCWD, mountpoint, 0, STATX_TYPE, &st) < 0 || statfs(mountpoint, &fs) < 0)
        return fail_set(f, errno, "%s: %s", mountpoint, strerrordesc_np(errno));
    if (!S_ISDIR(st.stx_mode))
        return fail_set(f, ENOTDIR, "%s is not a folder", mountpoint);
    if (fs.f_type == FUSE_SUPER_MAGIC && st.stx_attributes & STATX_ATTR_MOUNT_ROOT)
        return fail_set(f, EBUSY, "%s has something mounted already", mountpoint);
    return 0;
}

/* Only root may let others in, unless /etc/fuse.conf says that everybody may. */
static bool may_allow_other(void)
{
    char line[256];
    bool allowed = geteuid() == 0;
    FILE *file = allowed ? NULL : fopen("/etc/fuse.conf", "re");
    while (file && !allowed && fgets(line, sizeof line, file))
        allowed = strncmp(line, "user_allow_other", 16) == 0;
    if (file)
        fclose(file);
    return allowed;
}

static int mount_arguments(const struct config *config, const char *options, struct fuse_args *args)
{
    char text[1024];
    int n = snprintf(text, sizeof text, "-ofsname=campusfs,subtype=campusfs,default_permissions%s%s%s%s",
                     may_allow_other() ? ",allow_other" : "", config->read_only ? ",ro" : "",
                     options && *options ? "," : "", options ? options : "");
    if (n < 0 || (size_t)n >= sizeof text)
        return -EINVAL;
    return fuse_opt_add_arg(args, "campusfs") == 0 && fuse_opt_add_arg(args, text) == 0 ? 0 : -ENOMEM;
}

int session_mount(const struct config *config, const char *mountpoint, const char *options,
                  struct session **out, struct fail *f)
{
    struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
    detach_dead_mount(mountpoint);
    int r = check_mountpoint(mountpoint, f);
    if (r < 0)
        return r;
    struct session *session = calloc(1, sizeof *session);
    if (!session)
        return fail_set(f, ENOMEM, "out of memory");
    session->config = config;
    session->mountpoint = mountpoint;
    r = mount_arguments(config, options, &args);
    if (r == 0) {
        session->fuse = fuse_session_new(&args, &session_ops, sizeof session_ops, session);
        r = session->fuse ? 0 : -EINVAL;
    }
    fuse_opt_free_args(&args);
    if (r == 0 && fuse_session_mount(session->fuse, mountpoint) != 0)
        r = -EPERM; /* libfuse has said why on standard error */
    if (r < 0) {
        session_end(session);
        return fail_set(f, -r, "cannot mount at %s", mountpoint);
    }
    session->mounted = true;
    *out = session;
    return 0;
}

void session_serve(struct session *session, struct tree *tree, void (*ready)(void *arg), void *arg)
{
    session->tree = tree;
    session->ready = ready;
    session->ready_arg = arg;
}

/* Attributes alone (offset -1): takes no lock of a folder, so it may be called from within a request. */
void session_invalidate(void *arg, uint64_t nodeid)
{
    struct session *session = arg;
    fuse_lowlevel_notify_inval_inode(session->fuse, nodeid, -1, 0);
}

void session_raise_read_ahead(struct session *session)
{
    if (__atomic_exchange_n(&session->read_ahead_raised, true, __ATOMIC_RELAXED))
        return;
    struct statx st;
    char path[64];
    /* Without a word to the daemon, who asks: what the kernel has in memory is enough. */
    if (statx(AT_FDCWD, session->mountpoint, AT_STATX_DONT_SYNC, 0, &st) < 0)
        return;
    snprintf(path, sizeof path, "/sys/class/bdi/%u:%u/read_ahead_kb", st.stx_dev_major, st.stx_dev_minor);
    int fd CLEANUP(closep) = open(path, O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && write(fd, READ_AHEAD_KB, strlen(READ_AHEAD_KB)) < 0)
        log_debug("%s: %s", path, strerrordesc_np(errno));
}

/* More than all shards' and MongoDB's operations can occupy, so that one that is away never takes the last
 * thread from the others. */
static unsigned max_threads(const struct config *config)
{
    unsigned n =
        (unsigned)((FRESHNESS_WAITERS + config->pool_waiters + config->failover_writes) * config->nshards +
                   config->pool_size * config->nnodes) +
        config->mongodb_pool_size + MONGO_WAITERS + SPARE_THREADS;
    return n > LEAST_MAX_THREADS ? n : LEAST_MAX_THREADS;
}

int session_run(struct session *session, const sigset_t *signals)
{
    struct fuse_loop_config *loop = fuse_loop_cfg_create();
    if (!loop)
        return -ENOMEM;
    fuse_loop_cfg_set_idle_threads(loop, IDLE_THREADS);
    fuse_loop_cfg_set_max_threads(loop, max_threads(session->config));
    int r = fuse_set_signal_handlers(session->fuse) == 0 ? 0 : -EINVAL;
    if (r == 0) {
        pthread_sigmask(SIG_SETMASK, signals, NULL);
        r = fuse_session_loop_mt(session->fuse, loop);
        fuse_remove_signal_handlers(session->fuse);
    }
    fuse_loop_cfg_destroy(loop);
    return r > 0 ? 0 : r; /* positive: the signal that ended it */
}

void session_end(struct session *session)
{
    if (!session)
        return;
    if (session->fuse && session->mounted)
        fuse_session_unmount(session->fuse);
    if (session->fuse)
        fuse_session_destroy(session->fuse);
    free(session);
}
