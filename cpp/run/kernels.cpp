#include "kernels.hpp"

#include "isa.hpp"

namespace thresher {

namespace portable {
extern const Kernels table;
}
#if defined(__x86_64__)
namespace avx2 {
extern const Kernels table;
}
namespace avx512 {
extern const Kernels table;
}
namespace avx512bf16 {
extern const Kernels table;
}
#endif

const Kernels& kernels() {
#if defined(__x86_64__)
  switch (active_isa()) {
    case Isa::portable: return portable::table;
    case Isa::avx2: return avx2::table;
    case Isa::avx512: return avx512::table;
    // The tiles of AMX serve the engine alone.
    case Isa::avx512bf16:
    case Isa::amx: return avx512bf16::table;
  }
#endif
  return portable::table;
}

}  // namespace thresher
