/* timers.c - a heap in which a timer knows its place, so that stopping is as cheap as starting */
#include "shared/timers.h"

#define CHILDREN 4

static bool is_before(const struct timer *a, const struct timer *b)
{
    return a->due_us != b->due_us ? a->due_us < b->due_us : a->order < b->order;
}

static void put(struct timers *timers, size_t i, struct timer *timer)
{
    timers->heap[i] = timer;
    timer->place = i + 1;
}

static void move_up(struct timers *timers, size_t i, struct timer *timer)
{
    while (i > 0) {
        size_t parent = (i - 1) / CHILDREN;

        if (!is_before(timer, timers->heap[parent]))
            break;
        put(timers, i, timers->heap[parent]);
        i = parent;
    }
    put(timers, i, timer);
}

static void move_down(struct timers *timers, size_t i, struct timer *timer)
{
    for (;;) {
        size_t first = i * CHILDREN + 1, end = MIN(first + CHILDREN, timers->count), least = first;

        if (first >= timers->count)
            break;
        for (size_t child = first + 1; child < end; child++)
            if (is_before(timers->heap[child], timers->heap[least]))
                least = child;
        if (!is_before(timers->heap[least], timer))
            break;
        put(timers, i, timers->heap[least]);
        i = least;
    }
    put(timers, i, timer);
}

void timers_add(struct timers *timers, struct timer *timer)
{
    assert(timer->place == 0);
    if (timers->count == timers->room) {
        timers->room = timers->room ? timers->room * 2 : 64;
        timers->heap = realloc_array(timers->heap, timers->room, sizeof(*timers->heap));
    }
    timer->order = timers->order_next++;
    move_up(timers, timers->count++, timer);
}

void timers_remove(struct timers *timers, struct timer *timer)
{
    size_t i = timer->place - 1;
    struct timer *last;

    assert(timer->place > 0 && timer->place <= timers->count && timers->heap[i] == timer);
    timer->place = 0;
    last = timers->heap[--timers->count];
    if (last == timer)
        return;
    if (i > 0 && is_before(last, timers->heap[(i - 1) / CHILDREN]))
        move_up(timers, i, last);
    else
        move_down(timers, i, last);
}

void timers_done(struct timers *timers)
{
    while (timers->count > 0)
        timers->heap[--timers->count]->place = 0;
    free(timers->heap);
    *timers = (struct timers){0};
}
