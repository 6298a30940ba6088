// Products of tokens with panels of any format, and single rows of a matrix.
#pragma once

#include "amx_tile.hpp"
#include "channels.hpp"
#include "float_tile.hpp"
#include "int_tile.hpp"

namespace thresher::THRESHER_NAMESPACE {

template <Format format, int Batch>
THRESHER_INLINE void multiply_tile_int(const EngineMatrix& matrix, std::int64_t panel,
                                       const Operand& x, Tile tile) {
  if (matrix.minimums == nullptr) multiply_tile_int<format, false, Batch>(matrix, panel, x, tile);
  else multiply_tile_int<format, true, Batch>(matrix, panel, x, tile);
}

template <int Batch>
THRESHER_INLINE void multiply_tile(const EngineMatrix& matrix, std::int64_t panel, const Operand& x,
                                   Tile tile) {
  switch (matrix.format) {
    case Format::bf16: return multiply_tile_float<Format::bf16, Batch>(matrix, panel, x, tile);
    case Format::float16:
      return multiply_tile_float<Format::float16, Batch>(matrix, panel, x, tile);
    case Format::float32:
      return multiply_tile_float<Format::float32, Batch>(matrix, panel, x, tile);
    case Format::int8: return multiply_tile_int<Format::int8, Batch>(matrix, panel, x, tile);
    case Format::int4: return multiply_tile_int<Format::int4, Batch>(matrix, panel, x, tile);
    case Format::channels: return;  // has tiles of its own
  }
}

inline void add_bias(const EngineMatrix& matrix, std::int64_t panel, float* tile) {
  if (matrix.bias == nullptr) return;
  const std::int64_t rows = matrix.height();
  for (std::int64_t r = 0; r < rows; ++r) tile[r] += matrix.bias[panel * rows + r];
}

// Calls sink(token, row results) for each of `count` tokens.
template <class Sink>
void multiply_panel(const EngineMatrix& matrix, std::int64_t panel, const Operand& x,
                    std::int64_t count, Sink&& sink) {
  std::int64_t first = 0;
#if defined(__AMX_INT8__)
  first = multiply_panel_amx(matrix, panel, x, count, [&](std::int64_t token, float* results) {
    add_bias(matrix, panel, results);
    sink(token, results);
  });
#endif
  alignas(64) float tile[tile_tokens][EngineMatrix::panel_rows];
  while (first < count) {
    const std::int64_t left = count - first;
    const Operand here = x.from(first);
    int many = tile_tokens;
    if (left >= tile_tokens) multiply_tile<tile_tokens>(matrix, panel, here, tile);
    else if (left >= 2) multiply_tile<2>(matrix, panel, here, tile), many = 2;
    else multiply_tile<1>(matrix, panel, here, tile), many = 1;
    for (int b = 0; b < many; ++b) {
      add_bias(matrix, panel, tile[b]);
      sink(first + b, tile[b]);
    }
    first += many;
  }
}

// Calls sink(row, rows, token, results) for each of `count` tokens and the rows of the panels from
// `first` to `last`, which is not one of them, some rows from `row` on at a time.
template <class Sink>
void multiply_panels(const EngineMatrix& matrix, std::int64_t first, std::int64_t last,
                     const Operand& x, std::int64_t count, Sink&& sink) {
  constexpr std::int64_t rows = EngineMatrix::panel_rows;
  const auto multiply_rows_of = [&](const EngineMatrix& held, std::int64_t panel,
                                    std::int64_t start) {
    multiply_panel(held, panel, x, count, [&](std::int64_t token, const float* results) {
      sink(start, rows, token, results);
    });
  };
  if (matrix.format != Format::channels) {
    for (std::int64_t panel = first; panel < last; ++panel) {
      multiply_rows_of(matrix, panel, panel * rows);
    }
    return;
  }
  for (std::int64_t panel = first; panel < last;) {
    const Strip from(matrix, panel, last);
    alignas(64) TallTile tile;
    if (x.kept != nullptr) multiply_kept(from, x, tile);
    for (std::int64_t p = 0; p < from.many; ++p) {
      const std::int64_t start = (panel + p) * tall;
      if (x.kept != nullptr) {
        add_bias(matrix, panel + p, tile[p]);
        sink(start, tall, 0, tile[p]);
        continue;
      }
      const EngineMatrix held = by_rows(from, p, *x.room);
      for (std::int64_t i = 0; i < tall / rows; ++i) multiply_rows_of(held, i, start + i * rows);
    }
    panel += from.many;
  }
}

inline float read_float(Format format, const std::uint8_t* group, std::int64_t column,
                        std::int64_t lane) {
  constexpr std::int64_t rows = EngineMatrix::panel_rows;
  if (format == Format::float32) {
    float value;
    std::memcpy(&value, group + (column * rows + lane) * 4, sizeof value);
    return value;
  }
  if (format == Format::float16) {
    std::uint16_t half;
    std::memcpy(&half, group + (column * rows + lane) * 2, sizeof half);
    return widen_half(half);
  }
  bf16 value;
  std::memcpy(&value, group + column / 2 * line_bytes + lane * 4 + column % 2 * 2, sizeof value);
  return widen(value);
}

inline std::int32_t read_code(Format format, const std::uint8_t* group, std::int64_t column,
                              std::int64_t lane) {
  if (format == Format::int8) return group[column / 4 * line_bytes + lane * 4 + column % 4];
  const std::uint8_t byte = group[column / 8 * line_bytes + lane * 4 + column % 4];
  return column % 8 < 4 ? byte & 15 : byte >> 4;
}

inline void read_row(const EngineMatrix& matrix, std::int64_t row, float* values) {
  constexpr std::int64_t group = EngineMatrix::group;
  const std::int64_t rows = matrix.height(), panel = row / rows, lane = row % rows;
  for (std::int64_t c = 0; c < matrix.columns; ++c) {
    const std::int64_t g = c / group, i = c % group;
    const std::uint8_t* codes = matrix.panel(panel) + g * matrix.group_bytes();
    if (!matrix.has_codes()) {
      values[c] = read_float(matrix.format, codes, i, lane);
      continue;
    }
    const std::int32_t code = matrix.format == Format::channels
                                  ? channel_code(matrix, row, c)
                                  : read_code(matrix.format, codes, i, lane);
    const std::int64_t place = matrix.scale_place(panel) + g * rows + lane;
    const float scale = widen_half(matrix.scales[place]) * matrix.unit;
    if (matrix.minimums != nullptr) {
      values[c] =
          static_cast<float>(code) * scale + widen_half(matrix.minimums[place]) * matrix.unit;
    } else {
      values[c] = static_cast<float>(code - (matrix.format == Format::int8 ? 128 : 8)) * scale;
    }
  }
}

}  // namespace thresher::THRESHER_NAMESPACE
