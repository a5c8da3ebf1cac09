/* wall_clock.c - a wall clock that a test sets, for one process and not for the machine
 *
 *     LD_PRELOAD=libtest_preload.so DROVER_TEST_CLOCK=FILE drover-master ...
 *
 * FILE holds one number, 8 bytes as the machine has them: the seconds by which the process's wall clock is ahead. Whoever writes
 * another number there has the clock jump in the middle of whatever the process does. Only CLOCK_REALTIME is touched, which is
 * all that an administrator's `date` or a time server's step changes either; the clocks that decide go on. */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *ahead_s;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("DROVER_TEST_CLOCK");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *map = fd >= 0 ? mmap(NULL, sizeof *ahead_s, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;

    if (path && map == MAP_FAILED)
        abort(); /* a test that tests nothing */
    if (fd >= 0)
        close(fd);
    if (map != MAP_FAILED)
        ahead_s = map;
}

int clock_gettime(clockid_t clock, struct timespec *ret)
{
    int r = (int) syscall(SYS_clock_gettime, clock, ret);

    if (r == 0 && ahead_s && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        ret->tv_sec += *ahead_s;
    return r;
}

int gettimeofday(struct timeval *restrict ret, void *restrict zone)
{
    struct timespec now;

    (void) zone;
    clock_gettime(CLOCK_REALTIME, &now);
    *ret = (struct timeval){now.tv_sec, now.tv_nsec / 1000};
    return 0;
}

time_t time(time_t *ret)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    if (ret)
        *ret = now.tv_sec;
    return now.tv_sec;
}
