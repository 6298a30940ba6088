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

// The bits of a step, read from a row of mask bytes.
template <int columns>
THRESHER_INLINE std::uint32_t step_mask(const std::uint8_t* mask, std::int64_t column) {
  if constexpr (columns < 8) {
    return static_cast<std::uint32_t>(mask[column / 8] >> (column % 8)) & ((1u << columns) - 1);
  } else {
    std::uint32_t word = 0;
    std::memcpy(&word, mask + column / 8, columns / 8);
    return word;
  }
}

#if defined(__AVX512VBMI2__)
typedef std::uint16_t Mask16 __attribute__((aligned(1), may_alias));
typedef std::uint32_t Mask32 __attribute__((aligned(1), may_alias));

// Written as assembly, because compilers broadcast from the general register that also holds the
// mask, which takes twice as long as from memory.
THRESHER_INLINE __m512i broadcast_mask(const Mask16& mask) {
  __m512i bits;
  __asm__("vpbroadcastw %1, %0" : "=v"(bits) : "m"(mask));
  return bits;
}
THRESHER_INLINE __m512i broadcast_mask(const Mask32& mask) {
  __m512i bits;
  __asm__("vpbroadcastd %1, %0" : "=v"(bits) : "m"(mask));
  return bits;
}

// 0, 0, 1, 1, ..., 15, 15
THRESHER_INLINE __m512i pair_index() {
  const __m512i index = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  return _mm512_or_si512(index, _mm512_slli_epi32(index, 16));
}

// Brings 32 columns into the order of PairStep::expand.
THRESHER_INLINE __m512i interleave_halves(__m512i columns) {
  const __m512i order = _mm512_or_si512(pair_index(), _mm512_set1_epi32(16 << 16));
  return _mm512_permutexvar_epi16(order, columns);
}

// VPEXPANDPS takes 5 cycles on Zen 5; counting the bits below each lane takes less than 2.
THRESHER_INLINE Floats spread_lanes(const std::uint8_t* mask, std::int64_t column, Floats packed) {
  const __m512i bit = _mm512_sllv_epi32(
      _mm512_set1_epi32(1), _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
  const __m512i below = _mm512_sub_epi32(bit, _mm512_set1_epi32(1));
  const __m512i bits = broadcast_mask(*reinterpret_cast<const Mask16*>(mask + column / 8));
  const __m512i rank = _mm512_popcnt_epi32(_mm512_and_si512(bits, below));
  return reinterpret_cast<Floats>(_mm512_maskz_permutexvar_ps(
      _mm512_test_epi32_mask(bits, bit), rank, reinterpret_cast<__m512>(packed)));
}
#elif defined(__AVX2__)
// For each byte of mask, which survivor each lane takes; -1 for none.
struct LaneTable {
  alignas(64) std::int8_t lane[256][8];
  constexpr LaneTable() : lane() {
    for (int mask = 0; mask < 256; ++mask) {
      std::int8_t next = 0;
      for (int i = 0; i < 8; ++i) lane[mask][i] = (mask >> i & 1) != 0 ? next++ : std::int8_t{-1};
    }
  }
};
constexpr LaneTable lane_table;

THRESHER_INLINE Floats spread_lanes(const std::uint8_t* mask, std::int64_t column, Floats packed) {
  const __m256i lane = _mm256_cvtepi8_epi32(
      _mm_loadl_epi64(reinterpret_cast<const __m128i*>(lane_table.lane[mask[column / 8]])));
  const __m256 spread = _mm256_permutevar8x32_ps(reinterpret_cast<__m256>(packed), lane);
  return reinterpret_cast<Floats>(
      _mm256_blendv_ps(spread, _mm256_setzero_ps(), _mm256_castsi256_ps(lane)));
}
#else
THRESHER_INLINE Floats spread_lanes(const std::uint8_t* row, std::int64_t column, Floats packed) {
  Floats spread{};
  std::uint32_t mask = step_mask<lanes>(row, column);
  for (int next = 0; mask != 0; mask &= mask - 1) spread[__builtin_ctz(mask)] = packed[next++];
  return spread;
}
#endif

template <class T>
struct FloatStep {
  using Element = T;
  using Operand = float;  // what rows of x are held in, beside dots
  using Math = FloatMath;
  using Weights = Floats;
  static constexpr int columns = lanes;
  static constexpr bool interleaved = false;

  // Spreads the next survivors of the row over the lanes whose bits are set.
  static THRESHER_INLINE Weights expand(const std::uint8_t* mask, std::int64_t column,
                                        const T*& values) {
    const Floats spread = spread_lanes(mask, column, load(values));
    values += __builtin_popcount(step_mask<columns>(mask, column));
    return spread;
  }
  static THRESHER_INLINE Weights load_dense(const T* values) { return load(values); }
  static THRESHER_INLINE void store_tile(float* tile, Weights weights) { store(tile, weights); }
  static THRESHER_INLINE Floats dot(Floats sums, Weights weights, const float* x) {
    return sums + weights * load(x);
  }
};

#if defined(__AVX512VBMI2__)
// Vectors of 32 bfloat16, pairs of which share a word.
struct PairExpansion {
  using Element = bf16;
  using Weights = __m512i;
  static constexpr int columns = 32;

  // Spreads the next survivors over 16 pairs (column j, column 16 + j). VPEXPANDW takes 5 cycles
  // on Zen 5, this 2.5: in this order the rank of a survivor is a count of bits of its own half.
  static THRESHER_INLINE Weights expand(const std::uint8_t* mask, std::int64_t column,
                                        const bf16*& values) {
    const __m512i ones = _mm512_set1_epi16(1);
    const __m512i bit = _mm512_sllv_epi16(ones, pair_index());
    const __m512i below = _mm512_sub_epi16(bit, ones);
    const __m512i second_half = _mm512_set1_epi32(16 << 16);
    const __m512i bits = broadcast_mask(*reinterpret_cast<const Mask32*>(mask + column / 8));
    const __m512i rank =
        _mm512_or_si512(_mm512_popcnt_epi16(_mm512_and_si512(bits, below)), second_half);
    const std::uint32_t word = step_mask<columns>(mask, column);
    const bf16* second = values + __builtin_popcount(word & 0xffff);
    const __m512i halves = _mm512_inserti64x4(
        _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(values))),
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(second)), 1);
    values += __builtin_popcount(word);
    return _mm512_maskz_permutexvar_epi16(_mm512_test_epi16_mask(bits, bit), rank, halves);
  }
  static THRESHER_INLINE Weights load_dense(const bf16* values) {
    return _mm512_loadu_si512(values);
  }
};

// Dot products of pairs in float32: either half of a word is the upper half of a float. In
// expand's order the halves are columns j and 16 + j, as they lie in x.
struct SplitStep : PairExpansion {
  using Operand = float;
  static constexpr bool interleaved = false;

  static THRESHER_INLINE Floats dot(Floats sums, Weights weights, const float* x) {
    const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
    const auto first = reinterpret_cast<Floats>(_mm512_slli_epi32(weights, 16));
    const auto second = reinterpret_cast<Floats>(_mm512_and_si512(weights, upper));
    return sums + first * load(x) + second * load(x + lanes);
  }
};

// For weights that are stored dense, whose pairs are columns 2 j and 2 j + 1: x is brought into
// that order once.
struct DenseSplitStep : SplitStep {
  static constexpr bool interleaved = true;

  static THRESHER_INLINE void interleave(float* x) {
    const Floats first = load(x), second = load(x + lanes);
    store(x, even_lanes(first, second));
    store(x + lanes, odd_lanes(first, second));
  }
};
#endif

#if defined(__AVX512BF16__) && defined(__AVX512VBMI2__)
// Products of pairs of bfloat16 summed in float32 (VDPBF16PS), 32 columns at a time.
struct PairMath {
  using Unit = std::uint32_t;
  static constexpr int columns_per_unit = 2;

  static THRESHER_INLINE Floats multiply(Floats sums, std::uint32_t weights,
                                         const std::uint32_t* panel) {
    const __m512i splatted = _mm512_set1_epi32(static_cast<int>(weights));
    return reinterpret_cast<Floats>(
        _mm512_dpbf16_ps(reinterpret_cast<__m512>(sums), reinterpret_cast<__m512bh>(splatted),
                         reinterpret_cast<__m512bh>(_mm512_loadu_si512(panel))));
  }
};

struct PairStep : PairExpansion {
  using Operand = bf16;
  using Math = PairMath;
  static constexpr bool interleaved = true;  // expand() pairs column j with column 16 + j

  static THRESHER_INLINE void interleave(bf16* x) {
    _mm512_store_si512(x, interleave_halves(_mm512_load_si512(x)));
  }
  static THRESHER_INLINE void store_tile(std::uint32_t* tile, Weights weights) {
    _mm512_storeu_si512(tile, weights);
  }
  static THRESHER_INLINE Floats dot(Floats sums, Weights weights, const bf16* x) {
    return reinterpret_cast<Floats>(
        _mm512_dpbf16_ps(reinterpret_cast<__m512>(sums), reinterpret_cast<__m512bh>(weights),
                         reinterpret_cast<__m512bh>(_mm512_loadu_si512(x))));
  }
};
// For weights that are stored dense, whose columns stay in their order.
struct DensePairStep : PairStep {
  static constexpr bool interleaved = false;
};
#endif

// How each element type is multiplied on this instruction set: beside panels, and in dots.
template <class T>
struct Steps {
  using Packed = FloatStep<T>;
  using Dense = FloatStep<T>;
  using PackedDots = FloatStep<T>;
  using DenseDots = FloatStep<T>;
};
#if defined(__AVX512BF16__) && defined(__AVX512VBMI2__)
template <>
struct Steps<bf16> {
  using Packed = PairStep;
  using Dense = DensePairStep;
  using PackedDots = PairStep;
  using DenseDots = DensePairStep;
};
#elif defined(__AVX512VBMI2__)
template <>
struct Steps<bf16> {
  using Packed = FloatStep<bf16>;
  using Dense = FloatStep<bf16>;
  using PackedDots = SplitStep;
  using DenseDots = DenseSplitStep;
};
#endif

// Columns that any step divides: rows of x are padded to this.
constexpr std::int64_t column_alignment = 32;

}  // namespace thresher::THRESHER_NAMESPACE
