// Matrices of groups of 16 weights in 4 bits.
#include "bind.hpp"

namespace thresher {
namespace {

class Quantized {
 public:
  Quantized(Longs row_starts, Shorts places, Bytes codes, Values scales, Bytes zeros,
            std::int64_t rows, std::int64_t columns)
      : row_starts_(std::move(row_starts)),
        places_(std::move(places)),
        codes_(std::move(codes)),
        scales_(std::move(scales)),
        zeros_(std::move(zeros)),
        bf16_(is_bf16(scales_, "scales")) {
    check_matrix(rows, columns);
    view_ = {codes_.data(),      scales_.data(), zeros_.data(), places_.data(),
             row_starts_.data(), rows,           columns};
    const auto groups = static_cast<std::int64_t>(places_.size());
    check_size(codes_.size(), groups * QuantizedView::group / 2, "codes");
    check_size(scales_.size(), groups, "scales");
    check_size(zeros_.size(), groups, "zeros");
    check_size(row_starts_.size(), rows + 1, "row_starts");
    check_starts(row_starts_.data(), rows, groups, "row_starts");
    check_increasing(row_starts_.data(), rows, places_.data(),
                     (columns + QuantizedView::group - 1) / QuantizedView::group, "places");
    for (std::int64_t g = 0; g < groups; ++g) {
      if (view_.zeros[g] > 15) fail("zeros", "exceeds 15 at entry " + std::to_string(g));
    }
  }

  void multiply(std::uintptr_t x, std::int64_t batch, std::uintptr_t y, std::uintptr_t bias,
                int threads) const {
    const auto run = bf16_ ? kernels().quantized_bf16 : kernels().quantized_float;
    run(view_, product(x, batch, y, bias, threads));
  }

 private:
  Longs row_starts_;
  Shorts places_;
  Bytes codes_;
  Values scales_;
  Bytes zeros_;
  bool bf16_;
  QuantizedView view_{};
};

}  // namespace

void bind_quantized(nb::module_& module) {
  using namespace nb::literals;
  nb::class_<Quantized>(module, "Quantized")
      .def(nb::init<Longs, Shorts, Bytes, Values, Bytes, std::int64_t, std::int64_t>(),
           "row_starts"_a, "places"_a, "codes"_a, "scales"_a, "zeros"_a, "rows"_a, "columns"_a)
      .def("multiply", &Quantized::multiply, nb::call_guard<nb::gil_scoped_release>());
}

}  // namespace thresher
