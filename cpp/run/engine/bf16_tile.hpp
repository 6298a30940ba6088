// Panels of bf16 rows times a few tokens in float32.
#pragma once

#include "operand.hpp"

namespace thresher::THRESHER_NAMESPACE {

typedef std::uint32_t AnyWords __attribute__((vector_size(lanes * 4), aligned(4), may_alias));

// Even and odd columns are summed apart, whatever the batch, so that a token's sums do not depend
// on what goes through together with it.
template <int Batch>
void multiply_tile_bf16(const EngineMatrix& matrix, std::int64_t panel, const Operand& x,
                        Tile tile) {
  const auto* words = reinterpret_cast<const std::uint32_t*>(matrix.panel(panel));
  const std::int64_t pairs = matrix.groups() * EngineMatrix::group / 2;
  for (std::int64_t row = 0; row < EngineMatrix::panel_rows; row += lanes) {
    Floats even[Batch] = {}, odd[Batch] = {};
    for (std::int64_t i = 0; i < pairs; ++i) {
      const Words both =
          *reinterpret_cast<const AnyWords*>(words + i * EngineMatrix::panel_rows + row);
      const auto first = reinterpret_cast<Floats>(both << 16);
      const auto second = reinterpret_cast<Floats>(both & 0xffff0000u);
#pragma GCC unroll 8
      for (int b = 0; b < Batch; ++b) {
        const float* at = x.values + b * x.width + 2 * i;
        even[b] += first * splat(at[0]);
        odd[b] += second * splat(at[1]);
      }
    }
    for (int b = 0; b < Batch; ++b) store(tile[b] + row, even[b] + odd[b]);
  }
}

}  // namespace thresher::THRESHER_NAMESPACE
