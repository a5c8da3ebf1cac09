/* slave_opening.c - what epochs the hosts follow, before a master orders anything; and its own epochs that it has forgotten
 *
 *   start --> hellos are kept --> all hosts have said hello, or OPENING_MS have passed
 *                                   |
 *                                   +-- nobody follows an epoch above ours --> all are welcomed
 *                                   +-- somebody does, and we had it       --> begin_above()
 *                                   +-- somebody does, and all came to us  --> begin_above()
 *                                   +-- somebody does, else                --> the others are welcomed
 *   at work --> a hello ------------+-- follows an epoch above ours, that we had --> begin_above()
 *
 * A master takes its epoch above what its disk and Redis know. When the store was put back from an old copy the hosts know
 * higher ones, and would not follow. Whether this master may go above those is the question who claimed them. The
 * host says whose they are, by the key of the master it followed. Ours: the epoch is one that we have forgotten. Another's:
 * that one took over after us and may be at work, so hosts that were sent here by mistake are not taken from it. Only
 * when no host is left to it - every one has come here, or was declared dead - there is nobody to be taken from.
 *
 * The host that knows our forgotten epoch may come late, when others were welcomed and this master is at work. Then it goes
 * above all the same, for with our key it can only have been ourselves: there is no other master to be harmed, and nobody else
 * who would ever take that host. What is under way ends as if the process had been killed in this moment: fibers are frozen,
 * not unwound, and the next start finishes or undoes their work from its INTENTs. Another's epoch that is met at work means that
 * we are superseded: its host is not welcomed, and nothing is taken. (design.md section 2, promise 5; section 4, "Epochs") */
#include "master/slaves_internal.h"

#include "shared/arena.h"

/* An agent notices a new master within a moment, or by its own beats after 5 s; its hellos are 2 s apart at most. Who is alive
 * is heard by then, and calls wait for hosts longer than that. */
#define OPENING_MS 3000

struct hellos {
    unsigned hosts, said;
    struct slaves_known ours, all; /* the highest epoch not below ours, of those that we had, and of all; epoch 0: none */
};

static bool decode(const struct peer *peer, struct arena *arena, struct wire_frame *ret)
{
    return peer->hello && wire_decode(peer->hello, peer->hello_bytes, arena, ret) == 0;
}

static bool is_forgotten(const struct slaves *slaves, const struct wire_frame *frame)
{
    return frame->key && streq(frame->key, slaves->config.key);
}

static void learn(struct slaves_known *known, const struct wire_frame *frame)
{
    known->generation = MAX(known->generation, frame->generation);
    if (frame->epoch > known->epoch) {
        known->epoch = frame->epoch;
        known->holder = frame->holder;
    }
}

static struct hellos look_at_hellos(struct slaves *slaves)
{
    _cleanup_(arena_destroy) struct arena *arena = arena_new();
    struct hellos hellos = {0};
    uint64_t generation = 0;
    void *value;
    ref_t key;

    for (size_t at = 0; refmap_each(&slaves->peers, &at, &key, &value);) {
        const struct peer *peer = value;
        struct wire_frame frame;

        hellos.hosts++;
        hellos.said += peer->hello || peer->is_declared_dead;
        if (!decode(peer, arena, &frame))
            continue;
        generation = MAX(generation, frame.generation);
        if (hello_is_above(peer, &frame))
            learn(&hellos.all, &frame);
        if (hello_is_above(peer, &frame) && is_forgotten(slaves, &frame))
            learn(&hellos.ours, &frame);
    }
    hellos.ours.generation = hellos.all.generation = generation;
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

static bool begins_above(struct slaves *slaves, const struct slaves_known *known)
{
    if (known->epoch == 0 || !slaves->config.begin_above)
        return false;
    log_warning(NULL, "the hosts follow epoch %llu, ours is %llu: beginning anew above theirs",
                (unsigned long long) known->epoch, (unsigned long long) slaves->core->epoch);
    slaves->opening.is_beginning_anew = true;
    slaves->config.begin_above(slaves->core, known);
    return true;
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
    if (!begins_above(slaves, hellos.said == hellos.hosts ? &hellos.all : &hellos.ours))
        take_all(slaves);
}

bool opening_meets(struct peer *peer, const struct wire_frame *frame)
{
    struct slaves_known known = {0};

    if (!is_forgotten(peer->slaves, frame))
        return false;
    peer->has_followed = false; /* an order of then may have reached it since */
    learn(&known, frame);
    return begins_above(peer->slaves, &known);
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

    if (slaves->opening.is_over && !slaves->opening.is_beginning_anew)
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
