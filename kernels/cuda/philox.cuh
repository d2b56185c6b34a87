// Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011).
//
// Written once for any kind of word: a plain 32-bit word here, eight words side by side in the host build. A kind of
// word brings wide_product, high_half, low_half and join.
#pragma once

#include "portable.cuh"

#define PHILOX_ROUNDS 10
#define PHILOX_MULTIPLIER_0 0xD2511F53u
#define PHILOX_MULTIPLIER_1 0xCD9E8D57u
#define PHILOX_WEYL_0 0x9E3779B9u
#define PHILOX_WEYL_1 0xBB67AE85u

FUNCTION u64 wide_product(u32 word, u32 multiplier) { return (u64)word * multiplier; }
FUNCTION u32 high_half(u64 product) { return (u32)(product >> 32); }
FUNCTION u32 low_half(u64 product) { return (u32)product; }
FUNCTION u32 join(u32 a, u32 b, u32 key) { return a ^ b ^ key; }

template <class Word>
struct Four {
    Word x, y, z, w;
};

// The four random words of a counter; the low half of the seed is the first key word.
template <class Word>
FUNCTION Four<Word> philox(Four<Word> c, u64 seed) {
    u32 key0 = (u32)seed, key1 = (u32)(seed >> 32);
    UNROLLED
    for (int round = 0; round < PHILOX_ROUNDS; ++round) {
        const auto product0 = wide_product(c.x, PHILOX_MULTIPLIER_0);
        const auto product1 = wide_product(c.z, PHILOX_MULTIPLIER_1);
        c = Four<Word>{join(high_half(product1), c.y, key0), low_half(product1),
                       join(high_half(product0), c.w, key1), low_half(product0)};
        key0 += PHILOX_WEYL_0;
        key1 += PHILOX_WEYL_1;
    }
    return c;
}
