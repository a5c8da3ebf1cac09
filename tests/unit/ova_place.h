/* ova_place.h - a pool to export from or to import into, and a call in it: for the tests of ova_*.c
 */
#pragma once

#include "tests/unit/mini_master.h"

#include "master/VM.h"
#include "master/ova_import.h"
#include "master/ova_write.h"

#define MIB ((int64_t) 1 << 20)

/* A pool and a call in it, as the calls of a handler would have it. */
struct place {
    struct mini mini;
    struct call call;
    ref_t sr, isos; /* place_add_storage: a disk SR, the pool's default; one with debian.iso */
};

_unused_ static void place_open(struct place *place, uint64_t seed)
{
    *place = (struct place){0};
    mini_start(&place->mini);
    seeded_random_init(&place->mini.random, seed); /* no uuid is that of another place */
    place->call.core = &place->mini.core;
    place->call.arena = arena_new();
    place->call.tag = "test";
}

_unused_ static void place_close(struct place *place)
{
    arena_destroy(&place->call.arena);
    mini_stop(&place->mini);
}

_unused_ static ref_t place_add_sr(struct place *place, struct txn *txn, const char *name,
                                   const char *content)
{
    struct object *draft = draft_new(place->call.arena, CLASS_OF(SR));

    draft->fields[F_SR_name_label] = value_text(name);
    draft->fields[F_SR_type] = value_text("file");
    draft->fields[F_SR_content_type] = value_text(content);
    return draft_create(&place->call, txn, draft);
}

_unused_ static ref_t place_add_vdi(struct place *place, struct txn *txn, ref_t sr,
                                    const char *name)
{
    struct object *draft = draft_new(place->call.arena, CLASS_OF(VDI));

    draft->fields[F_VDI_name_label] = value_text(name);
    draft->fields[F_VDI_SR] = VALUE_REF(sr);
    draft->fields[F_VDI_virtual_size] = VALUE_INT(MIB);
    draft->fields[F_VDI_managed] = VALUE_BOOL(true);
    return draft_create(&place->call, txn, draft);
}

_unused_ static void place_add_storage(struct place *place)
{
    struct txn *txn = store_begin(place->call.core->store);

    place->sr = place_add_sr(place, txn, "disks", "user");
    place->isos = place_add_sr(place, txn, "isos", "iso");
    place_add_vdi(place, txn, place->isos, "debian.iso");
    pool_put_default_SR(txn, pool_object(txn_view(txn))->ref, place->sr);
    store_apply(&txn);
}

/* Read and import; the disks of the stream are made as records. 0, or the error, and nothing has
 * changed. */
_unused_ static int place_import(struct place *place, const char *text, size_t length,
                                 const struct ova_import_options *options, struct ova_import **ret)
{
    struct ova_plan *plan = arena_new0(place->call.arena, struct ova_plan);
    _cleanup_(txn_end) struct txn *txn = NULL;
    int r = ova_read(place->call.arena, text, length, plan, &place->call.failure);

    if (r < 0)
        return r;
    txn = store_begin(place->call.core->store);
    r = ova_import_decide(&place->call, txn_view(txn), plan, options, ret);
    for (int i = 0; r == 0 && i < (*ret)->disk_count; i++) {
        (*ret)->disks[i].draft->fields[F_VDI_managed] = VALUE_BOOL(true);
        (*ret)->disks[i].vdi = draft_create(&place->call, txn, (*ret)->disks[i].draft);
    }
    if (r == 0)
        r = ova_import_create(*ret, txn);
    if (r == 0)
        store_apply(&txn);
    return r;
}
