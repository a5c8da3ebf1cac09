/* store.c - generations: who may see which, for how long, and when the rest is freed
 *
 *            txn.c          pending ring                      visible root        pins
 *   store_apply -> root of g -> [g][g-1][g-2] ... -- acknowledged --> publish --> store_pin
 *                       |                                 ^              |
 *                       +--> sinks: append(changes)       |              +--> waiters, listeners
 *                                   store_acknowledge ----+
 *
 * The core's newest root and the ring of roots not yet visible belong to the core thread. What
 * other threads share with it is one pointer, the visible root, and the list of pins, both under
 * one mutex that is held for a few instructions. Views are pinned in the order of generations, so
 * the first pin of the list is the oldest and tells what may be freed.
 *
 * A generation becomes visible when the newest durable generation up to it is acknowledged by all
 * required sinks. A volatile one needs nothing of its own and rides along with those before it. */
#include "master/versions.h"

/* ---- errands ---- */

static void errand_run(struct loop_item *item)
{
    struct errand *errand = CONTAINER_OF(item, struct errand, item);

    if (!errand->store) {
        free(errand);
        return;
    }
    /* Cleared before anything is read: who asks after the reading posts again. */
    atomic_store(&errand->is_posted, false);
    errand->run(errand->store);
}

static void errand_drop(struct loop_item *item)
{
    struct errand *errand = CONTAINER_OF(item, struct errand, item);

    atomic_store(&errand->is_posted, false);
    if (!errand->store)
        free(errand);
}

static struct errand *errand_new(struct store *store, void (*run)(struct store *store))
{
    struct errand *errand = new0(struct errand);

    errand->item.run = errand_run;
    errand->item.drop = errand_drop;
    errand->store = store;
    errand->run = run;
    return errand;
}

static void errand_end(struct errand *errand)
{
    errand->store = NULL;
    if (!atomic_load(&errand->is_posted))
        free(errand);
}

/* Any thread. */
static void errand_post(struct errand *errand)
{
    if (!atomic_exchange(&errand->is_posted, true))
        loop_post(errand->store->loop, &errand->item);
}

/* The core's own: behind what is in the run queue already. */
static void errand_soon(struct errand *errand)
{
    if (!atomic_exchange(&errand->is_posted, true))
        loop_defer(errand->store->loop, &errand->item);
}

/* ---- roots ---- */

struct root *store_root_copy(const struct root *from)
{
    struct root *root = new0(struct root);

    memcpy(root->classes, from->classes, sizeof root->classes);
    root->durable = from->durable;
    root->retired_bytes = from->retired_bytes;
    return root;
}

static struct root **pending_slot(struct store *store, uint32_t i)
{
    return &store->pending[(store->pending_first + i) & (store->pending_size - 1)];
}

static void pending_add(struct store *store, struct root *root)
{
    if (store->pending_count == store->pending_size) {
        uint32_t size = store->pending_size ? 2 * store->pending_size : 64;
        struct root **ring = new0_array(struct root *, size);

        for (uint32_t i = 0; i < store->pending_count; i++)
            ring[i] = *pending_slot(store, i);
        free(store->pending);
        store->pending = ring;
        store->pending_size = size;
        store->pending_first = 0;
    }
    *pending_slot(store, store->pending_count++) = root;
}

/* ---- freeing ---- */

static uint64_t oldest_needed(struct store *store)
{
    uint64_t oldest;

    pthread_mutex_lock(&store->mutex);
    oldest = (store->oldest_pin ? store->oldest_pin->root : store->visible_root)->generation;
    pthread_mutex_unlock(&store->mutex);
    return oldest;
}

/* Free what nobody can see any more: not too much at once, the rest soon. */
static void reclaim_some(struct store *store, size_t things_max)
{
    if (tree_reclaim_some(store->owner, oldest_needed(store), things_max))
        errand_soon(store->reclaim);
}

static void reclaim(struct store *store)
{
    reclaim_some(store, RECLAIM_AT_ONCE);
}

/* ---- visibility ---- */

/* The newest generation that every required sink has. */
static uint64_t acknowledged(const struct store *store)
{
    uint64_t least = UINT64_MAX;

    for (struct store_sink *sink = store->sinks; sink; sink = sink->next)
        if (sink->is_required)
            least = MIN(least, __atomic_load_n(&sink->acknowledged, __ATOMIC_ACQUIRE));
    return least;
}

static void tell(struct store *store)
{
    uint64_t mask[2] = {store->tell_mask[0], store->tell_mask[1]};

    if ((mask[0] | mask[1]) == 0)
        return;
    store->tell_mask[0] = store->tell_mask[1] = 0;
    for (struct store_listener *listener = store->listeners, *next; listener; listener = next) {
        next = listener->next;
        listener->visible(listener, store_visible(store), mask);
    }
}

/* Make visible what may be. Listeners are told from the
 * loop, never in the midst of whoever commits. */
static void advance(struct store *store)
{
    uint64_t safe = acknowledged(store);
    const struct root *newest = NULL;

    while (store->pending_count > 0) {
        struct root *root = *pending_slot(store, 0);

        if (root->durable > safe)
            break;
        newest = root;
        store->pending_first = (store->pending_first + 1) & (store->pending_size - 1);
        store->pending_count--;
        store->tell_mask[0] |= root->class_mask[0];
        store->tell_mask[1] |= root->class_mask[1];
        waitq_wake_all(&root->waiters);
    }
    if (!newest)
        return;
    pthread_mutex_lock(&store->mutex);
    store->visible_root = newest;
    atomic_store(&store->visible, newest->generation);
    pthread_mutex_unlock(&store->mutex);
    if (store->listeners)
        errand_soon(store->tell);
}

/* A generation is made: txn.c has committed its trees. While the store is loading nobody else
 * looks. */
void store_publish(struct store *store, struct root *root, const struct changes *changes)
{
    store->core.root = root;
    store->core.changes++;
    atomic_store_explicit(&store->retired_bytes, root->retired_bytes, memory_order_relaxed);
    if (store->is_loading) {
        pthread_mutex_lock(&store->mutex);
        store->visible_root = root;
        atomic_store(&store->visible, root->generation);
        pthread_mutex_unlock(&store->mutex);
    } else {
        store->generations++;
        pending_add(store, root);
        for (struct store_sink *sink = store->sinks; sink; sink = sink->next)
            sink->append(sink, changes);
        advance(store);
    }
    reclaim_some(store, RECLAIM_AT_ONCE + (size_t) changes->count * RECLAIM_A_CHANGE);
}

static void acknowledged_more(struct store *store)
{
    advance(store);
    reclaim(store);
}

void store_acknowledge(struct store *store, struct store_sink *sink, uint64_t generation)
{
    /* A sink answers in order, from one thread at a time. */
    assert(generation >= __atomic_load_n(&sink->acknowledged, __ATOMIC_RELAXED));
    __atomic_store_n(&sink->acknowledged, generation, __ATOMIC_RELEASE);
    errand_post(store->advance);
}

void store_add_sink(struct store *store, struct store_sink *sink)
{
    assert(loop_is_current(store->loop) && !store->txn.is_open);
    sink->acknowledged = store->durable_newest;
    sink->next = store->sinks;
    store->sinks = sink;
}

void store_require_sink(struct store *store, struct store_sink *sink, bool is_required)
{
    assert(loop_is_current(store->loop) && !store->txn.is_open);
    sink->is_required = is_required;
    advance(store);
}

void store_add_listener(struct store *store, struct store_listener *listener)
{
    assert(loop_is_current(store->loop));
    listener->next = store->listeners;
    store->listeners = listener;
}

void store_remove_listener(struct store *store, struct store_listener *listener)
{
    for (struct store_listener **p = &store->listeners; *p; p = &(*p)->next)
        if (*p == listener) {
            *p = listener->next;
            return;
        }
}

uint64_t store_newest(const struct store *store)
{
    return store->core.root->generation;
}

uint64_t store_newest_durable(const struct store *store)
{
    return store->durable_newest;
}

uint64_t store_visible(struct store *store)
{
    return atomic_load(&store->visible);
}

const struct view *store_core_view(struct store *store)
{
    return &store->core;
}

void store_wait_visible(struct store *store, uint64_t generation)
{
    assert(fiber_self() && generation <= store_newest(store));
    fiber_uncancellable_begin();
    while (store_visible(store) < generation) {
        uint64_t first = (*pending_slot(store, 0))->generation;

        /* Within an epoch generations are consecutive, so the ring is indexed by them. */
        assert(generation >= first && generation - first < store->pending_count);
        waitq_wait(&(*pending_slot(store, (uint32_t) (generation - first)))->waiters, 0);
    }
    fiber_uncancellable_end();
}

/* ---- pins ---- */

struct view *store_pin(struct store *store)
{
    struct view *view = new0(struct view);

    view->store = store;
    view->pinned_ms = clock_now_ms(store->clock);
    pthread_mutex_lock(&store->mutex);
    view->root = store->visible_root;
    view->prev = store->newest_pin;
    if (view->prev)
        view->prev->next = view;
    else
        store->oldest_pin = view;
    store->newest_pin = view;
    pthread_mutex_unlock(&store->mutex);
    return view;
}

void view_unpin(struct view **view_p)
{
    struct view *view = TAKE(*view_p);
    struct store *store;

    if (!view)
        return;
    store = view->store;
    pthread_mutex_lock(&store->mutex);
    *(view->prev ? &view->prev->next : &store->oldest_pin) = view->next;
    *(view->next ? &view->next->prev : &store->newest_pin) = view->prev;
    pthread_mutex_unlock(&store->mutex);
    free(view);
}

uint64_t view_age_ms(const struct view *view)
{
    return clock_now_ms(view->store->clock) - view->pinned_ms;
}

/* What later generations retired: it cannot be freed before this view is unpinned. */
size_t view_held_bytes(const struct view *view)
{
    return atomic_load_explicit(&view->store->retired_bytes, memory_order_relaxed)
           - view->root->retired_bytes;
}

void store_figures(struct store *store, struct store_figures *ret)
{
    assert(loop_is_current(store->loop));
    *ret = (struct store_figures){
        .generations = store->generations,
        .versions_live = store->versions_live,
        .bytes_live = store->bytes_live + tree_node_bytes(store->owner),
        .bytes_retired = tree_retired_bytes(store->owner, 0),
        .waiting_durable = store->pending_count,
    };
    pthread_mutex_lock(&store->mutex);
    if (store->oldest_pin)
        ret->oldest_pin_age_ms = view_age_ms(store->oldest_pin);
    pthread_mutex_unlock(&store->mutex);
}

/* ---- making and ending a store ---- */

static void shape_init(struct shape *shape, const struct class *class)
{
    shape->is_stored = class->flags & CLASS_IN_DATABASE;
    shape->uuid = -1;
    shape->told = new0_array(int, (size_t) class->field_count + 1);
    shape->slot = new0_array(int, (size_t) class->field_count + 1);
    for (int i = 0; i < class->field_count; i++) {
        if (streq(class->fields[i].name, "uuid"))
            shape->uuid = i;
        shape->slot[i] = -1;
        if (class->fields[i].told) {
            shape->slot[i] = shape->told_count;
            shape->told[shape->told_count++] = i;
        }
    }
}

struct store *store_new(struct clock *clock, struct loop *loop)
{
    struct store *store = new0(struct store);
    struct root *root = new0(struct root);

    model_init();
    store->clock = clock;
    store->loop = loop;
    store->owner = tree_owner_new();
    store->deletions_kept = DELETIONS_KEPT_DEFAULT;
    store->advance = errand_new(store, acknowledged_more);
    store->tell = errand_new(store, tell);
    store->reclaim = errand_new(store, reclaim);
    store->txn.store = store->txn.view.store = store->core.store = store;
    store->txn.arena = arena_new();
    pthread_mutex_init(&store->mutex, NULL);

    for (int i = 0; i < CLASS_COUNT; i++) {
        struct shape *shape = &store->shapes[i];

        shape_init(shape, &model_classes[i]);
        if (shape->is_stored)
            root->classes[i] = alloc0(sizeof(struct class_root)
                                      + (size_t) shape->told_count * sizeof(struct tree_node *));
    }
    store->core.root = store->visible_root = root; /* generation 0: the empty pool */
    return store;
}

void store_destroy(struct store **store_p)
{
    struct store *store = TAKE(*store_p);
    struct root *root;

    if (!store)
        return;
    assert(!store->txn.is_open && !store->oldest_pin);
    errand_end(store->advance);
    errand_end(store->tell);
    errand_end(store->reclaim);
    root = (struct root *) store->core.root;
    for (int i = 0; i < CLASS_COUNT; i++) {
        struct class_root *class = root->classes[i];

        free(store->shapes[i].told);
        free(store->shapes[i].slot);
        if (!class)
            continue;
        tree_free(store->owner, &class->objects, version_free_all);
        tree_free(store->owner, &class->uuids, NULL);
        tree_free(store->owner, &class->names, NULL);
        tree_free(store->owner, &class->changed, NULL);
        tree_free(store->owner, &class->deleted, NULL);
        for (int j = 0; j < store->shapes[i].told_count; j++)
            tree_free(store->owner, &class->relations[j], NULL);
        free(class);
    }
    free(root);
    tree_owner_destroy(&store->owner);
    arena_destroy(&store->txn.arena);
    pthread_mutex_destroy(&store->mutex);
    free(store->pending);
    free(store);
}

void store_set_follow(struct store *store, store_follow_fn *fn)
{
    store->follow = fn;
}

void store_keep_deletions(struct store *store, size_t count)
{
    store->deletions_kept = MAX(count, (size_t) DELETIONS_KEPT_LEAST);
}
