/*
 * A logical replication connection: pgoutput of one publication through a temporary slot, which lasts as long
 * as the connection, so that a client that is gone holds no WAL. As in conn.h every wait is a poll() of ours.
 *
 * replication_open(), replication_create_slot(), replication_start(); then poll() for
 * replication_events() on replication_socket() and replication_read() until it has nothing more. After a
 * failure it can only be closed. Not thread-safe: one user at a time.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/fail.h"
#include "base/op.h"
#include "postgres/conn.h"
#include "postgres/pgoutput.h"

struct replication;

/*
 * Connects, as target.replication says, and asks what the server is. -EIO, -EACCES, -EINTR as conn_open();
 * -EROFS for a standby; -EPERM when the server would take this connection for one of its synchronous standbys
 * (`synchronous_standby_names` has "*" or the name of the connection): it would then report commits as safe
 * that no standby has.
 */
int replication_open(const struct conn_target *target, const struct op *op, struct replication **out,
                     struct fail *f);
/* Closes at once, never waits. Takes NULL. */
void replication_close(struct replication *replication);

/* The timeline that the server writes, and whose data it has (pg_control_system()). */
uint32_t replication_timeline(const struct replication *replication);
uint64_t replication_system(const struct replication *replication);

/*
 * Makes the slot, under a name that nobody has. The server waits for all transactions that are open and have
 * written: the operation bounds that. *from: what is committed behind it will be in the stream, all before it
 * is visible already. -EIO, -EINTR, or what the SQLSTATE becomes (55P03 when the server's lock_timeout was
 * over first, 55000 without wal_level = logical, 53400 without a free slot).
 */
int replication_create_slot(struct replication *replication, const struct op *op, uint64_t *from,
                            struct fail *f);

/* Begins the stream. */
int replication_start(struct replication *replication, const char *publication, const struct op *op,
                      struct fail *f);

int replication_socket(const struct replication *replication);
/* POLLIN, and POLLOUT while something that was to be sent is not. */
short replication_events(const struct replication *replication);

/* The next message, borrowed until the next call: 1; 0 when none is there now; -EIO when the stream has
 * ended, -EPROTO when it makes no sense. Also sends what is left to be sent. */
int replication_read(struct replication *replication, struct pgoutput_frame *frame, struct fail *f);

/* Tells the server that all up to there is dealt with, so that it keeps no WAL for it; `reply`: it shall
 * answer with a keepalive at once. Does not wait. -EIO. */
int replication_confirm(struct replication *replication, uint64_t lsn, bool reply, struct fail *f);
