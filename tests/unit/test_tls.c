/* test_tls.c - the certificate that a host makes for itself */
#include "shared/tls.h"

#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char directory[] = P_tmpdir "/test_tls.XXXXXX";
static char certificate_path[128], key_path[128];

static const char *const names[] = {"host1.example.org", "localhost", "127.0.0.1", "fd00::1"};

static int setup(void **state)
{
    (void) state;
    if (!mkdtemp(directory))
        return -1;
    snprintf(certificate_path, sizeof certificate_path, "%s/certificate.pem", directory);
    snprintf(key_path, sizeof key_path, "%s/key.pem", directory);
    return 0;
}

static int teardown(void **state)
{
    (void) state;
    unlink(certificate_path);
    unlink(key_path);
    return rmdir(directory);
}

static X509 *certificate_read(void)
{
    FILE *file = fopen(certificate_path, "r");
    X509 *certificate;

    assert_non_null(file);
    certificate = PEM_read_X509(file, NULL, NULL, NULL);
    fclose(file);
    assert_non_null(certificate);
    return certificate;
}

static void a_missing_certificate_is_made_once(void **state)
{
    char first[65], again[65], renewed[65];
    struct stat status;

    (void) state;
    assert_int_equal(tls_ensure(certificate_path, key_path, names, ARRAY_SIZE(names)), 0);
    assert_int_equal(stat(key_path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    assert_int_equal(tls_fingerprint(certificate_path, first), 0);
    assert_int_equal(strlen(first), 64);

    assert_int_equal(tls_ensure(certificate_path, key_path, names, ARRAY_SIZE(names)), 0);
    assert_int_equal(tls_fingerprint(certificate_path, again), 0);
    assert_string_equal(first, again);

    unlink(certificate_path); /* a crash between the two files */
    assert_int_equal(tls_ensure(certificate_path, key_path, names, ARRAY_SIZE(names)), 0);
    assert_int_equal(tls_fingerprint(certificate_path, renewed), 0);
    assert_string_not_equal(first, renewed);
}

static void names_and_addresses_are_certified(void **state)
{
    X509 *certificate = certificate_read();

    (void) state;
    assert_int_equal(X509_check_host(certificate, "host1.example.org", 0, 0, NULL), 1);
    assert_int_equal(X509_check_host(certificate, "localhost", 0, 0, NULL), 1);
    assert_int_equal(X509_check_ip_asc(certificate, "127.0.0.1", 0), 1);
    assert_int_equal(X509_check_ip_asc(certificate, "fd00::1", 0), 1);
    assert_int_equal(X509_check_host(certificate, "host2.example.org", 0, 0, NULL), 0);
    assert_int_equal(X509_check_ip_asc(certificate, "127.0.0.2", 0), 0);
    assert_int_equal(X509_check_ca(certificate), 0);
    assert_true(X509_cmp_current_time(X509_get0_notBefore(certificate)) < 0);
    assert_true(X509_cmp_current_time(X509_get0_notAfter(certificate)) > 0);
    X509_free(certificate);
}

/* As a client does that was given the certificate to trust, with the strict checks of newer ones.
 */
static void it_verifies_where_it_is_trusted(void **state)
{
    X509 *certificate = certificate_read();
    X509_STORE *store = X509_STORE_new();
    X509_STORE_CTX *context = X509_STORE_CTX_new();

    (void) state;
    X509_STORE_add_cert(store, certificate);
    X509_STORE_CTX_init(context, store, certificate, NULL);
    X509_STORE_CTX_set_flags(context, X509_V_FLAG_X509_STRICT);
    X509_STORE_CTX_set_purpose(context, X509_PURPOSE_SSL_SERVER);
    assert_int_equal(X509_verify_cert(context), 1);
    X509_STORE_CTX_free(context);
    X509_STORE_free(store);
    X509_free(certificate);
}

static void a_context_needs_files_that_match(void **state)
{
    char other_certificate[160], other_key[160];
    SSL_CTX *context = NULL;

    (void) state;
    snprintf(other_certificate, sizeof other_certificate, "%s.2", certificate_path);
    snprintf(other_key, sizeof other_key, "%s.2", key_path);
    assert_int_equal(tls_make(other_certificate, other_key, names, 1), 0);
    assert_int_equal(tls_server_context(certificate_path, key_path, &context), 0);
    assert_int_equal(SSL_CTX_get_min_proto_version(context), TLS1_2_VERSION);
    tls_context_unref(&context);
    assert_null(context);

    assert_true(tls_server_context(certificate_path, other_key, &context) < 0);
    assert_non_null(strstr(tls_error(), other_key));
    assert_true(tls_server_context(key_path, key_path, &context) < 0);
    unlink(other_key);
    assert_true(tls_server_context(other_certificate, other_key, &context) < 0);
    assert_null(context);
    assert_true(tls_fingerprint(other_key, (char[65]){0}) < 0);
    unlink(other_certificate);
}

static void what_cannot_be_written_is_an_error(void **state)
{
    (void) state;
    assert_true(tls_make("nowhere/certificate.pem", "nowhere/key.pem", names, 1) < 0);
    assert_non_null(strstr(tls_error(), "nowhere"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_missing_certificate_is_made_once),
        cmocka_unit_test(names_and_addresses_are_certified),
        cmocka_unit_test(it_verifies_where_it_is_trusted),
        cmocka_unit_test(a_context_needs_files_that_match),
        cmocka_unit_test(what_cannot_be_written_is_an_error),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
