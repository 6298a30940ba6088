// Newton steps on the support, in the space of its Gram matrix.
//
// Near the solution the signs of the coefficients no longer change and the problem is smooth on
// the support: one factorisation then replaces the hundreds of epochs that coordinate descent
// needs when the columns of the support are nearly dependent. Steps stop coefficients that would
// change sign at zero (projected Newton, Bertsekas 1982) and are taken only if the objective
// falls, so that a wrong support costs time and nothing else.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <unordered_map>
#include <vector>

#include "parallel.hpp"
#include "vector.hpp"

namespace thresher {

// The Gram matrix of the columns met so far; every column is scaled and centred once.
template <class Model>
class GramCache {
 public:
  using T = typename Model::Scalar;
  // Whether these columns fit; adds those that are missing.
  bool hold(const Model& model, const std::vector<std::size_t>& columns, int threads) {
    const std::size_t most = std::min(most_columns, most_entries / model.rows());
    if (columns.size() > std::min(most, model.rows())) return false;
    std::vector<std::size_t> missing;
    for (std::size_t j : columns)
      if (!place_.contains(j)) missing.push_back(j);
    if (place_.size() + missing.size() > most) {  // start again with what is needed now
      place_.clear();
      missing = columns;
    }
    grow(place_.size() + missing.size(), most, model.rows());
    const std::size_t old = place_.size();
    for (std::size_t j : missing) {
      model.fill(j, columns_.data() + place_.size() * stride_);
      place_.emplace(j, place_.size());
    }
    const std::size_t groups = (missing.size() + 3) / 4;
    const double work = 4.0 * double(stride_) * double(place_.size());
    parallel_for(groups, work, threads, [&](std::size_t begin, std::size_t end) {
      for (std::size_t g = begin; g < end; ++g) products(old + 4 * g);
    });
    for (std::size_t a = old; a < place_.size(); ++a)
      for (std::size_t b = 0; b < a; ++b) gram_[b * capacity_ + a] = gram_[a * capacity_ + b];
    return true;
  }

  std::size_t place(std::size_t j) const { return place_.at(j); }
  // Products of the column at a place with all, by their places.
  const T* row(std::size_t place) const { return gram_.data() + place * capacity_; }

 private:
  static constexpr std::size_t most_columns = 2048;          // a Gram matrix of 32 MiB
  static constexpr std::size_t most_entries = 1ul << 24;     // columns of 128 MiB

  // Products of four columns from `first` on with all columns up to themselves.
  void products(std::size_t first) {
    T four[4];
    const std::size_t last = std::min(first + 4, place_.size());
    for (std::size_t b = 0; b < last; ++b) {
      four_dots(columns_.data() + first * stride_, stride_, columns_.data() + b * stride_, stride_,
                four);
      for (std::size_t a = first; a < last; ++a) gram_[a * capacity_ + b] = four[a - first];
    }
  }

  void grow(std::size_t count, std::size_t most, std::size_t rows) {
    stride_ = rows;
    if (count > capacity_) {
      const std::size_t larger = std::min(most, std::max<std::size_t>(2 * count, 64));
      std::vector<T> moved(larger * larger);
      for (std::size_t a = 0; a < place_.size(); ++a)
        std::copy_n(gram_.data() + a * capacity_, place_.size(), moved.data() + a * larger);
      gram_ = std::move(moved);
      capacity_ = larger;
    }
    columns_.resize((capacity_ + 3) * stride_);  // groups of four may reach past the end
  }

  std::unordered_map<std::size_t, std::size_t> place_;
  std::vector<T> columns_, gram_;
  std::size_t capacity_ = 0, stride_ = 0;
};

template <class Model>
class SupportNewton {
 public:
  using T = typename Model::Scalar;

  // How many epochs over `size` blocks take as long as one call: measured at 800 columns of 1000
  // rows and scaled by the operations of products and factorisations.
  static double epochs(std::size_t size, std::size_t rows) {
    const double m = double(size), n = double(rows);
    return std::max(10.0, m / 4 + m * m / (3 * n));
  }

  // Lowers the objective over the given coefficients; false if that failed.
  bool step(Model& model, const std::vector<std::size_t>& active, int threads) {
    if (!cache_.hold(model, active, threads)) return false;
    load(model, active);
    bool moved = false;
    for (int k = 0; k < most_steps; ++k) {
      const Outcome outcome = advance(model, active);
      moved |= outcome != Outcome::Failed;
      if (outcome != Outcome::Stopped) break;
    }
    if (!moved) return false;
    const T before = model.objective(active);
    const std::vector<T> here = model.pack(active);
    for (std::size_t a = 0; a < active.size(); ++a)
      model.set(active[a], T(w_[a]));
    if (model.objective(active) < before) return true;
    model.unpack(active, here);
    return false;
  }

 private:
  static constexpr int most_steps = 3;
  enum class Outcome { Exact, Stopped, Failed };

  void load(const Model& model, const std::vector<std::size_t>& active) {
    const std::size_t m = active.size();
    w_.resize(m);
    gain_.resize(m);
    gram_.resize(m * m);
    std::vector<std::size_t> places(m);
    for (std::size_t a = 0; a < m; ++a) places[a] = cache_.place(active[a]);
    for (std::size_t a = 0; a < m; ++a) {
      w_[a] = model.coefficient(active[a]);
      gain_[a] = model.correlation(active[a]);
      const T* row = cache_.row(places[a]);
      for (std::size_t b = 0; b < m; ++b) gram_[a * m + b] = row[places[b]];
    }
  }

  // One projected Newton step; `Exact` if no coefficient stopped at zero.
  Outcome advance(const Model& model, const std::vector<std::size_t>& active) {
    const std::size_t m = active.size();
    std::vector<std::size_t> inside;
    for (std::size_t a = 0; a < m; ++a)
      if (w_[a] != 0) inside.push_back(a);
    const std::size_t size = inside.size();
    if (size == 0) return Outcome::Failed;
    factor_.resize((size + 3) * size);
    std::vector<double> direction(size);
    for (std::size_t r = 0; r < size; ++r) {
      const std::size_t a = inside[r];
      for (std::size_t c = 0; c <= r; ++c) factor_[r * size + c] = gram_[a * m + inside[c]];
      factor_[r * size + r] += model.bend(active[a], T(w_[a]));
      direction[r] = gain_[a] - model.slope(active[a], T(w_[a]));
    }
    if (!factorise(size)) return Outcome::Failed;
    substitute(size, direction);
    double length = 1;
    for (int k = 0; k < 4; ++k, length /= 2)
      if (move(model, active, inside, direction, length))
        return length == 1 && stopped_ == 0 ? Outcome::Exact : Outcome::Stopped;
    return Outcome::Failed;
  }

  // Moves along the direction, zero being a wall, if that lowers the objective.
  bool move(const Model& model, const std::vector<std::size_t>& active,
            const std::vector<std::size_t>& inside, const std::vector<double>& direction,
            double length) {
    const std::size_t m = active.size();
    std::vector<double> change(m, 0.0), pull(m, 0.0);
    double penalty = 0;
    stopped_ = 0;
    for (std::size_t r = 0; r < inside.size(); ++r) {
      const std::size_t a = inside[r];
      double next = w_[a] + length * direction[r];
      if (next * w_[a] <= 0) {
        next = 0;
        ++stopped_;
      }
      change[a] = next - w_[a];
      penalty += model.penalty(active[a], T(next)) - model.penalty(active[a], T(w_[a]));
    }
    for (std::size_t a = 0; a < m; ++a)
      if (change[a] != 0) add_scaled(change[a], gram_.data() + a * m, pull.data(), m);
    double smooth = 0;
    for (std::size_t a = 0; a < m; ++a) smooth += change[a] * (0.5 * pull[a] - gain_[a]);
    if (!(smooth + penalty < 0)) return false;
    for (std::size_t a = 0; a < m; ++a) {
      w_[a] += change[a];
      gain_[a] -= pull[a];
    }
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

  GramCache<Model> cache_;
  std::vector<double> w_, gain_, gram_, factor_;
  std::size_t stopped_ = 0;
};

}  // namespace thresher
