// Panels of four-bit channels times a token: what zeros among its inputs would have multiplied is not
// read. For several tokens, which together need nearly all channels, panels are laid out by rows.
//
// Sums within a group are exact integers, and groups are added in float32 in their order, as in
// int_tile.hpp, so that a product is that of the other layout bit for bit.
#pragma once

#include "channel_tile.hpp"

namespace thresher::THRESHER_NAMESPACE {

constexpr int strip = EngineMatrix::strip_panels;

// Results of the panels of a strip.
using TallTile = float[strip][tall];

// Drops what is smaller than its threshold; NaN stays.
inline void drop_small(const float* values, const float* thresholds, std::int64_t count,
                       float* to) {
  for (std::int64_t i = 0; i < count; ++i) {
    to[i] = __builtin_fabsf(values[i]) < thresholds[i] ? 0.0f : values[i];
  }
}

// Puts the codes of a group that are not zero one after another, with their columns.
THRESHER_INLINE std::int64_t keep_group(const std::int8_t* codes, std::int64_t start,
                                        std::int32_t* columns, std::int8_t* kept) {
  constexpr int group = EngineMatrix::group;
#if defined(__AVX512VBMI2__)
  alignas(32) static constexpr std::uint8_t order[group] = {
      0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
      16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
  const __m256i held = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes));
  const __mmask32 some = _mm256_test_epi8_mask(held, held);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(kept), _mm256_maskz_compress_epi8(some, held));
  const __m256i chosen =
      _mm256_maskz_compress_epi8(some, _mm256_load_si256(reinterpret_cast<const __m256i*>(order)));
  const __m128i halves[2] = {_mm256_castsi256_si128(chosen), _mm256_extracti128_si256(chosen, 1)};
  for (int i = 0; i < 2; ++i) {
    _mm512_storeu_si512(columns + 16 * i,
                        _mm512_add_epi32(_mm512_cvtepu8_epi32(halves[i]),
                                         _mm512_set1_epi32(static_cast<int>(start))));
  }
  return __builtin_popcount(some);
#else
  std::int64_t count = 0;
  for (int i = 0; i < group; ++i) {
    kept[count] = codes[i];
    columns[count] = static_cast<std::int32_t>(start + i);
    count += codes[i] != 0;
  }
  return count;
#endif
}

// Lists which channels a token needs, in fours of one group each.
inline void keep(const std::int8_t* codes, const float* scales, std::int64_t groups, Kept& kept) {
  std::int32_t* columns = kept.columns.get();
  auto* words = reinterpret_cast<std::int8_t*>(kept.words.get());
  std::int64_t end = 0;
  kept.count = 0;
  for (std::int64_t g = 0; g < groups; ++g) {
    if (scales[g] == 0.0f) continue;
    const std::int64_t start = g * EngineMatrix::group;
    const std::int64_t many = keep_group(codes + start, start, columns + end, words + end);
    const std::int64_t padded = round_up(many, 4);
    for (std::int64_t i = many; i < padded; ++i) {
      columns[end + i] = columns[end + many - 1];
      words[end + i] = 0;
    }
    // One without any is not finite, and has to be heard of.
    kept.groups.get()[kept.count++] = {g, end, end + padded};
    end += padded;
  }
}

// Some panels of a strip, which lie together column by column.
struct Strip {
  const EngineMatrix& matrix;
  std::int64_t panel, many;    // the first, and how many
  const std::uint8_t* lines;   // of column 0
  std::int64_t stride, bytes;  // of a column, and of the whole strip

  Strip(const EngineMatrix& from, std::int64_t first, std::int64_t last)
      : matrix(from), panel(first) {
    const std::int64_t start = first / strip * strip;
    const std::int64_t held = smaller(strip, from.panels() - start);
    many = smaller(last, start + held) - first;
    stride = held * channel_bytes;
    bytes = from.groups() * EngineMatrix::group * stride;
    lines = from.panel(start) + (first - start) * channel_bytes;
  }

  const std::uint8_t* line(std::int64_t panel_of_strip, std::int64_t column) const {
    return lines + panel_of_strip * channel_bytes + column * stride;
  }
  std::int64_t scale_place(std::int64_t panel_of_strip, std::int64_t group) const {
    return matrix.scale_place(panel + panel_of_strip) + group * tall;
  }
};

// Adds a group's sums to those of the rows of a panel.
template <bool minimums>
THRESHER_INLINE void add_scaled(const EngineMatrix& matrix, std::int64_t place, const Operand& x,
                                std::int64_t group, const TallSums& sums, float* rows) {
  const Floats scale = splat(x.scales[group]), total = splat(x.totals[group]);
#pragma GCC unroll 8
  for (int i = 0; i < tall / lanes; ++i) {
    Floats here = load(rows + i * lanes);
    here += sums.floats(i) * (load_halves(matrix.scales + place + i * lanes) * scale);
    if constexpr (minimums) here += load_halves(matrix.minimums + place + i * lanes) * total;
    store(rows + i * lanes, here);
  }
}

// Fetches what a group of a panel will be multiplied by into the second-level cache: where columns
// are skipped, the processor does not see which come next.
template <bool minimums>
THRESHER_INLINE void fetch(const std::uint8_t* lines, const std::uint32_t* places,
                           std::int64_t count, const EngineMatrix& matrix, std::int64_t place) {
  for (std::int64_t i = 0; i < count; ++i) __builtin_prefetch(lines + places[i], 0, 2);
  constexpr std::int64_t line = 64 / sizeof(std::uint16_t);
  for (std::int64_t i = 0; i < tall; i += line) {
    __builtin_prefetch(matrix.scales + place + i, 0, 2);
    if constexpr (minimums) __builtin_prefetch(matrix.minimums + place + i, 0, 2);
  }
}

// Of one token, by the channels that it needs.
template <bool minimums>
void add_kept(const Strip& from, const Operand& x, TallTile& tile) {
  constexpr std::int64_t ahead = 2;  // groups
  const Kept& kept = *x.kept;
  const EngineMatrix& matrix = from.matrix;
  const KeptGroup* const groups = kept.groups.get();
  const std::int64_t count = kept.count, panels = from.many;
  if (count == 0) return;
  std::uint32_t* const places = kept.places.get();
  const auto stride = static_cast<std::uint32_t>(from.stride);
  for (std::int64_t i = 0; i < groups[count - 1].last; ++i) {
    places[i] = static_cast<std::uint32_t>(kept.columns.get()[i]) * stride;
  }
  for (std::int64_t i = 0; i < count; ++i) {
    const KeptGroup here = groups[i];
    const bool more = i + ahead < count;
    const KeptGroup later = groups[more ? i + ahead : (i + ahead) % count];
    const std::int64_t jump = more ? 0 : from.bytes, after = more ? 0 : panels;
    for (std::int64_t p = 0; p < panels; ++p) {
      const std::uint8_t* const lines = from.lines + p * channel_bytes;
      fetch<minimums>(lines + jump, places + later.first, later.last - later.first, matrix,
                      from.scale_place(p + after, later.group));
      TallSums sums(minimums ? 0 : -8 * x.sums[here.group]);
      const std::int32_t* words = kept.words.get() + here.first / 4;
      const std::uint32_t* const end = places + here.last;
      for (const std::uint32_t* at = places + here.first; at < end; at += 4) {
        sums.add(interleaved(lines + at[0], lines + at[1], lines + at[2], lines + at[3]), *words++);
      }
      add_scaled<minimums>(matrix, from.scale_place(p, here.group), x, here.group, sums, tile[p]);
    }
  }
}

inline void multiply_kept(const Strip& from, const Operand& x, TallTile& tile) {
  clear(&tile[0][0], strip * tall);
  if (from.matrix.minimums == nullptr) add_kept<false>(from, x, tile);
  else add_kept<true>(from, x, tile);
  for (std::int64_t p = 0; p < from.many; ++p) {
    for (float& value : tile[p]) value *= from.matrix.unit;
  }
}

// A panel of a strip as eight panels of rows.
inline EngineMatrix by_rows(const Strip& from, std::int64_t p, RowRoom& room) {
  constexpr std::int64_t group = EngineMatrix::group, rows = EngineMatrix::panel_rows;
  constexpr std::int64_t panels = tall / rows, line = 64, lines = group / 8;
  const std::int64_t groups = from.matrix.groups();
  const auto place = [&](std::int64_t panel, std::int64_t g) { return panel * groups + g; };
  const auto put = [&](Bytes codes, std::int64_t row, std::int64_t g, std::int64_t at) {
    const std::int64_t start = (place(row / rows, g) * lines + at) * line + row % rows * 4;
    std::memcpy(room.codes.get() + start, &codes, sizeof codes);
  };
  const auto quad = [&](std::int64_t column) {
    return interleaved(from.line(p, column), from.line(p, column + 1), from.line(p, column + 2),
                       from.line(p, column + 3));
  };
  const std::uint16_t* scales = from.matrix.scales;
  const std::uint16_t* minimums = from.matrix.minimums;
  for (std::int64_t g = 0; g < groups; ++g) {
    for (std::int64_t at = 0; at < lines; ++at) {
      const Quad first = quad(g * group + 8 * at), second = quad(g * group + 8 * at + 4);
      for (int i = 0; i < quad_vectors; ++i) {
        const Bytes a = first.codes[i], b = second.codes[i];
        put((a & 15) | (b & 15) << 4, lanes * i, g, at);
        put(a >> 4 | (b & 240), half_tall + lanes * i, g, at);
      }
    }
    const std::int64_t held = from.scale_place(p, g);
    for (std::int64_t panel = 0; panel < panels; ++panel) {
      const std::int64_t to = place(panel, g) * rows, start = held + panel * rows;
      copy(room.scales.get() + to, scales + start, rows);
      if (minimums != nullptr) copy(room.minimums.get() + to, minimums + start, rows);
    }
  }
  EngineMatrix found = from.matrix;
  found.format = Format::int4;
  found.codes = room.codes.get();
  found.scales = room.scales.get();
  found.minimums = minimums == nullptr ? nullptr : room.minimums.get();
  if (found.bias != nullptr) found.bias += (from.panel + p) * tall;
  found.rows = tall;
  return found;
}

// The code of a row in a column.
inline std::int32_t channel_code(const EngineMatrix& matrix, std::int64_t row,
                                 std::int64_t column) {
  const std::int64_t panel = row / tall, lane = row % tall, at = lane % half_tall;
  const Strip from(matrix, panel, panel + 1);
  const std::uint8_t byte = from.line(0, column)[at % 16 / 4 * 16 + at / 16 * 4 + at % 4];
  return lane < half_tall ? byte & 15 : byte >> 4;
}

}  // namespace thresher::THRESHER_NAMESPACE
