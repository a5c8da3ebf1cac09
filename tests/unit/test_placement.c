/* test_placement.c - the pool states of tests/plan with the placement that is expected of them */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <glob.h>
#include <stdio.h>
#include <cmocka.h>

#include "master/memory.h"
#include "master/placement.h"
#include "shared/random.h"

#define HOSTS_MAX 16
#define VMS_MAX   16
#define SEEDS     60
#define NAME      32

struct plan_vm {
    char name[NAME];
    struct placement_vm needs;
    bool may_not[HOSTS_MAX];
};

struct plan {
    const char *file;
    int line;
    char host_names[HOSTS_MAX][NAME];
    struct room_host hosts[HOSTS_MAX];
    int host_count;
    struct plan_vm vms[VMS_MAX];
    int vm_count;
    ref_t master;
    int expectations;
};

static void wrong(const struct plan *plan, const char *what, const char *word)
{
    fail_msg("%s:%d: %s %s", plan->file, plan->line, what, word);
}

static int host_named(const struct plan *plan, const char *name)
{
    for (int i = 0; i < plan->host_count; i++)
        if (streq(plan->host_names[i], name))
            return i;
    return -1;
}

static int host_index(const struct plan *plan, ref_t ref)
{
    for (int i = 0; i < plan->host_count; i++)
        if (ref_equal(plan->hosts[i].host, ref))
            return i;
    return -1;
}

static struct plan_vm *vm_named(struct plan *plan, const char *name)
{
    for (int i = 0; i < plan->vm_count; i++)
        if (streq(plan->vms[i].name, name))
            return &plan->vms[i];
    wrong(plan, "no VM", name);
    return NULL;
}

static char *word(char **line)
{
    return strtok_r(NULL, " \t\n", line);
}

static int64_t mib(char **line)
{
    char *text = word(line);

    assert_non_null(text);
    return strtoll(text, NULL, 10) * MIB;
}

static void read_host(struct plan *plan, char **line)
{
    struct room_host *host = &plan->hosts[plan->host_count];
    int64_t fixed = -1, balloon = -1;
    char *key;

    snprintf(plan->host_names[plan->host_count], NAME, "%s", word(line));
    *host = (struct room_host){.host = {1, (uint64_t) plan->host_count + 1},
                               .is_enabled = true,
                               .is_live = true,
                               .memory_total_bytes = mib(line)};
    while ((key = word(line))) {
        if (streq(key, "used"))
            host->committed_bytes = mib(line);
        else if (streq(key, "static"))
            fixed = mib(line);
        else if (streq(key, "dynamic"))
            balloon = mib(line);
        else if (streq(key, "disabled"))
            host->is_enabled = false;
        else if (streq(key, "dead"))
            host->is_live = false;
        else
            wrong(plan, "what is", key);
    }
    host->dynamic_max_bytes = balloon >= 0 ? balloon : host->committed_bytes;
    host->static_max_bytes = fixed >= 0 ? fixed : host->dynamic_max_bytes;
    plan->host_count++;
}

static void read_vm(struct plan *plan, char **line)
{
    struct plan_vm *vm = &plan->vms[plan->vm_count];
    struct placement_vm *needs = &vm->needs;
    char *key;

    *vm = (struct plan_vm){0};
    snprintf(vm->name, NAME, "%s", word(line));
    needs->vm = (ref_t){2, (uint64_t) ++plan->vm_count};
    needs->need_bytes = needs->static_max_bytes = needs->dynamic_max_bytes = mib(line);
    while ((key = word(line))) {
        if (streq(key, "static"))
            needs->static_max_bytes = mib(line);
        else if (streq(key, "dynamic"))
            needs->dynamic_max_bytes = mib(line);
        else if (streq(key, "affinity"))
            needs->affinity = plan->hosts[host_named(plan, word(line))].host;
        else if (streq(key, "never"))
            vm->may_not[host_named(plan, word(line))] = true;
        else
            wrong(plan, "what is", key);
    }
}

struct question {
    const struct plan *plan;
    const struct plan_vm *vm;
};

static bool choose_allows(void *arg, ref_t host)
{
    const struct question *question = arg;

    return !question->vm->may_not[host_index(question->plan, host)];
}

static void expect_choice(struct plan *plan, char **line)
{
    const struct plan_vm *vm = vm_named(plan, word(line));
    struct question question = {plan, vm};
    bool expected[HOSTS_MAX] = {false}, seen[HOSTS_MAX] = {false}, none = false;
    char *name;

    assert_string_equal(word(line), "->");
    while ((name = word(line))) {
        if (streq(name, "none"))
            none = true;
        else
            expected[host_named(plan, name)] = true;
    }
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct seeded_random random;
        ref_t chosen;
        int i;

        seeded_random_init(&random, seed);
        chosen = placement_choose(plan->hosts, plan->host_count, plan->master, &vm->needs,
                                  choose_allows, &question, &random.random);
        i = host_index(plan, chosen);
        if (ref_is_null(chosen) != none || (i >= 0 && !expected[i]))
            wrong(plan, "chosen:", i >= 0 ? plan->host_names[i] : "none");
        if (i >= 0)
            seen[i] = true;
    }
    for (int i = 0; i < plan->host_count; i++)
        if (expected[i] && !seen[i])
            wrong(plan, "never chosen:", plan->host_names[i]);
}

static bool evacuate_allows(void *arg, ref_t vm, ref_t host)
{
    const struct plan *plan = arg;

    return !plan->vms[vm.lo - 1].may_not[host_index(plan, host)];
}

static void expect_evacuation(struct plan *plan, char **line)
{
    ref_t leaving = plan->hosts[host_named(plan, word(line))].host, destinations[VMS_MAX];
    struct placement_vm needs[VMS_MAX];
    int without = 0, i = 0;
    char *pair;

    for (int v = 0; v < plan->vm_count; v++)
        needs[v] = plan->vms[v].needs;
    without = placement_evacuate(plan->hosts, plan->host_count, leaving, needs, plan->vm_count,
                                 evacuate_allows, plan, destinations);
    assert_string_equal(word(line), "->");
    while ((pair = word(line))) {
        char *name = strchr(pair, ':') + 1;
        int chosen = host_index(plan, destinations[i]);

        if (strncmp(pair, plan->vms[i].name, strlen(plan->vms[i].name)) != 0)
            wrong(plan, "out of order:", pair);
        if (!streq(name, chosen < 0 ? "none" : plan->host_names[chosen]))
            wrong(plan, pair, chosen < 0 ? "went nowhere" : plan->host_names[chosen]);
        without -= chosen < 0;
        i++;
    }
    assert_int_equal(i, plan->vm_count);
    assert_int_equal(without, 0);
}

static void read_line(struct plan *plan, char *text)
{
    char *line = NULL, *first;

    text[strcspn(text, "#")] = '\0';
    first = strtok_r(text, " \t\n", &line);
    if (!first)
        return;
    if (streq(first, "host")) {
        read_host(plan, &line);
    } else if (streq(first, "vm")) {
        read_vm(plan, &line);
    } else if (streq(first, "master")) {
        plan->master = plan->hosts[host_named(plan, word(&line))].host;
    } else if (streq(first, "choose")) {
        expect_choice(plan, &line);
        plan->expectations++;
    } else if (streq(first, "evacuate")) {
        expect_evacuation(plan, &line);
        plan->expectations++;
    } else {
        wrong(plan, "what is", first);
    }
}

static void every_plan_holds(void **state)
{
    glob_t files;

    (void) state;
    assert_int_equal(glob("tests/plan/*.txt", 0, NULL, &files), 0);
    for (size_t i = 0; i < files.gl_pathc; i++) {
        struct plan plan = {.file = files.gl_pathv[i]};
        FILE *file = fopen(plan.file, "re");
        char text[512];

        assert_non_null(file);
        while (fgets(text, sizeof text, file)) {
            plan.line++;
            read_line(&plan, text);
        }
        fclose(file);
        if (plan.expectations == 0)
            wrong(&plan, "expects", "nothing");
    }
    globfree(&files);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_plan_holds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
