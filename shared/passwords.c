/* passwords.c - checking passwords, and those who guess them
 *
 * The wrong passwords of an address are answered one after the other, each after a delay that grows to DELAY_MOST_MS, and
 * with ADDRESS_QUEUE of them under way nothing more from there is checked. So an address gets FREE_FAILURES + ADDRESS_QUEUE
 * checks and from then on one for each delay, however many connections it opens and closes.
 *
 * While its queue is full a password is compared with the last one that was right for the account: this costs no hashing,
 * and whoever logs in as before gets in between the guesses, at once. Those that are wrong wait for their answer in a second
 * queue, GLANCE_QUEUE long, which GLANCES_PER_S of them leave a second. So a flood of guesses buys GLANCE_QUEUE such glances
 * and then as many a second; and to keep others of his address out takes more connections than both queues have places. */
#include "shared/passwords.h"

#include <crypt.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

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
#define GLANCE_QUEUE   64     /* more of them, which were compared only */
#define GLANCES_PER_S  10     /* of those are answered */
#define FORGIVE_MS     600000 /* after so long without a failure, an address is as good as new */
#define GUESSERS_MAX   4096
#define DIGEST_BYTES   32
#define REMEMBERED     256 /* hashes whose last right password is recognised */

/* An address with failed logins. */
struct guesser {
    char address[64];
    unsigned failures;
    unsigned waiting;   /* its logins that are checked or wait for their answer */
    unsigned glanced;   /* ... that were compared only, and wait */
    uint64_t answer_ms; /* when its last wrong login is answered */
    uint64_t glance_ms; /* ... of the second kind */
    uint64_t failed_ms;
    struct guesser *next;
};

struct passwords {
    struct clock *clock;
    struct workers *workers;
    struct guesser *guessers[256];
    size_t guesser_count;
    unsigned hashing, hash_waiting;
    struct waitq hash_turn;
    unsigned char key[DIGEST_BYTES];                /* of this process, for the digests */
    unsigned char right[REMEMBERED][DIGEST_BYTES];  /* by the hash; zeros: none */
};

static uint32_t text_hash(const char *text)
{
    uint32_t hash = 5381;

    for (const char *p = text; *p; p++)
        hash = hash * 33 ^ (unsigned char) *p;
    return hash;
}

bool secrets_equal(const char *a, const char *b)
{
    return strlen(a) == strlen(b) && CRYPTO_memcmp(a, b, strlen(a)) == 0;
}

/* ---- guessers ---- */

static struct guesser **guesser_slot(struct passwords *passwords, const char *address)
{
    struct guesser **slot = &passwords->guessers[text_hash(address) % ARRAY_SIZE(passwords->guessers)];

    while (*slot && !streq((*slot)->address, address))
        slot = &(*slot)->next;
    return slot;
}

/* Those that have been quiet for long enough go. */
static void guessers_forgive(struct passwords *passwords)
{
    uint64_t now = clock_now_ms(passwords->clock);

    for (size_t i = 0; i < ARRAY_SIZE(passwords->guessers); i++) {
        for (struct guesser **slot = &passwords->guessers[i]; *slot;) {
            struct guesser *guesser = *slot;

            if (guesser->waiting > 0 || guesser->glanced > 0 || guesser->failed_ms + FORGIVE_MS > now) {
                slot = &guesser->next;
                continue;
            }
            *slot = guesser->next;
            free(guesser);
            passwords->guesser_count--;
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
static struct guesser *guesser_of(struct passwords *passwords, const char *address)
{
    struct guesser **slot = guesser_slot(passwords, address);

    if (*slot)
        return *slot;
    if (passwords->guesser_count >= GUESSERS_MAX)
        guessers_forgive(passwords);
    if (passwords->guesser_count >= GUESSERS_MAX || strlen(address) >= sizeof (*slot)->address)
        return NULL;
    slot = guesser_slot(passwords, address);
    *slot = new0(struct guesser);
    strcpy((*slot)->address, address);
    passwords->guesser_count++;
    return *slot;
}

/* A password was wrong: how long until that may be told. */
static uint64_t guesser_failed(struct passwords *passwords, const char *address)
{
    struct guesser *guesser = guesser_of(passwords, address);
    uint64_t now = clock_now_ms(passwords->clock);

    if (!guesser)
        return 0;
    if (guesser->failed_ms + FORGIVE_MS <= now)
        guesser->failures = 0;
    guesser->answer_ms = MAX(guesser->answer_ms, now) + delay_ms(guesser);
    guesser->failures++;
    guesser->failed_ms = now;
    return guesser->answer_ms - now;
}

/* A right password halves what is held against the address: people share addresses with guessers. */
static void guesser_succeeded(struct passwords *passwords, const char *address)
{
    struct guesser *guesser = *guesser_slot(passwords, address);

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
static bool hash_in_worker(struct passwords *passwords, struct hashing *job)
{
    if (passwords->hash_waiting >= HASH_QUEUE_MAX)
        return false;
    passwords->hash_waiting++;
    fiber_uncancellable_begin();
    while (passwords->hashing >= HASHING_MAX)
        waitq_wait(&passwords->hash_turn, 0);
    passwords->hash_waiting--;
    passwords->hashing++;
    workers_run(passwords->workers, hash_run, job);
    passwords->hashing--;
    fiber_uncancellable_end();
    waitq_wake_one(&passwords->hash_turn);
    return true;
}

/* ---- what was right before ---- */

/* One password on its way. */
struct checking {
    struct passwords *passwords;
    const char *password;
    const char *hash;        /* its account's, or nobody's; NULL: a secret */
    const char *secret;
    bool is_nobodys;         /* never right */
    unsigned char digest[DIGEST_BYTES];
};

/* Keyed and bound to the stored hash: worthless outside of this process, and stale when the
 * password changes. */
static void digest_run(void *arg)
{
    struct checking *job = arg;
    size_t hash_bytes = strlen(job->hash), password_bytes = strlen(job->password);
    unsigned char *text = alloc0(hash_bytes + password_bytes + 1);

    memcpy(text, job->hash, hash_bytes + 1);
    memcpy(text + hash_bytes + 1, job->password, password_bytes);
    if (!HMAC(EVP_sha256(), job->passwords->key, DIGEST_BYTES, text, hash_bytes + 1 + password_bytes,
              job->digest, NULL))
        die("passwords: no HMAC");
    OPENSSL_cleanse(text, hash_bytes + password_bytes + 1);
    free(text);
}

static unsigned char *right_slot(const struct checking *checking)
{
    return checking->passwords->right[text_hash(checking->hash) % REMEMBERED];
}

/* What costs nothing: is it the secret, or the last password that was right for this hash? */
static bool is_right_at_a_glance(struct checking *checking)
{
    if (!checking->hash)
        return *checking->secret && secrets_equal(checking->secret, checking->password);
    fiber_on_loop_stack(digest_run, checking);
    return !checking->is_nobodys && CRYPTO_memcmp(right_slot(checking), checking->digest, DIGEST_BYTES) == 0;
}

/* ---- checking ---- */

static const char wrong[] = "wrong user name or password";

/* NULL, `wrong`, or why it was not looked at. */
static const char *check(struct checking *checking)
{
    struct hashing hashing = {.password = checking->password, .hash = checking->hash};

    if (is_right_at_a_glance(checking))
        return NULL;
    if (!checking->hash)
        return wrong;
    if (!hash_in_worker(checking->passwords, &hashing))
        return "too many logins at once";
    if (!hashing.is_right || checking->is_nobodys)
        return wrong;
    memcpy(right_slot(checking), checking->digest, DIGEST_BYTES);
    return NULL;
}

/* What is left to an address whose queue is full: the same returns. */
static const char *glance(struct checking *checking, struct guesser *guesser)
{
    uint64_t now = clock_now_ms(checking->passwords->clock);

    if (guesser->glanced < GLANCE_QUEUE) {
        if (is_right_at_a_glance(checking))
            return NULL;
        guesser->glance_ms = MAX(guesser->glance_ms, now) + 1000 / GLANCES_PER_S;
        guesser->glanced++; /* also keeps it in the table */
        fiber_sleep(guesser->glance_ms - now);
        guesser->glanced--;
    }
    return "too many failed logins from this address";
}

static const char *check_from(struct checking *checking, const char *address)
{
    struct passwords *passwords = checking->passwords;
    struct guesser *guesser = *guesser_slot(passwords, address);
    const char *why;

    if (strlen(checking->password) > PASSWORD_BYTES_MAX)
        return "the password is too long";
    if (guesser && delay_ms(guesser) == 0)
        guesser = NULL; /* not yet under suspicion */
    if (guesser && guesser->waiting >= ADDRESS_QUEUE) {
        why = glance(checking, guesser);
    } else {
        if (guesser)
            guesser->waiting++; /* also keeps it in the table */
        why = check(checking);
        if (why == wrong) {
            uint64_t wait_ms = guesser_failed(passwords, address);

            if (!guesser && wait_ms > 0) {
                guesser = guesser_of(passwords, address);
                guesser->waiting++;
            }
            if (wait_ms > 0)
                fiber_sleep(wait_ms);
        }
        if (guesser)
            guesser->waiting--;
    }
    if (!why)
        guesser_succeeded(passwords, address);
    return why;
}

const char *passwords_check(struct passwords *passwords, const char *address, const char *hash, const char *password)
{
    /* No account has this hash, but checking against it takes as long as against a real one. */
    static const char nobody[] =
        "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7";

    return check_from(&(struct checking){.passwords = passwords,
                                         .password = password,
                                         .hash = hash ? hash : nobody,
                                         .is_nobodys = !hash},
                      address);
}

const char *passwords_check_secret(struct passwords *passwords, const char *address, const char *right, const char *given)
{
    const char *why = check_from(
        &(struct checking){.passwords = passwords, .password = given, .secret = right ? right : ""}, address);

    return why == wrong ? "wrong pool secret" : why;
}

/* ---- new ones ---- */

const char *password_fault(const char *password)
{
    if (!*password)
        return "the password is empty";
    if (strlen(password) > PASSWORD_BYTES_MAX)
        return "the password is too long";
    return NULL;
}

char *passwords_hash(struct passwords *passwords, const char *password)
{
    struct hashing hashing = {.password = password};

    return hash_in_worker(passwords, &hashing) ? hashing.result : NULL;
}

char *password_hash(const char *password)
{
    struct hashing hashing = {.password = password};

    if (password_fault(password))
        return NULL;
    hash_run(&hashing);
    return hashing.result;
}

/* ---- life ---- */

struct passwords *passwords_new(struct clock *clock, struct random *random, struct workers *workers)
{
    struct passwords *passwords = new0(struct passwords);

    passwords->clock = clock;
    passwords->workers = workers;
    random_bytes(random, passwords->key, sizeof passwords->key);
    return passwords;
}

void passwords_destroy(struct passwords **passwords_p)
{
    struct passwords *passwords = TAKE(*passwords_p);

    if (!passwords)
        return;
    for (size_t i = 0; i < ARRAY_SIZE(passwords->guessers); i++) {
        while (passwords->guessers[i]) {
            struct guesser *guesser = TAKE(passwords->guessers[i]);

            passwords->guessers[i] = guesser->next;
            free(guesser);
        }
    }
    OPENSSL_cleanse(passwords->key, sizeof passwords->key);
    free(passwords);
}
