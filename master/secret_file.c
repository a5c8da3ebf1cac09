/* secret_file.c - one-line secrets in files of our own */
#include "master/secret_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "shared/random.h"

static char *read_line(int fd)
{
    char text[1024];
    ssize_t length = read(fd, text, sizeof text - 1);

    if (length < 0)
        return NULL;
    text[length] = '\0';
    text[strcspn(text, "\r\n")] = '\0';
    return dup_text(text);
}

/* Appears whole or not at all: written beside and renamed, unless somebody else was faster. */
static int make(const char *path, struct random *random)
{
    unsigned char bytes[24];
    char hex[2 * sizeof bytes + 2], beside[4096];
    _cleanup_(close_fd) int fd = -1;
    int r;

    random_bytes(random, bytes, sizeof bytes);
    for (size_t i = 0; i < sizeof bytes; i++)
        snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
    strcat(hex, "\n");
    if (snprintf(beside, sizeof beside, "%s.new-%d", path, (int) getpid()) >= (int) sizeof beside)
        return -ENAMETOOLONG;
    fd = open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    if (write(fd, hex, strlen(hex)) != (ssize_t) strlen(hex) || fsync(fd) < 0
        || (link(beside, path) < 0 && errno != EEXIST))
        r = -errno;
    else
        r = 0;
    unlink(beside);
    return r;
}

char *secret_file_read(const char *path, struct random *random)
{
    _cleanup_(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
    int r;

    if (fd < 0 && errno == ENOENT) {
        r = make(path, random);
        if (r < 0) {
            errno = -r;
            return NULL;
        }
        fd = open(path, O_RDONLY | O_CLOEXEC);
    }
    return fd < 0 ? NULL : read_line(fd);
}
