/* transfer_rate.c - how fast all transfers of a host together may be */
#include "slave/transfer_rate.h"

#include <errno.h>
#include <pthread.h>
#include <time.h>

#define NS_PER_S      1000000000LL
#define BURST_PER_S   4                /* the bucket holds a fourth of a second's bytes */
#define LOOK_NS       (NS_PER_S / 5)   /* between looks whether it is still wanted */

/* A turn is a sixteenth of a second's bytes: small enough that nobody waits long for the others' turns, and large enough that
 * threads seldom wake. */
#define TURNS_PER_S    16
#define TURN_BYTES_MAX ((int64_t) 256 * 1024)

struct transfer_rate {
    pthread_mutex_t lock;
    int64_t bytes_per_s;
    size_t turn_bytes;
    int64_t free_at_ns; /* when all that was taken so far will have been paid for, CLOCK_MONOTONIC */
};

struct transfer_rate *transfer_rate_new(int64_t bytes_per_s)
{
    struct transfer_rate *rate;

    if (bytes_per_s <= 0)
        return NULL;
    rate = new0(struct transfer_rate);
    pthread_mutex_init(&rate->lock, NULL);
    rate->bytes_per_s = bytes_per_s;
    rate->turn_bytes = (size_t) MAX(MIN(bytes_per_s / TURNS_PER_S, TURN_BYTES_MAX), (int64_t) 1);
    return rate;
}

void transfer_rate_destroy(struct transfer_rate **rate_p)
{
    struct transfer_rate *rate = TAKE(*rate_p);

    if (!rate)
        return;
    pthread_mutex_destroy(&rate->lock);
    free(rate);
}

static int64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * NS_PER_S + now.tv_nsec;
}

size_t transfer_rate_piece(const struct transfer_rate *rate)
{
    return rate ? (size_t) MAX(rate->bytes_per_s / BURST_PER_S, (int64_t) 1) : SIZE_MAX;
}

static int64_t cost_ns(const struct transfer_rate *rate, size_t bytes)
{
    return (int64_t) ((double) bytes * NS_PER_S / (double) rate->bytes_per_s);
}

/* Takes the bytes, on credit; returns how long to wait before they may pass. */
static int64_t take(struct transfer_rate *rate, size_t bytes)
{
    int64_t now = now_ns(), wait;

    pthread_mutex_lock(&rate->lock);
    rate->free_at_ns = MAX(rate->free_at_ns, now - NS_PER_S / BURST_PER_S);
    rate->free_at_ns += cost_ns(rate, bytes);
    wait = rate->free_at_ns - now;
    pthread_mutex_unlock(&rate->lock);
    return wait;
}

/* What was taken and will not pass, with so much of the wait left: nobody else is to pay for it. */
static void give_back(struct transfer_rate *rate, size_t bytes, int64_t wait)
{
    pthread_mutex_lock(&rate->lock);
    rate->free_at_ns -= MIN(wait, cost_ns(rate, bytes));
    pthread_mutex_unlock(&rate->lock);
}

static int take_turn(struct transfer_rate *rate, const _Atomic bool *is_cancelled)
{
    int64_t wait = take(rate, rate->turn_bytes);

    while (wait > 0) {
        int64_t slice = MIN(wait, LOOK_NS);
        struct timespec pause = {.tv_sec = slice / NS_PER_S, .tv_nsec = slice % NS_PER_S};

        if (atomic_load(is_cancelled)) {
            give_back(rate, rate->turn_bytes, wait);
            return -ECANCELED;
        }
        clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
        wait -= slice;
    }
    return 0;
}

int transfer_rate_wait(struct transfer_rate *rate, size_t *owed, size_t bytes, const _Atomic bool *is_cancelled)
{
    int r = 0;

    if (!rate)
        return 0;
    *owed += bytes;
    while (r == 0 && *owed >= rate->turn_bytes) {
        *owed -= rate->turn_bytes;
        r = take_turn(rate, is_cancelled);
    }
    return r;
}
