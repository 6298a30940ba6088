#define THRESHER_NAMESPACE avx512
#include "table.inc"
