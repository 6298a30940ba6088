// Products with matrices of dense 16 x 32 blocks, the shape of an AMX tile of bfloat16.
#pragma once

#include "../views.hpp"
#include "panel.hpp"
#include "rows.hpp"

namespace thresher::THRESHER_NAMESPACE {

constexpr std::int64_t block_size = BlockView::block_rows * BlockView::block_columns;

template <class Step, int Batch, int Rows>
void dot_block_rows(const typename Step::Element* weights, const std::uint16_t* places,
                    std::int64_t count, const typename Step::Operand* x, std::int64_t x_stride,
                    float* results) {
  Floats totals[Rows][Batch] = {};
#pragma GCC unroll 1
  for (std::int64_t t = 0; t < count; ++t, weights += block_size) {
    const auto* columns = x + places[t] * BlockView::block_columns;
#pragma GCC unroll 8
    for (std::int64_t c = 0; c < BlockView::block_columns; c += Step::columns) {
#pragma GCC unroll 4
      for (int r = 0; r < Rows; ++r) {
        const auto row = Step::load_dense(weights + r * BlockView::block_columns + c);
#pragma GCC unroll 4
        for (int b = 0; b < Batch; ++b) {
          totals[r][b] = Step::dot(totals[r][b], row, columns + b * x_stride + c);
        }
      }
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 4
    for (int b = 0; b < Batch; ++b) results[r * batch_per_pass + b] = sum(totals[r][b]);
  }
}

template <class Step, int Rows>
void dot_block_rows(std::int64_t batch, const typename Step::Element* weights,
                    const std::uint16_t* places, std::int64_t count,
                    const typename Step::Operand* x, std::int64_t x_stride, float* results) {
  switch (batch) {
    case 1: return dot_block_rows<Step, 1, Rows>(weights, places, count, x, x_stride, results);
    case 2: return dot_block_rows<Step, 2, Rows>(weights, places, count, x, x_stride, results);
    case 3: return dot_block_rows<Step, 3, Rows>(weights, places, count, x, x_stride, results);
    default:
      return dot_block_rows<Step, batch_per_pass, Rows>(weights, places, count, x, x_stride,
                                                        results);
  }
}

template <class Step>
void multiply_blocks_small(const BlockView& view, const Product& product) {
  using T = typename Step::Element;
  constexpr int rows_per_pass = 4;
  const std::int64_t padded = round_up(view.columns, column_alignment);
  const auto* x =
      arrange_rows<Step>(static_cast<const T*>(product.x), product.batch, view.columns, padded);
  T* y = static_cast<T*>(product.y);
  const auto multiply_block_row = [&](std::int64_t block_row) {
    const std::int64_t begin = view.row_starts[block_row];
    const std::int64_t count = view.row_starts[block_row + 1] - begin;
    const T* weights = static_cast<const T*>(view.values) + begin * block_size;
    for (std::int64_t r = 0; r < BlockView::block_rows; r += rows_per_pass) {
      const std::int64_t row = block_row * BlockView::block_rows + r;
      for (std::int64_t first = 0; first < product.batch; first += batch_per_pass) {
        const std::int64_t batch = smaller(batch_per_pass, product.batch - first);
        float results[rows_per_pass * batch_per_pass];
        dot_block_rows<Step, rows_per_pass>(batch, weights + r * BlockView::block_columns,
                                            view.places + begin, count, x + first * padded, padded,
                                            results);
        for (std::int64_t k = 0; k < smaller(rows_per_pass, view.rows - row); ++k) {
          store_results<1>(results + k * batch_per_pass, row + k, view.rows, first, batch,
                           product.bias, y);
        }
      }
    }
  };
  parallel_rows((view.rows + 15) / 16, 1, product.threads, [&](std::int64_t row, std::int64_t end) {
    for (; row < end; ++row) multiply_block_row(row);
  });
}

// The blocks of a block row as tiles of units; bfloat16 is widened where pairs cannot be used.
template <class Step>
Tiles<typename Step::Math> block_tiles(const typename Step::Element* weights,
                                       const std::uint16_t* places, std::int64_t count) {
  using Unit = typename Step::Math::Unit;
  constexpr std::int64_t units = BlockView::block_columns / Step::Math::columns_per_unit;
  const Unit* tiles;
  if constexpr (units_are_words<Step>) {
    tiles = reinterpret_cast<const Unit*>(weights);
  } else {
    Unit* widened = scratch<Unit>(Scratch::tile, count * block_size);
    for (std::int64_t i = 0; i < count * block_size; ++i) widened[i] = widen(weights[i]);
    tiles = widened;
  }
  return {tiles, units, BlockView::block_rows * units, units, places, count};
}

template <class Step>
void multiply_blocks_large(const BlockView& view, const Product& product) {
  using T = typename Step::Element;
  using Unit = typename Step::Math::Unit;
  constexpr std::int64_t strip = BlockView::block_rows, most_columns = 192;
  const std::int64_t units =
      round_up(view.columns, column_alignment) / Step::Math::columns_per_unit;
  for (std::int64_t first = 0; first < product.batch; first += most_columns) {
    const std::int64_t batch = smaller(most_columns, product.batch - first);
    const std::int64_t width = round_up(batch, panel_alignment);
    Unit* panel = scratch<Unit>(Scratch::panel, units * width);
    pack_panel<Step>(static_cast<const T*>(product.x) + first * view.columns, batch, view.columns,
                     units, width, panel, product.threads);
    T* y = static_cast<T*>(product.y) + first * view.rows;
    parallel_rows(view.rows, strip, product.threads, [&](std::int64_t from, std::int64_t to) {
      float* sums = scratch<float>(Scratch::sums, strip * width);
      for (std::int64_t row = from; row < to; row += strip) {
        const std::int64_t* starts = view.row_starts + row / strip;
        clear(sums, strip * width);
        const auto tiles =
            block_tiles<Step>(static_cast<const T*>(view.values) + starts[0] * block_size,
                              view.places + starts[0], starts[1] - starts[0]);
        multiply_panel<typename Step::Math>(tiles, strip, panel, width, sums);
        store_sums(sums, width, smaller(strip, to - row), row, view.rows, batch, product.bias, y);
      }
    });
  }
}

// Up to this batch, dot products are the faster.
constexpr std::int64_t most_block_dots = 8;

template <class T>
void multiply_blocks(const BlockView& view, const Product& product) {
  if (product.batch <= most_block_dots) {
    multiply_blocks_small<typename Steps<T>::DenseDots>(view, product);
  } else {
    multiply_blocks_large<typename Steps<T>::Dense>(view, product);
  }
}

}  // namespace thresher::THRESHER_NAMESPACE
