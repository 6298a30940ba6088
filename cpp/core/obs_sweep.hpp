#pragma once

#include <cstddef>

namespace thresher {

// Removes the unmasked weights of a block of columns, left to right, letting the columns to
// their right absorb each error (SparseGPT, algorithm 1, inner loop).
//
//   weight  rows x columns, row stride `stride`; updated in place
//   mask    rows x columns, contiguous; 0 means remove
//   factor  columns x columns upper Cholesky factor, row stride `factor_stride`
//   errors  rows x columns, contiguous; receives the scaled errors
//
// Rows do not see one another, so each is swept while it is in the first-level cache.
inline void obs_sweep(float* weight, std::size_t stride, const bool* mask, const float* factor,
                      std::size_t factor_stride, float* errors, std::size_t rows,
                      std::size_t columns) {
  for (std::size_t r = 0; r < rows; ++r) {
    float* w = weight + r * stride;
    for (std::size_t j = 0; j < columns; ++j) {
      const float* u = factor + j * factor_stride;
      if (mask[r * columns + j]) {
        errors[r * columns + j] = 0.0f;
        continue;
      }
      const float error = w[j] / u[j];
      errors[r * columns + j] = error;
      w[j] = 0.0f;
      for (std::size_t k = j + 1; k < columns; ++k) w[k] -= error * u[k];
    }
  }
}

}  // namespace thresher
