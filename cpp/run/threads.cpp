#include "threads.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <exception>
#include <new>

namespace thresher {
namespace {

constexpr std::size_t alignment = 64;

struct Buffer {
  void* data = nullptr;
  std::size_t size = 0;
  ~Buffer() { std::free(data); }
};

}  // namespace

void run_tasks(std::int64_t count, int threads, Task task, void* context) {
  if (threads <= 1 || count <= 1) {
    for (std::int64_t i = 0; i < count; ++i) task(context, i);
    return;
  }
  [[maybe_unused]] const int team = static_cast<int>(std::min<std::int64_t>(threads, count));
  std::atomic<std::int64_t> next{0};
  std::atomic<bool> failed{false};
  std::exception_ptr failure;
  // An exception, such as that memory is short, must not leave the region: it would end the process.
#if defined(_OPENMP)
#pragma omp parallel num_threads(team)
#endif
  {
    try {
      for (std::int64_t i = next++; i < count; i = next++) task(context, i);
    } catch (...) {
      next = count;  // nothing more is handed out
      if (!failed.exchange(true)) failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(failure);
}

void* scratch(Scratch slot, std::size_t bytes) {
  thread_local std::array<Buffer, static_cast<std::size_t>(Scratch::count)> buffers;
  Buffer& buffer = buffers[static_cast<std::size_t>(slot)];
  if (buffer.size < bytes || buffer.data == nullptr) {
    std::free(buffer.data);
    buffer.size = (bytes / alignment + 1) * alignment;
    buffer.data = std::aligned_alloc(alignment, buffer.size);
    if (buffer.data == nullptr) {
      buffer.size = 0;
      throw std::bad_alloc();
    }
  }
  return buffer.data;
}

}  // namespace thresher
