/* What the files of a connection share: connect.c opens it, conn.c runs statements, copy.c loads
 * and unloads rows, replication.c reads a stream. */
#pragma once

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"
#include "postgres/conn.h"

struct conn {
    PGconn *pg; /* in pipeline mode, but during conn_exec() and a COPY */
    const char *node;
    const struct pg_statement **prepared; /* known to the server on this connection */
    size_t nprepared;
    size_t ncounted; /* of these have been told of by conn_count_prepared() */
    int64_t opened;  /* clock_now_ms() */
    struct conn_role role;
    struct conn_session session;
    char *copied;     /* libpq's: the row that conn_copy_next() told of */
    bool broken;      /* can only be closed */
    bool abandoned;   /* its statement was not waited for to the end */
    bool unconfirmed; /* a commit was answered that no synchronous standby has confirmed */
};

DEFINE_CLEANUP(struct conn, conn_close)

/* Asks the role, and which session this is; -EACCES when it is not pinned. Other errors of conn_ask_role().
 */
int conn_introduce(struct conn *conn, const struct op *op, struct fail *f);

/* A connection to the server, its session pinned, and not yet in pipeline mode. Errors of conn_open(). */
int conn_connect(const struct conn_target *target, const struct op *op, struct conn **out, struct fail *f);

/*
 * Sends a statement that copies, out of pipeline mode; the server is to answer that it is ready for `wanted`,
 * a direction of PGRES_COPY_*. The -errno of a refusal, or of a wait that failed.
 */
int conn_begin_copy(struct conn *conn, const char *copy, ExecStatusType wanted, const struct op *op,
                    struct fail *f);

/* Waits until the socket is ready. 0, -EINTR when the caller was interrupted, -ETIMEDOUT at the deadline. */
int conn_poll(struct conn *conn, short events, const struct op *op);

/* Sends all that is queued, reading what comes meanwhile. 0, -EINTR, -ETIMEDOUT, -EIO. */
int conn_flush(struct conn *conn, const struct op *op);

/* The next result, waited for; NULL at the end of a statement's. The caller clears it. Errors as
 * conn_flush(). */
int conn_next_result(struct conn *conn, const struct op *op, PGresult **out);

/* Breaks the connection for a wait that failed with `r`, in words. Returns the -errno of the operation. */
int conn_fail_wait(struct conn *conn, int r, struct fail *f);

/* Looks through what the server says beside results; `arg` is the connection. */
void conn_notice(void *arg, const PGresult *result);

/* Fills *f from an error result; breaks the connection when the server ended it. Returns the -errno. */
int conn_fail_result(struct conn *conn, const PGresult *result, struct fail *f);
