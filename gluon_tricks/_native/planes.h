// Decodes the part of a JPEG that a crop needs to planes of samples.
#pragma once
#include <vector>

#include "entropy.h"
#include "header.h"

namespace native {

// Decoded samples of one component. Sample (y, x) is centered at ((top + y + 0.5) / scale_y,
// (left + x + 0.5) / scale_x) of the stored image, in pixels from its corner.
struct Plane {
    const uint8_t* samples = nullptr;
    ptrdiff_t stride = 0;
    int height = 0, width = 0;
    int top = 0, left = 0;
    double scale_y = 1, scale_x = 1;
};

// Decodes windows; reuses its buffers from image to image. Not thread-safe.
class PlaneDecoder {
public:
    // Decodes the blocks that `window` (inside the stored image) touches. If a plane's part of
    // height x width pixels is at least twice `least` on both sides, it is decoded at half, a
    // quarter or an eighth of its size, but not below `least`; least 0: never. Returns false if the
    // data are damaged.
    bool decode(const uint8_t* data, size_t size, const Header& header, const Rect& window,
                int height, int width, int least, Plane planes[3]);

private:
    struct Grid;  // of MCUs
    bool find_segments(const uint8_t* data, size_t size, const Header& header, size_t expected);
    bool open_segment(const uint8_t* data, size_t number);
    bool decode_mcu(const Header& header, const Grid& grid, int row, int column);
    bool skip_mcu(const Header& header);

    Tables tables_;
    std::vector<size_t> starts_;  // of the restart segments; the last is the end of the last one
    std::vector<uint8_t> unstuffed_;
    BitReader bits_;
    int16_t dc_[3];  // of the last block; wraps around if the data are damaged
    std::vector<uint8_t> samples_[3];
    int16_t steps_[3][kBlock];
    int sizes_[3];  // samples on a side of a block
};

}  // namespace native
