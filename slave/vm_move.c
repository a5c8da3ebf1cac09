/* vm_move.c - a guest's memory from host to host
 *
 *   source agent                                 destination agent
 *                                                receive_open: listens at a port of its own, with a token
 *   send: connects, says the token  -----------> compares it, says "ok"
 *   hands the socket to its driver               hands the socket to its driver
 *   driver  ====== memory, page by page ======>  driver
 *   GUEST_SENT: paused, disks released           GUEST_PAUSED: complete
 *   ledger: paused for this move (fsync)
 *   answers the master
 *
 * Nobody runs it now: the source only by vm_send_abort or with a higher right (vm_unpause), the destination only when the
 * master's COMMIT has given it the right (vm_unpause). A move that was called off on one side is written down there by its
 * name, so that a late message cannot begin it again. */
#include <errno.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/clock.h"
#include "shared/fiber.h"
#include "shared/log.h"
#include "shared/loop.h"
#include "shared/random.h"
#include "shared/wire.h"
#include "slave/sockets.h"
#include "slave/storage.h"
#include "slave/vms.h"

#define TOKEN_BYTES       64     /* 32 random bytes in hex */
#define OK_TEXT           "drover ok\n"
#define CONNECT_WAIT_MS   120000 /* the source comes within this time, or the copy is given up */
#define TOKEN_WAIT_MS     5000
#define CALLERS_MAX       16     /* connections that have not yet said their token */
#define DOWNTIME_MS       300    /* wanted, unless the master says another one */

/* What arrives, from receive_open until unpause or abort. */
struct receive {
    struct vm *vm;
    struct arena *arena;
    struct guest_plan plan;
    char move[LEDGER_MOVE_BYTES];
    char token[TOKEN_BYTES + 1];
    int listen_fd, socket_fd;     /* -1: none (any more) */
    int callers;                  /* fibers that read tokens */
    bool is_off;                  /* called off, or given up */
    bool is_complete;
    unsigned holders;             /* the VM, and each fiber */
    struct fiber *fiber;          /* receives; NULL when it has ended */
    struct waitq ready;           /* for its fiber: a socket came, or it is off */
    struct op op;                 /* under which the driver works */
};

static void receive_release(struct receive *receive)
{
    struct arena *arena = receive->arena;

    if (--receive->holders > 0)
        return;
    close_fd(&receive->listen_fd);
    close_fd(&receive->socket_fd);
    arena_destroy(&arena);
}

/* ---- destination: who connects ---- */

struct caller {
    struct receive *receive;
    int fd;
};

static bool read_all(int fd, char *bytes, size_t count, uint64_t deadline_ms)
{
    size_t have = 0;
    uint32_t events;

    while (have < count) {
        ssize_t n = recv(fd, bytes + have, count - have, MSG_DONTWAIT);

        if (n > 0)
            have += (size_t) n;
        else if (n == 0 || (errno != EAGAIN && errno != EINTR))
            return false;
        else if (fiber_wait_fd(fd, EPOLLIN, deadline_ms, &events) < 0)
            return false;
    }
    return true;
}

static void caller_main(void *arg)
{
    struct caller *caller = arg;
    struct receive *receive = caller->receive;
    struct agent *agent = receive->vm->agent;
    char token[TOKEN_BYTES + 1] = "";
    bool is_right = read_all(caller->fd, token, TOKEN_BYTES, clock_now_ms(agent->clock) + TOKEN_WAIT_MS)
                    && wire_same_secret(token, receive->token);

    if (is_right && !receive->is_off && receive->socket_fd < 0
        && send(caller->fd, OK_TEXT, strlen(OK_TEXT), MSG_NOSIGNAL) == (ssize_t) strlen(OK_TEXT)) {
        receive->socket_fd = caller->fd;
        waitq_wake_all(&receive->ready);
    } else {
        if (!is_right)
            log_warning(receive->vm->text, "someone without the token of this move connected");
        close_fd(&caller->fd);
    }
    receive->callers--;
    free(caller);
    receive_release(receive);
}

static void on_connection(void *arg, uint32_t events)
{
    struct receive *receive = arg;
    int fd = accept4(receive->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    struct caller *caller;

    (void) events;
    if (fd < 0)
        return;
    caller = receive->callers < CALLERS_MAX ? new0(struct caller) : NULL;
    if (!caller) {
        close_fd(&fd);
        return;
    }
    *caller = (struct caller){receive, fd};
    receive->callers++;
    receive->holders++;
    if (!fiber_spawn(receive->vm->agent->loop, caller_main, caller, "move caller")) {
        close_fd(&fd);
        free(caller);
        receive->callers--;
        receive_release(receive);
    }
}

static void stop_listening(struct receive *receive)
{
    if (receive->listen_fd < 0)
        return;
    loop_unwatch_fd(receive->vm->agent->loop, receive->listen_fd);
    close_fd(&receive->listen_fd);
}

/* ---- destination: receiving ---- */

/* The copy came to nothing: written down before anybody is told. */
static void give_up(struct receive *receive)
{
    struct vm *vm = receive->vm;
    struct ledger_vm row = vm_row(vm);

    if (row.progress == VM_RECEIVING && streq(row.move, receive->move)) {
        row.progress = VM_ABORTED;
        memcpy(row.aborted, row.move, sizeof row.aborted);
        ledger_put_vm(vm->agent->ledger, &row);
        ledger_sync(vm->agent->ledger);
    }
}

static void receive_main(void *arg)
{
    struct receive *receive = arg;
    struct vm *vm = receive->vm;
    struct agent *agent = vm->agent;
    uint64_t deadline_ms = clock_now_ms(agent->clock) + CONNECT_WAIT_MS;
    int r = 0;

    fiber_set_log_tag(fiber_self(), receive->op.id_text);
    while (!receive->is_off && receive->socket_fd < 0)
        if (waitq_wait(&receive->ready, deadline_ms) == -ETIMEDOUT)
            receive->is_off = true;
    stop_listening(receive);
    if (receive->is_off) {
        r = -1;
    } else {
        int fd = receive->socket_fd;

        receive->socket_fd = -1;
        vm_set_state(vm, GUEST_RECEIVING);
        r = DRIVE(&receive->op, vm, receive, &receive->plan.config, fd);
        if (r < 0)
            log_warning(vm->text, "the copy did not arrive: %s",
                        receive->op.failure.count ? receive->op.failure.params[receive->op.failure.count - 1] : "");
    }
    receive->is_off |= r < 0;
    if (r < 0) {
        give_up(receive);
        if (vm->receive == receive)
            vm_set_state(vm, GUEST_NONE);
    } else {
        receive->is_complete = true;
        vm_set_state(vm, GUEST_PAUSED);
    }
    receive->fiber = NULL;
    waitq_wake_all(&vm->changed);
    receive_release(receive);
}

int receive_wait(struct op *op, struct vm *vm)
{
    struct receive *receive = vm->receive;

    if (!receive) /* complete before the agent was restarted, or gone */
        return vm->state == GUEST_PAUSED ? 0 : vm_bad_state(op, vm, "paused");
    receive->holders++;
    vm_unlock(vm);
    while (receive->fiber)
        if (vm_wait_change(vm, op->deadline_ms) == -ETIMEDOUT)
            break;
    vm_lock(vm);
    receive_release(receive);
    if (vm->state == GUEST_PAUSED)
        return 0;
    return vm_row(vm).progress == VM_ABORTED ? 0 : vm_bad_state(op, vm, "paused");
}

int receive_drop(struct op *op, struct vm *vm)
{
    struct receive *receive = vm->receive;
    int r = 0;

    if (!receive)
        return 0;
    receive->is_off = true;
    waitq_wake_all(&receive->ready);
    while (receive->fiber && r == 0) {
        if (vm->state == GUEST_RECEIVING)
            r = DRIVE(op, vm, kill, vm->uuid); /* then its receive fails, and its fiber ends */
        while (receive->fiber && r == 0)
            vm_wait_change(vm, 0);
    }
    if (r < 0)
        return r;
    vm->receive = NULL;
    receive_release(receive);
    return 0;
}

void receive_destroy(struct vm *vm)
{
    struct receive *receive = TAKE(vm->receive);

    if (!receive)
        return;
    stop_listening(receive);
    if (!receive->fiber && receive->callers == 0)
        receive_release(receive); /* with fibers that will never run again it goes with the process */
}

static void make_token(struct random *random, char token[TOKEN_BYTES + 1])
{
    unsigned char bytes[TOKEN_BYTES / 2];

    random_bytes(random, bytes, sizeof bytes);
    for (size_t i = 0; i < sizeof bytes; i++)
        snprintf(token + 2 * i, 3, "%02x", bytes[i]);
}

static struct receive *receive_new(struct vm *vm, const struct op *op, const char *move)
{
    struct arena *arena = arena_new();
    struct receive *receive = arena_new0(arena, struct receive);

    receive->vm = vm;
    receive->arena = arena;
    receive->holders = 1;
    receive->listen_fd = receive->socket_fd = -1;
    snprintf(receive->move, sizeof receive->move, "%s", move);
    make_token(vm->agent->random, receive->token);
    receive->op = (struct op){.agent = vm->agent, .arena = arena, .row = op->row, .id = op->id, .is_written_down = true};
    memcpy(receive->op.id_text, op->id_text, sizeof op->id_text);
    return receive;
}

static int take_for_move(struct op *op, const char *uuid, int64_t epoch, const char *move, struct vm **ret_locked)
{
    if (!move[0] || strlen(move) >= LEDGER_MOVE_BYTES)
        return op_fail(op, INVALID_VALUE, "move", move);
    return vm_take(op, uuid, epoch, ret_locked);
}

static int open_receive(struct op *op, struct vm *vm, const struct slave_vm_receive_open_args *args, struct value *ret)
{
    struct agent *agent = op->agent;
    struct receive *receive = receive_new(vm, op, args->move);
    const char *address = value_map_text(args->config, "address", agent->config.address); /* a network of the master's choice */
    struct ledger_vm row;
    int port = 0, r;

    r = guest_plan_make(op, vm, (uint64_t) args->epoch, args->config, args->disks, args->nics, receive->arena,
                        &receive->plan);
    if (r == 0)
        r = storage_check_files(op, args->disks->items, args->disks->length);
    if (r < 0) {
        receive_release(receive);
        return r;
    }
    r = agent->sockets->listen(agent->sockets, address, &receive->listen_fd, &port);
    if (r < 0) {
        receive_release(receive);
        return op_fail(op, INTERNAL_ERROR, op_text(op, "cannot listen at %s: %s", address, strerror(-r)));
    }
    receive->plan.config.domid = vm->domid = ledger_next_domid(agent->ledger);
    row = vm_row(vm);
    row.epoch = (uint64_t) args->epoch;
    row.progress = VM_RECEIVING;
    row.domid = vm->domid;
    row.disks = receive->plan.disks;
    snprintf(row.move, sizeof row.move, "%s", args->move);
    ledger_put_vm(agent->ledger, &row);
    op_sync(op);
    vm->guest_epoch = (uint64_t) args->epoch;
    receive->holders++;
    receive->fiber = fiber_spawn(agent->loop, receive_main, receive, "move receive");
    if (!receive->fiber) {
        receive->holders--;
        give_up(receive);
        receive_release(receive);
        return op_fail(op, INTERNAL_ERROR, "this host has too much to do");
    }
    vm->receive = receive;
    if (loop_watch_fd(agent->loop, receive->listen_fd, EPOLLIN, on_connection, receive) < 0)
        die("move: cannot watch a listening socket");
    *ret = op_map(op, "address", address, "port", op_text(op, "%d", port), "token", receive->token,
                  "compress", value_map_text(args->config, "compress", "false"), NULL);
    return 0;
}

int do_vm_receive_open(struct op *op, const struct slave_vm_receive_open_args *args, struct value *ret)
{
    _cleanup_(vm_unlock_p) struct vm *vm = NULL;
    struct ledger_vm row;
    int r = take_for_move(op, args->vm, args->epoch, args->move, &vm);

    if (r < 0)
        return r;
    row = vm_row(vm);
    if (streq(row.aborted, args->move))
        return op_fail(op, INTERNAL_ERROR, op_text(op, "the move %s was called off here", args->move));
    if (row.epoch == (uint64_t) args->epoch && row.progress != VM_RECEIVING && row.progress != VM_ABORTED)
        return vm_bad_state(op, vm, "halted");
    if (vm->state == GUEST_RUNNING && row.progress == VM_RAN)
        return vm_bad_state(op, vm, "halted"); /* it runs here: a host does not move a guest to itself */
    /* What is left of an older copy, or of this one before the agent was restarted. */
    r = receive_drop(op, vm);
    if (r == 0 && vm->state != GUEST_NONE) {
        r = DRIVE(op, vm, kill, vm->uuid);
        if (r == 0)
            r = DRIVE(op, vm, forget, vm->uuid);
        if (r == 0)
            vm_set_state(vm, GUEST_NONE);
    }
    return r < 0 ? r : open_receive(op, vm, args, ret);
}

/* A copy that was about to run has taken its disks, and was stopped before the ledger said that it may. They are free again, and for
 * the source, too, whose epoch is the one below. */
static void release_disks(struct op *op, struct vm *vm, uint64_t epoch)
{
    struct ledger_vm row = vm_row(vm);

    if (row.epoch == epoch && epoch > 1 && (row.progress == VM_RECEIVING || row.progress == VM_ABORTED))
        owner_undo(op, vm, row.disks, epoch, epoch - 2);
}

/* Answered when the copy is gone, has never run and never will. */
int do_vm_receive_abort(struct op *op, const struct slave_vm_receive_abort_args *args, struct value *ret)
{
    _cleanup_(vm_unlock_p) struct vm *vm = NULL;
    struct ledger_vm row;
    int r = take_for_move(op, args->vm, args->epoch, args->move, &vm);

    if (r < 0)
        return r;
    row = vm_row(vm);
    if (row.epoch == (uint64_t) args->epoch && (row.progress == VM_RAN || row.progress == VM_PAUSED_FOR_MOVE
                                                || (row.progress == VM_ENDED && !streq(row.aborted, args->move))))
        return vm_bad_state(op, vm, "paused"); /* it has run, or may have */
    if (row.progress == VM_RECEIVING) {
        r = receive_drop(op, vm);
        if (r == 0)
            r = DRIVE(op, vm, kill, vm->uuid);
        if (r == 0 && vm->state != GUEST_NONE)
            r = DRIVE(op, vm, forget, vm->uuid);
        if (r < 0)
            return r;
        vm_set_state(vm, GUEST_NONE);
    }
    release_disks(op, vm, (uint64_t) args->epoch);
    row = vm_row(vm);
    if (row.progress == VM_RAN && (vm->state == GUEST_RUNNING || vm->state == GUEST_PAUSED)) {
        /* It runs here by an older right, which stays. The move's name below keeps a copy from coming. */
    } else if (row.epoch < (uint64_t) args->epoch) { /* it was never begun: and will not be */
        row.epoch = (uint64_t) args->epoch;
        row.progress = VM_ABORTED;
    } else if (row.progress == VM_RECEIVING) {
        row.progress = VM_ABORTED;
    }
    snprintf(row.aborted, sizeof row.aborted, "%s", args->move);
    ledger_put_vm(op->agent->ledger, &row);
    *ret = vm_answer(op, vm);
    return 0;
}

/* ---- source ---- */

/* A connection that has said the token and was answered; the caller's. */
static int connect_to(struct op *op, const struct vm *vm, const struct value *endpoint, int *ret_fd)
{
    struct agent_sockets *sockets = op->agent->sockets;
    const char *address = value_map_text(endpoint, "address", ""), *port = value_map_text(endpoint, "port", "");
    uint64_t deadline_ms = clock_now_ms(op->agent->clock) + 2 * TOKEN_WAIT_MS;
    const char *token = value_map_text(endpoint, "token", "");
    char ok[sizeof OK_TEXT] = "";
    _cleanup_(close_fd) int fd = -1;
    uint32_t events;
    socklen_t bytes = sizeof(int);
    int error;

    if (strlen(token) != TOKEN_BYTES)
        return op_fail(op, VM_MIGRATE_FAILED, vm->text, "", "", "the destination's endpoint makes no sense");
    error = -sockets->connect(sockets, address, port, &fd);
    if (!error && fiber_wait_fd(fd, EPOLLOUT, deadline_ms, &events) < 0)
        error = ETIMEDOUT;
    if (!error)
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &bytes);
    if (!error && send(fd, token, TOKEN_BYTES, MSG_NOSIGNAL) != TOKEN_BYTES)
        error = errno ? errno : EPIPE;
    if (!error && (!read_all(fd, ok, strlen(OK_TEXT), deadline_ms) || !streq(ok, OK_TEXT)))
        error = ECONNREFUSED;
    if (error)
        return op_fail(op, VM_MIGRATE_FAILED, vm->text, "", "",
                       op_text(op, "cannot reach the destination at %s port %s: %s", address, port, strerror(error)));
    *ret_fd = fd;
    fd = -1;
    return 0;
}

/* The promise: paused for this move, whatever happens to this agent. It is in the file before the master hears of it: with the
 * operation's outcome. */
static void promise(struct vm *vm, const char *move)
{
    struct ledger_vm row = vm_row(vm);

    row.progress = VM_PAUSED_FOR_MOVE;
    snprintf(row.move, sizeof row.move, "%s", move);
    ledger_put_vm(vm->agent->ledger, &row);
}

/* With the lock, which is given up while the memory travels. */
static int send_guest(struct op *op, struct vm *vm, const struct slave_vm_send_args *args)
{
    struct hypervisor *hypervisor = op->agent->hypervisor;
    const char *downtime = value_map_text(args->endpoint, "downtime_ms", "");
    bool is_compressed = streq(value_map_text(args->endpoint, "compress", "false"), "true");
    int downtime_ms = downtime[0] ? atoi(downtime) : DOWNTIME_MS;
    struct ledger_vm row;
    uint64_t number;
    int fd, r;

    r = connect_to(op, vm, args->endpoint, &fd);
    if (r < 0)
        return r;
    row = vm_row(vm);
    if (vm->state != GUEST_RUNNING || row.progress != VM_RAN) {
        close_fd(&fd);
        return vm_bad_state(op, vm, "running");
    }
    snprintf(row.move, sizeof row.move, "%s", args->move); /* an adopting agent finds what the guest was sent by */
    ledger_put_vm(op->agent->ledger, &row);
    op_sync(op);
    number = driving_begin(op->agent, op, vm);
    vm->sending = number;
    vm_unlock(vm);
    r = driving_wait(op, vm, number, hypervisor->send(hypervisor, number, vm->uuid, fd, MAX(downtime_ms, 1), is_compressed));
    if (r == 0 && vm->state == GUEST_RUNNING)
        vm_set_state(vm, GUEST_SENT);
    if (r == 0 && vm->state == GUEST_SENT)
        promise(vm, args->move);
    vm_lock(vm);
    vm->sending = 0;
    waitq_wake_all(&vm->changed);
    if (vm->state == GUEST_ENDED || vm->state == GUEST_NONE)
        return vm_bad_state(op, vm, "running"); /* the guest ended before the move did */
    return r;
}

int do_vm_send(struct op *op, const struct slave_vm_send_args *args, struct value *ret)
{
    _cleanup_(vm_unlock_p) struct vm *vm = NULL;
    struct ledger_vm row;
    int r = take_for_move(op, args->vm, args->epoch, args->move, &vm);

    if (r < 0)
        return r;
    row = vm_row(vm);
    if (row.epoch != (uint64_t) args->epoch)
        return vm_bad_state(op, vm, "running");
    if (streq(row.aborted, args->move))
        return op_fail(op, TASK_CANCELLED, op->id_text);
    if (row.progress == VM_PAUSED_FOR_MOVE && vm->state == GUEST_SENT && streq(row.move, args->move)) {
        promise(vm, args->move); /* sent before the agent was restarted: adopting has written it */
        *ret = vm_answer(op, vm);
        return 0;
    }
    if (vm->state != GUEST_RUNNING || row.progress != VM_RAN || vm->sending)
        return vm_bad_state(op, vm, "running");
    r = send_guest(op, vm, args);
    if (r == 0)
        *ret = vm_answer(op, vm);
    return r;
}

/* The only way back for a guest that was sent: the master's word, after the destination has dropped its copy. */
int do_vm_send_abort(struct op *op, const struct slave_vm_send_abort_args *args, struct value *ret)
{
    _cleanup_(vm_unlock_p) struct vm *vm = NULL;
    struct ledger_vm row;
    int r = take_for_move(op, args->vm, args->epoch, args->move, &vm);

    if (r < 0)
        return r;
    row = vm_row(vm);
    if (row.epoch != (uint64_t) args->epoch)
        return vm_bad_state(op, vm, "paused");
    snprintf(row.aborted, sizeof row.aborted, "%s", args->move);
    ledger_put_vm(op->agent->ledger, &row);
    if (vm->sending && streq(row.move, args->move)) {
        r = DRIVE(op, vm, cancel_send, vm->uuid);
        vm_unlock(vm);
        while (vm->sending)
            vm_wait_change(vm, 0);
        vm_lock(vm);
    }
    /* Whether the cancel came in time or too late: */
    row = vm_row(vm);
    if (vm->state == GUEST_SENT && row.progress != VM_ABORTED && (!row.move[0] || streq(row.move, args->move))) {
        r = owner_take(op, vm, row.disks, row.epoch, row.epoch);
        if (r < 0)
            return r;
        row = vm_row(vm);
        row.progress = VM_RAN; /* the move keeps its name: the next agent must know it if this one ends here */
        ledger_put_vm(op->agent->ledger, &row);
        op_sync(op);
        r = DRIVE(op, vm, resume_sent, vm->uuid, vm_row(vm).epoch);
        if (r < 0)
            return r;
        if (vm->state == GUEST_SENT)
            vm_set_state(vm, GUEST_RUNNING);
    }
    op->failure = (struct failure){0}; /* a cancel that came too late is no failure: the guest is back */
    *ret = vm_answer(op, vm);
    return 0;
}

/* The right is elsewhere, or over: nothing of the guest stays, but its epoch is remembered. */
int do_vm_forget(struct op *op, const struct slave_vm_forget_args *args, struct value *ret)
{
    _cleanup_(vm_unlock_p) struct vm *vm = NULL;
    struct ledger_vm row;
    int r = vm_take(op, args->vm, args->epoch, &vm);

    if (r < 0)
        return r;
    row = vm_row(vm);
    if (row.epoch == (uint64_t) args->epoch && (vm->state == GUEST_RUNNING || vm->state == GUEST_PAUSED))
        return vm_bad_state(op, vm, "halted"); /* it has this very right: end it first */
    vm->is_being_killed = true;
    r = receive_drop(op, vm);
    if (r == 0)
        r = DRIVE(op, vm, kill, vm->uuid);
    if (r == 0 && vm->state != GUEST_NONE)
        r = DRIVE(op, vm, forget, vm->uuid);
    vm->is_being_killed = false;
    if (r < 0)
        return r;
    vm_set_state(vm, GUEST_NONE);
    vm_put(vm, (uint64_t) args->epoch, VM_ENDED);
    owner_give_back(op, vm, vm_row(vm).disks); /* where they are not another host's by now */
    *ret = vm_answer(op, vm);
    return 0;
}
