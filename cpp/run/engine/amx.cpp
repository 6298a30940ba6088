#define THRESHER_NAMESPACE amx
#include "table.inc"
