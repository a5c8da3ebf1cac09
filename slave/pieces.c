/* pieces.c - a ring of a few buffers between two threads (pieces.h)
 *
 *          taken                  put
 *            v                     v
 *      [   ][ full ][ full ][ full ][   ]
 *
 * The numbers only grow; a piece's place is its number modulo the count.
 *
 * The piece at `put` belongs to the one who puts, the piece at `taken` to the one who takes; only
 * the numbers are shared, under the lock. */
#include <pthread.h>

#include "slave/pieces.h"

struct pieces {
    pthread_mutex_t lock;
    pthread_cond_t change;
    uint64_t put, taken;
    bool is_ended;   /* nothing more is put */
    bool is_stopped; /* nothing more is taken */
    int stop_result;
    struct piece ring[PIECES_COUNT];
};

struct pieces *pieces_new(void)
{
    struct pieces *pieces = new0(struct pieces);

    pthread_mutex_init(&pieces->lock, NULL);
    pthread_cond_init(&pieces->change, NULL);
    for (unsigned i = 0; i < PIECES_COUNT; i++)
        pieces->ring[i].bytes = alloc0(PIECE_BYTES);
    return pieces;
}

void pieces_destroy(struct pieces **pieces_p)
{
    struct pieces *pieces = TAKE(*pieces_p);

    if (!pieces)
        return;
    for (unsigned i = 0; i < PIECES_COUNT; i++)
        free(pieces->ring[i].bytes);
    pthread_cond_destroy(&pieces->change);
    pthread_mutex_destroy(&pieces->lock);
    free(pieces);
}

struct piece *pieces_room(struct pieces *pieces)
{
    struct piece *piece = NULL;

    pthread_mutex_lock(&pieces->lock);
    while (pieces->put - pieces->taken == PIECES_COUNT && !pieces->is_stopped)
        pthread_cond_wait(&pieces->change, &pieces->lock);
    if (!pieces->is_stopped)
        piece = &pieces->ring[pieces->put % PIECES_COUNT];
    pthread_mutex_unlock(&pieces->lock);
    return piece;
}

void pieces_put(struct pieces *pieces)
{
    pthread_mutex_lock(&pieces->lock);
    pieces->put++;
    pthread_cond_signal(&pieces->change);
    pthread_mutex_unlock(&pieces->lock);
}

void pieces_end(struct pieces *pieces)
{
    pthread_mutex_lock(&pieces->lock);
    pieces->is_ended = true;
    pthread_cond_signal(&pieces->change);
    pthread_mutex_unlock(&pieces->lock);
}

int pieces_settle(struct pieces *pieces)
{
    int result;

    pthread_mutex_lock(&pieces->lock);
    while (pieces->put > pieces->taken && !pieces->is_stopped)
        pthread_cond_wait(&pieces->change, &pieces->lock);
    result = pieces->is_stopped ? pieces->stop_result : 0;
    pthread_mutex_unlock(&pieces->lock);
    return result;
}

struct piece *pieces_next(struct pieces *pieces)
{
    struct piece *piece = NULL;

    pthread_mutex_lock(&pieces->lock);
    while (pieces->put == pieces->taken && !pieces->is_ended)
        pthread_cond_wait(&pieces->change, &pieces->lock);
    if (pieces->put > pieces->taken)
        piece = &pieces->ring[pieces->taken % PIECES_COUNT];
    pthread_mutex_unlock(&pieces->lock);
    return piece;
}

void pieces_took(struct pieces *pieces)
{
    pthread_mutex_lock(&pieces->lock);
    pieces->taken++;
    /* Whoever found the ring full goes on when half of it is free, so that the two do not wake each
     * other for each piece. */
    if (pieces->put - pieces->taken <= PIECES_COUNT / 2)
        pthread_cond_signal(&pieces->change);
    pthread_mutex_unlock(&pieces->lock);
}

void pieces_stop(struct pieces *pieces, int result)
{
    pthread_mutex_lock(&pieces->lock);
    pieces->is_stopped = true;
    pieces->stop_result = result;
    pthread_cond_signal(&pieces->change);
    pthread_mutex_unlock(&pieces->lock);
}
