// Panels of int8 and int4 rows times sixteen tokens rounded to bytes, in the tiles of AMX.
//
// Sums within a group are the same integers as those of single dot products, and groups are added
// in the same order, so that nobody can tell which of the two has made a token's results.
#pragma once

#include "../threads.hpp"
#include "int_tile.hpp"

namespace thresher::THRESHER_NAMESPACE {

#if defined(__AMX_INT8__)

constexpr std::int64_t amx_tokens = 16;

// While it lives the thread's tile registers have their shapes: 0 of sums of tokens by rows, 1 of
// codes of tokens, 2 of those of rows. (The intrinsics want numbers, and take no names for them.)
class TileShapes {
 public:
  TileShapes() {
    constexpr std::uint16_t group = EngineMatrix::group, line = line_bytes;
    set(0, amx_tokens, line);
    set(1, amx_tokens, group);
    set(2, group / 4, line);
    _tile_loadconfig(&held_);
  }
  ~TileShapes() { _tile_release(); }
  TileShapes(const TileShapes&) = delete;
  TileShapes& operator=(const TileShapes&) = delete;

 private:
  void set(int index, std::int64_t rows, std::uint16_t bytes) {
    held_.rows[index] = static_cast<std::uint8_t>(rows);
    held_.bytes[index] = bytes;
  }

  // As the instruction reads it.
  struct alignas(64) {
    std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
    std::uint16_t bytes[16] = {};
    std::uint8_t rows[16] = {};
  } held_;
};

// Lays the codes of a panel of int4 out as those of int8.
inline void widen_codes(const std::uint8_t* lines, std::int64_t groups, std::uint8_t* to) {
  const __m512i low_half = _mm512_set1_epi8(15);
  for (std::int64_t line = 0; line < groups * group_lines<Format::int4>; ++line) {
    const __m512i bytes = _mm512_loadu_si512(lines + line * line_bytes);
    _mm512_storeu_si512(to + 2 * line * line_bytes, _mm512_and_si512(bytes, low_half));
    _mm512_storeu_si512(to + (2 * line + 1) * line_bytes,
                        _mm512_and_si512(_mm512_srli_epi16(bytes, 4), low_half));
  }
}

using Sums = std::int32_t (*)[EngineMatrix::panel_rows];

// The sums of one group: of sixteen tokens, `width` bytes apart, by the rows of a panel.
THRESHER_INLINE void sum_group(const std::uint8_t* lines, const std::int8_t* codes,
                               std::int64_t width, Sums sums) {
  _tile_zero(0);
  _tile_loadd(1, codes, width);
  _tile_loadd(2, lines, line_bytes);
  _tile_dpbsud(0, 1, 2);
  _tile_stored(0, sums, line_bytes);
}

// `lines` holds the panel's codes as those of int8; see multiply_tile_int.
template <Format format, bool minimums>
void multiply_tile_amx(const EngineMatrix& matrix, std::int64_t panel, const std::uint8_t* lines,
                       const Operand& x, Tile tile) {
  constexpr std::int64_t bytes = group_lines<Format::int8> * line_bytes;
  const std::int64_t place = matrix.scale_place(panel), groups = matrix.groups();
  const std::int64_t apart = x.width / EngineMatrix::group;
  // Of two groups, so that one is summed while the last is added.
  alignas(64) std::int32_t sums[2][amx_tokens][EngineMatrix::panel_rows];
  Floats totals[amx_tokens] = {};
  sum_group(lines, x.codes, x.width, sums[0]);
  for (std::int64_t g = 0; g < groups; ++g) {
    if (g + 1 < groups) {
      sum_group(lines + (g + 1) * bytes, x.codes + (g + 1) * EngineMatrix::group, x.width,
                sums[(g + 1) % 2]);
    }
    const std::int64_t rows = place + g * EngineMatrix::panel_rows;
    const Floats row_scales = load_halves(matrix.scales + rows);
    const Floats least = minimums ? load_halves(matrix.minimums + rows) : Floats{};
#pragma GCC unroll 16
    for (std::int64_t b = 0; b < amx_tokens; ++b) {
      const std::int64_t at = b * apart + g;
      __m512i sum = _mm512_load_si512(sums[g % 2][b]);
      if constexpr (code_zero<format, minimums> != 0) {
        sum = _mm512_sub_epi32(sum, _mm512_set1_epi32(code_zero<format, minimums> * x.sums[at]));
      }
      totals[b] +=
          reinterpret_cast<Floats>(_mm512_cvtepi32_ps(sum)) * (row_scales * splat(x.scales[at]));
      if constexpr (minimums) totals[b] += least * splat(x.totals[at]);
    }
  }
  for (std::int64_t b = 0; b < amx_tokens; ++b) store(tile[b], totals[b] * splat(matrix.unit));
}

template <Format format>
void multiply_tile_amx(const EngineMatrix& matrix, std::int64_t panel, const std::uint8_t* lines,
                       const Operand& x, Tile tile) {
  if (matrix.minimums == nullptr) multiply_tile_amx<format, false>(matrix, panel, lines, x, tile);
  else multiply_tile_amx<format, true>(matrix, panel, lines, x, tile);
}

// Calls sink(token, results) for sixteen tokens at a time, and returns how many there were.
template <class Sink>
std::int64_t multiply_panel_amx(const EngineMatrix& matrix, std::int64_t panel, const Operand& x,
                                std::int64_t count, Sink&& sink) {
  const bool narrow = matrix.format == Format::int4;
  if (count < amx_tokens || (!narrow && matrix.format != Format::int8)) return 0;
  const std::uint8_t* lines = matrix.panel(panel);
  if (narrow) {
    std::uint8_t* room = scratch<std::uint8_t>(
        Scratch::panel, matrix.groups() * group_lines<Format::int8> * line_bytes);
    widen_codes(lines, matrix.groups(), room);
    lines = room;
  }
  alignas(64) float tile[amx_tokens][EngineMatrix::panel_rows];
  const TileShapes shapes;
  std::int64_t first = 0;
  for (; first + amx_tokens <= count; first += amx_tokens) {
    const Operand here = x.from(first);
    if (narrow) multiply_tile_amx<Format::int4>(matrix, panel, lines, here, tile);
    else multiply_tile_amx<Format::int8>(matrix, panel, lines, here, tile);
    for (std::int64_t b = 0; b < amx_tokens; ++b) sink(first + b, tile[b]);
  }
  return first;
}

#endif

}  // namespace thresher::THRESHER_NAMESPACE
