// Linear resampling of planes, an axis at a time.
#pragma once
#include <cstdint>
#include <vector>

namespace native {

// Which samples of a line make each output, and how much of each: a triangle of `radius`.
class Taps {
public:
    // Output i is centred at origin + (i + 0.5) * step, from the line's start; the samples in
    // [low, high) count, sample k at k + 0.5. `reversed` gives the outputs in reverse.
    void build(int outputs, double origin, double step, double radius, int low, int high,
               bool reversed);
    int outputs() const { return static_cast<int>(starts_.size()); }
    int count() const { return 2 * pairs_; }  // taps an output
    int first() const { return first_; }      // the samples that are used at all
    int end() const { return end_; }
    int start(int output) const { return starts_[output]; }
    float weight(int output, int tap) const { return weights_[tap * starts_.size() + output]; }

    // All outputs of a row whose element 0 is sample first(). Up to slack() elements beyond the
    // samples are read and must be finite.
    void apply(const float* row, float* out) const;
    int slack() const { return count() + 2 * kGroup; }

private:
    static constexpr int kGroup = 8;  // outputs that are made at once, where the processor can
    int pairs_ = 1, first_ = 0, end_ = 0;
    std::vector<int> starts_;
    std::vector<float> weights_;  // [count()][outputs]
    // Of each whole group: its least start, less first_; and of each of its outputs the start
    // less that one. Empty where a group's samples are more than a permutation can reach.
    std::vector<int> bases_, places_;
    int groups() const { return static_cast<int>(bases_.size()); }
    void build_groups();
    void apply_groups(const float* row, float* out) const;
};

// out[i] = sum over t of weights[t] * rows[t][i].
void blend_rows(const uint8_t* const* rows, const float* weights, int count, int width,
                float* out);

}  // namespace native
