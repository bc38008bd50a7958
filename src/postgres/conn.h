/*
 * One connection to one PostgreSQL server. libpq is never left to wait by itself: every wait is a poll() of
 * ours with the deadline and the interrupt of the operation, so that a frozen server or a lost network costs
 * the deadline and no more. What the server was doing then is ended over another connection, conn_cancel():
 * PQcancel would block, and it does not encrypt. (Were there none, the server would find the closed socket,
 * for which it looks every second, or its statement_timeout would end it.)
 *
 * The session is pinned at connect: search_path, time zone, formats, time limits, so that no setting of a
 * server, database or role changes what the statements mean. One that has not taken them is refused.
 *
 * Not thread-safe: one user at a time. Messages name the node.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/fail.h"
#include "base/op.h"
#include "postgres/copy_row.h"
#include "postgres/statement.h"

struct conn;

/* How to reach one node. Borrowed by conn_open() for the length of the call, but for `node`, which must stay.
 */
struct conn_target {
    const char *node;     /* its name, for messages */
    const char *conninfo; /* libpq keywords of this node */
    const char *options;  /* libpq keywords of all nodes; the node's win; may be NULL */
    const char *database; /* these four count where neither has them; NULL or "" = what libpq takes */
    const char *user;
    const char *password;
    const char *passfile;
    bool override_user;           /* user and password win over what the others say */
    const char *force_database;   /* wins over all; NULL = none */
    int64_t statement_timeout_ms; /* the server's own limit, 0 = none */
    int64_t lock_timeout_ms;
    bool replication; /* a connection of replication.h */
};

#define CONN_LAG_UNKNOWN INT64_MIN

/* What a node said of itself. */
struct conn_role {
    bool standby;
    bool synchronous;  /* a primary's commits are confirmed by a standby before they are answered */
    bool streaming;    /* a standby is connected to the node that it follows */
    uint32_t timeline; /* a standby's: the newest that it is known to follow */
    uint64_t system;   /* identifies the cluster: a primary and its standbys have the same */
    uint64_t lsn;      /* the primary's flush position, the standby's replay position */
    uint64_t
        received;     /* what a standby has got, replayed or not; 0 = nothing by streaming. A primary's lsn */
    int64_t lag_ms;   /* age of what a standby shows, 0 when it has replayed all it knows of; by the clocks
                         of two servers, so that it may be far off and negative; CONN_LAG_UNKNOWN */
    int confirming;   /* a primary: standbys that confirm its commits now, -1 = not known */
    int64_t clock_ms; /* the server's clock less ours */
    int64_t connect_us; /* how long the connection took to be made */
    int64_t answer_us;  /* and this answer */
    int64_t asked;      /* clock_now_ms() of the answer */
};

/* One session on its server. */
struct conn_session {
    int pid;         /* 0 = not known */
    int64_t started; /* by the server's clock, microseconds since 1970: a process id comes back */
};

enum { CONN_CANCEL_MAX = 32 };

/* How a conn_run() ended. */
enum conn_outcome {
    CONN_DONE,    /* every step is committed */
    CONN_UNSENT,  /* nothing that could commit has left this process */
    CONN_REFUSED, /* the server refused a step; that step's transaction is rolled back */
    CONN_LOST, /* no answer: connection lost, deadline or interrupt; steps that are not done may be committed
                */
};

/* One statement of a pipeline. */
struct conn_step {
    const struct pg_statement *statement;
    const char *const *params;
    bool commit;          /* the transaction ends behind this step; always true of the last */
    struct pg_rows *rows; /* out: the caller's, also of steps before one that failed */
    bool done;            /* out: committed */
    bool unconfirmed; /* out: committed, but the wait for a synchronous standby was cancelled (a warning) */
};

/*
 * Connects, pins the session and asks the role, within the operation's deadline. -EIO, -EACCES
 * (authentication), -EINTR; f->sqlstate is the server's when it gave one (28P01 wrong password, 3D000 no such
 * database, ...).
 */
int conn_open(const struct conn_target *target, const struct op *op, struct conn **out, struct fail *f);
/* clock_now_ms() when it was opened. */
int64_t conn_opened(const struct conn *conn);
/* How many statements have been prepared on it since this was last asked. */
unsigned conn_count_prepared(struct conn *conn);
/* The name of the database that a connection would lead to, cut to `size`. False when the words are no good.
 */
bool conn_database(const struct conn_target *target, char *out, size_t size);
/* Closes at once, never waits. Takes NULL. */
void conn_close(struct conn *conn);

/*
 * Runs the steps in one round trip. A statement is prepared on its first use here. On CONN_LOST the
 * connection can only be closed. f->err is the errno of every outcome but CONN_DONE.
 */
enum conn_outcome conn_run(struct conn *conn, struct conn_step *steps, size_t n, const struct op *op,
                           struct fail *f);

/*
 * Runs SQL text without parameters, several statements too: then one transaction, the rows are those of the
 * last. `rows` may be NULL. -EIO when the connection is lost, or the wait for a synchronous standby was
 * cancelled and the commit is not confirmed; else what the SQLSTATE becomes.
 */
int conn_exec(struct conn *conn, const char *sql, const struct op *op, struct pg_rows **rows, struct fail *f);

/*
 * COPY ... FROM STDIN: `copy` is the statement; then any number of puts; the end commits. After a failure the
 * connection can only be closed. conn_copy_end() with `abandon` rolls back.
 */
int conn_copy_start(struct conn *conn, const char *copy, const struct op *op, struct fail *f);
int conn_copy_put(struct conn *conn, const void *data, size_t len, const struct op *op, struct fail *f);
int conn_copy_end(struct conn *conn, bool abandon, const struct op *op, struct fail *f);

/*
 * COPY ... TO STDOUT (FORMAT binary): `copy` is the statement; then rows of n columns, 1 each, until there
 * are no more, 0. A row's fields are the connection's, until the next call. Before that end, and after a
 * failure, the connection can only be closed; conn_copy_leave() has the server told that nobody wants the
 * rest (conn_abandoned()).
 */
int conn_copy_out(struct conn *conn, const char *copy, const struct op *op, struct fail *f);
int conn_copy_next(struct conn *conn, struct copy_field *fields, size_t n, const struct op *op,
                   struct fail *f);
void conn_copy_leave(struct conn *conn);

/*
 * Asks the role again; *role is also remembered. 0 or as conn_exec(). `also` (may be NULL) is a statement
 * that goes with it in the same round trip; that the server refuses it is told by its .done alone.
 */
int conn_ask_role(struct conn *conn, struct conn_step *also, const struct op *op, struct conn_role *role,
                  struct fail *f);
/* The role as last asked, with the replay position moved on by conn_note_lsn(). */
const struct conn_role *conn_role(const struct conn *conn);
void conn_note_lsn(struct conn *conn, uint64_t lsn);

/*
 * Looks, without waiting, whether an idle connection can still be used: false when the server has closed it
 * or said something that is no notice, or when its role is no longer the one asked.
 */
bool conn_usable(struct conn *conn);

/*
 * Whether a statement was left under way on it, by a deadline or an interrupt; *out says whose. It may be
 * running still when the connection has been closed.
 */
bool conn_abandoned(const struct conn *conn, struct conn_session *out);
/*
 * Ends, by way of another connection to the same server, what at most CONN_CANCEL_MAX sessions are doing; one
 * that has written anything is left alone. *ended: how many were found at it. Errors as conn_exec().
 */
int conn_cancel(struct conn *by, const struct conn_session *sessions, size_t n, const struct op *op,
                unsigned *ended, struct fail *f);

/* The node's name. */
const char *conn_node(const struct conn *conn);
