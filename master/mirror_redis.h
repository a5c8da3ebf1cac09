/* mirror_redis.h - the connection of the mirror: one synchronous hiredis context and the script's
 * verbs */
#pragma once

#include "master/mirror.h"

struct redisReply;
struct mirror_redis;

/* Redis' answer to a verb: what it has afterwards. */
enum mirror_word { MIRROR_OK, MIRROR_REFUSED, MIRROR_OTHER_EPOCH };
struct mirror_answer {
    enum mirror_word word;
    struct mirror_head head;
};

/* Arguments of a verb; texts and bytes stay the caller's until mirror_redis_call returns. */
struct mirror_args {
    const char **items;
    size_t *lengths;
    int count, room;
    char numbers[1024]; /* where mirror_args_number puts its texts */
    size_t numbers_used;
};
void mirror_args_done(struct mirror_args *);
void mirror_args_add(struct mirror_args *, const void *bytes, size_t length);
void mirror_args_text(struct mirror_args *, const char *text);
void mirror_args_number(struct mirror_args *, uint64_t number);

/* NULL with a sentence in `text` when Redis cannot be reached. */
struct mirror_redis *mirror_redis_open(const struct mirror_config *, char *text, size_t text_bytes);
void mirror_redis_close(struct mirror_redis **);

/* Runs a verb of mirror_script.h. 0, or -EIO when the connection broke or Redis answered an error:
 * then the outcome is unknown, and the connection is to be closed; the sentence is in `text`. */
int mirror_redis_call(struct mirror_redis *, const char *verb, uint64_t epoch, ref_t holder,
                      const struct mirror_args *, struct mirror_answer *ret, char *text,
                      size_t text_bytes);
int mirror_redis_head(struct mirror_redis *, struct mirror_head *ret, char *text,
                      size_t text_bytes);
/* Calls `each` for all records of a class in an incarnation; a negative return of it ends the scan.
 */
int mirror_redis_scan(struct mirror_redis *, const char *incarnation, const char *class,
                      int (*each)(void *arg, const char *bytes, size_t length), void *arg,
                      char *text, size_t text_bytes);
