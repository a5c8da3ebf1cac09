/* event_wait.c - readers that wait on an HTTP loop
 *
 * All of this belongs to one loop; from other threads come two messages, "these classes have
 * changed" and "this session's registration has". A reader stands in the list of each class that it
 * wants whole and in a table under each object that it named, and in one under its session. What it
 * does not do is hold a view: it looks again with a new one, at the classes that have changed since
 * it looked last.
 *
 * No wake-up is lost: a reader first says that it is interested, then asks whether a generation
 * became visible that it has not seen; the core first makes a generation visible, then asks who is
 * interested. */
#include <event2/event.h>

#include "master/core.h"
#include "master/events_internal.h"
#include "shared/http.h"

#define BATCH_MS     50 /* at least so long between two answers to a reader */
#define OBJECT_SLOTS 4096
#define RECENT_SLOTS 4096

struct waiter;

/* A waiter's place in a list of those who want the same. */
struct place {
    struct waiter *waiter;
    struct place **back, *next;
    const struct class *class; /* of a named object: */
    ref_t ref;
};

struct waiter {
    struct reader reader;
    struct reader_loop *loop;
    struct place *places; /* place_count of them; the first is the session's */
    size_t place_count;
    bool is_marked; /* on the list of those to look again */
    struct waiter *next_marked;
    uint64_t changed[2]; /* classes that may have changed since it looked last */
    bool is_holding_off; /* for its batch */
    struct event *timer; /* deadline or end of the batch; NULL: none */
};

/* When a reader was answered last; one that was pushed out of its slot is taken for a new one. */
struct recent {
    uint64_t key, answered_ms;
};

struct reader_loop {
    struct events *events;
    struct http_loop *http;
    struct place *classes[CLASS_COUNT];
    unsigned class_count[CLASS_COUNT]; /* waiters interested in the class, whole or in objects */
    struct place *objects[OBJECT_SLOTS];
    unsigned object_count[CLASS_COUNT]; /* places in `objects` */
    uint64_t objects_seen[CLASS_COUNT]; /* the generation up to which changes of named objects were
                                           looked up */
    struct place *sessions[OBJECT_SLOTS];
    uint64_t sessions_seen;
    size_t waiter_count;
    struct waiter *marked;
    struct arena *scratch;
    struct recent recent[RECENT_SLOTS];

    _Atomic uint64_t interest[2]; /* classes with a waiter */
    _Atomic uint64_t news[2];     /* classes that have changed since the last wake-up */
    _Atomic bool is_posted;
};

static uint64_t loop_ms(const struct reader_loop *loop)
{
    return clock_now_ms(loop->events->core->clock);
}

/* ---- batches ---- */

static uint64_t reader_key(const struct call *call, const struct subscription *subscription)
{
    uint64_t key = call->caller.session.hi ^ call->caller.session.lo;

    key = (key ^ subscription->classes[0]) * 0x9e3779b97f4a7c15u;
    key = (key ^ subscription->classes[1]) * 0x9e3779b97f4a7c15u;
    for (unsigned i = 0; i < subscription->object_count; i++)
        key = (key ^ subscription->objects[i].ref.lo) * 0x9e3779b97f4a7c15u;
    return key ^ key >> 32;
}

uint64_t reader_holdoff_ms(struct reader_loop *loop, const struct call *call,
                           const struct subscription *subscription)
{
    uint64_t key = reader_key(call, subscription), now = loop_ms(loop);
    const struct recent *recent = &loop->recent[key % RECENT_SLOTS];

    if (recent->key != key || recent->answered_ms + BATCH_MS <= now)
        return 0;
    return recent->answered_ms + BATCH_MS - now;
}

void reader_answered(struct reader_loop *loop, const struct call *call,
                     const struct subscription *subscription)
{
    uint64_t key = reader_key(call, subscription);

    loop->recent[key % RECENT_SLOTS] = (struct recent){key, loop_ms(loop)};
}

/* ---- who waits for what ---- */

static void place_add(struct place **list, struct place *place)
{
    place->next = *list;
    place->back = list;
    if (place->next)
        place->next->back = &place->next;
    *list = place;
}

static void place_remove(struct place *place)
{
    *place->back = place->next;
    if (place->next)
        place->next->back = place->back;
}

static struct place **object_list(struct place **table, ref_t ref)
{
    return &table[(ref.lo ^ ref.hi) % OBJECT_SLOTS];
}

static void interest_add(struct reader_loop *loop, const struct class *class)
{
    if (loop->class_count[class->number]++ == 0)
        atomic_fetch_or(&loop->interest[class->number / 64], 1ull << class->number % 64);
}

static void interest_remove(struct reader_loop *loop, const struct class *class)
{
    if (--loop->class_count[class->number] == 0)
        atomic_fetch_and(&loop->interest[class->number / 64], ~(1ull << class->number % 64));
}

static void enlist(struct waiter *waiter)
{
    struct reader_loop *loop = waiter->loop;
    const struct subscription *subscription = &waiter->reader.subscription;
    struct place *place;

    waiter->place_count = 1 + subscription->object_count;
    for (int i = 0; i < 2; i++)
        waiter->place_count += (size_t) __builtin_popcountll(subscription->classes[i]);
    place = waiter->places = new0_array(struct place, waiter->place_count);
    place->waiter = waiter;
    place->ref = waiter->reader.request->call.caller.session;
    place_add(object_list(loop->sessions, place->ref), place);
    interest_add(loop, CLASS_OF(session));
    for (int i = 0; i < CLASS_COUNT; i++) {
        if (!class_in(subscription->classes, &model_classes[i]))
            continue;
        (++place)->waiter = waiter;
        place_add(&loop->classes[i], place);
        interest_add(loop, &model_classes[i]);
    }
    for (unsigned i = 0; i < subscription->object_count; i++) {
        const struct wanted_object *object = &subscription->objects[i];

        *++place = (struct place){.waiter = waiter, .class = object->class, .ref = object->ref};
        place_add(object_list(loop->objects, place->ref), place);
        if (loop->object_count[object->class->number]++ == 0)
            loop->objects_seen[object->class->number] = waiter->reader.cursor;
        interest_add(loop, object->class);
    }
}

static void delist(struct waiter *waiter)
{
    struct reader_loop *loop = waiter->loop;
    const struct subscription *subscription = &waiter->reader.subscription;

    for (size_t i = 0; i < waiter->place_count; i++)
        place_remove(&waiter->places[i]);
    free(waiter->places);
    interest_remove(loop, CLASS_OF(session));
    for (int i = 0; i < CLASS_COUNT; i++)
        if (class_in(subscription->classes, &model_classes[i]))
            interest_remove(loop, &model_classes[i]);
    for (unsigned i = 0; i < subscription->object_count; i++) {
        loop->object_count[subscription->objects[i].class->number]--;
        interest_remove(loop, subscription->objects[i].class);
    }
}

/* The waiter goes; its request is the caller's again. */
static struct request *waiter_free(struct waiter *waiter)
{
    struct request *request = waiter->reader.request;
    struct reader_loop *loop = waiter->loop;

    delist(waiter);
    for (struct waiter **at = &loop->marked; *at; at = &(*at)->next_marked) {
        if (*at == waiter) {
            *at = waiter->next_marked;
            break;
        }
    }
    if (waiter->timer)
        event_free(waiter->timer);
    loop->waiter_count--;
    loop->events->waiting--;
    loop->events->waiting_next -= waiter->reader.is_next;
    free(waiter);
    return request;
}

/* ---- looking again ---- */

static void timer_fired(evutil_socket_t fd, short what, void *arg);

/* The timer is for whichever comes first: the end of the batch or the reader's own deadline. */
static void set_timer(struct waiter *waiter, uint64_t holdoff_ms)
{
    uint64_t now = loop_ms(waiter->loop), due_ms = waiter->reader.deadline_ms, wait_ms;

    if (holdoff_ms > 0 && (due_ms == 0 || now + holdoff_ms < due_ms))
        due_ms = now + holdoff_ms;
    if (due_ms == 0) {
        if (waiter->timer)
            event_del(waiter->timer);
        return;
    }
    wait_ms = due_ms > now ? due_ms - now : 0;
    if (!waiter->timer)
        waiter->timer = event_new(http_loop_base(waiter->loop->http), -1, 0, timer_fired, waiter);
    event_add(waiter->timer,
              &(struct timeval){(time_t) (wait_ms / 1000), (suseconds_t) (wait_ms % 1000 * 1000)});
}

/* Is there something to tell in the request's view? First only where something is known to have
 * changed, which settles most cases; but only a look at all classes tells that the reader has
 * missed nothing up to this generation. */
static bool has_news(struct waiter *waiter, const uint64_t changed[2])
{
    struct reader *reader = &waiter->reader;
    const struct view *view = reader->request->pinned;
    struct arena *scratch = waiter->loop->scratch;
    struct happenings happenings;
    bool has_some;

    happenings_begin(&happenings, scratch, view, &reader->subscription, reader->cursor, changed);
    has_some = happenings.count > 0;
    if (!has_some) {
        happenings_begin(&happenings, scratch, view, &reader->subscription, reader->cursor, NULL);
        has_some = happenings.count > 0;
    }
    arena_reset(scratch);
    if (!has_some)
        reader->cursor = view_generation(view);
    return has_some;
}

/* Answer the waiter if there is something to tell, if its session has ended, or if it must be
 * answered. */
static void look(struct waiter *waiter, bool must)
{
    struct events *events = waiter->loop->events;
    struct request *request = waiter->reader.request;
    uint64_t changed[2] = {waiter->changed[0], waiter->changed[1]};
    struct reader reader;

    waiter->changed[0] = waiter->changed[1] = 0;
    events->wakes++;
    request_pin(request);
    if (!must && view_get(request->pinned, session, request->call.caller.session)
        && !has_news(waiter, changed)) {
        request_unpin(request);
        return;
    }
    reader = waiter->reader;
    waiter_free(waiter);
    events->answers++;
    reader_answer(&reader);
}

static void wake(struct waiter *waiter)
{
    uint64_t holdoff_ms;

    if (waiter->is_holding_off)
        return;
    holdoff_ms = reader_holdoff_ms(waiter->loop, &waiter->reader.request->call,
                                   &waiter->reader.subscription);
    if (holdoff_ms > 0) {
        waiter->is_holding_off = true;
        set_timer(waiter, holdoff_ms);
        return;
    }
    look(waiter, false);
}

static void timer_fired(evutil_socket_t fd, short what, void *arg)
{
    struct waiter *waiter = arg;
    bool is_over =
        waiter->reader.deadline_ms > 0 && loop_ms(waiter->loop) >= waiter->reader.deadline_ms;

    (void) fd;
    (void) what;
    waiter->is_holding_off = false;
    if (is_over)
        waiter->changed[0] = waiter->changed[1] = UINT64_MAX;
    else
        set_timer(waiter, 0);
    look(waiter, is_over);
}

/* ---- news ---- */

static void mark(struct waiter *waiter, const struct class *class)
{
    class_add(waiter->changed, class);
    if (waiter->is_marked)
        return;
    waiter->is_marked = true;
    waiter->next_marked = waiter->loop->marked;
    waiter->loop->marked = waiter;
}

static void mark_object(struct reader_loop *loop, const struct class *class, ref_t ref)
{
    for (struct place *place = *object_list(loop->objects, ref); place; place = place->next)
        if (place->class == class && ref_equal(place->ref, ref))
            mark(place->waiter, class);
}

static void mark_objects(struct reader_loop *loop, const struct view *view,
                         const struct class *class)
{
    uint64_t after = loop->objects_seen[class->number];
    const struct object *object;
    struct deleted deleted;
    struct view_iter iter;

    view_each_changed(&iter, view, class, after);
    while ((object = view_next(&iter)))
        mark_object(loop, class, object->ref);
    view_each_deleted(&iter, view, class, after);
    while (view_next_deleted(&iter, &deleted))
        mark_object(loop, class, deleted.ref);
    loop->objects_seen[class->number] = view_generation(view);
}

/* Readers whose session ended are told so. */
static void end_sessions(struct reader_loop *loop, const struct view *view)
{
    bool is_complete = view_deletions_known_since(view, CLASS_OF(session)) <= loop->sessions_seen;
    struct deleted deleted;
    struct view_iter iter;

    view_each_deleted(&iter, view, CLASS_OF(session), loop->sessions_seen);
    while (is_complete && view_next_deleted(&iter, &deleted)) {
        struct place *place = *object_list(loop->sessions, deleted.ref), *next;

        for (; place; place = next) {
            next = place->next;
            if (ref_equal(place->ref, deleted.ref))
                mark(place->waiter, CLASS_OF(session));
        }
    }
    for (size_t i = 0; !is_complete && i < OBJECT_SLOTS; i++)
        for (struct place *place = loop->sessions[i]; place; place = place->next)
            if (!view_get(view, session, place->ref))
                mark(place->waiter, CLASS_OF(session));
    loop->sessions_seen = view_generation(view);
}

/* On the loop: those who care look again. */
static void news(void *arg)
{
    struct reader_loop *loop = arg;
    uint64_t changed[2];
    struct view *view;

    atomic_store(&loop->is_posted, false);
    for (int i = 0; i < 2; i++)
        changed[i] = atomic_exchange(&loop->news[i], 0);
    if (loop->waiter_count == 0)
        return;
    view = store_pin(loop->events->core->store);
    for (int i = 0; i < CLASS_COUNT; i++) {
        const struct class *class = &model_classes[i];

        if (!class_in(changed, class) || loop->class_count[i] == 0)
            continue;
        for (struct place *place = loop->classes[i]; place; place = place->next)
            mark(place->waiter, class);
        if (loop->object_count[i] > 0)
            mark_objects(loop, view, class);
    }
    if (class_in(changed, CLASS_OF(session)))
        end_sessions(loop, view);
    view_unpin(&view);
    while (loop->marked) {
        struct waiter *waiter = loop->marked;

        loop->marked = waiter->next_marked;
        waiter->is_marked = false;
        wake(waiter);
    }
}

/* On the core's thread. */
void reader_loop_wake(struct reader_loop *loop, const uint64_t class_mask[2])
{
    bool is_wanted = false;

    for (int i = 0; i < 2; i++) {
        uint64_t wanted = class_mask[i] & atomic_load(&loop->interest[i]);

        if (wanted) {
            atomic_fetch_or(&loop->news[i], wanted);
            is_wanted = true;
        }
    }
    if (is_wanted && !atomic_exchange(&loop->is_posted, true))
        http_loop_post(loop->http, news, loop);
}

/* ---- registrations that change ---- */

struct reread {
    struct reader_loop *loop;
    ref_t session;
};

static void reread(void *arg)
{
    struct reread *message = arg;
    struct reader_loop *loop = message->loop;
    struct place *place = *object_list(loop->sessions, message->session), *next;

    for (; place; place = next) {
        struct waiter *waiter = place->waiter;

        next = place->next;
        if (!ref_equal(place->ref, message->session) || !waiter->reader.is_next)
            continue;
        waiter->changed[0] = waiter->changed[1] = UINT64_MAX;
        mark(waiter, CLASS_OF(session));
    }
    while (loop->marked) {
        struct waiter *waiter = loop->marked;
        struct subscription subscription;
        uint64_t cursor;

        loop->marked = waiter->next_marked;
        waiter->is_marked = false;
        if (registration_read(loop->events, message->session, waiter->reader.request->call.arena,
                              &subscription, &cursor)) {
            delist(waiter);
            waiter->reader.subscription = subscription;
            enlist(waiter);
            wake(waiter);
        } else {
            look(waiter, true);
        }
    }
    free(message);
}

void reader_loop_reread(struct reader_loop *loop, ref_t session)
{
    struct reread *message;

    if (loop->events->waiting_next == 0)
        return;
    message = new0(struct reread);
    *message = (struct reread){loop, session};
    http_loop_post(loop->http, reread, message);
}

/* ---- waiting ---- */

static void client_gone(void *arg)
{
    request_destroy(&(struct request *){waiter_free(arg)});
}

int reader_park(const struct reader *reader, uint64_t looked_at, uint64_t holdoff_ms)
{
    struct request *request = reader->request;
    struct reader_loop *loop = request->reader;
    struct waiter *waiter = new0(struct waiter);

    waiter->reader = *reader;
    waiter->loop = loop;
    loop->waiter_count++;
    loop->events->waiting++;
    loop->events->waiting_next += reader->is_next;
    if (loop->waiter_count == 1)
        loop->sessions_seen = looked_at;
    enlist(waiter);
    request_unpin(request);
    request->park(request, client_gone, waiter);
    if (holdoff_ms > 0) {
        waiter->is_holding_off = true;
        waiter->changed[0] = waiter->changed[1] = UINT64_MAX;
    }
    set_timer(waiter, holdoff_ms);
    if (store_visible(loop->events->core->store) > looked_at) {
        waiter->changed[0] = waiter->changed[1] = UINT64_MAX;
        wake(waiter);
    }
    return CALL_PARKED;
}

/* ---- life ---- */

struct reader_loop *reader_loop_new(struct events *events, struct http_loop *http)
{
    struct reader_loop *loop = new0(struct reader_loop);

    loop->events = events;
    loop->http = http;
    loop->scratch = arena_new();
    events_add_loop(events, loop);
    return loop;
}

void reader_loop_destroy(struct reader_loop **loop_p)
{
    struct reader_loop *loop = TAKE(*loop_p);

    if (!loop)
        return;
    for (size_t i = 0; i < OBJECT_SLOTS; i++)
        while (loop->sessions[i])
            client_gone(loop->sessions[i]->waiter);
    events_remove_loop(loop->events, loop);
}

void reader_loop_free(struct reader_loop *loop)
{
    arena_destroy(&loop->scratch);
    free(loop);
}
