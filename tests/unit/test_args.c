/* test_args.c - counts, conversions, errors and argument structs; failures */
#include "shared/args.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "shared/arena.h"
#include "shared/failure.h"
#include "shared/model.h"

#define REF_TEXT "OpaqueRef:12345678-1234-4abc-8def-123456789abc"

/* One binding: what it needs, and what came of it. */
struct bench {
    struct arena *arena;
    struct failure failure;
    struct value values[64];
    char said[512]; /* the failure as one line */
};

static int bench_up(void **state)
{
    struct bench *bench = new0(struct bench);

    model_init();
    bench->arena = arena_new();
    *state = bench;
    return 0;
}

static int bench_down(void **state)
{
    struct bench *bench = *state;

    arena_destroy(&bench->arena);
    free(bench);
    return 0;
}

static const char *said(struct bench *bench)
{
    size_t used = (size_t) snprintf(bench->said, sizeof bench->said, "%s", bench->failure.text);

    for (unsigned i = 0; i < bench->failure.count; i++)
        used += (size_t) snprintf(bench->said + used, sizeof bench->said - used, "|%s", bench->failure.params[i]);
    return bench->said;
}

static struct value map_of(struct bench *bench, unsigned pairs, ...)
{
    struct value *items = arena_alloc(bench->arena, 2 * pairs * sizeof *items);
    va_list args;

    va_start(args, pairs);
    for (unsigned i = 0; i < pairs; i++) {
        items[2 * i] = value_text(va_arg(args, const char *));
        items[2 * i + 1] = va_arg(args, struct value);
    }
    va_end(args);
    return VALUE_MAP(pairs, items);
}

#define bind(bench, method, args, ...)                                                             \
    args_bind(model_method(method), (const struct value[]){__VA_ARGS__},                           \
              (unsigned) ARRAY_SIZE(((const struct value[]){__VA_ARGS__})), (bench)->arena, (args), \
              (bench)->values, &(bench)->failure)

static void arguments_fill_the_struct(void **state)
{
    struct bench *bench = *state;
    struct VM_start_args args;

    assert_int_equal(bind(bench, "VM.start", &args, value_text(REF_TEXT), VALUE_BOOL(false), VALUE_BOOL(true)), 0);
    assert_int_equal(args.vm.hi, 0x1234567812344abc);
    assert_false(args.start_paused);
    assert_true(args.force);
    assert_int_equal(bench->values[2].kind, KIND_BOOL);
}

static void all_kinds_of_arguments_are_stored(void **state)
{
    struct bench *bench = *state;
    struct event_from_args from;
    struct VM_set_memory_limits_args limits;
    struct VM_pool_migrate_args move;
    struct value class = value_text("VM"), options = map_of(bench, 1, "live", value_text("true"));

    assert_int_equal(bind(bench, "event.from", &from, VALUE_SET(1, &class), value_text("0,0"), VALUE_INT(60)), 0);
    assert_int_equal(from.classes->length, 1);
    assert_string_equal(from.token, "0,0");
    assert_true(from.timeout == 60.0);
    assert_int_equal(bind(bench, "VM.set_memory_limits", &limits, value_text(REF_TEXT), value_text("1"), VALUE_INT(2),
                          value_text("-3"), value_text("9223372036854775807")),
                     0);
    assert_int_equal(limits.static_min, 1);
    assert_int_equal(limits.dynamic_min, -3);
    assert_true(limits.dynamic_max == INT64_MAX);
    assert_int_equal(bind(bench, "VM.pool_migrate", &move, value_text(REF_TEXT), value_text("OpaqueRef:NULL"), options),
                     0);
    assert_true(ref_is_null(move.host));
    assert_string_equal(value_map_text(move.options, "live", ""), "true");
}

static void trailing_arguments_may_be_left_out(void **state)
{
    struct bench *bench = *state;
    struct session_login_with_password_args args;

    assert_int_equal(bind(bench, "session.login_with_password", &args, value_text("u"), value_text("p")), 0);
    assert_string_equal(args.version, "1.1");
    assert_string_equal(args.originator, "");
    assert_true(bind(bench, "session.login_with_password", &args, value_text("u")) < 0);
    assert_string_equal(said(bench), "MESSAGE_PARAMETER_COUNT_MISMATCH|session.login_with_password|2|1");
    assert_true(bind(bench, "VM.start", NULL, value_text(REF_TEXT), VALUE_BOOL(0), VALUE_BOOL(0), VALUE_BOOL(0)) < 0);
    assert_string_equal(said(bench), "MESSAGE_PARAMETER_COUNT_MISMATCH|VM.start|3|4");
}

static void every_default_of_the_model_is_typed(void **state)
{
    size_t count;
    const struct method *const *methods = model_methods(&count);

    (void) state;
    for (size_t i = 0; i < count; i++)
        for (int j = methods[i]->params_required; j < methods[i]->param_count; j++)
            assert_int_equal(methods[i]->params[j].initial.kind, methods[i]->params[j].type->kind);
}

static void wrong_values_are_named(void **state)
{
    struct bench *bench = *state;
    struct value list = VALUE_EMPTY_SET;

    bind(bench, "VM.start", NULL, value_text("vm1"), VALUE_BOOL(0), VALUE_BOOL(0));
    assert_string_equal(said(bench), "HANDLE_INVALID|VM|vm1");
    bind(bench, "VM.start", NULL, value_text(""), VALUE_BOOL(0), VALUE_BOOL(0));
    assert_string_equal(said(bench), "HANDLE_INVALID|VM|");
    bind(bench, "VM.start", NULL, value_text("OpaqueRef:12345678-1234-4ABC-8def-123456789abc"), VALUE_BOOL(0), VALUE_BOOL(0));
    assert_string_equal(said(bench), "HANDLE_INVALID|VM|OpaqueRef:12345678-1234-4ABC-8def-123456789abc");
    bind(bench, "VM.start", NULL, value_text(REF_TEXT), value_text("false"), VALUE_BOOL(0));
    assert_string_equal(said(bench), "FIELD_TYPE_ERROR|start_paused");
    bind(bench, "VM.set_name_label", NULL, value_text(REF_TEXT), list);
    assert_string_equal(said(bench), "FIELD_TYPE_ERROR|value");
    bind(bench, "VM.set_name_label", NULL, value_text(REF_TEXT), value_text("a\xff"));
    assert_string_equal(said(bench), "INVALID_VALUE|Invalid UTF-8 string in parameter|a?");
    bind(bench, "VM.set_name_label", NULL, value_text(REF_TEXT), value_text("bell\x07"));
    assert_string_equal(said(bench), "INVALID_VALUE|Invalid UTF-8 string in parameter|bell?");
    bind(bench, "VM.set_actions_after_reboot", NULL, value_text(REF_TEXT), value_text("dance"));
    assert_string_equal(said(bench), "INVALID_VALUE|value|dance");
    bind(bench, "VM.set_user_version", NULL, value_text(REF_TEXT), value_text("12x"));
    assert_string_equal(said(bench), "INVALID_VALUE|value|12x");
    bind(bench, "VM.set_user_version", NULL, value_text(REF_TEXT), value_text("9223372036854775808"));
    assert_string_equal(said(bench), "INVALID_VALUE|value|9223372036854775808");
    bind(bench, "VM.set_user_version", NULL, value_text(REF_TEXT), VALUE_FLOAT(1));
    assert_string_equal(said(bench), "FIELD_TYPE_ERROR|value");
    bind(bench, "event.from", NULL, value_text("VM"), value_text(""), VALUE_FLOAT(1));
    assert_string_equal(said(bench), "FIELD_TYPE_ERROR|classes");
    bind(bench, "event.from", NULL, list, value_text(""), value_text("1.5"));
    assert_string_equal(said(bench), "FIELD_TYPE_ERROR|timeout");
}

static void collections_are_converted_inside(void **state)
{
    const struct type ref = {.kind = KIND_REF, .class = CLASS_OF(VM)};
    const struct type refs = {.kind = KIND_SET, .element = &ref};
    const struct type integer = {.kind = KIND_INT}, datetime = {.kind = KIND_DATETIME};
    const struct type numbers = {.kind = KIND_MAP, .key = &integer, .element = &datetime};
    struct bench *bench = *state;
    struct value items[] = {value_text(REF_TEXT), value_text(""), value_text(REF_TEXT)}, ret, raw = VALUE_SET(3, items);
    struct value many[5000];

    assert_int_equal(value_type_check(&refs, &raw, "vms", PLACE_PARAMETER, bench->arena, &ret, &bench->failure), 0);
    assert_int_equal(ret.length, 2); /* the repeated one is the same */
    assert_true(ref_is_null(ret.items[1].ref));
    items[1] = value_text("x");
    assert_true(value_type_check(&refs, &raw, "vms", PLACE_PARAMETER, bench->arena, &ret, &bench->failure) < 0);
    assert_string_equal(said(bench), "HANDLE_INVALID|VM|x");

    raw = map_of(bench, 2, "-7", value_text("19700101T00:00:09Z"), "8", VALUE_DATETIME(5));
    assert_int_equal(value_type_check(&numbers, &raw, "m", PLACE_PARAMETER, bench->arena, &ret, &bench->failure), 0);
    assert_int_equal(ret.items[0].i, -7);
    assert_int_equal(ret.items[1].i, 9);
    assert_int_equal(ret.items[3].kind, KIND_DATETIME);
    raw = map_of(bench, 2, "8", VALUE_DATETIME(5), "+8", VALUE_DATETIME(5));
    assert_true(value_type_check(&numbers, &raw, "m", PLACE_PARAMETER, bench->arena, &ret, &bench->failure) < 0);
    assert_string_equal(said(bench), "INVALID_VALUE|m|8");

    for (size_t i = 0; i < ARRAY_SIZE(many); i++)
        many[i] = value_text(REF_TEXT);
    raw = VALUE_SET((uint32_t) ARRAY_SIZE(many), many);
    assert_true(value_type_check(&refs, &raw, "vms", PLACE_PARAMETER, bench->arena, &ret, &bench->failure) < 0);
    assert_string_equal(said(bench), "INVALID_VALUE|vms|" REF_TEXT);
}

static void constructors_take_what_a_client_may_set(void **state)
{
    struct bench *bench = *state;
    struct VBD_create_args args;
    struct value raw = map_of(bench, 8, "VM", value_text(REF_TEXT), "VDI", value_text(""), "mode", value_text("RW"),
                              "type", value_text("Disk"), "bootable", VALUE_BOOL(true), "unknown", value_text("x"),
                              "uuid", value_text("mine"), "userdevice", value_text("0"));
    const struct value *fields;

    assert_int_equal(bind(bench, "VBD.create", &args, raw), 0);
    assert_ptr_equal(args.args, &bench->values[0]);
    assert_ptr_equal(args.args->record.class, CLASS_OF(VBD));
    fields = args.args->record.fields;
    assert_false(ref_is_null(fields[F_VBD_VM].ref));
    assert_true(ref_is_null(fields[F_VBD_VDI].ref));
    assert_int_equal(fields[F_VBD_mode].e.index, enum_index(&enum_type_vbd_mode, "RW"));
    assert_string_equal(fields[F_VBD_uuid].text, "");        /* given, but not theirs to set */
    assert_true(fields[F_VBD_unpluggable].b);                /* default of the row */
    assert_int_equal(fields[F_VBD_other_config].kind, KIND_MAP); /* no default: empty */
    assert_int_equal(fields[F_VBD_other_config].length, 0);
    assert_string_equal(fields[F_VBD_userdevice].text, "0");

    raw = map_of(bench, 4, "VM", value_text(REF_TEXT), "mode", value_text("RW"), "type", value_text("CD"), "userdevice",
                 value_text("cut\x02here"));
    assert_int_equal(bind(bench, "VBD.create", &args, raw), 0);
    assert_string_equal(args.args->record.fields[F_VBD_userdevice].text, "cut");
    raw = map_of(bench, 1, "VM", value_text(REF_TEXT));
    assert_true(bind(bench, "VBD.create", &args, raw) < 0);
    assert_string_equal(said(bench), "INVALID_VALUE|mode|");
    raw = map_of(bench, 1, "VM", VALUE_INT(3));
    assert_true(bind(bench, "VBD.create", &args, raw) < 0);
    assert_string_equal(said(bench), "FIELD_TYPE_ERROR|VM");
    assert_true(bind(bench, "VBD.create", &args, value_text("x")) < 0);
    assert_string_equal(said(bench), "FIELD_TYPE_ERROR|args");
}

static void failures_can_be_printed_whatever_they_hold(void **state)
{
    struct bench *bench = *state;
    char *longer = arena_alloc(bench->arena, 2 * FAILURE_PARAM_BYTES_MAX);
    const char *params[] = {"a\x80\x01z", longer};

    memset(longer, 'x', 2 * FAILURE_PARAM_BYTES_MAX - 1);
    memcpy(longer + FAILURE_PARAM_BYTES_MAX - 1, "\xc3\xbc", 2); /* a character across the cut */
    assert_int_equal(failure_set_text(&bench->failure, bench->arena, "Fault", 2, params), -ERR_NONE_);
    assert_string_equal(bench->failure.params[0], "a??z");
    assert_int_equal(strlen(bench->failure.params[1]), FAILURE_PARAM_BYTES_MAX - 1);
    assert_int_equal(failure_set_text(&bench->failure, bench->arena, "VM_BAD_POWER_STATE", 0, NULL),
                     -ERR_VM_BAD_POWER_STATE);
    assert_int_equal(failure_set(&bench->failure, bench->arena, VM_BAD_POWER_STATE, "vm", "running", "halted"),
                     -ERR_VM_BAD_POWER_STATE);
    assert_string_equal(said(bench), "VM_BAD_POWER_STATE|vm|running|halted");
    assert_int_equal(failure_set(&bench->failure, bench->arena, MESSAGE_REMOVED), -ERR_MESSAGE_REMOVED);
    assert_string_equal(said(bench), "MESSAGE_REMOVED");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(arguments_fill_the_struct, bench_up, bench_down),
        cmocka_unit_test_setup_teardown(all_kinds_of_arguments_are_stored, bench_up, bench_down),
        cmocka_unit_test_setup_teardown(trailing_arguments_may_be_left_out, bench_up, bench_down),
        cmocka_unit_test_setup_teardown(every_default_of_the_model_is_typed, bench_up, bench_down),
        cmocka_unit_test_setup_teardown(wrong_values_are_named, bench_up, bench_down),
        cmocka_unit_test_setup_teardown(collections_are_converted_inside, bench_up, bench_down),
        cmocka_unit_test_setup_teardown(constructors_take_what_a_client_may_set, bench_up, bench_down),
        cmocka_unit_test_setup_teardown(failures_can_be_printed_whatever_they_hold, bench_up, bench_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
