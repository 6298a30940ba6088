// Arrays as Python hands them over, and designs made of them.
#pragma once

#include <nanobind/ndarray.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>

#include "design.hpp"

namespace thresher {

template <class T>
using Given = nanobind::ndarray<T, nanobind::c_contig, nanobind::device::cpu>;
template <class T>
using Out = nanobind::ndarray<T, nanobind::ndim<1>, nanobind::c_contig, nanobind::device::cpu>;
template <class T>
using In = Out<const T>;
template <class T>
using Rows = nanobind::ndarray<T, nanobind::ndim<2>, nanobind::c_contig, nanobind::device::cpu>;
template <class T>
using Columns =
    nanobind::ndarray<const T, nanobind::ndim<2>, nanobind::f_contig, nanobind::device::cpu>;

// Columns one after another in memory.
template <class T>
struct GivenDense {
  Columns<T> x;

  Dense<T> design() const { return {x.data(), x.shape(0), x.shape(1)}; }
};

// Compressed sparse columns.
template <class T>
struct GivenCsc {
  In<T> data;
  In<std::int32_t> indices;
  In<std::int64_t> starts;
  std::size_t rows;

  Csc<T> design() const {
    return {data.data(), indices.data(), starts.data(), rows, starts.shape(0) - 1};
  }
};

template <class T>
const T* pointer(const std::optional<In<T>>& array) {
  return array ? array->data() : nullptr;
}

// Arrays come from Python; one that is too short must not be read past its end.
template <class Array>
void require(const Array& array, std::size_t size, const char* name) {
  if (array.size() != size)
    throw std::invalid_argument(std::string(name) + " has " + std::to_string(array.size()) +
                                " entries, needs " + std::to_string(size));
}
template <class Array>
void require(const std::optional<Array>& array, std::size_t size, const char* name) {
  if (array) require(*array, size, name);
}

}  // namespace thresher
