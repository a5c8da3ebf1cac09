#!/usr/bin/env python3
"""Logins at the hosts themselves, and what can be done with them: with a master at work, stopped, dead, and another one; after
restarts of the agent, and after a password that was changed while the host was away."""
import os
import re
import socket
import sys
import threading
import time
import xmlrpc.client

from poollib import Checks, Failure, LOST, Pool, Transport, check, wait

NEVER_LOCAL = ["SESSION_INVALID", "OpaqueRef:6a7f1f4c-0000-4000-8000-000000000001"]
LATER = [("host.propose_new_master", "127.0.1.2", True), ("host.commit_new_master", "127.0.1.2"),
         ("host.abort_new_master", "127.0.1.2"), ("host.local_management_reconfigure", "eth0"), ("host.ha_xapi_healthcheck",),
         ("host.emergency_ha_disable",), ("host.management_disable",), ("pool.emergency_transition_to_master",)]


class Host:
    """A host at its own address."""

    def __init__(self, url, timeout_s=30):
        self.url, self.timeout_s = url, timeout_s

    def transport(self):
        return Transport(self.timeout_s)

    def __call__(self, method, *arguments):
        server = xmlrpc.client.ServerProxy(self.url, transport=self.transport())
        answer = getattr(server, method)(*arguments)
        if answer["Status"] != "Success":
            raise Failure(answer["ErrorDescription"])
        return answer["Value"]

    def failure(self, method, *arguments):
        try:
            return ["no failure", self(method, *arguments)]
        except Failure as e:
            return e.details
        except LOST as e:
            return [type(e).__name__]

    def login(self, password):
        return self("session.slave_local_login_with_password", "root", password)

    def knows(self, password):
        try:
            self("session.local_logout", self.login(password))
            return True
        except (Failure, *LOST):
            return False


class SocketTransport(Transport):
    def make_connection(self, host):
        connection = super().make_connection(host)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(self.timeout_s)
        connection.sock.connect(self.path)
        return connection


class Socket(Host):
    """A host at its unix socket."""

    def __init__(self, path, timeout_s=30):
        super().__init__("http://localhost", timeout_s)
        self.path = path

    def transport(self):
        transport = SocketTransport(self.timeout_s)
        transport.path = self.path
        return transport


def expect(got, wanted, what):
    check(got == wanted, what, got)


def secret_of(pool):
    with open(os.path.join(pool.dir, "secret")) as f:
        return f.read().strip()


def all_calls(host, secret, password, any_host, what):
    """Each call for a host in need, at a slave that has a master, heard or not."""
    for session in (host("session.slave_local_login", secret), host.login(password)):
        expect(host("host.is_in_emergency_mode", session), False, what + ": in no emergency")
        expect(host("host.local_assert_healthy", session), "", what + ": healthy")
        expect(host("pool.is_slave", session, any_host), True, what + ": a slave")
        check("<system-status-capabilities/>" in host("host.get_system_status_capabilities", session, any_host),
              what + ": it reports nothing")
        expect(host.failure("VM.get_all", session), ["HOST_IS_SLAVE", "127.0.1.1"], what + ": no other calls")
        for method, *arguments in LATER:
            expect(host.failure(method, session, *arguments), ["NOT_IMPLEMENTED", method], what + ": " + method)
        expect(host.failure("Async.host.shutdown_agent", session),
               ["Fault", "No async mode for this operation (rpc: host.shutdown_agent)"], what + ": not as a task")
        expect(host.failure("host.is_in_emergency_mode", session, 1), ["MESSAGE_PARAMETER_COUNT_MISMATCH",
                                                                       "host.is_in_emergency_mode", "0", "1"], what + ": no more")
        host("session.local_logout", session)
        expect(host.failure("session.local_logout", session), ["SESSION_INVALID", session], what + ": logged out")
    expect(host.failure("host.shutdown_agent", NEVER_LOCAL[1]), NEVER_LOCAL, what + ": not without a session")
    expect(host.failure("Async.host.shutdown_agent", NEVER_LOCAL[1]), NEVER_LOCAL, what + ": nor as a task")
    expect(host.failure("session.slave_local_login", secret + "x"),
           ["SESSION_AUTHENTICATION_FAILED", "", "wrong pool secret"], what + ": a wrong secret")
    expect(host.failure("session.slave_local_login_with_password", "root", password + "x")[:2],
           ["SESSION_AUTHENTICATION_FAILED", "root"], what + ": a wrong password")
    expect(host.failure("session.slave_local_login_with_password", "nobody", password)[:2],
           ["SESSION_AUTHENTICATION_FAILED", "nobody"], what + ": nobody's password")


def whatever_the_master_does(pool, secret, password):
    host = Host(pool.env["HOST_2_URL"])
    any_host = pool.hosts()[0]
    expect(host.failure("session.slave_login", any_host, secret), ["HOST_IS_SLAVE", "127.0.1.1"], "pool sessions are the master's")
    expect(host.failure("pool.is_slave", pool.session, any_host),
           ["SESSION_INVALID", pool.session], "sessions of the pool are none here")
    all_calls(host, secret, password, any_host, "at work")
    session = host.login(password)
    pool.stop("master")
    all_calls(host, secret, password, any_host, "stopped master")
    pool.go_on("master")
    pool.wait_master()
    pool.kill("master")
    all_calls(host, secret, password, any_host, "dead master")
    expect(host("host.is_in_emergency_mode", session), False, "sessions outlive the master")
    pool.kill("2")
    pool.start("2")
    expect(host.failure("host.is_in_emergency_mode", session), ["SESSION_INVALID", session], "they do not outlive the agent")
    session = host.login(password)
    expect(host("host.is_in_emergency_mode", session), True, "a new agent without a master: emergency")
    expect(host.failure("host.local_assert_healthy", session), ["HOST_STILL_BOOTING"], "which is not healthy")
    expect(host.failure("VM.get_all", session), ["HOST_STILL_BOOTING"], "and answers nothing else")
    pool.start("master")
    pool.wait_hosts()
    wait(lambda: not host("host.is_in_emergency_mode", session), "the emergency ends with the master's welcome", 30)
    expect(host("host.local_assert_healthy", session), "", "healthy again")
    expect(host("host.signal_networking_change", session), "", "the network has changed")
    pool.wait_hosts()


def at_the_master(pool, secret, password):
    master = Host(pool.env["POOL_URL"])
    host = pool.hosts()[0]
    for session in (master("session.slave_local_login", secret), master.login(password)):
        expect(master("host.is_in_emergency_mode", session), False, "the master is in no emergency")
        expect(master("host.local_assert_healthy", session), "", "the master is healthy")
        expect(master("pool.is_slave", session, host), False, "it is no slave")
        expect(master("host.signal_networking_change", session), "", "its network may change")
        expect(master.failure("pool.emergency_reset_master", session, "127.0.1.2")[0], "OPERATION_NOT_ALLOWED",
               "it follows nobody while it is at work")
        expect(master.failure("VM.get_all", session), ["SESSION_INVALID", session], "a local session is for no other calls")
        expect(master.failure("Async.host.shutdown_agent", session)[0], "Fault", "nor for tasks")
        expect(master.failure("host.management_disable", session), ["NOT_IMPLEMENTED", "host.management_disable"], "some are not there")
        master("session.local_logout", session)
        expect(master.failure("host.is_in_emergency_mode", session), ["SESSION_INVALID", session], "logged out")
    session = master("session.slave_login", host, secret)
    expect(master("session.get_pool", session, session), True, "slave_login: a pool session")
    expect(master("host.local_assert_healthy", session), "", "for which the pool's own calls are")
    expect(pool.raw("host.is_in_emergency_mode", pool.session), False, "any session may ask")
    try:
        pool("host.local_assert_healthy")
        check(False, "but not make calls of the pool's own")
    except Failure as e:
        expect(e.details[0], "INTERNAL_ERROR", "but not make calls of the pool's own")


def passwords_follow(pool, old):
    """Told while they are linked; and to one that was away, later. The ledger has no password, and is for its owner only."""
    here, away = Host(pool.env["HOST_2_URL"]), Host(pool.env["HOST_3_URL"])
    check(away.knows(old), "host 3 knows the password")
    pool.kill("3")
    pool.session = None
    new = "another one"
    pool("session.change_password", old, new)
    wait(lambda: here.knows(new), "host 2 is told the new password", 10)
    check(not here.knows(old), "the old one is wrong there")
    pool.kill("master")
    pool.start("3")
    check(away.knows(old) and not away.knows(new), "host 3 was away and goes by the old one")
    pool.kill("2")
    pool.start("2")
    check(here.knows(new) and not here.knows(old), "host 2 still knows it after a restart, without a master")
    pool.start("master")
    wait(lambda: away.knows(new), "host 3 hears of it with the master's welcome", 60)
    check(not away.knows(old), "the old one is wrong there, too")
    pool.env["POOL_PASSWORD"] = new
    pool.session = None
    for number in (2, 3):
        directory = os.path.join(pool.dir, "host%d" % number)
        for name in os.listdir(directory):
            path = os.path.join(directory, name)
            if name.startswith("ledger"):
                with open(path, "rb") as f:
                    content = f.read()
                check(new.encode() not in content and old.encode() not in content, name + " holds no password")
                expect(os.stat(path).st_mode & 0o077, 0, name + " is for its owner")
    pool("session.change_password", new, old)
    wait(lambda: here.knows(old) and away.knows(old), "both hear of the next one", 10)
    pool.env["POOL_PASSWORD"] = old


def resident_kib(pid):
    with open("/proc/%d/status" % pid) as f:
        return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))


def many_logins_stay_bounded(pool, secret, password):
    host = Host(pool.env["HOST_2_URL"])
    first = [host.login(password) for _ in range(100)]
    before = resident_kib(pool.pid("2"))
    sessions = [host.login(password) for _ in range(500)] + [host("session.slave_local_login", secret) for _ in range(500)]
    grown = resident_kib(pool.pid("2")) - before
    check(grown < 4096, "a thousand logins cost no memory", grown)
    live = [s for s in sessions if host.failure("host.is_in_emergency_mode", s)[0] == "no failure"]
    check(live == sessions[-len(live):] and 100 <= len(live) <= 200, "the newest are kept", len(live))
    expect(host.failure("host.is_in_emergency_mode", first[0])[0], "SESSION_INVALID", "the oldest made room")


def guessers_wait(pool, password):
    """As at the master; and whoever has a session, or comes from elsewhere, does not notice."""
    host = Host(pool.env["HOST_3_URL"])
    session = host.login(password)
    took, stop = [], threading.Event()

    def guess():
        while not stop.is_set():
            began = time.monotonic()
            if host.failure("session.slave_local_login_with_password", "root", "guess")[0] == "SESSION_AUTHENTICATION_FAILED":
                took.append(time.monotonic() - began)

    threads = [threading.Thread(target=guess, daemon=True) for _ in range(20)]
    for thread in threads:
        thread.start()
    wait(lambda: len(took) > 20, "guesses are answered", 30)
    for _ in range(10):
        began = time.monotonic()
        host("host.is_in_emergency_mode", session)
        check(time.monotonic() - began < 1, "who has a session is answered at once", time.monotonic() - began)
    wait(lambda: host.knows(password), "who knows the password gets in between", 10)
    stop.set()
    for thread in threads:
        thread.join()
    check(max(took) > 0.4, "guessers wait longer and longer", max(took))
    pool.kill("3") # and with it what it holds against this address
    pool.start("3")
    pool.wait_hosts()


def the_agent_ends_and_guests_live_on(pool, password):
    host = Host(pool.env["HOST_2_URL"])
    vms = pool.vms()
    pid = pool.pid("2")
    expect(host("host.shutdown_agent", host.login(password)), "", "the agent is asked to end")
    wait(lambda: pool.pid("2") == 0, "it ends", 20)
    check(pid != 0, "it had lived")
    for name, vm in vms.items():
        before = pool.ticks(vm)
        wait(lambda: pool.ticks(vm) > before, name + " runs on", 20)
    pool.start("2")
    pool.wait_hosts()
    expect(pool.raw("host.shutdown_agent", pool.session), "", "the master is asked to end")
    wait(lambda: pool.pid("master") == 0, "it ends, too", 20)
    pool.start("master")
    pool.session = None
    pool.wait_hosts()
    for name, vm in vms.items():
        pool.check_exactly_once(vm, name)


def addresses_that_cannot_be(pool, password):
    host = Host(pool.env["HOST_2_URL"])
    session = host.login(password)
    for wrong in ("", " ", "0.0.0.0", "::", "224.0.0.1", "255.255.255.255", "ff02::1", "no.such.host.invalid", "<script>", "x" * 300,
                  "127.0.1.9:0", "127.0.1.9:70000", "127.0.1.9:x", "[fd00::1]", "-"):
        expect(host.failure("pool.emergency_reset_master", session, wrong)[:2], ["INVALID_VALUE", "master_address"], "%r" % wrong[:20])
    expect(host.failure("pool.emergency_reset_master", session, "127.0.1.2"), ["HOST_ITS_OWN_SLAVE"], "itself")
    expect(host.failure("pool.emergency_reset_master", "OpaqueRef:NULL", "127.0.1.9"), ["SESSION_INVALID", "OpaqueRef:NULL"],
           "not without a session")
    expect(host("host.is_in_emergency_mode", session), False, "it still has its master")
    pool.wait_hosts()


def rewrite(path, *changes):
    with open(path) as f:
        text = f.read()
    for old, new in changes:
        check(old in text, "%s has %r" % (path, old))
        text = text.replace(old, new)
    with open(path, "w") as f:
        f.write(text)


def another_address(pool, password):
    """The master's machine gets another address; the hosts are told, one by one. One is killed right after that, and goes there
    all the same. The master's own host is asked at its agent's socket, and may be told its own address."""
    vms = pool.vms()
    pool.kill("master")
    pool.kill("1")
    rewrite(os.path.join(pool.dir, "master.conf"), ("link_listen = 127.0.1.1:", "link_listen = 127.0.1.9:"),
            ("join_listen = 127.0.1.1:", "join_listen = 127.0.1.9:"), ("host_address = 127.0.1.1", "host_address = 127.0.1.9"))
    rewrite(os.path.join(pool.dir, "host1", "slave.conf"), ("address = 127.0.1.1\n", "address = 127.0.1.9\n"))
    pool.start("1")
    pool.start("master")
    hosts = [Socket(os.path.join(pool.dir, "host1", "slave.sock")), Host(pool.env["HOST_2_URL"]), Host(pool.env["HOST_3_URL"])]
    for number, host in enumerate(hosts, 1):
        session = host.login("" if number == 1 else password) # the socket's owner needs none
        expect(host("pool.emergency_reset_master", session, "127.0.1.9"), "", "host %d is sent to the new address" % number)
        if number == 3:
            pool.kill("3")
            pool.start("3")
    for number, host in enumerate(hosts, 1):
        wait(lambda: host.failure("VM.get_all", "") == ["HOST_IS_SLAVE", "127.0.1.9"], "host %d has a master again" % number, 30)
    pool.session = None
    pool.wait_hosts()
    pool.kill("2")
    pool.start("2")
    wait(lambda: hosts[1].failure("VM.get_all", "") == ["HOST_IS_SLAVE", "127.0.1.9"], "a new agent goes there, too", 10)
    pool.wait_hosts()
    for name, vm in vms.items():
        pool.check_exactly_once(vm, name)


with Pool(hosts=3, vms=2, redis=False) as pool:
    password, secret = pool.env["POOL_PASSWORD"], secret_of(pool)
    pool("pool.get_all")
    whatever_the_master_does(pool, secret, password)
    pool.session = None
    pool("pool.get_all")
    at_the_master(pool, secret, password)
    passwords_follow(pool, password)
    many_logins_stay_bounded(pool, secret, password)
    guessers_wait(pool, password)
    the_agent_ends_and_guests_live_on(pool, password)
    addresses_that_cannot_be(pool, password)
    another_address(pool, password)
sys.exit(Checks.finish())
