// Orthogonal matching pursuit of one target: the column most correlated with the residual enters,
// and all are refitted (Pati, Rezaiifar and Krishnaprasad 1993).
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "basis.hpp"
#include "centred.hpp"

namespace thresher {

// Chooses at most `limit` columns of unit norm, until the norm of the residual is at most
// `tolerance`. Writes the choice and its coefficients, leaves the residual in `residual`, which
// starts as the target, and returns how many were chosen.
template <class Columns>
std::size_t orthogonal_pursuit(const Columns& columns, double* residual, std::size_t limit,
                               double tolerance, std::int64_t* chosen, double* coefficients,
                               int threads) {
  const std::size_t rows = columns.rows();
  Basis basis(rows);
  std::vector<double> correlation(columns.size()), column(rows);
  std::vector<bool> barred(columns.size(), false);
  while (basis.size() < limit && std::sqrt(dot(residual, residual, rows)) > tolerance) {
    columns.correlate(residual, correlation.data(), threads);
    for (std::size_t j = 0; j < columns.size(); ++j)
      if (barred[j]) correlation[j] = 0;
    const std::size_t best = largest_entry(correlation.data(), columns.size());
    if (correlation[best] == 0) break;
    barred[best] = true;  // in the basis now, or spanned by it
    columns.expand(best, column.data());
    if (!basis.add(column.data())) continue;
    const std::size_t last = basis.size() - 1;
    chosen[last] = static_cast<std::int64_t>(best);
    coefficients[last] = dot(basis.last(), residual, rows);
    add_scaled(-coefficients[last], basis.last(), residual, rows);
  }
  basis.triangle().solve_transposed(coefficients);
  return basis.size();
}

}  // namespace thresher
