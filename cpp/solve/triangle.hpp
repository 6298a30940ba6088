// A lower triangular factor that grows by a row at a time, as greedy choices need it.
#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

namespace thresher {

template <class T>
class Triangle {
 public:
  explicit Triangle(std::size_t capacity = 0) : entries_(start(capacity)) {}

  std::size_t size() const { return size_; }
  void clear() { size_ = 0; }
  const T* row(std::size_t k) const { return entries_.data() + start(k); }

  // Where the size() + 1 entries of the next row go; `grow` then counts it in.
  T* next() {
    if (entries_.size() < start(size_ + 1)) entries_.resize(2 * start(size_ + 1));
    return entries_.data() + start(size_);
  }
  void grow() { ++size_; }

  // v = L^-1 v
  void solve(T* v) const {
    for (std::size_t k = 0; k < size_; ++k) {
      const T* here = row(k);
      for (std::size_t m = 0; m < k; ++m) v[k] -= here[m] * v[m];
      v[k] /= here[k];
    }
  }

  // v = L^-T v, row by row so that the entries are met as they lie.
  void solve_transposed(T* v) const {
    for (std::size_t k = size_; k-- > 0;) {
      const T* here = row(k);
      v[k] /= here[k];
      for (std::size_t m = 0; m < k; ++m) v[m] -= here[m] * v[k];
    }
  }

  // Removes a row. What is left is made triangular by plane rotations (Golub and Van Loan, Matrix
  // Computations, section 6.5.2): rotate(k, c, s) is told of each, of the columns k and k + 1.
  template <class Rotate>
  void remove(std::size_t place, Rotate rotate) {
    for (std::size_t k = place; k + 1 < size_; ++k) {
      const T* below = row(k + 1);
      const T length = std::hypot(below[k], below[k + 1]);
      const T c = below[k] / length, s = below[k + 1] / length;
      for (std::size_t m = k + 1; m < size_; ++m) {
        T* entry = entries_.data() + start(m) + k;
        const T first = entry[0], second = entry[1];
        entry[0] = c * first + s * second;
        entry[1] = c * second - s * first;
      }
      // The row moves up; its last entry has become zero.
      for (std::size_t m = 0; m <= k; ++m) entries_[start(k) + m] = entries_[start(k + 1) + m];
      rotate(k, c, s);
    }
    --size_;
  }

 private:
  static std::size_t start(std::size_t k) { return k * (k + 1) / 2; }

  std::vector<T> entries_;
  std::size_t size_ = 0;
};

}  // namespace thresher
