/* owner.c - owner records: beside each writable disk stands who has the right to it
 *
 *   vm1.raw   vm1.raw.owner: "12 6f1f0c3e-...\n"      VM epoch, host
 *
 * A slave opens no disk whose record is of a higher epoch, or of the same one at another host: an epoch is one host's right. Master and ledger see to it that no guest runs twice; the record
 * is what stays true when an operator says that a host is dead and it is not: its guest may still write for a while, but
 * nobody takes the disk back from the higher epoch, and a host that returns finds its right gone. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

#include "slave/vms.h"

struct taking {
    const char *disks;          /* paths, each with a newline */
    uint64_t epoch, last_epoch;
    char host[UUID_TEXT_BYTES];
    uint64_t found_epoch;       /* [out] higher than ours, or another host's */
    int error;                  /* [out] 0, or a negative errno */
    char disk[512];             /* [out] where it failed */
};

/* The record's file, locked: 0 or a negative errno. */
static int take_one(struct taking *taking, const char *disk)
{
    char path[sizeof taking->disk + 8], text[128] = "", wanted[128], host[UUID_TEXT_BYTES] = "";
    _cleanup_(close_fd) int fd = -1;
    unsigned long long epoch = 0;
    ssize_t length;
    bool is_ours;

    snprintf(path, sizeof path, "%s.owner", disk);
    fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0 || flock(fd, LOCK_EX) < 0)
        return -errno;
    length = pread(fd, text, sizeof text - 1, 0);
    if (length < 0)
        return -errno;
    if (length > 0 && sscanf(text, "%llu %36s", &epoch, host) != 2)
        return -EBADMSG;
    is_ours = epoch == taking->epoch && streq(host, taking->host);
    if (!is_ours && (epoch >= taking->epoch || epoch > taking->last_epoch)) {
        taking->found_epoch = epoch;
        return 0;
    }
    snprintf(wanted, sizeof wanted, "%llu %s\n", (unsigned long long) taking->epoch, taking->host);
    if (streq(text, wanted))
        return 0;
    if (pwrite(fd, wanted, strlen(wanted), 0) != (ssize_t) strlen(wanted) || ftruncate(fd, (off_t) strlen(wanted)) < 0
        || fsync(fd) < 0)
        return errno ? -errno : -EIO;
    return 0;
}

static void take_all(void *arg)
{
    struct taking *taking = arg;
    const char *at = taking->disks, *end;

    for (; (end = strchr(at, '\n')) && taking->error == 0 && taking->found_epoch == 0; at = end + 1) {
        snprintf(taking->disk, sizeof taking->disk, "%.*s", (int) (end - at), at);
        taking->error = take_one(taking, taking->disk);
    }
}

int owner_take(struct op *op, const char *disks, uint64_t epoch, uint64_t last_epoch)
{
    struct taking *taking = arena_new0(op->arena, struct taking);
    const char *name;
    int r;

    if (!disks || !disks[0])
        return 0;
    taking->disks = arena_strdup(op->arena, disks);
    taking->epoch = epoch;
    taking->last_epoch = last_epoch;
    uuid_print(taking->host, op->agent->host);
    r = op_work(op, take_all, taking);
    if (r < 0)
        return r;
    name = strrchr(taking->disk, '/') ? strrchr(taking->disk, '/') + 1 : taking->disk;
    if (taking->found_epoch)
        return op_fail(op, VDI_IN_USE, name,
                       op_text(op, "epoch %llu has taken it, ours is %llu", (unsigned long long) taking->found_epoch,
                               (unsigned long long) MIN(epoch, last_epoch)));
    if (taking->error < 0)
        return op_fail(op, SR_BACKEND_FAILURE, op_text(op, "%d", -taking->error), "",
                       op_text(op, "owner record of %s: %s", name, strerror(-taking->error)));
    return 0;
}
