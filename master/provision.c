/* provision.c - other_config["disks"], read with libxml2's tree
 *
 * The text is a client's: no entities, no document types, nothing fetched, and a limit on its
 * length. */
#include "master/provision.h"

#include <libxml/parser.h>
#include <libxml/tree.h>

#include "shared/fiber.h"

struct reading {
    struct call *call;
    const char *xml;
    struct provision_disk *disks;
    int count;
    bool is_good;
};

static const char *attribute(struct reading *reading, xmlNode *node, const char *name,
                             const char *otherwise)
{
    xmlChar *text = xmlGetProp(node, (const xmlChar *) name);
    const char *copy;

    if (!text)
        return otherwise;
    copy = arena_strdup(reading->call->arena, (const char *) text);
    xmlFree(text);
    return copy;
}

static bool read_disk(struct reading *reading, xmlNode *node)
{
    struct provision_disk *disk = &reading->disks[reading->count++];
    const char *size = attribute(reading, node, "size", "");
    char *end;

    disk->device = attribute(reading, node, "device", "");
    disk->size_bytes = strtoll(size, &end, 10);
    disk->sr = attribute(reading, node, "sr", "");
    disk->is_bootable = streq(attribute(reading, node, "bootable", "false"), "true");
    disk->is_system = streq(attribute(reading, node, "type", "system"), "system");
    return *size && !*end && disk->size_bytes > 0 && *disk->device;
}

static bool read_document(struct reading *reading, xmlDoc *document)
{
    xmlNode *root = xmlDocGetRootElement(document);

    if (!root || document->intSubset || !xmlStrEqual(root->name, (const xmlChar *) "provision"))
        return false;
    for (xmlNode *node = root->children; node; node = node->next) {
        if (node->type != XML_ELEMENT_NODE)
            continue;
        if (!xmlStrEqual(node->name, (const xmlChar *) "disk")
            || reading->count == PROVISION_DISKS_MAX || !read_disk(reading, node))
            return false;
    }
    return true;
}

/* On the loop's own stack: a parser needs more than a fiber has. */
static void read_text(void *arg)
{
    struct reading *reading = arg;
    xmlDoc *document = xmlReadMemory(reading->xml, (int) strlen(reading->xml), NULL, NULL,
                                     XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);

    if (document)
        reading->is_good = read_document(reading, document);
    xmlFreeDoc(document);
}

int provision_parse(struct call *call, const char *xml, struct provision_disk **ret_disks,
                    int *ret_count)
{
    struct reading reading = {.call = call, .xml = xml};

    if (strlen(xml) > PROVISION_BYTES_MAX)
        return fail(call, INVALID_VALUE, "other_config:disks", "too long");
    reading.disks = arena_alloc_array(call->arena, PROVISION_DISKS_MAX, sizeof *reading.disks);
    fiber_on_loop_stack(read_text, &reading);
    if (!reading.is_good)
        return fail(call, INVALID_VALUE, "other_config:disks", xml);
    *ret_disks = reading.disks;
    *ret_count = reading.count;
    return 0;
}
