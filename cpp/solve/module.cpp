#include <nanobind/nanobind.h>

namespace thresher {
void bind_descents(nanobind::module_& module);
void bind_pursuits(nanobind::module_& module);
void bind_signals(nanobind::module_& module);
}  // namespace thresher

NB_MODULE(_solve, module) {
  module.doc() = "Compiled kernels of thresher.solve";
  thresher::bind_descents(module);
  thresher::bind_pursuits(module);
  thresher::bind_signals(module);
}
