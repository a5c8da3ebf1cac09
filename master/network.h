/* network.h - networks made by others than clients */
#pragma once

#include "master/handler.h"

/* 0, or -ERR_INVALID_VALUE. */
int network_check_mtu(struct call *, int64_t mtu);

/* From a draft; with a bridge name of its own when that of the draft is taken or missing. */
ref_t network_make(struct call *, struct txn *, struct object *draft);
