/* test_jsonrpc.c - JSON-RPC: what is read, what is refused, and replies to the letter */
#include "shared/jsonrpc.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "shared/arena.h"
#include "shared/failure.h"
#include "shared/model.h"

struct bench {
    struct arena *arena;
    struct buffer buffer;
    struct jsonrpc_call call;
    const char *reason;
};

static int bench_up(void **state)
{
    struct bench *bench = new0(struct bench);

    model_init();
    bench->arena = arena_new();
    buffer_init(&bench->buffer, 64 << 20);
    *state = bench;
    return 0;
}

static int bench_down(void **state)
{
    struct bench *bench = *state;

    arena_destroy(&bench->arena);
    buffer_done(&bench->buffer);
    free(bench);
    return 0;
}

static int parse(struct bench *bench, const char *text)
{
    return jsonrpc_parse_call(text, strlen(text), bench->arena, &bench->call, &bench->reason);
}

static void both_versions_are_read(void **state)
{
    struct bench *bench = *state;

    assert_int_equal(parse(bench, "{\"method\":\"a.b\",\"params\":[\"x\",1],\"id\":7}"), 0);
    assert_false(bench->call.is_version_2);
    assert_string_equal(bench->call.method, "a.b");
    assert_int_equal(bench->call.param_count, 2);
    assert_int_equal(bench->call.id.i, 7);
    assert_int_equal(parse(bench, " {\"jsonrpc\":\"2.0\",\"method\":\"a.b\",\"id\":\"seven\"}\n"), 0);
    assert_true(bench->call.is_version_2);
    assert_int_equal(bench->call.param_count, 0);
    assert_string_equal(bench->call.id.text, "seven");
    assert_int_equal(parse(bench, "{\"jsonrpc\":\"2.0\",\"method\":\"a\",\"params\":{\"k\":\"v\"},\"id\":1}"), 0);
    assert_int_equal(bench->call.param_count, 1);
    assert_string_equal(value_map_text(&bench->call.params[0], "k", ""), "v");
}

static void values_keep_their_kinds(void **state)
{
    struct bench *bench = *state;
    const struct value *p;

    assert_int_equal(parse(bench, "{\"method\":\"m\",\"id\":1,\"params\":[\"t\\u00e4xt\",9223372036854775807,-1,1.5,2e0,true,"
                                  "false,null,[],{},[[1],{\"a\":{\"b\":[2]}}]]}"),
                     0);
    p = bench->call.params;
    assert_string_equal(p[0].text, "t\xc3\xa4xt");
    assert_true(p[1].kind == KIND_INT && p[1].i == INT64_MAX);
    assert_true(p[2].kind == KIND_INT && p[2].i == -1);
    assert_true(p[3].kind == KIND_FLOAT && p[3].f == 1.5);
    assert_true(p[4].kind == KIND_FLOAT && p[4].f == 2);
    assert_true(p[5].kind == KIND_BOOL && p[5].b);
    assert_true(p[6].kind == KIND_BOOL && !p[6].b);
    assert_int_equal(p[7].kind, KIND_NIL);
    assert_true(p[8].kind == KIND_SET && p[8].length == 0);
    assert_true(p[9].kind == KIND_MAP && p[9].length == 0);
    assert_int_equal(p[10].items[0].items[0].i, 1);
    assert_int_equal(value_map_find(value_map_find(&p[10].items[1], "a"), "b")->items[0].i, 2);
}

static void bad_calls_are_refused(void **state)
{
    static const char *const texts[] = {
        "",
        "[]",
        "1",
        "{",
        "{}",
        "{}{}",
        "{\"method\":\"a\",\"params\":[]}",                                      /* a notification */
        "{\"method\":\"a\",\"params\":[],\"id\":null}",
        "{\"method\":\"a\",\"params\":[],\"id\":1.5}",
        "{\"method\":\"a\",\"params\":[],\"id\":[]}",
        "{\"params\":[],\"id\":1}",
        "{\"method\":\"\",\"params\":[],\"id\":1}",
        "{\"method\":1,\"params\":[],\"id\":1}",
        "{\"method\":\"a\",\"id\":1}",                                           /* 1.0 needs params */
        "{\"method\":\"a\",\"params\":{},\"id\":1}",
        "{\"jsonrpc\":\"1.0\",\"method\":\"a\",\"params\":[],\"id\":1}",
        "{\"jsonrpc\":2.0,\"method\":\"a\",\"params\":[],\"id\":1}",
        "{\"jsonrpc\":\"2.0\",\"method\":\"a\",\"params\":1,\"id\":1}",
        "{\"method\":\"a\",\"params\":[],\"id\":1,\"id\":2}",
        "{\"method\":\"a\",\"params\":[{\"k\":1,\"k\":2}],\"id\":1}",
        "{\"method\":\"a\",\"params\":[9223372036854775808],\"id\":1}",
        "{\"method\":\"a\",\"params\":[1e999],\"id\":1}",
        "{\"method\":\"a\",\"params\":[01],\"id\":1}",
        "{'method':'a','params':[],'id':1}",
        "{\"method\":\"a\",\"params\":[],\"id\":1}x",
        "[{\"method\":\"a\",\"params\":[],\"id\":1}]",
    };
    struct bench *bench = *state;

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        bench->reason = NULL;
        assert_int_equal(parse(bench, texts[i]), -1);
        assert_non_null(bench->reason);
    }
    assert_int_equal(jsonrpc_parse_call("\0", 1, bench->arena, &bench->call, &bench->reason), -1);
}

/* A call whose params hold `start` n times, then `end` n times. */
static int parse_repeated(struct bench *bench, const char *start, const char *end, int n)
{
    buffer_clear(&bench->buffer);
    buffer_add_text(&bench->buffer, "{\"method\":\"m\",\"id\":1,\"params\":[");
    for (int i = 0; i < n; i++)
        buffer_add_text(&bench->buffer, start);
    buffer_add_text(&bench->buffer, "0");
    for (int i = 0; i < n; i++)
        buffer_add_text(&bench->buffer, end);
    buffer_add_text(&bench->buffer, "]}");
    return jsonrpc_parse_call(bench->buffer.bytes, bench->buffer.length, bench->arena, &bench->call, &bench->reason);
}

static void size_and_depth_are_bounded(void **state)
{
    struct bench *bench = *state;

    assert_int_equal(parse_repeated(bench, "[", "]", JSONRPC_DEPTH_MAX - 2), 0);
    assert_null(bench->call.fault);
    assert_int_equal(parse_repeated(bench, "[", "]", JSONRPC_DEPTH_MAX - 1), 0);
    assert_string_equal(bench->call.fault, "values nested too deeply");
    assert_int_equal(parse_repeated(bench, "{\"a\":", "}", JSONRPC_DEPTH_MAX - 1), 0);
    assert_string_equal(bench->call.fault, "values nested too deeply");
    assert_int_equal(bench->call.id.i, 1);
    assert_int_equal(parse_repeated(bench, "[\"]\\\"\\\\\",{\"[\":", "}]", 30000), 0);
    assert_string_equal(bench->call.method, "m");
    assert_int_equal(parse_repeated(bench, "[", "", 1000000), -1);
    assert_int_equal(parse_repeated(bench, "0,", "", 100000), 0);
    assert_int_equal(parse_repeated(bench, "0,", "", JSONRPC_VALUES_MAX), -1);
    assert_int_equal(parse_repeated(bench, "\"[[,\\\"{{\",", "", 1000), 0); /* brackets in strings do not count */
    arena_set_limit(bench->arena, arena_bytes(bench->arena) + 100000);
    assert_int_equal(parse_repeated(bench, "0,", "", 100000), -1);
    assert_string_equal(bench->reason, "the call takes too much memory");
}

/* What is no text stays none, in the parameter where it stood; the id is known wherever it stands. */
static void bad_texts_are_kept(void **state)
{
    static const struct {
        const char *text, *bad;
    } cases[] = {
        {"\"a\\u0000b\"", "a\xff"
                          "b"},
        {"\"a\xff\xfe z\"", "a\xff z"},
        {"\"\xc3\"", "\xff"},
        {"\"\\ud800\"", "\xff"},
        {"\"\\ud800\\ud800\\udc00\"", "\xff\xf0\x90\x80\x80"},
        {"\"\\udc00\\\\u0000\"", "\xff\\u0000"},
        {"[{\"k\\u0000\":\"v\xff\"}]", "k\xff"},
    };
    static const char *const no_calls[] = {
        "{\"method\":\"a\xff\",\"params\":[],\"id\":1}",
        "{\"method\":\"a\",\"params\":[],\"id\":\"\\u0000\"}",
        "{\"method\":\"a\",\"params\":[],\"id\":1,\"more\":\"\xff\"}",
        "{\"method\":\"a\",\"params\":[\xff],\"id\":1}",
        "{\"method\":\"a\",\"params\":[\"\n\"],\"id\":1}",
        "{\"method\":\"a\",\"params\":[\"\\u00\"],\"id\":1}",
        "{\"method\":\"a\",\"params\":[\"\xff\\",
    };
    struct bench *bench = *state;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_int_equal(parse(bench, arena_text(bench->arena, "{\"method\":\"m\",\"params\":[\"ok\",%s],\"id\":\"x\"}",
                                                 cases[i].text)),
                         0);
        assert_string_equal(bench->call.bad_text, cases[i].bad);
        assert_string_equal(bench->call.id.text, "x");
        assert_int_equal(bench->call.param_count, 2);
    }
    for (size_t i = 0; i < ARRAY_SIZE(no_calls); i++)
        assert_int_equal(parse(bench, no_calls[i]), -1);
    assert_int_equal(parse(bench, "{\"method\":\"m\",\"params\":[\"\\ud83d\\ude00\xef\xbf\xbd\"],\"id\":2}"), 0);
    assert_null(bench->call.bad_text);
    assert_string_equal(bench->call.params[0].text, "\xf0\x9f\x98\x80\xef\xbf\xbd");
}

static void replies_are_to_the_letter(void **state)
{
    struct bench *bench = *state;
    struct jsonrpc_call one = {.id = VALUE_INT(7)}, two = {.is_version_2 = true, .id = value_text("a\"b")};
    struct value value = VALUE_INT(INT64_MAX);
    struct failure failure;
    struct buffer *buffer = &bench->buffer;

    failure_set(&failure, bench->arena, HANDLE_INVALID, "VM", "x\"\n");
    jsonrpc_reply_success(buffer, &one, &value);
    assert_string_equal(buffer_text(buffer), "{\"result\":9223372036854775807,\"error\":null,\"id\":7}");
    buffer_clear(buffer);
    jsonrpc_reply_success(buffer, &two, &VALUE_VOID);
    assert_string_equal(buffer_text(buffer), "{\"jsonrpc\":\"2.0\",\"result\":\"\",\"id\":\"a\\\"b\"}");
    buffer_clear(buffer);
    jsonrpc_reply_failure(buffer, &one, &failure);
    assert_string_equal(buffer_text(buffer),
                        "{\"result\":null,\"error\":[\"HANDLE_INVALID\",\"VM\",\"x\\\"\\n\"],\"id\":7}");
    buffer_clear(buffer);
    jsonrpc_reply_failure(buffer, &two, &failure);
    assert_string_equal(buffer_text(buffer), "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":1,\"message\":\"HANDLE_INVALID\","
                                             "\"data\":[\"VM\",\"x\\\"\\n\"]},\"id\":\"a\\\"b\"}");
    buffer_clear(buffer);
    failure_set(&failure, bench->arena, HOST_IS_SLAVE, "10.0.0.1");
    jsonrpc_reply_early_failure(buffer, &failure);
    assert_string_equal(buffer_text(buffer),
                        "{\"jsonrpc\":\"2.0\",\"error\":[\"HOST_IS_SLAVE\",\"10.0.0.1\"],\"id\":0}");
}

static void values_are_to_the_letter(void **state)
{
    struct bench *bench = *state;
    struct value text = value_text("a"), pair[] = {VALUE_INT(-3), text}, ref_pair[] = {VALUE_REF(NULL_REF), VALUE_VOID};
    struct value two[] = {text, text};
    const struct {
        struct value value;
        const char *text;
    } cases[] = {
        {value_text("quote\" back\\slash\t\r\n\x01\x1f/\x7f"), "\"quote\\\" back\\\\slash\\t\\r\\n\\u0001\\u001f/\x7f\""},
        {value_text("gr\xc3\xbc\xc3\x9f, and long enough"), "\"gr\xc3\xbc\xc3\x9f, and long enough\""},
        {VALUE_BOOL(true), "true"},
        {VALUE_FLOAT(0.5), "0.5"},
        {VALUE_FLOAT(60), "60"},
        {VALUE_FLOAT(1e300), "1e+300"},
        {VALUE_FLOAT(NAN), "null"},
        {VALUE_FLOAT(-INFINITY), "null"},
        {VALUE_DATETIME(0), "\"19700101T00:00:00Z\""},
        {VALUE_ENUM(vm_power_state, vm_power_state_Halted), "\"Halted\""},
        {VALUE_REF(NULL_REF), "\"OpaqueRef:NULL\""},
        {VALUE_EMPTY_SET, "[]"},
        {VALUE_EMPTY_MAP, "{}"},
        {VALUE_SET(2, two), "[\"a\",\"a\"]"},
        {VALUE_MAP(1, pair), "{\"-3\":\"a\"}"},
        {VALUE_MAP(1, ref_pair), "{\"OpaqueRef:NULL\":\"\"}"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        buffer_clear(&bench->buffer);
        jsonrpc_value(&bench->buffer, &cases[i].value);
        assert_string_equal(buffer_text(&bench->buffer), cases[i].text);
    }
}

static void records_can_be_read_back(void **state)
{
    struct bench *bench = *state;
    const struct class *class = CLASS_OF(VM);
    struct value *fields = arena_alloc_array(bench->arena, (size_t) class->field_count, sizeof *fields);
    struct record record = {class, fields, NULL, NULL};
    uint32_t public_fields = 0;

    for (int i = 0; i < class->field_count; i++) {
        fields[i] = class->fields[i].initial;
        public_fields += !(class->fields[i].flags & FIELD_INTERNAL);
    }
    buffer_add_text(&bench->buffer, "{\"method\":\"m\",\"id\":1,\"params\":[");
    jsonrpc_map_begin(&bench->buffer, 2);
    for (int i = 0; i < 2; i++) {
        jsonrpc_map_key(&bench->buffer, i ? "b\"" : "a", i ? 2 : 1, i == 0);
        jsonrpc_record(&bench->buffer, &record);
    }
    jsonrpc_map_end(&bench->buffer, 2);
    buffer_add_text(&bench->buffer, "]}");
    assert_int_equal(parse(bench, buffer_text(&bench->buffer)), 0);
    assert_int_equal(value_map_find(&bench->call.params[0], "b\"")->length, public_fields);
    assert_string_equal(value_map_text(value_map_find(&bench->call.params[0], "a"), "power_state", ""),
                        "Halted");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(both_versions_are_read, bench_up, bench_down),
        cmocka_unit_test_setup_teardown(values_keep_their_kinds, bench_up, bench_down),
        cmocka_unit_test_setup_teardown(bad_calls_are_refused, bench_up, bench_down),
        cmocka_unit_test_setup_teardown(size_and_depth_are_bounded, bench_up, bench_down),
        cmocka_unit_test_setup_teardown(bad_texts_are_kept, bench_up, bench_down),
        cmocka_unit_test_setup_teardown(replies_are_to_the_letter, bench_up, bench_down),
        cmocka_unit_test_setup_teardown(values_are_to_the_letter, bench_up, bench_down),
        cmocka_unit_test_setup_teardown(records_can_be_read_back, bench_up, bench_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
