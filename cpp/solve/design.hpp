// Columns of a design matrix: the three operations that every descent needs, dense or CSC.
#pragma once

#include <cstddef>
#include <cstdint>

#include "vector.hpp"

namespace thresher {

template <class T>
struct Dense {
  using Scalar = T;
  static constexpr bool dense = true;
  const T* data;  // column after column
  std::size_t rows, columns;

  const T* column(std::size_t j) const { return data + j * rows; }
  double work() const { return double(rows); }  // multiplications per column
  T dot(std::size_t j, const T* v) const { return thresher::dot(column(j), v, rows); }
  void add(std::size_t j, T a, T* v) const { add_scaled(a, column(j), v, rows); }
  void add(std::size_t j, T a, const T* h, T* v) const { add_scaled(a, h, column(j), v, rows); }
  T square(std::size_t j) const { return thresher::dot(column(j), column(j), rows); }
  T square(std::size_t j, const T* h) const { return weighted_square(h, column(j), rows); }
};

template <class T>
struct Csc {
  using Scalar = T;
  static constexpr bool dense = false;
  const T* data;
  const std::int32_t* indices;
  const std::int64_t* starts;
  std::size_t rows, columns;

  double work() const { return columns ? double(starts[columns]) / double(columns) : 0.0; }
  T dot(std::size_t j, const T* v) const {
    T total = 0;
    for (std::int64_t k = starts[j]; k < starts[j + 1]; ++k) total += data[k] * v[indices[k]];
    return total;
  }
  void add(std::size_t j, T a, T* v) const {
    for (std::int64_t k = starts[j]; k < starts[j + 1]; ++k) v[indices[k]] += a * data[k];
  }
  void add(std::size_t j, T a, const T* h, T* v) const {
    for (std::int64_t k = starts[j]; k < starts[j + 1]; ++k)
      v[indices[k]] += a * h[indices[k]] * data[k];
  }
  T square(std::size_t j) const {
    T total = 0;
    for (std::int64_t k = starts[j]; k < starts[j + 1]; ++k) total += data[k] * data[k];
    return total;
  }
  T square(std::size_t j, const T* h) const {
    T total = 0;
    for (std::int64_t k = starts[j]; k < starts[j + 1]; ++k)
      total += h[indices[k]] * data[k] * data[k];
    return total;
  }
};

}  // namespace thresher
