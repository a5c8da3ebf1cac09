/* xmlrpc_read.c - XML-RPC text as values
 *
 *   bytes -> tags_are_short() -> libxml2 push parser -> open_tag, text, close_tag -> pile -> arena
 *
 * The grammar is one table: which element may stand in which. A stack holds the open elements; a value that ends
 * goes on the pile, and the set or struct around it takes its items from there.
 *
 * libxml2's contexts are costly to make, so each thread keeps one for the next document. One that has met an
 * error, or has learned too many names, is thrown away. */
#include "shared/xmlrpc.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <strings.h>

#include <libxml/parser.h>
#include <libxml/parserInternals.h>

#include "shared/arena.h"
#include "shared/base64.h"
#include "shared/mend.h"
#include "shared/pile.h"

/* ---- the grammar ---- */

enum element {
    AT_ROOT,
    METHOD_CALL,
    METHOD_RESPONSE,
    METHOD_NAME,
    PARAMS,
    PARAM,
    VALUE,
    ARRAY,
    DATA,
    STRUCT,
    MEMBER,
    NAME,
    /* The scalars, which hold only text. */
    STRING,
    INT,
    BOOLEAN,
    DOUBLE,
    DATETIME,
    BASE64,
    NIL,
    ELEMENT_COUNT,
};

#define IN(element) (1u << (element))

static const struct {
    const char *name;
    uint32_t parents;  /* the elements it may stand in */
    bool is_repeated;  /* more than once there */
    bool has_text;     /* other than white space */
} grammar[ELEMENT_COUNT] = {
    [METHOD_CALL] = {"methodCall", IN(AT_ROOT)},
    [METHOD_RESPONSE] = {"methodResponse", IN(AT_ROOT)},
    [METHOD_NAME] = {"methodName", IN(METHOD_CALL), .has_text = true},
    [PARAMS] = {"params", IN(METHOD_CALL) | IN(METHOD_RESPONSE)},
    [PARAM] = {"param", IN(PARAMS), .is_repeated = true},
    [VALUE] = {"value", IN(AT_ROOT) | IN(PARAM) | IN(DATA) | IN(MEMBER), .has_text = true},
    [ARRAY] = {"array", IN(VALUE)},
    [DATA] = {"data", IN(ARRAY)},
    [STRUCT] = {"struct", IN(VALUE)},
    [MEMBER] = {"member", IN(STRUCT), .is_repeated = true},
    [NAME] = {"name", IN(MEMBER), .has_text = true},
    [STRING] = {"string", IN(VALUE), .has_text = true},
    [INT] = {"int", IN(VALUE), .has_text = true},
    [BOOLEAN] = {"boolean", IN(VALUE), .has_text = true},
    [DOUBLE] = {"double", IN(VALUE), .has_text = true},
    [DATETIME] = {"dateTime.iso8601", IN(VALUE), .has_text = true},
    [BASE64] = {"base64", IN(VALUE), .has_text = true},
    [NIL] = {"nil", IN(VALUE)},
};

static enum element element_of(const char *name)
{
    for (int element = METHOD_CALL; element < ELEMENT_COUNT; element++)
        if (*name == *grammar[element].name && streq(name, grammar[element].name))
            return (enum element) element;
    if (streq(name, "i4") || streq(name, "i8"))
        return INT;
    return AT_ROOT;
}

/* An open element. */
struct frame {
    enum element element;
    uint32_t children;  /* which elements it has had */
    uint32_t mark;      /* the pile when it began */
};

/* Around a value stand methodCall, params, param; each level of values adds value, array, data or value, struct, member. */
#define FRAMES_MAX (5 + 3 * XMLRPC_DEPTH_MAX)

/* Where the bytes of a document are, as far as tags go. */
enum scan_state { IN_TEXT, IN_TAG_START, IN_TAG, IN_QUOTES, IN_BANG, IN_COMMENT, IN_CDATA, IN_INSTRUCTION };

struct xmlrpc_parser {
    struct arena *arena;
    xmlParserCtxtPtr context;
    struct frame frames[FRAMES_MAX];
    unsigned depth;          /* frames in use; [0] is AT_ROOT */
    unsigned values_depth;
    struct pile pile;
    struct buffer text;      /* of the innermost element */
    const char *method;
    const char *reason;      /* why the document is bad; NULL while it is not */
    bool is_bare;            /* the document is one <value> */
    bool is_too_deep;        /* that is why: a call all the same */
    bool is_mended;          /* texts may hold marks */
    const char *bad_text;    /* the first that did, or that no text was in <base64> */
    bool is_ended;           /* the root element has closed */
    enum scan_state scan;
    char quote;              /* IN_QUOTES: which */
    char last[2];            /* IN_COMMENT and others: the two bytes before */
    uint32_t tag_bytes;
};

/* A document is at most as long as the request's body; this bounds what an encoding may make of it. */
#define TEXT_BYTES_MAX (64u << 20)

/* ---- errors ---- */

_printf_(2, 3) static void refuse(struct xmlrpc_parser *parser, const char *format, ...)
{
    va_list args;

    if (parser->reason)
        return;
    va_start(args, format);
    parser->reason = arena_text_v(parser->arena, format, args);
    va_end(args);
    xmlStopParser(parser->context);
}

static void on_error(void *user, xmlErrorPtr error)
{
    struct xmlrpc_parser *parser = user;
    size_t length = error->message ? strcspn(error->message, "\n") : 0;

    if (!parser->reason && error->level == XML_ERR_FATAL)
        parser->reason = arena_text(parser->arena, "line %d: %.*s", error->line, (int) length, error->message);
}

/* ---- values ---- */

static void push(struct xmlrpc_parser *parser, struct value value)
{
    if (!pile_push(&parser->pile, value))
        refuse(parser, "more than %u values", parser->pile.pushed_max);
}

/* The arena keeps all that a document gives us; its limit, if it has one, is kept. */
static bool has_room(struct xmlrpc_parser *parser, size_t bytes)
{
    if (arena_room(parser->arena, bytes))
        return true;
    refuse(parser, "the document takes too much memory");
    return false;
}

static void note_bad_text(struct xmlrpc_parser *parser, const char *text)
{
    if (!parser->bad_text)
        parser->bad_text = text;
}

static struct value text_value(struct xmlrpc_parser *parser)
{
    struct value value = value_text("");

    if (parser->text.length > 0 && has_room(parser, parser->text.length + 1)) {
        char *text = arena_dup(parser->arena, parser->text.bytes, parser->text.length);

        value.text = text;
        value.length = (uint32_t) parser->text.length;
        if (parser->is_mended && mend_has_mark(text, value.length)) {
            value.length = (uint32_t) mend_unmark(text, value.length);
            note_bad_text(parser, text);
        }
    }
    return value;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool is_blank(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (!is_space(text[i]))
            return false;
    return true;
}

/* The text without white space around it, with a NUL. */
static const char *trimmed_text(struct xmlrpc_parser *parser)
{
    struct buffer *text = &parser->text;
    size_t start = 0;

    while (text->length > 0 && is_space(text->bytes[text->length - 1]))
        text->length--;
    while (start < text->length && is_space(text->bytes[start]))
        start++;
    return buffer_text(text) ? text->bytes + start : "";
}

/* A number that is none, or does not fit, stays text: args_bind() then says which argument it is. */
static struct value int_value(struct xmlrpc_parser *parser)
{
    const char *text = trimmed_text(parser);
    char *end;
    long long number;

    errno = 0;
    number = strtoll(text, &end, 10);
    if (end == text || *end || errno)
        return text_value(parser);
    return VALUE_INT(number);
}

static struct value double_value(struct xmlrpc_parser *parser)
{
    const char *text = trimmed_text(parser);
    char *end;
    double number = strtod(text, &end);

    if (end == text || *end || strpbrk(text, "xX(")) {
        refuse(parser, "<double> holds no number");
        return VALUE_VOID;
    }
    return VALUE_FLOAT(number);
}

static struct value boolean_value(struct xmlrpc_parser *parser)
{
    const char *text = trimmed_text(parser);

    if (streq(text, "1") || streq(text, "true"))
        return VALUE_BOOL(true);
    if (!streq(text, "0") && !streq(text, "false"))
        refuse(parser, "<boolean> holds neither 0 nor 1");
    return VALUE_BOOL(false);
}

static struct value datetime_value(struct xmlrpc_parser *parser)
{
    const char *text = trimmed_text(parser);
    int64_t utc_s;

    if (datetime_parse(text, strlen(text), &utc_s))
        return VALUE_DATETIME(utc_s);
    return text_value(parser);
}

/* Decoded in place. The bytes may be no valid text. */
static struct value base64_value(struct xmlrpc_parser *parser)
{
    struct buffer *text = &parser->text;
    struct value value;
    uint32_t bits = 0, digits = 0, padding = 0;
    size_t decoded = 0;

    for (size_t i = 0; i < text->length; i++) {
        int digit = base64_digit(text->bytes[i]);

        if (is_space(text->bytes[i]))
            continue;
        if (text->bytes[i] == '=') {
            padding++;
            continue;
        }
        if (digit < 0 || padding > 0)
            goto bad;
        bits = bits << 6 | (uint32_t) digit;
        if (++digits % 4 != 1)
            text->bytes[decoded++] = (char) (bits >> (6 - 2 * ((digits - 1) % 4)));
    }
    if (digits % 4 == 1 || (digits + padding) % 4 != 0 || padding > 2)
        goto bad;
    text->length = decoded;
    value = text_value(parser);
    if (!text_is_utf8(value.text, value.length))
        note_bad_text(parser, value.text);
    return value;
bad:
    refuse(parser, "<base64> holds something else");
    return VALUE_VOID;
}

static struct value scalar_value(struct xmlrpc_parser *parser, enum element element)
{
    switch (element) {
    case INT:
        return int_value(parser);
    case BOOLEAN:
        return boolean_value(parser);
    case DOUBLE:
        return double_value(parser);
    case DATETIME:
        return datetime_value(parser);
    case BASE64:
        return base64_value(parser);
    case NIL:
        return (struct value){.kind = KIND_NIL};
    default:
        return text_value(parser);
    }
}

/* ---- what libxml2 calls ---- */

static void open_tag(void *user, const xmlChar *name, const xmlChar *prefix, const xmlChar *uri, int namespaces,
                     const xmlChar **namespace_list, int attributes, int defaulted, const xmlChar **attribute_list)
{
    struct xmlrpc_parser *parser = user;
    struct frame *parent = &parser->frames[parser->depth - 1];
    enum element element = element_of((const char *) name);

    (void) prefix, (void) uri, (void) namespaces, (void) namespace_list;
    (void) attributes, (void) defaulted, (void) attribute_list;
    if (parser->reason)
        return;
    if (element == AT_ROOT || !(grammar[element].parents & IN(parent->element))
        || (parent->element == AT_ROOT && (element == VALUE) != parser->is_bare)) {
        refuse(parser, "<%.64s> stands where it must not", (const char *) name);
        return;
    }
    /* A <value> holds one thing only. */
    if ((parent->children & IN(element) && !grammar[element].is_repeated && parent->element != DATA)
        || (parent->element == VALUE && parent->children)) {
        refuse(parser, "a second <%s>", grammar[element].name);
        return;
    }
    if (parent->element == MEMBER && element == VALUE && !(parent->children & IN(NAME))) {
        refuse(parser, "<member> whose <name> does not come first");
        return;
    }
    if (!is_blank(parser->text.bytes, parser->text.length)) {
        refuse(parser, "text beside <%s>", grammar[element].name);
        return;
    }
    if (element == VALUE && ++parser->values_depth > XMLRPC_DEPTH_MAX) {
        refuse(parser, "values nested deeper than %d", XMLRPC_DEPTH_MAX);
        parser->is_too_deep = parser->reason != NULL;
        return;
    }
    assert(parser->depth < FRAMES_MAX);
    parent->children |= IN(element);
    parser->frames[parser->depth++] = (struct frame){.element = element, .mark = parser->pile.count};
    buffer_clear(&parser->text);
}

static void take_set(struct xmlrpc_parser *parser, uint32_t mark)
{
    uint32_t count = parser->pile.count - mark;

    if (has_room(parser, count * sizeof(struct value))) {
        const struct value *items = pile_take(&parser->pile, mark, parser->arena);

        push(parser, VALUE_SET(count, items));
    }
}

static void take_map(struct xmlrpc_parser *parser, uint32_t mark)
{
    uint32_t count = parser->pile.count - mark;

    if (has_room(parser, count * sizeof(struct value))) {
        const struct value *items = pile_take(&parser->pile, mark, parser->arena);

        push(parser, VALUE_MAP(count / 2, items));
    }
}

static void close_tag(void *user, const xmlChar *name, const xmlChar *prefix, const xmlChar *uri)
{
    struct xmlrpc_parser *parser = user;
    struct frame frame;

    (void) name, (void) prefix, (void) uri;
    if (parser->reason)
        return;
    assert(parser->depth > 1);
    frame = parser->frames[--parser->depth];
    switch (frame.element) {
    case METHOD_NAME:
        if (parser->is_mended && mend_has_mark(parser->text.bytes, parser->text.length))
            refuse(parser, "bad characters in <methodName>");
        else if (has_room(parser, parser->text.length + 1))
            parser->method = arena_strdup(parser->arena, trimmed_text(parser));
        break;
    case PARAM:
        if (!(frame.children & IN(VALUE)))
            refuse(parser, "<param> without <value>");
        break;
    case VALUE:
        parser->values_depth--;
        if (frame.children == 0)
            push(parser, text_value(parser));
        parser->is_ended = parser->depth == 1;
        break;
    case NAME:
        push(parser, text_value(parser));
        break;
    case MEMBER:
        if (frame.children != (IN(NAME) | IN(VALUE)))
            refuse(parser, "<member> without <name> and <value>");
        break;
    case ARRAY:
        if (!(frame.children & IN(DATA)))
            refuse(parser, "<array> without <data>");
        else
            take_set(parser, frame.mark);
        break;
    case STRUCT:
        take_map(parser, frame.mark);
        break;
    case METHOD_CALL:
        parser->is_ended = true;
        if (!parser->method || !*parser->method)
            refuse(parser, "no <methodName>");
        break;
    case METHOD_RESPONSE:
        parser->is_ended = true;
        if (parser->pile.count != 1)
            refuse(parser, "not one value in <methodResponse>");
        break;
    case PARAMS:
    case DATA:
        break;
    default:
        push(parser, scalar_value(parser, frame.element));
    }
    buffer_clear(&parser->text);
}

static void add_text(void *user, const xmlChar *text, int length)
{
    struct xmlrpc_parser *parser = user;
    const struct frame *frame = &parser->frames[parser->depth - 1];

    if (parser->reason)
        return;
    if (!grammar[frame->element].has_text || (frame->element == VALUE && frame->children)) {
        if (!is_blank((const char *) text, (size_t) length))
            refuse(parser, "text where none may be");
        return;
    }
    buffer_add(&parser->text, text, (size_t) length);
    if (parser->text.is_full)
        refuse(parser, "the document takes too much memory");
}

/* A document type could bring entities of its own: none is accepted. */
static void refuse_doctype(void *user, const xmlChar *name, const xmlChar *external, const xmlChar *system)
{
    (void) name, (void) external, (void) system;
    refuse(user, "a document type is not accepted");
}

/* tags_are_short() reads bytes as ASCII, so the encoding must hold it as it is. */
static void check_encoding(void *user)
{
    static const char *const known[] = {"utf-8", "us-ascii", "ascii", "iso-8859-1", "iso-8859-15", "windows-1252"};
    struct xmlrpc_parser *parser = user;
    const char *encoding = (const char *) parser->context->encoding;

    if (!encoding)
        encoding = parser->context->input ? (const char *) parser->context->input->encoding : NULL;
    if (!encoding)
        return;
    for (size_t i = 0; i < ARRAY_SIZE(known); i++)
        if (strcasecmp(encoding, known[i]) == 0)
            return;
    refuse(parser, "unknown encoding");
}

/* ---- the parser ---- */

/* A thread's context for the next document. The key frees it when the thread ends. */
static _Thread_local xmlParserCtxtPtr spare_context;
static pthread_key_t spare_key;
static pthread_once_t spare_once = PTHREAD_ONCE_INIT;

/* A context remembers each name that it meets. Clients of XML-RPC need about twenty. */
#define CONTEXT_NAMES_MAX 128

static void spare_free(void *context)
{
    xmlFreeParserCtxt(context);
}

static void spare_init(void)
{
    xmlInitParser();
    pthread_key_create(&spare_key, spare_free);
}

static xmlParserCtxtPtr context_take(struct xmlrpc_parser *parser)
{
    static const xmlSAXHandler handler = {
        .initialized = XML_SAX2_MAGIC,
        .startDocument = check_encoding,
        .internalSubset = refuse_doctype,
        .startElementNs = open_tag,
        .endElementNs = close_tag,
        .characters = add_text,
        .ignorableWhitespace = add_text,
        .cdataBlock = add_text,
        .serror = on_error,
    };
    xmlParserCtxtPtr context;

    pthread_once(&spare_once, spare_init);
    context = TAKE(spare_context);
    if (context) {
        pthread_setspecific(spare_key, NULL);
        context->userData = parser;
        return context;
    }
    context = xmlCreatePushParserCtxt((xmlSAXHandlerPtr) &handler, parser, NULL, 0, NULL);
    if (!context)
        die("no memory for an XML parser");
    xmlCtxtUseOptions(context, XML_PARSE_NONET);
    return context;
}

static void context_give(xmlParserCtxtPtr context, bool is_good)
{
    if (spare_context || !is_good || xmlDictSize(context->dict) > CONTEXT_NAMES_MAX
        || xmlCtxtResetPush(context, NULL, 0, NULL, NULL) != 0) {
        xmlFreeParserCtxt(context);
        return;
    }
    context->charset = XML_CHAR_ENCODING_NONE; /* as when it was new: look for a byte order mark */
    context->userData = NULL;
    spare_context = context;
    pthread_setspecific(spare_key, context);
}

struct xmlrpc_parser *xmlrpc_parser_new(struct arena *arena)
{
    struct xmlrpc_parser *parser = new0(struct xmlrpc_parser);

    parser->arena = arena;
    parser->depth = 1;
    parser->pile.pushed_max = XMLRPC_VALUES_MAX;
    buffer_init(&parser->text, TEXT_BYTES_MAX);
    parser->context = context_take(parser);
    return parser;
}

void xmlrpc_parser_destroy(struct xmlrpc_parser **parser_p)
{
    struct xmlrpc_parser *parser = *parser_p;

    if (!parser)
        return;
    context_give(parser->context, parser->is_ended && !parser->reason);
    pile_done(&parser->pile);
    buffer_done(&parser->text);
    free(parser);
    *parser_p = NULL;
}

/* Follow tags, comments, CDATA and instructions exactly as XML does, so that the length of each tag is known
 * before libxml2 sees it. False for a tag that is too long, a NUL, or a declaration. */
static bool tags_are_short(struct xmlrpc_parser *parser, const char *bytes, size_t length)
{
    const char *end = bytes + length;

    if (memchr(bytes, '\0', length))
        return false;
    for (const char *p = bytes; p < end; p++) {
        switch (parser->scan) {
        case IN_TEXT:
            p = memchr(p, '<', (size_t) (end - p));
            if (!p)
                return true;
            parser->scan = IN_TAG_START;
            parser->tag_bytes = 0;
            continue;
        case IN_TAG_START:
            parser->last[0] = parser->last[1] = '\0';
            parser->scan = *p == '!' ? IN_BANG : *p == '?' ? IN_INSTRUCTION : *p == '>' ? IN_TEXT : IN_TAG;
            break;
        case IN_TAG:
            while (*p != '>' && *p != '"' && *p != '\'' && p + 1 < end)
                p++, parser->tag_bytes++;
            if (*p == '>')
                parser->scan = IN_TEXT;
            else if (*p == '"' || *p == '\'')
                parser->scan = IN_QUOTES, parser->quote = *p;
            break;
        case IN_QUOTES:
            if (*p == parser->quote)
                parser->scan = IN_TAG;
            break;
        case IN_BANG: /* the third byte says what it is */
            parser->scan = *p == '-' ? IN_COMMENT : IN_CDATA;
            if (*p != '-' && *p != '[')
                parser->scan = IN_TAG; /* a DOCTYPE, which is refused when libxml2 meets it; short as a tag */
            continue;
        case IN_COMMENT:
        case IN_CDATA:
        case IN_INSTRUCTION: {
            /* "<!--" itself must not count as the "--" of its end, nor "<![CDATA[" matter: neither has "]]>", and
             * after "<!-" comes one more '-'. */
            char mark = parser->scan == IN_COMMENT ? '-' : parser->scan == IN_CDATA ? ']' : '?';
            bool is_end = *p == '>' && parser->last[1] == mark
                          && (parser->scan == IN_INSTRUCTION || parser->last[0] == mark);

            parser->last[0] = parser->last[1];
            parser->last[1] = parser->scan == IN_COMMENT && parser->tag_bytes == 1 ? '\0' : *p;
            parser->tag_bytes = 2;
            if (is_end)
                parser->scan = IN_TEXT;
            continue;
        }
        }
        if (++parser->tag_bytes > XMLRPC_TAG_MAX)
            return false;
    }
    return true;
}

int xmlrpc_parser_feed(struct xmlrpc_parser *parser, const char *bytes, size_t length)
{
    if (!parser->reason && !tags_are_short(parser, bytes, length))
        refuse(parser, "a tag longer than %d bytes, or a NUL", XMLRPC_TAG_MAX);
    while (length > 0 && !parser->reason) {
        int piece = (int) MIN(length, (size_t) 1 << 20);

        xmlParseChunk(parser->context, bytes, piece, 0);
        if (!parser->context->wellFormed && !parser->reason)
            parser->reason = "not well-formed";
        bytes += piece;
        length -= (size_t) piece;
    }
    return parser->reason ? -1 : 0;
}

/* The end of the document: is it whole and good? */
static bool parser_end(struct xmlrpc_parser *parser, const char **ret_reason)
{
    if (!parser->reason) {
        xmlParseChunk(parser->context, NULL, 0, 1);
        if (!parser->reason && (!parser->context->wellFormed || !parser->is_ended))
            parser->reason = "not well-formed";
    }
    *ret_reason = parser->reason;
    return !parser->reason;
}

/* How many whole <param> there are. */
static uint32_t param_count(const struct xmlrpc_parser *parser)
{
    for (unsigned i = 1; i < parser->depth; i++)
        if (parser->frames[i].element == PARAM)
            return parser->frames[i].mark;
    return parser->pile.count;
}

int xmlrpc_parser_finish(struct xmlrpc_parser *parser, struct xmlrpc_call *ret, const char **ret_reason)
{
    uint32_t count = param_count(parser);

    if (parser_end(parser, ret_reason) && !parser->method)
        *ret_reason = parser->reason = "not a <methodCall>";
    if (!parser->reason && parser->is_mended && !parser->bad_text)
        *ret_reason = parser->reason = "bad characters beside the parameters";
    if (parser->reason && !(parser->is_too_deep && parser->method))
        return -1;
    if (!arena_room(parser->arena, count * sizeof(struct value))) {
        *ret_reason = parser->reason = "the document takes too much memory";
        return -1;
    }
    parser->pile.count = count;
    *ret = (struct xmlrpc_call){
        .method = parser->method,
        .param_count = count,
        .params = pile_take(&parser->pile, 0, parser->arena),
        .bad_text = parser->bad_text,
        .fault = parser->reason,
    };
    return 0;
}

int xmlrpc_parse_call(const char *bytes, size_t length, struct arena *arena, struct xmlrpc_call *ret,
                      const char **ret_reason)
{
    _cleanup_(xmlrpc_parser_destroy) struct xmlrpc_parser *parser = xmlrpc_parser_new(arena);
    _cleanup_(buffer_done) struct buffer mended = {0};

    xmlrpc_parser_feed(parser, bytes, length);
    if (xmlrpc_parser_finish(parser, ret, ret_reason) == 0)
        return 0;
    buffer_init(&mended, MEND_BYTES_MAX(length));
    if (!mend_xml(bytes, length, &mended))
        return -1;
    xmlrpc_parser_destroy(&parser);
    parser = xmlrpc_parser_new(arena);
    parser->is_mended = true;
    xmlrpc_parser_feed(parser, mended.bytes, mended.length);
    return xmlrpc_parser_finish(parser, ret, ret_reason);
}

int xmlrpc_parse_reply(const char *bytes, size_t length, struct arena *arena, struct value *ret,
                       const char **ret_reason)
{
    _cleanup_(xmlrpc_parser_destroy) struct xmlrpc_parser *parser = xmlrpc_parser_new(arena);

    xmlrpc_parser_feed(parser, bytes, length);
    if (parser_end(parser, ret_reason) && parser->method)
        *ret_reason = parser->reason = "not a <methodResponse>";
    if (parser->reason)
        return -1;
    *ret = parser->pile.values[0];
    return 0;
}

int xmlrpc_parse_value(const char *bytes, size_t length, struct arena *arena, uint32_t values_max, struct value *ret,
                       const char **ret_reason)
{
    _cleanup_(xmlrpc_parser_destroy) struct xmlrpc_parser *parser = xmlrpc_parser_new(arena);

    parser->is_bare = true;
    parser->pile.pushed_max = values_max;
    xmlrpc_parser_feed(parser, bytes, length);
    if (!parser_end(parser, ret_reason))
        return -1;
    *ret = parser->pile.values[0];
    return 0;
}
