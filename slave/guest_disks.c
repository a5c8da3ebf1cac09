/* guest_disks.c - a simulated guest that writes to its disks
 *
 * Most write to none: they are there to be moved. With sim-writes-disks a guest has its writable
 * disks open as long as a real one would, from its first run here to its end or until it was sent,
 * and at each tick it writes one line to the beginning of each raw one,
 *
 *     <vm uuid> <epoch> <tick>
 *
 * padded with blanks to DISK_LINE_BYTES. So whoever looks at copies of all disks of a guest sees
 * whether they are of one moment. A qcow2 file is only held open: what its blocks mean is not known
 * here. That suffices to see from outside, in /proc, whether the guest has gone on in the file that
 * took over the name (hypervisor.h: reopen_disks). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "shared/model.h"
#include "slave/guest.h"

#define DISK_LINE_BYTES 512
#define PATH_BYTES_MAX  4096

struct guest_disk_file {
    char *path;
    bool is_raw;
    int fd; /* -1: not open */
};

struct guest_disks {
    uint32_t count;
    bool has_error; /* told once */
    struct guest_disk_file files[];
};

static char *text_of(const msgpack_object *object)
{
    char *text;

    if (object->type != MSGPACK_OBJECT_STR || object->via.str.size > PATH_BYTES_MAX)
        return NULL;
    text = alloc0(object->via.str.size + 1);
    memcpy(text, object->via.str.ptr, object->via.str.size);
    return text;
}

struct guest_disks *guest_disks_new(const struct guest_message *request,
                                    const struct guest_options *options)
{
    const msgpack_object *list = guest_message_find(request, "writable");
    struct guest_disks *disks;
    uint32_t count;

    if (!options->writes_disks || !list || list->type != MSGPACK_OBJECT_ARRAY)
        return NULL;
    count = list->via.array.size / 2;
    disks = alloc0(sizeof *disks + count * sizeof disks->files[0]);
    for (uint32_t i = 0; i < count; i++) {
        char *path = text_of(&list->via.array.ptr[2 * i]);
        char *format = text_of(&list->via.array.ptr[2 * i + 1]);

        if (path && format)
            disks->files[disks->count++] =
                (struct guest_disk_file){TAKE(path), streq(format, "raw"), -1};
        free(path);
        free(format);
    }
    return disks;
}

void guest_disks_destroy(struct guest_disks **disks_p)
{
    struct guest_disks *disks = TAKE(*disks_p);

    if (!disks)
        return;
    guest_disks_close(disks);
    for (uint32_t i = 0; i < disks->count; i++)
        free(disks->files[i].path);
    free(disks);
}

/* Those that are not open; or those that are, by their paths anew. */
static int open_files(struct guest_disks *disks, bool are_open, struct guest_error *error)
{
    for (uint32_t i = 0; disks && i < disks->count; i++) {
        struct guest_disk_file *file = &disks->files[i];
        int fd;

        if ((file->fd >= 0) != are_open)
            continue;
        fd = open(file->path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
            return guest_fail(error, ERR_INTERNAL_ERROR, "cannot open the disk %s: %s", file->path,
                              strerror(errno));
        close_fd(&file->fd);
        file->fd = fd;
    }
    return 0;
}

int guest_disks_open(struct guest_disks *disks, struct guest_error *error)
{
    return open_files(disks, false, error);
}

int guest_disks_reopen(struct guest_disks *disks, struct guest_error *error)
{
    return open_files(disks, true, error);
}

void guest_disks_close(struct guest_disks *disks)
{
    for (uint32_t i = 0; disks && i < disks->count; i++)
        close_fd(&disks->files[i].fd);
}

void guest_disks_tick(struct guest *guest)
{
    struct guest_disks *disks = guest->disks;
    char vm[UUID_TEXT_BYTES], line[DISK_LINE_BYTES + 1];

    if (!disks)
        return;
    snprintf(line, sizeof line, "%s %llu %llu", uuid_print(vm, guest->vm),
             (unsigned long long) guest->epoch, (unsigned long long) guest->tick);
    memset(line + strlen(line), ' ', sizeof line - strlen(line));
    for (uint32_t i = 0; i < disks->count; i++) {
        const struct guest_disk_file *file = &disks->files[i];

        if (!file->is_raw || file->fd < 0
            || pwrite(file->fd, line, DISK_LINE_BYTES, 0) == DISK_LINE_BYTES || disks->has_error)
            continue;
        disks->has_error = true;
        guests_log("%s: cannot write to the disk %s: %s", guest->name, file->path, strerror(errno));
    }
}
