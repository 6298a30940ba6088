// Working sets, screening and Anderson acceleration around any block model.
//
// What a model of B blocks offers is said by the concept BlockModelLike.
#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

#include "anderson.hpp"
#include "options.hpp"
#include "parallel.hpp"
#include "support_descent.hpp"

namespace thresher {

// A quadratic loss plus a penalty of blocks of coefficients.
template <class Model>
concept BlockModelLike =
    requires(Model model, const Model told, std::size_t b, const std::vector<std::size_t> set,
             const std::vector<typename Model::Scalar> state) {
      typename Model::Scalar;
      { told.blocks() } -> std::convertible_to<std::size_t>;
      {
        told.work()
      } -> std::convertible_to<double>;  // multiplications that measuring a block takes
      model.refresh();
      { told.measure(b, true) } -> std::same_as<Measure<typename Model::Scalar>>;
      { model.step(b) } -> std::convertible_to<typename Model::Scalar>;
      { told.active(b) } -> std::convertible_to<bool>;
      model.clear(b);
      { told.strength(b) } -> std::convertible_to<typename Model::Scalar>;
      { told.squared_norm(b) } -> std::convertible_to<typename Model::Scalar>;
      // For the duality gap.
      { told.squares() } -> std::convertible_to<typename Model::Scalar>;
      { told.target_product() } -> std::convertible_to<typename Model::Scalar>;
      { told.penalty_value() } -> std::convertible_to<typename Model::Scalar>;
      // For acceleration.
      { told.objective(set) } -> std::convertible_to<typename Model::Scalar>;
      { model.pack(set) } -> std::same_as<std::vector<typename Model::Scalar>>;
      model.unpack(set, state);
      // For paths.
      { told.on_path() } -> std::convertible_to<bool>;
      { model.follow() } -> std::convertible_to<bool>;
      model.leave();
      // Whether the loss is smooth on a support, and the model offers what SupportDescent asks for.
      { Model::smooth_on_support } -> std::convertible_to<bool>;
    };

template <BlockModelLike Model>
class Descent {
 public:
  using T = typename Model::Scalar;

  Descent(Model& model, const Options& options)
      : model_(model),
        options_(options),
        measures_(model.blocks()),
        known_(model.blocks(), false),
        support_(support_of(model)) {
    for (std::size_t b = 0; b < model.blocks(); ++b) {
      if (model.squared_norm(b) > 0) candidates_.push_back(b);
      else if (model.strength(b) > 0) model.clear(b);  // a zero column has a zero coefficient
    }
  }

  Report run() {
    if (!options_.verify && size_of_set(candidates_) == candidates_.size()) return settle_once();
    Report report;
    const bool predicted = model_.follow() && options_.gap;
    if (predicted) known_.assign(known_.size(), true);
    for (;;) {
      // On the line that a path takes nothing is certain yet: it is descended from in any case.
      const bool certain = !predicted || report.iterations > 0;
      if (certain || !Model::smooth_on_support) refresh();
      const T violation = measure(candidates_);
      if (certain) report.criterion = options_.gap ? gap_and_screen() : violation;
      report.converged = report.criterion <= options_.tolerance;
      if (report.converged || report.iterations >= options_.max_iterations) break;
      ++report.iterations;
      report.epochs += descend(violation, report.criterion);
    }
    model_.leave();
    return report;
  }

 private:
  struct Nothing {};

  void refresh() {
    if (!fresh_) model_.refresh();
    fresh_ = true;
  }
  // The coefficients change: neither the residual nor any correlation is what it was.
  void stale() {
    fresh_ = false;
    known_.assign(known_.size(), false);
  }

  // Measures blocks, without a pass over the columns whose correlations are known.
  T measure(const std::vector<std::size_t>& blocks) {
    std::size_t unknown = 0;
    for (std::size_t b : blocks) unknown += !known_[b];
    const double work = unknown * model_.work() / std::max<double>(1, blocks.size());
    parallel_for(blocks.size(), work, options_.threads, [&](std::size_t begin, std::size_t end) {
      for (std::size_t k = begin; k < end; ++k)
        measures_[blocks[k]] = model_.measure(blocks[k], known_[blocks[k]]);
    });
    T largest = 0;
    for (std::size_t b : blocks) {
      largest = std::max(largest, measures_[b].violation);
      known_[b] = model_.on_path();
    }
    return largest;
  }

  // Descends on a working set; where passes over all blocks are dear, on working sets of the
  // tenth of the blocks that is nearest to entering, until those alone are nearly optimal.
  long descend(T violation, double criterion) {
    if (const long epochs = descend_on_products(violation)) return epochs;
    const std::size_t tenth = std::max(candidates_.size() / 10, size_of_set(candidates_));
    if (2 * tenth > candidates_.size()) return descend_on(candidates_, violation);
    const std::vector<std::size_t> near = nearest(candidates_, tenth);
    // Along a path the blocks near to entering are known, and one pass over all may do.
    const double goal = std::max(0.3 * options_.tolerance, model_.on_path() ? 0 : 0.1 * criterion);
    long epochs = descend_on(near, violation);
    for (int round = 1; round < options_.max_iterations; ++round) {
      refresh();
      violation = measure(near);
      if ((options_.gap ? dual(near).gap : violation) <= goal) break;
      epochs += descend_on(near, violation);
    }
    return epochs;
  }

  // Along a path, by the products of the columns met so far: descends on those, measures the
  // others that are nearest to entering, and adds them until these alone are nearly optimal.
  // Zero if there are too many columns to keep products of.
  long descend_on_products(T violation) {
    if constexpr (Model::smooth_on_support) {
      if (!model_.on_path() || !options_.gap) return 0;
      const std::vector<std::size_t> near = nearest(candidates_, size_of_neighbourhood());
      T target = std::max(T(3) * floor(), T(0.01) * violation);
      T gap = std::numeric_limits<T>::infinity();
      long epochs = 0;
      for (int round = 0; round < options_.max_iterations; ++round) {
        std::vector<std::size_t> inside;
        for (std::size_t b : near)
          if (model_.active(b) || measures_[b].violation > 0) inside.push_back(b);
        if (!support_.hold(model_, inside, options_.threads)) {
          refresh();
          return epochs;
        }
        inside.clear();
        for (std::size_t b : near)
          if (support_.holds(b)) inside.push_back(b);
        epochs += support_.descend(model_, inside, target, options_.max_epochs);
        stale();
        for (std::size_t b : inside) known_[b] = true;
        refresh();
        measure(near);
        // A gap that no longer falls is at its rounding, or asks for a look at all columns.
        const T before = std::exchange(gap, dual(near).gap);
        if (gap <= T(0.8 * options_.tolerance) || gap >= before) break;
        target = std::min(T(0.3) * target, floor());
      }
      return epochs;
    } else {
      return 0;
    }
  }

  // The active blocks, the violators, and a tenth of the others.
  std::size_t size_of_neighbourhood() const {
    std::size_t size = candidates_.size() / 10 + options_.start_size;
    for (std::size_t b : candidates_) size += model_.active(b) || measures_[b].violation > 0;
    return std::min(size, candidates_.size());
  }

  long descend_on(const std::vector<std::size_t>& blocks, T violation) {
    const std::vector<std::size_t> set = nearest(blocks, size_of_set(blocks));
    stale();
    return solve(set, std::max(accuracy(set, blocks) * violation, floor()));
  }

  // How far below the violation outside the inner problem is solved. While violators are left
  // out the set is still wrong and accuracy is wasted; once all are in, one more pass over all
  // blocks costs as much as many over the set.
  T accuracy(const std::vector<std::size_t>& set, const std::vector<std::size_t>& blocks) const {
    std::size_t violators = 0;
    for (std::size_t b : blocks) violators += measures_[b].violation > 0;
    const bool complete = violators <= set.size();
    return complete ? T(0.3) * T(set.size()) / T(blocks.size()) : T(0.3);
  }

  // The accuracy at which solving the inner problem further cannot matter.
  T floor() const {
    if (!options_.gap) return T(0.5 * options_.tolerance);
    const T mass = model_.penalty_value();
    return mass > 0 ? T(0.1 * options_.tolerance) * model_.largest_strength() / mass : T(0);
  }

  struct Dual {
    T gap, rounding, scale;
  };

  // Duality gap of the problem on some blocks, at the residual scaled into the feasible set, and
  // how much of it may be rounding. A negative gap is an error of its size, not a proof.
  Dual dual(const std::vector<std::size_t>& blocks) const {
    T feasible = std::numeric_limits<T>::infinity();
    for (std::size_t b : blocks) {
      const T correlation = measures_[b].correlation;
      if (correlation > 0) feasible = std::min(feasible, model_.strength(b) / correlation);
    }
    const T squares = model_.squares(), product = model_.target_product();
    const T best = squares > 0 ? product / squares : T(0);
    const T scale = std::max(T(0), std::min(best, feasible));
    const T primal = T(0.5) * squares + model_.penalty_value();
    const T curved = T(0.5) * scale * scale * squares;
    const T rounding =
        4 * std::numeric_limits<T>::epsilon() * (primal + std::abs(scale * product) + curved);
    return {std::abs(primal - scale * product + curved), rounding, scale};
  }

  // The gap over all blocks; drops those that are zero in every solution
  // (Ndiaye, Fercoq, Gramfort and Salmon, Gap Safe Screening Rules, 2017).
  double gap_and_screen() {
    const auto [gap, rounding, scale] = dual(candidates_);
    if (model_.on_path()) return gap;
    const T distance = std::sqrt(2 * (gap + rounding));
    std::erase_if(candidates_, [&, distance = distance, scale = scale](std::size_t b) {
      // Not the root of the product, which underflows where both are tiny.
      const T radius = distance * std::sqrt(model_.squared_norm(b));
      if (scale * measures_[b].correlation + radius >= model_.strength(b) * (1 - T(1e-6)))
        return false;
      if (model_.active(b)) model_.clear(b);
      return true;
    });
    return gap;
  }

  std::size_t size_of_set(const std::vector<std::size_t>& blocks) const {
    std::size_t active = 0;
    for (std::size_t b : blocks) active += model_.active(b);
    return std::min(blocks.size(), std::max<std::size_t>(options_.start_size, 2 * active));
  }

  // So many of the blocks: the active ones and the worst violators, then those nearest to
  // entering.
  std::vector<std::size_t> nearest(const std::vector<std::size_t>& blocks, std::size_t size) const {
    T largest = 0;
    for (std::size_t b : blocks) largest = std::max(largest, measures_[b].correlation);
    const auto priority = [&](std::size_t b) {
      if (model_.active(b)) return std::numeric_limits<T>::infinity();
      const Measure<T>& m = measures_[b];
      return m.violation > 0 ? m.violation : m.correlation - largest - 1;
    };
    std::vector<std::pair<T, std::size_t>> order;
    order.reserve(blocks.size());
    for (std::size_t b : blocks) order.emplace_back(-priority(b), b);
    std::nth_element(order.begin(), order.begin() + (size ? size - 1 : 0), order.end());
    std::vector<std::size_t> set(size);
    for (std::size_t k = 0; k < size; ++k) set[k] = order[k].second;
    std::sort(set.begin(), set.end());  // as the columns lie in memory
    return set;
  }

  T epoch(const std::vector<std::size_t>& set) {
    T largest = 0;
    for (std::size_t b : set) largest = std::max(largest, model_.step(b));
    return largest;
  }

  // One pass over all blocks, then over the active ones until these settle.
  Report settle_once() {
    refresh();
    epoch(candidates_);
    Report report;
    report.iterations = 1;
    report.epochs = 1 + settle(active_of(candidates_), floor());
    return report;
  }

  std::vector<std::size_t> active_of(const std::vector<std::size_t>& set) const {
    std::vector<std::size_t> active;
    for (std::size_t b : set)
      if (model_.active(b)) active.push_back(b);
    return active;
  }

  // Descends on one working set until a whole pass changes nothing by more than `target`.
  long solve(const std::vector<std::size_t>& set, T target) {
    long epochs = 0;
    while (epochs < options_.max_epochs) {
      ++epochs;
      if (epoch(set) <= target) break;
      epochs += settle(active_of(set), target);
    }
    return epochs;
  }

  // Passes over the active blocks only, accelerated.
  long settle(const std::vector<std::size_t>& active, T target) {
    Anderson<T> anderson;
    long epochs = 0;
    constexpr long limit = 10 * (Anderson<T>::depth + 1);
    while (!active.empty() && epochs < limit) {
      ++epochs;
      ++since_newton_;
      const T change = epoch(active);
      if (change <= T(0.3) * target) break;
      if (newton(active)) {
        anderson.restart();
        continue;
      }
      if (!anderson.push(model_.pack(active))) continue;
      const T before = model_.objective(active);
      const std::vector<T> here = model_.pack(active),
                           there = anderson.extrapolate(model_.residual_size());
      anderson.restart();
      if (there.empty()) continue;
      model_.unpack(active, there);
      if (!(model_.objective(active) < before)) model_.unpack(active, here);
    }
    return epochs;
  }

  // A Newton step once epochs have taken as long as it would; less often where it fails.
  bool newton(const std::vector<std::size_t>& active) {
    if constexpr (Model::smooth_on_support) {
      const double worth = SupportDescent<Model>::worth_of_newton(active.size(), model_.rows());
      if (double(since_newton_) < reluctance_ * worth) return false;
      since_newton_ = 0;
      const bool lower = support_.newton(model_, active, options_.threads);
      reluctance_ = lower ? 1 : 2 * reluctance_;
      return lower;
    } else {
      return false;
    }
  }

  static auto support_of(Model& model) {
    if constexpr (Model::smooth_on_support) return SupportDescent<Model>(model.kept_products());
    else return Nothing{};
  }

  Model& model_;
  Options options_;
  std::vector<std::size_t> candidates_;
  std::vector<Measure<T>> measures_;
  std::vector<char> known_;  // whose correlations the model knows at these coefficients
  bool fresh_ = false;       // whether the residual is exact
  decltype(support_of(std::declval<Model&>())) support_;
  long since_newton_ = 0;
  double reluctance_ = 1;
};

}  // namespace thresher
