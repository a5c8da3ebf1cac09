#!/usr/bin/env python3
"""The master's store is put back to an old copy: agents follow again within seconds, nothing runs twice, and nothing is started
before every host has spoken or is declared dead."""
import os
import re
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


def epochs(pool, number):
    """Those of the masters that the agent has followed, from its log."""
    with open(os.path.join(pool.dir, "log", "%s.log" % number), errors="replace") as log:
        return [int(epoch) for epoch in re.findall(r"stands, the master's epoch is (\d+)", log.read())]


def follow(pool, numbers, begin):
    """These agents come to follow a master of another epoch."""
    before = {n: epochs(pool, n)[-1] for n in numbers}
    begin()
    for n in numbers:
        wait(lambda n=n: epochs(pool, n)[-1] > before[n], "host %s follows a higher epoch" % n)


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

        # only one host knows the forgotten epochs, and comes when the master is at work with the others
        late = str(numbers[gone])
        others = [n for n in ("1", "2", "3") if n != late]
        pool.start(late)
        pool.wait_hosts()
        pool.kill("master")
        shutil.rmtree(copy)
        shutil.copytree(store(pool), copy)
        for n in others:
            pool.kill(n)
        for _ in range(2):
            follow(pool, [late], lambda: pool.start("master"))
            pool.kill("master")
        pool.kill(late)
        forgotten = epochs(pool, late)[-1]
        put_back(pool, copy)
        for n in others:
            pool.start(n)
        follow(pool, others, lambda: pool.start("master"))
        check(all(epochs(pool, n)[-1] < forgotten for n in others), "the others are welcomed at a lower epoch")
        follow(pool, others + [late], lambda: pool.start(late))
        check(epochs(pool, late)[-1] > forgotten, "the master has begun anew above what the late host knew", epochs(pool, late))
        pool.wait_master()
        pool.wait_hosts()
        pool.check_exactly_once(vms["vm1"], "vm1 at the end")
    return Checks.finish()


if __name__ == "__main__":
    sys.exit(main())
