#!/usr/bin/env python3
"""Disks, CDs and interfaces of a running VM, plugged and unplugged: the guest has them from then on, wherever it goes, until it
is told to let go; and whatever dies on the way, the records say what the guest has.

A guest with sim-writes-disks writes its tick to each disk that it has, and /proc shows which files its process has open: these
are the witnesses, not an agent's word."""
import os
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from poollib import NULL, Failure, Pool, check, Checks, wait  # noqa: E402

MIB = 1 << 20


def is_dead(pid):
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rsplit(")", 1)[1].split()[0] in "ZX"
    except FileNotFoundError:
        return True


class Devices:
    def __init__(self, pool):
        self.pool = pool
        self.hosts = pool("host.get_all")
        self.sr = pool("pool.get_default_SR", pool("pool.get_all")[0])
        self.vm = pool("VM.get_by_name_label", "vm1")[0]
        # Options are read when a guest is made.
        pool("VM.set_other_config", self.vm, {"sim-writes-disks": "true", "sim-tick-ms": "20"})
        pool("VM.hard_reboot", self.vm)

    def disk(self):
        return self.pool("VDI.create", {
            "name_label": "d", "name_description": "", "SR": self.sr, "virtual_size": str(4 * MIB), "type": "user",
            "sharable": False, "read_only": False, "other_config": {}, "sm_config": {"type": "raw"}})

    def drive(self, vm, vdi, **fields):
        return self.pool("VBD.create", dict({
            "VM": vm, "VDI": vdi, "userdevice": "autodetect", "bootable": False, "mode": "RW", "type": "Disk",
            "empty": vdi == NULL, "unpluggable": True, "other_config": {}, "qos_algorithm_type": "",
            "qos_algorithm_params": {}}, **fields))

    def path(self, vdi):
        return os.path.join(self.pool.dir, "shared", self.pool("VDI.get_location", vdi))

    def tick(self, vdi):
        with open(self.path(vdi), "rb") as f:
            words = f.read(512).split()
        return int(words[2]) if len(words) == 3 else 0

    def is_written(self, vdi):
        before = self.tick(vdi)
        return wait(lambda: self.tick(vdi) > before, "the guest writes to %s" % self.path(vdi), 20)

    def is_open(self, vdi):
        """By any guest process of the pool."""
        path = os.path.realpath(self.path(vdi))
        for i in range(1, len(self.hosts) + 1):
            directory = "/proc/%d/fd" % self.pool.pid("guests%d" % i)
            for fd in os.listdir(directory):
                try:
                    if os.readlink(os.path.join(directory, fd)) == path:
                        return True
                except OSError:
                    pass
        return False

    def owner(self, vdi):
        try:
            with open(self.path(vdi) + ".owner") as f:
                return f.read().split()
        except FileNotFoundError:
            return []

    def failure(self, method, *arguments):
        try:
            return ["Success", self.pool(method, *arguments)]
        except Failure as e:
            return list(e.details)

    def elsewhere(self):
        here = self.pool("VM.get_resident_on", self.vm)
        return next(h for h in self.hosts if h != here)


def a_disk_comes_and_goes(d):
    p, vdi = d.pool, d.disk()
    vbd = d.drive(d.vm, vdi)
    p("VBD.plug", vbd)
    check(p("VBD.get_currently_attached", vbd), "attached in the record")
    d.is_written(vdi)
    check(d.owner(vdi)[2:3] == [p("VM.get_uuid", d.vm)], "its owner record names the VM", d.owner(vdi))
    check(d.failure("VBD.plug", vbd)[0] == "DEVICE_ALREADY_ATTACHED", "plugged once")

    # The guest takes it along.
    p("VM.pool_migrate", d.vm, d.elsewhere(), {"live": "true"})
    check(p("VBD.get_currently_attached", vbd), "attached after the move")
    d.is_written(vdi)
    p("VM.suspend", d.vm)
    check(not d.is_open(vdi), "closed while suspended")
    p("VM.resume", d.vm, False, False)
    d.is_written(vdi)

    p("VBD.unplug", vbd)
    check(not p("VBD.get_currently_attached", vbd), "detached in the record")
    check(not d.is_open(vdi), "the guest has let the file go")
    check(d.owner(vdi)[3:] == ["free"], "its owner record was given back", d.owner(vdi))
    before = d.tick(vdi)
    p("VM.pool_migrate", d.vm, d.elsewhere(), {"live": "true"})
    check(not d.is_open(vdi) and d.tick(vdi) == before, "what was unplugged does not come back by a move")
    return vdi


def another_vm_takes_it(d, vdi):
    p = d.pool
    other = p("VM.get_by_name_label", "vm2")[0]
    vbd = d.drive(other, vdi)
    p("VBD.plug", vbd)
    check(d.owner(vdi)[2:3] == [p("VM.get_uuid", other)], "another VM, of a lower epoch, has it", d.owner(vdi))
    mine = next(ref for ref, r in p("VBD.get_all_records").items() if r["VM"] == d.vm and r["VDI"] == vdi)
    check(d.failure("VBD.plug", mine)[0] == "VDI_IN_USE", "and nobody else meanwhile")
    p("VBD.unplug", vbd)


def a_refusal_is_told(d):
    p, vdi = d.pool, d.disk()
    vm = p("VM.get_by_name_label", "vm2")[0]
    p("VM.add_to_other_config", vm, "sim-refuses-unplug", "true")
    p("VM.hard_reboot", vm)
    vbd = d.drive(vm, vdi)
    p("VBD.plug", vbd)
    error = d.failure("VBD.unplug", vbd)
    check(error[:3] == ["DEVICE_DETACH_REJECTED", "VBD", vbd], "the guest does not let go", error)
    check(p("VBD.get_currently_attached", vbd), "and has it still")
    vif = p("VM.get_VIFs", vm)
    if vif:
        error = d.failure("VIF.unplug", vif[0])
        check(error[:3] == ["DEVICE_DETACH_REJECTED", "VIF", vif[0]], "nor of an interface", error)
    p("VBD.unplug_force", vbd)
    check(not p("VBD.get_currently_attached", vbd), "it is forced to")


def a_plug_survives(d, name, is_plug):
    """Somebody dies when the agent has done it and nobody has heard of it."""
    p, vdi = d.pool, d.disk()
    vbd = d.drive(d.vm, vdi)
    if not is_plug:
        p("VBD.plug", vbd)
    host = p("host.get_address", p("VM.get_resident_on", d.vm)).rsplit(".", 1)[1]
    call = "vbd_plug" if is_plug else "vbd_unplug"
    victim = host if name == "agent" else "master"
    point = ("slave.%s.effect:kill" if name == "agent" else "master.%s.reply.before:kill") % call
    p.kill(victim)
    p.start(victim, DROVER_CRASH_AT=point)
    p.wait_master()
    p.wait_hosts()
    pid = p.pid(victim)

    def act():
        try:
            p("VBD.plug" if is_plug else "VBD.unplug", vbd)
        except Exception:  # noqa: BLE001 - the outcome is what is judged, below
            pass

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    wait(lambda: is_dead(pid), "%s dies at %s" % (victim, point), 30)
    p.start(victim)
    p.wait_master()
    p.wait_hosts()
    thread.join(60)
    wait(lambda: p("VBD.get_currently_attached", vbd) == is_plug, "%s: the record says what the guest has" % point, 40)
    check(d.is_open(vdi) == is_plug, "%s: the guest has it, or not" % point)
    if is_plug:
        d.is_written(vdi)


def consoles_are_where_the_vm_runs(d):
    """https://<the host's address>:<the pool's port>/console?uuid=..."""
    p = d.pool
    port = p.env["POOL_HTTPS_URL"].rsplit(":", 1)[1]
    for console in p("VM.get_consoles", d.vm):
        wanted = "https://%s:%s/console?uuid=%s" % (p("host.get_address", p("VM.get_resident_on", d.vm)), port,
                                                    p("console.get_uuid", console))
        check(p("console.get_location", console) == wanted, "a console's location", p("console.get_location", console))


def main():
    with Pool(hosts=2, vms=2) as pool:
        d = Devices(pool)
        consoles_are_where_the_vm_runs(d)
        pool("VM.pool_migrate", d.vm, d.elsewhere(), {"live": "true"})
        consoles_are_where_the_vm_runs(d)
        vdi = a_disk_comes_and_goes(d)
        another_vm_takes_it(d, vdi)
        a_refusal_is_told(d)
        for name in "agent", "master":
            for is_plug in True, False:
                a_plug_survives(d, name, is_plug)
        pool.check_quiet("at the end")
        for name, vm in pool.vms().items():
            pool.check_exactly_once(vm, name)
    return Checks.finish()


if __name__ == "__main__":
    sys.exit(main())
