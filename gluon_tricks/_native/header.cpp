#include "header.h"

#include <algorithm>
#include <cstring>

namespace native {
namespace {

// Reads the bytes of a marker segment with bounds checks: beyond the end everything is 0.
class Reader {
public:
    Reader(const uint8_t* data, size_t size) : data_(data), size_(size) {}
    size_t left() const { return size_ - at_; }
    const uint8_t* here() const { return data_ + at_; }
    int u8() { return at_ < size_ ? data_[at_++] : 0; }
    int u16() {
        const int high = u8();
        return high << 8 | u8();
    }
    void skip(size_t count) { at_ += std::min(count, left()); }

private:
    const uint8_t* data_;
    size_t size_, at_ = 0;
};

bool read_quantization(Reader in, Header& header) {
    while (in.left()) {
        const int precision_and_number = in.u8();
        const int wide = precision_and_number >> 4, number = precision_and_number & 15;
        if (wide > 1 || number > 3 || in.left() < (wide ? 128u : 64u)) return false;
        for (uint16_t& step : header.quantization[number])
            step = static_cast<uint16_t>(wide ? in.u16() : in.u8());
        header.quantized[number] = true;
    }
    return true;
}

// Also checks that the counts form a prefix code, so that no table built from it overflows.
bool read_huffman(Reader in, Header& header) {
    while (in.left()) {
        const int class_and_number = in.u8();
        const int kind = class_and_number >> 4, number = class_and_number & 15;
        if (kind > 1 || number > 3 || in.left() < 16) return false;
        HuffmanSpec spec;
        size_t total = 0;
        int code = 0;
        for (int length = 1; length <= 16; length++) {
            spec.counts[length] = static_cast<uint8_t>(in.u8());
            total += spec.counts[length];
            code = code * 2 + spec.counts[length];
            if (code > 1 << length) return false;
        }
        if (total > 256 || total > in.left()) return false;
        for (size_t i = 0; i < total; i++) {
            spec.symbols[i] = static_cast<uint8_t>(in.u8());
            if (kind == 0 && spec.symbols[i] > 11) return false;  // bits of a DC difference
        }
        spec.given = true;
        (kind ? header.ac : header.dc)[number] = spec;
    }
    return true;
}

bool read_frame(Reader in, Header& header) {
    const int precision = in.u8();
    header.height = in.u16();
    header.width = in.u16();
    header.components = in.u8();
    if (precision != 8 || header.height == 0 || header.width == 0 ||
        std::max(header.height, header.width) > kMaxSide)
        return false;
    if ((header.components != 1 && header.components != 3) ||
        in.left() < 3u * header.components)
        return false;
    for (int i = 0; i < header.components; i++) {
        Component& component = header.component[i];
        component.id = in.u8();
        const int sampling = in.u8();
        component.h = sampling >> 4;
        component.v = sampling & 15;
        component.quantization = in.u8();
        if (component.h < 1 || component.h > 4 || component.v < 1 || component.v > 4 ||
            component.quantization > 3)
            return false;
        // In a scan of one component an MCU is one block, whatever its sampling.
        if (header.components == 1) component.h = component.v = 1;
        header.max_h = std::max(header.max_h, component.h);
        header.max_v = std::max(header.max_v, component.v);
    }
    int blocks = 0;
    for (int i = 0; i < header.components; i++)
        blocks += header.component[i].h * header.component[i].v;
    return blocks <= 10;  // the standard's limit
}

// Accepts only a scan with the whole image and its components in the frame's order.
bool read_scan(Reader in, Header& header) {
    if (header.components == 0 || in.u8() != header.components) return false;
    for (int i = 0; i < header.components; i++) {
        Component& component = header.component[i];
        if (in.u8() != component.id) return false;
        const int tables = in.u8();
        component.dc = tables >> 4;
        component.ac = tables & 15;
        if (component.dc > 3 || component.ac > 3 || !header.dc[component.dc].given ||
            !header.ac[component.ac].given || !header.quantized[component.quantization])
            return false;
    }
    const int first = in.u8(), last = in.u8(), approximation = in.u8();
    return first == 0 && last == 63 && approximation == 0;
}

// The numbers of a TIFF header, as used by EXIF; callers check the bounds.
struct Tiff {
    const uint8_t* data;
    size_t size;
    bool little;

    unsigned u16(size_t at) const {
        return little ? data[at] | data[at + 1] << 8 : data[at] << 8 | data[at + 1];
    }
    size_t u32(size_t at) const {
        const size_t first = u16(at), second = u16(at + 2);
        return little ? second << 16 | first : first << 16 | second;
    }
    // Whether OpenCV can read the entry at `at`: texts or fractions out of bounds make it give up.
    bool readable(size_t at) const {
        const size_t length = u32(at + 4), place = u32(at + 8);
        switch (u16(at)) {
            case 0x010E: case 0x010F: case 0x0110: case 0x0131: case 0x0132: case 0x8298:
                return length <= 4 || (place <= size && length <= size - place);
            case 0x011A: case 0x011B: case 0x013E: case 0x013F: case 0x0211: case 0x0214:
                return size >= 48 && place <= size - 48;  // six fractions, the longest list
            default:
                return true;
        }
    }
};

// The orientation tag of the first image directory, found as OpenCV finds it: in the first APP1,
// six bytes in, whatever the tag's type. 1 if it is missing or invalid, 0 if OpenCV may read
// damaged entries differently.
int read_orientation(Reader in) {
    in.skip(6);  // "Exif\0\0"
    const Tiff tiff{in.here(), in.left(), in.left() > 0 && in.here()[0] == 'I'};
    if (tiff.size < 8 || (std::memcmp(tiff.data, "II", 2) && std::memcmp(tiff.data, "MM", 2)))
        return 1;
    const size_t directory = tiff.u32(4);
    if (tiff.u16(2) != 42 || directory > tiff.size - 2) return 1;
    const unsigned entries = tiff.u16(directory);
    for (unsigned i = 0; i < entries; i++) {
        const size_t entry = directory + 2 + 12 * static_cast<size_t>(i);
        if (entry + 12 > tiff.size) return 0;
        if (tiff.u16(entry) == 0x0112) {
            const unsigned value = tiff.u16(entry + 8);
            return 1 <= value && value <= 8 ? static_cast<int>(value) : 1;
        }
        if (!tiff.readable(entry)) return 0;
    }
    return 1;
}

// See transcode.h for the layout of the index.
void read_index(Reader in, Header& header) {
    static const char name[] = "GLUONTRICKS";  // with its final 0
    if (in.left() < 14 || std::memcmp(in.here(), name, 12)) return;
    in.skip(12);
    if (in.u8() != 1 || in.u8() != 2) return;
    header.index = in.here();
    header.segments = in.left() / 2;
}

// Decides as libjpeg does for three components.
bool is_ycc(const Header& header, bool jfif, int adobe_transform) {
    if (jfif) return true;
    if (adobe_transform >= 0) return adobe_transform != 0;
    const Component* c = header.component;
    return !(c[0].id == 'R' && c[1].id == 'G' && c[2].id == 'B');
}

}  // namespace

void read_header(const uint8_t* data, size_t size, Header& header) {
    header = Header();
    if (size < 4 || data[0] != 0xFF || data[1] != 0xD8) return;
    bool jfif = false, seen_app1 = false;
    int adobe_transform = -1;
    size_t at = 2;
    while (at + 4 <= size) {
        if (data[at] != 0xFF) return;
        const int marker = data[at + 1];
        if (marker == 0xFF) {  // a fill byte
            at++;
            continue;
        }
        const size_t length = static_cast<size_t>(data[at + 2]) << 8 | data[at + 3];
        if (marker < 0xC0 || (marker >= 0xD0 && marker <= 0xD9) || length < 2 ||
            length > size - at - 2)
            return;
        Reader in(data + at + 4, length - 2);
        at += 2 + length;
        bool good = true;
        switch (marker) {
            case 0xC0: case 0xC1: good = header.components == 0 && read_frame(in, header); break;
            case 0xC4: good = read_huffman(in, header); break;
            case 0xDB: good = read_quantization(in, header); break;
            case 0xDD: header.restart_interval = in.u16(); break;
            case 0xE0: jfif |= in.left() >= 14 && !std::memcmp(in.here(), "JFIF", 5); break;
            case 0xE1:
                if (!seen_app1) header.orientation = read_orientation(in);
                seen_app1 = true;
                good = header.orientation != 0;
                break;
            case 0xE9: read_index(in, header); break;
            case 0xEE:
                if (in.left() >= 12 && !std::memcmp(in.here(), "Adobe", 5))
                    adobe_transform = in.here()[11];
                break;
            case 0xDA:
                if (read_scan(in, header) &&
                    (header.components == 1 || is_ycc(header, jfif, adobe_transform))) {
                    header.scan = at;
                    header.kind = Kind::sequential;
                }
                return;
            default:
                // APPn, COM; else progressive, arithmetic, ...
                good = (marker >= 0xE0 && marker <= 0xEF) || marker == 0xFE;
        }
        if (!good) return;
    }
}

}  // namespace native
