// Prox of the one-dimensional total variation: the taut string.
#pragma once

#include <cstddef>
#include <deque>
#include <vector>

namespace thresher {

// The cumulative sum of the answer is the shortest path from (0, 0) to (n, sum of x) inside the
// tube of radius `threshold` around the cumulative sum of x. The funnel of the path seen from its
// last fixed corner is kept as two chains of corners: the least concave majorant of the lower
// wall and the greatest convex minorant of the upper wall. Linear time.
inline void total_variation(const double* x, double threshold, double* out, std::size_t n) {
  if (n == 0) return;
  struct Point {
    double at, height;
  };
  const auto slope = [](const Point& a, const Point& b) {
    return (b.height - a.height) / (b.at - a.at);
  };
  Point corner{0, 0};
  std::deque<Point> lower, upper;  // excluding the corner itself
  std::size_t written = 0;
  const auto fix = [&](const Point& next) {
    const double level = slope(corner, next);
    while (written < static_cast<std::size_t>(next.at)) out[written++] = level;
    corner = next;
  };
  double sum = 0;
  for (std::size_t i = 1; i <= n; ++i) {
    sum += x[i - 1];
    const double radius = i == n ? 0 : threshold;
    const Point low{double(i), sum - radius}, high{double(i), sum + radius};

    // Extend the lower wall, dropping corners that a straight line from before would pass above.
    while (!lower.empty()) {
      const Point& before = lower.size() > 1 ? lower[lower.size() - 2] : corner;
      if (slope(before, lower.back()) > slope(before, low)) break;
      lower.pop_back();
    }
    lower.push_back(low);
    // Where the lower wall now rises above the upper one, the string bends around the latter.
    while (lower.size() == 1 && !upper.empty() &&
           slope(corner, upper.front()) <= slope(corner, low)) {
      fix(upper.front());
      upper.pop_front();
    }

    while (!upper.empty()) {
      const Point& before = upper.size() > 1 ? upper[upper.size() - 2] : corner;
      if (slope(before, upper.back()) < slope(before, high)) break;
      upper.pop_back();
    }
    upper.push_back(high);
    while (upper.size() == 1 && !lower.empty() && lower.front().at < high.at &&
           slope(corner, lower.front()) >= slope(corner, high)) {
      fix(lower.front());
      lower.pop_front();
    }
  }
  while (!lower.empty()) {  // at the end both walls meet in one point
    fix(lower.front());
    lower.pop_front();
  }
}

}  // namespace thresher
