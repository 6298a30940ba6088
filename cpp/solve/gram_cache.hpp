// The Gram matrix of the columns that a descent has met so far.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <new>
#include <unordered_map>
#include <vector>

#include "parallel.hpp"
#include "vector.hpp"

namespace thresher {

// Every column is scaled and centred once, and multiplied with those that were there before.
template <class T>
class GramCache {
 public:
  // Whether these columns fit; adds those that are missing.
  template <class Model>
  bool hold(const Model& model, const std::vector<std::size_t>& columns, int threads) {
    const std::size_t most = std::min(most_columns, most_entries / model.rows());
    if (columns.size() > most) return false;
    std::vector<std::size_t> missing;
    for (std::size_t j : columns)
      if (!holds(j)) missing.push_back(j);
    if (place_.size() + missing.size() > most) {  // start again with what is needed now
      place_.clear();
      missing = columns;
    }
    if (missing.empty()) return true;
    const std::size_t old = place_.size();
    if (!gram_) reserve(std::min(most, model.blocks()), model.rows());
    for (std::size_t j : missing) {
      T* next = column(place_.size());
      model.fill(j, next);
      std::fill(next + model.rows(), next + length_, T(0));
      place_.emplace(j, place_.size());
    }
    multiply(old, threads);
    return true;
  }

  bool holds(std::size_t j) const { return place_.contains(j); }
  std::size_t place(std::size_t j) const { return place_.at(j); }
  std::size_t size() const { return place_.size(); }
  // Products of the column at a place with all, by their places.
  const T* row(std::size_t place) const { return gram_.get() + place * stride_; }

 private:
  static constexpr std::size_t most_columns = 2048;       // a Gram matrix of 32 MiB
  static constexpr std::size_t most_entries = 1ul << 24;  // columns of 128 MiB
  static constexpr std::size_t tile = 32;  // columns that stay in the cache meanwhile
  static constexpr std::size_t line = 64 / sizeof(T);

  // Aligned with cache lines, and not written to.
  struct Release {
    void operator()(T* memory) const { ::operator delete[](memory, std::align_val_t(64)); }
  };
  using Memory = std::unique_ptr<T[], Release>;
  static Memory memory(std::size_t size) { return Memory(new (std::align_val_t(64)) T[size]); }

  T* column(std::size_t place) const { return columns_.get() + place * length_; }

  // Products of the columns from place `old` on with all.
  void multiply(std::size_t old, int threads) {
    const std::size_t size = place_.size(), tiles = (size + tile - 1) / tile;
    parallel_for(tiles, double(tile) * double(length_) * double(size - old), threads,
                 [&](std::size_t begin, std::size_t end) {
                   for (std::size_t t = begin; t < end; ++t) fill_tile(t * tile, old);
                 });
    for (std::size_t b = 0; b < size; ++b)
      for (std::size_t a = std::max(old, b + 1); a < size; ++a)
        gram_[b * stride_ + a] = gram_[a * stride_ + b];
  }

  // Products of a tile of columns with those from `old` on, four at a time, that follow them.
  void fill_tile(std::size_t begin, std::size_t old) {
    T four[4];
    const std::size_t end = std::min(begin + tile, place_.size());
    for (std::size_t first = old; first < place_.size(); first += 4) {
      const std::size_t last = std::min(first + 4, place_.size());
      for (std::size_t b = begin; b < std::min(end, last); ++b) {
        four_dots(column(first), length_, column(b), length_, four);
        for (std::size_t a = std::max(first, b); a < last; ++a)
          gram_[a * stride_ + b] = four[a - first];
      }
    }
  }

  // Memory for the most there can be: the system provides what is written to.
  void reserve(std::size_t most, std::size_t rows) {
    length_ = (rows + line - 1) / line * line;
    stride_ = (most + line - 1) / line * line +
              line;  // not a power of two: rows would compete for the same cache lines
    gram_ = memory(most * stride_);
    columns_ = memory((most + 3) * length_);  // for the last four
  }

  std::unordered_map<std::size_t, std::size_t> place_;
  Memory columns_, gram_;  // columns are padded with zeros to whole cache lines
  std::size_t stride_ = 0, length_ = 0;
};

}  // namespace thresher
