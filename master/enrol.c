/* enrol.c - how hosts come into the pool
 *
 * A host that presents itself for the first time gets all its records in one transaction, so nobody
 * ever sees half a host. One that comes back is brought up to date. The host that the master itself
 * runs on has a record from the pool's first moment, made before any agent spoke: it is recognised
 * by its address and gets the agent's uuid. */
#include "master/enrol.h"

#include "master/SR.h"
#include "master/VM.h"
#include "master/api_version.h"
#include "master/memory.h"
#include "master/slaves.h"
#include "master/templates.h"
#include "shared/log.h"
#include "shared/random.h"

#define DEFAULT_NETWORK "Pool-wide network associated with eth0"
#define DEFAULT_BRIDGE  "xenbr0"
#define LICENSE_EXPIRY  "20991231T23:59:59Z"

/* A control domain's share of the host's memory, which guests do not get. */
#define CONTROL_DOMAIN_BYTES_MAX (1024 * MIB)
#define CONTROL_DOMAIN_DIVISOR   16

#define CPUS_MAX 8192 /* a host that tells more is wrong */

/* Work of the master's own: no client, no task. */
static struct call own_call(struct core *core, struct arena *arena, const char *name)
{
    return (struct call){
        .core = core,
        .arena = arena,
        .name = name,
        .tag = arena_text(arena, "DummyRef:|%016llx|%s",
                          (unsigned long long) random_u64(core->random), name),
        .caller = {.role = ROLE_LOCAL_ROOT,
                   .is_local_superuser = true,
                   .user_name = "",
                   .originator = "",
                   .address = ""},
        .started_ms = clock_now_ms(core->clock),
    };
}

/* ---- the pool ---- */

static ref_t default_network(const struct view *view)
{
    const struct object *network;
    struct view_iter networks;

    view_each(&networks, view, CLASS_OF(network));
    while ((network = view_next(&networks)))
        if (streq(network_get_bridge(network), DEFAULT_BRIDGE))
            return network->ref;
    return NULL_REF;
}

static void create_default_network(struct call *call, struct txn *txn)
{
    struct object *draft = draft_new(call->arena, CLASS_OF(network));

    if (!ref_is_null(default_network(txn_view(txn))))
        return;
    draft->fields[F_network_name_label] = value_text(DEFAULT_NETWORK);
    draft->fields[F_network_bridge] = value_text(DEFAULT_BRIDGE);
    draft->fields[F_network_other_config] = text_map(call->arena, "automatic", "true", NULL);
    draft_create(call, txn, draft);
}

void pool_furnish(struct core *core)
{
    _cleanup_(arena_destroy) struct arena *arena = arena_new();
    _cleanup_(txn_end) struct txn *txn = store_begin(core->store);
    struct call call = own_call(core, arena, "pool.furnish");
    const struct object *pool = pool_object(txn_view(txn));
    int made;

    if (pool)
        core->pool = pool->ref;
    sr_drivers_create(&call, txn);
    create_default_network(&call, txn);
    made = templates_create(&call, txn);
    store_apply(&txn);
    storage_start(core);
    if (made > 0)
        log_info(NULL, "%d built-in templates made", made);
}

/* ---- what a host tells ---- */

static int64_t about_int(const struct value *about, const char *key, int64_t otherwise)
{
    const char *text = value_map_text(about, key, NULL);
    char *end;
    long long number;

    if (!text || !*text)
        return otherwise;
    number = strtoll(text, &end, 10);
    return *end || number < 0 ? otherwise : number;
}

static struct value cpu_info(struct arena *arena, const struct value *about, int64_t cpus)
{
    return text_map(arena, "cpu_count", arena_text(arena, "%lld", (long long) cpus), "socket_count",
                    "1", "threads_per_core", "1", "vendor",
                    value_map_text(about, "cpu_vendor", "unknown"), "speed",
                    value_map_text(about, "cpu_mhz", "0"), "modelname",
                    value_map_text(about, "cpu_model", "unknown"), "family", "6", "model", "0",
                    "stepping", "0", "flags", value_map_text(about, "cpu_flags", ""), "features",
                    "", "features_pv", "", "features_hvm", "", NULL);
}

static struct value software_version(struct arena *arena, const struct value *about)
{
    return text_map(arena, "product_brand", "Drover", "product_version", PRODUCT_VERSION,
                    "product_version_text", "8.3", "product_version_text_short", "8.3",
                    "platform_name", "Drover", "platform_version", PRODUCT_VERSION, "build_number",
                    "0", "hostname", value_map_text(about, "name", ""), "date", "", "xapi", "1.20",
                    "xapi_build", "", "xen", value_map_text(about, "hypervisor", "sim"), "linux",
                    value_map_text(about, "kernel", ""), "network_backend", "bridge",
                    "xencenter_min", "2.0", "xencenter_max", "2.99", "drover_version",
                    value_map_text(about, "version", DROVER_VERSION), NULL);
}

/* The fields of a host that follow from what it tells, and from what we are. */
static void describe(struct arena *arena, struct value *fields, const struct value *about)
{
    int64_t cpus = MIN(about_int(about, "cpus", 1), (int64_t) CPUS_MAX);

    fields[F_host_API_version_major] = VALUE_INT(API_MAJOR);
    fields[F_host_API_version_minor] = VALUE_INT(API_MINOR);
    fields[F_host_API_version_vendor] = value_text("Drover");
    fields[F_host_API_version_vendor_implementation] =
        text_map(arena, "version", DROVER_VERSION, NULL);
    fields[F_host_software_version] = software_version(arena, about);
    fields[F_host_cpu_info] = cpu_info(arena, about, cpus);
    fields[F_host_capabilities] =
        text_set(arena, "xen-3.0-x86_64", "xen-3.0-x86_32p", "hvm-3.0-x86_32", "hvm-3.0-x86_32p",
                 "hvm-3.0-x86_64", NULL);
    fields[F_host_supported_bootloaders] = text_set(arena, "pygrub", "eliloader", NULL);
    fields[F_host_sched_policy] = value_text("credit");
    fields[F_host_edition] = value_text("free");
    fields[F_host_editions] = text_set(arena, "free", NULL);
    fields[F_host_license_params] =
        text_map(arena, "sku_type", "free", "sku_marketing_name", "Drover", "version",
                 DROVER_VERSION, "expiry", LICENSE_EXPIRY, "restrict_pooling", "false",
                 "restrict_connection", "false", "restrict_qos", "false", "restrict_vlan", "false",
                 "restrict_pool_attached_storage", "false", NULL);
    fields[F_host_chipset_info] = text_map(arena, "iommu", "false", NULL);
    fields[F_host_virtual_hardware_platform_versions] =
        VALUE_SET(3, arena_dup(arena, (struct value[]){VALUE_INT(0), VALUE_INT(1), VALUE_INT(2)},
                               3 * sizeof(struct value)));
    fields[F_host_ssl_legacy] = VALUE_BOOL(false);
}

/* What describe() sets, in the store. */
static void put_description(struct txn *txn, ref_t host, const struct value *fields)
{
    static const int described[] = {
        F_host_API_version_major,  F_host_API_version_minor,
        F_host_API_version_vendor, F_host_API_version_vendor_implementation,
        F_host_software_version,   F_host_cpu_info,
        F_host_capabilities,       F_host_supported_bootloaders,
        F_host_sched_policy,       F_host_edition,
        F_host_editions,           F_host_license_params,
        F_host_chipset_info,       F_host_virtual_hardware_platform_versions,
        F_host_ssl_legacy,
    };

    for (size_t i = 0; i < ARRAY_SIZE(described); i++)
        txn_put(txn, CLASS_OF(host), host, described[i], fields[described[i]]);
}

/* ---- the records of a host ---- */

static void put_cpus(struct call *call, struct txn *txn, ref_t host, const struct value *about)
{
    const struct field *inverse = &CLASS_OF(host)->fields[F_host_host_CPUs];
    int64_t cpus = MIN(about_int(about, "cpus", 1), (int64_t) CPUS_MAX);
    struct value refs;

    if ((int64_t) view_count_inverse(txn_view(txn), inverse, host) == cpus)
        return;
    refs = view_inverse(txn_view(txn), inverse, host, call->arena);
    for (uint32_t i = 0; i < refs.length; i++)
        txn_delete(txn, CLASS_OF(host_cpu), refs.items[i].ref);
    for (int64_t i = 0; i < cpus; i++) {
        struct object *draft = draft_new(call->arena, CLASS_OF(host_cpu));

        draft->fields[F_host_cpu_host] = VALUE_REF(host);
        draft->fields[F_host_cpu_number] = VALUE_INT(i);
        draft->fields[F_host_cpu_vendor] =
            value_text(value_map_text(about, "cpu_vendor", "unknown"));
        draft->fields[F_host_cpu_speed] = VALUE_INT(about_int(about, "cpu_mhz", 0));
        draft->fields[F_host_cpu_modelname] =
            value_text(value_map_text(about, "cpu_model", "unknown"));
        draft->fields[F_host_cpu_family] = VALUE_INT(6);
        draft->fields[F_host_cpu_flags] = value_text(value_map_text(about, "cpu_flags", ""));
        draft_create(call, txn, draft);
    }
}

static void create_control_domain(struct call *call, struct txn *txn, ref_t host, const char *name,
                                  int64_t memory_total, int64_t cpus)
{
    struct object *draft = draft_new(call->arena, CLASS_OF(VM));
    struct value *fields = draft->fields;
    int64_t memory =
        MIN(memory_total / CONTROL_DOMAIN_DIVISOR, CONTROL_DOMAIN_BYTES_MAX) / MIB * MIB;
    const struct object *vm;
    ref_t ref;

    vm_draft_halt(draft);
    fields[F_VM_name_label] =
        value_text(arena_text(call->arena, "Control domain on host: %s", name));
    fields[F_VM_name_description] =
        value_text("Stands for the host itself: what it uses besides its guests");
    fields[F_VM_is_control_domain] = VALUE_BOOL(true);
    fields[F_VM_power_state] = VALUE_ENUM(vm_power_state, vm_power_state_Running);
    fields[F_VM_domid] = VALUE_INT(0);
    fields[F_VM_resident_on] = VALUE_REF(host);
    fields[F_VM_affinity] = VALUE_REF(host);
    fields[F_VM_memory_static_min] = fields[F_VM_memory_dynamic_min] =
        fields[F_VM_memory_dynamic_max] = fields[F_VM_memory_static_max] =
            fields[F_VM_memory_target] = VALUE_INT(memory);
    fields[F_VM_VCPUs_max] = fields[F_VM_VCPUs_at_startup] = VALUE_INT(MAX(cpus, (int64_t) 1));
    fields[F_VM_domain_type] = VALUE_ENUM(domain_type, domain_type_pv);
    fields[F_VM_actions_after_shutdown] = VALUE_ENUM(on_normal_exit, on_normal_exit_destroy);
    fields[F_VM_actions_after_reboot] = VALUE_ENUM(on_normal_exit, on_normal_exit_destroy);
    fields[F_VM_actions_after_crash] = VALUE_ENUM(on_crash_behaviour, on_crash_behaviour_destroy);
    fields[F_VM_other_config] = text_map(call->arena, "is_system_domain", "true", NULL);
    ref = vm_create(call, txn, draft);
    vm = txn_get(txn, VM, ref);
    VM_metrics_put_start_time(txn, VM_get_metrics(vm), clock_utc_s(call->core->clock));
    VM_metrics_put_VCPUs_number(txn, VM_get_metrics(vm), MAX(cpus, (int64_t) 1));
    VM_metrics_put_memory_actual(txn, VM_get_metrics(vm), memory);
    host_put_control_domain(txn, host, ref);
}

static void create_pif(struct call *call, struct txn *txn, ref_t host, const char *address)
{
    struct object *metrics = draft_new(call->arena, CLASS_OF(PIF_metrics));
    struct object *draft = draft_new(call->arena, CLASS_OF(PIF));
    struct value *fields = draft->fields;

    metrics->fields[F_PIF_metrics_carrier] = VALUE_BOOL(true);
    metrics->fields[F_PIF_metrics_duplex] = VALUE_BOOL(true);
    metrics->fields[F_PIF_metrics_speed] = VALUE_INT(10000);
    metrics->fields[F_PIF_metrics_last_updated] = VALUE_DATETIME(clock_utc_s(call->core->clock));
    fields[F_PIF_metrics] = VALUE_REF(draft_create(call, txn, metrics));
    fields[F_PIF_device] = value_text("eth0");
    fields[F_PIF_device_name] = value_text("eth0");
    fields[F_PIF_network] = VALUE_REF(default_network(txn_view(txn)));
    fields[F_PIF_host] = VALUE_REF(host);
    fields[F_PIF_MAC] = value_text(vif_mac_new(call, NULL, "0"));
    fields[F_PIF_MTU] = VALUE_INT(1500);
    fields[F_PIF_VLAN] = VALUE_INT(-1);
    fields[F_PIF_physical] = VALUE_BOOL(true);
    fields[F_PIF_currently_attached] = VALUE_BOOL(true);
    fields[F_PIF_ip_configuration_mode] =
        VALUE_ENUM(ip_configuration_mode, ip_configuration_mode_Static);
    fields[F_PIF_IP] = value_text(address);
    fields[F_PIF_management] = VALUE_BOOL(true);
    draft_create(call, txn, draft);
}

static void create_local_sr(struct call *call, struct txn *txn, ref_t host, const char *directory)
{
    struct object *draft = draft_new(call->arena, CLASS_OF(SR));
    struct value device_config = text_map(call->arena, "location", directory, NULL);
    ref_t sr;

    draft->fields[F_SR_name_label] = value_text("Local storage");
    draft->fields[F_SR_type] = value_text("file");
    draft->fields[F_SR_content_type] = value_text("user");
    draft->fields[F_SR_default_vdi_visibility] = VALUE_BOOL(true);
    draft->fields[F_SR_other_config] =
        text_map(call->arena, "i18n-key", "local-storage", "i18n-original-value-name_label",
                 "Local storage", NULL);
    sr = draft_create(call, txn, draft);
    pbd_create(call, txn, host, sr, &device_config);
}

/* A new host sees the shared SRs as the others do. */
static void create_shared_pbds(struct call *call, struct txn *txn, ref_t host)
{
    struct value srs = VALUE_EMPTY_SET;
    const struct object *sr;
    struct view_iter iter;

    view_each(&iter, txn_view(txn), CLASS_OF(SR));
    while ((sr = view_next(&iter)))
        if (SR_get_shared(sr))
            srs = value_set_with(call->arena, &srs, &VALUE_REF(sr->ref));
    for (uint32_t i = 0; i < srs.length; i++) {
        const struct object *pbd;
        struct view_iter pbds;

        view_each_inverse(&pbds, txn_view(txn), &CLASS_OF(SR)->fields[F_SR_PBDs], srs.items[i].ref);
        pbd = view_next(&pbds);
        if (pbd && !storage_pbd(txn_view(txn), srs.items[i].ref, host)) {
            struct value device_config = value_copy(call->arena, PBD_get_device_config(pbd));

            pbd_create(call, txn, host, srs.items[i].ref, &device_config);
        }
    }
}

/* ---- enrolment ---- */

/* The record that the pool made for the master's own host before its agent spoke: it has no key
 * yet. */
static const struct object *placeholder(struct core *core, const struct view *view,
                                        const char *address)
{
    const struct object *host = view_get(view, host, core->host);

    return host && streq(host_get_curve_key(host), "") && streq(host_get_address(host), address)
               ? host
               : NULL;
}

static ref_t create_host(struct call *call, struct txn *txn, const char *uuid,
                         const struct value *about)
{
    struct object *metrics = draft_new(call->arena, CLASS_OF(host_metrics));
    struct object *draft = draft_new(call->arena, CLASS_OF(host));
    struct value *fields = draft->fields;
    const char *name = value_map_text(about, "name", uuid);
    int64_t now = clock_utc_s(call->core->clock);

    metrics->fields[F_host_metrics_live] = VALUE_BOOL(true);
    metrics->fields[F_host_metrics_last_updated] = VALUE_DATETIME(now);
    fields[F_host_uuid] = value_text(uuid);
    fields[F_host_name_label] = value_text(name);
    fields[F_host_hostname] = value_text(name);
    fields[F_host_metrics] = VALUE_REF(draft_create(call, txn, metrics));
    fields[F_host_other_config] =
        text_map(call->arena, "agent_start_time", arena_text(call->arena, "%lld.", (long long) now),
                 "boot_time", arena_text(call->arena, "%lld.", (long long) now), NULL);
    return draft_create(call, txn, draft);
}

/* The parts that each host has, made where they are missing. */
static void complete_host(struct call *call, struct txn *txn, ref_t host, const struct value *about)
{
    const struct view *view = txn_view(txn);
    const char *directory = value_map_text(about, "storage", "");
    const char *name = arena_strdup(call->arena, host_get_name_label(txn_get(txn, host, host)));

    if (!txn_get(txn, VM, host_get_control_domain(txn_get(txn, host, host))))
        create_control_domain(call, txn, host, name, about_int(about, "memory_bytes", 0),
                              about_int(about, "cpus", 1));
    view = txn_view(txn);
    if (view_count_inverse(view, &CLASS_OF(host)->fields[F_host_PIFs], host) == 0)
        create_pif(call, txn, host, value_map_text(about, "address", ""));
    if (*directory)
        create_local_sr(call, txn, host, directory);
    create_shared_pbds(call, txn, host);
}

ref_t host_enrol(struct core *core, ref_t uuid, const char *key, const struct value *about,
                 uint64_t *ret_generation)
{
    _cleanup_(arena_destroy) struct arena *arena = arena_new();
    _cleanup_(txn_end) struct txn *txn = store_begin(core->store);
    struct call call = own_call(core, arena, "host.enrol");
    struct object *described = draft_new(arena, CLASS_OF(host));
    char text[UUID_TEXT_BYTES];
    const char *address = value_map_text(about, "address", "");
    const struct object *host, *metrics;
    uint64_t generation;
    ref_t ref;
    bool is_new;

    host = view_by_uuid(txn_view(txn), CLASS_OF(host), uuid_print(text, uuid));
    if (!host)
        host = placeholder(core, txn_view(txn), address);
    is_new = !host || streq(host_get_curve_key(host), "");
    ref = host ? host->ref : create_host(&call, txn, text, about);

    describe(arena, described->fields, about);
    put_description(txn, ref, described->fields);
    host_put_uuid(txn, ref, text);
    host_put_curve_key(txn, ref, key);
    if (*address)
        host_put_address(txn, ref, address);
    put_cpus(&call, txn, ref, about);
    metrics = txn_get(txn, host_metrics, host_get_metrics(txn_get(txn, host, ref)));
    if (metrics && about_int(about, "memory_bytes", 0) > 0)
        host_metrics_put_memory_total(txn, metrics->ref, about_int(about, "memory_bytes", 0));
    if (is_new) {
        host_put_agent_start(txn, ref, 0);
        host_put_enabled(txn, ref, false);
        complete_host(&call, txn, ref, about);
        log_info(NULL, "host %s enrolled at %s", text, address);
    }
    generation = store_apply(&txn);
    if (ret_generation)
        *ret_generation = generation;
    return ref;
}

/* ---- storage ---- */

/* A directory that was never an SR is made one. */
static int attach(struct call *call, ref_t pbd_ref, ref_t host)
{
    const struct object *pbd = view_get(call_view(call), PBD, pbd_ref), *sr;
    struct slave_sr_create_args create;
    struct value map;
    bool is_shared;
    int r;

    sr = pbd ? view_get(call_view(call), SR, PBD_get_SR(pbd)) : NULL;
    if (!sr)
        return 0;
    is_shared = SR_get_shared(sr);
    map = storage_sr_map_of(call->arena, sr, PBD_get_device_config(pbd));
    r = pbd_attach(call, pbd_ref);
    if (r >= 0 || r == -ERR_HOST_OFFLINE || is_shared)
        return r;
    create.sr = &map;
    r = slave_sr_create(call, host, &create, NULL);
    return r < 0 ? r : pbd_attach(call, pbd_ref);
}

/* Its PBDs, one after the other. False when the host went away meanwhile. */
static bool attach_storage(struct call *call, ref_t host)
{
    struct value pbds =
        view_inverse(call_view(call), &CLASS_OF(host)->fields[F_host_PBDs], host, call->arena);

    for (uint32_t i = 0; i < pbds.length; i++) {
        ref_t pbd = pbds.items[i].ref;
        char text[REF_TEXT_BYTES];
        int r = attach(call, pbd, host);

        if (r >= 0)
            continue;
        if (r == -ERR_HOST_OFFLINE)
            return false;
        log_warning(NULL, "PBD %s could not be plugged: %s", ref_print(text, pbd),
                    call->failure.text);
        if (view_get(call_view(call), PBD, pbd))
            field_set(call, CLASS_OF(PBD), pbd, F_PBD_currently_attached, VALUE_BOOL(false));
    }
    return true;
}

/* A host that has started enables itself, unless a user has disabled it for good. Until its next
 * start it stays as it is, however often its link breaks. */
static void put_started(struct call *call, struct txn *txn, ref_t ref, uint64_t agent_start)
{
    const struct object *host = txn_get(txn, host, ref);
    struct value key = value_text("agent_start_time"), time, map;

    if (!host || host_get_agent_start(host) == (int64_t) agent_start)
        return;
    time = value_text(arena_text(call->arena, "%lld.", (long long) clock_utc_s(call->core->clock)));
    map = value_map_with(call->arena, host_get_other_config(host), &key, &time);
    host_put_agent_start(txn, ref, (int64_t) agent_start);
    host_put_other_config(txn, ref, &map);
    if (!host_get_enabled(host) && !value_map_find(&map, HOST_STAYS_DISABLED)) {
        host_put_enabled(txn, ref, true);
        log_info(host_get_uuid(host), "the host has started and is enabled");
    }
}

void host_welcome(struct core *core, ref_t ref, uint64_t agent_start)
{
    _cleanup_(arena_destroy) struct arena *arena = arena_new();
    _cleanup_(txn_end) struct txn *txn = NULL;
    struct call call = own_call(core, arena, "host.welcome");
    const struct object *host = view_get(call_view(&call), host, ref);

    if (!host || !attach_storage(&call, ref))
        return;
    storage_sweep(&call, ref);
    txn = store_begin(core->store);
    put_started(&call, txn, ref, agent_start);
    call_commit(&call, &txn);
}
