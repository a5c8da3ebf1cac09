/* tls.h - a host's certificate and the TLS contexts made of it
 *
 * Errors are 0 or a negative errno; tls_error() then says more, per thread. */
#pragma once

#include "shared/base.h"

#include <openssl/ssl.h>

/* Make a key and a self-signed certificate unless both files are there already.
 *
 *   names   at least one host name or numeric address, which become the certificate's alternative
 *           names; the first is its subject, too
 *
 * The key file gets mode 0600. Each file appears whole or not at all; the key first, so that a
 * crash between the two leaves a key without certificate, and both are made anew. */
int tls_ensure(const char *certificate_path, const char *key_path, const char *const *names,
               size_t count);

/* The same, replacing what is there. */
int tls_make(const char *certificate_path, const char *key_path, const char *const *names,
             size_t count);

/* A server's context: TLS 1.2 and later, HTTP/1.1 by ALPN. Loading it again and giving it to
 * http_server_replace_tls() is how certificates are renewed. */
int tls_server_context(const char *certificate_path, const char *key_path, SSL_CTX **ret_context);

/* For _cleanup_: drops a reference and sets the pointer to NULL. */
void tls_context_unref(SSL_CTX **context);

/* SHA-256 of the certificate in the file, 64 lower-case hexadecimal digits: what peers pin. */
int tls_fingerprint(const char *certificate_path, char ret_digits[65]);

/* Why the last call on this thread failed; never NULL. */
const char *tls_error(void);
