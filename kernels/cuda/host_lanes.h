// Eight or four 32-bit words side by side, each in the low half of 64 bits: a kind of word for the templates of philox.cuh, which
// must be included after this.
//
// The high halves hold what a multiplication left there: nobody reads them, so they are never cleared. That saves all
// shuffling, and leaves two multiplications, two shifts and two joins a round.
#pragma once

#include "portable.cuh"

#if defined(__AVX512F__)
#define LANES 8
#else
#define LANES 4
#endif

#if defined(__AVX2__)
#include <immintrin.h>
#endif

typedef u64 Lanes __attribute__((vector_size(8 * LANES)));
typedef s64 Sums __attribute__((vector_size(8 * LANES)));

FUNCTION Lanes all(u32 word) { return Lanes{} + (u64)word; }

FUNCTION Lanes wide_product(Lanes words, u32 multiplier) {
#if defined(__AVX512F__)
    return (Lanes)_mm512_mul_epu32((__m512i)words, _mm512_set1_epi64(multiplier));
#elif defined(__AVX2__)
    return (Lanes)_mm256_mul_epu32((__m256i)words, _mm256_set1_epi64x(multiplier));
#else
    return (words & 0xFFFFFFFFull) * (u64)multiplier;
#endif
}

FUNCTION Lanes high_half(Lanes product) { return product >> 32; }
FUNCTION Lanes low_half(Lanes product) { return product; }
FUNCTION Lanes join(Lanes a, Lanes b, u32 key) { return a ^ b ^ (u64)key; }

// All ones in the lanes whose word is below the limit.
FUNCTION Sums below_limit(Lanes words, u32 limit) { return (Sums)(words << 32 < Lanes{} + ((u64)limit << 32)); }
