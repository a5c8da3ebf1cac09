#!/usr/bin/env python3
"""The master's store is gone: it starts from Redis, and rather not at all than as an empty pool."""
import os
import shutil
import sys

from poollib import Checks, Pool, check


def lose_store(pool, number):
    pool.kill("master")
    store = os.path.join(pool.dir, "master", "store")
    shutil.move(store, store + ".lost%d" % number)


def main():
    with Pool(hosts=2, vms=2) as pool:
        vms = pool.vms()
        pool("VM.set_name_description", vms["vm1"], "kept by Redis")
        lose_store(pool, 1)
        pool.start("master")
        pool.wait_master()
        pool.wait_hosts()
        check(pool.vms() == vms, "the VMs came back from Redis", pool.vms())
        check(pool("VM.get_name_description", vms["vm1"]) == "kept by Redis", "and so did the last write")
        for name in vms:
            pool.check_exactly_once(vms[name], name)
        pool("VM.pool_migrate", vms["vm1"], next(h for h in pool.hosts() if h != pool("VM.get_resident_on", vms["vm1"])), {})
        pool.check_exactly_once(vms["vm1"], "moved by the master that started from Redis")

        lose_store(pool, 2)
        pool.kill("redis")
        try:
            pool.start("master")
            check(False, "without store and Redis the master does not start")
        except RuntimeError as e:
            check("is empty, and the pool it held" in str(e), "it says why", str(e))
        pool.start("redis")
        pool.start("master")
        pool.wait_master()
        pool.wait_hosts()
        check(pool.vms() == vms, "with Redis it starts again", pool.vms())
    return Checks.finish()


if __name__ == "__main__":
    sys.exit(main())
