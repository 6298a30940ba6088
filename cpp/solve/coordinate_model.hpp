// Quadratic loss plus a separable penalty, one coefficient per block.
#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

#include "descent.hpp"
#include "penalty.hpp"
#include "residual.hpp"
#include "trail.hpp"

namespace thresher {

template <class Design>
class CoordinateModel {
 public:
  using Scalar = typename Design::Scalar;
  using T = Scalar;

  CoordinateModel(const Design& design, Residual<Design> residual, const T* curvature,
                  Penalty<T> penalty, T* coefficients, Trail<T>* trail)
      : columns_(design.columns),
        residual_(std::move(residual)),
        curvature_(curvature),
        penalty_(penalty),
        w_(coefficients),
        trail_(trail) {
    if (residual_.known()) start_.assign(w_, w_ + columns_);
    if (trail_) trail_->gains.resize(columns_);
  }

  // Products kept for the next fit of a path; null for a fit on its own.
  GramCache<T>* kept_products() { return trail_ ? &trail_->cache : nullptr; }
  bool on_path() const { return trail_; }
  // Starts where the path leads to; whether the correlations there are known.
  bool follow() { return trail_ && trail_->predict(w_, penalty_.alpha, penalty_.convex()); }
  void leave() {
    if (trail_) trail_->keep(w_, columns_, penalty_.alpha);
  }

  // For descents on the support; the Gram matrix of sparse columns is not worth its while.
  static constexpr bool smooth_on_support = Design::dense;
  std::size_t rows() const { return residual_.rows(); }
  void fill(std::size_t j, T* out) const { residual_.fill(j, out); }
  T coefficient(std::size_t j) const { return w_[j]; }
  T correlation(std::size_t j) const { return residual_.correlation(j); }
  T known_correlation(std::size_t j) const { return trail_->gains[j]; }
  void put(std::size_t j, T w, T correlation) {
    w_[j] = w;
    trail_->gains[j] = correlation;
  }
  T penalty(std::size_t j, T w) const { return penalty_.value(w, j); }
  T prox(std::size_t j, T x, T step) const { return penalty_.prox(x, step, j); }
  // Whether a coordinate at zero stays there, told without a prox.
  bool rests(std::size_t j, T gain) const {
    return penalty_.convex() && (penalty_.positive ? gain : std::abs(gain)) <= penalty_.strength(j);
  }
  T inside(std::size_t j, T w) const { return penalty_.inside(w, j); }
  bool held(std::size_t j, T w, T push) const { return penalty_.held(w, push, j); }
  T slope(std::size_t j, T w) const { return penalty_.slope(w, j); }
  T bend(std::size_t j, T w) const { return penalty_.bend(w, j); }
  void set(std::size_t j, T w) {
    if (w == w_[j]) return;
    residual_.move(j, w - w_[j]);
    w_[j] = w;
  }

  std::size_t blocks() const { return columns_; }
  double work() const { return residual_.work(); }
  bool active(std::size_t j) const { return w_[j] != 0; }
  T strength(std::size_t j) const { return penalty_.strength(j); }
  T largest_strength() const {
    T largest = 0;
    for (std::size_t j = 0; j < columns_; ++j) largest = std::max(largest, strength(j));
    return largest;
  }
  T squared_norm(std::size_t j) const { return curvature_[j] > 0 ? curvature_[j] + ridge() : T(0); }

  void refresh() {
    residual_.start();
    for (std::size_t j = 0; j < columns_; ++j)
      if (const T w = w_[j] - (start_.empty() ? T(0) : start_[j]); w != 0) residual_.subtract(j, w);
    residual_.finish();
  }

  // On a path the correlations may be known.
  Measure<T> measure(std::size_t j, bool known) const {
    const T gain = known ? trail_->gains[j] : residual_.correlation(j);
    if (trail_) trail_->gains[j] = gain;
    if (w_[j] == 0 && rests(j, gain)) return {0, penalty_.positive ? gain : std::abs(gain)};
    const T curvature = curvature_[j];
    const T moved = penalty_.prox(w_[j] + gain / curvature, 1 / curvature, j);
    const T dual = gain - ridge() * w_[j];
    return {curvature * std::abs(moved - w_[j]), penalty_.positive ? dual : std::abs(dual)};
  }

  T step(std::size_t j) {
    const T gain = residual_.correlation(j), curvature = curvature_[j];
    const T moved = penalty_.prox(w_[j] + gain / curvature, 1 / curvature, j);
    const T change = moved - w_[j];
    if (change == 0) return 0;
    residual_.move(j, change);
    w_[j] = moved;
    return curvature * std::abs(change);
  }

  void clear(std::size_t j) {
    if (w_[j] == 0) return;
    residual_.move(j, -w_[j]);
    w_[j] = 0;
  }

  // Pieces of the duality gap, the ridge counted as extra rows of the least squares.
  T squares() const {
    T total = residual_.square();
    if (ridge() > 0)
      for (std::size_t j = 0; j < columns_; ++j) total += ridge() * w_[j] * w_[j];
    return total;
  }
  T target_product() const { return residual_.target_product(); }
  T penalty_value() const {
    T total = 0;
    for (std::size_t j = 0; j < columns_; ++j) total += strength(j) * std::abs(w_[j]);
    return total;
  }

  T objective(const std::vector<std::size_t>& set) const {
    T total = T(0.5) * residual_.square();
    for (std::size_t j : set) total += penalty_.value(w_[j], j);
    return total;
  }

  std::size_t residual_size() const { return residual_.rows() + 1; }
  std::vector<T> pack(const std::vector<std::size_t>& set) {
    std::vector<T> state(residual_.vector());
    state.push_back(residual_.shift());
    for (std::size_t j : set) state.push_back(w_[j]);
    return state;
  }
  void unpack(const std::vector<std::size_t>& set, const std::vector<T>& state) {
    const std::size_t rows = residual_.rows();
    std::copy(state.begin(), state.begin() + rows, residual_.vector().begin());
    residual_.shift() = state[rows];
    for (std::size_t k = 0; k < set.size(); ++k) {
      const T value = state[rows + 1 + k];
      // An extrapolation may leave what is allowed; it ends at the boundary instead.
      const T inside = penalty_.inside(value, set[k]);
      if (inside != value) residual_.move(set[k], inside - value);
      w_[set[k]] = inside;
    }
  }

 private:
  T ridge() const { return penalty_.convex() ? penalty_.shape : T(0); }

  std::size_t columns_;
  Residual<Design> residual_;
  const T* curvature_;
  Penalty<T> penalty_;
  T* w_;
  std::vector<T> start_;  // the coefficients at which the residual was known; empty: zeros
  Trail<T>* trail_;
};

}  // namespace thresher
