// The CUDA rasteriser in steps: what one thread does between two barriers. The kernels
// (kb_kernels.cuh) and their emulation on the CPU (kb_emu.cpp) consist of calls to these.
#pragma once
#include "kb_tile.h"

namespace kb {

constexpr int WARP = 32;
constexpr int WINDOW_WIDTH = 8, WINDOW_HEIGHT = WARP / WINDOW_WIDTH;  // the pixels of a warp
constexpr int BLOCK = TILE_PIXELS;                                    // threads: one for a pixel

// The tiles [first, last) in row-major order, and where in the image these two are.
struct Band {
  int first, last, first_row, first_column, last_row, last_column;
};

// What the host has to know before it can take memory for the pairs.
// Zero is the neutral value of all three.
struct Stats {
  uint64_t pairs;
  uint32_t not_nearest, farthest;  // depth bits of the points that have pairs; the first inverted
};

// Sort key of a pair: the tile, then the depth above the nearest, in as few bits as they need.
struct KeyLayout {
  uint32_t nearest;
  int32_t depth_bits;
};

struct PairRange {
  uint32_t begin, end;
};

struct Picture {
  int32_t* index;  // [height, width, k]
  float *depth, *distance;
  int32_t k, vector;  // vector: rows of four values are aligned to 16 bytes
};

// What rasterising a band reads and writes.
struct Drawing {
  Grid grid;
  Picture out;
  const Point* points;
  const int32_t* order;     // [pairs] points of all tiles, front to back in each
  const PairRange* ranges;  // [tiles of the band]
  const float *xs, *ys;     // pixel centres
  int32_t first;            // tile
};

// ------------------------------------------------------------------------- tiles
KB_HD int clamp(int i, int low, int high) { return i < low ? low : (i > high ? high : i); }

// Tiles of `r` that come before tile (row, column).
KB_HD uint32_t tiles_before(const TileRect& r, int row, int column) {
  const int width = r.x1 - r.x0 + 1, height = r.y1 - r.y0 + 1;
  uint32_t n = uint32_t(clamp(row - r.y0, 0, height)) * uint32_t(width);
  if (row >= r.y0 && row <= r.y1) n += uint32_t(clamp(column - r.x0, 0, width));
  return n;
}

KB_HD uint32_t count_tiles(const Grid& g, Footprint shape, const Band& band, const Point& p) {
  if (!(p.z >= 0.0f)) return 0;
  const TileRect r = tiles_of(g, p, shape);
  if (r.x0 > r.x1 || r.y0 > r.y1) return 0;
  return tiles_before(r, band.last_row, band.last_column) -
         tiles_before(r, band.first_row, band.first_column);
}

// ------------------------------------------------------------------------- pairs
KB_HD uint64_t pair_key(const KeyLayout& layout, int tile, float z) {
  return (uint64_t(uint32_t(tile)) << layout.depth_bits) | (float_bits(z) - layout.nearest);
}

// Writes the pairs of point `i`, which has some, from place `to` on.
KB_HD void emit_pairs(const Grid& g, Footprint shape, const Band& band, const KeyLayout& layout,
                      const Point& p, int32_t i, uint32_t to, uint64_t* keys, int32_t* values) {
  const TileRect r = tiles_of(g, p, shape);
  const int top = r.y0 > band.first_row ? r.y0 : band.first_row;
  const int bottom = r.y1 < band.last_row ? r.y1 : band.last_row;
  for (int y = top; y <= bottom; ++y) {
    for (int x = r.x0; x <= r.x1; ++x) {
      const int tile = y * g.columns + x;
      if (tile < band.first || tile >= band.last) continue;
      keys[to] = pair_key(layout, tile - band.first, p.z);
      values[to++] = i;
    }
  }
}

// Marks where a tile's pairs begin or end, if that is at place `i` of the sorted keys [n].
KB_HD void mark_range(const KeyLayout& layout, const uint64_t* keys, uint32_t n, uint32_t i,
                      PairRange* ranges) {
  const uint64_t tile = keys[i] >> layout.depth_bits;
  if (i == 0 || keys[i - 1] >> layout.depth_bits != tile) ranges[tile].begin = i;
  if (i + 1 == n || keys[i + 1] >> layout.depth_bits != tile) ranges[tile].end = i + 1;
}

// ------------------------------------------------------------------------- pixels
KB_HD int window_x(int thread) { return thread / WARP % (TILE / WINDOW_WIDTH) * WINDOW_WIDTH; }
KB_HD int window_y(int thread) { return thread / WARP / (TILE / WINDOW_WIDTH) * WINDOW_HEIGHT; }

// The pixel of a thread. False outside of the image; then `at` is the tile's first.
KB_HD bool pixel_of(const Drawing& d, int tile, int thread, Pixel* at) {
  const int x0 = tile % d.grid.columns * TILE, y0 = tile / d.grid.columns * TILE;
  const int lane = thread % WARP;
  const int x = x0 + window_x(thread) + lane % WINDOW_WIDTH;
  const int y = y0 + window_y(thread) + lane / WINDOW_WIDTH;
  const bool inside = x < d.grid.x.n && y < d.grid.y.n;
  at->column = inside ? x : x0;
  at->row = inside ? y : y0;
  at->x = d.xs[at->column];
  at->y = d.ys[at->row];
  return inside;
}

// The pixels of the warp that `thread` is in, as far as they are in the image.
KB_HD Window window_of(const Drawing& d, int tile, int thread) {
  const int last_x = d.grid.x.n - 1, last_y = d.grid.y.n - 1;
  const int x0 = clamp(tile % d.grid.columns * TILE + window_x(thread), 0, last_x);
  const int y0 = clamp(tile / d.grid.columns * TILE + window_y(thread), 0, last_y);
  return make_window(d.grid, d.xs, d.ys, x0, clamp(x0 + WINDOW_WIDTH - 1, 0, last_x), y0,
                     clamp(y0 + WINDOW_HEIGHT - 1, 0, last_y));
}

// For points that no kernel writes meanwhile: many such loads may be under way at once.
KB_HD Point read_point(const Point* p) {
#ifdef __CUDA_ARCH__
  const float4 v = __ldg(reinterpret_cast<const float4*>(p));
  return {v.x, v.y, v.z, v.w};
#else
  return *p;
#endif
}

// One slot of the picture. Depth and distance are worked out again from the point: cheaper than
// carrying them in registers through the whole list.
struct Slot {
  int32_t index;
  float depth, distance;
};

template <Footprint SHAPE>
KB_HD Slot slot_of(const Drawing& d, const Pixel& at, int32_t index) {
  if (index < 0) return {-1, -1.0f, -1.0f};
  const Point p = read_point(d.points + index);
  return {index, p.z, relative_distance<SHAPE>(d.grid, p, at.x, at.y)};
}

KB_HD size_t first_slot(const Drawing& d, const Pixel& at) {
  return (size_t(at.row) * size_t(d.grid.x.n) + size_t(at.column)) * size_t(d.out.k);
}

KB_HD void store(const Picture& out, size_t to, const Slot& s) {
  out.index[to] = s.index;
  out.depth[to] = s.depth;
  out.distance[to] = s.distance;
}

KB_HD void store_four(const Picture& out, size_t to, const Slot& a, const Slot& b, const Slot& c,
                      const Slot& d) {
#ifdef __CUDA_ARCH__
  *reinterpret_cast<int4*>(out.index + to) = make_int4(a.index, b.index, c.index, d.index);
  *reinterpret_cast<float4*>(out.depth + to) = make_float4(a.depth, b.depth, c.depth, d.depth);
  *reinterpret_cast<float4*>(out.distance + to) =
      make_float4(a.distance, b.distance, c.distance, d.distance);
#else
  store(out, to, a);
  store(out, to + 1, b);
  store(out, to + 2, c);
  store(out, to + 3, d);
#endif
}

// A thread without a pixel has a list that is full from the beginning.

// The points of a pixel, in registers: k <= CAPACITY of them. They arrive front to back, and each
// pushes the others one place up. So every place is known when the kernel is compiled and the
// farthest comes first.
template <int CAPACITY>
struct RegisterList {
  int32_t id[CAPACITY];
  int n, k;

  KB_HD void begin(const Drawing& d, const Pixel&, bool inside) {
    k = d.out.k;
    n = inside ? 0 : k;
    KB_UNROLL for (int i = 0; i < CAPACITY; ++i) id[i] = -1;
  }
  KB_HD bool full() const { return n >= k; }
  KB_HD void push(int32_t index) {
    KB_UNROLL for (int i = CAPACITY - 1; i > 0; --i) id[i] = id[i - 1];
    id[0] = index;
    ++n;
  }
  template <Footprint SHAPE>
  KB_HD void finish(const Drawing& d, const Pixel& at) {
    while (n < CAPACITY) push(-1);
    const size_t to = first_slot(d, at);
    if (CAPACITY % 4 == 0 && d.out.vector) {
      KB_UNROLL for (int i = 0; i + 3 < CAPACITY; i += 4) {
        const int32_t* from = id + CAPACITY - 1 - i;
        store_four(d.out, to + i, slot_of<SHAPE>(d, at, from[0]), slot_of<SHAPE>(d, at, from[-1]),
                   slot_of<SHAPE>(d, at, from[-2]), slot_of<SHAPE>(d, at, from[-3]));
      }
      return;
    }
    KB_UNROLL for (int i = 0; i < CAPACITY; ++i) {
      if (i < k) store(d.out, to + i, slot_of<SHAPE>(d, at, id[CAPACITY - 1 - i]));
    }
  }
};

// The points of a pixel for any k: straight into the picture.
struct MemoryList {
  int32_t* to;
  int n, k;

  KB_HD void begin(const Drawing& d, const Pixel& at, bool inside) {
    k = d.out.k;
    n = inside ? 0 : k;
    to = d.out.index + first_slot(d, at);
  }
  KB_HD bool full() const { return n >= k; }
  KB_HD void push(int32_t index) { to[n++] = index; }
  template <Footprint SHAPE>
  KB_HD void finish(const Drawing& d, const Pixel& at) {
    const size_t start = first_slot(d, at);
    for (int i = 0; i < k; ++i) store(d.out, start + i, slot_of<SHAPE>(d, at, i < n ? to[i] : -1));
  }
};

}  // namespace kb
