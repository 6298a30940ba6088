// What the bindings share: arrays from Python, and the checks that make kernels safe to run.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <stdexcept>
#include <string>

#include "element.hpp"
#include "kernels.hpp"

namespace thresher {

namespace nb = nanobind;

using Bytes = nb::ndarray<const std::uint8_t, nb::c_contig, nb::device::cpu>;
using Shorts = nb::ndarray<const std::uint16_t, nb::c_contig, nb::device::cpu>;
using Longs = nb::ndarray<const std::int64_t, nb::c_contig, nb::device::cpu>;
using Values = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;  // bfloat16 or float32

// Throws std::invalid_argument, ValueError in Python, with the tensor's name first.
[[noreturn]] inline void fail(const std::string& tensor, const std::string& problem) {
  throw std::invalid_argument("tensor '" + tensor + "' " + problem);
}

// Of a matrix, and of the rows or columns of one that holds nothing, which no buffer is as long as.
// Whatever is computed from the sizes of a matrix within these bounds stays below 2^63: a group, a
// chunk or a pattern multiplies them by 256 at most.
constexpr std::int64_t most_entries = std::int64_t{1} << 53;
constexpr std::int64_t most_unheld = std::int64_t{1} << 24;

// For checks outside loops: the arguments are made whether or not they are needed.
inline void check(bool good, const std::string& tensor, const std::string& problem) {
  if (!good) fail(tensor, problem);
}

// Comes before any other arithmetic with the sizes.
inline void check_matrix(std::int64_t rows, std::int64_t columns) {
  const std::int64_t most = rows > 0 && columns > 0 ? most_entries : most_unheld;
  std::int64_t entries = 0;
  const bool overflows = __builtin_mul_overflow(std::max(rows, std::int64_t{1}),
                                                std::max(columns, std::int64_t{1}), &entries);
  check(rows >= 0 && columns >= 0 && !overflows && entries <= most, "shape",
        "says " + std::to_string(rows) + " x " + std::to_string(columns) + ", which no matrix has");
}

inline void check_size(std::size_t size, std::int64_t expected, const std::string& tensor) {
  check(static_cast<std::int64_t>(size) == expected, tensor,
        "has " + std::to_string(size) + " entries, expected " + std::to_string(expected));
}

inline void check_starts(const std::int64_t* starts, std::int64_t rows, std::int64_t end,
                         const std::string& tensor) {
  check(starts[0] == 0 && starts[rows] == end, tensor,
        "does not run from 0 to " + std::to_string(end));
  for (std::int64_t row = 0; row < rows; ++row) {
    if (starts[row] > starts[row + 1]) fail(tensor, "decreases at row " + std::to_string(row));
  }
}

// Indices increase within a row and stay below `limit`, so that nothing is stored twice.
inline void check_increasing(std::int64_t begin, std::int64_t end, std::int64_t row,
                             const std::uint16_t* indices, std::int64_t limit,
                             const std::string& tensor) {
  int previous = -1;
  for (std::int64_t i = begin; i < end; ++i) {
    if (indices[i] <= previous || indices[i] >= limit) {
      fail(tensor, "does not name increasing columns below " + std::to_string(limit) + " in row " +
                       std::to_string(row));
    }
    previous = indices[i];
  }
}

// The same for rows that begin at `starts`.
inline void check_increasing(const std::int64_t* starts, std::int64_t rows,
                             const std::uint16_t* indices, std::int64_t limit,
                             const std::string& tensor) {
  for (std::int64_t row = 0; row < rows; ++row) {
    check_increasing(starts[row], starts[row + 1], row, indices, limit, tensor);
  }
}

inline bool is_bf16(const Values& values, const std::string& tensor = "values") {
  const auto type = values.dtype();
  const bool bf16_type =
      type.code == static_cast<std::uint8_t>(nb::dlpack::dtype_code::Bfloat) && type.bits == 16;
  check(bf16_type || type == nb::dtype<float>(), tensor, "must be bfloat16 or float32");
  return bf16_type;
}

inline Product product(std::uintptr_t x, std::int64_t batch, std::uintptr_t y, std::uintptr_t bias,
                       int threads) {
  return {reinterpret_cast<const void*>(x), batch, reinterpret_cast<void*>(y),
          reinterpret_cast<const float*>(bias), threads};
}

void bind_masked(nb::module_& module);
void bind_indexed(nb::module_& module);
void bind_grouped_nm(nb::module_& module);
void bind_convolution(nb::module_& module);
void bind_blocks(nb::module_& module);
void bind_quantized(nb::module_& module);
void bind_int8(nb::module_& module);
void bind_engine(nb::module_& module);

}  // namespace thresher
