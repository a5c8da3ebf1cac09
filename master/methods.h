/* methods.h - from a METHOD row's number to its handler */
#pragma once

#include "master/call.h"

/* The handler with its argument struct untyped; NULL for LATER rows. */
typedef int method_fn(struct call *, const void *args, struct value *ret);
extern method_fn *const method_functions[METHOD_COUNT];
