// Attention of a chunk's tokens over their sequences' caches: one head of one token at a time.
#pragma once

#include "functions.hpp"
#include "kernels.hpp"

namespace thresher::THRESHER_NAMESPACE {

// Angles of the chunk's positions, by token: the rotary tables of the chunk.
inline void fill_angles(const EngineModel& model, const EngineWork& work, const Row& row,
                        std::int64_t token) {
  const auto position = static_cast<float>(row.position);
  const auto half = static_cast<std::int64_t>(model.frequencies.size());
  for (std::int64_t i = 0; i < half; ++i) {
    const float angle = position * model.frequencies[static_cast<std::size_t>(i)];
    work.cosines.get()[token * work.head_width + i] =
        __builtin_cosf(angle) * model.rotary_scale;
    work.sines.get()[token * work.head_width + i] = __builtin_sinf(angle) * model.rotary_scale;
  }
}

// Normalises a head where the model does, and turns it by its position.
inline void place_head(const EngineModel& model, const EngineWork& work, const float* head,
                       std::int64_t token, const float* norm, bool rotary, float* out) {
  const std::int64_t width = model.head_dim, half = width / 2;
  if (norm != nullptr) normalize(head, norm, width, model.epsilon, out);
  else copy(out, head, width);
  if (!rotary) return;
  const float* cosines = work.cosines.get() + token * work.head_width;
  const float* sines = work.sines.get() + token * work.head_width;
  for (std::int64_t i = 0; i < half; ++i) {
    const float first = out[i], second = out[i + half];
    out[i] = first * cosines[i] - second * sines[i];
    out[i + half] = second * cosines[i] + first * sines[i];
  }
}

// Appends a token's key and value of one head to its cache.
inline void append(const EngineModel& model, const EngineWork& work, const Row& row,
                   std::int64_t layer, std::int64_t head, std::int64_t token) {
  const EngineLayer& weights = model.layers[static_cast<std::size_t>(layer)];
  const std::int64_t width = model.head_dim;
  const float* keys = work.qkv.get() + token * work.qkv_width + (model.heads + head) * width;
  const std::int64_t place = row.position * work.head_width;
  place_head(model, work, keys, token, weights.key_norm, weights.rotary,
             row.cache->keys(layer, head) + place);
  copy(row.cache->values(layer, head) + place, keys + model.kv_heads * width, width);
}

// Turns scores into shares that add up to one.
inline void softmax(float* scores, std::int64_t count) {
  float most = scores[0];
  for (std::int64_t i = 1; i < count; ++i) most = scores[i] > most ? scores[i] : most;
  Floats totals{};
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const Floats share = exponential(load(scores + i) - most);
    store(scores + i, share);
    totals += share;
  }
  float total = sum(totals);
  for (; i < count; ++i) {
    scores[i] = exponential(splat(scores[i] - most))[0];
    total += scores[i];
  }
  for (i = 0; i < count; ++i) scores[i] /= total;
}

inline void attend(const EngineModel& model, const EngineWork& work, const Row& row,
                   std::int64_t layer, std::int64_t head, std::int64_t token, int rank) {
  const EngineLayer& weights = model.layers[static_cast<std::size_t>(layer)];
  const std::int64_t width = work.head_width;
  const std::int64_t kv_head = head / (model.heads / model.kv_heads);
  const std::int64_t end = row.position + 1;
  const std::int64_t begin =
      weights.window > 0 && end > weights.window ? end - weights.window : 0;
  float* query = work.queries.get() + rank * width;
  place_head(model, work, work.qkv.get() + token * work.qkv_width + head * model.head_dim,
             token, weights.query_norm, weights.rotary, query);
  const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(model.head_dim));
  float* scores = work.thread_scores(rank);
  const float* keys = row.cache->keys(layer, kv_head) + begin * width;
  for (std::int64_t i = 0; i < end - begin; ++i) {
    Floats totals{};
    for (std::int64_t d = 0; d < width; d += lanes) {
      totals += load(query + d) * load(keys + i * width + d);
    }
    scores[i] = sum(totals) * scale;
  }
  softmax(scores, end - begin);
  const float* values = row.cache->values(layer, kv_head) + begin * width;
  float* out = work.attended.get() + token * work.attended_width + head * model.head_dim;
  for (std::int64_t d = 0; d < width; d += lanes) {
    Floats totals{};
    for (std::int64_t i = 0; i < end - begin; ++i) {
      totals += splat(scores[i]) * load(values + i * width + d);
    }
    const std::int64_t here = smaller(lanes, model.head_dim - d);
    for (std::int64_t lane = 0; lane < here; ++lane) out[d + lane] = totals[lane];
  }
}

}  // namespace thresher::THRESHER_NAMESPACE
