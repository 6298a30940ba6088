// What every matrix that can convolve calls.
#pragma once

#include "bind.hpp"

namespace thresher {

// Whether there is no output at all.
bool is_empty(const Convolution& shape);

// Throws when the matrix does not fit the convolution.
void check_convolution(const GroupedView& view, const Convolution& shape);

void run_convolution(const GroupedView& view, bool bf16, const Convolution& shape, std::uintptr_t x,
                     std::uintptr_t y, std::uintptr_t bias, float low, float high, int threads);

}  // namespace thresher
