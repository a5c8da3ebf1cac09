/* guest_image.c - a guest in a file: suspend and resume
 *
 *   head      magic, version, VM, epoch, tick, plans, sizes, and the xxh64 of all these
 *   bitmap    a bit a page: which pages follow; the others are zero
 *   pages     4096 bytes each, in order
 *   digest    xxh64 of the guest's whole memory, zero pages too
 *
 * All numbers are 64 bits, little-endian. How long it is follows from the head, so a file that was
 * cut is refused before a page is read, and a wrong byte anywhere by one of the digests. What is
 * behind it does not count: the file is as large as the disk that it is.
 *
 * Writing with fsync and reading take as long as the disk likes, so one thread does them, a job
 * after the other; the guest stands still meanwhile, all others tick. A job belongs to the thread
 * from image_submit() until it comes back through the loop's mailbox. If its guest ends in between,
 * the job keeps the memory it is writing and removes the file. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "shared/model.h"
#include "slave/guest.h"

#define IMAGE_MAGIC   "DROVERSI"
#define IMAGE_VERSION 1

struct image_head {
    char magic[8];
    uint64_t version, vm_hi, vm_lo, epoch, tick, last_tick_ms, plan, plan_left_ms;
    uint64_t page_bytes, page_count, touched_count;
    uint64_t digest; /* of everything before it */
};

/* Of a save's file: whoever moves it to NOT_WANTED removes it if it is WRITTEN; else the thread
 * does, before the next job, which may be of the same name. */
enum image_state { WANTED, WRITTEN, NOT_WANTED };

struct image_job {
    struct loop_item item;
    struct image_job *next;
    struct guests *guests;
    struct guest *guest; /* NULL: it has ended meanwhile. The loop's alone */
    char *path;
    bool is_save;
    atomic_int state; /* enum image_state */
    int cancel_code;  /* told to the agent then */
    struct image_head head;
    struct guest_memory *memory; /* save: the guest's, ours once it has ended; restore: ours until
                                    it is the guest's */
    int result;
    struct guest_error error;
};

struct image_thread {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    struct image_job *first, **last_next;
    bool is_stopping;
};

static void image_done(struct loop_item *item);

static int image_fail(struct image_job *job, const char *what)
{
    return guest_fail(&job->error, ERR_SR_BACKEND_FAILURE, "the suspend image %s %s", job->path,
                      what);
}

static int image_fail_errno(struct image_job *job, const char *what)
{
    return guest_fail(&job->error, ERR_SR_BACKEND_FAILURE, "cannot %s the suspend image %s: %s",
                      what, job->path, strerror(errno));
}

/* --- in the thread: writing --- */

static bool write_all(int fd, const void *bytes, size_t length)
{
    const char *p = bytes;

    while (length > 0) {
        ssize_t n = write(fd, p, MIN(length, (size_t) 1 << 20));

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        p += n;
        length -= (size_t) n;
    }
    return true;
}

/* Pages in runs, so that a full memory is few system calls. */
static bool write_pages(int fd, const struct guest_memory *memory)
{
    uint32_t page = 0, end;

    while (page < memory->page_count) {
        if (!guest_memory_is_touched(memory, page)) {
            page++;
            continue;
        }
        for (end = page; end < memory->page_count && guest_memory_is_touched(memory, end); end++)
            ;
        if (!write_all(fd, guest_memory_page(memory, page),
                       (size_t) (end - page) * GUEST_PAGE_BYTES))
            return false;
        page = end;
    }
    return true;
}

/* The name is durable when its directory is. */
static bool sync_directory_of(const char *path)
{
    _cleanup_(free_p) char *copy = dup_text(path);
    _cleanup_(close_fd) int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return fd >= 0 && fsync(fd) == 0;
}

static size_t bitmap_bytes(uint64_t page_count)
{
    return (page_count + 63) / 64 * 8;
}

static int image_write(struct image_job *job)
{
    _cleanup_(close_fd) int fd = open(job->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    const struct guest_memory *memory = job->memory;
    uint64_t digest = guest_memory_digest(memory);

    if (fd < 0)
        return image_fail_errno(job, "create");
    if (!write_all(fd, &job->head, sizeof(job->head))
        || !write_all(fd, memory->touched, bitmap_bytes(memory->page_count))
        || !write_pages(fd, memory) || !write_all(fd, &digest, sizeof(digest)))
        return image_fail_errno(job, "write");
    if (fsync(fd) < 0 || !sync_directory_of(job->path))
        return image_fail_errno(job, "sync");
    return 0;
}

/* --- in the thread: reading --- */

static bool read_all(int fd, void *bytes, size_t length)
{
    char *p = bytes;

    while (length > 0) {
        ssize_t n = read(fd, p, MIN(length, (size_t) 1 << 20));

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            errno = n == 0 ? EIO : errno;
            return false;
        }
        p += n;
        length -= (size_t) n;
    }
    return true;
}

static uint64_t head_digest(const struct image_head *head)
{
    return XXH64(head, offsetof(struct image_head, digest), 0);
}

/* Everything that can be said before a page is read. */
static int check_head(struct image_job *job, int fd)
{
    const struct image_head *h = &job->head;
    struct stat file;

    if (fstat(fd, &file) < 0)
        return image_fail_errno(job, "read");
    if (!S_ISREG(file.st_mode) || file.st_size < (off_t) sizeof(*h))
        return image_fail(job, "is no suspend image");
    if (!read_all(fd, &job->head, sizeof(*h)))
        return image_fail_errno(job, "read");
    if (memcmp(h->magic, IMAGE_MAGIC, sizeof(h->magic)) != 0)
        return image_fail(job, "is no suspend image");
    if (h->version != IMAGE_VERSION)
        return image_fail(job, "is of a version that we do not know");
    if (h->digest != head_digest(h) || h->page_bytes != GUEST_PAGE_BYTES || h->page_count == 0
        || h->page_count > GUEST_PAGES_MAX || h->touched_count > h->page_count
        || h->plan > PLAN_REBOOT)
        return image_fail(job, "has a damaged head");
    if ((uint64_t) file.st_size
        < sizeof(*h) + bitmap_bytes(h->page_count) + h->touched_count * GUEST_PAGE_BYTES
               + sizeof(uint64_t))
        return image_fail(job, "was cut");
    return 0;
}

static int image_read(struct image_job *job)
{
    _cleanup_(close_fd) int fd = open(job->path, O_RDONLY | O_CLOEXEC);
    _cleanup_(free_p) uint64_t *present = NULL;
    struct guest_memory *memory;
    uint64_t count = 0, digest;
    int r;

    if (fd < 0)
        return image_fail_errno(job, "open");
    r = check_head(job, fd);
    if (r < 0)
        return r;
    memory = job->memory = guest_memory_new((uint32_t) job->head.page_count);
    if (!memory)
        return guest_fail(&job->error, ERR_HOST_NOT_ENOUGH_FREE_MEMORY, "no memory for %llu pages",
                          (unsigned long long) job->head.page_count);
    present = alloc0(bitmap_bytes(memory->page_count));
    if (!read_all(fd, present, bitmap_bytes(memory->page_count)))
        return image_fail_errno(job, "read");
    for (size_t w = 0; w < bitmap_bytes(memory->page_count) / 8; w++)
        count += (uint64_t) __builtin_popcountll(present[w]);
    if (count != job->head.touched_count
        || (memory->page_count % 64 && present[memory->page_count / 64] >> memory->page_count % 64))
        return image_fail(job, "has a damaged table of pages");
    for (uint32_t page = 0; page < memory->page_count; page++) {
        uint8_t bytes[GUEST_PAGE_BYTES];

        if (!(present[page / 64] >> page % 64 & 1))
            continue;
        if (!read_all(fd, bytes, sizeof(bytes)))
            return image_fail_errno(job, "read");
        guest_memory_put(memory, page, bytes);
    }
    if (!read_all(fd, &digest, sizeof(digest)))
        return image_fail_errno(job, "read");
    if (digest != guest_memory_digest(memory))
        return image_fail(job, "is damaged: its digest does not fit");
    return 0;
}

/* --- the thread --- */

static struct image_job *next_job(struct image_thread *t)
{
    struct image_job *job;

    pthread_mutex_lock(&t->mutex);
    while (!t->first && !t->is_stopping)
        pthread_cond_wait(&t->wake, &t->mutex);
    job = t->is_stopping ? NULL : t->first;
    if (job) {
        t->first = job->next;
        if (!t->first)
            t->last_next = &t->first;
    }
    pthread_mutex_unlock(&t->mutex);
    return job;
}

static void *image_main(void *arg)
{
    struct image_thread *t = arg;
    struct image_job *job;

    while ((job = next_job(t))) {
        int wanted = WANTED;

        if (atomic_load(&job->state) == NOT_WANTED)
            job->result = guest_fail(&job->error, ERR_TASK_CANCELLED, "no longer wanted");
        else
            job->result = job->is_save ? image_write(job) : image_read(job);
        if (job->is_save
            && (job->result < 0
                || !atomic_compare_exchange_strong(&job->state, &wanted, (int) WRITTEN)))
            unlink(job->path);
        loop_post(job->guests->loop, &job->item);
    }
    return NULL;
}

static void job_free(struct image_job *job)
{
    if (!job->guest || !job->is_save)
        guest_memory_destroy(&job->memory);
    free(job->path);
    free(job);
}

/* The process ends before the job was begun or heard of; its guest has ended already. */
static void image_drop(struct loop_item *item)
{
    struct image_job *job = CONTAINER_OF(item, struct image_job, item);

    assert(!job->guest);
    job_free(job);
}

static void image_submit(struct image_job *job)
{
    struct guests *guests = job->guests;
    struct image_thread *t = guests->image_thread;

    if (!t) {
        t = guests->image_thread = new0(struct image_thread);
        pthread_mutex_init(&t->mutex, NULL);
        pthread_cond_init(&t->wake, NULL);
        t->last_next = &t->first;
        if (pthread_create(&t->thread, NULL, image_main, t) != 0)
            die("cannot start the image thread");
    }
    pthread_mutex_lock(&t->mutex);
    *t->last_next = job;
    t->last_next = &job->next;
    pthread_cond_signal(&t->wake);
    pthread_mutex_unlock(&t->mutex);
}

void image_thread_stop(struct image_thread **thread_p)
{
    struct image_thread *t = TAKE(*thread_p);

    if (!t)
        return;
    pthread_mutex_lock(&t->mutex);
    t->is_stopping = true;
    pthread_cond_signal(&t->wake);
    pthread_mutex_unlock(&t->mutex);
    pthread_join(t->thread, NULL);
    for (struct image_job *job = t->first, *next; job; job = next) {
        next = job->next;
        image_drop(&job->item);
    }
    pthread_mutex_destroy(&t->mutex);
    pthread_cond_destroy(&t->wake);
    free(t);
}

/* --- save and restore, on the loop --- */

static struct image_job *job_new(struct guest *guest, const char *path, bool is_save)
{
    struct image_job *job = new0(struct image_job);

    job->item = (struct loop_item){.run = image_done, .drop = image_drop};
    job->guests = guest->guests;
    job->guest = guest;
    job->path = dup_text(path);
    job->is_save = is_save;
    return job;
}

/* The job's result is not wanted any more. */
static void job_abandon(struct image_job *job)
{
    if (atomic_exchange(&job->state, (int) NOT_WANTED) == WRITTEN)
        unlink(job->path);
}

static void save_failed(struct guest *guest, int result, const char *text)
{
    if (guest->state == GUEST_RUNNING)
        guest_continue(guest, "resumed");
    guest_work_done(guest, result, text);
}

/* The thread has the job unless suspend-ms is still running; the guest stands still until it comes
 * back. */
static void save_cancel(struct guest *guest, int code, const char *text)
{
    struct image_job *job = guest->work_state;

    if (timer_is_running(&guest->work_timer)) {
        job_free(job);
        save_failed(guest, code, text);
        return;
    }
    job->cancel_code = code;
    job_abandon(job);
}

/* The guest ends: the memory being written stays with the job. */
static void save_drop(struct guest *guest)
{
    struct image_job *job = guest->work_state;

    if (timer_is_running(&guest->work_timer)) {
        job_free(job);
        return;
    }
    job_abandon(job);
    job->guest = NULL;
    job->memory = TAKE(guest->memory);
}

static const struct guest_work save_work = {"being suspended", save_cancel, save_drop};

static void save_due(void *arg)
{
    struct guest *guest = arg;

    image_submit(guest->work_state);
}

void guest_save_begin(struct guest *guest, const struct guest_op *op, const char *path)
{
    struct image_job *job = job_new(guest, path, true);

    guest_hold(guest);
    guest_work_begin(guest, &save_work, op);
    guest->work_state = job;
    job->memory = guest->memory;
    job->head = (struct image_head){
        .magic = IMAGE_MAGIC,
        .version = IMAGE_VERSION,
        .vm_hi = guest->vm.hi,
        .vm_lo = guest->vm.lo,
        .epoch = guest->epoch,
        .tick = guest->tick,
        .last_tick_ms = guest->last_tick_ms,
        .plan = guest->plan,
        .plan_left_ms = guest->plan_left_ms,
        .page_bytes = GUEST_PAGE_BYTES,
        .page_count = guest->memory->page_count,
        .touched_count = guest->memory->touched_count,
    };
    job->head.digest = head_digest(&job->head);
    timer_start(guest->guests->loop, &guest->work_timer, (uint64_t) guest->options.suspend_ms,
                save_due, guest);
}

static void save_done(struct image_job *job)
{
    struct guest *guest = job->guest;

    if (!guest)
        return;
    if (atomic_load(&job->state) == NOT_WANTED) {
        save_failed(guest, job->cancel_code, "the save was cancelled");
    } else if (job->result < 0) {
        save_failed(guest, job->result, job->error.text);
    } else {
        struct guest_op op = guest_work_detach(guest);

        guest_end(guest, GUEST_SAVED);
        guests_answer(&op, 0, "");
    }
}

/* An empty guest is no good to anybody: it goes. */
static void restore_cancel(struct guest *guest, int code, const char *text)
{
    struct image_job *job = guest->work_state;
    struct guest_op op = guest_work_detach(guest);

    if (job) {
        job_abandon(job);
        job->guest = NULL;
    }
    guest_remove(guest);
    guests_answer(&op, code, text);
}

static void restore_drop(struct guest *guest)
{
    struct image_job *job = guest->work_state;

    job_abandon(job);
    job->guest = NULL;
}

static const struct guest_work restore_work = {"being restored", restore_cancel, restore_drop};

void guest_restore_begin(struct guest *guest, const struct guest_op *op, const char *path)
{
    struct image_job *job = job_new(guest, path, false);

    guest_work_begin(guest, &restore_work, op);
    guest->work_state = job;
    guest_set_state(guest, GUEST_RECEIVING);
    image_submit(job);
}

static void restore_done(struct image_job *job)
{
    struct guest *guest = job->guest;

    if (!guest)
        return;
    guest->work_state = NULL; /* the job is back */
    if (job->result < 0) {
        restore_cancel(guest, job->result, job->error.text);
        return;
    }
    guest->memory = TAKE(job->memory);
    guest->tick = job->head.tick;
    guest->last_tick_ms = 0; /* the time in the file did not pass for the guest */
    guest->plan = (enum own_plan) job->head.plan;
    guest->plan_left_ms = job->head.plan_left_ms;
    guest->origin = "restored";
    guest_set_state(guest, GUEST_PAUSED);
    guest_work_done(guest, 0, "");
}

static void image_done(struct loop_item *item)
{
    struct image_job *job = CONTAINER_OF(item, struct image_job, item);

    if (job->is_save)
        save_done(job);
    else
        restore_done(job);
    job_free(job);
}
