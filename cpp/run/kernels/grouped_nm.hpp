// Products with matrices that keep n of every m neighbouring rows in each column, the columns of a
// chunk sorted by which n (n:m:g).
//
// Columns that keep the same rows follow each other: their sums stay in registers, and no weight
// asks where it belongs. A chunk of x is small enough for the first-level cache, where all groups
// of rows of a task find it.
#pragma once

#include "indexed.hpp"

namespace thresher::THRESHER_NAMESPACE {

// rows[r][Vectors * lanes] += sum over columns of values[r] * panel[column * width ...]
template <int Vectors, int Rows, class T>
THRESHER_INLINE void add_columns(const std::uint8_t* indices, const T* values, std::int64_t count,
                                 const float* panel, std::int64_t width, float* const* rows) {
  Floats totals[Rows][Vectors];
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) totals[r][v] = load(rows[r] + v * lanes);
  }
  accumulate(
      indices, values, count, Rows, panel, [width](std::int64_t index) { return index * width; },
      totals);
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) store(rows[r] + v * lanes, totals[r][v]);
  }
}

// One chunk of one group of rows, times `Vectors` vectors of x. `sums` has rows of `stride`.
template <int Vectors, int Rows, class T>
void add_patterns(const GroupedNMView& view, const std::uint16_t* counts,
                  const std::uint8_t* indices, const T* values, const float* panel,
                  std::int64_t width, float* sums, std::int64_t stride) {
  for (std::int64_t p = 0; p < view.patterns; ++p) {
    const std::int64_t count = counts[p];
    if (count == 0) continue;
    float* rows[Rows];
    for (int r = 0; r < Rows; ++r) rows[r] = sums + view.pattern_rows[p * Rows + r] * stride;
    add_columns<Vectors, Rows>(indices, values, count, panel, width, rows);
    indices += count;
    values += count * Rows;
  }
}

// The same for every vector of a block of x.
template <int Rows, class T>
void add_chunk(const GroupedNMView& view, std::int64_t group, std::int64_t chunk,
               const float* panel, std::int64_t width, float* sums, std::int64_t stride) {
  const std::int64_t first = group * view.columns + chunk * view.chunk;
  const std::uint16_t* counts = view.counts + (group * view.chunks() + chunk) * view.patterns;
  const std::uint8_t* indices = view.indices + first;
  const T* values = static_cast<const T*>(view.values) + first * Rows;
  std::int64_t b = 0;
  for (; b + 4 * lanes <= width; b += 4 * lanes) {
    add_patterns<4, Rows>(view, counts, indices, values, panel + b, width, sums + b, stride);
  }
  for (; b + 2 * lanes <= width; b += 2 * lanes) {
    add_patterns<2, Rows>(view, counts, indices, values, panel + b, width, sums + b, stride);
  }
  for (; b < width; b += lanes) {
    add_patterns<1, Rows>(view, counts, indices, values, panel + b, width, sums + b, stride);
  }
}

template <int Rows, class T>
void multiply_grouped_nm_panel(const GroupedNMView& view, const Product& product) {
  constexpr std::int64_t block = 64, most_columns = 512, rows_per_task = 128;
  const std::int64_t groups = (view.rows + view.m - 1) / view.m;
  const std::int64_t groups_per_task = (rows_per_task + view.m - 1) / view.m;
  for (std::int64_t first = 0; first < product.batch; first += most_columns) {
    const std::int64_t batch = smaller(most_columns, product.batch - first);
    const std::int64_t width = round_up(batch, panel_alignment);
    float* panel = scratch<float>(Scratch::panel, view.columns * width);
    for (std::int64_t b = 0; b < width; b += block) {
      pack_panel<FloatStep<T>>(static_cast<const T*>(product.x) + (first + b) * view.columns,
                               smaller(block, batch - b), view.columns, view.columns,
                               smaller(block, width - b), panel + b * view.columns,
                               product.threads);
    }
    T* y = static_cast<T*>(product.y) + first * view.rows;
    parallel_for(
        (groups + groups_per_task - 1) / groups_per_task, product.threads, [&](std::int64_t task) {
          const std::int64_t from = task * groups_per_task;
          const std::int64_t count = smaller(groups_per_task, groups - from);
          const std::int64_t row = from * view.m, rows = smaller(count * view.m, view.rows - row);
          const std::int64_t held = round_up(count * view.m, 16);
          float* sums = scratch<float>(Scratch::sums, held * width);
          clear(sums, held * width);
          for (std::int64_t chunk = 0; chunk < view.chunks(); ++chunk) {
            for (std::int64_t b = 0; b < width; b += block) {
              const std::int64_t wide = smaller(block, width - b);
              const float* x = panel + b * view.columns + chunk * view.chunk * wide;
              for (std::int64_t g = 0; g < count; ++g) {
                add_chunk<Rows, T>(view, from + g, chunk, x, wide, sums + g * view.m * width + b,
                                   width);
              }
            }
          }
          store_sums(sums, width, rows, row, view.rows, batch, product.bias, y);
        });
  }
}

// x at the next columns, each as often as a column has values.
template <int Rows>
THRESHER_INLINE Floats gather_columns(const float* x, const std::uint8_t* indices) {
  if constexpr (Rows == 1) return gather(x, indices);
#if defined(__AVX512F__)
  const __m512i twice = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
  return reinterpret_cast<Floats>(
      _mm512_permutexvar_ps(twice, _mm512_castps256_ps512(gather_eight(x, indices))));
#elif defined(__AVX2__)
  const __m256i twice = _mm256_set_epi32(3, 3, 2, 2, 1, 1, 0, 0);
  return reinterpret_cast<Floats>(
      _mm256_permutevar8x32_ps(_mm256_castps128_ps256(gather_four(x, indices)), twice));
#else
  Floats gathered;
  for (int i = 0; i < lanes; ++i) gathered[i] = x[indices[i / Rows]];
  return gathered;
#endif
}

// totals += the columns of one pattern times x, the rows of the pattern taking turns along the
// lanes. `readable` columns follow in memory, these included.
template <int Rows, class T>
THRESHER_INLINE void add_dots(const std::uint8_t* indices, const T* values, std::int64_t count,
                              std::int64_t readable, const float* x, Floats& totals) {
  constexpr int columns = lanes / Rows;
  std::int64_t i = 0;
  for (; i + columns <= count; i += columns) {
    totals += load(values + i * Rows) * gather_columns<Rows>(x, indices + i);
  }
  if (i < count && i + columns <= readable) {  // the last ones have the next pattern
    totals += keep_first(load(values + i * Rows) * gather_columns<Rows>(x, indices + i),
                         (count - i) * Rows);
    i = count;
  }
  for (; i < count; ++i) {
    for (int r = 0; r < Rows; ++r) totals[r] += widen(values[i * Rows + r]) * x[indices[i]];
  }
}

// sums[r] += every `Rows`-th lane from the r-th on.
template <int Rows>
THRESHER_INLINE void add_lanes(Floats totals, const std::uint8_t* pattern_rows, float* sums) {
  float folded[lanes];
  store(folded, totals);
  for (int half = lanes / 2; half >= Rows; half /= 2) {
    for (int i = 0; i < half; ++i) folded[i] += folded[i + half];
  }
  for (int r = 0; r < Rows; ++r) sums[pattern_rows[r]] += folded[r];
}

// A single row of x: dot products, whose sums are kept by pattern for all columns of a group.
template <int Rows, class T>
void multiply_grouped_nm_vector(const GroupedNMView& view, const Product& product) {
  // Indices of the chunk after the last one may be read too.
  float* x = scratch<float>(Scratch::input, view.columns + 256);
  for (std::int64_t c = 0; c < view.columns; ++c) x[c] = widen(static_cast<const T*>(product.x)[c]);
  clear(x + view.columns, 256);
  constexpr std::int64_t ahead = 512;  // columns
  const T* values = static_cast<const T*>(view.values);
  T* y = static_cast<T*>(product.y);
  const std::int64_t groups = (view.rows + view.m - 1) / view.m;
  parallel_rows(groups, 4, product.threads, [&](std::int64_t from, std::int64_t to) {
    Floats* totals = scratch<Floats>(Scratch::sums, view.patterns);
    for (std::int64_t group = from; group < to; ++group) {
      clear(totals, view.patterns);
      std::int64_t at = group * view.columns;
      const std::uint16_t* counts = view.counts + group * view.chunks() * view.patterns;
      for (std::int64_t chunk = 0; chunk < view.chunks(); ++chunk) {
        prefetch_part(values + (at + ahead) * Rows, view.chunk * Rows * sizeof(T), 0, 1);
        for (std::int64_t p = 0; p < view.patterns; ++p) {
          const std::int64_t count = *counts++;
          add_dots<Rows>(view.indices + at, values + at * Rows, count, groups * view.columns - at,
                         x + chunk * view.chunk, totals[p]);
          at += count;
        }
      }
      float sums[16] = {};
      for (std::int64_t p = 0; p < view.patterns; ++p) {
        add_lanes<Rows>(totals[p], view.pattern_rows + p * Rows, sums);
      }
      for (std::int64_t r = 0; r < smaller(view.m, view.rows - group * view.m); ++r) {
        const std::int64_t row = group * view.m + r;
        narrow(sums[r] + (product.bias == nullptr ? 0.0f : product.bias[row]), y[row]);
      }
    }
  });
}

template <int Rows, class T>
void multiply_grouped_nm(const GroupedNMView& view, const Product& product) {
  if (product.batch == 1) {
    multiply_grouped_nm_vector<Rows, T>(view, product);
  } else {
    multiply_grouped_nm_panel<Rows, T>(view, product);
  }
}

template <class T>
void multiply_grouped_nm(const GroupedNMView& view, const Product& product) {
  if (view.n == 1) {
    multiply_grouped_nm<1, T>(view, product);
  } else {
    multiply_grouped_nm<2, T>(view, product);
  }
}

}  // namespace thresher::THRESHER_NAMESPACE
