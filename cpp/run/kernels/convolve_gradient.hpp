// The gradient of the stored values of a sparse convolution, visiting survivors only.
#pragma once

#include "convolve.hpp"
#include "training.hpp"

namespace thresher::THRESHER_NAMESPACE {

// gradient[i] = sum over images and positions of grad at the row of i times what value i multiplies.
// Of matrices whose rows share nothing (group 1).
inline void convolution_gradient(const GroupedView& view, const Convolution& shape, const float* x,
                                 const float* grad, float* gradient, int threads) {
  const Grid grid(shape, band_floats, 2 * strip_width);
  std::int32_t* offsets = scratch<std::int32_t>(Scratch::input, view.columns);
  grid.fill_offsets(offsets);
  if (view.rows == 0) return;
  clear(gradient, view.group_starts[view.rows]);
  const std::int64_t per_input = view.rows / shape.groups;
  // Every value belongs to one piece: sums do not depend on the number of threads.
  const std::int64_t pieces = row_pieces(1, view.rows, threads);
  parallel_for(pieces, threads, [&](std::int64_t piece) {
    const std::int64_t end = view.rows * (piece + 1) / pieces;
    float* panel = scratch<float>(Scratch::tile, grid.panel_floats());
    float* positions = scratch<float>(Scratch::sums, grid.width());
    for (std::int64_t at = view.rows * piece / pieces; at < end;) {
      const std::int64_t input = at / per_input, next = smaller(end, (input + 1) * per_input);
      for (std::int64_t band = 0; band < grid.bands(); ++band) {
        grid.fill_panel(x, band, input, panel);
        for (std::int64_t row = at; row < next; ++row) {
          clear(positions, grid.width());
          grid.segments(band, 0, grid.width(), view.rows, [&](const Segment& segment) {
            copy(positions + segment.position, grad + segment.destination + row * grid.image_size(),
                 segment.count);
          });
          const std::int64_t begin = view.group_starts[row];
          add_all_dots(
              view.indices + begin, view.group_starts[row + 1] - begin, panel,
              [&](std::uint16_t index) { return offsets[index]; }, positions, grid.width(),
              gradient + begin);
        }
      }
      at = next;
    }
  });
}

}  // namespace thresher::THRESHER_NAMESPACE
