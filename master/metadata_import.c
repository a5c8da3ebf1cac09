/* metadata_import.c - PUT /import_metadata: an archive of ova.xml becomes VMs whose disks are here
 *
 *      HTTP loop                              core                              worker
 *      begin -------------------------------> run: task
 *      200, upload -> archive  <------------
 *      complete ----------------------------> ------------------------------->  unpack, read
 *                                             one transaction: all or nothing
 *      answer  <----------------------------- task ends
 *
 * Clients send the body only when they have seen a status, so 200 goes out when the request itself
 * is good; what fails later shows in the task, and in the body of the answer. */
#include "master/metadata_http.h"

#include "master/front.h"
#include "master/handler.h"
#include "master/http_call.h"
#include "master/metadata_internal.h"
#include "master/ova_archive.h"
#include "master/ova_import.h"
#include "shared/buffer.h"
#include "shared/fiber.h"
#include "shared/workers.h"

#define UPLOAD_BYTES (256 << 10)
#define SLACK_BYTES  (1 << 20) /* of an archive, around its one member */

/* One import, from its request to its answer. */
struct import {
    struct arena *arena; /* the request's parameters and the plan */
    const char *bad;     /* a parameter that is none of ours */
    bool is_dry_run;
    struct ova_import_options options;

    struct call *call;
    struct completion *received; /* its result is an enum http_upload_state */
    struct http_upload *upload;  /* NULL before the body is wanted */
    struct buffer archive, text;
    size_t held;      /* bytes of archive, text and plan that lie in memory (metadata_hold) */
    bool is_crowded;  /* there was no room for more of them */
    struct ova_plan plan;
    struct failure failure;
    int r;
};

/* ---- what is asked for ---- */

/* vdi:<uuid in the file>=<uuid here> */
static const struct value *read_map(struct import *import, struct http_request *http)
{
    const struct http_pair *pairs;
    size_t count = http_params(http, &pairs);
    struct value *items = arena_alloc_array(import->arena, 2 * count, sizeof *items);
    struct value *map = arena_new0(import->arena, struct value);
    uint32_t n = 0;

    for (size_t i = 0; i < count; i++) {
        if (strncmp(pairs[i].name, "vdi:", 4) != 0)
            continue;
        items[2 * n] = value_text(arena_strdup(import->arena, pairs[i].name + 4));
        items[2 * n++ + 1] = value_text(arena_strdup(import->arena, pairs[i].value));
    }
    *map = VALUE_MAP(n, items);
    return map;
}

static struct import *import_new(struct http_request *http)
{
    static const char *const without_effect[] = {"live", "check_cpu"};
    struct import *import = new0(struct import);
    bool ignored;

    import->arena = arena_new();
    import->options.is_metadata = true;
    import->options.vdi_map = read_map(import, http);
    buffer_init(&import->archive, OVA_READ_BYTES_MAX + SLACK_BYTES);
    buffer_init(&import->text, OVA_READ_BYTES_MAX);
    if (!http_switch(http, "restore", false, &import->options.is_restore))
        import->bad = "restore";
    else if (!http_switch(http, "force", false, &import->options.is_forced))
        import->bad = "force";
    else if (!http_switch(http, "dry_run", false, &import->is_dry_run))
        import->bad = "dry_run";
    for (size_t i = 0; i < ARRAY_SIZE(without_effect); i++)
        if (!http_switch(http, without_effect[i], false, &ignored))
            import->bad = without_effect[i];
    return import;
}

/* ---- the body ---- */

/* On the loop: take what has come. What does not fit is dropped, and seen by whoever unpacks. */
static void on_upload(struct http_upload *upload, void *arg)
{
    struct import *import = arg;
    enum http_upload_state state;
    const char *bytes;
    size_t length;

    while ((length = http_upload_peek(upload, &bytes, &state)) > 0) {
        if (!import->is_crowded && !import->archive.is_full) {
            import->is_crowded = !metadata_hold(import->call->core, length);
            if (!import->is_crowded) {
                import->held += length;
                buffer_add(&import->archive, bytes, length);
            }
        }
        http_upload_consumed(upload, length);
    }
    if (state != HTTP_UPLOAD_OPEN && import->received)
        completion_post(TAKE(import->received), (int) state);
}

static void receive(struct http_request *http, void *arg)
{
    struct import *import = arg;

    if (!http) {
        completion_post(TAKE(import->received), HTTP_UPLOAD_BROKEN);
        return;
    }
    http_send_head_early(http, 200,
                         arena_text(import->call->arena,
                                    "content-type: text/plain; charset=utf-8\r\n%s",
                                    http_call_task_header(import->call)));
    import->upload = http_consume(http, UPLOAD_BYTES, on_upload, import);
}

static int receive_archive(struct import *import)
{
    _cleanup_(completion_drop) struct completion *received =
        completion_new(import->call->core->loop);
    int state = HTTP_UPLOAD_BROKEN;

    import->received = received;
    http_ticket_post(http_call_ticket(import->call), receive, import);
    fiber_uncancellable_begin(); /* the loop writes to us; it ends slow clients by itself */
    completion_wait(received, 0, &state);
    fiber_uncancellable_end();
    if (state != HTTP_UPLOAD_COMPLETE)
        return fail(import->call, IMPORT_ERROR_PREMATURE_EOF);
    if (import->is_crowded)
        return fail(import->call, TOO_BUSY);
    if (import->archive.is_full)
        return fail(import->call, IMPORT_ERROR, "the archive is too long");
    return 0;
}

/* ---- the work ---- */

/* What was held becomes so many bytes; none when they find no room. */
static int hold(struct import *import, size_t bytes)
{
    metadata_let_go(import->call->core, import->held);
    import->held = 0;
    if (!metadata_hold(import->call->core, bytes))
        return failure_set(&import->failure, import->arena, TOO_BUSY);
    import->held = bytes;
    return 0;
}

/* On a worker. Each form of it goes when the next one is there: what waits afterwards, until the VMs are durable, is the plan. */
static void read_archive(void *arg)
{
    struct import *import = arg;

    import->r = ova_unpack(import->archive.bytes, import->archive.length, &import->text,
                           import->arena, &import->failure);
    buffer_done(&import->archive);
    if (import->r == 0)
        import->r = hold(import, import->text.room);
    if (import->r == 0)
        import->r = ova_read(import->arena, import->text.bytes, import->text.length, &import->plan,
                             &import->failure);
    buffer_done(&import->text);
    if (import->r == 0)
        import->r = hold(import, arena_bytes(import->arena));
}

static int make(struct import *import)
{
    struct call *call = import->call;
    _cleanup_(txn_end) struct txn *txn = NULL;
    struct ova_import *objects;
    int r;

    if (import->plan.is_legacy) /* nothing in it says which disks here are meant */
        return fail(call, IMPORT_ERROR, "an appliance of version 0.1 brings its disks: it is for /import");
    txn = store_begin(call->core->store);

    r = ova_import_decide(call, txn_view(txn), &import->plan, &import->options, &objects);
    if (r == 0)
        r = ova_import_create(objects, txn);
    if (r < 0)
        return r;
    call->reply = VALUE_EMPTY_SET;
    if (import->is_dry_run)
        return 0; /* it would do; nothing of it stays */
    call->reply = ova_import_result(objects);
    ova_import_log(objects, txn_view(txn));
    return call_commit(call, &txn);
}

static int run(struct call *call, void *arg)
{
    struct import *import = arg;
    int r;

    import->call = call;
    if (import->bad)
        return fail(call, INVALID_VALUE, import->bad, "not a value that it can have");
    r = http_call_task(call, "VM import", "");
    if (r == 0)
        r = receive_archive(import);
    if (r < 0)
        return r;
    workers_run(call->core->workers, read_archive, import);
    if (import->r < 0) {
        failure_copy(&call->failure, call->arena, &import->failure);
        return import->r;
    }
    return make(import);
}

static void answer(struct http_request *http, struct call *call, int r, void *arg)
{
    struct import *import = arg;

    if (http && r < 0)
        http_call_reply_failure(http, call);
    else if (http)
        http_reply_text(http, 200, "", "");
    http_upload_unref(&import->upload);
    metadata_let_go(call->core, import->held);
    buffer_done(&import->archive);
    buffer_done(&import->text);
    arena_destroy(&import->arena);
    free(import);
}

static void begin(struct http_request *http, struct http_caller *caller, void *arg)
{
    (void) arg;
    http_call_start(
        http, caller,
        &(struct http_call){
            .name = "VM.import_metadata", .run = run, .answer = answer, .arg = import_new(http)});
}

void metadata_import_serve(struct http_request *http, void *arg)
{
    http_authenticate(arg, http, "import_metadata", ROLE_VM_ADMIN, begin, arg);
}
