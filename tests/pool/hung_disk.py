#!/usr/bin/env python3
"""One disk of a host does not answer: whatever touches it waits, and nothing else does. Many calls at the host's own SR hang in
its agent, uploads to it and downloads from it, too (tests/preload/hung_disk.c); meanwhile guests of the same host start, stop, are
snapshotted, and disks come and go on the shared SR, at that host and elsewhere, as fast as before. When the disk answers again,
all that hung is done."""
import os
import sys
import threading
import time

import crashlib
from poollib import Checks, Pool, check, wait
from snapshots import Guest
from transferlib import MIB, Transfers, default_sr, local_sr, noise

HUNG = 40 # calls: more than the agent has threads


class Host:
    """Host 2, where one directory may hang."""

    def __init__(self, pool):
        self.pool, self.t = pool, Transfers(pool)
        self.hosts, self.hung, self.shared = pool.hosts(), local_sr(pool, 2), default_sr(pool)
        self.directory = os.path.join(pool.dir, "host2", "sr")
        pool.kill("2")
        crashlib.start(pool, "2", LD_PRELOAD=os.path.abspath(os.path.join(crashlib.build_directory(), "libtest_preload.so")),
                       DROVER_TEST_HUNG=self.directory)
        self.guests = [Guest(pool, name, ["raw", "qcow2"]) for name in ("here", "there")]
        self.raw = self.disk(self.hung)
        self.t.write(self.raw, {0: noise(MIB, 1)})

    def disk(self, sr, call="VDI.create"):
        return self.pool(call, {"name_label": "d", "name_description": "", "SR": sr, "virtual_size": str(4 * MIB), "type": "user",
                                "sharable": False, "read_only": False, "other_config": {}, "sm_config": {}})

    def hang(self, hangs):
        if hangs:
            open(self.directory + ".hangs", "w").close()
        else:
            os.unlink(self.directory + ".hangs")

    def work(self):
        """What has nothing to do with that directory: seconds that it took, at host 2 and at the other one."""
        pool, took = self.pool, []
        for host, guest in zip((self.hosts[1], self.hosts[0]), self.guests):
            began = time.monotonic()
            for _ in range(3):
                pool("VM.start_on", guest.vm, host, False, False)
                snapshot = guest.snapshot()
                disks = [pool("VBD.get_VDI", vbd) for vbd in pool("VM.get_VBDs", snapshot)]
                pool("VM.destroy", snapshot)
                for disk in disks:
                    pool("VDI.destroy", disk)
                pool("VM.hard_shutdown", guest.vm)
            disk = self.disk(self.shared)
            self.t.write(disk, {0: noise(MIB, 2)})
            check(len(self.t.contents(disk, 2)) == 4 * MIB, "a disk of the other SR is read at the host")
            pool("VDI.destroy", disk)
            took.append(time.monotonic() - began)
        return took


def upload(host, answers):
    answers.append(host.t.put("/import_raw_vdi", noise(4 * MIB, 3), 2, vdi=host.raw).status)


def one_hangs(host):
    pool = host.pool
    host.work()
    before = host.work()
    host.hang(True)
    tasks = [host.disk(host.hung, "Async.VDI.create") for _ in range(HUNG)]
    tasks += [pool("Async.VDI.copy", host.raw, host.shared)]
    answers = []
    thread = threading.Thread(target=upload, args=(host, answers))
    thread.start()
    wait(lambda: crashlib.logged(pool, "2", r"\] disk_create$") >= HUNG, "all have come to the host")
    during = host.work()
    print("# seconds at the host and elsewhere: before %.2f %.2f, meanwhile %.2f %.2f" % (*before, *during))
    for a, b, where in zip(before, during, ("the same host", "another host")):
        check(b < 3 * a + 1, "a disk that hangs does not slow what goes on at " + where, (a, b))
    metrics = pool("host.get_metrics", host.hosts[1])
    check(pool("host_metrics.get_live", metrics), "its host is live")
    still = [task for task in tasks if pool("task.get_status", task) == "pending"]
    check(len(still) == len(tasks), "what touches it waits", (len(still), len(tasks)))

    host.hang(False)
    for task in tasks:
        record = pool.wait_task(task)
        check(record and record["status"] == "success", "what hung is done when the disk answers", record and record["error_info"])
    thread.join(60)
    check(answers == [200], "the upload, too", answers)
    check(host.t.contents(host.raw, 2) == noise(4 * MIB, 3), "and nothing of it is lost")


def main():
    with Pool(hosts=2, vms=0) as pool:
        one_hangs(Host(pool))
    return Checks.finish()


if __name__ == "__main__":
    sys.exit(main())
