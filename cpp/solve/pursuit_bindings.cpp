// Python entry points of matching pursuit and least angle regression on one target.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <optional>

#include "angle_regression.hpp"
#include "given.hpp"
#include "orthogonal_pursuit.hpp"

namespace nb = nanobind;

namespace thresher {

// How columns are centred and weighted: the roots of the weights of the samples, and the means.
struct GivenCentring {
  std::optional<In<double>> roots, means;

  template <class Design>
  Centred<Design> of(const Design& design) const {
    require(roots, design.rows, "roots of the weights");
    require(means, design.columns, "means");
    return {design, pointer(roots), pointer(means)};
  }
};

// A copy that Python owns.
template <class T>
auto owned(const std::vector<T>& values) {
  auto* kept = new std::vector<T>(values);
  nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  return nb::ndarray<nb::numpy, T, nb::ndim<1>>(kept->data(), {kept->size()}, owner);
}

template <class Arrays>
void bind_of_design(nb::module_& module) {
  const auto taken = nb::arg().noconvert();
  module.def(
      "orthogonal_pursuit",
      [](const Arrays& x, const GivenCentring& centring, const Out<double>& residual,
         double tolerance, const Out<std::int64_t>& chosen, const Out<double>& coefficients,
         int threads) {
        require(residual, x.design().rows, "residual");
        require(coefficients, chosen.size(), "coefficients");
        nb::gil_scoped_release released;
        return orthogonal_pursuit(centring.of(x.design()), residual.data(), chosen.shape(0),
                                  tolerance, chosen.data(), coefficients.data(), threads);
      },
      nb::arg(), nb::arg(), taken, nb::arg(), taken, taken, nb::arg());
  module.def(
      "angle_regression",
      [](const Arrays& x, const GivenCentring& centring, const In<double>& target, bool lasso,
         double lowest, std::size_t limit, long steps, int threads) {
        require(target, x.design().rows, "target");
        Knots knots;
        {
          nb::gil_scoped_release released;
          const auto columns = centring.of(x.design());
          knots = AngleRegression(columns, target.data(), lasso, threads).run(lowest, limit, steps);
        }
        return nb::make_tuple(owned(knots.levels), owned(knots.violations), owned(knots.starts),
                              owned(knots.columns), owned(knots.coefficients), knots.finished);
      },
      nb::arg(), nb::arg(), taken, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg());
}

void bind_pursuits(nb::module_& module) {
  const auto maybe = [](const char* name) { return nb::arg(name).noconvert().none(); };
  nb::class_<GivenCentring>(module, "Centring")
      .def(nb::init<std::optional<In<double>>, std::optional<In<double>>>(), maybe("roots"),
           maybe("means"));
  bind_of_design<GivenDense<double>>(module);
  bind_of_design<GivenCsc<double>>(module);
}

}  // namespace thresher
