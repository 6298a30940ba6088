#include "isa.hpp"

#include <array>
#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace thresher {
namespace {

constexpr std::array<std::string_view, 4> names{"portable", "avx2", "avx512", "avx512bf16"};

#if defined(__x86_64__)
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2") &&
         __builtin_cpu_supports("avx512vnni") &&
         __builtin_cpu_supports("avx512bitalg") && __builtin_cpu_supports("avx512vpopcntdq");
}
#endif

Isa detect() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (has_avx512()) {
    return __builtin_cpu_supports("avx512bf16") ? Isa::avx512bf16 : Isa::avx512;
  }
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
                              " is unknown; use portable, avx2, avx512 or avx512bf16");
}

Isa resolve() {
  const char* wanted = std::getenv("THRESHER_ISA");
  return wanted == nullptr || *wanted == '\0' ? detected_isa() : forced(wanted);
}

constexpr int unresolved = -1;
std::atomic<int> resolved{unresolved};

}  // namespace

std::string_view name(Isa isa) { return names[static_cast<std::size_t>(isa)]; }

Isa detected_isa() {
  static const Isa isa = detect();
  return isa;
}

Isa active_isa() {
  const int known = resolved.load(std::memory_order_relaxed);
  if (known != unresolved) return static_cast<Isa>(known);
  // Threads that get here together find the same.
  const Isa isa = resolve();
  resolved.store(static_cast<int>(isa), std::memory_order_relaxed);
  return isa;
}

void forget_isa() { resolved.store(unresolved, std::memory_order_relaxed); }

}  // namespace thresher
