// Clones of an antibody: drawn, scored, selected and compacted in one launch; no mask is stored but the winners'.
// A warp draws a clone, a lane a group of four genes a call of the generator, and sums the weights of those chosen.
// Scores are whole numbers, so the order of summing does not matter. The last block of a face to finish takes the best m,
// draws them again from their counters and writes them as bits and as lists of rows.
//
// nvcc -cubin -arch=sm_90 select.cu
#include "antibody.cuh"
#include "warp_work.cuh"

FUNCTION Four<u32> four(uint4 v) { return Four<u32>{v.x, v.y, v.z, v.w}; }
FUNCTION Four<int> whole(uint4 v) { return Four<int>{(int)v.x, (int)v.y, (int)v.z, (int)v.w}; }

struct Clone {
    u32 number, face, frame;
    u64 seed;

    FUNCTION_IN_CLASS Four<u32> draws(int group) const { return draw((u32)group, number, face, frame, seed); }
};

struct ChosenOfClone {
    Clone clone;
    const uint4 *limits;

    FUNCTION_IN_CLASS u32 operator()(int group) const { return chosen_of(clone.draws(group), four(limits[group])); }
};

// Limits and weights from probabilities and coefficients; the `padded - genes` last ones are 0 and never chosen.
// block 128, grid (ceil(padded / 128), B), no dynamic shared memory. padded: genes rounded up to a multiple of 4.
// probabilities: (B, genes); coefficients: (B, coefficient_stride); limits, weights: (B, padded); status: (B,), or-ed into.
extern "C" __global__ void __launch_bounds__(128)
gene_weights(const float *__restrict__ probabilities, const float *__restrict__ coefficients, u32 *__restrict__ limits,
             int *__restrict__ weights, u32 *__restrict__ status, int genes, int padded, int coefficient_stride,
             int pixels, double residual, double size, double likelihood) {
    const int gene = blockIdx.x * 128 + threadIdx.x, face = blockIdx.y;
    if (gene >= padded) return;
    u32 limit = 0;
    int weight = 0;
    if (gene < genes) {
        const float p = probabilities[(s64)face * genes + gene];
        bool is_number = true;
        if (is_probability(p)) {
            limit = limit_of(p);
            const float c = coefficients[(s64)face * coefficient_stride + gene];
            weight = weight_of(p, c, Terms{residual, size, likelihood}, pixels, &is_number);
        } else {
            atomicOr(status + face, STATUS_PROBABILITY);
        }
        if (!is_number) atomicOr(status + face, STATUS_WEIGHT);
    }
    limits[(s64)face * padded + gene] = limit;
    weights[(s64)face * padded + gene] = weight;
}

// The masks of the clones with the given numbers. block 256, grid (ceil(count / 8), B), no dynamic shared memory.
// limits: (B, padded); frames, faces: (B,); clones: (B, count); masks: (B, count, ceil(genes / 32)).
extern "C" __global__ void __launch_bounds__(256)
mutate(const uint4 *__restrict__ limits, const u32 *__restrict__ frames, const u32 *__restrict__ faces,
       const u32 *__restrict__ clones, u32 *__restrict__ masks, u64 seed, int count, int genes, int padded) {
    const int number = blockIdx.x * 8 + threadIdx.x / 32, face = blockIdx.y, lane = threadIdx.x % 32;
    if (number >= count) return;  // a whole warp
    const s64 row = (s64)face * count + number;
    const int groups = padded / 4, words = (genes + 31) / 32;
    const ChosenOfClone chosen = {{clones[row], faces[face], frames[face], seed}, limits + (s64)face * groups};
    for (int first = 0; first < groups; first += 32) {
        const int group = first + lane;
        u32 word = (group < groups ? chosen(group) : 0u) << 4 * (lane % 8);
        for (int step = 1; step < 8; step <<= 1) word |= __shfl_xor_sync(ALL_LANES, word, step);
        if (lane % 8 == 0 && group < groups) masks[row * words + group / 8] = word;
    }
}

FUNCTION s64 warp_score(const Clone &clone, const uint4 *limits, const uint4 *weights, int groups) {
    int sum = 0;  // of at most 128 genes a lane: inside 30 bits and the sign
    for (int group = threadIdx.x % 32; group < groups; group += 32)
        sum += score_of(clone.draws(group), four(limits[group]), whole(weights[group]));
    return warp_sum((s64)sum);
}

// The clones of the `keep` largest keys, best first, into shared `kept`, by the 256 threads of a block.
FUNCTION void select_best(const s64 *scores, int count, int keep, int *kept, u64 *slots) {
    u64 mine[MOST_CLONES / 256];
    UNROLLED
    for (int j = 0; j < MOST_CLONES / 256; ++j) {
        const int clone = threadIdx.x + 256 * j;
        mine[j] = clone < count ? key_of(scores[clone], clone) : 0;  // no clone's key is 0
    }
    u64 last = ~0ull;
    for (int place = 0; place < keep; ++place) {
        u64 best = 0;
        UNROLLED
        for (int j = 0; j < MOST_CLONES / 256; ++j) best = mine[j] < last && mine[j] > best ? mine[j] : best;
        best = warp_most(best);
        if (threadIdx.x % 32 == 0) slots[threadIdx.x / 32] = best;
        __syncthreads();
        last = slots[0];
        for (int warp = 1; warp < 8; ++warp) last = slots[warp] > last ? slots[warp] : last;
        if (threadIdx.x == 0) kept[place] = clone_of(last);
        __syncthreads();
    }
}

// block 256, grid (G, B) with any G, dynamic shared memory 8 * padded bytes.
// limits, weights: (B, padded); frames, faces: (B,); scores: (B, count); arrived: (B,), 0 before and after;
// winners: (B, keep), best first; masks: (B, keep, ceil(genes / 32)); lists: (B, keep, rows); counts, gates: (B, keep).
// genes: rows, or rows + 1 where the last gene is the gate. 1 <= keep <= min(16, count), count <= 4096, genes <= 4096.
extern "C" __global__ void __launch_bounds__(256)
select_clones(const uint4 *__restrict__ limits, const uint4 *__restrict__ weights, const u32 *__restrict__ frames,
              const u32 *__restrict__ faces, s64 *scores, u32 *arrived, int *__restrict__ winners, u32 *__restrict__ masks,
              u16 *__restrict__ lists, int *__restrict__ counts, float *__restrict__ gates, u64 seed, int count, int keep,
              int genes, int padded, int rows) {
    DYNAMIC_SHARED(uint4, held);
    __shared__ u64 slots[8];
    __shared__ int kept[MOST_KEPT];
    __shared__ u32 place;
    const int face = blockIdx.y, warp = threadIdx.x / 32, groups = padded / 4;
    uint4 *held_weights = held + groups;
    for (int group = threadIdx.x; group < groups; group += 256) {
        held[group] = limits[(s64)face * groups + group];
        held_weights[group] = weights[(s64)face * groups + group];
    }
    __syncthreads();

    Clone clone = {0, faces[face], frames[face], seed};
    for (int number = blockIdx.x * 8 + warp; number < count; number += gridDim.x * 8) {
        clone.number = (u32)number;
        const s64 score = warp_score(clone, held, held_weights, groups);
        if (threadIdx.x % 32 == 0) scores[(s64)face * count + number] = score;
    }
    if (!is_last_block(arrived + face, gridDim.x, &place)) return;

    select_best(scores + (s64)face * count, count, keep, kept, slots);
    for (int number = warp; number < keep; number += 8) {
        const s64 row = (s64)face * keep + number;
        clone.number = (u32)kept[number];
        if (threadIdx.x % 32 == 0) winners[row] = kept[number];
        compact(ChosenOfClone{clone, held}, genes, rows,
                Compacted{masks + row * ((genes + 31) / 32), lists + row * rows, counts + row, gates + row});
    }
}

struct ChosenAsLikely {
    const float *probabilities;
    int genes;

    FUNCTION_IN_CLASS u32 operator()(int group) const {
        u32 bits = 0;
        for (int gene = 0; gene < 4; ++gene)
            if (4 * group + gene < genes && probabilities[4 * group + gene] > 0.5f) bits |= 1u << gene;
        return bits;
    }
};

// Mode threshold: the genes whose probability is above one half. block 32, grid (B), no dynamic shared memory.
// probabilities: (B, genes); masks: (B, ceil(genes / 32)); lists: (B, rows); counts, gates: (B,); status: (B,), or-ed into.
extern "C" __global__ void __launch_bounds__(32)
take_likely(const float *__restrict__ probabilities, u32 *__restrict__ masks, u16 *__restrict__ lists,
            int *__restrict__ counts, float *__restrict__ gates, u32 *__restrict__ status, int genes, int rows) {
    const s64 face = blockIdx.x;
    for (int gene = threadIdx.x; gene < genes; gene += 32)
        if (!is_probability(probabilities[face * genes + gene])) atomicOr(status + face, STATUS_PROBABILITY);
    compact(ChosenAsLikely{probabilities + face * genes, genes}, genes, rows,
            Compacted{masks + face * ((genes + 31) / 32), lists + face * rows, counts + face, gates + face});
}
