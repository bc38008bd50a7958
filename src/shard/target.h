/*
 * Where a node is and as whom to connect to it, from the configuration. A target is a copy that never
 * changes; who connects holds a reference meanwhile, so that a reload may replace it at any time.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/config.h"
#include "postgres/conn.h"

struct target;

/*
 * As the mount's role; the server's own limits end a statement before the deadline of an operation does. The
 * first reference is the caller's; NULL when out of memory. `name` is what messages call the node; it is
 * borrowed and must outlive the target and every connection made by it.
 */
struct target *target_new(const struct config *config, size_t node, const char *name);
struct target *target_hold(struct target *target);
/* Gives a reference back. Takes NULL. */
void target_put(struct target *target);
/* Whether both lead to the same place in the same way. */
bool target_equal(const struct target *one, const struct target *other);
/* Whether both lead to the same server and database by the same means; as whom may differ. */
bool target_same_place(const struct target *one, const struct target *other);
/* Borrowed from the target. */
const struct conn_target *target_conn(const struct target *target);

/* The same words, borrowed from the configuration, for what runs beside no reload. */
struct conn_target target_of_node(const struct config *config, size_t node);
/* As admin_user, without limits, for init and seed. */
struct conn_target target_of_admin(const struct config *config, size_t node);
/* As the role that may replicate, for a stream of changes. */
struct conn_target target_of_feed(const struct config *config, size_t node);
