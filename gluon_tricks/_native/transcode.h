// Lossless rewriting of JPEGs, see transcode.cpp.
#pragma once
#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <vector>

// A JPEG of the same coefficients, quantisation tables and markers, in one sequential scan with
// restart markers about every `mcus` MCUs, and an index of its segments where one fits.
//
// The index is an APP9 marker ahead of the scan:
//
//     "GLUONTRICKS\0" | u8 version, 1 | u8 bytes an entry, 2 | u16 big-endian for each segment:
//     its length in bytes, from its first to the last ahead of the RSTn or EOI marker
//
// Throws std::invalid_argument where the bytes are no JPEG that can be so rewritten, and
// std::bad_alloc. Any number of threads may call it at once.
std::vector<std::uint8_t> transcode(const std::uint8_t* jpeg, std::size_t size, int mcus);

void bind_transcode(pybind11::module_& module);
