/*
 * What the server can do, asked and never assumed. Everything works without any of it; with it some things
 * are sooner or checked twice.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "media/mongo_client.h"

struct capabilities {
    int32_t wire;        /* maxWireVersion: 9 is MongoDB 4.4, 21 is 7.0 */
    bool transactions;   /* over several documents: a replica set or mongos that keeps sessions */
    bool change_streams; /* one could be opened */
    bool validators;     /* the collection preferences has one, which `campusfs init` gives it */
    char server[32];     /* "MongoDB", "SecantusDB", "FerretDB" */
    char version[32];    /* its own, "" = it does not say */
};

/* Asks: hello, buildInfo, listCollections, and a change stream that is closed at once. False with *error. */
bool capabilities_ask(mongoc_client_t *client, const char *database, struct capabilities *out,
                      bson_error_t *error);

/* {"wire": number, "transactions": bool, "change_streams": bool, "validators": bool}, the caller's; NULL when
 * memory is out. */
json_t *capabilities_json(const struct capabilities *capabilities);
