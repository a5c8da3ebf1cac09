/* transfer_options.h - what a client may ask of an export or import besides what it is of
 *
 * Clients of several releases ask with the same words for different things, and a word that is passed over without a sound
 * makes them believe that it was heard: `dry_run` of an import that then makes VMs, `restore=yes` that does not restore. So a
 * word that xapi's handlers know, here or at another path, is either done or refused by its name. Of some the refusal would
 * harm: clients send them with every request, and what they get is right for either value. They are passed over, like words
 * that nobody knows: a cookie may be of anything. */
#pragma once

#include "master/call.h"

/* 0; -ERR_INVALID_VALUE [name, value] for a switch that is neither true nor false; -ERR_VALUE_NOT_SUPPORTED [name, value,
 * reason] for what is not done at this path.
 *
 *   realm   the path without its slash, "export"
 *   params  query and cookies, a map of texts */
int transfer_check_options(struct call *, const char *realm, const struct value *params);
