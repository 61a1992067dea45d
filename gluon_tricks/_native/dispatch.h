// Compiles a function for newer processors in addition to the baseline; chosen at run time.
#pragma once

// The loader resolves such functions before a sanitizer's runtime is loaded.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define NATIVE_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define NATIVE_CLONES
#endif
