/* test_tree_readers.c - readers in other threads walk old roots while the writer goes on
 *
 * Each generation g sets every one of its keys to g, so a reader that finds another value has seen
 * a change in what it had pinned. Roots are published and pinned under the mutex and walked without
 * it. The thread sanitizer sees a write to a published node, the address sanitizer one that was
 * freed too early. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <pthread.h>

#include <cmocka.h>

#include "shared/tree.h"

static struct tree_key number_key(uint64_t n)
{
    return (struct tree_key){{n, 0, 0, 0}};
}

enum { READERS = 2, SHARED_KEYS = 300, SHARED_GENERATIONS = 400, READS_MIN = 20 };

struct shared {
    pthread_mutex_t mutex;
    const struct tree_node *root;
    uint64_t generation;
    uint64_t pinned[READERS]; /* 0: none */
    unsigned reads[READERS];
    bool is_over;
};

struct reader {
    struct shared *shared;
    unsigned number;
};

static void *read_along(void *arg)
{
    struct reader *reader = arg;
    struct shared *shared = reader->shared;
    uintptr_t wrong = 0;

    for (bool is_over = false; !is_over;) {
        struct tree_key key = number_key(0);
        const struct tree_node *root;
        struct tree_iter it;
        uint64_t generation;
        void *value;
        size_t n = 0;

        pthread_mutex_lock(&shared->mutex);
        root = shared->root;
        generation = shared->pinned[reader->number] = shared->generation;
        pthread_mutex_unlock(&shared->mutex);

        tree_iter_seek(&it, root, &key);
        for (; tree_iter_next(&it, &key, &value); n++)
            wrong |= (uintptr_t) value != generation;
        wrong |= n != tree_count(root);
        key = number_key(generation % SHARED_KEYS);
        wrong |= !tree_get(root, &key, &value) || (uintptr_t) value != generation;

        pthread_mutex_lock(&shared->mutex);
        shared->pinned[reader->number] = 0;
        shared->reads[reader->number]++;
        is_over = shared->is_over = shared->is_over || wrong; /* the writer must not wait for us */
        pthread_mutex_unlock(&shared->mutex);
    }
    return (void *) wrong;
}

static void make_generation(struct tree_owner *owner, struct tree_node **root, uint64_t generation)
{
    struct tree_key extra = number_key(SHARED_KEYS + generation % 50);

    tree_begin(owner, generation);
    for (uint64_t n = 0; n < SHARED_KEYS; n++) {
        struct tree_key key = number_key(n);

        tree_put(owner, root, &key, (void *) (uintptr_t) generation);
    }
    for (uint64_t n = 0; n < 50; n++) { /* the set of keys changes too */
        struct tree_key key = number_key(SHARED_KEYS + n);

        tree_remove(owner, root, &key, NULL);
    }
    tree_put(owner, root, &extra, (void *) (uintptr_t) generation);
    tree_commit(owner);
}

static void readers_walk_while_the_writer_commits(void **state)
{
    struct tree_owner *owner = tree_owner_new();
    struct tree_node *root = NULL;
    struct shared shared = {.mutex = PTHREAD_MUTEX_INITIALIZER};
    struct reader readers[READERS];
    pthread_t threads[READERS];
    uint64_t generation = 1;

    (void) state;
    make_generation(owner, &root, generation);
    shared.root = root;
    shared.generation = generation;
    for (unsigned i = 0; i < READERS; i++) {
        readers[i] = (struct reader){&shared, i};
        assert_int_equal(pthread_create(&threads[i], NULL, read_along, &readers[i]), 0);
    }
    for (bool is_over = false; !is_over;) {
        uint64_t oldest = ++generation;
        bool is_enough = generation >= SHARED_GENERATIONS;

        make_generation(owner, &root, generation);
        pthread_mutex_lock(&shared.mutex);
        shared.root = root;
        shared.generation = generation;
        for (unsigned i = 0; i < READERS; i++) {
            if (shared.pinned[i])
                oldest = MIN(oldest, shared.pinned[i]);
            is_enough = is_enough && shared.reads[i] >= READS_MIN;
        }
        is_over = shared.is_over = shared.is_over || is_enough;
        pthread_mutex_unlock(&shared.mutex);
        tree_reclaim(owner, oldest);
    }
    for (unsigned i = 0; i < READERS; i++) {
        void *wrong;

        pthread_join(threads[i], &wrong);
        assert_null(wrong);
    }
    tree_free(owner, &root, NULL);
    tree_owner_destroy(&owner);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(readers_walk_while_the_writer_commits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
