/* test_guest_samples.c - figures of hosts and guests: what is written, and how often */
#include "pool_world.h"

#define MEMORY 512 /* MiB of the VM that runs */

struct told {
    int64_t free_bytes, guest_bytes;
};

static void tell_main(void *arg)
{
    struct told *told = arg;
    struct value sample[] = {value_text("epoch"), VALUE_INT(VM_get_epoch(vm_now())), value_text("vcpu_seconds"),
                             VALUE_FLOAT(1), value_text("memory"), VALUE_INT(told->guest_bytes)};
    struct value guests[] = {VALUE_REF(NULL_REF), VALUE_MAP(3, sample)};
    struct value items[] = {value_text("memory_free"), VALUE_INT(told->free_bytes), value_text("guests"),
                            VALUE_MAP(1, guests)};
    struct value body = VALUE_MAP(2, items);
    struct slave_note note = {"samples", world->hosts[0].ref, NULL_REF, 0, &body};

    uuid_parse(vm_uuid(), 36, &guests[0].ref);
    world->on_samples(&world->core, &note);
}

static void tell(int64_t free_bytes, int64_t guest_bytes)
{
    struct told told = {free_bytes, guest_bytes};

    assert_non_null(fiber_spawn(world->core.loop, tell_main, &told, "samples"));
    settle_now();
}

static const struct object *host_figures(void)
{
    return view_get(model(), host_metrics,
                    host_get_metrics(view_get(model(), host, world->hosts[0].ref)));
}

static int64_t guest_memory(void)
{
    return VM_metrics_get_memory_actual(view_get(model(), VM_metrics, VM_get_metrics(vm_now())));
}

static void figures_follow_the_samples(_unused_ void **state)
{
    uint64_t appended;
    int64_t updated;
    struct txn *txn = store_begin(world->core.store);

    VM_put_metrics(txn, world->vm, new_object(txn, CLASS_OF(VM_metrics)));
    store_apply(&txn);
    pass_ms(5000);
    appended = world->appended;
    tell(7 * GIB, MEMORY * MIB);
    assert_int_equal(host_metrics_get_memory_free(host_figures()), 7 * GIB);
    assert_int_equal(guest_memory(), MEMORY * MIB);
    updated = host_metrics_get_last_updated(host_figures());
    assert_int_equal(updated, clock_utc_s(world->core.clock));

    /* Less than a MiB is no change, but the figures are fresh. */
    pass_ms(5000);
    tell(7 * GIB - MIB + 1, MEMORY * MIB + MIB - 1);
    assert_int_equal(host_metrics_get_memory_free(host_figures()), 7 * GIB);
    assert_int_equal(guest_memory(), MEMORY * MIB);
    assert_int_equal(host_metrics_get_last_updated(host_figures()), updated + 5);

    /* What comes right behind is left out. */
    pass_ms(1000);
    tell(3 * GIB, MEMORY * MIB);
    assert_int_equal(host_metrics_get_memory_free(host_figures()), 7 * GIB);
    pass_ms(4000);
    tell(7 * GIB - MIB, MEMORY * MIB + MIB);
    assert_int_equal(host_metrics_get_memory_free(host_figures()), 7 * GIB - MIB);
    assert_int_equal(guest_memory(), MEMORY * MIB + MIB);
    pass_ms(5000);
    tell(INT64_MIN, INT64_MAX); /* nonsense */
    assert_int_equal(host_metrics_get_memory_free(host_figures()), 0);

    assert_int_equal(world->appended, appended); /* nothing of it is durable */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(figures_follow_the_samples, world_setup, world_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
