/* random.c - random bytes from the kernel, or from a seed */
#include "shared/random.h"

#include <errno.h>
#include <sys/random.h>

/* One system call serves about sixteen UUIDs. A byte is wiped when it is handed out, so that a
 * later look at our memory does not tell which keys we made. */
#define AHEAD_BYTES 256

static void read_kernel(unsigned char *to, size_t count)
{
    while (count > 0) {
        ssize_t n = getrandom(to, count, 0);

        if (n < 0 && errno != EINTR)
            die("getrandom fails: %s", strerror(errno));
        if (n > 0) {
            to += n;
            count -= (size_t) n;
        }
    }
}

static void real_bytes(_unused_ struct random *random, void *ret_bytes, size_t count)
{
    static _Thread_local struct {
        unsigned char bytes[AHEAD_BYTES];
        size_t left; /* unused, at the end of bytes */
    } ahead;

    if (count > AHEAD_BYTES) {
        read_kernel(ret_bytes, count);
        return;
    }
    if (ahead.left < count) {
        read_kernel(ahead.bytes, AHEAD_BYTES);
        ahead.left = AHEAD_BYTES;
    }
    memcpy(ret_bytes, ahead.bytes + AHEAD_BYTES - ahead.left, count);
    explicit_bzero(ahead.bytes + AHEAD_BYTES - ahead.left, count);
    ahead.left -= count;
}

struct random *random_real(void)
{
    static struct random real = {.bytes = real_bytes};

    return &real;
}

static uint64_t rotate_left(uint64_t x, int by)
{
    return x << by | x >> (64 - by);
}

/* xoshiro256** of Blackman and Vigna. */
static uint64_t seeded_next(uint64_t state[4])
{
    uint64_t result = rotate_left(state[1] * 5, 7) * 9;
    uint64_t shifted = state[1] << 17;

    state[2] ^= state[0];
    state[3] ^= state[1];
    state[1] ^= state[2];
    state[0] ^= state[3];
    state[2] ^= shifted;
    state[3] = rotate_left(state[3], 45);
    return result;
}

static void seeded_bytes(struct random *random, void *ret_bytes, size_t count)
{
    struct seeded_random *seeded = CONTAINER_OF(random, struct seeded_random, random);
    unsigned char *to = ret_bytes;

    while (count > 0) {
        uint64_t next = seeded_next(seeded->state);
        size_t n = MIN(count, sizeof(next));

        memcpy(to, &next, n);
        to += n;
        count -= n;
    }
}

/* splitmix64 spreads the seed, so that the seeds 1, 2, 3 give unlike streams. */
void seeded_random_init(struct seeded_random *seeded, uint64_t seed)
{
    seeded->random.bytes = seeded_bytes;
    for (size_t i = 0; i < ARRAY_SIZE(seeded->state); i++) {
        uint64_t z = seed += 0x9e3779b97f4a7c15;

        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
        z = (z ^ z >> 27) * 0x94d049bb133111eb;
        seeded->state[i] = z ^ z >> 31;
    }
}

uint64_t random_u64(struct random *random)
{
    uint64_t x;

    random->bytes(random, &x, sizeof(x));
    return x;
}

uint64_t random_below(struct random *random, uint64_t limit)
{
    uint64_t uneven, x;

    assert(limit > 0);
    /* 2^64 modulo limit: so many values, at the end of the range, would come too often. */
    uneven = (UINT64_MAX % limit + 1) % limit;
    do
        x = random_u64(random);
    while (x > UINT64_MAX - uneven);
    return x % limit;
}
