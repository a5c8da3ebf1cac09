/* metadata_export.c - GET /export_metadata: VMs as an archive of ova.xml
 *
 * A worker finds, writes and packs the VMs from a pinned view, so that a whole pool holds nobody up.
 * The length is known before the first byte goes out, and what fails is an answer of its own. */
#include "master/metadata_http.h"

#include "master/front.h"
#include "master/handler.h"
#include "master/http_call.h"
#include "master/lifecycle.h"
#include "master/metadata_internal.h"
#include "master/ova_archive.h"
#include "master/ova_write.h"
#include "shared/buffer.h"
#include "shared/workers.h"

/* One export, from its request to its answer. */
struct export
{
    struct arena *arena;
    const char *ref, *uuid; /* of the VM, or NULL */
    const char *bad;        /* a parameter that is none of ours */
    bool is_all, with_dom0;
    enum ova_compression compression;
    struct ova_options options;

    /* For the worker. */
    struct call *call;
    struct view *view;
    ref_t *vms;
    size_t count;
    struct buffer text, archive;
    int r;

    struct core *core;
    size_t held; /* bytes of the archive, while it lies in memory */
};

/* ---- what is asked for ---- */

static bool read_compression(const char *text, enum ova_compression *ret)
{
    *ret = OVA_PLAIN;
    if (!text || streq(text, "false") || streq(text, ""))
        return true;
    *ret = streq(text, "zstd") ? OVA_ZSTD : OVA_GZIP;
    return streq(text, "zstd") || streq(text, "gzip") || streq(text, "true");
}

/* vgpu and vtpm are known: there are none in the file. */
static bool read_excluded(struct export *export, const char *text)
{
    char *list = arena_strdup(export->arena, text ? text : ""), *rest = list, *word;

    while ((word = strsep(&rest, ","))) {
        if (streq(word, "vif"))
            export->options.without_VIFs = true;
        else if (streq(word, "vbd"))
            export->options.without_VBDs = true;
        else if (*word && !streq(word, "vgpu") && !streq(word, "vtpm"))
            return false;
    }
    return true;
}

static const char *copy(struct export *export, const char *text)
{
    return text ? arena_strdup(export->arena, text) : NULL;
}

static struct export *export_new(struct http_request *http, struct core *core)
{
    struct export *export = new0(struct export);
    bool ignored;

    export->arena = arena_new();
    export->ref = copy(export, http_named(http, "ref"));
    export->uuid = copy(export, http_named(http, "uuid"));
    export->options.host = core->host;
    export->core = core;
    buffer_init(&export->text, OVA_BYTES_MAX);
    buffer_init(&export->archive, OVA_BYTES_MAX + (1 << 20));
    if (!http_switch(http, "all", false, &export->is_all))
        export->bad = "all";
    else if (!http_switch(http, "include_dom0", true, &export->with_dom0))
        export->bad = "include_dom0";
    else if (!http_switch(http, "export_snapshots", true, &export->options.with_snapshots))
        export->bad = "export_snapshots";
    else if (!http_switch(http, "preserve_power_state", false,
                          &export->options.preserve_power_state))
        export->bad = "preserve_power_state";
    else if (!http_switch(http, "include_vhd_parents", false, &ignored))
        export->bad = "include_vhd_parents";
    else if (!read_compression(http_named(http, "use_compression"), &export->compression))
        export->bad = "use_compression";
    else if (!read_excluded(export, http_named(http, "excluded_device_types")))
        export->bad = "excluded_device_types";
    return export;
}

/* ---- which VMs ---- */

static int by_name(const void *a, const void *b)
{
    const struct object *x = *(const struct object *const *) a,
                        *y = *(const struct object *const *) b;
    int order = strcmp(VM_get_name_label(x), VM_get_name_label(y));

    return order ? order : strcmp(VM_get_uuid(x), VM_get_uuid(y));
}

/* On the worker: all but snapshots, which come with theirs; those whose VM is gone are VMs here. */
static void find_all(struct export *export)
{
    const struct view *view = export->view;
    size_t room = view_count(view, CLASS_OF(VM));
    const struct object **list = arena_alloc_array(export->arena, room, sizeof *list), *vm;
    struct view_iter vms;

    view_each(&vms, view, CLASS_OF(VM));
    while ((vm = view_next(&vms))) {
        bool is_orphan = !view_get(view, VM, VM_get_snapshot_of(vm));

        if ((!VM_get_is_a_snapshot(vm) || (is_orphan && export->options.with_snapshots))
            && (export->with_dom0 || !VM_get_is_control_domain(vm)))
            list[export->count++] = vm;
    }
    if (export->count > 0)
        qsort(list, export->count, sizeof *list, by_name);
    export->vms = arena_alloc_array(export->arena, export->count, sizeof *export->vms);
    for (size_t i = 0; i < export->count; i++)
        export->vms[i] = list[i]->ref;
}

static int find_one(struct export *export, struct call *call, const struct object **ret)
{
    const struct object *vm = NULL;
    ref_t ref;

    if (export->ref) {
        if (ref_parse(export->ref, strlen(export->ref), &ref))
            vm = view_get(export->view, VM, ref);
        if (!vm)
            return fail(call, HANDLE_INVALID, "VM", export->ref);
    } else {
        vm = view_by_uuid(export->view, CLASS_OF(VM), export->uuid);
        if (!vm)
            return fail(call, UUID_INVALID, "VM", export->uuid);
    }
    *ret = vm;
    return operation_check(export->view, vm, vm_operations_metadata_export, false, call->arena,
                           &call->failure);
}

/* The VM, if it is one; else only that it will be all. */
static int find_vms(struct export *export, struct call *call, const char **ret_label)
{
    const struct object *vm = NULL;
    int r;

    if (export->bad)
        return fail(call, INVALID_VALUE, export->bad, "not a value that it can have");
    if (export->is_all) {
        *ret_label = "Export of all VMs";
        return 0;
    }
    if (!export->ref && !export->uuid)
        return fail(call, INVALID_VALUE, "ref", "neither ref nor uuid nor all");
    r = find_one(export, call, &vm);
    if (r < 0)
        return r;
    export->vms = arena_dup(export->arena, &vm->ref, sizeof vm->ref);
    export->count = 1;
    *ret_label = arena_text(call->arena, "Export of VM: %s", VM_get_uuid(vm));
    return 0;
}

/* ---- the work ---- */

/* On a worker. The call's arena is its own meanwhile: the fiber waits. */
static void write_archive(void *arg)
{
    struct export *export = arg;
    struct call *call = export->call;

    if (export->is_all)
        find_all(export);
    ova_write(export->view, export->arena, export->vms, export->count, &export->options,
              &export->text, NULL, NULL);
    if (export->text.is_full)
        export->r = fail(call, INTERNAL_ERROR, "the export is too large");
    else
        export->r = ova_pack(export->text.bytes, export->text.length, export->compression,
                             &export->archive, call->arena, &call->failure);
}

static int run(struct call *call, void *arg)
{
    struct export *export = arg;
    const char *label = NULL;
    int r;

    /* What is visible is durable; it was when the request came. */
    export->call = call;
    export->view = store_pin(call->core->store);
    r = find_vms(export, call, &label);
    if (r == 0)
        r = http_call_task(call, label, "");
    if (r == 0)
        workers_run(call->core->workers, write_archive, export);
    view_unpin(&export->view);
    buffer_done(&export->text);
    call->reply = value_text("");
    if (r == 0)
        r = export->r;
    if (r < 0)
        return r;
    if (!metadata_hold(export->core, export->archive.length))
        return fail(call, TOO_BUSY);
    export->held = export->archive.length;
    return 0;
}

static void export_free(struct export *export)
{
    metadata_let_go(export->core, export->held);
    buffer_done(&export->text);
    buffer_done(&export->archive);
    arena_destroy(&export->arena);
    free(export);
}

/* The client has all of it, or is gone. */
static void sent(const void *bytes, size_t length, void *arg)
{
    (void) bytes;
    (void) length;
    export_free(arg);
}

static void answer(struct http_request *http, struct call *call, int r, void *arg)
{
    struct export *export = arg;

    if (http && r < 0) {
        http_call_reply_failure(http, call);
    } else if (http) {
        const char *headers =
            arena_text(call->arena,
                       "content-type: application/octet-stream\r\n"
                       "Content-Disposition: attachment; filename=\"export.xva\"\r\n%s",
                       http_call_task_header(call));
        struct evbuffer *body = evbuffer_new();

        evbuffer_add_reference(body, export->archive.bytes, export->archive.length, sent, export);
        http_reply(http, 200, headers, body);
        evbuffer_free(body);
        return;
    }
    export_free(export);
}

static void begin(struct http_request *http, struct http_caller *caller, void *arg)
{
    struct front *front = arg;

    http_call_start(http, caller,
                    &(struct http_call){.name = "VM.export_metadata",
                                        .run = run,
                                        .answer = answer,
                                        .arg = export_new(http, front_core(front))});
}

void metadata_export_serve(struct http_request *http, void *arg)
{
    http_authenticate(arg, http, "export_metadata", ROLE_VM_ADMIN, begin, arg);
}
