/*
 * MongoDB's side of `campusfs init` and `campusfs health`: collections, validators and indexes as
 * the files of sql/mongo describe them, and a probe of the server. Both open a connection of their own and
 * need no pool.
 *
 * Thread-safe. What they report never holds the URI's credentials.
 */
#pragma once

#include <jansson.h>

#include "base/buf.h"
#include "base/config.h"
#include "base/fail.h"
#include "base/op.h"

/*
 * Brings the database that config->mongodb_uri names to the current schema: creates what is missing, replaces
 * validators and indexes that differ, drops nothing else. One set of GridFS collections is made for each
 * region (media_<region>). Can be run again; `changes` gets one line, ending in a newline, for each thing
 * changed. A server without validators (codes 59 and 238) gets the collections all the same.
 *
 * Returns 0, also when no URI is configured; -EIO when no server answers in time, -EACCES when it refuses the
 * credentials, -EINVAL for a URI that is none, and what media_error_set() makes of the server's other codes.
 */
int media_init(const struct config *config, const struct op *op, struct buf *changes, struct fail *f);

/*
 * Asks the server what it can do, and for a real read. *out is a new object of the caller's:
 *   {"reachable": bool, "server": "MongoDB" | "SecantusDB" | ..., "version": string, "uri": string without
 *    credentials and options, "latency_ms": number, "capabilities": capabilities_json(), "error": string or
 * null} where what the server says and latency_ms (of the read) are null unless reachable. Returns 0 whatever
 * the server's state, -ENOMEM.
 */
int media_ping(const char *uri, const struct op *op, json_t **out);
