// What products multiply: tokens in float32, or rounded to bytes in groups.
#pragma once

#include "../kernels/simd.hpp"
#include "kernels.hpp"

namespace thresher::THRESHER_NAMESPACE {

// Rows of tokens, `width` apart; what is by group are scales, sums of codes, and sums of what these
// stand for, code * scale.
struct Operand {
  const float* values;
  const std::int8_t* codes;
  const float* scales;
  const std::int32_t* sums;
  const float* totals;
  std::int64_t width;
  const Kept* kept = nullptr;  // of the one token that there is, for a matrix of channels
  RowRoom* room = nullptr;     // for one of several tokens

  Operand from(std::int64_t token) const {
    const std::int64_t group = token * width / EngineMatrix::group;
    return {values + token * width, codes + token * width, scales + group,
            sums + group,           totals + group,        width};
  }
};

THRESHER_INLINE std::int32_t four_codes(const std::int8_t* codes) {
  std::int32_t word;
  std::memcpy(&word, codes, sizeof word);
  return word;
}

// Results of one panel, by token.
using Tile = float (*)[EngineMatrix::panel_rows];

#if defined(__AVX512F__)
constexpr int tile_tokens = 8;
#else
constexpr int tile_tokens = 4;
#endif

THRESHER_INLINE float widen_half(std::uint16_t half) {
  const std::uint32_t exponent = half >> 10 & 31, fraction = half & 1023;
  const float sign = half >> 15 != 0 ? -1.0f : 1.0f;
  if (exponent == 0) return sign * static_cast<float>(fraction) * 0x1p-24f;
  const std::uint32_t word =
      exponent == 31 ? 0x7f800000u | fraction << 13 : (exponent + 112) << 23 | fraction << 13;
  float value;
  std::memcpy(&value, &word, sizeof value);
  return sign * value;
}

// Float16 numbers after one another.
THRESHER_INLINE Floats load_halves(const std::uint16_t* from) {
#if defined(__AVX512F__)
  return reinterpret_cast<Floats>(
      _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
#elif defined(__AVX2__)
  return reinterpret_cast<Floats>(
      _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
#else
  Floats values;
  for (int i = 0; i < lanes; ++i) values[i] = widen_half(from[i]);
  return values;
#endif
}

// Of lanes that are not negative.
THRESHER_INLINE float largest_lane(Floats values) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps(reinterpret_cast<__m512>(values));
#else
  float largest = 0;
  for (int i = 0; i < lanes; ++i) largest = values[i] > largest ? values[i] : largest;
  return largest;
#endif
}

// Rounds groups of a token to bytes of at most 127. A group that is not finite gets the scale NaN.
inline void round_groups(const float* values, std::int64_t groups, std::int8_t* codes,
                         float* scales, std::int32_t* sums, float* totals) {
  constexpr std::int64_t group = EngineMatrix::group;
  constexpr float most_level = 127.0f;
  for (std::int64_t g = 0; g < groups; ++g, values += group, codes += group) {
    Floats most{}, zeros{};
    for (std::int64_t i = 0; i < group; i += lanes) {
      const Floats here = load(values + i);
      const Floats magnitude = here < 0.0f ? -here : here;
      most = magnitude > most ? magnitude : most;
      zeros += here * 0.0f;
    }
    const float largest = largest_lane(most);
    const bool finite = sum(zeros) == 0.0f;
    // The inverse of a number that is all but zero is infinite.
    const bool rounds = finite && largest > 1e-30f;
    const float levels = rounds ? most_level / largest : 0.0f;
    scales[g] = rounds ? largest / most_level : finite ? 0.0f : __builtin_nanf("");
    sums[g] = 0;
    totals[g] = scales[g];  // 0 or NaN
    if (!rounds) {
      clear(codes, group);
      continue;
    }
    for (std::int64_t i = 0; i < group; ++i) {
      // Adding and taking off 1.5 * 2^23 rounds to nearest even.
      const float level = (values[i] * levels + 0x1.8p23f) - 0x1.8p23f;
      codes[i] = static_cast<std::int8_t>(static_cast<std::int32_t>(level));
    }
    std::int32_t total = 0;
    for (std::int64_t i = 0; i < group; ++i) total += codes[i];
    sums[g] = total;
    totals[g] = static_cast<float>(total) * scales[g];
  }
}

}  // namespace thresher::THRESHER_NAMESPACE
