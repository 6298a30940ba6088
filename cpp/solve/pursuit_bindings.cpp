// Python entry points of matching pursuit and least angle regression on one target.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <optional>

#include "angle_regression.hpp"
#include "design.hpp"
#include "orthogonal_pursuit.hpp"

namespace nb = nanobind;

namespace thresher {

template <class T>
using Vector = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using In = Vector<const double>;
using Matrix = nb::ndarray<const double, nb::ndim<2>, nb::f_contig, nb::device::cpu>;
using Indices = Vector<const std::int32_t>;
using Starts = Vector<const std::int64_t>;

template <class Design>
Centred<Design> centred(const Design& design, const std::optional<In>& roots,
                        const std::optional<In>& means) {
  return {design, roots ? roots->data() : nullptr, means ? means->data() : nullptr};
}

// A copy that Python owns.
template <class T>
auto owned(const std::vector<T>& values) {
  auto* kept = new std::vector<T>(values);
  nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  return nb::ndarray<nb::numpy, T, nb::ndim<1>>(kept->data(), {kept->size()}, owner);
}

template <class Design>
std::size_t pursue(const Design& design, const std::optional<In>& roots,
                   const std::optional<In>& means, const Vector<double>& residual,
                   double tolerance, const Vector<std::int64_t>& chosen,
                   const Vector<double>& coefficients, int threads) {
  nb::gil_scoped_release released;
  return orthogonal_pursuit(centred(design, roots, means), residual.data(), chosen.shape(0),
                            tolerance, chosen.data(), coefficients.data(), threads);
}

template <class Design>
nb::tuple follow(const Design& design, const std::optional<In>& roots,
                 const std::optional<In>& means, const In& target, bool lasso, double lowest,
                 std::size_t limit, long steps, int threads) {
  Knots knots;
  {
    nb::gil_scoped_release released;
    const auto columns = centred(design, roots, means);
    knots = AngleRegression(columns, target.data(), lasso, threads).run(lowest, limit, steps);
  }
  return nb::make_tuple(owned(knots.levels), owned(knots.violations), owned(knots.starts),
                        owned(knots.columns), owned(knots.coefficients), knots.finished);
}

void bind_pursuits(nb::module_& module) {
  const auto taken = nb::arg().noconvert();
  const auto maybe = nb::arg().noconvert().none();
  using Maybe = const std::optional<In>&;
  module.def(
      "orthogonal_pursuit",
      [](const Matrix& x, Maybe roots, Maybe means, Vector<double> residual, double tolerance,
         Vector<std::int64_t> chosen, Vector<double> coefficients, int threads) {
        return pursue(Dense<double>{x.data(), x.shape(0), x.shape(1)}, roots, means, residual,
                      tolerance, chosen, coefficients, threads);
      },
      taken, maybe, maybe, taken, nb::arg(), taken, taken, nb::arg());
  module.def(
      "orthogonal_pursuit",
      [](const In& data, const Indices& indices, const Starts& starts, Maybe roots, Maybe means,
         Vector<double> residual, double tolerance, Vector<std::int64_t> chosen,
         Vector<double> coefficients, int threads) {
        return pursue(Csc<double>{data.data(), indices.data(), starts.data(), residual.shape(0),
                                  starts.shape(0) - 1},
                      roots, means, residual, tolerance, chosen, coefficients, threads);
      },
      taken, taken, taken, maybe, maybe, taken, nb::arg(), taken, taken, nb::arg());
  module.def(
      "angle_regression",
      [](const Matrix& x, Maybe roots, Maybe means, const In& target, bool lasso, double lowest,
         std::size_t limit, long steps, int threads) {
        return follow(Dense<double>{x.data(), x.shape(0), x.shape(1)}, roots, means, target,
                      lasso, lowest, limit, steps, threads);
      },
      taken, maybe, maybe, taken, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg());
  module.def(
      "angle_regression",
      [](const In& data, const Indices& indices, const Starts& starts, Maybe roots, Maybe means,
         const In& target, bool lasso, double lowest, std::size_t limit, long steps, int threads) {
        return follow(Csc<double>{data.data(), indices.data(), starts.data(), target.shape(0),
                                  starts.shape(0) - 1},
                      roots, means, target, lasso, lowest, limit, steps, threads);
      },
      taken, taken, taken, maybe, maybe, taken, nb::arg(), nb::arg(), nb::arg(), nb::arg(),
      nb::arg());
}

}  // namespace thresher
