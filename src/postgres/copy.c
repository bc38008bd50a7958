#include "postgres/conn_private.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>

int conn_begin_copy(struct conn *conn, const char *copy, ExecStatusType wanted, const struct op *op,
                    struct fail *f)
{
    PGresult *result = NULL;
    if (conn->broken || !PQexitPipelineMode(conn->pg) || !PQsendQuery(conn->pg, copy))
        return conn_fail_wait(conn, -EIO, f);
    int r = conn_flush(conn, op);
    if (r == 0)
        r = conn_next_result(conn, op, &result);
    if (r < 0)
        return conn_fail_wait(conn, r, f);
    if (PQresultStatus(result) != wanted) {
        conn->broken = true;
        r = conn_fail_result(conn, result, f);
    }
    PQclear(result);
    return r;
}

/* What the statement ended by, and back to pipelines. 0, the -errno of a refusal, or of a wait that failed.
 */
static int finish(struct conn *conn, bool ignore, const struct op *op, struct fail *f)
{
    PGresult *result;
    int r, failed = 0;
    while ((r = conn_next_result(conn, op, &result)) == 0 && result) {
        if (PQresultStatus(result) != PGRES_COMMAND_OK && !failed && !ignore)
            failed = conn_fail_result(conn, result, f);
        PQclear(result);
    }
    if (r < 0)
        return conn_fail_wait(conn, r, f);
    if (!PQenterPipelineMode(conn->pg))
        conn->broken = true;
    return failed;
}

int conn_copy_start(struct conn *conn, const char *copy, const struct op *op, struct fail *f)
{
    return conn_begin_copy(conn, copy, PGRES_COPY_IN, op, f);
}

int conn_copy_put(struct conn *conn, const void *data, size_t len, const struct op *op, struct fail *f)
{
    const char *p = data;
    while (len) {
        /* Small pieces: libpq keeps what the socket does not take. */
        int piece = len < 65536 ? (int)len : 65536;
        int put = PQputCopyData(conn->pg, p, piece);
        int r = put < 0 ? -EIO : conn_flush(conn, op);
        if (r < 0)
            return conn_fail_wait(conn, r, f);
        if (put > 0) {
            p += piece;
            len -= (size_t)piece;
        }
    }
    return 0;
}

int conn_copy_end(struct conn *conn, bool abandon, const struct op *op, struct fail *f)
{
    int put, r = 0;
    while ((put = PQputCopyEnd(conn->pg, abandon ? "abandoned" : NULL)) == 0 && r == 0)
        r = conn_poll(conn, POLLOUT, op);
    if (put < 0)
        r = -EIO;
    if (r == 0)
        r = conn_flush(conn, op);
    return r < 0 ? conn_fail_wait(conn, r, f) : finish(conn, abandon, op, f);
}

int conn_copy_out(struct conn *conn, const char *copy, const struct op *op, struct fail *f)
{
    return conn_begin_copy(conn, copy, PGRES_COPY_OUT, op, f);
}

/* The next message, waited for: its length, 0 when no more comes, -errno. */
static int next_message(struct conn *conn, const struct op *op, struct fail *f)
{
    int len;
    PQfreemem(conn->copied);
    conn->copied = NULL;
    while ((len = PQgetCopyData(conn->pg, &conn->copied, 1)) == 0) {
        int r = conn_poll(conn, POLLIN, op);
        if (r == 0 && !PQconsumeInput(conn->pg))
            r = -EIO;
        if (r < 0)
            return conn_fail_wait(conn, r, f);
    }
    if (len == -2)
        return conn_fail_wait(conn, -EIO, f);
    return len < 0 ? 0 : len;
}

int conn_copy_next(struct conn *conn, struct copy_field *fields, size_t n, const struct op *op,
                   struct fail *f)
{
    int len, r = 0;
    while ((len = next_message(conn, op, f)) > 0) {
        r = copy_row_read(conn->copied, (size_t)len, fields, n);
        if (r == 1)
            return r;
        if (r < 0) {
            conn->broken = true;
            return fail_set(f, EIO, "node %s: what it sent is no row", conn->node);
        }
    }
    return len < 0 ? len : finish(conn, false, op, f);
}

void conn_copy_leave(struct conn *conn)
{
    conn->broken = conn->abandoned = true;
}
