/* value.c - values: compare, copy, pack; maps and sets; what is valid text; datetimes
 *
 * Copying has two forms. value_copy() spreads a value over an arena, where it dies with its call. value_pack()
 * puts all of it into one block, which a stored object keeps for as long as a version lives:
 *
 *   +---------------+----------------------+------------------------+
 *   | items of the  | items of the values  | texts, each with a NUL |
 *   | top value     | below, depth first   |                        |
 *   +---------------+----------------------+------------------------+
 *
 * Items come first since they must be aligned. One malloc, one free, and neighbours in the cache. */
#include "shared/value.h"

#include <stdio.h>

#include "shared/arena.h"
#include "shared/model.h"

struct value value_text(const char *text)
{
    return (struct value){.kind = KIND_STRING, .length = (uint32_t) strlen(text), .text = text};
}

/* How many sub-values a value holds, and where they are. */
static uint32_t value_parts(const struct value *value, const struct value **ret_parts)
{
    switch (value->kind) {
    case KIND_SET:
        *ret_parts = value->items;
        return value->length;
    case KIND_MAP:
        *ret_parts = value->items;
        return 2 * value->length;
    case KIND_RECORD:
        *ret_parts = value->record.fields;
        return (uint32_t) value->record.class->field_count;
    default:
        *ret_parts = NULL;
        return 0;
    }
}

static void value_set_parts(struct value *value, const struct value *parts)
{
    if (value->kind == KIND_RECORD)
        value->record.fields = parts;
    else
        value->items = parts;
}

/* ---- compare ---- */

static int text_compare(const struct value *a, const struct value *b)
{
    int order = memcmp(a->text, b->text, MIN(a->length, b->length));

    return order ? order : (a->length > b->length) - (a->length < b->length);
}

static int float_compare(double a, double b)
{
    if (a < b || a > b)
        return a < b ? -1 : 1;
    /* Equal, or one is no number: those come last and equal one another, so that the order is total. */
    return (a != a) - (b != b);
}

int value_compare(const struct value *a, const struct value *b)
{
    const struct value *a_parts, *b_parts;
    uint32_t a_count, b_count;

    if (a->kind != b->kind)
        return a->kind < b->kind ? -1 : 1;
    switch (a->kind) {
    case KIND_STRING:
        return text_compare(a, b);
    case KIND_INT:
    case KIND_DATETIME:
        return (a->i > b->i) - (a->i < b->i);
    case KIND_FLOAT:
        return float_compare(a->f, b->f);
    case KIND_BOOL:
        return a->b - b->b;
    case KIND_ENUM:
        assert(a->e.type == b->e.type);
        return (a->e.index > b->e.index) - (a->e.index < b->e.index);
    case KIND_REF:
        return ref_compare(a->ref, b->ref);
    case KIND_SET:
    case KIND_MAP:
    case KIND_RECORD:
        break;
    default:
        return 0;
    }
    a_count = value_parts(a, &a_parts);
    b_count = value_parts(b, &b_parts);
    for (uint32_t i = 0; i < MIN(a_count, b_count); i++) {
        int order = value_compare(&a_parts[i], &b_parts[i]);

        if (order)
            return order;
    }
    return (a_count > b_count) - (a_count < b_count);
}

/* Sets and maps keep the order they were given in, so the same members in another order are another value. */
bool value_equal(const struct value *a, const struct value *b)
{
    if (a->kind != b->kind || a->length != b->length)
        return false;
    if (a->kind == KIND_ENUM && a->e.type != b->e.type)
        return false;
    if (a->kind == KIND_RECORD && a->record.class != b->record.class)
        return false;
    return value_compare(a, b) == 0;
}

static int by_value(const void *a, const void *b)
{
    return value_compare(*(const struct value *const *) a, *(const struct value *const *) b);
}

/* Below this many items comparing each with each is quicker than sorting. */
#define FEW_ITEMS 12

const struct value *value_find_repeated(const struct value *items, uint32_t count, uint32_t step)
{
    _cleanup_(free_p) const struct value **sorted = NULL;

    if (count <= FEW_ITEMS) {
        for (uint32_t i = 1; i < count; i++)
            for (uint32_t j = 0; j < i; j++)
                if (value_equal(&items[i * step], &items[j * step]))
                    return &items[i * step];
        return NULL;
    }
    sorted = new0_array(const struct value *, count);
    for (uint32_t i = 0; i < count; i++)
        sorted[i] = &items[i * step];
    qsort(sorted, count, sizeof *sorted, by_value);
    for (uint32_t i = 1; i < count; i++)
        if (value_equal(sorted[i - 1], sorted[i]))
            return sorted[i];
    return NULL;
}

/* ---- copy and pack ---- */

struct value value_copy(struct arena *arena, const struct value *value)
{
    struct value copy = *value;
    const struct value *parts;
    uint32_t count = value_parts(value, &parts);

    copy.is_packed = false;
    if (value->kind == KIND_STRING) {
        copy.text = value->length ? arena_dup(arena, value->text, value->length) : "";
    } else if (count > 0) {
        struct value *copies = arena_alloc(arena, count * sizeof *copies);

        for (uint32_t i = 0; i < count; i++)
            copies[i] = value_copy(arena, &parts[i]);
        value_set_parts(&copy, copies);
    }
    return copy;
}

/* What a value needs beyond its own 24 bytes. */
static void value_measure(const struct value *value, size_t *items, size_t *text_bytes)
{
    const struct value *parts;
    uint32_t count = value_parts(value, &parts);

    if (value->kind == KIND_STRING && value->length)
        *text_bytes += (size_t) value->length + 1;
    *items += count;
    for (uint32_t i = 0; i < count; i++)
        value_measure(&parts[i], items, text_bytes);
}

/* Where the next items and the next text go. */
struct pack_cursor {
    struct value *items;
    char *text;
};

static struct value value_place(struct pack_cursor *cursor, const struct value *value)
{
    struct value copy = *value;
    const struct value *parts;
    uint32_t count = value_parts(value, &parts);

    copy.is_packed = false;
    if (value->kind == KIND_STRING) {
        copy.text = "";
        if (value->length) {
            copy.text = memcpy(cursor->text, value->text, value->length);
            cursor->text[value->length] = '\0';
            cursor->text += (size_t) value->length + 1;
        }
    } else if (count > 0) {
        struct value *copies = cursor->items;

        cursor->items += count;
        for (uint32_t i = 0; i < count; i++)
            copies[i] = value_place(cursor, &parts[i]);
        value_set_parts(&copy, copies);
    }
    return copy;
}

size_t value_packed_bytes(const struct value *value)
{
    size_t items = 0, text_bytes = 0;

    value_measure(value, &items, &text_bytes);
    return items * sizeof(struct value) + text_bytes;
}

struct value value_pack(const struct value *value)
{
    size_t items = 0, text_bytes = 0;
    struct pack_cursor cursor = {0};
    struct value copy;

    value_measure(value, &items, &text_bytes);
    if (items + text_bytes > 0) {
        cursor.items = realloc_array(NULL, 1, items * sizeof(struct value) + text_bytes);
        cursor.text = (char *) (cursor.items + items);
    }
    copy = value_place(&cursor, value);
    copy.is_packed = items + text_bytes > 0;
    return copy;
}

void value_unpack(struct value *value)
{
    if (value->is_packed)
        free(value->kind == KIND_STRING   ? (void *) value->text
             : value->kind == KIND_RECORD ? (void *) value->record.fields
                                          : (void *) value->items);
    *value = VALUE_VOID;
}

/* ---- maps and sets ---- */

const struct value *value_map_find(const struct value *map, const char *key)
{
    size_t length = strlen(key);

    assert(map->kind == KIND_MAP);
    for (uint32_t i = 0; i < map->length; i++) {
        const struct value *at = &map->items[2 * i];

        if (at->kind == KIND_STRING && at->length == length && memcmp(at->text, key, length) == 0)
            return at + 1;
    }
    return NULL;
}

const char *value_map_text(const struct value *map, const char *key, const char *otherwise)
{
    const struct value *value = value_map_find(map, key);

    return value && value->kind == KIND_STRING ? value->text : otherwise;
}

/* The place of a key in a map, of an item in a set; the length when it is not there. */
static uint32_t value_place_of(const struct value *items, uint32_t length, uint32_t step, const struct value *wanted)
{
    uint32_t i = 0;

    while (i < length && !value_equal(&items[i * step], wanted))
        i++;
    return i;
}

struct value value_map_with(struct arena *arena, const struct value *map, const struct value *key,
                            const struct value *value)
{
    uint32_t place, length;
    struct value *items;

    assert(map->kind == KIND_MAP);
    place = value_place_of(map->items, map->length, 2, key);
    length = map->length + (place == map->length);
    items = arena_alloc(arena, 2 * (size_t) length * sizeof *items);
    for (uint32_t i = 0; i < 2 * map->length; i++)
        if (i / 2 != place)
            items[i] = value_copy(arena, &map->items[i]);
    items[2 * place] = value_copy(arena, key);
    items[2 * place + 1] = value_copy(arena, value);
    return VALUE_MAP(length, items);
}

struct value value_map_without(struct arena *arena, const struct value *map, const struct value *key)
{
    uint32_t place, length = 0;
    struct value *items;

    assert(map->kind == KIND_MAP);
    place = value_place_of(map->items, map->length, 2, key);
    items = arena_alloc(arena, 2 * (size_t) map->length * sizeof *items);
    for (uint32_t i = 0; i < map->length; i++) {
        if (i == place)
            continue;
        items[2 * length] = value_copy(arena, &map->items[2 * i]);
        items[2 * length + 1] = value_copy(arena, &map->items[2 * i + 1]);
        length++;
    }
    return VALUE_MAP(length, items);
}

bool value_set_has(const struct value *set, const struct value *item)
{
    assert(set->kind == KIND_SET);
    return value_place_of(set->items, set->length, 1, item) < set->length;
}

struct value value_set_with(struct arena *arena, const struct value *set, const struct value *item)
{
    uint32_t length;
    struct value *items;

    if (value_set_has(set, item))
        return value_copy(arena, set);
    length = set->length + 1;
    items = arena_alloc(arena, length * sizeof *items);
    for (uint32_t i = 0; i < set->length; i++)
        items[i] = value_copy(arena, &set->items[i]);
    items[set->length] = value_copy(arena, item);
    return VALUE_SET(length, items);
}

struct value value_set_without(struct arena *arena, const struct value *set, const struct value *item)
{
    uint32_t place, length = 0;
    struct value *items;

    assert(set->kind == KIND_SET);
    place = value_place_of(set->items, set->length, 1, item);
    items = arena_alloc(arena, set->length * sizeof *items);
    for (uint32_t i = 0; i < set->length; i++)
        if (i != place)
            items[length++] = value_copy(arena, &set->items[i]);
    return VALUE_SET(length, items);
}

/* ---- text ---- */

/* Bytes of the character at p, 0 when it is not valid UTF-8; NUL is not, since no value can hold it. */
static size_t utf8_bytes(const unsigned char *p, size_t left)
{
    size_t bytes;
    uint32_t character;

    if (p[0] < 0x80)
        return p[0] != 0;
    if (p[0] >= 0xc2 && p[0] <= 0xdf)
        bytes = 2;
    else if (p[0] >= 0xe0 && p[0] <= 0xef)
        bytes = 3;
    else if (p[0] >= 0xf0 && p[0] <= 0xf4)
        bytes = 4;
    else
        return 0;
    if (left < bytes)
        return 0;
    character = p[0] & (0x7fu >> bytes);
    for (size_t i = 1; i < bytes; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        character = character << 6 | (p[i] & 0x3f);
    }
    if (bytes == 3 && (character < 0x800 || (character >= 0xd800 && character <= 0xdfff)))
        return 0;
    if (bytes == 4 && (character < 0x10000 || character > 0x10ffff))
        return 0;
    return bytes;
}

/* Does XML 1.0 know the (valid) character? It has no control characters but tab, LF and CR, and neither of the
 * two non-characters U+FFFE and U+FFFF. */
static bool character_is_xml(const unsigned char *p, size_t bytes)
{
    if (bytes == 1)
        return *p >= 0x20 || *p == '\t' || *p == '\n' || *p == '\r';
    return !(bytes == 3 && p[0] == 0xef && p[1] == 0xbf && p[2] >= 0xbe);
}

size_t text_good_length(const char *text, size_t length, bool is_xml)
{
    const unsigned char *p = (const unsigned char *) text;
    size_t i = 0;

    while (i < length) {
        size_t bytes = p[i] >= 0x20 && p[i] < 0x80 ? 1 : utf8_bytes(p + i, length - i);

        if (bytes == 0 || (is_xml && !character_is_xml(p + i, bytes)))
            break;
        i += bytes;
    }
    return i;
}

bool text_is_utf8(const char *text, size_t length)
{
    return text_good_length(text, length, false) == length;
}

bool text_is_xml(const char *text, size_t length)
{
    return text_good_length(text, length, true) == length;
}

/* ---- datetimes ---- */

#define DAY_S 86400

/* Days from 1970-01-01 to a date of the proleptic Gregorian calendar. Years begin in March here, so that the
 * leap day is their last: then a month's first day is a linear function of its number. */
static int64_t days_of_date(int64_t year, int month, int day)
{
    int64_t y = month <= 2 ? year - 1 : year;
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    int64_t year_of_era = y - era * 400;
    int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;

    return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719468;
}

static void date_of_days(int64_t days, int64_t *ret_year, int *ret_month, int *ret_day)
{
    int64_t z = days + 719468;
    int64_t era = (z >= 0 ? z : z - 146096) / 146097;
    int64_t day_of_era = z - era * 146097;
    int64_t year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int month = (int) ((5 * day_of_year + 2) / 153);

    *ret_day = (int) (day_of_year - (153 * month + 2) / 5) + 1;
    *ret_month = month < 10 ? month + 3 : month - 9;
    *ret_year = era * 400 + year_of_era + (*ret_month <= 2);
}

static char *print_digits(char *out, int64_t number, int digits)
{
    for (int i = digits - 1; i >= 0; i--) {
        out[i] = (char) ('0' + number % 10);
        number /= 10;
    }
    return out + digits;
}

char *datetime_print(char out[DATETIME_TEXT_BYTES], int64_t utc_s)
{
    /* The form has four digits for the year: what lies outside is printed as the nearest that fits. */
    static const int64_t first_s = -62167219200, last_s = 253402300799;
    int64_t s = utc_s < first_s ? first_s : utc_s > last_s ? last_s : utc_s;
    int64_t days = s / DAY_S, rest = s % DAY_S, year;
    int month, day;
    char *p = out;

    if (rest < 0) {
        rest += DAY_S;
        days--;
    }
    date_of_days(days, &year, &month, &day);
    p = print_digits(p, year, 4);
    p = print_digits(p, month, 2);
    p = print_digits(p, day, 2);
    *p++ = 'T';
    p = print_digits(p, rest / 3600, 2);
    *p++ = ':';
    p = print_digits(p, rest / 60 % 60, 2);
    *p++ = ':';
    p = print_digits(p, rest % 60, 2);
    *p++ = 'Z';
    *p = '\0';
    return out;
}

struct scan {
    const char *at, *end;
};

static bool scan_digits(struct scan *scan, int digits, int *ret)
{
    int number = 0;

    if (scan->end - scan->at < digits)
        return false;
    for (int i = 0; i < digits; i++) {
        if (scan->at[i] < '0' || scan->at[i] > '9')
            return false;
        number = number * 10 + (scan->at[i] - '0');
    }
    scan->at += digits;
    *ret = number;
    return true;
}

static bool scan_char(struct scan *scan, char c)
{
    if (scan->at == scan->end || *scan->at != c)
        return false;
    scan->at++;
    return true;
}

/* Three numbers with a separator between both pairs or between none. */
static bool scan_triple(struct scan *scan, char separator, int first_digits, int *ret_a, int *ret_b, int *ret_c)
{
    bool is_separated;

    if (!scan_digits(scan, first_digits, ret_a))
        return false;
    is_separated = scan_char(scan, separator);
    return scan_digits(scan, 2, ret_b) && scan_char(scan, separator) == is_separated && scan_digits(scan, 2, ret_c);
}

/* Z, +hh, +hhmm, +hh:mm or nothing, up to the end. */
static bool scan_zone(struct scan *scan, int *ret_offset_s)
{
    int sign, hours, minutes = 0;

    *ret_offset_s = 0;
    if (scan->at == scan->end)
        return true;
    if (scan_char(scan, 'Z'))
        return scan->at == scan->end;
    if (scan_char(scan, '+'))
        sign = 1;
    else if (scan_char(scan, '-'))
        sign = -1;
    else
        return false;
    if (!scan_digits(scan, 2, &hours))
        return false;
    if (scan->at < scan->end) {
        scan_char(scan, ':');
        if (!scan_digits(scan, 2, &minutes))
            return false;
    }
    if (hours > 23 || minutes > 59 || scan->at != scan->end)
        return false;
    *ret_offset_s = sign * (hours * 3600 + minutes * 60);
    return true;
}

bool datetime_parse(const char *text, size_t length, int64_t *ret_utc_s)
{
    static const int month_days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    struct scan scan = {text, text + length};
    int year, month, day, hours, minutes, seconds, offset_s;
    bool is_leap;

    if (!scan_triple(&scan, '-', 4, &year, &month, &day) || !scan_char(&scan, 'T')
        || !scan_triple(&scan, ':', 2, &hours, &minutes, &seconds))
        return false;
    if (scan_char(&scan, '.') || scan_char(&scan, ',')) {
        int digit;

        if (!scan_digits(&scan, 1, &digit))
            return false;
        while (scan_digits(&scan, 1, &digit))
            ;
    }
    if (!scan_zone(&scan, &offset_s))
        return false;
    is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    if (month < 1 || month > 12 || day < 1 || day > month_days[month - 1] + (month == 2 && is_leap) || hours > 23
        || minutes > 59 || seconds > 59)
        return false;
    *ret_utc_s = days_of_date(year, month, day) * DAY_S + hours * 3600 + minutes * 60 + seconds - offset_s;
    return true;
}
