#include "isa.hpp"

#include <array>
#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <string>

#if defined(THRESHER_AMX) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace thresher {
namespace {

constexpr std::array<std::string_view, 5> names{"portable", "avx2", "avx512", "avx512bf16", "amx"};

#if defined(__x86_64__)
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2") &&
         __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bitalg") &&
         __builtin_cpu_supports("avx512vpopcntdq");
}

// Linux gives a process the registers of tiles when it asks for them, and not before.
bool has_amx() {
#if defined(THRESHER_AMX) && defined(__linux__)
  constexpr unsigned tiles = 1u << 24, products_of_int8 = 1u << 25;
  constexpr long ask = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  if ((d & tiles) == 0 || (d & products_of_int8) == 0) return false;
  return syscall(SYS_arch_prctl, ask, tile_data) == 0;
#else
  return false;
#endif
}
#endif

Isa detect() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (has_avx512()) {
    if (!__builtin_cpu_supports("avx512bf16")) return Isa::avx512;
    return has_amx() ? Isa::amx : Isa::avx512bf16;
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
                              " is unknown; use portable, avx2, avx512, avx512bf16 or amx");
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
