/* fuzz_ova.c - any bytes as an archive of metadata and as ova.xml, imported into a pool: refused,
 * or a transaction that can be applied and written again */
#include "tests/unit/ova_place.h"

#include "master/ova_archive.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The pool is made once; nothing is applied to it. */
static struct place *pool(void)
{
    static struct place *place;

    if (!place) {
        place = new0(struct place);
        place_open(place, 1);
        place_add_storage(place);
    }
    return place;
}

static void import(struct place *place, const char *text, size_t length, bool is_metadata)
{
    struct ova_import_options options = {.is_metadata = is_metadata, .is_forced = is_metadata};
    struct ova_plan plan;
    struct ova_import *objects;
    struct txn *txn;

    if (ova_read(place->call.arena, text, length, &plan, &place->call.failure) < 0) {
        assert(place->call.failure.code != 0);
        return;
    }
    txn = store_begin(place->call.core->store);
    if (ova_import_decide(&place->call, txn_view(txn), &plan, &options, &objects) == 0) {
        for (int i = 0; i < objects->disk_count; i++)
            objects->disks[i].vdi = draft_create(&place->call, txn, objects->disks[i].draft);
        if (ova_import_create(objects, txn) == 0) {
            struct ova_options all = {.with_snapshots = true, .preserve_power_state = true};
            struct value vms = ova_import_result(objects);
            struct buffer out;

            buffer_init(&out, 1 << 20);
            for (uint32_t i = 0; i < vms.length; i++)
                ova_write(txn_view(txn), place->call.arena, &vms.items[i].ref, 1, &all, &out, NULL,
                          NULL);
            buffer_done(&out);
        }
    }
    txn_end(&txn);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct place *place = pool();
    struct buffer text;

    buffer_init(&text, 1 << 20);
    if (ova_unpack((const char *) data, size, &text, place->call.arena, &place->call.failure) == 0)
        import(place, text.bytes, text.length, true);
    buffer_done(&text);
    import(place, (const char *) data, size, false);
    arena_destroy(&place->call.arena);
    place->call.arena = arena_new();
    return 0;
}
