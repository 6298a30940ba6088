// Coordinate descent on many small quadratics at once, each given by its Gram matrix.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "parallel.hpp"
#include "vector.hpp"

namespace thresher {

// Minimises w'Hw/2 - q'w + l1 |w|_1 + ridge/2 |w|^2 over w of `size` entries, from the given w.
// Stops when a pass over all coordinates changes no derivative by more than `tolerance`.
// Coordinates whose diagonal entry is not positive stay as they are, which is how unequal
// problems are padded to one size.
template <class T>
void gram_descent(const T* gram, const T* linear, std::size_t size, T l1, T ridge, T tolerance,
                  int passes, T* coef, std::vector<T>& gradient) {
  std::copy(linear, linear + size, gradient.begin());
  for (T& g : gradient) g = -g;
  for (std::size_t j = 0; j < size; ++j)
    if (coef[j] != 0) add_scaled(coef[j], gram + j * size, gradient.data(), size);
  bool every = true;  // passes over all coordinates alternate with passes over the support
  for (int pass = 0; pass < passes; ++pass) {
    T largest = 0;
    for (std::size_t j = 0; j < size; ++j) {
      const T bend = gram[j * size + j];
      if (bend <= 0 || (!every && coef[j] == 0)) continue;
      const T point = bend * coef[j] - gradient[j];
      const T shrunk = std::max(std::abs(point) - l1, T(0)) / (bend + ridge);
      const T change = std::copysign(shrunk, point) - coef[j];
      if (change == 0) continue;
      coef[j] += change;
      add_scaled(change, gram + j * size, gradient.data(), size);
      largest = std::max(largest, std::abs(change) * (bend + ridge));
    }
    if (largest <= tolerance) {
      if (every) return;
      every = true;
    } else {
      every = false;
    }
  }
}

// The same for `count` problems stored one after the other, split over threads.
template <class T>
void gram_descents(const T* grams, const T* linears, std::size_t count, std::size_t size,
                   const T* l1, const T* ridge, const T* tolerances, int passes, T* coefs,
                   int threads) {
  parallel_for(count, 10.0 * double(size) * double(size), threads,
               [=](std::size_t first, std::size_t last) {
                 std::vector<T> gradient(size);
                 for (std::size_t k = first; k < last; ++k)
                   gram_descent<T>(grams + k * size * size, linears + k * size, size, l1[k],
                                   ridge[k], tolerances[k], passes, coefs + k * size, gradient);
               });
}

}  // namespace thresher
