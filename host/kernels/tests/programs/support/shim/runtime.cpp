// Runs the threads of a block as fibers on one thread of the processor, so that barriers and
// shuffles mean what they mean on a device. A barrier that not all threads of a block reach ends
// the program with a message. Every other block runs its threads from the last to the first, so
// that a missing barrier shows in the results.

#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>
#include <ucontext.h>

struct ShimDim {
    unsigned x, y, z;
};

struct ShimRuntime {
    ShimDim thread, block, threads, blocks;
    void (*sync)();
    unsigned long long (*exchange)(unsigned long long value, int from);
    void (*launch)(void (*body)(const unsigned long long*), const unsigned long long* arguments,
                   unsigned blocks, unsigned threads);
};

namespace {

const unsigned MOST_THREADS = 1024;
const size_t STACK_BYTES = 256 << 10;

enum State { RUNS, AT_BARRIER, IN_SHUFFLE, DONE };

struct Fiber {
    void* stack;
    void* saved;
    State state;
    unsigned exchanges;
    unsigned long long slots[2];
};

ShimRuntime runtime;
Fiber fibers[MOST_THREADS];
void* scheduler;
unsigned current;
void (*body)(const unsigned long long*);
const unsigned long long* body_arguments;

#if defined(__x86_64__)
extern "C" void shim_switch(void** save, void* load);
asm(R"(
.text
.type shim_switch, @function
shim_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");

void enter();

void prepare(Fiber& fiber) {
    void** top = (void**)((char*)fiber.stack + STACK_BYTES);
    *--top = 0;               // keeps the stack aligned as after a call
    *--top = (void*)&enter;   // where the first switch returns to
    for (int saved = 0; saved < 6; saved++) *--top = 0;
    fiber.saved = top;
}
void to_fiber(Fiber& fiber) { shim_switch(&scheduler, fiber.saved); }
void to_scheduler(Fiber& fiber) { shim_switch(&fiber.saved, scheduler); }
#else
ucontext_t contexts[MOST_THREADS], scheduler_context;
void enter();
void prepare(Fiber& fiber) {
    ucontext_t& context = contexts[&fiber - fibers];
    getcontext(&context);
    context.uc_stack.ss_sp = fiber.stack;
    context.uc_stack.ss_size = STACK_BYTES;
    context.uc_link = 0;
    makecontext(&context, enter, 0);
}
void to_fiber(Fiber& fiber) { swapcontext(&scheduler_context, &contexts[&fiber - fibers]); }
void to_scheduler(Fiber& fiber) { swapcontext(&contexts[&fiber - fibers], &scheduler_context); }
#endif

void enter() {
    body(body_arguments);
    fibers[current].state = DONE;
    to_scheduler(fibers[current]);
    abort();
}

void wait_as(State state) {
    Fiber& fiber = fibers[current];
    fiber.state = state;
    to_scheduler(fiber);
}

void sync() { wait_as(AT_BARRIER); }

unsigned long long exchange(unsigned long long value, int from) {
    Fiber& fiber = fibers[current];
    unsigned side = fiber.exchanges++ % 2;
    fiber.slots[side] = value;
    unsigned warp = current / 32 * 32;
    wait_as(IN_SHUFFLE);
    return fibers[warp + from].slots[side];
}

void step(unsigned thread) {
    current = thread;
    runtime.thread.x = thread;
    to_fiber(fibers[thread]);
}

void run_block(unsigned threads, bool backwards) {
    for (unsigned thread = 0; thread < threads; thread++) {
        fibers[thread].state = RUNS;
        fibers[thread].exchanges = 0;
        prepare(fibers[thread]);
    }
    for (;;) {
        bool moved = false;
        unsigned live = 0, waiting = 0;
        for (unsigned first = 0; first < threads; first += 32) {
            unsigned count = threads - first < 32 ? threads - first : 32;
            for (;;) {
                unsigned shuffling = 0, alive = 0;
                for (unsigned lane = 0; lane < count; lane++) {
                    unsigned thread = first + (backwards ? count - 1 - lane : lane);
                    if (fibers[thread].state == RUNS) {
                        step(thread);
                        moved = true;
                    }
                }
                for (unsigned lane = 0; lane < count; lane++) {
                    shuffling += fibers[first + lane].state == IN_SHUFFLE;
                    alive += fibers[first + lane].state != DONE;
                }
                if (shuffling == 0) break;
                if (shuffling != alive || alive != 32) {
                    std::fprintf(stderr, "a shuffle that not all threads of a warp reach\n");
                    std::abort();
                }
                for (unsigned lane = 0; lane < count; lane++) fibers[first + lane].state = RUNS;
            }
        }
        for (unsigned thread = 0; thread < threads; thread++) {
            live += fibers[thread].state != DONE;
            waiting += fibers[thread].state == AT_BARRIER;
        }
        if (live == 0) return;
        if (waiting == live) {
            if (live != threads) {
                std::fprintf(stderr, "a barrier that not all threads of a block reach\n");
                std::abort();
            }
            for (unsigned thread = 0; thread < threads; thread++) fibers[thread].state = RUNS;
        } else if (!moved) {
            std::fprintf(stderr, "the threads of a block wait for each other\n");
            std::abort();
        }
    }
}

void launch(void (*of)(const unsigned long long*), const unsigned long long* arguments,
            unsigned blocks, unsigned threads) {
    body = of;
    body_arguments = arguments;
    runtime.blocks = {blocks, 1, 1};
    runtime.threads = {threads, 1, 1};
    for (unsigned block = 0; block < blocks; block++) {
        runtime.block = {block, 0, 0};
        run_block(threads, block % 2 == 1);
    }
}

}  // namespace

extern "C" ShimRuntime* shim_runtime() {
    if (!fibers[0].stack) {
        void* stacks = mmap(0, MOST_THREADS * STACK_BYTES, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (stacks == MAP_FAILED) return 0;
        for (unsigned thread = 0; thread < MOST_THREADS; thread++)
            fibers[thread].stack = (char*)stacks + thread * STACK_BYTES;
        runtime.sync = sync;
        runtime.exchange = exchange;
        runtime.launch = launch;
    }
    return &runtime;
}
