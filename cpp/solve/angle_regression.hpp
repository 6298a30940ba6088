// Least angle regression, and its modification that gives the exact path of the Lasso.
//
// Efron, Hastie, Johnstone and Tibshirani, Least angle regression (2004). On an active set A with
// signs s, the columns of A all have correlation `level` with the residual, so that the
// coefficients are those of least squares less `level` times (X_A' X_A)^-1 s: a line in `level`.
// Every step takes both parts afresh from the QR factorisation of X_A rather than adding to the
// last step's, so that rounding does not add up along the path, and finds the next level at which
// a column enters or, for the Lasso, a coefficient meets zero.
//
// The paper excludes that several columns reach the level together. Where they do, the coefficients
// that are zero may only move away from it, so that their speeds solve least squares under sign
// constraints: columns enter and leave at this level as in Lawson and Hanson, Solving least squares
// problems (1974), chapter 23, which ends as its objective falls with every step.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "basis.hpp"
#include "centred.hpp"

namespace thresher {

struct Knots {
  std::vector<double> levels;      // largest correlation with the residual
  std::vector<double> violations;  // by how much columns miss what the level demands of them
  std::vector<std::int64_t> starts{0}, columns;  // those not zero at each knot
  std::vector<double> coefficients;
  bool finished = false;  // rather than out of steps
};

template <class Columns>
class AngleRegression {
 public:
  AngleRegression(const Columns& columns, const double* target, bool lasso, int threads)
      : columns_(columns),
        rows_(columns.rows()),
        lasso_(lasso),
        threads_(threads),
        basis_(rows_),
        outside_(target, target + rows_),
        along_(rows_),
        column_(rows_),
        offset_(columns.size()),
        slope_(columns.size(), 0.0),
        state_(columns.size(), State::Free) {}

  // Follows the path down to `lowest`, or until one more than `limit` columns would be active.
  Knots run(double lowest, std::size_t limit, long steps) {
    columns_.correlate(outside_.data(), offset_.data(), threads_);
    const std::size_t first = largest_entry(offset_.data(), columns_.size());
    const double top = level_ = std::abs(offset_[first]);
    record(0.0);
    Event event{level_, Kind::Enter, first, offset_[first] < 0 ? -1.0 : 1.0};
    knots_.finished = level_ <= lowest || limit == 0;
    while (!knots_.finished && steps-- > 0) {
      apply(event);
      aim();
      knots_.violations.back() = std::max(knots_.violations.back(), violation());
      event = next();
      // What is this little above zero is rounding, and no column's signal.
      const bool last = event.kind == Kind::None || event.level <= std::max(lowest, 1e-13 * top);
      move(last ? lowest : event.level);
      knots_.finished = last || (event.kind == Kind::Enter && active_.size() == limit);
    }
    return std::move(knots_);
  }

 private:
  // Spanned columns wait until one leaves; those that rounding alone made enter wait, having left,
  // until the level falls.
  static constexpr double same = 1e-12;  // levels and speeds that differ by rounding alone

  enum class State { Free, Active, Spanned, Left };
  enum class Kind { Enter, Leave, None };
  struct Event {
    double level;
    Kind kind;
    std::size_t index;  // of the column that enters, or the place of the one that leaves
    double sign;
    double rate = 0;  // how fast an entering column outgrows the level
  };

  void apply(const Event& event) {
    if (event.kind == Kind::Enter) {
      enter(event.index, event.sign);
    } else {
      leave(event.index);
    }
  }

  void enter(std::size_t j, double sign) {
    columns_.expand(j, column_.data());
    if (!basis_.add(column_.data())) {
      state_[j] = State::Spanned;
      return;
    }
    state_[j] = State::Active;
    active_.push_back(j);
    sign_.push_back(sign);
    speed_.push_back(0.0);
    resting_.push_back(true);
    shares_.push_back(dot(basis_.last(), outside_.data(), rows_));
    add_scaled(-shares_.back(), basis_.last(), outside_.data(), rows_);
  }

  void leave(std::size_t place) {
    const double* q = basis_.direction(0);
    std::vector<double> fitted(rows_, 0.0);
    for (std::size_t k = place; k < active_.size(); ++k)
      add_scaled(shares_[k], q + k * rows_, fitted.data(), rows_);
    basis_.remove(place);
    for (std::size_t k = place; k < active_.size(); ++k)
      shares_[k] = dot(basis_.direction(k), fitted.data(), rows_);
    add_scaled(shares_.back(), basis_.direction(basis_.size()), outside_.data(), rows_);
    shares_.pop_back();
    for (State& state : state_)
      if (state == State::Spanned) state = State::Free;
    state_[active_[place]] = resting_[place] && speed_[place] == 0 ? State::Left : State::Free;
    const auto at = std::ptrdiff_t(place);
    active_.erase(active_.begin() + at);
    sign_.erase(sign_.begin() + at);
    speed_.erase(speed_.begin() + at);
    resting_.erase(resting_.begin() + at);
  }

  // Coefficients and correlations as lines in the level: fit_ - level * pull_, and
  // offset_ + level * slope_.
  void aim() {
    const std::size_t size = active_.size();
    fit_ = shares_;
    basis_.triangle().solve_transposed(fit_.data());
    pull_ = sign_;
    basis_.triangle().solve(pull_.data());
    std::fill(along_.begin(), along_.end(), 0.0);
    for (std::size_t k = 0; k < size; ++k)
      add_scaled(pull_[k], basis_.direction(k), along_.data(), rows_);
    basis_.triangle().solve_transposed(pull_.data());
    const double outside = columns_.shift(outside_.data()), along = columns_.shift(along_.data());
    parallel_for(columns_.size(), 2 * columns_.design.work(), threads_,
                 [&](std::size_t begin, std::size_t end) {
                   for (std::size_t j = begin; j < end; ++j) {
                     offset_[j] = columns_.product(j, outside_.data(), outside);
                     slope_[j] = columns_.product(j, along_.data(), along);
                   }
                 });
  }

  // The highest level, not above the present one, at which the active set changes.
  Event next() {
    Event best{0.0, Kind::None, 0, 0.0};
    if (lasso_ && turn_back(best)) return best;
    speed_ = pull_;
    const auto offer = [&](Event event) {
      if (event.level > level_ * (1 - same)) event.level = level_;
      if (event.level > best.level || (event.level == best.level && event.rate > best.rate))
        best = event;
    };
    for (std::size_t j = 0; j < columns_.size(); ++j) {
      if (state_[j] != State::Free) continue;
      for (const double sign : {1.0, -1.0}) {
        // Where offset + level * slope = sign * level; never, if it falls as fast as the level.
        const double rate = 1 - sign * slope_[j];
        if (rate > same) offer({sign * offset_[j] / rate, Kind::Enter, j, sign, rate});
      }
    }
    if (!lasso_) return best;
    for (std::size_t k = 0; k < active_.size(); ++k)
      if (pull_[k] * sign_[k] < 0) offer({fit_[k] / pull_[k], Kind::Leave, k, 0.0});
    return best;
  }

  // Finds the first coefficient at zero that would move to its wrong side, on the way from the
  // present speeds to those of least squares; takes the speeds to where it stops.
  bool turn_back(Event& event) {
    double nearest = 2;
    for (std::size_t k = 0; k < active_.size(); ++k) {
      const double there = pull_[k] * sign_[k], here = std::max(speed_[k] * sign_[k], 0.0);
      if (!resting_[k] || there >= 0 || here / (here - there) >= nearest) continue;
      nearest = here / (here - there);
      event = {level_, Kind::Leave, k, 0.0};
    }
    if (nearest > 1) return false;
    for (std::size_t k = 0; k < active_.size(); ++k) speed_[k] += nearest * (pull_[k] - speed_[k]);
    if (nearest < same) speed_[event.index] = 0;
    return true;
  }

  void move(double level) {
    if (level < level_) {
      std::fill(resting_.begin(), resting_.end(), false);
      for (State& state : state_)
        if (state == State::Left) state = State::Free;
    } else {  // the same knot, with other columns
      knots_.levels.pop_back();
      knots_.starts.pop_back();
      knots_.columns.resize(std::size_t(knots_.starts.back()));
      knots_.coefficients.resize(knots_.columns.size());
      knots_.violations.pop_back();
    }
    level_ = level;
    record(violation());
  }

  void record(double violation) {
    knots_.levels.push_back(level_);
    knots_.violations.push_back(violation);
    for (std::size_t k = 0; k < active_.size(); ++k) {
      const double value = fit_[k] - level_ * pull_[k];
      // A coefficient on the wrong side of zero has met it, but for rounding.
      if (value == 0 || (lasso_ && value * sign_[k] < 0)) continue;
      knots_.columns.push_back(std::int64_t(active_[k]));
      knots_.coefficients.push_back(value);
    }
    knots_.starts.push_back(std::int64_t(knots_.columns.size()));
  }

  double violation() const {
    double worst = 0;
    for (std::size_t j = 0; j < columns_.size(); ++j)
      if (state_[j] != State::Active)
        worst = std::max(worst, std::abs(offset_[j] + level_ * slope_[j]) - level_);
    for (std::size_t k = 0; k < active_.size(); ++k) {
      const std::size_t j = active_[k];
      worst = std::max(worst, std::abs(offset_[j] + level_ * (slope_[j] - sign_[k])));
    }
    return worst;
  }

  const Columns& columns_;
  std::size_t rows_;
  bool lasso_;
  int threads_;
  double level_ = 0;
  Basis basis_;
  std::vector<std::size_t> active_;
  std::vector<double> sign_, shares_, fit_, pull_, speed_;  // of the active columns
  std::vector<bool> resting_;                     // those whose coefficient is zero at this level
  std::vector<double> outside_, along_, column_;  // of the rows
  std::vector<double> offset_, slope_;            // of all columns
  std::vector<State> state_;
  Knots knots_;
};

}  // namespace thresher
