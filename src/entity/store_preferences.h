/*
 * The collection `preferences`: one document for each user of a region, under the user's id, in MongoDB. Who
 * has a file is decided by the shard's users; what is in it by MongoDB, or by the defaults.
 *
 * MongoDB tells nobody what changes, so what was read is believed for half of cache_ttl here, and for the
 * other half by the kernel; own saves are seen at once. The functions are those of store.h for this
 * collection, with its contract; here a lock guards memory only, too.
 */
#pragma once

#include "entity/store.h"

/* Documents that have been read; NULL when memory is out. */
struct known_preferences;
struct known_preferences *known_preferences_new(void);
void known_preferences_free(struct known_preferences *known);

bool store_is_preferences(unsigned collection);

int preferences_stat(struct store *store, const struct row_key *key, const struct op *op,
                     struct revision *revision, struct fail *f);
int preferences_get(struct store *store, const struct row_key *key, const struct op *op,
                    struct document **out, struct fail *f);
bool preferences_peek(struct store *store, const struct row_key *key, struct revision *revision);
int preferences_page(struct store *store, unsigned region, int64_t after, size_t limit, const struct op *op,
                     struct page **out, struct fail *f);
int preferences_changed_us(struct store *store, unsigned region, const struct op *op, int64_t *us,
                           struct fail *f);
int preferences_put_row(struct store *store, const struct put *put, const struct op *op,
                        struct put_result *result, struct fail *f);
/* Back to the defaults. */
int preferences_delete(struct store *store, const struct row_key *key, const struct op *op, struct fail *f);

/* A user was deleted, or is there again: theirs goes in a day, or stays. Never waits; without MongoDB
 * nothing. */
void preferences_user_deleted(struct store *store, const struct row_key *user, bool deleted);
