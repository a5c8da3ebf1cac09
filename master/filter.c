/* filter.c - the expressions of get_all_where and get_all_records_where
 *
 *   expression   conjunction { or conjunction }
 *   conjunction  factor { and factor }
 *   factor       not factor | ( expression ) | true | false | operand = operand
 *   operand      field "name" | "text"
 *
 * A recursive descent that makes a tree in the call's arena. The text is a client's, so depth and
 * length are limited and every way out names what is wrong. */
#include "master/filter.h"

#include <ctype.h>

#include "master/record.h"
#include "shared/arena.h"
#include "shared/dbtext.h"

enum op { OP_TRUE, OP_FALSE, OP_NOT, OP_AND, OP_OR, OP_EQUAL };

struct operand {
    const struct field *field; /* NULL: the text counts */
    const char *text;
};

struct filter {
    enum op op;
    const struct filter *left, *right; /* of NOT only left */
    struct operand a, b;               /* of EQUAL */
};

struct parse {
    const char *whole, *at;
    const struct class *class;
    struct arena *arena;
    const char *reason; /* set once, by whoever gives up first */
    int depth;
};

/* ---- words ---- */

static void skip_space(struct parse *p)
{
    while (isspace((unsigned char) *p->at))
        p->at++;
}

static bool take_char(struct parse *p, char c)
{
    skip_space(p);
    if (*p->at != c)
        return false;
    p->at++;
    return true;
}

static bool take_word(struct parse *p, const char *word)
{
    size_t length = strlen(word);

    skip_space(p);
    if (strncmp(p->at, word, length) != 0 || isalnum((unsigned char) p->at[length])
        || p->at[length] == '_')
        return false;
    p->at += length;
    return true;
}

static void *give_up(struct parse *p, const char *reason)
{
    if (!p->reason)
        p->reason =
            arena_text(p->arena, "%s at character %zu", reason, (size_t) (p->at - p->whole) + 1);
    return NULL;
}

/* A text in quotes of either kind; a backslash takes the next character as it is. */
static const char *take_text(struct parse *p)
{
    const char *start;
    char quote, *out, *text;

    skip_space(p);
    quote = *p->at;
    if (quote != '"' && quote != '\'')
        return give_up(p, "a text in quotes was expected");
    start = ++p->at;
    while (*p->at && *p->at != quote)
        p->at += p->at[0] == '\\' && p->at[1] ? 2 : 1;
    if (!*p->at)
        return give_up(p, "the text has no end");
    out = text = arena_alloc(p->arena, (size_t) (p->at - start) + 1);
    for (const char *in = start; in < p->at; in++) {
        if (*in == '\\' && in + 1 < p->at)
            in++;
        *out++ = *in;
    }
    p->at++;
    return text;
}

/* ---- the grammar ---- */

static struct filter *node(struct parse *p, enum op op, const struct filter *left,
                           const struct filter *right)
{
    struct filter *filter = arena_new0(p->arena, struct filter);

    filter->op = op;
    filter->left = left;
    filter->right = right;
    return filter;
}

static bool parse_operand(struct parse *p, struct operand *ret)
{
    bool is_field = take_word(p, "field");

    ret->text = take_text(p);
    if (!ret->text)
        return false;
    if (is_field) {
        ret->field = model_field(p->class, ret->text);
        if (!ret->field || ret->field->flags & FIELD_INTERNAL) {
            ret->field = NULL;
            return give_up(
                p, arena_text(p->arena, "%s has no field \"%s\"", p->class->name, ret->text));
        }
    }
    return true;
}

static struct filter *parse_expression(struct parse *p);

static struct filter *parse_factor(struct parse *p)
{
    struct filter *filter = NULL;

    if (++p->depth > FILTER_DEPTH_MAX)
        return give_up(p, "too deep");
    if (take_word(p, "not")) {
        const struct filter *inner = parse_factor(p);

        filter = inner ? node(p, OP_NOT, inner, NULL) : NULL;
    } else if (take_word(p, "true")) {
        filter = node(p, OP_TRUE, NULL, NULL);
    } else if (take_word(p, "false")) {
        filter = node(p, OP_FALSE, NULL, NULL);
    } else if (take_char(p, '(')) {
        filter = parse_expression(p);
        if (filter && !take_char(p, ')'))
            return give_up(p, "a closing parenthesis was expected");
    } else {
        struct operand a = {0}, b = {0};

        if (!parse_operand(p, &a))
            return NULL;
        if (!take_char(p, '='))
            return give_up(p, "'=' was expected");
        if (!parse_operand(p, &b))
            return NULL;
        filter = node(p, OP_EQUAL, NULL, NULL);
        filter->a = a;
        filter->b = b;
    }
    p->depth--;
    return filter;
}

/* Chains lean to the left; evaluation and filter_uuid() follow them without recursion, however long
 * they are. */
static struct filter *parse_chain(struct parse *p, struct filter *(*inner)(struct parse *),
                                  const char *word, enum op op)
{
    struct filter *filter = inner(p);

    while (filter && take_word(p, word)) {
        struct filter *right = inner(p);

        filter = right ? node(p, op, filter, right) : NULL;
    }
    return filter;
}

static struct filter *parse_conjunction(struct parse *p)
{
    return parse_chain(p, parse_factor, "and", OP_AND);
}

static struct filter *parse_expression(struct parse *p)
{
    return parse_chain(p, parse_conjunction, "or", OP_OR);
}

int filter_parse(const char *text, const struct class *class, struct arena *arena,
                 struct filter **ret, struct failure *failure)
{
    struct parse p = {.whole = text, .at = text, .class = class, .arena = arena};
    struct filter *filter;

    if (strlen(text) > FILTER_BYTES_MAX)
        return failure_set(failure, arena, INVALID_VALUE, "expr", "the expression is too long");
    filter = parse_expression(&p);
    skip_space(&p);
    if (filter && *p.at)
        filter = give_up(&p, "the end was expected");
    if (!filter)
        return failure_set(failure, arena, INVALID_VALUE, text, p.reason);
    *ret = filter;
    return 0;
}

/* ---- evaluation ---- */

static const char *operand_text(const struct operand *operand, const struct view *view,
                                const struct object *object, struct arena *scratch)
{
    _cleanup_(buffer_done) struct buffer text = {0};
    struct value value;

    if (!operand->field)
        return operand->text;
    value = record_field(view, object, operand->field, scratch);
    if (value.kind == KIND_STRING)
        return value.text;
    buffer_init(&text, SIZE_MAX);
    dbtext_print(&text, &value);
    return arena_dup(scratch, text.bytes, text.length);
}

/* Depth is bounded by the parser for what nests; chains of `and` and `or` are walked. */
bool filter_matches(const struct filter *filter, const struct view *view,
                    const struct object *object, struct arena *scratch)
{
    enum op op = filter->op;

    switch (op) {
    case OP_TRUE:
        return true;
    case OP_FALSE:
        return false;
    case OP_NOT:
        return !filter_matches(filter->left, view, object, scratch);
    case OP_EQUAL:
        return streq(operand_text(&filter->a, view, object, scratch),
                     operand_text(&filter->b, view, object, scratch));
    case OP_AND:
    case OP_OR:
        break;
    }
    for (; filter->op == op; filter = filter->left)
        if (filter_matches(filter->right, view, object, scratch) != (op == OP_AND))
            return op == OP_OR;
    return filter_matches(filter, view, object, scratch);
}

const char *filter_uuid(const struct filter *filter)
{
    for (; filter->op == OP_AND; filter = filter->left) {
        const char *uuid = filter_uuid(filter->right);

        if (uuid)
            return uuid;
    }
    if (filter->op != OP_EQUAL)
        return NULL;
    if (filter->a.field && !filter->b.field && streq(filter->a.field->name, "uuid"))
        return filter->b.text;
    if (filter->b.field && !filter->a.field && streq(filter->b.field->name, "uuid"))
        return filter->a.text;
    return NULL;
}
