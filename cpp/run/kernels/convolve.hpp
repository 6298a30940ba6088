// Convolutions with matrices whose groups of rows share the positions of their survivors: a strip
// of output positions is kept in registers while the survivors of a group of rows go by.
#pragma once

#include "grid.hpp"
#include "indexed.hpp"

namespace thresher::THRESHER_NAMESPACE {

constexpr int strip_vectors = 4;
constexpr std::int64_t strip_width = strip_vectors * lanes;

// Some positions of a band that are kept in registers, and the segments of the output they cover.
struct Strip {
  std::int64_t position;  // in the band
  std::int64_t vectors;   // up to the last position that is needed
  const Segment* segments;
  std::int64_t count;
  bool whole;  // one segment covers all its vectors
};

// The strips of a band that cover any output.
struct Strips {
  Strip* strips = nullptr;
  std::int64_t count = 0;

  Strips(const Grid& grid, std::int64_t band, std::int64_t rows) {
    const std::int64_t most = (grid.width() + strip_width - 1) / strip_width;
    strips = scratch<Strip>(Scratch::row, most);
    Segment* next = scratch<Segment>(Scratch::mask, grid.width());
    for (std::int64_t q = 0; q < grid.width(); q += strip_width) {
      Strip& strip = strips[count] = {q, 0, next, 0, false};
      std::int64_t last = 0;
      const std::int64_t end = smaller(q + strip_width, grid.width());
      grid.segments(band, q, end, rows, [&](const Segment& segment) {
        *next++ = segment;
        ++strip.count;
        last = segment.position + segment.count;
      });
      strip.vectors = (last + lanes - 1) / lanes;
      strip.whole = strip.count == 1 && strip.segments[0].count == strip.vectors * lanes;
      if (strip.count > 0) ++count;
    }
  }
};

// What all strips share.
struct Band {
  const float* panel;
  const std::int32_t* offsets;
  std::int64_t image_size;
};

// NaN stays NaN, as in torch.
THRESHER_INLINE Floats clamp(Floats values, Floats low, Floats high) {
  const Floats raised = values < low ? low : values;
  return raised > high ? high : raised;
}

template <class T>
THRESHER_INLINE void store_segments(const float* sums, const Strip& strip, T* y) {
  for (int s = 0; s < strip.count; ++s) {
    const Segment& segment = strip.segments[s];
    const float* from = sums + segment.position;
    T* to = y + segment.destination;
    std::int64_t i = 0;
    if constexpr (sizeof(T) == sizeof(float)) {
      for (; i + lanes <= segment.count; i += lanes) store(to + i, load(from + i));
      if (i > 0 && i < segment.count) {  // once more what precedes the end
        store(to + segment.count - lanes, load(from + segment.count - lanes));
        continue;
      }
    }
    for (; i < segment.count; ++i) narrow(from[i], to[i]);
  }
}

// Rows of the matrix from group `first` to `end` at one strip.
template <int Vectors, int Rows, class T>
void convolve_strip(const GroupedView& view, std::int64_t first, std::int64_t end, const Band& band,
                    const Strip& strip, const Convolved& io) {
  const T* values = static_cast<const T*>(view.values);
  const Floats low = splat(io.low), high = splat(io.high);
  const float* x = band.panel + strip.position;
  const auto offset = [offsets = band.offsets](std::uint16_t index) { return offsets[index]; };
  for (std::int64_t group = first; group < end; ++group) {
    const std::int64_t begin = view.group_starts[group];
    const std::int64_t count = view.group_starts[group + 1] - begin;
    for (std::int64_t r = 0; r < view.group; r += Rows) {
      const std::int64_t stored = group * view.group + r;
      const int rows = static_cast<int>(smaller(Rows, view.rows - stored));
      Floats totals[Rows][Vectors] = {};
      accumulate(view.indices + begin, values + begin * view.group + r, count, view.group, x,
                 offset, totals);
#pragma GCC unroll 4
      for (int k = 0; k < Rows; ++k) {
        if (k >= rows) break;
        const std::int64_t row = view.row(stored + k);
        const Floats bias = splat(io.bias == nullptr ? 0.0f : io.bias[row]);
        T* y = static_cast<T*>(io.y) + row * band.image_size;
        alignas(64) float sums[strip_width];
        float* to = sums;
        if constexpr (sizeof(T) == sizeof(float)) {
          if (strip.whole) to = y + strip.segments[0].destination;
        }
#pragma GCC unroll 4
        for (int v = 0; v < Vectors; ++v) {
          store(to + v * lanes, clamp(totals[k][v] + bias, low, high));
        }
        if (to == sums) store_segments(sums, strip, y);
      }
    }
  }
}

template <int Rows, class T>
void convolve_strips(const GroupedView& view, std::int64_t first, std::int64_t end,
                     const Band& band, const Strips& strips, const Convolved& io) {
  for (std::int64_t s = 0; s < strips.count; ++s) {
    const Strip& strip = strips.strips[s];
    switch (strip.vectors) {
      case 1: convolve_strip<1, Rows, T>(view, first, end, band, strip, io); break;
      case 2: convolve_strip<2, Rows, T>(view, first, end, band, strip, io); break;
      case 3: convolve_strip<3, Rows, T>(view, first, end, band, strip, io); break;
      default: convolve_strip<strip_vectors, Rows, T>(view, first, end, band, strip, io);
    }
  }
}

// Groups of rows `first` to `end`, which read the same channels, as many rows at a time as share
// positions and fit into the registers.
template <class T>
void convolve_strips(const GroupedView& view, std::int64_t first, std::int64_t end,
                     const Band& band, const Strips& strips, const Convolved& io) {
  if (lanes == 16 && view.group % 4 == 0) {
    convolve_strips<4, T>(view, first, end, band, strips, io);
  } else if (view.group % 2 == 0) {
    convolve_strips<2, T>(view, first, end, band, strips, io);
  } else {
    convolve_strips<1, T>(view, first, end, band, strips, io);
  }
}

// Bands take about this many floats, a part of the second-level cache of a core.
constexpr std::int64_t band_floats = 64 * 1024;

// The matrix is cut into pieces where there are too few bands for all threads to help.
inline std::int64_t row_pieces(std::int64_t bands, std::int64_t row_groups, int threads) {
  const std::int64_t wanted = threads <= 1 ? 1 : (4 * threads + bands - 1) / bands;
  return wanted < 1 ? 1 : smaller(wanted, row_groups);
}

template <class T>
void convolve(const GroupedView& view, const Convolution& shape, const Convolved& io) {
  const Grid grid(shape, band_floats, strip_width);
  std::int32_t* offsets = scratch<std::int32_t>(Scratch::input, view.columns);
  grid.fill_offsets(offsets);
  // Groups of rows that read the same channels lie together.
  const std::int64_t row_groups = (view.rows + view.group - 1) / view.group;
  const std::int64_t per_input = row_groups / shape.groups;
  const std::int64_t bands = grid.bands();
  if (row_groups == 0 || bands == 0) return;
  const std::int64_t pieces = row_pieces(bands, row_groups, io.threads);
  parallel_for(bands * pieces, io.threads, [&](std::int64_t task) {
    const std::int64_t band = task / pieces, piece = task % pieces;
    const std::int64_t end = row_groups * (piece + 1) / pieces;
    float* panel = scratch<float>(Scratch::tile, grid.panel_floats());
    const Strips strips(grid, band, view.rows);
    for (std::int64_t at = row_groups * piece / pieces; at < end;) {
      const std::int64_t input = at / per_input, next = smaller(end, (input + 1) * per_input);
      grid.fill_panel(static_cast<const T*>(io.x), band, input, panel);
      convolve_strips<T>(view, at, next, {panel, offsets, grid.image_size()}, strips, io);
      at = next;
    }
  });
}

}  // namespace thresher::THRESHER_NAMESPACE
