#include "postgres/pgoutput.h"

#include <errno.h>
#include <string.h>

/* Bytes that are read from the front; `bad` once something did not fit, and all that follows is 0. */
struct reader {
    const char *at;
    size_t left;
    bool bad;
};

static const char *take(struct reader *r, size_t n)
{
    if (r->bad || n > r->left) {
        r->bad = true;
        return NULL;
    }
    const char *p = r->at;
    r->at += n;
    r->left -= n;
    return p;
}

/* A number in network order, of at most 8 bytes. */
static uint64_t take_number(struct reader *r, size_t bytes)
{
    const unsigned char *p = (const unsigned char *)take(r, bytes);
    uint64_t value = 0;
    for (size_t i = 0; p && i < bytes; i++)
        value = value << 8 | p[i];
    return value;
}

/* A text with its NUL; "" when there is none. */
static struct pgoutput_text take_text(struct reader *r)
{
    const char *end = r->bad || r->left == 0 ? NULL : memchr(r->at, '\0', r->left);
    if (!end) {
        r->bad = true;
        return (struct pgoutput_text){.text = ""};
    }
    struct pgoutput_text text = {.text = r->at, .len = (size_t)(end - r->at)};
    take(r, text.len + 1);
    return text;
}

int pgoutput_frame(const char *data, size_t len, struct pgoutput_frame *frame)
{
    struct reader r = {.at = data, .left = len};
    uint64_t kind = take_number(&r, 1);
    *frame = (struct pgoutput_frame){.kind = PGOUTPUT_DATA};
    if (kind == 'w') {
        frame->lsn = take_number(&r, 8);
        take_number(&r, 8); /* where the server's log ends: for logical streams the same */
        frame->sent_us = (int64_t)take_number(&r, 8);
        frame->data = r.at;
        frame->len = r.left;
        return r.bad ? -EPROTO : 0;
    }
    frame->kind = PGOUTPUT_KEEPALIVE;
    frame->lsn = take_number(&r, 8);
    frame->sent_us = (int64_t)take_number(&r, 8);
    frame->reply_wanted = take_number(&r, 1) != 0;
    return kind != 'k' || r.bad || r.left ? -EPROTO : 0;
}

/* ---- messages ---- */

static struct pgoutput_text relation_column(struct reader *r)
{
    take_number(r, 1); /* flags: part of the key */
    struct pgoutput_text name = take_text(r);
    take_number(r, 4); /* type and its modifier */
    take_number(r, 4);
    return name;
}

static struct pgoutput_text insert_column(struct reader *r)
{
    struct pgoutput_text value = {0};
    switch (take_number(r, 1)) {
    case 'n': /* NULL */
    case 'u': /* a large value that did not change, and is not sent */
        return value;
    case 't':
    case 'b':
        value.len = (size_t)take_number(r, 4);
        value.text = take(r, value.len);
        return value;
    default:
        r->bad = true;
        return value;
    }
}

/* Notes where the columns begin, and goes through them. */
static void read_columns(struct reader *r, struct pgoutput_message *m,
                         struct pgoutput_text (*column)(struct reader *))
{
    m->columns = (size_t)take_number(r, 2);
    m->at = r->at;
    m->left = r->left;
    for (size_t i = 0; i < m->columns && !r->bad; i++)
        column(r);
}

static void read_relation(struct reader *r, struct pgoutput_message *m)
{
    m->relation = (uint32_t)take_number(r, 4);
    m->schema = take_text(r).text;
    m->table = take_text(r).text;
    take_number(r, 1); /* replica identity */
    read_columns(r, m, relation_column);
}

static void read_insert(struct reader *r, struct pgoutput_message *m)
{
    m->relation = (uint32_t)take_number(r, 4);
    if (take_number(r, 1) != 'N') /* the new row */
        r->bad = true;
    read_columns(r, m, insert_column);
}

static void read_truncate(struct reader *r, struct pgoutput_message *m)
{
    m->columns = (size_t)take_number(r, 4);
    take_number(r, 1); /* CASCADE, RESTART IDENTITY */
    m->at = r->at;
    m->left = r->left;
    if (m->columns > r->left / 4)
        r->bad = true;
    else
        take(r, m->columns * 4);
}

static void read_commit(struct reader *r, struct pgoutput_message *m)
{
    take_number(r, 1); /* flags, none yet */
    m->commit_lsn = take_number(r, 8);
    m->end_lsn = take_number(r, 8);
    m->committed_us = (int64_t)take_number(r, 8);
}

static void read_begin(struct reader *r, struct pgoutput_message *m)
{
    m->commit_lsn = take_number(r, 8);
    m->committed_us = (int64_t)take_number(r, 8);
    m->xid = (uint32_t)take_number(r, 4);
}

int pgoutput_parse(const char *data, size_t len, struct pgoutput_message *message)
{
    struct reader r = {.at = data, .left = len};
    *message = (struct pgoutput_message){.kind = PGOUTPUT_OTHER};
    switch (take_number(&r, 1)) {
    case 'B':
        message->kind = PGOUTPUT_BEGIN;
        read_begin(&r, message);
        break;
    case 'C':
        message->kind = PGOUTPUT_COMMIT;
        read_commit(&r, message);
        break;
    case 'R':
        message->kind = PGOUTPUT_RELATION;
        read_relation(&r, message);
        break;
    case 'I':
        message->kind = PGOUTPUT_INSERT;
        read_insert(&r, message);
        break;
    case 'T':
        message->kind = PGOUTPUT_TRUNCATE;
        read_truncate(&r, message);
        break;
    case 'U': /* update, delete, origin, type, logical message: what is in them is not read */
    case 'D':
    case 'O':
    case 'Y':
    case 'M':
        return r.bad ? -EPROTO : 0;
    default:
        return -EPROTO;
    }
    return r.bad || r.left ? -EPROTO : 0;
}

struct pgoutput_text pgoutput_column(struct pgoutput_message *message)
{
    struct reader r = {.at = message->at, .left = message->left};
    struct pgoutput_text text = message->kind == PGOUTPUT_RELATION ? relation_column(&r) : insert_column(&r);
    message->at = r.at;
    message->left = r.left;
    return text;
}

uint32_t pgoutput_truncated(struct pgoutput_message *message)
{
    struct reader r = {.at = message->at, .left = message->left};
    uint32_t relation = (uint32_t)take_number(&r, 4);
    message->at = r.at;
    message->left = r.left;
    return relation;
}

bool pgoutput_number(struct pgoutput_text text, int64_t min, int64_t max, int64_t *out)
{
    if (!text.text || text.len == 0)
        return false;
    const char *p = text.text, *end = p + text.len;
    bool negative = *p == '-';
    int64_t value = 0;
    p += negative;
    if (p == end)
        return false;
    for (; p < end; p++) {
        if (*p < '0' || *p > '9' || __builtin_mul_overflow(value, 10, &value) ||
            __builtin_sub_overflow(value, *p - '0', &value)) /* downwards: INT64_MIN is a number, too */
            return false;
    }
    if (!negative && __builtin_sub_overflow(0, value, &value))
        return false;
    *out = value;
    return value >= min && value <= max;
}

static char *put_number(char *at, uint64_t value, unsigned bytes)
{
    for (unsigned i = bytes; i-- > 0;)
        *at++ = (char)(value >> (8 * i) & 0xff);
    return at;
}

void pgoutput_status(uint64_t lsn, int64_t now_us, bool reply, char out[PGOUTPUT_STATUS_LEN])
{
    char *at = out;
    *at++ = 'r';
    at = put_number(at, lsn + PGOUTPUT_AHEAD, 8); /* written, flushed, applied */
    at = put_number(at, lsn, 8);
    at = put_number(at, lsn, 8);
    at = put_number(at, (uint64_t)now_us, 8);
    put_number(at, reply, 1);
}
