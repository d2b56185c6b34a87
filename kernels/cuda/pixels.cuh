// From a camera's bytes to the networks' pixels: NV12, grey, shrinking by area, bilinear warping.
#pragma once

#include "portable.cuh"

struct Bgr {
    int b, g, r;
};

// A BGR frame: 3 bytes a pixel, `pitch` bytes from row to row.
struct BgrPicture {
    const u8 *pixels;
    int height, width, pitch;

    FUNCTION_IN_CLASS Bgr at(int x, int y) const {
        const u8 *p = pixels + (s64)y * pitch + 3 * x;
        return Bgr{p[0], p[1], p[2]};
    }
};

FUNCTION int level(int fixed) { return within(fixed >> 20, 0, 255); }

// An NV12 frame: a plane of luma, and one of half the size both ways whose pairs are Cb and Cr. The pixels are what
// OpenCV's COLOR_YUV2BGR_NV12 makes of it: ITU-R BT.601 of 16..235, in whole numbers of 2^-20, halves rounded up.
struct Nv12Picture {
    const u8 *luma, *chroma;
    int height, width, pitch;

    FUNCTION_IN_CLASS Bgr at(int x, int y) const {
        const u8 *pair = chroma + (s64)(y / 2) * pitch + (x & ~1);
        const int u = pair[0] - 128, v = pair[1] - 128;
        const int light = most(luma[(s64)y * pitch + x] - 16, 0) * 1220542 + (1 << 19);  // 1.164
        return Bgr{level(light + 2116026 * u), level(light - 409993 * u - 852492 * v), level(light + 1673527 * v)};
    }
};

// What OpenCV's COLOR_BGR2GRAY gives: BT.601 weights in whole numbers of 2^-15.
FUNCTION int grey_of(Bgr p) { return (3735 * p.b + 19235 * p.g + 9798 * p.r + (1 << 14)) >> 15; }

// The mean of four levels, halves rounded up, as OpenCV has it where a picture is shrunk to exactly half its size.
FUNCTION int quarter(int sum) { return (sum + 2) >> 2; }

template <class Picture>
FUNCTION Bgr halved_pixel(const Picture &from, int x, int y) {
    const Bgr p = from.at(2 * x, 2 * y), q = from.at(2 * x + 1, 2 * y);
    const Bgr r = from.at(2 * x, 2 * y + 1), s = from.at(2 * x + 1, 2 * y + 1);
    return Bgr{quarter(p.b + q.b + r.b + s.b), quarter(p.g + q.g + r.g + s.g), quarter(p.r + q.r + r.r + s.r)};
}

// The mean of the pixels under target pixel (x, y) when a picture is shrunk to `width` by `height`; pixels at the rim
// count by the part that is covered. Lengths are in units of 1/width and 1/height of a pixel, so that overlaps are whole
// numbers and the sum is exact; only the quotient is rounded, ties to even. cv2.resize with INTER_AREA gives the same,
// but for the rounding of its own sums, which seldom makes a difference of one level.
template <class Picture>
FUNCTION Bgr shrunk_pixel(const Picture &from, int x, int y, int width, int height) {
    if (from.width == 2 * width && from.height == 2 * height) return halved_pixel(from, x, y);
    const int left = x * from.width, right = left + from.width, top = y * from.height, bottom = top + from.height;
    s64 b = 0, g = 0, r = 0;
    for (int row = top / height; row * height < bottom; ++row) {
        const int tall = least((row + 1) * height, bottom) - most(row * height, top);
        int row_b = 0, row_g = 0, row_r = 0;
        for (int column = left / width; column * width < right; ++column) {
            const int wide = least((column + 1) * width, right) - most(column * width, left);
            const Bgr p = from.at(column, row);
            row_b += wide * p.b;
            row_g += wide * p.g;
            row_r += wide * p.r;
        }
        b += (s64)tall * row_b;
        g += (s64)tall * row_g;
        r += (s64)tall * row_r;
    }
    const float all = (float)((s64)from.width * from.height);
    return Bgr{nearest(over((float)b, all)), nearest(over((float)g, all)), nearest(over((float)r, all))};
}

// Of a target pixel of the padded picture, the three planes' values; what lies beyond the shrunk picture is black.
template <class Picture>
FUNCTION void letterbox_pixel(const Picture &from, int x, int y, int width, int height, float *planes, int padded_width,
                              int padded_height) {
    const Bgr black = {0, 0, 0};
    const Bgr p = x < width && y < height ? shrunk_pixel(from, x, y, width, height) : black;
    const s64 area = (s64)padded_width * padded_height, at = (s64)y * padded_width + x;
    planes[at] = (float)p.b;
    planes[area + at] = (float)p.g;
    planes[2 * area + at] = (float)p.r;
}

// A colour between four pixels, black beyond the picture; rounded to whole levels as OpenCV's warpAffine does.
template <class Picture>
FUNCTION Bgr between(const Picture &from, float x, float y) {
    if (!(x > -1.0f && x < (float)from.width && y > -1.0f && y < (float)from.height)) return Bgr{0, 0, 0};  // NaN too
    const int column = below(x), row = below(y);
    const float right = plus(x, -(float)column), down = plus(y, -(float)row);
    float b = 0.0f, g = 0.0f, r = 0.0f;
    UNROLLED
    for (int corner = 0; corner < 4; ++corner) {
        const int cx = column + (corner & 1), cy = row + (corner >> 1);
        if (cx < 0 || cy < 0 || cx >= from.width || cy >= from.height) continue;
        const float share = times(corner & 1 ? right : plus(1.0f, -right), corner >> 1 ? down : plus(1.0f, -down));
        const Bgr p = from.at(cx, cy);
        b = fused(share, (float)p.b, b);
        g = fused(share, (float)p.g, g);
        r = fused(share, (float)p.r, r);
    }
    return Bgr{nearest(b), nearest(g), nearest(r)};
}

// One grey pixel of an aligned crop. The crop is warped `shrink` times as large and averaged down, so that fine texture
// does not alias. m: x = m0 u + m1 v + m2, y = m3 u + m4 v + m5 from (u, v) in that larger crop to the frame.
template <class Picture>
FUNCTION int crop_pixel(const Picture &from, const float *m, int shrink, int column, int row) {
    int sum = 0;
    for (int v = row * shrink; v < (row + 1) * shrink; ++v)
        for (int u = column * shrink; u < (column + 1) * shrink; ++u) {
            const float x = fused(m[0], (float)u, fused(m[1], (float)v, m[2]));
            const float y = fused(m[3], (float)u, fused(m[4], (float)v, m[5]));
            sum += grey_of(between(from, x, y));
        }
    return shrink == 2 ? quarter(sum) : nearest(over((float)sum, (float)(shrink * shrink)));
}

// A grey level as a pixel of a face: level / 127.5 - 1, two roundings as NumPy's.
FUNCTION float face_pixel(int grey) { return plus(over((float)grey, 127.5f), -1.0f); }
