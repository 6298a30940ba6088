#include <nanobind/nanobind.h>

NB_MODULE(_linear, module) { module.doc() = "Compiled kernels of thresher.linear"; }
