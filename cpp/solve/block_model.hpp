// Quadratic loss plus a penalty on the norms of blocks: groups of columns, or the rows of a
// coefficient matrix shared by several tasks.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "descent.hpp"
#include "penalty.hpp"
#include "residual.hpp"

namespace thresher {

// Blocks of columns of one regression.
template <class Design>
class GroupGeometry {
 public:
  using T = typename Design::Scalar;

  GroupGeometry(Residual<Design> residual, const std::int64_t* starts, const std::int64_t* members,
                std::size_t blocks)
      : residual_(std::move(residual)), starts_(starts), members_(members), blocks_(blocks) {}

  std::size_t blocks() const { return blocks_; }
  std::size_t size(std::size_t b) const { return starts_[b + 1] - starts_[b]; }
  std::size_t place(std::size_t b, std::size_t k) const { return members_[starts_[b] + k]; }
  T correlation(std::size_t b, std::size_t k) const { return residual_.correlation(place(b, k)); }
  void move(std::size_t b, std::size_t k, T delta) { residual_.move(place(b, k), delta); }

  std::size_t residuals() const { return 1; }
  Residual<Design>& residual(std::size_t) { return residual_; }
  const Residual<Design>& residual(std::size_t) const { return residual_; }
  std::size_t residual_of(std::size_t) const { return 0; }
  std::size_t column(std::size_t b, std::size_t k) const { return place(b, k); }

 private:
  Residual<Design> residual_;
  const std::int64_t *starts_, *members_;
  std::size_t blocks_;
};

// One block per column: its coefficients for all tasks, stored one row after another.
template <class Design>
class TaskGeometry {
 public:
  using T = typename Design::Scalar;

  TaskGeometry(std::vector<Residual<Design>> residuals, std::size_t columns)
      : residuals_(std::move(residuals)), columns_(columns) {}

  std::size_t blocks() const { return columns_; }
  std::size_t size(std::size_t) const { return residuals_.size(); }
  std::size_t place(std::size_t b, std::size_t k) const { return b * residuals_.size() + k; }
  T correlation(std::size_t b, std::size_t k) const { return residuals_[k].correlation(b); }
  void move(std::size_t b, std::size_t k, T delta) { residuals_[k].move(b, delta); }

  std::size_t residuals() const { return residuals_.size(); }
  Residual<Design>& residual(std::size_t k) { return residuals_[k]; }
  const Residual<Design>& residual(std::size_t k) const { return residuals_[k]; }
  std::size_t residual_of(std::size_t k) const { return k; }
  std::size_t column(std::size_t b, std::size_t) const { return b; }

 private:
  std::vector<Residual<Design>> residuals_;
  std::size_t columns_;
};

template <class Geometry>
class BlockModel {
 public:
  using Scalar = typename Geometry::T;
  using T = Scalar;

  // `radial` acts on block norms, its weights are per block; `l1` on every coefficient.
  BlockModel(Geometry geometry, const T* curvature, Penalty<T> radial, T l1, T* coefficients)
      : geometry_(std::move(geometry)),
        curvature_(curvature),
        radial_(radial),
        l1_(l1),
        w_(coefficients) {
    if (!geometry_.residual(0).known()) return;
    for (std::size_t b = 0; b < blocks(); ++b)
      for (std::size_t k = 0; k < geometry_.size(b); ++k) {
        const std::size_t place = geometry_.place(b, k);
        start_.resize(std::max(start_.size(), place + 1));
        start_[place] = w_[place];
      }
  }

  static constexpr bool smooth_on_support = false;
  bool on_path() const { return false; }
  bool follow() const { return false; }
  void leave() const {}
  std::size_t blocks() const { return geometry_.blocks(); }
  double work() const {
    return geometry_.residual(0).work() * (blocks() ? double(geometry_.size(0)) : 0.0);
  }
  T strength(std::size_t b) const { return radial_.strength(b); }
  T largest_strength() const {
    T largest = 0;
    for (std::size_t b = 0; b < blocks(); ++b) largest = std::max(largest, strength(b));
    return largest;
  }
  T squared_norm(std::size_t b) const { return curvature_[b] > 0 ? curvature_[b] + ridge() : T(0); }
  bool active(std::size_t b) const {
    for (std::size_t k = 0; k < geometry_.size(b); ++k)
      if (w_[geometry_.place(b, k)] != 0) return true;
    return false;
  }

  void refresh() {
    for (std::size_t k = 0; k < geometry_.residuals(); ++k) geometry_.residual(k).start();
    for (std::size_t b = 0; b < blocks(); ++b)
      for (std::size_t k = 0; k < geometry_.size(b); ++k)
        if (const T w = since_start(geometry_.place(b, k)); w != 0)
          geometry_.residual(geometry_.residual_of(k)).subtract(geometry_.column(b, k), w);
    for (std::size_t k = 0; k < geometry_.residuals(); ++k) geometry_.residual(k).finish();
  }

  Measure<T> measure(std::size_t b, bool) const {
    thread_local std::vector<T> gains, moved;
    propose(b, gains, moved);
    T change = 0, dual = 0;
    for (std::size_t k = 0; k < moved.size(); ++k) {
      const T w = w_[geometry_.place(b, k)];
      change += (moved[k] - w) * (moved[k] - w);
      const T kept = shrink(gains[k] - ridge() * w);
      dual += kept * kept;
    }
    return {curvature_[b] * std::sqrt(change), std::sqrt(dual)};
  }

  T step(std::size_t b) {
    thread_local std::vector<T> gains, moved;
    propose(b, gains, moved);
    T total = 0;
    for (std::size_t k = 0; k < moved.size(); ++k) {
      T& w = w_[geometry_.place(b, k)];
      const T change = moved[k] - w;
      if (change == 0) continue;
      geometry_.move(b, k, change);
      w = moved[k];
      total += change * change;
    }
    return curvature_[b] * std::sqrt(total);
  }

  void clear(std::size_t b) {
    for (std::size_t k = 0; k < geometry_.size(b); ++k)
      if (T& w = w_[geometry_.place(b, k)]; w != 0) {
        geometry_.move(b, k, -w);
        w = 0;
      }
  }

  T squares() const {
    T total = residual_square();
    if (ridge() > 0)
      for (std::size_t b = 0; b < blocks(); ++b) total += ridge() * norm(b) * norm(b);
    return total;
  }
  T target_product() const {
    T total = 0;
    for (std::size_t k = 0; k < geometry_.residuals(); ++k)
      total += geometry_.residual(k).target_product();
    return total;
  }
  T penalty_value() const {
    T total = 0;
    for (std::size_t b = 0; b < blocks(); ++b) total += strength(b) * norm(b);
    return total;
  }

  T objective(const std::vector<std::size_t>& set) const {
    T total = T(0.5) * residual_square();
    for (std::size_t b : set) {
      total += radial_.value(norm(b), b);
      if (l1_ > 0)
        for (std::size_t k = 0; k < geometry_.size(b); ++k)
          total += l1_ * std::abs(w_[geometry_.place(b, k)]);
    }
    return total;
  }

  std::size_t residual_size() const {
    return geometry_.residuals() * (geometry_.residual(0).rows() + 1);
  }
  std::vector<T> pack(const std::vector<std::size_t>& set) {
    std::vector<T> state;
    for (std::size_t k = 0; k < geometry_.residuals(); ++k) {
      const std::vector<T>& v = geometry_.residual(k).vector();
      state.insert(state.end(), v.begin(), v.end());
      state.push_back(geometry_.residual(k).shift());
    }
    for (std::size_t b : set)
      for (std::size_t k = 0; k < geometry_.size(b); ++k)
        state.push_back(w_[geometry_.place(b, k)]);
    return state;
  }
  void unpack(const std::vector<std::size_t>& set, const std::vector<T>& state) {
    auto next = state.begin();
    for (std::size_t k = 0; k < geometry_.residuals(); ++k) {
      std::vector<T>& v = geometry_.residual(k).vector();
      std::copy(next, next + v.size(), v.begin());
      next += v.size();
      geometry_.residual(k).shift() = *next++;
    }
    for (std::size_t b : set)
      for (std::size_t k = 0; k < geometry_.size(b); ++k) w_[geometry_.place(b, k)] = *next++;
  }

 private:
  // How far a coefficient is from where the residual was known.
  T since_start(std::size_t place) const {
    return w_[place] - (start_.empty() ? T(0) : start_[place]);
  }
  T ridge() const { return radial_.convex() ? radial_.shape : T(0); }
  T shrink(T x) const { return std::copysign(std::max(std::abs(x) - l1_, T(0)), x); }

  T norm(std::size_t b) const {
    T total = 0;
    for (std::size_t k = 0; k < geometry_.size(b); ++k) {
      const T w = w_[geometry_.place(b, k)];
      total += w * w;
    }
    return std::sqrt(total);
  }

  T residual_square() const {
    T total = 0;
    for (std::size_t k = 0; k < geometry_.residuals(); ++k) total += geometry_.residual(k).square();
    return total;
  }

  // The prox-gradient point of block b: soft thresholding, then the radial prox of the norm.
  void propose(std::size_t b, std::vector<T>& gains, std::vector<T>& moved) const {
    const std::size_t size = geometry_.size(b);
    const T step = 1 / curvature_[b];
    gains.resize(size);
    moved.resize(size);
    T square = 0;
    for (std::size_t k = 0; k < size; ++k) {
      gains[k] = geometry_.correlation(b, k);
      const T x = w_[geometry_.place(b, k)] + step * gains[k];
      moved[k] = std::copysign(std::max(std::abs(x) - step * l1_, T(0)), x);
      square += moved[k] * moved[k];
    }
    const T length = std::sqrt(square);
    const T factor = length > 0 ? radial_.prox(length, step, b) / length : T(0);
    for (T& value : moved) value *= factor;
  }

  Geometry geometry_;
  const T* curvature_;
  Penalty<T> radial_;
  T l1_;
  T* w_;
  std::vector<T> start_;  // the coefficients at which the residual was known; empty: zeros
};

}  // namespace thresher
