/* transfer_options.c - what a client may ask of an export or import, as a table
 *
 * Not in it, and passed over: `export_snapshots`, `include_dom0` and `include_vhd_parents` at /export, which xe sends with
 * every export as it does with those of metadata. Options with values of their own, use_compression at /export, format,
 * base, are checked where they are taken. */
#include "master/transfer_options.h"

#include <string.h>

#include "master/handler.h"

/* A name that ends with ':' is of all that begin so. */
struct option {
    const char *realm, *name;
    const char *refusal; /* why it may not be true, or be there at all if it is no switch; NULL: either is done */
    bool is_switch;
};

static const struct option options[] = {
    {"export", "preserve_power_state", NULL, true},
    {"export", "all", "one VM is exported at a time, with its disks: /export_metadata knows it", true},
    {"export", "excluded_device_types", "/export_metadata alone knows it", false},
    {"import", "restore", NULL, true},
    {"import", "force", NULL, true},
    {"import", "dry_run", "/import_metadata alone knows it", true},
    {"import", "live", "/import_metadata alone knows it", true},
    {"import", "check_cpu", "/import_metadata alone knows it", true},
    {"import", "vdi:", "the disks are made from the archive: /import_metadata alone knows it", false},
    {"export_raw_vdi", "use_compression", "a disk is sent as it is", true},
    {"import_raw_vdi", "dry_run", "/import_metadata alone knows it", true},
};

static bool is_true(const char *text)
{
    return streq(text, "true") || streq(text, "1");
}

/* Nothing is asked for. */
static bool is_false(const char *text)
{
    return streq(text, "false") || streq(text, "0");
}

static bool is_named(const struct option *option, const char *name)
{
    size_t length = strlen(option->name);

    return option->name[length - 1] == ':' ? strncmp(option->name, name, length) == 0 : streq(option->name, name);
}

static int check(struct call *call, const struct option *option, const char *name, const char *text)
{
    if (option->refusal && (option->is_switch ? !is_false(text) : *text != '\0'))
        return fail(call, VALUE_NOT_SUPPORTED, name, text, option->refusal);
    if (option->is_switch && !is_true(text) && !is_false(text))
        return fail(call, INVALID_VALUE, name, text);
    return 0;
}

int transfer_check_options(struct call *call, const char *realm, const struct value *params)
{
    int r = 0;

    for (uint32_t i = 0; i < params->length && r == 0; i++)
        for (size_t j = 0; j < ARRAY_SIZE(options) && r == 0; j++)
            if (streq(options[j].realm, realm) && is_named(&options[j], params->items[2 * i].text))
                r = check(call, &options[j], params->items[2 * i].text, params->items[2 * i + 1].text);
    return r;
}
