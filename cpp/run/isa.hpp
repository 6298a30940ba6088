// Which instruction set the kernels use.
#pragma once

#include <string_view>

namespace thresher {

enum class Isa { portable, avx2, avx512, avx512bf16, amx };

// "avx512" stands for F, BW, DQ, VL, VBMI, VBMI2, VNNI, BITALG and VPOPCNTDQ together (Ice Lake,
// Tiger Lake and later), "avx512bf16" for these and BF16 (Zen 4 and later), "amx" for these and
// AMX's tiles of int8 (Sapphire Rapids and later), where the operating system gives their registers.
// Processors with fewer of them use "avx2".
std::string_view name(Isa isa);

// The best set that this processor, the operating system and this build support.
Isa detected_isa();

// The set in use: the detected one, or what the environment variable THRESHER_ISA names.
// The variable is read at the first product. Throws std::invalid_argument, until it is put right,
// when that name is unknown or not supported here.
Isa active_isa();

// Lets the next product read the variable again: for tests, which force one set after another.
void forget_isa();

}  // namespace thresher
