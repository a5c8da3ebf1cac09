/* slave_hello.c - what follows a hello: the model is brought up to what the slave proves, then everybody is told
 *
 *   1. operations that the slave remembers and nobody will ask for any more are confirmed
 *   2. a VM epoch above the model's proves the model old: that epoch and owner are committed first
 *   3. the hooks: life of VMs, recovery of what an earlier master left (slaves_on_hello)
 *   4. the directory is sent, with the accounts, and storage is attached (host_welcome)
 *
 * All in a fiber; the hellos of one host one after the other. */
#include "master/slaves_internal.h"

#include <stdio.h>

#include "master/account.h"
#include "master/enrol.h"
#include "shared/arena.h"

struct greeting {
    struct arena *arena;
    struct peer *peer;
    uint64_t link;
    bool is_ours;          /* said as one that follows this master */
    struct slave_guest *guests;
    size_t guest_count;
    struct value operations;
};

/* ---- 1. what need not be remembered ---- */

static void add_id(struct refmap *wanted, const char *text)
{
    ref_t id;

    if (uuid_parse(text, strlen(text), &id))
        refmap_put(wanted, id, wanted);
}

/* The operations that the INTENTs name: an earlier master's, or calls under way. */
static void wanted_operations(const struct view *view, struct refmap *wanted)
{
    const struct object *intent;
    struct view_iter it;

    view_each(&it, view, CLASS_OF(intent));
    while ((intent = view_next(&it))) {
        const struct value *details = intent_get_details(intent);

        add_id(wanted, intent_get_operation_id(intent));
        for (uint32_t i = 0; i < details->length; i++)
            add_id(wanted, details->items[2 * i + 1].text);
    }
}

static void confirm_the_rest(struct greeting *greeting)
{
    struct peer *peer = greeting->peer;
    struct core *core = peer->slaves->core;
    struct value *ids = arena_alloc_array(greeting->arena, greeting->operations.length, sizeof *ids);
    struct wire_frame frame = {.type = WIRE_CONFIRM};
    struct refmap wanted = {0};
    uint32_t count = 0;

    if (greeting->operations.length == 0)
        return;
    wanted_operations(store_core_view(core->store), &wanted);
    for (uint32_t i = 0; i < greeting->operations.length; i++) {
        const struct value *id = &greeting->operations.items[i];

        if (id->kind == KIND_REF && !refmap_get(&wanted, id->ref) && !slave_call_is_under_way(peer, id->ref))
            ids[count++] = *id;
    }
    refmap_done(&wanted);
    frame.operations = VALUE_SET(count, ids);
    /* That an INTENT is gone must be durable first: the next master may find it again, and ask. */
    store_wait_visible(core->store, store_newest(core->store));
    if (count > 0 && peer->link == greeting->link)
        peer_send(peer, &frame);
}

/* ---- 2. proof that the model is old ---- */

/* A copy that arrives, or was dropped, has no right yet; any other progress says that a master had committed this epoch for
 * this host. */
static bool proves_epoch(const struct slave_guest *guest)
{
    return streq(guest->progress, "starting") || streq(guest->progress, "ran")
           || streq(guest->progress, "paused-for-move") || streq(guest->progress, "ended");
}

/* It is taken to be there even if its guest has not begun, or has ended: what another master has ordered may still be under
 * way, and run it. The hooks ask, and have the host forget it before it is Halted (guest_changes.c). */
static void commit_epoch(struct core *core, struct peer *peer, const struct object *vm, const struct slave_guest *guest)
{
    struct txn *txn = store_begin(core->store);
    ref_t ref = vm->ref;

    log_warning(peer->uuid, "VM %s: epoch %llu there is above the model's %lld; believed", VM_get_uuid(vm),
                (unsigned long long) guest->epoch, (long long) VM_get_epoch(vm));
    VM_put_epoch(txn, ref, (int64_t) guest->epoch);
    VM_put_resident_on(txn, ref, peer->host);
    VM_put_power_state(txn, ref, streq(guest->state, "running") ? vm_power_state_Running : vm_power_state_Paused);
    VM_put_domid(txn, ref, guest->domid);
    VM_put_suspend_VDI(txn, ref, NULL_REF); /* what has run since does not fit to it */
    store_apply(&txn);
    txn_end(&txn);
}

static void believe_epochs(struct greeting *greeting)
{
    struct core *core = greeting->peer->slaves->core;

    for (size_t i = 0; i < greeting->guest_count; i++) {
        const struct slave_guest *guest = &greeting->guests[i];
        char uuid[UUID_TEXT_BYTES];
        const struct object *vm =
            view_by_uuid(store_core_view(core->store), CLASS_OF(VM), uuid_print(uuid, guest->vm_uuid));

        if (vm && guest->epoch > (uint64_t) VM_get_epoch(vm) && proves_epoch(guest))
            commit_epoch(core, greeting->peer, vm, guest);
    }
}

/* ---- 4. the directory ---- */

/* Any host may become master one day, so each knows the others' keys and addresses; and root must be able to log in there
 * while there is no master. */
static void send_directory(struct greeting *greeting)
{
    struct core *core = greeting->peer->slaves->core;
    const struct view *view = store_core_view(core->store);
    struct value *items = arena_alloc_array(greeting->arena, 2 * view_count(view, CLASS_OF(host)), sizeof *items);
    struct wire_frame frame = {.type = WIRE_DIRECTORY};
    const struct object *host;
    struct view_iter it;
    uint32_t count = 0;

    view_each(&it, view, CLASS_OF(host));
    while ((host = view_next(&it))) {
        items[2 * count] = value_text(host_get_uuid(host));
        items[2 * count + 1] = value_text(
            arena_text(greeting->arena, "%s %s", host_get_curve_key(host), host_get_address(host)));
        count++;
    }
    frame.body = VALUE_MAP(count, items);
    frame.accounts = accounts_of_hosts(core->store, greeting->arena);
    if (greeting->peer->link == greeting->link)
        peer_send(greeting->peer, &frame);
}

/* ---- the fiber ---- */

static void greet_main(void *arg)
{
    struct greeting *greeting = arg;
    struct arena *arena = greeting->arena;
    struct peer *peer = greeting->peer;
    struct slaves *slaves = peer->slaves;
    struct core *core = slaves->core;
    uint64_t agent_start = WIRE_LINK_START(greeting->link);
    bool is_newest = false;

    fiber_set_log_tag(fiber_self(), peer->uuid);
    while (peer->is_greeting)
        waitq_wait(&peer->greeted, 0);
    peer->is_greeting = true;
    if (peer->link == greeting->link && !peer->is_forgotten) { /* else a newer one waits */
        confirm_the_rest(greeting);
        believe_epochs(greeting);
        store_wait_visible(core->store, store_newest(core->store));
        peer->has_followed |= greeting->is_ours;
        for (size_t i = 0; i < slaves->hello_hook_count; i++)
            slaves->hello_hooks[i](core, peer->host, greeting->guests, greeting->guest_count);
        send_directory(greeting);
        is_newest = true;
    }
    peer->is_greeting = false;
    waitq_wake_one(&peer->greeted);
    if (is_newest)
        host_welcome(core, peer->host, agent_start); /* storage may take its time; the next hello does not wait for it */
    peer_release(peer);
    arena_destroy(&arena); /* the greeting is in it */
}

static const char *copy_or_null(struct arena *arena, const char *text)
{
    return text ? arena_strdup(arena, text) : NULL;
}

static bool read_guest(struct arena *arena, const struct value *map, struct slave_guest *ret)
{
    const struct value *vm, *epoch, *domid;

    if (map->kind != KIND_MAP)
        return false;
    vm = value_map_find(map, "vm");
    epoch = value_map_find(map, "epoch");
    domid = value_map_find(map, "domid");
    if (!vm || vm->kind != KIND_REF || ref_is_null(vm->ref) || !epoch || epoch->kind != KIND_INT || epoch->i < 0)
        return false;
    *ret = (struct slave_guest){
        .vm_uuid = vm->ref,
        .epoch = (uint64_t) epoch->i,
        .state = arena_strdup(arena, value_map_text(map, "state", "ended")),
        .progress = arena_strdup(arena, value_map_text(map, "progress", "none")),
        .move = arena_strdup(arena, value_map_text(map, "move", "")),
        .disks = copy_or_null(arena, value_map_text(map, "disks", NULL)),
        .nics = copy_or_null(arena, value_map_text(map, "nics", NULL)),
        .domid = domid && domid->kind == KIND_INT ? domid->i : -1,
    };
    return true;
}

void slave_hello_greet(struct peer *peer, const struct wire_frame *frame)
{
    struct arena *arena = arena_new();
    struct greeting *greeting = arena_new0(arena, struct greeting);

    *greeting = (struct greeting){
        .arena = arena,
        .peer = peer,
        .link = frame->link,
        .is_ours = peer->follows_us,
        .guests = arena_alloc_array(arena, frame->guests.length, sizeof(struct slave_guest)),
        .operations = value_copy(arena, &frame->operations),
    };
    for (uint32_t i = 0; i < frame->guests.length; i++)
        if (read_guest(arena, &frame->guests.items[i], &greeting->guests[greeting->guest_count]))
            greeting->guest_count++;
    peer_hold(peer);
    if (!fiber_spawn(peer->slaves->core->loop, greet_main, greeting, "hello")) {
        log_error(peer->uuid, "no fiber for the host's hello");
        peer_release(peer);
        arena_destroy(&arena);
    }
}
