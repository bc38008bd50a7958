/* The way from a node's words to a connection: parameters, the pinned session, and what went wrong in words.
 */
#include "postgres/conn_private.h"

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/utf8.h"
#include "postgres/sqlstate.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WORDS_MAX = 96 };

/* libpq's keyword and value arrays; later ones win. The strings are borrowed. */
struct words {
    const char *keys[WORDS_MAX + 1];
    const char *values[WORDS_MAX + 1];
    size_t count;
};

static void word_add(struct words *w, const char *key, const char *value)
{
    if (!value || !*value || w->count == WORDS_MAX)
        return;
    w->keys[w->count] = key;
    w->values[w->count] = value;
    w->count++;
}

static void word_drop(struct words *w, const char *key)
{
    size_t kept = 0;
    for (size_t i = 0; i < w->count; i++) {
        if (strcmp(w->keys[i], key) == 0)
            continue;
        w->keys[kept] = w->keys[i];
        w->values[kept++] = w->values[i];
    }
    w->count = kept;
}

static const char *word_value(const struct words *w, const char *key)
{
    for (size_t i = w->count; i-- > 0;)
        if (strcmp(w->keys[i], key) == 0)
            return w->values[i];
    return NULL;
}

static void conninfop(PQconninfoOption **options)
{
    PQconninfoFree(*options);
}

/* Adds what a connection string says. *parsed keeps the strings alive. */
static int words_parse(struct words *w, const struct conn_target *target, const char *conninfo,
                       PQconninfoOption **parsed, struct fail *f)
{
    char *problem = NULL;
    if (!conninfo || !*conninfo)
        return 0;
    *parsed = PQconninfoParse(conninfo, &problem);
    if (!*parsed) {
        int r = fail_set(f, EINVAL, "node %s: %.*s", target->node, problem ? (int)strcspn(problem, "\n") : 13,
                         problem ? problem : "out of memory");
        PQfreemem(problem);
        return r;
    }
    for (const PQconninfoOption *o = *parsed; o->keyword; o++)
        word_add(w, o->keyword, o->val);
    return 0;
}

/* Session settings travel in the startup packet: no round trip, and no moment without them. */
static int session_options(const struct conn_target *target, const char *theirs, struct buf *out)
{
    return buf_printf(out,
                      "%s -c search_path=campusfs,pg_catalog,pg_temp -c TimeZone=UTC -c DateStyle=ISO,YMD "
                      "-c IntervalStyle=iso_8601 -c extra_float_digits=1 -c bytea_output=hex "
                      "-c standard_conforming_strings=on -c default_transaction_isolation=read\\ committed "
                      "-c jit=off -c campusfs.session=pinned -c client_connection_check_interval=1s -c "
                      "statement_timeout=%" PRId64 " -c lock_timeout=%" PRId64
                      " -c idle_in_transaction_session_timeout=%" PRId64,
                      theirs ? theirs : "", target->statement_timeout_ms, target->lock_timeout_ms,
                      target->statement_timeout_ms ? target->statement_timeout_ms : 60000);
}

/*
 * What the server or libpq said, in one line. With verbose errors a server's message reads
 * "connection to ... failed: FATAL:  28P01: text\nLOCATION: ...": the only way to learn the SQLSTATE of a
 * connection that failed.
 */
static int connect_failed(struct conn *conn, int err, const char *why, struct fail *f)
{
    const char *text = why ? why : PQerrorMessage(conn->pg);
    int len = (int)strcspn(text, "\n"), head = len;
    const char *rest = "";
    for (const char *p = text; !why && (p = strstr(p, ":  ")) && p < text + len; p += 3) {
        if (strspn(p + 3, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") != 5 || strncmp(p + 8, ": ", 2) != 0)
            continue;
        if (f && f->err == 0)
            snprintf(f->sqlstate, sizeof f->sqlstate, "%.5s", p + 3);
        err =
            strncmp(p + 3, "28", 2) == 0 ? EACCES : sqlstate_errno((char[]){p[3], p[4], p[5], p[6], p[7], 0});
        rest = p + 10;
        for (head = (int)(p - text); head > 0 && text[head - 1] != ' ';)
            head--; /* the severity, in the server's language */
        break;
    }
    /* OpenSSL has said more, and libpq does not pass it on. */
    bool unverified = memmem(text, (size_t)len, "certificate verify failed", 25) != NULL;
    int r =
        fail_set(f, err, "node %s: %.*s%.*s%s", conn->node, head, text, (int)strcspn(rest, "\n"), rest,
                 unverified ? " (signed by none of sslrootcert, expired, not valid yet, or revoked)" : "");
    if (f) /* a server that has no session yet speaks its own encoding */
        utf8_clean(f->message);
    return r;
}

static int connect_wait(struct conn *conn, const struct op *op, struct fail *f)
{
    PostgresPollingStatusType next = PGRES_POLLING_WRITING;
    while (next != PGRES_POLLING_OK) {
        if (next == PGRES_POLLING_FAILED || PQstatus(conn->pg) == CONNECTION_BAD)
            return connect_failed(conn, EIO, NULL, f);
        int r = conn_poll(conn, next == PGRES_POLLING_READING ? POLLIN : POLLOUT, op);
        if (r == -EINTR)
            return connect_failed(conn, EINTR, "interrupted while connecting", f);
        if (r < 0)
            return connect_failed(conn, EIO, "no answer while connecting, within the time there was", f);
        next = PQconnectPoll(conn->pg);
    }
    return 0;
}

/* Everything but the session's settings, the weakest first. The two parses keep the strings alive. */
static int words_collect(struct words *w, const struct conn_target *target, PQconninfoOption **common,
                         PQconninfoOption **own, struct fail *f)
{
    word_add(w, "dbname", target->database);
    word_add(w, "user", target->user);
    word_add(w, "password", target->password);
    word_add(w, "passfile", target->passfile);
    word_add(w, "application_name", "campusfs");
    word_add(w, "gssencmode", "disable"); /* its handshake would wait inside libpq */
    word_add(w, "keepalives_idle", "5");
    word_add(w, "keepalives_interval", "2");
    word_add(w, "keepalives_count", "3");
    word_add(w, "tcp_user_timeout", "10000");
    int r = words_parse(w, target, target->options, common, f);
    if (r == 0)
        r = words_parse(w, target, target->conninfo, own, f);
    if (target->override_user) {
        word_drop(w, "password");
        word_add(w, "user", target->user);
        word_add(w, "password", target->password);
    }
    word_add(w, "dbname", target->force_database);
    return r;
}

static int connect_start(struct conn *conn, const struct conn_target *target, struct fail *f)
{
    CLEANUP(conninfop) PQconninfoOption *common = NULL;
    CLEANUP(conninfop) PQconninfoOption *own = NULL;
    CLEANUP(buf_clear) struct buf session = {0};
    struct words w = {.count = 0};
    int r = words_collect(&w, target, &common, &own, f);
    if (r == 0 && session_options(target, word_value(&w, "options"), &session) < 0)
        r = fail_set(f, ENOMEM, "node %s: out of memory", target->node);
    if (r < 0)
        return r;
    word_add(&w, "options", session.data);
    if (target->replication) { /* its own name: a server may count by names who confirms its commits */
        word_add(&w, "application_name", "campusfs_feed");
        word_add(&w, "replication", "database");
    }
    word_add(&w, "client_encoding", "UTF8");
    conn->pg = PQconnectStartParams(w.keys, w.values, 0);
    if (!conn->pg)
        return fail_set(f, ENOMEM, "node %s: out of memory", target->node);
    PQsetErrorVerbosity(conn->pg, PQERRORS_VERBOSE);
    PQsetNoticeReceiver(conn->pg, conn_notice, conn);
    return 0;
}

int conn_connect(const struct conn_target *target, const struct op *op, struct conn **out, struct fail *f)
{
    CLEANUP(conn_closep) struct conn *conn = calloc(1, sizeof *conn);
    if (!conn)
        return fail_set(f, ENOMEM, "node %s: out of memory", target->node);
    conn->node = target->node;
    int64_t begun = clock_now_us();
    conn->opened = clock_now_ms();
    int r = connect_start(conn, target, f);
    if (r == 0)
        r = connect_wait(conn, op, f);
    if (r < 0)
        return r;
    if (PQsetnonblocking(conn->pg, 1) != 0)
        return connect_failed(conn, EIO, NULL, f);
    conn->role.connect_us = clock_now_us() - begun;
    *out = STEAL(conn);
    return 0;
}

int conn_open(const struct conn_target *target, const struct op *op, struct conn **out, struct fail *f)
{
    CLEANUP(conn_closep) struct conn *conn = NULL;
    int r = conn_connect(target, op, &conn, f);
    if (r < 0)
        return r;
    if (!PQenterPipelineMode(conn->pg))
        return connect_failed(conn, EIO, NULL, f);
    r = conn_introduce(conn, op, f);
    if (r == 0)
        *out = STEAL(conn);
    return r;
}

bool conn_database(const struct conn_target *target, char *out, size_t size)
{
    CLEANUP(conninfop) PQconninfoOption *common = NULL;
    CLEANUP(conninfop) PQconninfoOption *own = NULL;
    struct words w = {.count = 0};
    if (words_collect(&w, target, &common, &own, NULL) < 0 || !word_value(&w, "dbname"))
        return false;
    snprintf(out, size, "%s", word_value(&w, "dbname"));
    return true;
}
