/* slaves.c - a link for each host: who it is, whether it stands, what comes through it
 *
 * Hosts are those of the store that have a key; a listener follows their coming and going. A frame is believed to be the
 * host's whose key brought it. A link is the slave's latest hello; frames of another link are dropped, and answered
 * with "again" when the slave seems to believe in a link that is not. Both directions are numbered without gaps, so what is
 * lost ends the link, and what the frames would have told is asked for on the next one (slave_call.c).
 *
 *   no link --hello--> linked --gap, transport down, host_dead--> no link --host_dead without a beat--> gone
 *
 * While there is no link, calls wait; of a host that is gone they fail at once. */
#include "master/slaves_internal.h"

#include <stdio.h>

#include "master/account.h"
#include "master/awaited.h"
#include "shared/arena.h"
#include "shared/buffer.h"

#define BEAT_MS              1000
#define HOST_DEAD_MS_DEFAULT 10000
#define AGAIN_MS             500    /* between two "again" to one host */

/* ---- peers ---- */

/* The keys are random, so the first 16 characters tell them apart; the rest is compared. */
static ref_t key_hash(const char *key)
{
    ref_t hash = NULL_REF;

    memcpy(&hash.hi, key, 8);
    memcpy(&hash.lo, key + 8, 8);
    return hash;
}

struct peer *slaves_peer(const struct slaves *slaves, ref_t host)
{
    return slaves ? refmap_get(&slaves->peers, host) : NULL;
}

static struct peer *peer_by_key(const struct slaves *slaves, const char *key)
{
    struct peer *peer = strlen(key) == LINK_KEY_BYTES - 1 ? refmap_get(&slaves->keys, key_hash(key)) : NULL;

    return peer && streq(peer->key, key) ? peer : NULL;
}

void peer_hold(struct peer *peer)
{
    peer->users++;
}

static void peer_free(struct peer *peer)
{
    slave_notes_drop(peer);
    refmap_done(&peer->requests);
    refmap_done(&peer->askings);
    free(peer->hello);
    free(peer);
}

void peer_release(struct peer *peer)
{
    assert(peer->users > 0);
    if (--peer->users == 0 && peer->is_forgotten)
        peer_free(peer);
}

/* ---- sending ---- */

static void send_raw(struct peer *peer, const struct wire_frame *frame)
{
    struct link_transport *transport = peer->slaves->transport;
    struct buffer bytes;
    bool was_sent;

    buffer_init(&bytes, LINK_FRAME_BYTES_MAX);
    wire_encode(frame, &bytes);
    was_sent = !bytes.is_full && transport->send(transport, peer->key, bytes.bytes, bytes.length);
    buffer_done(&bytes);
    if (!was_sent && peer->is_linked) {
        log_warning(peer->uuid, "the link to the host is over: its queue is full");
        peer->is_linked = false;
    }
}

bool peer_send(struct peer *peer, struct wire_frame *frame)
{
    if (!peer->is_linked)
        return false;
    frame->link = peer->link;
    frame->seq = ++peer->sent;
    frame->epoch = peer->slaves->core->epoch;
    frame->holder = peer->slaves->core->holder;
    send_raw(peer, frame);
    return peer->is_linked;
}

void peer_lose(struct peer *peer)
{
    peer->sent++;
}

/* Say hello again: this link is not known here. */
static void send_again(struct peer *peer, uint64_t link, const char *text)
{
    struct core *core = peer->slaves->core;
    struct wire_frame frame = {
        .type = WIRE_AGAIN, .link = link, .epoch = core->epoch, .holder = core->holder, .text = text};
    uint64_t now = clock_now_ms(core->clock);

    if (peer->again_ms && now < peer->again_ms + AGAIN_MS)
        return;
    peer->again_ms = now;
    send_raw(peer, &frame);
}

/* What a host has said before it followed us may be old by now: others could still order there. */
static void ask_for_hello(struct peer *peer)
{
    uint64_t now = clock_now_ms(peer->slaves->core->clock);

    if (!peer->is_linked || peer->follows_us || !awaited_any(peer->slaves->core)
        || (peer->asked_ms && now < peer->asked_ms + BEAT_MS))
        return;
    peer->asked_ms = now;
    send_again(peer, peer->link, "the master asks what runs here now that it is followed");
}

static void link_over(struct peer *peer, const char *why)
{
    if (!peer->is_linked)
        return;
    log_warning(peer->uuid, "link %llu to the host is over: %s", (unsigned long long) peer->link, why);
    peer->is_linked = false;
}

/* ---- alive or not ---- */

static void put_live(struct peer *peer, bool is_live)
{
    struct core *core = peer->slaves->core;
    const struct object *host = view_get(store_core_view(core->store), host, peer->host);
    const struct object *metrics;
    struct txn *txn;

    metrics = host ? view_get(store_core_view(core->store), host_metrics, host_get_metrics(host)) : NULL;
    if (metrics && host_metrics_get_live(metrics) != is_live) {
        txn = store_begin(core->store);
        host_metrics_put_live(txn, metrics->ref, is_live);
        host_metrics_put_last_updated(txn, metrics->ref, clock_utc_s(core->clock));
        store_apply(&txn);
        txn_end(&txn);
    }
    for (size_t i = 0; i < peer->slaves->live_hook_count; i++)
        peer->slaves->live_hooks[i](core, peer->host, is_live);
}

static void put_guests_away(struct core *core, ref_t ref, bool is_away)
{
    const struct object *host = view_get(store_core_view(core->store), host, ref);
    struct txn *txn;

    if (!host || host_get_guests_away(host) == is_away)
        return;
    log_warning(host_get_uuid(host), is_away ? "no guests can be made there: what runs them is away"
                                             : "guests can be made there again");
    txn = store_begin(core->store);
    host_put_guests_away(txn, ref, is_away);
    store_apply(&txn);
    txn_end(&txn);
}

static void on_hypervisor(struct core *core, const struct slave_note *note)
{
    put_guests_away(core, note->host, streq(value_map_text(note->body, "state", ""), "away"));
}

static void give_up(struct peer *peer)
{
    link_over(peer, "no beats");
    log_warning(peer->uuid, "nothing was heard of the host for %llu s",
                (unsigned long long) (peer->slaves->config.host_dead_ms / 1000));
    peer->is_gone = true;
    put_live(peer, false);
    slave_calls_gone(peer);
    waitq_wake_all(&peer->changed);
}

static void beat(void *arg)
{
    struct slaves *slaves = arg;
    uint64_t now = clock_now_ms(slaves->core->clock);
    uint64_t generation = store_newest_durable(slaves->core->store);
    void *value;
    ref_t key;

    if (generation > store_visible(slaves->core->store))
        generation = 0; /* it may be taken back by a crash; the next beat tells */
    timer_start(slaves->core->loop, &slaves->beat_timer, BEAT_MS, beat, slaves);
    for (size_t at = 0; refmap_each(&slaves->peers, &at, &key, &value);) {
        struct peer *peer = value;
        struct wire_frame frame = {.type = WIRE_BEAT, .generation = generation};

        if (!peer->is_gone && now >= peer->heard_ms + slaves->config.host_dead_ms)
            give_up(peer);
        else
            peer_send(peer, &frame);
        ask_for_hello(peer);
    }
}

bool slave_is_linked(const struct slaves *slaves, ref_t host)
{
    const struct peer *peer = slaves_peer(slaves, host);

    return peer && peer->is_linked;
}

bool slave_may_hold_guests(const struct slaves *slaves, ref_t host)
{
    const struct peer *peer = slaves_peer(slaves, host);

    return peer && !peer->is_declared_dead;
}

bool slave_has_followed(const struct slaves *slaves, ref_t host)
{
    const struct peer *peer = slaves_peer(slaves, host);

    return peer && peer->has_followed;
}

/* ---- hello ---- */

bool hello_is_ours(const struct peer *peer, const struct wire_frame *frame)
{
    const struct core *core = peer->slaves->core;

    return frame->epoch == core->epoch && ref_equal(frame->holder, core->holder);
}

bool hello_is_above(const struct peer *peer, const struct wire_frame *frame)
{
    return frame->epoch >= peer->slaves->core->epoch && !hello_is_ours(peer, frame);
}

bool hello_makes_sense(struct peer *peer, const struct wire_frame *frame)
{
    struct core *core = peer->slaves->core;
    const struct object *pool = view_get(store_core_view(core->store), pool, core->pool);
    char uuid[UUID_TEXT_BYTES];

    uuid_print(uuid, frame->host);
    if (!streq(uuid, peer->uuid)) {
        log_warning(peer->uuid, "the host's key came with the name %s", uuid);
        return false;
    }
    if (frame->version != WIRE_VERSION) {
        log_warning(peer->uuid, "the host speaks version %lld, not %d", (long long) frame->version, WIRE_VERSION);
        return false;
    }
    if (pool && !ref_is_null(frame->pool) && !streq(uuid_print(uuid, frame->pool), pool_get_uuid(pool))) {
        log_warning(peer->uuid, "the host belongs to the pool %s", uuid);
        return false;
    }
    return true;
}

/* Believed of the master's own host only: there the path leads to the file that the slave means. */
static void take_own_socket(struct peer *peer, const struct wire_frame *hello)
{
    struct slaves *slaves = peer->slaves;
    const char *path = value_map_text(&hello->about, "http_socket", "");

    if (!ref_equal(peer->host, slaves->core->host) || *path != '/' || strlen(path) >= SLAVE_SOCKET_BYTES)
        return;
    pthread_mutex_lock(&slaves->own_lock);
    strcpy(slaves->own_socket, path);
    pthread_mutex_unlock(&slaves->own_lock);
}

bool slaves_own_socket(struct slaves *slaves, char ret_path[SLAVE_SOCKET_BYTES])
{
    if (!slaves)
        return false;
    pthread_mutex_lock(&slaves->own_lock);
    strcpy(ret_path, slaves->own_socket);
    pthread_mutex_unlock(&slaves->own_lock);
    return *ret_path;
}

static void refuse_hello(struct peer *peer, const struct wire_frame *frame)
{
    struct slaves *slaves = peer->slaves;

    if (peer->refused_epoch == frame->epoch)
        return; /* it asks every other second */
    peer->refused_epoch = frame->epoch;
    log_error(peer->uuid, "the host follows a master of epoch %llu, ours is %llu: it is not welcomed",
              (unsigned long long) frame->epoch, (unsigned long long) slaves->core->epoch);
    if (slaves->config.on_higher_epoch)
        slaves->config.on_higher_epoch(slaves->core, frame->epoch);
}

void hello_take(struct peer *peer, const struct wire_frame *frame)
{
    struct core *core = peer->slaves->core;
    struct wire_frame welcome = {
        .type = WIRE_WELCOME, .link = frame->link, .epoch = core->epoch, .holder = core->holder};
    const struct object *pool = view_get(store_core_view(core->store), pool, core->pool);
    const struct object *own = view_get(store_core_view(core->store), host, core->host);

    if (frame->link <= peer->link)
        return;
    if (hello_is_above(peer, frame)) {
        if (!opening_meets(peer, frame))
            refuse_hello(peer, frame);
        return;
    }
    if (!hello_is_ours(peer, frame) && frame->generation > peer->slaves->config.generation
        && peer->slaves->config.on_newer_generation)
        peer->slaves->config.on_newer_generation(core, frame->generation);
    peer->link = frame->link;
    peer->sent = peer->taken = 0;
    peer->is_linked = true;
    peer->is_gone = peer->is_declared_dead = false;
    peer->follows_us = hello_is_ours(peer, frame);
    peer->again_ms = 0;
    peer->heard_ms = clock_now_ms(core->clock);
    if (pool)
        (void) uuid_parse(pool_get_uuid(pool), strlen(pool_get_uuid(pool)), &welcome.pool);
    if (own) {
        (void) uuid_parse(host_get_uuid(own), strlen(host_get_uuid(own)), &welcome.host);
        welcome.address = host_get_address(own);
    }
    log_info(peer->uuid, "link %llu to the host stands, %u guests", (unsigned long long) peer->link,
             frame->guests.length);
    if (!CRASH_POINT("master.welcome.before"))
        send_raw(peer, &welcome);
    CRASH_POINT("master.welcome.after");
    take_own_socket(peer, frame);
    put_guests_away(core, peer->host, streq(value_map_text(&frame->about, "hypervisor_state", ""), "away"));
    put_live(peer, true);
    slave_calls_relinked(peer);
    waitq_wake_all(&peer->changed);
    slave_hello_greet(peer, frame);
    ask_for_hello(peer);
}

/* ---- receiving ---- */

static void take_frame(struct peer *peer, const struct wire_frame *frame)
{
    switch (frame->type) {
    case WIRE_REPLY:
        slave_call_reply(peer, frame);
        break;
    case WIRE_ANSWER:
        if (CRASH_POINT("master.answer.before"))
            peer->taken--; /* as if it had not come: the next frame shows it */
        else
            slave_call_answer(peer, frame);
        break;
    case WIRE_NOTE:
        if (CRASH_POINT("master.note.before")
            || (streq(frame->name, "transfer") && CRASH_POINT("master.transfer.note.before")))
            peer->taken--;
        else
            slave_note_take(peer, frame);
        break;
    default: /* beat */
        break;
    }
}

static bool is_slave_frame(enum wire_type type)
{
    return type == WIRE_REPLY || type == WIRE_ANSWER || type == WIRE_NOTE || type == WIRE_BEAT;
}

static void take_any(struct peer *peer, const struct wire_frame *frame, const void *bytes, size_t count)
{
    if (frame->type == WIRE_HELLO) {
        if (!CRASH_POINT("master.hello.before") && hello_makes_sense(peer, frame)
            && !opening_keeps(peer, bytes, count))
            hello_take(peer, frame);
    } else if (frame->type == WIRE_REFUSE) {
        if (frame->link != peer->link)
            return;
        log_error(peer->uuid, "the host refuses this master: %s", frame->text ? frame->text : "");
        link_over(peer, "refused");
        if (frame->epoch >= peer->slaves->core->epoch && peer->slaves->config.on_higher_epoch)
            peer->slaves->config.on_higher_epoch(peer->slaves->core, frame->epoch);
    } else if (!is_slave_frame(frame->type)) {
        peer->slaves->figures.frames_refused++;
    } else if (!peer->is_linked || frame->link != peer->link) {
        if (frame->link >= peer->link)
            send_again(peer, frame->link, "the master does not know it");
    } else if (frame->seq == peer->taken + 1) {
        peer->taken = frame->seq;
        peer->heard_ms = clock_now_ms(peer->slaves->core->clock);
        take_frame(peer, frame);
    } else if (frame->seq > peer->taken) {
        link_over(peer, "a frame was lost");
        send_again(peer, frame->link, "a frame was lost");
    }
}

static void on_frame(void *arg, const char *key, const void *bytes, size_t count)
{
    struct slaves *slaves = arg;
    struct peer *peer = peer_by_key(slaves, key);
    struct arena *arena;
    struct wire_frame frame;

    if (!may_act(slaves->core))
        return;
    arena = arena_new();
    if (peer && wire_decode(bytes, count, arena, &frame) == 0) {
        take_any(peer, &frame, bytes, count);
    } else {
        slaves->figures.frames_refused++;
        log_warning(peer ? peer->uuid : NULL, "a frame that makes no sense came from %s", key);
    }
    arena_destroy(&arena);
}

static void on_down(void *arg, const char *key, const char *why)
{
    struct peer *peer = peer_by_key(arg, key);

    if (peer)
        link_over(peer, why);
}

/* ---- hosts come and go ---- */

static void forget(struct slaves *slaves, struct peer *peer)
{
    refmap_take(&slaves->peers, peer->host);
    refmap_take(&slaves->keys, key_hash(peer->key));
    slaves->transport->allow(slaves->transport, peer->key, false);
    link_over(peer, "it is no host of the pool any more");
    peer->is_gone = true;
    slave_calls_gone(peer);
    waitq_wake_all(&peer->changed);
    peer->is_forgotten = true;
    if (peer->users == 0)
        peer_free(peer);
}

static void meet(struct slaves *slaves, const struct object *host)
{
    struct peer *peer = slaves_peer(slaves, host->ref);
    const char *key = host_get_curve_key(host);

    if (peer && streq(peer->key, key) && streq(peer->uuid, host_get_uuid(host)))
        return;
    if (peer)
        forget(slaves, peer);
    if (!link_key_is_valid(key))
        return; /* not enrolled yet */
    peer = new0(struct peer);
    peer->slaves = slaves;
    peer->host = host->ref;
    peer->notes_end = &peer->notes;
    peer->heard_ms = clock_now_ms(slaves->core->clock); /* it has host_dead_s from now */
    snprintf(peer->uuid, sizeof peer->uuid, "%s", host_get_uuid(host));
    snprintf(peer->key, sizeof peer->key, "%s", key);
    refmap_put(&slaves->peers, host->ref, peer);
    refmap_put(&slaves->keys, key_hash(key), peer);
    slaves->transport->allow(slaves->transport, key, true);
}

static void follow_hosts(struct slaves *slaves)
{
    const struct view *view = store_core_view(slaves->core->store);
    const struct object *host;
    struct deleted deleted;
    struct view_iter it;

    view_each_changed(&it, view, CLASS_OF(host), slaves->seen_generation);
    while ((host = view_next(&it)))
        meet(slaves, host);
    view_each_deleted(&it, view, CLASS_OF(host), slaves->seen_generation);
    while (view_next_deleted(&it, &deleted)) {
        struct peer *peer = slaves_peer(slaves, deleted.ref);

        if (peer)
            forget(slaves, peer);
    }
    slaves->seen_generation = view_generation(view);
}

/* Whose link does not stand hears of it after the next hello. */
static void tell_accounts(struct slaves *slaves)
{
    _cleanup_(arena_destroy) struct arena *arena = arena_new();
    struct wire_frame frame = {
        .type = WIRE_DIRECTORY,
        .body = VALUE_EMPTY_MAP, /* of the hosts there is nothing new */
        .accounts = accounts_of_hosts(slaves->core->store, arena),
    };
    void *peer;
    ref_t key;

    for (size_t at = 0; refmap_each(&slaves->peers, &at, &key, &peer);)
        peer_send(peer, &frame);
}

static bool has_class(const uint64_t class_mask[2], int number)
{
    return class_mask[number / 64] >> (number % 64) & 1;
}

static void on_visible(struct store_listener *listener, uint64_t generation, const uint64_t class_mask[2])
{
    struct slaves *slaves = CONTAINER_OF(listener, struct slaves, listener);

    (void) generation;
    if (has_class(class_mask, CLASS_NUMBER_host))
        follow_hosts(slaves);
    if (has_class(class_mask, CLASS_NUMBER_account))
        tell_accounts(slaves);
}

void slaves_ask_hellos(struct slaves *slaves)
{
    void *value;
    ref_t key;

    for (size_t at = 0; refmap_each(&slaves->peers, &at, &key, &value);) {
        struct peer *peer = value;

        if (peer->is_linked)
            send_again(peer, peer->link, "the master asks what runs here");
    }
}

void slaves_declare_dead(struct slaves *slaves, ref_t host)
{
    struct peer *peer = slaves_peer(slaves, host);

    if (peer && !peer->is_linked) {
        peer->is_declared_dead = true;
        opening_judge(slaves);
    }
}

/* ---- hooks ---- */

void slaves_on_note(struct slaves *slaves, const char *name, void (*fn)(struct core *, const struct slave_note *))
{
    assert(slaves->note_handler_count < NOTE_HANDLERS_MAX);
    slaves->note_handlers[slaves->note_handler_count++] = (struct note_handler){name, fn};
}

void slaves_on_hello(struct slaves *slaves,
                     void (*fn)(struct core *, ref_t host, const struct slave_guest *, size_t count))
{
    assert(slaves->hello_hook_count < HOOKS_MAX);
    slaves->hello_hooks[slaves->hello_hook_count++] = fn;
}

void slaves_on_live(struct slaves *slaves, void (*fn)(struct core *, ref_t host, bool is_live))
{
    assert(slaves->live_hook_count < HOOKS_MAX);
    slaves->live_hooks[slaves->live_hook_count++] = fn;
}

/* ---- set up ---- */

static bool send_nowhere(struct link_transport *transport, const char *key, const void *bytes, size_t count)
{
    (void) transport, (void) key, (void) bytes, (void) count;
    return false;
}

static void allow_nobody(struct link_transport *transport, const char *key, bool is_allowed)
{
    (void) transport, (void) key, (void) is_allowed;
}

struct slaves *slaves_new(struct core *core, const struct slaves_config *config, struct link_transport *transport,
                          struct link_transport *join_transport)
{
    struct slaves *slaves = new0(struct slaves);

    slaves->core = core;
    pthread_mutex_init(&slaves->own_lock, NULL);
    slaves->config = *config;
    if (slaves->config.host_dead_ms == 0)
        slaves->config.host_dead_ms = HOST_DEAD_MS_DEFAULT;
    slaves->nowhere = (struct link_transport){.send = send_nowhere, .allow = allow_nobody};
    slaves->transport = transport ? transport : &slaves->nowhere;
    slaves->listener.visible = on_visible;
    core->slaves = slaves;
    if (join_transport && config->pool_secret)
        slaves->join = slave_join_new(slaves, join_transport);
    return slaves;
}

void slaves_start(struct slaves *slaves)
{
    const struct view *view = store_core_view(slaves->core->store);
    const struct object *host;
    struct view_iter it;

    view_each(&it, view, CLASS_OF(host));
    while ((host = view_next(&it)))
        meet(slaves, host);
    slaves->seen_generation = view_generation(view);
    slaves_on_note(slaves, "hypervisor", on_hypervisor);
    store_add_listener(slaves->core->store, &slaves->listener);
    slaves->transport->receiver = (struct link_receiver){on_frame, on_down, slaves};
    timer_start(slaves->core->loop, &slaves->beat_timer, BEAT_MS, beat, slaves);
    opening_start(slaves);
}

/* The loop runs no fiber any more. */
void slaves_destroy(struct slaves **slaves_p)
{
    struct slaves *slaves = TAKE(*slaves_p);
    void *peer;
    ref_t key;

    if (!slaves)
        return;
    timer_stop(&slaves->beat_timer);
    timer_stop(&slaves->opening.timer);
    store_remove_listener(slaves->core->store, &slaves->listener);
    slaves->transport->receiver = (struct link_receiver){0};
    slave_join_destroy(&slaves->join);
    for (size_t at = 0; refmap_each(&slaves->peers, &at, &key, &peer);)
        peer_free(peer);
    refmap_done(&slaves->peers);
    refmap_done(&slaves->keys);
    slaves->core->slaves = NULL;
    pthread_mutex_destroy(&slaves->own_lock);
    free(slaves);
}

void slaves_figures(const struct slaves *slaves, struct slaves_figures *ret)
{
    void *peer;
    ref_t key;

    *ret = slaves->figures;
    ret->hosts = (unsigned) slaves->peers.count;
    ret->linked = 0;
    for (size_t at = 0; refmap_each(&slaves->peers, &at, &key, &peer);)
        ret->linked += ((struct peer *) peer)->is_linked;
}
