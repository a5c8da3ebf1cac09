/* owner.c - owner records: beside each writable disk stands who has the right to it
 *
 *   vm1.raw   vm1.raw.owner: "12 6f1f0c3e-... 0b8e7a51-...\n"      VM epoch, host, VM
 *                            "12 6f1f0c3e-... 0b8e7a51-... free\n" given back by that VM
 *
 * A slave opens no disk whose record is of a higher epoch, or of the same one at another host: an epoch is one host's right.
 * Master and ledger see to it that no guest runs twice; the record
 * is what stays true when an operator says that a host is dead and it is not: its guest may still write for a while, but
 * nobody takes the disk back from the higher epoch, and a host that returns finds its right gone.
 *
 * Epochs are each VM's own. So a disk is given back when its guest has ended or has let it go: then another VM may take it,
 * however young - but none that is resumed, for its memory is older than what the other has written. What is given back stays
 * closed to lower epochs of the same VM, for the same reason as before. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

#include "shared/log.h"
#include "slave/work_in.h"
#include "slave/vms.h"

struct taking {
    const char *disks;          /* paths, each with a newline */
    uint64_t epoch, last_epoch;
    char host[UUID_TEXT_BYTES], vm[UUID_TEXT_BYTES];
    bool is_giving_back;        /* our record becomes free; and that of `epoch` is of `last_epoch` again */
    uint64_t found_epoch;       /* [out] higher than ours, or another host's */
    int error;                  /* [out] 0, or a negative errno */
    char disk[512];             /* [out] where it failed */
};

struct record {
    unsigned long long epoch;
    char host[UUID_TEXT_BYTES], vm[UUID_TEXT_BYTES]; /* vm "": written by an older version */
    bool is_free;                                    /* given back */
};

/* 0, or -EBADMSG. An empty file is a record of nobody. */
static int read_record(int fd, char text[128], struct record *ret)
{
    ssize_t length = pread(fd, text, 127, 0);
    char free_text[8] = "";

    *ret = (struct record){0};
    if (length < 0)
        return -errno;
    text[length] = '\0';
    if (length > 0 && sscanf(text, "%llu %36s %36s %7s", &ret->epoch, ret->host, ret->vm, free_text) < 2)
        return -EBADMSG;
    ret->is_free = streq(free_text, "free");
    return 0;
}

/* Of this VM by this host; of records of older versions that is not known. */
static bool is_ours(const struct record *record, const struct taking *taking)
{
    return streq(record->host, taking->host) && (!record->vm[0] || streq(record->vm, taking->vm));
}

static bool may_take(const struct record *record, const struct taking *taking)
{
    bool is_of_another = record->vm[0] && !streq(record->vm, taking->vm);
    bool is_resumed = taking->last_epoch != taking->epoch;

    if (is_of_another && (record->is_free || is_resumed))
        return !is_resumed;
    if (record->epoch == taking->epoch && is_ours(record, taking))
        return true;
    return record->epoch < taking->epoch && record->epoch <= taking->last_epoch;
}

/* The record's file, locked: 0 or a negative errno. */
static int write_one(struct taking *taking, const char *disk)
{
    char path[sizeof taking->disk + 8], text[128] = "", wanted[128];
    _cleanup_(close_fd) int fd = -1;
    struct record record;
    uint64_t epoch;
    int r;

    snprintf(path, sizeof path, "%s.owner", disk);
    fd = open(path, O_RDWR | (taking->is_giving_back ? 0 : O_CREAT) | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0 && errno == ENOENT && taking->is_giving_back)
        return 0; /* it went with its disk */
    if (fd < 0 || flock(fd, LOCK_EX) < 0)
        return -errno;
    r = read_record(fd, text, &record);
    if (r < 0 || (taking->is_giving_back && !is_ours(&record, taking)))
        return r;
    if (!taking->is_giving_back && !may_take(&record, taking)) {
        taking->found_epoch = record.epoch;
        return 0;
    }
    epoch = !taking->is_giving_back           ? taking->epoch
            : record.epoch == taking->epoch ? taking->last_epoch
                                            : record.epoch;
    snprintf(wanted, sizeof wanted, "%llu %s %s%s\n", (unsigned long long) epoch, taking->host, taking->vm,
             taking->is_giving_back ? " free" : "");
    if (streq(text, wanted))
        return 0;
    if (pwrite(fd, wanted, strlen(wanted), 0) != (ssize_t) strlen(wanted) || ftruncate(fd, (off_t) strlen(wanted)) < 0
        || fsync(fd) < 0)
        return errno ? -errno : -EIO;
    return 0;
}

static void write_all(void *arg)
{
    struct taking *taking = arg;
    const char *at = taking->disks, *end;

    for (; (end = strchr(at, '\n')) && taking->error == 0 && taking->found_epoch == 0; at = end + 1) {
        snprintf(taking->disk, sizeof taking->disk, "%.*s", (int) (end - at), at);
        taking->error = write_one(taking, taking->disk);
    }
}

static struct taking *taking_new(struct op *op, const struct vm *vm, const char *disks)
{
    struct taking *taking = arena_new0(op->arena, struct taking);

    taking->disks = arena_strdup(op->arena, disks);
    uuid_print(taking->host, op->agent->host);
    uuid_print(taking->vm, vm->uuid);
    return taking;
}

void owner_undo(struct op *op, const struct vm *vm, const char *disks, uint64_t epoch, uint64_t last_epoch)
{
    struct failure failure = op->failure;
    struct taking *taking;

    if (!disks || !disks[0])
        return;
    taking = taking_new(op, vm, disks);
    taking->is_giving_back = true;
    taking->epoch = epoch;
    taking->last_epoch = last_epoch;
    op_work_at_paths(op, taking->disks, write_all, taking);
    if (taking->error < 0)
        log_warning(vm->text, "%s cannot be given back: %s", taking->disk, strerror(-taking->error));
    op->failure = failure;
}

void owner_give_back(struct op *op, const struct vm *vm, const char *disks)
{
    owner_undo(op, vm, disks, 0, 0); /* no right has this epoch */
}

int owner_take(struct op *op, const struct vm *vm, const char *disks, uint64_t epoch, uint64_t last_epoch)
{
    struct taking *taking;
    const char *name;

    if (!disks || !disks[0])
        return 0;
    taking = taking_new(op, vm, disks);
    taking->epoch = epoch;
    taking->last_epoch = last_epoch;
    op_work_at_paths(op, taking->disks, write_all, taking);
    name = strrchr(taking->disk, '/') ? strrchr(taking->disk, '/') + 1 : taking->disk;
    if (taking->found_epoch) {
        log_warning(vm->text, "%s: epoch %llu has taken it, ours is %llu", name, (unsigned long long) taking->found_epoch,
                    (unsigned long long) MIN(epoch, last_epoch));
        return op_fail(op, VDI_IN_USE, name, "attach");
    }
    if (taking->error < 0)
        return op_fail(op, SR_BACKEND_FAILURE, op_text(op, "%d", -taking->error), "",
                       op_text(op, "owner record of %s: %s", name, strerror(-taking->error)));
    return 0;
}
