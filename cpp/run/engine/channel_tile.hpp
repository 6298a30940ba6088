// The rows of a panel of four-bit channels: their sums over four channels at a time, any four.
#pragma once

#include "operand.hpp"

namespace thresher::THRESHER_NAMESPACE {

constexpr std::int64_t tall = EngineMatrix::tall_rows, half_tall = tall / 2;

#if defined(__AVX512VNNI__)

// Four channels, interleaved: rows 16 i to 16 i + 15 in low halves of bytes, 64 more in high ones.
struct Quad {
  __m512i codes[4];
};

THRESHER_INLINE Quad interleaved(const std::uint8_t* first, const std::uint8_t* second,
                                 const std::uint8_t* third, const std::uint8_t* fourth) {
  const __m512i a = _mm512_loadu_si512(first), b = _mm512_loadu_si512(second);
  const __m512i c = _mm512_loadu_si512(third), d = _mm512_loadu_si512(fourth);
  const __m512i ab = _mm512_unpacklo_epi8(a, b), upper_ab = _mm512_unpackhi_epi8(a, b);
  const __m512i cd = _mm512_unpacklo_epi8(c, d), upper_cd = _mm512_unpackhi_epi8(c, d);
  return {{_mm512_unpacklo_epi16(ab, cd), _mm512_unpackhi_epi16(ab, cd),
           _mm512_unpacklo_epi16(upper_ab, upper_cd), _mm512_unpackhi_epi16(upper_ab, upper_cd)}};
}

// Whole bytes are both halves at once: what low ones give is taken off in the end.
struct TallSums {
  __m512i low[4], both[4];

  THRESHER_INLINE explicit TallSums(std::int32_t start) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      low[i] = _mm512_set1_epi32(start);
      both[i] = _mm512_set1_epi32(17 * start);
    }
  }

  THRESHER_INLINE void add(const Quad& quad, std::int32_t word) {
    const __m512i inputs = _mm512_set1_epi32(word), low_half = _mm512_set1_epi8(15);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const __m512i codes = _mm512_and_si512(quad.codes[i], low_half);
      low[i] = _mm512_dpbusd_epi32(low[i], codes, inputs);
      both[i] = _mm512_dpbusd_epi32(both[i], quad.codes[i], inputs);
    }
  }

  // Of rows `lanes * i` on.
  THRESHER_INLINE Floats floats(int i) const {
    const __m512i sums =
        i < 4 ? low[i] : _mm512_srai_epi32(_mm512_sub_epi32(both[i - 4], low[i - 4]), 4);
    return reinterpret_cast<Floats>(_mm512_cvtepi32_ps(sums));
  }
};

#else

struct Quad {
  const std::uint8_t* lines[4];
};

THRESHER_INLINE Quad interleaved(const std::uint8_t* first, const std::uint8_t* second,
                                 const std::uint8_t* third, const std::uint8_t* fourth) {
  return {{first, second, third, fourth}};
}

struct TallSums {
  alignas(64) std::int32_t sums[tall];

  THRESHER_INLINE explicit TallSums(std::int32_t start) {
    for (std::int32_t& sum : sums) sum = start;
  }

#if defined(__AVX2__)
  THRESHER_INLINE void add(const Quad& quad, std::int32_t word) {
    const __m256i inputs = _mm256_set1_epi32(word);
    for (int half = 0; half < 2; ++half) {
      const auto line = [&](int i) {
        return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(quad.lines[i] + 32 * half));
      };
      const __m256i a = line(0), b = line(1), c = line(2), d = line(3);
      const __m256i ab = _mm256_unpacklo_epi8(a, b), upper_ab = _mm256_unpackhi_epi8(a, b);
      const __m256i cd = _mm256_unpacklo_epi8(c, d), upper_cd = _mm256_unpackhi_epi8(c, d);
      std::int32_t* rows = sums + 8 * half;
      add_codes(_mm256_unpacklo_epi16(ab, cd), inputs, rows);
      add_codes(_mm256_unpackhi_epi16(ab, cd), inputs, rows + 16);
      add_codes(_mm256_unpacklo_epi16(upper_ab, upper_cd), inputs, rows + 32);
      add_codes(_mm256_unpackhi_epi16(upper_ab, upper_cd), inputs, rows + 48);
    }
  }

  static THRESHER_INLINE void add_codes(__m256i codes, __m256i inputs, std::int32_t* rows) {
    const __m256i low_half = _mm256_set1_epi8(15);
    add_products(_mm256_and_si256(codes, low_half), inputs, rows);
    add_products(_mm256_and_si256(_mm256_srli_epi16(codes, 4), low_half), inputs,
                 rows + half_tall);
  }

  // Two products of 15 * 127 at most fit 16 bits.
  static THRESHER_INLINE void add_products(__m256i codes, __m256i inputs, std::int32_t* rows) {
    const __m256i pairs = _mm256_maddubs_epi16(codes, inputs);
    const __m256i products = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    auto* place = reinterpret_cast<__m256i*>(rows);
    _mm256_store_si256(place, _mm256_add_epi32(_mm256_load_si256(place), products));
  }
#else
  THRESHER_INLINE void add(const Quad& quad, std::int32_t word) {
    std::int8_t inputs[4];
    std::memcpy(inputs, &word, sizeof word);
    for (int channel = 0; channel < 4; ++channel) {
      for (int byte = 0; byte < half_tall; ++byte) {
        const std::int32_t codes = quad.lines[channel][byte];
        const int row = byte % 16 / 4 * 16 + byte / 16 * 4 + byte % 4;
        sums[row] += (codes & 15) * inputs[channel];
        sums[half_tall + row] += (codes >> 4) * inputs[channel];
      }
    }
  }
#endif

  THRESHER_INLINE Floats floats(int i) const {
    Floats values;
    for (int lane = 0; lane < lanes; ++lane) {
      values[lane] = static_cast<float>(sums[i * lanes + lane]);
    }
    return values;
  }
};

#endif

}  // namespace thresher::THRESHER_NAMESPACE
