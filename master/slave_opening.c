/* slave_opening.c - before a master orders anything it hears what epochs the hosts follow
 *
 *   start --> hellos are kept --> all hosts have said hello, or OPENING_MS have passed
 *                                   |
 *                                   +-- nobody follows an epoch above ours --> all are welcomed
 *                                   +-- somebody does, and we had it       --> begin_above()
 *                                   +-- somebody does, and all came to us  --> begin_above()
 *                                   +-- somebody does, else                --> the others are welcomed
 *
 * A master takes its epoch above what its disk and Redis know. When the store was put back from an old copy the hosts know
 * higher ones, and would not follow. Whether this master may go above those is the question who claimed them. The
 * host says whose they are, by the key of the master it followed. Ours: the epoch is one that we have forgotten. Another's:
 * that one took over after us and may be at work, so hosts that were sent here by mistake are not taken from it. Only
 * when no host is left to it - every one has come here, or was declared dead - there is nobody to be taken from.
 *
 * All this is for a master that has not yet welcomed anyone. One that has been at work and meets a higher epoch is
 * superseded, whoever claimed it: it does not welcome that host, and takes nothing. (design.md section 2, promise 5;
 * section 4, "Epochs") */
#include "master/slaves_internal.h"

#include "shared/arena.h"

/* An agent notices a new master within a moment, or by its own beats after 5 s; its hellos are 2 s apart at most. Who is alive
 * is heard by then, and calls wait for hosts longer than that. */
#define OPENING_MS 3000

struct hellos {
    unsigned hosts, said;
    bool is_own;               /* some epoch above ours was claimed by us */
    struct slaves_known above; /* epoch 0: none */
};

static bool decode(const struct peer *peer, struct arena *arena, struct wire_frame *ret)
{
    return peer->hello && wire_decode(peer->hello, peer->hello_bytes, arena, ret) == 0;
}

static struct hellos look_at_hellos(struct slaves *slaves)
{
    _cleanup_(arena_destroy) struct arena *arena = arena_new();
    struct hellos hellos = {0};
    void *value;
    ref_t key;

    for (size_t at = 0; refmap_each(&slaves->peers, &at, &key, &value);) {
        const struct peer *peer = value;
        struct wire_frame frame;

        hellos.hosts++;
        hellos.said += peer->hello || peer->is_declared_dead;
        if (!decode(peer, arena, &frame))
            continue;
        hellos.above.generation = MAX(hellos.above.generation, frame.generation);
        if (!hello_is_above(peer, &frame))
            continue;
        hellos.is_own |= frame.key && streq(frame.key, slaves->config.key);
        if (frame.epoch > hellos.above.epoch) {
            hellos.above.epoch = frame.epoch;
            hellos.above.holder = frame.holder;
        }
    }
    return hellos;
}

/* Those who may be are welcomed; then orders go out, and the opening is over. Hellos of the others are kept until then: who
 * comes later may make them complete. */
static void take_all(struct slaves *slaves)
{
    struct arena *arena = arena_new();
    struct wire_frame frame;
    void *value;
    ref_t key;

    for (size_t at = 0; refmap_each(&slaves->peers, &at, &key, &value);) {
        struct peer *peer = value;

        if (decode(peer, arena, &frame))
            hello_take(peer, &frame);
        slaves->opening.is_over |= peer->is_linked;
    }
    for (size_t at = 0; slaves->opening.is_over && refmap_each(&slaves->peers, &at, &key, &value);)
        free(TAKE(((struct peer *) value)->hello));
    arena_destroy(&arena);
}

void opening_judge(struct slaves *slaves)
{
    struct opening *opening = &slaves->opening;
    struct hellos hellos;

    if (opening->is_over || opening->is_beginning_anew)
        return;
    hellos = look_at_hellos(slaves);
    if (hellos.said < hellos.hosts && !opening->has_waited)
        return;
    if (hellos.above.epoch > 0 && slaves->config.begin_above && (hellos.is_own || hellos.said == hellos.hosts)) {
        log_warning(NULL, "the hosts follow epoch %llu, ours is %llu: beginning anew above theirs",
                    (unsigned long long) hellos.above.epoch, (unsigned long long) slaves->core->epoch);
        opening->is_beginning_anew = true;
        slaves->config.begin_above(slaves->core, &hellos.above);
    } else {
        take_all(slaves);
    }
}

static void has_waited(void *arg)
{
    struct slaves *slaves = arg;

    slaves->opening.has_waited = true;
    opening_judge(slaves);
}

bool opening_keeps(struct peer *peer, const void *bytes, size_t count)
{
    struct slaves *slaves = peer->slaves;

    if (slaves->opening.is_over)
        return false;
    free(peer->hello);
    peer->hello = alloc0(count);
    peer->hello_bytes = count;
    memcpy(peer->hello, bytes, count);
    peer->heard_ms = clock_now_ms(slaves->core->clock);
    opening_judge(slaves);
    return true;
}

void opening_start(struct slaves *slaves)
{
    slaves->opening.is_over = slaves->peers.count == 0; /* nobody knows anything */
    if (!slaves->opening.is_over)
        timer_start(slaves->core->loop, &slaves->opening.timer, OPENING_MS, has_waited, slaves);
}
