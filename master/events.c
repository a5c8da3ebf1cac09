/* events.c - who is told about a change: what the store says goes to the loops whose readers care
 *
 * Also the two numberings. A token of event.from is a generation, twice; which of them former
 * masters have told is known from their epochs. The ids of event.next count changes in this
 * master's life: a ring remembers with which number each generation began. */
#include "master/events_internal.h"

#include "master/core.h"
#include "master/lifecycle.h"
#include "shared/http.h"

#define HEARTBEAT_MS \
    30000 /* a pool event for readers of event.next, so that firewalls keep their connections */

/* ---- numbers ---- */

static uint32_t told_count(const struct changes *changes)
{
    uint32_t count = 0;

    for (int i = 0; i < changes->count; i++)
        count += (changes->list[i].class->flags & CLASS_EVENTS) != 0;
    return count;
}

/* The store's sink: each generation on the core's thread, in order, visible or not. */
static void count_changes(struct store_sink *sink, const struct changes *changes)
{
    struct events *events = CONTAINER_OF(sink, struct events, sink);
    uint32_t count = told_count(changes);

    if (count == 0)
        return;
    pthread_mutex_lock(&events->mutex);
    events->marks[events->mark_count++ % ID_MARKS] =
        (struct id_mark){changes->generation, events->id_next};
    events->id_next += count;
    pthread_mutex_unlock(&events->mutex);
}

uint64_t events_first_id(struct events *events, uint64_t generation)
{
    uint64_t low, high, id = 1;

    pthread_mutex_lock(&events->mutex);
    high = events->mark_count;
    low = high > ID_MARKS ? high - ID_MARKS : 0;
    if (low < high)
        id = events->marks[low % ID_MARKS].first_id; /* for what is older than the ring */
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        const struct id_mark *mark = &events->marks[middle % ID_MARKS];

        if (mark->generation <= generation) {
            id = mark->first_id;
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    pthread_mutex_unlock(&events->mutex);
    return id;
}

uint64_t events_next_id(struct events *events)
{
    uint64_t id;

    pthread_mutex_lock(&events->mutex);
    id = events->id_next;
    pthread_mutex_unlock(&events->mutex);
    return id;
}

void events_set_epochs(struct events *events, const struct epoch_entry *epochs, size_t count)
{
    pthread_mutex_lock(&events->mutex);
    free(events->epochs);
    events->epochs = new0_array(struct epoch_entry, MAX(count, (size_t) 1));
    memcpy(events->epochs, epochs, count * sizeof *epochs);
    events->epoch_count = count;
    pthread_mutex_unlock(&events->mutex);
}

bool events_knows(struct events *events, uint64_t generation)
{
    bool is_known = true;

    pthread_mutex_lock(&events->mutex);
    for (size_t i = 0; i < events->epoch_count; i++) {
        const struct epoch_entry *epoch = &events->epochs[i];

        /* Newest first. Before an epoch's first generation only what it inherited was ever told for
         * good. */
        if (generation >= epoch->first)
            break;
        if (generation > epoch->inherited) {
            is_known = false;
            break;
        }
    }
    pthread_mutex_unlock(&events->mutex);
    return is_known;
}

/* ---- waking ---- */

static void became_visible(struct store_listener *listener, uint64_t generation,
                           const uint64_t class_mask[2])
{
    struct events *events = CONTAINER_OF(listener, struct events, listener);

    (void) generation;
    pthread_mutex_lock(&events->mutex);
    for (unsigned i = 0; i < events->loop_count; i++)
        reader_loop_wake(events->loops[i], class_mask);
    pthread_mutex_unlock(&events->mutex);
}

static void reread_all(struct events *events, ref_t session)
{
    pthread_mutex_lock(&events->mutex);
    for (unsigned i = 0; i < events->loop_count; i++)
        reader_loop_reread(events->loops[i], session);
    pthread_mutex_unlock(&events->mutex);
}

void events_add_loop(struct events *events, struct reader_loop *loop)
{
    pthread_mutex_lock(&events->mutex);
    assert(events->loop_count < READER_LOOPS_MAX);
    events->loops[events->loop_count++] = loop;
    pthread_mutex_unlock(&events->mutex);
}

void events_remove_loop(struct events *events, struct reader_loop *loop)
{
    pthread_mutex_lock(&events->mutex);
    for (unsigned i = 0; i < events->loop_count; i++)
        if (events->loops[i] == loop)
            events->loops[i] = events->loops[--events->loop_count];
    events->ended[events->ended_count++] = loop;
    pthread_mutex_unlock(&events->mutex);
}

/* ---- registrations for event.next ---- */

static struct registration **registration_slot(struct events *events, ref_t session)
{
    struct registration **slot =
        &events->registrations[session.lo % ARRAY_SIZE(events->registrations)];

    while (*slot && !ref_equal((*slot)->session, session))
        slot = &(*slot)->next;
    return slot;
}

static void elements_free(struct registration *registration)
{
    for (uint32_t i = 0; i < registration->element_count; i++)
        free(registration->elements[i]);
    free(registration->elements);
    registration->elements = NULL;
    registration->element_count = 0;
}

static void registration_free(struct registration **slot)
{
    struct registration *registration = *slot;

    *slot = registration->next;
    elements_free(registration);
    arena_destroy(&registration->arena);
    free(registration);
}

/* Present elements, with those of `more` and without those of `less`, in the arena. */
static struct value elements_of(const struct registration *registration, const struct value *more,
                                const struct value *less, struct arena *arena)
{
    uint32_t present = registration ? registration->element_count : 0, n = 0;
    struct value *items =
        arena_alloc_array(arena, present + (more ? more->length : 0), sizeof *items);

    for (uint32_t i = 0; i < present; i++) {
        struct value item = value_text(arena_strdup(arena, registration->elements[i]));

        if (!less || !value_set_has(less, &item))
            items[n++] = item;
    }
    for (uint32_t i = 0; more && i < more->length; i++) {
        struct value before = VALUE_SET(n, items);

        if (!value_set_has(&before, &more->items[i]))
            items[n++] = more->items[i];
    }
    return VALUE_SET(n, items);
}

int registration_change(struct events *events, struct call *call, const struct value *more,
                        const struct value *less)
{
    struct registration **slot, *registration;
    struct arena *arena = arena_new();
    struct subscription subscription;
    struct value elements;
    int r;

    pthread_mutex_lock(&events->mutex);
    slot = registration_slot(events, call->caller.session);
    elements = elements_of(*slot, more, less, arena);
    r = subscription_parse(&elements, arena, &subscription, &call->failure);
    if (r < 0 || (!*slot && !more)) {
        if (r < 0)
            failure_copy(&call->failure, call->arena, &call->failure);
        pthread_mutex_unlock(&events->mutex);
        arena_destroy(&arena);
        return r;
    }
    if (elements.length == 0) { /* nothing is left that could be told */
        if (*slot)
            registration_free(slot);
        pthread_mutex_unlock(&events->mutex);
        arena_destroy(&arena);
        reread_all(events, call->caller.session);
        return 0;
    }
    if (!*slot) {
        *slot = new0(struct registration);
        (*slot)->session = call->caller.session;
        (*slot)->cursor = view_generation(call->view);
    }
    registration = *slot;
    elements_free(registration);
    arena_destroy(&registration->arena);
    registration->arena = arena;
    registration->subscription = subscription;
    registration->elements = new0_array(char *, MAX(elements.length, 1u));
    for (uint32_t i = 0; i < elements.length; i++)
        registration->elements[registration->element_count++] = dup_text(elements.items[i].text);
    pthread_mutex_unlock(&events->mutex);
    reread_all(events, call->caller.session);
    return 0;
}

bool registration_read(struct events *events, ref_t session, struct arena *arena,
                       struct subscription *ret, uint64_t *ret_cursor)
{
    struct registration *registration;

    pthread_mutex_lock(&events->mutex);
    registration = *registration_slot(events, session);
    if (registration) {
        *ret = registration->subscription;
        ret->objects = arena_dup(arena, registration->subscription.objects,
                                 registration->subscription.object_count * sizeof *ret->objects);
        *ret_cursor = registration->cursor;
    }
    pthread_mutex_unlock(&events->mutex);
    return registration;
}

void registration_told(struct events *events, ref_t session, uint64_t generation)
{
    struct registration *registration;

    pthread_mutex_lock(&events->mutex);
    registration = *registration_slot(events, session);
    if (registration)
        registration->cursor = MAX(registration->cursor, generation);
    pthread_mutex_unlock(&events->mutex);
}

void registration_end(struct events *events, ref_t session)
{
    struct registration **slot;

    pthread_mutex_lock(&events->mutex);
    slot = registration_slot(events, session);
    if (*slot)
        registration_free(slot);
    pthread_mutex_unlock(&events->mutex);
}

/* ---- the heartbeat ---- */

/* Registrations of sessions that have ended. */
static void drop_ended(struct events *events)
{
    const struct view *view = store_core_view(events->core->store);

    pthread_mutex_lock(&events->mutex);
    for (size_t i = 0; i < ARRAY_SIZE(events->registrations); i++)
        for (struct registration **slot = &events->registrations[i]; *slot;)
            if (view_get(view, session, (*slot)->session))
                slot = &(*slot)->next;
            else
                registration_free(slot);
    pthread_mutex_unlock(&events->mutex);
}

static void heartbeat(void *arg)
{
    struct events *events = arg;
    struct core *core = events->core;

    drop_ended(events);

    if (events->waiting_next > 0 && view_get(store_core_view(core->store), pool, core->pool)) {
        _cleanup_(txn_end) struct txn *txn = store_begin(core->store);

        txn_touch(txn, CLASS_OF(pool), core->pool);
        store_apply(&txn);
    }
    timer_start(core->loop, &events->heartbeat, HEARTBEAT_MS, heartbeat, events);
}

/* ---- life ---- */

void events_figures(struct events *events, struct event_figures *ret)
{
    *ret = (struct event_figures){
        .waiting = events->waiting, .wakes = events->wakes, .answers = events->answers};
}

struct events *events_new(struct core *core)
{
    struct events *events = new0(struct events);

    events->core = core;
    pthread_mutex_init(&events->mutex, NULL);
    events->marks = new0_array(struct id_mark, ID_MARKS);
    events->id_next = 1;
    events->sink = (struct store_sink){.name = "events", .append = count_changes};
    store_add_sink(core->store, &events->sink);
    events->listener = (struct store_listener){.visible = became_visible};
    store_add_listener(core->store, &events->listener);
    store_set_follow(core->store, lifecycle_follow);
    timer_start(core->loop, &events->heartbeat, HEARTBEAT_MS, heartbeat, events);
    return events;
}

void events_destroy(struct events **events_p)
{
    struct events *events = TAKE(*events_p);

    if (!events)
        return;
    assert(events->loop_count == 0);
    for (unsigned i = 0; i < events->ended_count; i++)
        reader_loop_free(events->ended[i]);
    timer_stop(&events->heartbeat);
    store_set_follow(events->core->store, NULL);
    store_remove_listener(events->core->store, &events->listener);
    for (size_t i = 0; i < ARRAY_SIZE(events->registrations); i++)
        while (events->registrations[i])
            registration_free(&events->registrations[i]);
    pthread_mutex_destroy(&events->mutex);
    free(events->marks);
    free(events->epochs);
    free(events);
}
