#!/usr/bin/env python3
"""VMs, drives, interfaces, networks and storage as clients meet them: a master without agents, so
everything that needs no host."""

from drover import NULL, failure, run
from vm_records import MIB, VBD, VIF, VM, create_vm


def template(s, name="Debian Etch 4.0"):
    [vm] = s("VM.get_by_name_label", name)
    return vm


def new_vm_is_halted_and_has_metrics(m):
    s = m.login()
    vm = create_vm(s)
    r = s("VM.get_record", vm)
    assert r["power_state"] == "Halted" and r["domid"] == "-1" and r["resident_on"] == NULL, r
    assert r["VBDs"] == r["VIFs"] == r["consoles"] == [] and r["domain_type"] == "hvm", r
    assert int(r["memory_overhead"]) > 0
    assert "start" in r["allowed_operations"] and "pause" not in r["allowed_operations"]
    assert s("VM_metrics.get_record", r["metrics"])["start_time"] == "19700101T00:00:00Z"
    assert s("VM.get_by_uuid", r["uuid"]) == vm
    s("VM.destroy", vm)
    assert failure(s, "VM.get_record", vm) == ["HANDLE_INVALID", "VM", vm]
    assert failure(s, "VM_metrics.get_record", r["metrics"]) == \
        ["HANDLE_INVALID", "VM_metrics", r["metrics"]]


def constructor_checks(m):
    s = m.login()
    assert failure(create_vm, s, memory_dynamic_min=str(512 * MIB))[0] == \
        "MEMORY_CONSTRAINT_VIOLATION"
    assert failure(create_vm, s, VCPUs_max="0") == ["INVALID_VALUE", "VCPUs_max", "0"]
    assert failure(create_vm, s, VCPUs_at_startup="3") == \
        ["INVALID_VALUE", "VCPUs_at_startup", "3"]
    assert failure(create_vm, s, platform={"cores-per-socket": "4"}) == \
        ["VCPU_MAX_NOT_CORES_PER_SOCKET_MULTIPLE", "2", "4"]
    for field, value in (("VCPUs_max", "1025"), ("VCPUs_max", str(2 ** 63 - 1)), ("memory_static_min", "-1"),
                         ("memory_static_max", str(2 ** 63 - 1)), ("order", "-1"), ("start_delay", "-1"),
                         ("shutdown_delay", "-5"), ("memory_target", "-1")):
        assert failure(create_vm, s, **{field: value}) == ["INVALID_VALUE", field, value]
    for value in (0.5, float("nan"), float("inf"), 1e300):
        assert failure(create_vm, s, HVM_shadow_multiplier=value) == \
            ["INVALID_VALUE", "HVM_shadow_multiplier", "%g" % value]
    vm = create_vm(s, HVM_boot_policy="")
    assert s("VM.get_domain_type", vm) == "pv"


def default_templates(m):
    s = m.login()
    t = template(s)
    r = s("VM.get_record", t)
    assert r["is_a_template"] and r["is_default_template"]
    assert r["other_config"]["default_template"] == "true", r["other_config"]
    assert r["other_config"]["install-distro"] == "debianlike"
    assert r["other_config"]["disks"].startswith("<provision><disk device=\"0\" ")
    assert r["recommendations"].startswith("<restrictions>")
    assert "clone" in r["allowed_operations"] and "destroy" not in r["allowed_operations"]
    assert failure(s, "VM.destroy", t) == ["VM_IS_TEMPLATE", t, "destroy"]
    other = s("VM.get_record", template(s, "Other install media"))
    assert other["HVM_boot_policy"] == "BIOS order" and other["HVM_boot_params"] == {"order": "cdn"}


def clone_is_a_vm_of_its_own(m):
    s = m.login()
    t = template(s)
    vm = s("VM.clone", t, "etch")
    old, new = s("VM.get_record", t), s("VM.get_record", vm)
    assert new["name_label"] == "etch" and new["uuid"] != old["uuid"]
    assert new["is_a_template"] and not new["is_default_template"]
    assert "default_template" not in new["other_config"] and "disks" in new["other_config"]
    assert new["other_config"]["mac_seed"]
    assert new["metrics"] != old["metrics"]
    assert old["current_operations"] == new["current_operations"] == {}
    assert s("VM.get_current_operations", t) == {}

    # As Ansible deploys: without the key nothing has to be made.
    s("VM.set_name_description", vm, "")
    config = s("VM.get_other_config", vm)
    del config["disks"]
    s("VM.set_other_config", vm, config)
    s("VM.provision", vm)
    assert s("VM.get_is_a_template", vm) is False
    assert s("VM_metrics.get_install_time", new["metrics"]) != "19700101T00:00:00Z"
    assert failure(s, "VM.provision", vm) == ["ONLY_PROVISION_TEMPLATE"]


def provision_needs_a_default_sr(m):
    s = m.login()
    vm = s("VM.clone", template(s), "etch")
    assert failure(s, "VM.provision", vm) == ["DEFAULT_SR_NOT_FOUND", NULL]
    assert s("VM.get_is_a_template", vm) is True and s("VM.get_VBDs", vm) == []
    for xml in ("<provision><disk", "<other/>", "<provision><disk device='0' size='x'/></provision>",
                "<!DOCTYPE p [<!ENTITY a 'b'>]><provision/>"):
        config = dict(s("VM.get_other_config", vm), disks=xml)
        s("VM.set_other_config", vm, config)
        assert failure(s, "VM.provision", vm) == ["INVALID_VALUE", "other_config:disks", xml], xml


def templates_and_back(m):
    s = m.login()
    vm = create_vm(s)
    s("VM.set_is_a_template", vm, True)
    s("VM.set_is_a_template", vm, True)
    assert failure(s, "VM.start", vm, False, False) != []
    s("VM.set_is_a_template", vm, False)
    assert "start" in s("VM.get_allowed_operations", vm)


def memory_and_vcpus(m):
    s = m.login()
    vm = create_vm(s)
    s("VM.set_memory_limits", vm, "0", str(1024 * MIB), str(512 * MIB), str(768 * MIB))
    r = s("VM.get_record", vm)
    assert [r["memory_" + k] for k in ("static_min", "dynamic_min", "dynamic_max", "static_max")] \
        == ["0", str(512 * MIB), str(768 * MIB), str(1024 * MIB)]
    assert r["memory_overhead"] == s("VM.compute_memory_overhead", vm)
    error = failure(s, "VM.set_memory_static_range", vm, "0", str(600 * MIB))
    assert error[0] == "MEMORY_CONSTRAINT_VIOLATION" and len(error) == 2, error
    assert failure(s, "VM.set_VCPUs_at_startup", vm, "3") == \
        ["INVALID_VALUE", "VCPUs_at_startup", "3"]
    s("VM.set_VCPUs_max", vm, "8")
    s("VM.set_VCPUs_at_startup", vm, "3")
    assert failure(s, "VM.set_VCPUs_max", vm, "2") == ["INVALID_VALUE", "VCPUs_max", "2"]
    for value in ("1025", str(2 ** 63 - 1)):
        assert failure(s, "VM.set_VCPUs_max", vm, value) == ["INVALID_VALUE", "VCPUs_max", value]
    most = str(2 ** 63 - 1)
    assert failure(s, "VM.set_memory", vm, most) == ["INVALID_VALUE", "memory_static_max", most]
    assert failure(s, "VM.set_memory_static_range", vm, "-1", str(1024 * MIB)) == \
        ["INVALID_VALUE", "memory_static_min", "-1"]
    assert int(s("VM.maximise_memory", vm, most, False)) == 2 ** 46
    for value in (0.0, float("nan"), float("inf"), -1.0, 1001.0):
        assert failure(s, "VM.set_HVM_shadow_multiplier", vm, value) == \
            ["INVALID_VALUE", "multiplier", "%g" % value]
    for field in ("order", "start_delay", "shutdown_delay"):
        assert failure(s, "VM.set_" + field, vm, "-1") == ["INVALID_VALUE", field, "-1"]
    assert int(s("VM.maximise_memory", vm, str(1024 * MIB), False)) < 1024 * MIB
    assert failure(s, "VM.set_memory_target_live", vm, str(512 * MIB)) == \
        ["VM_BAD_POWER_STATE", vm, "running", "halted"]


def maps_of_a_vm(m):
    s = m.login()
    vm = create_vm(s)
    s("VM.add_to_platform", vm, "viridian", "true")
    assert failure(s, "VM.add_to_platform", vm, "viridian", "true") == \
        ["MAP_DUPLICATE_KEY", "VM", "platform", vm, "viridian"]
    assert failure(s, "VM.add_to_platform", vm, "acpi", "perhaps") == \
        ["INVALID_VALUE", "platform:acpi", "perhaps"]
    s("VM.remove_from_platform", vm, "viridian")
    s("VM.remove_from_platform", vm, "viridian")
    s("VM.add_to_blocked_operations", vm, "destroy", "not now")
    assert "destroy" not in s("VM.get_allowed_operations", vm)
    assert failure(s, "VM.destroy", vm) == ["OPERATION_BLOCKED", vm, "not now"]
    s("VM.remove_from_blocked_operations", vm, "destroy")
    s("VM.destroy", vm)


def drives(m):
    s = m.login()
    vm = create_vm(s)
    cd = dict(VBD, VM=vm, VDI=NULL, userdevice="3", mode="RO", type="CD", empty=True)
    assert "3" in s("VM.get_allowed_VBD_devices", vm)
    vbd = s("VBD.create", cd)
    assert "3" not in s("VM.get_allowed_VBD_devices", vm)
    r = s("VBD.get_record", vbd)
    assert r["VDI"] == NULL and r["empty"] and not r["currently_attached"] and r["unpluggable"]
    assert failure(s, "VBD.create", cd) == ["DEVICE_ALREADY_EXISTS", "3"]
    assert failure(s, "VBD.create", dict(cd, userdevice="cd")) == ["INVALID_DEVICE", "cd"]
    assert failure(s, "VBD.create", dict(cd, userdevice="4", mode="RW")) == \
        ["VBD_CDS_MUST_BE_READONLY"]
    assert failure(s, "VBD.create", dict(cd, userdevice="4", mode="RW", type="Disk")) == \
        ["VBD_NOT_REMOVABLE_MEDIA", "in constructor"]
    assert failure(s, "VBD.create", dict(cd, userdevice="4", empty=False)) == \
        ["HANDLE_INVALID", "VDI", NULL]
    assert failure(s, "VBD.eject", vbd) == ["VBD_IS_EMPTY", vbd]
    assert failure(s, "VBD.plug", vbd) == ["VM_BAD_POWER_STATE", vm, "running", "halted"]
    assert failure(s, "VBD.set_mode", vbd, "RW") == ["VBD_CDS_MUST_BE_READONLY"]
    auto = s("VBD.create", dict(cd, userdevice="autodetect"))
    assert s("VBD.get_userdevice", auto) == "0"
    s("VBD.destroy", auto)
    s("VM.destroy", vm)
    assert failure(s, "VBD.get_record", vbd) == ["HANDLE_INVALID", "VBD", vbd]


def interfaces(m):
    s = m.login()
    vm = create_vm(s, other_config={"mac_seed": "one"})
    [net] = s("network.get_by_name_label", "Pool-wide network associated with eth0")
    assert s("network.get_bridge", net) == "xenbr0"
    vif = s("VIF.create", dict(VIF, VM=vm, network=net, device="0"))
    r = s("VIF.get_record", vif)
    assert r["MAC_autogenerated"] and r["locking_mode"] == "network_default", r
    assert r["ipv4_configuration_mode"] == "None" and r["ipv4_allowed"] == []
    assert failure(s, "VIF.create", dict(VIF, VM=vm, network=net, device="0")) == \
        ["DEVICE_ALREADY_EXISTS", "0"]
    assert failure(s, "VIF.create", dict(VIF, VM=vm, network=net, device="1", MAC="nonsense")) == \
        ["MAC_INVALID", "nonsense"]
    assert s("VM.get_allowed_VIF_devices", vm)[0] == "1"

    # The addresses follow from the seed; a clone draws its own.
    twin = create_vm(s, other_config={"mac_seed": "one"})
    again = s("VIF.create", dict(VIF, VM=twin, network=net, device="0"))
    assert s("VIF.get_MAC", again) == r["MAC"]
    [copy] = s("VM.get_VIFs", s("VM.clone", vm, "b"))
    assert s("VIF.get_MAC", copy) != r["MAC"] and s("VIF.get_network", copy) == net

    other = s("network.create", {"name_label": "n", "name_description": "", "other_config": {}})
    s("VIF.move", vif, other)
    assert s("VIF.get_network", vif) == other
    s("VIF.configure_ipv4", vif, "Static", "10.0.0.2/24", "10.0.0.1")
    assert s("VIF.get_ipv4_addresses", vif) == ["10.0.0.2/24"]
    assert failure(s, "VIF.configure_ipv4", vif, "Static", "10.0.0.2", "") == \
        ["INVALID_CIDR_ADDRESS_SPECIFIED", "address"]
    s("VIF.destroy", vif)
    s("network.destroy", other)


def networks(m):
    s = m.login()
    record = {"name_label": "n", "name_description": "", "other_config": {}}
    a = s("network.create", record)
    assert s("network.get_bridge", a) == "xapi0" and s("network.get_MTU", a) == "1500"
    assert failure(s, "network.create", dict(record, bridge="xapi0")) == \
        ["BRIDGE_NAME_EXISTS", "xapi0"]
    assert s("network.get_bridge", s("network.create", record)) == "xapi1"
    for mtu in "-1", "67", "65536", "9223372036854775807":
        assert failure(s, "network.set_MTU", a, mtu) == ["INVALID_VALUE", "MTU", mtu]
        if mtu != "-1":
            assert failure(s, "network.create", dict(record, MTU=mtu)) == ["INVALID_VALUE", "MTU", mtu]
    s("network.set_MTU", a, "9000")
    assert s("network.get_MTU", a) == "9000"
    s("network.add_purpose", a, "nbd")
    assert failure(s, "network.add_purpose", a, "insecure_nbd") == \
        ["NETWORK_INCOMPATIBLE_PURPOSES", "insecure_nbd", "nbd"]


def storage_repositories(m):
    s = m.login()
    [host] = s("host.get_all")
    assert sorted(s("SR.get_supported_types")) == ["dummy", "file", "iso", "shared-file"]
    assert s("SM.get_all_records") and all(
        r["features"] for r in s("SM.get_all_records").values())
    assert failure(s, "SR.create", host, {}, "0", "x", "", "lvm", "", False, {}) == \
        ["SR_UNKNOWN_DRIVER", "lvm"]
    sr = s("SR.introduce", "", "x", "", "file", "user", False, {})
    uuid = s("SR.get_uuid", sr)
    assert failure(s, "SR.introduce", uuid, "x", "", "file", "user", False, {}) == \
        ["SR_UUID_EXISTS", uuid]
    pbd = s("PBD.create", {"host": host, "SR": sr, "device_config": {"location": "/srv"}})
    assert s("PBD.get_currently_attached", pbd) is False
    assert failure(s, "PBD.create", {"host": host, "SR": sr, "device_config": {}}) == \
        ["PBD_EXISTS", sr, host, pbd]
    assert failure(s, "SR.scan", sr) == ["SR_HAS_NO_PBDS", sr]
    assert failure(s, "VDI.create", {
        "SR": sr, "virtual_size": "1048576", "type": "user", "sharable": False, "read_only": False,
        "other_config": {}}) == ["SR_HAS_NO_PBDS", sr]
    s("PBD.set_device_config", pbd, {"location": "/mnt"})
    s("SR.forget", sr)
    assert failure(s, "PBD.get_record", pbd) == ["HANDLE_INVALID", "PBD", pbd]


def hosts_and_pool(m):
    s = m.login()
    [host] = s("host.get_all")
    [pool] = s("pool.get_all")
    assert "VM.clone" in s("host.list_methods")
    assert s("host.get_servertime", host)
    s("pool.sync_database")
    assert s("pool.is_slave", host) is False
    s("pool.set_default_SR", pool, NULL)
    assert failure(s, "host.set_hostname_live", host, "no_good")[0] == "HOST_NAME_INVALID"


def small_classes(m):
    s = m.login()
    appliance = s("VM_appliance.create", {"name_label": "x", "name_description": ""})
    vm = create_vm(s)
    s("VM.set_appliance", vm, appliance)
    assert s("VM_appliance.get_VMs", appliance) == [vm]
    s("VM_appliance.destroy", appliance)
    assert s("VM.get_appliance", vm) == NULL
    group = s("VM_group.create", {"name_label": "g", "name_description": "", "placement": "normal"})
    s("VM.set_groups", vm, [group])
    s("VM_group.destroy", group)
    assert s("VM.get_groups", vm) == []
    secret = s("secret.create", {"value": "v", "other_config": {}})
    assert s("secret.get_value", secret) == "v"
    s("secret.destroy", secret)


run(new_vm_is_halted_and_has_metrics, constructor_checks, default_templates,
    clone_is_a_vm_of_its_own, provision_needs_a_default_sr, templates_and_back, memory_and_vcpus,
    maps_of_a_vm, drives, interfaces, networks, storage_repositories, hosts_and_pool, small_classes)
