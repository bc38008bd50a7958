/*
 * The name of a value's folder in .by, and back. A name is the value itself, but that
 *   "/" is %2F, "%" is %25, a "." at the beginning is %2E, and the empty text is "%".
 * Nothing else is written so, and each value has one name only. Pure.
 */
#pragma once

#include <stdbool.h>

#include "tree/name.h"

/* False when the name would be longer than NAME_MAX_BYTES: the value then has none. */
bool by_name_encode(const char *value, char name[NAME_MAX_BYTES + 1]);
/* False for a name that no value has, or one that is not UTF-8. */
bool by_name_decode(const char *name, char value[NAME_MAX_BYTES + 1]);
