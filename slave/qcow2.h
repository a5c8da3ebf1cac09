/* qcow2.h - the header of a qcow2 file: what storage_file.c reads of it and qcow2_write.c writes
 *
 * Source: QEMU, docs/interop/qcow2.txt. All numbers are big-endian. */
#pragma once

#define QCOW2_MAGIC 0x514649fb

/* Offsets. */
enum {
    QCOW2_VERSION = 4,
    QCOW2_BACKING_AT = 8,
    QCOW2_BACKING_BYTES = 16,
    QCOW2_CLUSTER_BITS = 20,
    QCOW2_SIZE = 24,
    QCOW2_L1_ENTRIES = 36,
    QCOW2_L1_AT = 40,
    QCOW2_COUNT_TABLE_AT = 48,
    QCOW2_COUNT_TABLE_CLUSTERS = 56,
    QCOW2_INCOMPATIBLE = 72, /* from here on of version 3 */
    QCOW2_COUNT_BITS = 96,
    QCOW2_HEADER_LENGTH = 100,
};

#define QCOW2_HEADER_BYTES_2 72 /* of version 2 */
#define QCOW2_HEADER_BYTES   104
#define QCOW2_DATA_FILE      4  /* incompatible feature: the data lies in another file */
#define QCOW2_EXTENDED_L2    16 /* ... entries of L2 tables have a second word, a bit for each part of the cluster */

/* Extensions follow the header: {type, bytes, data padded to 8}, the last of type 0. */
#define QCOW2_BACKING_FORMAT 0xe2792aca
