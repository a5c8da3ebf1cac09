/* wire.c - frames between master and slaves <-> bytes
 *
 * Two tables: the keys, each with its type and place in struct wire_frame, and the kinds of frames, each with the
 * keys that it must and may have. Encoder and decoder walk the tables; no kind of frame has code of its own. */
#include "shared/wire.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>

#include "shared/arena.h"
#include "shared/buffer.h"
#include "shared/pack.h"
#include "shared/random.h"


enum key_type {
    KEY_NUMBER, /* uint64_t or int64_t, not negative */
    KEY_ID,     /* ref_t; null is left out */
    KEY_TEXT,   /* const char *; NULL is left out */
    KEY_VALUE,  /* struct value, map or set; VOID is left out */
};

enum {
    K_LINK,
    K_SEQ,
    K_EPOCH,
    K_HOLDER,
    K_GENERATION,
    K_ID,
    K_NAME,
    K_DEADLINE,
    K_BODY,
    K_CODE,
    K_PARAMS,
    K_STATE,
    K_NUMBER,
    K_VM,
    K_VM_EPOCH,
    K_HOST,
    K_POOL,
    K_VERSION,
    K_ABOUT,
    K_GUESTS,
    K_OPERATIONS,
    K_KEY,
    K_NONCE,
    K_PROOF,
    K_ENDPOINT,
    K_TEXT,
    K_ADDRESS,
    K_ACCOUNTS,
    KEY_COUNT,
};

#define KEY(name_, type_, member) {name_, type_, offsetof(struct wire_frame, member)}
static const struct {
    const char *name;
    enum key_type type;
    size_t offset;
} keys[KEY_COUNT] = {
    [K_LINK] = KEY("link", KEY_NUMBER, link),
    [K_SEQ] = KEY("seq", KEY_NUMBER, seq),
    [K_EPOCH] = KEY("epoch", KEY_NUMBER, epoch),
    [K_HOLDER] = KEY("holder", KEY_ID, holder),
    [K_GENERATION] = KEY("generation", KEY_NUMBER, generation),
    [K_ID] = KEY("id", KEY_ID, id),
    [K_NAME] = KEY("name", KEY_TEXT, name),
    [K_DEADLINE] = KEY("deadline_ms", KEY_NUMBER, deadline_ms),
    [K_BODY] = KEY("body", KEY_VALUE, body),
    [K_CODE] = KEY("code", KEY_TEXT, code),
    [K_PARAMS] = KEY("params", KEY_VALUE, params),
    [K_STATE] = KEY("state", KEY_TEXT, state),
    [K_NUMBER] = KEY("number", KEY_NUMBER, number),
    [K_VM] = KEY("vm", KEY_ID, vm),
    [K_VM_EPOCH] = KEY("vm_epoch", KEY_NUMBER, vm_epoch),
    [K_HOST] = KEY("host", KEY_ID, host),
    [K_POOL] = KEY("pool", KEY_ID, pool),
    [K_VERSION] = KEY("version", KEY_NUMBER, version),
    [K_ABOUT] = KEY("about", KEY_VALUE, about),
    [K_GUESTS] = KEY("guests", KEY_VALUE, guests),
    [K_OPERATIONS] = KEY("operations", KEY_VALUE, operations),
    [K_KEY] = KEY("key", KEY_TEXT, key),
    [K_NONCE] = KEY("nonce", KEY_TEXT, nonce),
    [K_PROOF] = KEY("proof", KEY_TEXT, proof),
    [K_ENDPOINT] = KEY("endpoint", KEY_TEXT, endpoint),
    [K_TEXT] = KEY("text", KEY_TEXT, text),
    [K_ADDRESS] = KEY("address", KEY_TEXT, address),
    [K_ACCOUNTS] = KEY("accounts", KEY_VALUE, accounts),
};
#undef KEY

/* A body is always taken, but its kind is checked where it is used. */
#define B(key)      (1u << (key))
#define ON_LINK     (B(K_LINK) | B(K_SEQ))
#define BY_MASTER   (ON_LINK | B(K_EPOCH) | B(K_HOLDER))
#define OUTCOME     (B(K_BODY) | B(K_CODE) | B(K_PARAMS))
static const struct {
    const char *name;
    unsigned must, may;
} types[WIRE_TYPE_COUNT] = {
    [WIRE_HELLO] = {"hello",
                    B(K_LINK) | B(K_HOST) | B(K_VERSION) | B(K_EPOCH) | B(K_ABOUT) | B(K_GUESTS) | B(K_OPERATIONS),
                    B(K_HOLDER) | B(K_POOL) | B(K_GENERATION) | B(K_KEY)},
    [WIRE_WELCOME] = {"welcome", B(K_LINK) | B(K_EPOCH) | B(K_HOLDER), B(K_POOL) | B(K_HOST) | B(K_ADDRESS)},
    [WIRE_AGAIN] = {"again", B(K_EPOCH) | B(K_HOLDER) | B(K_LINK), B(K_TEXT)},
    [WIRE_REFUSE] = {"refuse", B(K_LINK) | B(K_EPOCH), B(K_HOLDER) | B(K_TEXT)},
    [WIRE_BEAT] = {"beat", ON_LINK, B(K_EPOCH) | B(K_HOLDER) | B(K_GENERATION)},
    [WIRE_CALL] = {"call", BY_MASTER | B(K_ID) | B(K_NAME) | B(K_DEADLINE) | B(K_BODY), 0},
    [WIRE_REPLY] = {"reply", ON_LINK | B(K_ID), OUTCOME},
    [WIRE_ASK] = {"ask", BY_MASTER | B(K_ID), 0},
    [WIRE_ANSWER] = {"answer", ON_LINK | B(K_ID) | B(K_STATE), OUTCOME},
    [WIRE_CONFIRM] = {"confirm", BY_MASTER | B(K_OPERATIONS), 0},
    [WIRE_NOTE] = {"note", ON_LINK | B(K_NUMBER) | B(K_NAME) | B(K_BODY), B(K_VM) | B(K_VM_EPOCH)},
    [WIRE_ACK] = {"ack", BY_MASTER | B(K_NUMBER), 0},
    [WIRE_DIRECTORY] = {"directory", BY_MASTER | B(K_BODY), B(K_ACCOUNTS)},
    [WIRE_JOIN] = {"join", B(K_HOST) | B(K_VERSION) | B(K_NONCE) | B(K_ABOUT), 0},
    [WIRE_CHALLENGE] = {"challenge", B(K_KEY) | B(K_NONCE), 0},
    [WIRE_PROOF] = {"proof", B(K_HOST) | B(K_PROOF), 0},
    [WIRE_JOINED] = {"joined", B(K_POOL) | B(K_KEY) | B(K_PROOF) | B(K_ENDPOINT), 0},
    [WIRE_DENIED] = {"denied", B(K_TEXT), 0},
};

const char *wire_type_name(enum wire_type type)
{
    return types[type].name;
}

/* ---- encoding ---- */

static bool is_given(const struct wire_frame *frame, int key)
{
    const void *at = (const char *) frame + keys[key].offset;

    switch (keys[key].type) {
    case KEY_NUMBER:
        return true;
    case KEY_ID:
        return !ref_is_null(*(const ref_t *) at);
    case KEY_TEXT:
        return *(const char *const *) at;
    case KEY_VALUE:
        return ((const struct value *) at)->kind != KIND_VOID;
    }
    return false;
}

void wire_encode(const struct wire_frame *frame, struct buffer *out)
{
    unsigned wanted = types[frame->type].must | types[frame->type].may;
    struct value items[2 * (KEY_COUNT + 1)], map = VALUE_MAP(0, items);

    items[0] = value_text("t");
    items[1] = value_text(types[frame->type].name);
    map.length = 1;
    for (int i = 0; i < KEY_COUNT; i++) {
        const void *at = (const char *) frame + keys[i].offset;
        struct value *item = &items[2 * map.length];

        if (!(wanted & B(i)))
            continue;
        if (!is_given(frame, i)) {
            assert(!(types[frame->type].must & B(i)));
            continue;
        }
        item[0] = value_text(keys[i].name);
        switch (keys[i].type) {
        case KEY_NUMBER:
            assert(*(const int64_t *) at >= 0);
            item[1] = VALUE_INT(*(const int64_t *) at);
            break;
        case KEY_ID:
            item[1] = VALUE_REF(*(const ref_t *) at);
            break;
        case KEY_TEXT:
            item[1] = value_text(*(const char *const *) at);
            break;
        case KEY_VALUE:
            item[1] = *(const struct value *) at;
            break;
        }
        map.length++;
    }
    pack_value(out, &map);
}

/* ---- decoding ---- */

static int read_key(struct wire_frame *frame, int key, const struct value *value)
{
    void *at = (char *) frame + keys[key].offset;

    switch (keys[key].type) {
    case KEY_NUMBER:
        if (value->kind != KIND_INT || value->i < 0)
            return -EBADMSG;
        *(int64_t *) at = value->i;
        return 0;
    case KEY_ID:
        if (value->kind != KIND_REF || ref_is_null(value->ref))
            return -EBADMSG;
        *(ref_t *) at = value->ref;
        return 0;
    case KEY_TEXT:
        if (value->kind != KIND_STRING)
            return -EBADMSG;
        *(const char **) at = value->text;
        return 0;
    case KEY_VALUE:
        if (value->kind != KIND_MAP && value->kind != KIND_SET)
            return -EBADMSG;
        *(struct value *) at = *value;
        return 0;
    }
    return -EBADMSG;
}

static int find_type(const struct value *map)
{
    const struct value *type = value_map_find(map, "t");

    if (!type || type->kind != KIND_STRING)
        return -1;
    for (int i = 0; i < WIRE_TYPE_COUNT; i++)
        if (streq(types[i].name, type->text))
            return i;
    return -1;
}

int wire_decode(const void *bytes, size_t count, struct arena *arena, struct wire_frame *ret)
{
    struct wire_frame frame = {0};
    unsigned seen = 0, known;
    struct value map;
    int type;

    if (count > LINK_FRAME_BYTES_MAX || unpack_value(bytes, count, NULL, arena, &map) < 0 ||
        map.kind != KIND_MAP)
        return -EBADMSG;
    type = find_type(&map);
    if (type < 0)
        return -EBADMSG;
    frame.type = (enum wire_type) type;
    known = types[type].must | types[type].may;
    for (uint32_t i = 0; i < map.length; i++) {
        for (int key = 0; key < KEY_COUNT; key++) {
            if (map.items[2 * i].kind != KIND_STRING)
                return -EBADMSG;
            if (!(known & B(key)) || !streq(keys[key].name, map.items[2 * i].text))
                continue;
            if (seen & B(key) || read_key(&frame, key, &map.items[2 * i + 1]) < 0)
                return -EBADMSG;
            seen |= B(key);
        }
    }
    if ((seen & types[type].must) != types[type].must)
        return -EBADMSG;
    if ((frame.params.kind != KIND_VOID && frame.params.kind != KIND_SET) ||
        (frame.guests.kind != KIND_VOID && frame.guests.kind != KIND_SET) ||
        (frame.operations.kind != KIND_VOID && frame.operations.kind != KIND_SET) ||
        (frame.about.kind != KIND_VOID && frame.about.kind != KIND_MAP))
        return -EBADMSG;
    *ret = frame;
    return 0;
}

/* ---- enrolment ---- */

static void hex(char *out, const unsigned char *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

void wire_nonce(struct random *random, char ret_nonce[WIRE_NONCE_BYTES])
{
    unsigned char bytes[(WIRE_NONCE_BYTES - 1) / 2];

    random_bytes(random, bytes, sizeof bytes);
    hex(ret_nonce, bytes, sizeof bytes);
}

/* Each part with its length before it, so that no two lists of parts give the same text. */
void wire_proof(const char *secret, const char *by, const char *slave_key, const char *master_key,
                const char *slave_nonce, const char *master_nonce, char ret_proof[WIRE_PROOF_BYTES])
{
    const char *parts[] = {"drover join", by, slave_key, master_key, slave_nonce, master_nonce};
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned digest_bytes = 0;
    struct buffer text;

    buffer_init(&text, 64 * 1024);
    for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
        buffer_add_int(&text, (int64_t) strlen(parts[i]));
        buffer_add_char(&text, ':');
        buffer_add_text(&text, parts[i]);
    }
    if (!HMAC(EVP_sha256(), secret, (int) strlen(secret), (const unsigned char *) text.bytes, text.length,
              digest, &digest_bytes) ||
        digest_bytes != (WIRE_PROOF_BYTES - 1) / 2)
        die("wire: no HMAC-SHA256");
    buffer_done(&text);
    hex(ret_proof, digest, digest_bytes);
}

bool wire_same_secret(const char *a, const char *b)
{
    size_t length = strlen(a);

    return strlen(b) == length && CRYPTO_memcmp(a, b, length) == 0;
}
