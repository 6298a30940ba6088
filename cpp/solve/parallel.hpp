// Splitting a loop over threads; small loops stay on the calling thread.
//
// Threads are started for each loop rather than kept. The loops alternate with coordinate descent
// on one thread, and OpenMP's threads, which spin while they wait, slow that down: a path of 50
// Lassos, 1000 x 5000, took 1.4 s with them on two cores, 0.3 s without.
#pragma once

#include <algorithm>
#include <cstddef>
#include <thread>
#include <vector>

namespace thresher {

// Calls body(begin, end) on parts of the range. `work` is about how many multiplications one
// index takes.
template <class Body>
void parallel_for(std::size_t count, double work, int threads, Body body) {
  constexpr double worth_a_thread = 1 << 20;  // 100 microseconds; a start takes half of that
  const double useful = std::min(double(count), double(count) * work / worth_a_thread);
  const auto parts = static_cast<std::size_t>(std::max(1.0, std::min(double(threads), useful)));
  std::vector<std::thread> pool;
  for (std::size_t part = 1; part < parts; ++part)
    pool.emplace_back(body, count * part / parts, count * (part + 1) / parts);
  body(std::size_t{0}, count / parts);
  for (std::thread& thread : pool) thread.join();
}

}  // namespace thresher
