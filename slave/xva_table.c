/* xva_table.c - the table of checksums at the end of the oldest archives (xva_reader.h)
 *
 *      <value><struct>
 *        <member><name>Ref:7/00000000</name><value>SHA-1, 40 hex digits</value></member> ...
 *
 * An XML-RPC map from the names of blocks to checksums, in a member of any name. Each block that
 * came has to be in it; what else it holds does not matter. A disk of a TiB has a million blocks,
 * so neither side is kept as text: of a block we keep 8 bytes, the hash of its name and checksum,
 * and the table is compared as it comes.
 *
 * Source of the form: how xapi reads archives of export_vsn below 2. */
#include <errno.h>
#include <ctype.h>
#include <libxml/parser.h>
#include <stdio.h>
#include <xxhash.h>

#include "slave/xva_reader.h"

/* Archives of that age are of disks up to 2 TiB, in blocks of 1 MiB. 16 MiB of memory. */
#define BLOCKS_MAX ((size_t) 2 * 1024 * 1024)

#define TEXT_BYTES  256 /* longer names and values are none of ours */
#define DEPTH_MAX   16
#define SHA1_DIGITS 40

struct xva_table {
    uint64_t *blocks; /* hashes of what came, in any order until compared, sorted then */
    bool *is_found;
    size_t count, room;
    /* while it is compared */
    xmlParserCtxtPtr parser;
    unsigned depth;
    bool is_refused; /* no map, too deep, a DOCTYPE */
    size_t length;   /* of the text that comes; TEXT_BYTES: too long */
    char text[TEXT_BYTES], name[TEXT_BYTES];
};

struct xva_table *xva_table_new(void)
{
    return new0(struct xva_table);
}

void xva_table_destroy(struct xva_table **table_p)
{
    struct xva_table *table = TAKE(*table_p);

    if (!table)
        return;
    free(table->blocks);
    free(table->is_found);
    free(table);
}

static uint64_t entry_hash(const char *name, const char *sha1)
{
    char text[TEXT_BYTES + SHA1_DIGITS + 2];
    int length = snprintf(text, sizeof text, "%s=%s", name, sha1);

    for (int i = length - (int) strlen(sha1); i < length; i++)
        text[i] = (char) tolower((unsigned char) text[i]);
    return XXH64(text, (size_t) length, 0);
}

int xva_table_add(struct xva_table *table, const char *name, const char *sha1)
{
    if (table->count == BLOCKS_MAX || strlen(name) >= TEXT_BYTES)
        return -EBADMSG;
    if (table->count == table->room) {
        table->room = MAX(2 * table->room, (size_t) 1024);
        table->blocks = realloc_array(table->blocks, table->room, sizeof *table->blocks);
    }
    table->blocks[table->count++] = entry_hash(name, sha1);
    return 0;
}

static int compare_blocks(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *) a, y = *(const uint64_t *) b;

    return x < y ? -1 : x > y;
}

/* ---- the XML, as it comes ---- */

static void on_start(void *arg, const xmlChar *tag, const xmlChar **attributes)
{
    struct xva_table *table = arg;

    (void) tag;
    (void) attributes;
    table->length = 0;
    if (++table->depth > DEPTH_MAX)
        table->is_refused = true;
}

static void on_text(void *arg, const xmlChar *text, int count)
{
    struct xva_table *table = arg;

    if (table->length + (size_t) count >= TEXT_BYTES) {
        table->length = TEXT_BYTES;
        return;
    }
    memcpy(table->text + table->length, text, (size_t) count);
    table->length += (size_t) count;
}

static void on_end(void *arg, const xmlChar *tag)
{
    struct xva_table *table = arg;
    const char *what = (const char *) tag;

    table->depth--;
    if (streq(what, "name")) {
        table->text[table->length < TEXT_BYTES ? table->length : 0] = '\0';
        strcpy(table->name, table->text);
        table->length = 0;
    } else if (streq(what, "value")
               && table->length == SHA1_DIGITS) { /* <string> inside it or not */
        uint64_t hash, *found;

        table->text[SHA1_DIGITS] = '\0';
        hash = entry_hash(table->name, table->text);
        found = table->count
                    ? bsearch(&hash, table->blocks, table->count, sizeof hash, compare_blocks)
                    : NULL;
        if (found)
            table->is_found[found - table->blocks] = true;
        table->length = 0;
    }
}

static void on_doctype(void *arg, const xmlChar *name, const xmlChar *external,
                       const xmlChar *system)
{
    (void) name;
    (void) external;
    (void) system;
    ((struct xva_table *) arg)->is_refused = true;
    xmlStopParser(((struct xva_table *) arg)->parser);
}

static void on_error(void *arg, const char *format, ...)
{
    (void) arg; /* the parser's result says it; nothing goes to stderr */
    (void) format;
}

int64_t xva_table_compare(struct xva_table *table, struct xva_reader *reader)
{
    xmlSAXHandler sax = {
        .startElement = on_start,
        .endElement = on_end,
        .characters = on_text,
        .internalSubset = on_doctype,
        .error = on_error,
        .warning = on_error,
    };
    xmlParserCtxtPtr parser = xmlCreatePushParserCtxt(&sax, table, NULL, 0, NULL);
    const char *bytes;
    ssize_t n;
    int64_t missing = 0;
    bool is_good = true;

    if (!parser)
        die("out of memory for an XML parser");
    table->parser = parser;
    table->is_found = new0_array(bool, table->count + 1);
    if (table->count > 0)
        qsort(table->blocks, table->count, sizeof *table->blocks, compare_blocks);
    while ((n = xva_member_read(reader, &bytes)) > 0 && is_good)
        is_good = xmlParseChunk(parser, bytes, (int) MIN(n, (ssize_t) INT32_MAX), 0) == 0
                  && !table->is_refused;
    if (n == 0 && is_good)
        is_good = xmlParseChunk(parser, NULL, 0, 1) == 0 && !table->is_refused;
    if (parser->myDoc)
        xmlFreeDoc(parser->myDoc); /* made for a DOCTYPE */
    xmlFreeParserCtxt(parser);
    if (n < 0)
        return n;
    if (!is_good)
        return xva_fail_text(reader, "the table of checksums is not readable");
    for (size_t i = 0; i < table->count; i++)
        missing += !table->is_found[i];
    return missing;
}
