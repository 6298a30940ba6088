#include "work.hpp"

#include <algorithm>

namespace thresher {

EngineWork::EngineWork(const EngineModel& model)
    : head_width(model.head_width()),
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

// What is replaced holds nothing between passes. Sizes are noted last: memory may be short.
void EngineWork::reserve(std::int64_t end, int threads) {
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
    kept.clear();
    for (int rank = 0; rank < threads; ++rank) kept.emplace_back(operand_width);
  }
  if (threads > threads_ || end > capacity_) {
    const std::int64_t capacity =
        end > capacity_ ? std::max({end, 2 * capacity_, least}) : capacity_;
    const int most = std::max(threads, threads_);
    scores_ = Aligned<float>(most * capacity);
    capacity_ = capacity;
    threads_ = most;
  }
}

}  // namespace thresher
