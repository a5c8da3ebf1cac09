/* work_in.c - work on files, counted by where they lie
 *
 *   op_work_in(A, B) -- is one of them full? -- wait until one there has ended, look again
 *                    -- none: count one more at A and at B -- worker -- one less, wake who waits there
 *
 * Places are those at which something is going on; a host has few. */
#include "slave/work_in.h"

#include "shared/fiber.h"
#include "shared/workers.h"

struct worked_in {
    struct worked_in *next;
    char *directory;
    unsigned at_work;
    struct waitq freed; /* one less is at work here */
};

static struct worked_in *find(struct agent *agent, const char *directory)
{
    for (struct worked_in *place = agent->worked_in; place; place = place->next)
        if (streq(place->directory, directory))
            return place;
    return NULL;
}

/* The first that nobody more may enter, or NULL. */
static struct worked_in *full(struct agent *agent, const char *const directories[], size_t count)
{
    unsigned most = MAX(workers_threads(agent->workers) / 2, 1u);

    for (size_t i = 0; i < count; i++) {
        struct worked_in *place = find(agent, directories[i]);

        if (place && place->at_work >= most)
            return place;
    }
    return NULL;
}

static void enter(struct agent *agent, const char *directory)
{
    struct worked_in *place = find(agent, directory);

    if (!place) {
        place = new0(struct worked_in);
        place->directory = dup_text(directory);
        place->next = agent->worked_in;
        agent->worked_in = place;
    }
    place->at_work++;
}

static void worked_in_free(struct worked_in *place)
{
    free(place->directory);
    free(place);
}

static void leave(struct agent *agent, const char *directory)
{
    struct worked_in **at = &agent->worked_in, *place;

    while (!streq((*at)->directory, directory))
        at = &(*at)->next;
    place = *at;
    waitq_wake_all(&place->freed); /* some of them wait for another place, too */
    if (--place->at_work > 0)
        return;
    *at = place->next;
    worked_in_free(place);
}

/* Each once. */
static size_t unique(const char *const directories[], size_t count, const char *ret[])
{
    size_t kept = 0;

    for (size_t i = 0; i < count; i++) {
        bool is_there = !directories[i];

        for (size_t j = 0; j < kept && !is_there; j++)
            is_there = streq(ret[j], directories[i]);
        if (!is_there)
            ret[kept++] = directories[i];
    }
    return kept;
}

void op_work_in(struct op *op, const char *const directories[], size_t count, void (*fn)(void *arg), void *arg)
{
    struct agent *agent = op->agent;
    const char **places = arena_alloc_array(op->arena, count + 1, sizeof *places);
    struct worked_in *place;

    count = unique(directories, count, places);
    fiber_uncancellable_begin();
    while ((place = full(agent, places, count)))
        waitq_wait(&place->freed, 0);
    fiber_uncancellable_end();
    for (size_t i = 0; i < count; i++)
        enter(agent, places[i]);
    op_work(op, fn, arg);
    for (size_t i = 0; i < count; i++)
        leave(agent, places[i]);
}

void op_work_at_paths(struct op *op, const char *paths, void (*fn)(void *arg), void *arg)
{
    size_t count = 0, capacity = 0;
    const char **directories, *end;

    for (const char *at = paths; (at = strchr(at, '\n')); at++)
        capacity++;
    directories = arena_alloc_array(op->arena, capacity + 1, sizeof *directories);
    for (const char *at = paths; (end = strchr(at, '\n')); at = end + 1) {
        const char *slash = memrchr(at, '/', (size_t) (end - at));

        directories[count++] = op_text(op, "%.*s", (int) (slash ? slash - at : 0), at);
    }
    op_work_in(op, directories, count, fn, arg);
}

void work_in_forget(struct worked_in **places)
{
    struct worked_in *place;

    while ((place = *places)) {
        *places = place->next;
        worked_in_free(place);
    }
}
