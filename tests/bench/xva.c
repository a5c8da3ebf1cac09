/* xva.c - drover-bench-xva: how fast exports and imports are, beside what they consist of
 *
 *     drover-bench-xva DIR [MIB [FORMAT]]     makes a disk of so many MiB [1024], raw or qcow2 [raw]
 *
 * Each line is a measurement: name, MB/s of the disk's bytes, and what it is a share of. What is
 * compared is measured in turns in the same run and the best of three counts, since other programs
 * use the machine too. Reads come from the page cache if it has room; writes end with a sync. Then
 * memory: what ten transfers at once and a sparse disk of 64 GiB cost beyond an idle process. It
 * measures, it is no test. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include "slave/storage.h"
#include "slave/xva_read.h"
#include "slave/xva_write.h"

#define MIB         ((int64_t) 1048576)
#define CHUNK_BYTES ((size_t) 2 * 1048576)
#define ROUNDS      3
#define TOGETHER    10

static const char *directory, *format = "raw";
static int64_t disk_bytes = 1024 * MIB;

_noreturn_ static void fail(const char *what, int r)
{
    fprintf(stderr, "xva: %s: %s\n", what, strerror(-r));
    exit(1);
}

static double now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double) now.tv_sec + (double) now.tv_nsec / 1e9;
}

static const char *path_of(const char *name)
{
    static char path[4][4096];
    static unsigned next;
    char *it = path[next++ % 4];

    snprintf(it, sizeof path[0], "%s/%s", directory, name);
    return it;
}

static void run(const char *command)
{
    int status = system(command);

    if (status != 0) {
        fprintf(stderr, "xva: %s: status %d\n", command, status);
        exit(1);
    }
}

static struct disk_io *open_disk(const char *name, const char *of_format, bool is_writable)
{
    char text[DISK_IO_TEXT_BYTES];
    struct disk_io *io;
    int r = disk_io_open(&io, &(struct sr_place){.directory = directory}, name, of_format, is_writable, NULL, text);

    if (r < 0)
        fail(text, r);
    return io;
}

static void make_file(const char *name, int64_t bytes)
{
    int fd = open(path_of(name), O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);

    if (fd < 0 || ftruncate(fd, bytes) < 0)
        fail(name, -errno);
    close(fd);
}

/* Half of it can be compressed. */
static void make_disk(void)
{
    char command[10000];
    uint64_t *words = alloc0(CHUNK_BYTES), state = 88172645463325252ULL;
    struct disk_io *io;

    make_file("source.raw", disk_bytes);
    io = open_disk("source.raw", "raw", true);
    for (int64_t at = 0; at < disk_bytes; at += (int64_t) CHUNK_BYTES) {
        for (size_t i = 0; i < CHUNK_BYTES / 8; i++) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            words[i] = i & 256 ? state : (i & 31) * 0x0101010101010101ULL + 1;
        }
        disk_io_write(io, words, (size_t) MIN((int64_t) CHUNK_BYTES, disk_bytes - at), at);
    }
    disk_io_sync(io);
    disk_io_close(&io);
    free(words);
    if (!streq(format, "raw")) {
        snprintf(command, sizeof command, "qemu-img convert -f raw -O %s '%s' '%s'", format,
                 path_of("source.raw"), path_of("source.disk"));
        run(command);
    } else if (rename(path_of("source.raw"), path_of("source.disk")) < 0) {
        fail("rename", -errno);
    }
}

/* ---- what it consists of ---- */

static void read_disk(void)
{
    struct disk_io *io = open_disk("source.disk", format, false);
    char *bytes = alloc0(CHUNK_BYTES);

    for (int64_t at = 0; at < disk_bytes; at += (int64_t) CHUNK_BYTES) {
        int r = disk_io_read(io, bytes, (size_t) MIN((int64_t) CHUNK_BYTES, disk_bytes - at), at);

        if (r < 0)
            fail("read", r);
    }
    free(bytes);
    disk_io_close(&io);
}

/* Out of the page cache, so that it comes from the disk. */
static void forget_disk(void)
{
    int fd = open(path_of("source.disk"), O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fsync(fd) < 0 || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0)
        fail("source.disk", -errno);
    close(fd);
}

static void read_cold(void)
{
    forget_disk();
    read_disk();
}

static void hash_disk(void)
{
    char *bytes = alloc0((size_t) MIB);
    uint64_t sum = 0;

    for (int64_t at = 0; at < disk_bytes; at += MIB) {
        bytes[at / MIB % 4096] ^= 1;
        sum ^= XXH64(bytes, (size_t) MIB, 0);
    }
    __asm__ volatile("" : : "r"(sum)); /* or a compiler might see that nobody wants it */
    free(bytes);
}

static void write_disk(void)
{
    struct disk_io *io;
    char *bytes = alloc0(CHUNK_BYTES);

    memset(bytes, 1, CHUNK_BYTES);
    make_file("written.raw", disk_bytes);
    io = open_disk("written.raw", "raw", true);
    for (int64_t at = 0; at < disk_bytes; at += (int64_t) CHUNK_BYTES)
        disk_io_write(io, bytes, (size_t) MIN((int64_t) CHUNK_BYTES, disk_bytes - at), at);
    disk_io_sync(io);
    disk_io_close(&io);
    free(bytes);
    unlink(path_of("written.raw"));
}

static void zstd_program(void)
{
    char command[5000];

    snprintf(command, sizeof command, "zstd -T0 -1 -q -c '%s' >/dev/null", path_of("source.disk"));
    run(command);
}

/* ---- exports and imports ---- */

struct file_sink {
    struct sink sink;
    int fd; /* -1: nowhere */
};

static int file_write(struct sink *sink, const void *bytes, size_t count)
{
    int fd = CONTAINER_OF(sink, struct file_sink, sink)->fd;

    return fd < 0 || write(fd, bytes, count) == (ssize_t) count ? 0 : -EIO;
}

static void export_disk(const char *name, const char *of_format, enum compression compression,
                        int fd)
{
    struct file_sink out = {{file_write}, fd};
    struct transfer_figures figures = {0};
    struct xva_export_disk disk = {"Ref:1", open_disk(name, of_format, false)};
    struct xva_export export = {.ova = "<value/>",
                                .ova_bytes = 8,
                                .disks = &disk,
                                .disk_count = 1,
                                .compression = compression};
    int r = xva_write(&export, &out.sink, &figures);

    if (r < 0)
        fail("export", r);
    disk_io_close(&disk.io);
}

static void export_plain(void)
{
    export_disk("source.disk", format, COMPRESSION_NONE, -1);
}

static void export_cold(void)
{
    forget_disk();
    export_plain();
}

static void export_gzip(void)
{
    export_disk("source.disk", format, COMPRESSION_GZIP, -1);
}

static void export_zstd(void)
{
    export_disk("source.disk", format, COMPRESSION_ZSTD, -1);
}

struct file_source {
    struct source source;
    int fd;
    char bytes[256 * 1024];
};

static ssize_t file_read(struct source *source, const void **ret_bytes)
{
    struct file_source *file = CONTAINER_OF(source, struct file_source, source);
    ssize_t n = read(file->fd, file->bytes, sizeof file->bytes);

    *ret_bytes = file->bytes;
    return n < 0 ? -errno : n;
}

static void import_disk(const char *xva, const char *name)
{
    struct file_source *in = new0(struct file_source);
    struct transfer_figures figures = {0};
    struct xva_reader *reader;
    struct xva_import_disk disk;
    struct xva_import import = {.disks = &disk, .count = 1, .export_vsn = 2};
    const char *text;
    size_t text_bytes;
    int r;

    make_file(name, disk_bytes);
    disk = (struct xva_import_disk){"Ref:1", open_disk(name, "raw", true), disk_bytes};
    in->source.read = file_read;
    in->fd = open(path_of(xva), O_RDONLY | O_CLOEXEC);
    reader = xva_reader_new(&in->source, &figures);
    r = xva_read_ova(reader, &text, &text_bytes);
    if (r == 0)
        r = xva_read_disks(reader, &import);
    if (r < 0)
        fail(xva_reader_error(reader)->code ? xva_reader_error(reader)->code : "import", r);
    xva_reader_destroy(&reader);
    close(in->fd);
    free(in);
    disk_io_close(&disk.io);
    unlink(path_of(name));
}

static void import_plain(void)
{
    import_disk("plain.xva", "imported.raw");
}

static void import_zstd(void)
{
    import_disk("zstd.xva", "imported.raw");
}

/* ---- figures ---- */

struct measurement {
    const char *name;
    void (*run)(void);
    double best;         /* MB/s */
    double cpu_s_per_gb; /* the least: what it is on a machine that does nothing else */
};

/* Processor time of this process and of those it has run. */
static double cpu_s(void)
{
    double sum = 0;

    for (int who = RUSAGE_CHILDREN; who <= RUSAGE_SELF; who++) {
        struct rusage usage;

        getrusage(who, &usage);
        sum += (double) (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec)
               + (double) (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    }
    return sum;
}

static void measure(struct measurement *measurements, unsigned count)
{
    for (unsigned round = 0; round < ROUNDS; round++)
        for (unsigned i = 0; i < count; i++) {
            double begin = now_s(), cpu_begin = cpu_s(), cpu, rate;

            measurements[i].run();
            rate = (double) disk_bytes / 1e6 / (now_s() - begin);
            cpu = (cpu_s() - cpu_begin) / ((double) disk_bytes / 1e9);
            measurements[i].best = MAX(measurements[i].best, rate);
            measurements[i].cpu_s_per_gb = round > 0 ? MIN(measurements[i].cpu_s_per_gb, cpu) : cpu;
        }
    for (unsigned i = 0; i < count; i++)
        printf("%-36s %8.0f MB/s  %6.3f s of processors a GB\n", measurements[i].name,
               measurements[i].best, measurements[i].cpu_s_per_gb);
}

static void share(const char *what, double rate, double of)
{
    printf("%-36s %8.0f %% (at least 80)\n", what, 100 * rate / of);
}

static int64_t memory_kib(const char *key)
{
    FILE *file = fopen("/proc/self/status", "re");
    char line[256];
    int64_t value = 0;

    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, key, strlen(key)) == 0)
            value = atoll(line + strlen(key));
    if (file)
        fclose(file);
    return value;
}

/* Peak memory beyond what there was, while n threads run it. */
static void memory(const char *what, void *(*main_fn)(void *), unsigned n)
{
    pthread_t threads[TOGETHER];
    int64_t before = memory_kib("VmRSS:");
    FILE *file = fopen("/proc/self/clear_refs", "we");

    if (!file || fputs("5", file) < 0 || fclose(file) != 0)
        fail("clear_refs", -errno);
    for (intptr_t i = 0; i < (intptr_t) n; i++)
        if (pthread_create(&threads[i], NULL, main_fn, (void *) i) != 0)
            fail("thread", -EAGAIN);
    for (unsigned i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    printf("%-36s %8.1f MiB (below 64)\n", what, (double) (memory_kib("VmHWM:") - before) / 1024);
}

static void *one_zstd(void *arg)
{
    (void) arg;
    export_zstd();
    return NULL;
}

static void *one_gzip(void *arg)
{
    (void) arg;
    export_gzip();
    return NULL;
}

static void *one_sparse(void *arg)
{
    double begin = now_s();

    (void) arg;
    export_disk("sparse.raw", "raw", COMPRESSION_NONE, -1);
    printf("%-36s %8.3f s\n", "export of 64 GiB of holes", now_s() - begin);
    return NULL;
}

static void *one_import(void *arg)
{
    char name[40];

    snprintf(name, sizeof name, "imported-%d.raw", (int) (intptr_t) arg);
    import_disk("zstd.xva", name);
    return NULL;
}

static void make_xva(const char *name, enum compression compression)
{
    int fd = open(path_of(name), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);

    export_disk("source.disk", format, compression, fd);
    close(fd);
}

int main(int argc, char **argv)
{
    struct measurement out[] = {
        {"read", read_disk, 0, 0},          {"hash", hash_disk, 0, 0},
        {"export", export_plain, 0, 0},
                                {"read, not cached", read_cold, 0, 0},
                                {"export, not cached", export_cold, 0, 0},     {"zstd -T0 -1", zstd_program, 0, 0},
        {"export zstd", export_zstd, 0, 0}, {"export gzip", export_gzip, 0, 0}};
    struct measurement in[] = {{"write and sync", write_disk, 0, 0},
                               {"import", import_plain, 0, 0},
                               {"import zstd", import_zstd, 0, 0}};

    if (argc < 2 || argc > 4) {
        fprintf(stderr, "usage: drover-bench-xva DIR [MIB [raw|qcow2]]\n");
        return 2;
    }
    directory = argv[1];
    if (argc > 2)
        disk_bytes = atoll(argv[2]) * MIB;
    if (argc > 3)
        format = argv[3];
    make_disk();
    measure(out, ARRAY_SIZE(out));
    share("export / slower of read and hash", out[2].best, MIN(out[0].best, out[1].best));
    share("export / slower of them, not cached", out[4].best, MIN(out[3].best, out[1].best));
    share("export zstd / zstd -T0", out[6].best, out[5].best);
    make_xva("plain.xva", COMPRESSION_NONE);
    make_xva("zstd.xva", COMPRESSION_ZSTD);
    measure(in, ARRAY_SIZE(in));
    share("import / slower of write and hash", in[1].best, MIN(in[0].best, out[1].best));
    disk_bytes = MIN(disk_bytes, 256 * MIB);
    make_disk();
    make_xva("zstd.xva", COMPRESSION_ZSTD);
    memory("ten exports, zstd", one_zstd, TOGETHER);
    memory("ten exports, gzip", one_gzip, TOGETHER);
    memory("ten imports, zstd", one_import, TOGETHER);
    make_file("sparse.raw", 65536 * MIB);
    memory("one export of 64 GiB of holes", one_sparse, 1);
    for (unsigned i = 0; i < 5; i++)
        unlink(path_of((const char *[]){"source.disk", "source.raw", "plain.xva", "zstd.xva",
                                        "sparse.raw"}[i]));
    return 0;
}
