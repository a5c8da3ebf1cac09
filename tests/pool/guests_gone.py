#!/usr/bin/env python3
"""A host whose guests' process dies: its guests are followed at once, here or elsewhere, and no other is sent there until it is
back. One that is only stopped is not dead."""
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from poollib import Failure, Pool, check, Checks, wait  # noqa: E402


def failure(p, *call):
    try:
        p(*call)
    except Failure as e:
        return e.details
    return ["Success"]


def crashes(p):
    return [r["name"] for r in p("message.get_all_records").values()].count("VM_CRASHED")


def home(p, vm):
    return p("VM.get_resident_on", vm)


def state(p, vm):
    return p("VM.get_power_state", vm)


def runs_elsewhere(p, vms, host):
    return all(state(p, vm) == "Running" and home(p, vm) != host for vm in vms)


def one_of_three_dies(p, hosts, vms):
    second, wanted, other = hosts[1], [vms["vm1"], vms["vm2"]], vms["vm3"]
    for name, vm in vms.items():
        there = hosts[0] if name == "vm4" else second
        if home(p, vm) != there:
            p("VM.pool_migrate", vm, there, {})
    for vm in vms.values():
        p("VM.set_actions_after_crash", vm, "destroy" if vm == other else "restart")
    p.kill("guests2")
    wait(lambda: runs_elsewhere(p, wanted, second), "who is to begin anew runs elsewhere", 20)
    wait(lambda: state(p, other) == "Halted", "and who is not is Halted", 20)
    check(crashes(p) == 3, "each crash is told", crashes(p))
    for i in range(6):
        p("VM.start", other, False, False)
        check(home(p, other) != second, "start %d: not there" % i)
        p("VM.hard_shutdown", other)
    for call in ("VM.start_on", other, second, False, False), ("VM.pool_migrate", wanted[0], second, {}):
        check(failure(p, *call) == ["HOST_STILL_BOOTING"], "%s says why not" % call[0], failure(p, *call))
    check(second not in p("VM.get_possible_hosts", other), "nor is it possible")
    check(p("host.get_enabled", second), "it is enabled all the same")
    p.start("guests2")
    wait(lambda: second in p("VM.get_possible_hosts", other), "it is back", 20)
    p("VM.start_on", other, second, False, False)
    for name, vm in vms.items():
        p.check_exactly_once(vm, name)
    p.check_quiet("one of three")


def all_die(p, vms):
    before = crashes(p)
    for name in "guests1", "guests2", "guests3":
        p.kill(name)
    wait(lambda: all(state(p, vm) == "Halted" for vm in vms.values()), "nobody runs anywhere", 30)
    check(crashes(p) == before + len(vms), "that is told", crashes(p) - before)
    check(failure(p, "VM.start", vms["vm3"], False, False) == ["NO_HOSTS_AVAILABLE"], "nobody can be started")
    p.kill("master") # the next one goes on with them
    p.start("master")
    p.session = None
    p.wait_hosts()
    p.start("guests3")
    wait(lambda: runs_elsewhere(p, [vm for name, vm in vms.items() if name != "vm3"], None),
         "when there is a place again they run, unasked", 40)
    check(state(p, vms["vm3"]) == "Halted", "but for the one that is not wanted")
    p.start("guests1")
    p.start("guests2")
    wait(lambda: len(p("VM.get_possible_hosts", vms["vm3"])) == 3, "all are back", 20)
    p("VM.start", vms["vm3"], False, False)
    for name, vm in vms.items():
        p.check_exactly_once(vm, name)
    p.check_quiet("all")


def one_is_stopped(p, hosts, vms):
    """It may go on at any moment."""
    before, there = crashes(p), [vm for vm in vms.values() if home(p, vm) == hosts[2]]
    check(there, "some are there")
    p.stop("guests3")
    time.sleep(3) # longer than any link or process that has died stays unnoticed
    check(all(state(p, vm) == "Running" and home(p, vm) == hosts[2] for vm in there), "they count as running, where they are")
    p.go_on("guests3")
    check(crashes(p) == before, "nothing has crashed")
    for vm in there:
        p.check_exactly_once(vm, "after the stop")


def a_guest_crashes_unseen(p, hosts, vm):
    """Neither its agent nor a master is there: that it has crashed, and is to begin anew, is known all the same."""
    before = crashes(p)
    p("VM.set_actions_after_crash", vm, "restart")
    p("VM.hard_shutdown", vm)
    p("VM.add_to_other_config", vm, "sim-crash-at-tick", "100")
    p("VM.start_on", vm, hosts[1], False, False)
    p("VM.remove_from_other_config", vm, "sim-crash-at-tick")
    boots, path = p.journal(vm).boots, os.path.join(p.dir, "log", "guests2.log")
    p.kill("2")
    p.kill("master")

    def has_crashed():
        with open(path, errors="replace") as f:
            return "vm1: ended by itself" in f.read()

    wait(has_crashed, "it crashes", 30)
    p.start("2")
    p.start("master")
    p.session = None
    p.wait_hosts()
    wait(lambda: p.journal(vm).boots > boots, "it is begun anew", 30)
    check(crashes(p) == before + 1, "and its crash is told", crashes(p) - before)
    p.check_exactly_once(vm, "unseen")
    p.check_quiet("unseen")


def main():
    with Pool(hosts=3, vms=4) as p:
        hosts, vms = p.hosts(), p.vms()
        one_of_three_dies(p, hosts, vms)
        all_die(p, vms)
        one_is_stopped(p, hosts, vms)
        a_guest_crashes_unseen(p, hosts, vms["vm1"])
    return Checks.finish()


if __name__ == "__main__":
    sys.exit(main())
