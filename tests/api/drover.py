"""What the API tests share: a real drover-master on loopback, and clients that see every byte.

A test is a list of functions; each makes what it needs and says with assert what must hold.
"""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import xmlrpc.client

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("DROVER_BUILD", os.path.join(ROOT, "build", "dev"))
PASSWORD = "correct horse"
NULL = "OpaqueRef:NULL"


class Failure(Exception):
    """A call answered Failure; args is the error description."""


class Master:
    """A master in a directory of its own; `with Master() as m`."""

    def __init__(self, *options, directory=None):
        self.own_dir = directory is None
        self.dir = directory or tempfile.mkdtemp(prefix="drover-api-")
        self.options = options
        password = os.path.join(self.dir, "root-password")
        if not os.path.exists(password):
            with open(password, "w") as f:
                f.write(PASSWORD + "\n")
        self.start()

    def start(self):
        self.log = open(os.path.join(self.dir, "log"), "ab")
        self.process = subprocess.Popen(
            [os.path.join(BUILD, "drover-master"), "--dir", self.dir, "--listen", "127.0.0.1:0", *self.options],
            stdout=subprocess.PIPE, stderr=self.log,
            restore_signals=False)                      # a file at its limit is an error, no signal (disk.py)
        line = self.process.stdout.readline().decode().split()
        if line[:1] != ["ready"]:
            self.stop()
            raise Exception("the master did not start")
        self.url = line[1]
        host, port = self.url[len("http://"):].split(":")
        self.address = (host, int(port))
        self.socket_path = os.path.join(self.dir, "master.sock")

    def stop(self, expect=0):
        """End it as an operator would; sanitizers speak up in its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=60)
        self.process.stdout.close()
        self.log.close()
        if code != expect:
            sys.stderr.write(self.log_text()[-8000:])
            raise Exception("the master ended with %d" % code)

    def log_text(self):
        with open(os.path.join(self.dir, "log"), errors="replace") as f:
            return f.read()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        try:
            self.stop()
        finally:
            if kind:
                sys.stderr.write(self.log_text()[-8000:])
            if self.own_dir:
                shutil.rmtree(self.dir, ignore_errors=True)

    # --- bytes ---

    def connect(self):
        s = socket.create_connection(self.address)
        s.settimeout(60)
        return s

    def http(self, method, path, body=None, headers={}):
        """(status, headers with lower-case names, body)."""
        c = http.client.HTTPConnection(*self.address, timeout=60)
        try:
            c.request(method, path, body, headers)
            r = c.getresponse()
            return r.status, {k.lower(): v for k, v in r.getheaders()}, r.read()
        finally:
            c.close()

    def post(self, body, path="/", headers={}):
        status, _, reply = self.http("POST", path, body, headers)
        assert status == 200, (status, reply)
        return reply

    # --- calls ---

    def call(self, name, *params, headers={}, connection=None):
        """One XML-RPC call; the value, or Failure."""
        body = xmlrpc.client.dumps(tuple(params), name, allow_none=True)
        if connection:
            connection.request("POST", "/", body, headers)
            reply = connection.getresponse().read()
        else:
            reply = self.post(body, headers=headers)
        (result,), _ = xmlrpc.client.loads(reply)
        if not isinstance(result, dict) or "Status" not in result:
            return result
        if result["Status"] == "Success":
            return result["Value"]
        raise Failure(*result["ErrorDescription"])

    def json(self, name, *params, version="2.0", id=1):
        """One JSON-RPC call; the whole reply."""
        call = {"method": name, "params": list(params), "id": id}
        if version:
            call["jsonrpc"] = version
        return json.loads(self.post(json.dumps(call), "/jsonrpc"))

    def login(self, user="root", password=PASSWORD, originator="test"):
        return Session(self, self.call("session.login_with_password", user, password, "1.0", originator))


class Session:
    """Calls with the session as their first parameter: s("VM.get_all")."""

    def __init__(self, master, ref):
        self.master, self.ref = master, ref

    def __call__(self, name, *params, **options):
        return self.master.call(name, self.ref, *params, **options)


def failure(fn, *args, **options):
    """The error description that a call fails with."""
    try:
        value = fn(*args, **options)
    except Failure as e:
        return list(e.args)
    raise AssertionError("succeeded: %r" % (value,))


def wait_for(condition, seconds=20):
    """Until the condition holds; its value."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, "not within %d s" % seconds
        time.sleep(0.01)


def run(*tests):
    """Each test with a fresh master; those named on the command line, or all."""
    wanted, failed = sys.argv[1:], []
    for test in tests:
        if wanted and test.__name__ not in wanted:
            continue
        try:
            with Master(*getattr(test, "options", ())) as master:
                test(master)
            print("ok   %s" % test.__name__, flush=True)
        except Exception:
            traceback.print_exc()
            print("FAIL %s" % test.__name__, flush=True)
            failed.append(test.__name__)
    sys.exit(1 if failed else 0)
