/*
 * Memory for messages and chunks, which come and go by the megabyte: a block that is freed is kept for the
 * next one, RECYCLE_BYTES of blocks in all and the oldest given back first. Fresh memory would cost a page
 * fault each 4 KiB, a third of what reading and writing media take.
 *
 * Blocks are malloc()'s: what is got here may be freed by free(), too. Smaller ones than RECYCLE_LEAST are
 * malloc()'s business alone. Thread-safe.
 */
#pragma once

#include <stddef.h>

enum { RECYCLE_LEAST = 128 << 10, RECYCLE_BYTES = 16 << 20 };

/* NULL when memory is out. */
void *recycle_get(size_t size);
/* Takes NULL. */
void recycle_put(void *block);

/* Has the driver do likewise; before anything else of its is called. */
void recycle_for_driver(void);
