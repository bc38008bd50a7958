#include "postgres/replication.h"

#include "postgres/conn_private.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <time.h>

enum {
    NAMES_TRIED = 4, /* a random name of 64 bits is never taken; a server may think otherwise */
    UNIX_SECONDS_OF_2000 = 946684800,
};

struct replication {
    struct conn *conn;
    uint32_t timeline;
    uint64_t system;
    char slot[40];
    char *message; /* the last that was read, libpq's */
    bool unsent;
};

DEFINE_CLEANUP(struct pg_rows, pg_rows_free)
DEFINE_CLEANUP(struct replication, replication_close)

/*
 * Whether a word of synchronous_standby_names, such as ANY 1 (a, "b c", *), is our application_name or any.
 * A quoted name is compared as it stands, which is how a server compares it, too.
 */
static bool names_us(const char *names)
{
    static const char ours[] = "campusfs_feed";
    while (*names) {
        if (*names == '*')
            return true;
        size_t n = strcspn(names, " \t\n,()\"*");
        if (n == sizeof ours - 1 && strncasecmp(names, ours, n) == 0)
            return true;
        names += n ? n : 1;
    }
    return false;
}

static int ask_identity(struct replication *replication, const struct op *op, struct fail *f)
{
    struct pg_rows *system CLEANUP(pg_rows_freep) = NULL;
    struct pg_rows *names CLEANUP(pg_rows_freep) = NULL;
    struct conn *conn = replication->conn;
    int r = conn_exec(conn, "IDENTIFY_SYSTEM", op, &system, f);
    if (r == 0)
        r = conn_exec(conn, "SHOW synchronous_standby_names", op, &names, f);
    if (r < 0)
        return r;
    int64_t timeline = pg_rows_count(system) == 1 ? pg_rows_i64(system, 0, 1, 0) : 0;
    const char *standby = PQparameterStatus(conn->pg, "in_hot_standby");
    if (timeline <= 0 || timeline > UINT32_MAX || pg_rows_count(names) != 1)
        return fail_set(f, EIO, "node %s: does not say what it is", conn->node);
    if (standby && strcmp(standby, "on") == 0)
        return fail_set(f, EROFS, "node %s: is a standby", conn->node);
    if (names_us(pg_rows_text(names, 0, 0)))
        return fail_set(f, EPERM,
                        "node %s: its synchronous_standby_names would count this connection as a standby: "
                        "it has to name the standbys",
                        conn->node);
    replication->timeline = (uint32_t)timeline;
    replication->system = strtoull(pg_rows_text(system, 0, 0), NULL, 10); /* it has all 64 bits */
    return 0;
}

int replication_open(const struct conn_target *target, const struct op *op, struct replication **out,
                     struct fail *f)
{
    CLEANUP(replication_closep) struct replication *replication = calloc(1, sizeof *replication);
    if (!replication)
        return fail_set(f, ENOMEM, "node %s: out of memory", target->node);
    int r = conn_connect(target, op, &replication->conn, f);
    if (r == 0)
        r = ask_identity(replication, op, f);
    if (r < 0)
        return r;
    *out = STEAL(replication);
    return 0;
}

void replication_close(struct replication *replication)
{
    if (!replication)
        return;
    PQfreemem(replication->message);
    conn_close(replication->conn);
    free(replication);
}

uint32_t replication_timeline(const struct replication *replication)
{
    return replication->timeline;
}

uint64_t replication_system(const struct replication *replication)
{
    return replication->system;
}

/* "16/B374D848" in bytes. */
static bool parse_lsn(const char *text, uint64_t *lsn)
{
    uint32_t high, low;
    if (!text || sscanf(text, "%" SCNx32 "/%" SCNx32, &high, &low) != 2)
        return false;
    *lsn = (uint64_t)high << 32 | low;
    return true;
}

static int create_slot(struct replication *replication, const struct op *op, uint64_t *from, struct fail *f)
{
    uint64_t number;
    char command[160];
    struct pg_rows *rows CLEANUP(pg_rows_freep) = NULL;
    if (getrandom(&number, sizeof number, 0) != (ssize_t)sizeof number)
        return fail_set(f, EIO, "no random number is to be had");
    snprintf(replication->slot, sizeof replication->slot, "campusfs_%016" PRIx64, number);
    snprintf(command, sizeof command,
             "CREATE_REPLICATION_SLOT \"%s\" TEMPORARY LOGICAL pgoutput NOEXPORT_SNAPSHOT",
             replication->slot);
    int r = conn_exec(replication->conn, command, op, &rows, f);
    if (r < 0)
        return r;
    if (pg_rows_count(rows) != 1 || !parse_lsn(pg_rows_text(rows, 0, 1), from))
        return fail_set(f, EIO, "node %s: does not say where its stream begins", replication->conn->node);
    return 0;
}

int replication_create_slot(struct replication *replication, const struct op *op, uint64_t *from,
                            struct fail *f)
{
    struct fail why;
    int r;
    for (int i = 0; i < NAMES_TRIED; i++) {
        why = (struct fail){.err = 0};
        r = create_slot(replication, op, from, &why);
        if (r == 0)
            return 0;
        if (strcmp(why.sqlstate, "42710") != 0) /* taken */
            break;
    }
    if (f && f->err == 0)
        *f = why;
    return -why.err;
}

int replication_start(struct replication *replication, const char *publication, const struct op *op,
                      struct fail *f)
{
    struct conn *conn = replication->conn;
    char command[256];
    snprintf(command, sizeof command,
             "START_REPLICATION SLOT \"%s\" LOGICAL 0/0 (proto_version '1', publication_names '\"%s\"')",
             replication->slot, publication);
    return conn_begin_copy(conn, command, PGRES_COPY_BOTH, op, f);
}

int replication_socket(const struct replication *replication)
{
    return PQsocket(replication->conn->pg);
}

short replication_events(const struct replication *replication)
{
    return replication->unsent ? POLLIN | POLLOUT : POLLIN;
}

/* The server has ended the stream, and may have said why. */
static int ended(struct replication *replication, struct fail *f)
{
    struct conn *conn = replication->conn;
    PGresult *result = PQisBusy(conn->pg) ? NULL : PQgetResult(conn->pg);
    bool refused = result && PQresultErrorField(result, PG_DIAG_SQLSTATE);
    int r = refused ? conn_fail_result(conn, result, f) : conn_fail_wait(conn, -EIO, f);
    conn->broken = true;
    PQclear(result);
    return r == 0 ? -EIO : r;
}

static int flush(struct replication *replication, struct fail *f)
{
    int left = PQflush(replication->conn->pg);
    replication->unsent = left > 0;
    return left < 0 ? conn_fail_wait(replication->conn, -EIO, f) : 0;
}

int replication_read(struct replication *replication, struct pgoutput_frame *frame, struct fail *f)
{
    struct conn *conn = replication->conn;
    PQfreemem(STEAL(replication->message));
    if (replication->unsent && flush(replication, f) < 0)
        return -EIO;
    int n = PQgetCopyData(conn->pg, &replication->message, 1);
    if (n == 0) {
        if (!PQconsumeInput(conn->pg))
            return conn_fail_wait(conn, -EIO, f);
        n = PQgetCopyData(conn->pg, &replication->message, 1);
    }
    if (n == 0)
        return 0;
    if (n < 0)
        return ended(replication, f);
    if (pgoutput_frame(replication->message, (size_t)n, frame) < 0)
        return fail_set(f, EPROTO, "node %s: a message that is none of replication", conn->node);
    return 1;
}

int replication_confirm(struct replication *replication, uint64_t lsn, bool reply, struct fail *f)
{
    char status[PGOUTPUT_STATUS_LEN];
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    pgoutput_status(lsn, (now.tv_sec - UNIX_SECONDS_OF_2000) * INT64_C(1000000) + now.tv_nsec / 1000, reply,
                    status);
    if (PQputCopyData(replication->conn->pg, status, sizeof status) <= 0)
        return conn_fail_wait(replication->conn, -EIO, f);
    return flush(replication, f);
}
