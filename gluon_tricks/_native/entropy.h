// The entropy stage of sequential JPEGs: Huffman codes to coefficients, or past them.
//
// Images are cropped, so of many blocks only the number of bits matters: they are skipped several
// codes at a time. Tables look up a code together with the value that follows it.
#pragma once
#include <cstdint>
#include <cstring>

#include "header.h"

namespace native {

constexpr int kBlock = 64;       // coefficients
constexpr int kSpare = kBlock;   // where coefficients beyond the 64th go
constexpr int kEndOfBlock = 128;  // a run longer than any block

// Where each zigzag position is in a block; kSpare beyond the 64th.
struct NaturalOrder {
    uint8_t at[256] = {0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,
                       12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6,  7,  14, 21, 28,
                       35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
                       58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};
    constexpr NaturalOrder() {
        for (int k = kBlock; k < 256; k++) at[k] = kSpare;
    }
};
inline constexpr NaturalOrder kNaturalOrder;

// Reads bits from a buffer without stuffing, followed by at least kPadding bytes.
class BitReader {
public:
    static constexpr int kPadding = 4096;  // more than the ten blocks of an MCU can consume

    BitReader() = default;
    BitReader(const uint8_t* start, const uint8_t* end) : next_(start), end_(end) {}

    // Afterwards at least 56 bits can be read.
    void refill() {
        uint64_t word;
        std::memcpy(&word, next_, 8);
        bits_ |= __builtin_bswap64(word) >> count_;
        next_ += (63 - count_) >> 3;
        count_ |= 56;
    }
    uint32_t peek(int count) const { return static_cast<uint32_t>(bits_ >> (64 - count)); }
    void drop(int count) {
        bits_ <<= count;
        count_ -= count;
    }
    // The next `count` bits (1 to 15), decoded as a JPEG codes numbers of that size.
    int number(int count) {
        const int value = static_cast<int>(peek(count));
        drop(count);
        return value < 1 << (count - 1) ? value - (1 << count) + 1 : value;
    }
    // Whether more bits were read than there are.
    bool overrun() const { return next_ - (count_ >> 3) > end_; }

private:
    uint64_t bits_ = 0;
    int count_ = 0;
    const uint8_t* next_ = nullptr;
    const uint8_t* end_ = nullptr;
};

// A canonical Huffman code, for codes longer than a table's index.
class LongCodes {
public:
    void build(const HuffmanSpec& spec);
    // Reads a code of at least `shortest` bits. Returns its symbol, or -1 if there is no such code.
    int read(BitReader& in, int shortest) const;

private:
    uint32_t end_[17];   // for each length, one past its last code, shifted to 16 bits
    int offset_[17];     // the index of its first symbol, minus its first code
    uint8_t symbols_[256];
};

class DcTable {
public:
    void build(const HuffmanSpec& spec);
    // Reads a difference; false if there is no such code.
    bool read(BitReader& in, int& difference) const {
        in.refill();
        const int entry = entries_[in.peek(kBits)];
        int size = entry & 15;
        if (__builtin_expect(entry == 0, false)) {
            if ((size = long_.read(in, kBits + 1)) < 0) return false;
        } else {
            in.drop(entry >> 4);
        }
        difference = size ? in.number(size) : 0;
        return true;
    }

private:
    static constexpr int kBits = 9;
    uint8_t entries_[1 << kBits];  // length << 4 | size; 0: a longer code
    LongCodes long_;
};

class AcTable {
public:
    void build(const HuffmanSpec& spec);
    // Reads the 63 AC coefficients of a block into `block`, [kBlock + 1], in natural order, which
    // must be zeroed. `flat` says whether all are 0. Returns false if the data are damaged.
    bool read(BitReader& in, int16_t* block, bool& flat) const;
    // Skips the AC coefficients of a block. Returns false if the data are damaged.
    bool skip(BitReader& in);

private:
    static constexpr int kBits = 11;
    static constexpr int kLookups = 4;  // between refills
    static_assert(kLookups * kBits <= 56, "a refill guarantees only 56 bits");
    // One code: value << 16 | run << 8 | size << 4 | length. Size is 0 if the value is in the
    // entry, as for the end of a block (run kEndOfBlock, value 0) and a run of 16 (run 15, value
    // 0). All 0: a code longer than kBits.
    uint32_t entries_[1 << kBits];
    // Two codes with their values, or one.
    struct Pair {
        int16_t first, second;
        uint8_t run;      // positions before the first
        uint8_t advance;  // positions from the first to the second; 0: there is no second
        uint8_t bits;     // of both
        // 0 if the first value does not fit into the index: then `bits` are those of its code and
        // `advance` is the value's size; both are 0 if the code does not fit either.
        uint8_t bits_of_first;
    };
    Pair pairs_[1 << kBits];
    // Several codes: positions before the last one << 16 | positions << 8 | bits. 0: none fits.
    uint32_t skips_[1 << kBits];
    bool has_skips_ = false;
    LongCodes long_;
    bool read_long(BitReader& in, int& run, int& value) const;
    void build_pairs();
    void build_skips();
    bool step(BitReader& in, int& position, int& value) const;
};

// The tables of the last image, kept as long as the next image has the same.
class Tables {
public:
    void prepare(const Header& header);
    const DcTable& dc(int number) const { return dc_[number]; }
    AcTable& ac(int number) { return ac_[number]; }

private:
    HuffmanSpec dc_specs_[4], ac_specs_[4];
    DcTable dc_[4];
    AcTable ac_[4];
};

}  // namespace native
