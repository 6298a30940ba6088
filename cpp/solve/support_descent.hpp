// Descent on the columns met so far, in the space of their Gram matrix.
//
// An epoch there costs the square of the columns' number instead of their number times that of
// the rows, and columns that rest cost nothing. Near the solution the signs of the coefficients
// no longer change and the problem is smooth on the support: one factorisation then replaces the
// hundreds of epochs that coordinate descent needs when the columns of the support are nearly
// dependent. Newton steps stop coefficients that would change sign at zero, or leave their bounds
// at these (projected Newton, Bertsekas 1982) and are taken only if the objective falls, so that a wrong support costs time
// and nothing else.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "anderson.hpp"
#include "gram_cache.hpp"
#include "vector.hpp"

namespace thresher {

template <class Model>
class SupportDescent {
 public:
  using T = typename Model::Scalar;

  // Keeps the products in `kept` if that is given, for the next fit of a path.
  explicit SupportDescent(GramCache<T>* kept) : cache_(kept ? *kept : own_) {}

  // How many epochs over `size` columns take as long as one Newton step: measured at 800 columns
  // of 1000 rows and scaled by the operations of products and factorisations.
  static double worth_of_newton(std::size_t size, std::size_t rows) {
    const double m = double(size), n = double(rows);
    return std::max(10.0, m / 4 + m * m / (3 * n));
  }

  bool hold(const Model& model, const std::vector<std::size_t>& columns, int threads) {
    return cache_.hold(model, columns, threads);
  }
  bool holds(std::size_t j) const { return cache_.holds(j); }

  // Newton steps on the given coefficients; false if they did not lower the objective.
  bool newton(Model& model, const std::vector<std::size_t>& active, int threads) {
    if (active.size() > model.rows() || !hold(model, active, threads)) return false;
    load(model, active);
    for (std::size_t k = 0; k < live_.size(); ++k)
      gain_[live_[k].place] = model.correlation(live_[k].column);
    if (!newton(model)) return false;
    const T before = model.objective(active);
    const std::vector<T> here = model.pack(active);
    for (const Live& live : live_) model.set(live.column, w_[live.place]);
    if (model.objective(active) < before) return true;
    model.unpack(active, here);
    return false;
  }

  // Coordinate descent on columns that are held and whose correlations are known to the model,
  // until an epoch changes no derivative by more than `target`. Leaves the coefficients and the
  // correlations in the model, whose residual no longer fits.
  long descend(Model& model, const std::vector<std::size_t>& columns, T target, long most) {
    load(model, columns);
    for (const Live& live : live_) gain_[live.place] = model.known_correlation(live.column);
    const long epochs = iterate(model, target, most);
    for (const Live& live : live_) model.put(live.column, w_[live.place], gain_[live.place]);
    return epochs;
  }

 private:
  static constexpr int most_steps = 3;
  enum class Outcome { Exact, Stopped, Failed };
  struct Live {
    std::size_t column, place;
    T curvature;
  };

  void load(const Model& model, const std::vector<std::size_t>& columns) {
    w_.assign(cache_.size(), T(0));
    gain_.assign(cache_.size(), T(0));
    live_.clear();
    for (std::size_t j : columns) {
      const std::size_t place = cache_.place(j);
      live_.push_back({j, place, cache_.row(place)[place]});
      w_[place] = model.coefficient(j);
    }
    // In the order of the cache the rows are met from left to right.
    std::sort(live_.begin(), live_.end(),
              [](const Live& a, const Live& b) { return a.place < b.place; });
  }

  // Accelerated epochs, and a Newton step when they have taken as long as one.
  long iterate(const Model& model, T target, long most) {
    const std::vector<T> start = w_, pull = gain_;
    Anderson<T> anderson;
    double since = 0, reluctance = 1;
    for (long epochs = 1;; ++epochs) {
      if (epoch(model) <= target || epochs >= most) return epochs;
      if (++since >= reluctance * worth_of_gram_newton()) {
        since = 0;
        if (!newton(model)) reluctance *= 2;
        anderson.restart();
      } else if (anderson.push(state())) {
        const T before = objective(model, start, pull);
        const std::vector<T> here = state(), there = anderson.extrapolate(w_.size());
        anderson.restart();
        if (there.empty()) continue;
        restore(there);
        if (!(objective(model, start, pull) < before)) restore(here);
      }
    }
  }

  // A factorisation takes a sixth of the cube of the support's size, an epoch its square, at a
  // fraction of the speed.
  double worth_of_gram_newton() const { return 5 + double(live_.size()) / 10; }

  T epoch(const Model& model) {
    T largest = 0;
    for (const Live& live : live_) {
      T& w = w_[live.place];
      const T gain = gain_[live.place];
      if (!(live.curvature > 0) || (w == 0 && model.rests(live.column, gain))) continue;
      const T next = model.prox(live.column, w + gain / live.curvature, 1 / live.curvature);
      const T change = next - w;
      if (change == 0) continue;
      w = next;
      add_scaled(-change, cache_.row(live.place), gain_.data(), gain_.size());
      largest = std::max(largest, live.curvature * std::abs(change));
    }
    return largest;
  }

  // The objective, less what it was without the penalty at `start`.
  T objective(const Model& model, const std::vector<T>& start, const std::vector<T>& pull) const {
    T total = 0;
    for (const auto& [column, place, curvature] : live_)
      total += model.penalty(column, w_[place]) -
               T(0.5) * (w_[place] - start[place]) * (pull[place] + gain_[place]);
    return total;
  }

  std::vector<T> state() const {
    std::vector<T> packed(gain_);
    packed.insert(packed.end(), w_.begin(), w_.end());
    return packed;
  }
  void restore(const std::vector<T>& packed) {
    const auto middle = packed.begin() + std::ptrdiff_t(gain_.size());
    std::copy(packed.begin(), middle, gain_.begin());
    std::copy(middle, packed.end(), w_.begin());
  }

  bool newton(const Model& model) {
    bool moved = false;
    for (int k = 0; k < most_steps; ++k) {
      const Outcome outcome = advance(model);
      moved |= outcome != Outcome::Failed;
      if (outcome != Outcome::Stopped) break;
    }
    return moved;
  }

  // One projected Newton step; `Exact` if no coefficient stopped at zero.
  Outcome advance(const Model& model) {
    std::vector<Live> inside;
    for (const Live& live : live_) {
      const T w = w_[live.place];
      if (w == 0) continue;
      const T push = gain_[live.place] - model.slope(live.column, w);
      if (!model.held(live.column, w, push)) inside.push_back(live);
    }
    const std::size_t size = inside.size();
    if (size == 0 || size > model.rows()) return Outcome::Failed;
    factor_.resize((size + 3) * size);
    std::vector<double> direction(size);
    for (std::size_t r = 0; r < size; ++r) {
      const auto [column, place, curvature] = inside[r];
      const T* row = cache_.row(place);
      for (std::size_t c = 0; c <= r; ++c) factor_[r * size + c] = row[inside[c].place];
      factor_[r * size + r] += model.bend(column, w_[place]);
      direction[r] = gain_[place] - model.slope(column, w_[place]);
    }
    if (!factorise(size)) return Outcome::Failed;
    substitute(size, direction);
    double length = 1;
    for (int k = 0; k < 4; ++k, length /= 2)
      if (move(model, inside, direction, length))
        return length == 1 && stopped_ == 0 ? Outcome::Exact : Outcome::Stopped;
    return Outcome::Failed;
  }

  // Moves along the direction, zero being a wall, if that lowers the objective.
  bool move(const Model& model, const std::vector<Live>& inside,
            const std::vector<double>& direction, double length) {
    std::vector<T> change(inside.size()), pull(gain_.size(), T(0));
    double lower = 0;
    stopped_ = 0;
    for (std::size_t r = 0; r < inside.size(); ++r) {
      const auto [column, place, curvature] = inside[r];
      T next = T(w_[place] + length * direction[r]);
      if (next * w_[place] <= 0) {
        next = 0;
        ++stopped_;
      } else if (const T held = model.inside(column, next); held != next) {
        next = held;
        ++stopped_;
      }
      change[r] = next - w_[place];
      lower += model.penalty(column, next) - model.penalty(column, w_[place]);
      if (change[r] != 0) add_scaled(change[r], cache_.row(place), pull.data(), pull.size());
    }
    for (std::size_t r = 0; r < inside.size(); ++r) {
      const std::size_t place = inside[r].place;
      lower += double(change[r]) * (0.5 * double(pull[place]) - double(gain_[place]));
    }
    if (!(lower < 0)) return false;
    for (std::size_t r = 0; r < inside.size(); ++r) w_[inside[r].place] += change[r];
    for (std::size_t a = 0; a < gain_.size(); ++a) gain_[a] -= pull[a];
    return true;
  }

  // Cholesky factor of the lower triangle in `factor_`, four rows at a time.
  bool factorise(std::size_t size) {
    double* f = factor_.data();
    double largest = 0;
    for (std::size_t r = 0; r < size; ++r) largest = std::max(largest, f[r * size + r]);
    for (std::size_t first = 0; first < size; first += 4) {
      const std::size_t last = std::min(first + 4, size);
      double four[4];
      for (std::size_t c = 0; c < last; ++c) {
        four_dots(f + first * size, size, f + c * size, std::min(c, first), four);
        for (std::size_t r = std::max(first, c); r < last; ++r) {
          double value = f[r * size + c] - four[r - first];
          for (std::size_t k = first; k < c; ++k) value -= f[r * size + k] * f[c * size + k];
          if (r > c) {
            f[r * size + c] = value / f[c * size + c];
          } else {
            if (!(value > 1e-13 * largest)) return false;  // the columns are dependent
            f[r * size + r] = std::sqrt(value);
          }
        }
      }
    }
    return true;
  }

  void substitute(std::size_t size, std::vector<double>& x) const {
    const double* f = factor_.data();
    for (std::size_t r = 0; r < size; ++r)
      x[r] = (x[r] - dot(f + r * size, x.data(), r)) / f[r * size + r];
    for (std::size_t r = size; r-- > 0;) {
      x[r] /= f[r * size + r];
      add_scaled(-x[r], f + r * size, x.data(), r);
    }
  }

  GramCache<T> own_, &cache_;
  std::vector<Live> live_;
  std::vector<T> w_, gain_;  // by the places of the cache
  std::vector<double> factor_;
  std::size_t stopped_ = 0;
};

}  // namespace thresher
