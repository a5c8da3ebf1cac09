/* slave_join.c - new hosts present themselves, with the pool's secret (see slave/agent_join.c for the exchange)
 *
 * The socket is encrypted with a key that is made from the secret, so only those who know it get a word in; the
 * proof over both keys and both nonces then ties the host's own key to this very exchange. */
#include "master/slaves_internal.h"

#include "master/enrol.h"
#include "shared/arena.h"
#include "shared/buffer.h"

/* Joins that go on at a time; the oldest makes room. */
#define JOINS_MAX 64

struct joiner {
    struct arena *arena;          /* NULL: free */
    char key[LINK_KEY_BYTES];
    ref_t host;
    char nonce[WIRE_NONCE_BYTES], mine[WIRE_NONCE_BYTES];
    struct value about;
    uint64_t since_ms;
    bool is_enrolling;
};

struct slave_join {
    struct slaves *slaves;
    struct link_transport *transport;
    struct joiner joiners[JOINS_MAX];
};

static void reply(struct slave_join *join, const char *key, const struct wire_frame *frame)
{
    struct buffer bytes;

    buffer_init(&bytes, LINK_FRAME_BYTES_MAX);
    wire_encode(frame, &bytes);
    join->transport->send(join->transport, key, bytes.bytes, bytes.length);
    buffer_done(&bytes);
}

static void deny(struct slave_join *join, const char *key, const char *text)
{
    struct wire_frame frame = {.type = WIRE_DENIED, .text = text};

    log_warning(NULL, "join of %s denied: %s", key, text);
    reply(join, key, &frame);
}

static struct joiner *joiner_find(struct slave_join *join, const char *key)
{
    for (size_t i = 0; i < JOINS_MAX; i++)
        if (join->joiners[i].arena && streq(join->joiners[i].key, key))
            return &join->joiners[i];
    return NULL;
}

static struct joiner *joiner_room(struct slave_join *join)
{
    struct joiner *oldest = NULL;

    for (size_t i = 0; i < JOINS_MAX; i++) {
        struct joiner *joiner = &join->joiners[i];

        if (!joiner->arena)
            return joiner;
        if (!joiner->is_enrolling && (!oldest || joiner->since_ms < oldest->since_ms))
            oldest = joiner;
    }
    return oldest;
}

/* Takes the arena, in which the frame is. */
static bool begin(struct slave_join *join, const char *key, struct arena *arena, const struct wire_frame *frame)
{
    struct joiner *joiner = joiner_find(join, key);
    struct wire_frame challenge = {.type = WIRE_CHALLENGE, .key = join->slaves->config.key};

    if (frame->version != WIRE_VERSION) {
        deny(join, key, "its version does not fit");
        return false;
    }
    if (strlen(frame->nonce) != WIRE_NONCE_BYTES - 1 || (joiner && joiner->is_enrolling))
        return false;
    if (!joiner)
        joiner = joiner_room(join);
    if (!joiner)
        return false;
    arena_destroy(&joiner->arena);
    *joiner = (struct joiner){
        .arena = arena,
        .host = frame->host,
        .about = frame->about,
        .since_ms = clock_now_ms(join->slaves->core->clock),
    };
    memcpy(joiner->key, key, LINK_KEY_BYTES);
    memcpy(joiner->nonce, frame->nonce, WIRE_NONCE_BYTES);
    wire_nonce(join->slaves->core->random, joiner->mine);
    challenge.nonce = joiner->mine;
    reply(join, key, &challenge);
    return true;
}

struct enrolling {
    struct slave_join *join;
    struct joiner *joiner;
};

/* The host is durable before it is told. */
static void enrol_main(void *arg)
{
    struct enrolling *enrolling = arg;
    struct slave_join *join = enrolling->join;
    struct joiner *joiner = enrolling->joiner;
    struct slaves *slaves = join->slaves;
    struct core *core = slaves->core;
    struct wire_frame joined = {
        .type = WIRE_JOINED, .key = slaves->config.key, .endpoint = slaves->config.link_endpoint};
    char proof[WIRE_PROOF_BYTES];
    const struct object *pool;
    uint64_t generation = 0;

    host_enrol(core, joiner->host, joiner->key, &joiner->about, &generation);
    store_wait_visible(core->store, generation);
    pool = view_get(store_core_view(core->store), pool, core->pool);
    if (pool && uuid_parse(pool_get_uuid(pool), strlen(pool_get_uuid(pool)), &joined.pool)) {
        wire_proof(slaves->config.pool_secret, "master", joiner->key, slaves->config.key, joiner->nonce, joiner->mine,
                   proof);
        joined.proof = proof;
        reply(join, joiner->key, &joined);
    } else {
        deny(join, joiner->key, "there is no pool here yet");
    }
    arena_destroy(&joiner->arena);
    *joiner = (struct joiner){0};
    free(enrolling);
}

static void prove(struct slave_join *join, const char *key, const struct wire_frame *frame)
{
    struct joiner *joiner = joiner_find(join, key);
    struct enrolling *enrolling;
    char wanted[WIRE_PROOF_BYTES];

    if (!joiner || joiner->is_enrolling || !ref_equal(joiner->host, frame->host))
        return;
    wire_proof(join->slaves->config.pool_secret, "slave", key, join->slaves->config.key, joiner->nonce, joiner->mine,
               wanted);
    if (!wire_same_secret(wanted, frame->proof)) {
        deny(join, key, "it does not know the pool's secret");
        arena_destroy(&joiner->arena);
        return;
    }
    enrolling = new0(struct enrolling);
    *enrolling = (struct enrolling){join, joiner};
    joiner->is_enrolling = true;
    if (!fiber_spawn(join->slaves->core->loop, enrol_main, enrolling, "join")) {
        joiner->is_enrolling = false;
        free(enrolling);
    }
}

static void on_frame(void *arg, const char *key, const void *bytes, size_t count)
{
    struct slave_join *join = arg;
    struct arena *arena = arena_new();
    struct wire_frame frame;
    bool is_taken = false;

    if (may_act(join->slaves->core) && wire_decode(bytes, count, arena, &frame) == 0) {
        if (frame.type == WIRE_JOIN)
            is_taken = begin(join, key, arena, &frame);
        else if (frame.type == WIRE_PROOF)
            prove(join, key, &frame);
    }
    if (!is_taken)
        arena_destroy(&arena);
}

static void on_down(void *arg, const char *key, const char *why)
{
    (void) arg;
    (void) key;
    (void) why; /* it will knock again */
}

struct slave_join *slave_join_new(struct slaves *slaves, struct link_transport *transport)
{
    struct slave_join *join = new0(struct slave_join);

    join->slaves = slaves;
    join->transport = transport;
    transport->receiver = (struct link_receiver){on_frame, on_down, join};
    return join;
}

void slave_join_destroy(struct slave_join **join_p)
{
    struct slave_join *join = TAKE(*join_p);

    if (!join)
        return;
    join->transport->receiver = (struct link_receiver){0};
    for (size_t i = 0; i < JOINS_MAX; i++)
        arena_destroy(&join->joiners[i].arena);
    free(join);
}
