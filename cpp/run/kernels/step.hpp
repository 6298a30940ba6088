// A step: the columns of one row that a dot-product kernel handles with one vector of weights.
#pragma once

#include "simd.hpp"

namespace thresher::THRESHER_NAMESPACE {

// Products in float32, whatever the element type: x is widened as it is loaded.
struct FloatMath {
  using Unit = float;  // what one lane of a panel holds for one row of the panel
  static constexpr int columns_per_unit = 1;

  static THRESHER_INLINE Floats multiply(Floats sums, float weight, const float* panel) {
    return sums + splat(weight) * load(panel);
  }
};

template <class T>
struct FloatStep {
  using Element = T;
  using Math = FloatMath;
  using Weights = Floats;
  static constexpr int columns = lanes;

  // Spreads the next survivors of the row over the lanes whose bits are set.
  static THRESHER_INLINE Weights expand(std::uint32_t mask, const T*& values) {
#if defined(__AVX512F__)
    const Floats packed = load(values);
    values += __builtin_popcount(mask);
    return reinterpret_cast<Floats>(_mm512_maskz_expand_ps(
        static_cast<__mmask16>(mask), reinterpret_cast<__m512>(packed)));
#else
    Floats spread{};
    for (; mask != 0; mask &= mask - 1) spread[__builtin_ctz(mask)] = widen(*values++);
    return spread;
#endif
  }
  static THRESHER_INLINE Weights load_dense(const T* values) { return load(values); }
  static THRESHER_INLINE void store_tile(float* tile, Weights weights) { store(tile, weights); }
  static THRESHER_INLINE Floats dot(Floats sums, Weights weights, const T* x) {
    return sums + weights * load(x);
  }
};

#if defined(__AVX512BF16__) && defined(__AVX512VBMI2__)
// Products of pairs of bfloat16 summed in float32 (VDPBF16PS), 32 columns at a time.
struct PairMath {
  using Unit = std::uint32_t;
  static constexpr int columns_per_unit = 2;

  static THRESHER_INLINE Floats multiply(Floats sums, std::uint32_t weights,
                                         const std::uint32_t* panel) {
    const __m512i splatted = _mm512_set1_epi32(static_cast<int>(weights));
    return reinterpret_cast<Floats>(_mm512_dpbf16_ps(
        reinterpret_cast<__m512>(sums), reinterpret_cast<__m512bh>(splatted),
        reinterpret_cast<__m512bh>(_mm512_loadu_si512(panel))));
  }
};

struct PairStep {
  using Element = bf16;
  using Math = PairMath;
  using Weights = __m512i;
  static constexpr int columns = 32;

  static THRESHER_INLINE Weights expand(std::uint32_t mask, const bf16*& values) {
    const __m512i packed = _mm512_loadu_si512(values);
    values += __builtin_popcount(mask);
    return _mm512_maskz_expand_epi16(mask, packed);
  }
  static THRESHER_INLINE Weights load_dense(const bf16* values) {
    return _mm512_loadu_si512(values);
  }
  static THRESHER_INLINE void store_tile(std::uint32_t* tile, Weights weights) {
    _mm512_storeu_si512(tile, weights);
  }
  static THRESHER_INLINE Floats dot(Floats sums, Weights weights, const bf16* x) {
    return reinterpret_cast<Floats>(_mm512_dpbf16_ps(
        reinterpret_cast<__m512>(sums), reinterpret_cast<__m512bh>(weights),
        reinterpret_cast<__m512bh>(_mm512_loadu_si512(x))));
  }
};
template <class T>
struct StepOf {
  using type = FloatStep<T>;
};
template <>
struct StepOf<bf16> {
  using type = PairStep;
};
#else
template <class T>
struct StepOf {
  using type = FloatStep<T>;
};
#endif

// Columns that any step divides: rows of x are padded to this.
constexpr std::int64_t column_alignment = 32;

}  // namespace thresher::THRESHER_NAMESPACE
