/* bootstrap.c - the first start: a pool of one host, its roles, the account of root
 *
 * Versions that clients see are those of design.md section 3: API 2.23, and a product_version that
 * says with which release of XenServer a client may take us to be compatible. */
#include "master/bootstrap.h"

#include <unistd.h>

#include "master/account.h"
#include "master/api_version.h"
#include "master/put.h"
#include "shared/arena.h"
#include "shared/log.h"
#include "shared/passwords.h"

/* ---- roles ---- */

static const struct {
    const char *uuid, *description;
} roles[] = {
    [ROLE_READ_ONLY] = {"7233b8e3-eacb-d7da-2c95-f2e581cdbf4e", "sees everything, changes nothing"},
    [ROLE_VM_OPERATOR] = {"fb8d4ff9-310c-a959-0613-54101535d3d5", "uses VMs"},
    [ROLE_VM_ADMIN] = {"aaa00ab5-7340-bfbc-0d1b-7cf342639a6e", "makes, changes and destroys VMs"},
    [ROLE_VM_POWER_ADMIN] = {"7955168d-7bec-10ed-105f-c6a7e6e63249",
                             "manages VMs and where they run"},
    [ROLE_POOL_OPERATOR] = {"b9ce9791-0604-50cd-0649-09b3284c7dfd",
                            "manages hosts, storage and networks"},
    [ROLE_POOL_ADMIN] = {"0165f154-ba3e-034e-6b27-5d271af109ba", "may do everything"},
};

ref_t bootstrap_role_ref(int role)
{
    ref_t ref;

    if (!uuid_parse(roles[role].uuid, 36, &ref))
        die("bootstrap: bad uuid of a role");
    return ref;
}

static struct value *initial_fields(const struct class *class, struct arena *arena)
{
    struct value *fields = arena_alloc_array(arena, (size_t) class->field_count, sizeof *fields);

    for (int i = 0; i < class->field_count; i++)
        fields[i] = class->fields[i].initial;
    return fields;
}

static void make_roles(struct txn *txn, struct arena *arena)
{
    for (int i = ROLE_READ_ONLY; i <= ROLE_POOL_ADMIN; i++) {
        struct value *fields = initial_fields(CLASS_OF(role), arena);

        if (txn_get(txn, role, bootstrap_role_ref(i)))
            continue;
        fields[F_role_uuid] = value_text(roles[i].uuid);
        fields[F_role_name_label] = value_text(role_name((enum role) i));
        fields[F_role_name_description] = value_text(roles[i].description);
        txn_create(txn, CLASS_OF(role), bootstrap_role_ref(i), fields);
    }
}

/* ---- pool and host ---- */

static struct value map_of(struct arena *arena, const char *const *pairs, size_t count)
{
    struct value *items = arena_alloc_array(arena, 2 * count, sizeof *items);

    for (size_t i = 0; i < 2 * count; i++)
        items[i] = value_text(pairs[i]);
    return VALUE_MAP((uint32_t) count, items);
}

/* The uuid of a new object: the one that the role file names. */
static void put_uuid(struct txn *txn, const struct class *class, ref_t ref, ref_t uuid)
{
    char text[UUID_TEXT_BYTES];

    if (!ref_is_null(uuid))
        txn_put(txn, class, ref, model_field(class, "uuid")->number,
                value_text(uuid_print(text, uuid)));
}

static ref_t make_host(struct core *core, struct txn *txn, const struct bootstrap *what,
                       struct arena *arena)
{
    static const char *const software[] = {
        "product_brand", "Drover",        "product_version", PRODUCT_VERSION,    "drover_version",
        DROVER_VERSION,  "platform_name", "Drover",          "platform_version", PRODUCT_VERSION,
    };
    struct value *metrics = initial_fields(CLASS_OF(host_metrics), arena);
    struct value *fields = initial_fields(CLASS_OF(host), arena);
    ref_t ref;

    metrics[F_host_metrics_live] = VALUE_BOOL(false); /* until its agent says hello */
    metrics[F_host_metrics_last_updated] = VALUE_DATETIME(clock_utc_s(core->clock));
    fields[F_host_metrics] =
        VALUE_REF(txn_create_new(txn, core->random, CLASS_OF(host_metrics), metrics));
    fields[F_host_name_label] = value_text(what->host_name);
    fields[F_host_hostname] = value_text(what->host_name);
    fields[F_host_address] = value_text(what->host_address);
    fields[F_host_API_version_major] = VALUE_INT(API_MAJOR);
    fields[F_host_API_version_minor] = VALUE_INT(API_MINOR);
    fields[F_host_API_version_vendor] = value_text(API_VENDOR);
    fields[F_host_software_version] = map_of(arena, software, ARRAY_SIZE(software) / 2);
    ref = txn_create_new(txn, core->random, CLASS_OF(host), fields);
    put_uuid(txn, CLASS_OF(host), ref, what->host_uuid);
    return ref;
}

static ref_t make_pool(struct core *core, struct txn *txn, const struct bootstrap *what, ref_t host,
                       struct arena *arena)
{
    struct value *fields = initial_fields(CLASS_OF(pool), arena);
    ref_t ref;

    fields[F_pool_name_label] = value_text(what->pool_name);
    fields[F_pool_master] = VALUE_REF(host);
    ref = txn_create_new(txn, core->random, CLASS_OF(pool), fields);
    put_uuid(txn, CLASS_OF(pool), ref, what->pool_uuid);
    return ref;
}

static int make_root(struct core *core, struct txn *txn, const struct bootstrap *what,
                     struct arena *arena)
{
    struct value *fields = initial_fields(CLASS_OF(account), arena);
    char *hash = what->root_password ? password_hash(what->root_password) : NULL;

    if (!hash) {
        log_error(NULL,
                  "the first password of root cannot be used: it is missing, empty or too long");
        return -1;
    }
    fields[F_account_name_label] = value_text("root");
    fields[F_account_password_hash] = value_text(hash);
    fields[F_account_role] = value_text(role_name(ROLE_POOL_ADMIN));
    txn_create_new(txn, core->random, CLASS_OF(account), fields);
    free(hash);
    return 0;
}

int bootstrap(struct core *core, const struct bootstrap *what)
{
    _cleanup_(arena_destroy) struct arena *arena = arena_new();
    _cleanup_(txn_end) struct txn *txn = store_begin(core->store);
    const struct object *pool;
    struct view_iter iter;
    int r = 0;

    view_each(&iter, txn_view(txn), CLASS_OF(pool));
    pool = view_next(&iter);
    if (pool) {
        core->pool = pool->ref;
        core->host = pool_get_master(pool);
    } else {
        core->host = make_host(core, txn, what, arena);
        core->pool = make_pool(core, txn, what, core->host, arena);
    }
    make_roles(txn, arena);
    if (!account_find(txn_view(txn), "root"))
        r = make_root(core, txn, what, arena);
    if (r == 0 && !core->read_only_why)
        store_apply(&txn);
    return r;
}
