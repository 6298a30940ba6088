// Bitmask and N:M matrices.
#include <array>
#include <bit>
#include <vector>

#include "bind.hpp"

namespace thresher {
namespace {

int bits_for(int m) { return m <= 1 ? 1 : std::bit_width(static_cast<unsigned>(m - 1)); }

class MaskedMatrix {
 public:
  void multiply(std::uintptr_t x, std::int64_t batch, std::uintptr_t y, std::uintptr_t bias,
                int threads) const {
    const auto run = bf16_ ? kernels().masked_bf16 : kernels().masked_float;
    run(view_, product(x, batch, y, bias, threads));
  }

 protected:
  MaskedMatrix(Bytes mask, Values values, std::int64_t rows, std::int64_t columns)
      : mask_(std::move(mask)), values_(std::move(values)), bf16_(is_bf16(values_)) {
    check_matrix(rows, columns);
    view_.mask = mask_.data();
    view_.values = values_.data();
    view_.count = static_cast<std::int64_t>(values_.size());
    view_.rows = rows;
    view_.columns = columns;
  }

  Bytes mask_;
  Values values_;
  bool bf16_;
  MaskedView view_{};
};

class Bitmask : public MaskedMatrix {
 public:
  Bitmask(Bytes mask, Values values, std::int64_t rows, std::int64_t columns)
      : MaskedMatrix(std::move(mask), std::move(values), rows, columns), starts_(1, 0) {
    view_.mask_stride = (columns + 7) / 8;
    check_size(mask_.size(), rows * view_.mask_stride, "bitmask");
    starts_.reserve(static_cast<std::size_t>(rows) + 1);
    for (std::int64_t row = 0; row < rows; ++row) {
      starts_.push_back(starts_.back() + count_row(row));
    }
    check_size(values_.size(), starts_.back(), "values");
    view_.row_starts = starts_.data();
  }

 private:
  std::int64_t count_row(std::int64_t row) const {
    const std::uint8_t* bytes = view_.mask + row * view_.mask_stride;
    std::int64_t count = 0, i = 0;
    for (; i + 8 <= view_.mask_stride; i += 8) {
      std::uint64_t word;
      std::memcpy(&word, bytes + i, sizeof word);
      count += std::popcount(word);
    }
    for (; i < view_.mask_stride; ++i) count += std::popcount(bytes[i]);
    const int used = static_cast<int>(view_.columns % 8);
    if (used != 0 && bytes[view_.mask_stride - 1] >> used != 0) {
      fail("bitmask", "marks columns past the last one in row " + std::to_string(row));
    }
    return count;
  }

  std::vector<std::int64_t> starts_;
};

class NofM : public MaskedMatrix {
 public:
  NofM(Bytes positions, Values values, std::int64_t rows, std::int64_t columns, int n, int m)
      : MaskedMatrix(std::move(positions), std::move(values), rows, columns) {
    check(m >= 1 && m <= 256 && n >= 1 && n <= m && columns % m == 0, "indices",
          "cannot hold " + std::to_string(n) + ":" + std::to_string(m) + " of " +
              std::to_string(columns) + " columns");
    view_.n = n;
    view_.m = m;
    view_.position_bits = bits_for(m);
    const std::int64_t per_row = columns / m * n;
    view_.mask_stride = (per_row * view_.position_bits + 7) / 8;
    check_size(mask_.size(), rows * view_.mask_stride, "indices");
    check_size(values_.size(), rows * per_row, "values");
    for (std::int64_t row = 0; row < rows; ++row) check_row(row);
    tabulate();
  }

 private:
  int position(const std::uint8_t* bytes, std::int64_t i) const {
    const std::int64_t bit = i * view_.position_bits;
    unsigned word = bytes[bit / 8];
    if (bit % 8 + view_.position_bits > 8) word |= static_cast<unsigned>(bytes[bit / 8 + 1]) << 8;
    return static_cast<int>(word >> (bit % 8) & ((1u << view_.position_bits) - 1));
  }

  void check_row(std::int64_t row) const {
    const std::uint8_t* bytes = view_.mask + row * view_.mask_stride;
    const std::int64_t per_row = view_.columns / view_.m * view_.n;
    int previous = -1;
    const std::int64_t used = per_row * view_.position_bits % 8;
    if (used != 0 && bytes[view_.mask_stride - 1] >> used != 0) {
      fail("indices", "goes on after the last position in row " + std::to_string(row));
    }
    for (std::int64_t i = 0; i < per_row; ++i) {
      if (i % view_.n == 0) previous = -1;
      const int here = position(bytes, i);
      if (here <= previous || here >= view_.m) {
        fail("indices", "does not name increasing positions below " + std::to_string(view_.m) +
                            " in row " + std::to_string(row));
      }
      previous = here;
    }
  }

  // Positions of a group, read as one number, to the mask of the group.
  void tabulate() {
    const int code_bits = view_.n * view_.position_bits;
    if (code_bits > 12 || view_.m > 32) return;
    table_.resize(std::size_t{1} << code_bits);
    for (std::size_t code = 0; code < table_.size(); ++code) {
      for (int i = 0; i < view_.n; ++i) {
        const unsigned at = code >> (i * view_.position_bits) & ((1u << view_.position_bits) - 1);
        table_[code] |= std::uint32_t{1} << (at & 31);
      }
    }
    view_.group_masks = table_.data();
    const int groups = 8 % code_bits == 0 ? 8 / code_bits : 0;
    if (groups == 0 || groups * view_.m % 8 != 0 || groups * view_.m > 32) return;
    byte_table_.resize(256);
    for (std::size_t byte = 0; byte < 256; ++byte) {
      for (int g = 0; g < groups; ++g) {
        const std::size_t code = byte >> (g * code_bits) & (table_.size() - 1);
        byte_table_[byte] |= table_[code] << (g * view_.m);
      }
    }
    view_.byte_masks = byte_table_.data();
  }

  std::vector<std::uint32_t> table_, byte_table_;
};

}  // namespace

void bind_masked(nb::module_& module) {
  using namespace nb::literals;
  const auto unlocked = nb::call_guard<nb::gil_scoped_release>();
  nb::class_<Bitmask>(module, "Bitmask")
      .def(nb::init<Bytes, Values, std::int64_t, std::int64_t>(), "bitmask"_a, "values"_a, "rows"_a,
           "columns"_a)
      .def("multiply", &Bitmask::multiply, unlocked);
  nb::class_<NofM>(module, "NofM")
      .def(nb::init<Bytes, Values, std::int64_t, std::int64_t, int, int>(), "indices"_a, "values"_a,
           "rows"_a, "columns"_a, "n"_a, "m"_a)
      .def("multiply", &NofM::multiply, unlocked);
}

}  // namespace thresher
