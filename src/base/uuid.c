#include "base/uuid.h"

#include <errno.h>
#include <stdio.h>
#include <sys/random.h>
#include <unistd.h>

int uuid_new(char out[UUID_TEXT])
{
    unsigned char b[16];
    if (getrandom(b, sizeof b, 0) != (ssize_t)sizeof b)
        return -EIO;
    b[6] = (unsigned char)((b[6] & 0x0f) | 0x40);
    b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
    snprintf(out, UUID_TEXT, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0],
             b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
    return 0;
}

int uuid_owner(char out[UUID_OWNER])
{
    char host[65] = "", unique[UUID_TEXT];
    int r = uuid_new(unique);
    if (r < 0)
        return r;
    gethostname(host, sizeof host - 1);
    snprintf(out, UUID_OWNER, "%s:%ld:%s", host, (long)getpid(), unique);
    return 0;
}
