/* storage.h - disks as files in the directory of an SR
 *
 *   storage.c        SRs: names, attach, scan, figures
 *   storage_disk.c   disks: create, clone, copy, resize, destroy
 *   storage_file.c   what is done to one file, in a worker: sparse copy, reflink, qemu-img (run by child.c)
 *
 * Names come from the master and are foreign all the same: a disk is a plain file name inside the directory, opened
 * relative to it without following links. */
#pragma once

#include "slave/agent.h"

/* A plain file name: not empty, no '/', not starting with '.', no control characters, none of our own records. */
bool storage_name_is_good(const char *name);

/* Path of a suspend image, from {sr_location, location}. 0 or the failure. */
int storage_image_path(struct op *op, const struct value *image, const char **ret_path);
bool storage_image_is_complete(const char *path);

/* Is the file a disk, by its name: raw, qcow2, iso? NULL when it is none. */
const char *storage_format_of(const char *name, bool is_iso_sr);

/* ---- storage_file.c: in workers; they return 0 or a negative errno ---- */

struct disk_facts {
    char format[8];
    int64_t virtual_size, physical_utilisation;
    char backing[256];          /* name of the file it rests on, "" */
    char backing_format[8];     /* as the disk states it, "" when it does not */
    bool has_data_file;         /* a qcow2 whose data lies in another file; none of ours does */
};
int disk_facts_of(int fd, const char *format, struct disk_facts *ret);
int disk_facts(int dir, const char *name, const char *format, struct disk_facts *ret);
int dir_open(const char *path);              /* a descriptor, or negative errno */
/* A regular file of the directory, never through a link: a descriptor, or negative errno. */
int dir_open_file(int dir, const char *name, int flags);
int disk_make_raw(int dir, const char *name, int64_t bytes);
int disk_reflink(int dir, const char *source, int to_dir, const char *name);   /* -EOPNOTSUPP: cannot here */
int disk_copy_sparse(int dir, const char *source, int to_dir, const char *name);
/* qemu-img with these arguments, in that directory. ret_text: what it said, or that it is not installed. */
int qemu_img(const char *directory, char ret_text[256], const char *const arguments[]);
