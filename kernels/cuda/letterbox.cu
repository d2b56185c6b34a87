// The detector's input from a frame: shrink by area, pad right and below with black to a multiple of 32, three planes
// of BGR 0..255. What runtime/detect.py does with OpenCV, in one launch.
// One thread a pixel of the padded picture; neighbours in a warp share the cache lines of the frame's rows.
//
// nvcc -cubin -arch=sm_90 letterbox.cu
#include "pixels.cuh"

// block (32, 8, 1), grid (ceil(padded_width / 32), ceil(padded_height / 8), frames), no dynamic shared memory.
// pitch: bytes from row to row; frame_bytes: from frame to frame. planes: (frames, 3, padded_height, padded_width).
extern "C" __global__ void __launch_bounds__(256)
letterbox_bgr(const u8 *__restrict__ pixels, float *__restrict__ planes, int height, int width, int pitch,
              s64 frame_bytes, int shrunk_height, int shrunk_width, int padded_height, int padded_width) {
    const int x = blockIdx.x * 32 + threadIdx.x, y = blockIdx.y * 8 + threadIdx.y;
    if (x >= padded_width || y >= padded_height) return;
    const BgrPicture frame = {pixels + blockIdx.z * frame_bytes, height, width, pitch};
    letterbox_pixel(frame, x, y, shrunk_width, shrunk_height, planes + (s64)blockIdx.z * 3 * padded_height * padded_width,
                    padded_width, padded_height);
}

// The same from NV12; both planes have the same pitch and frame_bytes.
extern "C" __global__ void __launch_bounds__(256)
letterbox_nv12(const u8 *__restrict__ luma, const u8 *__restrict__ chroma, float *__restrict__ planes, int height,
               int width, int pitch, s64 frame_bytes, int shrunk_height, int shrunk_width, int padded_height,
               int padded_width) {
    const int x = blockIdx.x * 32 + threadIdx.x, y = blockIdx.y * 8 + threadIdx.y;
    if (x >= padded_width || y >= padded_height) return;
    const Nv12Picture frame = {luma + blockIdx.z * frame_bytes, chroma + blockIdx.z * frame_bytes, height, width, pitch};
    letterbox_pixel(frame, x, y, shrunk_width, shrunk_height, planes + (s64)blockIdx.z * 3 * padded_height * padded_width,
                    padded_width, padded_height);
}
