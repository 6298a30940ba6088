// Multiplies with a kernel and with a team of threads, for compilers and processors of any kind.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <vector>

#include "run/engine/team.hpp"
#include "run/threads.hpp"
#define THRESHER_NAMESPACE portable
#include "run/kernels/indexed.hpp"

int main() {
  constexpr std::int64_t rows = 37, columns = 64, fan_in = 9;
  std::vector<std::uint16_t> indices;
  std::vector<float> values;
  for (std::int64_t i = 0; i < rows * fan_in; ++i) {
    indices.push_back(static_cast<std::uint16_t>(i % fan_in * 7 + i % 5));
    values.push_back(static_cast<float>(i % 11) - 5);
  }
  const thresher::IndexedView matrix{indices.data(), values.data(), nullptr, fan_in, rows, columns};
  for (const std::int64_t batch : {1, 5}) {
    std::vector<float> x(batch * columns), y(batch * rows, NAN);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 13) - 6;
    thresher::portable::multiply_indexed<float>(matrix, {x.data(), batch, y.data(), nullptr, 2});
    for (std::int64_t b = 0; b < batch; ++b)
      for (std::int64_t r = 0; r < rows; ++r) {
        float sum = 0;  // of whole numbers: exact in any order
        for (std::int64_t k = r * fan_in; k < (r + 1) * fan_in; ++k)
          sum += values[k] * x[b * columns + indices[k]];
        if (y[b * rows + r] != sum) return std::printf("row %d\n", static_cast<int>(r)), 1;
      }
  }
  std::vector<int> done(100, 0);
  auto work = [&](thresher::Member member) {
    for (int step = 0; step < 3; ++step) {
      member.share(100, [&](std::int64_t i) { ++done[i]; });
      member.barrier.wait();
    }
  };
  thresher::run_team(2, work);
  for (const int each : done)
    if (each != 3) return std::printf("a team did %d of 3 steps\n", each), 1;
  return std::printf("right\n"), 0;
}
