/* ova_read.h - ova.xml of an import, as drafts of objects (wire.md section 20)
 *
 * Both forms are read: the current one, which ova_write.h writes, and `<appliance version="0.1">`.
 * What is read is foreign: sizes and depth are bounded, document types and entities are refused,
 * each field has its row's type. Fields and classes that we do not know are skipped, fields that
 * are missing have the model's defaults.
 *
 * References inside the file stay references, to the file's own objects: ova_object() leads from
 * one to its draft. */
#pragma once

#include "master/store.h"

struct arena;
struct failure;

#define OVA_READ_BYTES_MAX   (64u << 20)  /* of the text, */
#define OVA_READ_ARENA_MAX   (256u << 20) /* and of what is made from it */
#define OVA_LEGACY_BYTES_MAX (64u << 10)  /* a few kB, in truth */

/* An object of the file. VM, VM_metrics, VM_guest_metrics, VBD, VIF, network, VDI, SR or host. */
struct ova_object {
    struct object *draft; /* its ref is the file's; NULL: of a class that we do not know */
    const char *id; /* "Ref:7"; of a legacy disk, the directory of its chunks in the archive */
    const char *class_name;
};

struct ova_plan {
    bool is_legacy; /* the disks are directories of gzipped chunks */
    int export_vsn; /* of the current form: how the archive tells its checksums */
    size_t count;
    struct ova_object *objects; /* in the file's order */
    size_t stranger_count;
    const char **strangers; /* ids that are referred to, but name nothing in the file */
};

/* Read the text. Everything of the plan is in the arena, whose limit is set here. Uses a parser:
 * from a worker, or on the loop's own stack (fiber.h). 0 or a negative error in `failure`:
 * -ERR_IMPORT_INCOMPATIBLE_VERSION, -ERR_IMPORT_ERROR [what is wrong], -ERR_FIELD_TYPE_ERROR
 * [class.field], -ERR_INVALID_VALUE [class.field, text]. */
int ova_read(struct arena *, const char *text, size_t length, struct ova_plan *ret,
             struct failure *);

/* The object that a reference of the file leads to; NULL for null, and for what is not in the file.
 */
const struct object *ova_object(const struct ova_plan *, ref_t);
/* Its id in the file, for errors: also of what is not there. */
const char *ova_id(const struct ova_plan *, ref_t);

/* The reference that the n-th object of a file has, and back: of one that ova_object() knows. */
ref_t ova_ref(size_t n);
size_t ova_number(ref_t);

/* The old form (ova_read_legacy.c). */
int ova_read_legacy(struct arena *, const char *text, size_t length, struct ova_plan *ret,
                    struct failure *);
