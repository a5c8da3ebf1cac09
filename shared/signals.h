/* signals.h - signals as something that a loop reads */
#pragma once

#include "shared/base.h"

/* SIGTERM, SIGINT and, if it is wanted, SIGHUP are blocked, and arrive at the descriptor (signalfd(2)) only; SIGPIPE is
 * ignored. To be called before any thread starts, so that all inherit that. The descriptor, or -1 with errno. */
int signals_open(bool with_hangup);
