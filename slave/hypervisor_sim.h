/* hypervisor_sim.h - the driver for simulated guests */
#pragma once

#include "shared/loop.h"
#include "slave/hypervisor.h"

/* Connects to the drover-guests that listens at socket_path, now or whenever it comes, and again
 * whenever it was lost. Callbacks come from the loop only. Ready, that is list() is not negative,
 * once it has been told all guests. */
struct hypervisor *hypervisor_sim_new(struct loop *loop, const char *socket_path);
