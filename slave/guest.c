/* guest.c - the life of a simulated guest
 *
 *   guest_new -> memory (built, restored or received) -> PAUSED <-> RUNNING -> SENT -> ENDED ->
 * removed
 *
 * A running guest ticks: it counts, fills a few pages with what follows from VM and tick, and says
 * so in its journal. The counter and the pages travel with it, so a reader of the journal sees
 * whether a tick was lost or made twice, and a receiver's digest covers the guest's whole history.
 *
 * The first tick comes when the last one is tick-ms old, be it on another host: a move costs the
 * guest what it stood still, no more. Ticks are then put on a grid of 10 ms, so that thousands of
 * guests share the wake-ups of the process. A process that was stopped does not make up for missed
 * ticks: the gap is to be seen. */
#include "slave/guest.h"

#include <stdarg.h>
#include <stdio.h>

#include "shared/model.h"

#define GRID_MS    10
#define GUESTS_MAX 65536 /* ended ones too: an agent that never forgets does not fill the memory */

static void tick_start(struct guest *guest);
static void plan_start(struct guest *guest);

int guest_fail(struct guest_error *error, int code, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(error->text, sizeof(error->text), format, args);
    va_end(args);
    return -code;
}

/* --- coming into being --- */

/* The options of the request over those of the process. */
static int read_options(struct guest_options *options, const struct guest_message *request,
                        struct guest_error *error)
{
    const msgpack_object *map = guest_message_find(request, "options");

    for (uint32_t i = 0; map && map->type == MSGPACK_OBJECT_MAP && i < map->via.map.size; i++) {
        const msgpack_object *key = &map->via.map.ptr[i].key, *text = &map->via.map.ptr[i].val;
        char key_text[64], value_text[64];
        int r;

        if (key->type != MSGPACK_OBJECT_STR || text->type != MSGPACK_OBJECT_STR
            || key->via.str.size >= sizeof(key_text) || text->via.str.size >= sizeof(value_text))
            continue; /* longer than any key of ours, and than any number */
        snprintf(key_text, sizeof(key_text), "%.*s", (int) key->via.str.size, key->via.str.ptr);
        snprintf(value_text, sizeof(value_text), "%.*s", (int) text->via.str.size,
                 text->via.str.ptr);
        r = guest_option_set(options, key_text, value_text, error);
        if (r < 0)
            return r;
    }
    return 0;
}

struct guest *guest_new(struct guests *guests, const struct guest_message *request, int *ret_code,
                        struct guest_error *error)
{
    struct guest_options options = guests->defaults;
    const char *lock_path = guest_message_text(request, "lock_path", NULL);
    const char *journal_path = guest_message_text(request, "journal_path", NULL);
    struct guest *guest;
    ref_t vm;

    if (!guest_message_uuid(request, "vm", &vm)) {
        *ret_code = guest_fail(error, ERR_INTERNAL_ERROR, "the request names no VM");
        return NULL;
    }
    guest = guests_find(guests, vm);
    if (guest && guest->state != GUEST_ENDED) {
        *ret_code =
            guest_fail(error, ERR_VM_BAD_POWER_STATE, "the VM has a guest here, which is %s",
                       guest_state_name(guest->state));
        return NULL;
    }
    if (!guest && guests->table.count >= GUESTS_MAX) {
        *ret_code = guest_fail(error, ERR_HOST_NOT_ENOUGH_FREE_MEMORY,
                               "this host has %d guests, which is all it takes", GUESTS_MAX);
        return NULL;
    }
    *ret_code = read_options(&options, request, error);
    if (*ret_code < 0)
        return NULL;

    if (guest)
        guest_remove(guest);
    guest = new0(struct guest);
    *guest = (struct guest){
        .node = {.key = vm},
        .guests = guests,
        .vm = vm,
        .epoch = guest_message_uint(request, "epoch", 0),
        .domid = guest_message_int(request, "domid", 0),
        .name = dup_text(guest_message_text(request, "name", "guest")),
        .state = GUEST_RECEIVING,
        .options = options,
        .memory_target_bytes = guest_message_int(request, "memory_target", 0),
        .vcpus = (int) MIN(MAX(guest_message_int(request, "vcpus", 1), 1), 1024),
        .lock_path = lock_path ? dup_text(lock_path) : NULL,
        .journal_path = journal_path ? dup_text(journal_path) : NULL,
        .lock_fd = -1,
        .journal_fd = -1,
        .origin = "boot",
    };
    guest_devices_unpack(request, &guest->devices);
    guest_table_add(&guests->table, &guest->node);
    return guest;
}

void guest_remove(struct guest *guest)
{
    assert(!guest->work && !guest->is_executing);
    guests_tell_gone(guest);
    timer_stop(&guest->tick_timer);
    timer_stop(&guest->plan_timer);
    timer_stop(&guest->work_timer);
    guest_files_close(guest);
    guest_devices_done(&guest->devices);
    guest_memory_destroy(&guest->memory);
    guest_table_remove(&guest->guests->table, &guest->node);
    free(guest->name);
    free(guest->lock_path);
    free(guest->journal_path);
    free(guest);
}

uint32_t guest_page_count(const struct guest *guest)
{
    return (uint32_t) ((guest->options.memory_kib + 3) / 4);
}

int guest_build_memory(struct guest *guest, uint32_t page_count, struct guest_error *error)
{
    guest->memory = guest_memory_new(page_count);
    if (!guest->memory)
        return guest_fail(error, ERR_HOST_NOT_ENOUGH_FREE_MEMORY, "no memory for %u pages",
                          page_count);
    return 0;
}

/* --- work --- */

void guest_work_begin(struct guest *guest, const struct guest_work *work, const struct guest_op *op)
{
    assert(!guest->work);
    guest->work = work;
    guest->op = *op;
}

struct guest_op guest_work_detach(struct guest *guest)
{
    struct guest_op op = guest->op;

    assert(guest->work);
    timer_stop(&guest->work_timer);
    guest->work = NULL;
    guest->work_state = NULL;
    guest->op = (struct guest_op){0};
    return op;
}

void guest_work_done(struct guest *guest, int result, const char *text)
{
    struct guest_op op = guest_work_detach(guest);

    guests_answer(&op, result, text);
}

/* Booting: the guest is complete at once, its start only takes as long as it is told to. */
static void boot_cancel(struct guest *guest, int code, const char *text)
{
    guest_work_done(guest, code, text);
}

static void boot_drop(_unused_ struct guest *guest)
{
}

static const struct guest_work boot_work = {"starting", boot_cancel, boot_drop};

static void boot_due(void *arg)
{
    guest_work_done(arg, 0, "");
}

void guest_boot_begin(struct guest *guest, const struct guest_op *op)
{
    guest_work_begin(guest, &boot_work, op);
    guest_set_state(guest, GUEST_PAUSED);
    if (guest->options.boot_ms == 0)
        boot_due(guest);
    else
        timer_start(guest->guests->loop, &guest->work_timer, (uint64_t) guest->options.boot_ms,
                    boot_due, guest);
}

bool guest_is_booting(const struct guest *guest)
{
    return guest->work == &boot_work;
}

void guest_boot_finish(struct guest *guest)
{
    guest_work_done(guest, 0, "");
}

/* --- running --- */

void guest_set_state(struct guest *guest, enum guest_state state)
{
    guest->state = state;
    guests_tell(guest);
}

int guest_run(struct guest *guest, const char *origin, struct guest_error *error)
{
    int r = guest_files_open(guest, error);

    if (r < 0)
        return r;
    guest_set_state(guest, GUEST_RUNNING);
    guest_continue(guest, origin);
    return 0;
}

void guest_continue(struct guest *guest, const char *origin)
{
    assert(guest->state == GUEST_RUNNING && !guest->is_executing && guest->memory);
    guest->is_executing = true;
    guest_journal_note(guest, "run", origin);
    tick_start(guest);
    if (guest->plan != PLAN_NONE)
        plan_start(guest);
}

void guest_hold(struct guest *guest)
{
    uint64_t now_ms = loop_now_ms(guest->guests->loop);

    if (!guest->is_executing)
        return;
    guest->is_executing = false;
    timer_stop(&guest->tick_timer);
    if (timer_is_running(&guest->plan_timer)) {
        uint64_t due_ms = guest->plan_timer.due_us / 1000;

        guest->plan_left_ms = due_ms > now_ms ? due_ms - now_ms : 0;
        timer_stop(&guest->plan_timer);
    }
    guest_journal_note(guest, "pause", "");
}

static void work_counters(struct guest *guest)
{
    const struct guest_options *o = &guest->options;

    guest->vcpu_seconds += (double) (guest->vcpus * o->cpu_percent * o->tick_ms) / 100e3;
    if (guest->devices.disk_count > 0) {
        guest->disk_read_bytes += GUEST_PAGE_BYTES;
        guest->disk_write_bytes += o->dirty_pages * GUEST_PAGE_BYTES;
    }
    if (guest->devices.nic_count > 0) {
        guest->nic_rx_bytes += 1500;
        guest->nic_tx_bytes += 500;
    }
}

static void tick_due(void *arg)
{
    struct guest *guest = arg;
    struct guest_options *o = &guest->options;
    struct loop *loop = guest->guests->loop;

    guest->tick++;
    guest->last_tick_ms = loop_now_ms(loop);
    guest_memory_work(guest->memory, guest->vm, guest->tick, (uint32_t) o->dirty_pages);
    guest_journal_tick(guest);
    guest_disks_tick(guest);
    work_counters(guest);
    if (guest->tick == (uint64_t) o->crash_at_tick) {
        guest_end(guest, GUEST_CRASHED);
        guests_tell_changed(guest, GUEST_CRASHED);
        return;
    }
    if (guest->tick == (uint64_t) o->shutdown_at_tick)
        guest_plan(guest, PLAN_SHUTDOWN, (uint64_t) o->shutdown_ms);
    else if (guest->tick == (uint64_t) o->reboot_at_tick)
        guest_plan(guest, PLAN_REBOOT, (uint64_t) o->reboot_ms);

    guest->due_ms += (uint64_t) o->tick_ms;
    if (guest->due_ms <= guest->last_tick_ms)
        guest->due_ms = guest->last_tick_ms + 1; /* late: no ticks are made up for */
    timer_start_at(loop, &guest->tick_timer, guest->due_ms, tick_due, guest);
}

static void tick_start(struct guest *guest)
{
    uint64_t now_ms = loop_now_ms(guest->guests->loop), tick_ms = (uint64_t) guest->options.tick_ms;
    uint64_t grid_ms = MIN(tick_ms, (uint64_t) GRID_MS), due_ms = guest->last_tick_ms + tick_ms;

    if (guest->last_tick_ms > now_ms
        || due_ms < now_ms) /* long ago, or of another machine's clock */
        due_ms = now_ms;
    /* The first one now if it is due; the later ones, or all, on the grid. */
    guest->due_ms = (due_ms + grid_ms - 1) / grid_ms * grid_ms;
    timer_start_at(guest->guests->loop, &guest->tick_timer,
                   due_ms == now_ms ? due_ms : guest->due_ms, tick_due, guest);
}

static void plan_due(void *arg)
{
    struct guest *guest = arg;
    enum guest_change change = guest->plan == PLAN_REBOOT ? GUEST_REBOOTED : GUEST_SHUT_DOWN;

    guest_end(guest, change);
    guests_tell_changed(guest, change);
}

static void plan_start(struct guest *guest)
{
    timer_start(guest->guests->loop, &guest->plan_timer, guest->plan_left_ms, plan_due, guest);
}

void guest_plan(struct guest *guest, enum own_plan plan, uint64_t in_ms)
{
    if (guest->plan != PLAN_NONE)
        return; /* it is about to end already */
    guest->plan = plan;
    guest->plan_left_ms = in_ms;
    if (guest->is_executing)
        plan_start(guest);
}

/* --- ending --- */

void guest_release_files(struct guest *guest, const char *reason)
{
    guest_journal_note(guest, "stop", reason);
    guest_files_close(guest);
}

void guest_end(struct guest *guest, enum guest_change how)
{
    const struct guest_work *work = guest->work;

    assert(guest->state != GUEST_ENDED);
    guest->is_executing = false;
    timer_stop(&guest->tick_timer);
    timer_stop(&guest->plan_timer);
    guest->plan = PLAN_NONE;
    if (work)
        work->drop(guest);
    guest_release_files(guest, guest_change_name(how));
    guest_memory_destroy(&guest->memory);
    guest->ended_by = how;
    guest_set_state(guest, GUEST_ENDED);
    if (work) { /* told last: who hears of it finds the guest ended */
        struct guest_error error;

        guest_fail(&error, ERR_VM_BAD_POWER_STATE, "the guest ended (%s) while it was %s",
                   guest_change_name(how), work->name);
        guest_work_done(guest, -ERR_VM_BAD_POWER_STATE, error.text);
    }
}
