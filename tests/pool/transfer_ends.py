#!/usr/bin/env python3
"""How connections of transfers end: in order or cut, plain and TLS, at an agent itself and by way of the master. Of a raw upload that
gives no true length the end is all that tells whether it is whole, and of an answer without length or chunks likewise.

    tests/pool/transfer_ends.py [CASE ...]
"""
import socket
import sys

from poollib import check, wait
from transferlib import MIB, Inventory, Made, default_sr, destroy, noise, run_cases

ENDLESS = {"Content-Length": str(1 << 50)}


def ways(t):
    """(host, tls, what): at the second host an agent serves by itself, at the first by way of the master."""
    return [(at, tls, "%s, %s" % ("by way of the master" if at == 1 else "at the agent", "TLS" if tls else "plain"))
            for at in (1, 2) for tls in (False, True)]


def half_close(c):
    c.end()
    check(c.read_some() == b"", "who half-closes sees the answer end in order")


def close(c):
    """For good. With TLS after its close_notify; both after reading what has come, for else it is a reset."""
    c.end()
    c.socket.close()


def reset(c):
    c.reset()


def fall_silent(c):
    """TCP ends, and TLS has not said so."""
    socket.socket.shutdown(c.socket, socket.SHUT_WR)


def fill(t, disk, size, seed):
    answer = t.put("/import_raw_vdi", noise(size, seed), vdi=disk)
    check(answer.status == 200, "a disk is filled", answer)


def uploads_without_true_length(t):
    """2^50, and HTTP/1.0: an end in order is the end, and a cut breaks it, of raw disks too."""
    pool, size = t.pool, 4 * MIB
    made = Made(t, "ends", [(default_sr(pool), "raw", size, {})])
    [disk] = made.disks
    half = noise(size // 2, 21)
    for version, headers in (("1.1", ENDLESS), ("1.0", {})):
        for at, tls, where in ways(t):
            ends = [half_close, close, reset] + [fall_silent] * tls
            for end in ends:
                what = "HTTP/%s, %s, %s" % (version, where, end.__name__)
                fill(t, disk, size, 20)
                before, task = Inventory(pool), t.task()
                with t.open("PUT", "/import_raw_vdi", at, version, headers, tls, vdi=disk, task_id=task) as c:
                    check(c.head()[0] == 200, what + ": 200 is said before")
                    c.send(half)
                    # what is unread at a reset is lost, and with it that there was an upload
                    wait(lambda: int(pool("task.get_other_config", task).get("transfer_bytes", "0")) > 0, what + ": it has begun")
                    end(c)
                    if end in (half_close, close):
                        t.ended(task, "success", what)
                        check(t.contents(disk) == half + bytes(size - len(half)), what + ": the rest is zeros")
                    else:
                        record = t.ended(task, "failure", what)
                        check(record["error_info"] == ["IMPORT_ERROR_PREMATURE_EOF"], what + ": it says so", record["error_info"])
                        if end is fall_silent:
                            check(not c.read_some(), what + ": no answer")
                before.check_same(what)
    destroy(pool, made.vm)


def uploads_that_fail(t):
    """Who was told 200 before sees a cut, and no end in order, when the import fails."""
    pool = t.pool
    made = Made(t, "fails", [(default_sr(pool), "raw", MIB, {})])
    for version, headers in (("1.1", ENDLESS), ("1.0", {})):
        for at, tls, where in ways(t):
            what = "HTTP/%s, %s, too much for the disk" % (version, where)
            if version == "1.1":
                what = "HTTP/%s, %s, called off" % (version, where)
            task = t.task()
            with t.open("PUT", "/import_raw_vdi", at, version, headers, tls, vdi=made.disks[0], task_id=task) as c:
                c.head()
                if version == "1.1":
                    c.send(noise(MIB // 2, 22))
                    wait(lambda: int(pool("task.get_other_config", task).get("transfer_bytes", "0")) > 0, what + ": it has begun")
                    pool("task.cancel", task)
                else:
                    c.send(noise(MIB + 1, 22))
                    c.end()
                check(c.read_some() is None, what + ": the client sees a cut")
            pool.wait_task(task)
            pool("task.destroy", task)
    destroy(pool, made.vm)


def a_length_that_is_not_kept(t):
    """A true length, of which less comes: refused, and who only half-closes hears that."""
    pool = t.pool
    made = Made(t, "short", [(default_sr(pool), "raw", MIB, {})])
    for at, tls, where in ways(t):
        task = t.task()
        with t.open("PUT", "/import_raw_vdi", at, headers={"Content-Length": str(MIB)}, tls=tls, vdi=made.disks[0], task_id=task) as c:
            c.send(noise(MIB // 2, 23))
            c.end()
            answer = c.answer()
            check(answer.status >= 400 and b"IMPORT_ERROR_PREMATURE_EOF" in answer.body, where + ": the answer says why", answer)
        record = t.ended(task, "failure", where + ": less than was said")
        check(record["error_info"] == ["IMPORT_ERROR_PREMATURE_EOF"], "... and so does the task", record["error_info"])
    destroy(pool, made.vm)


def answers_without_length(t):
    """HTTP/1.0 gets an archive up to the end of the connection: one in order, or a cut when not all has come."""
    pool = t.pool
    made = Made(t, "answers", [(default_sr(pool), "raw", 32 * MIB, {})])
    fill(t, made.disks[0], 32 * MIB, 24)
    whole = t.export(made.vm)
    for at, tls, where in ways(t):
        task = t.task()
        with t.open("GET", "/export", at, "1.0", tls=tls, ref=made.vm, task_id=task) as c:
            _, headers = c.head()
            check("content-length" not in headers and "transfer-encoding" not in headers, where + ": nothing tells the length", headers)
            body, in_order = c.body(headers)
            check(in_order and body == whole, where + ": all of it, and an end in order", (len(body), len(whole), in_order))
        t.ended(task, "success", where + ", HTTP/1.0")

        task = t.task()
        with t.open("GET", "/export", at, "1.0", tls=tls, ref=made.vm, task_id=task) as c:
            c.head()
            pool("task.cancel", task)
            body, in_order = c.body({})
            check(not in_order and len(body) < len(whole), where + ": called off, it is cut", (len(body), len(whole), in_order))
        pool.wait_task(task)
        pool("task.destroy", task)

        if at == 2 and not tls:
            continue # the kernel ends a dead process's connections in order: TCP alone cannot tell
        with t.open("GET", "/export", at, "1.0", tls=tls, ref=made.vm) as c:
            c.head()
            pool.kill(str(at))
            body, in_order = c.body({})
            check(not in_order and len(body) < len(whole), where + ": its agent was killed, it is cut", (len(body), len(whole), in_order))
        pool.start(str(at))
        pool.wait_hosts()
        wait(lambda: t.get("/export", at, method="HEAD", ref=made.vm).status == 200, where + ": the agent serves again")
    destroy(pool, made.vm)


def main():
    cases = [uploads_without_true_length, uploads_that_fail, a_length_that_is_not_kept, answers_without_length]
    return run_cases(cases)


if __name__ == "__main__":
    sys.exit(main())
