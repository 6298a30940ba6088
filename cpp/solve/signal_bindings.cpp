#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "batch_pursuit.hpp"
#include "total_variation.hpp"

namespace nb = nanobind;

namespace thresher {

using Signal = nb::ndarray<const double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Result = nb::ndarray<double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

template <class T>
void bind_pursuit(nb::module_& module) {
  using In = nb::ndarray<const T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
  using Squares = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
  using Atoms = nb::ndarray<std::int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
  using Out = nb::ndarray<T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
  const auto taken = nb::arg().noconvert();
  module.def(
      "batch_pursuit",
      [](In gram, In correlations, Squares squares, Squares tolerances, Atoms chosen,
         Out coefficients, int threads) {
        nb::gil_scoped_release released;
        batch_pursuit<T>(gram.data(), correlations.data(), squares.data(), tolerances.data(),
                         squares.shape(0), gram.shape(0), chosen.shape(1), chosen.data(),
                         coefficients.data(), threads);
      },
      taken, taken, taken, taken, taken, taken, nb::arg());
}

void bind_signals(nb::module_& module) {
  bind_pursuit<double>(module);
  bind_pursuit<float>(module);
  module.def("total_variation", [](Signal x, double threshold, Result out) {
    total_variation(x.data(), threshold, out.data(), x.shape(0));
  });
}

}  // namespace thresher
