#!/usr/bin/env python3
"""Uploads of clients that do not know how much they send, close when they have sent it, and are silent while they have nothing to
say: npm's xen-api, and exports of disks that are zeros for long.

  uploads.py [CASE ...]"""
import array
import fcntl
import sys
import termios
import threading
import time

from poollib import check
from transferlib import MIB, Inventory, Made, default_sr, destroy, disk_refs, members, noise, pack, refs, run_cases

UNKNOWN = str(1 << 50) # what such clients say instead of a length
ROUNDS = 10            # the end has to come while the master is at work between two calls to its slave
SIGN_S, SIGNS = 5, 9   # xapi sends an empty block when it has sent nothing for 5 s; longer than the 20 s in which others must move


def wait_sent(connection):
    """Until the other side's kernel has all: a reset would take the rest along."""
    left = array.array("i", [1])
    while left[0] > 0:
        fcntl.ioctl(connection.socket, termios.TIOCOUTQ, left)


def close_politely(connection):
    connection.socket.close()


def close_half(connection):
    connection.end()
    check(connection.read_some() == b"", "the answer ends in order")
    connection.socket.close()


def reset(connection):
    wait_sent(connection)
    connection.reset()


def gone(connection):
    wait_sent(connection)
    connection.socket.close() # with the head unread that is a reset, if it was there


def archives(t):
    """[(VM, name, its archive)]: less than a host reads ahead, without disks and with one, and more."""
    sr, out = default_sr(t.pool), []
    for name, disks in (("no disk", []), ("small", [(sr, "raw", MIB // 2, {0: noise(3000, 1)})]),
                        ("large", [(sr, "qcow2", 12 * MIB, {0: noise(5 * MIB, 2)})])):
        made = Made(t, name, disks)
        out.append((made, name, t.export(made.vm)))
    return out


def clients_that_close_when_all_is_sent(t):
    """However they close, and whenever that is: every byte has come."""
    pool = t.pool
    all_made = archives(t)
    before = Inventory(pool)
    for made, name, xva in all_made:
        contents = [t.contents(disk) for disk in made.disks]
        for at in 1, 2:
            for close in close_politely, close_half, reset, gone:
                if close in (reset, gone) and len(xva) > MIB:
                    continue # not all of it would be with the host, which reads no more than it needs
                what = "%s, to host %d, %s" % (name, at, close.__name__)
                for round_ in range(ROUNDS):
                    task = t.task()
                    with t.open("PUT", "/import", at, headers={"Content-Length": UNKNOWN}, task_id=task) as c:
                        if close is not gone:
                            check(c.head()[0] == 200, what + ": 200 is said before")
                        c.send(xva)
                        close(c)
                    brought = refs(t.ended(task, "success", what)["result"])
                    check([pool("VM.get_name_label", vm) for vm in brought] == [name], what + ": the VM is there", brought)
                    for vm in brought:
                        if round_ == 0:
                            check([t.contents(disk) for disk in disk_refs(pool, vm)] == contents, what + ": its disks")
                        destroy(pool, vm)
                before.check_same(what)
    for made, _, _ in all_made:
        destroy(pool, made.vm)


def raw_disks_without_length(t):
    """One disk, of a client that does not know how long it is."""
    pool, size = t.pool, MIB
    made = Made(t, "raw", [(default_sr(pool), image_format, size, {}) for image_format in ("raw", "qcow2")])
    for number, vdi in enumerate(made.disks):
        for at in 1, 2:
            for round_ in range(ROUNDS):
                content, task = noise(size, 100 * number + 10 * at + round_), t.task()
                what = "disk %d, to host %d" % (number, at)
                with t.open("PUT", "/import_raw_vdi", at, headers={"Content-Length": UNKNOWN}, vdi=vdi, task_id=task) as c:
                    check(c.head()[0] == 200, what + ": 200 is said before")
                    c.send(content)
                    close_politely(c)
                t.ended(task, "success", what)
                check(t.contents(vdi) == content, what + ": it holds what was sent")
    destroy(pool, made.vm)


def with_signs(xva, at, count):
    """(the archive's beginning, signs of life, the rest): behind them each number of a block is higher, as in wire.md section 20."""
    entries = members(xva)
    first = next(i for i, (name, _) in enumerate(entries) if name.endswith("/%08d" % at))
    prefix = entries[first][0].rsplit("/", 1)[0]
    head = pack(entries[:first], False)
    signs = [pack([("%s/%08d" % (prefix, at + i), b""), ("%s/%08d.xxhash" % (prefix, at + i), b"EF46DB3751D8E999")], False)
             for i in range(count)]

    def moved(name):
        number, dot, suffix = name.rsplit("/", 1)[1].partition(".")
        return "%s/%08d%s%s" % (prefix, int(number) + count, dot, suffix)

    return head, signs, pack([(moved(name), data) for name, data in entries[first:]])


class Silent(threading.Thread):
    """A client that sends a beginning, then a piece each SIGN_S, then the rest."""

    def __init__(self, t, at, pieces, rest, headers, **query):
        super().__init__()
        self.task, self.pieces, self.rest, self.answer = t.task(), pieces, rest, None
        self.connection = t.open("PUT", at=at, headers=headers, task_id=self.task, **query)

    def run(self):
        with self.connection as c:
            for piece in self.pieces:
                c.send(piece)
                time.sleep(SIGN_S)
            c.send(self.rest)
            self.answer = c.answer()


def silent_clients(t):
    """Signs of life at the pace of xapi's, and none at all, for longer than who waits for an answer may be silent."""
    pool = t.pool
    made = Made(t, "silent", [(default_sr(pool), "raw", 9 * MIB, {0: noise(3000, 3), 4 * MIB: noise(2 * MIB, 4)})])
    xva, content = t.export(made.vm), t.contents(made.disks[0])
    head, signs, rest = with_signs(xva, 5, SIGNS)
    before, clients = Inventory(pool), []
    for at in 1, 2:
        whole = head + b"".join(signs) + rest
        clients.append(("signs of life, to host %d" % at,
                        Silent(t, at, [head] + signs, rest, {"Content-Length": str(len(whole))}, path="/import")))
        clients.append(("nothing, to host %d" % at,
                        Silent(t, at, [xva[:2 * MIB]] + SIGNS * [b""], xva[2 * MIB:], {"Content-Length": UNKNOWN}, path="/import")))
        clients.append(("not even a beginning, to host %d" % at,
                        Silent(t, at, SIGNS * [b""], xva, {"Content-Length": str(len(xva)), "Expect": "100-continue"}, path="/import")))
    for _, client in clients:
        client.start()
    for what, client in clients:
        client.join()
        record = t.ended(client.task, "success", what)
        brought = refs(record["result"])
        check(client.answer.status == 200 and len(brought) == 1, what + ": it is answered", client.answer)
        for vm in brought:
            check(t.contents(disk_refs(pool, vm)[0]) == content, what + ": its disk is the same")
            destroy(pool, vm)
    before.check_same("silent clients")
    destroy(pool, made.vm)


def main():
    cases = [clients_that_close_when_all_is_sent, raw_disks_without_length, silent_clients]
    return run_cases(cases)


if __name__ == "__main__":
    sys.exit(main())
