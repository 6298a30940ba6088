// Scores, shares and mixtures of a few queries that look at the same keys and values, which are then
// read once for all of them.
//
// Each number is added up in the order of its keys, or of a head's numbers, whatever is computed
// beside it: a token's results do not depend on what goes through together with it.
#pragma once

#include "cache.hpp"
#include "functions.hpp"

namespace thresher::THRESHER_NAMESPACE {

// A query, and what is made of it. It looks at the positions from `begin` to before `end`.
struct Query {
  const float* values;  // of a head
  float* scores;        // by position, from the one on that all queries of a tile begin at
  float* mixed;         // a head wide; may be `values`, once scores are known
  std::int64_t begin, end;
};

// Vectors of keys or values that some queries take at a time: what is added up stays in registers,
// and an addition need not wait for the one before.
template <int Queries>
constexpr int vectors_together =
    Queries == 1 ? 8 : (lanes == 16 ? 16 : 8) / (Queries == 3 ? 4 : Queries);

// The keys of a head in a cache.
struct Keys {
  const float* of;
  std::int64_t dimensions, width;
  float scale;  // of scores

  const float* at(std::int64_t position) const {
    constexpr std::int64_t block = EngineCache::key_block;
    return of + position / block * block * width + position % block;
  }
};

// Scores of `Vectors` vectors of keys from position `first` on, for some queries.
template <int Queries, int Vectors>
THRESHER_INLINE void score_vectors(const Query* queries, const Keys& keys, std::int64_t first,
                                   std::int64_t place) {
  constexpr std::int64_t block = EngineCache::key_block;
  const float* at[Vectors];
  for (int v = 0; v < Vectors; ++v) at[v] = keys.at(first + v * lanes);
  Floats totals[Queries][Vectors] = {};
  for (std::int64_t d = 0; d < keys.dimensions; ++d) {
    Floats key[Vectors];
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) key[v] = load(at[v] + d * block);
#pragma GCC unroll 8
    for (int q = 0; q < Queries; ++q) {
      const Floats here = splat(queries[q].values[d]);
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; ++v) totals[q][v] += here * key[v];
    }
  }
  for (int q = 0; q < Queries; ++q) {
    for (int v = 0; v < Vectors; ++v) {
      store(queries[q].scores + place + v * lanes, totals[q][v] * keys.scale);
    }
  }
}

// Scores of the positions from `first` to before `last`, and of what is left of their last block,
// to `place` on. A block begins at `first`.
template <int Queries, int Vectors = vectors_together<Queries>>
void score(const Query* queries, const Keys& keys, std::int64_t first, std::int64_t last,
           std::int64_t place = 0) {
  constexpr std::int64_t step = Vectors * lanes;
  for (; first + step <= last || (Vectors == 1 && first < last); first += step, place += step) {
    score_vectors<Queries, Vectors>(queries, keys, first, place);
  }
  if constexpr (Vectors > 1) score<Queries, Vectors / 2>(queries, keys, first, last, place);
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

// The values of a head in a cache, from the position on at which a tile's scores begin.
struct Values {
  const float* of;
  std::int64_t start, width;
};

// Adds values of the positions from `first` to before `last` to what is mixed, by their shares, some
// vectors of each at a time: those are summed beside one another, where each addition of a single
// one would wait for the last.
template <int Queries, int Vectors>
THRESHER_INLINE void mix_vectors(const Query* queries, const Values& values, std::int64_t first,
                                 std::int64_t last, std::int64_t d) {
  Floats totals[Queries][Vectors];
  const float* shares[Queries];
  for (int q = 0; q < Queries; ++q) {
    shares[q] = queries[q].scores + (first - values.start);
    for (int v = 0; v < Vectors; ++v) totals[q][v] = load(queries[q].mixed + d + v * lanes);
  }
  const float* at = values.of + first * values.width + d;
  for (std::int64_t i = 0; i < last - first; ++i, at += values.width) {
    Floats value[Vectors];
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) value[v] = load(at + v * lanes);
#pragma GCC unroll 8
    for (int q = 0; q < Queries; ++q) {
      const Floats share = splat(shares[q][i]);
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; ++v) totals[q][v] += share * value[v];
    }
  }
  for (int q = 0; q < Queries; ++q) {
    for (int v = 0; v < Vectors; ++v) store(queries[q].mixed + d + v * lanes, totals[q][v]);
  }
}

template <int Queries, int Vectors = vectors_together<Queries>>
void mix(const Query* queries, const Values& values, std::int64_t first, std::int64_t last,
         std::int64_t d = 0) {
  constexpr std::int64_t step = Vectors * lanes;
  if (first >= last) return;
  for (; d + step <= values.width; d += step) {
    mix_vectors<Queries, Vectors>(queries, values, first, last, d);
  }
  if constexpr (Vectors > 1) mix<Queries, Vectors / 2>(queries, values, first, last, d);
}

// Mixes the values that each query looks at, those that all of them look at together.
template <int Queries>
void mix_all(const Query (&queries)[Queries], const Values& values) {
  std::int64_t from = queries[0].begin, until = queries[0].end;
  for (const Query& query : queries) {
    from = query.begin > from ? query.begin : from;
    until = smaller(until, query.end);
    clear(query.mixed, values.width);
  }
  const std::int64_t rest = from > until ? from : until;
  for (const Query& query : queries) mix<1>(&query, values, query.begin, smaller(from, query.end));
  mix<Queries>(queries, values, from, until);
  for (const Query& query : queries) mix<1>(&query, values, rest, query.end);
}

}  // namespace thresher::THRESHER_NAMESPACE
