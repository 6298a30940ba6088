// Products with matrices that store the column of every survivor (CSR, constant fan-in).
//
// A single row of x is gathered from. Several are packed into a panel, and multiples of its rows
// are added up, with the batch along the lanes.
#pragma once

#include "../views.hpp"
#include "gather.hpp"
#include "panel.hpp"

namespace thresher::THRESHER_NAMESPACE {

// Brings in `count` survivors that come a good while after these, in this row or the next: rows
// are short, and the processor's own prefetching does not know that the next one follows.
template <class T>
THRESHER_INLINE void prefetch_survivors(const std::uint16_t* indices, const T* values,
                                        std::int64_t count) {
  constexpr std::int64_t ahead = 2048;
  if (count == 0) return;  // there may be none at all, and no memory either
  prefetch_part(indices + ahead, count * sizeof *indices, 0, 1);
  prefetch_part(values + ahead, count * sizeof *values, 0, 1);
}

// The dot product of a row of `count` survivors with x; `readable` survivors follow in memory, its
// own included.
template <class Gather, class T>
float gather_row(const std::uint16_t* indices, const T* values, std::int64_t count,
                 std::int64_t readable, const float* x) {
  Floats totals{};
  prefetch_survivors(indices, values, count);
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) totals += load(values + i) * Gather::from(x, indices + i);
  if (i < count && i + lanes <= readable) {  // the last ones are those of the next row
    totals += keep_first(load(values + i) * Gather::from(x, indices + i), count - i);
    i = count;
  }
  float total = sum(totals);
  for (; i < count; ++i) total += widen(values[i]) * x[indices[i]];
  return total;
}

THRESHER_INLINE const float* widen_row(const float* x, std::int64_t) { return x; }

inline const float* widen_row(const bf16* x, std::int64_t columns) {
  float* wide = scratch<float>(Scratch::input, columns);
  for (std::int64_t i = 0; i < columns; ++i) wide[i] = widen(x[i]);
  return wide;
}

template <class T, class Gather>
void multiply_indexed_vector(const IndexedView& view, const Product& product) {
  const float* x = widen_row(static_cast<const T*>(product.x), view.columns);
  T* y = static_cast<T*>(product.y);
  const std::int64_t all = view.begin(view.rows);
  parallel_rows(view.rows, 16, product.threads, [&](std::int64_t first, std::int64_t end) {
    for (std::int64_t row = first; row < end; ++row) {
      const std::int64_t begin = view.begin(row);
      const float total =
          gather_row<Gather>(view.indices + begin, static_cast<const T*>(view.values) + begin,
                             view.begin(row + 1) - begin, all - begin, x);
      narrow(total + (product.bias == nullptr ? 0.0f : product.bias[row]), y[row]);
    }
  });
}

template <class T>
void multiply_indexed_vector(const IndexedView& view, const Product& product) {
  if (gathers_at_once()) {
    multiply_indexed_vector<T, AtOnce>(view, product);
  } else {
    multiply_indexed_vector<T, OneByOne>(view, product);
  }
}

// totals[Rows][Vectors] += sum over positions of values[Rows] * panel[offset(index) ...], with
// `stride` values between positions. Few totals keep several positions in flight, which hides the
// latency of the additions.
template <int Vectors, int Rows, class Index, class T, class Offset>
THRESHER_INLINE void accumulate(const Index* indices, const T* values, std::int64_t count,
                                std::int64_t stride, const float* panel, const Offset& offset,
                                Floats (&totals)[Rows][Vectors]) {
  constexpr int chains = Vectors * Rows >= 8 ? 1 : 8 / (Vectors * Rows);
  Floats more[chains][Rows][Vectors] = {};
  const auto add = [&](std::int64_t i, Floats(&sums)[Rows][Vectors])
                       __attribute__((always_inline)) {
                         const float* from = panel + offset(indices[i]);
                         Floats x[Vectors];
#pragma GCC unroll 8
                         for (int v = 0; v < Vectors; ++v) x[v] = load(from + v * lanes);
#pragma GCC unroll 8
                         for (int r = 0; r < Rows; ++r) {
                           const Floats weight = splat(widen(values[i * stride + r]));
#pragma GCC unroll 8
                           for (int v = 0; v < Vectors; ++v) sums[r][v] += weight * x[v];
                         }
                       };
  std::int64_t i = 0;
#pragma GCC unroll 1
  for (; i + chains <= count; i += chains) {
    add(i, totals);
#pragma GCC unroll 8
    for (int c = 1; c < chains; ++c) add(i + c, more[c]);
  }
#pragma GCC unroll 1
  for (; i < count; ++i) add(i, totals);
#pragma GCC unroll 8
  for (int c = 1; c < chains; ++c) {
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; ++v) totals[r][v] += more[c][r][v];
    }
  }
}

// sums[Rows][width] += sum over positions of values[Rows] * panel[index * width ...]
template <int Vectors, int Rows, class T>
THRESHER_INLINE void add_panel_rows(const std::uint16_t* indices, const T* values,
                                    std::int64_t count, std::int64_t stride, const float* panel,
                                    std::int64_t width, float* sums) {
  Floats totals[Rows][Vectors];
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) totals[r][v] = load(sums + r * width + v * lanes);
  }
  accumulate(
      indices, values, count, stride, panel, [width](std::int64_t index) { return index * width; },
      totals);
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) store(sums + r * width + v * lanes, totals[r][v]);
  }
}

// The same, in as many vectors at a time as the registers hold.
template <int Rows, class T>
THRESHER_INLINE void add_panel_rows(const std::uint16_t* indices, const T* values,
                                    std::int64_t count, std::int64_t stride, const float* panel,
                                    std::int64_t width, float* sums) {
  constexpr int most = Rows == 1 ? 8 : 4;
  std::int64_t b = 0;
  for (; b + most * lanes <= width; b += most * lanes) {
    add_panel_rows<most, Rows>(indices, values, count, stride, panel + b, width, sums + b);
  }
  for (; b + 4 * lanes <= width; b += 4 * lanes) {
    add_panel_rows<4, Rows>(indices, values, count, stride, panel + b, width, sums + b);
  }
  for (; b + 2 * lanes <= width; b += 2 * lanes) {
    add_panel_rows<2, Rows>(indices, values, count, stride, panel + b, width, sums + b);
  }
  for (; b < width; b += lanes) {
    add_panel_rows<1, Rows>(indices, values, count, stride, panel + b, width, sums + b);
  }
}

// Widest panel, in columns, that stays in the second-level cache of a core.
THRESHER_INLINE std::int64_t cached_width(std::int64_t rows) {
  constexpr std::int64_t cached_floats = 160 * 1024, widest = 128;
  const std::int64_t fits = cached_floats / (rows + 1) / panel_alignment * panel_alignment;
  return fits < panel_alignment ? panel_alignment : smaller(fits, widest);
}

template <class T>
void multiply_indexed_panel(const IndexedView& view, const Product& product) {
  constexpr std::int64_t strip = 16;
  const std::int64_t widest = cached_width(view.columns);
  for (std::int64_t first = 0; first < product.batch; first += widest) {
    const std::int64_t batch = smaller(widest, product.batch - first);
    const std::int64_t width = round_up(batch, panel_alignment);
    float* panel = scratch<float>(Scratch::panel, view.columns * width);
    pack_panel<FloatStep<T>>(static_cast<const T*>(product.x) + first * view.columns, batch,
                             view.columns, view.columns, width, panel, product.threads);
    T* y = static_cast<T*>(product.y) + first * view.rows;
    parallel_rows(view.rows, strip, product.threads, [&](std::int64_t from, std::int64_t to) {
      float* sums = scratch<float>(Scratch::sums, strip * width);
      for (std::int64_t row = from; row < to; row += strip) {
        clear(sums, strip * width);
        const std::int64_t rows = smaller(strip, to - row);
        for (std::int64_t r = 0; r < rows; ++r) {
          const std::int64_t begin = view.begin(row + r), count = view.begin(row + r + 1) - begin;
          const std::uint16_t* indices = view.indices + begin;
          const T* values = static_cast<const T*>(view.values) + begin;
          prefetch_survivors(indices, values, count);
          add_panel_rows<1>(indices, values, count, 1, panel, width, sums + r * width);
        }
        store_sums(sums, width, rows, row, view.rows, batch, product.bias, y);
      }
    });
  }
}

template <class T>
void multiply_indexed(const IndexedView& view, const Product& product) {
  if (product.batch == 1) {
    multiply_indexed_vector<T>(view, product);
  } else {
    multiply_indexed_panel<T>(view, product);
  }
}

}  // namespace thresher::THRESHER_NAMESPACE
