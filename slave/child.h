/* child.h - a program that the agent runs for itself, and waits for
 *
 * qemu-img, whose end is its answer, and qemu-nbd, which serves until we let go of it. Both say what is wrong on their
 * standard error. A child is ours to reap, so its number stays its own until child_end. Blocks: for workers. */
#pragma once

#include "shared/base.h"

#include <sys/types.h>

#define CHILD_FIRST_FD 3 /* of those that it is given */

struct child {
    pid_t pid;    /* 0: none */
    int said_fd;  /* what it says: the reading end */
};

/* Run a program, found by PATH, in a directory.
 *
 *   fds    count descriptors that it has from CHILD_FIRST_FD on, in this order; the caller's stay open
 *
 * It has /dev/null for input; what it says and nobody reads is lost beyond a pipe's room, but never holds it up.
 * Returns 0, or a negative errno when it cannot be run. */
int child_start(struct child *ret, const char *directory, const char *const argv[], const int fds[], int count);

/* Read what it says until it ends or closes its output; a text, cut to fit, without the newline at its end. */
void child_hear(struct child *child, char *ret_text, size_t bytes);

/* It ends at once; child_hear then tells its last words, child_end is still due. */
void child_kill(struct child *child);

/* Wait for its end; what is not over after wait_ms (-1: for ever) is killed. 0 when it ended with status 0, else -EIO.
 * Does nothing for a child that is none. */
int child_end(struct child *child, int wait_ms);
