// Embeddings to answers: unit length, the mean over a face's clones and views, and the nearest templates of two people.
//
// mean_embedding: a block a face. match: a warp a template; every block keeps its best two candidates, and the last block
// of a face to finish compares the blocks' candidates. The rule of ranking.cuh does not depend on the order of comparing.
//
// nvcc -cubin -arch=sm_90 match.cu
#include "antibody.cuh"
#include "ranking.cuh"
#include "warp_work.cuh"

FUNCTION float length_of(float sum_of_squares) {
    const float length = root(sum_of_squares);
    return length > 1e-12f ? length : 1e-12f;
}

// block 256, grid (B), dynamic shared memory 4 * length bytes.
// rows: (B, count, length), not zero; embeddings: (B, length) of unit length; status: (B,), or-ed into.
extern "C" __global__ void __launch_bounds__(256)
mean_embedding(const float *__restrict__ rows, float *__restrict__ embeddings, u32 *__restrict__ status, int count,
               int length) {
    DYNAMIC_SHARED(float, total);
    __shared__ float slots[8];
    const s64 face = blockIdx.x;
    for (int i = threadIdx.x; i < length; i += 256) total[i] = 0.0f;  // each thread meets only its own ones
    for (int row = 0; row < count; ++row) {
        const float *vector = rows + (face * count + row) * length;
        float squares = 0.0f;
        for (int i = threadIdx.x; i < length; i += 256) squares = fused(vector[i], vector[i], squares);
        const float norm = length_of(block_sum(squares, slots));
        for (int i = threadIdx.x; i < length; i += 256) total[i] = plus(total[i], over(vector[i], norm));
    }
    float squares = 0.0f;
    for (int i = threadIdx.x; i < length; i += 256) {
        total[i] = over(total[i], (float)count);
        squares = fused(total[i], total[i], squares);
    }
    squares = block_sum(squares, slots);
    if (threadIdx.x == 0 && !(squares <= 2.0f)) atomicOr(status + face, STATUS_EMBEDDING);  // NaN and infinity fail this
    for (int i = threadIdx.x; i < length; i += 256) embeddings[face * length + i] = over(total[i], length_of(squares));
}

FUNCTION float cosine(const float *a, const float *b, int length) {
    float sum = 0.0f;
    for (int i = threadIdx.x % 32; i < length; i += 32) sum = fused(a[i], b[i], sum);
    return warp_sum(sum);
}

// block 256, grid (G, B) with any G, no dynamic shared memory.
// templates: (count, length) of unit length; persons: (count,), 0 or more; embeddings: (B, length); scratch: (B, G) pairs of
// candidates, 24 bytes each; arrived: (B,), 0 before and after. best: (B,), the index of the nearest template, -1 where
// there is none; similarity: (B,) its cosine, -1 likewise; margin: (B,) the distance to the best of another person,
// infinite where there is no other.
extern "C" __global__ void __launch_bounds__(256)
match(const float *__restrict__ templates, const int *__restrict__ persons, const float *__restrict__ embeddings,
      BestTwo *scratch, u32 *arrived, int *__restrict__ best, float *__restrict__ similarity,
      float *__restrict__ margin, int count, int length) {
    __shared__ BestTwo of_warp[8];
    __shared__ u32 place;
    const int face = blockIdx.y, warp = threadIdx.x / 32;
    BestTwo two = {no_candidate(), no_candidate()};
    for (int index = blockIdx.x * 8 + warp; index < count; index += gridDim.x * 8) {
        const float found = cosine(templates + (s64)index * length, embeddings + (s64)face * length, length);
        consider(&two, Candidate{found, index, persons[index]});
    }
    if (threadIdx.x % 32 == 0) of_warp[warp] = two;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int other = 1; other < 8; ++other) merge(&two, of_warp[other]);
        scratch[(s64)face * gridDim.x + blockIdx.x] = two;
    }
    if (!is_last_block(arrived + face, gridDim.x, &place) || threadIdx.x != 0) return;

    two = scratch[(s64)face * gridDim.x];
    for (u32 block = 1; block < gridDim.x; ++block) merge(&two, scratch[(s64)face * gridDim.x + block]);
    const bool found = two.best.index != NOBODY, other = two.other.index != NOBODY;
    best[face] = two.best.index;
    similarity[face] = found ? two.best.similarity : -1.0f;
    margin[face] = other ? plus(two.best.similarity, -two.other.similarity) : float_of(0x7F800000u);
}
