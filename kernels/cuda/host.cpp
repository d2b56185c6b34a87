// The host build: the same arithmetic from the same headers, for the CPU. It is the kernels' twin in tests (equal bits),
// and mutate, mutate_score and select are what the CPU runtime uses where there is a compiler.
//
// All arrays are row-major and contiguous; sizes and meanings as in reference.py. Every function that reads probabilities
// gives 0, or STATUS_PROBABILITY where one is not in [0, 1], and then has written nothing of use.
//
// g++ -std=c++17 -O3 -march=native -ffp-contract=off -shared -fPIC host.cpp
#include "host_lanes.h"

#include "antibody.cuh"
#include "products.cuh"

namespace {

constexpr int MOST_GROUPS = MOST_GENES / GENES_A_GROUP;

struct Face {
    u32 face, frame;
    u64 seed;
    int groups;
    Four<u32> limits[MOST_GROUPS];
    Four<int> weights[MOST_GROUPS];
};

bool open_face(Face &f, const float *probabilities, const s64 *weights, int genes, u32 face, u32 frame, u64 seed) {
    f.face = face;
    f.frame = frame;
    f.seed = seed;
    f.groups = (genes + GENES_A_GROUP - 1) / GENES_A_GROUP;
    u32 *limits = &f.limits[0].x;
    int *held = &f.weights[0].x;
    bool fine = true;
    for (int i = 0; i < genes; ++i) {
        fine &= is_probability(probabilities[i]);
        limits[i] = is_probability(probabilities[i]) ? limit_of(probabilities[i]) : 0u;
        held[i] = weights ? (int)weights[i] : 0;
    }
    for (int i = genes; i < f.groups * GENES_A_GROUP; ++i) limits[i] = 0, held[i] = 0;
    return fine;
}

// The scores of the clones first .. first + LANES - 1: a lane a clone, one group of genes after the other.
Sums score_lanes(const Face &f, u32 first) {
    Lanes clones;
    for (int lane = 0; lane < LANES; ++lane) clones[lane] = first + (u32)lane;
    const Lanes face = all(f.face), frame = all(f.frame);
    Sums sum = {};
    for (int group = 0; group < f.groups; ++group) {
        const Four<Lanes> d = draw(all((u32)group), clones, face, frame, f.seed);
        const Four<u32> l = f.limits[group];
        const Four<int> w = f.weights[group];
        sum += (below_limit(d.x, l.x) & w.x) + (below_limit(d.y, l.y) & w.y);
        sum += (below_limit(d.z, l.z) & w.z) + (below_limit(d.w, l.w) & w.w);
    }
    return sum;
}

void score_clones(const Face &f, int count, s64 *scores) {
    for (int first = 0; first < count; first += LANES) {
        const Sums sum = score_lanes(f, (u32)first);
        for (int lane = 0; lane < least(LANES, count - first); ++lane) scores[first + lane] = sum[lane];
    }
}

// The mask of one clone: a lane a group.
void draw_mask(const Face &f, u32 clone, u32 *mask) {
    __builtin_memset(mask, 0, sizeof(u32) * ((f.groups + 7) / 8));
    for (int first = 0; first < f.groups; first += LANES) {
        Lanes groups;
        for (int lane = 0; lane < LANES; ++lane) groups[lane] = (u32)(first + lane);
        const Four<Lanes> d = draw(groups, all(clone), all(f.face), all(f.frame), f.seed);
        u32 bits = 0;
        for (int lane = 0; lane < least(LANES, f.groups - first); ++lane)
            bits |= chosen_of(Four<u32>{(u32)d.x[lane], (u32)d.y[lane], (u32)d.z[lane], (u32)d.w[lane]},
                              f.limits[first + lane]) << GENES_A_GROUP * lane;
        mask[first / 8] |= bits << GENES_A_GROUP * (first % 8);
    }
}

void select_best(const s64 *scores, int count, int keep, s64 *winners) {
    u64 last = ~0ull;
    for (int place = 0; place < keep; ++place) {
        u64 best = 0;
        for (int clone = 0; clone < count; ++clone) {
            const u64 key = key_of(scores[clone], clone);
            best = key < last && key > best ? key : best;
        }
        winners[place] = clone_of(best);
        last = best;
    }
}

// The tree in which the lanes of a warp sum.
template <class Number>
Number lanes_sum(Number *lanes) {
    for (int step = 16; step > 0; step >>= 1)
        for (int lane = 0; lane < step; ++lane) lanes[lane] += lanes[lane + step];
    return lanes[0];
}

template <class Element>
void project(const Element *basis, const float *row_scales, const float *mean, const float *faces, float *coefficients,
             int batch, int rows, int pixels, int stride) {
    for (int face = 0; face < batch; ++face)
        for (int row = 0; row < rows; ++row) {
            const Element *e = basis + (s64)row * stride;
            const float *x = faces + (s64)face * pixels;
            float total = 0.0f;
            for (int start = 0; start < pixels; start += SLICE) {
                float sums[32] = {};
                for (int pixel = start; pixel < least(start + SLICE, pixels); ++pixel) {
                    float &sum = sums[pixel % STEP / WIDTH];
                    sum = fused(element(e[pixel]), plus(x[pixel], -mean[pixel]), sum);
                }
                total = plus(total, lanes_sum(sums));
            }
            coefficients[(s64)face * rows + row] = row_scales ? times(total, row_scales[row]) : total;
        }
}

// Sum the shares of a picture in their order, with mean and remainder; `sums` is (SHARES, stride).
void store_picture(const float *sums, const float *mean, const float *face, float gate, int pixels, int stride,
                   float *purified) {
    for (int pixel = 0; pixel < pixels; ++pixel) {
        float sum = sums[pixel];
        for (int share = 1; share < SHARES; ++share) sum = plus(sum, sums[(s64)share * stride + pixel]);
        purified[pixel] = purified_pixel(sum, mean[pixel], gate, gate == 0.0f ? 0.0f : face[pixel]);
    }
}

// Both forms of the kernel: where `listed`, only rows whose factor is not 0 are counted, as in a list of them.
template <class Element>
void act(const Element *basis, const float *row_scales, const float *mean, const float *coefficients,
         const float *weights, const float *faces, float *sums, float *purified, int batch, int keep, int rows,
         int genes, int pixels, int stride, bool listed) {
    for (int picture = 0; picture < batch * keep; ++picture) {
        const float *of_picture = weights + (s64)picture * genes, *c = coefficients + (s64)(picture / keep) * rows;
        const float gate = genes > rows ? of_picture[rows] : 0.0f;
        __builtin_memset(sums, 0, sizeof(float) * SHARES * stride);
        int position = 0;
        for (int row = 0; row < rows; ++row) {
            if (listed && of_picture[row] == gate) continue;
            const float factor = factor_of(of_picture[row], gate, c[row], row_scales ? row_scales[row] : 1.0f);
            float *sum = sums + (s64)(position++ % SHARES) * stride;
            const Element *e = basis + (s64)row * stride;
            for (int pixel = 0; pixel < pixels; ++pixel) sum[pixel] = fused(factor, element(e[pixel]), sum[pixel]);
        }
        const float *face = faces ? faces + (s64)(picture / keep) * pixels : nullptr;
        store_picture(sums, mean, face, gate, pixels, stride, purified + (s64)picture * pixels);
    }
}

}  // namespace

extern "C" {

void host_philox(const u32 *counters, s64 count, u64 seed, u32 *words) {
    for (s64 i = 0; i < count; ++i) {
        const u32 *c = counters + 4 * i;
        const Four<u32> drawn = philox(Four<u32>{c[0], c[1], c[2], c[3]}, seed);
        __builtin_memcpy(words + 4 * i, &drawn, sizeof drawn);
    }
}

u32 host_gene_weights(const float *probabilities, const float *coefficients, s64 *weights, s64 count, int pixels,
                      double residual, double size, double likelihood) {
    u32 status = 0;
    for (s64 i = 0; i < count; ++i) {
        bool is_number = true;
        if (!is_probability(probabilities[i])) status |= STATUS_PROBABILITY;
        weights[i] = weight_of(probabilities[i], coefficients[i], Terms{residual, size, likelihood}, pixels, &is_number);
        if (!is_number) status |= STATUS_WEIGHT;
    }
    return status;
}

u32 host_mutate(const float *probabilities, const u32 *clones, const u32 *frames, const u32 *faces, u32 *masks, u64 seed,
                int batch, int count, int genes) {
    static thread_local Face f;
    const s64 words = (genes + 31) / 32;
    for (int face = 0; face < batch; ++face) {
        if (!open_face(f, probabilities + (s64)face * genes, nullptr, genes, faces[face], frames[face], seed))
            return STATUS_PROBABILITY;
        for (int clone = 0; clone < count; ++clone) {
            const s64 row = (s64)face * count + clone;
            draw_mask(f, clones[row], masks + row * words);
        }
    }
    return 0;
}

// keep 0: scores only; else winners (B, keep) and their masks (B, keep, W) as well.
u32 host_select(const float *probabilities, const s64 *weights, const u32 *frames, const u32 *faces, s64 *scores,
                s64 *winners, u32 *masks, u64 seed, int batch, int count, int keep, int genes) {
    static thread_local Face f;
    const s64 words = (genes + 31) / 32;
    for (int face = 0; face < batch; ++face) {
        const s64 first = (s64)face * genes;
        if (!open_face(f, probabilities + first, weights + first, genes, faces[face], frames[face], seed))
            return STATUS_PROBABILITY;
        score_clones(f, count, scores + (s64)face * count);
        select_best(scores + (s64)face * count, count, keep, winners + (s64)face * keep);
        for (int place = 0; place < keep; ++place) {
            const s64 row = (s64)face * keep + place;
            draw_mask(f, (u32)winners[row], masks + row * words);
        }
    }
    return 0;
}

#define PRODUCTS(SUFFIX, ELEMENT)                                                                                    \
    void host_project_##SUFFIX(const ELEMENT *basis, const float *row_scales, const float *mean, const float *faces, \
                               float *coefficients, int batch, int rows, int pixels, int stride) {                   \
        project(basis, row_scales, mean, faces, coefficients, batch, rows, pixels, stride);                          \
    }                                                                                                                \
    void host_act_##SUFFIX(const ELEMENT *basis, const float *row_scales, const float *mean,                         \
                           const float *coefficients, const float *weights, const float *faces, float *sums,         \
                           float *purified, int batch, int keep, int rows, int genes, int pixels, int stride,        \
                           int listed) {                                                                             \
        act(basis, row_scales, mean, coefficients, weights, faces, sums, purified, batch, keep, rows, genes, pixels, \
            stride, listed != 0);                                                                                    \
    }

PRODUCTS(f32, float)
PRODUCTS(f16, u16)
PRODUCTS(i8, s8)

}  // extern "C"
