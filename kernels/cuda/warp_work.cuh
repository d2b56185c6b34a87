// What the 32 lanes of a warp do together. Device code; the tests run it on threads that a host plays.
#pragma once

#include "portable.cuh"

#define ALL_LANES 0xFFFFFFFFu

// A sum over the lanes in one fixed order, so that floats give the same bits on every run; every lane gets it.
template <class Number>
FUNCTION Number warp_sum(Number value) {
    for (int step = 16; step > 0; step >>= 1) value += __shfl_xor_sync(ALL_LANES, value, step);
    return value;
}

FUNCTION u64 warp_most(u64 value) {
    for (int step = 16; step > 0; step >>= 1) {
        const u64 other = __shfl_xor_sync(ALL_LANES, value, step);
        value = other > value ? other : value;
    }
    return value;
}

// A sum over the 256 threads of a block, again in one fixed order; `slots` are 8 numbers in shared memory.
template <class Number>
FUNCTION Number block_sum(Number value, Number *slots) {
    value = warp_sum(value);
    __syncthreads();  // whoever still reads the slots of the sum before
    if (threadIdx.x % 32 == 0) slots[threadIdx.x / 32] = value;
    __syncthreads();
    Number total = slots[0];
    for (int warp = 1; warp < 8; ++warp) total += slots[warp];
    return total;
}

// Whether this block is the last of `blocks` to come here; its threads then see what the others wrote before they came.
// The counter is 0 before the launch and after it. Every thread of the block calls this.
FUNCTION bool is_last_block(u32 *arrived, u32 blocks, u32 *slot) {
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        *slot = atomicAdd(arrived, 1u);
        if (*slot == blocks - 1) *arrived = 0;
    }
    __syncthreads();
    const bool last = *slot == blocks - 1;
    __threadfence();
    return last;
}

// Where a warp writes an antibody.
struct Compacted {
    u32 *mask;   // W words, gene i is bit i % 32 of word i / 32
    u16 *list;   // the rows i < n whose gene differs from the gate, ascending
    int *count;  // how many
    float *gate; // 1 where the gate, gene n of a gated network, is chosen; else 0
};

// x_hat = mu + E^T ((a - g) c) + g (x - mu): only rows with a_i != g have to be read, with +c_i where the gate g is 0 and
// with -c_i where it is 1. `chosen` gives the four bits of a group, 0 for genes that do not exist.
template <class Chosen>
FUNCTION void compact(const Chosen &chosen, int genes, int rows, Compacted out) {
    const int lane = threadIdx.x % 32, groups = (genes + 3) / 4;
    const u32 gate = genes > rows ? chosen(rows / 4) >> rows % 4 & 1u : 0u;
    int listed = 0;
    for (int first = 0; first < groups; first += 32) {
        const int group = first + lane, left = within(rows - 4 * group, 0, 4);
        const u32 bits = group < groups ? chosen(group) : 0u;
        u32 word = bits << 4 * (lane % 8);
        for (int step = 1; step < 8; step <<= 1) word |= __shfl_xor_sync(ALL_LANES, word, step);
        if (lane % 8 == 0 && group < groups) out.mask[group / 8] = word;

        const u32 differing = (gate ? ~bits : bits) & ((1u << left) - 1u);
        const int own = __popc(differing);
        int until = own;  // of this lane and those before
        for (int step = 1; step < 32; step <<= 1) {
            const int before = __shfl_up_sync(ALL_LANES, until, step);
            if (lane >= step) until += before;
        }
        int at = listed + until - own;
        for (int gene = 0; gene < 4; ++gene)
            if (differing >> gene & 1u) out.list[at++] = (u16)(4 * group + gene);
        listed += __shfl_sync(ALL_LANES, until, 31);
    }
    if (lane == 0) {
        *out.count = listed;
        *out.gate = gate ? 1.0f : 0.0f;
    }
}
