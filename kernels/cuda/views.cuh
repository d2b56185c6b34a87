// Where a pixel of a face goes in the recogniser's input: views, crop and normalisation.
//
// A view mirrors first, then moves by whole pixels; the edge's pixels fill the gap. Seen from the target, a pixel is
// read at clip(row - down), clip(column - right). Seen from the source, as a kernel that has just made the pixel sees
// it, it goes to one place, and an edge pixel to the gap as well: a short range of rows and one of columns.
#pragma once

#include "portable.cuh"

struct Range {
    int first, end;
};

// Target positions along one axis of the source position `at` when moved by `shift`, inside 0 .. side - 1.
FUNCTION Range targets(int at, int shift, int side) {
    const int first = at == 0 ? 0 : most(at + shift, 0);
    const int end = at == side - 1 ? side : least(at + shift + 1, side);
    return Range{first, end};
}

struct Planes {
    float *planes;     // (P V, 3, height, width), or null
    const int *views;  // (V, 3): mirrored, right, down
    int view_count, side, crop_left, height, width;
    float gain, bias;
};

// Store one pixel of one face into the three equal planes of each of its views.
FUNCTION void store_views(const Planes &out, int picture, int pixel, float value) {
    const int row = pixel / out.side, column = pixel % out.side;
    const float normalised = plus(times(value, out.gain), out.bias);
    const s64 area = (s64)out.height * out.width;
    for (int v = 0; v < out.view_count; ++v) {
        const int from = out.views[3 * v] ? out.side - 1 - column : column;
        const Range across = targets(from, out.views[3 * v + 1], out.side);
        const Range down = targets(row, out.views[3 * v + 2], out.side);
        float *first = out.planes + ((s64)picture * out.view_count + v) * 3 * area;
        for (int r = down.first; r < least(down.end, out.height); ++r)
            for (int c = most(across.first, out.crop_left); c < least(across.end, out.crop_left + out.width); ++c)
                for (int plane = 0; plane < 3; ++plane)
                    first[plane * area + (s64)r * out.width + c - out.crop_left] = normalised;
    }
}
