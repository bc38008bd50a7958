#include "entity/transfer_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shard/twophase.h"

enum {
    WORK_SHARE = 70, /* percent of the time until the decision; the rest is for what follows it */
    CONTENT_MAX = 64 * 1024 * 1024 /* bytes of all that moves */
};

struct party {
    struct shard *shard;
    char gid[GID_TEXT];
    bool prepared; /* perhaps */
};

struct transfer {
    struct cluster *cluster;
    struct shard *source;
    struct party parties[CONFIG_MAX_SHARDS]; /* the first is the shard that the user comes to */
    size_t n;
    const struct row_key *user;
    unsigned to; /* region */
    const char *actor;
    char id[UUID_TEXT];
    struct shard_tx *out, *in; /* while they are open */
    struct pg_rows *left;      /* what transfer_out() answered */
    struct pg_rows *arrived;   /* what transfer_in() did */
    struct op work, whole;     /* until the decision; altogether */
};

/* ---- parts, asked for here and when settling ---- */

void transfer_gid(unsigned source, unsigned party, const char *transfer, char out[GID_TEXT])
{
    snprintf(out, GID_TEXT, "campusfs:%u:%u:%s", source, party, transfer);
}

void transfer_part_in(struct transfer_part *part, const char *content, unsigned to, const char *transfer,
                      const char *actor)
{
    static const struct pg_statement statement = {
        "transfer_in",
        "SELECT outcome, id, rev, updated_us, content_us, body "
        "FROM transfer_in($1::jsonb, $2::smallint, $3::uuid, $4::text)",
        4};
    snprintf(part->number, sizeof part->number, "%u", to);
    part->statement = &statement;
    part->params[0] = content;
    part->params[1] = part->number;
    part->params[2] = transfer;
    part->params[3] = actor;
}

void transfer_part_claims(struct transfer_part *part, const char *content, unsigned to_shard,
                          const char *transfer)
{
    static const struct pg_statement statement = {
        "transfer_claims", "SELECT transfer_claims($1::jsonb, $2::smallint, $3::uuid)", 3};
    snprintf(part->number, sizeof part->number, "%u", to_shard);
    part->statement = &statement;
    part->params[0] = content;
    part->params[1] = part->number;
    part->params[2] = transfer;
}

enum transfer_outcome transfer_ask(struct shard *source, const char *transfer, const struct op *op,
                                   struct fail *f)
{
    static const struct pg_statement statement = {"transfer_outcome", "SELECT transfer_outcome($1::uuid)", 1};
    const char *params[] = {transfer};
    struct pg_rows *rows CLEANUP(pg_rows_freep) = NULL;
    /* Without a request id: it can be repeated, and is, as long as no answer was lost. */
    if (shard_write(source, &statement, params, NULL, op, &rows, f) < 0 || pg_rows_count(rows) != 1)
        return TRANSFER_UNKNOWN;
    const char *outcome = pg_rows_text(rows, 0, 0);
    return outcome && strcmp(outcome, "committed") == 0 ? TRANSFER_COMMITTED : TRANSFER_VOID;
}

int transfer_finish(struct shard *source, const char *transfer, const struct op *op, struct fail *f)
{
    static const struct pg_statement statement = {"transfer_finish", "SELECT transfer_finish($1::uuid)", 1};
    const char *params[] = {transfer};
    struct pg_rows *rows CLEANUP(pg_rows_freep) = NULL;
    return shard_write(source, &statement, params, NULL, op, &rows, f);
}

/* ---- before the decision ---- */

/* "{1,2,3}": the first one keeps ids that no shard gives away. */
static void shard_numbers(struct cluster *cluster, char out[CONFIG_MAX_SHARDS * 8])
{
    size_t len = 0;
    for (size_t i = 0; i < cluster_shards(cluster); i++)
        len += (size_t)snprintf(out + len, CONFIG_MAX_SHARDS * 8 - len, "%c%u", i ? ',' : '{',
                                shard_number(cluster_shard(cluster, i)));
    snprintf(out + len, CONFIG_MAX_SHARDS * 8 - len, "}");
}

static int add_parties(struct transfer *t, const char *numbers, struct fail *f)
{
    for (char *end; *numbers; numbers = end + (*end == ' ')) {
        unsigned number = (unsigned)strtoul(numbers, &end, 10);
        struct shard *shard = cluster_shard_numbered(t->cluster, number);
        if (!shard || end == numbers || t->n == CONFIG_MAX_SHARDS)
            return fail_set(f, EIO, "shard %s: named \"%.40s\" as shards of a move", shard_name(t->source),
                            numbers);
        struct party *party = &t->parties[t->n++];
        *party = (struct party){.shard = shard};
        transfer_gid(shard_number(t->source), number, t->id, party->gid);
    }
    return 0;
}

/* Everything leaves, in a transaction that stays open. Where the user is to come to is reached first, so that
 * nothing is locked in vain. */
static int leave(struct transfer *t, struct fail *f)
{
    static const struct pg_statement statement = {
        "transfer_out",
        "SELECT content, shards FROM transfer_out($1::smallint, $2::bigint, $3::smallint, $4::smallint, "
        "$5::smallint[], $6::uuid, $7::text)",
        7};
    char region[NUMBER_TEXT], id[NUMBER_TEXT], to[NUMBER_TEXT], to_shard[NUMBER_TEXT];
    char shards[CONFIG_MAX_SHARDS * 8];
    struct shard *target = cluster_shard_of_region(t->cluster, t->to);
    snprintf(region, sizeof region, "%u", t->user->region);
    snprintf(id, sizeof id, "%lld", (long long)t->user->id);
    snprintf(to, sizeof to, "%u", t->to);
    snprintf(to_shard, sizeof to_shard, "%u", shard_number(target));
    shard_numbers(t->cluster, shards);
    const char *params[] = {region, id, to, to_shard, shards, t->id, t->actor};
    int r = shard_tx_begin(target, &t->work, &t->in, f);
    if (r == 0)
        r = shard_tx_begin(t->source, &t->work, &t->out, f);
    if (r == 0)
        r = shard_tx_run(t->out, &statement, params, &t->work, &t->left, f);
    if (r == 0 && pg_rows_count(t->left) != 1)
        r = fail_set(f, EIO, "shard %s: did not say what moves", shard_name(t->source));
    if (r == 0 && pg_rows_len(t->left, 0, 0) > CONTENT_MAX)
        r = fail_set(f, EFBIG, "user %s owns more than can move at once", id);
    return r < 0 ? r : add_parties(t, pg_rows_text(t->left, 0, 1), f);
}

/* One shard's part, up to its first phase. `tx` is begun where it is not yet. */
static int prepare_party(struct transfer *t, struct party *party, struct shard_tx **tx,
                         const struct transfer_part *part, struct pg_rows **rows, struct fail *f)
{
    bool unknown = false;
    int r = *tx ? 0 : shard_tx_begin(party->shard, &t->work, tx, f);
    if (r == 0)
        r = shard_tx_run(*tx, part->statement, part->params, &t->work, rows, f);
    if (r == 0) {
        r = shard_tx_prepare(*tx, party->gid, &t->work, &unknown, f);
        party->prepared = r == 0 || unknown;
    }
    shard_tx_end(STEAL(*tx));
    return r;
}

static int prepare_all(struct transfer *t, struct fail *f)
{
    const char *content = pg_rows_text(t->left, 0, 0);
    struct transfer_part part;
    transfer_part_in(&part, content, t->to, t->id, t->actor);
    int r = prepare_party(t, &t->parties[0], &t->in, &part, &t->arrived, f);
    transfer_part_claims(&part, content, shard_number(t->parties[0].shard), t->id);
    for (size_t i = 1; r == 0 && i < t->n; i++) {
        struct shard_tx *tx = NULL;
        struct pg_rows *rows CLEANUP(pg_rows_freep) = NULL;
        r = prepare_party(t, &t->parties[i], &tx, &part, &rows, f);
    }
    return r;
}

/* ---- the decision, and behind it ---- */

static enum transfer_outcome decide(struct transfer *t, struct fail *f)
{
    struct fail why = {.err = 0};
    bool unknown = false;
    int r = shard_tx_commit(t->out, &t->work, &unknown, &why);
    shard_tx_end(STEAL(t->out));
    if (r == 0)
        return TRANSFER_COMMITTED;
    enum transfer_outcome outcome = unknown ? transfer_ask(t->source, t->id, &t->whole, NULL) : TRANSFER_VOID;
    if (outcome == TRANSFER_UNKNOWN)
        fail_set(f, EIO, "shard %s: whether user %lld has moved is not known yet: %.400s",
                 shard_name(t->source), (long long)t->user->id, why.message);
    else if (outcome == TRANSFER_VOID && f && f->err == 0)
        *f = why;
    return outcome;
}

/* Whoever settles may have been faster: what is not there any more is done. What cannot be reached is settled
 * later, for the better or the worse as it was decided. */
static int end_parties(struct transfer *t, bool commit, struct fail *f)
{
    int r = 0;
    for (size_t i = 0; i < t->n; i++) {
        struct fail why = {.err = 0};
        if (!t->parties[i].prepared)
            continue;
        int one = shard_finish_prepared(t->parties[i].shard, t->parties[i].gid, commit, &t->whole, &why);
        if (one == 0 || one == -ENOENT)
            continue;
        r = fail_set(f, EIO,
                     "user %lld has left shard %s, but shard %s has not confirmed that it knows: %.400s; "
                     "the move is finished as soon as it answers",
                     (long long)t->user->id, shard_name(t->source), shard_name(t->parties[i].shard),
                     why.message);
    }
    return r;
}

static int run(struct transfer *t, bool *decided, struct fail *f)
{
    int r = leave(t, f);
    if (r == 0)
        r = prepare_all(t, f);
    enum transfer_outcome outcome = r < 0 ? TRANSFER_VOID : decide(t, f);
    *decided = outcome != TRANSFER_VOID;
    shard_tx_end(STEAL(t->in));
    shard_tx_end(STEAL(t->out)); /* still open: nothing happens */
    if (outcome == TRANSFER_UNKNOWN)
        return -EIO;
    if (outcome == TRANSFER_VOID) {
        end_parties(t, false, NULL);
        return f && f->err ? -f->err : -EIO;
    }
    r = end_parties(t, true, f);
    if (r == 0)
        transfer_finish(t->source, t->id, &t->whole, NULL); /* else the keeper does */
    return r;
}

int transfer_user(struct cluster *cluster, const struct row_key *user, unsigned to, const char *actor,
                  const struct op *op, struct pg_rows **rows, bool *decided, struct fail *f)
{
    struct fail why = {.err = 0};
    struct transfer t = {.cluster = cluster,
                         .source = cluster_shard_of_region(cluster, user->region),
                         .user = user,
                         .to = to,
                         .actor = actor,
                         .whole = {.deadline = op->deadline}};
    *decided = false;
    int r = uuid_new(t.id);
    if (r < 0)
        return fail_set(f, EIO, "no random numbers");
    t.work.deadline = clock_now_ms() + op_left_ms(op) * WORK_SHARE / 100;
    r = run(&t, decided, &why);
    *rows = r == 0 ? STEAL(t.arrived) : NULL;
    pg_rows_free(t.arrived);
    pg_rows_free(t.left);
    if (r < 0 && f && f->err == 0)
        *f = why;
    return r;
}
