/* system_status.h - what a host can report of itself for support (host.get_system_status_capabilities)
 *
 * XenServer's hosts list here the parts of a report that /system-status makes. Ours make no such reports - logs are where
 * their settings say -, so the list is empty, at the master and at the slaves alike. */
#pragma once

#define SYSTEM_STATUS_CAPABILITIES "<?xml version=\"1.0\" ?>\n<system-status-capabilities/>\n"
