// Purified faces x_hat = mu + E^T (a c) [+ g r], and in the same store the recogniser's input: views, crop, normalisation.
//
// A block makes 128 pixels. Half a warp reads 128 elements of a row at once, eight a lane; the 16 half warps share the
// rows, and their sums are added in their order. act_chosen reads only the rows of a list, for one picture a block: for few
// faces. act_dense reads all rows once for eight pictures, whose blocks are neighbours in the grid: for many faces or
// soft weights.
//
// nvcc -cubin -arch=sm_90 act.cu
#include "products.cuh"
#include "views.cuh"

#define LISTED 256   // list entries held at once
#define PICTURES 8   // that share a read of E in the dense form

FUNCTION void add(Eight *sum, float factor, const Eight &e) {
    UNROLLED
    for (int j = 0; j < WIDTH; ++j) sum->v[j] = fused(factor, e.v[j], sum->v[j]);
}

// Sum what the 16 half warps have for one picture, and store it. Every thread of the block calls this.
FUNCTION void finish(const Eight &own, float (*parts)[TILE], const float *mean, const float *face, float gate,
                     int picture, int tile, int pixels, float *purified, const Planes &out) {
    const int pixel = tile * TILE + threadIdx.x;
    __syncthreads();  // whoever still reads the parts of the picture before
    UNROLLED
    for (int j = 0; j < WIDTH; ++j) parts[threadIdx.x / 16][threadIdx.x % 16 * WIDTH + j] = own.v[j];
    __syncthreads();
    if (threadIdx.x >= TILE || pixel >= pixels) return;
    float sum = parts[0][threadIdx.x];
    for (int share = 1; share < SHARES; ++share) sum = plus(sum, parts[share][threadIdx.x]);
    const float value = purified_pixel(sum, mean[pixel], gate, gate == 0.0f ? 0.0f : face[pixel]);
    if (purified) purified[(s64)picture * pixels + pixel] = value;
    if (out.planes) store_views(out, picture, pixel, value);
}

template <class Element>
FUNCTION void act_chosen(const Element *basis, const float *row_scales, const float *mean, const float *coefficients,
                         const u16 *lists, const int *counts, const float *gates, const float *faces, int stride,
                         int keep, int rows, int pixels, float *purified, const Planes &out) {
    __shared__ __align__(16) float parts[SHARES][TILE];
    __shared__ float factors[LISTED];
    __shared__ int chosen[LISTED];
    const int picture = blockIdx.y, share = threadIdx.x / 16, at = blockIdx.x * TILE + threadIdx.x % 16 * WIDTH;
    const int count = counts[picture], face = picture / keep;
    const float gate = gates ? gates[picture] : 0.0f;
    Eight sum = {};
    for (int first = 0; first < count; first += LISTED) {
        __syncthreads();
        if (first + (int)threadIdx.x < count) {
            const int row = lists[(s64)picture * rows + first + threadIdx.x];
            const float scale = row_scales ? row_scales[row] : 1.0f;
            chosen[threadIdx.x] = row;
            factors[threadIdx.x] = factor_of(plus(1.0f, -gate), gate, coefficients[(s64)face * rows + row], scale);
        }
        __syncthreads();
        if (at >= stride) continue;  // lanes behind the last pixel meet the others at the next barrier
        const int held = least(LISTED, count - first);
#pragma unroll 4
        for (int j = share; j < held; j += SHARES) add(&sum, factors[j], eight(basis + (s64)chosen[j] * stride + at));
    }
    finish(sum, parts, mean, faces + (s64)face * pixels, gate, picture, blockIdx.x, pixels, purified, out);
}

template <class Element>
FUNCTION void act_dense(const Element *basis, const float *row_scales, const float *mean, const float *coefficients,
                        const float *weights, const float *faces, int stride, int pictures, int keep, int rows,
                        int genes, int pixels, float *purified, const Planes &out) {
    __shared__ __align__(16) float parts[SHARES][TILE];
    __shared__ float factors[PICTURES][CHUNK];
    const int first_picture = blockIdx.x * PICTURES, share = threadIdx.x / 16;
    const int at = blockIdx.y * TILE + threadIdx.x % 16 * WIDTH;
    Eight sums[PICTURES] = {};
    for (int first = 0; first < rows; first += CHUNK) {
        __syncthreads();
        for (int i = threadIdx.x; i < PICTURES * CHUNK; i += 256) {
            const int picture = first_picture + i / CHUNK, row = first + i % CHUNK;
            float factor = 0.0f;
            if (picture < pictures && row < rows) {
                const float *of_picture = weights + (s64)picture * genes;
                const float scale = row_scales ? row_scales[row] : 1.0f, gate = genes > rows ? of_picture[rows] : 0.0f;
                factor = factor_of(of_picture[row], gate, coefficients[(s64)(picture / keep) * rows + row], scale);
            }
            factors[i / CHUNK][i % CHUNK] = factor;
        }
        __syncthreads();
        if (at >= stride) continue;
        const int held = least(CHUNK, rows - first);
#pragma unroll 2
        for (int j = share; j < held; j += SHARES) {
            const Eight e = eight(basis + (s64)(first + j) * stride + at);
            UNROLLED
            for (int p = 0; p < PICTURES; ++p) add(&sums[p], factors[p][j], e);
        }
    }
    UNROLLED
    for (int p = 0; p < PICTURES; ++p) {
        const int picture = first_picture + p;
        if (picture >= pictures) return;  // the same for the whole block
        const float gate = genes > rows ? weights[(s64)picture * genes + rows] : 0.0f;
        finish(sums[p], parts, mean, faces + (s64)(picture / keep) * pixels, gate, picture, blockIdx.y, pixels, purified,
               out);
    }
}

// Where pixels go, in all kernels here. purified: (P, pixels) or null; planes: (P view_count, 3, height, width) or null,
// and then views: (view_count, 3) mirrored, right, down; side: side^2 = pixels; gain = 127.5 / std,
// bias = (127.5 - mean) / std. P pictures, `keep` for each face.
#define OUT                                                                                                          \
    float *__restrict__ purified, float *__restrict__ planes, const int *__restrict__ views, int view_count,         \
        int side, int crop_left, int height, int width, float gain, float bias
#define PLANES Planes{planes, views, view_count, side, crop_left, height, width, gain, bias}

// block 256, grid (ceil(pixels / 128), P), no dynamic shared memory.
// basis: (rows, stride); row_scales: (rows,) for int8, else null; mean: (pixels,); coefficients: (B, rows);
// lists: (P, rows) of which counts: (P,) hold; gates: (P,) of 0 and 1, or null; faces: (B, pixels), read where a gate is 1.
#define ACT_CHOSEN(NAME, ELEMENT)                                                                                    \
    extern "C" __global__ void __launch_bounds__(256)                                                                \
    NAME(const ELEMENT *__restrict__ basis, const float *__restrict__ row_scales, const float *__restrict__ mean,    \
         const float *__restrict__ coefficients, const u16 *__restrict__ lists, const int *__restrict__ counts,      \
         const float *__restrict__ gates, const float *__restrict__ faces, int stride, int keep, int rows,           \
         int pixels, OUT) {                                                                                          \
        act_chosen(basis, row_scales, mean, coefficients, lists, counts, gates, faces, stride, keep, rows, pixels,   \
                   purified, PLANES);                                                                                \
    }

// block 256, grid (ceil(pictures / 8), ceil(pixels / 128)), no dynamic shared memory.
// weights: (pictures, genes) in [0, 1]; genes: rows, or rows + 1 with the gate last; the others as above.
#define ACT_DENSE(NAME, ELEMENT)                                                                                     \
    extern "C" __global__ void __launch_bounds__(256)                                                                \
    NAME(const ELEMENT *__restrict__ basis, const float *__restrict__ row_scales, const float *__restrict__ mean,    \
         const float *__restrict__ coefficients, const float *__restrict__ weights, const float *__restrict__ faces, \
         int stride, int pictures, int keep, int rows, int genes, int pixels, OUT) {                                 \
        act_dense(basis, row_scales, mean, coefficients, weights, faces, stride, pictures, keep, rows, genes,        \
                  pixels, purified, PLANES);                                                                         \
    }

ACT_CHOSEN(act_chosen_f32, float)
ACT_CHOSEN(act_chosen_f16, u16)
ACT_CHOSEN(act_chosen_i8, s8)
ACT_DENSE(act_dense_f32, float)
ACT_DENSE(act_dense_f16, u16)
ACT_DENSE(act_dense_i8, s8)

// The recogniser's input of faces as they came: (P, pixels) to (P view_count, 3, height, width).
// block 256, grid (ceil(pixels / 256), P), no dynamic shared memory.
extern "C" __global__ void __launch_bounds__(256)
recogniser_planes(const float *__restrict__ faces, float *__restrict__ planes, const int *__restrict__ views,
                  int view_count, int side, int crop_left, int height, int width, float gain, float bias, int pixels) {
    const int pixel = blockIdx.x * 256 + threadIdx.x, picture = blockIdx.y;
    if (pixel < pixels) store_views(PLANES, picture, pixel, faces[(s64)picture * pixels + pixel]);
}
