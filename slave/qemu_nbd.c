/* qemu_nbd.c - a qemu-nbd of our own
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
 * A child that does not answer is waited for as long as somebody wants what it has: the disk beneath may be slow, or away. When
 * that is called off it has a second more, so that a healthy one ends properly, and is killed then. */
#include "slave/qemu_nbd.h"

#include <errno.h>
#include <fcntl.h>
#include <libnbd.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "shared/buffer.h"
#include "slave/image_lock.h"
#include "slave/storage.h"

#define CHAIN_MAX 200   /* files: each clone or snapshot of a disk adds one */
#define END_MS    10000 /* for its last writes */
#define LOOK_MS   100   /* so often it is looked whether that was called off which waits */
#define LOOKS_MAX 10    /* afterwards, without a byte from the child, before it is given up */

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
static int start_child(struct qemu_nbd *server, const char *directory, struct chain *chain, bool is_writable)
{
    const char *argv[] = {"sh", "-c", "LISTEN_FDS=1 LISTEN_PID=$$ exec qemu-nbd \"$@\"", "qemu-nbd",
                          "--discard=unmap", buffer_text(&chain->options), is_writable ? NULL : "--read-only", NULL};

    return child_start(&server->child, directory, argv, chain->fds, chain->count);
}

static bool is_cancelled(const struct qemu_nbd *server)
{
    return server->is_cancelled && atomic_load(server->is_cancelled);
}

int qemu_nbd_error(void)
{
    int error = nbd_get_errno();

    return error ? -error : -EIO;
}

/* For something that it says, or to look once more. 0, -ECANCELED when it has been given up, or another negative errno. */
static int wait_for_child(struct qemu_nbd *server)
{
    int n = nbd_poll(server->handle, LOOK_MS);

    if (n < 0)
        return qemu_nbd_error();
    if (n == 0 && is_cancelled(server) && ++server->looks >= LOOKS_MAX)
        server->is_given_up = true;
    return server->is_given_up ? -ECANCELED : 0;
}

int qemu_nbd_finish(struct qemu_nbd *server, int64_t cookie)
{
    int r = server->is_given_up ? -ECANCELED : 0, done;

    if (cookie < 0)
        return qemu_nbd_error();
    while (r == 0 && (done = nbd_aio_command_completed(server->handle, (uint64_t) cookie)) != 1)
        r = done < 0 ? qemu_nbd_error() : wait_for_child(server);
    return r;
}

/* Takes the connection. */
static int shake_hands(struct qemu_nbd *server, int connection)
{
    int r;

    server->handle = nbd_create();
    if (!server->handle) {
        close(connection);
        return -ENOMEM;
    }
    (void) nbd_set_pread_initialize(server->handle, false); /* of a failed read the buffer is nobody's */
    (void) nbd_add_meta_context(server->handle, LIBNBD_CONTEXT_BASE_ALLOCATION);
    if (nbd_aio_connect_socket(server->handle, connection) < 0)
        return -EIO;
    while (nbd_aio_is_connecting(server->handle) == 1)
        if ((r = wait_for_child(server)) < 0)
            return r == -ECANCELED ? r : -EIO;
    if (nbd_aio_is_ready(server->handle) != 1)
        return -EIO;
    server->size = nbd_get_size(server->handle);
    server->knows_holes = nbd_can_meta_context(server->handle, LIBNBD_CONTEXT_BASE_ALLOCATION) == 1;
    return server->size < 0 ? -EIO : 0;
}

/* What it says of a disk that it does not open, without the options, which are no name that anybody knows. */
static int tell_why(struct qemu_nbd *server, const struct chain *chain, const char *name, int error, char *ret_text)
{
    size_t room = chain->options.length + 2 * DISK_IO_TEXT_BYTES;
    _cleanup_(free_p) char *said = alloc0(room);
    const char *options, *why = said;

    child_kill(&server->child);
    child_hear(&server->child, said, room);
    options = strstr(said, chain->options.bytes);
    if (options && strncmp(options + chain->options.length, "': ", 3) == 0)
        why = options + chain->options.length + 3;
    return refuse(ret_text, error, name, why[0] ? why : "qemu-nbd does not answer");
}

int qemu_nbd_start(struct qemu_nbd *server, int dir, const char *directory, const char *name, int alone, bool is_writable,
                   const _Atomic bool *is_cancelled, char ret_text[DISK_IO_TEXT_BYTES])
{
    _cleanup_(chain_done) struct chain chain = {.options.bytes_max = 256 * CHAIN_MAX};
    int connection = -1, r;

    *server = (struct qemu_nbd){.is_cancelled = is_cancelled};
    r = make_sockets(&chain.fds[0], &connection);
    if (r < 0)
        return refuse(ret_text, r, name, "no socket for qemu-nbd");
    chain.count = 1;
    r = open_chain(&chain, dir, name, alone, is_writable, ret_text);
    if (r == 0) {
        r = start_child(server, directory, &chain, is_writable);
        if (r < 0)
            refuse(ret_text, r, name, "qemu-nbd cannot be run");
    }
    if (r < 0) {
        close(connection);
        return r;
    }
    chain_close(&chain); /* were the socket still ours too, the connection would not end with the child */
    r = shake_hands(server, connection);
    return r < 0 && r != -ECANCELED ? tell_why(server, &chain, name, r, ret_text) : r;
}

void qemu_nbd_end(struct qemu_nbd *server)
{
    int wait_ms = END_MS;

    if (is_cancelled(server))
        wait_ms = server->is_given_up ? 0 : LOOKS_MAX * LOOK_MS;
    if (server->handle && !server->is_given_up && nbd_aio_is_ready(server->handle) == 1)
        (void) nbd_aio_disconnect(server->handle, 0); /* the child's answer to it is its end */
    nbd_close(server->handle);
    (void) child_end(&server->child, wait_ms);
    server->handle = NULL;
}
