/* jsonrpc_read.c - JSON-RPC text as values */
#include "shared/jsonrpc.h"

#include <jansson.h>

#include "shared/arena.h"
#include "shared/mend.h"

/* What a text measures before anything is built from it. */
struct measure {
    bool is_too_deep, is_too_many;
};

/* Count what the text may hold before anything is built from it: brackets open at once, and values (there is one
 * more than there are commas and opening brackets). */
static struct measure text_measure(const char *bytes, size_t length)
{
    struct measure measure = {0};
    unsigned depth = 0, values = 1;
    bool is_string = false;

    for (size_t i = 0; i < length; i++) {
        char c = bytes[i];

        if (is_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                is_string = false;
            continue;
        }
        if (c == '"')
            is_string = true;
        else if (c == '[' || c == '{')
            depth++, values++;
        else if ((c == ']' || c == '}') && depth > 0)
            depth--;
        else if (c == ',')
            values++;
        measure.is_too_deep |= depth > JSONRPC_DEPTH_MAX;
        measure.is_too_many |= values > JSONRPC_VALUES_MAX;
    }
    return measure;
}

/* What is being converted, and whether the arena's limit was met. */
struct conversion {
    struct arena *arena;
    bool is_too_large;
    bool is_mended;       /* texts may hold marks */
    const char *bad_text; /* the first that did */
};

static struct value convert(struct conversion *conversion, const json_t *json);

static void *room_for(struct conversion *conversion, size_t bytes)
{
    if (!conversion->is_too_large && arena_room(conversion->arena, bytes))
        return arena_alloc(conversion->arena, bytes);
    conversion->is_too_large = true;
    return NULL;
}

static struct value convert_text(struct conversion *conversion, const char *text, size_t length)
{
    char *copy = room_for(conversion, length + 1);

    if (!copy)
        return value_text("");
    memcpy(copy, text, length);
    copy[length] = '\0';
    if (conversion->is_mended && mend_has_mark(copy, length)) {
        length = mend_unmark(copy, length);
        if (!conversion->bad_text)
            conversion->bad_text = copy;
    }
    return (struct value){.kind = KIND_STRING, .length = (uint32_t) length, .text = copy};
}

static struct value convert_array(struct conversion *conversion, const json_t *json)
{
    size_t count = json_array_size(json);
    struct value *items = room_for(conversion, count * sizeof *items);

    if (!items)
        return VALUE_EMPTY_SET;
    for (size_t i = 0; i < count; i++)
        items[i] = convert(conversion, json_array_get(json, i));
    return VALUE_SET((uint32_t) count, items);
}

static struct value convert_object(struct conversion *conversion, const json_t *json)
{
    size_t count = json_object_size(json), i = 0;
    struct value *items = room_for(conversion, 2 * count * sizeof *items);
    const char *key;
    json_t *member;

    if (!items)
        return VALUE_EMPTY_MAP;
    json_object_foreach ((json_t *) json, key, member) {
        items[i++] = convert_text(conversion, key, strlen(key));
        items[i++] = convert(conversion, member);
    }
    return VALUE_MAP((uint32_t) count, items);
}

static struct value convert(struct conversion *conversion, const json_t *json)
{
    switch (json_typeof(json)) {
    case JSON_OBJECT:
        return convert_object(conversion, json);
    case JSON_ARRAY:
        return convert_array(conversion, json);
    case JSON_STRING:
        return convert_text(conversion, json_string_value(json), json_string_length(json));
    case JSON_INTEGER:
        return VALUE_INT(json_integer_value(json));
    case JSON_REAL:
        return VALUE_FLOAT(json_real_value(json));
    case JSON_TRUE:
    case JSON_FALSE:
        return VALUE_BOOL(json_is_true(json));
    case JSON_NULL:
        break;
    }
    return (struct value){.kind = KIND_NIL};
}

static void json_decref_p(json_t **json)
{
    json_decref(*json);
}

static const char *parse_params(struct conversion *conversion, const json_t *json, struct jsonrpc_call *ret)
{
    struct value value;

    if (!json && ret->is_version_2)
        return NULL;
    if (json_is_array(json)) {
        value = convert_array(conversion, json);
        ret->params = value.items;
        ret->param_count = value.length;
        return NULL;
    }
    if (json_is_object(json) && ret->is_version_2) {
        struct value *only = arena_new0(conversion->arena, struct value);

        *only = convert_object(conversion, json);
        ret->params = only;
        ret->param_count = 1;
        return NULL;
    }
    return "`params` is no array";
}

static const char *parse_call(struct conversion *conversion, const json_t *json, struct jsonrpc_call *ret)
{
    const json_t *version = json_object_get(json, "jsonrpc"), *id = json_object_get(json, "id");
    const json_t *method = json_object_get(json, "method");
    const char *reason;

    if (!json_is_object(json))
        return "not an object";
    if (version && (!json_is_string(version) || !streq(json_string_value(version), "2.0")))
        return "unknown version";
    ret->is_version_2 = version != NULL;
    if (!json_is_string(id) && !json_is_integer(id))
        return "`id` is neither a string nor an integer";
    ret->id = convert(conversion, id);
    if (!json_is_string(method) || json_string_length(method) == 0)
        return "no `method`";
    ret->method = convert(conversion, method).text;
    if (conversion->bad_text)
        return "bad characters in `method` or `id`";
    reason = parse_params(conversion, json_object_get(json, "params"), ret);
    if (conversion->is_too_large)
        return "the call takes too much memory";
    ret->bad_text = conversion->bad_text;
    if (!reason && conversion->is_mended && !ret->bad_text)
        return "bad characters beside the parameters";
    return reason;
}

static int parse_text(const char *bytes, size_t length, bool is_mended, struct arena *arena, struct jsonrpc_call *ret,
                      const char **ret_reason)
{
    struct conversion conversion = {.arena = arena, .is_mended = is_mended};
    json_error_t error;
    _cleanup_(json_decref_p) json_t *json = json_loadb(bytes, length, JSON_REJECT_DUPLICATES, &error);

    *ret = (struct jsonrpc_call){0};
    *ret_reason = json ? parse_call(&conversion, json, ret)
                       : arena_text(arena, "line %d, column %d: %s", error.line, error.column, error.text);
    return *ret_reason ? -1 : 0;
}

int jsonrpc_parse_call(const char *bytes, size_t length, struct arena *arena, struct jsonrpc_call *ret,
                       const char **ret_reason)
{
    _cleanup_(buffer_done) struct buffer shallow = {0}, mended = {0};
    struct measure measure = text_measure(bytes, length);
    struct jsonrpc_call call;
    int r;

    if (measure.is_too_many) {
        *ret_reason = "too many values";
        return -1;
    }
    if (measure.is_too_deep) {
        buffer_init(&shallow, MEND_BYTES_MAX(length));
        mend_json_depth(bytes, length, JSONRPC_DEPTH_MAX, &shallow);
        bytes = shallow.bytes;
        length = shallow.length;
    }
    r = parse_text(bytes, length, false, arena, &call, ret_reason);
    if (r < 0) {
        buffer_init(&mended, MEND_BYTES_MAX(length));
        if (mend_json(bytes, length, &mended))
            r = parse_text(mended.bytes, mended.length, true, arena, &call, ret_reason);
    }
    if (r < 0)
        return -1;
    if (measure.is_too_deep)
        call.fault = "values nested too deeply";
    *ret = call;
    return 0;
}
