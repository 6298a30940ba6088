#include "work.hpp"

#include <algorithm>

namespace thresher {
namespace {

bool has_channels(const EngineModel& model) {
  const auto some = [](const EngineMatrix& matrix) { return matrix.format == Format::channels; };
  const auto any = [&](const std::vector<EngineMatrix>& matrices) {
    return std::any_of(matrices.begin(), matrices.end(), some);
  };
  return some(model.head) ||
         std::any_of(model.layers.begin(), model.layers.end(), [&](const EngineLayer& layer) {
           return any(layer.qkv) || some(layer.out) || any(layer.gate_up) || some(layer.down);
         });
}

bool normalises(const EngineModel& model) {
  return std::any_of(model.layers.begin(), model.layers.end(), [](const EngineLayer& layer) {
    return layer.attention_after != nullptr || layer.mlp_after != nullptr;
  });
}

}  // namespace

EngineWork::EngineWork(const EngineModel& model)
    : head_width(model.head_width()),
      hidden_width(padded_to(model.hidden, EngineMatrix::group)),
      attended_width(padded_to(model.heads * model.head_dim, EngineMatrix::group)),
      mlp_width(padded_to(model.intermediate, EngineMatrix::group)),
      qkv_width(
          padded_to((model.heads + 2 * model.kv_heads) * model.head_dim, EngineMatrix::panel_rows)),
      operand_width(std::max({hidden_width, attended_width, mlp_width})),
      residual(chunk * hidden_width),
      qkv(chunk * qkv_width),
      attended(chunk * attended_width),
      activated(chunk * mlp_width),
      cosines(model.turnings() * chunk * head_width),
      sines(model.turnings() * chunk * head_width),
      added(normalises(model) ? chunk * hidden_width : 0),
      channels_(has_channels(model)) {}

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
    queries = Aligned<float>(threads * queries_together * head_width);
    kept.clear();
    rooms.clear();
    for (int rank = 0; channels_ && rank < threads; ++rank) {
      kept.emplace_back(operand_width);
      rooms.emplace_back(operand_width);
    }
  }
  if (threads > threads_ || end > capacity_) {
    // Scores are of whole blocks of keys, from the one on in which a window begins.
    const std::int64_t capacity =
        end > capacity_ ? padded_to(std::max({end, 2 * capacity_, least}), EngineCache::key_block)
                        : capacity_;
    const int most = std::max(threads, threads_);
    scores_ = Aligned<float>(most * queries_together * capacity);
    capacity_ = capacity;
    threads_ = most;
  }
}

}  // namespace thresher
