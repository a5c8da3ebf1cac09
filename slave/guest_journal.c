/* guest_journal.c - a guest's lock, and the journal in which it proves where it ran
 *
 * While a guest can run it holds an exclusive lock on its lock file, which lies where every host of
 * the pool sees it: an open-file-description lock, which the kernel frees when the process dies,
 * however it dies. Who does not get the lock does not run: there is another guest of that VM. A
 * guest paused by its agent keeps the lock; one that was sent has given it away.
 *
 * The journal is a text file beside it. Each line is one write() to a file opened with O_APPEND, so
 * the lines of two writers never mix and their order in the file is the order in which they
 * happened; nothing is held back in the process, so SIGKILL loses no line of what the guest did.
 *
 *     <host uuid> <epoch> <tick> <boot time ms>              a tick
 *     # <host uuid> <epoch> <tick> <boot time ms> <what>     a note; the tick is the last one made
 *
 *   what:  run boot, run restored, run received
 *              runs here for the first time; the lock was just taken
 *          run unpaused, run resumed
 *              runs on after a pause, or after a move or save that came to nothing
 *          pause
 *              stands still, the lock is kept: paused, or near the end of a move or save
 *          stop sent, saved, shutdown, reboot, crash, killed
 *              no longer here; the lock is freed next
 *
 * A process that was killed leaves no "stop". Boot times of two machines cannot be compared.
 * tests/journal.py reads journals and judges them. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "shared/model.h"
#include "slave/guest.h"

int guest_files_open(struct guest *guest, struct guest_error *error)
{
    struct flock whole_file = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int r;

    if (guest->lock_path && guest->lock_fd < 0) {
        guest->lock_fd = open(guest->lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (guest->lock_fd < 0)
            return guest_fail(error, ERR_INTERNAL_ERROR, "cannot open the lock file %s: %s",
                              guest->lock_path, strerror(errno));
        if (fcntl(guest->lock_fd, F_OFD_SETLK, &whole_file) < 0) {
            int lock_errno = errno;

            guest_files_close(guest);
            if (lock_errno == EAGAIN || lock_errno == EACCES)
                return guest_fail(error, ERR_DOMAIN_EXISTS,
                                  "another guest of this VM can run: it holds the lock %s",
                                  guest->lock_path);
            return guest_fail(error, ERR_INTERNAL_ERROR, "cannot lock %s: %s", guest->lock_path,
                              strerror(lock_errno));
        }
    }
    if (guest->journal_path && guest->journal_fd < 0) {
        guest->journal_fd =
            open(guest->journal_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
        if (guest->journal_fd < 0) {
            guest_fail(error, ERR_INTERNAL_ERROR, "cannot open the journal %s: %s",
                       guest->journal_path, strerror(errno));
            guest_files_close(guest);
            return -ERR_INTERNAL_ERROR;
        }
    }
    r = guest_disks_open(guest, error);
    if (r < 0)
        guest_files_close(guest);
    return r;
}

void guest_files_close(struct guest *guest)
{
    guest_disks_close(guest);
    close_fd(&guest->journal_fd);
    close_fd(&guest->lock_fd); /* frees the lock */
}

/* One line, one write. A journal that cannot be written does not stop the guest: the missing line
 * is the proof that something is wrong, and the log says what. */
static void append(struct guest *guest, const char *line, size_t length)
{
    ssize_t n = write(guest->journal_fd, line, length);

    if (n == (ssize_t) length || guest->has_journal_error)
        return;
    guest->has_journal_error = true;
    guests_log("%s: cannot write the journal %s: %s", guest->name, guest->journal_path,
               n < 0 ? strerror(errno) : "disk full");
}

void guest_journal_tick(struct guest *guest)
{
    char line[160];
    int length;

    if (guest->journal_fd < 0)
        return;
    length = snprintf(line, sizeof(line), "%s %llu %llu %llu\n", guest->guests->host_uuid,
                      (unsigned long long) guest->epoch, (unsigned long long) guest->tick,
                      (unsigned long long) guest->last_tick_ms);
    append(guest, line, (size_t) length);
}

void guest_journal_note(struct guest *guest, const char *word, const char *detail)
{
    char line[200];
    int length;

    if (guest->journal_fd < 0)
        return;
    length = snprintf(line, sizeof(line), "# %s %llu %llu %llu %s%s%s\n", guest->guests->host_uuid,
                      (unsigned long long) guest->epoch, (unsigned long long) guest->tick,
                      (unsigned long long) loop_now_ms(guest->guests->loop), word,
                      detail[0] ? " " : "", detail);
    append(guest, line, (size_t) length);
}
