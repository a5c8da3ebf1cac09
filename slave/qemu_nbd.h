/* qemu_nbd.h - a qemu-nbd of our own, which serves one disk to us alone, spoken to by libnbd */
#pragma once

#include "slave/child.h"
#include "slave/disk_io.h"

struct nbd_handle;

struct qemu_nbd {
    struct nbd_handle *handle;        /* connected; commands go through it, and each is waited for by qemu_nbd_finish() */
    struct child child;
    const _Atomic bool *is_cancelled; /* or NULL */
    int looks;                        /* in vain, since that was seen to be true */
    bool is_given_up;                 /* it did not answer: nothing is asked of it any more, and it is killed */
    int64_t size;                     /* of the disk, in bytes */
    bool knows_holes;                 /* it tells of them */
};

/* Open a disk and all that it rests on.
 *
 *   server       all of it is set
 *   dir          the descriptor of the directory in which all of its files lie; `directory` is its name, and in it the child runs
 *   name         of the disk
 *   alone        -1; or a descriptor, the caller's: that is the disk then, it may rest on nothing, and `dir` is not used
 *   is_writable, is_cancelled, ret_text as those of disk_io_open()
 *
 * Returns 0 or a negative errno; qemu_nbd_end() follows in either case. */
int qemu_nbd_start(struct qemu_nbd *server, int dir, const char *directory, const char *name, int alone, bool is_writable,
                   const _Atomic bool *is_cancelled, char ret_text[DISK_IO_TEXT_BYTES]);

/* What has just failed in libnbd: a negative errno. */
int qemu_nbd_error(void);

/* Until the command of this cookie is done, whatever came of it: 0 or a negative errno, libnbd's own if the cookie is its -1. Of
 * -ECANCELED nothing is known, but that no memory of the command's is used any more, since the child is not listened to again. */
int qemu_nbd_finish(struct qemu_nbd *server, int64_t cookie);

/* It ends, properly if it can. From now on no memory of any command's is used. All zeros are fine. */
void qemu_nbd_end(struct qemu_nbd *server);
