/* flows.c - whose turn it is to move */
#include "master/flows.h"

#include <errno.h>

#include "master/core.h"
#include "shared/refmap.h"

/* So often may others with one of its hosts go first; then those hosts are kept for it. */
#define PASSED_BY_MAX 16

struct host_flows {
    unsigned sending, receiving;
    unsigned users; /* flows that name it */
    /* Kept for one in the queue that was passed by too often; counted anew in each round. */
    uint64_t send_kept_round, receive_kept_round;
};

struct flows {
    unsigned per_host;
    struct refmap hosts; /* of struct host_flows */
    struct flow *first, **last;
    unsigned waiting, running;
    uint64_t round;
};

struct flows *flows_new(unsigned per_host)
{
    struct flows *flows = new0(struct flows);

    flows->per_host = per_host ? per_host : FLOWS_PER_HOST_DEFAULT;
    flows->last = &flows->first;
    flows->round = 1; /* no host was kept in it */
    return flows;
}

void flows_destroy(struct flows **flows_p)
{
    struct flows *flows = TAKE(*flows_p);
    void *host;

    if (!flows)
        return;
    for (size_t i = 0; refmap_each(&flows->hosts, &i, NULL, &host);)
        free(host);
    refmap_done(&flows->hosts);
    free(flows);
}

static struct host_flows *host_of(struct flows *flows, ref_t host)
{
    struct host_flows *found = refmap_get(&flows->hosts, host);

    if (!found) {
        found = new0(struct host_flows);
        refmap_put(&flows->hosts, host, found);
    }
    return found;
}

static struct host_flows *host_use(struct flows *flows, ref_t host)
{
    struct host_flows *used = host_of(flows, host);

    used->users++;
    return used;
}

static void host_drop(struct flows *flows, ref_t host)
{
    struct host_flows *used = refmap_get(&flows->hosts, host);

    if (--used->users == 0)
        free(refmap_take(&flows->hosts, host));
}

static void take_out(struct flow *flow)
{
    struct flows *flows = flow->flows;

    *flow->link = flow->next;
    if (flow->next)
        flow->next->link = flow->link;
    else
        flows->last = flow->link;
    flows->waiting--;
}

/* Has this flow its turn now? Those before it in the queue have been asked already in this round.
 */
static bool may_run(const struct flow *flow)
{
    const struct flows *flows = flow->flows;

    return flow->from->sending < flows->per_host && flow->to->receiving < flows->per_host
           && flow->from->send_kept_round != flows->round
           && flow->to->receive_kept_round != flows->round;
}

static void run(struct flow *flow)
{
    flow->from->sending++;
    flow->to->receiving++;
    flow->is_running = true;
    flow->flows->running++;
}

/* Those that stand before this one, and want one of the hosts that it takes now, were passed by. */
static void count_passing(struct flows *flows, const struct flow *runner)
{
    for (struct flow *flow = flows->first; flow && flow != runner; flow = flow->next)
        if (ref_equal(flow->source, runner->source)
            || ref_equal(flow->destination, runner->destination))
            flow->passed_by++;
}

static void give_turns(struct flows *flows)
{
    struct flow *next;

    flows->round++;
    for (struct flow *flow = flows->first; flow; flow = next) {
        next = flow->next;
        if (may_run(flow)) {
            count_passing(flows, flow);
            take_out(flow);
            run(flow);
            waitq_wake_all(&flow->turn);
        } else if (flow->passed_by >= PASSED_BY_MAX) {
            flow->from->send_kept_round = flows->round;
            flow->to->receive_kept_round = flows->round;
        }
    }
}

int flow_enter(struct flow *flow, struct call *call, ref_t source, ref_t destination)
{
    struct flows *flows = call->core->flows;

    *flow = (struct flow){.flows = flows,
                          .source = source,
                          .destination = destination,
                          .from = host_use(flows, source),
                          .to = host_use(flows, destination),
                          .link = flows->last};
    if (may_run(flow)) {
        run(flow);
        return 0;
    }
    *flows->last = flow;
    flows->last = &flow->next;
    flows->waiting++;
    while (!flow->is_running)
        if (waitq_wait(&flow->turn, 0) == -ECANCELED && !flow->is_running)
            return fail(call, TASK_CANCELLED, ref_text(call, call->task));
    return 0;
}

void flow_leave(struct flow *flow)
{
    struct flows *flows = flow->flows;

    if (!flows)
        return;
    if (flow->is_running) {
        flow->from->sending--;
        flow->to->receiving--;
        flows->running--;
    } else {
        take_out(flow);
    }
    flow->flows = NULL;
    give_turns(flows);
    host_drop(flows, flow->source);
    host_drop(flows, flow->destination);
}

unsigned flows_waiting(const struct flows *flows)
{
    return flows->waiting;
}

unsigned flows_running(const struct flows *flows)
{
    return flows->running;
}
