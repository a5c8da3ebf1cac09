#!/usr/bin/env python3
"""Disks as real files on a pool of two hosts: made, cloned, copied, grown, destroyed, found by a
scan; CDs in the drive of a running VM; what a failure leaves behind (nothing)."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import xmlrpc.client

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NULL = "OpaqueRef:NULL"
MIB = 1 << 20


class Failure(Exception):
    pass


class Pool:
    """A pool of scripts/pool in a directory of its own; p("VM.clone", vm, "name")."""

    def __enter__(self):
        self.dir = tempfile.mkdtemp(prefix="drover-pool-")
        out = subprocess.run([os.path.join(ROOT, "scripts", "pool"), "up", "--hosts", "2", "--vms", "1",
                              "--dir", self.dir], check=True, stdout=subprocess.PIPE, text=True).stdout
        env = dict(part.split("=", 1) for part in shlex.split(out))
        self.server = xmlrpc.client.ServerProxy(env["POOL_URL"])
        self.session = self.raw("session.login_with_password", env["POOL_USER"], env["POOL_PASSWORD"], "1.0", "test")
        self.shared = os.path.join(self.dir, "shared")
        return self

    def __exit__(self, *unused):
        subprocess.run([os.path.join(ROOT, "scripts", "pool"), "down", "--dir", self.dir], check=False)
        shutil.rmtree(self.dir, ignore_errors=True)

    def raw(self, name, *params):
        result = getattr(self.server, name)(*params)
        if result["Status"] != "Success":
            raise Failure(*result["ErrorDescription"])
        return result["Value"]

    def __call__(self, name, *params):
        return self.raw(name, self.session, *params)

    def failure(self, name, *params):
        try:
            value = self(name, *params)
        except Failure as e:
            return list(e.args)
        raise AssertionError("%s succeeded: %r" % (name, value))

    def default_sr(self):
        return self("pool.get_default_SR", self("pool.get_all")[0])

    def vdi(self, **fields):
        record = {"name_label": "d", "name_description": "", "SR": self.default_sr(), "virtual_size": str(4 * MIB),
                  "type": "user", "sharable": False, "read_only": False, "other_config": {}}
        return self("VDI.create", dict(record, **fields))

    def drive(self, vm, vdi):
        return self("VBD.create", {
            "VM": vm, "VDI": vdi, "userdevice": "autodetect", "bootable": False, "mode": "RW", "type": "Disk", "empty": False,
            "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}})

    def files(self):
        return {name for name in os.listdir(self.shared) if name.endswith((".raw", ".qcow2", ".iso"))}


def disks_are_files(p):
    before = p.files()
    disk = p.vdi(virtual_size=str(1024 * MIB))
    name = p("VDI.get_location", disk)
    path = os.path.join(p.shared, name)
    assert os.stat(path).st_size == 1024 * MIB
    assert os.stat(path).st_blocks * 512 < MIB, "the file is sparse"
    with open(path, "r+b") as f:
        f.write(b"drover")
    clone, copy = p("VDI.clone", disk, {}), p("VDI.copy", disk, p.default_sr())
    for other in clone, copy:
        with open(os.path.join(p.shared, p("VDI.get_location", other)), "rb") as f:
            assert f.read(6) == b"drover"
        assert p("VDI.get_virtual_size", other) == str(1024 * MIB)
    p("VDI.resize", disk, str(2048 * MIB))
    assert os.stat(path).st_size == 2048 * MIB
    assert p.failure("VDI.resize", disk, str(MIB)) == ["VDI_TOO_SMALL", disk, str(2048 * MIB)]
    for each in disk, clone, copy:
        p("VDI.destroy", each)
    assert p.files() == before
    assert p.failure("VDI.get_record", disk) == ["HANDLE_INVALID", "VDI", disk]


def scan_finds_files(p):
    sr = p.default_sr()
    with open(os.path.join(p.shared, "stranger.raw"), "wb") as f:
        f.truncate(3 * MIB)
    p("SR.scan", sr)
    [found] = p("VDI.get_by_name_label", "stranger.raw")
    assert p("VDI.get_virtual_size", found) == str(3 * MIB)
    os.remove(os.path.join(p.shared, "stranger.raw"))
    p("SR.scan", sr)
    assert p("VDI.get_missing", found) is True
    p("VDI.forget", found)
    assert int(p("SR.get_physical_size", sr)) > 0


def a_directory_that_is_not_mounted_is_refused(p):
    """Another path on the second host stands for a mount that is missing there."""
    top = os.path.join(p.dir, "mounts")
    missing, real, bare = (os.path.join(top, name) for name in ("missing", "real", "bare"))
    os.makedirs(top)
    host = p("pool.get_master", p("pool.get_all")[0])
    for kind in ("shared-file", "iso"):
        code, *details = p.failure("SR.create", host, {"location": missing}, "0", "x", "", kind, "", True, {})
        assert code == "SR_BACKEND_FAILURE" and missing in details[-1], details
    assert os.listdir(top) == []

    os.mkdir(real)
    sr = p("SR.create", host, {"location": real}, "0", "real", "", "shared-file", "", True, {})
    with open(os.path.join(real, ".drover-sr")) as f:
        assert f.read().strip() == p("SR.get_uuid", sr)
    other = [pbd for pbd in p("SR.get_PBDs", sr) if p("PBD.get_host", pbd) != host][0]
    second = p("PBD.get_host", other)
    assert p("PBD.get_currently_attached", other)
    p("PBD.unplug", other)
    p("PBD.destroy", other)
    os.mkdir(bare)
    pbd = p("PBD.create", {"host": second, "SR": sr, "device_config": {"location": bare}, "other_config": {}})
    code, *details = p.failure("PBD.plug", pbd)
    assert code == "SR_BACKEND_FAILURE" and "is it mounted?" in details[-1], details

    an_unmounted_sr_is_left_alone(p, sr, host, real)

    # Introduced by its uuid, as one without the file: that is made by the first plug, and found by the next.
    uuid = p("SR.get_uuid", sr)
    p("PBD.destroy", pbd)
    for pbd in p("SR.get_PBDs", sr):
        p("PBD.unplug", pbd)
    p("SR.forget", sr)
    os.remove(os.path.join(real, ".drover-sr"))
    sr = p("SR.introduce", uuid, "real", "", "shared-file", "", True, {})
    for where, directory in ((host, real), (second, real)):
        p("PBD.plug", p("PBD.create", {"host": where, "SR": sr, "device_config": {"location": directory}, "other_config": {}}))
    assert p("SR.get_sm_config", sr)["directory-marker"] == "true"
    for pbd in p("SR.get_PBDs", sr):
        p("PBD.unplug", pbd)
    p("SR.destroy", sr)
    assert os.listdir(real) == []


def an_unmounted_sr_is_left_alone(p, sr, host, directory):
    """What was mounted is away, the mount point is left: nothing may land in it, nor be taken for gone."""
    away = directory + ".away"

    def refused(*call):
        code, *details = p.failure(*call)
        assert code == "SR_BACKEND_FAILURE" and "is it mounted?" in details[-1], (call, code, details)

    disk, other = p.vdi(SR=sr), p.vdi()
    vms = {}
    for state in "halted", "suspended", "running":
        vms[state] = p("VM.create", dict(p("VM.get_record", p("VM.get_by_name_label", "vm1")[0]), name_label=state,
                                         suspend_SR=sr))
        p.drive(vms[state], p.vdi(SR=sr))
        if state != "halted":
            p("VM.start_on", vms[state], host, False, False)
    p("VM.suspend", vms["suspended"])
    vdis = set(p("SR.get_VDIs", sr))
    os.rename(directory, away)
    os.mkdir(directory)
    refused("VDI.create", dict(p("VDI.get_record", disk), SR=sr))
    refused("VDI.clone", disk, {})
    refused("VDI.snapshot", disk, {})
    refused("VDI.copy", disk, p.default_sr())
    refused("VDI.copy", other, sr)
    refused("VDI.resize", disk, str(64 * MIB))
    refused("VDI.destroy", disk)
    refused("SR.scan", sr)
    refused("VM.start_on", vms["halted"], host, False, False)
    refused("VM.resume_on", vms["suspended"], host, False, False)
    for call in "VM.clean_reboot", "VM.hard_reboot", "VM.suspend":
        refused(call, vms["running"])
        assert p("VM.get_power_state", vms["running"]) == "Running"
    refused("VM.snapshot", vms["running"], "s")
    spare = p.drive(vms["running"], p.vdi())
    p("VBD.plug", spare) # of another SR
    plugged = p.drive(vms["running"], disk)
    refused("VBD.plug", plugged)
    assert os.listdir(directory) == [], os.listdir(directory)
    assert set(p("SR.get_VDIs", sr)) == vdis, "nothing half made is left in the records"
    os.rmdir(directory)
    os.rename(away, directory)
    p("VBD.plug", plugged)
    p("VM.hard_reboot", vms["running"])
    p("VM.resume_on", vms["suspended"], host, False, False)
    p("VM.start_on", vms["halted"], host, False, False)
    for vm in vms.values():
        p("VM.hard_shutdown", vm)
        p("VM.destroy", vm)
    for vdi in [other, *p("SR.get_VDIs", sr)]:
        p("VDI.destroy", vdi)


def cds_change_in_a_running_vm(p):
    directory = os.path.join(p.dir, "isos")
    os.makedirs(directory)
    with open(os.path.join(directory, "tools.iso"), "wb") as f:
        f.truncate(MIB)
    host = p("pool.get_master", p("pool.get_all")[0])
    sr = p("SR.create", host, {"location": directory}, "0", "isos", "", "iso", "iso", True, {})
    [cd] = p("VDI.get_by_name_label", "tools.iso")
    assert p("VDI.get_read_only", cd) is True
    assert p.failure("VDI.destroy", cd) == ["SR_OPERATION_NOT_SUPPORTED", sr]

    [vm] = p("VM.get_by_name_label", "vm1")
    assert p("VM.get_power_state", vm) == "Running"
    drive = p("VBD.create", {"VM": vm, "VDI": NULL, "userdevice": "3", "bootable": False, "mode": "RO", "type": "CD",
                             "empty": True, "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}})
    p("VBD.plug", drive)
    p("VBD.insert", drive, cd)
    assert p("VBD.get_VDI", drive) == cd
    p("VBD.eject", drive)
    p("VBD.unplug", drive)
    p("VBD.destroy", drive)


def disks_are_plugged_into_a_running_vm(p):
    [vm] = p("VM.get_by_name_label", "vm1")
    disk = p.vdi()
    drive = p("VBD.create", {"VM": vm, "VDI": disk, "userdevice": "autodetect", "bootable": False, "mode": "RW",
                             "type": "Disk", "empty": False, "other_config": {}, "qos_algorithm_type": "",
                             "qos_algorithm_params": {}})
    p("VBD.plug", drive)
    assert p("VBD.get_currently_attached", drive) is True
    assert p.failure("VDI.destroy", disk) == ["VDI_IN_USE", disk, "destroy"]
    p("VBD.unplug", drive)
    p("VBD.destroy", drive)
    p("VDI.destroy", disk)


def suspend_images_are_disks(p):
    """A scan knows them, a clone gets its own, and they go when they are not needed."""
    [vm] = p("VM.get_by_name_label", "vm1")
    before, images = p.files(), lambda: {n for n in os.listdir(p.shared) if n.endswith(".suspend")}
    p("VM.suspend", vm)
    image = p("VM.get_suspend_VDI", vm)
    assert images() == {p("VDI.get_location", image)}
    p("SR.scan", p.default_sr())
    assert p("VDI.get_missing", image) is False and int(p("VDI.get_virtual_size", image)) > 0
    clone = p("VM.clone", vm, "sleeper")
    assert p("VM.get_power_state", clone) == "Suspended"
    assert p("VM.get_suspend_VDI", clone) not in (image, NULL)
    disk = p("VBD.get_VDI", p("VM.get_VBDs", clone)[0])
    p("VM.destroy", clone)
    p("VDI.destroy", disk)
    p("VM.resume", vm, False, False)
    assert images() == set() and p.files() == before, (images(), p.files() ^ before)


def failed_clone_leaves_no_file(p):
    """The disk's file is gone, so it cannot be cloned."""
    template = p("VM.get_by_name_label", "Debian Etch 4.0")[0]
    vm = p("VM.clone", template, "broken")
    p("VM.provision", vm)
    disk = p("VBD.get_VDI", p("VM.get_VBDs", vm)[0])
    os.remove(os.path.join(p.shared, p("VDI.get_location", disk)))
    before, vdis = p.files(), p("VDI.get_all")
    assert p.failure("VM.clone", vm, "twin")[0] in ("VDI_LOCATION_MISSING", "SR_BACKEND_FAILURE")
    assert p.files() == before and sorted(p("VDI.get_all")) == sorted(vdis)
    assert p("VM.get_by_name_label", "twin") == []
    p("VM.destroy", vm)
    p("VDI.destroy", disk)


def hosts_have_their_records(p):
    for host, record in p("host.get_all_records").items():
        assert record["enabled"] and p("host_metrics.get_live", record["metrics"])
        assert record["software_version"]["product_version"] == "8.3.0"
        assert record["host_CPUs"] and len(record["PIFs"]) == 1 and record["PBDs"]
        dom0 = p("VM.get_record", record["control_domain"])
        assert dom0["is_control_domain"] and dom0["domid"] == "0" and dom0["power_state"] == "Running"
        assert dom0["resident_on"] == host
        assert int(p("host_metrics.get_memory_total", record["metrics"])) > 0


def main():
    failed = []
    with Pool() as pool:
        for test in (hosts_have_their_records, a_directory_that_is_not_mounted_is_refused, disks_are_files,
                     scan_finds_files, cds_change_in_a_running_vm,
                     disks_are_plugged_into_a_running_vm, suspend_images_are_disks,
                     failed_clone_leaves_no_file):
            if sys.argv[1:] and test.__name__ not in sys.argv[1:]:
                continue
            try:
                test(pool)
                print("ok   %s" % test.__name__, flush=True)
            except Exception:
                import traceback
                traceback.print_exc()
                failed.append(test.__name__)
    sys.exit(1 if failed else 0)


main()
