// Columns less a multiple of one vector, without forming them: centring keeps a design sparse.
#pragma once

#include <algorithm>
#include <cstddef>

#include "parallel.hpp"
#include "vector.hpp"

namespace thresher {

template <class Design>
struct Centred {
  Design design;
  // Column j stands for design column j less means[j] times `roots`; null if nothing is taken.
  const double *roots, *means;

  std::size_t rows() const { return design.rows; }
  std::size_t size() const { return design.columns; }
  double shift(const double* v) const { return means ? dot(roots, v, design.rows) : 0.0; }
  // `shifted` is shift(v), which is the same for all columns.
  double product(std::size_t j, const double* v, double shifted) const {
    return design.dot(j, v) - (means ? means[j] * shifted : 0.0);
  }
  void expand(std::size_t j, double* out) const {
    std::fill(out, out + design.rows, 0.0);
    if (means) add_scaled(-means[j], roots, out, design.rows);
    design.add(j, 1.0, out);
  }
  // out = products of all columns with v
  void correlate(const double* v, double* out, int threads) const {
    const double shifted = shift(v);
    parallel_for(size(), design.work(), threads, [&](std::size_t begin, std::size_t end) {
      for (std::size_t j = begin; j < end; ++j) out[j] = product(j, v, shifted);
    });
  }
};

}  // namespace thresher
