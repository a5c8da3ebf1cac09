/* vm_config.c - a VM's record as the agents want it */
#include "master/vm_config.h"

#include <stdio.h>

#include "master/memory.h"
#include "master/storage.h"

/* A string map that grows in the arena. */
struct map {
    struct arena *arena;
    struct value *items;
    uint32_t count, room;
};

static void add(struct map *map, const char *key, const char *text)
{
    if (map->count == map->room) {
        uint32_t room = map->room ? 2 * map->room : 16;
        struct value *items = arena_alloc_array(map->arena, 2 * room, sizeof *items);

        if (map->count)
            memcpy(items, map->items, 2 * map->count * sizeof *items);
        map->items = items;
        map->room = room;
    }
    map->items[2 * map->count] = value_text(arena_strdup(map->arena, key));
    map->items[2 * map->count++ + 1] = value_text(arena_strdup(map->arena, text));
}

static void add_int(struct map *map, const char *key, int64_t number)
{
    add(map, key, arena_text(map->arena, "%lld", (long long) number));
}

static struct value map_value(const struct map *map)
{
    return VALUE_MAP(map->count, map->items);
}

struct value vm_sr(struct call *call, const struct view *view, ref_t sr, ref_t host)
{
    struct storage_place place = storage_place(view, sr, host);
    struct map map = {call->arena};

    add(&map, "uuid", place.uuid);
    add(&map, "type", place.type);
    add(&map, "location", place.location);
    add(&map, "marker", place.marker);
    return map_value(&map);
}

static void add_place(struct map *map, const struct view *view, const struct object *vdi,
                      ref_t host)
{
    struct storage_place place = storage_place(view, VDI_get_SR(vdi), host);

    add(map, "sr", place.uuid);
    add(map, "sr_type", place.type);
    add(map, "sr_location", place.location);
    add(map, "sr_marker", place.marker);
    add(map, "location", VDI_get_location(vdi));
}

struct value vm_image(struct call *call, const struct view *view, ref_t vdi, ref_t host)
{
    const struct object *image = view_get(view, VDI, vdi);
    struct map map = {call->arena};

    add_place(&map, view, image, host);
    if (image)
        add(&map, "bytes", int_text(call, VDI_get_virtual_size(image)));
    return map_value(&map);
}

struct value vm_disk(struct call *call, const struct view *view, const struct object *vbd,
                     ref_t vdi_ref, ref_t host)
{
    const struct object *vdi = view_get(view, VDI, vdi_ref);
    struct map map = {call->arena};

    add(&map, "device", VBD_get_userdevice(vbd));
    add(&map, "mode", VBD_get_mode(vbd) == vbd_mode_RO ? "RO" : "RW");
    add(&map, "type", VBD_get_type(vbd) == vbd_type_CD ? "CD" : "Disk");
    if (vdi) {
        add_place(&map, view, vdi, host);
        add(&map, "format", storage_disk_format(vdi));
    }
    return map_value(&map);
}

struct value vm_nic(struct call *call, const struct view *view, const struct object *vif,
                    ref_t network_ref)
{
    const struct object *network = view_get(view, network, network_ref);
    struct map map = {call->arena};

    add(&map, "device", VIF_get_device(vif));
    add(&map, "mac", VIF_get_MAC(vif));
    add(&map, "bridge", network ? network_get_bridge(network) : "");
    add_int(&map, "mtu", VIF_get_MTU(vif));
    return map_value(&map);
}

static bool is_wanted(const struct object *device, int field, enum vm_devices devices)
{
    bool is_boot = devices == DEVICES_AT_BOOT;

    return field == F_VM_VBDs ? VBD_get_currently_attached(device) || (is_boot && VBD_get_reserved(device))
                              : VIF_get_currently_attached(device) || is_boot;
}

static struct value collect(struct call *call, const struct view *view, int field, ref_t vm,
                            ref_t host, enum vm_devices devices_wanted)
{
    const struct field *inverse = &CLASS_OF(VM)->fields[field];
    struct value *items =
        arena_alloc_array(call->arena, view_count_inverse(view, inverse, vm), sizeof *items);
    const struct object *device;
    struct view_iter devices;
    uint32_t count = 0;

    view_each_inverse(&devices, view, inverse, vm);
    while ((device = view_next(&devices))) {
        if (!is_wanted(device, field, devices_wanted))
            continue;
        items[count++] = field == F_VM_VBDs
                             ? vm_disk(call, view, device,
                                       VBD_get_empty(device) ? NULL_REF : VBD_get_VDI(device), host)
                             : vm_nic(call, view, device, VIF_get_network(device));
    }
    return VALUE_SET(count, items);
}

static void add_options(struct map *map, const struct value *other_config)
{
    for (uint32_t i = 0; i < other_config->length; i++)
        if (strncmp(other_config->items[2 * i].text, "sim-", 4) == 0)
            add(map, other_config->items[2 * i].text, other_config->items[2 * i + 1].text);
}

static struct value config_of(struct call *call, const struct object *vm)
{
    bool is_hvm = vm_is_hvm(vm);
    struct map map = {call->arena};

    add(&map, "name", VM_get_name_label(vm));
    add_int(&map, "memory_static_max", VM_get_memory_static_max(vm));
    add_int(&map, "memory_target", VM_get_memory_dynamic_max(vm));
    add_int(&map, "vcpus", VM_get_VCPUs_at_startup(vm));
    add(&map, "hvm", is_hvm ? "true" : "false");
    if (is_hvm) {
        add(&map, "boot_order", value_map_text(VM_get_HVM_boot_params(vm), "order", "cd"));
    } else {
        add(&map, "kernel", VM_get_PV_kernel(vm));
        add(&map, "ramdisk", VM_get_PV_ramdisk(vm));
        add(&map, "kernel_args", VM_get_PV_args(vm));
    }
    add_options(&map, VM_get_other_config(vm));
    return map_value(&map);
}

void vm_config(struct call *call, const struct view *view, ref_t vm_ref, ref_t host,
               enum vm_devices devices, struct vm_config *ret)
{
    const struct object *vm = view_get(view, VM, vm_ref);

    ret->uuid = arena_strdup(call->arena, VM_get_uuid(vm));
    ret->config = config_of(call, vm);
    ret->disks = collect(call, view, F_VM_VBDs, vm_ref, host, devices);
    ret->nics = collect(call, view, F_VM_VIFs, vm_ref, host, devices);
}

int vbd_device_number(const char *userdevice)
{
    static const char *const prefixes[] = {"xvd", "hd", "sd"};
    char *end;
    long number;

    for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++) {
        size_t length = strlen(prefixes[i]);
        const char *letter = userdevice + length;

        if (strncmp(userdevice, prefixes[i], length) == 0 && *letter >= 'a' && *letter <= 'z' && !letter[1])
            return *letter - 'a';
    }
    if (userdevice[0] < '0' || userdevice[0] > '9' || strlen(userdevice) > 3)
        return -1;
    number = strtol(userdevice, &end, 10);
    return *end || number >= VBD_DEVICES_MAX ? -1 : (int) number;
}

const char *vbd_device(char out[VBD_DEVICE_BYTES], const struct object *vbd, bool is_hvm)
{
    int number = vbd_device_number(VBD_get_userdevice(vbd));
    /* An emulated IDE controller has four disks; those behind them are for PV drivers. */
    const char *prefix = is_hvm && number < 4 ? "hd" : "xvd";

    if (number < 0)
        snprintf(out, VBD_DEVICE_BYTES, "%s", "");
    else if (number < 26)
        snprintf(out, VBD_DEVICE_BYTES, "%s%c", prefix, (char) ('a' + number));
    else
        snprintf(out, VBD_DEVICE_BYTES, "%s%c%c", prefix, (char) ('a' + number / 26 - 1),
                 (char) ('a' + number % 26));
    return out;
}
