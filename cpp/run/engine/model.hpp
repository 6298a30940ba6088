// A decoder-only language model as the engine reads it: matrices in panels of rows, and switches.
#pragma once

#include <cstdint>
#include <vector>

namespace thresher {

enum class Format { bf16, int8, int4 };

// A matrix of panels of 16 rows. A panel is a run of groups of 32 columns, and a group is
//   bf16: 16 lines of 16 rows x 2 columns
//   int8: 8 lines of 16 rows x 4 columns, bytes of code + 128
//   int4: 4 lines of 16 rows x 8 columns, bytes of code + 8: the first four columns in low halves
// What is beyond the last row or column is zero.
struct EngineMatrix {
  static constexpr std::int64_t panel_rows = 16, group = 32;

  Format format = Format::bf16;
  const std::uint8_t* codes = nullptr;
  const std::uint16_t* scales = nullptr;  // float16, [panel][group][row]; null for bf16
  float unit = 1;                         // what scales are multiples of
  const float* bias = nullptr;            // by row, padded to whole panels; or null
  std::int64_t rows = 0, columns = 0;

  std::int64_t panels() const { return (rows + panel_rows - 1) / panel_rows; }
  std::int64_t groups() const { return (columns + group - 1) / group; }
  std::int64_t group_bytes() const {
    return format == Format::bf16 ? 1024 : format == Format::int8 ? 512 : 256;
  }
  const std::uint8_t* panel(std::int64_t index) const {
    return codes + index * groups() * group_bytes();
  }
  const std::uint16_t* panel_scales(std::int64_t index) const {
    return scales + index * groups() * panel_rows;
  }
};

struct EngineLayer {
  EngineMatrix qkv;      // rows of queries, then keys, then values
  EngineMatrix out;
  EngineMatrix gate_up;  // 16 rows of the gate, the same 16 of up, and so on
  EngineMatrix down;
  const float* attention_norm = nullptr;
  const float* mlp_norm = nullptr;
  const float* query_norm = nullptr;  // of each head; or null
  const float* key_norm = nullptr;
  bool rotary = true;
  std::int64_t window = 0;  // positions that a token sees, its own included; 0: all
};

struct EngineModel {
  EngineMatrix embedding, head;
  const float* final_norm = nullptr;
  std::vector<EngineLayer> layers;
  std::int64_t hidden = 0, heads = 0, kv_heads = 0, head_dim = 0, intermediate = 0;
  float epsilon = 0;
  std::vector<float> frequencies;  // of rotary positions, head_dim / 2
  float rotary_scale = 1;
};

}  // namespace thresher
