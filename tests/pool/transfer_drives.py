#!/usr/bin/env python3
"""Drives and transfers that want the same disk: what is in the way of the other is waited for, and its end is noticed at once. A guest
is not given a disk to write to that is being read, nor any that is being overwritten; a disk whose drive is being plugged or unplugged,
or that is being changed itself, is read when that is done, if it still may be, and as it is then.

  transfer_drives.py [CASE ...]"""
import sys
import threading
import time

import crashlib
from claimslib import BIG, Download, Upload, big, drive, outcome, waits
from poollib import check, wait
from transferlib import MIB, Made, default_sr, destroy, noise, ova, run_cases

GUEST_HOST = 2     # whose agent is stopped in the middle of a plug; transfers are asked for at the other one
SOON_S = 20        # a wait that nobody ends lasts two minutes


class Guest:
    """A VM that runs, with a drive for another's disk."""

    def __init__(self, t, vdi, mode):
        self.pool, sr = t.pool, default_sr(t.pool)
        self.made = Made(t, "guest", [(sr, "raw", MIB, {})])
        self.pool("VM.start_on", self.made.vm, self.pool.hosts()[GUEST_HOST - 1], False, False)
        self.vbd = drive(self.pool, self.made.vm, vdi, mode)

    def has_it(self):
        return self.pool("VBD.get_currently_attached", self.vbd)

    def destroy(self):
        if self.has_it():
            self.pool("VBD.unplug", self.vbd)
        self.pool("VBD.destroy", self.vbd)
        destroy(self.pool, self.made.vm)


def ended_soon(pool, task, status, what):
    wait(lambda: pool("task.get_status", task) != "pending", what + ": it ends soon", SOON_S)
    record = pool("task.get_record", task)
    check(record["status"] == status, "%s: it ends in %s" % (what, status), (record["status"], record["error_info"]))
    pool("task.destroy", task)
    return record


# ---- a drive waits for a transfer ----

def a_plug_waits(t, guest, transfer, what):
    """... until the transfer has ended, and the guest has the disk then."""
    pool = t.pool
    allowed = pool("VBD.get_allowed_operations", guest.vbd)
    check("plug" not in allowed and "attach" not in allowed, what + ": a plug is not allowed", allowed)
    waits(pool, what, "VBD.plug", guest.vbd)
    check(not guest.has_it(), what + ": what was called off is not done")
    task = pool("Async.VBD.plug", guest.vbd)
    transfer.finish(what)
    ended_soon(pool, task, "success", what + ": the plug")
    check(guest.has_it(), what + ": the guest has the disk")
    pool("VBD.unplug", guest.vbd)


def drives_wait_for_transfers(t):
    pool, made = t.pool, big(t, "wanted")
    [disk] = made.disks
    for mode in "RW", "RO":
        guest = Guest(t, disk, mode)
        for path, query in (("/export", {"ref": made.vm}), ("/export_raw_vdi", {"vdi": disk})):
            what = "%s of the disk of a drive %s" % (path, mode)
            download = Download(t, path, **query)
            if mode == "RW":
                a_plug_waits(t, guest, download, what)
                continue
            for method in "VBD.plug", "VBD.unplug":
                got = outcome(pool, method, guest.vbd)
                check(got == ["Success"], "%s: %s of who only reads" % (what, method), got)
            download.finish(what)
        what = "an import into the disk of a drive " + mode
        a_plug_waits(t, guest, Upload(t, "/import_raw_vdi", noise(BIG, 3), vdi=disk), what)
        guest.destroy()
    destroy(pool, made.vm)


# ---- a transfer waits for a drive ----

class Asked(threading.Thread):
    """A GET that is answered when it may be."""

    def __init__(self, t, path, at=1, **query):
        super().__init__()
        self.t, self.path, self.task, self.answer = t, path, t.task(), None
        self.connection = t.open("GET", path, at, task_id=self.task, **query)
        self.start()

    def run(self):
        try:
            self.answer = self.connection.answer()
        except TimeoutError:
            pass # judged by the task

    def check_waits(self, vdi, what, *others):
        """It can be called off, has not got the disk, which is what the others have, and is not over."""
        pool = self.t.pool
        wait(lambda: pool("task.get_allowed_operations", self.task) == ["cancel"] or self.is_over(), what + ": it waits, or is over")
        at_work = list(pool("VDI.get_current_operations", vdi).values())
        check(at_work == list(others) and not self.is_over(), what + ": it waits", (at_work, pool("task.get_record", self.task)))

    def is_over(self):
        return self.t.pool("task.get_status", self.task) != "pending"


class Held:
    """A host's agent stands still, having begun what a call asks of it."""

    def __init__(self, pool, host, message, method, *arguments):
        self.pool, self.method = pool, method
        self.armed = crashlib.Armed(pool, str(host), "slave.%s.begun" % message, "hold")
        self.armed.arm()
        self.task = pool("Async." + method, *arguments)
        check(self.armed.meet(lambda: False) == "stopped", method + " stands still")

    def go_on(self):
        self.armed.recover("stopped")
        ended_soon(self.pool, self.task, "success", "a %s that stood still" % self.method)


def refused_at_once(t, vdi, what):
    """A disk alone is not read when a guest may be writing to it."""
    task = t.task()
    t.get("/export_raw_vdi", vdi=vdi, task_id=task)
    record = t.ended(task, "failure", what)
    check(record["error_info"][:2] == ["VDI_IN_USE", vdi], what + ": a guest writes to it", record["error_info"])


def asks_while_held(t, made, mode, call, path, query):
    """What comes of an export that is asked for while the drive changes. One each time: the end of one would wake another."""
    pool, [disk], what = t.pool, made.disks, "%s beside %s of a drive %s" % (path, call, mode)
    guest = Guest(t, disk, mode)
    if call == "vbd_unplug":
        pool("VBD.plug", guest.vbd)
    held = Held(pool, GUEST_HOST, call, call.replace("vbd_", "VBD."), guest.vbd)
    if mode == "RW" and path == "/export_raw_vdi":
        refused_at_once(t, disk, what)
        held.go_on()
    else:
        asked = Asked(t, path, **query)
        asked.check_waits(disk, what)
        began = time.monotonic()
        held.go_on()
        is_refused = mode == "RW" and call == "vbd_plug"
        record = ended_soon(pool, asked.task, "failure" if is_refused else "success", what)
        check(time.monotonic() - began < SOON_S, what + ": it went on at once", time.monotonic() - began)
        asked.join()
        if is_refused:
            check(record["error_info"] == ["VDI_IN_USE", disk, "copy"], what + ": a guest writes to it now", record["error_info"])
        else:
            check(asked.answer is not None and asked.answer.is_whole, what + ": it is whole", asked.answer)
    guest.destroy()


def transfers_wait_for_drives(t):
    made = Made(t, "wanted", [(default_sr(t.pool), "raw", 4 * MIB, {0: noise(MIB, 1)})])
    for mode in "RO", "RW":
        for call in "vbd_plug", "vbd_unplug":
            for path, query in (("/export", {"ref": made.vm}), ("/export_raw_vdi", {"vdi": made.disks[0]})):
                asks_while_held(t, made, mode, call, path, query)
    destroy(t.pool, made.vm)


# ---- a transfer waits for a change ----

def a_change_is_waited_for(t):
    """What an archive says of its disks is what they are when it is sent, not when it was asked for."""
    pool, sizes = t.pool, [4 * MIB, 6 * MIB]
    made = Made(t, "changes", [(default_sr(pool), "raw", size, {0: noise(MIB, 1)}) for size in sizes])
    [storage_host] = [str(i + 1) for i, host in enumerate(pool.hosts()) if host == pool("pool.get_master", pool("pool.get_all")[0])]
    other = 2 if storage_host == "1" else 1
    for disk in range(len(sizes)):
        what, sizes[disk] = "an export beside a resize of disk %d" % disk, 9 * MIB
        held = Held(pool, storage_host, "disk_resize", "VDI.resize", made.disks[disk], str(sizes[disk]))
        asked = Asked(t, "/export", other, ref=made.vm)
        asked.check_waits(made.disks[disk], what, "resize")
        held.go_on()
        ended_soon(pool, asked.task, "success", what)
        asked.join()
        check(asked.answer is not None and asked.answer.is_whole, what + ": it is whole", asked.answer)
        told = [each["snapshot"]["virtual_size"] for each in ova(asked.answer.body)["objects"] if each["class"] == "VDI"]
        check(sorted(told) == sorted(str(size) for size in sizes), what + ": it tells of the new size", told)
        [vm] = t.import_(asked.answer.body, what + ": its import")
        destroy(pool, vm)
    destroy(pool, made.vm)


def main():
    cases = [drives_wait_for_transfers, transfers_wait_for_drives, a_change_is_waited_for]
    return run_cases(cases, prepare=lambda pool: crashlib.host_dead_after(pool, 60))


if __name__ == "__main__":
    sys.exit(main())
