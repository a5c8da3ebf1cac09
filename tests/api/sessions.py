#!/usr/bin/env python3
"""Logging in and out, who may do what, and what a guesser costs the others."""

import os
import threading
import time

from drover import *


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def logins_take_two_to_four_words(m):
    for words in (("root", PASSWORD), ("root", PASSWORD, "1.0"), ("root", PASSWORD, "any", "me")):
        session = Session(m, m.call("session.login_with_password", *words))
        record = session("session.get_record", session.ref)
        assert record["originator"] == ("me" if len(words) == 4 else "")
        assert record["is_local_superuser"] is True and record["pool"] is False
        assert record["auth_user_name"] == "root" and record["this_user"] == NULL
        assert record["this_host"] == session("host.get_all")[0]
        assert record["rbac_permissions"]
        assert session("session.get_uuid", session.ref) == record["uuid"]
        assert session("session.get_this_host", session.ref) == record["this_host"]
    for wrong in (("root", "x"), ("root", ""), ("nobody", PASSWORD), ("", ""), ("root", "x" * 1000)):
        error = failure(m.call, "session.login_with_password", *wrong)
        assert error[:2] == ["SESSION_AUTHENTICATION_FAILED", wrong[0]] and len(error) == 3, error


def logout_ends_it(m):
    s, other = m.login(), m.login()
    s("session.logout")
    assert failure(s, "pool.get_all") == ["SESSION_INVALID", s.ref]
    assert failure(s, "session.logout") == ["SESSION_INVALID", s.ref]
    assert other("pool.get_all")
    local = Session(m, m.call("session.slave_local_login_with_password", "root", PASSWORD))
    assert failure(local, "pool.get_all") == ["SESSION_INVALID", local.ref]
    local("session.local_logout")
    assert failure(local, "session.local_logout") == ["SESSION_INVALID", local.ref]


def the_sockets_root_needs_no_password(m):
    c = UnixConnection(m.socket_path)
    s = Session(m, m.call("session.login_with_password", "", "", connection=c))
    assert s("session.get_is_local_superuser", s.ref, connection=c) is True
    assert s("session.get_rbac_permissions", s.ref) == []
    # Rows for the local root only are open to it, and not to root with a password.
    name = "session.create_from_db_file"
    assert failure(s, name, "x") == ["NOT_IMPLEMENTED", name]
    error = failure(m.login(), name, "x")
    assert error[:2] == ["RBAC_PERMISSION_DENIED", name] and len(error) == 3
    assert failure(m.call, "session.login_with_password", "", "")[0] == "SESSION_AUTHENTICATION_FAILED"


def hosts_log_in_by_the_pool_secret(m):
    with open(os.path.join(m.dir, "pool-secret")) as f:
        secret = f.read().strip()
    assert os.stat(os.path.join(m.dir, "pool-secret")).st_mode & 0o777 == 0o600
    host, = m.login()("host.get_all")
    s = Session(m, m.call("session.slave_login", host, secret))
    assert s("session.get_pool", s.ref) is True
    assert failure(s, "InternalAsync.pool.get_uuid", s("pool.get_all")[0])[0] == "Fault"
    assert failure(m.call, "session.slave_login", host, secret + "x")[0] == "SESSION_AUTHENTICATION_FAILED"
    assert failure(m.call, "session.slave_login", host, "")[0] == "SESSION_AUTHENTICATION_FAILED"


def the_password_can_be_changed(m):
    s = m.login()
    assert failure(s, "session.change_password", "unchecked", "")[0] == "CHANGE_PASSWORD_REJECTED"
    s("session.change_password", "unchecked", "new one")
    assert failure(m.call, "session.login_with_password", "root", PASSWORD)[0] == "SESSION_AUTHENTICATION_FAILED"
    assert m.login(password="new one")("pool.get_all")
    assert "new one" not in m.log_text() and PASSWORD not in m.log_text()


def a_guesser_delays_nobody_else(m):
    """A thousand wrong passwords from one address, while others log in from another."""
    s = m.login()
    done = []

    def guess():
        for i in range(20):
            try:
                failure(m.call, "session.login_with_password", "root", "guess %d" % i)
            except OSError:
                pass
            done.append(i)

    threads = [threading.Thread(target=guess, daemon=True) for _ in range(50)]
    for t in threads:
        t.start()
    wait_for(lambda: len(done) > 100)
    c = UnixConnection(m.socket_path)
    slowest = 0
    for i in range(20):
        t0 = time.monotonic()
        Session(m, m.call("session.login_with_password", "root", "", connection=c))("pool.get_all")
        host = http.client.HTTPConnection(*m.address, timeout=60, source_address=("127.0.0.9", 0))
        assert Session(m, m.call("session.login_with_password", "root", PASSWORD, connection=host))("pool.get_all")
        slowest = max(slowest, time.monotonic() - t0)
    assert slowest < 1, slowest
    assert s("pool.get_all")


def a_guesser_does_not_delay_his_neighbour(m):
    """Right passwords from the very address of one who guesses, on two connections, without end."""
    m.login()
    done, stop = [], threading.Event()

    def guess():
        while not stop.is_set():
            t0 = time.monotonic()
            assert failure(m.call, "session.login_with_password", "root", "guess")[0] == "SESSION_AUTHENTICATION_FAILED"
            done.append(time.monotonic() - t0)

    threads = [threading.Thread(target=guess, daemon=True) for _ in range(2)]
    for t in threads:
        t.start()
    wait_for(lambda: len(done) >= 6)
    for i in range(5):
        t0 = time.monotonic()
        assert m.login()("pool.get_all")
        assert time.monotonic() - t0 < 0.2
    stop.set()
    for t in threads:
        t.join()
    assert max(done) > 0.25, done


def idle_sessions_make_room(m):
    """Of one originator there are at most so many; but none in use is evicted, the newcomer is refused."""
    sessions = [m.login(originator="greedy") for _ in range(6)]
    error = failure(m.login, originator="greedy")
    assert error[0] == "SESSION_AUTHENTICATION_FAILED" and "too many" in error[2]
    for s in sessions:
        assert s("pool.get_all")
    assert m.login(originator="modest")
    sessions[0]("session.logout")
    assert m.login(originator="greedy")


idle_sessions_make_room.options = ("--sessions_per_originator", "3")


def subjects_are_known_by_identifier(m):
    s = m.login()
    assert s("session.get_all_subject_identifiers") == []
    s("session.logout_subject_identifier", "")
    s("session.logout_subject_identifier", "nobody")
    assert s("pool.get_all")
    permissions = s("role.get_permissions_name_label", s("role.get_by_name_label", "read-only")[0])
    assert "vm.get_all" in permissions and "vm.start" not in permissions
    names = [s("role.get_name_label", r) for r in s("role.get_by_permission_name_label", "vm.start")]
    assert sorted(names) == ["pool-admin", "pool-operator", "vm-admin", "vm-operator", "vm-power-admin"]


def a_restarted_master_asks_to_log_in_again(m):
    s = m.login()
    m.stop()
    m.start()
    assert failure(s, "pool.get_all") == ["SESSION_INVALID", s.ref]
    assert m.login()("pool.get_all")


def unchanged_clients_get_in(m):
    """XenAPI.py as fence-agents ships it."""
    sys.path.insert(0, "/usr/share/fence")
    try:
        import XenAPI
    except ImportError:
        print("     (no XenAPI.py here)")
        return
    s = XenAPI.Session(m.url)
    s.login_with_password("root", PASSWORD, "1.0", "unchanged")
    assert s.xenapi.pool.get_all_records()
    assert s.xenapi.host.get_API_version_major(s.xenapi.session.get_this_host(s._session)) == "2"
    s.xenapi.session.logout()


run(logins_take_two_to_four_words, logout_ends_it, the_sockets_root_needs_no_password, hosts_log_in_by_the_pool_secret,
    the_password_can_be_changed, a_guesser_delays_nobody_else, a_guesser_does_not_delay_his_neighbour, idle_sessions_make_room,
    subjects_are_known_by_identifier, a_restarted_master_asks_to_log_in_again, unchanged_clients_get_in)
