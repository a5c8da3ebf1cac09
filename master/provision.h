/* provision.h - the disks that a template asks for: other_config["disks"]
 *
 *     <provision><disk device="0" size="8589934592" sr="" bootable="true"
 * type="system"/></provision> */
#pragma once

#include "master/call.h"

#define PROVISION_DISKS_MAX 64
#define PROVISION_BYTES_MAX 65536

struct provision_disk {
    const char *device; /* userdevice */
    int64_t size_bytes;
    const char *sr; /* uuid; "" for the pool's default SR */
    bool is_bootable;
    bool is_system; /* else a user disk */
};

/* 0 and the disks, in the arena; -ERR_INVALID_VALUE ["other_config:disks", text]. In a fiber or
 * outside. */
int provision_parse(struct call *, const char *xml, struct provision_disk **ret_disks,
                    int *ret_count);
