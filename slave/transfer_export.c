/* transfer_export.c - a VM or a disk as the answer of an HTTP request
 *
 *   op's fiber        take the transfer --------------------------------------------> give it back, result
 *   codec's thread        open disks, entity tag, range   begin | write ... | end
 *
 * An export that was interrupted goes on where it was: the stream of a VM that does not run is the same each time, and
 * the entity tag (RFC 9110, 8.8.3) says so. It is made of all that the stream is made of: the text of ova.xml, of each
 * disk's files size, times and inode, and how it is compressed. With a Range an archive is made twice: first to know its length, which the answer must
 * name, then to send a part of it. */
#include "slave/transfer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <sys/stat.h>

#include "shared/fiber.h"
#include "slave/disk_io.h"
#include "slave/qcow2_write.h"
#include "slave/raw_stream.h"
#include "slave/storage.h"
#include "slave/transfer_pipe.h"
#include "slave/vhd.h"
#include "slave/vhd_write.h"
#include "slave/xva_write.h"

#define TAG_BYTES     40
#define HEADERS_BYTES 1024
#define DISKS_MAX     256

/* What the thread works with; the op's fiber waits meanwhile. */
struct exporting {
    struct op *op;              /* its arena is the thread's while the fiber waits */
    struct transfer *transfer;
    const struct value *disks;  /* of maps */
    const struct value *options;
    const char *ova;            /* NULL: one disk, as it is */
    struct xva_export_disk open[DISKS_MAX];
    unsigned count;
    struct vhd_plan *vhd;       /* of one disk sent as a VHD */
    struct qcow2_plan *qcow2;   /* ... as a qcow2 */
    char tag[TAG_BYTES];
    bool is_part;               /* the client wants these bytes: */
    int64_t from, end;          /* from ... up to end - 1; without is_part all of them, 0 ... */
    int64_t length;             /* of the whole; -1: not known */
    int refused;                /* HTTP status that says what is wrong with the request's conditions, or 0 */
    int result;
    char text[DISK_IO_TEXT_BYTES];
};

/* ---- the disks ---- */

static int open_disk(struct exporting *exporting, const struct value *map)
{
    struct xva_export_disk *disk = &exporting->open[exporting->count];
    struct sr_place place = sr_place_of_disk(map);
    int r = disk_io_open(&disk->io, &place, value_map_text(map, "location", ""), value_map_text(map, "format", ""), false,
                         &exporting->transfer->is_cancelled, exporting->text);

    if (r < 0)
        return r;
    disk->prefix = value_map_text(map, "prefix", "");
    exporting->count++;
    return 0;
}

static int open_disks(struct exporting *exporting)
{
    int r = 0;

    for (uint32_t i = 0; i < exporting->disks->length && r == 0; i++)
        r = open_disk(exporting, &exporting->disks->items[i]);
    return r;
}

static void close_disks(struct exporting *exporting)
{
    while (exporting->count > 0)
        disk_io_close(&exporting->open[--exporting->count].io);
}

/* ---- the entity tag ---- */

static enum compression compression_of(const struct value *options)
{
    const char *text = value_map_text(options, "compression", "none");

    return streq(text, "zstd") ? COMPRESSION_ZSTD : streq(text, "gzip") ? COMPRESSION_GZIP : COMPRESSION_NONE;
}

static void tag_file(EVP_MD_CTX *digest, int dir, const char *name)
{
    char facts[512];
    struct stat st;

    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        memset(&st, 0, sizeof st);
    snprintf(facts, sizeof facts, "%s %ju %jd %jd.%09ld %jd.%09ld\n", name, (uintmax_t) st.st_ino, (intmax_t) st.st_size,
             (intmax_t) st.st_mtim.tv_sec, st.st_mtim.tv_nsec, (intmax_t) st.st_ctim.tv_sec, st.st_ctim.tv_nsec);
    EVP_DigestUpdate(digest, facts, strlen(facts));
}

/* A disk's file, and those that it rests on. */
static void tag_disk(EVP_MD_CTX *digest, const struct value *map)
{
    struct sr_place place = sr_place_of_disk(map);
    char name[256], nobody_asks[STORAGE_TEXT_BYTES];
    _cleanup_(close_fd) int dir = sr_open(&place, nobody_asks);
    const char *format = value_map_text(map, "format", "");
    struct disk_facts facts;

    if (dir < 0)
        return; /* opening it fails, too */
    snprintf(name, sizeof name, "%s", value_map_text(map, "location", ""));
    for (unsigned depth = 0; name[0] && depth < 256; depth++) {
        tag_file(digest, dir, name);
        if (disk_facts(dir, name, format, &facts) < 0)
            return;
        snprintf(name, sizeof name, "%s", facts.backing);
    }
}

static void make_tag(struct exporting *exporting)
{
    unsigned char sum[EVP_MAX_MD_SIZE];
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    const char *format = value_map_text(exporting->options, "format", value_map_text(exporting->options, "compression", ""));
    char recipe[COMPRESS_RECIPE_BYTES];

    compress_recipe(compression_of(exporting->options), recipe);
    EVP_DigestInit_ex(digest, EVP_sha256(), NULL);
    EVP_DigestUpdate(digest, format, strlen(format) + 1);
    EVP_DigestUpdate(digest, recipe, strlen(recipe) + 1);
    EVP_DigestUpdate(digest, XVA_RECIPE, sizeof XVA_RECIPE);
    if (exporting->ova)
        EVP_DigestUpdate(digest, exporting->ova, strlen(exporting->ova));
    for (uint32_t i = 0; i < exporting->disks->length; i++)
        tag_disk(digest, &exporting->disks->items[i]);
    EVP_DigestFinal_ex(digest, sum, NULL);
    EVP_MD_CTX_free(digest);
    snprintf(exporting->tag, sizeof exporting->tag, "\"%02x%02x%02x%02x%02x%02x%02x%02x%02x%02x%02x%02x%02x%02x%02x%02x\"", sum[0],
             sum[1], sum[2], sum[3], sum[4], sum[5], sum[6], sum[7], sum[8], sum[9], sum[10], sum[11], sum[12], sum[13],
             sum[14], sum[15]);
}

/* ---- the stream ---- */

static ref_t uuid_of(const struct exporting *exporting, const char *key)
{
    const char *text = value_map_text(exporting->options, key, "");
    ref_t uuid = NULL_REF;

    (void) uuid_parse(text, strlen(text), &uuid);
    return uuid;
}

/* One disk as a file of its own: its length is known before the answer. A second disk is what the file is based on. */
static int plan_file(struct exporting *exporting)
{
    struct disk_io *disk = exporting->open[0].io, *base = exporting->count > 1 ? exporting->open[1].io : NULL;
    ref_t uuid = uuid_of(exporting, "uuid"), base_uuid = uuid_of(exporting, "base_uuid");
    struct vhd_base vhd_base = {base, base_uuid, 0};
    struct qcow2_base qcow2_base = {base, base_uuid};
    const char *format = value_map_text(exporting->options, "format", "raw");
    int r = 0;

    exporting->length = disk_io_size(disk);
    if (streq(format, "vhd")) {
        r = vhd_plan_make(&exporting->vhd, disk, uuid, 0, base ? &vhd_base : NULL, exporting->text);
        if (r == 0)
            exporting->length = vhd_stream_bytes(exporting->vhd);
    } else if (streq(format, "qcow2")) {
        r = qcow2_plan_make(&exporting->qcow2, disk, base ? &qcow2_base : NULL);
        if (r == 0)
            exporting->length = qcow2_stream_bytes(exporting->qcow2);
    }
    return r;
}

/* An archive, whose length nobody knows before it was made: that of a VM, or of a disk's blocks alone. */
static bool is_archive(const struct exporting *exporting)
{
    return exporting->ova || streq(value_map_text(exporting->options, "format", ""), "tar");
}

/* A part of a stream whose codec makes the whole. */
struct part {
    struct sink sink;
    struct sink *below;
    int64_t skip; /* bytes that come before it */
    int64_t left; /* of it; when none are, the codec is told to end */
};

static int part_write(struct sink *sink, const void *bytes, size_t count)
{
    struct part *part = CONTAINER_OF(sink, struct part, sink);
    size_t skipped = (size_t) MIN(part->skip, (int64_t) count), wanted;
    int r = 0;

    part->skip -= (int64_t) skipped;
    wanted = (size_t) MIN(part->left, (int64_t) (count - skipped));
    part->left -= (int64_t) wanted;
    if (wanted > 0)
        r = part->below->write(part->below, (const char *) bytes + skipped, wanted);
    return r == 0 && part->left == 0 ? -EPIPE : r;
}

/* Bytes `from` ... `end` - 1; -1: up to its end. */
static int write_stream(struct exporting *exporting, int64_t from, int64_t end, struct sink *sink,
                        struct transfer_figures *figures)
{
    struct disk_io *disk = exporting->open[0].io;
    struct part part = {.sink.write = part_write, .below = sink, .left = end < 0 ? INT64_MAX : end - from};
    int r;

    if (is_archive(exporting)) {
        struct xva_export export = {
            .ova = exporting->ova,
            .ova_bytes = exporting->ova ? strlen(exporting->ova) : 0,
            .disks = exporting->open,
            .disk_count = exporting->count,
            .compression = compression_of(exporting->options),
            .skip = from,
        };

        r = xva_write(&export, &part.sink, figures);
    } else if (exporting->vhd || exporting->qcow2) {
        part.skip = from;
        r = exporting->vhd ? vhd_write(exporting->vhd, &part.sink, figures)
                           : qcow2_write(exporting->qcow2, &part.sink, figures);
    } else {
        return raw_export(disk, from, end < 0 ? disk_io_size(disk) : end, sink, figures);
    }
    return part.left == 0 ? 0 : r; /* it has all that it is to have */
}

/* ---- how long is it? ---- */

/* Counts what it is given, and ends with the transfer. */
struct counter {
    struct sink sink;
    struct transfer *transfer;
    int64_t bytes;
};

static int count_bytes(struct sink *sink, const void *bytes, size_t count)
{
    struct counter *counter = CONTAINER_OF(sink, struct counter, sink);

    (void) bytes;
    counter->bytes += (int64_t) count;
    return atomic_load(&counter->transfer->is_cancelled) ? -ECANCELED : 0;
}

static int find_length(struct exporting *exporting)
{
    struct counter counter = {.sink = {.write = count_bytes}, .transfer = exporting->transfer};
    struct transfer_figures nobodys = {0};
    int r;

    if (!is_archive(exporting))
        return plan_file(exporting);
    r = write_stream(exporting, 0, -1, &counter.sink, &nobodys);
    exporting->length = counter.bytes;
    return r;
}

/* ---- conditions: If-Match, Range, If-Range (RFC 9110, 13 and 14) ---- */

/* One range of bytes. */
struct range {
    int64_t first; /* -1: the last `last` bytes */
    int64_t last;  /* -1: all that follow */
};

static int64_t read_number(const char **at)
{
    char *end = (char *) *at;
    int64_t number = **at >= '0' && **at <= '9' ? strtoll(*at, &end, 10) : -1; /* too large a one is as good as the largest */

    *at = end;
    return number;
}

/* "bytes=N-M", "bytes=N-" or "bytes=-N". What is none, or means several, is not looked at, as the RFC has it. */
static bool read_range(const char *text, struct range *ret)
{
    if (!text || strncmp(text, "bytes=", 6) != 0)
        return false;
    text += 6;
    ret->first = read_number(&text);
    if (*text++ != '-')
        return false;
    ret->last = read_number(&text);
    return !*text && (ret->first >= 0 ? ret->last < 0 || ret->last >= ret->first : ret->last >= 0);
}

/* Of the whole, whose length is known: what of it is wanted. Or there is nothing there: 416. */
static void take_range(struct exporting *exporting, const struct range *range)
{
    int64_t length = exporting->length;

    exporting->from = range->first >= 0 ? range->first : length - MIN(range->last, length);
    exporting->end = range->first >= 0 && range->last >= 0 && range->last < length ? range->last + 1 : length;
    if (exporting->from >= length)
        exporting->refused = 416;
    exporting->is_part = true;
}

static int check_conditions(struct exporting *exporting)
{
    const struct transfer *transfer = exporting->transfer;
    struct range range;
    int r = 0;

    exporting->length = exporting->end = -1;
    if (transfer->if_match && !streq(transfer->if_match, "*") && !strstr(transfer->if_match, exporting->tag)) {
        exporting->refused = 412;
        return 0;
    }
    if (!is_archive(exporting))
        r = find_length(exporting);
    if (r < 0 || transfer->is_head || !read_range(transfer->range, &range)
        || (transfer->if_range && !streq(transfer->if_range, exporting->tag)))
        return r;
    if (range.first == 0 && range.last < 0) /* all of it: an archive's length is nobody's concern then */
        return r;
    if (is_archive(exporting))
        r = find_length(exporting);
    if (r == 0)
        take_range(exporting, &range);
    return r;
}

static void begin(struct exporting *exporting, struct pipe *pipe)
{
    const char *task = value_map_text(exporting->options, "task", "");
    char headers[HEADERS_BYTES];
    int used = snprintf(headers, sizeof headers,
                        "content-type: %s\r\ncontent-disposition: attachment; filename=\"%s\"\r\netag: %s\r\n"
                        "accept-ranges: bytes\r\n",
                        value_map_text(exporting->options, "content_type", "application/octet-stream"),
                        value_map_text(exporting->options, "file_name", "export.xva"), exporting->tag);
    int64_t bytes = exporting->length < 0 ? HTTP_LENGTH_UNKNOWN : exporting->length;

    assert(used > 0 && used < (int) sizeof headers - 256);
    if (*task)
        used += snprintf(headers + used, sizeof headers - (size_t) used, "task-id: %s\r\n", task);
    if (exporting->is_part) {
        snprintf(headers + used, sizeof headers - (size_t) used, "content-range: bytes %" PRId64 "-%" PRId64 "/%" PRId64 "\r\n",
                 exporting->from, exporting->end - 1, exporting->length);
        bytes = exporting->end - exporting->from;
    }
    pipe_begin(pipe, exporting->is_part ? 206 : 200, headers, bytes);
}

/* ---- the thread ---- */

static int send_all(struct exporting *exporting)
{
    struct transfer *transfer = exporting->transfer;
    struct pipe *pipe = pipe_new(transfer->ticket, &transfer->figures, transfer_rate_of(transfer), &transfer->place);

    pthread_mutex_lock(&transfer->lock);
    transfer->pipe = pipe; /* a cancel reaches it from now on */
    pthread_mutex_unlock(&transfer->lock);
    if (atomic_load(&transfer->is_cancelled))
        pipe_cancel(pipe);
    begin(exporting, pipe);
    return pipe_end(pipe, transfer->is_head ? 0
                                            : write_stream(exporting, exporting->from, exporting->end, pipe_sink(pipe),
                                                           &transfer->figures));
}

static void export_job(void *arg)
{
    struct exporting *exporting = arg;

    exporting->result = atomic_load(&exporting->transfer->is_cancelled) ? -ECANCELED : open_disks(exporting);
    if (exporting->result == 0) {
        make_tag(exporting);
        exporting->result = check_conditions(exporting);
    }
    if (exporting->result == 0 && !exporting->refused)
        exporting->result = send_all(exporting);
    vhd_plan_destroy(&exporting->vhd);
    qcow2_plan_destroy(&exporting->qcow2);
    close_disks(exporting);
}

/* ---- the calls ---- */

static int refuse_conditions(struct exporting *exporting)
{
    struct op *op = exporting->op;
    const char *task = value_map_text(exporting->options, "task", "");
    const char *header = *task ? op_text(op, "task-id: %s\r\n", task) : "";

    transfer_answer(exporting->transfer, exporting->refused,
                    exporting->refused == 416
                        ? op_text(op, "content-range: bytes */%" PRId64 "\r\n%s", exporting->length, header)
                        : header,
                    exporting->refused == 416 ? "the whole is not so long" : "it is not the same any more");
    return op_fail(op, INVALID_VALUE, exporting->refused == 416 ? "Range" : "If-Match",
                   exporting->refused == 416 ? exporting->transfer->range : exporting->transfer->if_match);
}

static int export_to_client(struct op *op, const char *id, const char *ova, const struct value *disks,
                            const struct value *options, struct value *ret)
{
    _cleanup_(free_p) struct exporting *exporting = new0(struct exporting);
    struct transfer *transfer = NULL;
    bool has_begun;
    int r = 0;

    for (uint32_t i = 0; i < disks->length && r == 0; i++)
        r = transfer_check_disk(op, &disks->items[i]);
    if (r == 0 && disks->length > DISKS_MAX)
        r = op_fail(op, INVALID_VALUE, "disks", op_text(op, "%u", disks->length));
    if (r == 0)
        r = transfer_take(op, id, &transfer);
    if (r < 0)
        return r;
    exporting->op = op;
    exporting->transfer = transfer;
    exporting->ova = ova;
    exporting->disks = disks;
    exporting->options = options;
    r = transfer_work(op, transfer, export_job, exporting);
    if (r == 0 && exporting->result == -EFBIG)
        r = op_fail(op, VDI_TOO_LARGE, value_map_text(options, "uuid", ""), op_text(op, "%lld", VHD_BYTES_MAX));
    else if (r == 0 && exporting->result < 0)
        r = transfer_failed(transfer, exporting->result, exporting->text, false);
    else if (r == 0 && exporting->refused)
        r = refuse_conditions(exporting);
    if (r == 0)
        *ret = op_map(op, "bytes", op_text(op, "%" PRId64, atomic_load(&transfer->figures.stream_bytes)), "etag",
                      exporting->tag, NULL);
    has_begun = transfer->pipe != NULL;
    transfer_give(&transfer, has_begun || exporting->refused);
    return r;
}

int do_export_vm(struct op *op, const struct slave_export_vm_args *args, struct value *ret)
{
    return export_to_client(op, args->transfer, args->ova, args->disks, args->options, ret);
}

int do_export_raw(struct op *op, const struct slave_export_raw_args *args, struct value *ret)
{
    return export_to_client(op, args->transfer, NULL, args->disks, args->options, ret);
}
