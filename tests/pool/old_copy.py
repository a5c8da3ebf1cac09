#!/usr/bin/env python3
"""The master's store is put back to an old copy: agents follow again within seconds, nothing runs twice, and nothing is started
before every host has spoken or is declared dead."""
import os
import shutil
import sys
import time

from poollib import LOST, Checks, Failure, Pool, check, wait


def store(pool):
    return os.path.join(pool.dir, "master", "store")


def restart(pool):
    pool.kill("master")
    pool.start("master")
    pool.wait_master()
    pool.wait_hosts()


def other_host(pool, vm):
    here = pool("VM.get_resident_on", vm)
    return next(h for h in pool.hosts() if h != here)


def messages(pool):
    """None of them while the master begins anew above the epoch that the hosts follow."""
    try:
        return [m["name"] for m in pool("message.get_all_records").values()]
    except LOST:
        return []


def live(pool, host):
    return pool("host_metrics.get_live", pool("host.get_metrics", host))


def template(pool):
    return pool("VM.get_by_name_label", "Debian Etch 4.0")[0]


def put_back(pool, copy):
    pool.kill("master")
    shutil.rmtree(store(pool))
    shutil.copytree(copy, store(pool))


def main():
    with Pool(hosts=3, vms=2, redis=False) as pool:
        vms = pool.vms()
        copy = os.path.join(pool.work.name, "copy")
        pool.kill("master")
        shutil.copytree(store(pool), copy)
        pool.start("master")
        pool.wait_master()
        pool.wait_hosts()
        for _ in range(2):  # epochs that the copy does not know
            restart(pool)
        for name in vms:
            pool("VM.pool_migrate", vms[name], other_host(pool, vms[name]), {})
        numbers = {ref: i + 1 for i, ref in enumerate(pool.hosts())}
        place = {name: pool("VM.get_resident_on", vms[name]) for name in vms}

        put_back(pool, copy)
        began = time.monotonic()
        pool.start("master")
        pool.wait_master()
        pool.wait_hosts()
        check(time.monotonic() - began < 20, "the agents follow within seconds", time.monotonic() - began)
        wait(lambda: "POOL_RECORDS_COMPLETE" in messages(pool), "all hosts have said what runs there")
        check("POOL_RECORDS_MAY_BE_OLD" in messages(pool), "the operator is told", messages(pool))
        for name in vms:
            wait(lambda name=name: pool("VM.get_resident_on", vms[name]) == place[name], "%s is where it was moved to" % name)
            pool.check_exactly_once(vms[name], name)
            pool("VM.pool_migrate", vms[name], other_host(pool, vms[name]), {})
            pool.check_exactly_once(vms[name], name + " after another move")

        # the same with a host that stays away
        pool("VM.hard_shutdown", vms["vm2"])
        gone = next(ref for ref in pool.hosts()[1:] if ref != pool("VM.get_resident_on", vms["vm1"]))
        put_back(pool, copy)
        pool.kill(str(numbers[gone]))
        pool.start("master")
        pool.wait_master()
        wait(lambda: "POOL_RECORDS_MAY_BE_OLD" in messages(pool), "the master waits for its hosts")
        wait(lambda: messages(pool) and live(pool, pool.hosts()[0]), "it has begun above the epoch that they follow")
        vm = pool("VM.clone", template(pool), "another")
        pool("VM.provision", vm)
        try:
            pool("VM.start", vm, False, False)
            check(False, "nothing is started while a host may run it")
        except Failure as failure:
            check(failure.details == ["HOST_OFFLINE", gone], "the host that is waited for is named", failure.details)
        pool("host.declare_dead", gone)
        wait(lambda: pool("VM.get_power_state", vms["vm2"]) == "Halted", "vm2 is halted")
        pool("VM.start", vms["vm2"], False, False)
        check(pool("VM.get_power_state", vms["vm2"]) == "Running", "it starts when the host is declared dead")
        pool.check_exactly_once(vms["vm1"], "vm1")
    return Checks.finish()


if __name__ == "__main__":
    sys.exit(main())
