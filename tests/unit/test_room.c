/* test_room.c - the sums of how full hosts are, against adding up, over random changes */
#include "pool_world.h"

#define VMS 12

static struct room *free_later;

static void change_something(struct seeded_random *random, ref_t *vms)
{
    struct random *r = &random->random;
    struct txn *txn = store_begin(world->core.store);
    ref_t vm = vms[random_below(r, VMS)];
    ref_t host = random_below(r, 4) ? world->hosts[random_below(r, HOSTS)].ref : NULL_REF;

    switch (random_below(r, 7)) {
    case 0:
        VM_put_resident_on(txn, vm, host);
        break;
    case 1:
        VM_put_scheduled_to_be_resident_on(txn, vm, host);
        break;
    case 2:
        VM_put_memory_dynamic_min(txn, vm, (int64_t) random_below(r, 4) * GIB);
        break;
    case 3:
        VM_put_VCPUs_max(txn, vm, 1 + (int64_t) random_below(r, 8));
        break;
    case 4:
        VM_put_domain_type(txn, vm, (enum domain_type) random_below(r, 5));
        break;
    case 5:
        VM_put_name_label(txn, vm, "another name");
        break;
    default:
        VM_put_memory_static_max(txn, vm, (int64_t) random_below(r, 8) * GIB);
        break;
    }
    if (random_below(r, 5) == 0)
        txn_end(&txn); /* what was given up counts for nothing */
    else
        store_apply(&txn);
}

static void sums_follow_every_change(void **state)
{
    struct seeded_random random;
    struct txn *txn = store_begin(world->core.store);
    ref_t vms[VMS];

    (void) state;
    for (int i = 0; i < VMS; i++)
        vms[i] = new_vm(txn, "vm", GIB);
    store_apply(&txn);
    seeded_random_init(&random, 11);
    for (int step = 0; step < 5000; step++) {
        change_something(&random, vms);
        assert_room();
    }
    txn = store_begin(world->core.store);
    for (int i = 0; i < VMS; i += 2)
        txn_delete(txn, CLASS_OF(VM), vms[i]);
    store_apply(&txn);
    assert_room();
    /* counted anew from what is there, it is the same */
    {
        struct room *again = room_new(world->core.store);

        for (int i = 0; i < HOSTS; i++) {
            const struct room_host *kept = room_host(world->core.room, world->hosts[i].ref);
            const struct room_host *anew = room_host(again, world->hosts[i].ref);

            assert_memory_equal(kept, anew, sizeof *kept);
        }
        free_later = again; /* a sink as long as the store */
    }
}

static void hosts_come_go_and_change(void **state)
{
    struct txn *txn;
    ref_t host = world->hosts[1].ref, metrics;
    const struct room_host *room;
    int count;

    (void) state;
    room_hosts(world->core.room, &count);
    assert_int_equal(count, HOSTS);
    txn = store_begin(world->core.store);
    VM_put_resident_on(txn, world->vm, host);
    host_put_memory_overhead(txn, host, GIB / 2);
    host_put_enabled(txn, host, false);
    store_apply(&txn);
    room = room_host(world->core.room, host);
    assert_int_equal(room_free_bytes(room), 4 * GIB - GIB / 2 - vm_memory_need_bytes(vm_now()));
    assert_false(room->is_enabled);
    assert_int_equal(room->vms, 1);

    txn = store_begin(world->core.store); /* other metrics */
    metrics = new_object(txn, CLASS_OF(host_metrics));
    host_metrics_put_memory_total(txn, metrics, 16 * GIB);
    host_put_metrics(txn, host, metrics);
    store_apply(&txn);
    room = room_host(world->core.room, host);
    assert_int_equal(room->memory_total_bytes, 16 * GIB);
    assert_false(room->is_live);
    txn = store_begin(world->core.store);
    host_metrics_put_live(txn, metrics, true);
    store_apply(&txn);
    assert_true(room_host(world->core.room, host)->is_live);

    txn = store_begin(world->core.store);
    txn_delete(txn, CLASS_OF(host), host);
    store_apply(&txn);
    assert_null(room_host(world->core.room, host));
    txn = store_begin(world->core.store); /* a VM says that it is there: when it comes, it counts */
    txn_create(txn, CLASS_OF(host), host, NULL);
    store_apply(&txn);
    assert_int_equal(room_host(world->core.room, host)->committed_bytes,
                     vm_memory_need_bytes(vm_now()));
}

static int teardown(void **state)
{
    int r = world_teardown(state);

    room_destroy(&free_later);
    return r;
}

#define ROOM_TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ROOM_TEST(sums_follow_every_change),
        ROOM_TEST(hosts_come_go_and_change),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
