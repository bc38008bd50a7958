#include "media/content_type.h"

#include <magic.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

/* A magic_t is nobody's but the one's who uses it; what is loaded takes memory and time, so there is one. */
static struct {
    pthread_once_t once;
    pthread_mutex_t lock;
    magic_t magic; /* NULL = there is no database; used under the lock */
} model = {.once = PTHREAD_ONCE_INIT, .lock = PTHREAD_MUTEX_INITIALIZER};

static void load(void)
{
    /* Of a compressed file that is what it is; and an ELF file's sections are of no interest. */
    magic_t magic = magic_open(MAGIC_MIME_TYPE | MAGIC_NO_CHECK_COMPRESS | MAGIC_NO_CHECK_ELF);
    if (magic && magic_load(magic, NULL) == 0) {
        model.magic = magic;
        return;
    }
    log_warning("media are stored without their content types: %s",
                magic ? magic_error(magic) : "libmagic cannot be used");
    if (magic)
        magic_close(magic);
}

bool content_type_of(const void *data, size_t len, char out[CONTENT_TYPE_MAX + 1])
{
    bool known = false;
    if (len == 0)
        return false;
    pthread_once(&model.once, load);
    if (!model.magic)
        return false;
    pthread_mutex_lock(&model.lock);
    const char *type = magic_buffer(model.magic, data, len < CONTENT_TYPE_BYTES ? len : CONTENT_TYPE_BYTES);
    if (type && strlen(type) <= CONTENT_TYPE_MAX && strchr(type, '/')) {
        snprintf(out, CONTENT_TYPE_MAX + 1, "%s", type);
        known = true;
    }
    pthread_mutex_unlock(&model.lock);
    return known;
}
