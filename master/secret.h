/* secret.h - SECRET-marked texts as Redis may see them: sealed with a key that it never gets
 *
 * AES-256-GCM; a sealed text is "sealed:1:" and base64 of nonce, ciphertext and tag. The object and
 * field that a text belongs to are authenticated with it, so that a sealed text cannot be moved to
 * another place. */
#pragma once

#include "shared/base.h"
#include "shared/ref.h"

struct arena;

#define SECRET_KEY_BYTES 32

/* NULL only when the library fails. */
const char *secret_seal(const uint8_t key[SECRET_KEY_BYTES], ref_t object, const char *field,
                        const char *text, struct arena *);
/* The text; NULL when it was not sealed with this key for this place. Unsealed text comes back as
 * it is. */
const char *secret_open(const uint8_t key[SECRET_KEY_BYTES], ref_t object, const char *field,
                        const char *sealed, struct arena *);
