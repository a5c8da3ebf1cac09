#!/usr/bin/env python3
"""What who runs a pool sees of its transfers - figures of hosts and master, lines of logs - and where requests go while the agent of the
master's own host is away.

  transfer_watch.py [CASE ...]"""
import http.client
import os
import re
import socket
import subprocess
import sys
import time

from poollib import Checks, Pool, check, wait
from transferlib import MIB, Inventory, Made, Transfers, default_sr, destroy, local_sr, noise
from transfers import configure, metric


class AtSocket(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def figures(pool, number):
    """All figures of a host, at its agent's unix socket: {name without drover_host_: number}."""
    connection = AtSocket(os.path.join(pool.dir, "host%d" % number, "slave.sock"))
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return {name: int(value) for name, value in re.findall(r"^drover_host_(\w+) (\d+)$", text, re.M)}


def log_lines(pool, name, pattern):
    with open(os.path.join(pool.dir, "log", name + ".log")) as f:
        return [line for line in f if re.search(pattern, line)]


def reader(t, disk):
    """A client that takes its head and then no more."""
    connection = t.open("GET", "/export_raw_vdi", 1, vdi=disk)
    check(connection.head()[0] == 200, "a client is served")
    return connection


def figures_tell_who_waits(t):
    """Clients that do not read are seen; what is refused for want of room is counted, and the log and the answer name the setting."""
    pool, requests = t.pool, 2
    configure(pool, "1", transfers=1, transfer_requests=requests)
    made = Made(t, "watched", [(local_sr(pool, 1), "raw", 64 * MIB, {0: noise(3000, i)}) for i in range(requests + 1)])
    quiet = {"transfers": 0, "transfers_at_work": 0, "transfers_waiting_place": 0, "transfers_waiting_client": 0}
    wait(lambda: quiet.items() <= figures(pool, 1).items(), "nothing is under way")
    check(figures(pool, 1)["transfers_refused_total"] == 0, "none was refused", figures(pool, 1))

    readers = [reader(t, disk) for disk in made.disks[:requests]]
    stuck = {"transfers": requests, "transfers_at_work": 0, "transfers_waiting_place": 0, "transfers_waiting_client": requests}
    wait(lambda: stuck.items() <= figures(pool, 1).items(), "all wait for their clients")
    check(metric(pool, "drover_transfers") == requests, "the master counts as many", metric(pool, "drover_transfers"))
    for _ in range(3):
        answer = t.get("/export_raw_vdi", vdi=made.disks[-1])
        check(answer.status == 503 and b"transfer_requests" in answer.body, "one more is refused, and told by which setting", answer)
    check(figures(pool, 1)["transfers_refused_total"] == 3, "... and counted", figures(pool, 1))
    lines = log_lines(pool, "1", r"warning drover-slave .*/export_raw_vdi from [0-9.]+ is refused .*transfer_requests")
    check(len(lines) == 1, "... and the log says so, once in a while", lines)
    for each in readers:
        each.reset()
    wait(lambda: quiet.items() <= figures(pool, 1).items(), "all have ended")
    wait(lambda: metric(pool, "drover_transfers") == 0, "... at the master, too")

    before, ours = figures(pool, 1), metric(pool, "drover_transfers_bytes_total")
    check(len(t.contents(made.disks[0])) == 64 * MIB, "a disk is read")
    t.write(made.disks[0], {0: noise(5 * MIB, 7)})
    after = figures(pool, 1)
    check(after["transfers_sent_bytes_total"] - before["transfers_sent_bytes_total"] == 64 * MIB, "what was sent is counted",
          (before, after))
    received = after["transfers_received_bytes_total"] - before["transfers_received_bytes_total"]
    check(5 * MIB < received < 5 * MIB + 100, "... and what came", received)
    check(metric(pool, "drover_transfers_bytes_total") - ours == 64 * MIB + received, "... at the master, too",
          metric(pool, "drover_transfers_bytes_total") - ours)
    failed = metric(pool, "drover_transfers_failed_total")
    check(t.get("/export", uuid="00000000-0000-0000-0000-000000000000", at=2).status == 404, "no such VM")
    wait(lambda: metric(pool, "drover_transfers_failed_total") == failed + 1, "failures are counted")
    destroy(pool, made.vm)
    configure(pool, "1")


def own_agent_away(t):
    """A VM that others see is asked of one of them at once, whether the master has noticed or not; one that only this host sees is not
    there."""
    pool = t.pool
    shared, own = Made(t, "of all", [(default_sr(pool), "raw", MIB, {})]), Made(t, "of one", [(local_sr(pool, 1), "raw", MIB, {})])
    xva = t.export(shared.vm)
    live = pool("host.get_metrics", pool.hosts()[0])

    def look(what):
        with t.open("GET", "/export", ref=shared.vm) as c:
            answer = c.answer()
        check(answer.status == 302 and "//127.0.1.1" not in answer.headers["location"], "sent to another, " + what, answer)
        answer = t.get("/export", ref=shared.vm)
        check(answer.status == 200 and answer.is_whole and answer.body == xva, "... which has it, " + what, answer)
        answer = t.get("/export", ref=own.vm)
        check(answer.status == 503, "who alone sees a disk may be back, " + what, answer)

    pool.kill("1")
    look("at once")
    check(pool("host_metrics.get_live", live), "that was before it is taken for dead")
    wait(lambda: metric(pool, "drover_hosts_linked") == 2, "the link is gone")
    look("without a link")
    [vm] = t.import_(xva, "an import meanwhile")
    destroy(pool, vm)
    wait(lambda: not pool("host_metrics.get_live", live), "it is taken for dead")
    look("when it is taken for dead")
    pool.start("1")
    pool.wait_hosts()
    with t.open("GET", "/export", ref=shared.vm) as c:
        check(c.answer().status == 200, "it serves again when it is back")
    for made in shared, own:
        destroy(pool, made.vm)


def nobody_else_reads_the_password(t):
    """What scripts/pool writes down for itself is its user's."""
    out = subprocess.run(["find", t.pool.dir, "-name", "pool.json", "-perm", "600"], capture_output=True, text=True, check=True).stdout
    check(out.strip().endswith("pool.json"), "pool.json is for its owner only", out)


def main():
    with Pool(hosts=3, redis=False) as pool:
        t = Transfers(pool)
        pristine = Inventory(pool)
        for case in figures_tell_who_waits, own_agent_away, nobody_else_reads_the_password:
            if sys.argv[1:] and case.__name__ not in sys.argv[1:]:
                continue
            began = time.monotonic()
            case(t)
            pristine.check_same(case.__name__)
            print("# %-30s %5.1f s" % (case.__name__, time.monotonic() - began), flush=True)
    return Checks.finish()


if __name__ == "__main__":
    sys.exit(main())
