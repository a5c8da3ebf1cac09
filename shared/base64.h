/* base64.h - digits of base64, for the two places that decode it: one in place among blanks, one strictly */
#pragma once

/* The value of a digit of the standard alphabet, or -1. */
static inline int base64_digit(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}
