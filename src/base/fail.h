/*
 * An error in words. The error law: 0 succeeds, -errno propagates untouched; a function that can say more
 * than an errno also takes a struct fail, fills it once where the error is born, and nobody overwrites it.
 * Libraries never log: the boundary (fuse/, command/) logs a failure once, with its context.
 *
 * The DETAIL of a database error is never copied: it prints whole rows, password hashes included.
 */
#pragma once

#include <stdbool.h>

struct fail {
    int err;          /* errno, positive; 0 = nothing failed */
    char sqlstate[6]; /* "" when no database said it */
    char constraint[64];
    char column[64];    /* the column or field it is about, "" if not known */
    char message[2048]; /* several lines when several nodes have their say */
    char hint[256];
};

/* Fills *f (if not NULL and still empty) and returns -err. */
__attribute__((format(printf, 3, 4))) int fail_set(struct fail *f, int err, const char *format, ...);
