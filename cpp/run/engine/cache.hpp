// The keys and values of one sequence on its way through a model.
#pragma once

#include "aligned.hpp"
#include "model.hpp"

namespace thresher {

class EngineCache {
 public:
  // Keys of so many positions lie together, number by number: a vector holds one number of each.
  static constexpr std::int64_t key_block = 16;

  explicit EngineCache(const EngineModel& model);

  // Makes room for positions below `end`; what the cache holds stays.
  void reserve(std::int64_t end);

  float* keys(std::int64_t layer, std::int64_t head) const {
    return keys_.get() + place(layer, head);
  }
  float* values(std::int64_t layer, std::int64_t head) const {
    return values_.get() + place(layer, head);
  }

  std::int64_t position = 0;  // of the next token

 private:
  std::int64_t place(std::int64_t layer, std::int64_t head) const {
    return (layer * kv_heads_ + head) * capacity_ * head_width_;
  }

  std::int64_t layers_, kv_heads_, head_width_;
  std::int64_t capacity_ = 0;
  Aligned<float> keys_, values_;
};

}  // namespace thresher
