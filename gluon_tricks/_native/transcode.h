// Lossless rewriting of JPEGs, see transcode.cpp.
#pragma once
#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <vector>

// Rewrites a JPEG with the same coefficients, quantization tables and markers as one sequential
// scan with restart markers about every `mcus` MCUs, and an index of its segments if it fits.
//
// The index is an APP9 marker before the scan:
//
//     "GLUONTRICKS\0" | u8 version, 1 | u8 bytes an entry, 2 | u16 big-endian for each segment:
//     its length in bytes, from its first to the last before the RSTn or EOI marker
//
// Throws std::invalid_argument if the bytes are not a JPEG that can be rewritten like this, and
// std::bad_alloc. Thread-safe.
std::vector<std::uint8_t> transcode(const std::uint8_t* jpeg, std::size_t size, int mcus);

void bind_transcode(pybind11::module_& module);
