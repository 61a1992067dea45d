// The color stages of augment/color.py, for a row of pixels in one pass.
#pragma once
#include <cstdint>

namespace native {

struct Color {
    bool jitter = false;
    float gains[3] = {1, 1, 1};        // of hue, saturation, value
    float scale[3], shift[3];          // normalized = RGB * scale + shift
};

// Applies HSV jitter, then scale and shift, to rows of `width` numbers in [0, 255]: Y, Cb and Cr if
// `ycc`, else R, G and B. `out` may be the rows themselves.
void color_row(const float* const in[3], int width, bool ycc, const Color& color,
               float* const out[3]);

// Converts to IEEE half precision, rounding to nearest, ties to even.
void to_half(const float* in, int count, uint16_t* out);

}  // namespace native
