/* Preferences in MongoDB whose users no shard has any more (entity/preferences_sweep.h). */
#include <inttypes.h>

#include "command/check.h"
#include "entity/preferences_sweep.h"
#include "media/preferences_doc.h"

enum { STEP_MS = 60000 };

static int judge(void *arg, struct preferences_owner *owners, size_t n, struct fail *f)
{
    struct check *check = arg;
    int r = preferences_judge(check->cluster, check->config->timeout_ms, owners, n, f);
    for (size_t i = 0; r == 0 && i < n; i++) {
        if (owners[i].fate == PREFERENCES_GOES)
            check_found(check, NULL, check->repair,
                        "preferences of user %" PRId64 ", who was deleted or erased", owners[i].user_id);
        if (owners[i].fate == PREFERENCES_GOES_LATER && !owners[i].marked)
            check_found(check, NULL, check->repair,
                        "preferences of user %" PRId64 ", whom no shard knows: removed a day after --repair",
                        owners[i].user_id);
    }
    check_saw(check, n);
    return r;
}

int check_preferences(struct check *check, struct fail *f)
{
    CLEANUP(mongo_closep) struct mongo *mongo = NULL;
    const struct config *config = check->config;
    struct preferences_walk walk = {.write = check->repair, .step_ms = STEP_MS, .judge = judge, .arg = check};
    int r = *config->mongodb_uri ? preferences_doc_prepare(f) : 0;
    if (r == 0 && *config->mongodb_uri)
        r = mongo_open(config->mongodb_uri, 2, 0, &mongo, f);
    return r == 0 && mongo ? preferences_walk(mongo, NULL, 0, &walk, f) : r;
}
