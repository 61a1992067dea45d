// Linear resampling of planes, one axis at a time.
#pragma once
#include <cstdint>
#include <vector>

namespace native {

// Which samples of a line make each output, and their weights: a triangle filter of `radius`.
class Taps {
public:
    // Output i is centered at origin + (i + 0.5) * step, from the line's start; the samples in
    // [low, high) are used, sample k at k + 0.5. `reversed` reverses the outputs.
    void build(int outputs, double origin, double step, double radius, int low, int high,
               bool reversed);
    int outputs() const { return static_cast<int>(starts_.size()); }
    int count() const { return 2 * pairs_; }  // taps per output
    int first() const { return first_; }      // the range of samples used
    int end() const { return end_; }
    int start(int output) const { return starts_[output]; }
    float weight(int output, int tap) const { return weights_[tap * starts_.size() + output]; }

    // Makes all outputs of a row whose element 0 is sample first(). Up to slack() elements beyond
    // the samples are read and must be finite.
    void apply(const float* row, float* out) const;
    int slack() const { return count() + 2 * kGroup; }

private:
    static constexpr int kGroup = 8;  // outputs made at once, if the processor can
    int pairs_ = 1, first_ = 0, end_ = 0;
    std::vector<int> starts_;
    std::vector<float> weights_;  // [count()][outputs]
    // For each complete group its smallest start, minus first_; and for each of its outputs the
    // start minus that. Empty if a group spans more samples than a permutation can reach.
    std::vector<int> bases_, places_;
    int groups() const { return static_cast<int>(bases_.size()); }
    void build_groups();
    void apply_groups(const float* row, float* out) const;
};

// out[i] = sum over t of weights[t] * rows[t][i].
void blend_rows(const uint8_t* const* rows, const float* weights, int count, int width,
                float* out);

}  // namespace native
