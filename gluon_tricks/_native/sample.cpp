#include "sample.h"

#include <algorithm>
#include <cmath>

namespace native {
namespace {

// Python's round: halves to even.
double rounded(double x) { return std::nearbyint(x); }

// Writes a finished row (or, if `down`, a finished column) to a sample.
template <class Number>
void store(Number* const rgb[3], int at, bool down, const Recipe& recipe, Number* out) {
    const ptrdiff_t size = recipe.size, pixel = recipe.channels_last ? 3 : 1;
    const ptrdiff_t channel = recipe.channels_last ? 1 : size * size;
    const ptrdiff_t step = (down ? size : 1) * pixel;
    Number* const first = out + at * (down ? 1 : size) * pixel;
    for (int c = 0; c < 3; c++)
        for (ptrdiff_t i = 0; i < size; i++) first[c * channel + i * step] = rgb[c][i];
}

Color color_of(const Recipe& recipe, const Draws& draws) {
    Color color;
    color.jitter = draws.gains != nullptr;
    for (int c = 0; c < 3; c++) {
        const double light = draws.light ? draws.light[c] : 0;
        color.scale[c] = 1 / recipe.std[c];
        color.shift[c] = static_cast<float>((light - recipe.mean[c]) / recipe.std[c]);
        if (draws.gains) color.gains[c] = static_cast<float>(draws.gains[c]);
    }
    return color;
}

}  // namespace

// Where the outputs of one axis are in the image: output i is centered at
// origin + (i + 0.5) * step pixels; pixels outside [low, high) are not used.
struct SampleMaker::Axis {
    double origin, step;
    int low, high;
    bool reversed = false;

    // The axis seen from its other end.
    Axis mirrored(int length, int outputs) const {
        return {length - origin - outputs * step, step, length - high, length - low, !reversed};
    }
    // The filter's radius: at least four pixels, the largest distance of chroma samples. (In shrunk
    // planes they may be farther apart: then the outermost are repeated.)
    double radius(bool antialias) const { return std::max(4.0, antialias ? step : 0.0); }
    // The pixels that the outputs touch.
    void touched(int outputs, double radius, int& first, int& end) const {
        first = std::max(low, static_cast<int>(std::floor(origin + 0.5 * step - radius)));
        end = std::min(
            high, static_cast<int>(std::ceil(origin + (outputs - 0.5) * step + radius)));
    }
};

Rect crop_window(int height, int width, const Draws& draws, double least_aspect,
                 double most_aspect) {
    for (int i = 0; i < kTries; i++) {
        const double share = draws.areas[i], aspect = draws.aspects[i];
        const double w = rounded(std::sqrt(share * height * width * aspect));
        const double h = rounded(std::sqrt(share * height * width / aspect));
        if (0 < w && w <= width && 0 < h && h <= height)
            return {static_cast<int>(draws.places[0] * (height - h + 1)),
                    static_cast<int>(draws.places[1] * (width - w + 1)), static_cast<int>(h),
                    static_cast<int>(w)};
    }
    const int w = std::min(width, std::max(1, static_cast<int>(rounded(height * most_aspect))));
    const int h = std::min(height, std::max(1, static_cast<int>(rounded(width / least_aspect))));
    return {(height - h) / 2, (width - w) / 2, h, w};
}

// Fills the axes of the upright image. Returns false if it is too small.
bool SampleMaker::place(const Recipe& recipe, const Draws& draws, Axis& y, Axis& x) const {
    const int height = header_.upright_height(), width = header_.upright_width();
    const int size = recipe.size;
    if (recipe.crop == Crop::resized) {
        const Rect window = crop_window(height, width, draws, recipe.least_aspect,
                                        recipe.most_aspect);
        y = {double(window.top), double(window.height) / size, window.top,
             window.top + window.height};
        x = {double(window.left), double(window.width) / size, window.left,
             window.left + window.width};
    } else if (recipe.crop == Crop::padded) {
        const int room_y = height + 2 * recipe.padding - size;
        const int room_x = width + 2 * recipe.padding - size;
        if (room_y < 0 || room_x < 0) return false;
        const auto start = [&](double place, int room) {
            return static_cast<int>(place * (room + 1)) - recipe.padding;
        };
        y = {double(start(draws.places[0], room_y)), 1, 0, height};
        x = {double(start(draws.places[1], room_x)), 1, 0, width};
    } else {
        int new_height = height, new_width = width;
        if (const int edge = recipe.shorter_edge) {
            const double scale = double(edge) / std::min(height, width);
            new_height = std::max(edge, static_cast<int>(rounded(height * scale)));
            new_width = std::max(edge, static_cast<int>(rounded(width * scale)));
            // Nothing here needs the complete resized image, but OpenCV's path does, and refuses.
            if (int64_t{new_height} * new_width > kMaxPixels) return false;
        }
        if (std::min(new_height, new_width) < size) return false;
        const double step_y = double(height) / new_height, step_x = double(width) / new_width;
        y = {(new_height - size) / 2 * step_y, step_y, 0, height};
        x = {(new_width - size) / 2 * step_x, step_x, 0, width};
    }
    x.reversed = draws.flip;
    return true;
}

bool SampleMaker::make(const uint8_t* data, size_t bytes, const Recipe& recipe,
                       const Draws& draws, void* out) {
    read_header(data, bytes, header_);
    if (header_.kind != Kind::sequential ||
        int64_t{header_.height} * header_.width > kMaxPixels)
        return false;
    Axis y, x;
    if (!place(recipe, draws, y, x)) return false;
    // Map the upright image to the stored one.
    static const bool rows_reversed[9] = {0, 0, 0, 1, 1, 0, 1, 1, 0};
    static const bool columns_reversed[9] = {0, 0, 1, 1, 0, 0, 0, 1, 1};
    if (header_.transposed()) std::swap(y, x);
    if (rows_reversed[header_.orientation]) y = y.mirrored(header_.height, recipe.size);
    if (columns_reversed[header_.orientation]) x = x.mirrored(header_.width, recipe.size);

    int top, bottom, left, right;
    y.touched(recipe.size, y.radius(recipe.antialias), top, bottom);
    x.touched(recipe.size, x.radius(recipe.antialias), left, right);
    if (top >= bottom || left >= right) return false;  // nothing but padding
    const int height = static_cast<int>(rounded(y.step * recipe.size));
    const int width = static_cast<int>(rounded(x.step * recipe.size));
    if (!decoder_.decode(data, bytes, header_, {top, left, bottom - top, right - left}, height,
                         width, recipe.shrink ? recipe.size : 0, planes_))
        return false;
    if (recipe.stage != Stage::decoded) render(recipe, draws, y, x, out);
    return true;
}

void SampleMaker::render(const Recipe& recipe, const Draws& draws, const Axis& y, const Axis& x,
                         void* out) {
    build_taps(recipe, y, x);
    for (std::vector<float>& row : row_) row.resize(recipe.size);
    halves_.resize(3 * static_cast<size_t>(recipe.size));
    const Color color = color_of(recipe, draws);
    for (int row = 0; row < recipe.size; row++) {
        for (int i = 0; i < header_.components; i++) resample_row(i, row);
        if (recipe.crop == Crop::padded) blacken(y, x, row);
        if (recipe.stage == Stage::complete) finish_row(recipe, color, row, out);
    }
}

void SampleMaker::build_taps(const Recipe& recipe, const Axis& y, const Axis& x) {
    const auto build = [&](Taps& taps, const Axis& axis, double scale, int start, int length) {
        const int low = static_cast<int>(std::floor(axis.low * scale)) - start;
        const int high = static_cast<int>(std::ceil(axis.high * scale)) - start;
        const double step = axis.step * scale;
        taps.build(recipe.size, axis.origin * scale - start, step,
                   recipe.antialias ? std::max(1.0, step) : 1.0, std::max(low, 0),
                   std::min(high, length), axis.reversed);
    };
    for (int i = 0; i < header_.components; i++) {
        if (shares_taps(i)) continue;
        const Plane& plane = planes_[i];
        build(rows_[i], y, plane.scale_y, plane.top, plane.height);
        build(columns_[i], x, plane.scale_x, plane.left, plane.width);
    }
}

// Resamples one row of a plane to row_[component].
void SampleMaker::resample_row(int component, int row) {
    const Plane& plane = planes_[component];
    const int taps = shares_taps(component) ? component - 1 : component;
    const Taps &rows = rows_[taps], &columns = columns_[taps];
    sources_.resize(rows.count());
    weights_.resize(rows.count());
    for (int t = 0; t < rows.count(); t++) {
        const int source = std::min(rows.start(row) + t, plane.height - 1);
        sources_[t] = plane.samples + source * plane.stride + columns.first();
        weights_[t] = rows.weight(row, t);
    }
    const int width = columns.end() - columns.first();
    if (line_.size() < static_cast<size_t>(width + columns.slack()))
        line_.resize(width + columns.slack());
    blend_rows(sources_.data(), weights_.data(), rows.count(), width, line_.data());
    columns.apply(line_.data(), row_[component].data());
}

// Applies the color stages to a row and stores it in the sample.
void SampleMaker::finish_row(const Recipe& recipe, const Color& color, int row, void* out) {
    const size_t size = recipe.size;
    const bool gray = header_.components == 1, transposed = header_.transposed();
    const float* const in[3] = {row_[0].data(), row_[gray ? 0 : 1].data(),
                                row_[gray ? 0 : 2].data()};
    float* rgb[3] = {row_[0].data(), row_[1].data(), row_[2].data()};
    if (!recipe.half && !recipe.channels_last && !transposed) {  // rows are contiguous
        for (size_t c = 0; c < 3; c++) rgb[c] = static_cast<float*>(out) + (c * size + row) * size;
        color_row(in, recipe.size, !gray, color, rgb);
        return;
    }
    color_row(in, recipe.size, !gray, color, rgb);
    if (!recipe.half) {
        store(rgb, row, transposed, recipe, static_cast<float*>(out));
        return;
    }
    uint16_t* const halves[3] = {halves_.data(), halves_.data() + size, halves_.data() + 2 * size};
    for (int c = 0; c < 3; c++) to_half(rgb[c], recipe.size, halves[c]);
    store(halves, row, transposed, recipe, static_cast<uint16_t*>(out));
}

// Whether a plane has the same geometry as the one before it, as Cr has with Cb.
bool SampleMaker::shares_taps(int component) const {
    if (component != 2) return false;
    const Plane &a = planes_[1], &b = planes_[2];
    return a.top == b.top && a.left == b.left && a.height == b.height && a.width == b.width &&
           a.scale_y == b.scale_y && a.scale_x == b.scale_x;
}

// Makes the pixels of a row outside the image black.
void SampleMaker::blacken(const Axis& y, const Axis& x, int row) {
    const int size = static_cast<int>(row_[0].size());
    const auto outside = [size](const Axis& axis, int output) {
        const double center =
            axis.origin + ((axis.reversed ? size - 1 - output : output) + 0.5) * axis.step;
        return center < axis.low || center > axis.high;
    };
    const bool whole_row = outside(y, row);
    for (int i = 0; i < size; i++)
        if (whole_row || outside(x, i))
            for (int c = 0; c < header_.components; c++) row_[c][i] = c == 0 ? 0.0f : 128.0f;
}

}  // namespace native
