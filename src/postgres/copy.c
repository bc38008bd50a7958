#include "postgres/conn_private.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>

int conn_copy_start(struct conn *conn, const char *copy, const struct op *op, struct fail *f)
{
    PGresult *result = NULL;
    if (conn->broken || !PQexitPipelineMode(conn->pg) || !PQsendQuery(conn->pg, copy))
        return conn_fail_wait(conn, -EIO, f);
    int r = conn_flush(conn, op);
    if (r == 0)
        r = conn_next_result(conn, op, &result);
    if (r < 0)
        return conn_fail_wait(conn, r, f);
    bool good = PQresultStatus(result) == PGRES_COPY_IN;
    if (!good) {
        conn->broken = true;
        r = conn_fail_result(conn, result, f);
    }
    PQclear(result);
    return r;
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
    int put, r = 0, failed = 0;
    while ((put = PQputCopyEnd(conn->pg, abandon ? "abandoned" : NULL)) == 0 && r == 0)
        r = conn_poll(conn, POLLOUT, op);
    if (put < 0)
        r = -EIO;
    if (r == 0)
        r = conn_flush(conn, op);
    PGresult *result;
    while (r == 0 && (r = conn_next_result(conn, op, &result)) == 0 && result) {
        if (PQresultStatus(result) != PGRES_COMMAND_OK && !failed && !abandon)
            failed = conn_fail_result(conn, result, f);
        PQclear(result);
    }
    if (r < 0)
        return conn_fail_wait(conn, r, f);
    if (!PQenterPipelineMode(conn->pg))
        conn->broken = true;
    return failed;
}
