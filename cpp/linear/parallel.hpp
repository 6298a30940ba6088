// Splitting a loop over threads; small loops stay on the calling thread.
#pragma once

#include <algorithm>
#include <cstddef>
#include <thread>
#include <vector>

namespace thresher {

template <class Body>
void parallel_for(std::size_t count, int threads, Body body) {
  const std::size_t parts = std::min<std::size_t>(std::max(threads, 1), count);
  if (parts <= 1) {
    body(std::size_t{0}, count);
    return;
  }
  std::vector<std::thread> pool;
  for (std::size_t part = 1; part < parts; ++part)
    pool.emplace_back(body, count * part / parts, count * (part + 1) / parts);
  body(std::size_t{0}, count / parts);
  for (std::thread& thread : pool) thread.join();
}

}  // namespace thresher
