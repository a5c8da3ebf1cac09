/* ova_fate.h - what becomes of an object of ova.xml: between ova_import.c, which decides, and
 * ova_create.c */
#pragma once

#include "master/ova_import.h"

/* More than any tree of snapshots has; parents in a ring have no end. */
#define SNAPSHOT_DEPTH_MAX 4096

struct fate {
    ref_t here;        /* the object of this pool that stands for it, once it is known */
    bool is_made;      /* a new one is made */
    bool is_left_out;  /* of drives: forced, without the disk */
    bool is_suspended; /* of VMs: stays so, with its image */
};

/* 0, or -ERR_DUPLICATE_VM when there is a VM of the draft's uuid, -ERR_INVALID_VALUE when it is no
 * uuid. */
int ova_check_uuid(struct ova_import *, const struct view *, const struct object *draft);
