#!/usr/bin/env python3
"""XenAPI.py, unmodified from Debian's fence-agents: the life of a VM, events, tasks, live migration, on a pool of three hosts."""
import os
import shlex
import subprocess
import sys
import tempfile
import time

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, os.environ.get("XENAPI_PY_DIR", "/usr/share/fence"))
import XenAPI  # noqa: E402

passed = failed = 0


def check(condition, what, got=None):
    global passed, failed
    if condition:
        passed += 1
        print("ok - " + what)
    else:
        failed += 1
        print("NOT OK - %s: got %r" % (what, got))


def wait(condition, what, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    check(False, what + " within %d s" % seconds)
    return None


def fails(code, call, what):
    try:
        call()
        check(False, what, "success")
    except XenAPI.Failure as e:
        check(e.details[0] == code, what, e.details)
        return e.details
    return []


def login(url, user, password):
    session = XenAPI.Session(url)
    session.xenapi.login_with_password(user, password, "1.0", "test")
    return session


def done(x, task):
    wait(lambda: x.task.get_status(task) not in ("pending", "cancelling"), "task ends")
    record = x.task.get_record(task)
    x.task.destroy(task)
    return record


def life(x):
    template = x.VM.get_by_name_label("Debian Etch 4.0")[0]
    vm = x.VM.clone(template, "test-life")
    x.VM.provision(vm)
    x.VM.set_is_a_template(vm, False)
    check(len(x.VM.get_VBDs(vm)) > 0, "provision made disks")
    for call, state in ((lambda: x.VM.start(vm, True, False), "Paused"), (lambda: x.VM.unpause(vm), "Running"),
                        (lambda: x.VM.pause(vm), "Paused"), (lambda: x.VM.unpause(vm), "Running"),
                        (lambda: x.VM.suspend(vm), "Suspended"), (lambda: x.VM.resume(vm, False, False), "Running"),
                        (lambda: x.VM.clean_reboot(vm), "Running"), (lambda: x.VM.hard_reboot(vm), "Running"),
                        (lambda: x.VM.clean_shutdown(vm), "Halted"), (lambda: x.VM.start(vm, False, True), "Running")):
        call()
        check(x.VM.get_power_state(vm) == state, "the VM is " + state, x.VM.get_power_state(vm))
    details = fails("VM_BAD_POWER_STATE", lambda: x.VM.start(vm, False, False), "start of a running VM")
    check(details[1:] == [vm, "halted", "running"], "... says what it wants and what is", details)
    check(x.VM.get_current_operations(vm) == {}, "no operation is left")
    record = done(x, x.Async.VM.clone(vm, "no"))
    check(record["status"] == "failure" and record["error_info"][0] == "VM_BAD_POWER_STATE", "Async reports the failure", record)
    x.VM.hard_shutdown(vm)
    disks = [x.VBD.get_VDI(b) for b in x.VM.get_VBDs(vm) if x.VBD.get_type(b) == "Disk"]
    x.VM.destroy(vm)
    for disk in disks:
        x.VDI.destroy(disk)
    fails("HANDLE_INVALID", lambda: x.VM.get_record(vm), "a destroyed VM")


def move(x):
    hosts = sorted(x.host.get_all())
    vms = [ref for ref, r in x.VM.get_all_records().items()
           if r["power_state"] == "Running" and not r["is_control_domain"]]
    token = getattr(x.event, "from")(["vm"], "", 0.0)["token"]
    targets = {}
    tasks = []
    for vm in vms:
        targets[vm] = hosts[(hosts.index(x.VM.get_resident_on(vm)) + 1) % len(hosts)]
        tasks.append(x.Async.VM.pool_migrate(vm, targets[vm], {"live": "true"}))
    for task in tasks:
        record = done(x, task)
        check(record["status"] == "success", "a move succeeds", (record["status"], record["error_info"]))
    for vm in vms:
        check(x.VM.get_resident_on(vm) == targets[vm], "it is where it was sent")
        check(vm in x.host.get_resident_VMs(targets[vm]), "and its host knows it")
    events = getattr(x.event, "from")(["vm"], token, 5.0)["events"]
    check(set(vms) <= {e["ref"] for e in events}, "events told of every move")
    x.host.disable(hosts[0])
    record = done(x, x.Async.host.evacuate(hosts[0]))
    check(record["status"] == "success", "a host is evacuated", record["error_info"])
    left = [vm for vm in x.host.get_resident_VMs(hosts[0]) if not x.VM.get_is_control_domain(vm)]
    check(left == [], "and empty", left)
    x.host.enable(hosts[0])


def main():
    with tempfile.TemporaryDirectory() as work:
        pool = [os.path.join(ROOT, "scripts", "pool")]
        where = ["--dir", os.path.join(work, "pool")]
        out = subprocess.run(pool + ["up", "--hosts", "3", "--vms", "3"] + where, check=True, capture_output=True, text=True)
        env = dict(word.split("=", 1) for word in shlex.split(out.stdout) if "=" in word)
        try:
            session = login(env["POOL_URL"], env["POOL_USER"], env["POOL_PASSWORD"])
            life(session.xenapi)
            move(session.xenapi)
            session.xenapi.session.logout()
        finally:
            subprocess.run(pool + ["down"] + where, check=False, capture_output=True)
    print("%d passed, %d failed" % (passed, failed))
    return 0 if failed == 0 and passed else 1


if __name__ == "__main__":
    sys.exit(main())
