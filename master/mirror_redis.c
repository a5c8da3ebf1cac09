/* mirror_redis.c - the connection of the mirror, and the script's verbs on it */
#include "master/mirror_redis.h"

#include "master/mirror_script.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/time.h>

#define CONNECT_TIMEOUT_S 2
#define COMMAND_TIMEOUT_S                                                                     \
    10 /* a script of 1,000 records takes milliseconds; saving a snapshot may stall Redis for \
          seconds */

struct mirror_redis {
    redisContext *context;
    char prefix[64]; /* drover:{<pool uuid>} */
    char head[80], log[80], stage[80];
    char script_hash[41];
};

static void reply_free(redisReply **reply)
{
    if (*reply)
        freeReplyObject(*reply);
    *reply = NULL;
}

/* ---- arguments ---- */

void mirror_args_done(struct mirror_args *args)
{
    free(args->items);
    free(args->lengths);
    *args = (struct mirror_args){0};
}

void mirror_args_add(struct mirror_args *args, const void *bytes, size_t length)
{
    if (args->count == args->room) {
        args->room = args->room ? 2 * args->room : 64;
        args->items = realloc_array(args->items, (size_t) args->room, sizeof *args->items);
        args->lengths = realloc_array(args->lengths, (size_t) args->room, sizeof *args->lengths);
    }
    args->items[args->count] = bytes;
    args->lengths[args->count++] = length;
}

void mirror_args_text(struct mirror_args *args, const char *text)
{
    mirror_args_add(args, text, strlen(text));
}

void mirror_args_number(struct mirror_args *args, uint64_t number)
{
    char *text = args->numbers + args->numbers_used;
    int length = snprintf(text, sizeof args->numbers - args->numbers_used, "%" PRIu64, number);

    assert((size_t) length < sizeof args->numbers - args->numbers_used);
    args->numbers_used += (size_t) length + 1;
    mirror_args_add(args, text, (size_t) length);
}

/* ---- the connection ---- */

static redisContext *connect_to(const char *address)
{
    struct timeval timeout = {CONNECT_TIMEOUT_S, 0};
    char host[256];
    const char *colon;

    if (strncmp(address, "unix:", 5) == 0)
        return redisConnectUnixWithTimeout(address + 5, timeout);
    colon = strrchr(address, ':');
    if (!colon || (size_t) (colon - address) >= sizeof host)
        return NULL;
    memcpy(host, address, (size_t) (colon - address));
    host[colon - address] = '\0';
    return redisConnectWithTimeout(host, atoi(colon + 1), timeout);
}

static int simple(struct mirror_redis *redis, int argc, const char **argv, const size_t *lengths,
                  char *text, size_t text_bytes, redisReply **ret_reply)
{
    _cleanup_(reply_free) redisReply *reply = redisCommandArgv(redis->context, argc, argv, lengths);

    if (!reply) {
        snprintf(text, text_bytes, "Redis: %s", redis->context->errstr);
        return -EIO;
    }
    if (reply->type == REDIS_REPLY_ERROR) {
        snprintf(text, text_bytes, "Redis: %s", reply->str);
        return -EIO;
    }
    if (ret_reply)
        *ret_reply = TAKE(reply);
    return 0;
}

struct mirror_redis *mirror_redis_open(const struct mirror_config *config, char *text,
                                       size_t text_bytes)
{
    _cleanup_(mirror_redis_close) struct mirror_redis *redis = new0(struct mirror_redis);
    _cleanup_(reply_free) redisReply *reply = NULL;
    struct timeval timeout = {COMMAND_TIMEOUT_S, 0};
    char uuid[UUID_TEXT_BYTES];

    redis->context = connect_to(config->address);
    if (!redis->context || redis->context->err) {
        snprintf(text, text_bytes, "Redis at %s: %s", config->address,
                 redis->context ? redis->context->errstr : "not an address");
        return NULL;
    }
    redisSetTimeout(redis->context, timeout);
    if (strncmp(config->address, "unix:", 5) != 0)
        redisEnableKeepAlive(redis->context);
    if (config->password) {
        const char *argv[] = {"AUTH", config->user ? config->user : "default", config->password};

        if (simple(redis, 3, argv, NULL, text, text_bytes, NULL) < 0)
            return NULL;
    }
    snprintf(redis->prefix, sizeof redis->prefix, "drover:{%s}", uuid_print(uuid, config->pool));
    snprintf(redis->head, sizeof redis->head, "%s:head", redis->prefix);
    snprintf(redis->log, sizeof redis->log, "%s:log", redis->prefix);
    snprintf(redis->stage, sizeof redis->stage, "%s:stage", redis->prefix);
    {
        const char *argv[] = {"SCRIPT", "LOAD", mirror_script};

        if (simple(redis, 3, argv, NULL, text, text_bytes, &reply) < 0)
            return NULL;
    }
    if (reply->type != REDIS_REPLY_STRING || reply->len != sizeof redis->script_hash - 1) {
        snprintf(text, text_bytes, "Redis: unexpected answer to SCRIPT LOAD");
        return NULL;
    }
    memcpy(redis->script_hash, reply->str, sizeof redis->script_hash);
    return TAKE(redis);
}

void mirror_redis_close(struct mirror_redis **redis_p)
{
    struct mirror_redis *redis = *redis_p;

    if (!redis)
        return;
    if (redis->context)
        redisFree(redis->context);
    free(redis);
    *redis_p = NULL;
}

/* ---- verbs ---- */

/* epoch, generation and incarnation, from three string replies; foreign bytes. */
static int head_read(redisReply *epoch, redisReply *generation, redisReply *incarnation,
                     struct mirror_head *ret)
{
    *ret = (struct mirror_head){0};
    if (epoch->type == REDIS_REPLY_STRING)
        ret->epoch = strtoull(epoch->str, NULL, 10);
    if (generation->type == REDIS_REPLY_STRING)
        ret->generation = strtoull(generation->str, NULL, 10);
    if (incarnation->type == REDIS_REPLY_STRING && incarnation->len < sizeof ret->incarnation)
        memcpy(ret->incarnation, incarnation->str, incarnation->len + 1);
    return 0;
}

int mirror_redis_call(struct mirror_redis *redis, const char *verb, uint64_t epoch, ref_t holder,
                      const struct mirror_args *args, struct mirror_answer *ret, char *text,
                      size_t text_bytes)
{
    _cleanup_(mirror_args_done) struct mirror_args all = {0};
    _cleanup_(reply_free) redisReply *reply = NULL;
    char holder_text[UUID_TEXT_BYTES];
    int r;

    mirror_args_text(&all, "EVALSHA");
    mirror_args_text(&all, redis->script_hash);
    mirror_args_text(&all, "3");
    mirror_args_text(&all, redis->head);
    mirror_args_text(&all, redis->log);
    mirror_args_text(&all, redis->stage);
    mirror_args_text(&all, verb);
    mirror_args_number(&all, epoch);
    mirror_args_text(&all, uuid_print(holder_text, holder));
    mirror_args_text(&all, redis->prefix);
    for (int i = 0; args && i < args->count; i++)
        mirror_args_add(&all, args->items[i], args->lengths[i]);

    r = simple(redis, all.count, all.items, all.lengths, text, text_bytes, &reply);
    if (r < 0)
        return r;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 5
        || reply->element[0]->type != REDIS_REPLY_STRING) {
        snprintf(text, text_bytes, "Redis: unexpected answer to %s", verb);
        return -EIO;
    }
    ret->word = streq(reply->element[0]->str, "ok")           ? MIRROR_OK
                : streq(reply->element[0]->str, "superseded") ? MIRROR_OTHER_EPOCH
                                                              : MIRROR_REFUSED;
    return head_read(reply->element[1], reply->element[3], reply->element[4], &ret->head);
}

int mirror_redis_head(struct mirror_redis *redis, struct mirror_head *ret, char *text,
                      size_t text_bytes)
{
    _cleanup_(reply_free) redisReply *reply = NULL;
    const char *argv[] = {"HMGET", redis->head, "epoch", "generation", "incarnation"};
    int r = simple(redis, 5, argv, NULL, text, text_bytes, &reply);

    if (r < 0)
        return r;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 3) {
        snprintf(text, text_bytes, "Redis: unexpected answer to HMGET");
        return -EIO;
    }
    return head_read(reply->element[0], reply->element[1], reply->element[2], ret);
}

int mirror_redis_scan(struct mirror_redis *redis, const char *incarnation, const char *class,
                      int (*each)(void *arg, const char *bytes, size_t length), void *arg,
                      char *text, size_t text_bytes)
{
    char key[256], cursor[32] = "0";

    snprintf(key, sizeof key, "%s:%s:%s", redis->prefix, incarnation, class);
    do {
        _cleanup_(reply_free) redisReply *reply = NULL;
        const char *argv[] = {"HSCAN", key, cursor, "COUNT", "1000"};
        redisReply *items;
        int r = simple(redis, 5, argv, NULL, text, text_bytes, &reply);

        if (r < 0)
            return r;
        if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2
            || reply->element[0]->len >= sizeof cursor
            || reply->element[1]->type != REDIS_REPLY_ARRAY) {
            snprintf(text, text_bytes, "Redis: unexpected answer to HSCAN");
            return -EIO;
        }
        memcpy(cursor, reply->element[0]->str, reply->element[0]->len + 1);
        items = reply->element[1];
        for (size_t i = 0; i + 1 < items->elements; i += 2) {
            r = each(arg, items->element[i + 1]->str, items->element[i + 1]->len);
            if (r < 0)
                return r;
        }
    } while (!streq(cursor, "0"));
    return 0;
}
