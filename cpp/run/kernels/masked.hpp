// Products with bitmask and N:M matrices.
//
// Small batches expand the survivors of a row into vectors and take dot products with x: every
// packed byte is read once. Larger batches expand strips of rows into a tile that stays in the
// cache and multiply it with a panel of x, as a dense product would.
#pragma once

#include "../views.hpp"
#include "panel.hpp"
#include "rows.hpp"

namespace thresher::THRESHER_NAMESPACE {

// The columns of a row as bits, for steps of up to 32 columns.
class RowMask {
 public:
  explicit RowMask(const MaskedView& view)
      : view_(view), bytes_(round_up(view.columns, column_alignment) / 8) {}

  const std::uint8_t* operator()(std::int64_t row, std::uint8_t* buffer) const {
    const std::uint8_t* stored = view_.mask + row * view_.mask_stride;
    if (view_.n == 0 && view_.mask_stride == bytes_) return stored;
    clear(buffer, bytes_);
    if (view_.n == 0) {
      copy(buffer, stored, view_.mask_stride);
    } else {
      decode_positions(stored, buffer);
    }
    return buffer;
  }

  std::int64_t bytes() const { return bytes_; }

 private:
  void decode_positions(const std::uint8_t* stored, std::uint8_t* buffer) const;

  // Looks up whole bytes of positions, each of which stands for `size` bytes of mask.
  template <int size>
  void decode_bytes(const std::uint8_t* stored, std::uint8_t* buffer) const {
    std::int64_t i = 0;
    for (; i < view_.mask_stride && (i + 1) * size <= bytes_; ++i) {
      std::memcpy(buffer + i * size, &view_.byte_masks[stored[i]], size);
    }
    for (std::int64_t at = i * size; i < view_.mask_stride && at < bytes_; ++at) {
      buffer[at] = static_cast<std::uint8_t>(view_.byte_masks[stored[i]] >> (8 * (at - i * size)));
    }
  }

  // Padding in the last byte of positions reads as groups past the last column.
  void trim(std::uint8_t* buffer) const {
    for (std::int64_t c = view_.columns; c < bytes_ * 8; ++c) {
      buffer[c / 8] &= static_cast<std::uint8_t>(~(1u << (c % 8)));
    }
  }

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

// A number of at most 8 bits anywhere in some bytes.
THRESHER_INLINE unsigned read_bits(const std::uint8_t* bytes, std::int64_t position, int width) {
  const std::int64_t first = position / 8, shift = position % 8;
  unsigned word = bytes[first];
  if (shift + width > 8) word |= static_cast<unsigned>(bytes[first + 1]) << 8;
  return word >> shift & ((1u << width) - 1);
}

inline void RowMask::decode_positions(const std::uint8_t* stored, std::uint8_t* buffer) const {
  const std::int64_t groups = view_.columns / view_.m;
  const int code_bits = view_.n * view_.position_bits;
#if defined(__AVX512VBMI__)
  if (view_.n == 2 && view_.m == 4) {
    decode_2_of_4(stored, view_.mask_stride, view_.group_masks, buffer);
    trim(buffer);
    return;
  }
#endif
  if (view_.byte_masks != nullptr) {
    switch (8 / code_bits * view_.m / 8) {
      case 1: decode_bytes<1>(stored, buffer); break;
      case 2: decode_bytes<2>(stored, buffer); break;
      case 3: decode_bytes<3>(stored, buffer); break;
      default: decode_bytes<4>(stored, buffer);
    }
    trim(buffer);
    return;
  }
  std::int64_t g = 0;
  if (view_.group_masks != nullptr && view_.m == 8 && code_bits < 8) {
    // Eight groups take a whole number of bytes, and each gives a byte of mask.
    for (; g + 8 <= groups; g += 8, stored += code_bits) {
      std::uint64_t codes = 0;
      for (int i = 0; i < code_bits; ++i) codes |= std::uint64_t{stored[i]} << (8 * i);
      for (int i = 0; i < 8; ++i, codes >>= code_bits) {
        buffer[g + i] =
            static_cast<std::uint8_t>(view_.group_masks[codes & ((1u << code_bits) - 1)]);
      }
    }
  }
  for (std::int64_t position = 0; g < groups; ++g) {
    for (int i = 0; i < view_.n; ++i, position += view_.position_bits) {
      const std::int64_t column = g * view_.m + read_bits(stored, position, view_.position_bits);
      buffer[column / 8] |= static_cast<std::uint8_t>(1u << (column % 8));
    }
  }
}

THRESHER_INLINE std::int64_t first_value(const MaskedView& view, std::int64_t row) {
  return view.n == 0 ? view.row_starts[row] : row * (view.columns / view.m * view.n);
}

// The survivors of a row, safe to read a whole vector past their end; `buffer` holds a copy of
// the last rows, of columns + value_slack elements.
constexpr std::int64_t value_slack = 64;

template <class T>
THRESHER_INLINE const T* row_values(const MaskedView& view, std::int64_t row, T* buffer) {
  const std::int64_t begin = first_value(view, row), end = first_value(view, row + 1);
  const T* values = static_cast<const T*>(view.values) + begin;
  if (end + value_slack <= view.count) return values;
  copy(buffer, values, end - begin);
  return buffer;
}

// Dot products of `Rows` rows with `Batch` rows of x, which share the loads of x. What lies
// `ahead` elements on, in the rows that come next, is prefetched: the hardware's own prefetching
// starts anew with every row.
template <class Step, int Batch, int Rows>
void dot_rows(const std::uint8_t* const* row_masks, const typename Step::Element* const* row_starts,
              std::int64_t ahead, const typename Step::Operand* x, std::int64_t x_stride,
              float* results) {
  Floats totals[Rows][Batch] = {};
  const std::uint8_t* masks[Rows];
  const typename Step::Element* values[Rows];
#pragma GCC unroll 4
  for (int r = 0; r < Rows; ++r) {
    masks[r] = row_masks[r];
    values[r] = row_starts[r];
  }
#pragma GCC unroll 1
  for (std::int64_t column = 0; column < x_stride; column += Step::columns) {
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r) {
      __builtin_prefetch(values[r] + ahead, 0, 2);
      const auto weights = Step::expand(masks[r], column, values[r]);
#pragma GCC unroll 4
      for (int b = 0; b < Batch; ++b) {
        totals[r][b] = Step::dot(totals[r][b], weights, x + b * x_stride + column);
      }
    }
  }
  // Unrolled too: an index that is not constant would keep the sums in memory throughout.
#pragma GCC unroll 4
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 4
    for (int b = 0; b < Batch; ++b) results[r * batch_per_pass + b] = sum(totals[r][b]);
  }
}

template <class Step, int Rows>
void dot_rows(std::int64_t batch, const std::uint8_t* const* masks,
              const typename Step::Element* const* values, std::int64_t ahead,
              const typename Step::Operand* x, std::int64_t x_stride, float* results) {
  switch (batch) {
    case 1: return dot_rows<Step, 1, Rows>(masks, values, ahead, x, x_stride, results);
    case 2: return dot_rows<Step, 2, Rows>(masks, values, ahead, x, x_stride, results);
    case 3: return dot_rows<Step, 3, Rows>(masks, values, ahead, x, x_stride, results);
    default:
      return dot_rows<Step, batch_per_pass, Rows>(masks, values, ahead, x, x_stride, results);
  }
}

template <class Step, int Rows, class T = typename Step::Element>
void multiply_few_rows(const MaskedView& view, const RowMask& row_mask, std::int64_t row,
                       const typename Step::Operand* x, std::int64_t padded,
                       const Product& product) {
  std::uint8_t* mask_buffer = scratch<std::uint8_t>(Scratch::mask, Rows * row_mask.bytes());
  T* value_buffer = scratch<T>(Scratch::row, Rows * (padded + value_slack));
  const std::uint8_t* masks[Rows];
  const T* values[Rows];
  for (int r = 0; r < Rows; ++r) {
    masks[r] = row_mask(row + r, mask_buffer + r * row_mask.bytes());
    values[r] = row_values(view, row + r, value_buffer + r * (padded + value_slack));
  }
  const std::int64_t ahead = first_value(view, row + Rows) - first_value(view, row);
  prefetch_part(view.mask + (row + Rows) * view.mask_stride, Rows * view.mask_stride, 0, 1);
  T* y = static_cast<T*>(product.y);
  for (std::int64_t first = 0; first < product.batch; first += batch_per_pass) {
    const std::int64_t batch = smaller(batch_per_pass, product.batch - first);
    float results[Rows * batch_per_pass];
    dot_rows<Step, Rows>(batch, masks, values, ahead, x + first * padded, padded, results);
    store_results<Rows>(results, row, view.rows, first, batch, product.bias, y);
  }
}

template <class Step>
void multiply_masked_small(const MaskedView& view, const Product& product) {
  using T = typename Step::Element;
  const RowMask row_mask(view);
  const std::int64_t padded = round_up(view.columns, column_alignment);
  const auto* x =
      arrange_rows<Step>(static_cast<const T*>(product.x), product.batch, view.columns, padded);
  parallel_rows(view.rows, 16, product.threads, [&](std::int64_t row, std::int64_t end) {
    for (; row + 4 <= end; row += 4) {
      multiply_few_rows<Step, 4>(view, row_mask, row, x, padded, product);
    }
    for (; row < end; ++row) {
      multiply_few_rows<Step, 1>(view, row_mask, row, x, padded, product);
    }
  });
}

// Expands `Rows` rows at a time, which are read as so many streams at once, and prefetches what
// follows them: the processor sees too few steps ahead to keep memory busy by itself.
template <class Step, int Rows>
void expand_rows(const MaskedView& view, const RowMask& row_mask, std::int64_t row,
                 typename Step::Math::Unit* tile, std::int64_t units, std::int64_t stride) {
  using T = typename Step::Element;
  std::uint8_t* mask_buffer = scratch<std::uint8_t>(Scratch::mask, Rows * row_mask.bytes());
  T* value_buffer = scratch<T>(Scratch::row, Rows * (view.columns + value_slack));
  const std::uint8_t* masks[Rows];
  const T* values[Rows];
#pragma GCC unroll 4
  for (int r = 0; r < Rows; ++r) {
    masks[r] = row_mask(row + r, mask_buffer + r * row_mask.bytes());
    values[r] = row_values(view, row + r, value_buffer + r * (view.columns + value_slack));
  }
  const std::int64_t ahead = first_value(view, row + Rows) - first_value(view, row);
#pragma GCC unroll 1
  for (std::int64_t u = 0; u < units; u += lanes) {
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r) {
      __builtin_prefetch(values[r] + ahead, 0, 3);
      Step::store_tile(tile + r * stride + u,
                       Step::expand(masks[r], u * Step::Math::columns_per_unit, values[r]));
    }
  }
}

// Expands rows [first, first + strip) of a matrix into a tile; rows past the end become zeros.
template <class Step>
void expand_strip(const MaskedView& view, const RowMask& row_mask, std::int64_t first,
                  std::int64_t strip, typename Step::Math::Unit* tile, std::int64_t units,
                  std::int64_t stride) {
  const std::int64_t rows = smaller(strip, view.rows - first);
  std::int64_t r = 0;
  for (; r + 4 <= rows; r += 4) {
    expand_rows<Step, 4>(view, row_mask, first + r, tile + r * stride, units, stride);
  }
  for (; r < rows; ++r) {
    expand_rows<Step, 1>(view, row_mask, first + r, tile + r * stride, units, stride);
  }
  for (; r < strip; ++r) clear(tile + r * stride, units);
}

// Up to this batch, dot products are the faster.
constexpr std::int64_t most_masked_dots = 12;

template <class T>
void multiply_masked(const MaskedView& view, const Product& product) {
  if (product.batch <= most_masked_dots) {
    multiply_masked_small<typename Steps<T>::PackedDots>(view, product);
    return;
  }
  using Step = typename Steps<T>::Packed;
  const RowMask row_mask(view);
  multiply_expanded<Step>(
      view.rows, view.columns, product,
      [&](std::int64_t first, std::int64_t strip, typename Step::Math::Unit* tile,
          std::int64_t units, std::int64_t stride) {
        expand_strip<Step>(view, row_mask, first, strip, tile, units, stride);
      },
      [&](std::int64_t first, std::int64_t rows, std::int64_t part, std::int64_t parts) {
        prefetch_part(view.mask + first * view.mask_stride, rows * view.mask_stride, part, parts);
        const std::int64_t begin = first_value(view, first);
        prefetch_part(static_cast<const T*>(view.values) + begin,
                      (first_value(view, first + rows) - begin) * sizeof(T), part, parts);
      });
}

}  // namespace thresher::THRESHER_NAMESPACE
