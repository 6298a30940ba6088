// The gradient of the stored values of a sparse matrix, visiting survivors only.
#pragma once

#include "indexed.hpp"

namespace thresher::THRESHER_NAMESPACE {

// gradient[i] += dot of the part of the panel at offset(indices[i]) with `grad`.
template <int Vectors, class Offset>
THRESHER_INLINE void add_dots(const std::uint16_t* indices, std::int64_t count, const float* panel,
                              const Offset& offset, const float* grad, float* gradient) {
  Floats kept[Vectors];
#pragma GCC unroll 8
  for (int v = 0; v < Vectors; ++v) kept[v] = load(grad + v * lanes);
  for (std::int64_t i = 0; i < count; ++i) {
    const float* row = panel + offset(indices[i]);
    Floats first = kept[0] * load(row), second{};
#pragma GCC unroll 8
    for (int v = 1; v < Vectors; ++v) {
      if (v % 2 == 0) first += kept[v] * load(row + v * lanes);
      if (v % 2 == 1) second += kept[v] * load(row + v * lanes);
    }
    gradient[i] += sum(first + second);
  }
}

// The same for any width that is a multiple of the lanes.
template <class Offset>
THRESHER_INLINE void add_all_dots(const std::uint16_t* indices, std::int64_t count,
                                  const float* panel, const Offset& offset, const float* grad,
                                  std::int64_t width, float* gradient) {
  std::int64_t b = 0;
  for (; b + 8 * lanes <= width; b += 8 * lanes) {
    add_dots<8>(indices, count, panel + b, offset, grad + b, gradient);
  }
  for (; b + 4 * lanes <= width; b += 4 * lanes) {
    add_dots<4>(indices, count, panel + b, offset, grad + b, gradient);
  }
  for (; b + lanes <= width; b += lanes) {
    add_dots<1>(indices, count, panel + b, offset, grad + b, gradient);
  }
}

// gradient[i] = sum over the batch of grad[b][row of i] * x[b][column of i]
inline void value_gradient(const IndexedView& view, const float* x, const float* grad,
                           std::int64_t batch, float* gradient, int threads) {
  constexpr std::int64_t strip = 16;
  const std::int64_t widest = cached_width(view.columns);
  for (std::int64_t first = 0; first < batch; first += widest) {
    const std::int64_t chunk = smaller(widest, batch - first);
    const std::int64_t width = round_up(chunk, panel_alignment);
    float* x_panel = scratch<float>(Scratch::panel, view.columns * width);
    float* grad_panel = scratch<float>(Scratch::input, view.rows * width);
    pack_panel<FloatStep<float>>(x + first * view.columns, chunk, view.columns, view.columns, width,
                                 x_panel, threads);
    pack_panel<FloatStep<float>>(grad + first * view.rows, chunk, view.rows, view.rows, width,
                                 grad_panel, threads);
    parallel_for((view.rows + strip - 1) / strip, threads, [&](std::int64_t task) {
      const std::int64_t end = smaller(view.rows, (task + 1) * strip);
      for (std::int64_t row = task * strip; row < end; ++row) {
        const std::int64_t begin = view.begin(row), count = view.begin(row + 1) - begin;
        float* out = gradient + begin;
        if (first == 0) clear(out, count);
        add_all_dots(
            view.indices + begin, count, x_panel,
            [width](std::int64_t index) { return index * width; }, grad_panel + row * width, width,
            out);
      }
    });
  }
}

}  // namespace thresher::THRESHER_NAMESPACE
