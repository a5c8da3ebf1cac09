/* account.c - who may log in with a password */
#include "master/account.h"

#include "master/core.h"
#include "master/roles.h"
#include "shared/passwords.h"

const struct object *account_find(const struct view *view, const char *user)
{
    struct view_iter iter;

    view_each_name(&iter, view, CLASS_OF(account), user);
    return view_next(&iter);
}

int account_check(struct call *call, const char *user, const char *password, ref_t *ret_account)
{
    const struct object *account = account_find(call_view(call), user);
    const char *hash = account ? arena_strdup(call->arena, account_get_password_hash(account)) : NULL, *why;
    ref_t ref = account ? account->ref : NULL_REF;

    why = passwords_check(call->core->passwords, call->caller.address, hash, password);
    if (why) {
        const char *details[] = {user, why};

        return failure_set_text(&call->failure, call->arena, "SESSION_AUTHENTICATION_FAILED", 2,
                                details);
    }
    *ret_account = ref;
    return 0;
}

int account_hash(struct call *call, const char *password, const char **ret_hash)
{
    const char *fault = password_fault(password);
    _cleanup_(free_p) char *hash = fault ? NULL : passwords_hash(call->core->passwords, password);

    if (!hash)
        return fail(call, CHANGE_PASSWORD_REJECTED, fault ? fault : "the password cannot be hashed now");
    *ret_hash = arena_strdup(call->arena, hash);
    return 0;
}

struct value accounts_of_hosts(struct store *store, struct arena *arena)
{
    struct view *view = store_pin(store);
    const struct method *method = model_method_row(METHOD_NUMBER_session_slave_local_login_with_password);
    struct value *items = arena_alloc_array(arena, 2 * view_count(view, CLASS_OF(account)), sizeof *items);
    const struct object *account;
    struct view_iter iter;
    uint32_t count = 0;
    enum role role;

    view_each(&iter, view, CLASS_OF(account));
    while ((account = view_next(&iter))) {
        if (!role_parse(account_get_role(account), &role) || role < method->role)
            continue;
        items[2 * count] = value_text(arena_strdup(arena, account_get_name_label(account)));
        items[2 * count + 1] = value_text(arena_strdup(arena, account_get_password_hash(account)));
        count++;
    }
    view_unpin(&view);
    return VALUE_MAP(count, items);
}
