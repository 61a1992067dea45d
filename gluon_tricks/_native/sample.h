// Makes one sample: from an image's bytes and random numbers to its row of a batch.
#pragma once
#include <vector>

#include "color.h"
#include "planes.h"
#include "resample.h"

namespace native {

constexpr int kTries = 10;  // TRIES of augment/crop.py
constexpr int64_t kMaxPixels = int64_t{1} << 27;  // MAX_PIXELS of augment/crop.py

enum class Crop {
    resized,  // a random window, resized
    padded,   // a window of the output's size, anywhere in the padded image
    centered  // the center of the image, resized by its shorter edge or not
};

// The last stage to run; the benchmark measures what each stage adds.
enum class Stage { decoded, resampled, complete };

// What all samples have in common; see TrainTransform and EvalTransform in data/transforms.py.
struct Recipe {
    Crop crop = Crop::resized;
    int size = 224;
    int padding = 0;        // padded
    int shorter_edge = 0;   // centered; 0: as it is
    double most_aspect = 4.0 / 3, least_aspect = 3.0 / 4;
    bool antialias = false;
    bool shrink = false;    // decode large windows at a half, a quarter or an eighth of their size
    bool half = false;      // 16-bit floats
    bool channels_last = false;
    float mean[3], std[3];
    Stage stage = Stage::complete;
};

// The random numbers of one sample, as augment/crop.py and augment/color.py draw them.
struct Draws {
    const double* areas = nullptr;    // [kTries]
    const double* aspects = nullptr;  // [kTries]
    const double* places = nullptr;   // [2]
    bool flip = false;
    const double* gains = nullptr;  // [3], or null
    const double* light = nullptr;  // [3], added to R, G and B, or null
};

// crop_window of augment/crop.py.
Rect crop_window(int height, int width, const Draws& draws, double least_aspect,
                 double most_aspect);

// Makes samples; reuses its buffers. Not thread-safe.
class SampleMaker {
public:
    // Writes size * size * 3 numbers to `out`. Returns false if PlaneDecoder cannot decode the
    // image, it is damaged, or does not allow the crop: it is then left to OpenCV.
    bool make(const uint8_t* data, size_t bytes, const Recipe& recipe, const Draws& draws,
              void* out);

private:
    struct Axis;
    bool place(const Recipe& recipe, const Draws& draws, Axis& y, Axis& x) const;
    void render(const Recipe& recipe, const Draws& draws, const Axis& y, const Axis& x, void* out);
    void build_taps(const Recipe& recipe, const Axis& y, const Axis& x);
    void resample_row(int component, int row);
    void finish_row(const Recipe& recipe, const Color& color, int row, void* out);
    bool shares_taps(int component) const;
    void blacken(const Axis& y, const Axis& x, int row);

    Header header_;
    PlaneDecoder decoder_;
    Plane planes_[3];
    Taps rows_[3], columns_[3];
    std::vector<float> line_;
    std::vector<float> row_[3];
    std::vector<uint16_t> halves_;
    std::vector<const uint8_t*> sources_;
    std::vector<float> weights_;
};

}  // namespace native
