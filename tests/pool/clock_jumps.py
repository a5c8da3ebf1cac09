#!/usr/bin/env python3
"""The wall clock jumps by an hour, forwards and back, in the master, in an agent, in all processes at once, while a VM moves and
clients wait: no host is taken for dead, no session and no task ends by it, nothing that waits waits longer or shorter, the guest
does not notice. Each process has a wall clock of its own, by tests/preload/wall_clock.c; the machine's stays as it is."""
import os
import struct
import sys
import tempfile
import threading
import time

import crashlib
from poollib import Checks, Pool, check, wait

HOUR_S = 3600
NEAR_S = 60 # what the test itself takes, and more
PROCESSES = ("master", "1", "2")


class Clocks:
    """A pool whose processes have clocks of their own. Guests processes and Redis share one."""

    def __init__(self, directory):
        self.directory = directory
        self.set("rest", 0)
        self.library = os.path.join(crashlib.build_directory(), "libtest_preload.so")

    def path(self, name):
        return os.path.join(self.directory, name)

    def set(self, name, ahead_s):
        """In place: the processes have it mapped."""
        fd = os.open(self.path(name), os.O_RDWR | os.O_CREAT, 0o600)
        os.pwrite(fd, struct.pack("q", ahead_s), 0)
        os.close(fd)

    def environment(self, name):
        return {"LD_PRELOAD": os.path.abspath(self.library), "DROVER_TEST_CLOCK": self.path(name)}

    def jump(self, names, ahead_s):
        for name in names:
            self.set(name, ahead_s)


class Jumps:
    def __init__(self, pool, clocks):
        self.pool, self.clocks = pool, clocks
        for process in PROCESSES:
            clocks.set(process, 0)
            pool.kill(process)
            crashlib.start(pool, process, **clocks.environment(process))
        self.vm = pool.vms()["vm1"]
        pool("VM.add_to_other_config", self.vm, "sim-move-ms-min", "1500")
        pool("VM.hard_reboot", self.vm)
        self.dead = []

    def ahead_s(self, process):
        """By how much its wall clock is ahead of the machine's, by the last line of its log."""
        with open(os.path.join(self.pool.dir, "log", process + ".log"), errors="replace") as f:
            then = time.strptime(f.readlines()[-1][:19], "%Y-%m-%dT%H:%M:%S")
        return time.mktime(then) - time.mktime(time.gmtime())

    def watch(self, is_over):
        """No host may be taken for dead, for however short."""
        metrics = {h: self.pool("host.get_metrics", h) for h in self.pool.hosts()}
        raw, url = Pool.raw, self.pool
        while not is_over.is_set():
            for host, each in metrics.items():
                if not raw(url, "host_metrics.get_live", self.pool.session, each):
                    self.dead.append(host)
            time.sleep(0.1)

    def waits(self, took):
        """A client that waits for events for 3 s."""
        began = time.monotonic()
        Pool.raw(self.pool, "event.from", self.pool.session, ["SR"], self.token, 3.0)
        took.append(time.monotonic() - began)

    def jump(self, names, ahead_s):
        """In the middle of a move, of a wait for events, and of whatever hosts and master have to say to one another."""
        pool, vm = self.pool, self.vm
        what = "%s %+d s" % (" ".join(names), ahead_s)
        session, is_over, took, gaps = pool.session, threading.Event(), [], pool.journal(vm).longest_gap_ms
        self.token = pool("event.from", ["SR"], "", 5.0)["token"]
        here = pool("VM.get_resident_on", vm)
        watcher = threading.Thread(target=self.watch, args=(is_over,))
        waiter = threading.Thread(target=self.waits, args=(took,))
        watcher.start()
        waiter.start()
        began = time.monotonic()
        task = pool("Async.VM.pool_migrate", vm, next(h for h in pool.hosts() if h != here), {"live": "true"})
        time.sleep(0.5) # into the move: when it happens is the point, there is nothing to be waited for
        check(pool("task.get_status", task) == "pending", what + ": the VM is on its way")
        self.clocks.jump(names, ahead_s)
        record = pool.wait_task(task)
        check(record and record["status"] == "success", what + ": the move succeeds", record)
        for name in set(names) & set(PROCESSES):
            check(abs(self.ahead_s(name) - ahead_s) < NEAR_S, what + ": the clock has jumped", self.ahead_s(name))
        check(time.monotonic() - began < 10, what + ": and takes no longer", time.monotonic() - began)
        waiter.join(60)
        check(took and 2.5 < took[0] < 8, what + ": who waits for events waits as long as he said", took)
        pool("VM.pause", vm)
        pool("VM.unpause", vm)
        time.sleep(max(0.0, crashlib.STOPPED_S - (time.monotonic() - began))) # as long as a silent host would have lived
        is_over.set()
        watcher.join()
        check(self.dead == [], what + ": no host is taken for dead", self.dead)
        check(pool.session == session, what + ": the session lasts")
        check(pool("VM.get_power_state", vm) == "Running", what + ": the VM runs")
        pool.check_exactly_once(vm, what)
        check(pool.journal(vm).longest_gap_ms < gaps + 2000, what + ": it did not stand still", pool.journal(vm).longest_gap_ms)
        pool.check_quiet(what)


def begun_anew(jumps):
    """A guest that crashes when the clock was put back since its start begins anew all the same."""
    pool, vm = jumps.pool, jumps.vm
    jumps.clocks.jump(PROCESSES + ("rest",), -2 * HOUR_S)
    pool("VM.add_to_other_config", vm, "sim-crash-at-tick", "30")
    pool("VM.hard_reboot", vm)
    boots = pool.journal(vm).boots
    pool("VM.remove_from_other_config", vm, "sim-crash-at-tick")
    wait(lambda: pool.journal(vm).boots > boots, "it is begun anew", 60)
    pool.check_exactly_once(vm, "begun anew")


def main():
    with tempfile.TemporaryDirectory() as directory:
        clocks = Clocks(directory)
        with Pool(hosts=2, vms=1, env=clocks.environment("rest")) as pool:
            crashlib.quick(pool)
            jumps = Jumps(pool, clocks)
            for names in ("master",), ("2",), PROCESSES + ("rest",):
                for ahead_s in HOUR_S, -HOUR_S, 0:
                    jumps.jump(names, ahead_s)
            begun_anew(jumps)
    return Checks.finish()


if __name__ == "__main__":
    sys.exit(main())
