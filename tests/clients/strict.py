#!/usr/bin/env python3
"""The strictest reader known: replies parsed as the C SDK (libxenserver) parses them, which is not in Debian.

It takes a reply's two members by their position, allows one child only where it expects a tag - so no blank within <value>, <array>
and <struct> - and reads no more of a text than its first node. It sends numbers as strings and leaves out what it does not know.
Its calls after a login are made here, then one record of each class that the pool has any of, all of a class, events, tasks,
errors, and objects made with as little as it sends. The types come from `drover-master --describe`."""
import http.client
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import urllib.parse
from xml.dom import minidom
from xml.sax.saxutils import escape

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
BUILD = os.environ.get("DROVER_BUILD", os.path.join(ROOT, "build", "dev"))
NULL = "OpaqueRef:NULL"

passed = failed = 0


def check(condition, what, got=None):
    global passed, failed
    if condition:
        passed += 1
        print("ok - " + what)
    else:
        failed += 1
        print("NOT OK - %s: got %r" % (what, got))


class Unreadable(Exception):
    """The C SDK would not have understood this, or misunderstood it."""


class Failure(Exception):
    """A call answered Failure; args is the error description."""


# ---- the model ----

class Model:
    """fields[class][field] and results[class.message], as type texts."""

    def __init__(self):
        text = subprocess.run([os.path.join(BUILD, "drover-master"), "--describe"], check=True, capture_output=True,
                              text=True).stdout
        self.fields, self.results, self.enums = {}, {}, {}
        for section in re.split(r"^# ", text, flags=re.M)[1:]:
            name, _, rest = section.partition("\n")
            rows = [line.split("\t") for line in rest.split("\n") if line]
            if name not in ("fields", "messages", "enums"):
                continue
            columns = {c: i for i, c in enumerate(rows[0])}
            for row in rows[1:]:
                if name == "fields" and row[columns["internal_only"]] == "no" and row[columns["removed"]] == "":
                    self.fields.setdefault(row[0], {})[row[1]] = row[columns["type"]]
                elif name == "messages":
                    self.results["%s.%s" % (row[0], row[1])] = row[columns["result"]]
                elif name == "enums":
                    self.enums.setdefault(row[0], set()).add(row[1])


def split_pair(text):
    """The two types of "map(a,b)"'s inside."""
    depth = 0
    for i, c in enumerate(text):
        depth += {"(": 1, ")": -1}.get(c, 0)
        if c == "," and depth == 0:
            return text[:i], text[i + 1:]
    raise ValueError(text)


# ---- reading, as the C SDK does ----

def only_child(node, *names):
    """Where a tag is expected there is one child, and it is that tag."""
    if len(node.childNodes) != 1:
        raise Unreadable("<%s> has %d children: %s" % (node.nodeName, len(node.childNodes), node.toxml()[:200]))
    child = node.firstChild
    if child.nodeName not in names:
        raise Unreadable("<%s> holds <%s>, not %s" % (node.nodeName, child.nodeName, names))
    return child


def first_text(node):
    """The first node below; a second one would be lost."""
    if not node.childNodes:
        return ""
    if len(node.childNodes) > 1 or node.firstChild.nodeType != node.TEXT_NODE:
        raise Unreadable("text in pieces: %s" % node.toxml()[:200])
    return node.firstChild.data


def scalar(value, tags):
    """In one of these tags, or (where "" is among them) in none."""
    if "" in tags and (not value.childNodes or value.firstChild.nodeType == value.TEXT_NODE):
        return first_text(value)
    return first_text(only_child(value, *[t for t in tags if t]))


def members(value):
    """The (name, <value>) of a struct in order."""
    struct = only_child(value, "struct")
    for member in struct.childNodes:
        if member.nodeName != "member" or [n.nodeName for n in member.childNodes] != ["name", "value"]:
            raise Unreadable("no member: %s" % member.toxml()[:200])
        yield first_text(member.childNodes[0]), member.childNodes[1]


class Reader:
    def __init__(self, model):
        self.model = model

    def read(self, value, type_):
        """What a <value> of that type holds."""
        word, _, rest = type_.partition(" ")
        if type_ in ("string", "") or word in ("ref", "enum"):
            text = scalar(value, ("", "string"))
            if word == "ref" and not re.fullmatch(r"OpaqueRef:(NULL|[0-9a-f-]{36})", text) and text != "":
                raise Unreadable("no reference: %r" % text)
            if word == "enum" and rest in self.model.enums and text not in self.model.enums[rest]:
                raise Unreadable("%r is no %s" % (text, rest))
            return text
        if type_ == "void":
            if scalar(value, ("", "string", "nil")) != "":
                raise Unreadable("void holds something: %s" % value.toxml())
            return None
        if type_ == "int":
            return int(scalar(value, ("", "string", "int", "i4", "i8")))
        if type_ == "float":
            return float(scalar(value, ("double",)))
        if type_ == "bool":
            text = scalar(value, ("boolean",))
            if text not in ("0", "1"):
                raise Unreadable("boolean %r" % text)
            return text == "1"
        if type_ == "datetime":
            text = scalar(value, ("", "string", "dateTime.iso8601"))  # a plain one is seconds: event.timestamp
            if value.firstChild.nodeType == value.TEXT_NODE or value.firstChild.nodeName == "string":
                return float(text)
            if not re.match(r"\d{4}-?\d\d-?\d\dT\d\d:?\d\d:?\d\d", text):
                raise Unreadable("no date: %r" % text)
            return text
        if type_.startswith("set("):
            data = only_child(only_child(value, "array"), "data")
            if any(n.nodeName != "value" for n in data.childNodes):
                raise Unreadable("in <data>: %s" % data.toxml()[:200])
            return [self.read(n, type_[4:-1]) for n in data.childNodes]
        if type_.startswith("map("):
            key_type, value_type = split_pair(type_[4:-1])
            return {key: self.read(v, value_type) for key, v in members(value)}
        if type_.startswith("record "):
            return self.read_record(value, type_[7:])
        raise ValueError("a type that this reader does not know: " + type_)

    def read_record(self, value, cls):
        types, record = self.model.fields[cls], {}
        for name, v in members(value):
            if name in record:
                raise Unreadable("%s twice" % name)
            if name in types and not types[name].startswith("record of"):
                record[name] = self.read(v, types[name])
            elif name in types:  # an event's snapshot, in the class that was named before it
                of = next(c for c in self.model.fields if c.lower() == record["class"].lower())
                record[name] = self.read_record(v, of)
        if cls == "event":
            types = set(types) - {"snapshot", "obj_uuid"}  # a deleted object has none; this one nobody sends
        if not record or set(types) - set(record):
            raise Unreadable("%s lacks %s" % (cls, sorted(set(types) - set(record))))
        return record

    def reply(self, text, type_):
        """Value by position, or Failure."""
        document = minidom.parseString(text)
        value = document.documentElement
        for name in ("methodResponse", "params", "param"):
            if value.nodeName != name:
                raise Unreadable("<%s> where <%s> was expected" % (value.nodeName, name))
            value = only_child(value, {"methodResponse": "params", "params": "param", "param": "value"}[name])
        pairs = list(members(value))
        if len(pairs) != 2:
            raise Unreadable("neither a result nor a fault: %d members" % len(pairs))
        if self.read(pairs[0][1], "string") == "Success":
            return self.read(pairs[1][1], type_)
        raise Failure(*self.read(pairs[1][1], "set(string)"))


# ---- sending, as the C SDK does ----

def written(value):
    if isinstance(value, bool):
        return "<value><boolean>%d</boolean></value>" % value
    if isinstance(value, float):
        return "<value><double>%f</double></value>" % value
    if isinstance(value, (int, str)):
        return "<value><string>%s</string></value>" % escape(str(value))
    if isinstance(value, list):
        return "<value><array><data>%s</data></array></value>" % "".join(map(written, value))
    return "<value><struct>%s</struct></value>" % "".join(
        "<member><name>%s</name>%s</member>" % (escape(k), written(v)) for k, v in value.items())


class Client:
    def __init__(self, url, model):
        self.address, self.model, self.reader, self.session = urllib.parse.urlparse(url).netloc, model, Reader(model), None

    def call(self, name, *params):
        """One call with exactly these parameters."""
        body = '<?xml version="1.0"?><methodCall><methodName>%s</methodName><params>%s</params></methodCall>' % (
            name, "".join("<param>%s</param>" % written(p) for p in params))
        c = http.client.HTTPConnection(self.address, timeout=60)
        c.request("POST", "/", body.encode(), {"Content-Type": "text/xml"})
        text = c.getresponse().read()
        c.close()
        type_ = self.model.results.get(re.sub(r"^(Internal)?Async\.", "", name), "string")
        return self.reader.reply(text, "ref task" if "Async." in name else type_)

    def __call__(self, name, *params):
        return self.call(name, self.session, *params)


def fails(client, what, expected, name, *params):
    try:
        got = client(name, *params)
    except Failure as e:
        got = list(e.args)
    check(got == expected or (isinstance(expected, str) and got[0] == expected), what, got)


# ---- what is tried ----

def login(client, env):
    client.session = client.call("session.login_with_password", env["POOL_USER"], env["POOL_PASSWORD"], "1.20")
    check(client.session.startswith("OpaqueRef:"), "login with three strings", client.session)
    host = client.call("session.get_this_host", client.session, client.session)
    major, minor = client("host.get_API_version_major", host), client("host.get_API_version_minor", host)
    check((major, minor) == (2, 23), "the version that its login asks for", (major, minor))
    fails(Wrong(client), "a wrong password is readable", "SESSION_AUTHENTICATION_FAILED", "session.login_with_password",
          "root", "no", "1.20")


def the_reader_is_strict(client):
    good = "<value><array><data><value>a</value></data></array></value>"
    wrong = ["<value> <array><data/></array></value>", "<value><array/></value>", "<value><array><data> </data></array></value>",
             "<value>\n<array><data><value>a</value></data></array></value>", "<value><array><data><value>a<!--b-->c</value></data></array></value>"]

    def is_read(text):
        try:
            client.reader.read(minidom.parseString(text).documentElement, "set(string)")
            return True
        except Unreadable:
            return False

    check(is_read(good) and not any(map(is_read, wrong)), "blanks, bare arrays and comments would be seen")


class Wrong:
    """Calls without a session."""

    def __init__(self, client):
        self.client = client

    def __call__(self, name, *params):
        return self.client.call(name, *params)


def every_class(client):
    """One record of each class, and every getter of it; all records of each class that has such a call."""
    read = getters = 0
    for cls in sorted(client.model.fields):
        if cls + ".get_all_records" in client.model.results:
            try:
                client(cls + ".get_all_records")
            except Unreadable as e:
                check(False, cls + ".get_all_records", e)
            except Failure as e:
                if e.args[0] != "MESSAGE_REMOVED":
                    check(False, cls + ".get_all_records", e.args)
        if cls + ".get_all" not in client.model.results:
            continue
        try:
            refs = client(cls + ".get_all")
        except Failure:
            continue
        for ref in refs[:1] + refs[-1:]:
            try:
                record = client(cls + ".get_record", ref)
                for field in record:
                    if "%s.get_%s" % (cls, field) in client.model.results:
                        client("%s.get_%s" % (cls, field), ref)
                        getters += 1
                read += 1
            except Unreadable as e:
                check(False, "a record of " + cls, e)
    client("session.get_record", client.session)
    check(read > 20 and getters > 500, "records of all classes and their getters can be read", (read, getters))


def making(client):
    """Numbers come as strings, and what is NULL there is not sent at all."""
    vm = client("VM.create", {"name_label": "a<&>b", "memory_static_max": 1 << 28, "memory_dynamic_max": 1 << 28,
                              "memory_dynamic_min": 1 << 27, "memory_static_min": 1 << 26, "VCPUs_max": 2, "VCPUs_at_startup": 1,
                              "user_version": 1, "is_a_template": False, "affinity": NULL, "HVM_shadow_multiplier": 1.0,
                              "actions_after_shutdown": "destroy", "actions_after_reboot": "restart",
                              "actions_after_crash": "restart", "PV_bootloader": "", "PV_kernel": "", "PV_ramdisk": "",
                              "PV_args": "", "PV_bootloader_args": "", "PV_legacy_args": "", "HVM_boot_policy": "",
                              "HVM_boot_params": {}, "platform": {}, "PCI_bus": "", "other_config": {}, "recommendations": ""})
    record = client("VM.get_record", vm)
    check((record["VCPUs_max"], record["HVM_shadow_multiplier"], record["tags"]) == (2, 1.0, []), "a VM from what it sends", record)
    check(record["name_label"] == "a<&>b", "its name")
    check(client("VM.set_name_description", vm, "") is None, "void is empty")
    client("VM.set_other_config", vm, {})
    check(client("VM.get_other_config", vm) == {}, "an empty map")
    client("VM.set_tags", vm, ["x"])
    check(client("VM.get_tags", vm) == ["x"], "a set")
    client("VM.set_HVM_shadow_multiplier", vm, 2.5)
    check(client("VM.get_HVM_shadow_multiplier", vm) == 2.5, "a float")
    fails(client, "an error's details", ["VM_BAD_POWER_STATE", vm, "running", "halted"], "VM.clean_shutdown", vm)
    fails(client, "an unknown reference", ["HANDLE_INVALID", "VM", "x"], "VM.get_record", "x")
    fails(client, "an unknown method", "MESSAGE_METHOD_UNKNOWN", "VM.dance", vm)
    fails(client, "too many parameters", "MESSAGE_PARAMETER_COUNT_MISMATCH", "VM.get_record", vm, vm)
    return vm


def tasks_and_events(client, vm):
    task = client("Async.VM.clone", vm, "copy")
    end = time.monotonic() + 60
    while client("task.get_status", task) == "pending":
        assert time.monotonic() < end
        time.sleep(0.02)
    record = client("task.get_record", task)
    check(record["status"] == "success" and "OpaqueRef:" in record["result"], "a task", record)
    client("event.register", ["vm", "task"])
    client("VM.set_name_description", vm, "told")
    events = client("event.next")
    check(any(e["ref"] == vm for e in events), "events, the old way", events)
    client("event.unregister", ["*"])
    check(client("event.get_current_id") >= 0, "their number")
    # Of event.from it knows the result's form: set of records, counts, a token.
    client.model.results["event.from"] = "record event_batch"
    client.model.fields["event_batch"] = {"events": "set(record event)", "valid_ref_counts": "map(string,int)", "token": "string"}
    batch = client("event.from", ["vm"], "", 5.0)
    check({e["ref"] for e in batch["events"]} >= {vm} and batch["valid_ref_counts"]["vm"] > 1 and batch["token"],
          "events, the new way", batch)


def main():
    model = Model()
    with tempfile.TemporaryDirectory() as work:
        pool = [os.path.join(ROOT, "scripts", "pool")]
        where = ["--dir", os.path.join(work, "pool")]
        out = subprocess.run(pool + ["up", "--hosts", "1", "--vms", "1"] + where, check=True, capture_output=True, text=True)
        env = dict(word.split("=", 1) for word in shlex.split(out.stdout) if "=" in word)
        try:
            client = Client(env["POOL_URL"], model)
            the_reader_is_strict(client)
            login(client, env)
            client("message.create", "hello", 1, "VM", client("VM.get_uuid", client("VM.get_by_name_label", "vm1")[0]), "body")
            client("secret.create", {"value": "s", "other_config": {}})
            client("blob.create", "text/plain", True)
            client("VM.snapshot", client("VM.get_by_name_label", "vm1")[0], "snap")
            vm = making(client)
            every_class(client)
            tasks_and_events(client, vm)
            client.call("session.logout", client.session)
            fails(client, "a session that is gone", ["SESSION_INVALID", client.session], "VM.get_all")
        finally:
            subprocess.run(pool + ["down"] + where, check=False, capture_output=True)
    print("%d passed, %d failed" % (passed, failed))
    return 0 if failed == 0 and passed else 1


if __name__ == "__main__":
    sys.exit(main())
