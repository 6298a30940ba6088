// Int8 matrices of 4 x 1 blocks.
#include <vector>

#include "bind.hpp"

namespace thresher {
namespace {

using Signed = nb::ndarray<const std::int8_t, nb::c_contig, nb::device::cpu>;

class Int8Blocks {
 public:
  Int8Blocks(Longs row_starts, Shorts columns, Signed values, Values scales, std::int64_t rows,
             std::int64_t column_count)
      : row_starts_(std::move(row_starts)),
        columns_(std::move(columns)),
        values_(std::move(values)),
        scales_(std::move(scales)),
        bf16_(is_bf16(scales_, "scales")) {
    check_matrix(rows, column_count);
    constexpr std::int64_t group = Int8View::group;
    const std::int64_t block_rows = (rows + Int8View::block_rows - 1) / Int8View::block_rows;
    const std::int64_t groups = static_cast<std::int64_t>(columns_.size()) / group;
    // Sums of products of bytes must fit 32 bits.
    check(column_count <= 1 << 16, "columns", "names more than 65536 columns");
    check_size(columns_.size(), groups * group, "columns");
    check_size(values_.size(), groups * Int8View::group_weights, "values");
    check_size(scales_.size(), rows, "scales");
    check_size(row_starts_.size(), block_rows + 1, "row_starts");
    check_starts(row_starts_.data(), block_rows, groups, "row_starts");
    std::vector<std::int64_t> starts(row_starts_.data(), row_starts_.data() + block_rows + 1);
    for (auto& start : starts) start *= group;
    check_increasing(starts.data(), block_rows, columns_.data(),
                     (column_count + group - 1) / group * group, "columns");
    row_sums_.resize(static_cast<std::size_t>(rows));
    view_ = {values_.data(), columns_.data(), row_starts_.data(), row_sums_.data(), scales_.data(),
             rows,           column_count};
    for (std::int64_t row = 0; row < rows; ++row) add_up(row);
  }

  void multiply(std::uintptr_t x, std::int64_t batch, std::uintptr_t y, std::uintptr_t bias,
                int threads) const {
    const auto run = bf16_ ? kernels().int8_bf16 : kernels().int8_float;
    run(view_, product(x, batch, y, bias, threads));
  }

 private:
  void add_up(std::int64_t row) {
    const std::int64_t block = row / Int8View::block_rows;
    const std::int8_t* first = view_.values + row % Int8View::block_rows * Int8View::group;
    for (std::int64_t g = view_.row_starts[block]; g < view_.row_starts[block + 1]; ++g) {
      for (std::int64_t k = 0; k < Int8View::group; ++k) {
        row_sums_[static_cast<std::size_t>(row)] += first[g * Int8View::group_weights + k];
      }
    }
  }

  Longs row_starts_;
  Shorts columns_;
  Signed values_;
  Values scales_;
  bool bf16_;
  std::vector<std::int32_t> row_sums_;
  Int8View view_{};
};

}  // namespace

void bind_int8(nb::module_& module) {
  using namespace nb::literals;
  nb::class_<Int8Blocks>(module, "Int8Blocks")
      .def(nb::init<Longs, Shorts, Signed, Values, std::int64_t, std::int64_t>(), "row_starts"_a,
           "columns"_a, "values"_a, "scales"_a, "rows"_a, "column_count"_a)
      .def("multiply", &Int8Blocks::multiply, nb::call_guard<nb::gil_scoped_release>());
}

}  // namespace thresher
