// What decides which antibody acts: thresholds, fixed-point weights, the rule for ties. reference.py defines all of it.
#pragma once

#include "philox.cuh"

#define GENES_A_GROUP 4          // genes drawn by one call of the generator
#define MOST_GENES 4096
#define MOST_CLONES 4096
#define MOST_KEPT 16
#define WEIGHT_LIMIT 8388607.0   // 2^23 - 1: 4096 weights stay inside 36 bits
#define WEIGHT_ONE 65536.0       // 16 bits behind the point
#define LEAST_PROBABILITY 5.9604644775390625e-8  // 2^-24

#define STATUS_PROBABILITY 1u    // a probability is not in [0, 1]
#define STATUS_WEIGHT 2u         // a weight would be NaN
#define STATUS_EMBEDDING 4u      // an embedding is not finite

FUNCTION bool is_probability(float p) { return p >= 0.0f && p <= 1.0f; }  // NaN is none

// floor(p 2^32), at most 2^32 - 1: a gene is chosen where its draw is below. Multiplying a float by a power of two and
// cutting off its fraction are both exact.
FUNCTION u32 limit_of(float p) {
    const u64 scaled = (u64)(p * 4294967296.0f);
    return scaled < 0xFFFFFFFFull ? (u32)scaled : 0xFFFFFFFFu;
}

// The natural logarithm of a normal number above 0, with four operations that round alike on every machine, so that host
// and device agree to the last bit: log(2^k m) = k log 2 + 2 artanh((m - 1) / (m + 1)), m in [1/sqrt 2, sqrt 2).
FUNCTION double natural_log(double x) {
    const u64 bits = bits_of(x);
    int exponent = (int)(bits >> 52) - 1023;
    double m = double_of((bits & 0x000FFFFFFFFFFFFFull) | 0x3FF0000000000000ull);
    if (m >= 1.4142135623730951) {
        m = times(m, 0.5);
        exponent += 1;
    }
    const double f = over(plus(m, -1.0), plus(m, 1.0)), z = times(f, f);
    double series = 1.0 / 25.0;  // z is at most 0.0295: the next term would be below 2^-64
    UNROLLED
    for (int odd = 23; odd >= 1; odd -= 2) series = plus(times(series, z), 1.0 / odd);
    const double high = 6.93147180369123816490e-01, low = 1.90821492927058770002e-10;  // log 2; high ends in zeros
    return plus(times((double)exponent, high), plus(times(times(2.0, f), series), times((double)exponent, low)));
}

struct Terms {
    double residual, size, likelihood;
};

// A gene's share of a clone's score, a whole number of 2^-16. p is a probability; *is_number is set to false for NaN.
FUNCTION int weight_of(float p, float coefficient, Terms terms, int pixels, bool *is_number) {
    double clipped = (double)p;
    if (clipped < LEAST_PROBABILITY) clipped = LEAST_PROBABILITY;
    if (clipped > 1.0 - LEAST_PROBABILITY) clipped = 1.0 - LEAST_PROBABILITY;
    const double logit = plus(natural_log(clipped), -natural_log(plus(1.0, -clipped)));  // 1 - p is exact
    const double square = times((double)coefficient, (double)coefficient);               // so is this
    const double explained = plus(over(times(terms.residual, square), (double)pixels), -terms.size);
    const double scaled = times(plus(explained, times(terms.likelihood, logit)), WEIGHT_ONE);
    *is_number = scaled == scaled;
    if (!*is_number) return 0;
    if (scaled >= WEIGHT_LIMIT) return (int)WEIGHT_LIMIT;
    if (scaled <= -WEIGHT_LIMIT) return -(int)WEIGHT_LIMIT;
    return (int)nearest(scaled);
}

// The counter of a group of four genes.
template <class Word>
FUNCTION Four<Word> draw(Word group, Word clone, Word face, Word frame, u64 seed) {
    return philox(Four<Word>{group, clone, face, frame}, seed);
}

// Bit j: gene j of the group is chosen.
FUNCTION u32 chosen_of(Four<u32> draws, Four<u32> limits) {
    return (u32)(draws.x < limits.x) | (u32)(draws.y < limits.y) << 1 | (u32)(draws.z < limits.z) << 2 |
           (u32)(draws.w < limits.w) << 3;
}

// What a group adds to a clone's score; four weights stay inside 26 bits.
FUNCTION int score_of(Four<u32> draws, Four<u32> limits, Four<int> weights) {
    return (draws.x < limits.x ? weights.x : 0) + (draws.y < limits.y ? weights.y : 0) +
           (draws.z < limits.z ? weights.z : 0) + (draws.w < limits.w ? weights.w : 0);
}

// One number for score and clone, so that the largest is the winner: the higher score, of equals the lower clone. No two
// clones have the same key. A score is within 2^35 of zero.
FUNCTION u64 key_of(s64 score, int clone) { return (u64)(score + (1ll << 36)) << 12 | (u64)(MOST_CLONES - 1 - clone); }
FUNCTION int clone_of(u64 key) { return MOST_CLONES - 1 - (int)(key & (MOST_CLONES - 1)); }
