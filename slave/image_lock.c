/* image_lock.c - who writes to a disk's file holds a lock on it */
#include "slave/image_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define LOCKED_BYTE 300 /* need not be inside of the file */

int image_lock(int fd)
{
    struct flock byte = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = LOCKED_BYTE, .l_len = 1};

    if (fcntl(fd, F_OFD_SETLK, &byte) == 0)
        return 0;
    return errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
}
