#!/usr/bin/env python3
"""What an operator finds in the logs: the whole story of a task, a line for what failed, who has the wrong secret, and what an
agent waits for; by the scripts that find the pool in POOL_DIR."""
import os
import subprocess
import tempfile

from poollib import ROOT, Checks, Failure, Pool, check, wait


def script(name, *arguments, pool):
    return subprocess.run([os.path.join(ROOT, "scripts", name), *arguments], text=True, capture_output=True, check=True,
                          env=dict(os.environ, POOL_DIR=pool.dir)).stdout


def text_of(path):
    with open(path, errors="replace") as f:
        return f.read()


def a_task_has_its_story(pool):
    vm = pool.vms()["vm1"]
    host = next(h for h in pool.hosts() if h != pool("VM.get_resident_on", vm))
    task = pool("Async.VM.pool_migrate", vm, host, {})
    uuid = pool("task.get_uuid", task)
    pool.wait_task(task)
    lines = script("trace", uuid, pool=pool).splitlines()
    check("VM.pool_migrate asked by root from 127.0.0.1: task " + uuid in lines[0], "the first line says who asked", lines[0])
    check(any(line.endswith("VM.pool_migrate succeeded") for line in lines[-3:]), "the end says what came of it", lines[-3:])
    at = {word: next((i for i, line in enumerate(lines) if word in line), -1)
          for word in ("vm_send on host", "] vm_send", "vm_send: done", "COMMIT: VM " + pool("VM.get_uuid", vm), "vm_unpause on")}
    check(list(at.values()) == sorted(at.values()) and -1 not in at.values(), "asking, doing, COMMIT, going on", lines)
    check(script("trace", task, pool=pool).splitlines() == lines, "by its reference, too")


def what_fails_leaves_a_line(pool):
    vm = pool.vms()["vm1"]
    try:
        pool("VM.start", vm, False, False)
    except Failure:
        pass
    log = text_of(os.path.join(pool.dir, "log", "master.log"))
    check("|VM.start] VM.start failed: VM_BAD_POWER_STATE\n" in log, "a failed call has a line, its tag is whole", log[-500:])


def strangers_and_waiting_agents_are_told(pool):
    agent = os.path.join(os.environ.get("DROVER_BUILD", os.path.join(ROOT, "build", "release")), "drover-slave")
    conf = text_of(os.path.join(pool.dir, "master.conf"))
    door = conf.split("join_listen = ")[1].split("\n")[0]
    with tempfile.TemporaryDirectory() as top:
        secret, log = os.path.join(top, "secret"), os.path.join(top, "log")
        host = "6a7f1f4c-0000-4000-8000-000000000077"
        with open(secret, "w") as f:
            f.write("another\n")
        processes = []

        def begin(*command):
            processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

        begin(agent, "--dir", top, "--host", host, "--join", door, "--pool_secret_file", secret, "--log_file", log)
        try:
            wait(lambda: os.path.exists(log) and "waiting for drover-guests at %s/guests.sock" % top in text_of(log),
                 "the agent says what it waits for")
            begin(agent.replace("-slave", "-guests"), "--socket", os.path.join(top, "guests.sock"), "--host-uuid", host)
            master_log = os.path.join(pool.dir, "log", "master.log")
            wait(lambda: "127.0.0.1 tried to speak and does not have our pool secret" in text_of(master_log),
                 "the master says who has another secret")
            wait(lambda: "does not have our pool secret" in text_of(log), "so does the agent")
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(30)


def main():
    with Pool(hosts=2, vms=1, redis=False) as pool:
        a_task_has_its_story(pool)
        what_fails_leaves_a_line(pool)
        strangers_and_waiting_agents_are_told(pool)
        script("pool", "down", "--keep", pool=pool)
        check(os.listdir(os.path.join(pool.dir, "log")) and not os.path.exists(os.path.join(pool.dir, "master")),
              "--keep leaves the logs alone", os.listdir(pool.dir))
        pool.run("up", "--hosts", "1", "--no-redis")
    return Checks.finish()


if __name__ == "__main__":
    raise SystemExit(main())
