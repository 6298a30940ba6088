// Attention of a chunk's tokens over their sequences' caches: a few queries of one cached head at a
// time.
#pragma once

#include "attention_tile.hpp"
#include "kernels.hpp"

namespace thresher::THRESHER_NAMESPACE {

// Angles of the chunk's positions, by token: the rotary tables of the chunk.
inline void fill_angles(const EngineModel& model, const EngineWork& work, const Row& row,
                        std::int64_t token) {
  const auto position = static_cast<float>(row.position);
  const std::int64_t half = model.half();
  for (std::int64_t set = 0; set < model.turnings(); ++set) {
    float* cosines = work.cosines.get() + work.angle_place(set, token);
    float* sines = work.sines.get() + work.angle_place(set, token);
    for (std::int64_t i = 0; i < half; ++i) {
      const float angle = position * model.frequencies[static_cast<std::size_t>(set * half + i)];
      cosines[i] = __builtin_cosf(angle) * model.rotary_scale;
      sines[i] = __builtin_sinf(angle) * model.rotary_scale;
    }
  }
}

// Normalises a head where the model does, and turns it by its position.
inline void place_head(const EngineModel& model, const EngineWork& work, const EngineLayer& layer,
                       const float* head, std::int64_t token, const float* norm, float* out) {
  const std::int64_t width = model.head_dim, half = width / 2;
  if (norm != nullptr) normalize(head, norm, width, model.epsilon, out);
  else copy(out, head, width);
  if (!layer.rotary) return;
  const float* cosines = work.cosines.get() + work.angle_place(layer.turning, token);
  const float* sines = work.sines.get() + work.angle_place(layer.turning, token);
  for (std::int64_t i = 0; i < half; ++i) {
    const float first = out[i], second = out[i + half];
    out[i] = first * cosines[i] - second * sines[i];
    out[i + half] = second * cosines[i] + first * sines[i];
  }
}

// Appends a token's key and value of one head to its cache.
inline void append(const EngineModel& model, const EngineWork& work, const Row& row,
                   std::int64_t layer, std::int64_t head, std::int64_t token, int rank) {
  constexpr std::int64_t block = EngineCache::key_block;
  const EngineLayer& weights = model.layers[static_cast<std::size_t>(layer)];
  const std::int64_t width = model.head_dim, lane = row.position % block;
  const float* key = work.qkv.get() + token * work.qkv_width + (model.heads + head) * width;
  float* placed = work.thread_query(rank, 0);
  place_head(model, work, weights, key, token, weights.key_norm, placed);
  float* keys = row.cache->keys(layer, head) + (row.position - lane) * work.head_width + lane;
  for (std::int64_t d = 0; d < width; ++d) keys[d * block] = placed[d];
  copy(row.cache->values(layer, head) + row.position * work.head_width,
       key + model.kv_heads * width, width);
}

// A head of a token, by their places.
struct Asking {
  std::int64_t token, head;
};

// Attention of some heads of tokens of one sequence that share a head of keys.
template <int Queries>
void attend(const EngineModel& model, const EngineWork& work, const Row* rows, std::int64_t layer,
            const Asking* asking, int rank) {
  const EngineLayer& weights = model.layers[static_cast<std::size_t>(layer)];
  const std::int64_t width = work.head_width, dimensions = model.head_dim;
  const std::int64_t kv_head = asking[0].head / (model.heads / model.kv_heads);
  const EngineCache& cache = *rows[asking[0].token].cache;
  Query queries[Queries];
  std::int64_t begin = rows[asking[0].token].position, end = 0;
  for (int q = 0; q < Queries; ++q) {
    const auto [token, head] = asking[q];
    const std::int64_t last = rows[token].position + 1;
    const std::int64_t first =
        weights.window > 0 && last > weights.window ? last - weights.window : 0;
    float* query = work.thread_query(rank, q);
    place_head(model, work, weights, work.qkv.get() + token * work.qkv_width + head * dimensions,
               token, weights.query_norm, query);
    queries[q] = {query, work.thread_scores(rank, q), query, first, last};
    begin = smaller(begin, first);
    end = last > end ? last : end;
  }
  const std::int64_t start = begin - begin % EngineCache::key_block;
  score<Queries>(queries, {cache.keys(layer, kv_head), dimensions, width, model.score_scale}, start,
                 end);
  for (const Query& query : queries) {
    float* scores = query.scores + (query.begin - start);
    if (model.score_cap > 0) soften(scores, query.end - query.begin, model.score_cap);
    softmax(scores, query.end - query.begin);
  }
  mix_all(queries, {cache.values(layer, kv_head), start, width});
  for (int q = 0; q < Queries; ++q) {
    const auto [token, head] = asking[q];
    copy(work.attended.get() + token * work.attended_width + head * dimensions, queries[q].mixed,
         dimensions);
  }
}

// Likewise, of as many heads as look at keys together, or of fewer.
inline void attend(const EngineModel& model, const EngineWork& work, const Row* rows,
                   std::int64_t layer, const Asking* asking, std::int64_t count, int rank) {
  static_assert(EngineWork::queries_together == 4);
  switch (count) {
    case 1: return attend<1>(model, work, rows, layer, asking, rank);
    case 2: return attend<2>(model, work, rows, layer, asking, rank);
    case 3: return attend<3>(model, work, rows, layer, asking, rank);
    default: return attend<4>(model, work, rows, layer, asking, rank);
  }
}

}  // namespace thresher::THRESHER_NAMESPACE
