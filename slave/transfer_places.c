/* transfer_places.c - how many transfers of a host are at work at once
 *
 * A place that is given goes to who has waited longest; only when nobody waits is it free. */
#include "slave/transfer_places.h"

#include <errno.h>
#include <pthread.h>

/* Lies on the waiting thread's stack. */
struct waiting {
    struct waiting *next;
    pthread_cond_t changed;
    bool has_place;
};

struct places {
    pthread_mutex_t lock;
    unsigned count; /* in all */
    unsigned free;
    struct waiting *first, **end; /* who has waited longest comes first */
};

struct places *places_new(unsigned count)
{
    struct places *places = new0(struct places);

    pthread_mutex_init(&places->lock, NULL);
    places->count = places->free = count;
    places->end = &places->first;
    return places;
}

void places_destroy(struct places **places_p)
{
    struct places *places = TAKE(*places_p);

    if (!places)
        return;
    assert(!places->first);
    pthread_mutex_destroy(&places->lock);
    free(places);
}

/* With the lock. */
static void leave_queue(struct places *places, struct waiting *waiting)
{
    struct waiting **at = &places->first;

    while (*at != waiting)
        at = &(*at)->next;
    *at = waiting->next;
    if (!*at)
        places->end = at;
}

/* With the lock. */
static int wait_for_place(struct places *places, const _Atomic bool *is_cancelled)
{
    struct waiting waiting = {.next = NULL};

    pthread_cond_init(&waiting.changed, NULL);
    *places->end = &waiting;
    places->end = &waiting.next;
    while (!waiting.has_place && !atomic_load(is_cancelled))
        pthread_cond_wait(&waiting.changed, &places->lock);
    if (!waiting.has_place)
        leave_queue(places, &waiting);
    pthread_cond_destroy(&waiting.changed);
    return waiting.has_place ? 0 : -ECANCELED;
}

/* With the lock: to who is next. */
static void hand_on(struct place *place)
{
    struct places *places = place->places;
    struct waiting *first = places->first;

    if (!place->is_held)
        return;
    place->is_held = false;
    if (first) {
        leave_queue(places, first);
        first->has_place = true;
        pthread_cond_signal(&first->changed);
    } else {
        places->free++;
    }
}

int place_take(struct place *place)
{
    struct places *places = place->places;
    int r = 0;

    pthread_mutex_lock(&places->lock);
    if (atomic_load(place->is_cancelled))
        r = -ECANCELED;
    else if (places->free > 0)
        places->free--;
    else
        r = wait_for_place(places, place->is_cancelled);
    place->is_held = r == 0;
    if (r == 0 && atomic_load(place->is_cancelled)) { /* it got one, and was called off before it woke */
        hand_on(place);
        r = -ECANCELED;
    }
    pthread_mutex_unlock(&places->lock);
    return r;
}

static void give(struct place *place)
{
    pthread_mutex_lock(&place->places->lock);
    hand_on(place);
    pthread_mutex_unlock(&place->places->lock);
}

void place_give(struct place *place)
{
    atomic_store(&place->waits_for_client, false);
    give(place);
}

void place_lend(struct place *place)
{
    if (!place)
        return;
    atomic_store(&place->waits_for_client, true);
    give(place);
}

void place_lose(struct place *place)
{
    struct places *places = place->places;

    pthread_mutex_lock(&places->lock);
    hand_on(place);
    for (struct waiting *waiting = places->first; waiting; waiting = waiting->next)
        pthread_cond_signal(&waiting->changed);
    pthread_mutex_unlock(&places->lock);
}

int place_take_back(struct place *place)
{
    if (!place)
        return 0;
    atomic_store(&place->waits_for_client, false);
    return place_take(place);
}

unsigned places_waiting(struct places *places)
{
    unsigned count = 0;

    pthread_mutex_lock(&places->lock);
    for (struct waiting *waiting = places->first; waiting; waiting = waiting->next)
        count++;
    pthread_mutex_unlock(&places->lock);
    return count;
}

unsigned places_held(struct places *places)
{
    unsigned held;

    pthread_mutex_lock(&places->lock);
    held = places->count - places->free;
    pthread_mutex_unlock(&places->lock);
    return held;
}
