#include "state.hpp"

#include <algorithm>
#include <cstring>

namespace thresher {

EngineState::EngineState(const EngineModel& model)
    : layers(static_cast<std::int64_t>(model.layers.size())),
      kv_heads(model.kv_heads),
      head_width(padded_to(model.head_dim, EngineMatrix::panel_rows)),
      hidden_width(padded_to(model.hidden, EngineMatrix::group)),
      attended_width(padded_to(model.heads * model.head_dim, EngineMatrix::group)),
      mlp_width(padded_to(model.intermediate, EngineMatrix::group)),
      qkv_width(padded_to((model.heads + 2 * model.kv_heads) * model.head_dim,
                          EngineMatrix::panel_rows)),
      operand_width(std::max({hidden_width, attended_width, mlp_width})),
      residual(chunk * hidden_width),
      qkv(chunk * qkv_width),
      attended(chunk * attended_width),
      activated(chunk * mlp_width),
      cosines(chunk * head_width),
      sines(chunk * head_width) {}

void EngineState::reserve(std::int64_t end, int threads) {
  constexpr std::int64_t least = 256;
  if (threads > threads_) {
    const std::int64_t slots = std::max<std::int64_t>(chunk, threads);
    const std::int64_t groups = operand_width / EngineMatrix::group;
    inputs = Aligned<float>(slots * operand_width);
    input_codes = Aligned<std::int8_t>(slots * operand_width);
    input_scales = Aligned<float>(slots * groups);
    input_sums = Aligned<std::int32_t>(slots * groups);
    input_totals = Aligned<float>(slots * groups);
    queries = Aligned<float>(threads * head_width);
    scores_ = Aligned<float>(threads * capacity_);
    threads_ = threads;
  }
  if (end > capacity_) grow(std::max({end, 2 * capacity_, least}));
}

// All or nothing: where memory is short, what there is stays as it was.
void EngineState::grow(std::int64_t capacity) {
  const std::int64_t heads = layers * kv_heads;
  Aligned<float> keys(heads * capacity * head_width), values(heads * capacity * head_width);
  Aligned<float> scores(threads_ * capacity);
  const auto held = static_cast<std::size_t>(position * head_width) * sizeof(float);
  for (std::int64_t head = 0; head < heads && held > 0; ++head) {
    const std::int64_t from = head * capacity_ * head_width, to = head * capacity * head_width;
    std::memcpy(keys.get() + to, keys_.get() + from, held);
    std::memcpy(values.get() + to, values_.get() + from, held);
  }
  keys_ = std::move(keys);
  values_ = std::move(values);
  scores_ = std::move(scores);
  capacity_ = capacity;
}

}  // namespace thresher
