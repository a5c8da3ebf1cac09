/* ref.c - text forms of references and uuids */
#include "shared/ref.h"

#include "shared/random.h"

static const char prefix[] = "OpaqueRef:";
#define PREFIX_LENGTH (sizeof prefix - 1)
#define UUID_LENGTH   36

ref_t ref_new(struct random *random)
{
    ref_t ref = {random_u64(random), random_u64(random)};

    ref.hi = (ref.hi & ~0xf000ULL) | 0x4000ULL;                      /* version 4 */
    ref.lo = (ref.lo & ~(3ULL << 62)) | (2ULL << 62);                /* variant 10 */
    return ref;
}

char *uuid_print(char out[UUID_TEXT_BYTES], ref_t uuid)
{
    static const char digits[] = "0123456789abcdef";
    char *p = out;

    for (int i = 0; i < 32; i++) {
        uint64_t word = i < 16 ? uuid.hi : uuid.lo;

        if (i == 8 || i == 12 || i == 16 || i == 20)
            *p++ = '-';
        *p++ = digits[(word >> (60 - 4 * (i % 16))) & 15];
    }
    *p = '\0';
    return out;
}

char *ref_print(char out[REF_TEXT_BYTES], ref_t ref)
{
    memcpy(out, prefix, PREFIX_LENGTH);
    if (ref_is_null(ref))
        strcpy(out + PREFIX_LENGTH, "NULL");
    else
        uuid_print(out + PREFIX_LENGTH, ref);
    return out;
}

static int hex_digit(char c, bool any_case)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (any_case && c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static bool parse_uuid(const char *text, size_t length, bool any_case, ref_t *ret)
{
    uint64_t words[2] = {0, 0};
    int digits = 0;

    if (length != UUID_LENGTH)
        return false;
    for (size_t i = 0; i < length; i++) {
        int digit;

        if (i == 8 || i == 13 || i == 18 || i == 23) {
            if (text[i] != '-')
                return false;
            continue;
        }
        digit = hex_digit(text[i], any_case);
        if (digit < 0)
            return false;
        words[digits / 16] = words[digits / 16] << 4 | (uint64_t) digit;
        digits++;
    }
    if (words[0] == 0 && words[1] == 0)
        return false;
    *ret = (ref_t){words[0], words[1]};
    return true;
}

bool ref_parse(const char *text, size_t length, ref_t *ret)
{
    if (length < PREFIX_LENGTH || memcmp(text, prefix, PREFIX_LENGTH) != 0)
        return false;
    if (length == PREFIX_LENGTH + 4 && memcmp(text + PREFIX_LENGTH, "NULL", 4) == 0) {
        *ret = NULL_REF;
        return true;
    }
    return parse_uuid(text + PREFIX_LENGTH, length - PREFIX_LENGTH, false, ret);
}

bool uuid_parse(const char *text, size_t length, ref_t *ret)
{
    return parse_uuid(text, length, true, ret);
}
