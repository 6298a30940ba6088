// Matrices that keep n of every m neighbouring rows in each column (n:m:g).
#include <bitset>
#include <vector>

#include "bind.hpp"

namespace thresher {
namespace {

constexpr std::int64_t most_n = 2, most_m = 16, most_chunk = 256;

class GroupedNM {
 public:
  GroupedNM(Shorts counts, Bytes indices, Values values, std::int64_t rows, std::int64_t columns,
            std::int64_t n, std::int64_t m, std::int64_t chunk)
      : counts_(std::move(counts)),
        indices_(std::move(indices)),
        values_(std::move(values)),
        bf16_(is_bf16(values_)) {
    check_matrix(rows, columns);
    check(n >= 1 && n <= most_n && m >= n && m <= most_m, "values",
          "cannot keep " + std::to_string(n) + " of " + std::to_string(m) +
              " rows; n must be 1 or "
              "2, and m at most " +
              std::to_string(most_m));
    check(chunk >= 1 && chunk <= most_chunk, "indices",
          "cannot name the columns of chunks of " + std::to_string(chunk));
    list_patterns(n, m);
    view_ = {indices_.data(),
             values_.data(),
             counts_.data(),
             pattern_rows_.data(),
             static_cast<std::int64_t>(pattern_rows_.size()) / n,
             n,
             m,
             chunk,
             rows,
             columns};
    const std::int64_t groups = (rows + m - 1) / m;
    check_size(indices_.size(), groups * columns, "indices");
    check_size(values_.size(), groups * columns * n, "values");
    check_size(counts_.size(), groups * view_.chunks() * view_.patterns, "counts");
    for (std::int64_t i = 0; i < groups * view_.chunks(); ++i) check_chunk(i);
  }

  void multiply(std::uintptr_t x, std::int64_t batch, std::uintptr_t y, std::uintptr_t bias,
                int threads) const {
    const auto run = bf16_ ? kernels().grouped_nm_bf16 : kernels().grouped_nm_float;
    run(view_, product(x, batch, y, bias, threads));
  }

 private:
  // The rows of every pattern, in lexicographic order.
  void list_patterns(std::int64_t n, std::int64_t m) {
    for (std::int64_t first = 0; first < m; ++first) {
      if (n == 1) pattern_rows_.push_back(static_cast<std::uint8_t>(first));
      for (std::int64_t second = first + 1; n == 2 && second < m; ++second) {
        pattern_rows_.push_back(static_cast<std::uint8_t>(first));
        pattern_rows_.push_back(static_cast<std::uint8_t>(second));
      }
    }
  }

  // Every column of a chunk must have one pattern, so that no weight is stored twice.
  void check_chunk(std::int64_t at) const {
    const std::int64_t group = at / view_.chunks(), chunk = at % view_.chunks();
    const std::int64_t first = chunk * view_.chunk;
    const std::int64_t width = std::min(view_.chunk, view_.columns - first);
    const std::string where = " in chunk " + std::to_string(at);
    std::int64_t total = 0;
    for (std::int64_t p = 0; p < view_.patterns; ++p)
      total += view_.counts[at * view_.patterns + p];
    check(total == width, "counts", "does not add up to " + std::to_string(width) + where);
    std::bitset<most_chunk> named;
    for (std::int64_t i = 0; i < width; ++i) {
      named.set(view_.indices[group * view_.columns + first + i]);
    }
    for (std::int64_t i = 0; i < width; ++i) {
      check(named[i], "indices", "does not name every column once" + where);
    }
  }

  Shorts counts_;
  Bytes indices_;
  Values values_;
  bool bf16_;
  std::vector<std::uint8_t> pattern_rows_;
  GroupedNMView view_{};
};

}  // namespace

void bind_grouped_nm(nb::module_& module) {
  using namespace nb::literals;
  nb::class_<GroupedNM>(module, "GroupedNM")
      .def(nb::init<Shorts, Bytes, Values, std::int64_t, std::int64_t, std::int64_t, std::int64_t,
                    std::int64_t>(),
           "counts"_a, "indices"_a, "values"_a, "rows"_a, "columns"_a, "n"_a, "m"_a, "chunk"_a)
      .def("multiply", &GroupedNM::multiply, nb::call_guard<nb::gil_scoped_release>());
}

}  // namespace thresher
