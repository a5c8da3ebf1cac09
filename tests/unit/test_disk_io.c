/* test_disk_io.c - the contents of disks: raw, qcow2 and what it rests on; damage, links, a server that dies */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>

#include "slave/image_lock.h"
#include "tests/unit/disk_files.h"

static void refused(struct disk_files *f, const char *name, const char *format, int error, const char *why)
{
    assert_int_equal(disk_io_open(&f->disk, &(struct sr_place){.directory = f->dir}, name, format, false, NULL, f->text), error);
    assert_null(f->disk);
    if (!strstr(f->text, why))
        fail_msg("says \"%s\", not \"%s\"", f->text, why);
}

static void next_is(struct disk_files *f, int64_t at, int64_t expected_at, int64_t expected_end)
{
    int64_t from, to;

    assert_int_equal(disk_io_next_data(f->disk, at, &from, &to), 0);
    assert_int_equal(from, expected_at);
    assert_int_equal(to, expected_end);
}

static void no_more_after(struct disk_files *f, int64_t at)
{
    int64_t from, to;

    assert_int_equal(disk_io_next_data(f->disk, at, &from, &to), -ENXIO);
}

static void bytes_are(struct disk_files *f, int64_t at, size_t count, unsigned char expected)
{
    unsigned char *bytes = alloc0(count);

    memset(bytes, 0xee, count);
    assert_int_equal(disk_io_read(f->disk, bytes, count, at), 0);
    for (size_t i = 0; i < count; i++)
        if (bytes[i] != expected)
            fail_msg("byte %lld is %02x, not %02x", (long long) at + (long long) i, bytes[i], expected);
    free(bytes);
}

static void write_bytes(struct disk_files *f, int64_t at, size_t count, int byte)
{
    void *bytes = alloc0(count);

    memset(bytes, byte, count);
    assert_int_equal(disk_io_write(f->disk, bytes, count, at), 0);
    free(bytes);
}

/* What QEMU's own programs read there. */
static void qemu_sees(struct disk_files *f, const char *name, const char *format, int64_t at, int64_t count, int byte)
{
    run(f, "qemu-io -r -f %s -c 'read -P %d %lld %lld' %s | tee out; ! grep -q failed out", format, byte, (long long) at,
        (long long) count, name);
}

/* 64 MiB: AA at 1 MiB, CC at 33 MiB, 1 MiB each. */
static void make_base(struct disk_files *f, const char *name, const char *format)
{
    if (streq(format, "raw")) /* without the block that qemu-img writes to learn of the file system */
        run(f, "truncate -s 64M %s", name);
    else
        run(f, "qemu-img create -q -f %s %s 64M", format, name);
    run(f, "qemu-io -f %s -c 'write -P 0xaa 1M 1M' -c 'write -P 0xcc 33M 1M' %s", format, name);
}

/* Reading, holes, writing and zeros are alike for all formats. */
static void check_all(struct disk_files *f, const char *name, const char *format)
{
    f->disk = open_disk(f, name, format, true);
    assert_int_equal(disk_io_size(f->disk), 64 * MIB);
    next_is(f, 0, MIB, 2 * MIB);
    next_is(f, MIB + 512, MIB + 512, 2 * MIB);
    next_is(f, 2 * MIB, 33 * MIB, 34 * MIB);
    no_more_after(f, 34 * MIB);
    no_more_after(f, 64 * MIB);
    bytes_are(f, 0, MIB, 0);
    bytes_are(f, MIB, MIB, 0xaa);
    bytes_are(f, 33 * MIB, MIB, 0xcc);

    write_bytes(f, 5 * MIB + 512, 9 * MIB, 0x77); /* many requests at once */
    bytes_are(f, 5 * MIB + 512, 9 * MIB, 0x77);
    assert_int_equal(disk_io_write_zeros(f->disk, 4 * MIB, 31 * MIB), 0);
    bytes_are(f, 31 * MIB, 4 * MIB, 0);
    no_more_after(f, 31 * MIB);
    next_is(f, 5 * MIB + 65536, 5 * MIB + 65536, 14 * MIB + 65536 / (streq(format, "raw") ? 16 : 1));
    assert_int_equal(disk_io_write_zeros(f->disk, 0, 64 * MIB), 0);
    assert_int_equal(disk_io_write_zeros(f->disk, 512, 64 * MIB), -EINVAL);
    assert_int_equal(disk_io_write(f->disk, "", 1, -1), -EINVAL);
    assert_int_equal(disk_io_read(f->disk, &(char){0}, 1, 64 * MIB), -EINVAL);
    assert_int_equal(disk_io_sync(f->disk), 0);
    disk_io_close(&f->disk);
    qemu_sees(f, name, format, 5 * MIB + 512, 9 * MIB, 0x77);
    qemu_sees(f, name, format, 31 * MIB, 4 * MIB, 0);
    qemu_sees(f, name, format, MIB, MIB, 0xaa);
}

static void raw(void **state)
{
    struct disk_files *f = *state;
    struct stat st;
    char path[128];

    make_base(f, "a.raw", "raw");
    check_all(f, "a.raw", "raw");
    snprintf(path, sizeof path, "%s/a.raw", f->dir);
    assert_int_equal(stat(path, &st), 0);
    assert_true(st.st_blocks * 512 < 11 * MIB); /* zeros took no room */
    assert_int_equal(st.st_size, 64 * MIB);
}

static void qcow2(void **state)
{
    struct disk_files *f = *state;

    make_base(f, "a.qcow2", "qcow2");
    check_all(f, "a.qcow2", "qcow2");
    run(f, "qemu-img check -q -f qcow2 a.qcow2");
}

static void qcow2_on_qcow2_on_raw(void **state)
{
    struct disk_files *f = *state;

    make_base(f, "a.raw", "raw");
    run(f, "sha256sum a.raw >a.sum");
    run(f, "qemu-img create -q -f qcow2 -F raw -b a.raw b.base.qcow2");
    run(f, "qemu-img create -q -f qcow2 -F qcow2 -b b.base.qcow2 c.qcow2");
    check_all(f, "c.qcow2", "qcow2");
    run(f, "sha256sum -c a.sum"); /* zeros over what a base has are of the overlay */
    f->disk = open_disk(f, "b.base.qcow2", "qcow2", false);
    bytes_are(f, 33 * MIB, MIB, 0xcc);
}

static void a_long_chain(void **state)
{
    struct disk_files *f = *state;

    make_base(f, "0.qcow2", "qcow2");
    run(f, "for i in $(seq 150); do qemu-img create -q -f qcow2 -F qcow2 -u -b $((i - 1)).qcow2 $i.qcow2 64M; done");
    check_all(f, "150.qcow2", "qcow2");
}

static void reading_changes_nothing(void **state)
{
    struct disk_files *f = *state;
    const char *names[] = {"a.raw", "a.qcow2"};

    for (int i = 0; i < 2; i++) {
        make_base(f, names[i], names[i] + 2);
        run(f, "sha256sum %s >sum", names[i]);
        f->disk = open_disk(f, names[i], names[i] + 2, false);
        assert_int_equal(disk_io_write(f->disk, "x", 1, 0), -EROFS);
        assert_int_equal(disk_io_write_zeros(f->disk, 512, MIB), -EROFS);
        bytes_are(f, MIB, MIB, 0xaa);
        assert_int_equal(disk_io_sync(f->disk), 0);
        disk_io_close(&f->disk);
        run(f, "sha256sum -c sum");
    }
}

/* Pages of a file's first bytes that the kernel keeps. */
static size_t pages_kept(struct disk_files *f, const char *name, size_t bytes)
{
    char path[128];
    unsigned char *kept = alloc0(bytes / 4096);
    size_t count = 0;
    void *map;
    int fd;

    snprintf(path, sizeof path, "%s/%s", f->dir, name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    assert_true(map != MAP_FAILED);
    assert_int_equal(mincore(map, bytes, kept), 0);
    for (size_t i = 0; i < bytes / 4096; i++)
        count += kept[i] & 1;
    munmap(map, bytes);
    close(fd);
    free(kept);
    return count;
}

/* Of a raw disk what was passed is not kept, where the file system hears of it; it can be read again all the same. */
static void what_was_passed_is_not_kept(void **state)
{
    struct disk_files *f = *state;
    size_t can_not;

    run(f, "head -c 16M /dev/zero | tr '\\0' 'a' >a.raw && cp a.raw b.raw && sync a.raw b.raw && dd if=b.raw iflag=nocache count=0 2>out");
    can_not = pages_kept(f, "b.raw", 8 * MIB); /* of a file system in memory: all */
    f->disk = open_disk(f, "a.raw", "raw", false);
    bytes_are(f, 0, 16 * MIB, 'a');
    assert_int_equal(pages_kept(f, "a.raw", 16 * MIB), 4096);
    assert_int_equal(disk_io_passed(f->disk, 9 * MIB), 0);
    assert_int_equal(pages_kept(f, "a.raw", 8 * MIB), can_not);
    assert_true(pages_kept(f, "a.raw", 16 * MIB) >= 2048); /* not what comes */
    bytes_are(f, 0, 16 * MIB, 'a');
    assert_int_equal(pages_kept(f, "a.raw", 8 * MIB), 2048);
    assert_int_equal(disk_io_passed(f->disk, MIB), 0); /* another reading, as one that goes on where it was cut has two of */
    assert_int_equal(disk_io_passed(f->disk, 8 * MIB), 0);
    assert_int_equal(pages_kept(f, "a.raw", 8 * MIB), can_not);
}

/* The same of one that is written, but for its last 16 MiB: it is on the disk beneath by then. */
static void what_was_written_and_passed_is_not_kept(void **state)
{
    struct disk_files *f = *state;
    size_t can_not;

    run(f, "truncate -s 64M a.raw && head -c 64M /dev/zero >b.raw && sync b.raw && dd if=b.raw iflag=nocache count=0 2>out");
    can_not = pages_kept(f, "b.raw", 16 * MIB);
    f->disk = open_disk(f, "a.raw", "raw", true);
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t at = 0; at < 64 * MIB; at += MIB) {
            write_bytes(f, at, (size_t) MIB, 'a' + pass);
            assert_int_equal(disk_io_passed(f->disk, at + MIB), 0);
        }
        assert_int_equal(pages_kept(f, "a.raw", 16 * MIB), can_not);
        bytes_are(f, 0, (size_t) (64 * MIB), (unsigned char) ('a' + pass)); /* and is as it was written */
    }
    assert_int_equal(disk_io_sync(f->disk), 0);
}

static void sizes_that_are_no_multiples(void **state)
{
    struct disk_files *f = *state;

    run(f, "truncate -s 1000 a.raw && touch empty.raw");
    f->disk = open_disk(f, "a.raw", "raw", true);
    assert_int_equal(disk_io_size(f->disk), 1000);
    no_more_after(f, 0);
    write_bytes(f, 999, 1, 1);
    next_is(f, 0, 0, 1000);
    disk_io_close(&f->disk);
    f->disk = open_disk(f, "empty.raw", "raw", false);
    assert_int_equal(disk_io_size(f->disk), 0);
    no_more_after(f, 0);
}

static void links_and_foreign_files_are_refused(void **state)
{
    struct disk_files *f = *state;

    make_base(f, "a.qcow2", "qcow2");
    run(f, "mkdir d && ln -s a.qcow2 l.qcow2 && ln -s a.qcow2 l.raw && mkfifo p.raw p.qcow2 && cp a.qcow2 d");
    refused(f, "l.qcow2", "qcow2", -ELOOP, "no plain file");
    refused(f, "l.raw", "raw", -ELOOP, "no plain file");
    refused(f, "p.raw", "raw", -EINVAL, "no plain file");
    refused(f, "p.qcow2", "qcow2", -EINVAL, "no plain file");
    refused(f, "d/a.qcow2", "qcow2", -EINVAL, "no disk");
    refused(f, "../a.qcow2", "qcow2", -EINVAL, "no disk");
    refused(f, "none.qcow2", "qcow2", -ENOENT, "No such file");
    refused(f, "a.qcow2", "vpc", -EINVAL, "no disk of format vpc");

    /* What an image names is not opened, wherever it leads. */
    run(f, "qemu-img create -q -u -f qcow2 -F raw -b /etc/passwd out.qcow2 1M");
    refused(f, "out.qcow2", "qcow2", -EINVAL, "outside its directory");
    run(f, "qemu-img create -q -u -f qcow2 -F raw -b l.raw link.qcow2 1M");
    refused(f, "link.qcow2", "qcow2", -ELOOP, "l.raw: no plain file");
    run(f, "qemu-img create -q -u -f qcow2 -F raw -b nbd:unix:x net.qcow2 1M");
    refused(f, "net.qcow2", "qcow2", -EINVAL, "outside its directory"); /* no name of a disk (storage_name_is_good) */
    run(f, "qemu-img create -q -u -f qcow2 -F vmdk -b a.qcow2 vmdk.qcow2 1M");
    refused(f, "vmdk.qcow2", "qcow2", -EINVAL, "its format is not stated");
    run(f, "qemu-img create -q -u -f qcow2 -F qcow2 -b self.qcow2 other.qcow2 1M; mv other.qcow2 self.qcow2");
    refused(f, "self.qcow2", "qcow2", -ELOOP, "too many files");
    run(f, "qemu-img create -q -f qcow2 -o data_file=x.data data.qcow2 1M");
    refused(f, "data.qcow2", "qcow2", -EINVAL, "data in another file");
}

static void another_writer_is_refused(void **state)
{
    struct disk_files *f = *state;
    struct disk_io *first;

    make_base(f, "a.qcow2", "qcow2");
    f->disk = open_disk(f, "a.qcow2", "qcow2", true);
    first = TAKE(f->disk);
    refused(f, "a.qcow2", "qcow2", -EIO, "lock");
    disk_io_close(&first);
    f->disk = open_disk(f, "a.qcow2", "qcow2", false);
}

/* As a guest has it: by the file's lock alone. */
static void one_writer_at_a_time(void **state)
{
    struct disk_files *f = *state;
    static const char *const formats[] = {"raw", "qcow2"};
    char text[DISK_IO_TEXT_BYTES], path[128];
    struct disk_io *disk;

    for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
        _cleanup_(close_fd) int fd = -1;

        make_base(f, formats[i], formats[i]);
        snprintf(path, sizeof path, "%s/%s", f->dir, formats[i]);
        fd = open(path, O_RDWR | O_CLOEXEC);
        assert_int_equal(image_lock(fd), 0);
        assert_int_equal(disk_io_open(&disk, &(struct sr_place){.directory = f->dir}, formats[i], formats[i], true, NULL, text), -EBUSY);
        assert_non_null(strstr(text, "someone else"));
        disk = open_disk(f, formats[i], formats[i], false); /* to read */
        disk_io_close(&disk);
        close_fd(&fd);
        disk = open_disk(f, formats[i], formats[i], true);
        fd = open(path, O_RDWR | O_CLOEXEC);
        assert_int_equal(image_lock(fd), -EBUSY);
        disk_io_close(&disk);
        assert_int_equal(image_lock(fd), 0);
    }
}

static void damaged_disks_are_errors(void **state)
{
    struct disk_files *f = *state;
    char bytes[MIB];

    make_base(f, "a.qcow2", "qcow2");
    run(f, "head -c 50 a.qcow2 >short.qcow2; head -c 1000 /dev/zero >zero.qcow2");
    refused(f, "short.qcow2", "qcow2", -EBADMSG, "no proper qcow2");
    refused(f, "zero.qcow2", "qcow2", -EBADMSG, "no proper qcow2");
    run(f, "cp a.qcow2 l1.qcow2 && printf '\\377\\377\\377\\377' | dd of=l1.qcow2 bs=1 seek=36 conv=notrunc status=none");
    refused(f, "l1.qcow2", "qcow2", -EIO, "L1");

    /* Damage that only shows where it is read: the L1 table points outside of clusters. */
    run(f, "cp a.qcow2 l2.qcow2");
    run(f, "printf '\\200\\0\\0\\0\\0\\3\\2\\1' | dd of=l2.qcow2 bs=1 seek=$((0x30000)) conv=notrunc status=none");
    f->disk = open_disk(f, "l2.qcow2", "qcow2", false);
    assert_true(disk_io_read(f->disk, bytes, sizeof bytes, MIB) < 0);
    disk_io_close(&f->disk);

    run(f, "head -c 1M a.qcow2 >cut.qcow2"); /* what is missing at the end of a file reads as zeros: QEMU's rule */
    f->disk = open_disk(f, "cut.qcow2", "qcow2", false);
    bytes_are(f, 33 * MIB, MIB, 0);
}

/* As exports and imports open disks: without the file by which a shared SR is known it is not mounted. */
static void an_sr_that_is_not_mounted_has_no_disks(void **state)
{
    struct disk_files *f = *state;
    struct sr_place place = {.directory = f->dir, .uuid = "sr-a", .marker = MARKER_MUST_BE};

    run(f, "truncate -s 1M a.raw");
    assert_int_equal(disk_io_open(&f->disk, &place, "a.raw", "raw", true, NULL, f->text), -ENOENT);
    assert_non_null(strstr(f->text, "is it mounted?"));
    run(f, "echo sr-b >.drover-sr");
    assert_int_equal(disk_io_open(&f->disk, &place, "a.raw", "raw", true, NULL, f->text), -EEXIST);
    run(f, "echo sr-a >.drover-sr");
    assert_int_equal(disk_io_open(&f->disk, &place, "a.raw", "raw", true, NULL, f->text), 0);
}

/* The one child of this process. */
static pid_t child_of_ours(void)
{
    char command[64];
    FILE *answer;
    int pid = 0;

    snprintf(command, sizeof command, "pgrep -P %d qemu-nbd", (int) getpid());
    answer = popen(command, "r");
    assert_int_equal(fscanf(answer, "%d", &pid), 1);
    assert_int_equal(pclose(answer), 0);
    return pid;
}

static void a_killed_server_is_an_error(void **state)
{
    struct disk_files *f = *state;
    char bytes[MIB];
    int64_t from, to;
    int r = 0;

    make_base(f, "a.qcow2", "qcow2");
    f->disk = open_disk(f, "a.qcow2", "qcow2", true);
    bytes_are(f, MIB, MIB, 0xaa);
    assert_int_equal(kill(child_of_ours(), SIGKILL), 0);
    for (int i = 0; i < 100000 && r == 0; i++) /* until its end has come to us */
        r = disk_io_read(f->disk, bytes, sizeof bytes, MIB);
    assert_true(r < 0);
    assert_true(disk_io_write(f->disk, bytes, sizeof bytes, MIB) < 0);
    assert_true(disk_io_write_zeros(f->disk, MIB, MIB) < 0);
    assert_true(disk_io_sync(f->disk) < 0);
    assert_true(disk_io_next_data(f->disk, 0, &from, &to) < 0);
    disk_io_close(&f->disk);
}

/* However this process ends, the server ends too, and leaves nothing. */
static void no_server_outlives_us(void **state)
{
    struct disk_files *f = *state;
    pid_t server = 0;
    int pipes[2];
    char byte;

    make_base(f, "a.qcow2", "qcow2");
    assert_int_equal(pipe(pipes), 0); /* its writing end is the server's too */
    run(f, "mkdir tmp");
    if (fork() == 0) {
        char tmp[128];

        snprintf(tmp, sizeof tmp, "%s/tmp", f->dir);
        setenv("TMPDIR", tmp, true); /* other tests leave servers in the usual one */
        if (disk_io_open(&f->disk, &(struct sr_place){.directory = f->dir}, "a.qcow2", "qcow2", true, NULL, f->text) == 0)
            server = child_of_ours();
        if (write(pipes[1], &server, sizeof server) != sizeof server)
            abort();
        raise(SIGKILL);
    }
    close(pipes[1]);
    assert_int_equal(read(pipes[0], &server, sizeof server), sizeof server);
    assert_true(server > 0);
    assert_int_equal(read(pipes[0], &byte, 1), 0); /* both are gone, or this waits */
    close(pipes[0]);
    run(f, "rmdir tmp");
}

/* Whatever is asked of the disk, in either form. */
static void a_disk_ends_with_its_transfer(void **state)
{
    static const char *const formats[] = {"raw", "qcow2"};
    struct disk_files *f = *state;
    int64_t from, to;

    for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
        _Atomic bool is_cancelled = false;
        char name[16];

        snprintf(name, sizeof name, "c.%s", formats[i]);
        run(f, "qemu-img create -q -f %s %s 4M", formats[i], name);
        f->is_cancelled = &is_cancelled;
        f->disk = open_disk(f, name, formats[i], true);
        write_bytes(f, 0, MIB, 7);
        bytes_are(f, 0, MIB, 7);
        is_cancelled = true;
        assert_int_equal(disk_io_read(f->disk, f->text, 100, 0), -ECANCELED);
        assert_int_equal(disk_io_next_data(f->disk, 0, &from, &to), -ECANCELED);
        assert_int_equal(disk_io_write(f->disk, "x", 1, 0), -ECANCELED);
        assert_int_equal(disk_io_write_zeros(f->disk, MIB, 0), -ECANCELED);
        assert_int_equal(disk_io_sync(f->disk), -ECANCELED);
        is_cancelled = false;
        bytes_are(f, 0, MIB, 7);
        disk_io_close(&f->disk);
    }
}

/* ---- reading one after the other, ahead of which qcow2 is read ---- */

/* a.raw, open as `other`, and a.qcow2, open as `disk` to be read: a long stretch of data, islands, holes of all sizes. */
static void open_twins(struct disk_files *f)
{
    run(f, "truncate -s %d a.raw && head -c 9M /dev/urandom | dd of=a.raw bs=64k seek=3 conv=notrunc status=none", 24 * MIB + 512);
    run(f, "for at in 200 202 203 207 240 260 261 262 263 264 300; do "
           "head -c 64k /dev/urandom | dd of=a.raw bs=64k seek=$at conv=notrunc status=none; done");
    run(f, "printf end | dd of=a.raw bs=512 seek=%d conv=notrunc status=none", 24 * MIB / 512);
    run(f, "qemu-img convert -f raw -O qcow2 a.raw a.qcow2");
    f->other = open_disk(f, "a.raw", "raw", false);
    f->disk = open_disk(f, "a.qcow2", "qcow2", false);
}

static void twins_are_alike(struct disk_files *f, int64_t at, size_t count)
{
    char *ours = alloc0(count + 1), *theirs = alloc0(count + 1);

    memset(ours, 0xee, count);
    assert_int_equal(disk_io_read(f->other, theirs, count, at), 0);
    assert_int_equal(disk_io_read(f->disk, ours, count, at), 0);
    if (memcmp(ours, theirs, count) != 0)
        fail_msg("%zu bytes at %lld are others", count, (long long) at);
    free(ours);
    free(theirs);
}

/* What holes it has is known from now on, or nothing is read ahead. */
static void learn_holes(struct disk_files *f)
{
    int64_t from, to;

    assert_int_equal(disk_io_next_data(f->disk, 0, &from, &to), 0);
}

static void one_after_the_other_in_any_steps(void **state)
{
    static const size_t steps[] = {4096, 65537, 256 * 1024, 300000, MIB, MIB + 1, 3 * MIB + 512, 32 * MIB};
    struct disk_files *f = *state;

    open_twins(f);
    learn_holes(f);
    for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
        int64_t size = disk_io_size(f->disk), step = (int64_t) steps[i], from, to = 0;

        for (int64_t at = 0; at < size; at += step) /* through holes */
            twins_are_alike(f, at, (size_t) MIN(step, size - at));
        while (disk_io_next_data(f->disk, to, &from, &to) == 0) /* over them */
            for (int64_t at = from; at < to; at += step)
                twins_are_alike(f, at, (size_t) MIN(step, to - at));
        assert_int_equal(disk_io_read(f->disk, f->text, 2, size - 1), -EINVAL);
        twins_are_alike(f, size - 1, 1);
        twins_are_alike(f, size, 0);
    }
}

static void to_and_fro(void **state)
{
    struct disk_files *f = *state;
    int64_t size, at = 0;
    uint64_t random = 88172645463325252ULL;

    open_twins(f);
    learn_holes(f);
    size = disk_io_size(f->disk);
    for (int i = 0; i < 3000; i++) {
        int64_t count;

        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        if (random % 5 == 0) /* anywhere */
            at = (int64_t) (random >> 8) % size;
        else if (random % 5 == 1) /* a bit to the front or the back */
            at = MAX(MIN(at + (int64_t) (random >> 8) % MIB - MIB / 2, size), (int64_t) 0);
        count = MIN((int64_t) (random >> 40) % (random % 7 == 0 ? 2 * MIB : 128 * 1024), size - at);
        twins_are_alike(f, at, (size_t) count);
        at += count;
    }
}

/* A cluster that cannot be read is found by who wants it, not by who reads before it. */
static void damage_ahead_is_told_in_its_place(void **state)
{
    struct disk_files *f = *state;
    char bytes[65536];
    int64_t bad = 0;

    run(f, "seq 3000000 | head -c 16M >a.raw && qemu-img convert -c -f raw -O qcow2 a.raw a.qcow2");
    run(f, "head -c 100k /dev/zero | tr '\\0' '\\377' | dd of=a.qcow2 bs=64k seek=32 conv=notrunc status=none");
    f->other = open_disk(f, "a.raw", "raw", false);
    f->disk = open_disk(f, "a.qcow2", "qcow2", false);
    while (disk_io_read(f->disk, bytes, sizeof bytes, bad) == 0) /* alone: nothing is known of holes */
        bad += (int64_t) sizeof bytes;
    assert_true(bad > 2 * MIB && bad < 15 * MIB);
    disk_io_close(&f->disk); /* QEMU lets go of who has seen damage */
    f->disk = open_disk(f, "a.qcow2", "qcow2", false);
    learn_holes(f);
    for (int64_t at = 0; at < bad; at += (int64_t) sizeof bytes)
        twins_are_alike(f, at, sizeof bytes);
    twins_are_alike(f, bad - MIB, MIB); /* nor by who goes elsewhere */
    twins_are_alike(f, 15 * MIB, MIB);
    assert_true(disk_io_read(f->disk, bytes, sizeof bytes, bad) < 0);
}

/* What comes until its end has come to us is right. */
static void a_server_that_is_killed_ahead(void **state)
{
    struct disk_files *f = *state;
    char *ours = alloc0(65536), *theirs = alloc0(65536);
    int64_t at = 192 * 1024;
    int r = 0;

    open_twins(f);
    learn_holes(f);
    twins_are_alike(f, at, 65536);
    twins_are_alike(f, at + 65536, 65536);
    assert_int_equal(kill(child_of_ours(), SIGKILL), 0);
    for (at += 2 * 65536; r == 0; at += 65536) {
        assert_true(at < 9 * MIB);
        r = disk_io_read(f->disk, ours, 65536, at);
        disk_io_read(f->other, theirs, 65536, at);
        assert_true(r < 0 || memcmp(ours, theirs, 65536) == 0);
    }
    assert_true(disk_io_read(f->disk, ours, 65536, at) < 0);
    assert_true(disk_io_read(f->disk, ours, 65536, 0) < 0);
    disk_io_close(&f->disk);
    free(ours);
    free(theirs);
}

/* While it still reads ahead for us. */
static void a_reader_may_stop_anywhere(void **state)
{
    struct disk_files *f = *state;

    open_twins(f);
    for (int i = 0; i < 20; i++) {
        disk_io_close(&f->disk);
        f->disk = open_disk(f, "a.qcow2", "qcow2", false);
        learn_holes(f);
        for (int64_t at = 0; at < i * 65536; at += 32768)
            twins_are_alike(f, at, 32768);
    }
}

/* ---- a server that does not answer ---- */

static _Atomic bool is_called_off;

static void call_off(_unused_ int number)
{
    is_called_off = true;
}

/* From now on what waits for the server is called off in a moment. */
static void call_off_soon(void)
{
    is_called_off = false;
    setitimer(ITIMER_REAL, &(struct itimerval){.it_value.tv_usec = 100000}, NULL);
}

static bool is_there(pid_t process)
{
    return kill(process, 0) == 0;
}

/* Whatever is asked of it meanwhile; it has its time to end by itself first, and it is not there any more when the disk is closed. */
static void a_hung_server_is_killed_when_called_off(void **state)
{
    struct disk_files *f = *state;
    char *bytes = alloc0(8 * MIB); /* it comes to the server in pieces */

    signal(SIGALRM, call_off);
    f->is_cancelled = &is_called_off;
    make_base(f, "a.qcow2", "qcow2");
    for (int asked = 0; asked < 5; asked++) {
        int64_t from, to;
        pid_t server;
        int r = 0;

        is_called_off = false;
        f->disk = open_disk(f, "a.qcow2", "qcow2", true);
        write_bytes(f, 0, MIB, 7);
        server = child_of_ours();
        assert_int_equal(kill(server, SIGSTOP), 0);
        call_off_soon();
        switch (asked) {
        case 0:
            r = disk_io_read(f->disk, bytes, (size_t) MIN(disk_io_size(f->disk), 8 * MIB), 0);
            break;
        case 1:
            r = disk_io_write(f->disk, bytes, (size_t) MIN(disk_io_size(f->disk), 8 * MIB), 0);
            break;
        case 2:
            r = disk_io_next_data(f->disk, 0, &from, &to);
            break;
        case 3:
            r = disk_io_write_zeros(f->disk, MIB, 0);
            break;
        case 4:
            r = disk_io_sync(f->disk);
            break;
        }
        assert_int_equal(r, -ECANCELED);
        disk_io_close(&f->disk);
        assert_false(is_there(server));
    }
    free(bytes);
}

/* Where nobody asks for what was begun: the reader goes on, or jumps back, or has had enough. */
static void what_is_read_ahead_ends_when_called_off(void **state)
{
    struct disk_files *f = *state;
    char *bytes = alloc0(8 * MIB);

    signal(SIGALRM, call_off);
    f->is_cancelled = &is_called_off;
    is_called_off = false;
    open_twins(f);
    for (int way = 0; way < 3; way++) {
        pid_t server;

        is_called_off = false;
        disk_io_close(&f->disk);
        f->disk = open_disk(f, "a.qcow2", "qcow2", false);
        learn_holes(f);
        twins_are_alike(f, MIB, 65536);
        twins_are_alike(f, MIB + 65536, 65536);
        server = child_of_ours();
        assert_int_equal(kill(server, SIGSTOP), 0);
        call_off_soon();
        if (way == 0)
            assert_int_equal(disk_io_read(f->disk, bytes, 7 * MIB, MIB + 2 * 65536), -ECANCELED);
        else if (way == 1)
            assert_int_equal(disk_io_read(f->disk, bytes, 65536, 0), -ECANCELED);
        is_called_off = true;
        assert_int_equal(disk_io_read(f->disk, bytes, 65536, 2 * MIB), -ECANCELED);
        disk_io_close(&f->disk);
        assert_false(is_there(server));
    }
    free(bytes);
}

static void a_healthy_server_ends_properly_when_called_off(void **state)
{
    struct disk_files *f = *state;

    f->is_cancelled = &is_called_off;
    is_called_off = false;
    run(f, "qemu-img create -q -f qcow2 -o lazy_refcounts=on c.qcow2 4M"); /* who does not end properly leaves a mark in it */
    f->disk = open_disk(f, "c.qcow2", "qcow2", true);
    write_bytes(f, 0, MIB, 7);
    is_called_off = true;
    disk_io_close(&f->disk);
    run(f, "qemu-img info c.qcow2 | grep -q 'corrupt: false' && test \"$(od -An -tu1 -j79 -N1 c.qcow2)\" -eq 0");
}

/* One that never says a word: the opening can be called off, too. */
static void a_dumb_server_is_killed_when_called_off(void **state)
{
    struct disk_files *f = *state;
    char path[4096], *before = dup_text(getenv("PATH"));

    signal(SIGALRM, call_off);
    run(f, "mkdir bin && printf '#!/bin/sh\nexec sleep 1000\n' >bin/qemu-nbd && chmod +x bin/qemu-nbd");
    run(f, "qemu-img create -q -f qcow2 c.qcow2 4M");
    snprintf(path, sizeof path, "%s/bin:%s", f->dir, before);
    setenv("PATH", path, true);
    call_off_soon();
    assert_int_equal(disk_io_open(&f->disk, &(struct sr_place){.directory = f->dir}, "c.qcow2", "qcow2", true, &is_called_off, f->text),
                     -ECANCELED);
    run(f, "! pgrep -P %d -x sleep", (int) getpid()); /* it is gone */
    setenv("PATH", before, true);
    free(before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(raw, begin, end),
        cmocka_unit_test_setup_teardown(what_was_passed_is_not_kept, begin, end),
        cmocka_unit_test_setup_teardown(what_was_written_and_passed_is_not_kept, begin, end),
        cmocka_unit_test_setup_teardown(qcow2, begin, end),
        cmocka_unit_test_setup_teardown(qcow2_on_qcow2_on_raw, begin, end),
        cmocka_unit_test_setup_teardown(a_long_chain, begin, end),
        cmocka_unit_test_setup_teardown(reading_changes_nothing, begin, end),
        cmocka_unit_test_setup_teardown(sizes_that_are_no_multiples, begin, end),
        cmocka_unit_test_setup_teardown(links_and_foreign_files_are_refused, begin, end),
        cmocka_unit_test_setup_teardown(another_writer_is_refused, begin, end),
        cmocka_unit_test_setup_teardown(one_writer_at_a_time, begin, end),
        cmocka_unit_test_setup_teardown(damaged_disks_are_errors, begin, end),
        cmocka_unit_test_setup_teardown(an_sr_that_is_not_mounted_has_no_disks, begin, end),
        cmocka_unit_test_setup_teardown(a_killed_server_is_an_error, begin, end),
        cmocka_unit_test_setup_teardown(no_server_outlives_us, begin, end),
        cmocka_unit_test_setup_teardown(a_disk_ends_with_its_transfer, begin, end),
        cmocka_unit_test_setup_teardown(one_after_the_other_in_any_steps, begin, end),
        cmocka_unit_test_setup_teardown(to_and_fro, begin, end),
        cmocka_unit_test_setup_teardown(damage_ahead_is_told_in_its_place, begin, end),
        cmocka_unit_test_setup_teardown(a_server_that_is_killed_ahead, begin, end),
        cmocka_unit_test_setup_teardown(a_reader_may_stop_anywhere, begin, end),
        cmocka_unit_test_setup_teardown(a_hung_server_is_killed_when_called_off, begin, end),
        cmocka_unit_test_setup_teardown(what_is_read_ahead_ends_when_called_off, begin, end),
        cmocka_unit_test_setup_teardown(a_healthy_server_ends_properly_when_called_off, begin, end),
        cmocka_unit_test_setup_teardown(a_dumb_server_is_killed_when_called_off, begin, end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
