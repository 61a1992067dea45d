// Feeds damaged JPEGs to the native decoder; test_fuzz.py builds it with sanitizers.
//
//     fuzz_driver SEEDS NUMBER FIRST COUNT [FILE]
//
// SEEDS has JPEGs, each after its length (u32, little-endian). Inputs FIRST to FIRST + COUNT are
// made from them, each a pure function of (SEEDS, NUMBER, its own number), so that one that fails
// can be made again by itself; the last one is written to FILE. Prints counts. Ends at the first fault:
// a sanitizer's, an image with numbers out of range or places left unwritten, one that depends on
// what was decoded before, or more than kSeconds of processor time.
#include <sanitizer/common_interface_defs.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iterator>
#include <memory>

#include "fuzz_mutations.h"
#include "sample.h"

// A plane of the largest image takes 128 MiB, and there are three.
extern "C" const char* __asan_default_options() {
    return "max_allocation_size_mb=160:hard_rss_limit_mb=1500:quarantine_size_mb=32:"
           "detect_leaks=0";
}
extern "C" const char* __ubsan_default_options() { return "print_stacktrace=1"; }

namespace {

using namespace fuzz;

constexpr int kSeconds = 20;  // the sanitizers slow it down tenfold
long current = -1;

native::Recipe any_recipe(Random& random) {
    static const int sizes[] = {1, 2, 7, 8, 9, 16, 31, 32, 33, 64, 100};
    native::Recipe recipe;
    recipe.crop = static_cast<native::Crop>(random.below(3));
    recipe.size = random.chance(40) ? 224 : random.any(sizes);
    recipe.padding = random.chance(2) ? random.from(0, 40) : 0;
    recipe.shorter_edge = random.chance(2) ? recipe.size + random.from(0, 60) : 0;
    recipe.antialias = random.chance(2);
    recipe.shrink = random.chance(2);
    recipe.half = random.chance(2);
    recipe.channels_last = random.chance(2);
    for (int c = 0; c < 3; c++) {
        recipe.mean[c] = static_cast<float>(100 + 20 * random.real());
        recipe.std[c] = static_cast<float>(50 + 20 * random.real());
    }
    return recipe;
}

// The random numbers of one sample, sometimes extreme ones.
struct Numbers {
    double areas[native::kTries], aspects[native::kTries], places[2], gains[3];
    native::Draws draws;

    explicit Numbers(Random& random) {
        const double share = random.chance(4) ? 1 : random.chance(4) ? 1e-6 : 0.08;
        for (double& area : areas) area = share + (1 - share) * random.real();
        for (double& aspect : aspects)
            aspect = random.chance(20) ? 200 * random.real() : 0.75 + random.real() * 7 / 12;
        for (double& place : places)
            place = random.chance(8) ? 0 : random.chance(8) ? 1 - 0x1p-53 : random.real();
        gains[0] = 2 * random.real();
        for (double* gain : {gains + 1, gains + 2})
            *gain = (random.chance(4) ? 9 : 2) * random.real();
        draws.areas = areas;
        draws.aspects = aspects;
        draws.places = places;
        draws.flip = random.chance(2);
        if (random.chance(2)) draws.gains = gains;
    }
};

[[noreturn]] void die(const char* what) {
    std::fprintf(stderr, "input %ld: %s\n", current, what);
    std::abort();
}

double half_value(uint16_t half) {
    const int exponent = half >> 10 & 31, fraction = half & 1023;
    if (exponent == 31) return NAN;
    const double value = exponent ? std::ldexp(1024 + fraction, exponent - 25)
                                  : std::ldexp(fraction, -24);
    return half & 0x8000 ? -value : value;
}

// Every number must be a normalized pixel within [0, 255], up to rounding.
void check_range(const native::Recipe& recipe, const Bytes& out) {
    const size_t pixels = size_t{1} * recipe.size * recipe.size;
    for (size_t i = 0; i < 3 * pixels; i++) {
        const size_t c = recipe.channels_last ? i % 3 : i / pixels;
        float whole;
        uint16_t half;
        std::memcpy(&whole, out.data() + (recipe.half ? 0 : 4 * i), 4);
        std::memcpy(&half, out.data() + 2 * i, 2);
        const double value = recipe.half ? half_value(half) : whole;
        const double pixel = value * recipe.std[c] + recipe.mean[c];
        if (!(pixel > -0.2 && pixel < 255.2)) die("a pixel out of range, or none");
    }
}

// Makes the sample with a maker that has seen other images, and with a new one.
bool make(native::SampleMaker& used, const uint8_t* data, size_t size, const native::Recipe& recipe,
          const native::Draws& draws) {
    // At least 3 x 2 bytes; all ones, which is NaN, where nothing is written.
    Bytes out(size_t{3} * recipe.size * recipe.size * (recipe.half ? 2 : 4), 0xFF);
    const auto fresh = std::make_unique<native::SampleMaker>();
    const bool made = fresh->make(data, size, recipe, draws, out.data());
    Bytes again(out.size(), 0xFF);
    if (used.make(data, size, recipe, draws, again.data()) != made)
        die("what was decoded before decides whether it is decoded");
    if (!made) return false;
    if (out != again) die("what was decoded before changes the image");
    check_range(recipe, out);
    return true;
}

void too_long(int) {
    std::fprintf(stderr, "input %ld: takes more than %d s\n", current, kSeconds);
    _exit(3);
}

void say_which() { std::fprintf(stderr, "input %ld\n", current); }

Seeds read_seeds(const char* path) {
    std::ifstream file(path, std::ios::binary);
    const Bytes all{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    Seeds seeds;
    for (size_t at = 0; at + 4 <= all.size();) {
        const size_t size = all[at] | all[at + 1] << 8 | all[at + 2] << 16;
        seeds.emplace_back(all.begin() + at + 4, all.begin() + at + 4 + size);
        at += 4 + size;
    }
    return seeds;
}

double seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

}  // namespace

int main(int argc, char** argv) {
    if (argc < 5) return 2;
    const Seeds seeds = read_seeds(argv[1]);
    if (seeds.empty()) return 2;
    const uint64_t number = std::strtoull(argv[2], nullptr, 10);
    const long first = std::atol(argv[3]), count = std::atol(argv[4]);
    std::signal(SIGPROF, too_long);
    __sanitizer_set_death_callback(say_which);
    long decoded = 0;
    double slowest = 0;
    native::SampleMaker used;
    for (current = first; current < first + count; current++) {
        Random random(Random(number).bits() + static_cast<uint64_t>(current) * 1000003);
        const Bytes bytes = mutated(random, seeds);
        if (argc > 5)
            std::ofstream(argv[5], std::ios::binary)
                .write(reinterpret_cast<const char*>(bytes.data()), bytes.size());
        // Of exactly its size, so that a read beyond either end is seen.
        const std::unique_ptr<uint8_t[]> data(new uint8_t[bytes.size()]);
        std::copy(bytes.begin(), bytes.end(), data.get());
        const itimerval limit{{0, 0}, {kSeconds, 0}};
        setitimer(ITIMER_PROF, &limit, nullptr);
        const double start = seconds();
        bool any = false;
        for (int n = 0; n < 2; n++) {
            const native::Recipe recipe = any_recipe(random);
            const Numbers numbers(random);
            any |= make(used, data.get(), bytes.size(), recipe, numbers.draws);
        }
        decoded += any;
        slowest = std::max(slowest, seconds() - start);
    }
    rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    std::printf("inputs %ld decoded %ld refused %ld slowest_ms %.0f peak_mb %ld\n", count, decoded,
                count - decoded, 1000 * slowest, usage.ru_maxrss >> 10);
}
