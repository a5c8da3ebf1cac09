#!/usr/bin/env python3
"""Options of VM.pool_migrate that say how memory travels: compressed, and over which network."""
import glob
import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from poollib import Failure, Pool, check, Checks, wait  # noqa: E402


def bytes_sent(pool):
    """Of each move so far, as the sending guests process wrote it down."""
    text = ""
    for path in sorted(glob.glob(os.path.join(pool.dir, "log", "*guests*"))):
        with open(path, errors="replace") as f:
            text += f.read()
    return sorted(re.findall(r"(\S+Z) .*: moved: .* bytes=(\d+)", text))


def move(pool, vm, **options):
    """Moves it to the other host; the bytes of its memory that travelled."""
    before, here = len(bytes_sent(pool)), pool("VM.get_resident_on", vm)
    pool("VM.pool_migrate", vm, next(h for h in pool.hosts() if h != here), dict({"live": "true"}, **options))
    wait(lambda: len(bytes_sent(pool)) > before, "the move is in the log")
    return int(bytes_sent(pool)[-1][1])


def compression(pool, vm):
    plain = move(pool, vm, compress="false")
    packed = move(pool, vm, compress="true")
    check(packed < plain / 2, "fewer bytes travel when compressed", (plain, packed))
    pool("pool.set_migration_compression", pool("pool.get_all")[0], True)
    check(move(pool, vm) < plain / 2, "the pool's setting is the default")
    check(move(pool, vm, compress="false") > plain / 2, "and the option goes before it")
    pool("pool.set_migration_compression", pool("pool.get_all")[0], False)


def networks(pool, vm):
    """The destination listens at its address in that network; a host that has none there is refused."""
    nowhere = pool("network.create", {"name_label": "nowhere", "name_description": "", "MTU": "1500", "other_config": {}})
    here = pool("VM.get_resident_on", vm)
    there = next(h for h in pool.hosts() if h != here)
    try:
        move(pool, vm, network=nowhere)
        check(False, "a network that the host has no address in")
    except Failure as e:
        check(list(e.details) == ["HOST_CANNOT_ATTACH_NETWORK", there, nowhere], "the network is refused", e.details)
    check(pool("VM.get_resident_on", vm) == here, "and the VM stays")
    pifs = [r for r in pool("PIF.get_all_records").values() if r["host"] == there and r["IP"]]
    if pifs:
        move(pool, vm, network=pifs[0]["network"])
        check(pool("VM.get_resident_on", vm) == there, "a network where it has one is taken")
    else:
        print("not tried: the hosts of this pool have no PIF with an address")


def main():
    with Pool(hosts=2, vms=1) as pool:
        vm = pool.vms()["vm1"]
        pool("VM.set_other_config", vm, {"sim-memory-kib": "4096", "sim-dirty-pages": "64", "sim-tick-ms": "20"})
        pool("VM.hard_reboot", vm)
        wait(lambda: pool.ticks(vm) > 100, "the guest has filled its memory")
        compression(pool, vm)
        networks(pool, vm)
        pool.check_exactly_once(vm, "at the end")
    return Checks.finish()


if __name__ == "__main__":
    sys.exit(main())
