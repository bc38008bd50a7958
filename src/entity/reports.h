/*
 * Reports over all shards (sql/code/65_reports.sql): each shard is asked for its part, all at once and with a
 * deadline, and one of those that answered merges the parts. A shard that did not answer is named in the
 * report, which says that it is partial.
 *
 *   {"report": NAME, "generated_at": TIME, "partial": false,
 *    "shards": [{"name": "emea", "answered": true, "error": null}, ...], "data": ...}
 */
#pragma once

#include <stddef.h>

#include "base/buf.h"
#include "base/fail.h"
#include "base/op.h"
#include "shard/cluster.h"

/* The names of the REPORTS there are, in the order of a listing; NULL behind the last. */
const char *report_name_at(size_t index);

/*
 * Appends a report as a canonical document. -EIO when no shard answered, -EAGAIN when REPORTS_MAX are under
 * way, -EFBIG beyond REPORT_BYTES.
 */
enum { REPORTS = 5, REPORTS_MAX = 4, REPORT_BYTES = 8 * 1024 * 1024 };
int report_render(struct cluster *cluster, size_t index, const struct op *op, struct buf *out,
                  struct fail *f);
