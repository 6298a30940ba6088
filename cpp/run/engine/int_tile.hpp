// Panels of int8 and int4 rows times a few tokens rounded to bytes.
//
// Sums within a group are exact integers; groups are added in float32 in their order, so that a
// token's sums do not depend on what goes through together with it.
#pragma once

#include "operand.hpp"

namespace thresher::THRESHER_NAMESPACE {

constexpr std::int64_t line_bytes = 64;
// Weights are read once and in order, and a processor's own prefetching stops at every page.
constexpr std::int64_t bytes_ahead = 8192;

// What codes count from.
template <Format format, bool minimums>
constexpr std::int32_t code_zero = minimums                 ? 0
                                   : format == Format::int8 ? 128
                                                            : 8;
template <Format format>
constexpr int group_lines = format == Format::int8 ? 8 : 4;

template <Format format>
THRESHER_INLINE void fetch_ahead(const std::uint8_t* group) {
  for (int line = 0; line < group_lines<format>; ++line)
    __builtin_prefetch(group + bytes_ahead + line * line_bytes, 0, 2);
}

#if defined(__AVX512VNNI__)

template <Format format, bool minimums, int Batch>
THRESHER_INLINE void add_group(const std::uint8_t* lines, const Operand& x, std::int64_t g,
                               __m512i (&sums)[Batch]) {
  const std::int8_t* codes = x.codes + g * EngineMatrix::group;
#pragma GCC unroll 8
  for (int b = 0; b < Batch; ++b) {
    const std::int32_t* sum = x.sums + b * x.width / EngineMatrix::group + g;
    sums[b] =
        minimums ? _mm512_setzero_si512() : _mm512_set1_epi32(-code_zero<format, minimums> * *sum);
  }
#pragma GCC unroll 8
  for (int line = 0; line < group_lines<format>; ++line) {
    const __m512i bytes = _mm512_loadu_si512(lines + line * line_bytes);
    if constexpr (format == Format::int8) {
#pragma GCC unroll 8
      for (int b = 0; b < Batch; ++b) {
        const std::int8_t* at = codes + b * x.width + 4 * line;
        sums[b] = _mm512_dpbusd_epi32(sums[b], bytes, _mm512_set1_epi32(four_codes(at)));
      }
    } else {
      const __m512i low_half = _mm512_set1_epi8(15);
      const __m512i low = _mm512_and_si512(bytes, low_half);
      const __m512i high = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), low_half);
#pragma GCC unroll 8
      for (int b = 0; b < Batch; ++b) {
        const std::int8_t* at = codes + b * x.width + 8 * line;
        sums[b] = _mm512_dpbusd_epi32(sums[b], low, _mm512_set1_epi32(four_codes(at)));
        sums[b] = _mm512_dpbusd_epi32(sums[b], high, _mm512_set1_epi32(four_codes(at + 4)));
      }
    }
  }
}

template <Format format, bool minimums, int Batch>
void multiply_tile_int(const EngineMatrix& matrix, std::int64_t panel, const Operand& x,
                       Tile tile) {
  const std::uint8_t* lines = matrix.panel(panel);
  const std::int64_t place = matrix.scale_place(panel);
  const std::int64_t groups = matrix.groups();
  Floats totals[Batch] = {};
  for (std::int64_t g = 0; g < groups; ++g) {
    __m512i sums[Batch];
    const std::uint8_t* group = lines + g * group_lines<format> * line_bytes;
    fetch_ahead<format>(group);
    add_group<format, minimums, Batch>(group, x, g, sums);
    const std::int64_t rows = place + g * EngineMatrix::panel_rows;
    const Floats row_scales = load_halves(matrix.scales + rows);
    const Floats least = minimums ? load_halves(matrix.minimums + rows) : Floats{};
#pragma GCC unroll 8
    for (int b = 0; b < Batch; ++b) {
      const std::int64_t at = b * x.width / EngineMatrix::group + g;
      totals[b] += reinterpret_cast<Floats>(_mm512_cvtepi32_ps(sums[b])) *
                   (row_scales * splat(x.scales[at]));
      if constexpr (minimums) totals[b] += least * splat(x.totals[at]);
    }
  }
  for (int b = 0; b < Batch; ++b) store(tile[b], totals[b] * splat(matrix.unit));
}

#elif defined(__AVX2__)

// Eight rows of a group: half a line at a time.
template <Format format, bool minimums>
THRESHER_INLINE __m256i half_group(const std::uint8_t* lines, const std::int8_t* codes,
                                   std::int32_t sum) {
  const __m256i ones = _mm256_set1_epi16(1);
  if constexpr (format == Format::int8) {
    __m256i total = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int line = 0; line < 8; ++line) {
      const __m256i bytes = _mm256_xor_si256(
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(lines + line * line_bytes)),
          _mm256_set1_epi8(-128));
      // Bytes of 0 to 255 would overflow 16 bits; their magnitudes times signed inputs do not.
      const __m256i inputs = _mm256_set1_epi32(four_codes(codes + 4 * line));
      const __m256i products =
          _mm256_maddubs_epi16(_mm256_abs_epi8(bytes), _mm256_sign_epi8(inputs, bytes));
      total = _mm256_add_epi32(total, _mm256_madd_epi16(products, ones));
    }
    constexpr std::int32_t taken = 128 - code_zero<format, minimums>;
    return taken == 0 ? total : _mm256_add_epi32(total, _mm256_set1_epi32(taken * sum));
  } else {
    // Eight sums of two products of 15 * 127 at most fit 16 bits.
    const __m256i low_half = _mm256_set1_epi8(15);
    __m256i total = _mm256_setzero_si256();
#pragma GCC unroll 4
    for (int line = 0; line < 4; ++line) {
      const __m256i bytes =
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(lines + line * line_bytes));
      const __m256i low = _mm256_and_si256(bytes, low_half);
      const __m256i high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), low_half);
      const __m256i first = _mm256_set1_epi32(four_codes(codes + 8 * line));
      const __m256i second = _mm256_set1_epi32(four_codes(codes + 8 * line + 4));
      total = _mm256_add_epi16(total, _mm256_maddubs_epi16(low, first));
      total = _mm256_add_epi16(total, _mm256_maddubs_epi16(high, second));
    }
    return _mm256_add_epi32(_mm256_madd_epi16(total, ones),
                            _mm256_set1_epi32(-code_zero<format, minimums> * sum));
  }
}

template <Format format, bool minimums, int Batch>
void multiply_tile_int(const EngineMatrix& matrix, std::int64_t panel, const Operand& x,
                       Tile tile) {
  const std::int64_t groups = matrix.groups();
  for (std::int64_t row = 0; row < EngineMatrix::panel_rows; row += lanes) {
    const std::uint8_t* lines = matrix.panel(panel) + 4 * row;
    Floats totals[Batch] = {};
    for (std::int64_t g = 0; g < groups; ++g) {
      const std::int64_t rows = matrix.scale_place(panel) + g * EngineMatrix::panel_rows + row;
      const Floats row_scales = load_halves(matrix.scales + rows);
      const Floats least = minimums ? load_halves(matrix.minimums + rows) : Floats{};
#pragma GCC unroll 4
      for (int b = 0; b < Batch; ++b) {
        const std::int64_t at = b * x.width / EngineMatrix::group + g;
        const __m256i sums =
            half_group<format, minimums>(lines + g * group_lines<format> * line_bytes,
                                         x.codes + at * EngineMatrix::group, x.sums[at]);
        totals[b] +=
            reinterpret_cast<Floats>(_mm256_cvtepi32_ps(sums)) * (row_scales * splat(x.scales[at]));
        if constexpr (minimums) totals[b] += least * splat(x.totals[at]);
      }
    }
    for (int b = 0; b < Batch; ++b) store(tile[b] + row, totals[b] * splat(matrix.unit));
  }
}

#else

template <Format format, bool minimums, int Batch>
void multiply_tile_int(const EngineMatrix& matrix, std::int64_t panel, const Operand& x,
                       Tile tile) {
  constexpr std::int64_t rows = EngineMatrix::panel_rows;
  const std::int64_t place = matrix.scale_place(panel);
  float totals[Batch][rows] = {};
  for (std::int64_t g = 0; g < matrix.groups(); ++g) {
    const std::uint8_t* lines = matrix.panel(panel) + g * group_lines<format> * line_bytes;
    for (int b = 0; b < Batch; ++b) {
      const std::int64_t at = b * x.width / EngineMatrix::group + g;
      const std::int8_t* codes = x.codes + at * EngineMatrix::group;
      for (std::int64_t row = 0; row < rows; ++row) {
        std::int32_t total = -code_zero<format, minimums> * x.sums[at];
        for (int i = 0; i < group_lines<format> * 4; ++i) {
          const std::int32_t byte = lines[i / 4 * line_bytes + row * 4 + i % 4];
          if constexpr (format == Format::int8) {
            total += byte * codes[i];
          } else {
            const int column = i / 4 * 8 + i % 4;
            total += (byte & 15) * codes[column] + (byte >> 4) * codes[column + 4];
          }
        }
        const std::int64_t scale = place + g * rows + row;
        totals[b][row] +=
            static_cast<float>(total) * (widen_half(matrix.scales[scale]) * x.scales[at]);
        if constexpr (minimums) totals[b][row] += widen_half(matrix.minimums[scale]) * x.totals[at];
      }
    }
  }
  for (int b = 0; b < Batch; ++b) {
    for (std::int64_t row = 0; row < rows; ++row) tile[b][row] = totals[b][row] * matrix.unit;
  }
}

#endif

}  // namespace thresher::THRESHER_NAMESPACE
