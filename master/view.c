/* view.c - reading: the objects of one generation, by reference, uuid, name, relation and change
 *
 * A pinned view never changes, and any thread may read it. The views of a transaction and of the
 * core's newest state move on with each change; their count of changes tells an iterator that its
 * place in the tree is stale, and it then looks for the key behind the one it gave last. */
#include "master/versions.h"

/* What an iterator walks; indexes other than the table by ref give keys, whose object is then
 * looked up. */
enum {
    WALK_OBJECTS,
    WALK_NAMES,
    WALK_RELATION,
    WALK_CHANGED,
    WALK_DELETED,
    WALK_ENDED,
};

uint64_t view_generation(const struct view *view)
{
    return view->root->generation;
}

static const struct object *object_find(const struct view *view, const struct class *class,
                                        uint64_t hi, uint64_t lo)
{
    struct tree_key key = {{hi, lo, 0, 0}};
    void *object;

    return tree_get(view_class(view, class)->objects, &key, &object) ? object : NULL;
}

const struct object *view_object(const struct view *view, const struct class *class, ref_t ref)
{
    return object_find(view, class, ref.hi, ref.lo);
}

const struct object *view_by_uuid(const struct view *view, const struct class *class,
                                  const char *uuid)
{
    struct tree_iter it;
    struct tree_key key;
    ref_t id;

    if (!uuid_parse(uuid, strlen(uuid), &id))
        return NULL;
    key = key_of_ref(id);
    tree_iter_prefix(&it, view_class(view, class)->uuids, &key);
    return tree_iter_next(&it, &key, NULL) ? object_find(view, class, key.w[2], key.w[3]) : NULL;
}

size_t view_count(const struct view *view, const struct class *class)
{
    return tree_count(view_class(view, class)->objects);
}

/* ---- iterating ---- */

static const struct tree_node *walked_tree(const struct view_iter *it)
{
    const struct class_root *root = view_class(it->view, it->class);

    switch (it->what) {
    case WALK_OBJECTS:
        return root->objects;
    case WALK_NAMES:
        return root->names;
    case WALK_RELATION:
        return root->relations[it->slot];
    case WALK_CHANGED:
        return root->changed;
    case WALK_DELETED:
        return root->deleted;
    default:
        return NULL;
    }
}

static void seek(struct view_iter *it)
{
    it->changes = it->view->changes;
    if (it->is_after)
        tree_iter_seek_after(&it->tree, walked_tree(it), &it->from);
    else
        tree_iter_seek(&it->tree, walked_tree(it), &it->from);
    if (it->has_prefix)
        tree_iter_limit(&it->tree, &it->from);
}

static void start(struct view_iter *it, const struct view *view, const struct class *class,
                  int what, int slot, struct tree_key from, bool has_prefix)
{
    it->view = view;
    it->class = class;
    it->what = what;
    it->slot = slot;
    it->from = from;
    it->is_after = false;
    it->has_prefix = has_prefix;
    it->name = NULL;
    seek(it);
}

static bool step(struct view_iter *it, struct tree_key *ret_key, void **ret_value)
{
    if (it->what == WALK_ENDED)
        return false;
    if (it->changes != it->view->changes)
        seek(it);
    if (!tree_iter_next(&it->tree, ret_key, ret_value)) {
        it->what = WALK_ENDED;
        return false;
    }
    it->from = *ret_key;
    it->is_after = true;
    return true;
}

void view_each(struct view_iter *it, const struct view *view, const struct class *class)
{
    start(it, view, class, WALK_OBJECTS, 0, (struct tree_key){{0}}, false);
}

void view_each_after(struct view_iter *it, const struct view *view, const struct class *class,
                     ref_t after)
{
    start(it, view, class, WALK_OBJECTS, 0, key_of_ref(after), false);
    it->is_after = true;
    seek(it);
}

void view_each_name(struct view_iter *it, const struct view *view, const struct class *class,
                    const char *name_label)
{
    struct value name = value_text(name_label);
    struct tree_key key = key_of_name(&name, NULL_REF);

    start(it, view, class, WALK_NAMES, 0, key, true);
    it->name = name_label;
}

static int relation_slot(const struct view *view, const struct field *inverse)
{
    assert(inverse->flags & FIELD_INVERSE);
    return view->store->shapes[inverse->inverse_class->number].slot[inverse->inverse_field];
}

void view_each_inverse(struct view_iter *it, const struct view *view, const struct field *inverse,
                       ref_t of)
{
    start(it, view, inverse->inverse_class, WALK_RELATION, relation_slot(view, inverse),
          key_of_ref(of), true);
}

const struct object *view_next(struct view_iter *it)
{
    struct tree_key key;
    void *object;

    while (step(it, &key, &object)) {
        const struct value *name;

        if (it->what == WALK_OBJECTS || it->what == WALK_CHANGED)
            return object;
        object = (void *) (uintptr_t) object_find(it->view, it->class, key.w[2], key.w[3]);
        assert(object); /* the indexes hold what the table holds */
        if (it->what != WALK_NAMES)
            return object;
        name = &((const struct object *) object)->fields[it->class->name_label];
        if (streq(name->text, it->name)) /* else another name with the same hash */
            return object;
    }
    return NULL;
}

void view_each_changed(struct view_iter *it, const struct view *view, const struct class *class,
                       uint64_t after_generation)
{
    start(it, view, class, WALK_CHANGED, 0, (struct tree_key){{after_generation + 1}}, false);
}

void view_each_deleted(struct view_iter *it, const struct view *view, const struct class *class,
                       uint64_t after_generation)
{
    start(it, view, class, WALK_DELETED, 0, (struct tree_key){{after_generation + 1}}, false);
}

bool view_next_deleted(struct view_iter *it, struct deleted *ret)
{
    struct tree_key key;

    assert(it->what == WALK_DELETED || it->what == WALK_ENDED);
    if (!step(it, &key, NULL))
        return false;
    *ret = (struct deleted){.ref = {key.w[1], key.w[2]}, .created = key.w[3], .deleted = key.w[0]};
    return true;
}

uint64_t view_deletions_known_since(const struct view *view, const struct class *class)
{
    return view_class(view, class)->known_since;
}

/* ---- inverse sets ---- */

size_t view_count_inverse(const struct view *view, const struct field *inverse, ref_t of)
{
    struct tree_key prefix = key_of_ref(of);

    return tree_count_range(
        view_class(view, inverse->inverse_class)->relations[relation_slot(view, inverse)], &prefix);
}

struct value view_inverse(const struct view *view, const struct field *inverse, ref_t of,
                          struct arena *arena)
{
    const struct tree_node *relation =
        view_class(view, inverse->inverse_class)->relations[relation_slot(view, inverse)];
    struct tree_key key = key_of_ref(of);
    size_t count = tree_count_range(relation, &key);
    struct tree_iter it;
    struct value *items;
    uint32_t n = 0;

    if (count == 0)
        return VALUE_EMPTY_SET;
    items = arena_alloc_array(arena, count, sizeof *items);
    tree_iter_prefix(&it, relation, &key);
    while (tree_iter_next(&it, &key, NULL))
        items[n++] = VALUE_REF(((ref_t){key.w[2], key.w[3]}));
    assert(n == count);
    return VALUE_SET(n, items);
}

struct value view_field(const struct view *view, const struct object *object,
                        const struct field *field, struct arena *arena)
{
    assert(object->class == field->class);
    return field->flags & FIELD_INVERSE ? view_inverse(view, field, object->ref, arena)
                                        : object->fields[field->number];
}
