/* link_keys.c - CURVE keys as Z85 text */
#include "shared/link.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <zmq.h>

void link_keys_new(char ret_public[LINK_KEY_BYTES], char ret_secret[LINK_KEY_BYTES])
{
    if (zmq_curve_keypair(ret_public, ret_secret) < 0)
        die("link: libzmq was built without CURVE");
}

/* The secret is long and random (a pool's), so one hash is enough between it and a key. */
void link_keys_from_secret(const char *secret, char ret_public[LINK_KEY_BYTES], char ret_secret[LINK_KEY_BYTES])
{
    static const char label[] = "drover join key:";
    unsigned char digest[EVP_MAX_MD_SIZE];
    size_t length = strlen(secret);
    char *text = alloc0(sizeof label + length);

    memcpy(text, label, sizeof label - 1);
    memcpy(text + sizeof label - 1, secret, length);
    if (!EVP_Digest(text, sizeof label - 1 + length, digest, NULL, EVP_sha256(), NULL) ||
        !zmq_z85_encode(ret_secret, digest, 32) || zmq_curve_public(ret_public, ret_secret) < 0)
        die("link: no key from the secret");
    OPENSSL_cleanse(text, sizeof label + length);
    OPENSSL_cleanse(digest, sizeof digest);
    free(text);
}

bool link_key_is_valid(const char *key)
{
    uint8_t bytes[32];

    return strlen(key) == LINK_KEY_BYTES - 1 && zmq_z85_decode(bytes, key);
}

bool link_public_key(const char *secret_key, char ret_public[LINK_KEY_BYTES])
{
    return link_key_is_valid(secret_key) && zmq_curve_public(ret_public, secret_key) == 0;
}
