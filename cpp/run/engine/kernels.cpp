#include "kernels.hpp"

#include "../isa.hpp"

namespace thresher {

namespace portable {
extern const EngineKernels engine_table;
}
#if defined(__x86_64__)
namespace avx2 {
extern const EngineKernels engine_table;
}
namespace avx512 {
extern const EngineKernels engine_table;
}
#if defined(THRESHER_AMX)
namespace amx {
extern const EngineKernels engine_table;
}
#endif
#endif

const EngineKernels& engine_kernels() {
#if defined(__x86_64__)
  switch (active_isa()) {
    case Isa::portable: return portable::engine_table;
    case Isa::avx2: return avx2::engine_table;
    case Isa::avx512: return avx512::engine_table;
    // Products with BF16's instructions would round their inputs to it.
    case Isa::avx512bf16: return avx512::engine_table;
#if defined(THRESHER_AMX)
    case Isa::amx: return amx::engine_table;
#else
    case Isa::amx: break;
#endif
  }
#endif
  return portable::engine_table;
}

}  // namespace thresher
