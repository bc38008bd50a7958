/*
 * What a logical replication stream says (PostgreSQL's "Streaming Replication Protocol" and "Logical
 * Replication Message Formats", version 1 of pgoutput): pure parsing of bytes that came from a server.
 * Every length is checked; what does not fit is -EPROTO, and the stream can only be ended then.
 *
 * Nothing is copied: texts are borrowed from the bytes, and are not NUL-terminated unless said so.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One CopyData message of the stream. */
struct pgoutput_frame {
    enum { PGOUTPUT_DATA, PGOUTPUT_KEEPALIVE } kind;
    uint64_t lsn;      /* keepalive: all that was committed before it has been sent */
    int64_t sent_us;   /* the server's clock, microseconds since the year 2000 */
    bool reply_wanted; /* keepalive: a status is to be sent at once */
    const char *data;  /* data: one message of pgoutput */
    size_t len;
};
/* -EPROTO, also for a kind that there is none of. */
int pgoutput_frame(const char *data, size_t len, struct pgoutput_frame *frame);

enum pgoutput_kind {
    PGOUTPUT_BEGIN,
    PGOUTPUT_COMMIT,
    PGOUTPUT_RELATION,
    PGOUTPUT_INSERT,
    PGOUTPUT_TRUNCATE,
    PGOUTPUT_OTHER, /* known, and of no matter to a reader of inserts */
};

struct pgoutput_text {
    const char *text; /* NULL for an SQL NULL and a value that was not sent */
    size_t len;
};

struct pgoutput_message {
    enum pgoutput_kind kind;
    uint64_t commit_lsn;        /* begin and commit: where the commit's record begins */
    uint64_t end_lsn;           /* commit: where it ends: who has replayed this far has the transaction */
    int64_t committed_us;       /* begin and commit: the server's clock, microseconds since the year 2000 */
    uint32_t xid;               /* begin: the low half of the transaction's number */
    uint32_t relation;          /* relation, insert */
    const char *schema, *table; /* relation: NUL-terminated; an empty schema is pg_catalog */
    size_t columns;             /* relation: of the table, insert: of the row; truncate: relations named */
    const char *at;             /* what pgoutput_column() and pgoutput_truncated() read */
    size_t left;
};
/* -EPROTO, also for a kind that version 1 does not know. */
int pgoutput_parse(const char *data, size_t len, struct pgoutput_message *message);

/* The name (of a relation; NUL-terminated) or value (of an insert) of the next column; at most
 * message.columns times. Cannot fail: pgoutput_parse() has gone through them. */
struct pgoutput_text pgoutput_column(struct pgoutput_message *message);
/* The next relation that a truncate names; likewise. */
uint32_t pgoutput_truncated(struct pgoutput_message *message);

/* A column's text as a whole decimal number within bounds; false when it is none, NULL included. */
bool pgoutput_number(struct pgoutput_text text, int64_t min, int64_t max, int64_t *out);

/*
 * The status that a receiver sends: all up to `lsn` is dealt with. `reply`: it wants a keepalive at once. It
 * says that more has arrived, by PGOUTPUT_AHEAD bytes, than has been sent: a server sends keepalives of its
 * own accord to who has not, and so each that comes is the answer to one that was wanted.
 */
enum { PGOUTPUT_STATUS_LEN = 34, PGOUTPUT_AHEAD = 1 << 24 };
void pgoutput_status(uint64_t lsn, int64_t now_us, bool reply, char out[PGOUTPUT_STATUS_LEN]);
