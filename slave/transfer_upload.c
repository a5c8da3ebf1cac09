/* transfer_upload.c - the body of an HTTP request as the source of an import's codec */
#include "slave/transfer_upload.h"

#include <errno.h>
#include <stdatomic.h>

#include "slave/transfer_places.h"
#include "slave/transfer_rate.h"

struct upload_source {
    struct source source;
    struct http_upload *upload;
    bool is_open_ended;
    const _Atomic bool *is_cancelled;
    struct transfer_figures *figures;
    struct transfer_rate *rate;
    struct place *place; /* or NULL */
    size_t owed;  /* transfer_rate.h */
    size_t given; /* by the last read, and not yet taken out of the ring */
};

static bool ends_well(const struct upload_source *self, enum http_upload_state state)
{
    return state == HTTP_UPLOAD_COMPLETE || (state == HTTP_UPLOAD_SHORT && self->is_open_ended);
}

static ssize_t read_upload(struct source *source, const void **ret_bytes)
{
    struct upload_source *self = CONTAINER_OF(source, struct upload_source, source);
    enum http_upload_state state;
    const char *bytes;
    size_t count;

    if (self->given > 0) {
        size_t given = self->given;

        self->given = 0; /* whatever comes of the wait */
        http_upload_consumed(self->upload, given);
        atomic_fetch_add(&self->figures->stream_bytes, (int64_t) given);
        if (transfer_rate_wait(self->rate, &self->owed, given, self->is_cancelled) < 0)
            return -ECANCELED;
    }
    if (atomic_load(self->is_cancelled))
        return -ECANCELED;
    count = http_upload_peek(self->upload, &bytes, &state);
    if (count == 0 && state == HTTP_UPLOAD_OPEN) {
        place_lend(self->place);
        count = http_upload_wait(self->upload, &bytes, &state);
        if (count > 0 || ends_well(self, state))
            (void) place_take_back(self->place); /* without one it was cancelled */
    }
    if (atomic_load(self->is_cancelled))
        return -ECANCELED;
    if (count == 0 && !ends_well(self, state))
        return -EPIPE;
    count = MIN(count, transfer_rate_piece(self->rate));
    *ret_bytes = bytes;
    self->given = count;
    return (ssize_t) count;
}

struct upload_source *upload_source_new(struct http_upload *upload, bool is_open_ended, const _Atomic bool *is_cancelled,
                                        struct transfer_figures *figures, struct transfer_rate *rate, struct place *place)
{
    struct upload_source *self = new0(struct upload_source);

    *self = (struct upload_source){
        .source = {.is_endless = is_open_ended, .read = read_upload},
        .upload = upload,
        .is_open_ended = is_open_ended,
        .is_cancelled = is_cancelled,
        .figures = figures,
        .rate = rate,
        .place = place,
    };
    return self;
}

void upload_source_destroy(struct upload_source **self_p)
{
    struct upload_source *self = TAKE(*self_p);

    if (!self)
        return;
    http_upload_unref(&self->upload);
    free(self);
}

struct source *upload_source_of(struct upload_source *self)
{
    return &self->source;
}
