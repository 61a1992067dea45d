#include "planes.h"

#include <algorithm>
#include <cstring>

#include "idct.h"

namespace native {
namespace {

constexpr size_t kKeep = size_t{16} << 20;  // a smaller image frees a larger buffer

int ceil_div(int a, int b) { return (a + b - 1) / b; }

template <class T>
void fit(std::vector<T>& buffer, size_t size) {
    if (buffer.size() > kKeep && size < kKeep) std::vector<T>().swap(buffer);
    if (buffer.size() < size) buffer.resize(size);
}

// The first marker at or after `at` that is neither stuffing nor fill bytes; `size` if none.
size_t next_marker(const uint8_t* data, size_t size, size_t at) {
    while (at + 1 < size) {
        const void* found = std::memchr(data + at, 0xFF, size - at - 1);
        if (!found) break;
        at = static_cast<const uint8_t*>(found) - data;
        if (data[at + 1] != 0 && data[at + 1] != 0xFF) return at;
        at += data[at + 1] == 0 ? 2 : 1;
    }
    return size;
}

}  // namespace

// Which MCUs a window touches.
struct PlaneDecoder::Grid {
    int columns;  // of the whole image
    int first_row, last_row, first_column, last_column;

    Grid(const Header& header, const Rect& window) {
        const int width = 8 * header.max_h, height = 8 * header.max_v;
        columns = ceil_div(header.width, width);
        first_row = window.top / height;
        last_row = (window.top + window.height - 1) / height;
        first_column = window.left / width;
        last_column = (window.left + window.width - 1) / width;
    }
    // A block takes at least two bits: a damaged header must not ask for more memory than that.
    bool plausible(const Header& header, size_t size) const {
        int64_t blocks = 0;
        for (int i = 0; i < header.components; i++)
            blocks += header.component[i].h * header.component[i].v;
        const int64_t rows = ceil_div(header.height, 8 * header.max_v);
        return blocks * columns * rows <= static_cast<int64_t>(4 * (size - header.scan));
    }
    int rows_used() const { return last_row - first_row + 1; }
    int columns_used() const { return last_column - first_column + 1; }
};

bool PlaneDecoder::decode(const uint8_t* data, size_t size, const Header& header,
                          const Rect& window, int height, int width, int least,
                          Plane planes[3]) {
    const Grid grid(header, window);
    if (!grid.plausible(header, size)) return false;
    for (int i = 0; i < header.components; i++) {
        const Component& component = header.component[i];
        const int part_height = height * component.v / header.max_v;
        const int part_width = width * component.h / header.max_h;
        int shrink = 1;
        while (least && shrink < 8 && std::min(part_height, part_width) / (2 * shrink) >= least)
            shrink *= 2;
        const int block = sizes_[i] = 8 / shrink;
        for (int k = 0; k < kBlock; k++)
            steps_[i][kNaturalOrder.at[k]] =
                static_cast<int16_t>(header.quantization[component.quantization][k]);

        Plane& plane = planes[i];
        plane.stride = static_cast<ptrdiff_t>(grid.columns_used()) * component.h * block;
        plane.top = grid.first_row * component.v * block;
        plane.left = grid.first_column * component.h * block;
        plane.scale_y = double(component.v) / (header.max_v * shrink);
        plane.scale_x = double(component.h) / (header.max_h * shrink);
        const int rows = grid.rows_used() * component.v * block;
        // Blocks extend beyond the image's edge; their samples there are not part of it.
        plane.height = std::min(
            rows, ceil_div(header.height * component.v, header.max_v * shrink) - plane.top);
        plane.width = std::min(
            static_cast<int>(plane.stride),
            ceil_div(header.width * component.h, header.max_h * shrink) - plane.left);
        fit(samples_[i], static_cast<size_t>(plane.stride) * rows);
        plane.samples = samples_[i].data();
    }
    tables_.prepare(header);

    const int total = grid.columns * ceil_div(header.height, 8 * header.max_v);
    const int interval = header.restart_interval ? header.restart_interval : total;
    if (!find_segments(data, size, header, ceil_div(total, interval))) return false;
    int segment = -1, mcu = 0;  // what is being read, and its next MCU
    for (int row = grid.first_row; row <= grid.last_row; row++)
        for (int column = grid.first_column; column <= grid.last_column; column++) {
            const int wanted = row * grid.columns + column;
            if (wanted / interval != segment) {
                segment = wanted / interval;
                mcu = segment * interval;
                if (!open_segment(data, segment)) return false;
            }
            for (; mcu < wanted; mcu++)
                if (!skip_mcu(header)) return false;
            if (!decode_mcu(header, grid, row, column)) return false;
            mcu++;
        }
    return true;
}

// Fills starts_ from the index if it is correct, else by searching for the markers.
bool PlaneDecoder::find_segments(const uint8_t* data, size_t size, const Header& header,
                                 size_t expected) {
    starts_.clear();
    starts_.push_back(header.scan);
    if (header.segments == expected && expected > 1) {
        size_t at = header.scan;
        for (size_t i = 0; i < expected; i++) {
            at += (header.index[2 * i] << 8 | header.index[2 * i + 1]) + 2;
            // One wrong entry, in an edited file, would make all that follow wrong.
            if (at > size || data[at - 2] != 0xFF ||
                data[at - 1] != (i + 1 < expected ? 0xD0 + (i & 7) : 0xD9))
                break;
            starts_.push_back(at);
        }
        if (starts_.size() == expected + 1) return true;
        starts_.resize(1);
    }
    size_t at = header.scan;
    while (starts_.size() <= expected) {
        at = next_marker(data, size, at);
        const bool restarts = at < size && data[at + 1] >= 0xD0 && data[at + 1] <= 0xD7;
        at += 2;
        starts_.push_back(at);  // beyond the end if the last marker is missing
        if (!restarts) break;
    }
    // Without the end marker the file is truncated: damaged, even if this crop ends before that.
    return starts_.size() == expected + 1 && at <= size && data[at - 1] == 0xD9;
}

// Copies a segment without its stuffing, so that reading bits need not check for it.
bool PlaneDecoder::open_segment(const uint8_t* data, size_t number) {
    const uint8_t* from = data + starts_[number];
    const uint8_t* const end = data + std::max(starts_[number], starts_[number + 1] - 2);
    fit(unstuffed_, (end - from) + BitReader::kPadding);
    uint8_t* to = unstuffed_.data();
    while (from < end) {
        const void* found = std::memchr(from, 0xFF, end - from);
        const uint8_t* const stop = found ? static_cast<const uint8_t*>(found) + 1 : end;
        std::memcpy(to, from, stop - from);
        to += stop - from;
        from = stop;
        if (found && from < end) {
            if (*from != 0) return false;  // a marker or fill bytes within the data
            from++;
        }
    }
    std::memset(to, 0, 8);  // the rest of the padding is read, but never used
    bits_ = BitReader(unstuffed_.data(), to);
    std::fill(dc_, dc_ + 3, int16_t{0});
    return true;
}

bool PlaneDecoder::skip_mcu(const Header& header) {
    for (int i = 0; i < header.components; i++) {
        const Component& component = header.component[i];
        for (int n = component.h * component.v; n > 0; n--) {
            int difference;
            if (!tables_.dc(component.dc).read(bits_, difference) ||
                !tables_.ac(component.ac).skip(bits_))
                return false;
            dc_[i] = static_cast<int16_t>(dc_[i] + difference);
        }
    }
    return !bits_.overrun();
}

bool PlaneDecoder::decode_mcu(const Header& header, const Grid& grid, int row, int column) {
    alignas(32) int16_t block[kBlock + 8];
    for (int i = 0; i < header.components; i++) {
        const Component& component = header.component[i];
        const int size = sizes_[i];
        const Idct idct = idct_of(size);
        const ptrdiff_t stride =
            static_cast<ptrdiff_t>(grid.columns_used()) * component.h * size;
        uint8_t* const corner = samples_[i].data() +
            static_cast<ptrdiff_t>(row - grid.first_row) * component.v * size * stride +
            static_cast<ptrdiff_t>(column - grid.first_column) * component.h * size;
        for (int n = 0; n < component.h * component.v; n++) {
            std::memset(block, 0, sizeof block);
            int difference;
            bool flat;
            if (!tables_.dc(component.dc).read(bits_, difference) ||
                !tables_.ac(component.ac).read(bits_, block, flat))
                return false;
            block[0] = dc_[i] = static_cast<int16_t>(dc_[i] + difference);
            uint8_t* const out = corner + (n / component.h) * size * stride +
                                 (n % component.h) * size;
            if (!flat) {
                idct(block, steps_[i], out, stride);
                continue;
            }
            const uint8_t value = flat_sample(block[0], steps_[i][0]);
            for (int y = 0; y < size; y++) std::memset(out + y * stride, value, size);
        }
    }
    return !bits_.overrun();
}

}  // namespace native
