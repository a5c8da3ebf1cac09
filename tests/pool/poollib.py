"""A pool of real processes for the tests of this folder: scripts/pool, the API by plain XML-RPC, the guests' journals."""
import glob
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import xmlrpc.client

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
sys.path.insert(0, os.path.join(ROOT, "tests"))
import journal  # noqa: E402

NULL = "OpaqueRef:NULL"
LOST = (OSError, xmlrpc.client.ProtocolError, __import__("http.client").client.HTTPException)


class Failure(Exception):
    """An API call failed; details[0] is the code."""

    def __init__(self, details):
        super().__init__(details)
        self.details = details


class Checks:
    passed = failed = 0

    @classmethod
    def check(cls, condition, what, got=None):
        if condition:
            cls.passed += 1
        else:
            cls.failed += 1
            print("NOT OK - %s: got %r" % (what, got), flush=True)
        return condition

    @classmethod
    def finish(cls):
        print("%d passed, %d failed" % (cls.passed, cls.failed))
        return 0 if cls.failed == 0 and cls.passed else 1


check = Checks.check


def wait(condition, what, seconds=60):
    """The condition's first true value; a failed check after the time."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            check(False, "%s within %d s" % (what, seconds))
            return None
        time.sleep(0.02)


class Transport(xmlrpc.client.Transport):
    """A stopped master answers nothing, and must not stop a test for ever."""

    def __init__(self, timeout_s):
        super().__init__()
        self.timeout_s = timeout_s

    def make_connection(self, host):
        connection = super().make_connection(host)
        connection.timeout = self.timeout_s
        return connection


class Pool:
    timeout_s = 120

    def __init__(self, hosts=3, vms=0, redis=True, env=None):
        """env: of all its processes, for ever; their directory is that of the pool."""
        self.work = tempfile.TemporaryDirectory()
        self.dir = os.path.join(self.work.name, "pool")
        arguments = ["up", "--hosts", str(hosts), "--vms", str(vms)] + ([] if redis else ["--no-redis"])
        self.env, self.always = {}, env or {}
        self.run(*arguments)
        self.status()
        self.session = None

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind or Checks.failed:
            for path in sorted(glob.glob(os.path.join(self.dir, "log", "*.log"))):
                print("==> %s" % os.path.basename(path))
                with open(path, errors="replace") as f:
                    print("".join(f.readlines()[-25:]))
        self.run("down")
        self.work.cleanup()

    def run(self, *arguments, env=None):
        done = subprocess.run([os.path.join(ROOT, "scripts", "pool"), *arguments, "--dir", self.dir], text=True,
                              capture_output=True, env={**os.environ, **self.always, **(env or {})}, check=False)
        if done.returncode != 0:
            raise RuntimeError("scripts/pool %s: %s" % (" ".join(arguments), done.stderr))
        return done.stdout

    def status(self):
        self.env = dict(word.split("=", 1) for word in shlex.split(self.run("status")) if "=" in word)
        return self.env

    def pid(self, name):
        """master, redis, 1 (a slave), guests1"""
        key = ("GUESTS_%s_PID" % name[6:] if name.startswith("guests") else
               "SLAVE_%s_PID" % name if name.isdigit() else name.upper() + "_PID")
        return int(self.status()[key] or 0)

    def kill(self, name):
        self.run("kill", name)

    def start(self, name, **env):
        self.run("start", name, env=env)

    def signal(self, name, number):
        os.kill(self.pid(name), number)

    def stop(self, name):
        self.signal(name, signal.SIGSTOP)

    def go_on(self, name):
        self.signal(name, signal.SIGCONT)

    # ---- the API ----

    def raw(self, method, *arguments):
        server = xmlrpc.client.ServerProxy(self.env["POOL_URL"], transport=Transport(self.timeout_s))
        answer = getattr(server, method)(*arguments)
        if answer["Status"] != "Success":
            raise Failure(answer["ErrorDescription"])
        return answer["Value"]

    def __call__(self, method, *arguments):
        """A call in a session of ours, made anew when it is gone."""
        for _ in range(2):
            if self.session is None:
                self.session = self.raw("session.login_with_password", self.env["POOL_USER"], self.env["POOL_PASSWORD"])
            try:
                return self.raw(method, self.session, *arguments)
            except Failure as e:
                if e.details[0] != "SESSION_INVALID":
                    raise
                self.session = None
        raise RuntimeError("no session lasts")

    def wait_master(self):
        def answers():
            try:
                return self("pool.get_all")
            except LOST:
                return None
            except Failure:
                return None
        return wait(answers, "the master answers")

    def wait_hosts(self, seconds=60):
        def live():
            metrics = self("host_metrics.get_all_records")
            return all(r["enabled"] and metrics[r["metrics"]]["live"] for r in self("host.get_all_records").values())
        return wait(live, "all hosts are live", seconds)

    def hosts(self):
        """References of the hosts, host1 first."""
        records = self("host.get_all_records")
        return sorted(records, key=lambda ref: records[ref]["name_label"])

    def vms(self):
        """Name -> reference of the running guests."""
        return {r["name_label"]: ref for ref, r in self("VM.get_all_records").items()
                if not r["is_a_template"] and not r["is_control_domain"]}

    def wait_task(self, task, seconds=120):
        ended = wait(lambda: self("task.get_status", task) not in ("pending", "cancelling"), "the task ends", seconds)
        return self("task.get_record", task) if ended else None

    def journal(self, vm):
        uuid = self("VM.get_uuid", vm)
        found = glob.glob(os.path.join(self.dir, "**", uuid + ".journal"), recursive=True)
        check(len(found) == 1, "the VM has one journal", found)
        return journal.judge(found[0]) if found else None

    def ticks(self, vm):
        report = self.journal(vm)
        return report.ticks if report else 0

    def check_exactly_once(self, vm, what):
        """The guest runs, and its journal knows of no second writer and no lost tick."""
        before = self.ticks(vm)
        wait(lambda: self.ticks(vm) > before, what + ": the guest ticks")
        report = self.journal(vm)
        check(report.wrong == [], what + ": it ran exactly once", report.wrong)

    def check_quiet(self, what, seconds=60):
        """Nothing is left of an operation: no claim, no reservation."""
        def quiet():
            return [(r["name_label"], r["current_operations"], r["scheduled_to_be_resident_on"])
                    for r in self("VM.get_all_records").values()
                    if r["current_operations"] or r["scheduled_to_be_resident_on"] != NULL]
        left, end = quiet(), time.monotonic() + seconds
        while left and time.monotonic() < end:
            time.sleep(0.05)
            left = quiet() # what comes later is of something else
        check(left == [], what + ": no claim and no reservation is left", left)
