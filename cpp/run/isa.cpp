#include "isa.hpp"

#include <array>
#include <cstdlib>
#include <stdexcept>
#include <string>

#if defined(__linux__) && defined(__x86_64__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace thresher {
namespace {

constexpr std::array<std::string_view, 4> names{"portable", "avx2", "avx512", "amx"};

#if defined(__x86_64__)
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2") &&
         __builtin_cpu_supports("avx512bitalg") && __builtin_cpu_supports("avx512vpopcntdq") &&
         __builtin_cpu_supports("avx512bf16");
}

// Linux hands out the tile registers only to processes that ask for them.
bool has_amx() {
#if defined(__linux__)
  constexpr int request_permission = 0x1023, tile_data = 18;
  unsigned eax = 7, ebx = 0, ecx = 0, edx = 0;
  __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
  const bool bf16_tiles = (edx >> 22 & 1) != 0 && (edx >> 24 & 1) != 0;
  return bf16_tiles && syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
  return false;
#endif
}
#endif

Isa detect() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (has_avx512()) return has_amx() ? Isa::amx : Isa::avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Isa::avx2;
#endif
  return Isa::portable;
}

Isa forced(const std::string& wanted) {
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (names[i] != wanted) continue;
    const Isa isa = static_cast<Isa>(i);
    if (isa <= detected_isa()) return isa;
    throw std::invalid_argument("THRESHER_ISA=" + wanted + " is not supported by this processor; " +
                                "the best here is " + std::string(name(detected_isa())));
  }
  throw std::invalid_argument("THRESHER_ISA=" + wanted +
                              " is unknown; use portable, avx2, avx512 or amx");
}

}  // namespace

std::string_view name(Isa isa) { return names[static_cast<std::size_t>(isa)]; }

Isa detected_isa() {
  static const Isa isa = detect();
  return isa;
}

Isa active_isa() {
  const char* wanted = std::getenv("THRESHER_ISA");
  return wanted == nullptr || *wanted == '\0' ? detected_isa() : forced(wanted);
}

}  // namespace thresher
