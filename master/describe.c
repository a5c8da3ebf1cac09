/* describe.c - what this master offers, printed from the rows themselves */
#include "master/describe.h"

#include "shared/model.h"

/* ---- parts of a life: "rio prototyped deprecated:boston" ---- */

static void print_since(FILE *out, const char *life)
{
    const char *start = strchr(life, ':') && strchr(life, ':') < life + strcspn(life, " ")
                            ? strchr(life, ':') + 1
                            : life;

    fprintf(out, "%.*s", (int) strcspn(start, " ;"), start);
}

static void print_part(FILE *out, const char *life, const char *name)
{
    const char *at = strstr(life, name);

    if (at) {
        at += strlen(name);
        fprintf(out, "%.*s", (int) strcspn(at, " ;"), at);
    }
}

static const char *state_of(const char *life)
{
    if (strstr(life, "removed:"))
        return "removed";
    if (strstr(life, "deprecated:"))
        return "deprecated";
    return strstr(life, "prototyped") ? "prototyped" : "published";
}

static const char *yes(bool is)
{
    return is ? "yes" : "no";
}

static void print_type(FILE *out, const struct type *type)
{
    char text[256];

    type_print(text, sizeof text, type);
    fputs(text, out);
}

/* A default as the tables spell it. */
static void print_default(FILE *out, const struct type *type, const char *text)
{
    switch (type->kind) {
    case KIND_STRING:
        fprintf(out, "\"%s\"", text);
        break;
    case KIND_SET:
        fputs(*text ? text : "[]", out);
        break;
    case KIND_MAP:
        fputs(*text ? text : "{}", out);
        break;
    default:
        fputs(text, out);
    }
}

/* ---- sections ---- */

static void print_classes(FILE *out)
{
    fprintf(out, "# "
                 "classes\nclass\tsince\tlifecycle\tin_database\tpersistent\tgen_events\tpublic_"
                 "ctor_dtor\tget_all_records\n");
    for (int i = 0; i < CLASS_COUNT; i++) {
        const struct class *class = &model_classes[i];

        if (class->flags & CLASS_INTERNAL)
            continue;
        fprintf(out, "%s\t", class->name);
        print_since(out, class->life);
        fprintf(out, "\t%s\t%s\t%s\t%s\t%s\t%s\n", class->life,
                yes(class->flags & CLASS_IN_DATABASE), yes(class->flags & CLASS_PERSIST),
                yes(class->flags & CLASS_EVENTS), yes(class->flags & CLASS_CTOR_DTOR),
                yes(class->flags & CLASS_GET_ALL));
    }
}

static void print_fields(FILE *out)
{
    static const char *const qualifiers[] = {"RO", "StaticRO", "RW"};

    fprintf(out, "# "
                 "fields\nclass\tfield\tdb_"
                 "name\ttype\tqualifier\tdefault\tsince\tdeprecated\tremoved\tstate\tpersistent\t"
                 "internal_only\tinverse\n");
    for (int i = 0; i < CLASS_COUNT; i++) {
        const struct class *class = &model_classes[i];

        for (int j = 0; j < class->field_count && !(class->flags & CLASS_INTERNAL); j++) {
            const struct field *field = &class->fields[j];

            if (field->flags & FIELD_OURS)
                continue;
            fprintf(out, "%s\t%s\t%s\t", class->name, field->name, field->db_name);
            print_type(out, field->type);
            fprintf(out, "\t%s\t", qualifiers[field->qualifier]);
            if (field->default_text)
                print_default(out, field->type, field->default_text);
            fputc('\t', out);
            print_since(out, field->life);
            fputc('\t', out);
            print_part(out, field->life, "deprecated:");
            fputc('\t', out);
            print_part(out, field->life, "removed:");
            fprintf(out, "\t%s\t%s\t%s\t", state_of(field->life),
                    yes(!(field->flags & FIELD_VOLATILE)), yes(field->flags & FIELD_INTERNAL));
            if (field->flags & FIELD_INVERSE)
                fprintf(out, "%s.%s", field->inverse_class->name,
                        field->inverse_class->fields[field->inverse_field].name);
            else if (field->told && !(field->told->flags & FIELD_OURS))
                fprintf(out, "%s.%s", field->told->class->name, field->told->name);
            fputc('\n', out);
        }
    }
}

/* A row in the place of the setter that its field would have anyway. */
static bool is_derived_setter(const struct method *method)
{
    const struct field *field = strncmp(method->message, "set_", 4) == 0
                                    ? model_field(method->class, method->message + 4)
                                    : NULL;

    return field && field->qualifier == QUALIFIER_RW;
}

static const char *kind_of(const struct method *method)
{
    static const char *const kinds[] = {
        [METHOD_GET_RECORD] = "implicit",
        [METHOD_GET_BY_UUID] = "implicit",
        [METHOD_GET_BY_NAME_LABEL] = "implicit",
        [METHOD_GET_ALL] = "implicit",
        [METHOD_GET_ALL_RECORDS] = "implicit",
        [METHOD_GET_ALL_WHERE] = "where",
        [METHOD_GET_ALL_RECORDS_WHERE] = "where",
        [METHOD_GET] = "getter",
        [METHOD_SET] = "setter",
        [METHOD_ADD] = "add",
        [METHOD_REMOVE] = "remove",
        [METHOD_ADD_TO] = "add",
        [METHOD_REMOVE_FROM] = "remove",
    };

    if (method->flags & METHOD_CTOR)
        return "ctor";
    if (method->flags & METHOD_DTOR)
        return "dtor";
    if (method->kind == METHOD_CUSTOM)
        return is_derived_setter(method) ? "setter" : "custom";
    return kinds[method->kind];
}

/* The members of a constructor's record that a client may set. */
static void print_members(FILE *out, const struct class *class)
{
    const char *separator = "{";

    for (int i = 0; i < class->field_count; i++) {
        const struct field *field = &class->fields[i];

        if (field->qualifier == QUALIFIER_RO || field->flags & (FIELD_INTERNAL | FIELD_INVERSE))
            continue;
        fprintf(out, "%s%s:", separator, field->name);
        print_type(out, field->type);
        if (field->default_text) {
            fputc('=', out);
            print_default(out, field->type, field->default_text);
        }
        separator = ",";
    }
    fputc('}', out);
}

static void print_params(FILE *out, const struct method *method)
{
    for (int i = 0; i < method->param_count; i++) {
        const struct param *param = &method->params[i];

        fprintf(out, "%s%s:", i > 0 ? "; " : "", param->name);
        print_type(out, param->type);
        if (method->flags & METHOD_CTOR && param->type->kind == KIND_RECORD)
            print_members(out, param->type->class);
        if (param->default_text) {
            fputc('=', out);
            print_default(out, param->type, param->default_text);
            if (param->since && *param->since)
                fprintf(out, "@%s", param->since);
        }
    }
}

static void print_messages(FILE *out)
{
    size_t count;
    const struct method *const *methods = model_methods(&count);

    fprintf(out, "# "
                 "messages\nclass\tmessage\tparams\tresult\tasync\tsince\tdeprecated\tremoved\tstat"
                 "e\tkind\tneeds_session\t"
                 "hidden\tpool_internal\tsecret\tmin_role\n");
    for (size_t i = 0; i < count; i++) {
        const struct method *method = methods[i];

        fprintf(out, "%s\t%s\t", method->class->name, method->message);
        print_params(out, method);
        fputc('\t', out);
        print_type(out, method->result);
        fprintf(out, "\t%s\t", yes(method->is_async));
        print_since(out, method->life);
        fputc('\t', out);
        print_part(out, method->life, "deprecated:");
        fputc('\t', out);
        print_part(out, method->life, "removed:");
        fprintf(out, "\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", state_of(method->life), kind_of(method),
                yes(!(method->flags & METHOD_NO_SESSION)), yes(method->flags & METHOD_HIDDEN),
                yes(method->flags & METHOD_POOL_INTERNAL), yes(method->flags & METHOD_SECRET),
                role_name(method->role));
    }
}

#define V(constant, text, life)
#define ENUM(name, values) &enum_type_##name,
static const struct enum_type *const enums[] = {
#include "shared/model/enums.def"
};
#undef ENUM
#undef V

static void print_enums(FILE *out)
{
    fprintf(out, "# enums\nenum\tvalue\tsince\n");
    for (size_t i = 0; i < ARRAY_SIZE(enums); i++) {
        for (int j = 0; j < enums[i]->count; j++) {
            fprintf(out, "%s\t%s\t", enums[i]->name, enums[i]->texts[j]);
            print_since(out, enums[i]->lives[j]);
            fputc('\n', out);
        }
    }
}

static void print_errors(FILE *out)
{
    fprintf(out, "# errors\nerror\tparams\tsince\n");
    for (int code = ERR_NONE_ + 1; code < ERR_END_; code++) {
        const struct error_row *row = model_error(code);

        fprintf(out, "%s\t%s\t%s\n", row->code, row->params, row->life);
    }
}

static void print_flagged(FILE *out, const char *title, unsigned flag)
{
    size_t count, n = 0;
    const struct method *const *methods = model_methods(&count);

    fprintf(out, "# %s\nmessage\n", title);
    for (size_t i = 0; i < count; i++) {
        if (methods[i]->flags & flag) {
            fprintf(out, "%s\n", methods[i]->name);
            n++;
        }
    }
    fprintf(out, "# count %zu\n", n);
}

int describe(FILE *out)
{
    print_classes(out);
    print_fields(out);
    print_messages(out);
    print_enums(out);
    print_errors(out);
    print_flagged(out, "later", METHOD_LATER);
    print_flagged(out, "no_effect", METHOD_NO_EFFECT);
    return fflush(out) != 0 || ferror(out);
}
