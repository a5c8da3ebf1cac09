#!/usr/bin/env python3
"""drover-load against a stand-in for a pool that knows what each answer must have been: test_load.py PATH-OF-drover-load

The stand-in keeps VMs in a dict, answers some calls late, in pieces, chunked or with a failure, and counts what it was asked.
"""
import json
import re
import subprocess
import sys
import threading
import time
import xmlrpc.client
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOSTS = ["OpaqueRef:host-%d" % i for i in range(3)]
DISABLED = "OpaqueRef:disabled"


class StandIn:
    def __init__(self, vms):
        self.lock = threading.Condition()
        self.vms = {"OpaqueRef:vm-%d" % i: self.vm(i) for i in range(vms)}
        self.vms["OpaqueRef:template"] = self.vm(-1, is_a_template=True, power_state="Halted",
                                                 name_label="Other install media")
        self.vms["OpaqueRef:dom0"] = self.vm(-2, is_control_domain=True)
        self.generation = 1
        self.changed = {}      # ref -> generation
        self.calls = {}
        self.fail = {}         # method -> every n-th call fails
        self.created = 0
        self.records_delay_s = 0

    @staticmethod
    def vm(number, **others):
        running = number % 2 == 0
        record = {"uuid": str(number), "name_label": "vm%d" % number, "name_description": "", "is_a_template": False,
                  "is_control_domain": False, "power_state": "Running" if running else "Halted",
                  "resident_on": HOSTS[number % 3] if running else "OpaqueRef:NULL",
                  "current_operations": {"OpaqueRef:task": "start"}, "other_config": {"text": "a < b & c"}}
        return {**record, **others}

    def call(self, method, args):
        with self.lock:
            self.calls[method] = count = self.calls.get(method, 0) + 1
            every = self.fail.get(method)
            if every and count % every == 0:
                return {"Status": "Failure", "ErrorDescription": ["ON_PURPOSE", method]}
            try:
                value = getattr(self, method.replace(".", "_"))(*args)
            except RuntimeError as e:
                return {"Status": "Failure", "ErrorDescription": list(e.args)}
            return {"Status": "Success", "Value": value}

    def touch(self, ref):
        self.generation += 1
        self.changed[ref] = self.generation
        self.lock.notify_all()

    # ---- calls; the session, where there is one, comes first ----

    def session_login_with_password(self, user, password, *_):
        assert (user, password) == ("root", "secret <&")
        self.logins = getattr(self, "logins", 0) + 1
        return "OpaqueRef:session"

    def session_logout(self, session):
        assert session == "OpaqueRef:session"
        return ""

    def host_get_all(self, _):
        return [HOSTS[0], DISABLED] + HOSTS[1:]

    def host_get_enabled(self, _, ref):
        return ref != DISABLED

    def VM_get_all(self, _):
        return list(self.vms)

    def VM_get_all_records(self, _):
        return self.vms

    def VM_get_record(self, _, ref):
        return self.vms[ref]

    def VM_get_by_name_label(self, _, name):
        return [ref for ref, vm in self.vms.items() if vm["name_label"] == name]

    def VM_get_power_state(self, _, ref):
        return self.vms[ref]["power_state"]

    def VM_set_name_description(self, _, ref, text):
        assert self.vms[ref]["name_description"] != text, "a write that changes nothing"
        self.vms[ref]["name_description"] = text
        self.touch(ref)
        return ""

    def VM_remove_from_other_config(self, _, ref, key):
        self.vms[ref]["other_config"].pop(key, None)
        return ""

    def VM_add_to_other_config(self, _, ref, key, value):
        assert key not in self.vms[ref]["other_config"]
        self.vms[ref]["other_config"][key] = value
        return ""

    def VM_start(self, _, ref, paused, force):
        assert paused is False and force is False
        if self.vms[ref]["power_state"] != "Halted":
            raise RuntimeError("VM_BAD_POWER_STATE", ref, "Halted", "Running")
        self.vms[ref].update(power_state="Running", resident_on=HOSTS[0])
        return ""

    def VM_hard_shutdown(self, _, ref):
        if self.vms[ref]["power_state"] != "Running":
            raise RuntimeError("VM_BAD_POWER_STATE", ref, "Running", "Halted")
        self.vms[ref].update(power_state="Halted", resident_on="OpaqueRef:NULL")
        return ""

    def VM_pool_migrate(self, _, ref, host, options):
        assert options == {"live": "true"} and host in HOSTS
        assert self.vms[ref]["resident_on"] != host, "moved to where it is"
        self.vms[ref]["resident_on"] = host
        return ""

    def VM_clone(self, _, source, name):
        ref = "OpaqueRef:made-%s" % name
        assert ref not in self.vms and source == "OpaqueRef:template"
        self.vms[ref] = self.vm(-1, is_a_template=True, name_label=name)
        return ref

    def VM_set_is_a_template(self, _, ref, value):
        self.vms[ref]["is_a_template"] = value
        return ""

    def VDI_create(self, _, record):
        assert record["SR"] == "OpaqueRef:sr"
        self.created += 1
        return "OpaqueRef:vdi-%d" % self.created

    def VBD_create(self, _, record):
        assert record["VM"] in self.vms and record["VDI"].startswith("OpaqueRef:vdi-") and record["empty"] is False
        return "OpaqueRef:vbd"

    def VIF_create(self, _, record):
        assert record["network"] == "OpaqueRef:network" and record["VM"] in self.vms
        return "OpaqueRef:vif"

    def event_from(self, _, classes, token, timeout):
        assert isinstance(timeout, float) and classes in (["VM"], ["pool"])
        since = int(token or "0")

        def news():
            return [r for r, g in self.changed.items() if g > since] if classes == ["VM"] else []

        self.lock.wait_for(news, timeout)
        events = [{"class": "vm", "operation": "mod", "ref": r, "snapshot": self.vms[r]} for r in news()]
        return {"events": events, "valid_ref_counts": {"vm": len(self.vms)}, "token": "%d" % self.generation}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_POST(self):
        args, method = xmlrpc.client.loads(self.rfile.read(int(self.headers["Content-Length"])))
        pool = self.server.pool
        value = pool.call(method, args)
        with pool.lock:
            body = xmlrpc.client.dumps((value,), methodresponse=True).encode()
        if method == "VM.get_all_records":
            time.sleep(pool.records_delay_s)
            self.in_chunks(body)
        else:
            self.in_pieces(body)

    def do_GET(self):
        pool = self.server.pool
        if self.path == "/metrics":
            self.in_pieces(b"# TYPE drover_calls_total counter\ndrover_calls_total %d\ndrover_calls_running 3\n"
                           % sum(pool.calls.values()))
        else:
            self.in_pieces(b"x" * 300)

    def in_pieces(self, body):
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
        whole, cut = head + body, len(head) // 2
        self.wfile.write(whole[:cut])
        if len(body) % 3 == 0:
            self.wfile.flush()
        self.wfile.write(whole[cut:])
        self.wfile.flush()

    def in_chunks(self, body):
        self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for at in range(0, len(body), 997):
            piece = body[at:at + 997]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            if at % 5 == 0:
                self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


def load(program, url, *args, expect=0):
    env = {"POOL_URL": url, "POOL_USER": "root", "POOL_PASSWORD": "secret <&"}
    run = subprocess.run([program, *args, "--seconds", "0.3", "--warm-up", "0.1"], env=env, capture_output=True, text=True,
                         timeout=120)
    assert run.returncode == expect, (args, run.returncode, run.stderr)
    return json.loads(run.stdout) if expect == 0 else run.stderr


def main():
    program = sys.argv[1]
    pool = StandIn(40)
    server = Server(("127.0.0.1", 0), Handler)
    server.pool = pool
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = "http://127.0.0.1:%d" % server.server_port

    result = load(program, url, "read", "--connections", "4")
    assert result["count"] > 0 and result["failures"] == 0 and result["vms"] == 40 and result["pool_vms"] == 42, result
    assert abs(result["rate"] * result["seconds"] - result["count"]) < 2
    assert 0 < result["latency_ms"]["p50"] <= result["latency_ms"]["p99"] <= result["latency_ms"]["max"], result
    assert result["latency_ms"]["count"] == result["count"] and result["cpu"]["load"] > 0

    assert list(result["metrics"]) == ["drover_calls_total"], result
    assert result["count"] - 8 <= result["metrics"]["drover_calls_total"] <= 3 * result["count"] + 50, result

    result = load(program, url, "get", "--url", url + "/file", "--connections", "2")
    assert result["count"] > 0 and result["answer_bytes"] == 300, result

    pool.fail["VM.set_name_description"] = 4
    result = load(program, url, "write", "--connections", "4")
    assert set(result["codes"]) == {"ON_PURPOSE"} and result["codes"]["ON_PURPOSE"] == result["failures"] > 0, result
    assert 2 <= result["count"] / result["failures"] <= 4, result
    pool.fail.clear()
    assert any(re.fullmatch(r"write [0-9a-f]+-\d+", vm["name_description"]) for vm in pool.vms.values())

    result = load(program, url, "lifecycle", "--connections", "4", "--options", "sim-boot-ms=0,sim-shutdown-ms=0")
    assert result["failures"] == 0 and result["start_count"] > 0 and result["shutdown_count"] > 0, result
    assert result["start_count"] + result["shutdown_count"] == result["count"], result
    for ref, vm in pool.vms.items():
        assert (vm["other_config"].get("sim-boot-ms") == "0") == (ref not in ("OpaqueRef:template", "OpaqueRef:dom0")), ref

    for ref, vm in pool.vms.items():
        if ref.startswith("OpaqueRef:vm-"):
            vm.update(power_state="Running", resident_on=HOSTS[1])
    pool.fail["VM.pool_migrate"] = 5
    result = load(program, url, "migrate", "--connections", "4")
    assert result["count"] > result["failures"] > 0 and set(result["codes"]) == {"ON_PURPOSE"}, result
    assert result["hosts"] == 3
    pool.fail.clear()

    result = load(program, url, "records", "--pid", "1")
    assert result["count"] > 0 and result["failures"] == 0 and result["write_count"] > 0, result
    assert result["answer_bytes"] > 40 * 500 and 0 < result["first_byte_latency_ms"]["p50"] <= result["latency_ms"]["max"]

    pool.records_delay_s = 0.4
    result = load(program, url, "records")
    assert result["count"] >= 3 and result["seconds"] > 0.3, "slow answers are waited for"

    pool.logins = 0
    result = load(program, url, "events", "--waiters", "5")
    assert pool.logins == 6, "a session for each reader"
    assert result["rounds"] >= 2 and result["first_latency_ms"]["count"] == result["rounds"], result
    assert result["each_latency_ms"]["count"] == 5 * result["rounds"]
    assert result["first_latency_ms"]["p50"] <= result["last_latency_ms"]["p50"]

    result = load(program, url, "make", "--vms", "7", "--name", "plain")
    assert result["made"] == 7 and not pool.vms["OpaqueRef:made-plain7"]["is_a_template"], result
    load(program, url, "make", "--vms", "3", "--name", "rich", "--sr", "OpaqueRef:sr", "--network", "OpaqueRef:network")
    assert pool.created == 3 and pool.calls["VIF.create"] == 3

    result = load(program, url, "start", "--vms", "5", "--options", "sim-tick-ms=9")
    assert result["started"] == 5, result
    running = [vm for vm in pool.vms.values() if vm["other_config"].get("sim-tick-ms") == "9"]
    assert len(running) == 5 and all(vm["power_state"] == "Running" for vm in running)

    result = load(program, url, "fdatasync", "--connections", "2", "--directory", ".")
    assert result["count"] > 0 and result["together_rate"] > 0

    pool.fail["VM.clone"] = 1
    assert "ON_PURPOSE" in load(program, url, "make", "--vms", "1", "--name", "none", expect=1)
    assert "no server" in load(program, "http://127.0.0.1:1", "read", expect=1)
    load(program, url, "nonsense", expect=2)
    print("drover-load does what it says")


if __name__ == "__main__":
    main()
