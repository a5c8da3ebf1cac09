/* served.h - a master of mini_master.h that serves real sockets, its core on a thread of its own
 *
 *     serve_new(&served);    front_add(served.front, ...);    serve_start(&served);
 *     go(&served);           from here on the core is the thread's
 *     unserve(&served); */
#pragma once

#include <pthread.h>

#include "tests/raw_http.h"

#include "tests/unit/mini_master.h"

#include "master/front.h"

struct served {
    struct mini mini;
    struct front *front;
    pthread_t thread;
    uint16_t port;
    char dir[64], path[128];
};

static void *run_core(void *arg)
{
    loop_run(arg);
    return NULL;
}

/* Paths are added in between with front_add, before serve_start. */
_unused_ static void serve_new(struct served *served)
{
    struct core *core = &served->mini.core;

    mini_start_real(&served->mini);
    served->front =
        front_new(core, &(struct front_config){
                            .loops = 2, .rpc_bytes_max = RPC_BYTES_MAX, .bodies_bytes_max = 64u << 20});
}

_unused_ static void serve_start(struct served *served)
{
    assert_int_equal(
        http_listen_tcp(front_server(served->front), "127.0.0.1", 0, NULL, &served->port), 0);
    strcpy(served->dir, "/tmp/drover-test-XXXXXX");
    assert_non_null(mkdtemp(served->dir));
    snprintf(served->path, sizeof served->path, "%s/sock", served->dir);
    assert_int_equal(http_listen_unix(front_server(served->front), served->path), 0);
    assert_int_equal(front_start(served->front), 0);
}

_unused_ static void go(struct served *served)
{
    assert_int_equal(pthread_create(&served->thread, NULL, run_core, served->mini.core.loop), 0);
}

_unused_ static void unserve(struct served *served)
{
    loop_stop(served->mini.core.loop);
    pthread_join(served->thread, NULL);
    front_stop(served->front);
    front_destroy(&served->front);
    mini_run(&served->mini);
    mini_stop(&served->mini);
    unlink(served->path);
    rmdir(served->dir);
}
