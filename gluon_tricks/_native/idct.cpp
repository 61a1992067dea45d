#include "idct.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace native {
namespace {

constexpr int kConstBits = 13, kPass1Bits = 2;  // of libjpeg's fixed-point numbers

constexpr int fix(double x) { return static_cast<int>(x * (1 << kConstBits) + 0.5); }

// Unsigned, because damaged images overflow.
int descale(uint32_t x, int bits) {
    return static_cast<int32_t>(x + (1u << (bits - 1))) >> bits;
}

uint8_t sample(int x) {
    x += 128;
    return static_cast<uint8_t>(x < 0 ? 0 : x > 255 ? 255 : x);
}

// With SIMD, libjpeg multiplies in 16 bits.
int coefficient(const int16_t* block, const int16_t* steps, int at) {
    return static_cast<int16_t>(block[at] * steps[at]);
}

}  // namespace

uint8_t flat_sample(int dc, int step) {
    return sample(descale(static_cast<int16_t>(dc * step), 3));
}

#ifdef __SSE2__

namespace {

// a * first + b * second for the low and the high four lanes, 32 bits each.
struct Wide {
    __m128i low, high;
};

Wide operator+(Wide a, Wide b) {
    return {_mm_add_epi32(a.low, b.low), _mm_add_epi32(a.high, b.high)};
}

Wide operator-(Wide a, Wide b) {
    return {_mm_sub_epi32(a.low, b.low), _mm_sub_epi32(a.high, b.high)};
}

Wide multiply(__m128i a, __m128i b, int first, int second) {
    const __m128i factors = _mm_set1_epi32(second * 65536 + (first & 0xFFFF));
    return {_mm_madd_epi16(_mm_unpacklo_epi16(a, b), factors),
            _mm_madd_epi16(_mm_unpackhi_epi16(a, b), factors)};
}

Wide shifted_up(__m128i a) {  // a << kConstBits
    const __m128i zero = _mm_setzero_si128();
    return {_mm_srai_epi32(_mm_unpacklo_epi16(zero, a), 16 - kConstBits),
            _mm_srai_epi32(_mm_unpackhi_epi16(zero, a), 16 - kConstBits)};
}

template <int bits>
__m128i narrow(Wide a) {
    const __m128i half = _mm_set1_epi32(1 << (bits - 1));
    return _mm_packs_epi32(_mm_srai_epi32(_mm_add_epi32(a.low, half), bits),
                           _mm_srai_epi32(_mm_add_epi32(a.high, half), bits));
}

// One dimension of eight columns at once; rows in and out.
template <int bits>
inline __attribute__((always_inline)) void pass(__m128i* row) {
    const int z5 = fix(1.175875602);
    const Wide tmp3 = multiply(row[2], row[6], fix(0.541196100) + fix(0.765366865),
                               fix(0.541196100));
    const Wide tmp2 = multiply(row[2], row[6], fix(0.541196100),
                               fix(0.541196100) - fix(1.847759065));
    const Wide tmp0 = shifted_up(_mm_add_epi16(row[0], row[4]));
    const Wide tmp1 = shifted_up(_mm_sub_epi16(row[0], row[4]));
    const Wide even[4] = {tmp0 + tmp3, tmp1 + tmp2, tmp1 - tmp2, tmp0 - tmp3};

    const __m128i z3 = _mm_add_epi16(row[7], row[3]), z4 = _mm_add_epi16(row[5], row[1]);
    const Wide a3 = multiply(z3, z4, z5 - fix(1.961570560), z5);
    const Wide a4 = multiply(z3, z4, z5, z5 - fix(0.390180644));
    const Wide odd[4] = {
        multiply(row[7], row[1], -fix(0.899976223), fix(1.501321110) - fix(0.899976223)) + a4,
        multiply(row[5], row[3], -fix(2.562915447), fix(3.072711026) - fix(2.562915447)) + a3,
        multiply(row[5], row[3], fix(2.053119869) - fix(2.562915447), -fix(2.562915447)) + a4,
        multiply(row[7], row[1], fix(0.298631336) - fix(0.899976223), -fix(0.899976223)) + a3};
    for (int i = 0; i < 4; i++) {
        row[i] = narrow<bits>(even[i] + odd[i]);
        row[7 - i] = narrow<bits>(even[i] - odd[i]);
    }
}

inline __attribute__((always_inline)) void transpose(__m128i* row) {
    __m128i a[8], b[8];
    for (int i = 0; i < 4; i++) {
        a[2 * i] = _mm_unpacklo_epi16(row[i], row[i + 4]);
        a[2 * i + 1] = _mm_unpackhi_epi16(row[i], row[i + 4]);
    }
    for (int i = 0; i < 4; i++) {
        b[2 * i] = _mm_unpacklo_epi16(a[i], a[i + 4]);
        b[2 * i + 1] = _mm_unpackhi_epi16(a[i], a[i + 4]);
    }
    for (int i = 0; i < 4; i++) {
        row[2 * i] = _mm_unpacklo_epi16(b[i], b[i + 4]);
        row[2 * i + 1] = _mm_unpackhi_epi16(b[i], b[i + 4]);
    }
}

}  // namespace

void idct_8x8(const int16_t* block, const int16_t* steps, uint8_t* out, ptrdiff_t stride) {
    __m128i row[8];
    for (int i = 0; i < 8; i++)
        row[i] = _mm_mullo_epi16(
            _mm_loadu_si128(reinterpret_cast<const __m128i*>(block + 8 * i)),
            _mm_loadu_si128(reinterpret_cast<const __m128i*>(steps + 8 * i)));
    pass<kConstBits - kPass1Bits>(row);
    transpose(row);
    pass<kConstBits + kPass1Bits + 3>(row);
    transpose(row);
    const __m128i middle = _mm_set1_epi8(-128);
    for (int i = 0; i < 8; i += 2) {
        const __m128i two = _mm_add_epi8(_mm_packs_epi16(row[i], row[i + 1]), middle);
        _mm_storel_epi64(reinterpret_cast<__m128i*>(out + i * stride), two);
        _mm_storel_epi64(reinterpret_cast<__m128i*>(out + (i + 1) * stride),
                         _mm_srli_si128(two, 8));
    }
}

#else

namespace {

// One dimension: from eight numbers, `step` apart, to eight.
template <class Out>
void pass(const int* in, int step, Out out) {
    const uint32_t i0 = in[0], i2 = in[2 * step], i4 = in[4 * step], i6 = in[6 * step];
    const uint32_t z1 = (i2 + i6) * fix(0.541196100);
    const uint32_t tmp2 = z1 - i6 * fix(1.847759065), tmp3 = z1 + i2 * fix(0.765366865);
    const uint32_t tmp0 = (i0 + i4) << kConstBits, tmp1 = (i0 - i4) << kConstBits;
    const uint32_t even[4] = {tmp0 + tmp3, tmp1 + tmp2, tmp1 - tmp2, tmp0 - tmp3};
    const uint32_t i7 = in[7 * step], i5 = in[5 * step], i3 = in[3 * step], i1 = in[step];
    const uint32_t z5 = (i7 + i3 + i5 + i1) * fix(1.175875602);
    const uint32_t z3 = z5 - (i7 + i3) * fix(1.961570560), z4 = z5 - (i5 + i1) * fix(0.390180644);
    const uint32_t za = (i7 + i1) * fix(0.899976223), zb = (i5 + i3) * fix(2.562915447);
    const uint32_t odd[4] = {i1 * fix(1.501321110) - za + z4, i3 * fix(3.072711026) - zb + z3,
                             i5 * fix(2.053119869) - zb + z4, i7 * fix(0.298631336) - za + z3};
    for (int i = 0; i < 4; i++) {
        out(i, even[i] + odd[i]);
        out(7 - i, even[i] - odd[i]);
    }
}

}  // namespace

void idct_8x8(const int16_t* block, const int16_t* steps, uint8_t* out, ptrdiff_t stride) {
    int in[64], middle[64];
    for (int i = 0; i < 64; i++) in[i] = coefficient(block, steps, i);
    for (int x = 0; x < 8; x++)
        pass(in + x, 8, [&](int y, uint32_t value) {
            middle[8 * y + x] = descale(value, kConstBits - kPass1Bits);
        });
    for (int y = 0; y < 8; y++)
        pass(middle + 8 * y, 1, [&](int x, uint32_t value) {
            out[y * stride + x] = sample(descale(value, kConstBits + kPass1Bits + 3));
        });
}

#endif

namespace {

// One dimension: from eight numbers, `step` apart, to four; coefficient 4 is not used.
template <class Out>
void pass_to_4(const int* in, int step, Out out) {
    const uint32_t tmp0 = static_cast<uint32_t>(in[0]) << (kConstBits + 1);
    const uint32_t i2 = in[2 * step], i6 = in[6 * step];
    const uint32_t tmp2 = i2 * fix(1.847759065) - i6 * fix(0.765366865);
    const uint32_t i7 = in[7 * step], i5 = in[5 * step], i3 = in[3 * step], i1 = in[step];
    const uint32_t inner = i5 * fix(1.451774981) - i7 * fix(0.211164243) - i3 * fix(2.172734803) +
                           i1 * fix(1.061594337);
    const uint32_t outer = i3 * fix(0.899976223) - i7 * fix(0.509795579) - i5 * fix(0.601344887) +
                           i1 * fix(2.562915447);
    out(0, tmp0 + tmp2 + outer);
    out(1, tmp0 - tmp2 + inner);
    out(2, tmp0 - tmp2 - inner);
    out(3, tmp0 + tmp2 - outer);
}

// The same to two; coefficients 2, 4 and 6 are not used.
template <class Out>
void pass_to_2(const int* in, int step, Out out) {
    const uint32_t tmp10 = static_cast<uint32_t>(in[0]) << (kConstBits + 2);
    const uint32_t i7 = in[7 * step], i5 = in[5 * step], i3 = in[3 * step], i1 = in[step];
    const uint32_t tmp0 = i5 * fix(0.850430095) - i7 * fix(0.720959822) - i3 * fix(1.272758580) +
                          i1 * fix(3.624509785);
    out(0, tmp10 + tmp0);
    out(1, tmp10 - tmp0);
}

}  // namespace

void idct_4x4(const int16_t* block, const int16_t* steps, uint8_t* out, ptrdiff_t stride) {
    int in[64], middle[32];
    for (int i = 0; i < 64; i++) in[i] = coefficient(block, steps, i);
    for (int x = 0; x < 8; x++)
        pass_to_4(in + x, 8, [&](int y, uint32_t value) {
            middle[8 * y + x] = descale(value, kConstBits - kPass1Bits + 1);
        });
    for (int y = 0; y < 4; y++)
        pass_to_4(middle + 8 * y, 1, [&](int x, uint32_t value) {
            out[y * stride + x] = sample(descale(value, kConstBits + kPass1Bits + 3 + 1));
        });
}

void idct_2x2(const int16_t* block, const int16_t* steps, uint8_t* out, ptrdiff_t stride) {
    int in[64], middle[16];
    for (int i = 0; i < 64; i++) in[i] = coefficient(block, steps, i);
    for (int x = 0; x < 8; x++)
        pass_to_2(in + x, 8, [&](int y, uint32_t value) {
            middle[8 * y + x] = descale(value, kConstBits - kPass1Bits + 2);
        });
    for (int y = 0; y < 2; y++)
        pass_to_2(middle + 8 * y, 1, [&](int x, uint32_t value) {
            out[y * stride + x] = sample(descale(value, kConstBits + kPass1Bits + 3 + 2));
        });
}

void idct_1x1(const int16_t* block, const int16_t* steps, uint8_t* out, ptrdiff_t) {
    out[0] = flat_sample(block[0], steps[0]);
}

Idct idct_of(int size) {
    return size == 8 ? idct_8x8 : size == 4 ? idct_4x4 : size == 2 ? idct_2x2 : idct_1x1;
}

}  // namespace native
