#!/usr/bin/env python3
"""What hosts and disks remember: a VM that is restored from its export runs, though all hosts have seen it end; and a disk into
which a stopped host may still write is nobody else's until that host has come to its end."""
import glob
import http.client
import os
import sys
import threading
import time
import urllib.parse

from poollib import Checks, Failure, Pool, check, wait

MIB = 1 << 20


def request(url, method, path, query, body=None, headers=None):
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    connection.request(method, path + "?" + urllib.parse.urlencode(query), body=body, headers=headers or {})
    answer = connection.getresponse()
    return answer.status, answer.read()


def restored_vm_runs(pool):
    vm = pool.vms()["vm1"]
    uuid = pool("VM.get_uuid", vm)
    hosts = pool.hosts()
    pool("VM.hard_shutdown", vm)
    for host in hosts: # each has seen it run and end
        pool("VM.start_on", vm, host, False, False)
        pool("VM.hard_shutdown", vm)
    status, archive = request(pool.env["POOL_URL"], "GET", "/export", {"session_id": pool.session, "uuid": uuid})
    check(status == 200, "it is exported", status)
    disks = [pool("VBD.get_VDI", vbd) for vbd in pool("VM.get_VBDs", vm) if pool("VBD.get_type", vbd) == "Disk"]
    pool("VM.destroy", vm)
    for disk in disks:
        pool("VDI.destroy", disk)
    status, text = request(pool.env["POOL_URL"], "PUT", "/import", {"session_id": pool.session, "restore": "true"}, archive)
    check(status == 200, "it is restored", (status, text))
    vm = pool("VM.get_by_uuid", uuid)
    for host in hosts:
        pool("VM.start_on", vm, host, False, False)
        check(pool("VM.get_power_state", vm) == "Running", "the restored VM runs", pool("VM.get_power_state", vm))
        check(pool("VM.get_resident_on", vm) == host, "where it was started")
        pool.check_exactly_once(vm, "restored")
        pool("VM.hard_shutdown", vm)


class SlowBody:
    """A body that waits for a word before its last part."""

    def __init__(self, size):
        self.left, self.held, self.begun = size, threading.Event(), threading.Event()

    def __iter__(self):
        while self.left > 0:
            part = min(self.left, MIB)
            if self.left <= 4 * MIB:
                self.begun.set()
                self.held.wait(120)
            self.left -= part
            yield b"\xee" * part


def stopped_host_keeps_its_disk(pool):
    sr = pool("pool.get_default_SR", pool("pool.get_all")[0])
    disk = pool("VDI.create", {"name_label": "overwritten", "name_description": "", "SR": sr, "virtual_size": str(32 * MIB),
                               "type": "user", "sharable": False, "read_only": False, "other_config": {}})
    template = pool("VM.get_by_name_label", "Other install media")[0]
    vm = pool("VM.clone", template, "user of the disk")
    pool("VM.provision", vm)
    pool("VBD.create", {"VM": vm, "VDI": disk, "userdevice": "1", "bootable": False, "mode": "RW", "type": "Disk",
                        "unpluggable": True, "empty": False, "other_config": {}, "qos_algorithm_type": "",
                        "qos_algorithm_params": {}})
    path = os.path.join(pool.dir, "**", pool("VDI.get_location", disk))
    host = pool.hosts()[1]
    task = pool("task.create", "overwrite", "")
    body = SlowBody(32 * MIB)
    query = {"session_id": pool.session, "vdi": disk, "task_id": task}
    upload = threading.Thread(target=lambda: ignore(lambda: request(pool.env["HOST_2_URL"], "PUT", "/import_raw_vdi", query,
                                                                    iter(body), {"Content-Length": str(32 * MIB)})))
    upload.start()
    check(body.begun.wait(60), "most of it has been sent")
    wait(lambda: "update" in pool("VDI.get_current_operations", disk).values(), "the disk is claimed")
    pool.stop("2")
    record = pool.wait_task(task, 180)
    check(record and record["status"] == "failure", "its task ends", record and record["status"])
    check("update" in pool("VDI.get_current_operations", disk).values(), "the disk stays claimed",
          pool("VDI.get_current_operations", disk))
    start = pool("Async.VM.start_on", vm, pool.hosts()[0], False, False)
    time.sleep(2) # it could have begun long ago
    check(pool("VM.get_power_state", vm) == "Halted", "no VM gets the disk meanwhile", pool("VM.get_power_state", vm))
    pool.kill("master") # the next one knows it, too
    pool.start("master")
    pool.wait_master()
    check("update" in pool("VDI.get_current_operations", disk).values(), "the next master has it claimed",
          pool("VDI.get_current_operations", disk))
    ignore(lambda: pool("task.destroy", start))
    body.held.set()
    pool.go_on("2")
    pool.wait_hosts()
    wait(lambda: not pool("VDI.get_current_operations", disk), "the disk is free when its host has ended with it", 60)
    before = contents(path)
    pool("VM.start_on", vm, pool.hosts()[0], False, False)
    check(pool("VM.get_power_state", vm) == "Running", "then the VM runs")
    upload.join(60)
    check(contents(path) == before, "and nothing is written to its disk any more")
    check(host in pool("host.get_all"), "the host is there")


def contents(pattern):

    with open(glob.glob(pattern, recursive=True)[0], "rb") as f:
        return f.read()


def ignore(fn):
    try:
        return fn()
    except (OSError, http.client.HTTPException, Failure):
        return None


def main():
    with Pool(hosts=2, vms=1) as pool:
        restored_vm_runs(pool)
        stopped_host_keeps_its_disk(pool)
    return Checks.finish()


sys.exit(main())
