/* disk_nbd.c - a qcow2 disk through a qemu-nbd of its own
 *
 *      agent                                     qemu-nbd, our child
 *      socket() bind() listen()  -- fd 3 ------> takes its one connection from the queue of the socket
 *      connect()                                 serves; ends when the connection ends
 *      unlink()
 *      openat() of the disk and of
 *      each file that it rests on  -- fd 4.. --> opens them as /proc/self/fd/N
 *
 * We connect before the child runs, and the socket's name is gone by then: nobody else can reach it, nothing is left in
 * a directory, and however the agent dies, the child finds the connection closed and ends. Nor does the child open what
 * an image names: files and formats are stated by us, for each was opened here, in the disk's own directory and through
 * no link.
 *
 * A qcow2 is read in pieces, several on their way at once: one after the other the two processes would wait for each
 * other more than they copy.
 *
 * A child that does not answer is waited for as long as somebody wants what it has: the disk beneath may be slow, or away. When
 * that is called off it has a second more, so that a healthy one ends properly, and is killed then. */
#include "slave/disk_nbd.h"

#include <errno.h>
#include <fcntl.h>
#include <libnbd.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "shared/buffer.h"
#include "slave/child.h"
#include "slave/image_lock.h"
#include "slave/storage.h"

#define PIECE_BYTES  (512 * 1024)          /* of one request */
#define PIECES       8                     /* on their way at once */
#define STATUS_BYTES (1024 * 1024 * 1024)  /* of one question for holes, one order for zeros: 32 bits at most */
#define EXTENTS_MAX  4096                  /* remembered of an answer */
#define CHAIN_MAX    200                   /* files: each clone or snapshot of a disk adds one */
#define END_MS       10000                 /* for its last writes */
#define LOOK_MS      100                   /* so often it is looked whether that was called off which waits */
#define LOOKS_MAX    10                    /* afterwards, without a byte from the child, before it is given up */

struct extent {
    int64_t end;
    bool has_data; /* may have */
};

struct disk_nbd {
    struct nbd_handle *nbd; /* connected */
    struct child child;     /* qemu-nbd */
    const _Atomic bool *is_cancelled; /* or NULL */
    int looks;              /* in vain, since that was seen to be true */
    bool is_given_up;       /* the child did not answer: nothing is asked of it any more, and it is killed */
    int64_t size;
    bool knows_holes;       /* the server tells of them */

    /* What the last answer told of [known_at, the last extent's end). */
    int64_t known_at;
    struct extent known[EXTENTS_MAX];
    int known_count;
};

/* ---- the files of a disk ---- */

struct chain {
    int fds[1 + CHAIN_MAX]; /* first the socket, then the disk, then what it rests on */
    int count;
    struct buffer options;  /* QEMU's, as JSON */
};

static void chain_close(struct chain *chain)
{
    while (chain->count > 0)
        close(chain->fds[--chain->count]);
}

static void chain_done(struct chain *chain)
{
    chain_close(chain);
    buffer_done(&chain->options);
}

static int refuse(char *ret_text, int error, const char *name, const char *why)
{
    snprintf(ret_text, DISK_IO_TEXT_BYTES, "%.100s: %.150s", name, why);
    return error;
}

/* Open the disk and all that it rests on. With `alone`, a descriptor or -1, that is the disk, and it may rest on nothing. */
static int open_chain(struct chain *chain, int dir, const char *name, int alone, bool is_writable, char *ret_text)
{
    struct disk_facts facts = {.backing_format = "qcow2"};
    int depth = 0, r;

    snprintf(facts.backing, sizeof facts.backing, "%s", name);
    for (; facts.backing[0]; depth++) {
        char format[sizeof facts.backing_format], file[sizeof facts.backing], options[128];
        int fd;

        strcpy(format, facts.backing_format);
        strcpy(file, facts.backing);
        if (depth > 0 && alone >= 0)
            return refuse(ret_text, -EINVAL, name, "rests on another disk");
        if (depth > 0 && !storage_name_is_good(file))
            return refuse(ret_text, -EINVAL, name, "rests on a file outside its directory");
        if (!streq(format, "qcow2") && !streq(format, "raw"))
            return refuse(ret_text, -EINVAL, file, "its format is not stated, or not one of ours");
        if (chain->count == (int) ARRAY_SIZE(chain->fds))
            return refuse(ret_text, -ELOOP, name, "rests on too many files");
        if (alone < 0)
            fd = dir_open_file(dir, file, is_writable && depth == 0 ? O_RDWR : O_RDONLY);
        else if ((fd = fcntl(alone, F_DUPFD_CLOEXEC, 0)) < 0)
            fd = -errno;
        if (fd < 0)
            return refuse(ret_text, fd, file, fd == -EINVAL || fd == -ELOOP ? "no plain file" : strerror(-fd));
        snprintf(options, sizeof options,
                 "%s\"driver\":\"%s\",\"file\":{\"driver\":\"file\",\"filename\":\"/proc/self/fd/%d\"}",
                 depth ? ",\"backing\":{" : "json:{", format, CHILD_FIRST_FD + chain->count);
        buffer_add_text(&chain->options, options);
        chain->fds[chain->count++] = fd; /* the child has it, too, and with it the lock */
        if (is_writable && depth == 0 && (r = image_lock(fd)) < 0)
            return refuse(ret_text, r, file, r == -EBUSY ? "someone else has it open to write" : strerror(-r));
        r = disk_facts_of(fd, format, &facts);
        if (r < 0)
            return refuse(ret_text, r, file, r == -EBADMSG ? "is no proper qcow2 file" : strerror(-r));
        if (facts.has_data_file)
            return refuse(ret_text, -EINVAL, file, "has its data in another file");
    }
    if (streq(facts.format, "qcow2"))
        buffer_add_text(&chain->options, ",\"backing\":null"); /* whatever it says by now */
    while (depth-- > 0)
        buffer_add_char(&chain->options, '}');
    return 0;
}

/* ---- the child ---- */

/* A connection that waits in the queue of a listening socket, which no longer has a name. */
static int make_sockets(int *ret_listening, int *ret_connection)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *top = getenv("TMPDIR");
    char directory[sizeof address.sun_path - sizeof "/socket"]; /* ours alone: mode 0700 */
    int listening, connection = -1, r = 0;

    if (!top || snprintf(directory, sizeof directory, "%s/drover-nbd-XXXXXX", top) >= (int) sizeof directory)
        snprintf(directory, sizeof directory, "/tmp/drover-nbd-XXXXXX"); /* the names of sockets are short */
    if (!mkdtemp(directory))
        return -errno;
    snprintf(address.sun_path, sizeof address.sun_path, "%s/socket", directory);
    listening = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listening < 0 || bind(listening, (struct sockaddr *) &address, sizeof address) < 0 || listen(listening, 1) < 0)
        r = -errno;
    if (r == 0) {
        connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (connection < 0 || connect(connection, (struct sockaddr *) &address, sizeof address) < 0)
            r = -errno;
    }
    unlink(address.sun_path);
    rmdir(directory);
    if (r < 0) {
        close_fd(&listening);
        close_fd(&connection);
        return r;
    }
    *ret_listening = listening;
    *ret_connection = connection;
    return 0;
}

/* It takes the listening socket as systemd's daemons do: the variables must name its own process. */
static int start_child(struct disk_nbd *disk, const char *directory, struct chain *chain, bool is_writable)
{
    const char *argv[] = {"sh", "-c", "LISTEN_FDS=1 LISTEN_PID=$$ exec qemu-nbd \"$@\"", "qemu-nbd",
                          "--discard=unmap", buffer_text(&chain->options), is_writable ? NULL : "--read-only", NULL};

    return child_start(&disk->child, directory, argv, chain->fds, chain->count);
}

static bool is_cancelled(const struct disk_nbd *disk)
{
    return disk->is_cancelled && atomic_load(disk->is_cancelled);
}

static int failure(void)
{
    int error = nbd_get_errno();

    return error ? -error : -EIO;
}

/* For something that it says, or to look once more. 0, -ECANCELED when it has been given up, or another negative errno. */
static int wait_for_child(struct disk_nbd *disk)
{
    int n = nbd_poll(disk->nbd, LOOK_MS);

    if (n < 0)
        return failure();
    if (n == 0 && is_cancelled(disk) && ++disk->looks >= LOOKS_MAX)
        disk->is_given_up = true;
    return disk->is_given_up ? -ECANCELED : 0;
}

/* Until this command is done, whatever came of it: 0 or a negative errno. Of -ECANCELED nothing is known, but that no memory of the
 * command's is used any more, since the child is not listened to again. */
static int finish(struct disk_nbd *disk, int64_t cookie)
{
    int r = disk->is_given_up ? -ECANCELED : 0, done;

    if (cookie < 0)
        return failure();
    while (r == 0 && (done = nbd_aio_command_completed(disk->nbd, (uint64_t) cookie)) != 1)
        r = done < 0 ? failure() : wait_for_child(disk);
    return r;
}

/* Takes the connection. */
static int shake_hands(struct disk_nbd *disk, int connection)
{
    int r;

    disk->nbd = nbd_create();
    if (!disk->nbd) {
        close(connection);
        return -ENOMEM;
    }
    (void) nbd_set_pread_initialize(disk->nbd, false); /* of a failed read the buffer is nobody's */
    (void) nbd_add_meta_context(disk->nbd, LIBNBD_CONTEXT_BASE_ALLOCATION);
    if (nbd_aio_connect_socket(disk->nbd, connection) < 0)
        return -EIO;
    while (nbd_aio_is_connecting(disk->nbd) == 1)
        if ((r = wait_for_child(disk)) < 0)
            return r == -ECANCELED ? r : -EIO;
    if (nbd_aio_is_ready(disk->nbd) != 1)
        return -EIO;
    disk->size = nbd_get_size(disk->nbd);
    disk->knows_holes = nbd_can_meta_context(disk->nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) == 1;
    return disk->size < 0 ? -EIO : 0;
}

/* What it says of a disk that it does not open, without the options, which are no name that anybody knows. */
static int tell_why(struct disk_nbd *disk, const struct chain *chain, const char *name, int error, char *ret_text)
{
    size_t room = chain->options.length + 2 * DISK_IO_TEXT_BYTES;
    _cleanup_(free_p) char *said = alloc0(room);
    const char *options, *why = said;

    child_kill(&disk->child);
    child_hear(&disk->child, said, room);
    options = strstr(said, chain->options.bytes);
    if (options && strncmp(options + chain->options.length, "': ", 3) == 0)
        why = options + chain->options.length + 3;
    return refuse(ret_text, error, name, why[0] ? why : "qemu-nbd does not answer");
}

static int open_either(struct disk_nbd **ret, int dir, const char *directory, const char *name, int alone, bool is_writable,
                       const _Atomic bool *is_cancelled, char *ret_text)
{
    _cleanup_(chain_done) struct chain chain = {.options.bytes_max = 256 * CHAIN_MAX};
    _cleanup_(disk_nbd_close) struct disk_nbd *disk = new0(struct disk_nbd);
    int connection = -1, r;

    disk->is_cancelled = is_cancelled;
    r = make_sockets(&chain.fds[0], &connection);
    if (r < 0)
        return refuse(ret_text, r, name, "no socket for qemu-nbd");
    chain.count = 1;
    r = open_chain(&chain, dir, name, alone, is_writable, ret_text);
    if (r == 0) {
        r = start_child(disk, directory, &chain, is_writable);
        if (r < 0)
            refuse(ret_text, r, name, "qemu-nbd cannot be run");
    }
    if (r < 0) {
        close(connection);
        return r;
    }
    chain_close(&chain); /* were the socket still ours too, the connection would not end with the child */
    r = shake_hands(disk, connection);
    if (r == -ECANCELED)
        return r;
    if (r < 0)
        return tell_why(disk, &chain, name, r, ret_text);
    *ret = TAKE(disk);
    return 0;
}

int disk_nbd_open(struct disk_nbd **ret, int dir, const char *directory, const char *name, bool is_writable,
                  const _Atomic bool *is_cancelled, char ret_text[DISK_IO_TEXT_BYTES])
{
    return open_either(ret, dir, directory, name, -1, is_writable, is_cancelled, ret_text);
}

int disk_nbd_open_alone(struct disk_nbd **ret, int fd, const _Atomic bool *is_cancelled, char ret_text[DISK_IO_TEXT_BYTES])
{
    return open_either(ret, -1, "/", "the image", fd, false, is_cancelled, ret_text);
}

void disk_nbd_close(struct disk_nbd **disk_p)
{
    struct disk_nbd *disk = *disk_p;
    int wait_ms = END_MS;

    if (!disk)
        return;
    if (is_cancelled(disk))
        wait_ms = disk->is_given_up ? 0 : LOOKS_MAX * LOOK_MS;
    if (disk->nbd && !disk->is_given_up && nbd_aio_is_ready(disk->nbd) == 1)
        (void) nbd_aio_disconnect(disk->nbd, 0); /* the child's answer to it is its end */
    nbd_close(disk->nbd);
    (void) child_end(&disk->child, wait_ms);
    free(disk);
    *disk_p = NULL;
}

int64_t disk_nbd_size(const struct disk_nbd *disk)
{
    return disk->size;
}

/* ---- holes ---- */

static int64_t known_end(const struct disk_nbd *disk)
{
    return disk->known_count ? disk->known[disk->known_count - 1].end : disk->known_at;
}

/* Pairs of bytes and flags; pairs of one kind become one. */
static int learn(void *user_data, const char *context, uint64_t offset, uint32_t *entries, size_t count, _unused_ int *error)
{
    struct disk_nbd *disk = user_data;

    if (!streq(context, LIBNBD_CONTEXT_BASE_ALLOCATION) || (int64_t) offset != disk->known_at || disk->known_count)
        return 0;
    for (size_t i = 0; i + 1 < count; i += 2) {
        bool has_data = !(entries[i + 1] & LIBNBD_STATE_ZERO);
        int64_t end = MIN(known_end(disk) + (int64_t) entries[i], disk->size);

        if (disk->known_count && disk->known[disk->known_count - 1].has_data == has_data)
            disk->known[disk->known_count - 1].end = end;
        else if (disk->known_count < EXTENTS_MAX)
            disk->known[disk->known_count++] = (struct extent){end, has_data};
        else
            break;
    }
    return 0;
}

static int ask(struct disk_nbd *disk, int64_t at)
{
    int r;

    disk->known_at = at;
    disk->known_count = 0;
    r = finish(disk, nbd_aio_block_status(disk->nbd, (uint64_t) MIN(disk->size - at, (int64_t) STATUS_BYTES), (uint64_t) at,
                                          (nbd_extent_callback){.callback = learn, .user_data = disk}, NBD_NULL_COMPLETION, 0));
    if (r < 0)
        return r;
    return known_end(disk) > at ? 0 : -EIO;
}

int disk_nbd_next_data(struct disk_nbd *disk, int64_t at, int64_t *ret_at, int64_t *ret_end)
{
    if (!disk->knows_holes && at < disk->size) {
        *ret_at = at;
        *ret_end = disk->size;
        return 0;
    }
    while (at < disk->size) {
        if (at < disk->known_at || at >= known_end(disk)) {
            int r = ask(disk, at);

            if (r < 0)
                return r;
        }
        for (int i = 0; i < disk->known_count; i++) {
            if (disk->known[i].end <= at)
                continue;
            if (disk->known[i].has_data) {
                *ret_at = at;
                *ret_end = disk->known[i].end;
                return 0;
            }
            at = disk->known[i].end;
        }
    }
    return -ENXIO;
}

/* ---- bytes ---- */

/* A run of requests; cookies of those on their way, the oldest first. */
struct run {
    int64_t cookies[PIECES];
    int first, count;
};

/* Wait for the oldest. */
static int finish_one(struct disk_nbd *disk, struct run *run)
{
    int64_t cookie = run->cookies[run->first];

    run->first = (run->first + 1) % PIECES;
    run->count--;
    return finish(disk, cookie);
}

/* Read into `in`, or write from `out`. After a failure nothing is begun any more, but what is on its way is waited for: it
 * uses the caller's memory, unless the child was given up. */
static int transfer(struct disk_nbd *disk, char *in, const char *out, size_t count, int64_t at)
{
    struct run run = {0};
    int r = 0;

    for (size_t done = 0; (r == 0 && done < count) || run.count > 0;) {
        if (r == 0 && done < count && run.count < PIECES) {
            size_t piece = MIN(count - done, (size_t) PIECE_BYTES);
            uint64_t offset = (uint64_t) at + done;
            int64_t cookie = in ? nbd_aio_pread(disk->nbd, in + done, piece, offset, NBD_NULL_COMPLETION, 0)
                                : nbd_aio_pwrite(disk->nbd, out + done, piece, offset, NBD_NULL_COMPLETION, 0);

            if (cookie < 0) {
                r = failure();
                continue;
            }
            run.cookies[(run.first + run.count++) % PIECES] = cookie;
            done += piece;
        } else {
            int error = finish_one(disk, &run);

            r = r < 0 ? r : error;
        }
    }
    return r;
}

int disk_nbd_read(struct disk_nbd *disk, void *bytes, size_t count, int64_t at)
{
    return transfer(disk, bytes, NULL, count, at);
}

/* What is known to be zeros behind a write stays so. */
static void forget(struct disk_nbd *disk, int64_t at, int64_t end)
{
    if (at >= known_end(disk) || end <= disk->known_at)
        return;
    if (end >= known_end(disk))
        disk->known_count = 0;
    else
        disk->known_at = end;
}

int disk_nbd_write(struct disk_nbd *disk, const void *bytes, size_t count, int64_t at)
{
    forget(disk, at, at + (int64_t) count);
    return transfer(disk, NULL, bytes, count, at);
}

/* Where there are zeros already nothing is written: a new disk would get tables for them. */
int disk_nbd_write_zeros(struct disk_nbd *disk, int64_t count, int64_t at)
{
    int64_t end = at + count;

    while (at < end) {
        int64_t data, data_end;
        int r = disk_nbd_next_data(disk, at, &data, &data_end);

        if (r == -ENXIO || (r == 0 && data >= end))
            return 0;
        if (r < 0)
            return r;
        at = MIN(MIN(data_end, end), data + (int64_t) STATUS_BYTES);
        forget(disk, data, at);
        r = finish(disk, nbd_aio_zero(disk->nbd, (uint64_t) (at - data), (uint64_t) data, NBD_NULL_COMPLETION, 0));
        if (r < 0)
            return r;
    }
    return 0;
}

int disk_nbd_sync(struct disk_nbd *disk)
{
    return finish(disk, nbd_aio_flush(disk->nbd, NBD_NULL_COMPLETION, 0));
}
