// Small batches: rows of weights take dot products with rows of x.
#pragma once

#include <type_traits>

#include "../threads.hpp"
#include "step.hpp"

namespace thresher::THRESHER_NAMESPACE {

// More than four rows of x take several passes over the weights, which are then in the cache.
constexpr int batch_per_pass = 4;

THRESHER_INLINE void widen_to(bf16* to, bf16 value) { *to = value; }
template <class T>
THRESHER_INLINE void widen_to(float* to, T value) {
  *to = widen(value);
}

// x itself, or a copy whose rows are padded with zeros to whole steps, in the type and the order
// that the dots of Step take.
template <class Step, class T, class Operand = typename Step::Operand>
const Operand* arrange_rows(const T* x, std::int64_t batch, std::int64_t columns,
                            std::int64_t padded) {
  if constexpr (std::is_same_v<T, Operand> && !Step::interleaved) {
    if (columns == padded) return x;
  }
  Operand* arranged = scratch<Operand>(Scratch::input, batch * padded);
  for (std::int64_t b = 0; b < batch; ++b) {
    Operand* row = arranged + b * padded;
    for (std::int64_t c = 0; c < columns; ++c) widen_to(row + c, x[b * columns + c]);
    clear(row + columns, padded - columns);
    if constexpr (Step::interleaved) {
      for (std::int64_t c = 0; c < padded; c += Step::columns) Step::interleave(row + c);
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
