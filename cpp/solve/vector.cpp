#include "vector.hpp"

#include <cmath>
#include <cstdint>

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__)
#define THRESHER_CLONES \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define THRESHER_CLONES
#endif

// Four accumulators of one cache line each hide the latency of the additions; a plain loop
// would either keep the order of the sums (scalar) or need unsafe floating-point flags.
#define THRESHER_DEFINE(T, LANES, INDEX)                                                           \
  typedef T Line_##T __attribute__((vector_size(64), aligned(alignof(T)), may_alias));             \
  typedef INDEX Index_##T __attribute__((vector_size(64)));                                        \
                                                                                                   \
  THRESHER_CLONES T dot(const T* x, const T* y, std::size_t n) {                                   \
    Line_##T s0{}, s1{}, s2{}, s3{};                                                               \
    std::size_t i = 0;                                                                             \
    for (; i + 4 * LANES <= n; i += 4 * LANES) {                                                   \
      const Line_##T* a = reinterpret_cast<const Line_##T*>(x + i);                                \
      const Line_##T* b = reinterpret_cast<const Line_##T*>(y + i);                                \
      s0 += a[0] * b[0];                                                                           \
      s1 += a[1] * b[1];                                                                           \
      s2 += a[2] * b[2];                                                                           \
      s3 += a[3] * b[3];                                                                           \
    }                                                                                              \
    for (; i + LANES <= n; i += LANES)                                                             \
      s0 += *reinterpret_cast<const Line_##T*>(x + i) * *reinterpret_cast<const Line_##T*>(y + i); \
    s0 = (s0 + s1) + (s2 + s3);                                                                    \
    T total = 0;                                                                                   \
    for (std::size_t k = 0; k < LANES; ++k) total += s0[k];                                        \
    for (; i < n; ++i) total += x[i] * y[i];                                                       \
    return total;                                                                                  \
  }                                                                                                \
                                                                                                   \
  THRESHER_CLONES void four_dots(const T* x, std::size_t stride, const T* y, std::size_t n,        \
                                 T* out) {                                                         \
    const T *x0 = x, *x1 = x0 + stride, *x2 = x1 + stride, *x3 = x2 + stride;                      \
    Line_##T s0{}, s1{}, s2{}, s3{}, t0{}, t1{}, t2{}, t3{};                                       \
    std::size_t i = 0;                                                                             \
    for (; i + 2 * LANES <= n; i += 2 * LANES) {                                                   \
      const Line_##T* b = reinterpret_cast<const Line_##T*>(y + i);                                \
      const Line_##T *a0 = reinterpret_cast<const Line_##T*>(x0 + i),                              \
                     *a1 = reinterpret_cast<const Line_##T*>(x1 + i),                              \
                     *a2 = reinterpret_cast<const Line_##T*>(x2 + i),                              \
                     *a3 = reinterpret_cast<const Line_##T*>(x3 + i);                              \
      s0 += a0[0] * b[0];                                                                          \
      s1 += a1[0] * b[0];                                                                          \
      s2 += a2[0] * b[0];                                                                          \
      s3 += a3[0] * b[0];                                                                          \
      t0 += a0[1] * b[1];                                                                          \
      t1 += a1[1] * b[1];                                                                          \
      t2 += a2[1] * b[1];                                                                          \
      t3 += a3[1] * b[1];                                                                          \
    }                                                                                              \
    s0 += t0;                                                                                      \
    s1 += t1;                                                                                      \
    s2 += t2;                                                                                      \
    s3 += t3;                                                                                      \
    T r0 = 0, r1 = 0, r2 = 0, r3 = 0;                                                              \
    for (std::size_t k = 0; k < LANES; ++k) {                                                      \
      r0 += s0[k];                                                                                 \
      r1 += s1[k];                                                                                 \
      r2 += s2[k];                                                                                 \
      r3 += s3[k];                                                                                 \
    }                                                                                              \
    for (; i < n; ++i) {                                                                           \
      r0 += x0[i] * y[i];                                                                          \
      r1 += x1[i] * y[i];                                                                          \
      r2 += x2[i] * y[i];                                                                          \
      r3 += x3[i] * y[i];                                                                          \
    }                                                                                              \
    out[0] = r0;                                                                                   \
    out[1] = r1;                                                                                   \
    out[2] = r2;                                                                                   \
    out[3] = r3;                                                                                   \
  }                                                                                                \
                                                                                                   \
  THRESHER_CLONES void add_scaled(T a, const T* x, T* y, std::size_t n) {                          \
    for (std::size_t i = 0; i < n; ++i) y[i] += a * x[i];                                          \
  }                                                                                                \
                                                                                                   \
  THRESHER_CLONES void add_scaled(T a, const T* h, const T* x, T* y, std::size_t n) {              \
    for (std::size_t i = 0; i < n; ++i) y[i] += a * h[i] * x[i];                                   \
  }                                                                                                \
                                                                                                   \
  THRESHER_CLONES T weighted_square(const T* h, const T* x, std::size_t n) {                       \
    Line_##T s0{}, s1{};                                                                           \
    std::size_t i = 0;                                                                             \
    for (; i + 2 * LANES <= n; i += 2 * LANES) {                                                   \
      const Line_##T* a = reinterpret_cast<const Line_##T*>(x + i);                                \
      const Line_##T* b = reinterpret_cast<const Line_##T*>(h + i);                                \
      s0 += a[0] * a[0] * b[0];                                                                    \
      s1 += a[1] * a[1] * b[1];                                                                    \
    }                                                                                              \
    s0 += s1;                                                                                      \
    T total = 0;                                                                                   \
    for (std::size_t k = 0; k < LANES; ++k) total += s0[k];                                        \
    for (; i < n; ++i) total += h[i] * x[i] * x[i];                                                \
    return total;                                                                                  \
  }                                                                                                \
                                                                                                   \
  THRESHER_CLONES std::size_t largest_entry(const T* x, std::size_t n) {                           \
    Line_##T most{};                                                                               \
    Index_##T where{}, at;                                                                         \
    for (std::size_t k = 0; k < LANES; ++k) at[k] = INDEX(k);                                      \
    std::size_t i = 0;                                                                             \
    for (; i + LANES <= n; i += LANES, at += LANES) {                                              \
      const Line_##T line = *reinterpret_cast<const Line_##T*>(x + i);                             \
      const Line_##T size = line < 0 ? -line : line;                                               \
      where = size > most ? at : where;                                                            \
      most = size > most ? size : most;                                                            \
    }                                                                                              \
    T largest = 0;                                                                                 \
    std::size_t best = 0;                                                                          \
    for (std::size_t k = 0; k < LANES; ++k) {                                                      \
      const std::size_t j = std::size_t(where[k]);                                                 \
      if (most[k] > largest || (most[k] == largest && j < best)) {                                 \
        largest = most[k];                                                                         \
        best = j;                                                                                  \
      }                                                                                            \
    }                                                                                              \
    for (; i < n; ++i)                                                                             \
      if (std::abs(x[i]) > largest) {                                                              \
        largest = std::abs(x[i]);                                                                  \
        best = i;                                                                                  \
      }                                                                                            \
    return best;                                                                                   \
  }

namespace thresher {

THRESHER_DEFINE(double, 8, std::int64_t)
THRESHER_DEFINE(float, 16, std::int32_t)

}  // namespace thresher
