/* workers.c - threads for what blocks
 *
 *   fiber -- job --> queue --> thread: fn(arg) -- completion --> the loop's mailbox --> fiber
 *
 * Threads are started when there is a job and none of them is idle, so many may be allowed where few are usual.
 *
 * The job lies on the waiting fiber's stack. That is safe because the wait has neither deadline nor
 * cancel, and because a frozen fiber keeps its stack until loop_destroy. */
#include "shared/workers.h"

#include <pthread.h>

#include "shared/fiber.h"

struct job {
    struct job *next;
    void (*fn)(void *arg);
    void *arg;
    struct completion *done;
};

struct workers {
    unsigned threads; /* at most */
    char name[16];

    pthread_mutex_t lock; /* guards the rest */
    pthread_cond_t more;  /* a job, or the end */
    struct job *first, *last;
    size_t queued;
    pthread_t *ids;
    unsigned started, idle; /* threads */
    bool is_ending;
};

/* The next job, or NULL when there will be none. */
static struct job *job_take(struct workers *workers)
{
    struct job *job;

    pthread_mutex_lock(&workers->lock);
    workers->idle++;
    while (!workers->first && !workers->is_ending)
        pthread_cond_wait(&workers->more, &workers->lock);
    workers->idle--;
    job = workers->first;
    if (job) {
        workers->first = job->next;
        if (!workers->first)
            workers->last = NULL;
        workers->queued--;
    }
    pthread_mutex_unlock(&workers->lock);
    return job;
}

static void *work(void *arg)
{
    struct workers *workers = arg;
    struct job *job;

    while ((job = job_take(workers))) {
        job->fn(job->arg);
        completion_post(job->done, 0); /* from here on the job may be gone */
    }
    return NULL;
}

struct workers *workers_new(unsigned threads, const char *name)
{
    struct workers *workers = new0(struct workers);

    memcpy(workers->name, name, strnlen(name, sizeof workers->name - 1));
    workers->threads = threads;
    workers->ids = new0_array(pthread_t, threads);
    pthread_mutex_init(&workers->lock, NULL);
    pthread_cond_init(&workers->more, NULL);
    return workers;
}

/* With the lock. One more, when jobs wait for which there is none. If it cannot be had they wait for those that are there. */
static void start_thread(struct workers *workers)
{
    pthread_t *id = &workers->ids[workers->started];
    int r;

    if (workers->queued <= workers->idle || workers->started == workers->threads)
        return;
    r = pthread_create(id, NULL, work, workers);
    if (r != 0 && workers->started == 0)
        die("cannot start a worker thread: %s", strerror(r));
    if (r != 0)
        return;
    pthread_setname_np(*id, workers->name);
    workers->started++;
}

void workers_destroy(struct workers **workers_p)
{
    struct workers *workers = TAKE(*workers_p);

    if (!workers)
        return;
    pthread_mutex_lock(&workers->lock);
    workers->is_ending = true;
    pthread_cond_broadcast(&workers->more);
    pthread_mutex_unlock(&workers->lock);
    for (unsigned i = 0; i < workers->started; i++)
        pthread_join(workers->ids[i], NULL);
    assert(!workers->first);
    pthread_cond_destroy(&workers->more);
    pthread_mutex_destroy(&workers->lock);
    free(workers->ids);
    free(workers);
}

static void job_queue(struct workers *workers, struct job *job)
{
    pthread_mutex_lock(&workers->lock);
    if (workers->last)
        workers->last->next = job;
    else
        workers->first = job;
    workers->last = job;
    workers->queued++;
    pthread_cond_signal(&workers->more);
    start_thread(workers);
    pthread_mutex_unlock(&workers->lock);
}

void workers_run(struct workers *workers, void (*fn)(void *arg), void *arg)
{
    struct job job = {.fn = fn, .arg = arg};
    _cleanup_(completion_drop) struct completion *done = NULL;
    int r;

    if (workers->threads == 0) {
        fiber_on_loop_stack(fn, arg);
        return;
    }
    assert(fiber_self());
    job.done = done = completion_new(fiber_loop(fiber_self()));
    job_queue(workers, &job);
    fiber_uncancellable_begin();
    r = completion_wait(done, 0, NULL);
    fiber_uncancellable_end();
    assert(r == 0);
}

unsigned workers_threads(const struct workers *workers)
{
    return workers->threads;
}

size_t workers_queued(struct workers *workers)
{
    size_t queued;

    pthread_mutex_lock(&workers->lock);
    queued = workers->queued;
    pthread_mutex_unlock(&workers->lock);
    return queued;
}
