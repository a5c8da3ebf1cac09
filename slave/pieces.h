/* pieces.h - stretches of disks on their way between two threads of an import
 *
 *     the caller receives, unpacks and hashes  -> pieces ->  a thread writes disks
 *
 * A few buffers go round, so whoever is faster waits for the other, and the memory of a transfer is
 * PIECES_COUNT * PIECE_BYTES whatever the disks' sizes: 1 MiB. A piece is small enough that its
 * bytes are still in the processor's cache when the other thread takes them, and large enough that
 * handing it over costs nothing beside that.
 *
 * One thread puts and one takes. Either may end it: pieces_end() by the one who puts; pieces_stop(), with what went wrong, by
 * the one who takes. */
#pragma once

#include "shared/base.h"

#include <stdint.h>

#define PIECE_BYTES  ((size_t) 256 * 1024)
#define PIECES_COUNT 4

struct piece {
    unsigned disk; /* number, as the two agreed */
    int64_t at;    /* in the disk */
    size_t count;  /* up to PIECE_BYTES */
    char *bytes;   /* PIECE_BYTES of room */
};

struct pieces;

struct pieces *pieces_new(void);
/* Both threads have let go of it. NULL is fine. */
void pieces_destroy(struct pieces **pieces_p);

/* ---- who puts ---- */

/* An empty piece, to be filled and put; NULL when the other one has stopped. Waits. */
struct piece *pieces_room(struct pieces *pieces);
void pieces_put(struct pieces *pieces);
/* Nothing more comes. */
void pieces_end(struct pieces *pieces);
/* Wait until everything that was put has been taken and given back. 0, or what the other one
 * stopped with. */
int pieces_settle(struct pieces *pieces);

/* ---- who takes ---- */

/* The next piece; NULL at the end. Waits. */
struct piece *pieces_next(struct pieces *pieces);
void pieces_took(struct pieces *pieces);
/* No more is wanted: room() has none from now on. */
void pieces_stop(struct pieces *pieces, int result);
