#include "base/parallel.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

struct parallel_call {
    void (*work)(void *arg, size_t index);
    void *arg;
    size_t index;
    pthread_t thread;
    bool started;
};

static void *parallel_main(void *p)
{
    struct parallel_call *call = p;
    call->work(call->arg, call->index);
    return NULL;
}

void parallel_run(size_t n, void (*work)(void *arg, size_t index), void *arg)
{
    struct parallel_call *calls = n > 1 ? calloc(n, sizeof *calls) : NULL;
    if (!calls) {
        for (size_t i = 0; i < n; i++)
            work(arg, i);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        calls[i] = (struct parallel_call){.work = work, .arg = arg, .index = i};
        calls[i].started = pthread_create(&calls[i].thread, NULL, parallel_main, &calls[i]) == 0;
    }
    for (size_t i = 0; i < n; i++) {
        if (calls[i].started)
            pthread_join(calls[i].thread, NULL);
        else
            work(arg, i);
    }
    free(calls);
}
