// What kernels are given: pointers into buffers that were checked when they were bound.
#pragma once

#include <cstdint>

namespace thresher {

// Survivors in row order and, for each row, which columns they belong to: as one bit per column
// (n == 0), or as `n` positions in every group of `m` columns, each of `position_bits` bits.
struct MaskedView {
  const std::uint8_t* mask;
  std::int64_t mask_stride;  // bytes of a row
  const void* values;
  std::int64_t count;              // of all values
  const std::int64_t* row_starts;  // bitmask: rows + 1 prefix sums of the survivors
  std::int64_t rows, columns;
  int n, m, position_bits;
  const std::uint32_t* group_masks;  // n positions as stored -> m-bit mask, or null
  const std::uint32_t* byte_masks;   // the same for all groups of a byte of positions, or null
};

// Survivors in row order with the column of each. Rows begin at row_starts, or hold `fan_in` each.
struct IndexedView {
  const std::uint16_t* indices;
  const void* values;
  const std::int64_t* row_starts;  // rows + 1, or null
  std::int64_t fan_in;
  std::int64_t rows, columns;

  std::int64_t begin(std::int64_t row) const {
    return row_starts == nullptr ? row * fan_in : row_starts[row];
  }
};

// Groups of `group` rows that share the positions of their survivors; CSR where `group` is 1. Rows
// are stored in the given order, the last group filled up with zeros.
struct GroupedView {
  const std::uint16_t* indices;      // one per position
  const void* values;                // `group` per position
  const std::int64_t* group_starts;  // ceil(rows / group) + 1, in positions
  const std::uint16_t* order;        // which row of the matrix a stored row is, or null: the same
  std::int64_t group;
  std::int64_t rows, columns;

  std::int64_t row(std::int64_t stored) const { return order == nullptr ? stored : order[stored]; }
};

// n survivors in every column of a group of m rows. In every chunk of columns of a group, columns
// are sorted by which rows they keep.
struct GroupedNMView {
  const std::uint8_t* indices;       // per column, which of its chunk
  const void* values;                // n per column
  const std::uint16_t* counts;       // columns of each pattern, per group and chunk
  const std::uint8_t* pattern_rows;  // the n rows of each pattern
  std::int64_t patterns;
  std::int64_t n, m;
  std::int64_t chunk;  // columns, fewer in the last one
  std::int64_t rows, columns;

  std::int64_t chunks() const { return (columns + chunk - 1) / chunk; }
};

// A two-dimensional convolution with a matrix of `kernel_height * kernel_width * channels / groups`
// columns, channels varying fastest. Images are (channels, height, width), padded with zeros: `top`
// rows and `left` columns before, after as many as the size of the output needs.
struct Convolution {
  std::int64_t images, channels, height, width;
  std::int64_t out_height, out_width;
  std::int64_t kernel_height, kernel_width;
  std::int64_t stride_height, stride_width;
  std::int64_t top, left;
  std::int64_t dilation_height, dilation_width;
  std::int64_t groups;
};

// Dense blocks of 16 rows and 32 columns, in row order, with the block column of each.
struct BlockView {
  static constexpr std::int64_t block_rows = 16, block_columns = 32;
  const void* values;
  const std::uint16_t* places;
  const std::int64_t* row_starts;  // ceil(rows / 16) + 1
  std::int64_t rows, columns;
};

// Groups of 16 weights of a row as 4-bit codes: weight = scale * (code - zero).
struct QuantizedView {
  static constexpr std::int64_t group = 16;
  const std::uint8_t* codes;       // 8 bytes a group, the first column in the low half of a byte
  const void* scales;              // one per group, of the element type of x
  const std::uint8_t* zeros;       // one per group, below 16
  const std::uint16_t* places;     // which group of columns
  const std::int64_t* row_starts;  // rows + 1
  std::int64_t rows, columns;
};

// Blocks of 4 rows and 1 column in int8, four blocks of the same rows to a group. Groups are
// filled with blocks of zeros; columns are counted up to a multiple of 4 for that.
struct Int8View {
  static constexpr std::int64_t block_rows = 4, group = 4, group_weights = 16;
  const std::int8_t* values;        // a group: 4 rows of 4 weights
  const std::uint16_t* columns_of;  // 4 a group, increasing within a row of blocks
  const std::int64_t* row_starts;   // in groups, ceil(rows / 4) + 1
  const std::int32_t* row_sums;     // of the weights of each row
  const void* scales;               // one a row, of the element type of x
  std::int64_t rows, columns;
};

}  // namespace thresher
