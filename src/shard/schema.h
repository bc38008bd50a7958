/* Whether a node holds the schema that this program was built with. */
#pragma once

#include "base/fail.h"
#include "base/op.h"
#include "postgres/conn.h"

/* The number of the last file in sql/migrations. */
unsigned schema_expected(void);

/* The question for it in a round trip with others', and the version that its answer says, 0 = none. */
struct conn_step schema_question(void);
unsigned schema_answer(const struct conn_step *step);

/*
 * The version of the schema on a node, 0 when there is none, and the number of the shard it belongs to. -EIO,
 * -EACCES.
 */
int schema_read(struct conn *conn, const struct op *op, unsigned *version, unsigned *shard, struct fail *f);

/* -EPROTO with what is to be done when there is no schema, -EXDEV when it is that of another shard. */
int schema_belongs(struct conn *conn, unsigned shard, const struct op *op, struct fail *f);

/* The same, and -EPROTO when the schema is older or newer than this program's. */
int schema_check(struct conn *conn, unsigned shard, const struct op *op, struct fail *f);

/* Adds what is to be done to an error of connecting: a database that is missing becomes -EPROTO, too. */
void schema_explain(struct fail *f);
