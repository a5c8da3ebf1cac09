/* test_tree.c - the path-copying tree against a sorted array, over many generations
 *
 * The model is an array of keys and values in order. After each step the shape of the tree is
 * checked too: order, separators, counts, fill. Old roots are kept with a copy of their model, as
 * pinned readers would, and must still be equal after the generations that followed, including
 * rolled back ones; when a pin ends the retired nodes are freed, so that the address sanitizer sees
 * whoever still touches one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "shared/tree_node.h"

/* ---- seeded random numbers (splitmix64) */

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15ULL;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
    return z ^ z >> 31;
}

static unsigned below(uint64_t *state, unsigned limit)
{
    return (unsigned) (next_random(state) % limit);
}

/* ---- the model */

struct pair {
    struct tree_key key;
    void *value;
};

struct model {
    struct pair *pairs;
    size_t count, size;
};

static int compare(const struct tree_key *a, const struct tree_key *b)
{
    for (int i = 0; i < 4; i++)
        if (a->w[i] != b->w[i])
            return a->w[i] < b->w[i] ? -1 : 1;
    return 0;
}

/* The first pair not below the key. */
static size_t model_find(const struct model *model, const struct tree_key *key)
{
    size_t low = 0, high = model->count;

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (compare(&model->pairs[middle].key, key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool model_has(const struct model *model, size_t i, const struct tree_key *key)
{
    return i < model->count && compare(&model->pairs[i].key, key) == 0;
}

static bool model_put(struct model *model, const struct tree_key *key, void *value)
{
    size_t i = model_find(model, key);

    if (model_has(model, i, key)) {
        model->pairs[i].value = value;
        return true;
    }
    if (model->count == model->size) {
        model->size = model->size ? model->size * 2 : 64;
        model->pairs = realloc_array(model->pairs, model->size, sizeof *model->pairs);
    }
    memmove(&model->pairs[i + 1], &model->pairs[i], (model->count - i) * sizeof *model->pairs);
    model->pairs[i] = (struct pair){*key, value};
    model->count++;
    return false;
}

static bool model_remove(struct model *model, const struct tree_key *key, void **ret_value)
{
    size_t i = model_find(model, key);

    if (!model_has(model, i, key))
        return false;
    *ret_value = model->pairs[i].value;
    model->count--;
    memmove(&model->pairs[i], &model->pairs[i + 1], (model->count - i) * sizeof *model->pairs);
    return true;
}

static struct model model_copy(const struct model *model)
{
    struct model copy = {alloc_array(model->count, sizeof *copy.pairs), model->count, model->count};

    if (model->count > 0)
        memcpy(copy.pairs, model->pairs, model->count * sizeof *copy.pairs);
    return copy;
}

static void model_done(struct model *model)
{
    free(TAKE(model->pairs));
    model->count = model->size = 0;
}

/* ---- shape */

static struct tree_key key_at(const struct tree_node *node, unsigned i)
{
    const uint64_t *rest = node->entries[i].rest;

    return (struct tree_key){{node->first[i], rest[0], rest[1], rest[2]}};
}

/* Every key below the node is in [low, high); NULL is no limit. Returns their number. */
static size_t check_node(const struct tree_node *node, const struct tree_key *low,
                         const struct tree_key *high, bool is_root, bool is_edge)
{
    size_t count = 0;

    assert_in_range(node->used, is_root || is_edge ? 1 : TREE_FANOUT / 3, TREE_FANOUT);
    if (is_root && node->level > 0)
        assert_true(node->used > 1);
    for (unsigned i = 0; i < node->used; i++) {
        bool is_last = i + 1 == node->used;
        struct tree_key key = key_at(node, i), next;

        if (node->level == 0 || i > 0) {
            assert_true(!low || compare(low, &key) <= 0);
            assert_true(!high || compare(&key, high) < 0);
        } else if (low) { /* the left edge aside, it is the key that stands for the node above */
            assert_int_equal(compare(&key, low), 0);
        }
        if (!is_last) {
            next = key_at(node, i + 1);
            assert_true((node->level > 0 && i == 0) || compare(&key, &next) < 0);
        }
        if (node->level == 0) {
            count++;
            continue;
        }
        assert_int_equal(node->entries[i].child->level + 1, node->level);
        assert_true(node->entries[i].child->generation <= node->generation);
        assert_int_equal(node->counts[i],
                         check_node(node->entries[i].child, i > 0 ? &key : low,
                                    is_last ? high : &next, false, is_edge && is_last));
        count += node->counts[i];
    }
    assert_int_equal(node->count, count);
    return count;
}

static void check_shape(const struct tree_node *root)
{
    if (root)
        check_node(root, NULL, NULL, true, true);
}

static void check_equal(const struct tree_node *root, const struct model *model)
{
    struct tree_key key = {{0, 0, 0, 0}};
    struct tree_iter it;
    void *value;
    size_t i = 0;

    assert_int_equal(tree_count(root), model->count);
    tree_iter_seek(&it, root, &key);
    for (; tree_iter_next(&it, &key, &value); i++) {
        assert_true(i < model->count);
        assert_int_equal(compare(&key, &model->pairs[i].key), 0);
        assert_ptr_equal(value, model->pairs[i].value);
    }
    assert_int_equal(i, model->count);
    assert_false(tree_iter_next(&it, &key, &value)); /* an end stays an end */
}

/* ---- one store: a root, its model, pins */

#define PINS_MAX 8

struct pin {
    uint64_t generation;
    const struct tree_node *root;
    struct model model;
};

struct fixture {
    struct tree_owner *owner;
    struct tree_node *root;
    struct model model;
    uint64_t generation;
    struct pin pins[PINS_MAX]; /* oldest first */
    unsigned pins_count;
    uint64_t random;
};

static void fixture_done(struct fixture *f)
{
    for (unsigned i = 0; i < f->pins_count; i++)
        model_done(&f->pins[i].model);
    tree_free(f->owner, &f->root, NULL);
    tree_owner_destroy(&f->owner);
    assert_null(f->owner);
    model_done(&f->model);
}

static void pin(struct fixture *f)
{
    assert_true(f->pins_count < PINS_MAX);
    f->pins[f->pins_count++] = (struct pin){f->generation, f->root, model_copy(&f->model)};
}

/* Compare a pinned root a last time, and free what only it needed. */
static void unpin(struct fixture *f, unsigned i)
{
    check_equal(f->pins[i].root, &f->pins[i].model);
    model_done(&f->pins[i].model);
    memmove(&f->pins[i], &f->pins[i + 1], (--f->pins_count - i) * sizeof f->pins[0]);
    tree_reclaim(f->owner, f->pins_count > 0 ? f->pins[0].generation : f->generation);
}

/* How keys are drawn: few of them, so that the same come again, or in runs under a common prefix.
 */
enum keys { KEYS_RANDOM, KEYS_FEW, KEYS_PREFIXED, KEYS_KINDS };

static struct tree_key draw_key(struct fixture *f, enum keys keys)
{
    static const uint64_t odd[] = {0, 1, 2, UINT64_MAX / 2, UINT64_MAX - 1, UINT64_MAX};
    struct tree_key key;

    for (int i = 0; i < 4; i++)
        key.w[i] = next_random(&f->random);
    if (keys == KEYS_RANDOM && f->model.count > 0 && below(&f->random, 2))
        key = f->model.pairs[next_random(&f->random) % f->model.count].key;
    if (keys == KEYS_FEW)
        for (int i = 0; i < 4; i++)
            key.w[i] = odd[below(&f->random, ARRAY_SIZE(odd))];
    if (keys == KEYS_PREFIXED)
        for (int i = 0; i < 4; i++)
            key.w[i] = i < 2 ? odd[below(&f->random, ARRAY_SIZE(odd))]
                             : below(&f->random, i == 2 ? 64 : 1);
    return key;
}

static void change(struct fixture *f, struct model *model, enum keys keys, unsigned puts_per_cent)
{
    struct tree_key key = draw_key(f, keys);
    void *value =
        (void *) (uintptr_t) (next_random(&f->random) & below(&f->random, 2) * UINT32_MAX);
    void *expected = NULL, *got = NULL;

    if (below(&f->random, 100) < puts_per_cent) {
        assert_int_equal(tree_put(f->owner, &f->root, &key, value), model_put(model, &key, value));
        assert_true(tree_get(f->root, &key, &got));
        assert_ptr_equal(got, value);
    } else {
        size_t bytes = tree_node_bytes(f->owner);
        bool had = model_remove(model, &key, &expected);

        assert_int_equal(tree_remove(f->owner, &f->root, &key, &got), had);
        assert_ptr_equal(got, expected);
        assert_false(tree_get(f->root, &key, NULL));
        if (!had)
            assert_int_equal(tree_node_bytes(f->owner), bytes);
    }
}

/* Questions about one key: seek, seek after, prefix scan and count. */
static void ask(struct fixture *f, enum keys keys)
{
    struct tree_key key = draw_key(f, keys), first = {{key.w[0], key.w[1], 0, 0}}, got;
    size_t i = model_find(&f->model, &key), n = 0;
    bool has = model_has(&f->model, i, &key);
    struct tree_iter it;

    tree_iter_seek(&it, f->root, &key);
    assert_int_equal(tree_iter_next(&it, &got, NULL), i < f->model.count);
    if (i < f->model.count)
        assert_int_equal(compare(&got, &f->model.pairs[i].key), 0);

    tree_iter_seek_after(&it, f->root, &key);
    assert_int_equal(tree_iter_next(&it, &got, NULL), i + has < f->model.count);
    if (i + has < f->model.count)
        assert_int_equal(compare(&got, &f->model.pairs[i + has].key), 0);

    tree_iter_prefix(&it, f->root, &key);
    i = model_find(&f->model, &first);
    for (; i + n < f->model.count && memcmp(&f->model.pairs[i + n].key, &key, 16) == 0; n++) {
        assert_true(tree_iter_next(&it, &got, NULL));
        assert_int_equal(compare(&got, &f->model.pairs[i + n].key), 0);
    }
    assert_false(tree_iter_next(&it, &got, NULL));
    assert_int_equal(tree_count_range(f->root, &key), n);

    if (n > 0) { /* the same scan, resumed from each of its keys */
        size_t resume = below(&f->random, (unsigned) n);

        tree_iter_seek_after(&it, f->root, &f->model.pairs[i + resume].key);
        tree_iter_limit(&it, &key);
        while (tree_iter_next(&it, NULL, NULL))
            resume++;
        assert_int_equal(resume, n - 1);
    }
}

static void run_generations(uint64_t seed, enum keys keys, unsigned generations,
                            unsigned changes_max)
{
    struct fixture f = {.owner = tree_owner_new(), .random = seed};

    for (unsigned step = 0; step < generations; step++) {
        unsigned changes = below(&f.random, changes_max);
        unsigned puts_per_cent =
            step / 20 % 3 == 2 ? 15 : 70; /* grow, grow, shrink: joins and splits */
        struct model model = model_copy(&f.model);
        struct tree_node *before = f.root;

        tree_begin(f.owner, f.generation + 1 + below(&f.random, 3));
        while (changes-- > 0)
            change(&f, &model, keys, puts_per_cent);
        check_shape(f.root);
        check_equal(f.root, &model);
        if (below(&f.random, 4) == 0) {
            tree_rollback(f.owner);
            f.root = before;
            model_done(&model);
        } else {
            f.generation += 4; /* gaps are allowed, and the range above stays below */
            tree_commit(f.owner);
            model_done(&f.model);
            f.model = model;
        }
        check_shape(f.root);
        check_equal(f.root, &f.model);
        for (int i = 0; i < 4; i++)
            ask(&f, keys);
        if (f.pins_count == PINS_MAX || (f.pins_count > 0 && below(&f.random, 3) == 0))
            unpin(&f, below(&f.random, f.pins_count)); /* often not the oldest */
        if (below(&f.random, 3) == 0)
            pin(&f);
    }
    while (f.pins_count > 0)
        unpin(&f, 0);
    tree_reclaim(f.owner, f.generation + 4);
    assert_int_equal(tree_retired_bytes(f.owner, 0), 0);
    fixture_done(&f);
}

static void any_history_equals_the_model(void **state)
{
    (void) state;
    for (uint64_t seed = 1; seed <= 4; seed++)
        for (enum keys keys = 0; keys < KEYS_KINDS; keys++) {
            print_message("seed %u keys %d\n", (unsigned) seed, (int) keys);
            run_generations(seed, keys, 120, 12); /* small changes to a small tree */
            run_generations(seed, keys, 80, 400); /* three levels */
        }
}

/* ---- single rules */

static struct tree_key number_key(uint64_t n)
{
    return (struct tree_key){{n, 0, 0, 0}};
}

static void an_empty_tree_answers(void **state)
{
    struct tree_key key = number_key(1);
    struct tree_owner *owner = tree_owner_new();
    struct tree_node *root = NULL;
    struct tree_iter it;

    (void) state;
    assert_false(tree_get(root, &key, NULL));
    assert_int_equal(tree_count(root), 0);
    assert_int_equal(tree_count_range(root, &key), 0);
    tree_iter_prefix(&it, root, &key);
    assert_false(tree_iter_next(&it, NULL, NULL));
    tree_begin(owner, 1);
    assert_false(tree_remove(owner, &root, &key, NULL));
    tree_commit(owner);
    tree_free(owner, &root, NULL);
    tree_owner_destroy(&owner);
    tree_owner_destroy(&owner); /* NULL is accepted */
}

static void sorted_keys_fill_their_nodes(void **state)
{
    enum { N = 20000 };
    struct tree_owner *owner = tree_owner_new();
    struct tree_node *root = NULL;

    (void) state;
    tree_begin(owner, 1);
    for (uint64_t n = 0; n < N; n++) {
        struct tree_key key = number_key(n);

        assert_false(tree_put(owner, &root, &key, NULL));
    }
    tree_commit(owner);
    check_shape(root);
    assert_in_range(tree_node_bytes(owner), 40 * N, 45 * N);
    tree_free(owner, &root, NULL);
    tree_owner_destroy(&owner);
}

static void build_and_take_apart(unsigned count, bool from_right)
{
    struct tree_owner *owner = tree_owner_new();
    struct tree_node *root = NULL;

    tree_begin(owner, 1);
    for (uint64_t n = 0; n < count; n++) {
        struct tree_key key = number_key(n);

        tree_put(owner, &root, &key, (void *) (uintptr_t) n);
    }
    tree_commit(owner);
    check_shape(root);
    for (uint64_t n = 0; n < count; n++) {
        uint64_t victim = from_right ? count - 1 - n : n;
        struct tree_key key = number_key(victim);
        void *value;

        tree_begin(owner, n + 2);
        assert_true(tree_remove(owner, &root, &key, &value));
        assert_int_equal((uintptr_t) value, victim);
        tree_commit(owner);
        tree_reclaim(owner, n + 2);
        if (n < 2 * TREE_FANOUT || n % 97 == 0)
            check_shape(root);
    }
    assert_null(root);
    assert_int_equal(tree_node_bytes(owner), 0);
    tree_owner_destroy(&owner);
}

/* In order, the nodes of the right edge begin with one entry; one key more than a power of the
 * fanout makes a whole edge of such nodes. */
static void edges_come_apart_from_both_sides(void **state)
{
    (void) state;
    for (unsigned power = TREE_FANOUT; power <= TREE_FANOUT * TREE_FANOUT * TREE_FANOUT;
         power *= TREE_FANOUT)
        for (unsigned count = power - 1; count <= power + 2; count++) {
            build_and_take_apart(count, false);
            build_and_take_apart(count, true);
        }
    build_and_take_apart(TREE_FANOUT * TREE_FANOUT + TREE_FANOUT + 1, true);
}

static void an_iterator_keeps_its_generation(void **state)
{
    enum { N = 3000 };
    struct tree_key key = number_key(0);
    struct tree_owner *owner = tree_owner_new();
    struct tree_node *root = NULL;
    struct tree_iter it;
    uint64_t n = 0;

    (void) state;
    tree_begin(owner, 1);
    for (uint64_t i = 0; i < N; i++) {
        key = number_key(2 * i);
        tree_put(owner, &root, &key, (void *) 1);
    }
    tree_commit(owner);
    key = number_key(0);
    tree_iter_seek(&it, root, &key);
    for (; tree_iter_next(&it, &key, NULL); n++) {
        struct tree_key other = number_key(2 * n + 1), ahead = number_key(2 * n + 40);

        assert_int_equal(key.w[0], 2 * n);
        tree_begin(owner, n + 2);
        tree_put(owner, &root, &other, NULL);
        tree_remove(owner, &root, &ahead, NULL);
        tree_commit(owner);
        tree_reclaim(owner, 1); /* that is where our iterator is */
    }
    assert_int_equal(n, N);
    tree_free(owner, &root, NULL);
    tree_owner_destroy(&owner);
}

/* ---- the store's own things */

static void set_freed(void *thing)
{
    ++*(int *) thing;
}

static void things_live_as_long_as_their_readers(void **state)
{
    struct tree_owner *owner = tree_owner_new();
    int first = 0, second = 0, third = 0;

    (void) state;
    tree_begin(owner, 5);
    tree_created(owner, &first, set_freed);
    tree_commit(owner);
    assert_int_equal(first, 0);

    tree_begin(owner, 7); /* replaces first by second */
    tree_created(owner, &second, set_freed);
    tree_retire(owner, &first, set_freed, 100);
    assert_int_equal(tree_retired_bytes(owner, 6), 100);
    tree_rollback(owner);
    assert_int_equal(first, 0);
    assert_int_equal(second, 1);
    assert_int_equal(tree_retired_bytes(owner, 0), 0);

    second = 0;
    tree_begin(owner, 7); /* a generation that was rolled back was never seen: its number is free */
    tree_created(owner, &second, set_freed);
    tree_retire(owner, &first, set_freed, 100);
    tree_commit(owner);
    tree_begin(owner, 9);
    tree_retire(owner, &second, set_freed, 20);
    tree_created(owner, &third, set_freed);
    tree_retire(owner, &third, set_freed, 3); /* made and replaced by the same generation */
    tree_reclaim(owner, UINT64_MAX - 1);      /* the open generation is not concerned */
    assert_int_equal(first, 1);
    assert_int_equal(second, 0);
    tree_commit(owner);

    assert_int_equal(tree_retired_bytes(owner, 0), 23);
    assert_int_equal(tree_retired_bytes(owner, 8), 23);
    assert_int_equal(tree_retired_bytes(owner, 9), 0);
    tree_reclaim(owner, 8);
    assert_int_equal(second, 0);
    tree_reclaim(owner, 9);
    assert_int_equal(first, 1);
    assert_int_equal(second, 1);
    assert_int_equal(third, 1);
    assert_int_equal(tree_retired_bytes(owner, 0), 0);
    tree_owner_destroy(&owner);
}

static void retired_bytes_count_from_any_generation(void **state)
{
    enum { GENERATIONS = 1000 };
    struct tree_owner *owner = tree_owner_new();
    int freed = 0;

    (void) state;
    for (uint64_t g = 1; g <= GENERATIONS; g++) {
        tree_begin(owner, 2 * g);
        for (int i = 0; i < 3; i++)
            tree_retire(owner, &freed, set_freed, 10);
        tree_commit(owner);
    }
    for (uint64_t g = 0; g <= GENERATIONS; g++) {
        assert_int_equal(tree_retired_bytes(owner, 2 * g), 30 * (GENERATIONS - g));
        assert_int_equal(tree_retired_bytes(owner, 2 * g + 1), 30 * (GENERATIONS - g));
    }
    assert_true(tree_reclaim_some(owner, 200, 7));
    assert_int_equal(freed, 7);
    assert_false(tree_reclaim_some(owner, 200, SIZE_MAX));
    assert_int_equal(freed, 300);
    assert_int_equal(tree_retired_bytes(owner, 0), 30 * (GENERATIONS - 100));
    assert_int_equal(tree_retired_bytes(owner, 200), 30 * (GENERATIONS - 100));
    tree_begin(owner, 5000);
    tree_owner_destroy(&owner); /* rolls back, and frees the rest */
    assert_int_equal(freed, 3 * GENERATIONS);
}

static void free_value(void *value)
{
    set_freed(value);
}

static void freeing_a_tree_frees_each_value(void **state)
{
    enum { N = 2000 };
    struct tree_owner *owner = tree_owner_new();
    struct tree_node *root = NULL;
    int freed[N] = {0};

    (void) state;
    tree_begin(owner, 1);
    for (uint64_t n = 0; n < N; n++) {
        struct tree_key key = number_key(n * 7919 % N);

        tree_put(owner, &root, &key, &freed[n]);
    }
    tree_commit(owner);
    tree_free(owner, &root, free_value);
    assert_null(root);
    assert_int_equal(tree_node_bytes(owner), 0);
    for (int n = 0; n < N; n++)
        assert_int_equal(freed[n], 1);
    tree_owner_destroy(&owner);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_tree_answers),
        cmocka_unit_test(any_history_equals_the_model),
        cmocka_unit_test(sorted_keys_fill_their_nodes),
        cmocka_unit_test(edges_come_apart_from_both_sides),
        cmocka_unit_test(an_iterator_keeps_its_generation),
        cmocka_unit_test(things_live_as_long_as_their_readers),
        cmocka_unit_test(retired_bytes_count_from_any_generation),
        cmocka_unit_test(freeing_a_tree_frees_each_value),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
