#include "entity/collection.h"

#include <stdio.h>
#include <string.h>

/* In the order of the references, which is also that of a restore. */
static struct collection collections[] = {
    {.number = 8, .folder = "categories", .suffix = "categories", .global = true},
    {.number = 1, .folder = "users", .suffix = "users", .movable = true},
    {.number = 9, .folder = "credentials", .suffix = "credentials", .secret = true},
    {.number = 2, .folder = "courses", .suffix = "courses", .has_media = true},
    {.number = 3, .folder = "enrollments", .suffix = "enrollments"},
    {.number = 4, .folder = "reviews", .suffix = "reviews"},
    {.number = 5, .folder = "payment-methods", .suffix = "payment_methods"},
    {.number = 6, .folder = "transactions", .suffix = "transactions"},
    {.number = 7, .folder = "invoices", .suffix = "invoices"},
    {.number = 10, .folder = "preferences", .of_users = true},
};

enum { NCOLLECTIONS = sizeof collections / sizeof collections[0] };
enum statement_kind { GET, PAGE, PUT, PUT_EXISTING, DELETE, UNDELETE, MOVE, STATEMENT_KINDS };

/* %s is the suffix, which is from the table above and from nowhere else. */
static const struct template
{
    const char *name, *sql;
    unsigned nparams;
}
templates[STATEMENT_KINDS] = {
    [GET] = {"get_%s",
             "SELECT id, rev, updated_us, content_us, body FROM doc_%s "
             "WHERE region = $1::smallint AND id = $2::bigint",
             2},
    [PAGE] = {"page_%s",
              "SELECT id, rev, updated_us, content_us, body FROM doc_%s "
              "WHERE (region, id) > ($1::smallint, $2::bigint) AND region <= $1::smallint "
              "ORDER BY region, id LIMIT $3::bigint",
              3},
    [PUT] = {"put_%s",
             "SELECT outcome, id, rev, updated_us, content_us, body FROM put_%s($1::smallint, $2::bigint, "
             "$3::jsonb, $4::timestamptz, $5::timestamptz, $6::boolean, $7::uuid, $8::text)",
             8},
    /* A delete that was under way is waited for inside, where the row would be made anew: rolled back, and
       repeated as any 40001, this finds no row. */
    [PUT_EXISTING] =
        {"put_existing_%s",
         "SELECT put.* FROM (SELECT FROM doc_%s WHERE region = $1::smallint AND id = $2) AS row, LATERAL "
         "put_%s($1, $2, $3::jsonb, $4::timestamptz, $5::timestamptz, $6::boolean, $7::uuid, $8) put WHERE "
         "CASE outcome WHEN 'created' THEN refuse('40001', NULL, id || ' is gone') IS NULL ELSE true END",
         8},
    [DELETE] = {"delete_%s", "SELECT delete_%s($1::smallint, $2::bigint, $3::uuid, $4::text)", 4},
    [UNDELETE] = {"undelete_%s",
                  "SELECT outcome, id, rev, updated_us, content_us, body "
                  "FROM undelete_%s($1::smallint, $2::bigint, $3::uuid, $4::text)",
                  4},
    [MOVE] = {"move_%s",
              "SELECT outcome, id, rev, updated_us, content_us, body "
              "FROM move_%s($1::smallint, $2::bigint, $3::smallint, $4::uuid, $5::text)",
              5},
};

static struct statement_text {
    char name[64], sql[512];
} texts[NCOLLECTIONS][STATEMENT_KINDS];

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
static struct pg_statement statement_build(size_t index, enum statement_kind kind)
{
    const struct template *t = &templates[kind];
    struct statement_text *text = &texts[index][kind];
    snprintf(text->name, sizeof text->name, t->name, collections[index].suffix);
    snprintf(text->sql, sizeof text->sql, t->sql, collections[index].suffix, collections[index].suffix);
    return (struct pg_statement){.name = text->name, .sql = text->sql, .nparams = t->nparams};
}
#pragma GCC diagnostic pop

void collections_prepare(void)
{
    for (size_t i = 0; i < NCOLLECTIONS; i++) {
        if (!collections[i].suffix)
            continue;
        collections[i].get = statement_build(i, GET);
        collections[i].page = statement_build(i, PAGE);
        collections[i].put = statement_build(i, PUT);
        collections[i].put_existing = statement_build(i, PUT_EXISTING);
        collections[i].delete = statement_build(i, DELETE);
        collections[i].undelete = statement_build(i, UNDELETE);
        collections[i].move = statement_build(i, MOVE);
    }
}

const struct collection *collection_numbered(unsigned number)
{
    for (size_t i = 0; i < NCOLLECTIONS; i++)
        if (collections[i].number == number)
            return &collections[i];
    return NULL;
}

const struct collection *collection_of_folder(const char *folder)
{
    for (size_t i = 0; i < NCOLLECTIONS; i++)
        if (strcmp(collections[i].folder, folder) == 0)
            return &collections[i];
    return NULL;
}

bool collection_shown(const struct collection *collection, const struct config *config)
{
    return (!collection->secret || config->credentials) && (!collection->of_users || *config->mongodb_uri);
}

const struct collection *collection_next(const struct collection *previous)
{
    size_t i = previous ? (size_t)(previous - collections) + 1 : 0;
    return i < NCOLLECTIONS ? &collections[i] : NULL;
}
