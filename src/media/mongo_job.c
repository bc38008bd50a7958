#include "media/mongo_job.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

struct mongo_jobs {
    struct mongo *mongo;    /* borrowed */
    pthread_t *threads;     /* room for max */
    unsigned max;           /* threads at most */
    pthread_mutex_t lock;   /* guards all below, and the pool's part of jobs */
    pthread_cond_t queued;  /* a job, or the end */
    pthread_cond_t settled; /* some job is done */
    struct mongo_job *first, **end;
    unsigned started, idle; /* threads */
    bool closing;           /* atomic */
    struct mongo_counters counters;
};

struct mongo_jobs *mongo_jobs_new(struct mongo *mongo, unsigned threads)
{
    struct mongo_jobs *jobs = calloc(1, sizeof *jobs);
    if (!jobs)
        return NULL;
    *jobs = (struct mongo_jobs){.mongo = mongo, .max = threads, .counters = {.size = threads}};
    jobs->threads = calloc(threads, sizeof *jobs->threads);
    if (!jobs->threads) {
        free(jobs);
        return NULL;
    }
    jobs->end = &jobs->first;
    pthread_mutex_init(&jobs->lock, NULL);
    pthread_cond_init(&jobs->queued, NULL);
    pthread_cond_init(&jobs->settled, NULL);
    return jobs;
}

void mongo_job_unref(struct mongo_job *job)
{
    if (job && __atomic_sub_fetch(&job->references, 1, __ATOMIC_ACQ_REL) == 0)
        job->release(job);
}

/* Under the lock: the first job of the queue, NULL when it is empty. */
static struct mongo_job *take_first(struct mongo_jobs *jobs)
{
    struct mongo_job *job = jobs->first;
    if (!job)
        return NULL;
    jobs->first = job->next;
    if (!jobs->first)
        jobs->end = &jobs->first;
    job->next = NULL;
    jobs->counters.waiting--;
    return job;
}

/* Under the lock: takes a job that nobody has begun out of the queue. */
static void take_out(struct mongo_jobs *jobs, const struct mongo_job *job)
{
    struct mongo_job **link = &jobs->first;
    while (*link != job)
        link = &(*link)->next;
    *link = job->next;
    if (!*link)
        jobs->end = link;
    jobs->counters.waiting--;
}

/* Under the lock, which it lets go while the job is done. */
static void do_one(struct mongo_jobs *jobs, struct mongo_job *job)
{
    int64_t begun = clock_now_ms();
    job->taken = true;
    jobs->counters.busy++;
    jobs->counters.jobs++;
    pthread_mutex_unlock(&jobs->lock);
    int r = job->run(job, jobs->mongo, &job->op, &job->fail);
    pthread_mutex_lock(&jobs->lock);
    job->result = r;
    job->done = true;
    jobs->counters.busy--;
    jobs->counters.failed += r < 0;
    jobs->counters.took_ms += (uint64_t)(clock_now_ms() - begun);
    pthread_cond_broadcast(&jobs->settled);
}

static void *work(void *arg)
{
    struct mongo_jobs *jobs = arg;
    pthread_mutex_lock(&jobs->lock);
    while (!jobs->closing) {
        struct mongo_job *job = take_first(jobs);
        if (job) {
            do_one(jobs, job);
            pthread_mutex_unlock(&jobs->lock);
            mongo_job_unref(job);
            pthread_mutex_lock(&jobs->lock);
            continue;
        }
        jobs->idle++;
        pthread_cond_wait(&jobs->queued, &jobs->lock);
        jobs->idle--;
    }
    pthread_mutex_unlock(&jobs->lock);
    return NULL;
}

/* At the end of the mount no job tries again. */
static bool is_closing(void *arg)
{
    return __atomic_load_n(&((struct mongo_jobs *)arg)->closing, __ATOMIC_RELAXED);
}

/* Under the lock: the job waits for a thread, of which one more is started where none is free. */
static int queue(struct mongo_jobs *jobs, struct mongo_job *job, const struct op *op)
{
    if (jobs->counters.waiting >= MONGO_WAITERS)
        return -EIO;
    if (jobs->idle <= jobs->counters.waiting && jobs->started < jobs->max &&
        pthread_create(&jobs->threads[jobs->started], NULL, work, jobs) == 0)
        jobs->started++;
    if (jobs->started == 0)
        return -EIO;
    job->op = (struct op){.deadline = op->deadline, .interrupted = is_closing, .arg = jobs};
    job->next = NULL;
    *jobs->end = job;
    jobs->end = &job->next;
    jobs->counters.waiting++;
    pthread_cond_signal(&jobs->queued);
    return 0;
}

/* Under the lock: waits for the job's end. */
static int wait_for(struct mongo_jobs *jobs, const struct mongo_job *job, const struct op *op)
{
    int r = 0;
    while (r == 0 && !job->done)
        r = op_wait(&jobs->settled, &jobs->lock, op);
    return r;
}

int mongo_do(struct mongo *mongo, struct mongo_job *job, const struct op *op, struct fail *f)
{
    struct mongo_jobs *jobs = mongo_jobs_of(mongo);
    job->references = 2;
    pthread_mutex_lock(&jobs->lock);
    if (queue(jobs, job, op) < 0) {
        pthread_mutex_unlock(&jobs->lock);
        job->references = 1;
        return fail_set(f, EIO, "MongoDB is slow: %d operations wait for it already", MONGO_WAITERS);
    }
    int r = wait_for(jobs, job, op);
    bool begun = job->taken;
    if (r < 0 && !begun)
        take_out(jobs, job);
    jobs->counters.given_up += r < 0;
    pthread_mutex_unlock(&jobs->lock);
    if (r < 0 && !begun)
        mongo_job_unref(job); /* the pool's */
    if (r == -EIO)
        return fail_set(f, EIO, "MongoDB did not answer in time");
    if (r < 0)
        return r;
    if (job->result < 0 && f && f->err == 0)
        *f = job->fail;
    return job->result;
}

int mongo_do_later(struct mongo *mongo, struct mongo_job *job, const struct op *op)
{
    struct mongo_jobs *jobs = mongo_jobs_of(mongo);
    job->references = 1;
    pthread_mutex_lock(&jobs->lock);
    int r = queue(jobs, job, op);
    pthread_mutex_unlock(&jobs->lock);
    if (r < 0)
        mongo_job_unref(job);
    return r;
}

void mongo_count(struct mongo *mongo, struct mongo_counters *counters)
{
    struct mongo_jobs *jobs = mongo_jobs_of(mongo);
    pthread_mutex_lock(&jobs->lock);
    *counters = jobs->counters;
    pthread_mutex_unlock(&jobs->lock);
}

void mongo_jobs_free(struct mongo_jobs *jobs)
{
    if (!jobs)
        return;
    pthread_mutex_lock(&jobs->lock);
    __atomic_store_n(&jobs->closing, true, __ATOMIC_RELAXED);
    pthread_cond_broadcast(&jobs->queued);
    pthread_mutex_unlock(&jobs->lock);
    for (unsigned i = 0; i < jobs->started; i++)
        pthread_join(jobs->threads[i], NULL);
    for (struct mongo_job *job; (job = take_first(jobs));)
        mongo_job_unref(job);
    pthread_cond_destroy(&jobs->settled);
    pthread_cond_destroy(&jobs->queued);
    pthread_mutex_destroy(&jobs->lock);
    free(jobs->threads);
    free(jobs);
}
