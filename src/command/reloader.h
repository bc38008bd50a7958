/*
 * The thread of a mount that waits for SIGHUP and then takes the configuration anew: the file is read by the
 * same rules as at the start; what it says is taken by the configuration in force (base/config_reload.h), the
 * pools and nodes (cluster_reload()) and the tree (tree_reload()). A file with mistakes changes nothing. What
 * became of it is told in the log and in .campusfs/reload, by which `campusfs reload` learns it:
 *
 *   {"pid": N, "identity": N, "count": N, "running": bool, "time": "...", "result": null | "taken" |
 * "refused", "taken": [...], "remount": [...], "errors": [...]}
 *
 * `identity` is struct process's, so that the number is not taken for another process, here or in another pid
 * namespace. `count` rises at each reload's end; one that is `running` may have read the file already.
 */
#pragma once

#include "base/config.h"
#include "shard/cluster.h"
#include "tree/tree.h"

struct reloader;

/*
 * Starts the thread. SIGHUP must be blocked in every thread from before the first was started until
 * reloader_stop(). All are borrowed; `path` is the file that was named, NULL = the usual places. `read_only`:
 * the mount is, whatever the file says. -ENOMEM, -EAGAIN.
 */
int reloader_start(struct config *config, const char *path, bool read_only, struct cluster *cluster,
                   struct tree *tree, struct reloader **out);
/* Ends it, after a reload that is under way. Takes NULL. */
void reloader_stop(struct reloader *reloader);
