/* decompress.c - gzip and zstd on their way in (decompress.h)
 *
 * libarchive has filters for both; ours are used because its zstd filter takes windows of 128 MiB,
 * and because legacy archives have gzip inside their members, where no filter reaches. */
#include <errno.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "shared/decompress.h"

#define TAR_HEAD_BYTES  512
#define GZIP_OUT_BYTES  ((size_t) 64 * 1024)
#define ZSTD_WINDOW_LOG 23 /* 8 MiB */

/* ---- gzip ---- */

struct gunzip {
    z_stream z;
    bool is_within; /* a member has begun and not ended */
    bool is_begun;  /* any has */
    char out[GZIP_OUT_BYTES];
};

struct gunzip *gunzip_new(void)
{
    struct gunzip *gunzip = new0(struct gunzip);

    if (inflateInit2(&gunzip->z, 15 + 16) != Z_OK) /* 16: gzip, not zlib */
        die("out of memory for gzip");
    return gunzip;
}

void gunzip_destroy(struct gunzip **gunzip_p)
{
    struct gunzip *gunzip = TAKE(*gunzip_p);

    if (!gunzip)
        return;
    inflateEnd(&gunzip->z);
    free(gunzip);
}

void gunzip_begin(struct gunzip *gunzip)
{
    inflateReset(&gunzip->z);
    gunzip->is_within = gunzip->is_begun = false;
}

/* Behind a member comes another one, or zeros: some writers fill up their last record. */
static void skip_zeros(const char **bytes, size_t *count)
{
    for (; *count > 0 && **bytes == 0; (*bytes)++)
        (*count)--;
}

ssize_t gunzip_run(struct gunzip *gunzip, const char **bytes, size_t *count, const char **ret_out)
{
    z_stream *z = &gunzip->z;

    for (;;) {
        uInt available;
        size_t out;
        int r;

        if (!gunzip->is_within && gunzip->is_begun)
            skip_zeros(bytes, count);
        if (!gunzip->is_within && *count == 0)
            return 0;
        gunzip->is_within = gunzip->is_begun = true;
        available = (uInt) MIN(*count, (size_t) 1 << 30);
        z->next_in = (Bytef *) *bytes;
        z->avail_in = available;
        z->next_out = (Bytef *) gunzip->out;
        z->avail_out = GZIP_OUT_BYTES;
        r = inflate(z, Z_NO_FLUSH);
        *bytes += available - z->avail_in;
        *count -= available - z->avail_in;
        out = GZIP_OUT_BYTES - z->avail_out;
        if (r == Z_STREAM_END) {
            inflateReset(z);
            gunzip->is_within = false;
        } else if (r != Z_OK && r != Z_BUF_ERROR) {
            return -EBADMSG;
        }
        if (out > 0) {
            *ret_out = gunzip->out;
            return (ssize_t) out;
        }
        if (*count == 0 && gunzip->is_within)
            return 0;
    }
}

bool gunzip_is_complete(const struct gunzip *gunzip)
{
    return gunzip->is_begun && !gunzip->is_within;
}

/* ---- the source ---- */

enum packing { UNKNOWN, PLAIN, GZIP, ZSTD };

struct decompress {
    struct source source;
    struct source *below;
    enum packing packing;
    int result;     /* the error that every read has from now on */
    bool is_ended;  /* below */
    bool is_within; /* zstd: a frame has begun and not ended */
    bool is_full;   /* zstd: it may have more without more input */
    const char *in; /* of below, not used yet */
    size_t in_count;
    char head[TAR_HEAD_BYTES]; /* the first bytes, which the packing is told by */
    const char *head_at;       /* of them, not used yet: they come before `in` */
    size_t head_count;
    struct gunzip *gunzip;
    ZSTD_DCtx *zstd;
    char *out; /* zstd's */
    size_t out_bytes;
};

static ssize_t decompress_read(struct source *source, const void **ret_bytes);

struct source *decompress_new(struct source *below)
{
    struct decompress *decompress = new0(struct decompress);

    decompress->source.read = decompress_read;
    decompress->source.is_endless = below->is_endless;
    decompress->below = below;
    return &decompress->source;
}

void decompress_destroy(struct source **source_p)
{
    struct source *source = TAKE(*source_p);
    struct decompress *decompress;

    if (!source)
        return;
    decompress = CONTAINER_OF(source, struct decompress, source);
    gunzip_destroy(&decompress->gunzip);
    ZSTD_freeDCtx(decompress->zstd);
    free(decompress->out);
    free(decompress);
}

/* More bytes from below, when those are used up. */
static int fill(struct decompress *decompress)
{
    const void *bytes;
    ssize_t n;

    if (decompress->in_count > 0 || decompress->is_ended)
        return 0;
    n = decompress->below->read(decompress->below, &bytes);
    if (n < 0)
        return (int) n;
    decompress->is_ended = n == 0;
    decompress->in = bytes;
    decompress->in_count = (size_t) n;
    return 0;
}

/* Old tars summed signed bytes. */
static bool is_tar_head(const char *head)
{
    long said = 0, sum = 0, sum_signed = 0;
    unsigned digits = 0;

    for (unsigned i = 148; i < 156; i++)
        if (head[i] >= '0' && head[i] <= '7') {
            said = said * 8 + (head[i] - '0');
            digits++;
        }
    for (unsigned i = 0; i < TAR_HEAD_BYTES; i++) {
        char c = i >= 148 && i < 156 ? ' ' : head[i];

        sum += (unsigned char) c;
        sum_signed += (signed char) c;
    }
    return digits > 0 && (said == sum || said == sum_signed);
}

/* Gather the first record, and look. */
static int recognise(struct decompress *decompress)
{
    const char *head = decompress->head;
    size_t count;

    while (decompress->head_count < TAR_HEAD_BYTES && !decompress->is_ended) {
        size_t n;
        int r = fill(decompress);

        if (r < 0)
            return r;
        n = MIN(decompress->in_count, TAR_HEAD_BYTES - decompress->head_count);
        if (n > 0)
            memcpy(decompress->head + decompress->head_count, decompress->in, n);
        decompress->head_count += n;
        decompress->in += n;
        decompress->in_count -= n;
    }
    decompress->head_at = head;
    count = decompress->head_count;
    if (count == TAR_HEAD_BYTES && is_tar_head(head)) {
        decompress->packing = PLAIN;
    } else if (count >= 4 && memcmp(head, "\x28\xb5\x2f\xfd", 4) == 0) {
        decompress->packing = ZSTD;
        decompress->zstd = ZSTD_createDCtx();
        if (!decompress->zstd)
            die("out of memory for zstd");
        ZSTD_DCtx_setParameter(decompress->zstd, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG);
        decompress->out_bytes = ZSTD_DStreamOutSize();
        decompress->out = alloc0(decompress->out_bytes);
    } else if (count >= 2 && memcmp(head, "\x1f\x8b", 2) == 0) {
        decompress->packing = GZIP;
        decompress->gunzip = gunzip_new();
    } else {
        decompress->packing = PLAIN;
    }
    return 0;
}

static ssize_t unzstd_run(struct decompress *decompress, const char **bytes, size_t *count,
                          const char **ret_out)
{
    while (*count > 0 || decompress->is_full) {
        ZSTD_inBuffer in = {.src = *bytes, .size = *count};
        ZSTD_outBuffer out = {.dst = decompress->out, .size = decompress->out_bytes};
        size_t r = ZSTD_decompressStream(decompress->zstd, &out, &in);

        if (ZSTD_isError(r))
            return ZSTD_getErrorCode(r) == ZSTD_error_frameParameter_windowTooLarge ? -E2BIG : -EBADMSG;
        *bytes += in.pos;
        *count -= in.pos;
        decompress->is_full = out.pos == out.size;
        if (in.pos > 0 || out.pos > 0)
            decompress->is_within = r != 0; /* else it was only asked whether it had more */
        if (out.pos > 0) {
            *ret_out = decompress->out;
            return (ssize_t) out.pos;
        }
    }
    return 0;
}

/* What comes out of these bytes; 0 when they are used up. */
static ssize_t unpack(struct decompress *decompress, const char **bytes, size_t *count,
                      const char **ret_out)
{
    ssize_t n;

    switch (decompress->packing) {
    case GZIP:
        return gunzip_run(decompress->gunzip, bytes, count, ret_out);
    case ZSTD:
        return unzstd_run(decompress, bytes, count, ret_out);
    default:
        *ret_out = *bytes;
        n = (ssize_t) *count;
        *count = 0;
        return n;
    }
}

static bool may_end(const struct decompress *decompress)
{
    return decompress->packing == GZIP ? gunzip_is_complete(decompress->gunzip)
                                       : !decompress->is_within;
}

static ssize_t read_some(struct decompress *decompress, const char **ret_out)
{
    if (decompress->packing == UNKNOWN) {
        int r = recognise(decompress);

        if (r < 0)
            return r;
    }
    for (;;) {
        bool is_head = decompress->head_count > 0;
        ssize_t n = unpack(decompress, is_head ? &decompress->head_at : &decompress->in,
                           is_head ? &decompress->head_count : &decompress->in_count, ret_out);
        int r;

        if (n != 0)
            return n;
        if (decompress->in_count > 0)
            continue; /* behind the head */
        if (decompress->is_ended)
            return may_end(decompress) ? 0 : -EPIPE;
        r = fill(decompress);
        if (r < 0)
            return r;
    }
}

static ssize_t decompress_read(struct source *source, const void **ret_bytes)
{
    struct decompress *decompress = CONTAINER_OF(source, struct decompress, source);
    const char *out = NULL;
    ssize_t n;

    if (decompress->result < 0)
        return decompress->result;
    n = read_some(decompress, &out);
    if (n < 0)
        decompress->result = (int) n;
    *ret_bytes = out;
    return n;
}
