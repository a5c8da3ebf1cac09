/* load_disk.c - fdatasync: what the disk under the pool's directory allows, alone
 *
 * One page is overwritten and synced, as SQLite does to its write-ahead log once that has its size. First one file: how long
 * a commit has to wait at least. Then as many files at once as the hosts have ledgers: how many syncs a second the disk
 * takes from all of them together. */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include "tests/bench/load.h"

#define PAGE_BYTES 4096
#define FILE_PAGES 256

struct syncer {
    const char *directory;
    unsigned number;
    uint64_t until_ns, count;
    struct histogram *times;      /* or NULL */
    pthread_t thread;
};

static void make_pages(int fd)
{
    char page[PAGE_BYTES] = {1};

    for (int i = 0; i < FILE_PAGES; i++)
        if (pwrite(fd, page, sizeof page, (off_t) i * PAGE_BYTES) != PAGE_BYTES)
            errx(1, "pwrite: %s", strerror(errno));
    if (fsync(fd) < 0)
        errx(1, "fsync: %s", strerror(errno));
}

static void *sync_until(void *arg)
{
    struct syncer *syncer = arg;
    char path[512], page[PAGE_BYTES] = {0};
    int fd;

    snprintf(path, sizeof path, "%s/drover-load-%d-%u", syncer->directory, (int) getpid(), syncer->number);
    fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        errx(1, "%s: %s", path, strerror(errno));
    unlink(path);
    make_pages(fd);
    while (now_ns() < syncer->until_ns) {
        uint64_t begin_ns = now_ns();

        page[0]++;
        if (pwrite(fd, page, sizeof page, (off_t) (syncer->count % FILE_PAGES) * PAGE_BYTES) != PAGE_BYTES
            || fdatasync(fd) < 0)
            errx(1, "fdatasync: %s", strerror(errno));
        if (syncer->times)
            histogram_add(syncer->times, now_ns() - begin_ns);
        syncer->count++;
    }
    close(fd);
    return NULL;
}

static double rate_together(struct load *load)
{
    struct syncer *syncers = new0_array(struct syncer, load->connections);
    uint64_t begin_ns = now_ns(), count = 0;

    for (unsigned i = 0; i < load->connections; i++) {
        syncers[i] = (struct syncer){load->directory, i, begin_ns + (uint64_t) (load->seconds * 1e9)};
        if (pthread_create(&syncers[i].thread, NULL, sync_until, &syncers[i]) != 0)
            errx(1, "pthread_create failed");
    }
    for (unsigned i = 0; i < load->connections; i++) {
        pthread_join(syncers[i].thread, NULL);
        count += syncers[i].count;
    }
    free(syncers);
    return (double) count / ((double) (now_ns() - begin_ns) / 1e9);
}

void load_fdatasync(struct load *load)
{
    struct tally *tally = new0(struct tally);
    struct syncer alone = {load->directory, 0, now_ns() + (uint64_t) (load->seconds * 1e9), 0, &tally->latency};

    watch_begin(&load->watch);
    load->begin_ns = now_ns();
    sync_until(&alone);
    load->end_ns = now_ns();
    watch_end(&load->watch);
    report_begin(load);
    report_tally(load, "", tally);
    report_watch(load);
    report_number(load, "together_rate", rate_together(load));
    report_end(load);
    free(tally);
}
