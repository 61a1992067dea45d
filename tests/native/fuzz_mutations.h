// Damages JPEGs in many ways, for fuzz_driver.cpp. All draws come from the Random passed in.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace fuzz {

using Bytes = std::vector<uint8_t>;

class Random {
public:
    explicit Random(uint64_t state) : state_(state) {}
    uint64_t bits() {  // SplitMix64
        uint64_t x = state_ += 0x9E3779B97F4A7C15;
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9;
        x = (x ^ x >> 27) * 0x94D049BB133111EB;
        return x ^ x >> 31;
    }
    size_t below(size_t end) { return end ? bits() % end : 0; }
    int from(int low, int high) { return low + static_cast<int>(below(high - low + 1)); }
    bool chance(int one_in) { return below(one_in) == 0; }
    uint8_t byte() { return static_cast<uint8_t>(bits()); }
    double real() { return static_cast<double>(bits() >> 11) * 0x1p-53; }  // [0, 1)
    template <class T, size_t n>
    T any(const T (&values)[n]) { return values[below(n)]; }

private:
    uint64_t state_;
};

// A marker segment, from its 0xFF on.
struct Marker {
    size_t at, size;
    int code;
};

// Those from SOI to SOS, as far as they can be followed.
inline std::vector<Marker> markers_of(const Bytes& bytes) {
    std::vector<Marker> found;
    for (size_t at = 2; at + 4 <= bytes.size() && bytes[at] == 0xFF;) {
        const size_t size = 2 + (size_t{bytes[at + 2]} << 8 | bytes[at + 3]);
        if (at + size > bytes.size()) break;
        found.push_back({at, size, bytes[at + 1]});
        if (bytes[at + 1] == 0xDA) break;
        at += size;
    }
    return found;
}

// Where the entropy-coded data start.
inline size_t scan_of(const Bytes& bytes) {
    const auto markers = markers_of(bytes);
    return markers.empty() ? 0 : markers.back().at + markers.back().size;
}

// One of the markers `code`; size 0 if there is none.
inline Marker pick(Random& random, const Bytes& bytes, int code) {
    auto markers = markers_of(bytes);
    markers.erase(std::remove_if(markers.begin(), markers.end(),
                                 [&](const Marker& m) { return m.code != code; }),
                  markers.end());
    return markers.empty() ? Marker{0, 0, code} : markers[random.below(markers.size())];
}

inline void insert(Bytes& bytes, size_t at, const Bytes& part) {
    bytes.insert(bytes.begin() + std::min(at, bytes.size()), part.begin(), part.end());
}

// Puts a marker before all others, or before the last; sometimes the file ends with it.
inline void insert_marker(Random& random, Bytes& bytes, int code, const Bytes& payload) {
    Bytes whole{0xFF, static_cast<uint8_t>(code), static_cast<uint8_t>((payload.size() + 2) >> 8),
                static_cast<uint8_t>(payload.size() + 2)};
    insert(whole, whole.size(), payload);
    const auto markers = markers_of(bytes);
    const size_t at = markers.empty() || random.chance(2) ? 2 : markers.back().at;
    insert(bytes, at, whole);
    // A read beyond the marker is one beyond the file.
    if (random.chance(8)) bytes.resize(std::min(bytes.size(), at + whole.size()));
}

inline void change(Random& random, Bytes& bytes, size_t begin, size_t end, int most) {
    if (begin >= end) return;
    static const uint8_t special[] = {0, 1, 0x7F, 0x80, 0xD0, 0xD7, 0xD9, 0xFE, 0xFF};
    for (int n = random.from(1, most); n > 0; n--) {
        uint8_t& byte = bytes[begin + random.below(end - begin)];
        if (random.chance(2))
            byte ^= static_cast<uint8_t>(1 << random.below(8));
        else
            byte = random.chance(2) ? random.byte() : random.any(special);
    }
}

using Seeds = std::vector<Bytes>;
using Mutation = void (*)(Random&, Bytes&, const Seeds&);

inline void anywhere(Random& random, Bytes& bytes, const Seeds&) {
    change(random, bytes, 0, bytes.size(), 16);
}

inline void header_bytes(Random& random, Bytes& bytes, const Seeds&) {
    change(random, bytes, 0, std::min(bytes.size(), scan_of(bytes)), 8);
}

inline void scan_bytes(Random& random, Bytes& bytes, const Seeds&) {
    change(random, bytes, scan_of(bytes), bytes.size(), 3);
}

inline void truncate(Random& random, Bytes& bytes, const Seeds&) {
    const size_t least = random.chance(2) ? 0 : scan_of(bytes);
    if (least < bytes.size()) bytes.resize(least + random.below(bytes.size() - least));
}

// Removes a piece, or inserts a piece of this or another seed.
inline void splice(Random& random, Bytes& bytes, const Seeds& seeds) {
    const size_t at = random.below(bytes.size()), size = random.below(1 + bytes.size() / 4);
    if (random.chance(2)) {
        bytes.erase(bytes.begin() + at, bytes.begin() + std::min(bytes.size(), at + size));
        return;
    }
    const Bytes other = random.chance(2) ? bytes : seeds[random.below(seeds.size())];
    const size_t from = random.below(other.size());
    insert(bytes, at, Bytes(other.begin() + from,
                            other.begin() + std::min(other.size(), from + size)));
}

// The header of this, the scan of another, or vice versa.
inline void cross(Random& random, Bytes& bytes, const Seeds& seeds) {
    const Bytes& other = seeds[random.below(seeds.size())];
    Bytes head(bytes.begin(), bytes.begin() + std::min(bytes.size(), scan_of(bytes)));
    head.insert(head.end(), other.begin() + scan_of(other), other.end());
    bytes = head;
}

// Moves, duplicates or removes a marker, or inserts another seed's.
inline void shuffle_markers(Random& random, Bytes& bytes, const Seeds& seeds) {
    const auto markers = markers_of(bytes);
    if (markers.empty()) return;
    const Marker one = markers[random.below(markers.size())];
    const size_t to = markers[random.below(markers.size())].at;
    Bytes part(bytes.begin() + one.at, bytes.begin() + one.at + one.size);
    if (random.chance(3)) {
        const Bytes& other = seeds[random.below(seeds.size())];
        const auto theirs = markers_of(other);
        const Marker their = theirs[random.below(theirs.size())];
        part.assign(other.begin() + their.at, other.begin() + their.at + their.size);
    } else if (random.chance(2)) {
        bytes.erase(bytes.begin() + one.at, bytes.begin() + one.at + one.size);
        if (random.chance(2)) return;
    }
    insert(bytes, to, part);
}

inline void dimensions(Random& random, Bytes& bytes, const Seeds&) {
    const Marker frame = pick(random, bytes, 0xC0);
    if (frame.size < 9) return;
    static const int sides[] = {0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 255, 500, 2047};
    static const int large[] = {2047, 2048, 4096, 8192, 11585, 16384, 32767, 65500, 65535};
    const bool huge = random.chance(3);
    for (size_t at = frame.at + 5; at < frame.at + 9; at += 2) {
        const int side = random.chance(3) ? bytes[at] << 8 | bytes[at + 1]
                                          : huge ? random.any(large) : random.any(sides);
        bytes[at] = static_cast<uint8_t>(side >> 8);
        bytes[at + 1] = static_cast<uint8_t>(side);
    }
}

inline void sampling(Random& random, Bytes& bytes, const Seeds&) {
    const Marker frame = pick(random, bytes, 0xC0);
    for (size_t at = frame.at + 11; at < frame.at + frame.size; at += 3)
        if (random.chance(2))
            bytes[at] = random.chance(8) ? random.byte()
                                         : static_cast<uint8_t>(random.from(1, 4) << 4 |
                                                                random.from(1, 4));
}

inline void huffman(Random& random, Bytes& bytes, const Seeds&) {
    const Marker table = pick(random, bytes, 0xC4);
    if (table.size < 22) return;
    uint8_t* const counts = bytes.data() + table.at + 5;
    if (random.chance(2)) {  // other symbols of the same codes
        change(random, bytes, table.at + 21, table.at + table.size, 6);
    } else {  // other lengths of as many codes
        for (int n = random.from(1, 6); n > 0; n--) {
            uint8_t &from = counts[random.below(16)], &to = counts[random.below(16)];
            if (random.chance(8))
                std::swap(from, to);
            else if (from && to < 255)
                from--, to++;
        }
    }
}

inline void quantization(Random& random, Bytes& bytes, const Seeds&) {
    const Marker table = pick(random, bytes, 0xDB);
    change(random, bytes, table.at + 4 + (random.chance(4) ? 0 : 1), table.at + table.size, 64);
}

inline void restarts(Random& random, Bytes& bytes, const Seeds&) {
    static const int intervals[] = {0, 1, 2, 3, 4, 5, 7, 8, 100, 255, 256, 65535};
    const int interval = random.any(intervals);
    const Bytes payload{static_cast<uint8_t>(interval >> 8), static_cast<uint8_t>(interval)};
    const Marker marker = pick(random, bytes, 0xDD);
    if (marker.size == 6 && random.chance(2))
        std::copy(payload.begin(), payload.end(), bytes.begin() + marker.at + 4);
    else if (random.chance(2))
        insert_marker(random, bytes, 0xDD, payload);
    else  // within the data
        insert(bytes, scan_of(bytes) + random.below(bytes.size()),
               {0xFF, static_cast<uint8_t>(random.from(0xCF, 0xD9))});
}

inline void segment_index(Random& random, Bytes& bytes, const Seeds&) {
    const Marker marker = pick(random, bytes, 0xE9);
    if (marker.size && random.chance(4)) {
        change(random, bytes, marker.at + 4, marker.at + marker.size, 2);
    } else if (marker.size > 18) {
        change(random, bytes, marker.at + 18, marker.at + marker.size, 4);
    } else {
        Bytes payload{'G', 'L', 'U', 'O', 'N', 'T', 'R', 'I', 'C', 'K', 'S', 0, 1, 2};
        for (int n = random.from(0, 60); n > 0; n--)
            payload.push_back(random.chance(2) ? 0 : random.byte());
        insert_marker(random, bytes, 0xE9, payload);
    }
}

inline void exif(Random& random, Bytes& bytes, const Seeds&) {
    const uint8_t orientation = static_cast<uint8_t>(random.from(0, 9));
    Bytes payload{'E', 'x', 'i', 'f', 0, 0, 'M', 'M', 0, 42, 0, 0, 0, 8, 0, 2,
                  1, 0x0F, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0,
                  1, 0x12, 0, 3, 0, 0, 0, 1, 0, orientation, 0, 0, 0, 0, 0, 0};
    if (random.chance(3)) {
        payload[6] = payload[7] = 'I';
        for (size_t at : {8, 14, 16, 18, 28, 30, 36}) std::swap(payload[at], payload[at + 1]);
        std::swap(payload[10], payload[13]);
    }
    if (random.chance(3)) change(random, payload, 0, payload.size(), 4);
    if (random.chance(6)) change(random, payload, 10, 16, 2);  // where the directory is, its length
    if (random.chance(3)) payload.resize(random.below(payload.size()));
    insert_marker(random, bytes, 0xE1, payload);
}

inline void noise(Random& random, Bytes& bytes, const Seeds&) {
    const size_t begin = random.chance(4) ? 0 : random.chance(2) ? 2 : scan_of(bytes);
    for (size_t i = begin; i < bytes.size(); i++) bytes[i] = random.byte();
    if (begin > 2)  // as entropy-coded data may look
        for (size_t i = begin; i < bytes.size(); i++)
            if (bytes[i] == 0xFF) bytes[i] = 0;
}

inline void none(Random&, Bytes&, const Seeds&) {}

constexpr Mutation kMutations[] = {
    anywhere, header_bytes, scan_bytes, truncate, splice, cross, shuffle_markers, dimensions,
    sampling, huffman, quantization, restarts, segment_index, exif, noise, none};

inline Bytes mutated(Random& random, const Seeds& seeds) {
    Bytes bytes = seeds[random.below(seeds.size())];
    for (int n = random.chance(2) ? 1 : random.from(2, 4); n > 0 && !bytes.empty(); n--)
        random.any(kMutations)(random, bytes, seeds);
    return bytes;
}

}  // namespace fuzz
