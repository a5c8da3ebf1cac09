#!/usr/bin/env python3
"""A disk that is not sharable is one guest's to write to, whatever the other VM with a drive for it does: boots, reboots, is
resumed, or plugs it in the same moment. Owner records beside the disks and the guests' open files are the witnesses."""
import os
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from devices import Devices  # noqa: E402
from poollib import Pool, check, Checks, wait  # noqa: E402


class Two(Devices):
    """vm1, whose epoch is the higher one, and vm2."""

    def __init__(self, pool):
        super().__init__(pool)
        pool("VM.hard_shutdown", self.vm)
        pool("VM.start", self.vm, False, False)
        self.other = pool("VM.get_by_name_label", "vm2")[0]

    def is_owned_by(self, vdi, vm):
        return self.owner(vdi)[2:] == [self.pool("VM.get_uuid", vm)]

    def attached(self, vbd):
        return self.pool("VBD.get_currently_attached", vbd)

    def done_at_once(self, *calls):
        """What came of each."""
        results = [None] * len(calls)

        def act(i, call):
            results[i] = self.failure(*call)

        threads = [threading.Thread(target=act, args=each, daemon=True) for each in enumerate(calls)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        return results


def a_reboot_takes_nothing_from_others(d):
    p, vdi = d.pool, d.disk()
    mine, theirs, new = d.drive(d.vm, vdi), d.drive(d.other, vdi), d.drive(d.vm, d.disk())
    p("VBD.plug", theirs)
    for call in "VM.hard_reboot", "VM.clean_reboot":
        p(call, d.vm)
        check(p("VM.get_power_state", d.vm) == "Running", "%s: it runs" % call)
        check(d.is_owned_by(vdi, d.other), "%s: the disk stays the other VM's" % call, d.owner(vdi))
        check(not d.attached(mine), "%s: and the record says so" % call)
        check(d.attached(new), "%s: a drive of nobody else's is attached as at a start" % call)
    p("VBD.unplug", theirs)
    p("VM.hard_reboot", d.vm)
    check(d.attached(mine) and d.is_owned_by(vdi, d.vm), "and when the other one has let it go, that one, too")
    check(d.failure("VBD.plug", theirs)[0] == "VDI_IN_USE", "the other one is refused now")
    return mine, theirs, vdi


def a_resume_takes_nothing_from_others(d, mine, theirs, vdi):
    p = d.pool
    p("VM.suspend", d.vm)
    p("VBD.plug", theirs)
    check(d.failure("VM.resume", d.vm, False, False)[0] == "VDI_IN_USE", "not while the other one has it")
    check(d.is_owned_by(vdi, d.other), "it stays the other VM's", d.owner(vdi))
    p("VBD.unplug", theirs)
    check(d.failure("VM.resume", d.vm, False, False)[0] == "VDI_IN_USE", "nor after that: its memory knows an older content")
    p("VM.hard_shutdown", d.vm)
    p("VM.start", d.vm, False, False)
    check(d.attached(mine) and d.is_owned_by(vdi, d.vm), "a start asks for no memory")
    p("VBD.unplug", mine)


def one_of_two_gets_it(d, mine, theirs, vdi):
    p = d.pool
    for i in range(12):
        if i % 3 == 0: # two plugs
            calls = [("VBD.plug", mine), ("VBD.plug", theirs)]
        elif i % 3 == 1: # a plug and a start
            p("VM.hard_shutdown", d.other)
            calls = [("VBD.plug", mine), ("VM.start", d.other, False, False)]
        else: # a reboot that could take it, and a plug
            calls = [("VM.hard_reboot", d.vm), ("VBD.plug", theirs)]
        results = d.done_at_once(*calls)
        attached = [d.attached(mine), d.attached(theirs)]
        check(sum(attached) == 1, "round %d: one of the two has it" % i, (results, attached))
        check(d.is_owned_by(vdi, d.vm if attached[0] else d.other), "round %d: and owns it" % i, d.owner(vdi))
        if p("VM.get_power_state", d.other) == "Halted":
            check(attached[0], "round %d: the start was refused since the plug came first" % i, results)
            p("VBD.unplug", mine)
            p("VM.start", d.other, False, False)
            p("VBD.unplug", theirs)
        else:
            p("VBD.unplug", mine if attached[0] else theirs)
        wait(lambda: d.owner(vdi)[3:] == ["free"], "given back", 10)


def a_plug_in_doubt_keeps_others_out(d, mine, theirs, vdi):
    """Its host does not answer: it may have done it, and may do it yet."""
    p = d.pool
    master = p("pool.get_master", p("pool.get_all")[0])
    for vm in d.vm, d.other: # vm2 where the master is, so that only vm1's host is away
        p("VM.hard_shutdown", vm)
        p("VM.start_on", vm, next(h for h in d.hosts if (h == master) == (vm == d.other)), False, False)
        for vbd in filter(d.attached, (mine, theirs)):
            p("VBD.unplug", vbd)
    number = p("host.get_address", p("VM.get_resident_on", d.vm)).rsplit(".", 1)[1]
    p.stop(number)
    [result] = d.done_at_once(("VBD.plug", mine))
    check(result[0] == "HOST_OFFLINE", "the plug is in doubt", result)
    check(d.failure("VBD.plug", theirs)[0] == "VDI_IN_USE", "the other VM is refused meanwhile")
    check(d.failure("VBD.destroy", mine)[0] == "OPERATION_NOT_ALLOWED", "and the drive stays")
    p.go_on(number)
    wait(lambda: d.attached(mine) or d.failure("VBD.plug", theirs)[0] == "Success", "it is known what came of it", 40)
    check(d.attached(mine) != d.attached(theirs), "one of them has it", (d.attached(mine), d.attached(theirs)))
    check(d.is_owned_by(vdi, d.vm if d.attached(mine) else d.other), "and owns it", d.owner(vdi))


def main():
    with Pool(hosts=2, vms=2) as pool:
        d = Two(pool)
        drives = a_reboot_takes_nothing_from_others(d)
        a_resume_takes_nothing_from_others(d, *drives)
        one_of_two_gets_it(d, *drives)
        a_plug_in_doubt_keeps_others_out(d, *drives)
        pool.check_quiet("at the end")
        for name, vm in pool.vms().items():
            pool.check_exactly_once(vm, name)
    return Checks.finish()


if __name__ == "__main__":
    sys.exit(main())
