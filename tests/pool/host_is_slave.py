#!/usr/bin/env python3
"""Every host of a pool answers at its own address: with where the master is, or with why it cannot tell. Real clients, HTTP
and HTTPS, IPv4 and IPv6; a master that is stopped; hosts that are in no pool."""
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid

from poollib import Checks, Pool, check, wait

sys.path.insert(0, os.environ.get("XENAPI_PY_DIR", "/usr/share/fence"))
import XenAPI  # noqa: E402

LOGIN_XML = (b"<methodCall><methodName>session.login_with_password</methodName><params><param><value>root</value></param>"
             b"<param><value>x</value></param></params></methodCall>")


def post(url, body, context=None, timeout=5):
    request = urllib.request.Request(url, body.encode() if isinstance(body, str) else body)
    with urllib.request.urlopen(request, timeout=timeout, context=context) as answer:
        return answer.read().decode()


def call(url, method, params, version="2.0", context=None):
    body = {"method": method, "params": params, "id": 5}
    if version == "2.0":
        body["jsonrpc"] = version
    return json.loads(post(url + "/jsonrpc", json.dumps(body), context))


def reason(url, context=None):
    """What a JSON-RPC client is told instead of an answer, as [code, details...]; None while nobody answers."""
    try:
        error = call(url, "session.login_with_password", ["root", "x"], context=context)["error"]
    except OSError:
        return None
    return error if isinstance(error, list) else [error["message"]] + error["data"]


def https_url(pool, number):
    return "https://127.0.1.%d:%s" % (number, pool.env["POOL_HTTPS_URL"].rsplit(":", 1)[1])


def clients_are_sent_to_the_master(pool):
    url = pool.env["HOST_2_URL"]
    session = XenAPI.Session(url)
    try:
        session.xenapi.login_with_password("root", "wrong", "1.0", "test")
        check(False, "XenAPI.py's login at a slave fails")
    except XenAPI.Failure as e:
        check(e.details == ["HOST_IS_SLAVE", "127.0.1.1"], "XenAPI.py is told where the master is", e.details)
    got = call(url, "VM.get_all", ["none"], "2.0")
    check(got == {"jsonrpc": "2.0", "id": 5, "error": {"code": 1, "message": "HOST_IS_SLAVE", "data": ["127.0.1.1"]}},
          "JSON-RPC 2.0", got)
    got = call(url, "VM.get_all", ["none"], "1.0")
    check(got == {"result": None, "error": ["HOST_IS_SLAVE", "127.0.1.1"], "id": 5}, "JSON-RPC 1.0", got)
    got = call(url, "system.isAlive:me", ["me"])
    check(got.get("result") == "me", "system.isAlive is answered", got)
    check("127.0.1.1" in post(url + "/", LOGIN_XML), "plain XML-RPC")
    check(reason("http://" + "127.0.1.3:" + url.rsplit(":", 1)[1]) == ["HOST_IS_SLAVE", "127.0.1.1"], "host 3, same port")
    with urllib.request.urlopen(url, timeout=5) as page:
        text = page.read().decode()
    check("slave of 127.0.1.1" in text, "a page for people says so", text)
    try:
        urllib.request.urlopen(url + "/nothing", timeout=5)
        check(False, "what is not served is refused")
    except urllib.error.HTTPError as e:
        check(e.code == 403, "what is not served is 403", e.code)


def https_is_verified(pool):
    bundle = ssl.create_default_context(cafile=pool.env["POOL_CA"])
    for number in (1, 2, 3):
        try:
            got = reason(https_url(pool, number), bundle)
        except OSError as e:
            got = e
        check(got and got[0] == ("HOST_IS_SLAVE" if number > 1 else "SESSION_AUTHENTICATION_FAILED"),
              "POOL_CA verifies host %d" % number, got)
    master_only = ssl.create_default_context(cafile=os.path.join(pool.dir, "master", "master.crt"))
    try:
        post(https_url(pool, 2), LOGIN_XML, master_only)
        check(False, "another certificate does not verify host 2")
    except urllib.error.URLError as e:
        check(isinstance(e.reason, ssl.SSLCertVerificationError), "each host has its own certificate", e.reason)


def fingerprint(pool, number):
    return ssl.get_server_certificate(("127.0.1.%d" % number, int(https_url(pool, number).rsplit(":", 1)[1])))


def certificates_reload(pool):
    before = fingerprint(pool, 2)
    for name in ("slave.crt", "slave.key"):
        shutil.copy(os.path.join(pool.dir, "host3", name), os.path.join(pool.dir, "host2", name))
    pool.signal("2", signal.SIGHUP)
    wait(lambda: fingerprint(pool, 2) == fingerprint(pool, 3), "SIGHUP makes host 2 show its new certificate", 10)
    check(before != fingerprint(pool, 3), "which is another one")


def the_masters_host_has_one_door(pool):
    """Its slave has no listener on TCP, only a socket for the master, which is this user's."""
    path = os.path.join(pool.dir, "host1", "slave.sock")
    check(os.stat(path).st_mode & 0o777 == 0o600, "the socket is for its user only", oct(os.stat(path).st_mode))
    connection = http.client.HTTPConnection("localhost", timeout=5)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(path)
    connection.request("POST", "/", LOGIN_XML)
    check("HOST_IS_SLAVE" in connection.getresponse().read().decode(), "it answers there")
    connection.close()
    with open("/proc/net/tcp") as f:
        tcp = {line.split()[9] for line in f.readlines()[1:] if line.split()[3] == "0A"}
    held = [os.readlink(os.path.join("/proc/%d/fd" % pool.pid("1"), fd)) for fd in os.listdir("/proc/%d/fd" % pool.pid("1"))]
    listening = [h for h in held if h.startswith("socket:[") and h[8:-1] in tcp]
    check(listening == [], "it listens at no TCP port", listening)


def a_stopped_master_stops_no_slave(pool):
    url = pool.env["HOST_2_URL"]
    pool.stop("master")
    began = time.monotonic()
    while time.monotonic() < began + 7: # until well after the link was given up
        at = time.monotonic()
        got = reason(url)
        check(got == ["HOST_IS_SLAVE", "127.0.1.1"], "the slave stays the master's slave", got)
        if time.monotonic() > at + 1:
            check(False, "the slave answers at once", time.monotonic() - at)
        time.sleep(0.2) # it is asked all the time that it takes
    pool.kill("2")
    pool.start("2")
    check(reason(url) == ["HOST_STILL_BOOTING"], "a new agent does not know yet whether it still has that master", reason(url))
    with urllib.request.urlopen(url, timeout=5) as page:
        check("not yet heard" in page.read().decode(), "and its page says so")
    pool.go_on("master")
    wait(lambda: reason(url) == ["HOST_IS_SLAVE", "127.0.1.1"], "when the master is back the slave knows", 30)


def listener(family, address):
    with socket.socket(family) as s:
        s.bind((address, 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def process(pool, name, command):
    with open(os.path.join(pool.dir, "log", name + ".log"), "wb") as log, \
            subprocess.Popen(command, stdout=log, stderr=log) as running:
        try:
            yield
        finally:
            running.terminate()
            running.wait(20)


@contextlib.contextmanager
def lone_slave(pool, name, *options):
    """An agent and its guests process that are in no pool; yields the uuid of the host and its URL at ::1."""
    host, port, directory = str(uuid.uuid4()), listener(socket.AF_INET6, "::1"), os.path.join(pool.dir, name)
    with open(os.path.join(pool.dir, "pool.json")) as f:
        build = json.load(f)["build"]
    os.mkdir(directory, 0o700)
    guests = [os.path.join(build, "drover-guests"), "--socket", os.path.join(directory, "guests.sock"), "--host-uuid", host]
    slave = [os.path.join(build, "drover-slave"), "--dir", directory, "--host", host, "--listen", "[::1]:%d" % port,
             "--address", "::1", *options]
    with process(pool, name + "-guests", guests), process(pool, name, slave):
        url = "http://[::1]:%d" % port
        wait(lambda: reason(url), name + " answers", 20)
        yield host, url
    shutil.rmtree(directory)


def hosts_without_a_pool_say_why(pool):
    with lone_slave(pool, "alone") as (_, url):
        check(reason(url) == ["HOST_STILL_BOOTING"], "a host that never joined", reason(url))
        got = call(url, "host.is_in_emergency_mode", ["none"], "1.0")["error"]
        check(got == ["SESSION_INVALID", "none"], "it says how it is to nobody", got)
        got = call(url, "session.slave_local_login", [""], "1.0")["error"]
        check(got == ["SESSION_AUTHENTICATION_FAILED", "", "wrong pool secret"], "without a secret nobody logs in by one", got)
        got = call(url, "VM.get_all", ["none"], "1.0")
        check(got == {"jsonrpc": "2.0", "error": ["HOST_STILL_BOOTING"], "id": 0}, "before dispatch there is one form", got)
    secret = os.path.join(pool.dir, "wrong-secret")
    with open(secret, "w") as f:
        f.write("not the pool's\n")
    with open(os.path.join(pool.dir, "host2", "slave.conf")) as f:
        join = [line.split("=")[1].strip() for line in f if line.startswith("join")][0]
    with lone_slave(pool, "stranger", "--join", join, "--pool-secret-file", secret) as (host, url):
        wait(lambda: reason(url) == ["HOST_UNKNOWN_TO_MASTER", host], "a host with a wrong secret", 30)
        session = call(url, "session.slave_local_login", ["not the pool's"])["result"]
        check(call(url, "host.is_in_emergency_mode", [session])["result"] is True, "it is in emergency mode")
        got = call(url, "host.local_assert_healthy", [session], "1.0")["error"]
        check(got == ["HOST_UNKNOWN_TO_MASTER", host], "and says why", got)
    os.remove(secret)


with Pool(hosts=3, vms=0, redis=False) as pool:
    clients_are_sent_to_the_master(pool)
    https_is_verified(pool)
    the_masters_host_has_one_door(pool)
    hosts_without_a_pool_say_why(pool)
    certificates_reload(pool)
    a_stopped_master_stops_no_slave(pool)
sys.exit(Checks.finish())
