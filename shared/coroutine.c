/* coroutine.c - a stack of its own for a function, and the switch to it and back
 *
 * A coroutine is entered for the first time by setcontext. Every later switch is a sigsetjmp that
 * saves no signal mask and a siglongjmp, because swapcontext would make a system call each time.
 * (POSIX does not promise that one can jump to another stack; glibc does it, and QEMU has relied on
 * it for years.)
 *
 *   guard           stack, grows downwards
 *   | PROT_NONE ... | ............................ <- frames of run() |
 *
 * A frame that runs over the end meets the guard and the process dies by SIGSEGV; it never writes
 * into a neighbour. The sanitizers are told of every switch. The thread sanitizer keeps a shadow
 * call stack that it repairs in longjmp by searching, so there we use swapcontext, which it does
 * not look into. */
#undef _FORTIFY_SOURCE /* its longjmp refuses to jump to another stack */

#include "shared/coroutine.h"

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if __has_feature(address_sanitizer) || defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#include <sanitizer/lsan_interface.h>
#endif
#if __has_feature(thread_sanitizer) || defined(__SANITIZE_THREAD__)
#define WITH_TSAN 1
#include <sanitizer/tsan_interface.h>
#endif

/* Instrumented frames are several times larger. */
#if defined(WITH_ASAN) || defined(WITH_TSAN)
#define STACK_BYTES (256 * 1024)
#else
#define STACK_BYTES (64 * 1024)
#endif

/* Only address space; wide, so that a function with a large local array cannot step over it. */
#define GUARD_BYTES (64 * 1024)

struct coroutine {
    void (*run)(void *arg);
    void *arg;
    char *memory; /* guard, then stack */
    bool is_started;
#ifdef WITH_TSAN
    ucontext_t inside, outside;
    void *tsan_inside, *tsan_outside;
#else
    sigjmp_buf inside, outside; /* where each side goes on */
#endif
#ifdef WITH_ASAN
    void *fake_inside, *fake_outside; /* asan's fake frames of each side */
    const void *outside_bottom;
    size_t outside_bytes;
#endif
};

static char *stack_of(const struct coroutine *coroutine)
{
    return coroutine->memory + GUARD_BYTES;
}

struct coroutine *coroutine_new(void (*run)(void *arg), void *arg)
{
    struct coroutine *coroutine;
    char *memory = mmap(NULL, GUARD_BYTES + STACK_BYTES, PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);

    if (memory == MAP_FAILED)
        return NULL;
    if (mprotect(memory + GUARD_BYTES, STACK_BYTES, PROT_READ | PROT_WRITE) < 0) {
        munmap(memory, GUARD_BYTES + STACK_BYTES);
        return NULL;
    }
    coroutine = new0(struct coroutine);
    coroutine->run = run;
    coroutine->arg = arg;
    coroutine->memory = memory;
#ifdef WITH_ASAN
    /* What its locals point to is no leak. */
    __lsan_register_root_region(stack_of(coroutine), STACK_BYTES);
#endif
#ifdef WITH_TSAN
    coroutine->tsan_inside = __tsan_create_fiber(0);
#endif
    return coroutine;
}

/* --- switching --- */

static void switched_in(_unused_ struct coroutine *coroutine)
{
#ifdef WITH_ASAN
    __sanitizer_finish_switch_fiber(coroutine->fake_inside, &coroutine->outside_bottom,
                                    &coroutine->outside_bytes);
#endif
}

/* makecontext passes ints only, so the pointer comes in two halves. */
static void coroutine_main(unsigned high, unsigned low)
{
    struct coroutine *coroutine = (struct coroutine *) ((uintptr_t) high << 32 | low);

    switched_in(coroutine);
    coroutine->run(coroutine->arg);
    die("a coroutine returned");
}

static void context_init(struct coroutine *coroutine, ucontext_t *context)
{
    uintptr_t p = (uintptr_t) coroutine;

    if (getcontext(context) < 0)
        die("getcontext fails");
    context->uc_link = NULL;
    context->uc_stack.ss_sp = stack_of(coroutine);
    context->uc_stack.ss_size = STACK_BYTES;
    makecontext(context, (void (*)(void)) coroutine_main, 2, (unsigned) (p >> 32), (unsigned) p);
}

#ifdef WITH_TSAN

void coroutine_enter(struct coroutine *coroutine)
{
    if (!coroutine->is_started)
        context_init(coroutine, &coroutine->inside);
    coroutine->is_started = true;
    coroutine->tsan_outside = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(coroutine->tsan_inside, 0);
    swapcontext(&coroutine->outside, &coroutine->inside);
}

void coroutine_leave(struct coroutine *coroutine)
{
    __tsan_switch_to_fiber(coroutine->tsan_outside, 0);
    swapcontext(&coroutine->inside, &coroutine->outside);
}

#else

/* Its frame is left behind on the outer stack without a return, so the address sanitizer may not
 * mark red zones in it: they would stay. */
__attribute__((noreturn, noinline, no_sanitize("address"))) static void
start(struct coroutine *coroutine)
{
    ucontext_t context;

    coroutine->is_started = true;
    context_init(coroutine, &context);
    setcontext(&context);
    die("setcontext fails");
}

/* Neither is inlined, nor has locals: nothing can be kept in a register across the jump. */
__attribute__((noinline)) void coroutine_enter(struct coroutine *coroutine)
{
    if (sigsetjmp(coroutine->outside, 0) == 0) {
#ifdef WITH_ASAN
        __sanitizer_start_switch_fiber(&coroutine->fake_outside, stack_of(coroutine), STACK_BYTES);
#endif
        if (!coroutine->is_started)
            start(coroutine);
        siglongjmp(coroutine->inside, 1);
    }
#ifdef WITH_ASAN
    __sanitizer_finish_switch_fiber(coroutine->fake_outside, NULL, NULL);
#endif
}

__attribute__((noinline)) void coroutine_leave(struct coroutine *coroutine)
{
    if (sigsetjmp(coroutine->inside, 0) == 0) {
#ifdef WITH_ASAN
        __sanitizer_start_switch_fiber(&coroutine->fake_inside, coroutine->outside_bottom,
                                       coroutine->outside_bytes);
#endif
        siglongjmp(coroutine->outside, 1);
    }
    switched_in(coroutine);
}

#endif

/* --- the end --- */

#ifdef WITH_ASAN
/* A frozen fiber is released without its guards having run, so what it owned is lost by design.
 * Tell the leak checker: whatever a word of the stack, of a saved register or of one of asan's fake
 * frames points to is to be ignored. */
__attribute__((no_sanitize("address"))) static void forgive_leaks(const struct coroutine *coroutine,
                                                                  const void *words, size_t bytes)
{
    void *const *word = words;

    for (size_t i = 0; i < bytes / sizeof(*word); i++) {
        void *begin, *end;

        if (!word[i])
            continue;
        __lsan_ignore_object(word[i]);
        if (!coroutine->fake_inside
            || !__asan_addr_is_in_fake_stack(coroutine->fake_inside, word[i], &begin, &end))
            continue;
        for (void **local = begin; local < (void **) end; local++)
            if (*local)
                __lsan_ignore_object(*local);
    }
}
#endif

void coroutine_destroy(struct coroutine **coroutine_p)
{
    struct coroutine *coroutine = TAKE(*coroutine_p);

    if (!coroutine)
        return;
#ifdef WITH_ASAN
    forgive_leaks(coroutine, stack_of(coroutine), STACK_BYTES);
    forgive_leaks(coroutine, &coroutine->inside, sizeof(coroutine->inside));
    __lsan_unregister_root_region(stack_of(coroutine), STACK_BYTES);
    /* The address will be used again. */
    __asan_unpoison_memory_region(stack_of(coroutine), STACK_BYTES);
#endif
#ifdef WITH_TSAN
    __tsan_destroy_fiber(coroutine->tsan_inside);
#endif
    munmap(coroutine->memory, GUARD_BYTES + STACK_BYTES);
    free(coroutine);
}
