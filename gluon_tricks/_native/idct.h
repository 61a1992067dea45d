// Inverse DCTs, full-size and reduced, bit-identical to libjpeg's "islow" method for the
// coefficients that images have (where its 16-bit arithmetic overflows, ours may differ).
#pragma once
#include <cstddef>
#include <cstdint>

namespace native {

// From coefficients in natural order, [64], and the quantization steps to multiply them by, to
// samples. A sample of a reduced one is about the mean of a square of full-size samples.
using Idct = void (*)(const int16_t* block, const int16_t* steps, uint8_t* out, ptrdiff_t stride);

void idct_8x8(const int16_t* block, const int16_t* steps, uint8_t* out, ptrdiff_t stride);
void idct_4x4(const int16_t* block, const int16_t* steps, uint8_t* out, ptrdiff_t stride);
void idct_2x2(const int16_t* block, const int16_t* steps, uint8_t* out, ptrdiff_t stride);
void idct_1x1(const int16_t* block, const int16_t* steps, uint8_t* out, ptrdiff_t stride);

// The one for `size` 8, 4, 2 or 1.
Idct idct_of(int size);

// All samples of a block whose AC coefficients are 0.
uint8_t flat_sample(int dc, int step);

}  // namespace native
