/* start.c - from files to a store that may be written
 *
 *   role file            whose pool, who we are
 *     -> SQLite          highest epoch and generation there; its content
 *     -> Redis           the same; its content only when SQLite is empty
 *     -> a new epoch     one above the highest known, durable before anything else is written
 *     -> journal, mirror follow the store from then on
 *
 * Where the disk refuses that epoch the master serves reads from what the disk holds, and nothing else: no epoch, no hosts, no
 * mirror (core->read_only_why).
 *
 * SQLite decides (mode `local`). When Redis knows more than SQLite does - somebody has put back an
 * old copy of the store - the operator is told, and the new epoch makes everybody read again.
 * (design.md section 4, "Starting")
 *
 * What was started from may be an old copy: read from Redis, below what Redis has, or put back from
 * a backup, which has a mark. Then parts->may_lack says why, and the caller waits for the hosts
 * (awaited.h). The mark stays with the store until that is written down in it. What only the hosts
 * know is heard later (slave_opening.c); when that is a higher epoch, start_learn() writes it down
 * and the master begins anew. */
#include "master/start.h"

#include "master/journal.h"
#include "master/message.h"
#include "master/mirror.h"
#include "master/secret.h"
#include "master/secret_file.h"
#include "master/slaves.h"
#include "master/store.h"
#include "shared/arena.h"
#include "shared/log.h"
#include "shared/random.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEXT_BYTES      512
#define READ_ONLY_GENERATIONS (1ull << 62)
#define MIRROR_FLUSH_MS 2000 /* how long the end waits for Redis */

/* ---- the role file: "master POOL-UUID HOST-UUID" ---- */

static int role_write(const char *path, ref_t pool, ref_t host)
{
    _cleanup_(close_fd) int file = -1;
    char pool_text[UUID_TEXT_BYTES], host_text[UUID_TEXT_BYTES], line[128], new_path[4104];
    int length = snprintf(line, sizeof line, "master %s %s\n", uuid_print(pool_text, pool),
                          uuid_print(host_text, host));

    snprintf(new_path, sizeof new_path, "%s.new", path);
    file = open(new_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file < 0 || write(file, line, (size_t) length) != length || fsync(file) < 0
        || rename(new_path, path) < 0)
        return -errno;
    return 0;
}

static int role_read(const char *path, ref_t *ret_pool, ref_t *ret_host)
{
    _cleanup_(close_fd) int file = open(path, O_RDONLY | O_CLOEXEC);
    char line[128], role[16], pool[64], host[64];
    ssize_t length;

    if (file < 0)
        return -errno;
    length = read(file, line, sizeof line - 1);
    if (length < 0)
        return -errno;
    line[length] = '\0';
    if (sscanf(line, "%15s %63s %63s", role, pool, host) != 3 || !streq(role, "master")
        || !uuid_parse(pool, strlen(pool), ret_pool) || !uuid_parse(host, strlen(host), ret_host))
        return -EBADMSG;
    return 0;
}

/* At the first start the role is made: a pool of this host alone. */
static int take_role(struct core *core, const struct config *config, struct store_parts *parts,
                     bool *ret_is_first)
{
    char path[4096];
    int r;

    snprintf(path, sizeof path, "%s/role", config->dir);
    r = role_read(path, &parts->pool_uuid, &parts->host_uuid);
    *ret_is_first = r == -ENOENT;
    if (*ret_is_first) {
        parts->pool_uuid = ref_new(core->random);
        parts->host_uuid = ref_new(core->random);
        if (*config->host_uuid
            && !uuid_parse(config->host_uuid, strlen(config->host_uuid), &parts->host_uuid)) {
            log_error(NULL, "host_uuid: '%s' is no uuid", config->host_uuid);
            return -1;
        }
        r = role_write(path, parts->pool_uuid, parts->host_uuid);
    }
    if (r < 0)
        log_error(NULL, "role file %s: %s", path, r == -EBADMSG ? "it is damaged" : strerror(-r));
    return r < 0 ? -1 : 0;
}

/* ---- the mirror ---- */

/* What Redis tells of itself becomes a message object, so that whoever looks at the pool sees it.
 */
static void mirror_tells(void *arg, enum mirror_state state, const char *text)
{
    struct core *core = arg;
    _cleanup_(txn_end) struct txn *txn = NULL;
    const struct object *pool;

    if (state == MIRROR_CATCHING_UP)
        return;
    txn = store_begin(core->store);
    pool = txn_get(txn, pool, core->pool);
    if (pool)
        message_raise(txn, core,
                      state == MIRROR_IN_STEP      ? "REDIS_MIRROR_IN_STEP"
                      : state == MIRROR_SUPERSEDED ? "REDIS_MIRROR_SUPERSEDED"
                                                   : "REDIS_MIRROR_AWAY",
                      state == MIRROR_IN_STEP ? 5 : 2, cls_Pool, pool_get_uuid(pool), text);
    store_apply(&txn);
}

/* The key that SECRET-marked fields are sealed with, from a file of our own. */
static int mirror_key(struct core *core, const struct config *config,
                      uint8_t ret_key[SECRET_KEY_BYTES])
{
    _cleanup_(free_p) char *secret = NULL;
    char path[4096];

    snprintf(path, sizeof path, "%s/mirror-key", config->dir);
    secret = secret_file_read(path, core->random);
    if (!secret) {
        log_error(NULL, "%s: %s", path, strerror(errno));
        return -1;
    }
    SHA256((const unsigned char *) secret, strlen(secret), ret_key);
    return 0;
}

/* ---- a store that is a copy ---- */

static void mark_path(const struct config *config, char ret_path[4096])
{
    snprintf(ret_path, 4096, "%s/store/" JOURNAL_COPY_MARK, config->dir);
}

static bool is_marked(const struct config *config)
{
    char path[4096];

    mark_path(config, path);
    return access(path, F_OK) == 0;
}

void start_is_told(const struct config *config)
{
    char path[4096];

    mark_path(config, path);
    if (unlink(path) < 0 && errno != ENOENT)
        log_warning(NULL, "%s: %s; each start waits for all hosts", path, strerror(errno));
}

/* Why the store may lack what was acknowledged, or NULL. */
static const char *what_may_be_missing(const struct config *config, const struct journal_head *on_disk,
                                       const struct mirror_head *in_redis)
{
    if (is_marked(config))
        return "the store is a copy";
    if (on_disk->generation == 0 && in_redis->generation > 0)
        return "they were read from Redis, which follows the store at a distance";
    if (in_redis->generation > on_disk->generation || in_redis->epoch > on_disk->epoch)
        return "Redis has newer ones than the store";
    return NULL;
}

int start_learn(const struct config *config, const struct store_parts *parts,
                const struct slaves_known *known)
{
    struct journal_config journal_config = {.clock = clock_real(), .pool = parts->pool_uuid};
    char directory[4096], text[JOURNAL_TEXT_BYTES];
    struct journal *journal;
    int r;

    snprintf(directory, sizeof directory, "%s/store", config->dir);
    journal_config.directory = directory;
    r = journal_open(&journal_config, &journal, text);
    if (r == 0) {
        r = journal_learn_epoch(journal, known->epoch, known->holder, known->generation, text);
        journal_close(&journal);
    }
    if (r < 0)
        log_error(NULL, "%s", text);
    return r < 0 ? -1 : 0;
}

/* ---- filling the store ---- */

static int load_from_mirror(struct core *core, const struct config *config, const struct mirror_config *mirror,
                            const struct mirror_head *head, struct journal *journal)
{
    _cleanup_(view_unpin) struct view *view = NULL;
    char text[TEXT_BYTES], journal_text[JOURNAL_TEXT_BYTES], path[4096];
    size_t objects;

    log_info(NULL, "the store is empty: reading generation %" PRIu64 " from Redis",
             head->generation);
    if (mirror_load(mirror, core->epoch, core->holder, core->store, &objects, text, sizeof text)
        < 0) {
        log_error(NULL, "%s", text);
        return -1;
    }
    store_load_end(core->store, core->epoch, head->generation);
    mark_path(config, path);
    if (journal_mark_copy(path, journal_text) < 0) {
        log_error(NULL, "%s", journal_text);
        return -1;
    }
    view = store_pin(core->store);
    if (journal_fill(journal, view, head->generation, journal_text) < 0) {
        log_error(NULL, "%s", journal_text);
        return -1;
    }
    log_info(NULL, "%zu objects came from Redis", objects);
    return 0;
}

static int load_from_journal(struct core *core, struct journal *journal, uint64_t generation)
{
    char text[JOURNAL_TEXT_BYTES];
    size_t objects, records;

    if (journal_load(journal, core->store, &objects, &records, text) < 0) {
        log_error(NULL, "%s", text);
        return -1;
    }
    store_load_end(core->store, core->epoch, generation);
    log_info(NULL, "%zu objects and %zu redo records read, up to generation %" PRIu64, objects,
             records, generation);
    return 0;
}

static void journal_failed(void *arg, const char *text)
{
    struct store_parts *parts = arg;

    log_error(NULL, "the disk failed, what became of the last writes is unknown: %s", text);
    parts->failed(parts->failed_arg);
}

/* What the disk holds, for a master that cannot write to it. Generations of this life are far above all that are ever written,
 * so that no later master takes an event's token of it for one of its own. */
static int start_to_read(struct core *core, const struct journal_config *config, const char *why)
{
    struct journal *journal;
    struct journal_head head;
    char text[JOURNAL_TEXT_BYTES];
    int r;

    log_error(NULL, "the disk refuses writes, serving reads only: %s", why);
    if (journal_open_to_read(config, &journal, text) < 0) {
        log_error(NULL, "%s", text);
        return -1;
    }
    journal_head(journal, &head);
    core->epoch = head.epoch;
    core->holder = ref_new(core->random);
    core->store = store_new(core->clock, core->loop);
    r = head.generation == 0 ? -1 : load_from_journal(core, journal, head.generation + READ_ONLY_GENERATIONS);
    if (head.generation == 0)
        log_error(NULL, "there is nothing to be read yet");
    else if (r == 0)
        store_set_read_only(core->store);
    journal_close(&journal);
    core->read_only_why = r == 0 ? dup_text(why) : NULL;
    return r;
}

int start_store(struct core *core, const struct config *config, struct store_parts *parts)
{
    struct journal_config journal_config = {.clock = core->clock, .is_new = true};
    struct mirror_config mirror_config = {.address = config->redis};
    struct journal_head on_disk;
    struct mirror_head in_redis = {0};
    uint8_t key[SECRET_KEY_BYTES];
    char directory[4096], text[TEXT_BYTES], journal_text[JOURNAL_TEXT_BYTES];
    uint64_t highest;
    bool has_mirror = *config->redis, is_empty, is_first;
    int r;

    parts->core = core;
    if (take_role(core, config, parts, &is_first) < 0)
        return -1;
    snprintf(directory, sizeof directory, "%s/store", config->dir);
    if (mkdir(directory, 0700) < 0 && errno != EEXIST) {
        log_error(NULL, "%s: %s", directory, strerror(errno));
        return -1;
    }
    journal_config.directory = directory;
    journal_config.pool = parts->pool_uuid;
    parts->journal_config = journal_config;
    parts->journal_config.directory = parts->directory = dup_text(directory);
    r = journal_open(&journal_config, &parts->journal, journal_text);
    if (r == -EIO && !is_first)
        return start_to_read(core, &journal_config, journal_text);
    if (r < 0) {
        log_error(NULL, "%s", journal_text);
        return -1;
    }
    journal_head(parts->journal, &on_disk);
    is_empty = on_disk.generation == 0;

    if (has_mirror) {
        if (mirror_key(core, config, key) < 0)
            return -1;
        mirror_config.user = *config->redis_user ? config->redis_user : NULL;
        mirror_config.password = *config->redis_password ? config->redis_password : NULL;
        mirror_config.pool = parts->pool_uuid;
        mirror_config.secret_key = key;
        if (mirror_peek(&mirror_config, &in_redis, text, sizeof text) < 0) {
            log_warning(NULL, "%s; starting without it", text);
        }
    }
    /* The role says that there is a pool, but neither disk nor Redis holds it: an empty one in its
     * place would take its hosts and forget its VMs. A first start that was cut short has claimed
     * its epoch at least. */
    if (!is_first && on_disk.epoch == 0 && in_redis.generation == 0) {
        log_error(NULL,
                  "%s is empty, and the pool it held is not to be had from Redis either. Put a "
                  "copy of the store back, "
                  "or remove %s/role to begin a new pool",
                  directory, config->dir);
        return -1;
    }
    if (!is_empty && in_redis.generation > on_disk.generation)
        log_warning(NULL,
                    "Redis has generation %" PRIu64 ", the store only %" PRIu64
                    ": was an old copy of the store put back? The store decides",
                    in_redis.generation, on_disk.generation);

    core->epoch = 1 + MAX(on_disk.epoch, in_redis.epoch);
    core->holder = ref_new(core->random);
    highest = MAX(MAX(on_disk.generation, in_redis.generation), on_disk.known);
    parts->generation = highest;
    parts->may_lack = what_may_be_missing(config, &on_disk, &in_redis);
    r = journal_claim_epoch(parts->journal, core->epoch, core->holder, highest, journal_text);
    if (r == -EIO && !is_empty) {
        parts->may_lack = NULL;
        journal_close(&parts->journal);
        return start_to_read(core, &journal_config, journal_text);
    }
    if (r < 0) {
        log_error(NULL, "%s", journal_text);
        return -1;
    }
    core->store = store_new(core->clock, core->loop);
    r = is_empty && in_redis.generation > 0
            ? load_from_mirror(core, config, &mirror_config, &in_redis, parts->journal)
            : load_from_journal(core, parts->journal, highest);
    if (r < 0)
        return -1;
    parts->epoch_count = journal_epochs(parts->journal, parts->epochs, ARRAY_SIZE(parts->epochs));
    journal_start(parts->journal, core->store, core->loop, journal_failed, parts);
    core->journal = parts->journal;
    if (has_mirror)
        parts->mirror =
            mirror_new(&mirror_config, core->store, core->loop, core->epoch, core->holder,
                       is_empty ? in_redis.generation : on_disk.generation, mirror_tells, core);
    core->mirror = parts->mirror;
    OPENSSL_cleanse(key, sizeof key);
    return 0;
}

void end_store(struct store_parts *parts)
{
    mirror_destroy(&parts->mirror, MIRROR_FLUSH_MS);
    journal_close(&parts->journal);
    free(parts->directory);
}
