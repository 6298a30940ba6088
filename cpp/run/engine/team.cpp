#include "team.hpp"

#include <omp.h>

#include <memory>

#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

namespace thresher {
namespace {

#if defined(__unix__) || defined(__APPLE__)
const pid_t loaded_in = getpid();
bool forked() { return getpid() != loaded_in; }
#else
bool forked() { return false; }
#endif

}  // namespace

void run_team(int threads, void (*work)(void*, Member), void* context) {
  if (threads <= 1 || forked()) {
    Barrier alone(1);
    work(context, {0, 1, alone});
    return;
  }
  std::unique_ptr<Barrier> barrier;
#pragma omp parallel num_threads(threads)
  {
#pragma omp single
    barrier = std::make_unique<Barrier>(omp_get_num_threads());
    work(context, {omp_get_thread_num(), omp_get_num_threads(), *barrier});
  }
}

}  // namespace thresher
