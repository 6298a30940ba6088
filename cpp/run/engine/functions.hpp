// Exponentials, the gate's activation, and norms of rows, in float32.
#pragma once

#include "../kernels/simd.hpp"
#include "model.hpp"

namespace thresher::THRESHER_NAMESPACE {

typedef std::int32_t Integers __attribute__((vector_size(lanes * 4)));

// exp(x) to about 1e-7, for any x: 2^n times a Taylor polynomial of what is left.
THRESHER_INLINE Floats exponential(Floats x) {
  constexpr float most = 88.0f, least = -87.0f;
  constexpr float log2_upper = 0.693359375f, log2_lower = -2.12194440e-4f;
  const Floats held = x > most ? splat(most) : x < least ? splat(least) : x;
  const Floats rounded = (held * 1.44269504f + 0x1.8p23f) - 0x1.8p23f;
  const Floats r = held - rounded * log2_upper - rounded * log2_lower;
  Floats power = splat(1.0f / 5040);
  power = power * r + 1.0f / 720;
  power = power * r + 1.0f / 120;
  power = power * r + 1.0f / 24;
  power = power * r + 1.0f / 6;
  power = power * r + 0.5f;
  power = power * r + 1.0f;
  power = power * r + 1.0f;
  const Integers exponent = (__builtin_convertvector(rounded, Integers) + 127) << 23;
  const Floats scaled = power * reinterpret_cast<Floats>(exponent);
  return x == x ? scaled : x;
}

THRESHER_INLINE Floats silu(Floats x) { return x / (1.0f + exponential(-x)); }

// x times half of 1 + tanh(u), which is the logistic function of 2 u.
THRESHER_INLINE Floats gelu(Floats x) {
  constexpr float twice = 1.5957691216057308f;  // 2 sqrt(2 / pi)
  return x / (1.0f + exponential(-twice * (x + 0.044715f * x * x * x)));
}

THRESHER_INLINE Floats activated(Activation kind, Floats x) {
  if (kind == Activation::relu) return x < Floats{} ? Floats{} : x;  // what is no number stays
  return kind == Activation::silu ? silu(x) : gelu(x);
}

// cap * tanh(x / cap) of `count` entries, which need not fill whole vectors.
inline void soften(float* x, std::int64_t count, float cap) {
  const auto soft = [&](Floats of) {
    return cap - 2.0f * cap / (1.0f + exponential(2.0f / cap * of));
  };
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) store(x + i, soft(load(x + i)));
  for (; i < count; ++i) x[i] = soft(splat(x[i]))[0];
}

// Sums and norms over `count` entries, which need not fill whole vectors.
THRESHER_INLINE float sum_of_squares(const float* x, std::int64_t count) {
  Floats totals{};
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) totals += load(x + i) * load(x + i);
  float total = sum(totals);
  for (; i < count; ++i) total += x[i] * x[i];
  return total;
}

THRESHER_INLINE void normalize(const float* x, const float* weight, std::int64_t count,
                               float epsilon, float* out) {
  const float mean = sum_of_squares(x, count) / static_cast<float>(count);
  const float scale = 1.0f / __builtin_sqrtf(mean + epsilon);
  for (std::int64_t i = 0; i < count; ++i) out[i] = weight[i] * (x[i] * scale);
}

// Of a whole state, whose mean may be taken away first; `out` may be `x`.
inline void normalize(const EngineModel& model, const float* x, const float* norm, float* out) {
  const std::int64_t count = model.hidden;
  if (!model.centred) {
    normalize(x, norm, count, model.epsilon, out);
    return;
  }
  float mean = 0;
  for (std::int64_t i = 0; i < count; ++i) mean += x[i];
  mean /= static_cast<float>(count);
  for (std::int64_t i = 0; i < count; ++i) out[i] = x[i] - mean;
  normalize(out, norm, count, model.epsilon, out);
  for (std::int64_t i = 0; i < count; ++i) out[i] += norm[count + i];
}

}  // namespace thresher::THRESHER_NAMESPACE
