// Products with int8 matrices of blocks of 4 rows and 1 column.
//
// x is rounded to unsigned bytes, one scale for each of its rows, and packed with the batch along
// the lanes. Four blocks of the same rows make one step: their four rows of x are interleaved to
// one 32-bit word per lane, which VPDPBUSD multiplies with the four weights of a row.
#pragma once

#include "../threads.hpp"
#include "../views.hpp"
#include "simd.hpp"

namespace thresher::THRESHER_NAMESPACE {

// Bytes of x stand for (byte - 128) * scale.
constexpr std::int32_t byte_zero = 128;
constexpr float most_level = 127.0f;

// The largest magnitude of a row, NaN when an entry is not finite.
template <class T>
float largest_magnitude(const T* row, std::int64_t count) {
  Floats most{}, least{}, zeros{};
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const Floats here = load(row + i);
    most = here > most ? here : most;
    least = here < least ? here : least;
    zeros += here * 0.0f;  // NaN for infinity and NaN
  }
  float largest = 0, zero = sum(zeros);
  for (int lane = 0; lane < lanes; ++lane) {
    largest = most[lane] > largest ? most[lane] : largest;
    largest = -least[lane] > largest ? -least[lane] : largest;
  }
  for (; i < count; ++i) {
    const float magnitude = __builtin_fabsf(widen(row[i]));
    largest = magnitude > largest ? magnitude : largest;
    zero += magnitude * 0.0f;
  }
  return zero == 0.0f ? largest : zero;
}

// Rounds 16 entries, of which the first `count` exist, to bytes; the others become zero.
template <class T>
THRESHER_INLINE void round_to_bytes(const T* from, std::int64_t count, float levels,
                                    std::uint8_t* bytes) {
#if defined(__AVX512F__)
  if (count >= 16) {
    const __m512i rounded = _mm512_cvtps_epi32(reinterpret_cast<__m512>(load(from) * levels));
    const __m512i shifted = _mm512_add_epi32(rounded, _mm512_set1_epi32(byte_zero));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes), _mm512_cvtepi32_epi8(shifted));
    return;
  }
#endif
  for (std::int64_t i = 0; i < 16; ++i) {
    const float level = i < count ? widen(from[i]) * levels : 0.0f;
    bytes[i] = static_cast<std::uint8_t>(__builtin_lrintf(level) + byte_zero);
  }
}

// Packs rows of x as panel[column * width + row of x]. A row with an entry that is not finite
// gets the scale NaN.
template <class T>
void pack_bytes(const T* x, std::int64_t batch, std::int64_t columns, std::int64_t padded,
                std::int64_t width, std::uint8_t* panel, float* scales, int threads) {
  float* levels = scales + width;
  for (std::int64_t b = 0; b < width; ++b) {
    const float largest = b < batch ? largest_magnitude(x + b * columns, columns) : 0.0f;
    scales[b] = largest / most_level;
    levels[b] = largest > 0 ? most_level / largest : 0.0f;
    // The inverse of a number that is all but zero is infinite.
    if (!(levels[b] < __builtin_inff())) levels[b] = 0;
  }
  constexpr std::int64_t strip = 256;
  parallel_for((padded + strip - 1) / strip, threads, [&](std::int64_t task) {
    for (std::int64_t c = task * strip; c < smaller(padded, (task + 1) * strip); c += 16) {
      for (std::int64_t b = 0; b < width; b += 16) {
        std::uint8_t square[16][16];
        const std::int64_t rows = smaller(16, width - b);
        for (std::int64_t r = 0; r < rows; ++r) {
          const std::int64_t count =
              b + r < batch && scales[b + r] == scales[b + r] ? smaller(16, columns - c) : 0;
          round_to_bytes(count > 0 ? x + (b + r) * columns + c : x, count, levels[b + r],
                         square[r]);
        }
        for (std::int64_t k = 0; k < smaller(16, padded - c); ++k) {
          for (std::int64_t r = 0; r < rows; ++r) panel[(c + k) * width + b + r] = square[r][k];
        }
      }
    }
  });
}

// sums[4][width] = the rows of `count` groups times columns of the panel, exactly. `width` is
// narrow_panel, or a multiple of 16 and at most wide_panel.
constexpr std::int64_t narrow_panel = 4, wide_panel = 64;

#if defined(__AVX512VNNI__) && defined(__AVX512VBMI__)

// Rows of blocks are too short for the processor to see that they follow each other in memory.
THRESHER_INLINE void prefetch_groups(const std::int8_t* values, const std::uint16_t* columns) {
  constexpr std::int64_t groups_ahead = 128;
  __builtin_prefetch(values + groups_ahead * Int8View::group_weights);
  __builtin_prefetch(columns + groups_ahead * Int8View::group);
}

// Lane 4 * row + b: the product of a row with row b of x.
inline void dot_groups_narrow(const std::int8_t* values, const std::uint16_t* columns,
                              std::int64_t count, const std::uint8_t* panel, std::int32_t* sums) {
  const __m512i to_rows = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
  const __m128i transposed = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  constexpr int chains = 4;
  __m512i totals[chains] = {};
  const auto step = [&](std::int64_t g, __m512i total) {
    const std::uint16_t* at = columns + 4 * g;
    std::int32_t words[4];
    for (int k = 0; k < 4; ++k) std::memcpy(&words[k], panel + at[k] * narrow_panel, 4);
    const __m128i quad =
        _mm_shuffle_epi8(_mm_setr_epi32(words[0], words[1], words[2], words[3]), transposed);
    const __m128i weights = _mm_loadu_si128(reinterpret_cast<const __m128i*>(values + 16 * g));
    return _mm512_dpbusd_epi32(total, _mm512_broadcast_i32x4(quad),
                               _mm512_permutexvar_epi32(to_rows, _mm512_castsi128_si512(weights)));
  };
  std::int64_t g = 0;
  for (; g + chains <= count; g += chains) {
    prefetch_groups(values + 16 * g, columns + 4 * g);
#pragma GCC unroll 4
    for (int c = 0; c < chains; ++c) totals[c] = step(g + c, totals[c]);
  }
  for (; g < count; ++g) totals[0] = step(g, totals[0]);
  const __m512i total = _mm512_add_epi32(_mm512_add_epi32(totals[0], totals[1]),
                                         _mm512_add_epi32(totals[2], totals[3]));
  _mm512_storeu_si512(sums, total);
}

// Adds one group times 16 columns of the panel for each of `Vectors`.
template <int Vectors>
THRESHER_INLINE void add_group_wide(const std::int8_t* values, const std::uint16_t* columns,
                                    const std::uint8_t* panel, std::int64_t width,
                                    __m512i interleaved, __m512i (&totals)[4][Vectors]) {
#pragma GCC unroll 4
  for (int v = 0; v < Vectors; ++v) {
    __m128i rows[4];
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      rows[k] =
          _mm_loadu_si128(reinterpret_cast<const __m128i*>(panel + columns[k] * width + 16 * v));
    }
    __m512i quad = _mm512_castsi128_si512(rows[0]);
    quad = _mm512_inserti32x4(quad, rows[1], 1);
    quad = _mm512_inserti32x4(quad, rows[2], 2);
    quad = _mm512_inserti32x4(quad, rows[3], 3);
    quad = _mm512_permutexvar_epi8(interleaved, quad);
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) {
      std::int32_t weights;
      std::memcpy(&weights, values + 4 * r, 4);
      totals[r][v] = _mm512_dpbusd_epi32(totals[r][v], quad, _mm512_set1_epi32(weights));
    }
  }
}

template <int Vectors>
void dot_groups_wide(const std::int8_t* values, const std::uint16_t* columns, std::int64_t count,
                     const std::uint8_t* panel, std::int64_t width, std::int32_t* sums) {
  // Byte 4 * b + k of the result is byte 16 * k + b.
  alignas(64) std::uint8_t order[64];
  for (int i = 0; i < 64; ++i) order[i] = static_cast<std::uint8_t>(16 * (i % 4) + i / 4);
  const __m512i interleaved = _mm512_load_si512(order);
  // Two sums at a time where one would wait for its own last addition.
  constexpr int chains = Vectors == 1 ? 2 : 1;
  __m512i totals[chains][4][Vectors] = {};
  std::int64_t g = 0;
#pragma GCC unroll 1
  for (; g + chains <= count; g += chains) {
    prefetch_groups(values + 16 * g, columns + 4 * g);
#pragma GCC unroll 2
    for (int c = 0; c < chains; ++c) {
      add_group_wide<Vectors>(values + 16 * (g + c), columns + 4 * (g + c), panel, width,
                              interleaved, totals[c]);
    }
  }
#pragma GCC unroll 1
  for (; g < count; ++g) {
    add_group_wide<Vectors>(values + 16 * g, columns + 4 * g, panel, width, interleaved, totals[0]);
  }
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) {
      __m512i total = totals[0][r][v];
      if constexpr (chains == 2) total = _mm512_add_epi32(total, totals[1][r][v]);
      _mm512_storeu_si512(sums + r * width + 16 * v, total);
    }
  }
}

inline void dot_groups(const std::int8_t* values, const std::uint16_t* columns, std::int64_t count,
                       const std::uint8_t* panel, std::int64_t width, std::int32_t* sums) {
  switch (width) {
    case narrow_panel: return dot_groups_narrow(values, columns, count, panel, sums);
    case 16: return dot_groups_wide<1>(values, columns, count, panel, width, sums);
    case 32: return dot_groups_wide<2>(values, columns, count, panel, width, sums);
    case 48: return dot_groups_wide<3>(values, columns, count, panel, width, sums);
    default: return dot_groups_wide<4>(values, columns, count, panel, width, sums);
  }
}

#else

// The compiler turns the inner loop into vectors of what the instruction set has.
template <std::int64_t Width>
void dot_groups(const std::int8_t* values, const std::uint16_t* columns, std::int64_t count,
                const std::uint8_t* panel, std::int64_t width, std::int32_t* sums) {
  std::int32_t totals[4][Width] = {};
  for (std::int64_t i = 0; i < 4 * count; ++i) {
    const std::uint8_t* row = panel + columns[i] * width;
    for (int r = 0; r < 4; ++r) {
      const std::int32_t weight = values[i / 4 * 16 + 4 * r + i % 4];
      for (std::int64_t b = 0; b < Width; ++b) totals[r][b] += weight * row[b];
    }
  }
  for (int r = 0; r < 4; ++r) copy(sums + r * width, totals[r], Width);
}

inline void dot_groups(const std::int8_t* values, const std::uint16_t* columns, std::int64_t count,
                       const std::uint8_t* panel, std::int64_t width, std::int32_t* sums) {
  if (width == narrow_panel) {
    return dot_groups<narrow_panel>(values, columns, count, panel, width, sums);
  }
  for (std::int64_t b = 0; b < width; b += 16) {
    dot_groups<16>(values, columns, count, panel + b, width, sums + b);
  }
}

#endif

// y[b][row + r] = scale of the row * scale of x[b] * (sums[r][b] - 128 * sum of the weights) + bias
template <class T>
THRESHER_INLINE void store_scaled(const Int8View& view, const std::int32_t* sums,
                                  std::int64_t width, std::int64_t row, std::int64_t batch,
                                  const float* x_scales, const float* bias, T* y) {
  constexpr std::int64_t block_rows = Int8View::block_rows;
  const std::int64_t rows = smaller(block_rows, view.rows - row);
  float results[wide_panel][block_rows];
  for (std::int64_t r = 0; r < rows; ++r) {
    const float scale = widen(static_cast<const T*>(view.scales)[row + r]);
    const float offset = bias == nullptr ? 0.0f : bias[row + r];
    const std::int32_t zero = byte_zero * view.row_sums[row + r];
    for (std::int64_t b = 0; b < batch; ++b) {
      const auto exact = static_cast<float>(sums[r * width + b] - zero);
      results[b][r] = exact * (scale * x_scales[b]) + offset;
    }
  }
  for (std::int64_t b = 0; b < batch; ++b) {
    for (std::int64_t r = 0; r < rows; ++r) narrow(results[b][r], y[b * view.rows + row + r]);
  }
}

template <class T>
void multiply_int8(const Int8View& view, const Product& product) {
  constexpr std::int64_t block_rows_per_task = 16;
  const std::int64_t padded = round_up(view.columns, Int8View::group);
  const std::int64_t block_rows = (view.rows + Int8View::block_rows - 1) / Int8View::block_rows;
  for (std::int64_t first = 0; first < product.batch; first += wide_panel) {
    const std::int64_t batch = smaller(wide_panel, product.batch - first);
    const std::int64_t width = batch <= narrow_panel ? narrow_panel : round_up(batch, 16);
    std::uint8_t* panel = scratch<std::uint8_t>(Scratch::panel, padded * width);
    float* scales = scratch<float>(Scratch::row, 2 * width);
    pack_bytes(static_cast<const T*>(product.x) + first * view.columns, batch, view.columns, padded,
               width, panel, scales, product.threads);
    T* y = static_cast<T*>(product.y) + first * view.rows;
    parallel_for((block_rows + block_rows_per_task - 1) / block_rows_per_task, product.threads,
                 [&](std::int64_t task) {
                   std::int32_t sums[Int8View::block_rows * wide_panel];
                   const std::int64_t last = smaller(block_rows, (task + 1) * block_rows_per_task);
                   for (std::int64_t row = task * block_rows_per_task; row < last; ++row) {
                     const std::int64_t begin = view.row_starts[row];
                     dot_groups(view.values + begin * Int8View::group_weights,
                                view.columns_of + begin * Int8View::group,
                                view.row_starts[row + 1] - begin, panel, width, sums);
                     store_scaled(view, sums, width, row * Int8View::block_rows, batch, scales,
                                  product.bias, y);
                   }
                 });
  }
}

}  // namespace thresher::THRESHER_NAMESPACE
