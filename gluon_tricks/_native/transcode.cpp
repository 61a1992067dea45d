// Losslessly rewrites JPEGs into segments that can be decoded independently.
//
// Without restart markers, everything before a pixel in a JPEG must be decoded to reach it. After a
// restart marker decoding starts over, so a reader that knows where the segments are decodes only
// those under its window.
#include "transcode.h"

#include <jpeglib.h>

#include <jerror.h>

#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <new>
#include <stdexcept>
#include <string>

namespace {

constexpr int kIndexMarker = JPEG_APP0 + 9;
constexpr std::uint8_t kIndexStart[] = {'G', 'L', 'U', 'O', 'N', 'T', 'R', 'I', 'C', 'K', 'S', 0,
                                        1,    // version
                                        2};   // bytes an entry
constexpr std::size_t kIndexName = 12;        // bytes that say whose marker it is
constexpr std::size_t kMaxSegments = (65535 - 2 - sizeof kIndexStart) / 2;
constexpr std::size_t kMaxSegmentBytes = 65535;
constexpr int kMaxInterval = 65535;
constexpr int kSmoothedCoefficients = 10;  // see `complete`

struct Errors {
    jpeg_error_mgr base;  // first: libjpeg hands out a pointer to it
    std::jmp_buf escape;
    bool damaged;
    char message[JMSG_LENGTH_MAX];
};

[[noreturn]] void fail(j_common_ptr codec) {
    auto* errors = reinterpret_cast<Errors*>(codec->err);
    codec->err->format_message(codec, errors->message);
    std::longjmp(errors->escape, 1);
}

// A warning means that libjpeg had to guess data; transcoding would make the guess look sound.
void fail_on_warning(j_common_ptr codec, int level) {
    if (level < 0) {
        reinterpret_cast<Errors*>(codec->err)->damaged = true;
        fail(codec);
    }
}

void say_nothing(j_common_ptr) {}

// A replacement for libjpeg's jpeg_mem_dest, which leaks its buffer on an error.
struct Sink {
    jpeg_destination_mgr base;  // first: libjpeg hands out a pointer to it
    std::uint8_t* bytes;
    std::size_t capacity;

    std::size_t size() const { return capacity - base.free_in_buffer; }
};

void resize_sink(j_compress_ptr encoder, std::size_t capacity) {
    auto* sink = reinterpret_cast<Sink*>(encoder->dest);
    void* bytes = std::realloc(sink->bytes, capacity);
    if (!bytes) ERREXIT1(encoder, JERR_OUT_OF_MEMORY, 0);
    sink->bytes = static_cast<std::uint8_t*>(bytes);
    sink->base.next_output_byte = sink->bytes + sink->capacity;
    sink->base.free_in_buffer = capacity - sink->capacity;
    sink->capacity = capacity;
}

void start_sink(j_compress_ptr encoder) { resize_sink(encoder, 1 << 16); }

boolean double_sink(j_compress_ptr encoder) {
    resize_sink(encoder, 2 * reinterpret_cast<Sink*>(encoder->dest)->capacity);
    return TRUE;
}

void end_sink(j_compress_ptr) {}

std::size_t ceil_div(std::size_t a, std::size_t b) { return (a + b - 1) / b; }

// The divisor of the row nearest to `mcus`, within a factor of two, so that segments start where
// rows do; else `mcus` itself. Never 1 unless asked for: that would cost too many bytes.
int nearest_divisor(int row, int mcus) {
    int best = mcus;
    double best_ratio = 2.0;
    for (int divisor = mcus == 1 ? 1 : 2; divisor <= row; ++divisor) {
        if (row % divisor) continue;
        const double ratio = divisor < mcus ? double(mcus) / divisor : double(divisor) / mcus;
        if (ratio <= best_ratio) {  // no ties: `mcus` would divide the row too
            best = divisor;
            best_ratio = ratio;
        }
    }
    return best;
}

// MCUs between two restart markers, enough that the index has room for all segments.
int restart_interval(const jpeg_decompress_struct& decoder, int mcus) {
    std::size_t row, rows;
    if (decoder.num_components == 1) {  // then an MCU is one block, whatever the sampling factors
        row = decoder.comp_info[0].width_in_blocks;
        rows = decoder.comp_info[0].height_in_blocks;
    } else {
        row = ceil_div(decoder.image_width, decoder.max_h_samp_factor * DCTSIZE);
        rows = ceil_div(decoder.image_height, decoder.max_v_samp_factor * DCTSIZE);
    }
    int interval = nearest_divisor(int(row), mcus);
    while (ceil_div(row * rows, interval) > kMaxSegments) interval *= 2;
    return interval;
}

bool is_index(const jpeg_marker_struct& marker) {
    return marker.marker == kIndexMarker && marker.data_length >= kIndexName &&
           std::memcmp(marker.data, kIndexStart, kIndexName) == 0;
}

// Runs libjpeg's decompressor and compressor. The destructor frees what they allocate, however
// `rewrite` ended; `rewrite` and all it calls own nothing, so that longjmp may leave them.
class Transcoder {
public:
    Transcoder() = default;
    Transcoder(const Transcoder&) = delete;
    Transcoder& operator=(const Transcoder&) = delete;
    ~Transcoder() {
        jpeg_destroy_compress(&encoder_);
        jpeg_destroy_decompress(&decoder_);
        std::free(sink_.bytes);
    }

    // Returns false on failure; `throw_error` then says why.
    bool rewrite(const std::uint8_t* jpeg, std::size_t size, int mcus) {
        jpeg_std_error(&errors_.base);
        errors_.base.error_exit = fail;
        errors_.base.emit_message = fail_on_warning;
        errors_.base.output_message = say_nothing;
        encoder_.err = decoder_.err = &errors_.base;
        if (setjmp(errors_.escape)) return false;
        return read(jpeg, size) && write(mcus);
    }

    const std::uint8_t* bytes() const { return sink_.bytes; }
    std::size_t size() const { return sink_.size(); }

    [[noreturn]] void throw_error() const {
        if (errors_.base.msg_code == JERR_OUT_OF_MEMORY) throw std::bad_alloc();
        throw std::invalid_argument((errors_.damaged ? "damaged: " : "") +
                                    std::string(errors_.message));
    }

private:
    bool read(const std::uint8_t* jpeg, std::size_t size) {
        jpeg_create_decompress(&decoder_);
        jpeg_mem_src(&decoder_, jpeg, static_cast<unsigned long>(size));
        jpeg_save_markers(&decoder_, JPEG_COM, 0xFFFF);
        for (int i = 0; i < 16; ++i) jpeg_save_markers(&decoder_, JPEG_APP0 + i, 0xFFFF);
        jpeg_read_header(&decoder_, TRUE);
        if (!plausible(size)) return false;
        coefficients_ = jpeg_read_coefficients(&decoder_);
        return complete();
    }

    // Coefficients take 128 bytes per block, allocated beforehand: a damaged header must not ask
    // for more than its file can fill. Huffman coding takes at least a bit per block, arithmetic
    // coding may take less.
    bool plausible(std::size_t size) {
        std::size_t blocks = 0;
        for (int i = 0; i < decoder_.num_components; ++i) {
            const auto& component = decoder_.comp_info[i];
            blocks += std::size_t(component.width_in_blocks) * component.height_in_blocks;
        }
        if (blocks <= (decoder_.arith_code ? std::size_t(1) << 22 : 8 * size)) return true;
        errors_.damaged = true;
        std::snprintf(errors_.message, sizeof errors_.message,
                      "%zu bytes cannot hold %u x %u pixels", size, decoder_.image_width,
                      decoder_.image_height);
        return false;
    }

    // If scans of a progressive file are missing, decoders smooth over the first coefficients that
    // lack precision. In a sequential file they would not: its pixels would differ.
    bool complete() {
        if (!decoder_.coef_bits) return true;
        for (int i = 0; i < decoder_.num_components; ++i)
            for (int k = 0; k < kSmoothedCoefficients; ++k)
                if (decoder_.coef_bits[i][k] != 0) {
                    errors_.damaged = true;
                    std::snprintf(errors_.message, sizeof errors_.message,
                                  "some of its progressive scans are missing");
                    return false;
                }
        return true;
    }

    bool write(int mcus) {
        jpeg_create_compress(&encoder_);
        sink_.base.init_destination = start_sink;
        sink_.base.empty_output_buffer = double_sink;
        sink_.base.term_destination = end_sink;
        encoder_.dest = &sink_.base;
        jpeg_copy_critical_parameters(&decoder_, &encoder_);
        encoder_.optimize_coding = TRUE;
        encoder_.restart_interval = unsigned(restart_interval(decoder_, mcus));
        // Markers are copied, neither remade nor added: readers guess colors by their presence.
        encoder_.write_JFIF_header = FALSE;
        encoder_.write_Adobe_marker = FALSE;
        jpeg_write_coefficients(&encoder_, coefficients_);
        for (auto* marker = decoder_.marker_list; marker; marker = marker->next)
            if (!is_index(*marker))
                jpeg_write_marker(&encoder_, marker->marker, marker->data, marker->data_length);
        jpeg_finish_compress(&encoder_);
        return true;
    }

    Errors errors_{};
    Sink sink_{};
    jpeg_decompress_struct decoder_{};
    jpeg_compress_struct encoder_{};
    jvirt_barray_ptr* coefficients_ = nullptr;
};

struct Layout {
    std::size_t tables = 0;             // where the first marker other than APPn or COM starts
    std::vector<std::size_t> segments;  // their lengths
};

// Finds the parts of a JPEG that libjpeg has just written: one scan, no fill bytes.
Layout parse(const std::uint8_t* jpeg, std::size_t size) {
    Layout layout;
    std::size_t at = 2;  // after SOI
    for (int marker = 0; marker != 0xDA;) {
        marker = jpeg[at + 1];
        const bool kept = marker == JPEG_COM || (marker & 0xF0) == JPEG_APP0;
        if (!kept && !layout.tables) layout.tables = at;
        at += 2 + (std::size_t(jpeg[at + 2]) << 8 | jpeg[at + 3]);
    }
    for (std::size_t start = at; at + 1 < size; ++at) {
        if (jpeg[at] != 0xFF || jpeg[at + 1] == 0) continue;  // 0xFF 0 stands for the byte 0xFF
        layout.segments.push_back(at - start);
        start = at + 2;
    }
    return layout;
}

// The index; empty if its fields are too small for the segments.
std::vector<std::uint8_t> index_marker(const std::vector<std::size_t>& segments) {
    if (segments.size() > kMaxSegments) return {};
    const std::size_t length = 2 + sizeof kIndexStart + 2 * segments.size();
    std::vector<std::uint8_t> marker{0xFF, kIndexMarker, std::uint8_t(length >> 8),
                                     std::uint8_t(length)};
    marker.insert(marker.end(), std::begin(kIndexStart), std::end(kIndexStart));
    for (const std::size_t bytes : segments) {
        if (bytes > kMaxSegmentBytes) return {};
        marker.push_back(std::uint8_t(bytes >> 8));
        marker.push_back(std::uint8_t(bytes));
    }
    return marker;
}

}  // namespace

std::vector<std::uint8_t> transcode(const std::uint8_t* jpeg, std::size_t size, int mcus) {
    if (mcus < 1 || mcus > kMaxInterval)
        throw std::invalid_argument("mcus " + std::to_string(mcus) + ": must be from 1 to 65535");
    Transcoder transcoder;
    if (!transcoder.rewrite(jpeg, size, mcus)) transcoder.throw_error();
    const std::uint8_t* bytes = transcoder.bytes();
    const Layout layout = parse(bytes, transcoder.size());
    const std::vector<std::uint8_t> marker = index_marker(layout.segments);
    std::vector<std::uint8_t> whole;
    whole.reserve(transcoder.size() + marker.size());
    whole.insert(whole.end(), bytes, bytes + layout.tables);
    whole.insert(whole.end(), marker.begin(), marker.end());
    whole.insert(whole.end(), bytes + layout.tables, bytes + transcoder.size());
    return whole;
}

void bind_transcode(pybind11::module_& module) {
    namespace py = pybind11;
    module.def(
        "transcode",
        [](const py::bytes& jpeg, int mcus) {
            char* data = nullptr;
            Py_ssize_t size = 0;
            if (PyBytes_AsStringAndSize(jpeg.ptr(), &data, &size)) throw py::error_already_set();
            std::vector<std::uint8_t> whole;
            {
                py::gil_scoped_release release;
                whole = transcode(reinterpret_cast<const std::uint8_t*>(data), std::size_t(size),
                                  mcus);
            }
            return py::bytes(reinterpret_cast<const char*>(whole.data()), whole.size());
        },
        py::arg("jpeg"), py::arg("mcus") = 5,
        "A JPEG of the same pixels to the bit and the same APPn and COM markers, as one sequential "
        "scan with restart markers every `mcus` MCUs or so (1 to 65535) and an index of the "
        "segments in an APP9 marker. What follows the end of the image is dropped. Raises "
        "ValueError for bytes that are not a JPEG, a damaged one, or one that libjpeg cannot rewrite.");
}
