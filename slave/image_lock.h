/* image_lock.h - who writes to a disk's file holds a lock on it
 *
 * Owner records (owner.c) say who has the right to a disk; this is about who has it open. An operator may declare a host dead
 * whose guest still writes: its right is gone, but until that guest is ended nobody else may open the disk to write. The lock is
 * one byte of the file, far from those that QEMU locks in its images (100 to 207), and belongs to the open file: the kernel
 * frees it when that is closed, however its process ends, and a network file system carries it to other hosts. */
#pragma once

/* On a regular file opened to write. 0; -EBUSY: someone has it open to write; or another negative errno. */
int image_lock(int fd);
