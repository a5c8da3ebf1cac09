#!/usr/bin/env python3
"""Blobs: their records, and what they hold by GET and PUT /blob of a real master, whatever dies meanwhile."""

import base64
import hashlib
import http.client
import random
import re
import threading

from drover import *
from vm_records import create_vm

BASIC = {"Authorization": "Basic " + base64.b64encode(("root:" + PASSWORD).encode()).decode()}
NOBODY = "OpaqueRef:11111111-2222-3333-4444-555555555555"


def bytes_of(seed, count):
    return random.Random(seed).randbytes(count)


def files(m):
    return sorted(os.listdir(os.path.join(m.dir, "blobs")))


def get(m, s, blob, method="GET", **params):
    query = "&".join("%s=%s" % p for p in dict(params, ref=blob, session_id=s.ref).items())
    return m.http(method, "/blob?" + query)


def put(m, s, blob, body, query="", headers={}):
    """Status and text of the answer, and the ended task."""
    task = s("task.create", "put", "")
    status, _, text = m.http("PUT", "/blob?ref=%s&session_id=%s&task_id=%s%s" % (blob, s.ref, task, query), body, headers)
    record = wait_for(lambda: (lambda r: r["status"] != "pending" and r)(s("task.get_record", task)))
    s("task.destroy", task)
    return status, text, record


def written(m, s, blob, body):
    status, text, record = put(m, s, blob, body)
    assert (status, text, record["status"]) == (200, b"", "success"), (status, text, record)


def begin_put(m, s, blob, length, body=b""):
    """A connection on which that much was announced and that much sent; the answer's head has come."""
    c = m.connect()
    c.sendall(b"PUT /blob?ref=%s&session_id=%s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" %
              (blob.encode(), s.ref.encode(), length) + body)
    head = b""
    while b"\r\n\r\n" not in head:
        more = c.recv(4096)
        assert more, head
        head += more
    return c, head


# --- records ---

def records(m):
    s = m.login()
    blob = s("blob.create", "image/png")
    record = s("blob.get_record", blob)
    assert sorted(record) == ["last_updated", "mime_type", "name_description", "name_label", "public", "size", "uuid"]
    assert (record["mime_type"], record["size"], record["public"]) == ("image/png", "0", False), record
    assert abs(time.time() - time.mktime(time.strptime(str(record["last_updated"]), "%Y%m%dT%H:%M:%SZ")) + time.timezone) < 60
    assert s("blob.get_mime_type", s("blob.create", "", True)) == "application/octet-stream"
    assert failure(s, "blob.create", "a\r\nSet-Cookie: b")[:2] == ["INVALID_VALUE", "mime_type"]
    assert m.json("blob.create", s.ref, "\u00e4")["error"]["data"][:1] == ["mime_type"]
    assert failure(s, "blob.create", "a" * 256)[:2] == ["INVALID_VALUE", "mime_type"]
    s("blob.set_name_label", blob, "logo")
    assert s("blob.get_by_name_label", "logo") == [blob]
    s("blob.destroy", blob)
    assert failure(s, "blob.get_record", blob) == ["HANDLE_INVALID", "blob", blob]
    assert failure(s, "blob.destroy", blob) == ["HANDLE_INVALID", "blob", blob]


def owners(m):
    s = m.login()
    vm = create_vm(s, name_label="a")
    network = s("network.create", {"name_label": "n", "name_description": "", "other_config": {}})
    sr = s("SR.get_all")
    for cls, ref in ([("VM", vm), ("network", network), ("pool", s("pool.get_all")[0]), ("host", s("host.get_all")[0])] +
                     [("SR", r) for r in sr[:1]]):
        blob = s(cls + ".create_new_blob", ref, "b", "text/plain", True)
        assert s(cls + ".get_blobs", ref) == {"b": blob} and s("blob.get_public", blob)
        assert failure(s, cls + ".create_new_blob", ref, "b", "") == ["MAP_DUPLICATE_KEY", cls, "blobs", ref, "b"]
        task = s("Async.%s.create_new_blob" % cls, ref, "c", "")
        other = wait_for(lambda: s(cls + ".get_blobs", ref).get("c"))
        wait_for(lambda: s("task.get_status", task) == "success")
        assert s("task.get_result", task) == "<value>%s</value>" % other
        s("blob.destroy", other)  # and the map forgets it
        assert s(cls + ".get_blobs", ref) == {"b": blob}
    blobs = [s(cls + ".get_blobs", ref)["b"] for cls, ref in (("VM", vm), ("network", network))]
    for blob in blobs:
        written(m, s, blob, b"x")
    assert len(files(m)) == 2
    copy = s("VM.clone", vm, "copy")
    assert s("VM.get_blobs", copy) == {}
    s("VM.destroy", copy)
    s("VM.destroy", vm)
    s("network.destroy", network)
    for blob in blobs:
        assert failure(s, "blob.get_uuid", blob)[0] == "HANDLE_INVALID"
    wait_for(lambda: files(m) == [])


# --- contents ---

def what_is_put_is_got(m):
    s = m.login()
    blob = s("blob.create", "image/png")
    status, headers, body = get(m, s, blob)
    assert (status, headers["content-length"], body) == (200, "0", b""), (status, headers)
    for size in (1, 0, 65536, 3000001, 20 << 20, 5):
        text = bytes_of(size, size)
        written(m, s, blob, text)
        assert s("blob.get_size", blob) == str(size)
        status, headers, body = get(m, s, blob)
        assert (status, headers["content-type"], headers["content-length"]) == (200, "image/png", str(size)), headers
        assert body == text
        assert files(m) == [s("blob.get_uuid", blob)]
    status, headers, body = get(m, s, blob, "HEAD")
    assert (status, headers["content-length"], body) == (200, "5", b"")
    uuid = s("blob.get_uuid", blob)
    assert m.http("GET", "/blob/?uuid=%s&session_id=%s" % (uuid, s.ref))[2] == bytes_of(5, 5)
    assert m.http("GET", "/blob?uuid=" + uuid, headers=BASIC)[2] == bytes_of(5, 5)
    assert m.http("PUT", "/blob/?uuid=" + uuid, b"new", BASIC)[0] == 200
    assert m.http("GET", "/blob?uuid=" + uuid, headers={"Cookie": "session_id=" + s.ref})[2] == b"new"
    before = m.call("blob.get_last_updated", s.ref, blob)
    m.stop()
    m.start()
    s = m.login()
    assert (s("blob.get_size", blob), s("blob.get_last_updated", blob)) == ("3", before)
    assert get(m, s, blob)[2] == b"new"


def tasks_report(m):
    s = m.login()
    blob = s("blob.create", "")
    task = s("task.create", "get", "")
    assert get(m, s, blob, task_id=task)[1]["task-id"] == task
    wait_for(lambda: s("task.get_status", task) == "success")
    status, headers, _ = m.http("PUT", "/blob?ref=%s&session_id=%s" % (blob, s.ref), b"12")
    record = s("task.get_record", headers["task-id"])  # of its own, without task_id
    assert (record["status"], record["name_label"]) == ("success", "Upload of blob: " + s("blob.get_uuid", blob))
    count = len(s("task.get_all"))
    assert get(m, s, blob)[0] == 200 and len(s("task.get_all")) == count  # reading makes none
    task = s("task.create", "cancelled", "")
    s("task.cancel", task)
    m.http("PUT", "/blob?ref=%s&session_id=%s&task_id=%s" % (blob, s.ref, task), b"345")
    wait_for(lambda: s("task.get_status", task) == "cancelled")
    assert get(m, s, blob)[2] == b"12"
    c, head = begin_put(m, s, blob, 1000, b"x" * 10)  # cancelled on the way
    task = re.search(rb"task-id: (\S+)", head).group(1).decode()
    s("task.cancel", task)
    wait_for(lambda: s("task.get_status", task) == "cancelled")
    c.close()
    assert get(m, s, blob)[2] == b"12" and files(m) == [s("blob.get_uuid", blob)]


def who_may(m):
    s = m.login()
    blob = s("blob.create", "", False)
    written(m, s, blob, b"secret")
    assert m.http("GET", "/blob?ref=" + blob)[0] == 401
    assert m.http("GET", "/blob?ref=%s&session_id=%s" % (blob, NOBODY))[0] == 401
    s("blob.set_public", blob, True)
    assert m.http("GET", "/blob?ref=" + blob)[2] == b"secret"
    assert m.http("HEAD", "/blob?ref=" + blob)[1]["content-length"] == "6"
    assert m.http("GET", "/blob?uuid=" + s("blob.get_uuid", blob))[2] == b"secret"
    assert m.http("PUT", "/blob?ref=" + blob, b"mine")[0] == 401
    task = s("task.create", "somebody's", "")
    assert m.http("GET", "/blob?ref=%s&task_id=%s" % (blob, task))[0] == 401
    assert m.http("GET", "/blob?ref=" + NOBODY)[0] == 401  # nobody learns which there are
    assert get(m, s, NOBODY)[0] == 404
    assert get(m, s, "gibberish")[0] == 404
    assert m.http("GET", "/blob?session_id=" + s.ref)[0] == 400
    assert get(m, s, blob)[2] == b"secret"


def uploads_that_are_wrong(m):
    s = m.login()
    blob = s("blob.create", "")
    written(m, s, blob, b"old")
    status, text, record = put(m, s, blob, iter([b"a", b"b"]), headers={"Transfer-Encoding": "chunked"})
    assert status == 400 and record["error_info"][:2] == ["INVALID_VALUE", "content-length"], (status, text, record)
    for length in (1 << 50, (2 << 20) + 1):
        status, text, record = put(m, s, blob, b"", headers={"Content-Length": str(length)})
        assert status == 400 and record["error_info"][:2] == ["INVALID_VALUE", "content-length"], (status, text, record)
    assert put(m, s, NOBODY, b"x")[0] == 404
    others = [s("blob.create", "") for _ in range(2)]
    written(m, s, others[0], bytes(2 << 20))
    status, _, record = put(m, s, others[1], bytes(2 << 20))  # 3 MiB for all
    assert status == 503 and record["error_info"] == ["OUT_OF_SPACE", "the master's blobs"], (status, record)
    c, _ = begin_put(m, s, others[1], 1 << 19)  # what is promised counts
    assert put(m, s, blob, bytes((1 << 19) + 1))[0] == 503
    c.close()
    wait_for(lambda: put(m, s, blob, bytes((1 << 19) + 1))[0] == 200)
    assert len(files(m)) == 2


uploads_that_are_wrong.options = ("--blob_mb", "2", "--blobs_mb", "3")


def a_client_that_goes_leaves_nothing(m):
    s = m.login()
    blob = s("blob.create", "")
    written(m, s, blob, b"old")
    c, head = begin_put(m, s, blob, 1 << 20, bytes(1 << 19))
    task = re.search(rb"task-id: (\S+)", head).group(1).decode()
    wait_for(lambda: len(files(m)) == 2)
    c.close()
    wait_for(lambda: s("task.get_status", task) == "failure")
    assert s("task.get_error_info", task) == ["IMPORT_ERROR_PREMATURE_EOF"]
    wait_for(lambda: files(m) == [s("blob.get_uuid", blob)])
    assert get(m, s, blob)[2] == b"old" and s("blob.get_size", blob) == "3"
    written(m, s, blob, bytes_of(7, 30 << 20))
    c = m.connect()  # reads a little and goes
    c.sendall(b"GET /blob?ref=%s&session_id=%s HTTP/1.1\r\nHost: a\r\n\r\n" % (blob.encode(), s.ref.encode()))
    assert c.recv(1000)
    c.close()
    assert get(m, s, blob)[2] == bytes_of(7, 30 << 20)


def destroyed_meanwhile(m):
    s = m.login()
    blob = s("blob.create", "")
    c, head = begin_put(m, s, blob, 4, b"12")
    s("blob.destroy", blob)
    c.sendall(b"34")
    task = re.search(rb"task-id: (\S+)", head).group(1).decode()
    wait_for(lambda: s("task.get_status", task) == "failure")
    assert s("task.get_error_info", task) == ["HANDLE_INVALID", "blob", blob]
    assert b"HANDLE_INVALID" in c.recv(4096)
    c.close()
    wait_for(lambda: files(m) == [])


def readers_see_one_version(m):
    """Writers replace a blob again and again: whoever reads gets one of the versions, whole."""
    s = m.login()
    blob = s("blob.create", "")
    versions = [bytes([i]) * (500000 + i) for i in range(8)]
    written(m, s, blob, versions[0])
    wrong, end = [], threading.Event()

    def read():
        while not end.is_set():
            status, _, body = get(m, s, blob)
            if status != 200 or body not in versions:
                wrong.append((status, len(body)))

    def write(own):
        for body in own * 5:
            if put(m, s, blob, body)[0] != 200:
                wrong.append("put")

    readers = [threading.Thread(target=read) for _ in range(2)]
    writers = [threading.Thread(target=write, args=(versions[i::3],)) for i in range(3)]
    for t in readers + writers:
        t.start()
    for t in writers:
        t.join()
    end.set()
    for t in readers:
        t.join()
    assert not wrong, wrong
    body = get(m, s, blob)[2]
    assert body in versions and s("blob.get_size", blob) == str(len(body))
    assert files(m) == [s("blob.get_uuid", blob)]


def strangers_leave_room(m):
    """Readers that do not read, whom nobody knows, hold half of the places: whoever has a session gets one."""
    s = m.login()
    blob = s("blob.create", "", True)
    written(m, s, blob, bytes(20 << 20))
    slow = []
    for _ in range(32):
        c = m.connect()
        c.sendall(b"GET /blob?ref=%s HTTP/1.1\r\nHost: a\r\n\r\n" % blob.encode())
        assert c.recv(12) == b"HTTP/1.1 200"
        slow.append(c)
    assert m.http("GET", "/blob?ref=" + blob)[0] == 503
    s("blob.set_public", blob, False)
    assert len(get(m, s, blob)[2]) == 20 << 20
    for c in slow:
        c.close()
    s("blob.set_public", blob, True)
    wait_for(lambda: m.http("HEAD", "/blob?ref=" + blob)[0] == 200)


# --- a master that dies ---

def a_master_that_dies_leaves_old_or_new(m):
    s = m.login()
    blob, gone = s("blob.create", ""), s("blob.create", "")
    written(m, s, blob, b"old")
    written(m, s, gone, b"x")
    name = s("blob.get_uuid", blob)
    s("blob.destroy", gone)
    wait_for(lambda: files(m) == [name])

    c, _ = begin_put(m, s, blob, 1000, b"x" * 500)  # in the middle of an upload
    wait_for(lambda: len(files(m)) == 2)
    kill(m)
    c.close()
    open(os.path.join(m.dir, "blobs", "11111111-2222-3333-4444-555555555555"), "w").close()  # whose blob is no more
    m.start()
    s = m.login()
    assert files(m) == [name] and get(m, s, blob)[2] == b"old"

    for point, expected in (("master.blob.place.before", b"old"), ("master.blob.place.after", b"new contents")):
        m.stop()
        os.environ["DROVER_CRASH_AT"] = point
        m.start()
        del os.environ["DROVER_CRASH_AT"]
        s = m.login()
        try:
            put(m, s, blob, b"new contents")
            raise AssertionError("it lived on")
        except (OSError, http.client.HTTPException):
            pass
        m.process.wait(60)
        kill(m)
        m.start()
        s = m.login()
        assert files(m) == [name], files(m)
        assert get(m, s, blob)[2] == expected and s("blob.get_size", blob) == str(len(expected)), point


def kill(m):
    m.process.kill()
    m.stop(expect=-signal.SIGKILL)


def lost_files_are_told(m):
    s = m.login()
    blob = s("blob.create", "")
    written(m, s, blob, b"abc")
    os.unlink(os.path.join(m.dir, "blobs", s("blob.get_uuid", blob)))
    assert get(m, s, blob)[0] == 500
    m.stop()
    m.start()
    s = m.login()
    assert "what the blob held is lost" in m.log_text()
    assert s("blob.get_size", blob) == "0" and get(m, s, blob)[2] == b""


# --- memory ---

def resident(m):
    with open("/proc/%d/status" % m.process.pid) as f:
        return int(re.search(r"VmRSS:\s+(\d+) kB", f.read()).group(1))


def memory_stays_flat(m):
    """A large blob both ways, and readers that do not read, hold a few pieces each."""
    s = m.login()
    blob = s("blob.create", "")
    size, piece = 200 << 20, bytes_of(1, 1 << 20)
    before = resident(m)
    c, _ = begin_put(m, s, blob, size)
    for _ in range(size // len(piece)):
        c.sendall(piece)
    wait_for(lambda: s("blob.get_size", blob) == str(size))
    c.close()
    slow = []
    for _ in range(20):
        c = m.connect()
        c.sendall(b"GET /blob?ref=%s&session_id=%s HTTP/1.1\r\nHost: a\r\n\r\n" % (blob.encode(), s.ref.encode()))
        assert c.recv(100)
        slow.append(c)
    digest = hashlib.sha256(piece * (size // len(piece))).digest()
    c = http.client.HTTPConnection(*m.address, timeout=60)
    c.request("GET", "/blob?ref=%s&session_id=%s" % (blob, s.ref))
    r, got = c.getresponse(), hashlib.sha256()
    while True:
        more = r.read(1 << 20)
        if not more:
            break
        got.update(more)
    c.close()
    assert got.digest() == digest
    grown = resident(m) - before
    print("     %d kB more for %d MiB up, down, and 20 slow readers" % (grown, size >> 20))
    if "asan" not in BUILD:
        assert grown < 60 << 10, grown
    for c in slow:
        c.close()


memory_stays_flat.options = ("--blob_mb", "256")

run(records, owners, what_is_put_is_got, tasks_report, who_may, uploads_that_are_wrong, a_client_that_goes_leaves_nothing,
    destroyed_meanwhile, readers_see_one_version, strangers_leave_room, a_master_that_dies_leaves_old_or_new, lost_files_are_told,
    memory_stays_flat)
