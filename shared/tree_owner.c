/* tree_owner.c - who may free a node, and when: the accounts of generations.
 *
 *   created   what the open generation made; freed by rollback, forgotten by commit
 *   dropped   nodes that the open generation made and needs no more; its next nodes are made of
 *             them. They are still among the created
 *   retired   one queue for all generations, oldest first; rollback takes its own off the end,
 *             reclaim takes the oldest off the front
 *   periods   where each generation's part of the queue ends
 *   spare     free nodes, so that a steady stream of small changes does not touch malloc
 *
 * Nothing here walks a tree, so each step costs what it creates or frees. */
#include "shared/tree_node.h"

/* What an account lists: a node (free_fn NULL) or a thing of the store's. */
struct item {
    void *thing;
    void (*free_fn)(void *thing);
};

#define PAGE_ITEMS 254 /* a page is 4 KiB less malloc's own word */

struct page {
    struct page *next, *prev;
    struct item items[PAGE_ITEMS];
};

/* A queue that can be cut at its end too; pages, so that it never moves what it holds. */
struct ledger {
    struct page *first, *last;
    unsigned begin; /* first item in the first page */
    unsigned end;   /* behind the last item in the last page */
};

struct period {
    uint64_t generation;
    uint64_t items_end; /* items and bytes ever retired, up to the end of this generation */
    uint64_t bytes_end;
};

/* Nodes kept for reuse, of each of the two sizes: 4 MiB, the paths of several hundred changes.
 * Sanitizers see a use after free only if nodes are really freed. */
#if defined(__SANITIZE_ADDRESS__)
#define SPARE_MAX 0u
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SPARE_MAX 0u
#endif
#endif
#ifndef SPARE_MAX
#define SPARE_MAX 4096u
#endif

#define PERIODS_MIN 64u /* a power of two */

struct tree_owner {
    uint64_t open;      /* the open generation, 0: none */
    uint64_t committed; /* the last one */

    struct ledger created;
    struct tree_node *dropped[2]; /* leaves, inner nodes */

    struct ledger retired;
    uint64_t items_retired, bytes_retired;     /* ever, the open generation's included */
    uint64_t items_reclaimed, bytes_reclaimed; /* ever; bytes by whole generations */

    struct period *periods; /* a ring of committed generations that retired something */
    uint32_t periods_size;  /* a power of two */
    uint32_t periods_first, periods_count;

    struct tree_node *spare[2];
    unsigned spare_count[2];
    size_t node_bytes;
};

/* ---- ledgers */

static void ledger_push(struct ledger *ledger, void *thing, void (*free_fn)(void *))
{
    if (!ledger->last || ledger->end == PAGE_ITEMS) {
        struct page *page = malloc(sizeof *page);

        if (!page)
            die("out of memory (%zu bytes)", sizeof *page);
        page->next = NULL;
        page->prev = ledger->last;
        if (ledger->last)
            ledger->last->next = page;
        else
            ledger->first = page;
        ledger->last = page;
        ledger->end = 0;
    }
    ledger->last->items[ledger->end++] = (struct item){thing, free_fn};
}

static bool ledger_is_empty(const struct ledger *ledger)
{
    return ledger->first == ledger->last && ledger->begin == ledger->end;
}

/* An empty ledger keeps its last page for the next generation. */
static struct item ledger_pop_last(struct ledger *ledger)
{
    struct item item;

    assert(!ledger_is_empty(ledger));
    item = ledger->last->items[--ledger->end];
    if (ledger->end == 0 && ledger->last != ledger->first) {
        struct page *page = ledger->last;

        ledger->last = page->prev;
        ledger->last->next = NULL;
        ledger->end = PAGE_ITEMS;
        free(page);
    } else if (ledger_is_empty(ledger)) {
        ledger->begin = ledger->end = 0;
    }
    return item;
}

static struct item ledger_pop_first(struct ledger *ledger)
{
    struct item item;

    assert(!ledger_is_empty(ledger));
    item = ledger->first->items[ledger->begin++];
    if (ledger->begin == PAGE_ITEMS && ledger->first != ledger->last) {
        struct page *page = ledger->first;

        ledger->first = page->next;
        ledger->first->prev = NULL;
        ledger->begin = 0;
        free(page);
    } else if (ledger_is_empty(ledger)) {
        ledger->begin = ledger->end = 0;
    }
    return item;
}

static void ledger_forget(struct ledger *ledger)
{
    while (ledger->last != ledger->first) {
        struct page *page = ledger->last;

        ledger->last = page->prev;
        free(page);
    }
    if (ledger->first)
        ledger->first->next = NULL;
    ledger->begin = ledger->end = 0;
}

/* ---- nodes */

static struct tree_node *pop_node(struct tree_node **list)
{
    struct tree_node *node = *list;

    if (node)
        *list = node->entries[0].child;
    return node;
}

static void push_node(struct tree_node **list, struct tree_node *node)
{
    node->entries[0].child = *list;
    *list = node;
}

struct tree_node *tree_node_new(struct tree_owner *owner, unsigned level)
{
    unsigned kind = level > 0;
    struct tree_node *node;

    assert(owner->open);
    node = pop_node(&owner->dropped[kind]);
    if (!node) {
        node = pop_node(&owner->spare[kind]);
        if (node) {
            owner->spare_count[kind]--;
        } else {
            node = malloc(tree_node_size(level));
            if (!node)
                die("out of memory (%zu bytes)", tree_node_size(level));
        }
        owner->node_bytes += tree_node_size(level);
        ledger_push(&owner->created, node, NULL);
    }
    node->generation = owner->open;
    node->count = 0;
    node->used = 0;
    node->level = (uint16_t) level;
    return node;
}

struct tree_node *tree_node_own(struct tree_owner *owner, struct tree_node *node)
{
    struct tree_node *copy;

    if (node->generation == owner->open)
        return node;
    copy = tree_node_new(owner, node->level);
    copy->count = node->count;
    copy->used = node->used;
    memcpy(copy->first, node->first, node->used * sizeof node->first[0]);
    memcpy(copy->entries, node->entries, node->used * sizeof node->entries[0]);
    if (node->level > 0)
        memcpy(copy->counts, node->counts, node->used * sizeof node->counts[0]);
    tree_node_drop(owner, node);
    return copy;
}

void tree_node_drop(struct tree_owner *owner, struct tree_node *node)
{
    if (node->generation == owner->open)
        push_node(&owner->dropped[node->level > 0], node);
    else
        tree_retire(owner, node, NULL, tree_node_size(node->level));
}

void tree_node_free(struct tree_owner *owner, struct tree_node *node)
{
    unsigned kind = node->level > 0;

    owner->node_bytes -= tree_node_size(node->level);
    if (owner->spare_count[kind] < SPARE_MAX) {
        owner->spare_count[kind]++;
        push_node(&owner->spare[kind], node);
    } else {
        free(node);
    }
}

static void free_item(struct tree_owner *owner, struct item item)
{
    if (item.free_fn)
        item.free_fn(item.thing);
    else
        tree_node_free(owner, item.thing);
}

/* ---- generations */

static struct period *period_at(const struct tree_owner *owner, uint32_t i)
{
    return &owner->periods[(owner->periods_first + i) & (owner->periods_size - 1)];
}

static void add_period(struct tree_owner *owner, struct period period)
{
    if (owner->periods_count == owner->periods_size) {
        uint32_t size = MAX(owner->periods_size * 2, PERIODS_MIN);
        struct period *periods = new0_array(struct period, size);

        for (uint32_t i = 0; i < owner->periods_count; i++)
            periods[i] = *period_at(owner, i);
        free(owner->periods);
        owner->periods = periods;
        owner->periods_size = size;
        owner->periods_first = 0;
    }
    owner->periods_count++;
    *period_at(owner, owner->periods_count - 1) = period;
}

static void remove_first_period(struct tree_owner *owner)
{
    owner->periods_first = (owner->periods_first + 1) & (owner->periods_size - 1);
    owner->periods_count--;
    if (owner->periods_count == 0 && owner->periods_size > PERIODS_MIN) {
        free(TAKE(owner->periods)); /* a long pin made it large */
        owner->periods_size = 0;
        owner->periods_first = 0;
    }
}

/* Items ever retired up to the last commit. */
static struct period last_period(const struct tree_owner *owner)
{
    if (owner->periods_count == 0)
        return (struct period){0, owner->items_reclaimed, owner->bytes_reclaimed};
    return *period_at(owner, owner->periods_count - 1);
}

struct tree_owner *tree_owner_new(void)
{
    return new0(struct tree_owner);
}

void tree_owner_destroy(struct tree_owner **owner_p)
{
    struct tree_owner *owner = TAKE(*owner_p);

    if (!owner)
        return;
    if (owner->open)
        tree_rollback(owner);
    tree_reclaim(owner, UINT64_MAX);
    assert(owner->node_bytes == 0); /* else a tree was not given back */
    for (unsigned kind = 0; kind < 2; kind++) {
        struct tree_node *node;

        while ((node = pop_node(&owner->spare[kind])))
            free(node);
    }
    free(owner->created.first);
    free(owner->retired.first);
    free(owner->periods);
    free(owner);
}

void tree_begin(struct tree_owner *owner, uint64_t generation)
{
    assert(!owner->open);
    assert(generation > owner->committed);
    owner->open = generation;
}

void tree_commit(struct tree_owner *owner)
{
    assert(owner->open);
    for (unsigned kind = 0; kind < 2; kind++) {
        struct tree_node *node;

        while ((node = pop_node(&owner->dropped[kind])))
            tree_node_free(owner, node);
    }
    ledger_forget(&owner->created);
    if (owner->items_retired > last_period(owner).items_end)
        add_period(owner, (struct period){owner->open, owner->items_retired, owner->bytes_retired});
    owner->committed = owner->open;
    owner->open = 0;
}

void tree_rollback(struct tree_owner *owner)
{
    struct period before = last_period(owner);

    assert(owner->open);
    for (; owner->items_retired > before.items_end; owner->items_retired--)
        ledger_pop_last(&owner->retired);
    owner->bytes_retired = before.bytes_end;

    owner->dropped[0] = owner->dropped[1] = NULL; /* freed below, with all that was created */
    while (!ledger_is_empty(&owner->created))
        free_item(owner, ledger_pop_last(&owner->created));
    owner->open = 0;
}

void tree_created(struct tree_owner *owner, void *thing, void (*free_fn)(void *thing))
{
    assert(owner->open && free_fn);
    ledger_push(&owner->created, thing, free_fn);
}

void tree_retire(struct tree_owner *owner, void *thing, void (*free_fn)(void *thing), size_t bytes)
{
    assert(owner->open);
    ledger_push(&owner->retired, thing, free_fn);
    owner->items_retired++;
    owner->bytes_retired += bytes;
}

bool tree_reclaim_some(struct tree_owner *owner, uint64_t oldest_pinned_generation,
                       size_t things_max)
{
    while (owner->periods_count > 0
           && period_at(owner, 0)->generation <= oldest_pinned_generation) {
        struct period period = *period_at(owner, 0);

        for (; owner->items_reclaimed < period.items_end; owner->items_reclaimed++) {
            if (things_max-- == 0)
                return true;
            free_item(owner, ledger_pop_first(&owner->retired));
        }
        owner->bytes_reclaimed = period.bytes_end;
        remove_first_period(owner);
    }
    return false;
}

void tree_reclaim(struct tree_owner *owner, uint64_t oldest_pinned_generation)
{
    tree_reclaim_some(owner, oldest_pinned_generation, SIZE_MAX);
}

size_t tree_retired_bytes(const struct tree_owner *owner, uint64_t since_generation)
{
    uint64_t before = owner->bytes_reclaimed;
    uint32_t low = 0, high = owner->periods_count;

    while (low < high) { /* the first period after since_generation */
        uint32_t middle = low + (high - low) / 2;

        if (period_at(owner, middle)->generation <= since_generation)
            low = middle + 1;
        else
            high = middle;
    }
    if (low > 0)
        before = period_at(owner, low - 1)->bytes_end;
    return owner->bytes_retired - before;
}

size_t tree_node_bytes(const struct tree_owner *owner)
{
    return owner->node_bytes;
}
