/* mirror_load.c - starting from Redis, when SQLite is empty */
#include "master/mirror_internal.h"

#include "shared/arena.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

int mirror_peek(const struct mirror_config *config, struct mirror_head *ret, char *text,
                size_t text_bytes)
{
    _cleanup_(mirror_redis_close) struct mirror_redis *redis =
        mirror_redis_open(config, text, text_bytes);

    return redis ? mirror_redis_head(redis, ret, text, text_bytes) : -EIO;
}

struct loading {
    const struct mirror_config *config;
    struct store *store;
    const struct class *class;
    size_t objects;
    char *text;
    size_t text_bytes;
};

/* One record: foreign bytes until the decoder and the store have accepted them. */
static int load_record(void *arg, const char *bytes, size_t length)
{
    struct loading *loading = arg;
    _cleanup_(arena_destroy) struct arena *arena = arena_new();
    const struct class *class = loading->class;
    struct changes changes;
    const struct change *change;
    struct value *fields;

    if (changes_decode(bytes, length, arena, &changes) < 0 || changes.count != 1
        || changes.list[0].kind != CHANGE_CREATE || changes.list[0].class != class) {
        snprintf(loading->text, loading->text_bytes, "Redis holds a %s record that cannot be read",
                 class->name);
        return -EBADMSG;
    }
    change = &changes.list[0];
    fields = arena_alloc(arena, (size_t) class->field_count
                                    * sizeof *fields); /* all void: initial values */
    for (int i = 0; i < change->field_count; i++) {
        const struct field *field = &class->fields[change->fields[i]];

        fields[field->number] = change->values[i];
        if (field->flags & FIELD_SECRET) {
            const char *text = loading->config->secret_key
                                   ? secret_open(loading->config->secret_key, change->ref,
                                                 field->name, change->values[i].text, arena)
                                   : NULL;

            if (!text) {
                snprintf(loading->text, loading->text_bytes,
                         "%s.%s in Redis was sealed with another key", class->name, field->name);
                return -EBADMSG;
            }
            fields[field->number] = value_text(text);
        }
    }
    if (store_load_object(loading->store, class, change->ref, fields, changes.generation,
                          changes.generation)
        < 0) {
        snprintf(loading->text, loading->text_bytes, "Redis holds a %s record twice", class->name);
        return -EBADMSG;
    }
    loading->objects++;
    return 0;
}

int mirror_load(const struct mirror_config *config, uint64_t epoch, ref_t holder,
                struct store *store, size_t *ret_objects, char *text, size_t text_bytes)
{
    _cleanup_(mirror_redis_close) struct mirror_redis *redis =
        mirror_redis_open(config, text, text_bytes);
    struct loading loading = {
        .config = config, .store = store, .text = text, .text_bytes = text_bytes};
    struct mirror_answer answer;
    int r;

    if (!redis)
        return -EIO;
    r = mirror_redis_call(redis, "claim", epoch, holder, NULL, &answer, text, text_bytes);
    if (r < 0)
        return r;
    if (answer.word != MIRROR_OK) {
        snprintf(text, text_bytes, "Redis has epoch %" PRIu64 ", higher than %" PRIu64,
                 answer.head.epoch, epoch);
        return -ESTALE;
    }
    for (int i = 0; i < CLASS_COUNT; i++) {
        if (!(model_classes[i].flags & CLASS_PERSIST))
            continue;
        loading.class = &model_classes[i];
        r = mirror_redis_scan(redis, answer.head.incarnation, model_classes[i].name, load_record,
                              &loading, text, text_bytes);
        if (r < 0)
            return r;
    }
    *ret_objects = loading.objects;
    return 0;
}
