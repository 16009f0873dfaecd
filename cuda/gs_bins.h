// Tile lists: Gaussians sorted by depth (ties by index), then dealt out to the tiles that their
// ellipses touch. The lists do not depend on the number of threads.
#pragma once
#include "gs_tiles.h"

namespace gs {

constexpr int kMaxDigit = 11;  // bits that one pass of the radix sort takes

// Kept by the calling thread between calls.
struct BinScratch {
  Buffer<uint64_t> keys[2];
  std::vector<size_t> counts;    // [threads, digits]
  std::vector<int64_t> cursors;  // [threads, tiles]
};

inline int32_t clip_pixel(float v, int last) {
  return int32_t(std::min(std::max(v, -1.0f), float(last)));  // before int: may be huge
}

// False if the Gaussian cannot be seen.
inline bool footprint_of(const float* splat, float depth, const float* extent, int width,
                         int height, Footprint* f) {
  if (!(extent[0] > 0.0f) || !(not_finite(splat, 6) == 0.0f)) return false;
  const float x = splat[0] - 0.5f, y = splat[1] - 0.5f;
  f->x0 = std::max(clip_pixel(std::ceil(x - extent[0]), width), 0);
  f->x1 = clip_pixel(std::floor(x + extent[0]), width - 1);
  f->y0 = std::max(clip_pixel(std::ceil(y - extent[1]), height), 0);
  f->y1 = clip_pixel(std::floor(y + extent[1]), height - 1);
  if (f->x0 > f->x1 || f->y0 > f->y1) return false;
  f->x = splat[0];
  f->y = splat[1];
  f->half_a = 0.5f * splat[2];
  f->b = splat[3];
  f->half_c = 0.5f * splat[4];
  f->opacity = splat[5];
  f->rim = log_of(splat[5] / kAlphaMin) + 1e-4f;
  f->depth = depth;
  return true;
}

// Columns of tiles that the ellipse touches between the pixel rows y0 and y1, a little wide: its
// left and right end there lie at the rows where the whole ellipse has them, or nearest to those.
struct Slices {
  double x, y, half_a, b, rim, discriminant, tip;
  explicit Slices(const Footprint& f)
      : x(f.x), y(f.y), half_a(f.half_a), b(f.b), rim(f.rim) {
    discriminant = b * b - 4.0 * half_a * f.half_c;
    // dy at the largest dx: b dx + c dy = 0
    tip = -b / (2.0 * f.half_c) * std::sqrt(-4.0 * f.half_c * rim / discriminant);
  }
  // Not for flat and degenerate ones: rounding errors would decide.
  bool usable() const { return half_a > 0.0 && discriminant < 0.0 && std::isfinite(tip); }
  double edge(double dy, double side) const {
    const double square = std::max(discriminant * dy * dy + 4.0 * half_a * rim, 0.0);
    const double reach = std::sqrt(square) / (2.0 * half_a);
    return x - b * dy / (2.0 * half_a) + side * (reach + 0.01 + 1e-3 * reach);
  }
  void columns(const Footprint& f, int y0, int y1, int* first, int* last) const {
    const double top = y0 + 0.5 - y, bottom = y1 + 0.5 - y;
    const double low = edge(std::min(std::max(-tip, top), bottom), -1.0) - 0.5;
    const double high = edge(std::min(std::max(tip, top), bottom), 1.0) - 0.5;
    *first = int(std::min(std::max(low, double(f.x0)), double(f.x1))) / kTile;
    *last = int(std::min(std::max(high, double(f.x0)), double(f.x1))) / kTile;
  }
};

// Calls visit(tile) for the tiles that a footprint touches.
template <class F>
void each_tile(const Footprint& f, int tiles_x, const F& visit) {
  const int left = f.x0 / kTile, right = f.x1 / kTile, top = f.y0 / kTile, bottom = f.y1 / kTile;
  // The ellipse fills pi/4 sqrt(1 - b^2 / (a c)) of its box: only slanting ones that reach many
  // tiles leave enough of them out to pay for the test.
  constexpr int kManyTiles = 6;
  const bool slanting = f.b * f.b > 2.0f * f.half_a * f.half_c;
  if (!slanting || left == right || top == bottom ||
      (right - left + 1) * (bottom - top + 1) < kManyTiles) {
    for (int ty = top; ty <= bottom; ++ty)
      for (int tx = left; tx <= right; ++tx) visit(ty * tiles_x + tx);
    return;
  }
  const Slices slices(f);
  const bool usable = slices.usable();
  for (int ty = top; ty <= bottom; ++ty) {
    int first = left, last = right;
    const int y0 = std::max(ty * kTile, f.y0), y1 = std::min(ty * kTile + kTile - 1, f.y1);
    if (usable) slices.columns(f, y0, y1, &first, &last);
    for (int tx = first; tx <= last; ++tx) visit(ty * tiles_x + tx);
  }
}

// Keys (depth bits, index) of one thread: where they lie, and their range of depths.
struct KeyRun {
  size_t begin, end;
  uint32_t nearest, farthest;
};

// Fills the footprints and writes each thread's keys to the beginning of its share.
inline Status make_keys(int64_t n, const float* splats, const float* depth, const float* extent,
                        GsBins& bins, uint64_t* keys, std::vector<KeyRun>& runs) {
  const int threads = int(runs.size());
  Footprint* footprints = bins.footprint.get();
  const int width = bins.width, height = bins.height;
  return parallel(threads, [&](int t) {
    const Range range = share(n, threads, t);
    KeyRun run = {size_t(range.begin), size_t(range.begin), UINT32_MAX, 0};
    for (int64_t i = range.begin; i < range.end; ++i) {
      if (!footprint_of(splats + 6 * i, depth[i], extent + 2 * i, width, height, footprints + i))
        continue;
      uint32_t bits;  // of floats >= 0, they sort like the numbers
      memcpy(&bits, depth + i, 4);
      run.nearest = std::min(run.nearest, bits);
      run.farthest = std::max(run.farthest, bits);
      keys[run.end++] = uint64_t(bits) << 32 | uint32_t(i);
    }
    runs[size_t(t)] = run;
  });
}

// Stable radix sort of the runs by depth; takes only the bits in which the depths differ. Returns
// which of the two buffers holds the keys, one behind the other.
inline Status sort_keys(BinScratch& s, std::vector<KeyRun>& runs, uint64_t* keys[2], int* sorted) {
  uint32_t nearest = UINT32_MAX, farthest = 0;
  size_t total = 0;
  for (const KeyRun& run : runs) {
    nearest = std::min(nearest, run.nearest);
    farthest = std::max(farthest, run.farthest);
    total += run.end - run.begin;
  }
  int bits = 1;
  while (total > 0 && bits < 32 && (farthest - nearest) >> bits) ++bits;
  const int passes = (bits + kMaxDigit - 1) / kMaxDigit, digit = (bits + passes - 1) / passes;
  const int threads = int(runs.size());
  const size_t digits = size_t(1) << digit;
  s.counts.resize(digits * threads);
  Status status = OK;
  for (int pass = 0; pass < passes && status == OK; ++pass) {
    const uint64_t* from = keys[pass % 2];
    uint64_t* to = keys[1 - pass % 2];
    auto digit_of = [=](uint64_t key) {
      return (uint32_t(key >> 32) - nearest) >> (pass * digit) & (digits - 1);
    };
    status = parallel(threads, [&](int t) {
      size_t* count = s.counts.data() + digits * t;
      std::fill(count, count + digits, 0);
      for (size_t i = runs[t].begin; i < runs[t].end; ++i) ++count[digit_of(from[i])];
    });
    size_t at = 0;
    for (size_t d = 0; d < digits; ++d)
      for (int t = 0; t < threads; ++t) {
        const size_t count = s.counts[digits * t + d];
        s.counts[digits * t + d] = at;
        at += count;
      }
    if (status != OK) return status;
    status = parallel(threads, [&](int t) {
      size_t* cursor = s.counts.data() + digits * t;
      for (size_t i = runs[t].begin; i < runs[t].end; ++i)
        to[cursor[digit_of(from[i])]++] = from[i];
    });
    for (int t = 0; t < threads; ++t) {
      const Range range = share(int64_t(total), threads, t);
      runs[t].begin = size_t(range.begin);
      runs[t].end = size_t(range.end);
    }
  }
  *sorted = passes % 2;
  return status;
}

// Deals the sorted Gaussians out to the tiles.
inline Status fill_lists(BinScratch& s, const std::vector<KeyRun>& runs, const uint64_t* keys,
                         GsBins& bins) {
  const int threads = int(runs.size());
  const size_t tiles = size_t(bins.tiles());
  const int tiles_x = bins.tiles_x;
  const Footprint* footprints = bins.footprint.get();
  s.cursors.assign(tiles * threads, 0);
  constexpr size_t kAhead = 16;
  auto each = [&](int t, const auto& visit) {
    for (size_t i = runs[t].begin; i < runs[t].end; ++i) {
      if (i + kAhead < runs[t].end) prefetch(footprints + uint32_t(keys[i + kAhead]));
      const uint32_t id = uint32_t(keys[i]);
      each_tile(footprints[id], tiles_x, [&](int tile) { visit(tile, int32_t(id)); });
    }
  };
  Status status = parallel(threads, [&](int t) {
    int64_t* count = s.cursors.data() + tiles * t;
    each(t, [=](int tile, int32_t) { ++count[tile]; });
  });
  if (status != OK) return status;
  bins.start.resize(tiles + 1);
  int64_t total = 0;
  for (size_t tile = 0; tile < tiles; ++tile) {
    bins.start[tile] = total;
    for (int t = 0; t < threads; ++t) {
      const int64_t count = s.cursors[tiles * t + tile];
      s.cursors[tiles * t + tile] = total;
      total += count;
    }
  }
  bins.start[tiles] = total;
  bins.list.reset(new int32_t[size_t(total) + 1]);
  int32_t* list = bins.list.get();
  return parallel(threads, [&](int t) {
    int64_t* at = s.cursors.data() + tiles * t;
    each(t, [=](int tile, int32_t id) { list[at[tile]++] = id; });
  });
}

inline Status make_bins(int64_t n, const float* splats, const float* depth, const float* extent,
                        int threads, BinScratch& s, GsBins& bins) {
  constexpr int64_t kWorthAThread = 4096;
  threads = int(std::max<int64_t>(1, std::min<int64_t>(threads, n / kWorthAThread)));
  bins.tiles_x = tiles_across(bins.width);
  bins.tiles_y = tiles_across(bins.height);
  bins.footprint.reset(new Footprint[size_t(n)]);
  uint64_t* keys[2] = {s.keys[0].get(size_t(n)), s.keys[1].get(size_t(n))};
  std::vector<KeyRun> runs(threads);
  int sorted = 0;
  Status status = make_keys(n, splats, depth, extent, bins, keys[0], runs);
  if (status == OK) status = sort_keys(s, runs, keys, &sorted);
  return status != OK ? status : fill_lists(s, runs, keys[sorted], bins);
}

}  // namespace gs
