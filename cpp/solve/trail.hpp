// What one fit of a path hands on to the next.
#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "gram_cache.hpp"

namespace thresher {

// The solutions at the last two strengths, with the correlations of all columns there, and the
// products of the columns met so far.
template <class T>
class Trail {
 public:
  GramCache<T> cache;
  std::vector<T> gains;  // correlations of all columns with the residual, as last known

  // Moves coefficients that start at the last solution to where the line through the last two
  // leads at `strength`. Correlations follow the coefficients linearly, so that those there need
  // no pass over the columns. Solutions of the Lasso are piecewise linear in the strength; where
  // there may be several (`convex` is false), the last one is the start. Returns whether the
  // correlations are known.
  bool predict(T* coefficients, T strength, bool convex) {
    const std::size_t size = last_.coefficients.size();
    if (!size || !std::equal(coefficients, coefficients + size, last_.coefficients.begin()))
      return false;
    const T step = before_.strength - last_.strength, next = last_.strength - strength;
    // Further than a step or two ahead the line says little.
    const bool line =
        convex && !before_.coefficients.empty() && step > 0 && next > 0 && next < 2 * step;
    const T ratio = line ? next / step : T(0);
    gains = last_.gains;
    if (ratio == 0) return true;
    for (std::size_t j = 0; j < size; ++j) {
      coefficients[j] += ratio * (last_.coefficients[j] - before_.coefficients[j]);
      gains[j] += ratio * (last_.gains[j] - before_.gains[j]);
    }
    return true;
  }

  // Remembers a solution whose correlations are in `gains`.
  void keep(const T* coefficients, std::size_t size, T strength) {
    std::swap(before_, last_);
    last_.coefficients.assign(coefficients, coefficients + size);
    last_.gains = gains;
    last_.strength = strength;
  }

 private:
  struct Point {
    std::vector<T> coefficients, gains;
    T strength = 0;
  };
  Point last_, before_;
};

}  // namespace thresher
