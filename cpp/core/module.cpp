#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <optional>

#include "obs_sweep.hpp"

namespace nb = nanobind;

// The last dimension is contiguous, the first may be strided: blocks of columns are views.
using Matrix = nb::ndarray<float, nb::ndim<2>, nb::device::cpu>;
using ConstMatrix = nb::ndarray<const float, nb::ndim<2>, nb::device::cpu>;
using Mask = nb::ndarray<const bool, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Vector = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

NB_MODULE(_core, module) {
  module.doc() = "Compiled loops of thresher.core";
  module.def(
      "obs_sweep",
      [](Matrix weight, Mask mask, ConstMatrix factor, Matrix errors, std::optional<Vector> scale,
         std::optional<Vector> minimum, int most) {
        const std::size_t rows = weight.shape(0), columns = weight.shape(1);
        if (mask.shape(0) != rows || mask.shape(1) != columns || errors.shape(0) != rows ||
            errors.shape(1) != columns || factor.shape(0) != columns || factor.shape(1) != columns)
          throw nb::value_error("obs_sweep: shapes do not match");
        if (weight.stride(1) != 1 || factor.stride(1) != 1 || errors.stride(1) != 1 ||
            errors.stride(0) != static_cast<std::int64_t>(columns))
          throw nb::value_error("obs_sweep: rows must be contiguous");
        if (scale.has_value() != minimum.has_value() ||
            (scale && (scale->shape(0) != rows || minimum->shape(0) != rows)))
          throw nb::value_error("obs_sweep: levels do not match");
        const thresher::Levels levels{scale ? scale->data() : nullptr,
                                      minimum ? minimum->data() : nullptr,
                                      static_cast<float>(most)};
        nb::gil_scoped_release release;
        thresher::obs_sweep(weight.data(), weight.stride(0), mask.data(), factor.data(),
                            factor.stride(0), errors.data(), rows, columns, levels);
      },
      nb::arg("weight"), nb::arg("mask"), nb::arg("factor"), nb::arg("errors"),
      nb::arg("scale") = nb::none(), nb::arg("minimum") = nb::none(), nb::arg("most") = 0,
      "Sweep a block of columns in place; see obs_sweep.hpp.");
}
