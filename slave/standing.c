/* standing.c - how this host stands to its pool, as clients are told that ask it and not its master */
#include "slave/standing.h"

#include <pthread.h>
#include <stdio.h>

#include "shared/failure.h"

struct standing {
    pthread_mutex_t lock; /* of what follows */
    struct standing_now now;
};

struct standing *standing_new(void)
{
    struct standing *standing = new0(struct standing);

    pthread_mutex_init(&standing->lock, NULL);
    return standing;
}

void standing_destroy(struct standing **standing_p)
{
    struct standing *standing = TAKE(*standing_p);

    if (!standing)
        return;
    pthread_mutex_destroy(&standing->lock);
    free(standing);
}

/* ---- the agent's ---- */

bool is_host_address(const char *text)
{
    return text && *text && strlen(text) < STANDING_ADDRESS_BYTES
           && !text[strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.:%_-")];
}

void standing_put_master(struct standing *standing, const char *address)
{
    if (!standing)
        return;
    pthread_mutex_lock(&standing->lock);
    if (is_host_address(address)) {
        standing->now.kind = STANDING_SLAVE;
        snprintf(standing->now.master_address, sizeof standing->now.master_address, "%s", address);
    }
    standing->now.is_linked = true;
    pthread_mutex_unlock(&standing->lock);
}

void standing_put_silent(struct standing *standing)
{
    if (!standing)
        return;
    pthread_mutex_lock(&standing->lock);
    standing->now.is_linked = false;
    pthread_mutex_unlock(&standing->lock);
}

void standing_put_booting(struct standing *standing)
{
    if (!standing)
        return;
    pthread_mutex_lock(&standing->lock);
    standing->now = (struct standing_now){.kind = STANDING_BOOTING};
    pthread_mutex_unlock(&standing->lock);
}

void standing_put_unknown(struct standing *standing, ref_t host)
{
    if (!standing)
        return;
    pthread_mutex_lock(&standing->lock);
    standing->now = (struct standing_now){.kind = STANDING_UNKNOWN, .host = host};
    pthread_mutex_unlock(&standing->lock);
}

/* ---- anybody's ---- */

void standing_get(struct standing *standing, struct standing_now *ret)
{
    *ret = (struct standing_now){0};
    if (!standing)
        return;
    pthread_mutex_lock(&standing->lock);
    *ret = standing->now;
    pthread_mutex_unlock(&standing->lock);
}

void standing_failure(const struct standing_now *now, struct arena *arena, struct failure *ret)
{
    char uuid[UUID_TEXT_BYTES];

    switch (now->kind) {
    case STANDING_BOOTING:
        failure_set(ret, arena, HOST_STILL_BOOTING);
        break;
    case STANDING_SLAVE:
        failure_set(ret, arena, HOST_IS_SLAVE, now->master_address);
        break;
    case STANDING_UNKNOWN:
        failure_set(ret, arena, HOST_UNKNOWN_TO_MASTER, uuid_print(uuid, now->host));
        break;
    }
}
