#define THRESHER_NAMESPACE portable
#include "table.inc"
