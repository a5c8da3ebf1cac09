/* guests_main.c - drover-guests: the simulated guests of one host
 *
 * Started by scripts or a service manager, not by the agent, whose end must not be the guests' end.
 * SIGTERM ends all guests in order: journals say so and locks are free. SIGKILL ends them as a
 * power loss would. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "shared/signals.h"
#include "slave/guest.h"

static void print_help(FILE *out)
{
    fputs("drover-guests - the simulated guests of a Drover host\n"
          "\n"
          "  drover-guests --socket PATH --host-uuid UUID [--log FILE] [--default KEY=VALUE]...\n"
          "\n"
          "  --socket PATH        unix socket at which the host's agent (drover-slave) connects\n"
          "  --host-uuid UUID     the host, as the guests' journals name it\n"
          "  --log FILE           append the log to the file instead of standard error\n"
          "  --default KEY=VALUE  an option for all guests that do not set it themselves; "
          "repeatable\n"
          "  --help, --version\n"
          "\n"
          "Options of guests (VM.other_config, the host's configuration, --default), with "
          "defaults:\n",
          out);
    guest_options_help(out);
}

static void usage(const char *what, const char *text)
{
    fprintf(stderr, "drover-guests: %s%s; --help says more\n", what, text);
    exit(2);
}

static void add_default(struct guest_options *defaults, const char *text)
{
    const char *equals = strchr(text, '=');
    struct guest_error error;
    char key[64];

    if (!equals || (size_t) (equals - text) >= sizeof(key))
        usage("--default takes KEY=VALUE, not ", text);
    memcpy(key, text, (size_t) (equals - text));
    key[equals - text] = '\0';
    if (!guest_option_exists(key))
        usage("there is no option ", key);
    if (guest_option_set(defaults, key, equals + 1, &error) < 0)
        usage(error.text, "");
}

/* Two descriptors a running guest: take as many as we may have. */
static void raise_limits(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void) setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void signal_came(void *arg, _unused_ uint32_t events)
{
    loop_stop(arg);
}

int main(int argc, char **argv)
{
    static const struct option long_options[] = {
        {"socket", required_argument, NULL, 's'},
        {"host-uuid", required_argument, NULL, 'u'},
        {"log", required_argument, NULL, 'l'},
        {"default", required_argument, NULL, 'd'},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'v'},
        {NULL, 0, NULL, 0},
    };
    struct guest_options defaults = guest_options_default;
    const char *socket_path = NULL, *log_path = NULL;
    ref_t host_uuid = NULL_REF;
    struct guests *guests;
    struct loop *loop;
    int option, signal_fd;

    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1)
        switch (option) {
        case 's':
            socket_path = optarg;
            break;
        case 'u':
            if (!uuid_parse(optarg, strlen(optarg), &host_uuid))
                usage("--host-uuid takes a uuid, not ", optarg);
            break;
        case 'l':
            log_path = optarg;
            break;
        case 'd':
            add_default(&defaults, optarg);
            break;
        case 'h':
            print_help(stdout);
            return 0;
        case 'v':
            puts("drover-guests " DROVER_VERSION);
            return 0;
        default:
            usage("unknown or incomplete option", "");
        }
    if (optind < argc)
        usage("what is ", argv[optind]);
    if (!socket_path || ref_is_null(host_uuid))
        usage("--socket and --host-uuid are needed", "");
    if (log_path && !freopen(log_path, "ae", stderr)) {
        printf("drover-guests: cannot open %s: %s\n", log_path, strerror(errno));
        return 1;
    }
    setvbuf(stderr, NULL, _IOLBF, 0);
    raise_limits();

    signal_fd = signals_open(false);
    loop = loop_new(clock_real());
    if (signal_fd < 0 || loop_watch_fd(loop, signal_fd, EPOLLIN, signal_came, loop) < 0)
        die("cannot wait for signals: %s", strerror(errno));
    guests = guests_new(loop, socket_path, host_uuid, &defaults);
    guests_log("drover-guests " DROVER_VERSION " for host %s at %s", guests->host_uuid,
               socket_path);

    loop_run(loop);

    guests_log("asked to end");
    guests_destroy(&guests);
    loop_unwatch_fd(loop, signal_fd);
    close_fd(&signal_fd);
    loop_destroy(&loop);
    return 0;
}
