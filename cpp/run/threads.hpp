// The process's OpenMP threads, and scratch memory that each of them keeps between calls.
//
// PyTorch's dense layers run on the same OpenMP runtime. A pool of our own would find its cores
// taken by threads that still wait, spinning, for the next dense layer, and the other way round.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace thresher {

using Task = void (*)(void* context, std::int64_t index);

// Runs task(context, i) for every i below `count` on at most `threads` threads, the caller's
// included, handing out indices as threads become free. Several Python threads may call at once.
// An exception of a task is thrown here, once all threads have stopped.
void run_tasks(std::int64_t count, int threads, Task task, void* context);

template <class Body>
void parallel_for(std::int64_t count, int threads, Body&& body) {
  run_tasks(
      count, threads, [](void* context, std::int64_t i) { (*static_cast<Body*>(context))(i); },
      &body);
}

// Runs body(first, end) for runs of rows, a multiple of `unit` each but for the last: long, because
// memory answers slowly where a run starts, and several a thread, which then finish together.
template <class Body>
void parallel_rows(std::int64_t rows, std::int64_t unit, int threads, Body&& body) {
  constexpr std::int64_t runs_per_thread = 16;
  const std::int64_t even = rows / (runs_per_thread * std::max(threads, 1));
  const std::int64_t run = std::max(even / unit, std::int64_t{1}) * unit;
  parallel_for((rows + run - 1) / run, threads,
               [&](std::int64_t i) { body(i * run, std::min(rows, (i + 1) * run)); });
}

// Memory of at least `bytes`, aligned to 64, owned by the calling thread and reused: a later call
// with the same slot may hand out the same memory. It is not cleared.
enum class Scratch { input, panel, tile, sums, row, mask, count };
void* scratch(Scratch slot, std::size_t bytes);

template <class T>
T* scratch(Scratch slot, std::int64_t count) {
  return static_cast<T*>(scratch(slot, static_cast<std::size_t>(count) * sizeof(T)));
}

}  // namespace thresher
