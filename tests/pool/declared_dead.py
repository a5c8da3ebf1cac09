#!/usr/bin/env python3
"""An operator declares a host dead that is not: its agent is silent, its guest runs on and writes. The records believe him, the
disk does not: as long as that guest has it open nobody else gets it to write, neither the same VM, nor another one, nor an
upload. When the host is back its guest is ended, and the disk is free."""
import os
import sys

import crashlib
from poollib import Checks, Failure, Pool, check, wait
from snapshots import MIB, Guest
from transferlib import Transfers


class Undead:
    """A guest that writes to a disk at host 2, whose agent was stopped and which was declared dead."""

    def __init__(self, pool):
        self.pool, self.here, self.there = pool, pool.hosts()[0], pool.hosts()[1]
        self.guest = Guest(pool, "undead", ["raw"])
        self.vm, self.disk = self.guest.vm, self.guest.disks[0]
        pool("VM.start_on", self.vm, self.there, False, False)
        wait(lambda: self.guest.tick_on(self.disk), "it writes")
        self.first = self.guest.tick_on(self.disk)
        pool.stop("2")
        wait(lambda: not pool("host_metrics.get_live", pool("host.get_metrics", self.there)), "the host is taken for dead", 30)
        pool("host.declare_dead", self.there)
        check(pool("VM.get_power_state", self.vm) == "Halted", "the records believe it", pool("VM.get_power_state", self.vm))
        self.check_its_own("declared dead")

    def check_its_own(self, what):
        """The guest that never ended writes, and nobody else."""
        before = self.guest.tick_on(self.disk)
        wait(lambda: self.guest.tick_on(self.disk) != before, what + ": the guest writes on")
        after = self.guest.tick_on(self.disk)
        check(after[:2] == self.first[:2] and int(after[2]) > int(before[2]), what + ": its disk is its own", (before, after))

    def refused(self, what, method, *arguments):
        try:
            self.pool(method, *arguments)
            check(False, what + " is refused")
        except Failure as e:
            print("# %s: %s" % (what, e.details))
        self.check_its_own(what)

    def drive(self, vm):
        return self.pool("VBD.create", {
            "VM": vm, "VDI": self.disk, "userdevice": "autodetect", "bootable": False, "mode": "RW", "type": "Disk", "empty": False,
            "unpluggable": True, "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}})


def the_vm_itself(undead):
    undead.refused("the VM itself", "VM.start_on", undead.vm, undead.here, False, False)
    undead.refused("... again", "VM.start_on", undead.vm, undead.here, False, False)
    check(undead.pool("VM.get_power_state", undead.vm) == "Halted", "it does not run", undead.pool("VM.get_power_state", undead.vm))


def another_vm(undead):
    """Of a higher epoch, so that owner records alone would give it the disk."""
    pool, other = undead.pool, Guest(undead.pool, "another", ["raw"])
    for _ in range(8):
        pool("VM.start_on", other.vm, undead.here, False, False)
        pool("VM.hard_shutdown", other.vm)
    drive = undead.drive(other.vm)
    undead.refused("another VM", "VM.start_on", other.vm, undead.here, False, False)
    pool("VBD.destroy", drive)
    pool("VM.start_on", other.vm, undead.here, False, False)
    drive = undead.drive(other.vm)
    undead.refused("another VM that runs", "VBD.plug", drive)
    pool.check_exactly_once(other.vm, "the other one runs on with its own disk")
    pool("VBD.destroy", drive)
    return other


def an_upload(undead):
    pool, t = undead.pool, Transfers(undead.pool)
    task = t.task("overwrite")
    t.put("/import_raw_vdi", b"\xee" * MIB, vdi=undead.disk, task_id=task)
    record = pool.wait_task(task)
    check(record["status"] == "failure", "an upload is refused", record["status"])
    print("# an upload: %s" % record["error_info"])
    undead.check_its_own("an upload")


def its_host_returns(undead, other):
    pool, guest = undead.pool, undead.guest
    pool.go_on("2")
    pool.wait_hosts()
    wait(lambda: os.stat(guest.path(undead.disk)).st_ino not in guest.open_files(), "the host ends its guest")
    drive = undead.drive(other.vm)
    pool("VBD.plug", drive)
    wait(lambda: guest.tick_on(undead.disk)[0] == pool("VM.get_uuid", other.vm), "then the disk is another's")
    pool("VBD.unplug", drive)
    pool("VBD.destroy", drive)
    pool("VM.start_on", undead.vm, undead.here, False, False)
    pool.check_exactly_once(undead.vm, "and the VM runs elsewhere")
    wait(lambda: guest.tick_on(undead.disk)[0] == undead.first[0], "with its disk")


def main():
    with Pool(hosts=2, vms=0) as pool:
        crashlib.quick(pool)
        undead = Undead(pool)
        the_vm_itself(undead)
        other = another_vm(undead)
        an_upload(undead)
        its_host_returns(undead, other)
    return Checks.finish()


if __name__ == "__main__":
    sys.exit(main())
