// Python entry points of the descents. Arrays are taken as they are: a wrong type is an error,
// never a silent copy. The interpreter is released while a descent runs.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>

#include <limits>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>

#include "block_model.hpp"
#include "coordinate_model.hpp"
#include "design.hpp"
#include "gram_descent.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace thresher {

template <class T>
using In = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class T>
using Out = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class T>
using Columns = nb::ndarray<const T, nb::ndim<2>, nb::f_contig, nb::device::cpu>;
template <class T>
using Rows = nb::ndarray<T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

template <class T>
const T* pointer(const std::optional<In<T>>& array) {
  return array ? array->data() : nullptr;
}

template <class T>
Dense<T> design_of(const Columns<T>& x) {
  return {x.data(), x.shape(0), x.shape(1)};
}
template <class T>
Csc<T> design_of(const In<T>& data, const In<std::int32_t>& indices, const In<std::int64_t>& starts,
                 std::size_t rows) {
  return {data.data(), indices.data(), starts.data(), rows, starts.shape(0) - 1};
}

// Arrays come from Python; one that is too short must not be read past its end.
template <class Array>
void require(const Array& array, std::size_t size, const char* name) {
  if (array.size() != size)
    throw std::invalid_argument(std::string(name) + " has " + std::to_string(array.size()) +
                                " entries, needs " + std::to_string(size));
}
template <class Array>
void require(const std::optional<Array>& array, std::size_t size, const char* name) {
  if (array) require(*array, size, name);
}

// (kind, alpha, shape, positive) as Python sends it.
using PenaltyCode = std::tuple<int, double, double, bool>;

template <class T>
Penalty<T> penalty_of(const PenaltyCode& code, const T* weights) {
  const auto& [kind, alpha, shape, positive] = code;
  return {static_cast<PenaltyKind>(kind), T(alpha), T(shape), weights, positive};
}

// (tolerance, iterations, epochs, gap, verify, start size, threads) as Python sends them.
using OptionCode = std::tuple<double, int, int, bool, bool, int, int>;

Options options_of(const OptionCode& code) {
  const auto& [tolerance, iterations, epochs, gap, verify, start, threads] = code;
  return {tolerance, iterations, epochs, gap, verify, start, threads};
}

template <class Model>
std::tuple<double, int, long, bool> run(Model& model, const OptionCode& code) {
  nb::gil_scoped_release released;
  const Report report = Descent<Model>(model, options_of(code)).run();
  return {report.criterion, report.iterations, report.epochs, report.converged};
}

template <class T, class Design, class Target, class Coefficients>
void require_columns(const Design& design, const Target& target, const std::optional<Target>& known,
                     std::size_t targets, const std::optional<In<T>>& weights,
                     const std::optional<In<T>>& means, const Coefficients& coefficients,
                     std::size_t outputs = 1) {
  require(target, targets, "target");
  require(known, targets, "residual");
  if (known && !weights) throw std::invalid_argument("a known residual needs weights");
  require(weights, design.rows, "weights of the samples");
  require(means, design.columns, "means");
  require(coefficients, outputs * design.columns, "coefficients");
}

template <class T, class Design>
auto coordinates(const Design& design, const In<T>& target, const std::optional<In<T>>& weights,
                 const std::optional<In<T>>& means, const std::optional<In<T>>& known, const In<T>& curvature, PenaltyCode penalty,
                 const std::optional<In<T>>& factors, Out<T>& coefficients,
                 Trail<T>* trail, OptionCode options) {
  require_columns(design, target, known, design.rows, weights, means, coefficients);
  require(curvature, design.columns, "curvature");
  require(factors, design.columns, "weights of the penalty");
  CoordinateModel<Design> model(
      design, Residual<Design>(design, target.data(), pointer(weights), pointer(means), pointer(known)),
      curvature.data(), penalty_of(penalty, pointer(factors)), coefficients.data(), trail);
  return run(model, options);
}

template <class T, class Design>
auto groups(const Design& design, const In<T>& target, const std::optional<In<T>>& weights,
            const std::optional<In<T>>& means, const std::optional<In<T>>& known,
            const In<T>& curvature, const In<std::int64_t>& starts, const In<std::int64_t>& members, PenaltyCode penalty,
            double l1, const std::optional<In<T>>& factors, Out<T>& coefficients,
            OptionCode options) {
  using Geometry = GroupGeometry<Design>;
  require_columns(design, target, known, design.rows, weights, means, coefficients);
  require(members, design.columns, "members of the groups");
  require(curvature, starts.size() - 1, "curvature");
  require(factors, starts.size() - 1, "weights of the penalty");
  Residual<Design> residual(design, target.data(), pointer(weights), pointer(means), pointer(known));
  BlockModel<Geometry> model(
      Geometry(std::move(residual), starts.data(), members.data(), starts.shape(0) - 1),
      curvature.data(), penalty_of(penalty, pointer(factors)), T(l1), coefficients.data());
  return run(model, options);
}

template <class T, class Design>
auto tasks(const Design& design, const Rows<const T>& targets, const std::optional<In<T>>& weights,
           const std::optional<In<T>>& means, const std::optional<Rows<const T>>& known,
           const In<T>& curvature, PenaltyCode penalty,
           const std::optional<In<T>>& factors, Rows<T>& coefficients, OptionCode options) {
  using Geometry = TaskGeometry<Design>;
  const std::size_t tasks = targets.shape(0);
  require_columns(design, targets, known, tasks * design.rows, weights, means, coefficients, tasks);
  require(curvature, design.columns, "curvature");
  require(factors, design.columns, "weights of the penalty");
  std::vector<Residual<Design>> residuals;
  for (std::size_t k = 0; k < targets.shape(0); ++k)
    residuals.emplace_back(design, targets.data() + k * design.rows, pointer(weights),
                           pointer(means), known ? known->data() + k * design.rows : nullptr);
  BlockModel<Geometry> model(Geometry(std::move(residuals), design.columns), curvature.data(),
                             penalty_of(penalty, pointer(factors)), T(0), coefficients.data());
  return run(model, options);
}

// Mean and centred second moment of every column under sample weights that sum to `total`.
template <class T, class Design>
void moments(const Design& design, const std::optional<In<T>>& weights, bool centre,
             Out<T>& means, Out<T>& curvature, int threads) {
  require(weights, design.rows, "weights of the samples");
  require(means, design.columns, "means");
  require(curvature, design.columns, "curvature");
  nb::gil_scoped_release released;
  const T* h = pointer(weights);
  std::vector<T> ones(h ? 0 : design.rows, T(1) / T(design.rows));
  const T* weight = h ? h : ones.data();
  const T total = std::accumulate(weight, weight + design.rows, T(0));
  parallel_for(design.columns, 2 * design.work(), threads, [&](std::size_t begin, std::size_t end) {
    for (std::size_t j = begin; j < end; ++j) {
      const T second = h ? design.square(j, h) : design.square(j) / T(design.rows);
      const T mean = centre && total > 0 ? design.dot(j, weight) / total : T(0);
      const T spread = second - total * mean * mean;
      means.data()[j] = mean;
      // What rounding leaves of a constant column is not variation.
      curvature.data()[j] = spread > 8 * std::numeric_limits<T>::epsilon() * second ? spread : T(0);
    }
  });
}

template <class T>
void bind(nb::module_& module) {
  const auto taken = nb::arg().noconvert();
  const auto maybe = nb::arg().noconvert().none();
  using Maybe = const std::optional<In<T>>&;
  nb::class_<Trail<T>>(module, sizeof(T) == 8 ? "Trail64" : "Trail32",
                       "Keeps what one fit of a path hands on to the next.")
      .def(nb::init<>());

  module.def(
      "coordinates",
      [](const Columns<T>& x, const In<T>& y, Maybe h, Maybe means, Maybe known,
         const In<T>& curvature, PenaltyCode penalty, Maybe factors, Out<T> w, Trail<T>* trail,
         OptionCode options) {
        return coordinates<T>(design_of<T>(x), y, h, means, known, curvature, penalty, factors, w,
                              trail, options);
      },
      taken, taken, maybe, maybe, maybe, taken, nb::arg(), maybe, taken, nb::arg().none(), nb::arg());
  module.def(
      "coordinates",
      [](const In<T>& data, const In<std::int32_t>& indices, const In<std::int64_t>& starts,
         const In<T>& y, Maybe h, Maybe means, Maybe known, const In<T>& curvature,
         PenaltyCode penalty, Maybe factors, Out<T> w, Trail<T>* trail, OptionCode options) {
        return coordinates<T>(design_of<T>(data, indices, starts, y.shape(0)), y, h, means,
                              known, curvature, penalty, factors, w, trail, options);
      },
      taken, taken, taken, taken, maybe, maybe, maybe, taken, nb::arg(), maybe, taken,
      nb::arg().none(), nb::arg());
  module.def(
      "groups",
      [](const Columns<T>& x, const In<T>& y, Maybe h, Maybe means, Maybe known,
         const In<T>& curvature, const In<std::int64_t>& group_starts,
         const In<std::int64_t>& members, PenaltyCode penalty, double l1, Maybe factors, Out<T> w, OptionCode options) {
        return groups<T>(design_of<T>(x), y, h, means, known, curvature, group_starts, members,
                         penalty, l1, factors, w, options);
      },
      taken, taken, maybe, maybe, maybe, taken, taken, taken, nb::arg(), nb::arg(), maybe, taken,
      nb::arg());
  module.def(
      "groups",
      [](const In<T>& data, const In<std::int32_t>& indices, const In<std::int64_t>& starts,
         const In<T>& y, Maybe h, Maybe means, Maybe known, const In<T>& curvature,
         const In<std::int64_t>& group_starts, const In<std::int64_t>& members,
         PenaltyCode penalty, double l1, Maybe factors, Out<T> w, OptionCode options) {
        return groups<T>(design_of<T>(data, indices, starts, y.shape(0)), y, h, means, known,
                         curvature, group_starts, members, penalty, l1, factors, w, options);
      },
      taken, taken, taken, taken, maybe, maybe, maybe, taken, taken, taken, nb::arg(), nb::arg(), maybe,
      taken, nb::arg());
  module.def(
      "tasks",
      [](const Columns<T>& x, const Rows<const T>& y, Maybe h, Maybe means,
         const std::optional<Rows<const T>>& known, const In<T>& curvature, PenaltyCode penalty,
         Maybe factors, Rows<T> w, OptionCode options) {
        return tasks<T>(design_of<T>(x), y, h, means, known, curvature, penalty, factors, w,
                        options);
      },
      taken, taken, maybe, maybe, maybe, taken, nb::arg(), maybe, taken, nb::arg());
  module.def(
      "tasks",
      [](const In<T>& data, const In<std::int32_t>& indices, const In<std::int64_t>& starts,
         const Rows<const T>& y, Maybe h, Maybe means,
         const std::optional<Rows<const T>>& known, const In<T>& curvature,
         PenaltyCode penalty, Maybe factors, Rows<T> w, OptionCode options) {
        return tasks<T>(design_of<T>(data, indices, starts, y.shape(1)), y, h, means, known,
                        curvature, penalty, factors, w, options);
      },
      taken, taken, taken, taken, maybe, maybe, maybe, taken, nb::arg(), maybe, taken, nb::arg());
  module.def(
      "moments",
      [](const Columns<T>& x, Maybe h, bool centre, Out<T> means, Out<T> curvature, int threads) {
        moments<T>(design_of<T>(x), h, centre, means, curvature, threads);
      },
      taken, maybe, nb::arg(), taken, taken, nb::arg());
  module.def(
      "moments",
      [](const In<T>& data, const In<std::int32_t>& indices, const In<std::int64_t>& starts,
         std::size_t rows, Maybe h, bool centre, Out<T> means, Out<T> curvature, int threads) {
        moments<T>(design_of<T>(data, indices, starts, rows), h, centre, means, curvature,
                   threads);
      },
      taken, taken, taken, nb::arg(), maybe, nb::arg(), taken, taken, nb::arg());
  module.def(
      "prox",
      [](const In<T>& x, const In<T>& steps, PenaltyCode penalty, Maybe factors, Out<T> out) {
        require(steps, x.size(), "steps");
        require(factors, x.size(), "weights of the penalty");
        require(out, x.size(), "result");
        const Penalty<T> p = penalty_of(penalty, pointer(factors));
        for (std::size_t j = 0; j < x.shape(0); ++j)
          out.data()[j] = p.prox(x.data()[j], steps.data()[j], j);
      },
      taken, taken, nb::arg(), maybe, taken,
      "Prox of a separable penalty, with its own step for every entry.");
  using Grams = nb::ndarray<const T, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
  module.def(
      "gram_descents",
      [](const Grams& grams, const Rows<const T>& linears, const In<T>& l1, const In<T>& ridge,
         const In<T>& tolerances, int passes, const Rows<T>& coefs, int threads) {
        nb::gil_scoped_release released;
        gram_descents<T>(grams.data(), linears.data(), grams.shape(0), grams.shape(1), l1.data(),
                         ridge.data(), tolerances.data(), passes, coefs.data(), threads);
      },
      taken, taken, taken, taken, taken, nb::arg(), taken, nb::arg(),
      "Coordinate descent on many quadratics, each given by its Gram matrix.");
}

void bind_descents(nb::module_& module) {
  bind<double>(module);
  bind<float>(module);
}

}  // namespace thresher
