"""What the tests share that look at who has what while a transfer is at work: transfers that stand still in the middle because their
client does, and calls that are refused, or wait."""
from poollib import Failure, check, wait
from transferlib import MIB, Inventory, Made, default_sr, noise, refs

# More than sockets and pipes between a client and a disk hold: whoever does not read it all keeps the export at work.
BIG = 48 * MIB


def outcome(pool, method, *arguments):
    """["Success"], or the failure's code and details."""
    try:
        pool(method, *arguments)
        return ["Success"]
    except Failure as e:
        return e.details


def refused(pool, codes, what, method, *arguments):
    got = outcome(pool, method, *arguments)
    check(got[0] in codes, "%s: %s is refused" % (what, method), got)


def waits(pool, what, method, *arguments):
    """Its turn does not come as long as the other is at work; it is not waited for."""
    task = pool("Async." + method, *arguments)
    wait(lambda: pool("task.get_allowed_operations", task) == ["cancel"] or pool("task.get_status", task) != "pending",
         "%s: %s waits or has ended" % (what, method))
    check(pool("task.get_status", task) == "pending", "%s: %s waits" % (what, method), pool("task.get_error_info", task))
    pool("task.cancel", task)
    pool.wait_task(task)
    pool("task.destroy", task)


def drive(pool, vm, vdi, mode="RW"):
    return pool("VBD.create", {"VM": vm, "VDI": vdi, "userdevice": "autodetect", "bootable": False, "mode": mode, "type": "Disk",
                               "empty": False, "unpluggable": True, "other_config": {}, "qos_algorithm_type": "",
                               "qos_algorithm_params": {}})


def big(t, name, sr=None, image_format="raw"):
    return Made(t, name, [(sr or default_sr(t.pool), image_format, BIG, {0: noise(BIG - 8 * MIB, 1)})])


class Upload:
    """A PUT whose client has sent half and waits. `vms` and `disks` are what has come since."""

    def __init__(self, t, path, body, at=1, **query):
        self.t, self.body, self.task, self.before = t, body, t.task(), Inventory(t.pool)
        self.connection = t.open("PUT", path, at, headers={"Content-Length": str(len(body))}, task_id=self.task, **query)
        self.connection.send(body[:len(body) // 2])
        wait(lambda: int(t.pool("task.get_other_config", self.task).get("transfer_bytes", "0")) > MIB, "bytes are being written")
        self.vms, self.disks = (sorted(set(t.pool(each + ".get_all")) - self.before.now[each]) for each in ("VM", "VDI"))

    def finish(self, what):
        """The rest: what the task's result names."""
        self.connection.send(self.body[len(self.body) // 2:])
        answer = self.connection.answer()
        check(answer.status == 200, what + " is answered", answer)
        record = self.t.ended(self.task, "success", what)
        return refs(record["result"]) if record else []

    def leave(self, what):
        self.connection.reset()
        self.t.ended(self.task, "failure", what)
        self.before.check_same(what)


class Download:
    """A GET whose client has read a little and waits."""

    def __init__(self, t, path, at=1, **query):
        self.t, self.task = t, t.task()
        self.connection = t.open("GET", path, at, task_id=self.task, **query)
        status, self.headers = self.connection.head()
        check(status == 200, path + " begins", status)

    def finish(self, what):
        body, is_whole = self.connection.body(self.headers)
        self.connection.socket.close()
        check(is_whole, what + " is whole", len(body))
        self.t.ended(self.task, "success", what)
