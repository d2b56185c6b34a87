// Runs CUDA kernels on a host, to test their control flow where there is no GPU: every thread of a block is a fiber
// that runs until it waits for its warp or its block; warps, lanes and blocks take their turns forwards or backwards, as
// the test asks.
//
// It finds: wrong indices and sums, a lane missing from a warp operation, lanes at different warp operations, barriers
// that not all threads reach or that are missing, more dynamic shared memory used than asked for, and results that depend
// on the order of threads or blocks. It does not find races that give the same result in both orders, and says nothing
// about speed.
#pragma once

#include <csetjmp>
#include <cstring>
#include <ucontext.h>
#include <utility>
#include <vector>

#include "portable.cuh"

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(n)
#define __align__(n) __attribute__((aligned(n)))
#define __shared__ static  // blocks run one after the other
#define DYNAMIC_SHARED(TYPE, NAME) TYPE *NAME = (TYPE *)dynamic_shared

struct dim3 {
    unsigned x, y, z;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(16) float4 {
    float x, y, z, w;
};

enum State { READY, AT_BLOCK, AT_WARP, DONE };

struct Fiber {
    jmp_buf place;  // where it goes on; a context begins it, since switching contexts asks the kernel every time
    ucontext_t context;
    std::vector<char> stack;
    bool begun;
    State state;
    dim3 index;
    int turn;
};
struct Warp {
    char slots[2][32][16];
    int operation[2][32];
};

static dim3 threadIdx, blockIdx, blockDim, gridDim;
static unsigned char dynamic_shared[1 << 16] __align__(16);
static size_t shared_bytes;  // that the launch asked for
static std::vector<Fiber> fibers;
static std::vector<Warp> warps;
static jmp_buf scheduler;
static int current;
static const char *fault;

static void wait_as(State state) {
    fibers[current].state = state;
    if (!_setjmp(fibers[current].place)) _longjmp(scheduler, 1);
}

static void __syncthreads() { wait_as(AT_BLOCK); }
static void __threadfence() {}
static int __popc(unsigned bits) { return __builtin_popcount(bits); }
static unsigned atomicAdd(unsigned *at, unsigned value) { return std::exchange(*at, *at + value); }
static unsigned atomicOr(unsigned *at, unsigned value) { return std::exchange(*at, *at | value); }

template <class T>
static T exchanged(T value, int source, int operation) {
    const int lane = current % 32, turn = fibers[current].turn ^= 1;  // two buffers: one lane may be a step ahead
    Warp &warp = warps[current / 32];
    memcpy(warp.slots[turn][lane], &value, sizeof value);
    warp.operation[turn][lane] = operation;
    wait_as(AT_WARP);
    for (int other = 0; other < 32; ++other)
        if (warp.operation[turn][other] != operation) fault = "lanes of a warp are at different operations";
    memcpy(&value, warp.slots[turn][source], sizeof value);
    return value;
}

template <class T>
static T __shfl_xor_sync(unsigned, T value, int step) { return exchanged(value, current % 32 ^ step, 100 + step); }
template <class T>
static T __shfl_up_sync(unsigned, T value, int step) {
    const int lane = current % 32;
    return exchanged(value, lane < step ? lane : lane - step, 200 + step);
}
template <class T>
static T __shfl_sync(unsigned, T value, int source) { return exchanged(value, source, 300 + source); }

static void (*body)(void **);
static void **arguments;

static void enter() {
    for (;;) {  // a block after the other
        body(arguments);
        wait_as(DONE);
    }
}

static void resume(Fiber &fiber) {
    if (_setjmp(scheduler)) return;
    if (fiber.begun) _longjmp(fiber.place, 1);
    fiber.begun = true;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, enter, 0);
    setcontext(&fiber.context);
}

static bool all_are(size_t first, size_t end, State state, bool or_done) {
    bool any = false;
    for (size_t i = first; i < end; ++i) {
        any |= fibers[i].state == state;
        if (fibers[i].state != state && !(or_done && fibers[i].state == DONE)) return false;
    }
    return any;
}

static bool release(size_t first, size_t end, State state, bool or_done) {
    if (!all_are(first, end, state, or_done)) return false;
    for (size_t i = first; i < end; ++i)
        if (fibers[i].state == state) fibers[i].state = READY;
    return true;
}

static void run_warp(size_t first, bool backwards) {
    do {
        for (size_t lane = 0; lane < 32; ++lane) {
            current = (int)(first + (backwards ? 31 - lane : lane));
            if (fibers[current].state != READY) continue;
            threadIdx = fibers[current].index;
            resume(fibers[current]);
        }
    } while (release(first, first + 32, AT_WARP, false) && !fault);
}

static void run_block(bool backwards) {
    const size_t count = fibers.size();
    memset(dynamic_shared, 0xA5, sizeof dynamic_shared);
    for (Fiber &fiber : fibers) {
        fiber.state = READY;
        fiber.turn = 0;
    }
    do {  // a warp runs as far ahead of the others as it may
        for (size_t warp = 0; warp < count; warp += 32)
            run_warp(backwards ? count - 32 - warp : warp, backwards);
    } while (release(0, count, AT_BLOCK, true) && !fault);
    for (size_t i = shared_bytes; i < sizeof dynamic_shared; ++i)
        if (dynamic_shared[i] != 0xA5) fault = "more dynamic shared memory is written to than the launch asked for";
    for (const Fiber &fiber : fibers)
        if (fiber.state != DONE && !fault) fault = "threads wait for others that never come";
}

template <class... A, size_t... I>
static void unpacked(void (*kernel)(A...), void **values, std::index_sequence<I...>) {
    kernel(*(A *)values[I]...);
}

template <auto KERNEL>
struct Launch;
template <class... A, void (*KERNEL)(A...)>
struct Launch<KERNEL> {
    static constexpr int count = sizeof...(A);
    static constexpr unsigned char sizes[] = {sizeof(A)...};
    static void run(void **values) { unpacked(KERNEL, values, std::index_sequence_for<A...>()); }
};

// Runs a grid; null, or what is wrong with the kernel.
static const char *run_grid(void (*kernel)(void **), dim3 grid, dim3 block, size_t shared, void **values,
                            bool backwards) {
    shared_bytes = shared;
    body = kernel;
    arguments = values;
    gridDim = grid;
    blockDim = block;
    fault = nullptr;
    fibers.resize(block.x * block.y * block.z);
    warps.resize(fibers.size() / 32);
    for (size_t i = 0; i < fibers.size(); ++i) {
        fibers[i].stack.resize(1 << 16);
        fibers[i].index = {unsigned(i % block.x), unsigned(i / block.x % block.y), unsigned(i / block.x / block.y)};
    }
    const unsigned blocks = grid.x * grid.y * grid.z;
    for (unsigned i = 0; i < blocks && !fault; ++i) {
        const unsigned number = backwards ? blocks - 1 - i : i;
        blockIdx = {number % grid.x, number / grid.x % grid.y, number / grid.x / grid.y};
        run_block(backwards);
    }
    if (fault) fibers.clear();  // some stand in the middle of a kernel
    return fault;
}
