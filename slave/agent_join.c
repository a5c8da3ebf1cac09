/* agent_join.c - becoming a host of a pool by its secret
 *
 *   slave                                         master, at its open socket
 *   join: host, key (CURVE proves it), nonce --->
 *                                       <-------- challenge: the master's key, its nonce
 *   proof: HMAC over both keys and nonces ------>  the secret is known there: host, metrics, ... durable
 *                                       <-------- joined: pool, where to say hello, and the master's own HMAC
 *
 * The key of the open socket is made from the secret, so who does not know it cannot even begin to speak, and nobody
 * listens in. The same is done again by a host that nobody has welcomed for a while: a master that has lost
 * its store learns its hosts anew. Joining over TLS, as pool.join does it, is another road to the same end. */
#include <stdio.h>

#include "shared/buffer.h"
#include "shared/clock.h"
#include "shared/fiber.h"
#include "shared/log.h"
#include "shared/loop.h"
#include "shared/wire.h"
#include "slave/agent.h"
#include "slave/ledger.h"
#include "slave/standing.h"

#define TICK_MS         250
#define JOIN_AGAIN_MS   500   /* until the connection stands */
#define JOIN_WAIT_MS    10000 /* once it is heard: the master makes a host, which is durable before it answers */
#define WELCOME_WAIT_MS 15000 /* a known master has this long before we present ourselves again */

struct agent_join {
    struct agent *agent;
    struct timer timer;
    char endpoint[300];                 /* where the master takes new hosts; "": nowhere */
    uint64_t unlinked_ms;               /* since when there has been no link; 0: there is one */
    uint64_t knock_ms;                  /* when to begin again */
    bool is_connected;
    bool was_refused;                   /* and the log says so */
    char door_key[LINK_KEY_BYTES];
    char nonce[WIRE_NONCE_BYTES], master_nonce[WIRE_NONCE_BYTES];
    char master_key[LINK_KEY_BYTES];    /* as the challenge named it */
};

static void send_frame(struct agent_join *join, const struct wire_frame *frame)
{
    struct link_transport *door = join->agent->door;
    struct buffer bytes;

    buffer_init(&bytes, LINK_FRAME_BYTES_MAX);
    wire_encode(frame, &bytes);
    door->send(door, join->door_key, bytes.bytes, bytes.length);
    buffer_done(&bytes);
}

static void knock(struct agent_join *join)
{
    struct agent *agent = join->agent;
    struct arena *arena = arena_new();
    struct wire_frame frame = {.type = WIRE_JOIN, .host = agent->host, .version = WIRE_VERSION};

    if (!join->is_connected) {
        agent->door->connect(agent->door, join->endpoint, join->door_key);
        join->is_connected = true;
    }
    wire_nonce(agent->random, join->nonce);
    join->master_nonce[0] = '\0';
    frame.nonce = join->nonce;
    frame.about = agent_about(agent, arena);
    send_frame(join, &frame);
    arena_destroy(&arena);
}

static void tick(void *arg)
{
    struct agent_join *join = arg;
    struct agent *agent = join->agent;
    uint64_t now = clock_now_ms(agent->clock);
    const char *master_key = ledger_meta(agent->ledger, "master_key", agent->config.master_key);
    bool has_master = master_key && *master_key;

    timer_start(agent->loop, &join->timer, TICK_MS, tick, join);
    if (!join->endpoint[0])
        return;
    if (agent_is_linked(agent)) {
        join->unlinked_ms = 0;
        if (join->is_connected)
            agent->door->connect(agent->door, NULL, NULL);
        join->is_connected = false;
        return;
    }
    if (join->unlinked_ms == 0)
        join->unlinked_ms = now;
    if ((!has_master || now >= join->unlinked_ms + WELCOME_WAIT_MS) && now >= join->knock_ms) {
        join->knock_ms = now + JOIN_AGAIN_MS;
        knock(join);
    }
}

static void challenged(struct agent_join *join, const struct wire_frame *frame)
{
    struct agent *agent = join->agent;
    struct wire_frame answer = {.type = WIRE_PROOF, .host = agent->host};
    char proof[WIRE_PROOF_BYTES];

    if (!link_key_is_valid(frame->key) || strlen(frame->nonce) != WIRE_NONCE_BYTES - 1)
        return;
    snprintf(join->master_key, sizeof join->master_key, "%s", frame->key);
    snprintf(join->master_nonce, sizeof join->master_nonce, "%s", frame->nonce);
    wire_proof(agent->config.pool_secret, "slave", agent->public_key, join->master_key, join->nonce,
               join->master_nonce, proof);
    answer.proof = proof;
    join->knock_ms = clock_now_ms(agent->clock) + JOIN_WAIT_MS;
    send_frame(join, &answer);
}

static void joined(struct agent_join *join, const struct wire_frame *frame)
{
    struct agent *agent = join->agent;
    char proof[WIRE_PROOF_BYTES], pool[UUID_TEXT_BYTES];

    if (!join->master_nonce[0] || !streq(frame->key, join->master_key))
        return;
    wire_proof(agent->config.pool_secret, "master", agent->public_key, join->master_key, join->nonce,
               join->master_nonce, proof);
    if (!wire_same_secret(proof, frame->proof)) {
        log_warning(NULL, "join: the master does not know the pool's secret");
        return;
    }
    uuid_print(pool, frame->pool);
    log_info(NULL, "joined the pool %s", pool);
    ledger_put_meta(agent->ledger, "pool", pool);
    ledger_put_meta(agent->ledger, "master_endpoint", frame->endpoint);
    ledger_put_meta(agent->ledger, "master_key", frame->key); /* in the file with the first welcome */
    join->unlinked_ms = clock_now_ms(agent->clock);
    join->was_refused = false;
    join->master_nonce[0] = '\0';
    agent_link_to(agent, frame->endpoint, frame->key);
}

static void denied(struct agent_join *join, const struct wire_frame *frame)
{
    log_warning(NULL, "join: the master says no: %s", frame->text);
    standing_put_unknown(join->agent->config.standing, join->agent->host);
}

static void on_frame(void *arg, const char *key, const void *bytes, size_t count)
{
    struct agent_join *join = arg;
    struct arena *arena = arena_new();
    struct wire_frame frame;

    if (streq(key, join->door_key) && wire_decode(bytes, count, arena, &frame) == 0) {
        if (frame.type == WIRE_CHALLENGE)
            challenged(join, &frame);
        else if (frame.type == WIRE_JOINED)
            joined(join, &frame);
        else if (frame.type == WIRE_DENIED)
            denied(join, &frame);
    }
    arena_destroy(&arena);
}

static void on_down(void *arg, const char *key, const char *why)
{
    (void) arg;
    (void) key;
    (void) why; /* knocks again anyway */
}

/* The key of the open socket is made from the secret: with another secret it is another's. */
static void on_refused(void *arg, const char *key)
{
    struct agent_join *join = arg;

    (void) key;
    if (!join->is_connected)
        return; /* word of a connection that was given up meanwhile */
    if (!join->was_refused)
        log_warning(NULL, "join: the master at %s does not have our pool secret", join->endpoint);
    join->was_refused = true;
    standing_put_unknown(join->agent->config.standing, join->agent->host);
}

/* ---- where ---- */

/* What was said later goes over the setting, as long as that has not been changed since. */
static const char *endpoint_now(const struct agent *agent)
{
    const char *setting = agent->config.join_endpoint ? agent->config.join_endpoint : "";
    const char *said = ledger_meta(agent->ledger, "join", "");

    return *said && streq(ledger_meta(agent->ledger, "join_instead_of", ""), setting) ? said : setting;
}

bool agent_join_is_possible(const struct agent *agent)
{
    return agent->join;
}

uint16_t agent_join_port(const struct agent *agent)
{
    const char *colon = strrchr(agent->join->endpoint, ':');

    return colon ? (uint16_t) strtoul(colon + 1, NULL, 10) : 0;
}

void agent_join_renew(struct agent *agent)
{
    struct agent_join *join = agent->join;

    if (!join)
        return;
    if (join->is_connected)
        agent->door->connect(agent->door, NULL, NULL);
    join->is_connected = join->was_refused = false;
    join->master_nonce[0] = '\0'; /* an exchange that was under way is over */
    join->knock_ms = 0;
}

void agent_join_at(struct agent *agent, const char *endpoint)
{
    struct agent_join *join = agent->join;
    struct ledger *ledger = agent->ledger;

    log_info(NULL, "from now on the master is looked for at %s", endpoint);
    ledger_put_meta(ledger, "join", endpoint);
    ledger_put_meta(ledger, "join_instead_of", agent->config.join_endpoint ? agent->config.join_endpoint : "");
    ledger_put_meta(ledger, "master_endpoint", "");
    ledger_put_meta(ledger, "master_key", "");
    snprintf(join->endpoint, sizeof join->endpoint, "%s", endpoint);
    agent_link_leave(agent);
    standing_put_booting(agent->config.standing);
    agent_join_renew(agent);
    ledger_sync(ledger);
}

/* ---- life ---- */

struct agent_join *agent_join_new(struct agent *agent)
{
    struct agent_join *join;
    char secret_key[LINK_KEY_BYTES];

    if (!agent->door || !agent->config.pool_secret)
        return NULL;
    join = new0(struct agent_join);
    join->agent = agent;
    snprintf(join->endpoint, sizeof join->endpoint, "%s", endpoint_now(agent));
    link_keys_from_secret(agent->config.pool_secret, join->door_key, secret_key);
    memset(secret_key, 0, sizeof secret_key);
    agent->door->receiver = (struct link_receiver){on_frame, on_down, join, on_refused};
    return join;
}

void agent_join_start(struct agent *agent)
{
    if (agent->join)
        tick(agent->join);
}

void agent_join_destroy(struct agent_join **join_p)
{
    struct agent_join *join = TAKE(*join_p);

    if (!join)
        return;
    join->agent->door->receiver = (struct link_receiver){0};
    timer_stop(&join->timer);
    free(join);
}
