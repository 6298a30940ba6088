// The threads of one parallel region that work in step.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace thresher {

// Spins, as steps take microseconds, and yields once another process seems to have the core.
class Barrier {
 public:
  explicit Barrier(int size) : size_(size) {}

  void wait() {
    const unsigned round = round_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
      arrived_.store(0, std::memory_order_relaxed);
      round_.store(round + 1, std::memory_order_release);
      return;
    }
    constexpr int spins = 1000;
    for (int i = 0; round_.load(std::memory_order_acquire) == round; ++i) {
      if (i < spins) pause();
      else std::this_thread::yield();
    }
  }

 private:
  static void pause() {
#if defined(__x86_64__)
    _mm_pause();
#endif
  }

  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<unsigned> round_{0};
  int size_;
};

// One thread's view of its team.
struct Member {
  int rank, size;
  Barrier& barrier;

  // This thread's even share of `count`: from the first to before the last.
  std::pair<std::int64_t, std::int64_t> range(std::int64_t count) const {
    return {count * rank / size, count * (rank + 1) / size};
  }

  // Runs body(i) for it.
  template <class Body>
  void share(std::int64_t count, Body&& body) const {
    const auto [first, last] = range(count);
    for (std::int64_t i = first; i < last; ++i) body(i);
  }
};

// Runs work(context, member) on `threads` threads of the process's OpenMP runtime, or fewer where
// it gives fewer: on one in a child of a fork, where that runtime's threads are gone, and where
// this was compiled without OpenMP.
void run_team(int threads, void (*work)(void*, Member), void* context);

template <class Work>
void run_team(int threads, Work& work) {
  run_team(
      threads, [](void* context, Member member) { (*static_cast<Work*>(context))(member); }, &work);
}

}  // namespace thresher
