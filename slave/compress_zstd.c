/* compress_zstd.c - zstd in threads of its own (compress.h)
 *
 * libzstd cuts the stream into jobs of JOB_BYTES, whatever the writes and the number of workers were, and puts the results
 * together as one frame. The window is that of level 1. libzstd keeps a job for each worker, a few more and their results in
 * memory. Larger ones cost less processor time, for while a job is handed over a worker has nothing to do; so that they fit,
 * no job is told of the bytes before it, which would be kept a second time for that and gain a thousandth. Whoever reads
 * needs no more than the window. The frame has no checksum: each block in the archive has one, and a second one would cost a
 * tenth of all this. */
#include <errno.h>
#include <stdio.h>
#include <zstd.h>

#include "slave/compress.h"

/* An export is to keep up with the disk; level 3 takes twice the time. */
#define ZSTD_LEVEL 1
#define WINDOW_LOG 19
#define JOB_BYTES  (1152 * 1024)
#define NO_OVERLAP 1

#define OUT_BYTES ((size_t) 64 * 1024)

struct compress_zstd {
    struct compressor base;
    ZSTD_CCtx *context;
    int result; /* the first that went wrong */
    char out[OUT_BYTES];
};

static int zstd_write(struct sink *sink, const void *bytes, size_t count);

static void set_parameter(ZSTD_CCtx *context, ZSTD_cParameter parameter, int value)
{
    size_t r = ZSTD_CCtx_setParameter(context, parameter, value);

    if (ZSTD_isError(r))
        die("libzstd refuses parameter %d = %d: %s", parameter, value, ZSTD_getErrorName(r));
}

struct compressor *compress_zstd_new(unsigned workers)
{
    struct compress_zstd *zstd = new0(struct compress_zstd);

    zstd->base.sink.write = zstd_write;
    zstd->context = ZSTD_createCCtx();
    if (!zstd->context)
        die("out of memory for zstd");
    set_parameter(zstd->context, ZSTD_c_compressionLevel, ZSTD_LEVEL);
    set_parameter(zstd->context, ZSTD_c_windowLog, WINDOW_LOG);
    /* Also with one: a stream made without workers differs from one made with any number of them.
     */
    set_parameter(zstd->context, ZSTD_c_nbWorkers, (int) workers);
    set_parameter(zstd->context, ZSTD_c_jobSize, JOB_BYTES);
    set_parameter(zstd->context, ZSTD_c_overlapLog, NO_OVERLAP);
    return &zstd->base;
}

static int zstd_run(struct compress_zstd *zstd, const void *bytes, size_t count,
                    ZSTD_EndDirective how)
{
    ZSTD_inBuffer in = {.src = bytes, .size = count};
    size_t left;

    do {
        ZSTD_outBuffer out = {.dst = zstd->out, .size = OUT_BYTES};

        if (zstd->result < 0)
            return zstd->result;
        left = ZSTD_compressStream2(zstd->context, &out, &in, how);
        if (ZSTD_isError(left))
            zstd->result = -EIO;
        else if (out.pos > 0)
            zstd->result = zstd->base.below->write(zstd->base.below, zstd->out, out.pos);
    } while (how == ZSTD_e_continue ? in.pos < in.size : left > 0);
    return zstd->result;
}

static int zstd_write(struct sink *sink, const void *bytes, size_t count)
{
    return zstd_run(CONTAINER_OF(sink, struct compress_zstd, base.sink), bytes, count,
                    ZSTD_e_continue);
}

int compress_zstd_end(struct compressor *compressor)
{
    struct compress_zstd *zstd = CONTAINER_OF(compressor, struct compress_zstd, base);
    /* Without the flush, whether a last job that is just full is marked as the last depends on how
     * busy the workers were. */
    int r = zstd_run(zstd, NULL, 0, ZSTD_e_flush);

    return r < 0 ? r : zstd_run(zstd, NULL, 0, ZSTD_e_end);
}

void compress_zstd_destroy(struct compressor *compressor)
{
    struct compress_zstd *zstd = CONTAINER_OF(compressor, struct compress_zstd, base);

    ZSTD_freeCCtx(zstd->context);
    free(zstd);
}

void compress_zstd_recipe(char ret[COMPRESS_RECIPE_BYTES])
{
    snprintf(ret, COMPRESS_RECIPE_BYTES, "zstd %.16s, level %d, %d, %d, %d", ZSTD_versionString(), ZSTD_LEVEL, WINDOW_LOG,
             JOB_BYTES, NO_OVERLAP);
}
