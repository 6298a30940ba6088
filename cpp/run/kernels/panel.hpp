// Larger batches: x is packed with the batch along the lanes, weights are broadcast.
//
// A panel holds x transposed: unit u of row b of x lies at panel[u * width + b], where a unit is
// one column (float32) or a pair of columns (bfloat16), and width is the batch rounded up.
#pragma once

#include <type_traits>

#include "../threads.hpp"
#include "step.hpp"

namespace thresher::THRESHER_NAMESPACE {

#if defined(__AVX512F__)
// Transposes 16 x 16 words held in registers.
THRESHER_INLINE void transpose_16(__m512i (&r)[16]) {
  __m512i t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
    r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
  }
}
#endif

#if defined(__AVX512F__)
THRESHER_INLINE __m512i load_words(const std::uint32_t* from) { return _mm512_loadu_si512(from); }
THRESHER_INLINE __m512i load_words(const bf16* from) {
  return reinterpret_cast<__m512i>(load(from));
}
#endif
THRESHER_INLINE std::uint32_t as_word(std::uint32_t word) { return word; }
THRESHER_INLINE std::uint32_t as_word(bf16 value) {
  return static_cast<std::uint32_t>(value.bits) << 16;
}

// Transposes a 16 x 16 square in memory into words, each row interleaved first where asked.
// Bfloat16 is widened.
template <bool Interleave = false, class Source>
THRESHER_INLINE void transpose_square(const Source* from, std::int64_t from_stride,
                                      std::uint32_t* to, std::int64_t to_stride) {
#if defined(__AVX512F__)
  __m512i rows[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    rows[i] = load_words(from + i * from_stride);
    if constexpr (Interleave) rows[i] = interleave_halves(rows[i]);
  }
  transpose_16(rows);
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) _mm512_storeu_si512(to + i * to_stride, rows[i]);
#else
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 16; ++j) to[j * to_stride + i] = as_word(from[i * from_stride + j]);
  }
#endif
}

// Unit `unit` of a row of x; columns past the end are zero.
template <class Step>
THRESHER_INLINE typename Step::Math::Unit read_unit(const typename Step::Element* row,
                                                    std::int64_t unit, std::int64_t columns) {
  if constexpr (Step::Math::columns_per_unit == 1) {
    return unit < columns ? widen(row[unit]) : 0.0f;
  } else {
    const std::int64_t first = Step::interleaved ? unit / 16 * 32 + unit % 16 : 2 * unit;
    const std::int64_t second = Step::interleaved ? first + 16 : first + 1;
    const std::uint32_t low = first < columns ? row[first].bits : 0;
    const std::uint32_t high = second < columns ? row[second].bits : 0;
    return low | high << 16;
  }
}

// Whether units of x can be moved as whole words of memory.
template <class Step>
constexpr bool units_are_words = sizeof(typename Step::Element) * Step::Math::columns_per_unit == 4;

// What a unit of x is read as: a word, or an element that is widened.
template <class Step>
using UnitSource = std::conditional_t<units_are_words<Step>, std::uint32_t, typename Step::Element>;

// Packs `units` units of every row of x; rows past the batch become zeros.
template <class Step>
void pack_panel(const typename Step::Element* x, std::int64_t batch, std::int64_t columns,
                std::int64_t units, std::int64_t width, typename Step::Math::Unit* panel,
                int threads) {
  constexpr std::int64_t strip = 64, per_unit = Step::Math::columns_per_unit;
  const bool whole_units = columns % per_unit == 0;
  const std::int64_t stored = columns / per_unit;
  parallel_for((units + strip - 1) / strip, threads, [&](std::int64_t s) {
    const std::int64_t end = smaller(units, (s + 1) * strip);
    for (std::int64_t b = 0; b < width; b += 16) {
      for (std::int64_t u = s * strip; u < end; u += 16) {
        if (whole_units && b + 16 <= batch && u + 16 <= smaller(end, stored)) {
          transpose_square<Step::interleaved>(
              reinterpret_cast<const UnitSource<Step>*>(x + b * columns) + u, columns / per_unit,
              reinterpret_cast<std::uint32_t*>(panel + u * width + b), width);
          continue;
        }
        for (std::int64_t v = u; v < smaller(end, u + 16); ++v) {
          for (std::int64_t c = b; c < b + 16; ++c) {
            panel[v * width + c] = c < batch ? read_unit<Step>(x + c * columns, v, columns)
                                             : typename Step::Math::Unit{};
          }
        }
      }
    }
  });
}

// Tiles of weights, each `units` wide, and the rows of the panel that each is multiplied with:
// those from places[t] * units on, or from the start where `places` is null (a single tile).
template <class Math>
struct Tiles {
  const typename Math::Unit* weights;
  std::int64_t row_stride;   // units between rows of a tile
  std::int64_t tile_stride;  // units between tiles
  std::int64_t units;
  const std::uint16_t* places;
  std::int64_t count;
};

// sums[Rows][Vectors * lanes] += sum over tiles of tile[Rows][units] * panel[units][...]
template <class Math, int Rows, int Vectors>
void multiply_tile(const Tiles<Math>& tiles, std::int64_t row, const typename Math::Unit* panel,
                   std::int64_t width, float* sums) {
  Floats totals[Rows][Vectors];
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) totals[r][v] = load(sums + r * width + v * lanes);
  }
  for (std::int64_t t = 0; t < tiles.count; ++t) {
    const auto* weights = tiles.weights + t * tiles.tile_stride + row * tiles.row_stride;
    const auto* x = panel + (tiles.places == nullptr ? 0 : tiles.places[t]) * tiles.units * width;
    // Small tiles follow each other in memory faster than it answers.
    constexpr std::int64_t tiles_ahead = 8;
    for (int r = 0; r < Rows && tiles.count > 1; ++r) {
      __builtin_prefetch(weights + tiles_ahead * tiles.tile_stride + r * tiles.row_stride, 0, 2);
    }
#pragma GCC unroll 1
    for (std::int64_t u = 0; u < tiles.units; ++u, x += width) {
#pragma GCC unroll 16
      for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 4
        for (int v = 0; v < Vectors; ++v) {
          totals[r][v] =
              Math::multiply(totals[r][v], weights[r * tiles.row_stride + u], x + v * lanes);
        }
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) store(sums + r * width + v * lanes, totals[r][v]);
  }
}

template <class Math, int Vectors, int Rows>
void multiply_rows(const Tiles<Math>& tiles, std::int64_t rows, const typename Math::Unit* panel,
                   std::int64_t width, float* sums) {
  for (std::int64_t r = 0; r < rows; r += Rows) {
    multiply_tile<Math, Rows, Vectors>(tiles, r, panel, width, sums + r * width);
  }
}

// sums[rows][width] += sum over tiles of tile[rows][units] * panel, rows a multiple of 16.
template <class Math>
void multiply_panel(const Tiles<Math>& tiles, std::int64_t rows, const typename Math::Unit* panel,
                    std::int64_t width, float* sums) {
  constexpr int tall = lanes == 16 ? 8 : 4;
  constexpr int single = lanes == 16 ? 16 : 8;
  std::int64_t v = 0;
  const std::int64_t vectors = width / lanes;
  // 4 vectors left are better done as 2 + 2 than as 3 + 1.
  for (; vectors - v >= 3 && vectors - v != 4; v += 3) {
    multiply_rows<Math, 3, tall>(tiles, rows, panel + v * lanes, width, sums + v * lanes);
  }
  for (; vectors - v >= 2; v += 2) {
    multiply_rows<Math, 2, tall>(tiles, rows, panel + v * lanes, width, sums + v * lanes);
  }
  for (; v < vectors; ++v) {
    multiply_rows<Math, 1, single>(tiles, rows, panel + v * lanes, width, sums + v * lanes);
  }
}

// y[b][first_row + r] = sums[r][b] + bias[first_row + r]
template <class T>
void store_sums(float* sums, std::int64_t width, std::int64_t rows, std::int64_t first_row,
                std::int64_t all_rows, std::int64_t batch, const float* bias, T* y) {
  for (std::int64_t r = 0; r < rows; r += 16) {
    const std::int64_t row_count = smaller(16, rows - r);
    for (std::int64_t b = 0; b < batch; b += 16) {
      alignas(64) float square[16][16];
      transpose_square(reinterpret_cast<const std::uint32_t*>(sums + r * width + b), width,
                       reinterpret_cast<std::uint32_t*>(&square[0][0]), 16);
      for (std::int64_t c = 0; c < smaller(16, batch - b); ++c) {
        T* out = y + (b + c) * all_rows + first_row + r;
        for (std::int64_t k = 0; k < row_count; ++k) {
          narrow(square[c][k] + (bias == nullptr ? 0.0f : bias[first_row + r + k]), out[k]);
        }
      }
    }
  }
}

// Products of larger batches with weights that expand(first_row, rows, tile, units, stride) turns into a
// dense tile of a few rows, which is used while it is in the cache. Meanwhile
// prefetch(first_row, rows, part, parts) brings in a part of what the next rows are made from:
// expanding alone waits for memory, and multiplying alone leaves it idle.
template <class Step, class Expand, class Prefetch>
void multiply_expanded(std::int64_t rows, std::int64_t columns, const Product& product,
                       const Expand& expand, const Prefetch& prefetch) {
  using T = typename Step::Element;
  using Math = typename Step::Math;
  using Unit = typename Math::Unit;
  constexpr std::int64_t strip = 32, strips_per_task = 4, most_columns = 512, units_per_chunk = 256;
  const std::int64_t units = round_up(columns, column_alignment) / Math::columns_per_unit;
  const std::int64_t chunks = (units + units_per_chunk - 1) / units_per_chunk;
  // Rows a power of two apart would all compete for the same few lines of the cache.
  const std::int64_t stride = units + 16;
  for (std::int64_t first = 0; first < product.batch; first += most_columns) {
    const std::int64_t batch = smaller(most_columns, product.batch - first);
    const std::int64_t width = round_up(batch, panel_alignment);
    Unit* panel = scratch<Unit>(Scratch::panel, units * width);
    pack_panel<Step>(static_cast<const T*>(product.x) + first * columns, batch, columns, units,
                     width, panel, product.threads);
    T* y = static_cast<T*>(product.y) + first * rows;
    constexpr std::int64_t rows_per_task = strips_per_task * strip;
    parallel_for(
        (rows + rows_per_task - 1) / rows_per_task, product.threads, [&](std::int64_t task) {
          Unit* tile = scratch<Unit>(Scratch::tile, strip * stride);
          float* sums = scratch<float>(Scratch::sums, strip * width);
          const std::int64_t last = smaller(rows, (task + 1) * rows_per_task);
          for (std::int64_t row = task * rows_per_task; row < last; row += strip) {
            clear(sums, strip * width);
            expand(row, strip, tile, units, stride);
            const std::int64_t next = row + strip, ahead = smaller(strip, last - next);
            for (std::int64_t c = 0; c < chunks; ++c) {
              if (ahead > 0) prefetch(next, ahead, c, chunks);
              const std::int64_t u = c * units_per_chunk;
              const Tiles<Math> chunk{tile + u, stride, 0, smaller(units_per_chunk, units - u),
                                      nullptr,  1};
              multiply_panel<Math>(chunk, strip, panel + u * width, width, sums);
            }
            store_sums(sums, width, smaller(strip, rows - row), row, rows, batch, product.bias, y);
          }
        });
  }
}

}  // namespace thresher::THRESHER_NAMESPACE
