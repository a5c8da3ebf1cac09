/* fuzz_http_head.c - bytes of a client: a head, and what follows it as a chunked body
 *
 * Beside finding what the sanitizers see, it holds the parser to its promises: strings stay inside
 * the head, and whether bytes come at once or one by one makes no difference. */
#include "shared/http_parse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_inside(const char *text, size_t bytes, const char *string)
{
    assert(string >= text && string + strlen(string) < text + bytes);
}

static void check_pairs(const char *text, const char *separators)
{
    _cleanup_(free_p) char *copy = dup_text(text);
    struct http_pair *pairs;
    size_t count = http_pairs_split(copy, separators, &pairs);

    for (size_t i = 0; i < count; i++) {
        check_inside(copy, strlen(text) + 1, pairs[i].name);
        check_inside(copy, strlen(text) + 1, pairs[i].value);
    }
    free(pairs);
}

static void check_basic(const char *value)
{
    char *user, *password;

    if (http_basic_decode(value, &user, &password)) {
        free(user);
        free(password);
    }
}

static void head(const char *data, size_t bytes)
{
    _cleanup_(free_p) char *text = alloc0(bytes);
    _cleanup_(free_p) char *path = alloc0(bytes);
    struct http_head head;

    memcpy(text, data, bytes);
    if (http_head_parse(text, bytes, path, &head) != 0)
        return;
    check_inside(text, bytes, head.method);
    check_inside(text, bytes, head.target);
    check_inside(path, bytes, head.path);
    assert(!*head.query || strstr(head.target, head.query));
    assert(!head.is_chunked || head.content_length < 0);
    check_pairs(head.query, "&");
    for (uint16_t i = 0; i < head.header_count; i++) {
        check_inside(text, bytes, text + head.headers[i].name);
        check_inside(text, bytes, text + head.headers[i].value);
        assert(http_header_value_is_safe(text + head.headers[i].value));
        check_pairs(text + head.headers[i].value, ";&");
        check_basic(text + head.headers[i].value);
    }
}

/* Decode in pieces; the sum and length of the body, and how it ended. */
static enum http_chunks_result unchunk(const char *data, size_t bytes, size_t piece,
                                       uint64_t *ret_sum)
{
    struct http_chunks chunks = {0};
    size_t at = 0;

    *ret_sum = 0;
    while (true) {
        size_t used, run_bytes, offered = MIN(piece, bytes - at);
        const char *run;
        enum http_chunks_result result =
            http_chunks_next(&chunks, data + at, offered, &used, &run, &run_bytes);

        assert(used <= offered);
        at += used;
        if (result == HTTP_CHUNKS_DATA) {
            assert(run >= data && run + run_bytes <= data + at && run_bytes > 0);
            for (size_t i = 0; i < run_bytes; i++)
                *ret_sum = *ret_sum * 31 + (unsigned char) run[i] + 1;
        } else if (result != HTTP_CHUNKS_MORE || at == bytes)
            return result;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *) data;
    size_t line = 0, slow_line = 0, bytes;
    int end = http_head_end(text, size, &line), slow_end = 0;
    uint64_t sum, slow_sum;

    for (size_t i = 1; i <= size && slow_end == 0; i++)
        slow_end = http_head_end(text, i, &slow_line);
    assert(end == slow_end);

    bytes = end > 0 ? (size_t) end : size;
    if (bytes > 0 && bytes <= HTTP_HEAD_BYTES_MAX)
        head(text, bytes);
    if (end > 0) {
        assert(unchunk(text + end, size - (size_t) end, SIZE_MAX, &sum)
               == unchunk(text + end, size - (size_t) end, 1, &slow_sum));
        assert(sum == slow_sum);
    }
    return 0;
}
