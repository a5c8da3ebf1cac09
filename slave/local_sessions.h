/* local_sessions.h - logins at this host itself, for when its pool's master cannot be asked (wire.md sections 5 and 15)
 *
 * They live in the agent's memory: a new agent asks to log in again. There are at most LOCAL_SESSIONS_MAX; of more, the one
 * that was not used for the longest time makes room, so that whoever knows the password always gets in. One that was not used
 * for a day has ended. */
#pragma once

#include "shared/base.h"
#include "shared/ref.h"

struct clock;
struct local_sessions;
struct random;

#define LOCAL_SESSIONS_MAX     200
#define LOCAL_SESSION_EXPIRY_S 86400

struct local_sessions *local_sessions_new(struct clock *, struct random *);
void local_sessions_destroy(struct local_sessions **);

/* A new one; its reference is the secret that its owner shows from then on. */
ref_t local_sessions_open(struct local_sessions *);
/* Is there such a session? `text` is what a client sent. Using it makes it live on. */
bool local_sessions_use(struct local_sessions *, const char *text, ref_t *ret);
/* One that is not there is closed already. */
void local_sessions_close(struct local_sessions *, ref_t);
size_t local_sessions_count(const struct local_sessions *);
