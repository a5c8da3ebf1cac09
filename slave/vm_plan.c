/* vm_plan.c - what a guest is made of, from the maps that the master sends
 *
 * The maps are foreign: every number is parsed strictly, and a disk is a plain file name inside the directory of its SR. */
#include <errno.h>
#include <stdio.h>

#include "slave/storage.h"
#include "slave/vms.h"

static int read_number(struct op *op, const struct value *map, const char *key, int64_t otherwise, int64_t least,
                       int64_t *ret)
{
    const char *text = value_map_text(map, key, NULL);
    char *end;
    long long number;

    if (!text) {
        *ret = otherwise;
        return 0;
    }
    errno = 0;
    number = strtoll(text, &end, 10);
    if (errno || end == text || *end || number < least)
        return op_fail(op, INVALID_VALUE, key, text);
    *ret = number;
    return 0;
}

static const char *text_or_null(const struct value *map, const char *key)
{
    const char *text = value_map_text(map, key, "");

    return text[0] ? text : NULL;
}

/* The SR of a disk is a dummy one: it has no file. */
static bool is_dummy(const struct value *disk)
{
    return streq(value_map_text(disk, "sr_type", "file"), "dummy");
}

int guest_plan_disk(struct op *op, const struct value *map, struct arena *arena, struct guest_disk *ret)
{
    const char *sr = value_map_text(map, "sr_location", ""), *location = value_map_text(map, "location", "");
    const char *format = value_map_text(map, "format", "raw");

    *ret = (struct guest_disk){
        .device = arena_strdup(arena, value_map_text(map, "device", "0")),
        .is_cd = streq(value_map_text(map, "type", "Disk"), "CD"),
        .is_read_only = !streq(value_map_text(map, "mode", "RW"), "RW"),
    };
    if ((!location[0] && ret->is_cd) || is_dummy(map))
        return 0; /* an empty drive, or a disk of zeros */
    if (!storage_name_is_good(location) || sr[0] != '/')
        return op_fail(op, VDI_LOCATION_MISSING, value_map_text(map, "sr", ""), location);
    if (!streq(format, "raw") && !streq(format, "qcow2"))
        return op_fail(op, INVALID_VALUE, "format", format);
    ret->path = arena_text(arena, "%s/%s", sr, location);
    ret->format = arena_strdup(arena, format);
    return 0;
}

static int make_disks(struct op *op, const struct value *maps, struct arena *arena, struct guest_plan *plan)
{
    struct guest_disk *disks = arena_alloc_array(arena, maps->length, sizeof *disks);
    char *writable = arena_strdup(arena, "");

    plan->config.disks = disks;
    for (uint32_t i = 0; i < maps->length; i++) {
        struct guest_disk *disk = &disks[plan->config.disk_count];
        int r = guest_plan_disk(op, &maps->items[i], arena, disk);

        if (r < 0)
            return r;
        plan->config.disk_count++;
        if (guest_disk_is_writable(disk))
            writable = arena_text(arena, "%s%s\n", writable, disk->path);
    }
    plan->disks = writable;
    return 0;
}

int guest_plan_nic(struct op *op, const struct value *map, struct arena *arena, struct guest_nic *ret)
{
    *ret = (struct guest_nic){
        .device = arena_strdup(arena, value_map_text(map, "device", "0")),
        .mac = arena_strdup(arena, value_map_text(map, "mac", "")),
        .bridge = arena_strdup(arena, value_map_text(map, "bridge", "")),
    };
    return read_number(op, map, "mtu", 1500, 68, &ret->mtu);
}

static int make_nics(struct op *op, const struct value *maps, struct arena *arena, struct guest_plan *plan)
{
    struct guest_nic *nics = arena_alloc_array(arena, maps->length, sizeof *nics);

    plan->config.nics = nics;
    plan->config.nic_count = (int) maps->length;
    for (uint32_t i = 0; i < maps->length; i++) {
        int r = guest_plan_nic(op, &maps->items[i], arena, &nics[i]);

        if (r < 0)
            return r;
    }
    return 0;
}

/* Beside the first writable disk that several hosts see: where a guest's lock and journal are found by whoever runs it. */
static const char *beside_disks(const struct value *config, const struct value *disks, const struct vm *vm,
                                const char *key, struct arena *arena)
{
    const char *given = text_or_null(config, key);

    if (given)
        return arena_strdup(arena, given);
    for (uint32_t i = 0; i < disks->length; i++) {
        const struct value *disk = &disks->items[i];

        if (streq(value_map_text(disk, "sr_type", ""), "shared-file") && streq(value_map_text(disk, "mode", "RW"), "RW"))
            return arena_text(arena, "%s/%s.%s", value_map_text(disk, "sr_location", ""), vm->text, key);
    }
    return NULL;
}

static const char *copy_or_null(struct arena *arena, const char *text)
{
    return text ? arena_strdup(arena, text) : NULL;
}

int guest_plan_make(struct op *op, struct vm *vm, uint64_t epoch, const struct value *config, const struct value *disks,
                    const struct value *nics, struct arena *arena, struct guest_plan *ret)
{
    struct value *options = arena_new0(arena, struct value);
    struct guest_config *guest = &ret->config;
    int64_t vcpus;
    int r;

    *options = value_copy(arena, config);
    *ret = (struct guest_plan){
        .config = {
            .vm = vm->uuid,
            .epoch = epoch,
            .name = arena_strdup(arena, value_map_text(config, "name", vm->text)),
            .is_hvm = streq(value_map_text(config, "hvm", "false"), "true"),
            .boot_order = copy_or_null(arena, text_or_null(config, "boot_order")),
            .kernel = copy_or_null(arena, text_or_null(config, "kernel")),
            .ramdisk = copy_or_null(arena, text_or_null(config, "ramdisk")),
            .kernel_args = copy_or_null(arena, text_or_null(config, "kernel_args")),
            .lock_path = beside_disks(config, disks, vm, "lock", arena),
            .journal_path = beside_disks(config, disks, vm, "journal", arena),
            .options = options,
        },
    };
    r = read_number(op, config, "vcpus", 1, 1, &vcpus);
    if (r < 0)
        return r;
    guest->vcpus = (int) MIN(vcpus, 4096);
    r = read_number(op, config, "memory_static_max", 128 << 20, 0, &guest->memory_static_max_bytes);
    if (r < 0)
        return r;
    r = read_number(op, config, "memory_target", guest->memory_static_max_bytes, 0, &guest->memory_target_bytes);
    if (r < 0)
        return r;
    r = make_disks(op, disks, arena, ret);
    if (r < 0)
        return r;
    return make_nics(op, nics, arena, ret);
}
