#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "total_variation.hpp"

namespace nb = nanobind;

namespace thresher {

using Signal = nb::ndarray<const double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Result = nb::ndarray<double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void bind_signals(nb::module_& module) {
  module.def("total_variation", [](Signal x, double threshold, Result out) {
    total_variation(x.data(), threshold, out.data(), x.shape(0));
  });
}

}  // namespace thresher
