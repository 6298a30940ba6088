// Gathering floats by small indices: loads one by one, or one instruction for all.
#pragma once

#include <chrono>
#include <limits>

#include "rows.hpp"

namespace thresher::THRESHER_NAMESPACE {

#if defined(__AVX2__)
// Loads one by one, four indices to a word.
template <class Index>
THRESHER_INLINE __m128 gather_four(const float* from, const Index* indices) {
  constexpr int bits = 8 * sizeof(Index);
  constexpr std::uint64_t low = (1u << bits) - 1;
  std::uint64_t four = 0;
  std::memcpy(&four, indices, 4 * sizeof(Index));
  return _mm_set_ps(from[four >> 3 * bits], from[four >> 2 * bits & low], from[four >> bits & low],
                    from[four & low]);
}

template <class Index>
THRESHER_INLINE __m256 gather_eight(const float* from, const Index* indices) {
  return _mm256_set_m128(gather_four(from, indices + 4), gather_four(from, indices));
}
#endif

template <class Index>
THRESHER_INLINE Floats gather(const float* from, const Index* indices) {
#if defined(__AVX512F__)
  return reinterpret_cast<Floats>(_mm512_insertf32x8(
      _mm512_castps256_ps512(gather_eight(from, indices)), gather_eight(from, indices + 8), 1));
#elif defined(__AVX2__)
  return reinterpret_cast<Floats>(gather_eight(from, indices));
#else
  Floats gathered;
  for (int i = 0; i < lanes; ++i) gathered[i] = from[indices[i]];
  return gathered;
#endif
}

// The same by one instruction, where there is one.
THRESHER_INLINE Floats gather_at_once(const float* from, const std::uint16_t* indices) {
#if defined(__AVX512F__)
  const __m256i small = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(indices));
  return reinterpret_cast<Floats>(_mm512_i32gather_ps(_mm512_cvtepu16_epi32(small), from, 4));
#elif defined(__AVX2__)
  const __m128i small = _mm_loadu_si128(reinterpret_cast<const __m128i*>(indices));
  return reinterpret_cast<Floats>(_mm256_i32gather_ps(from, _mm256_cvtepu16_epi32(small), 4));
#else
  return gather(from, indices);
#endif
}

// A way of gathering, for kernels that are made for each.
struct OneByOne {
  static THRESHER_INLINE Floats from(const float* x, const std::uint16_t* indices) {
    return gather(x, indices);
  }
};

struct AtOnce {
  static THRESHER_INLINE Floats from(const float* x, const std::uint16_t* indices) {
    return gather_at_once(x, indices);
  }
};

// The least nanoseconds of some passes over what lies in the first-level cache.
template <class Gather>
double gathering_time(const float* x, const std::uint16_t* indices, std::int64_t count,
                      float& result) {
  double least = std::numeric_limits<double>::max();
  for (int pass = 0; pass < 16; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    Floats totals{};
    for (std::int64_t i = 0; i < count; i += lanes) totals += Gather::from(x, indices + i);
    result += sum(totals);
    const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - start;
    least = took.count() < least ? took.count() : least;
  }
  return least;
}

// Whether one instruction for all is the faster on this processor, measured once: on Zen 5 it takes
// twice the time of loads one by one, on Sapphire Rapids products with it take 0.85 of theirs. Both
// give the same floats, so that results do not depend on it.
inline bool gathers_at_once() {
#if defined(__AVX2__)
  static const bool faster = [] {
    constexpr std::int64_t count = 4096, floats = 2048;
    float x[floats] = {}, result = 0;
    std::uint16_t indices[count];
    for (std::int64_t i = 0; i < count; ++i) indices[i] = i * 389 % floats;
    const double singly = gathering_time<OneByOne>(x, indices, count, result);
    const double at_once = gathering_time<AtOnce>(x, indices, count, result);
    return at_once + result < singly;  // the sum is 0, and so is not left out
  }();
  return faster;
#else
  return false;
#endif
}

}  // namespace thresher::THRESHER_NAMESPACE
