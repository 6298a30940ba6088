#define THRESHER_NAMESPACE avx512bf16
#include "table.inc"
