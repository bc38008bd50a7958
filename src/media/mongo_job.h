/*
 * Work with MongoDB that is done by a thread of the pool, while who wants it waits: the driver's own waits
 * know neither our deadline nor an interrupt. What is given up is done to its end all the same, for nobody;
 * so a job owns all that it uses. For the files of media/ only.
 *
 * A job has two references while it is given to the pool, the pool's and the caller's; its release() frees it
 * with the last. The caller may look into it when mongo_do() returned what the job did (job->done), and never
 * after it was given up.
 */
#pragma once

#include <stdbool.h>

#include "media/mongo.h"

struct mongo_job {
    /* Set by the caller. `op` has the job's deadline; it is interrupted when the pool is closed. */
    int (*run)(struct mongo_job *job, struct mongo *mongo, const struct op *op, struct fail *f);
    void (*release)(struct mongo_job *job);

    /* The pool's. */
    struct mongo_job *next; /* in the queue */
    struct op op;
    struct fail fail;
    int result;
    bool taken;          /* a thread has it */
    bool done;           /* result and fail are there */
    unsigned references; /* atomic */
};

/*
 * Has a job done, which takes the caller's reference: it is given back with mongo_job_unref(). Returns what
 * the job returned, with its fail; -EIO when it was not done within the deadline, or too many wait; -EINTR.
 */
int mongo_do(struct mongo *mongo, struct mongo_job *job, const struct op *op, struct fail *f);
/* The same for nobody who waits, with a deadline of its own; the job is the pool's from here on. -EIO. */
int mongo_do_later(struct mongo *mongo, struct mongo_job *job, const struct op *op);
/* NULL is ignored. */
void mongo_job_unref(struct mongo_job *job);

/* mongo_job.c's part of a pool. */
struct mongo_jobs;
struct mongo_jobs *mongo_jobs_new(struct mongo *mongo, unsigned threads);
/* Ends the threads when they have done what they began; what waits is dropped. Takes NULL. */
void mongo_jobs_free(struct mongo_jobs *jobs);
struct mongo_jobs *mongo_jobs_of(struct mongo *mongo);
