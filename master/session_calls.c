/* session_calls.c - the messages of class session: logging in and out, passwords */
#include "master/account.h"
#include "master/call.h"
#include "master/core.h"
#include "master/put.h"
#include "master/roles.h"
#include "master/session.h"
#include "shared/fiber.h"

/* A peer that the kernel vouches for needs no password. */
static bool is_root_peer(const struct call *call)
{
    return call->caller.role == ROLE_LOCAL_ROOT && streq(call->caller.address, "unix");
}

static int login(struct call *call, const char *user, const char *password, const char *originator,
                 bool is_local, struct value *ret)
{
    struct session_identity who = {
        .user_name = user, .sid = "", .originator = originator, .is_local = is_local};
    const struct object *row;
    ref_t account, session;
    int r;

    if (is_root_peer(call)) {
        who.user_name = "root";
        who.role = ROLE_LOCAL_ROOT;
        who.is_local_superuser = true;
    } else {
        r = account_check(call, user, password, &account);
        if (r < 0)
            return r;
        row = view_get(call_view(call), account, account);
        if (!row || !role_parse(account_get_role(row), &who.role)) {
            const char *details[] = {user, "the account is gone"};

            return failure_set_text(&call->failure, call->arena, "SESSION_AUTHENTICATION_FAILED", 2,
                                    details);
        }
        who.is_local_superuser = streq(user, "root");
        if (!who.is_local_superuser)
            who.sid = ref_text(call, account);
        if (is_local && who.role < call->method->role)
            return fail(call, SESSION_AUTHORIZATION_FAILED, user, "this takes the role pool-admin");
        if (is_local) /* as at a slave, which knows no roles */
            who.role = ROLE_LOCAL_ROOT;
    }
    r = session_create(call, &who, &session);
    if (r < 0)
        return r;
    *ret = VALUE_REF(session);
    return 0;
}

int session_login_with_password(struct call *call,
                                const struct session_login_with_password_args *args,
                                struct value *ret)
{
    return login(call, args->uname, args->pwd, args->originator, false, ret);
}

int session_slave_local_login_with_password(
    struct call *call, const struct session_slave_local_login_with_password_args *args,
    struct value *ret)
{
    return login(call, args->uname, args->pwd, "", true, ret);
}

static int login_by_secret(struct call *call, const char *secret, bool is_local, struct value *ret)
{
    struct session_identity who = {
        .user_name = "",
        .sid = "",
        .originator = "",
        .role = ROLE_LOCAL_ROOT,
        .is_local_superuser = true,
        .is_pool = true,
        .is_local = is_local,
    };
    ref_t session;
    int r;

    r = session_check_secret(call, secret);
    if (r < 0)
        return r;
    r = session_create(call, &who, &session);
    if (r < 0)
        return r;
    *ret = VALUE_REF(session);
    return 0;
}

int session_slave_login(struct call *call, const struct session_slave_login_args *args,
                        struct value *ret)
{
    return login_by_secret(call, args->psecret, false, ret);
}

int session_slave_local_login(struct call *call, const struct session_slave_local_login_args *args,
                              struct value *ret)
{
    return login_by_secret(call, args->psecret, true, ret);
}

int session_logout(struct call *call, const struct session_logout_args *args, struct value *ret)
{
    (void) args;
    (void) ret;
    session_drop(call, call->caller.session);
    return 0;
}

int session_local_logout(struct call *call, const struct session_local_logout_args *args,
                         struct value *ret)
{
    (void) args;
    (void) ret;
    session_drop(call, call->caller.session);
    return 0;
}

int session_change_password(struct call *call, const struct session_change_password_args *args,
                            struct value *ret)
{
    _cleanup_(txn_end) struct txn *txn = NULL;
    const struct object *account;
    const char *hash;
    int r;

    (void) ret;
    if (!call->caller.is_local_superuser)
        return fail(call, USER_IS_NOT_LOCAL_SUPERUSER, "only root may change the password of root");
    r = account_hash(call, args->new_pwd, &hash);
    if (r < 0)
        return r;
    txn = store_begin(call->core->store);
    account = account_find(txn_view(txn), "root");
    if (!account)
        return fail(call, CHANGE_PASSWORD_REJECTED, "there is no account of that name");
    account_put_password_hash(txn, account->ref, hash);
    return call_commit(call, &txn);
}

/* ---- who is logged in ---- */

int session_get_all_subject_identifiers(struct call *call,
                                        const struct session_get_all_subject_identifiers_args *args,
                                        struct value *ret)
{
    const struct view *view = call_view(call);
    size_t room = view_count(view, CLASS_OF(session)), n = 0;
    struct value *items = arena_alloc_array(call->arena, room, sizeof *items);
    struct view_iter iter;
    const struct object *session;

    (void) args;
    view_each(&iter, view, CLASS_OF(session));
    while ((session = view_next(&iter))) {
        struct value sid =
            value_text(arena_strdup(call->arena, session_get_auth_user_sid(session)));
        struct value before = VALUE_SET((uint32_t) n, items);

        if (sid.length > 0 && !value_set_has(&before, &sid))
            items[n++] = sid;
    }
    *ret = VALUE_SET((uint32_t) n, items);
    return 0;
}

int session_logout_subject_identifier(struct call *call,
                                      const struct session_logout_subject_identifier_args *args,
                                      struct value *ret)
{
    const struct view *view = call_view(call);
    ref_t *refs = arena_alloc_array(call->arena, view_count(view, CLASS_OF(session)), sizeof *refs);
    struct view_iter iter;
    const struct object *session;
    size_t n = 0;

    (void) ret;
    view_each(&iter, view, CLASS_OF(session));
    while ((session = view_next(&iter)))
        if (streq(session_get_auth_user_sid(session), args->subject_identifier)
            && *args->subject_identifier && !ref_equal(session->ref, call->caller.session))
            refs[n++] = session->ref;
    for (size_t i = 0; i < n; i++)
        session_drop(call, refs[i]);
    return 0;
}
