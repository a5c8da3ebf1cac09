/* secret_file.h - one-line secrets in files of our own, drawn at the first start */
#pragma once

#include "shared/base.h"

struct random;

/* The file's first line; a missing file is made, mode 0600, with a random one. malloc'd, or NULL
 * and errno. */
char *secret_file_read(const char *path, struct random *);
