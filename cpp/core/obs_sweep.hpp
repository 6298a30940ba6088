#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace thresher {

// Evenly spaced values of every row, minimum + code * scale; none where `scale` is null.
struct Levels {
  const float* scale;
  const float* minimum;
  float most;

  float nearest(std::size_t row, float value) const {
    if (scale == nullptr) return value;
    if (scale[row] == 0.0f) return minimum[row];
    const float code = std::nearbyint((value - minimum[row]) / scale[row]);
    return std::clamp(code, 0.0f, most) * scale[row] + minimum[row];
  }
};

// Settles a block of columns, left to right, letting the columns to their right absorb each
// change (SparseGPT, algorithm 1, inner loop): unmasked weights become zero, the others the nearest
// of their row's levels.
//
//   weight  rows x columns, row stride `stride`; updated in place
//   mask    rows x columns, contiguous; 0 means remove
//   factor  columns x columns upper Cholesky factor, row stride `factor_stride`
//   errors  rows x columns, contiguous; receives the scaled changes
//
// Rows do not see one another, so each is swept while it is in the first-level cache.
inline void obs_sweep(float* weight, std::size_t stride, const bool* mask, const float* factor,
                      std::size_t factor_stride, float* errors, std::size_t rows,
                      std::size_t columns, const Levels& levels) {
  for (std::size_t r = 0; r < rows; ++r) {
    float* w = weight + r * stride;
    for (std::size_t j = 0; j < columns; ++j) {
      const float* u = factor + j * factor_stride;
      const float settled = mask[r * columns + j] ? levels.nearest(r, w[j]) : 0.0f;
      const float change = w[j] - settled;
      if (change == 0.0f) {
        errors[r * columns + j] = 0.0f;
        continue;
      }
      const float error = change / u[j];
      errors[r * columns + j] = error;
      w[j] = settled;
      for (std::size_t k = j + 1; k < columns; ++k) w[k] -= error * u[k];
    }
  }
}

}  // namespace thresher
