#!/usr/bin/env python3
"""Real processes killed with -9 or stopped, one after the other, while guests run: nothing is lost and no guest notices."""
import sys
import time

from poollib import Checks, Pool, check, wait


def slave_killed(pool):
    vm = pool.vms()["vm1"]
    host = pool("VM.get_resident_on", vm)
    number = str(pool.hosts().index(host) + 1)
    pool.kill(number)
    pool.check_exactly_once(vm, "slave killed")
    pool.start(number)
    pool.wait_hosts()
    check(pool("VM.get_power_state", vm) == "Running", "the agent adopted its guest", pool("VM.get_power_state", vm))
    pool("VM.pause", vm)
    pool("VM.unpause", vm)
    pool.check_exactly_once(vm, "after the adoption")


def disabled_host_restarted(pool):
    """A host enables itself when it has started, not when its link has broken, and not against a user's word."""
    host = pool.hosts()[2]
    metrics = pool("host.get_metrics", host)

    def restart(which):
        pool.kill(which)
        wait(lambda: which == "master" or not pool("host_metrics.get_live", metrics), "it is seen as dead", 30)
        pool.start(which)
        pool.wait_master()
        updated = pool("host_metrics.get_last_updated", metrics)
        wait(lambda: pool("host_metrics.get_last_updated", metrics) != updated, "it tells its figures", 30)
        check(pool("host_metrics.get_live", metrics), "it is live")

    pool("host.disable", host)
    restart("master")
    check(not pool("host.get_enabled", host), "a new link alone enables no host")
    restart("3")
    wait(lambda: pool("host.get_enabled", host), "it is enabled when it has started", 30)
    check(int(pool("host_metrics.get_record", metrics)["memory_free"]) > 0, "and tells its free memory")
    pool("host.disable", host, False)
    restart("3")
    check(not pool("host.get_enabled", host), "a host that was disabled for good stays so")
    pool("host.enable", host)


def master_killed(pool):
    vm = pool.vms()["vm1"]
    for number in range(3):
        pool("VM.set_name_description", vm, "written before kill %d" % number)
        pool.kill("master")
        pool.start("master")
        pool.wait_master()
        got = pool("VM.get_name_description", vm)
        check(got == "written before kill %d" % number, "an acknowledged write survives kill -9", got)
    pool.wait_hosts()
    pool.check_exactly_once(vm, "master killed")
    pool("VM.hard_shutdown", vm)
    pool("VM.start", vm, False, False)
    check(pool("VM.get_power_state", vm) == "Running", "and the pool works on")


def slave_stopped(pool):
    """A stopped agent leaves the other hosts' calls as fast as before."""
    hosts = pool.hosts()
    vms = pool.vms()
    here = pool("VM.get_resident_on", vms["vm1"])
    victim = hosts.index(here) + 1
    other = "vm2"
    if pool("VM.get_resident_on", vms[other]) == here:
        pool("VM.pool_migrate", vms[other], hosts[victim % len(hosts)], {})

    def once():
        began = time.monotonic()
        for _ in range(20):
            pool("VM.pause", vms[other])
            pool("VM.unpause", vms[other])
        return time.monotonic() - began

    def time_of_calls():
        return min(once() for _ in range(3)) # what else goes on at this machine is not the host's doing

    before = time_of_calls()
    pool.stop(str(victim))
    after = time_of_calls()
    check(after < 3 * before + 0.5, "a stopped host does not slow the others", (before, after))
    wait(lambda: not pool("host_metrics.get_live", pool("host.get_metrics", hosts[victim - 1])), "it is seen as dead", 30)
    pool.check_exactly_once(vms["vm1"], "its agent stopped")
    pool.go_on(str(victim))
    pool.wait_hosts()


def redis_killed(pool):
    vm = pool.vms()["vm1"]
    pool.kill("redis")
    pool("VM.set_name_description", vm, "without Redis")
    wait(lambda: any(r["name"] == "REDIS_MIRROR_AWAY" for r in pool("message.get_all_records").values()),
         "a message says that Redis is away", 30)
    pool.start("redis")
    wait(lambda: any(r["name"] == "REDIS_MIRROR_IN_STEP" for r in pool("message.get_all_records").values()),
         "a message says that the mirror is in step again", 30)


def guests_killed(pool):
    """The host's hypervisor dies: its VMs are seen to be down within seconds."""
    vm = pool.vms()["vm2"]
    number = pool.hosts().index(pool("VM.get_resident_on", vm)) + 1
    pool("VM.set_actions_after_crash", vm, "destroy")
    pool.kill("guests%d" % number)
    wait(lambda: pool("VM.get_power_state", vm) == "Halted", "a guest that vanished is Halted", 20)
    pool.start("guests%d" % number)
    wait(lambda: can_start(pool, vm, number), "and starts again on the same host", 30)
    pool.check_exactly_once(vm, "after its host's guests process died")


def can_start(pool, vm, number):
    from poollib import Failure
    try:
        pool("VM.start_on", vm, pool.hosts()[number - 1], False, False)
        return True
    except Failure:
        return False


def main():
    with Pool(hosts=3, vms=3) as pool:
        for test in (slave_killed, disabled_host_restarted, master_killed, slave_stopped, redis_killed, guests_killed):
            print("# " + test.__name__, flush=True)
            test(pool)
            pool.check_quiet(test.__name__)
    return Checks.finish()


if __name__ == "__main__":
    sys.exit(main())
