#define THRESHER_NAMESPACE avx2
#include "table.inc"
