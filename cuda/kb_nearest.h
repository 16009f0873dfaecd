// One layer of points that cover one pixel each: the smallest key of every pixel, without tiles.
#pragma once
#include "kb_write.h"

namespace kb {

constexpr uint64_t NOTHING = UINT64_MAX;  // a key that no point has
constexpr int BLOCK_POINTS = 64;          // looked up in memory together

// Makes `key` the pixel's if it is smaller. Which of the threads comes first plays no part.
inline void lower(std::atomic<uint64_t>& pixel, uint64_t key, bool alone) {
  uint64_t now = pixel.load(std::memory_order_relaxed);
  if (alone) {
    if (key < now) pixel.store(key, std::memory_order_relaxed);
    return;
  }
  while (key < now && !pixel.compare_exchange_weak(now, key, std::memory_order_relaxed)) {
  }
}

// The points [range) into `nearest`.
inline void keep_nearest(const Cloud& cloud, const Grid& grid, Range range, bool alone,
                         std::atomic<uint64_t>* nearest) {
  uint64_t keys[BLOCK_POINTS];
  int32_t pixels[BLOCK_POINTS];
  for (int64_t block = range.begin; block < range.end; block += BLOCK_POINTS) {
    const Range part = {block, std::min(range.end, block + BLOCK_POINTS)};
    int n = 0;
    each_eight<PIXEL>(cloud, part, [&](int64_t first, const PointOf<Float8>& p) {
      const auto x = pixel_at(grid.x, p.u), y = pixel_at(grid.y, p.v);
      uint32_t seen = at_least(p.z, Float8(0.0f)).bits();
      seen &= ~(less(x, Int8(0)).bits() | less(y, Int8(0)).bits());
      int32_t pixel[LANES];
      float z[LANES];
      (y * Int8(grid.x.n) + x).store(pixel);
      p.z.store(z);
      for (; seen; seen &= seen - 1) {
        const int lane = lowest_bit(seen);
        prefetch(nearest + pixel[lane]);
        pixels[n] = pixel[lane];
        keys[n++] = order_key(z[lane], uint32_t(first) + uint32_t(lane));
      }
    });
    for (int i = 0; i < n; ++i) lower(nearest[pixels[i]], keys[i], alone);
  }
}

// The pixels [x, x + n) of row y, n <= LANES, from their keys. False if they are all empty.
inline void resolve(const Cloud& cloud, const Frame& f, int y, int x, int n,
                    const std::atomic<uint64_t>* nearest, int32_t* index, float* depth,
                    float* distance) {
  float xyz[3 * LANES];
  bool any = false;
  for (int i = 0; i < LANES; ++i) {
    const uint64_t key = i < n ? nearest[i].load(std::memory_order_relaxed) : NOTHING;
    const bool empty = key == NOTHING;
    any |= !empty;
    index[i] = empty ? -1 : int32_t(key_index(key));
    const float nan[3] = {NAN, NAN, NAN};
    memcpy(xyz + 3 * i, empty ? nan : cloud.points + 3 * size_t(key_index(key)), sizeof nan);
  }
  if (!any) {
    std::fill_n(depth, LANES, -1.0f);
    std::fill_n(distance, LANES, -1.0f);
    return;
  }
  Float8 px, py, pz;
  load_xyz(xyz, &px, &py, &pz);
  const PointOf<Float8> p = to_screen(cloud, PIXEL, px, py, pz, Float8(1.0f));
  const Float8 d = relative_distance<PIXEL>(f.grid, p, Float8::load(f.xs + x), Float8(f.ys[y]));
  p.z.store(depth);
  select(less(p.z, Float8(0.0f)), p.z, d).store(distance);
}

inline Status draw_nearest(const Cloud& cloud, const Frame& f, int threads,
                           std::atomic<uint64_t>* nearest) {
  const int64_t width = f.grid.x.n, height = f.grid.y.n;
  Status status = parallel(threads, [&](int t) {
    const Range rows = share(height, threads, t);
    for (int64_t i = rows.begin * width; i < rows.end * width; ++i) {
      nearest[i].store(NOTHING, std::memory_order_relaxed);
    }
  });
  if (status != OK) return status;
  status = parallel(threads, [&](int t) {
    keep_nearest(cloud, f.grid, share(cloud.n, threads, t), threads == 1, nearest);
  });
  if (status != OK) return status;
  return parallel(threads, [&](int t) {
    const Range rows = share(height, threads, t);
    const auto ahead = [&](int64_t i) {  // of the loads in resolve
      if (i >= rows.end * width) return;
      const uint64_t key = nearest[i].load(std::memory_order_relaxed);
      if (key != NOTHING) prefetch(cloud.points + 3 * size_t(key_index(key)));
    };
    int32_t index[LANES];
    float depth[LANES], distance[LANES];
    for (int64_t y = rows.begin; y < rows.end; ++y) {
      for (int64_t x = 0; x < width; x += LANES) {
        const int64_t at = y * width + x;
        for (int i = 0; i < LANES; ++i) ahead(at + 4 * LANES + i);
        const int n = int(std::min<int64_t>(LANES, width - x));
        resolve(cloud, f, int(y), int(x), n, nearest + at, index, depth, distance);
        stream(f.index + at, index, size_t(n));
        stream(f.depth + at, depth, size_t(n));
        stream(f.distance + at, distance, size_t(n));
      }
    }
    finish_streams();
  });
}

}  // namespace kb
