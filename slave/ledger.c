/* ledger.c - the ledger's rows in memory, and on their way to the store */
#include "slave/ledger.h"

#include <errno.h>
#include <stdio.h>

#include "shared/arena.h"
#include "shared/fiber.h"
#include "shared/log.h"
#include "shared/loop.h"
#include "shared/pack.h"
#include "shared/refmap.h"

#define ROW_BYTES_MAX (8 * 1024 * 1024)

struct text_row {
    struct text_row *next;
    char key[64];
    char *text;
};

struct ledger {
    struct loop *loop;
    struct ledger_store *store;
    struct text_row *meta, *peers;
    struct refmap vms, ops;
    struct ledger_row *pending;    /* put, and not yet handed to the store */
    size_t pending_count, pending_room;
    bool is_loading, is_bad;
};

/* ---- towards the store ---- */

static void put_row(struct ledger *ledger, const char *kind, const char *key, struct buffer *bytes)
{
    struct ledger_row *row;

    if (ledger->pending_count == ledger->pending_room) {
        ledger->pending_room = MAX(2 * ledger->pending_room, (size_t) 16);
        ledger->pending = realloc_array(ledger->pending, ledger->pending_room, sizeof *row);
    }
    row = &ledger->pending[ledger->pending_count++];
    *row = (struct ledger_row){.kind = kind};
    snprintf(row->key, sizeof row->key, "%s", key);
    if (bytes) {
        assert(!bytes->is_full);
        row->bytes = buffer_take(bytes, &row->count);
    }
}

/* What was put by anybody goes with the first who syncs. A second one that has put nothing since still waits for the
 * store, which keeps the order: an empty write is answered after those before it. */
void ledger_sync(struct ledger *ledger)
{
    struct completion *done = completion_new(ledger->loop);
    int result = 0;

    ledger->store->write(ledger->store, TAKE(ledger->pending), ledger->pending_count, done);
    ledger->pending_count = ledger->pending_room = 0;
    fiber_uncancellable_begin();
    completion_wait(done, 0, &result);
    fiber_uncancellable_end();
    completion_drop(&done);
    if (result < 0)
        die("ledger: cannot be written: %s", strerror(-result));
}

/* ---- texts: meta and peers ---- */

static struct text_row **text_slot(struct text_row **list, const char *key)
{
    while (*list && !streq((*list)->key, key))
        list = &(*list)->next;
    return list;
}

static const char *text_get(struct text_row *list, const char *key)
{
    struct text_row *row = *text_slot(&list, key);

    return row ? row->text : NULL;
}

static void text_put(struct ledger *ledger, struct text_row **list, const char *kind, const char *key, const char *text)
{
    struct text_row **slot = text_slot(list, key), *row = *slot;
    struct buffer bytes;

    assert(strlen(key) < sizeof row->key);
    if (row && streq(row->text, text))
        return;
    if (!row) {
        row = *slot = new0(struct text_row);
        snprintf(row->key, sizeof row->key, "%s", key);
    }
    free(row->text);
    row->text = dup_text(text);
    if (ledger->is_loading)
        return;
    buffer_init(&bytes, ROW_BYTES_MAX);
    pack_text(&bytes, text);
    put_row(ledger, kind, key, &bytes);
}

static void text_free(struct text_row **list)
{
    struct text_row *row;

    while ((row = *list)) {
        *list = row->next;
        free(row->text);
        free(row);
    }
}

const char *ledger_meta(const struct ledger *ledger, const char *key, const char *otherwise)
{
    const char *text = text_get(ledger->meta, key);

    return text ? text : otherwise;
}

void ledger_put_meta(struct ledger *ledger, const char *key, const char *text)
{
    text_put(ledger, &ledger->meta, "meta", key, text);
}

uint64_t ledger_meta_number(const struct ledger *ledger, const char *key)
{
    return strtoull(ledger_meta(ledger, key, "0"), NULL, 10);
}

void ledger_put_meta_number(struct ledger *ledger, const char *key, uint64_t number)
{
    char text[24];

    snprintf(text, sizeof text, "%llu", (unsigned long long) number);
    ledger_put_meta(ledger, key, text);
}

const char *ledger_peer(const struct ledger *ledger, const char *host)
{
    return text_get(ledger->peers, host);
}

void ledger_put_peer(struct ledger *ledger, const char *host, const char *text)
{
    text_put(ledger, &ledger->peers, "peer", host, text);
}

int64_t ledger_next_domid(struct ledger *ledger)
{
    uint64_t domid = ledger_meta_number(ledger, "domid") + 1;

    ledger_put_meta_number(ledger, "domid", domid);
    return (int64_t) domid;
}

/* ---- whom we follow ---- */

uint64_t ledger_epoch(const struct ledger *ledger)
{
#ifdef DROVER_BUG_epoch_check_off
    (void) ledger; /* deliberately wrong: what is not known is not checked, here or by the master */
    return 0;
#else
    return ledger_meta_number(ledger, "epoch");
#endif
}

ref_t ledger_holder(const struct ledger *ledger)
{
    const char *text = ledger_meta(ledger, "holder", "");
    ref_t holder = NULL_REF;

    (void) uuid_parse(text, strlen(text), &holder);
    return holder;
}

bool ledger_may_follow(const struct ledger *ledger, uint64_t epoch, ref_t holder)
{
#ifdef DROVER_BUG_epoch_check_off
    (void) ledger;
    (void) epoch;
    (void) holder;
    return true;
#else
    uint64_t mine = ledger_epoch(ledger);

    return epoch > mine || (epoch == mine && ref_equal(holder, ledger_holder(ledger)));
#endif
}

void ledger_follow(struct ledger *ledger, uint64_t epoch, ref_t holder)
{
    char text[UUID_TEXT_BYTES];

    assert(ledger_may_follow(ledger, epoch, holder));
    ledger_put_meta_number(ledger, "epoch", epoch);
    ledger_put_meta(ledger, "holder", uuid_print(text, holder));
}

/* ---- VMs ---- */

static const char *const progress_texts[VM_PROGRESS_COUNT] = {
    [VM_NONE] = "none",         [VM_RECEIVING] = "receiving",
    [VM_ABORTED] = "aborted",   [VM_STARTING] = "starting",
    [VM_RAN] = "ran",           [VM_PAUSED_FOR_MOVE] = "paused-for-move",
    [VM_ENDED] = "ended",
};

const char *vm_progress_text(enum vm_progress progress)
{
    return progress_texts[progress];
}

const struct ledger_vm *ledger_vm(const struct ledger *ledger, ref_t vm)
{
    return refmap_get(&ledger->vms, vm);
}

void ledger_put_vm(struct ledger *ledger, const struct ledger_vm *put)
{
    struct ledger_vm *vm = refmap_get(&ledger->vms, put->vm);
    char *disks = dup_text(put->disks ? put->disks : vm && vm->disks ? vm->disks : "");
    char key[UUID_TEXT_BYTES];
    struct buffer bytes;

    if (!vm) {
        vm = new0(struct ledger_vm);
        refmap_put(&ledger->vms, put->vm, vm);
    }
    free(vm->disks);
    *vm = *put;
    vm->disks = disks;
    if (ledger->is_loading)
        return;
    buffer_init(&bytes, ROW_BYTES_MAX);
    pack_map(&bytes, 8);
    pack_text(&bytes, "epoch");
    pack_int(&bytes, (int64_t) vm->epoch);
    pack_text(&bytes, "progress");
    pack_text(&bytes, progress_texts[vm->progress]);
    pack_text(&bytes, "domid");
    pack_int(&bytes, vm->domid);
    pack_text(&bytes, "move");
    pack_text(&bytes, vm->move);
    pack_text(&bytes, "aborted");
    pack_text(&bytes, vm->aborted);
    pack_text(&bytes, "change");
    pack_text(&bytes, vm->change);
    pack_text(&bytes, "reboot");
    pack_ref(&bytes, vm->reboot);
    pack_text(&bytes, "disks");
    pack_text(&bytes, vm->disks);
    put_row(ledger, "vm", uuid_print(key, vm->vm), &bytes);
}

const struct ledger_vm *ledger_each_vm(const struct ledger *ledger, size_t *at)
{
    void *vm;
    ref_t key;

    return refmap_each(&ledger->vms, at, &key, &vm) ? vm : NULL;
}

/* ---- operations ---- */

static const char *const op_states[] = {[OP_BEGUN] = "begun", [OP_DONE] = "done", [OP_VOID] = "void"};

const struct ledger_op *ledger_op(const struct ledger *ledger, ref_t id)
{
    return refmap_get(&ledger->ops, id);
}

static void op_put(struct ledger *ledger, ref_t id, const char *name, enum op_state state, const void *outcome,
                   size_t bytes)
{
    struct ledger_op *op = refmap_get(&ledger->ops, id);
    char key[UUID_TEXT_BYTES];
    struct buffer row;

    if (!op) {
        op = new0(struct ledger_op);
        op->id = id;
        refmap_put(&ledger->ops, id, op);
    }
    snprintf(op->name, sizeof op->name, "%s", name);
    op->state = state;
    free(op->outcome);
    op->outcome = alloc0(bytes + 1);
    op->outcome_bytes = bytes;
    if (bytes)
        memcpy(op->outcome, outcome, bytes);
    if (ledger->is_loading)
        return;
    buffer_init(&row, ROW_BYTES_MAX);
    pack_array(&row, bytes ? 3 : 2);
    pack_text(&row, op_states[state]);
    pack_text(&row, op->name);
    buffer_add(&row, outcome, bytes);
    put_row(ledger, "op", uuid_print(key, id), &row);
}

void ledger_op_begin(struct ledger *ledger, ref_t id, const char *name)
{
    op_put(ledger, id, name, OP_BEGUN, NULL, 0);
}

void ledger_op_end(struct ledger *ledger, ref_t id, const void *outcome, size_t bytes)
{
    const struct ledger_op *op = ledger_op(ledger, id);
    char name[sizeof op->name];

    assert(op && op->state == OP_BEGUN && bytes > 0);
    memcpy(name, op->name, sizeof name);
    op_put(ledger, id, name, OP_DONE, outcome, bytes);
}

void ledger_op_void(struct ledger *ledger, ref_t id)
{
    assert(!ledger_op(ledger, id));
    op_put(ledger, id, "", OP_VOID, NULL, 0);
}

static void op_free(struct ledger_op *op)
{
    free(op->outcome);
    free(op);
}

void ledger_op_forget(struct ledger *ledger, ref_t id)
{
    struct ledger_op *op = refmap_take(&ledger->ops, id);
    char key[UUID_TEXT_BYTES];

    if (!op)
        return;
    put_row(ledger, "op", uuid_print(key, id), NULL);
    op_free(op);
}

const struct ledger_op *ledger_each_op(const struct ledger *ledger, size_t *at)
{
    void *op;
    ref_t key;

    return refmap_each(&ledger->ops, at, &key, &op) ? op : NULL;
}

size_t ledger_op_count(const struct ledger *ledger)
{
    return ledger->ops.count;
}

/* ---- loading ---- */

static bool load_vm(struct ledger *ledger, ref_t vm, const struct value *map)
{
    struct ledger_vm row = {.vm = vm};
    const struct value *epoch, *domid, *reboot;
    const char *progress;

    if (map->kind != KIND_MAP)
        return false;
    epoch = value_map_find(map, "epoch");
    domid = value_map_find(map, "domid");
    reboot = value_map_find(map, "reboot");
    progress = value_map_text(map, "progress", "");
    if (!epoch || epoch->kind != KIND_INT || epoch->i < 0 || !domid || domid->kind != KIND_INT)
        return false;
    while (row.progress < VM_PROGRESS_COUNT && !streq(progress_texts[row.progress], progress))
        row.progress++;
    if (row.progress == VM_PROGRESS_COUNT)
        return false;
    row.epoch = (uint64_t) epoch->i;
    row.domid = domid->i;
    row.reboot = reboot && reboot->kind == KIND_REF ? reboot->ref : NULL_REF;
    snprintf(row.move, sizeof row.move, "%s", value_map_text(map, "move", ""));
    snprintf(row.aborted, sizeof row.aborted, "%s", value_map_text(map, "aborted", ""));
    snprintf(row.change, sizeof row.change, "%s", value_map_text(map, "change", ""));
    row.disks = (char *) value_map_text(map, "disks", "");
    ledger_put_vm(ledger, &row);
    return true;
}

static bool load_op(struct ledger *ledger, ref_t id, const struct value *set)
{
    struct buffer outcome;
    size_t state = 0;

    if (set->kind != KIND_SET || set->length < 2 || set->items[0].kind != KIND_STRING || set->items[1].kind != KIND_STRING)
        return false;
    while (state < ARRAY_SIZE(op_states) && !streq(op_states[state], set->items[0].text))
        state++;
    if (state == ARRAY_SIZE(op_states) || (state == OP_DONE) != (set->length == 3))
        return false;
    buffer_init(&outcome, ROW_BYTES_MAX);
    if (state == OP_DONE)
        pack_value(&outcome, &set->items[2]);
    op_put(ledger, id, set->items[1].text, (enum op_state) state, outcome.bytes, outcome.length);
    buffer_done(&outcome);
    return true;
}

static bool load_known(struct ledger *ledger, const struct ledger_row *row, const struct value *value)
{
    ref_t id;

    if (streq(row->kind, "meta") || streq(row->kind, "peer")) {
        if (value->kind != KIND_STRING)
            return false;
        text_put(ledger, row->kind[0] == 'm' ? &ledger->meta : &ledger->peers, row->kind, row->key, value->text);
        return true;
    }
    if (!uuid_parse(row->key, strlen(row->key), &id))
        return false;
    if (streq(row->kind, "vm"))
        return load_vm(ledger, id, value);
    if (streq(row->kind, "op"))
        return load_op(ledger, id, value);
    return false;
}

static void load_row(void *arg, const struct ledger_row *row)
{
    struct ledger *ledger = arg;
    struct arena *arena = arena_new();
    struct value value;

    if (unpack_value(row->bytes, row->count, NULL, arena, &value) < 0 || !load_known(ledger, row, &value)) {
        log_error(NULL, "ledger: the row %s %s makes no sense", row->kind, row->key);
        ledger->is_bad = true;
    }
    arena_destroy(&arena);
}

struct ledger *ledger_new(struct loop *loop, struct ledger_store *store, int *ret_error)
{
    struct ledger *ledger = new0(struct ledger);

    ledger->loop = loop;
    ledger->store = store;
    ledger->is_loading = true;
    *ret_error = store->load(store, load_row, ledger);
    ledger->is_loading = false;
    if (*ret_error == 0 && ledger->is_bad)
        *ret_error = -EBADMSG; /* what is unreadable may be the right of a VM: nothing may be concluded */
    if (*ret_error < 0)
        ledger_destroy(&ledger);
    return ledger;
}

void ledger_destroy(struct ledger **ledger_p)
{
    struct ledger *ledger = TAKE(*ledger_p);
    void *value;
    ref_t key;

    if (!ledger)
        return;
    ledger->store->destroy(&ledger->store);
    for (size_t i = 0; i < ledger->pending_count; i++)
        free(ledger->pending[i].bytes);
    free(ledger->pending);
    text_free(&ledger->meta);
    text_free(&ledger->peers);
    for (size_t at = 0; refmap_each(&ledger->vms, &at, &key, &value);) {
        free(((struct ledger_vm *) value)->disks);
        free(value);
    }
    for (size_t at = 0; refmap_each(&ledger->ops, &at, &key, &value);)
        op_free(value);
    refmap_done(&ledger->vms);
    refmap_done(&ledger->ops);
    free(ledger);
}
