/* SR.h - storage repositories, for who brings hosts and SRs together: PBD.c and enrol.c */
#pragma once

#include "master/storage.h"

/* The SR types there are, with what each of them can. */
struct sr_driver {
    const char *type, *name, *description;
    bool is_content;          /* holds files that others made: images to insert, read-only */
    bool needs_location;      /* device_config["location"], a directory */
    const char *features[12]; /* names of SM.features, NULL at the end */
};
const struct sr_driver *sr_driver(const char *type); /* NULL: SR_UNKNOWN_DRIVER */
/* The SM object of each driver, made or brought up to date. */
void sr_drivers_create(struct call *, struct txn *);

/* Have the host attach the SR (slave call), note it, and read the SR's content when this is its
 * first attached PBD. */
int pbd_attach(struct call *, ref_t pbd);

/* Compare the SR's files with its VDIs; the caller holds the claim, or knows that nobody else uses
 * the SR. */
int sr_read_content(struct call *, ref_t sr, ref_t host);

/* A new PBD in the caller's transaction. */
ref_t pbd_create(struct call *, struct txn *, ref_t host, ref_t sr,
                 const struct value *device_config);
