#include "postgres/sqlstate.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

static const struct {
    const char
        *prefix; /* of the state; the first that matches counts, so exact ones stand before their class */
    int err;
    bool transient;
} states[] = {
    {"CF001", ENOLINK},   /* refers to a row that does not exist */
    {"CF002", EBUSY},     /* still referred to */
    {"CF003", ECANCELED}, /* changed since it was read */
    {"CF005", EPERM},     /* not possible here */
    {"CF006", ENOKEY},    /* the id is to be claimed at its home first */
    {"CF007", EXDEV},     /* not possible between shards as their servers are set up */
    {"23505", EEXIST},    /* unique_violation */
    {"23P01", EEXIST},    /* exclusion_violation */
    {"23503", EBUSY},     /* foreign_key_violation that no function has named: a delete that others prevent */
    {"23", EINVAL},       /* not null, check */
    {"22", EINVAL},       /* data exceptions */
    {"54", EINVAL},       /* program limits */
    {"40001", EAGAIN, true}, /* serialization_failure, and a replica's conflict with recovery */
    {"40P01", EAGAIN, true}, /* deadlock_detected */
    {"55P03", ETIMEDOUT},    /* lock_not_available */
    {"57014", ETIMEDOUT},    /* query_canceled: by statement_timeout, or as what a caller has left behind */
    {"25006", EROFS, true},  /* read_only_sql_transaction: no primary (any more) */
    {"0A000", EIO, true},    /* of a prepared statement: its result has changed; it is prepared anew */
    {"26000", EIO, true},    /* invalid_sql_statement_name: the same */
    {"25P03", EIO, true},    /* idle_in_transaction_session_timeout */
    {"53100", ENOSPC},       /* disk_full */
    {"53200", EIO, true},    /* out_of_memory */
    {"53300", EIO, true},    /* too_many_connections */
    {"57P0", EIO, true},     /* shutdown, crash, starting up, dropped */
    {"08", EIO, true},       /* connection exceptions */
    {"28", EACCES},          /* authentication */
    {"42501", EACCES},       /* insufficient_privilege */
};

static size_t find_state(const char *state)
{
    size_t n = sizeof states / sizeof *states;
    for (size_t i = 0; i < n; i++)
        if (strncmp(state, states[i].prefix, strlen(states[i].prefix)) == 0)
            return i;
    return n;
}

int sqlstate_errno(const char *state)
{
    size_t i = find_state(state);
    return i < sizeof states / sizeof *states ? states[i].err : EIO;
}

bool sqlstate_is_transient(const char *state)
{
    size_t i = find_state(state);
    return i < sizeof states / sizeof *states && states[i].transient;
}
