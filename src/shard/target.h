/* Where a node is and as whom to connect to it, from the configuration. */
#pragma once

#include <stddef.h>

#include "base/config.h"
#include "postgres/conn.h"

/* As the mount's role; the server's own limits end a statement before the deadline of an operation does. */
struct conn_target target_of_node(const struct config *config, size_t node);

/* As admin_user, without limits, for init and seed. */
struct conn_target target_of_admin(const struct config *config, size_t node);
