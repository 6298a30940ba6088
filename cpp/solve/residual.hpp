// The weighted residual of a linear fit, with columns centred implicitly.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <vector>

#include "vector.hpp"

namespace thresher {

// Holds v = h * (y - X w) for sample weights h. Centring a sparse column would fill it, so
// the intercept is eliminated by a scalar instead: the true weighted residual is v + shift * h,
// which always sums to zero, and every update of a coefficient moves `shift` by its column mean.
template <class Design>
class Residual {
 public:
  using T = typename Design::Scalar;

  // `weights` may be null: then every sample weighs 1 / rows. `means` may be null: not centred.
  // `known`, if not null, is the weighted residual at the coefficients of the start. It spares a
  // pass over the active columns, and its digits where the targets are large beside what is
  // left of them, as those of Newton steps are.
  Residual(const Design& design, const T* target, const T* weights, const T* means, const T* known)
      : design_(design),
        target_(target),
        weights_(weights),
        means_(means),
        known_(known),
        v_(design.rows) {
    total_ = weights ? std::accumulate(weights, weights + rows(), T(0)) : T(1);
  }

  std::size_t rows() const { return design_.rows; }
  double work() const { return design_.work(); }
  std::vector<T>& vector() { return v_; }
  T& shift() { return shift_; }

  bool known() const { return known_; }

  // The residual at the start, or of the targets; `subtract` then takes off what the coefficients
  // add to it, and `finish` weights and centres it.
  void start() {
    const T* from = known_ ? known_ : target_;
    std::copy(from, from + rows(), v_.begin());
    shift_ = 0;
  }
  void subtract(std::size_t j, T coefficient) {
    if (known_) design_.add(j, -coefficient, weights_, v_.data());
    else design_.add(j, -coefficient, v_.data());
  }
  void finish() {
    if (!known_)
      for (std::size_t i = 0; i < rows(); ++i) v_[i] *= weight(i);
    if (!means_ || !(total_ > 0)) return;
    const T mean = std::accumulate(v_.begin(), v_.end(), T(0)) / total_;
    for (std::size_t i = 0; i < rows(); ++i) v_[i] -= weight(i) * mean;
  }

  // Inner product of the centred column j with the weighted residual.
  T correlation(std::size_t j) const {
    const T product = design_.dot(j, v_.data());
    return means_ ? product + shift_ * total_ * means_[j] : product;
  }

  // The centred column j times the roots of the weights: inner products of two of these are
  // how the correlation of one column falls with the coefficient of the other.
  void fill(std::size_t j, T* out) const {
    const T* x = design_.column(j);
    const T mean = means_ ? means_[j] : T(0);
    const T uniform = std::sqrt(T(1) / T(rows()));
    for (std::size_t i = 0; i < rows(); ++i)
      out[i] = (weights_ ? std::sqrt(weights_[i]) : uniform) * (x[i] - mean);
  }

  // The coefficient of column j grew by `delta`.
  void move(std::size_t j, T delta) {
    if (weights_) design_.add(j, -delta, weights_, v_.data());
    else design_.add(j, -delta / T(rows()), v_.data());
    if (means_) shift_ += delta * means_[j];
  }

  // sum of h * residual^2
  T square() const {
    T total = -shift_ * shift_ * total_;
    if (!weights_) return total + T(rows()) * dot(v_.data(), v_.data(), rows());
    for (std::size_t i = 0; i < rows(); ++i)
      if (weights_[i] > 0) total += v_[i] * v_[i] / weights_[i];
    return total;
  }

  // Inner product of the target with the weighted residual; exact after `finish`.
  T target_product() const { return dot(target_, v_.data(), rows()); }

 private:
  T weight(std::size_t i) const { return weights_ ? weights_[i] : T(1) / T(rows()); }

  const Design& design_;
  const T *target_, *weights_, *means_, *known_;
  std::vector<T> v_;
  T shift_ = 0, total_ = 1;
};

}  // namespace thresher
