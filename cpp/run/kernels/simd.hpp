// The few vector operations that the kernels are written in, for the instruction set that the
// including file is compiled for. Each such file names its own THRESHER_NAMESPACE, so that code
// compiled for a newer processor can never be linked into the path of an older one.
#pragma once

#include <cstdint>
#include <cstring>

#include "../element.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define THRESHER_INLINE inline __attribute__((always_inline))

namespace thresher::THRESHER_NAMESPACE {

#if defined(__AVX512F__)
constexpr int lanes = 16;
#elif defined(__AVX2__)
constexpr int lanes = 8;
#else
constexpr int lanes = 4;
#endif

// Panels are padded to this many columns on every instruction set.
constexpr std::int64_t panel_alignment = 16;

typedef float Floats __attribute__((vector_size(lanes * 4)));
typedef std::uint32_t Words __attribute__((vector_size(lanes * 4)));
typedef std::uint16_t Halves __attribute__((vector_size(lanes * 2)));
typedef float AnyFloats __attribute__((vector_size(lanes * 4), aligned(4), may_alias));
typedef std::uint16_t AnyHalves __attribute__((vector_size(lanes * 2), aligned(2), may_alias));

THRESHER_INLINE Floats splat(float value) { return value - Floats{}; }

THRESHER_INLINE Floats load(const float* from) { return *reinterpret_cast<const AnyFloats*>(from); }

THRESHER_INLINE Floats load(const bf16* from) {
  const Halves halves = *reinterpret_cast<const AnyHalves*>(from);
  const Words words = __builtin_convertvector(halves, Words) << 16;
  return reinterpret_cast<Floats>(words);
}

THRESHER_INLINE void store(float* to, Floats values) { *reinterpret_cast<AnyFloats*>(to) = values; }

// The first `count` lanes, zeros in the others.
THRESHER_INLINE Floats keep_first(Floats values, std::int64_t count) {
#if defined(__AVX512F__)
  // Hidden from the compiler, which would mask the loads that values are made from: masked ones
  // that miss the cache take several times as long on Zen 5.
  __asm__("" : "+v"(values));
  const __mmask16 kept = static_cast<__mmask16>((1u << count) - 1);
  return reinterpret_cast<Floats>(_mm512_maskz_mov_ps(kept, reinterpret_cast<__m512>(values)));
#else
  for (std::int64_t i = count; i < lanes; ++i) values[i] = 0;
  return values;
#endif
}

// Every second lane of two vectors that follow each other.
THRESHER_INLINE Floats even_lanes(Floats first, Floats second) {
#if defined(__AVX512F__)
  return __builtin_shufflevector(first, second, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26,
                                 28, 30);
#elif defined(__AVX2__)
  return __builtin_shufflevector(first, second, 0, 2, 4, 6, 8, 10, 12, 14);
#else
  return __builtin_shufflevector(first, second, 0, 2, 4, 6);
#endif
}

#if defined(__AVX512F__)
// The other lanes of two vectors that follow each other.
THRESHER_INLINE Floats odd_lanes(Floats first, Floats second) {
  return __builtin_shufflevector(first, second, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27,
                                 29, 31);
}
#endif

THRESHER_INLINE float sum(Floats values) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps(reinterpret_cast<__m512>(values));
#else
  float total = 0;
  for (int i = 0; i < lanes; ++i) total += values[i];
  return total;
#endif
}

THRESHER_INLINE float widen(float value) { return value; }

THRESHER_INLINE float widen(bf16 value) {
  const std::uint32_t word = static_cast<std::uint32_t>(value.bits) << 16;
  float result;
  std::memcpy(&result, &word, sizeof result);
  return result;
}

THRESHER_INLINE void narrow(float value, float& to) { to = value; }

// Rounds to nearest even, as torch does; NaN stays NaN.
THRESHER_INLINE void narrow(float value, bf16& to) {
  std::uint32_t word;
  std::memcpy(&word, &value, sizeof word);
  to.bits = value != value ? std::uint16_t{0x7fc0}
                           : static_cast<std::uint16_t>((word + 0x7fff + (word >> 16 & 1)) >> 16);
}

// As memcpy and memset, which must not be given null pointers even for nothing.
template <class T>
THRESHER_INLINE void copy(T* to, const T* from, std::int64_t count) {
  if (count > 0) std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(T));
}

template <class T>
THRESHER_INLINE void clear(T* to, std::int64_t count) {
  if (count > 0) std::memset(to, 0, static_cast<std::size_t>(count) * sizeof(T));
}

// Brings part `part` of `parts` of some bytes into the second-level cache.
THRESHER_INLINE void prefetch_part(const void* from, std::int64_t bytes, std::int64_t part,
                                   std::int64_t parts) {
  constexpr std::int64_t line = 64;
  const char* start = static_cast<const char*>(from);
  for (std::int64_t i = bytes * part / parts; i < bytes * (part + 1) / parts; i += line) {
    __builtin_prefetch(start + i, 0, 2);
  }
}

THRESHER_INLINE std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

THRESHER_INLINE std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

}  // namespace thresher::THRESHER_NAMESPACE
