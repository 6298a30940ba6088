// Attention of a chunk's tokens over their sequences' caches: one head of one token at a time.
#pragma once

#include "functions.hpp"
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
                   std::int64_t layer, std::int64_t head, std::int64_t token) {
  const EngineLayer& weights = model.layers[static_cast<std::size_t>(layer)];
  const std::int64_t width = model.head_dim;
  const float* keys = work.qkv.get() + token * work.qkv_width + (model.heads + head) * width;
  const std::int64_t place = row.position * work.head_width;
  place_head(model, work, weights, keys, token, weights.key_norm,
             row.cache->keys(layer, head) + place);
  copy(row.cache->values(layer, head) + place, keys + model.kv_heads * width, width);
}

THRESHER_INLINE float largest_of(const float* scores, std::int64_t count) {
  Floats found = splat(scores[0]);
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const Floats here = load(scores + i);
    found = here > found ? here : found;
  }
  float most = found[0];
  for (int lane = 1; lane < lanes; ++lane) most = found[lane] > most ? found[lane] : most;
  for (; i < count; ++i) most = scores[i] > most ? scores[i] : most;
  return most;
}

// Turns scores into shares that add up to one.
inline void softmax(float* scores, std::int64_t count) {
  const float most = largest_of(scores, count);
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

#if defined(__AVX512F__)
// The sums of sixteen vectors, each added up as sum() does it: halves, then halves of these.
THRESHER_INLINE __m512 sixteen_sums(const Floats (&of)[16]) {
  const auto at = [&](int i) { return reinterpret_cast<__m512>(of[i]); };
  __m512 eights[8], fours[4], twos[2];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    const __m512 one = at(2 * i), other = at(2 * i + 1);
    eights[i] = _mm512_add_ps(_mm512_shuffle_f32x4(one, other, 0x44),
                              _mm512_shuffle_f32x4(one, other, 0xee));
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __m512 one = eights[2 * i], other = eights[2 * i + 1];
    fours[i] = _mm512_add_ps(_mm512_shuffle_f32x4(one, other, 0x88),
                             _mm512_shuffle_f32x4(one, other, 0xdd));
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    const __m512 one = fours[2 * i], other = fours[2 * i + 1];
    twos[i] =
        _mm512_add_ps(_mm512_shuffle_ps(one, other, 0x44), _mm512_shuffle_ps(one, other, 0xee));
  }
  const __m512 mixed = _mm512_add_ps(_mm512_shuffle_ps(twos[0], twos[1], 0x88),
                                     _mm512_shuffle_ps(twos[0], twos[1], 0xdd));
  // The sum of vector i has come to lie at 4 (i % 4) + i / 4.
  const __m512i places = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return _mm512_permutexvar_ps(places, mixed);
}
#endif

// Scores of `count` keys, `width` apart.
inline void score(const float* query, const float* keys, std::int64_t count, std::int64_t width,
                  float scale, float* scores) {
  std::int64_t i = 0;
#if defined(__AVX512F__)
  for (; i + 16 <= count; i += 16) {
    Floats totals[16] = {};
    for (std::int64_t d = 0; d < width; d += lanes) {
      const Floats here = load(query + d);
#pragma GCC unroll 16
      for (int k = 0; k < 16; ++k) totals[k] += here * load(keys + (i + k) * width + d);
    }
    store(scores + i, reinterpret_cast<Floats>(sixteen_sums(totals)) * scale);
  }
#endif
  for (; i < count; ++i) {
    Floats totals{};
    for (std::int64_t d = 0; d < width; d += lanes) {
      totals += load(query + d) * load(keys + i * width + d);
    }
    scores[i] = sum(totals) * scale;
  }
}

// Adds up values by their shares, some vectors of each at a time: those are summed beside one
// another, where each addition of a single one would wait for the last.
template <int Vectors>
THRESHER_INLINE void mix(const float* shares, const float* values, std::int64_t count,
                         std::int64_t width, float* out) {
  Floats totals[Vectors] = {};
  for (std::int64_t i = 0; i < count; ++i) {
    const Floats share = splat(shares[i]);
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) totals[v] += share * load(values + i * width + v * lanes);
  }
  for (int v = 0; v < Vectors; ++v) store(out + v * lanes, totals[v]);
}

inline void attend(const EngineModel& model, const EngineWork& work, const Row& row,
                   std::int64_t layer, std::int64_t head, std::int64_t token, int rank) {
  const EngineLayer& weights = model.layers[static_cast<std::size_t>(layer)];
  const std::int64_t width = work.head_width;
  const std::int64_t kv_head = head / (model.heads / model.kv_heads);
  const std::int64_t end = row.position + 1;
  const std::int64_t begin = weights.window > 0 && end > weights.window ? end - weights.window : 0;
  float* query = work.queries.get() + rank * width;
  place_head(model, work, weights, work.qkv.get() + token * work.qkv_width + head * model.head_dim,
             token, weights.query_norm, query);
  float* scores = work.thread_scores(rank);
  const float* keys = row.cache->keys(layer, kv_head) + begin * width;
  score(query, keys, end - begin, width, model.score_scale, scores);
  if (model.score_cap > 0) soften(scores, end - begin, model.score_cap);
  softmax(scores, end - begin);
  const float* values = row.cache->values(layer, kv_head) + begin * width;
  // The query has been used, and its room is a head wide.
  float* mixed = query;
  std::int64_t d = 0;
  for (; d + 4 * lanes <= width; d += 4 * lanes) {
    mix<4>(scores, values + d, end - begin, width, mixed + d);
  }
  for (; d < width; d += lanes) mix<1>(scores, values + d, end - begin, width, mixed + d);
  copy(work.attended.get() + token * work.attended_width + head * model.head_dim, mixed,
       model.head_dim);
}

}  // namespace thresher::THRESHER_NAMESPACE
