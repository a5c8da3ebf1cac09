"""What the crash matrices share: the points of `--crash-points`, and a process that is started anew so that it does something at
one of them. DROVER_CRASH_TRACE writes down what it passes: a case whose point was not passed has shown nothing, and fails."""
import argparse
import fnmatch
import os
import random
import re
import subprocess
import time

from poollib import LOST, Checks, Failure, Pool, check, wait

HOST_DEAD_S = 3              # of the pools of these tests: quick(); the shortest of which a loaded machine makes no dead hosts
STOPPED_S = HOST_DEAD_S + 1.5
FALTER_S = 0.7               # a stop that nobody notices
MET_S = 60                   # so long the point may take to come
LATE_S = 2                   # ... after the task's end, since the last messages come behind it
LOSABLE = ".before"          # points of this kind stand before a message; what follows the others cannot be lost


def build_directory():
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "build",
                        os.environ.get("DROVER_PRESET", "release"))


def points(program):
    """All that the program knows of its own side; made from slave_calls.def, and what other modules have of their own."""
    out = subprocess.run([os.path.join(build_directory(), program), "--crash-points"], check=True, capture_output=True, text=True)
    side = program.split("-")[1] + "."
    return [line for line in out.stdout.split() if line.startswith(side)]


def message_of(point):
    return point.split(".")[1]


def points_of(program, messages):
    return [point for point in points(program) if message_of(point) in messages]


def actions_at(point, actions):
    return [action for action in actions if action != "drop-reply" or point.endswith(LOSABLE)]


def state_of(pid):
    """gone, stopped, or None: it goes on."""
    try:
        with open("/proc/%d/stat" % pid) as f:
            state = f.read().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "gone"
    return "gone" if state in "ZX" else "stopped" if state in "tT" else None


def read_trace(path):
    """The points that a process has passed."""
    try:
        with open(path) as f:
            return f.read().split()
    except FileNotFoundError:
        return []


def logged(pool, process, pattern):
    """How often the process has said this."""
    with open(os.path.join(pool.dir, "log", process + ".log"), errors="replace") as f:
        return len(re.findall(pattern, f.read(), re.MULTILINE))


def host_dead_after(pool, seconds):
    """When the pool takes silent hosts for dead: late, so that a case may take its time while a process is stopped."""
    with open(os.path.join(pool.dir, "master.conf"), "a") as f:
        f.write("host_dead_s = %d\n" % seconds)
    pool.kill("master")
    start(pool, "master")


def quick(pool):
    """... or soon, so that cases in which one stops for longer need not last."""
    host_dead_after(pool, HOST_DEAD_S)


def host_numbers(pool):
    return [key.split("_")[1] for key in pool.env if re.fullmatch(r"HOST_\d+_URL", key)]


def start(pool, process, **env):
    """The process comes back, and the hosts concerned have their links again; records say that a host lives before that."""
    hosts = host_numbers(pool) if process == "master" else [process] if process.isdigit() else []
    links = {host: logged(pool, host, r"link \d+ stands") for host in hosts}
    pool.start(process, **env)
    pool.wait_master()
    wait(lambda: all(logged(pool, host, r"link \d+ stands") > links[host] for host in hosts), process + ": the links stand")
    pool.wait_hosts()


class Patience:
    """Calls to a master that may stop or die while it is asked."""

    def __init__(self, pool, seconds):
        self.pool, self.seconds = pool, seconds

    def __enter__(self):
        self.pool.timeout_s = self.seconds

    def __exit__(self, *_):
        self.pool.timeout_s = Pool.timeout_s


def try_call(pool, method, *arguments, seconds=5):
    """None when it was lost: what became of it is then for the pool to know."""
    with Patience(pool, seconds):
        try:
            return pool(method, *arguments)
        except (*LOST, Failure):
            return None


class Armed:
    """A process with one point armed. action: kill, stop (for longer than the others wait), falter (for less), drop-reply, or
    hold: what happens while it stands there is the caller's affair."""

    def __init__(self, pool, process, point, action):
        self.pool, self.process, self.point, self.action = pool, process, point, action
        self.trace = os.path.join(pool.dir, "trace.%s" % process)
        self.pid = 0

    def environment(self):
        if os.path.exists(self.trace):
            os.unlink(self.trace)
        signal = self.action if self.action in ("kill", "drop-reply") else "stop"
        return {"DROVER_CRASH_AT": "%s:%s" % (self.point, signal), "DROVER_CRASH_TRACE": self.trace}

    def arm(self):
        """Started anew, it waits for its point. From a process that has passed its point nothing is left to disarm."""
        self.pool.kill(self.process)
        start(self.pool, self.process, **self.environment())
        self.pid = self.pool.pid(self.process)

    def arm_dead(self):
        """The same of a master that is gone: what it does first is what it is armed for, so nothing is waited for."""
        self.pool.start(self.process, **self.environment())
        self.pid = self.pool.pid(self.process)

    def was_reached(self):
        return self.point in read_trace(self.trace)

    def now(self):
        return state_of(self.pid) or ("dropped" if self.action == "drop-reply" and self.was_reached() else None)

    def meet(self, has_ended):
        """gone, stopped, dropped; or ended: what should have led to the point is over, and it was not passed."""
        what = wait(lambda: self.now() or ("ended" if has_ended() else None), self.point + ": the point is passed", MET_S)
        end = time.monotonic() + LATE_S
        while what == "ended" and not self.now() and time.monotonic() < end:
            time.sleep(0.02)
        return self.now() or what

    def recover(self, what):
        """After meet(): the process comes back."""
        if what == "gone":
            start(self.pool, self.process)
        elif what == "stopped":
            if self.action in ("stop", "falter"):
                time.sleep(STOPPED_S if self.action == "stop" else FALTER_S) # the stop itself is the fault: so long it lasts
            self.pool.go_on(self.process)
        self.pool.wait_master()
        self.pool.wait_hosts()


def is_ended(pool, task):
    """Of a task whose reference may have been lost with the answer: never."""
    status = task and try_call(pool, "task.get_status", task, seconds=2)
    return status not in (None, "pending", "cancelling")


# ---- a matrix of cases ----

def options(variable, cases):
    """What the matrices understand; by default some cases, as many as the environment's variable says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=int(os.environ.get(variable, cases)))
    parser.add_argument("--seed", type=int, default=int(os.environ.get("DROVER_SEED", time.time_ns() % 1000000)))
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--part", default="1/1", help="I/N: of all cases those of one of N runs side by side")
    parser.add_argument("--go-on", action="store_true", help="after a failure the others are tried in a new pool")
    parser.add_argument("named", nargs="*", help="cases, with * and ? as the shell has them")
    return parser.parse_args()


def chosen(args, cases):
    """Of names."""
    if args.named:
        return [case for case in cases if any(fnmatch.fnmatchcase(case, pattern) for pattern in args.named)]
    if args.all:
        part, parts = (int(number) for number in args.part.split("/"))
        return cases[part - 1::parts]
    print("seed %d" % args.seed)
    return random.Random(args.seed).sample(cases, min(args.cases, len(cases)))


def run_matrix(args, make_world):
    """make_world(): a context with cases, {name: function that runs it and answers what is worth telling}."""
    names, done, failed = None, 0, []
    while names is None or (done < len(names) and (args.go_on or not Checks.failed)):
        before = Checks.failed
        with make_world() as world:
            if Checks.failed > before:
                break
            if names is None:
                names = chosen(args, list(world.cases))
            while done < len(names) and Checks.failed == before:
                began, name, note = time.monotonic(), names[done], None
                try:
                    note = world.cases[name]()
                except (*LOST, Failure, RuntimeError) as e:
                    check(False, name + ": it can be tried", e)
                done += 1
                print("# %d/%d %-60s %5.1f s  %s" % (done, len(names), name, time.monotonic() - began, note or ""), flush=True)
                failed += [name] if Checks.failed > before else []
    check(done > 0, "there are such cases", args.named)
    print("%d cases, failed: %s" % (done, " ".join(failed) or "none"))
    return Checks.finish()
