#include "resample.h"

#include <algorithm>
#include <cmath>

#include "dispatch.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

namespace native {

void Taps::build(int outputs, double origin, double step, double radius, int low, int high,
                 bool reversed) {
    pairs_ = (static_cast<int>(std::ceil(2 * radius)) + 1) / 2;
    starts_.resize(outputs);
    weights_.resize(static_cast<size_t>(outputs) * count());
    first_ = high;
    end_ = low;
    for (int i = 0; i < outputs; i++) {
        const double center = origin + (i + 0.5) * step - 0.5;  // samples are at integers
        const int lowest = static_cast<int>(std::floor(center - radius)) + 1;
        const int start = std::clamp(lowest, low, high - 1);
        const int output = reversed ? outputs - 1 - i : i;
        float* const weights = weights_.data() + output;  // a tap every `outputs` numbers
        double total = 0;
        for (int t = 0; t < count(); t++) {
            const double weight =
                start + t < high ? std::max(0.0, 1 - std::abs(start + t - center) / radius) : 0;
            weights[static_cast<size_t>(t) * outputs] = static_cast<float>(weight);
            total += weight;
        }
        if (total <= 0)  // beyond the last sample: repeat it
            weights[0] = 1;
        else if (total != 1)
            for (int t = 0; t < count(); t++)
                weights[static_cast<size_t>(t) * outputs] /= static_cast<float>(total);
        starts_[output] = start;
        first_ = std::min(first_, start);
        end_ = std::max(end_, std::min(start + count(), high));
    }
    build_groups();
}

#ifdef __x86_64__

void Taps::build_groups() {
    static const bool can = __builtin_cpu_supports("avx2");
    bases_.clear();
    places_.clear();
    if (!can) return;
    for (int group = 0; group + kGroup <= outputs(); group += kGroup) {
        const auto [least, greatest] =
            std::minmax(starts_[group], starts_[group + kGroup - 1]);  // starts rise or fall
        if (greatest - least >= 2 * kGroup) {
            bases_.clear();
            return;
        }
        bases_.push_back(least - first_);
        for (int i = 0; i < kGroup; i++) places_.push_back(starts_[group + i] - least);
    }
}

// A group's samples are within 16 adjacent elements: each tap is picked from two registers.
__attribute__((target("avx2")))
void Taps::apply_groups(const float* row, float* out) const {
    const size_t outputs = starts_.size();
    for (int group = 0; group < groups(); group++) {
        const __m256i places = _mm256_loadu_si256(
            reinterpret_cast<const __m256i*>(places_.data() + group * kGroup));
        const __m256 second = _mm256_castsi256_ps(_mm256_slli_epi32(places, 28));  // sign: 8 or more
        __m256 sum = _mm256_setzero_ps();
        for (int pair = 0; pair < pairs_; pair++) {
            const float* const samples = row + bases_[group] + 2 * pair;
            const float* const weights = weights_.data() + 2 * pair * outputs + group * kGroup;
            const auto pick = [&](int tap) __attribute__((target("avx2"))) {
                const __m256 low = _mm256_loadu_ps(samples + tap);
                const __m256 high = _mm256_loadu_ps(samples + tap + kGroup);
                return _mm256_mul_ps(
                    _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, places),
                                     _mm256_permutevar8x32_ps(high, places), second),
                    _mm256_loadu_ps(weights + tap * outputs));
            };
            sum = _mm256_add_ps(sum, _mm256_add_ps(pick(0), pick(1)));
        }
        _mm256_storeu_ps(out + group * kGroup, sum);
    }
}

#else

void Taps::build_groups() {}
void Taps::apply_groups(const float*, float*) const {}

#endif

void Taps::apply(const float* row, float* out) const {
    apply_groups(row, out);
    for (int i = groups() * kGroup; i < outputs(); i++) {
        const float* const samples = row + starts_[i] - first_;
        float sum = 0;
        for (int t = 0; t < count(); t += 2)
            sum += samples[t] * weight(i, t) + samples[t + 1] * weight(i, t + 1);
        out[i] = sum;
    }
}

NATIVE_CLONES
void blend_rows(const uint8_t* const* rows, const float* weights, int count, int width,
                float* __restrict out) {
    const uint8_t *a = rows[0], *b = rows[1];
    const float first = weights[0], second = weights[1];
    for (int i = 0; i < width; i++) out[i] = a[i] * first + b[i] * second;
    for (int t = 2; t < count; t++) {
        const uint8_t* const row = rows[t];
        const float weight = weights[t];
        if (weight != 0)
            for (int i = 0; i < width; i++) out[i] += row[i] * weight;
    }
}

}  // namespace native
