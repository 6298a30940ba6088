// Matrices of dense 16 x 32 blocks.
#include "bind.hpp"

namespace thresher {
namespace {

class Blocks {
 public:
  Blocks(Longs row_starts, Shorts places, Values values, std::int64_t rows, std::int64_t columns)
      : row_starts_(std::move(row_starts)),
        places_(std::move(places)),
        values_(std::move(values)),
        bf16_(is_bf16(values_)) {
    check_matrix(rows, columns);
    view_ = {values_.data(), places_.data(), row_starts_.data(), rows, columns};
    const std::int64_t block_rows = (rows + BlockView::block_rows - 1) / BlockView::block_rows;
    const std::int64_t block_columns =
        (columns + BlockView::block_columns - 1) / BlockView::block_columns;
    const auto count = static_cast<std::int64_t>(places_.size());
    check_size(values_.size(), count * BlockView::block_rows * BlockView::block_columns, "values");
    check_size(row_starts_.size(), block_rows + 1, "row_starts");
    check_starts(row_starts_.data(), block_rows, count, "row_starts");
    check_increasing(row_starts_.data(), block_rows, places_.data(), block_columns, "places");
  }

  void multiply(std::uintptr_t x, std::int64_t batch, std::uintptr_t y, std::uintptr_t bias,
                int threads) const {
    const auto run = bf16_ ? kernels().blocks_bf16 : kernels().blocks_float;
    run(view_, product(x, batch, y, bias, threads));
  }

 private:
  Longs row_starts_;
  Shorts places_;
  Values values_;
  bool bf16_;
  BlockView view_{};
};

}  // namespace

void bind_blocks(nb::module_& module) {
  using namespace nb::literals;
  nb::class_<Blocks>(module, "Blocks")
      .def(nb::init<Longs, Shorts, Values, std::int64_t, std::int64_t>(), "row_starts"_a,
           "places"_a, "values"_a, "rows"_a, "columns"_a)
      .def("multiply", &Blocks::multiply, nb::call_guard<nb::gil_scoped_release>());
}

}  // namespace thresher
