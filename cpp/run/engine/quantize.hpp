// Rounding of weights to codes, in groups that share a scale and maybe a minimum.
#pragma once

#include <algorithm>
#include <utility>

#include "operand.hpp"

namespace thresher::THRESHER_NAMESPACE {

// A group in halves: of the same width on every instruction set, and so summed in the same order.
typedef float Half __attribute__((vector_size(EngineMatrix::group * 2)));
struct Group {
  Half halves[2];
};

inline float added(Half values) {
  for (int width = EngineMatrix::group / 4; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) values[i] += values[i + width];
  }
  return values[0];
}

// To float16 as its bits, to nearest even; what is too large becomes infinite.
inline std::uint16_t narrow_half(float value) {
  std::uint32_t word;
  std::memcpy(&word, &value, sizeof word);
  const std::uint32_t sign = word >> 16 & 0x8000u, magnitude = word & 0x7fffffffu;
  std::uint32_t half;
  if (magnitude >= 0x477ff000u) {
    half = 0x7c00u;
  } else if (magnitude >= 0x38800000u) {
    half = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1)) >> 13;
  } else {
    const float size = __builtin_fabsf(value) * 0x1p24f;  // a multiple of the smallest number
    half = static_cast<std::uint32_t>((size + 0x1p23f) - 0x1p23f);
  }
  return static_cast<std::uint16_t>(sign | half);
}

// Which codes there are, without the offset that makes them bytes.
struct Codes {
  float least, most;
};

inline Half codes_of(Half x, float scale, float minimum, Codes codes) {
  const float inverse = __builtin_fabsf(scale) > 1e-30f ? 1 / scale : 0;
  const Half rounded = ((x - minimum) * inverse + 0x1.8p23f) - 0x1.8p23f;
  const Half held = rounded > codes.least ? rounded : codes.least - Half{};
  return held < codes.most ? held : codes.most - Half{};
}

struct Fit {
  float fall = -1, scale = 0, minimum = 0;  // fall of the squared error
};

// The scale that fits codes best by least squares; with a minimum where there are minimums, and the
// group then has the mean 0.
template <bool minimums>
Fit fitted(const Group& group, float scale, float minimum, Codes codes) {
  constexpr float count = EngineMatrix::group;
  Half products{}, powers{}, totals{};
  for (const Half& x : group.halves) {
    const Half code = codes_of(x, scale, minimum, codes);
    products += code * x;
    powers += code * code;
    totals += code;
  }
  const float product = added(products), mean = minimums ? added(totals) / count : 0;
  const float variance = added(powers) - count * mean * mean;
  const float best = variance > 0 ? product / variance : 0;
  return {product * best, best, -best * mean};
}

// Keeps what fits best: codes of a range, or those of the scale that fits them.
template <bool minimums>
void search(const Group& group, float scale, float minimum, Codes codes, Fit& best) {
  const Fit first = fitted<minimums>(group, scale, minimum, codes);
  const Fit second = fitted<minimums>(group, first.scale, first.minimum, codes);
  const Fit& better = second.fall > first.fall ? second : first;
  if (better.fall > best.fall) best = better;
}

inline std::pair<float, float> range(const Group& group) {
  float least = group.halves[0][0], most = least;
  for (const Half& half : group.halves) {
    for (int i = 0; i < EngineMatrix::group / 2; ++i) {
      least = std::min(least, half[i]);
      most = std::max(most, half[i]);
    }
  }
  return {least, most};
}

// Ranges around the middle of the group's own, which may cut off both ends to serve the others.
inline Fit search_with_minimum(const Group& group, Codes codes) {
  const auto [least, most] = range(group);
  const float middle = (least + most) / 2;
  Fit best;
  for (float share = 1; share > 0.7f; share -= 0.03f) {
    const float scale = (most - least) * share / codes.most;
    search<true>(group, scale, middle - scale * codes.most / 2, codes, best);
  }
  return best;
}

// The largest magnitude becomes a code near either end of the codes, which four bits have one more
// of below zero.
inline Fit search_scale(const Group& group, Codes codes) {
  const auto [least, most] = range(group);
  const float extreme = -least > most ? least : most;
  Fit best;
  for (float share = 0.9f; share < 1.25f; share += 0.05f) {
    search<false>(group, extreme / (codes.least * share), 0, codes, best);
    search<false>(group, extreme / (codes.most * share), 0, codes, best);
  }
  return best;
}

inline void quantize(const float* weights, std::int64_t groups, float inverse_unit, int bits,
                     std::uint8_t* bytes, std::uint16_t* scales, std::uint16_t* minimums) {
  constexpr int size = EngineMatrix::group;
  const int middle = minimums == nullptr ? 1 << (bits - 1) : 0;
  const auto most = static_cast<float>((1 << bits) - 1 - middle);
  const Codes codes{minimums != nullptr ? 0.0f : bits == 8 ? -most : -most - 1, most};
  for (std::int64_t g = 0; g < groups; ++g, weights += size, bytes += size) {
    Group group;
    std::memcpy(&group, weights, sizeof group);
    Half totals{};
    for (Half& half : group.halves) totals += half *= inverse_unit;
    const float mean = minimums == nullptr ? 0 : added(totals) / size;
    for (Half& half : group.halves) half -= mean;
    const Fit fit =
        minimums == nullptr ? search_scale(group, codes) : search_with_minimum(group, codes);
    scales[g] = narrow_half(fit.scale);
    float minimum = 0;
    if (minimums != nullptr) {
      minimums[g] = narrow_half(fit.minimum + mean);
      minimum = widen_half(minimums[g]) - mean;
    }
    Group found;
    for (int half = 0; half < 2; ++half) {
      found.halves[half] = codes_of(group.halves[half], widen_half(scales[g]), minimum, codes);
    }
    for (int i = 0; i < size; ++i) {
      const int half = i / (size / 2), place = i % (size / 2);
      bytes[i] = static_cast<std::uint8_t>(static_cast<int>(found.halves[half][place]) + middle);
    }
  }
}

}  // namespace thresher::THRESHER_NAMESPACE
