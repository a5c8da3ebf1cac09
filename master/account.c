/* account.c - passwords, and those who guess them
 *
 *   password -> may this address have one checked? -> digest, or yescrypt in a worker -> right: at once
 *                    | no: a glance                                                  -> wrong: later
 *
 * A password is checked first and its sender made to wait afterwards, only if it was wrong: a guesser shares his address
 * with others - a proxy, a machine with one misconfigured script - and theirs is right. What keeps him from learning by
 * the answer that does not come (whoever is not told "yes" at once may hang up and go on) is that he stays in the books
 * while he waits: the wrong passwords of an address are answered one after the other, each after a delay that grows to
 * DELAY_MOST_MS, and with ADDRESS_QUEUE of them under way nothing more from there is checked. So an address gets
 * FREE_FAILURES + ADDRESS_QUEUE checks and from then on one for each delay, however many connections it opens and
 * closes.
 *
 * An address that is full even so has its passwords compared, GLANCES_PER_S times a second, with the last one that was
 * right for the account: this costs no hashing, and whoever logs in as before gets in between the guesses. That is all
 * that a flood of guesses buys more than patience does. */
#include "master/account.h"

#include <crypt.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "master/core.h"
#include "master/session.h"
#include "shared/clock.h"
#include "shared/fiber.h"
#include "shared/random.h"
#include "shared/workers.h"

#define HASHING_MAX    2  /* at once: as many as there are cores to spare */
#define HASH_QUEUE_MAX 64 /* logins that wait for one; more are refused */
#define FREE_FAILURES  3  /* everybody mistypes */
#define DELAY_FIRST_MS 250
#define DELAY_MOST_MS  5000   /* what xapi lets everybody wait */
#define ADDRESS_QUEUE  8      /* logins of a guesser's address that are checked or wait for their answer */
#define GLANCES_PER_S  10     /* wrong ones, of an address whose queue is full */
#define FORGIVE_MS     600000 /* after so long without a failure, an address is as good as new */
#define GUESSERS_MAX   4096
#define DIGEST_BYTES   32
#define REMEMBERED     256 /* accounts whose last right password is recognised */

/* An address with failed logins. */
struct guesser {
    char address[64];
    unsigned failures;
    unsigned waiting;   /* its logins that are checked or wait for their answer */
    uint64_t answer_ms; /* when its last wrong login is answered */
    uint64_t glance_ms; /* when the next glance may be taken */
    uint64_t failed_ms;
    struct guesser *next;
};

struct accounts {
    struct core *core;
    struct guesser *guessers[256];
    size_t guesser_count;
    unsigned hashing, hash_waiting;
    struct waitq hash_turn;
    unsigned char key[DIGEST_BYTES]; /* of this process, for the digests */
    struct {
        ref_t account;
        unsigned char digest[DIGEST_BYTES];
    } right[REMEMBERED];
};

static int refused(struct call *call, const char *user, const char *text)
{
    const char *details[] = {user, text};

    return failure_set_text(&call->failure, call->arena, "SESSION_AUTHENTICATION_FAILED", 2,
                            details);
}

/* ---- guessers ---- */

static struct guesser **guesser_slot(struct accounts *accounts, const char *address)
{
    uint32_t hash = 5381;
    struct guesser **slot;

    for (const char *p = address; *p; p++)
        hash = hash * 33 ^ (unsigned char) *p;
    slot = &accounts->guessers[hash % ARRAY_SIZE(accounts->guessers)];
    while (*slot && !streq((*slot)->address, address))
        slot = &(*slot)->next;
    return slot;
}

/* Those that have been quiet for long enough go. */
static void guessers_forgive(struct accounts *accounts)
{
    uint64_t now = clock_now_ms(accounts->core->clock);

    for (size_t i = 0; i < ARRAY_SIZE(accounts->guessers); i++) {
        for (struct guesser **slot = &accounts->guessers[i]; *slot;) {
            struct guesser *guesser = *slot;

            if (guesser->waiting > 0 || guesser->failed_ms + FORGIVE_MS > now) {
                slot = &guesser->next;
                continue;
            }
            *slot = guesser->next;
            free(guesser);
            accounts->guesser_count--;
        }
    }
}

static uint64_t delay_ms(const struct guesser *guesser)
{
    unsigned doublings;

    if (guesser->failures < FREE_FAILURES)
        return 0;
    doublings = MIN(guesser->failures - FREE_FAILURES, 8u);
    return MIN((uint64_t) DELAY_FIRST_MS << doublings, (uint64_t) DELAY_MOST_MS);
}

/* The guesser of that address, to be made if there is room for one more; or NULL. */
static struct guesser *guesser_of(struct accounts *accounts, const char *address)
{
    struct guesser **slot = guesser_slot(accounts, address);

    if (*slot)
        return *slot;
    if (accounts->guesser_count >= GUESSERS_MAX)
        guessers_forgive(accounts);
    if (accounts->guesser_count >= GUESSERS_MAX || strlen(address) >= sizeof (*slot)->address)
        return NULL;
    slot = guesser_slot(accounts, address);
    *slot = new0(struct guesser);
    strcpy((*slot)->address, address);
    accounts->guesser_count++;
    return *slot;
}

/* A password was wrong: how long until that may be told. */
static uint64_t guesser_failed(struct accounts *accounts, const char *address)
{
    struct guesser *guesser = guesser_of(accounts, address);
    uint64_t now = clock_now_ms(accounts->core->clock);

    if (!guesser)
        return 0;
    if (guesser->failed_ms + FORGIVE_MS <= now)
        guesser->failures = 0;
    guesser->answer_ms = MAX(guesser->answer_ms, now) + delay_ms(guesser);
    guesser->failures++;
    guesser->failed_ms = now;
    return guesser->answer_ms - now;
}

/* A right password halves what is held against the address: people share addresses with guessers.
 */
static void guesser_succeeded(struct accounts *accounts, const char *address)
{
    struct guesser *guesser = *guesser_slot(accounts, address);

    if (guesser)
        guesser->failures /= 2;
}

/* ---- hashing ---- */

struct hashing {
    const char *password;
    const char *hash; /* to check against; NULL: make a new one */
    bool is_right;
    char *result; /* the new one, malloc'd */
};

static void hash_run(void *arg)
{
    struct hashing *job = arg;
    struct crypt_data *data = new0(struct crypt_data);
    char setting[CRYPT_GENSALT_OUTPUT_SIZE];
    const char *with = job->hash, *result;

    if (!with)
        with = crypt_gensalt_rn("$y$", 0, NULL, 0, setting, sizeof setting);
    result = with ? crypt_rn(job->password, with, data, sizeof *data) : NULL;
    if (job->hash)
        job->is_right = result && strlen(result) == strlen(job->hash)
                        && CRYPTO_memcmp(result, job->hash, strlen(result)) == 0;
    else
        job->result = result ? dup_text(result) : NULL;
    OPENSSL_cleanse(data, sizeof *data);
    free(data);
}

/* false when too many wait already. */
static bool hash_in_worker(struct accounts *accounts, struct hashing *job)
{
    bool ok;

    if (accounts->hash_waiting >= HASH_QUEUE_MAX)
        return false;
    accounts->hash_waiting++;
    fiber_uncancellable_begin();
    while (accounts->hashing >= HASHING_MAX)
        waitq_wait(&accounts->hash_turn, 0);
    accounts->hash_waiting--;
    accounts->hashing++;
    ok = workers_run(accounts->core->workers, hash_run, job) == 0;
    accounts->hashing--;
    fiber_uncancellable_end();
    waitq_wake_one(&accounts->hash_turn);
    return ok;
}

/* ---- passwords that were right before ---- */

struct digesting {
    struct accounts *accounts;
    const char *hash, *password;
    unsigned char digest[DIGEST_BYTES];
};

/* Keyed and bound to the stored hash: worthless outside of this process, and stale when the
 * password changes. */
static void digest_run(void *arg)
{
    struct digesting *job = arg;
    size_t hash_bytes = strlen(job->hash), password_bytes = strlen(job->password);
    unsigned char *text = alloc0(hash_bytes + password_bytes + 1);

    memcpy(text, job->hash, hash_bytes + 1);
    memcpy(text + hash_bytes + 1, job->password, password_bytes);
    if (!HMAC(EVP_sha256(), job->accounts->key, DIGEST_BYTES, text, hash_bytes + 1 + password_bytes,
              job->digest, NULL))
        die("account: no HMAC");
    OPENSSL_cleanse(text, hash_bytes + password_bytes + 1);
    free(text);
}

/* One password on its way. */
struct checking {
    struct call *call;
    const char *user, *password;
    ref_t account;    /* null: there is none of that name */
    const char *hash; /* its, or nobody's */
};

/* Was this the account's last right password? */
static bool is_right_again(struct checking *checking, unsigned char *ret_digest)
{
    struct accounts *accounts = checking->call->core->accounts;
    struct digesting digesting = {accounts, checking->hash, checking->password, {0}};
    unsigned slot = (unsigned) (checking->account.lo % REMEMBERED);

    fiber_on_loop_stack(digest_run, &digesting);
    memcpy(ret_digest, digesting.digest, DIGEST_BYTES);
    return !ref_is_null(checking->account) && ref_equal(accounts->right[slot].account, checking->account)
           && CRYPTO_memcmp(accounts->right[slot].digest, digesting.digest, DIGEST_BYTES) == 0;
}

/* Returns 1 for a right password, 0 for a wrong one, or a negative error. */
static int check(struct checking *checking)
{
    struct accounts *accounts = checking->call->core->accounts;
    struct hashing hashing = {.password = checking->password, .hash = checking->hash};
    unsigned slot = (unsigned) (checking->account.lo % REMEMBERED);
    unsigned char digest[DIGEST_BYTES];

    if (is_right_again(checking, digest))
        return 1;
    if (!hash_in_worker(accounts, &hashing))
        return refused(checking->call, checking->user, "too many logins at once");
    if (!hashing.is_right || ref_is_null(checking->account))
        return 0;
    accounts->right[slot].account = checking->account;
    memcpy(accounts->right[slot].digest, digest, DIGEST_BYTES);
    return 1;
}

/* What is left to an address whose queue is full: the same returns. */
static int glance(struct checking *checking, struct guesser *guesser)
{
    uint64_t now = clock_now_ms(checking->call->core->clock);
    unsigned char digest[DIGEST_BYTES];

    if (guesser->glance_ms <= now) {
        if (is_right_again(checking, digest))
            return 1;
        guesser->glance_ms = now + 1000 / GLANCES_PER_S;
    }
    return refused(checking->call, checking->user, "too many failed logins from this address");
}

int account_check(struct call *call, const char *user, const char *password, ref_t *ret_account)
{
    /* No account has this hash, but checking against it takes as long as against a real one. */
    static const char nobody[] =
        "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7";
    struct accounts *accounts = call->core->accounts;
    const char *address = call->caller.address;
    struct guesser *guesser = *guesser_slot(accounts, address);
    const struct object *account = account_find(call_view(call), user);
    struct checking checking = {call, user, password, account ? account->ref : NULL_REF, nobody};
    int r;

    if (strlen(password) > PASSWORD_BYTES_MAX)
        return refused(call, user, "the password is too long");
    if (account)
        checking.hash = arena_strdup(call->arena, account_get_password_hash(account));
    if (guesser && delay_ms(guesser) == 0)
        guesser = NULL; /* not yet under suspicion */
    if (guesser && guesser->waiting >= ADDRESS_QUEUE) {
        r = glance(&checking, guesser);
    } else {
        if (guesser)
            guesser->waiting++; /* also keeps it in the table */
        r = check(&checking);
        if (r == 0) {
            uint64_t wait_ms = guesser_failed(accounts, address);

            if (!guesser && wait_ms > 0) {
                guesser = guesser_of(accounts, address);
                guesser->waiting++;
            }
            if (wait_ms > 0)
                fiber_sleep(wait_ms);
            r = refused(call, user, "wrong user name or password");
        }
        if (guesser)
            guesser->waiting--;
    }
    if (r < 0)
        return r;
    guesser_succeeded(accounts, address);
    *ret_account = checking.account;
    return 0;
}

static const char *password_fault(const char *password)
{
    if (!*password)
        return "the password is empty";
    if (strlen(password) > PASSWORD_BYTES_MAX)
        return "the password is too long";
    return NULL;
}

int account_hash(struct call *call, const char *password, const char **ret_hash)
{
    struct hashing hashing = {.password = password};
    const char *fault = password_fault(password);

    if (fault)
        return fail(call, CHANGE_PASSWORD_REJECTED, fault);
    if (!hash_in_worker(call->core->accounts, &hashing) || !hashing.result)
        return fail(call, CHANGE_PASSWORD_REJECTED, "the password cannot be hashed now");
    *ret_hash = arena_strdup(call->arena, hashing.result);
    free(hashing.result);
    return 0;
}

char *password_hash(const char *password)
{
    struct hashing hashing = {.password = password};

    if (password_fault(password))
        return NULL;
    hash_run(&hashing);
    return hashing.result;
}

const struct object *account_find(const struct view *view, const char *user)
{
    struct view_iter iter;

    view_each_name(&iter, view, CLASS_OF(account), user);
    return view_next(&iter);
}

/* ---- life ---- */

struct accounts *accounts_new(struct core *core)
{
    struct accounts *accounts = new0(struct accounts);

    accounts->core = core;
    random_bytes(core->random, accounts->key, sizeof accounts->key);
    return accounts;
}

void accounts_destroy(struct accounts **accounts_p)
{
    struct accounts *accounts = TAKE(*accounts_p);

    if (!accounts)
        return;
    for (size_t i = 0; i < ARRAY_SIZE(accounts->guessers); i++) {
        while (accounts->guessers[i]) {
            struct guesser *guesser = TAKE(accounts->guessers[i]);

            accounts->guessers[i] = guesser->next;
            free(guesser);
        }
    }
    OPENSSL_cleanse(accounts->key, sizeof accounts->key);
    free(accounts);
}
