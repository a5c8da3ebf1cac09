#!/usr/bin/env python3
"""Transfers whose disk does not answer, and that are cancelled. One whose qemu-nbd hangs ends in seconds, for that is killed. One that the
kernel keeps (tests/preload/hung_disk.c) is given up after a while: its task ends, what it may still write to stays out of everybody's
hands, it costs one call and keeps nobody from anything; and when the disk answers again claims, files and disks in the making go, over
the link that there is. The next master goes on with all that.

  hung_transfers.py [CASE ...]"""
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request

import crashlib
from claimslib import drive, waits
from poollib import Checks, Pool, check, wait
from transferlib import MIB, Inventory, Made, Transfers, default_sr, destroy, local_sr, noise

SIZE = 48 * MIB # more than sockets and pipes between a client and a disk hold
QUICKLY = 8   # seconds: with a server to be killed
GIVEN_UP = 40 # ... with one that only the kernel could end


def servers(pool, host):
    """qemu-nbd of an agent."""
    listed = subprocess.run(["pgrep", "-P", str(pool.pid(host)), "qemu-nbd"], text=True, capture_output=True, check=False).stdout
    return [int(pid) for pid in listed.split()]


def slave_calls(pool):
    with urllib.request.urlopen(pool.env["POOL_URL"] + "/metrics") as answer:
        return int(re.search(r"^drover_slave_calls_total (\d+)", answer.read().decode(), re.MULTILINE).group(1))


def links(pool):
    return crashlib.logged(pool, "2", r"link \d+ stands")


class Put:
    """An upload to host 2 that comes as far as `sent` bytes into its disk and whose client then waits."""

    def __init__(self, t, path, body, sent, **query):
        self.t, self.task = t, t.task()
        self.connection = t.open("PUT", path, 2, headers={"Content-Length": str(len(body))}, task_id=self.task, **query)
        self.connection.send(body[:sent])
        self.body, self.sent = body, sent
        wait(lambda: int(t.pool("task.get_other_config", self.task).get("transfer_bytes", "0")) >= sent - MIB, "bytes are written")

    def hang_on(self):
        """More comes, which its disk does not take."""
        self.connection.send(self.body[self.sent:self.sent + 6 * MIB])


class Get:
    """A download from host 2 whose client has read a little."""

    def __init__(self, t, path, **query):
        self.t, self.task = t, t.task()
        self.connection = t.open("GET", path, 2, task_id=self.task, **query)
        check(self.connection.head()[0] == 200, path + " begins")

    def hang_on(self):
        """All that was read of the disk is taken."""
        self.connection.socket.settimeout(1)
        try:
            while self.connection.socket.recv(1 << 20):
                pass
        except OSError:
            pass


def cancel(pool, transfers, seconds, what):
    began = time.monotonic()
    for each in transfers:
        pool("task.cancel", each.task)
    for each in transfers:
        record = each.t.ended(each.task, "cancelled", what)
        check(record and record["error_info"][0] == "TASK_CANCELLED", what + " is told as such", record and record["error_info"])
    check(time.monotonic() - began < seconds, "%s ends within %d s" % (what, seconds), time.monotonic() - began)
    for each in transfers:
        each.connection.reset()


# ---- a server that hangs ----

def a_hung_server_is_killed(t):
    pool = t.pool
    made = Made(t, "served", [(default_sr(pool), "qcow2", 2 * SIZE, {i * MIB: noise(MIB, i) for i in range(0, 60)}) for _ in range(2)])
    before, warnings = Inventory(pool), crashlib.logged(pool, "master", r"at work|goes on|is cut")
    for what, begin in (("an export", lambda: Get(t, "/export", ref=made.vm)),
                        ("a raw export", lambda: Get(t, "/export_raw_vdi", vdi=made.disks[0], format="vhd")),
                        ("a raw import", lambda: Put(t, "/import_raw_vdi", noise(2 * SIZE, 7), 8 * MIB, vdi=made.disks[1]))):
        transfer = begin()
        pids = wait(lambda: servers(pool, "2"), what + " has a server")
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        transfer.hang_on()
        check(pool("task.get_status", transfer.task) == "pending", what + ": it waits as long as it is wanted")
        cancel(pool, [transfer], QUICKLY, what)
        check(not any(os.path.exists("/proc/%d" % pid) for pid in pids), what + ": its server is gone", pids)
        before.check_same(what, seconds=5)
    check(crashlib.logged(pool, "master", r"at work|goes on|is cut") == warnings, "nothing is left to be cut")
    t.write(made.disks[1], {0: noise(MIB, 9)}) # the disk can be written and read for all that
    check(t.contents(made.disks[1])[:MIB] == noise(MIB, 9), "the disk is in order")
    destroy(pool, made.vm)


# ---- a mount that hangs ----

class Hung:
    """Host 2 with as many places for transfers as will hang, and its own SR, which can."""

    def __init__(self, t):
        self.t, self.pool = t, t.pool
        pool = t.pool
        self.directory = os.path.join(pool.dir, "host2", "sr")
        with open(os.path.join(pool.dir, "host2", "slave.conf"), "a") as f:
            f.write("transfers = 4\n")
        pool.kill("2")
        crashlib.start(pool, "2", LD_PRELOAD=os.path.abspath(os.path.join(crashlib.build_directory(), "libtest_preload.so")),
                       DROVER_TEST_HUNG=self.directory)
        self.made = Made(t, "hung", [(local_sr(pool, 2), "raw", SIZE, {0: noise(SIZE, 1)}) for _ in range(2)])
        self.elsewhere = Made(t, "elsewhere", [(default_sr(pool), image_format, 4 * MIB, {0: noise(MIB, 2)})
                                               for image_format in ("raw", "qcow2")])
        self.xva = t.export(self.made.vm)
        self.before = Inventory(pool)

    def hang(self):
        open(self.directory + ".hangs", "w").close()

    def answer(self):
        os.unlink(self.directory + ".hangs")

    def begin(self):
        """One of each kind at work, and then its disk hangs."""
        t, sr = self.t, local_sr(self.pool, 2)
        into = Put(t, "/import_raw_vdi", noise(SIZE, 3), 4 * MIB, vdi=self.made.disks[0])
        rest = [Put(t, "/import_raw_vdi", noise(SIZE, 4), 4 * MIB, sr_id=sr), Put(t, "/import", self.xva, 4 * MIB, sr_id=sr),
                Get(t, "/export_raw_vdi", vdi=self.made.disks[1], format="qcow2")]
        self.hang()
        for each in [into] + rest:
            each.hang_on()
        return [into] + rest

    def check_held(self, what):
        """Nobody gets the disk that may still be written to."""
        pool, disk = self.pool, self.made.disks[0]
        check(list(pool("VDI.get_current_operations", disk).values()) == ["update"], what + ": the disk stays claimed",
              pool("VDI.get_current_operations", disk))
        vbd = drive(pool, self.elsewhere.vm, disk)
        waits(pool, what + ": a VM that has it, too", "VM.start_on", self.elsewhere.vm, pool.hosts()[1], False, False)
        pool("VBD.destroy", vbd)
        check(len(self.before.difference().get("VDI", ())) == 3, what + ": disks in the making stay hidden", self.before.difference())

    def check_over(self, what):
        pool = self.pool
        self.before.check_same(what, seconds=10)
        answer = self.t.put("/import_raw_vdi", noise(SIZE, 5), 2, vdi=self.made.disks[0])
        check(answer.status == 200, what + ": the disk can be written again", answer)
        check(self.t.contents(self.made.disks[0], 2) == noise(SIZE, 5), what + ": ... and is nobody else's")
        pool.check_quiet(what)


def others_work(hung, what):
    """No place is lost for the other SR."""
    t, disks, began = hung.t, hung.elsewhere.disks, time.monotonic()
    for disk in disks:
        t.write(disk, {0: noise(MIB, 6)})
        check(t.contents(disk, 2)[:MIB] == noise(MIB, 6), what + ": a disk elsewhere is written and read at the host")
    check(len(t.export(hung.elsewhere.vm, what, at=2)) > MIB, what + ": a VM elsewhere is exported at the host")
    check(time.monotonic() - began < 10, what + ": at once", time.monotonic() - began)


def a_hung_mount_costs_one_call(hung):
    pool, transfers, standing = hung.pool, hung.begin(), links(hung.pool)
    cancel(pool, transfers, GIVEN_UP, "what the kernel keeps")
    check(crashlib.logged(pool, "2", "was cut, but a disk has not answered it") == len(transfers), "the host says what it is that it waits for")
    hung.check_held("given up")
    others_work(hung, "given up")
    wait(lambda: crashlib.logged(pool, "master", "a transfer that was given up goes on at host") == len(transfers),
         "the master has asked again, and says so", 60)
    calls = slave_calls(pool)
    began = time.monotonic()
    time.sleep(10) # a stretch of time in which nothing is to happen
    calls = slave_calls(pool) - calls
    check(calls <= 2 * len(transfers), "each costs a call now and then", (calls, time.monotonic() - began))
    check(crashlib.logged(pool, "master", "a transfer that was given up goes on at host") == len(transfers), "... and is told once")
    hung.check_held("much later")
    hung.answer()
    hung.check_over("the disk answers")
    check(crashlib.logged(pool, "master", "the transfer that went on at host .* is over") == len(transfers), "and so does the log")
    check(links(pool) == standing, "all over the link that there was")


def the_next_master_goes_on(hung):
    pool, transfers = hung.pool, hung.begin()
    cancel(pool, transfers, GIVEN_UP, "what the kernel keeps")
    pool.kill("master")
    crashlib.start(pool, "master")
    hung.check_held("another master")
    others_work(hung, "another master")
    hung.answer()
    hung.check_over("the disk answers another master")


CASES = (a_hung_server_is_killed, a_hung_mount_costs_one_call, the_next_master_goes_on)


def main(names):
    with Pool(hosts=2, vms=0) as pool:
        t, hung = Transfers(pool), None
        for case in CASES:
            if names and case.__name__ not in names:
                continue
            if case is not a_hung_server_is_killed:
                hung = hung or Hung(t)
            print("# " + case.__name__, flush=True)
            case(hung or t)
    return Checks.finish()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
