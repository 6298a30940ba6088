// Separable penalties: the prox and value of one coordinate. The array versions in
// thresher/core (same formulas, all entries at once) are the reference they are tested against.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace thresher {

enum class PenaltyKind { ElasticNet = 0, Mcp = 1, Scad = 2, LogSum = 3, Lq = 4, L0 = 5 };

template <class T>
struct Penalty {
  PenaltyKind kind;
  T alpha;                 // strength
  T shape;                 // ridge (elastic net), gamma (MCP, SCAD), epsilon (log-sum), q (Lq)
  const T* weights;        // per-coordinate factors of alpha; null for ones
  const T *lower, *upper;  // bounds of the coefficients, zero between them; null for none
  bool positive;           // coefficients below zero are excluded

  T strength(std::size_t j) const { return weights ? alpha * weights[j] : alpha; }
  bool convex() const { return kind == PenaltyKind::ElasticNet; }

  T value(T w, std::size_t j) const {
    const T a = strength(j), m = std::abs(w);
    switch (kind) {
      case PenaltyKind::ElasticNet: return a * m + T(0.5) * shape * w * w;
      case PenaltyKind::Mcp:
        return m <= shape * a ? a * m - w * w / (2 * shape) : T(0.5) * shape * a * a;
      case PenaltyKind::Scad:
        if (m <= a) return a * m;
        if (m <= shape * a) return (2 * shape * a * m - w * w - a * a) / (2 * (shape - 1));
        return T(0.5) * a * a * (shape + 1);
      case PenaltyKind::LogSum: return a * std::log1p(m / shape);
      case PenaltyKind::Lq: return m > 0 ? a * std::pow(m, shape) : T(0);
      case PenaltyKind::L0: return m > 0 ? a : T(0);
    }
    return 0;
  }

  // First and second derivative of the value where w is not zero.
  T slope(T w, std::size_t j) const {
    const T a = strength(j), m = std::abs(w);
    switch (kind) {
      case PenaltyKind::ElasticNet: return std::copysign(a, w) + shape * w;
      case PenaltyKind::Mcp: return std::copysign(std::max(a - m / shape, T(0)), w);
      case PenaltyKind::Scad:
        return std::copysign(m <= a ? a : std::max(shape * a - m, T(0)) / (shape - 1), w);
      case PenaltyKind::LogSum: return std::copysign(a / (m + shape), w);
      case PenaltyKind::Lq: return std::copysign(a * shape * std::pow(m, shape - 1), w);
      case PenaltyKind::L0: return 0;
    }
    return 0;
  }
  T bend(T w, std::size_t j) const {
    const T a = strength(j), m = std::abs(w);
    switch (kind) {
      case PenaltyKind::ElasticNet: return shape;
      case PenaltyKind::Mcp: return m < shape * a ? -1 / shape : T(0);
      case PenaltyKind::Scad: return m > a && m < shape * a ? -1 / (shape - 1) : T(0);
      case PenaltyKind::LogSum: return -a / ((m + shape) * (m + shape));
      case PenaltyKind::Lq: return a * shape * (shape - 1) * std::pow(m, shape - 2);
      case PenaltyKind::L0: return 0;
    }
    return 0;
  }

  // The coefficient nearest to w that is not excluded.
  T inside(T w, std::size_t j) const {
    if (positive && w < 0) return 0;
    return lower ? std::clamp(w, lower[j], upper[j]) : w;
  }
  // Whether a coefficient rests at a bound, against which it is pushed.
  bool held(T w, T push, std::size_t j) const {
    return lower && ((push > 0 && w >= upper[j]) || (push < 0 && w <= lower[j]));
  }

  // argmin_z 0.5 (z - x)^2 + step * value(z); with bounds, of convex penalties alone
  T prox(T x, T step, std::size_t j) const {
    if (positive && x <= 0) return 0;
    const T a = strength(j), m = std::abs(x);
    const T z = std::copysign(prox_magnitude(m, step, a), x);
    return lower ? std::clamp(z, lower[j], upper[j]) : z;
  }

 private:
  T prox_magnitude(T m, T step, T a) const {
    switch (kind) {
      case PenaltyKind::ElasticNet: return std::max(m - step * a, T(0)) / (1 + step * shape);
      case PenaltyKind::L0: return m * m > 2 * step * a ? m : T(0);
      case PenaltyKind::Mcp: return prox_mcp(m, step, a);
      case PenaltyKind::Scad: return prox_scad(m, step, a);
      case PenaltyKind::LogSum: return prox_log_sum(m, step, a);
      case PenaltyKind::Lq: return prox_lq(m, step, a);
    }
    return m;
  }

  T prox_mcp(T m, T step, T a) const {
    // Where the step exceeds gamma the inner piece is concave: the answer is 0 or m itself.
    if (step >= shape) return m * m > step * shape * a * a ? m : T(0);
    if (m <= step * a) return 0;
    return m < shape * a ? (m - step * a) / (1 - step / shape) : m;
  }

  T prox_scad(T m, T step, T a) const {
    const auto objective = [&](T z) { return T(0.5) * (z - m) * (z - m) + step * scad(z, a); };
    T best = std::clamp(m - step * a, T(0), a);
    if (shape - 1 > step) {
      const T middle = ((shape - 1) * m - step * shape * a) / (shape - 1 - step);
      const T candidate = std::clamp(middle, a, shape * a);
      if (objective(candidate) < objective(best)) best = candidate;
    }
    const T outer = std::max(m, shape * a);
    return objective(outer) < objective(best) ? outer : best;
  }

  T scad(T m, T a) const {
    if (m <= a) return a * m;
    if (m <= shape * a) return (2 * shape * a * m - m * m - a * a) / (2 * (shape - 1));
    return T(0.5) * a * a * (shape + 1);
  }

  T prox_log_sum(T m, T step, T a) const {
    const T half = (m + shape) / 2, root = half * half - step * a;
    if (root <= 0) return 0;
    const T z = half + std::sqrt(root) - shape;  // the larger stationary point
    if (z <= 0) return 0;
    const T gain = T(0.5) * m * m - T(0.5) * (z - m) * (z - m);
    return gain > step * a * std::log1p(z / shape) ? z : T(0);
  }

  T prox_lq(T m, T step, T a) const {
    const T q = shape, c = step * a;
    if (c == 0) return m;
    const T smallest = std::pow(2 * c * (1 - q), 1 / (2 - q));
    if (m <= smallest * (2 - q) / (2 * (1 - q))) return 0;
    T z = m;  // Newton from above decreases monotonically to the larger stationary point
    for (int k = 0; k < 50; ++k) {
      const T slope = c * q * std::pow(z, q - 1);
      const T change = (z + slope - m) / (1 + (q - 1) * slope / z);
      z -= change;
      if (std::abs(change) <= T(1e-15) * z) break;
    }
    return z;
  }
};

}  // namespace thresher
