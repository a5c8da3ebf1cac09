#!/usr/bin/env python3
"""When all of an import is there it is over: its task has ended and its client is answered though the SR's host does not tell how
full the SR is; and a master that dies while it asks leaves VM or disk and a task that says so."""
import os
import sys
import time

import crashlib
from poollib import Checks, Pool, check, wait
from transferlib import MIB, Made, Transfers, disk_refs, local_sr, noise, refs

AT = 2            # the host of the SR
SOON_S = 10       # an answer that waited for the sums would come after the 30 s of sr_stat
ASKED = "master.sr_stat.call.before" # what comes next when an import is kept


class World:
    def __init__(self, pool):
        self.pool, self.t, self.sr = pool, Transfers(pool), local_sr(pool, AT)
        self.directory = os.path.join(pool.dir, "host%d" % AT, "sr")
        self.made = Made(self.t, "kept", [(self.sr, "raw", 4 * MIB, {0: noise(MIB, 1)})])
        self.disk = self.made.disks[0]
        self.contents = self.t.contents(self.disk, AT)
        self.xva = self.t.export(self.made.vm, at=AT)
        self.sr_uuid = pool("SR.get_uuid", self.sr)

    def asked(self):
        path = self.directory + ".sums_asked"
        return os.path.getsize(path) if os.path.exists(path) else 0

    def uploads(self):
        """What each makes, and how."""
        return [("import", "/import", self.xva, {"sr_uuid": self.sr_uuid}),
                ("import of a new disk", "/import_raw_vdi", self.contents, {"sr_id": self.sr}),
                ("import into a disk", "/import_raw_vdi", self.contents, {"vdi": self.disk})]

    def is_whole(self, result):
        """By a task's result: what it names, else the disk that was there before."""
        named = refs(result) or [self.disk]
        disks = [d for ref in named for d in (disk_refs(self.pool, ref) if ref in self.pool("VM.get_all") else [ref])]
        return [self.t.contents(disk, AT) for disk in disks] == [self.contents]


def sums_are_not_waited_for(world):
    pool, flag = world.pool, world.directory + ".sums_hang"
    pool.kill(str(AT))
    crashlib.start(pool, str(AT), LD_PRELOAD=os.path.abspath(os.path.join(crashlib.build_directory(), "libtest_preload.so")),
                   DROVER_TEST_HUNG=world.directory)
    before = world.asked()
    open(flag, "w").close()
    for what, path, body, query in world.uploads():
        task, began = world.t.task(what), time.monotonic()
        answer = world.t.put(path, body, AT, task_id=task, **query)
        took = time.monotonic() - began
        check(answer.status == 200 and took < SOON_S, what + ": the client is answered", (answer, took))
        check(pool("task.get_status", task) == "success", what + ": and its task has ended", pool("task.get_record", task))
        check(world.is_whole(world.t.ended(task, "success", what)["result"]), what + ": all of it is there")
    wait(lambda: world.asked() > before, "the SR is asked for its sums")
    check(world.asked() == before + 1, "one asks at a time", world.asked() - before)
    os.unlink(flag)
    wait(lambda: world.asked() == before + 2, "and once more for what came meanwhile")


def the_master_dies_when_it_asks(world):
    pool = world.pool
    for what, path, body, query in world.uploads():
        armed = crashlib.Armed(pool, "master", ASKED, "kill")
        armed.arm()
        task = world.t.task(what)
        with world.t.open("PUT", path, AT, headers={"Content-Length": str(len(body))}, task_id=task, **query) as c:
            c.send(body)
            met = armed.meet(lambda: crashlib.is_ended(pool, task))
        check(met == "gone", what + ": the master dies when it asks", met)
        armed.recover(met)
        record = world.t.ended(task, "success", what + ", then the master dies")
        check(world.is_whole(record["result"]), what + ": what succeeds is whole")


def main():
    with Pool(hosts=2, vms=0) as pool:
        world = World(pool)
        sums_are_not_waited_for(world)
        the_master_dies_when_it_asks(world)
    return Checks.finish()


if __name__ == "__main__":
    sys.exit(main())
