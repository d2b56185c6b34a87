// Products with the eigenfaces: how an element of E is read, and the order in which sums are taken.
//
// E is (n, stride): `stride` elements from row to row, a multiple of 16, zeros from D on. So a lane always reads eight
// elements with aligned loads, and no row needs an end of its own. Sums are float32 in one fixed order, the same for
// every batch and every device; the host build follows it and gives the same bits.
#pragma once

#include "portable.cuh"

#define WIDTH 8             // elements a lane reads at once
#define SLICE 1792          // pixels of one partial sum of project: 7 steps of 256
#define STEP (32 * WIDTH)   // pixels of one step of a warp
#define ROWS_A_BLOCK 8      // rows of E of a block of project: 4 warps, two each
#define TILE 128            // pixels of a block of act
#define SHARES 16           // in which the rows are shared out in act: half a warp each, row j is summed by j % 16
#define CHUNK 64            // rows whose factors act's dense form holds at once

struct Eight {
    float v[WIDTH];
};

#ifdef __CUDACC__

FUNCTION Eight eight(const float *e) {
    const float4 a = *(const float4 *)e, b = *(const float4 *)(e + 4);
    return Eight{{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
}

FUNCTION Eight eight(const u16 *e) {  // halves
    const uint4 a = *(const uint4 *)e;
    return Eight{{from_half((u16)a.x), from_half((u16)(a.x >> 16)), from_half((u16)a.y), from_half((u16)(a.y >> 16)),
                  from_half((u16)a.z), from_half((u16)(a.z >> 16)), from_half((u16)a.w), from_half((u16)(a.w >> 16))}};
}

FUNCTION Eight eight(const s8 *e) {
    const int2 a = *(const int2 *)e;
    return Eight{{(float)(s8)a.x, (float)(s8)(a.x >> 8), (float)(s8)(a.x >> 16), (float)(s8)(a.x >> 24),
                  (float)(s8)a.y, (float)(s8)(a.y >> 8), (float)(s8)(a.y >> 16), (float)(s8)(a.y >> 24)}};
}

#else

FUNCTION float element(float e) { return e; }
FUNCTION float element(u16 e) { return from_half(e); }
FUNCTION float element(s8 e) { return (float)e; }

template <class Element>
FUNCTION Eight eight(const Element *e) {
    Eight found;
    for (int j = 0; j < WIDTH; ++j) found.v[j] = element(e[j]);
    return found;
}

#endif

// How much of an eigenface goes into a picture. `scale` is the row's own in int8, else 1.
FUNCTION float factor_of(float weight, float gate, float coefficient, float scale) {
    return times(times(plus(weight, -gate), coefficient), scale);
}

// A pixel of a purified face from the sum over the eigenfaces; gated, with what no eigenface explains.
FUNCTION float purified_pixel(float sum, float mean, float gate, float face) {
    const float lit = plus(mean, sum);
    return gate == 0.0f ? lit : plus(lit, times(gate, plus(face, -mean)));
}

// One more step of the remainder and the grain, in double precision: these sums nearly cancel.
FUNCTION double square(float a) { return times((double)a, (double)a); }

#define LEAST_REMAINDER 1e-2
#define MOST_GRAIN (4.0 / 127.5)

// The grain at a pixel with neighbours to the right and below; see reference.grain.
FUNCTION double grain_at(const float *face, int pixel, int side) {
    const double here = (double)face[pixel], right = (double)face[pixel + 1];
    const double below = (double)face[pixel + side], both = (double)face[pixel + side + 1];
    double mixed = plus(plus(both, -right), plus(here, -below));
    mixed = times(mixed < 0.0 ? -mixed : mixed, 0.5);
    return mixed < MOST_GRAIN ? mixed : MOST_GRAIN;
}
