/* subscription.c - what a reader of events wants, and what of it has happened since a generation
 *
 * The store lists each class's changes and deletions by generation. Here those lists are merged:
 * with few classes, which is the rule, by looking at the next of each. */
#include "master/subscription.h"

#include "shared/arena.h"

const char *const happening_names[] = {
    [HAPPENED_ADD] = "add", [HAPPENED_MOD] = "mod", [HAPPENED_DEL] = "del"};

/* ---- wants ---- */

static bool tells_events(const struct class *class)
{
    return class->flags & CLASS_EVENTS && !(class->flags & CLASS_INTERNAL);
}

static bool add_element(const char *text, size_t length, struct subscription *ret,
                        struct wanted_object *objects)
{
    const char *slash = memchr(text, '/', length);
    const struct class *class;
    ref_t ref;

    if (length == 1 && *text == '*') {
        for (int i = 0; i < CLASS_COUNT; i++)
            if (tells_events(&model_classes[i]))
                class_add(ret->classes, &model_classes[i]);
        return true;
    }
    class = model_class_any_case(text, slash ? (size_t) (slash - text) : length);
    if (!class || class->flags & CLASS_INTERNAL)
        return false;
    if (!slash) {
        if (tells_events(class))
            class_add(ret->classes, class);
        return true;
    }
    slash++;
    if (slash == text + length)
        return false;
    /* Any text may follow: one that is no reference of ours names no object, so nothing is told of
     * it. */
    if (ref_parse(slash, length - (size_t) (slash - text), &ref) && tells_events(class)
        && !ref_is_null(ref))
        objects[ret->object_count++] = (struct wanted_object){class, ref};
    return true;
}

static int by_object(const void *a, const void *b)
{
    const struct wanted_object *x = a, *y = b;

    return x->class != y->class ? x->class->number - y->class->number : ref_compare(x->ref, y->ref);
}

int subscription_parse(const struct value *elements, struct arena *arena, struct subscription *ret,
                       struct failure *failure)
{
    struct wanted_object *objects;
    unsigned kept = 0;

    *ret = (struct subscription){0};
    if (elements->length > SUBSCRIPTION_OBJECTS_MAX)
        return failure_set(failure, arena, EVENT_SUBSCRIPTION_PARSE_FAILURE, "too many elements");
    objects = arena_alloc_array(arena, elements->length, sizeof *objects);
    for (uint32_t i = 0; i < elements->length; i++) {
        const struct value *element = &elements->items[i];

        if (!add_element(element->text, element->length, ret, objects))
            return failure_set(failure, arena, EVENT_SUBSCRIPTION_PARSE_FAILURE, element->text);
    }
    qsort(objects, ret->object_count, sizeof *objects, by_object);
    for (unsigned i = 0; i < ret->object_count; i++)
        if (!class_in(ret->classes, objects[i].class)
            && (kept == 0 || by_object(&objects[i], &objects[kept - 1])))
            objects[kept++] = objects[i];
    ret->object_count = kept;
    ret->objects = objects;
    return 0;
}

bool subscription_missed(const struct subscription *subscription, const struct view *view,
                         uint64_t after)
{
    for (int i = 0; i < CLASS_COUNT; i++)
        if (class_in(subscription->classes, &model_classes[i])
            && view_deletions_known_since(view, &model_classes[i]) > after)
            return true;
    for (unsigned i = 0; i < subscription->object_count; i++)
        if (view_deletions_known_since(view, subscription->objects[i].class) > after)
            return true;
    return false;
}

/* ---- what has happened ---- */

/* One list that is merged, with its next item. */
struct source {
    const struct class *class;
    bool is_deletions;
    bool is_only; /* one object is wanted */
    ref_t only;
    bool is_done;
    struct view_iter iter;
    const struct object *object;
    struct deleted deleted;
    uint64_t generation;
};

static void advance_changes(struct source *source, const struct view *view, uint64_t after)
{
    if (!source->is_only) {
        source->object = view_next(&source->iter);
    } else {
        source->object = source->is_done ? NULL : view_object(view, source->class, source->only);
        if (source->object && source->object->modified <= after)
            source->object = NULL;
        source->is_done = true;
    }
    source->generation = source->object ? source->object->modified : UINT64_MAX;
}

/* Objects that came and went after the reader's generation are none of its business. */
static void advance_deletions(struct source *source, uint64_t after)
{
    source->generation = UINT64_MAX;
    while (view_next_deleted(&source->iter, &source->deleted)) {
        if (source->deleted.created > after
            || (source->is_only && !ref_equal(source->deleted.ref, source->only)))
            continue;
        source->generation = source->deleted.deleted;
        return;
    }
}

static void advance(struct happenings *h, struct source *source)
{
    if (source->is_deletions)
        advance_deletions(source, h->after);
    else
        advance_changes(source, h->view, h->after);
}

static void add_sources(struct happenings *h, const struct class *class, const ref_t *only)
{
    for (int deletions = 0; deletions <= (h->after > 0); deletions++) {
        struct source *source = &h->sources[h->count];

        *source = (struct source){.class = class, .is_deletions = deletions, .is_only = only};
        if (only)
            source->only = *only;
        if (deletions)
            view_each_deleted(&source->iter, h->view, class, h->after);
        else if (!only)
            view_each_changed(&source->iter, h->view, class, h->after);
        advance(h, source);
        if (source->generation != UINT64_MAX)
            h->count++;
    }
}

void happenings_begin(struct happenings *h, struct arena *arena, const struct view *view,
                      const struct subscription *subscription, uint64_t after,
                      const uint64_t among[2])
{
    size_t most = 2 * subscription->object_count;

    *h = (struct happenings){.view = view, .after = after};
    for (int i = 0; i < 2; i++)
        most += 2
                * (size_t) __builtin_popcountll(subscription->classes[i]
                                                & (among ? among[i] : UINT64_MAX));
    h->sources = arena_alloc_array(arena, most, sizeof *h->sources);
    for (int i = 0; i < CLASS_COUNT; i++) {
        const struct class *class = &model_classes[i];

        if (class_in(subscription->classes, class) && (!among || class_in(among, class)))
            add_sources(h, class, NULL);
    }
    for (unsigned i = 0; i < subscription->object_count; i++) {
        const struct wanted_object *object = &subscription->objects[i];

        if (!among || class_in(among, object->class))
            add_sources(h, object->class, &object->ref);
    }
}

bool happenings_next(struct happenings *h, struct happened *ret)
{
    struct source *next = NULL;

    for (unsigned i = 0; i < h->count; i++)
        if (!next || h->sources[i].generation < next->generation)
            next = &h->sources[i];
    if (!next)
        return false;
    *ret = (struct happened){
        .class = next->class,
        .generation = next->generation,
    };
    if (next->is_deletions) {
        ret->what = HAPPENED_DEL;
        ret->ref = next->deleted.ref;
    } else {
        ret->what = next->object->created > h->after ? HAPPENED_ADD : HAPPENED_MOD;
        ret->ref = next->object->ref;
        ret->object = next->object;
    }
    advance(h, next);
    if (next->generation == UINT64_MAX)
        *next = h->sources[--h->count];
    return true;
}
