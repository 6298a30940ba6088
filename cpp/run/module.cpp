#include "bind.hpp"
#include "isa.hpp"

NB_MODULE(_run, module) {
  // A model that lives until the interpreter ends is no leak.
  nanobind::set_leak_warnings(false);
  module.doc() = "Compiled kernels of thresher.run";
  module.def("detected_isa", [] { return std::string(name(thresher::detected_isa())); });
  module.def("active_isa", [] { return std::string(name(thresher::active_isa())); });
  module.def("forget_isa", &thresher::forget_isa);
  thresher::bind_masked(module);
  thresher::bind_indexed(module);
  thresher::bind_grouped_nm(module);
  thresher::bind_convolution(module);
  thresher::bind_blocks(module);
  thresher::bind_quantized(module);
  thresher::bind_int8(module);
  thresher::bind_engine(module);
}
