#!/usr/bin/env python3
"""The crash matrix of moves: at each named point of each message of a move, in master, source and destination, the process is
killed, stopped for longer than the others wait, or the message is lost. Each time the VM ran exactly once by its own journal,
the task ended, and the room is free.

  move_crash.py [--cases N] [--seed S] [--all] [POINT[:ACTION]@PROCESS ...]

The points come from `--crash-points`, which makes them from slave_calls.def. By default a sample by the seed, printed."""
import argparse
import os
import random
import subprocess
import sys
import time

from poollib import LOST, Checks, Failure, Pool, check, wait

MESSAGES = ("vm_receive_open", "vm_send", "vm_unpause", "vm_forget")
ACTIONS = ("kill", "stop", "drop-reply")
STOPPED_S = 12 # longer than host_dead_s


def build_directory():
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "build",
                        os.environ.get("DROVER_PRESET", "release"))


def points(build, program, messages=MESSAGES):
    out = subprocess.run([os.path.join(build, program), "--crash-points"], check=True, capture_output=True, text=True)
    return [line for line in out.stdout.split() if len(line.split(".")) > 2 and line.split(".")[1] in messages]


def all_cases(build):
    cases = [(point, action, "master") for point in points(build, "drover-master") if point.startswith("master.")
             for action in ACTIONS]
    cases += [(point, action, side) for point in points(build, "drover-slave") if point.startswith("slave.")
              for side in ("source", "destination") for action in ACTIONS]
    return cases


class Case:
    def __init__(self, pool, vm, point, action, side):
        self.pool, self.vm, self.point, self.action, self.side = pool, vm, point, action, side
        hosts = pool.hosts()
        self.source = pool("VM.get_resident_on", vm)
        self.destination = hosts[(hosts.index(self.source) + 1) % len(hosts)]
        self.process = {"master": "master", "source": str(hosts.index(self.source) + 1),
                        "destination": str(hosts.index(self.destination) + 1)}[side]
        self.what = "%s:%s@%s" % (point, action, side)

    def restart(self, **env):
        self.pool.kill(self.process)
        self.pool.start(self.process, **env)
        if self.process == "master":
            self.pool.wait_master()
        self.pool.wait_hosts()

    def run(self):
        pool, vm = self.pool, self.vm
        self.restart(DROVER_CRASH_AT="%s:%s" % (self.point, self.action))
        pid = pool.pid(self.process)
        task = None
        pool.timeout_s = 5
        try:
            task = pool("Async.VM.pool_migrate", vm, self.destination, {"live": "true"})
        except LOST:
            pass # the master is gone or stopped; whether the move began is for it to know
        pool.timeout_s = Pool.timeout_s
        self.heal(pid, task)
        if task:
            record = pool.wait_task(task)
            check(record is not None, self.what + ": the task ends", record)
        pool.check_quiet(self.what, 90)
        state = wait(lambda: pool("VM.get_power_state", vm) == "Running", self.what + ": the VM runs", 60)
        if state:
            pool.check_exactly_once(vm, self.what)
        self.restart() # disarmed

    def heal(self, pid, task):
        """Wait until the point did its work, or the task ended without passing it; bring the process back."""
        pool = self.pool
        if self.action == "drop-reply":
            return

        def happened():
            try:
                with open("/proc/%d/stat" % pid) as f:
                    state = f.read().rsplit(")", 1)[1].split()[0]
            except OSError:
                return "gone"
            if state in "ZX":
                return "gone"
            if state in "tT":
                return "stopped"
            try:
                return "ended" if task and pool("task.get_status", task) not in ("pending", "cancelling") else None
            except (*LOST, Failure):
                return None

        pool.timeout_s = 2 # the master may stop while it is asked
        what = wait(happened, self.what + ": the point is passed or the task ends", 60)
        pool.timeout_s = Pool.timeout_s
        if what == "gone":
            pool.start(self.process)
        elif what == "stopped":
            time.sleep(STOPPED_S) # the stop itself is the fault, and this is how long it lasts
            pool.go_on(self.process)
        if self.process == "master":
            pool.wait_master()
        pool.wait_hosts()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=int(os.environ.get("DROVER_MOVE_CASES", "8")))
    parser.add_argument("--seed", type=int, default=int(os.environ.get("DROVER_SEED", time.time_ns() % 1000000)))
    parser.add_argument("--all", action="store_true")
    parser.add_argument("named", nargs="*")
    args = parser.parse_args()
    build = build_directory()
    with Pool(hosts=3, vms=1) as pool:
        cases = all_cases(build)
        check(len(cases) > 50, "the points are listed", len(cases))
        if args.named:
            cases = [c for c in cases if "%s:%s@%s" % c in args.named]
        elif not args.all:
            print("seed %d" % args.seed)
            cases = random.Random(args.seed).sample(cases, min(args.cases, len(cases)))
        vm = pool.vms()["vm1"]
        for point, action, side in cases:
            began = time.monotonic()
            case = Case(pool, vm, point, action, side)
            case.run()
            print("# %-55s %5.1f s" % (case.what, time.monotonic() - began), flush=True)
            if Checks.failed:
                break
    return Checks.finish()


if __name__ == "__main__":
    sys.exit(main())
