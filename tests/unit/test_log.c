/* test_log.c - the form of a line, escapes, levels, tags, files and their rotation, threads */
#include "shared/log.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include "shared/clock.h"
#include "shared/fiber.h"

static struct fake_clock fake;
static char last[8192];

static void keep(_unused_ void *arg, _unused_ enum log_level level, const char *line)
{
    snprintf(last, sizeof(last), "%s", line);
}

static int up(_unused_ void **state)
{
    fake_clock_init(&fake, 1007, 1738324800);
    log_start("drover-test", &fake.clock);
    log_set_sink(keep, NULL);
    log_set_level(LOG_INFO);
    last[0] = '\0';
    return 0;
}

static int down(_unused_ void **state)
{
    log_set_sink(NULL, NULL);
    log_start("drover", NULL);
    return 0;
}

static void a_line_has_its_form(_unused_ void **state)
{
    fake_clock_advance_ms(&fake, 7);
    errno = ENOENT;
    log_warning("task-1", "%d of %s", 3, "four");
    assert_int_equal(errno, ENOENT);
    assert_string_equal(last, "2025-01-31T12:00:00.007Z warning drover-test [task-1] 3 of four\n");
    log_error(NULL, "no tag");
    assert_string_equal(last, "2025-01-31T12:00:00.007Z error drover-test [-] no tag\n");
}

static const char *message_of(const char *text)
{
    log_info("a\nb", "%s", text);
    assert_non_null(strstr(last, "[a\\nb] "));
    return strstr(last, "] ") + 2;
}

static void a_message_is_one_printable_line(_unused_ void **state)
{
    assert_string_equal(message_of("a\nb\tc\rd\\e\x1b[31m\x7f"),
                        "a\\nb\\tc\\rd\\\\e\\x1b[31m\\x7f\n");
    assert_string_equal(message_of("Gr\xc3\xbc\xc3\x9f"
                                   "e \xe2\x82\xac \xf0\x9f\x90\x84"),
                        "Gr\xc3\xbc\xc3\x9f"
                        "e \xe2\x82\xac \xf0\x9f\x90\x84\n");
    /* C1 controls, a lone continuation, an overlong slash, a surrogate, a character cut short */
    assert_string_equal(message_of("\xc2\x9b"), "\\xc2\\x9b\n");
    assert_string_equal(message_of("\x80"), "\\x80\n");
    assert_string_equal(message_of("\xc0\xaf"), "\\xc0\\xaf\n");
    assert_string_equal(message_of("\xed\xa0\x80"), "\\xed\\xa0\\x80\n");
    assert_string_equal(message_of("\xf0\x9f\x90"), "\\xf0\\x9f\\x90\n");
}

static void a_long_message_is_cut(_unused_ void **state)
{
    char text[10000];

    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    assert_non_null(strstr(message_of(text), "xxx...\n"));
    memset(text, '\x01', sizeof(text) - 1);
    assert_non_null(strstr(message_of(text), "\\x01...\n"));
    assert_true(strlen(last) < 4096);
}

static int evaluated;

static int evaluate(void)
{
    return ++evaluated;
}

static void levels_filter(_unused_ void **state)
{
    enum log_level level;

    evaluated = 0;
    log_debug(NULL, "%d", evaluate());
    assert_int_equal(evaluated, 0);
    assert_string_equal(last, "");
    assert_true(log_level_parse("debug", &level));
    log_set_level(level);
    log_debug(NULL, "%d", evaluate());
    assert_int_equal(evaluated, 1);
    assert_non_null(strstr(last, "debug"));
    assert_false(log_level_parse("verbose", &level));
}

static void log_from_fiber(_unused_ void *arg)
{
    log_info("given", "one");
    assert_non_null(strstr(last, "[given] one"));
    fiber_set_log_tag(fiber_self(), "OpaqueRef:task");
    log_info("given", "two");
}

static void a_fiber_names_its_task(_unused_ void **state)
{
    struct loop *loop = loop_new(&fake.clock);

    fiber_spawn(loop, log_from_fiber, NULL, "test");
    while (loop_step(loop))
        ;
    loop_destroy(&loop);
    assert_non_null(strstr(last, "[OpaqueRef:task] two"));
    log_info("given", "three");
    assert_non_null(strstr(last, "[given] three"));
}

static size_t count_lines(const char *path)
{
    FILE *file = fopen(path, "r");
    char line[256];
    size_t lines = 0;

    assert_non_null(file);
    while (fgets(line, sizeof(line), file)) {
        assert_non_null(strstr(line, "Z info drover-test [thread] line of a thread\n"));
        lines++;
    }
    fclose(file);
    return lines;
}

#define THREADS 4
#define LINES   500

static void *log_lines(_unused_ void *arg)
{
    for (int i = 0; i < LINES; i++)
        log_info("thread", "line of %s", "a thread");
    return NULL;
}

static void threads_share_a_file_that_is_rotated(_unused_ void **state)
{
    char folder[] = "/tmp/drover-log-XXXXXX", path[64], old_path[64];
    pthread_t threads[THREADS];

    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/log", folder);
    snprintf(old_path, sizeof(old_path), "%s/log.1", folder);
    log_set_sink(NULL, NULL);
    assert_int_equal(log_open(path), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, log_lines, NULL), 0);
    assert_int_equal(rename(path, old_path), 0);
    assert_int_equal(log_open(path), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(log_open(folder), -EISDIR);
    assert_int_equal(count_lines(path) + count_lines(old_path), THREADS * LINES);
    assert_int_equal(log_open(NULL), 0);
    unlink(path);
    unlink(old_path);
    rmdir(folder);
}

#define CAUGHT(test) cmocka_unit_test_setup_teardown(test, up, down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CAUGHT(a_line_has_its_form),    CAUGHT(a_message_is_one_printable_line),
        CAUGHT(a_long_message_is_cut),  CAUGHT(levels_filter),
        CAUGHT(a_fiber_names_its_task), CAUGHT(threads_share_a_file_that_is_rotated),
    };

    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
