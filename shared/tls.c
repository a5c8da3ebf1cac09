/* tls.c - a host's certificate and the TLS contexts made of it
 *
 * A pool has no authority of its own at first, so each host signs for itself and peers pin what
 * they saw when they were introduced. The certificate is no authority either: trusting it means
 * trusting this host, not whatever it might sign. */
#include "shared/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* Ten years; a day back for clients whose clock is behind. */
#define VALID_S      (10L * 365 * 24 * 3600)
#define VALID_BACK_S (24L * 3600)

/* X.509's limit for a common name. */
#define COMMON_NAME_BYTES_MAX 64

static _Thread_local char last_error[256] = "no error";

const char *tls_error(void)
{
    return last_error;
}

/* Note why; OpenSSL's own reason is added where it has one. */
static int tls_fail(int code, const char *what, const char *which)
{
    unsigned long error = ERR_get_error();
    char reason[160] = "";

    if (error)
        ERR_error_string_n(error, reason, sizeof reason);
    snprintf(last_error, sizeof last_error, "%s %s: %s", what, which,
             error ? reason : strerror(-code));
    ERR_clear_error();
    return code;
}

/* --- making a certificate -------------------------------------------------------------------- */

static void key_free(EVP_PKEY **key)
{
    EVP_PKEY_free(*key);
}

static void certificate_free(X509 **certificate)
{
    X509_free(*certificate);
}

static bool extension_add(X509 *certificate, int nid, const char *value)
{
    X509_EXTENSION *extension;
    X509V3_CTX context;
    bool is_added;

    X509V3_set_ctx(&context, certificate, certificate, NULL, NULL, 0);
    extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    is_added = extension && X509_add_ext(certificate, extension, -1);
    X509_EXTENSION_free(extension);
    return is_added;
}

static GENERAL_NAME *alternative_name(const char *name)
{
    GENERAL_NAME *general = GENERAL_NAME_new();
    ASN1_OCTET_STRING *address = a2i_IPADDRESS(name);
    ASN1_IA5STRING *text;

    if (!general)
        return NULL;
    if (address) {
        GENERAL_NAME_set0_value(general, GEN_IPADD, address);
        return general;
    }
    ERR_clear_error();
    text = ASN1_IA5STRING_new();
    if (!text || !ASN1_STRING_set(text, name, -1)) {
        ASN1_IA5STRING_free(text);
        GENERAL_NAME_free(general);
        return NULL;
    }
    GENERAL_NAME_set0_value(general, GEN_DNS, text);
    return general;
}

/* Built as a structure, not as text: a name may hold whatever it likes. */
static bool alternative_names_add(X509 *certificate, const char *const *names, size_t count)
{
    GENERAL_NAMES *all = GENERAL_NAMES_new();
    bool is_added = all != NULL;

    for (size_t i = 0; i < count && is_added; i++) {
        GENERAL_NAME *name = alternative_name(names[i]);

        is_added = name && sk_GENERAL_NAME_push(all, name) > 0;
        if (!is_added)
            GENERAL_NAME_free(name);
    }
    is_added = is_added && X509_add1_ext_i2d(certificate, NID_subject_alt_name, all, 0, 0) == 1;
    GENERAL_NAMES_free(all);
    return is_added;
}

static bool serial_set(X509 *certificate)
{
    unsigned char bytes[16];
    BIGNUM *number;
    bool is_set;

    if (RAND_bytes(bytes, sizeof bytes) != 1)
        return false;
    bytes[0] = (bytes[0] & 0x7f) | 0x40; /* positive, and of full length */
    number = BN_bin2bn(bytes, sizeof bytes, NULL);
    is_set = number && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate));
    BN_free(number);
    return is_set;
}

static bool subject_set(X509 *certificate, const char *name)
{
    X509_NAME *subject = X509_get_subject_name(certificate);
    char common_name[COMMON_NAME_BYTES_MAX + 1];

    snprintf(common_name, sizeof common_name, "%s", name);
    return X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, (unsigned char *) common_name,
                                      -1, -1, 0)
           && X509_set_issuer_name(certificate, subject);
}

static X509 *certificate_make(EVP_PKEY *key, const char *const *names, size_t count)
{
    _cleanup_(certificate_free) X509 *certificate = X509_new();

    if (!certificate || !X509_set_version(certificate, X509_VERSION_3) || !serial_set(certificate)
        || !X509_gmtime_adj(X509_getm_notBefore(certificate), -VALID_BACK_S)
        || !X509_gmtime_adj(X509_getm_notAfter(certificate), VALID_S)
        || !X509_set_pubkey(certificate, key) || !subject_set(certificate, names[0])
        || !extension_add(certificate, NID_basic_constraints, "critical,CA:FALSE")
        || !extension_add(certificate, NID_key_usage, "critical,digitalSignature")
        || !extension_add(certificate, NID_ext_key_usage, "serverAuth,clientAuth")
        || !extension_add(certificate, NID_subject_key_identifier, "hash")
        || !alternative_names_add(certificate, names, count)
        || !X509_sign(certificate, key, EVP_sha256()))
        return NULL;
    return TAKE(certificate);
}

/* --- files ----------------------------------------------------------------------------------- */

static int directory_sync(const char *path)
{
    _cleanup_(free_p) char *directory = dup_text(path);
    _cleanup_(close_fd) int fd = -1;
    char *slash = strrchr(directory, '/');

    if (slash)
        slash[slash == directory] = '\0';
    fd = open(slash ? directory : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

/* Write a file so that it is there whole, or not at all. */
static int file_write(const char *path, const char *data, size_t bytes, mode_t mode)
{
    _cleanup_(free_p) char *beside = alloc0(strlen(path) + 5);
    _cleanup_(close_fd) int fd = -1;
    ssize_t written;

    sprintf(beside, "%s.new", path);
    unlink(beside); /* of a crash; its mode may be another's */
    fd = open(beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0)
        return -errno;
    written = write(fd, data, bytes);
    if (written != (ssize_t) bytes)
        return written < 0 ? -errno : -ENOSPC;
    if (fsync(fd) < 0 || rename(beside, path) < 0)
        return -errno;
    return directory_sync(path);
}

/* What a PEM writer left in memory, into a file; wiped afterwards, for it may be a key. */
static int pem_write(BIO *pem, const char *path, mode_t mode)
{
    char *data;
    long bytes = BIO_get_mem_data(pem, &data);
    int r = file_write(path, data, (size_t) bytes, mode);

    OPENSSL_cleanse(data, (size_t) bytes);
    return r < 0 ? tls_fail(r, "write", path) : 0;
}

int tls_make(const char *certificate_path, const char *key_path, const char *const *names,
             size_t count)
{
    _cleanup_(key_free) EVP_PKEY *key = NULL;
    _cleanup_(certificate_free) X509 *certificate = NULL;
    BIO *key_pem, *certificate_pem;
    int r = 0;

    assert(count > 0);
    key = EVP_EC_gen("P-256");
    certificate = key ? certificate_make(key, names, count) : NULL;
    if (!certificate)
        return tls_fail(-EINVAL, "make a certificate for", names[0]);

    key_pem = BIO_new(BIO_s_mem());
    certificate_pem = BIO_new(BIO_s_mem());
    if (!key_pem || !certificate_pem
        || !PEM_write_bio_PrivateKey(key_pem, key, NULL, NULL, 0, NULL, NULL)
        || !PEM_write_bio_X509(certificate_pem, certificate))
        r = tls_fail(-ENOMEM, "encode", certificate_path);
    /* An old certificate must not be found beside a new key. */
    if (r == 0 && unlink(certificate_path) < 0 && errno != ENOENT)
        r = tls_fail(-errno, "remove", certificate_path);
    if (r == 0)
        r = pem_write(key_pem, key_path, 0600);
    if (r == 0)
        r = pem_write(certificate_pem, certificate_path, 0644);
    BIO_free(key_pem);
    BIO_free(certificate_pem);
    return r;
}

int tls_ensure(const char *certificate_path, const char *key_path, const char *const *names,
               size_t count)
{
    if (access(certificate_path, F_OK) == 0 && access(key_path, F_OK) == 0)
        return 0;
    return tls_make(certificate_path, key_path, names, count);
}

/* --- contexts -------------------------------------------------------------------------------- */

static int choose_protocol(SSL *ssl, const unsigned char **ret_chosen, unsigned char *ret_bytes,
                           const unsigned char *offered, unsigned bytes, void *arg)
{
    static const unsigned char ours[] = "\x08http/1.1";
    unsigned char *chosen;

    (void) ssl;
    (void) arg;
    if (SSL_select_next_proto(&chosen, ret_bytes, ours, sizeof ours - 1, offered, bytes)
        != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_NOACK;
    *ret_chosen = chosen;
    return SSL_TLSEXT_ERR_OK;
}

int tls_server_context(const char *certificate_path, const char *key_path, SSL_CTX **ret_context)
{
    _cleanup_(tls_context_unref) SSL_CTX *context = SSL_CTX_new(TLS_server_method());

    if (!context)
        return tls_fail(-ENOMEM, "make", "TLS context");
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
    /* Renegotiation is work that a client can ask for again and again. */
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION
                                     | SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_id_context(context, (const unsigned char *) "drover", 6);
    SSL_CTX_set_alpn_select_cb(context, choose_protocol, NULL);

    if (SSL_CTX_use_certificate_chain_file(context, certificate_path) != 1)
        return tls_fail(-EINVAL, "load", certificate_path);
    if (SSL_CTX_use_PrivateKey_file(context, key_path, SSL_FILETYPE_PEM) != 1)
        return tls_fail(-EINVAL, "load", key_path);
    if (SSL_CTX_check_private_key(context) != 1)
        return tls_fail(-EINVAL, "match", key_path);
    *ret_context = TAKE(context);
    return 0;
}

void tls_context_unref(SSL_CTX **context)
{
    SSL_CTX_free(TAKE(*context));
}

int tls_fingerprint(const char *certificate_path, char ret_digits[65])
{
    _cleanup_(certificate_free) X509 *certificate = NULL;
    unsigned char digest[32];
    FILE *file = fopen(certificate_path, "re");

    if (!file)
        return tls_fail(-errno, "open", certificate_path);
    certificate = PEM_read_X509(file, NULL, NULL, NULL);
    fclose(file);
    if (!certificate || X509_digest(certificate, EVP_sha256(), digest, NULL) != 1)
        return tls_fail(-EINVAL, "read", certificate_path);
    for (size_t i = 0; i < sizeof digest; i++)
        sprintf(ret_digits + 2 * i, "%02x", digest[i]);
    return 0;
}
