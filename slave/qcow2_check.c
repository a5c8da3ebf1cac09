/* qcow2_check.c - header, L1 table, each L2 table, and the end of each cluster that they lead to */
#include "slave/qcow2_check.h"

#include <errno.h>
#include <unistd.h>

#include "slave/big_endian.h"
#include "slave/qcow2.h"

#define L1_BYTES_MAX    (32 << 20) /* QEMU takes no larger one */
#define L1_PIECE        8192       /* bytes of it read at once */
#define CLUSTER_AT      0x00fffffffffffe00ULL /* of an entry: where its cluster begins */
#define IS_COMPRESSED   (1ULL << 62)
#define IS_ZERO         1ULL
#define SECTOR          512

struct image {
    int fd;
    int64_t file_bytes, cluster, size; /* size: of the disk */
    int64_t l1_at, l1_entries, entry_bytes; /* of an entry of an L2 table */
    unsigned cluster_bits;
    unsigned char *table; /* one L2 table */
};

static int read_at(int fd, void *to, size_t bytes, int64_t at)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t n = pread(fd, (char *) to + done, bytes - done, (off_t) at + (off_t) done);

        if (n == 0)
            return -EBADMSG;
        if (n < 0 && errno != EINTR)
            return -errno;
        done += n > 0 ? (size_t) n : 0;
    }
    return 0;
}

/* Within the file, behind its header. `at` and `bytes` are below 2^56 and 2^32. */
static bool is_in_file(const struct image *image, int64_t at, int64_t bytes)
{
    return at >= image->cluster && at + bytes <= image->file_bytes;
}

/* 0: this is a qcow2 file, and *ret says where its tables are. 1: it is not, or its reader refuses it. */
static int read_header(struct image *image)
{
    unsigned char header[QCOW2_HEADER_BYTES] = {0};
    uint64_t features = 0, size;
    uint32_t version;
    int r;

    if (image->file_bytes < QCOW2_HEADER_BYTES_2)
        return 1;
    r = read_at(image->fd, header, (size_t) MIN(image->file_bytes, (int64_t) sizeof header), 0);
    if (r < 0)
        return r;
    version = get_be32(header + QCOW2_VERSION);
    image->cluster_bits = get_be32(header + QCOW2_CLUSTER_BITS);
    size = get_be64(header + QCOW2_SIZE);
    if (get_be32(header) != QCOW2_MAGIC || version < 2 || version > 3 || image->cluster_bits < 9 || image->cluster_bits > 21
        || size > INT64_MAX)
        return 1;
    if (version == 3)
        features = get_be64(header + QCOW2_INCOMPATIBLE);
    if (features & QCOW2_DATA_FILE)
        return 1;
    image->cluster = 1LL << image->cluster_bits;
    image->size = (int64_t) size;
    image->entry_bytes = features & QCOW2_EXTENDED_L2 ? 16 : 8;
    image->l1_entries = get_be32(header + QCOW2_L1_ENTRIES);
    image->l1_at = 0;
    if (image->l1_entries > 0) {
        uint64_t at = get_be64(header + QCOW2_L1_AT);

        if (image->l1_entries > L1_BYTES_MAX / 8 || at & ~CLUSTER_AT || at % (uint64_t) image->cluster != 0
            || !is_in_file(image, (int64_t) at, image->l1_entries * 8))
            return -EBADMSG;
        image->l1_at = (int64_t) at;
    }
    return 0;
}

static bool compressed_is_there(const struct image *image, uint64_t entry)
{
    unsigned bits = 62 - (image->cluster_bits - 8);
    int64_t at = (int64_t) (entry & ((1ULL << bits) - 1)), sectors = (int64_t) ((entry & (IS_COMPRESSED - 1)) >> bits) + 1;

    /* The last sector of the file need not be whole. */
    return at >= image->cluster && at < image->file_bytes
           && at / SECTOR + sectors <= image->file_bytes / SECTOR + (image->file_bytes % SECTOR != 0);
}

/* Does the file have the cluster that the entry leads to, as far as the disk reaches? guest_at: where in the disk. */
static bool cluster_is_there(const struct image *image, const unsigned char *entry, int64_t guest_at)
{
    uint64_t word = get_be64(entry);
    int64_t at = (int64_t) (word & CLUSTER_AT), bytes = MIN(image->cluster, image->size - guest_at);

    if (word & IS_COMPRESSED)
        return compressed_is_there(image, word);
    if (image->entry_bytes == 16 ? (uint32_t) get_be64(entry + 8) == 0 : at == 0 || word & IS_ZERO)
        return true; /* nothing is read from there */
    return at % image->cluster == 0 && is_in_file(image, at, bytes);
}

static int check_l2(const struct image *image, uint64_t l1_entry, int64_t guest_at)
{
    int64_t at = (int64_t) (l1_entry & CLUSTER_AT), entries = image->cluster / image->entry_bytes;
    int r;

    if (at == 0)
        return 0;
    if (at % image->cluster != 0 || !is_in_file(image, at, image->cluster)
        || (at < image->l1_at + image->l1_entries * 8 && image->l1_at < at + image->cluster)) /* not two tables in one place */
        return -EBADMSG;
    r = read_at(image->fd, image->table, (size_t) image->cluster, at);
    for (int64_t i = 0; r == 0 && i < entries && guest_at < image->size; i++, guest_at += image->cluster)
        if (!cluster_is_there(image, image->table + i * image->entry_bytes, guest_at))
            r = -EBADMSG;
    return r;
}

static int check_tables(const struct image *image)
{
    int64_t covered = image->cluster / image->entry_bytes * image->cluster; /* of the disk, by an L2 table */
    int64_t needed = image->size / covered + (image->size % covered != 0);
    unsigned char piece[L1_PIECE];
    int r = 0;

    if (image->l1_entries < needed)
        return -EBADMSG;
    for (int64_t i = 0; r == 0 && i < needed; i++) {
        int64_t within = i % (L1_PIECE / 8);

        if (within == 0)
            r = read_at(image->fd, piece, (size_t) MIN((needed - i) * 8, (int64_t) L1_PIECE), image->l1_at + i * 8);
        if (r == 0)
            r = check_l2(image, get_be64(piece + within * 8), i * covered);
    }
    return r;
}

int qcow2_check(int fd, int64_t file_bytes, int64_t disk_bytes)
{
    struct image image = {.fd = fd, .file_bytes = file_bytes};
    int r = read_header(&image);

    if (r != 0)
        return MIN(r, 0);
    if (image.size - disk_bytes >= SECTOR) /* it has whole sectors */
        return -EFBIG;
    image.table = alloc0((size_t) image.cluster);
    r = check_tables(&image);
    free(image.table);
    return r;
}
