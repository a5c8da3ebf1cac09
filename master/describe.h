/* describe.h - what this master offers, printed from the rows themselves */
#pragma once

#include <stdio.h>

/* Sections of tab-separated values, in the columns of tests/reference where those can be known from
 * the rows: `# classes`,
 * `# fields`, `# messages`, `# enums`, `# errors`; then `# later` and `# no_effect`: messages that
 * answer NOT_IMPLEMENTED, or are accepted without an effect, each section ended by a count. Returns
 * 0, or 1 when writing failed. */
int describe(FILE *out);
