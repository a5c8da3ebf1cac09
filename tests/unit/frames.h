/* frames.h - one end of a link that a test plays itself: what the other end sent, and how a frame is said to it
 *
 * What a frame is answered, and on which link, is the affair of the two that have such an end: agent_world.h plays the master,
 * slaves_world.h a slave. Both speak of the same guest. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>
#undef fail /* the master has one of its own */

#include "shared/buffer.h"
#include "shared/link.h"
#include "shared/wire.h"

#define FRAMES_MAX 400

#define VM1_TEXT "6a7f1f4c-0000-4000-8000-000000000001"
static const ref_t vm1 = {0x6a7f1f4c00004000, 0x8000000000000001};
static const char vm1_text[] = VM1_TEXT;

struct frames {
    struct wire_frame list[FRAMES_MAX]; /* oldest first; what they refer to is in an arena of the test */
    int count;
};

static bool frames_take(struct frames *frames, struct arena *arena, const void *bytes, size_t count)
{
    assert_true(frames->count < FRAMES_MAX);
    assert_int_equal(wire_decode(bytes, count, arena, &frames->list[frames->count]), 0);
    frames->count++;
    return true;
}

/* NULL: there is none. */
static struct wire_frame *frames_last(struct frames *frames, enum wire_type type)
{
    for (int i = frames->count - 1; i >= 0; i--)
        if (frames->list[i].type == type)
            return &frames->list[i];
    return NULL;
}

static int frames_count(const struct frames *frames, enum wire_type type)
{
    int count = 0;

    for (int i = 0; i < frames->count; i++)
        count += frames->list[i].type == type;
    return count;
}

/* As if it came over the network from who has the key. */
static void frame_say(struct link_transport *transport, const char *key, const struct wire_frame *frame)
{
    struct link_receiver *receiver = &transport->receiver;
    struct buffer bytes;

    buffer_init(&bytes, LINK_FRAME_BYTES_MAX);
    wire_encode(frame, &bytes);
    receiver->frame(receiver->arg, key, bytes.bytes, bytes.length);
    buffer_done(&bytes);
}
