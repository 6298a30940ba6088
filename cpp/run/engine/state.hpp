// One sequence on its way through a model: its cache of keys and values, and working memory.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

#include "model.hpp"

namespace thresher {

// Zeroed memory aligned to a line of the cache.
template <class T>
class Aligned {
 public:
  Aligned() = default;
  explicit Aligned(std::int64_t count)
      : data_(static_cast<T*>(::operator new(bytes(count), std::align_val_t{64}))) {
    __builtin_memset(data_.get(), 0, bytes(count));
  }
  T* get() const { return data_.get(); }

 private:
  static std::size_t bytes(std::int64_t count) {
    return static_cast<std::size_t>(count) * sizeof(T) + 64;
  }
  struct Free {
    void operator()(T* data) const { ::operator delete(data, std::align_val_t{64}); }
  };
  std::unique_ptr<T, Free> data_;
};

inline std::int64_t padded_to(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

class EngineState {
 public:
  // Tokens that go through the layers together.
  static constexpr std::int64_t chunk = 64;

  explicit EngineState(const EngineModel& model);

  // Makes room for positions below `end` and for a team; what the cache holds stays.
  void reserve(std::int64_t end, int threads);

  float* keys(std::int64_t layer, std::int64_t head) const {
    return keys_.get() + cache_place(layer, head);
  }
  float* values(std::int64_t layer, std::int64_t head) const {
    return values_.get() + cache_place(layer, head);
  }
  float* thread_scores(int rank) const { return scores_.get() + rank * capacity_; }

  const std::int64_t layers, kv_heads;
  const std::int64_t head_width;    // head_dim, padded to whole vectors
  const std::int64_t hidden_width;  // these padded to whole groups
  const std::int64_t attended_width, mlp_width;
  const std::int64_t qkv_width;      // padded to whole panels
  const std::int64_t operand_width;  // the widest input of a product
  std::int64_t position = 0;         // of the next token

  Aligned<float> residual, qkv, attended, activated, cosines, sines;
  // Inputs of products: by token of a chunk, or for one token by thread.
  Aligned<float> inputs, input_scales, input_totals;
  Aligned<std::int8_t> input_codes;
  Aligned<std::int32_t> input_sums;
  Aligned<float> queries;  // by thread

 private:
  std::int64_t cache_place(std::int64_t layer, std::int64_t head) const {
    return (layer * kv_heads + head) * capacity_ * head_width;
  }
  void grow(std::int64_t capacity);

  std::int64_t capacity_ = 0;
  int threads_ = 0;
  Aligned<float> keys_, values_, scores_;
};

}  // namespace thresher
