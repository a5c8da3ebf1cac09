/* storage_disks.c - disks in the making, and their removal
 *
 * Undoing waits for slaves and is not interrupted by a cancel. A file that cannot be removed now,
 * because its host is away or the outcome of making it is not known, keeps its hidden VDI with the
 * mark: storage_sweep() takes both away when all hosts that see the SR are back, since the mark then
 * names another life of the master or nobody's call. */
#include "master/storage.h"

#include <stdio.h>

#include "master/claim.h"
#include "master/slaves.h"
#include "shared/fiber.h"
#include "shared/log.h"

/* Marks a VDI that nobody is making any more, though this master is the one that began. */
#define ABANDONED "abandoned"

/* VDI.maker: "<life of the master> <tag of the call>". */
static const char *maker_text(struct call *call)
{
    char text[UUID_TEXT_BYTES];

    return arena_text(call->arena, "%s %s", uuid_print(text, call->core->holder), call->tag);
}

static bool is_being_made(const struct core *core, const struct object *vdi)
{
    char text[UUID_TEXT_BYTES];

    return strncmp(VDI_get_maker(vdi), uuid_print(text, core->holder), UUID_TEXT_BYTES - 1) == 0;
}

bool storage_is_being_made(struct call *call, const struct object *vdi)
{
    return is_being_made(call->core, vdi);
}

/* The call that began it is gone, but its INTENT stands: a host may still be making the disk. */
static bool is_unsettled(const struct view *view, const struct object *vdi)
{
    const char *tag = strchr(VDI_get_maker(vdi), ' ');
    const struct object *intent;
    struct view_iter intents;

    view_each(&intents, view, CLASS_OF(intent));
    while (tag && (intent = view_next(&intents)))
        if (streq(value_map_text(intent_get_details(intent), "tag", ""), tag + 1))
            return true;
    return false;
}

static void abandon(struct call *call, struct txn *txn, ref_t vdi)
{
    VDI_put_maker(txn, vdi, arena_text(call->arena, "%s %s", ABANDONED, call->tag));
    call->core->left_over_disks++;
}

struct disks *disks_new(struct call *call)
{
    struct disks *disks = new0(struct disks);

    disks->call = call;
    return disks;
}

/* A disk made from another has that one's format, by the draft that was copied from it; a new one
 * what the client asked for, else raw. */
static const char *wanted_format(const struct object *draft)
{
    const char *format = value_map_text(VDI_get_sm_config(draft), "image-format", NULL);

    if (*VDI_get_location(draft))
        return storage_disk_format(draft);
    if (!format)
        format = value_map_text(VDI_get_sm_config(draft), "type", "raw");
    return streq(format, "qcow2") ? "qcow2" : "raw";
}

ref_t disks_add(struct disks *disks, struct txn *txn, struct object *draft)
{
    struct call *call = disks->call;
    struct made_disk *disk = &disks->list[disks->count++];
    const char *uuid = uuid_new_text(call);

    assert(disks->count <= DISKS_MAX);
    disk->sr = VDI_get_SR(draft);
    disk->format = wanted_format(draft);
    disk->location = arena_text(call->arena, "%s.%s", uuid, disk->format);
    disk->virtual_size = VDI_get_virtual_size(draft);

    draft->fields[F_VDI_uuid] = value_text(uuid);
    draft->fields[F_VDI_location] = value_text(disk->location);
    draft->fields[F_VDI_managed] = VALUE_BOOL(false);
    draft->fields[F_VDI_maker] = value_text(maker_text(call));
    draft->fields[F_VDI_sm_config] = map_with_text(call->arena, VDI_get_sm_config(draft), "image-format", disk->format);
    draft->fields[F_VDI_physical_utilisation] = VALUE_INT(0);
    draft->fields[F_VDI_virtual_size] = VALUE_INT(0); /* counted when it is kept */
    disk->vdi = draft_create(call, txn, draft);
    return disk->vdi;
}

static struct made_disk *find(struct disks *disks, ref_t vdi)
{
    for (int i = 0; i < disks->count; i++)
        if (ref_equal(disks->list[i].vdi, vdi))
            return &disks->list[i];
    assert(!"a disk of another set");
    return NULL;
}

/* What a slave says of the file it made. */
static void take_answer(struct made_disk *disk, struct arena *arena, const struct value *answer)
{
    int64_t size = strtoll(value_map_text(answer, "virtual_size", "0"), NULL, 10);

    disk->is_made = true;
    disk->location = arena_strdup(arena, value_map_text(answer, "location", disk->location));
    disk->format = arena_strdup(arena, value_map_text(answer, "format", disk->format));
    if (size > 0) /* a dummy SR does not know */
        disk->virtual_size = size;
    disk->physical_utilisation =
        strtoll(value_map_text(answer, "physical_utilisation", "0"), NULL, 10);
}

int disk_make_empty(struct disks *disks, ref_t vdi)
{
    struct call *call = disks->call;
    struct made_disk *disk = find(disks, vdi);
    struct slave_disk_create_args args = {
        .location = disk->location, .format = disk->format, .virtual_size = disk->virtual_size};
    struct value sr, answer;
    ref_t host;
    int r;

    r = storage_host_map(call, disk->sr, &host, &sr);
    if (r < 0)
        return r;
    disk->host = host;
    args.sr = &sr;
    r = slave_disk_create(call, host, &args, &answer);
    if (r == 0)
        take_answer(disk, call->arena, &answer);
    return r;
}

/* The file name of a disk to be read, in the call's arena; its VDI is live. */
static int source_location(struct call *call, ref_t source, const char **ret_location,
                           ref_t *ret_sr)
{
    const struct object *vdi = live(call, call_view(call), VDI, source);

    if (!vdi)
        return -ERR_HANDLE_INVALID;
    *ret_location = arena_strdup(call->arena, VDI_get_location(vdi));
    *ret_sr = VDI_get_SR(vdi);
    return 0;
}

int disk_make_clone(struct disks *disks, ref_t vdi, ref_t source)
{
    struct call *call = disks->call;
    struct made_disk *disk = find(disks, vdi);
    struct slave_disk_clone_args args = {.location = disk->location};
    struct value sr, answer;
    ref_t host, source_sr;
    int r;

    r = source_location(call, source, &args.source, &source_sr);
    if (r < 0)
        return r;
    assert(ref_equal(source_sr, disk->sr));
    r = storage_host_map(call, disk->sr, &host, &sr);
    if (r < 0)
        return r;
    disk->host = host;
    args.sr = &sr;
    r = slave_disk_clone(call, host, &args, &answer);
    if (r == 0)
        take_answer(disk, call->arena, &answer);
    return r;
}

int disk_make_copy(struct disks *disks, ref_t vdi, ref_t source)
{
    struct call *call = disks->call;
    struct made_disk *disk = find(disks, vdi);
    struct slave_disk_copy_args args = {.location = disk->location};
    struct value sr, to_sr, answer;
    ref_t host, source_sr;
    int r;

    r = source_location(call, source, &args.source, &source_sr);
    if (r < 0)
        return r;
    r = storage_host_of_both(call, source_sr, disk->sr, &host);
    if (r < 0)
        return r;
    r = storage_sr_map(call, source_sr, host, &sr);
    if (r < 0)
        return r;
    r = storage_sr_map(call, disk->sr, host, &to_sr);
    if (r < 0)
        return r;
    disk->host = host;
    args.sr = &sr;
    args.to_sr = &to_sr;
    r = slave_disk_copy(call, host, &args, &answer);
    if (r == 0)
        take_answer(disk, call->arena, &answer);
    return r;
}

void disks_made(struct disks *disks, ref_t vdi, const struct value *answer)
{
    take_answer(find(disks, vdi), disks->call->arena, answer);
}

int disks_check(struct disks *disks, struct txn *txn)
{
    for (int i = 0; i < disks->count; i++)
        if (!live(disks->call, txn_view(txn), VDI, disks->list[i].vdi))
            return -ERR_HANDLE_INVALID;
    return 0;
}

int disks_keep(struct disks *disks, struct txn *txn)
{
    struct call *call = disks->call;

    if (disks_check(disks, txn) < 0)
        return -ERR_HANDLE_INVALID;
    for (int i = 0; i < disks->count; i++) {
        const struct made_disk *disk = &disks->list[i];
        const struct object *vdi = txn_get(txn, VDI, disk->vdi);
        struct value sm_config =
            map_with_text(call->arena, VDI_get_sm_config(vdi), "image-format", disk->format);

        VDI_put_sm_config(txn, disk->vdi, &sm_config);
        VDI_put_location(txn, disk->vdi, disk->location);
        VDI_put_virtual_size(txn, disk->vdi, disk->virtual_size);
        VDI_put_physical_utilisation(txn, disk->vdi, disk->physical_utilisation);
        VDI_put_managed(txn, disk->vdi, true);
        VDI_put_maker(txn, disk->vdi, "");
        storage_count(txn, disk->sr, disk->virtual_size, disk->physical_utilisation);
    }
    disks->is_kept = true;
    return 0;
}

/* ---- removal ---- */

/* Remove a file; one that is not there is removed. By the host that made it, so that it happens after the making. One that was
 * perhaps not made, since its SR was not mounted, is not asked for there either. */
static int remove_file(struct call *call, ref_t host, ref_t sr, const char *location, bool is_made)
{
    struct slave_disk_destroy_args args = {.location = location};
    struct value map;
    int r;

    r = storage_sr_map(call, sr, host, &map);
    if (r < 0)
        return r;
    if (!is_made && *value_map_text(&map, "marker", ""))
        map = map_with_text(call->arena, &map, "marker", "unmade");
    args.sr = &map;
    return slave_disk_destroy(call, host, &args, NULL);
}

void disks_leave(struct disks *disks)
{
    struct call *call = disks->call;
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);

    for (int i = 0; i < disks->count; i++)
        if (txn_get(txn, VDI, disks->list[i].vdi))
            abandon(call, txn, disks->list[i].vdi);
    call_commit(call, &txn);
    disks->count = 0;
}

void disks_undo(struct disks **disks_p)
{
    struct disks *disks = TAKE(*disks_p);
    struct call *call;
    struct failure before;

    if (!disks)
        return;
    call = disks->call;
    if (!disks->is_kept && disks->count > 0) {
        bool is_removed[DISKS_MAX] = {false};
        _cleanup_(txn_end) struct txn *txn = NULL;

        before = call->failure;
        fiber_uncancellable_begin();
        for (int i = 0; i < disks->count; i++) {
            const struct made_disk *disk = &disks->list[i];

            is_removed[i] = ref_is_null(disk->host)
                            || remove_file(call, disk->host, disk->sr, disk->location, disk->is_made) == 0;
        }
        txn = store_begin(call->core->store);
        for (int i = 0; i < disks->count; i++) {
            ref_t vdi = disks->list[i].vdi;

            if (!txn_get(txn, VDI, vdi))
                continue;
            if (is_removed[i]) {
                storage_drop_vdi(txn, vdi);
            } else {
                abandon(call, txn, vdi);
            }
        }
        call_commit(call, &txn);
        fiber_uncancellable_end();
        call->failure = before;
    }
    free(disks);
}

/* Have each of these hosts remove the disk's file, then drop its record. The first one has to see the SR; to those after it what they
 * do not see is no more. */
static int remove_by(struct call *call, const struct object *vdi, const ref_t *hosts, size_t count)
{
    const char *location = arena_strdup(call->arena, VDI_get_location(vdi));
    ref_t ref = vdi->ref, sr = VDI_get_SR(vdi);
    _cleanup_(txn_end) struct txn *txn = NULL;
    int r = 0;

    for (size_t i = 0; r == 0 && i < count; i++)
        r = remove_file(call, hosts[i], sr, location, i == 0);
    if (r < 0)
        return r;
    txn = store_begin(call->core->store);
    if (txn_get(txn, VDI, ref))
        storage_drop_vdi(txn, ref);
    return call_commit(call, &txn);
}

int disk_remove(struct call *call, ref_t ref)
{
    const struct object *vdi = live(call, call_view(call), VDI, ref);
    ref_t host;
    int r;

    if (!vdi)
        return -ERR_HANDLE_INVALID;
    r = storage_host(call, VDI_get_SR(vdi), &host);
    return r < 0 ? r : remove_by(call, vdi, &host, 1);
}

static void count_left_over(struct core *core)
{
    const struct object *vdi;
    struct view_iter vdis;

    core->left_over_disks = 0;
    view_each(&vdis, store_core_view(core->store), CLASS_OF(VDI));
    while ((vdi = view_next(&vdis)))
        core->left_over_disks += !streq(VDI_get_maker(vdi), "") && !is_being_made(core, vdi);
}

void storage_start(struct core *core)
{
    count_left_over(core);
}

/* Until its link is new a host may still do what it was told before, by this master or the one before, however long it has been
 * away - unless it is declared dead. */
static bool may_still_make(struct call *call, ref_t host)
{
    const struct slaves *slaves = call->core->slaves; /* NULL in tests of handlers */

    return slaves && slave_may_hold_guests(slaves, host) && !slave_is_linked(slaves, host);
}

static bool all_have_come(struct call *call, const struct view *view, ref_t sr)
{
    const struct object *pbd;
    struct view_iter pbds;

    view_each_inverse(&pbds, view, &CLASS_OF(SR)->fields[F_SR_PBDs], sr);
    while ((pbd = view_next(&pbds)))
        if (PBD_get_currently_attached(pbd) && may_still_make(call, PBD_get_host(pbd)))
            return false;
    return true;
}

/* A disk that was being made by nobody who still lives, on an SR that the host sees. */
static ref_t find_left_over(struct call *call, ref_t host, ref_t after)
{
    const struct view *view = call_view(call);
    const struct object *vdi;
    struct view_iter vdis;

    view_each_after(&vdis, view, CLASS_OF(VDI), after);
    while ((vdi = view_next(&vdis)))
        if (!streq(VDI_get_maker(vdi), "") && !storage_is_being_made(call, vdi) && !is_unsettled(view, vdi)
            && storage_is_attached(view, VDI_get_SR(vdi), host) && all_have_come(call, view, VDI_get_SR(vdi)))
            return vdi->ref;
    return NULL_REF;
}

/* The hosts that see the SR and can be asked, in the call's arena. */
static size_t hosts_of(struct call *call, ref_t sr, ref_t **ret_hosts)
{
    const struct view *view = call_view(call);
    const struct field *inverse = &CLASS_OF(SR)->fields[F_SR_PBDs];
    const struct object *pbd;
    struct view_iter pbds;
    size_t count = 0;

    *ret_hosts = arena_alloc_array(call->arena, view_count_inverse(view, inverse, sr), sizeof **ret_hosts);
    view_each_inverse(&pbds, view, inverse, sr);
    while ((pbd = view_next(&pbds)))
        if (PBD_get_currently_attached(pbd)
            && (!call->core->slaves || slave_is_linked(call->core->slaves, PBD_get_host(pbd))))
            (*ret_hosts)[count++] = PBD_get_host(pbd);
    return count;
}

/* Which host was making it is not known, and that one may be at it still: so each removes it, the maker when it is done. */
static int remove_left_over(struct call *call, ref_t ref)
{
    const struct object *vdi = live(call, call_view(call), VDI, ref);
    ref_t *hosts;
    size_t count;

    if (!vdi)
        return -ERR_HANDLE_INVALID;
    count = hosts_of(call, VDI_get_SR(vdi), &hosts);
    if (count == 0)
        return fail(call, SR_HAS_NO_PBDS, ref_text(call, VDI_get_SR(vdi))); /* whose host can be asked */
    return remove_by(call, vdi, hosts, count);
}

/* Such a disk is nobody's, so no rule lets anyone have it: it is taken. Several hosts may come back at once: one of them does it. */
static int take_left_over(struct claim *claim, struct call *call, ref_t vdi)
{
    uint64_t since_ms = loop_now_ms(call->core->loop);
    int r;

    do {
        _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);

        r = claim_take_txn(claim, call, txn, CLASS_OF(VDI), vdi, vdi_operations_destroy, false);
        if (r == 0)
            return call_commit(call, &txn);
    } while (r == -ERR_OTHER_OPERATION_IN_PROGRESS && (r = claim_wait(call, since_ms)) == 0);
    return r;
}

void storage_sweep(struct call *call, ref_t host)
{
    ref_t vdi = NULL_REF;

    if (call->core->left_over_disks == 0)
        return;
    while (vdi = find_left_over(call, host, vdi), !ref_is_null(vdi)) {
        _cleanup_(claim_end) struct claim claim = {0};
        char text[REF_TEXT_BYTES];
        int r = take_left_over(&claim, call, vdi);

        if (r == 0)
            r = remove_left_over(call, vdi);
        if (r == 0) {
            log_info(NULL, "removed the half-made disk %s", ref_print(text, vdi));
        } else if (r != -ERR_HANDLE_INVALID) {
            log_warning(NULL, "the half-made disk %s could not be removed yet",
                        ref_print(text, vdi));
        }
        call->failure.code = 0;
    }
    count_left_over(call->core); /* some may have gone another way: with their SR, in a scan */
}
