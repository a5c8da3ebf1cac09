/* big_endian.h - numbers of disk formats, which lie anywhere in their headers */
#pragma once

#include "shared/base.h"

#include <endian.h>
#include <stdint.h>

static inline uint32_t get_be32(const void *at)
{
    uint32_t n;

    memcpy(&n, at, sizeof n);
    return be32toh(n);
}

static inline uint64_t get_be64(const void *at)
{
    uint64_t n;

    memcpy(&n, at, sizeof n);
    return be64toh(n);
}

static inline void put_be16(void *at, uint16_t n)
{
    n = htobe16(n);
    memcpy(at, &n, sizeof n);
}

static inline void put_be32(void *at, uint32_t n)
{
    n = htobe32(n);
    memcpy(at, &n, sizeof n);
}

static inline void put_be64(void *at, uint64_t n)
{
    n = htobe64(n);
    memcpy(at, &n, sizeof n);
}
