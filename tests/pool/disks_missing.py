#!/usr/bin/env python3
"""Disks that a VM cannot have: on another host's own SR, without their file, somebody else's by their owner record. Who asks is
told which, in the names that clients know; and what runs goes on as if nobody had asked."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from devices import Devices  # noqa: E402
from poollib import Failure, Pool, check, Checks, wait  # noqa: E402


class Missing(Devices):
    def failure(self, *call):
        try:
            self.pool(*call)
        except Failure as e:
            return e.details
        return ["Success"]

    def crashes(self):
        return [r["name"] for r in self.pool("message.get_all_records").values()].count("VM_CRASHED")

    def ticks_on(self, what):
        p = self.pool
        check(p("VM.get_power_state", self.vm) == "Running" and self.crashes() == 0, what + ": it runs on")
        before = p.ticks(self.vm)
        wait(lambda: p.ticks(self.vm) > before, what + ": and ticks", 20)

    def local_sr(self, host):
        p = self.pool
        return next(sr for sr, r in p("SR.get_all_records").items()
                    if not r["shared"] and r["type"] == "file" and [p("PBD.get_host", pbd) for pbd in r["PBDs"]] == [host])


def no_reboot_for_a_disk_of_elsewhere(d):
    p = d.pool
    here = p("VM.get_resident_on", d.vm)
    sr = d.local_sr(next(h for h in d.hosts if h != here))
    vdi = p("VDI.create", {
        "name_label": "l", "name_description": "", "SR": sr, "virtual_size": "1048576", "type": "user", "sharable": False,
        "read_only": False, "other_config": {}})
    vbd = d.drive(d.vm, vdi)
    for call in "VM.hard_reboot", "VM.clean_reboot":
        check(d.failure(call, d.vm) == ["VM_REQUIRES_SR", d.vm, sr], "%s is refused" % call, d.failure(call, d.vm))
        d.ticks_on(call)
    p("VBD.destroy", vbd)
    p("VM.hard_reboot", d.vm)
    p("VDI.destroy", vdi)


def no_file(d):
    p = d.pool
    vdi = d.disk()
    vbd, path, location = d.drive(d.vm, vdi), d.path(vdi), p("VDI.get_location", vdi)
    expected = ["VDI_LOCATION_MISSING", d.sr, location]
    os.rename(path, path + ".away")
    for call in ("VBD.plug", vbd), ("VM.hard_reboot", d.vm):
        check(d.failure(*call) == expected, "%s names the disk" % call[0], d.failure(*call))
        d.ticks_on(call[0])
    p("VM.hard_shutdown", d.vm)
    check(d.failure("VM.start", d.vm, False, False) == expected, "so does VM.start", d.failure("VM.start", d.vm, False, False))
    check(p("VM.get_power_state", d.vm) == "Halted", "which makes nothing")
    os.rename(path + ".away", path)
    p("VM.start", d.vm, False, False)
    p("VM.suspend", d.vm)
    image = p("VM.get_suspend_VDI", d.vm)
    path, location = d.path(image), p("VDI.get_location", image)
    os.rename(path, path + ".away")
    result = d.failure("VM.resume", d.vm, False, False)
    check(result == ["VDI_LOCATION_MISSING", d.sr, location], "and VM.resume of its image", result)
    check(p("VM.get_power_state", d.vm) == "Suspended", "it stays Suspended")
    os.rename(path + ".away", path)
    p("VM.resume", d.vm, False, False)
    p.check_exactly_once(d.vm, "resumed")


def anothers_by_its_record(d):
    p = d.pool
    vdi = d.disk()
    vbd = d.drive(d.vm, vdi)
    with open(d.path(vdi) + ".owner", "w") as f:
        f.write("%d somebody\n" % (1 << 62))
    result = d.failure("VBD.plug", vbd)
    check(result == ["VDI_IN_USE", vdi, "attach"], "the client's name of it", result)
    d.ticks_on("after the refusal")


def main():
    with Pool(hosts=2, vms=1) as pool:
        d = Missing(pool)
        no_reboot_for_a_disk_of_elsewhere(d)
        no_file(d)
        anothers_by_its_record(d)
        pool.check_quiet("disks that are missed")
    return Checks.finish()


if __name__ == "__main__":
    sys.exit(main())
