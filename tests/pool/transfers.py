#!/usr/bin/env python3
"""Exports and imports on a pool of three hosts, by plain sockets: who may, at which host, in which form; where requests are sent on
to; what comes back is what went out; what is interrupted goes on. What fails: transfers_fail.py.

  transfers.py [CASE ...]"""
import gzip
import os
import subprocess
import sys
import threading
import time
import urllib.request

from poollib import NULL, check, wait
from transferlib import (MIB, Connection, Inventory, Made, basic, configure, default_sr, destroy, disk_refs, likeness, local_sr,
                         members, noise, ova, pack, refs, run_cases, small, unchunk, used)

PATHS = (("GET", "/export"), ("GET", "/export_metadata"), ("PUT", "/import"), ("PUT", "/import_metadata"),
         ("GET", "/export_raw_vdi"), ("PUT", "/import_raw_vdi"))


# ---- who asks, and for what ----

def credentials(t):
    """Each handler, at the master and at another host, knows all kinds of credentials, and nobody without."""
    pool, made = t.pool, small(t, "credentials")
    user, password = pool.env["POOL_USER"], pool.env["POOL_PASSWORD"]
    with open(os.path.join(pool.dir, "secret")) as f:
        secret = f.read().strip()
    session = pool.raw("session.login_with_password", user, password)
    good = (({"session_id": session}, {}), ({}, {"Cookie": "session_id=" + session}), ({}, basic(user, password)),
            ({}, {"Cookie": "pool_secret=" + secret}))
    bad = (({}, {}), ({"session_id": "OpaqueRef:nobody"}, {}), ({"session_id": NULL}, {}), ({}, {"Cookie": "session_id=nonsense"}),
           ({}, basic(user, "wrong")), ({}, {"Cookie": "pool_secret=wrong"}), ({}, {"Authorization": "Bearer what"}))
    before = Inventory(pool)
    for method, path in PATHS:
        what = {"vdi": made.disks[0]} if path.endswith("raw_vdi") else {"uuid": made.uuid} if method == "GET" else {}
        empty = {"Content-Length": "0"} if method == "PUT" else {}
        for at in (1, 2) if "metadata" not in path else (1,):
            for slash in "", "/":
                for query, headers in good:
                    with Connection(t.url(at), method, path + slash, dict(what, **query), dict(empty, **headers)) as c:
                        answer = c.answer()
                    check(answer.status == 200 and answer.is_whole, "%s %s at host %d with %r %r"
                          % (method, path + slash, at, list(query), headers), answer)
            for query, headers in bad:
                with Connection(t.url(at), method, path, dict(what, **query), dict(empty, **headers)) as c:
                    answer = c.answer()
                check(answer.status == 401, "%s %s at host %d with %r %r is refused" % (method, path, at, query, headers), answer)
                check(answer.headers.get("www-authenticate") == 'Basic realm="%s"' % path[1:], "... naming what it is for", answer)
    before.check_same("requests for nothing")
    for query in {"p%d" % i: "" for i in range(200)}, {"name": "\x01"}:
        for at in 1, 2:
            answer = t.get("/export", at, uuid=made.uuid, **query)
            check(answer.status == 400, "too many parameters, or one that is no text, at host %d" % at, answer)
    for method, path in PATHS:
        if "metadata" in path:
            answer = t.get(path, 2, uuid=made.uuid) if method == "GET" else t.put(path, t.get("/export_metadata", uuid=made.uuid).body, 2,
                                                                                 dry_run="true")
            check(answer.status == 200 and answer.is_whole, path + " of a host that is not the master", answer)

    for at in 1, 2: # a task hears of it
        task = t.task()
        with Connection(t.url(at), "GET", "/export", {"uuid": made.uuid, "task_id": task, "session_id": "OpaqueRef:no"}) as c:
            answer = c.answer()
        check(answer.status == 401, "who is nobody gets nothing", answer)
        check(answer.headers.get("task-id") == task, "... and is told the task that failed", answer.headers)
        record = t.ended(task, "failure", "an export by nobody")
        check(record["error_info"][0] == "SESSION_AUTHENTICATION_FAILED", "... and says why", record["error_info"])
    pool.raw("session.logout", session)
    destroy(pool, made.vm)


def names_and_mistakes(t):
    """uuid or ref, under either name; what is not there is named."""
    pool, made = t.pool, small(t, "names")
    for query in {"uuid": made.uuid}, {"ref": made.vm}, {"uuid": made.uuid, "use_compression": "false"}, \
            {"uuid": made.uuid, "all": "false", "export_snapshots": "true", "include_vhd_parents": "false", "excluded_device_types": "",
             "unknown": "x", "subtask_of": t.task()}:
        answer = t.get("/export", **query)
        check(answer.status == 200 and answer.is_whole, "export by %r" % query, answer)
        check(answer.headers.get("content-disposition") == 'attachment; filename="export.xva"', "its name", answer.headers)
        check(answer.headers.get("task-id", "").startswith("OpaqueRef:"), "a task of its own is named", answer.headers)
    vdi_uuid = pool("VDI.get_uuid", made.disks[0])
    for vdi in vdi_uuid, made.disks[0]:
        check(t.get("/export_raw_vdi", vdi=vdi).status == 200, "a disk by its " + ("ref" if vdi != vdi_uuid else "uuid"))
    wrong = (("GET", "/export", {"uuid": "00000000-0000-0000-0000-000000000000"}, 404, "UUID_INVALID"),
             ("GET", "/export", {"ref": "OpaqueRef:none"}, 404, "HANDLE_INVALID"), ("GET", "/export", {}, 400, "INVALID_VALUE"),
             ("GET", "/export", {"ref": made.vm, "use_compression": "lzma"}, 400, "INVALID_VALUE"),
             ("GET", "/export_raw_vdi", {"vdi": made.uuid}, 404, "UUID_INVALID"), ("GET", "/export_raw_vdi", {}, 500, "VDI_MISSING"),
             ("GET", "/export_raw_vdi", {"vdi": vdi_uuid, "format": "vmdk"}, 404, "INTERNAL_ERROR"),
             ("GET", "/export_raw_vdi", {"vdi": vdi_uuid, "base": vdi_uuid}, 400, "INTERNAL_ERROR"),
             ("GET", "/export", {"ref": made.vm, "preserve_power_state": "yes"}, 400, "INVALID_VALUE"),
             ("GET", "/export", {"ref": made.vm, "all": "true"}, 400, "VALUE_NOT_SUPPORTED"),
             ("GET", "/export", {"ref": made.vm, "excluded_device_types": "vif"}, 400, "VALUE_NOT_SUPPORTED"),
             ("GET", "/export_raw_vdi", {"vdi": vdi_uuid, "use_compression": "gzip"}, 400, "VALUE_NOT_SUPPORTED"),
             ("PUT", "/import", {"restore": "yes"}, 400, "INVALID_VALUE"), ("PUT", "/import", {"force": "maybe"}, 400, "INVALID_VALUE"),
             ("PUT", "/import", {"restore": ""}, 400, "INVALID_VALUE"), ("PUT", "/import", {"dry_run": "true"}, 400, "VALUE_NOT_SUPPORTED"),
             ("PUT", "/import", {"live": "true"}, 400, "VALUE_NOT_SUPPORTED"),
             ("PUT", "/import", {"check_cpu": "1"}, 400, "VALUE_NOT_SUPPORTED"),
             ("PUT", "/import", {"vdi:" + vdi_uuid: vdi_uuid}, 400, "VALUE_NOT_SUPPORTED"),
             ("PUT", "/import_raw_vdi", {"vdi": vdi_uuid, "dry_run": "true"}, 400, "VALUE_NOT_SUPPORTED"),
             ("PUT", "/import", {"sr_id": "OpaqueRef:none"}, 404, "HANDLE_INVALID"),
             ("PUT", "/import", {"sr_uuid": made.uuid}, 404, "UUID_INVALID"),
             ("PUT", "/import_raw_vdi", {}, 400, "VDI_MISSING"), ("PUT", "/import_raw_vdi", {"vdi": made.uuid}, 404, "UUID_INVALID"),
             ("PUT", "/import_raw_vdi", {"vdi": vdi_uuid, "format": "vmdk"}, 404, "INTERNAL_ERROR"),
             ("PUT", "/import_raw_vdi", {"sr_id": default_sr(pool), "format": "vhd"}, 400, "VDI_MISSING"))
    before = Inventory(pool)
    for method, path, query, status, code in wrong:
        for at in 1, 3:
            task = t.task()
            headers = {"Content-Length": "4"} if method == "PUT" else {}
            with t.open(method, path, at, headers=headers, task_id=task, **query) as c:
                c.send(b"junk" if method == "PUT" else b"")
                answer = c.answer()
            check(answer.status == status, "%s with %r at host %d is refused with %d" % (path, query, at, status), answer)
            check(answer.headers.get("task-id") == task, "... naming the task", answer.headers)
            record = t.ended(task, "failure", "%s with %r at host %d" % (path, query, at))
            check(record["error_info"][:1] == [code], "... with %s" % code, record["error_info"])
            if code == "VDI_MISSING":
                check("vdi=" in record["error_info"][2], "... saying what is needed", record["error_info"])
            if code == "VALUE_NOT_SUPPORTED":
                check(record["error_info"][1] in query, "... by its name", record["error_info"])
            if (path, query) == ("/export", {}):
                check(record["error_info"][1] == "ref or uuid", "... and names both", record["error_info"])
    for path, headers, query in (("/export_raw_vdi", {}, {"vdi": vdi_uuid, "use_compression": "false"}), # nothing is asked for
                                 ("/export", {"Cookie": "dry_run=true; theme=dark"}, {"uuid": made.uuid, "preserve_power_state": "1"})):
        answer = t.get(path, 1, headers, **query)
        check(answer.status == 200 and answer.is_whole, path + " with %r" % query, answer)
    for at in 1, 3: # what is no reference becomes no header
        answer = t.get("/export", at, ref="OpaqueRef:none", task_id="x\r\nset-cookie: a=b")
        check(answer.status in (400, 404) and not set(answer.headers) & {"task-id", "set-cookie"}, "a task that is none", answer.headers)
    before.check_same("mistakes")
    destroy(pool, made.vm)


def forms_of_uploads(t):
    """HTTP/1.0 that waits for 200, chunks, no length, 2^50, nothing."""
    pool, made = t.pool, small(t, "uploads")
    xva = t.export(made.vm)
    before = Inventory(pool)

    def imported(task, what):
        record = t.ended(task, "success", what)
        vms = refs(record["result"])
        check(len(vms) == 1 and pool("VM.get_name_label", vms[0]) == "uploads", what + ": there it is", record["result"])
        check(t.contents(disk_refs(pool, vms[0])[0]) == t.contents(made.disks[0]), what + ": its disk is the same")
        destroy(pool, vms[0])
        before.check_same(what)

    for at in 1, 2:
        where = " at host %d" % at
        task = t.task()
        with t.open("PUT", "/import", at, "1.0", task_id=task) as c:
            status, told = c.head() # nothing was sent yet
            check(status == 200, "HTTP/1.0 is told 200 before it sends" + where, status)
            check(told.get("task-id") == task, "... and its task" + where, told)
            c.send(xva)
            c.end()
            check(c.read_some() == b"", "... and the end of the answer is an end")
        imported(task, "HTTP/1.0" + where)

        task = t.task()
        with t.open("PUT", "/import", at, "1.0", task_id=task) as c:
            c.head()
            c.send(xva[:len(xva) // 2])
            c.end()
            c.read_some()
        record = t.ended(task, "failure", "HTTP/1.0, cut" + where)
        check(record["error_info"] == ["IMPORT_ERROR_PREMATURE_EOF"], "... and it says so", record["error_info"])
        before.check_same("HTTP/1.0, cut" + where)

        task = t.task()
        with t.open("PUT", "/import", at, headers={"Transfer-Encoding": "chunked"}, task_id=task) as c:
            for begin in range(0, len(xva), 100000):
                c.send_chunk(xva[begin:begin + 100000])
            c.send(b"0\r\n\r\n")
            answer = c.answer()
            check(answer.status == 200 and answer.headers.get("task-id") == task, "chunks are answered, naming the task" + where, answer)
        imported(task, "in chunks" + where)

        task = t.task()
        with t.open("PUT", "/import", at, headers={"Content-Length": str(1 << 50)}, task_id=task) as c:
            check(c.head()[0] == 200, "2^50 bytes: 200 is said before" + where)
            c.send(xva)
            c.end()
            check(c.read_some() == b"", "2^50 bytes that end early are answered" + where)
        imported(task, "2^50 bytes that end early" + where)

        task = t.task()
        with t.open("PUT", "/import", at, headers={"Content-Length": str(len(xva)), "Expect": "100-continue"}, task_id=task) as c:
            c.send(xva)
            check(c.answer().status == 200, "with Expect" + where)
        imported(task, "with Expect" + where)

        for path in "/import", "/import_raw_vdi":
            query = {"vdi": made.disks[0]} if path.endswith("vdi") else {}
            tasks = set(pool("task.get_all"))
            with t.open("PUT", path, at, headers={"Content-Length": "0"}, **query) as c:
                answer = c.answer()
            check(answer.status == 200, "an upload of nothing without a task" + where, answer)
            check(set(pool("task.get_all")) - tasks == set(), "... makes no task", set(pool("task.get_all")) - tasks)
        before.check_same("uploads of nothing" + where)
    destroy(pool, made.vm)


# ---- what is exported and imported ----

def options_of_vms(t):
    """restore, sr_id, compression; templates, snapshots, memory."""
    pool, made = t.pool, small(t, "options", formats=("raw", "qcow2"))
    macs = [pool("VIF.get_MAC", vif) for vif in pool("VM.get_VIFs", made.vm)]
    plain = t.export(made.vm)

    for compression, magic in ("gzip", b"\x1f\x8b"), ("true", b"\x1f\x8b"), ("zstd", b"\x28\xb5\x2f\xfd"):
        packed = t.export(made.vm, use_compression=compression)
        check(packed.startswith(magic) and len(packed) < len(plain) / 10, "compression " + compression, (packed[:4], len(packed)))
        if compression == "gzip":
            check(gzip.decompress(packed) == plain, "unpacked it is the plain one")
        [vm] = t.import_(packed, "compressed by " + compression)
        check(likeness(t.export(vm), False) == likeness(plain, False), "compression %s: the same VM" % compression)
        destroy(pool, vm)

    record = t.refused(plain, "DUPLICATE_VM", "restored beside itself", restore="true")
    check(record["error_info"][1] == made.vm, "... naming it", record["error_info"])

    [vm] = t.import_(plain, sr_id=local_sr(pool, 1))
    check({pool("VDI.get_SR", d) for d in disk_refs(pool, vm)} == {local_sr(pool, 1)}, "sr_id says where disks go")
    check(pool("VM.get_uuid", vm) != made.uuid, "without restore it has a uuid of its own")
    check([pool("VIF.get_MAC", vif) for vif in pool("VM.get_VIFs", vm)] != macs, "... and MACs")
    check("import_task" in pool("VM.get_other_config", vm), "... and says which task brought it")
    destroy(pool, vm)
    [vm] = t.import_(plain, sr_uuid=pool("SR.get_uuid", local_sr(pool, 2)))
    check({pool("VDI.get_SR", d) for d in disk_refs(pool, vm)} == {local_sr(pool, 2)}, "sr_uuid too, at another host")
    destroy(pool, vm)

    snapshot = pool("VM.snapshot", made.vm, "then", [])
    template = pool("VM.clone", made.vm, "template")
    pool("VM.set_is_a_template", template, True)
    for vm, what in (snapshot, "a snapshot"), (template, "a template"):
        xva = t.export(vm, what)
        [brought] = t.import_(xva, what)
        check(pool("VM.get_is_a_template", brought) == pool("VM.get_is_a_template", vm), what + " stays one")
        check([t.contents(d) for d in disk_refs(pool, brought)] == [t.contents(d) for d in disk_refs(pool, vm)], what + ": disks")
        destroy(pool, brought)
    destroy(pool, template)

    pool("VM.start", made.vm, False, False)
    task = t.task()
    t.get("/export", ref=made.vm, task_id=task)
    record = t.ended(task, "failure", "export of a VM that runs")
    check(record["error_info"][0] == "VM_BAD_POWER_STATE", "... and says why", record["error_info"])
    pool("VM.suspend", made.vm)
    xva = t.export(made.vm, "a suspended VM", preserve_power_state="true")
    [brought] = t.import_(xva, "a suspended VM")
    check(pool("VM.get_power_state", brought) == "Suspended", "it is suspended still", pool("VM.get_power_state", brought))
    pool("VM.resume", brought, False, False)
    check(pool("VM.get_power_state", brought) == "Running", "and wakes up")
    destroy(pool, brought)
    [brought] = t.import_(t.export(made.vm, "a suspended VM as halted"))
    check(pool("VM.get_power_state", brought) == "Halted", "without preserve_power_state it is halted")
    destroy(pool, brought)
    destroy(pool, made.vm)


def out_in_and_out_again(t):
    """The same archive, but for what belongs to one VM only; holes stay holes."""
    pool, sr = t.pool, default_sr(t.pool)
    big = 1024 * MIB
    made = Made(t, "trip", [(sr, "raw", big, {0: noise(5000, 1), 700 * MIB + 12345: noise(2 * MIB, 2), big - 512: noise(512, 3)}),
                            (sr, "qcow2", 3 * MIB + 512, {0: noise(3 * MIB + 512, 4)}), (sr, "qcow2", big, {500 * MIB: noise(100, 5)}),
                            (sr, "raw", 5 * MIB, {})])
    pool("VM.set_name_description", made.vm, "<&> \u00fc \U0001f40e ]]> \" '")
    pool("VM.set_other_config", made.vm, dict(pool("VM.get_other_config", made.vm), **{"a key": "with <text>\n"}))
    pool("VM.set_platform", made.vm, {"acpi": "true", "device_id": "0002"})
    drive = pool("VBD.create", {"VM": made.vm, "VDI": NULL, "userdevice": "7", "bootable": False, "mode": "RO", "type": "CD",
                                "empty": True, "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}})
    first = t.export(made.vm)
    check(pool("VBD.get_empty", drive), "a CD drive goes along")
    check(len(first) < 16 * MIB, "holes are not sent", len(first))
    check(t.export(made.vm) == first, "the same VM gives the same bytes")
    names = [name for name, _ in members(first)]
    check(names[0] == "ova.xml" and all(b == a + ".xxhash" for a, b in zip(names[1::2], names[2::2])), "members and checksums", names)

    [twin] = t.import_(first)
    second = t.export(twin)
    check(likeness(second, False) == likeness(first, False), "imported and exported again it is the same", difference(first, second))
    for old, new in zip(made.disks, disk_refs(pool, twin)):
        check(pool("VDI.get_virtual_size", new) == pool("VDI.get_virtual_size", old), "each disk has its size")
    check(used(pool, disk_refs(pool, twin)[0]) < 8 * MIB, "holes are holes again", used(pool, disk_refs(pool, twin)[0]))
    check(used(pool, disk_refs(pool, twin)[2]) < 8 * MIB, "... in qcow2 too", used(pool, disk_refs(pool, twin)[2]))
    check(int(pool("VDI.get_physical_utilisation", disk_refs(pool, twin)[0])) < 8 * MIB, "... and the records say so")
    destroy(pool, twin)

    uuid = made.uuid
    destroy(pool, made.vm)
    [back] = t.import_(first, restore="true")
    check(pool("VM.get_uuid", back) == uuid, "restored it is who it was")
    third = t.export(back)
    check(likeness(third, True) == likeness(first, True), "restored and exported again it is the same, with MACs",
          difference(first, third))
    pool("VM.start", back, False, False)
    pool.check_exactly_once(back, "restored")
    destroy(pool, back)


def difference(one, other):
    """For people: which members of which objects differ."""
    return [(a["class"], k, a["snapshot"][k], b["snapshot"].get(k)) for a, b in zip(ova(one)["objects"], ova(other)["objects"])
            for k in a["snapshot"] if a["snapshot"][k] != b["snapshot"].get(k)]


def appliances_of_old(t):
    """The form before the present one, as a tar stream."""
    content = noise(300000, 6) + bytes(MIB) + noise(100, 7)
    content += bytes(4 * MIB - len(content))
    text = """<appliance version="0.1"><vm name="vm"><label>old one</label><shortdesc> from long ago </shortdesc>
<config mem_set="268435456" vcpus="2"/><hacks is_hvm="false" kernel_boot_cmdline="root=/dev/xvda1 ro"/>
<vbd device="xvda" function="root" mode="w" vdi="vdi_xvda"/></vm>
<vm name="vm"><label>diskless</label><shortdesc/><config mem_set="16777216" vcpus="1"/><hacks is_hvm="True"/></vm>
<vdi name="vdi_xvda" size="%d" source="file://xvda" type="dir-gzipped-chunks"/></appliance>""" % len(content)
    entries = [("ova.xml", text.encode()), ("xvda/chunk-000000000.gz", gzip.compress(content))]
    vm, other = t.import_(pack(entries), "an appliance of version 0.1")
    pool = t.pool
    check(pool("VM.get_name_label", vm) == "old one import", "its name", pool("VM.get_name_label", vm))
    check(pool("VM.get_platform", vm).get("acpi") == "true", "its platform", pool("VM.get_platform", vm))
    check(pool("VM.get_name_label", other) == "diskless import", "the second VM's name", pool("VM.get_name_label", other))
    check(pool("VM.get_HVM_boot_policy", other) == "BIOS order", "... which boots by itself", pool("VM.get_HVM_boot_policy", other))
    check(pool("VM.get_PV_bootloader", vm) == "pygrub" and pool("VM.get_PV_legacy_args", vm) == "root=/dev/xvda1 ro", "it boots as it did")
    check(t.contents(disk_refs(pool, vm)[0]) == content, "its disk")
    destroy(pool, vm)
    destroy(pool, other)
    t.refused(pack(entries[:1]), "IMPORT_ERROR_ATTACHED_DISKS_NOT_FOUND", "an appliance without its disk")
    t.refused(pack([(n, d.replace(b'"0.1"', b'"0.2"')) for n, d in entries]), "IMPORT_INCOMPATIBLE_VERSION", "an appliance of another version")


# ---- who did what ----

def the_log_says_who_moved_what(t):
    """The story of each kind of transfer begins with who asked, from where, for which object, and in which task."""
    pool, made = t.pool, small(t, "watched")
    user, disk = pool.env["POOL_USER"], made.disks[0]
    disk_uuid, sr = pool("VDI.get_uuid", disk), default_sr(pool)
    into = "SR %s (%s)" % (pool("SR.get_uuid", sr), pool("SR.get_name_label", sr))
    vm = "VM %s (watched)" % made.uuid
    vdi = "VDI %s (%s)" % (disk_uuid, pool("VDI.get_name_label", disk))

    def lines(task):
        with open(os.path.join(pool.dir, "log", "master.log"), errors="replace") as f:
            return [line.split("] ", 1)[1].strip() for line in f if "[%s]" % task in line]

    def told(answer, name, about):
        task = answer.headers.get("task-id")
        pool.wait_task(task) # an export's client has all before its task has ended
        found, uuid = lines(task), pool("task.get_uuid", task)
        check(found[:1] == ["%s asked by %s from 127.0.0.1: task %s, %s" % (name, user, uuid, about)], name + ": who, what, where", found)
        check(found[-1:] == [name + " succeeded"], name + ": what came of it", found)
        return task, found

    for at in 1, 2:
        answer = t.get("/export", at, uuid=made.uuid)
        task, _ = told(answer, "VM.export", vm)
        check(pool("task.get_name_description", task) == vm, "its task names the VM", pool("task.get_name_description", task))
        task, found = told(t.put("/import", answer.body, at), "VM.import", "into " + into)
        check(pool("task.get_name_description", task) == "into " + into, "an import's task names the SR",
              pool("task.get_name_description", task))
        [copy] = refs(pool("task.get_result", task))
        check("VM.import makes VM %s (watched)" % pool("VM.get_uuid", copy) in found, "the VM that was imported", found)
        destroy(pool, copy)
        told(t.get("/export_raw_vdi", at, vdi=disk), "VDI.export_raw_vdi", vdi)
        told(t.put("/import_raw_vdi", noise(4 * MIB, 3), at, vdi=disk), "VDI.import_raw_vdi", vdi)
        task, _ = told(t.put("/import_raw_vdi", noise(MIB, 3), at, sr_id=sr), "VDI.import_raw_vdi", "new disk in " + into)
        pool("VDI.destroy", refs(pool("task.get_result", task))[0])
    for at in 1, 2:
        t.get("/export", at, uuid="00000000-0000-0000-0000-000000000000")
        with open(os.path.join(pool.dir, "log", "master.log"), errors="replace") as f:
            found = [line.split("] ", 1)[1].strip() for line in f if "|VM.export] " in line]
        check(found[-2:] == ["VM.export asked by %s from 127.0.0.1" % user, "VM.export failed: UUID_INVALID"], "a refusal", found[-2:])
    answer = t.get("/export_metadata", uuid=made.uuid)
    told(answer, "VM.export_metadata", "Export of VM: " + made.uuid)
    _, found = told(t.put("/import_metadata", answer.body), "VM.import_metadata", "VM import")
    check(any(line.startswith("VM.import_metadata makes VM ") and line.endswith(" (watched)") for line in found), "... and what it made",
          found)
    for copy in pool("VM.get_by_name_label", "watched"):
        if copy != made.vm:
            pool("VM.destroy", copy)
    long = "\u00fc" * 150
    pool("VM.set_name_label", made.vm, long)
    _, found = told(t.get("/export", uuid=made.uuid), "VM.export", "VM %s (%s)" % (made.uuid, long[:100]))
    destroy(pool, made.vm)


# ---- raw disks ----

def raw_disks(t):
    """Whole disks in and out, in pieces, as VHD; a new one of the body's size."""
    pool, sr = t.pool, default_sr(t.pool)
    content = noise(MIB, 8) + bytes(2 * MIB) + noise(MIB, 9)
    for image_format in "raw", "qcow2":
        made = Made(t, "disks", [(sr, image_format, len(content), {})])
        [disk] = made.disks
        for at in 1, 2:
            task = t.task()
            answer = t.put("/import_raw_vdi", content, at, vdi=disk, task_id=task)
            check(answer.status == 200 and answer.headers.get("task-id") == task, "a disk is written, and the task named", answer)
            t.ended(task, "success", "a disk is written")
            check(t.contents(disk, at) == content, "and read, " + image_format)
        t.put("/import_raw_vdi", content[:MIB], vdi=disk)
        check(t.contents(disk) == content[:MIB] + bytes(3 * MIB), "a shorter one is filled with zeros")
        t.put("/import_raw_vdi", content, vdi=disk)
        vhd = t.contents(disk, format="vhd")
        check(vhd[:8] == b"conectix" and vhd[-512:-504] == b"conectix", "a VHD comes out")
        t.put("/import_raw_vdi", bytes(len(content)), vdi=disk)
        check(t.contents(disk) == bytes(len(content)), "it is empty")
        task = t.task()
        t.put("/import_raw_vdi", vhd, vdi=disk, format="vhd", task_id=task)
        t.ended(task, "success", "a VHD goes in")
        check(t.contents(disk) == content, "and holds what it held")
        task = t.task()
        answer = t.put("/import_raw_vdi", content + b"more", vdi=disk, task_id=task)
        check(answer.status == 400 and answer.headers.get("task-id") == task, "more than fits is refused, naming the task", answer)
        t.ended(task, "failure", "more than fits")
        destroy(pool, made.vm)

    before = Inventory(pool)
    for query in {"sr_id": sr}, {"sr_uuid": pool("SR.get_uuid", sr)}, {"sr_id": local_sr(pool, 3)}:
        task = t.task()
        check(t.put("/import_raw_vdi", content, task_id=task, **query).status == 200, "a new disk")
        [disk] = refs(t.ended(task, "success", "a new disk")["result"])
        check(pool("VDI.get_name_label", disk) == "Imported VDI", "has its name")
        check(pool("VDI.get_virtual_size", disk) == str(len(content)) and t.contents(disk) == content, "... size and contents")
        pool("VDI.destroy", disk)
    task = t.task()
    with t.open("PUT", "/import_raw_vdi", headers={"Content-Length": str(len(content))}, sr_id=sr, task_id=task) as c:
        c.send(content[:MIB])
        c.end()
    t.ended(task, "failure", "a new disk that is cut")
    before.check_same("new disks")


def ranges_and_heads(t):
    """HEAD says how much there is; Range and If-Match go on where somebody stopped."""
    pool, made = t.pool, small(t, "ranges", formats=("raw", "qcow2"))
    whole = {"/export_raw_vdi": t.contents(made.disks[1]), "/export": t.export(made.vm)}
    for path, query in ("/export_raw_vdi", {"vdi": made.disks[1]}), ("/export_raw_vdi", {"vdi": made.disks[0], "format": "vhd"}), \
            ("/export_raw_vdi", {"vdi": made.disks[0], "format": "qcow2"}), \
            ("/export_raw_vdi", {"vdi": made.disks[0], "format": "tar"}), ("/export", {"ref": made.vm}), \
            ("/export", {"ref": made.vm, "use_compression": "zstd"}), ("/export", {"ref": made.vm, "use_compression": "gzip"}):
        for at in 1, 2:
            what = "%s %s at host %d" % (path, query.get("use_compression", query.get("format", "")), at)
            first = t.get(path, at, **query)
            size, tag = len(first.body), first.headers.get("etag", "")
            check(len(tag) > 20 and first.headers.get("accept-ranges") == "bytes", what + " has an entity tag", first.headers)
            check("use_compression" in query or "format" in query or first.body == whole[path], what + " is the same at each host")
            head = t.get(path, at, method="HEAD", **query)
            check(head.status == 200 and head.body == b"" and head.headers.get("etag") == tag, what + ": HEAD tells it too", head)
            if path == "/export_raw_vdi" and query.get("format") != "tar":
                check(head.headers.get("content-length") == str(size), what + ": HEAD tells the length", head.headers)
            for begin in 1, 512, size // 2 + 7, size - 1:
                part = t.get(path, at, {"Range": "bytes=%d-" % begin, "If-Range": tag}, **query)
                check(part.status == 206 and part.body == first.body[begin:] and part.headers.get("etag") == tag,
                      "%s from %d on" % (what, begin), part)
                check(part.headers.get("content-range") == "bytes %d-%d/%d" % (begin, size - 1, size), "... and which part it is",
                      part.headers)
            bounded = (("0-99", 0, 100), ("0-0", 0, 1), ("%d-%d" % (size // 3, size // 2), size // 3, size // 2 + 1),
                       ("%d-%d" % (size - 5, size + 9), size - 5, size), ("-100", size - 100, size), ("-%d" % (size + 9), 0, size),
                       ("0-%d" % (size - 1), 0, size), ("7-99999999999999999999", 7, size))
            for text, begin, end in bounded:
                part = t.get(path, at, {"Range": "bytes=" + text}, **query)
                check(part.status == 206 and part.is_whole and part.body == first.body[begin:end], "%s, bytes %s" % (what, text), part)
                check(part.headers.get("content-range") == "bytes %d-%d/%d" % (begin, end - 1, size)
                      and part.headers.get("content-length") == str(end - begin), "... and which part it is", part.headers)
            for text in "%d-" % size, "%d-%d" % (size, size + 5), "-0", "99999999999999999999-":
                part = t.get(path, at, {"Range": "bytes=" + text}, **query)
                check(part.status == 416 and part.headers.get("content-range") == "bytes */%d" % size,
                      "%s, bytes %s lie beyond its end" % (what, text), part)
                check(part.headers.get("task-id", "").startswith("OpaqueRef:"), "... and its task is named", part.headers)
            for text in "bytes=0-", "bytes=9-8", "bytes=1-2,4-5", "bytes=-", "bytes=a-b", "lines=1-2":
                part = t.get(path, at, {"Range": text}, **query)
                check(part.status == 200 and part.body == first.body, "%s, '%s': the whole" % (what, text), part)
            part = t.get(path, at, {"Range": "bytes=7-", "If-Range": '"another"'}, **query)
            check(part.status == 200 and part.body == first.body, what + ": of another it is sent as a whole", part)
            part = t.get(path, at, {"Range": "bytes=7-", "If-Match": '"another"'}, **query)
            check(part.status == 412, what + ": of another it is refused", part)
            check(part.headers.get("task-id", "").startswith("OpaqueRef:"), what + ": ... and its task is named", part.headers)

    tag = t.get("/export", method="HEAD", ref=made.vm).headers["etag"]
    other = small(t, "beside")
    check(t.get("/export", method="HEAD", ref=made.vm).headers["etag"] == tag, "what others do does not change the tag")
    destroy(pool, other.vm)
    check(t.get("/export", method="HEAD", ref=made.vm).headers["etag"] == tag, "... nor does it when they go")
    t.write(made.disks[0], {0: b"changed"})
    changed = t.get("/export", method="HEAD", ref=made.vm).headers["etag"]
    check(changed != tag, "what is written changes it")
    pool("VM.set_name_label", made.vm, "renamed")
    check(t.get("/export", method="HEAD", ref=made.vm).headers["etag"] != changed, "... a new name, too")
    destroy(pool, made.vm)


def interrupted_exports_go_on(t):
    """A client that has lost its connection again and again puts the archive together; of a snapshot while its VM runs."""
    pool, made = t.pool, small(t, "interrupted", size=24 * MIB)
    t.put("/import_raw_vdi", noise(20 * MIB, 10), vdi=made.disks[0])
    pool("VM.start", made.vm, False, False)
    snapshot = pool("VM.snapshot", made.vm, "then", [])
    for compression in "false", "zstd":
        whole = t.export(snapshot, use_compression=compression)
        got, tag, turns = b"", None, 0
        while len(got) < len(whole) and turns < 20:
            turns += 1
            headers = {"Range": "bytes=%d-" % len(got), "If-Match": tag} if tag else {}
            with t.open("GET", "/export", turns % 3 + 1, headers=headers, ref=snapshot, use_compression=compression) as c:
                status, told = c.head()
                check(status == (206 if tag else 200), "turn %d" % turns, status)
                tag = told.get("etag")
                part = c.body(told, 3 * MIB)[0]
                got += unchunk(part)[0] if told.get("transfer-encoding") == "chunked" else part
                c.reset()
        check(got == whole, "an export in %d turns, compression %s" % (turns, compression), (len(got), len(whole)))
    pool.check_exactly_once(made.vm, "while its snapshot was exported")
    destroy(pool, made.vm)


# ---- where requests are served ----

def sent_to_who_sees_the_disks(t):
    """302 with the whole query; the other host serves it, and the task ends."""
    pool, made = t.pool, None
    for number in 2, 3:
        made = small(t, "there", local_sr(pool, number))
        there = "127.0.1.%d" % number
        asked = [at for at in (1, 2, 3) if at != number]
        requests = (("GET", "/export", {"ref": made.vm, "use_compression": "zstd"}, b""),
                    ("GET", "/export_raw_vdi", {"vdi": made.disks[0], "format": "raw"}, b""),
                    ("PUT", "/import_raw_vdi", {"vdi": made.disks[0]}, noise(4 * MIB, 11)))
        for method, path, query, body in requests:
            for at in asked:
                task, headers = t.task(), {"Content-Length": str(len(body))} if method == "PUT" else {}
                query = dict(query, task_id=task)
                with t.open(method, path, at, headers=headers, **query) as c:
                    answer = c.answer()
                location = answer.headers.get("location", "")
                check(answer.status == 302 and location.startswith("http://%s:" % there), "%s at host %d is sent to %s"
                      % (path, at, there), answer)
                check(answer.headers.get("connection") == "close", "... and the connection closes", answer.headers)
                check(sorted(location.split("?", 1)[1].split("&")) == sorted("%s=%s" % (k, v.replace(":", "%3A"))
                      for k, v in t.query(query).items()), "... with the same query", location)
                check(pool("task.get_status", task) == "pending", "... its task waits for what comes there")
                answer = t.follow(answer, method, headers, body)
                check(answer.status == 200 and answer.is_whole, "... and is served there", answer)
                t.ended(task, "success", "%s, sent on" % path)
        xva = t.export(made.vm, at=1)
        check(t.contents(made.disks[0]) == noise(4 * MIB, 11), "what was written is there")
        task = t.task()
        answer = t.put("/import", xva, at=1, sr_id=local_sr(pool, number), task_id=task)
        check(answer.status == 200, "an import is sent on", answer)
        [vm] = refs(t.ended(task, "success", "an import, sent on")["result"])
        check(pool("VDI.get_SR", disk_refs(pool, vm)[0]) == local_sr(pool, number), "its disk is there")
        with t.open("PUT", "/import", headers={"Content-Length": "0"}, sr_id=local_sr(pool, number)) as c:
            check(c.answer().status == 302, "an upload of nothing finds it out")
        destroy(pool, vm)
        destroy(pool, made.vm)

    # The pool's default SR may be such a one.
    the_pool, shared = pool("pool.get_all")[0], default_sr(pool)
    made = small(t, "default")
    xva = t.export(made.vm)
    pool("pool.set_default_SR", the_pool, local_sr(pool, 2))
    with t.open("PUT", "/import", headers={"Content-Length": "0"}) as c:
        check(c.answer().headers.get("location", "").startswith("http://127.0.1.2:"), "an import goes where the default SR is")
    [vm] = t.import_(xva, "into the default SR")
    check(pool("VDI.get_SR", disk_refs(pool, vm)[0]) == local_sr(pool, 2), "... and its disks into it")
    destroy(pool, vm)
    pool("pool.set_default_SR", the_pool, NULL)
    t.refused(xva, "DEFAULT_SR_NOT_FOUND", "an import without a default SR")
    pool("pool.set_default_SR", the_pool, shared)
    destroy(pool, made.vm)

    # A link to a VDI on a host that is not there any more.
    made = Made(t, "scattered", [(local_sr(pool, n), "raw", MIB, {}) for n in (2, 3)])
    task = t.task()
    answer = t.get("/export", ref=made.vm, task_id=task)
    check(answer.status >= 400, "no host sees all disks", answer)
    error = t.ended(task, "failure", "no host sees all disks")["error_info"]
    records = pool("SR.get_all_records")
    for number, missing in (1, (2, 3)), (2, (3,)), (3, (2,)):
        [told] = [part for part in error[1].split(";") if " host%d " % number in part]
        uuids = {n: records[local_sr(pool, n)]["uuid"] for n in (1, 2, 3)}
        check({n for n, uuid in uuids.items() if uuid in told} == set(missing), "... host%d does not see these" % number, told)
    destroy(pool, made.vm)

    # The only host that sees the SR is dead: it may be back, and is named.
    made = small(t, "away", local_sr(pool, 2))
    metrics = pool("host.get_metrics", pool.hosts()[1])
    pool.kill("2")
    wait(lambda: not pool("host_metrics.get_live", metrics), "host 2 is taken for dead")
    task = t.task()
    answer = t.get("/export", 3, ref=made.vm, task_id=task)
    check(answer.status == 503, "an export whose host is dead may be tried again", answer)
    error = t.ended(task, "failure", "an export whose host is dead")["error_info"]
    check("; host host2 (127.0.1.2) sees them, and is not live" in error[1], "... and says which host it is", error)
    check("; host host3 (127.0.1.3) does not see SR " in error[1], "... and what the others do not see", error)
    pool.start("2")
    pool.wait_hosts()
    destroy(pool, made.vm)


def seen_through_sockets(t):
    """Over https the redirect says https; over its unix socket root is known."""
    pool, made = t.pool, small(t, "sockets", local_sr(t.pool, 2))
    done = subprocess.run(["curl", "-sSk", "--noproxy", "*", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}",
                           "%s/export?session_id=%s&ref=%s" % (pool.env["POOL_HTTPS_URL"], pool.session, made.vm)],
                          capture_output=True, text=True, check=False)
    port = pool.env["POOL_HTTPS_URL"].rsplit(":", 1)[1]
    check(done.stdout.startswith("302 https://127.0.1.2:%s/export?" % port), "https leads to https", done)
    done = subprocess.run(["curl", "-sSk", "--noproxy", "*", "-L", "-o", "/dev/null", "-w", "%{http_code} %{size_download}",
                           "%s/export?session_id=%s&ref=%s" % (pool.env["POOL_HTTPS_URL"], pool.session, made.vm)],
                          capture_output=True, text=True, check=False)
    check(done.stdout == "200 %d" % len(t.export(made.vm)), "... and is served", done)
    done = subprocess.run(["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket",
                           os.path.join(pool.dir, "host2", "slave.sock"), "http://local/export?ref=%s" % made.vm],
                          capture_output=True, text=True, check=False)
    check(done.stdout == "200", "root at a host's own socket needs no password", done)
    destroy(pool, made.vm)


# ---- what is seen of it ----

def metric(pool, name):
    with urllib.request.urlopen(pool.env["POOL_URL"] + "/metrics") as answer:
        return next(float(line.split()[1]) for line in answer.read().decode().splitlines() if line.startswith(name + " "))


def tasks_show_progress(t):
    """A transfer that takes its time is a task with bytes and a rate, and can be cancelled; a host has a cap."""
    pool, rate = t.pool, 3072
    configure(pool, "2", transfer_kib_per_s=rate)
    size = 9 * MIB
    made = Made(t, "slow", [(local_sr(pool, 2), "raw", size, {})])
    began = time.monotonic()
    with t.open("PUT", "/import_raw_vdi", 2, headers={"Content-Length": str(size)}, vdi=made.disks[0]) as c:
        c.send(noise(size, 12))
        check(c.answer().status == 200, "written slowly")
    took = time.monotonic() - began
    check(took > size / (rate << 10) * 0.8, "uploads keep to the cap", took)

    task, seen = t.task(), []
    began, notes = time.monotonic(), metric(pool, "drover_slave_notes_total")

    def look():
        record = pool.raw("task.get_record", pool.session, task)
        seen.append((record["progress"], record["other_config"].get("transfer_bytes"),
                     record["other_config"].get("transfer_bytes_per_s")))
        return record["status"] != "pending"

    with t.open("GET", "/export", 2, ref=made.vm, task_id=task) as c:
        reader = threading.Thread(target=c.answer)
        reader.start()
        wait(look, "the export ends")
        reader.join()
    took = time.monotonic() - began
    notes = metric(pool, "drover_slave_notes_total") - notes
    check(notes < 20 + 10 * took, "a transfer that only takes its time is no news for the master", notes)
    record = t.ended(task, "success", "a slow export")
    check(int(record["other_config"]["transfer_bytes"]) > size, "at the end all bytes are told", record["other_config"])
    check(0 < int(record["other_config"]["transfer_bytes_per_s"]) < 1.3 * (rate << 10), "... and the mean rate", record["other_config"])
    check(took > size / (rate << 10) * 0.8, "exports keep to the cap", took)
    shares = [share for share, _, _ in seen if 0 < share < 1]
    check(len(set(shares)) >= 2 and shares == sorted(shares), "progress is seen, and rises", sorted(set(shares)))
    told = [int(b) for _, b, _ in seen if b]
    check(len(set(told)) >= 2 and told == sorted(told) and told[-1] > 2 * MIB, "bytes are told", sorted(set(told)))
    rates = sorted({int(r) for _, _, r in seen if r})
    check(rates and rates[0] > 0 and rates[-1] < 2.5 * (rate << 10), "... and how many a second", rates)

    before, task = Inventory(pool), t.task()
    with t.open("GET", "/export", 2, ref=made.vm, task_id=task) as c:
        c.head()
        check("export" in pool("VM.get_current_operations", made.vm).values(), "the VM is claimed meanwhile")
        pool("task.cancel", task)
        answer = c.body({})
        check(not answer[1] or len(answer[0]) < size, "a cancelled export is broken off", len(answer[0]))
    t.ended(task, "cancelled", "a cancelled export")
    task = t.task()
    xva = pack(members(t.get("/export_metadata", ref=made.vm).body), False)
    with t.open("PUT", "/import", 2, headers={"Content-Length": str(100 * MIB)}, sr_id=local_sr(pool, 2), task_id=task) as c:
        c.send(xva)
        wait(lambda: pool("task.get_other_config", task).get("object_creation") == "complete", "the objects are there")
        for path, query in ("/export", {"ref": made.vm}), ("/export", {"session_id": "OpaqueRef:no"}):
            check(t.get(path, 2, task_id=task, **query).status >= 400, "another request may not have its task")
        check(pool("task.get_status", task) == "pending", "... nor end it", pool("task.get_record", task))
        pool("task.cancel", task)
        c.read_some()
    t.ended(task, "cancelled", "a cancelled import")
    before.check_same("cancelled")
    destroy(pool, made.vm)
    configure(pool, "2")


class Slow:
    """A client that takes a disk's bytes at 20 KiB a second, by way of the master. From a host itself it would get them in gulps of what
    a socket of the loopback holds, with a minute in between, for which it would be cut."""

    def __init__(self, t, disk):
        self.task = t.task()
        self.connection = t.open("GET", "/export_raw_vdi", 1, vdi=disk, task_id=self.task)
        self.is_wanted, self.is_broken = True, False
        self.thread = threading.Thread(target=self.take)

    def begin(self):
        check(self.connection.head()[0] == 200, "a slow client is served")
        self.thread.start()

    def take(self):
        while self.is_wanted and not self.is_broken:
            try:
                self.is_broken = not self.connection.socket.recv(2048)
            except OSError:
                self.is_broken = True
            time.sleep(0.1)

    def leave(self):
        self.is_wanted = False
        self.thread.join()
        self.connection.reset()


def slow_clients_hold_nobody(t):
    """They lend their places to those who work; when too many are there, the slowest gives way."""
    pool, places, requests = t.pool, 2, 5
    configure(pool, "1", transfers=places, transfer_requests=requests)
    made = Made(t, "slow", [(local_sr(pool, 1), "raw", 64 * MIB, {0: noise(3000, i)}) for i in range(requests + 1)])
    quick = made.disks[-1]
    slow = [Slow(t, disk) for disk in made.disks[:requests - 1]] # more than there are places
    for each in slow:
        each.begin()
    began = time.monotonic()
    check(len(t.contents(quick)) == 64 * MIB, "a quick client is served beside them")
    t.put("/import_raw_vdi", noise(8 * MIB, 20), vdi=quick)
    check(t.contents(quick)[:8 * MIB] == noise(8 * MIB, 20), "... and may send, too")
    check(time.monotonic() - began < 15, "... at once", time.monotonic() - began)
    check(not any(each.is_broken for each in slow), "... and they go on")

    slow.append(Slow(t, made.disks[requests - 1]))
    slow[-1].begin()
    task = t.task()
    answer = t.get("/export_raw_vdi", vdi=quick, task_id=task)
    check(answer.status == 503 and answer.headers.get("retry-after") == "5", "more than there may be are refused", answer)
    check(pool("task.get_status", task) == "pending", "... and their tasks wait for them to come again")
    pool("task.destroy", task)
    wait(lambda: t.get("/export_raw_vdi", vdi=quick).status == 200, "one that is slow gives way", 60)
    broken = [each for each in slow if pool("task.get_status", each.task) != "pending"]
    check(len(broken) == 1, "... one and no more", len(broken))
    record = t.ended(broken[0].task, "failure", "a slow one that gave way")
    check(record["error_info"] == ["INTERNAL_ERROR", "its client was the slowest of too many, and gave way to another"],
          "... and says why", record["error_info"])
    for each in slow:
        each.leave()
        if each not in broken:
            t.ended(each.task, "failure", "a slow one that went away")
    configure(pool, "1")
    destroy(pool, made.vm)


def main():
    cases = [credentials, names_and_mistakes, forms_of_uploads, options_of_vms, out_in_and_out_again, appliances_of_old,
             the_log_says_who_moved_what, raw_disks, ranges_and_heads, interrupted_exports_go_on, sent_to_who_sees_the_disks,
             seen_through_sockets, tasks_show_progress, slow_clients_hold_nobody]
    return run_cases(cases, hosts=3)


if __name__ == "__main__":
    sys.exit(main())
