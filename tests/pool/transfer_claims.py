#!/usr/bin/env python3
"""What others may not do while a transfer is at work: an import's VMs and disks are nobody's before they are whole, what an export
reads stays as it is, a disk that is overwritten is not given to a guest, and an SR stays attached where its disks are used.

  transfer_claims.py [CASE ...]"""
import os
import sys

from claimslib import BIG, Download, Upload, big, drive, outcome, refused, waits
from poollib import check
from transferlib import MIB, Made, default_sr, destroy, disk_refs, local_sr, members, noise, ova, pack, run_cases


# ---- imports ----

def nobody_else_has(t, vdi, other, what):
    """A disk in the making: of no other VM, and for no other operation."""
    pool, sr = t.pool, default_sr(t.pool)
    hidden = ("VDI_NOT_MANAGED",)
    check(pool("VDI.get_allowed_operations", vdi) == [], what + ": nothing is allowed", pool("VDI.get_allowed_operations", vdi))
    vbd = drive(pool, other.vm, vdi)
    got = outcome(pool, "VM.start", other.vm, False, False)
    check(got == ["VDI_NOT_MANAGED", vbd], what + ": no other VM starts with it", got)
    check(pool("VM.get_power_state", other.vm) == "Halted", what + ": and it does not")
    task = t.task()
    t.get("/export", ref=other.vm, task_id=task)
    got = t.ended(task, "failure", what + ": an export of its VM")["error_info"]
    check(got == ["VDI_NOT_MANAGED", vdi], what + ": nor is it in an export", got)
    pool("VBD.destroy", vbd)
    pool("VM.start", other.vm, False, False)
    vbd = drive(pool, other.vm, vdi)
    refused(pool, hidden, what, "VBD.plug", vbd)
    pool("VBD.destroy", vbd)
    pool("VM.hard_shutdown", other.vm)
    for method, *arguments in (("VDI.resize", str(2 * BIG)), ("VDI.clone", {}), ("VDI.snapshot", {}), ("VDI.copy", sr), ("VDI.destroy",),
                               ("VDI.forget",), ("VDI.update",)):
        refused(pool, hidden, what, method, vdi, *arguments)
    for answer in t.put("/import_raw_vdi", b"x", vdi=vdi), t.get("/export_raw_vdi", vdi=vdi):
        check(answer.status >= 400, what + ": it is no other transfer's", answer)


def disks_in_the_making_are_nobodys(t):
    """Of an import of a VM, and of a new disk: whatever others try, the import is whole, or leaves nothing."""
    pool, made, other = t.pool, big(t, "whole"), Made(t, "other", [(default_sr(t.pool), "raw", MIB, {})])
    want, xva, sr = t.contents(made.disks[0]), t.export(made.vm), default_sr(t.pool)
    for is_vm in True, False:
        what = "an import" if is_vm else "a raw import"
        begin = (lambda: Upload(t, "/import", xva, sr_id=sr)) if is_vm else (lambda: Upload(t, "/import_raw_vdi", want, sr_id=sr))
        upload = begin()
        nobody_else_has(t, upload.disks[0], other, what)
        for pbd in pool("SR.get_PBDs", sr):
            refused(pool, ("VDI_IN_USE",), what, "PBD.unplug", pbd)
        [ref] = upload.finish(what)
        disk = disk_refs(pool, ref)[0] if is_vm else ref
        check(t.contents(disk) == want, what + " is whole for all that")
        check(pool("VDI.get_virtual_size", disk) == str(BIG), "... and of its size")
        if is_vm:
            destroy(pool, ref)
        else:
            pool("VDI.destroy", disk)
        upload = begin()
        drive(pool, other.vm, upload.disks[0])
        upload.leave(what + " whose client goes")
    destroy(pool, made.vm)
    destroy(pool, other.vm)


def a_reset_ends_the_import(t):
    """A VM in the making is claimed: who resets or kills it makes the import stop, and no guest is left behind without its VM."""
    pool, made = t.pool, big(t, "reset")
    xva = t.export(made.vm)
    upload = Upload(t, "/import", xva)
    waits(pool, "an import", "VM.start", upload.vms[0], False, False)
    for method in "VM.destroy", "VM.hard_shutdown":
        if method == "VM.destroy":
            waits(pool, "an import", method, upload.vms[0])
        else:
            refused(pool, ("VM_BAD_POWER_STATE",), "an import", method, upload.vms[0])
    got = outcome(pool, "VM.power_state_reset", upload.vms[0])
    check(got == ["Success"], "a reset is done", got)
    check(upload.vms[0] not in pool("VM.get_all"), "... and the VM is gone")
    record = pool.wait_task(upload.task)
    check(record["status"] in ("failure", "cancelled"), "the import has ended", record["status"])
    pool("task.destroy", upload.task)
    upload.connection.reset()
    upload.before.check_same("an import that was reset")

    pool("VM.start", made.vm, False, False)
    pool("VM.suspend", made.vm)
    upload = Upload(t, "/import", t.export(made.vm, preserve_power_state="true"))
    check(pool("VM.get_power_state", upload.vms[0]) == "Suspended", "the next one is suspended")
    waits(pool, "an import", "VM.resume", upload.vms[0], False, False)
    got = outcome(pool, "VM.hard_shutdown", upload.vms[0])
    check(got[0] == "HANDLE_INVALID", "a kill ends it, and finds no VM then", got)
    record = pool.wait_task(upload.task)
    check(record["status"] in ("failure", "cancelled"), "the import has ended", record["status"])
    pool("task.destroy", upload.task)
    upload.connection.reset()
    upload.before.check_same("an import that was killed")
    destroy(pool, made.vm)


# ---- exports ----

def what_is_exported_stays(t):
    """Neither a VM's disks nor a single one change or go while they are read, nor does their SR."""
    pool, sr = t.pool, local_sr(t.pool, 2)
    made = big(t, "read", sr)
    [disk], [pbd] = made.disks, pool("SR.get_PBDs", sr)
    other = Made(t, "other", [(sr, "raw", MIB, {})])
    vbd = drive(pool, other.vm, disk)
    for path, query in (("/export", {"ref": made.vm}), ("/export_raw_vdi", {"vdi": disk})):
        download = Download(t, path, 2, **query)
        for method, *arguments in ("VDI.destroy",), ("VDI.resize", str(2 * BIG)), ("VDI.forget",), ("VDI.update",):
            waits(pool, path, method, disk, *arguments)
        waits(pool, path, "VM.start", other.vm, False, False)
        if path == "/export":
            waits(pool, path, "VM.destroy", made.vm)
        allowed = set(pool("VDI.get_allowed_operations", disk))
        check("copy" in allowed and not allowed & {"destroy", "resize", "forget", "update"}, path + ": nor is it allowed", allowed)
        refused(pool, ("VDI_IN_USE",), path, "PBD.unplug", pbd)
        pool("VDI.destroy", pool("VDI.copy", disk, sr))
        download.finish(path)
    pool("VM.start", other.vm, False, False)
    pool("VM.hard_shutdown", other.vm)
    pool("VBD.destroy", vbd)
    pool("VDI.resize", disk, str(2 * BIG))
    sizes = [each["snapshot"]["virtual_size"] for each in ova(t.export(made.vm, at=2))["objects"] if each["class"] == "VDI"]
    check(sizes == [str(2 * BIG)], "afterwards it may, and is told as it is then", sizes)
    destroy(pool, made.vm)
    destroy(pool, other.vm)


def no_guest_writes_to_what_is_exported(t):
    """A halted VM's disk may be another one's, whose guest has it."""
    pool, sr = t.pool, default_sr(t.pool)
    other = Made(t, "writes", [(sr, "raw", MIB, {})])
    pool("VM.start", other.vm, False, False)
    for image_format in "raw", "qcow2":
        made = Made(t, "is read", [(sr, image_format, 4 * MIB, {0: noise(MIB, 1)})])
        vbd = drive(pool, other.vm, made.disks[0])
        pool("VBD.plug", vbd)
        task = t.task()
        check(t.get("/export", ref=made.vm, task_id=task).status >= 400, image_format + ": no export while a guest writes")
        record = t.ended(task, "failure", "an export of what a guest has")
        check(record["error_info"] == ["VDI_IN_USE", made.disks[0], "copy"], "... and it says so", record["error_info"])
        pool("VBD.unplug", vbd)
        t.export(made.vm, "an export when the guest has let go")
        pool("VBD.destroy", vbd)
        destroy(pool, made.vm)
    destroy(pool, other.vm)


def what_a_difference_is_to_stays(t):
    """The base of a difference is read as well."""
    pool, made = t.pool, big(t, "differs")
    base = Made(t, "base", [(default_sr(pool), "raw", BIG, {})])
    for image_format in "vhd", "qcow2":
        download = Download(t, "/export_raw_vdi", vdi=made.disks[0], base=base.disks[0], format=image_format)
        for vdi, what in (made.disks[0], "a difference in " + image_format), (base.disks[0], "the base of a difference in " + image_format):
            for method, *arguments in ("VDI.destroy",), ("VDI.resize", str(2 * BIG)):
                waits(pool, what, method, vdi, *arguments)
        download.finish("a difference in " + image_format)
    destroy(pool, base.vm)
    destroy(pool, made.vm)


def a_difference_needs_two_disks(t):
    """From itself a disk does not differ: the request is refused, and the master goes on."""
    pool, made = t.pool, Made(t, "one", [(default_sr(t.pool), "raw", MIB, {})])
    for image_format in "vhd", "qcow2":
        task = t.task()
        answer = t.get("/export_raw_vdi", vdi=made.disks[0], base=made.disks[0], format=image_format, task_id=task)
        check(answer.status == 400, image_format + " from itself is refused", answer)
        record = t.ended(task, "failure", "a difference of one disk")
        check(record["error_info"] == ["INVALID_VALUE", "base", made.disks[0]], "... by name", record["error_info"])
    destroy(pool, made.vm)


# ---- others ----

def an_sr_stays_while_its_disk_is_written(t):
    """A host's part of an SR is not let go of under a raw import."""
    pool, sr = t.pool, local_sr(t.pool, 2)
    [pbd] = pool("SR.get_PBDs", sr)
    made = big(t, "written", sr)
    upload = Upload(t, "/import_raw_vdi", noise(BIG, 2), 2, vdi=made.disks[0])
    refused(pool, ("VDI_IN_USE",), "a raw import", "PBD.unplug", pbd)
    refused(pool, ("OPERATION_NOT_ALLOWED",), "a raw import", "PBD.destroy", pbd)
    upload.finish("a raw import into a disk that stands")
    check(t.contents(made.disks[0], 2) == noise(BIG, 2), "it is whole")
    destroy(pool, made.vm)
    pool("PBD.unplug", pbd)
    pool("PBD.plug", pbd)


def disks_of_other_formats_become_raw(t):
    """What the archive says of the form its disk once had is no order."""
    pool, made = t.pool, Made(t, "vhd", [(default_sr(t.pool), "raw", MIB, {0: noise(9000, 3)})])
    pool("VDI.add_to_sm_config", made.disks[0], "vhd-parent", "something")
    xva = t.export(made.vm)
    entries = [(name, data.replace(b"<value>raw</value>", b"<value>vhd</value>") if name == "ova.xml" else data)
               for name, data in members(xva)]
    check(entries[0][1] != members(xva)[0][1], "its format is told in the archive")
    [vm] = t.import_(pack(entries), "a disk that was a VHD")
    [disk] = disk_refs(pool, vm)
    check(pool("VDI.get_sm_config", disk)["image-format"] == "raw", "it is raw", pool("VDI.get_sm_config", disk))
    check(t.contents(disk) == t.contents(made.disks[0]), "and holds what it held")
    destroy(pool, vm)
    destroy(pool, made.vm)


def errors_name_what_is_wrong(t):
    """SRs whose disks have no contents; a suspend image that is none."""
    pool = t.pool
    sr = pool("SR.create", pool.hosts()[0], {}, "0", "dummy", "", "dummy", "user", False, {})
    disk = pool("VDI.create", {"name_label": "d", "name_description": "", "SR": sr, "virtual_size": str(MIB), "type": "user",
                               "sharable": False, "read_only": False, "other_config": {}, "sm_config": {}})
    made = Made(t, "contents", [(default_sr(pool), "raw", MIB, {0: b"x"})])
    task = t.task()
    t.get("/export_raw_vdi", vdi=disk, task_id=task)
    record = t.ended(task, "failure", "an export of nothing")
    check(record["error_info"] == ["SR_OPERATION_NOT_SUPPORTED", sr], "... says which SR", record["error_info"])
    record = t.refused(t.export(made.vm), "SR_OPERATION_NOT_SUPPORTED", "an import into a dummy SR", sr_id=sr)
    check(record["error_info"][1:] == [sr], "... says which", record["error_info"])
    pool("VDI.destroy", disk)
    pool("PBD.unplug", pool("SR.get_PBDs", sr)[0])
    pool("SR.forget", sr)

    pool("VM.start", made.vm, False, False)
    pool("VM.suspend", made.vm)
    image = pool("VM.get_suspend_VDI", made.vm)
    path = os.path.join(pool.dir, "shared", pool("VDI.get_location", image))
    with open(path, "r+b") as f:
        f.write(b"nonsense" * 100)
    got = outcome(pool, "VM.resume", made.vm, False, False)
    check(got[0] == "SR_BACKEND_FAILURE" and got[1].isdigit() and len(got) == 4, "a bad image: a number comes first", got)
    destroy(pool, made.vm)


def main():
    cases = [disks_in_the_making_are_nobodys, a_reset_ends_the_import, what_is_exported_stays, no_guest_writes_to_what_is_exported,
             what_a_difference_is_to_stays, a_difference_needs_two_disks, an_sr_stays_while_its_disk_is_written,
             disks_of_other_formats_become_raw, errors_name_what_is_wrong]
    return run_cases(cases)


if __name__ == "__main__":
    sys.exit(main())
