// A decoder-only language model as the engine reads it: matrices in panels of rows, and switches.
#pragma once

#include <cstdint>
#include <vector>

namespace thresher {

enum class Format { bf16, float16, float32, int8, int4, channels };

// A matrix of panels of 16 rows, or of 128 in channels. A panel is a run of groups of 32 columns,
// and a group is
//   bf16: 16 lines of 16 rows x 2 columns
//   float16, float32: 32 lines of 16 rows x 1 column
//   int8: 8 lines of 16 rows x 4 columns
//   int4: 4 lines of 16 rows x 8 columns, the first four columns in low halves of bytes
//   channels: 32 lines of 128 rows x 1 column in four bits, so that columns need not be read whose
//     inputs are zero. Low halves of bytes are rows 0 to 63, high ones the others; byte
//     16 l + 4 k + i is row 16 k + 4 l + i, so that interleaving lines puts rows in order. The lines
//     of a column lie together for four panels, a strip, or for those that are left at the end.
// A code counts from the middle of its range, 128 or 8, or where there are minimums from 0: an entry
// is code * scale + minimum, times the unit. What is beyond the last row or column is zero.
struct EngineMatrix {
  static constexpr std::int64_t panel_rows = 16, group = 32, tall_rows = 128, strip_panels = 4;

  Format format = Format::bf16;
  const std::uint8_t* codes = nullptr;
  const std::uint16_t* scales = nullptr;    // float16, [panel][group][row]; null without codes
  const std::uint16_t* minimums = nullptr;  // likewise; null where codes count from the middle
  float unit = 1;                           // what scales and minimums are multiples of
  const float* bias = nullptr;              // by row, padded to whole panels; or null
  const float* thresholds = nullptr;        // by column: smaller inputs are dropped; or null
  std::int64_t rows = 0, columns = 0;

  // Rows of a panel.
  std::int64_t height() const { return format == Format::channels ? tall_rows : panel_rows; }
  std::int64_t panels() const { return (rows + height() - 1) / height(); }
  std::int64_t groups() const { return (columns + group - 1) / group; }
  std::int64_t group_bytes() const {
    switch (format) {
      case Format::bf16:
      case Format::float16: return 1024;
      case Format::float32: return 2048;
      case Format::int8: return 512;
      case Format::int4: return 256;
      case Format::channels: return 2048;
    }
    return 0;
  }
  bool has_codes() const {
    return format == Format::int8 || format == Format::int4 || format == Format::channels;
  }
  const std::uint8_t* panel(std::int64_t index) const {
    return codes + index * groups() * group_bytes();
  }
  // Where a panel's scales, and its minimums, begin.
  std::int64_t scale_place(std::int64_t panel) const { return panel * groups() * height(); }
};

// Of the gate, or of what goes down; gelu is the one by tanh.
enum class Activation { silu, gelu, relu };

struct EngineLayer {
  // Rows of queries, then keys, then values: one matrix, or three whose inputs differ.
  std::vector<EngineMatrix> qkv;
  EngineMatrix out;
  // One matrix of 16 rows of the gate, the same 16 of up, and so on; or the gate and up; or, of
  // models without gates, up alone.
  std::vector<EngineMatrix> gate_up;
  EngineMatrix down;
  // Norms of the hidden width: weights, and after them shifts where the model's norms centre.
  const float* attention_norm = nullptr;
  const float* mlp_norm = nullptr;
  // Of what attention and the network add to the residual stream; or null.
  const float* attention_after = nullptr;
  const float* mlp_after = nullptr;
  const float* query_norm = nullptr;  // of each head; or null
  const float* key_norm = nullptr;
  bool rotary = true;
  std::int64_t turning = 0;  // which set of frequencies
  std::int64_t window = 0;   // positions that a token sees, its own included; 0: all
};

struct EngineModel {
  EngineMatrix embedding, head;
  EngineMatrix positions;  // a row for each, added to embeddings; without rows there is none
  const float* final_norm = nullptr;
  std::vector<EngineLayer> layers;
  std::int64_t hidden = 0, heads = 0, kv_heads = 0, head_dim = 0, intermediate = 0;
  float epsilon = 0;
  std::vector<float> frequencies;  // of rotary positions, sets of head_dim / 2
  float rotary_scale = 1;
  Activation activation = Activation::silu;
  bool gated = true;
  bool centred = false;  // whether norms take the mean away first
  float embedding_scale = 1, score_scale = 1;
  float score_cap = 0, logit_cap = 0;  // x becomes cap * tanh(x / cap); 0: x

  std::int64_t half() const { return head_dim / 2; }
  // Sets of frequencies.
  std::int64_t turnings() const { return static_cast<std::int64_t>(frequencies.size()) / half(); }

  // Of a head, padded to whole vectors.
  std::int64_t head_width() const {
    constexpr std::int64_t rows = EngineMatrix::panel_rows;
    return (head_dim + rows - 1) / rows * rows;
  }
};

}  // namespace thresher
