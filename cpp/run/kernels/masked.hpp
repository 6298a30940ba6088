// Products with bitmask and N:M matrices.
//
// Small batches expand the survivors of a row into vectors and take dot products with x: every
// packed byte is read once. Larger batches expand strips of rows into a tile that stays in the
// cache and multiply it with a panel of x, as a dense product would.
#pragma once

#include "../views.hpp"
#include "panel.hpp"

namespace thresher::THRESHER_NAMESPACE {

constexpr std::int64_t small_batch = 8;

// The columns of a row as bits, for steps of up to 32 columns.
class RowMask {
 public:
  explicit RowMask(const MaskedView& view)
      : view_(view), bytes_(round_up(view.columns, column_alignment) / 8) {}

  const std::uint8_t* operator()(std::int64_t row, std::uint8_t* buffer) const {
    const std::uint8_t* stored = view_.mask + row * view_.mask_stride;
    if (view_.n == 0 && view_.mask_stride == bytes_) return stored;
    std::memset(buffer, 0, static_cast<std::size_t>(bytes_));
    if (view_.n == 0) {
      std::memcpy(buffer, stored, static_cast<std::size_t>(view_.mask_stride));
    } else {
      decode_positions(stored, buffer);
    }
    return buffer;
  }

  std::int64_t bytes() const { return bytes_; }

 private:
  void decode_positions(const std::uint8_t* stored, std::uint8_t* buffer) const;

  const MaskedView& view_;
  std::int64_t bytes_;
};

#if defined(__AVX512VBMI__)
// 2:4 has four bits of positions and four bits of mask per group: a table of nibbles.
THRESHER_INLINE void decode_2_of_4(const std::uint8_t* stored, std::int64_t bytes,
                                   const std::uint32_t* group_masks, std::uint8_t* buffer) {
  alignas(16) std::uint8_t nibbles[16];
  for (int i = 0; i < 16; ++i) nibbles[i] = static_cast<std::uint8_t>(group_masks[i]);
  const __m512i table =
      _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(nibbles)));
  const __m512i low = _mm512_set1_epi8(15);
  for (std::int64_t i = 0; i < bytes; i += 64) {
    const __mmask64 valid = bytes - i >= 64 ? ~__mmask64{0} : (__mmask64{1} << (bytes - i)) - 1;
    const __m512i codes = _mm512_maskz_loadu_epi8(valid, stored + i);
    const __m512i first = _mm512_shuffle_epi8(table, _mm512_and_si512(codes, low));
    const __m512i second =
        _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(codes, 4), low));
    _mm512_mask_storeu_epi8(buffer + i, valid,
                            _mm512_or_si512(first, _mm512_slli_epi16(second, 4)));
  }
}
#endif

THRESHER_INLINE std::uint32_t read_bits(const std::uint8_t* bytes, std::int64_t size,
                                        std::int64_t position, int width) {
  std::uint32_t word = 0;
  const std::int64_t first = position / 8;
  std::memcpy(&word, bytes + first, static_cast<std::size_t>(smaller(4, size - first)));
  return word >> (position % 8) & ((1u << width) - 1);
}

inline void RowMask::decode_positions(const std::uint8_t* stored, std::uint8_t* buffer) const {
  const std::int64_t groups = view_.columns / view_.m;
  const int code_bits = view_.n * view_.position_bits;
#if defined(__AVX512VBMI__)
  if (view_.n == 2 && view_.m == 4) {
    decode_2_of_4(stored, view_.mask_stride, view_.group_masks, buffer);
    return;
  }
#endif
  if (view_.group_masks != nullptr && view_.m % 4 == 0 && view_.m <= 8) {
    for (std::int64_t g = 0; g < groups; ++g) {
      const std::uint32_t code = read_bits(stored, view_.mask_stride, g * code_bits, code_bits);
      buffer[g * view_.m / 8] |=
          static_cast<std::uint8_t>(view_.group_masks[code] << (g * view_.m % 8));
    }
    return;
  }
  for (std::int64_t i = 0; i < groups * view_.n; ++i) {
    const std::int64_t column =
        i / view_.n * view_.m +
        read_bits(stored, view_.mask_stride, i * view_.position_bits, view_.position_bits);
    buffer[column / 8] |= static_cast<std::uint8_t>(1u << (column % 8));
  }
}

// The survivors of a row, safe to read a whole vector past their end.
template <class T>
THRESHER_INLINE const T* row_values(const MaskedView& view, std::int64_t row) {
  constexpr std::int64_t slack = 64;
  const std::int64_t per_row = view.n == 0 ? 0 : view.columns / view.m * view.n;
  const std::int64_t begin = view.n == 0 ? view.row_starts[row] : row * per_row;
  const std::int64_t end = view.n == 0 ? view.row_starts[row + 1] : begin + per_row;
  const T* values = static_cast<const T*>(view.values) + begin;
  if (end + slack <= view.count) return values;
  T* copy = scratch<T>(Scratch::row, end - begin + slack);
  std::memcpy(copy, values, static_cast<std::size_t>(end - begin) * sizeof(T));
  return copy;
}

THRESHER_INLINE std::uint32_t step_mask(const std::uint8_t* mask, std::int64_t column, int width) {
  if (width < 8) return static_cast<std::uint32_t>(mask[column / 8] >> (column % 8)) & 15;
  std::uint32_t word = 0;
  std::memcpy(&word, mask + column / 8, static_cast<std::size_t>(width / 8));
  return word;
}

// Dot products of one row with `Batch` rows of x; `chains` sums in flight hide the latency.
template <class Step, int Batch>
void dot_row(const std::uint8_t* mask, const typename Step::Element* values,
             const typename Step::Element* x, std::int64_t x_stride, float* results) {
  constexpr int chains = Batch >= 4 ? 1 : Batch >= 2 ? 2 : 4;
  Floats totals[chains][Batch] = {};
  std::int64_t column = 0;
  for (; column + chains * Step::columns <= x_stride; column += chains * Step::columns) {
#pragma GCC unroll 4
    for (int c = 0; c < chains; ++c) {
      const std::int64_t at = column + c * Step::columns;
      const auto weights = Step::expand(step_mask(mask, at, Step::columns), values);
#pragma GCC unroll 8
      for (int b = 0; b < Batch; ++b) {
        totals[c][b] = Step::dot(totals[c][b], weights, x + b * x_stride + at);
      }
    }
  }
  for (; column < x_stride; column += Step::columns) {
    const auto weights = Step::expand(step_mask(mask, column, Step::columns), values);
    for (int b = 0; b < Batch; ++b) {
      totals[0][b] = Step::dot(totals[0][b], weights, x + b * x_stride + column);
    }
  }
  for (int b = 0; b < Batch; ++b) {
    Floats total = totals[0][b];
    for (int c = 1; c < chains; ++c) total += totals[c][b];
    results[b] = sum(total);
  }
}

template <class Step>
void dot_row(int batch, const std::uint8_t* mask, const typename Step::Element* values,
             const typename Step::Element* x, std::int64_t x_stride, float* results) {
  switch (batch) {
    case 1: return dot_row<Step, 1>(mask, values, x, x_stride, results);
    case 2: return dot_row<Step, 2>(mask, values, x, x_stride, results);
    case 3: return dot_row<Step, 3>(mask, values, x, x_stride, results);
    case 4: return dot_row<Step, 4>(mask, values, x, x_stride, results);
    case 5: return dot_row<Step, 5>(mask, values, x, x_stride, results);
    case 6: return dot_row<Step, 6>(mask, values, x, x_stride, results);
    case 7: return dot_row<Step, 7>(mask, values, x, x_stride, results);
    default: return dot_row<Step, 8>(mask, values, x, x_stride, results);
  }
}

// x itself, or a copy whose rows are padded with zeros to whole steps.
template <class T>
const T* pad_rows(const T* x, std::int64_t batch, std::int64_t columns, std::int64_t padded) {
  if (columns == padded) return x;
  T* copy = scratch<T>(Scratch::input, batch * padded);
  for (std::int64_t b = 0; b < batch; ++b) {
    std::memcpy(copy + b * padded, x + b * columns, static_cast<std::size_t>(columns) * sizeof(T));
    std::memset(copy + b * padded + columns, 0,
                static_cast<std::size_t>(padded - columns) * sizeof(T));
  }
  return copy;
}

// Rows that a thread takes at a time: enough to be worth handing out, few enough to balance.
constexpr std::int64_t rows_per_task = 32;

template <class Step>
void multiply_masked_small(const MaskedView& view, const Product& product) {
  using T = typename Step::Element;
  const RowMask row_mask(view);
  const std::int64_t padded = round_up(view.columns, column_alignment);
  const T* x = pad_rows(static_cast<const T*>(product.x), product.batch, view.columns, padded);
  T* y = static_cast<T*>(product.y);
  const std::int64_t tasks = (view.rows + rows_per_task - 1) / rows_per_task;
  parallel_for(tasks, product.threads, [&](std::int64_t task) {
    std::uint8_t* buffer = scratch<std::uint8_t>(Scratch::mask, row_mask.bytes() + 64);
    const std::int64_t end = smaller(view.rows, (task + 1) * rows_per_task);
    for (std::int64_t row = task * rows_per_task; row < end; ++row) {
      float results[small_batch];
      dot_row<Step>(static_cast<int>(product.batch), row_mask(row, buffer),
                    row_values<T>(view, row), x, padded, results);
      for (std::int64_t b = 0; b < product.batch; ++b) {
        narrow(results[b] + (product.bias == nullptr ? 0.0f : product.bias[row]),
               y[b * view.rows + row]);
      }
    }
  });
}

// Expands rows [first, first + strip) of a matrix into a tile; rows past the end become zeros.
template <class Step>
void expand_strip(const MaskedView& view, const RowMask& row_mask, std::int64_t first,
                  std::int64_t strip, typename Step::Math::Unit* tile, std::int64_t units) {
  std::uint8_t* buffer = scratch<std::uint8_t>(Scratch::mask, row_mask.bytes() + 64);
  for (std::int64_t r = 0; r < strip; ++r) {
    typename Step::Math::Unit* out = tile + r * units;
    if (first + r >= view.rows) {
      std::memset(out, 0, static_cast<std::size_t>(units) * sizeof *out);
      continue;
    }
    const std::uint8_t* mask = row_mask(first + r, buffer);
    const auto* values = row_values<typename Step::Element>(view, first + r);
    for (std::int64_t column = 0; column < units * Step::Math::columns_per_unit;
         column += Step::columns, out += lanes) {
      Step::store_tile(out, Step::expand(step_mask(mask, column, Step::columns), values));
    }
  }
}

template <class Step>
void multiply_masked_large(const MaskedView& view, const Product& product) {
  using T = typename Step::Element;
  using Math = typename Step::Math;
  using Unit = typename Math::Unit;
  constexpr std::int64_t strip = 32, most_columns = 512, units_per_chunk = 256;
  const RowMask row_mask(view);
  const std::int64_t units = round_up(view.columns, column_alignment) / Math::columns_per_unit;
  for (std::int64_t first = 0; first < product.batch; first += most_columns) {
    const std::int64_t batch = smaller(most_columns, product.batch - first);
    const std::int64_t width = round_up(batch, panel_alignment);
    Unit* panel = scratch<Unit>(Scratch::panel, units * width);
    pack_panel<Math>(static_cast<const T*>(product.x) + first * view.columns, batch, view.columns,
                     units, width, panel, product.threads);
    T* y = static_cast<T*>(product.y) + first * view.rows;
    parallel_for((view.rows + strip - 1) / strip, product.threads, [&](std::int64_t task) {
      const std::int64_t row = task * strip;
      Unit* tile = scratch<Unit>(Scratch::tile, strip * units);
      float* sums = scratch<float>(Scratch::sums, strip * width);
      std::memset(sums, 0, static_cast<std::size_t>(strip * width) * sizeof(float));
      expand_strip<Step>(view, row_mask, row, strip, tile, units);
      for (std::int64_t u = 0; u < units; u += units_per_chunk) {
        multiply_panel<Math>(tile + u, units, strip, panel + u * width, width,
                             smaller(units_per_chunk, units - u), sums);
      }
      store_sums(sums, width, smaller(strip, view.rows - row), row, view.rows, batch, product.bias,
                 y);
    });
  }
}

template <class T>
void multiply_masked(const MaskedView& view, const Product& product) {
  using Step = typename StepOf<T>::type;
  if (product.batch <= small_batch) {
    multiply_masked_small<Step>(view, product);
  } else {
    multiply_masked_large<Step>(view, product);
  }
}

}  // namespace thresher::THRESHER_NAMESPACE
