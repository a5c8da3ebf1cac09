#!/usr/bin/env python3
"""The crash matrix of exports and imports: at each named point of each message that a transfer has, and of the note that tells of it,
in master and slave, the process is killed, stopped for longer than the others wait, the message is lost, or the client goes while
the process stands there. Each time the task ends and says why, nobody waits for ever, and either all of it came or nothing is
left: no VM, no disk, no hidden disk, no file, no claim.

  transfer_crash.py [--cases N] [--seed S] [--all [--part I/N]] [--go-on] [POINT:ACTION ...]

The points come from `--crash-points`, which makes them from slave_calls.def. By default a sample by the seed, printed."""
import contextlib
import sys
import threading

import crashlib
from crashlib import actions_at, is_ended, try_call
from poollib import Pool, check, wait
from transferlib import MIB, Inventory, Made, Transfers, default_sr, destroy, disk_refs, noise, refs

HOST = 2           # who serves the transfers: not the master's own
ACTIONS = ("kill", "stop", "leave", "drop-reply")
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
        self.before = self.disks_came()
        super().open()

    def send(self):
        self.connection.send(self.body[:len(self.body) // 2])

    def disks_came(self):
        return crashlib.logged(self.world.pool, str(HOST), r"\] import_disks$")

    def disturb(self):
        wait(lambda: self.disks_came() > self.before, self.what + ": the disks are coming")
        try_call(self.world.pool, "task.cancel", self.task)


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
        crashlib.quick(pool)
        self.made = Made(self.t, "tough", [(default_sr(pool), f, 4 * MIB, {0: noise(MIB, 1), 2 * MIB: noise(MIB, 2)})
                                           for f in ("raw", "qcow2")])
        self.xva = self.t.export(self.made.vm)
        self.contents = [self.t.contents(d) for d in self.made.disks]


class Case:
    def __init__(self, world, point, action):
        self.world, self.pool, self.action = world, world.pool, action
        self.armed = crashlib.Armed(self.pool, "master" if point.startswith("master.") else str(HOST), point, action)
        self.trigger = TRIGGERS[crashlib.message_of(point)]
        self.what = "%s:%s" % (point, action)

    def run(self):
        before = Inventory(self.pool)
        self.armed.arm()
        transfer = self.trigger(self.world, self.what)
        transfer.disturb()
        what = self.armed.meet(lambda: self.is_over(transfer))
        if what == "stopped" and self.action == "leave":
            transfer.connection.leave()
        self.armed.recover(what)
        check(self.armed.was_reached(), self.what + ": the point was passed")
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
        return record and (record["status"], record["error_info"])

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

    def is_over(self, transfer):
        """The task has ended, and what comes behind it: the last replies, and the answer."""
        if not is_ended(self.pool, transfer.task):
            return False
        transfer.thread.join(10)
        return True


@contextlib.contextmanager
def pool_of_cases():
    with Pool(hosts=2, vms=0) as pool:
        world = World(pool)
        found = [p for program in ("drover-master", "drover-slave") for p in crashlib.points_of(program, TRIGGERS)]
        cases = [Case(world, point, action) for point in dict.fromkeys(found) for action in actions_at(point, ACTIONS)]
        check(len(cases) > 200, "the points are listed", len(cases))
        world.cases = {case.what: case.run for case in cases}
        yield world
        destroy(pool, world.made.vm)


def main():
    return crashlib.run_matrix(crashlib.options("DROVER_TRANSFER_CASES", 6), pool_of_cases)


if __name__ == "__main__":
    sys.exit(main())
