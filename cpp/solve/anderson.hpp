// Acceleration of a fixed-point iteration.
#pragma once

#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

#include "vector.hpp"

namespace thresher {

// Extrapolates the last iterates of a linear fixed-point iteration (Anderson's method, as used
// for coordinate descent by Bertrand and Massias, 2021).
template <class T>
class Anderson {
 public:
  static constexpr int depth = 5;

  void restart() { history_.clear(); }
  bool push(std::vector<T> state) {
    history_.push_back(std::move(state));
    return history_.size() == depth + 1;
  }

  // The combination of the stored iterates whose last step would be smallest, judged by the
  // entries from `skip` on (the coefficients); empty if degenerate.
  std::vector<T> extrapolate(std::size_t skip) {
    const std::size_t size = history_[0].size();
    double gram[depth][depth], scale = 0;
    std::vector<std::vector<T>> steps(depth, std::vector<T>(size));
    for (int a = 0; a < depth; ++a)
      for (std::size_t i = 0; i < size; ++i) steps[a][i] = history_[a + 1][i] - history_[a][i];
    for (int a = 0; a < depth; ++a)
      for (int b = 0; b <= a; ++b)
        gram[a][b] = gram[b][a] = dot(steps[a].data() + skip, steps[b].data() + skip, size - skip);
    for (int a = 0; a < depth; ++a) scale += gram[a][a];
    if (!(scale > 0) || !std::isfinite(scale)) return {};
    double weights[depth];
    if (!solve(gram, scale * 1e-12, weights)) return {};
    std::vector<T> result(size, T(0));
    for (int a = 0; a < depth; ++a)
      add_scaled(T(weights[a]), history_[a + 1].data(), result.data(), size);
    return result;
  }

 private:
  // Solves (gram + ridge I) z = 1 by elimination and scales z to sum to one.
  static bool solve(double (&gram)[depth][depth], double ridge, double (&z)[depth]) {
    for (int a = 0; a < depth; ++a) {
      gram[a][a] += ridge;
      z[a] = 1;
    }
    for (int a = 0; a < depth; ++a) {  // positive definite: no pivoting
      if (!(gram[a][a] > 0)) return false;
      for (int b = a + 1; b < depth; ++b) {
        const double factor = gram[b][a] / gram[a][a];
        for (int c = a; c < depth; ++c) gram[b][c] -= factor * gram[a][c];
        z[b] -= factor * z[a];
      }
    }
    double sum = 0;
    for (int a = depth - 1; a >= 0; --a) {
      for (int c = a + 1; c < depth; ++c) z[a] -= gram[a][c] * z[c];
      z[a] /= gram[a][a];
      sum += z[a];
    }
    if (!std::isfinite(sum) || sum == 0) return false;
    for (double& entry : z) entry /= sum;
    return true;
  }

  std::vector<std::vector<T>> history_;
};

}  // namespace thresher
