/* guest_move.h - what a moving guest is on its connection
 *
 *   sender                                receiver
 *   HELLO  magic, version, VM, sizes  ->
 *   PAGES  up to 16 pages             ->  ... rounds, while the guest ticks at the sender
 *     or PACKED, the same by zstd     ->
 *   PAGES  the rest                   ->  the guest stands still
 *   STATE  tick, plans, digest        ->  compares the digest of its own pages
 *                                     <-  ACK (digest), or REFUSED (a text)
 *
 * A frame is two 32-bit numbers, type and bytes of payload, and the payload; all numbers are
 * little-endian. The ACK is the receiver's last word: it holds a complete, paused copy. The
 * sender's copy is paused from STATE until ACK; without ACK it runs on. Both may then have the
 * memory, but the receiver's copy never runs by itself. (A VM epoch is not sent: it is the agents'
 * business, and the receiver has its own from its agent.) */
#pragma once

#include <endian.h>

#include "slave/guest_memory.h"

#define MOVE_MAGIC   0x53564f4d52445247ULL /* "GRDRMOVS" */
#define MOVE_VERSION 1

#define MOVE_PAGES_A_FRAME 16

struct move_head {
    uint32_t type, bytes; /* le */
};

enum move_type {
    MOVE_HELLO = 1,
    MOVE_PAGES,
    MOVE_STATE,
    MOVE_ACK,
    MOVE_REFUSED,
    MOVE_PACKED, /* one zstd frame, of the payload of a PAGES */
};

/* 64-bit little-endian words of the payloads */
enum {
    HELLO_MAGIC,
    HELLO_VERSION,
    HELLO_VM_HI,
    HELLO_VM_LO,
    HELLO_PAGE_BYTES,
    HELLO_PAGE_COUNT,
    HELLO_WORDS
};
enum { STATE_TICK, STATE_LAST_TICK_MS, STATE_PLAN, STATE_PLAN_LEFT_MS, STATE_DIGEST, STATE_WORDS };
enum { ACK_DIGEST, ACK_WORDS };

struct move_page {
    uint32_t number; /* le */
    uint8_t bytes[GUEST_PAGE_BYTES];
};

#define MOVE_TEXT_BYTES_MAX    256
#define MOVE_PAYLOAD_BYTES_MAX (MOVE_PAGES_A_FRAME * sizeof(struct move_page))
#define MOVE_FRAME_BYTES_MAX   (sizeof(struct move_head) + MOVE_PAYLOAD_BYTES_MAX)

/* Writes a frame of words to out; returns its length. */
static inline size_t move_put_words(void *out, enum move_type type, const uint64_t *words,
                                    size_t count)
{
    struct move_head head = {htole32(type), htole32((uint32_t) (count * sizeof(*words)))};

    memcpy(out, &head, sizeof(head));
    for (size_t i = 0; i < count; i++) {
        uint64_t word = htole64(words[i]);

        memcpy((char *) out + sizeof(head) + i * sizeof(word), &word, sizeof(word));
    }
    return sizeof(head) + count * sizeof(*words);
}

static inline uint64_t move_word(const void *payload, size_t index)
{
    uint64_t word;

    memcpy(&word, (const char *) payload + index * sizeof(word), sizeof(word));
    return le64toh(word);
}

/* A socket for a move: does not wait, sends at once. Returns 0 or -errno. */
int move_prepare_socket(int fd);
