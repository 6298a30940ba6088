// CSR and constant fan-in matrices.
#include "bind_convolution.hpp"

namespace thresher {
namespace {

class IndexedMatrix {
 public:
  void multiply(std::uintptr_t x, std::int64_t batch, std::uintptr_t y, std::uintptr_t bias,
                int threads) const {
    const auto run = bf16_ ? kernels().indexed_bf16 : kernels().indexed_float;
    run(view_, product(x, batch, y, bias, threads));
  }

 protected:
  IndexedMatrix(Shorts indices, Values values, std::int64_t rows, std::int64_t columns)
      : indices_(std::move(indices)), values_(std::move(values)), bf16_(is_bf16(values_)) {
    check_matrix(rows, columns);
    view_.indices = indices_.data();
    view_.values = values_.data();
    view_.rows = rows;
    view_.columns = columns;
    check_size(indices_.size(), static_cast<std::int64_t>(values_.size()), "indices");
  }

  Shorts indices_;
  Values values_;
  bool bf16_;
  IndexedView view_{};
};

class Csr : public IndexedMatrix {
 public:
  Csr(Longs row_starts, Shorts indices, Values values, std::int64_t rows, std::int64_t columns)
      : IndexedMatrix(std::move(indices), std::move(values), rows, columns),
        row_starts_(std::move(row_starts)) {
    check_size(row_starts_.size(), rows + 1, "row_starts");
    check_starts(row_starts_.data(), rows, static_cast<std::int64_t>(values_.size()), "row_starts");
    check_increasing(row_starts_.data(), rows, view_.indices, columns, "indices");
    view_.row_starts = row_starts_.data();
  }

  void value_gradient(std::uintptr_t x, std::uintptr_t grad, std::int64_t batch,
                      std::uintptr_t gradient, int threads) const {
    check(!bf16_, "values", "must be float32 to be trained");
    kernels().value_gradient(view_, reinterpret_cast<const float*>(x),
                             reinterpret_cast<const float*>(grad), batch,
                             reinterpret_cast<float*>(gradient), threads);
  }

  void convolve(const Convolution& shape, std::uintptr_t x, std::uintptr_t y, std::uintptr_t bias,
                float low, float high, int threads) const {
    run_convolution(single_rows(), bf16_, shape, x, y, bias, low, high, threads);
  }

  void convolution_gradient(const Convolution& shape, std::uintptr_t x, std::uintptr_t grad,
                            std::uintptr_t gradient, int threads) const {
    check(!bf16_, "values", "must be float32 to be trained");
    check_convolution(single_rows(), shape);
    if (is_empty(shape)) return;
    kernels().convolution_gradient(single_rows(), shape, reinterpret_cast<const float*>(x),
                                   reinterpret_cast<const float*>(grad),
                                   reinterpret_cast<float*>(gradient), threads);
  }

 private:
  GroupedView single_rows() const {
    return {view_.indices, view_.values, view_.row_starts, nullptr, 1, view_.rows, view_.columns};
  }

  Longs row_starts_;
};

class FanIn : public IndexedMatrix {
 public:
  FanIn(Shorts indices, Values values, std::int64_t rows, std::int64_t columns, std::int64_t fan_in)
      : IndexedMatrix(std::move(indices), std::move(values), rows, columns) {
    check(fan_in >= 0 && fan_in <= columns, "indices",
          "cannot hold a fan-in of " + std::to_string(fan_in));
    check_size(values_.size(), rows * fan_in, "values");
    view_.fan_in = fan_in;
    // Rows of nothing are not gone through: no buffer says that there are so many.
    for (std::int64_t row = 0; fan_in > 0 && row < rows; ++row) {
      check_increasing(row * fan_in, (row + 1) * fan_in, row, view_.indices, columns, "indices");
    }
  }
};

}  // namespace

void bind_indexed(nb::module_& module) {
  using namespace nb::literals;
  const auto unlocked = nb::call_guard<nb::gil_scoped_release>();
  nb::class_<Csr>(module, "Csr")
      .def(nb::init<Longs, Shorts, Values, std::int64_t, std::int64_t>(), "row_starts"_a,
           "indices"_a, "values"_a, "rows"_a, "columns"_a)
      .def("multiply", &Csr::multiply, unlocked)
      .def("value_gradient", &Csr::value_gradient, unlocked)
      .def("convolve", &Csr::convolve, unlocked)
      .def("convolution_gradient", &Csr::convolution_gradient, unlocked);
  nb::class_<FanIn>(module, "FanIn")
      .def(nb::init<Shorts, Values, std::int64_t, std::int64_t, std::int64_t>(), "indices"_a,
           "values"_a, "rows"_a, "columns"_a, "fan_in"_a)
      .def("multiply", &FanIn::multiply, unlocked);
}

}  // namespace thresher
