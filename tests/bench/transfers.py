"""Rows export and import of scripts/bench: VMs with real disks leave a pool and come into it over HTTP.

The clients are threads here: one receives and has the kernel throw the bytes away (MSG_TRUNC), one sends a file by sendfile, so
that next to nothing of the machine goes to them; over TLS they have to decrypt. What a rate is compared with is measured in turns
with it in the same run, and of each the best round counts, since other programs use the machine too. A measurement is a tuple
(name, value, unit, target, whether the target is the most, note), which scripts/bench makes lines of.
"""
import ctypes
import os
import socket
import ssl
import subprocess
import threading
import time
import urllib.parse

MIB = 1 << 20
GIB = 1 << 30
PIECE = 2 * MIB
ROUNDS = 7
TOGETHER = 10
MEMORY_MIB = 64
SLOW_BYTES_PER_S = 100 * 1024


class TransferFailed(OSError):
    pass


# ---- clients ----


def connect(url, path, head):
    """A connection on which a request was sent, and what it is asked for once more elsewhere."""
    where = urllib.parse.urlsplit(url)
    connection = socket.create_connection((where.hostname, where.port), 120)
    if where.scheme == "https":
        connection = ssl._create_unverified_context().wrap_socket(connection)  # noqa: S323: loopback, and we measure
    connection.sendall((head % path + "host: %s\r\n\r\n" % where.netloc).encode())
    return connection


def read_head(connection):
    text = b""
    while b"\r\n\r\n" not in text:
        some = connection.recv(65536)
        if not some:
            raise TransferFailed("the connection ended within the head: %r" % text[:200])
        text += some
    head, rest = text.split(b"\r\n\r\n", 1)
    return head.decode("latin-1"), rest


def redirected(head):
    location = [line.split(":", 1)[1].strip() for line in head.split("\r\n")[1:] if line.lower().startswith("location:")]
    where = urllib.parse.urlsplit(location[0])
    return "%s://%s" % (where.scheme, where.netloc)


def get(url, path, bytes_per_s=None, until=None):
    """Receive an answer, follow redirects; its bytes. Slowly: so many bytes a second, up to the event."""
    connection = connect(url, path, "GET %s HTTP/1.1\r\n")
    head, rest = read_head(connection)
    status = head.split(" ")[1]
    if status == "302":
        connection.close()
        return get(redirected(head), path, bytes_per_s, until)
    if status != "200":
        raise TransferFailed("%s: %s" % (head.split("\r\n")[0], rest[:300]))
    got, buffer = len(rest), bytearray(MIB)
    with connection:
        while True:
            if isinstance(connection, ssl.SSLSocket):
                some = connection.recv_into(buffer)
            else:
                some = connection.recv_into(buffer, bytes_per_s // 10 if bytes_per_s else MIB, socket.MSG_TRUNC)
            got += some
            if not some or (until and until.is_set()):
                return got
            if bytes_per_s:
                time.sleep(0.1)


def put(url, path, file):
    """Send a file; its bytes."""
    size = os.path.getsize(file)
    head = "PUT %s HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: " + "%d\r\n" % size
    connection = connect(url, path, head)
    answer, rest = read_head(connection)
    if answer.split(" ")[1] == "302":
        connection.close()
        return put(redirected(answer), path, file)
    with connection, open(file, "rb") as f:
        if answer.split(" ")[1] == "100":
            connection.sendfile(f)
            answer, rest = read_head(connection)
        if answer.split(" ")[1] != "200":
            raise TransferFailed("%s: %s" % (answer.split("\r\n")[0], rest[:300]))
    return size


def together(functions):
    """All at once, in threads. What one raised is raised here."""
    failures = []

    def run(function):
        try:
            function()
        except OSError as e:
            failures.append(e)

    threads = [threading.Thread(target=run, args=(f,)) for f in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


# ---- yardsticks ----


def read_cold(path):
    """From the disk: the page cache is told to forget it first."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    buffer, count = bytearray(PIECE), 0
    while some := os.readv(fd, [buffer]):
        count += some
    os.close(fd)
    return count


def forget(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def remember(path):
    """Into the page cache, all of it."""
    with open(path, "rb") as f:
        while f.read(PIECE):
            pass


def hash_bytes(count):
    xxh64 = ctypes.CDLL("libxxhash.so.0").XXH64
    xxh64.argtypes, xxh64.restype = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64], ctypes.c_uint64
    piece = os.urandom(PIECE)
    for _ in range(count // PIECE):
        xxh64(piece, PIECE, 0)
    return count // PIECE * PIECE


def write_new(path, count):
    """A new file, synced: as an import's disk is."""
    piece = os.urandom(PIECE)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        for _ in range(count // PIECE):
            os.write(fd, piece)
        os.fsync(fd)
    finally:
        os.close(fd)
        os.unlink(path)
    return count // PIECE * PIECE


# ---- processes ----


def cpu_s(pid):
    with open("/proc/%d/stat" % pid) as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_kib(pid, key):
    with open("/proc/%d/status" % pid) as f:
        return next(int(line.split()[1]) for line in f if line.startswith(key + ":"))


class Transfers:
    """One pool of two hosts; host 1 has the master. `size` bytes are the disk's, a tenth of it each of ten's."""

    def __init__(self, pool, size, seconds):
        self.pool, self.size, self.seconds = pool, size, seconds
        self.call = pool.api()
        self.master_url, self.agent_url = pool.env["POOL_URL"], pool.env["HOST_2_URL"]
        self.tls_url = pool.env["POOL_HTTPS_URL"]
        self.agent_tls_url = "https://127.0.1.2:%d" % urllib.parse.urlsplit(self.tls_url).port
        self.session = self.call.session
        self.sr = self.call("SR.get_by_name_label", "Shared storage")[0]
        self.directory = os.path.join(pool.dir, "shared")
        self.vm, self.file = self.make_vm("bench-large", size)
        self.small, _ = self.make_vm("bench-small", size // TOGETHER // PIECE * PIECE)

    # ---- VMs ----

    def make_vm(self, name, size, is_sparse=False):
        call = self.call
        vm = call("VM.clone", call("VM.get_by_name_label", "Other install media")[0], name)
        call("VM.set_is_a_template", vm, False)
        vdi = call("VDI.create", {"name_label": name, "name_description": "", "SR": self.sr, "virtual_size": str(size),
                                  "type": "user", "sharable": False, "read_only": False, "other_config": {},
                                  "xenstore_data": {}, "sm_config": {"image-format": "raw"}, "tags": []})
        call("VBD.create", {"VM": vm, "VDI": vdi, "userdevice": "0", "bootable": True, "mode": "RW", "type": "Disk",
                            "unpluggable": True, "empty": False, "other_config": {}, "qos_algorithm_type": "",
                            "qos_algorithm_params": {}})
        path = os.path.join(self.directory, call("VDI.get_location", vdi))
        if not is_sparse:
            self.fill(path, size)
        return vm, path

    @staticmethod
    def fill(path, size):
        """Half of it can be compressed."""
        text = b"".join(bytes([i % 251 + 1]) * 128 for i in range(PIECE // 2 // 128))
        with open(path, "r+b") as f:
            for _ in range(size // PIECE):
                f.write(os.urandom(PIECE // 2) + text)
            f.flush()
            os.fsync(f.fileno())

    def forget_vms(self, keep):
        call = self.call
        for name in ("bench-large", "bench-small"):
            for vm in call("VM.get_by_name_label", name):
                if vm not in keep:
                    for vbd in call("VM.get_VBDs", vm):
                        call("VDI.destroy", call("VBD.get_VDI", vbd))
                    call("VM.destroy", vm)

    def export_path(self, vm, compression=None):
        return "/export?session_id=%s&ref=%s%s" % (self.session, vm, "&use_compression=" + compression if compression else "")

    def import_path(self):
        return "/import?session_id=%s&sr_id=%s" % (self.session, self.sr)

    # ---- measuring ----

    def rates(self, functions, before=lambda name: None, after=lambda: None):
        """{name: (MB/s, note)} of {name: function that returns bytes}, the best of some rounds, taking turns; what comes before and after
        each is not measured."""
        best = {name: (0, "") for name in functions}
        pids = {"master": [self.pool.master], "agents": self.pool.agents}
        for _ in range(ROUNDS):
            for name, function in functions.items():
                before(name)
                cpu_before = {who: sum(map(cpu_s, p)) for who, p in pids.items()}
                begin = time.monotonic()
                count = function()
                rate = count / (time.monotonic() - begin) / 1e6
                used = {who: (sum(map(cpu_s, p)) - cpu_before[who]) / count * 1e9 for who, p in pids.items()}
                note = ", ".join("%s %.2f" % (who, s) for who, s in used.items() if s >= 0.02)
                if rate > best[name][0]:
                    best[name] = rate, note + " s of CPU a GB" if note else ""
                after()
        return best

    def memory(self, function):
        """Peak MiB above what there was, of the process that took most."""
        pids = [self.pool.master, *self.pool.agents]
        before = {}
        for pid in pids:
            with open("/proc/%d/clear_refs" % pid, "w") as f:
                f.write("5")
            before[pid] = memory_kib(pid, "VmRSS")
        function()
        grown = [(memory_kib(pid, "VmHWM") - before[pid]) / 1024 for pid in pids]
        return max(grown), "master %.0f, agents %s MiB" % (grown[0], " ".join("%.0f" % g for g in grown[1:]))

    def memory_line(self, name, function):
        grown, note = self.memory(function)
        return "  memory, %s" % name, grown, "MiB", MEMORY_MIB, True, note

    # ---- export ----

    def export_all(self):
        large = self.export_path(self.vm)

        def cold(url):
            forget(self.file)
            return get(url, large)

        def packed():
            get(self.agent_url, self.export_path(self.vm, "zstd"))
            return self.size

        def zstd():
            subprocess.run(["zstd", "-T0", "-1", "-q", "-c", self.file], stdout=subprocess.DEVNULL, check=True)
            return self.size

        def before(name):
            if name not in ("read", "hash", "cold"):
                remember(self.file)  # an export lets go of what it has read

        rates = self.rates({"read": lambda: read_cold(self.file), "hash": lambda: hash_bytes(self.size),
                            "cold": lambda: cold(self.agent_url), "agent": lambda: get(self.agent_url, large),
                            "master": lambda: get(self.master_url, large), "agent TLS": lambda: get(self.agent_tls_url, large),
                            "master TLS": lambda: get(self.tls_url, large), "zstd -T0": zstd, "zstd": packed}, before)
        least = 0.8 * min(rates["read"][0], rates["hash"][0])
        lines = [("export, from the disk, none", rates["cold"][0], "MB/s", least, False, rates["cold"][1])]
        lines += [("  " + text, rates[name][0], "MB/s", None, False, rates[name][1]) for text, name in (
            ("reading the file", "read"), ("XXH64", "hash"), ("from the page cache", "agent"),
            ("  by way of the master", "master"), ("  https", "agent TLS"), ("  https, by way of the master", "master TLS"))]
        lines += [("export, zstd", rates["zstd"][0], "MB/s", 0.8 * rates["zstd -T0"][0], False, rates["zstd"][1]),
                  ("  zstd -T0 -1", rates["zstd -T0"][0], "MB/s", None, False, "")]
        return lines + self.holes() + self.slow_client()

    def holes(self):
        vm, _ = self.make_vm("bench-hole", 100 * GIB, is_sparse=True)
        begin = time.monotonic()
        get(self.master_url, self.export_path(vm))
        seconds = time.monotonic() - begin
        sparse, path = self.make_vm("bench-sparse", 64 * GIB, is_sparse=True)
        with open(path, "r+b") as f:  # some data all over it
            for at in range(0, 64 * GIB, GIB):
                f.seek(at)
                f.write(os.urandom(MIB))
        return [("export of 100 GiB of holes", seconds, "s", 2, True, ""),
                self.memory_line("export of 64 GiB, sparse", lambda: get(self.master_url, self.export_path(sparse)))]

    def latency(self):
        """p99 of VM.get_power_state, in ms."""
        return self.pool.load("read", "--connections", "1", "--vms", "1", seconds=self.seconds / 4)["latency_ms"]["p99"]

    def meanwhile(self, functions, end):
        """The same while these run."""
        result = []
        thread = threading.Thread(target=lambda: together(functions))
        thread.start()
        time.sleep(0.3)  # they are under way
        try:
            result.append(self.latency())
        finally:
            end.set()
            thread.join()
        return result[0]

    def slow_client(self):
        end = threading.Event()
        idle = self.latency()
        slow = self.meanwhile([lambda: get(self.master_url, self.export_path(self.vm), SLOW_BYTES_PER_S, end)], end)
        return [("VM.get_power_state p99, no transfer", idle, "ms", None, False, ""),
                ("  while one client reads 100 KiB/s", slow, "ms", max(2 * idle, 1), True, "")]

    # ---- import, and ten at once ----

    def archive(self, name, vm, compression=None):
        path = os.path.join(self.pool.dir, name)
        subprocess.run(["curl", "-sfL", "-o", path, self.agent_url + self.export_path(vm, compression)], check=True)
        return path

    def import_all(self):
        keep = [self.vm, self.small]
        plain, packed = self.archive("plain.xva", self.vm), self.archive("zstd.xva", self.vm, "zstd")

        def bring(url, file):
            put(url, self.import_path(), file)
            return self.size

        best = self.rates({"write": lambda: write_new(os.path.join(self.directory, ".bench"), self.size),
                           "hash": lambda: hash_bytes(self.size), "agent": lambda: bring(self.agent_url, plain),
                           "master": lambda: bring(self.master_url, plain), "master TLS": lambda: bring(self.tls_url, plain),
                           "zstd": lambda: bring(self.agent_url, packed)}, after=lambda: self.forget_vms(keep))
        least = 0.8 * min(best["write"][0], best["hash"][0])
        lines = [("import, none", best["agent"][0], "MB/s", least, False, best["agent"][1])]
        lines += [("  " + text, best[name][0], "MB/s", None, False, best[name][1]) for text, name in (
            ("writing a file, and syncing it", "write"), ("XXH64", "hash"), ("by way of the master", "master"),
            ("https, by way of the master", "master TLS"), ("zstd", "zstd"))]
        for path in (plain, packed):
            os.unlink(path)
        return lines + self.ten(keep)

    def ten(self, keep):
        """Ten imports at once, and ten exports of what they brought."""
        plain, packed = self.archive("plain.xva", self.small), self.archive("zstd.xva", self.small, "zstd")
        lines, idle = [], self.latency()
        for name, file in (("none", plain), ("zstd", packed)):
            self.forget_vms(keep)
            lines.append(self.memory_line("ten imports at once, " + name, lambda f=file: together(
                [lambda: put(self.master_url, self.import_path(), f)] * TOGETHER)))
        vms = [vm for vm in self.call("VM.get_by_name_label", "bench-small") if vm != self.small]
        for name in ("none", "zstd"):
            paths = [self.export_path(vm, name if name == "zstd" else None) for vm in vms]
            lines.append(self.memory_line("ten exports at once, " + name, lambda p=paths: together(
                [lambda path=path: get(self.master_url, path) for path in p])))
        lines.append(("VM.get_power_state p99 while ten are exported", self.ten_and_calls(vms), "ms", None, False,
                      "%.2f ms without" % idle))
        self.forget_vms(keep)
        for path in (plain, packed):
            os.unlink(path)
        return lines

    def ten_and_calls(self, vms):
        end = threading.Event()

        def again_and_again(vm):
            while not end.is_set():
                get(self.master_url, self.export_path(vm), until=end)

        return self.meanwhile([lambda vm=vm: again_and_again(vm) for vm in vms], end)
