/* hung_disk.c - a directory whose disk does not answer, for one process
 *
 *     LD_PRELOAD=libtest_preload.so DROVER_TEST_HUNG=DIRECTORY drover-slave ...
 *
 * As long as there is a file DIRECTORY.hangs, whoever opens, reads, writes or syncs a file in the directory waits, as on a network
 * file system whose server is away; it goes on when that file is gone. With a file DIRECTORY.sums_hang only those wait who ask how
 * full its file system is; DIRECTORY.sums_asked gets a byte from each who asks. Calls that the programs make on disks' files are here, not all that there are. */
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define LOOK_US 20000

static char directory[PATH_MAX], flag[PATH_MAX + 8], sums_flag[PATH_MAX + 16], sums_asked[PATH_MAX + 16];

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("DROVER_TEST_HUNG");

    if (path) {
        snprintf(directory, sizeof directory, "%s", path);
        snprintf(flag, sizeof flag, "%s.hangs", path);
        snprintf(sums_flag, sizeof sums_flag, "%s.sums_hang", path);
        snprintf(sums_asked, sizeof sums_asked, "%s.sums_asked", path);
    }
}

static bool is_inside(const char *path)
{
    size_t length = strlen(directory);

    return strncmp(path, directory, length) == 0 && (path[length] == '/' || path[length] == '\0');
}

static bool hangs(void)
{
    return directory[0] && access(flag, F_OK) == 0;
}

static void wait_path(const char *path)
{
    while (hangs() && is_inside(path))
        usleep(LOOK_US);
}

/* The path of an open file; false: it has none. */
static bool find_path(int fd, char path[PATH_MAX])
{
    char link[64];
    ssize_t length;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, PATH_MAX - 1);
    path[length > 0 ? length : 0] = '\0';
    return length > 0;
}

static void wait_fd(int fd)
{
    char path[PATH_MAX];

    if (hangs() && find_path(fd, path))
        wait_path(path);
}

static void wait_at(int dir, const char *name)
{
    if (name[0] == '/' || dir == AT_FDCWD)
        wait_path(name);
    else
        wait_fd(dir);
}

#define NEXT(name) ((__typeof__(&name)) dlsym(RTLD_NEXT, #name))

static mode_t mode_of(int flags, va_list args)
{
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
}

#define OPEN(name_)                                                                                \
    int name_(const char *path, int flags, ...)                                                    \
    {                                                                                              \
        va_list args;                                                                              \
        mode_t mode;                                                                               \
                                                                                                   \
        va_start(args, flags);                                                                     \
        mode = mode_of(flags, args);                                                               \
        va_end(args);                                                                              \
        wait_path(path);                                                                           \
        return NEXT(name_)(path, flags, mode);                                                     \
    }

#define OPENAT(name_)                                                                              \
    int name_(int dir, const char *path, int flags, ...)                                           \
    {                                                                                              \
        va_list args;                                                                              \
        mode_t mode;                                                                               \
                                                                                                   \
        va_start(args, flags);                                                                     \
        mode = mode_of(flags, args);                                                               \
        va_end(args);                                                                              \
        wait_at(dir, path);                                                                        \
        return NEXT(name_)(dir, path, flags, mode);                                                \
    }

OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

ssize_t pread(int fd, void *bytes, size_t count, off_t at)
{
    wait_fd(fd);
    return NEXT(pread)(fd, bytes, count, at);
}

ssize_t pread64(int fd, void *bytes, size_t count, off64_t at)
{
    wait_fd(fd);
    return NEXT(pread64)(fd, bytes, count, at);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at)
{
    wait_fd(fd);
    return NEXT(pwrite)(fd, bytes, count, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at)
{
    wait_fd(fd);
    return NEXT(pwrite64)(fd, bytes, count, at);
}

int fsync(int fd)
{
    wait_fd(fd);
    return NEXT(fsync)(fd);
}

int fdatasync(int fd)
{
    wait_fd(fd);
    return NEXT(fdatasync)(fd);
}

struct dirent *readdir(DIR *dir)
{
    wait_fd(dirfd(dir));
    return NEXT(readdir)(dir);
}

static void wait_sums(int fd)
{
    char path[PATH_MAX];
    int asked;

    if (!directory[0] || !find_path(fd, path) || !is_inside(path))
        return;
    asked = NEXT(open)(sums_asked, O_WRONLY | O_CREAT | O_APPEND, 0600);
    (void) !write(asked, ".", 1);
    close(asked);
    while (access(sums_flag, F_OK) == 0)
        usleep(LOOK_US);
}

int fstatvfs(int fd, struct statvfs *ret)
{
    wait_sums(fd);
    return NEXT(fstatvfs)(fd, ret);
}

int fstatvfs64(int fd, struct statvfs64 *ret)
{
    wait_sums(fd);
    return NEXT(fstatvfs64)(fd, ret);
}
