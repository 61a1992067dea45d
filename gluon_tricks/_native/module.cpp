// The native decoder's Python interface; gluon_tricks/data/native.py wraps it.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>

#include "sample.h"
#include "transcode.h"

namespace py = pybind11;

namespace native {
namespace {

using Doubles = py::array_t<double, py::array::c_style>;
using Integers = py::array_t<int64_t, py::array::c_style>;

constexpr uint32_t kMagic = 0xCED7230A;   // of a RecordIO frame
constexpr size_t kKeep = size_t{16} << 20;  // a smaller record frees a larger buffer
constexpr size_t kFrame = 8, kHead = 24;  // bytes of a frame's head, of a record's header
constexpr int64_t kMost = int64_t{1} << 29;  // a file, like a record, must be shorter

void require(bool condition, const char* what) {
    if (!condition) throw std::invalid_argument(what);
}

// Reads `length` bytes of a file at `offset`. Returns false if the file does not have them.
bool read_bytes(int file, int64_t offset, size_t length, std::vector<uint8_t>& bytes) {
    if (bytes.size() > kKeep && length < kKeep) std::vector<uint8_t>().swap(bytes);
    bytes.resize(length);
    size_t have = 0;
    while (have < length) {
        const ssize_t got = pread(file, bytes.data() + have, length - have, offset + have);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        have += got;
    }
    return true;
}

// A file descriptor that closes itself.
struct File {
    explicit File(int descriptor) : number(descriptor) {}
    ~File() {
        if (number >= 0) close(number);
    }
    File(const File&) = delete;
    File& operator=(const File&) = delete;
    const int number;
};

// Where the encoded images of a batch come from. Thread-safe.
class EncodedImages {
public:
    virtual ~EncodedImages() = default;
    virtual ssize_t count() const = 0;
    // Reads the image of a row into `bytes`, from `start` to the end. Returns false on failure.
    virtual bool read(int row, std::vector<uint8_t>& bytes, size_t& start) const = 0;
};

// Records of one frame each, in an open .rec.
class Records : public EncodedImages {
public:
    Records(int file, Integers offsets, Integers lengths)
        : file_(fcntl(file, F_DUPFD_CLOEXEC, 0)),  // our own: Python's may be closed meanwhile
          offsets_(offsets), lengths_(lengths) {
        require(file_.number >= 0, "the file is closed");
        require(lengths.size() == offsets.size(), "offsets and lengths differ in number");
    }
    ssize_t count() const override { return offsets_.size(); }
    bool read(int row, std::vector<uint8_t>& bytes, size_t& start) const override {
        const int64_t length = lengths_.data()[row];
        if (length < static_cast<int64_t>(kHead)) return false;
        if (!read_bytes(file_.number, offsets_.data()[row], kFrame + length, bytes)) return false;
        uint32_t words[3];  // magic, kind and length, flag
        std::memcpy(words, bytes.data(), sizeof words);
        if (words[0] != kMagic || words[1] != length || words[2] > 1) return false;
        start = kFrame + kHead + 4 * words[2];
        return start <= bytes.size();
    }

private:
    File file_;
    Integers offsets_, lengths_;
};

// Files by path; each is opened when it is read.
class Files : public EncodedImages {
public:
    explicit Files(std::vector<std::string> paths) : paths_(std::move(paths)) {}
    ssize_t count() const override { return paths_.size(); }
    bool read(int row, std::vector<uint8_t>& bytes, size_t& start) const override {
        const File file(open(paths_[row].c_str(), O_RDONLY | O_CLOEXEC));
        struct stat found;
        if (file.number < 0 || fstat(file.number, &found) || found.st_size >= kMost) return false;
        start = 0;
        return read_bytes(file.number, 0, found.st_size, bytes);
    }

private:
    std::vector<std::string> paths_;
};

// The samples of one batch. Threads may make parts of it concurrently.
class Job {
public:
    Job(const Recipe& recipe, std::unique_ptr<EncodedImages> images, py::dict draws, py::array out)
        : recipe_(recipe), images_(std::move(images)), out_(out), count_(images_->count()) {
        require(out.flags() & py::array::c_style && out.writeable(),
                "the batch must be contiguous and writeable");
        base_ = static_cast<uint8_t*>(out.mutable_data());
        numbers_ = size_t{3} * recipe.size * recipe.size;
        require(out.itemsize() == (recipe.half ? 2 : 4) &&
                    static_cast<size_t>(out.size()) == count_ * numbers_,
                "the batch's size or type does not match the recipe");
        take(draws, "areas", kTries, areas_);
        take(draws, "aspects", kTries, aspects_);
        take(draws, "places", 2, places_);
        take(draws, "gains", 3, gains_);
        take(draws, "light", 3, light_);
        take(draws, "flips", 1, flips_);
        if (recipe.crop == Crop::resized) require(areas_.size() && aspects_.size(), "no areas");
        if (recipe.crop != Crop::centered) require(places_.size() > 0, "no places");
    }

    // Makes rows [begin, end); returns those it could not make.
    std::vector<int> run(int begin, int end) {
        require(0 <= begin && begin <= end && end <= count_, "no such rows");
        py::gil_scoped_release release;
        thread_local SampleMaker maker;
        thread_local std::vector<uint8_t> bytes;
        std::vector<int> left;
        for (int row = begin; row < end; row++) {
            bool made = false;
            try {
                size_t start = 0;
                made = images_->read(row, bytes, start) &&
                       maker.make(bytes.data() + start, bytes.size() - start, recipe_, draws(row),
                                  base_ + row * numbers_ * (recipe_.half ? 2 : 4));
            } catch (const std::bad_alloc&) {  // the caller retries and names the record
            }
            if (!made) left.push_back(row);
        }
        return left;
    }

private:
    void take(const py::dict& draws, const char* name, int columns, Doubles& to) {
        if (!draws.contains(name) || draws[name].is_none()) return;
        to = draws[name].cast<Doubles>();
        require(to.size() == count_ * columns, "the draws do not match the number of samples");
    }
    Draws draws(int row) const {
        const auto at = [row](const Doubles& numbers, int columns) {
            return numbers.size() ? numbers.data() + row * columns : nullptr;
        };
        Draws draws;
        draws.areas = at(areas_, kTries);
        draws.aspects = at(aspects_, kTries);
        draws.places = at(places_, 2);
        draws.flip = flips_.size() && flips_.data()[row] != 0;
        draws.gains = at(gains_, 3);
        draws.light = at(light_, 3);
        return draws;
    }

    Recipe recipe_;
    std::unique_ptr<EncodedImages> images_;
    py::array out_;
    const ssize_t count_;
    Doubles areas_, aspects_, places_, gains_, light_, flips_;
    uint8_t* base_;
    size_t numbers_;
};

std::unique_ptr<Job> job_of_records(const Recipe& recipe, int file, Integers offsets,
                                    Integers lengths, py::dict draws, py::array out) {
    return std::make_unique<Job>(recipe, std::make_unique<Records>(file, offsets, lengths), draws,
                                 out);
}

std::unique_ptr<Job> job_of_files(const Recipe& recipe, std::vector<std::string> paths,
                                  py::dict draws, py::array out) {
    return std::make_unique<Job>(recipe, std::make_unique<Files>(std::move(paths)), draws, out);
}

Recipe make_recipe(const std::string& crop, int size, int padding, int shorter_edge,
                   std::vector<double> aspect, bool antialias, bool shrink, bool half,
                   bool channels_last, std::vector<float> mean, std::vector<float> std,
                   const std::string& stage) {
    require(size >= 1 && size <= 16384 && padding >= 0 && padding <= 16384 &&
                shorter_edge >= 0 && shorter_edge <= 32767,
            "no such size");
    require(aspect.size() == 2 && mean.size() == 3 && std.size() == 3, "numbers are missing");
    Recipe recipe;
    require(crop == "resized" || crop == "padded" || crop == "centered", "no such crop");
    recipe.crop = crop == "resized" ? Crop::resized
                                    : crop == "padded" ? Crop::padded : Crop::centered;
    recipe.size = size;
    recipe.padding = padding;
    recipe.shorter_edge = shorter_edge;
    recipe.least_aspect = aspect[0];
    recipe.most_aspect = aspect[1];
    recipe.antialias = antialias;
    recipe.shrink = shrink;
    recipe.half = half;
    recipe.channels_last = channels_last;
    std::copy(mean.begin(), mean.end(), recipe.mean);
    std::copy(std.begin(), std.end(), recipe.std);
    require(stage == "decoded" || stage == "resampled" || stage == "complete", "no such stage");
    recipe.stage = stage == "decoded" ? Stage::decoded
                                      : stage == "resampled" ? Stage::resampled : Stage::complete;
    return recipe;
}

// For tests: the planes of a JPEG's window, each as (samples, top, left), or None.
py::object decode_planes(const py::bytes& jpeg, int top, int left, int height, int width,
                         int least) {
    const auto data = static_cast<std::string_view>(jpeg);
    const auto* bytes = reinterpret_cast<const uint8_t*>(data.data());
    Header header;
    read_header(bytes, data.size(), header);
    if (header.kind != Kind::sequential) return py::none();
    require(top >= 0 && left >= 0 && height >= 1 && width >= 1 &&
                top + height <= header.height && left + width <= header.width,
            "the window extends beyond the image");
    PlaneDecoder decoder;
    Plane planes[3];
    if (!decoder.decode(bytes, data.size(), header, {top, left, height, width}, height, width,
                        least, planes))
        return py::none();
    py::list found;
    for (int i = 0; i < header.components; i++) {
        const Plane& plane = planes[i];
        py::array_t<uint8_t> samples({plane.height, plane.width});
        for (int y = 0; y < plane.height; y++)
            std::memcpy(samples.mutable_data(y, 0), plane.samples + y * plane.stride, plane.width);
        found.append(py::make_tuple(samples, plane.top, plane.left));
    }
    return found;
}

// For tests: a JPEG's (upright height, upright width, orientation), or None.
py::object header_of(const py::bytes& jpeg) {
    const auto data = static_cast<std::string_view>(jpeg);
    Header header;
    read_header(reinterpret_cast<const uint8_t*>(data.data()), data.size(), header);
    if (header.kind != Kind::sequential) return py::none();
    return py::make_tuple(header.upright_height(), header.upright_width(), header.orientation);
}

std::vector<int> window_of(int height, int width, const Doubles& areas, const Doubles& aspects,
                           const Doubles& places, double least, double most) {
    require(areas.size() == kTries && aspects.size() == kTries && places.size() == 2, "draws");
    Draws draws;
    draws.areas = areas.data();
    draws.aspects = aspects.data();
    draws.places = places.data();
    const Rect window = crop_window(height, width, draws, least, most);
    return {window.top, window.left, window.height, window.width};
}

// For tests: only the color stages, of (3, n) float32 rows in [0, 255].
py::array_t<float> color_of(const py::array_t<float, py::array::c_style>& in, bool ycc,
                            const std::vector<float>& gains, const std::vector<float>& shift) {
    require(in.ndim() == 2 && in.shape(0) == 3 && shift.size() == 3, "three rows");
    py::array_t<float> out({in.shape(0), in.shape(1)});
    Color color;
    color.jitter = gains.size() == 3;
    for (int c = 0; c < 3; c++) {
        if (color.jitter) color.gains[c] = gains[c];
        color.scale[c] = 1;
        color.shift[c] = shift[c];
    }
    const float* const from[3] = {in.data(0, 0), in.data(1, 0), in.data(2, 0)};
    float* const to[3] = {out.mutable_data(0, 0), out.mutable_data(1, 0), out.mutable_data(2, 0)};
    color_row(from, static_cast<int>(in.shape(1)), ycc, color, to);
    return out;
}

}  // namespace
}  // namespace native

PYBIND11_MODULE(core, module) {
    using namespace native;
    module.attr("sources") = NATIVE_SOURCES;  // the hash of the files it was built from
    bind_transcode(module);
    py::class_<Recipe>(module, "Recipe")
        .def(py::init(&make_recipe), py::kw_only(), py::arg("crop"), py::arg("size"),
             py::arg("padding") = 0, py::arg("shorter_edge") = 0, py::arg("aspect"),
             py::arg("antialias"), py::arg("shrink"), py::arg("half"), py::arg("channels_last"),
             py::arg("mean"), py::arg("std"), py::arg("stage") = "complete");
    py::class_<Job>(module, "Job")
        .def(py::init(&job_of_records))
        .def(py::init(&job_of_files))
        .def("run", &Job::run);
    module.def("decode_planes", &decode_planes);
    module.def("header_of", &header_of);
    module.def("window_of", &window_of);
    module.def("color_of", &color_of);
}
