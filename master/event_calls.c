/* event_calls.c - the messages of class event: what readers are told
 *
 * event.from is state based and knows nothing of its readers but the token that they bring.
 * event.next remembers, per session, what was registered and up to which generation it told; apart
 * from that it is the same. */
#include <openssl/evp.h>
#include <stdio.h>

#include "master/core.h"
#include "master/events_internal.h"
#include "master/listing.h"
#include "master/record.h"
#include "shared/fiber.h"

#define TIMEOUT_S_MAX 86400
#define TOKEN_DIGITS  20

/* ---- tokens ---- */

static const char *token_text(struct arena *arena, uint64_t generation)
{
    return arena_text(arena, "%0*llu,%0*llu", TOKEN_DIGITS, (unsigned long long) generation,
                      TOKEN_DIGITS, (unsigned long long) generation);
}

static const char *number_end(const char *text, uint64_t *ret)
{
    uint64_t number = 0;
    const char *p = text;

    for (; *p >= '0' && *p <= '9'; p++)
        if (p - text >= TOKEN_DIGITS || __builtin_mul_overflow(number, 10u, &number)
            || __builtin_add_overflow(number, (uint64_t) (*p - '0'), &number))
            return NULL;
    *ret = number;
    return p > text ? p : NULL;
}

/* Both halves are the generation; of a token put together from two, the older counts. */
static bool token_parse(const char *text, uint64_t *ret)
{
    uint64_t first, second;

    *ret = 0;
    if (!*text)
        return true;
    text = number_end(text, &first);
    if (!text || *text != ',')
        return false;
    text = number_end(text + 1, &second);
    if (!text || *text)
        return false;
    *ret = MIN(first, second);
    return true;
}

/* ---- what is told ---- */

struct telling {
    struct listing listing;
    struct events *events;
    struct happenings happenings;
    bool is_next;
    enum { TELL_BEGIN, TELL_EVENTS, TELL_END } step;
    size_t count;
    uint64_t generation, id; /* event.next: of the last event */
    const char *timestamp;
    const char *token;
};

/* event.next's numbers rise over the generations, and by one inside of each. */
static uint64_t next_id(struct telling *telling, uint64_t generation)
{
    uint64_t first;

    if (generation == telling->generation)
        return ++telling->id;
    first = events_first_id(telling->events, generation);
    telling->generation = generation;
    telling->id = MAX(first, telling->id + 1);
    return telling->id;
}

static void write_event(struct telling *telling, const struct happened *happened,
                        const struct writer *writer, struct buffer *out, struct arena *scratch)
{
    uint64_t id = telling->is_next ? next_id(telling, happened->generation) : happened->generation;
    struct value ref = VALUE_REF(happened->ref);
    struct shown shown;

    writer->set_item(out, telling->count++ == 0);
    writer->map_begin(out, 6);
    write_key(writer, out, "id", true);
    write_text(writer, out, arena_text(scratch, "%llu", (unsigned long long) id));
    write_key(writer, out, "timestamp", false);
    write_text(writer, out, telling->timestamp);
    write_key(writer, out, "class", false);
    write_text(writer, out, happened->class->event_name);
    write_key(writer, out, "operation", false);
    write_text(writer, out, happening_names[happened->what]);
    write_key(writer, out, "ref", false);
    writer->value(out, &ref);
    if (happened->object) {
        write_key(writer, out, "snapshot", false);
        record_show(&shown, telling->happenings.view, happened->object, scratch);
        writer->record(out, &shown.record);
    }
    writer->map_end(out, 6);
}

static void write_counts(struct telling *telling, const struct writer *writer, struct buffer *out)
{
    bool is_first = true;

    write_key(writer, out, "valid_ref_counts", false);
    writer->map_begin(out, CLASS_COUNT);
    for (int i = 0; i < CLASS_COUNT; i++) {
        const struct class *class = &model_classes[i];
        struct value count;

        if (!(class->flags & CLASS_IN_DATABASE) || class->flags & CLASS_INTERNAL)
            continue;
        count = VALUE_INT((int64_t) view_count(telling->happenings.view, class));
        count.is_i4 = true;
        write_key(writer, out, class->event_name, is_first);
        writer->value(out, &count);
        is_first = false;
    }
    writer->map_end(out, CLASS_COUNT);
}

static bool tell(struct listing *listing, const struct writer *writer, struct buffer *out,
                 struct arena *scratch)
{
    struct telling *telling = CONTAINER_OF(listing, struct telling, listing);
    bool is_from = !telling->is_next;
    struct happened happened;

    switch (telling->step) {
    case TELL_BEGIN:
        if (is_from) {
            writer->map_begin(out, 3);
            write_key(writer, out, "events", true);
        }
        writer->set_begin(out, telling->happenings.count);
        telling->step = TELL_EVENTS;
        return true;
    case TELL_EVENTS:
        if (happenings_next(&telling->happenings, &happened)) {
            write_event(telling, &happened, writer, out, scratch);
            return true;
        }
        writer->set_end(out, telling->count);
        telling->step = TELL_END;
        return true;
    case TELL_END:
        break;
    }
    if (is_from) {
        write_counts(telling, writer, out);
        write_key(writer, out, "token", false);
        write_text(writer, out, telling->token);
        writer->map_end(out, 3);
    }
    return false;
}

/* The call's reply: what has happened since `after` in the call's view. */
static void tell_since(struct call *call, const struct subscription *subscription, uint64_t after,
                       bool is_next)
{
    struct telling *telling = arena_new0(call->arena, struct telling);
    struct request *request = CONTAINER_OF(call, struct request, call);
    struct events *events = call->core->events;
    uint64_t generation = view_generation(call->view);
    int64_t utc_ms = clock_utc_ms(call->core->clock);

    *telling = (struct telling){
        .listing = {tell},
        .events = events,
        .is_next = is_next,
        .timestamp = is_next ? arena_text(call->arena, "%lld.%03d", (long long) (utc_ms / 1000),
                                          (int) (utc_ms % 1000))
                             : "0.0",
        .token = token_text(call->arena, generation),
    };
    happenings_begin(&telling->happenings, call->arena, call->view, subscription, after, NULL);
    call->listing = &telling->listing;
    if (is_next)
        registration_told(events, call->caller.session, generation);
    if (request->reader)
        reader_answered(request->reader, call, subscription);
}

/* ---- readers ---- */

static const char *trackid(struct call *call)
{
    char text[REF_TEXT_BYTES];
    unsigned char digest[EVP_MAX_MD_SIZE];
    char hex[33];

    ref_print(text, call->caller.session);
    if (!EVP_Digest(text, strlen(text), digest, NULL, EVP_sha256(), NULL))
        return "";
    for (int i = 0; i < 16; i++)
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    return arena_text(call->arena, "trackid=%s", hex);
}

static int events_lost(struct call *call)
{
    registration_end(call->core->events, call->caller.session);
    return fail(call, EVENTS_LOST);
}

static int not_registered(struct call *call)
{
    return fail(call, SESSION_NOT_REGISTERED, trackid(call));
}

void reader_answer(const struct reader *reader)
{
    struct request *request = reader->request;
    struct call *call = &request->call;
    struct subscription subscription;
    uint64_t cursor;
    int r = 0;

    if (!view_get(call->view, session, call->caller.session))
        r = fail(call, SESSION_INVALID, ref_text(call, call->caller.session));
    else if (reader->is_next
             && !registration_read(call->core->events, call->caller.session, call->arena,
                                   &subscription, &cursor))
        r = not_registered(call); /* any more */
    else if (!subscription_missed(&reader->subscription, call->view, reader->cursor))
        tell_since(call, &reader->subscription, reader->cursor, reader->is_next);
    else if (reader->is_next)
        r = events_lost(call);
    else
        tell_since(call, &reader->subscription, 0, false);
    request->answer(request, r, true);
}

/* Answer now, or wait: for something to happen, or for the batch to fill. */
static int tell_or_park(struct reader *reader)
{
    struct request *request = reader->request;
    struct call *call = &request->call;
    struct happenings happenings;
    uint64_t holdoff_ms = 0;
    bool may_wait = request->reader && (reader->is_next || reader->deadline_ms > 0);

    happenings_begin(&happenings, call->arena, call->view, &reader->subscription, reader->cursor,
                     NULL);
    if (happenings.count > 0 && may_wait && reader->cursor > 0)
        holdoff_ms = reader_holdoff_ms(request->reader, call, &reader->subscription);
    if (may_wait && (happenings.count == 0 || holdoff_ms > 0)) {
        uint64_t looked_at = view_generation(call->view);

        if (happenings.count == 0)
            reader->cursor = looked_at;
        return reader_park(reader, looked_at, holdoff_ms);
    }
    tell_since(call, &reader->subscription, reader->cursor, reader->is_next);
    return 0;
}

int event_from(struct call *call, const struct event_from_args *args, struct value *ret)
{
    struct reader reader = {.request = CONTAINER_OF(call, struct request, call)};
    int r;

    (void) ret;
    r = subscription_parse(args->classes, call->arena, &reader.subscription, &call->failure);
    if (r < 0)
        return r;
    if (!token_parse(args->token, &reader.cursor))
        return fail(call, EVENT_FROM_TOKEN_PARSE_FAILURE, args->token);
    if (reader.cursor > view_generation(call->view)
        || !events_knows(call->core->events, reader.cursor)
        || subscription_missed(&reader.subscription, call->view, reader.cursor))
        reader.cursor = 0; /* a token that says nothing here: tell all there is */
    if (args->timeout > 0)
        reader.deadline_ms = clock_now_ms(call->core->clock)
                             + (uint64_t) (MIN(args->timeout, (double) TIMEOUT_S_MAX) * 1000);
    return tell_or_park(&reader);
}

int event_next(struct call *call, const struct event_next_args *args, struct value *ret)
{
    struct reader reader = {.request = CONTAINER_OF(call, struct request, call), .is_next = true};

    (void) args;
    (void) ret;
    if (!registration_read(call->core->events, call->caller.session, call->arena,
                           &reader.subscription, &reader.cursor))
        return not_registered(call);
    if (subscription_missed(&reader.subscription, call->view, reader.cursor))
        return events_lost(call);
    return tell_or_park(&reader);
}

int event_register(struct call *call, const struct event_register_args *args, struct value *ret)
{
    (void) ret;
    return registration_change(call->core->events, call, args->classes, NULL);
}

int event_unregister(struct call *call, const struct event_unregister_args *args, struct value *ret)
{
    (void) ret;
    return registration_change(call->core->events, call, NULL, args->classes);
}

int event_get_current_id(struct call *call, const struct event_get_current_id_args *args,
                         struct value *ret)
{
    (void) args;
    *ret = VALUE_INT((int64_t) events_next_id(call->core->events));
    return 0;
}

/* ---- the barrier ---- */

int event_inject(struct call *call, const struct event_inject_args *args, struct value *ret)
{
    const struct class *class = model_class_any_case(args->class, strlen(args->class));
    _cleanup_(txn_end) struct txn *txn = NULL;
    uint64_t generation;
    ref_t ref;

    if (!class || !(class->flags & CLASS_EVENTS) || class->flags & CLASS_INTERNAL
        || !ref_parse(args->ref, strlen(args->ref), &ref))
        return fail(call, HANDLE_INVALID, args->class, args->ref);
    txn = store_begin(call->core->store);
    if (!view_object(txn_view(txn), class, ref))
        return fail(call, HANDLE_INVALID, args->class, args->ref);
    txn_touch(txn, class, ref);
    generation = store_apply(&txn);
    call->depends = MAX(call->depends, generation);
    store_wait_visible(call->core->store, generation);
    *ret = value_text(token_text(call->arena, generation - 1));
    return 0;
}
