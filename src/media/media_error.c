#include "media/media_error.h"

#include <errno.h>
#include <stddef.h>

static const struct {
    uint32_t code;
    int err;
    bool retry;
    bool undone; /* nothing was done */
} server_codes[] = {
    {13, EACCES, false, true},     /* Unauthorized */
    {18, EACCES, false, true},     /* AuthenticationFailed */
    {43, EAGAIN, true, false},     /* CursorNotFound */
    {50, ETIMEDOUT, false, false}, /* MaxTimeMSExpired */
    {59, ENOTSUP, false, true},    /* CommandNotFound */
    {91, EIO, true, false},        /* ShutdownInProgress */
    {112, EAGAIN, true, true},     /* WriteConflict */
    {121, EINVAL, false, true},    /* DocumentValidationFailure */
    {189, EIO, true, false},       /* PrimarySteppedDown */
    {238, ENOTSUP, false, true},   /* NotImplemented */
    {10107, EIO, true, true},      /* NotWritablePrimary */
    {10334, EFBIG, false, true},   /* BSONObjectTooLarge */
    {11000, EEXIST, false, true},  /* DuplicateKey */
    {11600, EIO, true, false},     /* InterruptedAtShutdown */
    {11602, EIO, true, false},     /* InterruptedDueToReplStateChange */
    {13435, EIO, true, true},      /* NotPrimaryNoSecondaryOk */
    {14031, ENOSPC, false, true},  /* OutOfDiskSpace */
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

bool media_error_undone(const bson_error_t *error)
{
    if (error->domain == MONGOC_ERROR_SERVER_SELECTION)
        return true;
    for (size_t i = 0;
         error->domain == MONGOC_ERROR_SERVER && i < sizeof(server_codes) / sizeof(*server_codes); i++)
        if (server_codes[i].code == error->code)
            return server_codes[i].undone;
    return false;
}

int media_error_set(struct fail *f, const bson_error_t *error, const char *what)
{
    return fail_set(f, media_error_errno(error), "%s: %s", what, error->message);
}
