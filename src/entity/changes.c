#include "entity/changes.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "postgres/pgoutput.h"

static const char SCHEMA[] = "campusfs", LOG[] = "change_log";

/* The columns of the change log that say which document is another now. */
enum { COLLECTION, REGION, ROW, REV, CHANGED, WANTED };
static const char *const wanted[WANTED] = {"collection", "region", "row_id", "rev", "changed_at"};

/* NULL when the stream has not described it. */
static struct relation *relation_find(struct changes *changes, uint32_t id)
{
    for (size_t i = 0; i < changes->nrelations; i++)
        if (changes->relations[i].id == id)
            return &changes->relations[i];
    return NULL;
}

/* A relation is described before its first row, and again when it has been altered. */
static int read_relation(struct changes *changes, struct pgoutput_message *m)
{
    struct relation relation = {.id = m->relation,
                                .columns = (uint16_t)m->columns,
                                .log = strcmp(m->schema, SCHEMA) == 0 && strcmp(m->table, LOG) == 0};
    unsigned found = 0;
    for (size_t i = 0; relation.log && i < m->columns; i++) {
        struct pgoutput_text name = pgoutput_column(m);
        for (size_t w = 0; w < WANTED; w++) {
            if (strcmp(name.text, wanted[w]) != 0)
                continue;
            relation.wanted[w] = (uint16_t)i;
            found |= 1u << w;
        }
    }
    if (relation.log && found != (1u << WANTED) - 1)
        return -EPROTO;
    struct relation *known = relation_find(changes, m->relation);
    if (!known && changes->nrelations == CHANGES_RELATIONS_MAX)
        return -EPROTO;
    if (!known)
        known = &changes->relations[changes->nrelations++];
    *known = relation;
    return 0;
}

static void add(struct changes *changes, const struct row_change *change)
{
    if (changes->n == CHANGES_ROWS_MAX)
        changes->everything = true;
    else
        changes->rows[changes->n++] = *change;
}

/* Digits of a fixed count; -1 when they are none. */
static int64_t digits(const char *text, size_t n)
{
    int64_t value;
    return pgoutput_number((struct pgoutput_text){text, n}, 0, 999999, &value) && *text != '-' ? value : -1;
}

/* A time as our sessions print it, "2026-11-27 23:15:00.25+00": microseconds since the epoch; 0 for another
 * way, or a time that is none. */
static int64_t parse_time(struct pgoutput_text t)
{
    static const char form[] = "0000-00-00 00:00:00";
    enum { FORM = sizeof form - 1, ZONE = 3 };
    if (!t.text || t.len < FORM + ZONE || memcmp(t.text + t.len - ZONE, "+00", ZONE) != 0)
        return 0;
    for (size_t i = 0; i < FORM; i++)
        if (form[i] == '0' ? t.text[i] < '0' || t.text[i] > '9' : t.text[i] != form[i])
            return 0;
    size_t places = t.len - FORM - ZONE;
    int64_t fraction =
        places > 1 && places <= 7 && t.text[FORM] == '.' ? digits(t.text + FORM + 1, places - 1) : 0;
    for (size_t i = places; i < 7; i++)
        fraction *= 10;
    struct tm tm = {.tm_year = (int)digits(t.text, 4) - 1900,
                    .tm_mon = (int)digits(t.text + 5, 2) - 1,
                    .tm_mday = (int)digits(t.text + 8, 2),
                    .tm_hour = (int)digits(t.text + 11, 2),
                    .tm_min = (int)digits(t.text + 14, 2),
                    .tm_sec = (int)digits(t.text + 17, 2)};
    return fraction < 0 ? 0 : (int64_t)timegm(&tm) * 1000000 + fraction;
}

/* An entry that this program has no folder for (of a newer schema) is left out. */
static int read_insert(struct changes *changes, struct pgoutput_message *m)
{
    const struct relation *relation = relation_find(changes, m->relation);
    struct pgoutput_text values[WANTED] = {0};
    if (!changes->open || !relation || relation->columns != m->columns)
        return -EPROTO;
    if (!relation->log)
        return 0;
    for (size_t i = 0; i < m->columns; i++) {
        struct pgoutput_text value = pgoutput_column(m);
        for (size_t w = 0; w < WANTED; w++)
            if (relation->wanted[w] == i)
                values[w] = value;
    }
    int64_t collection, region, row = 0, rev;
    if (!pgoutput_number(values[COLLECTION], INT16_MIN, INT16_MAX, &collection) ||
        !pgoutput_number(values[REGION], INT16_MIN, INT16_MAX, &region) ||
        !pgoutput_number(values[REV], 0, INT64_MAX, &rev) ||
        (values[ROW].text && !pgoutput_number(values[ROW], INT64_MIN, INT64_MAX, &row)))
        return -EPROTO;
    if (collection < 1 || collection >= COLLECTIONS_MAX || region < 0 || region > CONFIG_MAX_REGIONS)
        return 0;
    if (values[ROW].text && (row < 1 || row >= ROW_ID_END))
        return 0;
    add(changes, &(struct row_change){.key = {(uint8_t)collection, (uint8_t)region, row},
                                      .rev = row ? (uint64_t)rev : 0,
                                      .changed_us = parse_time(values[CHANGED])});
    return 0;
}

static int read_begin(struct changes *changes, const struct pgoutput_message *m)
{
    if (changes->open)
        return -EPROTO;
    changes->open = true;
    changes->commit_lsn = m->commit_lsn;
    changes->xid = m->xid;
    changes->n = 0;
    changes->everything = false;
    return 0;
}

static int read_commit(struct changes *changes, const struct pgoutput_message *m)
{
    if (!changes->open || m->commit_lsn != changes->commit_lsn || m->end_lsn < m->commit_lsn)
        return -EPROTO;
    changes->open = false;
    changes->end_lsn = m->end_lsn;
    changes->committed_us = m->committed_us;
    return 1;
}

static int read_truncate(struct changes *changes, struct pgoutput_message *m)
{
    if (!changes->open)
        return -EPROTO;
    for (size_t i = 0; i < m->columns; i++) {
        const struct relation *relation = relation_find(changes, pgoutput_truncated(m));
        if (!relation)
            return -EPROTO;
        changes->everything = changes->everything || relation->log;
    }
    return 0;
}

int changes_read(struct changes *changes, const char *data, size_t len)
{
    struct pgoutput_message m;
    int r = pgoutput_parse(data, len, &m);
    if (r < 0)
        return r;
    switch (m.kind) {
    case PGOUTPUT_BEGIN:
        return read_begin(changes, &m);
    case PGOUTPUT_COMMIT:
        return read_commit(changes, &m);
    case PGOUTPUT_RELATION:
        return read_relation(changes, &m);
    case PGOUTPUT_INSERT:
        return read_insert(changes, &m);
    case PGOUTPUT_TRUNCATE:
        return read_truncate(changes, &m);
    default:
        return 0;
    }
}
