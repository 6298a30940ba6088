// Convolutions, and matrices whose groups of rows share the positions of their survivors.
#include <nanobind/stl/array.h>

#include <array>
#include <limits>
#include <vector>

#include "bind_convolution.hpp"

namespace thresher {
namespace {

using Pair = std::array<std::int64_t, 2>;
using Four = std::array<std::int64_t, 4>;

// Largest number of floats that a copied part of the input may take: offsets are 32-bit.
constexpr double most_floats = std::numeric_limits<std::int32_t>::max();

Convolution convolution(const Four& input, const Pair& output, const Pair& kernel,
                        const Pair& stride, const Pair& before, const Pair& dilation,
                        std::int64_t groups) {
  for (const std::int64_t size : input) check(size >= 0, "x", "has a negative size");
  for (int axis = 0; axis < 2; ++axis) {
    check(output[axis] >= 0, "output", "has a negative size");
    check(kernel[axis] > 0 && stride[axis] > 0 && before[axis] >= 0 && dilation[axis] > 0,
          "convolution", "needs a positive kernel, stride and dilation, and no negative padding");
  }
  check(groups > 0 && input[1] % groups == 0, "convolution",
        "cannot share " + std::to_string(input[1]) + " channels out to " + std::to_string(groups) +
            " groups");
  double floats = static_cast<double>(input[1]);
  for (int axis = 0; axis < 2; ++axis) {
    floats *= static_cast<double>(kernel[axis]) *
              (static_cast<double>(output[axis]) +
               static_cast<double>(kernel[axis]) * static_cast<double>(dilation[axis]) + 16.0);
  }
  check(floats < most_floats, "x", "is too large for one convolution");
  return {input[0],  input[1],  input[2],    input[3],    output[0],
          output[1], kernel[0], kernel[1],   stride[0],   stride[1],
          before[0], before[1], dilation[0], dilation[1], groups};
}

// Rows are numbered in 16 bits.
constexpr std::int64_t most_group = std::int64_t{1} << 16;

class RowGroups {
 public:
  RowGroups(Longs group_starts, Shorts indices, Values values, Shorts order, std::int64_t rows,
            std::int64_t columns, std::int64_t group)
      : group_starts_(std::move(group_starts)),
        indices_(std::move(indices)),
        values_(std::move(values)),
        order_(std::move(order)),
        bf16_(is_bf16(values_)) {
    check_matrix(rows, columns);
    check(group > 0 && group <= most_group, "values",
          "cannot hold groups of " + std::to_string(group) + " rows");
    const std::int64_t groups = (rows + group - 1) / group;
    const auto positions = static_cast<std::int64_t>(indices_.size());
    check_size(group_starts_.size(), groups + 1, "group_starts");
    check_starts(group_starts_.data(), groups, positions, "group_starts");
    check_increasing(group_starts_.data(), groups, indices_.data(), columns, "indices");
    check_size(values_.size(), positions * group, "values");
    check_order(rows);
    view_ = {indices_.data(), values_.data(), group_starts_.data(), order_.data(), group, rows,
             columns};
  }

  void multiply(std::uintptr_t x, std::int64_t batch, std::uintptr_t y, std::uintptr_t bias,
                int threads) const {
    const auto run = bf16_ ? kernels().grouped_bf16 : kernels().grouped_float;
    run(view_, product(x, batch, y, bias, threads));
  }

  void convolve(const Convolution& shape, std::uintptr_t x, std::uintptr_t y, std::uintptr_t bias,
                float low, float high, int threads) const {
    check(shape.groups == 1, "order",
          "may move rows, which a convolution with groups does not allow");
    run_convolution(view_, bf16_, shape, x, y, bias, low, high, threads);
  }

 private:
  void check_order(std::int64_t rows) const {
    check_size(order_.size(), rows, "order");
    std::vector<bool> seen(static_cast<std::size_t>(rows));
    for (std::int64_t row = 0; row < rows; ++row) {
      const std::uint16_t at = order_.data()[row];
      if (at >= rows || seen[at]) fail("order", "does not name every row once");
      seen[at] = true;
    }
  }

  Longs group_starts_;
  Shorts indices_;
  Values values_;
  Shorts order_;
  bool bf16_;
  GroupedView view_{};
};

}  // namespace

bool is_empty(const Convolution& shape) {
  return shape.images == 0 || shape.out_height == 0 || shape.out_width == 0;
}

void check_convolution(const GroupedView& view, const Convolution& shape) {
  const std::int64_t inputs =
      shape.kernel_height * shape.kernel_width * (shape.channels / shape.groups);
  check(view.columns == inputs, "x",
        "makes " + std::to_string(inputs) + " columns, and the matrix has " +
            std::to_string(view.columns));
  check(view.rows % shape.groups == 0, "x",
        "has " + std::to_string(shape.groups) + " groups, which do not divide " +
            std::to_string(view.rows) + " rows");
}

void run_convolution(const GroupedView& view, bool bf16, const Convolution& shape, std::uintptr_t x,
                     std::uintptr_t y, std::uintptr_t bias, float low, float high, int threads) {
  check_convolution(view, shape);
  if (is_empty(shape)) return;
  const auto run = bf16 ? kernels().convolve_bf16 : kernels().convolve_float;
  run(view, shape,
      {reinterpret_cast<const void*>(x), reinterpret_cast<void*>(y),
       reinterpret_cast<const float*>(bias), low, high, threads});
}

void bind_convolution(nb::module_& module) {
  using namespace nb::literals;
  const auto unlocked = nb::call_guard<nb::gil_scoped_release>();
  nb::class_<Convolution>(module, "Convolution")
      .def(nb::new_(&convolution), "input"_a, "output"_a, "kernel"_a, "stride"_a, "before"_a,
           "dilation"_a, "groups"_a);
  nb::class_<RowGroups>(module, "RowGroups")
      .def(nb::init<Longs, Shorts, Values, Shorts, std::int64_t, std::int64_t, std::int64_t>(),
           "group_starts"_a, "indices"_a, "values"_a, "order"_a, "rows"_a, "columns"_a, "group"_a)
      .def("multiply", &RowGroups::multiply, unlocked)
      .def("convolve", &RowGroups::convolve, unlocked);
}

}  // namespace thresher
