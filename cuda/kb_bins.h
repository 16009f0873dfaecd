// The lists of the tiles: which points each has to draw. Points go through eight at a time.
#pragma once
#include <algorithm>

#include "kb_host.h"
#include "kb_simd.h"
#include "kb_tile.h"

namespace kb {

// A point in the list of a tile. Points that differ in size also carry their radius.
struct Entry {
  float u, v;
  uint64_t key;  // order_key
};
struct SizedEntry : Entry {
  float r;
};

// Buffers of entries serve both kinds.
template <class E>
E* room(Buffer<Entry>& memory, size_t n) {
  return reinterpret_cast<E*>(memory.get((n * sizeof(E) + sizeof(Entry) - 1) / sizeof(Entry)));
}

// Calls f(first, points) for eight points of the range at a time; the last may be padded with
// points that take no part.
template <Footprint SHAPE, class F>
void each_eight(const Cloud& c, Range range, const F& f) {
  for (int64_t i = range.begin; i < range.end; i += LANES) {
    Float8 x, y, z, r;
    if (i + LANES <= range.end) {
      load_xyz(c.points + 3 * i, &x, &y, &z);
      r = c.radius_stride ? Float8::load(c.radius + i) : Float8(c.radius[0]);
    } else {
      float xyz[3 * LANES], radii[LANES];
      std::fill(xyz, xyz + 3 * LANES, NAN);
      std::fill(radii, radii + LANES, NAN);
      for (int64_t j = i; j < range.end; ++j) {
        memcpy(xyz + 3 * (j - i), c.points + 3 * j, 3 * sizeof(float));
        radii[j - i] = c.radius[j * c.radius_stride];
      }
      load_xyz(xyz, &x, &y, &z);
      r = Float8::load(radii);
    }
    f(i, to_screen(c, SHAPE, x, y, z, r));
  }
}

// Calls f(tile, lane) for every tile that one of the eight points touches, in no special order.
template <Footprint SHAPE, class F>
void each_pair(const Grid& grid, const PointOf<Float8>& p, const F& f) {
  uint32_t seen = at_least(p.z, Float8(0.0f)).bits();
  if (!seen) return;
  int32_t tile[LANES];
  if (SHAPE == PIXEL) {
    const auto x = pixel_at(grid.x, p.u), y = pixel_at(grid.y, p.v);
    seen &= ~(less(x, Int8(0)).bits() | less(y, Int8(0)).bits());
    ((y >> TILE_SHIFT) * Int8(grid.columns) + (x >> TILE_SHIFT)).store(tile);
    for (; seen; seen &= seen - 1) f(size_t(tile[lowest_bit(seen)]), lowest_bit(seen));
    return;
  }
  Int8 x0(0), x1(0), y0(0), y1(0);
  pixel_span(grid.x, p.u, p.r, &x0, &x1);
  pixel_span(grid.y, p.v, p.r, &y0, &y1);
  seen &= ~(less(x1, x0).bits() | less(y1, y0).bits());
  x0 = x0 >> TILE_SHIFT, x1 = x1 >> TILE_SHIFT, y0 = y0 >> TILE_SHIFT, y1 = y1 >> TILE_SHIFT;
  (y0 * Int8(grid.columns) + x0).store(tile);
  // Most points touch one tile. Taking these first costs one wrong guess of the processor for
  // eight points, not one for every point that touches several.
  const uint32_t single = seen & both(equal(x0, x1), equal(y0, y1)).bits();
  for (uint32_t left = single; left; left &= left - 1) {
    f(size_t(tile[lowest_bit(left)]), lowest_bit(left));
  }
  if (seen == single) return;
  int32_t last_column[LANES], last_row[LANES], columns[LANES], rows[LANES];
  x0.store(columns), x1.store(last_column), y0.store(rows), y1.store(last_row);
  for (uint32_t left = seen & ~single; left; left &= left - 1) {
    const int lane = lowest_bit(left);
    size_t row = size_t(tile[lane]);
    for (int y = rows[lane]; y <= last_row[lane]; ++y, row += size_t(grid.columns)) {
      for (int x = 0; x <= last_column[lane] - columns[lane]; ++x) f(row + size_t(x), lane);
    }
  }
}

// Eight points as entries, from point `first` on.
inline void pack(const PointOf<Float8>& p, int64_t first, Entry* to) {
#if defined(__AVX2__)
  static_assert(sizeof(Entry) == 4 * sizeof(float), "low half of the key first");
  const Int8 index = Int8(int(first)) + Int8::count();
  const Rows8 rows = interleave(p.u.v, p.v.v, _mm256_castsi256_ps(index.v), p.z.v);
  const __m256 pairs[] = {rows.r04, rows.r15, rows.r26, rows.r37};
  for (int i = 0; i < LANES / 2; ++i) {
    _mm_storeu_ps(&to[i].u, _mm256_castps256_ps128(pairs[i]));
    _mm_storeu_ps(&to[i + LANES / 2].u, _mm256_extractf128_ps(pairs[i], 1));
  }
#else
  for (int i = 0; i < LANES; ++i) {
    to[i] = {p.u.v[i], p.v.v[i], order_key(p.z.v[i], uint32_t(first) + uint32_t(i))};
  }
#endif
}
inline void pack(const PointOf<Float8>& p, int64_t first, SizedEntry* to) {
  Entry entries[LANES];
  float r[LANES];
  pack(p, first, entries);
  p.r.store(r);
  for (int i = 0; i < LANES; ++i) to[i] = {entries[i], r[i]};
}

}  // namespace kb
