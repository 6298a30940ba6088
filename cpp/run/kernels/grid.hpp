// Convolution without unfolding: output positions that follow each other read inputs that follow
// each other, so that a strip of positions is multiplied as columns of a matrix are.
//
// A thread copies a band of the input into a panel of planes, one per channel and phase. A phase is
// what is left of rows and columns when every stride-th is taken; padding becomes zeros. Planes are
// `pitch` floats wide, a few more than the output, so that a tap of the kernel is a constant offset
// for all positions of the band. Positions past the end of an output row are computed and dropped.
// In a 1x1 convolution without stride and padding, positions of all images form one long row.
#pragma once

#include <vector>

#include "../threads.hpp"
#include "../views.hpp"
#include "simd.hpp"

namespace thresher::THRESHER_NAMESPACE {

// One dimension of the kernel.
struct Taps {
  std::vector<std::int64_t> phases;  // those that a tap reads, of 0 ... stride - 1
  std::vector<std::int64_t> phase;   // of each tap: which of `phases`
  std::vector<std::int64_t> shift;   // of each tap: how many positions on
  std::int64_t reach;                // greatest shift

  Taps(std::int64_t kernel, std::int64_t stride, std::int64_t dilation) : reach(0) {
    for (std::int64_t k = 0; k < kernel; ++k) {
      const std::int64_t wanted = k * dilation % stride;
      std::size_t found = 0;
      while (found < phases.size() && phases[found] != wanted) ++found;
      if (found == phases.size()) phases.push_back(wanted);
      phase.push_back(static_cast<std::int64_t>(found));
      shift.push_back(k * dilation / stride);
      if (shift.back() > reach) reach = shift.back();
    }
  }
};

// A run of positions of a band: where it starts in the band and in the first channel of the images.
struct Segment {
  std::int64_t position, count, destination;
};

class Grid {
 public:
  // Bands of about `band_floats` floats of input, and a multiple of `strip` positions where images
  // form a row.
  Grid(const Convolution& shape, std::int64_t band_floats, std::int64_t strip)
      : shape_(shape),
        rows_(shape.kernel_height, shape.stride_height, shape.dilation_height),
        columns_(shape.kernel_width, shape.stride_width, shape.dilation_width),
        long_row_(is_pointwise(shape)) {
    pitch_ = shape.out_width + columns_.reach;
    const std::int64_t planes = shape.channels / shape.groups * phases();
    const std::int64_t fitting = band_floats / (planes + 1) / (pitch_ + 1) - rows_.reach;
    band_rows_ = fitting < 1 ? 1 : smaller(fitting, shape.out_height);
    if (long_row_) {
      // Several strips where they fit: memory answers faster to longer runs. Planes a power of two
      // apart would compete for the same lines of the cache.
      constexpr std::int64_t most_strips = 4;
      const std::int64_t strips = smaller(most_strips, band_floats / (planes + 1) / strip);
      width_ = strips < 1 ? strip : strips * strip;
      plane_ = width_ + (strips > 1 ? panel_alignment : 0);
    } else {
      width_ = round_up(band_rows_ * pitch_, panel_alignment);
      plane_ = round_up(width_ + rows_.reach * pitch_ + columns_.reach, panel_alignment);
    }
    bands_per_image_ = (shape.out_height + band_rows_ - 1) / band_rows_;
  }

  static bool is_pointwise(const Convolution& shape) {
    return shape.kernel_height == 1 && shape.kernel_width == 1 && shape.stride_height == 1 &&
           shape.stride_width == 1 && shape.top == 0 && shape.left == 0 &&
           shape.out_height == shape.height && shape.out_width == shape.width;
  }

  std::int64_t bands() const {
    if (!long_row_) return shape_.images * bands_per_image_;
    return (shape_.images * image_size() + width_ - 1) / width_;
  }
  // Positions of a band, a multiple of the lanes.
  std::int64_t width() const { return width_; }
  std::int64_t panel_floats() const { return shape_.channels / shape_.groups * phases() * plane_; }

  // Where in the panel each column of the matrix starts.
  void fill_offsets(std::int32_t* offsets) const {
    const std::int64_t channels = shape_.channels / shape_.groups;
    for (std::int64_t i = 0; i < shape_.kernel_height; ++i) {
      for (std::int64_t j = 0; j < shape_.kernel_width; ++j) {
        const std::int64_t phase = rows_.phase[i] * phase_columns() + columns_.phase[j];
        const std::int64_t shift = rows_.shift[i] * pitch_ + columns_.shift[j];
        for (std::int64_t c = 0; c < channels; ++c) {
          *offsets++ = static_cast<std::int32_t>((c * phases() + phase) * plane_ + shift);
        }
      }
    }
  }

  // Copies the input that a band needs, of the channels of one group, into `panel`.
  template <class T>
  void fill_panel(const T* x, std::int64_t band, std::int64_t group, float* panel) const {
    const std::int64_t channels = shape_.channels / shape_.groups;
    for (std::int64_t c = 0; c < channels; ++c) {
      const std::int64_t channel = group * channels + c;
      if (long_row_) {
        fill_long_row(x, band, channel, panel + c * plane_);
      } else {
        fill_planes(x, band, channel, panel + c * phases() * plane_);
      }
    }
  }

  // Calls run(segment) for the positions from `first` to `end` of a band that belong to the output.
  // `rows` is the number of channels of the images that are meant.
  template <class Run>
  void segments(std::int64_t band, std::int64_t first, std::int64_t end, std::int64_t rows,
                const Run& run) const {
    const std::int64_t size = image_size();
    if (long_row_) {
      const std::int64_t stop = smaller(band * width_ + end, shape_.images * size);
      for (std::int64_t at = band * width_ + first; at < stop;) {
        const std::int64_t image = at / size, count = smaller(stop, (image + 1) * size) - at;
        run(Segment{at - band * width_ - first, count, image * rows * size + at % size});
        at += count;
      }
      return;
    }
    const std::int64_t image = band / bands_per_image_, start = first_row(band);
    const std::int64_t rows_left = smaller(band_rows_, shape_.out_height - start);
    for (std::int64_t row = first / pitch_; row < rows_left && row * pitch_ < end; ++row) {
      const std::int64_t from = row * pitch_ < first ? first - row * pitch_ : 0;
      const std::int64_t to = smaller(shape_.out_width, end - row * pitch_);
      if (from >= to) continue;
      run(Segment{row * pitch_ + from - first, to - from,
                  image * rows * size + (start + row) * shape_.out_width + from});
    }
  }

  std::int64_t image_size() const { return shape_.out_height * shape_.out_width; }

 private:
  std::int64_t phase_columns() const { return static_cast<std::int64_t>(columns_.phases.size()); }
  std::int64_t phases() const {
    return static_cast<std::int64_t>(rows_.phases.size()) * phase_columns();
  }
  std::int64_t first_row(std::int64_t band) const { return band % bands_per_image_ * band_rows_; }

  template <class T>
  static void copy_row(float* to, const T* from, std::int64_t step, std::int64_t count) {
    std::int64_t i = 0;
    if (step == 1) {
      for (; i + lanes <= count; i += lanes) store(to + i, load(from + i));
    } else if (step == 2) {
      // The last pair is left out, since its second half may lie past the end of x.
      for (; i + lanes < count; i += lanes) {
        store(to + i, even_lanes(load(from + 2 * i), load(from + 2 * i + lanes)));
      }
    }
    for (; i < count; ++i) to[i] = widen(from[i * step]);
  }

  template <class T>
  void fill_long_row(const T* x, std::int64_t band, std::int64_t channel, float* plane) const {
    std::int64_t filled = 0;
    segments(band, 0, width_, shape_.channels, [&](const Segment& segment) {
      copy_row(plane + segment.position, x + segment.destination + channel * image_size(), 1,
               segment.count);
      filled = segment.position + segment.count;
    });
    clear(plane + filled, plane_ - filled);
  }

  template <class T>
  void fill_planes(const T* x, std::int64_t band, std::int64_t channel, float* planes) const {
    const std::int64_t image = band / bands_per_image_, start = first_row(band);
    const std::int64_t rows = smaller(band_rows_, shape_.out_height - start) + rows_.reach;
    x += (image * shape_.channels + channel) * shape_.height * shape_.width;
    clear(planes, phases() * plane_);
    for (const std::int64_t row_phase : rows_.phases) {
      for (const std::int64_t column_phase : columns_.phases) {
        // Columns of the image are at column_phase - left + i * stride.
        const std::int64_t stride = shape_.stride_width, origin = column_phase - shape_.left;
        const std::int64_t before =
            origin < 0 ? smaller((stride - 1 - origin) / stride, pitch_) : 0;
        const std::int64_t past =
            origin < shape_.width ? (shape_.width - origin + stride - 1) / stride : 0;
        const std::int64_t after = past < before ? before : smaller(past, pitch_);
        for (std::int64_t row = 0; row < rows; ++row) {
          const std::int64_t y = (start + row) * shape_.stride_height + row_phase - shape_.top;
          if (y < 0 || y >= shape_.height) continue;
          copy_row(planes + row * pitch_ + before, x + y * shape_.width + origin + before * stride,
                   stride, after - before);
        }
        planes += plane_;
      }
    }
  }

  const Convolution& shape_;
  Taps rows_, columns_;
  bool long_row_;
  std::int64_t pitch_, band_rows_, width_, plane_, bands_per_image_;
};

}  // namespace thresher::THRESHER_NAMESPACE
