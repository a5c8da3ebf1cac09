"""Records that constructors of VMs, drives and interfaces take."""

from drover import NULL

MIB = 1 << 20

VM = {
    "name_label": "a", "name_description": "", "user_version": "1", "is_a_template": False,
    "affinity": NULL, "memory_static_max": str(256 * MIB), "memory_dynamic_max": str(256 * MIB),
    "memory_dynamic_min": str(256 * MIB), "memory_static_min": str(16 * MIB), "VCPUs_params": {},
    "VCPUs_max": "2", "VCPUs_at_startup": "1", "actions_after_shutdown": "destroy",
    "actions_after_reboot": "restart", "actions_after_crash": "restart", "PV_bootloader": "",
    "PV_kernel": "", "PV_ramdisk": "", "PV_args": "", "PV_bootloader_args": "",
    "PV_legacy_args": "", "HVM_boot_policy": "BIOS order", "HVM_boot_params": {"order": "cdn"},
    "platform": {}, "PCI_bus": "", "other_config": {}, "recommendations": "",
}

# The classic members only: all that Ansible sends.
VBD = {"bootable": False, "mode": "RW", "type": "Disk", "empty": False, "other_config": {},
       "qos_algorithm_type": "", "qos_algorithm_params": {}}
VIF = {"MAC": "", "MTU": "1500", "other_config": {}, "qos_algorithm_type": "",
       "qos_algorithm_params": {}}


def create_vm(s, **fields):
    return s("VM.create", dict(VM, **fields))
