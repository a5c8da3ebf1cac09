/* mirror_write.c - how generations become redo entries and records in Redis */
#include "master/mirror_internal.h"

#include "shared/arena.h"
#include "shared/buffer.h"
#include "shared/log.h"
#include "shared/random.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#define RECORDS_A_CALL 1000 /* what one script call may carry; it blocks Redis meanwhile */

/* ---- encoding ---- */

/* The change as Redis may see it: texts of SECRET fields sealed, or left out without a key. */
static struct change sealed(const struct mirror *mirror, const struct change *change,
                            struct arena *arena)
{
    struct change copy = *change;
    int *fields;
    struct value *values;
    int n = 0;
    bool has_secret = false;

    for (int i = 0; i < change->field_count; i++)
        has_secret |= change->class->fields[change->fields[i]].flags & FIELD_SECRET;
    if (!has_secret)
        return copy;
    fields = arena_alloc(arena, (size_t) change->field_count * sizeof *fields);
    values = arena_alloc(arena, (size_t) change->field_count * sizeof *values);
    for (int i = 0; i < change->field_count; i++) {
        const struct field *field = &change->class->fields[change->fields[i]];

        fields[n] = change->fields[i];
        values[n] = change->values[i];
        if (field->flags & FIELD_SECRET) {
            const char *text = mirror->config.secret_key
                                   ? secret_seal(mirror->secret_key, change->ref, field->name,
                                                 change->values[i].text, arena)
                                   : NULL;

            if (!text)
                continue;
            values[n] = value_text(text);
        }
        n++;
    }
    copy.fields = fields;
    copy.values = values;
    copy.field_count = n;
    return copy;
}

void mirror_encode(const struct mirror *mirror, const struct changes *changes, struct arena *arena,
                   struct buffer *out)
{
    struct changes copy = *changes;
    struct change *list = arena_alloc(arena, (size_t) changes->count * sizeof *list);

    for (int i = 0; i < changes->count; i++)
        list[i] = sealed(mirror, &changes->list[i], arena);
    copy.list = list;
    changes_encode(&copy, out);
}

/* A record is the change that would create it. */
static void encode_record(const struct mirror *mirror, const struct object *object,
                          struct arena *arena, struct buffer *out)
{
    int count = object->class->field_count;
    int *fields = arena_alloc(arena, (size_t) count * sizeof *fields);
    struct value *values = arena_alloc(arena, (size_t) count * sizeof *values);
    struct change change = {.kind = CHANGE_CREATE, .class = object->class, .ref = object->ref};
    struct changes changes = {
        .generation = object->created, .is_durable = true, .count = 1, .list = &change};

    for (int i = 0; i < count; i++) {
        const struct field *field = &object->class->fields[i];

        if (field->flags & (FIELD_INVERSE | FIELD_VOLATILE)
            || value_equal(&object->fields[i], &field->initial))
            continue;
        fields[change.field_count] = i;
        values[change.field_count++] = object->fields[i];
    }
    change.fields = fields;
    change.values = values;
    mirror_encode(mirror, &changes, arena, out);
}

/* ---- script calls ---- */

int mirror_verb(struct mirror *mirror, const char *name, const struct mirror_args *args,
                struct mirror_answer *ret)
{
    int r = mirror_redis_call(mirror->redis, name, mirror->epoch, mirror->holder, args, ret,
                              mirror->text, sizeof mirror->text);

    if (r < 0)
        return r;
    if (ret->word == MIRROR_OTHER_EPOCH) {
        snprintf(mirror->text, sizeof mirror->text,
                 "Redis has epoch %" PRIu64 ", ours is %" PRIu64 ": another master has taken over",
                 ret->head.epoch, mirror->epoch);
        return -ESTALE;
    }
    return 0;
}

/* class, ref and record of an object, as three arguments; a record that the view does not have is a
 * deletion. */
struct record {
    struct touched touched;
    char uuid[UUID_TEXT_BYTES];
    char *bytes;
    size_t length;
};

static void record_make(struct mirror *mirror, struct record *record, const struct view *view,
                        struct touched touched)
{
    const struct object *object = view_object(view, touched.class, touched.ref);
    struct buffer bytes;

    record->touched = touched;
    uuid_print(record->uuid, touched.ref);
    record->bytes = NULL;
    record->length = 0;
    if (object) {
        _cleanup_(arena_destroy) struct arena *arena = arena_new();

        buffer_init(&bytes, RECORD_BYTES_MAX);
        encode_record(mirror, object, arena, &bytes);
        record->bytes = buffer_take(&bytes, &record->length);
        buffer_done(&bytes);
    }
}

static void records_add(struct mirror_args *args, const struct record *records, int count)
{
    for (int i = 0; i < count; i++) {
        mirror_args_text(args, records[i].touched.class->name);
        mirror_args_text(args, records[i].uuid);
        mirror_args_add(args, records[i].bytes ? records[i].bytes : "", records[i].length);
    }
}

static void records_free(struct record *records, int count)
{
    for (int i = 0; i < count; i++)
        free(records[i].bytes);
    free(records);
}

static int by_object(const void *a, const void *b)
{
    const struct touched *left = a, *right = b;

    if (left->class->number != right->class->number)
        return left->class->number < right->class->number ? -1 : 1;
    return ref_compare(left->ref, right->ref);
}

/* The objects that entries touch, each once. */
static struct touched *touched_of(const struct entry *first, int *ret_count)
{
    struct touched *all;
    int count = 0, distinct = 0;

    for (const struct entry *entry = first; entry; entry = entry->next)
        count += entry->touched_count;
    all = new0_array(struct touched, count);
    count = 0;
    for (const struct entry *entry = first; entry; entry = entry->next)
        for (int i = 0; i < entry->touched_count; i++)
            all[count++] = entry->touched[i];
    qsort(all, (size_t) count, sizeof *all, by_object);
    for (int i = 0; i < count; i++)
        if (distinct == 0 || by_object(&all[distinct - 1], &all[i]) != 0)
            all[distinct++] = all[i];
    *ret_count = distinct;
    return all;
}

/* Records beyond what one call may carry go ahead of it, staged; they become current with the
 * write. */
static int stage(struct mirror *mirror, const struct record *records, int count)
{
    for (int done = 0; done < count; done += RECORDS_A_CALL) {
        _cleanup_(mirror_args_done) struct mirror_args args = {0};
        int part = MIN(RECORDS_A_CALL, count - done);
        struct mirror_answer answer;
        int r;

        mirror_args_text(&args, done == 0 ? "1" : "0");
        mirror_args_number(&args, (uint64_t) part);
        records_add(&args, records + done, part);
        r = mirror_verb(mirror, "stage", &args, &answer);
        if (r < 0)
            return r;
        if (answer.word != MIRROR_OK) {
            mirror->must_write_anew = true;
            return 0;
        }
    }
    return 0;
}

/* Append the entries, which all are in the view, and put the records they touch. */
int mirror_write_entries(struct mirror *mirror, const struct entry *first, const struct view *view)
{
    _cleanup_(mirror_args_done) struct mirror_args args = {0};
    _cleanup_(free_p) char(*generations)[24] = NULL;
    _cleanup_(free_p) struct touched *touched = NULL;
    struct mirror_answer answer;
    struct record *records;
    int count, staged, entries = 0, r;

    touched = touched_of(first, &count);
    records = new0_array(struct record, count);
    for (int i = 0; i < count; i++)
        record_make(mirror, &records[i], view, touched[i]);
    staged = count > RECORDS_A_CALL ? count - RECORDS_A_CALL : 0;
    r = staged ? stage(mirror, records, staged) : 0;
    if (r < 0 || mirror->must_write_anew) {
        records_free(records, count);
        return r;
    }

    for (const struct entry *entry = first; entry; entry = entry->next)
        entries++;
    generations = alloc_array((size_t) entries, sizeof *generations);
    mirror_args_number(&args, first->follows);
    mirror_args_number(&args, (uint64_t) mirror->config.log_entries);
    mirror_args_number(&args, (uint64_t) entries);
    entries = 0;
    for (const struct entry *entry = first; entry; entry = entry->next) {
        snprintf(generations[entries], sizeof generations[0], "%" PRIu64, entry->generation);
        mirror_args_text(&args, generations[entries++]);
        mirror_args_add(&args, entry->bytes, entry->length);
    }
    mirror_args_number(&args, (uint64_t) (count - staged));
    records_add(&args, records + staged, count - staged);
    r = mirror_verb(mirror, "write", &args, &answer);
    records_free(records, count);
    if (r < 0)
        return r;
    if (answer.word != MIRROR_OK)
        mirror->must_write_anew = true;
    mirror_has_generation(mirror, answer.head.generation);
    return 0;
}

static int fill(struct mirror *mirror, const char *incarnation, struct record *records, int count)
{
    _cleanup_(mirror_args_done) struct mirror_args args = {0};
    struct mirror_answer answer;
    int r;

    mirror_args_text(&args, incarnation);
    mirror_args_number(&args, (uint64_t) count);
    records_add(&args, records, count);
    r = mirror_verb(mirror, "fill", &args, &answer);
    for (int i = 0; i < count; i++)
        free(records[i].bytes);
    if (r == 0 && answer.word != MIRROR_OK) {
        snprintf(mirror->text, sizeof mirror->text,
                 "Redis was emptied while the model was written");
        return -EIO;
    }
    return r;
}

int mirror_write_model(struct mirror *mirror, const struct view *view, uint64_t generation)
{
    _cleanup_(mirror_args_done) struct mirror_args args = {0};
    _cleanup_(free_p) struct record *records = new0_array(struct record, RECORDS_A_CALL);
    char incarnation[UUID_TEXT_BYTES];
    struct mirror_answer answer;
    int r;

    uuid_print(incarnation, ref_new(random_real()));
    log_info("mirror", "writing the whole model to Redis, incarnation %s", incarnation);
    r = mirror_verb(mirror, "claim", NULL, &answer);
    for (int i = 0; r == 0 && i < CLASS_COUNT; i++) {
        const struct object *object;
        struct view_iter objects;
        int count = 0;

        if (!(model_classes[i].flags & CLASS_PERSIST))
            continue;
        view_each(&objects, view, &model_classes[i]);
        while (r == 0 && (object = view_next(&objects))) {
            record_make(mirror, &records[count++], view,
                        (struct touched){object->class, object->ref});
            if (count == RECORDS_A_CALL) {
                r = fill(mirror, incarnation, records, count);
                count = 0;
            }
        }
        if (r == 0 && count > 0)
            r = fill(mirror, incarnation, records, count);
    }
    if (r < 0)
        return r;
    mirror_args_text(&args, incarnation);
    mirror_args_number(&args, generation);
    for (int i = 0; i < CLASS_COUNT; i++)
        if (model_classes[i].flags & CLASS_PERSIST)
            mirror_args_text(&args, model_classes[i].name);
    r = mirror_verb(mirror, "turn", &args, &answer);
    if (r < 0 || answer.word != MIRROR_OK)
        return r < 0 ? r : -EIO;
    return 0;
}
