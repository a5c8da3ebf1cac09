#!/usr/bin/env python3
"""Events: nothing missed, nothing told twice, and waiting costs nothing."""

import json
import select
import struct
import threading
import time

from drover import *


def since(s, classes, token, timeout=0.0, **options):
    return s("event.from", classes, token, timeout, **options)


def name(event):
    return event["class"], event["operation"], event["ref"]


def the_first_answer_is_everything(m):
    s = m.login()
    pool, = s("pool.get_all")
    r = since(s, ["*"], "")
    assert set(r) == {"events", "valid_ref_counts", "token"}
    assert {e["operation"] for e in r["events"]} == {"add"}
    classes = {e["class"] for e in r["events"]}
    assert {"pool", "host", "host_metrics", "role"} <= classes and "session" not in classes
    event, = [e for e in r["events"] if e["class"] == "pool"]
    assert event["ref"] == pool and event["snapshot"] == s("pool.get_record", pool)
    assert set(event) == {"id", "timestamp", "class", "operation", "ref", "snapshot"}
    assert event["timestamp"] == "0.0" and event["id"].isdigit()
    counts = r["valid_ref_counts"]
    assert counts["pool"] == 1 and counts["role"] == 6 and counts["vm"] == len(s("VM.get_all")) and counts["session"] == 1
    halves = r["token"].split(",")
    assert halves[0] == halves[1] and len(halves[0]) == 20
    assert since(s, ["*"], r["token"])["events"] == []
    text = m.post(xmlrpc.client.dumps((s.ref, ["pool"], "", 0.0), "event.from")).decode()
    assert "<name>valid_ref_counts</name><value><struct>" in text and "<name>pool</name><value><i4>1</i4></value>" in text


def changes_are_told_once(m):
    s = m.login()
    pool, = s("pool.get_all")
    token = since(s, ["pool", "task"], "")["token"]
    s("pool.set_name_label", pool, "a")
    s("pool.set_name_label", pool, "b")
    task = s("task.create", "x", "")
    gone = s("task.create", "y", "")
    s("task.set_status", gone, "success")
    s("task.destroy", gone)
    r = since(s, ["POOL", "task"], token)
    assert [name(e) for e in r["events"]] == [("pool", "mod", pool), ("task", "add", task)]
    assert r["events"][0]["snapshot"]["name_label"] == "b"
    assert r["valid_ref_counts"]["task"] == 1
    s("task.set_status", task, "success")
    s("task.destroy", task)
    r = since(s, ["task"], r["token"])
    assert [name(e) for e in r["events"]] == [("task", "del", task)]
    assert "snapshot" not in r["events"][0]
    # Only what was asked for.
    s("pool.set_name_label", pool, "c")
    assert since(s, ["task"], r["token"])["events"] == []
    assert len(since(s, ["pool/" + pool], r["token"])["events"]) == 1
    # What names no object is waited for in vain, whatever it looks like.
    for nobody in ("pool/OpaqueRef:11111111-2222-4333-8444-555555555555", "pool/nonsense"):
        assert since(s, [nobody], r["token"])["events"] == []


def bad_questions_are_named(m):
    s = m.login()
    for bad in ("nonsense", "", "pool/", "intent", "nonsense/" + NULL):
        assert failure(since, s, ["pool", bad], "") == ["EVENT_SUBSCRIPTION_PARSE_FAILURE", bad]
    for bad in ("x", "1", "1,", ",1", "1,2,3", "-1,-1", "1 ,1", "9" * 21 + ",1", "99999999999999999999,1"):
        assert failure(since, s, ["pool"], bad) == ["EVENT_FROM_TOKEN_PARSE_FAILURE", bad]
    # A token of no generation of ours means: tell everything.
    for strange in ("00000000000000000000,00000000000000000000", "00000000000000000007,00000000000000000007",
                    "18446744073709551615,18446744073709551615"):
        assert [e["operation"] for e in since(s, ["pool"], strange)["events"]] == ["add"]
    assert failure(s, "event.inject", "pool", "nonsense") == ["HANDLE_INVALID", "pool", "nonsense"]
    assert failure(s, "event.inject", "pool", NULL) == ["HANDLE_INVALID", "pool", NULL]
    assert failure(s, "event.inject", "nonsense", NULL) == ["HANDLE_INVALID", "nonsense", NULL]
    assert failure(s, "event.next")[0] == "SESSION_NOT_REGISTERED"
    assert s.ref[10:] not in failure(s, "event.next")[1]


def inject_is_a_barrier(m):
    s = m.login()
    pool, = s("pool.get_all")
    token = since(s, ["pool"], "")["token"]
    before = s("event.inject", "pool", pool)
    assert [name(e) for e in since(s, ["pool"], before)["events"]] == [("pool", "mod", pool)]
    assert since(s, ["pool"], token)["events"]
    assert m.json("event.inject", s.ref, "pool", pool)["result"] > before


class Waiter(threading.Thread):
    """A blocked event.from or event.next."""

    def __init__(self, s, *call):
        super().__init__(daemon=True)
        self.s, self.call_, self.result, self.error = s, call, None, None
        self.begun = time.monotonic()
        self.start()

    def run(self):
        try:
            self.result = self.s(*self.call_)
        except Failure as e:
            self.error = list(e.args)
        self.seconds = time.monotonic() - self.begun

    def end(self):
        self.join(30)
        assert not self.is_alive()
        return self.result


def waiting(m):
    text = m.http("GET", "/metrics")[2].decode()
    return int([line for line in text.splitlines() if line.startswith("drover_event_readers_waiting ")][0].split()[1])


def readers_block_until_it_happens(m):
    s = m.login()
    pool, = s("pool.get_all")
    token = since(s, ["pool"], "")["token"]
    w = Waiter(s, "event.from", ["pool"], token, 30.0)
    wait_for(lambda: waiting(m) == 1)
    s("task.create", "not this", "")
    assert waiting(m) == 1
    changed = time.monotonic()
    s("pool.set_name_label", pool, "now")
    assert [name(e) for e in w.end()["events"]] == [("pool", "mod", pool)]
    assert time.monotonic() - changed < 0.5
    t0 = time.monotonic()
    r = since(s, ["pool"], w.result["token"], 0.3)
    assert r["events"] == [] and 0.29 <= time.monotonic() - t0 < 2 and r["token"] >= w.result["token"]
    # One object.
    task = s("task.create", "this", "")
    other = s("task.create", "that", "")
    token = since(s, ["task"], "")["token"]
    w = Waiter(s, "event.from", ["task/" + task], token, 30.0)
    wait_for(lambda: waiting(m) == 1)
    s("task.set_progress", other, 0.5)
    s("task.set_progress", task, 0.5)
    assert [name(e) for e in w.end()["events"]] == [("task", "mod", task)]
    w = Waiter(s, "event.from", ["task/" + task], w.result["token"], 30.0)
    wait_for(lambda: waiting(m) == 1)
    s("task.set_status", task, "success")
    assert len(w.end()["events"]) == 1
    w = Waiter(s, "event.from", ["task/" + task], w.result["token"], 30.0)
    wait_for(lambda: waiting(m) == 1)
    s("task.destroy", task)
    assert [name(e) for e in w.end()["events"]] == [("task", "del", task)]


def storms_come_in_batches(m):
    s = m.login()
    pool, = s("pool.get_all")
    reader = m.login()
    stop = []

    def storm():
        connection = http.client.HTTPConnection(*m.address)
        i = 0
        while not stop:
            i += 1
            s("pool.set_name_label", pool, str(i), connection=connection)

    t = threading.Thread(target=storm, daemon=True)
    t.start()
    connection = http.client.HTTPConnection(*m.address)
    token, answers, t0 = since(reader, ["pool"], "")["token"], 0, time.monotonic()
    last = "0"
    while time.monotonic() - t0 < 2:
        r = since(reader, ["pool"], token, 10.0, connection=connection)
        assert len(r["events"]) == 1
        assert int(r["events"][0]["snapshot"]["name_label"]) > int(last)
        last, token, answers = r["events"][0]["snapshot"]["name_label"], r["token"], answers + 1
    stop.append(1)
    t.join()
    assert 10 <= answers <= 45, answers


def logout_wakes_the_blocked(m):
    s, other = m.login(), m.login()
    token = since(s, ["vm"], "")["token"]
    w = [Waiter(s, "event.from", ["vm"], token, 60.0)]
    s("event.register", ["vm"])
    w.append(Waiter(s, "event.next"))
    keep = Waiter(other, "event.from", ["vm"], token, 2.0)
    wait_for(lambda: waiting(m) == 3)
    s("session.logout")
    for waiter in w:
        waiter.end()
        assert waiter.error == ["SESSION_INVALID", s.ref], waiter.error
    assert keep.end()["events"] == []


def the_old_way_works_too(m):
    s = m.login()
    pool, = s("pool.get_all")
    s("event.register", ["pool"])
    first = int(s("event.get_current_id"))
    s("pool.set_name_label", pool, "a")
    events = s("event.next")
    assert [name(e) for e in events] == [("pool", "mod", pool)]
    assert int(events[0]["id"]) >= first and events[0]["snapshot"]["name_label"] == "a"
    w = Waiter(s, "event.next")
    wait_for(lambda: waiting(m) == 1)
    s("event.register", ["task"])
    task = s("task.create", "x", "")
    more = w.end()
    assert [name(e) for e in more] == [("task", "add", task)]
    assert int(more[0]["id"]) > int(events[0]["id"])
    s("event.unregister", ["pool"])
    s("pool.set_name_label", pool, "b")
    s("task.set_progress", task, 0.5)
    assert [name(e) for e in s("event.next")] == [("task", "mod", task)]
    # Who has given up everything has nothing to wait for.
    w = Waiter(s, "event.next")
    wait_for(lambda: waiting(m) == 1)
    s("event.unregister", ["task"])
    w.end()
    assert w.error[0] == "SESSION_NOT_REGISTERED", w.error
    assert failure(s, "event.next")[0] == "SESSION_NOT_REGISTERED"
    s("event.register", ["pool"])
    s("pool.set_name_label", pool, "c")
    assert [name(e) for e in s("event.next")] == [("pool", "mod", pool)]


def a_thousand_readers_wait(m):
    s = m.login()
    pool, = s("pool.get_all")
    token = since(s, ["pool"], "")["token"]
    body = xmlrpc.client.dumps((s.ref, ["pool", "vm", "host"], token, 60.0), "event.from").encode()
    request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)

    def memory_kb():
        with open("/proc/%d/status" % m.process.pid) as f:
            return int([line for line in f if line.startswith("VmRSS")][0].split()[1])

    before = memory_kb()
    connections = []
    for _ in range(1000):
        c = m.connect()
        c.sendall(request)
        connections.append(c)
    wait_for(lambda: waiting(m) == 1000)
    each_kb = (memory_kb() - before) / 1000
    poll = select.epoll()
    for c in connections:
        poll.register(c, select.EPOLLIN)
    s("task.create", "wakes nobody", "")
    assert not poll.poll(0.1)
    t0 = time.monotonic()
    s("pool.set_name_label", pool, "all of you")
    seen = set()
    while len(seen) < 1000 and time.monotonic() - t0 < 20:
        for fd, _ in poll.poll(1):
            seen.add(fd)
            poll.unregister(fd)
    seconds = time.monotonic() - t0
    assert len(seen) == 1000
    for c in connections:
        assert b"all of you" in c.recv(65536)
        c.close()
    print("     %.0f ms to the last of 1000, %.1f kB each" % (seconds * 1000, each_kb))
    assert seconds < 5 and (each_kb < 64 or "asan" in BUILD)
    # Clients that go away are forgotten.
    connections = [m.connect() for _ in range(50)]
    for c in connections:
        c.sendall(request.replace(token.encode(), since(s, ["pool"], "")["token"].encode()))
    wait_for(lambda: waiting(m) == 50)
    for c in connections:
        c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))      # a reset, no half-close
        c.close()
    wait_for(lambda: waiting(m) == 0)


class Replica:
    """A reader's copy of the pool, kept by event.from alone, as npm xen-api keeps one."""

    CLASSES = ["*"]

    def __init__(self, s):
        self.objects = {}
        self.resyncs = 0
        self.take(since(s, self.CLASSES, ""))

    def take(self, r):
        for e in r["events"]:
            if e["operation"] == "del":
                self.objects.pop((e["class"], e["ref"]), None)
            else:
                self.objects[e["class"], e["ref"]] = e["snapshot"]
        self.token, self.counts = r["token"], r["valid_ref_counts"]

    def follow(self, s):
        self.take(since(s, self.CLASSES, self.token))
        classes = {c for c, _ in self.objects}
        if any(self.counts[c] != sum(1 for d, _ in self.objects if d == c) for c in classes):
            self.objects = {}
            self.resyncs += 1
            self.take(since(s, self.CLASSES, ""))


def tokens_outlive_their_master(m):
    """Over ends in order and by SIGKILL, a reader's copy becomes what a new reader sees: the changes are told, or the counts
    say that there is something to forget."""
    s = m.login()
    pool, = s("pool.get_all")
    for number, is_killed in enumerate((False, True, True, False)):
        goes = s("network.create", {"name_label": "goes", "name_description": "", "MTU": "1500", "other_config": {},
                                    "bridge": "", "managed": True, "tags": []})
        replica = Replica(s)
        assert ("network", goes) in replica.objects
        # Changes before the end, of which the reader has not heard.
        s("pool.set_name_label", pool, "before %d" % number)
        comes = s("network.create", {"name_label": "comes", "name_description": "", "MTU": "1500", "other_config": {},
                                     "bridge": "", "managed": True, "tags": []})
        s("network.destroy", goes)
        if is_killed:
            m.process.kill()
            m.stop(expect=-9)
        else:
            m.stop()
        m.start()
        assert failure(since, s, ["*"], replica.token) == ["SESSION_INVALID", s.ref]
        s = m.login()
        s("pool.set_name_description", pool, "after %d" % number)
        replica.follow(s)
        fresh = Replica(s)
        assert replica.objects == fresh.objects, number
        assert ("network", comes) in fresh.objects and ("network", goes) not in fresh.objects
        # And it goes on from there, without reading all anew.
        resyncs = replica.resyncs
        s("network.destroy", comes)
        replica.follow(s)
        assert ("network", comes) not in replica.objects and replica.resyncs == resyncs


def readers_that_do_not_read(m):
    """A hundred clients ask for everything, again and again, and read nothing."""
    s = m.login()
    pool, = s("pool.get_all")
    body = xmlrpc.client.dumps((s.ref, ["*"], "", 60.0), "event.from").encode()
    request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)

    def memory_kb():
        with open("/proc/%d/status" % m.process.pid) as f:
            return int([line for line in f if line.startswith("VmRSS")][0].split()[1])

    answer_kb = len(m.post(body)) // 1024
    before = memory_kb()
    connections = []
    for _ in range(100):
        c = m.connect()
        c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        c.setblocking(False)
        for _ in range(20):
            try:
                c.send(request)
            except BlockingIOError:
                break
        connections.append(c)
    token = since(s, ["pool"], "")["token"]
    slowest = 0
    for i in range(20):
        w = Waiter(s, "event.from", ["pool"], token, 30.0)
        wait_for(lambda: waiting(m) == 1)
        t0 = time.monotonic()
        s("pool.set_name_label", pool, "number %d" % i)
        w.join()
        token = w.result["token"]
        slowest = max(slowest, time.monotonic() - t0)
    grown_kb = memory_kb() - before
    print("     %d kB an answer, %d kB for 100 readers, %.0f ms to one who reads" % (answer_kb, grown_kb, slowest * 1000))
    assert slowest < (10 if "asan" in BUILD else 2), slowest
    assert grown_kb < 100 * 3 * answer_kb or "asan" in BUILD, grown_kb           # one answer each, not twenty
    for c in connections:
        c.close()
    assert s("pool.get_all")


def json_readers_are_told_the_same(m):
    s = m.login()
    r = m.json("event.from", s.ref, ["pool"], "", 0.1)["result"]
    assert r["valid_ref_counts"]["pool"] == 1 and isinstance(r["events"][0]["id"], str)
    assert m.json("event.from", s.ref, ["pool"], r["token"], 0.05)["result"]["events"] == []
    m.json("event.register", s.ref, ["pool"])
    s("pool.set_name_label", s("pool.get_all")[0], "x")
    assert m.json("event.next", s.ref)["result"][0]["operation"] == "mod"


run(the_first_answer_is_everything, changes_are_told_once, bad_questions_are_named, inject_is_a_barrier,
    readers_block_until_it_happens, storms_come_in_batches, logout_wakes_the_blocked, the_old_way_works_too,
    a_thousand_readers_wait, tokens_outlive_their_master, readers_that_do_not_read, json_readers_are_told_the_same)
