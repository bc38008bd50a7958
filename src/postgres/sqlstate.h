/* What an SQLSTATE means here: the one place where a database error becomes an errno. */
#pragma once

#include <stdbool.h>

#include "base/fail.h"

/*
 * The errno (positive). CF001 ENOLINK, CF002 EBUSY, CF003 ECANCELED, CF005 EPERM, CF006 ENOKEY (internal: the
 * id must be claimed first), CF007 EXDEV; 40001 and 40P01 EAGAIN; 25006 EROFS; unknown ones EIO.
 */
int sqlstate_errno(const char *state);

/* Errors that say nothing about the statement: another node, or the same one later, may answer it. */
bool sqlstate_is_transient(const char *state);
