/*
 * One FUSE session: mounts, serves the kernel's requests from the tree until it is unmounted or told to stop,
 * and unmounts. The loop runs on the calling thread, which must be the one that signals reach.
 */
#pragma once

#include <signal.h>
#include <stdbool.h>

#include "base/fail.h"
#include "tree/tree.h"

struct session;

/*
 * Mounts at an existing folder, whose path is borrowed; a dead mount of a killed daemon there is detached
 * first. `options` are further mount options, comma-separated, or NULL. Requests are not served before
 * session_run(). -ENOENT, -ENOTDIR, -EBUSY, -EPERM.
 */
int session_mount(const struct config *config, const char *mountpoint, const char *options,
                  struct session **out, struct fail *f);

/* What the session serves, and what is called (once) when the kernel has greeted; both before session_run().
 */
void session_serve(struct session *session, struct tree *tree, void (*ready)(void *arg), void *arg);

/* Tells the kernel that the attributes of a nodeid are outdated; for tree_open(). Any thread, never blocks.
 */
void session_invalidate(void *session, uint64_t nodeid);

/* Lets the `signals` through (a mask for this thread) once they are handled. Serves until SIGTERM, SIGINT or
 * an unmount; SIGHUP would end it, too, were it let through. 0, or -errno when the device failed. */
int session_run(struct session *session, const sigset_t *signals);

/* Unmounts when still mounted, and frees; NULL is ignored. */
void session_end(struct session *session);
