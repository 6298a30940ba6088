// Python entry points of the descents. Arrays are taken as they are: a wrong type is an error,
// never a silent copy. The interpreter is released while a descent runs.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>

#include <limits>
#include <numeric>
#include <optional>
#include <tuple>

#include "block_model.hpp"
#include "coordinate_model.hpp"
#include "given.hpp"
#include "gram_descent.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace thresher {

// A weighted least squares problem: means are null where columns are not centred, weights where
// all samples weigh the same, the residual where it is not known at the start. Of several tasks
// the target and the residual have one row each.
template <class T>
struct GivenQuadratic {
  Given<const T> target;
  std::optional<In<T>> weights, means;
  In<T> curvature;
  std::optional<Given<const T>> residual;

  std::size_t tasks() const { return target.ndim() == 2 ? target.shape(0) : 1; }

  template <class Design>
  void require_fit(const Design& design, std::size_t blocks, std::size_t coefficients) const {
    require(target, tasks() * design.rows, "target");
    require(residual, target.size(), "residual");
    if (residual && !weights) throw std::invalid_argument("a known residual needs weights");
    require(weights, design.rows, "weights of the samples");
    require(means, design.columns, "means");
    require(curvature, blocks, "curvature");
    if (coefficients != tasks() * design.columns)
      throw std::invalid_argument("coefficients are not those of the design and the target");
  }

  template <class Design>
  Residual<Design> residual_of(const Design& design, std::size_t task = 0) const {
    const std::size_t first = task * design.rows;
    return {design, target.data() + first, pointer(weights), pointer(means),
            residual ? residual->data() + first : nullptr};
  }
};

// A penalty of coefficients, or of the norms of blocks; factors of its strength and bounds of the
// coefficients are null where there are none.
template <class T>
struct GivenPenalty {
  int kind;
  double alpha, shape;
  bool positive;
  std::optional<In<T>> factors, lower, upper;

  Penalty<T> of(std::size_t blocks) const {
    require(factors, blocks, "weights of the penalty");
    require(lower, blocks, "lower bounds");
    require(upper, blocks, "upper bounds");
    return {static_cast<PenaltyKind>(kind),
            T(alpha),
            T(shape),
            pointer(factors),
            pointer(lower),
            pointer(upper),
            positive};
  }
};

// Which columns belong to each group, and the strength of the L1 norm beside that of the groups.
struct GivenGroups {
  In<std::int64_t> starts, members;
  double l1;

  std::size_t count() const { return starts.size() - 1; }
};

using Told = std::tuple<double, int, long, bool>;

template <BlockModelLike Model>
Told run(Model& model, const Options& options) {
  nb::gil_scoped_release released;
  const Report report = Descent<Model>(model, options).run();
  return {report.criterion, report.iterations, report.epochs, report.converged};
}

template <class T, class Design>
Told coordinates(const Design& design, const GivenQuadratic<T>& quadratic,
                 const GivenPenalty<T>& penalty, const Out<T>& coefficients, Trail<T>* trail,
                 const Options& options) {
  quadratic.require_fit(design, design.columns, coefficients.size());
  CoordinateModel<Design> model(design, quadratic.residual_of(design), quadratic.curvature.data(),
                                penalty.of(design.columns), coefficients.data(), trail);
  return run(model, options);
}

template <class T, class Design>
Told groups(const Design& design, const GivenQuadratic<T>& quadratic,
            const GivenPenalty<T>& penalty, const GivenGroups& groups, const Out<T>& coefficients,
            const Options& options) {
  using Geometry = GroupGeometry<Design>;
  quadratic.require_fit(design, groups.count(), coefficients.size());
  require(groups.members, design.columns, "members of the groups");
  BlockModel<Geometry> model(Geometry(quadratic.residual_of(design), groups.starts.data(),
                                      groups.members.data(), groups.count()),
                             quadratic.curvature.data(), penalty.of(groups.count()), T(groups.l1),
                             coefficients.data());
  return run(model, options);
}

template <class T, class Design>
Told tasks(const Design& design, const GivenQuadratic<T>& quadratic, const GivenPenalty<T>& penalty,
           const Rows<T>& coefficients, const Options& options) {
  using Geometry = TaskGeometry<Design>;
  quadratic.require_fit(design, design.columns, coefficients.size());
  std::vector<Residual<Design>> residuals;
  for (std::size_t k = 0; k < quadratic.tasks(); ++k)
    residuals.push_back(quadratic.residual_of(design, k));
  BlockModel<Geometry> model(Geometry(std::move(residuals), design.columns),
                             quadratic.curvature.data(), penalty.of(design.columns), T(0),
                             coefficients.data());
  return run(model, options);
}

// Mean and centred second moment of every column under sample weights that sum to `total`.
template <class T, class Design>
void moments(const Design& design, const std::optional<In<T>>& weights, bool centre,
             const Out<T>& means, const Out<T>& curvature, int threads) {
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

// What takes a design, dense or CSC.
template <class T, class Arrays>
void bind_of_design(nb::module_& module) {
  const auto taken = nb::arg().noconvert();
  const auto maybe = nb::arg().noconvert().none();
  module.def(
      "coordinates",
      [](const Arrays& x, const GivenQuadratic<T>& quadratic, const GivenPenalty<T>& penalty,
         Out<T> w, Trail<T>* trail, const Options& options) {
        return coordinates<T>(x.design(), quadratic, penalty, w, trail, options);
      },
      nb::arg(), nb::arg(), nb::arg(), taken, nb::arg().none(), nb::arg());
  module.def(
      "groups",
      [](const Arrays& x, const GivenQuadratic<T>& quadratic, const GivenPenalty<T>& penalty,
         const GivenGroups& given, Out<T> w, const Options& options) {
        return groups<T>(x.design(), quadratic, penalty, given, w, options);
      },
      nb::arg(), nb::arg(), nb::arg(), nb::arg(), taken, nb::arg());
  module.def(
      "tasks",
      [](const Arrays& x, const GivenQuadratic<T>& quadratic, const GivenPenalty<T>& penalty,
         Rows<T> w,
         const Options& options) { return tasks<T>(x.design(), quadratic, penalty, w, options); },
      nb::arg(), nb::arg(), nb::arg(), taken, nb::arg());
  module.def(
      "moments",
      [](const Arrays& x, const std::optional<In<T>>& h, bool centre, Out<T> means,
         Out<T> curvature,
         int threads) { moments<T>(x.design(), h, centre, means, curvature, threads); },
      nb::arg(), maybe, nb::arg(), taken, taken, nb::arg());
}

template <class T>
void bind(nb::module_& module) {
  const auto taken = nb::arg().noconvert();
  const auto maybe = nb::arg().noconvert().none() = nb::none();
  const auto name = [](const char* single, const char* twice) {
    return sizeof(T) == 8 ? twice : single;
  };
  nb::class_<Trail<T>>(module, name("Trail32", "Trail64"),
                       "Keeps what one fit of a path hands on to the next.")
      .def(nb::init<>());
  nb::class_<GivenDense<T>>(module, name("Dense32", "Dense64")).def(nb::init<Columns<T>>(), taken);
  nb::class_<GivenCsc<T>>(module, name("Csc32", "Csc64"))
      .def(nb::init<In<T>, In<std::int32_t>, In<std::int64_t>, std::size_t>(), taken, taken, taken,
           nb::arg());
  nb::class_<GivenQuadratic<T>>(module, name("Quadratic32", "Quadratic64"))
      .def(nb::init<Given<const T>, std::optional<In<T>>, std::optional<In<T>>, In<T>,
                    std::optional<Given<const T>>>(),
           "target"_a.noconvert(), "weights"_a.noconvert().none(), "means"_a.noconvert().none(),
           "curvature"_a.noconvert(), "residual"_a.noconvert().none());
  nb::class_<GivenPenalty<T>>(module, name("Penalty32", "Penalty64"))
      .def(nb::init<int, double, double, bool, std::optional<In<T>>, std::optional<In<T>>,
                    std::optional<In<T>>>(),
           "kind"_a, "alpha"_a, "shape"_a, "positive"_a, "factors"_a.noconvert().none(),
           "lower"_a.noconvert().none(), "upper"_a.noconvert().none());
  bind_of_design<T, GivenDense<T>>(module);
  bind_of_design<T, GivenCsc<T>>(module);
  module.def(
      "prox",
      [](const In<T>& x, const In<T>& steps, const GivenPenalty<T>& penalty, Out<T> out) {
        require(steps, x.size(), "steps");
        require(out, x.size(), "result");
        const Penalty<T> p = penalty.of(x.size());
        for (std::size_t j = 0; j < x.shape(0); ++j)
          out.data()[j] = p.prox(x.data()[j], steps.data()[j], j);
      },
      taken, taken, nb::arg(), taken,
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
  nb::class_<Options>(module, "Options")
      .def(nb::init<double, int, int, bool, bool, int, int>(), "tolerance"_a, "max_iterations"_a,
           "max_epochs"_a, "gap"_a, "verify"_a, "start_size"_a, "threads"_a);
  nb::class_<GivenGroups>(module, "Groups")
      .def(nb::init<In<std::int64_t>, In<std::int64_t>, double>(), "starts"_a.noconvert(),
           "members"_a.noconvert(), "l1"_a);
  bind<double>(module);
  bind<float>(module);
}

}  // namespace thresher
