#!/usr/bin/env python3
"""The crash matrix of moves. At each named point of each message of a move, on each side that the message comes to, the process
there is killed, stopped for longer than the others wait or for less, or the message is lost; or it is held there while the guests
process of source or destination is killed or stopped. Each time the VM ran exactly once by its own journal, no guest was lost
that need not be, every task ended, and the room is free. A case whose point was never passed fails.

  move_crash.py [--cases N] [--seed S] [--all [--part I/N]] [--go-on] [CASE ...]

Messages and points are those of `--crash-points`, which makes them from slave_calls.def; which message comes to which side is
read from undisturbed moves. A case is POINT:ACTION@SIDE or, of a guests process, POINT:ACTION@SIDE+guests-SIDE. By default a sample
by the seed, printed."""
import contextlib
import os
import sys
import time

import crashlib
from crashlib import Armed, actions_at, is_ended, message_of, points, read_trace, start, try_call
from poollib import NULL, Failure, Pool, check, wait

ACTIONS = ("kill", "stop", "falter", "drop-reply")
GUESTS_ACTIONS = ("kill", "stop")
SIDES = ("master", "source", "destination")
SLOW_MS = 3000 # a move lasts so long that it can be called off


# ---- what makes the messages come ----

def move(case):
    return try_call(case.pool, "Async.VM.pool_migrate", case.vm, case.destination, {"live": "true"})


def move_called_off(case):
    before = case.sends()
    task = move(case)
    wait(lambda: case.sends() > before, case.what + ": its memory travels")
    try_call(case.pool, "task.cancel", task)
    return task


def move_settled(case):
    """The master dies when everything was sent; the next one asks both hosts how far it came."""
    case.first_master_dies()
    task = move(case)
    case.wait_master_gone()
    case.start_next_master()
    return task


def move_taken_back(case):
    """The same, but the copy is lost meanwhile: the next master has the source run it again, which stands since it has sent all."""
    guests = "guests" + case.processes["destination"]
    case.first_master_dies()
    task = move(case)
    case.wait_master_gone()
    case.pool.kill(guests)
    case.pool.start(guests)
    case.start_next_master()
    return task


NEXT_MASTERS = (move_settled, move_taken_back) # what is to happen in a master happens in the second one

# A message that a move sends and that is not here fails the test: so does one that is here and never comes.
TRIGGERS = {"vm_receive_open": move, "vm_send": move, "vm_unpause": move, "vm_forget": move,
            "vm_receive_abort": move_called_off, "vm_send_abort": move_taken_back, "vm_ask": move_settled}


class World:
    """A pool with a VM for each kind of move, and what its hosts have free without them."""

    known = [] # all cases: what comes to each side is seen once

    def __init__(self, pool):
        self.pool = pool
        crashlib.quick(pool)
        vms = pool.vms()
        self.vms = {move: vms["vm1"], move_settled: vms["vm1"], move_taken_back: vms["vm1"], move_called_off: vms["vm2"]}
        pool("VM.add_to_other_config", vms["vm2"], "sim-move-ms-min", str(SLOW_MS))
        pool("VM.hard_reboot", vms["vm2"])
        self.room = self.free()

    def free(self):
        """Per host: what it has free, and what its guests take."""
        pool, vms = self.pool, self.pool("VM.get_all_records")
        free = {host: int(pool("host.compute_free_memory", host)) for host in pool.hosts()}
        for vm in set(self.vms.values()):
            if vms[vm]["resident_on"] != NULL:
                free[vms[vm]["resident_on"]] += int(vms[vm]["memory_dynamic_min"]) + int(pool("VM.compute_memory_overhead", vm))
        return free

    def ready(self):
        """All VMs run: a guests process that was killed has taken its guests along."""
        for vm in set(self.vms.values()):
            wait(lambda: self.runs(vm), "a VM that was lost with its guests process starts again")

    def runs(self, vm):
        try:
            if self.pool("VM.get_power_state", vm) == "Halted":
                self.pool("VM.start", vm, False, False)
            return not self.pool("VM.get_current_operations", vm) and self.ticks_on(vm)
        except Failure:
            return False # the master begins it anew, or the host does not have its guests process again


    def ticks_on(self, vm):
        """Records may not know yet that it is gone."""
        before, end = self.pool.ticks(vm), time.monotonic() + 2
        while self.pool.ticks(vm) == before and time.monotonic() < end:
            time.sleep(0.02)
        return self.pool.ticks(vm) > before


class Case:
    """side: whose process comes to the point; victim: the guests process to which it happens while that one is held, or None."""

    def __init__(self, world, trigger, point="", action="", side="", victim=None):
        self.world, self.pool, self.trigger = world, world.pool, trigger
        self.point, self.action, self.side, self.victim = point, action, side, victim
        self.vm = world.vms[trigger]
        self.what = "%s:%s@%s" % (point, action, side) + ("+guests-" + victim if victim else "")

    def place(self):
        """From where to where it goes this time, and whose process is whose."""
        world, hosts = self.world, self.pool.hosts()
        world.ready()
        source = hosts.index(self.pool("VM.get_resident_on", self.vm))
        destination = (source + 1) % len(hosts)
        self.destination = hosts[destination]
        self.processes = {"master": "master", "source": str(source + 1), "destination": str(destination + 1)}

    def sends(self):
        return crashlib.logged(self.pool, self.processes["source"], r"\] vm_send$")

    def first_master_dies(self):
        self.first = Armed(self.pool, "master", "master.vm_send.reply.before", "kill")
        self.first.arm()

    def wait_master_gone(self):
        wait(lambda: self.first.now() == "gone", self.what + ": the master dies when all was sent")

    def start_next_master(self):
        if self.armed.process == "master":
            self.armed.arm_dead()
        else:
            start(self.pool, "master")

    def run(self):
        self.place()
        self.armed = Armed(self.pool, self.processes[self.side], self.point, "hold" if self.victim else self.action)
        if self.trigger not in NEXT_MASTERS or self.side != "master":
            self.armed.arm()
        boots = self.pool.journal(self.vm).boots
        task = self.trigger(self)
        what = self.armed.meet(lambda: is_ended(self.pool, task))
        if self.victim and what == "stopped":
            self.disturb_guests()
        else:
            self.armed.recover(what)
        check(self.armed.was_reached(), self.what + ": the point was passed")
        self.judge(task, boots)

    def disturb_guests(self):
        guests = "guests" + self.processes[self.victim]
        if self.action == "kill":
            self.pool.kill(guests)
            self.armed.recover("stopped")
            self.pool.start(guests)
        else:
            self.pool.stop(guests)
            self.armed.recover("stopped")
            time.sleep(crashlib.STOPPED_S) # the stop itself is the fault, and this is how long it lasts
            self.pool.go_on(guests)

    def judge(self, task, boots):
        pool, what = self.pool, self.what
        if task:
            record = pool.wait_task(task)
            check(record is not None, what + ": the task ends")
            check(record is None or record["status"] != "failure" or record["error_info"], what + ": it says why", record)
        pool.check_quiet(what, 90)
        wait(lambda: not self.pending(), what + ": every task ends", 30)
        if self.may_lose_guest():
            self.world.ready()
        state = wait(lambda: pool("VM.get_power_state", self.vm) == "Running", what + ": the VM runs", 60)
        if state:
            pool.check_exactly_once(self.vm, what)
        if not self.may_lose_guest():
            check(pool.journal(self.vm).boots == boots, what + ": it was not begun anew")
        wait(lambda: self.world.free() == self.world.room, what + ": the room is free", 30)

    def pending(self):
        return [r["name_label"] for r in self.pool("task.get_all_records").values() if r["status"] in ("pending", "cancelling")]

    def may_lose_guest(self):
        """With the guests process of the host that has the right to run goes the guest; the other's has only a copy. When the
        source has said that all is sent, its part is over - unless the move is called off, or its word is asked for again. Behind
        the last reply that the master waits for it goes on, and the destination runs it meanwhile; and an agent that has begun to
        let it run cannot know whether it did when its guests process is gone."""
        if self.action != "kill" or not self.victim:
            return False
        step, message = self.point.split(".", 2)[2], message_of(self.point)
        if self.victim == "source":
            return self.trigger != move or message == "vm_receive_open" or (
                message == "vm_send" and step in ("call.before", "call.after", "begun"))
        is_last = self.point in ("slave.vm_send.reply.after", "slave.vm_ask.reply.after")
        return is_last or message == "vm_forget" or (message == "vm_unpause" and step != "call.before")


class Undisturbed(Case):
    """A move with nothing armed."""

    def messages(self):
        """{side: what comes there about VMs}"""
        self.what = self.trigger.__name__
        self.place()
        self.traces = {side: os.path.join(self.pool.dir, "trace.%s.%s" % (self.what, side)) for side in SIDES}
        for side in SIDES:
            if side != "master" or self.trigger not in NEXT_MASTERS:
                self.restart(side, DROVER_CRASH_TRACE=self.traces[side])
        boots = self.pool.journal(self.vm).boots
        self.judge(self.trigger(self), boots)
        for side in SIDES: # what is passed later need not be written down any more
            self.restart(side)
        return {side: {m for m in map(message_of, read_trace(self.traces[side])) if m.startswith("vm_")} for side in SIDES}

    def restart(self, side, **env):
        self.pool.kill(self.processes[side])
        start(self.pool, self.processes[side], **env)

    def start_next_master(self):
        start(self.pool, "master", DROVER_CRASH_TRACE=self.traces["master"])


def all_cases(world):
    """(trigger, point, action, side, victim) of each point of each message on each side that it comes to."""
    seen = {trigger: Undisturbed(world, trigger).messages() for trigger in dict.fromkeys(TRIGGERS.values())}
    sent = set().union(*(messages for sides in seen.values() for messages in sides.values()))
    check(sent == set(TRIGGERS), "these messages are a move's", sorted(sent ^ set(TRIGGERS)))
    cases = []
    for side in SIDES:
        for point in points("drover-master" if side == "master" else "drover-slave"):
            trigger = TRIGGERS.get(message_of(point))
            if not trigger or message_of(point) not in seen[trigger][side]:
                continue
            cases += [(trigger, point, action, side, None) for action in actions_at(point, ACTIONS)]
            cases += [(trigger, point, action, side, victim) for victim in SIDES[1:] for action in GUESTS_ACTIONS]
    for message in TRIGGERS:
        sides = {c[3] for c in cases if message_of(c[1]) == message}
        check(len(sides) > 1 and "master" in sides, message + " comes to a host", sides)
    return cases


@contextlib.contextmanager
def pool_of_cases():
    with Pool(hosts=3, vms=2) as pool:
        world = World(pool)
        World.known = World.known or all_cases(world)
        world.cases = {case.what: case.run for case in (Case(world, *each) for each in World.known)}
        yield world


def main():
    return crashlib.run_matrix(crashlib.options("DROVER_MOVE_CASES", 8), pool_of_cases)


if __name__ == "__main__":
    sys.exit(main())
