/* test_journal.c - what was written is loaded again; what is wrong with a store is said; failures
 * of the disk */
#include "journal_world.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sqlite3.h>
#include <sys/stat.h>

#include "master/backup.h"
#include "tests/vfs/crash_vfs.h"

/* ---- tools ---- */

static void in_directory(struct journal_world *world, const char *name, char path[256])
{
    snprintf(path, 256, "%s/%s", world->directory, name);
}

static bool exists(struct journal_world *world, const char *name)
{
    char path[256];

    in_directory(world, name, path);
    return access(path, F_OK) == 0;
}

static void sql(struct journal_world *world, const char *name, const char *statements)
{
    char path[256];
    sqlite3 *db;

    in_directory(world, name, path);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    if (sqlite3_exec(db, statements, NULL, NULL, NULL) != SQLITE_OK)
        fail_msg("%s", sqlite3_errmsg(db));
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static int64_t sql_number(struct journal_world *world, const char *name, const char *query)
{
    char path[256];
    sqlite3_stmt *statement;
    sqlite3 *db;
    int64_t number;

    in_directory(world, name, path);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, query, -1, &statement, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    number = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    sqlite3_close(db);
    return number;
}

static void refused(struct journal_world *world, int error, const char *text)
{
    world->text[0] = '\0';
    assert_int_equal(journal_open(&world->config, &world->journal, world->text), error);
    if (!strstr(world->text, text))
        fail_msg("'%s' does not say '%s'", world->text, text);
}

/* A store with something in it, closed. */
static void make_store(struct journal_world *world)
{
    assert_int_equal(world_start(world), 0);
    for (int i = 0; i < 100; i++)
        world_change(world);
    world_sync(world);
    world_stop(world);
}

/* ---- writing and loading ---- */

static void what_is_written_is_loaded(_unused_ void **state)
{
    struct journal_world world;
    uint64_t digest = 0;

    world_init(&world, 21);
    for (int start = 0; start < 6; start++) {
        struct journal_figures figures;
        struct journal_head head;

        assert_int_equal(world_start(&world), 0);
        if (start > 0) {
            assert_int_equal(world_digest(&world), digest);
            assert_true(world.objects > 0);
            assert_int_equal(world.records, 0); /* all folded when it was closed */
        }
        check_indexes(store_core_view(world.store), true);
        assert_int_equal(store_newest(world.store) >> 32, start + 1);
        for (int i = 0; i < 300; i++) {
            world_change(&world);
            if (i % 10 == 0)
                world_sync(&world);
        }
        world_sync(&world);
        journal_figures(world.journal, &figures);
        assert_int_equal(figures.generation, store_newest_durable(world.store));
        assert_true(figures.records > 100);
        assert_true(figures.commits >= 30 && figures.commits < figures.records);
        assert_int_equal(figures.queue_bytes, 0);
        assert_false(figures.has_failed);
        digest = world_digest(&world);
        world_stop(&world);
        world.config.is_new = false;
        assert_int_equal(sql_number(&world, "journal.db", "SELECT count(*) FROM journal"), 0);

        assert_int_equal(journal_open(&world.config, &world.journal, world.text), 0);
        journal_head(world.journal, &head);
        assert_int_equal(head.epoch, start + 1);
        assert_false(ref_is_null(head.holder));
        assert_true(head.generation >> 32 == (uint64_t) start + 1);
        journal_close(&world.journal);
    }
    world_done(&world);
}

/* Folding goes on while records are written; the WAL restarts; the journal stays short. */
static void folding_keeps_up(_unused_ void **state)
{
    struct journal_world world;
    struct journal_figures figures;
    uint64_t digest;

    world_init(&world, 22);
    world.config.fold_records = 50;
    world.config.fold_interval_ms = 10;
    world.config.wal_bytes_max = 256 << 10;
    assert_int_equal(world_start(&world), 0);
    do {
        for (int i = 0; i < 20; i++)
            world_change(&world);
        world_sync(&world);
        journal_figures(world.journal, &figures);
    } while (figures.wal_restarts < 3);
    while (figures.folded < store_newest_durable(world.store)) { /* soon after the last write */
        sched_yield();
        journal_figures(world.journal, &figures);
    }
    assert_int_equal(figures.fold_failures, 0);
    digest = world_digest(&world);
    world_stop(&world);
    assert_int_equal(world_start(&world), 0);
    assert_int_equal(world_digest(&world), digest);
    world_done(&world);
}

/* Loaded before anything was folded, as after a crash: from records alone. */
static void records_alone(_unused_ void **state)
{
    struct journal_world world, copy;
    char command[600];

    world_init(&world, 23);
    world_init(&copy, 23);
    assert_int_equal(world_start(&world), 0);
    for (int i = 0; i < 200; i++)
        world_change(&world);
    world_sync(&world);
    snprintf(command, sizeof command, "cp %s/*.db %s/*.db-wal %s", world.directory, world.directory,
             copy.directory);
    assert_int_equal(system(command), 0);
    copy.config.is_new = false;
    assert_int_equal(world_start(&copy), 0);
    assert_int_equal(world_digest(&copy), world_digest(&world));
    assert_int_equal(copy.objects, 0);
    assert_true(copy.records > 100);
    world_done(&copy);
    world_done(&world);
}

static void epochs_are_claimed_once(_unused_ void **state)
{
    struct journal_world world;
    struct epoch_entry epochs[4];

    world_init(&world, 24);
    assert_int_equal(journal_open(&world.config, &world.journal, world.text), 0);
    assert_int_equal(journal_claim_epoch(world.journal, 3, (ref_t){1, 1}, 0, world.text), 0);
    assert_int_equal(journal_claim_epoch(world.journal, 3, (ref_t){2, 2}, 0, world.text), -EEXIST);
    assert_int_equal(journal_claim_epoch(world.journal, 2, (ref_t){2, 2}, 0, world.text), -EEXIST);
    assert_int_equal(
        journal_claim_epoch(world.journal, 5, (ref_t){2, 2}, (1ull << 32) + 7, world.text), 0);
    journal_close(&world.journal);
    assert_int_equal(journal_open(&world.config, &world.journal, world.text), 0);
    assert_int_equal(journal_epochs(world.journal, epochs, ARRAY_SIZE(epochs)), 2);
    assert_int_equal(epochs[0].epoch, 5);
    assert_int_equal(epochs[0].first, 2ull << 32);
    assert_int_equal(epochs[0].inherited, (1ull << 32) + 7);
    assert_int_equal(epochs[1].epoch, 3);
    assert_int_equal(epochs[1].first, 1ull << 32);
    world_done(&world);
}

static void fill_and_set_aside(_unused_ void **state)
{
    struct journal_world world, other;
    struct view *view;
    uint64_t digest;

    world_init(&world, 25);
    make_store(&world);
    assert_int_equal(journal_set_aside(world.directory, clock_real(), "older"), 0);
    assert_int_equal(journal_set_aside(world.directory, clock_real(), "older"), -ENOENT);
    assert_false(exists(&world, "journal.db"));

    world_init(&other, 26); /* as loaded from elsewhere */
    assert_int_equal(world_start(&other), 0);
    for (int i = 0; i < 100; i++)
        world_change(&other);
    world_sync(&other);
    digest = world_digest(&other);
    view = store_pin(other.store);
    assert_int_equal(journal_open(&world.config, &world.journal, world.text), 0);
    assert_int_equal(
        journal_fill(world.journal, view, store_newest_durable(other.store), world.text), 0);
    view_unpin(&view);
    journal_close(&world.journal);
    assert_int_equal(world_start(&world), 0);
    assert_int_equal(world_digest(&world), digest);
    assert_int_equal(store_newest_durable(world.store), store_newest_durable(other.store));
    world_change(&world);
    world_sync(&world);
    world_done(&world);
    world_done(&other);
}

/* ---- what is refused ---- */

static void what_is_no_store_of_ours_is_refused(_unused_ void **state)
{
    struct journal_world world, second;
    char path[256];

    world_init(&world, 27);
    world.config.is_new = false;
    refused(&world, -ENOENT, "no store");
    world.config.is_new = true;
    make_store(&world);

    assert_int_equal(journal_open(&world.config, &world.journal, world.text), 0);
    second = world;
    refused(&second, -EBUSY, "another process");
    journal_close(&world.journal);

    world.config.pool = (ref_t){5, 5};
    refused(&world, -EXDEV, "belongs to pool 11112222-3333-4444-8555-666677778888");
    world.config.pool = WORLD_POOL;

    sql(&world, "journal.db", "PRAGMA user_version=99");
    refused(&world, -EPROTO, "newer version (format 99");
    sql(&world, "journal.db", "PRAGMA user_version=1");
    sql(&world, "objects.db", "PRAGMA user_version=99");
    refused(&world, -EPROTO, "objects.db was written by a newer version");
    sql(&world, "objects.db", "PRAGMA user_version=1; PRAGMA application_id=7");
    refused(&world, -EBADMSG, "no file of Drover's");
    sql(&world, "objects.db", "PRAGMA application_id=1148352114");
    assert_int_equal(world_start(&world), 0);
    world_stop(&world);

    in_directory(&world, "objects.db", path);
    assert_int_equal(unlink(path), 0);
    refused(&world, -EBADMSG, "objects.db is missing");
    world_done(&world);

    world_init(&world, 27);
    make_store(&world);
    in_directory(&world, "journal.db", path);
    assert_int_equal(truncate(path, 0), 0);
    refused(&world, -EBADMSG, "journal.db is empty");
    assert_int_equal(unlink(path), 0);
    refused(&world, -EBADMSG, "journal.db is missing");
    world_done(&world);
}

static void nobody_else_may_read_it(_unused_ void **state)
{
    static const char *const names[] = {"journal.db", "journal.db-wal", "objects.db"};
    struct journal_world world;

    world_init(&world, 36);
    assert_int_equal(world_start(&world), 0);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        struct stat status;
        char path[256];

        in_directory(&world, names[i], path);
        assert_int_equal(stat(path, &status), 0);
        assert_int_equal(status.st_mode & 0777, 0600);
    }
    world_done(&world);
}

static void write_over(struct journal_world *world, const char *name, long at, const char *bytes,
                       size_t count)
{
    char path[256];
    int fd;

    in_directory(world, name, path);
    fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, bytes, count, at), count);
    close(fd);
}

static void damage_is_found(_unused_ void **state)
{
    struct journal_world world;
    char rubbish[8192];

    memset(rubbish, 'x', sizeof rubbish);
    world_init(&world, 28);
    make_store(&world);
    write_over(&world, "objects.db", 8192, rubbish, sizeof rubbish);
    refused(&world, -EBADMSG, "objects.db is damaged");
    world_done(&world);

    world_init(&world, 28);
    make_store(&world);
    write_over(&world, "journal.db", 0, rubbish, sizeof rubbish);
    refused(&world, -EBADMSG, "journal.db is damaged");
    world_done(&world);

    world_init(&world, 28);
    make_store(&world);
    sql(&world, "objects.db", "UPDATE objects SET record = x'81a4' WHERE class = 'VM'");
    assert_int_equal(world_start(&world), -EBADMSG);
    assert_non_null(strstr(world.text, "the VM OpaqueRef:"));
    world_done(&world);

    world_init(&world, 28);
    make_store(&world);
    sql(&world, "journal.db", "INSERT INTO journal VALUES (9000000000000, x'83a16701')");
    assert_int_equal(world_start(&world), -EBADMSG);
    assert_non_null(strstr(world.text, "generation 9000000000000 cannot be read"));
    world_done(&world);
}

/* A record is missing in the middle. */
static void a_gap_is_found(_unused_ void **state)
{
    struct journal_world world, copy;
    char command[600];

    world_init(&world, 29);
    assert_int_equal(world_start(&world), 0);
    for (int i = 0; i < 50; i++)
        world_change(&world);
    world_sync(&world);
    world_init(&copy, 29);
    snprintf(command, sizeof command, "cp %s/*.db %s/*.db-wal %s", world.directory, world.directory,
             copy.directory);
    assert_int_equal(system(command), 0);
    sql(&copy, "journal.db",
        "DELETE FROM journal WHERE generation = (SELECT generation FROM journal ORDER BY "
        "generation LIMIT 1 OFFSET 20)");
    assert_int_equal(world_start(&copy), -EBADMSG);
    assert_non_null(strstr(copy.text, "does not follow the one before"));
    world_done(&copy);
    world_done(&world);
}

/* A store as the first version wrote it: a VM in objects.db, two records of which the first is
 * folded. */
static void the_first_format_is_read(_unused_ void **state)
{
    struct journal_world world;
    const struct object *vm;

    world_init(&world, 30);
    sql(&world, "objects.db",
        "PRAGMA journal_mode=WAL; PRAGMA application_id=1148352114; PRAGMA user_version=1;"
        "CREATE TABLE meta (pool BLOB NOT NULL, folded INTEGER NOT NULL DEFAULT 0);"
        "INSERT INTO meta VALUES (x'11112222333344448555666677778888', 4294967297);"
        "CREATE TABLE objects (class TEXT NOT NULL, ref BLOB NOT NULL, created INTEGER NOT NULL,"
        "modified INTEGER NOT NULL, record BLOB NOT NULL, PRIMARY KEY (class, ref)) WITHOUT ROWID;"
        "INSERT INTO objects VALUES ('VM', x'00000000000000010000000000000002', 4294967297, "
        "4294967297,"
        "x'81aa6e616d655f6c6162656ca36f6e65')");
    sql(&world, "journal.db",
        "PRAGMA journal_mode=WAL; PRAGMA application_id=1148352114; PRAGMA user_version=1;"
        "CREATE TABLE meta (pool BLOB NOT NULL); INSERT INTO meta VALUES "
        "(x'11112222333344448555666677778888');"
        "CREATE TABLE epochs (epoch INTEGER PRIMARY KEY, holder BLOB NOT NULL, first INTEGER NOT "
        "NULL,"
        "inherited INTEGER NOT NULL);"
        "INSERT INTO epochs VALUES (1, x'000000000000000a000000000000000b', 4294967296, 0);"
        "CREATE TABLE journal (generation INTEGER PRIMARY KEY, changes BLOB NOT NULL);"
        /* {g: 2^32 + 1, f: 0, c: [[1, VM, ref, {name_label: one}]]}, and [2, VM, ref, {name_label:
           two}] */
        "INSERT INTO journal VALUES (4294967297, "
        "x'83a167cf0000000100000001a16600a163919401a2564dc4100000000000"
        "000001000000000000000281aa6e616d655f6c6162656ca36f6e65');"
        "INSERT INTO journal VALUES (4294967298, "
        "x'83a167cf0000000100000002a166cf0000000100000001a163919402a256"
        "4dc4100000000000000001000000000000000281aa6e616d655f6c6162656ca374776f');");
    world.config.is_new = false;
    assert_int_equal(world_start(&world), 0);
    assert_int_equal(world.objects, 1);
    assert_int_equal(world.records, 1);
    vm = view_get(store_core_view(world.store), VM, ((ref_t){1, 2}));
    assert_string_equal(VM_get_name_label(vm), "two");
    assert_int_equal(vm->created, 4294967297);
    assert_int_equal(vm->modified, 4294967298);
    assert_int_equal(store_epoch(world.store), 2);
    world_done(&world);
}

/* ---- the disk fails ---- */

static void a_failed_sync_is_the_end(_unused_ void **state)
{
    struct journal_world world;
    uint64_t visible;

    world_init(&world, 31);
    crash_vfs_register();
    world.config.vfs = CRASH_VFS;
    assert_int_equal(world_start(&world), 0);
    world_change(&world);
    world_sync(&world);
    assert_int_equal(world.failures, 0);
    visible = store_visible(world.store);

    crash_vfs_fail_syncs(1);
    while (store_newest_durable(world.store) <= visible)
        world_change(&world);
    world_sync(&world);
    assert_int_equal(world.failures, 1);
    assert_non_null(strstr(world.text, "journal.db"));
    assert_int_equal(store_visible(world.store), visible);
    world_change(&world);
    while (loop_step(world.loop))
        ;
    assert_int_equal(store_visible(world.store), visible);
    crash_vfs_fail_syncs(0);
    world_stop(&world);
    assert_int_equal(world_start(&world),
                     0); /* what was acknowledged is there, and perhaps the next one */
    world_done(&world);
}

static void a_full_disk_is_the_end_too(_unused_ void **state)
{
    struct journal_world world;

    world_init(&world, 32);
    crash_vfs_register();
    world.config.vfs = CRASH_VFS;
    assert_int_equal(world_start(&world), 0);
    crash_vfs_fill_disk(true);
    for (int i = 0; i < 50; i++)
        world_change(&world);
    world_sync(&world);
    assert_int_equal(world.failures, 1);
    assert_non_null(strstr(world.text, "full"));
    crash_vfs_fill_disk(false);
    world_stop(&world);
    assert_int_equal(world_start(&world), 0);
    world_done(&world);
}

static uint64_t told_bytes(void *arg)
{
    return __atomic_load_n((uint64_t *) arg, __ATOMIC_SEQ_CST);
}

static void tell_bytes(struct journal_world *world, uint64_t *bytes, uint64_t value)
{
    __atomic_store_n(bytes, value, __ATOMIC_SEQ_CST);
    for (uint64_t before = store_newest_durable(world->store);
         before == store_newest_durable(world->store);)
        world_change(world);
    world_sync(world);
}

/* The writer looks after it has acknowledged, so the flag is awaited. */
static void await_room(struct journal_world *world, bool has_room, bool has_ballast)
{
    while (journal_has_room(world->journal) != has_room || exists(world, "ballast") != has_ballast)
        sched_yield();
}

static void writes_are_refused_before_the_disk_is_full(_unused_ void **state)
{
    struct journal_world world;
    uint64_t bytes = 1000 << 10;

    world_init(&world, 33);
    world.config.room_bytes_min = 100 << 10;
    world.config.ballast_bytes = 50 << 10;
    world.config.free_bytes = told_bytes;
    world.config.free_arg = &bytes;
    assert_int_equal(world_start(&world), 0);
    assert_true(journal_has_room(world.journal));
    assert_true(exists(&world, "ballast"));
    assert_true(journal_has_room_beside(world.journal, 900 << 10));
    assert_false(journal_has_room_beside(world.journal, (900 << 10) + 1));
    tell_bytes(&world, &bytes, 99 << 10);
    await_room(&world, false, true);
    assert_false(journal_has_room_beside(world.journal, 0));
    tell_bytes(&world, &bytes, 49 << 10);
    await_room(&world, false, false);
    tell_bytes(&world, &bytes, 120 << 10); /* not yet enough for the ballast and some more */
    await_room(&world, false, false);
    tell_bytes(&world, &bytes, 201 << 10);
    await_room(&world, true, true);
    world_done(&world);
}

/* What cannot be folded stays in the journal, and the pool goes on. */
static void a_failed_fold_holds_up_nothing(_unused_ void **state)
{
    struct journal_world world;
    struct journal_figures figures;
    struct txn *txn;
    uint64_t digest;
    char text[16];
    ref_t vm;

    world_init(&world, 37);
    world.config.fold_records = 1;
    world.config.fold_interval_ms = 5;
    assert_int_equal(world_start(&world), 0);
    txn = store_begin(world.store);
    vm = txn_create_new(txn, world.random, CLASS_OF(VM), NULL);
    store_apply(&txn);
    do {
        world_sync(&world);
        journal_figures(world.journal, &figures);
    } while (figures.folded < store_newest_durable(world.store));

    sql(&world, "objects.db", "ALTER TABLE objects RENAME TO hidden");
    for (int i = 0; i < 3 || figures.fold_failures == 0; i++) {
        txn = store_begin(world.store);
        snprintf(text, sizeof text, "%d", i);
        VM_put_name_label(txn, vm, text);
        store_apply(&txn);
        world_sync(&world);
        journal_figures(world.journal, &figures);
    }
    sql(&world, "objects.db", "ALTER TABLE hidden RENAME TO objects");
    while (figures.folded < store_newest_durable(world.store)) {
        sched_yield();
        journal_figures(world.journal, &figures);
    }
    digest = world_digest(&world);
    world_stop(&world);
    assert_int_equal(world_start(&world), 0);
    assert_int_equal(world_digest(&world), digest);
    world_done(&world);
}

/* ---- copies ---- */

static void backups(_unused_ void **state)
{
    struct journal_world world, restored;
    char directory[256], command[600];

    world_init(&world, 34);
    world.config.fold_records = 30;
    in_directory(&world, "backups", directory);
    assert_int_equal(mkdir(directory, 0700), 0);
    assert_int_equal(world_start(&world), 0);
    for (int i = 0; i < 400; i++)
        world_change(&world);
    world_sync(&world);
    assert_int_equal(journal_backup(world.journal, directory, 2, world.text), 0);

    world_init(&restored, 35);
    snprintf(command, sizeof command, "cp %s/backup-*/* %s", directory, restored.directory);
    assert_int_equal(system(command), 0);
    restored.config.is_new = false;
    assert_int_equal(world_start(&restored), 0);
    assert_int_equal(world_digest(&restored), world_digest(&world));
    world_done(&restored);

    /* Older ones go, and what an interrupted one left. */
    snprintf(command, sizeof command,
             "cd %s && mv backup-* backup-20010104T00:00:00Z && mkdir unfinished "
             "backup-20010101T00:00:00Z backup-20010102T00:00:00Z",
             directory);
    assert_int_equal(system(command), 0);
    assert_int_equal(journal_backup(world.journal, directory, 2, world.text), 0);
    snprintf(command, sizeof command,
             "cd %s && test $(ls | wc -l) = 2 && test -e backup-20010104T00:00:00Z/journal.db",
             directory);
    assert_int_equal(system(command), 0);

    assert_int_equal(journal_backup(world.journal, "/nowhere/at/all", 2, world.text), -EIO);
    assert_non_null(strstr(world.text, "/nowhere/at/all"));
    world_done(&world);
}

/* How long after its start a master makes a copy. */
static uint64_t next_copy_ms(struct journal_world *world, struct fake_clock *clock)
{
    struct core core = {.clock = &clock->clock, .loop = loop_new(&clock->clock)};
    char directory[256];
    struct backups *backups;
    uint64_t due_ms;

    in_directory(world, "backups", directory);
    backups = backups_start(&core, directory, 24, 7);
    due_ms = loop_next_timer_ms(core.loop) - clock_now_ms(&clock->clock);
    backups_destroy(&backups);
    loop_destroy(&core.loop);
    return due_ms;
}

static void age_of_the_newest_copy_decides(_unused_ void **state)
{
    struct journal_world world;
    struct fake_clock clock;
    char directory[256], command[700];

    world_init(&world, 36);
    in_directory(&world, "backups", directory);
    fake_clock_init(&clock, 1000, 979300800); /* 2001-01-12T12:00:00Z */
    assert_int_equal(next_copy_ms(&world, &clock), 60000);
    snprintf(command, sizeof command,
             "mkdir -p %s && cd %s && mkdir unfinished backup-nonsense backup-20010110T00:00:00Z",
             directory, directory);
    assert_int_equal(system(command), 0);
    assert_int_equal(next_copy_ms(&world, &clock), 60000);
    snprintf(command, sizeof command, "mkdir %s/backup-20010112T10:00:00Z", directory);
    assert_int_equal(system(command), 0);
    assert_int_equal(next_copy_ms(&world, &clock), 22 * 3600 * 1000);
    snprintf(command, sizeof command, "mkdir %s/backup-20990112T10:00:00Z", directory);
    assert_int_equal(system(command), 0);
    assert_int_equal(next_copy_ms(&world, &clock), 60000);
    world_remove_directory(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_loaded),
        cmocka_unit_test(folding_keeps_up),
        cmocka_unit_test(records_alone),
        cmocka_unit_test(epochs_are_claimed_once),
        cmocka_unit_test(fill_and_set_aside),
        cmocka_unit_test(what_is_no_store_of_ours_is_refused),
        cmocka_unit_test(nobody_else_may_read_it),
        cmocka_unit_test(damage_is_found),
        cmocka_unit_test(a_gap_is_found),
        cmocka_unit_test(the_first_format_is_read),
        cmocka_unit_test(a_failed_sync_is_the_end),
        cmocka_unit_test(a_full_disk_is_the_end_too),
        cmocka_unit_test(writes_are_refused_before_the_disk_is_full),
        cmocka_unit_test(a_failed_fold_holds_up_nothing),
        cmocka_unit_test(backups),
        cmocka_unit_test(age_of_the_newest_copy_decides),
    };

    model_init();
    return cmocka_run_group_tests_name("journal", tests, NULL, NULL);
}
