/* local_sessions.c - logins at this host itself
 *
 * A table of fixed size, looked through from end to end: it is small, and these calls are rare. */
#include "slave/local_sessions.h"

#include <openssl/crypto.h>

#include "shared/clock.h"
#include "shared/random.h"

struct local_session {
    ref_t ref;        /* null: free */
    uint64_t used_ms;
};

struct local_sessions {
    struct clock *clock;
    struct random *random;
    struct local_session items[LOCAL_SESSIONS_MAX];
};

static bool is_alive(const struct local_sessions *sessions, const struct local_session *session)
{
    return !ref_is_null(session->ref)
           && clock_now_ms(sessions->clock) < session->used_ms + 1000 * (uint64_t) LOCAL_SESSION_EXPIRY_S;
}

ref_t local_sessions_open(struct local_sessions *sessions)
{
    struct local_session *place = &sessions->items[0];

    for (size_t i = 0; i < LOCAL_SESSIONS_MAX && is_alive(sessions, place); i++)
        if (!is_alive(sessions, &sessions->items[i]) || sessions->items[i].used_ms < place->used_ms)
            place = &sessions->items[i];
    *place = (struct local_session){ref_new(sessions->random), clock_now_ms(sessions->clock)};
    return place->ref;
}

/* In a time that does not depend on how much of the reference was guessed. */
static struct local_session *find(struct local_sessions *sessions, ref_t ref)
{
    struct local_session *found = NULL;

    for (size_t i = 0; i < LOCAL_SESSIONS_MAX; i++)
        if (CRYPTO_memcmp(&sessions->items[i].ref, &ref, sizeof ref) == 0)
            found = &sessions->items[i];
    return found && is_alive(sessions, found) ? found : NULL;
}

bool local_sessions_use(struct local_sessions *sessions, const char *text, ref_t *ret)
{
    struct local_session *session;

    if (!ref_parse(text, strlen(text), ret) || ref_is_null(*ret))
        return false;
    session = find(sessions, *ret);
    if (session)
        session->used_ms = clock_now_ms(sessions->clock);
    return session;
}

void local_sessions_close(struct local_sessions *sessions, ref_t ref)
{
    struct local_session *session = find(sessions, ref);

    if (session)
        *session = (struct local_session){0};
}

size_t local_sessions_count(const struct local_sessions *sessions)
{
    size_t count = 0;

    for (size_t i = 0; i < LOCAL_SESSIONS_MAX; i++)
        count += is_alive(sessions, &sessions->items[i]);
    return count;
}

struct local_sessions *local_sessions_new(struct clock *clock, struct random *random)
{
    struct local_sessions *sessions = new0(struct local_sessions);

    sessions->clock = clock;
    sessions->random = random;
    return sessions;
}

void local_sessions_destroy(struct local_sessions **sessions_p)
{
    free(TAKE(*sessions_p));
}
