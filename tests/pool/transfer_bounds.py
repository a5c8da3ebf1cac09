#!/usr/bin/env python3
"""How many transfers a pool has at once, and how much text of imports its master holds: what is beyond is refused with TOO_BUSY, which
the task says that the client named, and is taken when there is room again. The master goes on meanwhile. Who goes while it waits for
what is busy takes no room any more.

  transfer_bounds.py [CASE ...]"""
import struct
import sys
import time

from poollib import check, wait
from transferlib import MIB, Connection, Inventory, Made, configure, default_sr, destroy, noise, run_cases

TRANSFERS = 1024             # of a pool (master/http_transfer.c)
METADATA_BYTES = 256 * MIB   # of all texts and archives (master/metadata_http.h)
SOON_S = 20                  # a wait for what is busy lasts two minutes
DISK_BYTES = 64 << 10        # less than sockets hold: whoever is slow to read it is no slow client


def error_of(t, task, what):
    return t.ended(task, "failure", what)["error_info"]


# ---- how many ----

class Overwriting:
    """A disk that is being written to for as long as we like; whoever wants to read it waits."""

    def __init__(self, t, vdi):
        self.t, self.task = t, t.task()
        self.connection = t.open("PUT", "/import_raw_vdi", headers={"Transfer-Encoding": "chunked"}, vdi=vdi, chunked="true",
                                 task_id=self.task)
        self.more()
        wait(lambda: t.pool("VDI.get_current_operations", vdi), "the disk is claimed")

    def more(self):
        """Always the same bytes; without any for a while the client would be cut."""
        self.connection.send_chunk(struct.pack("<QI", 0, DISK_BYTES) + noise(DISK_BYTES, 1))

    def finish(self):
        self.connection.send_chunk(struct.pack("<QI", 0, 0))
        self.connection.send(b"0\r\n\r\n")
        check(self.connection.answer().status == 200, "the disk is written")
        self.t.ended(self.task, "success", "the upload")


def pending(pool, label):
    return [ref for ref, task in pool("task.get_all_records").items() if task["name_label"] == label and task["status"] == "pending"]


def one_more_is_refused(t, made):
    """... whoever asks, wherever, for whatever."""
    [disk], before = made.disks, Inventory(t.pool)
    for at in 1, 2:
        for method, path, query in (("GET", "/export_raw_vdi", {"vdi": disk}), ("GET", "/export", {"ref": made.vm}),
                                    ("PUT", "/import", {}), ("PUT", "/import_raw_vdi", {"sr_id": default_sr(t.pool)})):
            what, task = "%s at host %d, of too many" % (path, at), t.task()
            answer = t.get(path, at, task_id=task, **query) if method == "GET" else t.put(path, b"x", at, task_id=task, **query)
            check(answer.status == 503 and b"TOO_BUSY" in answer.body, what + " is refused", answer)
            error = error_of(t, task, what)
            check(error == ["TOO_BUSY"], what + ": its task says so", error)
    wait(lambda: not before.difference(), "nothing remains of them")


def calls_are_answered(t):
    """Transfers are not all that a master may have at work."""
    began = time.monotonic()
    destroy(t.pool, Made(t, "beside", []).vm)
    check(time.monotonic() - began < 10, "calls are answered beside them", time.monotonic() - began)


def come(t, disk, writing, waiting):
    """As many as may wait for a disk that is overwritten, at both hosts."""
    while len(waiting) < TRANSFERS - 1:
        waiting.append(Connection(t.url(1 + len(waiting) % 2), "GET", "/export_raw_vdi", t.query({"vdi": disk})))
        if len(waiting) % 100 == 0:
            writing.more()
    wait(lambda: len(pending(t.pool, "VDI.export_raw_vdi")) == TRANSFERS - 1, "all of them wait")
    writing.more()


def a_pool_has_so_many(t):
    pool = t.pool
    for host in "1", "2":
        configure(pool, host, transfer_requests=TRANSFERS)
    made = Made(t, "wanted", [(default_sr(pool), "raw", DISK_BYTES, {})])
    [disk] = made.disks
    writing, waiting = Overwriting(t, disk), []
    come(t, disk, writing, waiting)
    one_more_is_refused(t, made)
    calls_are_answered(t)
    for connection in waiting[:100]:
        connection.reset()
    del waiting[:100]
    wait(lambda: len(pending(pool, "VDI.export_raw_vdi")) == len(waiting), "who goes takes no room any more", SOON_S)
    come(t, disk, writing, waiting)
    one_more_is_refused(t, made)
    writing.finish()
    answers = [connection.answer() for connection in waiting]
    wrong = [answer for answer in answers if answer.status != 200 or not answer.is_whole or answer.body != noise(DISK_BYTES, 1)]
    check(not wrong, "those who waited have the disk", (len(wrong), wrong[:1]))
    for connection in waiting:
        connection.socket.close()
    wait(lambda: not pending(pool, "VDI.export_raw_vdi"), "they end")
    check(t.contents(disk) == noise(DISK_BYTES, 1), "there is room again")
    for host in "1", "2":
        configure(pool, host)
    destroy(pool, made.vm)


def who_goes_does_not_wait(t):
    """A client that goes before its turn comes: its task ends, and says why."""
    pool, made = t.pool, Made(t, "wanted", [(default_sr(t.pool), "raw", DISK_BYTES, {})])
    [disk] = made.disks
    writing = Overwriting(t, disk)
    for at in 1, 2:
        for method, path, query in (("GET", "/export_raw_vdi", {"vdi": disk}), ("GET", "/export", {"ref": made.vm}),
                                    ("PUT", "/import_raw_vdi", {"vdi": disk})):
            what, task = "%s at host %d, whose client goes" % (path, at), t.task()
            connection = t.open(method, path, at, headers={"Content-Length": str(DISK_BYTES)} if method == "PUT" else {}, task_id=task,
                                **query)
            wait(lambda: pool("task.get_allowed_operations", task) == ["cancel"], what + ": it waits")
            connection.reset()
            wait(lambda: pool("task.get_status", task) != "pending", what + ": it ends", SOON_S)
            error = error_of(t, task, what)
            check(error == ["INTERNAL_ERROR", "the client has closed the connection before its turn came"], what + ": it says why", error)
            writing.more()
    check(pool("VM.get_current_operations", made.vm) == {}, "the VM is nobody's again")
    writing.finish()
    destroy(pool, made.vm)


# ---- how much ----

class Crowd:
    """Clients that send a master much to hold, and no end of it: all that may be but `spared` bytes."""

    def __init__(self, t, spared):
        self.t, self.before = t, Inventory(t.pool)
        self.clients = []
        left = METADATA_BYTES - spared
        while left > 0:
            self.begin(min(left, 60 * MIB))
            left -= min(left, 60 * MIB)

    def begin(self, count):
        task = self.t.task()
        connection = self.t.open("PUT", "/import_metadata", headers={"Content-Length": str(count + 1)}, task_id=task)
        connection.send(bytes(count))
        self.clients.append((connection, task))

    def leave(self):
        for connection, task in self.clients:
            connection.reset()
            error = error_of(self.t, task, "one of a crowd")
            check(error[0] == "IMPORT_ERROR_PREMATURE_EOF", "it has gone", error)
        self.before.check_same("a crowd that went")


def metadata_of(t, count):
    """What becomes of so many bytes that are none."""
    task = t.task()
    t.put("/import_metadata", bytes(count), task_id=task)
    return error_of(t, task, "%d bytes of nothing" % count)[0]


def texts_have_their_room(t):
    pool, spared = t.pool, 4096
    made = Made(t, "comes", [(default_sr(pool), "raw", MIB, {0: b"x"})])
    xva = t.export(made.vm)
    for what in "at first", "after an import that was refused, and one that was not":
        crowd = Crowd(t, spared)
        wait(lambda: metadata_of(t, spared + 1) == "TOO_BUSY", what + ": the room is taken")
        error = metadata_of(t, spared)
        check(error != "TOO_BUSY", what + ": all but what is spared", error)
        task, before = t.task(), Inventory(pool)
        answer = t.put("/import", xva, task_id=task)
        check(answer.status == 503, what + ": there is no room for the text of an import", answer)
        error = error_of(t, task, what)
        check(error == ["TOO_BUSY"], what + ": its task says so", error)
        before.check_same(what)
        crowd.leave()
        [vm] = t.import_(xva, what + ": when they have gone")
        destroy(pool, vm)
    destroy(pool, made.vm)


def main():
    cases = [a_pool_has_so_many, who_goes_does_not_wait, texts_have_their_room]
    return run_cases(cases)


if __name__ == "__main__":
    sys.exit(main())
