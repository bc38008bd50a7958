/*
 * Cleanup by attribute: a local variable that owns something is declared with CLEANUP(destructor) and given
 * away with STEAL() on success. Destructors take NULL and preserve errno.
 */
#pragma once

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define CLEANUP(fn) __attribute__((cleanup(fn)))

/* Yields the pointer and leaves NULL behind, so that the cleanup has nothing to free. */
#define STEAL(p) steal_pointer(&(p))

static inline void *steal_pointer(void *p)
{
    void **place = p, *value = *place;
    *place = NULL;
    return value;
}

/* Defines the cleanup helper NAMEp() for a destructor NAME(TYPE *). */
#define DEFINE_CLEANUP(type, name)                                                                           \
    static inline void name##p(type **p)                                                                     \
    {                                                                                                        \
        int saved = errno;                                                                                   \
        name(*p);                                                                                            \
        errno = saved;                                                                                       \
    }

static inline void freep(void *p)
{
    int saved = errno;
    free(*(void **)p);
    errno = saved;
}

static inline void closep(int *fd)
{
    int saved = errno;
    if (*fd >= 0)
        close(*fd);
    errno = saved;
}
