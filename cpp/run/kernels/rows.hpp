// Small batches: rows of weights take dot products with rows of x.
#pragma once

#include "../threads.hpp"
#include "step.hpp"

namespace thresher::THRESHER_NAMESPACE {

// More than four rows of x take several passes over the weights, which are then in the cache.
constexpr int batch_per_pass = 4;

// x itself, or a copy whose rows are padded with zeros to whole steps and in the order of Step.
template <class Step, class T = typename Step::Element>
const T* arrange_rows(const T* x, std::int64_t batch, std::int64_t columns, std::int64_t padded) {
  if (columns == padded && !Step::interleaved) return x;
  T* arranged = scratch<T>(Scratch::input, batch * padded);
  for (std::int64_t b = 0; b < batch; ++b) {
    T* row = arranged + b * padded;
    copy(row, x + b * columns, columns);
    clear(row + columns, padded - columns);
    if constexpr (Step::interleaved) {
      for (std::int64_t c = 0; c < padded; c += Step::columns) {
        _mm512_store_si512(row + c, interleave_halves(_mm512_load_si512(row + c)));
      }
    }
  }
  return arranged;
}

// Writes results[Rows][batch_per_pass], plus bias, to rows `row` on of y.
template <int Rows, class T>
THRESHER_INLINE void store_results(const float* results, std::int64_t row, std::int64_t all_rows,
                                   std::int64_t first, std::int64_t batch, const float* bias,
                                   T* y) {
  for (std::int64_t b = 0; b < batch; ++b) {
    for (int r = 0; r < Rows; ++r) {
      const float offset = bias == nullptr ? 0.0f : bias[row + r];
      narrow(results[r * batch_per_pass + b] + offset, y[(first + b) * all_rows + row + r]);
    }
  }
}

}  // namespace thresher::THRESHER_NAMESPACE
