/* fuzz_filter.c - any text as a filter expression: refused with a reason, or it can be evaluated */
#include "master/filter.h"
#include "shared/arena.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    _cleanup_(arena_destroy) struct arena *arena = arena_new();
    const char *text = arena_dup(arena, data, size);
    const struct class *class;
    struct failure failure = {0};
    struct filter *filter;
    struct object *object;

    model_init();
    class = CLASS_OF(role);
    object =
        arena_alloc(arena, sizeof *object + (size_t) class->field_count * sizeof object->fields[0]);
    object->class = class;
    for (int i = 0; i < class->field_count; i++)
        object->fields[i] = class->fields[i].initial;
    if (filter_parse(text, class, arena, &filter, &failure) < 0) {
        assert(failure.code == ERR_INVALID_VALUE && failure.count == 2);
        return 0;
    }
    filter_uuid(filter);
    filter_matches(filter, NULL, object, arena);
    return 0;
}
