/* What the driver's and the server's error codes mean to the caller, in one place. */
#pragma once

#include <mongoc/mongoc.h>

#include "base/fail.h"

/*
 * The errno, positive, of an error under error API 2; EIO for what is not known. Driver: no server or a
 * broken connection EIO, refused credentials EACCES, a document that is too large EFBIG. Server: 13, 18
 * EACCES · 50 ETIMEDOUT · 59, 238 ENOTSUP · 121 EINVAL · 11000 EEXIST · 10334 EFBIG · 14031 ENOSPC · 43, 112
 * EAGAIN, and the rest EIO.
 */
int media_error_errno(const bson_error_t *error);

/* Whether the server says that it has done nothing. Without this what was asked for may be done all the same,
 * or be done yet: the answer was lost, or tells only that others have not confirmed it in time. */
bool media_error_undone(const bson_error_t *error);

/* Whether it is a transient state of the cluster (election, shutdown, network), worth another try in time. */
bool media_error_retry(const bson_error_t *error);

/* Fills *f with "what: the driver's words" and returns -errno. */
int media_error_set(struct fail *f, const bson_error_t *error, const char *what);
