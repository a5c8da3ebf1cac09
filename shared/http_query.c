/* http_query.c - query and cookies of a request as one map of texts */
#include "shared/http_query.h"

#include "shared/http_routes.h"

bool http_query_map(struct http_request *http, struct arena *arena, struct value *ret)
{
    const struct http_pair *lists[2]; /* what counts more first */
    size_t counts[2] = {http_cookies(http, &lists[0]), http_params(http, &lists[1])};
    struct value map = VALUE_EMPTY_MAP, *items;

    if (counts[0] + counts[1] > HTTP_QUERY_MAX)
        return false;
    items = arena_alloc_array(arena, 2 * (counts[0] + counts[1]), sizeof *items);
    for (size_t l = 0; l < ARRAY_SIZE(lists); l++)
        for (size_t i = 0; i < counts[l]; i++) {
            const char *name = lists[l][i].name, *value = lists[l][i].value;

            if (value_map_find(&map, name))
                continue;
            if (!text_is_xml(name, strlen(name)) || !text_is_xml(value, strlen(value)))
                return false;
            items[2 * map.length] = value_text(arena_strdup(arena, name));
            items[2 * map.length + 1] = value_text(arena_strdup(arena, value));
            map = VALUE_MAP(map.length + 1, items);
        }
    *ret = map;
    return true;
}

void http_query_refuse(struct http_request *http)
{
    http_close_after(http);
    http_reply_html(http, 400, "", "the request has too many parameters, or some that are no text");
}
