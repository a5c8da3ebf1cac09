/* test_xmlrpc.c - XML-RPC: what is read, what is refused, and replies to the letter */
#include "shared/xmlrpc.h"

#include <math.h>
#include <pthread.h>
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
    struct xmlrpc_call call;
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

/* ---- reading ---- */

static int parse(struct bench *bench, const char *document)
{
    return xmlrpc_parse_call(document, strlen(document), bench->arena, &bench->call, &bench->reason);
}

/* The one parameter of a call whose <param> holds this text. */
static const struct value *param(struct bench *bench, const char *text)
{
    const char *document = arena_text(bench->arena,
                                      "<?xml version='1.0'?>\n<methodCall>\n<methodName>a.b</methodName>\n"
                                      "<params>\n<param>\n%s\n</param>\n</params>\n</methodCall>\n",
                                      text);

    if (parse(bench, document) < 0 || bench->call.fault || bench->call.bad_text)
        return NULL;
    assert_string_equal(bench->call.method, "a.b");
    assert_int_equal(bench->call.param_count, 1);
    return bench->call.params;
}

static void scalars_are_read(void **state)
{
    struct bench *bench = *state;
    static const struct {
        const char *text;
        struct value value;
    } cases[] = {
        {"<value><int>5</int></value>", {.kind = KIND_INT, .i = 5}},
        {"<value><i4>-5</i4></value>", {.kind = KIND_INT, .i = -5}},
        {"<value> <i8> 9223372036854775807 </i8> </value>", {.kind = KIND_INT, .i = INT64_MAX}},
        {"<value><boolean>1</boolean></value>", {.kind = KIND_BOOL, .b = true}},
        {"<value><boolean>0</boolean></value>", {.kind = KIND_BOOL, .b = false}},
        {"<value><double>-1.5e3</double></value>", {.kind = KIND_FLOAT, .f = -1500}},
        {"<value><dateTime.iso8601>19700101T00:01:00Z</dateTime.iso8601></value>", {.kind = KIND_DATETIME, .i = 60}},
        {"<value><nil/></value>", {.kind = KIND_NIL}},
        {"<value><array><data/></array></value>", {.kind = KIND_SET}},
        {"<value><struct/></value>", {.kind = KIND_MAP}},
    };
    static const struct {
        const char *text, *string;
    } strings[] = {
        {"<value>text</value>", "text"},
        {"<value>  with spaces\n</value>", "  with spaces\n"},
        {"<value/>", ""},
        {"<value></value>", ""},
        {"<value><string/></value>", ""},
        {"<value>\n<string> a </string>\n</value>", " a "},
        {"<value>&lt;a&gt; &amp;amp; &quot;b&apos; &#xe4;&#66;</value>", "<a> &amp; \"b' \xc3\xa4" "B"},
        {"<value>a<![CDATA[<b>]]>c</value>", "a<b>c"},
        {"<value>a<!-- > ' note <x -->b</value>", "ab"},
        {"<value><base64>aGVs\nbG8=</base64></value>", "hello"},
        {"<value><base64></base64></value>", ""},
        {"<value><int>twelve</int></value>", "twelve"},
        {"<value><int>9223372036854775808</int></value>", "9223372036854775808"},
        {"<value><dateTime.iso8601>soon</dateTime.iso8601></value>", "soon"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const struct value *value = param(bench, cases[i].text);

        assert_non_null(value);
        assert_true(value_equal(value, &cases[i].value));
    }
    for (size_t i = 0; i < ARRAY_SIZE(strings); i++) {
        const struct value *value = param(bench, strings[i].text);

        assert_non_null(value);
        assert_int_equal(value->kind, KIND_STRING);
        assert_string_equal(value->text, strings[i].string);
        assert_int_equal(value->length, strlen(strings[i].string));
    }
}

static void collections_are_read(void **state)
{
    struct bench *bench = *state;
    const struct value *value =
        param(bench, "<value><struct>\n <member><name>a</name><value>1</value></member>\n"
                     "<member> <name>b &amp; c</name> <value><array> <data>\n<value>x</value> <value/>"
                     "<value><struct/></value></data> </array></value></member></struct></value>");
    const struct value *list;

    assert_int_equal(value->kind, KIND_MAP);
    assert_int_equal(value->length, 2);
    assert_string_equal(value_map_text(value, "a", ""), "1");
    list = value_map_find(value, "b & c");
    assert_int_equal(list->length, 3);
    assert_string_equal(list->items[0].text, "x");
    assert_string_equal(list->items[1].text, "");
    assert_int_equal(list->items[2].kind, KIND_MAP);
}

static void calls_without_parameters_are_read(void **state)
{
    struct bench *bench = *state;

    assert_int_equal(parse(bench, "<methodCall><methodName> host.get_all </methodName></methodCall>"), 0);
    assert_string_equal(bench->call.method, "host.get_all");
    assert_int_equal(bench->call.param_count, 0);
    assert_int_equal(parse(bench, "<methodCall><methodName>m</methodName><params/></methodCall>"), 0);
    assert_int_equal(parse(bench, "\xef\xbb\xbf<methodCall><methodName>m</methodName></methodCall>"), 0);
    assert_int_equal(parse(bench, "<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?><methodCall><methodName>m"
                                  "</methodName><params><param><value>\xe4</value></param></params></methodCall>"),
                     0);
    assert_string_equal(bench->call.params[0].text, "\xc3\xa4");
}

static void bad_documents_are_refused(void **state)
{
    struct bench *bench = *state;
    static const char *const documents[] = {
        "",
        " ",
        "text",
        "<methodCall>",
        "<methodCall/>",
        "<methodCall><methodName/></methodCall>",
        "<methodCall><methodName>a</methodName></methodCall>x",
        "<methodCall><methodName>a</methodName></methodCall><methodCall/>",
        "<methodCall><methodName>a</methodName><methodName>b</methodName></methodCall>",
        "<methodCall><methodName>a</methodName><params><value>1</value></params></methodCall>",
        "<methodCall><methodName>a</methodName><params/><params/></methodCall>",
        "<methodCall><params/></methodCall>",
        "<methodResponse><params><param><value>1</value></param></params></methodResponse>",
        "<methodCall>x<methodName>a</methodName></methodCall>",
        "<!DOCTYPE a><methodCall><methodName>a</methodName></methodCall>",
        "<!DOCTYPE a [<!ENTITY b \"bbbb\">]><methodCall><methodName>&b;</methodName></methodCall>",
        "<!DOCTYPE a SYSTEM \"file:///etc/passwd\"><methodCall><methodName>a</methodName></methodCall>",
        "<methodCall><methodName>&unknown;</methodName></methodCall>",
        "<methodCall><methodName>a\xff</methodName></methodCall>",
        "<methodCall><methodName>a&#1;</methodName></methodCall>",
        "<?xml version='1.0' encoding='UTF-7'?><methodCall><methodName>a</methodName></methodCall>",
        "<?xml version='1.0' encoding='nonsense'?><methodCall><methodName>a</methodName></methodCall>",
    };
    static const char *const params[] = {
        "",
        "1",
        "<int>1</int>",
        "<value>1</value><value>2</value>",
        "<value>a<int>1</int></value>",
        "<value><int>1</int>a</value>",
        "<value><int>1</int><int>1</int></value>",
        "<value><int><int>1</int></int></value>",
        "<value><unknown>1</unknown></value>",
        "<value><boolean>2</boolean></value>",
        "<value><boolean></boolean></value>",
        "<value><double>x</double></value>",
        "<value><double>0x10</double></value>",
        "<value><double></double></value>",
        "<value><base64>a</base64></value>",
        "<value><base64>ab=c</base64></value>",
        "<value><base64>ab*=</base64></value>",
        "<value><nil>x</nil></value>",
        "<value><array/></value>",
        "<value><array><value>1</value></array></value>",
        "<value><array><data/><data/></array></value>",
        "<value><struct><member/></struct></value>",
        "<value><struct><member><name>a</name></member></struct></value>",
        "<value><struct><member><value>a</value></member></struct></value>",
        "<value><struct><member><value>a</value><name>a</name></member></struct></value>",
        "<value><struct><member><name>a</name><name>b</name><value/></member></struct></value>",
        "<value><struct><value/></struct></value>",
        "<value a='1' a='2'/>",
    };

    for (size_t i = 0; i < ARRAY_SIZE(documents); i++) {
        bench->reason = NULL;
        assert_int_equal(parse(bench, documents[i]), -1);
        assert_non_null(bench->reason);
    }
    for (size_t i = 0; i < ARRAY_SIZE(params); i++)
        assert_null(param(bench, params[i]));
    assert_int_equal(xmlrpc_parse_call("<methodCall><methodName>a\0b</methodName></methodCall>", 52, bench->arena,
                                       &bench->call, &bench->reason),
                     -1);
    assert_non_null(param(bench, "<value>still works</value>"));
}

/* `start` and `end` n times around a text. */
static const char *nested(struct bench *bench, const char *start, const char *end, const char *inner, int n)
{
    buffer_clear(&bench->buffer);
    for (int i = 0; i < n; i++)
        buffer_add_text(&bench->buffer, start);
    buffer_add_text(&bench->buffer, inner);
    for (int i = 0; i < n; i++)
        buffer_add_text(&bench->buffer, end);
    return arena_strdup(bench->arena, buffer_text(&bench->buffer));
}

static void size_and_depth_are_bounded(void **state)
{
    struct bench *bench = *state;
    const char *array = "<value><array><data>", *array_end = "</data></array></value>";
    const char *map = "<value><struct><member><name>a</name>", *map_end = "</member></struct></value>";
    const char *many;

    assert_non_null(param(bench, nested(bench, array, array_end, "<value><int>1</int></value>", XMLRPC_DEPTH_MAX - 1)));
    assert_null(param(bench, nested(bench, array, array_end, "<value/>", XMLRPC_DEPTH_MAX)));
    assert_non_null(param(bench, nested(bench, map, map_end, "<value><int>1</int></value>", XMLRPC_DEPTH_MAX - 1)));
    assert_null(param(bench, nested(bench, map, map_end, "<value/>", XMLRPC_DEPTH_MAX)));
    assert_null(param(bench, nested(bench, array, "", "", 100000)));
    assert_null(param(bench, nested(bench, array, array_end, nested(bench, "<value/>", "", "", XMLRPC_VALUES_MAX), 1)));
    assert_null(param(bench, arena_text(bench->arena, "<value %s/>", nested(bench, " a='1'", "", "", 500))));
    assert_non_null(param(bench, "<value xmlns:ex='http://ws.apache.org/xmlrpc/namespaces/extensions'><ex:nil/></value>"));

    many = nested(bench, "<methodCall><methodName>a</methodName><params><param><value><array><data>",
                  "</data></array></value></param></params></methodCall>", nested(bench, "<value/>", "", "", 10000), 1);
    arena_set_limit(bench->arena, arena_bytes(bench->arena) + 200000);
    assert_int_equal(parse(bench, many), -1);
    arena_set_limit(bench->arena, arena_bytes(bench->arena) + 300000);
    assert_int_equal(parse(bench, many), 0);
}

/* A call that is nested too deeply is known as one, with the parameters before it. */
static void too_deep_is_a_call_with_a_fault(void **state)
{
    struct bench *bench = *state;
    const char *start = "<methodCall><methodName>m</methodName><params><param><value>s</value></param><param>";
    const char *deep = nested(bench, "<value><array><data>", "", "", 100000);

    assert_int_equal(parse(bench, arena_text(bench->arena, "%s%s", start, deep)), 0);
    assert_string_equal(bench->call.method, "m");
    assert_string_equal(bench->call.fault, "values nested deeper than 64");
    assert_int_equal(bench->call.param_count, 1);
    assert_string_equal(bench->call.params[0].text, "s");
    assert_int_equal(parse(bench, arena_text(bench->arena, "<methodCall><params><param>%s", deep)), -1);
    assert_int_equal(parse(bench, "<methodCall><methodName>m</methodName></methodCall>"), 0);
    assert_null(bench->call.fault);
}

/* What is no text stays none, in the parameter where it stood. */
static void bad_texts_are_kept(void **state)
{
    static const struct {
        const char *text, *bad;
    } cases[] = {
        {"<value>a\xff b</value>", "a\xff b"},
        {"<value><string>\xe4\xf6</string></value>", "\xff"},
        {"<value>\xc3</value>", "\xff"},
        {"<value>a\x01z</value>", "a\xffz"},
        {"<value>a&#1;z</value>", "a\xffz"},
        {"<value>a&#0;z</value>", "a\xffz"},
        {"<value>a&#xD800;&#xffff;&amp;</value>", "a\xff\xff&"},
        {"<value><![CDATA[\xed\xa0\x80]]></value>", "\xff"},
        {"<value><int>\xff</int></value>", "\xff"},
        {"<value><base64>/w==</base64></value>", "\xff"},
        {"<value><struct><member><name>k\x80</name><value>\xff</value></member></struct></value>", "k\xff"},
        {"<value><array><data><value>\xc3\xa4</value><value>\xfe\xc3\xa4</value></data></array></value>",
         "\xff\xc3\xa4"},
    };
    static const char *const no_calls[] = {
        "<methodCall><methodName>a\xff</methodName></methodCall>",
        "<methodCall><!-- \xff --><methodName>a</methodName></methodCall>",
        "<methodCall>\xff<methodName>a</methodName></methodCall>",
        "<methodCall><methodName>a</methodName><par\xff/></methodCall>",
        "<methodCall><methodName>a</methodName><params><param><value>\xff</value></param></params>",
    };
    static const char nul[] = "<methodCall><methodName>a</methodName><params><param><value>a\0b</value></param></params>"
                              "</methodCall>";
    struct bench *bench = *state;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_null(param(bench, cases[i].text));
        assert_string_equal(bench->call.method, "a.b");
        assert_string_equal(bench->call.bad_text, cases[i].bad);
        assert_int_equal(bench->call.param_count, 1);
    }
    for (size_t i = 0; i < ARRAY_SIZE(no_calls); i++)
        assert_int_equal(parse(bench, no_calls[i]), -1);
    assert_string_equal(param(bench, "<value>\xef\xbf\xbd</value>")->text, "\xef\xbf\xbd");
    assert_int_equal(xmlrpc_parse_call(nul, sizeof nul - 1, bench->arena, &bench->call, &bench->reason), 0);
    assert_string_equal(bench->call.bad_text, "a\xff"
                                              "b");
}

/* A tag cannot hide from the check of its length behind quotes, comments, CDATA or instructions. */
static void long_tags_do_not_hide(void **state)
{
    static const char *const before[] = {
        "<value a='>'", "<value a=\"'>\"", "<!-- <\"' --><value a='\">'", "<![CDATA[ x> <\" ]]><value a='\">'",
        "<?x ' > ?><value", "<!--->--><value", "<![CDATA[]]><value", "<!-- - -> --><value",
    };
    struct bench *bench = *state;

    for (size_t i = 0; i < ARRAY_SIZE(before); i++) {
        for (int bytes = 0; bytes < 2; bytes++) {
            const char *attributes = nested(bench, " b=''", "", "", 400);
            _cleanup_(xmlrpc_parser_destroy) struct xmlrpc_parser *parser = xmlrpc_parser_new(bench->arena);
            const char *document = arena_text(bench->arena, "<methodCall><methodName>%s%s>", before[i], attributes);
            int r = 0;

            for (const char *p = document; *p && r == 0; p += bytes ? 1 : strlen(document))
                r = xmlrpc_parser_feed(parser, p, bytes ? 1 : strlen(document));
            assert_int_equal(r, -1);
            assert_int_equal(xmlrpc_parser_finish(parser, &bench->call, &bench->reason), -1);
            assert_non_null(strstr(bench->reason, "a tag longer than"));
        }
    }
}

static void documents_may_come_in_pieces(void **state)
{
    static const char document[] =
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><methodCall><methodName>VM.start</methodName><params><param><value>"
        "gr\xc3\xbc\xc3\x9f &amp; gr\xc3\xbc\xc3\x9f</value></param><param><value><struct><member><name>k</name><value>"
        "<i4>7</i4></value></member></struct></value></param></params></methodCall>";
    struct bench *bench = *state;

    for (size_t piece = 1; piece < sizeof document; piece += piece < 10 ? 1 : 37) {
        _cleanup_(xmlrpc_parser_destroy) struct xmlrpc_parser *parser = xmlrpc_parser_new(bench->arena);

        for (size_t i = 0; i < sizeof document - 1; i += piece)
            assert_int_equal(xmlrpc_parser_feed(parser, document + i, MIN(piece, sizeof document - 1 - i)), 0);
        assert_int_equal(xmlrpc_parser_finish(parser, &bench->call, &bench->reason), 0);
        assert_string_equal(bench->call.params[0].text, "gr\xc3\xbc\xc3\x9f & gr\xc3\xbc\xc3\x9f");
        assert_int_equal(value_map_find(&bench->call.params[1], "k")->i, 7);
    }
    /* Cut anywhere it is an error, and no more. */
    for (size_t length = 0; length < sizeof document - 1; length++)
        assert_int_equal(xmlrpc_parse_call(document, length, bench->arena, &bench->call, &bench->reason), -1);
}

static void *parse_in_thread(void *unused)
{
    struct arena *arena = arena_new();

    for (int i = 0; i < 100; i++) {
        char document[200];
        struct xmlrpc_call call;
        const char *reason;

        snprintf(document, sizeof document, "<methodCall><methodName>m%d</methodName><x%d/></methodCall>", i, i);
        assert_int_equal(xmlrpc_parse_call(document, strlen(document), arena, &call, &reason), -1);
        snprintf(document, sizeof document, "<methodCall><methodName>m%d</methodName></methodCall>", i);
        assert_int_equal(xmlrpc_parse_call(document, strlen(document), arena, &call, &reason), 0);
    }
    arena_destroy(&arena);
    return unused;
}

static void threads_keep_their_own_contexts(void **state)
{
    pthread_t threads[4];

    (void) state;
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, parse_in_thread, NULL), 0);
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
        pthread_join(threads[i], NULL);
}

/* ---- writing ---- */

#define HEAD    "<?xml version=\"1.0\"?><methodResponse><params><param>"
#define TAIL    "</param></params></methodResponse>"
#define SUCCESS HEAD "<value><struct><member><name>Status</name><value>Success</value></member>" \
                     "<member><name>Value</name>"
#define SUCCESS_END "</member></struct></value>" TAIL

static const char *printed(struct bench *bench, struct value value)
{
    buffer_clear(&bench->buffer);
    xmlrpc_value(&bench->buffer, &value);
    return buffer_text(&bench->buffer);
}

static void replies_are_to_the_letter(void **state)
{
    struct bench *bench = *state;
    struct value value = value_text("OpaqueRef:NULL"), list = VALUE_SET(1, &value);
    struct failure failure;

    xmlrpc_reply_success(&bench->buffer, &value);
    assert_string_equal(buffer_text(&bench->buffer), SUCCESS "<value>OpaqueRef:NULL</value>" SUCCESS_END);
    buffer_clear(&bench->buffer);
    xmlrpc_reply_bare(&bench->buffer, &list);
    assert_string_equal(buffer_text(&bench->buffer),
                        HEAD "<value><array><data><value>OpaqueRef:NULL</value></data></array></value>" TAIL);
    buffer_clear(&bench->buffer);
    failure_set(&failure, bench->arena, MESSAGE_METHOD_UNKNOWN, "a<b>");
    xmlrpc_reply_failure(&bench->buffer, &failure);
    assert_string_equal(buffer_text(&bench->buffer),
                        HEAD "<value><struct><member><name>Status</name><value>Failure</value></member>"
                             "<member><name>ErrorDescription</name><value><array><data>"
                             "<value>MESSAGE_METHOD_UNKNOWN</value><value>a&lt;b&gt;</value>"
                             "</data></array></value></member></struct></value>" TAIL);
}

static void values_are_to_the_letter(void **state)
{
    struct bench *bench = *state;
    struct value text = value_text("a"), number = VALUE_INT(-3), pair[] = {number, text};
    struct value ref_pair[] = {VALUE_REF(NULL_REF), VALUE_EMPTY_SET}, real = number;
    const struct {
        struct value value;
        const char *text;
    } cases[] = {
        {VALUE_VOID, "<value></value>"},
        {value_text(""), "<value></value>"},
        {value_text("a<b>&\"c' \t\r\n\x01\x1f z"), "<value>a&lt;b&gt;&amp;&quot;c' \t\r\n z</value>"},
        {value_text("0123456\"89abcdef<h"), "<value>0123456&quot;89abcdef&lt;h</value>"},
        {value_text("gr\xc3\xbc\xc3\x9f, and longer than eight"), "<value>gr\xc3\xbc\xc3\x9f, and longer than eight</value>"},
        {VALUE_INT(INT64_MIN), "<value>-9223372036854775808</value>"},
        {VALUE_BOOL(true), "<value><boolean>1</boolean></value>"},
        {VALUE_BOOL(false), "<value><boolean>0</boolean></value>"},
        {VALUE_FLOAT(0.1), "<value><double>0.1</double></value>"},
        {VALUE_FLOAT(1.0 / 3), "<value><double>0.3333333333333333</double></value>"},
        {VALUE_FLOAT(60), "<value><double>60</double></value>"},
        {VALUE_FLOAT(0), "<value><double>0</double></value>"},
        {VALUE_FLOAT(-0.0), "<value><double>-0</double></value>"},
        {VALUE_FLOAT(1e15), "<value><double>1000000000000000</double></value>"},
        {VALUE_FLOAT(1e16), "<value><double>1e+16</double></value>"},
        {VALUE_FLOAT(INFINITY), "<value><double>inf</double></value>"},
        {VALUE_DATETIME(0), "<value><dateTime.iso8601>19700101T00:00:00Z</dateTime.iso8601></value>"},
        {VALUE_ENUM(vm_power_state, vm_power_state_Halted), "<value>Halted</value>"},
        {VALUE_REF(NULL_REF), "<value>OpaqueRef:NULL</value>"},
        {VALUE_EMPTY_SET, "<value><array><data/></array></value>"},
        {VALUE_EMPTY_MAP, "<value><struct/></value>"},
        {VALUE_SET(1, &text), "<value><array><data><value>a</value></data></array></value>"},
        {VALUE_MAP(1, pair), "<value><struct><member><name>-3</name><value>a</value></member></struct></value>"},
        {VALUE_MAP(1, ref_pair), "<value><struct><member><name>OpaqueRef:NULL</name><value><array><data/></array>"
                                 "</value></member></struct></value>"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        assert_string_equal(printed(bench, cases[i].value), cases[i].text);
    real.is_i4 = true;
    assert_string_equal(printed(bench, real), "<value><i4>-3</i4></value>");
    assert_int_equal(sizeof(struct value), 24);
}

/* "%.16g" is the rule, whichever road a number takes. */
static void floats_have_sixteen_digits(void **state)
{
    struct bench *bench = *state;
    uint64_t bits = 88172645463325252;

    for (int i = 0; i < 20000; i++) {
        double number;
        char text[80];

        bits ^= bits << 13, bits ^= bits >> 7, bits ^= bits << 17;
        memcpy(&number, &bits, 8);
        if (i % 2)
            number = trunc(ldexp((double) (int64_t) bits, -(i % 64)));
        snprintf(text, sizeof text, "<value><double>%.16g</double></value>", number);
        assert_string_equal(printed(bench, VALUE_FLOAT(number)), text);
    }
}

static struct value inverse_of(void *context, const struct field *field)
{
    assert_string_equal(field->name, "VBDs");
    return *(const struct value *) context;
}

static void records_have_each_public_field(void **state)
{
    struct bench *bench = *state;
    struct value *fields = arena_alloc_array(bench->arena, (size_t) CLASS_OF(VDI)->field_count, sizeof *fields);
    struct value refs[] = {VALUE_REF(NULL_REF)}, vbds = VALUE_SET(1, refs);
    struct record record = {CLASS_OF(VDI), fields, NULL, NULL};
    const struct value *read;
    struct value reply;
    int public_fields = 0;

    for (int i = 0; i < CLASS_OF(VDI)->field_count; i++) {
        fields[i] = CLASS_OF(VDI)->fields[i].initial;
        public_fields += !(CLASS_OF(VDI)->fields[i].flags & FIELD_INTERNAL);
    }
    fields[F_VDI_name_label] = value_text("a & b");
    xmlrpc_success_begin(&bench->buffer);
    xmlrpc_record(&bench->buffer, &record);
    xmlrpc_success_end(&bench->buffer);
    assert_int_equal(xmlrpc_parse_reply(bench->buffer.bytes, bench->buffer.length, bench->arena, &reply, &bench->reason), 0);
    assert_string_equal(reply.items[0].text, "Status");
    assert_int_equal(reply.length, 2);
    read = value_map_find(&reply, "Value");
    assert_int_equal(read->length, public_fields);
    assert_string_equal(value_map_text(read, "name_label", ""), "a & b");
    assert_int_equal(value_map_find(read, "VBDs")->length, 0);

    /* The same from a value, and with the inverse set from its owner. */
    buffer_clear(&bench->buffer);
    fields[F_VDI_VBDs] = vbds;
    reply = (struct value){.kind = KIND_RECORD, .record = {CLASS_OF(VDI), fields}};
    xmlrpc_reply_success(&bench->buffer, &reply);
    assert_int_equal(xmlrpc_parse_reply(bench->buffer.bytes, bench->buffer.length, bench->arena, &reply, &bench->reason), 0);
    assert_int_equal(value_map_find(value_map_find(&reply, "Value"), "VBDs")->length, 1);
}

static void inverse_sets_are_asked_for(void **state)
{
    struct bench *bench = *state;
    const struct class *class = CLASS_OF(VDI);
    struct value *fields = arena_alloc_array(bench->arena, (size_t) class->field_count, sizeof *fields);
    struct value refs[] = {VALUE_REF(NULL_REF)}, vbds = VALUE_SET(1, refs);
    struct record record = {class, fields, inverse_of, &vbds};

    for (int i = 0; i < class->field_count; i++)
        fields[i] = i == F_VDI_VBDs || !(class->fields[i].flags & FIELD_INVERSE) ? class->fields[i].initial
                                                                                 : VALUE_EMPTY_SET;
    xmlrpc_record(&bench->buffer, &record);
    assert_non_null(strstr(buffer_text(&bench->buffer),
                           "<member><name>VBDs</name><value><array><data><value>OpaqueRef:NULL</value></data></array>"
                           "</value></member>"));
}

static void pieces_make_the_same_text(void **state)
{
    struct bench *bench = *state;
    struct value pairs[] = {value_text("a"), VALUE_INT(1), value_text("<b>"), VALUE_INT(2)};
    struct value map = VALUE_MAP(2, pairs), items[] = {VALUE_INT(1), VALUE_INT(2)}, set = VALUE_SET(2, items);
    struct buffer *buffer = &bench->buffer;
    const char *whole;

    whole = arena_strdup(bench->arena, printed(bench, map));
    buffer_clear(buffer);
    xmlrpc_map_begin(buffer, 2);
    for (int i = 0; i < 2; i++) {
        xmlrpc_map_key(buffer, pairs[2 * i].text, pairs[2 * i].length, i == 0);
        xmlrpc_value(buffer, &pairs[2 * i + 1]);
    }
    xmlrpc_map_end(buffer, 2);
    assert_string_equal(buffer_text(buffer), whole);

    whole = arena_strdup(bench->arena, printed(bench, set));
    buffer_clear(buffer);
    xmlrpc_set_begin(buffer, 2);
    for (int i = 0; i < 2; i++) {
        xmlrpc_set_item(buffer, i == 0);
        xmlrpc_value(buffer, &items[i]);
    }
    xmlrpc_set_end(buffer, 2);
    assert_string_equal(buffer_text(buffer), whole);

    buffer_clear(buffer);
    xmlrpc_map_begin(buffer, 0);
    xmlrpc_map_end(buffer, 0);
    xmlrpc_set_begin(buffer, 0);
    xmlrpc_set_end(buffer, 0);
    assert_string_equal(buffer_text(buffer), "<value><struct/></value><value><array><data/></array></value>");
}

static void what_is_written_can_be_read(void **state)
{
    struct bench *bench = *state;
    char *text = arena_alloc(bench->arena, 20000);
    struct value value, reply;

    for (int i = 0; i < 19999; i++)
        text[i] = (char) (' ' + i * 7 % 95);
    value = value_text(text);
    xmlrpc_reply_success(&bench->buffer, &value);
    assert_int_equal(xmlrpc_parse_reply(bench->buffer.bytes, bench->buffer.length, bench->arena, &reply, &bench->reason), 0);
    assert_string_equal(value_map_text(&reply, "Value", ""), text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(scalars_are_read, bench_up, bench_down),
        cmocka_unit_test_setup_teardown(collections_are_read, bench_up, bench_down),
        cmocka_unit_test_setup_teardown(calls_without_parameters_are_read, bench_up, bench_down),
        cmocka_unit_test_setup_teardown(bad_documents_are_refused, bench_up, bench_down),
        cmocka_unit_test_setup_teardown(size_and_depth_are_bounded, bench_up, bench_down),
        cmocka_unit_test_setup_teardown(too_deep_is_a_call_with_a_fault, bench_up, bench_down),
        cmocka_unit_test_setup_teardown(bad_texts_are_kept, bench_up, bench_down),
        cmocka_unit_test_setup_teardown(long_tags_do_not_hide, bench_up, bench_down),
        cmocka_unit_test_setup_teardown(documents_may_come_in_pieces, bench_up, bench_down),
        cmocka_unit_test_setup_teardown(threads_keep_their_own_contexts, bench_up, bench_down),
        cmocka_unit_test_setup_teardown(replies_are_to_the_letter, bench_up, bench_down),
        cmocka_unit_test_setup_teardown(values_are_to_the_letter, bench_up, bench_down),
        cmocka_unit_test_setup_teardown(floats_have_sixteen_digits, bench_up, bench_down),
        cmocka_unit_test_setup_teardown(records_have_each_public_field, bench_up, bench_down),
        cmocka_unit_test_setup_teardown(inverse_sets_are_asked_for, bench_up, bench_down),
        cmocka_unit_test_setup_teardown(pieces_make_the_same_text, bench_up, bench_down),
        cmocka_unit_test_setup_teardown(what_is_written_can_be_read, bench_up, bench_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
