// Host-only helpers of the CPU kernels: exported names, scratch memory, threads, bit tricks.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <atomic>
#include <exception>
#include <memory>
#include <new>
#include <thread>
#include <vector>

#if defined(_MSC_VER)
#include <intrin.h>
#elif defined(__AVX2__)
#include <immintrin.h>
#endif
#if defined(_WIN32)
#define KB_EXPORT extern "C" __declspec(dllexport)
#else
#define KB_EXPORT extern "C" __attribute__((visibility("default")))
#endif

namespace kb {

enum Status { OK = 0, BAD_ARGUMENT = 1, OUT_OF_MEMORY = 2, FAILED = 3 };

inline void prefetch(const void* address) {
#if !defined(_MSC_VER)
  __builtin_prefetch(address);
#elif defined(_M_X64)
  _mm_prefetch(static_cast<const char*>(address), _MM_HINT_T0);
#endif
}

// Position of the lowest / highest set bit; `bits` must not be 0.
inline int lowest_bit(uint32_t bits) {
#if defined(_MSC_VER)
  unsigned long at;
  _BitScanForward(&at, bits);
  return int(at);
#else
  return __builtin_ctz(bits);
#endif
}
inline int lowest_bit(uint64_t bits) {
#if defined(_MSC_VER)
  unsigned long at;
  _BitScanForward64(&at, bits);
  return int(at);
#else
  return __builtin_ctzll(bits);
#endif
}
inline int highest_bit(uint32_t bits) {
#if defined(_MSC_VER)
  unsigned long at;
  _BitScanReverse(&at, bits);
  return int(at);
#else
  return 31 - __builtin_clz(bits);
#endif
}

// Memory that is kept between calls and never zeroed: for large frames the page faults of fresh
// memory cost more than the work done in it.
template <class T>
class Buffer {
 public:
  T* get(size_t n) {
    if (n > capacity_) {
      data_.reset();  // before the new block, so that both never exist at once
      capacity_ = 0;
      data_.reset(new T[n + n / 4]);
      capacity_ = n + n / 4;
    }
    return data_.get();
  }

 private:
  std::unique_ptr<T[]> data_;
  size_t capacity_ = 0;
};

// Runs f() -> Status, or the status of what it throws.
template <class F>
Status guarded(const F& f) {
  try {
    return f();
  } catch (const std::bad_alloc&) {
    return OUT_OF_MEMORY;
  } catch (...) {
    return FAILED;
  }
}

// Runs f(0) ... f(count - 1), each on a thread of its own, and waits. A thread that the system
// refuses is made up for by the caller; an exception in any of them comes back as a status.
template <class F>
Status parallel(int count, const F& f) {
  std::atomic<int> status{OK};
  auto run = [&](int i) {
    const Status own = guarded([&] { return f(i), OK; });
    if (own != OK) status = own;
  };
  std::vector<std::thread> threads;
  threads.reserve(size_t(count));
  int next = 1;
  try {
    for (; next < count; ++next) threads.emplace_back(run, next);
  } catch (const std::exception&) {
  }
  run(0);
  for (; next < count; ++next) run(next);
  for (std::thread& t : threads) t.join();
  return Status(status.load());
}

// The part [begin, end) of n items that worker `i` of `count` has.
struct Range {
  int64_t begin, end;
};
inline Range share(int64_t n, int count, int i) {
  return {n * i / count, n * (i + 1) / count};
}

}  // namespace kb
