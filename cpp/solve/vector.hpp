// Inner loops over contiguous columns. Each is compiled for several instruction sets and
// chosen at load time, so that one wheel runs everywhere at the speed of the machine.
#pragma once

#include <cstddef>

namespace thresher {

double dot(const double* x, const double* y, std::size_t n);
float dot(const float* x, const float* y, std::size_t n);

// Inner products of four vectors, `stride` apart from x on, with y.
void four_dots(const double* x, std::size_t stride, const double* y, std::size_t n, double* out);
void four_dots(const float* x, std::size_t stride, const float* y, std::size_t n, float* out);

// y += a * x
void add_scaled(double a, const double* x, double* y, std::size_t n);
void add_scaled(float a, const float* x, float* y, std::size_t n);

// y += a * h * x, entry by entry
void add_scaled(double a, const double* h, const double* x, double* y, std::size_t n);
void add_scaled(float a, const float* h, const float* x, float* y, std::size_t n);

// sum of h * x * x
double weighted_square(const double* h, const double* x, std::size_t n);
float weighted_square(const float* h, const float* x, std::size_t n);

// Index of the entry of largest magnitude, the first of equals; n must not be zero.
std::size_t largest_entry(const double* x, std::size_t n);
std::size_t largest_entry(const float* x, std::size_t n);

}  // namespace thresher
