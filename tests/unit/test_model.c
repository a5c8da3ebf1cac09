/* test_model.c - the rows against the reference tables (tests/reference, read at run time), and lookups
 *
 * Departures from the tables are stated where they are met: what is durable in departs(), one role among the messages. */
#include "shared/model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

/* ---- reading the tables ---- */

struct table {
    FILE *file;
    char *line;
    size_t room;
    char *cells[24];
    int count;
};

static struct table table_open(const char *name)
{
    struct table table = {0};
    char path[128];

    model_init();
    snprintf(path, sizeof path, "tests/reference/%s.tsv", name);
    table.file = fopen(path, "r");
    assert_non_null(table.file);
    assert_true(getline(&table.line, &table.room, table.file) > 0); /* the header */
    return table;
}

static bool table_next(struct table *table)
{
    char *rest;

    if (getline(&table->line, &table->room, table->file) <= 0) {
        fclose(table->file);
        free(table->line);
        return false;
    }
    table->line[strcspn(table->line, "\n")] = '\0';
    rest = table->line;
    table->count = 0;
    while (rest && table->count < (int) ARRAY_SIZE(table->cells))
        table->cells[table->count++] = strsep(&rest, "\t");
    return true;
}

static bool is_yes(const char *cell)
{
    return streq(cell, "yes");
}

/* Differences are printed, all of them, before the test fails. */
static int differences;

_printf_(1, 2) static void differs(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vprint_message(format, args);
    va_end(args);
    differences++;
}

/* "option(x)" is a matter of records only: the type is x. */
static const char *without_option(char *type)
{
    size_t length = strlen(type);

    if (strncmp(type, "option(", 7) != 0)
        return type;
    type[length - 1] = '\0';
    return type + 7;
}

/* ---- classes and fields ---- */

/* Tasks and messages are durable, sessions are not: a new master asks clients to log in again. */
static bool departs(const char *class)
{
    return streq(class, "task") || streq(class, "message") || streq(class, "session");
}

static void classes_are_those_of_the_reference(void **state)
{
    struct table table = table_open("classes");
    int count = 0;

    (void) state;
    differences = 0;
    while (table_next(&table)) {
        const struct class *class = model_class(table.cells[0]);

        if (!class) {
            differs("no class %s\n", table.cells[0]);
            continue;
        }
        count++;
        if (!(class->flags & CLASS_IN_DATABASE) == is_yes(table.cells[5]) && !departs(class->name))
            differs("%s: in_database\n", class->name);
        if (!(class->flags & CLASS_PERSIST) == is_yes(table.cells[6]) && !departs(class->name))
            differs("%s: persistent\n", class->name);
        if (!(class->flags & CLASS_EVENTS) == is_yes(table.cells[7]))
            differs("%s: gen_events\n", class->name);
    }
    for (int i = 0; i < CLASS_COUNT; i++)
        count -= !(model_classes[i].flags & CLASS_INTERNAL);
    assert_int_equal(count, 0);
    assert_int_equal(differences, 0);
}

static void fields_are_those_of_the_reference(void **state)
{
    static const char *const qualifiers[] = {"RO", "StaticRO", "RW"};
    struct table table = table_open("fields");
    int count = 0;

    (void) state;
    differences = 0;
    while (table_next(&table)) {
        const struct class *class = model_class(table.cells[0]);
        const struct field *field = class ? model_field(class, table.cells[1]) : NULL;
        char type[256];

        if (!field || !streq(field->name, table.cells[1])) {
            differs("no field %s.%s\n", table.cells[0], table.cells[1]);
            continue;
        }
        count++;
        type_print(type, sizeof type, field->type);
        if (!streq(field->db_name, table.cells[2]))
            differs("%s.%s: DB name %s\n", class->name, field->name, field->db_name);
        if (model_field(class, table.cells[2]) != field)
            differs("%s.%s is not found by its DB name\n", class->name, field->name);
        if (!streq(type, without_option(table.cells[3])))
            differs("%s.%s: type %s\n", class->name, field->name, type);
        if (!streq(qualifiers[field->qualifier], table.cells[4]))
            differs("%s.%s: qualifier %s\n", class->name, field->name, qualifiers[field->qualifier]);
        if (is_yes(table.cells[12]) != !!(field->flags & FIELD_INTERNAL))
            differs("%s.%s: internal_only\n", class->name, field->name);
        if (field->flags & FIELD_INVERSE && field->type->kind != KIND_SET)
            differs("%s.%s: an inverse that is no set\n", class->name, field->name);
    }
    for (int i = 0; i < CLASS_COUNT; i++)
        for (int j = 0; j < model_classes[i].field_count; j++)
            count -= !(model_classes[i].flags & CLASS_INTERNAL || model_classes[i].fields[j].flags & FIELD_OURS);
    assert_int_equal(count, 0);
    assert_int_equal(differences, 0);
}

static void fields_have_values_of_their_type(void **state)
{
    (void) state;
    model_init();
    for (int i = 0; i < CLASS_COUNT; i++) {
        const struct class *class = &model_classes[i];

        assert_int_equal(class->number, i);
        for (int j = 0; j < class->field_count; j++) {
            const struct field *field = &class->fields[j];

            assert_int_equal(field->number, j);
            if (field->flags & FIELD_INVERSE || field->type->kind == KIND_RECORD) {
                assert_int_equal(field->initial.kind, KIND_VOID);
            } else {
                assert_int_equal(field->initial.kind, field->type->kind);
            }
            if (field->flags & FIELD_INVERSE) {
                assert_ptr_equal(field->inverse_class->fields[field->inverse_field].told, field);
            }
            for (int k = 0; k < j; k++)
                assert_string_not_equal(class->fields[k].name, field->name);
        }
    }
}

/* ---- messages ---- */

/* "self:ref VM; value:string=x@release" against the parameters of a method. */
static bool params_are(const struct method *method, char *text)
{
    char *rest = *text ? text : NULL;
    int i = 0;

    if (method->flags & METHOD_CTOR) /* one record; its members are the fields that a client may set */
        return method->param_count == 1 && method->params[0].type->kind == KIND_RECORD;
    for (; rest; i++) {
        char *param = rest, *type, *end;
        char printed[256];

        rest = strstr(param, "; ");
        if (rest) {
            *rest = '\0';
            rest += 2;
        }
        type = strchr(param, ':');
        if (!type || i >= method->param_count)
            return false;
        *type++ = '\0';
        end = strpbrk(type, "=@");
        if (method->kind == METHOD_CUSTOM && (i >= method->params_required) != (end && *end == '='))
            return false;
        if (end)
            *end = '\0';
        type_print(printed, sizeof printed, method->params[i].type);
        if (!streq(printed, type) || !streq(method->params[i].name, param))
            return false;
    }
    return i == method->param_count;
}

/* A ctor's cell lists the members: they must be the fields that args_bind() takes from a client. */
static void check_ctor(const struct class *class, const char *text)
{
    for (int i = 0; i < class->field_count; i++) {
        const struct field *field = &class->fields[i];
        bool is_settable = field->qualifier != QUALIFIER_RO && !(field->flags & (FIELD_INTERNAL | FIELD_INVERSE));
        char first[128], later[128];

        snprintf(first, sizeof first, "{%s:", field->name);
        snprintf(later, sizeof later, ",%s:", field->name);
        if (is_settable != (strstr(text, first) || strstr(text, later)))
            differs("%s.create: member %s\n", class->name, field->name);
    }
}

static void messages_are_those_of_the_reference(void **state)
{
    struct table table = table_open("messages");
    const struct method *const *methods;
    size_t count, found = 0;

    (void) state;
    differences = 0;
    while (table_next(&table)) {
        const struct method *method;
        char name[128], result[256];
        struct {
            const char *what;
            bool is, should_be;
        } facts[6];

        snprintf(name, sizeof name, "%s.%s", table.cells[0], table.cells[1]);
        method = model_method(name);
        if (!method) {
            differs("no message %s\n", name);
            continue;
        }
        found++;
        if (method->flags & METHOD_CTOR)
            check_ctor(method->class, table.cells[2]);
        if (!params_are(method, table.cells[2]))
            differs("%s: parameters\n", name);
        type_print(result, sizeof result, method->result);
        if (!streq(result, without_option(table.cells[3])))
            differs("%s: result %s\n", name, result);
        facts[0] = (__typeof__(facts[0])){"async", method->is_async, is_yes(table.cells[4])};
        facts[1] = (__typeof__(facts[0])){"session", !(method->flags & METHOD_NO_SESSION), is_yes(table.cells[11])};
        facts[2] = (__typeof__(facts[0])){"hidden", method->flags & METHOD_HIDDEN, is_yes(table.cells[12])};
        facts[3] = (__typeof__(facts[0])){"pool_internal", method->flags & METHOD_POOL_INTERNAL, is_yes(table.cells[13])};
        facts[4] = (__typeof__(facts[0])){"secret", method->flags & METHOD_SECRET, is_yes(table.cells[14])};
        facts[5] = (__typeof__(facts[0])){"removed", method->flags & METHOD_REMOVED, *table.cells[8] != '\0'};
        for (size_t i = 0; i < ARRAY_SIZE(facts); i++)
            if (facts[i].is != facts[i].should_be)
                differs("%s: %s is %d\n", name, facts[i].what, facts[i].is);
        /* Ours is stricter: whatever a secret holds is read by those who may read the secret. */
        if (!streq(name, "secret.get_other_config")
            && !streq(role_name(method->role), *table.cells[16] ? table.cells[16] : "local-root"))
            differs("%s: role %s, not %s\n", name, role_name(method->role), table.cells[16]);
    }
    assert_int_equal(differences, 0);
    methods = model_methods(&count);
    assert_int_equal(found, count);
    for (size_t i = 1; i < count; i++)
        assert_true(strcmp(methods[i - 1]->name, methods[i]->name) < 0);
}

static void messages_are_found_by_both_spellings(void **state)
{
    (void) state;
    model_init();
    assert_ptr_equal(model_method("VM.start"), model_method_row(METHOD_NUMBER_VM_start));
    assert_ptr_equal(model_method("VM_start"), model_method("VM.start"));
    assert_ptr_equal(model_method("VM_metrics_get_memory_actual"), model_method("VM_metrics.get_memory_actual"));
    assert_ptr_equal(model_method("VM_get_name_label"), model_method("VM.get_name_label"));
    assert_int_equal(model_method("VM.get_name_label")->kind, METHOD_GET);
    assert_null(model_method("VM.get_nothing"));
    assert_null(model_method("vm.start"));
    assert_null(model_method(""));
    assert_null(model_method("_"));
    assert_null(model_method("VM.start_"));
    assert_ptr_equal(model_class_any_case("vm_METRICS", 10), CLASS_OF(VM_metrics));
    assert_null(model_class_any_case("vm_metric", 9));
}

/* ---- enums and errors ---- */

#define V(constant, text, life)
#define ENUM(name, values) &enum_type_##name,
static const struct enum_type *const enums[] = {
#include "shared/model/enums.def"
};
#undef ENUM
#undef V

static void enums_are_those_of_the_reference(void **state)
{
    struct table table = table_open("enums");
    int count = 0;

    (void) state;
    differences = 0;
    while (table_next(&table)) {
        const struct enum_type *type = NULL;

        for (size_t i = 0; i < ARRAY_SIZE(enums); i++)
            if (streq(enums[i]->name, table.cells[0]))
                type = enums[i];
        if (!type || enum_index(type, table.cells[1]) < 0)
            differs("no value %s of %s\n", table.cells[1], table.cells[0]);
        else
            count++;
    }
    assert_int_equal(differences, 0);
    assert_true(count > 300);
}

static void errors_are_those_of_the_reference(void **state)
{
    struct table table = table_open("errors");
    int code = ERR_NONE_, params;

    (void) state;
    differences = 0;
    while (table_next(&table)) {
        const struct error_row *row = NULL;

        for (code = ERR_NONE_ + 1; code < ERR_END_; code++)
            if (streq(model_error(code)->code, table.cells[0]))
                row = model_error(code);
        params = *table.cells[1] != '\0';
        for (const char *p = table.cells[1]; *p; p++)
            params += *p == ',';
        if (!row || row->param_count != params)
            differs("error %s\n", table.cells[0]);
    }
    assert_int_equal(differences, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(classes_are_those_of_the_reference),
        cmocka_unit_test(fields_are_those_of_the_reference),
        cmocka_unit_test(fields_have_values_of_their_type),
        cmocka_unit_test(messages_are_those_of_the_reference),
        cmocka_unit_test(messages_are_found_by_both_spellings),
        cmocka_unit_test(enums_are_those_of_the_reference),
        cmocka_unit_test(errors_are_those_of_the_reference),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
