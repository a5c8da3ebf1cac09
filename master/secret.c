/* secret.c - SECRET-marked texts as Redis may see them */
#include "master/secret.h"

#include "shared/arena.h"

#include <openssl/evp.h>
#include <openssl/rand.h>

#define MARK        "sealed:1:"
#define NONCE_BYTES 12
#define TAG_BYTES   16

static int start(EVP_CIPHER_CTX *context, const uint8_t *key, const uint8_t *nonce, ref_t object,
                 const char *field, bool seals)
{
    uint8_t place[16];
    int ignored;

    for (int i = 0; i < 8; i++) {
        place[i] = (uint8_t) (object.hi >> (56 - 8 * i));
        place[8 + i] = (uint8_t) (object.lo >> (56 - 8 * i));
    }
    return EVP_CipherInit_ex(context, EVP_aes_256_gcm(), NULL, key, nonce, seals) == 1
                   && EVP_CipherUpdate(context, NULL, &ignored, place, sizeof place) == 1
                   && EVP_CipherUpdate(context, NULL, &ignored, (const uint8_t *) field,
                                       (int) strlen(field))
                          == 1
               ? 0
               : -1;
}

static void context_free(EVP_CIPHER_CTX **context)
{
    EVP_CIPHER_CTX_free(*context);
}

const char *secret_seal(const uint8_t key[SECRET_KEY_BYTES], ref_t object, const char *field,
                        const char *text, struct arena *arena)
{
    _cleanup_(context_free) EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    size_t length = strlen(text), sealed_length = NONCE_BYTES + length + TAG_BYTES;
    uint8_t *sealed = arena_alloc(arena, sealed_length);
    char *out = arena_alloc(arena, sizeof MARK + 4 * (sealed_length / 3 + 1));
    int n;

    if (!context || RAND_bytes(sealed, NONCE_BYTES) != 1
        || start(context, key, sealed, object, field, true) < 0
        || EVP_CipherUpdate(context, sealed + NONCE_BYTES, &n, (const uint8_t *) text, (int) length)
               != 1
        || EVP_CipherFinal_ex(context, sealed + NONCE_BYTES + n, &n) != 1
        || EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_GET_TAG, TAG_BYTES,
                               sealed + NONCE_BYTES + length)
               != 1)
        return NULL;
    strcpy(out, MARK);
    EVP_EncodeBlock((uint8_t *) out + sizeof MARK - 1, sealed, (int) sealed_length);
    return out;
}

const char *secret_open(const uint8_t key[SECRET_KEY_BYTES], ref_t object, const char *field,
                        const char *sealed, struct arena *arena)
{
    _cleanup_(context_free) EVP_CIPHER_CTX *context = NULL;
    size_t base64_length;
    uint8_t *bytes, *text;
    int length, n;

    if (strncmp(sealed, MARK, sizeof MARK - 1) != 0)
        return sealed;
    sealed += sizeof MARK - 1;
    base64_length = strlen(sealed);
    bytes = arena_alloc(arena, base64_length + 4);
    length = EVP_DecodeBlock(bytes, (const uint8_t *) sealed, (int) base64_length);
    for (size_t i = base64_length; i > 0 && length > 0 && sealed[i - 1] == '='; i--)
        length--;
    length -= NONCE_BYTES + TAG_BYTES;
    if (length < 0)
        return NULL;
    text = arena_alloc(arena, (size_t) length + 1);
    context = EVP_CIPHER_CTX_new();
    if (!context || start(context, key, bytes, object, field, false) < 0
        || EVP_CipherUpdate(context, text, &n, bytes + NONCE_BYTES, length) != 1
        || EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_SET_TAG, TAG_BYTES,
                               bytes + NONCE_BYTES + length)
               != 1
        || EVP_CipherFinal_ex(context, text + n, &n) != 1)
        return NULL;
    return (const char *) text;
}
