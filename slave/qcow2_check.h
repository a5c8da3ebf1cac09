/* qcow2_check.h - is a qcow2 file all there?
 *
 * Readers of qcow2 take what lies behind the end of its file for zeros, so a file that was cut is a disk to them, with holes
 * where its contents were. Here its tables are looked through, before anything is taken from it: that each lies where a table
 * can, and that the file has what they lead to. What kinds of image there are, and which are refused, is its reader's affair.
 *
 * Source: QEMU, docs/interop/qcow2.txt. */
#pragma once

#include "shared/base.h"

#include <stdint.h>

/* Reads the file, of so many bytes. 0; -EFBIG: its disk is larger than disk_bytes, but for a part of a sector; -EBADMSG, which with
 * a file that was whole means that it was damaged; or -EIO and the like of the descriptor. What is no qcow2 at all is 0: nothing
 * can be said of it.
 *
 * The disk's size bounds the work, and is looked at first: all tables of a small file may be one and the same, and describe a
 * disk of 2^61 bytes, which to look through takes hours. */
int qcow2_check(int fd, int64_t file_bytes, int64_t disk_bytes);
