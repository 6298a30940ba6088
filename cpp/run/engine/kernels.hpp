// The engine's loop of one instruction set, as a table of functions.
#pragma once

#include "model.hpp"
#include "state.hpp"

namespace thresher {

struct Tokens {
  const std::int64_t* ids;
  std::int64_t count;
  float* logits;  // (count or 1, rows of the head)
  bool every;     // whether logits of every token are wanted, or of the last
};

struct EngineKernels {
  void (*forward)(const EngineModel&, EngineState&, const Tokens&, int threads);
  // y = x @ W.T + bias on one thread, rows of x and y after one another
  void (*multiply)(const EngineMatrix&, const float* x, std::int64_t batch, float* y);
  // One row of a matrix
  void (*read_row)(const EngineMatrix&, std::int64_t row, float* values);
  // Codes, scales and, unless they are null, minimums of groups of weights
  void (*quantize)(const float* weights, std::int64_t groups, float inverse_unit, int bits,
                   std::uint8_t* codes, std::uint16_t* scales, std::uint16_t* minimums);
};

// The table of the instruction set in use (see isa.hpp).
const EngineKernels& engine_kernels();

}  // namespace thresher
