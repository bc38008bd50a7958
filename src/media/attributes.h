/* Attributes of published files of media: they change in place, the revision stays. */
#pragma once

#include <sys/types.h>

#include "media/mongo.h"
#include "media/revision.h"

struct media_attributes {
    bool set_mtime, set_mode, set_uid, set_gid;
    int64_t mtime_ns;
    mode_t mode;
    uid_t uid;
    gid_t gid;
};

/*
 * Sets them in the file's document; *out is the revision as it is then, a reference of the caller's. -ESTALE
 * when the document is gone; other errors are those of media_error_set().
 */
int media_set_attributes(struct mongo *mongo, const char *region, const struct media_revision *revision,
                         const struct media_attributes *attributes, const struct op *op,
                         struct media_revision **out, struct fail *f);
