/*
 * Fuzzes what reads a replication stream: the frames, the messages of pgoutput, and the transactions of the change log;
 * and the rows of a COPY.
 * tests/test_fuzz.py builds it with the sanitizers; run as
 *
 *   fuzz_feed SEED RUNS
 *
 * Deterministic: an input is a mutation of a well-formed stream, by a generator started from SEED. An input is a row
 * of messages, each behind its length in two bytes. It aborts where a property does not hold.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "entity/changes.h"
#include "postgres/copy_row.h"
#include "postgres/pgoutput.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int holds, const char *property)
{
    if (holds)
        return;
    fprintf(stderr, "violated: %s\n", property);
    abort();
}

static void check_rows(const struct changes *changes)
{
    require(changes->n <= CHANGES_ROWS_MAX, "a transaction has no more rows than there is room for");
    for (size_t i = 0; i < changes->n; i++) {
        const struct row_key *key = &changes->rows[i].key;
        require(key->collection >= 1 && key->collection < COLLECTIONS_MAX, "a collection is one");
        require(key->region <= CONFIG_MAX_REGIONS, "a region is one");
        require(key->id >= 0 && key->id < ROW_ID_END, "an id is one");
    }
}

/* Each message in a block of its own size, so that the sanitizer sees a byte read behind it. */
static int read_message(struct changes *changes, const uint8_t *data, size_t len)
{
    char *exact = malloc(len ? len : 1);
    struct pgoutput_frame frame;
    require(exact != NULL, "memory");
    memcpy(exact, data, len);
    int r = pgoutput_frame(exact, len, &frame);
    if (r == 0 && frame.kind == PGOUTPUT_DATA) {
        require(frame.data >= exact && frame.data + frame.len == exact + len, "a message lies in its frame");
        r = changes_read(changes, frame.data, frame.len);
    }
    if (r >= 0)
        check_rows(changes);
    require(r <= 1, "an answer is one of those promised");
    free(exact);
    return r;
}

/* Transactions that were read, or -1 when the stream made no sense. */
static int read_stream(struct changes *changes, const uint8_t *data, size_t size)
{
    int transactions = 0;
    memset(changes, 0, sizeof *changes);
    while (size >= 2) {
        size_t len = (size_t)data[0] << 8 | data[1];
        len = len > size - 2 ? size - 2 : len;
        int r = read_message(changes, data + 2, len);
        if (r < 0)
            return -1;
        transactions += r;
        data += 2 + len;
        size -= 2 + len;
    }
    return transactions;
}

/* The fields lie in the message, and fill it. */
static void read_row(const uint8_t *data, size_t size)
{
    struct copy_field fields[2];
    char *exact = malloc(size ? size : 1);
    require(exact != NULL, "memory");
    memcpy(exact, data, size);
    int r = copy_row_read(exact, size, fields, 2);
    require(r <= 1, "an answer is one of those promised");
    for (size_t i = 0; r == 1 && i < 2; i++) {
        size_t len = fields[i].len > 0 ? (size_t)fields[i].len : 0;
        require(fields[i].len >= -1 && fields[i].data >= exact && fields[i].data + len <= exact + size, "a field lies in its message");
        copy_field_i64(&fields[i], 0);
    }
    free(exact);
}

static struct changes state_of_stream;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    read_stream(&state_of_stream, data, size);
    read_row(data, size);
    return 0;
}

#ifndef FUZZ_WITHOUT_MAIN
enum { INPUT_MAX = 8192, MUTATIONS = 6, RELATION = 16777 };

/* ---- a well-formed stream ---- */

struct writer {
    uint8_t data[INPUT_MAX];
    size_t len, message; /* where the length of the message that is being written stands */
};

static void put(struct writer *w, const void *data, size_t len)
{
    require(w->len + len <= sizeof w->data, "the stream has room");
    memcpy(w->data + w->len, data, len);
    w->len += len;
}

static void put_number(struct writer *w, uint64_t value, size_t bytes)
{
    for (size_t i = bytes; i-- > 0;)
        put(w, &(uint8_t){(uint8_t)(value >> (8 * i))}, 1);
}

static void put_text(struct writer *w, const char *text)
{
    put(w, text, strlen(text) + 1);
}

static void message_begin(struct writer *w, char envelope, char kind)
{
    w->message = w->len;
    put_number(w, 0, 2);
    put(w, &envelope, 1);
    put_number(w, 0x1a2b3c4d, 8);
    if (envelope == 'w')
        put_number(w, 0x1a2b3c4d, 8);
    put_number(w, 700000000000000, 8);
    if (envelope == 'w')
        put(w, &kind, 1);
    else
        put_number(w, 1, 1);
}

static void message_end(struct writer *w)
{
    size_t len = w->len - w->message - 2;
    w->data[w->message] = (uint8_t)(len >> 8);
    w->data[w->message + 1] = (uint8_t)len;
}

/* `row`: what its fifth column is called. */
static void put_relation(struct writer *w, uint32_t id, const char *table, const char *row)
{
    const char *const names[] = {"xid", "id", "collection", "region", row, "operation", "rev", "actor", "changed_at"};
    message_begin(w, 'w', 'R');
    put_number(w, id, 4);
    put_text(w, "campusfs");
    put_text(w, table);
    put_number(w, 'd', 1);
    put_number(w, sizeof names / sizeof *names, 2);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        put_number(w, i < 2, 1);
        put_text(w, names[i]);
        put_number(w, 20, 4);
        put_number(w, UINT32_MAX, 4);
    }
    message_end(w);
}

static void put_insert(struct writer *w, uint32_t id, const char *const values[9], size_t columns)
{
    message_begin(w, 'w', 'I');
    put_number(w, id, 4);
    put_number(w, 'N', 1);
    put_number(w, columns, 2);
    for (size_t i = 0; i < columns; i++) {
        put(w, values[i] ? "t" : "n", 1);
        if (!values[i])
            continue;
        put_number(w, strlen(values[i]), 4);
        put(w, values[i], strlen(values[i]));
    }
    message_end(w);
}

static void put_begin(struct writer *w)
{
    message_begin(w, 'w', 'B');
    put_number(w, 0x1000, 8);
    put_number(w, 700000000000000, 8);
    put_number(w, 4711, 4);
    message_end(w);
}

/* `begun`: what the transaction's begin must have said. */
static void put_commit(struct writer *w, uint64_t begun)
{
    message_begin(w, 'w', 'C');
    put_number(w, 0, 1);
    put_number(w, begun, 8);
    put_number(w, 0x1030, 8);
    put_number(w, 700000000000000, 8);
    message_end(w);
}

static const char *const row[] = {"4711", "1", "1", "3", "1002", "update", "77", "uid=0", "2026-11-27 23:15:00.25+00"};

static void write_stream(struct writer *w)
{
    static const char *const bulk[] = {"4711", "2", "8", "0", NULL, "bulk", "78", "uid=0", "2026-11-27 23:15:00+00"};
    static const char *const newer[] = {"4711", "3", "99", "3", "5", "update", "79", "uid=0", "infinity"};
    message_begin(w, 'k', 0);
    message_end(w);
    put_begin(w);
    put_relation(w, RELATION, "change_log", "row_id");
    put_insert(w, RELATION, row, 9);
    put_insert(w, RELATION, bulk, 9);
    put_insert(w, RELATION, newer, 9);
    put_commit(w, 0x1000);
    put_begin(w);
    put_relation(w, RELATION + 1, "others", "row_id");
    put_insert(w, RELATION + 1, newer, 9);
    put_insert(w, RELATION, row, 9);
    message_begin(w, 'w', 'T');
    put_number(w, 2, 4);
    put_number(w, 0, 1);
    put_number(w, RELATION, 4);
    put_number(w, RELATION + 1, 4);
    message_end(w);
    message_begin(w, 'w', 'O');
    message_end(w);
    put_commit(w, 0x1000);
}

/* A transaction of which one thing is not as it should be; how many were read of it. */
static int read_transaction(const char *column, size_t columns, uint64_t begun)
{
    static struct writer w;
    w.len = 0;
    put_begin(&w);
    put_relation(&w, RELATION, "change_log", column);
    put_insert(&w, RELATION, row, columns);
    put_commit(&w, begun);
    return read_stream(&state_of_stream, w.data, w.len);
}

static void check_refusals(void)
{
    require(read_transaction("row_id", 9, 0x1000) == 1, "a transaction is read");
    require(read_transaction("row_no", 9, 0x1000) < 0, "a change log without a column that is read is none");
    require(read_transaction("row_id", 8, 0x1000) < 0, "a row has the columns of its table");
    require(read_transaction("row_id", 9, 0x0ff8) < 0, "a commit ends the transaction that was begun");
}

/* The first transaction of it, as it must be understood. */
static void check_stream(const struct writer *w)
{
    struct changes *changes = &state_of_stream;
    require(read_stream(changes, w->data, w->len) == 2, "a well-formed stream is understood");
    require(changes->everything && changes->end_lsn == 0x1030, "a truncated log is everything");
    size_t end = 0; /* behind the first commit */
    for (int messages = 0; messages < 7; messages++)
        end += 2 + ((size_t)w->data[end] << 8 | w->data[end + 1]);
    require(read_stream(changes, w->data, end) == 1 && !changes->everything && changes->n == 2, "its rows are read");
    const struct row_change *first = &changes->rows[0], *second = &changes->rows[1];
    require(first->key.collection == 1 && first->key.region == 3 && first->key.id == 1002 && first->rev == 77,
            "a row is the one that was named");
    require(first->changed_us == INT64_C(1795821300250000), "its time is the one that was named");
    require(second->key.collection == 8 && second->key.region == 0 && second->key.id == 0 && second->rev == 0,
            "an entry without a row is about all of its folder");
}

/* ---- mutations ---- */

/* The first row of a COPY, behind the header. */
static void write_row(struct writer *w)
{
    put(w, "PGCOPY\n\377\r\n", 11);
    put_number(w, 0, 4);
    put_number(w, 0, 4);
    put_number(w, 2, 2);
    put_number(w, 8, 4);
    put_number(w, 4711, 8);
    put_number(w, 8, 4);
    put(w, "{\"a\":1}\n", 8);
    struct copy_field fields[2];
    require(copy_row_read((const char *)w->data, w->len, fields, 2) == 1 && copy_field_i64(&fields[0], 0) == 4711 &&
                fields[1].len == 8 && memcmp(fields[1].data, "{\"a\":1}", 7) == 0,
            "a row is read");
}

static uint64_t state;

/* splitmix64 */
static uint64_t next_random(void)
{
    uint64_t z = (state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static size_t mutate(uint8_t *data, size_t len)
{
    static const uint8_t edges[] = {0, 1, 0x7f, 0x80, 0xff, 'n', 't', 'u', 'b', 'N', 'B', 'C', 'R', 'I', '-', '9'};
    size_t at = len ? next_random() % len : 0, n = 1 + next_random() % 64;
    n = n > len - at ? len - at : n;
    switch (next_random() % 5) {
    case 0:
        if (len)
            data[at] = (uint8_t)next_random();
        return len;
    case 1:
        if (len)
            data[at] = edges[next_random() % sizeof edges];
        return len;
    case 2: /* take a piece out */
        memmove(data + at, data + at + n, len - at - n);
        return len - n;
    case 3: /* double a piece */
        if (len + n > INPUT_MAX)
            return len;
        memmove(data + at + n, data + at, len - at);
        return len + n;
    default: /* cut the end, seldom far */
        return len - n;
    }
}

int main(int argc, char **argv)
{
    static struct writer stream, row;
    if (argc != 3)
        return fprintf(stderr, "usage: fuzz_feed SEED RUNS\n"), 64;
    state = strtoull(argv[1], NULL, 10);
    write_stream(&stream);
    check_stream(&stream);
    check_refusals();
    write_row(&row);
    unsigned long runs = strtoul(argv[2], NULL, 10);
    for (unsigned long i = 0; i < runs; i++) {
        uint8_t work[INPUT_MAX];
        const struct writer *whole = i % 4 == 3 ? &row : &stream;
        size_t len = whole->len;
        memcpy(work, whole->data, len);
        for (uint64_t k = 1 + next_random() % MUTATIONS; k > 0; k--)
            len = mutate(work, len);
        LLVMFuzzerTestOneInput(work, len);
    }
    printf("%lu inputs, no property violated\n", runs);
    return 0;
}
#endif
