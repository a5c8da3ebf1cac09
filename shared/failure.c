/* failure.c - codes and details of failing calls */
#include "shared/failure.h"

#include "shared/value.h"

/* wire.md states other counts for a few codes than their rows do; clients see what wire.md says. */
static const struct {
    int code;
    unsigned count;
} other_counts[] = {
    {ERR_SESSION_AUTHENTICATION_FAILED, 2}, /* section 5: uname, text */
    {ERR_VM_IS_TEMPLATE, 2},                /* section 10: vm, operation */
    {ERR_VDI_IN_USE, 1},                    /* section 10: a VBD that cannot share its VDI */
    {ERR_VMS_FAILED_TO_COOPERATE, 1},       /* section 11: the vms */
    {ERR_NO_HOSTS_AVAILABLE, 1},            /* section 13: the vm that finds no host in an evacuation plan */
    {ERR_HOST_NOT_ENOUGH_FREE_MEMORY, 1},   /* section 13: likewise */
    {ERR_DUPLICATE_VM, 2},                  /* section 20: existing, new */
    {ERR_INVALID_VALUE, 1},                 /* section 4: the text alone */
};

static bool count_is_right(int code, unsigned count)
{
    if ((unsigned) model_error(code)->param_count == count)
        return true;
    for (size_t i = 0; i < ARRAY_SIZE(other_counts); i++)
        if (other_counts[i].code == code && other_counts[i].count == count)
            return true;
    return false;
}

/* A copy that every codec can print: '?' for each byte that is not valid text, cut at a character's start. */
static const char *clean_copy(struct arena *arena, const char *text)
{
    size_t length = strnlen(text, FAILURE_PARAM_BYTES_MAX + 1), i;
    char *copy;

    if (length > FAILURE_PARAM_BYTES_MAX) {
        length = FAILURE_PARAM_BYTES_MAX;
        while (length > 0 && (text[length] & 0xc0) == 0x80)
            length--;
    }
    copy = arena_alloc(arena, length + 1);
    memcpy(copy, text, length);
    for (i = text_good_length(copy, length, true); i < length; i += text_good_length(copy + i, length - i, true))
        copy[i] = '?';
    return copy;
}

static void set_params(struct failure *failure, struct arena *arena, unsigned count, const char *const *params)
{
    failure->in_way = (ref_t){0};
    failure->count = MIN(count, (unsigned) FAILURE_PARAMS_MAX);
    for (unsigned i = 0; i < failure->count; i++)
        failure->params[i] = clean_copy(arena, params[i]);
}

int failure_set_counted(struct failure *failure, struct arena *arena, int code, unsigned count,
                        const char *const *params)
{
    assert(count_is_right(code, count));
    failure->code = code;
    failure->text = model_error(code)->code;
    set_params(failure, arena, count, params);
    return -code;
}

int failure_set_text(struct failure *failure, struct arena *arena, const char *code, unsigned count,
                     const char *const *params)
{
    failure->code = ERR_NONE_;
    for (int row = ERR_NONE_ + 1; row < ERR_END_; row++)
        if (streq(model_error(row)->code, code))
            failure->code = row;
    failure->text = failure->code == ERR_NONE_ ? clean_copy(arena, code) : model_error(failure->code)->code;
    set_params(failure, arena, count, params);
    return -failure->code;
}

void failure_copy(struct failure *to, struct arena *arena, const struct failure *from)
{
    to->code = from->code;
    to->text = from->text ? clean_copy(arena, from->text) : NULL;
    set_params(to, arena, from->count, from->params);
    to->in_way = from->in_way;
}
