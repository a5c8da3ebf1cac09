/* storage.h - disks as files in the directory of an SR
 *
 *   storage.c        SRs: names, attach, scan, figures
 *   storage_marker.c the way to an SR's directory, and the file by which a shared one is known
 *   storage_disk.c   disks: create, clone, copy, resize, destroy
 *   storage_clone.c  a disk from another one, also while a guest has that open
 *   storage_bases.c  what qcow2 disks rest on, and when it goes
 *   storage_file.c   what is done to one file, in a worker: sparse copy, reflink, qemu-img (run by child.c)
 *
 * Names come from the master and are foreign all the same: a disk is a plain file name inside the directory, opened
 * relative to it without following links. */
#pragma once

#include <dirent.h>
#include <stdatomic.h>

#include "slave/agent.h"

/* ---- where an SR is (storage_marker.c) ---- */

#define STORAGE_TEXT_BYTES 256 /* what was wrong, for people */

/* The file .drover-sr of a directory. */
enum sr_marker {
    MARKER_NONE,     /* not looked for: the SR is not of type shared-file */
    MARKER_MAY_LACK, /* the SR was made before there were any; another SR's is refused all the same */
    MARKER_MUST_BE,
    MARKER_MAKE,     /* first attach of an SR that has none yet */
};

/* The directory of an SR on this host. Texts are those of the map that it is from. */
struct sr_place {
    const char *directory, *uuid;
    enum sr_marker marker;
    bool is_unmade; /* of a disk to be destroyed: perhaps it was never made, and in no directory but the SR's */
};

/* From a map {uuid, type, location, marker} of an SR, or {sr, sr_type, sr_location, sr_marker} of a disk. */
struct sr_place sr_place_of(const struct value *sr);
struct sr_place sr_place_of_disk(const struct value *disk);

/* In workers: the directory's descriptor, when it is the SR's. Else a negative errno, and why: -ENOENT: it is not there, or the
 * file is not but must be, -EEXIST: it is another SR's. */
int sr_open(const struct sr_place *, char ret_text[STORAGE_TEXT_BYTES]);
/* Whatever SR's it is: for who makes an SR, or ends it. */
int sr_open_unchecked(const struct sr_place *, char ret_text[STORAGE_TEXT_BYTES]);
/* 0, -ENOENT, -EEXIST or another negative errno, and why. */
int sr_marker_check(const struct sr_place *, int dir, char ret_text[STORAGE_TEXT_BYTES]);
int sr_marker_write(int dir, const char *uuid);
/* If it is this SR's. */
void sr_marker_remove(int dir, const char *uuid);

/* Before a guest gets disks or an image, from fibers: are the directories of these maps the SRs'? -ERR_SR_BACKEND_FAILURE. */
int storage_check(struct op *op, const struct value *maps, uint32_t count);
/* And are the files there? -ERR_VDI_LOCATION_MISSING [uuid of the SR, name]. Empty drives and dummy SRs have none. */
int storage_check_files(struct op *op, const struct value *maps, uint32_t count);

/* ---- names ---- */

/* A plain file name: not empty, no '/', not starting with '.', no control characters, none of our own records. And none that
 * qemu-img takes for something else: an option, "-o.qcow2", or a place somewhere else, "nbd:host:10809.qcow2". */
bool storage_name_is_good(const char *name);

/* Path of a suspend image, from {sr_location, location}. 0 or the failure. */
int storage_image_path(struct op *op, const struct value *image, const char **ret_path);
bool storage_image_is_complete(const char *path);
/* The file becomes as large as the disk that it is, with a hole, so that it can be exported as one; what the guest needs is
 * there without that, so a failure is only logged. */
void storage_image_grow(const char *path, int64_t bytes);

/* Is the file a disk, by its name: raw, qcow2, iso? NULL when it is none. */
const char *storage_format_of(const char *name, bool is_iso_sr);

/* ---- what calls about disks share ---- */

struct disk_facts {
    char format[8];
    int64_t virtual_size, physical_utilisation;
    char backing[256];          /* name of the file it rests on, "" */
    char backing_format[8];     /* as the disk states it, "" when it does not */
    bool has_data_file;         /* a qcow2 whose data lies in another file; none of ours does */
};

/* An SR that has disks, by its type and directory on this host: 0, or -ERR_SR_UNKNOWN_DRIVER, -ERR_INVALID_VALUE. A dummy one
 * has nothing to be done. */
int storage_disk_directory(struct op *op, const char *type, const char *directory, bool *ret_is_dummy);
/* sr_open() has failed: returns -ERR_SR_BACKEND_FAILURE. */
int storage_place_failed(struct op *op, int error, const char *text);
/* Names of a disk and of one that is to be made from it, in the same format. */
int storage_check_pair(struct op *op, const char *source, const char *name);
/* {location, format, virtual_size, physical_utilisation} */
struct value storage_disk_answer(struct op *op, const char *name, const char *format, const struct disk_facts *facts);
/* What went wrong with a disk: a negative errno, with qemu-img's words or "". bytes: what did not fit. Returns -ERR_SR_FULL,
 * -ERR_VDI_LOCATION_MISSING, -ERR_SR_BACKEND_FAILURE. */
int storage_disk_failed(struct op *op, int error, const char *text, const char *sr, const char *name, int64_t bytes);

/* ---- storage_file.c: in workers; they return 0 or a negative errno ---- */

int disk_facts_of(int fd, const char *format, struct disk_facts *ret);
int disk_facts(int dir, const char *name, const char *format, struct disk_facts *ret);
DIR *dir_list(int dir);                      /* of its own, for closedir(); NULL with errno */
/* A regular file of the directory, never through a link: a descriptor, or negative errno. */
int dir_open_file(int dir, const char *name, int flags);
int disk_make_raw(int dir, const char *name, int64_t bytes);
int disk_reflink(int dir, const char *source, int to_dir, const char *name);   /* -EOPNOTSUPP: cannot here */
/* stop: set by another thread when nobody wants the copy any more: -ECANCELED soon; or NULL. */
int disk_copy_sparse(int dir, const char *source, int to_dir, const char *name, const atomic_bool *stop);
int disk_sync(int dir, const char *name);    /* the file and its name */
/* qemu-img with these arguments, in that directory. ret_text: what it said, or that it is not installed. */
int qemu_img(const char *directory, char ret_text[STORAGE_TEXT_BYTES], const char *const arguments[]);

/* ---- storage_bases.c: in workers ---- */

enum bases_lock {
    BASES_PUT_ON,    /* a disk is put on a base: beside others that do that */
    BASES_TAKE_AWAY, /* bases are looked for that nothing rests on: alone */
};

/* Waits for the directory's lock: a descriptor that holds it until it is closed, or a negative errno. */
int bases_lock(int dir, enum bases_lock how);
/* Removes the base, and the bases under it, as far as nothing rests on them. */
void bases_drop(int dir, const char *base);
/* Removes those that an interrupted bases_drop() has left. */
void bases_sweep(int dir);

/* ---- storage_clone.c: in workers; they return 0 or a negative errno ---- */

#define DISK_NAME_BYTES 300 /* of any file of a disk: its own, its base's, its drafts' */

enum clone_way {
    CLONE_UNDECIDED,
    CLONE_REFLINK,   /* both files share their blocks; the source stays the file that it was */
    CLONE_SPLIT,     /* the source's file becomes the base, its name a new overlay's */
    CLONE_COPY,      /* byte by byte */
};

struct disk_clone {
    struct sr_place place;
    const char *source, *name, *format;  /* file names there; both of the format */
    const atomic_bool *stop;             /* of a long `take`, as for disk_copy_sparse() */
    enum clone_way way;
    bool was_split;                      /* [out] of prepare: an earlier one has taken it already */
    char text[STORAGE_TEXT_BYTES];       /* [out] what was wrong, or "" */
    struct disk_facts facts;             /* [out] of the new disk */
};

/* The three steps, in their order, with the directory open; each may be repeated, by the next agent too. What a guest writes
 * to the source between the first and the second is in the clone, what it writes after the third is not; so it stands still
 * during the second, and opens its disks anew (hypervisor.h) before it goes on. */
int disk_clone_prepare(int dir, struct disk_clone *);
int disk_clone_take(int dir, struct disk_clone *);
int disk_clone_finish(int dir, struct disk_clone *);

/* The base that a clone of this name makes of its source; false for a name that can have none. */
bool disk_clone_base(const char *name, char ret_base[DISK_NAME_BYTES]);
/* Removes what an interrupted clone of that name has left beside the disks, but for the base. */
void disk_clone_sweep(int dir, const char *name);
