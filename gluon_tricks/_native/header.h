// What a JPEG's markers say, up to its first scan.
#pragma once
#include <cstddef>
#include <cstdint>

namespace native {

constexpr int kMaxSide = 65500;  // libjpeg's limit

// A rectangle in an image, in pixels.
struct Rect {
    int top, left, height, width;
};

// A Huffman code as given in the file.
struct HuffmanSpec {
    uint8_t counts[17] = {};    // codes of each length, 1 to 16
    uint8_t symbols[256] = {};  // in the order of their codes
    bool given = false;
};

struct Component {
    int id, h, v;  // sampling factors
    int quantization, dc, ac;  // numbers of its tables
};

enum class Kind {
    sequential,  // 8-bit Huffman, one scan of gray or YCbCr: what Planes decodes
    other,       // another kind of JPEG, damaged, or not a JPEG: left to OpenCV
};

struct Header {
    Kind kind = Kind::other;
    int height = 0, width = 0;   // as stored, before the orientation is applied
    int orientation = 1;         // EXIF's, 1 to 8
    int components = 0;          // 1 or 3
    Component component[3];
    int max_h = 1, max_v = 1;
    int restart_interval = 0;    // in MCUs; 0: none
    size_t scan = 0;             // where the entropy-coded data start
    uint16_t quantization[4][64];  // in zigzag order
    bool quantized[4] = {};        // which of them the file defines
    HuffmanSpec dc[4], ac[4];
    const uint8_t* index = nullptr;  // lengths of the restart segments, big-endian u16
    size_t segments = 0;             // how many the index has

    // Height and width of the upright image.
    bool transposed() const { return orientation >= 5; }
    int upright_height() const { return transposed() ? width : height; }
    int upright_width() const { return transposed() ? height : width; }
};

// Never reads outside data[0, size); `header` may point into it.
void read_header(const uint8_t* data, size_t size, Header& header);

}  // namespace native
