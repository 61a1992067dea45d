#include "entropy.h"

namespace native {
namespace {

int run_of(int symbol) {
    if (symbol & 15) return symbol >> 4;
    return symbol == 0xF0 ? 15 : kEndOfBlock;  // as in libjpeg: other sizes 0 end the block too
}

// Calls visit(code, length, symbol) for each code in order.
template <class Visit>
void each_code(const HuffmanSpec& spec, Visit visit) {
    int code = 0, k = 0;
    for (int length = 1; length <= 16; length++, code *= 2)
        for (int i = 0; i < spec.counts[length]; i++) visit(code++, length, spec.symbols[k++]);
}

bool same(const HuffmanSpec& a, const HuffmanSpec& b) {
    return a.given == b.given && !std::memcmp(a.counts, b.counts, sizeof a.counts) &&
           !std::memcmp(a.symbols, b.symbols, sizeof a.symbols);
}

}  // namespace

void LongCodes::build(const HuffmanSpec& spec) {
    std::memcpy(symbols_, spec.symbols, sizeof symbols_);
    int code = 0, k = 0;
    for (int length = 1; length <= 16; length++, code *= 2) {
        offset_[length] = k - code;
        k += spec.counts[length];
        code += spec.counts[length];
        end_[length] = static_cast<uint32_t>(code) << (16 - length);
    }
}

int LongCodes::read(BitReader& in, int shortest) const {
    const uint32_t bits = in.peek(16);
    for (int length = shortest; length <= 16; length++)
        if (bits < end_[length]) {
            in.drop(length);
            return symbols_[(static_cast<int>(bits >> (16 - length)) + offset_[length]) & 255];
        }
    return -1;
}

void DcTable::build(const HuffmanSpec& spec) {
    std::memset(entries_, 0, sizeof entries_);
    long_.build(spec);
    each_code(spec, [this](int code, int length, int size) {
        if (length <= kBits)
            std::memset(entries_ + (code << (kBits - length)), length << 4 | size,
                        size_t{1} << (kBits - length));
    });
}

void AcTable::build(const HuffmanSpec& spec) {
    std::memset(entries_, 0, sizeof entries_);
    has_skips_ = false;
    long_.build(spec);
    each_code(spec, [this](int code, int length, int symbol) {
        if (length > kBits) return;
        const int free = kBits - length, size = symbol & 15;
        uint32_t* const first = entries_ + (code << free);
        const uint32_t run = static_cast<uint32_t>(run_of(symbol)) << 8;
        if (size > free || size == 0) {
            const uint32_t entry = run | size << 4 | length;
            for (int i = 0; i < 1 << free; i++) first[i] = entry;
            return;
        }
        const int spare = free - size;
        for (int bits = 0; bits < 1 << size; bits++) {
            const int value = bits < 1 << (size - 1) ? bits - (1 << size) + 1 : bits;
            const uint32_t entry = static_cast<uint32_t>(value) << 16 | run | (length + size);
            for (int i = 0; i < 1 << spare; i++) first[(bits << spare) + i] = entry;
        }
    });
    build_pairs();
}

bool AcTable::read_long(BitReader& in, int& run, int& value) const {
    const int symbol = long_.read(in, kBits + 1);
    if (symbol < 0) return false;
    run = run_of(symbol);
    value = symbol & 15 ? in.number(symbol & 15) : 0;
    return true;
}

// One code: moves `position` to its coefficient.
inline bool AcTable::step(BitReader& in, int& position, int& value) const {
    const uint32_t entry = entries_[in.peek(kBits)];
    if (__builtin_expect(entry == 0, false)) {
        int run;
        if (!read_long(in, run, value)) return false;
        position += run;
        return true;
    }
    in.drop(entry & 15);
    position += entry >> 8 & 255;
    const int size = entry >> 4 & 15;
    value = size ? in.number(size) : static_cast<int32_t>(entry) >> 16;
    return true;
}

bool AcTable::read(BitReader& in, int16_t* block, bool& flat) const {
    BitReader bits = in;  // in registers
    int position = 1, lookups = 0;
    flat = false;
    while (position < kBlock) {
        if (lookups-- == 0) {
            bits.refill();
            lookups = kLookups - 1;
        }
        const Pair& pair = pairs_[bits.peek(kBits)];
        if (__builtin_expect(pair.bits_of_first == 0, false)) {
            bits.refill();
            lookups = 0;
            int value;
            if (pair.bits) {
                bits.drop(pair.bits);
                value = bits.number(pair.advance);
                position += pair.run;
            } else if (!step(bits, position, value)) {
                return false;
            }
            block[kNaturalOrder.at[position++]] = static_cast<int16_t>(value);
            continue;
        }
        const int first = position + pair.run;
        if (first >= kBlock - 1) {  // the block ends here; the second code belongs to the next one
            bits.drop(pair.bits_of_first);
            block[kNaturalOrder.at[first]] = pair.first;
            flat = position == 1 && first > kEndOfBlock;
            position = first + 1;
            break;
        }
        bits.drop(pair.bits);
        const int second = first + pair.advance;
        block[kNaturalOrder.at[second]] = pair.second;  // if none: overwritten below
        block[kNaturalOrder.at[first]] = pair.first;
        position = second + 1;
    }
    in = bits;
    return position == kBlock || position > kEndOfBlock;
}

bool AcTable::skip(BitReader& in) {
    if (!has_skips_) build_skips();
    BitReader bits = in;
    int position = 1, lookups = 0;
    while (position < kBlock) {
        if (lookups-- == 0) {
            bits.refill();
            lookups = kLookups - 1;
        }
        const uint32_t entry = skips_[bits.peek(kBits)];
        // An entry's last code belongs to this block only if those before it leave room.
        if (entry && position + static_cast<int>(entry >> 16) < kBlock) {
            bits.drop(entry & 255);
            position += entry >> 8 & 255;
            continue;
        }
        bits.refill();
        lookups = 0;
        int value;
        if (!step(bits, position, value)) return false;
        position++;
    }
    in = bits;
    return position == kBlock || position > kEndOfBlock;
}

void AcTable::build_pairs() {
    for (uint32_t index = 0; index < 1u << kBits; index++) {
        const auto entry_at = [&](int used) {
            const uint32_t rest = index << used & ((1u << kBits) - 1);
            const uint32_t entry = entries_[rest];
            const int bits = entry & 15;
            // 0 if the code or its value extends beyond the index.
            return entry >> 4 & 15 || used + bits > kBits ? 0 : entry;
        };
        const uint32_t first = entry_at(0);
        const uint32_t second =
            first && (first >> 8 & 255) != kEndOfBlock ? entry_at(first & 15) : 0;
        Pair& pair = pairs_[index];
        pair.first = static_cast<int16_t>(first >> 16);
        pair.second = static_cast<int16_t>(second >> 16);
        pair.run = static_cast<uint8_t>(first >> 8);
        pair.advance = second ? static_cast<uint8_t>((second >> 8 & 255) + 1) : 0;
        pair.bits_of_first = first & 15;
        pair.bits = static_cast<uint8_t>((first & 15) + (second & 15));
        if (const uint32_t code = entries_[index]; !first && code) {
            pair.run = static_cast<uint8_t>(code >> 8);
            pair.advance = code >> 4 & 15;
            pair.bits = code & 15;
        }
    }
}

void AcTable::build_skips() {
    has_skips_ = true;
    for (uint32_t index = 0; index < 1u << kBits; index++) {
        int used = 0, positions = 0, before = 0;
        bool ended = false;
        while (!ended) {
            const uint32_t rest = index << used & ((1u << kBits) - 1);
            const uint32_t entry = entries_[rest];
            const int bits = (entry & 15) + (entry >> 4 & 15);
            const int advance = (entry >> 8 & 255) + 1;
            if (!entry || used + bits > kBits || positions + advance > 255) break;
            ended = advance > kEndOfBlock;
            before = positions;
            positions += advance;
            used += bits;
        }
        skips_[index] = used ? static_cast<uint32_t>(before) << 16 | positions << 8 | used : 0;
    }
}

void Tables::prepare(const Header& header) {
    for (int i = 0; i < 4; i++) {
        if (!same(header.dc[i], dc_specs_[i])) dc_[i].build(dc_specs_[i] = header.dc[i]);
        if (!same(header.ac[i], ac_specs_[i])) ac_[i].build(ac_specs_[i] = header.ac[i]);
    }
}

}  // namespace native
