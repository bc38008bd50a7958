/* What the files of names.h share; nobody else includes it. */
#pragma once

#include "media/media_error.h"
#include "media/mongo_client.h"
#include "media/names.h"
#include "media/path.h"

/* One operation on names. */
struct names {
    struct mongo *mongo;
    struct media_index *index; /* NULL while a rename is recovered */
    const char *region;
    const struct op *op;
    struct fail *f;
};

/* The path of a name that is to be; says what is wrong with it. */
int names_path(struct names *n, const struct media_place *place, char path[MEDIA_FILENAME_MAX + 1]);
int names_insert_marker(struct names *n, const char *path, const struct media_marker *marker);
int names_delete_marker(struct names *n, const char *path);
/* Before an entry is taken from a folder: one that has nothing else gets a document. */
int names_keep_folder(struct names *n, uint64_t folder);
/* {field: what lies below a path}. The caller's to destroy. */
bson_t *names_below_filter(const char *field, const char *path);

/* names_folders.c: nothing is under the new name. */
int names_rename_folder(struct names *n, const struct media_place *from, const struct media_place *to,
                        const struct media_info *source, int64_t step_ms);
