#!/usr/bin/env python3
"""Exports and imports that come to nothing, on a pool of three hosts: archives that are wrong, clients that go, SRs that are full,
processes that die. No VM, disk or file remains, the task says why, and memory goes back.

  transfers_fail.py [CASE ...]"""
import os
import subprocess
import sys

from poollib import check, wait
from transferlib import MIB, Inventory, destroy, disk_refs, members, noise, pack, refs, run_cases, small


class Halfway:
    """An import whose client has sent half and waits."""

    def __init__(self, t, xva, at, **query):
        self.t, self.task = t, t.task()
        self.connection = t.open("PUT", "/import", at, headers={"Content-Length": str(len(xva))}, task_id=self.task, **query)
        self.connection.send(xva[:len(xva) // 2])
        wait(lambda: t.pool("task.get_other_config", self.task).get("object_creation") == "complete", "the objects are there")

    def close(self):
        self.connection.socket.close()


def wrong_archives(t):
    """Cut anywhere, wrong checksums, blocks out of place: nothing remains, and the task says why."""
    pool, made = t.pool, small(t, "wrong", formats=("raw", "qcow2"))
    xva = t.export(made.vm)
    entries = members(xva)
    first = next(i for i, (name, _) in enumerate(entries) if name.endswith("/00000001"))

    def but(index, name=None, data=None):
        changed = list(entries)
        changed[index] = (name or changed[index][0], changed[index][1] if data is None else data)
        return pack(changed)

    damaged = but(first, data=b"X" + entries[first][1][1:])
    t.refused(damaged, "IMPORT_ERROR_SOME_CHECKSUMS_FAILED", "a wrong checksum")
    with open(os.path.join(pool.dir, "log", "1.log"), errors="replace") as f:
        told = [line for line in f if "the archive is refused with IMPORT_ERROR_SOME_CHECKSUMS_FAILED at %s." % entries[first][0] in line]
    check(len(told) == 1 and told[0].endswith((".raw\n", ".qcow2\n")), "... and the log says of which block of which disk", told)
    for body, wrong in (damaged, "1"), (xva, None):
        task = t.task()
        answer = t.put("/import", body, task_id=task, force="true")
        check(answer.status == 200, "forced, it comes", answer)
        record = t.ended(task, "success", "forced")
        check(record["other_config"].get("wrong_checksums") == wrong, "its task says how many were wrong", record["other_config"])
        [vm] = refs(record["result"])
        check((t.contents(disk_refs(pool, vm)[0])[MIB:MIB + 1] == b"X") == bool(wrong), "what came is there")
        destroy(pool, vm)
    for cut in 0, 100, 512, len(entries[0][1]), xva.index(entries[first][1][:64]) + 5000, len(xva) // 2, len(xva) - 2000:
        t.refused(xva[:cut], "IMPORT_ERROR_PREMATURE_EOF", "cut at %d of %d" % (cut, len(xva)))
        for compression in "gzip", "zstd":
            packed = t.export(made.vm, use_compression=compression) if cut == 512 else b""
            if packed:
                t.refused(packed[:len(packed) // 2], "IMPORT_ERROR_PREMATURE_EOF", "cut in " + compression)
    t.refused(xva[:len(xva) // 2], "IMPORT_ERROR_PREMATURE_EOF", "cut, forced", force="true")
    t.refused(pack(entries[1:]), "IMPORT_ERROR_UNEXPECTED_FILE", "without ova.xml")
    outside = os.path.join(pool.work.name, "outside")
    t.refused(but(first, "../" * 12 + outside.lstrip("/")), "IMPORT_ERROR_UNEXPECTED_FILE", "a name that leads elsewhere")
    check(not os.path.exists(outside), "... leads nowhere")
    t.refused(but(first, "Ref:99/00000001"), "IMPORT_ERROR_UNEXPECTED_FILE", "a block of no disk")
    t.refused(but(0, data=b"<value><struct>"), "IMPORT_ERROR", "ova.xml that is no XML")
    t.refused(pack(entries[:1]), "IMPORT_ERROR_ATTACHED_DISKS_NOT_FOUND", "without its disks")
    t.refused(noise(100000, 13), "IMPORT_ERROR", "junk")
    destroy(pool, made.vm)


def clients_that_go(t):
    """Closed in the middle, politely or not, at the master or at another host."""
    pool, made = t.pool, small(t, "gone", formats=("raw", "qcow2"), size=12 * MIB)
    t.put("/import_raw_vdi", noise(12 * MIB, 14), vdi=made.disks[0])
    xva = t.export(made.vm)
    begin = xva.index(b"Ref:")
    before = Inventory(pool)
    for at in 1, 2:
        for sent in 0, 300, begin, begin + 2 * MIB, len(xva) - 1500:
            for politely in True, False:
                what = "a client that goes after %d bytes at host %d, %s" % (sent, at, "politely" if politely else "by reset")
                task = t.task()
                headers = {"Content-Length": str(len(xva)), "Expect": "100-continue"}
                with t.open("PUT", "/import", at, headers=headers, task_id=task) as c:
                    c.wanted() # a reset that comes first would take the request along
                    c.send(xva[:sent])
                    if sent > begin:
                        wait(lambda: pool("task.get_other_config", task).get("object_creation") == "complete", what + ": objects")
                    if not politely:
                        c.reset()
                record = t.ended(task, "failure", what)
                check(record["error_info"] == ["IMPORT_ERROR_PREMATURE_EOF"], what + ": it says so", record["error_info"])
                before.check_same(what)
        task = t.task()
        with t.open("GET", "/export", at, ref=made.vm, task_id=task) as c:
            c.head()
            c.reset()
        t.ended(task, "failure", "an export whose client goes at host %d" % at)
        before.check_same("an export whose client goes")
        for _ in range(5):
            goes_at_once(t, at, made.vm)
        before.check_same("clients that go as soon as they came")
    destroy(pool, made.vm)


def goes_at_once(t, at, vm):
    """Before a body is read, or while it is found out how long an archive is: whoever looks at the task learns who ended it."""
    pool = t.pool
    whose = ["INTERNAL_ERROR", "the client has closed the connection before it had all"], \
        ["INTERNAL_ERROR", "the client has closed the connection before its turn came"], \
        ["INTERNAL_ERROR", "the client's request is not there any more: it was closed, or the agent restarted"]
    task = t.task()
    with t.open("PUT", "/import", at, headers={"Content-Length": "1000000"}, task_id=task) as c:
        c.end()
    record = t.ended(task, "failure", "an upload that ends at once, at host %d" % at)
    check(record["error_info"] == ["IMPORT_ERROR_PREMATURE_EOF"], "... and says why", record["error_info"])
    task = t.task()
    with t.open("GET", "/export", at, headers={"Range": "bytes=5-"}, ref=vm, task_id=task) as c:
        wait(lambda: "export" in pool("VM.get_current_operations", vm).values() or pool("task.get_status", task) != "pending",
             "the export begins")
        c.reset()
    record = pool.wait_task(task)
    check(record["status"] == "success" or record["error_info"] in whose, "a range whose client goes at once, at host %d" % at,
          record["error_info"])
    pool("task.destroy", task)


def full_srs(t):
    """An SR without room: SR_FULL, and nothing remains."""
    pool = t.pool
    directory = os.path.join(pool.dir, "full")
    os.makedirs(directory)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "none", directory], check=False, capture_output=True).returncode:
        print("# full_srs: left out, nothing can be mounted here", flush=True)
        return
    try:
        sr = pool("SR.create", pool.hosts()[1], {"location": directory}, "0", "full", "", "file", "user", False, {})
        made = small(t, "full", size=12 * MIB)
        t.put("/import_raw_vdi", noise(12 * MIB, 15), vdi=made.disks[0])
        xva = t.export(made.vm)
        wanted, most = (int(n) for n in t.refused(xva, "SR_FULL", "a full SR", sr_id=sr)["error_info"][1:])
        check(wanted == 12 * MIB and 5 * MIB < most <= 6 * MIB, "... with what was wanted, and what there is", (wanted, most))
        check(os.listdir(directory) == [], "its directory is empty", os.listdir(directory))
        before, task = Inventory(pool), t.task()
        t.put("/import_raw_vdi", noise(12 * MIB, 15), sr_id=sr, task_id=task)
        record = t.ended(task, "failure", "a full SR, one disk")
        check(record["error_info"][:2] == ["SR_FULL", str(12 * MIB)], "... and says so", record["error_info"])
        before.check_same("a full SR, one disk")
        check(os.listdir(directory) == [], "its directory is empty again", os.listdir(directory))
        small_one = small(t, "fits", size=MIB + 8192)
        [vm] = t.import_(t.export(small_one.vm), "what fits", sr_id=sr)
        destroy(pool, vm)
        destroy(pool, small_one.vm)
        destroy(pool, made.vm)
        pool("PBD.unplug", pool("SR.get_PBDs", sr)[0])
        pool("SR.forget", sr)
    finally:
        subprocess.run(["umount", directory], check=False)


def processes_that_die(t):
    """A slave, or the master, dies or stops in the middle."""
    pool, made = t.pool, small(t, "deaths", formats=("raw", "qcow2"))
    xva = t.export(made.vm)
    for killed, what in (("2",), "its slave"), (("master",), "the master"), (("2", "master"), "both"):
        before, halfway = Inventory(pool), Halfway(t, xva, 2)
        for process in killed:
            pool.kill(process)
        for process in reversed(killed):
            pool.start(process)
        pool.wait_master()
        pool.wait_hosts()
        record = t.ended(halfway.task, "failure", what + " was killed in an import")
        check(record["error_info"] != [], "... and says why", record["error_info"])
        check(not halfway.connection.read_some(), "... and its client is cut off")
        halfway.close()
        before.check_same(what + " was killed in an import")

    # The master is gone for good, as far as its slaves can see: nobody will conclude what they have begun.
    before, halfway = Inventory(pool), Halfway(t, xva, 2)
    pool.kill("master")
    halfway.connection.socket.settimeout(30)
    check(not halfway.connection.read_some(), "a client of a slave that has no master is cut off")
    halfway.close()
    pool.start("master")
    pool.wait_master()
    pool.wait_hosts()
    t.ended(halfway.task, "failure", "the master was away in an import")
    before.check_same("the master was away in an import")

    # Stopped for longer than others wait: the master goes on without it, and what it does when it returns is nobody's.
    before, halfway = Inventory(pool), Halfway(t, xva, 2)
    pool.stop("2")
    record = t.ended(halfway.task, "failure", "its slave stood still in an import")
    check(record["error_info"][0] == "HOST_OFFLINE", "... and says why", record["error_info"])
    left = before.difference()
    check(set(left) <= {"VDI", "files"} and not any(pool("VDI.get_managed", vdi) for vdi in left.get("VDI", ())),
          "only hidden disks wait for its return", left)
    pool.go_on("2")
    pool.wait_hosts()
    halfway.connection.socket.settimeout(30)
    check(not halfway.connection.read_some(), "its client is cut off when it returns")
    halfway.close()
    before.check_same("its slave stood still in an import")
    destroy(pool, made.vm)


def resident_bytes(pool, name):
    with open("/proc/%d/status" % pool.pid(name)) as f:
        return next(int(line.split()[1]) << 10 for line in f if line.startswith("VmRSS:"))


def memory_goes_back(t):
    """What many transfers at once took is the system's again soon after."""
    if os.environ.get("DROVER_PRESET") in ("asan", "tsan"):
        print("# memory_goes_back: left out, a sanitizer keeps what is freed", flush=True)
        return
    pool, made = t.pool, small(t, "memory")
    xva = t.export(made.vm)
    before, halves = resident_bytes(pool, "2"), [Halfway(t, xva, 2) for _ in range(60)]
    most = resident_bytes(pool, "2")
    check(most > before + 90 * MIB, "many imports take their memory", (before, most))
    for half in halves:
        half.close()
        t.ended(half.task, "failure", "one of many imports that are cut")
    wait(lambda: resident_bytes(pool, "2") < before + 40 * MIB, "they give it back", 30)
    destroy(pool, made.vm)


def main():
    return run_cases([wrong_archives, clients_that_go, full_srs, processes_that_die, memory_goes_back], hosts=3)


if __name__ == "__main__":
    sys.exit(main())
