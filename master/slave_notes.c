/* slave_notes.c - what slaves tell by themselves: taken once, handled in order, then acknowledged
 *
 * Each host has at most one fiber that handles its notes, so they come to the handlers in the order in which the slave
 * wrote them. The acknowledgement says "everything up to this number was handled"; a note that comes again after that is
 * acknowledged again, one that comes again before it is dropped. */
#include "master/slaves_internal.h"

#include <stdio.h>

#include "shared/arena.h"

struct pending_note {
    struct pending_note *next;
    struct arena *arena;
    struct slave_note note;
    uint64_t number;
};

static void note_free(struct pending_note *pending)
{
    struct arena *arena = pending->arena;

    arena_destroy(&arena); /* the note is in it */
}

void slave_notes_drop(struct peer *peer)
{
    struct pending_note *pending;

    while ((pending = peer->notes)) {
        peer->notes = pending->next;
        note_free(pending);
    }
    peer->notes_end = &peer->notes;
}

/* Does the model know a newer right to this VM? Then the note is history. */
static bool is_old(struct core *core, const struct slave_note *note)
{
    char uuid[UUID_TEXT_BYTES];
    const struct object *vm;

    if (ref_is_null(note->vm_uuid))
        return false;
    vm = view_by_uuid(store_core_view(core->store), CLASS_OF(VM), uuid_print(uuid, note->vm_uuid));
    return vm && (uint64_t) VM_get_epoch(vm) > note->epoch;
}

static void handle(struct slaves *slaves, const struct slave_note *note)
{
    if (is_old(slaves->core, note))
        return;
    for (size_t i = 0; i < slaves->note_handler_count; i++)
        if (streq(slaves->note_handlers[i].name, note->name))
            slaves->note_handlers[i].fn(slaves->core, note);
}

static void acknowledge(struct peer *peer, uint64_t number)
{
    struct wire_frame frame = {.type = WIRE_ACK, .number = number};

    if (CRASH_POINT("master.ack.before"))
        peer_lose(peer);
    else
        peer_send(peer, &frame);
    CRASH_POINT("master.ack.after");
}

static void notes_main(void *arg)
{
    struct peer *peer = arg;
    struct core *core = peer->slaves->core;
    struct pending_note *pending;
    uint64_t number;

    fiber_set_log_tag(fiber_self(), peer->uuid);
    while ((pending = peer->notes)) {
        peer->notes = pending->next;
        if (!peer->notes)
            peer->notes_end = &peer->notes;
        handle(peer->slaves, &pending->note);
        number = pending->number;
        note_free(pending);
        /* What the handler has changed is durable before the slave forgets that it told us; one wait for many notes. */
        if (!peer->notes) {
            store_wait_visible(core->store, store_newest(core->store));
            acknowledge(peer, number);
        }
    }
    peer->is_noting = false;
    peer_release(peer);
}

static void start_noting(struct peer *peer)
{
    if (peer->is_noting || !peer->notes)
        return;
    peer_hold(peer);
    peer->is_noting = true;
    if (!fiber_spawn(peer->slaves->core->loop, notes_main, peer, "notes")) {
        peer->is_noting = false; /* with the next note */
        peer_release(peer);
    }
}

void slave_note_take(struct peer *peer, const struct wire_frame *frame)
{
    struct arena *arena;
    struct pending_note *pending;
    struct value *body;

    peer->slaves->figures.notes++;
    if (frame->number <= peer->note_taken) {
        if (!peer->notes && !peer->is_noting)
            acknowledge(peer, frame->number);
        return;
    }
    arena = arena_new();
    pending = arena_new0(arena, struct pending_note);
    body = arena_new0(arena, struct value);
    *body = value_copy(arena, &frame->body);
    *pending = (struct pending_note){
        .arena = arena,
        .number = frame->number,
        .note = {.name = arena_strdup(arena, frame->name),
                 .host = peer->host,
                 .vm_uuid = frame->vm,
                 .epoch = frame->vm_epoch,
                 .body = body},
    };
    peer->note_taken = frame->number;
    *peer->notes_end = pending;
    peer->notes_end = &pending->next;
    start_noting(peer);
}
