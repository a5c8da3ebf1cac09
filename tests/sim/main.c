/* main.c - drover-simulate: runs seeds, each in a process of its own
 *
 * A simulation leaves behind what its crashed processes had, and a broken promise ends it where it stands; so each gets
 * a process, and the first failure's output is all that is needed to look at it again. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shared/model.h"
#include "tests/sim/sim.h"

/* One simulation takes well below a second; more of the processor than this, and it runs in circles. */
#define CPU_SECONDS_MAX 120

struct options {
    struct sim_options sim;
    uint64_t seeds;
    unsigned seconds;       /* 0: as long as the seeds take */
    bool is_one, is_twice, expects_failure;
};

static int usage(int status)
{
    fprintf(status ? stderr : stdout,
            "usage: drover-simulate [--seeds N | --seed S [--verbose] | --seed S --twice]\n"
            "                       [--first S] [--minutes M] [--seconds N] [--points] [--expect-failure]\n"
            "\n"
            "  --seeds N         run N seeds (100), beginning with --first (1)\n"
            "  --seed S          run this one; --verbose: tell everything; --twice: compare two runs of it\n"
            "  --minutes M       simulated minutes with faults (10), before the pool is let come to rest\n"
            "  --seconds N       stop after so much real time\n"
            "  --without FAULT   one of faults.c does not happen, or \"points\", those at crash points; may be repeated\n"
            "  --points          then say how often each crash point was passed, and was the last\n"
            "  --expect-failure  succeed if a seed fails, fail if none does\n");
    return status;
}

static uint64_t number(const char *text)
{
    char *end;
    uint64_t value = strtoull(text, &end, 10);

    if (*end || end == text)
        exit(usage(2));
    return value;
}

static void add_fault(char *list, size_t bytes, const char *name)
{
    if (!streq(name, "points") && !faults_has(name))
        exit(usage(2));
    strncat(list, name, bytes - strlen(list) - 2);
    strcat(list, " ");
}

static void read_options(struct options *options, int argc, char **argv)
{
    static const struct option known[] = {
        {"seeds", required_argument, NULL, 'n'},   {"seed", required_argument, NULL, 's'},
        {"first", required_argument, NULL, 'f'},   {"minutes", required_argument, NULL, 'm'},
        {"seconds", required_argument, NULL, 't'}, {"verbose", no_argument, NULL, 'v'},
        {"twice", no_argument, NULL, '2'},         {"expect-failure", no_argument, NULL, 'x'},
        {"without", required_argument, NULL, 'w'}, {"points", no_argument, NULL, 'p'},
        {"help", no_argument, NULL, 'h'},          {0},
    };
    int option;

    *options = (struct options){.sim = {.seed = 1, .minutes = 10}, .seeds = 100};
    while ((option = getopt_long(argc, argv, "", known, NULL)) >= 0)
        switch (option) {
        case 'n':
            options->seeds = number(optarg);
            break;
        case 's':
            options->sim.seed = number(optarg);
            options->is_one = true;
            break;
        case 'f':
            options->sim.seed = number(optarg);
            break;
        case 'm':
            options->sim.minutes = (unsigned) number(optarg);
            break;
        case 't':
            options->seconds = (unsigned) number(optarg);
            break;
        case 'v':
            options->sim.is_verbose = true;
            break;
        case '2':
            options->is_twice = true;
            break;
        case 'p':
            options->sim.points = mmap(NULL, sizeof *options->sim.points, PROT_READ | PROT_WRITE,
                                       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
            if (options->sim.points == MAP_FAILED)
                die("mmap: %s", strerror(errno));
            break;
        case 'w':
            add_fault(options->sim.without, sizeof options->sim.without, optarg);
            break;
        case 'x':
            options->expects_failure = true;
            break;
        default:
            exit(usage(option == 'h' ? 0 : 2));
        }
    if (optind < argc)
        exit(usage(2));
}

/* Runs the seed in a child. Its fingerprint, or 0 with a line on stderr when it failed. */
static uint64_t run_apart(const struct sim_options *options)
{
    uint64_t fingerprint = 0;
    int pipe_fds[2], status;
    pid_t pid;

    fflush(NULL);
    if (pipe(pipe_fds) < 0)
        die("pipe: %s", strerror(errno));
    pid = fork();
    if (pid < 0)
        die("fork: %s", strerror(errno));
    if (pid == 0) {
        setrlimit(RLIMIT_CPU, &(struct rlimit){CPU_SECONDS_MAX, CPU_SECONDS_MAX});
        fingerprint = sim_run(options);
        _exit(write(pipe_fds[1], &fingerprint, sizeof fingerprint) == (ssize_t) sizeof fingerprint ? 0 : 1);
    }
    close(pipe_fds[1]);
    if (read(pipe_fds[0], &fingerprint, sizeof fingerprint) != (ssize_t) sizeof fingerprint)
        fingerprint = 0;
    close(pipe_fds[0]);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && fingerprint)
        return fingerprint;
    if (WIFSIGNALED(status))
        fprintf(stderr, "BROKEN: ended by signal %d\n", WTERMSIG(status));
    fprintf(stderr, "seed %llu has failed\n", (unsigned long long) options->seed);
    return 0;
}

static int run_twice(const struct sim_options *options)
{
    uint64_t a = run_apart(options), b = run_apart(options);

    if (!a || !b)
        return 1;
    printf("seed %llu: %016llx and %016llx\n", (unsigned long long) options->seed, (unsigned long long) a,
           (unsigned long long) b);
    return a != b;
}

static double seconds_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double) now.tv_sec + (double) now.tv_nsec / 1e9;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct sim_point *) a)->name, ((const struct sim_point *) b)->name);
}

static void print_points(struct sim_points *points)
{
    qsort(points->points, points->count, sizeof points->points[0], compare_names);
    for (unsigned i = 0; i < points->count; i++)
        printf("%-48s %8u passed %6u crashes\n", points->points[i].name, points->points[i].passed,
               points->points[i].crashed);
}

static int run_seeds(struct options *options)
{
    double began = seconds_now();
    uint64_t count = 0, failed = 0;

    for (; count < options->seeds && (options->seconds == 0 || seconds_now() - began < options->seconds); count++) {
        if (!run_apart(&options->sim)) {
            failed = options->sim.seed;
            break;
        }
        options->sim.seed++;
    }
    if (options->sim.points)
        print_points(options->sim.points);
    printf("%llu seeds of %u minutes in %.1f s%s\n", (unsigned long long) count, options->sim.minutes,
           seconds_now() - began, failed ? "" : ": all promises kept");
    if (options->expects_failure)
        printf(failed ? "seed %llu failed, as expected\n" : "no seed failed, though one was expected to\n",
               (unsigned long long) failed);
    return options->expects_failure ? !failed : failed != 0;
}

int main(int argc, char **argv)
{
    struct options options;

    read_options(&options, argc, argv);
    model_init();
    if (options.is_twice)
        return run_twice(&options.sim);
    if (!options.is_one)
        return run_seeds(&options);
    printf("seed %llu: %016llx\n", (unsigned long long) options.sim.seed, (unsigned long long) sim_run(&options.sim));
    return 0;
}
