// An orthonormal basis of chosen columns that grows and shrinks by one: the QR factorisation that
// matching pursuit and least angle regression share.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "triangle.hpp"
#include "vector.hpp"

namespace thresher {

class Basis {
 public:
  explicit Basis(std::size_t rows) : rows_(rows) {}

  std::size_t rows() const { return rows_; }
  std::size_t size() const { return triangle_.size(); }
  const double* direction(std::size_t k) const { return directions_.data() + k * rows_; }
  const double* last() const { return direction(size() - 1); }
  // The columns are the directions times its transpose.
  const Triangle<double>& triangle() const { return triangle_; }

  // Adds a column; false if the chosen ones already span it.
  bool add(const double* column) {
    const std::size_t size = triangle_.size();
    if (directions_.size() < (size + 1) * rows_) directions_.resize(2 * (size + 1) * rows_);
    double* rest = directions_.data() + size * rows_;
    std::copy(column, column + rows_, rest);
    double* row = triangle_.next();
    std::fill(row, row + size, 0.0);
    shares_.resize(size + 4);
    for (int pass = 0; pass < 2; ++pass) {  // twice is enough for working precision
      for (std::size_t k = 0; k < size; k += 4)
        project(k, std::min<std::size_t>(4, size - k), rest);
      for (std::size_t k = 0; k < size; ++k) {
        add_scaled(-shares_[k], direction(k), rest, rows_);
        row[k] += shares_[k];
      }
    }
    const double length = std::sqrt(dot(rest, rest, rows_));
    if (!(length > 1e-10 * std::sqrt(dot(column, column, rows_)))) return false;
    for (std::size_t i = 0; i < rows_; ++i) rest[i] /= length;
    row[size] = length;
    triangle_.grow();
    return true;
  }

  // Removes a column. The direction that no column needs any more is left behind the last one, at
  // direction(size()).
  void remove(std::size_t place) {
    triangle_.remove(place, [&](std::size_t k, double c, double s) {
      double* first = directions_.data() + k * rows_;
      double* second = first + rows_;
      for (std::size_t i = 0; i < rows_; ++i) {
        const double before = first[i];
        first[i] = c * before + s * second[i];
        second[i] = c * second[i] - s * before;
      }
    });
  }

 private:
  void project(std::size_t first, std::size_t count, const double* rest) {
    if (count == 4) {
      four_dots(direction(first), rows_, rest, rows_, shares_.data() + first);
    } else {
      for (std::size_t k = first; k < first + count; ++k)
        shares_[k] = dot(direction(k), rest, rows_);
    }
  }

  std::size_t rows_;
  Triangle<double> triangle_;
  std::vector<double> directions_, shares_;
};

}  // namespace thresher
