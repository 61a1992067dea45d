// Inverse DCTs, bit for bit those of libjpeg's "islow" method, whole and reduced, for the
// coefficients that pictures have (where its 16-bit arithmetic overflows, ours may differ).
#pragma once
#include <cstddef>
#include <cstdint>

namespace native {

// Coefficients in natural order, [64], and the quantisation steps they are multiplied by, to
// samples. Of the reduced ones, each sample is about the mean of a square of the whole one's.
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
