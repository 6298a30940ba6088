#include "cache.hpp"

#include <algorithm>
#include <cstring>

namespace thresher {

EngineCache::EngineCache(const EngineModel& model)
    : layers_(static_cast<std::int64_t>(model.layers.size())),
      kv_heads_(model.kv_heads),
      head_width_(model.head_width()) {}

// All or nothing: where memory is short, what there is stays as it was.
void EngineCache::reserve(std::int64_t end) {
  constexpr std::int64_t least = 256;
  if (end <= capacity_) return;
  const std::int64_t capacity = padded_to(std::max({end, 2 * capacity_, least}), key_block);
  const std::int64_t heads = layers_ * kv_heads_;
  Aligned<float> keys(heads * capacity * head_width_), values(heads * capacity * head_width_);
  const std::int64_t blocks = padded_to(position, key_block);
  const auto held = static_cast<std::size_t>(blocks * head_width_) * sizeof(float);
  for (std::int64_t head = 0; head < heads && held > 0; ++head) {
    const std::int64_t from = head * capacity_ * head_width_, to = head * capacity * head_width_;
    std::memcpy(keys.get() + to, keys_.get() + from, held);
    std::memcpy(values.get() + to, values_.get() + from, held);
  }
  keys_ = std::move(keys);
  values_ = std::move(values);
  capacity_ = capacity;
}

}  // namespace thresher
