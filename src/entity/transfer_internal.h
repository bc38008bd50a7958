/* What moving and settling share; nobody else includes it. */
#pragma once

#include "base/cleanup.h"
#include "base/config.h"
#include "base/uuid.h"
#include "entity/transfer.h"

enum { GID_TEXT = 64, NUMBER_TEXT = 24 };

DEFINE_CLEANUP(struct pg_rows, pg_rows_free)

/* The name of what a shard prepares for a transfer. */
void transfer_gid(unsigned source, unsigned party, const char *transfer, char out[GID_TEXT]);

/* A shard's part in a transfer: its statement and parameters, which borrow what they are made of. */
struct transfer_part {
    const struct pg_statement *statement;
    const char *params[4];
    char number[NUMBER_TEXT];
};
void transfer_part_in(struct transfer_part *part, const char *content, unsigned to, const char *transfer,
                      const char *actor);
void transfer_part_claims(struct transfer_part *part, const char *content, unsigned to_shard,
                          const char *transfer);

enum transfer_outcome { TRANSFER_UNKNOWN, TRANSFER_COMMITTED, TRANSFER_VOID };
/* Asks the shard left whether the user has; where not, this transfer never can. Retried until the deadline.
 */
enum transfer_outcome transfer_ask(struct shard *source, const char *transfer, const struct op *op,
                                   struct fail *f);
/* Notes on the shard left that all others have their parts. */
int transfer_finish(struct shard *source, const char *transfer, const struct op *op, struct fail *f);
