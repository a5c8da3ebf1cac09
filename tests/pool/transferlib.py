"""What the tests of exports and imports share: HTTP by plain sockets, where every byte and every end shows; VMs with disks of known
contents; XVAs taken apart; what a pool has, to be compared before and after."""
import base64
import io
import json
import os
import random
import re
import socket
import ssl
import struct
import sys
import tarfile
import time
import urllib.parse
import xmlrpc.client

import crashlib
from poollib import Checks, Pool, check

MIB = 1 << 20
TIMEOUT_S = 30


# ---- HTTP ----

class Answer:
    def __init__(self, status, headers, body, is_whole):
        self.status, self.headers, self.body, self.is_whole = status, headers, body, is_whole

    def __repr__(self):
        return "%s %r %r%s" % (self.status, self.headers, self.body[:200], "" if self.is_whole else " (broken off)")


def tls_context():
    """Any certificate will do: this is not about who is there. A TLS session that just stops is no end."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Connection:
    """One request on a socket of its own, plain or TLS."""

    def __init__(self, url, method, path, query=None, headers=None, version="1.1"):
        parts = urllib.parse.urlsplit(url)
        self.method = method
        self.socket = socket.create_connection((parts.hostname, parts.port), TIMEOUT_S)
        if parts.scheme == "https":
            self.socket = tls_context().wrap_socket(self.socket, suppress_ragged_eofs=False)
        self.unread = b""
        target = path + ("?" + urllib.parse.urlencode(query) if query else "")
        lines = ["%s %s HTTP/%s" % (method, target, version), "Host: " + parts.netloc]
        lines += ["%s: %s" % pair for pair in (headers or {}).items()]
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        """False when the server takes no more."""
        try:
            self.socket.sendall(data)
            return True
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            return False

    def send_chunk(self, data):
        return self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def end(self):
        """Nothing more comes from here, but the answer is read. With TLS that is its close_notify alone."""
        try:
            if isinstance(self.socket, ssl.SSLSocket):
                self.socket.settimeout(0) # it would wait for the other's
                self.socket.unwrap()
            else:
                self.socket.shutdown(socket.SHUT_WR)
        except (ssl.SSLWantReadError, OSError):
            pass
        self.socket.settimeout(TIMEOUT_S)

    def leave(self):
        """Nothing more is sent or read, and who reads in another thread here is told."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def reset(self):
        """Gone, and the server is told at once."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def read_some(self):
        """More bytes, b"" at the end, None when the connection was broken off: a reset, TLS without its close_notify."""
        try:
            return self.socket.recv(1 << 18)
        except ssl.SSLZeroReturnError: # after our own close_notify that is what theirs looks like
            return b""
        except (ConnectionResetError, ssl.SSLError):
            return None

    def wanted(self):
        """The server has the request, and says that it wants the body (of one with Expect)."""
        while b"100 Continue\r\n\r\n" not in self.unread:
            more = self.read_some()
            if not more:
                return check(False, "the body is wanted")
            self.unread += more
        return True

    def head(self):
        """(status, headers by lower-case name); 0 when the connection ends before there is one."""
        while b"\r\n\r\n" not in self.unread:
            more = self.read_some()
            if not more:
                return 0, {}
            self.unread += more
        head, self.unread = self.unread.split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").split("\r\n")
        headers = {k.strip().lower(): v.strip() for k, v in (line.split(":", 1) for line in lines[1:])}
        status = int(lines[0].split()[1])
        return self.head() if status == 100 else (status, headers)

    def body(self, headers, bytes_max=None):
        """(bytes, whether they are all)"""
        parts, length = [self.unread], headers.get("content-length")
        size = len(self.unread)
        want = int(length) if length is not None else bytes_max
        if self.method == "HEAD":
            want = 0
        while want is None or size < want:
            more = self.read_some()
            if not more:
                is_whole = more is not None and (length is None or size >= int(length))
                return b"".join(parts), is_whole
            parts.append(more)
            size += len(more)
        self.unread = b""
        return b"".join(parts), True

    def answer(self):
        status, headers = self.head()
        body, is_whole = self.body(headers) if status else (b"", False)
        if headers.get("transfer-encoding") == "chunked":
            body, is_whole = unchunk(body)
        return Answer(status, headers, body, is_whole)


def unchunk(text):
    """(bytes, whether they are all): it may be cut anywhere."""
    out, at = [], 0
    while True:
        end = text.find(b"\r\n", at)
        size = int(text[at:end], 16) if end >= 0 else -1
        if size <= 0:
            return b"".join(out), size == 0
        out.append(text[end + 2:end + 2 + size])
        at = end + 2 + size + 2


def basic(user, password):
    return {"Authorization": "Basic " + base64.b64encode(("%s:%s" % (user, password)).encode()).decode()}


class Transfers:
    """The requests of a pool's user. `at`: number of the host that is asked."""

    def __init__(self, pool):
        self.pool = pool

    def url(self, at=1, tls=False):
        url = self.pool.env["HOST_%d_URL" % at]
        if not tls:
            return url
        port = self.pool.env["POOL_HTTPS_URL"].rsplit(":", 1)[1] # the same at each host
        return "https%s:%s" % (url.rsplit(":", 1)[0].removeprefix("http"), port)

    def query(self, query):
        return dict({"session_id": self.pool.session}, **query)

    def open(self, method, path, at=1, version="1.1", headers=None, tls=False, **query):
        self.pool("pool.get_all") # so that there is a session
        return Connection(self.url(at, tls), method, path, self.query(query), headers, version)

    def follow(self, answer, method, headers, body):
        """Where a 302 leads, with all that came along."""
        parts = urllib.parse.urlsplit(answer.headers["location"])
        with Connection("http://" + parts.netloc, method, parts.path + "?" + parts.query, None, headers) as c:
            c.send(body)
            return c.answer()

    def get(self, path, at=1, headers=None, method="GET", **query):
        with self.open(method, path, at, headers=headers, **query) as c:
            answer = c.answer()
        return self.follow(answer, method, headers, b"") if answer.status == 302 else answer

    def put(self, path, body, at=1, headers=None, **query):
        """As curl does it: Expect, and the body when it is wanted."""
        headers = dict(headers or {}, **{"Content-Length": str(len(body))})
        with self.open("PUT", path, at, headers=headers, **query) as c:
            c.send(body)
            answer = c.answer()
        return self.follow(answer, "PUT", headers, body) if answer.status == 302 else answer

    def task(self, name="transfer"):
        return self.pool("task.create", name, "")

    def ended(self, task, status, what):
        """The task's record once it has ended, which has to be so."""
        record = self.pool.wait_task(task)
        check(record is not None and record["status"] == status, "%s: the task ends in %s" % (what, status),
              record and (record["status"], record["error_info"]))
        self.pool("task.destroy", task)
        return record

    def export(self, vm, what="export", at=1, **query):
        """The XVA of a VM."""
        task = self.task()
        answer = self.get("/export", at, ref=vm, task_id=task, **query)
        check(answer.status == 200 and answer.is_whole, what + " is answered", answer)
        record = self.ended(task, "success", what)
        check(record["other_config"].get("transfer_bytes") == str(len(answer.body)), what + ": its task says how much it was",
              (record["other_config"], len(answer.body)))
        return answer.body

    def import_(self, xva, what="import", at=1, **query):
        """The VMs of an XVA."""
        task = self.task()
        answer = self.put("/import", xva, at, task_id=task, **query)
        check(answer.status == 200, what + " is answered", answer)
        record = self.ended(task, "success", what)
        check(record["other_config"].get("transfer_bytes") == str(len(xva)), what + ": its task says how much it was",
              (record["other_config"], len(xva)))
        return refs(record["result"]) if record else []

    def refused(self, xva, code, what, **query):
        """An import fails so, and nothing of it remains."""
        before, task = Inventory(self.pool), self.task()
        self.put("/import", xva, task_id=task, **query)
        record = self.ended(task, "failure", what)
        check(record is not None and record["error_info"][:1] == [code], "%s: %s" % (what, code), record and record["error_info"])
        before.check_same(what)
        return record

    def contents(self, vdi, at=1, **query):
        """All bytes of a disk."""
        answer = self.get("/export_raw_vdi", at, vdi=vdi, **query)
        check(answer.status == 200 and answer.is_whole, "a disk's contents are told", answer)
        return answer.body

    def write(self, vdi, pieces):
        """{offset: bytes} into a disk, which stays as it is elsewhere."""
        records = b"".join(struct.pack("<QI", at, len(data)) + data for at, data in sorted(pieces.items()))
        answer = self.put("/import_raw_vdi", records + struct.pack("<QI", 0, 0), vdi=vdi, chunked="true")
        check(answer.status == 200, "pieces are written", answer)


def refs(text):
    """Of a task's result."""
    return re.findall(r"OpaqueRef:[0-9a-f-]{36}", text)


# ---- VMs ----

def noise(size, seed):
    """Bytes that no compression shrinks, the same each time."""
    return random.Random(seed).randbytes(size)


def disk_refs(pool, vm):
    vbds = sorted((pool("VBD.get_record", ref) for ref in pool("VM.get_VBDs", vm)), key=lambda vbd: int(vbd["userdevice"]))
    return [vbd["VDI"] for vbd in vbds if vbd["type"] == "Disk" and not vbd["empty"]]


class Made:
    """A VM with disks [(sr, format, bytes, {offset: bytes})] and an interface."""

    def __init__(self, transfers, name, disks):
        pool = self.pool = transfers.pool
        template = pool("VM.get_by_name_label", "Debian Etch 4.0")[0]
        self.vm = pool("VM.clone", template, name)
        pool("VM.remove_from_other_config", self.vm, "disks")
        pool("VM.provision", self.vm)
        pool("VM.set_is_a_template", self.vm, False)
        self.uuid = pool("VM.get_uuid", self.vm)
        self.disks = []
        for device, (sr, image_format, size, pieces) in enumerate(disks):
            disk = pool("VDI.create", {
                "name_label": "%s %d" % (name, device), "name_description": "", "SR": sr, "virtual_size": str(size),
                "type": "user", "sharable": False, "read_only": False, "other_config": {},
                "sm_config": {"image-format": image_format}})
            pool("VBD.create", {
                "VM": self.vm, "VDI": disk, "userdevice": str(device), "bootable": device == 0, "mode": "RW", "type": "Disk",
                "empty": False, "other_config": {"owner": ""}, "qos_algorithm_type": "", "qos_algorithm_params": {}})
            if pieces:
                transfers.write(disk, pieces)
            self.disks.append(disk)
        pool("VIF.create", {"device": "0", "network": pool("network.get_all")[0], "VM": self.vm, "MAC": "", "MTU": "1500",
                            "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}})


def destroy(pool, vm):
    """A VM, its snapshots, and all their disks."""
    if pool("VM.get_power_state", vm) != "Halted":
        pool("VM.hard_shutdown", vm)
    for each in pool("VM.get_snapshots", vm) + [vm]:
        disks = disk_refs(pool, each)
        pool("VM.destroy", each)
        for disk in disks:
            pool("VDI.destroy", disk)


def local_sr(pool, number):
    """The SR that only this host sees."""
    host = pool.hosts()[number - 1]
    for ref, sr in pool("SR.get_all_records").items():
        if sr["type"] == "file" and not sr["shared"] and [pool("PBD.get_host", p) for p in sr["PBDs"]] == [host]:
            return ref
    raise RuntimeError("host %d has no SR of its own" % number)


# ---- archives ----

def members(xva):
    """[(name, bytes)] in their order."""
    with tarfile.open(fileobj=io.BytesIO(xva)) as tar:
        return [(m.name, tar.extractfile(m).read()) for m in tar]


def pack(entries, ended=True):
    out = io.BytesIO()
    for name, data in entries:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        out.write(info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512))
    return out.getvalue() + (bytes(1024) if ended else b"")


def ova(xva):
    text = members(xva)[0][1].decode()
    text = re.sub(r"^<\?xml[^>]*>\s*", "", text)
    (value,), _ = xmlrpc.client.loads("<params><param>%s</param></params>" % text)
    return value


# What belongs to one VM and not to its likes. A copy's disks are other files, so they have other places and uuids.
OF_ITSELF = ("uuid", "location", "snapshot_time", "install_time", "last_updated", "start_time")
OF_ITS_LIKES = OF_ITSELF + ("MAC", "generation_id")


def likeness(xva, with_macs):
    """All of an XVA, but for refs, uuids, dates and, unless asked for, MACs."""
    value, skipped = ova(xva), OF_ITSELF if with_macs else OF_ITS_LIKES
    objects = []
    for each in value["objects"]:
        record = {k: v for k, v in each["snapshot"].items() if k not in skipped}
        for key in ("other_config",):
            if key in record:
                record[key] = {k: v for k, v in record[key].items()
                               if k != "import_task" and (with_macs or k != "mac_seed")}
        objects.append((each["class"], each["id"], record))
    version = {k: v for k, v in value["version"].items() if k != "date"}
    return json.dumps([version, objects], sort_keys=True, default=str), members(xva)[1:]


# ---- what a pool has ----

class Inventory:
    """VMs, disks (hidden ones too), drives, interfaces and files."""

    def __init__(self, pool):
        self.pool = pool
        self.now = self.take()

    def take(self):
        pool = self.pool
        return {name: set(pool(name + ".get_all")) for name in ("VM", "VDI", "VBD", "VIF", "network")} | {"files": files(pool)}

    def difference(self):
        now = self.take()
        return {name: now[name] ^ self.now[name] for name in now if now[name] ^ self.now[name]}

    def claims(self):
        pool = self.pool
        return [(name, r["name_label"], r["current_operations"]) for name in ("VM", "VDI", "SR")
                for r in pool(name + ".get_all_records").values() if r["current_operations"]]

    def check_same(self, what, seconds=30):
        """All that came has gone, and nobody is at work; some of it happens behind the task's end."""
        end = time.monotonic() + seconds
        while (self.difference() or self.claims()) and time.monotonic() < end:
            time.sleep(0.05)
        left = self.difference()
        check(left == {}, what + ": nothing remains", left)
        check(self.claims() == [], what + ": no claim is left", self.claims())


def files(pool):
    """Paths of all disks' files, and of whatever else lies where they are; but not what guests leave of their lives."""
    hosts = len([k for k in pool.env if re.fullmatch(r"HOST_\d+_URL", k)])
    directories = [os.path.join(pool.dir, "shared")] + [os.path.join(pool.dir, "host%d" % i, "sr") for i in range(1, hosts + 1)]
    return {os.path.join(d, name) for d in directories if os.path.isdir(d) for name in os.listdir(d)
            if not name.endswith((".lock", ".journal", ".owner"))}


def used(pool, vdi):
    """What its file takes on the medium."""
    for path in files(pool):
        if os.path.basename(path) == pool("VDI.get_location", vdi):
            return os.stat(path).st_blocks * 512
    raise RuntimeError("the disk has no file")


def default_sr(pool):
    return pool("pool.get_default_SR", pool("pool.get_all")[0])


def configure(pool, host, **settings):
    """Settings of a host's agent, which is started anew; without any it has again those that it came with."""
    conf = os.path.join(pool.dir, "host%s" % host, "slave.conf")
    with open(conf) as f:
        text = f.read().split("# of a test\n")[0]
    with open(conf, "w") as f:
        f.write(text + "# of a test\n" + "".join("%s = %s\n" % pair for pair in settings.items()))
    pool.kill(host)
    crashlib.start(pool, host)


def small(t, name, sr=None, formats=("raw",), size=4 * MIB):
    """A VM with a little on each disk."""
    sr = sr or default_sr(t.pool)
    return Made(t, name, [(sr, f, size, {MIB + 4096 * i: noise(3000, i)}) for i, f in enumerate(formats)])


def run_cases(cases, hosts=2, prepare=None):
    """Those that the command line names, or all, in one pool; each has to leave it as it was. The exit status."""
    with Pool(hosts=hosts, vms=0) as pool:
        if prepare:
            prepare(pool)
        t = Transfers(pool)
        pristine = Inventory(pool)
        for case in cases:
            if sys.argv[1:] and case.__name__ not in sys.argv[1:]:
                continue
            began, failed = time.monotonic(), Checks.failed
            case(t)
            pristine.check_same(case.__name__)
            print("# %-40s %5.1f s%s" % (case.__name__, time.monotonic() - began, "" if Checks.failed == failed else "  FAILED"), flush=True)
            if Checks.failed > failed:
                pristine = Inventory(pool)
    return Checks.finish()
