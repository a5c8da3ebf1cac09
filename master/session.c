/* session.c - logins: who is asking
 *
 * When a session was last used is known twice. last_active and the core's lists are right to ten
 * minutes, which is enough for sessions to expire by and costs a transaction as often. For whom to
 * evict, the threads that check sessions also note each use in a table of atomics (`struct use`),
 * which costs nothing. Its slots are shared: a session may be taken for used that is not, never the
 * other way round. */
#include "master/session.h"

#include <stdatomic.h>
#include <stdio.h>

#include "master/core.h"
#include "master/put.h"
#include "master/roles.h"
#include "master/store.h"
#include "shared/fiber.h"
#include "shared/passwords.h"

#define REFRESH_S    600          /* last_active is written when it is older */
#define IDLE_MS      60000        /* not used for so long: may be evicted */
#define USE_SLOTS    16384
#define SWEEP_MS     60000
#define CROWD_FACTOR 2     /* a kind may grow to this many times its limit while none is idle */
#define SESSIONS_MAX 20000 /* of all kinds: originators are whatever clients call themselves */
#define BUCKETS      1024

/* Sessions of one kind, longest unused first. */
struct kind_list {
    char *name; /* "originator:x", "user:y", "nameless", "pool", "local" */
    unsigned limit, count;
    struct entry *first, *last;
    struct kind_list *next; /* in its hash chain */
};

struct entry {
    ref_t ref;
    uint64_t used_ms;
    struct kind_list *kind;
    struct entry *before, *after; /* in the kind's list */
    struct entry *next;           /* in its hash chain */
};

/* Of all sessions whose reference falls here. Any thread. */
struct use {
    _Atomic uint32_t calls;   /* under way, those of waiting readers among them */
    _Atomic uint64_t used_ms; /* the last beginning or end of one */
};

struct sessions {
    struct core *core;
    struct session_limits limits;
    char *pool_secret;
    struct entry *entries[BUCKETS];
    struct kind_list *kinds[BUCKETS];
    size_t count;
    struct timer sweep;
    struct use uses[USE_SLOTS];
};

/* ---- use, as any thread notes it ---- */

static struct use *use_of(struct sessions *sessions, ref_t ref)
{
    return &sessions->uses[ref.lo % USE_SLOTS];
}

static void note_use(struct sessions *sessions, struct use *use)
{
    atomic_store_explicit(&use->used_ms, clock_now_ms(sessions->core->clock), memory_order_relaxed);
}

void session_use_begin(struct core *core, ref_t ref)
{
    struct use *use = use_of(core->sessions, ref);

    atomic_fetch_add_explicit(&use->calls, 1, memory_order_relaxed);
    note_use(core->sessions, use);
}

void session_use_end(struct core *core, ref_t ref)
{
    struct use *use;

    if (!core->sessions) /* the master stops, and this call is forgotten */
        return;
    use = use_of(core->sessions, ref);
    note_use(core->sessions, use);
    atomic_fetch_sub_explicit(&use->calls, 1, memory_order_relaxed);
}

/* ---- the core's index ---- */

static struct entry **entry_slot(struct sessions *sessions, ref_t ref)
{
    struct entry **slot = &sessions->entries[ref.lo % BUCKETS];

    while (*slot && !ref_equal((*slot)->ref, ref))
        slot = &(*slot)->next;
    return slot;
}

static struct kind_list **kind_slot(struct sessions *sessions, const char *name)
{
    uint32_t hash = 5381;
    struct kind_list **slot;

    for (const char *p = name; *p; p++)
        hash = hash * 33 ^ (unsigned char) *p;
    slot = &sessions->kinds[hash % BUCKETS];
    while (*slot && !streq((*slot)->name, name))
        slot = &(*slot)->next;
    return slot;
}

static void list_remove(struct entry *entry)
{
    struct kind_list *kind = entry->kind;

    *(entry->before ? &entry->before->after : &kind->first) = entry->after;
    *(entry->after ? &entry->after->before : &kind->last) = entry->before;
    kind->count--;
}

static void list_append(struct entry *entry)
{
    struct kind_list *kind = entry->kind;

    entry->before = kind->last;
    entry->after = NULL;
    *(kind->last ? &kind->last->after : &kind->first) = entry;
    kind->last = entry;
    kind->count++;
}

static void entry_remove(struct sessions *sessions, ref_t ref)
{
    struct entry **slot = entry_slot(sessions, ref), *entry = *slot;
    struct kind_list *kind;

    if (!entry)
        return;
    *slot = entry->next;
    list_remove(entry);
    kind = entry->kind;
    free(entry);
    sessions->count--;
    if (kind->count == 0) {
        struct kind_list **kind_at = kind_slot(sessions, kind->name);

        *kind_at = kind->next;
        free(kind->name);
        free(kind);
    }
}

static void entry_add(struct sessions *sessions, ref_t ref, struct kind_list *kind)
{
    struct entry *entry = new0(struct entry), **slot = entry_slot(sessions, ref);

    entry->ref = ref;
    entry->used_ms = clock_now_ms(sessions->core->clock);
    entry->kind = kind;
    list_append(entry);
    *slot = entry;
    sessions->count++;
}

size_t sessions_count(const struct core *core)
{
    return core->sessions->count;
}

/* ---- the end of a session ---- */

/* Unfinished tasks keep their session. */
static bool has_work(const struct view *view, ref_t session)
{
    struct view_iter iter;
    const struct object *task;

    view_each_inverse(&iter, view, &CLASS_OF(session)->fields[F_session_tasks], session);
    while ((task = view_next(&iter)))
        if (task_get_status(task) == task_status_type_pending
            || task_get_status(task) == task_status_type_cancelling)
            return true;
    return false;
}

static void drop(struct sessions *sessions, struct txn *txn, ref_t ref)
{
    if (txn_get(txn, session, ref))
        txn_delete(txn, CLASS_OF(session), ref);
    entry_remove(sessions, ref);
}

void session_drop(struct call *call, ref_t ref)
{
    _cleanup_(txn_end) struct txn *txn = store_begin(call->core->store);

    drop(call->core->sessions, txn, ref);
    call_commit(call, &txn);
}

/* Expired sessions go, a bounded number at a time. */
static void sweep(void *arg)
{
    struct sessions *sessions = arg;
    uint64_t now = clock_now_ms(sessions->core->clock),
             expiry_ms = sessions->limits.expiry_s * 1000;
    _cleanup_(txn_end) struct txn *txn = store_begin(sessions->core->store);
    unsigned dropped = 0;

    for (unsigned i = 0; i < BUCKETS; i++) {
        struct kind_list *kind, *next_kind;

        for (kind = sessions->kinds[i]; kind && dropped < 1000; kind = next_kind) {
            struct entry *entry, *next;

            next_kind = kind->next;
            for (entry = kind->first; entry && entry->used_ms + expiry_ms <= now && dropped < 1000;
                 entry = next) {
                next = entry->after;
                if (!has_work(txn_view(txn), entry->ref)) {
                    drop(sessions, txn, entry->ref); /* the last one takes its kind along */
                    dropped++;
                }
            }
        }
    }
    store_apply(&txn);
    timer_start(sessions->core->loop, &sessions->sweep, SWEEP_MS, sweep, sessions);
}

/* ---- a new session ---- */

static struct kind_list *kind_of(struct sessions *sessions, const struct session_identity *who)
{
    char name[512];
    unsigned limit;
    struct kind_list **slot;

    if (who->is_local) {
        snprintf(name, sizeof name, "local");
        limit = sessions->limits.pool;
    } else if (who->is_pool) {
        snprintf(name, sizeof name, "pool");
        limit = sessions->limits.pool;
    } else if (!who->is_local_superuser) {
        snprintf(name, sizeof name, "user:%s", who->user_name);
        limit = sessions->limits.per_user;
    } else if (*who->originator) {
        snprintf(name, sizeof name, "originator:%s", who->originator);
        limit = sessions->limits.per_originator;
    } else {
        snprintf(name, sizeof name, "nameless");
        limit = sessions->limits.nameless;
    }
    slot = kind_slot(sessions, name);
    if (!*slot) {
        *slot = new0(struct kind_list);
        (*slot)->name = dup_text(name);
        (*slot)->limit = limit;
    }
    return *slot;
}

/* Is a call of it under way, or has one been of late? Then it takes its place in the list anew. */
static bool is_in_use(struct sessions *sessions, struct entry *entry, uint64_t now)
{
    struct use *use = use_of(sessions, entry->ref);
    uint64_t used_ms = atomic_load_explicit(&use->used_ms, memory_order_relaxed);

    if (atomic_load_explicit(&use->calls, memory_order_relaxed) > 0)
        used_ms = now;
    if (MAX(entry->used_ms, used_ms) + IDLE_MS <= now)
        return false;
    if (used_ms > entry->used_ms) {
        entry->used_ms = used_ms;
        list_remove(entry);
        list_append(entry);
    }
    return true;
}

/* The longest idle one of a full kind makes room. Is there room now? */
static bool make_room(struct sessions *sessions, struct txn *txn, struct kind_list *kind)
{
    uint64_t now = clock_now_ms(sessions->core->clock);
    unsigned left = kind->count; /* those that go to the end of the list have been looked at */
    struct entry *next;

    for (struct entry *entry = kind->first;
         left > 0 && kind->count >= kind->limit && kind->count > 1 && entry->used_ms + IDLE_MS <= now;
         entry = next, left--) {
        next = entry->after;
        if (!is_in_use(sessions, entry, now) && !has_work(txn_view(txn), entry->ref))
            drop(sessions, txn, entry->ref);
    }
    return kind->count < kind->limit * CROWD_FACTOR && sessions->count < SESSIONS_MAX;
}

static void forget_if_empty(struct sessions *sessions, struct kind_list *kind)
{
    if (kind->count == 0) {
        *kind_slot(sessions, kind->name) = kind->next;
        free(kind->name);
        free(kind);
    }
}

int session_check_secret(struct call *call, const char *secret)
{
    const char *why = passwords_check_secret(call->core->passwords, call->caller.address,
                                             call->core->sessions->pool_secret, secret);
    const char *details[] = {"", why};

    return why ? failure_set_text(&call->failure, call->arena, "SESSION_AUTHENTICATION_FAILED", 2,
                                  details)
               : 0;
}

int session_create(struct call *call, const struct session_identity *who, ref_t *ret)
{
    struct core *core = call->core;
    struct sessions *sessions = core->sessions;
    const struct class *class = CLASS_OF(session);
    struct value *fields =
        arena_alloc_array(call->arena, (size_t) class->field_count, sizeof *fields);
    struct kind_list *kind = kind_of(sessions, who);
    _cleanup_(txn_end) struct txn *txn = store_begin(core->store);

    if (!make_room(sessions, txn, kind)) {
        const char *details[] = {who->user_name, "too many sessions of this kind, all in use"};

        forget_if_empty(sessions, kind);
        call_commit(call, &txn); /* those that were idle are gone all the same */
        return failure_set_text(&call->failure, call->arena, "SESSION_AUTHENTICATION_FAILED", 2,
                                details);
    }
    for (int i = 0; i < class->field_count; i++)
        fields[i] = class->fields[i].initial;
    fields[F_session_this_host] = VALUE_REF(core->host);
    fields[F_session_last_active] = VALUE_DATETIME(clock_utc_s(core->clock));
    fields[F_session_validation_time] = fields[F_session_last_active];
    fields[F_session_pool] = VALUE_BOOL(who->is_pool);
    fields[F_session_is_local_superuser] = VALUE_BOOL(who->is_local_superuser);
    fields[F_session_auth_user_sid] = value_text(who->sid);
    fields[F_session_auth_user_name] = value_text(who->user_name);
    fields[F_session_originator] = value_text(who->originator);
    fields[F_session_role] = value_text(role_name(who->role));
    fields[F_session_is_local] = VALUE_BOOL(who->is_local);
    *ret = txn_create_new(txn, core->random, class, fields);
    entry_add(sessions, *ret, kind);
    return call_commit(call, &txn);
}

/* ---- checking one ---- */

struct refresh {
    struct core *core;
    ref_t session;
};

/* Is last_active too old, or from before the wall clock was set back? */
static bool is_stale(struct core *core, const struct object *session)
{
    int64_t age_s = clock_utc_s(core->clock) - session_get_last_active(session);

    return age_s < 0 || age_s >= REFRESH_S;
}

/* Note on the core that a session is in use. Many calls may ask for it before the first is visible.
 */
static void refresh(void *arg)
{
    struct refresh *refresh = arg;
    struct core *core = refresh->core;
    struct entry *entry = *entry_slot(core->sessions, refresh->session);
    const struct object *row = view_get(store_core_view(core->store), session, refresh->session);

    if (entry && row && is_stale(core, row)) {
        _cleanup_(txn_end) struct txn *txn = store_begin(core->store);

        entry->used_ms = clock_now_ms(core->clock);
        list_remove(entry);
        list_append(entry);
        session_put_last_active(txn, refresh->session, clock_utc_s(core->clock));
        store_apply(&txn);
    }
    free(refresh);
}

static void refresh_later(struct core *core, const struct object *session)
{
    struct refresh *arg;

    if (!is_stale(core, session))
        return;
    arg = new0(struct refresh);
    *arg = (struct refresh){core, session->ref};
    loop_call(core->loop, refresh, arg);
}

int session_check(struct call *call, const char *text, const struct method *method)
{
    const struct object *session = NULL;
    struct caller *caller = &call->caller;
    bool is_local;
    ref_t ref;

    if (method && method->flags & METHOD_NO_SESSION)
        return 0;
    if (ref_parse(text, strlen(text), &ref) && !ref_is_null(ref))
        session = view_get(call_view(call), session, ref);
    if (!session)
        return fail(call, SESSION_INVALID, text);
    is_local = session_get_is_local(session);
    if (is_local && method && !(method->flags & METHOD_EMERGENCY))
        return fail(call, SESSION_INVALID, text);
    note_use(call->core->sessions, use_of(call->core->sessions, ref));
    caller->session = ref;
    caller->is_pool = session_get_pool(session);
    caller->is_local_superuser = session_get_is_local_superuser(session);
    caller->user_name = arena_strdup(call->arena, session_get_auth_user_name(session));
    caller->originator = arena_strdup(call->arena, session_get_originator(session));
    if (!role_parse(session_get_role(session), &caller->role))
        caller->role = ROLE_READ_ONLY;
    if (method && method->flags & METHOD_POOL_INTERNAL && !caller->is_pool && !is_local)
        return fail(call, INTERNAL_ERROR, SESSION_NOT_POOL_TEXT);
    refresh_later(call->core, session);
    return 0;
}

/* ---- life ---- */

bool session_pool_secret_is(const struct core *core, const char *secret)
{
    const char *right = core->sessions->pool_secret;

    return *right && secrets_equal(secret, right);
}

struct sessions *sessions_new(struct core *core, const struct session_limits *limits,
                              const char *pool_secret)
{
    struct sessions *sessions = new0(struct sessions);

    sessions->core = core;
    sessions->limits = *limits;
    sessions->pool_secret = dup_text(pool_secret);
    timer_start(core->loop, &sessions->sweep, SWEEP_MS, sweep, sessions);
    return sessions;
}

void sessions_destroy(struct sessions **sessions_p)
{
    struct sessions *sessions = TAKE(*sessions_p);

    if (!sessions)
        return;
    timer_stop(&sessions->sweep);
    for (unsigned i = 0; i < BUCKETS; i++)
        while (sessions->entries[i])
            entry_remove(sessions, sessions->entries[i]->ref);
    free(sessions->pool_secret);
    free(sessions);
}
