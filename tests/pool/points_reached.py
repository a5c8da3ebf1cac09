#!/usr/bin/env python3
"""Each named crash point is passed by a real process: a pool in which everything is done once that has a message of its own, with
all processes writing down what they pass. A point of `--crash-points` that is not among it could be armed for ever without
anything ever dying there. What happens when something dies: move_crash.py, transfer_crash.py, snapshots.py, devices.py."""
import os
import sys

import crashlib
from poollib import NULL, Checks, Failure, Pool, check, wait
from transferlib import MIB, Transfers, default_sr, local_sr, noise


class Life:
    """A pool of two hosts with a VM that runs."""

    def __init__(self, pool):
        self.pool, self.t = pool, Transfers(pool)
        self.vm, self.sr = pool.vms()["vm1"], default_sr(pool)

    def refused(self, code, method, *arguments):
        try:
            self.pool(method, *arguments)
            check(False, method + " is refused")
        except Failure as e:
            check(e.details[0] == code, method + " is refused", e.details)

    def disk(self, sr, size=4 * MIB):
        return self.pool("VDI.create", {"name_label": "d", "name_description": "", "SR": sr, "virtual_size": str(size),
                                        "type": "user", "sharable": False, "read_only": False, "other_config": {},
                                        "sm_config": {}})

    def drive(self, vdi, kind="Disk"):
        return self.pool("VBD.create", {"VM": self.vm, "VDI": vdi, "userdevice": "autodetect", "bootable": False,
                                        "mode": "RW" if kind == "Disk" else "RO", "type": kind, "empty": vdi == NULL,
                                        "unpluggable": True, "other_config": {}, "qos_algorithm_type": "",
                                        "qos_algorithm_params": {}})

    def elsewhere(self):
        return next(h for h in self.pool.hosts() if h != self.pool("VM.get_resident_on", self.vm))


def a_guests_life(life):
    p, vm = life.pool, life.vm
    p("VM.pause", vm)
    p("VM.unpause", vm)
    p("VM.set_memory_dynamic_range", vm, p("VM.get_memory_static_min", vm), p("VM.get_memory_static_max", vm))
    p("VM.set_VCPUs_number_live", vm, "1")
    p("VM.snapshot", vm, "then", [])
    p("VM.suspend", vm)
    p("VM.resume", vm, False, False)
    p("VM.clean_reboot", vm)
    p("VM.clean_shutdown", vm)
    p("VM.start", vm, False, False)
    p("VM.hard_shutdown", vm)
    p("VM.start", vm, False, False)
    life.refused("DOMAIN_EXISTS", "VM.power_state_reset", vm)


def devices(life):
    p = life.pool
    drive = life.drive(life.disk(life.sr))
    p("VBD.plug", drive)
    p("VBD.unplug", drive)
    vif = p("VM.get_VIFs", life.vm)[0]
    p("VIF.unplug", vif)
    p("VIF.plug", vif)
    directory = os.path.join(p.dir, "isos")
    os.makedirs(directory)
    with open(os.path.join(directory, "tools.iso"), "wb") as f:
        f.truncate(MIB)
    p("SR.create", p.hosts()[0], {"location": directory}, "0", "isos", "", "iso", "iso", True, {})
    cd = life.drive(NULL, "CD")
    p("VBD.plug", cd)
    p("VBD.insert", cd, p("VDI.get_by_name_label", "tools.iso")[0])


def moves(life):
    p, vm = life.pool, life.vm
    p("VM.pool_migrate", vm, life.elsewhere(), {"live": "true"})
    p("VM.add_to_other_config", vm, "sim-move-ms-min", "10000")
    p("VM.hard_reboot", vm)
    host = str(p.hosts().index(p("VM.get_resident_on", vm)) + 1)
    before = crashlib.logged(p, host, r"\] vm_send$")
    task = p("Async.VM.pool_migrate", vm, life.elsewhere(), {"live": "true"})
    wait(lambda: crashlib.logged(p, host, r"\] vm_send$") > before, "it is on its way")
    p("task.cancel", task)
    p.wait_task(task)

    # The master dies when all was sent, the copy goes: the next one has the source run it again.
    p("VM.remove_from_other_config", vm, "sim-move-ms-min")
    p("VM.hard_reboot", vm)
    guests = "guests%d" % (p.hosts().index(life.elsewhere()) + 1)
    p.kill("master")
    crashlib.start(p, "master", DROVER_CRASH_AT="master.vm_send.reply.before")
    pid = p.pid("master")
    task = crashlib.try_call(p, "Async.VM.pool_migrate", vm, life.elsewhere(), {"live": "true"})
    wait(lambda: crashlib.state_of(pid) == "gone", "the master dies")
    p.kill(guests)
    p.start(guests)
    crashlib.start(p, "master")
    check(p.wait_task(task)["status"] == "failure", "the move is taken back")


def storage(life):
    p = life.pool
    disk = life.disk(life.sr)
    p("VDI.clone", disk, {})
    p("VDI.copy", disk, local_sr(p, 1))
    p("VDI.resize", disk, str(8 * MIB))
    p("VDI.destroy", disk)
    directory = os.path.join(p.dir, "another")
    os.makedirs(directory)
    sr = p("SR.create", p.hosts()[0], {"location": directory}, "0", "x", "", "shared-file", "", True, {})
    p("SR.scan", sr)
    for pbd in p("SR.get_PBDs", sr):
        p("PBD.unplug", pbd)
    p("SR.destroy", sr)


def transfers(life):
    p, t = life.pool, life.t
    disk = life.disk(life.sr)
    t.write(disk, {0: noise(MIB, 1)})
    t.contents(disk, 2)
    p("VM.hard_shutdown", life.vm)
    xva = t.export(life.vm, at=2)
    t.import_(xva, at=2)
    t.get("/export", 2, uuid="00000000-0000-0000-0000-000000000000")
    before, task = crashlib.logged(p, "2", r"\] import_disks$"), t.task()
    with t.open("PUT", "/import", 2, headers={"Content-Length": str(len(xva))}, task_id=task) as c:
        c.send(xva[:len(xva) // 2])
        wait(lambda: crashlib.logged(p, "2", r"\] import_disks$") > before, "the disks are coming")
        p("task.cancel", task)
        p.wait_task(task)
    blob = p("VM.create_new_blob", life.vm, "b", "text/plain", False)
    check(t.put("/blob", b"x" * 1000, ref=blob).status == 200, "a blob is written")
    p("VM.start", life.vm, False, False)


def a_question(life):
    """What a master asks when an answer was lost."""
    p, vm = life.pool, life.vm
    host = str(p.hosts().index(p("VM.get_resident_on", vm)) + 1)
    p.kill(host)
    crashlib.start(p, host, DROVER_CRASH_AT="slave.vm_pause.reply.before:drop-reply")
    p("VM.pause", vm)
    p("VM.unpause", vm)
    p.kill("guests" + host) # a guest that ends by itself is told by a note
    wait(lambda: p("VM.get_resident_on", vm) == NULL or p("VM.get_power_state", vm) == "Running", "it is seen to be gone")


def main():
    with Pool(hosts=2, vms=1, env={"DROVER_CRASH_TRACE": "trace"}) as pool:
        life = Life(pool)
        for part in (a_guests_life, devices, moves, storage, transfers, a_question):
            print("# " + part.__name__, flush=True)
            part(life)
        known = crashlib.points("drover-master") + crashlib.points("drover-slave")
        trace = os.path.join(pool.dir, "trace")
        wait(lambda: set(known) <= set(crashlib.read_trace(trace)), "each of %d points is passed" % len(known), 20)
        left = sorted(set(known) - set(crashlib.read_trace(trace)))
        check(left == [], "none was left out", left)
    return Checks.finish()


if __name__ == "__main__":
    sys.exit(main())
