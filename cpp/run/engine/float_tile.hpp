// Panels of rows in floating point times a few tokens in float32.
#pragma once

#include "operand.hpp"

namespace thresher::THRESHER_NAMESPACE {

typedef std::uint32_t AnyWords __attribute__((vector_size(lanes * 4), aligned(4), may_alias));

// Two columns of some rows of a panel, from `row` on.
struct Columns {
  Floats even, odd;
};

template <Format format>
THRESHER_INLINE Columns load_columns(const std::uint8_t* panel, std::int64_t pair,
                                     std::int64_t row) {
  constexpr std::int64_t rows = EngineMatrix::panel_rows;
  if constexpr (format == Format::bf16) {
    const auto* words = reinterpret_cast<const std::uint32_t*>(panel) + pair * rows + row;
    const Words both = *reinterpret_cast<const AnyWords*>(words);
    return {reinterpret_cast<Floats>(both << 16), reinterpret_cast<Floats>(both & 0xffff0000u)};
  } else if constexpr (format == Format::float16) {
    const auto* halves = reinterpret_cast<const std::uint16_t*>(panel) + 2 * pair * rows + row;
    return {load_halves(halves), load_halves(halves + rows)};
  } else {
    const auto* values = reinterpret_cast<const float*>(panel) + 2 * pair * rows + row;
    return {load(values), load(values + rows)};
  }
}

// Even and odd columns are summed apart, whatever the batch, so that a token's sums do not depend
// on what goes through together with it.
template <Format format, int Batch>
void multiply_tile_float(const EngineMatrix& matrix, std::int64_t panel, const Operand& x,
                         Tile tile) {
  const std::uint8_t* held = matrix.panel(panel);
  const std::int64_t pairs = matrix.groups() * EngineMatrix::group / 2;
  for (std::int64_t row = 0; row < EngineMatrix::panel_rows; row += lanes) {
    Floats even[Batch] = {}, odd[Batch] = {};
    for (std::int64_t i = 0; i < pairs; ++i) {
      const Columns columns = load_columns<format>(held, i, row);
#pragma GCC unroll 8
      for (int b = 0; b < Batch; ++b) {
        const float* at = x.values + b * x.width + 2 * i;
        even[b] += columns.even * splat(at[0]);
        odd[b] += columns.odd * splat(at[1]);
      }
    }
    for (int b = 0; b < Batch; ++b) store(tile[b] + row, even[b] + odd[b]);
  }
}

}  // namespace thresher::THRESHER_NAMESPACE
