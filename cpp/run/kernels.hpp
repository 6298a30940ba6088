// The kernels of one instruction set, as a table of functions.
#pragma once

#include "element.hpp"
#include "views.hpp"

namespace thresher {

struct Kernels {
  void (*masked_bf16)(const MaskedView&, const Product&);
  void (*masked_float)(const MaskedView&, const Product&);
  void (*indexed_bf16)(const IndexedView&, const Product&);
  void (*indexed_float)(const IndexedView&, const Product&);
  void (*grouped_bf16)(const GroupedView&, const Product&);
  void (*grouped_float)(const GroupedView&, const Product&);
  void (*grouped_nm_bf16)(const GroupedNMView&, const Product&);
  void (*grouped_nm_float)(const GroupedNMView&, const Product&);
  void (*convolve_bf16)(const GroupedView&, const Convolution&, const Convolved&);
  void (*convolve_float)(const GroupedView&, const Convolution&, const Convolved&);
  void (*blocks_bf16)(const BlockView&, const Product&);
  void (*blocks_float)(const BlockView&, const Product&);
  void (*quantized_bf16)(const QuantizedView&, const Product&);
  void (*quantized_float)(const QuantizedView&, const Product&);
  void (*int8_bf16)(const Int8View&, const Product&);
  void (*int8_float)(const Int8View&, const Product&);
  // gradient of every stored value, from x and the gradient of y
  void (*value_gradient)(const IndexedView&, const float* x, const float* grad, std::int64_t batch,
                         float* gradient, int threads);
  void (*convolution_gradient)(const GroupedView&, const Convolution&, const float* x,
                               const float* grad, float* gradient, int threads);
};

// The table of the instruction set in use (see isa.hpp).
const Kernels& kernels();

}  // namespace thresher
