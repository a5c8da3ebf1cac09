/* load_pool.c - logging in, finding the VMs and hosts to work on, making more of them, starting them
 *
 * All of this happens before anything is measured, yet with many thousands of VMs it has to be quick: the steps of each item
 * follow one another on one connection, and all connections work at once. */
#include <err.h>
#include <stdio.h>

#include "tests/bench/load.h"

#define LIST_BYTES_MAX (256u * 1024 * 1024)
#define RECORD_BYTES   (64 * 1024)

void pool_open(struct load *load, struct client *client, unsigned connections)
{
    client->session = NULL;
    client_open(client, load->url, connections);
    call_begin(client, "session.login_with_password");
    call_text(client, load->user);
    call_text(client, load->password);
    call_text(client, "1.0");
    call_text(client, "drover-load");
    if (!answer_value(call_now(client), "<name>Value</name>", load->session, sizeof load->session)
        || load->session[0] == '\0')
        errx(1, "no session was given");
    client->session = load->session;
    load->run = now_ns();
}

void pool_close(struct client *client)
{
    call_begin(client, "session.logout");
    call_now(client);
    client_close(client);
}

/* ---- the same steps for each of many ---- */

struct each {
    struct load *load;
    size_t count, next;
    int steps;
    /* Writes the call of a step with call_begin() and its arguments. */
    void (*ask)(struct each *, struct client *, size_t item, int step);
    /* Its answer, when it was Success. May be NULL. */
    void (*took)(struct each *, const struct connection *, size_t item, int step);
    bool is_enough;          /* set by took(): no further items */
    bool forgives_missing;   /* an object that is gone by now is passed over */
    void *arg;
};

static void each_next(struct each *each, struct connection *connection)
{
    if (connection->step == each->steps) {
        if (each->next == each->count || each->is_enough)
            return;
        connection->at = each->next++;
        connection->step = 0;
    }
    each->ask(each, connection->client, connection->at, connection->step);
    call_send(connection);
}

static void each_answered(struct connection *connection, void *arg)
{
    struct each *each = arg;
    char code[256];
    const char *failure = answer_failure(connection, code, sizeof code);

    if (failure && each->forgives_missing && streq(failure, "HANDLE_INVALID")) {
        connection->step = each->steps;
    } else if (failure) {
        errx(1, "%s: %.400s", failure, buffer_text(&connection->out));
    } else {
        if (each->took)
            each->took(each, connection, connection->at, connection->step);
        connection->step++;
    }
    each_next(each, connection);
}

static void each_run(struct each *each, struct client *client)
{
    client->answered = each_answered;
    client->arg = each;
    for (unsigned i = 0; i < client->count; i++) {
        client->connections[i].step = each->steps;
        each_next(each, &client->connections[i]);
    }
    client_run(client, UINT64_MAX);
}

/* ---- sessions ---- */

static void login_ask(struct each *each, struct client *client, size_t item, int step)
{
    char originator[64];

    (void) step;
    /* Sessions are capped for each originator, so this many clients call themselves differently. */
    snprintf(originator, sizeof originator, "drover-load %zu", item / 100);
    client->session = NULL;
    call_begin(client, "session.login_with_password");
    client->session = each->load->session;
    call_text(client, each->load->user);
    call_text(client, each->load->password);
    call_text(client, "1.0");
    call_text(client, originator);
}

static void login_took(struct each *each, const struct connection *connection, size_t item, int step)
{
    struct connection *owner = &((struct client *) each->arg)->connections[1 + item];

    (void) step;
    if (!answer_value(connection, "<name>Value</name>", owner->session, sizeof owner->session))
        errx(1, "no session was given");
}

void pool_login_each(struct load *load, struct client *client)
{
    struct each each = {.load = load, .count = client->count - 1, .steps = 1, .ask = login_ask, .took = login_took,
                        .arg = client};

    each_run(&each, client);
}

/* ---- finding ---- */

/* All references in the answer, in its order. */
static char (*refs_of(const struct connection *connection, size_t *ret_count))[REF_BYTES]
{
    const char *at = buffer_text((struct buffer *) &connection->body);
    char (*refs)[REF_BYTES] = NULL;
    size_t count = 0, room = 0;

    while (at && (at = strstr(at, ">OpaqueRef:"))) {
        size_t length = strcspn(++at, "<");

        if (count == room) {
            room = MAX(room * 2, (size_t) 1024);
            refs = realloc_array(refs, room, sizeof *refs);
        }
        length = MIN(length, (size_t) REF_BYTES - 1);
        memcpy(refs[count], at, length);
        refs[count++][length] = '\0';
        at += length;
    }
    *ret_count = count;
    return refs;
}

static char (*get_all(struct client *client, const char *method, size_t *ret_count))[REF_BYTES]
{
    size_t kept = client->keep_max;
    char (*refs)[REF_BYTES];

    client->keep_max = LIST_BYTES_MAX;
    call_begin(client, method);
    refs = refs_of(call_now(client), ret_count);
    client->keep_max = kept;
    return refs;
}

static void enabled_ask(struct each *each, struct client *client, size_t item, int step)
{
    (void) step;
    call_begin(client, "host.get_enabled");
    call_text(client, each->load->hosts[item]);
}

static void enabled_took(struct each *each, const struct connection *connection, size_t item, int step)
{
    char text[8];
    const char *is_enabled = answer_value(connection, "<name>Value</name>", text, sizeof text);

    (void) step;
    if (!is_enabled || !streq(is_enabled, "1"))
        each->load->hosts[item][0] = '\0';
}

/* Hosts that take VMs; others are nobody's destination. */
static void find_hosts(struct load *load, struct client *client)
{
    struct each each = {.load = load, .steps = 1, .ask = enabled_ask, .took = enabled_took};

    load->hosts = get_all(client, "host.get_all", &each.count);
    each_run(&each, client);
    load->host_count = 0;
    for (size_t i = 0; i < each.count; i++)
        if (load->hosts[i][0])
            memmove(load->hosts[load->host_count++], load->hosts[i], REF_BYTES);
}

struct finding {
    char (*refs)[REF_BYTES];
    const char *wanted;
};

static void find_ask(struct each *each, struct client *client, size_t item, int step)
{
    struct finding *finding = each->arg;

    (void) step;
    call_begin(client, "VM.get_record");
    call_text(client, finding->refs[item]);
}

static bool has(const struct connection *connection, const char *field, const char *value)
{
    char text[REF_BYTES];
    const char *found = answer_value(connection, field, text, sizeof text);

    return found && streq(found, value);
}

static int host_of(const struct load *load, const struct connection *connection)
{
    char ref[REF_BYTES];

    if (answer_value(connection, "<name>resident_on</name>", ref, sizeof ref))
        for (size_t i = 0; i < load->host_count; i++)
            if (streq(load->hosts[i], ref))
                return (int) i;
    return -1;
}

static void find_took(struct each *each, const struct connection *connection, size_t item, int step)
{
    struct finding *finding = each->arg;
    struct load *load = each->load;
    bool is_running = has(connection, "<name>power_state</name>", "Running"),
         is_halted = has(connection, "<name>power_state</name>", "Halted");
    struct vm *vm;

    (void) step;
    if (!has(connection, "<name>is_a_template</name>", "0") || !has(connection, "<name>is_control_domain</name>", "0")
        || (!is_running && !is_halted) || (streq(finding->wanted, "running") && !is_running)
        || (streq(finding->wanted, "halted") && !is_halted) || each->is_enough)
        return;
    vm = &load->vms[load->vm_count++];
    memcpy(vm->ref, finding->refs[item], REF_BYTES);
    vm->is_running = is_running;
    vm->host = host_of(load, connection);
    each->is_enough = load->vms_max > 0 && load->vm_count == load->vms_max;
}

void pool_find(struct load *load, struct client *client, const char *wanted)
{
    struct finding finding = {.wanted = wanted};
    struct each each = {.load = load, .steps = 1, .ask = find_ask, .took = find_took, .forgives_missing = true,
                        .arg = &finding};
    size_t kept = client->keep_max;

    find_hosts(load, client);
    finding.refs = get_all(client, "VM.get_all", &each.count);
    load->pool_vms = each.count;
    load->vms = new0_array(struct vm, each.count + 1);
    client->keep_max = RECORD_BYTES;
    each_run(&each, client);
    client->keep_max = kept;
    free(finding.refs);
    if (load->vm_count == 0)
        errx(1, "the pool has no VM that is %s", wanted);
}

/* ---- options of simulated guests ---- */

struct tuning {
    char key[64], value[64];
};

static void tune_ask(struct each *each, struct client *client, size_t item, int step)
{
    struct tuning *tuning = each->arg;

    call_begin(client, step == 0 ? "VM.remove_from_other_config" : "VM.add_to_other_config");
    call_text(client, each->load->vms[item].ref);
    call_text(client, tuning->key);
    if (step == 1)
        call_text(client, tuning->value);
}

void pool_tune(struct load *load, struct client *client)
{
    struct tuning tuning;

    for (const char *option = load->options; option && *option; option += strcspn(option, ",")) {
        struct each each = {.load = load, .count = load->vm_count, .steps = 2, .ask = tune_ask, .arg = &tuning};

        option += *option == ',';
        if (sscanf(option, "%63[^=,]=%63[^,]", tuning.key, tuning.value) != 2)
            errx(2, "--options takes KEY=VALUE,KEY=VALUE...");
        each_run(&each, client);
    }
}

/* ---- making VMs ---- */

/* What a new VM goes through. Without a storage repository it gets no devices, and it is done after PLAIN. */
enum { MAKE_CLONE, MAKE_PLAIN, MAKE_VDI, MAKE_VBD, MAKE_VIF, MAKE_STEPS };

struct making {
    char template[REF_BYTES];
    char (*vms)[REF_BYTES], (*vdis)[REF_BYTES];
};

/* A record as XML: pairs of names and values, ended by NULL. */
static void call_record(struct client *client, const char *const (*members)[2])
{
    char text[4096];
    size_t at = (size_t) snprintf(text, sizeof text, "<struct>");

    for (size_t i = 0; members[i][0]; i++)
        at += (size_t) snprintf(text + at, sizeof text - at, "<member><name>%s</name><value>%s</value></member>",
                                members[i][0], members[i][1]);
    assert(at + sizeof "</struct>" < sizeof text);
    strcpy(text + at, "</struct>");
    call_xml(client, text);
}

#define NO   "<boolean>0</boolean>"
#define NONE "<struct/>"

static void ask_device(struct each *each, struct client *client, size_t item, int step)
{
    struct making *making = each->arg;
    const char *vm = making->vms[item], *vdi = making->vdis[item];
    const char *const vdi_members[][2] = {
        {"name_label", "disk"}, {"name_description", ""}, {"SR", each->load->sr}, {"virtual_size", "1048576"},
        {"type", "user"}, {"sharable", NO}, {"read_only", NO}, {"other_config", NONE}, {NULL, NULL}};
    const char *const vbd_members[][2] = {
        {"VM", vm}, {"VDI", vdi}, {"userdevice", "0"}, {"bootable", NO}, {"mode", "RW"}, {"type", "Disk"},
        {"unpluggable", NO}, {"empty", NO}, {"other_config", NONE}, {"qos_algorithm_type", ""},
        {"qos_algorithm_params", NONE}, {NULL, NULL}};
    const char *const vif_members[][2] = {
        {"device", "0"}, {"network", each->load->network}, {"VM", vm}, {"MAC", ""}, {"MTU", "1500"},
        {"other_config", NONE}, {"qos_algorithm_type", ""}, {"qos_algorithm_params", NONE}, {NULL, NULL}};

    call_begin(client, step == MAKE_VDI ? "VDI.create" : step == MAKE_VBD ? "VBD.create" : "VIF.create");
    call_record(client, step == MAKE_VDI ? vdi_members : step == MAKE_VBD ? vbd_members : vif_members);
}

static void make_ask(struct each *each, struct client *client, size_t item, int step)
{
    struct making *making = each->arg;
    char name[128];

    if (step == MAKE_CLONE) {
        snprintf(name, sizeof name, "%s%zu", each->load->name, item + 1);
        call_begin(client, "VM.clone");
        call_text(client, making->template);
        call_text(client, name);
    } else if (step == MAKE_PLAIN) {
        call_begin(client, "VM.set_is_a_template");
        call_text(client, making->vms[item]);
        call_bool(client, false);
    } else {
        ask_device(each, client, item, step);
    }
}

static void make_took(struct each *each, const struct connection *connection, size_t item, int step)
{
    struct making *making = each->arg;

    if (step == MAKE_CLONE)
        answer_value(connection, "<name>Value</name>", making->vms[item], REF_BYTES);
    else if (step == MAKE_VDI)
        answer_value(connection, "<name>Value</name>", making->vdis[item], REF_BYTES);
}

void load_make(struct load *load)
{
    struct client client = {0};
    struct making making = {0};
    struct each each = {.load = load, .count = load->vms_max, .steps = load->sr ? MAKE_STEPS : MAKE_VDI, .ask = make_ask,
                        .took = make_took, .arg = &making};
    char (*found)[REF_BYTES];
    size_t count;

    pool_open(load, &client, load->connections);
    call_begin(&client, "VM.get_by_name_label");
    call_text(&client, "Other install media");
    found = refs_of(call_now(&client), &count);
    if (count != 1)
        errx(1, "%zu templates are called \"Other install media\"", count);
    memcpy(making.template, found[0], REF_BYTES);
    making.vms = alloc_array(each.count + 1, REF_BYTES);
    making.vdis = alloc_array(each.count + 1, REF_BYTES);
    load->begin_ns = now_ns();
    each_run(&each, &client);
    load->end_ns = now_ns();
    report_begin(load);
    report_number(load, "made", (double) each.count);
    report_number(load, "seconds", (double) (load->end_ns - load->begin_ns) / 1e9);
    report_end(load);
    pool_close(&client);
    free(found);
    free(making.vms);
    free(making.vdis);
}

/* ---- starting VMs ---- */

static void start_ask(struct each *each, struct client *client, size_t item, int step)
{
    (void) step;
    call_begin(client, "VM.start");
    call_text(client, each->load->vms[item].ref);
    call_bool(client, false);
    call_bool(client, false);
}

void load_start(struct load *load)
{
    struct client client = {0};
    struct each each = {.load = load, .steps = 1, .ask = start_ask};

    pool_open(load, &client, load->connections);
    pool_find(load, &client, "halted");
    pool_tune(load, &client);
    each.count = load->vm_count;
    load->begin_ns = now_ns();
    each_run(&each, &client);
    load->end_ns = now_ns();
    report_begin(load);
    report_number(load, "started", (double) each.count);
    report_number(load, "seconds", (double) (load->end_ns - load->begin_ns) / 1e9);
    report_end(load);
    pool_close(&client);
}
