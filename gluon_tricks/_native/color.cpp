#include "color.h"

#include <cfloat>
#include <cstring>

#include "dispatch.h"

namespace native {
namespace {

#define ALWAYS_INLINE inline __attribute__((always_inline))  // into each of the clones

ALWAYS_INLINE float least(float a, float b) { return a < b ? a : b; }
ALWAYS_INLINE float greatest(float a, float b) { return a > b ? a : b; }
ALWAYS_INLINE float clip(float x, float high) { return least(greatest(x, 0), high); }

struct Rgb {
    float r, g, b;
};

// JFIF's matrix; colors outside the RGB cube are clipped.
ALWAYS_INLINE Rgb from_ycc(float y, float cb, float cr) {
    cb -= 128;
    cr -= 128;
    return {clip(y + 1.402f * cr, 255), clip(y - 0.344136f * cb - 0.714136f * cr, 255),
            clip(y + 1.772f * cb, 255)};
}

// How far a channel is below the value, as a share of the chroma; hue in sixths of the circle.
ALWAYS_INLINE float fall(float hue, float offset) {
    float k = hue + offset;
    k = k >= 6 ? k - 6 : k;
    return clip(least(k, 4 - k), 1);
}

ALWAYS_INLINE Rgb jitter(Rgb in, const float gains[3]) {
    const float value = greatest(in.r, greatest(in.g, in.b));
    const float chroma = value - least(in.r, least(in.g, in.b));
    const float sixth = 1 / (chroma + FLT_EPSILON);
    const float from_g = (in.b - in.r) * sixth + 2, from_b = (in.r - in.g) * sixth + 4;
    float hue = value == in.g ? from_g : from_b;
    hue = value == in.r ? (in.g - in.b) * sixth : hue;
    hue = hue < 0 ? hue + 6 : hue;
    hue *= gains[0];
    hue = hue >= 6 ? hue - 6 : hue;
    const float new_value = least(value * gains[2], 255);
    const float saturation = least(chroma / (value + FLT_EPSILON) * gains[1], 1);
    const float new_chroma = new_value * saturation;
    return {new_value - new_chroma * fall(hue, 5), new_value - new_chroma * fall(hue, 3),
            new_value - new_chroma * fall(hue, 1)};
}

template <bool ycc, bool jittered>
ALWAYS_INLINE void each_pixel(const float* a, const float* b, const float* c, int width,
                              const Color& color, float* o0, float* o1, float* o2) {
    const Color k = color;  // a copy that no store can change
#pragma GCC ivdep  // each pixel is read before it is written
    for (int i = 0; i < width; i++) {
        Rgb rgb = ycc ? from_ycc(a[i], b[i], c[i])
                      : Rgb{least(a[i], 255), least(b[i], 255), least(c[i], 255)};
        if (jittered) rgb = jitter(rgb, k.gains);
        o0[i] = rgb.r * k.scale[0] + k.shift[0];
        o1[i] = rgb.g * k.scale[1] + k.shift[1];
        o2[i] = rgb.b * k.scale[2] + k.shift[2];
    }
}

}  // namespace

NATIVE_CLONES
void color_row(const float* const in[3], int width, bool ycc, const Color& color,
               float* const out[3]) {
    const float *a = in[0], *b = in[1], *c = in[2];
    if (ycc && color.jitter)
        each_pixel<true, true>(a, b, c, width, color, out[0], out[1], out[2]);
    else if (ycc)
        each_pixel<true, false>(a, b, c, width, color, out[0], out[1], out[2]);
    else if (color.jitter)
        each_pixel<false, true>(a, b, c, width, color, out[0], out[1], out[2]);
    else
        each_pixel<false, false>(a, b, c, width, color, out[0], out[1], out[2]);
}

NATIVE_CLONES
void to_half(const float* in, int count, uint16_t* out) {
    for (int i = 0; i < count; i++) {
        uint32_t bits;
        std::memcpy(&bits, in + i, 4);
        const uint32_t sign = bits >> 16 & 0x8000;
        bits &= 0x7FFFFFFF;
        // Normal numbers: shift the exponent's bias, round off the lowest 13 bits.
        const uint32_t normal = (bits - 0x38000000 + 0xFFF + (bits >> 13 & 1)) >> 13;
        // Numbers below 2^-14: adding 0.5 moves the wanted bits, rounded, to the end.
        float magnitude;
        std::memcpy(&magnitude, &bits, 4);
        magnitude += 0.5f;
        uint32_t small;
        std::memcpy(&small, &magnitude, 4);
        small -= 0x3F000000;
        uint32_t half = bits < 0x38800000 ? small : normal;
        half = bits >= 0x47800000 ? 0x7C00 : half;  // 65520 and above already round up to it
        half = bits > 0x7F800000 ? 0x7E00 : half;   // NaN
        out[i] = static_cast<uint16_t>(sign | half);
    }
}

}  // namespace native
