#include <nanobind/nanobind.h>

NB_MODULE(_run, module) { module.doc() = "Compiled kernels of thresher.run"; }
