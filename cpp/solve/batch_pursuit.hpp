// Orthogonal matching pursuit of many signals over one dictionary.
//
// After Rubinstein, Zibulevsky and Elad, Efficient Implementation of the K-SVD Algorithm using
// Batch Orthogonal Matching Pursuit (2008): residuals are never formed. The correlations of the
// atoms with a residual follow from those with the signal and the Gram matrix, and the least
// squares on the chosen atoms from a Cholesky factor that grows by one row per atom.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "parallel.hpp"
#include "triangle.hpp"
#include "vector.hpp"

namespace thresher {

template <class T>
class BatchPursuit {
 public:
  // `gram` is atoms x atoms with a unit diagonal; at most `limit` atoms per signal.
  BatchPursuit(const T* gram, std::size_t atoms, std::size_t limit)
      : gram_(gram),
        atoms_(atoms),
        limit_(limit),
        correlation_(atoms),
        forward_(limit),
        factor_(limit) {}

  // Chooses atoms for one signal, given its correlations with all atoms and its squared norm,
  // until the squared residual is at most `tolerance`. Writes the chosen atoms and their
  // coefficients, and returns how many there are.
  std::size_t code(const T* start, T square, T tolerance, std::int32_t* chosen, T* coefficients) {
    const T smallest = 64 * std::numeric_limits<T>::epsilon();
    std::copy(start, start + atoms_, correlation_.begin());
    std::size_t count = 0;
    T left = square;
    factor_.clear();
    while (count < limit_ && left > std::max(tolerance, smallest * square)) {
      const std::size_t best = largest_entry(correlation_.data(), atoms_);
      if (correlation_[best] * correlation_[best] <= smallest * smallest * square) break;
      if (!extend(best, chosen, start[best])) break;
      chosen[count++] = static_cast<std::int32_t>(best);
      left -= forward_[count - 1] * forward_[count - 1];
      std::copy(forward_.begin(), forward_.begin() + std::ptrdiff_t(count), coefficients);
      factor_.solve_transposed(coefficients);
      if (count == limit_) break;
      std::copy(start, start + atoms_, correlation_.begin());
      for (std::size_t k = 0; k < count; ++k)
        add_scaled(-coefficients[k], gram_ + chosen[k] * atoms_, correlation_.data(), atoms_);
    }
    return count;
  }

 private:
  // Appends an atom to the Cholesky factor; false if the chosen atoms already span it.
  bool extend(std::size_t atom, const std::int32_t* chosen, T product) {
    const std::size_t count = factor_.size();
    T* row = factor_.next();
    const T* column = gram_ + atom * atoms_;
    T diagonal = column[atom], value = product;
    for (std::size_t k = 0; k < count; ++k) {
      const T* other = factor_.row(k);
      T entry = column[chosen[k]];
      for (std::size_t m = 0; m < k; ++m) entry -= other[m] * row[m];
      row[k] = entry / other[k];
      diagonal -= row[k] * row[k];
      value -= row[k] * forward_[k];
    }
    if (diagonal <= 64 * std::numeric_limits<T>::epsilon()) return false;
    row[count] = std::sqrt(diagonal);
    forward_[count] = value / row[count];
    factor_.grow();
    return true;
  }

  const T* gram_;
  std::size_t atoms_, limit_;
  std::vector<T> correlation_, forward_;
  Triangle<T> factor_;
};

// All signals: row s of `correlations` holds those of signal s. Unused places keep atom -1.
template <class T>
void batch_pursuit(const T* gram, const T* correlations, const T* squares, const T* tolerances,
                   std::size_t signals, std::size_t atoms, std::size_t limit, std::int32_t* chosen,
                   T* coefficients, int threads) {
  parallel_for(signals, double(atoms * limit * limit), threads,
               [&](std::size_t begin, std::size_t end) {
                 BatchPursuit<T> pursuit(gram, atoms, limit);
                 for (std::size_t s = begin; s < end; ++s) {
                   const std::size_t count =
                       pursuit.code(correlations + s * atoms, squares[s], tolerances[s],
                                    chosen + s * limit, coefficients + s * limit);
                   std::fill(chosen + s * limit + count, chosen + (s + 1) * limit, -1);
                 }
               });
}

}  // namespace thresher
