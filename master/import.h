/* import.h - imports that a master has left behind (import.c) */
#pragma once

struct core;

/* After the store is loaded, before the first call: what unfinished imports have made is deleted, their tasks end. Their
 * disks go when a host is there that sees them (storage_sweep). */
void imports_recover(struct core *);
