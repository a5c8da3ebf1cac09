/* listing.c - replies that are written piece by piece */
#include "master/listing.h"

#include "master/filter.h"
#include "master/record.h"
#include "shared/arena.h"
#include "shared/jsonrpc.h"
#include "shared/xmlrpc.h"

const struct writer writer_xmlrpc = {
    .value = xmlrpc_value,
    .record = xmlrpc_record,
    .map_begin = xmlrpc_map_begin,
    .map_key = xmlrpc_map_key,
    .map_end = xmlrpc_map_end,
    .set_begin = xmlrpc_set_begin,
    .set_item = xmlrpc_set_item,
    .set_end = xmlrpc_set_end,
};

const struct writer writer_jsonrpc = {
    .value = jsonrpc_value,
    .record = jsonrpc_record,
    .map_begin = jsonrpc_map_begin,
    .map_key = jsonrpc_map_key,
    .map_end = jsonrpc_map_end,
    .set_begin = jsonrpc_set_begin,
    .set_item = jsonrpc_set_item,
    .set_end = jsonrpc_set_end,
};

void write_key(const struct writer *writer, struct buffer *out, const char *name, bool is_first)
{
    writer->map_key(out, name, strlen(name), is_first);
}

void write_text(const struct writer *writer, struct buffer *out, const char *text)
{
    struct value value = value_text(text);

    writer->value(out, &value);
}

/* ---- objects of a class ---- */

struct objects {
    struct listing listing;
    const struct view *view;
    struct view_iter iter;
    const struct object *only; /* an expression that names a uuid: this one or nothing */
    bool is_only;
    const struct filter *filter;
    bool with_records;
    size_t written;
};

/* Objects that are looked at in one step at most, so that a filter which matches nothing does not
 * hold the loop. */
#define LOOK_AT_MAX 256

static const struct object *objects_step(struct objects *objects)
{
    const struct object *object = objects->only;

    if (!objects->is_only)
        return view_next(&objects->iter);
    objects->only = NULL;
    return object;
}

static void objects_write(struct objects *objects, const struct object *object,
                          const struct writer *writer, struct buffer *out, struct arena *scratch)
{
    struct value ref = VALUE_REF(object->ref);
    struct shown shown;

    if (!objects->with_records) {
        if (objects->written == 0)
            writer->set_begin(out, 1);
        writer->set_item(out, objects->written == 0);
        writer->value(out, &ref);
    } else {
        char text[REF_TEXT_BYTES];

        if (objects->written == 0)
            writer->map_begin(out, 1);
        write_key(writer, out, ref_print(text, object->ref), objects->written == 0);
        record_show(&shown, objects->view, object, scratch);
        writer->record(out, &shown.record);
    }
    objects->written++;
}

static bool objects_next(struct listing *listing, const struct writer *writer, struct buffer *out,
                         struct arena *scratch)
{
    struct objects *objects = CONTAINER_OF(listing, struct objects, listing);

    for (int i = 0; i < LOOK_AT_MAX; i++) {
        const struct object *object = objects_step(objects);

        if (!object) {
            void (*begin)(struct buffer *, size_t) =
                objects->with_records ? writer->map_begin : writer->set_begin;
            void (*end)(struct buffer *, size_t) =
                objects->with_records ? writer->map_end : writer->set_end;

            if (objects->written == 0)
                begin(out, 0);
            end(out, objects->written);
            return false;
        }
        if (objects->filter && !filter_matches(objects->filter, objects->view, object, scratch))
            continue;
        objects_write(objects, object, writer, out, scratch);
        break;
    }
    return true;
}

struct listing *listing_objects(struct arena *arena, const struct view *view,
                                const struct class *class, const struct filter *filter,
                                bool with_records)
{
    struct objects *objects = arena_new0(arena, struct objects);
    const char *uuid = filter ? filter_uuid(filter) : NULL;

    *objects = (struct objects){
        .listing = {objects_next},
        .view = view,
        .filter = filter,
        .with_records = with_records,
    };
    if (uuid) {
        objects->is_only = true;
        objects->only = view_by_uuid(view, class, uuid);
    } else {
        view_each(&objects->iter, view, class);
    }
    return &objects->listing;
}

struct listing *listing_named(struct arena *arena, const struct view *view,
                              const struct class *class, const char *name_label)
{
    struct objects *objects = arena_new0(arena, struct objects);

    *objects = (struct objects){.listing = {objects_next}, .view = view};
    view_each_name(&objects->iter, view, class, name_label);
    return &objects->listing;
}
