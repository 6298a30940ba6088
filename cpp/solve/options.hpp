// What a descent is asked for, and what it tells.
#pragma once

#include <limits>

namespace thresher {

struct Options {
  double tolerance;    // on the duality gap, or on the optimality violation
  int max_iterations;  // rounds of working sets
  int max_epochs;      // passes over one working set
  bool gap;            // stop on the duality gap (convex problems) and screen with it
  bool verify;         // measure all blocks at the end; false where the caller judges the result
  int start_size;      // first working set
  int threads;
};

struct Report {
  double criterion = std::numeric_limits<double>::infinity();
  int iterations = 0;
  long epochs = 0;
  bool converged = false;
};

// What one pass over a block finds: how far it is from optimal, and the norm of the
// correlation of its columns with the residual (the dual constraint bounds it by strength).
template <class T>
struct Measure {
  T violation = 0, correlation = 0;
};

}  // namespace thresher
