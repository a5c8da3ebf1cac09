/* transfer_import.c - the body of an HTTP request as the disks of a VM, or as one disk
 *
 *   import_open       the body is let through; ova.xml is read and told. What follows waits in the socket
 *                     ... the master makes disks and records ...
 *   import_disks      the rest of the archive, into those disks
 *   import_raw        the whole body, into one disk
 *   transfer_end      (transfer.c) when all of it has its meaning: the answer
 *
 * Clients of HTTP/1.0 wait for a status before they send, and so may those that give no true length: they are told 200 at
 * once, and see a connection that breaks when the import fails. Others are told at the end how it went. (wire.md
 * sections 19 and 28) */
#include "slave/transfer.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/statvfs.h>

#include "shared/fiber.h"
#include "shared/log.h"
#include "slave/disk_io.h"
#include "slave/qcow2_read.h"
#include "slave/raw_stream.h"
#include "slave/storage.h"
#include "slave/transfer_upload.h"
#include "slave/vhd_read.h"
#include "slave/xva_read.h"

#define RING_BYTES     ((size_t) 2 << 20)
#define DISKS_MAX      256
/* Of a client that sends nothing. Whoever exports a disk may read long stretches of zeros without a word: xapi has a sign of life
 * each 5 s, of 1.5 KiB, but where it compresses the stream that keeps hundreds of them back. An hour is 350 GB of zeros at
 * 100 MB/s. Nobody waits for such a client: it lends its place, and gives way (transfer.c). */
#define SILENCE_MS     (60 * 60 * 1000)
/* The text travels to the master in one frame of the link, with room for what surrounds it. */
#define OVA_BYTES_SENT (LINK_FRAME_BYTES_MAX - 65536)

/* ---- the body is let through ---- */

struct opening {
    struct transfer *transfer;
    struct http_upload *upload; /* [out] */
    struct completion *done;
};

static void nobody_listens(struct http_upload *upload, void *arg)
{
    (void) upload; /* the codec's thread waits in http_upload_wait() */
    (void) arg;
}

static void open_upload(struct http_request *request, void *arg)
{
    struct opening *opening = arg;

    if (!request) {
        completion_post(opening->done, -EPIPE);
        return;
    }
    if (request->minor == 0 || opening->transfer->is_open_ended) {
        opening->transfer->is_head_sent = true;
        http_send_head_early(request, 200, opening->transfer->task_header);
    }
    http_close_after(request);
    http_allow_silence(request, SILENCE_MS);
    opening->transfer->is_let_through = true;
    opening->upload = http_consume(request, RING_BYTES, nobody_listens, NULL);
    completion_post(opening->done, 0);
}

/* From the op's fiber, which waits; harmless when it was done before. */
static int open_source(struct op *op, struct transfer *transfer, const struct value *options)
{
    struct opening opening = {.transfer = transfer};
    const char *task = value_map_text(options, "task", "");
    int r = 0;

    if (transfer->source)
        return 0;
    if (*task)
        transfer->task_header = arena_text(transfer->arena, "task-id: %s\r\n", task);
    opening.done = completion_new(op->agent->loop);
    http_ticket_post(transfer->ticket, open_upload, &opening);
    while (completion_wait(opening.done, UINT64_MAX, &r) < 0)
        ; /* the loop's thread works with what is on this stack */
    completion_drop(&opening.done);
    if (r < 0)
        return transfer_failed(transfer, r, "", true);
    transfer->source = upload_source_new(opening.upload, transfer->is_open_ended, &transfer->is_cancelled,
                                         &transfer->figures, transfer_rate_of(transfer), &transfer->place);
    return 0;
}

/* ---- archives ---- */

struct importing {
    struct op *op;              /* its arena is the thread's while the fiber waits */
    struct transfer *transfer;
    const struct value *disks;  /* of maps */
    const struct value *options;
    struct xva_import_disk open[DISKS_MAX];
    unsigned count;
    struct value done;          /* [out] what import_disks answers */
    int64_t room_wanted;        /* [out] when the SR is full: bytes of the disks, */
    int64_t room_most;          /* and what their files have and could still get */
    int result;
    char text[DISK_IO_TEXT_BYTES];
};

static void read_ova_job(void *arg)
{
    struct importing *importing = arg;
    struct transfer *transfer = importing->transfer;

    if (!transfer->reader)
        transfer->reader = xva_reader_new(upload_source_of(transfer->source), &transfer->figures);
    xva_reader_share(transfer->reader, transfer_ova_budget(transfer));
    importing->result = xva_read_ova(transfer->reader, &transfer->ova, &transfer->ova_bytes);
}

static int import_failed(struct importing *importing)
{
    struct op *op = importing->op;

    if (importing->result == -ENOSPC || importing->result == -EDQUOT)
        return op_fail(op, SR_FULL, op_text(op, "%" PRId64, importing->room_wanted),
                       op_text(op, "%" PRId64, importing->room_most));
    return transfer_failed(importing->transfer, importing->result, importing->text, true);
}

/* The file of the disk that a member belongs to, or "none". */
static const char *disk_of(const struct importing *importing, const char *member)
{
    for (uint32_t i = 0; importing->disks && i < importing->disks->length; i++) {
        const struct value *map = &importing->disks->items[i];
        const char *prefix = value_map_text(map, "prefix", "");
        size_t length = strlen(prefix);

        if (*prefix && strncmp(member, prefix, length) == 0 && (!member[length] || member[length] == '/'))
            return value_map_text(map, "location", "");
    }
    return "none";
}

/* What the reader says of the archive, else what a transfer says of its end. Where in the archive has no place in most of the
 * codes, so the log has it. */
static int archive_failed(struct importing *importing)
{
    const struct xva_error *error = importing->transfer->reader ? xva_reader_error(importing->transfer->reader) : NULL;
    const char *params[XVA_ERROR_PARAMS] = {0};

    if ((importing->result != -EBADMSG && importing->result != -EPIPE) || !error || !error->code)
        return import_failed(importing);
    for (unsigned i = 0; i < error->count; i++)
        params[i] = error->params[i];
    log_warning(NULL, "the archive is refused with %s at %s, disk %s", error->code, *error->where ? error->where : "its beginning",
                disk_of(importing, error->where));
    return failure_set_text(&importing->op->failure, importing->op->arena, error->code, error->count, params);
}

int do_import_open(struct op *op, const struct slave_import_open_args *args, struct value *ret)
{
    struct importing importing = {.op = op};
    struct transfer *transfer;
    int r = transfer_take(op, args->transfer, &transfer);

    if (r < 0)
        return r;
    importing.transfer = transfer;
    if (!transfer->ova) /* else the reply was lost, and it is told again */
        r = open_source(op, transfer, args->options);
    if (r == 0 && !transfer->ova)
        r = transfer_work(op, transfer, read_ova_job, &importing);
    if (r == 0 && importing.result == -ENOBUFS)
        r = op_fail(op, TOO_BUSY);
    else if (r == 0 && importing.result < 0)
        r = archive_failed(&importing);
    if (r == 0 && (transfer->ova_bytes > OVA_BYTES_SENT || !text_is_utf8(transfer->ova, transfer->ova_bytes)))
        r = op_fail(op, IMPORT_ERROR, transfer->ova_bytes > OVA_BYTES_SENT
                                          ? op_text(op, "ova.xml has %zu bytes, which is too large: %d at most", transfer->ova_bytes, OVA_BYTES_SENT)
                                          : "ova.xml is no text");
    if (r == 0)
        *ret = op_map(op, "ova", (const char *) arena_dup(op->arena, transfer->ova, transfer->ova_bytes), NULL);
    transfer_give(&transfer, false);
    return r;
}

static int open_disks(struct importing *importing)
{
    for (uint32_t i = 0; i < importing->disks->length; i++) {
        const struct value *map = &importing->disks->items[i];
        struct xva_import_disk *disk = &importing->open[importing->count];
        struct sr_place place = sr_place_of_disk(map);
        int r = disk_io_open(&disk->io, &place, value_map_text(map, "location", ""), value_map_text(map, "format", ""), true,
                             &importing->transfer->is_cancelled, importing->text);

        if (r < 0)
            return r;
        disk->prefix = value_map_text(map, "prefix", "");
        disk->bytes = strtoll(value_map_text(map, "bytes", "0"), NULL, 10);
        importing->count++;
    }
    return 0;
}

/* What the file of a disk is now. Returns the descriptor of its SR's directory, to be closed; negative: unknown. */
static int look_at(const struct value *disk, struct disk_facts *ret)
{
    struct sr_place place = sr_place_of_disk(disk);
    char nobody_asks[STORAGE_TEXT_BYTES];
    int dir = sr_open(&place, nobody_asks);

    *ret = (struct disk_facts){0};
    if (dir >= 0)
        (void) disk_facts(dir, value_map_text(disk, "location", ""), value_map_text(disk, "format", ""), ret);
    return dir;
}

/* A full SR is told of with numbers: what the disks may become, and what there was for them. */
static void find_room(struct importing *importing)
{
    struct statvfs st;

    for (uint32_t i = 0; i < importing->disks->length; i++) {
        struct disk_facts facts;
        _cleanup_(close_fd) int dir = look_at(&importing->disks->items[i], &facts);

        importing->room_wanted += facts.virtual_size;
        importing->room_most += facts.physical_utilisation;
        if (i == 0 && dir >= 0 && fstatvfs(dir, &st) == 0) /* they lie in one SR */
            importing->room_most += (int64_t) (st.f_bavail * st.f_frsize);
    }
}

static void close_disks(struct importing *importing)
{
    while (importing->count > 0)
        disk_io_close(&importing->open[--importing->count].io);
    if (importing->result == -ENOSPC || importing->result == -EDQUOT)
        find_room(importing);
}

/* For the records: what the files take now, and how much of the contents was not what its checksum says. */
static struct value count_done(struct importing *importing)
{
    struct arena *arena = importing->op->arena;
    uint32_t count = importing->disks->length;
    struct value *items = arena_alloc_array(arena, 2 * (size_t) (count + 1), sizeof *items);

    for (uint32_t i = 0; i < count; i++) {
        struct disk_facts facts;
        _cleanup_(close_fd) int dir = look_at(&importing->disks->items[i], &facts);

        (void) dir;
        items[2 * i] = value_text(arena_text(arena, "%" PRIu32, i)); /* prefixes are foreign */
        items[2 * i + 1] = value_text(arena_text(arena, "%" PRId64, facts.physical_utilisation));
    }
    items[2 * count] = value_text("wrong_checksums");
    items[2 * count + 1] = value_text(arena_text(arena, "%" PRIu64, xva_wrong_checksums(importing->transfer->reader)));
    return VALUE_MAP(count + 1, items);
}

static void import_disks_job(void *arg)
{
    struct importing *importing = arg;
    const struct value *options = importing->options;

    xva_forget_ova(importing->transfer->reader); /* the master has it, for it knows the disks */
    importing->transfer->ova = "";
    importing->transfer->ova_bytes = 0;
    importing->result = open_disks(importing);
    if (importing->result == 0) {
        struct xva_import import = {
            .disks = importing->open,
            .count = importing->count,
            .export_vsn = (int) strtol(value_map_text(options, "export_vsn", "2"), NULL, 10),
            .force = streq(value_map_text(options, "force", "false"), "true"),
        };

        importing->result = streq(value_map_text(options, "version", ""), "0.1")
                                ? xva_read_chunks(importing->transfer->reader, &import)
                                : xva_read_disks(importing->transfer->reader, &import);
    }
    close_disks(importing);
    if (importing->result == 0)
        importing->done = count_done(importing);
}

static int check_places(struct op *op, const struct value *disks)
{
    int r = 0;

    if (disks->length > DISKS_MAX)
        return op_fail(op, INVALID_VALUE, "disks", op_text(op, "%u", disks->length));
    for (uint32_t i = 0; i < disks->length && r == 0; i++)
        r = transfer_check_disk(op, &disks->items[i]);
    return r;
}

int do_import_disks(struct op *op, const struct slave_import_disks_args *args, struct value *ret)
{
    _cleanup_(free_p) struct importing *importing = new0(struct importing);
    struct transfer *transfer;
    int r = check_places(op, args->disks);

    if (r == 0)
        r = transfer_take(op, args->transfer, &transfer);
    if (r < 0)
        return r;
    *importing = (struct importing){.op = op, .transfer = transfer, .disks = args->disks, .options = args->options};
    if (!transfer->reader)
        r = op_fail(op, INTERNAL_ERROR, "the archive was not opened before its disks");
    if (r == 0)
        r = transfer_work(op, transfer, import_disks_job, importing);
    if (r == 0 && importing->result < 0)
        r = archive_failed(importing);
    if (r == 0)
        *ret = importing->done;
    transfer_give(&transfer, false);
    return r;
}

/* ---- one disk ---- */

/* Blocks of one disk, in the form that archives of VMs have them. */
static int read_tar(struct importing *importing)
{
    struct transfer *transfer = importing->transfer;
    struct xva_import import = {.disks = importing->open, .count = 1, .export_vsn = 2};
    int r = disk_io_write_zeros(importing->open[0].io, disk_io_size(importing->open[0].io), 0);

    if (r < 0)
        return r; /* an archive of a VM is for new disks: what it leaves out would stay */
    importing->open[0].bytes = disk_io_size(importing->open[0].io);
    transfer->reader = xva_reader_new(upload_source_of(transfer->source), &transfer->figures);
    return xva_read_disks(transfer->reader, &import);
}

static int read_into(struct importing *importing, struct disk_io *disk)
{
    struct transfer *transfer = importing->transfer;
    struct source *source = upload_source_of(transfer->source);
    const struct value *options = importing->options;
    const char *format = value_map_text(options, "format", "raw");

    if (streq(format, "tar"))
        return read_tar(importing);
    if (streq(format, "qcow2"))
        return qcow2_read(disk, source, value_map_text(&importing->disks->items[0], "sr_location", ""), &transfer->figures,
                          importing->text);
    if (streq(format, "vhd"))
        return vhd_read(disk, source, NULL_REF, &transfer->figures, importing->text);
    if (streq(value_map_text(options, "chunked", "false"), "true"))
        return raw_import_chunked(disk, source, &transfer->figures, importing->text);
    return raw_import(disk, source, &transfer->figures, importing->text);
}

static void import_raw_job(void *arg)
{
    struct importing *importing = arg;

    importing->result = open_disks(importing);
    if (importing->result == 0)
        importing->result = read_into(importing, importing->open[0].io);
    if (importing->result == 0)
        importing->result = disk_io_sync(importing->open[0].io);
    close_disks(importing);
}

int do_import_raw(struct op *op, const struct slave_import_raw_args *args, struct value *ret)
{
    _cleanup_(free_p) struct importing *importing = new0(struct importing);
    struct value disks = VALUE_SET(1, args->disk);
    struct transfer *transfer;
    int r = check_places(op, &disks);

    if (r == 0)
        r = transfer_take(op, args->transfer, &transfer);
    if (r < 0)
        return r;
    *importing = (struct importing){.op = op, .transfer = transfer, .disks = &disks, .options = args->options};
    r = open_source(op, transfer, args->options);
    if (r == 0)
        r = transfer_work(op, transfer, import_raw_job, importing);
    if (r == 0 && transfer->reader && importing->result < 0)
        r = archive_failed(importing);
    else if (r == 0 && (importing->result == -EFBIG || importing->result == -EBADMSG || importing->result == -EOPNOTSUPP))
        r = op_fail(op, IMPORT_ERROR, importing->text);
    else if (r == 0 && importing->result < 0)
        r = import_failed(importing);
    if (r == 0)
        *ret = op_map(op, "bytes", op_text(op, "%" PRId64, atomic_load(&transfer->figures.stream_bytes)), NULL);
    transfer_give(&transfer, false);
    return r;
}
