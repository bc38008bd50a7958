#include "shard/target.h"

struct conn_target target_of_node(const struct config *config, size_t node)
{
    return (struct conn_target){
        .node = config->nodes[node].name,
        .conninfo = config->nodes[node].conninfo,
        .options = config->service_options,
        .database = config->database,
        .user = config->user,
        .password = config->password,
        .passfile = config->passfile,
        .statement_timeout_ms = config->timeout_ms * 7 / 10,
        .lock_timeout_ms = config->timeout_ms * 6 / 10,
    };
}

struct conn_target target_of_admin(const struct config *config, size_t node)
{
    struct conn_target target = target_of_node(config, node);
    target.user = config->admin_user;
    target.password = config->admin_password;
    target.override_user = true;
    target.statement_timeout_ms = 0;
    target.lock_timeout_ms = 0;
    return target;
}
