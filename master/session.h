/* session.h - logins: who is asking
 *
 * A session is a volatile object of the store, so that any HTTP loop can check one in its pinned
 * view. The core keeps, beside the rows, when each was last used and how many there are of a kind:
 * sessions end 24 h after their last use, and of each kind (originator, user, nameless, pool) there
 * is a limited number, beyond which the longest idle ones make room. Idle is a session with which
 * nothing has been asked for a minute, no call is under way or waiting (event.next), and no task is
 * unfinished. One that is in use is never evicted: a kind may grow to twice its limit, and if all
 * are in use then, the login is refused. So a client that logs in again and again without logging
 * out is in its own way for a minute at most. */
#pragma once

#include "master/call.h"

#define SESSION_NOT_POOL_TEXT "Internal API call attempted with non-pool (external) session"

struct sessions;

struct session_limits {
    unsigned per_originator, per_user, nameless, pool;
    uint64_t expiry_s;
};
#define SESSION_LIMITS_DEFAULT                                                                  \
    {                                                                                           \
        .per_originator = 500, .per_user = 500, .nameless = 400, .pool = 400, .expiry_s = 86400 \
    }

/* `pool_secret` is what hosts of the pool prove themselves with. */
struct sessions *sessions_new(struct core *, const struct session_limits *,
                              const char *pool_secret);
void sessions_destroy(struct sessions **);

/* Is the pool secret right? Any thread, in constant time. */
bool session_pool_secret_is(const struct core *, const char *secret);

/* The same for a login, from a fiber: those who guess wait. 0 or -ERR_SESSION_AUTHENTICATION_FAILED
 * ["", text]. */
int session_check_secret(struct call *, const char *secret);

/* Who is asking: fills call->caller from the session's row. `text` is the first parameter as sent;
 * method NULL for an unknown one. Returns 0, -ERR_SESSION_INVALID [text] or, for pool-only
 * messages, -ERR_INTERNAL_ERROR. */
int session_check(struct call *, const char *text, const struct method *);

struct session_identity {
    const char *user_name; /* "" for pool and local sessions */
    const char *sid;       /* identifier of an account other than root, or "" */
    const char *originator;
    enum role role;
    bool is_local_superuser, is_pool;
    bool is_local; /* slave_local_login: for emergency calls and local_logout only, and for all of
                      these: the role is LOCAL_ROOT, pool-internal ones included */
};
/* A new session, durable in the sense of volatile things: visible. 0 or
 * -ERR_SESSION_AUTHENTICATION_FAILED when there are too many that are all in use. */
int session_create(struct call *, const struct session_identity *, ref_t *ret);

/* A call of the session is under way from the first to the second: it is not idle. Any thread. */
void session_use_begin(struct core *, ref_t session);
void session_use_end(struct core *, ref_t session);

/* Ends a session: its row goes, its blocked event calls are answered. */
void session_drop(struct call *, ref_t);

size_t sessions_count(const struct core *);
