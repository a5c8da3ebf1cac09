/* rows.h - every row of every class, for whoever has defined the macros it wants; the others vanish here.
 * Included many times: by model.h, model.c and master/methods.c. */
#ifndef CLASS
#define CLASS(name, life, flags)
#endif
#ifndef FIELD
#define FIELD(class, name, type, access, initial, life, flags)
#endif
#ifndef INVERSE
#define INVERSE(class, name, other, field, life, flags)
#endif
#ifndef METHOD
#define METHOD(class, name, role, acts, async, result, life, flags, args)
#endif
#ifndef LATER
#define LATER(class, name, role, acts, async, result, life, flags, args)
#endif
#include "shared/model/session.def"
#include "shared/model/auth.def"
#include "shared/model/subject.def"
#include "shared/model/role.def"
#include "shared/model/task.def"
#include "shared/model/event.def"
#include "shared/model/pool.def"
#include "shared/model/pool_patch.def"
#include "shared/model/pool_update.def"
#include "shared/model/VM.def"
#include "shared/model/VM_metrics.def"
#include "shared/model/VM_guest_metrics.def"
#include "shared/model/VMPP.def"
#include "shared/model/VMSS.def"
#include "shared/model/VM_appliance.def"
#include "shared/model/DR_task.def"
#include "shared/model/host.def"
#include "shared/model/host_crashdump.def"
#include "shared/model/host_patch.def"
#include "shared/model/host_metrics.def"
#include "shared/model/host_cpu.def"
#include "shared/model/network.def"
#include "shared/model/VIF.def"
#include "shared/model/VIF_metrics.def"
#include "shared/model/PIF.def"
#include "shared/model/PIF_metrics.def"
#include "shared/model/Bond.def"
#include "shared/model/VLAN.def"
#include "shared/model/SM.def"
#include "shared/model/SR.def"
#include "shared/model/sr_stat.def"
#include "shared/model/probe_result.def"
#include "shared/model/LVHD.def"
#include "shared/model/VDI.def"
#include "shared/model/VBD.def"
#include "shared/model/VBD_metrics.def"
#include "shared/model/PBD.def"
#include "shared/model/crashdump.def"
#include "shared/model/VTPM.def"
#include "shared/model/console.def"
#include "shared/model/user.def"
#include "shared/model/data_source.def"
#include "shared/model/blob.def"
#include "shared/model/message.def"
#include "shared/model/secret.def"
#include "shared/model/tunnel.def"
#include "shared/model/network_sriov.def"
#include "shared/model/PCI.def"
#include "shared/model/PGPU.def"
#include "shared/model/GPU_group.def"
#include "shared/model/VGPU.def"
#include "shared/model/VGPU_type.def"
#include "shared/model/PVS_site.def"
#include "shared/model/PVS_server.def"
#include "shared/model/PVS_proxy.def"
#include "shared/model/PVS_cache_storage.def"
#include "shared/model/Feature.def"
#include "shared/model/SDN_controller.def"
#include "shared/model/vdi_nbd_server_info.def"
#include "shared/model/PUSB.def"
#include "shared/model/USB_group.def"
#include "shared/model/VUSB.def"
#include "shared/model/Cluster.def"
#include "shared/model/Cluster_host.def"
#include "shared/model/Certificate.def"
#include "shared/model/Diagnostics.def"
#include "shared/model/Repository.def"
#include "shared/model/Observer.def"
#include "shared/model/VM_group.def"
#include "shared/model/Host_driver.def"
#include "shared/model/Driver_variant.def"
#include "shared/model/Caller.def"
#include "shared/model/Rate_limit.def"
#include "shared/model/internal.def"

#undef CLASS
#undef FIELD
#undef INVERSE
#undef METHOD
#undef LATER
