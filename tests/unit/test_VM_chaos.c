/* test_VM_chaos.c - random operations on one VM while messages fail, hosts vanish and return,
 * guests end and masters die
 *
 * Each seed is one story; a failure prints it, and `test_VM_chaos SEED` tells it again. The hosts
 * assert after every effect that the VM runs at most once and by right; at the end of each story,
 * when everybody has come back, nothing may be left under way and the model says what really runs.
 */
#include "pool_world.h"

#include "master/VM_power.h"

#define SEEDS     150
#define STEPS     40
#define CALLS_MAX (STEPS + 1)

struct story {
    struct seeded_random random;
    struct api apis[CALLS_MAX];
    union {
        struct VM_start_args start;
        struct VM_start_on_args start_on;
        struct VM_pause_args pause;
        struct VM_unpause_args unpause;
        struct VM_clean_shutdown_args clean_shutdown;
        struct VM_hard_shutdown_args hard_shutdown;
        struct VM_hard_reboot_args hard_reboot;
        struct VM_suspend_args suspend;
        struct VM_resume_args resume;
        struct VM_pool_migrate_args migrate;
    } args[CALLS_MAX];
    int count;
};

static const struct value no_options = VALUE_EMPTY_MAP;

static uint64_t draw(struct story *story, uint64_t limit)
{
    return random_below(&story->random.random, limit);
}

static void call_something(struct story *story)
{
    int i = story->count++;
    struct api *api = &story->apis[i];
    ref_t host = world->hosts[draw(story, HOSTS)].ref;

    switch (draw(story, 14)) {
    case 0:
        story->args[i].start =
            (struct VM_start_args){.vm = world->vm, .start_paused = draw(story, 2)};
        api_begin(api, "VM.start", AS_RUN(VM_start), &story->args[i].start);
        break;
    case 1:
        story->args[i].start_on = (struct VM_start_on_args){.vm = world->vm, .host = host};
        api_begin(api, "VM.start_on", AS_RUN(VM_start_on), &story->args[i].start_on);
        break;
    case 2:
        story->args[i].pause = (struct VM_pause_args){world->vm};
        api_begin(api, "VM.pause", AS_RUN(VM_pause), &story->args[i].pause);
        break;
    case 3:
        story->args[i].unpause = (struct VM_unpause_args){world->vm};
        api_begin(api, "VM.unpause", AS_RUN(VM_unpause), &story->args[i].unpause);
        break;
    case 4:
        story->args[i].clean_shutdown = (struct VM_clean_shutdown_args){world->vm};
        api_begin(api, "VM.clean_shutdown", AS_RUN(VM_clean_shutdown),
                  &story->args[i].clean_shutdown);
        break;
    case 5:
        story->args[i].hard_shutdown = (struct VM_hard_shutdown_args){world->vm};
        api_begin(api, "VM.hard_shutdown", AS_RUN(VM_hard_shutdown), &story->args[i].hard_shutdown);
        break;
    case 6:
        story->args[i].hard_reboot = (struct VM_hard_reboot_args){world->vm};
        api_begin(api, "VM.hard_reboot", AS_RUN(VM_hard_reboot), &story->args[i].hard_reboot);
        break;
    case 7:
        story->args[i].suspend = (struct VM_suspend_args){world->vm};
        api_begin(api, "VM.suspend", AS_RUN(VM_suspend), &story->args[i].suspend);
        break;
    case 8:
        story->args[i].resume = (struct VM_resume_args){.vm = world->vm};
        api_begin(api, "VM.resume", AS_RUN(VM_resume), &story->args[i].resume);
        break;
    default:
        story->args[i].migrate = (struct VM_pool_migrate_args){world->vm, host, &no_options};
        api_begin(api, "VM.pool_migrate", AS_RUN(VM_pool_migrate), &story->args[i].migrate);
        break;
    }
}

static void arm_trouble(struct story *story)
{
    world->trouble_call = (int) draw(story, SLAVE_CALL_vm_ask);
    world->trouble = (enum trouble)(REFUSED + draw(story, 3));
    world->trouble_host = -1;
}

static void a_guest_ends_itself(struct story *story)
{
    static const char *const changes[] = {"shut_down", "rebooted", "crashed", "vanished"};
    int host = (int) draw(story, HOSTS);

    if (streq(guest_on(host)->state, "running") && world->hosts[host].is_linked)
        guest_ends(host, changes[draw(story, 4)]);
}

static void a_host_returns(struct story *story)
{
    int host = (int) draw(story, HOSTS);

    world->hosts[host].forgets_results = draw(story, 4) == 0;
    if (!world->hosts[host].is_linked)
        say_hello(host);
}

static void the_master_starts_anew(struct story *story)
{
    restart_master();
    for (int i = 0; i < HOSTS; i++)
        if (draw(story, 3) > 0)
            say_hello(i);
        else
            lose_host(&world->hosts[i]);
}

static void tell(struct story *story)
{
    for (int step = 0; step < STEPS; step++) {
        switch (draw(story, 8)) {
        case 0:
            arm_trouble(story);
            break;
        case 1:
            a_host_returns(story);
            break;
        case 2:
            a_guest_ends_itself(story);
            break;
        case 3:
            world->crash_call = draw(story, 3) ? -1 : (int) draw(story, SLAVE_CALL_vm_ask);
            world->crash_after = draw(story, 2);
            break;
        default:
            call_something(story);
            break;
        }
        pass_ms(draw(story, 3000));
        if (world->has_crashed)
            the_master_starts_anew(story);
    }
    world->trouble_call = world->crash_call = -1;
    for (int round = 0; round < 3; round++) {
        all_return();
        pass_ms(150000);
    }
}

static void assert_ended(struct story *story)
{
    struct view_iter tasks;
    const struct object *task;

    (void) story;
    view_each(&tasks, model(), CLASS_OF(task));
    while ((task = view_next(&tasks)))
        assert_int_not_equal(task_get_status(task), task_status_type_pending);
    assert_quiet();
    if (power() == vm_power_state_Running || power() == vm_power_state_Paused) {
        assert_true(resident() >= 0);
    } else {
        assert_int_equal(resident(), -1);
        assert_int_equal(runners(vm_uuid()), 0);
    }
}

static void one_story(uint64_t seed)
{
    struct story *story = new0(struct story);
    void *state;

    world_setup(&state);
    seeded_random_init(&story->random, seed);
    seeded_random_init(&world->random, seed);
    world->latency_ms = seed % 2 ? 1000 : 0;
    world->sync_ms = seed % 3 ? 0 : 30;
    tell(story);
    world->latency_ms = 0;
    assert_ended(story);
    world_teardown(&state);
    for (int i = 0; i < story->count; i++)
        api_done(&story->apis[i]);
    free(story);
}

static uint64_t first_seed = 1, last_seed = SEEDS;

static void random_stories_end_well(void **state)
{
    (void) state;
    for (uint64_t seed = first_seed; seed <= last_seed; seed++) {
        print_message("seed %llu\n", (unsigned long long) seed);
        one_story(seed);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_stories_end_well),
    };

    if (argc > 1)
        first_seed = last_seed = strtoull(argv[1], NULL, 10);
    if (argc > 2)
        last_seed = strtoull(argv[2], NULL, 10);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
