// All faces of a frame, aligned, in one launch: the grey crops of runtime/align.py and the same as faces in [-1, 1].
// One thread a pixel of a crop, blockIdx.z the face.
//
// nvcc -cubin -arch=sm_90 warp.cu
#include "pixels.cuh"

template <class Picture>
FUNCTION void warp_pixel(const Picture &frame, const float *crop_to_frame, const int *shrinks, u8 *crops, float *faces,
                         int side) {
    const int column = blockIdx.x * 32 + threadIdx.x, row = blockIdx.y * 8 + threadIdx.y, face = blockIdx.z;
    if (column >= side || row >= side) return;
    const int grey = crop_pixel(frame, crop_to_frame + 6 * face, shrinks[face], column, row);
    const s64 at = ((s64)face * side + row) * side + column;
    crops[at] = (u8)grey;
    faces[at] = face_pixel(grey);
}

// block (32, 8, 1), grid (ceil(side / 32), ceil(side / 8), B), no dynamic shared memory.
// crop_to_frame: (B, 6), see crop_pixel; shrinks: (B,), 1 or more. crops: (B, side, side); faces: (B, side * side).
extern "C" __global__ void __launch_bounds__(256)
warp_bgr(const u8 *__restrict__ pixels, const float *__restrict__ crop_to_frame, const int *__restrict__ shrinks,
         u8 *__restrict__ crops, float *__restrict__ faces, int height, int width, int pitch, int side) {
    warp_pixel(BgrPicture{pixels, height, width, pitch}, crop_to_frame, shrinks, crops, faces, side);
}

// The same from NV12; both planes have the same pitch.
extern "C" __global__ void __launch_bounds__(256)
warp_nv12(const u8 *__restrict__ luma, const u8 *__restrict__ chroma, const float *__restrict__ crop_to_frame,
          const int *__restrict__ shrinks, u8 *__restrict__ crops, float *__restrict__ faces, int height, int width,
          int pitch, int side) {
    warp_pixel(Nv12Picture{luma, chroma, height, width, pitch}, crop_to_frame, shrinks, crops, faces, side);
}

// Crops as they came from elsewhere as faces in [-1, 1]: (count,) levels to (count,) pixels.
// block 256, grid (ceil(count / 256)), no dynamic shared memory.
extern "C" __global__ void __launch_bounds__(256)
crop_faces(const u8 *__restrict__ crops, float *__restrict__ faces, int count) {
    const int pixel = blockIdx.x * 256 + threadIdx.x;
    if (pixel < count) faces[pixel] = face_pixel(crops[pixel]);
}
