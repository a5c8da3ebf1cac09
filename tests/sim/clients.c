/* clients.c - clients: calls at random, and what was promised to them
 *
 * A few clients, each with one call at a time. Most calls move VMs about; some count a VM's description up, one step
 * after the other, so that after any crash the number must be at least the last one that was acknowledged. Async calls
 * are answered with a task, which must exist from then on, and end. */
#include <stdio.h>

#include "master/dispatch.h"
#include "master/store.h"
#include "tests/sim/sim.h"

#define CLIENTS     5
#define PAUSE_MS    3000 /* between two calls of a client, at most */
#define TASK_KEPT_S 3000 /* finished ones may go after an hour */

struct client {
    struct clients *clients;
    int number;
    struct timer timer;
    struct asked *asked;      /* its call, until it is answered */
};

/* A call on its way; the master's answer finds it, or nobody any more. */
struct asked {
    struct client *client;    /* NULL: given up */
    struct sim_master *master;
    char what[80];
    int counted_vm;           /* -1: it counts nothing */
    uint64_t count;
    bool is_async;
};

struct clients {
    struct sim *sim;
    struct client client[CLIENTS];
    bool is_stopped;
    uint64_t tried[SIM_VMS], acked[SIM_VMS]; /* numbers in descriptions */
    bool is_counting[SIM_VMS];
    struct {
        ref_t ref;
        uint64_t acked_ms;
    } tasks[SIM_TASKS_MAX];
    size_t task_count;
    struct {
        const char *name;
        unsigned made, done;
        struct { char code[48]; unsigned count; } codes[24];
    } figures[32];
};

/* ---- what may be asked ---- */

enum shape { ON_VM, ON_VBD, ON_VM_SNAPSHOT, ON_VM_START, ON_VM_RESUME, ON_VM_START_ON, ON_VM_MOVE, ON_HOST, ON_TASK, COUNTS };

#define HALTED    (1 << vm_power_state_Halted)
#define PAUSED    (1 << vm_power_state_Paused)
#define RUNNING   (1 << vm_power_state_Running)
#define SUSPENDED (1 << vm_power_state_Suspended)
#define ANY       (HALTED | PAUSED | RUNNING | SUSPENDED)

static const struct {
    const char *name;
    enum shape shape;
    unsigned weight;
    unsigned fits;   /* power states in which it makes sense */
} calls[] = {
    {"VM.start", ON_VM_START, 24, HALTED},
    {"VM.start_on", ON_VM_START_ON, 4, HALTED},
    {"VM.pool_migrate", ON_VM_MOVE, 40, RUNNING},
    {"VM.clean_shutdown", ON_VM, 4, RUNNING},
    {"VM.hard_shutdown", ON_VM, 5, ANY},
    {"VM.clean_reboot", ON_VM, 4, RUNNING},
    {"VM.hard_reboot", ON_VM, 4, RUNNING},
    {"VM.suspend", ON_VM, 6, RUNNING},
    {"VM.resume", ON_VM_RESUME, 10, SUSPENDED},
    {"VM.pause", ON_VM, 3, RUNNING},
    {"VM.unpause", ON_VM, 8, PAUSED},
    {"VM.snapshot", ON_VM_SNAPSHOT, 4, ANY},
    {"VBD.plug", ON_VBD, 8, RUNNING | PAUSED},
    {"VBD.unplug", ON_VBD, 8, RUNNING | PAUSED},
    {"host.evacuate", ON_HOST, 2, ANY},
    {"task.cancel", ON_TASK, 6, ANY},
    {"VM.set_name_description", COUNTS, 20, ANY},
};

static void figure(struct clients *clients, const char *what, const char *code)
{
    size_t i = 0, j = 0;

    while (clients->figures[i].name && !streq(clients->figures[i].name, what))
        i++;
    if (i == ARRAY_SIZE(clients->figures) - 1)
        return;
    clients->figures[i].name = what;
    clients->figures[i].made++;
    if (!code) {
        clients->figures[i].done++;
        return;
    }
    while (j < ARRAY_SIZE(clients->figures[i].codes) - 1 && clients->figures[i].codes[j].count > 0
           && !streq(clients->figures[i].codes[j].code, code))
        j++;
    snprintf(clients->figures[i].codes[j].code, sizeof clients->figures[i].codes[j].code, "%s", code);
    clients->figures[i].codes[j].count++;
}

void clients_report(const struct clients *clients)
{
    for (size_t i = 0; i < ARRAY_SIZE(clients->figures) && clients->figures[i].name; i++) {
        fprintf(stderr, "%-24s %5u asked %5u done", clients->figures[i].name, clients->figures[i].made,
                clients->figures[i].done);
        for (size_t j = 0; j < ARRAY_SIZE(clients->figures[i].codes) && clients->figures[i].codes[j].count; j++)
            fprintf(stderr, "  %s %u", clients->figures[i].codes[j].code, clients->figures[i].codes[j].count);
        fprintf(stderr, "\n");
    }
}

/* ---- asking ---- */

static void ask(void *arg);

static void ask_later(struct client *client)
{
    struct sim *sim = client->clients->sim;

    if (!client->clients->is_stopped)
        timer_start(sim->world->loop, &client->timer, world_chance(sim->world, PAUSE_MS), ask, client);
}

static uint64_t count_of(const struct view *view, ref_t ref)
{
    const struct object *vm = view_get(view, VM, ref);

    return vm ? strtoull(VM_get_name_description(vm), NULL, 10) : 0;
}

/* A reading call that begins now, on any connection, sees what was just told. */
static void check_visible(struct clients *clients, const struct asked *asked)
{
    struct view *view = store_pin(asked->master->core.store);

    if (count_of(view, clients->sim->vms[asked->counted_vm]) < asked->count)
        sim_fail(clients->sim, "%s was answered before it can be read", asked->what);
    view_unpin(&view);
}

static void promised(struct clients *clients, const struct asked *asked, const struct request *request)
{
    if (asked->counted_vm >= 0)
        check_visible(clients, asked);
    if (asked->master->is_superseded)
        return;
    if (asked->counted_vm >= 0)
        clients->acked[asked->counted_vm] = asked->count;
    if (asked->is_async && request->call.reply.kind == KIND_REF && clients->task_count < SIM_TASKS_MAX) {
        clients->tasks[clients->task_count].ref = request->call.reply.ref;
        clients->tasks[clients->task_count++].acked_ms = sim_now_ms(clients->sim);
    }
}

static void answered(struct request *request, int r, bool is_last)
{
    struct asked *asked = request->user;
    struct client *client = asked ? asked->client : NULL;

    if (client && sim_master_is_up(asked->master)) {
        struct clients *clients = client->clients;
        const char *code = r < 0 ? request->call.failure.text : NULL;

        sim_event(clients->sim, "client%d: %s: %s%s%s", client->number, asked->what, code ? code : "done",
                  code && request->call.failure.count ? " " : "",
                  code && request->call.failure.count
                          && strncmp(request->call.failure.params[request->call.failure.count - 1], "OpaqueRef", 9) != 0
                      ? request->call.failure.params[request->call.failure.count - 1]
                      : "");
        figure(clients, request->call.method ? request->call.method->name : "?", code);
        if (r == 0)
            promised(clients, asked, request);
        if (asked->counted_vm >= 0)
            clients->is_counting[asked->counted_vm] = false;
        client->asked = NULL;
        ask_later(client);
    }
    if (asked) {
        request->user = NULL;
        free(asked);
    }
    if (is_last)
        request_destroy(&request);
}

static struct sim_master *some_master(struct clients *clients)
{
    struct sim *sim = clients->sim;
    struct sim_master *master = sim_master(sim);

    if (sim->master_count > 1 && world_chance(sim->world, 4) == 0)
        master = sim->masters[sim->master_count - 2];
    return sim_master_is_up(master) && master->session[0] ? master : NULL;
}

static size_t some_call(struct world *world)
{
    uint64_t total = 0, at;
    size_t i = 0;

    for (size_t j = 0; j < ARRAY_SIZE(calls); j++)
        total += calls[j].weight;
    for (at = world_chance(world, total); at >= calls[i].weight; i++)
        at -= calls[i].weight;
    return i;
}

static struct value *put_ref(struct request *request, struct value *at, ref_t ref)
{
    *at = value_text(ref_text(&request->call, ref));
    return at + 1;
}

/* Mostly one that the call makes sense for, as far as its record says. */
static int some_vm(struct sim *sim, struct sim_master *master, unsigned fits)
{
    const struct view *view = store_core_view(master->core.store);
    int vm = 0;

    for (int tries = 0; tries < 5; tries++) {
        const struct object *object;

        vm = (int) world_chance(sim->world, SIM_VMS);
        object = view_get(view, VM, sim->vms[vm]);
        if (object && fits & 1u << VM_get_power_state(object))
            break;
    }
    return vm;
}

/* The parameters; false when there is nothing to ask about. */
static bool fill(struct client *client, struct request *request, struct asked *asked, size_t call)
{
    enum shape shape = calls[call].shape;
    const char *name = calls[call].name;
    struct clients *clients = client->clients;
    struct sim *sim = clients->sim;
    struct arena *arena = request->call.arena;
    struct value *raw = arena_alloc_array(arena, 8, sizeof *raw), *at = raw;
    int vm = some_vm(sim, asked->master, calls[call].fits), host = (int) world_chance(sim->world, WORLD_HOSTS);
    bool yes = world_chance(sim->world, 6) == 0;

    *at++ = value_text(arena_strdup(arena, asked->master->session));
    snprintf(asked->what, sizeof asked->what, "%s %s", name, sim->vm_names[vm]);
    if (shape == ON_VBD)
        at = put_ref(request, at, sim->vbds[vm]);
    else if (shape != ON_HOST && shape != ON_TASK)
        at = put_ref(request, at, sim->vms[vm]);
    switch (shape) {
    case ON_VM:
    case ON_VBD:
        break;
    case ON_VM_SNAPSHOT:
        *at++ = value_text("then");
        break;
    case ON_VM_START:
    case ON_VM_RESUME:
        *at++ = VALUE_BOOL(yes);
        *at++ = VALUE_BOOL(false);
        break;
    case ON_VM_START_ON:
        at = put_ref(request, at, sim->hosts[host].ref);
        *at++ = VALUE_BOOL(yes);
        *at++ = VALUE_BOOL(false);
        break;
    case ON_VM_MOVE:
        at = put_ref(request, at, sim->hosts[host].ref);
        *at++ = VALUE_EMPTY_MAP;
        snprintf(asked->what, sizeof asked->what, "%s %s to %s", name, sim->vm_names[vm],
                 sim->hosts[host].process.name);
        break;
    case ON_HOST:
        at = put_ref(request, at, sim->hosts[host].ref);
        snprintf(asked->what, sizeof asked->what, "%s %s", name, sim->hosts[host].process.name);
        break;
    case ON_TASK:
        if (clients->task_count == 0)
            return false;
        at = put_ref(request, at,
                     clients->tasks[clients->task_count - 1 - world_chance(sim->world, MIN(clients->task_count, 6ul))].ref);
        snprintf(asked->what, sizeof asked->what, "%s", name);
        break;
    case COUNTS:
        if (clients->is_counting[vm])
            return false;
        clients->is_counting[vm] = true;
        asked->counted_vm = vm;
        asked->count = ++clients->tried[vm];
        *at++ = value_text(arena_text(arena, "%llu", (unsigned long long) asked->count));
        break;
    }
    request->raw = raw;
    request->raw_count = (unsigned) (at - raw);
    return true;
}

static void ask(void *arg)
{
    struct client *client = arg;
    struct clients *clients = client->clients;
    struct sim_master *master = some_master(clients);
    struct world *world = clients->sim->world;
    size_t call = some_call(world);
    struct request *request;
    struct asked *asked;

    if (!master) {
        ask_later(client);
        return;
    }
    request = request_new(master->core.dispatch);
    asked = new0(struct asked);
    *asked = (struct asked){.client = client, .master = master, .counted_vm = -1};
    asked->is_async = calls[call].shape != COUNTS && calls[call].shape != ON_TASK && world_chance(world, 2) == 0;
    if (!fill(client, request, asked, call)) {
        free(asked);
        request_destroy(&request);
        ask_later(client);
        return;
    }
    request->text = asked->is_async ? arena_text(request->call.arena, "Async.%s", calls[call].name) : calls[call].name;
    request->user = asked;
    request->answer = answered;
    client->asked = asked;
    sim_event(clients->sim, "client%d: %s%s?", client->number, asked->is_async ? "Async." : "", asked->what);
    dispatch(request);
}

/* ---- deaths and promises ---- */

void clients_forget(struct clients *clients)
{
    memset(clients->acked, 0, sizeof clients->acked);
    clients->task_count = 0;
}

void clients_master_died(struct clients *clients, struct sim_master *master)
{
    for (int i = 0; i < CLIENTS; i++) {
        struct client *client = &clients->client[i];

        if (!client->asked || client->asked->master != master)
            continue;
        if (client->asked->counted_vm >= 0)
            clients->is_counting[client->asked->counted_vm] = false; /* it may have happened, or not */
        client->asked->client = NULL;
        client->asked = NULL;
        ask_later(client);
    }
}

static void check_counts(struct clients *clients, const struct view *view)
{
    struct sim *sim = clients->sim;

    for (int i = 0; i < SIM_VMS; i++) {
        uint64_t count = count_of(view, sim->vms[i]);

        if (count < clients->acked[i] || count > clients->tried[i])
            sim_fail(sim, "%s: %llu was acknowledged, %llu tried, and %llu is there", sim->vm_names[i],
                     (unsigned long long) clients->acked[i], (unsigned long long) clients->tried[i],
                     (unsigned long long) count);
    }
}

static void check_tasks(struct clients *clients, const struct view *view)
{
    uint64_t now_ms = sim_now_ms(clients->sim);
    char text[REF_TEXT_BYTES];

    for (size_t i = 0; i < clients->task_count; i++)
        if (now_ms < clients->tasks[i].acked_ms + TASK_KEPT_S * 1000ull && !view_get(view, task, clients->tasks[i].ref))
            sim_fail(clients->sim, "the task %s was acknowledged, and is not there",
                     ref_print(text, clients->tasks[i].ref));
}

void clients_check(struct clients *clients, struct sim_master *master)
{
    const struct view *view = store_core_view(master->core.store);

    check_counts(clients, view);
    check_tasks(clients, view);
}

/* ---- begin and end ---- */

struct clients *clients_new(struct sim *sim)
{
    struct clients *clients = new0(struct clients);

    clients->sim = sim;
    for (int i = 0; i < CLIENTS; i++) {
        clients->client[i] = (struct client){.clients = clients, .number = i + 1};
        ask_later(&clients->client[i]);
    }
    return clients;
}

void clients_stop(struct clients *clients)
{
    clients->is_stopped = true;
    for (int i = 0; i < CLIENTS; i++)
        timer_stop(&clients->client[i].timer);
}

unsigned clients_waiting(const struct clients *clients)
{
    unsigned waiting = 0;

    for (int i = 0; i < CLIENTS; i++)
        waiting += clients->client[i].asked != NULL;
    return waiting;
}
