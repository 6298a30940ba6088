#include "team.hpp"

#if defined(_OPENMP)
#include <omp.h>
#endif

#include <memory>

#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

namespace thresher {
namespace {

#if !defined(_OPENMP)
bool alone(int) { return true; }
#elif defined(__unix__) || defined(__APPLE__)
const pid_t loaded_in = getpid();
bool alone(int threads) { return threads <= 1 || getpid() != loaded_in; }
#else
bool alone(int threads) { return threads <= 1; }
#endif

}  // namespace

void run_team(int threads, void (*work)(void*, Member), void* context) {
  if (alone(threads)) {
    Barrier barrier(1);
    work(context, {0, 1, barrier});
    return;
  }
#if defined(_OPENMP)
  std::unique_ptr<Barrier> barrier;
#pragma omp parallel num_threads(threads)
  {
#pragma omp single
    barrier = std::make_unique<Barrier>(omp_get_num_threads());
    work(context, {omp_get_thread_num(), omp_get_num_threads(), *barrier});
  }
#endif
}

}  // namespace thresher
