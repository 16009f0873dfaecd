// What leaves for the picture: rows of pixels, past the caches.
#pragma once
#include <algorithm>

#include "kb_bins.h"

namespace kb {

// What every thread reads and none writes.
struct Frame {
  Grid grid;
  int k;
  float radius;          // of all points, unless their entries carry their own
  const float *xs, *ys;  // pixel centres, padded to whole tiles and LANES more
  int32_t* index;        // the picture, [height, width, k]
  float *depth, *distance;
};

inline float radius_of(const Frame& f, const Entry&) { return f.radius; }
inline float radius_of(const Frame&, const SizedEntry& e) { return e.r; }

// Memory of one thread.
struct Worker {
  Buffer<Entry> sorted;
  Buffer<uint32_t> slots;
  Buffer<float> row, centers;
};

// Copies past the caches where it can: the image is much larger than they are, and ordinary stores
// would first read every line that they overwrite.
template <class T>
void stream(T* to, const T* from, size_t n) {
#if defined(__AVX2__)
  static_assert(sizeof(T) == 4, "eight to a vector");
  if (uintptr_t(to) % 32 == 0 && n % 8 == 0) {
    for (size_t i = 0; i < n; i += 8) {
      const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i));
      _mm256_stream_si256(reinterpret_cast<__m256i*>(to + i), v);
    }
    return;
  }
#endif
  memcpy(to, from, n * sizeof(T));
}

// Streamed stores are not ordered by locks: call before another thread may read them.
inline void finish_streams() {
#if defined(__AVX2__)
  _mm_sfence();
#endif
}

// Slots that follow each other in a row of the picture, in the order of memory.
struct Row {
  int32_t* index;
  float *depth, *distance;

  // `n` slots and up to LANES more in the memory of one thread.
  Row(Buffer<float>& memory, size_t n) {
    depth = memory.get(3 * (n + LANES));
    distance = depth + n + LANES;
    index = reinterpret_cast<int32_t*>(distance + n + LANES);
  }
  void stream_to(const Frame& f, size_t to, size_t n) const {
    stream(f.index + to, index, n);
    stream(f.depth + to, depth, n);
    stream(f.distance + to, distance, n);
  }
};

// Eight of `entries`, at the places at[0] ... at[7].
inline PointOf<Float8> gather(const Frame& f, const Entry* entries, const uint32_t* at,
                              int32_t* index) {
  PointOf<Float8> p;
#if defined(__AVX2__)
  const auto pair = [&](int i) {
    const float *low = &entries[at[i]].u, *high = &entries[at[i + LANES / 2]].u;
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(low)), _mm_loadu_ps(high), 1);
  };
  const Rows8 rows = interleave(pair(0), pair(1), pair(2), pair(3));
  p.u.v = rows.r04, p.v.v = rows.r15, p.z.v = rows.r37;
  _mm256_storeu_ps(reinterpret_cast<float*>(index), rows.r26);
#else
  for (int i = 0; i < LANES; ++i) {
    const Entry& e = entries[at[i]];
    p.u.v[i] = e.u, p.v.v[i] = e.v;
    p.z.v[i] = float_of_bits(key_depth(e.key)), index[i] = int32_t(key_index(e.key));
  }
#endif
  p.r = Float8(f.radius);
  return p;
}
inline PointOf<Float8> gather(const Frame&, const SizedEntry* entries, const uint32_t* at,
                              int32_t* index) {
  float u[LANES], v[LANES], z[LANES], r[LANES];
  for (int i = 0; i < LANES; ++i) {
    const SizedEntry& e = entries[at[i]];
    u[i] = e.u, v[i] = e.v, r[i] = e.r;
    z[i] = float_of_bits(key_depth(e.key)), index[i] = int32_t(key_index(e.key));
  }
  return {Float8::load(u), Float8::load(v), Float8::load(z), Float8::load(r)};
}

}  // namespace kb
