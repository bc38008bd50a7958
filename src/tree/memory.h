/*
 * What is remembered of a process and a row: its last save, so that its next one from the same buffer is no
 * conflict; and that it moved the row's file away to a scratch name, as editors do before they write, so that
 * the name is free for it until it writes again. And of a user and a row: the last save that came with a time
 * of its own, so that a copy that is edited elsewhere can be sent again. Bounded, the oldest is forgotten
 * first. Thread-safe.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "entity/collection.h"
#include "tree/process.h"

struct memory;

struct memory *memory_new(void);
void memory_free(struct memory *memory);

/* A number later than all before: orders opens and saves. */
uint64_t memory_now(struct memory *memory);

/* A process saved a row, whose content_at is now `content_us`; it is no longer moved away. */
void memory_saved(struct memory *memory, const struct row_key *key, struct process process,
                  int64_t content_us);
/* content_at of the process's last save when that came before `born`, else `none`. */
int64_t memory_last_save(struct memory *memory, const struct row_key *key, struct process process,
                         uint64_t born, int64_t none);

enum { MEMORY_BASE = 40 }; /* what an updated_at takes, however it is written */

/* A user saved a row with a set time, `at_us`, from the version that its document names as `base`. */
void memory_delivered(struct memory *memory, const struct row_key *key, uid_t uid, const char *base,
                      int64_t at_us);
/* The time of the user's last such save, when that was from the same base and older than `at_us`, else
 * `none`. */
int64_t memory_last_delivery(struct memory *memory, const struct row_key *key, uid_t uid, const char *base,
                             int64_t at_us, int64_t none);

/* The process deleted the row; and whether it did so after `born`. */
void memory_deleted(struct memory *memory, const struct row_key *key, struct process process);
bool memory_has_deleted(struct memory *memory, const struct row_key *key, struct process process,
                        uint64_t born);

/* The process moved the row's file away, or has it back. */
void memory_set_away(struct memory *memory, const struct row_key *key, struct process process, bool away);
/* Whether that thread's process moved it away within the last minute; cheap while nobody did so with any row.
 */
bool memory_is_away(struct memory *memory, const struct row_key *key, pid_t tid);
/* Whether any process did: what the kernel is told of the name may not be kept for others then. Cheap, too.
 */
bool memory_is_away_for_somebody(struct memory *memory, const struct row_key *key);
