/* qcow2_write.c - a disk as a qcow2 file: first where everything lies, then the bytes */
#include "slave/qcow2_write.h"

#include <errno.h>
#include <stdio.h>

#include "slave/big_endian.h"
#include "slave/block_map.h"
#include "slave/qcow2.h"

#define CLUSTER_BITS   16
#define CLUSTER        (1LL << CLUSTER_BITS)
#define TABLE_ENTRIES  (CLUSTER / 8) /* of a cluster of an L1, L2 or refcount table */
#define COUNT_ENTRIES  (CLUSTER / 2) /* of a refcount block: 16 bits each */
#define COPIED         (1ULL << 63)  /* of an entry: its cluster has one user */
#define SECTOR         512

struct qcow2_plan {
    struct disk_io *disk;       /* the caller's */
    struct block_map blocks;    /* the clusters that the file has */
    unsigned char *has_table;   /* for each L1 entry */
    ref_t base;                 /* NULL_REF: none */

    /* Clusters of the file, in its order behind the header. */
    int64_t count_table, count_blocks, l1, l2, data;
};

/* ---- where everything lies ---- */

static int64_t divide_up(int64_t n, int64_t by)
{
    return n / by + (n % by != 0);
}

static int64_t l1_entries(const struct qcow2_plan *plan)
{
    return divide_up(plan->blocks.blocks, TABLE_ENTRIES);
}

static int64_t all_clusters(const struct qcow2_plan *plan)
{
    return 1 + plan->count_table + plan->count_blocks + plan->l1 + plan->l2 + plan->data;
}

static void lay_out(struct qcow2_plan *plan)
{
    int64_t before;

    plan->has_table = alloc0((size_t) l1_entries(plan) + 1);
    for (int64_t block = 0; block < plan->blocks.blocks; block++)
        if (block_map_has(&plan->blocks, block))
            plan->has_table[block / TABLE_ENTRIES] = 1;
    for (int64_t i = 0; i < l1_entries(plan); i++)
        plan->l2 += plan->has_table[i];
    plan->l1 = divide_up(l1_entries(plan), TABLE_ENTRIES);
    plan->data = plan->blocks.used;
    /* Refcounts count themselves; each round needs at most what the last one added. */
    do {
        before = all_clusters(plan);
        plan->count_blocks = divide_up(before, COUNT_ENTRIES);
        plan->count_table = divide_up(plan->count_blocks, TABLE_ENTRIES);
    } while (all_clusters(plan) != before);
}

int qcow2_plan_make(struct qcow2_plan **ret, struct disk_io *disk, const struct qcow2_base *base)
{
    _cleanup_(qcow2_plan_destroy) struct qcow2_plan *plan = new0(struct qcow2_plan);
    int r;

    plan->disk = disk;
    plan->base = base ? base->uuid : NULL_REF;
    r = block_map_init(&plan->blocks, disk, CLUSTER, base ? base->disk : NULL);
    if (r < 0)
        return r;
    lay_out(plan);
    *ret = TAKE(plan);
    return 0;
}

void qcow2_plan_destroy(struct qcow2_plan **plan_p)
{
    if (!*plan_p)
        return;
    block_map_done(&(*plan_p)->blocks);
    free((*plan_p)->has_table);
    free(*plan_p);
    *plan_p = NULL;
}

int64_t qcow2_stream_bytes(const struct qcow2_plan *plan)
{
    return all_clusters(plan) * CLUSTER;
}

/* ---- the bytes ---- */

static void make_header(const struct qcow2_plan *plan, unsigned char *cluster)
{
    unsigned char *extension = cluster + QCOW2_HEADER_BYTES;

    put_be32(cluster, QCOW2_MAGIC);
    put_be32(cluster + QCOW2_VERSION, 3);
    put_be32(cluster + QCOW2_CLUSTER_BITS, CLUSTER_BITS);
    put_be64(cluster + QCOW2_SIZE, (uint64_t) (divide_up(disk_io_size(plan->disk), SECTOR) * SECTOR));
    put_be32(cluster + QCOW2_L1_ENTRIES, (uint32_t) l1_entries(plan));
    put_be64(cluster + QCOW2_L1_AT, (uint64_t) ((1 + plan->count_table + plan->count_blocks) * CLUSTER));
    put_be64(cluster + QCOW2_COUNT_TABLE_AT, (uint64_t) CLUSTER);
    put_be32(cluster + QCOW2_COUNT_TABLE_CLUSTERS, (uint32_t) plan->count_table);
    put_be32(cluster + QCOW2_COUNT_BITS, 4); /* as a power of two: 16 */
    put_be32(cluster + QCOW2_HEADER_LENGTH, QCOW2_HEADER_BYTES);
    if (!ref_is_null(plan->base)) {
        char name[UUID_TEXT_BYTES + 8], uuid[UUID_TEXT_BYTES];
        size_t length = (size_t) snprintf(name, sizeof name, "%s.qcow2", uuid_print(uuid, plan->base));
        unsigned char *at = extension + 24; /* behind this extension and the empty one that ends them */

        put_be32(extension, QCOW2_BACKING_FORMAT);
        put_be32(extension + 4, 5);
        memcpy(extension + 8, "qcow2", 5);
        memcpy(at, name, length);
        put_be64(cluster + QCOW2_BACKING_AT, (uint64_t) (at - cluster));
        put_be32(cluster + QCOW2_BACKING_BYTES, (uint32_t) length);
    }
}

/* Clusters of numbers, one after the other. */
struct numbers {
    struct sink *sink;
    unsigned char *cluster; /* being filled */
    size_t filled;          /* bytes */
    int error;              /* the first; nothing is sent after it */
};

static void send_cluster(struct numbers *numbers)
{
    if (numbers->error == 0)
        numbers->error = numbers->sink->write(numbers->sink, numbers->cluster, (size_t) CLUSTER);
    memset(numbers->cluster, 0, (size_t) CLUSTER);
    numbers->filled = 0;
}

static void add_entry(struct numbers *numbers, uint64_t entry)
{
    put_be64(numbers->cluster + numbers->filled, entry);
    numbers->filled += 8;
    if (numbers->filled == (size_t) CLUSTER)
        send_cluster(numbers);
}

static void end_table(struct numbers *numbers)
{
    if (numbers->filled > 0)
        send_cluster(numbers);
}

/* Each cluster of the file has one user. */
static void send_counts(const struct qcow2_plan *plan, struct numbers *numbers)
{
    for (int64_t i = 0; i < plan->count_blocks; i++)
        add_entry(numbers, (uint64_t) ((1 + plan->count_table + i) * CLUSTER));
    end_table(numbers);
    for (int64_t i = 0; i < all_clusters(plan); i++) {
        put_be16(numbers->cluster + numbers->filled, 1);
        numbers->filled += 2;
        if (numbers->filled == (size_t) CLUSTER)
            send_cluster(numbers);
    }
    end_table(numbers);
}

static void send_tables(const struct qcow2_plan *plan, struct numbers *numbers)
{
    int64_t next = 1 + plan->count_table + plan->count_blocks + plan->l1;

    for (int64_t i = 0; i < l1_entries(plan); i++)
        add_entry(numbers, plan->has_table[i] ? (uint64_t) (next++ * CLUSTER) | COPIED : 0);
    end_table(numbers);
    for (int64_t block = 0; block < plan->blocks.blocks; block++) {
        if (!plan->has_table[block / TABLE_ENTRIES])
            continue;
        add_entry(numbers, block_map_has(&plan->blocks, block) ? (uint64_t) (next++ * CLUSTER) | COPIED : 0);
    }
    end_table(numbers);
}

/* Clusters that follow one another in the disk do so in the file. */
static int send_data(const struct qcow2_plan *plan, struct sink *sink, struct transfer_figures *figures)
{
    _cleanup_(free_p) char *bytes = alloc0(BLOCK_MAP_STEP);
    int64_t size = disk_io_size(plan->disk);

    for (int64_t block = 0, next; block < plan->blocks.blocks; block = next) {
        bool is_used = block_map_has(&plan->blocks, block);
        size_t count;

        for (next = block + 1; next < plan->blocks.blocks && (next - block) * CLUSTER < BLOCK_MAP_STEP
                               && block_map_has(&plan->blocks, next) == is_used;)
            next++;
        count = (size_t) ((next - block) * CLUSTER);
        if (is_used) {
            int r = block_read(plan->disk, bytes, count, block * CLUSTER);

            if (r == 0)
                r = sink->write(sink, bytes, count);
            if (r < 0)
                return r;
        }
        if (figures)
            figures->disk_bytes_done += MIN(size - block * CLUSTER, (int64_t) count);
    }
    return 0;
}

int qcow2_write(struct qcow2_plan *plan, struct sink *sink, struct transfer_figures *figures)
{
    struct numbers numbers = {.sink = sink, .cluster = alloc0((size_t) CLUSTER)};

    if (figures)
        figures->disk_bytes_total += disk_io_size(plan->disk);
    make_header(plan, numbers.cluster);
    send_cluster(&numbers);
    send_counts(plan, &numbers);
    send_tables(plan, &numbers);
    free(numbers.cluster);
    return numbers.error < 0 ? numbers.error : send_data(plan, sink, figures);
}
