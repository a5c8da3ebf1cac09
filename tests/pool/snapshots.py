#!/usr/bin/env python3
"""Snapshots of VMs on a pool of two hosts: disks of a running guest that writes all the time are of one moment, qcow2 disks go on
in new files, clones of snapshots run, disks go in any order; and at each named point of the message that takes a snapshot a
process is killed or the message is lost: the guest goes on, ran exactly once, and a snapshot is there as a whole or not at all.

  snapshots.py [CASE ...]"""
import os
import shutil
import subprocess
import sys
import threading

import crashlib
from poollib import NULL, Checks, Failure, Pool, check, wait

MIB = 1 << 20
ACTIONS = ("kill", "drop-reply")


class Guest:
    """A VM with disks of these formats, which it writes to (the raw ones) at each tick."""

    def __init__(self, pool, name, formats, size=16 * MIB):
        self.pool, self.name = pool, name
        self.sr = pool("pool.get_default_SR", pool("pool.get_all")[0])
        self.shared = os.path.join(pool.dir, "shared")
        template = pool("VM.get_by_name_label", "Debian Etch 4.0")[0]
        self.vm = pool("VM.clone", template, name)
        pool("VM.remove_from_other_config", self.vm, "disks")
        pool("VM.provision", self.vm)
        pool("VM.add_to_other_config", self.vm, "sim-writes-disks", "true")
        pool("VM.add_to_other_config", self.vm, "sim-tick-ms", "2")
        self.disks = []
        for device, image_format in enumerate(formats):
            disk = pool("VDI.create", {
                "name_label": name, "SR": self.sr, "virtual_size": str(size), "type": "user", "sharable": False,
                "read_only": False, "other_config": {}, "sm_config": {"image-format": image_format}})
            pool("VBD.create", {
                "VM": self.vm, "VDI": disk, "userdevice": str(device), "bootable": device == 0, "mode": "RW",
                "type": "Disk", "empty": False, "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}})
            self.disks.append(disk)

    def start(self):
        self.pool("VM.start", self.vm, False, False)
        wait(lambda: self.pool.ticks(self.vm) > 3, self.name + ": it ticks")
        return self

    def path(self, vdi):
        return os.path.join(self.shared, self.pool("VDI.get_location", vdi))

    def tick_on(self, vdi):
        """What the guest wrote last to a raw disk: (vm, epoch, tick)."""
        with open(self.path(vdi), "rb") as f:
            return tuple(f.read(512).decode().split())

    def snapshot(self, name="then"):
        return self.pool("VM.snapshot", self.vm, name, [])

    def open_files(self):
        """Inodes below the shared directory that the guests' processes have open for writing."""
        inodes = set()
        for process in "guests1", "guests2":
            directory = "/proc/%d/fd" % self.pool.pid(process)
            for fd in os.listdir(directory):
                try:
                    if os.readlink(os.path.join(directory, fd)).startswith(self.shared):
                        inodes.add(os.stat(os.path.join(directory, fd)).st_ino)
                except OSError:
                    pass # closed meanwhile
        return inodes

    def remove(self):
        pool = self.pool
        if pool("VM.get_power_state", self.vm) != "Halted":
            pool("VM.hard_shutdown", self.vm)
        for vm in [self.vm] + pool("VM.get_snapshots", self.vm):
            disks = disks_of(pool, vm)
            pool("VM.destroy", vm)
            for disk in disks:
                pool("VDI.destroy", disk)


def disks_of(pool, vm):
    vbds = sorted((pool("VBD.get_record", ref) for ref in pool("VM.get_VBDs", vm)), key=lambda vbd: vbd["userdevice"])
    return [vbd["VDI"] for vbd in vbds if vbd["type"] == "Disk"]


def disk_files(pool):
    return {name for name in os.listdir(os.path.join(pool.dir, "shared"))
            if not name.startswith(".") and not name.endswith((".owner", ".lock", ".journal"))}


def disks_are_of_one_moment(pool):
    """While the guest writes: each snapshot's disks say the same tick, and it is one that the guest has made meanwhile."""
    guest = Guest(pool, "writer", ["raw", "raw", "raw"]).start()
    for number in range(10):
        before = pool.ticks(guest.vm)
        snapshot = guest.snapshot("then %d" % number)
        after = pool.ticks(guest.vm)
        lines = {guest.tick_on(vdi) for vdi in disks_of(pool, snapshot)}
        if check(len(lines) == 1, "the disks are of one moment", lines):
            tick = int(lines.pop()[2])
            check(before - 1 <= tick <= after, "... between call and answer", (before, tick, after))
    record = pool("VM.get_record", snapshot)
    check(record["power_state"] == "Halted" and record["is_a_snapshot"], "a snapshot is a halted VM", record)
    check(record["snapshot_info"]["power-state-at-snapshot"] == "Running", "it says what it was", record["snapshot_info"])
    check(record["snapshot_of"] == guest.vm and len(pool("VM.get_snapshots", guest.vm)) == 10, "both know each other")
    check(set(record["allowed_operations"]) == {"revert", "clone", "copy", "export", "destroy", "metadata_export"},
          "what may be done with it", record["allowed_operations"])
    names = [m["name"] for m in pool("message.get_all_records").values() if m["obj_uuid"] == pool("VM.get_uuid", guest.vm)]
    check(names.count("VM_SNAPSHOTTED") == 10, "it is told", names)
    check(pool("VM.get_power_state", guest.vm) == "Running", "it runs on")
    pool.check_exactly_once(guest.vm, "after its snapshots")

    # One disk alone, and a clone of it: also of a moment.
    for call in "VDI.snapshot", "VDI.clone":
        before = pool.ticks(guest.vm)
        disk = pool(call, guest.disks[0], {})
        check(before - 1 <= int(guest.tick_on(disk)[2]) <= pool.ticks(guest.vm), call + " of an open disk")
        check(pool("VDI.get_is_a_snapshot", disk) is (call == "VDI.snapshot"), call + ": what it is")
        pool("VDI.destroy", disk)

    # What the snapshot holds runs, as another VM.
    clone = pool("VM.clone", snapshot, "again")
    pool("VM.provision", clone)
    held = guest.tick_on(disks_of(pool, clone)[0])
    check(held == guest.tick_on(disks_of(pool, snapshot)[0]), "the clone has the snapshot's disk", held)
    pool("VM.start", clone, False, False)
    pool.check_exactly_once(clone, "a clone of the snapshot")
    wait(lambda: guest.tick_on(disks_of(pool, clone)[0])[0] == pool("VM.get_uuid", clone), "the clone writes to its own disk")
    check(guest.tick_on(disks_of(pool, snapshot)[0]) == held, "the snapshot stays as it was")
    pool("VM.hard_shutdown", clone)
    disks = disks_of(pool, clone)
    pool("VM.destroy", clone)
    for disk in disks:
        pool("VDI.destroy", disk)
    guest.remove()


def qcow2_disks_go_on_in_new_files(pool):
    guest = Guest(pool, "overlaid", ["qcow2", "qcow2"]).start()
    for number in range(3):
        old = [os.stat(guest.path(vdi)).st_ino for vdi in guest.disks]
        snapshot = guest.snapshot("then %d" % number)
        new = [os.stat(guest.path(vdi)).st_ino for vdi in guest.disks]
        is_shared = old == new # a file system with reflinks: nothing had to change
        check(is_shared or not set(old) & guest.open_files(), "the old files are closed", (old, guest.open_files()))
        check(set(new) <= guest.open_files(), "the new ones are open", (new, guest.open_files()))
        for vdi in guest.disks + disks_of(pool, snapshot):
            done = subprocess.run(["qemu-img", "check", "-q", "-U", guest.path(vdi)], capture_output=True, text=True, check=False)
            check(done.returncode == 0, "qemu-img finds the disk good", done.stderr)
    pool.check_exactly_once(guest.vm, "with overlays")

    # It moves, and starts anew, with its disks as they are now; grows when it is down.
    there = [h for h in pool.hosts() if h != pool("VM.get_resident_on", guest.vm)][0]
    pool("VM.pool_migrate", guest.vm, there, {"live": "true"})
    pool.check_exactly_once(guest.vm, "moved after its snapshots")
    guest.snapshot("there")
    pool("VM.hard_shutdown", guest.vm)
    pool("VDI.resize", guest.disks[0], str(32 * MIB))
    check(pool("VDI.get_virtual_size", disks_of(pool, snapshot)[0]) == str(16 * MIB), "a snapshot does not grow along")
    guest.start()

    # Snapshots go in any order, the original first or last, and nothing is left of anybody.
    snapshots = pool("VM.get_snapshots", guest.vm)
    for vm in snapshots[1], snapshots[0]:
        disks = disks_of(pool, vm)
        pool("VM.destroy", vm)
        for disk in disks:
            pool("VDI.destroy", disk)
    guest.remove()


def those_that_do_not_run(pool):
    guest = Guest(pool, "sleeper", ["raw"])
    halted = guest.snapshot("halted")
    guest.start()
    pool("VM.pause", guest.vm)
    paused = guest.snapshot("paused")
    check(pool("VM.get_power_state", guest.vm) == "Paused", "a paused VM stays so")
    pool("VM.unpause", guest.vm)
    pool("VM.suspend", guest.vm)
    suspended = guest.snapshot("suspended")
    check(pool("VM.get_power_state", suspended) == "Halted" and pool("VM.get_suspend_VDI", suspended) == NULL,
          "a snapshot has no memory")
    for vm, state in (halted, "Halted"), (paused, "Paused"), (suspended, "Suspended"):
        check(pool("VM.get_snapshot_info", vm)["power-state-at-snapshot"] == state, "it says that it was " + state)
    pool("VM.resume", guest.vm, False, False)
    pool.check_exactly_once(guest.vm, "after all that")
    ignoring = pool("VM.snapshot", guest.vm, "without", guest.disks)
    check(disks_of(pool, ignoring) == [], "ignored disks are left out")
    guest.remove()


def many_at_once(pool):
    """Snapshots of one VM from many callers wait for one another; each is whole."""
    guest = Guest(pool, "wanted", ["raw", "raw"]).start()
    made, threads = [], []

    def take(number):
        made.append(Pool.__call__(pool, "VM.snapshot", guest.vm, "then %d" % number, []))

    for number in range(6):
        threads.append(threading.Thread(target=take, args=(number,)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    check(len(set(made)) == 6, "all are made", made)
    for snapshot in made:
        check(len({guest.tick_on(vdi) for vdi in disks_of(pool, snapshot)}) == 1, "each is of one moment")
    pool.check_quiet("many at once")
    guest.remove()


def nothing_half_done_is_left(pool):
    """A disk's file is gone, so the second one cannot be taken."""
    guest = Guest(pool, "broken", ["qcow2", "raw"]).start()
    kept = guest.path(guest.disks[1]) + ".kept"
    os.rename(guest.path(guest.disks[1]), kept)
    before, vdis = disk_files(pool), sorted(pool("VDI.get_all"))
    try:
        guest.snapshot()
        check(False, "a snapshot without a file fails")
    except Failure as e:
        check(e.details[0] in ("VDI_LOCATION_MISSING", "SR_BACKEND_FAILURE"), "it says so", e.details)
    check(sorted(pool("VDI.get_all")) == vdis, "no disk is left")
    check(disk_files(pool) == before, "no file is left", disk_files(pool) ^ before)
    pool.check_exactly_once(guest.vm, "after a snapshot that failed")
    os.rename(kept, kept[:-len(".kept")])
    guest.remove()


class Held:
    """A guest that stands still for seconds, since much must be copied, and what becomes of the snapshot when this is disturbed."""

    def __init__(self, pool):
        self.pool, self.guest = pool, Guest(pool, "held", ["raw", "raw"], 2048 * MIB)
        noise = os.urandom(16 * MIB)
        with open(self.guest.path(self.guest.disks[0]), "r+b") as f:
            for number in range(64):
                f.seek(number * 16 * MIB + 4096)
                f.write(noise)
        self.guest.start()
        self.before = disk_files(pool)

    def stands(self):
        with open(os.path.join(self.guest.shared, self.pool("VM.get_uuid", self.guest.vm) + ".journal")) as f:
            return f.readlines()[-1].rstrip().endswith(" pause")

    def begin(self):
        task = self.pool("Async.VM.snapshot", self.guest.vm, "then", [])
        wait(self.stands, "the guest stands still")
        check(self.pool("task.get_status", task) == "pending", "the disks are being copied")
        return task

    def check_gone(self, what):
        pool, guest = self.pool, self.guest
        pool.check_quiet(what, 90)
        wait(lambda: disk_files(pool) == self.before, what + ": no file is left", 30)
        check(pool("VM.get_snapshots", guest.vm) == [], what + ": no snapshot is left")
        wait(lambda: not any(r["snapshot_of"] in guest.disks for r in pool("VDI.get_all_records").values()),
             what + ": no disk is left", 30)

    def check_goes_on(self, what):
        check(self.pool("VM.get_power_state", self.guest.vm) == "Running", what + ": it runs")
        self.pool.check_exactly_once(self.guest.vm, what)

    def check_made(self, task, what):
        pool, guest = self.pool, self.guest
        record = pool.wait_task(task)
        check(record and record["status"] == "success", what + ": the snapshot is made", record)
        for snapshot in pool("VM.get_snapshots", guest.vm):
            disks = disks_of(pool, snapshot)
            check(guest.tick_on(disks[0]) == guest.tick_on(disks[1]), what + ": it is of one moment")
            pool("VM.destroy", snapshot)
            for disk in disks:
                pool("VDI.destroy", disk)


def disturbed_while_the_guest_stands(pool):
    held = Held(pool)
    vm = held.guest.vm
    process = str(pool.hosts().index(pool("VM.get_resident_on", vm)) + 1)

    task = held.begin()
    pool("task.cancel", task)
    check(pool.wait_task(task)["status"] == "cancelled", "cancelled")
    held.check_gone("cancelled")
    held.check_goes_on("cancelled")

    task = held.begin()
    pool.kill(process)
    pool.start(process)
    pool.wait_hosts()
    held.check_made(task, "its agent was killed")
    held.check_goes_on("its agent was killed")

    task = held.begin()
    pool.kill("master")
    pool.start("master")
    pool.wait_master()
    pool.wait_hosts()
    check(pool.wait_task(task)["status"] == "failure", "the master was killed: the task ends")
    held.check_gone("the master was killed")
    held.check_goes_on("the master was killed")

    task = held.begin()
    pool.kill(process)
    pool.kill("master")
    pool.start("master")
    pool.start(process)
    pool.wait_master()
    pool.wait_hosts()
    held.check_gone("both were killed")
    held.check_goes_on("both were killed")

    task = held.begin()
    pool("VM.hard_shutdown", vm)
    check(pool("VM.get_power_state", vm) == "Halted", "a hard shutdown comes through")
    check(pool.wait_task(task)["status"] != "success", "... and ends the snapshot")
    held.check_gone("shut down")
    held.guest.remove()


class Crash:
    def __init__(self, pool, guest, point, action, side):
        self.pool, self.guest = pool, guest
        process = "master" if side == "master" else str(pool.hosts().index(pool("VM.get_resident_on", guest.vm)) + 1)
        self.armed = crashlib.Armed(pool, process, point, action)
        self.what = "%s:%s@%s" % (point, action, side)

    def run(self):
        pool, guest = self.pool, self.guest
        self.armed.arm()
        task = crashlib.try_call(pool, "Async.VM.snapshot", guest.vm, self.what, [], seconds=10)
        self.armed.recover(self.armed.meet(lambda: crashlib.is_ended(pool, task)))
        check(self.armed.was_reached(), self.what + ": the point was passed")
        if task:
            check(pool.wait_task(task) is not None, self.what + ": the task ends")
        pool.check_quiet(self.what, 90)
        check(pool("VM.get_power_state", guest.vm) == "Running", self.what + ": it runs", pool("VM.get_power_state", guest.vm))
        pool.check_exactly_once(guest.vm, self.what)
        wait(lambda: self.is_whole() is not None, self.what + ": it is made, or nothing is left of it", 30)
        made = self.is_whole()
        if made:
            disks = disks_of(pool, made)
            check(guest.tick_on(disks[0]) == guest.tick_on(disks[1]), self.what + ": it is of one moment")
            pool("VM.destroy", made)
            for disk in disks:
                pool("VDI.destroy", disk)
        files = {pool("VDI.get_location", vdi) for vdi in pool("VDI.get_all")}
        left = {name for name in disk_files(pool) if not name.endswith(".base.qcow2")} - files
        check(left == set(), self.what + ": no file without a disk", left)

    def is_whole(self):
        """The snapshot's reference; "" when nothing is there; None as long as it is neither."""
        pool = self.pool
        found = pool("VM.get_by_name_label", self.what)
        of_it = {ref for ref, vdi in pool("VDI.get_all_records").items() if vdi["snapshot_of"] in self.guest.disks}
        if found:
            return found[0] if set(disks_of(pool, found[0])) == of_it and len(of_it) == len(self.guest.disks) else None
        return None if of_it else ""


def processes_die_in_the_middle(pool):
    guest = Guest(pool, "tough", ["raw", "raw", "qcow2"]).start()
    cases = [(point, action, point.split(".")[0]) for program in ("drover-master", "drover-slave")
             for point in crashlib.points_of(program, ("vm_snapshot",)) for action in crashlib.actions_at(point, ACTIONS)]
    check(len(cases) >= 12, "the points are listed", cases)
    for point, action, side in cases:
        Crash(pool, guest, point, action, side).run()
        if Checks.failed:
            return
    guest.remove()


def main():
    cases = [disks_are_of_one_moment, qcow2_disks_go_on_in_new_files, those_that_do_not_run, many_at_once,
             nothing_half_done_is_left, disturbed_while_the_guest_stands, processes_die_in_the_middle]
    with Pool(hosts=2, vms=0) as pool:
        pristine = disk_files(pool)
        for case in cases:
            if sys.argv[1:] and case.__name__ not in sys.argv[1:]:
                continue
            if "qcow2" in case.__code__.co_consts and not shutil.which("qemu-img"):
                continue
            print("# %s" % case.__name__, flush=True)
            case(pool)
            if Checks.failed:
                break
            left = disk_files(pool) ^ pristine
            check(left == set(), case.__name__ + ": all files are gone", left)
    return Checks.finish()


if __name__ == "__main__":
    sys.exit(main())
