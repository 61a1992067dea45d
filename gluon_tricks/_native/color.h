// The colour stages of augment/color.py, of one row of pixels in one pass.
#pragma once
#include <cstdint>

namespace native {

struct Color {
    bool jitter = false;
    float gains[3] = {1, 1, 1};        // of hue, saturation, value
    float scale[3], shift[3];          // normalised = RGB * scale + shift
};

// Rows of `width` numbers in [0, 255]: Y, Cb and Cr where `ycc`, else R, G and B. HSV jitter,
// then scale and shift; `out` may be the rows themselves.
void color_row(const float* const in[3], int width, bool ycc, const Color& color,
               float* const out[3]);

// To IEEE half precision, rounded to nearest, ties to even.
void to_half(const float* in, int count, uint16_t* out);

}  // namespace native
