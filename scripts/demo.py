#!/usr/bin/env python3
"""Rotate every running VM of a pool over its hosts, live and all at once, and prove from the guests' journals that each ran
exactly once. Called by scripts/demo with a pool in POOL_URL, POOL_USER, POOL_PASSWORD, POOL_DIR."""
import argparse
import glob
import os
import sys
import threading
import time

sys.path.insert(0, os.environ.get("XENAPI_PY_DIR", "/usr/share/fence"))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests"))
import XenAPI  # noqa: E402  (Debian package fence-agents, unmodified)
import journal  # noqa: E402

NULL = "OpaqueRef:NULL"
TICK_MS = 100  # of the simulated guests, unless a VM's other_config says otherwise


def login(originator):
    session = XenAPI.Session(os.environ["POOL_URL"])
    session.xenapi.login_with_password(os.environ["POOL_USER"], os.environ["POOL_PASSWORD"], "1.0", originator)
    return session


class Watcher(threading.Thread):
    """Prints what event.from tells of VMs and tasks, as it comes."""

    def __init__(self, names):
        super().__init__(daemon=True)
        self.names = names
        self.xenapi = login("demo-events").xenapi
        self.token = getattr(self.xenapi.event, "from")(["vm", "task"], "", 0.0)["token"]
        self.count = 0
        self.stopping = False
        self.where = {}
        self.seen = {}  # by VM: its description, as last shown
        self.start_time = time.time()

    def catch_up(self, xenapi):
        """Until it has shown what happened so far: events come in their order, so one of our own making is the last."""
        vm = next(iter(self.names["vm"]), None)
        if not vm:
            return
        mark = "round %f" % time.time()
        xenapi.VM.set_name_description(vm, mark)
        end = time.time() + 10
        while self.seen.get(vm) != mark and self.is_alive() and time.time() < end:
            time.sleep(0.01)

    def run(self):
        while not self.stopping:
            batch = getattr(self.xenapi.event, "from")(["vm", "task"], self.token, 1.0)
            self.token = batch["token"]
            for event in batch["events"]:
                self.count += 1
                self.show(event)

    def show(self, event):
        at = time.time() - self.start_time
        record = event.get("snapshot")
        if event["class"] == "vm" and record and event["ref"] in self.names["vm"]:
            self.seen[event["ref"]] = record["name_description"]
            host = self.names["host"].get(record["resident_on"], "no host")
            if self.where.get(event["ref"]) != host:
                self.where[event["ref"]] = host
                print("  %6.2f s  event  %-4s %s on %s" % (at, record["name_label"], record["power_state"], host))
        elif event["class"] == "task" and record and record["status"] != "pending":
            print("  %6.2f s  event  task %s: %s" % (at, record["name_label"], record["status"]))


def running_vms(xenapi):
    return {ref: record for ref, record in xenapi.VM.get_all_records().items()
            if not record["is_a_template"] and not record["is_control_domain"] and record["power_state"] == "Running"}


def rotate(xenapi, hosts):
    """One round: each VM to the next host, all tasks at once. Returns the seconds it took."""
    began = time.time()
    tasks = {}
    for vm, record in running_vms(xenapi).items():
        target = hosts[(hosts.index(record["resident_on"]) + 1) % len(hosts)]
        tasks[xenapi.Async.VM.pool_migrate(vm, target, {"live": "true"})] = vm
    failed = []
    for task in tasks:
        while xenapi.task.get_status(task) in ("pending", "cancelling"):
            time.sleep(0.05)
        if xenapi.task.get_status(task) != "success":
            failed.append((tasks[task], xenapi.task.get_error_info(task)))
        xenapi.task.destroy(task)
    return time.time() - began, failed


def journal_path(uuid):
    found = glob.glob(os.path.join(os.environ["POOL_DIR"], "**", uuid + ".journal"), recursive=True)
    if len(found) != 1:
        sys.exit("demo: %d journals of VM %s" % (len(found), uuid))
    return found[0]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=2)
    rounds = parser.parse_args().rounds

    session = login("demo")
    xenapi = session.xenapi
    host_records = xenapi.host.get_all_records()
    hosts = sorted(host_records, key=lambda ref: host_records[ref]["name_label"])
    host_names = {ref: host_records[ref]["name_label"] for ref in hosts}
    host_uuids = {host_records[ref]["uuid"]: host_records[ref]["name_label"] for ref in hosts}
    vms = running_vms(xenapi)
    names = {"vm": vms, "host": host_names}
    watcher = Watcher(names)
    watcher.where = {ref: host_names[record["resident_on"]] for ref, record in vms.items()}
    before = dict(watcher.where)
    watcher.start()

    wrong = []
    for number in range(rounds):
        print("Round %d: moving %d VMs at once ..." % (number + 1, len(vms)))
        seconds, failed = rotate(xenapi, hosts)
        watcher.catch_up(xenapi)
        print("Round %d took %.2f s; %d of %d moves succeeded." % (number + 1, seconds, len(vms) - len(failed), len(vms)))
        wrong += ["%s: %s" % (vms[vm]["name_label"], error) for vm, error in failed]
    time.sleep(1.2)  # a few ticks more for the journals; the watcher's last wait ends
    watcher.stopping = True
    watcher.join(10)

    print("\nFrom the guests' own journals. A running guest counts a tick each %d ms and writes it down, so that none may be\n"
          "missing or there twice. Pause: how late a tick came, at most." % TICK_MS)
    print("\n%-6s %-10s %-10s %-14s %s" % ("VM", "was on", "is on", "ticks so far", "longest pause"))
    after = running_vms(xenapi)
    for ref in sorted(vms, key=lambda r: vms[r]["name_label"]):
        name = vms[ref]["name_label"]
        now = host_names.get(after.get(ref, {}).get("resident_on", NULL), "nowhere")
        expected = host_names[hosts[([host_names[h] for h in hosts].index(before[ref]) + rounds) % len(hosts)]]
        story = journal.judge(journal_path(vms[ref]["uuid"]))
        problems = list(story.wrong)
        if now != expected:
            problems.append("is on %s, not on %s" % (now, expected))
        if len({writer.host for writer in story.writers}) < min(rounds + 1, len(hosts)):
            problems.append("its journal names %d hosts only" % len(story.writers()))
        print("%-6s %-10s %-10s %-14d %4d ms       %s" % (name, before[ref], now, story.ticks, max(0, story.longest_gap_ms - TICK_MS),
                                                       "  ".join(problems) or "exactly once, no tick missing"))
        wrong += ["%s: %s" % (name, problem) for problem in problems]
    print("\nJournals were written by: %s" % ", ".join(sorted(host_uuids.values())))
    print("%d events were received." % watcher.count)
    session.xenapi.session.logout()
    if watcher.count == 0:
        wrong.append("no event came")
    if not vms:
        wrong.append("there was no running VM")
    for line in wrong:
        print("WRONG: " + line)
    print("The demo failed." if wrong else "Every VM ran exactly once, all the time.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
