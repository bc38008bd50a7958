#include "media/media_error.h"

#include <errno.h>
#include <stddef.h>

static const struct {
    uint32_t code;
    int err;
    bool retry;
} server_codes[] = {
    {13, EACCES, false},    /* Unauthorized */
    {18, EACCES, false},    /* AuthenticationFailed */
    {43, EAGAIN, true},     /* CursorNotFound */
    {50, ETIMEDOUT, false}, /* MaxTimeMSExpired */
    {59, ENOTSUP, false},   /* CommandNotFound */
    {91, EIO, true},        /* ShutdownInProgress */
    {112, EAGAIN, true},    /* WriteConflict */
    {121, EINVAL, false},   /* DocumentValidationFailure */
    {189, EIO, true},       /* PrimarySteppedDown */
    {238, ENOTSUP, false},  /* NotImplemented */
    {10107, EIO, true},     /* NotWritablePrimary */
    {10334, EFBIG, false},  /* BSONObjectTooLarge */
    {11000, EEXIST, false}, /* DuplicateKey */
    {11600, EIO, true},     /* InterruptedAtShutdown */
    {11602, EIO, true},     /* InterruptedDueToReplStateChange */
    {13435, EIO, true},     /* NotPrimaryNoSecondaryOk */
    {14031, ENOSPC, false}, /* OutOfDiskSpace */
};

/* Codes of a server come under these domains; all others are the driver's own numbers. */
static bool from_server(const bson_error_t *error)
{
    return error->domain == MONGOC_ERROR_SERVER || error->domain == MONGOC_ERROR_WRITE_CONCERN;
}

int media_error_errno(const bson_error_t *error)
{
    if (from_server(error)) {
        for (size_t i = 0; i < sizeof(server_codes) / sizeof(*server_codes); i++)
            if (server_codes[i].code == error->code)
                return server_codes[i].err;
        return EIO;
    }
    if (error->domain == MONGOC_ERROR_CLIENT && error->code == MONGOC_ERROR_CLIENT_AUTHENTICATE)
        return EACCES;
    if (error->domain == MONGOC_ERROR_BSON)
        return error->code == MONGOC_ERROR_BSON_INVALID ? EFBIG : EINVAL;
    return EIO;
}

bool media_error_retry(const bson_error_t *error)
{
    if (!from_server(error))
        return error->domain == MONGOC_ERROR_SERVER_SELECTION || error->domain == MONGOC_ERROR_STREAM;
    for (size_t i = 0; i < sizeof(server_codes) / sizeof(*server_codes); i++)
        if (server_codes[i].code == error->code)
            return server_codes[i].retry;
    return false;
}

int media_error_set(struct fail *f, const bson_error_t *error, const char *what)
{
    return fail_set(f, media_error_errno(error), "%s: %s", what, error->message);
}
