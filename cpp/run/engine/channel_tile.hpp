// Lines of channels, four at a time: interleaved, so that rows come out in order; summed, or laid
// out by rows.
#pragma once

#include "operand.hpp"

namespace thresher::THRESHER_NAMESPACE {

constexpr std::int64_t tall = EngineMatrix::tall_rows, half_tall = tall / 2;
constexpr std::int64_t channel_bytes = half_tall;

typedef std::uint8_t Bytes __attribute__((vector_size(lanes * 4)));
typedef std::uint8_t AnyBytes __attribute__((vector_size(lanes * 4), aligned(1), may_alias));

constexpr int quad_vectors = 16 / lanes * 4;

// Four bytes for each row, of four channels: vector i has rows `lanes * i` on in low halves of
// bytes, and those 64 on in high ones.
struct Quad {
  Bytes codes[quad_vectors];
};

// Within 16 bytes each, one from either: single bytes, or two.
#if defined(__AVX512F__)
THRESHER_INLINE Bytes low_bytes(Bytes a, Bytes b) {
  return (Bytes)_mm512_unpacklo_epi8((__m512i)a, (__m512i)b);
}
THRESHER_INLINE Bytes high_bytes(Bytes a, Bytes b) {
  return (Bytes)_mm512_unpackhi_epi8((__m512i)a, (__m512i)b);
}
THRESHER_INLINE Bytes low_pairs(Bytes a, Bytes b) {
  return (Bytes)_mm512_unpacklo_epi16((__m512i)a, (__m512i)b);
}
THRESHER_INLINE Bytes high_pairs(Bytes a, Bytes b) {
  return (Bytes)_mm512_unpackhi_epi16((__m512i)a, (__m512i)b);
}
#elif defined(__AVX2__)
THRESHER_INLINE Bytes low_bytes(Bytes a, Bytes b) {
  return (Bytes)_mm256_unpacklo_epi8((__m256i)a, (__m256i)b);
}
THRESHER_INLINE Bytes high_bytes(Bytes a, Bytes b) {
  return (Bytes)_mm256_unpackhi_epi8((__m256i)a, (__m256i)b);
}
THRESHER_INLINE Bytes low_pairs(Bytes a, Bytes b) {
  return (Bytes)_mm256_unpacklo_epi16((__m256i)a, (__m256i)b);
}
THRESHER_INLINE Bytes high_pairs(Bytes a, Bytes b) {
  return (Bytes)_mm256_unpackhi_epi16((__m256i)a, (__m256i)b);
}
#else
THRESHER_INLINE Bytes low_bytes(Bytes a, Bytes b) {
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
THRESHER_INLINE Bytes high_bytes(Bytes a, Bytes b) {
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15,
                                 31);
}
THRESHER_INLINE Bytes low_pairs(Bytes a, Bytes b) {
  return __builtin_shufflevector(a, b, 0, 1, 16, 17, 2, 3, 18, 19, 4, 5, 20, 21, 6, 7, 22, 23);
}
THRESHER_INLINE Bytes high_pairs(Bytes a, Bytes b) {
  return __builtin_shufflevector(a, b, 8, 9, 24, 25, 10, 11, 26, 27, 12, 13, 28, 29, 14, 15, 30,
                                 31);
}
#endif

THRESHER_INLINE Quad interleaved(const std::uint8_t* first, const std::uint8_t* second,
                                 const std::uint8_t* third, const std::uint8_t* fourth) {
  constexpr int parts = quad_vectors / 4;
  Quad quad;
#pragma GCC unroll 4
  for (int part = 0; part < parts; ++part) {
    const auto from = [&](const std::uint8_t* line) {
      return *reinterpret_cast<const AnyBytes*>(line + part * lanes * 4);
    };
    const Bytes a = from(first), b = from(second), c = from(third), d = from(fourth);
    const Bytes ab = low_bytes(a, b), upper_ab = high_bytes(a, b);
    const Bytes cd = low_bytes(c, d), upper_cd = high_bytes(c, d);
    quad.codes[part] = low_pairs(ab, cd);
    quad.codes[parts + part] = high_pairs(ab, cd);
    quad.codes[2 * parts + part] = low_pairs(upper_ab, upper_cd);
    quad.codes[3 * parts + part] = high_pairs(upper_ab, upper_cd);
  }
  return quad;
}

#if defined(__AVX512VNNI__)

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
      const auto codes = (__m512i)quad.codes[i];
      low[i] = _mm512_dpbusd_epi32(low[i], _mm512_and_si512(codes, low_half), inputs);
      both[i] = _mm512_dpbusd_epi32(both[i], codes, inputs);
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

struct TallSums {
  alignas(64) std::int32_t sums[tall];

  THRESHER_INLINE explicit TallSums(std::int32_t start) {
    for (std::int32_t& sum : sums) sum = start;
  }

  THRESHER_INLINE void add(const Quad& quad, std::int32_t word) {
    for (int i = 0; i < quad_vectors; ++i) {
      add_products(quad.codes[i] & 15, word, sums + lanes * i);
      add_products(quad.codes[i] >> 4, word, sums + half_tall + lanes * i);
    }
  }

  static THRESHER_INLINE void add_products(Bytes codes, std::int32_t word, std::int32_t* rows) {
#if defined(__AVX2__)
    // Two products of 15 * 127 at most fit 16 bits.
    const __m256i pairs = _mm256_maddubs_epi16((__m256i)codes, _mm256_set1_epi32(word));
    const __m256i products = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    auto* place = reinterpret_cast<__m256i*>(rows);
    _mm256_store_si256(place, _mm256_add_epi32(_mm256_load_si256(place), products));
#else
    std::int8_t inputs[4];
    std::memcpy(inputs, &word, sizeof word);
    for (int i = 0; i < 4 * lanes; ++i) rows[i / 4] += codes[i] * inputs[i % 4];
#endif
  }

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
