#!/usr/bin/env python3
"""The crash matrix of exports and imports: at each named point of each message that a transfer has, and of the note that tells of it,
in master and slave, the process is killed, stopped for longer than the others wait, the message is lost, or the client goes while
the process stands there. Each time the task ends and says why, nobody waits for ever, and either all of it came or nothing is
left: no VM, no disk, no hidden disk, no file, no claim.

  transfer_crash.py [--cases N] [--seed S] [--all] [POINT:ACTION ...]

The points come from `--crash-points`, which makes them from slave_calls.def. By default a sample by the seed, printed."""
import argparse
import os
import random
import re
import sys
import threading
import time

import move_crash
from poollib import LOST, Checks, Failure, Pool, check, wait
from transferlib import MIB, Inventory, Made, Transfers, default_sr, destroy, disk_refs, noise, refs

HOST = 2           # who serves the transfers: not the master's own
HOST_DEAD_S = 3    # of this pool's master
STOPPED_S = HOST_DEAD_S + 1
LOSABLE = (".call.before", ".reply.before", ".note.before")
# The agent is killed before a master has heard of the request: its client sees the connection break, and has its own task to end.
UNHEARD = ("slave.transfer.note.before:kill", "slave.transfer.note.after:kill")


class Export:
    """GET of a VM."""

    def __init__(self, world, what):
        self.world, self.what, self.answer = world, what, None
        self.task = world.t.task(what)
        self.thread = threading.Thread(target=self.run)
        self.open()
        self.thread.start()

    def open(self):
        self.connection = self.world.t.open("GET", "/export", HOST, ref=self.world.made.vm, task_id=self.task)

    def run(self):
        try:
            self.send()
            self.answer = self.connection.answer()
        except TimeoutError:
            check(False, self.what + ": the client is not left waiting")
        except OSError:
            pass # it was closed from here

    def send(self):
        pass

    def disturb(self):
        """What else the message needs in order to come."""

    def is_whole(self, result):
        return self.answer is not None and self.answer.is_whole and self.answer.body == self.world.xva

    def remove(self, result):
        """What a success has made."""


class ExportRaw(Export):
    def open(self):
        self.connection = self.world.t.open("GET", "/export_raw_vdi", HOST, vdi=self.world.made.disks[1], task_id=self.task)

    def is_whole(self, result):
        return self.answer is not None and self.answer.is_whole and self.answer.body == self.world.contents[1]


class Refused(Export):
    """GET of what is not there."""

    def open(self):
        self.connection = self.world.t.open("GET", "/export", HOST, uuid="00000000-0000-0000-0000-000000000000", task_id=self.task)

    def is_whole(self, result):
        return False


class Import(Export):
    """PUT of a VM."""

    def open(self):
        self.body = self.world.xva
        self.connection = self.world.t.open("PUT", "/import", HOST, headers={"Content-Length": str(len(self.body))},
                                            task_id=self.task)

    def send(self):
        self.connection.send(self.body)

    def is_whole(self, result):
        world, vms = self.world, refs(result)
        return len(vms) == 1 and [world.t.contents(d, 1) for d in disk_refs(world.pool, vms[0])] == world.contents

    def remove(self, result):
        for vm in refs(result):
            destroy(self.world.pool, vm)


class Cancelled(Import):
    """PUT of half a VM, whose task is cancelled then."""

    def open(self):
        self.before = self.world.logged(HOST, r"\] import_disks$")
        super().open()

    def send(self):
        self.connection.send(self.body[:len(self.body) // 2])

    def disturb(self):
        pool, task = self.world.pool, self.task
        wait(lambda: self.world.logged(HOST, r"\] import_disks$") > self.before, self.what + ": the disks are coming")
        pool.timeout_s = 5
        try:
            pool("task.cancel", task)
        except LOST:
            pass
        pool.timeout_s = Pool.timeout_s


class ImportRaw(Import):
    """PUT of a new disk."""

    def open(self):
        self.body = self.world.contents[0]
        self.connection = self.world.t.open("PUT", "/import_raw_vdi", HOST, headers={"Content-Length": str(len(self.body))},
                                            sr_id=default_sr(self.world.pool), task_id=self.task)

    def is_whole(self, result):
        vdis = refs(result)
        return len(vdis) == 1 and self.world.t.contents(vdis[0], 1) == self.body

    def remove(self, result):
        for vdi in refs(result):
            self.world.pool("VDI.destroy", vdi)


TRIGGERS = {"transfer": Import, "transfer_refuse": Refused, "transfer_abort": Cancelled, "transfer_end": Import,
            "export_vm": Export, "export_raw": ExportRaw, "import_open": Import, "import_disks": Import, "import_raw": ImportRaw}


class World:
    """What all cases share: a VM, its archive, its disks' contents."""

    def __init__(self, pool):
        self.pool, self.t = pool, Transfers(pool)
        with open(os.path.join(pool.dir, "master.conf"), "a") as f:
            f.write("host_dead_s = %d\n" % HOST_DEAD_S)
        pool.kill("master")
        pool.start("master")
        pool.wait_master()
        pool.wait_hosts()
        self.made = Made(self.t, "tough", [(default_sr(pool), f, 4 * MIB, {0: noise(MIB, 1), 2 * MIB: noise(MIB, 2)})
                                           for f in ("raw", "qcow2")])
        self.xva = self.t.export(self.made.vm)
        self.contents = [self.t.contents(d) for d in self.made.disks]


    def logged(self, host, pattern):
        """How often the host's agent has said this."""
        with open(os.path.join(self.pool.dir, "log", "%d.log" % host), errors="replace") as f:
            return len(re.findall(pattern, f.read(), re.MULTILINE))


def state_of(pid):
    """gone, stopped, or None: it goes on."""
    try:
        with open("/proc/%d/stat" % pid) as f:
            state = f.read().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "gone"
    return "gone" if state in "ZX" else "stopped" if state in "tT" else None


class Case:
    def __init__(self, world, point, action):
        self.world, self.pool, self.point, self.action = world, world.pool, point, action
        self.was_reached = True # unless it is seen that it was not
        self.process = "master" if point.startswith("master.") else str(HOST)
        self.what = "%s:%s" % (point, action)

    def links(self, host):
        """How often the host's link to a master came to stand; records say that a host lives before that."""
        return self.world.logged(host, r"link \d+ stands")

    def start(self, **env):
        """The process comes back, and the hosts concerned have their links again."""
        pool, hosts = self.pool, (1, HOST) if self.process == "master" else (HOST,)
        links = {host: self.links(host) for host in hosts}
        pool.start(self.process, **env)
        pool.wait_master()
        wait(lambda: all(self.links(host) > links[host] for host in hosts), self.what + ": the hosts have their links")
        pool.wait_hosts()

    def restart(self, **env):
        self.pool.kill(self.process)
        self.start(**env)

    def run(self):
        pool, before = self.pool, Inventory(self.pool)
        self.restart(DROVER_CRASH_AT="%s:%s" % (self.point, "stop" if self.action == "leave" else self.action))
        transfer = TRIGGERS[self.point.split(".")[1]](self.world, self.what)
        self.pid = pool.pid(self.process)
        transfer.disturb()
        self.heal(transfer)
        record = self.ended(transfer)
        transfer.thread.join()
        if record and record["status"] == "success":
            gone = self.action == "leave" and "xport" in type(transfer).__name__
            check(gone or transfer.is_whole(record["result"]), self.what + ": what succeeds is whole", transfer.answer)
            transfer.remove(record["result"])
        elif record:
            check(record["status"] == "cancelled" or record["error_info"] != [], self.what + ": the task says why", record)
        transfer.connection.socket.close()
        before.check_same(self.what, 60)
        return record

    def ended(self, transfer):
        pool, task = self.pool, transfer.task
        if self.what in UNHEARD:
            transfer.thread.join()
            if pool("task.get_status", task) == "pending":
                check(transfer.answer is None or transfer.answer.status in (0, 503), self.what + ": the client knows", transfer.answer)
                pool("task.destroy", task)
                return None
        record = pool.wait_task(task, 90)
        check(record is not None, self.what + ": the task ends")
        pool("task.destroy", task)
        return record

    def happened(self, transfer):
        state = state_of(self.pid)
        if state:
            return state
        try:
            return "ended" if self.pool("task.get_status", transfer.task) not in ("pending", "cancelling") else None
        except (*LOST, Failure):
            return None

    def heal(self, transfer):
        """Wait until the point did its work, or the task ended without passing it; bring the process back."""
        pool = self.pool
        if self.action == "drop-reply":
            return
        pool.timeout_s = 2 # the master may stop while it is asked
        what = wait(lambda: self.happened(transfer), self.what + ": the point is passed or the task ends", 60)
        pool.timeout_s = Pool.timeout_s
        if what == "ended": # what comes behind the task's end: the last replies, and the answer
            transfer.thread.join(10)
            what = wait(lambda: state_of(self.pid), "", 1) if self.point.split(".")[1] == "transfer_end" else state_of(self.pid)
        self.was_reached = what in ("gone", "stopped")
        if what == "gone":
            self.start()
        elif what == "stopped" and self.action == "leave":
            transfer.connection.leave()
            pool.go_on(self.process)
        elif what == "stopped":
            time.sleep(STOPPED_S) # the stop itself is the fault, and this is how long it lasts
            pool.go_on(self.process)
        pool.wait_master()
        pool.wait_hosts()


def all_cases(build):
    points = [p for program in ("drover-master", "drover-slave") for p in move_crash.points(build, program, tuple(TRIGGERS))]
    points = [p for p in points if p.startswith(("master.", "slave."))]
    cases = [(point, action) for point in dict.fromkeys(points) for action in ("kill", "stop", "leave")]
    return cases + [(point, "drop-reply") for point in dict.fromkeys(points) if point.endswith(LOSABLE)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=int(os.environ.get("DROVER_TRANSFER_CASES", "6")))
    parser.add_argument("--seed", type=int, default=int(os.environ.get("DROVER_SEED", time.time_ns() % 1000000)))
    parser.add_argument("--all", action="store_true")
    parser.add_argument("named", nargs="*")
    args = parser.parse_args()
    cases = all_cases(move_crash.build_directory())
    check(len(cases) > 200, "the points are listed", len(cases))
    if args.named:
        cases = [c for c in cases if any(re.fullmatch(pattern, "%s:%s" % c) for pattern in args.named)]
    elif not args.all:
        print("seed %d" % args.seed)
        cases = random.Random(args.seed).sample(cases, min(args.cases, len(cases)))
    with Pool(hosts=2, vms=0) as pool:
        world = World(pool)
        for point, action in cases:
            began = time.monotonic()
            case = Case(world, point, action)
            record = case.run()
            print("# %-42s %5.1f s  %s" % (case.what, time.monotonic() - began, record and (record["status"], record["error_info"])),
                  flush=True)
            check(case.was_reached, case.what + ": the point was reached")
            if Checks.failed:
                break
        destroy(pool, world.made.vm)
    return Checks.finish()


if __name__ == "__main__":
    sys.exit(main())
