/* transfer_left.c - transfers that nobody here works on any more, and that are still at work at their host
 *
 * Each attempt is a call of its own, whose memory ends with it: a disk may be away for days. */
#include "master/transfer_left.h"

#include "master/background.h"
#include "master/raw_vdi_doubt.h"
#include "master/slaves.h"
#include "master/storage.h"
#include "shared/fiber.h"
#include "shared/log.h"
#include "shared/refmap.h"

#define RETRY_MS 2000

struct transfers_left {
    struct refmap table; /* id -> struct left, while its host is being asked */
};

/* One of them. */
struct left {
    ref_t host, id;
    bool is_told; /* the log says that it goes on */
};

static const char *host_name(struct call *call, ref_t ref)
{
    const struct object *host = view_get(call_view(call), host, ref);

    return host ? arena_strdup(call->arena, host_get_name_label(host)) : "that is gone";
}

static int attempt(struct call *call, const struct left *left)
{
    char id[UUID_TEXT_BYTES];

    return slave_transfer_abort(call, left->host, &(struct slave_transfer_abort_args){uuid_print(id, left->id)}, NULL);
}

static void tell(struct call *call, struct left *left)
{
    const struct failure *failure = &call->failure;

    if (!left->is_told)
        log_warning(NULL, "a transfer that was given up goes on at host %s, which is asked again until it is over: %s %s",
                    host_name(call, left->host), failure->text, failure->count ? failure->params[failure->count - 1] : "");
    left->is_told = true;
}

static void end_it(struct call *call, void *arg)
{
    struct left *left = arg;
    struct transfers_left *transfers = call->core->transfers_left;
    int r = attempt(call, left);

    if (r < 0 && slave_is_linked(call->core->slaves, left->host)) {
        tell(call, left);
        if (fiber_sleep(RETRY_MS) == 0 && slave_is_linked(call->core->slaves, left->host)) {
            background_run(call->core, "transfer.end", "", end_it, left);
            return;
        }
    }
    refmap_take(&transfers->table, left->id); /* before what waits: a host that tells of it later is heard */
    if (r == 0) {
        if (left->is_told)
            log_info(NULL, "the transfer that went on at host %s is over", host_name(call, left->host));
        raw_write_over(call, left->id);
        storage_sweep(call, left->host);
    }
    free(left);
}

bool transfer_left_end(struct core *core, ref_t host, ref_t id)
{
    struct left *left;

    if (refmap_get(&core->transfers_left->table, id))
        return false;
    left = new0(struct left);
    *left = (struct left){.host = host, .id = id};
    refmap_put(&core->transfers_left->table, id, left);
    background_run(core, "transfer.end", "", end_it, left);
    return true;
}

void transfers_left_start(struct core *core)
{
    core->transfers_left = new0(struct transfers_left);
}

void transfers_left_destroy(struct transfers_left **transfers_p)
{
    struct transfers_left *transfers = TAKE(*transfers_p);
    void *value;

    if (!transfers)
        return;
    for (size_t at = 0; refmap_each(&transfers->table, &at, NULL, &value);)
        free(value); /* its fiber runs no more */
    refmap_done(&transfers->table);
    free(transfers);
}
