// Memory for vectors, and sizes that fill them.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

namespace thresher {

// Zeroed memory aligned to a line of the cache.
template <class T>
class Aligned {
 public:
  Aligned() = default;
  explicit Aligned(std::int64_t count)
      : data_(static_cast<T*>(::operator new(bytes(count), std::align_val_t{64}))) {
    __builtin_memset(data_.get(), 0, bytes(count));
  }
  T* get() const { return data_.get(); }

 private:
  static std::size_t bytes(std::int64_t count) {
    return static_cast<std::size_t>(count) * sizeof(T) + 64;
  }
  struct Free {
    void operator()(T* data) const { ::operator delete(data, std::align_val_t{64}); }
  };
  std::unique_ptr<T, Free> data_;
};

inline std::int64_t padded_to(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

}  // namespace thresher
