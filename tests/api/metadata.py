#!/usr/bin/env python3
"""Metadata of VMs as an archive: GET /export_metadata and PUT /import_metadata of a real master."""

import base64
import copy
import gzip
import http.client
import io
import re
import tarfile
import xmlrpc.client

from drover import NULL, PASSWORD, failure, run, wait_for
from vm_records import VBD, VIF, create_vm

BASIC = {"Authorization": "Basic " + base64.b64encode(("root:" + PASSWORD).encode()).decode()}


# --- archives ---

def member(archive):
    """The text of ova.xml, the archive's one member."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
        [info] = tar.getmembers()
        assert info.name == "ova.xml", info.name
        return tar.extractfile(info).read().decode()


def archive_of(text, name="ova.xml"):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        info = tarfile.TarInfo(name)
        info.size = len(text.encode())
        tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


def parse(text):
    (value,), _ = xmlrpc.client.loads(
        "<methodResponse><params><param>%s</param></params></methodResponse>" % text)
    return value


def text_of(value):
    return re.search("<value>.*</value>", xmlrpc.client.dumps((value,)), re.S).group(0)


def of_class(ova, name):
    return [o for o in ova["objects"] if o["class"] == name]


# --- requests ---

def export(m, s, **params):
    query = "&".join("%s=%s" % p for p in dict(params, session_id=s.ref).items())
    status, headers, body = m.http("GET", "/export_metadata?" + query)
    return status, headers, body


def exported(m, s, **params):
    status, headers, body = export(m, s, **params)
    assert status == 200 and int(headers["content-length"]) == len(body), (status, headers, body)
    return parse(member(body))


def put(m, s, archive, query="", headers={}):
    """The ended task of an import."""
    task = s("task.create", "import", "")
    status, _, _ = m.http("PUT", "/import_metadata?session_id=%s&task_id=%s%s" % (s.ref, task, query),
                          archive, headers)
    assert status == 200, status
    record = s("task.get_record", task)
    assert record["status"] != "pending", record
    return record


def imported(m, s, archive, query=""):
    record = put(m, s, archive, query)
    assert record["status"] == "success", record
    return parse(record["result"])


def refused(m, s, archive, query=""):
    record = put(m, s, archive, query)
    assert record["status"] == "failure", record
    return record["error_info"]


def make_vm(s, name="a"):
    """With an empty CD drive and an interface."""
    network = s("network.create", {"name_label": "net " + name, "name_description": "",
                                   "other_config": {}})
    vm = create_vm(s, name_label=name)
    s("VBD.create", dict(VBD, VM=vm, VDI=NULL, userdevice="3", type="CD", mode="RO", empty=True))
    s("VIF.create", dict(VIF, VM=vm, network=network, device="0"))
    return vm


# --- tests ---

def the_file_has_one_form(m):
    s = m.login()
    vm = make_vm(s, "<&>")
    status, headers, body = export(m, s, ref=vm)
    assert status == 200, status
    assert headers["content-disposition"] == 'attachment; filename="export.xva"'
    text = member(body)
    assert text.startswith("<value><struct><member><name>version</name>"), text[:80]
    ova = parse(text)
    assert ova["version"]["export_vsn"] == "2" and ova["version"]["product_brand"] == "Drover"
    assert [o["id"] for o in ova["objects"]] == ["Ref:%d" % i for i in range(len(ova["objects"]))]
    assert [o["class"] for o in ova["objects"]] == ["VM", "VM_metrics", "VBD", "VIF", "network"]
    [record] = [o["snapshot"] for o in of_class(ova, "VM")]
    assert record["name_label"] == "<&>" and record["metrics"] == "Ref:1"
    assert record["VBDs"] == ["Ref:2"] and record["VIFs"] == ["Ref:3"]
    assert record["affinity"] == record["suspend_VDI"] == NULL and record["allowed_operations"] == []
    assert of_class(ova, "VIF")[0]["snapshot"]["network"] == "Ref:4"
    assert "OpaqueRef:NULL" in text and not re.search("OpaqueRef:[0-9a-f]", text)
    assert export(m, s, uuid=s("VM.get_uuid", vm))[2] == body  # the same bytes again
    task = headers["task-id"]
    assert s("task.get_name_label", task) == "Export of VM: " + s("VM.get_uuid", vm)
    assert s("task.get_status", task) == "success"


def compression(m):
    s = m.login()
    vm = make_vm(s)
    plain = export(m, s, ref=vm)[2]
    for how in "true", "gzip":
        assert gzip.decompress(export(m, s, ref=vm, use_compression=how)[2]) == plain
    packed = export(m, s, ref=vm, use_compression="zstd")[2]
    assert packed[:4] == b"\x28\xb5\x2f\xfd"
    assert len(imported(m, s, packed)) == len(imported(m, s, gzip.compress(plain))) == 1


def what_is_left_out(m):
    s = m.login()
    vm = make_vm(s)
    classes = [o["class"] for o in exported(m, s, ref=vm, excluded_device_types="vif,vgpu")["objects"]]
    assert classes == ["VM", "VM_metrics", "VBD"], classes
    ova = exported(m, s, ref=vm, excluded_device_types="vbd")
    assert of_class(ova, "VM")[0]["snapshot"]["VBDs"] == [] and not of_class(ova, "VBD")


def the_whole_pool(m):
    s = m.login()
    vms = [make_vm(s, "b"), make_vm(s, "a")]
    names = [o["snapshot"]["name_label"] for o in of_class(exported(m, s, all="true"), "VM")]
    assert names == sorted(names) and {"a", "b", "Debian Etch 4.0"} <= set(names), names
    [archive] = [export(m, s, all="true")[2]]
    for vm in vms:
        s("VM.destroy", vm)
    made = imported(m, s, archive, "&restore=true")
    assert sorted(s("VM.get_name_label", vm) for vm in made) == ["a", "b"]  # the templates are here


def requests_that_are_wrong(m):
    s = m.login()
    vm = make_vm(s)
    assert export(m, s)[0] == 400
    assert export(m, s, uuid="x")[0] == 404
    assert export(m, s, ref="OpaqueRef:x")[0] == 404
    assert export(m, s, ref=vm, use_compression="rar")[0] == 400
    assert export(m, s, ref=vm, excluded_device_types="vif,mouse")[0] == 400
    assert export(m, s, ref=vm, all="perhaps")[0] == 400
    assert m.http("PUT", "/import_metadata?session_id=%s&force=very" % s.ref, b"x")[0] == 400
    task = s("task.create", "mine", "")
    assert export(m, s, uuid="x", task_id=task)[0] == 404
    assert s("task.get_error_info", task) == ["UUID_INVALID", "VM", "x"]
    before = len(s("task.get_all"))
    assert export(m, s, uuid="x")[0] == 404
    assert len(s("task.get_all")) == before  # no work, no task


def credentials(m):
    s = m.login()
    vm = make_vm(s)
    path = "/export_metadata?ref=" + vm
    status, headers, _ = m.http("GET", path)
    assert status == 401 and headers["www-authenticate"] == 'Basic realm="export_metadata"'
    assert m.http("GET", path, headers=BASIC)[0] == 200
    assert m.http("GET", path, headers={"Cookie": "session_id=" + s.ref})[0] == 200
    task = s("task.create", "mine", "")
    assert m.http("GET", path + "&session_id=x&task_id=" + task)[0] == 401
    wait_for(lambda: s("task.get_status", task) == "failure")
    assert s("task.get_error_info", task)[0] == "SESSION_AUTHENTICATION_FAILED"


def an_import_is_a_vm_of_its_own(m):
    s = m.login()
    vm = make_vm(s)
    old = s("VM.get_record", vm)
    mac = s("VIF.get_MAC", old["VIFs"][0])
    archive = export(m, s, ref=vm)[2]
    [new] = imported(m, s, archive)
    record = s("VM.get_record", new)
    assert record["uuid"] != old["uuid"] and record["power_state"] == "Halted"
    assert record["other_config"]["mac_seed"] and record["other_config"]["import_task"]
    assert s("VIF.get_MAC", record["VIFs"][0]) != mac
    assert s("VIF.get_network", record["VIFs"][0]) == s("VIF.get_network", old["VIFs"][0])
    assert refused(m, s, archive, "&restore=true") == ["DUPLICATE_VM", vm, old["uuid"]]
    s("VM.destroy", vm)
    [back] = imported(m, s, archive, "&restore=true")
    assert s("VM.get_uuid", back) == old["uuid"]
    assert s("VIF.get_MAC", s("VM.get_VIFs", back)[0]) == mac
    assert member(export(m, s, ref=back)[2]).count("import_task") == 0


def the_task_tells_when_the_objects_are_there(m):
    s = m.login()
    vm = make_vm(s)
    record = put(m, s, export(m, s, ref=vm)[2])
    assert record["other_config"]["object_creation"] == "complete", record
    c = http.client.HTTPConnection(*m.address, timeout=60)  # without a task of its own
    c.request("PUT", "/import_metadata?session_id=" + s.ref, export(m, s, ref=vm)[2])
    reply = c.getresponse()
    task = reply.headers["task-id"]
    reply.read()
    wait_for(lambda: s("task.get_status", task) == "success")
    assert s("task.get_name_label", task) == "VM import"


def a_status_comes_before_the_body(m):
    s = m.login()
    vm = make_vm(s)
    archive = export(m, s, ref=vm)[2]
    c = m.connect()
    c.sendall(("PUT /import_metadata?session_id=%s HTTP/1.0\r\nContent-Length: %d\r\n\r\n" %
               (s.ref, len(archive))).encode())
    head = b""
    while b"\r\n\r\n" not in head:
        head += c.recv(4096)
    assert head.startswith(b"HTTP/1.1 200") or head.startswith(b"HTTP/1.0 200"), head
    c.sendall(archive)
    while c.recv(4096):
        pass
    assert len(s("VM.get_by_name_label", "a")) == 2


def an_upload_that_breaks_leaves_nothing(m):
    s = m.login()
    archive = export(m, s, ref=make_vm(s))[2]
    task = s("task.create", "import", "")
    c = m.connect()
    c.sendall(("PUT /import_metadata?session_id=%s&task_id=%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d"
               "\r\n\r\n" % (s.ref, task, len(archive))).encode() + archive[:1000])
    c.close()
    wait_for(lambda: s("task.get_status", task) == "failure")
    assert s("task.get_error_info", task) == ["IMPORT_ERROR_PREMATURE_EOF"]
    assert len(s("VM.get_by_name_label", "a")) == 1


def many_large_uploads_share_their_memory(m):
    s = m.login()
    archive = export(m, s, ref=make_vm(s))[2]
    bytes_each, chunk = 60 << 20, bytes(1 << 20)  # of 256 MiB for all
    uploads = []
    for _ in range(5):
        task = s("task.create", "import", "")
        c = m.connect()
        c.sendall(("PUT /import_metadata?session_id=%s&task_id=%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d"
                   "\r\n\r\n" % (s.ref, task, bytes_each + 1)).encode())
        for _ in range(bytes_each // len(chunk)):
            c.sendall(chunk)
        uploads.append((c, task))
    wait_for(lambda: refused(m, s, chunk * 4) == ["TOO_BUSY"])  # when what was sent has been read
    for c, _ in uploads:
        c.sendall(b"x")
    for c, task in uploads:
        wait_for(lambda: s("task.get_status", task) == "failure")
        c.close()
    reasons = [s("task.get_error_info", task)[0] for _, task in uploads]
    assert "TOO_BUSY" in reasons and set(reasons) <= {"TOO_BUSY", "IMPORT_ERROR_PREMATURE_EOF"}, reasons
    assert imported(m, s, archive)  # there is room again


def texts_and_plans_share_it_too(m):
    """A small archive that is a large text: it finds no room beside uploads that wait, though it has some itself."""
    s = m.login()
    ova = exported(m, s, ref=make_vm(s))
    of_class(ova, "VM")[0]["snapshot"]["nobody_knows_it"] = "x" * (50 << 20)
    large = gzip.compress(archive_of(text_of(ova)), 1)
    bytes_each, chunk = 52 << 20, bytes(1 << 20)
    uploads = []
    for _ in range(4):
        c = m.connect()
        c.sendall(("PUT /import_metadata?session_id=%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
                   % (s.ref, bytes_each + 1)).encode())
        for _ in range(bytes_each // len(chunk)):
            c.sendall(chunk)
        uploads.append(c)
    wait_for(lambda: refused(m, s, chunk * 50) == ["TOO_BUSY"])  # what was sent has been read
    assert refused(m, s, large) == ["TOO_BUSY"]
    for c in uploads:
        c.close()
    wait_for(lambda: refused(m, s, chunk * 50) != ["TOO_BUSY"])
    assert imported(m, s, large)
    assert imported(m, s, large)  # and what it had was given back


def networks(m):
    s = m.login()
    vm = make_vm(s)
    old = s("VIF.get_network", s("VM.get_VIFs", vm)[0])
    s("network.set_MTU", old, "9000")
    archive = export(m, s, ref=vm)[2]
    s("VM.destroy", vm)
    s("network.destroy", old)
    [vm] = imported(m, s, archive)
    made = s("network.get_record", s("VIF.get_network", s("VM.get_VIFs", vm)[0]))
    assert made["name_label"] == "net a" and made["MTU"] == "9000", made
    assert made["other_config"]["import_task"]
    [again] = imported(m, s, archive)  # found by its name now
    assert s("VIF.get_network", s("VM.get_VIFs", again)[0]) == s("VIF.get_network", s("VM.get_VIFs", vm)[0])


def with_disk(ova):
    """A drive with a disk that is nowhere."""
    drive = copy.deepcopy(of_class(ova, "VBD")[0])
    drive["id"] = "Ref:100"
    drive["snapshot"].update(VDI="Ref:101", userdevice="0", type="Disk", mode="RW", empty=False)
    disk = {"class": "VDI", "id": "Ref:101", "snapshot": {
        "uuid": "11111111-2222-3333-4444-555555555555", "name_label": "d", "virtual_size": "1048576"}}
    ova["objects"] += [drive, disk]
    return archive_of(text_of(ova))


def disks(m):
    s = m.login()
    vm = make_vm(s)
    archive = with_disk(exported(m, s, ref=vm))
    assert refused(m, s, archive) == \
        ["IMPORT_ERROR_FAILED_TO_FIND_OBJECT", "11111111-2222-3333-4444-555555555555"]
    assert refused(m, s, archive, "&dry_run=true")[0] == "IMPORT_ERROR_FAILED_TO_FIND_OBJECT"
    assert len(s("VM.get_by_name_label", "a")) == 1  # nothing half-done
    [new] = imported(m, s, archive, "&force=true")
    assert [s("VBD.get_type", v) for v in s("VM.get_VBDs", new)] == ["CD"]


def dry_run(m):
    s = m.login()
    vm = make_vm(s)
    before = len(s("VM.get_all")), len(s("VIF.get_all"))
    assert imported(m, s, export(m, s, ref=vm)[2], "&dry_run=true") == []
    assert (len(s("VM.get_all")), len(s("VIF.get_all"))) == before


def files_that_are_wrong(m):
    s = m.login()
    good = exported(m, s, ref=make_vm(s))

    def changed(change):
        ova = copy.deepcopy(good)
        change(ova)
        return refused(m, s, archive_of(text_of(ova)))

    def set_vm(**fields):
        return lambda ova: of_class(ova, "VM")[0]["snapshot"].update(fields)

    before = len(s("VM.get_all"))
    assert refused(m, s, b"") == ["IMPORT_ERROR_PREMATURE_EOF"]
    assert refused(m, s, b"no archive at all" * 100)[0] == "IMPORT_ERROR"
    assert refused(m, s, archive_of("x", "other")) == ["IMPORT_ERROR_UNEXPECTED_FILE", "ova.xml", "other"]
    assert refused(m, s, archive_of("<value>"))[0] == "IMPORT_ERROR"
    code, reason = refused(m, s, archive_of("""<appliance version="0.1"><vm><label>old</label><config mem_set="16777216"/>
<vbd device="hda" function="root" mode="w" vdi="v"/></vm>
<vdi name="v" size="4096" source="file://v" type="dir-gzipped-chunks"/></appliance>"""))
    assert code == "IMPORT_ERROR" and "it is for /import" in reason, (code, reason)
    assert refused(m, s, archive_of("<!DOCTYPE a [<!ENTITY b 'c'>]><value>&b;</value>"))[0] == "IMPORT_ERROR"
    assert refused(m, s, archive_of(text_of(good))[:1024]) == ["IMPORT_ERROR_PREMATURE_EOF"]
    assert changed(lambda o: o["version"].update(xapi_major="3")) == ["IMPORT_INCOMPATIBLE_VERSION"]
    assert changed(lambda o: o["version"].update(export_vsn="3")) == ["IMPORT_INCOMPATIBLE_VERSION"]
    assert changed(set_vm(VCPUs_max=[])) == ["FIELD_TYPE_ERROR", "VM.VCPUs_max"]
    assert changed(set_vm(actions_after_crash="dance")) == ["INVALID_VALUE", "VM.actions_after_crash", "dance"]
    assert changed(set_vm(VCPUs_max="0")) == ["INVALID_VALUE", "VCPUs_max", "0"]
    assert changed(set_vm(memory_dynamic_min=str(1 << 29)))[0] == "MEMORY_CONSTRAINT_VIOLATION"
    assert changed(set_vm(order="-1")) == ["INVALID_VALUE", "order", "-1"]
    assert changed(set_vm(parent="Ref:0"))[0] == "IMPORT_ERROR"
    assert changed(set_vm(affinity="Ref:2")) == ["FIELD_TYPE_ERROR", "VM.affinity"]
    assert changed(lambda o: of_class(o, "VBD")[0]["snapshot"].update(VM="Ref:77")) == \
        ["IMPORT_ERROR_FAILED_TO_FIND_OBJECT", "Ref:77"]
    assert changed(lambda o: of_class(o, "VIF")[0]["snapshot"].update(network="Ref:78")) == \
        ["IMPORT_ERROR_FAILED_TO_FIND_OBJECT", "Ref:78"]
    assert changed(lambda o: of_class(o, "VBD")[0]["snapshot"].update(userdevice="mouse")) == \
        ["INVALID_DEVICE", "mouse"]
    assert changed(lambda o: o["objects"].append(o["objects"][0]))[0] == "IMPORT_ERROR"
    assert len(s("VM.get_all")) == before


def files_of_other_releases(m):
    s = m.login()
    ova = exported(m, s, ref=make_vm(s))
    vm = of_class(ova, "VM")[0]["snapshot"]
    vm["field_of_tomorrow"] = {"a": ["b"]}
    del vm["HVM_shadow_multiplier"], vm["tags"]
    ova["objects"].append({"class": "robot", "id": "Ref:200", "snapshot": {}})
    ova["version"].update(xapi_major=1, xapi_minor=3, export_vsn=2)  # as ints
    [new] = imported(m, s, archive_of(text_of(ova)))
    assert s("VM.get_HVM_shadow_multiplier", new) == 1.0


run(the_file_has_one_form, compression, what_is_left_out, the_whole_pool, requests_that_are_wrong,
    credentials, an_import_is_a_vm_of_its_own, the_task_tells_when_the_objects_are_there, a_status_comes_before_the_body,
    an_upload_that_breaks_leaves_nothing, many_large_uploads_share_their_memory, texts_and_plans_share_it_too, networks, disks, dry_run, files_that_are_wrong,
    files_of_other_releases)
