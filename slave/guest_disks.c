/* guest_disks.c - a simulated guest that writes to its disks
 *
 * Most write to none: they are there to be moved. With sim-writes-disks a guest has its writable
 * disks open as long as a real one would, from its first run here to its end or until it was sent,
 * and at each tick it writes one line to the beginning of each raw one,
 *
 *     <vm uuid> <epoch> <tick>
 *
 * padded with blanks to DISK_LINE_BYTES. Open files are locked (image_lock.h), as QEMU does it with its images: a guest does not
 * run whose disk someone else has open to write. So whoever looks at copies of all disks of a guest sees
 * whether they are of one moment. A qcow2 file is only held open: what its blocks mean is not known
 * here. That suffices to see from outside, in /proc, whether the guest has gone on in the file that
 * took over the name (hypervisor.h: reopen_disks), and whether it has let a file go that was
 * unplugged. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/model.h"
#include "slave/guest.h"
#include "slave/image_lock.h"

#define DISK_LINE_BYTES 512

/* A disk's file while it is open. */
struct guest_disk_file {
    char *device, *path; /* of guest->devices */
    bool is_raw;
    int fd;
};

static struct guest_disk_file *file_of(const struct guest *guest, const char *device)
{
    for (int i = 0; i < guest->file_count; i++)
        if (streq(guest->files[i].device, device))
            return &guest->files[i];
    return NULL;
}

static int open_path(const char *path, struct guest_error *error)
{
    int fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);

    return fd >= 0 ? fd
                   : guest_fail(error, ERR_INTERNAL_ERROR, "cannot open the disk %s: %s", path,
                                strerror(errno));
}

static int lock_file(int fd, const char *path, struct guest_error *error)
{
    int r = image_lock(fd);

    if (r == -EBUSY)
        return guest_fail(error, ERR_DOMAIN_EXISTS, "someone else has the disk %s open to write", path);
    return r == 0 ? 0
                  : guest_fail(error, ERR_INTERNAL_ERROR, "cannot lock the disk %s: %s", path,
                               strerror(-r));
}

static bool is_same_file(int a, int b)
{
    struct stat of_a, of_b;

    return fstat(a, &of_a) == 0 && fstat(b, &of_b) == 0 && of_a.st_dev == of_b.st_dev
           && of_a.st_ino == of_b.st_ino;
}

static void file_close(struct guest *guest, struct guest_disk_file *file)
{
    close_fd(&file->fd);
    free(file->device);
    free(file->path);
    *file = guest->files[--guest->file_count];
}

int guest_disks_open(struct guest *guest, struct guest_error *error)
{
    if (!guest->options.writes_disks)
        return 0;
    for (int i = 0; i < guest->devices.disk_count; i++) {
        const struct guest_disk *disk = &guest->devices.disks[i];
        _cleanup_(close_fd) int fd = -1;
        int r;

        if (!guest_disk_is_writable(disk) || file_of(guest, disk->device))
            continue;
        fd = open_path(disk->path, error);
        r = fd < 0 ? fd : lock_file(fd, disk->path, error);
        if (r < 0)
            return r;
        guest->files =
            realloc_array(guest->files, (size_t) guest->file_count + 1, sizeof(*guest->files));
        guest->files[guest->file_count++] = (struct guest_disk_file){
            dup_text(disk->device), dup_text(disk->path), streq(disk->format, "raw"), fd};
        fd = -1; /* the guest's */
    }
    return 0;
}

int guest_disks_reopen(struct guest *guest, struct guest_error *error)
{
    for (int i = 0; i < guest->file_count; i++) {
        struct guest_disk_file *file = &guest->files[i];
        _cleanup_(close_fd) int fd = open_path(file->path, error);
        int r;

        if (fd < 0)
            return fd;
        if (is_same_file(fd, file->fd))
            continue;
        r = lock_file(fd, file->path, error);
        if (r < 0)
            return r;
        close_fd(&file->fd);
        file->fd = fd;
        fd = -1; /* the guest's */
    }
    return 0;
}

void guest_disk_close(struct guest *guest, const char *device)
{
    struct guest_disk_file *file = file_of(guest, device);

    if (file)
        file_close(guest, file);
}

void guest_disks_close(struct guest *guest)
{
    while (guest->file_count > 0)
        file_close(guest, &guest->files[guest->file_count - 1]);
    free(guest->files);
    guest->files = NULL;
}

void guest_disks_tick(struct guest *guest)
{
    char vm[UUID_TEXT_BYTES], line[DISK_LINE_BYTES + 1];

    if (guest->file_count == 0)
        return;
    snprintf(line, sizeof line, "%s %llu %llu", uuid_print(vm, guest->vm),
             (unsigned long long) guest->epoch, (unsigned long long) guest->tick);
    memset(line + strlen(line), ' ', sizeof line - strlen(line));
    for (int i = 0; i < guest->file_count; i++) {
        const struct guest_disk_file *file = &guest->files[i];

        if (!file->is_raw || pwrite(file->fd, line, DISK_LINE_BYTES, 0) == DISK_LINE_BYTES
            || guest->has_disk_error)
            continue;
        guest->has_disk_error = true;
        guests_log("%s: cannot write to the disk %s: %s", guest->name, file->path, strerror(errno));
    }
}
