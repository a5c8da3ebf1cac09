/* changes.c - struct changes <-> bytes: what SQLite and Redis keep, and what is replayed at start
 *
 *   {"g": generation, "f": durable generation before it,
 *    "c": [[kind, "VM", ref, {"name_label": "vm1", ...}], ...]}
 *
 * Names rather than numbers, so that rows may be added, removed and moved between versions: what a
 * reader does not know it skips and counts, what it misses stays as it was, or initial. A row's
 * default may therefore change only together with an upgrade function of the journal.
 *
 * Only what is durable is written. Everything that is read was written by somebody else: another
 * version, a disk that lies, whoever may write to Redis. Nothing is taken before the last byte has
 * been read, so there is never half a record. */
#include "master/store.h"

#include <errno.h>

#include "shared/arena.h"
#include "shared/buffer.h"
#include "shared/pack.h"

/* On disk: never renumber. */
static const int kind_codes[] = {[CHANGE_CREATE] = 1, [CHANGE_MODIFY] = 2, [CHANGE_DELETE] = 3};

/* ---- writing ---- */

static bool is_durable_field(const struct change *change, int i)
{
    return !(change->class->fields[change->fields[i]].flags & FIELD_VOLATILE);
}

static uint32_t count_durable_fields(const struct change *change)
{
    uint32_t count = 0;

    for (int i = 0; i < change->field_count; i++)
        count += is_durable_field(change, i);
    return count;
}

static bool is_durable(const struct change *change)
{
    if (!(change->class->flags & CLASS_PERSIST) || change->kind == CHANGE_TOUCH)
        return false;
    return change->kind != CHANGE_MODIFY || count_durable_fields(change) > 0;
}

void change_fields_encode(const struct change *change, struct buffer *out)
{
    pack_map(out, count_durable_fields(change));
    for (int i = 0; i < change->field_count; i++) {
        if (!is_durable_field(change, i))
            continue;
        pack_text(out, change->class->fields[change->fields[i]].name);
        pack_value(out, &change->values[i]);
    }
}

void changes_encode(const struct changes *changes, struct buffer *out)
{
    uint32_t count = 0;

    for (int i = 0; i < changes->count; i++)
        count += is_durable(&changes->list[i]);
    pack_map(out, 3);
    pack_text(out, "g");
    pack_int(out, (int64_t) changes->generation);
    pack_text(out, "f");
    pack_int(out, (int64_t) changes->follows);
    pack_text(out, "c");
    pack_array(out, count);
    for (int i = 0; i < changes->count; i++) {
        const struct change *change = &changes->list[i];

        if (!is_durable(change))
            continue;
        pack_array(out, 4);
        pack_int(out, kind_codes[change->kind]);
        pack_text(out, change->class->name);
        pack_ref(out, change->ref);
        change_fields_encode(change, out);
    }
}

/* ---- reading ---- */

static const struct type text_type = {.kind = KIND_STRING};
static const struct type int_type = {.kind = KIND_INT};
static const struct type ref_type = {.kind = KIND_REF};

static int read_text(struct unpack *unpack, const char **ret)
{
    struct value value;

    if (unpack_next(unpack, &text_type, &value) < 0)
        return -EBADMSG;
    *ret = value.text;
    return 0;
}

static int read_int(struct unpack *unpack, int64_t *ret)
{
    struct value value;

    if (unpack_next(unpack, &int_type, &value) < 0)
        return -EBADMSG;
    *ret = value.i;
    return 0;
}

static int read_ref(struct unpack *unpack, ref_t *ret)
{
    struct value value;

    if (unpack_next(unpack, &ref_type, &value) < 0 || ref_is_null(value.ref))
        return -EBADMSG;
    *ret = value.ref;
    return 0;
}

/* The field of a name. Records name their fields mostly in the order of the rows, so the search
 * starts behind the last one found. */
static const struct field *field_of(const struct class *class, const char *name, int last)
{
    for (int i = 1; i <= class->field_count; i++) {
        const struct field *field = &class->fields[(last + i) % class->field_count];

        if (streq(field->name, name))
            return field->flags & (FIELD_INVERSE | FIELD_VOLATILE) ? NULL : field;
    }
    return NULL;
}

/* Fields by name, those of `class`; NULL: all are skipped. */
static int read_fields(struct unpack *unpack, const struct class *class, struct change *change,
                       int *skipped)
{
    uint32_t pairs;
    struct value *values;
    int *numbers, last = -1;

    if (unpack_map(unpack, &pairs) < 0
        || !arena_room(unpack->arena, pairs * (sizeof *values + sizeof *numbers)))
        return -EBADMSG;
    numbers = arena_alloc_array(unpack->arena, pairs, sizeof *numbers);
    values = arena_alloc_array(unpack->arena, pairs, sizeof *values);
    change->field_count = 0;
    change->fields = numbers;
    change->values = values;
    for (uint32_t i = 0; i < pairs; i++) {
        const struct field *field;
        const char *name;

        if (read_text(unpack, &name) < 0)
            return -EBADMSG;
        field = class ? field_of(class, name, last) : NULL;
        if (unpack_next(unpack, field ? field->type : NULL, &values[change->field_count]) < 0)
            return -EBADMSG;
        if (field)
            numbers[change->field_count++] = last = field->number;
        else
            ++*skipped;
    }
    return 0;
}

static int read_kind(struct unpack *unpack, enum change_kind *ret)
{
    int64_t code;

    if (read_int(unpack, &code) < 0)
        return -EBADMSG;
    for (size_t i = 0; i < ARRAY_SIZE(kind_codes); i++)
        if (kind_codes[i] == code && code != 0) {
            *ret = (enum change_kind) i;
            return 0;
        }
    return -EBADMSG;
}

/* Whether the change is one that we know is in change->class. */
static int read_change(struct unpack *unpack, struct change *change, int *skipped)
{
    const char *class_name;
    uint32_t items;

    if (unpack_array(unpack, &items) < 0 || items != 4 || read_kind(unpack, &change->kind) < 0
        || read_text(unpack, &class_name) < 0 || read_ref(unpack, &change->ref) < 0)
        return -EBADMSG;
    change->class = model_class(class_name);
    if (change->class
        && (change->class->flags & (CLASS_PERSIST | CLASS_IN_DATABASE))
               != (CLASS_PERSIST | CLASS_IN_DATABASE))
        change->class = NULL;
    if (!change->class)
        ++*skipped;
    return read_fields(unpack, change->class, change, skipped);
}

static int read_list(struct unpack *unpack, struct changes *changes)
{
    struct change *list;
    uint32_t items;

    if (changes->list || unpack_array(unpack, &items) < 0
        || !arena_room(unpack->arena, items * sizeof *list))
        return -EBADMSG;
    changes->list = list = arena_alloc_array(unpack->arena, items, sizeof *list);
    for (uint32_t i = 0; i < items; i++) {
        struct change *change = &list[changes->count];

        if (read_change(unpack, change, &changes->skipped) < 0)
            return -EBADMSG;
        if (!change->class)
            continue;
        changes->class_mask[change->class->number / 64] |= 1ull << change->class->number % 64;
        changes->count++;
    }
    return 0;
}

static int read_generation(struct unpack *unpack, uint64_t *ret)
{
    int64_t number;

    if (read_int(unpack, &number) < 0 || number < 0)
        return -EBADMSG;
    *ret = (uint64_t) number;
    return 0;
}

static int read_changes(struct unpack *unpack, struct changes *changes)
{
    uint32_t pairs;

    if (unpack_map(unpack, &pairs) < 0)
        return -EBADMSG;
    for (uint32_t i = 0; i < pairs; i++) {
        const char *name;
        struct value unknown;
        int r;

        if (read_text(unpack, &name) < 0)
            return -EBADMSG;
        if (streq(name, "g"))
            r = read_generation(unpack, &changes->generation);
        else if (streq(name, "f"))
            r = read_generation(unpack, &changes->follows);
        else if (streq(name, "c"))
            r = read_list(unpack, changes);
        else
            r = unpack_next(unpack, NULL, &unknown);
        if (r < 0)
            return -EBADMSG;
    }
    if (unpack->at != unpack->end || changes->generation <= changes->follows || !changes->list)
        return -EBADMSG;
    return 0;
}

int changes_decode(const void *bytes, size_t count, struct arena *arena, struct changes *ret)
{
    struct changes changes = {.is_durable = true};
    struct unpack unpack;

    unpack_init(&unpack, bytes, count, arena);
    if (read_changes(&unpack, &changes) < 0)
        return -EBADMSG;
    *ret = changes;
    return 0;
}

int change_fields_decode(const struct class *class, const void *bytes, size_t count,
                         struct arena *arena, struct value *ret_fields)
{
    struct change change;
    struct unpack unpack;
    int skipped = 0;

    unpack_init(&unpack, bytes, count, arena);
    if (read_fields(&unpack, class, &change, &skipped) < 0 || unpack.at != unpack.end)
        return -EBADMSG;
    memset(ret_fields, 0, (size_t) class->field_count * sizeof *ret_fields);
    for (int i = 0; i < change.field_count; i++)
        ret_fields[change.fields[i]] = change.values[i];
    return 0;
}
