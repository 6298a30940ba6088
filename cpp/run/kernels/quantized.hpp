// Products with matrices of groups of 16 weights in 4 bits.
#pragma once

#include "../views.hpp"
#include "panel.hpp"
#include "rows.hpp"

namespace thresher::THRESHER_NAMESPACE {

THRESHER_INLINE void decode_group(const QuantizedView& view, std::int64_t g, float scale,
                                  float* weights) {
  const std::uint8_t* codes = view.codes + g * QuantizedView::group / 2;
  const float zero = view.zeros[g];
#if defined(__AVX512F__)
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes));
  const __m128i nibbles =
      _mm_and_si128(_mm_unpacklo_epi8(bytes, _mm_srli_epi16(bytes, 4)), _mm_set1_epi8(15));
  const __m512 numbers = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(nibbles));
  store(weights, splat(scale) * (reinterpret_cast<Floats>(numbers) - splat(zero)));
#else
  for (int i = 0; i < QuantizedView::group / 2; ++i) {
    weights[2 * i] = scale * (static_cast<float>(codes[i] & 15) - zero);
    weights[2 * i + 1] = scale * (static_cast<float>(codes[i] >> 4) - zero);
  }
#endif
}

// totals[b] += one group times the columns of x that it belongs to.
template <int Batch, class T, class Operand>
THRESHER_INLINE void add_group(const QuantizedView& view, std::int64_t g, const Operand* x,
                               std::int64_t x_stride, Floats* totals) {
  alignas(64) float weights[QuantizedView::group];
  decode_group(view, g, widen(static_cast<const T*>(view.scales)[g]), weights);
  const Operand* columns = x + view.places[g] * QuantizedView::group;
#pragma GCC unroll 4
  for (int b = 0; b < Batch; ++b) {
#pragma GCC unroll 4
    for (int c = 0; c < QuantizedView::group; c += lanes) {
      totals[b] += load(weights + c) * load(columns + b * x_stride + c);
    }
  }
}

#if defined(__AVX512BF16__)
// Two groups at once: codes minus zero points are small integers, exact in bfloat16, which a
// table turns codes into; the scales multiply the sums of pairs in float32.
template <int Batch>
THRESHER_INLINE void add_two_groups(const QuantizedView& view, std::int64_t g, const bf16* x,
                                    std::int64_t x_stride, __m512i table, Floats* totals) {
  const __m512i low_nibbles = _mm512_set1_epi32(0x000f000f);
  const __m512i offset = _mm512_set1_epi16(16);
  // Broadcast words hold (first, second): spread the first over the lower half.
  const __m512i zero_order =
      _mm512_inserti64x4(_mm512_set1_epi32(static_cast<int>(0x80008000u)),
                         _mm256_set1_epi32(static_cast<int>(0x80018001u)), 1);
  const __m512i scale_order =
      _mm512_inserti64x4(_mm512_set1_epi32(0x01008080), _mm256_set1_epi32(0x03028080), 1);
  std::uint16_t two_zeros;
  std::uint32_t two_scales;
  std::memcpy(&two_zeros, view.zeros + g, sizeof two_zeros);
  std::memcpy(&two_scales, static_cast<const bf16*>(view.scales) + g, sizeof two_scales);
  const __m512i zeros =
      _mm512_shuffle_epi8(_mm512_set1_epi16(static_cast<short>(two_zeros)), zero_order);
  const __m512i scales =
      _mm512_shuffle_epi8(_mm512_set1_epi32(static_cast<int>(two_scales)), scale_order);
  const __m512i bytes =
      _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(view.codes + g * 8)));
  const __m512i codes =
      _mm512_and_si512(_mm512_or_si512(bytes, _mm512_slli_epi32(bytes, 12)), low_nibbles);
  const __m512i weights =
      _mm512_permutexvar_epi16(_mm512_sub_epi16(_mm512_add_epi16(codes, offset), zeros), table);
  const bf16* first = x + view.places[g] * QuantizedView::group;
  const bf16* second = x + view.places[g + 1] * QuantizedView::group;
#pragma GCC unroll 4
  for (int b = 0; b < Batch; ++b) {
    const __m512i columns = _mm512_inserti64x4(
        _mm512_castsi256_si512(
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(first + b * x_stride))),
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(second + b * x_stride)), 1);
    const __m512 sums = _mm512_dpbf16_ps(_mm512_setzero_ps(), reinterpret_cast<__m512bh>(weights),
                                         reinterpret_cast<__m512bh>(columns));
    totals[b] += reinterpret_cast<Floats>(sums) * reinterpret_cast<Floats>(scales);
  }
}

// -16, -15, ..., 15 in bfloat16.
THRESHER_INLINE __m512i small_integers() {
  alignas(64) bf16 table[32];
  for (int i = 0; i < 32; ++i) narrow(static_cast<float>(i - 16), table[i]);
  return _mm512_load_si512(table);
}
#endif

template <class T, int Batch, class Operand>
void dot_groups(const QuantizedView& view, std::int64_t begin, std::int64_t end, const Operand* x,
                std::int64_t x_stride, float* results) {
  Floats totals[Batch] = {};
  std::int64_t g = begin;
#if defined(__AVX512BF16__)
  if constexpr (std::is_same_v<Operand, bf16>) {
    const __m512i table = small_integers();
    for (; g + 2 <= end; g += 2) add_two_groups<Batch>(view, g, x, x_stride, table, totals);
  }
#endif
  for (; g < end; ++g) add_group<Batch, T>(view, g, x, x_stride, totals);
#pragma GCC unroll 4
  for (int b = 0; b < Batch; ++b) results[b] = sum(totals[b]);
}

// Groups are decoded to floats; where pairs of bfloat16 have an instruction, to those.
#if defined(__AVX512BF16__)
template <class T>
using QuantizedDots = typename Steps<T>::DenseDots;
#else
template <class T>
using QuantizedDots = FloatStep<T>;
#endif

template <class T>
void multiply_quantized_small(const QuantizedView& view, const Product& product) {
  using Step = QuantizedDots<T>;
  const std::int64_t padded = round_up(view.columns, column_alignment);
  const auto* x =
      arrange_rows<Step>(static_cast<const T*>(product.x), product.batch, view.columns, padded);
  T* y = static_cast<T*>(product.y);
  parallel_rows(view.rows, 16, product.threads, [&](std::int64_t from, std::int64_t to) {
    for (std::int64_t row = from; row < to; ++row) {
      const std::int64_t begin = view.row_starts[row], end = view.row_starts[row + 1];
      for (std::int64_t first = 0; first < product.batch; first += batch_per_pass) {
        const std::int64_t batch = smaller(batch_per_pass, product.batch - first);
        const auto* rows_of_x = x + first * padded;
        float results[batch_per_pass];
        switch (batch) {
          case 1: dot_groups<T, 1>(view, begin, end, rows_of_x, padded, results); break;
          case 2: dot_groups<T, 2>(view, begin, end, rows_of_x, padded, results); break;
          case 3: dot_groups<T, 3>(view, begin, end, rows_of_x, padded, results); break;
          default: dot_groups<T, batch_per_pass>(view, begin, end, rows_of_x, padded, results);
        }
        store_results<1>(results, row, view.rows, first, batch, product.bias, y);
      }
    }
  });
}

// Decodes rows into a dense tile of units.
template <class Step>
void decode_strip(const QuantizedView& view, std::int64_t first, std::int64_t strip,
                  typename Step::Math::Unit* tile, std::int64_t units, std::int64_t stride) {
  using T = typename Step::Element;
  for (std::int64_t r = 0; r < strip; ++r) clear(tile + r * stride, units);
  for (std::int64_t r = 0; r < smaller(strip, view.rows - first); ++r) {
    for (std::int64_t g = view.row_starts[first + r]; g < view.row_starts[first + r + 1]; ++g) {
      float weights[QuantizedView::group];
      decode_group(view, g, widen(static_cast<const T*>(view.scales)[g]), weights);
      typename Step::Math::Unit* out =
          tile + r * stride +
          view.places[g] * (QuantizedView::group / Step::Math::columns_per_unit);
      if constexpr (Step::Math::columns_per_unit == 1) {
        std::memcpy(out, weights, sizeof weights);
      } else {
        T narrowed[QuantizedView::group];
        for (int i = 0; i < QuantizedView::group; ++i) narrow(weights[i], narrowed[i]);
        std::memcpy(out, narrowed, sizeof narrowed);
      }
    }
  }
}

// Up to this batch, dot products are the faster.
constexpr std::int64_t most_quantized_dots = 24;

template <class T>
void multiply_quantized(const QuantizedView& view, const Product& product) {
  using Step = typename Steps<T>::Dense;
  if (product.batch <= most_quantized_dots) {
    multiply_quantized_small<T>(view, product);
    return;
  }
  multiply_expanded<Step>(
      view.rows, view.columns, product,
      [&](std::int64_t first, std::int64_t strip, typename Step::Math::Unit* tile,
          std::int64_t units,
          std::int64_t stride) { decode_strip<Step>(view, first, strip, tile, units, stride); },
      [&](std::int64_t first, std::int64_t rows, std::int64_t part, std::int64_t parts) {
        constexpr std::int64_t group_bytes = QuantizedView::group / 2;
        const std::int64_t begin = view.row_starts[first], end = view.row_starts[first + rows];
        prefetch_part(view.codes + begin * group_bytes, (end - begin) * group_bytes, part, parts);
      });
}

}  // namespace thresher::THRESHER_NAMESPACE
