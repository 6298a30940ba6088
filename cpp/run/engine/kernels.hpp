// The engine's loop of one instruction set, as a table of functions.
#pragma once

#include "model.hpp"
#include "work.hpp"

namespace thresher {

struct EngineKernels {
  // Tokens of sequences, those of each one after another: their keys and values, and the logits.
  void (*forward)(const EngineModel&, EngineWork&, const Row* rows, std::int64_t count,
                  int threads);
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
