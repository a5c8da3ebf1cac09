#!/usr/bin/env python3
"""A client that keeps records from events, as many do, has what a read would give it: over the lives of VMs and their devices, disks
and hosts, at each quiet point every field of every record of every class is compared.

What is derived when it is read is in question: inverse sets, and allowed_operations, which follow from the object's neighbours."""
import os
import sys
import xmlrpc.client

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from poollib import NULL, Checks, Failure, Pool, check, wait  # noqa: E402

MIB = 1 << 20


class Kept:
    """The records as the events told them."""

    def __init__(self, pool):
        self.pool = pool
        self.token, self.records, self.events = "", {}, 0
        server = xmlrpc.client.ServerProxy(pool.env["POOL_URL"])
        names = {m.split(".")[0] for m in server.system.listMethods() if m.endswith(".get_all_records")}
        self.classes = {name.lower(): name for name in names}
        self.take(True)

    def take(self, is_first=False):
        """What has come since; says whether anything has."""
        answer = self.pool("event.from", ["*"], self.token, 0.0)
        self.token = answer["token"]
        for event in answer["events"]:
            kept = self.records.setdefault(event["class"], {})
            known = event["ref"] in kept
            self.events += 1
            if event["operation"] == "del":
                check(known, "only what was told is deleted", event)
                kept.pop(event["ref"], None)
                continue
            check(is_first or known == (event["operation"] == "mod"), "what is new is added, the rest modified", event)
            kept[event["ref"]] = event["snapshot"]
        for name, count in answer["valid_ref_counts"].items():
            if name in self.records and name != "session":
                check(len(self.records[name]) == count, "as many records as there are: " + name)
        return bool(answer["events"])

    def differences(self):
        found = []
        for event_class, name in self.classes.items():
            if event_class not in self.records:
                continue
            kept, read = self.records[event_class], self.pool(name + ".get_all_records")
            for ref in sorted(set(kept) | set(read)):
                if ref not in kept or ref not in read:
                    found.append((name, ref, "missing" if ref not in kept else "gone"))
                elif kept[ref] != read[ref]:
                    found += [(name, read[ref].get("name_label", ref), f, kept[ref].get(f), read[ref][f])
                              for f in read[ref] if kept[ref].get(f) != read[ref][f]]
        return found

    def compare(self, what):
        """Nothing may change between the two readings, so that they are of one moment."""
        def still():
            self.take()
            found = self.differences()
            return None if self.take() else [found]
        found = wait(still, "a quiet point: " + what)
        if found:
            check(found[0] == [], "kept as read: " + what, found[0])


class Life:
    def __init__(self, pool):
        self.pool, self.kept = pool, Kept(pool)
        self.hosts = pool.hosts()
        self.sr = pool("pool.get_default_SR", pool("pool.get_all")[0])

    def __call__(self, method, *arguments):
        value = self.pool(method, *arguments)
        self.kept.compare(method)
        return value

    def disk(self):
        return self("VDI.create", {
            "name_label": "d", "SR": self.sr, "virtual_size": str(4 * MIB), "type": "user", "sharable": False,
            "read_only": False, "other_config": {}, "sm_config": {}})

    def drive(self, vm, vdi, **fields):
        return self("VBD.create", dict({
            "VM": vm, "VDI": vdi, "userdevice": "autodetect", "bootable": False, "mode": "RW", "type": "Disk",
            "empty": vdi == NULL, "unpluggable": True, "other_config": {}, "qos_algorithm_type": "",
            "qos_algorithm_params": {}}, **fields))

    def interface(self, vm, device):
        return self("VIF.create", {
            "device": device, "network": self.pool("network.get_all")[0], "VM": vm, "MAC": "", "MTU": "1500",
            "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}})

    def vm(self, template, name):
        vm = self("VM.clone", self.pool("VM.get_by_name_label", template)[0], name)
        self("VM.remove_from_other_config", vm, "disks")
        self("VM.provision", vm)
        return vm


def a_vm_lives(life, template):
    vm, disk = life.vm(template, "life of " + template), life.disk()
    life.drive(vm, disk, bootable=True)
    cd = life.drive(vm, NULL, type="CD", mode="RO")
    life.interface(vm, "0")
    life("VM.start", vm, True, False)
    life("VM.unpause", vm)
    wait(lambda: life.pool("VM.get_guest_metrics", vm) != NULL, "the guest has spoken")
    life.kept.compare("guest metrics")
    life("VM.pause", vm)
    life("VM.unpause", vm)

    more = life.disk()
    vbd, vif = life.drive(vm, more), life.interface(vm, "1")
    allowed = life.pool("VBD.get_allowed_operations", vbd)
    if "plug" in allowed:
        life("VBD.plug", vbd)
        life("VIF.plug", vif)
        life("VBD.unplug", vbd)
        life("VIF.unplug", vif)
        life("VBD.plug", vbd)
    here = life.pool("VM.get_resident_on", vm)
    life("VM.pool_migrate", vm, next(h for h in life.hosts if h != here), {"live": "true"})
    life("VM.set_blocked_operations", vm, {"pause": "not now"})
    life("VM.set_blocked_operations", vm, {})
    life("VM.suspend", vm)

    # What a suspended VM has let go of another may have.
    other = life.vm(template, "other of " + template)
    life.drive(other, disk, mode="RO")
    life("VM.start", other, False, False)
    life("VM.hard_shutdown", other)
    life("VM.resume", vm, False, False)
    life("VM.destroy", other)

    snapshot = life("VM.snapshot", vm, "then", [])
    if "clean_reboot" in life.pool("VM.get_allowed_operations", vm):
        life("VM.clean_reboot", vm)
    life("VM.hard_reboot", vm)
    life("VM.hard_shutdown", vm)
    life("VDI.set_read_only", disk, True)
    life("VDI.set_read_only", disk, False)
    life("VDI.set_sharable", disk, True)
    life("VDI.set_sharable", disk, False)
    copy = life("VM.copy", vm, "copy", NULL)
    life("VM.set_is_a_template", copy, True)
    life("VM.set_is_a_template", copy, False)
    life("VM.destroy", copy)
    life("VM.destroy", snapshot)
    life("VBD.destroy", cd)
    life("VM.destroy", vm)


def a_call_is_under_way(life):
    """While a guest that does not obey is asked to shut down, none of its devices may come or go."""
    vm = life.vm("Debian Etch 4.0", "deaf")
    vif = life.interface(vm, "0")
    life.drive(vm, life.disk(), bootable=True)
    life("VM.add_to_other_config", vm, "sim-ignores-shutdown", "true")
    life("VM.start", vm, False, False)
    check("unplug" in life.kept.records["vif"][vif]["allowed_operations"], "the interface may go")
    task = life("Async.VM.clean_shutdown", vm)
    wait(lambda: life.pool("VM.get_current_operations", vm), "the shutdown has begun")
    life.kept.compare("a shutdown under way")
    check("unplug" not in life.kept.records["vif"][vif]["allowed_operations"], "but not while the VM shuts down")
    life("task.cancel", task)
    life.pool.wait_task(task)
    life.kept.compare("a shutdown that was cancelled")
    if life.pool("VM.get_power_state", vm) != "Halted":
        life("VM.hard_shutdown", vm)
    life("VM.destroy", vm)


def storage_comes_and_goes(life):
    disk = life.disk()
    pbds = life.pool("SR.get_PBDs", life.sr)
    for pbd in pbds:
        life("PBD.unplug", pbd)
    check("resize" not in life.kept.records["vdi"][disk]["allowed_operations"], "no disk is resized without its SR")
    for pbd in pbds:
        life("PBD.plug", pbd)
    check("resize" in life.kept.records["vdi"][disk]["allowed_operations"], "but with it")
    life("VDI.resize", disk, str(8 * MIB))
    life("VDI.destroy", disk)


def hosts_and_pool(life):
    pool, = life.pool("pool.get_all")
    life("host.disable", life.hosts[1])
    life("host.enable", life.hosts[1])
    life("pool.add_to_other_config", pool, "rolling_upgrade_in_progress", "true")
    life("pool.remove_from_other_config", pool, "rolling_upgrade_in_progress")
    life.pool.kill("2")
    metrics = life.pool("host.get_metrics", life.hosts[1])
    wait(lambda: not life.pool("host_metrics.get_live", metrics), "the host is missed", 120)
    life.kept.compare("a host that is gone")
    life.pool.start("2")
    life.pool.wait_hosts()
    life.kept.compare("a host that is back")


def main():
    with Pool(hosts=2, vms=0) as pool:
        pool.wait_hosts()
        life = Life(pool)
        life.kept.compare("the beginning")
        a_vm_lives(life, "Debian Etch 4.0")
        a_vm_lives(life, "Other install media")
        a_call_is_under_way(life)
        storage_comes_and_goes(life)
        hosts_and_pool(life)
        print("%d events" % life.kept.events)
    return Checks.finish()


if __name__ == "__main__":
    sys.exit(main())
