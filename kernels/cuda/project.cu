// Coefficients c = E (x - mu) of all faces from one reading of E, then everything else an analyzer reads.
//
// project_T_F: a warp takes two rows of E and F faces; the faces less the mean lie in shared memory, 256 pixels at a time.
// Blocks that differ in the faces only are neighbours in the grid, so that they find E in the last-level cache. Each slice
// of 1792 pixels gives a partial sum; `spectrum` adds the slices in their order, without atomics: the same bits always.
//
// nvcc -cubin -arch=sm_90 project.cu
#include "products.cuh"
#include "warp_work.cuh"

// 256 pixels of a face: the first four of every lane's eight, then the others, so that 16-byte reads meet every bank once.
typedef float Held[2][STEP / 2];

template <class Element, int FACES>
FUNCTION void project_slice(const Element *basis, const float *mean, const float *faces, float *partial, int batch,
                            int rows, int pixels, int stride, Held *held) {
    const int lane = threadIdx.x % 32, first_face = blockIdx.x * FACES, start = blockIdx.z * SLICE;
    const int row = blockIdx.y * ROWS_A_BLOCK + threadIdx.x / 32 * 2, end = least(start + SLICE, pixels);
    // Rows and faces behind the last are computed from the last and not stored.
    const Element *e0 = basis + (s64)least(row, rows - 1) * stride, *e1 = basis + (s64)least(row + 1, rows - 1) * stride;
    float sum0[FACES] = {}, sum1[FACES] = {};
    for (int pixel = start; pixel < end; pixel += STEP) {
        __syncthreads();
        for (int i = threadIdx.x; i < FACES * STEP; i += 128) {
            const int face = least(first_face + i / STEP, batch - 1), at = pixel + i % STEP;
            held[i / STEP][i % WIDTH / 4][i % STEP / WIDTH * 4 + i % 4] = at < pixels ? plus(faces[(s64)face * pixels + at], -mean[at]) : 0.0f;
        }
        __syncthreads();
        const int at = pixel + lane * WIDTH;
        if (at >= stride) continue;  // the last step of a row may be short; lanes meet again at the next barrier
        const Eight a = eight(e0 + at), b = eight(e1 + at);
        UNROLLED
        for (int face = 0; face < FACES; ++face) {
            const float4 p = *(const float4 *)&held[face][0][4 * lane], q = *(const float4 *)&held[face][1][4 * lane];
            const Eight x = {{p.x, p.y, p.z, p.w, q.x, q.y, q.z, q.w}};
            UNROLLED
            for (int j = 0; j < WIDTH; ++j) {
                sum0[face] = fused(a.v[j], x.v[j], sum0[face]);
                sum1[face] = fused(b.v[j], x.v[j], sum1[face]);
            }
        }
    }
    UNROLLED
    for (int face = 0; face < FACES; ++face) {
        const float total0 = warp_sum(sum0[face]), total1 = warp_sum(sum1[face]);
        if (lane != 0 || first_face + face >= batch) continue;
        float *out = partial + ((s64)blockIdx.z * batch + first_face + face) * rows;
        if (row < rows) out[row] = total0;
        if (row + 1 < rows) out[row + 1] = total1;
    }
}

// block 128, grid (ceil(batch / F), ceil(rows / 8), slices), slices = ceil(pixels / 1792), no dynamic shared memory.
// basis: (rows, stride); mean: (pixels,); faces: (batch, pixels); partial: (slices, batch, rows).
#define PROJECT(NAME, ELEMENT, FACES)                                                                               \
    extern "C" __global__ void __launch_bounds__(128)                                                               \
    NAME(const ELEMENT *__restrict__ basis, const float *__restrict__ mean, const float *__restrict__ faces,        \
         float *__restrict__ partial, int batch, int rows, int pixels, int stride) {                                \
        __shared__ __align__(16) Held held[FACES];                                                           \
        project_slice<ELEMENT, FACES>(basis, mean, faces, partial, batch, rows, pixels, stride, held);              \
    }

PROJECT(project_f32_1, float, 1)
PROJECT(project_f32_4, float, 4)
PROJECT(project_f32_8, float, 8)
PROJECT(project_f16_1, u16, 1)
PROJECT(project_f16_4, u16, 4)
PROJECT(project_f16_8, u16, 8)
PROJECT(project_i8_1, s8, 1)
PROJECT(project_i8_4, s8, 4)
PROJECT(project_i8_8, s8, 8)

// Partial sums to coefficients and, where `inputs` is given, to what an analyzer of the spectrum reads.
// block 256, grid (B), no dynamic shared memory. partial: (slices, B, rows); row_scales: (rows,) for int8, else null;
// faces: (B, pixels); coefficients: (B, rows); inputs: (B, rows + 2) or null: c, |r|, grain. side: side^2 = pixels, or 0
// for a grain of 0.
extern "C" __global__ void __launch_bounds__(256)
spectrum(const float *__restrict__ partial, const float *__restrict__ row_scales, const float *__restrict__ faces,
         const float *__restrict__ mean, float *__restrict__ coefficients, float *__restrict__ inputs, int rows,
         int pixels, int slices, int side) {
    __shared__ double slots[8];
    const int face = blockIdx.x, batch = gridDim.x;
    const float *x = faces + (s64)face * pixels;
    double rest = 0.0, explained = 0.0, grain = 0.0;
    for (int row = threadIdx.x; row < rows; row += 256) {
        float c = 0.0f;
        for (int slice = 0; slice < slices; ++slice) c = plus(c, partial[((s64)slice * batch + face) * rows + row]);
        if (row_scales) c = times(c, row_scales[row]);
        coefficients[(s64)face * rows + row] = c;
        if (inputs) inputs[(s64)face * (rows + 2) + row] = c;
        explained = plus(explained, square(c));
    }
    if (!inputs) return;  // the same for the whole block
    for (int pixel = threadIdx.x; pixel < pixels; pixel += 256) {
        rest = plus(rest, square(plus(x[pixel], -mean[pixel])));
        if (side && pixel % side < side - 1 && pixel / side < side - 1) grain = plus(grain, grain_at(x, pixel, side));
    }
    rest = plus(block_sum(rest, slots), -block_sum(explained, slots));
    grain = block_sum(grain, slots);
    if (threadIdx.x != 0) return;
    const double least_square = LEAST_REMAINDER * LEAST_REMAINDER;
    float *last = inputs + (s64)face * (rows + 2) + rows;
    last[0] = (float)root(rest > least_square ? rest : least_square);
    last[1] = side > 1 ? (float)over(grain, (double)(side - 1) * (side - 1)) : 0.0f;
}
