/*
 * Taking another configuration without a new mount. The table of keys (base/config_keys.h) says which can be
 * reloaded; of the other sections, [nodes] and [collections] can, [regions] can grow, and [shards] stays.
 *
 *     r = config_load(path, is_collection, &next, &errors);
 *     r = r < 0 ? r : config_reload(live, next, &changes, &errors);     then whoever holds state of its own
 * follows
 *
 * One thread reloads; any number read meanwhile.
 */
#pragma once

#include "base/buf.h"
#include "base/config.h"

/* What a reload was about, for people: names separated by ", ", each empty when there are none. */
struct config_changes {
    struct buf taken; /* keys and sections that are other now */
    struct buf
        remount; /* those that have changed in the file, and in the mount only when it is mounted anew */
};

/*
 * Makes `next`, just loaded, the configuration in force of `live`, as far as it can be; the rest of it stays
 * as it is. Takes `next` in any case. -EINVAL, and nothing has changed, when a region would be looked for on
 * another shard than the one that has its rows, or a number was changed; `errors` gets a line each,
 * "path:line: what is wrong". -ENOMEM, and nothing has changed.
 */
int config_reload(struct config *live, struct config *next, struct config_changes *changes,
                  struct buf *errors);

/* Frees a configuration that nobody holds; for config_put(). */
void config_destroy(struct config *config);

void config_changes_clear(struct config_changes *changes);
