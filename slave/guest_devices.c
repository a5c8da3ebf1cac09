/* guest_devices.c - the disks and interfaces of a guest
 *
 * The guests process has the list that is true; the driver has a copy of it, which comes with every message about the guest.
 * A guest has a few of each, so the lists are arrays. */
#include "slave/guest_devices.h"

#include "shared/model.h"

#define DISK_COLUMNS 5
#define NIC_COLUMNS  4

static void free_text(const char *text)
{
    free((char *) text); /* ours: the list's texts are const for its readers */
}

static void disk_done(struct guest_disk *disk)
{
    free_text(disk->device);
    free_text(disk->path);
    free_text(disk->format);
}

static void nic_done(struct guest_nic *nic)
{
    free_text(nic->device);
    free_text(nic->mac);
    free_text(nic->bridge);
}

void guest_devices_done(struct guest_devices *devices)
{
    for (int i = 0; i < devices->disk_count; i++)
        disk_done(&devices->disks[i]);
    for (int i = 0; i < devices->nic_count; i++)
        nic_done(&devices->nics[i]);
    free(devices->disks);
    free(devices->nics);
    *devices = (struct guest_devices){0};
}

struct guest_disk *guest_devices_disk(const struct guest_devices *devices, const char *device)
{
    for (int i = 0; i < devices->disk_count; i++)
        if (streq(devices->disks[i].device, device))
            return &devices->disks[i];
    return NULL;
}

struct guest_nic *guest_devices_nic(const struct guest_devices *devices, const char *device)
{
    for (int i = 0; i < devices->nic_count; i++)
        if (streq(devices->nics[i].device, device))
            return &devices->nics[i];
    return NULL;
}

static char *copy_of(const char *text)
{
    return text ? dup_text(text) : NULL;
}

bool guest_devices_put_disk(struct guest_devices *devices, const struct guest_disk *disk)
{
    struct guest_disk copy = *disk, *place = guest_devices_disk(devices, disk->device);

    if (!place && devices->disk_count >= GUEST_DEVICES_MAX)
        return false;
    copy.device = dup_text(disk->device);
    copy.path = copy_of(disk->path);
    copy.format = copy_of(disk->format);
    if (place) {
        disk_done(place);
    } else {
        devices->disks = realloc_array(devices->disks, (size_t) devices->disk_count + 1, sizeof *place);
        place = &devices->disks[devices->disk_count++];
    }
    *place = copy;
    return true;
}

bool guest_devices_put_nic(struct guest_devices *devices, const struct guest_nic *nic)
{
    struct guest_nic copy = *nic, *place = guest_devices_nic(devices, nic->device);

    if (!place && devices->nic_count >= GUEST_DEVICES_MAX)
        return false;
    copy.device = dup_text(nic->device);
    copy.mac = copy_of(nic->mac);
    copy.bridge = copy_of(nic->bridge);
    if (place) {
        nic_done(place);
    } else {
        devices->nics = realloc_array(devices->nics, (size_t) devices->nic_count + 1, sizeof *place);
        place = &devices->nics[devices->nic_count++];
    }
    *place = copy;
    return true;
}

bool guest_devices_drop_disk(struct guest_devices *devices, const char *device)
{
    struct guest_disk *disk = guest_devices_disk(devices, device);

    if (!disk)
        return false;
    disk_done(disk);
    *disk = devices->disks[--devices->disk_count];
    return true;
}

bool guest_devices_drop_nic(struct guest_devices *devices, const char *device)
{
    struct guest_nic *nic = guest_devices_nic(devices, device);

    if (!nic)
        return false;
    nic_done(nic);
    *nic = devices->nics[--devices->nic_count];
    return true;
}

/* ---- in messages ---- */

static void pack_text(msgpack_packer *packer, const char *text)
{
    msgpack_pack_str_with_body(packer, text ? text : "", text ? strlen(text) : 0);
}

static void pack_bool(msgpack_packer *packer, bool is_true)
{
    if (is_true)
        msgpack_pack_true(packer);
    else
        msgpack_pack_false(packer);
}

void guest_devices_pack(struct guest_frame *frame, const struct guest_devices *devices)
{
    msgpack_packer *packer = guest_frame_key(frame, "disks");

    msgpack_pack_array(packer, (size_t) devices->disk_count);
    for (int i = 0; i < devices->disk_count; i++) {
        const struct guest_disk *disk = &devices->disks[i];

        msgpack_pack_array(packer, DISK_COLUMNS);
        pack_text(packer, disk->device);
        pack_text(packer, disk->path);
        pack_text(packer, disk->format);
        pack_bool(packer, disk->is_read_only);
        pack_bool(packer, disk->is_cd);
    }
    packer = guest_frame_key(frame, "nics");
    msgpack_pack_array(packer, (size_t) devices->nic_count);
    for (int i = 0; i < devices->nic_count; i++) {
        const struct guest_nic *nic = &devices->nics[i];

        msgpack_pack_array(packer, NIC_COLUMNS);
        pack_text(packer, nic->device);
        pack_text(packer, nic->mac);
        pack_text(packer, nic->bridge);
        msgpack_pack_int64(packer, nic->mtu);
    }
}

/* Into memory of the message; "" for what is no text. */
static const char *text_at(const struct guest_message *message, const msgpack_object *object)
{
    char *text;

    if (object->type != MSGPACK_OBJECT_STR || memchr(object->via.str.ptr, '\0', object->via.str.size))
        return "";
    text = msgpack_zone_malloc(message->zone, object->via.str.size + 1);
    if (!text)
        die("out of memory");
    memcpy(text, object->via.str.ptr, object->via.str.size);
    text[object->via.str.size] = '\0';
    return text;
}

static const char *path_at(const struct guest_message *message, const msgpack_object *object)
{
    const char *text = text_at(message, object);

    return text[0] ? text : NULL;
}

static bool is_true(const msgpack_object *object)
{
    return object->type == MSGPACK_OBJECT_BOOLEAN && object->via.boolean;
}

static int64_t int_at(const msgpack_object *object)
{
    return object->type == MSGPACK_OBJECT_POSITIVE_INTEGER && object->via.u64 <= INT64_MAX ? (int64_t) object->via.u64 : 0;
}

/* The array, whose rows have at least so many columns; NULL for anything else. */
static const msgpack_object_array *rows_of(const struct guest_message *message, const char *key, uint32_t columns)
{
    const msgpack_object *list = guest_message_find(message, key);

    if (!list || list->type != MSGPACK_OBJECT_ARRAY)
        return NULL;
    for (uint32_t i = 0; i < list->via.array.size; i++) {
        const msgpack_object *row = &list->via.array.ptr[i];

        if (row->type != MSGPACK_OBJECT_ARRAY || row->via.array.size < columns)
            return NULL;
    }
    return &list->via.array;
}

bool guest_devices_unpack(const struct guest_message *message, struct guest_devices *ret)
{
    const msgpack_object_array *disks = rows_of(message, "disks", DISK_COLUMNS);
    const msgpack_object_array *nics = rows_of(message, "nics", NIC_COLUMNS);

    *ret = (struct guest_devices){0};
    if (!disks || !nics)
        return false;
    for (uint32_t i = 0; i < disks->size; i++) {
        const msgpack_object *column = disks->ptr[i].via.array.ptr;

        guest_devices_put_disk(ret, &(struct guest_disk){
                                        .device = text_at(message, &column[0]),
                                        .path = path_at(message, &column[1]),
                                        .format = text_at(message, &column[2]),
                                        .is_read_only = is_true(&column[3]),
                                        .is_cd = is_true(&column[4]),
                                    });
    }
    for (uint32_t i = 0; i < nics->size; i++) {
        const msgpack_object *column = nics->ptr[i].via.array.ptr;

        guest_devices_put_nic(ret, &(struct guest_nic){
                                       .device = text_at(message, &column[0]),
                                       .mac = text_at(message, &column[1]),
                                       .bridge = text_at(message, &column[2]),
                                       .mtu = int_at(&column[3]),
                                   });
    }
    return true;
}
